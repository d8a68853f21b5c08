//! Monitoring: statistics against a plain two-pass reference; merging, the order of rows and
//! streams, and rolling back change no bit; snapshots come back and broken ones are refused;
//! rules against plain loops; what a caller does wrong is an error that names it.

mod library;
mod reference;

use proptest::prelude::*;
use reference::monitor as plain;
use reference::random::Random;
use sae::monitor::{
    Accumulator, Bins, Collect, Confusion, ErrorFit, ErrorModel, Event, EventRing, Monitor,
    MonitorOptions, Pool, Pooling, Quality, RowInfo, Rule, Rules, Unseen, choose, only_in,
};
use sae::{Code, Error, Features, OpenOptions, RowStatus, Rows, Sae, Scratch};
use std::sync::Arc;

/// Features of the models here.
const D_SAE: usize = 12;
const D_IN: usize = 8;

/// A ReLU model with random weights; `bias` tells models apart.
fn model(seed: u64, bias: f32, k: Option<usize>) -> Sae<'static> {
    let mut random = Random(seed);
    let mut tensors = reference::random::Tensors::default();
    let mut values = |count: usize| -> Vec<u8> {
        (0..count)
            .flat_map(|_| random.number().to_le_bytes())
            .collect()
    };
    let f32_format = reference::random::Format::F32;
    tensors.add("W_enc", f32_format, &[D_IN, D_SAE], &values(D_IN * D_SAE));
    tensors.add("W_dec", f32_format, &[D_SAE, D_IN], &values(D_IN * D_SAE));
    tensors.add("b_dec", f32_format, &[D_IN], &values(D_IN));
    let biases: Vec<u8> = (0..D_SAE).flat_map(|_| bias.to_le_bytes()).collect();
    tensors.add("b_enc", f32_format, &[D_SAE], &biases);
    let config = match k {
        None => serde_json::json!({"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE}),
        Some(k) => {
            serde_json::json!({"architecture": "topk", "k": k, "d_in": D_IN, "d_sae": D_SAE})
        }
    };
    let bytes: &'static [u8] = tensors.safetensors(0).leak();
    let config = Some(config.to_string());
    let name = "sae_weights.safetensors";
    Sae::from_bytes(name, bytes, config.as_deref(), &OpenOptions::default()).unwrap()
}

/// Random rows of features with labels and conditions, as sparse rows and as the reference sees
/// them. Values are coarse, so that maxima tie.
fn rows(seed: u64, count: usize) -> (Features, Vec<RowInfo>, Vec<plain::Row>) {
    let mut random = Random(seed);
    let (mut features, mut infos, mut reference) = (Features::new(), Vec::new(), Vec::new());
    let mut positions = [0u64; 3];
    for _ in 0..count {
        let mut values = vec![0.0; D_SAE];
        for (feature, value) in values.iter_mut().enumerate() {
            // The last feature never fires, the first in most rows.
            if feature + 1 < D_SAE && random.below(D_SAE) >= feature {
                let coarse = (random.number() * 8.0).round() / 4.0 + 2.25;
                if coarse != 0.0 {
                    features.push(feature as u32, coarse).unwrap();
                    *value = f64::from(coarse);
                }
            }
        }
        features.end_row(RowStatus::Ok).unwrap();
        let stream = random.below(3);
        let label = (random.below(4) > 0)
            .then(|| (values[0] - values[3] + f64::from(random.number())).clamp(-1.0, 2.0));
        let condition = random.below(4) as u32;
        let position = positions[stream];
        positions[stream] += 1;
        infos.push(
            RowInfo::new(stream as u64, position)
                .label(label.unwrap_or(f64::NAN))
                .condition(condition),
        );
        reference.push(plain::Row {
            values,
            stream: stream as u64,
            position,
            label,
            condition,
        });
    }
    (features, infos, reference)
}

/// Everything there is to collect.
fn everything(sae: &Sae<'_>) -> Collect {
    Collect::all(sae)
        .histogram(Bins::USUAL)
        .top(5)
        .cooccurrence(&[0, 3, 4, 9])
        .conditions(4)
        .label()
        .thresholds(&[0.0, 1.0, 2.5])
        .half_life(20.0)
}

fn close(a: f64, b: f64, tolerance: f64) {
    assert!(
        (a - b).abs() <= tolerance * b.abs().max(1.0),
        "{a} is not {b}"
    );
}

#[test]
fn statistics_agree_with_two_passes_over_all_rows() {
    let sae = model(1, 0.1, None);
    let (features, infos, reference) = rows(2, 700);
    let mut statistics = Accumulator::new(everything(&sae)).unwrap();
    let bytes = statistics.bytes();
    statistics.add_all(&features, &infos).unwrap();
    assert_eq!((statistics.rows(), statistics.bytes()), (700, bytes));
    let labelled: Vec<&plain::Row> = reference.iter().filter(|row| row.label.is_some()).collect();
    let labels: Vec<f64> = labelled.iter().map(|row| row.label.unwrap()).collect();
    let positives = labels.iter().filter(|&&label| label > 0.5).count() as u64;
    assert_eq!(statistics.labelled(), (labels.len() as u64, positives));
    for feature in 0..D_SAE {
        let one = statistics.feature(feature as u32).unwrap();
        let values = plain::column(&reference, feature);
        let active: Vec<f64> = values
            .iter()
            .copied()
            .filter(|&value| value != 0.0)
            .collect();
        assert_eq!(one.fired, active.len() as u64);
        close(one.density, active.len() as f64 / 700.0, 1e-15);
        close(one.mean, plain::mean(&values), 1e-13);
        close(one.variance, plain::variance(&values), 1e-13);
        close(one.rate.unwrap(), plain::average_rate(&values, 20.0), 1e-12);
        let last = values.iter().rposition(|&value| value != 0.0);
        assert_eq!(one.rows_since, last.map(|row| 699 - row as u64));
        if active.is_empty() {
            assert_eq!((one.max, one.min, one.mean_active), (0.0, 0.0, 0.0));
            continue;
        }
        close(one.mean_active, plain::mean(&active), 1e-13);
        let max = active.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(f64::from(one.max), max);
        assert_eq!(
            f64::from(one.min),
            active.iter().copied().fold(f64::INFINITY, f64::min)
        );
        // The largest first, the lowest row among equals.
        let mut order: Vec<&plain::Row> = reference
            .iter()
            .filter(|row| row.values[feature] != 0.0)
            .collect();
        order.sort_by(|a, b| {
            let rows = (a.stream, a.position).cmp(&(b.stream, b.position));
            b.values[feature].total_cmp(&a.values[feature]).then(rows)
        });
        assert_eq!(
            (one.max_at.stream, one.max_at.position),
            (order[0].stream, order[0].position)
        );
        let top: Vec<_> = statistics.top(feature as u32).iter().collect();
        assert_eq!(top.len(), order.len().min(5));
        for (top, row) in top.iter().zip(order) {
            assert_eq!(f64::from(top.value), row.values[feature]);
            assert_eq!(
                (top.row.stream, top.row.position),
                (row.stream, row.position)
            );
        }
        // Histogram: every count where its value belongs.
        let bins = Bins::USUAL;
        let mut counts = vec![0; bins.count()];
        for value in &active {
            let bin = (0..bins.count()).rfind(|&bin| value.abs() >= bins.start(bin));
            counts[bin.unwrap_or(0)] += 1;
        }
        assert_eq!(statistics.histogram(feature as u32), counts);
        // Label.
        let of_labelled: Vec<f64> = labelled.iter().map(|row| row.values[feature]).collect();
        let r = statistics.correlation(feature as u32).unwrap();
        close(r, plain::pearson(&of_labelled, &labels), 1e-12);
        for (number, threshold) in [0.0, 1.0, 2.5].into_iter().enumerate() {
            let count = |predicted: bool, so: bool| {
                let pairs = of_labelled.iter().zip(&labels);
                pairs
                    .filter(|(f, label)| (**f > threshold) == predicted && (**label > 0.5) == so)
                    .count() as u64
            };
            let expected = Confusion {
                true_positives: count(true, true),
                false_positives: count(true, false),
                false_negatives: count(false, true),
                true_negatives: count(false, false),
            };
            assert_eq!(statistics.confusion(feature as u32, number), Some(expected));
        }
        for condition in 0..4 {
            let under = reference.iter().filter(|row| row.condition == condition);
            let values: Vec<f64> = under.map(|row| row.values[feature]).collect();
            assert_eq!(statistics.condition_rows(condition), values.len() as u64);
            let (fired, sum) = statistics.under(feature as u32, condition).unwrap();
            assert_eq!(
                fired,
                values.iter().filter(|&&value| value != 0.0).count() as u64
            );
            close(sum, values.iter().sum(), 1e-13);
        }
    }
    for a in [0u32, 3, 4, 9] {
        for b in [0u32, 3, 4, 9] {
            let both = reference
                .iter()
                .filter(|row| row.values[a as usize] != 0.0 && row.values[b as usize] != 0.0);
            assert_eq!(statistics.pair(a, b), Some(both.count() as u64));
        }
    }
    assert_eq!(statistics.pair(0, 1), None);
    assert_eq!(statistics.dead(), [D_SAE as u32 - 1]);
}

#[test]
fn a_list_of_features_gives_what_all_give() {
    let sae = model(1, 0.1, None);
    let (features, infos, _) = rows(3, 200);
    let mut all = Accumulator::new(Collect::all(&sae).top(3)).unwrap();
    let mut some = Accumulator::new(Collect::features(&sae, &[9, 2, 9, 5]).top(3)).unwrap();
    all.add_all(&features, &infos).unwrap();
    some.add_all(&features, &infos).unwrap();
    assert!(some.features().eq([2, 5, 9]));
    for feature in [2, 5, 9] {
        assert_eq!(some.feature(feature), all.feature(feature));
        assert_eq!(some.top(feature), all.top(feature));
    }
    assert_eq!(some.feature(3), None);
    assert!(some.bytes() < all.bytes());
}

/// Takes rows `range` of a batch.
fn part(features: &Features, infos: &[RowInfo], order: &[usize]) -> (Features, Vec<RowInfo>) {
    let mut out = Features::new();
    for &row in order {
        let row = features.row(row).unwrap();
        for (&index, &value) in row.indices.iter().zip(row.values) {
            out.push(index, value).unwrap();
        }
        out.end_row(row.status).unwrap();
    }
    (out, order.iter().map(|&row| infos[row]).collect())
}

/// Without what follows the order of rows.
fn unordered(sae: &Sae<'_>) -> Collect {
    let mut collect = everything(sae);
    collect.half_life = None;
    collect
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// merge(a, b) has the bits of one pass over both, wherever they are cut; but for the
    /// exponential average, which is within two roundings per merge.
    #[test]
    fn merging_is_one_pass(seed in any::<u64>(), count in 1usize..120, cut in 0usize..120) {
        let sae = model(1, 0.1, None);
        let (features, infos, _) = rows(seed, count);
        let order: Vec<usize> = (0..count).collect();
        let cut = cut.min(count);
        let fed = |collect: &Collect, order: &[usize]| {
            let mut one = Accumulator::new(collect.clone()).unwrap();
            let (features, infos) = part(&features, &infos, order);
            one.add_all(&features, &infos).unwrap();
            one
        };
        let collect = unordered(&sae);
        let mut merged = fed(&collect, &order[..cut]);
        merged.merge(&fed(&collect, &order[cut..])).unwrap();
        prop_assert_eq!(merged.to_bytes().unwrap(), fed(&collect, &order).to_bytes().unwrap());
        let collect = everything(&sae);
        let mut merged = fed(&collect, &order[..cut]);
        merged.merge(&fed(&collect, &order[cut..])).unwrap();
        let whole = fed(&collect, &order);
        for (merged, whole) in merged.summaries().zip(whole.summaries()) {
            let (a, b) = (merged.rate.unwrap(), whole.rate.unwrap());
            prop_assert!((a - b).abs() <= 1e-13 * b.max(1e-300), "{} {}", a, b);
            prop_assert_eq!(merged.rows_since, whole.rows_since);
        }
    }

    /// The order of rows changes nothing but what says that it follows it.
    #[test]
    fn order_changes_no_bit(seed in any::<u64>(), count in 2usize..100, swaps in prop::collection::vec(any::<(usize, usize)>(), 1..60)) {
        let sae = model(1, 0.1, None);
        let (features, infos, _) = rows(seed, count);
        let mut order: Vec<usize> = (0..count).collect();
        for (a, b) in swaps {
            order.swap(a % count, b % count);
        }
        let collect = unordered(&sae);
        let mut straight = Accumulator::new(collect.clone()).unwrap();
        straight.add_all(&features, &infos).unwrap();
        let mut shuffled = Accumulator::new(collect).unwrap();
        let (features, infos) = part(&features, &infos, &order);
        shuffled.add_all(&features, &infos).unwrap();
        for (a, mut b) in straight.summaries().zip(shuffled.summaries()) {
            b.rows_since = a.rows_since;
            prop_assert_eq!(a, b);
            prop_assert_eq!(straight.top(a.feature), shuffled.top(a.feature));
            prop_assert_eq!(straight.correlation(a.feature), shuffled.correlation(a.feature));
            prop_assert_eq!(straight.histogram(a.feature), shuffled.histogram(a.feature));
        }
    }

    /// A snapshot comes back to the bit; any byte that differs is an error.
    #[test]
    fn snapshots_come_back_and_broken_ones_are_refused(seed in any::<u64>(), count in 0usize..40, at in any::<usize>(), flip in 1u8..=255, cut in any::<usize>()) {
        let sae = model(1, 0.1, None);
        let (features, infos, _) = rows(seed, count);
        let mut statistics = Accumulator::new(everything(&sae)).unwrap();
        statistics.add_all(&features, &infos).unwrap();
        let bytes = statistics.to_bytes().unwrap();
        prop_assert_eq!(bytes.len(), statistics.snapshot_len());
        let back = Accumulator::from_bytes(&bytes, Some(sae.fingerprint())).unwrap();
        prop_assert!(back.to_bytes().unwrap() == bytes);
        let mut broken = bytes.clone();
        let at = at % bytes.len();
        broken[at] ^= flip;
        prop_assert!(Accumulator::from_bytes(&broken, None).is_err());
        prop_assert!(Accumulator::from_bytes(&bytes[..cut % bytes.len()], None).is_err());
    }

    /// Rows that are proposed and committed, with others proposed and rolled back in between, give
    /// the statistics, events and states of rows that were only ever observed.
    #[test]
    fn rolled_back_rows_were_never_there(seed in any::<u64>(), steps in prop::collection::vec((0u64..4, 0usize..5, 0usize..5), 1..40)) {
        let sae = model(7, 0.3, None);
        let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
        let options = MonitorOptions::default().pending_rows(4).collect(everything(&sae));
        let mut direct = Monitor::new(rules.clone(), &options).unwrap();
        let mut speculative = Monitor::new(rules, &options).unwrap();
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut random = Random(seed);
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        let mut positions = [0u64; 4];
        let mut rejected = 0;
        for (stream, proposed, accepted) in steps {
            let accepted = accepted.min(proposed);
            let values: Vec<f32> = (0..proposed * D_IN).map(|_| random.number()).collect();
            let start = positions[stream as usize];
            let infos: Vec<RowInfo> = (0..proposed as u64).map(|row| RowInfo::new(stream, start + row)).collect();
            positions[stream as usize] += accepted as u64;
            let rows = Rows::from_f32(&values, D_IN).unwrap();
            let (rows, infos) = (rows.part(0, proposed.min(4)), &infos[..proposed.min(4)]);
            let accepted = accepted.min(4);
            if rows.rows() == 0 {
                continue;
            }
            direct.observe(&sae, rows.part(0, accepted), &infos[..accepted], &mut scratch, &mut |event| expected.push(*event)).unwrap();
            speculative.propose(&sae, rows, infos, &mut scratch).unwrap();
            prop_assert_eq!(speculative.pending(stream), rows.rows());
            // In two steps, as a host may.
            speculative.rollback(stream, (rows.rows() - accepted) / 2);
            let committed = speculative.commit(stream, accepted, &mut |event| found.push(*event));
            prop_assert_eq!(committed, accepted);
            speculative.rollback(stream, usize::MAX);
            rejected += rows.rows() - accepted;
        }
        prop_assert_eq!(expected, found);
        prop_assert_eq!(
            direct.statistics().unwrap().to_bytes().unwrap(),
            speculative.statistics().unwrap().to_bytes().unwrap()
        );
        let mut counts = speculative.counts();
        prop_assert_eq!(counts.rolled_back, rejected as u64);
        counts.rolled_back = 0;
        // A stream whose rows were all rejected has a place all the same.
        prop_assert_eq!(counts, direct.counts());
    }

    /// Each stream gives the events that it gives alone, however it is interleaved with others.
    #[test]
    fn interleaving_streams_changes_no_event(seed in any::<u64>(), order in prop::collection::vec(0u64..5, 1..120)) {
        let sae = model(7, 0.3, None);
        let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
        let row = |stream: u64, position: u64| -> Vec<f32> {
            let mut random = Random(seed ^ stream << 32 ^ position);
            (0..D_IN).map(|_| random.number()).collect()
        };
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut watch = |order: &[u64]| {
            let mut monitor = Monitor::new(rules.clone(), &MonitorOptions::default()).unwrap();
            let (mut events, mut positions) = (Vec::new(), [0u64; 5]);
            for &stream in order {
                let position = positions[stream as usize];
                positions[stream as usize] += 1;
                let values = row(stream, position);
                let rows = Rows::from_f32(&values, D_IN).unwrap();
                let info = [RowInfo::new(stream, position)];
                monitor.observe(&sae, rows, &info, &mut scratch, &mut |event| events.push(*event)).unwrap();
            }
            events
        };
        let together = watch(&order);
        for stream in 0..5 {
            let alone: Vec<u64> = order.iter().copied().filter(|&other| other == stream).collect();
            let of_stream: Vec<Event> = together.iter().copied().filter(|event| event.row.stream == stream).collect();
            prop_assert_eq!(watch(&alone), of_stream);
        }
    }

    /// Hysteresis and runs, against a loop over all scores.
    #[test]
    fn thresholds_agree_with_a_plain_loop(scores in prop::collection::vec(0u8..6, 1..80), over in 0u8..5, gap in 0u8..3, run in 1usize..4) {
        let sae = model(1, 0.1, None);
        let release = over.saturating_sub(gap);
        let rule = Rule::threshold("t", &[4], over.into()).release(release.into()).run(run as u32);
        let rules = sae.compile_rules(&Rules::new("").rule(rule)).unwrap();
        let mut monitor = Monitor::new(Arc::new(rules), &MonitorOptions::default()).unwrap();
        let mut features = Features::new();
        for &score in &scores {
            if score > 0 {
                features.push(4, score.into()).unwrap();
            }
            features.end_row(RowStatus::Ok).unwrap();
        }
        let mut found = Vec::new();
        monitor.observe_features(&features, &[], &mut |event| found.push((event.row.position as usize, event.score))).unwrap();
        let scores: Vec<f64> = scores.iter().map(|&score| score.into()).collect();
        prop_assert_eq!(found, plain::threshold(&scores, over.into(), release.into(), run));
    }

    /// Quality forgets a row to the bit.
    #[test]
    fn quality_merges_and_undoes_exactly(seed in any::<u64>(), count in 1usize..30, cut in 0usize..30) {
        let sae = model(5, 0.1, None);
        let cut = cut.min(count);
        let mut random = Random(seed);
        let values: Vec<f32> = (0..count * D_IN).map(|_| random.number()).collect();
        let (features, decoded) = library::encode_decode(&sae, library::rows(&values, D_IN));
        let fed = |range: std::ops::Range<usize>| {
            let mut quality = Quality::new(&sae).unwrap();
            for row in range {
                let at = row * D_IN..(row + 1) * D_IN;
                quality.add(&values[at.clone()], features.row(row).unwrap(), &decoded[at]).unwrap();
            }
            quality
        };
        let whole = fed(0..count);
        let mut merged = fed(cut..count);
        merged.merge(&fed(0..cut)).unwrap();
        prop_assert_eq!(merged.summary(), whole.summary());
        let mut undone = whole;
        for row in cut..count {
            let at = row * D_IN..(row + 1) * D_IN;
            undone.remove(&values[at.clone()], features.row(row).unwrap(), &decoded[at]).unwrap();
        }
        prop_assert_eq!(undone.summary(), fed(0..cut).summary());
    }
}

/// Rules of every kind over features of the small model.
fn some_rules() -> Rules {
    Rules::from_json(SOME_RULES).unwrap()
}

const SOME_RULES: &str = r#"{
    "name": "some",
    "rules": [
        {"name": "high", "kind": "threshold", "feature": 2, "over": 1.0, "release": 0.25},
        {"name": "run", "kind": "threshold", "features": [1, 5], "over": 0.0, "run": 2, "limit": {"events": 2, "rows": 9}},
        {"name": "together", "kind": "coactivation", "features": [0, 3, 7], "at_least": 2, "within": 3},
        {"name": "linear", "kind": "linear", "weights": [{"feature": 2, "weight": 1.5}, {"feature": 8, "weight": -0.5}], "bias": -1, "pooling": "mean", "over": 0.5},
        {"name": "logistic", "kind": "logistic", "weights": [{"feature": 4, "weight": 0.5}], "bias": -1, "pooling": "max", "binary": 1.0, "over": 0.3},
        {"name": "cusum", "kind": "cusum", "feature": 9, "target": 0.5, "slack": 0.1, "over": 2.0, "direction": "both"},
        {"name": "drift", "kind": "drift", "feature": 10, "half_life": 4, "mean": 0.4, "deviation": 0.5, "over": 2},
        {"name": "bad row", "kind": "non_finite"},
        {"name": "signal", "kind": "threshold", "signal": true, "over": 3}
    ],
    "labels": {"2": "weapons", "4": "say \"hi\""}
}"#;

