//! The right reading of every format, from its tensors.

use super::case::{Array, Arrays, Case, transposed};
use super::{Norm, Reading, Rule, norm};
use serde_json::Value;

/// The reading of a case; None if its maths is no matter of rows and gates.
pub(crate) fn of(case: &Case) -> Option<Reading> {
    let (t, config) = (case.tensors(), case.config());
    Some(match case.json["format"].as_str().unwrap() {
        "saelens" => saelens(&t, &config),
        "gemma_scope_1" => gemma_scope_1(&t, &case.name),
        "gemma_scope_2" => gemma_scope_2(&t),
        "circuit_tracer_plt" => transcoder(&t),
        "dictionary_learning" => dictionary_learning(&t, &config),
        "qwen_scope" => {
            let mut reading = Reading::new(t["W_enc"].rows(), t["W_dec"].columns());
            reading.rule = top_k(case.json["k"].as_u64().unwrap() as usize);
            biases(&mut reading, &t["b_enc"], &t["b_dec"]);
            reading
        }
        "llama_scope" => llama_scope(&t, &config, case.given("norm_scaling_factor").unwrap()),
        "llama_scope_r1_distill" => {
            let mut reading = linear(&t, "encoder", "decoder");
            reading.rule = jump(exp(&t["log_jumprelu_threshold"]), true);
            fold(&mut reading, case.given("norm_scaling_factor").unwrap());
            reading
        }
        "hook_z_kk" => {
            let mut reading = Reading::new(t["W_enc"].columns(), t["W_dec"].rows());
            biases(&mut reading, &t["b_enc"], &t["b_dec"]);
            reading.centre = Some(reading.b_dec.clone());
            reading
        }
        "goodfire" => linear(&t, "encoder_linear", "decoder_linear"),
        "deepseek_r1" => linear(&t, "encoder", "decoder"),
        "openai" => openai(&t, &case.name),
        "mlsae" => {
            let mut reading =
                Reading::new(t["encoder.weight"].rows(), t["decoder.weight"].columns());
            reading.b_dec = t["pre_encoder_bias"].values.clone();
            reading.centre = Some(reading.b_dec.clone());
            reading.norm = Norm::Layer { unbiased: true };
            reading.rule = top_k(config["k"].as_u64().unwrap() as usize);
            reading
        }
        "e2e_sae" => {
            let hook = "blocks-6-hook_resid_pre";
            let of = |name: &str| &t[&format!("{hook}.{name}")];
            let mut decoder = of("decoder.weight").columns();
            for row in &mut decoder {
                let length = norm(row).max(1e-12);
                row.iter_mut().for_each(|w| *w /= length);
            }
            let mut reading = Reading::new(of("encoder.0.weight").rows(), decoder);
            biases(&mut reading, of("encoder.0.bias"), of("decoder.bias"));
            reading
        }
        "sparsify" => sparsify(&t, &config),
        "openmoss" => {
            let mut reading = Reading::new(t["W_E"].columns(), t["W_D"].rows());
            biases(&mut reading, &t["b_E"], &t["b_D"]);
            reading.rank = reading.w_dec.iter().map(|row| norm(row)).collect();
            reading.rule = match t.get("activation_function.log_jumprelu_threshold") {
                Some(log) => jump(exp(log), false),
                None => top_k(config["top_k"].as_u64().unwrap() as usize),
            };
            reading
        }
        "bussmann" => bussmann(&t, &config),
        "crosscoder" => crosscoder(&t),
        "overcomplete" => overcomplete(&t, case),
        "circuit_tracer_clt" => cross_layer(&t),
        // Pursuits: the dictionary is all there is; the rule below is not theirs.
        "itda" => Reading::new(t[""].rows(), t[""].rows()),
        _ => return None,
    })
}

pub(crate) fn top_k(k: usize) -> Rule {
    Rule::TopK {
        k,
        groups: 1,
        relu: true,
        magnitude: false,
    }
}

pub(crate) fn jump(threshold: Vec<f64>, relu: bool) -> Rule {
    Rule::Jump {
        threshold,
        relu,
        inclusive: false,
    }
}

pub(crate) fn exp(log: &Array) -> Vec<f64> {
    log.values.iter().map(|v| v.exp()).collect()
}

fn biases(reading: &mut Reading, encoder: &Array, decoder: &Array) {
    reading.bias = encoder.values.clone();
    reading.b_dec = decoder.values.clone();
}

