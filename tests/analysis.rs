//! Comparisons of models against plain references: every permutation, every pair, two passes.

mod library;
mod reference;

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use reference::analysis as plain;
use reference::monitor::pearson;
use reference::random::{Format, Random, Tensors};
use sae::analysis::{
    Correlation, Cosines, Family, FamilyOptions, Matching, Terms, Vectors, compose, families,
    jaccard, logit_lens, nearest, pw_mcc, sae_match, sae_match_with, shared_fraction,
    shared_fraction_with, sharedness, wmppc,
};
use sae::monitor::{Accumulator, Collect};
use sae::{Code, Error, Features, OpenOptions, RowStatus, Rows, Sae};

/// A JumpReLU model and its weights, `[feature][value]`.
struct Made {
    sae: Sae<'static>,
    encoder: Vec<Vec<f64>>,
    decoder: Vec<Vec<f64>>,
    thresholds: Vec<f64>,
}

/// From rows per feature and thresholds.
fn make(encoder: Vec<Vec<f32>>, decoder: Vec<Vec<f32>>, thresholds: Vec<f32>) -> Made {
    let (n, d) = (encoder.len(), encoder[0].len());
    let bytes =
        |values: Vec<f32>| -> Vec<u8> { values.into_iter().flat_map(f32::to_le_bytes).collect() };
    let turned = (0..d).flat_map(|j| encoder.iter().map(move |row| row[j]));
    let mut tensors = Tensors::default();
    tensors.add("W_enc", Format::F32, &[d, n], &bytes(turned.collect()));
    tensors.add("W_dec", Format::F32, &[n, d], &bytes(decoder.concat()));
    tensors.add("b_dec", Format::F32, &[d], &bytes(vec![0.0; d]));
    tensors.add("b_enc", Format::F32, &[n], &bytes(vec![0.0; n]));
    tensors.add("threshold", Format::F32, &[n], &bytes(thresholds.clone()));
    let config = serde_json::json!({"architecture": "jumprelu", "d_in": d, "d_sae": n}).to_string();
    let file: &'static [u8] = tensors.safetensors(0).leak();
    let options = OpenOptions::default();
    let sae = Sae::from_bytes("sae_weights.safetensors", file, Some(&config), &options).unwrap();
    let wide = |rows: Vec<Vec<f32>>| -> Vec<Vec<f64>> {
        let rows = rows.into_iter();
        rows.map(|row| row.into_iter().map(f64::from).collect())
            .collect()
    };
    Made {
        sae,
        encoder: wide(encoder),
        decoder: wide(decoder),
        thresholds: thresholds.into_iter().map(f64::from).collect(),
    }
}

fn random(seed: u64, n: usize, d: usize) -> Made {
    let mut random = Random(seed);
    let mut rows = || {
        (0..n)
            .map(|_| (0..d).map(|_| random.number()).collect())
            .collect()
    };
    let (encoder, decoder) = (rows(), rows());
    let thresholds = (0..n).map(|_| random.number().abs() + 0.25).collect();
    make(encoder, decoder, thresholds)
}

fn close(a: f64, b: f64, tolerance: f64) {
    let bound = tolerance * b.abs().max(1.0);
    assert!((a - b).abs() <= bound, "{a} is not {b}");
}

fn quiet(_: usize, _: usize) {}

