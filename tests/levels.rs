//! Every kernel at every level that this machine has gives the bits of the definition in
//! `sae::kernels`, which is written out again here.
//!
//! A level that is missing is named as skipped, unless `SAE_REQUIRE_LEVEL` (names separated by
//! commas) asks for it: then the tests fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use sae::kernels::edit::RowSums;
use sae::kernels::{Kernels, Level, WeightType};

/// Lengths of real rows and their neighbours.
const REAL: [usize; 12] = [
    383, 384, 385, 767, 768, 769, 2303, 2304, 2305, 4095, 4096, 4097,
];
const CANONICAL_NAN: u64 = 0x7ff8_0000_0000_0000;
/// What an output holds before the call; must not be seen after it.
const STALE: f64 = f64::from_bits(0x7ff0_dead_dead_dead);

// -- the definition ------------------------------------------------------------------------------

/// 16 lanes from +0, element `i` to lane `i mod 16`; then the tree; then the canonical NaN.
fn lanes_and_tree(terms: &[f64]) -> f64 {
    fn tree(lanes: &[f64]) -> f64 {
        if let [only] = lanes {
            return *only;
        }
        let (low, high) = lanes.split_at(lanes.len() / 2);
        let folded: Vec<f64> = low.iter().zip(high).map(|(low, high)| low + high).collect();
        tree(&folded)
    }
    let lanes: Vec<f64> = (0..16)
        .map(|lane| {
            terms
                .iter()
                .skip(lane)
                .step_by(16)
                .fold(0.0, |sum, term| sum + term)
        })
        .collect();
    canonical(tree(&lanes))
}

fn canonical(value: f64) -> f64 {
    if value.is_nan() {
        f64::from_bits(CANONICAL_NAN)
    } else {
        value
    }
}

/// Bits of exponent and of fraction.
fn fields(ty: WeightType) -> (u32, u32) {
    match ty {
        WeightType::F32 => (8, 23),
        WeightType::F16 => (5, 10),
        WeightType::BF16 => (8, 7),
    }
}

/// The number that a bit pattern stands for, from the formats' definitions.
fn value_of(ty: WeightType, bits: u32) -> f64 {
    let (exponent_bits, fraction_bits) = fields(ty);
    let bias = (1 << (exponent_bits - 1)) - 1;
    let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
    let exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
    let magnitude = if exponent == (1 << exponent_bits) - 1 {
        if fraction == 0.0 {
            f64::INFINITY
        } else {
            f64::NAN
        }
    } else if exponent == 0 {
        fraction * 2f64.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2f64.powi(exponent as i32 - bias)
    };
    if bits >> (exponent_bits + fraction_bits) & 1 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

fn values_of(ty: WeightType, bytes: &[u8]) -> Vec<f64> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(word)
    };
    bytes
        .chunks_exact(ty.size())
        .map(|bytes| value_of(ty, word(bytes)))
        .collect()
}

fn products(weights: &[f64], x: &[f32]) -> Vec<f64> {
    weights
        .iter()
        .zip(x)
        .map(|(weight, &x)| weight * f64::from(x))
        .collect()
}

// -- levels --------------------------------------------------------------------------------------

/// The tables to test.
fn tables() -> &'static [&'static Kernels] {
    static TABLES: LazyLock<Vec<&'static Kernels>> = LazyLock::new(|| {
        let required = std::env::var("SAE_REQUIRE_LEVEL").unwrap_or_default();
        for name in required
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            let level = Level::from_name(name);
            let level = level.unwrap_or_else(|| panic!("no level is named `{name}`"));
            assert!(
                Kernels::for_level(level).is_some(),
                "required level `{level}` is missing"
            );
        }
        for level in Level::ALL {
            if Kernels::for_level(level).is_none() {
                println!("skipped: level `{level}` is not available here");
            }
        }
        Level::available()
            .map(|level| Kernels::for_level(level).unwrap())
            .collect()
    });
    &TABLES
}

