//! Every row of SAELens' registry (13,857 published SAEs), replayed: a tiny checkpoint with that
//! row's file name, folders and class of config is opened through the public API; the convention,
//! the rule and the source of k and of the factor must be what the row says. And every family of
//! fixtures beside it. The result is the table `docs/coverage.md`, which this test checks;
//! `WRITE_COVERAGE=1 cargo test --all-features --test coverage` renews it.
#![cfg(all(feature = "std", feature = "torch", feature = "yaml"))]

mod publishers;
mod tiny;
mod zip_file;

use publishers::case;
use sae::{Code, Description, OpenOptions, Sae};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tiny::{Plain, Tiny, constant, made, npz, safetensors, torch};

struct Row {
    loader: String,
    repository: String,
    path: String,
    factor: Option<f64>,
    overrides: serde_json::Value,
    id: String,
}

fn registry() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/registry.csv.gz");
    let file = std::fs::File::open(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    let rows = text.lines().skip(1).map(|line| {
        // Only the last field, JSON, is ever quoted.
        let fields: Vec<&str> = line.splitn(8, ',').collect();
        let [
            release,
            id,
            loader,
            repository,
            path,
            _model,
            factor,
            overrides,
        ] = fields[..]
        else {
            panic!("{line}");
        };
        let json = overrides.trim_matches('"').replace("\"\"", "\"");
        Row {
            loader: loader.into(),
            repository: repository.into(),
            path: path.into(),
            factor: factor.parse().ok(),
            overrides: serde_json::from_str(&json).unwrap_or_default(),
            id: format!("{release} {id}"),
        }
    });
    rows.collect()
}

/// A tiny checkpoint: what stands behind the repository's name, and its config.
struct Checkpoint {
    file: String,
    bytes: std::rc::Rc<Vec<u8>>,
    config: Option<String>,
    convention: &'static str,
    /// How the rule's description begins.
    rule: String,
}

const D: usize = 4;
const N: usize = 8;

fn saelens_names() -> Vec<Tiny> {
    vec![
        made("W_enc", &[D, N]),
        made("W_dec", &[N, D]),
        made("b_enc", &[N]),
        made("b_dec", &[D]),
    ]
}

fn linear(encoder: &str, decoder: &str) -> Vec<Tiny> {
    vec![
        made(&format!("{encoder}.weight"), &[N, D]),
        made(&format!("{encoder}.bias"), &[N]),
        made(&format!("{decoder}.weight"), &[D, N]),
        made(&format!("{decoder}.bias"), &[D]),
    ]
}

/// One generator per loader; checkpoints of one class share their bytes.
#[derive(Default)]
struct Generator {
    cache: BTreeMap<String, std::rc::Rc<Vec<u8>>>,
}

impl Generator {
    fn bytes(&mut self, class: String, make: impl FnOnce() -> Vec<u8>) -> std::rc::Rc<Vec<u8>> {
        self.cache
            .entry(class)
            .or_insert_with(|| std::rc::Rc::new(make()))
            .clone()
    }

