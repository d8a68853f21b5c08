//! Screens against the exact products: bounds hold for inputs made to break them, all levels give
//! the same bounds, and what a screen drops cannot fire.

use sae::Level;
use sae::bytes::Bytes;
use sae::kernels::screen::batch::BatchKernels;
use sae::kernels::screen::{
    CodeFormat, PANEL_ROWS, ScreenInput, ScreenKernels, ScreenOutput, TILE_COLUMNS, TILE_ROWS,
};
use sae::kernels::{Kernels, WeightType};
use sae::screen::{Certificate, EncoderRows, Options, Rules, Screen};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// f32 rows in memory.
struct Dense {
    width: usize,
    values: Vec<f32>,
}

impl Dense {
    fn new(features: usize, width: usize, mut value: impl FnMut(usize, usize) -> f64) -> Dense {
        let at = |i| (i / width, i % width);
        let values = (0..features * width).map(at);
        Dense {
            width,
            values: values.map(|(f, j)| value(f, j) as f32).collect(),
        }
    }

    fn products(&self, x: &[f32]) -> Vec<f64> {
        let bytes: Vec<u8> = self.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = vec![0.0; self.values.len() / self.width];
        Kernels::best().dot_rows(WeightType::F32, &bytes, self.width * 4, x, &mut out);
        out
    }
}

impl EncoderRows for Dense {
    fn features(&self) -> usize {
        self.values.len() / self.width
    }
    fn width(&self) -> usize {
        self.width
    }
    fn row(&self, feature: usize, out: &mut [f64]) {
        let row = &self.values[feature * self.width..][..self.width];
        out.iter_mut()
            .zip(row)
            .for_each(|(out, v)| *out = f64::from(*v));
    }
}

/// How a screen is built, and whether inputs meet it one by one or in a batch.
#[derive(Clone, Copy, Debug)]
struct Variant {
    certificate: Certificate,
    format: CodeFormat,
    whiten: bool,
    batch: bool,
}

fn variants() -> impl Iterator<Item = Variant> {
    let kinds = [
        (Certificate::Proven, false),
        (Certificate::Proven, true),
        (Certificate::Dithered, false),
    ];
    kinds.into_iter().flat_map(|(certificate, batch)| {
        let formats = CodeFormat::ALL.into_iter();
        formats.flat_map(move |format| {
            [false, true].map(|whiten| Variant {
                certificate,
                format,
                whiten,
                batch,
            })
        })
    })
}

/// An encoder, its rules and a screen.
struct Case {
    rows: Dense,
    scale: Vec<f64>,
    bias: Vec<f64>,
    screen: Screen<'static>,
    batch: bool,
}

impl Case {
    fn new(rows: Dense, variant: Variant, centre: Option<&[f64]>, random: &mut Random) -> Case {
        let features = rows.features();
        let scale: Vec<f64> = (0..features).map(|_| random.normal()).collect();
        let bias: Vec<f64> = (0..features).map(|_| random.normal()).collect();
        let rules = Rules {
            scale: Some(&scale),
            bias: Some(&bias),
            threshold: None,
        };
        let options = Options {
            certificate: variant.certificate,
            format: variant.format,
            whiten: variant.whiten,
            centre,
            // In a batch, both codes have to fit a byte.
            refine: !(variant.batch && variant.format == CodeFormat::U8),
            seed: Some(random.next()),
            delta_exponent: 64,
        };
        let kernels = ScreenKernels::for_level(Level::best());
        let screen = Screen::build(&rows, &rules, &options, kernels).unwrap();
        Case {
            rows,
            scale,
            bias,
            screen,
            batch: variant.batch,
        }
    }

