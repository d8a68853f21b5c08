//! Pursuit: features one after the other, each on what the ones before leave of the row.
//!
//! ```text
//! a_i = decoder_scale_i d_i ;  r = x'                                     f64
//! repeat:
//!   p_i  = decoder_scale_i (d_i . round32(r))                 exact products, f64 lanes (kernels)
//!   i    = the first of the highest rank, round32(w_i p_i)
//!   z, r = as the refit says
//! f_i = round32(z_i)
//! ```
//!
//! [`Pursuit`] states the rules: which atom is picked ([`Pick`]), what happens to the values found
//! before ([`Refit`]), when it stops. Matching pursuit (Mallat and Zhang 1993) is the encoder of
//! MP-SAE (arXiv 2506.03093) and, signed, of ITDA (arXiv 2505.17769); orthogonal and gradient
//! pursuit find codes for any dictionary (inference-time optimisation, Smith 2024); non-negative
//! least squares (Lawson and Hanson 1974) those of a semi-NMF.
//!
//! A step costs one pass over the dictionary, or less: a [prepared](Sae::prepare) model has a screen,
//! and a step then forms the products of those atoms alone whose bound reaches the highest rank
//! found, which gives the same atom and the same bits. The residual is kept in f64 and rounded to f32 only
//! where it meets the weights, so a long pursuit does not drift. Sums over atoms are formed in the
//! order in which the atoms were picked. A residual that overflows f32 (a dictionary with rows
//! longer than sqrt(2) can make it grow) ends the row without features, with the status
//! [`RowStatus::NanPreActivation`].

mod least_squares;

use crate::encode::{features_at_once, products};
use crate::features::RowStatus;
use crate::kernels::Kernels;
use crate::kernels::screen::ScreenKernels;
use crate::model::{Activation, Matrix, Parts, Pick, Pursuit, Rank, Refit, Sae};
use crate::scratch::Work;
use crate::screen::Screen;
use crate::screened::{self, Ranked};
use crate::select::{Chosen, pre_f64};
use least_squares::LeastSquares;

/// Work space of a pursuit, in f64 units.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    /// The most different atoms that can be picked.
    atoms: usize,
    /// Length of a residual.
    width: usize,
    /// Length of the copy of an atom; 0 where no copies are kept.
    copy: usize,
    least_squares: bool,
}

impl Sizes {
    pub(crate) fn of(parts: &Parts<'_>) -> Self {
        let Activation::Pursuit(pursuit) = &parts.activation else {
            return Sizes::default();
        };
        let width = parts.decoder.width();
        let bytes = width * parts.decoder.weight_type().size();
        Sizes {
            atoms: pursuit.steps.min(parts.decoder.features()),
            width,
            copy: match pursuit.refit {
                Refit::Nothing => 0,
                Refit::Gradient | Refit::LeastSquares => bytes.div_ceil(8),
            },
            least_squares: pursuit.refit == Refit::LeastSquares,
        }
    }

    /// Atoms with their values, two words each; the result of a row.
    pub(crate) fn candidates(self) -> usize {
        self.atoms
    }

    /// Everything else.
    pub(crate) fn total(self) -> usize {
        let matrices = if self.least_squares {
            LeastSquares::words(self.atoms)
        } else {
            0
        };
        let refit = if self.copy > 0 { 2 } else { 0 };
        let rows = self.width.saturating_mul(1 + refit);
        let atoms = self.atoms.saturating_mul(self.copy + refit);
        rows.saturating_add(atoms).saturating_add(matrices)
    }

    fn split(self, words: &mut [f64]) -> Option<Space<'_>> {
        let refit = usize::from(self.copy > 0);
        let mut rest = words;
        let mut take = |length: usize| -> Option<&mut [f64]> {
            let (part, tail) = core::mem::take(&mut rest).split_at_mut_checked(length)?;
            rest = tail;
            Some(part)
        };
        Some(Space {
            residual: take(self.width)?,
            target: take(self.width * refit)?,
            row: take(self.width * refit)?,
            amounts: take(self.atoms * refit)?,
            products: take(self.atoms * refit)?,
            copies: bytemuck::cast_slice_mut(take(self.atoms * self.copy)?),
            matrices: rest,
        })
    }
}

/// The work space, cut up.
struct Space<'s> {
    /// The residual, in f64.
    residual: &'s mut [f64],
    /// The row that is decomposed; refits only, as all that follow.
    target: &'s mut [f64],
    /// An atom widened, or the direction of a line search.
    row: &'s mut [f64],
    /// One number per atom.
    amounts: &'s mut [f64],
    /// Products with the picked atoms.
    products: &'s mut [f64],
    /// The weights of the picked atoms, one row each, in the order in which they were picked.
    copies: &'s mut [u8],
    /// What the least-squares solver keeps.
    matrices: &'s mut [f64],
}

