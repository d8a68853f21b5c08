//! The header is the contract: what `include/sae.h` declares, what `ffi/src` defines, what the
//! library exports and what `tests/c/abi.c` pins are the same, and every item has a comment.

#[path = "c/support.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use support::{Profile, WARNINGS, library, root, run, tool};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The C headers, one after the other.
fn headers() -> String {
    HEADERS
        .iter()
        .map(|name| read(&format!("include/{name}")))
        .collect()
}

/// The C headers that make up the interface.
const HEADERS: &[&str] = &[
    "sae.h",
    "sae_steer.h",
    "sae_architectures.h",
    "sae_monitor.h",
];

/// A text without its C comments and preprocessor lines.
fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        kept += before;
        rest = after.split_once("*/").unwrap().1;
    }
    kept += rest;
    let code = kept.lines().filter(|line| !line.starts_with('#'));
    code.flat_map(|line| [line, "\n"]).collect()
}

/// Functions by name, with the names of their parameters in order.
type Functions = BTreeMap<String, Vec<String>>;

/// The last word of a C declaration: `const sae_model *model` to `model`.
fn last_word(text: &str) -> &str {
    let end = text.trim_end_matches([')', ' ', '\n']);
    let start = end.rfind(|c: char| !c.is_alphanumeric() && c != '_');
    &end[start.map_or(0, |start| start + 1)..]
}

/// The functions that the header declares.
fn declared() -> Functions {
    let text = without_comments(&headers());
    let mut functions = Functions::new();
    for declaration in text.split("SAE_API").skip(1) {
        let (head, rest) = declaration.split_once('(').unwrap();
        let (parameters, _) = rest.split_once(';').unwrap();
        let parameters = parameters.trim().trim_end_matches(')');
        let names = match parameters.trim() {
            "void" => Vec::new(),
            list => list
                .split(',')
                .map(|one| last_word(one).to_string())
                .collect(),
        };
        functions.insert(last_word(head).to_string(), names);
    }
    functions
}

/// The functions that the Rust side exports.
fn defined() -> Functions {
    let mut functions = Functions::new();
    for entry in fs::read_dir(root().join("ffi/src")).unwrap() {
        let path = entry.unwrap().path();
        // What a library without std needs of its host is no part of the interface, and what a
        // feature adds has a header and a test of its own (c_gpu.rs).
        if path.ends_with("bare.rs") || path.ends_with("gpu.rs") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let exports = text.split("#[unsafe(no_mangle)]\n").skip(1);
        for function in exports {
            let start = "pub unsafe extern \"C\" fn ";
            let head = function.strip_prefix(start).unwrap_or_else(|| {
                panic!("not `{start}`: {}", function.lines().next().unwrap());
            });
            let (name, rest) = head.split_once('(').unwrap();
            let (list, _) = rest.split_once(") ").unwrap();
            let parameters = list.split(',').map(str::trim).filter(|one| !one.is_empty());
            let names = parameters.map(|one| one.split_once(':').unwrap().0.to_string());
            functions.insert(name.to_string(), names.collect());
        }
        // Types of functions have no name behind the `fn`; private ones are handed to hosts.
        let unmarked = text.matches("extern \"C\" fn ").count()
            - text.matches("pub unsafe extern \"C\" fn ").count()
            - text.matches("\nunsafe extern \"C\" fn ").count();
        assert_eq!(unmarked, 0, "an `extern \"C\" fn` that is not `pub unsafe`");
    }
    functions
}

#[test]
fn header_and_source_have_the_same_functions_and_parameters() {
    let (declared, defined) = (declared(), defined());
    assert!(declared.len() > 20, "does the reader still work?");
    assert_eq!(declared, defined);
}

#[test]
fn the_shared_library_exports_what_the_header_declares() {
    let Some(nm) = tool("nm") else { return };
    let file = library(Profile::Release).join("libsae.so");
    let symbols = run(Command::new(nm).args(["-D", "--defined-only"]).arg(file));
    let exported: BTreeSet<String> = symbols
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap().to_string())
        .collect();
    assert_eq!(exported, declared().into_keys().collect());
}