    /// For each feature: how far the exact value is from the middle of the bounds, signed, and how
    /// far the bounds are.
    fn errors(&self, x: &[f32], work: &mut [f64]) -> Vec<(f64, f64)> {
        let kernels = ScreenKernels::for_level(Level::best());
        if self.batch {
            return self.errors_in_batch(x);
        }
        let bounds = self.screen.bounds(kernels, x, true, work).unwrap();
        let products = self.rows.products(x);
        let exact = products
            .iter()
            .zip(&self.scale)
            .zip(&self.bias)
            .map(|((product, scale), bias)| scale * product + bias);
        let sides = bounds.lower().iter().zip(bounds.upper());
        exact
            .zip(sides)
            .enumerate()
            .map(|(feature, (p, (&lower, &upper)))| {
                let refined = f64::from(bounds.refined_upper(&self.screen, kernels, feature));
                if refined < p {
                    return (p - refined, 0.0);
                }
                let (lower, upper) = (f64::from(lower), f64::from(upper));
                if lower.is_finite() && upper.is_finite() {
                    (p - (lower + upper) / 2.0, (upper - lower) / 2.0)
                } else {
                    // Bounds nothing.
                    assert!(upper.is_nan() || upper == f64::INFINITY);
                    (0.0, f64::INFINITY)
                }
            })
            .collect()
    }

    /// The same with the bounds of a batch, in which the input comes twice, among others.
    fn errors_in_batch(&self, x: &[f32]) -> Vec<(f64, f64)> {
        let kernels = ScreenKernels::for_level(Level::best());
        let batch = BatchKernels::for_level(Level::best()).unwrap_or(BatchKernels::scalar());
        let other = vec![1.0; x.len()];
        let mut inputs = vec![other.as_slice(); 8];
        (inputs[1], inputs[7]) = (x, x);
        let bounds = self.screen.batch_bounds(kernels, batch, &inputs);
        let bounds = bounds.unwrap().expect("a screen for batches");
        let products = self.rows.products(x);
        let exact = products
            .iter()
            .zip(&self.scale)
            .zip(&self.bias)
            .map(|((product, scale), bias)| scale * product + bias);
        let bits = |bounds: &[[f32; 2]]| -> Vec<u32> {
            bounds.as_flattened().iter().map(|b| b.to_bits()).collect()
        };
        assert_eq!(bits(&bounds[1]), bits(&bounds[7]));
        exact
            .zip(&bounds[1])
            .map(|(p, &[lower, upper])| {
                let (lower, upper) = (f64::from(lower), f64::from(upper));
                if lower.is_finite() && upper.is_finite() {
                    (p - (lower + upper) / 2.0, (upper - lower) / 2.0)
                } else {
                    assert!(upper.is_nan() || upper == f64::INFINITY);
                    (0.0, f64::INFINITY)
                }
            })
            .collect()
    }

    fn assert_bounded(&self, x: &[f32], work: &mut [f64], what: &str) -> f64 {
        let mut worst = 0f64;
        for (feature, (error, bound)) in self.errors(x, work).into_iter().enumerate() {
            assert!(
                error.abs() <= bound,
                "{what}: feature {feature} is off by {error:e}, the bound is {bound:e}"
            );
            if bound > 0.0 {
                worst = worst.max(error.abs() / bound);
            }
        }
        worst
    }
}

fn to_f32(x: impl IntoIterator<Item = f64>) -> Vec<f32> {
    x.into_iter().map(|v| v as f32).collect()
}

#[test]
fn bounds_hold_for_inputs_along_the_residuals() {
    let mut random = Random(1);
    let mut tightest = 0f64;
    for variant in variants() {
        for (features, width) in [(40, 20), (70, 64), (33, 130), (150, 100)] {
            let rows = Dense::new(features, width, |_, _| random.normal());
            let centre: Vec<f32> = to_f32((0..width).map(|_| random.normal()));
            let wide: Vec<f64> = centre.iter().map(|&v| f64::from(v)).collect();
            let case = Case::new(rows, variant, Some(&wide), &mut random);
            let mut work = vec![0.0; case.screen.work_len()];
            // The error is nearly linear in the input: its gradient is the residual row.
            let base = case.errors(&centre, &mut work);
            let mut residuals = vec![vec![0.0; width]; features];
            for column in 0..width {
                let mut x = centre.clone();
                x[column] += 1000.0;
                for (feature, (error, _)) in case.errors(&x, &mut work).into_iter().enumerate() {
                    residuals[feature][column] = error - base[feature].0;
                }
            }
            for residual in residuals {
                let size = residual
                    .iter()
                    .map(|v| v * v)
                    .sum::<f64>()
                    .sqrt()
                    .max(1e-30);
                for sign in [-50.0, 50.0] {
                    let along = residual.iter().zip(&centre);
                    let x = to_f32(along.map(|(r, &c)| f64::from(c) + sign * r / size));
                    if variant.certificate == Certificate::Proven {
                        let worst = case.assert_bounded(&x, &mut work, &format!("{variant:?}"));
                        tightest = tightest.max(worst);
                    }
                }
            }
        }
    }
    // The search finds what the bound allows, so it would find what it does not.
    assert!(tightest > 0.9, "worst error over bound: {tightest}");
}

