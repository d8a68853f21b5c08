//! C and C++ programs against the library: the same bits as the Rust API, statuses for whatever a
//! caller does wrong, threads, floating-point modes. Natively and under valgrind.

#[path = "c/support.rs"]
mod support;

use sae::{Features, OpenOptions, RowStatus, Rows, Sae, Scratch};
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Case, Profile, WARNINGS, cases, folder, library, program, root, run, tool};

/// Programs that take a checkpoint and rows, and check themselves.
const PROGRAMS: &[&str] = &[
    "null",
    "sizes",
    "rows",
    "steer",
    "decompose",
    "labels",
    "plan_builder",
    "plans",
    "architectures",
    "monitor",
    "two_threads",
    "fork",
];

/// How the C++ programs are built.
const CPP: [(&str, &[&str]); 3] = [
    ("17", &["-std=c++17"]),
    ("20", &["-std=c++20"]),
    ("bare", &["-std=c++17", "-fno-exceptions", "-fno-rtti"]),
];

/// What `smoke.c` prints, from the Rust API.
fn expected(case: &Case) -> String {
    let sae = Sae::open(&case.file, &OpenOptions::default()).unwrap();
    let rows = Rows::from_f32(&case.values, sae.d_in()).unwrap();
    let mut scratch = Scratch::new(&sae).unwrap();
    let mut features = Features::new();
    sae.encode(rows, &mut scratch, &mut features).unwrap();
    let mut text = String::new();
    for (number, row) in features.iter().enumerate() {
        for (index, value) in row.indices.iter().zip(row.values) {
            writeln!(text, "feature {number} {index} {:08x}", value.to_bits()).unwrap();
        }
    }
    let mut decoded = vec![0.0; rows.rows() * sae.d_out()];
    sae.decode(&features, Some(rows), &mut scratch, &mut decoded)
        .unwrap();
    for (number, value) in decoded.iter().enumerate() {
        writeln!(text, "decoded {number} {:08x}", value.to_bits()).unwrap();
    }
    let chosen = [3, 1, 3, sae.d_sae() as u32 - 1];
    let set = sae.compile_set(&chosen).unwrap();
    let mut values = vec![0.0; rows.rows() * 4];
    let mut status = vec![RowStatus::Ok; rows.rows()];
    sae.readout(&set, rows, &mut scratch, &mut values, &mut status)
        .unwrap();
    for (row, values) in values.chunks(4).enumerate() {
        for (feature, value) in chosen.iter().zip(values) {
            writeln!(text, "readout {row} {feature} {:08x}", value.to_bits()).unwrap();
        }
    }
    text
}

/// The results among the lines of `smoke.c`.
fn results(text: &str) -> String {
    let kept = text.lines().filter(|line| {
        let word = line.split(' ').next().unwrap();
        ["feature", "decoded", "readout"].contains(&word)
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// The level that `smoke.c` names.
fn level(text: &str) -> &str {
    let line = text.lines().find_map(|line| line.strip_prefix("level "));
    line.unwrap()
}

fn arguments<'a>(path: &'a Path, case: &'a Case) -> [&'a OsStr; 2] {
    [path.as_os_str(), case.rows.as_os_str()]
}

#[test]
fn the_c_functions_give_the_bits_of_the_rust_api() {
    for profile in [Profile::Dev, Profile::Release] {
        let name = match profile {
            Profile::Dev => "smoke",
            Profile::Release => "smoke-release",
        };
        let Some(smoke) = program("tests/c/smoke.c", name, profile, &[]) else {
            return;
        };
        for case in cases() {
            let text = run(Command::new(&smoke).args(arguments(&case.folder, &case)));
            assert_eq!(results(&text), expected(&case), "{}", case.name);
            assert_eq!(level(&text), sae::Level::best().name());
            describes(&text, &case);
        }
    }
}

/// The texts and the JSON are those of the Rust API.
fn describes(text: &str, case: &Case) {
    let sae = Sae::open(&case.folder, &OpenOptions::default()).unwrap();
    let about = sae.description();
    let line = |start: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(start));
        line.unwrap_or_else(|| panic!("no `{start}`")).to_string()
    };
    assert_eq!(line("json "), about.to_json().to_string());
    assert_eq!(line("version "), env!("CARGO_PKG_VERSION"));
    let shape = format!("{} {} {}", sae.d_in(), sae.d_sae(), sae.d_out());
    assert_eq!(line("shape "), shape);
    let site = &about.site;
    let texts = [
        &about.publisher,
        &about.convention,
        &about.architecture,
        &about.activation,
        about.normalization,
        site.hook_name.as_deref().unwrap_or(""),
        site.model_name.as_deref().unwrap_or(""),
        site.hook_name_out.as_deref().unwrap_or(""),
    ];
    for (number, expected) in texts.into_iter().enumerate() {
        assert_eq!(line(&format!("text {number} ")), expected);
    }
}

