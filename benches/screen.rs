//! Screens on models and rows given as paths: survivors, bytes, time, and a check of every bound.
//!
//! `cargo bench --bench screen -- MODEL ROWS.npy [substring of a variant]`

use std::time::Instant;

use sae::kernels::screen::{CodeFormat, ScreenKernels};
use sae::kernels::{Kernels, WeightType};
use sae::model::{Activation, Matrix, ScreenKind};
use sae::screen::{Certificate, EncoderRows, Options, Rules, Screen};
use sae::{Level, OpenOptions, Sae};

struct Encoder<'m>(&'m Matrix<'m>);

impl EncoderRows for Encoder<'_> {
    fn features(&self) -> usize {
        self.0.features()
    }
    fn width(&self) -> usize {
        self.0.width()
    }
    fn row(&self, feature: usize, out: &mut [f64]) {
        let bytes = self.0.row(feature).unwrap();
        Kernels::best().widen(self.0.weight_type(), bytes, out);
    }
}

/// The first sixteen rows.
struct Head<'e>(&'e Encoder<'e>);

impl EncoderRows for Head<'_> {
    fn features(&self) -> usize {
        16
    }
    fn width(&self) -> usize {
        self.0.width()
    }
    fn row(&self, feature: usize, out: &mut [f64]) {
        self.0.row(feature, out);
    }
}

/// Rows of a little-endian f4 or f2 .npy file.
fn read_npy(path: &str) -> (usize, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let header = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let text = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    let shape = text.split("'shape': (").nth(1).unwrap();
    let width = shape.split([',', ')']).nth(1).unwrap();
    let width: usize = width.trim().parse().unwrap();
    let data = &bytes[header..];
    let values = if text.contains("<f4") {
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    } else {
        let mut wide = vec![0f64; data.len() / 2];
        Kernels::best().widen(WeightType::F16, data, &mut wide);
        wide.into_iter().map(|v| v as f32).collect()
    };
    (width, values)
}

