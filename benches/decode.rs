//! Decode of one row with 64 features, others at each call, from rows per feature (as SAELens and
//! Gemma Scope store their decoders).

mod common;

use common::model::{L0, Model, Random, SHAPES};
use common::{Bench, bandwidth};
use sae::kernels::WeightType;
use sae::{Features, RowStatus, Scratch};

fn main() {
    let mut bench = Bench::new();
    for (d_in, d_sae) in SHAPES {
        for weight_type in WeightType::ALL {
            decode(&mut bench, &Model::new(d_in, d_sae, weight_type));
        }
    }
    bench.finish();
}

fn decode(bench: &mut Bench, model: &Model) {
    let files = vec![model.bytes.clone(); common::copies(model.matrix_bytes())];
    let copies: Vec<_> = files.iter().map(|bytes| model.open(bytes)).collect();
    let bytes = L0 * model.d_in * model.weight_type.size();
    let mut random = Random(7);
    // As many sets of features as make up the spread.
    let sets: Vec<(Features, Vec<f32>)> = (0..common::copies(bytes))
        .map(|_| {
            let pairs: Vec<(u32, f32)> = random
                .distinct(L0, model.d_sae)
                .into_iter()
                .map(|feature| (feature, random.value() + 2.0))
                .collect();
            let mut features = Features::new();
            for &(feature, value) in &pairs {
                features.push(feature, value).expect("memory");
            }
            features.end_row(RowStatus::Ok).expect("memory");
            (features, model.decode(&pairs))
        })
        .collect();
    let mut scratch = Scratch::new(&copies[0]).expect("memory");
    let mut decoded = vec![0.0; model.d_in];
    let mut call = |number: usize, decoded: &mut [f32]| {
        let (features, _) = &sets[number % sets.len()];
        let sae = &copies[number % copies.len()];
        sae.decode(features, None, &mut scratch, decoded)
            .expect("it decodes");
    };
    for (number, (_, expected)) in sets.iter().enumerate() {
        call(number, &mut decoded);
        let same = decoded
            .iter()
            .map(|v| v.to_bits())
            .eq(expected.iter().map(|v| v.to_bits()));
        assert!(same, "decode {}: another answer", model.name());
    }
    let name = format!("decode {L0} of {}", model.name());
    let same_rows = || {
        let (file, row) = (|number| &files[number % files.len()], bytes / L0);
        Some(bandwidth::of_rows(
            L0,
            row,
            common::reader_time(),
            |number, i| {
                let (features, _) = &sets[number % sets.len()];
                model.decoder_row_bytes(file(number), features.indices()[i])
            },
        ))
    };
    bench.figure_of_rows(&name, bytes, Some(0.7), same_rows, |number| {
        call(number, &mut decoded)
    });
}
