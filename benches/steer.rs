//! Steering one row in place: a clamp of one feature, and of a hundred, with other features at
//! each call, against reading the encoder and decoder rows of those features; a TopK model, whose
//! rows must be encoded, against that encode; and the long way round, which encodes, edits,
//! decodes and adds the error. Models are used as downloaded and as a pack.

mod common;

use common::Bench;
use common::model::{Model, Random, SHAPES};
use sae::kernels::WeightType;
use sae::steer::{Batch, Edit, Outcome, Plan, Report, SteerScratch};
use sae::{Features, Rows, RowsMut, Sae, Scratch};

fn main() {
    let mut bench = Bench::new();
    let mut ratios = Vec::new();
    for (d_in, d_sae) in SHAPES {
        for weight_type in [WeightType::F32, WeightType::BF16] {
            let model = Model::new(d_in, d_sae, weight_type);
            let name = model.name();
            // From the file's layout: the plan has gathered its rows.
            let sae = model.open(&model.bytes);
            steer(&mut bench, &model, &sae, 1, Some(1.0 / 3.0), "");
            steer(&mut bench, &model, &sae, 100, None, "");
            let [one, hundred] = [1, 100].map(|count| format!("steer {count} of {name}"));
            ratios.push((hundred, one.clone(), "100 features to one"));
            if weight_type == WeightType::F32 {
                packed(&mut bench, &model, &sae);
                the_long_way(&mut bench, &model);
                let long = format!("the long way, 1 of {name}");
                ratios.push((long, one, "encode, edit, decode, add the error to a clamp"));
                let [with, alone] = top_k(&mut bench, &model);
                ratios.push((with, alone, "a clamp of a TopK model to an encode"));
            }
        }
    }
    let found = ratios.into_iter().filter_map(|(of, to, what)| {
        let ratio = bench.median(&of)? / bench.median(&to)?;
        Some(format!("{what:<48} {ratio:>8.2}  ({of} / {to})"))
    });
    let found: Vec<String> = found.collect();
    bench.finish();
    for line in found {
        println!("{line}");
    }
}

/// Needs `--features pack`.
#[cfg(not(feature = "pack"))]
fn packed(_bench: &mut Bench, model: &Model, _sae: &Sae<'_>) {
    println!(
        "skipped: {} as a pack, which needs --features pack",
        model.name()
    );
}

/// A clamp of one feature with the model as a pack, which holds a row per feature.
#[cfg(feature = "pack")]
fn packed(bench: &mut Bench, model: &Model, sae: &Sae<'_>) {
    use sae::{OpenOptions, pack};
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("steer_bench.gguf");
    let models = [pack::PackModel::new("bench", sae)];
    pack::write(&path, &models, &pack::PackOptions::default(), &mut |_| ()).expect("a pack");
    let packed = Sae::open(&path, &OpenOptions::default()).expect("the pack opens");
    steer(bench, model, &packed, 1, Some(1.0 / 3.0), ", packed");
    drop(packed);
    std::fs::remove_file(&path).expect("it was written here");
}

/// `f' = 5` for `count` features.
fn steer(
    bench: &mut Bench,
    model: &Model,
    sae: &Sae<'_>,
    count: usize,
    goal: Option<f64>,
    form: &str,
) {
    let bytes = 2 * count * model.d_in * model.weight_type.size();
    let mut random = Random(11);
    let copies = common::copies(bytes).min(model.d_sae);
    let sets: Vec<Vec<u32>> = (0..copies)
        .map(|_| random.distinct(count, model.d_sae))
        .collect();
    let plans: Vec<_> = sets
        .iter()
        .map(|features| {
            let edits = features.iter().map(|&feature| Edit::set(feature, 5.0));
            let plan = edits.fold(Plan::new("clamp"), Plan::edit);
            sae.compile_plan(&plan).expect("a plan")
        })
        .collect();
    let row = model.row();
    let dense = dense(model, &model.encode(&row));
    let mut steered = row.clone();
    let mut scratch = SteerScratch::new(sae, &plans[0]).expect("memory");
    let mut report = Report::new(&plans[0]);
    let mut call = |number: usize, steered: &mut [f32]| {
        steered.copy_from_slice(&row);
        let rows = RowsMut::from_f32(steered, model.d_in).expect("a row");
        let plan = &plans[number % plans.len()];
        sae.steer(plan, Batch::new(rows), &mut scratch, &mut report)
            .expect("it steers");
    };
    for (number, features) in sets.iter().enumerate().take(50) {
        call(number, &mut steered);
        check(model, features, &dense, &row, &steered);
    }
    let name = format!("steer {count} of {}{form}", model.name());
    bench.figure(&name, bytes, goal, |number| call(number, &mut steered));
    assert_eq!(report.count(Outcome::Edited), report.rows());
}