#[test]
fn rules_come_back_from_json() {
    let rules = some_rules();
    assert_eq!(Rules::from_value(&rules.to_json()).unwrap(), rules);
    assert_eq!(
        rules.features().into_iter().collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    );
    let mut other = rules.clone();
    other.rules[0].over = 1.5;
    assert_ne!(other.hash(), rules.hash());
}

/// What each kind of rule alerts on, worked out by hand.
#[test]
fn every_kind_of_rule_alerts_where_it_should() {
    let sae = model(1, 0.1, None);
    let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
    let ring = Arc::new(EventRing::new(64).unwrap());
    let options = MonitorOptions::default().ring(ring.clone());
    let mut monitor = Monitor::new(rules.clone(), &options).unwrap();
    let mut alerts = |rows: &[&[(u32, f32)]], signals: &[f64]| {
        let mut features = Features::new();
        for row in rows {
            for &(feature, value) in *row {
                features.push(feature, value).unwrap();
            }
            features.end_row(RowStatus::Ok).unwrap();
        }
        let infos: Vec<RowInfo> = (0..rows.len())
            .map(|row| {
                let info = RowInfo::new(1, row as u64);
                info.signal(signals.get(row).copied().unwrap_or(f64::NAN))
            })
            .collect();
        let mut found = Vec::new();
        monitor
            .observe_features(&features, &infos, &mut |event| {
                let name = rules.rule_name(event.rule as usize);
                // Downwards it alerts wherever feature 9 is silent for long.
                if name != "cusum" || (signals.is_empty() && rows.iter().all(|row| row.is_empty()))
                {
                    found.push((name.to_string(), event.row.position, event.score));
                }
            })
            .unwrap();
        monitor.end_stream(1);
        found
    };
    let alert = |name: &str, row: u64, score: f64| (name.to_string(), row, score);
    assert_eq!(
        alerts(
            &[&[(2, 1.5)], &[(2, 0.5)], &[(2, 1.5)], &[], &[(2, 2.0)]],
            &[]
        ),
        // The linear head: -1 + 1.5 * mean.
        [
            alert("high", 0, 1.5),
            alert("linear", 0, 1.25),
            alert("linear", 2, -1.0 + 1.5 * (3.5 / 3.0)),
            alert("high", 4, 2.0),
            alert("linear", 4, -1.0 + 1.5 * (5.5 / 5.0)),
        ]
    );
    // Runs of two; at most two alerts in nine rows, the third is suppressed.
    let on: &[(u32, f32)] = &[(5, 1.0)];
    assert_eq!(
        alerts(&[on, on, &[], on, on, &[], on, on, &[], &[], on, on], &[]),
        [
            alert("run", 1, 1.0),
            alert("run", 4, 1.0),
            alert("run", 11, 1.0)
        ]
    );
    // Two of three within three rows: 0 at row 0 counts until row 2.
    assert_eq!(
        alerts(
            &[
                &[(0, 1.0)],
                &[],
                &[(7, 1.0)],
                &[],
                &[],
                &[],
                &[(3, 1.0)],
                &[],
                &[],
                &[(0, 1.0)]
            ],
            &[]
        ),
        [alert("together", 2, 2.0)]
    );
    // Binarised: 1 above 1.0, so 1 / (1 + exp(1 - 0.5)).
    assert_eq!(
        alerts(&[&[(4, 0.9)], &[(4, 1.1)], &[]], &[]),
        [alert("logistic", 1, 1.0 / (1.0 + 0.5f64.exp()))]
    );
    // Downwards 0.5 - 0 - 0.1 a row: 2.0 is exceeded after row 5 (2.4); then from 0 again.
    let cusum = alerts(&[&[][..]; 12], &[]);
    let cusum: Vec<_> = cusum
        .iter()
        .filter(|one| one.0 == "cusum")
        .map(|one| one.1)
        .collect();
    assert_eq!(cusum, [5, 11]);
    let drift = alerts(&[&[(10, 1.6)][..]; 6], &[]);
    let (a, mut e) = (1.0 - 2f64.powf(-0.25), 0.0);
    let unit = 0.5 * (a / (2.0 - a)).sqrt();
    let first = (0..6).find_map(|row| {
        e += a * (f64::from(1.6f32) - 0.4 - e);
        (e / unit > 2.0).then_some((row, e / unit))
    });
    let (row, score) = first.unwrap();
    let found = drift.iter().find(|one| one.0 == "drift").unwrap();
    assert_eq!(found.1, row);
    close(found.2, score, 1e-12);
    assert_eq!(
        alerts(&[&[], &[], &[]], &[2.0, 3.5, 4.0]),
        [alert("signal", 1, 3.5)]
    );
    assert_eq!(monitor.counts().suppressed, 1);
    assert_eq!(monitor.rule_counts(1), (3, 1));
    // All of these went into the ring too, in order.
    let mut events = 0;
    while ring.pop().is_some() {
        events += 1;
    }
    assert_eq!(events, monitor.counts().events);
}