#[test]
fn levels_are_listed_named_and_forced() {
    let available: Vec<Level> = tables().iter().map(|kernels| kernels.level()).collect();
    println!("levels tested: {available:?}");
    assert_eq!(available.first(), Some(&Level::Scalar));
    assert!(available.is_sorted());
    assert_eq!(available.last(), Some(&Level::best()));
    assert_eq!(Kernels::best().level(), Level::best());
    for level in Level::ALL {
        assert_eq!(Level::from_name(level.name()), Some(level));
        let forced = Kernels::for_level(level).map(Kernels::level);
        assert_eq!(forced, available.contains(&level).then_some(level));
    }
    assert_eq!(Level::from_name("AVX2"), None);
}

/// The standard library's detection, which this crate cannot use without std, agrees.
#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), not(miri)))]
#[test]
fn detection_agrees_with_std() {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    assert_eq!(Kernels::for_level(Level::Avx2).is_some(), avx2);
    assert_eq!(Kernels::for_level(Level::Avx512).is_some(), avx512);
    assert!(Kernels::for_level(Level::Neon).is_none());
    assert!(Kernels::for_level(Level::Simd128).is_none());
}

// -- inputs --------------------------------------------------------------------------------------

/// A small generator of repeatable numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize) % n
    }
}

/// What a test vector is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Ordinary magnitudes.
    Ordinary,
    /// Ordinary, with a period of 13: a shifted or repeated element is seen at once.
    Periodic,
    /// Subnormals and zeros of both signs.
    Subnormal,
    /// The largest values of both signs, with ordinary ones between them.
    Huge,
    /// Any bits: infinities and NaN included.
    Any,
    /// Ordinary, with one infinity.
    Infinite,
    /// Ordinary, with one signalling NaN whose sign and payload must not survive.
    OneNan,
}

const KINDS: [Kind; 7] = [
    Kind::Ordinary,
    Kind::Periodic,
    Kind::Subnormal,
    Kind::Huge,
    Kind::Any,
    Kind::Infinite,
    Kind::OneNan,
];

/// `n` bit patterns of `ty`.
fn patterns(random: &mut Random, ty: WeightType, kind: Kind, n: usize) -> Vec<u32> {
    let (exponent_bits, fraction_bits) = fields(ty);
    let sign = 1u32 << (exponent_bits + fraction_bits);
    let infinity = ((1u32 << exponent_bits) - 1) << fraction_bits;
    let fraction = (1u32 << fraction_bits) - 1;
    let bias = (1u32 << (exponent_bits - 1)) - 1;
    let ordinary = |random: &mut Random| {
        let exponent = bias - 6 + random.below(10) as u32;
        random.next() as u32 & (sign | fraction) | exponent << fraction_bits
    };
    let period: Vec<u32> = (0..13).map(|_| ordinary(random)).collect();
    let special = random.below(n.max(1));
    let mut pattern = |i: usize| {
        let drawn = random.next() as u32;
        match kind {
            Kind::Periodic => period[i % period.len()],
            Kind::Subnormal if drawn >> 30 == 0 => drawn & sign,
            Kind::Subnormal => drawn & (sign | fraction),
            Kind::Huge if i.is_multiple_of(3) => (infinity - 1) | drawn & sign,
            Kind::Any => drawn & (sign | (sign - 1)),
            Kind::Infinite if i == special => infinity | drawn & sign,
            Kind::OneNan if i == special => sign | infinity | 1,
            _ => ordinary(random),
        }
    };
    (0..n).map(&mut pattern).collect()
}

/// The bytes of `rows` rows of `n` weights, `stride` apart, the first at `offset`. The bytes
/// between rows are 0xff: NaN, should a kernel take them for weights.
fn matrix(
    random: &mut Random,
    (ty, kind): (WeightType, Kind),
    (rows, n): (usize, usize),
    stride: usize,
    offset: usize,
) -> Vec<u8> {
    let end = if rows == 0 {
        0
    } else {
        (rows - 1) * stride + n * ty.size()
    };
    let mut bytes = vec![0xff; offset + end];
    for row in 0..rows {
        for (i, bits) in patterns(random, ty, kind, n).into_iter().enumerate() {
            let at = offset + row * stride + i * ty.size();
            bytes[at..at + ty.size()].copy_from_slice(&bits.to_le_bytes()[..ty.size()]);
        }
    }
    bytes
}

