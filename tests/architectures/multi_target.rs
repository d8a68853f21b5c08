//! Multi-target coders: files of clt-training, all their ways to meet in a layer, streams, edges.

use super::*;
use reference::multi_target::{self, Coder, Kind};
use reference::random::{Format, Tensors};
use sae::model::{Target, Targets};
use sae::{Code, LayerStream, OpenOptions, RowStatus};
use serde_json::{Value, json};
use std::path::PathBuf;

const D: usize = 6;
const N: usize = 20;
const K: usize = 4;
/// In the order of their numbers, which is not that of their letters.
const NAMES: [&str; 3] = ["h.2.mlp", "h.9.mlp", "h.10.mlp"];

/// What a suite of layers is like besides its `Kind`.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: Kind,
    /// Layers that each one writes to at most.
    reach: usize,
    tied: bool,
    scales: bool,
    skips: bool,
    norms: bool,
}

fn shape(coalesce: &'static str, anew: bool) -> Shape {
    Shape {
        kind: Kind {
            k: K,
            groupmax: false,
            divide: false,
            coalesce,
            anew,
        },
        reach: 3,
        tied: false,
        scales: true,
        skips: false,
        norms: false,
    }
}

/// All the ways that the publisher's code has.
fn shapes() -> Vec<Shape> {
    let plain = shape("none", false);
    let with = |change: fn(&mut Shape)| {
        let mut shape = plain;
        change(&mut shape);
        shape
    };
    let mut all = vec![
        plain,
        with(|shape| shape.scales = false),
        with(|shape| shape.tied = true),
        with(|shape| shape.kind.divide = true),
        with(|shape| shape.kind.groupmax = true),
        with(|shape| shape.reach = 2),
        with(|shape| (shape.skips, shape.norms, shape.kind.divide) = (true, true, true)),
    ];
    for coalesce in ["concat", "per-layer"] {
        for anew in [false, true] {
            let one = shape(coalesce, anew);
            all.push(one);
            all.push(Shape {
                reach: 2,
                skips: true,
                norms: true,
                ..one
            });
        }
    }
    all
}

struct Suite {
    shape: Shape,
    coders: Vec<Coder>,
}

impl Suite {
    fn new(shape: Shape) -> Self {
        let mut random = Random(11);
        let mut vectors = |count: usize, width: usize| -> Vec<Vec<f64>> {
            (0..count).map(|_| spread(&mut random, width)).collect()
        };
        let layers = NAMES.len();
        let coder = |l: usize| {
            let targets = shape.reach.min(layers - l);
            let own = shape.kind.coalesce != "none";
            // As the trainer counts them, one too many where the reach is short.
            let rows = match shape.kind.coalesce {
                "per-layer" => N * (l + 1).min(shape.reach + 1),
                _ => N,
            };
            let decoders = if own || shape.tied { 1 } else { targets };
            let biases = if own { 1 } else { targets };
            let mut one = |width: usize| vectors(1, width).remove(0);
            let post = (0..targets).map(|_| (one(N), one(N)));
            let post: Vec<(Vec<f64>, Vec<f64>)> = post.collect();
            Coder {
                bias: one(N),
                decoder_bias: (0..biases).map(|_| one(D)).collect(),
                encoder: vectors(N, D),
                post: match shape.scales {
                    true => post,
                    false => post.into_iter().map(|(p, _)| (p, vec![1.0; N])).collect(),
                },
                decoders: (0..decoders).map(|_| vectors(rows, D)).collect(),
                skips: match shape.skips {
                    true => (0..biases).map(|_| vectors(D, D)).collect(),
                    false => vec![],
                },
                norms: shape.norms.then_some((2.5 + l as f64, 3.5 - l as f64)),
            }
        };
        let coders = (0..layers).map(coder).collect();
        Suite { shape, coders }
    }

