//! What a call is checked for, before anything changes.

use super::*;

impl Monitor {
    pub(super) fn check(
        &self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        infos: &[RowInfo],
    ) -> Result<(), Error> {
        if sae.identity != self.rules.identity {
            return Err(Error::InvalidArgument {
                what: "rules of a monitor",
                expected: "rules compiled for this model".into(),
                found: "those of another model".into(),
            });
        }
        let length = |what, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => Err(Error::Length {
                what,
                expected: expected as u64,
                found: found as u64,
            }),
        };
        length("values per row", sae.d_in(), rows.width())?;
        match infos.is_empty() {
            true => Ok(()),
            false => length("infos of rows", rows.rows(), infos.len()),
        }
    }

    pub(super) fn check_features(
        &self,
        features: &Features,
        infos: &[RowInfo],
    ) -> Result<(), Error> {
        let d_sae = self.rules.d_sae;
        if let Some(&feature) = features.indices().iter().find(|&&i| i >= d_sae) {
            return Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: d_sae.into(),
            });
        }
        match infos.is_empty() || infos.len() == features.rows() {
            true => Ok(()),
            false => Err(Error::Length {
                what: "infos of rows",
                expected: features.rows() as u64,
                found: infos.len() as u64,
            }),
        }
    }

    /// Conditions; that streams do not jump over waiting rows, or have room for more.
    pub(super) fn check_infos(
        &self,
        rows: usize,
        infos: &[RowInfo],
        proposed: bool,
    ) -> Result<(), Error> {
        if let Some(accumulator) = &self.accumulator {
            infos
                .iter()
                .try_for_each(|info| accumulator.check_info(info))?;
        }
        let default = [RowInfo::default()];
        let (infos, each) = match infos.is_empty() {
            true => (&default[..rows.min(1)], rows),
            false => (infos, 1),
        };
        for (number, info) in infos.iter().enumerate() {
            let stream = info.id.stream;
            let waiting = self.pending(stream);
            if !proposed && waiting > 0 {
                return Err(Error::InvalidArgument {
                    what: "row of a stream",
                    expected: "a stream without waiting rows: commit them or roll them back".into(),
                    found: alloc::format!("stream {stream} with {waiting}"),
                });
            }
            if proposed {
                let earlier = infos.get(..number).unwrap_or(&[]).iter();
                let earlier = earlier.filter(|other| other.id.stream == stream).count();
                let needed = waiting + earlier + each;
                if needed > self.pending_rows {
                    return Err(Error::Limit {
                        what: alloc::format!("rows of stream {stream} that wait"),
                        limit: self.pending_rows as u64,
                        found: needed as u64,
                    });
                }
            }
        }
        Ok(())
    }
}