#[test]
fn the_nearest_are_those_of_all_pairs() {
    // More than one block of 256, and a vector of length 0.
    let (mut a, b) = (random(1, 300, 9), random(2, 150, 9));
    let zero = a
        .decoder
        .iter()
        .map(|row| row.iter().map(|&x| x as f32).collect());
    let mut zero: Vec<Vec<f32>> = zero.collect();
    zero[3] = vec![0.0; 9];
    a = make(zero.clone(), zero, vec![1.0; 300]);
    let (va, vb) = (
        Vectors::unit_decoder(&a.sae).unwrap(),
        Vectors::unit_decoder(&b.sae).unwrap(),
    );
    let mut told = Vec::new();
    let lists = nearest(&va, &vb, 5, false, &mut |done, all| told.push((done, all))).unwrap();
    assert_eq!(told, [(1, 2), (2, 2)]);
    for (i, list) in lists.iter().enumerate() {
        let cosines = b
            .decoder
            .iter()
            .map(|row| plain::cosine(&a.decoder[i], row));
        let mut all: Vec<(usize, f64)> = cosines.enumerate().collect();
        all.sort_by(|x, y| y.1.total_cmp(&x.1));
        assert_eq!(list.len(), 5);
        for (found, expected) in list.iter().zip(&all) {
            close(found.cosine, expected.1, 3e-7);
            close(found.cosine, va.dot(i, &vb, found.feature as usize), 0.0);
        }
    }
    // The vector of length 0 is as near to all: the lowest come first.
    let ties: Vec<u32> = lists[3].iter().map(|one| one.feature).collect();
    assert_eq!(ties, [0, 1, 2, 3, 4]);
    // Against itself, without itself.
    let own = nearest(&vb, &vb, 1, true, &mut quiet).unwrap();
    for (i, list) in own.iter().enumerate() {
        let others = (0..150).filter(|&j| j != i);
        let cosine = |j: usize| plain::cosine(&b.decoder[i], &b.decoder[j]);
        let best = others.map(cosine).fold(f64::NEG_INFINITY, f64::max);
        assert_ne!(list[0].feature as usize, i);
        close(list[0].cosine, best, 3e-7);
    }
    assert_eq!(nearest(&va, &vb, 0, false, &mut quiet).unwrap()[0], []);
    assert_eq!(
        nearest(&va, &vb, 999, false, &mut quiet).unwrap()[0].len(),
        150
    );
}

#[test]
fn matchings_are_the_best_of_all_permutations() {
    for seed in 0..12 {
        let (a, b) = (random(seed, 5, 4), random(seed + 100, 7, 4));
        let table = |value: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            (0..5)
                .map(|i| (0..7).map(|j| value(i, j)).collect())
                .collect()
        };
        let cosines = table(&|i, j| plain::cosine(&a.decoder[i], &b.decoder[j]).abs());
        let (sum, columns) = plain::best_matching(&cosines);
        let (va, vb) = (
            Vectors::unit_decoder(&a.sae).unwrap(),
            Vectors::unit_decoder(&b.sae).unwrap(),
        );
        let found = pw_mcc(&va, &vb, &mut quiet).unwrap();
        close(found.mean, sum / 5.0, 1e-6);
        let partners: Vec<usize> = found
            .pairs
            .iter()
            .map(|pair| pair.second as usize)
            .collect();
        assert_eq!(partners, columns);
        // The other way round the same pairs.
        let turned = pw_mcc(&vb, &va, &mut quiet).unwrap();
        close(turned.mean, found.mean, 1e-12);
        let mut pairs: Vec<_> = turned
            .pairs
            .iter()
            .map(|pair| (pair.second, pair.first))
            .collect();
        pairs.sort_unstable();
        let straight: Vec<_> = found
            .pairs
            .iter()
            .map(|pair| (pair.first, pair.second))
            .collect();
        assert_eq!(pairs, straight);

        let fold = |row: &[f64], by: f64| -> Vec<f64> { row.iter().map(|x| x * by).collect() };
        for terms in [Terms::Both, Terms::Encoder, Terms::Decoder] {
            let costs = table(&|i, j| {
                let (s, t) = (a.thresholds[i], b.thresholds[j]);
                let encoders =
                    plain::distance(&fold(&a.encoder[i], 1.0 / s), &fold(&b.encoder[j], 1.0 / t));
                let decoders = plain::distance(&fold(&a.decoder[i], s), &fold(&b.decoder[j], t));
                match terms {
                    Terms::Encoder => -encoders,
                    Terms::Decoder => -decoders,
                    Terms::Both => -encoders - decoders,
                }
            });
            let (sum, columns) = plain::best_matching(&costs);
            let found = sae_match(&a.sae, &b.sae, terms, &mut quiet).unwrap();
            let partners: Vec<usize> = found
                .pairs
                .iter()
                .map(|pair| pair.second as usize)
                .collect();
            assert_eq!(partners, columns, "{terms:?}");
            close(found.mean, -sum / 5.0, 1e-5);
        }
    }
}

