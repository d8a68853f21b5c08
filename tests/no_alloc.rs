//! The hot path allocates nothing: encode, decode and readout, counted by an allocator, for every
//! architecture of the fixtures.

#[path = "../benches/common/allocations.rs"]
mod allocations;
mod library;
mod reference;

use library::parts::{Stored, matrix};
use library::rows;
use sae::model::{
    Activation, Attention, Ensemble, Matrix, Pairs, Parts, Pursuit, Rank, Rotary, Router,
    ScreenKind, Target, Targets, Transform, Transforms,
};
use sae::steer::{Batch, Edit, Outcome, Plan, Report, SteerScratch};
use sae::{Features, Level, Lorsa, LorsaCache, Molt, Part, RowStatus, RowsMut, Sae, Scratch};

/// Runs `call` and returns how often this thread asked for memory in it.
fn count<T>(call: impl FnOnce() -> T) -> (u64, T) {
    let before = allocations::of_this_thread();
    let result = call();
    (allocations::of_this_thread() - before, result)
}

#[test]
fn the_allocator_counts() {
    assert_eq!(count(|| 1 + 1).0, 0);
    let (allocations, values) = count(|| {
        let mut values: Vec<u64> = Vec::with_capacity(1);
        values.extend(0..100);
        values
    });
    assert_eq!(values.len(), 100);
    assert!(allocations >= 2, "one, and growing it: {allocations}");
}

#[test]
fn encode_decode_and_readout_allocate_nothing() {
    let mut models = 0;
    for case in reference::fixture::cases() {
        let open = || library::open(&case.checkpoint, &case.given, Level::best());
        check(&case.name, &open(), &case.rows);
        check(
            &format!("{}, prepared", case.name),
            &open()
                .with_screen_options(ScreenKind::Proven.into())
                .prepare()
                .unwrap(),
            &case.rows,
        );
        models += 2;
    }
    println!("{models} models");
    assert!(models > 80);
}

fn check(name: &str, sae: &Sae<'_>, values: &[f32]) {
    let rows = rows(values, sae.d_in()).part(0, 8);
    let n = rows.rows();
    let mut scratch = Scratch::new(sae).unwrap();
    // With room for everything, the first call is as quiet as any.
    let mut features = Features::with_capacity(n, n * sae.d_sae()).unwrap();
    let (allocations, encoded) = count(|| sae.encode(rows, &mut scratch, &mut features));
    encoded.unwrap();
    assert_eq!(allocations, 0, "{name}: first encode");
    // Grown on demand, it is the second.
    let mut features = Features::new();
    sae.encode(rows, &mut scratch, &mut features).unwrap();
    let (allocations, encoded) = count(|| sae.encode(rows, &mut scratch, &mut features));
    encoded.unwrap();
    assert_eq!(allocations, 0, "{name}: second encode");

    let (half, mut steady) = (sae.d_sae() / 2, 0);
    let (mut low, mut high) = (Part::new(), Part::new());
    for _ in 0..2 {
        let (allocations, done) = count(|| {
            sae.encode_part(rows, 0..half, &mut scratch, &mut low)?;
            sae.encode_part(rows, half..sae.d_sae(), &mut scratch, &mut high)?;
            sae.encode_finish(&[&low, &high], &mut scratch, &mut features)
        });
        done.unwrap();
        steady = allocations;
    }
    assert_eq!(steady, 0, "{name}: second encode in parts");

    let mut decoded = vec![0.0; n * sae.d_out()];
    let inputs = sae.needs_inputs_to_decode().then_some(rows);
    let (allocations, done) = count(|| sae.decode(&features, inputs, &mut scratch, &mut decoded));
    done.unwrap();
    assert_eq!(allocations, 0, "{name}: decode");

    let set = sae.compile_set(&[3, 0, 1, 3]).unwrap();
    let mut values = vec![0.0; n * set.len()];
    let mut status = vec![RowStatus::Ok; n];
    let (allocations, done) =
        count(|| sae.readout(&set, rows, &mut scratch, &mut values, &mut status));
    done.unwrap();
    assert_eq!(allocations, 0, "{name}: readout");
    let (allocations, done) =
        count(|| sae.readout_one(1, rows, &mut scratch, &mut values[..n], &mut status));
    done.unwrap();
    assert_eq!(allocations, 0, "{name}: readout of one");
    for (row, value) in values[..n].iter().enumerate() {
        assert_eq!(*value, features_value(&features, row, 1), "{name}");
    }
}

