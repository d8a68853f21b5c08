//! The `sae` tool, run as a person or a script runs it: what it prints and writes, its exit codes,
//! and what it says about bad input.

mod reference;

use reference::fixture::{Case, case};
use reference::read::{self, Array, Arrays};
use serde_json::Value;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The checkpoint that the tool embeds, as files.
fn demo_checkpoint() -> String {
    format!("{ROOT}/src/bin/sae/demo/sae")
}

fn demo_rows() -> String {
    format!("{ROOT}/src/bin/sae/demo/activations.npy")
}

fn sae(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sae"));
    command.args(arguments).env_remove("NO_COLOR");
    command
}

fn run(arguments: &[&str]) -> Output {
    sae(arguments).output().unwrap()
}

/// Stdout of a run that must succeed and say nothing on stderr.
fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// An empty folder of the test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("tool")
        .join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().into()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
        .into_iter()
        .map(|name| name.into_string().unwrap())
        .collect()
}

/// An npy file of version 1.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(dict.len() as u16).to_le_bytes());
    file.extend_from_slice(dict.as_bytes());
    file.extend_from_slice(data);
    file
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// `--set` arguments of a case.
fn given(case: &Case) -> Vec<String> {
    let pairs = case.given.iter();
    pairs
        .flat_map(|(key, value)| ["--set".into(), format!("{key}={value}")])
        .collect()
}

/// The rows of a case as a file.
fn rows_file(case: &Case, folder: &Path) -> String {
    let rows = path(folder, "rows.npy");
    let shape = format!("({}, {})", case.n, case.d_in);
    fs::write(&rows, npy("<f4", &shape, &little_endian(&case.rows))).unwrap();
    rows
}

/// The dense features of an npz file that `sae encode` wrote.
fn dense(arrays: &Arrays) -> Array {
    let shape: Vec<usize> = arrays["shape"]
        .values
        .iter()
        .map(|&size| size as usize)
        .collect();
    let ends: Vec<usize> = arrays["indptr"]
        .values
        .iter()
        .map(|&end| end as usize)
        .collect();
    assert_eq!(ends.len(), shape[0] + 1);
    assert_eq!(ends[0], 0);
    assert_eq!(arrays["indices"].shape, [ends[shape[0]]]);
    assert_eq!(arrays["values"].shape, [ends[shape[0]]]);
    let mut values = vec![0.0; shape[0] * shape[1]];
    for row in 0..shape[0] {
        let indices = &arrays["indices"].values[ends[row]..ends[row + 1]];
        assert!(
            indices.is_sorted_by(|a, b| a < b),
            "row {row} is not ascending"
        );
        for (index, value) in indices.iter().zip(&arrays["values"].values[ends[row]..]) {
            values[row * shape[1] + *index as usize] = *value;
        }
    }
    Array { shape, values }
}

#[test]
fn encode_writes_what_the_publishers_compute() {
    let folder = folder("encode_golden");
    for name in [
        "demo",
        "gemma_scope_1_res",
        "saelens_topk",
        "saelens_standard_layer_norm",
        "saelens_skip_transcoder",
        "saelens_standard_expected_average",
    ] {
        let case = case(name);
        let rows = rows_file(&case, &folder);
        let out = path(&folder, "out.npz");
        let mut arguments = vec!["encode", case.checkpoint.to_str().unwrap(), &rows];
        arguments.extend(["-o", &out, "--decode"]);
        let given = given(&case);
        arguments.extend(given.iter().map(String::as_str));
        assert_eq!(stdout(&arguments), "");

        let arrays = read::npz(&fs::read(&out).unwrap());
        let found: Vec<&str> = arrays.keys().map(String::as_str).collect();
        assert_eq!(found, ["indices", "indptr", "recon", "shape", "values"]);
        let features = dense(&arrays);
        assert_eq!(features.shape, [case.n, case.d_sae]);
        let golden = case.golden("features").unwrap();
        for (found, expected) in features.values.chunks(case.d_sae).zip(&golden) {
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(*found == 0.0, *expected == 0.0, "{name}");
                assert!(
                    (found - expected).abs() <= 1e-4 * expected.abs().max(0.1),
                    "{name}"
                );
            }
        }
        let recon = &arrays["recon"];
        assert_eq!(recon.shape, [case.n, case.d_out]);
        let golden = case.golden("recon").unwrap();
        for (found, expected) in recon.values.chunks(case.d_out).zip(&golden) {
            let largest = expected
                .iter()
                .fold(1.0, |most: f64, value| most.max(value.abs()));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-4 * largest, "{name}");
            }
        }
    }
    assert_eq!(
        names(&folder),
        ["out.npz", "rows.npy"],
        "no temporary file stays"
    );
}