    fn config(&self, l: usize) -> Value {
        let Shape { kind, .. } = self.shape;
        json!({
            "d_in": D, "num_latents": N, "k": kind.k, "transcode": true, "dtype": "none",
            "activation": if kind.groupmax { "groupmax" } else { "topk" },
            "n_targets": self.coders[l].post.len(),
            "n_sources": (l + 1).min(self.shape.reach + 1),
            "coalesce_topk": kind.coalesce, "topk_coalesced": kind.anew,
            "divide_cross_layer": kind.divide, "per_source_tied": self.shape.tied,
            "post_encoder_scale": self.shape.scales, "skip_connection": self.shape.skips,
            "normalize_io": self.shape.norms, "expansion_factor": 32, "multi_topk": false,
            "normalize_decoder": true, "train_post_encoder": true, "use_fp8": false,
        })
    }

    /// The bytes of a layer's file: with copies of the first target under their old names.
    fn bytes(&self, l: usize) -> Vec<u8> {
        let coder = &self.coders[l];
        let mut tensors = Tensors::default();
        let mut add = |name: &str, shape: &[usize], values: &[f64]| {
            assert_eq!(values.len(), shape.iter().product::<usize>());
            let bytes = values
                .iter()
                .flat_map(|&value| (value as f32).to_le_bytes());
            let bytes: Vec<u8> = bytes.collect();
            tensors.add(name, Format::F32, shape, &bytes);
        };
        add("encoder.weight", &[N, D], &coder.encoder.concat());
        add("encoder.bias", &[N], &coder.bias);
        for (j, (p, s)) in coder.post.iter().enumerate() {
            add(&format!("post_encs.{j}"), &[N], p);
            if self.shape.scales {
                add(&format!("post_enc_scales.{j}"), &[N], s);
            }
        }
        let own = self.shape.kind.coalesce != "none";
        for (j, decoder) in coder.decoders.iter().enumerate() {
            let shape = [decoder.len(), D];
            if j == 0 {
                add("W_dec", &shape, &decoder.concat());
            }
            if !own && !self.shape.tied {
                add(&format!("W_decs.{j}"), &shape, &decoder.concat());
            }
        }
        for (j, bias) in coder.decoder_bias.iter().enumerate() {
            if j == 0 {
                add("b_dec", &[D], bias);
            }
            if !own {
                add(&format!("b_decs.{j}"), &[D], bias);
            }
        }
        for (j, skip) in coder.skips.iter().enumerate() {
            if j == 0 {
                add("W_skip", &[D, D], &skip.concat());
            }
            if !own {
                add(&format!("W_skips.{j}"), &[D, D], &skip.concat());
            }
        }
        if let Some((input, output)) = coder.norms {
            add("in_norm", &[1], &[input]);
            add("out_norm", &[1], &[output]);
        }
        tensors.safetensors(0)
    }
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("sae-multi-target-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn layer(&self, name: &str, bytes: &[u8], config: &Value) {
        let folder = self.0.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("sae.safetensors"), bytes).unwrap();
        std::fs::write(folder.join("cfg.json"), config.to_string()).unwrap();
    }

    fn of(name: &str, suite: &Suite) -> Self {
        let folder = Folder::new(name);
        for (l, name) in NAMES.iter().enumerate() {
            folder.layer(name, &suite.bytes(l), &suite.config(l));
        }
        folder
    }

    fn open(&self) -> Result<Sae<'static>, Error> {
        Sae::open(&self.0, &OpenOptions::default())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn inputs(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.number()).collect()
}