    fn checkpoint(&mut self, row: &Row, number: usize) -> Checkpoint {
        let below = |file: &str| format!("{}/{}/{file}", row.repository, row.path);
        let whole = format!("{}/{}", row.repository, row.path);
        let loader = row.loader.as_str();
        match loader {
            "sae_lens" => self.saelens(row, below("sae_weights.safetensors")),
            "gemma_2" | "gemma_2_transcoder" => Checkpoint {
                file: below("params.npz"),
                bytes: self.bytes("gemma_2".into(), || {
                    let mut tensors = saelens_names();
                    tensors.push(constant("threshold", &[N], 0.1));
                    npz(&tensors)
                }),
                config: None,
                convention: "gemma_scope_1",
                rule: "jumprelu".into(),
            },
            "gemma_3" => {
                let affine = row.path.contains("affine");
                let transcoder = row.path.starts_with("transcoder");
                let bytes = self.bytes(format!("gemma_3 {affine}"), || {
                    let mut tensors = vec![
                        made("w_enc", &[D, N]),
                        made("w_dec", &[N, D]),
                        made("b_enc", &[N]),
                        made("b_dec", &[D]),
                        constant("threshold", &[N], 0.1),
                    ];
                    if affine {
                        tensors.push(made("affine_skip_connection", &[D, D]));
                    }
                    safetensors(&tensors)
                });
                let mut config = serde_json::json!({
                    "architecture": "jump_relu", "model_name": "gemma-v3", "width": N, "l0": 2,
                    "hf_hook_point_in": "model.layers.1.in", "type": "sae",
                });
                if transcoder {
                    config["affine_connection"] = affine.into();
                    config["hf_hook_point_out"] = "model.layers.1.out".into();
                }
                Checkpoint {
                    file: below("params.safetensors"),
                    bytes,
                    // Some of them come without.
                    config: number.is_multiple_of(2).then(|| config.to_string()),
                    convention: "gemma_scope_2",
                    rule: "jumprelu".into(),
                }
            }
            "dictionary_learning_1" => self.dictionary_learning(row, below("ae.pt")),
            "qwen_scope" => {
                let (front, _) = row.repository.rsplit_once("K-L0_").unwrap();
                let (_, width) = front.rsplit_once("-W").unwrap();
                let n = width.parse::<usize>().unwrap() * 1024;
                Checkpoint {
                    file: whole,
                    bytes: self.bytes(format!("qwen {n}"), || {
                        let tensors = [
                            made("W_enc", &[n, 2]),
                            made("W_dec", &[2, n]),
                            made("b_enc", &[n]),
                            made("b_dec", &[2]),
                        ];
                        torch(&tensors, None, &[])
                    }),
                    config: None,
                    convention: "qwen_scope",
                    rule: format!(
                        "topk (k = {})",
                        row.repository.rsplit_once("L0_").unwrap().1
                    ),
                }
            }
            "mwhanna_transcoder" => Checkpoint {
                file: whole,
                bytes: self.bytes("mwhanna".into(), || {
                    let mut tensors = saelens_names();
                    tensors[0] = made("W_enc", &[N, D]);
                    safetensors(&tensors)
                }),
                config: Some(
                    "model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n".into(),
                ),
                convention: "transcoder_set",
                rule: "relu".into(),
            },
            "llama_scope" => {
                let average = (D as f64).sqrt() / row.factor.unwrap();
                let config = serde_json::json!({
                    "d_model": D, "d_sae": N, "act_fn": "jumprelu", "jump_relu_threshold": 0.1,
                    "norm_activation": "dataset-wise",
                    "dataset_average_activation_norm": {"in": average, "out": average},
                    "sparsity_include_decoder_norm": true,
                    "apply_decoder_bias_to_pre_encoder": false, "use_decoder_bias": true,
                    "hook_point_in": "a", "hook_point_out": "a",
                });
                Checkpoint {
                    file: below("checkpoints/final.safetensors"),
                    bytes: self.bytes("linear".into(), || {
                        safetensors(&linear("encoder", "decoder"))
                    }),
                    config: Some(config.to_string()),
                    convention: "llama_scope",
                    rule: "jumprelu".into(),
                }
            }
            "llama_scope_r1_distill" => {
                let config = serde_json::json!({
                    "sae_type": "sae", "d_model": D, "expansion_factor": N / D,
                    "act_fn": "jumprelu", "norm_activation": "dataset-wise",
                    "sparsity_include_decoder_norm": true, "hook_point_in": "a",
                });
                Checkpoint {
                    file: below("sae_weights.safetensors"),
                    bytes: self.bytes("r1".into(), || {
                        let mut tensors = linear("encoder", "decoder");
                        tensors.push(constant("log_jumprelu_threshold", &[N], -1.0));
                        safetensors(&tensors)
                    }),
                    config: Some(config.to_string()),
                    convention: "llama_scope_r1",
                    rule: "jumprelu".into(),
                }
            }
            "connor_rob_hook_z" => {
                let config = serde_json::json!({
                    "act_size": D, "dict_size": N, "act_name": "blocks.0.attn.hook_z",
                });
                Checkpoint {
                    file: whole,
                    bytes: self.bytes("hook_z".into(), || torch(&saelens_names(), None, &[])),
                    config: Some(config.to_string()),
                    convention: "hook_z",
                    rule: "relu".into(),
                }
            }
            "goodfire" => Checkpoint {
                file: whole,
                bytes: self.bytes(loader.into(), || {
                    torch(&linear("encoder_linear", "decoder_linear"), None, &[])
                }),
                config: None,
                convention: "goodfire",
                rule: "relu".into(),
            },
            "deepseek_r1" => Checkpoint {
                file: whole,
                bytes: self.bytes(loader.into(), || {
                    torch(&linear("encoder", "decoder"), None, &[])
                }),
                config: None,
                convention: "deepseek_r1",
                rule: "relu".into(),
            },
            "temporal" => Checkpoint {
                file: below("latest_ckpt.safetensors"),
                bytes: self.bytes(loader.into(), || {
                    let part = |name: &str, rows: usize| {
                        let name = format!("attn_layers.0.{name}");
                        [
                            made(&format!("{name}.weight"), &[rows, N]),
                            made(&format!("{name}.bias"), &[rows]),
                        ]
                    };
                    let mut tensors = vec![made("D", &[N, D]), made("b", &[D])];
                    for (name, rows) in [("q_target", 2), ("k_ctx", 2), ("v_ctx", N), ("c_proj", N)]
                    {
                        tensors.extend(part(name, rows));
                    }
                    safetensors(&tensors)
                }),
                config: Some(
                    "llm:\n  dimin: 4\nsae:\n  kval_topk: 3\n  n_attn_layers: 1\n  scaling_factor: 0.5\n"
                        .into(),
                ),
                convention: "temporal",
                rule: "topk (k = 3)".into(),
            },
            other => panic!("no generator for {other}"),
        }
    }

