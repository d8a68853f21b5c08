//! The measures of `docs/measures.md` against plain f64, and that page against the sources: every
//! function and every test that it names is there.

mod library;
mod reference;

use reference::analysis::cosine;
use reference::measures as plain;
use reference::monitor::pearson;
use reference::random::{Format, Random, Tensors};
use sae::analysis::{
    self, AbsorptionOptions, LinearErrorFit, Probe, Terms, Vectors, carry, cknna, coherence, drift,
    encoder_decoder_cosines, greedy_edits, head_attribution, rsa, sae_match, svcca,
};
use sae::monitor::measures::Monosemanticity;
use sae::monitor::scores::{
    Boards, auroc, auroc_of, binned, by_class_mean, class_entropy, input_score, layer_spread,
    output_score, relative, scr, ser, tpp, zf_bound,
};
use sae::monitor::{Accumulator, Bins, Collect, RowId, RowInfo, Samples, TopRow};
use sae::{Code, Error, Features, OpenOptions, RowStatus, Rows, Sae, Scratch};
use std::fs;
use std::path::Path;

const D: usize = 6;
const N: usize = 10;

/// A ReLU model of D values and N features without biases, and its weights, `[feature][value]`.
struct Made {
    sae: Sae<'static>,
    encoder: Vec<Vec<f64>>,
    decoder: Vec<Vec<f64>>,
}

fn made(seed: u64) -> Made {
    let mut random = Random(seed);
    let mut rows = || -> Vec<Vec<f32>> {
        let mut row = || (0..D).map(|_| random.number()).collect();
        (0..N).map(|_| row()).collect()
    };
    let (encoder, decoder) = (rows(), rows());
    let bytes =
        |values: Vec<f32>| -> Vec<u8> { values.into_iter().flat_map(f32::to_le_bytes).collect() };
    let turned = (0..D).flat_map(|j| encoder.iter().map(move |row| row[j]));
    let mut tensors = Tensors::default();
    tensors.add("W_enc", Format::F32, &[D, N], &bytes(turned.collect()));
    tensors.add("W_dec", Format::F32, &[N, D], &bytes(decoder.concat()));
    tensors.add("b_dec", Format::F32, &[D], &bytes(vec![0.0; D]));
    tensors.add("b_enc", Format::F32, &[N], &bytes(vec![0.0; N]));
    let config = serde_json::json!({"architecture": "standard", "d_in": D, "d_sae": N}).to_string();
    let file: &'static [u8] = tensors.safetensors(0).leak();
    let options = OpenOptions::default();
    let sae = Sae::from_bytes("sae_weights.safetensors", file, Some(&config), &options).unwrap();
    let wide = |rows: Vec<Vec<f32>>| -> Vec<Vec<f64>> {
        let one = |row: Vec<f32>| row.into_iter().map(f64::from).collect();
        rows.into_iter().map(one).collect()
    };
    Made {
        sae,
        encoder: wide(encoder),
        decoder: wide(decoder),
    }
}

fn close(a: f64, b: f64, tolerance: f64) {
    let bound = tolerance * b.abs().max(1.0);
    assert!((a - b).abs() <= bound, "{a} is not {b}");
}

fn refused<T>(result: Result<T, Error>, code: Code) {
    assert_eq!(result.err().expect("it was accepted").code(), code);
}

fn numbers(random: &mut Random, count: usize) -> Vec<f64> {
    (0..count).map(|_| f64::from(random.number())).collect()
}

fn table(random: &mut Random, rows: usize, width: usize) -> Vec<Vec<f64>> {
    (0..rows).map(|_| numbers(random, width)).collect()
}

/// Random rows of the model, with their features, sparse and dense.
fn encoded(made: &Made, seed: u64, count: usize) -> (Vec<f32>, Features, Vec<Vec<f64>>) {
    let mut random = Random(seed);
    let values: Vec<f32> = (0..count * D).map(|_| random.number()).collect();
    let mut scratch = Scratch::new(&made.sae).unwrap();
    let mut features = Features::new();
    let rows = Rows::from_f32(&values, D).unwrap();
    made.sae.encode(rows, &mut scratch, &mut features).unwrap();
    let dense = features.iter().map(|row| {
        let mut dense = vec![0.0; N];
        for (&index, &value) in row.indices.iter().zip(row.values) {
            dense[index as usize] = f64::from(value);
        }
        dense
    });
    let dense = dense.collect();
    (values, features, dense)
}

