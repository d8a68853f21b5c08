//! Publishers' forms, and variants of them, that no fixture has: tiny checkpoints of made-up
//! numbers, written here, opened through the public API and compared with the publishers' formulas
//! in plain f64 code.
#![cfg(all(feature = "std", feature = "torch", feature = "yaml"))]

mod publishers;
mod tiny;
mod zip_file;

use publishers::readings::{fold, jump, top_k};
use publishers::{Norm, Reading, Rule, dot, norm};
use sae::{Code, Features, OpenOptions, Rows, Sae, Scratch};
use serde_json::json;
use tiny::{Plain, Tiny, constant, made, safetensors, torch};

const D: usize = 6;
const N: usize = 10;

fn rows(tensors: &[Tiny], name: &str) -> Vec<Vec<f64>> {
    let tensor = find(tensors, name);
    let width = *tensor.shape.last().unwrap();
    let wide = |row: &[f32]| row.iter().map(|&v| v.into()).collect();
    tensor.values.chunks_exact(width).map(wide).collect()
}

fn columns(tensors: &[Tiny], name: &str) -> Vec<Vec<f64>> {
    publishers::case::transposed(&rows(tensors, name))
}

fn vector(tensors: &[Tiny], name: &str) -> Vec<f64> {
    find(tensors, name)
        .values
        .iter()
        .map(|&v| v.into())
        .collect()
}

fn find<'t>(tensors: &'t [Tiny], name: &str) -> &'t Tiny {
    tensors
        .iter()
        .find(|tensor| tensor.name == name)
        .unwrap_or_else(|| panic!("{name}"))
}

fn exp(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(f64::exp).collect()
}

/// SAELens' four tensors.
fn four() -> Vec<Tiny> {
    vec![
        made("W_enc", &[D, N]),
        made("W_dec", &[N, D]),
        made("b_enc", &[N]),
        made("b_dec", &[D]),
    ]
}

fn reading_of_four(tensors: &[Tiny]) -> Reading {
    let mut reading = Reading::new(columns(tensors, "W_enc"), rows(tensors, "W_dec"));
    reading.bias = vector(tensors, "b_enc");
    reading.b_dec = vector(tensors, "b_dec");
    reading.centre = Some(reading.b_dec.clone());
    reading
}

struct Form<'f> {
    file: &'f str,
    bytes: Vec<u8>,
    config: Option<serde_json::Value>,
    set: &'f [(&'f str, &'f str)],
}

impl Form<'_> {
    fn open(&self) -> Result<Sae<'_>, sae::Error> {
        let config = self.config.as_ref().map(|config| config.to_string());
        let options = OpenOptions::default();
        let options = self
            .set
            .iter()
            .fold(options, |options, (k, v)| options.set(*k, *v));
        Sae::from_bytes(self.file, &self.bytes, config.as_deref(), &options)
    }

    #[track_caller]
    fn refused(&self, code: Code, words: &str) {
        let error = self.open().expect_err("it opened");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    /// Opens it, and compares features and reconstructions of a few rows with the reading.
    #[track_caller]
    fn matches(&self, convention: &str, reading: &Reading) {
        let sae = self.open().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(sae.description().convention, convention);
        let (d_in, count) = (sae.d_in(), 12);
        let input = made("rows", &[count, d_in]);
        let values: Vec<f32> = input.values.iter().map(|v| v * 3.0).collect();
        let rows = Rows::from_f32(&values, d_in).unwrap();
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut features = Features::new();
        sae.encode(rows, &mut scratch, &mut features).unwrap();
        let mut y = vec![0.0; count * sae.d_out()];
        let inputs = sae.needs_inputs_to_decode().then_some(rows);
        sae.decode(&features, inputs, &mut scratch, &mut y).unwrap();
        let mut on = 0;
        for (row, found) in features.iter().enumerate() {
            let x: Vec<f64> = values[row * d_in..][..d_in]
                .iter()
                .map(|&v| v.into())
                .collect();
            let expected = reading.encode(&x);
            let mut dense = vec![0.0; sae.d_sae()];
            for (&index, &value) in found.indices.iter().zip(found.values) {
                dense[index as usize] = f64::from(value);
            }
            assert_eq!(dense.len(), expected.len());
            on += found.indices.len();
            for (i, (found, expected)) in dense.iter().zip(&expected).enumerate() {
                let close = (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
                assert!(close, "row {row}, feature {i}: {found}, not {expected}");
            }
            let expected = reading.decode(&expected, &x);
            let found = &y[row * sae.d_out()..][..sae.d_out()];
            assert_eq!(found.len(), expected.len());
            for (c, (&found, expected)) in found.iter().zip(&expected).enumerate() {
                let close = (f64::from(found) - expected).abs() <= 1e-5 * expected.abs().max(1.0);
                assert!(close, "row {row}, column {c}: {found}, not {expected}");
            }
        }
        assert!(on > 0 && on < count * sae.d_sae(), "{on}");
    }
}

fn form(file: &str, bytes: Vec<u8>, config: serde_json::Value) -> Form<'_> {
    Form {
        file,
        bytes,
        config: Some(config).filter(|config| !config.is_null()),
        set: &[],
    }
}

#[test]
fn patchsae_opens_when_it_is_named() {
    let tensors = four();
    let plain = [("epoch", Plain::Int(3))];
    let bytes = torch(&tensors, Some("state_dict"), &plain);
    let mut form = form("vit.pt", bytes, json!(null));
    form.refused(Code::MissingKey, "`convention`");
    form.set = &[("convention", "patchsae")];
    form.matches("patchsae", &reading_of_four(&tensors));
    form.set = &[("convention", "nobody")];
    form.refused(Code::InvalidValue, "`convention`");
}

