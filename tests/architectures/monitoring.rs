//! Monitors are built on composed models as on any other.

use super::steering::models;
use super::*;
use sae::RowStatus;
use sae::monitor::{Collect, Event, Monitor, MonitorOptions, Pooling, RowInfo, Rule, Rules};
use std::sync::Arc;

const D: usize = 6;
const ROWS: usize = 60;

/// What a rule makes of a row.
type Score<'s> = &'s dyn Fn(&[f32]) -> f64;

/// Rules, events and statistics of each model, on rows and on features that were encoded before,
/// against plain loops over the dense features.
#[test]
fn composed_models_are_watched_like_any_other() {
    let mut random = Random(3);
    let mut inputs: Vec<f32> = (0..ROWS * D).map(|_| random.number()).collect();
    inputs[7 * D] = f32::NAN;
    for (name, sae) in models() {
        let last = sae.d_sae() as u32 - 1;
        let watched = [0, 3, last];
        let rules = Rules::new("composed")
            .rule(Rule::threshold("high", &[3], 0.25))
            .rule(Rule::threshold("any", &watched, 0.75))
            .rule(Rule::linear(
                "sum",
                &[(0, 1.0), (last, 0.5)],
                -0.5,
                Pooling::Last,
                0.25,
            ));
        let rules = Arc::new(sae.compile_rules(&rules).unwrap());
        let all = rows(&inputs, D);
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut features = Features::new();
        sae.encode(all, &mut scratch, &mut features).unwrap();
        let dense = dense(&features, sae.d_sae());
        let infos: Vec<RowInfo> = (0..ROWS).map(|row| RowInfo::new(1, row as u64)).collect();

        let mut results = Vec::new();
        for collect in [
            None,
            Some(Collect::features(&sae, &watched)),
            Some(Collect::all(&sae)),
        ] {
            for encoded in [false, true] {
                let mut options = MonitorOptions::default();
                options.collect = collect.clone();
                let mut monitor = Monitor::new(rules.clone(), &options).unwrap();
                let mut events = Vec::new();
                let mut on_event = |event: &Event| events.push(*event);
                let result = match encoded {
                    true => monitor.observe_features(&features, &infos, &mut on_event),
                    false => monitor.observe(&sae, all, &infos, &mut scratch, &mut on_event),
                };
                result.unwrap_or_else(|error| panic!("{name}: {error}"));
                let counts = monitor.counts();
                assert_eq!((counts.rows, counts.non_finite), (ROWS as u64, 1), "{name}");
                for &feature in monitor.statistics().iter().flat_map(|_| &watched) {
                    let found = monitor.statistics().unwrap().feature(feature).unwrap();
                    let of = |row: &Vec<f32>| row[feature as usize];
                    let fired = dense.iter().filter(|row| of(row) != 0.0).count();
                    assert_eq!(found.fired, fired as u64, "{name}, feature {feature}");
                    let sum: f64 = dense.iter().map(|row| f64::from(of(row))).sum();
                    let mean = sum / (ROWS - 1) as f64;
                    let error = (found.mean - mean).abs();
                    assert!(error <= 1e-12, "{name}, feature {feature}: {error}");
                }
                results.push(events);
            }
        }
        // Each rule by a plain loop: an alert where its score rises above its threshold.
        let scores: [Score<'_>; 3] = [
            &|row| row[3].into(),
            &|row| {
                watched
                    .iter()
                    .map(|&f| f64::from(row[f as usize]))
                    .fold(0.0, f64::max)
            },
            &|row| f64::from(row[0]) + 0.5 * f64::from(row[last as usize]) - 0.5,
        ];
        let mut expected = Vec::new();
        let mut on = [false; 3];
        for (position, row) in dense.iter().enumerate() {
            if features.row(position).unwrap().status != RowStatus::Ok {
                continue;
            }
            for (rule, (score, over)) in scores.iter().zip([0.25, 0.75, 0.25]).enumerate() {
                let above = score(row) > over;
                if above && !on[rule] {
                    expected.push((rule, position as u64));
                }
                on[rule] = above;
            }
        }
        assert!(expected.len() > 3, "{name}: {expected:?}");
        for events in &results {
            let found = events.iter();
            let found = found.map(|event| (event.rule as usize, event.row.position));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
            assert_eq!(events, &results[0], "{name}");
        }
    }
}

/// Features of Lorsa and of mixtures of transforms, which no `Sae` encodes, are watched as they come.
#[test]
fn features_of_other_kinds_of_models_are_watched() {
    let mut random = Random(4);
    let watch = |features: &Features, rules: sae::monitor::CompiledRules, collect: Collect| {
        let mut options = MonitorOptions::default();
        options.collect = Some(collect);
        let mut monitor = Monitor::new(Arc::new(rules), &options).unwrap();
        let infos: Vec<RowInfo> = (0..features.rows() as u64)
            .map(|row| RowInfo::new(1, row))
            .collect();
        let mut alerts = Vec::new();
        let mut on_event = |event: &Event| alerts.push(event.row.position);
        monitor
            .observe_features(features, &infos, &mut on_event)
            .unwrap();
        let fired = monitor.statistics().unwrap().feature(1).unwrap().fired;
        (alerts, fired)
    };
    // Rows in which feature 1 rises above 0, and in which it fires.
    let expected = |features: &Features| {
        let fires: Vec<bool> = features
            .iter()
            .map(|row| row.indices.contains(&1))
            .collect();
        let rises = |row: usize| fires[row] && (row == 0 || !fires[row - 1]);
        let alerts: Vec<u64> = (0..fires.len())
            .filter(|&row| rises(row))
            .map(|row| row as u64)
            .collect();
        (alerts, fires.iter().filter(|&&fires| fires).count() as u64)
    };
    let rules = Rules::new("one").rule(Rule::threshold("fires", &[1], 0.0));
    let beyond = Rules::new("none").rule(Rule::threshold("none", &[100_000], 0.0));

    let of = super::lorsa::reference(2);
    let parts = super::lorsa::parts(&of, Activation::Relu, Stored::Rows);
    let lorsa = sae::Lorsa::from_parts(parts).unwrap();
    let inputs: Vec<f32> = (0..12 * lorsa.d_in()).map(|_| random.number()).collect();
    let mut cache = sae::LorsaCache::new(&lorsa, 12).unwrap();
    let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
    let all = rows(&inputs, lorsa.d_in());
    lorsa
        .encode(all, &mut cache, &mut scratch, &mut features)
        .unwrap();
    let compiled = lorsa.compile_rules(&rules).unwrap();
    let found = watch(&features, compiled, lorsa.collect_all());
    assert_eq!(found, expected(&features));
    assert!(found.1 > 0);
    assert!(lorsa.compile_rules(&beyond).is_err());

    let bytes = super::files::MoltFile::new().bytes();
    let molt = super::files::open_molt(&bytes, "relu", sae::Level::best());
    let inputs: Vec<f32> = (0..12 * molt.d_in()).map(|_| random.number()).collect();
    let mut scratch = molt.scratch().unwrap();
    let all = rows(&inputs, molt.d_in());
    molt.encode(all, &mut scratch, &mut features).unwrap();
    let compiled = molt.compile_rules(&rules).unwrap();
    let found = watch(&features, compiled, molt.collect_features(&[1]));
    assert_eq!(found, expected(&features));
    assert!(found.1 > 0);
    assert!(molt.compile_rules(&beyond).is_err());
}
