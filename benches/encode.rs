//! Dense encode of one row, from rows and from columns per feature, in all weight types.
//!
//! Every figure is checked first, bit for bit, against the definition written plainly
//! (`common/model.rs`).

mod common;

use common::Bench;
use common::model::{L0, Model, SHAPES};
use sae::kernels::WeightType;
use sae::{Features, Rows, Sae, Scratch};

fn main() {
    let mut bench = Bench::new();
    for (d_in, d_sae) in SHAPES {
        for weight_type in WeightType::ALL {
            let model = Model::new(d_in, d_sae, weight_type);
            let expected = model.encode(&model.row());
            assert!(
                expected.len().abs_diff(L0) < L0 / 2,
                "{} fire",
                expected.len()
            );
            let copies = common::copies(model.matrix_bytes());
            let f32_goal = |goal| (weight_type == WeightType::F32).then_some(goal);

            for (layout, goal) in [("columns", 0.7), ("rows", 0.9)] {
                let (file, open): (_, for<'f> fn(&Model, &'f [u8]) -> Sae<'f>) = match layout {
                    "rows" => (model.rows_file(), Model::open_rows),
                    _ => (model.bytes.clone(), Model::open),
                };
                let files = vec![file; copies];
                let saes: Vec<_> = files.iter().map(|file| open(&model, file)).collect();
                encode(&mut bench, layout, &model, &saes, &expected, f32_goal(goal));
            }
        }
    }
    bench.finish();
}

fn encode(
    bench: &mut Bench,
    layout: &str,
    model: &Model,
    copies: &[Sae<'_>],
    expected: &[(u32, f32)],
    goal: Option<f64>,
) {
    assert_eq!(copies[0].description().encoder.layout, layout);
    let row = model.row();
    let rows = Rows::from_f32(&row, model.d_in).expect("a row");
    let mut scratch = Scratch::new(&copies[0]).expect("memory");
    let mut features = Features::with_capacity(1, model.d_sae).expect("memory");
    let mut call = |number: usize, features: &mut Features| {
        let sae = &copies[number % copies.len()];
        sae.encode(rows, &mut scratch, features)
            .expect("it encodes");
    };
    let name = format!("encode {} {layout}", model.name());
    for number in 0..copies.len() {
        call(number, &mut features);
        let row = features.row(0).expect("a row");
        let found = row.indices.iter().zip(row.values);
        let found = found.map(|(index, value)| (*index, value.to_bits()));
        let expected = expected
            .iter()
            .map(|(index, value)| (*index, value.to_bits()));
        assert!(found.eq(expected), "{name}: another answer");
    }
    bench.figure(&name, model.matrix_bytes(), goal, |number| {
        call(number, &mut features)
    });
}