/// Watching rows, proposing, committing, rolling back, adding statistics, emitting and reading
/// events, and writing metrics, from the first row on.
#[test]
fn monitoring_allocates_nothing() {
    use sae::monitor::{
        Bins, Collect, EventRing, Monitor, MonitorOptions, Pooling, RowInfo, Rule, Rules,
    };
    use std::sync::Arc;
    let mut events = 0;
    for case in reference::fixture::cases() {
        let sae = library::open(&case.checkpoint, &case.given, Level::best());
        let rows = rows(&case.rows, sae.d_in()).part(0, 8);
        let n = rows.rows();
        let rules = Rules::new("all kinds")
            .rule(Rule::threshold("t", &[0, 1], 0.0).limit(2, 5))
            .rule(Rule::coactivation("c", &[1, 2, 3], 1, 4))
            .rule(Rule::linear("l", &[(0, 1.0)], 0.5, Pooling::Max, 0.0));
        let rules = Arc::new(sae.compile_rules(&rules).unwrap());
        let all = Collect::all(&sae)
            .histogram(Bins::USUAL)
            .top(2)
            .half_life(9.0)
            .label();
        for collect in [None, Some(all.cooccurrence(&[0, 1, 2]))] {
            let ring = Arc::new(EventRing::new(2).unwrap());
            let mut options = MonitorOptions::default().streams(2).pending_rows(n);
            options.ring = Some(ring.clone());
            options.pending_features = sae.d_sae();
            options.collect = collect;
            let mut monitor = Monitor::new(rules.clone(), &options).unwrap();
            let mut scratch = Scratch::new(&sae).unwrap();
            if case.name.contains("ensemble") {
                // A scratch for ensembles grows with the first row.
                let mut features = Features::new();
                sae.encode(rows, &mut scratch, &mut features).unwrap();
            }
            let infos: Vec<RowInfo> = (0..n as u64)
                .map(|row| RowInfo::new(row % 3, row))
                .collect();
            let mut buffer = [0; 4096];
            let (allocations, ()) = count(|| {
                let on_event = &mut |_: &_| events += 1;
                monitor
                    .observe(&sae, rows, &infos, &mut scratch, on_event)
                    .unwrap();
                monitor.end_stream(0);
                monitor.propose(&sae, rows, &[], &mut scratch).unwrap();
                monitor.commit(0, n / 2, on_event);
                monitor.rollback(0, n);
                monitor.open_metrics(&mut buffer);
                while ring.pop().is_some() {}
            });
            assert_eq!(allocations, 0, "{}: monitoring", case.name);
        }
    }
    assert!(events > 100, "{events}");
}

fn features_value(features: &Features, row: usize, feature: u32) -> f32 {
    let row = features.row(row).unwrap();
    let position = row.indices.iter().position(|&index| index == feature);
    position.map_or(0.0, |position| row.values[position])
}

/// Vectors of numbers that differ.
fn vectors(count: usize, width: usize) -> Vec<Vec<f64>> {
    let number = |i: usize, j: usize| ((i * 7 + j * 13) % 11) as f64 / 8.0 - 0.5;
    let vector = |i| (0..width).map(|j| number(i, j)).collect();
    (0..count).map(vector).collect()
}

fn weights(count: usize, width: usize) -> Matrix<'static> {
    matrix("weights", &vectors(count, width), Stored::Rows)
}

const WIDTH: usize = 12;
const MEMBER: usize = 30;

fn member(rule: Activation) -> Sae<'static> {
    let parts = Parts::new(weights(MEMBER, WIDTH), rule, weights(MEMBER, WIDTH));
    Sae::from_parts(parts).unwrap()
}

fn top_k() -> Activation {
    Activation::TopK {
        k: 5,
        rank: Rank::Value,
        relu: true,
    }
}

/// A model whose features write values of their own.
fn targets(coalesced: Option<usize>) -> Parts<'static> {
    let values = |from: f64| Some((0..MEMBER).map(|i| from + i as f64 * 0.01).collect());
    let each = vec![Target {
        bias: values(0.1),
        scale: values(0.5),
    }];
    Parts {
        targets: Some(Targets { each, coalesced }),
        ..member(top_k()).parts().clone()
    }
}

fn plan() -> Plan {
    Plan::new("sets")
        .edit(Edit::set(3, 150.0))
        .edit(Edit::scale(4, 0.5))
}

