"""Counts the tests of a log of `cargo test` per layer and prints what was skipped, by name.

usage: summary.py LOG [SKIPPED ...]
"""
import collections
import re
import sys

LAYERS = [  # (pattern of the test binary's source, layer)
    (r"tests/reference_agrees", "reference"),
    (r"tests/levels", "kernels, every level"),
    (r"tests/(golden|conventions|architectures|forms|traps|coverage)", "publishers' golden outputs"),
    (r"tests/digest", "digests"),
    (r"tests/(gpu|c_gpu|backends)", "on a GPU"),
    (r"tests/(properties|screen|batch)", "properties"),
    (r"tests/(hostile|containers|gguf|corpus|rejection|fuzz)", "hostile files"),
    (r"tests/c_", "C and C++ programs"),
    (r"tests/(steer|recipes|monitor)\b(?!_tool)", "steering and monitoring"),
    (r"tests/\w*tool", "the tool"),
    (r"tests/readme", "the README's programs"),
    (r"tests/(no_alloc|layering)", "allocations and layering"),
    (r"Doc-tests", "examples in the documentation"),
    (r"unittests", "unit tests"),
]

counts = collections.defaultdict(lambda: [0, 0, 0])
skipped = list(sys.argv[2:])
layer = "other"
for line in open(sys.argv[1], errors="replace"):
    running = re.match(r"\s+(?:Running|Doc-tests) (.*)", line)
    if running:
        layer = next((name for pattern, name in LAYERS if re.search(pattern, line)), "other")
    result = re.match(r"test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored", line)
    if result:
        for i, number in enumerate(result.groups()):
            counts[layer][i] += int(number)
    # With --nocapture the words may follow `test name ... ` on the same line.
    if found := re.search(r"\bskipped: (.*)", line):
        skipped.append(found.group(1))

print("\n== tests per layer")
for name, (passed, failed, ignored) in sorted(counts.items()):
    print(f"{name:<32}{passed:>5} passed {failed:>3} failed {ignored:>3} ignored")
for what in sorted(set(skipped)):
    print(f"skipped: {what}")
total = [sum(values[i] for values in counts.values()) for i in range(3)]
print(f"\n{total[0]} passed, {total[1]} failed, {len(set(skipped)) + total[2]} skipped")
