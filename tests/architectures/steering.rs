//! Steering is built on composed models as on any other: gates, ensembles, pursuits, crosscoders.

use super::*;
use sae::RowsMut;
use sae::model::{Ensemble, InputNorm, Router, Target, Targets};
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
    let multi_target = |random: &mut Random, coalesced: Option<usize>| {
        let parts = cross_layer.parts().clone();
        // Blocks of the decoder: layer 0 to both, layer 1 to itself.
        let each = parts.decoder.blocks().iter().map(|_| Target {
            bias: Some(spread(random, N / 2)),
            scale: Some(spread(random, N / 2)),
        });
        let each = each.collect();
        Sae::from_parts(Parts {
            targets: Some(Targets { each, coalesced }),
            ..parts
        })
        .unwrap()
    };
    let multi_targets = [
        ("multi-target", multi_target(&mut random, None)),
        ("multi-target, anew", multi_target(&mut random, Some(3))),
    ];
    let gate: Vec<Vec<f64>> = (0..N).map(|_| spread(&mut random, D)).collect();
    let gated = Sae::from_parts(Parts {
        glu: Some(Glu {
            matrix: matrix("gate", &gate, Stored::Rows),
            bias: None,
        }),
        ..gated.parts().clone()
    });
    let mut all = vec![
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
    ];
    all.extend(multi_targets);
    all
}