#[test]
fn events_name_the_features_behind_them() {
    let sae = model(1, 0.1, None);
    let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
    let mut monitor = Monitor::new(rules.clone(), &MonitorOptions::default()).unwrap();
    let mut features = Features::new();
    for (feature, value) in [(1, 2.0), (2, 3.0), (5, 4.0), (8, 0.5)] {
        features.push(feature, value).unwrap();
    }
    features.end_row(RowStatus::Ok).unwrap();
    let mut lines = Vec::new();
    monitor
        .observe_features(&features, &[RowInfo::new(9, 41)], &mut |event| {
            let mut line = String::new();
            event.write_json(&rules, &mut line).unwrap();
            lines.push(serde_json::from_str::<serde_json::Value>(&line).unwrap());
        })
        .unwrap();
    let expected = serde_json::json!([
        {"rule": "high", "stream": 9, "position": 41, "score": 3.0,
         "features": [{"feature": 2, "value": 3.0, "label": "weapons"}]},
        {"rule": "linear", "stream": 9, "position": 41, "score": -1.0 + 4.5 - 0.25,
         "features": [{"feature": 2, "value": 3.0, "label": "weapons"}, {"feature": 8, "value": 0.5}]},
    ]);
    assert_eq!(serde_json::Value::from(lines), expected);
}

