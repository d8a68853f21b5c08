//! Pursuits in f64. A dictionary is a list of atoms; the result is dense.

use super::model::dot;

fn correlations(atoms: &[Vec<f64>], residual: &[f64]) -> Vec<f64> {
    atoms.iter().map(|atom| dot(atom, residual)).collect()
}

/// The first index of the largest entry.
fn first_largest(values: &[f64]) -> usize {
    let mut best = 0;
    for i in 0..values.len() {
        if values[i] > values[best] {
            best = i;
        }
    }
    best
}

fn subtract(residual: &mut [f64], amount: f64, atom: &[f64]) {
    for (r, a) in residual.iter_mut().zip(atom) {
        *r -= amount * a;
    }
}

/// x - sum_i z_i a_i
pub(crate) fn residual(atoms: &[Vec<f64>], codes: &[f64], x: &[f64]) -> Vec<f64> {
    let mut left = x.to_vec();
    for (atom, &code) in atoms.iter().zip(codes) {
        subtract(&mut left, code, atom);
    }
    left
}

/// |x|
pub(crate) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// SAELens' matching pursuit.
pub(crate) fn saelens(
    atoms: &[Vec<f64>],
    x: &[f64],
    steps: usize,
    threshold: f64,
    stop_on_repeat: bool,
) -> Vec<f64> {
    let mut codes = vec![0.0; atoms.len()];
    let mut r = x.to_vec();
    for _ in 0..steps {
        let found = correlations(atoms, &r);
        let relu: Vec<f64> = found.iter().map(|c| c.max(0.0)).collect();
        let i = first_largest(&relu);
        let before = codes.iter().filter(|&&code| code != 0.0).count();
        codes[i] += relu[i];
        subtract(&mut r, relu[i], &atoms[i]);
        let after = codes.iter().filter(|&&code| code != 0.0).count();
        if stop_on_repeat && before == after || threshold > 0.0 && norm(&r) < threshold {
            break;
        }
    }
    codes
}

/// overcomplete's: the largest correlation, whatever its sign, exactly `steps` times.
pub(crate) fn overcomplete(atoms: &[Vec<f64>], x: &[f64], steps: usize) -> Vec<f64> {
    let mut codes = vec![0.0; atoms.len()];
    let mut r = x.to_vec();
    for _ in 0..steps {
        let found = correlations(atoms, &r);
        let i = first_largest(&found);
        codes[i] += found[i];
        subtract(&mut r, found[i], &atoms[i]);
    }
    codes
}

/// ITDA's: the largest |correlation|, signed.
pub(crate) fn itda(atoms: &[Vec<f64>], x: &[f64], steps: usize) -> Vec<f64> {
    let mut codes = vec![0.0; atoms.len()];
    let mut r = x.to_vec();
    for _ in 0..steps {
        let found = correlations(atoms, &r);
        let sizes: Vec<f64> = found.iter().map(|c| c.abs()).collect();
        let i = first_largest(&sizes);
        codes[i] += found[i];
        subtract(&mut r, found[i], &atoms[i]);
    }
    codes
}

/// Gradient pursuit: S are the atoms with a value, and the one just picked.
pub(crate) fn gradient(atoms: &[Vec<f64>], x: &[f64], steps: usize, signed: bool) -> Vec<f64> {
    let mut codes = vec![0.0; atoms.len()];
    for _ in 0..steps {
        let r = residual(atoms, &codes, x);
        let found = correlations(atoms, &r);
        let ranks: Vec<f64> = match signed {
            true => found.iter().map(|c| c.abs()).collect(),
            false => found.clone(),
        };
        let i = first_largest(&ranks);
        if ranks[i] <= 0.0 {
            break;
        }
        let gradient: Vec<f64> = (0..atoms.len())
            .map(|j| {
                if j == i || codes[j] != 0.0 {
                    found[j]
                } else {
                    0.0
                }
            })
            .collect();
        let mut direction = vec![0.0; x.len()];
        for (atom, &g) in atoms.iter().zip(&gradient) {
            subtract(&mut direction, -g, atom);
        }
        let step = dot(&direction, &r) / dot(&direction, &direction);
        for (code, g) in codes.iter_mut().zip(&gradient) {
            *code += step * g;
            if !signed {
                *code = code.max(0.0);
            }
        }
    }
    codes
}

/// Orthogonal matching pursuit: an unpicked atom, then least squares on all picked, by Gaussian
/// elimination (signed) or by coordinate descent until nothing moves (non-negative).
pub(crate) fn orthogonal(atoms: &[Vec<f64>], x: &[f64], steps: usize, signed: bool) -> Vec<f64> {
    let mut picked: Vec<usize> = Vec::new();
    let mut codes = vec![0.0; atoms.len()];
    for _ in 0..steps {
        let r = residual(atoms, &codes, x);
        let found = correlations(atoms, &r);
        let rank = |i: usize| match (picked.contains(&i), signed) {
            (true, _) => f64::NEG_INFINITY,
            (false, true) => found[i].abs(),
            (false, false) => found[i],
        };
        let ranks: Vec<f64> = (0..atoms.len()).map(rank).collect();
        let i = first_largest(&ranks);
        if ranks[i] <= 0.0 {
            break;
        }
        picked.push(i);
        let chosen: Vec<&[f64]> = picked.iter().map(|&i| &atoms[i][..]).collect();
        let solution = match signed {
            true => least_squares(&chosen, x),
            false => non_negative(&chosen, x),
        };
        for (&i, value) in picked.iter().zip(solution) {
            codes[i] = value;
        }
    }
    codes
}

/// The normal equations, by Gaussian elimination with pivots.
fn least_squares(atoms: &[&[f64]], x: &[f64]) -> Vec<f64> {
    let n = atoms.len();
    let mut rows: Vec<Vec<f64>> = atoms
        .iter()
        .map(|a| {
            let mut row: Vec<f64> = atoms.iter().map(|b| dot(a, b)).collect();
            row.push(dot(a, x));
            row
        })
        .collect();
    for column in 0..n {
        let size = |row: &usize| rows[*row][column].abs();
        let pivot = (column..n)
            .max_by(|a, b| size(a).total_cmp(&size(b)))
            .unwrap();
        rows.swap(column, pivot);
        for below in column + 1..n {
            let factor = rows[below][column] / rows[column][column];
            let (above, from) = rows.split_at_mut(below);
            for (entry, pivot) in from[0].iter_mut().zip(&above[column]).skip(column) {
                *entry -= factor * pivot;
            }
        }
    }
    let mut solution = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| rows[row][k] * solution[k]).sum();
        solution[row] = (rows[row][n] - known) / rows[row][row];
    }
    solution
}

/// min |x - sum z_i a_i|, z >= 0, one coordinate after the other until nothing moves.
pub(crate) fn non_negative(atoms: &[&[f64]], x: &[f64]) -> Vec<f64> {
    let mut z = vec![0.0; atoms.len()];
    let mut r = x.to_vec();
    for _ in 0..200_000 {
        let mut moved = 0.0f64;
        for (z, atom) in z.iter_mut().zip(atoms) {
            let square = dot(atom, atom);
            if square == 0.0 {
                continue;
            }
            let better = (*z + dot(atom, &r) / square).max(0.0);
            subtract(&mut r, better - *z, atom);
            moved = moved.max((better - *z).abs());
            *z = better;
        }
        if moved <= 1e-15 * norm(x) {
            break;
        }
    }
    z
}
