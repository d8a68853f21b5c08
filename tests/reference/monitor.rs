//! Statistics of features in plain f64, from all rows at once, in two passes. Nothing streams,
//! nothing is sparse.

/// Rows, dense, with their stream, position, label and condition.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) values: Vec<f64>,
    pub(crate) stream: u64,
    pub(crate) position: u64,
    pub(crate) label: Option<f64>,
    pub(crate) condition: u32,
}

pub(crate) fn column(rows: &[Row], feature: usize) -> Vec<f64> {
    rows.iter().map(|row| row.values[feature]).collect()
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub(crate) fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares = values.iter().map(|value| (value - mean) * (value - mean));
    squares.sum::<f64>() / values.len() as f64
}

pub(crate) fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let (mx, my) = (mean(x), mean(y));
    let both: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
    let (vx, vy) = (variance(x), variance(y));
    if vx == 0.0 || vy == 0.0 {
        return 0.0;
    }
    both / x.len() as f64 / vx.sqrt() / vy.sqrt()
}

/// Weights `2^(-age / half_life)`, normalised.
pub(crate) fn average_rate(values: &[f64], half_life: f64) -> f64 {
    let age = |row: usize| (values.len() - 1 - row) as f64;
    let weight = |row: usize| 2f64.powf(-age(row) / half_life);
    let fired: f64 = (0..values.len())
        .filter(|&row| values[row] != 0.0)
        .map(weight)
        .sum();
    fired / (0..values.len()).map(weight).sum::<f64>()
}

/// Mutual information, in bits, of two lists of classes.
pub(crate) fn information(a: &[usize], b: &[usize]) -> f64 {
    let n = a.len() as f64;
    let share = |test: &dyn Fn(usize) -> bool| (0..a.len()).filter(|&i| test(i)).count() as f64 / n;
    let mut sum = 0.0;
    for x in 0..=*a.iter().max().unwrap() {
        for y in 0..=*b.iter().max().unwrap() {
            let both = share(&|i| a[i] == x && b[i] == y);
            let (left, right) = (share(&|i| a[i] == x), share(&|i| b[i] == y));
            if both > 0.0 {
                sum += both * (both / left / right).log2();
            }
        }
    }
    sum
}

/// The alerts of a threshold rule on one stream: `(row, score)`.
pub(crate) fn threshold(scores: &[f64], over: f64, release: f64, run: usize) -> Vec<(usize, f64)> {
    let mut alerts = Vec::new();
    let mut row = 0;
    while row < scores.len() {
        // `run` rows above in a row, ending here.
        let from = (row + 1).checked_sub(run);
        let above = from.is_some_and(|from| {
            let since = alerts
                .last()
                .map_or(0, |&(last, _): &(usize, f64)| last + 1);
            from >= quiet_since(scores, since, release, !alerts.is_empty())
                && scores[from..=row].iter().all(|&s| s > over)
        });
        if above {
            alerts.push((row, scores[row]));
        }
        row += 1;
    }
    alerts
}

/// The first row at or after `since` with a score at or below `release`; 0 before any alert.
fn quiet_since(scores: &[f64], since: usize, release: f64, active: bool) -> usize {
    if !active {
        return 0;
    }
    (since..scores.len())
        .find(|&row| scores[row] <= release)
        .unwrap_or(usize::MAX)
}