    /// The classes of the native suites; which suite has which is from formats.md 2.1.
    fn saelens(&mut self, row: &Row, file: String) -> Checkpoint {
        let class = if row.path.starts_with("v5_") {
            "topk"
        } else if row.repository.contains("matryoshka") {
            "jumprelu"
        } else {
            "standard"
        };
        let bytes = self.bytes(format!("saelens {class}"), || {
            let mut tensors = saelens_names();
            if class == "jumprelu" {
                tensors.push(constant("threshold", &[N], 0.1));
            }
            safetensors(&tensors)
        });
        let mut config = serde_json::json!({
            "architecture": class, "d_in": D, "d_sae": N, "dtype": "float32",
            "hook_name": "blocks.0.hook_resid_pre", "normalize_activations": "none",
        });
        if class == "topk" {
            config["architecture"] = "standard".into();
            config["activation_fn_str"] = "topk".into();
            config["activation_fn_kwargs"] = serde_json::json!({"k": 3});
            config["normalize_activations"] = "layer_norm".into();
        }
        if row.factor.is_some() {
            config["normalize_activations"] = "expected_average_only_in".into();
        }
        Checkpoint {
            file,
            bytes,
            config: Some(config.to_string()),
            convention: "saelens",
            rule: match class {
                "topk" => "topk (k = 3)",
                "jumprelu" => "jumprelu",
                _ => "relu",
            }
            .into(),
        }
    }

    fn dictionary_learning(&mut self, row: &Row, file: String) -> Checkpoint {
        let name = row.path.to_lowercase();
        let has = |word: &str| name.contains(word);
        let (class, rule) = if has("matryoshka") {
            ("MatryoshkaBatchTopKSAE", "jumprelu")
        } else if has("topk") {
            ("AutoEncoderTopK", "topk (k = 3)")
        } else if has("gated") {
            ("GatedAutoEncoder", "gated")
        } else if has("vanilla") || has("standard") || has("panneal") {
            ("AutoEncoder", "relu")
        } else {
            // andyrdt's, as far as is known.
            ("BatchTopKSAE", "jumprelu")
        };
        let bytes = self.bytes(class.into(), || {
            let mut tensors = linear("encoder", "decoder");
            tensors.pop();
            match class {
                "MatryoshkaBatchTopKSAE" => {
                    tensors = saelens_names();
                    tensors.push(constant("threshold", &[], 0.1));
                }
                "GatedAutoEncoder" => {
                    tensors.remove(1);
                    for (name, size) in [
                        ("decoder_bias", D),
                        ("r_mag", N),
                        ("gate_bias", N),
                        ("mag_bias", N),
                    ] {
                        tensors.push(made(name, &[size]));
                    }
                }
                "AutoEncoder" => tensors.push(made("bias", &[D])),
                _ => {
                    tensors.push(made("b_dec", &[D]));
                    tensors.push(constant("threshold", &[], 0.1));
                }
            }
            torch(&tensors, None, &[("k", Plain::Int(3))])
        });
        let config = serde_json::json!({
            "trainer": {"dict_class": class, "k": 3, "activation_dim": D, "dict_size": N,
                        "layer": 3, "lm_name": "a/b", "submodule_name": "resid_post_layer_3"},
            "buffer": {"ctx_len": 128},
        });
        Checkpoint {
            file,
            bytes,
            config: Some(config.to_string()),
            convention: "dictionary_learning",
            rule: rule.into(),
        }
    }
}

/// How a row opens.
#[derive(Clone, Copy, Default)]
struct Counts {
    alone: usize,
    helped: usize,
    refused: usize,
}