/// A transcoder of two layers: features of the first write to both, those of the second to itself.
fn cross_layer(random: &mut Random) -> Sae<'static> {
    let (d, n) = (D / 2, N / 2);
    let mut vectors =
        |width: usize| -> Vec<Vec<f64>> { (0..n).map(|_| spread(random, width)).collect() };
    let block = |(layer, target): (usize, usize), name: &str, vectors: &[Vec<f64>]| Block {
        first_feature: layer * n,
        first_column: target * d,
        matrix: matrix(name, vectors, Stored::Rows),
    };
    let encoders = [vectors(d), vectors(d)];
    let decoders = [vectors(d), vectors(d), vectors(d)];
    let join =
        |name: &str, blocks: Vec<Block<'static>>| Matrix::from_blocks(name, N, D, blocks).unwrap();
    let encoders = encoders.iter().enumerate();
    let encoders = encoders.map(|(layer, vectors)| block((layer, layer), "W_enc", vectors));
    let decoders = [(0, 0), (0, 1), (1, 1)].into_iter().zip(&decoders);
    let decoders = decoders.map(|(place, vectors)| block(place, "W_dec", vectors));
    let (encoder, decoder) = (
        join("W_enc", encoders.collect()),
        join("W_dec", decoders.collect()),
    );
    let rule = jump(Thresholds::Scalar(0.1));
    Sae::from_parts(Parts {
        bias: Some(spread(random, N)),
        decoder_bias: Some(spread(random, D)),
        input_sites: 2,
        output_sites: 2,
        ..Parts::new(encoder, rule, decoder)
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
        // Those are one model each, and have them.
        let one = [
            "crosscoder",
            "cross-layer",
            "multi-target",
            "multi-target, anew",
        ];
        if one.contains(&name) {
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

/// Every activation rule, each with its value map, gate, ranks or pursuit as it needs them.
fn every_rule(random: &mut Random) -> Vec<(&'static str, Parts<'static>)> {
    let model = affine(random, spread, D, N, D);
    let lengths = || {
        Some(
            model
                .decoder
                .iter()
                .map(|row| dot(row, row).sqrt())
                .collect(),
        )
    };
    let gate: Vec<Vec<f64>> = (0..N).map(|_| spread(random, D)).collect();
    let thresholds: Vec<f32> = (0..N).map(|i| 0.3 - i as f32 * 0.03).collect();
    let jump_at = |relu, inclusive| Activation::JumpRelu {
        threshold: Thresholds::PerFeature(thresholds.clone()),
        relu,
        inclusive,
    };
    let top = |rank, relu| Activation::TopK { k: 6, rank, relu };
    let groups = |k| Activation::GroupTopK {
        groups: 5,
        k,
        rank: Rank::Value,
        relu: true,
    };
    let gated = Activation::Gated {
        gate_bias: (0..N).map(|i| 0.4 - i as f64 * 0.05).collect(),
    };
    let of = |rule: Activation| model.parts(rule, Stored::Rows);
    let with = |rule: Activation, change: &dyn Fn(&mut Parts<'static>)| {
        let mut parts = of(rule);
        change(&mut parts);
        parts
    };
    let pursuit = |pursuit: Pursuit| {
        let plain = Sae::from_parts(of(Activation::Relu)).unwrap();
        plain.with_pursuit(pursuit).unwrap().parts().clone()
    };
    vec![
        ("relu", of(Activation::Relu)),
        ("tanh relu", of(Activation::TanhRelu)),
        ("leaky relu", of(Activation::LeakyRelu { slope: 0.01 })),
        ("jump", of(jump_at(true, false))),
        ("jump below zero", of(jump_at(false, true))),
        ("one threshold", of(jump(Thresholds::Scalar(0.2)))),
        (
            "jump by length",
            with(jump_at(true, false), &|parts| parts.rank_weight = lengths()),
        ),
        ("gated", of(gated)),
        ("top k", of(top(Rank::Value, true))),
        ("top k of any sign", of(top(Rank::Value, false))),
        ("top k by magnitude", of(top(Rank::Magnitude, false))),
        (
            "top k by length",
            with(top(Rank::Value, true), &|parts| {
                parts.rank_weight = lengths()
            }),
        ),
        ("group top k", of(groups(2))),
        ("group max", of(groups(1))),
        (
            "top afa",
            with(Activation::TopAfa, &|parts| parts.rank_weight = lengths()),
        ),
        (
            "soft cap",
            with(top(Rank::Value, true), &|parts| {
                parts.value_map = ValueMap::SoftCap(0.5)
            }),
        ),
        (
            "codebook",
            with(top(Rank::Value, true), &|parts| {
                parts.value_map = ValueMap::One
            }),
        ),
        (
            "distance",
            with(top(Rank::Value, true), &|parts| {
                parts.value_map = ValueMap::Distance(1.5)
            }),
        ),
        (
            "glu",
            with(Activation::Relu, &|parts| {
                let matrix = matrix("gate", &gate, Stored::Rows);
                parts.glu = Some(Glu { matrix, bias: None });
            }),
        ),
        (
            "matching pursuit",
            pursuit(Pursuit::matching(4, 0.0, false)),
        ),
        ("signed pursuit", pursuit(Pursuit::matching_signed(4))),
        ("orthogonal pursuit", pursuit(Pursuit::orthogonal(4, true))),
        ("gradient pursuit", pursuit(Pursuit::gradient(4, false))),
    ]
}

/// The models of a rule: with each normalisation, undone or not, with a skip connection, and
/// composed. Those that cannot be are refused when they are made.
fn variants(random: &mut Random, parts: &Parts<'static>) -> Vec<(String, Sae<'static>)> {
    let mut all = vec![];
    let mut add = |name: String, sae: Result<Sae<'static>, Error>| {
        if let Ok(sae) = sae {
            all.push((name, sae));
        }
    };
    let skip: Vec<Vec<f64>> = (0..D).map(|_| spread(random, D)).collect();
    let norms = [
        InputNorm::None,
        InputNorm::LayerNorm,
        InputNorm::ConstantNorm,
    ];
    for input_norm in norms {
        for undo_norm in [false, true] {
            for scaled in [false, true] {
                let changed = || Parts {
                    input_norm,
                    undo_norm: undo_norm && input_norm != InputNorm::None,
                    // A pursuit has scales of its own: its atoms' lengths.
                    decoder_scale: match &parts.activation {
                        Activation::Pursuit(_) => parts.decoder_scale.clone(),
                        _ => scaled.then(|| vec![0.25; N]),
                    },
                    ..parts.clone()
                };
                let name = format!("{input_norm:?}, undone {undo_norm}, scaled {scaled}");
                let make = || Sae::from_parts(changed());
                let pair = || Ok::<_, Error>(vec![make()?, make()?]);
                add(name.clone(), make());
                add(
                    format!("{name}, skip"),
                    Sae::from_parts(Parts {
                        skip: Some(matrix("skip", &skip, Stored::Rows)),
                        ..changed()
                    }),
                );
                add(
                    format!("{name}, two sites"),
                    Sae::from_parts(Parts {
                        input_sites: 2,
                        output_sites: 2,
                        ..changed()
                    }),
                );
                add(
                    format!("{name}, bag"),
                    pair().and_then(|pair| Sae::ensemble(pair, Ensemble::Bag)),
                );
                add(
                    format!("{name}, chain"),
                    pair().and_then(|pair| Sae::ensemble(pair, Ensemble::Chain)),
                );
                add(
                    format!("{name}, prefix"),
                    make().and_then(|sae| sae.with_prefix(12)),
                );
            }
        }
    }
    all
}

/// The delta form is the full form, `decode(f') + (y - decode(f))`, for every activation rule with
/// every normalisation, plain and composed. The bound: half a unit of each of the three f32 values
/// that meet (the result, and both reconstructions of the full form), doubled where a value lies at
/// the end of a binade, and 2^-40 of the largest value for sums in f64. Without the error, the
/// result is `decode(f')` to the bit.
#[test]
fn every_rule_is_steered_as_its_full_form() {
    let ulp = |value: f32| {
        let value = value.abs();
        f64::from(f32::from_bits(value.to_bits() + 1)) - f64::from(value)
    };
    let mut random = Random(77);
    let rules = every_rule(&mut random);
    let mut counts = std::collections::BTreeMap::new();
    for (rule, parts) in &rules {
        for (variant, sae) in variants(&mut random, parts) {
            let name = format!("{rule}: {variant}");
            let kind = variant.split(", ").nth(3).unwrap_or("plain").to_string();
            *counts.entry(kind).or_insert(0) += 1;
            let inputs: Vec<f32> = (0..4 * D).map(|_| random.number()).collect();
            let text = r#"{"edits": [
                {"feature": 1, "rule": "set", "strength": 1.5},
                {"feature": 2, "rule": "zero"},
                {"feature": 3, "rule": "scale", "strength": -2},
                {"feature": 5, "rule": "max_clamp", "strength": 0.25},
                {"feature": 7, "rule": "min_cap", "strength": 0.125},
                {"feature": 11, "rule": "negative_when_active", "strength": 0.5}]}"#;
            // Numbers of which every edited value is an f32.
            let edit = |row: &mut Vec<f32>| {
                row[1] = 1.5;
                row[2] = 0.0;
                row[3] *= -2.0;
                row[5] = row[5].max(0.25);
                row[7] = row[7].min(0.125);
                row[11] = if row[11] > 0.0 { -0.5 } else { row[11] };
            };
            let all = rows(&inputs, D);
            let (features, before) = encode_decode(&sae, all);
            let mut edited = Features::new();
            for row in dense(&features, sae.d_sae()) {
                let mut row = row;
                edit(&mut row);
                for (i, &value) in row.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                    edited.push(i as u32, value).unwrap();
                }
                edited.end_row(sae::RowStatus::Ok).unwrap();
            }
            let mut scratch = Scratch::new(&sae).unwrap();
            let mut after = vec![0.0; before.len()];
            let given = sae.needs_inputs_to_decode().then_some(all);
            sae.decode(&edited, given, &mut scratch, &mut after)
                .unwrap();

            let plan = Plan::from_json(text).unwrap();
            let steer = |plan: &Plan| {
                let compiled = sae
                    .compile_plan(plan)
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                let mut scratch = SteerScratch::new(&sae, &compiled).unwrap();
                let mut steered = inputs.clone();
                let batch = Batch::new(RowsMut::from_f32(&mut steered, D).unwrap());
                let mut report = Report::new(&compiled);
                sae.steer(&compiled, batch, &mut scratch, &mut report)
                    .unwrap();
                steered
            };
            assert_eq!(
                bits(&steer(&plan.clone().drop_error())),
                bits(&after),
                "{name}"
            );
            let found = steer(&plan);
            for (row, found) in found.chunks_exact(D).enumerate() {
                let part = row * D..(row + 1) * D;
                let (before, after) = (&before[part.clone()], &after[part.clone()]);
                let values = before.iter().chain(after).chain(found);
                let largest = values.fold(1.0f64, |most, &v| most.max(f64::from(v).abs()));
                for (c, &found) in found.iter().enumerate() {
                    let (a, b) = (after[c], before[c]);
                    let expected = f64::from(a) + (f64::from(inputs[row * D + c]) - f64::from(b));
                    let bound = ulp(found) + ulp(a) + ulp(b) + largest * 2f64.powi(-40);
                    let error = (f64::from(found) - expected).abs();
                    assert!(
                        error <= bound,
                        "{name}, row {row}, {c}: {found} for {expected}"
                    );
                }
            }
        }
    }
    // What is composed, and how often: a rule that stopped being steered would be missed here.
    let of = |kind: &str| counts.get(kind).copied().unwrap_or(0);
    assert!(of("plain") >= 10 * rules.len(), "{counts:?}");
    for kind in ["skip", "two sites", "bag", "chain", "prefix"] {
        assert!(of(kind) >= 2 * rules.len(), "{counts:?}");
    }
}
