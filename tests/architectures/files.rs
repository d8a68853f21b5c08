//! OpenMOSS files of architectures of their own: attention, transforms, gates.

use super::*;
use reference::random::{Format, Tensors};
use sae::model::{HeadNorm, Pairs};
use sae::{Level, Lorsa, LorsaCache, Molt, OpenOptions, RowStatus};
use serde_json::{Value, json};

pub(super) const D: usize = 10;
pub(super) const D_OUT: usize = 8;

/// Adds an f32 tensor.
fn add(tensors: &mut Tensors, name: &str, shape: &[usize], values: &[f64]) {
    assert_eq!(values.len(), shape.iter().product::<usize>());
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|&value| (value as f32).to_le_bytes())
        .collect();
    tensors.add(name, Format::F32, shape, &bytes);
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

/// `[d, n]` as n vectors of d.
fn columns(values: &[f64], n: usize) -> Vec<Vec<f64>> {
    (0..n)
        .map(|i| values.iter().skip(i).step_by(n).copied().collect())
        .collect()
}

pub(super) struct LorsaFile {
    heads: usize,
    d_head: usize,
    n: usize,
    query: Vec<f64>,
    key: Vec<f64>,
    biases: [Vec<f64>; 3],
    value: Vec<f64>,
    pub(super) output: Vec<f64>,
    pub(super) b_d: Vec<f64>,
    norms: [Vec<f64>; 2],
}

impl LorsaFile {
    pub(super) fn new() -> Self {
        let mut random = Random(3);
        let (heads, d_head, n) = (2, 4, 24);
        let mut values = |count| spread(&mut random, count);
        LorsaFile {
            heads,
            d_head,
            n,
            query: values(heads * D * d_head),
            key: values(heads * D * d_head),
            biases: [values(heads * d_head), values(heads * d_head), values(n)],
            value: values(n * D),
            output: values(n * D_OUT),
            b_d: values(D_OUT),
            norms: [values(heads * d_head), values(heads * d_head)],
        }
    }

    pub(super) fn bytes(&self, norms: bool) -> Vec<u8> {
        let (h, d, n) = (self.heads, self.d_head, self.n);
        let mut tensors = Tensors::default();
        add(&mut tensors, "W_Q", &[h, D, d], &self.query);
        add(&mut tensors, "W_K", &[h, D, d], &self.key);
        add(&mut tensors, "b_Q", &[h, d], &self.biases[0]);
        add(&mut tensors, "b_K", &[h, d], &self.biases[1]);
        add(&mut tensors, "b_V", &[n], &self.biases[2]);
        add(&mut tensors, "W_V", &[n, D], &self.value);
        add(&mut tensors, "W_O", &[n, D_OUT], &self.output);
        add(&mut tensors, "b_D", &[D_OUT], &self.b_d);
        add(&mut tensors, "rotary_sin", &[3, 4], &[0.0; 12]);
        add(&mut tensors, "rotary_cos", &[3, 4], &[1.0; 12]);
        tensors.add("IGNORE", Format::F32, &[], &f32::NEG_INFINITY.to_le_bytes());
        for (hook, norm) in [("in", 2.5), ("out", 0.8)] {
            let name = format!("dataset_average_activation_norm.{hook}");
            add(&mut tensors, &name, &[], &[norm]);
        }
        if norms {
            add(&mut tensors, "ln_q.w", &[h, d], &self.norms[0]);
            add(&mut tensors, "ln_k.w", &[h, d], &self.norms[1]);
        }
        tensors.safetensors(0)
    }

    /// Vectors of all heads, one for each query.
    fn vectors(&self, values: &[f64]) -> Vec<Vec<f64>> {
        let heads = values.chunks_exact(D * self.d_head);
        heads.flat_map(|head| columns(head, self.d_head)).collect()
    }

    fn reference(&self) -> reference::lorsa::Lorsa {
        reference::lorsa::Lorsa {
            heads: self.heads,
            query: self.vectors(&self.query),
            query_bias: self.biases[0].clone(),
            key: self.vectors(&self.key),
            key_bias: self.biases[1].clone(),
            value: self.value.chunks_exact(D).map(Vec::from).collect(),
            value_bias: self.biases[2].clone(),
            scale: 2.0,
            norm: None,
            rotary: Some((10_000.0, 4, true)),
        }
    }
}