/// A stride for rows of `n` weights: none between rows, or a few bytes, so that rows differ in
/// alignment.
fn stride(random: &mut Random, ty: WeightType, n: usize) -> usize {
    n * ty.size() + random.below(2) * (1 + random.below(9))
}

/// `n` f32 values.
fn input(random: &mut Random, kind: Kind, n: usize) -> Vec<f32> {
    let bits = patterns(random, WeightType::F32, kind, n);
    bits.into_iter().map(f32::from_bits).collect()
}

/// The input that goes with weights of some kind: one NaN is enough.
fn input_beside(random: &mut Random, kind: Kind, n: usize) -> Vec<f32> {
    input(
        random,
        if kind == Kind::OneNan {
            Kind::Ordinary
        } else {
            kind
        },
        n,
    )
}

/// `n` f64 values that use all 53 bits; for the odd kinds, also the ends of the range.
fn wide_input(random: &mut Random, kind: Kind, n: usize) -> Vec<f64> {
    let mut values: Vec<f64> = input(random, kind, n).into_iter().map(f64::from).collect();
    for value in &mut values {
        let drawn = random.next();
        match kind {
            Kind::Any => *value = f64::from_bits(drawn),
            Kind::Subnormal if drawn >> 62 == 0 => *value = f64::from_bits(drawn & !0 >> 12),
            Kind::Huge if drawn >> 62 == 0 => *value = f64::MAX.copysign(*value),
            _ => *value *= 1.0 + (drawn >> 12) as f64 / (1u64 << 52) as f64,
        }
    }
    values
}

#[track_caller]
fn assert_bits(expected: &[f64], found: &[f64], context: &dyn Fn() -> String) {
    assert_eq!(expected.len(), found.len());
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert!(
            expected.to_bits() == found.to_bits(),
            "{}: value {i} is {found:e} ({:#018x}), expected {expected:e} ({:#018x})",
            context(),
            found.to_bits(),
            expected.to_bits(),
        );
    }
}

// -- one check per kernel ------------------------------------------------------------------------

fn check_dot_rows(random: &mut Random, ty: WeightType, kind: Kind, n: usize, offset: usize) {
    let (rows, stride) = (random.below(7), stride(random, ty, n));
    let bytes = matrix(random, (ty, kind), (rows, n), stride, offset);
    let x = input_beside(random, kind, n);
    let weights = &bytes[offset..];
    let expected: Vec<f64> = (0..rows)
        .map(|row| {
            let weights = &weights[row * stride..][..n * ty.size()];
            lanes_and_tree(&products(&values_of(ty, weights), &x))
        })
        .collect();
    for kernels in tables() {
        let mut out = vec![STALE; rows];
        kernels.dot_rows(ty, weights, stride, &x, &mut out);
        let level = kernels.level();
        assert_bits(&expected, &out, &|| {
            format!("dot_rows {level} {ty:?} {kind:?} length {n} offset {offset}")
        });
    }
}

fn check_dot_columns(
    random: &mut Random,
    ty: WeightType,
    kind: Kind,
    (n, width): (usize, usize),
    offset: usize,
) {
    let stride = stride(random, ty, width);
    let bytes = matrix(random, (ty, kind), (n, width), stride, offset);
    let x = input_beside(random, kind, n);
    let weights = &bytes[offset..];
    let rows: Vec<Vec<f64>> = (0..n)
        .map(|j| values_of(ty, &weights[j * stride..][..width * ty.size()]))
        .collect();
    let expected: Vec<f64> = (0..width)
        .map(|f| {
            let column: Vec<f64> = rows.iter().map(|row| row[f]).collect();
            lanes_and_tree(&products(&column, &x))
        })
        .collect();
    for kernels in tables() {
        let needed = Kernels::COLUMN_LANES * width;
        let mut lanes = vec![STALE; needed + 3];
        let mut out = vec![STALE; width];
        kernels.dot_columns(ty, weights, stride, &x, &mut lanes, &mut out);
        let level = kernels.level();
        assert_bits(&expected, &out, &|| {
            format!("dot_columns {level} {ty:?} {kind:?} {n} x {width} offset {offset}")
        });
        assert!(
            lanes[needed..]
                .iter()
                .all(|lane| lane.to_bits() == STALE.to_bits())
        );
    }
}

