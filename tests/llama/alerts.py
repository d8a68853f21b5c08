"""What the example should alert about, from what it prints without rules.

    alerts.py rules PLAIN.txt               prints rules: one feature that begins to fire in a
                                            generated token
    alerts.py check PLAIN.txt WATCHED.txt RULES.json
"""

import json
import re
import sys


def rows(lines):
    """The features of every token, from the lines that list them all."""
    return [dict(zip(numbers[::2], numbers[1::2]))
            for line in lines if " fire:" in line
            for numbers in [re.findall(r"  (\d+) (-?[\d.]+)", line.split(" fire:")[1])]
            for numbers in [[part for pair in numbers for part in pair]]]


def edges(found, feature):
    """The tokens at which a feature begins to fire."""
    return [at for at, row in enumerate(found)
            if feature in row and (at == 0 or feature not in found[at - 1])]


plain = open(sys.argv[2]).read().splitlines()
found = rows(plain)
if sys.argv[1] == "rules":
    generated = range(len(found) - 5, len(found))
    feature = next(f for at in generated for f in found[at] if f not in found[at - 1])
    rule = {"name": "begins", "kind": "threshold", "feature": int(feature), "over": 0}
    print(json.dumps({"rules": [rule], "labels": {feature: "a label"}}))
else:
    watched = open(sys.argv[3]).read().splitlines()
    rule = json.load(open(sys.argv[4]))["rules"][0]
    feature = str(rule["feature"])
    expected = edges(found, feature)
    assert len(expected) > 0 and expected[-1] >= len(found) - 5, "no alert while it generates"
    # Every alert stands below the row of its token, with the value there.
    lines = [line for line in watched if " fire:" in line or "ALERT" in line]
    token, alerts = -1, []
    for line in lines:
        if "ALERT" in line:
            alerts.append(token)
            value = found[token][feature]
            assert f"begins, score {value}:  {feature} {value} a label" in line, line
        else:
            token += 1
    assert alerts == expected, (alerts, expected)
    assert [line for line in watched if " fire:" in line] == [line for line in plain if " fire:" in line]
    assert f"  begins: {len(expected)}" in watched, watched[-3:]
    print(f"alerts at tokens {expected} of {len(found)}")
