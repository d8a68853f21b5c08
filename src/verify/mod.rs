//! Is this model whole, and are these the rows that it reads? Invariants of the weights, checksums
//! and self-test of a pack, and, with rows, how well they are reconstructed.
//!
//! With `x` a row, `y` its reconstruction, `t` what it should be (`x` itself, for a transcoder the
//! rows of its output site), over all rows that are finite:
//!
//! ```text
//! FVU    = sum |t - y|^2 / sum |t - mean t|^2       0 is perfect, 1 is as good as the mean row
//! L0     = mean number of features that fire
//! cosine = mean t . y / (|t| |y|)
//! ```
//!
//! A wrong convention (a transposed matrix that happens to fit, a factor left out, a decoder bias
//! subtracted twice) or a wrong tensor (another layer, rows before a norm instead of after it)
//! shows as an FVU above 1 or as an L0 far from the model's own. What decides is stated in each
//! finding's text.

mod sums;

use crate::encode::load_row;
use crate::error::Error;
use crate::model::{Activation, InputNorm, Sae, Thresholds, canonical};
use crate::rows::Rows;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::{Value, json};
use sums::Sums;

/// Rows that are encoded at a time, at least.
const BATCH: usize = 64;

/// Rows on which other scales are tried when the reconstruction is bad.
const TRIED: usize = 16;

/// What is verified beyond the weights.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyOptions<'r> {
    /// Activation rows that the model should reconstruct.
    pub rows: Option<Rows<'r>>,
    /// What the reconstructions should be, row by row; the rows themselves if `None`. A transcoder
    /// needs them.
    pub targets: Option<Rows<'r>>,
    /// How many features should fire on a row; what the model says of itself if `None`.
    pub l0: Option<f64>,
    /// Whether the screen of a pack is built again and compared byte by byte.
    pub exhaustive: bool,
}

impl<'r> VerifyOptions<'r> {
    /// With rows.
    #[must_use]
    pub fn rows(mut self, rows: Rows<'r>) -> Self {
        self.rows = Some(rows);
        self
    }

    /// With what the reconstructions should be.
    #[must_use]
    pub fn targets(mut self, targets: Rows<'r>) -> Self {
        self.targets = Some(targets);
        self
    }

    /// With a comparison of every bound of the screen.
    #[must_use]
    pub fn exhaustive(mut self, exhaustive: bool) -> Self {
        self.exhaustive = exhaustive;
        self
    }

    /// With the number of features that should fire.
    #[must_use]
    pub fn l0(mut self, l0: f64) -> Self {
        self.l0 = Some(l0);
        self
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// It could not be checked; the text says why.
    Skipped,
    /// Unusual; it need not be wrong.
    Warning,
    /// Wrong.
    Failed,
}

impl Outcome {
    /// `passed`, `skipped`, `warning` or `failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Skipped => "skipped",
            Outcome::Warning => "warning",
            Outcome::Failed => "failed",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// `weights`, `thresholds`, `decoder norms`, `dead features`, `checksums`, `self-test`, `L0`,
    /// `reconstruction`, `screen`.
    pub check: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, with numbers.
    pub text: String,
}

/// How well rows are reconstructed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Quality {
    /// Rows that counted.
    pub rows: usize,
    /// Rows left out, since they were not finite.
    pub non_finite: usize,
    /// Fraction of variance unexplained; `None` without targets, or if the targets do not vary.
    pub fvu: Option<f64>,
    /// Mean cosine of target and reconstruction; `None` without targets.
    pub cosine: Option<f64>,
    /// Mean number of features that fire.
    pub l0: f64,
    /// What it should be, if that is known.
    pub expected_l0: Option<f64>,
}

/// All findings.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Verification {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
    /// With rows.
    pub quality: Option<Quality>,
}