fn open<'a>(checkpoint: &'a Checkpoint, options: &OpenOptions) -> Result<Sae<'a>, sae::Error> {
    let config = checkpoint.config.as_deref();
    Sae::from_bytes(&checkpoint.file, &checkpoint.bytes, config, options)
}

/// Opens a row; the column it belongs to, and how many folder names and values it took.
fn replay(row: &Row, checkpoint: &Checkpoint, counts: &mut Counts) -> &'static str {
    let mut options = OpenOptions::default();
    let mut source = "the files";
    let overrides = &row.overrides;
    if let Some(name) = overrides["normalize_activations"].as_str() {
        options = options.set("normalize_activations", name);
        source = "normalisation given";
    }
    if overrides["model_from_pretrained_kwargs"]["center_writing_weights"] == true {
        options = options.set("center_writing_weights", true);
        source = "centring given";
    }
    let opened = match open(checkpoint, &options) {
        Err(error) if error.code() == Code::MissingKey => {
            assert!(
                error.to_string().contains("`norm_scaling_factor`"),
                "{}: {error}",
                row.id
            );
            source = "factor given";
            options = options.set("norm_scaling_factor", row.factor.expect("a factor"));
            open(checkpoint, &options)
        }
        other => other,
    };
    let sae = match opened {
        Ok(sae) => sae,
        Err(error) => {
            assert_eq!(row.loader, "temporal", "{}: {error}", row.id);
            assert!(
                error
                    .to_string()
                    .contains("unsupported architecture `temporal`"),
                "{error}"
            );
            // Described all the same.
            let (name, bytes) = (&checkpoint.file, &checkpoint.bytes);
            let described =
                Description::from_bytes(name, bytes, checkpoint.config.as_deref(), &options)
                    .unwrap_or_else(|error| panic!("{}: {error}", row.id));
            assert_eq!(described.convention, "temporal");
            assert!(described.activation.starts_with(&checkpoint.rule));
            counts.refused += 1;
            return "refused by name";
        }
    };
    let description = sae.description();
    assert_eq!(description.convention, checkpoint.convention, "{}", row.id);
    assert!(
        description.activation.starts_with(&checkpoint.rule),
        "{}: {}, not {}",
        row.id,
        description.activation,
        checkpoint.rule
    );
    if let Some(factor) = row.factor {
        let scale = sae.parts().scale.as_ref().expect("a scale")[0];
        assert!((scale / factor - 1.0).abs() < 1e-4, "{}: {scale}", row.id);
    }
    if row.loader == "llama_scope" {
        source = "factor in the files";
    }
    if source == "centring given" || source == "factor given" && row.id.contains("mlp-tm") {
        assert!(description.site.mean_center, "{}", row.id);
    }
    if overrides["normalize_activations"] == "constant_norm_rescale" {
        assert_eq!(description.normalization, "constant_norm_rescale");
    }
    if row.loader == "qwen_scope" {
        source = "k in the folder's name";
        assert!(
            description
                .notes
                .iter()
                .any(|note| note.contains("folder's name"))
        );
    }
    match source {
        "the files" | "factor in the files" => counts.alone += 1,
        _ => counts.helped += 1,
    }
    source
}

