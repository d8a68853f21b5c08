//! A multi-target coder in f64, as clt-training runs it: layer after layer, each source asked for
//! its next target.

use super::model::dot;

/// One layer's coder. Vectors of matrices are rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coder {
    pub(crate) encoder: Vec<Vec<f64>>,
    pub(crate) bias: Vec<f64>,
    /// For each target: p and s.
    pub(crate) post: Vec<(Vec<f64>, Vec<f64>)>,
    /// For each target, or one for all.
    pub(crate) decoders: Vec<Vec<Vec<f64>>>,
    pub(crate) decoder_bias: Vec<Vec<f64>>,
    pub(crate) skips: Vec<Vec<Vec<f64>>>,
    /// The norms of `normalize_io`.
    pub(crate) norms: Option<(f64, f64)>,
}

/// What all layers say alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) k: usize,
    pub(crate) groupmax: bool,
    pub(crate) divide: bool,
    /// `none`, `concat` or `per-layer`.
    pub(crate) coalesce: &'static str,
    pub(crate) anew: bool,
}

/// The features of every layer, and its output.
pub(crate) fn run(coders: &[Coder], kind: Kind, x: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let d = x[0].len();
    let mut all = Vec::new();
    let mut outputs = Vec::new();
    // Sources that still have targets, with the number of the next.
    let mut live: Vec<(usize, usize)> = Vec::new();
    for (t, (coder, x_t)) in coders.iter().zip(x).enumerate() {
        let z = encode(coder, kind, &scaled(coder, x_t));
        all.push(z);
        live.push((t, 0));
        let others = (live.len() - 1).max(1) as f64;
        let mut y = vec![0.0; d];
        let mut candidates = Vec::new();
        for (i, (source, index)) in live.iter_mut().enumerate() {
            let coder = &coders[*source];
            let (p, s) = &coder.post[*index];
            let mut out = vec![0.0; d];
            let slots = slots(&all[*source], kind);
            for (feature, z) in slots {
                let v = match z > 0.0 {
                    true => (z + p[feature]) * s[feature],
                    false => z * s[feature],
                };
                candidates.push((v, i, feature));
                if kind.coalesce == "none" {
                    let decoder = coder.decoders.get(*index).unwrap_or(&coder.decoders[0]);
                    add(&mut out, v, &decoder[feature]);
                }
            }
            if kind.coalesce == "none" {
                add(&mut out, 1.0, &coder.decoder_bias[*index]);
                skip(&mut out, coder, *index, &scaled(coder, &x[*source]));
                let share = if kind.divide && *source != t {
                    others
                } else {
                    1.0
                };
                add(&mut y, 1.0 / share, &out);
            }
            *index += 1;
        }
        if kind.coalesce != "none" {
            if kind.anew {
                candidates.sort_by(|one, other| other.0.total_cmp(&one.0));
                candidates.truncate(kind.k);
            }
            for (v, i, feature) in candidates {
                let row = match kind.coalesce {
                    "concat" => feature,
                    _ => i * coder.encoder.len() + feature,
                };
                add(&mut y, v, &coder.decoders[0][row]);
            }
            add(&mut y, 1.0, &coder.decoder_bias[0]);
            skip(&mut y, coder, 0, &scaled(coder, x_t));
        }
        if let Some((_, out)) = coder.norms {
            let g = out / (d as f64).sqrt();
            y.iter_mut().for_each(|y| *y *= g);
        }
        outputs.push(y);
        live.retain(|&(source, index)| index < coders[source].post.len());
    }
    (all, outputs)
}

/// The k features that a layer hands on, zeros among them.
fn slots(z: &[f64], kind: Kind) -> Vec<(usize, f64)> {
    let mut slots: Vec<(usize, f64)> = z.iter().copied().enumerate().collect();
    slots.sort_by(|one, other| other.1.total_cmp(&one.1));
    slots.truncate(kind.k);
    slots
}

/// The dense features of a layer.
fn encode(coder: &Coder, kind: Kind, x: &[f64]) -> Vec<f64> {
    let pre = coder.encoder.iter().zip(&coder.bias);
    let pre: Vec<f64> = pre
        .map(|(row, bias)| (dot(row, x) + bias).max(0.0))
        .collect();
    let mut z = vec![0.0; pre.len()];
    let size = if kind.groupmax {
        pre.len() / kind.k
    } else {
        pre.len()
    };
    let most = if kind.groupmax { 1 } else { kind.k };
    for group in 0..pre.len() / size {
        let mut order: Vec<usize> = (group * size..(group + 1) * size).collect();
        order.sort_by(|&one, &other| pre[other].total_cmp(&pre[one]));
        order[..most].iter().for_each(|&i| z[i] = pre[i]);
    }
    z
}

fn scaled(coder: &Coder, x: &[f64]) -> Vec<f64> {
    let a = coder
        .norms
        .map_or(1.0, |(a, _)| (x.len() as f64).sqrt() / a);
    x.iter().map(|x| x * a).collect()
}

fn skip(out: &mut [f64], coder: &Coder, index: usize, x: &[f64]) {
    if let Some(skip) = coder.skips.get(index) {
        for (out, row) in out.iter_mut().zip(skip) {
            *out += dot(row, x);
        }
    }
}

fn add(sums: &mut [f64], amount: f64, row: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += amount * value;
    }
}