impl Verification {
    /// Whether nothing is wrong; warnings do not count.
    pub fn passed(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.outcome != Outcome::Failed)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let findings = self.findings.iter();
        let finding = |it: &Finding| json!({"check": it.check, "outcome": it.outcome.name(), "text": it.text});
        let quality = self.quality.map(|it| {
            json!({
                "rows": it.rows, "non_finite_rows": it.non_finite, "fvu": it.fvu,
                "cosine": it.cosine, "l0": it.l0, "expected_l0": it.expected_l0,
            })
        });
        json!({
            "passed": self.passed(),
            "findings": findings.map(finding).collect::<Vec<_>>(),
            "quality": quality,
        })
    }

    fn add(&mut self, check: &'static str, outcome: Outcome, text: impl Into<String>) {
        self.findings.push(Finding {
            check,
            outcome,
            text: text.into(),
        });
    }
}

impl Sae<'_> {
    /// Verifies the model: every weight, and what `options` give.
    ///
    /// Reads all weights twice, and encodes all rows. `progress` is told how many of how many
    /// steps are done, a step being a pass over a matrix or a batch of rows.
    ///
    /// # Errors
    /// [`Error::Length`] for rows of another width or targets of another number,
    /// [`Error::OutOfMemory`]. What is wrong with the model is a finding, not an error.
    pub fn verify(
        &self,
        options: &VerifyOptions<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Verification, Error> {
        self.packed.read_all_rows();
        let mut found = Verification::default();
        let matrices = canonical::matrices(self.parts());
        let batches = options
            .rows
            .map_or(0, |rows| rows.rows().div_ceil(self.verified_rows()));
        let total = matrices.len() + 2 + batches;
        let mut done = 0;
        let mut step = || {
            done += 1;
            progress(done, total);
        };
        let mut bad = None;
        for (_, matrix) in &matrices {
            bad = bad.or(matrix.check_finite().err());
            step();
        }
        match bad {
            None => found.add("weights", Outcome::Passed, self.sizes()),
            Some(error) => found.add("weights", Outcome::Failed, error.to_string()),
        }
        self.verify_thresholds(&mut found);
        let decoder = self.parts().decoder.norms()?;
        decoder_norms(&decoder, &mut found);
        step();
        let encoder = match self.parts().activation {
            Activation::Pursuit(_) => decoder,
            _ => self.parts().encoder.norms()?,
        };
        self.verify_dead(&encoder, &mut found);
        step();
        self.verify_pack(&mut found)?;
        if options.exhaustive {
            self.verify_screen(&mut found)?;
        }
        if let Some(rows) = options.rows {
            self.verify_rows(rows, options, &mut found, &mut step)?;
        }
        Ok(found)
    }

    fn sizes(&self) -> String {
        let matrices = canonical::matrices(self.parts()).into_iter();
        let names = matrices.map(|(name, matrix)| {
            let (rows, columns) = (matrix.features(), matrix.width());
            alloc::format!("{name} [{rows}, {columns}]")
        });
        let names: Vec<String> = names.collect();
        alloc::format!("all finite: {}", names.join(", "))
    }

    fn verify_thresholds(&self, found: &mut Verification) {
        let Activation::JumpRelu {
            threshold, relu, ..
        } = &self.parts().activation
        else {
            return;
        };
        let check = "thresholds";
        let values = match threshold {
            Thresholds::Scalar(value) => core::slice::from_ref(value),
            Thresholds::PerFeature(values) => values.as_slice(),
        };
        let off = values.iter().filter(|value| value.is_infinite()).count();
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = values.iter().copied().filter(|value| value.is_finite());
        let most = most.fold(f32::NEG_INFINITY, f32::max);
        if most < 0.0 {
            // With a ReLU such a model is a ReLU model, as its publisher's code runs it; without
            // one nearly every feature fires.
            let (outcome, so) = match relu {
                true => (Outcome::Warning, ", so every positive value passes"),
                false => (Outcome::Failed, ""),
            };
            let text = alloc::format!(
                "all are negative (up to {most}): training leaves such a value where it did not \
                 set one{so}"
            );
            return found.add(check, outcome, text);
        }
        if most <= 0.0 {
            let text = "none is above 0: they look as if they were not set";
            return found.add(check, Outcome::Warning, text);
        }
        let mut text = alloc::format!("{least} to {most}");
        if off > 0 {
            text.push_str(&alloc::format!(", {off} switched off (+inf)"));
        }
        found.add(check, Outcome::Passed, text);
    }

    /// Features that never fire, and those that always do.
    fn verify_dead(&self, norms: &[f64], found: &mut Verification) {
        let parts = self.parts();
        let of = |values: &Option<Vec<f64>>, i: usize, default: f64| {
            let value = values.as_ref().and_then(|values| values.get(i));
            value.copied().unwrap_or(default)
        };
        let mut dead = Vec::new();
        for (i, norm) in norms.iter().enumerate() {
            let constant = *norm == 0.0 || of(&parts.scale, i, 1.0) == 0.0;
            let off = match &parts.activation {
                Activation::JumpRelu { threshold, .. } => threshold.of(i) == f32::INFINITY,
                _ => false,
            };
            let least = match &parts.activation {
                Activation::JumpRelu { threshold, .. } => f64::from(threshold.of(i)),
                _ => 0.0,
            };
            if off || constant && of(&parts.bias, i, 0.0) <= least {
                dead.push(i);
            }
        }
        let check = "dead features";
        match (dead.len(), norms.len()) {
            (0, _) => found.add(check, Outcome::Passed, "every feature can fire"),
            (n, all) if n == all => {
                let text = "no feature can fire: encoder rows of zeros, or thresholds of +inf";
                found.add(check, Outcome::Failed, text);
            }
            (n, all) => {
                let text = alloc::format!(
                    "{n} of {all} features can never fire ({}): encoder rows of zeros, or \
                     thresholds of +inf",
                    some(&dead)
                );
                found.add(check, Outcome::Warning, text);
            }
        }
    }

    fn verify_pack(&self, found: &mut Verification) -> Result<(), Error> {
        if self.parts().about.pack.is_none() {
            return Ok(());
        }
        let count = self.packed.checksums.len();
        match self.check_checksums(true) {
            Ok(()) if count == 0 => {
                found.add("checksums", Outcome::Warning, "the pack has none");
            }
            Ok(()) => {
                let text = alloc::format!("of {count} tensors");
                found.add("checksums", Outcome::Passed, text);
            }
            Err(error) => found.add("checksums", Outcome::Failed, error.to_string()),
        }
        match self.self_test() {
            Ok(rows) => {
                let text = alloc::format!("{rows} rows, the same bits on {}", self.level());
                found.add("self-test", Outcome::Passed, text);
            }
            Err(Error::MissingKey { .. }) => {
                found.add("self-test", Outcome::Skipped, "there is none");
            }
            Err(error @ Error::OutOfMemory { .. }) => return Err(error),
            Err(error) => found.add("self-test", Outcome::Failed, error.to_string()),
        }
        Ok(())
    }

    /// Whether the screen is, byte for byte, the one that the weights give.
    fn verify_screen(&self, found: &mut Verification) -> Result<(), Error> {
        let check = "screen";
        if self.screen().is_none() {
            found.add(check, Outcome::Skipped, "there is none");
            return Ok(());
        }
        match self.check_screen() {
            Ok(()) => found.add(
                check,
                Outcome::Passed,
                "built again, every byte is the same",
            ),
            Err(error @ Error::OutOfMemory { .. }) => return Err(error),
            Err(error) => found.add(check, Outcome::Failed, error.to_string()),
        }
        Ok(())
    }

    /// Rows that are encoded at a time.
    fn verified_rows(&self) -> usize {
        self.batch_rows().max(BATCH)
    }

    /// How many features fire on a row by the rule itself, or as its publisher states.
    fn expected_l0(&self) -> Option<f64> {
        match &self.parts().activation {
            Activation::TopK { k, .. } => Some(*k as f64),
            Activation::GroupTopK { groups, k, .. } => Some((groups * k) as f64),
            _ => self.parts().about.l0,
        }
    }

    /// Whether what it writes is not what it reads.
    fn is_transcoder(&self) -> bool {
        let site = &self.parts().about.site;
        let elsewhere = site.hook_name_out.is_some() && site.hook_name_out != site.hook_name;
        let named = self.parts().about.architecture.contains("transcoder");
        elsewhere || named || self.parts().skip.is_some() || self.d_in() != self.d_out()
    }

    fn verify_rows(
        &self,
        rows: Rows<'_>,
        options: &VerifyOptions<'_>,
        found: &mut Verification,
        step: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let targets = match options.targets {
            Some(targets) => Some(targets),
            None => (!self.is_transcoder()).then_some(rows),
        };
        if let Some(targets) = targets {
            for (what, expected, given) in [
                ("target rows", rows.rows(), targets.rows()),
                ("values per target row", self.d_out(), targets.width()),
            ] {
                if expected != given {
                    return Err(Error::Length {
                        what,
                        expected: expected as u64,
                        found: given as u64,
                    });
                }
            }
        }
        let batch = self.verified_rows();
        let mut sums = Sums::new(self, targets)?;
        for first in (0..rows.rows()).step_by(batch) {
            let part = rows.part(first, batch);
            sums.add(
                self,
                part,
                targets.map(|targets| targets.part(first, batch)),
            )?;
            step();
        }
        let quality = sums.quality(options.l0.or_else(|| self.expected_l0()));
        if quality.non_finite > 0 {
            let text = alloc::format!(
                "{} of {} rows hold a NaN or an infinity",
                quality.non_finite,
                rows.rows()
            );
            found.add("rows", Outcome::Warning, text);
        }
        found.quality = Some(quality);
        if quality.rows == 0 {
            found.add("rows", Outcome::Failed, "no row is finite");
            return Ok(());
        }
        self.judge_l0(&quality, found);
        let Some(fvu) = quality.fvu else {
            let why = match targets {
                None => {
                    "a transcoder's reconstructions are compared with the rows of its output \
                         site: give them too"
                }
                Some(_) => "the targets do not vary: more than one row is needed",
            };
            found.add("reconstruction", Outcome::Skipped, why);
            return Ok(());
        };
        let cosine = quality.cosine.unwrap_or(0.0);
        let numbers = alloc::format!("FVU {fvu:.4}, cosine {cosine:.4}");
        if fvu <= 0.8 {
            found.add("reconstruction", Outcome::Passed, numbers);
        } else if fvu <= 1.0 {
            let text = alloc::format!("{numbers}: hardly better than the mean row");
            found.add("reconstruction", Outcome::Warning, text);
        } else {
            let mut text = alloc::format!(
                "{numbers}: worse than the mean row. These are not the rows that the model reads, \
                 or a convention is wrong"
            );
            if let Some(hint) = self.hint(rows, targets, options.targets.is_none())? {
                text.push_str("; ");
                text.push_str(&hint);
            }
            found.add("reconstruction", Outcome::Failed, text);
        }
        Ok(())
    }

    fn judge_l0(&self, quality: &Quality, found: &mut Verification) {
        let check = "L0";
        let l0 = quality.l0;
        if l0 == 0.0 {
            let text = "no feature fires on any row: they are too small, or not the model's";
            return found.add(check, Outcome::Failed, text);
        }
        if let Some(expected) = quality.expected_l0.filter(|&expected| expected > 0.0) {
            let text = alloc::format!("{l0:.1}, the model's is {expected:.1}");
            let ratio = (l0 / expected).max(expected / l0);
            return if ratio > 5.0 {
                let text =
                    alloc::format!("{text}: far from it, so a convention or the rows look wrong");
                found.add(check, Outcome::Failed, text);
            } else if ratio > 2.0 {
                found.add(check, Outcome::Warning, text);
            } else {
                found.add(check, Outcome::Passed, text);
            };
        }
        let share = l0 / self.d_sae() as f64;
        let text = alloc::format!("{l0:.1} of {} features", self.d_sae());
        match share > 0.5 {
            true => {
                let text = alloc::format!("{text}: more than half fire, that is not sparse");
                found.add(check, Outcome::Warning, text);
            }
            false => found.add(check, Outcome::Passed, text),
        }
    }

    /// What might be wrong with rows that are reconstructed badly.
    fn hint(
        &self,
        rows: Rows<'_>,
        targets: Option<Rows<'_>>,
        autoencodes: bool,
    ) -> Result<Option<String>, Error> {
        if self.parts().about.site.mean_center {
            return Ok(Some(
                "this model was trained on rows with their mean subtracted: are these?".into(),
            ));
        }
        if targets.is_none() || !autoencodes || self.parts().input_norm != InputNorm::None {
            return Ok(None);
        }
        // Would the rows fit at another scale?
        let few = rows.part(0, TRIED);
        let mut raw = alloc::vec![0.0; self.d_in()];
        let mut values = Vec::new();
        for row in 0..few.rows() {
            if load_row(self.kernels, few, row, &mut raw) {
                values.extend(raw.iter().map(|&value| value as f32));
            }
        }
        let mut best = (f64::INFINITY, 0);
        for exponent in -12..=12 {
            let factor = libm::exp2(f64::from(exponent)) as f32;
            let scaled: Vec<f32> = values.iter().map(|value| value * factor).collect();
            let scaled = Rows::from_f32(&scaled, self.d_in())?;
            let mut sums = Sums::new(self, Some(scaled))?;
            sums.add(self, scaled, Some(scaled))?;
            let fvu = sums.quality(None).fvu.unwrap_or(f64::INFINITY);
            if fvu < best.0 {
                best = (fvu, exponent);
            }
        }
        let (fvu, exponent) = best;
        let scale = match exponent {
            0 => return Ok(None),
            exponent @ 1.. => alloc::format!("{}", 1 << exponent),
            exponent => alloc::format!("1/{}", 1 << -exponent),
        };
        Ok((fvu < 0.7).then(|| {
            alloc::format!(
                "multiplied by about {scale} they would give an FVU of {fvu:.2}: a normalisation \
                 factor may be missing (norm_scaling_factor)"
            )
        }))
    }
}

