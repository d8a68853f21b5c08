//! The publishers' formats outside SAELens and Gemma Scope 1, read in the plainest f64 code: what
//! `tests/conventions.rs` takes the scale of a pre-activation from, and what `tests/traps.rs`
//! reads wrongly on purpose.

#![allow(dead_code)] // every test program uses a part of it

pub(crate) mod case;
pub(crate) mod readings;

/// What is done to a row first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Norm {
    None,
    /// `(x - mean) / (sigma + 1e-5)`, sigma with d - 1 if unbiased.
    Layer {
        unbiased: bool,
    },
    /// `x sqrt(d) / |x|`.
    Constant,
}

/// Which features fire.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Relu,
    /// `tanh(pre)` where `pre > 0`.
    Tanh,
    /// `pre` where `rank > threshold` (`>=` if inclusive), and positive if relu.
    Jump {
        threshold: Vec<f64>,
        relu: bool,
        inclusive: bool,
    },
    /// `pre` where `W x' + gate > 0` and `pre > 0`.
    Gated {
        gate: Vec<f64>,
    },
    /// As many of the largest ranks as bring the norm of them closest to that of the input.
    Afa,
    /// The k largest ranks, of each of so many groups; positive ones if relu.
    TopK {
        k: usize,
        groups: usize,
        relu: bool,
        magnitude: bool,
    },
}

/// One reading of a checkpoint: all that its maths needs. Matrices are one row per feature.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) norm: Norm,
    /// Whether the output undoes the norm.
    pub(crate) undo: bool,
    pub(crate) centre: Option<Vec<f64>>,
    pub(crate) w_enc: Vec<Vec<f64>>,
    /// Factor of each product.
    pub(crate) scale: Vec<f64>,
    pub(crate) bias: Vec<f64>,
    pub(crate) rule: Rule,
    /// Rank is pre times this.
    pub(crate) rank: Vec<f64>,
    pub(crate) w_dec: Vec<Vec<f64>>,
    pub(crate) b_dec: Vec<f64>,
    /// Values are `c tanh(v / c)`.
    pub(crate) cap: Option<f64>,
    /// One row per output.
    pub(crate) skip: Option<Vec<Vec<f64>>>,
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

impl Reading {
    /// ReLU, and nothing else.
    pub(crate) fn new(w_enc: Vec<Vec<f64>>, w_dec: Vec<Vec<f64>>) -> Self {
        let n = w_enc.len();
        assert_eq!(n, w_dec.len());
        Reading {
            norm: Norm::None,
            undo: true,
            centre: None,
            scale: vec![1.0; n],
            bias: vec![0.0; n],
            rule: Rule::Relu,
            rank: vec![1.0; n],
            b_dec: vec![0.0; w_dec[0].len()],
            w_enc,
            w_dec,
            cap: None,
            skip: None,
        }
    }

    /// (mean, inwards, outwards)
    fn normaliser(&self, x: &[f64]) -> (f64, f64, f64) {
        let d = x.len() as f64;
        match self.norm {
            Norm::None => (0.0, 1.0, 1.0),
            Norm::Layer { unbiased } => {
                let mean = x.iter().sum::<f64>() / d;
                let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
                let sigma = (squares / (d - f64::from(u8::from(unbiased)))).sqrt();
                (mean, 1.0 / (sigma + 1e-5), sigma)
            }
            Norm::Constant => {
                let factor = d.sqrt() / norm(x);
                (0.0, factor, 1.0 / factor)
            }
        }
    }

    pub(crate) fn input(&self, x: &[f64]) -> Vec<f64> {
        let (mean, inwards, _) = self.normaliser(x);
        let shift = |j: usize| self.centre.as_ref().map_or(0.0, |centre| centre[j]);
        let each = x.iter().enumerate();
        each.map(|(j, x)| (x - mean) * inwards - shift(j)).collect()
    }

    pub(crate) fn pre(&self, input: &[f64]) -> Vec<f64> {
        let one = |i: usize| self.scale[i] * dot(&self.w_enc[i], input) + self.bias[i];
        (0..self.w_enc.len()).map(one).collect()
    }

    /// The scale of the sum that forms pre-activation i.
    pub(crate) fn magnitude(&self, input: &[f64], i: usize) -> f64 {
        let terms = self.w_enc[i].iter().zip(input);
        let sum: f64 = terms.map(|(w, x)| (w * x).abs()).sum();
        self.scale[i].abs() * sum + self.bias[i].abs()
    }

    pub(crate) fn encode(&self, x: &[f64]) -> Vec<f64> {
        let input = self.input(x);
        let pre = self.pre(&input);
        let n = pre.len();
        let ranks: Vec<f64> = pre.iter().zip(&self.rank).map(|(p, w)| p * w).collect();
        let kept = |i: usize| match &self.rule {
            Rule::Relu | Rule::Tanh => pre[i] > 0.0,
            Rule::Jump {
                threshold,
                relu,
                inclusive,
            } => {
                let over = ranks[i] > threshold[i] || *inclusive && ranks[i] == threshold[i];
                over && (pre[i] > 0.0 || !relu)
            }
            Rule::Afa => pre[i] > 0.0 && afa(&ranks, norm(&input)).contains(&i),
            Rule::Gated { gate } => dot(&self.w_enc[i], &input) + gate[i] > 0.0 && pre[i] > 0.0,
            Rule::TopK {
                k,
                groups,
                relu,
                magnitude,
            } => {
                let value = |j: usize| if *magnitude { ranks[j].abs() } else { ranks[j] };
                let width = n / groups;
                let first = i / width * width;
                let before = (first..first + width)
                    .filter(|&j| value(j) > value(i) || value(j) == value(i) && j < i)
                    .count();
                before < *k && (pre[i] > 0.0 || !relu)
            }
        };
        let value = |i: usize| match self.rule {
            Rule::Tanh => pre[i].tanh(),
            _ => self.cap.map_or(pre[i], |c| c * (pre[i] / c).tanh()),
        };
        (0..n)
            .map(|i| if kept(i) { value(i) } else { 0.0 })
            .collect()
    }

    pub(crate) fn decode(&self, features: &[f64], x: &[f64]) -> Vec<f64> {
        let mut y = self.b_dec.clone();
        for (value, row) in features.iter().zip(&self.w_dec) {
            if *value != 0.0 {
                y.iter_mut().zip(row).for_each(|(y, w)| *y += value * w);
            }
        }
        if self.undo {
            let (mean, _, outwards) = self.normaliser(x);
            y.iter_mut().for_each(|y| *y = *y * outwards + mean);
        }
        if let Some(skip) = &self.skip {
            y.iter_mut()
                .zip(skip)
                .for_each(|(y, row)| *y += dot(row, x));
        }
        y
    }
}

/// The features that top-AFA keeps.
fn afa(ranks: &[f64], target: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by(|&a, &b| {
        ranks[b]
            .max(0.0)
            .total_cmp(&ranks[a].max(0.0))
            .then(a.cmp(&b))
    });
    let mut squares = 0.0;
    let (mut best, mut count) = (f64::INFINITY, 0);
    for (j, &i) in order.iter().enumerate() {
        squares += ranks[i].max(0.0).powi(2);
        // The last one is forced to the square root of 1e8.
        let sum = if j + 1 == order.len() {
            1e4
        } else {
            squares.sqrt()
        };
        if (sum - target).abs() < best {
            (best, count) = ((sum - target).abs(), j + 1);
        }
    }
    order.truncate(count);
    order
}