/// Atoms picked so far, in that order: key of the feature, bits of the f64 value.
struct Found<'c> {
    atoms: &'c mut [[u64; 2]],
    count: usize,
}

impl Found<'_> {
    fn features(&self) -> impl Iterator<Item = u32> {
        self.atoms
            .iter()
            .take(self.count)
            .map(|&[key, _]| !(key as u32))
    }

    fn place(&self, feature: u32) -> Option<usize> {
        self.features().position(|found| found == feature)
    }

    /// The place of a feature, and whether it is new.
    fn place_or_add(&mut self, feature: u32) -> Option<(usize, bool)> {
        if let Some(place) = self.place(feature) {
            return Some((place, false));
        }
        *self.atoms.get_mut(self.count)? = [u64::from(!feature), 0];
        self.count += 1;
        Some((self.count - 1, true))
    }

    fn value(&self, place: usize) -> f64 {
        self.atoms
            .get(place)
            .map_or(0.0, |&[_, bits]| f64::from_bits(bits))
    }

    fn set(&mut self, place: usize, value: f64) {
        if let Some(atom) = self.atoms.get_mut(place) {
            atom[1] = value.to_bits();
        }
    }
}

impl Sae<'_> {
    /// Decomposes the prepared row in `work.input`, which is overwritten.
    pub(crate) fn pursue<'w>(
        &self,
        pursuit: &Pursuit,
        work: &'w mut Work<'_>,
    ) -> (RowStatus, Chosen<'w>) {
        let sizes = Sizes::of(&self.parts);
        let Work {
            raw,
            input,
            sums,
            lanes,
            candidates,
            gather,
            pursuit: words,
            screen,
            ..
        } = work;
        let mut found = Found {
            atoms: candidates,
            count: 0,
        };
        let mut status = RowStatus::Ok;
        if let Some(space) = sizes.split(words) {
            let mut run = Run {
                parts: &self.parts,
                kernels: self.kernels,
                pursuit,
                input,
                sums,
                lanes,
                gather,
                space,
                copy_bytes: sizes.copy * 8,
                screen: match (&self.screen, screen) {
                    (Some(screen), Some(work)) => {
                        Some((screen, self.screen_kernels(), work.reborrow()))
                    }
                    _ => None,
                },
                nan: false,
            };
            if !run.steps(raw, &mut found) {
                found.count = 0;
                run.nan = true;
            }
            if run.nan {
                status = RowStatus::NanPreActivation;
            }
        }
        let Found { atoms, count } = found;
        let atoms = atoms.get_mut(..count).unwrap_or(&mut []);
        for [_, bits] in atoms.iter_mut() {
            *bits = u64::from((f64::from_bits(*bits) as f32 + 0.0).to_bits());
        }
        (status, Chosen::of(atoms))
    }
}

/// One row's pursuit.
struct Run<'r, 's> {
    parts: &'r Parts<'r>,
    /// With its work space, if the model was prepared.
    screen: Option<(&'r Screen<'r>, &'static ScreenKernels, screened::Work<'r>)>,
    kernels: &'static Kernels,
    pursuit: &'r Pursuit,
    /// The residual, rounded to f32.
    input: &'r mut [f32],
    sums: &'r mut [f64],
    lanes: &'r mut [f64],
    gather: &'r mut [u8],
    space: Space<'s>,
    copy_bytes: usize,
    nan: bool,
}

impl Run<'_, '_> {
    /// All steps on the prepared row; false if the residual overflowed.
    fn steps(&mut self, row: &[f64], found: &mut Found<'_>) -> bool {
        self.space.residual.copy_from_slice(row);
        let mut solver = None;
        if self.pursuit.refit != Refit::Nothing {
            self.space.target.copy_from_slice(row);
            let words = core::mem::take(&mut self.space.matrices);
            solver = LeastSquares::new(words, self.space.amounts.len());
        }
        for _ in 0..self.pursuit.steps {
            let Some((feature, amount)) = self.best(found) else {
                break;
            };
            let Some((place, new)) = found.place_or_add(feature) else {
                break;
            };
            let went_on = match (self.pursuit.refit, &mut solver) {
                (Refit::Nothing, _) => self.match_one(found, feature, place, amount),
                (Refit::Gradient, _) => self.search_line(found, feature, place, new),
                (Refit::LeastSquares, Some(solver)) => self.solve(found, feature, place, solver),
                (Refit::LeastSquares, None) => false,
            };
            for (to, from) in self.input.iter_mut().zip(self.space.residual.iter()) {
                *to = *from as f32;
            }
            if !self.input.iter().all(|value| value.is_finite()) {
                return false;
            }
            if !went_on || (self.pursuit.stop_on_repeat && !new) {
                break;
            }
            if let Some(stop) = self.pursuit.stop_norm {
                let squares = self.kernels.sum_squares_about(self.space.residual, 0.0);
                if libm::sqrt(squares) < stop {
                    break;
                }
            }
        }
        true
    }

