//! Least squares on the atoms that a pursuit picked: plain and non-negative.
//!
//! With Gram matrix `G_jk = a_j . a_k` and `b_j = a_j . x'`, the values of the atoms in the
//! *passive* set P solve `G_PP z_P = b_P` through a Cholesky factor that grows by one row per atom;
//! the others are 0. Non-negative: the active-set method of Lawson and Hanson (Solving Least
//! Squares Problems, 1974, chapter 23), warm from the step before: whenever the solution on P has
//! a value that is not positive, the values move towards it until the first one reaches 0, which
//! leaves P. Every loop runs in one fixed order, in f64, without fused operations.

/// An atom depends on P if what is left of its squared norm is below this part of it (2^-40).
const DEPENDENT: f64 = 1.0 / (1u64 << 40) as f64;

/// The problem, growing by an atom at a time. All memory is the caller's.
pub(super) struct LeastSquares<'s> {
    most: usize,
    /// `[most, most]`
    gram: &'s mut [f64],
    /// Cholesky factor of `G_PP`, row t for the t-th atom of P, `[most, most]`.
    factor: &'s mut [f64],
    /// `b`
    target: &'s mut [f64],
    /// `z`
    values: &'s mut [f64],
    /// The solution on P, in P's order.
    solution: &'s mut [f64],
    /// The atoms of P, in the order in which they entered.
    passive: &'s mut [u64],
    /// 1 for atoms that this refit has tried.
    tried: &'s mut [u64],
    in_passive: usize,
    atoms: usize,
}

impl<'s> LeastSquares<'s> {
    /// Work space for so many atoms, in f64 units.
    pub(super) fn words(atoms: usize) -> usize {
        let matrices = atoms.saturating_mul(atoms).saturating_mul(2);
        matrices.saturating_add(atoms.saturating_mul(5))
    }

    /// An empty problem, or `None` if the space is too small.
    pub(super) fn new(words: &'s mut [f64], most: usize) -> Option<Self> {
        let square = most.checked_mul(most)?;
        let (gram, rest) = words.split_at_mut_checked(square)?;
        let (factor, rest) = rest.split_at_mut_checked(square)?;
        let (target, rest) = rest.split_at_mut_checked(most)?;
        let (values, rest) = rest.split_at_mut_checked(most)?;
        let (solution, rest) = rest.split_at_mut_checked(most)?;
        let (passive, rest) = rest.split_at_mut_checked(most)?;
        let (tried, _) = rest.split_at_mut_checked(most)?;
        Some(LeastSquares {
            most,
            gram,
            factor,
            target,
            values,
            solution,
            passive: bytemuck::cast_slice_mut(passive),
            tried: bytemuck::cast_slice_mut(tried),
            in_passive: 0,
            atoms: 0,
        })
    }

    /// `G_jk` and `G_kj`.
    pub(super) fn set_gram(&mut self, j: usize, k: usize, value: f64) {
        for at in [j * self.most + k, k * self.most + j] {
            if let Some(to) = self.gram.get_mut(at) {
                *to = value;
            }
        }
    }

    /// `b_j`
    pub(super) fn set_target(&mut self, j: usize, value: f64) {
        if let Some(to) = self.target.get_mut(j) {
            *to = value;
        }
    }

    /// `z_j`
    pub(super) fn value(&self, j: usize) -> f64 {
        self.values.get(j).copied().unwrap_or(0.0)
    }

    /// Takes atom `j`, the next one, whose Gram entries and target are set, and solves again.
    pub(super) fn add(&mut self, j: usize, non_negative: bool) {
        self.atoms = j + 1;
        self.set_value(j, 0.0);
        if !non_negative {
            if self.enter(j) {
                self.solve();
                for t in 0..self.in_passive {
                    self.set_value(self.atom(t), self.solution_of(t));
                }
            }
            return;
        }
        for tried in self.tried.iter_mut().take(self.atoms) {
            *tried = 0;
        }
        let mut next = Some(j);
        while let Some(atom) = next {
            // Each atom is tried once per refit, so this ends.
            if let Some(tried) = self.tried.get_mut(atom) {
                *tried = 1;
            }
            if self.enter(atom) {
                self.become_feasible();
            }
            next = self.steepest();
        }
    }

    /// Moves the values towards the solution on P, and atoms out of P, until the solution is
    /// positive; then takes it.
    fn become_feasible(&mut self) {
        while self.in_passive > 0 {
            self.solve();
            // How far the values can go, and which atom stops them: the first among equals.
            let mut fraction = 1.0;
            let mut first = None;
            for t in 0..self.in_passive {
                let (value, wanted) = (self.value(self.atom(t)), self.solution_of(t));
                if wanted <= 0.0 {
                    let reach = if value > 0.0 {
                        value / (value - wanted)
                    } else {
                        0.0
                    };
                    if first.is_none() || reach < fraction {
                        (fraction, first) = (reach, Some(t));
                    }
                }
            }
            for t in 0..self.in_passive {
                let (atom, wanted) = (self.atom(t), self.solution_of(t));
                let value = match first {
                    None => wanted,
                    Some(stopped) if stopped == t => 0.0,
                    Some(_) => {
                        let value = self.value(atom);
                        (value + fraction * (wanted - value)).max(0.0)
                    }
                };
                self.set_value(atom, value);
            }
            if first.is_none() {
                return;
            }
            self.leave_zeros();
        }
    }

    /// Removes the atoms whose value is 0 from P and factors again.
    fn leave_zeros(&mut self) {
        let count = self.in_passive;
        self.in_passive = 0;
        for t in 0..count {
            let atom = self.atom(t);
            if self.value(atom) > 0.0 && !self.enter(atom) {
                self.set_value(atom, 0.0);
            }
        }
    }

