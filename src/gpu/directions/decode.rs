//! Decoding on a device.

use super::*;

impl Directions {
    /// Reconstructs every row of `features` into `out`, as [`Sae::decode`] does but with the device's
    /// sums of the decoder's vectors; blocks.
    ///
    /// # Errors
    /// As [`Sae::decode`]; [`Error::InvalidArgument`] for another model's decoder or another's
    /// stream; [`Error::Device`], [`Error::DeviceMemory`].
    pub fn decode(
        &self,
        sae: &Sae<'_>,
        features: &Features,
        inputs: Option<Rows<'_>>,
        stream: &mut DirectionStream,
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        pollster::block_on(self.decode_all(sae, features, inputs, (stream, scratch), out, true))
    }

    /// [`Directions::decode`] for hosts with an executor; see
    /// [`Model::encode_async`](super::super::Model::encode_async).
    ///
    /// # Errors
    /// As [`Directions::decode`].
    pub async fn decode_async(
        &self,
        sae: &Sae<'_>,
        features: &Features,
        inputs: Option<Rows<'_>>,
        stream: &mut DirectionStream,
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.decode_all(sae, features, inputs, (stream, scratch), out, false)
            .await
    }

    async fn decode_all(
        &self,
        sae: &Sae<'_>,
        features: &Features,
        inputs: Option<Rows<'_>>,
        (stream, scratch): (&mut DirectionStream, &mut Scratch<'_>),
        out: &mut [f32],
        block: bool,
    ) -> Result<(), Error> {
        if self.identity != Some(sae.identity) {
            return Err(Error::InvalidArgument {
                what: "model",
                expected: "that whose decoder was uploaded".into(),
                found: "another".into(),
            });
        }
        self.check(features, out.len(), stream)?;
        sae.check_decoded(features, out)?;
        let inputs = sae.decode_inputs(features, inputs)?;
        if let Some(rows) = inputs {
            check_width(rows, sae.d_in())?;
        }
        let mut work = scratch.split(sae)?;
        let scale = |feature: u32, value: f32| match &sae.parts.decoder_scale {
            Some(scale) => f64::from(value) * scale.get(feature as usize).copied().unwrap_or(0.0),
            None => f64::from(value),
        };
        let mut next = 0;
        while next < features.rows() {
            stream.begin();
            while let Some(of) = features.row(next) {
                let Some(out) = out.get_mut(next * self.width..(next + 1) * self.width) else {
                    break;
                };
                let failed = matches!(of.status, RowStatus::NonFinite | RowStatus::Skipped);
                let fits = self.fits(of, 0.0, scale) && of.indices.len() <= stream.entries;
                if failed || of.indices.is_empty() || !fits {
                    sae.decode_row(of, inputs, next, &mut work, out);
                    next += 1;
                    continue;
                }
                if !stream.push(next, of, &[], self.quads * 4, scale)? {
                    break;
                }
                next += 1;
            }
            let place = |place: usize, sums: &[f32]| {
                let out = out.get_mut(place * self.width..(place + 1) * self.width);
                if let (Some(out), Some(of)) = (out, features.row(place)) {
                    let given = |work: &mut Work<'_>| {
                        for (output, &sum) in work.output.iter_mut().zip(sums) {
                            *output = f64::from(sum);
                        }
                    };
                    sae.decode_sums(of.status, inputs, place, &mut work, out, given);
                }
            };
            self.run(stream, block, place).await?;
        }
        Ok(())
    }
}