fn best_and_median(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let [model, rows, filter @ ..] = arguments.as_slice() else {
        println!("usage: MODEL ROWS.npy [variant]");
        return;
    };
    let filter = filter.first().cloned().unwrap_or_default();
    let options = OpenOptions::default().screen(ScreenKind::None);
    let sae = Sae::open(model, &options).unwrap();
    let sae = sae.prepare().unwrap();
    let (width, values) = read_npy(rows);
    let parts = sae.parts();
    let n = sae.d_sae();
    let threshold: Vec<f32> = match &parts.activation {
        Activation::JumpRelu { threshold, .. } => {
            (0..n).map(|i| threshold.of(i).max(0.0)).collect()
        }
        _ => vec![0.0; n],
    };
    let rules = Rules {
        scale: parts.scale.as_deref(),
        bias: parts.bias.as_deref(),
        threshold: Some(&threshold),
    };
    let encoder = Encoder(&parts.encoder);
    // Inputs as the encoder sees them.
    let inputs: Vec<Vec<f64>> = values
        .chunks_exact(width)
        .step_by(((values.len() / width / 128) | 1).max(1))
        .take(128)
        .map(|row| {
            let centre = parts.center.as_deref().unwrap_or(&[]);
            let minus = |j: usize| centre.get(j).copied().unwrap_or(0.0);
            row.iter()
                .enumerate()
                .map(|(j, &v)| f64::from((f64::from(v) - minus(j)) as f32))
                .collect()
        })
        .collect();
    let centre = match parts.center {
        Some(_) => None,
        None => parts.decoder_bias.as_deref(),
    };

    // As f32, which they are.
    let narrow: Vec<Vec<f32>> = inputs
        .iter()
        .map(|x| x.iter().map(|&x| x as f32).collect())
        .collect();

    // Dense truth and time.
    let kernels = Kernels::best();
    let mut dense = vec![0f64; n];
    let mut pre: Vec<Vec<f64>> = Vec::new();
    let mut times = Vec::new();
    for x in &narrow {
        let start = Instant::now();
        let m = &parts.encoder;
        kernels.dot_rows(m.weight_type(), m.bytes(), m.stride_bytes(), x, &mut dense);
        times.push(start.elapsed().as_secs_f64());
        let p = dense.iter().enumerate().map(|(i, s)| {
            let scaled = parts.scale.as_ref().map_or(*s, |scale| scale[i] * s);
            scaled + parts.bias.as_ref().map_or(0.0, |bias| bias[i])
        });
        pre.push(p.collect());
    }
    // What the input costs before any row is met: a screen of one panel.
    {
        let head = Head(&encoder);
        let first = |values: Option<&[f64]>| values.map(|values| values[..16].to_vec());
        let (scale, bias) = (first(rules.scale), first(rules.bias));
        let rules = Rules {
            scale: scale.as_deref(),
            bias: bias.as_deref(),
            threshold: None,
        };
        for whiten in [false, true] {
            let options = Options {
                certificate: Certificate::Proven,
                format: CodeFormat::U6,
                whiten,
                centre,
                seed: None,
                delta_exponent: 64,
                refine: false,
            };
            let kernels = ScreenKernels::for_level(Level::best());
            let screen = Screen::build(&head, &rules, &options, kernels).unwrap();
            let mut work = vec![0f64; screen.work_len()];
            let mut times = Vec::new();
            for x in narrow.iter().cycle().take(2000) {
                let start = Instant::now();
                std::hint::black_box(screen.bounds(kernels, x, false, &mut work).unwrap());
                times.push(start.elapsed().as_secs_f64());
            }
            let (best, median) = best_and_median(times);
            println!(
                "input and one panel{}: {:.2} us best, {:.2} median",
                if whiten { ", gram" } else { "" },
                best * 1e6,
                median * 1e6
            );
        }
    }
    let fires = |p: &[f64]| -> usize {
        p.iter()
            .zip(&threshold)
            .filter(|(p, t)| (**p as f32) > **t)
            .count()
    };
    let firing = pre.iter().map(|p| fires(p)).sum::<usize>() as f64 / pre.len() as f64;
    let (best, median) = best_and_median(times);
    println!(
        "{n} x {width}, {firing:.1} fire; dense D1 {:.1} us best, {:.1} median",
        best * 1e6,
        median * 1e6
    );

    for certificate in [Certificate::Proven, Certificate::Dithered] {
        for format in CodeFormat::ALL {
            for (whiten, refine) in [(false, false), (false, true), (true, false), (true, true)] {
                let name = format!(
                    "{certificate:?} {format:?}{}{}",
                    if whiten { " gram" } else { "" },
                    if refine { " refined" } else { "" }
                );
                if !name.contains(&filter) {
                    continue;
                }
                let options = Options {
                    certificate,
                    format,
                    whiten,
                    centre,
                    seed: None,
                    delta_exponent: 64,
                    refine,
                };
                let build = Instant::now();
                let screen = Screen::build(
                    &encoder,
                    &rules,
                    &options,
                    ScreenKernels::for_level(Level::best()),
                )
                .unwrap();
                let build = build.elapsed().as_secs_f64();
                let mut work = vec![0f64; screen.work_len()];
                let mut survivors = Vec::new();
                let (mut worst, mut missed) = (0f64, 0);
                for (x, p) in narrow.iter().zip(&pre) {
                    let bounds = screen
                        .bounds(ScreenKernels::for_level(Level::best()), x, true, &mut work)
                        .unwrap();
                    for (i, _) in p.iter().enumerate() {
                        let (u, l) = (f64::from(bounds.upper()[i]), f64::from(bounds.lower()[i]));
                        worst = worst.max((p[i] - (u + l) / 2.0).abs() / ((u - l) / 2.0));
                    }
                    let bounds = screen
                        .bounds(ScreenKernels::for_level(Level::best()), x, false, &mut work)
                        .unwrap();
                    let kept: Vec<usize> = bounds.kept().collect();
                    survivors.push(kept.len());
                    for (i, p) in p.iter().enumerate() {
                        if (*p as f32) > threshold[i] && kept.binary_search(&i).is_err() {
                            missed += 1;
                        }
                    }
                }
                let mean = survivors.iter().sum::<usize>() as f64 / survivors.len() as f64;
                survivors.sort();
                println!(
                    "{name}: build {build:.1} s, {:.2} MB, survivors mean {mean:.1} median {}, worst error/bound {worst:.4}, missed {missed}",
                    screen.bytes_held() as f64 / 1e6,
                    survivors[survivors.len() / 2]
                );
                for level in Level::available() {
                    let kernels = ScreenKernels::for_level(level);
                    let exact = Kernels::for_level(level).unwrap();
                    let (mut times, mut exact_times) = (Vec::new(), Vec::new());
                    let rounds = if level == Level::Scalar {
                        1
                    } else if n > 10000 {
                        4
                    } else {
                        20
                    };
                    let take = if level == Level::Scalar { 8 } else { 128 };
                    for _ in 0..rounds {
                        for narrow in narrow.iter().take(take) {
                            let start = Instant::now();
                            let bounds = screen.bounds(kernels, narrow, false, &mut work).unwrap();
                            times.push(start.elapsed().as_secs_f64());
                            let mut out = [0f64];
                            let mut found = 0;
                            let mut ahead = bounds.kept();
                            for i in ahead.by_ref().take(4) {
                                kernels.prefetch(parts.encoder.row(i).unwrap());
                            }
                            for i in bounds.kept() {
                                if let Some(next) = ahead.next() {
                                    kernels.prefetch(parts.encoder.row(next).unwrap());
                                }
                                exact.dot_rows(
                                    parts.encoder.weight_type(),
                                    parts.encoder.row(i).unwrap(),
                                    0,
                                    narrow,
                                    &mut out,
                                );
                                let p = parts.scale.as_ref().map_or(out[0], |s| s[i] * out[0])
                                    + parts.bias.as_ref().map_or(0.0, |b| b[i]);
                                found += usize::from(p as f32 > threshold[i]);
                            }
                            std::hint::black_box(found);
                            exact_times.push(start.elapsed().as_secs_f64());
                        }
                    }
                    let (sb, sm) = best_and_median(times);
                    let (eb, em) = best_and_median(exact_times);
                    println!(
                        "    {level}: screen {:.1} us best {:.1} median; with exact rows {:.1} best {:.1} median",
                        sb * 1e6,
                        sm * 1e6,
                        eb * 1e6,
                        em * 1e6
                    );
                }
            }
        }
    }
}