fn dense(model: &Model, features: &[(u32, f32)]) -> Vec<f32> {
    let mut dense = vec![0.0_f32; model.d_sae];
    for &(feature, value) in features {
        dense[feature as usize] = value;
    }
    dense
}

/// Whether `steered` is the row with these features at 5.
fn check(model: &Model, features: &[u32], dense: &[f32], row: &[f32], steered: &[f32]) {
    let mut sums = vec![0.0_f64; model.d_in];
    for &feature in features {
        let change = 5.0 - f64::from(dense[feature as usize]);
        for (sum, weight) in sums.iter_mut().zip(model.decoder_row(feature)) {
            *sum += change * f64::from(*weight);
        }
    }
    let expected = row.iter().zip(&sums);
    let expected = expected.map(|(&old, sum)| (f64::from(old) + sum) as f32);
    assert!(steered.iter().copied().eq(expected), "another answer");
}

/// A TopK model, prepared: a clamp of one feature and the encode that it needs. The names of both
/// figures.
fn top_k(bench: &mut Bench, model: &Model) -> [String; 2] {
    let file = model.top_k_file();
    let sae = model.open_top_k(&file).prepare().expect("memory");
    let row = model.row();
    let rows = Rows::from_f32(&row, model.d_in).expect("a row");
    let mut scratch = Scratch::new(&sae).expect("memory");
    let mut features = Features::with_capacity(1, model.d_sae).expect("memory");
    sae.encode(rows, &mut scratch, &mut features)
        .expect("it encodes");
    let found = features.row(0).expect("a row");
    let pairs = found.indices.iter().zip(found.values);
    let found: Vec<(u32, f32)> = pairs.map(|(&feature, &value)| (feature, value)).collect();
    let dense = dense(model, &found);

    let plan = Plan::new("clamp").edit(Edit::set(77, 5.0));
    let plan = sae.compile_plan(&plan).expect("a plan");
    assert!(plan.cost().needs_encode);
    let mut steer_scratch = SteerScratch::new(&sae, &plan).expect("memory");
    let mut report = Report::new(&plan);
    let mut steered = row.clone();
    let mut call = |steered: &mut [f32]| {
        steered.copy_from_slice(&row);
        let batch = Batch::new(RowsMut::from_f32(steered, model.d_in).expect("a row"));
        sae.steer(&plan, batch, &mut steer_scratch, &mut report)
            .expect("it steers");
    };
    call(&mut steered);
    check(model, &[77], &dense, &row, &steered);

    let bytes = model.matrix_bytes();
    let with = format!("steer 1 of TopK {}", model.name());
    let alone = format!("encode TopK {}", model.name());
    bench.figure(&alone, bytes, None, |_| {
        sae.encode(rows, &mut scratch, &mut features)
            .expect("it encodes");
    });
    bench.figure(&with, bytes, None, |_| call(&mut steered));
    [with, alone]
}

/// Encode, edit, decode twice, add the error: what the published scripts do.
fn the_long_way(bench: &mut Bench, model: &Model) {
    let sae = model.open(&model.bytes).prepare().expect("memory");
    let row = model.row();
    let rows = Rows::from_f32(&row, model.d_in).expect("a row");
    let mut scratch = Scratch::new(&sae).expect("memory");
    let capacity = || Features::with_capacity(1, model.d_sae).expect("memory");
    let (mut features, mut edited) = (capacity(), capacity());
    let mut outputs = [vec![0.0_f32; model.d_in], vec![0.0_f32; model.d_in]];
    let mut steered = row.clone();
    let name = format!("the long way, 1 of {}", model.name());
    let bytes = model.matrix_bytes();
    bench.figure(&name, bytes, None, |_| {
        sae.encode(rows, &mut scratch, &mut features)
            .expect("it encodes");
        edited.clear();
        let found = features.row(0).expect("a row");
        for (&index, &value) in found.indices.iter().zip(found.values) {
            let value = if index == 77 { 5.0 } else { value };
            edited.push(index, value).expect("room");
        }
        edited.end_row(found.status).expect("room");
        for (features, output) in [&features, &edited].into_iter().zip(&mut outputs) {
            sae.decode(features, None, &mut scratch, output)
                .expect("it decodes");
        }
        let [before, after] = &outputs;
        for (((to, x), before), after) in steered.iter_mut().zip(&row).zip(before).zip(after) {
            *to = after + (x - before);
        }
    });
}