/// Ensembles of every kind, pursuits and rows of several sites.
#[test]
fn composed_models_allocate_nothing() {
    let two = || vec![member(Activation::Relu), member(top_k())];
    let router = Router {
        matrix: weights(2, WIDTH),
        center: None,
        weighs: true,
    };
    let mut sites = member(top_k()).parts().clone();
    (sites.input_sites, sites.output_sites) = (2, 2);
    let models = [
        ("bag", Sae::ensemble(two(), Ensemble::Bag).unwrap()),
        ("chain", Sae::ensemble(two(), Ensemble::Chain).unwrap()),
        ("routed", Sae::routed(two(), router).unwrap()),
        (
            "pursuit",
            member(top_k())
                .with_pursuit(Pursuit::orthogonal(4, false))
                .unwrap(),
        ),
        ("sites", Sae::from_parts(sites).unwrap()),
        ("targets", Sae::from_parts(targets(None)).unwrap()),
        ("targets, anew", Sae::from_parts(targets(Some(3))).unwrap()),
    ];
    let plan = plan();
    let values: Vec<f32> = vectors(3, WIDTH)
        .concat()
        .iter()
        .map(|&x| x as f32)
        .collect();
    for (name, sae) in models {
        let rows = rows(&values, WIDTH);
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut features = Features::with_capacity(3, 3 * sae.d_sae()).unwrap();
        let (allocations, done) = count(|| sae.encode(rows, &mut scratch, &mut features));
        done.unwrap();
        assert_eq!(allocations, 0, "{name}: encode");
        let mut decoded = vec![0.0; 3 * sae.d_out()];
        let (allocations, done) = count(|| sae.decode(&features, None, &mut scratch, &mut decoded));
        done.unwrap();
        assert_eq!(allocations, 0, "{name}: decode");
        let compiled = sae.compile_plan(&plan).unwrap();
        let mut space = SteerScratch::new(&sae, &compiled).unwrap();
        let mut report = Report::new(&compiled);
        let mut steered = values.clone();
        let batch = Batch::new(RowsMut::from_f32(&mut steered, WIDTH).unwrap());
        let (allocations, done) = count(|| sae.steer(&compiled, batch, &mut space, &mut report));
        done.unwrap();
        assert_eq!(allocations, 0, "{name}: steer");
        assert!(report.count(Outcome::Edited) > 0, "{name}");
        if sae.input_sites() == 2 {
            let half: Vec<f32> = values[..3 * WIDTH / 2].to_vec();
            let apart = [library::rows(&half, WIDTH / 2); 2];
            let (allocations, done) =
                count(|| sae.encode_sites(&apart, &mut scratch, &mut features));
            done.unwrap();
            assert_eq!(allocations, 0, "{name}: encode_sites");
        }
    }
}

/// Sequences and transforms.
#[test]
fn attention_and_transforms_allocate_nothing() {
    for rule in [Activation::Relu, top_k()] {
        let parts = Parts {
            attention: Some(Attention {
                heads: 2,
                query: weights(8, WIDTH),
                query_bias: None,
                key: weights(8, WIDTH),
                key_bias: None,
                input_scale: 1.0,
                score_scale: 2.0,
                norm: None,
                rotary: Some(Rotary::new(4, 10_000.0, Pairs::Adjacent)),
            }),
            ..member(rule.clone()).parts().clone()
        };
        let lorsa = Lorsa::from_parts(parts).unwrap();
        let values: Vec<f32> = vectors(6, WIDTH)
            .concat()
            .iter()
            .map(|&x| x as f32)
            .collect();
        let all = rows(&values, WIDTH);
        let mut cache = LorsaCache::new(&lorsa, 6).unwrap();
        let mut scratch = lorsa.scratch().unwrap();
        let mut features = Features::with_capacity(6, 6 * MEMBER).unwrap();
        let (mut read, mut status) = (vec![0.0; 2 * 3], [RowStatus::Ok; 3]);
        let (allocations, done) = count(|| {
            lorsa.encode(all.part(0, 3), &mut cache, &mut scratch, &mut features)?;
            let rest = all.part(3, 3);
            lorsa.readout(
                &[0, 29],
                rest,
                &mut cache,
                &mut scratch,
                &mut read,
                &mut status,
            )
        });
        done.unwrap();
        assert_eq!(allocations, 0, "attention");
        let (mut known, plan) = (Features::new(), plan());
        cache.truncate(0);
        lorsa
            .encode(all, &mut cache, &mut scratch, &mut known)
            .unwrap();
        let compiled = lorsa.compile_plan(&plan).unwrap();
        let mut space = lorsa.steer_scratch(&compiled).unwrap();
        let mut report = Report::new(&compiled);
        // The first call makes room for as many features.
        for most in [u64::MAX, 0] {
            let mut steered = values.clone();
            let batch = Batch::new(RowsMut::from_f32(&mut steered, WIDTH).unwrap());
            let (allocations, done) =
                count(|| lorsa.steer(&compiled, &known, None, batch, &mut space, &mut report));
            done.unwrap();
            assert!(allocations <= most, "attention: steer");
        }

        let transforms = (0..MEMBER).map(|i| Transform {
            reads: weights(i % 3 + 1, WIDTH),
            writes: weights(i % 3 + 1, WIDTH),
        });
        let molt = Molt::from_parts(Parts {
            transforms: Some(Transforms {
                each: transforms.collect(),
            }),
            ..member(rule).parts().clone()
        });
        let molt = molt.unwrap();
        let (mut scratch, mut out) = (molt.scratch().unwrap(), vec![0.0; 6 * WIDTH]);
        let (allocations, done) = count(|| {
            molt.encode(all, &mut scratch, &mut features)?;
            molt.decode(&features, Some(all), &mut scratch, &mut out)
        });
        done.unwrap();
        assert_eq!(allocations, 0, "transforms");
        let compiled = molt.compile_plan(&plan).unwrap();
        let mut space = molt.steer_scratch(&compiled).unwrap();
        let mut report = Report::new(&compiled);
        let mut steered = values.clone();
        let batch = Batch::new(RowsMut::from_f32(&mut steered, WIDTH).unwrap());
        let (allocations, done) = count(|| molt.steer(&compiled, batch, &mut space, &mut report));
        done.unwrap();
        assert_eq!(allocations, 0, "transforms: steer");
        assert_eq!(report.count(Outcome::Edited), 6);
    }
}
