//! Comparisons of models in plain f64: all permutations, all pairs, two passes.

pub(crate) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    if lengths == 0.0 {
        0.0
    } else {
        dot(a, b) / lengths
    }
}

pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The matching of the largest sum among all: for each row its column. `values[row][column]`, no
/// more rows than columns.
pub(crate) fn best_matching(values: &[Vec<f64>]) -> (f64, Vec<usize>) {
    fn search(values: &[Vec<f64>], taken: &mut Vec<usize>, best: &mut (f64, Vec<usize>)) {
        if taken.len() == values.len() {
            let sum = taken.iter().enumerate().map(|(i, &j)| values[i][j]).sum();
            if sum > best.0 {
                *best = (sum, taken.clone());
            }
            return;
        }
        for column in 0..values[0].len() {
            if !taken.contains(&column) {
                taken.push(column);
                search(values, taken, best);
                taken.pop();
            }
        }
    }
    let mut best = (f64::NEG_INFINITY, Vec::new());
    search(values, &mut Vec::new(), &mut best);
    best
}
