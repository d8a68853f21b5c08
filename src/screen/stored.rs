//! A screen as bytes: a fixed header and four sections, read in place.
//!
//! The header is little-endian, in this order: the version, the certificate (0 proven, 1 dithered),
//! bits of a code, flags (1: changed basis, 2: second codes), the exponent of delta, nothing (six
//! u32); features, d_in, seed, the hash of the rows, the hash of the rules (u64); the two numbers
//! that balance errors and the norm of the basis (f64); the slack of lower bounds and the two
//! largest constants (f32); nothing up to [`STORED_HEADER_BYTES`].
//!
//! | section | content |
//! |---|---|
//! | 0 | f64 vectors of d_in, padded to whole blocks: centre, powers, shift of the codes, with second codes their shift, with a changed basis its scales |
//! | 1 | the changed basis: codes, in panels |
//! | 2 | the panels, as [`crate::kernels::screen`] reads them |
//! | 3 | the second codes, row by row |
//!
//! Sections 1 to 3 are used where they are; no alignment is needed.

use crate::bytes::Bytes;
use crate::error::Error;
use crate::kernels::screen::{BLOCK_COLUMNS, CodeFormat, PANEL_ROWS, ScreenKernels};
use crate::screen::build::Balance;
use crate::screen::numbers::{reserve, zeros};
use crate::screen::refine::Refinement;
use crate::screen::transform::Transform;
use crate::screen::{Certificate, EncoderRows, Options, Rules, Screen, hash_rows, hash_rules};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a stored header.
pub const STORED_HEADER_BYTES: usize = 128;
/// Sections of a stored screen.
pub const STORED_SECTIONS: usize = 4;
/// The version of the stored form; another one is refused.
pub const STORED_VERSION: u32 = 1;

const WHITENED: u32 = 1;
const REFINED: u32 = 2;

/// Reads a header from its start.
struct Fields<'h>(&'h [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (value, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *value
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next())
    }
    fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.next())
    }
    fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.next())
    }
}

fn malformed(what: String) -> Error {
    Error::Malformed {
        container: "screen",
        what,
    }
}

/// Bytes of each section, from what the header says.
fn section_bytes(
    format: CodeFormat,
    flags: u32,
    features: usize,
    d_in: usize,
) -> Option<[usize; STORED_SECTIONS]> {
    let width = d_in.checked_next_multiple_of(BLOCK_COLUMNS)?;
    let blocks = width / BLOCK_COLUMNS;
    let panels = features.div_ceil(PANEL_ROWS);
    let (whitened, refined) = (flags & WHITENED != 0, flags & REFINED != 0);
    let vectors = 3 + usize::from(refined) + usize::from(whitened);
    Some([
        width.checked_mul(vectors * 8)?,
        match whitened {
            true => Transform::code_bytes(width),
            false => 0,
        },
        panels.checked_mul(format.panel_bytes(blocks))?,
        match refined {
            true => panels.checked_mul(PANEL_ROWS * Refinement::new(blocks).stride)?,
            false => 0,
        },
    ])
}

impl<'a> Screen<'a> {
    /// The header of the stored form.
    pub fn stored_header(&self) -> [u8; STORED_HEADER_BYTES] {
        let mut fields: Vec<u8> = Vec::new();
        let certificate = match self.certificate {
            Certificate::Proven => 0,
            Certificate::Dithered => 1,
        };
        let flags = self.flags();
        for value in [
            STORED_VERSION,
            certificate,
            self.format.bits(),
            flags,
            self.delta_exponent,
            0,
        ] {
            fields.extend(value.to_le_bytes());
        }
        for value in [
            self.features as u64,
            self.d_in as u64,
            self.seed,
            self.rows_hash,
            self.rules_hash,
        ] {
            fields.extend(value.to_le_bytes());
        }
        let norm = self.transform.as_ref().map_or(0.0, Transform::norm);
        for value in [self.balance.row, self.balance.steps, norm] {
            fields.extend(value.to_le_bytes());
        }
        for value in [self.lower_slack, self.largest.0, self.largest.1] {
            fields.extend(value.to_le_bytes());
        }
        let mut out = [0; STORED_HEADER_BYTES];
        for (out, byte) in out.iter_mut().zip(fields) {
            *out = byte;
        }
        out
    }

