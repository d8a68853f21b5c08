//! Watching 40 features of a row of a 16k SAE against reading their 40 encoder rows; statistics of
//! all features against the screened encode whose result they take; both with 1,000 streams
//! interleaved row by row. Every answer is checked before it is timed, and a timed call that
//! allocates fails.
//!
//! `cargo bench --bench monitor`; ratios of what was measured in the same run are printed at the end.

mod common;

use common::Bench;
use common::model::{Model, Random};
use sae::kernels::WeightType;
use sae::monitor::{Accumulator, Bins, Collect, Monitor, MonitorOptions, RowInfo, Rule, Rules};
use sae::{Features, RowStatus, Rows, Sae, Scratch};
use std::sync::Arc;
use std::time::Instant;

const WATCHED: usize = 40;

fn main() {
    let mut bench = Bench::new();
    let model = Model::new(2304, 16384, WeightType::F32);
    let sae = model.open(&model.bytes).prepare().expect("memory");
    let row = model.row();
    watch(&mut bench, &model, &sae, &row);
    statistics(&mut bench, &model, &sae, &row);
    bench.finish();
    ratios(&model, &sae, &row);
}

/// Ten thresholds, a co-activation of ten, a logistic head on ten, and ten drifts.
fn rules(features: &[u32]) -> Rules {
    let mut rules = Rules::new("bench");
    for (number, &feature) in features.iter().take(10).enumerate() {
        rules = rules.rule(Rule::threshold(format!("t{number}"), &[feature], 1e9).run(2));
    }
    rules = rules.rule(Rule::coactivation("c", &features[10..20], 10, 64));
    let weights: Vec<(u32, f64)> = features[20..30].iter().map(|&f| (f, -1.0)).collect();
    rules = rules.rule(Rule::linear(
        "l",
        &weights,
        0.0,
        sae::monitor::Pooling::Mean,
        1.0,
    ));
    for (number, &feature) in features.iter().skip(30).enumerate() {
        let detector = sae::monitor::Detector::Drift {
            input: sae::monitor::Input::Feature(feature),
            half_life: 100.0,
            mean: Some(0.0),
            deviation: Some(1e9),
            direction: sae::monitor::Direction::Up,
        };
        rules = rules.rule(Rule::new(format!("d{number}"), detector, 3.0));
    }
    rules
}

fn watch(bench: &mut Bench, model: &Model, sae: &Sae<'_>, row: &[f32]) {
    let bytes = WATCHED * model.d_in * 4;
    let rows = Rows::from_f32(row, model.d_in).expect("a row");
    for streams in [1u64, 1000] {
        let mut random = Random(5);
        let mut monitors: Vec<Monitor> = (0..common::copies(bytes))
            .map(|_| {
                let features = random.distinct(WATCHED, model.d_sae);
                let compiled = sae.compile_rules(&rules(&features)).expect("rules");
                assert_eq!(compiled.bytes_per_row(), bytes as u64);
                let collect = Collect::features(sae, &features);
                let options = MonitorOptions::default().streams(streams as usize);
                Monitor::new(Arc::new(compiled), &options.collect(collect)).expect("memory")
            })
            .collect();
        let mut scratch = Scratch::new(sae).expect("memory");
        let count = monitors.len();
        let mut call = |number: usize| {
            let place = number as u64 % streams;
            let info = [RowInfo::new(place, number as u64 / streams)];
            monitors[number % count]
                .observe(sae, rows, &info, &mut scratch, &mut |_| panic!("an alert"))
                .expect("it watches");
        };
        let expected = model.encode(row);
        for number in 0..count {
            call(number);
        }
        let name = format!("watch {WATCHED} of {}, {streams} streams", model.name());
        bench.figure(&name, bytes, Some(0.5), &mut call);
        for monitor in &monitors {
            let statistics = monitor.statistics().expect("statistics");
            for feature in statistics.features() {
                let found = expected.iter().find(|one| one.0 == feature);
                let one = statistics.feature(feature).expect("collected");
                assert_eq!(one.max, found.map_or(0.0, |one| one.1), "another answer");
            }
        }
    }
}