/// A file of `tests/data/pickled`: config and state dict in one, as the publisher's class pickles.
fn pickled(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pickled");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn pickled_configs_are_read() {
    let tensors = four();
    let mut prisma = reading_of_four(&tensors);
    prisma.norm = Norm::Layer { unbiased: true };
    prisma.rule = top_k(3);
    let site = |form: &Form<'_>| {
        let sae = form.open().unwrap();
        let site = &sae.description().site;
        (
            site.model_name.clone().unwrap(),
            site.hook_name.clone().unwrap(),
        )
    };
    for name in [
        "prisma.pt",
        #[cfg(feature = "gzip")]
        "prisma.pkl.gz",
    ] {
        let form = form(name, pickled(name), json!(null));
        form.matches("prisma", &prisma);
        let (model, hook) = site(&form);
        assert!(model.starts_with("wkcn/TinyCLIP"));
        assert_eq!(hook, "blocks.9.hook_resid_post");
    }
    for name in [
        "patchsae.pt",
        #[cfg(feature = "gzip")]
        "patchsae.pkl.gz",
    ] {
        let mut form = form(name, pickled(name), json!(null));
        form.matches("patchsae", &reading_of_four(&tensors));
        let (model, hook) = site(&form);
        assert_eq!(model, "openai/clip-vit-base-patch32");
        assert_eq!(hook, "layer 10, resid");
        // A side-car is believed before the file.
        form.config = Some(json!({"block_layer": 1, "module_name": "resid", "d_sae": N + 1}));
        form.refused(Code::Shape, "d_sae");
    }
}

/// What forks of PatchSAE's script train has other maths.
#[test]
fn forks_of_patchsae_are_refused_by_name() {
    let bytes = torch(&four(), Some("state_dict"), &[]);
    for fork in ["gated_sae", "topk_sae", "jumprelu_sae", "matryoshka_sae"] {
        let mut config = json!({"block_layer": 1, "module_name": "resid"});
        config[fork] = true.into();
        form("vit.pt", bytes.clone(), config).refused(Code::Unsupported, fork);
    }
}

#[test]
fn prisma_models_open() {
    let config = |key: &str, value: serde_json::Value| {
        let mut config = json!({
            "architecture": "standard", "activation_fn_str": "relu", "hook_point": "blocks.1.x",
            "d_in": D, "normalize_activations": "layer_norm", "is_transcoder": false,
        });
        config[key] = value;
        config
    };
    let tensors = four();
    let mut reading = reading_of_four(&tensors);
    reading.norm = Norm::Layer { unbiased: true };
    let bytes = torch(&tensors, None, &[]);
    form("weights.pt", bytes.clone(), config("seed", 1.into())).matches("prisma", &reading);
    let mut top = config("activation_fn_str", "topk".into());
    top["activation_fn_kwargs"] = json!({"k": 3});
    reading.rule = top_k(3);
    form("weights.pt", bytes.clone(), top).matches("prisma", &reading);
    reading.rule = Rule::Tanh;
    let tanh = config("activation_fn_str", "tanh-relu".into());
    form("weights.pt", bytes.clone(), tanh).matches("prisma", &reading);
    let leaky = config("activation_fn_str", "leaky_relu".into());
    form("weights.pt", bytes, leaky).refused(Code::Unsupported, "leaky_relu");

    let mut gated = four();
    gated.extend([
        made("b_gate", &[N]),
        made("b_mag", &[N]),
        made("r_mag", &[N]),
    ]);
    let mut reading = reading_of_four(&gated);
    reading.norm = Norm::Layer { unbiased: true };
    reading.scale = exp(vector(&gated, "r_mag"));
    reading.bias = vector(&gated, "b_mag");
    reading.rule = Rule::Gated {
        gate: vector(&gated, "b_gate"),
    };
    let bytes = torch(&gated, None, &[]);
    form("weights.pt", bytes, config("architecture", "gated".into())).matches("prisma", &reading);
}

/// b_dec is subtracted from the input although the output has a bias of its own.
#[test]
fn prisma_transcoders_open() {
    let mut tensors = four();
    tensors.extend([made("b_dec_out", &[D]), made("W_skip", &[D, D])]);
    let mut reading = reading_of_four(&tensors);
    reading.b_dec = vector(&tensors, "b_dec_out");
    reading.skip = Some(rows(&tensors, "W_skip"));
    let config = |normalization: &str| {
        json!({
            "activation_fn_str": "relu", "is_transcoder": true, "hook_point": "a",
            "transcoder_with_skip_connection": true, "normalize_activations": normalization,
        })
    };
    let bytes = torch(&tensors, None, &[]);
    form("weights.pt", bytes.clone(), config("none")).matches("prisma", &reading);
    form("weights.pt", bytes, config("layer_norm")).refused(Code::Unsupported, "skip");
}