/// Exact areas against all pairs; those from histograms within what they say.
#[test]
fn areas_under_curves_are_those_of_all_pairs() {
    let model = made(1);
    let (_, features, dense) = encoded(&model, 2, 200);
    let mut collect = Collect::all(&model.sae).histogram(Bins::USUAL);
    let mut sides = [
        Accumulator::new(collect.clone()).unwrap(),
        Accumulator::new(collect.clone()).unwrap(),
    ];
    for (at, row) in features.iter().enumerate() {
        sides[usize::from(at % 3 == 0)]
            .add(row, &RowInfo::new(0, at as u64))
            .unwrap();
    }
    for feature in 0..N {
        let side = |first: bool| -> Vec<f64> {
            let each = dense.iter().enumerate();
            each.filter(|(at, _)| (at % 3 != 0) == first)
                .map(|(_, row)| row[feature])
                .collect()
        };
        let (ones, zeros) = (side(true), side(false));
        let expected = plain::auroc(&ones, &zeros);
        close(auroc(&ones, &zeros).unwrap(), expected, 1e-14);
        let found = auroc_of(&sides[0], &sides[1], feature as u32)
            .unwrap()
            .unwrap();
        assert!((found.value - expected).abs() <= found.uncertainty + 1e-14);
        assert!(found.uncertainty < 0.05);
    }
    assert_eq!(auroc(&[], &[1.0]), None);
    assert_eq!(auroc(&[f64::NAN], &[1.0]), None);
    assert_eq!(auroc(&[0.0, 2.0], &[-0.0, 1.0]), Some(0.625));
    assert_eq!(auroc_of(&sides[0], &sides[1], 99).unwrap(), None);
    collect.bins = None;
    let without = Accumulator::new(collect).unwrap();
    refused(auroc_of(&sides[0], &without, 0), Code::InvalidArgument);
    refused(auroc_of(&without, &without, 0), Code::InvalidArgument);
}

#[test]
fn classes_and_layers_are_plain_sums() {
    let model = made(1);
    let (_, features, dense) = encoded(&model, 3, 120);
    let mut of = Accumulator::new(Collect::all(&model.sae).conditions(4).top(12)).unwrap();
    for (at, row) in features.iter().enumerate() {
        let info = RowInfo::new(0, at as u64).condition(at as u32 % 4);
        of.add(row, &info).unwrap();
    }
    let sums = |feature: usize| -> Vec<f64> {
        let sum = |class: usize| {
            dense
                .iter()
                .skip(class)
                .step_by(4)
                .map(|row| row[feature])
                .sum()
        };
        (0..4).map(sum).collect()
    };
    for feature in 0..N {
        let sums = sums(feature);
        let total: f64 = sums.iter().sum();
        let found = layer_spread(&of, feature as u32).unwrap();
        let mean: f64 = (0..4).map(|l| l as f64 * sums[l] / total).sum();
        close(found.mean, mean, 1e-12);
        let variance = (0..4).map(|l| (l as f64 - mean).powi(2) * sums[l] / total);
        close(found.variance, variance.sum(), 1e-12);
        // The classes of the top rows, by hand.
        let mut order: Vec<usize> = (0..dense.len()).collect();
        order.sort_by(|&x, &y| dense[y][feature].total_cmp(&dense[x][feature]));
        let top = &order[..12];
        let all: f64 = top.iter().map(|&row| dense[row][feature]).sum();
        let entropy: f64 = (0..4)
            .map(|class| {
                top.iter()
                    .filter(|&&row| row % 4 == class)
                    .map(|&row| dense[row][feature])
                    .sum::<f64>()
                    / all
            })
            .filter(|&p| p > 0.0)
            .map(|p| -p * p.ln())
            .sum();
        let class = |row: RowId| row.position as u32 % 4;
        close(
            class_entropy(of.top(feature as u32), class, 10).unwrap(),
            entropy,
            1e-12,
        );
        assert_eq!(class_entropy(of.top(feature as u32), class, 13), None);
        assert_eq!(class_entropy(of.top(feature as u32), |_| 7, 1), Some(0.0));
    }
    assert_eq!(class_entropy(&[TopRow::default()], |_| 0, 1), None);
    let mut means: Vec<(f64, usize)> = (0..N).map(|f| (sums(f)[2] / 30.0, f)).collect();
    means.sort_by(|x, y| y.0.total_cmp(&x.0));
    let found = by_class_mean(&of, 2, 5).unwrap();
    for (found, expected) in found.iter().zip(&means) {
        assert_eq!(found.feature as usize, expected.1);
        close(found.score, expected.0, 1e-12);
    }
    refused(by_class_mean(&of, 4, 5), Code::InvalidArgument);
    assert_eq!(layer_spread(&of, 99), None);
}

#[test]
fn scores_of_steering_follow_their_formulas() {
    let mut random = Random(4);
    for _ in 0..20 {
        let logits: Vec<f32> = (0..30).map(|_| 3.0 * random.number()).collect();
        let promoted: Vec<u32> = (0..5).map(|_| random.below(30) as u32).collect();
        let p = plain::softmax(&logits);
        let rank = |token: u32| p.iter().filter(|&&q| q > p[token as usize]).count();
        let least = promoted.iter().map(|&token| rank(token)).min().unwrap();
        let most = promoted
            .iter()
            .map(|&token| p[token as usize])
            .fold(0.0, f64::max);
        let expected = (1.0 - least as f64 / 30.0) * most;
        close(output_score(&promoted, &logits).unwrap(), expected, 1e-12);
    }
    assert_eq!(output_score(&[], &[1.0]).unwrap(), 0.0);
    refused(output_score(&[3], &[1.0]), Code::InvalidArgument);
    refused(output_score(&[0], &[f32::NAN]), Code::InvalidArgument);
    let strongest: Vec<u32> = (0..150).map(|text| text % 5).collect();
    assert_eq!(input_score(&[1, 3], &strongest), Some(0.4));
    // The texts beyond the hundredth do not count.
    let late: Vec<u32> = (0..150).map(|text| u32::from(text >= 100)).collect();
    assert_eq!(input_score(&[1], &late), Some(0.0));
    assert_eq!(input_score(&[1], &strongest[..9]), None);
    let changed = [true, true, false, true, false];
    assert_eq!(
        ser(&changed, &[true, false, false, true, true]).unwrap(),
        1.0 / 3.0
    );
    assert_eq!(ser(&[false], &[false]).unwrap(), 0.0);
    refused(ser(&changed, &[true]), Code::Length);
    assert_eq!(scr(0.5, 0.75, 1.0), Some(0.5));
    assert_eq!(scr(0.5, 0.75, 0.5), None);
    let clean = [0.9, 0.8, 1.0];
    let ablated = [
        vec![0.4, 0.8, 0.9],
        vec![0.9, 0.5, 1.0],
        vec![0.8, 0.8, 0.6],
    ];
    let expected = (0.5 + 0.3 + 0.4) / 3.0 - (0.0 + 0.1 + 0.0 + 0.0 + 0.1 + 0.0) / 6.0;
    close(tpp(&clean, &ablated).unwrap(), expected, 1e-12);
    refused(tpp(&clean[..2], &ablated), Code::Length);
    refused(tpp(&[1.0], &[vec![1.0]]), Code::Length);
}

