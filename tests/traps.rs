//! The traps that the fixtures' `case.json` files name: for each one the wrong reading, written in
//! reference code, and the proof that the goldens catch it. A trap whose wrong reading is no number
//! (a file that such a reader would not open at all) is listed as that, and its case opens here.
//!
//! For every case the right reading meets the golden, so it is the wrong step alone that violates
//! it; and the library meets the golden under the same comparison.
#![cfg(all(feature = "std", feature = "torch", feature = "yaml"))]

mod library;
mod publishers;

use publishers::case::{self, Arrays, Case, transposed};
use publishers::{Norm, Reading, Rule, norm, readings};
use sae::{Level, Sae};
use std::collections::{BTreeMap, BTreeSet};

/// What the wrong reading does to the right one.
type Mistake = fn(&mut Reading, &Arrays, &Case);

/// A wrong pursuit: dictionary, row and steps to values.
type WrongPursuit = fn(&[Vec<f64>], &[f64], usize) -> Vec<f64>;

enum Trap {
    /// The numbers it gets wrong.
    Wrong(Mistake),
    /// A reader that falls into it does not open the file, for the reason in words.
    DoesNotOpen(&'static str),
    /// No golden shows it; the test that does, in words.
    Elsewhere(&'static str),
    /// The wrong reading is a separate computation, written below under this name.
    Pursuit(WrongPursuit),
}
use Trap::{DoesNotOpen, Elsewhere, Wrong};

fn rows(arrays: &Arrays, name: &str) -> Vec<f64> {
    arrays[name].values.clone()
}

fn centre(reading: &mut Reading) {
    reading.centre = Some(reading.b_dec.clone());
}

fn no_centre(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.centre = None;
}

fn with_centre(reading: &mut Reading, _: &Arrays, _: &Case) {
    centre(reading);
}

fn relu(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.rule = Rule::Relu;
}

/// The same numbers in another order: a matrix read along the wrong axis.
fn scrambled(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (n, d) = (matrix.len(), matrix[0].len());
    let flat: Vec<f64> = transposed(matrix).concat();
    (0..n).map(|i| flat[i * d..][..d].to_vec()).collect()
}

fn wrong_axis_encoder(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.w_enc = scrambled(&reading.w_enc);
}

fn wrong_axis_decoder(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.w_dec = scrambled(&reading.w_dec);
}

fn transposed_skip(reading: &mut Reading, _: &Arrays, _: &Case) {
    let skip = reading.skip.as_ref().unwrap();
    reading.skip = Some(match skip.len() == skip[0].len() {
        true => transposed(skip),
        false => scrambled(skip),
    });
}

fn no_skip(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.skip = None;
}

fn no_norm(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.norm = Norm::None;
}

fn layer_norm(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.norm = Norm::Layer { unbiased: true };
}

/// The standard deviation over d, not d - 1; and an output multiplied with sigma + eps would be
/// caught by the same goldens.
fn biased_norm(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.norm = Norm::Layer { unbiased: false };
}

fn unranked(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.rank.fill(1.0);
}

fn thresholds_as_logs(reading: &mut Reading, _: &Arrays, _: &Case) {
    if let Rule::Jump { threshold, .. } = &mut reading.rule {
        threshold.iter_mut().for_each(|t| *t = t.ln());
    }
}

fn plain_r_mag(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    reading.scale = rows(arrays, "r_mag");
}

fn magnitude_bias_for_the_gate(reading: &mut Reading, _: &Arrays, _: &Case) {
    if let Rule::Gated { gate } = &mut reading.rule {
        *gate = reading.bias.clone();
    }
}

fn top_k_instead(reading: &mut Reading, _: &Arrays, case: &Case) {
    let k = case.config()["trainer"]["k"].as_u64().unwrap_or(9) as usize;
    reading.rule = readings::top_k(k);
}

fn value_order(reading: &mut Reading, _: &Arrays, _: &Case) {
    if let Rule::TopK {
        magnitude, relu, ..
    } = &mut reading.rule
    {
        (*magnitude, *relu) = (false, true);
    }
}

fn bfloat(value: f64) -> f64 {
    let bits = (value as f32).to_bits();
    f64::from(f32::from_bits(
        (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000,
    ))
}

/// Encoder weights times exp(r_mag), rounded to the weights' format before the product.
fn narrow_product(reading: &mut Reading, _: &Arrays, _: &Case) {
    for (row, scale) in reading.w_enc.iter_mut().zip(&mut reading.scale) {
        row.iter_mut().for_each(|w| *w = bfloat(*w * *scale));
        *scale = 1.0;
    }
    // The gate's products would be scaled too.
}

fn half_as_bfloat(reading: &mut Reading, _: &Arrays, _: &Case) {
    let other = |value: f64| {
        let bits = half::f16::from_f64(value).to_bits();
        f64::from(f32::from_bits(u32::from(bits) << 16))
    };
    reading
        .w_enc
        .iter_mut()
        .flatten()
        .for_each(|w| *w = other(*w));
}

fn bfloat_as_half(reading: &mut Reading, _: &Arrays, _: &Case) {
    let other = |value: f64| {
        let bits = ((value as f32).to_bits() >> 16) as u16;
        half::f16::from_bits(bits).to_f64()
    };
    reading
        .w_enc
        .iter_mut()
        .flatten()
        .for_each(|w| *w = other(*w));
}

fn bfloat_threshold_as_half(reading: &mut Reading, _: &Arrays, _: &Case) {
    if let Rule::Jump { threshold, .. } = &mut reading.rule {
        for value in threshold {
            let bits = ((*value as f32).to_bits() >> 16) as u16;
            *value = half::f16::from_bits(bits).to_f64();
        }
    }
}

fn bfloat_skip_as_half(reading: &mut Reading, _: &Arrays, _: &Case) {
    for value in reading.skip.iter_mut().flatten().flatten() {
        let bits = ((*value as f32).to_bits() >> 16) as u16;
        *value = half::f16::from_bits(bits).to_f64();
    }
}

fn without_relu(reading: &mut Reading, _: &Arrays, _: &Case) {
    if let Rule::Jump { relu, .. } | Rule::TopK { relu, .. } = &mut reading.rule {
        *relu = false;
    }
}

fn negatives_dropped(reading: &mut Reading, _: &Arrays, _: &Case) {
    if let Rule::TopK { relu, .. } = &mut reading.rule {
        *relu = true;
    }
}

fn unfolded_factor(reading: &mut Reading, _: &Arrays, case: &Case) {
    let s = case.given("norm_scaling_factor").unwrap();
    readings::fold(reading, 1.0 / s);
}

fn raw_units(reading: &mut Reading, arrays: &Arrays, case: &Case) {
    unfolded_factor(reading, arrays, case);
    let s = case.given("norm_scaling_factor").unwrap();
    if let Rule::Jump { threshold, .. } = &mut reading.rule {
        threshold.iter_mut().for_each(|t| *t /= s);
    }
    reading.bias.iter_mut().for_each(|b| *b /= s);
}

fn unit_decoder(reading: &mut Reading, _: &Arrays, _: &Case) {
    for (i, row) in reading.w_dec.iter_mut().enumerate() {
        let length = norm(row);
        row.iter_mut().for_each(|w| *w /= length);
        reading.scale[i] *= length;
        reading.bias[i] *= length;
    }
}

fn decoder_columns_as_stored(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    reading.w_dec = arrays["blocks-6-hook_resid_pre.decoder.weight"].columns();
}

fn other_hook(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    reading.w_enc = arrays["blocks-10-hook_resid_pre.encoder.0.weight"].rows();
}

fn without_multiplier(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    let multiplier = arrays["dictionary.multiplier"].values[0].exp();
    reading
        .w_dec
        .iter_mut()
        .flatten()
        .for_each(|w| *w /= multiplier);
}

fn raw_mixture(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    // The rows of W as they are stored, not ReLU and normalised to a sum of 1.
    let points = arrays["dictionary.C"].rows();
    let mixtures = arrays["dictionary.W"].rows();
    let mut rows = arrays["dictionary.Relax"].rows();
    for (row, mixture) in rows.iter_mut().zip(&mixtures) {
        for (weight, point) in mixture.iter().zip(&points) {
            row.iter_mut()
                .zip(point)
                .for_each(|(to, p)| *to += weight * p);
        }
    }
    reading.w_dec = rows;
}

fn without_relaxation(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    let relax = arrays["dictionary.Relax"].rows();
    let multiplier = arrays["dictionary.multiplier"].values[0].exp();
    for (row, relax) in reading.w_dec.iter_mut().zip(&relax) {
        row.iter_mut()
            .zip(relax)
            .for_each(|(w, r)| *w -= r * multiplier);
    }
}

fn inclusive_off(reading: &mut Reading, _: &Arrays, case: &Case) {
    // The golden rows hold no value equal to the threshold: a threshold above one that passes
    // stands for `>` where `>=` is meant.
    let smallest = case.golden("features64").unwrap();
    let smallest = smallest.iter().flatten().filter(|v| **v > 0.0);
    let smallest = smallest.fold(f64::INFINITY, |least, v| least.min(*v));
    if let Rule::Jump { threshold, .. } = &mut reading.rule {
        threshold.fill(smallest);
    }
    if let Rule::Jump { inclusive, .. } = &mut reading.rule {
        *inclusive = false;
    }
}

fn group_by_stride(reading: &mut Reading, _: &Arrays, _: &Case) {
    // Top-k over all features instead of one per group.
    if let Rule::TopK { k, groups, .. } = &mut reading.rule {
        (*k, *groups) = (*groups, 1);
    }
}

fn layers_interleaved(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    // [L, n, d] read as [n, L, d].
    let shape = &arrays["decoder.weight"].shape;
    let width = shape[0] * shape[2];
    let flat = &arrays["decoder.weight"].values;
    reading.w_dec = flat.chunks_exact(width).map(Vec::from).collect();
}

fn summed_targets(reading: &mut Reading, _: &Arrays, case: &Case) {
    let layers = case.json["layers"].as_u64().unwrap() as usize;
    let d = reading.b_dec.len() / layers;
    for (i, row) in reading.w_dec.iter_mut().enumerate() {
        let own = i / 200 * d;
        let sum: Vec<f64> = (0..d)
            .map(|j| (0..layers).map(|t| row[t * d + j]).sum())
            .collect();
        row.fill(0.0);
        row[own..own + d].copy_from_slice(&sum);
    }
}

fn targets_from_zero(reading: &mut Reading, _: &Arrays, case: &Case) {
    let layers = case.json["layers"].as_u64().unwrap() as usize;
    let d = reading.b_dec.len() / layers;
    for (i, row) in reading.w_dec.iter_mut().enumerate() {
        row.rotate_left(i / 200 * d);
    }
}

fn biases_of_sources(reading: &mut Reading, _: &Arrays, case: &Case) {
    let layers = case.json["layers"].as_u64().unwrap() as usize;
    let d = reading.b_dec.len() / layers;
    reading.b_dec.rotate_right(d);
}

fn skip_of_centred(reading: &mut Reading, _: &Arrays, _: &Case) {
    // W (x - b_dec): the output loses W b_dec.
    let skip = reading.skip.clone().unwrap();
    let shift = reading.b_dec.clone();
    for (y, row) in reading.b_dec.iter_mut().zip(&skip) {
        *y -= publishers::dot(row, &shift);
    }
}

fn undone(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.undo = true;
}

fn skip_of_normalised(reading: &mut Reading, _: &Arrays, case: &Case) {
    // Of the first row: its normalised form goes through the skip.
    let x = case.row(0);
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let skip = reading.skip.clone().unwrap();
    for (y, row) in reading.b_dec.iter_mut().zip(&skip) {
        *y -= mean * row.iter().sum::<f64>();
    }
}

fn norm_not_undone(reading: &mut Reading, _: &Arrays, _: &Case) {
    reading.undo = false;
}

fn finetuned_values(reading: &mut Reading, arrays: &Arrays, _: &Case) {
    // Reported in the features, too.
    for (i, factor) in rows(arrays, "finetuning_scaling_factor").iter().enumerate() {
        reading.scale[i] *= factor;
        reading.bias[i] *= factor;
        reading.w_dec[i].iter_mut().for_each(|w| *w /= factor);
    }
}

fn threshold_in_raw_units(reading: &mut Reading, _: &Arrays, case: &Case) {
    let x = case.row(0);
    let factor = (x.len() as f64).sqrt() / norm(&x);
    if let Rule::Jump { threshold, .. } = &mut reading.rule {
        threshold.iter_mut().for_each(|t| *t *= factor);
    }
}

fn k_of(reading: &mut Reading, k: usize) {
    if let Rule::TopK { k: own, .. } = &mut reading.rule {
        *own = k;
    }
}

fn twice_k(reading: &mut Reading, _: &Arrays, _: &Case) {
    if let Rule::TopK { k, .. } = reading.rule {
        k_of(reading, 2 * k);
    }
}

fn embedding_unscaled(reading: &mut Reading, _: &Arrays, _: &Case) {
    let root = (reading.b_dec.len() as f64).sqrt();
    reading.scale.iter_mut().for_each(|s| *s *= root);
    reading.w_dec.iter_mut().flatten().for_each(|w| *w /= root);
}

/// Signed values, but of the largest correlation instead of the largest magnitude.
fn largest_correlation(atoms: &[Vec<f64>], x: &[f64], steps: usize) -> Vec<f64> {
    pursuit(atoms, x, steps, |p| p, |_| true, None)
}

fn never_stops(atoms: &[Vec<f64>], x: &[f64], _: usize) -> Vec<f64> {
    pursuit(atoms, x, atoms[0].len(), |p| p, |p| p > 0.0, None)
}

fn nine_steps_only(atoms: &[Vec<f64>], x: &[f64], _: usize) -> Vec<f64> {
    pursuit(atoms, x, 2, |p| p, |p| p > 0.0, None)
}

fn pursuit(
    atoms: &[Vec<f64>],
    x: &[f64],
    steps: usize,
    rank: fn(f64) -> f64,
    accept: fn(f64) -> bool,
    stop: Option<f64>,
) -> Vec<f64> {
    let mut values = vec![0.0; atoms.len()];
    let mut residual = x.to_vec();
    for _ in 0..steps {
        let p: Vec<f64> = atoms
            .iter()
            .map(|atom| publishers::dot(atom, &residual))
            .collect();
        let best = (0..p.len()).fold(
            0,
            |best, i| if rank(p[i]) > rank(p[best]) { i } else { best },
        );
        if !accept(p[best]) || stop.is_some_and(|stop| norm(&residual) < stop) {
            break;
        }
        values[best] += p[best];
        residual
            .iter_mut()
            .zip(&atoms[best])
            .for_each(|(r, a)| *r -= p[best] * a);
    }
    values
}

#[test]
fn every_trap_has_a_wrong_reading_that_its_golden_catches() {
    let mut right = BTreeSet::new();
    let (mut wrong_ones, mut uncaught) = (0, Vec::new());
    for (name, words, trap) in traps() {
        let case = case::case(name);
        let listed = case.json["traps"].as_array().unwrap();
        assert!(
            listed.iter().any(|trap| trap == words),
            "{name} has no trap: {words}"
        );
        if name == "temporal" {
            continue;
        }
        let reading = readings::of(&case).unwrap_or_else(|| panic!("{name}: no reading"));
        let golden = case.golden("features").unwrap();
        let golden_y = case.golden("recon").unwrap();
        let (library_features, library_y) = if right.insert(name) {
            let options = library::options(&case.given, Level::best());
            let sae = Sae::open(&case.checkpoint, &options);
            case::results(
                &case,
                &sae.unwrap_or_else(|error| panic!("{name}: {error}")),
            )
        } else {
            (vec![], vec![])
        };
        let is_pursuit = name.contains("pursuit") || matches!(name, "itda" | "overcomplete_mp");
        let mistaken = match trap {
            Wrong(mistake) => {
                let mut wrong = reading.clone();
                mistake(&mut wrong, &case.tensors(), &case);
                Some(wrong)
            }
            _ => None,
        };
        let mut violated = false;
        for row in 0..case.n {
            let x = case.row(row);
            let differs = |found: &[f64], y: &[f64]| {
                case::differences(&reading, &x, found, y, &golden[row], &golden_y[row])
            };
            if let (Some(found), Some(y)) = (library_features.get(row), library_y.get(row)) {
                let differences = differs(found, y);
                assert!(differences.is_empty(), "{name}, library: {differences:?}");
                if !is_pursuit {
                    let found = reading.encode(&x);
                    let differences = differs(&found, &reading.decode(&found, &x));
                    assert!(
                        differences.is_empty(),
                        "{name}, right reading: {differences:?}"
                    );
                }
            }
            if let Some(wrong) = &mistaken {
                let found = wrong.encode(&x);
                violated |= !differs(&found, &wrong.decode(&found, &x)).is_empty();
            }
            if let Trap::Pursuit(wrong) = &trap {
                let steps = golden[row].iter().filter(|value| **value != 0.0).count();
                let found = wrong(&reading.w_dec, &reading.input(&x), steps);
                violated |= !differs(&found, &golden_y[row]).is_empty();
            }
        }
        match trap {
            DoesNotOpen(reason) | Elsewhere(reason) => assert!(!reason.is_empty()),
            _ if violated => wrong_ones += 1,
            _ => uncaught.push(format!("{name}: {words}")),
        }
    }
    assert!(uncaught.is_empty(), "no golden catches {uncaught:#?}");
    assert!(wrong_ones > 90, "{wrong_ones}");
}

#[test]
fn every_trap_of_every_case_is_listed() {
    let listed: BTreeSet<&str> = traps().iter().map(|(_, words, _)| *words).collect();
    let mut missing = BTreeMap::new();
    for case in case::cases() {
        for trap in case.json["traps"].as_array().into_iter().flatten() {
            let words = trap.as_str().unwrap();
            if !listed.contains(words) {
                missing.insert(words.to_string(), case.name.clone());
            }
        }
    }
    assert!(
        missing.is_empty(),
        "traps without a wrong reading: {missing:#?}"
    );
}

/// (case, the trap's words, what falls into it).
#[rustfmt::skip]
fn traps() -> Vec<(&'static str, &'static str, Trap)> {
    const NAMES: &str = "tensors are looked for under other names or in another container";
    vec![
        ("bussmann_jumprelu", "log threshold; b_enc added", Wrong(|r, _, _| r.bias.fill(0.0))),
        ("bussmann_topk", "TopK/BatchTopK/Matryoshka do NOT add b_enc although it is stored", Wrong(|r, t, _| r.bias = rows(t, "b_enc"))),
        ("circuit_tracer_clt", "W_dec_l is [d_sae, layers-l, d]: index j writes to layer l+j", Wrong(targets_from_zero)),
        ("circuit_tracer_clt", "b_dec_t sits in the ENC file of layer t", Wrong(biases_of_sources)),
        ("circuit_tracer_clt_jump", "decoders must not be summed for reconstruction", Wrong(summed_targets)),
        ("circuit_tracer_plt", "W_enc is [d_sae, d_in], W_dec is [d_sae, d_out]", Wrong(wrong_axis_encoder)),
        ("circuit_tracer_plt_skip", "x @ W_skip^T", Wrong(transposed_skip)),
        ("circuit_tracer_plt_jump_skip", "activation_function.threshold; no extra ReLU in circuit-tracer (thresholds > 0 here)", Wrong(relu)),
        ("crosscoder_relu", "encoder.weight [L,d,n], decoder.weight [L,n,d]", Wrong(layers_interleaved)),
        ("crosscoder_batchtopk", "gate on f * sum_l ||dec_l|| > threshold", Wrong(unranked)),
        ("deepseek_r1", "both matrices stored transposed w.r.t. SAELens", Wrong(wrong_axis_decoder)),
        ("deepseek_r1", "no input bias", Wrong(with_centre)),
        ("deepseek_r1", "same keys as dictionary_learning AutoEncoderNew", Wrong(with_centre)),
        ("dl_autoencoder", "'bias' is both the input shift and the output bias", Wrong(no_centre)),
        ("dl_autoencoder", "encoder.weight is stored as a TRANSPOSED (column-major) view: honour strides", Wrong(wrong_axis_encoder)),
        ("dl_autoencoder", "from_pretrained would rescale to unit decoder norm; the golden does not", Wrong(|r, _, _| {
            // Unit norms as stored would not show: a decoder of twice the length, made unit.
            for (i, row) in r.w_dec.iter_mut().enumerate() {
                let length = norm(row) * 2.0;
                row.iter_mut().for_each(|w| *w /= length);
                r.scale[i] *= length;
                r.bias[i] *= length;
            }
        })),
        ("dl_autoencoder_new", "decoder.bias; nothing subtracted from the input", Wrong(with_centre)),
        ("dl_batchtopk", "same tensors as TopK: only config.json dict_class tells them apart", Wrong(top_k_instead)),
        ("dl_batchtopk", "scalar threshold, strict >", Wrong(relu)),
        ("dl_batchtopk", "threshold used by default", Wrong(relu)),
        ("dl_batchtopk_unset_threshold", "threshold -1 = unset: every positive activation passes", Wrong(without_relu)),
        ("dl_gated", "encoder without bias", Wrong(magnitude_bias_for_the_gate)),
        ("dl_gated", "exp(r_mag)", Wrong(plain_r_mag)),
        ("dl_jumprelu", "not transposed (W_enc [d_in,d_sae])", Wrong(wrong_axis_encoder)),
        ("dl_jumprelu", "b_dec NOT subtracted", Wrong(with_centre)),
        ("dl_jumprelu", "negative threshold: ReLU applies", Wrong(without_relu)),
        ("dl_matryoshka", "group_sizes I64 buffer", DoesNotOpen("an integer tensor is taken for an unknown one")),
        ("dl_matryoshka", "features_groupsN / recon_groupsN: only the first N groups active", Wrong(|r, _, _| {
            if let Rule::Jump { threshold, .. } = &mut r.rule {
                threshold[32..].fill(f64::INFINITY);
            }
        })),
        ("dl_topk", "0-dim I32 buffer k", DoesNotOpen("an integer scalar is taken for an unknown tensor")),
        ("dl_topk", "threshold is stored but NOT used by default", Wrong(|r, t, _| {
            r.rule = readings::jump(vec![t["threshold"].values[0]; r.w_enc.len()], true);
        })),
        ("dl_topk_old_no_threshold", "old file: no threshold entry", DoesNotOpen("the threshold is required")),
        ("e2e_sae", "decoder columns are L2-normalised at load", Wrong(decoder_columns_as_stored)),
        ("e2e_sae", "several hook points in one file; '.' is '-' in keys", Wrong(other_hook)),
        ("gemma_scope_1_res", "b_dec NOT subtracted from the input", Wrong(with_centre)),
        ("gemma_scope_1_res", "no config file: shapes come from the arrays", DoesNotOpen("a config is required")),
        ("gemma_scope_1_att", "scaling_factor of ones: ignore", DoesNotOpen("the tensor is taken for an unknown one")),
        ("gemma_scope_1_deflate", "deflate-compressed npz members", DoesNotOpen("members are mapped as stored")),
        ("gemma_scope_1_embedding", "embedding SAEs: SAELens divides W_enc and multiplies W_dec by sqrt(d_in)", Wrong(embedding_unscaled)),
        ("gemma_scope_2_resid", "lower-case keys", DoesNotOpen(NAMES)),
        ("gemma_scope_2_attn_bf16", "BF16", Wrong(bfloat_as_half)),
        ("gemma_scope_2_mlp_no_config", "config.json missing: infer", DoesNotOpen("a config is required")),
        ("gemma_scope_2_transcoder_affine", "affine_skip_connection is [d_in, d_out]: y += x @ it", Wrong(transposed_skip)),
        ("gemma_scope_2_transcoder_affine", "d_out != d_in", Wrong(no_skip)),
        ("gemma_scope_2_transcoder_affine_square", "d_out == d_in: a transposed skip is not caught by its shape", Wrong(transposed_skip)),
        ("goodfire_pt_bf16", "BF16 storages in a torch zip", Wrong(bfloat_as_half)),
        ("hook_z_kk", "config next to the file: NAME_cfg.json", DoesNotOpen("a config named after the file is not looked for")),
        ("hook_z_kk", "b_dec subtracted", Wrong(no_centre)),
        ("hook_z_kk", "not transposed", Wrong(wrong_axis_encoder)),
        ("itda", "bare tensors, not a dict", DoesNotOpen("the file has no names")),
        ("itda", "signed matching pursuit, k steps, no biases", Trap::Pursuit(largest_correlation)),
        ("llama_scope_f32", "one scalar threshold in hyperparams.json", Wrong(relu)),
        ("llama_scope_f32", "decoder stored [d_in, d_sae]", Wrong(wrong_axis_decoder)),
        ("llama_scope_f32", "the factor sqrt(d)/avg_norm is folded: SAELens reports features in normalised units, the original code in raw units", Wrong(raw_units)),
        ("llama_scope_bf16", "BF16 weights as published", Wrong(bfloat_as_half)),
        ("llama_scope_nonunit_decoder", "decoder columns are NOT unit norm: SAELens and the original code disagree; a library must choose, document it, and ideally warn", Wrong(unit_decoder)),
        ("llama_scope_r1_distill", "threshold = exp(log_jumprelu_threshold)", Wrong(thresholds_as_logs)),
        ("llama_scope_r1_distill", "factor lives outside the files: pass norm_scaling_factor", Wrong(unfolded_factor)),
        ("mlsae", "no latent bias", Wrong(|r, t, _| {
            // pre_encoder_bias taken for one, after the product.
            let shift = rows(t, "pre_encoder_bias");
            r.centre = None;
            for i in 0..r.bias.len() {
                r.bias[i] = shift[i % shift.len()];
            }
        })),
        ("mlsae", "standardize: layer norm with unbiased std", Wrong(biased_norm)),
        ("mlsae", "I64 last_nonzero", DoesNotOpen("an integer tensor is taken for an unknown one")),
        ("openai_v4_relu", "non-tensor entries 'activation' (string) and 'activation_state_dict'", DoesNotOpen("only tensors are read")),
        ("openai_v4_relu", "I64 buffer stats_last_nonzero", DoesNotOpen("an integer tensor is taken for an unknown one")),
        ("openai_tied", "tied: decoder.linear.weight is the encoder; two names share one storage", Wrong(wrong_axis_decoder)),
        ("openai_v1_relu_legacy_pickle", "legacy (non-zip) torch.save stream", DoesNotOpen("only zip files are read")),
        ("openai_v4_relu", "ReLU: no LayerNorm", Wrong(layer_norm)),
        ("openai_v5_topk", "TopK implies input LayerNorm (unbiased std)", Wrong(no_norm)),
        ("openai_v5_topk", "decoder stored column-major", Wrong(wrong_axis_decoder)),
        ("openai_v5_topk_identity", "postact_fn Identity: negative values among the top-k are kept", Wrong(negatives_dropped)),
        ("openai_v5_topk_identity", "extra scalar entries 'activation.k', 'activation.postact_fn' as today's code writes: ignore", DoesNotOpen("plain values are taken for unknown tensors")),
        ("openmoss_jumprelu", "gate on pre*||W_D row||, report unscaled", Wrong(unranked)),
        ("openmoss_topk", "0-dim dataset_average_activation_norm.* may be garbage (NaN here): ignore unless norm_activation is dataset-wise", Wrong(|r, _, _| readings::fold(r, f64::NAN))),
        ("overcomplete_batchtopk", "running_threshold is not in the state_dict (meta.json)", Wrong(relu)),
        ("overcomplete_batchtopk", "keeps values >= threshold", Wrong(inclusive_off)),
        ("overcomplete_jump", "thresholds are logs: exp at load", Wrong(thresholds_as_logs)),
        ("overcomplete_mp", "exactly k steps, no ReLU, an atom may repeat", Trap::Pursuit(nine_steps_only)),
        ("overcomplete_mp", "no encoder in the state_dict", DoesNotOpen("an encoder is required")),
        ("overcomplete_ra_jump", "relaxed archetypal + log thresholds", Wrong(without_relaxation)),
        ("overcomplete_ra_topk", "dictionary = (W C + Relax) * exp(multiplier)", Wrong(without_relaxation)),
        ("overcomplete_ra_topk", "C holds the candidate points", Wrong(raw_mixture)),
        ("overcomplete_topk", "top_k only as an attribute (meta.json)", Wrong(twice_k)),
        ("overcomplete_topk", "dictionary rows are l2-normalised", Elsewhere("the stored rows happen to be of unit norm: tests/forms.rs opens a file whose rows are not")),
        ("overcomplete_topk", "no output bias", Wrong(|r, _, _| r.b_dec.fill(0.5))),
        ("overcomplete_topk_multiplier", "dictionary times exp(multiplier)", Wrong(without_multiplier)),
        ("qwen_scope", "same key names as SAELens but W_enc is [d_sae, d_in] and W_dec is [d_in, d_sae]", Wrong(wrong_axis_encoder)),
        ("qwen_scope", "k only in the repository name", Wrong(twice_k)),
        ("saelens_abstopk", "rank by magnitude, keep the sign", Wrong(value_order)),
        ("saelens_abstopk_decoder_norm", "both", Wrong(value_order)),
        ("saelens_batchtopk_export", "exported as jumprelu with a constant threshold", Wrong(relu)),
        ("saelens_batchtopk_export", "training_checkpoint/ holds topk_threshold as 0-dim F64 and architecture batchtopk", Elsewhere("tests/conventions.rs opens the training checkpoints")),
        ("saelens_batchtopk_folded_scale", "scale folded before export", Wrong(|r, _, _| readings::fold(r, 1.1))),
        ("saelens_gated", "no b_enc", Wrong(magnitude_bias_for_the_gate)),
        ("saelens_gated", "two gates; r_mag is a log scale", Wrong(plain_r_mag)),
        ("saelens_gated_bf16", "exp(r_mag) times BF16 weights: upcast first", Wrong(narrow_product)),
        ("saelens_jumprelu", "strict >", Wrong(relu)),
        ("saelens_jumprelu", "thresholds 0 and < 0 in features 0..2: a ReLU still applies", Wrong(without_relu)),
        ("saelens_jumprelu_bf16", "BF16 threshold", Wrong(bfloat_threshold_as_half)),
        ("saelens_jumprelu_f16_hook_z", "hook_z", DoesNotOpen("rows of separate heads are expected")),
        ("saelens_jumprelu_f16_hook_z", "F16", Wrong(half_as_bfloat)),
        ("saelens_jumprelu_rescale_no_bdec", "threshold is in normalised units", Wrong(threshold_in_raw_units)),
        ("saelens_jumprelu_skip_transcoder", "b_dec has d_out entries", DoesNotOpen("b_dec is checked against d_in")),
        ("saelens_jumprelu_skip_transcoder", "y += x W_skip^T with the raw x", Wrong(transposed_skip)),
        ("saelens_jumprelu_skip_transcoder_layer_norm", "skip uses raw x", Wrong(skip_of_normalised)),
        ("saelens_jumprelu_skip_transcoder_layer_norm", "SAELens does not undo the normalisation on a transcoder output", Wrong(undone)),
        ("saelens_jumprelu_training_export", "extra training keys in cfg metadata", DoesNotOpen("unknown keys are errors")),
        ("saelens_matching_pursuit", "no W_enc, no b_enc in the file", DoesNotOpen("an encoder is required")),
        ("saelens_matching_pursuit", "stops on small residual", Trap::Pursuit(never_stops)),
        ("saelens_matching_pursuit_dup", "max_iterations null = d_in", Trap::Pursuit(nine_steps_only)),
        ("saelens_matching_pursuit_dup", "stops when the support repeats", Trap::Pursuit(never_stops)),
        ("saelens_matching_pursuit_no_bdec", "b_dec unused on both sides when not applied at the input", Wrong(|r, t, _| r.b_dec = rows(t, "b_dec"))),
        ("saelens_matryoshka_export", "exported as jumprelu", Wrong(relu)),
        ("saelens_skip_transcoder_bf16", "BF16 W_skip", Wrong(bfloat_skip_as_half)),
        ("saelens_standard", "b_dec subtracted from the input", Wrong(no_centre)),
        ("saelens_standard_bf16", "BF16 weights; golden computes in float32 after upcast", Wrong(bfloat_as_half)),
        ("saelens_standard_expected_average", "no-op when loaded from disk: the factor lives in the registry, not in the file", Wrong(|r, _, case| {
            readings::fold(r, (r.b_dec.len() as f64).sqrt() / norm(&case.row(0)));
        })),
        ("saelens_standard_f16", "F16 weights; golden computes in float32 after upcast", Wrong(half_as_bfloat)),
        ("saelens_standard_hook_z", "reshape hook_z", DoesNotOpen("rows of separate heads are expected")),
        ("saelens_standard_layer_norm", "unbiased std, eps added to std, output times std without eps", Wrong(biased_norm)),
        ("saelens_standard_rescale", "sqrt(d)/||x|| per token, undone on the output", Wrong(norm_not_undone)),
        ("saelens_standard_whitening_cfg", "no-op at run time (folded at export)", DoesNotOpen("the value of normalize_activations is taken for an unknown one")),
        ("saelens_topk", "top-k of raw pre-activations, then ReLU", Wrong(twice_k)),
        ("saelens_topk_decoder_norm", "rank and report pre*||W_dec row||, divide before decoding", Wrong(|r, _, _| {
            for i in 0..r.scale.len() {
                let length = r.scale[i];
                r.scale[i] = 1.0;
                r.bias[i] /= length;
                r.w_dec[i].iter_mut().for_each(|w| *w *= length);
            }
        })),
        ("saelens_topk_few_positive", "fewer than k positive pre-activations: L0 < k", Wrong(without_relu)),
        ("saelens_topk_few_positive", "inactive picks are 0", Wrong(without_relu)),
        ("saelens_topk_layer_norm", "shape of the OpenAI v5 re-exports", Wrong(no_norm)),
        ("saelens_topk_training_export", "decoder norms folded or rescale flag kept: follow cfg.json", Wrong(|r, _, _| {
            r.w_dec.iter_mut().flatten().for_each(|w| *w *= 0.5);
        })),
        ("saelens_v3_no_architecture", "no architecture key", DoesNotOpen("the key is required")),
        ("saelens_v3_no_architecture", "hook_point names", Elsewhere("tests/conventions.rs reads the hook's name")),
        ("saelens_v3_no_architecture", "normalize_activations is a bool", DoesNotOpen("a string is expected")),
        ("saelens_v3_no_architecture", "dtype 'torch.float32'", DoesNotOpen("the name of the dtype is unknown")),
        ("saelens_v3_no_architecture", "scaling_factor of ones is ignored", DoesNotOpen("the tensor is taken for an unknown one")),
        ("saelens_v3_normalize_true", "bool true means expected_average_only_in: no-op from disk", Wrong(|r, _, case| {
            readings::fold(r, (r.b_dec.len() as f64).sqrt() / norm(&case.row(0)));
        })),
        ("saelens_v5_finetuning_scale", "finetuning_scaling_factor multiplies acts before decoding, not in the reported acts", Wrong(finetuned_values)),
        ("saelens_v5_finetuning_scale", "SAELens 6 refuses the file", DoesNotOpen("the tensor is unknown to version 6")),
        ("saelens_v5_hook_z_implied", "hook_z implied by hook_name", DoesNotOpen("rows of separate heads are expected")),
        ("saelens_v5_hook_z_implied", "normalize_activations null", DoesNotOpen("a string is expected")),
        ("saelens_v5_rescale", "mistral-7b style override", Wrong(no_norm)),
        ("saelens_v5_tanh_relu", "tanh(relu(pre)); SAELens 6 silently computes relu: a library must compute tanh or refuse", Wrong(relu)),
        ("saelens_v5_topk_layer_norm", "architecture says standard, activation_fn_str topk decides", Wrong(relu)),
        ("saelens_v5_topk_layer_norm", "k in activation_fn_kwargs", Wrong(twice_k)),
        ("sparsify_topk", "encoder.weight [d_sae,d_in] but W_dec already [d_sae,d_in]", Wrong(wrong_axis_decoder)),
        ("sparsify_groupmax", "k groups of consecutive latents, one maximum per group", Wrong(group_by_stride)),
        ("sparsify_signed", "signed: AbsTopK", Wrong(value_order)),
        ("sparsify_signed", "old cfg.json without activation/transcode keys", DoesNotOpen("the keys are required")),
        ("sparsify_skip_sae", "skip on an autoencoder: raw x, b_dec subtracted only for the encoder", Wrong(skip_of_centred)),
        ("sparsify_topk_bf16_expansion", "num_latents 0: d_in * expansion_factor", DoesNotOpen("a width of 0 is taken for the file's")),
        ("sparsify_transcode", "transcode: b_dec NOT subtracted", Wrong(with_centre)),
        ("sparsify_transcode_skip", "y += x W_skip^T", Wrong(transposed_skip)),
        ("temporal", "needs the whole sequence", DoesNotOpen("refused by name, by the library too")),
    ]
}
