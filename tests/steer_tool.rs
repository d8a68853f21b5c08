//! `sae steer`, run as a person or a script runs it.
#![cfg(feature = "cli")]

use sae::steer::Plan;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn steer(arguments: &[&str]) -> Output {
    let checkpoint = format!("{ROOT}/src/bin/sae/demo/sae");
    Command::new(env!("CARGO_BIN_EXE_sae"))
        .args(["steer", &checkpoint, &rows()])
        .args(arguments)
        .output()
        .unwrap()
}

fn rows() -> String {
    format!("{ROOT}/src/bin/sae/demo/activations.npy")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("steer_tool")
        .join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().into()
}

/// The data of an npy file of version 1.
fn data(path: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let length = u16::from_le_bytes([bytes[8], bytes[9]]);
    bytes[10 + usize::from(length)..].to_vec()
}

#[test]
fn rows_are_steered_and_reported() {
    let folder = folder("steered");
    let plan_text = r#"{"name": "add", "edits": [{"feature": 5, "rule": "add", "strength": 2}],
        "rows": {"skip_first": 1}}"#;
    let plan = file(&folder, "plan.json", plan_text);
    let out = folder.join("out.npy").to_str().unwrap().to_string();
    let output = steer(&["--plan", &plan, "-o", &out, "--report"]);
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let n = report["rows"].as_u64().unwrap();
    assert!(n > 1);
    assert_eq!(report["outcomes"]["filtered"], 1);
    assert_eq!(report["outcomes"]["edited"], n - 1);
    assert_eq!(report["plans"][0]["name"], "add");
    let hash = format!("{:016x}", Plan::from_json(plan_text).unwrap().hash());
    assert_eq!(report["plans"][0]["hash"], hash.as_str());
    assert_eq!(report["cost"]["decoder_rows"], 1);
    let (before, after) = (data(&rows()), data(&out));
    assert_eq!(before.len(), after.len());
    let width = before.len() / n as usize;
    assert_eq!(before[..width], after[..width]);
    for row in 1..n as usize {
        assert_ne!(
            before[row * width..][..width],
            after[row * width..][..width]
        );
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = folder("dry");
    let plan = file(&folder, "plan.json", r#"{"error": "drop"}"#);
    let output = steer(&["--plan", &plan, "--dry-run"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["cost"]["needs_encode"], true);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn mistakes_are_told_with_file_and_place() {
    let folder = folder("mistakes");
    let out = folder.join("out.npy").to_str().unwrap().to_string();
    let run = |content: &str| {
        let plan = file(&folder, "plan.json", content);
        let output = steer(&["--plan", &plan, "-o", &out]);
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(
            message.starts_with(&format!("error: {plan}: ")),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!Path::new(&out).exists());
        message
    };
    assert!(run("{").contains("malformed json"));
    assert!(run(r#"{"edits": [{"feature": 99999999, "rule": "zero"}]}"#).contains("`edits[0]"));
    assert!(run(r#"{"edit": []}"#).contains("edit"));
    let relative = r#"{"edits": [{"feature": 1, "rule": "set",
        "strength": {"value": 2, "of": "corpus_max"}}]}"#;
    assert!(run(relative).contains("`edits[0].strength`"));
    // The statistics may come from a file of their own.
    let plan = file(&folder, "plan.json", relative);
    let statistics = file(&folder, "statistics.json", r#"{"1": {"max": 3.5}}"#);
    let output = steer(&["--plan", &plan, "--statistics", &statistics, "-o", &out]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Two plans for one feature, and a policy.
    let both = [
        "--plan",
        &plan,
        "--plan",
        &plan,
        "--statistics",
        &statistics,
    ];
    let output = steer(&[&both[..], &["-o", &out]].concat());
    assert!(text(&output.stderr).contains("`plans[1].edits`"));
    let output = steer(&[&both[..], &["-o", &out, "--conflicts", "last"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Never over an input.
    let output = steer(&["--plan", &plan, "--statistics", &statistics, "-o", &plan]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&plan).unwrap(), relative);
}

/// Maxima of the demo's labels are what strengths refer to, unless the plan or a file of statistics
/// says something else; what `sae monitor` writes is such a file.
#[test]
fn strengths_refer_to_labels() {
    let folder = folder("labels");
    let text_of = |name: &str, strength: &str, more: &str| {
        let plan = format!(
            r#"{{"edits": [{{"feature": 5, "rule": "add", "strength": {strength}}}]{more}}}"#
        );
        file(&folder, name, &plan)
    };
    let labels = format!("{ROOT}/src/bin/sae/demo/labels.json");
    let known: serde_json::Value = serde_json::from_slice(&fs::read(&labels).unwrap()).unwrap();
    let of_5 = known.as_array().unwrap().iter().find(|it| it["index"] == 5);
    let max = of_5.unwrap()["maxActApprox"].as_f64().unwrap();
    let out = folder.join("out.npy").to_str().unwrap().to_string();
    let run = |arguments: &[&str]| {
        let output = steer(&[arguments, &["-o", &out]].concat());
        assert_eq!(text(&output.stderr), "");
        assert!(output.status.success());
        data(&out)
    };
    let relative = r#"{"value": 1.5, "of": "corpus_max"}"#;
    let plan = text_of("relative.json", relative, "");
    let absolute = text_of("absolute.json", &(1.5 * max).to_string(), "");
    let expected = run(&["--plan", &absolute]);
    assert_eq!(run(&["--plan", &plan, "--labels", &labels]), expected);
    // The export as it is downloaded: a folder with a folder of features in it.
    let export = folder.join("5-res");
    fs::create_dir_all(export.join("features")).unwrap();
    fs::create_dir_all(export.join("explanations")).unwrap();
    let line = format!(r#"{{"index": "5", "maxActApprox": {max}, "frac_nonzero": 0.01}}"#);
    fs::write(export.join("features/batch-0.jsonl"), line).unwrap();
    let export = export.to_str().unwrap();
    assert_eq!(run(&["--plan", &plan, "--labels", export]), expected);
    // What wins.
    let own = text_of("own.json", relative, r#", "statistics": {"5": {"max": 7}}"#);
    let seven = run(&["--plan", &text_of("seven.json", "10.5", "")]);
    assert_eq!(run(&["--plan", &own, "--labels", &labels]), seven);
    let statistics = file(&folder, "statistics.json", r#"{"5": {"max": 7}}"#);
    let both = ["--statistics", &statistics, "--labels", &labels];
    assert_eq!(run(&[&["--plan", &*plan][..], &both].concat()), seven);
    let stats = r#"{"statistics": [], "baseline": {"5": {"max": 7, "mean": 1}}}"#;
    let stats = file(&folder, "stats.json", stats);
    assert_eq!(run(&["--plan", &plan, "--statistics", &stats]), seven);
    // What the labels do not say, and labels of another SAE.
    let mean = text_of("mean.json", r#"{"value": 1.5, "of": "corpus_mean"}"#, "");
    let wide = file(
        &folder,
        "wide.jsonl",
        r#"{"index": 3072, "maxActApprox": 1}"#,
    );
    for (plan, labels, named, words) in [
        (
            &mean,
            &labels,
            &mean,
            "`edits[0].strength`: expected a mean of feature 5",
        ),
        (&plan, &wide, &wide, "3072"),
        (&plan, &plan, &plan, "without `index`"),
    ] {
        let output = steer(&["--plan", plan, "--labels", labels, "-o", &out]);
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(
            message.starts_with(&format!("error: {named}: ")),
            "{message}"
        );
        assert!(message.contains(words), "{message}");
    }
}

/// What a plan needs to know of its rows comes from a file: phases, stages, classes, spatial masks,
/// the plan of each row, rows to take from. What the tool writes is what the library makes of it.
#[test]
fn infos_and_sources_are_taken_from_files() {
    use sae::steer::{Batch, Conflicts, Report, RowInfo, Stage, SteerScratch};
    let folder = folder("infos");
    let options = sae::OpenOptions::default();
    let sae = sae::Sae::open(format!("{ROOT}/src/bin/sae/demo/sae"), &options).unwrap();
    let width = sae.d_in();
    let before: Vec<f32> = data(&rows())
        .chunks_exact(4)
        .map(|it| f32::from_le_bytes(it.try_into().unwrap()))
        .collect();
    let count = before.len() / width;
    let texts = [
        r#"{"name": "phases", "edits": [{"feature": 5, "rule": "add", "strength": {"by_phase": [1, 2, 3]}}]}"#,
        r#"{"name": "filters", "edits": [{"feature": 6, "rule": "add", "strength": 2}],
            "rows": {"stage": "generation", "skip_classes": [1], "positions": [[0, 20]]}}"#,
        &format!(
            r#"{{"name": "patch", "edits": [{{"features": {:?}, "rule": "from_source"}}]}}"#,
            (0..600).collect::<Vec<u32>>()
        ),
    ];
    let rows_back = before.chunks(width).rev();
    let sources: Vec<f32> = rows_back.flatten().copied().collect();
    let infos: Vec<RowInfo> = (0..count)
        .map(|i| RowInfo {
            position: (i % 30) as u32,
            stage: [Stage::Prompt, Stage::Generation, Stage::Unknown][i % 3],
            last: i % 7 == 0,
            class: (i % 2) as u32,
            phase: (i % 3) as u32,
            factor: [0.0, 0.5, 1.0, -2.0][i % 4],
            plan: [0, 1, 2, RowInfo::NO_PLAN][i / 5 % 4],
            source: (i / 2) as u32,
        })
        .collect();
    let json: Vec<serde_json::Value> = infos
        .iter()
        .map(|info| {
            let plan = (info.plan != RowInfo::NO_PLAN).then_some(info.plan);
            let stage = ["unknown", "prompt", "generation"][info.stage as usize];
            serde_json::json!({"position": info.position, "stage": stage, "last": info.last,
                "class": info.class, "phase": info.phase, "factor": info.factor, "plan": plan,
                "source": info.source})
        })
        .collect();

    let read = texts.map(|text| Plan::from_json(text).unwrap());
    let plan = sae.compile_plans(&read, Conflicts::OnePerRow).unwrap();
    let mut expected = before.clone();
    let rows_mut = sae::RowsMut::from_f32(&mut expected, width).unwrap();
    let mut batch = Batch::new(rows_mut);
    batch.infos = Some(&infos);
    batch.sources = Some(sae::Rows::from_f32(&sources, width).unwrap());
    let mut scratch = SteerScratch::new(&sae, &plan).unwrap();
    let mut report = Report::new(&plan);
    sae.steer(&plan, batch, &mut scratch, &mut report).unwrap();
    assert_ne!(expected, before);
    assert!(report.audits().iter().all(|audit| audit.rows > 0));

    let paths: Vec<String> = (0..3)
        .map(|i| file(&folder, &format!("{i}.json"), texts[i]))
        .collect();
    let source_file = folder.join("sources.npy");
    let bytes: Vec<u8> = sources.iter().flat_map(|it| it.to_le_bytes()).collect();
    sae::container::npy_write::write_npy(&source_file, sae::Dtype::F32, &[count, width], &bytes)
        .unwrap();
    let source_file = source_file.to_str().unwrap();
    let info_file = file(
        &folder,
        "infos.json",
        &serde_json::to_string(&json).unwrap(),
    );
    let out = folder.join("out.npy").to_str().unwrap().to_string();
    let plans: Vec<&str> = paths.iter().flat_map(|path| ["--plan", path]).collect();
    let given = ["--infos", &info_file, "--sources", source_file];
    let policy = ["--conflicts", "one-per-row", "-o", &out, "--report"];
    let output = steer(&[&plans[..], &given, &policy].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected: Vec<u8> = expected.iter().flat_map(|it| it.to_le_bytes()).collect();
    assert_eq!(data(&out), expected);
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (audit, found) in report
        .audits()
        .iter()
        .zip(printed["plans"].as_array().unwrap())
    {
        assert_eq!(found["rows"], audit.rows);
    }
    // The worked plan of a diffusion model needs its steps.
    let need = steer(&["--plan", &paths[0], "-o", &out]);
    assert!(
        text(&need.stderr).contains("the phase"),
        "{}",
        text(&need.stderr)
    );
    let need = steer(&["--plan", &paths[2], "-o", &out]);
    assert!(
        text(&need.stderr).contains("from_source"),
        "{}",
        text(&need.stderr)
    );

    // Mistakes have their place.
    let list = |first: &str| format!("[{first}{}]", ", {}".repeat(count - 1));
    for (content, words) in [
        ("{".into(), "malformed json"),
        ("{}".into(), "a list"),
        ("[{}]".into(), "infos of rows"),
        (list("5"), "`[0]`"),
        (list(r#"{"step": 1}"#), "`[0].step`"),
        (list(r#"{"phase": -1}"#), "`[0].phase`"),
        (list(r#"{"phase": 4294967296}"#), "`[0].phase`"),
        (list(r#"{"stage": "start"}"#), "`[0].stage`"),
        (list(r#"{"last": 1}"#), "`[0].last`"),
        (list(r#"{"factor": "1"}"#), "`[0].factor`"),
        (list(r#"{"plan": "a"}"#), "`[0].plan`"),
    ] {
        let infos = file(&folder, "wrong.json", &content);
        let output = steer(&["--plan", &paths[0], "--infos", &infos, "-o", &out]);
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(
            message.starts_with(&format!("error: {infos}: ")),
            "{message}"
        );
        assert!(message.contains(words), "{content}: {message}");
    }
    // A phase beyond the table, and no infos at all, are the library's to tell.
    let far = file(&folder, "far.json", &list(r#"{"phase": 9}"#));
    let output = steer(&["--plan", &paths[0], "--infos", &far, "-o", &out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("phase"),
        "{}",
        text(&output.stderr)
    );
    // The default of every key is what is known without a file.
    let add = file(
        &folder,
        "add.json",
        r#"{"edits": [{"feature": 5, "rule": "add", "strength": 2}],
        "rows": {"skip_first": 3, "last_only": true}}"#,
    );
    let run = |more: &[&str]| {
        let output = steer(&[&["--plan", &*add, "-o", &*out], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        data(&out)
    };
    let empty = file(&folder, "empty.json", &list("{}"));
    assert_eq!(run(&["--infos", &empty]), run(&[]));
}

/// Plans that add a constant become control vectors, which are read again; others are refused with
/// the reason.
#[test]
fn control_vectors_are_written_and_read() {
    let folder = folder("control_vectors");
    let plan_of = |name: &str, content: &str| file(&folder, name, content);
    let add = plan_of(
        "add.json",
        r#"{"edits": [{"feature": 5, "rule": "add", "strength": 3},
            {"feature": 40, "rule": "add", "strength": -2}]}"#,
    );
    let checkpoint = format!("{ROOT}/src/bin/sae/demo/sae");
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_sae"))
            .args(["steer", &checkpoint])
            .args(arguments)
            .output()
            .unwrap()
    };
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let control = path("control.gguf");
    let output = run(&["--plan", &add, "--control-vector", &control]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr),
        "note: layer 3, from the checkpoint's site\n"
    );
    let read = |path: &str| {
        let bytes = fs::read(path).unwrap();
        sae::control_vector::ControlVector::read(&bytes).unwrap()
    };
    let options = sae::OpenOptions::default();
    let sae = sae::Sae::open(&checkpoint, &options).unwrap();
    let plan = Plan::from_json(&fs::read_to_string(&add).unwrap()).unwrap();
    let vector = sae.constant_vector(&sae.compile_plan(&plan).unwrap());
    let vector = vector.unwrap();
    assert_eq!(read(&control).directions, [(3, vector.clone())].into());

    // Another layer, with a hint; and rows in the same run.
    let (other, out) = (path("other.gguf"), path("out.npy"));
    let layer = ["--layer", "12", "--model-hint", "bert"];
    let output = run(&[
        &[
            &*rows(),
            "--plan",
            &add,
            "--control-vector",
            &other,
            "-o",
            &out,
        ],
        &layer[..],
    ]
    .concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let found = read(&other);
    assert_eq!(found.model_hint, "bert");
    assert_eq!(found.directions, [(12, vector.clone())].into());

    // Read again, it does to the rows what the plan does, but for one rounding of the vector; and
    // with the plan it is twice the vector.
    let again = path("again.npy");
    let output = steer(&["--add-control-vector", &control, "-o", &again]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let floats = |path: &str| -> Vec<f32> {
        let bytes = data(path);
        let values = bytes.chunks_exact(4);
        values
            .map(|it| f32::from_le_bytes(it.try_into().unwrap()))
            .collect()
    };
    for (one, other) in floats(&out).iter().zip(floats(&again)) {
        assert!((one - other).abs() <= 1e-6 * one.abs().max(1.0));
    }
    let twice = path("twice.gguf");
    let both = ["--plan", &*add, "--add-control-vector", &control];
    let output = run(&[&both[..], &["--control-vector", &twice]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (twice, once) in read(&twice).directions[&3].iter().zip(&vector) {
        assert!((f64::from(*twice) - 2.0 * f64::from(*once)).abs() <= 1e-7);
    }
    let output = decompose(&control, &["--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["parts"][0]["feature"], 5);

    // What is no constant says why, and leaves no file.
    let none = path("none.gguf");
    let edit = |edit: &str| format!(r#"{{"edits": [{{"feature": 5, {edit}}}]}}"#);
    let added = |key: &str| {
        format!(r#"{{"edits": [{{"feature": 5, "rule": "add", "strength": 1}}], {key}}}"#)
    };
    for (content, place, why) in [
        (
            edit(r#""rule": "set", "strength": 1"#),
            "edits",
            "`set` on feature 5",
        ),
        (edit(r#""rule": "zero""#), "edits", "`zero` on feature 5"),
        (
            edit(r#""rule": "add", "strength": {"by_phase": [1, 2]}"#),
            "edits",
            "each phase",
        ),
        (
            edit(r#""rule": "add", "strength": 1, "over": 2"#),
            "edits",
            "a limit",
        ),
        (
            edit(r#""rule": "add", "strength": {"value": 1, "of": "row_norm"}"#),
            "edits",
            "the length of the row",
        ),
        (
            edit(r#""rule": "add", "strength": {"value": 1, "of": "current_max"}"#),
            "edits",
            "the largest value in the row",
        ),
        (added(r#""rows": {"skip_first": 1}"#), "rows", "a filter"),
        (
            added(r#""when": {"feature": 1, "over": 2}"#),
            "when",
            "a condition",
        ),
        (
            added(r#""budget": {"relative": 0.1}"#),
            "budget",
            "a budget",
        ),
        (added(r#""keep_only": [1, 5]"#), "keep_only", "a mask"),
        (added(r#""drop": [1]"#), "edits", "`zero` on feature 1"),
        (added(r#""error": "drop""#), "error", "drop"),
    ] {
        let plan = plan_of("not.json", &content);
        let output = run(&["--plan", &plan, "--control-vector", &none]);
        assert_eq!(output.status.code(), Some(1), "{content}");
        let message = text(&output.stderr);
        let start = format!("error: {plan}: ");
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains(&format!("`{place}`")), "{message}");
        assert!(
            message.contains("the same vector to every row"),
            "{message}"
        );
        assert!(message.contains(why), "{content}: {message}");
        assert!(!Path::new(&none).exists());
    }
    // Of several plans, the number too.
    let set = plan_of("set.json", &edit(r#""rule": "set", "strength": 1"#));
    let output = run(&["--plan", &add, "--plan", &set, "--control-vector", &none]);
    assert!(text(&output.stderr).contains("`plans[1].edits`"));
    // A vector that the file does not have or of another width, a site that is none, inputs.
    for (arguments, words) in [
        (
            vec!["--add-control-vector", &*control, "--layer", "4"],
            "layers 3",
        ),
        (vec!["--add-control-vector", &*add], "malformed"),
        (vec!["--plan", &*add, "--layer", "0"], "invalid value"),
    ] {
        let output = run(&[&arguments[..], &["--control-vector", &none]].concat());
        assert!(!output.status.success());
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
    // A site that is no residual stream needs to be told; then it is the user's word.
    let small = plan_of(
        "small.json",
        r#"{"edits": [{"feature": 1, "rule": "add", "strength": 1}]}"#,
    );
    for (fixture, found) in [
        (
            "gemma_scope_1_att/layer_3/width_16k/average_l0_20",
            "does not say",
        ),
        ("saelens_jumprelu_f16_hook_z", "hook_z"),
    ] {
        let run = |more: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_sae"))
                .args(["steer", &format!("{ROOT}/tests/data/fixtures/{fixture}")])
                .args(["--plan", &small, "--control-vector", &none])
                .args(more)
                .output()
                .unwrap()
        };
        let message = text(&run(&[]).stderr);
        assert!(
            message.contains(&format!("{fixture}: site of the model")),
            "{message}"
        );
        assert!(
            message.contains("the residual stream behind a block"),
            "{message}"
        );
        assert!(message.contains(found), "{message}");
        assert!(!Path::new(&none).exists());
        assert!(run(&["--layer", "3"]).status.success());
        fs::remove_file(&none).unwrap();
    }
    let output = run(&["--plan", &add, "--control-vector", &add]);
    assert!(text(&output.stderr).contains("a file that is read"));
    assert!(!Path::new(&none).exists());
}

fn decompose(vector: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sae"))
        .args(["decompose", &format!("{ROOT}/src/bin/sae/demo/sae"), vector])
        .args(arguments)
        .output()
        .unwrap()
}

/// A vector that adds a feature and takes another away, as a file for llama.cpp and as npy.
#[test]
fn vectors_are_decomposed() {
    let folder = folder("decompose");
    let options = sae::OpenOptions::default();
    let sae = sae::Sae::open(format!("{ROOT}/src/bin/sae/demo/sae"), &options).unwrap();
    let plan = Plan::from_json(
        r#"{"edits": [{"feature": 5, "rule": "add", "strength": 3},
            {"feature": 40, "rule": "add", "strength": -2}]}"#,
    );
    let plan = sae.compile_plan(&plan.unwrap()).unwrap();
    let vector = sae.constant_vector(&plan).unwrap();
    let control = folder.join("control.gguf");
    let mut file = sae::control_vector::ControlVector::default();
    file.directions.insert(12, vector.clone());
    file.write(&control).unwrap();
    let npy = folder.join("vectors.npy");
    let opposite = vector.iter().map(|value| -value);
    let both: Vec<f32> = vector.iter().copied().chain(opposite).collect();
    let bytes: Vec<u8> = both.iter().flat_map(|value| value.to_le_bytes()).collect();
    sae::container::npy_write::write_npy(&npy, sae::Dtype::F32, &[2, vector.len()], &bytes)
        .unwrap();
    let (control, npy) = (control.to_str().unwrap(), npy.to_str().unwrap());

    let check = |output: Output, sign: f64| {
        assert_eq!(text(&output.stderr), "");
        assert!(output.status.success());
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for (place, feature, strength) in [(0, 5, 3.0), (1, 40, -2.0)] {
            let parts = found["parts"].as_array().unwrap();
            let part = parts.iter().find(|part| part["feature"] == feature);
            let part = part.unwrap_or_else(|| panic!("no feature {feature}, place {place}"));
            let error = part["strength"].as_f64().unwrap() - sign * strength;
            assert!(error.abs() < 1e-3, "{part}");
            assert_eq!(
                part["cosine"].as_f64().unwrap() > 0.0,
                sign * strength > 0.0
            );
        }
        assert!(found["explained"].as_f64().unwrap() > 0.999);
        assert_eq!(found["along"].as_array().unwrap().len(), 8);
        assert!(found["against"][0]["cosine"].as_f64().unwrap() < 0.0);
    };
    check(decompose(control, &["--json"]), 1.0);
    check(decompose(npy, &["--row", "1", "--json"]), -1.0);

    // The plan adds the vector again.
    let plan = folder.join("plan.json");
    let plan = plan.to_str().unwrap();
    let output = decompose(npy, &["--row", "0", "--plan", plan, "--top", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("feature\tlength\tstrength\tcosine\n"),
        "{table}"
    );
    assert!(
        table.contains("\nagainst\nfeature\tcosine\tprojection\n"),
        "{table}"
    );
    let read = Plan::from_json(&fs::read_to_string(plan).unwrap()).unwrap();
    let back = sae
        .constant_vector(&sae.compile_plan(&read).unwrap())
        .unwrap();
    for (back, expected) in back.iter().zip(&vector) {
        assert!((back - expected).abs() < 1e-3);
    }

    // Mistakes name the file.
    for (vector, arguments) in [
        (npy, vec![]),
        (npy, vec!["--row", "2"]),
        (npy, vec!["--layer", "12"]),
        (control, vec!["--layer", "13"]),
        (&*rows(), vec![]),
    ] {
        let output = decompose(vector, &arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let message = text(&output.stderr);
        assert!(
            message.starts_with(&format!("error: {vector}: ")),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let output = decompose(npy, &["--row", "0", "--plan", npy]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(decompose(npy, &["-k", "0"]).status.code(), Some(2));
}