/// Objects that were compiled with an earlier version of the headers run with this library.
#[test]
fn programs_of_the_previous_header_still_run() {
    let Some(cc) = tool("cc") else { return };
    for name in ["smoke", "steer"] {
        let folder_of = root().join("tests/c/abi/previous");
        let object = folder("programs").join(format!("previous-{name}.o"));
        let mut command = Command::new(&cc);
        // The old headers come first, and no others.
        command
            .args(["-std=c11", "-g", "-c"])
            .args(WARNINGS)
            .arg("-I");
        command
            .arg(&folder_of)
            .arg(folder_of.join(format!("{name}.c")));
        run(command.arg("-o").arg(&object));
        let out = object.with_extension("");
        let mut command = Command::new(&cc);
        command.arg(&object);
        command.arg(library(Profile::Dev).join("libsae.a"));
        run(command.args(support::NATIVE_LIBRARIES).arg("-o").arg(&out));
        for case in cases() {
            let text = run(Command::new(&out).args(arguments(&case.folder, &case)));
            if name == "smoke" {
                assert_eq!(results(&text), expected(&case), "{}", case.name);
            }
        }
    }
}

#[test]
fn the_shared_library_gives_the_same() {
    let Some(cc) = tool("cc") else { return };
    let out = folder("programs").join("smoke-shared");
    let library = library(Profile::Release);
    let mut command = Command::new(cc);
    command.args(["-std=c11", "-I"]).arg(root().join("include"));
    command.arg(root().join("tests/c/smoke.c"));
    command.arg("-L").arg(library).arg("-lsae");
    let mut rpath = std::ffi::OsString::from("-Wl,-rpath,");
    rpath.push(library);
    run(command.arg(rpath).arg("-o").arg(&out));
    for case in cases() {
        let text = run(Command::new(&out).args(arguments(&case.folder, &case)));
        assert_eq!(results(&text), expected(&case), "{}", case.name);
    }
}

/// `-ffast-math` makes the program start with flush-to-zero and denormals-are-zero set.
#[test]
fn a_host_built_with_fast_math_gets_the_same() {
    let source = "tests/c/smoke.c";
    let flags = ["-O2", "-ffast-math"];
    let Some(smoke) = program(source, "smoke-fast", Profile::Release, &flags) else {
        return;
    };
    for case in cases() {
        let text = run(Command::new(&smoke).args(arguments(&case.file, &case)));
        assert_eq!(results(&text), expected(&case), "{}", case.name);
    }
}

#[test]
fn float_modes_change_nothing_and_are_restored() {
    for (profile, name) in [
        (Profile::Dev, "float_modes"),
        (Profile::Release, "float_modes-release"),
    ] {
        let flags = ["-O1", "-frounding-math"];
        let Some(modes) = program("tests/c/float_modes.c", name, profile, &flags) else {
            return;
        };
        for case in cases() {
            let text = run(Command::new(&modes).args(arguments(&case.file, &case)));
            match text.trim().strip_prefix("skipped: ") {
                Some(why) => println!("skipped: floating-point modes ({why})"),
                None => assert_eq!(text, "7 modes\n"),
            }
        }
    }
}