fn check_add_scaled(random: &mut Random, ty: WeightType, kind: Kind, n: usize, offset: usize) {
    let (rows, stride) = (1 + random.below(9), stride(random, ty, n));
    let bytes = matrix(random, (ty, kind), (rows, n), stride, offset);
    let matrix = &bytes[offset..];
    let count = random.below(12);
    let indices: Vec<u32> = (0..count).map(|_| random.below(rows) as u32).collect();
    let scales = wide_input(random, kind, count);
    let start = wide_input(random, kind, n);

    let mut expected = start.clone();
    for (&index, scale) in indices.iter().zip(&scales) {
        let row = values_of(ty, &matrix[index as usize * stride..][..n * ty.size()]);
        for (sum, weight) in expected.iter_mut().zip(row) {
            let product = scale * weight;
            *sum = canonical(*sum + product);
        }
    }
    for kernels in tables() {
        let level = kernels.level();
        let context = || format!("add_scaled {level} {ty:?} {kind:?} length {n} offset {offset}");
        let mut together = start.clone();
        kernels.add_scaled_rows(ty, matrix, stride, &indices, &scales, &mut together);
        assert_bits(&expected, &together, &context);

        let mut one_by_one = start.clone();
        for (&index, &scale) in indices.iter().zip(&scales) {
            let row = &matrix[index as usize * stride..];
            kernels.add_scaled_row(ty, row, scale, &mut one_by_one);
        }
        assert_bits(&expected, &one_by_one, &context);
    }
}

fn check_widen(random: &mut Random, ty: WeightType, kind: Kind, n: usize, offset: usize) {
    let bytes = matrix(random, (ty, kind), (1, n), 0, offset);
    let expected: Vec<f64> = values_of(ty, &bytes[offset..])
        .into_iter()
        .map(canonical)
        .collect();
    for kernels in tables() {
        let mut out = vec![STALE; n];
        kernels.widen(ty, &bytes[offset..], &mut out);
        let level = kernels.level();
        assert_bits(&expected, &out, &|| {
            format!("widen {level} {ty:?} {kind:?} length {n} offset {offset}")
        });
    }
}

fn check_sums(random: &mut Random, kind: Kind, n: usize) {
    let x = wide_input(random, kind, n);
    let mean = x.iter().sum::<f64>() / n.max(1) as f64;
    for kernels in tables() {
        let level = kernels.level();
        let context = || format!("sums {level} {kind:?} length {n}");
        assert_bits(&[lanes_and_tree(&x)], &[kernels.sum(&x)], &context);
        for mean in [0.0, -0.0, mean, 0.1, f64::NAN] {
            let squares: Vec<f64> = x.iter().map(|x| (x - mean) * (x - mean)).collect();
            let found = kernels.sum_squares_about(&x, mean);
            assert_bits(&[lanes_and_tree(&squares)], &[found], &context);
        }
    }
}

/// What a pass over a row has to say of it.
fn row_sums(terms: &[f64], values: impl Iterator<Item = f64>) -> RowSums {
    let squares: Vec<f64> = terms.iter().map(|term| term * term).collect();
    let finite = terms.iter().all(|term| term.is_finite());
    let mut fits = values.map(|value| (value as f32).is_finite());
    RowSums {
        sum_squares: lanes_and_tree(&squares),
        finite: finite && fits.all(|fits| fits),
    }
}

/// The sums of squares to the bit, and what was written, if it means something.
#[track_caller]
fn assert_row(expected: (RowSums, &[f32]), found: (RowSums, &[f32]), context: &dyn Fn() -> String) {
    let sums = |sums: RowSums| [sums.sum_squares];
    assert_bits(&sums(expected.0), &sums(found.0), context);
    assert_eq!(expected.0.finite, found.0.finite, "{}", context());
    if expected.0.finite {
        let widened = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        assert_bits(&widened(expected.1), &widened(found.1), context);
    }
}