/// Climbs towards the largest error over bound: over inputs by coordinates, over weights by single
/// values put where rounding loses most. Whatever it finds must stay at or below one.
#[test]
fn an_adversary_finds_no_error_above_the_bound() {
    let mut random = Random(12);
    let (features, width) = (24, 80);
    for variant in variants().filter(|variant| variant.certificate == Certificate::Proven) {
        // The largest weight fixes the step; the others sit between two codes.
        let codes = f64::from((1u32 << variant.format.bits()) - 2);
        let mut values: Vec<f32> = to_f32((0..features * width).map(|at| match at % 64 {
            0 => 1.0,
            _ => {
                let code = (random.uniform() * codes / 2.0).floor() + 0.5;
                let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
                sign * code * 2.0 / codes
            }
        }));
        let mut best = 0f64;
        for _ in 0..6 {
            let rows = Dense {
                width,
                values: values.clone(),
            };
            let case = Case::new(rows, variant, None, &mut Random(5));
            let mut work = vec![0.0; case.screen.work_len()];
            let worst = |x: &[f32], work: &mut [f64]| -> (f64, usize) {
                let ratios = case.errors(x, work).into_iter().map(|(error, bound)| {
                    assert!(
                        error.abs() <= bound,
                        "{variant:?}: {error:e} over {bound:e}"
                    );
                    if bound > 0.0 {
                        error.abs() / bound
                    } else {
                        0.0
                    }
                });
                let ratios = ratios.enumerate().map(|(feature, ratio)| (ratio, feature));
                ratios.fold((0.0, 0), |a, b| if b.0 > a.0 { b } else { a })
            };
            let mut x: Vec<f32> = to_f32((0..width).map(|_| random.normal()));
            let (mut ratio, mut feature) = worst(&x, &mut work);
            for step in 0..400 {
                let mut next = x.clone();
                let at = random.below(width);
                next[at] = match step % 4 {
                    0 => -next[at],
                    1 => next[at] * 1.5,
                    2 => next[at] * 0.6,
                    _ => next[at] + random.normal() as f32,
                };
                let found = worst(&next, &mut work);
                if found.0 > ratio {
                    (x, (ratio, feature)) = (next, found);
                }
            }
            best = best.max(ratio);
            // A weight of the worst row moves by part of a step.
            for _ in 0..8 {
                let at = feature * width + random.below(width);
                if !at.is_multiple_of(64) {
                    values[at] += (0.3 * random.normal() / codes) as f32;
                }
            }
        }
        // In a batch the errors of rows and inputs add up, whose worst cases are not the same.
        let expected = if variant.batch { 0.15 } else { 0.2 };
        assert!(best > expected, "{variant:?}: the search finds {best} only");
    }
}