#[test]
fn files_of_all_layers_open_as_one_model() {
    for (i, shape) in shapes().into_iter().enumerate() {
        let suite = Suite::new(shape);
        let folder = Folder::of(&format!("open-{i}"), &suite);
        assert_eq!(Sae::checkpoints(&folder.0).unwrap(), [&*folder.0]);
        assert_eq!(Sae::files(&folder.0).unwrap().len(), 2 * NAMES.len());
        let sae = folder.open().unwrap();
        let description = sae.description();
        assert_eq!(description.convention, "clt_training");
        assert!(
            description
                .notes
                .join("\n")
                .contains("h.2.mlp, h.9.mlp, h.10.mlp")
        );
        let layers = NAMES.len();
        assert_eq!((sae.input_sites(), sae.output_sites()), (layers, layers));
        let width = layers * D;
        let given = inputs(&mut Random(5), 7 * width);
        for sae in [&sae, &folder.open().unwrap().prepare().unwrap()] {
            let (features, y) = encode_decode(sae, rows(&given, width));
            for (row, found) in dense(&features, layers * N).iter().enumerate() {
                let x = &given[row * width..][..width];
                let x: Vec<Vec<f64>> = x
                    .chunks_exact(D)
                    .map(|x| x.iter().map(|&x| x.into()).collect())
                    .collect();
                let (z, outputs) = multi_target::run(&suite.coders, shape.kind, &x);
                let place = format!("{shape:?}, row {row}");
                assert_values(found, &z.concat(), |_| 1e-12, &place);
                let outputs = outputs.concat();
                let largest = outputs.iter().fold(1.0f64, |most, y| most.max(y.abs()));
                for (c, golden) in outputs.iter().enumerate() {
                    let error = (f64::from(y[row * width + c]) - golden).abs();
                    assert!(error <= 2e-6 * largest, "{place}, column {c}");
                }
            }
        }
    }
}

/// One file: what the layer adds to each of its targets.
#[test]
fn a_file_of_one_layer_opens_by_itself() {
    let suite = Suite::new(Shape {
        skips: true,
        ..shape("none", false)
    });
    for (l, folder) in NAMES.into_iter().enumerate() {
        let bytes = suite.bytes(l);
        let config = suite.config(l).to_string();
        let name = format!("{folder}/sae.safetensors");
        let options = OpenOptions::default();
        let sae = Sae::from_bytes(&name, &bytes, Some(&config), &options).unwrap();
        let coder = &suite.coders[l];
        let targets = coder.post.len();
        assert_eq!((sae.d_in(), sae.d_out()), (D, targets * D));
        assert_eq!(sae.description().site.hook_name.as_deref(), Some(folder));
        let given = inputs(&mut Random(6), 5 * D);
        let (_, y) = encode_decode(&sae, rows(&given, D));
        for (row, x) in given.chunks_exact(D).enumerate() {
            let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            for j in 0..targets {
                let one = Coder {
                    post: vec![coder.post[j].clone()],
                    decoders: vec![coder.decoders[j].clone()],
                    decoder_bias: vec![coder.decoder_bias[j].clone()],
                    skips: vec![coder.skips[j].clone()],
                    ..coder.clone()
                };
                let (_, outputs) =
                    multi_target::run(&[one], suite.shape.kind, std::slice::from_ref(&x));
                for (c, golden) in outputs[0].iter().enumerate() {
                    let found = f64::from(y[(row * targets + j) * D + c]);
                    assert!((found - golden).abs() <= 2e-5, "row {row}, target {j}");
                }
            }
        }
    }
}

/// A coder with one target has its bias and scale under other names, and may autoencode.
#[test]
fn a_coder_with_one_target_opens() {
    let mut suite = Suite::new(Shape {
        reach: 1,
        norms: true,
        ..shape("none", false)
    });
    suite.coders.truncate(1);
    let coder = suite.coders[0].clone();
    let mut tensors = Tensors::default();
    for (name, shape, values) in [
        ("encoder.weight", vec![N, D], coder.encoder.concat()),
        ("encoder.bias", vec![N], coder.bias.clone()),
        ("W_dec", vec![N, D], coder.decoders[0].concat()),
        ("b_dec", vec![D], coder.decoder_bias[0].clone()),
        ("post_enc", vec![N], coder.post[0].0.clone()),
        ("post_enc_scale", vec![N], coder.post[0].1.clone()),
        ("in_norm", vec![1], vec![2.5]),
        ("out_norm", vec![1], vec![3.5]),
    ] {
        let bytes = values
            .iter()
            .flat_map(|&value| (value as f32).to_le_bytes());
        tensors.add(name, Format::F32, &shape, &bytes.collect::<Vec<u8>>());
    }
    let bytes = tensors.safetensors(0);
    let given = inputs(&mut Random(7), 5 * D);
    for transcode in [true, false] {
        let mut config = suite.config(0);
        (config["n_targets"], config["transcode"]) = (0.into(), transcode.into());
        let text = config.to_string();
        let options = OpenOptions::default();
        let sae = Sae::from_bytes("sae.safetensors", &bytes, Some(&text), &options).unwrap();
        let (_, y) = encode_decode(&sae, rows(&given, D));
        for (x, y) in given.chunks_exact(D).zip(y.chunks_exact(D)) {
            let mut one = coder.clone();
            if !transcode {
                // W (a x - b_dec) + b
                for (bias, row) in one.bias.iter_mut().zip(&one.encoder) {
                    *bias -= dot(row, &coder.decoder_bias[0]);
                }
            }
            let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let (_, outputs) = multi_target::run(&[one], suite.shape.kind, &[x]);
            for (found, golden) in y.iter().zip(&outputs[0]) {
                assert!((f64::from(*found) - golden).abs() <= 2e-5, "{transcode}");
            }
        }
    }
}