fn check_read_row(random: &mut Random, ty: WeightType, kind: Kind, n: usize, offset: usize) {
    let bytes = matrix(random, (ty, kind), (1, n), 0, offset);
    let x = values_of(ty, &bytes[offset..]);
    let kind_of_center = if kind == Kind::Huge {
        kind
    } else {
        Kind::Ordinary
    };
    let center: Vec<f64> = input(random, kind_of_center, n)
        .into_iter()
        .map(|value| f64::from(value) * (1.0 + 2f64.powi(-40)))
        .collect();
    for center in [&*center, &[]] {
        let centered = |i: usize| x[i] - center.get(i).unwrap_or(&0.0);
        let expected = row_sums(&x, (0..n).map(centered));
        let inputs: Vec<f32> = (0..n).map(|i| centered(i) as f32).collect();
        for kernels in tables() {
            let mut found = vec![f32::NAN; n];
            let sums = kernels.read_row(ty, &bytes[offset..], center, &mut found);
            let level = kernels.level();
            assert_row((expected, &inputs), (sums, &found), &|| {
                let centers = center.len();
                format!("read_row {level} {ty:?} {kind:?} length {n} offset {offset} {centers}")
            });
        }
    }
}

fn check_add_to_row(random: &mut Random, ty: WeightType, kind: Kind, n: usize, offset: usize) {
    let row_kind = match kind {
        // A row that is steered is finite.
        Kind::Any | Kind::Infinite | Kind::OneNan => Kind::Ordinary,
        kind => kind,
    };
    let row = matrix(random, (WeightType::F32, row_kind), (1, n), 0, offset);
    let weights = matrix(random, (ty, kind), (1, n), 0, offset);
    let (row, weights) = (&row[offset..], &weights[offset..]);
    let old = values_of(WeightType::F32, row);
    let w = values_of(ty, weights);
    for scale in [
        0.0,
        -0.0,
        1.5,
        -1e-300,
        1e300,
        wide_input(random, kind, 1)[0],
    ] {
        let change: Vec<f64> = w.iter().map(|w| scale * w).collect();
        let sums = old.iter().zip(&change).map(|(old, change)| old + change);
        let expected = row_sums(&change, sums.clone());
        let new: Vec<f32> = old
            .iter()
            .zip(sums)
            .map(|(&old, sum)| if sum == old { old as f32 } else { sum as f32 })
            .collect();
        for kernels in tables() {
            let level = kernels.level();
            let context = || {
                format!("add_to_row {level} {ty:?} {kind:?} length {n} offset {offset} {scale:e}")
            };
            let mut out = vec![0xff; offset + 4 * n];
            let found = kernels.add_scaled_to_row(ty, weights, scale, row, &mut out[offset..]);
            let values = |out: &[u8]| -> Vec<f32> {
                let values = out[offset..].chunks_exact(4);
                values
                    .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                    .collect()
            };
            assert_row((expected, &new), (found, &values(&out)), &context);
            assert!(out[..offset].iter().all(|&byte| byte == 0xff));
            out.fill(0xff);
            let found = kernels.add_to_row(&change, row, &mut out[offset..]);
            assert_row((expected, &new), (found, &values(&out)), &context);
        }
    }
}

fn each_type_and_kind(mut check: impl FnMut(&mut Random, WeightType, Kind)) {
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    for ty in WeightType::ALL {
        for kind in KINDS {
            check(&mut random, ty, kind);
        }
    }
}

#[test]
fn dot_rows_at_all_lengths() {
    each_type_and_kind(|random, ty, kind| {
        for n in (0..=200).chain(REAL) {
            let offset = random.below(64);
            check_dot_rows(random, ty, kind, n, offset);
        }
    });
}

#[test]
fn dot_columns_at_all_lengths_and_widths() {
    each_type_and_kind(|random, ty, kind| {
        for length in (0..=200).chain(REAL) {
            let (other, offset) = (random.below(40), random.below(64));
            check_dot_columns(random, ty, kind, (length, other), offset);
            check_dot_columns(random, ty, kind, (other, length), offset);
        }
        // more inputs than one pass over a lane takes, with every remainder
        for length in 200..=400 {
            check_dot_columns(random, ty, kind, (length, 19), 3);
        }
    });
}

