//! Selection rules in f64, one function each, over the pre-activations of a row. Written from the
//! publishers' formulas; dense in, dense out.

/// The order of a descending sort that keeps the order of equal entries.
pub(crate) fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap());
    order
}

/// `values` where `keep` says so, else 0.
pub(crate) fn keep(values: &[f64], chosen: impl Iterator<Item = usize>) -> Vec<f64> {
    let mut kept = vec![0.0; values.len()];
    for i in chosen {
        kept[i] = values[i];
    }
    kept
}

/// relu, entry by entry.
pub(crate) fn relu(pre: &[f64]) -> Vec<f64> {
    pre.iter().map(|&pre| pre.max(0.0)).collect()
}

/// OpenMOSS TopK with `sparsity_include_decoder_norm`: the k largest relu(pre) |d|, reported
/// without |d|.
pub(crate) fn top_k_weighted(pre: &[f64], weight: &[f64], k: usize) -> Vec<f64> {
    let relu = relu(pre);
    let ranks: Vec<f64> = std::iter::zip(&relu, weight).map(|(f, w)| f * w).collect();
    keep(&relu, descending(&ranks).into_iter().take(k))
}

/// relu(pre) where relu(pre) w > threshold.
pub(crate) fn jump_weighted(pre: &[f64], weight: &[f64], threshold: &[f64]) -> Vec<f64> {
    let relu = relu(pre);
    let over = |i: &usize| relu[*i] * weight[*i] > threshold[*i];
    keep(&relu, (0..pre.len()).filter(over))
}

/// The k largest relu(pre) of each of `groups` groups of neighbours.
pub(crate) fn group_top_k(pre: &[f64], groups: usize, k: usize) -> Vec<f64> {
    let relu = relu(pre);
    let size = pre.len() / groups;
    let mut kept = Vec::new();
    for group in relu.chunks_exact(size) {
        kept.extend(keep(group, descending(group).into_iter().take(k)));
    }
    kept
}

/// top-AFA, as its published code: over all entries, the zeros too.
pub(crate) fn top_afa(pre: &[f64], norms: &[f64], target: f64) -> Vec<f64> {
    let relu = relu(pre);
    let ranks: Vec<f64> = std::iter::zip(&relu, norms).map(|(a, n)| a * n).collect();
    let order = descending(&ranks);
    let mut sum = 0.0;
    let mut cumulative: Vec<f64> = order
        .iter()
        .map(|&i| {
            sum += ranks[i] * ranks[i];
            sum
        })
        .collect();
    *cumulative.last_mut().unwrap() = 1e8;
    let distances: Vec<f64> = cumulative
        .iter()
        .map(|sum| (sum.sqrt() - target).abs())
        .collect();
    let mut k = 0;
    for j in 0..distances.len() {
        if distances[j] < distances[k] {
            k = j;
        }
    }
    keep(&relu, order.into_iter().take(k + 1))
}

/// MSAE's soft cap.
pub(crate) fn soft_cap(value: f64, cap: f64) -> f64 {
    cap * (value / cap).tanh()
}