/// The bound of quasi-orthogonality holds for unit vectors, with the dictionary's own coherence.
#[test]
fn decoded_norms_are_within_the_bound_of_coherence() {
    let model = made(5);
    let unit = Vectors::unit_decoder(&model.sae).unwrap();
    let found = coherence(&unit, &mut |_, _| {}).unwrap();
    let (mut most, mut squares) = (0.0_f64, 0.0);
    for i in 0..N {
        for j in (0..N).filter(|&j| j != i) {
            let c = cosine(&model.decoder[i], &model.decoder[j]).abs();
            most = most.max(c);
            squares += c * c;
        }
    }
    close(found.max, most, 3e-7);
    close(found.mean_square, squares / (N * (N - 1)) as f64, 3e-7);
    let (_, features, dense) = encoded(&model, 6, 50);
    for (row, dense) in features.iter().zip(&dense) {
        let mut decoded = vec![0.0; D];
        for (f, d) in dense.iter().zip(&model.decoder) {
            let length = plain::dot(d, d).sqrt();
            decoded
                .iter_mut()
                .zip(d)
                .for_each(|(x, d)| *x += f * d / length);
        }
        let off = (plain::dot(&decoded, &decoded) - plain::dot(dense, dense)).abs();
        let bound = zf_bound(row, found.max);
        let sum: f64 = dense.iter().sum();
        close(
            bound,
            found.max * (sum * sum - plain::dot(dense, dense)),
            1e-12,
        );
        assert!(off <= bound * (1.0 + 1e-6) + 1e-9, "{off} {bound}");
    }
}

/// Features at the middles of their bins are within half a bin, and coarser bins are worse.
#[test]
fn binned_features_are_within_half_a_bin() {
    let model = made(7);
    let (_, features, _) = encoded(&model, 8, 60);
    for width in [0.05_f32, 0.5] {
        let bins = Bins::Linear { width, count: 4000 };
        let mut out = Features::new();
        for row in features.iter() {
            binned(row, bins, &mut out).unwrap();
        }
        assert_eq!(out.indices(), features.indices());
        for (found, value) in out.values().iter().zip(features.values()) {
            assert!((found - value).abs() <= width * 0.5001);
            close((f64::from(*found) / f64::from(width)).fract(), 0.5, 1e-4);
        }
    }
    let mut row = Features::new();
    row.push(1, -0.3).unwrap();
    row.push(2, 900.0).unwrap();
    row.end_row(RowStatus::Ok).unwrap();
    let mut out = Features::new();
    let bins = Bins::Linear {
        width: 1.0,
        count: 3,
    };
    binned(row.row(0).unwrap(), bins, &mut out).unwrap();
    assert_eq!(out.values(), [-0.5, 900.0]);
}

