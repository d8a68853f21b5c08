//! The table of architectures in ARCHITECTURE.md: complete, and every test that it names is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rows, in order: what the field runs at inference time.
const ROWS: &[&str] = &[
    "ReLU",
    "ReLU, trained otherwise",
    "ReLU, not centred",
    "tanh-ReLU",
    "leaky ReLU",
    "Gated",
    "JumpReLU",
    "log thresholds",
    "Jump of overcomplete",
    "one threshold",
    "TopK",
    "TopK without ReLU",
    "TopK in units of decoder length",
    "gate on decoder length",
    "Multi-TopK",
    "GroupMax",
    "AbsTopK",
    "BatchTopK",
    "Matryoshka",
    "MSAE, HierarchicalTopK",
    "top-AFA",
    "Mutual Choice, Feature Choice",
    "g-SAE",
    "vSAE",
    "linear encoders of overcomplete",
    "normalised dictionaries",
    "archetypal dictionaries",
    "matching pursuit of SAELens",
    "matching pursuit of overcomplete",
    "OMP-SAE",
    "ITDA",
    "inference-time optimisation",
    "semi-NMF",
    "VL-SAE",
    "codebook features",
    "transcoder",
    "skip transcoder",
    "JumpReLU transcoder",
    "crosscoder",
    "cross-layer transcoder",
    "multi-target coder",
    "MLSAE",
    "boosting, residual stacks",
    "ensembles",
    "PatchSAE",
    "SAeUron, sdxl-unbox",
    "Lorsa",
    "MOLT",
    "GLU encoder",
    "temporal SAE",
    "T-SAE",
    "lifted SAE, neural operators",
    "switch SAE, RouteSAE",
];

struct Row {
    name: String,
    runs: String,
    how: String,
    tests: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, table) = text
        .split_once("| architecture | runs | how, or why not | proven by |\n")
        .expect("the table of architectures");
    let lines = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let &[name, runs, how, tests] = cells.as_slice() else {
                panic!("`{line}` has not four cells");
            };
            let own = str::to_string;
            Row {
                name: own(name),
                runs: own(runs),
                how: own(how),
                tests: own(tests),
            }
        })
        .collect()
}

/// Test functions of every file of the tests, by the name of the file or of its folder's module.
fn tests() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![root().join("tests"), root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line == "#[test]" {
                    is_test = true;
                } else if let (true, Some(rest)) = (is_test, line.strip_prefix("fn ")) {
                    let name = rest.split('(').next().unwrap().to_string();
                    found.entry(stem.clone()).or_default().push(name);
                    is_test = false;
                }
            }
        }
    }
    found
}

#[test]
fn every_architecture_of_the_field_has_its_row() {
    let names: Vec<String> = rows().into_iter().map(|row| row.name).collect();
    assert_eq!(names, ROWS);
}

#[test]
fn every_row_names_tests_that_exist_or_a_reason() {
    let known = tests();
    assert!(known.len() > 20, "does the reader still work?");
    let mut named = 0;
    for row in rows() {
        assert!(row.how.len() > 10, "{}: how?", row.name);
        match row.runs.as_str() {
            "yes" => assert!(row.tests.contains("::"), "{}: no test", row.name),
            // What does not run may name the test that it is refused by name.
            "no" if row.tests.is_empty() => continue,
            "no" => {}
            other => panic!("{}: `{other}` is neither yes nor no", row.name),
        }
        for test in row.tests.split(", ") {
            let test = test.trim_matches('`');
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("`{test}`"));
            let functions = known.get(file);
            assert!(
                functions.is_some_and(|all| all.iter().any(|function| function == name)),
                "{}: there is no test `{test}`",
                row.name
            );
            named += 1;
        }
    }
    assert!(named > 60, "only {named} tests are named");
}