#[test]
fn encode_does_not_depend_on_threads_levels_or_copies() {
    let folder = folder("encode_same");
    let (model, rows) = (demo_checkpoint(), demo_rows());
    let encode = |name: &str, more: &[&str]| {
        let out = path(&folder, name);
        let mut arguments = vec!["encode", &model, &rows, "-o", &out, "--decode"];
        arguments.extend(more);
        stdout(&arguments);
        fs::read(out).unwrap()
    };
    let expected = encode("all.npz", &[]);
    assert_eq!(encode("one.npz", &["--threads", "1"]), expected);
    assert_eq!(encode("seven.npz", &["--threads", "7"]), expected);
    assert_eq!(encode("prepared.npz", &["--prepare"]), expected);
    for level in stdout(&["levels"]).lines() {
        let level = level.split_whitespace().next().unwrap();
        assert_eq!(
            encode("level.npz", &["--level", level]),
            expected,
            "{level}"
        );
    }
}

#[test]
fn rows_may_have_other_formats_and_shapes() {
    let folder = folder("row_formats");
    let case = case("saelens_topk");
    let model = case.checkpoint.to_str().unwrap();
    // Values that f16 holds, so that every format says the same.
    let values: Vec<f32> = (0..2 * case.d_in)
        .map(|i| (i * 37 % 251) as f32 / 64.0 - 2.0)
        .collect();
    let half = values
        .iter()
        .flat_map(|&v| half::f16::from_f32(v).to_le_bytes())
        .collect();
    let double = values
        .iter()
        .flat_map(|&v| f64::from(v).to_le_bytes())
        .collect();
    let big = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    let encode = |descr: &str, shape: &str, data: Vec<u8>| {
        let (rows, out) = (path(&folder, "rows.npy"), path(&folder, "out.npz"));
        fs::write(&rows, npy(descr, shape, &data)).unwrap();
        let output = run(&["encode", model, &rows, "-o", &out]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{descr} {}",
            text(&output.stderr)
        );
        (fs::read(out).unwrap(), text(&output.stderr))
    };
    let matrix = format!("(2, {})", case.d_in);
    let (expected, said) = encode("<f4", &matrix, little_endian(&values));
    assert_eq!(said, "");
    assert_eq!(
        encode("<f2", &matrix, half),
        (expected.clone(), String::new())
    );
    assert_eq!(
        encode(">f4", &matrix, big),
        (expected.clone(), String::new())
    );
    let (found, said) = encode("<f8", &matrix, double);
    assert_eq!(found, expected);
    assert!(
        said.starts_with("note: ") && said.contains("rows.npy: float64"),
        "{said}"
    );
    let heads = format!("(2, 4, {})", case.d_in / 4);
    assert_eq!(encode("<f4", &heads, little_endian(&values)).0, expected);
    let (one, _) = encode(
        "<f4",
        &format!("({},)", case.d_in),
        little_endian(&values[..case.d_in]),
    );
    assert_eq!(dense(&read::npz(&one)).shape, [1, case.d_sae]);
    let (none, _) = encode("<f4", &format!("(0, {})", case.d_in), Vec::new());
    assert_eq!(dense(&read::npz(&none)).shape, [0, case.d_sae]);
}