/// Reading through the rules' own rows, through a full encode, and from features that the host
/// encoded give the same; for a threshold rule and a TopK model.
#[test]
fn every_way_of_watching_gives_the_same() {
    for k in [None, Some(4)] {
        let sae = model(11, 0.2, k);
        let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
        assert_eq!(rules.reads_all(), k.is_some());
        let mut random = Random(3);
        let mut values: Vec<f32> = (0..200 * D_IN).map(|_| random.number()).collect();
        values[17 * D_IN] = f32::NAN;
        let rows = Rows::from_f32(&values, D_IN).unwrap();
        let mut scratch = Scratch::new(&sae).unwrap();
        let watched = rules.features().to_vec();
        let collects = [
            Some(Collect::features(&sae, &watched).top(3)),
            Some(Collect::all(&sae).top(3)),
            None,
        ];
        let mut results = Vec::new();
        for collect in collects {
            for encoded in [false, true] {
                let mut options = MonitorOptions::default();
                options.collect = collect.clone();
                let mut monitor = Monitor::new(rules.clone(), &options).unwrap();
                let bytes = monitor.bytes();
                let mut events = Vec::new();
                let mut on_event = |event: &Event| events.push(*event);
                if encoded {
                    let mut features = Features::new();
                    sae.encode(rows, &mut scratch, &mut features).unwrap();
                    monitor
                        .observe_features(&features, &[], &mut on_event)
                        .unwrap();
                } else {
                    monitor
                        .observe(&sae, rows, &[], &mut scratch, &mut on_event)
                        .unwrap();
                }
                assert_eq!(monitor.bytes(), bytes);
                assert_eq!(monitor.counts().non_finite, 1);
                let summaries: Option<Vec<_>> = monitor.statistics().map(|statistics| {
                    watched
                        .iter()
                        .map(|&f| (statistics.feature(f), statistics.top(f).to_vec()))
                        .collect()
                });
                results.push((events, summaries));
            }
        }
        assert!(results[0].0.len() > 20, "{}", results[0].0.len());
        for (events, summaries) in &results {
            assert_eq!(events, &results[0].0);
            assert!(summaries.is_none() || summaries == &results[0].1);
        }
    }
}

#[test]
fn rows_that_are_not_finite_are_counted_and_poison_nothing() {
    let sae = model(1, 0.1, None);
    let (features, infos, _) = rows(4, 50);
    let mut clean = Accumulator::new(everything(&sae)).unwrap();
    clean.add_all(&features, &infos).unwrap();
    let mut dirty = Accumulator::new(everything(&sae)).unwrap();
    let mut bad = Features::new();
    bad.end_row(RowStatus::NonFinite).unwrap();
    for (number, row) in features.iter().enumerate() {
        dirty
            .add(bad.row(0).unwrap(), &RowInfo::new(0, 999))
            .unwrap();
        dirty.add(row, &infos[number]).unwrap();
    }
    assert_eq!((dirty.rows(), dirty.non_finite()), (50, 50));
    for (a, b) in clean.summaries().zip(dirty.summaries()) {
        assert_eq!(a, b);
    }
    // An infinite value fires and is no part of any sum.
    let mut infinite = Features::new();
    infinite.push(2, f32::INFINITY).unwrap();
    infinite.push(3, 1.0).unwrap();
    infinite.end_row(RowStatus::Ok).unwrap();
    let before = dirty.sum(2).unwrap();
    dirty
        .add(infinite.row(0).unwrap(), &RowInfo::new(0, 1).label(1.0))
        .unwrap();
    assert_eq!((dirty.sum(2).unwrap(), dirty.overflows()), (before, 1));
    assert_eq!(dirty.feature(2).unwrap().max, f32::INFINITY);
    assert!(dirty.feature(2).unwrap().variance.is_finite());
    assert!(dirty.correlation(2).unwrap().is_finite());
}