/// Layer by layer the bits are those of the whole rows, unless a layer selects anew.
#[test]
fn layers_stream_unless_they_select_anew() {
    for shape in shapes() {
        let suite = Suite::new(shape);
        let index = suite.config(0).to_string();
        let name = format!(
            "stream-{:x}",
            index.len() * 31 + shape.reach + 7 * usize::from(shape.tied)
        );
        let folder = Folder::of(&format!("{name}-{}", shape.kind.coalesce), &suite);
        let sae = folder.open().unwrap();
        let far = shape.skips && shape.kind.coalesce == "none";
        let stream = sae.layer_stream(4);
        assert_eq!(stream.is_ok(), !shape.kind.anew && !far, "{shape:?}");
        if let Ok(stream) = stream {
            assert_stream(&sae, stream, shape.skips);
        }
    }
}

fn assert_stream(sae: &Sae<'_>, mut stream: LayerStream, skips: bool) {
    let width = NAMES.len() * D;
    let given = inputs(&mut Random(8), 4 * width);
    let (_, whole) = encode_decode(sae, rows(&given, width));
    let mut scratch = Scratch::new(sae).unwrap();
    let mut features = Features::new();
    for layer in 0..NAMES.len() {
        let of_layer = given.chunks_exact(width);
        let of_layer: Vec<f32> = of_layer
            .flat_map(|row| row[layer * D..][..D].to_vec())
            .collect();
        let x = rows(&of_layer, D);
        sae.encode_layer(&mut stream, layer, x, &mut scratch, &mut features)
            .unwrap();
        let mut out = vec![0.0; 4 * D];
        let given = skips.then_some(x);
        sae.decode_layer(&mut stream, layer, given, &mut scratch, &mut out)
            .unwrap();
        for row in 0..4 {
            let expected = &whole[row * width + layer * D..][..D];
            assert_eq!(bits(&out[row * D..][..D]), bits(expected), "layer {layer}");
        }
    }
}

/// Two blocks of one output site, of whole numbers so that sums are exact.
fn blocks(coalesced: Option<usize>, each: [Target; 2]) -> Parts<'static> {
    let one = |values: &[f64]| -> Vec<Vec<f64>> { values.iter().map(|&v| vec![v]).collect() };
    let block = |first_feature: usize, first_column: usize, values: &[f64]| Block {
        first_feature,
        first_column,
        matrix: matrix("m", &one(values), Stored::Rows),
    };
    let encoder = vec![block(0, 0, &[1.0; 3]), block(3, 1, &[1.0; 3])];
    let decoder = vec![
        block(0, 0, &[1.0, 10.0, 100.0]),
        block(3, 0, &[1e3, 1e4, 1e5]),
    ];
    let of = |blocks, width| Matrix::from_blocks("m", 6, width, blocks).unwrap();
    let rule = Activation::GroupTopK {
        groups: 2,
        k: 2,
        rank: Rank::Value,
        relu: true,
    };
    Parts {
        bias: Some(vec![0.0; 6]),
        input_sites: 2,
        targets: Some(Targets {
            each: each.to_vec(),
            coalesced,
        }),
        ..Parts::new(of(encoder, 2), rule, of(decoder, 1))
    }
}

