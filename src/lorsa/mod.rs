//! Lorsa: low-rank sparse attention, a sparse dictionary in place of an attention layer (He et
//! al., arXiv 2504.20938; maths from OpenMOSS/Language-Model-SAEs, `lorsa.py`).
//!
//! ```text
//! q_h(t), k_h(t) = turn_t(norm(input_scale W_h x'_t + b_h))         f64, rounded once to f32
//! v_i(t)         = scale_i (w_i . x'_t) + bias_i                    rounded once to f32
//! a_h(t, s)      = exp(r_s - max r) / sum,  r_s = (q_h(t) . k_h(s)) / score_scale,  s <= t
//! pre_i(t)       = round32(sum over s <= t of a_h(t, s) v_i(s)),    h = i / (d_sae / heads)
//! f(t)           = activation(pre(t)) ;  y(t) = sum_i f_i(t) d_i + b_dec
//! ```
//!
//! A feature reads one number of every row before and writes one decoder row: its value and output
//! vectors are the encoder and the decoder of the parts ([`Attention`] holds the rest), so rules,
//! rank weights and decoding are those of any other model. Sums over positions are f64, in
//! ascending order, products rounded before they are added; a softmax divides by such a sum.
//!
//! What a row leaves for later ones lies in a [`LorsaCache`] of the caller: all keys and values,
//! `(heads d_head + d_sae)` f32 per row. Rows come one at a time or many at once; the features have
//! the same bits either way.

mod cache;
mod row;
mod steering;

pub use cache::LorsaCache;

use crate::encode::check_width;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::Level;
use crate::model::{Attention, Description, Parts, Sae};
use crate::monitor::{Collect, CompiledRules, Rules};
use crate::rows::Rows;
use crate::scratch::Scratch;
use cache::Sizes;
use row::Run;

/// A Lorsa, ready to encode sequences. Immutable and shared between threads; each sequence brings
/// its [`LorsaCache`], each thread its [`Scratch`] ([`Lorsa::scratch`]).
#[derive(Debug)]
pub struct Lorsa<'a> {
    /// Values and outputs as encoder and decoder; encodes nothing itself.
    sae: Sae<'a>,
    attention: Attention<'a>,
    /// The same parts without scale and bias, which are in the values already.
    rule: Parts<'a>,
    /// Tells caches of different weights apart.
    origin: usize,
}

impl<'a> Lorsa<'a> {
    /// Checks that parts with attention fit together and makes a Lorsa of them.
    ///
    /// # Errors
    /// As [`Sae::from_parts`]; [`Error::InvalidArgument`] for parts without attention;
    /// [`Error::Shape`], [`Error::BadValue`] or [`Error::InvalidValue`] for attention that does
    /// not fit, and for rules that look at more than pre-activations (gated, top-AFA, pursuit).
    pub fn from_parts(mut parts: Parts<'a>) -> Result<Self, Error> {
        let Some(attention) = parts.attention.take() else {
            return Err(Error::InvalidArgument {
                what: "parts of a Lorsa",
                expected: "attention".into(),
                found: "none".into(),
            });
        };
        attention.check(&parts)?;
        Ok(Self::assemble(Sae::from_parts(parts)?, attention, None))
    }

    fn assemble(mut sae: Sae<'a>, attention: Attention<'a>, origin: Option<usize>) -> Self {
        sae.attends = true;
        let rule = Parts {
            scale: None,
            bias: None,
            ..sae.parts().clone()
        };
        Lorsa {
            origin: origin.unwrap_or(sae.identity),
            sae,
            attention,
            rule,
        }
    }

    /// Values per input row.
    pub fn d_in(&self) -> usize {
        self.sae.d_in()
    }

    /// Number of features, each of which is an attention head of rank 1.
    pub fn d_sae(&self) -> usize {
        self.sae.d_sae()
    }

    /// Values per reconstructed row.
    pub fn d_out(&self) -> usize {
        self.sae.d_out()
    }

