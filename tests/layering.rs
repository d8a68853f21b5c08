//! One direction: the `crate::` and `super::` paths of `src/` form no edge that is not in the
//! table below, so nothing that turns bytes into a model knows what is done with the model, and
//! kernels know nothing at all. And `unsafe` stays where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a module may name. Order: later ones build on earlier ones, which the last test
/// checks, so the table itself cannot hold a cycle. Modules on one line are one layer and may
/// name each other.
const TABLE: &[(&[&str], &[&str])] = &[
    // Leaves.
    (&["kernels"], &[]),
    (&["error", "dtype"], &[]),
    (&["bytes", "json"], &["error"]),
    (&["tensor"], &["bytes", "dtype", "error"]),
    (&["rows", "rows_mut"], &["dtype", "error"]),
    (&["features"], &["error"]),
    (&["mmap"], &["bytes", "error"]),
    // Bytes to named tensors; knows no model.
    (
        &["container"],
        &["bytes", "dtype", "error", "mmap", "tensor"],
    ),
    // Which rows of an encoder can matter for a row: numbers in, candidates out.
    (&["screen"], &["bytes", "error", "kernels", "mmap"]),
    // The model; knows no file and no publisher.
    (
        &["model"],
        &["bytes", "dtype", "error", "kernels", "screen", "tensor"],
    ),
    // Named tensors to the model.
    (
        &["convention"],
        &[
            "container",
            "dtype",
            "error",
            "kernels",
            "model",
            "screen",
            "tensor",
        ],
    ),
    // What is done with rows and features.
    (
        &[
            "blocked", "encode", "ensemble", "select", "screened", "pursuit", "decode", "readout",
            "scratch", "sites", "written",
        ],
        &[
            "dtype", "error", "features", "kernels", "model", "rows", "screen",
        ],
    ),
    // Vectors of other programs, as files.
    (
        &["control_vector"],
        &["bytes", "container", "dtype", "error", "tensor"],
    ),
    // What features are called, from files.
    (&["labels"], &["bytes", "container", "error", "mmap"]),
    // Plans: what is written into rows.
    (
        &["steer"],
        &[
            "decode", "dtype", "encode", "error", "features", "json", "kernels", "labels", "model",
            "readout", "rows", "rows_mut", "scratch", "select", "written",
        ],
    ),
    // What is counted and watched; gives the statistics and lists that plans refer to.
    (
        &["monitor"],
        &[
            "decode", "error", "features", "json", "kernels", "model", "readout", "rows",
            "scratch", "steer",
        ],
    ),
    // Comparing models and features.
    (
        &["analysis"],
        &[
            "dtype", "error", "features", "kernels", "model", "monitor", "rows",
        ],
    ),
    // What is built on those.
    (
        &[
            "batch",
            "cross_layer",
            "fit",
            "importance",
            "lorsa",
            "molt",
            "part",
        ],
        &[
            "decode", "dtype", "encode", "error", "features", "kernels", "model", "monitor",
            "readout", "rows", "rows_mut", "scratch", "select", "steer", "written",
        ],
    ),
    // Encoding on a device.
    (
        &["gpu"],
        &[
            "decode", "dtype", "encode", "error", "features", "kernels", "model", "rows",
            "scratch", "select", "rows_mut",
        ],
    ),
    // Whether a packed model gives what it gave when it was written.
    (
        &["self_test"],
        &[
            "decode", "encode", "error", "features", "model", "rows", "scratch", "tensor",
        ],
    ),
    // From a path or bytes to the model: the one place that knows both ends.
    (
        &["open"],
        &[
            "bytes",
            "container",
            "convention",
            "error",
            "kernels",
            "lorsa",
            "mmap",
            "model",
            "molt",
            "screen",
            "self_test",
        ],
    ),
    // Whether a model is whole, and reads these rows.
    (
        &["verify"],
        &[
            "decode",
            "encode",
            "error",
            "features",
            "model",
            "rows",
            "scratch",
            "self_test",
        ],
    ),
    // And back: from a model to a file.
    (
        &["pack"],
        &[
            "container",
            "convention",
            "dtype",
            "error",
            "kernels",
            "mmap",
            "model",
            "open",
            "rows",
            "screen",
            "self_test",
        ],
    ),
];

/// Where `unsafe` and `allow(unsafe_code)` may stand.
const UNSAFE: &[&str] = &["src/kernels/", "src/mmap.rs", "ffi/src/"];

