//! Low-rank sparse attention in f64, a whole sequence at once, from the publisher's formulas:
//! queries and keys of all heads, a full causal attention pattern, one scalar value per feature.

use super::model::dot;

/// The weights, one vector per query, key, value and output.
#[derive(Clone, Debug)]
pub(crate) struct Lorsa {
    pub(crate) heads: usize,
    pub(crate) query: Vec<Vec<f64>>,
    pub(crate) query_bias: Vec<f64>,
    pub(crate) key: Vec<Vec<f64>>,
    pub(crate) key_bias: Vec<f64>,
    pub(crate) value: Vec<Vec<f64>>,
    pub(crate) value_bias: Vec<f64>,
    pub(crate) scale: f64,
    /// Weights of queries and keys, and eps.
    pub(crate) norm: Option<(Vec<f64>, Vec<f64>, f64)>,
    /// Base, how many values of a head turn, and whether neighbours make a pair.
    pub(crate) rotary: Option<(f64, usize, bool)>,
}

impl Lorsa {
    /// Vectors times rows plus biases, cut into heads: `[rows][heads][d_head]`.
    fn heads(&self, vectors: &[Vec<f64>], bias: &[f64], x: &[Vec<f64>]) -> Vec<Vec<Vec<f64>>> {
        let one = |x: &Vec<f64>| {
            let all: Vec<f64> = vectors
                .iter()
                .zip(bias)
                .map(|(vector, bias)| dot(vector, x) + bias)
                .collect();
            all.chunks_exact(vectors.len() / self.heads)
                .map(Vec::from)
                .collect()
        };
        x.iter().map(one).collect()
    }

    /// The pattern of a head: `[rows][rows]`, each row a distribution over itself and those before.
    pub(crate) fn pattern(&self, head: usize, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let prepared = |vectors, bias, weights: Option<&Vec<f64>>| -> Vec<Vec<f64>> {
            let of_rows = self.heads(vectors, bias, x).into_iter().enumerate();
            of_rows
                .map(|(position, heads)| {
                    let mut values = heads[head].clone();
                    if let Some(weights) = weights {
                        let d = values.len();
                        let mean = values.iter().map(|v| v * v).sum::<f64>() / d as f64;
                        let length = (mean + self.norm.as_ref().unwrap().2).sqrt();
                        for (j, value) in values.iter_mut().enumerate() {
                            *value = *value / length * weights[head * d + j];
                        }
                    }
                    self.turned(&values, position)
                })
                .collect()
        };
        let (of_query, of_key) = match &self.norm {
            Some((query, key, _)) => (Some(query), Some(key)),
            None => (None, None),
        };
        let query = prepared(&self.query, &self.query_bias, of_query);
        let key = prepared(&self.key, &self.key_bias, of_key);
        (0..x.len())
            .map(|t| {
                let scores: Vec<f64> = (0..=t)
                    .map(|s| dot(&query[t], &key[s]) / self.scale)
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.iter().map(|power| power / sum).collect()
            })
            .collect()
    }

    fn turned(&self, values: &[f64], position: usize) -> Vec<f64> {
        let Some((base, dims, adjacent)) = self.rotary else {
            return values.to_vec();
        };
        let mut turned = values.to_vec();
        for pair in 0..dims / 2 {
            let (a, b) = match adjacent {
                true => (2 * pair, 2 * pair + 1),
                false => (pair, pair + dims / 2),
            };
            let angle = position as f64 / base.powf(pair as f64 / (dims / 2) as f64);
            turned[a] = values[a] * angle.cos() - values[b] * angle.sin();
            turned[b] = values[b] * angle.cos() + values[a] * angle.sin();
        }
        turned
    }

    /// The pre-activations of a sequence, `[rows][features]`.
    pub(crate) fn pre(&self, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let values: Vec<Vec<f64>> = x
            .iter()
            .map(|x| {
                let of_feature = self.value.iter().zip(&self.value_bias);
                of_feature.map(|(w, bias)| dot(w, x) + bias).collect()
            })
            .collect();
        let patterns: Vec<Vec<Vec<f64>>> =
            (0..self.heads).map(|head| self.pattern(head, x)).collect();
        let group = self.value.len() / self.heads;
        (0..x.len())
            .map(|t| {
                let pre = |i: usize| {
                    let pattern = &patterns[i / group][t];
                    (0..=t).map(|s| pattern[s] * values[s][i]).sum()
                };
                (0..self.value.len()).map(pre).collect()
            })
            .collect()
    }
}
