//! Steering is built on composed models as on any other: gates, ensembles, pursuits, crosscoders.

use super::*;
use sae::RowsMut;
use sae::model::{Ensemble, InputNorm, Router};
use sae::steer::{Batch, Plan, Report, SteerScratch};

const D: usize = 6;
const N: usize = 20;

/// Composed models of every kind; rows of D values in and out.
pub(super) fn models() -> Vec<(&'static str, Sae<'static>)> {
    let mut random = Random(1);
    let mut plain = |rule: Activation, norm: InputNorm| {
        let model = affine(&mut random, spread, D, N, D);
        let parts = Parts {
            input_norm: norm,
            decoder_scale: Some(vec![0.25; N]),
            ..model.parts(rule, Stored::Rows)
        };
        Sae::from_parts(parts).unwrap()
    };
    let none = InputNorm::None;
    let gated = plain(Activation::Relu, none);
    let bag = vec![plain(Activation::Relu, none), plain(top_k(5), none)];
    let normalised = vec![
        plain(Activation::Relu, InputNorm::LayerNorm),
        plain(top_k(5), InputNorm::LayerNorm),
    ];
    let chain = vec![
        plain(top_k(4), none),
        plain(Activation::Relu, none),
        plain(jump(Thresholds::Scalar(0.2)), none),
    ];
    let pursuit = plain(Activation::Relu, none)
        .with_pursuit(Pursuit::orthogonal(3, true))
        .unwrap();
    let mut crosscoder = plain(top_k(6), none).parts().clone();
    (crosscoder.input_sites, crosscoder.output_sites) = (2, 2);
    let experts = vec![plain(top_k(5), none), plain(Activation::Relu, none)];
    let bias = experts[0].parts().decoder_bias.clone();
    let experts = experts.into_iter().map(|expert| {
        Sae::from_parts(Parts {
            decoder_bias: bias.clone(),
            ..expert.parts().clone()
        })
    });
    let experts: Vec<Sae<'_>> = experts.collect::<Result<_, _>>().unwrap();
    let vectors: Vec<Vec<f64>> = (0..2).map(|_| spread(&mut random, D)).collect();
    let router = Router {
        matrix: matrix("router", &vectors, Stored::Rows),
        center: None,
        weighs: true,
    };
    let cross_layer = cross_layer(&mut random);
    let gate: Vec<Vec<f64>> = (0..N).map(|_| spread(&mut random, D)).collect();
    let gated = Sae::from_parts(Parts {
        glu: Some(Glu {
            matrix: matrix("gate", &gate, Stored::Rows),
            bias: None,
        }),
        ..gated.parts().clone()
    });
    vec![
        ("glu", gated.unwrap()),
        ("bag", Sae::ensemble(bag, Ensemble::Bag).unwrap()),
        (
            "bag, layer norm",
            Sae::ensemble(normalised, Ensemble::Bag).unwrap(),
        ),
        ("chain", Sae::ensemble(chain, Ensemble::Chain).unwrap()),
        ("pursuit", pursuit),
        ("crosscoder", Sae::from_parts(crosscoder).unwrap()),
        ("routed", Sae::routed(experts, router).unwrap()),
        ("cross-layer", cross_layer),
    ]
}

/// A transcoder of two layers: features of the first write to both, those of the second to itself.
fn cross_layer(random: &mut Random) -> Sae<'static> {
    let (d, n) = (D / 2, N / 2);
    let mut vectors =
        |width: usize| -> Vec<Vec<f64>> { (0..n).map(|_| spread(random, width)).collect() };
    let block = |layer: usize, name: &str, vectors: &[Vec<f64>]| Block {
        first_feature: layer * n,
        first_column: layer * d,
        matrix: matrix(name, vectors, Stored::Rows),
    };
    let encoders = [vectors(d), vectors(d)];
    let decoders = [vectors(2 * d), vectors(d)];
    let join = |name: &str, of: &[Vec<Vec<f64>>; 2]| {
        let blocks = of.iter().enumerate();
        let blocks = blocks.map(|(layer, vectors)| block(layer, name, vectors));
        Matrix::from_blocks(name, N, D, blocks.collect()).unwrap()
    };
    let rule = jump(Thresholds::Scalar(0.1));
    Sae::from_parts(Parts {
        bias: Some(spread(random, N)),
        decoder_bias: Some(spread(random, D)),
        input_sites: 2,
        output_sites: 2,
        ..Parts::new(join("W_enc", &encoders), rule, join("W_dec", &decoders))
    })
    .unwrap()
}

