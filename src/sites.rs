//! Rows whose sites lie apart: crosscoders and cross-layer transcoders read a row that is made of
//! several layers (or models) side by side, which a host has in as many buffers.
//!
//! The verbs here take one batch for each site and give the bits that the same verbs give for the
//! rows put together; nothing is copied.

use crate::decode::inputs_missing;
use crate::encode::{RowSource, check_width, load_row};
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::Kernels;
use crate::model::Sae;
use crate::readout::FeatureSet;
use crate::rows::Rows;
use crate::scratch::Scratch;

/// One batch for each site; checked.
#[derive(Clone, Copy)]
struct Sites<'s, 'r>(&'s [Rows<'r>]);

impl RowSource for Sites<'_, '_> {
    fn count(self) -> usize {
        self.0.first().map_or(0, Rows::rows)
    }

    fn load(self, kernels: &Kernels, row: usize, raw: &mut [f64]) -> bool {
        let width = raw.len() / self.0.len().max(1);
        let parts = raw.chunks_exact_mut(width.max(1));
        // Every part is loaded, also behind one that is not finite.
        let loaded = |(rows, part)| load_row(kernels, rows, row, part);
        let sites = self.0.iter().copied().zip(parts);
        sites.map(loaded).fold(true, |all, one| all & one)
    }
}

impl Sae<'_> {
    /// [`Sae::encode`] of rows whose sites lie apart: `sites` holds one batch for each of
    /// [`Sae::input_sites`], `[rows, d_in / sites]`, in any row format each.
    ///
    /// # Errors
    /// As [`Sae::encode`], and [`Error::Length`] if there are not as many batches as sites, or
    /// not as many rows in each.
    pub fn encode_sites(
        &self,
        sites: &[Rows<'_>],
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        features.clear();
        let sites = self.sites(sites)?;
        self.encode_all(sites, scratch, features)
    }

    /// [`Sae::readout`] of rows whose sites lie apart.
    ///
    /// # Errors
    /// As [`Sae::readout`] and [`Sae::encode_sites`].
    pub fn readout_sites(
        &self,
        set: &FeatureSet,
        sites: &[Rows<'_>],
        scratch: &mut Scratch<'_>,
        values: &mut [f32],
        status: &mut [RowStatus],
    ) -> Result<(), Error> {
        let sites = self.sites(sites)?;
        self.readout_from(set, sites, scratch, values, status)
    }

    /// [`Sae::decode`] with inputs whose sites lie apart; they are looked at only if
    /// [`Sae::needs_inputs_to_decode`].
    ///
    /// # Errors
    /// As [`Sae::decode`] and [`Sae::encode_sites`].
    pub fn decode_sites(
        &self,
        features: &Features,
        inputs: Option<&[Rows<'_>]>,
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.check_decoded(features, out)?;
        let inputs = match (self.needs_inputs_to_decode(), inputs) {
            (false, _) => None,
            (true, None) => return Err(inputs_missing()),
            (true, Some(sites)) => Some(self.sites(sites)?),
        };
        if let Some(sites) = inputs {
            check_count("input rows of decode", features.rows(), sites.count())?;
        }
        self.decode_all(features, inputs, scratch, out)
    }

    fn sites<'s, 'r>(&self, sites: &'s [Rows<'r>]) -> Result<Sites<'s, 'r>, Error> {
        check_count(
            "batches, one for each site",
            self.input_sites(),
            sites.len(),
        )?;
        let rows = sites.first().map_or(0, Rows::rows);
        for site in sites {
            check_width(*site, self.d_in() / self.input_sites())?;
            check_count("rows of a site", rows, site.rows())?;
        }
        Ok(Sites(sites))
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