    /// The first atom of the highest rank and its `p`, or `None` if none may be picked.
    fn best(&mut self, found: &Found<'_>) -> Option<(u32, f64)> {
        let mut best = Best {
            highest: match self.pursuit.pick {
                Pick::Any => None,
                Pick::Positive | Pick::Magnitude => Some(self.pursuit.stop_rank),
            },
            atom: None,
            nan: false,
        };
        // Whatever its rank, there is one to pick: if bounds tell none, all are looked at.
        let any = self.pursuit.pick == Pick::Any;
        if self.look_at_candidates(found, &mut best).is_none() || any && best.atom.is_none() {
            self.look_at_all(found, &mut best)?;
        }
        self.nan |= best.nan;
        best.atom
    }

    /// Forms every product.
    fn look_at_all(&mut self, found: &Found<'_>, best: &mut Best) -> Option<()> {
        let dictionary = &self.parts.encoder;
        let block = features_at_once(dictionary);
        let magnitude = self.pursuit.pick == Pick::Magnitude;
        for first in (0..dictionary.features()).step_by(block) {
            let count = block.min(dictionary.features() - first);
            let sums = self.sums.get_mut(..count)?;
            products(
                self.kernels,
                dictionary,
                first,
                self.input,
                self.lanes,
                sums,
            );
            // Most blocks have no atom that wins, and show it at the speed of vectors: what a step
            // does besides the products keeps the memory waiting.
            let floor = best.highest.unwrap_or(f32::NEG_INFINITY);
            if let Some(ceiling) = ceiling(self.parts, first, sums, magnitude)
                && ceiling <= floor
            {
                continue;
            }
            for (i, &sum) in sums.iter().enumerate() {
                best.judge(self.parts, self.pursuit, found, first + i, sum);
            }
        }
        Some(())
    }

    /// Forms the products of the atoms that the screen leaves in the running, which are the ones
    /// that can be picked; `None` without a screen.
    fn look_at_candidates(&mut self, found: &Found<'_>, best: &mut Best) -> Option<()> {
        let (screen, kernels, work) = self.screen.as_mut()?;
        let (parts, pursuit) = (self.parts, self.pursuit);
        let rank = match pursuit.pick {
            Pick::Positive | Pick::Any => Rank::Value,
            Pick::Magnitude => Rank::Magnitude,
        };
        let ranked = Ranked::new(screen, kernels, self.input, rank, work)?;
        let dictionary = &parts.encoder;
        let (ty, least) = (
            dictionary.weight_type(),
            best.highest.unwrap_or(f32::NEG_INFINITY),
        );
        // The atoms picked before may have high bounds, and may not be picked again.
        let excluded = match pursuit.refit {
            Refit::LeastSquares => found.count,
            Refit::Nothing | Refit::Gradient => 0,
        };
        ranked.candidates(dictionary, least, 1 + excluded, |feature| {
            let mut product = [0.0];
            if let Some(row) = dictionary.row(feature) {
                let stride = row.len();
                self.kernels
                    .dot_rows(ty, row, stride, self.input, &mut product);
            }
            best.judge(parts, pursuit, found, feature, product[0]);
            best.highest.unwrap_or(f32::NEG_INFINITY)
        });
        Some(())
    }

    fn scale(&self, feature: u32) -> f64 {
        match &self.parts.decoder_scale {
            None => 1.0,
            Some(scale) => scale.get(feature as usize).copied().unwrap_or(0.0),
        }
    }