#[test]
fn float_modes_of_a_cpp_host_change_nothing() {
    let flags = ["-std=c++17", "-O1", "-frounding-math"];
    let source = "tests/c/float_modes.cpp";
    let Some(modes) = program(source, "float_modes-cpp", Profile::Release, &flags) else {
        return;
    };
    // Rounding everywhere; flushing where the program knows how to ask for it.
    let x86 = cfg!(any(target_arch = "x86", target_arch = "x86_64"));
    for case in cases() {
        let text = run(Command::new(&modes).args(arguments(&case.file, &case)));
        assert_eq!(text, if x86 { "6 modes\n" } else { "3 modes\n" });
    }
}

#[test]
fn wrong_calls_get_a_status() {
    for name in PROGRAMS {
        let source = format!("tests/c/{name}.c");
        let Some(program) = program(&source, name, Profile::Dev, &[]) else {
            return;
        };
        for case in cases() {
            run(Command::new(&program).args(arguments(&case.file, &case)));
        }
    }
    for case in cases() {
        let Some(errors) = program("tests/c/errors.c", "errors", Profile::Dev, &[]) else {
            return;
        };
        let half = half_of(&case);
        let [file, rows] = arguments(&case.file, &case);
        run(Command::new(&errors).args([file, rows, half.as_os_str()]));
    }
}

/// A file with the first half of a checkpoint.
fn half_of(case: &Case) -> PathBuf {
    let bytes = fs::read(&case.file).unwrap();
    let half = folder("halves").join(format!("{}-half.bin", case.name));
    fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    half
}

/// A program in C++ over every case, in every standard, and one case under valgrind.
fn in_cpp(source: &str) {
    for (name, flags) in CPP {
        let name = format!("{source}-{name}");
        let path = format!("tests/c/{source}.cpp");
        let Some(program) = program(&path, &name, Profile::Dev, flags) else {
            return;
        };
        for case in cases() {
            run(Command::new(&program).args(arguments(&case.file, &case)));
        }
        if let Some(valgrind) = tool("valgrind") {
            let case = &cases()[0];
            support::valgrind(&valgrind, &program, &arguments(&case.file, case));
        }
    }
}

#[test]
fn the_cpp_wrapper_gives_the_same() {
    in_cpp("raii");
}

#[test]
fn the_cpp_wrapper_monitors() {
    in_cpp("monitoring");
}

#[test]
fn valgrind_finds_nothing() {
    let Some(valgrind) = tool("valgrind") else {
        return;
    };
    let smoke = program("tests/c/smoke.c", "smoke-checked", Profile::Dev, &[]);
    let Some(smoke) = smoke else { return };
    for case in cases() {
        let arguments = arguments(&case.file, &case);
        let text = support::valgrind(&valgrind, &smoke, &arguments);
        assert_eq!(results(&text), expected(&case), "{}", case.name);
        // Valgrind's CPU has AVX2 where the real one has, and never AVX-512.
        let best = sae::Level::best().min(sae::Level::Avx2);
        assert_eq!(level(&text), best.name());
    }
    // The models whose decoding needs the inputs, and those that need none.
    for case in cases().iter().filter(|case| case.name != "saelens_topk") {
        for name in PROGRAMS {
            let source = format!("tests/c/{name}.c");
            let checked = format!("{name}-checked");
            let Some(program) = program(&source, &checked, Profile::Dev, &[]) else {
                return;
            };
            support::valgrind(&valgrind, &program, &arguments(&case.file, case));
        }
        let errors = program("tests/c/errors.c", "errors-checked", Profile::Dev, &[]);
        let Some(errors) = errors else { return };
        let half = half_of(case);
        let [file, rows] = arguments(&case.file, case);
        support::valgrind(&valgrind, &errors, &[file, rows, half.as_os_str()]);
    }
}

