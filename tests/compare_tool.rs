//! `sae compare`, as a person or a script runs it: its numbers against plain f64, what it prints,
//! its exit codes.

mod reference;

use reference::analysis as plain;
use reference::monitor::pearson;
use reference::random::{Format, Random, Tensors, npy};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A JumpReLU model in a folder, and its weights, `[feature][value]`.
struct Made {
    path: String,
    encoder: Vec<Vec<f64>>,
    decoder: Vec<Vec<f64>>,
    thresholds: Vec<f64>,
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("compare_tool")
        .join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn write(folder: &Path, name: &str, d: usize, rows: [&[Vec<f32>]; 2], thresholds: &[f32]) -> Made {
    let [encoder, decoder] = rows;
    let (n, folder) = (encoder.len(), folder.join(name));
    fs::create_dir_all(&folder).unwrap();
    let turned = (0..d).flat_map(|j| encoder.iter().map(move |row| row[j]));
    let mut tensors = Tensors::default();
    tensors.add("W_enc", Format::F32, &[d, n], &bytes(turned));
    tensors.add("W_dec", Format::F32, &[n, d], &bytes(decoder.concat()));
    tensors.add("b_dec", Format::F32, &[d], &bytes(vec![0.0; d]));
    tensors.add("b_enc", Format::F32, &[n], &bytes(vec![0.0; n]));
    let flat = bytes(thresholds.iter().copied());
    tensors.add("threshold", Format::F32, &[n], &flat);
    let file = folder.join("sae_weights.safetensors");
    fs::write(file, tensors.safetensors(0)).unwrap();
    let config = json!({"architecture": "jumprelu", "d_in": d, "d_sae": n});
    fs::write(folder.join("cfg.json"), config.to_string()).unwrap();
    let wide = |rows: &[Vec<f32>]| -> Vec<Vec<f64>> {
        let one = |row: &Vec<f32>| row.iter().copied().map(f64::from).collect();
        rows.iter().map(one).collect()
    };
    Made {
        path: folder.display().to_string(),
        encoder: wide(encoder),
        decoder: wide(decoder),
        thresholds: thresholds.iter().copied().map(f64::from).collect(),
    }
}

fn random(folder: &Path, name: &str, seed: u64, n: usize, d: usize) -> Made {
    let mut random = Random(seed);
    let mut rows = || -> Vec<Vec<f32>> {
        let mut row = || (0..d).map(|_| random.number()).collect();
        (0..n).map(|_| row()).collect()
    };
    let (encoder, decoder) = (rows(), rows());
    let thresholds: Vec<f32> = (0..n).map(|_| random.number().abs() + 0.25).collect();
    write(folder, name, d, [&encoder, &decoder], &thresholds)
}

/// Rows in a file, and their values.
fn rows(folder: &Path, name: &str, seed: u64, count: usize, d: usize) -> (String, Vec<Vec<f64>>) {
    let mut random = Random(seed);
    let values: Vec<f32> = (0..count * d).map(|_| random.number()).collect();
    let path = folder.join(name);
    fs::write(&path, npy(&[count, d], &values)).unwrap();
    let wide = values
        .chunks(d)
        .map(|row| row.iter().copied().map(f64::from).collect());
    (path.display().to_string(), wide.collect())
}

/// What each feature is on each row, `[feature][row]`.
fn encode(of: &Made, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let one = |(w, &threshold): (&Vec<f64>, &f64)| {
        let value = |x: &Vec<f64>| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let jump = |value: f64| if value > threshold { value } else { 0.0 };
        rows.iter().map(|x| jump(value(x))).collect()
    };
    of.encoder.iter().zip(&of.thresholds).map(one).collect()
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sae"));
    command.arg("compare").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Stdout of a run that must succeed and say nothing on stderr.
fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    text(&output.stdout)
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[arguments, &["--json"]].concat())).unwrap()
}

fn close(found: &Value, expected: f64, tolerance: f64) {
    let value = found.as_f64().unwrap_or_else(|| panic!("{found}"));
    let bound = tolerance * expected.abs().max(1.0);
    assert!((value - expected).abs() <= bound, "{found}: not {expected}");
}