/// Two `nn.Linear`.
fn linear(t: &Arrays, encoder: &str, decoder: &str) -> Reading {
    let of = |layer: &str, what: &str| &t[&format!("{layer}.{what}")];
    let mut reading = Reading::new(
        of(encoder, "weight").rows(),
        of(decoder, "weight").columns(),
    );
    biases(&mut reading, of(encoder, "bias"), of(decoder, "bias"));
    reading
}

/// `W_enc *= s; W_dec /= s; b_dec /= s`.
pub(crate) fn fold(reading: &mut Reading, s: f64) {
    reading.scale.iter_mut().for_each(|v| *v *= s);
    reading.w_dec.iter_mut().flatten().for_each(|v| *v /= s);
    reading.b_dec.iter_mut().for_each(|v| *v /= s);
}

fn gemma_scope_2(t: &Arrays) -> Reading {
    let mut reading = Reading::new(t["w_enc"].columns(), t["w_dec"].rows());
    biases(&mut reading, &t["b_enc"], &t["b_dec"]);
    reading.rule = jump(t["threshold"].values.clone(), true);
    reading.skip = t.get("affine_skip_connection").map(Array::columns);
    reading
}

fn transcoder(t: &Arrays) -> Reading {
    let mut reading = Reading::new(t["W_enc"].rows(), t["W_dec"].rows());
    biases(&mut reading, &t["b_enc"], &t["b_dec"]);
    if let Some(threshold) = t.get("activation_function.threshold") {
        reading.rule = jump(threshold.values.clone(), false);
    }
    reading.skip = t.get("W_skip").map(Array::rows);
    reading
}

fn dictionary_learning(t: &Arrays, config: &Value) -> Reading {
    let class = config["trainer"]["dict_class"].as_str().unwrap();
    let k = config["trainer"]["k"].as_u64().unwrap_or(0) as usize;
    let columns = t.contains_key("W_enc");
    let mut reading = match columns {
        true => Reading::new(t["W_enc"].columns(), t["W_dec"].rows()),
        false => Reading::new(t["encoder.weight"].rows(), t["decoder.weight"].columns()),
    };
    let n = reading.w_enc.len();
    let bias = match class {
        "GatedAutoEncoder" => "mag_bias",
        _ if columns => "b_enc",
        _ => "encoder.bias",
    };
    let output = match class {
        "AutoEncoder" => "bias",
        "AutoEncoderNew" => "decoder.bias",
        "GatedAutoEncoder" => "decoder_bias",
        _ => "b_dec",
    };
    biases(&mut reading, &t[bias], &t[output]);
    if !matches!(class, "AutoEncoderNew" | "JumpReluAutoEncoder") {
        reading.centre = Some(reading.b_dec.clone());
    }
    reading.rule = match class {
        "AutoEncoderTopK" => top_k(k),
        "BatchTopKSAE" | "MatryoshkaBatchTopKSAE" => jump(vec![t["threshold"].values[0]; n], true),
        "JumpReluAutoEncoder" => jump(t["threshold"].values.clone(), true),
        "GatedAutoEncoder" => {
            reading.scale = exp(&t["r_mag"]);
            Rule::Gated {
                gate: t["gate_bias"].values.clone(),
            }
        }
        _ => Rule::Relu,
    };
    reading
}

fn llama_scope(t: &Arrays, config: &Value, s: f64) -> Reading {
    let mut reading = linear(t, "encoder", "decoder");
    let threshold = config["jump_relu_threshold"].as_f64().unwrap();
    reading.rule = jump(vec![threshold * s; reading.w_enc.len()], true);
    fold(&mut reading, s);
    reading
}

fn openai(t: &Arrays, name: &str) -> Reading {
    let decoder = match t.get("decoder.linear.weight") {
        Some(tied) => tied.rows(),
        None => t["decoder.weight"].columns(),
    };
    let mut reading = Reading::new(t["encoder.weight"].rows(), decoder);
    biases(&mut reading, &t["latent_bias"], &t["pre_bias"]);
    reading.centre = Some(reading.b_dec.clone());
    let k = match name {
        "openai_v5_topk" => 10,
        "openai_v5_topk_identity" => 158,
        _ => return reading,
    };
    reading.norm = Norm::Layer { unbiased: true };
    reading.rule = Rule::TopK {
        k,
        groups: 1,
        relu: name == "openai_v5_topk",
        magnitude: false,
    };
    reading
}