fn refused<T>(result: Result<T, Error>, code: Code, part: &str) {
    let error = result
        .err()
        .unwrap_or_else(|| panic!("`{part}` was accepted"));
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn wrong_rules_are_refused_with_their_place() {
    let sae = model(1, 0.1, None);
    let cases = [
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 12, "over": 1}]}"#,
            "`rules[0].feature`: expected a feature below 12",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "features": [1, 40], "over": 1}]}"#,
            "`rules[0].features[1]`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "features": [], "over": 1}]}"#,
            "`rules[0].features`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "features": [3, 3], "over": 1}]}"#,
            "3 twice",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1, "over": 1, "release": 2}]}"#,
            "`rules[0].release`: expected at most 1",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1, "over": 1, "run": 0}]}"#,
            "`rules[0].run`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1, "over": "x"}]}"#,
            "`rules[0].over`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1}]}"#,
            "`rules[0].over`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "over": 1}]}"#,
            "`rules[0].feature`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1, "signal": true, "over": 1}]}"#,
            "`rules[0].signal`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1, "over": 1, "within": 2}]}"#,
            "`rules[0]`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1, "over": 1, "limit": {"events": 0, "rows": 1}}]}"#,
            "`rules[0].limit.events`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 1, "over": 1, "limit": {"events": 1, "rows": 0}}]}"#,
            "`rules[0].limit.rows`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "coactivation", "features": [1, 2], "at_least": 3, "within": 2}]}"#,
            "`rules[0].at_least`: expected 1 to 2",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "coactivation", "features": [1, 2], "at_least": 1, "within": 0}]}"#,
            "`rules[0].within`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "logistic", "weights": [{"feature": 1, "weight": 1}], "over": 1}]}"#,
            "`rules[0].over`: expected a probability",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "linear", "weights": [{"feature": 1, "weight": 1}], "pooling": "median", "over": 1}]}"#,
            "`rules[0].pooling`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "cusum", "feature": 1}]}"#,
            "`rules[0].slack`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "drift", "feature": 1, "half_life": 0, "mean": 0, "deviation": 1}]}"#,
            "`rules[0].half_life`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "drift", "feature": 1, "half_life": 2, "mean": 0}]}"#,
            "`rules[0].deviation`",
        ),
        (
            r#"{"rules": [{"name": "a", "kind": "mystery"}]}"#,
            "`rules[0].kind`",
        ),
        (r#"{"rules": [], "rule": 1}"#, "`the rules`"),
        (r#"{"name": "none"}"#, "`rules`"),
        (r#"{"rules": [], "d_sae": 16384}"#, "`d_sae`: expected 12"),
        (r#"{"rules": [], "model": "0123456789abcdef"}"#, "`model`"),
        (r#"{"rules": [], "labels": {"x": "y"}}"#, "`labels.x`"),
        ("{", "malformed json"),
    ];
    for (text, part) in cases {
        let result = Rules::from_json(text).and_then(|rules| sae.compile_rules(&rules));
        let error = result.err().unwrap_or_else(|| panic!("accepted: {text}"));
        assert!(error.to_string().contains(part), "{text}\n{error}");
    }
    // What JSON cannot say.
    let nan = Rules::new("").rule(Rule::threshold("a", &[1], f64::NAN));
    refused(
        sae.compile_rules(&nan),
        Code::InvalidValue,
        "`rules[0].over`",
    );
    // A baseline fills in what rules leave out.
    let drift =
        Rules::from_json(r#"{"rules": [{"name": "a", "kind": "cusum", "feature": 1}]}"#).unwrap();
    let (features, infos, _) = rows(5, 60);
    let mut normal = Accumulator::new(Collect::all(&sae)).unwrap();
    normal.add_all(&features, &infos).unwrap();
    sae.compile_rules(&drift.baseline(&normal)).unwrap();
}

#[test]
fn snapshots_and_merges_of_other_models_are_refused() {
    let (sae, other) = (model(1, 0.1, None), model(1, 0.2, None));
    assert_ne!(sae.fingerprint(), other.fingerprint());
    assert_eq!(
        sae.fingerprint(),
        model(1, 0.1, None).prepare().unwrap().fingerprint()
    );
    let statistics = Accumulator::new(Collect::all(&sae)).unwrap();
    let bytes = statistics.to_bytes().unwrap();
    refused(
        Accumulator::from_bytes(&bytes, Some(other.fingerprint())),
        Code::InvalidValue,
        "model of the snapshot",
    );
    let mut later = bytes.clone();
    later[8] = 2;
    refused(
        Accumulator::from_bytes(&later, None),
        Code::Unsupported,
        "version 2",
    );
    refused(
        Accumulator::from_bytes(&bytes[..bytes.len() - 1], None),
        Code::Truncated,
        "truncated",
    );
    refused(
        Accumulator::from_bytes(b"not one at all", None),
        Code::Malformed,
        "SAESTATS",
    );
    let mut longer = bytes.clone();
    longer.push(0);
    refused(
        Accumulator::from_bytes(&longer, None),
        Code::Malformed,
        "belong",
    );
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    refused(
        Accumulator::from_bytes(&flipped, None),
        Code::Corrupt,
        "checksum",
    );
    // A header that promises the world allocates nothing.
    let mut huge = bytes.clone();
    huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(
        Accumulator::from_bytes(&huge, None),
        Code::Truncated,
        "truncated",
    );
    let mut this = Accumulator::new(Collect::all(&sae)).unwrap();
    refused(
        this.merge(&Accumulator::new(Collect::all(&other)).unwrap()),
        Code::InvalidArgument,
        "model",
    );
    refused(
        this.merge(&Accumulator::new(Collect::all(&sae).top(1)).unwrap()),
        Code::InvalidArgument,
        "something else",
    );
}

#[test]
fn what_cannot_be_collected_is_refused() {
    let sae = model(1, 0.1, None);
    let all = || Collect::all(&sae);
    refused(
        Accumulator::new(Collect::features(&sae, &[12])),
        Code::FeatureOutOfRange,
        "12",
    );
    refused(
        Accumulator::new(all().cooccurrence(&[1, 99])),
        Code::FeatureOutOfRange,
        "99",
    );
    refused(Accumulator::new(all().top(5000)), Code::Limit, "5000");
    refused(
        Accumulator::new(all().thresholds(&[-1.0])),
        Code::InvalidArgument,
        "-1",
    );
    refused(
        Accumulator::new(all().half_life(0.0)),
        Code::InvalidArgument,
        "half-life",
    );
    let bins = Bins::Log {
        split: 1,
        first: 4,
        end: 4,
    };
    refused(
        Accumulator::new(all().histogram(bins)),
        Code::InvalidArgument,
        "bins",
    );
    let mut statistics = Accumulator::new(all().conditions(2)).unwrap();
    let (features, mut infos, _) = rows(1, 4);
    infos.truncate(3);
    refused(statistics.add_all(&features, &infos), Code::Length, "infos");
    let mut wide = Features::new();
    wide.push(12, 1.0).unwrap();
    wide.end_row(RowStatus::Ok).unwrap();
    refused(
        statistics.add_all(&wide, &[]),
        Code::FeatureOutOfRange,
        "12",
    );
    let info = RowInfo::new(0, 0).condition(2);
    refused(
        statistics.add(features.row(0).unwrap(), &info),
        Code::InvalidArgument,
        "condition",
    );
    assert_eq!(statistics.rows(), 0);
}

#[test]
fn wrong_calls_of_a_monitor_change_nothing() {
    let (sae, other) = (model(1, 0.1, None), model(1, 0.2, None));
    let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
    let options = MonitorOptions::default().pending_rows(2);
    let mut monitor = Monitor::new(rules.clone(), &options).unwrap();
    let mut scratch = Scratch::new(&sae).unwrap();
    let values = [0.5; 3 * D_IN];
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    let quiet = &mut |_: &Event| panic!("an event");
    refused(
        monitor.observe(&other, rows, &[], &mut scratch, quiet),
        Code::InvalidArgument,
        "another model",
    );
    let narrow = Rows::from_f32(&values[..6], 6).unwrap();
    refused(
        monitor.observe(&sae, narrow, &[], &mut scratch, quiet),
        Code::Length,
        "values per row",
    );
    let infos = [RowInfo::new(1, 0)];
    refused(
        monitor.observe(&sae, rows, &infos, &mut scratch, quiet),
        Code::Length,
        "infos",
    );
    refused(
        monitor.propose(&sae, rows, &[], &mut scratch),
        Code::Limit,
        "stream 0",
    );
    assert_eq!(monitor.pending(0), 0);
    monitor
        .propose(&sae, rows.part(0, 2), &[], &mut scratch)
        .unwrap();
    refused(
        monitor.observe(&sae, rows, &[], &mut scratch, quiet),
        Code::InvalidArgument,
        "stream 0 with 2",
    );
    assert_eq!(monitor.counts().rows, 0);
    assert_eq!(monitor.rollback(0, 9), 2);
    assert_eq!(monitor.commit(5, 9, quiet), 0);
    let foreign = MonitorOptions::default().collect(Collect::all(&other));
    refused(
        Monitor::new(rules, &foreign),
        Code::InvalidArgument,
        "model",
    );
}

#[test]
fn streams_beyond_the_room_are_evicted_or_refused_as_stated() {
    let sae = model(1, 0.1, None);
    let rule = Rule::threshold("t", &[1], 0.5).run(2);
    let rules = Arc::new(sae.compile_rules(&Rules::new("").rule(rule)).unwrap());
    let mut features = Features::new();
    features.push(1, 1.0).unwrap();
    features.end_row(RowStatus::Ok).unwrap();
    let feed = |monitor: &mut Monitor, stream: u64| {
        let mut events = 0;
        let info = [RowInfo::new(stream, 0)];
        monitor
            .observe_features(&features, &info, &mut |_| events += 1)
            .unwrap();
        events
    };
    let mut evicting = Monitor::new(rules.clone(), &MonitorOptions::default().streams(2)).unwrap();
    // 1 and 2 have a place; 3 takes that of 1, which waited longest and must begin again.
    for stream in [1, 2, 3] {
        assert_eq!(feed(&mut evicting, stream), 0);
    }
    assert_eq!(evicting.counts().evicted, 1);
    assert_eq!(feed(&mut evicting, 2), 1);
    assert_eq!(feed(&mut evicting, 1), 0);
    assert_eq!(evicting.streams(), 2);
    let options = MonitorOptions::default().streams(2).unseen(Unseen::Refuse);
    let mut refusing = Monitor::new(rules, &options).unwrap();
    for stream in [1, 2, 3, 3] {
        assert_eq!(feed(&mut refusing, stream), 0);
    }
    assert_eq!(refusing.counts().refused, 2);
    assert_eq!((feed(&mut refusing, 1), feed(&mut refusing, 2)), (1, 1));
    assert!(refusing.end_stream(1) && !refusing.end_stream(1));
    assert_eq!((feed(&mut refusing, 3), feed(&mut refusing, 3)), (0, 1));
}

#[test]
fn a_full_ring_drops_and_counts() {
    let ring = EventRing::new(5).unwrap();
    assert_eq!(ring.capacity(), 8);
    let event = some_event();
    for round in 0..3 {
        for _ in 0..8 {
            assert!(ring.push(&event));
        }
        assert!(!ring.push(&event));
        assert_eq!(ring.dropped(), round + 1);
        for _ in 0..8 {
            assert_eq!(ring.pop(), Some(event));
        }
        assert_eq!(ring.pop(), None);
    }
}

fn some_event() -> Event {
    let sae = model(1, 0.1, None);
    let rules = Arc::new(
        sae.compile_rules(&Rules::new("").rule(Rule::threshold("t", &[1, 2, 3], 0.0)))
            .unwrap(),
    );
    let mut monitor = Monitor::new(rules, &MonitorOptions::default()).unwrap();
    let mut features = Features::new();
    for (feature, value) in [(1, 1.5), (2, 3.5)] {
        features.push(feature, value).unwrap();
    }
    features.end_row(RowStatus::Ok).unwrap();
    let mut found = None;
    monitor
        .observe_features(
            &features,
            &[RowInfo::new(u64::MAX, 1 << 40)],
            &mut |event| found = Some(*event),
        )
        .unwrap();
    let event = found.unwrap();
    assert_eq!(
        event
            .contributions()
            .iter()
            .map(|one| one.feature)
            .collect::<Vec<_>>(),
        [2, 1]
    );
    event
}

/// Four threads push, two pop: every event arrives once, those of a thread in order.
#[test]
fn a_ring_between_threads_loses_and_repeats_nothing() {
    const EACH: u64 = 20_000;
    let ring = EventRing::new(64).unwrap();
    let event = some_event();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let taken: Vec<Event> = std::thread::scope(|scope| {
        for thread in 0..4 {
            let (ring, done) = (&ring, &done);
            scope.spawn(move || {
                for number in 0..EACH {
                    let mut event = event;
                    event.row.stream = thread;
                    event.row.position = number;
                    event.score = (thread * EACH + number) as f64;
                    while !ring.push(&event) {
                        std::thread::yield_now();
                    }
                }
                done.fetch_add(1, std::sync::atomic::Ordering::Release);
            });
        }
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (ring, done) = (&ring, &done);
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    loop {
                        let finished = done.load(std::sync::atomic::Ordering::Acquire) == 4;
                        match ring.pop() {
                            Some(event) => taken.push(event),
                            None if finished => return taken,
                            None => std::thread::yield_now(),
                        }
                    }
                })
            })
            .collect();
        let mut all = Vec::new();
        for reader in readers {
            let taken = reader.join().unwrap();
            for thread in 0..4 {
                let of_thread = taken.iter().filter(|event| event.row.stream == thread);
                assert!(of_thread.map(|event| event.row.position).is_sorted());
            }
            all.extend(taken);
        }
        all
    });
    assert_eq!(taken.len() as u64, 4 * EACH);
    let mut seen = vec![false; taken.len()];
    for event in taken {
        assert_eq!(
            event.score,
            (event.row.stream * EACH + event.row.position) as f64
        );
        assert!(!std::mem::replace(&mut seen[event.score as usize], true));
    }
}

#[test]
fn pools_are_what_they_say() {
    let (features, _, reference) = rows(6, 40);
    let mut pool = Pool::new(D_SAE).unwrap();
    for row in features.iter() {
        pool.add(row).unwrap();
    }
    for feature in 0..D_SAE {
        let values = plain::column(&reference, feature);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(pool.value(feature, Pooling::Max), max);
        assert_eq!(pool.value(feature, Pooling::Last), values[39]);
        close(
            pool.value(feature, Pooling::Sum),
            values.iter().sum(),
            1e-13,
        );
        close(
            pool.value(feature, Pooling::Mean),
            plain::mean(&values),
            1e-13,
        );
    }
    let mut out = Features::new();
    pool.finish(Pooling::Max, Some(2.0), &mut out).unwrap();
    let expected: Vec<u32> = (0..D_SAE)
        .filter(|&f| pool.value(f, Pooling::Max) > 2.0)
        .map(|f| f as u32)
        .collect();
    assert_eq!(out.row(0).unwrap().indices, expected);
    assert!(out.values().iter().all(|&value| value == 1.0));
}