#[test]
fn add_scaled_at_all_lengths() {
    each_type_and_kind(|random, ty, kind| {
        for n in (0..=200).chain(REAL) {
            let offset = random.below(64);
            check_add_scaled(random, ty, kind, n, offset);
        }
    });
}

#[test]
fn widen_at_all_lengths() {
    each_type_and_kind(|random, ty, kind| {
        for n in (0..=200).chain(REAL) {
            let offset = random.below(64);
            check_widen(random, ty, kind, n, offset);
        }
    });
}

#[test]
fn rows_are_read_and_moved_at_all_lengths() {
    each_type_and_kind(|random, ty, kind| {
        for n in (0..=200).chain(REAL) {
            let offset = random.below(64);
            check_read_row(random, ty, kind, n, offset);
            check_add_to_row(random, ty, kind, n, offset);
        }
    });
}

/// The sums that are just finite in f32, and those that just are not.
#[test]
fn sums_at_the_end_of_f32() {
    let half_step = 2f64.powi(103);
    let just_below = f64::from_bits((f64::from(f32::MAX) + half_step).to_bits() - 1);
    for at in 0..40 {
        for (change, finite) in [
            (half_step, false),
            (just_below - f64::from(f32::MAX), true),
            (f64::NAN, false),
            (f64::INFINITY, false),
            (-2.0 * f64::from(f32::MAX) - half_step, false),
            (-2.0 * f64::from(f32::MAX), true),
        ] {
            let mut row = [1.0_f32; 40];
            let mut changes = [0.0; 40];
            (row[at], changes[at]) = (f32::MAX, change);
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            for kernels in tables() {
                let mut out = vec![0; 160];
                let sums = kernels.add_to_row(&changes, &bytes, &mut out);
                assert_eq!(sums.finite, finite, "{} {at} {change:e}", kernels.level());
                let mut input = [0.0; 40];
                let center = changes.map(|change| -change);
                let sums = kernels.read_row(WeightType::F32, &bytes, &center, &mut input);
                assert_eq!(sums.finite, finite, "{} {at} {change:e}", kernels.level());
            }
        }
    }
}

#[test]
fn sums_at_all_lengths() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for kind in KINDS {
        for n in (0..=200).chain(REAL) {
            check_sums(&mut random, kind, n);
        }
    }
}

#[test]
fn all_start_offsets() {
    let mut random = Random(0x0ff5_e75e_ed00_0001);
    for ty in WeightType::ALL {
        for kind in [Kind::Periodic, Kind::Any] {
            for offset in 0..64 {
                for n in [1, 7, 8, 15, 16, 17, 31, 33, 64, 100, 385] {
                    check_dot_rows(&mut random, ty, kind, n, offset);
                    check_dot_columns(&mut random, ty, kind, (n, 21), offset);
                    check_dot_columns(&mut random, ty, kind, (21, n), offset);
                    check_add_scaled(&mut random, ty, kind, n, offset);
                    check_widen(&mut random, ty, kind, n, offset);
                    check_read_row(&mut random, ty, kind, n, offset);
                    check_add_to_row(&mut random, ty, kind, n, offset);
                }
            }
        }
    }
}

/// Both layouts of a matrix of a real size, tiled as encode tiles it.
#[test]
fn column_tiles_equal_rows() {
    let (d_in, d_sae) = (384, 3072);
    let mut random = Random(0x0c01_0000_0000_0007);
    for ty in WeightType::ALL {
        let size = ty.size();
        let rows = matrix(
            &mut random,
            (ty, Kind::Ordinary),
            (d_sae, d_in),
            d_in * size,
            0,
        );
        let mut columns = vec![0; rows.len()];
        for (at, weight) in rows.chunks_exact(size).enumerate() {
            let (f, j) = (at / d_in, at % d_in);
            columns[(j * d_sae + f) * size..][..size].copy_from_slice(weight);
        }
        let x = input(&mut random, Kind::Ordinary, d_in);
        for kernels in tables() {
            let mut by_rows = vec![0.0; d_sae];
            kernels.dot_rows(ty, &rows, d_in * size, &x, &mut by_rows);
            for tile_width in [Kernels::COLUMN_TILE, 500] {
                let mut by_columns = vec![0.0; d_sae];
                let mut lanes = vec![0.0; Kernels::COLUMN_LANES * tile_width];
                for (tile, out) in by_columns.chunks_mut(tile_width).enumerate() {
                    let weights = &columns[tile * tile_width * size..];
                    kernels.dot_columns(ty, weights, d_sae * size, &x, &mut lanes, out);
                }
                let level = kernels.level();
                assert_bits(&by_rows, &by_columns, &|| {
                    format!("{level} {ty:?} tiles of {tile_width}")
                });
            }
        }
    }
}