/// Boards: two properties, told by one feature each, and one that nothing tells.
#[test]
fn boards_are_predicted_by_precise_features() {
    let model = made(9);
    let (_, features, dense) = encoded(&model, 10, 400);
    let mut maxima = Accumulator::new(Collect::all(&model.sae)).unwrap();
    maxima.add_all(&features, &[]).unwrap();
    let mut scaled = Features::new();
    for row in features.iter() {
        relative(row, &maxima, &mut scaled).unwrap();
    }
    let max = |feature: usize| dense.iter().map(|row| row[feature]).fold(0.0, f64::max);
    for (row, dense) in scaled.iter().zip(&dense) {
        for (&index, &value) in row.indices.iter().zip(row.values) {
            close(
                value.into(),
                dense[index as usize] / max(index as usize),
                1e-6,
            );
        }
    }
    let holds = |row: &[f64], property: usize| match property {
        0 => row[2] > 0.5 * max(2),
        1 => row[4] > 0.0,
        _ => false,
    };
    let thresholds: Vec<f32> = (0..10).map(|tenth| tenth as f32 / 10.0).collect();
    let collect = Collect::all(&model.sae).label().thresholds(&thresholds);
    let properties: Vec<Accumulator> = (0..3)
        .map(|property| {
            let mut of = Accumulator::new(collect.clone()).unwrap();
            for (at, row) in scaled.iter().enumerate() {
                let label = f64::from(u8::from(holds(&dense[at], property)));
                of.add(row, &RowInfo::new(0, at as u64).label(label))
                    .unwrap();
            }
            of
        })
        .collect();
    let mut boards = Boards::new(&properties, 0.95);
    assert!(boards.classifiers(0).contains(&(2, 0.5)));
    assert!(boards.classifiers(1).contains(&(4, 0.0)));
    assert_eq!(boards.classifiers(2), []);
    // Every classifier of every property, by hand.
    let mut expected = 0.0;
    for (at, row) in scaled.iter().enumerate() {
        let truth: Vec<bool> = (0..3).map(|property| holds(&dense[at], property)).collect();
        let predicted = |property: usize| {
            boards.classifiers(property).iter().any(|&(feature, over)| {
                let found = row.indices.iter().position(|&index| index == feature);
                found.is_some_and(|at| row.values[at] > over)
            })
        };
        let predicted: Vec<bool> = (0..3).map(predicted).collect();
        let count = |p: bool, t: bool| {
            (0..3)
                .filter(|&i| predicted[i] == p && truth[i] == t)
                .count() as f64
        };
        let all = 2.0 * count(true, true) + count(true, false) + count(false, true);
        let f1 = if all > 0.0 {
            2.0 * count(true, true) / all
        } else {
            0.0
        };
        close(boards.add(row, &truth).unwrap(), f1, 1e-15);
        expected += f1;
    }
    close(boards.score(), expected / 400.0, 1e-12);
    refused(boards.add(scaled.row(0).unwrap(), &[true]), Code::Length);
}

/// A snapshot with a checksum that fits.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - 4;
    let check = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// What any reader of snapshots has to refuse.