#[test]
fn every_row_of_the_registry_opens_or_is_refused_by_name() {
    let mut generator = Generator::default();
    let mut loaders: BTreeMap<String, (Counts, BTreeMap<&str, usize>)> = BTreeMap::new();
    let mut conventions = BTreeMap::new();
    let rows = registry();
    assert_eq!(rows.len(), 13_857);
    for (number, row) in rows.iter().enumerate() {
        let (counts, sources) = loaders.entry(row.loader.clone()).or_default();
        let (source, convention) = if row.loader == "mntss_clt_layer_transcoder" {
            (cross_layer(row, counts), "cross_layer_transcoder")
        } else {
            let checkpoint = generator.checkpoint(row, number);
            (replay(row, &checkpoint, counts), checkpoint.convention)
        };
        *sources.entry(source).or_default() += 1;
        conventions.insert(row.loader.clone(), convention);
    }
    // Without the folder's name Qwen-Scope asks for k.
    let row = rows.iter().find(|row| row.loader == "qwen_scope").unwrap();
    let mut checkpoint = generator.checkpoint(row, 0);
    checkpoint.file = row.path.clone();
    let error = open(&checkpoint, &OpenOptions::default()).unwrap_err();
    assert!(
        error.code() == Code::MissingKey && error.to_string().contains("`k`"),
        "{error}"
    );

    let mut table = String::from(
        "# What opens\n\n\
         Written by `tests/coverage.rs`, which replays every row of SAELens' registry of published \
         SAEs (version 6.54.12) with a tiny\ncheckpoint under that row's file and folder names, \
         and opens every family of the fixtures. *Alone*: the downloaded files are enough.\n\
         *Helped*: it also takes the folder's name as downloaded, or a value from the caller \
         (`--set key=value`). *Refused*: an error names why.\n\n\
         ## The registry\n\n\
         | loader | convention | rows | alone | helped | refused | what opening took |\n\
         |---|---|---:|---:|---:|---:|---|\n",
    );
    let mut total = Counts::default();
    for (loader, (counts, sources)) in &loaders {
        let sources: Vec<String> = sources
            .iter()
            .map(|(source, count)| format!("{source} ({count})"))
            .collect();
        let Counts {
            alone,
            helped,
            refused,
        } = *counts;
        let convention = conventions[loader];
        writeln!(
            table,
            "| {loader} | {convention} | {} | {alone} | {helped} | {refused} | {} |",
            alone + helped + refused,
            sources.join(", ")
        )
        .unwrap();
        total.alone += alone;
        total.helped += helped;
        total.refused += refused;
    }
    assert_eq!(total.alone + total.helped + total.refused, rows.len());
    assert_eq!(total.refused, 3);
    let Counts {
        alone,
        helped,
        refused,
    } = total;
    writeln!(
        table,
        "| all | | {} | {alone} | {helped} | {refused} | |",
        rows.len()
    )
    .unwrap();
    table.push_str(&families());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coverage.md");
    if std::env::var_os("WRITE_COVERAGE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == table,
        "docs/coverage.md is not what the test found:\n{table}"
    );
}

/// One layer of a cross-layer transcoder: two files, so it needs a folder.
fn cross_layer(row: &Row, counts: &mut Counts) -> &'static str {
    let folder = std::env::temp_dir().join(format!("sae-coverage-{}", std::process::id()));
    let folder: PathBuf = folder.join(&row.repository);
    std::fs::create_dir_all(&folder).unwrap();
    let layer: usize = row.path.parse().unwrap();
    let name = |kind: &str| format!("{kind}_{layer}");
    let encoder = [
        made(&name("W_enc"), &[N, D]),
        made(&name("b_enc"), &[N]),
        made(&name("b_dec"), &[D]),
    ];
    let decoder = [made(&name("W_dec"), &[N, 26 - layer, D])];
    let file = folder.join(name("W_enc") + ".safetensors");
    std::fs::write(&file, safetensors(&encoder)).unwrap();
    let other = folder.join(name("W_dec") + ".safetensors");
    std::fs::write(&other, safetensors(&decoder)).unwrap();
    let config = "model_kind: cross_layer_transcoder\nfeature_input_hook: hook_resid_mid\n";
    std::fs::write(folder.join("config.yaml"), config).unwrap();
    let sae = Sae::open(&file, &OpenOptions::default()).unwrap();
    assert_eq!(sae.description().convention, "cross_layer_transcoder");
    assert_eq!(sae.description().activation, "relu");
    assert_eq!(sae.d_out(), (26 - layer) * D);
    std::fs::remove_file(file).unwrap();
    std::fs::remove_file(other).unwrap();
    counts.alone += 1;
    "the files"
}

/// The formats of the fixtures, opened as their cases say.
fn families() -> String {
    let mut formats: BTreeMap<String, (Counts, Vec<String>)> = BTreeMap::new();
    for case in case::cases() {
        let format = case.json["format"].as_str().unwrap().to_string();
        let (counts, keys) = formats.entry(format).or_default();
        let mut options = OpenOptions::default();
        if Sae::open(&case.checkpoint, &options).is_ok() {
            counts.alone += 1;
            continue;
        }
        for (key, value) in &case.given {
            options = options.set(key, value);
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        match Sae::open(&case.checkpoint, &options) {
            Ok(_) => counts.helped += 1,
            Err(error) => {
                assert_eq!(error.code(), Code::Unsupported, "{}: {error}", case.name);
                counts.refused += 1;
            }
        }
    }
    let mut table = String::from(
        "\n## The families of the fixtures\n\n\
         | format | cases | alone | helped | refused | keys given |\n\
         |---|---:|---:|---:|---:|---|\n",
    );
    for (format, (counts, keys)) in formats {
        let Counts {
            alone,
            helped,
            refused,
        } = counts;
        let cases = alone + helped + refused;
        let keys = keys.join(", ");
        writeln!(
            table,
            "| {format} | {cases} | {alone} | {helped} | {refused} | {keys} |"
        )
        .unwrap();
    }
    table
}