pub(super) fn lorsa_config() -> Value {
    json!({
        "sae_type": "lorsa", "act_fn": "relu", "d_model": D, "d_sae": 24, "n_qk_heads": 2,
        "d_qk_head": 4, "rotary_dim": 4, "rotary_base": 10000, "rotary_adjacent_pairs": true,
        "rotary_scale": 1, "positional_embedding_type": "rotary", "n_ctx": 3,
        "norm_activation": "inference", "hook_point_in": "in", "hook_point_out": "out",
        "use_decoder_bias": true, "use_post_qk_ln": false, "expansion_factor": 2.4,
    })
}

pub(super) fn open_lorsa(bytes: &[u8], config: Value) -> Result<Lorsa<'_>, Error> {
    let options = OpenOptions::default();
    Lorsa::from_bytes(
        "sae_weights.safetensors",
        bytes,
        Some(&config.to_string()),
        &options,
    )
}

#[test]
fn lorsa_files_open() {
    let file = LorsaFile::new();
    let mut random = Random(4);
    let x: Vec<Vec<f64>> = (0..5).map(|_| spread(&mut random, D)).collect();
    let inputs: Vec<f32> = x.concat().iter().map(|&x| x as f32).collect();
    let factors = ((D as f64).sqrt() / 2.5, (D_OUT as f64).sqrt() / 0.8);
    type Change = fn(&mut reference::lorsa::Lorsa, &LorsaFile);
    let cases: [(Value, bool, Change); 5] = [
        (lorsa_config(), false, |_, _| ()),
        // More heads in the config than in the file: pairs of groups share one.
        (
            with(lorsa_config(), "n_qk_heads", json!(4)),
            false,
            |_, _| (),
        ),
        (
            with(lorsa_config(), "rotary_adjacent_pairs", json!(false)),
            false,
            |of, _| of.rotary = Some((10_000.0, 4, false)),
        ),
        (
            with(
                with(lorsa_config(), "positional_embedding_type", json!("none")),
                "attn_scale",
                json!(3.5),
            ),
            false,
            |of, _| (of.rotary, of.scale) = (None, 3.5),
        ),
        (
            with(
                with(lorsa_config(), "use_post_qk_ln", json!(true)),
                "normalization_type",
                json!("RMS"),
            ),
            true,
            |of, file| {
                of.norm = Some((file.norms[0].clone(), file.norms[1].clone(), 1e-6));
            },
        ),
    ];
    for (config, norms, change) in cases {
        let bytes = file.bytes(norms);
        for scaled in [false, true] {
            let config = match scaled {
                false => config.clone(),
                true => with(config.clone(), "norm_activation", json!("dataset-wise")),
            };
            let lorsa = open_lorsa(&bytes, config.clone()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((lorsa.d_in(), lorsa.d_sae(), lorsa.d_out()), (D, 24, D_OUT));
            assert_eq!(lorsa.description().architecture, "lorsa");
            let mut of = file.reference();
            change(&mut of, &file);
            let (from, to) = if scaled { factors } else { (1.0, 1.0) };
            let x: Vec<Vec<f64>> = x
                .iter()
                .map(|row| row.iter().map(|&x| f64::from(x as f32) * from).collect())
                .collect();
            let mut cache = LorsaCache::new(&lorsa, 5).unwrap();
            let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
            lorsa
                .encode(rows(&inputs, D), &mut cache, &mut scratch, &mut features)
                .unwrap();
            let mut y = vec![0.0; 5 * D_OUT];
            lorsa.decode(&features, &mut scratch, &mut y).unwrap();
            let found = dense(&features, 24);
            for (row, pre) in of.pre(&x).iter().enumerate() {
                for (found, pre) in found[row].iter().zip(pre) {
                    let error = (f64::from(*found) - pre.max(0.0)).abs();
                    assert!(error <= 2e-5, "{config}: {error}");
                }
                for c in 0..D_OUT {
                    let sum: f64 = (0..24)
                        .map(|i| {
                            f64::from(found[row][i]) * f64::from(file.output[i * D_OUT + c] as f32)
                        })
                        .sum();
                    let expected = (sum + f64::from(file.b_d[c] as f32)) / to;
                    assert!((f64::from(y[row * D_OUT + c]) - expected).abs() <= 1e-4);
                }
            }
        }
    }
}

#[test]
fn lorsa_files_that_say_something_else_are_refused() {
    let file = LorsaFile::new();
    let bytes = file.bytes(false);
    for (key, value) in [
        ("n_qk_heads", json!(3)),
        ("d_qk_head", json!(5)),
        ("rotary_scale", json!(2)),
        ("rotary_dim", json!(6)),
        ("positional_embedding_type", json!("learned")),
        ("norm_activation", json!("token-wise")),
        ("act_fn", json!("batchtopk")),
        ("attn_scale", json!(0.0)),
    ] {
        let error = open_lorsa(&bytes, with(lorsa_config(), key, value.clone()));
        assert!(error.is_err(), "{key} {value}");
    }
    let error = open_lorsa(&bytes, with(lorsa_config(), "rotary_dim", Value::Null)).unwrap_err();
    assert_eq!(error.code(), sae::Code::MissingKey, "{error}");
    let norm = with(lorsa_config(), "use_post_qk_ln", json!(true));
    assert!(open_lorsa(&bytes, norm).is_err());
    // Opened as what it is not.
    let options = OpenOptions::default();
    let config = lorsa_config().to_string();
    let as_sae = Sae::from_bytes("w.safetensors", &bytes, Some(&config), &options).unwrap_err();
    assert!(as_sae.to_string().contains("`Lorsa`"), "{as_sae}");
    let as_molt = Molt::from_bytes("w.safetensors", &bytes, Some(&config), &options);
    assert!(as_molt.is_err());
    // The types that the tests above do not name.
    let norm = HeadNorm {
        query: vec![],
        key: vec![],
        eps: 0.0,
    };
    assert!(norm.query.is_empty() && Pairs::Halves != Pairs::Adjacent);
}

/// Ranks 1 and 3, stored out of order.
pub(super) struct MoltFile {
    w_e: Vec<f64>,
    b_e: Vec<f64>,
    pub(super) b_d: Vec<f64>,
    /// Rank, `[count, d_out, r]`, `[count, r, d]`.
    groups: [(usize, Vec<f64>, Vec<f64>); 2],
    counts: [usize; 2],
}

impl MoltFile {
    pub(super) fn new() -> Self {
        let mut random = Random(8);
        let mut values = |count| spread(&mut random, count);
        MoltFile {
            w_e: values(D * 9),
            b_e: values(9),
            b_d: values(D_OUT),
            groups: [
                (3, values(4 * D_OUT * 3), values(4 * 3 * D)),
                (1, values(5 * D_OUT), values(5 * D)),
            ],
            counts: [4, 5],
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut tensors = Tensors::default();
        add(&mut tensors, "W_E", &[D, 9], &self.w_e);
        add(&mut tensors, "b_E", &[9], &self.b_e);
        add(&mut tensors, "b_D", &[D_OUT], &self.b_d);
        for ((rank, u, v), count) in self.groups.iter().zip(self.counts) {
            add(
                &mut tensors,
                &format!("U_matrices.{rank}"),
                &[count, D_OUT, *rank],
                u,
            );
            add(
                &mut tensors,
                &format!("V_matrices.{rank}"),
                &[count, *rank, D],
                v,
            );
        }
        tensors.safetensors(0)
    }

    /// U V of every feature, in order: the lowest rank first. `[d_out][d]`
    pub(super) fn transforms(&self) -> Vec<Vec<Vec<f64>>> {
        let mut all = vec![];
        for ((rank, u, v), count) in self.groups.iter().zip(self.counts).rev() {
            for i in 0..count {
                let entry = |c: usize, j: usize| {
                    (0..*rank)
                        .map(|r| u[(i * D_OUT + c) * rank + r] * v[(i * rank + r) * D + j])
                        .sum::<f64>()
                };
                let row = |c: usize| (0..D).map(|j| entry(c, j)).collect::<Vec<f64>>();
                all.push((0..D_OUT).map(row).collect());
            }
        }
        all
    }
}

fn molt_config(act_fn: &str) -> String {
    json!({
        "sae_type": "molt", "act_fn": act_fn, "top_k": 3, "d_model": D, "norm_activation":
        "inference", "hook_point_in": "in", "hook_point_out": "out",
        "rank_counts": {"1": 5, "3": 4}, "expansion_factor": 0.9,
    })
    .to_string()
}

pub(super) fn open_molt<'b>(bytes: &'b [u8], act_fn: &str, level: Level) -> Molt<'b> {
    let options = OpenOptions::default().level(level);
    let config = molt_config(act_fn);
    Molt::from_bytes("sae_weights.safetensors", bytes, Some(&config), &options)
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn mixtures_of_transforms_open_and_decode_by_the_row() {
    let file = MoltFile::new();
    let bytes = file.bytes();
    let transforms = file.transforms();
    let frobenius = |uv: &Vec<Vec<f64>>| uv.iter().flatten().map(|a| a * a).sum::<f64>().sqrt();
    let weights: Vec<f64> = transforms.iter().map(frobenius).collect();
    let mut random = Random(9);
    let inputs: Vec<f32> = (0..4 * D).map(|_| random.number()).collect();
    let encoder = columns(&file.w_e, 9);
    for act_fn in ["relu", "topk"] {
        let mut first: Option<(Features, Vec<u32>)> = None;
        for level in Level::available() {
            let molt = open_molt(&bytes, act_fn, level);
            assert_eq!((molt.d_in(), molt.d_sae(), molt.d_out()), (D, 9, D_OUT));
            assert_eq!(molt.level(), level);
            let (mut scratch, mut features) = (molt.scratch().unwrap(), Features::new());
            let all = rows(&inputs, D);
            molt.encode(all, &mut scratch, &mut features).unwrap();
            let mut y = vec![0.0; 4 * D_OUT];
            molt.decode(&features, Some(all), &mut scratch, &mut y)
                .unwrap();
            for (row, found) in dense(&features, 9).iter().enumerate() {
                let x: Vec<f64> = inputs[row * D..][..D].iter().map(|&x| x.into()).collect();
                let pre: Vec<f64> = (0..9).map(|i| dot(&encoder[i], &x) + file.b_e[i]).collect();
                let expected = match act_fn {
                    "relu" => formulas::relu(&pre),
                    _ => formulas::top_k_weighted(&pre, &weights, 3),
                };
                assert_values(found, &expected, |_| 1e-6, &format!("{act_fn}, row {row}"));
                for c in 0..D_OUT {
                    let terms = (0..9).map(|i| f64::from(found[i]) * dot(&transforms[i][c], &x));
                    let expected = terms.sum::<f64>() + file.b_d[c];
                    let error = (f64::from(y[row * D_OUT + c]) - expected).abs();
                    assert!(error <= 1e-5 * (1.0 + expected.abs()), "{act_fn}: {error}");
                }
            }
            let set = molt.compile_set(&[8, 0]).unwrap();
            let (mut values, mut status) = ([0.0; 8], [RowStatus::NonFinite; 4]);
            molt.readout(&set, all, &mut scratch, &mut values, &mut status)
                .unwrap();
            for (row, values) in dense(&features, 9).iter().zip(values.chunks_exact(2)) {
                assert_eq!(bits(values), bits(&[row[8], row[0]]));
            }
            let (expected, of_first) = first.get_or_insert((features.clone(), bits(&y)));
            assert_eq!((&*expected, &*of_first), (&features, &bits(&y)));
        }
    }
}

#[test]
fn mixtures_of_transforms_are_checked() {
    let file = MoltFile::new();
    let bytes = file.bytes();
    let molt = open_molt(&bytes, "topk", Level::best());
    let none = molt.with_k(0).unwrap();
    assert!(molt.with_k(10).is_err());
    let (mut scratch, mut features) = (molt.scratch().unwrap(), Features::new());
    let mut input = vec![0.5; 2 * D];
    input[3] = f32::NAN;
    let two = rows(&input, D);
    none.encode(two, &mut scratch, &mut features).unwrap();
    assert!(features.is_empty());
    molt.encode(two, &mut scratch, &mut features).unwrap();
    let mut y = vec![0.0; 2 * D_OUT];
    let missing = molt.decode(&features, None, &mut scratch, &mut y);
    assert!(matches!(missing, Err(Error::InvalidArgument { .. })));
    let fewer = molt.decode(&features, Some(two.part(0, 1)), &mut scratch, &mut y);
    assert!(matches!(fewer, Err(Error::Length { .. })));
    let short = molt.decode(&features, Some(two), &mut scratch, &mut y[1..]);
    assert!(matches!(short, Err(Error::Length { .. })));
    molt.decode(&features, Some(two), &mut scratch, &mut y)
        .unwrap();
    assert!(y[..D_OUT].iter().all(|y| y.is_nan()));
    assert!(y[D_OUT..].iter().all(|y| y.is_finite()));
    let options = OpenOptions::default();
    let config = molt_config("relu");
    let as_sae = Sae::from_bytes("w.safetensors", &bytes, Some(&config), &options).unwrap_err();
    assert!(as_sae.to_string().contains("`Molt`"), "{as_sae}");
    // A model without transforms, and one with one too few.
    let mut random = Random(1);
    let plain = affine(&mut random, spread, D, 9, D_OUT);
    let mut parts = plain.parts(Activation::Relu, Stored::Rows);
    let refused = Molt::from_parts(parts.clone()).unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument { .. }));
    let mut transforms = molt.transforms().each.clone();
    let norm = transforms[8].norm();
    assert!(
        (norm - {
            let of_last = &file.transforms()[8];
            of_last.iter().flatten().map(|a| a * a).sum::<f64>().sqrt()
        })
        .abs()
            <= 1e-5 * norm
    );
    transforms.pop();
    let owned = |matrix: &Matrix<'_>| {
        let vectors: Vec<Vec<f64>> = (0..matrix.features())
            .map(|_| vec![0.5; matrix.width()])
            .collect();
        self::matrix("transform", &vectors, Stored::Rows)
    };
    let each = transforms.iter().map(|one| sae::model::Transform {
        reads: owned(&one.reads),
        writes: owned(&one.writes),
    });
    parts.transforms = Some(sae::model::Transforms {
        each: each.collect(),
    });
    let refused = Molt::from_parts(parts).unwrap_err();
    assert!(matches!(refused, Error::InvalidValue { .. }), "{refused}");
}