/// The largest sum of a dense table, by another library: values rounded to 2^-40 of the largest.
fn dense_sum(table: &[Vec<f64>]) -> f64 {
    let turned: Vec<Vec<f64>>;
    let table = match table.len() > table[0].len() {
        true => {
            turned = (0..table[0].len())
                .map(|j| table.iter().map(|row| row[j]).collect())
                .collect();
            &turned
        }
        false => table,
    };
    let most = table.iter().flatten().fold(1e-9_f64, |a, b| a.max(b.abs()));
    let unit = 2f64.powi(40) / most;
    let whole = table.iter().flatten().map(|v| (v * unit).round() as i64);
    let weights = Matrix::from_vec(table.len(), table[0].len(), whole.collect()).unwrap();
    kuhn_munkres(&weights).0 as f64 / unit
}

/// Vectors of several kinds: random; few different ones, so that there are ties; some of length 0;
/// along few directions, so that all want the same partner; of very different lengths.
fn of_kind(kind: usize, seed: u64, n: usize, d: usize) -> Made {
    let mut random = Random(seed);
    let few: Vec<Vec<f32>> = (0..7)
        .map(|_| (0..d).map(|_| random.number()).collect())
        .collect();
    let mut rows = || -> Vec<Vec<f32>> {
        (0..n)
            .map(|i| match kind {
                1 => few[random.below(7)].clone(),
                2 if i % 3 == 0 => vec![0.0; d],
                3 => few[i % 2]
                    .iter()
                    .map(|x| x + 0.01 * random.number())
                    .collect(),
                4 => (0..d).map(|_| random.below(3) as f32 - 1.0).collect(),
                _ => (0..d).map(|_| random.number()).collect(),
            })
            .collect()
    };
    let (encoder, decoder) = (rows(), rows());
    let spread = if kind == 5 { 3.0 } else { 0.5 };
    let threshold = |_| (spread * random.number()).exp();
    let thresholds = (0..n).map(threshold).collect();
    make(encoder, decoder, thresholds)
}

/// Every pair of sizes and kinds, with ties, against a dense assignment over all pairs.
#[test]
fn matchings_sum_to_what_a_dense_assignment_finds() {
    let sizes = [(1, 1), (2, 9), (40, 40), (150, 150), (60, 200), (200, 60)];
    for (n, m) in sizes {
        for kind in 0..6 {
            let d = if kind == 4 { 3 } else { 12 };
            let (a, b) = (of_kind(kind, 5, n, d), of_kind(kind, 6, m, d));
            let pair = |of: fn(&Sae<'_>) -> Result<Vectors, Error>| {
                (of(&a.sae).unwrap(), of(&b.sae).unwrap())
            };
            let table = |value: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
                (0..n)
                    .map(|i| (0..m).map(|j| value(i, j)).collect())
                    .collect()
            };
            let check = |found: &Matching, table: &[Vec<f64>], sign: f64, what: &str| {
                let what = format!("{what}, {n} x {m}, kind {kind}");
                assert_eq!(found.pairs.len(), n.min(m), "{what}");
                let mut partners: Vec<u32> = found.pairs.iter().map(|p| p.second).collect();
                partners.sort_unstable();
                partners.dedup();
                assert_eq!(partners.len(), n.min(m), "{what}");
                assert!(found.pairs.is_sorted_by_key(|p| p.first), "{what}");
                for pair in &found.pairs {
                    let value = sign * table[pair.first as usize][pair.second as usize];
                    assert_eq!(pair.value, value, "{what}");
                }
                let sum: f64 = found.pairs.iter().map(|p| sign * p.value).sum();
                let best = dense_sum(table);
                let most = table.iter().flatten().fold(0.0_f64, |x, y| x.max(y.abs()));
                // Units of the two roundings, and the f64 sums.
                let bound = most * n.min(m) as f64 * 8.0 * 2f64.powi(-40);
                assert!((sum - best).abs() <= bound, "{what}: {sum}, not {best}");
            };
            let (va, vb) = pair(Vectors::unit_decoder);
            let cosines = table(&|i, j| va.dot(i, &vb, j).abs());
            check(
                &pw_mcc(&va, &vb, &mut quiet).unwrap(),
                &cosines,
                1.0,
                "PW-MCC",
            );
            let ((ea, eb), (da, db)) =
                (pair(Vectors::folded_encoder), pair(Vectors::folded_decoder));
            let distance = |x: &Vectors, y: &Vectors, i: usize, j: usize| {
                (x.dot(i, x, i) + y.dot(j, y, j) - 2.0 * x.dot(i, y, j)).max(0.0)
            };
            let encoders = table(&|i, j| -distance(&ea, &eb, i, j));
            let decoders = table(&|i, j| -distance(&da, &db, i, j));
            let both = table(&|i, j| encoders[i][j] + decoders[i][j]);
            let found = |terms| sae_match(&a.sae, &b.sae, terms, &mut quiet).unwrap();
            check(&found(Terms::Encoder), &encoders, -1.0, "encoders");
            check(&found(Terms::Decoder), &decoders, -1.0, "decoders");
            check(&found(Terms::Both), &both, -1.0, "both");
            // With the cosines of the unit vectors at hand it is as good.
            let (ua, ub) = pair(Vectors::unit_encoder);
            let units = [
                Cosines::new(&ua, &ub, &mut quiet).unwrap(),
                Cosines::new(&va, &vb, &mut quiet).unwrap(),
            ];
            let shared = sae_match_with(&a.sae, &b.sae, &units[0], &units[1], &mut quiet);
            check(&shared.unwrap(), &both, -1.0, "both, by unit vectors");
            let shared = shared_fraction(&a.sae, &b.sae, 0.5, &mut quiet).unwrap();
            let with = shared_fraction_with(&units[0], &units[1], 0.5, &mut quiet).unwrap();
            assert_eq!(shared, with);
            // The nearest, of both sides, are those of one side at a time.
            let [near, back] = units[1].nearest(3, &mut quiet).unwrap();
            assert_eq!(near, nearest(&va, &vb, 3, false, &mut quiet).unwrap());
            assert_eq!(back, nearest(&vb, &va, 3, false, &mut quiet).unwrap());
            for (i, list) in near.iter().enumerate() {
                let mut all: Vec<(f64, u32)> =
                    (0..m).map(|j| (va.dot(i, &vb, j), j as u32)).collect();
                all.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
                let list: Vec<(f64, u32)> = list.iter().map(|l| (l.cosine, l.feature)).collect();
                assert_eq!(list, all[..list.len()]);
            }
            assert_eq!(units[1].size_bytes(), n * m * 2);
            // Estimated anew at each pass: another search, the same sums.
            let none = Cosines::within(&va, &vb, (n * m) as u64 - 1, &mut quiet).unwrap();
            assert_eq!(none.size_bytes(), 0);
            assert_eq!(none.nearest(3, &mut quiet).unwrap(), [near, back]);
            check(
                &none.pw_mcc(&mut quiet).unwrap(),
                &cosines,
                1.0,
                "PW-MCC, none held",
            );
        }
    }
}