fn decoded(sae: &Sae<'_>, values: &[(u32, f32)]) -> f32 {
    let mut features = Features::new();
    for &(index, value) in values {
        features.push(index, value).unwrap();
    }
    features.end_row(RowStatus::Ok).unwrap();
    let (mut scratch, mut out) = (Scratch::new(sae).unwrap(), [0.0]);
    sae.decode(&features, None, &mut scratch, &mut out).unwrap();
    out[0]
}

/// The lowest feature wins a tie; zeros come before negative values; all of k is used.
#[test]
fn sites_select_anew_with_ties_zeros_and_negative_values() {
    let scale = |values: [f64; 3]| Target {
        bias: None,
        scale: Some(values.to_vec()),
    };
    let plain = || [Target::default(), Target::default()];
    let sae = Sae::from_parts(blocks(Some(2), plain())).unwrap();
    let four = [(0, 1.0), (1, 2.0), (3, 2.0), (4, 2.0)];
    assert_eq!(decoded(&sae, &four), 2.0 * 10.0 + 2.0 * 1e3);
    assert_eq!(decoded(&sae, &four[..1]), 1.0);
    assert_eq!(decoded(&sae, &[]), 0.0);
    // Two of each block: four candidates, of which the negative ones come last.
    let negative = [scale([-1.0, 1.0, 1.0]), scale([-2.0, 1.0, -1.0])];
    let sae = Sae::from_parts(blocks(Some(2), negative.clone())).unwrap();
    let signed = [(0, 1.0), (1, 3.0), (3, 1.0), (5, 5.0)];
    assert_eq!(decoded(&sae, &signed), 30.0 - 1.0);
    // One of four does not fire: its zero is second.
    assert_eq!(decoded(&sae, &signed[1..]), 30.0);
    // Three of each: two zeros are among six candidates.
    let more = Sae::from_parts(blocks(Some(3), negative)).unwrap();
    assert_eq!(decoded(&more, &signed), 30.0);
    let all = [(0, 1.0), (1, 3.0), (2, 0.5), (3, 1.0), (5, 5.0)];
    assert_eq!(decoded(&more, &all), 30.0 + 50.0);
    // A run-time k is that of the sites, too.
    assert_eq!(decoded(&more.with_k(1).unwrap(), &signed), 30.0);
}

/// Without biases and scales, and with all kept, it is the plain model, to the bit.
#[test]
fn targets_that_change_nothing_change_no_bit() {
    let mut random = Random(9);
    let model = affine(&mut random, spread, D, N, D);
    let plain = model.parts(top_k(K), Stored::Columns);
    let given = inputs(&mut random, 6 * D);
    let (_, expected) = encode_decode(&Sae::from_parts(plain.clone()).unwrap(), rows(&given, D));
    let ones = Target {
        bias: Some(vec![0.0; N]),
        scale: Some(vec![1.0; N]),
    };
    for (each, coalesced) in [
        (Target::default(), None),
        (ones.clone(), None),
        (ones, Some(K)),
    ] {
        let targets = Some(Targets {
            each: vec![each],
            coalesced,
        });
        let sae = Sae::from_parts(Parts {
            targets,
            ..plain.clone()
        });
        let (_, found) = encode_decode(&sae.unwrap(), rows(&given, D));
        assert_eq!(bits(&found), bits(&expected));
    }
}