fn everything(sae: &Sae<'_>) -> Accumulator {
    Accumulator::new(Collect::all(sae).histogram(Bins::USUAL).top(8)).expect("memory")
}

fn statistics(bench: &mut Bench, model: &Model, sae: &Sae<'_>, row: &[f32]) {
    let rows = Rows::from_f32(row, model.d_in).expect("a row");
    let mut scratch = Scratch::new(sae).expect("memory");
    let mut features = Features::with_capacity(1, model.d_sae).expect("memory");
    bench.figure(
        &format!("screened encode {}", model.name()),
        model.matrix_bytes(),
        None,
        |_| {
            sae.encode(rows, &mut scratch, &mut features)
                .expect("it encodes");
        },
    );
    let mut accumulator = everything(sae);
    let found = features.row(0).expect("a row");
    let bytes = found.indices.len() * 120;
    let mut number = 0;
    bench.figure(
        &format!("statistics of {}", model.name()),
        bytes,
        None,
        |_| {
            number += 1;
            let info = RowInfo::new(number % 1000, number / 1000);
            accumulator.add(found, &info).expect("it adds");
        },
    );
    assert_eq!(accumulator.rows(), number);
    for (feature, value) in model.encode(row) {
        let one = accumulator.feature(feature).expect("collected");
        assert_eq!((one.fired, one.max), (number, value), "another answer");
    }
}

/// Medians of the two ratios that are the goals, measured in turns.
fn ratios(model: &Model, sae: &Sae<'_>, row: &[f32]) {
    const TURNS: usize = 400;
    let rows = Rows::from_f32(row, model.d_in).expect("a row");
    let mut scratch = Scratch::new(sae).expect("memory");
    let mut random = Random(9);
    let sets: Vec<Vec<u32>> = (0..64)
        .map(|_| random.distinct(WATCHED, model.d_sae))
        .collect();
    let compiled: Vec<_> = sets
        .iter()
        .map(|set| sae.compile_set(set).expect("a set"))
        .collect();
    let mut monitors: Vec<Monitor> = sets
        .iter()
        .map(|set| {
            let compiled = Arc::new(sae.compile_rules(&rules(set)).expect("rules"));
            let options = MonitorOptions::default().streams(1000);
            let options = options.collect(Collect::features(sae, set));
            Monitor::new(compiled, &options).expect("memory")
        })
        .collect();
    let mut accumulator = everything(sae);
    let mut features = Features::with_capacity(1, model.d_sae).expect("memory");
    let mut values = vec![0.0; WATCHED];
    let mut times = [const { Vec::<f64>::new() }; 4];
    for turn in 0..TURNS {
        // What reads sets goes round through more of them than the caches hold.
        let start = Instant::now();
        let mut status = [RowStatus::Ok];
        sae.readout(
            &compiled[turn % 64],
            rows,
            &mut scratch,
            &mut values,
            &mut status,
        )
        .expect("it reads out");
        times[0].push(start.elapsed().as_secs_f64());
        let info = [RowInfo::new(turn as u64 % 1000, 0)];
        let start = Instant::now();
        monitors[turn % 64]
            .observe(sae, rows, &info, &mut scratch, &mut |_| panic!("an alert"))
            .expect("it watches");
        times[1].push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        sae.encode(rows, &mut scratch, &mut features)
            .expect("it encodes");
        times[2].push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        accumulator.add_all(&features, &info).expect("it adds");
        times[3].push(start.elapsed().as_secs_f64());
    }
    let [readout, watch, encode, statistics] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e6
    });
    println!("medians of {TURNS} turns, 1,000 streams interleaved:");
    println!(
        "readout of {WATCHED} encoder rows {readout:.1} us, watching them {watch:.1} us: {:.2} times (goal: below 2)",
        watch / readout
    );
    println!(
        "screened encode {encode:.1} us, statistics of all features {statistics:.1} us: {:.1} % (goal: below 10 %)",
        100.0 * statistics / encode
    );
}