#[test]
fn bounds_hold_for_odd_inputs_and_rows() {
    let mut random = Random(2);
    for variant in variants() {
        for (features, width) in [(20, 7), (50, 96)] {
            for kind in 0..6 {
                let rows = Dense::new(features, width, |feature, column| match kind {
                    0 => random.normal(),
                    // One huge column, one huge row, zero rows.
                    1 if column == 3 => 1e6 * random.normal(),
                    1 if feature == 5 => 1e30 * random.normal(),
                    1 if feature == 6 => 0.0,
                    1 => random.normal(),
                    // Subnormal weights.
                    2 => 1e-41 * random.normal(),
                    // The largest weights.
                    3 => f64::from(f32::MAX) * (random.normal() / 6.0).clamp(-1.0, 1.0),
                    // Rows that repeat, so the Gram matrix has no full rank.
                    4 => (feature % 3 + column) as f64,
                    // Outliers of ten orders of magnitude.
                    _ => 10f64.powf(10.0 * random.uniform() - 5.0),
                });
                let centre: Vec<f64> = (0..width).map(|_| 3.0 * random.normal()).collect();
                let centre = (kind % 2 == 0).then_some(centre.as_slice());
                let case = Case::new(rows, variant, centre, &mut random);
                let mut work = vec![0.0; case.screen.work_len()];
                for round in 0..24 {
                    let size = 10f64.powf(40.0 * random.uniform() - 25.0);
                    let x = to_f32((0..width).map(|column| match round % 6 {
                        0 => random.normal(),
                        1 => size * random.normal(),
                        2 if column == 1 => 1e6,
                        2 => 1e-3 * random.normal(),
                        3 => 0.0,
                        4 => f64::from(f32::from_bits(1 + random.below(1 << 20) as u32)),
                        _ => f64::from(f32::MAX) * if random.below(2) == 0 { 1.0 } else { -1.0 },
                    }));
                    case.assert_bounded(&x, &mut work, &format!("{variant:?} {kind} {round}"));
                }
            }
        }
    }
}

#[test]
fn refining_drops_rows_and_none_that_fires() {
    let mut random = Random(6);
    for variant in variants().filter(|variant| !variant.batch) {
        let (features, width) = (200, 150);
        let rows = Dense::new(features, width, |_, _| random.normal());
        let threshold: Vec<f32> = (0..features)
            .map(|_| 25.0 + random.normal() as f32)
            .collect();
        let rules = Rules {
            threshold: Some(&threshold),
            ..Rules::default()
        };
        let Variant {
            certificate,
            format,
            whiten,
            ..
        } = variant;
        let kernels = ScreenKernels::for_level(Level::best());
        let [plain, refined] = [false, true].map(|refine| {
            let options = Options {
                certificate,
                format,
                whiten,
                centre: None,
                refine,
                seed: Some(9),
                delta_exponent: 64,
            };
            Screen::build(&rows, &rules, &options, kernels).unwrap()
        });
        let (mut before, mut after, mut firing) = (0, 0, 0);
        for _ in 0..40 {
            let x = to_f32((0..width).map(|_| random.normal()));
            let kept = [&plain, &refined].map(|screen| {
                let mut work = vec![0.0; screen.work_len()];
                let bounds = screen.bounds(kernels, &x, false, &mut work).unwrap();
                bounds.kept().collect::<Vec<_>>()
            });
            for (feature, product) in rows.products(&x).into_iter().enumerate() {
                if product as f32 > threshold[feature] {
                    firing += 1;
                    assert!(kept[1].contains(&feature), "{variant:?} misses {feature}");
                }
            }
            assert!(kept[1].iter().all(|feature| kept[0].contains(feature)));
            before += kept[0].len();
            let mut work = vec![0.0; refined.work_len()];
            let bounds = refined.bounds(kernels, &x, false, &mut work).unwrap();
            after += bounds.kept().count();
        }
        assert!(firing > 50 && after <= before);
        if format == CodeFormat::U4 {
            assert!(2 * after < before, "{variant:?}: {before} {after} {firing}");
        }
    }
}