fn sparsify(t: &Arrays, config: &Value) -> Reading {
    let mut reading = Reading::new(t["encoder.weight"].rows(), t["W_dec"].rows());
    biases(&mut reading, &t["encoder.bias"], &t["b_dec"]);
    let flag = |key: &str| config[key] == true;
    if !flag("transcode") {
        reading.centre = Some(reading.b_dec.clone());
    }
    reading.skip = t.get("W_skip").map(Array::rows);
    let k = config["k"].as_u64().unwrap() as usize;
    reading.rule = match config["activation"] == "groupmax" {
        true => Rule::TopK {
            k: 1,
            groups: k,
            relu: true,
            magnitude: false,
        },
        false => Rule::TopK {
            k,
            groups: 1,
            relu: !flag("signed"),
            magnitude: flag("signed"),
        },
    };
    reading
}

fn bussmann(t: &Arrays, config: &Value) -> Reading {
    let mut reading = Reading::new(t["W_enc"].columns(), t["W_dec"].rows());
    reading.b_dec = t["b_dec"].values.clone();
    reading.centre = Some(reading.b_dec.clone());
    if config["input_unit_norm"] == true {
        reading.norm = Norm::Layer { unbiased: true };
    }
    let n = reading.w_enc.len();
    reading.rule = match config["sae_type"].as_str().unwrap() {
        "jumprelu" => {
            reading.bias = t["b_enc"].values.clone();
            jump(exp(&t["jumprelu.log_threshold"]), true)
        }
        "topk" => top_k(config["top_k"].as_u64().unwrap() as usize),
        _ => jump(vec![t["threshold"].values[0]; n], true),
    };
    reading
}

fn crosscoder(t: &Arrays) -> Reading {
    let &[layers, d, n] = &t["encoder.weight"].shape[..] else {
        panic!("shape");
    };
    let encoder = Array {
        shape: vec![layers * d, n],
        values: t["encoder.weight"].values.clone(),
    };
    let parts: Vec<Vec<Vec<f64>>> = t["decoder.weight"]
        .values
        .chunks_exact(n * d)
        .map(|layer| layer.chunks_exact(d).map(Vec::from).collect())
        .collect();
    let joined = |i: usize| parts.iter().flat_map(|layer| layer[i].clone()).collect();
    let mut reading = Reading::new(transposed(&encoder.rows()), (0..n).map(joined).collect());
    biases(&mut reading, &t["encoder.bias"], &t["decoder.bias"]);
    if let Some(threshold) = t.get("threshold") {
        let code_norm = |i: usize| parts.iter().map(|layer| norm(&layer[i])).sum();
        reading.rank = (0..n).map(code_norm).collect();
        reading.rule = jump(vec![threshold.values[0]; n], true);
    }
    reading
}

fn overcomplete(t: &Arrays, case: &Case) -> Reading {
    let meta = case.config();
    let multiplier = t["dictionary.multiplier"].values[0].exp();
    let dictionary = match t.get("dictionary._weights") {
        Some(weights) => {
            let mut rows = weights.rows();
            for row in &mut rows {
                let length = norm(row) + 1e-8;
                row.iter_mut().for_each(|w| *w *= multiplier / length);
            }
            rows
        }
        None => {
            let points = t["dictionary.C"].rows();
            let mixtures = t["dictionary.W"].rows();
            let mut rows = t["dictionary.Relax"].rows();
            for (row, mixture) in rows.iter_mut().zip(&mixtures) {
                let total: f64 = mixture.iter().map(|w| w.max(0.0)).sum::<f64>() + 1e-8;
                for (weight, point) in mixture.iter().zip(&points) {
                    let share = weight.max(0.0) / total;
                    row.iter_mut()
                        .zip(point)
                        .for_each(|(to, p)| *to += share * p);
                }
                row.iter_mut().for_each(|w| *w *= multiplier);
            }
            rows
        }
    };
    let Some(encoder) = t.get("encoder.final_block.0.weight") else {
        return Reading::new(dictionary.clone(), dictionary);
    };
    let mut reading = Reading::new(encoder.rows(), dictionary);
    reading.bias = t["encoder.final_block.0.bias"].values.clone();
    let n = reading.w_enc.len();
    reading.rule = match meta["class"].as_str().unwrap() {
        "SAE" => Rule::Relu,
        "TopKSAE" | "RATopKSAE" => top_k(meta["top_k"].as_u64().unwrap() as usize),
        "JumpSAE" | "RAJumpSAE" => jump(exp(&t["thresholds"]), true),
        "BatchTopKSAE" => Rule::Jump {
            threshold: vec![meta["running_threshold"].as_f64().unwrap(); n],
            relu: true,
            inclusive: true,
        },
        other => panic!("{other}"),
    };
    reading
}