/// Lints that the workspace denies and that no file may allow again.
const DENIED: &[&str] = &[
    "unsafe_op_in_unsafe_fn",
    "missing_docs",
    "undocumented_unsafe_blocks",
    "missing_safety_doc",
    "multiple_unsafe_ops_per_block",
    "broken_intra_doc_links",
];

#[test]
fn modules_name_only_what_the_table_allows() {
    let exports = root_exports();
    let mut wrong = BTreeSet::new();
    let mut edges = 0;
    for (path, tokens) in sources("src") {
        let Some(module) = module_of(&path) else {
            continue;
        };
        let allowed = allowed(&module);
        for name in root_names(&tokens, depth_of(&path)) {
            let target = exports.get(&name).unwrap_or(&name);
            if *target == module {
                continue;
            }
            edges += 1;
            if !allowed.contains(target.as_str()) {
                wrong.insert(format!("{}: `{module}` names `{target}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not in the table: {wrong:#?}");
    assert!(
        edges > 20,
        "only {edges} edges were found: does the reader still work?"
    );
}

#[test]
fn the_table_points_one_way() {
    let mut before: BTreeSet<&str> = BTreeSet::new();
    for (layer, below) in TABLE {
        for name in *below {
            assert!(
                before.contains(name),
                "{layer:?} names {name}, which comes later"
            );
        }
        before.extend(*layer);
    }
}

#[test]
fn every_module_is_in_the_table() {
    let mut modules: Vec<String> = sources("src")
        .iter()
        .filter_map(|(path, _)| module_of(path))
        .collect();
    modules.dedup();
    let known = |module: &String| TABLE.iter().any(|row| row.0.contains(&module.as_str()));
    let unknown: Vec<_> = modules.iter().filter(|module| !known(module)).collect();
    assert!(unknown.is_empty(), "give {unknown:?} a line in TABLE");
}

#[test]
fn unsafe_stays_in_its_places() {
    let mut seen = false;
    for (path, tokens) in sources("src").into_iter().chain(sources("ffi/src")) {
        let here = path.to_str().unwrap().replace('\\', "/");
        let allowed = UNSAFE.iter().any(|place| here.starts_with(place));
        for word in ["unsafe", "unsafe_code"] {
            let found = tokens.iter().any(|token| token == word);
            assert!(allowed || !found, "{here}: `{word}`");
            seen |= found;
        }
    }
    assert!(seen, "no `unsafe` at all: does the reader still work?");
}

#[test]
fn denied_lints_are_not_allowed_again() {
    for folder in ["src", "ffi/src"] {
        for (path, tokens) in sources(folder) {
            for attribute in attributes(&tokens) {
                let loosens = attribute
                    .iter()
                    .any(|t| t == "allow" || t == "expect" || t == "warn");
                let lint = attribute.iter().find(|t| DENIED.contains(&t.as_str()));
                assert!(
                    !loosens || lint.is_none(),
                    "{}: {attribute:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn kernels_import_core_only() {
    for (path, tokens) in sources("src/kernels") {
        for root in ["alloc", "std", "half", "bytemuck", "libm"] {
            // AArch64 programs cannot ask their CPU: the standard library asks the system.
            let may_ask = root == "std" && path.ends_with("detect.rs");
            let found = tokens
                .windows(3)
                .any(|next| next[0] == root && next[1] == "::" && !(may_ask && next[2] == "arch"));
            assert!(!found, "{}: `{root}::`", path.display());
        }
    }
}

/// The modules that `module` may name.
fn allowed(module: &str) -> BTreeSet<&'static str> {
    let rows = TABLE.iter().filter(|row| row.0.contains(&module));
    rows.flat_map(|row| row.0.iter().chain(row.1))
        .copied()
        .collect()
}

/// The top-level module that a file belongs to: `src/sae/mod.rs` to `sae`. None for the root and
/// for the tool, which is another crate.
fn module_of(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    match parts[1..] {
        ["lib.rs"] | ["bin", ..] => None,
        [first, ..] => Some(first.trim_end_matches(".rs").to_string()),
        [] => None,
    }
}

/// How many modules lie between a file's items and the root, itself included.
fn depth_of(path: &Path) -> usize {
    path.iter().count() - 1 - usize::from(path.ends_with("mod.rs"))
}

/// What the root re-exports under another path: `Features` is in `features`.
fn root_exports() -> BTreeMap<String, String> {
    let (_, tokens) = sources("src").remove(
        sources("src")
            .iter()
            .position(|(path, _)| path.ends_with("lib.rs"))
            .unwrap(),
    );
    let mut exports = BTreeMap::new();
    let mut rest = &tokens[..];
    while let Some(at) = rest
        .windows(2)
        .position(|pair| pair[0] == "pub" && pair[1] == "use")
    {
        rest = &rest[at + 2..];
        let end = rest.iter().position(|token| token == ";").unwrap();
        for token in &rest[1..end] {
            if token.starts_with(|c: char| c.is_uppercase()) {
                exports.insert(token.clone(), rest[0].clone());
            }
        }
    }
    exports
}

/// The first names of all paths that start at the crate's root.
fn root_names(tokens: &[String], file_depth: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inline = vec![]; // brace depths at which inline modules began
    let mut braces = 0;
    let mut i = 0;
    while i < tokens.len() {
        let mut after_path = None;
        match tokens[i].as_str() {
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                inline.retain(|&began| began < braces);
            }
            "mod" if tokens.get(i + 2).is_some_and(|token| token == "{") => inline.push(braces),
            "crate" if tokens.get(i + 1).is_some_and(|token| token == "::") => {
                after_path = Some(i + 2);
            }
            "super" => {
                let mut supers = 0;
                while tokens[i] == "super" && tokens[i + 1] == "::" {
                    supers += 1;
                    i += 2;
                }
                if supers == file_depth + inline.len() {
                    after_path = Some(i);
                }
                if supers > 0 {
                    i -= 1; // the loop steps on
                }
            }
            _ => {}
        }
        if let Some(start) = after_path {
            names.extend(first_names(&tokens[start..]));
        }
        i += 1;
    }
    names
}

/// `a::b` gives a; `{a, b::{c, d}, E}` gives a, b, E.
fn first_names(tokens: &[String]) -> Vec<String> {
    if tokens[0] != "{" {
        return vec![tokens[0].clone()];
    }
    let mut names = vec![];
    let mut depth = 0;
    for pair in tokens.windows(2) {
        match pair[0].as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        let begins = pair[0] == "{" || pair[0] == ",";
        if begins && depth == 1 && pair[1] != "}" {
            names.push(pair[1].clone());
        }
    }
    names
}

/// The contents of `#[...]` and `#![...]`.
fn attributes(tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = vec![];
    for start in 0..tokens.len() {
        let open = match (
            tokens.get(start),
            tokens.get(start + 1),
            tokens.get(start + 2),
        ) {
            (Some(hash), Some(bracket), _) if hash == "#" && bracket == "[" => start + 2,
            (Some(hash), Some(bang), Some(bracket))
                if hash == "#" && bang == "!" && bracket == "[" =>
            {
                start + 3
            }
            _ => continue,
        };
        let end = tokens[open..].iter().position(|token| token == "]");
        found.push(tokens[open..open + end.unwrap_or(0)].to_vec());
    }
    found
}

/// All Rust files below a folder, with their tokens; paths relative to the repository.
fn sources(folder: &str) -> Vec<(PathBuf, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![PathBuf::from(folder)];
    let mut found = vec![];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root.join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(root.join(&path)).unwrap();
                found.push((path, tokens(&text)));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Identifiers, `::` and single characters; no comments, literals or white space.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = vec![];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string_end(rest)
        } else if let Some(end) = raw_string_end(rest) {
            end
        } else if c == '\'' {
            character_end(rest)
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let end = end.unwrap_or(rest.len());
            tokens.push(rest[..end].to_string());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_string());
            2
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[skip..];
    }
    tokens
}

/// Length of a string literal that starts here.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a raw string literal, if one starts here.
fn raw_string_end(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close)?;
    Some(text.len() - body.len() + end + close.len())
}

/// Length of a character literal, or 1 for the quote of a lifetime.
fn character_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((next, _))) => {
            // After the escaped character, which may itself be a quote.
            let from = next + 1;
            text[from..].find('\'').map_or(1, |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[test]
fn the_reader_reads_rust() {
    let text = r##"
        // use crate::comment;
        use crate::{a, b::{c, d}, E};
        mod inner { use super::super::f; use super::own; fn g<'a>() { '\''; "crate::no"; crate::h() } }
        use super::i; /* crate::no */ r#"crate::no"#;
        #[allow(missing_docs)] fn j() {}
    "##;
    let tokens = tokens(text);
    let names: Vec<String> = root_names(&tokens, 1).into_iter().collect();
    assert_eq!(names, ["E", "a", "b", "f", "h", "i"]);
    assert_eq!(attributes(&tokens), [["allow", "(", "missing_docs", ")"]]);
}