#[test]
fn rows_that_are_not_finite_are_reported_and_the_others_proceed() {
    let folder = folder("non_finite");
    let case = case("saelens_topk");
    let model = case.checkpoint.to_str().unwrap();
    let mut values = case.rows[..4 * case.d_in].to_vec();
    values[case.d_in + 3] = f32::NAN;
    values[3 * case.d_in] = f32::INFINITY;
    let (rows, out) = (path(&folder, "rows.npy"), path(&folder, "out.npz"));
    let shape = format!("(4, {})", case.d_in);
    fs::write(&rows, npy("<f4", &shape, &little_endian(&values))).unwrap();
    let output = run(&["encode", model, &rows, "-o", &out, "--decode"]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("warning: ") && said.contains("rows.npy: 2 of 4 rows"),
        "{said}"
    );
    assert!(said.trim_end().ends_with(": 1, 3"), "{said}");
    let arrays = read::npz(&fs::read(&out).unwrap());
    let features = dense(&arrays);
    for (row, fired) in features.values.chunks(case.d_sae).enumerate() {
        assert_eq!(fired.iter().any(|&value| value != 0.0), row % 2 == 0);
    }
    for (row, recon) in arrays["recon"].values.chunks(case.d_out).enumerate() {
        assert_eq!(recon.iter().all(|value| value.is_nan()), row % 2 == 1);
        assert_eq!(recon.iter().any(|value| value.is_nan()), row % 2 == 1);
    }

    let output = run(&["readout", model, &rows, "--features", "0,1"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("2 of 4 rows"));
    let lines: Vec<String> = text(&output.stdout).lines().map(String::from).collect();
    assert_eq!(lines[2], "1\tnan\tnan");
    assert!(!lines[1].contains("nan"));
}

#[test]
fn readout_prints_and_writes_the_values_that_encode_gives() {
    let folder = folder("readout");
    let (model, rows) = (demo_checkpoint(), demo_rows());
    let out = path(&folder, "out.npz");
    stdout(&["encode", &model, &rows, "-o", &out]);
    let features = dense(&read::npz(&fs::read(&out).unwrap()));
    // Any order, duplicates too.
    let wanted = [3049_usize, 388, 1690, 388];
    let list = "3049,388,1690,388";

    let table = stdout(&["readout", &model, &rows, "--features", list]);
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("row\t3049\t388\t1690\t388"));
    let mut fired = 0;
    for (row, dense) in features.values.chunks(features.shape[1]).enumerate() {
        let mut cells = lines.next().unwrap().split('\t');
        assert_eq!(cells.next(), Some(row.to_string().as_str()));
        for feature in wanted {
            let value: f32 = cells.next().unwrap().parse().unwrap();
            assert_eq!(
                f64::from(value),
                dense[feature],
                "row {row}, feature {feature}"
            );
            fired += usize::from(value != 0.0);
        }
        assert_eq!(cells.next(), None);
    }
    assert_eq!(lines.next(), None);
    assert!(fired > 50);

    let npy = path(&folder, "values.npy");
    assert_eq!(
        stdout(&["readout", &model, &rows, "-f", list, "-o", &npy]),
        ""
    );
    let written = read::npy(&fs::read(&npy).unwrap());
    assert_eq!(written.shape, [features.shape[0], wanted.len()]);
    let printed = table
        .lines()
        .skip(1)
        .flat_map(|line| line.split('\t').skip(1));
    let printed: Vec<f64> = printed
        .map(|cell| cell.parse::<f32>().unwrap().into())
        .collect();
    assert_eq!(written.values, printed);
}