fn hostile<T: std::fmt::Debug>(bytes: &[u8], read: &dyn Fn(&[u8]) -> Result<T, Error>) {
    let code = |bytes: &[u8]| read(bytes).unwrap_err().code();
    for cut in 0..bytes.len() {
        assert_eq!(code(&bytes[..cut]), Code::Truncated, "cut at {cut}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(code(&longer), Code::Malformed);
    let changed = |at: usize, to: u8| {
        let mut changed = bytes.to_vec();
        changed[at] = to;
        changed
    };
    assert_eq!(
        code(&changed(bytes.len() / 2, !bytes[bytes.len() / 2])),
        Code::Corrupt
    );
    assert_eq!(code(&sealed(changed(0, b'X'))), Code::Malformed);
    assert_eq!(code(&sealed(changed(8, 9))), Code::Unsupported);
    // Sizes beyond what is there allocate nothing.
    for at in [12, 13, 14, 15, 16, 17, 18, 19] {
        assert!(read(&sealed(changed(at, 0xff))).is_err(), "{at}");
    }
}

#[test]
fn snapshots_of_samples_come_back_and_merge() {
    let model = made(11);
    let (_, features, _) = encoded(&model, 12, 300);
    let bins = Bins::Linear {
        width: 0.5,
        count: 3,
    };
    let of = |rows: std::ops::Range<usize>| {
        let mut samples = Samples::new(&[1, 7], bins, 3, 5).unwrap().of_model(77);
        for at in rows {
            samples.add(features.row(at).unwrap(), RowInfo::new(3, at as u64).id);
        }
        samples
    };
    let whole = of(0..300);
    let bytes = whole.to_bytes().unwrap();
    assert_eq!(bytes.len(), whole.snapshot_len());
    let read = |bytes: &[u8]| Samples::from_bytes(bytes, Some(77));
    assert_eq!(read(&bytes).unwrap(), whole);
    assert_eq!(Samples::from_bytes(&bytes, None).unwrap(), whole);
    let other = Samples::from_bytes(&bytes, Some(78)).unwrap_err();
    assert_eq!(other.code(), Code::InvalidValue);
    // In two parts, one of them through a snapshot.
    let mut merged = read(&of(120..300).to_bytes().unwrap()).unwrap();
    merged.merge(&of(0..120)).unwrap();
    assert_eq!(merged.to_bytes().unwrap(), bytes);
    let foreign = whole.clone().of_model(78);
    assert_eq!(
        merged.merge(&foreign).unwrap_err().code(),
        Code::InvalidArgument
    );
    let json = whole.to_json(|feature| (feature == 7).then_some("seven"));
    assert_eq!(json["features"][1]["label"], "seven");
    assert_eq!(json["bins"], serde_json::json!([0.0, 0.5, 1.0, 1.5]));
    let first = whole.of(1, 0)[0];
    assert_eq!(json["features"][0]["bins"][0][0][1], first.row.stream);
    assert_eq!(json["features"][0]["bins"][0][0][2], first.row.position);
    hostile(&bytes, &read);
    // Rows that the hash would not put there, values of another bin, more than there is room for.
    let groups = 8 + 4 + 4 + 8 + 8 + 12 + 4 + 2 * 4;
    for (at, to) in [(groups, 4u8), (groups + 4 + 3, 0x7f), (groups + 16, 0xaa)] {
        let mut wrong = bytes.clone();
        wrong[at] = to;
        assert_eq!(
            read(&sealed(wrong)).unwrap_err().code(),
            Code::Malformed,
            "{at}"
        );
    }
    for wrong in [
        Bins::Linear {
            width: -1.0,
            count: 3,
        },
        Bins::Log {
            split: 0,
            first: 4,
            end: 4,
        },
    ] {
        let wrong = Samples::new(&[1], wrong, 3, 5).unwrap_err();
        assert_eq!(wrong.code(), Code::InvalidArgument);
    }
}

#[test]
fn snapshots_of_monosemanticity_come_back_and_merge() {
    let model = made(11);
    let (values, features, _) = encoded(&model, 12, 60);
    let d = values.len() / 60;
    let of = |rows: std::ops::Range<usize>| {
        let mut measure = Monosemanticity::new(&[7, 1], d).unwrap().of_model(77);
        let bytes = measure.bytes();
        for at in rows {
            let embedding = values[at * d..(at + 1) * d].to_vec();
            measure.add(features.row(at).unwrap(), &embedding).unwrap();
        }
        assert_eq!(measure.bytes(), bytes);
        measure
    };
    let whole = of(0..60);
    assert_eq!(whole.counts(), (60, 0, 0));
    let bytes = whole.to_bytes().unwrap();
    assert_eq!(bytes.len(), whole.snapshot_len());
    let read = |bytes: &[u8]| Monosemanticity::from_bytes(bytes, Some(77));
    let again = read(&bytes).unwrap();
    assert_eq!(again.to_bytes().unwrap(), bytes);
    assert_eq!(
        (again.score(1), again.score(7)),
        (whole.score(1), whole.score(7))
    );
    assert!(again.score(1).is_some());
    let other = Monosemanticity::from_bytes(&bytes, Some(78)).unwrap_err();
    assert_eq!(other.code(), Code::InvalidValue);
    // In two parts, in the other order: the same bits.
    let mut merged = read(&of(25..60).to_bytes().unwrap()).unwrap();
    merged.merge(&of(0..25)).unwrap();
    assert_eq!(merged.to_bytes().unwrap(), bytes);
    let narrow = Monosemanticity::new(&[7, 1], d - 1).unwrap().of_model(77);
    assert_eq!(
        merged.merge(&narrow).unwrap_err().code(),
        Code::InvalidArgument
    );
    let json = whole.to_json(|_| None);
    assert_eq!(json["features"][1]["score"].as_f64(), whole.score(7));
    hostile(&bytes, &read);
    // What is not finite, or too large, is counted and poisons nothing.
    let mut kept = whole.clone();
    let mut odd = Features::new();
    odd.push(1, 3e9).unwrap();
    odd.end_row(RowStatus::Ok).unwrap();
    odd.end_row(RowStatus::NonFinite).unwrap();
    kept.add(odd.row(0).unwrap(), &vec![1.0; d]).unwrap();
    kept.add(odd.row(1).unwrap(), &vec![1.0; d]).unwrap();
    kept.add(odd.row(0).unwrap(), &vec![f32::NAN; d]).unwrap();
    assert_eq!(kept.counts(), (61, 2, 1));
    assert_eq!(kept.score(1), whole.score(1));
}

/// Samples: whatever the order of rows and however they are merged, the same; all rows if there is
/// room; each row as likely as any other.
#[test]
fn samples_do_not_depend_on_order_and_hold_every_bin() {
    let model = made(11);
    let (_, features, dense) = encoded(&model, 12, 300);
    let bins = Bins::Linear {
        width: 0.5,
        count: 6,
    };
    let fed = |order: &[usize], each: usize, seed: u64| {
        let mut samples = Samples::new(&[1, 7], bins, each, seed).unwrap();
        let bytes = samples.bytes();
        for &at in order {
            let id = RowInfo::new(3, at as u64).id;
            samples.add(features.row(at).unwrap(), id);
        }
        assert_eq!(samples.bytes(), bytes);
        samples
    };
    let forward: Vec<usize> = (0..300).collect();
    let backward: Vec<usize> = (0..300).rev().collect();
    let whole = fed(&forward, 4, 5);
    assert_eq!(fed(&backward, 4, 5), whole);
    let mut merged = fed(&forward[200..], 4, 5);
    merged.merge(&fed(&forward[..200], 4, 5)).unwrap();
    assert_eq!(merged, whole);
    // What both have seen counts once.
    merged.merge(&whole).unwrap();
    assert_eq!(merged, whole);
    let all = fed(&forward, 300, 5);
    for feature in [1u32, 7] {
        let inactive = dense
            .iter()
            .filter(|row| row[feature as usize] == 0.0)
            .count();
        assert_eq!(all.inactive(feature).len(), inactive);
        for bin in 0..6 {
            let rows = dense.iter().enumerate().filter(|(_, row)| {
                let value = row[feature as usize] as f32;
                value != 0.0 && bins.of(value) == bin
            });
            let mut rows: Vec<u64> = rows.map(|(at, _)| at as u64).collect();
            let mut found: Vec<u64> = all
                .of(feature, bin)
                .iter()
                .map(|one| one.row.position)
                .collect();
            found.sort_unstable();
            assert_eq!(found, rows);
            let few = whole.of(feature, bin);
            assert_eq!(few.len(), rows.len().min(4));
            rows.retain(|&row| few.iter().any(|one| one.row.position == row));
            assert_eq!(rows.len(), few.len());
            for one in few {
                assert_eq!(
                    f64::from(one.value),
                    dense[one.row.position as usize][feature as usize]
                );
            }
        }
    }
    assert_eq!(
        (
            whole.of(2, 0).len(),
            whole.of(1, 6).len(),
            whole.inactive(2).len()
        ),
        (0, 0, 0)
    );
    // Over many seeds every inactive row comes up about as often: 4 of n each time.
    let mut counts = vec![0u32; 300];
    for seed in 0..600 {
        fed(&forward, 4, seed)
            .inactive(1)
            .iter()
            .for_each(|one| counts[one.row.position as usize] += 1);
    }
    let inactive: Vec<usize> = (0..300).filter(|&at| dense[at][1] == 0.0).collect();
    let mean = 2400.0 / inactive.len() as f64;
    for at in inactive {
        let off = (f64::from(counts[at]) - mean).abs();
        assert!(
            off < 6.0 * mean.sqrt() + 1.0,
            "row {at}: {} against {mean}",
            counts[at]
        );
    }
    refused(merged.merge(&fed(&[], 3, 5)), Code::InvalidArgument);
    // A row that is not finite enters nothing.
    let mut row = Features::new();
    row.end_row(RowStatus::NonFinite).unwrap();
    let mut same = whole.clone();
    same.add(
        row.row(0).unwrap(),
        RowId {
            stream: 9,
            position: 9,
        },
    );
    assert_eq!(same, whole);
}

#[test]
fn absorption_is_saebench_s() {
    let model = made(13);
    let (values, features, dense) = encoded(&model, 14, 300);
    let mut random = Random(15);
    let (mut partial, mut ones, mut full) = (0, 0, 0);
    for round in 0..8 {
        let probe: Vec<f32> = (0..D).map(|_| random.number()).collect();
        let wide: Vec<f64> = probe.iter().map(|&p| p.into()).collect();
        let main = [round, round + 1];
        let of = Probe::new(&model.sae, &probe, &[main[0] as u32, main[1] as u32]).unwrap();
        for i in 0..N {
            close(
                of.cosine(i as u32).unwrap(),
                cosine(&model.decoder[i], &wide),
                3e-7,
            );
        }
        for (at, row) in features.iter().enumerate() {
            let x = &values[at * D..(at + 1) * D];
            let found = of
                .absorption(x, row, &AbsorptionOptions::default())
                .unwrap();
            let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let expected = plain::absorption(&x, &dense[at], &model.decoder, &wide, &main);
            close(found.fraction, expected.0, 1e-5);
            assert_eq!(found.full, expected.1);
            partial += usize::from(found.fraction > 0.0 && found.fraction < 1.0);
            ones += usize::from(found.fraction == 1.0);
            full += usize::from(found.full);
        }
    }
    assert!(
        partial > 20 && ones > 20 && full > 20,
        "{partial} {ones} {full}"
    );
    let probe = [1.0; D];
    refused(Probe::new(&model.sae, &probe[1..], &[]), Code::Length);
    refused(
        Probe::new(&model.sae, &[0.0; D], &[]),
        Code::InvalidArgument,
    );
    refused(
        Probe::new(&model.sae, &probe, &[N as u32]),
        Code::FeatureOutOfRange,
    );
    let of = Probe::new(&model.sae, &probe, &[]).unwrap();
    let options = AbsorptionOptions::default();
    refused(
        of.absorption(&probe[1..], features.row(0).unwrap(), &options),
        Code::Length,
    );
}

/// Each step is the best of all single edits; with enough of them all that helps is done.
#[test]
fn greedy_edits_are_the_best_at_each_step() {
    let model = made(16);
    let (values, features, dense) = encoded(&model, 17, 40);
    for pair in 0..20 {
        let (a, b) = (2 * pair, 2 * pair + 1);
        let row = |at: usize| (&values[at * D..(at + 1) * D], features.row(at).unwrap());
        let found = greedy_edits(&model.sae, row(a), row(b), 4).unwrap();
        let wide = |at: usize| -> Vec<f64> { row(at).0.iter().map(|&x| x.into()).collect() };
        let (mut x, target) = (wide(a), wide(b));
        let distance = |x: &[f64]| reference::analysis::distance(x, &target).sqrt();
        let mut left: Vec<usize> = (0..N)
            .filter(|&i| dense[a][i] != 0.0 || dense[b][i] != 0.0)
            .collect();
        for edit in &found {
            let moved = |i: usize| -> Vec<f64> {
                let change = dense[b][i] - dense[a][i];
                x.iter()
                    .zip(&model.decoder[i])
                    .map(|(x, d)| x + change * d)
                    .collect()
            };
            let best = left
                .iter()
                .copied()
                .min_by(|&i, &j| distance(&moved(i)).total_cmp(&distance(&moved(j))))
                .unwrap();
            assert_eq!(edit.feature as usize, best);
            assert_eq!(f64::from(edit.value), dense[b][best]);
            let next = moved(best);
            assert!(distance(&next) < distance(&x));
            close(edit.distance, distance(&next), 1e-6);
            x = next;
            left.retain(|&i| i != best);
        }
        if found.len() < 4 {
            for &i in &left {
                let change = dense[b][i] - dense[a][i];
                let moved: Vec<f64> = x
                    .iter()
                    .zip(&model.decoder[i])
                    .map(|(x, d)| x + change * d)
                    .collect();
                assert!(distance(&moved) >= distance(&x) * (1.0 - 1e-6));
            }
        }
    }
    let row = (&values[..D], features.row(0).unwrap());
    assert_eq!(greedy_edits(&model.sae, row, row, 4).unwrap(), []);
    refused(
        greedy_edits(&model.sae, (&values[..3], row.1), row, 4),
        Code::Length,
    );
}

#[test]
fn matched_features_are_carried_to_the_other_model() {
    let (a, b) = (made(18), made(19));
    let matching = sae_match(&a.sae, &b.sae, Terms::Both, &mut |_, _| {}).unwrap();
    let (_, features, dense) = encoded(&a, 20, 9);
    let mut out = Features::new();
    for row in features.iter() {
        carry(row, &matching, &mut out).unwrap();
    }
    for (row, dense) in out.iter().zip(&dense) {
        let mut expected = vec![0.0; N];
        for pair in &matching.pairs {
            expected[pair.second as usize] = dense[pair.first as usize];
        }
        let mut found = vec![0.0; N];
        for (&index, &value) in row.indices.iter().zip(row.values) {
            found[index as usize] = f64::from(value);
        }
        assert_eq!(found, expected);
        assert!(row.indices.windows(2).all(|two| two[0] < two[1]));
    }
}

#[test]
fn weights_of_one_model_are_compared_with_each_other() {
    let (a, b, c) = (made(21), made(22), made(23));
    for (i, found) in encoder_decoder_cosines(&a.sae).unwrap().iter().enumerate() {
        close(*found, cosine(&a.encoder[i], &a.decoder[i]), 3e-7);
    }
    let unit = |of: &Made| Vectors::unit_decoder(&of.sae).unwrap();
    let found = drift(&[unit(&a), unit(&b), unit(&c)]).unwrap();
    for (of, found) in [&a, &b, &c].iter().zip(&found) {
        for (i, found) in found.iter().enumerate() {
            close(*found, cosine(&of.decoder[i], &c.decoder[i]), 3e-7);
        }
    }
    assert_eq!(drift(&[]).unwrap(), Vec::<Vec<f64>>::new());
    // Heads add up to the pre-activation.
    let row: Vec<f32> = (0..D).map(|i| i as f32 - 2.25).collect();
    for feature in 0..N {
        let heads = head_attribution(&a.sae, feature as u32, &row, 3).unwrap();
        for (head, found) in heads.iter().enumerate() {
            let at = head * 2..head * 2 + 2;
            let x: Vec<f64> = row[at.clone()].iter().map(|&x| x.into()).collect();
            close(*found, plain::dot(&a.encoder[feature][at], &x), 1e-6);
        }
    }
    refused(head_attribution(&a.sae, 0, &row, 4), Code::Length);
    refused(head_attribution(&a.sae, 0, &row, 0), Code::Length);
    refused(head_attribution(&a.sae, 0, &row[1..], 3), Code::Length);
    refused(
        head_attribution(&a.sae, 99, &row, 3),
        Code::FeatureOutOfRange,
    );
}

#[test]
fn similarities_are_those_of_whole_matrices() {
    let mut random = Random(24);
    for round in 0..6 {
        let a = table(&mut random, 14, 5);
        let noise = table(&mut random, 14, 4);
        // From the same to something else.
        let share = f64::from(round) / 5.0;
        let b: Vec<Vec<f64>> = a
            .iter()
            .zip(&noise)
            .map(|(a, e)| {
                (0..4)
                    .map(|j| (1.0 - share) * (a[j] + 0.5 * a[4]) + share * e[j])
                    .collect()
            })
            .collect();
        close(
            cknna(&a, &b, 6).unwrap().unwrap(),
            plain::cknna(&a, &b, 6),
            1e-9,
        );
        for variance in [0.8, 0.99, 1.0] {
            close(
                svcca(&a, &b, variance).unwrap(),
                plain::svcca(&a, &b, variance),
                1e-9,
            );
        }
        close(rsa(&a, &b).unwrap(), plain::rsa(&a, &b), 1e-9);
        let column = |of: &[Vec<f64>]| -> Vec<f64> { of.iter().map(|row| row[0]).collect() };
        let (x, y) = (column(&a), column(&b));
        close(analysis::pearson(&x, &y).unwrap(), pearson(&x, &y), 1e-12);
    }
    let a = table(&mut random, 14, 5);
    close(cknna(&a, &a, 6).unwrap().unwrap(), 1.0, 1e-12);
    // Turned round and moved, it is the same to SVCCA.
    let turned: Vec<Vec<f64>> = a
        .iter()
        .map(|x| (0..5).map(|j| 3.0 - 2.0 * x[(j + 2) % 5]).collect())
        .collect();
    close(svcca(&a, &turned, 1.0).unwrap(), 1.0, 1e-9);
    close(rsa(&a, &a).unwrap(), 1.0, 1e-12);
    let constant = vec![vec![1.5; 5]; 14];
    assert_eq!(svcca(&a, &constant, 0.99).unwrap(), 0.0);
    let empty: Vec<Vec<f64>> = vec![Vec::new(); a.len()];
    assert_eq!(svcca(&a, &empty, 0.99).unwrap(), 0.0);
    // Values near the largest change no direction.
    let huge: Vec<Vec<f64>> = a
        .iter()
        .map(|row| row.iter().map(|v| v * 1e300).collect())
        .collect();
    close(svcca(&a, &huge, 1.0).unwrap(), 1.0, 1e-9);
    assert_eq!(rsa(&a, &constant).unwrap(), 0.0);
    refused(cknna(&a, &a[1..], 6), Code::Length);
    refused(cknna(&a, &a, 1), Code::InvalidArgument);
    refused(cknna(&a[..3], &a[..3], 2), Code::Length);
    refused(analysis::pearson(&[1.0], &[]), Code::Length);
    let mut broken = a.clone();
    broken[3][1] = f64::NAN;
    refused(svcca(&a, &broken, 0.99), Code::InvalidArgument);
    broken[3].pop();
    refused(rsa(&a, &broken), Code::Length);
}

/// The linear share of an error against least squares by Gauss; an error that is linear is all of it.
#[test]
fn the_linear_share_of_errors_is_that_of_least_squares() {
    let mut random = Random(25);
    let n = 60;
    let narrow = |of: &[f64]| -> Vec<f32> { of.iter().map(|&x| x as f32).collect() };
    for noise in [0.0, 0.5] {
        let rows = table(&mut random, n, D);
        let mut fit = LinearErrorFit::new(D, 3).unwrap();
        let (mut inputs, mut errors) = (Vec::new(), Vec::new());
        let mut all = Vec::new();
        for row in &rows {
            let x = narrow(row);
            let decoded: Vec<f32> = (0..3)
                .map(|j| {
                    (0.5 * row[j] - 2.0 * row[j + 1] + 7.0 + noise * f64::from(random.number()))
                        as f32
                })
                .collect();
            let target = [0.25_f32; 3];
            fit.add(&x, &target, &decoded).unwrap();
            inputs.push(x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
            errors.push(
                decoded
                    .iter()
                    .map(|&y| 0.25 - f64::from(y))
                    .collect::<Vec<f64>>(),
            );
            all.push((x, decoded));
        }
        let found = fit.solve(1e-13).unwrap();
        let (weights, r_squared) = plain::least_squares(&inputs, &errors);
        close(found.r_squared, r_squared, 1e-8);
        if noise == 0.0 {
            assert!(found.r_squared > 0.999_999);
        } else {
            assert!(found.r_squared < 0.999);
        }
        for (found, expected) in found.weights.iter().flatten().zip(weights.iter().flatten()) {
            close(*found, *expected, 1e-6);
        }
        for ((x, decoded), (input, error)) in all.iter().zip(inputs.iter().zip(&errors)) {
            let rest = weights.iter().zip(error).map(|(w, e)| {
                let inputs: Vec<f64> = input.iter().copied().chain([1.0]).collect();
                (e - plain::dot(w, &inputs)).powi(2)
            });
            let expected = rest.sum::<f64>().sqrt();
            close(found.nonlinear(x, &[0.25; 3], decoded), expected, 1e-6);
        }
    }
    let mut few = LinearErrorFit::new(D, 3).unwrap();
    few.add(&[1.0; D], &[0.0; 3], &[0.0; 3]).unwrap();
    few.add(&[f32::NAN; D], &[0.0; 3], &[0.0; 3]).unwrap();
    refused(few.solve(0.0), Code::InvalidArgument);
    refused(few.add(&[1.0; D], &[0.0; 2], &[0.0; 3]), Code::Length);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All sources of a folder, one after the other.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// `docs/measures.md`: every row has what computes it and a test, or a reason; and they exist.
#[test]
fn the_page_of_measures_is_true() {
    let page = fs::read_to_string(root().join("docs/measures.md")).unwrap();
    let code = sources(&root().join("src"));
    let words = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_string).collect()
    };
    let mut rows = 0;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let &[name, how, proof] = cells.as_slice() else {
            panic!("`{line}` has not three cells");
        };
        if name == "measure" || name.starts_with("---") {
            continue;
        }
        rows += 1;
        if proof == "-" {
            assert!(
                how.starts_with("not here: "),
                "{name}: neither a test nor a reason"
            );
            continue;
        }
        assert!(!words(how).is_empty(), "{name}: no function");
        for item in words(how) {
            // `Type::method`, `module::function` or a name alone; the last part is what is defined.
            for part in item.split("::") {
                let defined = ["fn ", "struct ", "enum ", "mod ", "impl "]
                    .iter()
                    .any(|kind| {
                        code.match_indices(&format!("{kind}{part}"))
                            .any(|(at, found)| {
                                let after = code[at + found.len()..].chars().next();
                                after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                            })
                    })
                    || code.contains(&format!("    {part}("))
                    || code.contains(&format!("    {part},"))
                    || code.contains(&format!("    {part} {{"));
                assert!(defined, "{name}: `{item}` is not in src/");
            }
        }
        assert!(!words(proof).is_empty(), "{name}: no test");
        for test in words(proof) {
            let (file, function) = test.split_once("::").expect("file::test");
            let path = root().join("tests").join(format!("{file}.rs"));
            let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name}: no {file}.rs"));
            assert!(
                text.contains(&format!("fn {function}(")),
                "{name}: no test {test}"
            );
        }
    }
    assert!(rows > 50, "{rows} rows: does the reader still work?");
}