#[test]
fn every_half_precision_value_widens_exactly() {
    for ty in [WeightType::F16, WeightType::BF16] {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let by_the_half_crate = |bits| match ty {
            WeightType::F16 => half::f16::from_bits(bits).to_f64(),
            _ => half::bf16::from_bits(bits).to_f64(),
        };
        let expected = values_of(ty, &bytes);
        for (bits, &expected) in (0..=u16::MAX).zip(&expected) {
            let other = canonical(by_the_half_crate(bits));
            assert_eq!(
                canonical(expected).to_bits(),
                other.to_bits(),
                "{bits:#06x}"
            );
        }
        for kernels in tables() {
            let level = kernels.level();
            let widened: Vec<f64> = expected.iter().copied().map(canonical).collect();
            let mut out = vec![STALE; widened.len()];
            kernels.widen(ty, &bytes, &mut out);
            assert_bits(&widened, &out, &|| format!("widen {level} {ty:?}"));

            // as the only weight of a row, which takes the way of the ragged end; a lane that
            // starts at +0 turns -0 into +0
            let dots: Vec<f64> = expected
                .iter()
                .map(|weight| canonical(0.0 + weight))
                .collect();
            kernels.dot_rows(ty, &bytes, 2, &[1.0], &mut out);
            assert_bits(&dots, &out, &|| format!("dot_rows {level} {ty:?}"));
            let mut lanes = vec![STALE; Kernels::COLUMN_LANES * out.len()];
            kernels.dot_columns(ty, &bytes, 0, &[1.0], &mut lanes, &mut out);
            assert_bits(&dots, &out, &|| format!("dot_columns {level} {ty:?}"));
        }
    }
}