/// Models over several layers, natively and under valgrind.
#[test]
fn several_sites_and_layers_one_after_the_other() {
    let Some(sites) = program("tests/c/sites.c", "sites", Profile::Release, &[]) else {
        return;
    };
    let Some(checked) = program("tests/c/sites.c", "sites-checked", Profile::Dev, &[]) else {
        return;
    };
    for (name, says) in [
        ("crosscoder_relu", "no layers\n"),
        ("crosscoder_batchtopk", "no layers\n"),
        ("circuit_tracer_clt", "layers\n"),
    ] {
        let case = support::case(name, "");
        let arguments = arguments(&case.file, &case);
        let text = run(Command::new(&sites).args(arguments));
        assert_eq!(text, says, "{name}");
        if let Some(valgrind) = tool("valgrind") {
            assert_eq!(support::valgrind(&valgrind, &checked, &arguments), says);
        }
    }
}

/// A checkpoint in OpenMOSS' form, of small numbers, and rows for it, in a folder of its own.
fn openmoss_checkpoint(
    name: &str,
    tensors: &[(&str, &[usize])],
    d_in: usize,
    config: &serde_json::Value,
) -> PathBuf {
    let mut state = 7u32;
    let mut number = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        let count = shape.iter().product::<usize>();
        data.extend((0..count).flat_map(|_| number().to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()],
        });
        header.insert((*name).into(), entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    let folder = folder(name);
    fs::write(folder.join("sae_weights.safetensors"), file).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let rows: Vec<u8> = (0..7 * d_in).flat_map(|_| number().to_le_bytes()).collect();
    fs::write(folder.join("rows.f32"), rows).unwrap();
    folder
}

fn lorsa_checkpoint(name: &str) -> PathBuf {
    let (heads, d_in, d_head, n, d_out) = (2, 6, 4, 10, 5);
    let tensors: [(&str, &[usize]); 8] = [
        ("W_Q", &[heads, d_in, d_head]),
        ("W_K", &[heads, d_in, d_head]),
        ("b_Q", &[heads, d_head]),
        ("b_K", &[heads, d_head]),
        ("W_V", &[n, d_in]),
        ("b_V", &[n]),
        ("W_O", &[n, d_out]),
        ("b_D", &[d_out]),
    ];
    let config = serde_json::json!({
        "sae_type": "lorsa", "act_fn": "topk", "top_k": 4, "d_model": d_in, "n_qk_heads": heads,
        "d_qk_head": d_head, "rotary_dim": d_head, "norm_activation": "inference",
        "hook_point_in": "in", "hook_point_out": "out",
    });
    openmoss_checkpoint(name, &tensors, d_in, &config)
}

fn molt_checkpoint(name: &str) -> PathBuf {
    let (d_in, d_out) = (6, 5);
    let tensors: [(&str, &[usize]); 7] = [
        ("W_E", &[d_in, 9]),
        ("b_E", &[9]),
        ("b_D", &[d_out]),
        ("U_matrices.1", &[5, d_out, 1]),
        ("V_matrices.1", &[5, 1, d_in]),
        ("U_matrices.3", &[4, d_out, 3]),
        ("V_matrices.3", &[4, 3, d_in]),
    ];
    let config = serde_json::json!({
        "sae_type": "molt", "act_fn": "topk", "top_k": 3, "d_model": d_in,
        "norm_activation": "inference", "hook_point_in": "in", "hook_point_out": "out",
        "rank_counts": {"1": 5, "3": 4}, "expansion_factor": 1.5,
    });
    openmoss_checkpoint(name, &tensors, d_in, &config)
}

