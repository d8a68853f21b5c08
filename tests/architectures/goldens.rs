//! Goldens of the publishers' code or formulas.

use super::*;

fn transposed(array: &Array) -> Vec<Vec<f64>> {
    rows_of(&array.transposed())
}

#[test]
fn group_max_is_sparsify_s() {
    let case = Case::new("sparsify_groupmax");
    let tensors = case.safetensors("layers.10/sae.safetensors");
    let b_dec = tensors["b_dec"].values.clone();
    let model = Affine {
        encoder: rows_of(&tensors["encoder.weight"]),
        bias: tensors["encoder.bias"].values.clone(),
        center: Some(b_dec.clone()),
        decoder: rows_of(&tensors["W_dec"]),
        decoder_bias: b_dec,
    };
    let features = model.check(&case, |stored| {
        model.parts(Activation::group_max(8), stored)
    });
    assert_eq!(features.len(), 8 * case.n());
}

#[test]
fn ranks_by_decoder_norm_are_openmoss_s() {
    for (name, k) in [("openmoss_topk", Some(11)), ("openmoss_jumprelu", None)] {
        let case = Case::new(name);
        let tensors = case.safetensors("sae_weights.safetensors");
        let model = Affine {
            encoder: transposed(&tensors["W_E"]),
            bias: tensors["b_E"].values.clone(),
            center: None,
            decoder: rows_of(&tensors["W_D"]),
            decoder_bias: tensors["b_D"].values.clone(),
        };
        let activation = || match k {
            Some(k) => top_k(k),
            None => {
                let log = &tensors["activation_function.log_jumprelu_threshold"].values;
                let theta = log.iter().map(|&log| libm::exp(log) as f32).collect();
                jump(Thresholds::PerFeature(theta))
            }
        };
        model.check(&case, |stored| Parts {
            rank_weight: Some(norms(&model.decoder)),
            ..model.parts(activation(), stored)
        });
    }
}

/// Compares a pursuit with goldens in f64 and with the reference.
fn check_pursuit(
    case: &Case,
    atoms: &[Vec<f64>],
    bias: Option<&[f64]>,
    rule: &Pursuit,
    reference: impl Fn(&[f64]) -> Vec<f64>,
) {
    let make = |stored| pursuit_parts(atoms, bias, rule, stored);
    let (features, reconstructions) = parts::run(make, &case.rows.f32_values(), atoms[0].len());
    let golden = case.golden("features64");
    let recon = case.golden("recon64");
    for (row, found) in dense(&features, atoms.len()).iter().enumerate() {
        let place = format!("{}, row {row}", case.name);
        let mut x = case.row(row).to_vec();
        for (x, b) in x.iter_mut().zip(bias.unwrap_or(&[])) {
            *x -= b;
        }
        // Each step rounds the residual to f32 once.
        let bound = 16.0 * TWO_24 * pursuit::norm(&x);
        assert_values(found, &golden[row], |_| bound, &place);
        assert_values(found, &reference(&x), |_| bound, &place);
        let width = atoms[0].len();
        for (c, y) in reconstructions[row * width..][..width].iter().enumerate() {
            let error = (f64::from(*y) - recon[row][c]).abs();
            assert!(error <= 4.0 * bound, "{place}, column {c}");
        }
    }
}

#[test]
fn matching_pursuit_is_saelens_s() {
    for (name, steps, threshold, repeat, bias) in [
        ("saelens_matching_pursuit", 12, 0.3, true, true),
        ("saelens_matching_pursuit_dup", 64, 0.01, true, true),
        ("saelens_matching_pursuit_no_bdec", 9, 0.0, true, false),
    ] {
        let case = Case::new(name);
        let tensors = case.safetensors("sae_weights.safetensors");
        let atoms = rows_of(&tensors["W_dec"]);
        let b_dec = bias.then_some(&tensors["b_dec"].values[..]);
        let rule = Pursuit::matching(steps, threshold, repeat);
        check_pursuit(&case, &atoms, b_dec, &rule, |x| {
            pursuit::saelens(&atoms, x, steps, threshold, repeat)
        });
    }
}