#[test]
fn rows_that_are_not_finite_are_always_kept() {
    for variant in variants() {
        let rows = Dense::new(40, 70, |feature, column| match (feature, column) {
            (7, 3) => f64::NAN,
            (21, 60) => f64::INFINITY,
            _ => 0.01 * (feature + column) as f64,
        });
        let threshold = vec![1e30; 40];
        let rules = Rules {
            threshold: Some(&threshold),
            ..Rules::default()
        };
        let Variant {
            certificate,
            format,
            whiten,
            ..
        } = variant;
        let options = Options {
            certificate,
            format,
            whiten,
            centre: None,
            refine: true,
            seed: None,
            delta_exponent: 64,
        };
        let kernels = ScreenKernels::for_level(Level::best());
        let screen = Screen::build(&rows, &rules, &options, kernels).unwrap();
        let mut work = vec![0.0; screen.work_len()];
        let x = to_f32((0..70).map(|i| i as f64));
        let bounds = screen.bounds(kernels, &x, false, &mut work).unwrap();
        assert_eq!(bounds.kept().collect::<Vec<_>>(), [7, 21], "{variant:?}");
        for batch in [
            BatchKernels::for_level(Level::best()),
            Some(BatchKernels::scalar()),
        ] {
            let Some(batch) = batch else {
                continue;
            };
            let Some(bounds) = screen.batch_bounds(kernels, batch, &[&x]).unwrap() else {
                continue;
            };
            let kept = bounds[0].iter().enumerate();
            // A NaN keeps.
            let below = |feature: &usize, upper: &f32| *upper < threshold[*feature];
            let kept = kept.filter(|(feature, [_, upper])| !below(feature, upper));
            let kept: Vec<usize> = kept.map(|(feature, _)| feature).collect();
            assert_eq!(kept, [7, 21], "{variant:?}");
        }
    }
}

/// Six million decisions: rows of several forms, inputs that know nothing of the dither.
#[test]
fn dither_keeps_to_the_quantiles_of_its_theorem() {
    let mut random = Random(3);
    let (features, width) = (4096, 96);
    for (format, whiten) in [
        (CodeFormat::U3, false),
        (CodeFormat::U4, false),
        (CodeFormat::U3, true),
    ] {
        let rows = Dense::new(features, width, |_, _| random.normal());
        let variant = Variant {
            certificate: Certificate::Dithered,
            format,
            whiten,
            batch: false,
        };
        let case = Case::new(rows, variant, None, &mut random);
        let mut work = vec![0.0; case.screen.work_len()];
        // |error| > t has probability at most 2 exp(-(t / bound)^2 ln 2^65).
        let fractions = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let (mut over, mut decisions) = ([0u64; 6], 0u64);
        for _ in 0..500 {
            let x = to_f32((0..width).map(|_| random.normal()));
            for (error, bound) in case.errors(&x, &mut work) {
                assert!(error.abs() <= bound);
                decisions += 1;
                for (over, fraction) in over.iter_mut().zip(fractions) {
                    *over += u64::from(error.abs() > fraction * bound);
                }
            }
        }
        assert!(decisions > 2_000_000);
        for (over, fraction) in over.into_iter().zip(fractions) {
            let most = 2.0 * (-fraction * fraction * 65.0 * 2f64.ln()).exp() * decisions as f64;
            assert!(
                (over as f64) <= most + 4.0 * most.sqrt() + 1.0,
                "{format:?}: {over} of {decisions} beyond {fraction} of the bound, at most {most} \
                 expected"
            );
        }
        assert!(over[1] > 0, "the errors are suspiciously small");
    }
}

#[test]
fn all_levels_give_the_same_bounds() {
    let mut random = Random(4);
    for format in CodeFormat::ALL {
        for blocks in [1, 2, 5] {
            for panels in [1, 4, 7] {
                let bytes = panels * format.panel_bytes(blocks);
                let mut memory: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
                for panel in memory.chunks_exact_mut(format.panel_bytes(blocks)) {
                    for lane in panel[..5 * 64].as_chunks_mut::<4>().0 {
                        *lane = (random.normal() as f32).to_le_bytes();
                    }
                    if format == CodeFormat::U8 {
                        // Code 0 is not used.
                        panel[5 * 64..]
                            .iter_mut()
                            .for_each(|code| *code = (*code).max(1));
                    }
                }
                for (two, dithered) in [(false, false), (false, true), (true, false), (true, true)]
                {
                    compare_levels(format, &memory, blocks, panels, two, dithered, &mut random);
                }
            }
        }
    }
}