    /// The untried atom outside P along which the error falls fastest, if it falls at all.
    fn steepest(&self) -> Option<usize> {
        let mut best = None;
        let mut highest = 0.0;
        for j in 0..self.atoms {
            let outside = !(0..self.in_passive).any(|t| self.atom(t) == j);
            if !outside || self.tried.get(j) != Some(&0) {
                continue;
            }
            let (mut slope, target) = (self.target.get(j).copied().unwrap_or(0.0), self.gram(j, j));
            let mut scale = slope.abs();
            for t in 0..self.in_passive {
                let term = self.gram(j, self.atom(t)) * self.value(self.atom(t));
                slope -= term;
                scale += term.abs();
            }
            // Below the rounding of its terms a slope means nothing.
            if target > 0.0 && slope > scale * DEPENDENT && slope > highest {
                (highest, best) = (slope, Some(j));
            }
        }
        best
    }

    /// Appends an atom to P and to the factor; false if it depends on P.
    fn enter(&mut self, atom: usize) -> bool {
        let t = self.in_passive;
        let mut left = self.gram(atom, atom);
        let least = left * DEPENDENT;
        for i in 0..t {
            let mut sum = self.gram(atom, self.atom(i));
            for q in 0..i {
                sum -= self.factor(t, q) * self.factor(i, q);
            }
            let entry = sum / self.factor(i, i);
            self.set_factor(t, i, entry);
            left -= entry * entry;
        }
        if left <= least || left.is_nan() {
            return false;
        }
        self.set_factor(t, t, libm::sqrt(left));
        if let Some(to) = self.passive.get_mut(t) {
            *to = atom as u64;
        }
        self.in_passive = t + 1;
        true
    }

    /// Solves on P, by forward and backward substitution.
    fn solve(&mut self) {
        let count = self.in_passive;
        for t in 0..count {
            let mut sum = self.target.get(self.atom(t)).copied().unwrap_or(0.0);
            for q in 0..t {
                sum -= self.factor(t, q) * self.solution_of(q);
            }
            self.set_solution(t, sum / self.factor(t, t));
        }
        for t in (0..count).rev() {
            let mut sum = self.solution_of(t);
            for q in t + 1..count {
                sum -= self.factor(q, t) * self.solution_of(q);
            }
            self.set_solution(t, sum / self.factor(t, t));
        }
    }

    fn atom(&self, t: usize) -> usize {
        self.passive.get(t).map_or(0, |&atom| atom as usize)
    }

    fn gram(&self, j: usize, k: usize) -> f64 {
        self.gram.get(j * self.most + k).copied().unwrap_or(0.0)
    }

    fn factor(&self, t: usize, q: usize) -> f64 {
        self.factor.get(t * self.most + q).copied().unwrap_or(1.0)
    }

    fn set_factor(&mut self, t: usize, q: usize, value: f64) {
        if let Some(to) = self.factor.get_mut(t * self.most + q) {
            *to = value;
        }
    }

    fn solution_of(&self, t: usize) -> f64 {
        self.solution.get(t).copied().unwrap_or(0.0)
    }

    fn set_solution(&mut self, t: usize, value: f64) {
        if let Some(to) = self.solution.get_mut(t) {
            *to = value;
        }
    }

    fn set_value(&mut self, j: usize, value: f64) {
        if let Some(to) = self.values.get_mut(j) {
            *to = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// The values after all atoms have entered.
    fn solve(atoms: &[&[f64]], target: &[f64], non_negative: bool) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| -> f64 { core::iter::zip(a, b).map(|(a, b)| a * b).sum() };
        let mut words = vec![0.0; LeastSquares::words(atoms.len())];
        let mut solver = LeastSquares::new(&mut words, atoms.len()).unwrap();
        for (j, atom) in atoms.iter().enumerate() {
            for (k, earlier) in atoms.iter().take(j + 1).enumerate() {
                solver.set_gram(j, k, dot(atom, earlier));
            }
            solver.set_target(j, dot(atom, target));
            solver.add(j, non_negative);
        }
        (0..atoms.len()).map(|j| solver.value(j)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        for (found, expected) in core::iter::zip(found, expected) {
            assert!((found - expected).abs() < 1e-14, "{found}, not {expected}");
        }
    }

    #[test]
    fn a_basis_is_solved() {
        let found = solve(&[&[2.0, 0.0], &[2.0, 1.0]], &[2.0, 3.0], false);
        assert_close(&found, &[-2.0, 3.0]);
    }

    #[test]
    fn duplicates_and_zeros_get_nothing() {
        let atoms: [&[f64]; 4] = [&[1.0, 0.0], &[1.0, 0.0], &[0.0, 0.0], &[3.0, 0.0]];
        for non_negative in [false, true] {
            let found = solve(&atoms, &[5.0, 1.0], non_negative);
            assert_eq!(found, [5.0, 0.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn a_value_that_would_be_negative_leaves_and_can_come_back() {
        // On its own the first atom helps; with the second one it would be negative.
        let atoms: [&[f64]; 2] = [&[1.0, 1.0], &[1.0, 0.0]];
        assert_close(&solve(&atoms, &[3.0, -1.0], true), &[0.0, 3.0]);
        assert_close(&solve(&atoms, &[3.0, -1.0], false), &[-1.0, 4.0]);
        // A third one makes it useful again.
        let atoms: [&[f64]; 3] = [&[1.0, 1.0, 0.0], &[1.0, 0.0, 0.0], &[0.0, -3.0, 1.0]];
        assert!(solve(&atoms, &[3.0, -1.0, 3.0], true)[0] > 0.0);
    }
}
