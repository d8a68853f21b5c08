//! What the benches share: models of real shapes, answers to check against, an allocator that
//! counts, and figures told as a share of this machine's read bandwidth.
//!
//! A figure is taken from weights in memory, not in a cache: each bench runs over enough equal
//! copies of its model to make [`SPREAD_BYTES`], the next one at each call, as in a host whose
//! own weights pass through the caches between two tokens.

#![allow(dead_code)] // each bench uses its part

pub(crate) mod allocations;
pub(crate) mod bandwidth;
pub(crate) mod model;

use criterion::{Criterion, SamplingMode};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes that the calls of a figure go through before they meet the same bytes again: eight
/// times the last-level cache of the machines that this was written on.
pub(crate) const SPREAD_BYTES: usize = 256 << 20;

/// How many copies of `bytes` are needed to fill [`SPREAD_BYTES`]; a few where the answers are
/// checked and nothing is timed (`cargo test --benches`, `-- --test`).
pub(crate) fn copies(bytes: usize) -> usize {
    let copies = SPREAD_BYTES.div_ceil(bytes).max(1);
    if only_checked() {
        copies.min(3)
    } else {
        copies
    }
}

/// Whether criterion will call everything once and time nothing.
pub(crate) fn only_checked() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name| arguments.iter().any(|argument| argument == name);
    has("--test") || !has("--bench")
}

/// A line of the table that a bench prints at its end.
struct Figure {
    name: String,
    /// Bytes of weights that a call reads.
    bytes: usize,
    fastest: f64,
    median: f64,
    /// Plain reads of as many bytes: the better one of two measurements, before and after.
    reads: f64,
    /// Plain reads of the very same rows, where they lie all over a matrix.
    same_rows: Option<f64>,
    /// The ratio to reach, where the project has set one.
    goal: Option<f64>,
}

/// Runs figures under criterion and prints them as a table.
pub(crate) struct Bench {
    criterion: Criterion,
    /// Memory to measure the read bandwidth with.
    buffer: Vec<u8>,
    figures: Vec<Figure>,
    /// Of the whole buffer, in bytes per second.
    stream: f64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Bench {
            criterion: Criterion::default().configure_from_args(),
            // Written, not only reserved: untouched pages would all be the one page of zeros.
            buffer: (0..if only_checked() {
                1 << 20
            } else {
                SPREAD_BYTES
            })
                .map(|i| i as u8 | 1)
                .collect(),
            figures: Vec::new(),
            stream: 0.0,
        }
    }

    /// Times `call`, which is given the number of the call and reads `bytes` bytes of weights.
    ///
    /// # Panics
    /// If a timed call allocates.
    pub(crate) fn figure(
        &mut self,
        name: &str,
        bytes: usize,
        goal: Option<f64>,
        call: impl FnMut(usize),
    ) {
        self.figure_of_rows(name, bytes, goal, || None, call);
    }

    /// The median of a figure, in seconds, if it was timed.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let mut figures = self.figures.iter();
        let figure = figures.find(|figure| figure.name == name)?;
        (!only_checked()).then_some(figure.median)
    }

    /// [`Bench::figure`] for rows all over a matrix; `same_rows` reads them plainly.
    pub(crate) fn figure_of_rows(
        &mut self,
        name: &str,
        bytes: usize,
        goal: Option<f64>,
        same_rows: impl Fn() -> Option<f64>,
        mut call: impl FnMut(usize),
    ) {
        self.stream = self.stream.max(bandwidth::measure(&self.buffer, 1));
        let reads = bandwidth::of_size(&self.buffer, bytes, reader_time());
        let mut samples: Vec<f64> = Vec::with_capacity(1 << 20);
        let mut number = 0;
        let (group, entry) = name.split_once(' ').unwrap_or(("bench", name));
        let mut group = self.criterion.benchmark_group(group);
        group.sampling_mode(SamplingMode::Flat).sample_size(20);
        group.warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_millis(1500));
        group.throughput(criterion::Throughput::Bytes(bytes as u64));
        group.bench_function(entry, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let allocations = allocations::of_this_thread();
                    let start = Instant::now();
                    call(black_box(number));
                    let elapsed = start.elapsed();
                    let allocations = allocations::of_this_thread() - allocations;
                    assert_eq!(allocations, 0, "{name} allocates");
                    number += 1;
                    total += elapsed;
                    if samples.len() < samples.capacity() {
                        samples.push(elapsed.as_secs_f64());
                    }
                }
                total
            });
        });
        group.finish();
        let reads = reads.max(bandwidth::of_size(&self.buffer, bytes, reader_time()));
        let same_rows = same_rows();
        samples.sort_by(f64::total_cmp);
        if let (Some(&fastest), Some(&median)) = (samples.first(), samples.get(samples.len() / 2)) {
            self.figures.push(Figure {
                name: name.into(),
                bytes,
                fastest,
                median,
                reads,
                same_rows,
                goal,
            });
        }
    }

    /// Prints the table.
    pub(crate) fn finish(self) {
        self.criterion.final_summary();
        if only_checked() {
            println!("{} answers are right", self.figures.len());
            return;
        }
        println!(
            "\nread bandwidth, one thread, best of the run: {:.2} GB/s",
            self.stream / 1e9
        );
        println!(
            "ratios: the median call to the best reader's median for as many bytes, all over memory; \
             to the bandwidth above"
        );
        for figure in &self.figures {
            let median = figure.bytes as f64 / figure.median;
            let goal = figure
                .goal
                .map_or(String::new(), |goal| format!("  goal {goal:.1}"));
            let same_rows = figure.same_rows.map_or(String::new(), |reads| {
                format!("  of reading these rows {:.2}", median / reads)
            });
            println!(
                "{:<32} {:>8.1} us (fastest {:>8.1}) {:>8.3} MB {:>6.2} GB/s  \
                 {:.2} {:.2}{goal}{same_rows}",
                figure.name,
                figure.median * 1e6,
                figure.fastest * 1e6,
                figure.bytes as f64 / 1e6,
                median / 1e9,
                median / figure.reads,
                median / self.stream,
            );
        }
    }
}

/// How long each plain reader may run for one figure.
pub(crate) fn reader_time() -> Duration {
    Duration::from_millis(if only_checked() { 0 } else { 15 })
}
