//! Readout of a compiled set of 32 features for one row, another set at each call.

mod common;

use common::Bench;
use common::model::{Model, Random, SHAPES};
use sae::kernels::WeightType;
use sae::{RowStatus, Rows, Scratch};

const SET: usize = 32;

fn main() {
    let mut bench = Bench::new();
    for (d_in, d_sae) in SHAPES {
        for weight_type in WeightType::ALL {
            readout(&mut bench, &Model::new(d_in, d_sae, weight_type));
        }
    }
    bench.finish();
}

fn readout(bench: &mut Bench, model: &Model) {
    let sae = model.open(&model.bytes).prepare().expect("memory");
    let row = model.row();
    let mut dense = vec![0.0_f32; model.d_sae];
    for (feature, value) in model.encode(&row) {
        dense[feature as usize] = value;
    }
    let bytes = SET * model.d_in * model.weight_type.size();
    let mut random = Random(7);
    let sets: Vec<_> = (0..common::copies(bytes))
        .map(|_| {
            let features = random.distinct(SET, model.d_sae);
            sae.compile_set(&features).expect("a set")
        })
        .collect();
    assert_eq!(sets[0].bytes_per_row(&sae), bytes as u64);
    let rows = Rows::from_f32(&row, model.d_in).expect("a row");
    let mut scratch = Scratch::new(&sae).expect("memory");
    let mut values = [0.0_f32; SET];
    let mut call = |number: usize, values: &mut [f32]| {
        let set = &sets[number % sets.len()];
        let mut status = [RowStatus::Ok];
        sae.readout(set, rows, &mut scratch, values, &mut status)
            .expect("it reads out");
        assert_eq!(status, [RowStatus::Ok]);
    };
    for (number, set) in sets.iter().enumerate() {
        call(number, &mut values);
        let expected = set
            .features()
            .iter()
            .map(|&feature| dense[feature as usize].to_bits());
        let same = values.iter().map(|value| value.to_bits()).eq(expected);
        assert!(same, "readout {}: another answer", model.name());
    }
    let name = format!("readout {SET} of {}", model.name());
    bench.figure(&name, bytes, Some(0.7), |number| call(number, &mut values));
}