/// The rows of such a folder.
fn rows_of(folder: &Path) -> Vec<f32> {
    let bytes = fs::read(folder.join("rows.f32")).unwrap();
    bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

/// What `molt.c` prints, from the Rust API.
fn expected_of_molt(folder: &Path) -> String {
    let molt = sae::Molt::open(folder, &OpenOptions::default()).unwrap();
    let values = rows_of(folder);
    let rows = Rows::from_f32(&values, molt.d_in()).unwrap();
    let (mut scratch, mut features) = (molt.scratch().unwrap(), Features::new());
    molt.encode(rows, &mut scratch, &mut features).unwrap();
    let mut y = vec![0.0; rows.rows() * molt.d_out()];
    molt.decode(&features, Some(rows), &mut scratch, &mut y)
        .unwrap();
    printed(&features, molt.d_sae(), &y)
}

/// Features, readouts of the last and the first, and reconstructions, as the programs print them.
fn printed(features: &Features, d_sae: usize, y: &[f32]) -> String {
    let mut text = String::new();
    for (number, row) in features.iter().enumerate() {
        for (index, value) in row.indices.iter().zip(row.values) {
            writeln!(text, "feature {number} {index} {:08x}", value.to_bits()).unwrap();
        }
    }
    for (number, row) in features.iter().enumerate() {
        for feature in [d_sae as u32 - 1, 0] {
            let at = row.indices.binary_search(&feature);
            let value = at.map_or(0.0, |at| row.values[at]);
            writeln!(text, "readout {number} {feature} {:08x}", value.to_bits()).unwrap();
        }
    }
    for (number, value) in y.iter().enumerate() {
        writeln!(text, "decoded {number} {:08x}", value.to_bits()).unwrap();
    }
    text
}

/// What `lorsa.c` prints, from the Rust API.
fn expected_of_lorsa(folder: &Path) -> String {
    let lorsa = sae::Lorsa::open(folder, &OpenOptions::default()).unwrap();
    let values = rows_of(folder);
    let rows = Rows::from_f32(&values, lorsa.d_in()).unwrap();
    let mut cache = sae::LorsaCache::new(&lorsa, rows.rows()).unwrap();
    let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
    lorsa
        .encode(rows, &mut cache, &mut scratch, &mut features)
        .unwrap();
    let mut y = vec![0.0; rows.rows() * lorsa.d_out()];
    lorsa.decode(&features, &mut scratch, &mut y).unwrap();
    printed(&features, lorsa.d_sae(), &y)
}

/// A program on such a folder, natively and under valgrind.
fn prints(name: &str, folder: &Path, expected: &str) {
    let source = format!("tests/c/{name}.c");
    let Some(native) = program(&source, name, Profile::Release, &[]) else {
        return;
    };
    let Some(checked) = program(&source, &format!("{name}-checked"), Profile::Dev, &[]) else {
        return;
    };
    let rows = folder.join("rows.f32");
    let arguments = [folder.as_os_str(), rows.as_os_str()];
    assert!(expected.lines().count() > 50);
    assert_eq!(run(Command::new(&native).args(arguments)), expected);
    if let Some(valgrind) = tool("valgrind") {
        assert_eq!(support::valgrind(&valgrind, &checked, &arguments), expected);
    }
}

/// What `kinds.c` prints, from the Rust API: what a monitor saw, twice, and steered rows.
fn expected_of_kinds(
    features: &Features,
    inputs: Option<Rows<'_>>,
    mut steer: impl FnMut(&[sae::steer::Plan], sae::steer::Batch<'_>),
) -> String {
    let plans = [
        r#"{"edits": [{"feature": 1, "rule": "add", "strength": 0.5}]}"#,
        r#"{"edits": [{"feature": 3, "rule": "set", "strength": 2.0},
                      {"feature": 4, "rule": "zero"}]}"#,
    ];
    let plans = plans.map(|text| sae::steer::Plan::from_json(text).unwrap());
    let (n, width) = (features.rows(), 5);
    let mut y: Vec<f32> = (0..n * width)
        .map(|i| 0.25 * (i % 7) as f32 - 0.5)
        .collect();
    let fires: Vec<bool> = features
        .iter()
        .map(|row| row.indices.contains(&1))
        .collect();
    let rises = (0..n).filter(|&row| fires[row] && (row == 0 || !fires[row - 1]));
    let (events, fired) = (rises.count(), fires.iter().filter(|&&fires| fires).count());
    let mut text = format!("events {events} fired {fired} of {n}\n").repeat(2);
    for _ in 0..2 {
        let rows = sae::RowsMut::from_f32(&mut y, width).unwrap();
        let mut batch = sae::steer::Batch::new(rows);
        batch.inputs = inputs;
        steer(&plans, batch);
        for (i, value) in y.iter().enumerate() {
            writeln!(text, "steered {i} {:08x}", value.to_bits()).unwrap();
        }
    }
    text
}