#[test]
fn matching_pursuit_is_overcomplete_s() {
    let case = Case::new("overcomplete_mp");
    let atoms = rows_of(&case.torch("dictionary.pt", "data/0", &[256, 64]));
    let rule = Pursuit::matching_any(9);
    check_pursuit(&case, &atoms, None, &rule, |x| {
        pursuit::overcomplete(&atoms, x, 9)
    });
}

#[test]
fn signed_matching_pursuit_is_itda_s() {
    let case = Case::new("itda");
    let atoms = rows_of(&case.torch("atoms.pt", "data/0", &[256, 64]));
    let rule = Pursuit::matching_signed(8);
    check_pursuit(&case, &atoms, None, &rule, |x| pursuit::itda(&atoms, x, 8));
}

#[test]
fn crosscoders_read_three_dimensional_tensors_in_place() {
    for (name, threshold) in [("crosscoder_relu", false), ("crosscoder_batchtopk", true)] {
        let case = Case::new(name);
        let tensors = case.safetensors("model.safetensors");
        let &[layers, d, n] = &tensors["encoder.weight"].shape[..] else {
            panic!()
        };
        let flat = |name: &str, shape: &[usize]| Array {
            shape: shape.to_vec(),
            values: tensors[name].values.clone(),
        };
        let part =
            |layer: usize, i: usize| &tensors["decoder.weight"].values[(layer * n + i) * d..][..d];
        let rows = (0..n).map(|i| {
            (0..layers)
                .flat_map(|layer| part(layer, i).to_vec())
                .collect()
        });
        let norm = |i: usize| (0..layers).map(|layer| pursuit::norm(part(layer, i))).sum();
        let model = Affine {
            encoder: transposed(&flat("encoder.weight", &[layers * d, n])),
            bias: tensors["encoder.bias"].values.clone(),
            center: None,
            decoder: rows.collect(),
            decoder_bias: tensors["decoder.bias"].values.clone(),
        };
        let activation = match threshold {
            false => Activation::Relu,
            true => jump(Thresholds::Scalar(tensors["threshold"].values[0] as f32)),
        };
        let weight: Vec<f64> = (0..n).map(norm).collect();
        model.check(&case, |stored| {
            let mut parts = model.parts(activation.clone(), stored);
            if stored == Stored::Columns {
                // As the file has them.
                let values = |name: &str| tensors[name].values.clone();
                let decoder = tensor("decoder", &[layers, n, d], values("decoder.weight"));
                parts.decoder = Matrix::side_by_side(&decoder, n, d).unwrap();
                assert!(parts.decoder.is_mapped());
            }
            parts.rank_weight = threshold.then(|| weight.clone());
            parts
        });
    }
}

#[test]
fn cross_layer_transcoders_are_one_model_in_blocks() {
    for name in ["circuit_tracer_clt", "circuit_tracer_clt_jump"] {
        let case = Case::new(name);
        let model = CrossLayer::of(&case);
        let inputs = case.rows.f32_values();
        let make = |stored| model.parts(stored);
        let (features, y) = parts::run(make, &inputs, case.rows.shape[1]);
        let (golden, recon) = (case.golden("features64"), case.golden("recon64"));
        for (row, found) in dense(&features, model.layers * model.n).iter().enumerate() {
            let place = format!("{name}, row {row}");
            let bound = |i: usize| {
                let (layer, place) = (i / model.n, i % model.n);
                let x = &case.row(row)[layer * model.d..][..model.d];
                1e-12 * absolute_dot(&model.encoders[layer][place], x)
            };
            assert_values(found, &golden[row], bound, &place);
            for (c, expected) in recon[row].iter().enumerate() {
                let error = (f64::from(y[row * recon[row].len() + c]) - expected).abs();
                assert!(error <= 1e-5, "{place}, column {c}: {error}");
            }
        }
    }
}
