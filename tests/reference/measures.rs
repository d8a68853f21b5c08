//! The measures of `docs/measures.md` in plain f64: all pairs, whole matrices, eigenvalues by Jacobi.

use super::analysis::cosine;
use super::monitor::pearson;

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Every pair of a positive and a negative score.
pub(crate) fn auroc(positive: &[f64], negative: &[f64]) -> f64 {
    let mut wins = 0.0;
    for p in positive {
        for n in negative {
            wins += match p.partial_cmp(n).unwrap() {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    wins / (positive.len() * negative.len()) as f64
}

pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    logits.iter().map(|&x| f64::from(x).exp() / total).collect()
}

type Matrix = Vec<Vec<f64>>;

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let row = |a: &Vec<f64>| {
        let entry = |j: usize| (0..b.len()).map(|k| a[k] * b[k][j]).sum();
        (0..b[0].len()).map(entry).collect()
    };
    a.iter().map(row).collect()
}

pub(crate) fn transpose(a: &Matrix) -> Matrix {
    (0..a[0].len())
        .map(|j| a.iter().map(|row| row[j]).collect())
        .collect()
}

/// CKNNA with whole matrices: masks, then the unbiased HSIC of Song et al.
pub(crate) fn cknna(a: &Matrix, b: &Matrix, k: usize) -> f64 {
    let n = a.len();
    let gram = |of: &Matrix| product(of, &transpose(of));
    let mask = |gram: &Matrix| -> Vec<Vec<bool>> {
        (0..n)
            .map(|i| {
                let mut order: Vec<usize> = (0..n).filter(|&j| j != i).collect();
                order.sort_by(|&x, &y| gram[i][y].total_cmp(&gram[i][x]).then(x.cmp(&y)));
                (0..n).map(|j| order[..k].contains(&j)).collect()
            })
            .collect()
    };
    let (ka, kb) = (gram(a), gram(b));
    let (ma, mb) = (mask(&ka), mask(&kb));
    let alignment = |(k, mk): (&Matrix, &[Vec<bool>]), (l, ml): (&Matrix, &[Vec<bool>])| {
        let kept = |of: &Matrix| -> Matrix {
            (0..n)
                .map(|i| {
                    let entry = |j: usize| if mk[i][j] && ml[i][j] { of[i][j] } else { 0.0 };
                    (0..n).map(entry).collect()
                })
                .collect()
        };
        let (k, l) = (kept(k), kept(l));
        let sum = |of: &Matrix| of.iter().flatten().sum::<f64>();
        let m = n as f64;
        let mut trace = 0.0;
        for i in 0..n {
            for j in 0..n {
                trace += k[i][j] * l[j][i];
            }
        }
        (trace + sum(&k) * sum(&l) / ((m - 1.0) * (m - 2.0))
            - 2.0 * sum(&product(&k, &l)) / (m - 2.0))
            / (m * (m - 3.0))
    };
    let (a, b) = ((&ka, &ma[..]), (&kb, &mb[..]));
    alignment(a, b) / (alignment(a, a) * alignment(b, b)).sqrt()
}

/// Eigenvalues, descending, and their vectors, of a symmetric matrix: Jacobi's rotations.
fn eigen(of: &Matrix) -> Vec<(f64, Vec<f64>)> {
    let n = of.len();
    let mut a = of.clone();
    let mut v: Matrix = (0..n)
        .map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    for _ in 0..100 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q].abs() < 1e-300 {
                    continue;
                }
                let theta = 0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p]);
                let (s, c) = theta.sin_cos();
                for row in a.iter_mut().chain(v.iter_mut()) {
                    let (x, y) = (row[p], row[q]);
                    (row[p], row[q]) = (c * x - s * y, s * x + c * y);
                }
                let (upper, lower) = a.split_at_mut(q);
                for (x, y) in upper[p].iter_mut().zip(&mut lower[0]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
        }
    }
    let mut all: Vec<(f64, Vec<f64>)> = (0..n)
        .map(|i| (a[i][i], v.iter().map(|row| row[i]).collect()))
        .collect();
    all.sort_by(|x, y| y.0.total_cmp(&x.0));
    all
}

/// SVCCA by eigenvalues of Gram matrices.
pub(crate) fn svcca(a: &Matrix, b: &Matrix, variance: f64) -> f64 {
    let basis = |of: &Matrix| -> Matrix {
        let columns: Matrix = transpose(of)
            .iter()
            .map(|column| {
                let mean = column.iter().sum::<f64>() / column.len() as f64;
                column.iter().map(|x| x - mean).collect()
            })
            .collect();
        let gram = product(&transpose(&columns), &columns);
        let all = eigen(&gram);
        let total: f64 = all.iter().map(|one| one.0.max(0.0)).sum();
        let (mut sum, mut kept) = (0.0, Vec::new());
        for (value, vector) in all {
            if sum >= variance * total || value <= total * 1e-20 {
                break;
            }
            sum += value;
            kept.push(vector);
        }
        kept
    };
    let (x, y) = (basis(a), basis(b));
    let m: Matrix = x
        .iter()
        .map(|x| y.iter().map(|y| dot(x, y)).collect())
        .collect();
    let count = x.len().min(y.len());
    let values = eigen(&product(&m, &transpose(&m)));
    let roots = values.iter().take(count).map(|one| one.0.max(0.0).sqrt());
    roots.sum::<f64>() / count as f64
}

