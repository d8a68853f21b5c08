//! `sae pack` and `sae verify`, run as a person or a script runs them: files, exit codes, memory,
//! and what is left when a packer is killed.
#![cfg(feature = "cli")]

use serde_json::Value;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn sae(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sae"));
    command.args(arguments).env_remove("NO_COLOR");
    command
}

fn run(arguments: &[&str]) -> Output {
    sae(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Stdout of a run that must succeed and say nothing on stderr.
#[track_caller]
fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    text(&output.stdout)
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("pack_tool")
        .join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().into()
}

fn fixture(name: &str) -> String {
    format!("{ROOT}/tests/data/fixtures/{name}")
}

fn demo() -> String {
    format!("{ROOT}/src/bin/sae/demo/sae")
}

fn demo_rows() -> String {
    format!("{ROOT}/src/bin/sae/demo/activations.npy")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Arrays of an npz file, as bytes.
fn features(checkpoint: &str, rows: &str, more: &[&str], out: &str) -> Vec<u8> {
    let mut arguments = vec!["encode", checkpoint, rows, "-o", out, "--decode"];
    arguments.extend(more);
    stdout(&arguments);
    fs::read(out).unwrap()
}

#[test]
fn a_pack_gives_the_same_file_of_features() {
    let folder = folder("same");
    let out = path(&folder, "demo.gguf");
    let said = stdout(&["pack", &demo(), "-o", &out]);
    assert!(said.starts_with(&out), "{said}");
    assert!(said.contains("self-test: 4 rows"), "{said}");
    let one = features(&demo(), &demo_rows(), &[], &path(&folder, "one.npz"));
    let two = features(&out, &demo_rows(), &[], &path(&folder, "two.npz"));
    assert!(one == two);
    // The folder holds nothing but what was asked for.
    assert_eq!(names(&folder), ["demo.gguf", "one.npz", "two.npz"]);

    let shown = stdout(&["inspect", &out]);
    for line in ["state: mapped", "lossy: no", "self-test: 4 rows", "sha256"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let json: Value = serde_json::from_str(&stdout(&["inspect", &out, "--json"])).unwrap();
    assert_eq!(json["convention"], "pack");
    assert_eq!(json["pack"]["convention"], "saelens");
    let sources = json["pack"]["sources"].as_array().unwrap();
    let names: Vec<_> = sources.iter().map(|source| &source["name"]).collect();
    assert_eq!(names, ["sae_weights.safetensors", "cfg.json"]);
    assert_eq!(sources[0]["sha256"].as_str().unwrap().len(), 64);
}

/// The hash in a pack is that of `sha256sum`.
#[test]
fn sources_are_named_by_their_sha256() {
    let folder = folder("hash");
    let out = path(&folder, "demo.gguf");
    stdout(&["pack", &demo(), "-o", &out]);
    let json: Value = serde_json::from_str(&stdout(&["inspect", &out, "--json"])).unwrap();
    use sha2::Digest;
    for source in json["pack"]["sources"].as_array().unwrap() {
        let file = format!("{}/{}", demo(), source["name"].as_str().unwrap());
        let digest = sha2::Sha256::digest(fs::read(file).unwrap());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(source["sha256"], digest.as_str());
    }
}

#[test]
fn what_was_given_is_in_the_pack() {
    let folder = folder("given");
    let source = fixture("qwen_scope");
    let out = path(&folder, "qwen.gguf");
    let rows = format!("{source}/inputs.npy");
    let case: Value =
        serde_json::from_slice(&fs::read(format!("{source}/case.json")).unwrap()).unwrap();
    let given = case["open_with"].as_object().unwrap();
    let given: Vec<String> = given.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let set: Vec<&str> = given.iter().flat_map(|pair| ["--set", pair]).collect();
    let checkpoint = match case["checkpoint"].as_str() {
        Some(below) => format!("{source}/{below}"),
        None => source.clone(),
    };
    let mut arguments = vec!["pack", &checkpoint, "-o", &out];
    arguments.extend(&set);
    stdout(&arguments);
    let one = features(&checkpoint, &rows, &set, &path(&folder, "one.npz"));
    let two = features(&out, &rows, &[], &path(&folder, "two.npz"));
    assert!(one == two);
    let shown = stdout(&["inspect", &out]);
    for pair in &given {
        assert!(shown.contains(&format!("given: {pair}")), "{shown}");
    }
}

#[test]
fn narrowing_is_said_and_shown() {
    let folder = folder("narrow");
    let out = path(&folder, "small.gguf");
    let source = fixture("saelens_topk");
    let narrow = ["--encoder", "bf16", "--decoder", "f16"];
    let said = stdout(&[&["pack", &source, "-o", &out][..], &narrow].concat());
    assert!(said.contains("lossy: w_enc F32 to BF16: "), "{said}");
    assert!(said.contains("lossy: w_dec F32 to F16: "), "{said}");
    let shown = stdout(&["inspect", &out]);
    assert!(shown.contains("lossy: w_enc: F32 to BF16"), "{shown}");
    assert!(shown.contains("lossy: w_dec: F32 to F16"), "{shown}");
    stdout(&["verify", &out]);
    // The rows of the self-test can be real ones.
    let rows = format!("{source}/inputs.npy");
    let said = stdout(&["pack", &source, "-o", &out, "--rows", &rows]);
    assert!(said.contains("self-test: 8 rows"), "{said}");
    let output = run(&["pack", &source, "-o", &out, "--encoder", "q4_0"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "a format that is not offered"
    );
}

#[test]
fn a_folder_of_layers_packs_into_one_file_or_into_one_each() {
    let folder = folder("set");
    let layers = folder.join("layers");
    for layer in 0..3 {
        let to = layers.join(format!("layer_{layer}"));
        fs::create_dir_all(&to).unwrap();
        for file in ["cfg.json", "sae_weights.safetensors"] {
            fs::copy(format!("{}/{file}", demo()), to.join(file)).unwrap();
        }
    }
    let layers = layers.to_str().unwrap();
    let all = path(&folder, "all.gguf");
    let said = stdout(&["pack", layers, "-o", &all]);
    assert!(said.contains("3 models"), "{said}");
    let given = ["--set", "model=layer_1"];
    let one = features(&demo(), &demo_rows(), &[], &path(&folder, "one.npz"));
    let two = features(&all, &demo_rows(), &given, &path(&folder, "two.npz"));
    assert!(one == two);
    let output = run(&["inspect", &all]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("layer_0, layer_1, layer_2"), "{said}");

    let each = path(&folder, "each");
    stdout(&["pack", layers, "-o", &each, "--each"]);
    let expected = ["layer_0.gguf", "layer_1.gguf", "layer_2.gguf"];
    assert_eq!(names(Path::new(&each)), expected);
    let three = features(
        &format!("{each}/layer_2.gguf"),
        &demo_rows(),
        &[],
        &path(&folder, "three.npz"),
    );
    assert!(one == three);
}

#[test]
fn a_cross_layer_transcoder_packs_whole_and_by_layer() {
    let folder = folder("clt");
    let source = folder.join("clt");
    fs::create_dir_all(&source).unwrap();
    for file in fs::read_dir(fixture("circuit_tracer_clt_jump")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.starts_with("W_") || name == "config.yaml" {
            fs::copy(&file, source.join(name)).unwrap();
        }
    }
    let source = source.to_str().unwrap();
    let whole = path(&folder, "whole.gguf");
    stdout(&["pack", source, "-o", &whole]);
    let rows = format!("{}/inputs.npy", fixture("circuit_tracer_clt_jump"));
    let one = features(source, &rows, &[], &path(&folder, "one.npz"));
    let two = features(&whole, &rows, &[], &path(&folder, "two.npz"));
    assert!(one == two);
    let each = path(&folder, "each");
    stdout(&["pack", source, "-o", &each, "--each"]);
    let layers = ["clt.layer_0.gguf", "clt.layer_1.gguf", "clt.layer_2.gguf"];
    assert_eq!(names(Path::new(&each)), layers);
    let shown = |path: &str, more: &[&str]| -> Value {
        let mut arguments = vec!["inspect", path, "--json"];
        arguments.extend(more);
        serde_json::from_str(&stdout(&arguments)).unwrap()
    };
    let packed = shown(&format!("{each}/clt.layer_1.gguf"), &[]);
    let layer = shown(source, &["--set", "layer=1"]);
    for key in ["d_in", "d_sae", "d_out", "activation", "site"] {
        assert_eq!(packed[key], layer[key], "{key}");
    }
}

#[test]
fn an_input_is_never_the_output() {
    let folder = folder("inputs");
    let copy = folder.join("sae");
    fs::create_dir_all(&copy).unwrap();
    for file in ["cfg.json", "sae_weights.safetensors"] {
        fs::copy(format!("{}/{file}", demo()), copy.join(file)).unwrap();
    }
    let weights = path(&copy, "sae_weights.safetensors");
    let before = fs::read(&weights).unwrap();
    for checkpoint in [copy.to_str().unwrap(), &weights] {
        let output = run(&["pack", checkpoint, "-o", &weights]);
        assert_eq!(output.status.code(), Some(1), "{checkpoint}");
        assert!(fs::read(&weights).unwrap() == before);
    }
    // A pack beside its source is fine, and the folder still opens as the source.
    let pack = path(&copy, "packed.gguf");
    stdout(&["pack", copy.to_str().unwrap(), "-o", &pack]);
    stdout(&["pack", copy.to_str().unwrap(), "-o", &pack]);
    let json = stdout(&["inspect", copy.to_str().unwrap(), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["convention"], "saelens");
    // A folder with nothing but a pack opens as that.
    let alone = folder.join("alone");
    fs::create_dir_all(&alone).unwrap();
    fs::copy(&pack, alone.join("packed.gguf")).unwrap();
    let json = stdout(&["inspect", alone.to_str().unwrap(), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["convention"], "pack");
}

/// A SAELens checkpoint of zeros with a few ones, as sparse files.
fn sparse_checkpoint(folder: &Path, d_in: u64, d_sae: u64) -> String {
    fs::create_dir_all(folder).unwrap();
    let matrix = d_in * d_sae * 4;
    let ends = [
        matrix,
        2 * matrix,
        2 * matrix + d_sae * 4,
        2 * matrix + d_sae * 4 + d_in * 4,
    ];
    let header = format!(
        r#"{{"W_enc":{{"dtype":"F32","shape":[{d_in},{d_sae}],"data_offsets":[0,{}]}},"W_dec":{{"dtype":"F32","shape":[{d_sae},{d_in}],"data_offsets":[{},{}]}},"b_enc":{{"dtype":"F32","shape":[{d_sae}],"data_offsets":[{},{}]}},"b_dec":{{"dtype":"F32","shape":[{d_in}],"data_offsets":[{},{}]}}}}"#,
        ends[0], ends[0], ends[1], ends[1], ends[2], ends[2], ends[3]
    );
    let mut file = fs::File::create(folder.join("sae_weights.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let data = 8 + header.len() as u64;
    file.set_len(data + ends[3]).unwrap();
    for i in 0..d_in.min(64) {
        // The encoder is [d_in, d_sae], the decoder [d_sae, d_in]: feature i reads and writes i.
        for at in [(i * d_sae + i) * 4, matrix + (i * d_in + i) * 4] {
            file.seek(SeekFrom::Start(data + at)).unwrap();
            file.write_all(&1.0f32.to_le_bytes()).unwrap();
        }
    }
    let config = format!(r#"{{"architecture": "standard", "d_in": {d_in}, "d_sae": {d_sae}}}"#);
    fs::write(folder.join("cfg.json"), config).unwrap();
    folder.to_str().unwrap().into()
}

fn temporary(folder: &Path) -> Option<PathBuf> {
    let hidden = names(folder).into_iter();
    let mut found = hidden.filter(|name| name.starts_with(".out.gguf.") && name.ends_with(".tmp"));
    found.next().map(|name| folder.join(name))
}

fn wait_for(child: &mut Child, what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(began.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Killed at several points, a packer leaves the old file, whole, or none; and the next one takes
/// away what it left under its temporary name.
#[test]
fn killed_at_any_point_it_leaves_no_half_file() {
    let folder = folder("killed");
    let source = sparse_checkpoint(&folder.join("big"), 512, 65_536);
    let out = path(&folder, "out.gguf");
    let pack = || {
        let mut command = sae(&["pack", &source, "-o", &out, "--screen", "none"]);
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let size = |path: &Option<PathBuf>| {
        let metadata = path.as_ref().and_then(|path| fs::metadata(path).ok());
        metadata.map_or(0, |metadata| metadata.len())
    };
    for (round, least) in [1, 50 << 20, 200 << 20].into_iter().enumerate() {
        if round == 2 {
            fs::write(&out, "the old file").unwrap();
        }
        let mut child = pack();
        wait_for(&mut child, || size(&temporary(&folder)) >= least);
        child.kill().unwrap();
        child.wait().unwrap();
        match round {
            2 => assert_eq!(fs::read_to_string(&out).unwrap(), "the old file"),
            _ => assert!(!Path::new(&out).exists()),
        }
        assert!(temporary(&folder).is_some(), "it was killed in between");
    }
    assert!(pack().wait().unwrap().success());
    assert_eq!(names(&folder), ["big", "out.gguf"]);
    stdout(&["verify", &out]);
    fs::remove_dir_all(&folder).unwrap();
}

/// Resident anonymous memory of a process, in bytes.
fn anonymous(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[test]
fn a_checkpoint_of_1_2_gb_packs_within_256_mb() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: resident memory is read from /proc");
        return;
    }
    let folder = folder("memory");
    // 2048 x 73,728 f32, twice: 1.208 GB, the encoder in columns.
    let source = sparse_checkpoint(&folder.join("big"), 2048, 73_728);
    let size = fs::metadata(format!("{source}/sae_weights.safetensors"))
        .unwrap()
        .len();
    assert!(size > 1_200_000_000);
    let out = path(&folder, "out.gguf");
    // Without a screen: building one of this size takes this unoptimised build minutes.
    let mut child = sae(&["pack", &source, "-o", &out, "--screen", "none"])
        .spawn()
        .unwrap();
    let mut most = 0;
    let status = loop {
        most = most.max(anonymous(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success());
    println!("packed {size} bytes with {most} bytes of anonymous memory");
    assert!(most > 1 << 20, "it was measured");
    assert!(most <= 256_000_000, "{most} bytes of anonymous memory");
    let packed = fs::metadata(&out).unwrap().len();
    assert!(packed >= size && packed < size + (1 << 20), "{packed}");
    fs::remove_dir_all(&folder).unwrap();
}

/// llama.cpp's own package lists a pack.
#[test]
fn the_gguf_package_lists_it() {
    let folder = folder("gguf_py");
    let out = path(&folder, "demo.gguf");
    let formats = ["--encoder", "f32", "--decoder", "bf16"];
    stdout(&[&["pack", &demo(), "-o", &out][..], &formats].concat());
    let script = r#"
import sys, gguf
reader = gguf.GGUFReader(sys.argv[1])
for field in reader.fields.values():
    if field.name.startswith(("general.", "sae.activation", "sae.version")):
        print(field.name, field.contents())
for tensor in reader.tensors:
    print(tensor.name, tensor.tensor_type.name, *reversed([int(n) for n in tensor.shape]))
"#;
    let installed = Command::new("python3").args(["-c", "import gguf"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        let required = std::env::var_os("SAE_REQUIRE_TOOLS").is_some();
        assert!(!required, "the Python package gguf is required");
        eprintln!("skipped: the Python package `gguf` (pip install gguf)");
        return;
    }
    let output = Command::new("python3")
        .args(["-c", script, &out])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let listed = text(&output.stdout);
    let json: Value = serde_json::from_str(&stdout(&["inspect", &out, "--json"])).unwrap();
    let (d_in, d_sae) = (&json["d_in"], &json["d_sae"]);
    for line in [
        "general.architecture sae".into(),
        "general.file_type 32".into(),
        "sae.version 1".into(),
        format!("w_enc F32 {d_sae} {d_in}"),
        format!("w_dec BF16 {d_sae} {d_in}"),
        format!("b_enc F32 {d_sae}"),
        format!("self_test.rows F32 4 {d_in}"),
    ] {
        let found = listed.lines().any(|listed| listed == line);
        assert!(found, "no `{line}` in:\n{listed}");
    }
    assert!(listed.contains("\nscreen.panels I8 "), "{listed}");
}

fn json(arguments: &[&str], code: i32) -> Value {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn finding<'j>(json: &'j Value, check: &str) -> &'j Value {
    let mut findings = json["findings"].as_array().unwrap().iter();
    let found = findings.find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {json:#}"))
}

#[test]
fn verify_passes_what_is_right() {
    let folder = folder("verify");
    let said = stdout(&["verify", &demo(), &demo_rows()]);
    for line in [
        "weights",
        "decoder norms",
        "dead features",
        "L0",
        "reconstruction",
    ] {
        assert!(said.contains(&format!("{line}: ")), "{said}");
    }
    assert!(!said.contains("failed"), "{said}");
    let found = json(&["verify", &demo(), &demo_rows(), "--json"], 0);
    assert_eq!(found["passed"], true);
    let fvu = found["quality"]["fvu"].as_f64().unwrap();
    assert!(fvu > 0.0 && fvu < 0.6, "{fvu}");
    let l0 = found["quality"]["l0"].as_f64().unwrap();
    assert_eq!(found["quality"]["rows"], 136);
    assert!(l0 > 1.0, "{l0}");

    let out = path(&folder, "demo.gguf");
    stdout(&["pack", &demo(), "-o", &out]);
    let found = json(&["verify", &out, &demo_rows(), "--json", "--exhaustive"], 0);
    assert_eq!(finding(&found, "self-test")["outcome"], "passed");
    assert_eq!(finding(&found, "checksums")["outcome"], "passed");
    assert_eq!(found["quality"]["fvu"], fvu);
}

/// dictionary_learning saves a threshold of -1 before training sets one; its code then passes every
/// positive value. That is told, and is no failure.
#[test]
fn a_threshold_that_was_never_set_is_a_warning() {
    let source = fixture("dl_batchtopk_unset_threshold");
    let found = json(&["verify", &source, "--json"], 0);
    assert_eq!(found["passed"], true);
    let finding = finding(&found, "thresholds");
    assert_eq!(finding["outcome"], "warning");
    let words = finding["text"].as_str().unwrap();
    assert!(words.contains("negative (up to -1)"), "{words}");
    assert!(words.contains("every positive value passes"), "{words}");
    let said = stdout(&["verify", &source]);
    let mut lines = said.lines();
    let line = lines.find(|line| line.contains("thresholds: ")).unwrap();
    assert!(line.contains("warning"), "{said}");
    assert!(line.contains("every positive value passes"), "{said}");

    let note = "the threshold is -1: unset, so every positive value passes";
    assert!(stdout(&["inspect", &source]).contains(note));
    let json: Value = serde_json::from_str(&stdout(&["inspect", &source, "--json"])).unwrap();
    let notes = json["notes"].as_array().unwrap();
    assert!(notes.iter().any(|it| it == note), "{json:#}");
}

#[test]
fn verify_tells_what_is_wrong() {
    let folder = folder("wrong");
    let out = path(&folder, "demo.gguf");
    stdout(&["pack", &demo(), "-o", &out]);
    // A flipped bit in the middle of the weights.
    let mut bytes = fs::read(&out).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let bad = path(&folder, "bad.gguf");
    fs::write(&bad, &bytes).unwrap();
    let found = json(&["verify", &bad, "--json"], 3);
    assert_eq!(found["passed"], false);
    assert_eq!(finding(&found, "checksums")["outcome"], "failed");
    let output = run(&["verify", &bad]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text(&output.stdout).contains("failed"),
        "{}",
        text(&output.stdout)
    );
    assert_eq!(text(&output.stderr), "");
    // It does not open at all elsewhere.
    assert_eq!(run(&["inspect", &bad]).status.code(), Some(1));

    // Rows at another scale than the model's: the verdict names the cause.
    let rows = fs::read(demo_rows()).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([rows[8], rows[9]]));
    let scaled: Vec<u8> = rows[header..]
        .chunks_exact(4)
        .flat_map(|b| (f32::from_le_bytes(b.try_into().unwrap()) * 64.0).to_le_bytes())
        .collect();
    let wrong = path(&folder, "scaled.npy");
    fs::write(&wrong, [&rows[..header], &scaled].concat()).unwrap();
    let found = json(&["verify", &demo(), &wrong, "--json"], 3);
    let verdict = finding(&found, "reconstruction");
    assert_eq!(verdict["outcome"], "failed", "{found:#}");
    let words = verdict["text"].as_str().unwrap();
    assert!(words.contains("worse than the mean row"), "{words}");
    assert!(
        words.contains("1/64") || words.contains("1/32") || words.contains("1/128"),
        "{words}"
    );
    // Far from the L0 that is given.
    let found = json(
        &["verify", &demo(), &demo_rows(), "--l0", "1000", "--json"],
        3,
    );
    let words = finding(&found, "L0")["text"].as_str().unwrap();
    assert!(words.contains("the model's is 1000"), "{words}");

    // What cannot be verified, and wrong usage.
    let missing = run(&["verify", &path(&folder, "none.gguf")]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).starts_with("error: "));
    assert_eq!(run(&["verify"]).status.code(), Some(2));
    let usage = run(&["verify", &demo(), "--target", &demo_rows()]);
    assert_eq!(usage.status.code(), Some(2), "targets without rows");
}

#[test]
fn a_transcoder_is_verified_with_the_rows_of_its_output_site() {
    let source = fixture("saelens_transcoder");
    let rows = format!("{source}/inputs.npy");
    let found = json(&["verify", &source, &rows, "--json"], 0);
    assert_eq!(finding(&found, "reconstruction")["outcome"], "skipped");
    assert_eq!(found["quality"]["fvu"], Value::Null);
    // Targets of another width than the reconstructions.
    let output = run(&["verify", &source, &rows, "--target", &rows]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("inputs.npy: values per row: expected 48, found 64"),
        "{said}"
    );
}
