//! A model with the statistics of a trained one, and rows for it: unit decoder rows from a power-law
//! covariance, firing rates over four decades, massive dimensions, an encoder of matched filters
//! (inverse covariance times decoder row). The encoder cancels the strong directions of its input,
//! which is what makes a screen in the basis of the file useless.

/// SplitMix64.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub(crate) struct Synth {
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    /// `[d_sae, d_in]`
    pub(crate) w_enc: Vec<f32>,
    pub(crate) w_dec: Vec<f32>,
    pub(crate) b_dec: Vec<f32>,
    pub(crate) threshold: Vec<f32>,
    /// `[n, d_in]`
    pub(crate) rows: Vec<f32>,
}

fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for i in 0..8 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

/// Reflections that mix the coordinates.
struct Mixed(Vec<Vec<f64>>);

impl Mixed {
    fn new(d: usize, random: &mut Random) -> Self {
        let mut reflection = || {
            let v: Vec<f64> = (0..d).map(|_| normal(random)).collect();
            let length = dot(&v, &v).sqrt();
            v.into_iter().map(|v| v / length).collect()
        };
        Mixed((0..4).map(|_| reflection()).collect())
    }

    /// A random vector whose covariance is a power law in the mixed coordinates.
    fn vector(&self, random: &mut Random) -> Vec<f64> {
        let d = self.0[0].len();
        let mut v: Vec<f64> = (0..d)
            .map(|i| normal(random) * ((i + 1) as f64).powf(-0.45))
            .collect();
        for reflection in &self.0 {
            let along = 2.0 * dot(reflection, &v);
            add(&mut v, -along, reflection);
        }
        v
    }
}

/// `d_in` is a multiple of eight; about `firing` features fire in each of `n` rows.
pub(crate) fn make(d_in: usize, d_sae: usize, firing: usize, n: usize) -> Synth {
    let mut random = Random(7);
    let mixed = Mixed::new(d_in, &mut random);
    let w_dec: Vec<Vec<f64>> = (0..d_sae)
        .map(|_| {
            let row = mixed.vector(&mut random);
            let length = dot(&row, &row).sqrt();
            row.into_iter().map(|v| v / length).collect()
        })
        .collect();
    // Log-uniform from one in 10^5 to what gives most of the firing features.
    let high = (0.8 * firing as f64 / d_sae as f64 * 8.0).min(0.5);
    let rate: Vec<f64> = (0..d_sae)
        .map(|_| 1e-5 * (high / 1e-5).powf(random.uniform()))
        .collect();
    let size: Vec<f64> = (0..d_sae)
        .map(|_| 12.0 * (0.5 * normal(&mut random)).exp())
        .collect();
    let mean: Vec<f64> = (0..d_in).map(|_| 2.0 * normal(&mut random)).collect();
    let massive = [d_in / 7, d_in / 3, d_in / 2 + 1];
    let heights = [180.0, -100.0, 60.0];

    let mut covariance = vec![vec![0.0; d_in]; d_in];
    for ((row, &rate), &size) in w_dec.iter().zip(&rate).zip(&size) {
        let variance = rate * (1.0 - rate) * 1.9 * size * size;
        for (line, &value) in covariance.iter_mut().zip(row) {
            add(line, variance * value, row);
        }
    }
    for (i, line) in covariance.iter_mut().enumerate() {
        line[i] += 2.0;
    }
    for at in massive {
        covariance[at][at] += 1e6;
    }
    // Cholesky, then a forward and a backward substitution for each row.
    let mut lower = covariance;
    for i in 0..d_in {
        let (before, rest) = lower.split_at_mut(i);
        let line = &mut rest[0];
        for (j, known) in before.iter().enumerate() {
            let sum: f64 = (0..j).map(|k| line[k] * known[k]).sum();
            line[j] = (line[j] - sum) / known[j];
        }
        let sum: f64 = line[..i].iter().map(|v| v * v).sum();
        line[i] = (line[i] - sum).sqrt();
        line[i + 1..].fill(0.0);
    }
    let mut w_enc = Vec::new();
    for row in &w_dec {
        let mut solved = row.clone();
        for i in 0..d_in {
            let sum: f64 = lower[i][..i].iter().zip(&solved).map(|(a, b)| a * b).sum();
            solved[i] = (solved[i] - sum) / lower[i][i];
        }
        for i in (0..d_in).rev() {
            solved[i] /= lower[i][i];
            let value = solved[i];
            for (to, from) in solved[..i].iter_mut().zip(&lower[i]) {
                *to -= value * from;
            }
        }
        let along = dot(row, &solved);
        w_enc.push(solved.into_iter().map(|v| v / along).collect::<Vec<f64>>());
    }
    let mut row = || {
        let mut x = mixed.vector(&mut random);
        add(&mut x, 1.0, &mean);
        for ((atom, &rate), &size) in w_dec.iter().zip(&rate).zip(&size) {
            if random.uniform() < rate {
                add(&mut x, size * (0.6 + 1.4 * random.uniform()), atom);
            }
        }
        for (&at, height) in massive.iter().zip(heights) {
            x[at] += height * (1.0 + 0.15 * normal(&mut random));
        }
        x
    };
    let sample: Vec<Vec<f64>> = (0..n.max(64)).map(|_| row()).collect();
    let mut b_dec = vec![0.0; d_in];
    for x in &sample {
        add(&mut b_dec, 1.0 / sample.len() as f64, x);
    }
    // One factor on the spread of each feature, for the wanted number of firing ones.
    let centred: Vec<Vec<f64>> = sample
        .iter()
        .map(|x| x.iter().zip(&b_dec).map(|(x, b)| x - b).collect())
        .collect();
    let pre: Vec<Vec<f64>> = w_enc
        .iter()
        .map(|w| centred.iter().map(|x| dot(w, x)).collect())
        .collect();
    let spread: Vec<f64> = pre
        .iter()
        .map(|p| {
            let mut sizes: Vec<f64> = p.iter().map(|v| v.abs()).collect();
            sizes.sort_by(f64::total_cmp);
            sizes[sizes.len() * 683 / 1000]
        })
        .collect();
    let (mut low, mut factor, mut top) = (0.5, 3.0, 8.0);
    let threshold = |i: usize, factor: f64| (0.4 * size[i]).max(factor * spread[i]);
    for _ in 0..30 {
        let over = |(i, p): (usize, &Vec<f64>)| {
            let threshold = threshold(i, factor);
            p.iter().filter(|p| **p > threshold).count()
        };
        let count: usize = pre.iter().enumerate().map(over).sum();
        match count > firing * sample.len() {
            true => low = factor,
            false => top = factor,
        }
        factor = (low + top) / 2.0;
    }
    let narrow = |values: &[Vec<f64>]| values.iter().flatten().map(|&v| v as f32).collect();
    Synth {
        d_in,
        d_sae,
        w_enc: narrow(&w_enc),
        w_dec: narrow(&w_dec),
        b_dec: b_dec.iter().map(|&v| v as f32).collect(),
        threshold: (0..d_sae).map(|i| threshold(i, factor) as f32).collect(),
        rows: narrow(&sample[..n]),
    }
}