/// RSA by ranks that count what is below.
pub(crate) fn rsa(a: &Matrix, b: &Matrix) -> f64 {
    let list = |of: &Matrix| -> Vec<f64> {
        let mut all = Vec::new();
        for i in 0..of.len() {
            for j in i + 1..of.len() {
                all.push(1.0 - pearson(&of[i], &of[j]));
            }
        }
        let rank = |x: &f64| {
            let below = all.iter().filter(|y| *y < x).count() as f64;
            let same = all.iter().filter(|y| *y == x).count() as f64;
            below + (same - 1.0) / 2.0
        };
        all.iter().map(rank).collect()
    };
    pearson(&list(a), &list(b))
}

/// Least squares by Gauss on the normal equations: for each output its weights, the constant last;
/// and the share of the variance that they explain.
pub(crate) fn least_squares(rows: &Matrix, errors: &Matrix) -> (Matrix, f64) {
    let inputs: Matrix = rows
        .iter()
        .map(|row| row.iter().copied().chain([1.0]).collect())
        .collect();
    let n = inputs[0].len();
    let (mut weights, mut residual, mut spread) = (Vec::new(), 0.0, 0.0);
    for output in 0..errors[0].len() {
        let e: Vec<f64> = errors.iter().map(|row| row[output]).collect();
        let mut system: Matrix = (0..n)
            .map(|i| {
                let entry = |j: usize| inputs.iter().map(|x| x[i] * x[j]).sum();
                let right = inputs.iter().zip(&e).map(|(x, e)| x[i] * e).sum();
                (0..n).map(entry).chain([right]).collect()
            })
            .collect();
        for i in 0..n {
            let pivot = (i..n).max_by(|&x, &y| system[x][i].abs().total_cmp(&system[y][i].abs()));
            system.swap(i, pivot.unwrap());
            for k in 0..n {
                if k != i {
                    let pivot = system[i].clone();
                    let factor = system[k][i] / pivot[i];
                    for (entry, pivot) in system[k].iter_mut().zip(&pivot).skip(i) {
                        *entry -= factor * pivot;
                    }
                }
            }
        }
        let w: Vec<f64> = (0..n).map(|i| system[i][n] / system[i][i]).collect();
        let mean = e.iter().sum::<f64>() / e.len() as f64;
        for (x, e) in inputs.iter().zip(&e) {
            residual += (e - dot(x, &w)).powi(2);
            spread += (e - mean).powi(2);
        }
        weights.push(w);
    }
    (weights, 1.0 - residual / spread)
}

/// SAEBench's absorption of one row: its fraction, and whether it is full. `features` are dense.
pub(crate) fn absorption(
    row: &[f64],
    features: &[f64],
    decoder: &[Vec<f64>],
    probe: &[f64],
    main: &[usize],
) -> (f64, bool) {
    let length = dot(probe, probe).sqrt();
    let projection = dot(row, probe) / length;
    let cosines: Vec<f64> = decoder.iter().map(|d| cosine(d, probe)).collect();
    let carried: Vec<f64> = features.iter().zip(&cosines).map(|(f, c)| f * c).collect();
    let mains: f64 = main.iter().map(|&i| carried[i]).sum();
    let mut absorbers: Vec<f64> = (0..features.len())
        .filter(|i| !main.contains(i) && cosines[*i] >= 0.1 && carried[*i] > 0.0)
        .map(|i| carried[i])
        .collect();
    absorbers.sort_by(|a, b| b.total_cmp(a));
    let top: f64 = absorbers.iter().take(3).sum();
    let fraction = if mains >= projection || top / projection < 0.4 {
        0.0
    } else if mains <= 0.0 {
        1.0
    } else {
        let part = top.min(projection - mains);
        (part / (part + mains)).clamp(0.0, 1.0)
    };
    let strongest = (0..features.len())
        .max_by(|&i, &j| carried[i].total_cmp(&carried[j]))
        .unwrap();
    let full = main.iter().all(|&i| features[i].abs() < 1e-8)
        && carried[strongest] > 0.0
        && cosines[strongest] >= 0.025
        && projection >= 0.0
        && carried[strongest] / projection >= 0.4;
    (fraction, full)
}
