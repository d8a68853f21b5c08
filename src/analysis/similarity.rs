//! How alike two representations of the same things are: `a[i]` and `b[i]` are thing i, as one model
//! and as another sees it. They may be rows, pooled features, or paired features over a corpus.

use crate::error::Error;
use alloc::vec::Vec;
use core::cmp::Ordering;
use nalgebra::DMatrix;

/// Checks that both have as many things, at least `least`, each as wide as the first, and finite.
fn check(a: &[Vec<f64>], b: &[Vec<f64>], least: usize) -> Result<(), Error> {
    let length = |what, expected: usize, found: usize| match expected == found {
        true => Ok(()),
        false => Err(Error::Length {
            what,
            expected: expected as u64,
            found: found as u64,
        }),
    };
    length("things in both representations", a.len(), b.len())?;
    length("things, at least as many", a.len().max(least), a.len())?;
    for of in [a, b] {
        let width = of.first().map_or(0, Vec::len);
        for row in of {
            length("values per thing", width, row.len())?;
            if let Some(value) = row.iter().find(|value| !value.is_finite()) {
                return Err(Error::InvalidArgument {
                    what: "representation",
                    expected: "finite values".into(),
                    found: alloc::format!("{value}"),
                });
            }
        }
    }
    Ok(())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Pearson's correlation of two lists, in two passes; 0 if one of them does not vary. Of the error
/// norms of two models over the same rows it is their stability.
///
/// # Errors
/// [`Error::Length`].
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64, Error> {
    if x.len() != y.len() {
        return Err(Error::Length {
            what: "values of both lists",
            expected: x.len() as u64,
            found: y.len() as u64,
        });
    }
    let centred = |of: &[f64]| -> Vec<f64> {
        let mean = of.iter().sum::<f64>() / of.len().max(1) as f64;
        of.iter().map(|value| value - mean).collect()
    };
    let (cx, cy) = (centred(x), centred(y));
    let (xx, yy) = (dot(&cx, &cx), dot(&cy, &cy));
    // What is left of a constant is rounding.
    if xx <= dot(x, x) * 1e-26 || yy <= dot(y, y) * 1e-26 {
        return Ok(0.0);
    }
    Ok((dot(&cx, &cy) / libm::sqrt(xx) / libm::sqrt(yy)).clamp(-1.0, 1.0))
}

/// The Gram matrix, and for each thing its `k` nearest others by it, the lowest first among equals.
fn neighbours(of: &[Vec<f64>], k: usize) -> (Vec<Vec<f64>>, Vec<Vec<usize>>) {
    let gram: Vec<Vec<f64>> = of
        .iter()
        .map(|x| of.iter().map(|y| dot(x, y)).collect())
        .collect();
    let nearest = gram.iter().enumerate().map(|(i, row)| {
        let mut others: Vec<(usize, f64)> = row.iter().copied().enumerate().collect();
        others.retain(|other| other.0 != i);
        others.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
        let mut kept: Vec<usize> = others.into_iter().take(k).map(|other| other.0).collect();
        kept.sort_unstable();
        kept
    });
    let nearest = nearest.collect();
    (gram, nearest)
}

/// The unbiased HSIC of two kernels, where the pairs `(i, j)` with j among the nearest of i on both
/// sides are kept and all others 0.
fn masked_hsic(
    (k, near_k): (&[Vec<f64>], &[Vec<usize>]),
    (l, near_l): (&[Vec<f64>], &[Vec<usize>]),
) -> f64 {
    let n = k.len();
    let m = n as f64;
    // sum K L', sums of K and of L, and 1'K L 1: columns of K times rows of L.
    let (mut both, mut sum_k, mut sum_l) = (0.0, 0.0, 0.0);
    let mut columns = alloc::vec![0.0; n];
    let mut rows = alloc::vec![0.0; n];
    let mut kept = alloc::vec![alloc::vec![]; n];
    for (i, (near_k, near_l)) in near_k.iter().zip(near_l).enumerate() {
        for &j in near_k.iter().filter(|j| near_l.binary_search(j).is_ok()) {
            let at = |of: &[Vec<f64>]| of.get(i).and_then(|row| row.get(j)).copied();
            let (x, y) = (at(k).unwrap_or(0.0), at(l).unwrap_or(0.0));
            sum_k += x;
            sum_l += y;
            if let Some(column) = columns.get_mut(j) {
                *column += x;
            }
            if let Some(row) = rows.get_mut(i) {
                *row += y;
            }
            if let Some(list) = kept.get_mut(i) {
                list.push((j, x, y));
            }
        }
    }
    // L transposed: (i, j) of K meets (j, i) of L.
    for (i, list) in kept.iter().enumerate() {
        for &(j, x, _) in list {
            let back = kept.get(j).and_then(|of| of.iter().find(|one| one.0 == i));
            both += x * back.map_or(0.0, |one| one.2);
        }
    }
    let cross = dot(&columns, &rows);
    (both + sum_k * sum_l / ((m - 1.0) * (m - 2.0)) - 2.0 * cross / (m - 2.0)) / (m * (m - 3.0))
}

/// CKNNA: centred kernel alignment over mutual nearest neighbours: the unbiased HSIC of the two Gram
/// matrices, restricted to pairs that are among the `k` nearest on both sides, over the root of the
/// same for each side with itself. `None` if one of those is not above 0. `n^2` numbers are held.
///
/// # Errors
/// [`Error::Length`] unless both have as many things (at least 4) of one width each;
/// [`Error::InvalidArgument`] for a k below 2, or values that are not finite.
pub fn cknna(a: &[Vec<f64>], b: &[Vec<f64>], k: usize) -> Result<Option<f64>, Error> {
    check(a, b, 4)?;
    if k < 2 {
        return Err(Error::InvalidArgument {
            what: "nearest neighbours",
            expected: "at least 2".into(),
            found: alloc::format!("{k}"),
        });
    }
    let ((gram_a, near_a), (gram_b, near_b)) = (neighbours(a, k), neighbours(b, k));
    let (a, b) = ((&gram_a[..], &near_a[..]), (&gram_b[..], &near_b[..]));
    let (own_a, own_b) = (masked_hsic(a, a), masked_hsic(b, b));
    Ok((own_a > 0.0 && own_b > 0.0).then(|| masked_hsic(a, b) / libm::sqrt(own_a * own_b)))
}

/// SVCCA: both are centred and reduced to the directions that hold `variance` of their variance (0.99
/// in the paper); the mean of the canonical correlations of what is left, over the smaller number of
/// directions. 0 if one side does not vary.
///
/// # Errors
/// [`Error::Length`] unless both have as many things (at least 2) of one width each;
/// [`Error::InvalidArgument`] for values that are not finite.
pub fn svcca(a: &[Vec<f64>], b: &[Vec<f64>], variance: f64) -> Result<f64, Error> {
    check(a, b, 2)?;
    let (x, y) = (directions(a, variance), directions(b, variance));
    let count = x.ncols().min(y.ncols());
    if count == 0 {
        return Ok(0.0);
    }
    let correlations = (x.transpose() * y).singular_values();
    let mut all: Vec<f64> = correlations.iter().map(|c| c.clamp(0.0, 1.0)).collect();
    all.sort_by(|x, y| y.total_cmp(x));
    Ok(all.iter().take(count).sum::<f64>() / count as f64)
}

/// An orthonormal basis, `[things, directions]`, of the strongest directions of the columns.
fn directions(of: &[Vec<f64>], variance: f64) -> DMatrix<f64> {
    let (rows, columns) = (of.len(), of.first().map_or(0, Vec::len));
    if rows == 0 || columns == 0 {
        return DMatrix::zeros(rows, 0);
    }
    // Huge values would overflow their sums and squares; a common factor changes no direction.
    let largest = of.iter().flatten().fold(0f64, |a, v| a.max(v.abs()));
    let by = if largest > 1e100 { largest } else { 1.0 };
    let mut matrix = DMatrix::from_row_iterator(rows, columns, of.iter().flatten().map(|v| v / by));
    let scale = matrix.norm();
    for mut column in matrix.column_iter_mut() {
        let mean = column.sum() / rows as f64;
        column.add_scalar_mut(-mean);
    }
    let svd = matrix.svd(true, false);
    let Some(u) = svd.u else {
        return DMatrix::zeros(rows, 0);
    };
    let mut order: Vec<usize> = (0..svd.singular_values.len()).collect();
    let value = |i: usize| svd.singular_values.get(i).copied().unwrap_or(0.0);
    order.sort_by(|&i, &j| value(j).total_cmp(&value(i)).then(i.cmp(&j)));
    // What is left of columns that depend on each other is rounding.
    order.retain(|&i| value(i) > scale * 1e-13);
    let total: f64 = order.iter().map(|&i| value(i) * value(i)).sum();
    let mut sum = 0.0;
    let mut kept: Vec<usize> = Vec::new();
    for &i in &order {
        if sum >= variance * total {
            break;
        }
        sum += value(i) * value(i);
        kept.push(i);
    }
    u.select_columns(&kept)
}

/// RSA: Spearman's correlation of the two lists of dissimilarities `1 - r_ij`, r Pearson's correlation
/// of thing i with thing j, over all pairs `i < j`. 0 if one of the lists does not vary.
///
/// # Errors
/// [`Error::Length`] unless both have as many things (at least 3) of one width each;
/// [`Error::InvalidArgument`] for values that are not finite.
pub fn rsa(a: &[Vec<f64>], b: &[Vec<f64>]) -> Result<f64, Error> {
    check(a, b, 3)?;
    let dissimilarities = |of: &[Vec<f64>]| -> Result<Vec<f64>, Error> {
        let mut all = Vec::new();
        for (i, x) in of.iter().enumerate() {
            for y in of.get(i + 1..).unwrap_or(&[]) {
                all.push(1.0 - pearson(x, y)?);
            }
        }
        Ok(ranks(&all))
    };
    pearson(&dissimilarities(a)?, &dissimilarities(b)?)
}

/// The rank of each value, from 0; equal values share the mean of their ranks.
fn ranks(of: &[f64]) -> Vec<f64> {
    let value = |i: usize| of.get(i).copied().unwrap_or(0.0);
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by(|&i, &j| value(i).total_cmp(&value(j)));
    let mut ranks = alloc::vec![0.0; of.len()];
    let mut first = 0;
    while let Some(&i) = order.get(first) {
        let same = |&&j: &&usize| value(j).total_cmp(&value(i)) == Ordering::Equal;
        let count = order.iter().skip(first).take_while(same).count();
        for &j in order.iter().skip(first).take(count) {
            if let Some(rank) = ranks.get_mut(j) {
                *rank = first as f64 + (count - 1) as f64 / 2.0;
            }
        }
        first += count;
    }
    ranks
}