    /// Matching pursuit: `z_i += p`, `r -= p a_i`.
    fn match_one(&mut self, found: &mut Found<'_>, feature: u32, place: usize, p: f64) -> bool {
        if p == 0.0 {
            return false;
        }
        found.set(place, found.value(place) + p);
        let amount = -(p * self.scale(feature));
        let dictionary: &Matrix<'_> = &self.parts.decoder;
        let size = dictionary.width() * dictionary.weight_type().size();
        let weights = match dictionary.row(feature as usize) {
            Some(row) => row,
            None => {
                let room = self.gather.get_mut(..size).unwrap_or(&mut []);
                dictionary.gather(feature as usize, room);
                room
            }
        };
        let ty = dictionary.weight_type();
        self.kernels
            .add_scaled_row(ty, weights, amount, self.space.residual);
        true
    }

    /// Keeps the weights of a newly picked atom.
    fn copy(&mut self, feature: u32, place: usize) {
        let size = self.parts.decoder.width() * self.parts.decoder.weight_type().size();
        let copies = self.space.copies.get_mut(place * self.copy_bytes..);
        if let Some(room) = copies.and_then(|rest| rest.get_mut(..size)) {
            self.parts.decoder.gather(feature as usize, room);
        }
    }

    /// Products of the first `count` picked atoms and a row of f32 values, without their scales.
    fn products_of_found(&mut self, count: usize, with: Row) {
        let ty = self.parts.decoder.weight_type();
        let row: &[f64] = match with {
            Row::Residual => &[],
            Row::Target => self.space.target,
            Row::Other => self.space.row,
        };
        // Exact, and in place of the residual, which is rounded anew at the end of the step.
        for (to, &from) in self.input.iter_mut().zip(row) {
            *to = from as f32;
        }
        let products = self.space.products.get_mut(..count).unwrap_or(&mut []);
        self.kernels
            .dot_rows(ty, self.space.copies, self.copy_bytes, self.input, products);
    }

    /// `row += sum_j amount_j d_j` over the picked atoms, in the order in which they were picked.
    fn add_found(&mut self, count: usize, to_residual: bool) {
        let (ty, width) = (self.parts.decoder.weight_type(), self.parts.decoder.width());
        let sums: &mut [f64] = match to_residual {
            true => self.space.residual,
            false => self.space.row,
        };
        let copies = self.space.copies.chunks_exact(self.copy_bytes.max(1));
        for (copy, &amount) in copies.zip(self.space.amounts.iter()).take(count) {
            let weights = copy.get(..width * ty.size()).unwrap_or(&[]);
            self.kernels.add_scaled_row(ty, weights, amount, sums);
        }
    }

    /// `r = x' - sum_j z_j a_j`.
    fn subtract_found(&mut self, found: &Found<'_>) {
        self.space.residual.copy_from_slice(self.space.target);
        for (place, feature) in found.features().enumerate() {
            let amount = -(found.value(place) * self.scale(feature));
            if let Some(to) = self.space.amounts.get_mut(place) {
                *to = amount;
            }
        }
        self.add_found(found.count, true);
    }

    /// Gradient pursuit: one exact line search along the gradient on the atoms in use.
    fn search_line(
        &mut self,
        found: &mut Found<'_>,
        feature: u32,
        place: usize,
        new: bool,
    ) -> bool {
        if new {
            self.copy(feature, place);
        }
        self.products_of_found(found.count, Row::Residual);
        let mut squares = 0.0;
        for (at, feature) in found.features().enumerate() {
            let scale = self.scale(feature);
            let Some(product) = self.space.products.get_mut(at) else {
                return false;
            };
            let in_use = at == place || found.value(at) != 0.0;
            let gradient = if in_use { scale * *product } else { 0.0 };
            *product = gradient;
            squares += gradient * gradient;
            if let Some(to) = self.space.amounts.get_mut(at) {
                *to = gradient * scale;
            }
        }
        self.space.row.fill(0.0);
        self.add_found(found.count, false);
        let length = self.kernels.sum_squares_about(self.space.row, 0.0);
        let step = squares / length;
        if !step.is_finite() || step == 0.0 {
            return false;
        }
        for at in 0..found.count {
            let gradient = self.space.products.get(at).copied().unwrap_or(0.0);
            let value = found.value(at) + step * gradient;
            let clipped = match self.pursuit.pick {
                Pick::Positive => value.max(0.0),
                Pick::Any | Pick::Magnitude => value,
            };
            found.set(at, clipped);
        }
        self.subtract_found(found);
        true
    }