/// Every selection against its formula over dense rows.
#[test]
fn selections_follow_their_formulas() {
    let sae = model(1, 0.1, None);
    let fed = |seed, count| {
        let (features, infos, reference) = rows(seed, count);
        let mut statistics = Accumulator::new(everything(&sae)).unwrap();
        statistics.add_all(&features, &infos).unwrap();
        (statistics, reference)
    };
    let ((a, ra), (b, rb)) = (fed(21, 300), fed(22, 200));
    let same = |found: &[choose::Scored], score: &dyn Fn(usize) -> f64| {
        assert!(found.is_sorted_by(
            |a, b| a.score > b.score || (a.score == b.score && a.feature < b.feature)
        ));
        for one in found {
            close(one.score, score(one.feature as usize), 1e-11);
        }
    };
    let sum = |rows: &[plain::Row], f: usize| plain::column(rows, f).iter().sum::<f64>();
    let count = |rows: &[plain::Row], f: usize| {
        plain::column(rows, f).iter().filter(|&&x| x != 0.0).count() as f64
    };
    let labelled: Vec<plain::Row> = ra
        .iter()
        .filter(|row| row.label.is_some())
        .cloned()
        .collect();
    let labels: Vec<f64> = labelled.iter().map(|row| row.label.unwrap()).collect();
    let found = choose::by_correlation(&a, D_SAE).unwrap();
    assert_eq!(found.len(), D_SAE);
    same(&found, &|f| {
        plain::pearson(&plain::column(&labelled, f), &labels)
    });
    let found = choose::crisp(&a, &b, 8, 1.4, 4).unwrap();
    same(&found, &|f| count(&ra, f) - count(&rb, f));
    assert!(!found.is_empty() && found.len() <= 4);
    assert!(
        found.iter().all(|one| sum(&ra, one.feature as usize)
            / (sum(&rb, one.feature as usize) + 1.0)
            >= 1.4)
    );
    let found = choose::by_density(&a, &b, 0.3, D_SAE).unwrap();
    same(&found, &|f| count(&ra, f) / 300.0);
    assert!(
        found
            .iter()
            .all(|one| count(&rb, one.feature as usize) / 200.0 < 0.3)
    );
    let total = |rows: &[plain::Row]| (0..D_SAE).map(|f| sum(rows, f)).sum::<f64>();
    let found = choose::saeuron(&a, &b, D_SAE).unwrap();
    same(&found, &|f| {
        sum(&ra, f) / total(&ra) - sum(&rb, f) / total(&rb)
    });
    let mean_of = |f: usize, conditions: &[u32]| {
        let rows: Vec<f64> = ra
            .iter()
            .filter(|row| conditions.contains(&row.condition))
            .map(|row| row.values[f])
            .collect();
        plain::mean(&rows)
    };
    let found = choose::by_mean_difference(&a, 1, 2, D_SAE).unwrap();
    same(&found, &|f| (mean_of(f, &[1]) - mean_of(f, &[2])).abs());
    let found = choose::by_information(&a, D_SAE).unwrap();
    same(&found, &|f| {
        let active: Vec<usize> = ra
            .iter()
            .map(|row| usize::from(row.values[f] != 0.0))
            .collect();
        let conditions: Vec<usize> = ra.iter().map(|row| row.condition as usize).collect();
        plain::information(&active, &conditions)
    });
    let inside: f64 = (0..D_SAE).map(|f| mean_of(f, &[1, 2, 3])).sum();
    let outside: f64 = (0..D_SAE).map(|f| mean_of(f, &[0])).sum();
    let found = choose::reason_score(&a, 0.7, D_SAE).unwrap();
    same(&found, &|f| {
        let means = [1, 2, 3].map(|group| mean_of(f, &[group]));
        let all: f64 = means.iter().sum();
        let entropy: f64 = means
            .iter()
            .filter(|&&m| m > 0.0)
            .map(|m| -m / all * (m / all).ln())
            .sum::<f64>()
            / 3f64.ln();
        mean_of(f, &[1, 2, 3]) / inside * entropy.powf(0.7) - mean_of(f, &[0]) / outside
    });
    let found = choose::by_energy_ratio(&a, &b, 0.01, D_SAE).unwrap();
    same(&found, &|f| {
        ((sum(&ra, f) / 300.0 + 0.01) / (sum(&rb, f) / 200.0 + 0.01))
            .ln()
            .abs()
    });
    // SAIF: pairs.
    let (with, without) = (rows(31, 50), rows(32, 50));
    let mut pairs = Features::new();
    for row in 0..50 {
        only_in(
            with.0.row(row).unwrap(),
            without.0.row(row).unwrap(),
            &mut pairs,
        )
        .unwrap();
    }
    let mut statistics = Accumulator::new(Collect::all(&sae)).unwrap();
    statistics.add_all(&pairs, &[]).unwrap();
    same(&choose::by_sensitivity(&statistics, D_SAE), &|f| {
        let both = with.2.iter().zip(&without.2);
        both.filter(|(with, without)| with.values[f] != 0.0 && without.values[f] == 0.0)
            .count() as f64
            / 50.0
    });
    // What they give, plans take, with the statistics that relative strengths need.
    let chosen = choose::features(&choose::by_correlation(&a, 3).unwrap());
    let edit = sae::steer::Edit::on(
        sae::steer::Target::Features(chosen.clone()),
        sae::steer::Rule::Set,
        sae::steer::Strength::corpus_max(1.0),
    );
    let plan = sae::steer::Plan::new("chosen")
        .edit(edit)
        .statistics(a.statistics(&chosen));
    sae.compile_plan(&plan).unwrap();
    refused(
        choose::by_correlation(&statistics, 1),
        Code::InvalidArgument,
        "labels",
    );
    refused(
        choose::by_information(&statistics, 1),
        Code::InvalidArgument,
        "conditions",
    );
    let some = Accumulator::new(Collect::features(&sae, &[1])).unwrap();
    refused(
        choose::crisp(&a, &some, 1, 1.0, 1),
        Code::InvalidArgument,
        "same features",
    );
}

#[test]
fn measures_of_whole_snapshots() {
    let sae = model(1, 0.1, None);
    let (features, infos, reference) = rows(41, 400);
    let mut statistics = Accumulator::new(Collect::all(&sae).histogram(Bins::Linear {
        width: 0.5,
        count: 16,
    }))
    .unwrap();
    statistics.add_all(&features, &infos).unwrap();
    let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
    let bits: f64 = (0..D_SAE)
        .map(|f| {
            let active: Vec<f64> = plain::column(&reference, f)
                .into_iter()
                .filter(|&x| x != 0.0)
                .collect();
            let p = active.len() as f64 / 400.0;
            let share = |bin: usize| {
                active
                    .iter()
                    .filter(|x| ((x.abs() / 0.5) as usize).min(15) == bin)
                    .count() as f64
                    / active.len().max(1) as f64
            };
            term(p) + term(1.0 - p) + p * (0..16).map(|bin| term(share(bin))).sum::<f64>()
        })
        .sum();
    close(statistics.description_length().unwrap(), bits, 1e-12);
    let l0 = features.len() as f64 / 400.0;
    close(
        statistics.description_length_bound(32.0),
        l0 * (32.0 + (D_SAE as f64).log2()),
        1e-12,
    );
    let above = (0..D_SAE)
        .filter(|&f| {
            plain::column(&reference, f)
                .iter()
                .filter(|&&x| x != 0.0)
                .count()
                > 200
        })
        .count();
    close(
        statistics.share_above(0.5),
        above as f64 / D_SAE as f64,
        1e-15,
    );
    // One pooled row per stream.
    let mut pooled = Features::new();
    let mut expected = [0u64; D_SAE];
    for stream in 0..3 {
        let mut pool = Pool::new(D_SAE).unwrap();
        for (row, info) in features.iter().zip(&infos) {
            if info.id.stream == stream {
                pool.add(row).unwrap();
            }
        }
        pool.finish(Pooling::Max, Some(0.0), &mut pooled).unwrap();
        for &feature in pooled.row(stream as usize).unwrap().indices {
            expected[feature as usize] += 1;
        }
    }
    let mut streams = Accumulator::new(Collect::all(&sae)).unwrap();
    streams.add_all(&pooled, &[]).unwrap();
    for feature in 0..D_SAE as u32 {
        let fired = statistics.feature(feature).unwrap().fired;
        let streams_with = expected[feature as usize];
        let found = statistics.fires_per_stream(&streams, feature);
        assert_eq!(
            found,
            (streams_with > 0).then(|| fired as f64 / streams_with as f64)
        );
    }
    let json = statistics.to_json(|feature| (feature == 0).then_some("first"));
    assert_eq!(json["rows"], 400);
    assert_eq!(json["features"][0]["label"], "first");
    assert_eq!(json["features"].as_array().unwrap().len(), D_SAE - 1);
}

#[test]
fn coverage_and_the_strongest_feature() {
    use sae::monitor::measures::{coverage, strongest};
    let sae = model(1, 0.1, None);
    let thresholds = [0.0, 1.0, 2.5];
    let (features, infos, reference) = rows(71, 300);
    // Properties: feature 2 above 1, whether the row is even, nothing at all.
    let property = |which: usize, row: usize| match which {
        0 => reference[row].values[2] > 1.0,
        1 => row.is_multiple_of(2),
        _ => false,
    };
    let mut expected = 0.0;
    let mut properties = Vec::new();
    for which in 0..3 {
        let mut one = Accumulator::new(Collect::all(&sae).thresholds(&thresholds)).unwrap();
        let infos: Vec<RowInfo> = (0..300)
            .map(|row| infos[row].label(f64::from(u8::from(property(which, row)))))
            .map(|info| RowInfo {
                condition: 0,
                ..info
            })
            .collect();
        one.add_all(&features, &infos).unwrap();
        let mut best: f64 = 0.0;
        for f in 0..D_SAE {
            for t in thresholds {
                let hit = |row: &usize| reference[*row].values[f] > f64::from(t);
                let count =
                    |test: &dyn Fn(usize) -> bool| (0..300).filter(|&row| test(row)).count() as f64;
                let tp = count(&|row| hit(&row) && property(which, row));
                let wrong = count(&|row| hit(&row) != property(which, row));
                best = best.max(if tp + wrong > 0.0 {
                    2.0 * tp / (2.0 * tp + wrong)
                } else {
                    0.0
                });
            }
        }
        close(one.best_f1().unwrap().2, best, 1e-15);
        expected += best / 3.0;
        properties.push(one);
    }
    assert_eq!(properties[0].best_f1().unwrap().0, 2);
    close(properties[0].confusion(2, 1).unwrap().accuracy(), 1.0, 0.0);
    close(coverage(&properties), expected, 1e-15);
    assert_eq!(coverage(&[]), 0.0);
    for (row, dense) in features.iter().zip(&reference) {
        let active = (0..D_SAE).filter(|&f| dense.values[f] != 0.0);
        let best = active.fold(None, |best: Option<usize>, f| match best {
            Some(old) if dense.values[f] <= dense.values[old] => Some(old),
            _ => Some(f),
        });
        assert_eq!(strongest(row).map(|one| one.0 as usize), best);
    }
}