/// k of 0, above d_sae or not whole, however a publisher's files say it.
#[test]
fn k_out_of_range_is_refused_through_every_publisher_s_file() {
    let torch_of = |tensors: &[Tiny], plain: &[(&str, Plain)]| torch(tensors, None, plain);
    let linear = [
        made("encoder.weight", &[N, D]),
        made("encoder.bias", &[N]),
        made("decoder.weight", &[D, N]),
        made("b_dec", &[D]),
    ];
    let openai = [
        made("encoder.weight", &[N, D]),
        made("decoder.weight", &[D, N]),
        made("pre_bias", &[D]),
        made("latent_bias", &[N]),
    ];
    let mlsae = [
        made("encoder.weight", &[N, D]),
        made("decoder.weight", &[D, N]),
        made("pre_encoder_bias", &[D]),
    ];
    let sparsify = [
        made("encoder.weight", &[N, D]),
        made("encoder.bias", &[N]),
        made("W_dec", &[N, D]),
        made("b_dec", &[D]),
    ];
    let openmoss = [
        made("W_E", &[D, N]),
        made("b_E", &[N]),
        made("W_D", &[N, D]),
        made("b_D", &[D]),
    ];
    let overcomplete = [
        made("encoder.final_block.0.weight", &[N, D]),
        made("encoder.final_block.0.bias", &[N]),
        made("dictionary._weights", &[N, D]),
        constant("dictionary.multiplier", &[], 0.0),
    ];
    let msae = [
        made("encoder", &[D, N]),
        made("decoder", &[N, D]),
        made("pre_bias", &[D]),
        made("latent_bias", &[N]),
    ];
    type Config<'c> = &'c dyn Fn(f64) -> serde_json::Value;
    // As Python writes it: 3, but 2.5.
    let number = |k: f64| match k.fract() == 0.0 {
        true => json!(k as u64),
        false => json!(k),
    };
    let forms: &[(&str, &str, Vec<u8>, Config<'_>)] = &[
        (
            "saelens topk",
            "sae_weights.safetensors",
            safetensors(&four()),
            &|k| json!({"architecture": "topk", "d_in": D, "d_sae": N, "k": number(k)}),
        ),
        (
            "saelens 3",
            "sae_weights.safetensors",
            safetensors(&four()),
            &|k| {
                json!({"architecture": "standard", "d_in": D, "d_sae": N, "activation_fn_str": "topk",
                   "activation_fn_kwargs": {"k": number(k)}})
            },
        ),
        (
            "dictionary_learning",
            "ae.pt",
            torch_of(&linear, &[]),
            &|k| json!({"trainer": {"dict_class": "AutoEncoderTopK", "k": number(k)}}),
        ),
        (
            "sparsify",
            "layers.3/sae.safetensors",
            safetensors(&sparsify),
            &|k| json!({"d_in": D, "num_latents": N, "k": number(k)}),
        ),
        (
            "sparsify, groups",
            "layers.3/sae.safetensors",
            safetensors(&sparsify),
            &|k| json!({"d_in": D, "num_latents": N, "k": number(k), "activation": "groupmax"}),
        ),
        (
            "sdxl-unbox",
            "state_dict.pth",
            torch(&openai, Some("state_dict"), &[]),
            &|k| json!({"d_model": D, "n_dirs": N, "k": number(k)}),
        ),
        (
            "bussmann",
            "sae.pt",
            torch_of(&four(), &[]),
            &|k| json!({"sae_type": "topk", "top_k": number(k), "act_size": D, "dict_size": N}),
        ),
        ("prisma", "weights.pt", torch_of(&four(), &[]), &|k| {
            json!({"architecture": "standard", "activation_fn_str": "topk", "hook_point": "a",
                   "d_in": D, "normalize_activations": "none", "is_transcoder": false,
                   "activation_fn_kwargs": {"k": number(k)}})
        }),
        (
            "mlsae",
            "model.safetensors",
            safetensors(&mlsae),
            &|k| json!({"n_inputs": D, "n_latents": N, "k": number(k)}),
        ),
        (
            "openmoss",
            "sae_weights.safetensors",
            safetensors(&openmoss),
            &|k| {
                json!({"sae_type": "sae", "d_model": D, "act_fn": "topk", "top_k": number(k),
                   "hook_point_in": "a", "norm_activation": "inference"})
            },
        ),
    ];
    for (name, file, bytes, config) in forms {
        let open = |k: f64| {
            form(file, bytes.clone(), config(k))
                .open()
                .map(|sae| sae.d_sae())
        };
        let good = if *name == "sparsify, groups" {
            5.0
        } else {
            3.0
        };
        assert_eq!(
            open(good).unwrap_or_else(|error| panic!("{name}: {error}")),
            N
        );
        for k in [0.0, N as f64 + 1.0, 2.5] {
            let error = open(k).expect_err(name);
            assert_eq!(error.code(), Code::InvalidValue, "{name}, k = {k}: {error}");
        }
    }

    // As a tensor of the file, which goes before the config; in training only, for some classes.
    let tensor = |class: &str, k: f32| {
        let mut tensors = linear.to_vec();
        tensors.extend([constant("k", &[], k), constant("threshold", &[], 0.5)]);
        let config = json!({"trainer": {"dict_class": class, "k": 3}});
        form("ae.pt", torch(&tensors, None, &[]), config)
    };
    for class in ["AutoEncoderTopK", "BatchTopKSAE"] {
        assert!(tensor(class, 3.0).open().is_ok());
        for k in [0.0, -2.0, 2.5, f32::NAN, f32::INFINITY, N as f32 + 1.0] {
            tensor(class, k).refused(Code::InvalidValue, "`k`");
        }
    }

    // As a plain value of a pickle.
    let activation = |k: Plain| {
        let plain = [
            ("activation", Plain::Text("TopK")),
            ("activation_state_dict.k", k),
        ];
        form("5.pt", torch(&openai, None, &plain), json!(null))
    };
    assert!(activation(Plain::Int(3)).open().is_ok());
    for k in [
        Plain::Int(0),
        Plain::Int(-1),
        Plain::Int(11),
        Plain::Float(2.5),
    ] {
        activation(k).refused(Code::InvalidValue, "k");
    }

    // In the name of a file, and as a setting.
    let plain = [
        ("mean_center", Plain::Bool(false)),
        ("scaling_factor", Plain::Float(1.0)),
    ];
    let bytes = torch(&msae, Some("model"), &plain);
    for k in [0, 11] {
        let name = format!("{N}_{D}_TopKReLU_{k}_RW_False_False_2.0_data.pth");
        form(&name, bytes.clone(), json!(null)).refused(Code::InvalidValue, "`k`");
    }
    let bytes = torch_of(&overcomplete, &[]);
    for (k, allowed) in [("3", true), ("0", false), ("11", false), ("2.5", false)] {
        let set = [("class", "TopKSAE"), ("k", k)];
        let mut model = form("model.pt", bytes.clone(), json!(null));
        model.set = &set;
        match allowed {
            true => assert!(model.open().is_ok()),
            false => model.refused(Code::InvalidValue, "`k`"),
        }
    }

    // As a run-time knob 0 gives no features, and above d_sae is an error.
    let config = json!({"architecture": "topk", "d_in": D, "d_sae": N, "k": 3});
    let model = form("sae_weights.safetensors", safetensors(&four()), config);
    let sae = model.open().unwrap();
    let rows = made("rows", &[4, D]);
    let mut features = Features::new();
    let none = sae.with_k(0).unwrap();
    let mut scratch = Scratch::new(&none).unwrap();
    none.encode(
        Rows::from_f32(&rows.values, D).unwrap(),
        &mut scratch,
        &mut features,
    )
    .unwrap();
    assert_eq!((features.rows(), features.len()), (4, 0));
    assert_eq!(sae.with_k(N + 1).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn msae_opens_by_its_file_name() {
    let inner = [
        made("encoder", &[D, N]),
        made("decoder", &[N, D]),
        made("pre_bias", &[D]),
        made("latent_bias", &[N]),
    ];
    let plain = [
        ("mean_center", Plain::Float(0.25)),
        ("scaling_factor", Plain::Float(1.5)),
        ("target_norm", Plain::Float(0.0)),
    ];
    let bytes = torch(&inner, Some("model"), &plain);
    let mut reading = Reading::new(columns(&inner, "encoder"), rows(&inner, "decoder"));
    // (x - mean) s - pre_bias, and y / s + mean.
    let pre_bias = vector(&inner, "pre_bias");
    let shift: Vec<f64> = pre_bias.iter().map(|b| 0.25 + b / 1.5).collect();
    reading.b_dec = pre_bias;
    fold(&mut reading, 1.5);
    reading.b_dec.clone_from(&shift);
    reading.centre = Some(shift);
    reading.bias = vector(&inner, "latent_bias");
    reading.rule = top_k(3);
    reading.cap = Some(2.0);
    let name = format!("{N}_{D}_TopKReLU_3_RW_False_False_2.0_data.pth");
    let mut msae = form(&name, bytes.clone(), json!(null));
    msae.matches("msae", &reading);
    msae.file = "renamed.pth";
    msae.refused(Code::MissingKey, "`activation`");
    msae.set = &[
        ("activation", "TopKReLU_3"),
        ("normalize", "false"),
        ("soft_cap", "2"),
    ];
    msae.matches("msae", &reading);
    msae.set = &[
        ("activation", "BatchTopK_3"),
        ("normalize", "false"),
        ("soft_cap", "2"),
    ];
    msae.refused(Code::Unsupported, "BatchTopK");

    // Tied, layer norm, ReLU, no cap.
    let tied: Vec<Tiny> = inner
        .iter()
        .filter(|t| t.name != "decoder")
        .cloned()
        .collect();
    let plain = [
        ("mean_center", Plain::Bool(false)),
        ("scaling_factor", Plain::Float(1.0)),
    ];
    let bytes = torch(&tied, Some("model"), &plain);
    let mut reading = Reading::new(columns(&inner, "encoder"), columns(&inner, "encoder"));
    reading.b_dec = vector(&inner, "pre_bias");
    reading.centre = Some(reading.b_dec.clone());
    reading.bias = vector(&inner, "latent_bias");
    reading.norm = Norm::Layer { unbiased: true };
    let name = format!("{N}_{D}_ReLU_003_True_True_0.0_data.pth");
    form(&name, bytes, json!(null)).matches("msae", &reading);
}

#[test]
fn sdxl_unbox_opens_as_openai_without_layer_norm() {
    let tensors = [
        made("encoder.weight", &[N, D]),
        made("decoder.weight", &[D, N]),
        made("pre_bias", &[D]),
        made("latent_bias", &[N]),
    ];
    let mut reading = Reading::new(
        rows(&tensors, "encoder.weight"),
        columns(&tensors, "decoder.weight"),
    );
    reading.b_dec = vector(&tensors, "pre_bias");
    reading.centre = Some(reading.b_dec.clone());
    reading.bias = vector(&tensors, "latent_bias");
    reading.rule = top_k(4);
    let bytes = torch(&tensors, Some("state_dict"), &[]);
    let config = json!({"d_model": D, "n_dirs": N, "k": 4});
    form("state_dict.pth", bytes.clone(), config).matches("openai", &reading);
    form("state_dict.pth", bytes, json!(null)).refused(Code::MissingKey, "`k`");
}

#[test]
fn bussmanns_other_classes_open() {
    let mut tensors = four();
    let config = |class: &str| {
        json!({"sae_type": class, "top_k": 3, "act_size": D, "dict_size": N,
               "input_unit_norm": false})
    };
    let bytes = torch(&tensors, None, &[]);
    form("sae.pt", bytes.clone(), config("vanilla"))
        .matches("bussmann", &reading_of_four(&tensors));
    let mut reading = reading_of_four(&tensors);
    reading.bias.fill(0.0);
    reading.rule = Rule::Afa;
    reading.rank = reading.w_dec.iter().map(|row| norm(row)).collect();
    form("sae.pt", bytes.clone(), config("topafa")).matches("bussmann", &reading);
    let mut batch = form("sae.pt", bytes.clone(), config("batchtopk"));
    batch.refused(Code::MissingKey, "`threshold`");
    batch.set = &[("threshold", "0.5")];
    reading.rank.fill(1.0);
    reading.rule = jump(vec![0.5; N], true);
    batch.matches("bussmann", &reading);
    batch.set = &[("class", "topk")];
    reading.rule = top_k(3);
    batch.matches("bussmann", &reading);
    form("sae.pt", bytes, config("new")).refused(Code::Unsupported, "new");
    tensors.push(constant("other", &[1], 0.0));
    form("sae.pt", torch(&tensors, None, &[]), config("vanilla"))
        .refused(Code::UnknownTensor, "`other`");
}

/// `[models, d, n]` encoders and `[n, models, d]` decoders.
#[test]
fn crosscoders_of_the_model_diffing_notebook_open() {
    let tensors = [
        made("W_enc", &[2, D, N]),
        made("W_dec", &[N, 2, D]),
        made("b_enc", &[N]),
        made("b_dec", &[2, D]),
    ];
    let wide: Vec<f64> = vector(&tensors, "W_enc");
    let stacked: Vec<Vec<f64>> = wide.chunks_exact(N).map(Vec::from).collect();
    let flat = vector(&tensors, "W_dec");
    let decoder = flat.chunks_exact(2 * D).map(Vec::from).collect();
    let mut reading = Reading::new(publishers::case::transposed(&stacked), decoder);
    reading.bias = vector(&tensors, "b_enc");
    reading.b_dec = vector(&tensors, "b_dec");
    form("14.pt", torch(&tensors, None, &[]), json!(null)).matches("crosscoder", &reading);
}

#[test]
fn crosscoders_refuse_what_they_cannot_compute() {
    let tensors = |id: f32, mean: f32| {
        vec![
            made("encoder.weight", &[2, D, N]),
            made("decoder.weight", &[2, N, D]),
            made("encoder.bias", &[N]),
            made("decoder.bias", &[2, D]),
            constant("threshold", &[], 0.5),
            constant("code_normalization_id", &[], id),
            constant("activation_mean", &[2, D], mean),
            constant("activation_std", &[2, D], 1.0),
        ]
    };
    let open = |id, mean| {
        form(
            "model.safetensors",
            safetensors(&tensors(id, mean)),
            json!({}),
        )
    };
    open(1.0, 0.5).refused(Code::Unsupported, "normaliser");
    open(3.0, f32::NAN).refused(Code::Unsupported, "mixed");
    open(5.0, f32::NAN).refused(Code::Unsupported, "decoupled");
    // 2: the norm of both rows together; 4: none.
    let all = tensors(2.0, f32::NAN);
    let stacked: Vec<Vec<f64>> = vector(&all, "encoder.weight")
        .chunks_exact(N)
        .map(Vec::from)
        .collect();
    let flat = vector(&all, "decoder.weight");
    let joined = |i: usize| {
        let part = |layer: usize| flat[(layer * N + i) * D..][..D].to_vec();
        [part(0), part(1)].concat()
    };
    let mut reading = Reading::new(
        publishers::case::transposed(&stacked),
        (0..N).map(joined).collect(),
    );
    reading.bias = vector(&all, "encoder.bias");
    reading.b_dec = vector(&all, "decoder.bias");
    reading.rule = jump(vec![0.5; N], true);
    open(4.0, f32::NAN).matches("crosscoder", &reading);
    reading.rank = reading.w_dec.iter().map(|row| norm(row)).collect();
    open(2.0, f32::NAN).matches("crosscoder", &reading);
}

fn stacked_config(kind: &str, rule: &str) -> serde_json::Value {
    json!({"sae_type": kind, "d_model": D, "act_fn": rule, "top_k": 3,
           "norm_activation": "inference", "sparsity_include_decoder_norm": true})
}

/// Decoders grouped by target layer.
#[test]
fn openmoss_cross_layer_transcoders_open() {
    let mut tensors = vec![made("W_E", &[2, D, N]), made("b_E", &[2, N])];
    tensors.extend([made("W_D.0", &[1, N, D]), made("W_D.1", &[2, N, D])]);
    tensors.extend([made("b_D.0", &[D]), made("b_D.1", &[D])]);
    let w_enc = vector(&tensors, "W_E");
    let (to_0, to_1) = (rows(&tensors, "W_D.0"), rows(&tensors, "W_D.1"));
    let (mut encoder, mut decoder) = (vec![], vec![]);
    for layer in 0..2 {
        for i in 0..N {
            let mut row = vec![0.0; 2 * D];
            for j in 0..D {
                row[layer * D + j] = w_enc[(layer * D + j) * N + i];
            }
            encoder.push(row);
            let own = if layer == 0 {
                to_0[i].clone()
            } else {
                vec![0.0; D]
            };
            decoder.push([own, to_1[layer * N + i].clone()].concat());
        }
    }
    let mut reading = Reading::new(encoder, decoder);
    reading.bias = vector(&tensors, "b_E");
    reading.b_dec = [vector(&tensors, "b_D.0"), vector(&tensors, "b_D.1")].concat();
    let name = "sae_weights.safetensors";
    form(name, safetensors(&tensors), stacked_config("clt", "relu"))
        .matches("openmoss_stacked", &reading);
    tensors.push(made("activation_function.log_jumprelu_threshold", &[2, N]));
    reading.rank = reading.w_dec.iter().map(|row| norm(row)).collect();
    let log = vector(&tensors, "activation_function.log_jumprelu_threshold");
    reading.rule = jump(exp(log), false);
    let bytes = safetensors(&tensors);
    form(name, bytes.clone(), stacked_config("clt", "jumprelu"))
        .matches("openmoss_stacked", &reading);
    form(name, bytes, stacked_config("crosscoder", "jumprelu"))
        .refused(Code::InvalidValue, "sae_type");
}

/// Heads agree on ReLU features; with a threshold each gates for itself.
#[test]
fn openmoss_crosscoders_open() {
    let mut tensors = vec![made("W_E", &[2, D, N]), made("b_E", &[2, N])];
    tensors.extend([made("W_D", &[2, N, D]), made("b_D", &[2, D])]);
    let stacked: Vec<Vec<f64>> = vector(&tensors, "W_E")
        .chunks_exact(N)
        .map(Vec::from)
        .collect();
    let encoder = publishers::case::transposed(&stacked);
    let flat = vector(&tensors, "W_D");
    let part = |head: usize, i: usize| flat[(head * N + i) * D..][..D].to_vec();
    let bias = vector(&tensors, "b_E");
    let bias: Vec<f64> = (0..N).map(|i| bias[i] + bias[N + i]).collect();
    let joined = (0..N).map(|i| [part(0, i), part(1, i)].concat()).collect();
    let mut reading = Reading::new(encoder.clone(), joined);
    reading.bias.clone_from(&bias);
    reading.b_dec = vector(&tensors, "b_D");
    let name = "sae_weights.safetensors";
    form(
        name,
        safetensors(&tensors),
        stacked_config("crosscoder", "relu"),
    )
    .matches("openmoss_stacked", &reading);

    let alone = |head: usize| {
        (0..N).map(move |i| {
            let zeros = vec![0.0; D];
            if head == 0 {
                [part(0, i), zeros].concat()
            } else {
                [zeros, part(1, i)].concat()
            }
        })
    };
    let decoder: Vec<Vec<f64>> = alone(0).chain(alone(1)).collect();
    let mut reading = Reading::new([encoder.clone(), encoder].concat(), decoder);
    reading.bias = [bias.clone(), bias].concat();
    reading.b_dec = vector(&tensors, "b_D");
    reading.rank = reading.w_dec.iter().map(|row| norm(row)).collect();
    tensors.push(made("activation_function.log_jumprelu_threshold", &[N]));
    let log = vector(&tensors, "activation_function.log_jumprelu_threshold");
    reading.rule = jump(exp([log.clone(), log].concat()), false);
    form(
        name,
        safetensors(&tensors),
        stacked_config("crosscoder", "jumprelu"),
    )
    .matches("openmoss_stacked", &reading);
    reading.rule = Rule::TopK {
        k: 3,
        groups: 2,
        relu: true,
        magnitude: false,
    };
    tensors.pop();
    form(
        name,
        safetensors(&tensors),
        stacked_config("crosscoder", "topk"),
    )
    .matches("openmoss_stacked", &reading);
}

#[test]
fn openmoss_normalises_by_token_and_by_dataset() {
    let mut tensors = vec![made("W_E", &[D, N]), made("b_E", &[N])];
    tensors.extend([made("W_D", &[N, D]), made("b_D", &[D])]);
    tensors.push(constant("dataset_average_activation_norm.a", &[], 4.0));
    let mut reading = Reading::new(columns(&tensors, "W_E"), rows(&tensors, "W_D"));
    reading.bias = vector(&tensors, "b_E");
    reading.b_dec = vector(&tensors, "b_D");
    let config = |normalization: &str| {
        json!({"sae_type": "sae", "d_model": D, "act_fn": "relu", "hook_point_in": "a",
               "norm_activation": normalization})
    };
    let open = |name| {
        form(
            "sae_weights.safetensors",
            safetensors(&tensors),
            config(name),
        )
    };
    open("inference").matches("openmoss", &reading);
    let mut dataset = reading.clone();
    fold(&mut dataset, (D as f64).sqrt() / 4.0);
    open("dataset-wise").matches("openmoss", &dataset);
    reading.norm = Norm::Constant;
    open("token-wise").matches("openmoss", &reading);
    open("batch-wise").refused(Code::InvalidValue, "norm_activation");
}

#[test]
fn a_file_of_a_gemma_scope_2_cross_layer_transcoder_opens() {
    let tensors = [
        made("w_enc", &[D, N]),
        made("w_dec", &[N, 3, D]),
        made("b_enc", &[N]),
        made("b_dec", &[D]),
        constant("threshold", &[N], 0.2),
    ];
    let flat = vector(&tensors, "w_dec");
    let decoder = flat.chunks_exact(3 * D).map(Vec::from).collect();
    let mut reading = Reading::new(columns(&tensors, "w_enc"), decoder);
    reading.bias = vector(&tensors, "b_enc");
    reading.rule = jump(vec![f64::from(0.2f32); N], true);
    reading.b_dec = [vec![0.0; D], vector(&tensors, "b_dec"), vec![0.0; D]].concat();
    let bytes = safetensors(&tensors);
    form(
        "clt/width_16k/layer_1.safetensors",
        bytes.clone(),
        json!(null),
    )
    .matches("gemma_scope_2", &reading);
    form("params.safetensors", bytes.clone(), json!(null)).refused(Code::MissingKey, "`layer`");
    form("layer_7.safetensors", bytes, json!(null)).refused(Code::InvalidValue, "`layer`");
}

/// Rows of the dictionary that are not of unit norm are divided by their norms.
#[test]
fn overcomplete_dictionaries_are_normalised() {
    let mut tensors = vec![
        made("encoder.final_block.0.weight", &[N, D]),
        made("encoder.final_block.0.bias", &[N]),
        made("dictionary._weights", &[N, D]),
        constant("dictionary.multiplier", &[], 0.5),
    ];
    let mut decoder = rows(&tensors, "dictionary._weights");
    for row in &mut decoder {
        let length = norm(row) + 1e-8;
        assert!((length - 1.0).abs() > 0.01);
        row.iter_mut().for_each(|w| *w *= 0.5f64.exp() / length);
    }
    let mut reading = Reading::new(rows(&tensors, "encoder.final_block.0.weight"), decoder);
    reading.bias = vector(&tensors, "encoder.final_block.0.bias");
    let bytes = torch(&tensors, None, &[]);
    let mut model = form("model.pt", bytes, json!(null));
    model.refused(Code::MissingKey, "`class`");
    model.set = &[("class", "SAE")];
    model.matches("overcomplete", &reading);
    model.set = &[("class", "BatchTopKSAE")];
    model.refused(Code::MissingKey, "`running_threshold`");
    model.set = &[("class", "QSAE")];
    model.refused(Code::Unsupported, "QSAE");
    tensors.push(made("thresholds", &[N]));
    reading.rule = jump(exp(vector(&tensors, "thresholds")), true);
    form("model.pt", torch(&tensors, None, &[]), json!(null)).matches("overcomplete", &reading);
}

/// The fork with `model.safetensors`, and bare state dicts.
#[test]
fn dictionary_learning_opens_without_a_config_where_it_can() {
    let linear = |bias: &str| {
        vec![
            made("encoder.weight", &[N, D]),
            made("encoder.bias", &[N]),
            made("decoder.weight", &[D, N]),
            made(bias, &[D]),
        ]
    };
    let tensors = linear("bias");
    let mut reading = Reading::new(
        rows(&tensors, "encoder.weight"),
        columns(&tensors, "decoder.weight"),
    );
    reading.bias = vector(&tensors, "encoder.bias");
    reading.b_dec = vector(&tensors, "bias");
    reading.centre = Some(reading.b_dec.clone());
    form("model.safetensors", safetensors(&tensors), json!(null))
        .matches("dictionary_learning", &reading);
    form("ae.pt", torch(&tensors, None, &[]), json!(null)).matches("dictionary_learning", &reading);
    let tensors = linear("b_dec");
    let mut bare = form("ae.pt", torch(&tensors, None, &[]), json!(null));
    bare.refused(Code::MissingKey, "`class`");
    reading.b_dec = vector(&tensors, "b_dec");
    reading.centre = Some(reading.b_dec.clone());
    reading.rule = top_k(3);
    bare.set = &[("class", "AutoEncoderTopK"), ("k", "3")];
    bare.matches("dictionary_learning", &reading);
    bare.set = &[("class", "BatchTopKSAE")];
    bare.refused(Code::MissingTensor, "threshold");
    bare.set = &[("class", "NewSAE")];
    bare.refused(Code::Unsupported, "NewSAE");
}

#[test]
fn sparsify_forks_open_or_are_refused() {
    let tensors = [
        made("encoder.weight", &[N, D]),
        made("encoder.bias", &[N]),
        made("W_dec", &[N, D]),
        made("b_dec", &[D]),
    ];
    let mut reading = Reading::new(rows(&tensors, "encoder.weight"), rows(&tensors, "W_dec"));
    reading.bias = vector(&tensors, "encoder.bias");
    reading.b_dec = vector(&tensors, "b_dec");
    reading.rule = top_k(3);
    let config = |key: &str, value: serde_json::Value| {
        let mut config = json!({"d_in": D, "num_latents": N, "k": 3, "batch_topk": true});
        config[key] = value;
        config
    };
    let bytes = safetensors(&tensors);
    let name = "layers.3/sae.safetensors";
    // Before February 2025 transcoders subtracted the bias too.
    form(name, bytes.clone(), config("transcode", true.into())).matches("sparsify", &reading);
    reading.centre = Some(reading.b_dec.clone());
    let mut old = form(name, bytes.clone(), config("transcode", true.into()));
    old.set = &[("apply_b_dec_to_input", "true")];
    old.matches("sparsify", &reading);
    reading.norm = Norm::Layer { unbiased: true };
    form(name, bytes.clone(), config("input_unit_norm", true.into())).matches("sparsify", &reading);
    form(name, bytes.clone(), config("activation", "new".into()))
        .refused(Code::InvalidValue, "new");
    form(name, bytes.clone(), config("skip_connection", true.into()))
        .refused(Code::MissingTensor, "W_skip");
    form(name, bytes, config("k", serde_json::Value::Null)).refused(Code::MissingKey, "`k`");
    // clt-training's are in tests/architectures/multi_target.rs.
    let multi = safetensors(&[made("encoder.weight", &[N, D]), made("W_decs.0", &[N, D])]);
    form(name, multi, json!({})).refused(Code::MissingKey, "`k`");
}

/// A factor meets gates, decoder norms and pursuits.
#[test]
fn saelens_folds_a_factor_everywhere() {
    let s = 1.7;
    let set: &[(&str, &str)] = &[("norm_scaling_factor", "1.7")];
    let config = |architecture: &str| {
        json!({"architecture": architecture, "d_in": D, "d_sae": N, "k": 3,
               "normalize_activations": "expected_average_only_in"})
    };
    let name = "sae_weights.safetensors";
    let mut gated = vec![
        made("W_enc", &[D, N]),
        made("W_dec", &[N, D]),
        made("b_dec", &[D]),
    ];
    gated.extend([
        made("b_gate", &[N]),
        made("b_mag", &[N]),
        made("r_mag", &[N]),
    ]);
    let mut reading = Reading::new(columns(&gated, "W_enc"), rows(&gated, "W_dec"));
    reading.b_dec = vector(&gated, "b_dec");
    // W_enc itself is scaled, so the gate's products are too.
    reading.w_enc.iter_mut().flatten().for_each(|w| *w *= s);
    reading.scale = exp(vector(&gated, "r_mag"));
    reading.bias = vector(&gated, "b_mag");
    reading.rule = Rule::Gated {
        gate: vector(&gated, "b_gate"),
    };
    reading.w_dec.iter_mut().flatten().for_each(|w| *w /= s);
    reading.b_dec.iter_mut().for_each(|b| *b /= s);
    reading.centre = Some(reading.b_dec.clone());
    let mut model = form(name, safetensors(&gated), config("gated"));
    model.set = set;
    model.matches("saelens", &reading);

    // pre |d / s|, with W_enc s: the factor cancels but in the bias.
    let tensors = four();
    let mut reading = reading_of_four(&tensors);
    fold(&mut reading, s);
    reading.centre = Some(reading.b_dec.clone());
    for i in 0..N {
        let length = norm(&reading.w_dec[i]);
        reading.scale[i] *= length;
        reading.bias[i] *= length;
        reading.w_dec[i].iter_mut().for_each(|w| *w /= length);
    }
    reading.rule = top_k(3);
    let mut rescaled = config("topk");
    rescaled["rescale_acts_by_decoder_norm"] = true.into();
    let mut model = form(name, safetensors(&tensors), rescaled);
    model.set = set;
    model.matches("saelens", &reading);
    model.set = &[];
    model.refused(Code::MissingKey, "`norm_scaling_factor`");
    model.set = &[("norm_scaling_factor", "-1")];
    model.refused(Code::InvalidValue, "`norm_scaling_factor`");
}

/// Older training checkpoints hold the logarithm of the threshold.
#[test]
fn saelens_log_thresholds_open() {
    let mut tensors = four();
    tensors.push(made("log_threshold", &[N]));
    let mut reading = reading_of_four(&tensors);
    reading.rule = jump(exp(vector(&tensors, "log_threshold")), true);
    let config = json!({"architecture": "jumprelu", "d_in": D, "d_sae": N});
    form("sae_weights.safetensors", safetensors(&tensors), config).matches("saelens", &reading);
}

/// A Llama Scope transcoder: input and output have factors of their own.
#[test]
fn llama_scope_transcoders_fold_both_factors() {
    let tensors = [
        made("encoder.weight", &[N, D]),
        made("encoder.bias", &[N]),
        made("decoder.weight", &[D, N]),
        made("decoder.bias", &[D]),
    ];
    let root = (D as f64).sqrt();
    let (s_in, s_out) = (root / 4.0, root / 7.0);
    let config = |apply: serde_json::Value| {
        json!({"d_model": D, "d_sae": N, "act_fn": "jumprelu", "jump_relu_threshold": 0.2,
               "norm_activation": "dataset-wise", "hook_point_in": "a", "hook_point_out": "b",
               "dataset_average_activation_norm": {"in": 4.0, "out": 7.0},
               "sparsity_include_decoder_norm": true, "apply_decoder_bias_to_pre_encoder": apply})
    };
    let name = "checkpoints/final.safetensors";
    let mut reading = Reading::new(
        rows(&tensors, "encoder.weight"),
        columns(&tensors, "decoder.weight"),
    );
    reading.bias = vector(&tensors, "encoder.bias");
    reading.b_dec = vector(&tensors, "decoder.bias");
    reading.scale.fill(s_in);
    reading.w_dec.iter_mut().flatten().for_each(|w| *w /= s_out);
    reading.b_dec.iter_mut().for_each(|b| *b /= s_out);
    reading.rule = jump(vec![f64::from((0.2 * s_in) as f32); N], true);
    let bytes = safetensors(&tensors);
    form(name, bytes.clone(), config(false.into())).matches("llama_scope", &reading);
    form(name, bytes.clone(), config(serde_json::Value::Null))
        .refused(Code::MissingKey, "`apply_decoder_bias_to_pre_encoder`");

    // The original code: unit decoder columns, raw units.
    let mut raw = form(name, bytes, config(false.into()));
    raw.set = &[("units", "raw")];
    let columns = columns(&tensors, "decoder.weight");
    for (i, column) in columns.iter().enumerate() {
        let length = norm(column) * s_in / s_out;
        reading.scale[i] = length;
        reading.bias[i] = vector(&tensors, "encoder.bias")[i] * length / s_in;
        reading.w_dec[i] = column.iter().map(|w| w / norm(column)).collect();
    }
    reading.rule = jump(vec![f64::from(0.2f32); N], true);
    raw.matches("llama_scope", &reading);
    assert!(dot(&reading.b_dec, &reading.b_dec) > 0.0);
}