/// Vectors whose products leave the range of f32 have no bound: all their pairs are computed.
#[test]
fn lengths_far_from_one_are_matched_all_the_same() {
    let mut random = Random(9);
    let mut model = |scale: &dyn Fn(usize) -> f32| {
        let mut rows = || -> Vec<Vec<f32>> {
            (0..30)
                .map(|i| (0..8).map(|_| random.number() * scale(i)).collect())
                .collect()
        };
        let (encoder, decoder) = (rows(), rows());
        make(encoder, decoder, vec![1.0; 30])
    };
    let scale = |i: usize| [1e-30, 1.0, 1e18, 1e30][i % 4];
    let (a, b) = (model(&scale), model(&|i| scale(i + 1)));
    let (va, vb) = (Vectors::decoder(&a.sae), Vectors::decoder(&b.sae));
    let (va, vb) = (va.unwrap(), vb.unwrap());
    let table: Vec<Vec<f64>> = (0..30)
        .map(|i| (0..30).map(|j| va.dot(i, &vb, j).abs()).collect())
        .collect();
    let found = pw_mcc(&va, &vb, &mut quiet).unwrap();
    close(found.mean * 30.0, dense_sum(&table), 1e-9);
    let lists = nearest(&va, &vb, 1, false, &mut quiet).unwrap();
    for (i, list) in lists.iter().enumerate() {
        let all = (0..30).map(|j| va.dot(i, &vb, j));
        assert_eq!(list[0].cosine, all.fold(f64::NEG_INFINITY, f64::max));
    }
    let matched = sae_match(&a.sae, &b.sae, Terms::Decoder, &mut quiet).unwrap();
    assert_eq!(matched.pairs.len(), 30);
}