/// Against all pairs, one by one.
#[test]
fn monosemanticity_agrees_with_all_pairs() {
    use sae::monitor::measures::Monosemanticity;
    let mut random = Random(81);
    let mut measure = Monosemanticity::new(&[3, 1], 5).unwrap();
    let mut seen: Vec<(Vec<f64>, [f64; 2])> = Vec::new();
    for number in 0..40 {
        let embedding: Vec<f32> = (0..5).map(|_| random.number() + 0.5).collect();
        let values = [1, 3].map(|f| {
            if random.below(3) > 0 {
                random.number().abs() + f as f32
            } else {
                0.0
            }
        });
        let mut features = Features::new();
        for (feature, value) in [(1, values[0]), (3, values[1])] {
            if value > 0.0 {
                features.push(feature, value).unwrap();
            }
        }
        features
            .end_row(if number == 7 {
                RowStatus::NonFinite
            } else {
                RowStatus::Ok
            })
            .unwrap();
        measure.add(features.row(0).unwrap(), &embedding).unwrap();
        if number != 7 {
            let length = embedding
                .iter()
                .map(|&x| f64::from(x).powi(2))
                .sum::<f64>()
                .sqrt();
            let unit = embedding.iter().map(|&x| f64::from(x) / length).collect();
            seen.push((unit, values.map(f64::from)));
        }
    }
    for (slot, feature) in [1, 3].into_iter().enumerate() {
        let (mut weighted, mut weights) = (0.0, 0.0);
        for (i, (a, x)) in seen.iter().enumerate() {
            for (b, y) in &seen[i + 1..] {
                let weight = x[slot] * y[slot];
                weighted += weight * a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                weights += weight;
            }
        }
        close(measure.score(feature).unwrap(), weighted / weights, 1e-12);
    }
    assert_eq!(measure.score(2), None);
    refused(
        measure.add(
            Features::new().row(0).unwrap_or(sae::FeaturesRow {
                indices: &[],
                values: &[],
                status: RowStatus::Ok,
            }),
            &[1.0],
        ),
        Code::Length,
        "embedding",
    );
}