/// Some numbers of a long list.
fn some(numbers: &[usize]) -> String {
    const SHOWN: usize = 6;
    let shown: Vec<String> = numbers.iter().take(SHOWN).map(usize::to_string).collect();
    match numbers.len() > SHOWN {
        true => alloc::format!("{}, ...", shown.join(", ")),
        false => shown.join(", "),
    }
}

fn decoder_norms(norms: &[f64], found: &mut Verification) {
    let check = "decoder norms";
    let mut sorted = norms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    let zero = sorted.iter().filter(|norm| **norm == 0.0).count();
    let (least, middle, most) = (
        at(0),
        at(norms.len() / 2),
        at(norms.len().saturating_sub(1)),
    );
    let unit = least > 0.98 && most < 1.02;
    let mut text = alloc::format!("{least:.4} to {most:.4}, median {middle:.4}");
    if unit {
        text.push_str(" (unit length)");
    }
    if zero == norms.len() {
        let text = "every decoder row is zeros";
        return found.add(check, Outcome::Failed, text);
    }
    if zero > 0 {
        let zeros = norms.iter().enumerate();
        let zeros: Vec<usize> = zeros.filter(|(_, n)| **n == 0.0).map(|(i, _)| i).collect();
        text.push_str(&alloc::format!("; {zero} rows of zeros: {}", some(&zeros)));
        return found.add(check, Outcome::Warning, text);
    }
    found.add(check, Outcome::Passed, text);
}