/// All layers as one model: block-diagonal encoder, block-triangular decoder.
fn cross_layer(t: &Arrays) -> Reading {
    let layers = t.keys().filter(|name| name.starts_with("W_enc_")).count();
    let d = t["b_dec_0"].values.len();
    let (mut encoder, mut decoder) = (vec![], vec![]);
    let (mut bias, mut b_dec, mut thresholds) = (vec![], vec![], vec![]);
    for layer in 0..layers {
        let of = |name: &str| &t[&format!("{name}_{layer}")];
        let reach = (layers - layer) * d;
        for (row, out) in of("W_enc")
            .rows()
            .iter()
            .zip(of("W_dec").values.chunks_exact(reach))
        {
            let mut input = vec![0.0; layers * d];
            input[layer * d..][..d].copy_from_slice(row);
            let mut output = vec![0.0; layers * d];
            output[layer * d..].copy_from_slice(out);
            encoder.push(input);
            decoder.push(output);
        }
        bias.extend(&of("b_enc").values);
        b_dec.extend(&of("b_dec").values);
        if let Some(values) = t.get(&format!("threshold_{layer}")) {
            thresholds.extend(&values.values);
        }
    }
    let mut reading = Reading::new(encoder, decoder);
    (reading.bias, reading.b_dec) = (bias, b_dec);
    if !thresholds.is_empty() {
        reading.rule = jump(thresholds, false);
    }
    reading
}

fn gemma_scope_1(t: &Arrays, name: &str) -> Reading {
    let mut reading = Reading::new(t["W_enc"].columns(), t["W_dec"].rows());
    biases(&mut reading, &t["b_enc"], &t["b_dec"]);
    reading.rule = jump(t["threshold"].values.clone(), true);
    if name.ends_with("embedding") {
        let root = (reading.b_dec.len() as f64).sqrt();
        reading.scale.fill(1.0 / root);
        reading.w_dec.iter_mut().flatten().for_each(|w| *w *= root);
    }
    reading
}

/// SAELens, as its own code reads the file from disk; the pursuits' rule is not theirs.
fn saelens(t: &Arrays, config: &Value) -> Reading {
    let text = |key: &str| config[key].as_str().unwrap_or("");
    let mut architecture = config["architecture"].as_str().unwrap_or("standard");
    let activation = text("activation_fn_str");
    if activation == "topk" {
        architecture = "topk";
    }
    let transcoder = architecture.ends_with("transcoder");
    let decoder = t["W_dec"].rows();
    let encoder = t.get("W_enc").map_or(decoder.clone(), Array::columns);
    let mut reading = Reading::new(encoder, decoder);
    reading.b_dec = t["b_dec"].values.clone();
    reading.undo = !transcoder;
    reading.norm = match text("normalize_activations") {
        "layer_norm" => Norm::Layer { unbiased: true },
        "constant_norm_rescale" => Norm::Constant,
        _ => Norm::None,
    };
    if let Some(bias) = t.get("b_enc").or(t.get("b_mag")) {
        reading.bias = bias.values.clone();
    }
    let k = config["k"]
        .as_u64()
        .or(config["activation_fn_kwargs"]["k"].as_u64());
    let k = k.unwrap_or(1) as usize;
    reading.rule = match architecture {
        "gated" => {
            reading.scale = exp(&t["r_mag"]);
            Rule::Gated {
                gate: t["b_gate"].values.clone(),
            }
        }
        "topk" => top_k(k),
        "abstopk" => Rule::TopK {
            k,
            groups: 1,
            relu: false,
            magnitude: true,
        },
        _ if activation == "tanh-relu" => Rule::Tanh,
        name if name.starts_with("jumprelu") => jump(t["threshold"].values.clone(), true),
        _ => Rule::Relu,
    };
    if config["rescale_acts_by_decoder_norm"] == true {
        for i in 0..reading.w_dec.len() {
            let length = norm(&reading.w_dec[i]);
            reading.scale[i] *= length;
            reading.bias[i] *= length;
            reading.w_dec[i].iter_mut().for_each(|w| *w /= length);
        }
    }
    if let Some(factors) = t.get("finetuning_scaling_factor") {
        for (row, factor) in reading.w_dec.iter_mut().zip(&factors.values) {
            row.iter_mut().for_each(|w| *w *= factor);
        }
    }
    if config["apply_b_dec_to_input"] != false && !transcoder {
        reading.centre = Some(reading.b_dec.clone());
    } else if architecture == "matching_pursuit" {
        reading.b_dec.fill(0.0);
    }
    reading.skip = t.get("W_skip").map(Array::rows);
    reading
}