/// Global FVU and the others against two passes in plain f64.
#[test]
fn quality_agrees_with_two_passes() {
    let sae = model(5, 0.1, None);
    let mut random = Random(9);
    let n = 300;
    let values: Vec<f32> = (0..n * D_IN)
        .map(|at| random.number() + 20.0 * f32::from(u8::from(at % D_IN == 3)))
        .collect();
    let (features, decoded) = library::encode_decode(&sae, library::rows(&values, D_IN));
    let mut quality = Quality::new(&sae).unwrap();
    let mean: Vec<f64> = (0..D_IN)
        .map(|c| (0..n).map(|r| f64::from(values[r * D_IN + c])).sum::<f64>() / n as f64)
        .collect();
    let narrow: Vec<f32> = mean.iter().map(|&x| x as f32).collect();
    let mut known = Quality::about(&sae, &narrow).unwrap();
    let (mut error, mut total, mut known_total, mut cosine, mut ratio, mut yy, mut xy) =
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    let (mut zf, mut afa) = (0.0, 0.0);
    let bias: Vec<f64> = sae.parts().decoder_bias.clone().unwrap();
    for row in 0..n {
        let at = row * D_IN..(row + 1) * D_IN;
        let found = features.row(row).unwrap();
        quality
            .add(&values[at.clone()], found, &decoded[at.clone()])
            .unwrap();
        known
            .add(&values[at.clone()], found, &decoded[at.clone()])
            .unwrap();
        let x: Vec<f64> = values[at.clone()].iter().map(|&x| x.into()).collect();
        let y: Vec<f64> = decoded[at].iter().map(|&x| x.into()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let minus =
            |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        let square = |a: &[f64]| dot(a, a);
        error += square(&minus(&x, &y));
        total += square(&minus(&x, &mean));
        known_total += square(&minus(
            &x,
            &narrow.iter().map(|&x| x.into()).collect::<Vec<f64>>(),
        ));
        cosine += dot(&x, &y) / square(&x).sqrt() / square(&y).sqrt();
        ratio += square(&y).sqrt() / square(&x).sqrt();
        (yy, xy) = (yy + square(&y), xy + dot(&x, &y));
        let ff: f64 = found
            .values
            .iter()
            .map(|&f| f64::from(f) * f64::from(f))
            .sum();
        zf += (square(&minus(&y, &bias)) - ff) / ff;
        afa += (ff.sqrt() - square(&minus(&x, &bias)).sqrt()).powi(2);
    }
    let found = quality.summary();
    let n_rows = n as f64;
    close(found.fvu, error / total, 1e-12);
    close(known.summary().fvu, error / known_total, 1e-12);
    close(found.explained_variance, 1.0 - error / total, 1e-12);
    close(found.mse, error / n_rows / D_IN as f64, 1e-13);
    close(found.cosine, cosine / n_rows, 1e-13);
    close(found.norm_ratio, ratio / n_rows, 1e-13);
    close(found.reconstruction_bias, yy / xy, 1e-13);
    close(found.zf_deviation, zf / n_rows, 1e-12);
    close(found.afa_loss, afa / n_rows, 1e-12);
    close(found.l0, features.len() as f64 / n_rows, 1e-13);
    close(
        found.l1,
        features.values().iter().map(|&f| f64::from(f)).sum::<f64>() / n_rows,
        1e-13,
    );
    // A bad row is counted, and that is all.
    let nan = [f32::NAN; D_IN];
    quality
        .add(&nan, features.row(0).unwrap(), &decoded[..D_IN])
        .unwrap();
    let after = quality.summary();
    assert_eq!((after.non_finite, after.fvu), (1, found.fvu));
    refused(
        quality.add(&nan[1..], features.row(0).unwrap(), &decoded[..D_IN]),
        Code::Length,
        "row",
    );
    refused(
        Quality::about(&sae, &nan),
        Code::InvalidArgument,
        "mean row",
    );
}

/// An error that is linear in the row is found, and rows beyond it stand out.
#[test]
fn an_error_model_finds_a_linear_error() {
    let mut random = Random(77);
    let mut fit = ErrorFit::new(4).unwrap();
    let truth = [0.5, -1.0, 2.0, 0.25];
    let row = |random: &mut Random| -> Vec<f32> { (0..4).map(|_| random.number()).collect() };
    let quality = |x: &[f32]| {
        let squared = 20.0
            + x.iter()
                .zip(truth)
                .map(|(&x, a)| f64::from(x) * a)
                .sum::<f64>();
        // A quality with this error norm, by way of a real one.
        let mut made = sae::monitor::RowQuality::default();
        made.error_norm = squared.sqrt();
        made.finite = true;
        made
    };
    for _ in 0..200 {
        let x = row(&mut random);
        fit.add(&x, &quality(&x)).unwrap();
    }
    let model = fit.solve(1e-12).unwrap();
    for (found, truth) in model.weights.iter().zip(truth) {
        close(*found, truth, 1e-6);
    }
    close(model.bias, 20.0, 1e-6);
    assert!(model.r_squared > 0.999_999);
    let mut noisy = ErrorFit::new(4).unwrap();
    for _ in 0..2000 {
        let x = row(&mut random);
        let mut found = quality(&x);
        found.error_norm *= 1.0 + 0.01 * f64::from(random.number());
        noisy.add(&x, &found).unwrap();
    }
    let model = noisy.solve(1e-12).unwrap();
    let x = row(&mut random);
    let mut found = quality(&x);
    assert!(model.score(&x, &found).abs() < 4.0);
    found.error_norm *= 1.5;
    assert!(model.score(&x, &found) > 10.0);
    refused(
        ErrorFit::new(4).unwrap().solve(0.0),
        Code::InvalidArgument,
        "more than 5",
    );
}

/// Quality in parts, as snapshots, merged: the bits of one pass; the numbers of two passes in f64.
#[test]
fn snapshots_of_quality_come_back_and_merge() {
    let sae = model(5, 0.1, None);
    let other = model(5, 0.2, None);
    let mut random = Random(31);
    let values: Vec<f32> = (0..60 * D_IN).map(|_| random.number()).collect();
    let rows = library::rows(&values, D_IN);
    let (features, decoded) = library::encode_decode(&sae, rows);
    let mut fit = ErrorFit::new(D_IN).unwrap();
    let mut halves = [ErrorFit::new(D_IN).unwrap(), ErrorFit::new(D_IN).unwrap()];
    let mut first = Quality::new(&sae).unwrap();
    first
        .add_all(rows, &features, &decoded, &mut |at, quality| {
            let row = &values[at * D_IN..(at + 1) * D_IN];
            fit.add(row, quality).unwrap();
            halves[at % 2].add(row, quality).unwrap();
        })
        .unwrap();
    let errors = fit.solve(1e-9).unwrap();
    let [mut one, two] = halves;
    one.merge(&two).unwrap();
    let merged = one.solve(1e-9).unwrap();
    for (a, b) in merged.weights.iter().zip(&errors.weights) {
        close(*a, *b, 1e-9);
    }
    refused(
        one.merge(&ErrorFit::new(3).unwrap()),
        Code::Length,
        "values per row",
    );
    let bytes = errors.to_bytes().unwrap();
    assert_eq!(bytes.len(), errors.snapshot_len());
    assert_eq!(ErrorModel::from_bytes(&bytes).unwrap(), errors);
    assert_eq!(errors.to_json()["weights"].as_array().unwrap().len(), D_IN);

    let mean = vec![0.125; D_IN];
    let makes: [&dyn Fn() -> Quality; 3] = [
        &|| Quality::new(&sae).unwrap(),
        &|| Quality::about(&sae, &mean).unwrap(),
        &|| {
            let mut quality = Quality::new(&sae).unwrap();
            quality.set_error_model(errors.clone(), 0.5).unwrap();
            quality
        },
    ];
    for (which, make) in makes.iter().enumerate() {
        let fed = |range: std::ops::Range<usize>| {
            let mut quality = make();
            for row in range {
                let at = row * D_IN..(row + 1) * D_IN;
                let found = features.row(row).unwrap();
                quality
                    .add(&values[at.clone()], found, &decoded[at])
                    .unwrap();
            }
            quality
        };
        let whole = fed(0..60);
        let mut back = Quality::from_bytes(&fed(23..60).to_bytes().unwrap(), &sae).unwrap();
        back.merge(&Quality::from_bytes(&fed(0..23).to_bytes().unwrap(), &sae).unwrap())
            .unwrap();
        let bytes = whole.to_bytes().unwrap();
        assert_eq!(bytes.len(), whole.snapshot_len());
        assert_eq!(back.to_bytes().unwrap(), bytes, "{which}");
        assert_eq!(back.summary(), whole.summary());
        let json = whole.to_json();
        assert_eq!(json["fvu"], whole.summary().fvu);
        assert_eq!(json["anomalous"].is_u64(), which == 2);
        // Halves give the numbers of their exact floats.
        let halves: Vec<u8> = values
            .iter()
            .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
            .collect();
        let narrow = Rows::from_bytes(&halves, sae::Dtype::F16, 60, D_IN, D_IN * 2).unwrap();
        let mut by_halves = make();
        by_halves
            .add_all(narrow, &features, &decoded, &mut |_, _| {})
            .unwrap();
        let mut by_floats = make();
        let rounded: Vec<f32> = values
            .iter()
            .map(|&x| half::f16::from_f32(x).to_f32())
            .collect();
        by_floats
            .add_all(
                library::rows(&rounded, D_IN),
                &features,
                &decoded,
                &mut |_, _| {},
            )
            .unwrap();
        assert_eq!(by_halves.summary(), by_floats.summary());

        // What is wrong with bytes is told, whatever it is.
        for cut in 0..bytes.len() {
            Quality::from_bytes(&bytes[..cut], &sae).unwrap_err();
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 4;
            Quality::from_bytes(&broken, &sae).unwrap_err();
        }
        refused(
            Quality::from_bytes(&bytes, &other),
            Code::InvalidValue,
            "model of the snapshot",
        );
        // And with the right check sum: more anomalies than rows, too many rows, unknown flags.
        for (at, value) in [(56, 61u64), (32, 1 << 60), (24, 7), (28, 1)] {
            let mut broken = bytes.clone();
            broken[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let end = broken.len() - 4;
            let check = crc32fast::hash(&broken[..end]).to_le_bytes();
            broken[end..].copy_from_slice(&check);
            Quality::from_bytes(&broken, &sae).unwrap_err();
        }
    }
    // Anomalies against plain f64; removing a row takes its anomaly back.
    let mut quality = makes[2]();
    let mut expected = 0;
    for row in 0..60 {
        let at = row * D_IN..(row + 1) * D_IN;
        let (x, y) = (&values[at.clone()], &decoded[at]);
        let found = quality.add(x, features.row(row).unwrap(), y).unwrap();
        let squared: f64 = x
            .iter()
            .zip(y)
            .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
            .sum();
        let predicted: f64 = x
            .iter()
            .zip(&errors.weights)
            .map(|(&x, a)| f64::from(x) * a)
            .sum();
        let score = (squared - predicted - errors.bias) / errors.deviation;
        close(found.anomaly, score, 1e-9);
        expected += u64::from(score > 0.5);
    }
    assert!(expected > 3 && quality.summary().anomalous == expected);
    let mut undone = quality.clone();
    for row in 0..60 {
        let at = row * D_IN..(row + 1) * D_IN;
        undone
            .remove(
                &values[at.clone()],
                features.row(row).unwrap(),
                &decoded[at],
            )
            .unwrap();
    }
    assert_eq!(undone.summary(), makes[2]().summary());
    refused(
        makes[0]().merge(&quality),
        Code::InvalidArgument,
        "error model",
    );
    refused(
        quality.set_error_model(errors.clone(), 1.0),
        Code::InvalidArgument,
        "before the first row",
    );
    let mut fresh = makes[0]();
    refused(
        fresh.set_error_model(errors.clone(), f64::NAN),
        Code::InvalidArgument,
        "finite",
    );
    let mut narrow = errors;
    narrow.weights.pop();
    refused(fresh.set_error_model(narrow, 1.0), Code::Length, "weights");
    refused(
        fresh.add_all(rows, &features, &decoded[1..], &mut |_, _| {}),
        Code::Length,
        "reconstructions",
    );
    refused(
        fresh.add_all(rows.part(0, 3), &features, &decoded, &mut |_, _| {}),
        Code::Length,
        "rows of features",
    );
}

#[test]
fn metrics_fill_a_buffer_and_say_what_they_need() {
    let sae = model(1, 0.1, None);
    let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
    let watched = rules.features().to_vec();
    let options = MonitorOptions::default().collect(Collect::features(&sae, &watched));
    let mut monitor = Monitor::new(rules, &options).unwrap();
    let (features, infos, _) = rows(51, 30);
    let infos: Vec<RowInfo> = infos
        .iter()
        .map(|info| RowInfo {
            condition: 0,
            ..*info
        })
        .collect();
    let mut events = 0;
    monitor
        .observe_features(&features, &infos, &mut |_| events += 1)
        .unwrap();
    let needed = monitor.open_metrics(&mut []);
    let mut buffer = vec![0; needed];
    assert_eq!(monitor.open_metrics(&mut buffer), needed);
    let text = String::from_utf8(buffer).unwrap();
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("sae_rows_total 30\n"));
    assert!(text.contains("feature=\"4\",label=\"say \\\"hi\\\"\""));
    // Every sample belongs to the family whose head stands above it, each family stands once.
    let (mut family, mut families) = (String::new(), std::collections::BTreeSet::new());
    let mut counted = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_string();
            assert!(families.insert(family.clone()));
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line}");
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            if line.starts_with("sae_events_total") {
                counted += value as u64;
            }
        }
    }
    assert_eq!(counted, events);
    let mut short = [7; 10];
    assert_eq!(monitor.open_metrics(&mut short), needed);
    assert_eq!(&short[..], &text.as_bytes()[..10]);
}

/// Pages of the process that are in memory, where the system tells.
fn resident_pages() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

/// Many rows, constant memory, and the counts that they must give. `SAE_SOAK_ROWS` asks for more:
/// `SAE_SOAK_ROWS=10000000 cargo test --release --test monitor soak`.
#[test]
fn soak_keeps_its_memory() {
    let asked = std::env::var("SAE_SOAK_ROWS").ok();
    let count: u64 = asked.as_ref().map_or(200_000, |text| text.parse().unwrap());
    let sae = model(1, 0.1, None);
    let rules = Arc::new(sae.compile_rules(&some_rules()).unwrap());
    let options = MonitorOptions::default()
        .streams(100)
        .pending_rows(2)
        .collect(everything(&sae));
    let mut monitor = Monitor::new(rules, &options).unwrap();
    let bytes = monitor.bytes();
    let (features, _, reference) = rows(61, 500);
    let batch: Vec<RowInfo> = (0..500)
        .map(|row| RowInfo::new(row % 150, row / 150))
        .collect();
    let mut events = 0u64;
    let mut early = None;
    for round in 0..count / 500 {
        if round == count / 5_000 {
            early = resident_pages();
        }
        monitor
            .observe_features(&features, &batch, &mut |_| events += 1)
            .unwrap();
    }
    assert_eq!(monitor.bytes(), bytes);
    // The process's own memory, when nothing else runs in it.
    if let (Some(_), Some(early), Some(late)) = (asked, early, resident_pages()) {
        println!("{early} pages resident after a tenth of the rows, {late} after all");
        assert!(late <= early + 64, "{early} pages became {late}");
    }
    assert_eq!(monitor.counts().rows, count / 500 * 500);
    assert_eq!(monitor.counts().events, events);
    assert!(monitor.counts().evicted > 0);
    for feature in 0..D_SAE {
        let one = monitor
            .statistics()
            .unwrap()
            .feature(feature as u32)
            .unwrap();
        let values = plain::column(&reference, feature);
        // Not a bit of drift after any number of rows.
        close(one.mean, plain::mean(&values), 1e-14);
        close(one.variance, plain::variance(&values), 1e-13);
    }
}
