//! The one-to-one matching of the largest sum, without a table of all values: a solution over few
//! pairs and prices that prove it the best over all pairs.
//!
//! With rows no more than columns, a matching of every row is the best if there are numbers `u_i`,
//! `p_j` such that `u_i + p_j >= w_ij` for all pairs, with equality for those matched, `p_j >= 0`, and
//! `p_j = 0` for columns without a partner: any other matching then sums to at most
//! `sum u + sum p`, which this one reaches. Shortest augmenting paths (Jonker and Volgenant 1987) give
//! such numbers over a few pairs of each row. Every other pair is then judged by an upper bound of
//! its value; those whose bound is above `u_i + p_j` are computed exactly and join the pairs, rows
//! that they are better for look for their partner anew, until there is none.
//!
//! Values are integers, so that nothing is a matter of rounding.

use super::vectors::reserved;
use crate::error::Error;
use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Pairs of one row that join at a time, those of the largest bounds.
const JOIN: usize = 24;

/// How many of them are the best; the others are any.
const BEST: usize = 12;

/// No row, or no column.
const NONE: u32 = u32::MAX;

/// What is matched: rows no more than columns.
pub(super) trait Pairs {
    fn rows(&self) -> usize;
    fn columns(&self) -> usize;
    /// Calls `each` with every row, ascending, and upper bounds of its values at all columns, in
    /// units of the exact values.
    fn bounds(&self, each: &mut dyn FnMut(usize, &[f64])) -> Result<(), Error>;
    /// The value of a pair, at most 2^52 in magnitude.
    fn exact(&self, row: usize, column: usize) -> i64;
    /// Prices to begin with: those near the final ones save time. Not negative.
    fn prices(&self) -> Vec<i64>;
}

/// How a matching went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    /// Passes over the bounds of all pairs.
    pub(super) passes: usize,
    /// Pairs whose values were computed.
    pub(super) pairs: usize,
}

