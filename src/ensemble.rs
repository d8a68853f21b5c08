//! Encoding with an ensemble: its members one after the other, on the row or on what is left of
//! it. See [`Ensemble`].

use crate::encode::RowSource;
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