fn compare_levels(
    format: CodeFormat,
    memory: &[u8],
    blocks: usize,
    panels: usize,
    two: bool,
    dithered: bool,
    random: &mut Random,
) {
    let extreme = random.below(2) == 0;
    let mut plane = |used: bool| -> Vec<i32> {
        let word = |_| match extreme {
            // The values that come nearest to overflowing 16 bits.
            true => [0x7f7f_7f7f, i32::from_le_bytes([0x80; 4])][random.below(2)],
            false => random.next() as i32,
        };
        (0..if used { blocks * 16 } else { 0 }).map(word).collect()
    };
    let (high, low) = (plane(two), plane(true));
    let sum = |words: &[i32]| -> i32 {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.map(|byte| i32::from(byte as i8)).sum()
    };
    let sums: Vec<i32> = (0..blocks)
        .map(|b| {
            let high = high.get(b * 16..(b + 1) * 16).unwrap_or(&[]);
            256 * sum(high) + sum(&low[b * 16..(b + 1) * 16])
        })
        .collect();
    let corrections: Vec<i32> = (0..blocks).map(|_| random.next() as i16 as i32).collect();
    let squares: Vec<f32> = (0..if dithered { blocks } else { 0 })
        .map(|_| random.uniform() as f32)
        .collect();
    let input = ScreenInput {
        high: &high,
        low: &low,
        sums: &sums,
        corrections: &corrections,
        squares: &squares,
        step: 1e-5,
        spread: 3.0,
        slack: 0.25,
    };
    let mut first: Option<(Vec<u16>, Vec<u32>)> = None;
    for level in Level::available() {
        let kernels = ScreenKernels::for_level(level);
        let rows = panels * PANEL_ROWS;
        let (mut keep, mut upper, mut lower) =
            (vec![0; panels], vec![0f32; rows], vec![0f32; rows]);
        let mut output = ScreenOutput {
            keep: &mut keep,
            upper: &mut upper,
            lower: &mut lower,
        };
        kernels.screen(format, memory, blocks, &input, &mut output);
        let bits = upper.iter().chain(&lower).map(|v| v.to_bits()).collect();
        match &first {
            None => first = Some((keep, bits)),
            Some(first) => assert_eq!(*first, (keep, bits), "{level} {format:?} {two} {dithered}"),
        }
    }
}