/// A model whose features are those of another in another order and scale is found again.
#[test]
fn a_permuted_model_is_found_again() {
    let a = random(7, 40, 16);
    let order: Vec<usize> = (0..40).map(|i| (i * 7 + 3) % 40).collect();
    let narrow = |rows: &[Vec<f64>]| -> Vec<Vec<f32>> {
        let of = |&i: &usize| rows[i].iter().map(|&x| x as f32).collect();
        order.iter().map(of).collect()
    };
    let thresholds = order.iter().map(|&i| a.thresholds[i] as f32).collect();
    let b = make(narrow(&a.encoder), narrow(&a.decoder), thresholds);
    let found = sae_match(&b.sae, &a.sae, Terms::Both, &mut quiet).unwrap();
    let partners: Vec<usize> = found
        .pairs
        .iter()
        .map(|pair| pair.second as usize)
        .collect();
    assert_eq!(partners, order);
    assert!(found.mean < 1e-9);
    let (fraction, pairs) = shared_fraction(&b.sae, &a.sae, 0.7, &mut quiet).unwrap();
    assert_eq!((fraction, pairs.len()), (1.0, 40));
    // There and back is where it began.
    let back = sae_match(&a.sae, &b.sae, Terms::Both, &mut quiet).unwrap();
    assert!(compose(&found, &back).iter().all(|pair| pair.0 == pair.1));
    // With the encoder of half the features turned round, those are shared no longer.
    let mut encoder = narrow(&a.encoder);
    encoder.iter_mut().take(20).flatten().for_each(|x| *x = -*x);
    let thresholds = vec![1.0; 40];
    let half = make(encoder, narrow(&a.decoder), thresholds);
    let (fraction, pairs) = shared_fraction(&half.sae, &a.sae, 0.7, &mut quiet).unwrap();
    assert_eq!(fraction, 0.5);
    assert!(
        pairs
            .iter()
            .all(|pair| pair.0 >= 20 && order[pair.0 as usize] == pair.1 as usize)
    );
}

#[test]
fn sets_of_labels_overlap() {
    let a = [(3, 1), (0, 7), (3, 1), (2, 2)];
    assert_eq!(jaccard(&a, &[(0, 7), (9, 9)]), 1.0 / 4.0);
    assert_eq!(jaccard(&a, &a), 1.0);
    assert_eq!(jaccard::<u32>(&[], &[]), 0.0);
}

/// Random rows of features of a model of `d_sae`, dense and sparse.
fn rows(seed: u64, count: usize, d_sae: usize) -> (Features, Vec<Vec<f64>>) {
    let mut random = Random(seed);
    let (mut features, mut dense) = (Features::new(), Vec::new());
    for _ in 0..count {
        let mut row = vec![0.0; d_sae];
        for (feature, place) in row.iter_mut().enumerate() {
            if random.below(3) == 0 {
                let value = random.number().abs() + 0.5;
                features.push(feature as u32, value).unwrap();
                *place = f64::from(value);
            }
        }
        features.end_row(RowStatus::Ok).unwrap();
        dense.push(row);
    }
    (features, dense)
}