/// The last parameter is the error wherever a status is returned, handles come first, and names
/// follow one scheme.
#[test]
fn functions_follow_the_order_of_arguments() {
    let text = without_comments(&headers());
    for (name, parameters) in declared() {
        assert!(name.starts_with("sae_"), "{name}");
        let returns_status = text.contains(&format!("sae_status {name}("));
        let last = parameters.last().map(String::as_str);
        assert_eq!(returns_status, last == Some("error"), "{name}");
        let model = parameters.iter().position(|parameter| parameter == "model");
        // Opening gives a model, everything else begins with it.
        let expected = if name.starts_with("sae_model_open") {
            parameters.len() - 2
        } else {
            0
        };
        assert!(model.is_none_or(|at| at == expected), "{name}");
    }
}

/// Every function, type, struct field, enumerator and macro of the header stands below a comment.
#[test]
fn every_item_has_a_comment() {
    let text = headers();
    let mut items = 0;
    // Parentheses that are open, and whether a comment stands above.
    let (mut open, mut commented) = (0, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("/*") || line.starts_with('*') {
            commented = true;
            continue;
        }
        // What only opens or closes a block, and macros that serve the header itself.
        let bare = line.starts_with('#') && !line.starts_with("#define SAE_")
            || line.starts_with('}')
            || line.is_empty()
            || [
                "enum {",
                "extern \"C\" {",
                "#define SAE_H",
                "#define SAE_STEER_H",
                "#define SAE_MONITOR_H",
                "#define SAE_ARCHITECTURES_H",
            ]
            .contains(&line)
            || line.starts_with("#define SAE_API");
        if open == 0 && !bare {
            items += 1;
            // The parts of the version share a comment.
            let shared = line.starts_with("#define SAE_VERSION");
            assert!(
                commented || shared,
                "line {}: `{line}` has no comment",
                number + 1
            );
        }
        open += line.matches('(').count();
        open -= line.matches(')').count();
        // The rest of a macro of several lines belongs to its comment.
        commented = commented && line.ends_with('\\');
    }
    assert!(
        items > 100,
        "only {items} items: does the reader still work?"
    );
}

/// `(name, number)` of every enumerator.
fn enumerators(text: &str, between: [&str; 2]) -> BTreeMap<String, String> {
    let [start, end] = between;
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix(start) else {
            continue;
        };
        let Some((name, rest)) = rest.split_once(end) else {
            continue;
        };
        // In Rust the type stands between.
        let number = rest.rsplit("= ").next().unwrap();
        let number = number
            .trim_end_matches([',', ';'])
            .split([',', ' '])
            .next()
            .unwrap();
        if name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        {
            found.insert(name.to_string(), number.to_string());
        }
    }
    found
}

#[test]
fn enumerators_are_the_same_in_the_header_in_rust_and_pinned() {
    let header = without_comments(&headers());
    let in_header = enumerators(&header, ["SAE_", " = "]);
    let in_rust = enumerators(
        &read("ffi/src/types.rs"),
        ["pub(crate) const SAE_", ": sae_"],
    );
    let pinned = enumerators(&read("tests/c/abi.c"), ["static_assert(SAE_", " == "]);
    let pinned: BTreeMap<_, _> = pinned
        .into_iter()
        .filter(|(name, _)| name != "VERSION_NUMBER")
        .collect();
    assert!(in_header.len() > 30, "does the reader still work?");
    assert_eq!(in_header, in_rust);
    assert_eq!(in_header, pinned);
    // The library's codes are all there.
    for code in 2..=20 {
        assert!(in_header.values().any(|number| *number == code.to_string()));
    }
}

/// Sizes of structs and offsets of fields, as `what -> expression`.
fn layout(text: &str, assertion: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix(assertion) else {
            continue;
        };
        let rest = rest
            .replace("offset_of!", "offsetof")
            .replace("size_of::<", "sizeof(")
            .replace(">()", ")");
        let Some((what, value)) = rest.split_once(" == ") else {
            continue;
        };
        // Sizes of numbers, and of what is not the header's, are asserted on one side only.
        let number = [
            "status", "check", "text", "dtype", "point", "verdict", "level",
        ]
        .map(|name| format!("{name})"));
        let number = what.starts_with("size") && number.iter().any(|name| what.ends_with(name));
        if what.contains("of(sae_") && !number {
            let value = value.split([',', ';']).next().unwrap();
            found.insert(what.to_string(), value.trim_end_matches(')').to_string());
        }
    }
    found
}