#[test]
fn all_levels_multiply_bytes_and_tiles_alike() {
    let mut random = Random(5);
    for words in [16, 48, 160] {
        let codes: Vec<u8> = (0..words * 64)
            .map(|_| 1.max(random.next() as u8))
            .collect();
        let plane = |random: &mut Random| -> Vec<i32> {
            (0..words).map(|_| random.next() as i32).collect()
        };
        let (high, low) = (plane(&mut random), plane(&mut random));
        let sums: Vec<[i64; PANEL_ROWS]> = Level::available()
            .map(|level| {
                let mut out = [0; PANEL_ROWS];
                ScreenKernels::for_level(level).dot_bytes(&codes, &high, &low, &mut out);
                out
            })
            .collect();
        assert!(sums.windows(2).all(|pair| pair[0] == pair[1]));

        let blocks = words / 16 * 4;
        let bytes = |random: &mut Random, n: usize| -> Vec<u8> {
            (0..n).map(|_| random.next() as u8).collect()
        };
        let scales = bytes(&mut random, blocks);
        let codes = bytes(&mut random, blocks * 16);
        let planes = [0, 1].map(|_| -> Vec<i8> {
            let plane = bytes(&mut random, blocks * 64).into_iter();
            plane
                .map(|byte| if words == 16 { -128 } else { byte as i8 })
                .collect()
        });
        let refined: Vec<i64> = Level::available()
            .map(|level| {
                let kernels = ScreenKernels::for_level(level);
                kernels.refine_row(&scales, &codes, &planes[0], &planes[1])
            })
            .collect();
        assert!(refined.windows(2).all(|pair| pair[0] == pair[1]));

        let (a, b): (Vec<f64>, Vec<f64>) = (0..words * 20)
            .map(|_| (random.normal(), random.normal()))
            .unzip();
        let tiles: Vec<Vec<u64>> = Level::available()
            .map(|level| {
                let mut c = vec![1.0; TILE_ROWS * TILE_COLUMNS];
                let side = |values| sae::kernels::screen::Matrix {
                    values,
                    stride: 19,
                    rows: words,
                };
                let kernels = ScreenKernels::for_level(level);
                kernels.subtract_products(side(&a), side(&b), &mut c, TILE_COLUMNS);
                c.iter().map(|v| v.to_bits()).collect()
            })
            .collect();
        assert!(tiles.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn a_stored_screen_is_read_in_place_and_refused_when_it_does_not_fit() {
    let mut random = Random(7);
    let (features, width) = (70, 130);
    let rows = Dense::new(features, width, |_, _| random.normal());
    let centre: Vec<f64> = (0..width).map(|_| random.normal()).collect();
    let bias: Vec<f64> = (0..features).map(|_| random.normal()).collect();
    let rules = Rules {
        bias: Some(&bias),
        ..Rules::default()
    };
    let kernels = ScreenKernels::for_level(Level::best());
    for variant in variants().filter(|variant| !variant.batch) {
        let Variant {
            certificate,
            format,
            whiten,
            ..
        } = variant;
        for refine in [false, true] {
            let options = Options {
                certificate,
                format,
                whiten,
                centre: Some(&centre),
                refine,
                seed: Some(11),
                delta_exponent: 50,
            };
            let screen = Screen::build(&rows, &rules, &options, kernels).unwrap();
            let header = screen.stored_header();
            let vectors = screen.stored_vectors().unwrap();
            let [codes, panels, refined] = screen.stored_sections();
            // An odd address: stored bytes need no alignment.
            let mut odd = vec![0u8];
            odd.extend_from_slice(panels);
            let sections = |panels: &'static [u8]| {
                [
                    Bytes::owned(vectors.clone()),
                    Bytes::owned(codes.to_vec()),
                    Bytes::borrowed(panels),
                    Bytes::owned(refined.to_vec()),
                ]
            };
            let odd: &'static [u8] = Box::leak(odd.into_boxed_slice());
            let again = Screen::from_stored(&header, sections(&odd[1..])).unwrap();
            assert_eq!(again.stored_header(), header);
            assert_eq!(again.bytes_held(), screen.bytes_held());
            again.check(&rows, &rules, kernels).unwrap();
            let x = to_f32((0..width).map(|_| random.normal()));
            let [first, second] = [&screen, &again].map(|screen| {
                let mut work = vec![0.0; screen.work_len()];
                let bounds = screen.bounds(kernels, &x, true, &mut work).unwrap();
                let upper = bounds.upper().iter().map(|v| v.to_bits());
                upper.collect::<Vec<_>>()
            });
            assert_eq!(first, second);

            // Another encoder, other rules, another shape.
            let other = Dense::new(features, width, |_, _| random.normal());
            assert!(again.check_rows(&other).is_err());
            assert!(again.check_rules(&rows, &Rules::default()).is_err());
            let short = Dense::new(features - 1, width, |_, _| 1.0);
            assert!(again.check_rules(&short, &rules).is_err());
            // Every byte of the header counts, and so do the sizes.
            for at in 0..header.len() {
                let mut wrong = header;
                wrong[at] ^= 0x10;
                let found = Screen::from_stored(&wrong, sections(&odd[1..]));
                let found = found.and_then(|screen| screen.check(&rows, &rules, kernels));
                assert!(
                    found.is_err(),
                    "{certificate:?} {format:?} {whiten} {refine}: byte {at} of the header"
                );
            }
            assert!(Screen::from_stored(&header, sections(odd)).is_err());
            // A bound that was tampered with.
            let mut wrong = odd[1..].to_vec();
            wrong[2 * 64] ^= 1;
            let wrong: &'static [u8] = Box::leak(wrong.into_boxed_slice());
            let screen = Screen::from_stored(&header, sections(wrong)).unwrap();
            assert!(screen.check(&rows, &rules, kernels).is_err());
        }
    }
}