#[test]
fn correlations_are_those_of_two_passes() {
    let (a, dense_a) = rows(1, 300, 6);
    let layers: Vec<_> = (2..5).map(|seed| rows(seed, 300, 5)).collect();
    let column = |of: &[Vec<f64>], f: usize| -> Vec<f64> { of.iter().map(|row| row[f]).collect() };
    let mut best = Vec::new();
    for (b, dense_b) in &layers {
        let mut found = Correlation::new(&[0, 1, 2, 4, 5], &[0, 1, 3, 4]).unwrap();
        for (x, y) in a.iter().zip(b.iter()) {
            found.add(x, y);
        }
        // A row that is not finite enters nothing.
        let mut broken = Features::new();
        broken.end_row(RowStatus::NonFinite).unwrap();
        found.add(broken.row(0).unwrap(), b.row(0).unwrap());
        assert_eq!(found.rows(), (300, 1));
        for i in [0, 1, 2, 4, 5] {
            for j in [0, 1, 3, 4] {
                let expected = pearson(&column(&dense_a, i), &column(dense_b, j));
                close(found.of(i as u32, j as u32).unwrap(), expected, 1e-12);
            }
        }
        assert_eq!((found.of(3, 0), found.of(0, 2)), (None, None));
        for back in found.best_of_second() {
            let all = [0, 1, 2, 4, 5].map(|i| found.of(i, back.feature).unwrap());
            let most = all.into_iter();
            assert_eq!(back.correlation, most.fold(f64::NEG_INFINITY, f64::max));
            assert_eq!(found.of(back.partner, back.feature), Some(back.correlation));
            close(
                back.sum,
                column(dense_b, back.feature as usize).iter().sum(),
                1e-12,
            );
        }
        best.push(found.best());
    }
    let rho = |i: usize, layer: usize| {
        let values =
            [0, 1, 3, 4].map(|j| pearson(&column(&dense_a, i), &column(&layers[layer].1, j)));
        values.into_iter().fold(f64::NEG_INFINITY, f64::max)
    };
    let sum = |i: usize| column(&dense_a, i).iter().sum::<f64>();
    let kept = [0, 1, 2, 4, 5];
    let most = |i: usize| {
        (0..3)
            .map(|layer| rho(i, layer))
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let weighted: f64 = kept.iter().map(|&i| sum(i) * most(i)).sum();
    let total: f64 = kept.iter().map(|&i| sum(i)).sum();
    close(wmppc(&best).unwrap(), weighted / total, 1e-12);
    let found = sharedness(&best[..2], &best[2..]).unwrap();
    for (found, &i) in found.iter().zip(&kept) {
        let expected = sum(i) * (rho(i, 0).powi(2).min(rho(i, 1).powi(2)) - rho(i, 2).powi(2));
        close(*found, expected, 1e-11);
    }
    assert_eq!(wmppc(&[]).unwrap(), 0.0);
    let shorter = vec![best[0].clone(), best[1][1..].to_vec()];
    assert_eq!(wmppc(&shorter).unwrap_err().code(), Code::Length);
    assert_eq!(sharedness(&best, &[]).unwrap_err().code(), Code::Length);
    // A constant feature correlates with nothing.
    let mut constant = Correlation::new(&[0], &[0]).unwrap();
    for _ in 0..9 {
        let mut row = Features::new();
        row.push(0, 0.1).unwrap();
        row.end_row(RowStatus::Ok).unwrap();
        constant.add(row.row(0).unwrap(), row.row(0).unwrap());
    }
    assert_eq!(constant.of(0, 0), Some(0.0));
}

/// Two families that were put in: 0 over 1, 2, 3 (and 4 below 3), 5 over 6, 7, 8; 9 is alone.
#[test]
fn families_are_found_where_they_were_put() {
    let a = random(3, 10, 4);
    let set: Vec<u32> = (0..10).collect();
    let mut statistics = Accumulator::new(Collect::all(&a.sae).cooccurrence(&set)).unwrap();
    let groups: [&[u32]; 9] = [
        &[0, 1],
        &[0, 2],
        &[0, 3],
        &[0, 3, 4],
        &[5, 6],
        &[5, 7],
        &[5, 8],
        &[9],
        &[0],
    ];
    for round in 0..180 {
        let mut row = Features::new();
        for &feature in groups[round % 9] {
            row.push(feature, 1.0).unwrap();
        }
        row.end_row(RowStatus::Ok).unwrap();
        statistics.add_all(&row, &[]).unwrap();
    }
    let found = families(&statistics, &FamilyOptions::default());
    let family = |parent, children: &[u32]| Family {
        parent,
        children: children.to_vec(),
    };
    assert_eq!(found, [family(0, &[1, 2, 3, 4]), family(5, &[6, 7, 8])]);
    // Without edges there are none.
    let none = FamilyOptions {
        least: 1.5,
        ..FamilyOptions::default()
    };
    assert_eq!(families(&statistics, &none), []);
}

#[test]
fn the_lens_ranks_all_tokens() {
    let a = random(5, 6, 8);
    let mut random = Random(6);
    let unembedding: Vec<f32> = (0..50 * 8).map(|_| random.number()).collect();
    let gain: Vec<f32> = (0..8).map(|_| random.number()).collect();
    let rows = Rows::from_f32(&unembedding, 8).unwrap();
    for gain in [None, Some(&gain[..])] {
        let found = logit_lens(&a.sae, &[4, 1], rows, gain, 7).unwrap();
        for (lens, feature) in found.iter().zip([4usize, 1]) {
            assert_eq!(lens.feature as usize, feature);
            let d = &a.decoder[feature];
            let length = d.iter().map(|x| x * x).sum::<f64>().sqrt();
            let logit = |token: usize| -> f64 {
                let value = |j: usize| {
                    let g = gain.map_or(1.0, |gain| f64::from(gain[j]));
                    f64::from(unembedding[token * 8 + j]) * g * d[j] / length
                };
                (0..8).map(value).sum()
            };
            let mut all: Vec<(f64, u32)> = (0..50).map(|t| (logit(t), t as u32)).collect();
            all.sort_by(|x, y| y.0.total_cmp(&x.0));
            for (found, expected) in lens.promoted.iter().zip(&all) {
                assert_eq!(found.token, expected.1);
                close(found.logit, expected.0, 1e-6);
            }
            for (found, expected) in lens.suppressed.iter().zip(all.iter().rev()) {
                assert_eq!(found.token, expected.1);
            }
            assert_eq!((lens.promoted.len(), lens.suppressed.len()), (7, 7));
        }
    }
    let refused = |result: Result<Vec<_>, Error>| result.unwrap_err().code();
    let narrow = Rows::from_f32(&unembedding, 4).unwrap();
    assert_eq!(
        refused(logit_lens(&a.sae, &[0], narrow, None, 1)),
        Code::Length
    );
    assert_eq!(
        refused(logit_lens(&a.sae, &[0], rows, Some(&gain[1..]), 1)),
        Code::Length
    );
    let beyond = refused(logit_lens(&a.sae, &[6], rows, None, 1));
    assert_eq!(beyond, Code::FeatureOutOfRange);
    let broken = [f32::NAN; 8];
    let broken = Rows::from_f32(&broken, 8).unwrap();
    assert_eq!(
        refused(logit_lens(&a.sae, &[0], broken, None, 1)),
        Code::InvalidArgument
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let (a, b) = (random(1, 3, 4), random(1, 3, 5));
    let (va, vb) = (
        Vectors::unit_decoder(&a.sae).unwrap(),
        Vectors::unit_decoder(&b.sae).unwrap(),
    );
    let wrong = nearest(&va, &vb, 1, false, &mut quiet).unwrap_err();
    assert_eq!(wrong.code(), Code::Length);
    assert_eq!(
        pw_mcc(&va, &vb, &mut quiet).unwrap_err().code(),
        Code::Length
    );
    let mut off = random(1, 3, 4);
    let narrow = |rows: &[Vec<f64>]| -> Vec<Vec<f32>> {
        rows.iter()
            .map(|row| row.iter().map(|&x| x as f32).collect())
            .collect()
    };
    off = make(
        narrow(&off.encoder),
        narrow(&off.decoder),
        vec![1.0, 0.0, 1.0],
    );
    let wrong = sae_match(&off.sae, &a.sae, Terms::Both, &mut quiet).unwrap_err();
    let expected = Error::BadValue {
        tensor: "threshold".into(),
        index: 1,
        found: 0.0,
    };
    assert_eq!(wrong, expected);
    // A threshold that takes weights out of the range of f32.
    let tiny = make(
        narrow(&off.encoder),
        narrow(&off.decoder),
        vec![1.0, 1e-40, 1.0],
    );
    let wrong = sae_match(&tiny.sae, &a.sae, Terms::Both, &mut quiet).unwrap_err();
    assert!(matches!(wrong, Error::BadValue { .. }), "{wrong}");
    // More pairs than a matching is sought over, refused before anything is multiplied.
    let rows = || vec![vec![1.0_f32]; 65_537];
    let many = make(rows(), rows(), vec![1.0; 65_537]);
    let wrong = sae_match(&many.sae, &many.sae, Terms::Both, &mut quiet).unwrap_err();
    assert_eq!(wrong.code(), Code::Limit);
    // Cosines of other models.
    let (one, other) = (
        Vectors::unit_decoder(&a.sae),
        Vectors::unit_decoder(&off.sae),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    let cosines = Cosines::new(&one, &other, &mut quiet).unwrap();
    let small = random(4, 2, 4);
    let wrong = sae_match_with(&small.sae, &a.sae, &cosines, &cosines, &mut quiet);
    assert_eq!(wrong.unwrap_err().code(), Code::Length);
    assert_eq!((va.len(), va.width(), va.is_empty()), (3, 4, false));
    assert_eq!(va.row(3), [] as [f32; 0]);
    assert_eq!(va.dot(0, &vb, 0), 0.0);
}