    fn flags(&self) -> u32 {
        let whitened = u32::from(self.transform.is_some()) * WHITENED;
        let refined = u32::from(self.refinement.is_some()) * REFINED;
        whitened | refined
    }

    /// Bytes of each section of the stored form.
    pub fn stored_bytes(&self) -> [usize; STORED_SECTIONS] {
        section_bytes(self.format, self.flags(), self.features, self.d_in).unwrap_or_default()
    }

    /// Section 0 of the stored form.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn stored_vectors(&self) -> Result<Vec<u8>, Error> {
        let vectors = [
            self.centre.as_slice(),
            &self.powers,
            &self.codes_shift,
            &self.refined_shift,
            self.transform.as_ref().map_or(&[], Transform::scale),
        ];
        let mut out = reserve(self.stored_bytes()[0], "screen")?;
        for value in vectors.into_iter().flatten() {
            out.extend_from_slice(&value.to_le_bytes());
        }
        Ok(out)
    }

    /// Sections 1 to 3 of the stored form.
    pub fn stored_sections(&self) -> [&[u8]; STORED_SECTIONS - 1] {
        [
            self.transform.as_ref().map_or(&[], Transform::codes),
            self.panels.as_slice(),
            self.refined.as_slice(),
        ]
    }

    /// A screen from its stored form. Sections 1 to 3 are used in place.
    ///
    /// Whatever the bytes are, using the screen is safe; whether it is the screen of an encoder
    /// is what [`Screen::check_rules`] and [`Screen::check`] tell.
    ///
    /// # Errors
    /// [`Error::Malformed`] for another version, for sizes that disagree with the header and for
    /// numbers that no screen has; [`Error::OutOfMemory`].
    pub fn from_stored(
        header: &[u8],
        sections: [Bytes<'a>; STORED_SECTIONS],
    ) -> Result<Self, Error> {
        if header.len() != STORED_HEADER_BYTES {
            return Err(malformed(format!(
                "the header has {} bytes, expected {STORED_HEADER_BYTES}",
                header.len()
            )));
        }
        let mut fields = Fields(header);
        let version = fields.u32();
        if version != STORED_VERSION {
            return Err(malformed(format!(
                "version {version}; this library reads version {STORED_VERSION}"
            )));
        }
        let certificate = match fields.u32() {
            0 => Certificate::Proven,
            1 => Certificate::Dithered,
            other => return Err(malformed(format!("certificate {other}"))),
        };
        let bits = fields.u32();
        let format = CodeFormat::ALL.into_iter().find(|f| f.bits() == bits);
        let format = format.ok_or_else(|| malformed(format!("codes of {bits} bits")))?;
        let flags = fields.u32();
        let delta_exponent = fields.u32();
        let reserved = fields.u32();
        let [features, d_in] = [fields.u64(), fields.u64()];
        let [seed, rows_hash, rules_hash] = [fields.u64(), fields.u64(), fields.u64()];
        let balance = Balance {
            row: fields.f64(),
            steps: fields.f64(),
        };
        let norm = fields.f64();
        let lower_slack = fields.f32();
        let largest = (fields.f32(), fields.f32());
        let positive = [balance.row, balance.steps]
            .iter()
            .all(|value| value.is_finite() && *value > 0.0);
        let numbers = norm >= 0.0 && lower_slack >= 0.0 && largest.0 >= 0.0 && largest.1 >= 0.0;
        let exponents = match certificate {
            Certificate::Proven => 0..=0,
            Certificate::Dithered => 1..=1000,
        };
        let numbers = numbers && reserved == 0 && exponents.contains(&delta_exponent);
        let numbers = numbers && (flags & WHITENED != 0 || norm == 0.0);
        if !positive || !numbers || flags > (WHITENED | REFINED) || fields.0.iter().any(|&b| b != 0)
        {
            return Err(malformed(String::from(
                "the header holds impossible values",
            )));
        }
        let sizes = |features: u64, d_in: u64| {
            let (features, d_in) = (usize::try_from(features).ok()?, usize::try_from(d_in).ok()?);
            let bounded = features > 0 && d_in > 0 && d_in < 1 << 24;
            let bytes = bounded.then(|| section_bytes(format, flags, features, d_in))??;
            Some((features, d_in, bytes))
        };
        let Some((features, d_in, bytes)) = sizes(features, d_in) else {
            return Err(malformed(format!("{features} rows of {d_in}")));
        };
        for (at, (section, expected)) in sections.iter().zip(bytes).enumerate() {
            if section.len() != expected {
                return Err(malformed(format!(
                    "section {at} has {} bytes, expected {expected}",
                    section.len()
                )));
            }
        }
        let [vectors, codes, panels, refined] = sections;
        let width = d_in.next_multiple_of(BLOCK_COLUMNS);
        let blocks = width / BLOCK_COLUMNS;
        let mut words = vectors.as_slice().as_chunks::<8>().0.iter();
        let mut vector = || -> Result<Vec<f64>, Error> {
            let mut out = zeros(width, "screen")?;
            for (out, word) in out.iter_mut().zip(words.by_ref()) {
                *out = f64::from_le_bytes(*word);
            }
            match out.iter().all(|value| value.is_finite()) {
                true => Ok(out),
                false => Err(malformed(String::from("a vector is not finite"))),
            }
        };
        let (centre, powers, codes_shift) = (vector()?, vector()?, vector()?);
        let refinement = (flags & REFINED != 0).then(|| Refinement::new(blocks));
        let refined_shift = match refinement {
            Some(_) => vector()?,
            None => Vec::new(),
        };
        let transform = match flags & WHITENED != 0 {
            true => Some(Transform::stored(width, codes, vector()?, norm)),
            false => None,
        };
        Ok(Screen {
            certificate,
            format,
            delta_exponent,
            features,
            d_in,
            blocks,
            centre,
            powers,
            transform,
            codes_shift,
            refined_shift,
            refinement,
            refined,
            balance,
            lower_slack,
            largest,
            seed,
            rows_hash,
            rules_hash,
            panels,
        })
    }

    /// Whether the screen was built for these rules and for rows of this shape: a pass over
    /// vectors, not over the rows.
    ///
    /// # Errors
    /// [`Error::Malformed`] if not.
    pub fn check_rules(&self, rows: &dyn EncoderRows, rules: &Rules<'_>) -> Result<(), Error> {
        let (features, width) = (rows.features(), rows.width());
        if (features, width) != (self.features, self.d_in) {
            return Err(malformed(format!(
                "it is of {} rows of {}, the encoder has {features} of {width}",
                self.features, self.d_in
            )));
        }
        let hash = hash_rules(features, rules);
        if hash != self.rules_hash {
            return Err(malformed(format!(
                "it belongs to other biases, scales or thresholds (hash {:016x}, expected {hash:016x})",
                self.rules_hash
            )));
        }
        Ok(())
    }

    /// Whether the screen was built from these very rows: a pass over all of them.
    ///
    /// # Errors
    /// [`Error::Malformed`] if not; [`Error::OutOfMemory`].
    pub fn check_rows(&self, rows: &dyn EncoderRows) -> Result<(), Error> {
        let hash = hash_rows(rows)?;
        if hash != self.rows_hash {
            return Err(malformed(format!(
                "it belongs to other weights (hash {:016x}, expected {hash:016x})",
                self.rows_hash
            )));
        }
        Ok(())
    }

    /// Builds the screen again and compares every byte: no bound can be wrong without being found.
    /// Takes as long as building did.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the first part that differs; [`Error::OutOfMemory`].
    pub fn check(
        &self,
        rows: &dyn EncoderRows,
        rules: &Rules<'_>,
        kernels: &ScreenKernels,
    ) -> Result<(), Error> {
        self.check_rules(rows, rules)?;
        self.check_rows(rows)?;
        let options = Options {
            certificate: self.certificate,
            format: self.format,
            whiten: self.transform.is_some(),
            centre: self.centre.get(..self.d_in),
            refine: self.refinement.is_some(),
            seed: Some(self.seed),
            delta_exponent: self.delta_exponent,
        };
        let again = Screen::build(rows, rules, &options, kernels)?;
        if again.stored_header() != self.stored_header() {
            return Err(malformed(String::from("the header differs from a new one")));
        }
        if again.stored_vectors()? != self.stored_vectors()? {
            return Err(malformed(String::from("section 0 differs from a new one")));
        }
        let both = again.stored_sections();
        for (at, (a, b)) in both.into_iter().zip(self.stored_sections()).enumerate() {
            if let Some(byte) = a.iter().zip(b).position(|(a, b)| a != b) {
                return Err(malformed(format!(
                    "section {} differs from a new one at byte {byte}",
                    at + 1
                )));
            }
        }
        Ok(())
    }
}
