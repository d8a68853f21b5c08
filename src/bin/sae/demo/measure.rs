//! How well the demo's rows are reconstructed, and how long that takes.

use sae::{Error, Features, Rows, Sae, Scratch};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Sparsity and reconstruction over a number of rows.
pub(super) struct Quality {
    pub(super) rows: usize,
    /// Features that fire, per row.
    pub(super) l0: f64,
    /// Fraction of variance unexplained: sum |x - decoded|^2 / sum |x - mean of x|^2.
    pub(super) fvu: f64,
}

impl Quality {
    /// Over the given rows (f32).
    pub(super) fn of(
        rows: Rows<'_>,
        features: &Features,
        decoded: &[f32],
        which: impl Iterator<Item = usize>,
    ) -> Self {
        let width = rows.width();
        let which: Vec<usize> = which.collect();
        let count = which.len().max(1) as f64;
        let values = |row| {
            let chunks = rows.row_bytes(row).chunks_exact(4);
            chunks.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        };
        let mut mean = vec![0.0; width];
        for &row in &which {
            for (sum, x) in mean.iter_mut().zip(values(row)) {
                *sum += x / count;
            }
        }
        let (mut error, mut variance, mut fired) = (0.0, 0.0, 0);
        for &row in &which {
            fired += features.row(row).map_or(0, |row| row.indices.len());
            let decoded = &decoded[row * width..][..width];
            for ((x, y), mean) in values(row).zip(decoded).zip(&mean) {
                error += (x - f64::from(*y)).powi(2);
                variance += (x - mean).powi(2);
            }
        }
        Quality {
            rows: which.len(),
            l0: fired as f64 / count,
            fvu: error / variance,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "rows": self.rows, "l0": self.l0, "fvu": self.fvu })
    }
}

/// Times of one row at a time on one thread, over all rows again and again.
pub(super) struct Times {
    pub(super) encode: Spread,
    pub(super) decode: Spread,
}

/// Median and 99th percentile.
pub(super) struct Spread {
    pub(super) median: Duration,
    pub(super) p99: Duration,
}

/// How long is measured.
const BUDGET: Duration = Duration::from_millis(300);

impl Times {
    pub(super) fn of(
        sae: &Sae<'_>,
        rows: Rows<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Self, Error> {
        let mut features = Features::new();
        let mut decoded = vec![0.0; sae.d_out()];
        let (mut encode, mut decode) = (Vec::new(), Vec::new());
        let began = Instant::now();
        while encode.is_empty() || began.elapsed() < BUDGET {
            for row in 0..rows.rows() {
                let row = rows.part(row, 1);
                let start = Instant::now();
                sae.encode(row, scratch, &mut features)?;
                let between = Instant::now();
                sae.decode(&features, Some(row), scratch, &mut decoded)?;
                decode.push(between.elapsed());
                encode.push(between - start);
            }
        }
        Ok(Times {
            encode: Spread::of(encode),
            decode: Spread::of(decode),
        })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "encode": self.encode.to_json(), "decode": self.decode.to_json(), "threads": 1 })
    }
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |hundredths: usize| {
            let index = times.len() * hundredths / 100;
            times.get(index).copied().unwrap_or_default()
        };
        Spread {
            median: at(50),
            p99: at(99),
        }
    }

    fn to_json(&self) -> Value {
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        json!({ "median_us": microseconds(self.median), "p99_us": microseconds(self.p99) })
    }
}
