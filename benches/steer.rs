//! Steering one row in place: a clamp of one feature, and of a hundred, with other features at
//! each call, against reading the encoder and decoder rows of those features; and the long way
//! round, which encodes, edits, decodes and adds the error.

mod common;

use common::Bench;
use common::model::{Model, Random, SHAPES};
use sae::kernels::WeightType;
use sae::steer::{Batch, Edit, Outcome, Plan, Report, SteerScratch};
use sae::{Features, Rows, RowsMut, Sae, Scratch};

fn main() {
    let mut bench = Bench::new();
    for (d_in, d_sae) in SHAPES {
        for weight_type in [WeightType::F32, WeightType::BF16] {
            let model = Model::new(d_in, d_sae, weight_type);
            // From the file's layout: the plan has gathered its rows.
            let sae = model.open(&model.bytes);
            steer(&mut bench, &model, &sae, 1, Some(1.0 / 3.0));
            steer(&mut bench, &model, &sae, 100, None);
            if weight_type == WeightType::F32 {
                the_long_way(&mut bench, &model);
            }
        }
    }
    bench.finish();
}

/// `f' = 5` for `count` features.
fn steer(bench: &mut Bench, model: &Model, sae: &Sae<'_>, count: usize, goal: Option<f64>) {
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
    let mut dense = vec![0.0_f32; model.d_sae];
    for (feature, value) in model.encode(&row) {
        dense[feature as usize] = value;
    }
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
    let name = format!("steer {count} of {}", model.name());
    bench.figure(&name, bytes, goal, |number| call(number, &mut steered));
    assert_eq!(report.count(Outcome::Edited), report.rows());
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