    /// Orthogonal matching pursuit: least squares on all atoms picked so far.
    fn solve(
        &mut self,
        found: &mut Found<'_>,
        feature: u32,
        place: usize,
        solver: &mut LeastSquares<'_>,
    ) -> bool {
        self.copy(feature, place);
        let ty = self.parts.decoder.weight_type();
        let size = self.parts.decoder.width() * ty.size();
        let copy = self.space.copies.get(place * self.copy_bytes..);
        let weights = copy.and_then(|rest| rest.get(..size)).unwrap_or(&[]);
        self.kernels.widen(ty, weights, self.space.row);
        let scale = self.scale(feature);
        self.products_of_found(found.count, Row::Other);
        for (at, other) in found.features().enumerate() {
            let product = self.space.products.get(at).copied().unwrap_or(0.0);
            solver.set_gram(place, at, product * self.scale(other) * scale);
        }
        self.products_of_found(found.count, Row::Target);
        let product = self.space.products.get(place).copied().unwrap_or(0.0);
        solver.set_target(place, scale * product);
        solver.add(place, self.pursuit.pick == Pick::Positive);
        for at in 0..found.count {
            found.set(at, solver.value(at));
        }
        self.subtract_found(found);
        true
    }
}

/// The atom of the highest rank so far.
struct Best {
    /// Its rank, or what a rank must be above; `None` if any rank will do.
    highest: Option<f32>,
    /// The atom and its `p`.
    atom: Option<(u32, f64)>,
    /// Whether a rank was NaN.
    nan: bool,
}

impl Best {
    /// Looks at one atom, of a product with the residual.
    #[inline]
    fn judge(
        &mut self,
        parts: &Parts<'_>,
        pursuit: &Pursuit,
        found: &Found<'_>,
        feature: usize,
        product: f64,
    ) {
        let p = pre_f64(parts, feature, product);
        let rank = match &parts.rank_weight {
            None => p as f32,
            Some(weight) => (weight.get(feature).copied().unwrap_or(0.0) * p) as f32,
        };
        let rank = match pursuit.pick {
            Pick::Positive | Pick::Any => rank,
            Pick::Magnitude => rank.abs(),
        };
        self.nan |= rank.is_nan();
        // The first atom wins a tie; NaN never wins.
        let wins = match (self.highest, self.atom) {
            (None, _) => !rank.is_nan(),
            (Some(highest), Some((other, _))) if rank == highest => (feature as u32) < other,
            (Some(highest), _) => rank > highest,
        };
        let once = pursuit.refit == Refit::LeastSquares;
        if wins && !(once && found.place(feature as u32).is_some()) {
            self.highest = Some(rank);
            self.atom = Some((feature as u32, p));
        }
    }
}

/// The highest rank in a block of features from `first` on, or `None` where that is not known: with
/// rank weights, or if one is NaN.
fn ceiling(parts: &Parts<'_>, first: usize, sums: &[f64], magnitude: bool) -> Option<f32> {
    let ones: &[f64] = &[];
    let scale = match &parts.scale {
        _ if parts.rank_weight.is_some() => return None,
        None => ones,
        Some(scale) => scale.get(first..first + sums.len())?,
    };
    let (most, nan) = match (scale.is_empty(), magnitude) {
        (true, false) => highest_of(sums, sums, |sum, _| sum as f32),
        (true, true) => highest_of(sums, sums, |sum, _| (sum as f32).abs()),
        (false, false) => highest_of(sums, scale, |sum, scale| (scale * sum) as f32),
        (false, true) => highest_of(sums, scale, |sum, scale| ((scale * sum) as f32).abs()),
    };
    (!nan).then_some(most)
}

/// The largest of `rank(a_i, b_i)`, and whether one is NaN: lanes that do not wait for each other,
/// which every compiler makes vectors of.
#[inline(always)]
fn highest_of(a: &[f64], b: &[f64], rank: impl Fn(f64, f64) -> f32) -> (f32, bool) {
    const LANES: usize = 8;
    let (mut most, mut nan) = ([f32::NEG_INFINITY; LANES], [false; LANES]);
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            let rank = rank(a[lane], b[lane]);
            most[lane] = if rank > most[lane] { rank } else { most[lane] };
            nan[lane] |= rank.is_nan();
        }
    }
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        let rank = rank(a, b);
        most[0] = if rank > most[0] { rank } else { most[0] };
        nan[0] |= rank.is_nan();
    }
    let largest = most.iter().fold(
        f32::NEG_INFINITY,
        |most, &rank| {
            if rank > most { rank } else { most }
        },
    );
    (largest, nan.contains(&true))
}

/// Which row the picked atoms are multiplied with.
#[derive(Clone, Copy, Debug)]
enum Row {
    /// The residual, rounded to f32.
    Residual,
    /// The row that is decomposed.
    Target,
    /// The atom in `Space::row`.
    Other,
}