/// What fusing or another order would change, in numbers small enough to follow.
#[test]
fn the_definition_by_example() {
    let e = f64::EPSILON;
    for kernels in tables() {
        let level = kernels.level();
        // 1 + e times 1 + 2^-23 does not fit 53 bits: fused, its rounding error would remain
        let (a, weight) = (1.0 + e, 1.0 + f32::EPSILON);
        let mut sums = [-(a * f64::from(weight)); 40];
        let bytes = weight.to_le_bytes().repeat(sums.len());
        kernels.add_scaled_row(WeightType::F32, &bytes, a, &mut sums);
        assert_bits(&[0.0; 40], &sums, &|| format!("{level} rounds the product"));
        // (1 + e)^2 = 1 + 2e + e^2, rounded: 1 + 2e
        let norm = kernels.sum_squares_about(&[a; 32], 0.0);
        assert_eq!(norm.to_bits(), (32.0 * (1.0 + 2.0 * e)).to_bits());

        // elements 0 and 16 share a lane and cancel before anything else arrives
        let mut x = [0.0; 32];
        (x[0], x[16], x[8], x[1]) = (1e300, -1e300, 1.0, 1e-20);
        assert_eq!(kernels.sum(&x), 1.0);
        // lane 0 meets lane 8 before lane 4: (1e300 + 1) - 1e300
        let mut x = [0.0; 16];
        (x[0], x[8], x[4]) = (1e300, 1.0, -1e300);
        assert_eq!(kernels.sum(&x), 0.0);
        // no lane is ever -0
        assert_eq!(kernels.sum(&[-0.0; 40]).to_bits(), 0);
        assert_eq!(kernels.sum(&[]).to_bits(), 0);
        // infinity times zero, and infinities of both signs
        let mut out = [0.0];
        let bytes = f32::INFINITY.to_le_bytes();
        kernels.dot_rows(WeightType::F32, &bytes, 4, &[0.0], &mut out);
        assert_eq!(out[0].to_bits(), CANONICAL_NAN);
        let both = kernels.sum(&[f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!(both.to_bits(), CANONICAL_NAN);
    }
}

/// Calls that break the contract stop in debug builds and are harmless in release builds.
#[test]
fn lengths_outside_the_contract() {
    fn outcome(call: impl FnOnce()) {
        let stopped = catch_unwind(AssertUnwindSafe(call)).is_err();
        assert_eq!(stopped, cfg!(debug_assertions));
    }
    let untouched_in_debug = |out: &[f64]| cfg!(debug_assertions) || out.iter().all(|&o| o == 0.0);
    let ty = WeightType::F16;
    let weights = [0x3c; 2 * 40]; // 40 weights
    let x = [1.0; 20];
    for kernels in tables() {
        for (stride, rows) in [(40, 3), (42, 2), (usize::MAX, 2), (usize::MAX / 2, 3)] {
            let mut out = vec![1.0; rows];
            outcome(|| kernels.dot_rows(ty, &weights, stride, &x, &mut out));
            assert!(untouched_in_debug(&out));
        }
        for (stride, width, lanes) in [(4, 3, 15), (5, 1, 5), (usize::MAX, 1, 5), (2, 1, 4)] {
            let (mut out, mut lanes) = (vec![1.0; width], vec![0.0; lanes]);
            outcome(|| kernels.dot_columns(ty, &weights, stride, &x, &mut lanes, &mut out));
            assert!(untouched_in_debug(&out));
        }
        for (stride, indices, scales) in [
            (40, &[0, 2][..], &[1.0, 1.0][..]),
            (40, &[0, u32::MAX], &[1.0, 1.0]),
            (usize::MAX, &[1], &[1.0]),
            (40, &[0, 1], &[1.0]),
        ] {
            let mut sums = [7.0; 20];
            outcome(|| kernels.add_scaled_rows(ty, &weights, stride, indices, scales, &mut sums));
            assert_eq!(sums, [7.0; 20]);
        }
        let mut out = [1.0; 41];
        outcome(|| kernels.widen(ty, &weights, &mut out));
        assert!(untouched_in_debug(&out));

        let mut inputs = [1.0_f32; 41];
        outcome(|| assert!(!kernels.read_row(ty, &weights, &[], &mut inputs).finite));
        outcome(|| {
            assert!(
                !kernels
                    .read_row(ty, &weights, &[0.0], &mut inputs[..4])
                    .finite
            )
        });
        for (held, row, out) in [(20, 41, 41), (20, 8, 4), (20, 7, 7), (1, 8, 8)] {
            let (row, mut out) = (vec![0; row * 4 - row % 2], vec![7; out * 4 - row % 2]);
            let weights = &weights[..held * ty.size()];
            outcome(|| {
                let sums = kernels.add_scaled_to_row(ty, weights, 1.0, &row, &mut out);
                assert!(!sums.finite);
            });
            let change = vec![0.0; row.len() / 4 + 1];
            outcome(|| assert!(!kernels.add_to_row(&change, &row, &mut out).finite));
            assert!(out.iter().all(|&byte| byte == 7));
        }

        // nothing to do is within the contract
        kernels.read_row(ty, &[], &[], &mut []);
        kernels.add_scaled_to_row(ty, &[], 1.0, &[], &mut []);
        kernels.add_to_row(&[], &[], &mut []);
        kernels.dot_rows(ty, &[], usize::MAX, &x, &mut []);
        kernels.dot_columns(ty, &[], usize::MAX, &x, &mut [], &mut []);
        kernels.add_scaled_rows(ty, &[], 2, &[], &[], &mut [1.0; 4]);
        kernels.add_scaled_row(ty, &[], 2.0, &mut []);
        kernels.widen(ty, &[], &mut []);
        let mut out = [1.0; 3];
        kernels.dot_rows(ty, &[], 0, &[], &mut out);
        assert_eq!(out, [0.0; 3]);
        out = [1.0; 3];
        kernels.dot_columns(ty, &[], 0, &[], &mut [0.0; 15], &mut out);
        assert_eq!(out, [0.0; 3]);
    }
}