#[test]
fn inspect_tells_what_the_checkpoint_is() {
    let model = demo_checkpoint();
    let plain = stdout(&["inspect", &model]);
    for line in [
        "publisher: SAELens",
        "model: sentence-transformers/all-MiniLM-L6-v2",
        "hook: encoder.layer.3",
        "architecture: jumprelu",
        "d_in: 384",
        "d_sae: 3072",
        "normalization: none",
        "encoder: W_enc, BF16, one feature per column, 2.4 MB, mapped",
        "preparing: holds 2.4 MB in memory, milliseconds",
    ] {
        assert!(
            plain.lines().any(|found| found == line),
            "no `{line}` in:\n{plain}"
        );
    }
    let json: Value = serde_json::from_str(&stdout(&["inspect", &model, "--json"])).unwrap();
    assert_eq!(json["publisher"], "SAELens");
    assert_eq!(json["d_sae"], 3072);
    assert_eq!(json["encoder"]["layout"], "columns");
    assert_eq!(json["site"]["hook_name"], "encoder.layer.3");
    assert_eq!(json["state"], "mapped");
    stdout(&["inspect", &model, "--check", "full"]);

    let case = case("gemma_scope_1_transcoder");
    let json = stdout(&["inspect", case.checkpoint.to_str().unwrap(), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["d_out"], case.d_out);
}

#[test]
fn inspect_describes_what_does_not_encode() {
    let model = format!("{ROOT}/tests/data/fixtures/temporal/layer_12/temporal");
    let plain = stdout(&["inspect", &model]);
    for line in [
        "d_in: 16",
        "d_sae: 256",
        "cannot encode: unsupported architecture `temporal`",
    ] {
        assert!(
            plain.lines().any(|found| found == line),
            "no `{line}` in:\n{plain}"
        );
    }
    let json: Value = serde_json::from_str(&stdout(&["inspect", &model, "--json"])).unwrap();
    assert_eq!(json["refused"], "unsupported architecture `temporal`");
    assert!(json["activation"].as_str().unwrap().starts_with("topk"));

    let rows = format!("{ROOT}/tests/data/fixtures/temporal/inputs.npy");
    let out = path(&folder("temporal"), "out.npz");
    let refused = run(&["encode", &model, &rows, "-o", &out]);
    assert_eq!(refused.status.code(), Some(1));
    let message = text(&refused.stderr);
    assert!(
        message.contains("latest_ckpt.safetensors: unsupported architecture `temporal`"),
        "{message}"
    );
    assert!(!Path::new(&out).exists());
}

/// An explanation export of a few of the demo's features, with what a terminal must not see.
fn labels_file(folder: &Path) -> String {
    let file = path(folder, "explanations.jsonl");
    let line = |index: &str, text: &str| {
        format!(
            "{{\"modelId\":\"minilm\",\"layer\":\"3-res\",\"index\":{index},\"description\":\"{text}\"}}\n"
        )
    };
    let lines = [
        line("\"3049\"", "red \\u001b[31mtext\\n\\u202eand more"),
        line("388", "first"),
        line("388", "second"),
    ];
    fs::write(&file, lines.concat()).unwrap();
    file
}

#[test]
fn labels_stand_beside_features() {
    let folder = folder("labels");
    let (model, rows) = (demo_checkpoint(), demo_rows());
    let labels = labels_file(&folder);
    let red = "red  [31mtext  and more";

    let table = stdout(&[
        "readout",
        &model,
        &rows,
        "-f",
        "3049,388,5",
        "--labels",
        &labels,
    ]);
    let heading = format!("row\t3049: {red}\t388: first (and 1 more)\t5: ");
    assert_eq!(table.lines().next(), Some(heading.as_str()));
    let plain = stdout(&["readout", &model, &rows, "-f", "3049,388,5"]);
    assert!(table.lines().skip(1).eq(plain.lines().skip(1)));
    let npy = path(&folder, "values.npy");
    let arguments = [
        "readout", &model, &rows, "-f", "3049,388", "-o", &npy, "--labels", &labels,
    ];
    let listed = format!("3049\t{red}\n388\tfirst (and 1 more)\n");
    assert_eq!(stdout(&arguments), listed);

    let out = path(&folder, "out.npz");
    let listed = stdout(&[
        "encode", &model, &rows, "-o", &out, "--labels", &labels, "--top", "4000",
    ]);
    let features = dense(&read::npz(&fs::read(&out).unwrap()));
    let mut lines = listed.lines();
    assert_eq!(lines.next(), Some("feature\trows\thighest\tlabel"));
    let (mut last, mut named) = (usize::MAX, 0);
    for line in lines {
        let [feature, rows, highest, label] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let feature: usize = feature.parse().unwrap();
        let values = features
            .values
            .chunks(features.shape[1])
            .map(|row| row[feature]);
        let fired: Vec<f64> = values.filter(|value| *value != 0.0).collect();
        assert_eq!(rows.parse(), Ok(fired.len()));
        assert!(fired.len() <= last);
        last = fired.len();
        let found: f32 = highest.parse().unwrap();
        assert_eq!(f64::from(found), fired.iter().copied().fold(0.0, f64::max));
        let expected = match feature {
            3049 => red,
            388 => "first (and 1 more)",
            _ => "",
        };
        assert_eq!(label, expected);
        named += usize::from(!label.is_empty());
    }
    assert_eq!(named, 2);
    let few = stdout(&[
        "encode", &model, &rows, "-o", &out, "--labels", &labels, "--top", "3",
    ]);
    assert!(few.lines().eq(listed.lines().take(4)));

    let plain = stdout(&["inspect", &model, "--labels", &labels]);
    assert!(
        plain.contains("\nlabels of: minilm/3-res\nlabels: 3, for 2 of 3,072 features\n"),
        "{plain}"
    );
    let json = stdout(&["inspect", &model, "--labels", &labels, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["labels"]["count"], 3);
    assert_eq!(json["labels"]["source"], "3-res");

    let demo = stdout(&["demo", "--labels", &labels, "--top", "40"]);
    assert!(demo.contains("#388 first (and 1 more)"), "{demo}");
    let own = format!("{ROOT}/src/bin/sae/demo/labels.json");
    let features = |text: String| -> Vec<String> {
        text.lines()
            .filter(|line| line.contains(" #"))
            .map(String::from)
            .collect()
    };
    let (with, without) = (stdout(&["demo", "--labels", &own]), stdout(&["demo"]));
    assert_eq!(features(with), features(without));
}

#[test]
fn labels_of_another_model_are_refused() {
    let folder = folder("labels-refused");
    let labels = path(&folder, "labels.json");
    fs::write(&labels, "[{\"index\": 3072, \"description\": \"x\"}]").unwrap();
    let (model, rows) = (demo_checkpoint(), demo_rows());
    for command in [
        vec!["inspect", &model],
        vec!["demo"],
        vec!["readout", &model, &rows, "-f", "1"],
        vec!["encode", &model, &rows, "-o", "never.npz"],
    ] {
        let output = run(&[&command[..], &["--labels", &labels]].concat());
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let error = text(&output.stderr);
        assert!(
            error.contains("labels.json") && error.contains("feature 3072"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    fs::write(&labels, "{\"index\": 1}").unwrap();
    let output = run(&["inspect", &model, "--labels", &labels]);
    assert!(text(&output.stderr).contains("is this an explanation export?"));
    let usage = run(&["encode", &model, &rows, "-o", "never.npz", "--top", "3"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn levels_lists_scalar_and_marks_the_active_one() {
    let listed = stdout(&["levels"]);
    assert!(
        listed
            .lines()
            .any(|line| line.split_whitespace().next() == Some("scalar"))
    );
    let active = listed.lines().filter(|line| line.ends_with("  active"));
    assert_eq!(active.count(), 1);
    let json: Value = serde_json::from_str(&stdout(&["levels", "--json"])).unwrap();
    let available = json["available"].as_array().unwrap();
    assert_eq!(available.len(), listed.lines().count());
    assert!(available.contains(&json["active"]));
}

#[test]
fn demo_shows_features_quality_and_time() {
    let page = stdout(&["demo"]);
    assert!(!page.contains('\x1b'), "plain when piped");
    for line in [
        "The doctor listened to her heart and wrote a prescription for the fever.",
        "  her: 6.66 #1690 \"she\"; 4.47 #442 \"his\"; 4.11 #388 that / of / be / let",
        "  fever: 3.82 #1856 \" / * / of / not; 3.53 #1252 disease / inflammation / rheumatism / \
         erythema; 2.28 #476 infection / infected / infectious / infections",
        "L0: 32.4 of 3,072 features fire per token (32.2 on held-out text)",
        "FVU: 0.217 of the variance is unexplained (0.156 on held-out text)",
        "over: 120 tokens; [CLS] and [SEP] are left out",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "no `{line}` in:\n{page}"
        );
    }
    assert!(page.lines().any(|line| line.starts_with("encode: ")));
    let sentences = page
        .lines()
        .filter(|line| line.ends_with('.') && !line.contains(':'));
    assert_eq!(sentences.count(), 8);

    let one = stdout(&["demo", "--sentence", "2", "--top", "1"]);
    assert!(one.lines().any(|line| line == "  her: 6.66 #1690 \"she\""));
    assert!(!one.contains("In the beginning"));

    let json = stdout(&["demo", "--json", "--sentence", "2", "--top", "2"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let tokens = json["sentences"][0]["tokens"].as_array().unwrap();
    let her = tokens.iter().find(|token| token["token"] == "her").unwrap();
    assert_eq!(her["features"].as_array().unwrap().len(), 2);
    assert_eq!(her["features"][0]["label"], "\"she\"");
    assert_eq!(her["features"][0]["index"], 1690);
    assert_eq!(tokens[0]["special"], true);
    assert!((json["quality"]["fvu"].as_f64().unwrap() - 0.21714764).abs() < 1e-6);
    assert!((json["quality"]["l0"].as_f64().unwrap() - 32.408333).abs() < 1e-5);
    assert!(
        json["time_per_token"]["encode"]["median_us"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}

#[test]
fn demo_says_the_same_at_every_level() {
    let page = |level: &str| {
        let page = stdout(&["demo", "--level", level]);
        page.split("Time per token").next().unwrap().to_string()
    };
    let scalar = page("scalar");
    for level in stdout(&["levels"]).lines() {
        let level = level.split_whitespace().next().unwrap();
        assert_eq!(page(level), scalar, "{level}");
    }
}

#[test]
fn a_reader_that_stops_is_no_failure() {
    let mut child = sae(&["demo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(said, "");
}

#[test]
fn help_has_examples_and_wrong_usage_is_2() {
    for command in ["inspect", "encode", "readout", "demo"] {
        let help = stdout(&[command, "--help"]);
        assert!(help.contains("Examples:\n  sae "), "{help}");
    }
    assert!(stdout(&["--help"]).contains("sae inspect"));
    assert!(stdout(&["--version"]).starts_with("sae "));
    let (model, rows) = (demo_checkpoint(), demo_rows());
    let wrong: [&[&str]; 9] = [
        &[],
        &["nonsense"],
        &["inspect"],
        &["encode", &model, &rows],
        &["readout", &model, &rows],
        &["readout", &model, &rows, "--features", "3,x"],
        &["readout", &model, &rows, "--features", "-1"],
        &["inspect", &model, "--set", "k"],
        &["demo", "--sentence", "9"],
    ];
    for arguments in wrong {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert_ne!(text(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn bad_input_is_1_with_a_line_that_names_it() {
    let folder = folder("bad_input");
    let (model, rows) = (demo_checkpoint(), demo_rows());
    let out = path(&folder, "out.npz");
    let weights = fs::read(format!("{model}/sae_weights.safetensors")).unwrap();
    let file = |name: &str, content: &[u8]| {
        fs::write(folder.join(name), content).unwrap();
        path(&folder, name)
    };
    let truncated = file("truncated.safetensors", &weights[..weights.len() - 1000]);
    let empty = file("empty.safetensors", b"");
    let page = file("page.safetensors", b"<html><body>404</body></html>");
    let narrow = file("narrow.npy", &npy("<f4", "(2, 3)", &[0; 24]));
    let integers = file("integers.npy", &npy("<i8", "(1, 384)", &[0; 3072]));
    let short = file("short.npy", &npy("<f4", "(2, 384)", &[0; 3000]));
    let missing = path(&folder, "missing.safetensors");
    let nowhere = path(&folder, "no/folder/out.npz");
    let folder_name = folder.to_str().unwrap();
    let before = names(&folder);
    let cases: [(&[&str], &[&str]); 15] = [
        (
            &["inspect", &missing],
            &["missing.safetensors: cannot open"],
        ),
        (
            &["inspect", &truncated],
            &["truncated.safetensors: truncated", "needs"],
        ),
        (&["inspect", &empty], &["empty.safetensors: "]),
        (&["inspect", &page], &["page.safetensors: "]),
        (&["inspect", &model, "--set", "k=3"], &["k"]),
        (&["inspect", &rows], &["activations.npy: "]),
        (
            &["encode", &model, &narrow, "-o", &out],
            &["narrow.npy: ", "expected 384, found 3"],
        ),
        (
            &["encode", &model, &integers, "-o", &out],
            &["integers.npy: ", "I64"],
        ),
        (&["encode", &model, &short, "-o", &out], &["short.npy: "]),
        (
            &["encode", &model, &missing, "-o", &out],
            &["missing.safetensors: cannot open"],
        ),
        (
            &["encode", &model, &rows, "-o", &nowhere],
            &["no/folder/out.npz: cannot write"],
        ),
        (
            &["encode", &model, &rows, "-o", folder_name],
            &["cannot write"],
        ),
        (
            &["encode", &model, &narrow, "-o", &narrow],
            &["narrow.npy: ", "a file that is read"],
        ),
        (
            &["readout", &model, &rows, "-f", "3,3072"],
            &["demo/sae: feature 3072 is out of range: the model has 3072"],
        ),
        (
            &["readout", &model, &narrow, "-f", "3"],
            &["narrow.npy: ", "expected 384, found 3"],
        ),
    ];
    for (arguments, parts) in cases {
        let output = run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(said.starts_with("error: "), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: no `{part}` in {said}");
        }
    }
    assert_eq!(names(&folder), before, "nothing is left behind");

    // A level that this machine lacks is never replaced by another.
    let lacking = ["avx2", "neon", "simd128"].into_iter().find(|level| {
        !stdout(&["levels"])
            .lines()
            .any(|line| line.split_whitespace().next() == Some(level))
    });
    let output = run(&["demo", "--level", lacking.unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is not available here"));
}

#[test]
fn a_failed_run_keeps_the_file_that_was_there() {
    let folder = folder("keeps");
    let (model, out) = (demo_checkpoint(), path(&folder, "out.npz"));
    let narrow = path(&folder, "narrow.npy");
    fs::write(&narrow, npy("<f4", "(2, 3)", &[0; 24])).unwrap();
    fs::write(&out, "precious").unwrap();
    assert_eq!(
        run(&["encode", &model, &narrow, "-o", &out]).status.code(),
        Some(1)
    );
    assert_eq!(fs::read_to_string(&out).unwrap(), "precious");
    stdout(&["encode", &model, &demo_rows(), "-o", &out]);
    assert_eq!(
        dense(&read::npz(&fs::read(&out).unwrap())).shape,
        [136, 3072]
    );
}

/// What a command prints in a terminal of so many columns; None if there is no `script`.
fn in_terminal(command: &str, columns: usize, environment: &[(&str, &str)]) -> Option<String> {
    let line = format!(
        "stty rows 40 cols {columns}; {} {command}",
        env!("CARGO_BIN_EXE_sae")
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null());
    script.env_remove("NO_COLOR").env("TERM", "xterm-256color");
    script.envs(environment.iter().copied());
    match script.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", text(&output.stdout));
            Some(text(&output.stdout))
        }
        Err(_) if std::env::var_os("SAE_REQUIRE_TOOLS").is_some() => panic!("no `script`"),
        Err(_) => {
            println!("skipped: the tool in a terminal, `script` is not installed");
            None
        }
    }
}

/// Without colours.
fn bare(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap().to_string();
    parts.fold(first, |all, part| all + part.split_once('m').unwrap().1)
}

#[test]
fn a_terminal_gets_colours_and_columns() {
    for columns in [60, 80, 100, 120, 160] {
        let Some(page) = in_terminal("demo --sentence 2", columns, &[]) else {
            return;
        };
        assert!(page.contains("\x1b["));
        assert!(page.contains('█'));
        for line in bare(&page).lines() {
            let width = line.trim_end().chars().count();
            assert!(
                width <= columns,
                "{width} columns in a terminal of {columns}: {line}"
            );
        }
        let page = in_terminal(&format!("inspect {}", demo_checkpoint()), columns, &[]).unwrap();
        assert!(
            bare(&page)
                .lines()
                .any(|line| line.trim_end() == "  d_sae          3072"),
            "{page}"
        );
    }
    let plain = in_terminal("demo --sentence 2", 100, &[("NO_COLOR", "1")]).unwrap();
    assert!(!plain.contains('\x1b'));
    let plain = in_terminal("demo --sentence 2 --color never", 100, &[]).unwrap();
    assert!(!plain.contains('\x1b'));
    assert!(stdout(&["demo", "--color", "always"]).contains("\x1b["));

    let command = format!("readout {} {} -f 388,1690", demo_checkpoint(), demo_rows());
    let table = bare(&in_terminal(&command, 80, &[]).unwrap());
    let mut lines = table.lines().map(str::trim_end);
    assert_eq!(lines.next(), Some("row        388       1690"));
    assert_eq!(lines.next(), Some("  0     0.9018          ·"));
}
