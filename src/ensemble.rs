//! Encoding with an ensemble: its members one after the other, on the row or on what is left of
//! it. See [`Ensemble`].

use crate::encode::{RowSource, products};
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::model::{Ensemble, Sae};
use crate::rows::Rows;
use crate::scratch::Scratch;

impl Sae<'_> {
    /// Encodes one row, without ending it in `features`.
    pub(crate) fn encode_members(
        &self,
        kind: Ensemble,
        rows: impl RowSource,
        row: usize,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<RowStatus, Error> {
        let start = features.len();
        let status = match kind {
            Ensemble::Bag => self.encode_bag(rows, row, scratch, features)?,
            Ensemble::Chain => self.encode_chain(rows, row, scratch, features)?,
            Ensemble::Route => self.encode_routed(rows, row, scratch, features)?,
        };
        if status == RowStatus::NonFinite {
            features.truncate(start);
        }
        Ok(status)
    }

    fn encode_bag(
        &self,
        rows: impl RowSource,
        row: usize,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<RowStatus, Error> {
        let mut status = RowStatus::Ok;
        let mut offset = 0;
        for member in &self.members {
            let mut work = scratch.split(member)?;
            if member.prepare_row(rows, row, &mut work).is_none() {
                return Ok(RowStatus::NonFinite);
            }
            let before = features.len();
            let found = member.encode_row(&mut work, features)?;
            if found != RowStatus::Ok {
                status = found;
            }
            features.shift(before, offset);
            offset += member.d_sae() as u32;
        }
        Ok(status)
    }

    fn encode_routed(
        &self,
        rows: impl RowSource,
        row: usize,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<RowStatus, Error> {
        let Some((expert, weight)) = self.expert(rows, row, scratch)? else {
            return Ok(RowStatus::NonFinite);
        };
        let before = self
            .members
            .iter()
            .take(expert)
            .map(Sae::d_sae)
            .sum::<usize>();
        let Some(member) = self.members.get(expert) else {
            return Ok(RowStatus::NonFinite);
        };
        let mut work = scratch.split(member)?;
        if member.prepare_row(rows, row, &mut work).is_none() {
            return Ok(RowStatus::NonFinite);
        }
        let start = features.len();
        let status = member.encode_row(&mut work, features)?;
        if weight != 1.0 {
            features.scale(start, weight);
        }
        features.shift(start, before as u32);
        Ok(status)
    }

    /// The member that the router picks and the weight of its values; `None` if the row is not
    /// finite.
    fn expert(
        &self,
        rows: impl RowSource,
        row: usize,
        scratch: &mut Scratch<'_>,
    ) -> Result<Option<(usize, f64)>, Error> {
        let Some(router) = &self.router else {
            return Ok(None);
        };
        let work = scratch.split(self)?;
        if !rows.load(self.kernels, row, work.raw) {
            return Ok(None);
        }
        if let Some(center) = &router.center {
            for (value, center) in work.raw.iter_mut().zip(center) {
                *value -= center;
            }
        }
        let mut finite = true;
        for (input, &value) in work.input.iter_mut().zip(work.raw.iter()) {
            *input = value as f32;
            finite &= input.is_finite();
        }
        let Some(scores) = work.sums.get_mut(..router.matrix.features()) else {
            return Ok(None);
        };
        if !finite {
            return Ok(None);
        }
        products(self.kernels, &router.matrix, 0, work.input, &mut [], scores);
        let (mut expert, mut most) = (0, f64::NEG_INFINITY);
        for (at, &score) in scores.iter().enumerate() {
            if score > most {
                (expert, most) = (at, score);
            }
        }
        let weight = match router.weighs {
            false => 1.0,
            true => {
                let powers = scores.iter().map(|score| libm::exp(score - most));
                1.0 / powers.fold(0.0, |sum, power| sum + power)
            }
        };
        Ok(Some((expert, weight)))
    }

    fn encode_chain(
        &self,
        rows: impl RowSource,
        row: usize,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<RowStatus, Error> {
        let mut status = RowStatus::Ok;
        let mut offset = 0;
        let d = self.d_in();
        let mut chain = scratch.split_chain(self)?;
        for (stage, member) in self.members.iter().enumerate() {
            let (residual, reconstruction, mut work) = chain.split(member)?;
            // The first member reads the host's row, whatever its format.
            let prepared = match stage {
                0 => member.prepare_row(rows, row, &mut work),
                _ => member.prepare_row(Rows::from_f32(residual, d)?, 0, &mut work),
            };
            if prepared.is_none() {
                return Ok(RowStatus::NonFinite);
            }
            let before = features.len();
            let found = member.encode_row(&mut work, features)?;
            if found != RowStatus::Ok {
                status = found;
            }
            if stage + 1 < self.members.len() {
                let own = FeaturesRow {
                    indices: features.indices().get(before..).unwrap_or(&[]),
                    values: features.values().get(before..).unwrap_or(&[]),
                    status: found,
                };
                member.decode_row(own, None::<Rows<'_>>, 0, &mut work, reconstruction);
                if stage == 0 {
                    rows.load(self.kernels, row, work.raw);
                    for (to, &from) in residual.iter_mut().zip(work.raw.iter()) {
                        *to = from as f32;
                    }
                }
                for (left, y) in residual.iter_mut().zip(reconstruction.iter()) {
                    *left -= y;
                }
            }
            features.shift(before, offset);
            offset += member.d_sae() as u32;
        }
        Ok(status)
    }

    /// Reads out features of one row of an ensemble.
    pub(crate) fn read_members(
        &self,
        kind: Ensemble,
        wanted: &[u32],
        rows: impl RowSource,
        row: usize,
        scratch: &mut Scratch<'_>,
        values: &mut [f32],
    ) -> Result<RowStatus, Error> {
        let mut features = scratch.take_row();
        features.clear();
        let status = self.encode_members(kind, rows, row, scratch, &mut features);
        for (&feature, value) in wanted.iter().zip(values) {
            let at = features.indices().binary_search(&feature);
            let found = at.ok().and_then(|at| features.values().get(at));
            *value = found.copied().unwrap_or(0.0);
        }
        scratch.give_row(features);
        status
    }
}