#[test]
fn models_of_kinds_of_their_own_are_steered_and_watched() {
    use sae::steer::{Conflicts, Report};
    let folder = lorsa_checkpoint("kinds-lorsa");
    let values = rows_of(&folder);
    let lorsa = sae::Lorsa::open(&folder, &OpenOptions::default()).unwrap();
    let rows = Rows::from_f32(&values, lorsa.d_in()).unwrap();
    let mut cache = sae::LorsaCache::new(&lorsa, rows.rows()).unwrap();
    let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
    lorsa
        .encode(rows, &mut cache, &mut scratch, &mut features)
        .unwrap();
    let expected = expected_of_kinds(&features, None, |plans, batch| {
        let plan = lorsa.compile_plans(plans, Conflicts::Sum).unwrap();
        let mut scratch = lorsa.steer_scratch(&plan).unwrap();
        let mut report = Report::new(&plan);
        lorsa
            .steer(&plan, &features, None, batch, &mut scratch, &mut report)
            .unwrap();
    });
    prints("kinds", &folder, &expected);

    let folder = molt_checkpoint("kinds-molt");
    let values = rows_of(&folder);
    let molt = sae::Molt::open(&folder, &OpenOptions::default()).unwrap();
    let rows = Rows::from_f32(&values, molt.d_in()).unwrap();
    let mut scratch = molt.scratch().unwrap();
    molt.encode(rows, &mut scratch, &mut features).unwrap();
    let expected = expected_of_kinds(&features, Some(rows), |plans, batch| {
        let plan = molt.compile_plans(plans, Conflicts::Sum).unwrap();
        let mut scratch = molt.steer_scratch(&plan).unwrap();
        molt.steer(&plan, batch, &mut scratch, &mut Report::new(&plan))
            .unwrap();
    });
    prints("kinds", &folder, &expected);
}

#[test]
fn low_rank_sparse_attention_gives_the_bits_of_the_rust_api() {
    let folder = lorsa_checkpoint("lorsa");
    prints("lorsa", &folder, &expected_of_lorsa(&folder));
}

#[test]
fn mixtures_of_transforms_give_the_bits_of_the_rust_api() {
    let folder = molt_checkpoint("molt");
    prints("molt", &folder, &expected_of_molt(&folder));
}

/// The C++ wrapper of what goes beyond one model and one row.
#[test]
fn the_cpp_wrapper_composes_models() {
    let (lorsa, molt) = (lorsa_checkpoint("lorsa-cpp"), molt_checkpoint("molt-cpp"));
    let model = support::case("saelens_jumprelu", "sae_weights.safetensors");
    let layers = support::case("circuit_tracer_clt", "");
    let arguments = [
        model.file.as_os_str(),
        model.rows.as_os_str(),
        layers.file.as_os_str(),
        layers.rows.as_os_str(),
        lorsa.as_os_str(),
        molt.as_os_str(),
    ];
    for (name, flags) in CPP {
        let name = format!("composed-{name}");
        let Some(composed) = program("tests/c/composed.cpp", &name, Profile::Dev, flags) else {
            return;
        };
        run(Command::new(&composed).args(arguments));
        if let Some(valgrind) = tool("valgrind") {
            support::valgrind(&valgrind, &composed, &arguments);
        }
    }
}