#[test]
fn what_needs_one_vector_for_each_feature_says_so() {
    let plain = || [Target::default(), Target::default()];
    let sae = Sae::from_parts(blocks(None, plain())).unwrap();
    let refused = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("multi-target coder"), "{error}");
    };
    refused(sae.with_prefix(3).map(drop));
    refused(sae.with_range(0..3).map(drop));
    refused(sae.with_features(&[0]).map(drop));
    refused(sae.with_pursuit(Pursuit::matching(1, 0.0, false)).map(drop));
    refused(sae::Importance::new(&sae).map(drop));
    let member = |sae: &Sae<'static>| Sae::from_parts(sae.parts().clone()).unwrap();
    let members = vec![member(&sae), member(&sae)];
    refused(Sae::ensemble(members, sae::model::Ensemble::Bag).map(drop));
    // Parts that do not fit.
    let wrong = |parts: Parts<'static>, word: &str| {
        let error = Sae::from_parts(parts).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    let mut parts = blocks(None, plain());
    parts.targets.as_mut().unwrap().each.pop();
    wrong(parts, "one for each of 2 blocks");
    let short = Target {
        bias: Some(vec![0.0; 2]),
        scale: None,
    };
    wrong(blocks(None, [short, Target::default()]), "target_bias");
    let nan = Target {
        bias: None,
        scale: Some(vec![f64::NAN; 3]),
    };
    wrong(blocks(None, [nan, Target::default()]), "target_scale");
    wrong(blocks(Some(0), plain()), "k of coalesced targets");
    wrong(blocks(Some(7), plain()), "k of coalesced targets");
    let scaled = Parts {
        decoder_scale: Some(vec![1.0; 6]),
        ..blocks(None, plain())
    };
    wrong(scaled, "decoder scales");
}

#[test]
fn files_that_say_something_else_are_refused() {
    let suite = Suite::new(shape("none", false));
    let with = |changes: &[(usize, &str, Value)]| {
        let folder = Folder::new("refused");
        for (l, name) in NAMES.iter().enumerate() {
            let mut config = suite.config(l);
            for (_, key, value) in changes.iter().filter(|change| change.0 == l) {
                config[*key] = value.clone();
            }
            folder.layer(name, &suite.bytes(l), &config);
        }
        folder.open().unwrap_err().to_string()
    };
    for (layer, key, value, words) in [
        (1, "k", json!(3), "h.9.mlp/cfg.json: k"),
        (1, "num_latents", json!(21), "num_latents"),
        (
            0,
            "coalesce_topk",
            json!("group"),
            "none, concat or per-layer",
        ),
        (
            2,
            "coalesce_topk",
            json!("concat"),
            "what the first layer says",
        ),
        (0, "n_targets", json!(4), "at most the 3 layers"),
        (
            1,
            "activation",
            json!("groupmax"),
            "the activation of the first layer",
        ),
        (1, "activation", json!("batchtopk"), "topk or groupmax"),
        (
            2,
            "secondary_target_tied",
            json!(true),
            "secondary_target_tied",
        ),
        (0, "normalize_io", json!(true), "in_norm"),
        (0, "skip_connection", json!(true), "W_skips.0"),
    ] {
        let error = with(&[(layer, key, value)]);
        let skip = words.replace("W_skips.0", "W_skip");
        assert!(error.contains(&skip), "{key}: {error}");
    }
    // A layer that is not there.
    let folder = Folder::of("gap", &suite);
    std::fs::remove_dir_all(folder.0.join(NAMES[2])).unwrap();
    let error = folder.open().unwrap_err().to_string();
    assert!(error.contains("n_targets"), "{error}");
    // Far more targets than the file holds.
    for tied in [false, true] {
        let mut suite = Suite::new(Shape {
            tied,
            ..shape("none", false)
        });
        suite
            .coders
            .iter_mut()
            .for_each(|coder| coder.post.truncate(1));
        let (bytes, mut config) = (suite.bytes(0), suite.config(0));
        config["n_targets"] = u64::MAX.into();
        let options = OpenOptions::default();
        let result = Sae::from_bytes("s.safetensors", &bytes, Some(&config.to_string()), &options);
        assert_eq!(result.unwrap_err().code(), Code::MissingTensor, "{tied}");
    }
    // One layer whose outputs depend on others.
    for one in [
        shape("concat", true),
        shape("per-layer", false),
        Shape {
            norms: true,
            ..shape("none", false)
        },
    ] {
        let suite = Suite::new(one);
        let (bytes, config) = (suite.bytes(0), suite.config(0).to_string());
        let options = OpenOptions::default();
        let result = Sae::from_bytes("sae.safetensors", &bytes, Some(&config), &options);
        let error = result.unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
        assert!(error.to_string().contains("open the folder"), "{error}");
    }
}