    /// Queries, keys and how scores are formed of them.
    pub fn attention(&self) -> &Attention<'a> {
        &self.attention
    }

    /// The other parts: values as encoder, outputs as decoder, the rule.
    pub fn parts(&self) -> &Parts<'a> {
        self.sae.parts()
    }

    /// What `inspect` prints.
    pub fn description(&self) -> &Description {
        self.sae.description()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.sae.level()
    }

    /// The same model on another instruction set; the results have the same bits.
    ///
    /// # Errors
    /// [`Error::LevelUnavailable`]; never a fallback.
    pub fn with_level(self, level: Level) -> Result<Self, Error> {
        let origin = Some(self.origin);
        Ok(Self::assemble(
            self.sae.with_level(level)?,
            self.attention,
            origin,
        ))
    }

    /// The same model selecting by another k; it takes the caches of this one.
    ///
    /// # Errors
    /// As [`Sae::with_k`].
    pub fn with_k(&self, k: usize) -> Result<Self, Error> {
        let origin = Some(self.origin);
        Ok(Self::assemble(
            self.sae.with_k(k)?,
            self.attention.clone(),
            origin,
        ))
    }

    /// Work space for one thread.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn scratch(&self) -> Result<Scratch<'static>, Error> {
        Scratch::new(&self.sae)
    }

    /// Encodes the next rows of a sequence; the content of `features` is replaced. The rows are
    /// added to the cache.
    ///
    /// A row that is not finite has no features and says so in its status; it keeps its position,
    /// and no later row attends to it.
    ///
    /// # Errors
    /// [`Error::Length`] if the rows are not d_in wide, or more than the cache has room for;
    /// [`Error::InvalidArgument`] for a cache of another model; [`Error::OutOfMemory`] if
    /// `features` cannot grow. `features` is empty and the cache as it was then.
    pub fn encode(
        &self,
        rows: Rows<'_>,
        cache: &mut LorsaCache<'_>,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        features.clear();
        let start = cache.length;
        let result = self.each(rows, cache, scratch, |run, status| {
            let status = match status {
                RowStatus::NonFinite => RowStatus::NonFinite,
                _ => run.select(features)?,
            };
            features.end_row(status)
        });
        if result.is_err() {
            features.clear();
            cache.length = start;
        }
        result
    }

    /// Writes the values of chosen features for the next rows of a sequence, which are added to
    /// the cache: `values` is `[rows, wanted.len()]`, contiguous, 0 where a feature does not fire;
    /// `status` has one entry per row. The values have the bits that [`Lorsa::encode`] gives.
    ///
    /// All values of the rows must go to the cache, so the encoder is read as in an encode; under
    /// threshold rules only the wanted features attend.
    ///
    /// # Errors
    /// As [`Lorsa::encode`]; [`Error::FeatureOutOfRange`]; [`Error::Length`] for a buffer of the
    /// wrong size.
    pub fn readout(
        &self,
        wanted: &[u32],
        rows: Rows<'_>,
        cache: &mut LorsaCache<'_>,
        scratch: &mut Scratch<'_>,
        values: &mut [f32],
        status: &mut [RowStatus],
    ) -> Result<(), Error> {
        if let Some(&feature) = wanted.iter().find(|&&i| i as usize >= self.d_sae()) {
            return Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: self.d_sae() as u64,
            });
        }
        let lengths = [
            (
                "values of a readout",
                rows.rows().saturating_mul(wanted.len()),
                values.len(),
            ),
            ("statuses of a readout", rows.rows(), status.len()),
        ];
        for (what, expected, found) in lengths {
            check_count(what, expected, found)?;
        }
        let start = cache.length;
        values.fill(0.0);
        let mut outputs = status.iter_mut().enumerate();
        let result = self.each(rows, cache, scratch, |run, found| {
            let Some((row, status)) = outputs.next() else {
                return Ok(());
            };
            let values = values.get_mut(row * wanted.len()..(row + 1) * wanted.len());
            *status = match found {
                RowStatus::NonFinite => found,
                _ => run.read(wanted, values.unwrap_or(&mut []))?,
            };
            Ok(())
        });
        if result.is_err() {
            cache.length = start;
        }
        result
    }

    /// Reconstructs the output of every row, `[rows, d_out]`, contiguous. Needs no cache.
    ///
    /// # Errors
    /// As [`Sae::decode`].
    pub fn decode(
        &self,
        features: &Features,
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.sae.decode(features, None, scratch, out)
    }

    /// Checks rules against this model, for a monitor that is given its features
    /// ([`Monitor::observe_features`](crate::monitor::Monitor::observe_features)).
    ///
    /// # Errors
    /// As [`Sae::compile_rules`].
    pub fn compile_rules(&self, rules: &Rules) -> Result<CompiledRules, Error> {
        self.sae.compile_rules(rules)
    }

    /// Statistics of all features, as [`Collect::all`].
    pub fn collect_all(&self) -> Collect {
        Collect::all(&self.sae)
    }

    /// Statistics of these features, as [`Collect::features`].
    pub fn collect_features(&self, features: &[u32]) -> Collect {
        Collect::features(&self.sae, features)
    }

    /// Looks for NaN and infinite weights in every matrix.
    ///
    /// # Errors
    /// [`Error::BadValue`] with tensor and position.
    pub fn check_weights(&self) -> Result<(), Error> {
        self.sae.check_weights()?;
        self.attention.query.check_finite()?;
        self.attention.key.check_finite()
    }

    /// Adds rows to the cache, one after the other, and gives `take` each with its keys and values
    /// in place.
    fn each(
        &self,
        rows: Rows<'_>,
        cache: &mut LorsaCache<'_>,
        scratch: &mut Scratch<'_>,
        mut take: impl FnMut(&mut Run<'_, '_>, RowStatus) -> Result<(), Error>,
    ) -> Result<(), Error> {
        check_width(rows, self.d_in())?;
        if (cache.origin, cache.sizes) != (self.origin, Sizes::of(self)) {
            return Err(Error::InvalidArgument {
                what: "cache of a Lorsa",
                expected: "one made for this model".into(),
                found: "one of another model".into(),
            });
        }
        let room = cache.capacity - cache.length;
        if rows.rows() > room {
            return Err(Error::Length {
                what: "rows that the cache has room for, at most",
                expected: room as u64,
                found: rows.rows() as u64,
            });
        }
        let (sizes, capacity) = (cache.sizes, cache.capacity);
        let Some(space) = sizes.cut(cache.memory.words(), capacity) else {
            return Ok(());
        };
        let mut run = Run {
            lorsa: self,
            space,
            sizes,
            work: scratch.split(&self.sae)?,
            position: 0,
        };
        for row in 0..rows.rows() {
            run.position = cache.length;
            let finite = self.sae.prepare_row(rows, row, &mut run.work).is_some();
            if let Some(mark) = run.space.marks.get_mut(run.position) {
                *mark = f64::from(u8::from(finite));
            }
            let status = match finite {
                true => {
                    run.add_row()?;
                    RowStatus::Ok
                }
                false => RowStatus::NonFinite,
            };
            take(&mut run, status)?;
            cache.length += 1;
        }
        Ok(())
    }
}

fn check_count(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::Length {
            what,
            expected: expected as u64,
            found: found as u64,
        }),
    }
}