/// The C side under the compiler's own checkers: what the header's macros and structs do.
#[test]
fn sanitizers_find_nothing() {
    let Some(cc) = tool("cc") else { return };
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let probe = folder("programs").join("probe.c");
    fs::write(&probe, "int main(void) { return 0; }\n").unwrap();
    let mut command = Command::new(cc);
    command.args(flags).arg(&probe).arg("-o");
    let output = command.arg(probe.with_extension("")).output().unwrap();
    if !output.status.success() {
        println!("skipped: the C programs under sanitizers (the compiler has none)");
        return;
    }
    for name in PROGRAMS.iter().chain(&["smoke"]) {
        let source = format!("tests/c/{name}.c");
        let sanitized = format!("{name}-sanitized");
        let program = program(&source, &sanitized, Profile::Dev, &flags).unwrap();
        for case in cases() {
            run(Command::new(&program).args(arguments(&case.file, &case)));
        }
    }
}

#[test]
fn the_example_prints_features() {
    let example = "ffi/examples/features.c";
    let Some(features) = program(example, "features", Profile::Release, &[]) else {
        return;
    };
    for case in cases() {
        let text = run(Command::new(&features).args(arguments(&case.folder, &case)));
        let expected = expected(&case);
        let of_features = |line: &&str| line.starts_with("feature ");
        assert_eq!(
            text.lines().count(),
            expected.lines().filter(of_features).count(),
            "{}",
            case.name
        );
        let first = expected.lines().next().unwrap();
        let [_, row, feature, bits] = first.split(' ').collect::<Vec<_>>()[..] else {
            panic!("`{first}`");
        };
        let start = format!("row {row}, feature {feature}: ");
        let value: f32 = text.lines().next().unwrap()[start.len()..].parse().unwrap();
        let bits = f32::from_bits(u32::from_str_radix(bits, 16).unwrap());
        assert!((value - bits).abs() <= bits.abs() * 1e-5);
    }
    let mut wrong = Command::new(&features);
    let output = wrong.args(["no/such/file", "no/rows"]).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn the_monitoring_example_prints_alerts() {
    let example = "ffi/examples/monitor.c";
    let Some(monitor) = program(example, "monitor-example", Profile::Release, &[]) else {
        return;
    };
    let case = &cases()[0];
    let rules = folder("rules").join("first.json");
    let text =
        r#"{"rules": [{"name": "any", "kind": "threshold", "feature": FEATURE, "over": 0}]}"#;
    // A feature that fires.
    let first = expected(case);
    let feature = first.lines().next().unwrap().split(' ').nth(2).unwrap();
    fs::write(&rules, text.replace("FEATURE", feature)).unwrap();
    let [file, rows] = arguments(&case.folder, case);
    let text = run(Command::new(&monitor).args([file, rows, rules.as_os_str()]));
    let alert: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(alert["rule"], "any");
    assert_eq!(alert["features"][0]["feature"].to_string(), feature);
    assert!(text.contains("# TYPE sae_rows counter") && text.ends_with("# EOF\n"));
}

/// The watch list prints, of the features that encoding finds, those that are watched.
#[test]
fn the_watch_example_prints_what_is_watched() {
    let example = "ffi/examples/watch.c";
    let Some(watch) = program(example, "watch", Profile::Release, &[]) else {
        return;
    };
    for case in cases() {
        let expected = expected(&case);
        let fired: Vec<[&str; 2]> = expected
            .lines()
            .filter_map(|line| line.strip_prefix("feature "))
            .map(|rest| {
                let mut words = rest.split(' ');
                [words.next().unwrap(), words.next().unwrap()]
            })
            .collect();
        let [_, wanted] = fired[0];
        let mut command = Command::new(&watch);
        let text = run(command.args(arguments(&case.folder, &case)).arg(wanted));
        let rows = fired.iter().filter(|[_, feature]| *feature == wanted);
        let starts: Vec<_> = rows
            .map(|[row, feature]| format!("row {row}, feature {feature}: "))
            .collect();
        assert_eq!(text.lines().count(), starts.len(), "{}", case.name);
        for (line, start) in text.lines().zip(&starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }
    let mut wrong = Command::new(&watch);
    let output = wrong
        .args(arguments(&cases()[0].folder, &cases()[0]))
        .arg("x")
        .output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}

#[test]
fn the_example_steers_and_reports() {
    let example = "ffi/examples/steer.cpp";
    let Some(steer) = program(example, "steer-example", Profile::Release, &["-std=c++17"]) else {
        return;
    };
    let case = support::case("saelens_jumprelu", "sae_weights.safetensors");
    let out = folder("rows").join("steered.f32");
    let [file, rows] = arguments(&case.file, &case);
    let mut command = Command::new(&steer);
    let text = run(command.args([file, rows, "3".as_ref(), "2.5".as_ref(), out.as_os_str()]));
    assert!(
        text.contains("cost: 1 encoder rows, 1 decoder rows\n"),
        "{text}"
    );
    let (given, steered) = (fs::read(&case.rows).unwrap(), fs::read(&out).unwrap());
    assert_eq!(given.len(), steered.len());
    assert_ne!(given, steered);
    let sae = Sae::open(&case.file, &OpenOptions::default()).unwrap();
    let count = given.len() / 4 / sae.d_in();
    assert!(text.contains(&format!("edited {count} rows")), "{text}");
    // What Rust makes of the same plan.
    let edit = sae::steer::Edit::set(3, 2.5);
    let plan = sae
        .compile_plan(&sae::steer::Plan::new("example").edit(edit))
        .unwrap();
    let mut expected = case.values.clone();
    let batch = sae::steer::Batch::new(sae::RowsMut::from_f32(&mut expected, sae.d_in()).unwrap());
    let mut scratch = sae::steer::SteerScratch::new(&sae, &plan).unwrap();
    let mut report = sae::steer::Report::new(&plan);
    sae.steer(&plan, batch, &mut scratch, &mut report).unwrap();
    let expected: Vec<u8> = expected
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert_eq!(steered, expected);
}

/// A library without std, with the host's memory and panic functions.
#[test]
fn a_library_without_std_takes_memory_from_its_host() {
    let Some(cc) = tool("cc") else { return };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare-c-target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "-p", "sae-ffi"]);
    cargo.args(["--no-default-features", "--config"]);
    cargo.arg("profile.release.panic=\"abort\"");
    run(cargo.env("CARGO_TARGET_DIR", &target).current_dir(root()));
    let archive = target.join("release/libsae.a");
    let out = folder("programs").join("bare");
    let mut command = Command::new(cc);
    command.arg("-std=c11").args(WARNINGS).arg("-I");
    command.arg(root().join("include"));
    command.arg(root().join("tests/c/bare.c")).arg(&archive);
    run(command.arg("-lm").arg("-o").arg(&out));
    let case = &cases()[0];
    let config = case.folder.join("cfg.json");
    let [file, rows] = arguments(&case.file, case);
    let text = run(Command::new(&out).args([file, rows, config.as_os_str()]));
    assert_eq!(
        results(&text),
        expected(case)
            .lines()
            .filter(|line| line.starts_with("feature"))
            .fold(String::new(), |all, line| all + line + "\n")
    );
    if let Some(nm) = tool("nm") {
        let symbols = run(Command::new(nm).arg("-C").arg(&archive));
        let of_std = |line: &&str| line.contains(" std::") || line.contains("<std::");
        assert_eq!(symbols.lines().find(of_std), None);
    }
}