#[test]
fn openmoss_files_with_a_glu_encoder_open() {
    let mut random = Random(6);
    let (n, mut tensors) = (14, Tensors::default());
    let [w_e, gate, w_d] = [D * n, D * n, n * D].map(|count| spread(&mut random, count));
    let [b_e, b_gate] = [n, n].map(|count| spread(&mut random, count));
    add(&mut tensors, "W_E", &[D, n], &w_e);
    add(&mut tensors, "W_E_glu", &[D, n], &gate);
    add(&mut tensors, "W_D", &[n, D], &w_d);
    add(&mut tensors, "b_E", &[n], &b_e);
    add(&mut tensors, "b_E_glu", &[n], &b_gate);
    add(&mut tensors, "b_D", &[D], &[0.0; D]);
    let bytes = tensors.safetensors(0);
    let config = |norm: &str| {
        json!({
            "sae_type": "sae", "act_fn": "relu", "d_model": D, "use_glu_encoder": true,
            "norm_activation": norm, "norm_scaling_factor": 1.0,
        })
        .to_string()
    };
    let options = OpenOptions::default();
    let sae = Sae::from_bytes(
        "w.safetensors",
        &bytes,
        Some(&config("inference")),
        &options,
    );
    let sae = sae.unwrap_or_else(|error| panic!("{error}"));
    assert!(sae.description().activation.contains("glu"));
    let inputs: Vec<f32> = (0..3 * D).map(|_| random.number()).collect();
    let (features, _) = encode_decode(&sae, rows(&inputs, D));
    for (row, found) in dense(&features, n).iter().enumerate() {
        let x: Vec<f64> = inputs[row * D..][..D].iter().map(|&x| x.into()).collect();
        let pre = |i: usize| {
            let t = dot(&columns(&gate, n)[i], &x) + b_gate[i];
            (dot(&columns(&w_e, n)[i], &x) + b_e[i]) / (1.0 + (-t).exp())
        };
        let pre: Vec<f64> = (0..n).map(pre).collect();
        assert_values(
            found,
            &formulas::relu(&pre),
            |_| 1e-5,
            &format!("row {row}"),
        );
    }
    let factor = options.set("norm_scaling_factor", 2.0);
    let refused = Sae::from_bytes("w.safetensors", &bytes, Some(&config("inference")), &factor);
    assert!(refused.is_err());
}