#[test]
fn struct_layouts_are_asserted_alike_on_both_sides() {
    let in_c = layout(&read("tests/c/abi.c"), "static_assert(");
    let in_rust = layout(&read("ffi/src/types.rs"), "assert!(");
    assert!(in_c.len() > 35, "does the reader still work?");
    assert_eq!(in_c, in_rust);
    // Every field of every struct of the header.
    let header = without_comments(&headers());
    for structure in header.split("typedef struct ").skip(1) {
        let Some((head, rest)) = structure.split_once(" {\n") else {
            continue;
        };
        let Some((fields, _)) = rest.split_once("\n}") else {
            continue;
        };
        if head.contains(';') {
            continue;
        }
        for field in fields
            .split(';')
            .map(str::trim)
            .filter(|field| !field.is_empty())
        {
            let name = last_word(field.split('[').next().unwrap());
            let key = format!("offsetof({head}, {name})");
            assert!(in_c.contains_key(&key), "`{key}` is not pinned");
        }
    }
}

#[test]
fn versions_agree() {
    let header = read("include/sae.h");
    let value = |name: &str| {
        let start = format!("#define {name} ");
        let line = header.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no `{name}`")).to_string()
    };
    let parts = ["MAJOR", "MINOR", "PATCH"].map(|part| value(&format!("SAE_VERSION_{part}")));
    assert_eq!(parts.join("."), env!("CARGO_PKG_VERSION"));
    assert_eq!(
        value("SAE_VERSION"),
        format!("\"{}\"", env!("CARGO_PKG_VERSION"))
    );
    let source = read("ffi/src/types.rs");
    let abi = format!("SAE_ABI_VERSION: u32 = {};", value("SAE_ABI_VERSION"));
    assert!(source.contains(&abi));
    // That the running library says the same is checked by smoke.c, and the composed number by
    // abi.c.
}

#[test]
fn headers_compile_without_a_warning() {
    let mut compiled = 0;
    let compilers = [("gcc", "g++"), ("clang", "clang++"), ("cc", "c++")];
    for (c, cpp) in compilers {
        let check = |compiler: &std::path::Path, standard: &str, language: &str, file| {
            let mut command = Command::new(compiler);
            command.arg(format!("-std={standard}")).args(WARNINGS);
            command.args(["-fsyntax-only", "-x", language, "-I"]);
            command.arg(root().join("include"));
            if language == "c" {
                command.args(["-Wstrict-prototypes", "-Wconversion"]);
            }
            run(command.arg(file));
        };
        if let Some(c) = tool(c) {
            for standard in ["c11", "c17"] {
                for name in HEADERS {
                    check(&c, standard, "c", root().join("include").join(name));
                }
                check(&c, standard, "c", root().join("tests/c/abi.c"));
                compiled += 1;
            }
        }
        if let Some(cpp) = tool(cpp) {
            for standard in ["c++17", "c++20"] {
                for name in HEADERS {
                    check(&cpp, standard, "c++", root().join("include").join(name));
                }
                for name in ["sae.hpp", "sae_monitor.hpp"] {
                    check(&cpp, standard, "c++", root().join("include").join(name));
                }
                check(&cpp, standard, "c++", root().join("tests/c/abi.c"));
                compiled += 1;
            }
        }
    }
    println!("{compiled} compilers and standards");
}

#[test]
fn every_function_is_called_with_null_and_described_in_the_manual() {
    let null = read("tests/c/null.c");
    let manual = read("ffi/README.md");
    for name in declared().into_keys() {
        let call = format!("{name}(");
        assert!(manual.contains(&call), "the manual lacks {name}");
        let mut calls = null.split(&call).skip(1).peekable();
        assert!(calls.peek().is_some(), "null.c lacks {name}");
        // These take no pointer.
        let numbers = [
            "sae_version",
            "sae_abi_version",
            "sae_status_text",
            "sae_level_name",
        ];
        let with_null = calls.any(|rest| rest.split(';').next().unwrap().contains("NULL"));
        assert!(
            with_null || numbers.contains(&name.as_str()),
            "{name} without NULL"
        );
    }
}

/// Prototypes in the manual are those of the header.
#[test]
fn the_manual_quotes_the_header() {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let header = flat(&without_comments(&headers()).replace("SAE_API ", ""));
    let manual = read("ffi/README.md");
    let mut prototypes = 0;
    for block in manual.split("```c\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for prototype in block.split_inclusive(";\n").filter(|text| {
            text.starts_with("sae_status sae_")
                || text.starts_with("size_t sae_")
                || text.starts_with("void sae_")
        }) {
            let prototype = flat(prototype);
            assert!(
                header.contains(&prototype),
                "not in the header: {prototype}"
            );
            prototypes += 1;
        }
    }
    assert!(
        prototypes > 15,
        "only {prototypes} prototypes: does the reader still work?"
    );
}