fn table(a: usize, b: usize, value: impl Fn(usize, usize) -> f64) -> Vec<Vec<f64>> {
    (0..a)
        .map(|i| (0..b).map(|j| value(i, j)).collect())
        .collect()
}

#[test]
fn the_json_holds_what_plain_code_computes() {
    let folder = folder("json");
    let (a, b) = (random(&folder, "a", 1, 6, 4), random(&folder, "b", 2, 7, 4));
    let (file, values) = rows(&folder, "rows.npy", 3, 150, 4);
    let found = json_of(&[&a.path, &b.path, "--rows", &file, "--limit", "0.5"]);
    assert_eq!(
        (&found["format"], &found["version"]),
        (&json!("sae compare"), &json!(1))
    );
    assert_eq!(found["notes"], json!([]));
    assert_eq!(found["other"]["d_sae"], 7);

    let cosines = table(6, 7, |i, j| plain::cosine(&a.decoder[i], &b.decoder[j]));
    let turned = table(7, 6, |i, j| cosines[j][i]);
    for (name, of) in [("model_in_other", &cosines), ("other_in_model", &turned)] {
        let near = &found["nearest"][name];
        let most = |row: &Vec<f64>| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut all: Vec<f64> = of.iter().map(most).collect();
        close(
            &near["mean"],
            all.iter().sum::<f64>() / all.len() as f64,
            3e-7,
        );
        all.sort_by(f64::total_cmp);
        close(&near["median"], all[all.len() / 2], 3e-7);
        let beyond = |least: usize| {
            let count = |row: &Vec<f64>| row.iter().filter(|&&cosine| cosine > 0.5).count();
            of.iter().filter(|row| count(row) >= least).count()
        };
        assert_eq!(near["above"], beyond(1));
        assert_eq!(near["split"], beyond(2));
    }

    let magnitudes = table(6, 7, |i, j| cosines[i][j].abs());
    let (sum, partners) = plain::best_matching(&magnitudes);
    close(&found["pw_mcc"]["mean"], sum / 6.0, 1e-6);
    let fold = |row: &[f64], by: f64| -> Vec<f64> { row.iter().map(|x| x * by).collect() };
    let costs = table(6, 7, |i, j| {
        let (s, t) = (a.thresholds[i], b.thresholds[j]);
        let encoders =
            plain::distance(&fold(&a.encoder[i], 1.0 / s), &fold(&b.encoder[j], 1.0 / t));
        let decoders = plain::distance(&fold(&a.decoder[i], s), &fold(&b.decoder[j], t));
        -encoders - decoders
    });
    let (sum, _) = plain::best_matching(&costs);
    close(
        &found["sae_match"]["mean_squared_distance"],
        -sum / 6.0,
        1e-5,
    );
    let encoders = table(6, 7, |i, j| plain::cosine(&a.encoder[i], &b.encoder[j]));
    let (by_decoder, by_encoder) = (
        plain::best_matching(&cosines).1,
        plain::best_matching(&encoders).1,
    );
    let agree = |&i: &usize| {
        let j = by_decoder[i];
        by_encoder[i] == j && cosines[i][j] > 0.5 && encoders[i][j] > 0.5
    };
    let shared = (0..6).filter(agree).count();
    assert_eq!(found["shared"]["count"], shared);

    let (fa, fb) = (encode(&a, &values), encode(&b, &values));
    let correlations = table(6, 7, |i, j| pearson(&fa[i], &fb[j]));
    let weighted = |of: &[Vec<f64>], rho: &dyn Fn(usize) -> f64| {
        let sums: Vec<f64> = of.iter().map(|row| row.iter().sum()).collect();
        let total: f64 = sums.iter().sum();
        let each = sums.iter().enumerate();
        each.map(|(i, sum)| sum * rho(i)).sum::<f64>() / total
    };
    let best = |i: usize| {
        (0..7)
            .map(|j| correlations[i][j])
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let back = |j: usize| {
        (0..6)
            .map(|i| correlations[i][j])
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let corpus = &found["corpus"];
    assert_eq!(
        (&corpus["rows"], &corpus["skipped"]),
        (&json!(150), &json!(0))
    );
    assert_eq!(corpus["fired"], json!([6, 7]));
    close(
        &corpus["wmppc"]["model_in_other"],
        weighted(&fa, &best),
        1e-5,
    );
    close(
        &corpus["wmppc"]["other_in_model"],
        weighted(&fb, &back),
        1e-5,
    );

    let features = found["features"].as_array().unwrap();
    assert_eq!(features.len(), 6);
    for (i, feature) in features.iter().enumerate() {
        assert_eq!(feature["feature"], i);
        let j = feature["nearest"]["feature"].as_u64().unwrap() as usize;
        let most = cosines[i].iter().copied().fold(f64::NEG_INFINITY, f64::max);
        close(&feature["nearest"]["cosine"], most, 3e-7);
        assert_eq!(cosines[i][j], most);
        assert_eq!(feature["matched"]["feature"], partners[i]);
        close(&feature["correlated"]["correlation"], best(i), 1e-5);
    }
}

#[test]
fn models_of_other_widths_are_compared_by_their_rows() {
    let folder = folder("widths");
    let (a, b) = (random(&folder, "a", 1, 9, 4), random(&folder, "b", 2, 5, 6));
    let refused = run(&[&a.path, &b.path]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("expected 4, found 6") && said.contains("--rows"),
        "{said}"
    );
    let (first, x) = rows(&folder, "a.npy", 3, 80, 4);
    let (second, y) = rows(&folder, "b.npy", 4, 80, 6);
    let arguments = [&a.path, &b.path, "--rows", &first, "--other-rows", &second];
    let found = json_of(&arguments);
    for missing in ["nearest", "pw_mcc", "sae_match", "shared"] {
        assert_eq!(found[missing], Value::Null);
    }
    assert_eq!(found["notes"].as_array().unwrap().len(), 1);
    let (fa, fb) = (encode(&a, &x), encode(&b, &y));
    for feature in found["features"].as_array().unwrap() {
        let i = feature["feature"].as_u64().unwrap() as usize;
        let best = fb.iter().map(|other| pearson(&fa[i], other));
        close(
            &feature["correlated"]["correlation"],
            best.fold(f64::NEG_INFINITY, f64::max),
            1e-5,
        );
    }
    // Only the most active feature of each side: one pair.
    let one = json_of(&[&arguments[..], &["--correlate", "1"]].concat());
    assert_eq!(one["corpus"]["correlated"], json!([1, 1]));
    let shown = stdout(&arguments);
    assert!(
        shown.contains("wMPPC") && shown.contains("Most alike"),
        "{shown}"
    );
    let shorter = rows(&folder, "short.npy", 4, 79, 6).0;
    let refused = run(&[&a.path, &b.path, "--rows", &first, "--other-rows", &shorter]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("short.npy: "),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn features_that_were_asked_for_are_listed_with_labels() {
    let folder = folder("labels");
    let a = random(&folder, "a", 1, 30, 8);
    let line = |index: usize, text: &str| {
        json!({"modelId": "m", "layer": "l", "index": index, "description": text}).to_string()
            + "\n"
    };
    let labels = folder.join("labels.jsonl");
    fs::write(&labels, line(3, "bridges") + &line(4, "\u{1b}[31mred")).unwrap();
    let labels = labels.display().to_string();
    let both = ["--labels", &labels, "--other-labels", &labels];
    let shown = stdout(&[&[a.path.as_str(), &a.path, "-f", "4,3"], &both[..]].concat());
    let lines: Vec<&str> = shown.lines().collect();
    let at = lines.iter().position(|line| *line == "Features").unwrap();
    // Itself, and what would colour a terminal is gone.
    assert!(lines[at + 2].starts_with("4 ") && lines[at + 2].ends_with("[31mred |  [31mred"));
    assert!(lines[at + 3].starts_with("3 ") && lines[at + 3].ends_with("bridges | bridges"));
    assert_eq!(lines.len(), at + 4);
    assert!(!shown.contains('\u{1b}'));
    let found = json_of(&[&[a.path.as_str(), &a.path, "-f", "3"], &both[..]].concat());
    let features = found["features"].as_array().unwrap();
    assert_eq!(features.len(), 1);
    assert_eq!(features[0]["label"], "bridges");
    assert_eq!(features[0]["nearest"]["label"], "bridges");
    assert_eq!(found["shared"], json!({"fraction": 1.0, "count": 30}));
    // Without a choice: the two ends.
    let shown = stdout(&[&a.path, &a.path, "--top", "2"]);
    let rest = shown.split_once("Most alike").unwrap().1;
    let (most, least) = rest.split_once("Least alike").unwrap();
    assert_eq!(
        (most.trim().lines().count(), least.trim().lines().count()),
        (3, 3)
    );
}

#[test]
fn what_is_not_defined_or_too_long_is_a_note() {
    let folder = folder("notes");
    let a = random(&folder, "a", 1, 5, 4);
    let row =
        |seed: usize| -> Vec<f32> { (0..4).map(|j| ((seed * 7 + j) % 5) as f32 - 2.5).collect() };
    let few: Vec<Vec<f32>> = (0..5).map(row).collect();
    let off = write(&folder, "off", 4, [&few, &few], &[0.0, 1.0, 1.0, 1.0, 1.0]);
    let found = json_of(&[&a.path, &off.path]);
    assert_eq!(found["sae_match"], Value::Null);
    assert!(found["pw_mcc"]["mean"].is_number() && found["shared"]["count"].is_number());
    let note = found["notes"][0].as_str().unwrap();
    assert!(
        note.contains("SAE Match is not defined") && note.contains("threshold"),
        "{note}"
    );
    // Five vectors over and over: every matching is as good as many others.
    let many: Vec<Vec<f32>> = (0..4097).map(row).collect();
    let wide = write(&folder, "wide", 4, [&many, &many], &[1.0; 4097]);
    let found = json_of(&[&off.path, &wide.path, "-f", "0"]);
    assert_eq!(found["pw_mcc"]["pairs"], 5);
    close(&found["pw_mcc"]["mean"], 1.0, 1e-6);
    let large = random(&folder, "large", 2, 16_385, 8);
    let found = json_of(&[&large.path, &large.path, "-f", "0"]);
    assert_eq!(found["pw_mcc"], Value::Null);
    close(&found["nearest"]["model_in_other"]["mean"], 1.0, 1e-6);
    assert!(
        found["notes"][0]
            .as_str()
            .unwrap()
            .contains("--matching always")
    );
    let found = json_of(&[&a.path, &wide.path, "-f", "0", "--matching", "always"]);
    assert_eq!(found["pw_mcc"]["pairs"], 5);
    let found = json_of(&[&a.path, &off.path, "--matching", "never"]);
    assert_eq!(
        (&found["pw_mcc"], &found["notes"]),
        (&Value::Null, &json!([]))
    );
}

#[test]
fn wrong_usage_is_2_and_bad_input_is_1() {
    let folder = folder("wrong");
    let a = random(&folder, "a", 1, 5, 4);
    let help = stdout(&["--help"]);
    assert!(help.contains("Examples:\n  sae compare ") && help.contains("PW-MCC"));
    let file = rows(&folder, "rows.npy", 3, 4, 4).0;
    let wide = rows(&folder, "wide.npy", 3, 4, 5).0;
    let missing = folder.join("missing").display().to_string();
    let usage: [&[&str]; 5] = [
        &[&a.path],
        &[&a.path, &a.path, "--limit", "3"],
        &[&a.path, &a.path, "--other-rows", &file],
        &[&a.path, &a.path, "--matching", "perhaps"],
        &[&a.path, &a.path, "--correlate", "0"],
    ];
    let input: [(&[&str], &str); 5] = [
        (&[&a.path, &missing], "missing: cannot open"),
        (&[&a.path, &a.path, "-f", "5"], "feature 5 is out of range"),
        (&[&a.path, &a.path, "--rows", &wide], "wide.npy: "),
        (&[&a.path, &a.path, "--other-set", "k=3"], "k"),
        (&[&a.path, &a.path, "--labels", &missing], "missing"),
    ];
    let usage = usage.into_iter().map(|arguments| (arguments, "", 2));
    let input = input
        .into_iter()
        .map(|(arguments, said)| (arguments, said, 1));
    for (arguments, part, code) in usage.chain(input) {
        let output = run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(
            said.starts_with("error: ") && said.contains(part),
            "{arguments:?}: {said}"
        );
    }
}