/// `y + decode(f') - decode(f)`, with f' the features as the plan sets them.
fn full_form(sae: &Sae<'_>, inputs: &[f32], set: &[(u32, f32)]) -> Vec<f64> {
    let all = rows(inputs, D);
    let (features, before) = encode_decode(sae, all);
    let mut edited = Features::new();
    for row in dense(&features, sae.d_sae()) {
        let mut row = row;
        for &(feature, value) in set {
            row[feature as usize] = value;
        }
        for (i, &value) in row.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            edited.push(i as u32, value).unwrap();
        }
        edited.end_row(sae::RowStatus::Ok).unwrap();
    }
    let mut scratch = Scratch::new(sae).unwrap();
    let mut after = vec![0.0; before.len()];
    let given = sae.needs_inputs_to_decode().then_some(all);
    sae.decode(&edited, given, &mut scratch, &mut after)
        .unwrap();
    let changed = before.iter().zip(&after).zip(inputs);
    changed
        .map(|((before, after), y)| f64::from(*y) + f64::from(*after) - f64::from(*before))
        .collect()
}

#[test]
fn composed_models_are_steered_like_any_other() {
    let mut random = Random(2);
    let inputs: Vec<f32> = (0..5 * D).map(|_| random.number()).collect();
    for (name, sae) in models() {
        let last = sae.d_sae() as u32 - 1;
        let set = [(3, 1.5), (last, 0.0)];
        let text = format!(
            r#"{{"edits": [{{"feature": 3, "rule": "set", "strength": 1.5}},
                           {{"feature": {last}, "rule": "zero"}}]}}"#
        );
        let plan = Plan::from_json(&text).unwrap();
        // A cross-layer transcoder with thresholds reads the edited features alone.
        let needs_encode = sae.plan_cost(&plan).unwrap().needs_encode;
        assert_eq!(needs_encode, name != "cross-layer", "{name}");
        let compiled = sae.compile_plan(&plan).unwrap();
        let mut scratch = SteerScratch::new(&sae, &compiled).unwrap();
        let mut steered = inputs.clone();
        let batch = Batch::new(RowsMut::from_f32(&mut steered, D).unwrap());
        let mut report = Report::new(&compiled);
        sae.steer(&compiled, batch, &mut scratch, &mut report)
            .unwrap();
        let expected = full_form(&sae, &inputs, &set);
        let mut moved = false;
        for ((found, expected), before) in steered.iter().zip(&expected).zip(&inputs) {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 2e-5 * (1.0 + expected.abs()), "{name}: {error}");
            moved |= found != before;
        }
        assert!(moved, "{name}");
    }
}

#[test]
fn pre_activations_of_composed_models_are_refused_by_name() {
    let text = r#"{"edits": [{"feature": 3, "rule": "scale", "strength": 2.0,
                             "reads": "pre_activation"}]}"#;
    let plan = Plan::from_json(text).unwrap();
    for (name, sae) in models() {
        // Those two are one model each, and have them.
        if ["crosscoder", "cross-layer"].contains(&name) {
            assert!(sae.compile_plan(&plan).is_ok(), "{name}");
            continue;
        }
        let error = sae.compile_plan(&plan).unwrap_err();
        assert!(
            error.to_string().contains("pre-activations"),
            "{name}: {error}"
        );
    }
}