/// A number that looks random, of a pair.
fn scatter(row: u32, column: u32) -> u64 {
    let pair = (u64::from(row) << 32) | u64::from(column);
    // The finaliser of splitmix64.
    let mixed = (pair ^ (pair >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

struct Solver {
    /// Pairs of each row, `(column, value)`.
    pairs: Vec<Vec<(u32, i64)>>,
    u: Vec<i64>,
    p: Vec<i64>,
    column_of: Vec<u32>,
    row_of: Vec<u32>,
    // Of one search: what is reached, from where, and how far it is.
    distance: Vec<i64>,
    from: Vec<u32>,
    reached: Vec<u32>,
    search: u32,
    settled: Vec<u32>,
    /// Distance, whether the column has a row, the column: where many are as near, the free first.
    heap: BinaryHeap<Reverse<(i64, bool, u32)>>,
}

/// The column of each row.
pub(super) fn best(
    of: &impl Pairs,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Vec<u32>, Effort), Error> {
    let (rows, columns) = (of.rows(), of.columns());
    let mut solver = Solver::new(rows, columns, of.prices())?;
    let mut effort = Effort::default();
    // Every row has one pair at least, and all of them one matching.
    for row in 0..rows {
        solver.join(row, row as u32, of.exact(row, row));
    }
    effort.pairs = rows;
    let mut known = vec![false; columns];
    loop {
        let free = solver.settle_prices();
        solver.match_all(&free, rows, progress);
        if columns > rows {
            solver.release_all();
        }
        let (mut better, mut more) = (Vec::new(), false);
        let mut found: Vec<(f64, u32)> = Vec::new();
        effort.passes += 1;
        of.bounds(&mut |row, bounds| {
            let Some(held) = solver.pairs.get(row) else {
                return;
            };
            held.iter().for_each(|pair| known[pair.0 as usize] = true);
            let u = solver.u[row] as f64;
            found.clear();
            for (column, ((&bound, &price), &known)) in
                (0u32..).zip(bounds.iter().zip(&solver.p).zip(&known))
            {
                let gain = bound - price as f64 - u;
                if gain > 0.0 && !known {
                    found.push((gain, column));
                }
            }
            held.iter().for_each(|pair| known[pair.0 as usize] = false);
            if found.len() > JOIN {
                found.select_nth_unstable_by(BEST, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                // Rows of one kind find the same best columns; among the rest each has its own order.
                let order = |column: u32| scatter(row as u32, column);
                let rest = found.get_mut(BEST..).unwrap_or(&mut []);
                rest.select_nth_unstable_by_key(JOIN - BEST, |&(_, column)| order(column));
                found.truncate(JOIN);
                more = true;
            }
            better.extend(found.iter().map(|&(_, column)| (row as u32, column)));
        })?;
        effort.pairs += better.len();
        let mut changed = false;
        for (row, column) in better {
            let value = of.exact(row as usize, column as usize);
            changed |= value > solver.u[row as usize] + solver.p[column as usize];
            solver.join(row as usize, column, value);
        }
        // Bounds that were above and values that are not are known from here on.
        if !changed && !more {
            return Ok((solver.column_of, effort));
        }
    }
}

impl Solver {
    fn new(rows: usize, columns: usize, prices: Vec<i64>) -> Result<Self, Error> {
        let filled = |count: usize| -> Result<Vec<u32>, Error> {
            let mut values = reserved(count, "a matching")?;
            values.resize(count, NONE);
            Ok(values)
        };
        let mut pairs = reserved(rows, "a matching")?;
        pairs.resize_with(rows, Vec::new);
        Ok(Solver {
            pairs,
            u: vec![i64::MIN; rows],
            p: prices,
            column_of: filled(rows)?,
            row_of: filled(columns)?,
            distance: vec![0; columns],
            from: filled(columns)?,
            reached: filled(columns)?,
            search: 0,
            settled: Vec::new(),
            heap: BinaryHeap::new(),
        })
    }

    fn join(&mut self, row: usize, column: u32, value: i64) {
        self.pairs[row].push((column, value));
    }

    /// Raises `u` of every row to what its pairs ask for; a row whose own pair then is not tight
    /// loses it. The rows without a partner, ascending.
    fn settle_prices(&mut self) -> Vec<u32> {
        let mut free = Vec::new();
        for row in 0..self.pairs.len() {
            let pairs = self.pairs[row].iter();
            let most = pairs.map(|&(column, value)| value - self.p[column as usize]);
            let most = most.max().unwrap_or(i64::MIN);
            if most > self.u[row] {
                self.u[row] = most;
                let column = core::mem::replace(&mut self.column_of[row], NONE);
                if column != NONE {
                    self.row_of[column as usize] = NONE;
                }
            }
            if self.column_of[row] == NONE {
                free.push(row as u32);
            }
        }
        free
    }

    fn match_all(&mut self, free: &[u32], rows: usize, progress: &mut dyn FnMut(usize, usize)) {
        // Two sweeps in which a row takes its best column from whoever has it, and raises its price
        // to what its second best leaves. Wars over a price by small steps are left to the paths.
        let mut left: Vec<u32> = free.to_vec();
        let mut steps = 8 * rows;
        for _ in 0..2 {
            let mut next = Vec::new();
            for &first in &left {
                let mut row = first;
                loop {
                    let (best, second, at) = self.two_best(row);
                    let owner = self.row_of[at as usize];
                    let raise = second != i64::MIN && second < best;
                    if steps == 0 || (owner != NONE && !raise) {
                        next.push(row);
                        break;
                    }
                    steps -= 1;
                    self.u[row as usize] = if raise { second } else { best };
                    self.p[at as usize] += best - self.u[row as usize];
                    self.column_of[row as usize] = at;
                    self.row_of[at as usize] = row;
                    if owner == NONE {
                        break;
                    }
                    self.column_of[owner as usize] = NONE;
                    row = owner;
                }
            }
            left = next;
        }
        let matched = rows - left.len();
        for (number, row) in left.into_iter().enumerate() {
            self.augment(row);
            progress(matched + number + 1, rows);
        }
    }

    /// The largest `value - price` of a row, the next, and the column of the first.
    fn two_best(&self, row: u32) -> (i64, i64, u32) {
        let (mut best, mut second, mut at) = (i64::MIN, i64::MIN, 0);
        for &(column, value) in &self.pairs[row as usize] {
            let net = value - self.p[column as usize];
            if net > best {
                (second, best, at) = (best, net, column);
            } else if net > second {
                second = net;
            }
        }
        (best, second, at)
    }

    /// Forgets what the search before reached.
    fn begin(&mut self) {
        self.search += 1;
        self.heap.clear();
        self.settled.clear();
    }

    fn reach(&mut self, column: u32, distance: i64, from: u32) {
        let there = column as usize;
        if self.reached[there] != self.search || distance < self.distance[there] {
            self.reached[there] = self.search;
            self.distance[there] = distance;
            self.from[there] = from;
            let taken = self.row_of[there] != NONE;
            self.heap.push(Reverse((distance, taken, column)));
        }
    }

    /// The nearest column that is not settled, now settled.
    fn settle(&mut self) -> Option<(u32, i64)> {
        while let Some(Reverse((distance, _, column))) = self.heap.pop() {
            // Others are older entries of a column that was reached in a shorter way.
            if distance == self.distance[column as usize] {
                self.settled.push(column);
                return Some((column, distance));
            }
        }
        None
    }

    /// Gives a row without a partner one, along the shortest path to a free column: by how much less
    /// than `u + p` its pairs are worth.
    fn augment(&mut self, start: u32) {
        self.begin();
        let (mut row, mut base) = (start, 0);
        let end = loop {
            let own = base + self.u[row as usize];
            for number in 0..self.pairs[row as usize].len() {
                let (column, value) = self.pairs[row as usize][number];
                self.reach(column, own + self.p[column as usize] - value, row);
            }
            // All rows have a matching among the pairs, so that there is always a next.
            let Some((column, distance)) = self.settle() else {
                return;
            };
            base = distance;
            match self.row_of[column as usize] {
                NONE => break column,
                owner => row = owner,
            }
        };
        self.u[start as usize] -= base;
        for &column in &self.settled {
            let short = base - self.distance[column as usize];
            self.p[column as usize] += short;
            if let Some(u) = self.u.get_mut(self.row_of[column as usize] as usize) {
                *u -= short;
            }
        }
        let mut column = end;
        loop {
            let row = self.from[column as usize];
            self.row_of[column as usize] = row;
            let before = core::mem::replace(&mut self.column_of[row as usize], column);
            if row == start {
                return;
            }
            column = before;
        }
    }

    /// Brings the prices of columns without a partner down to 0: a column takes a row from another
    /// one, which takes one from a third, up to one whose price falls to 0 on the way.
    fn release_all(&mut self) {
        let columns = self.p.len();
        let free =
            |solver: &Self, column: usize| solver.row_of[column] == NONE && solver.p[column] > 0;
        if !(0..columns).any(|column| free(self, column)) {
            return;
        }
        let mut of_column: Vec<Vec<(u32, i64)>> = vec![Vec::new(); columns];
        for (row, pairs) in (0u32..).zip(&self.pairs) {
            for &(column, value) in pairs {
                of_column[column as usize].push((row, value));
            }
        }
        for column in 0..columns {
            if free(self, column) {
                self.release(column as u32, &of_column);
            }
        }
    }

    fn release(&mut self, start: u32, of_column: &[Vec<(u32, i64)>]) {
        self.begin();
        self.reach(start, 0, NONE);
        let (mut end, mut total) = (start, self.p[start as usize]);
        while let Some((column, distance)) = self.settle() {
            if distance >= total {
                break;
            }
            let price = self.p[column as usize];
            if distance + price < total {
                (end, total) = (column, distance + price);
            }
            for &(row, value) in &of_column[column as usize] {
                let there = self.column_of[row as usize];
                if there != column && there != NONE {
                    let slack = self.u[row as usize] + price - value;
                    self.reach(there, distance + slack, column);
                }
            }
        }
        for &column in &self.settled {
            let fall = total - self.distance[column as usize];
            if fall > 0 {
                self.p[column as usize] -= fall;
                if let Some(u) = self.u.get_mut(self.row_of[column as usize] as usize) {
                    *u += fall;
                }
            }
        }
        // `from` is the column that takes the row.
        let mut column = end;
        let mut row = core::mem::replace(&mut self.row_of[end as usize], NONE);
        while column != start {
            column = self.from[column as usize];
            self.column_of[row as usize] = column;
            row = core::mem::replace(&mut self.row_of[column as usize], row);
        }
    }
}
