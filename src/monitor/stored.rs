//! Reading and writing snapshots: numbers, lists, checks that all of them have.

use super::collect::Bins;
use super::row::RowId;
use super::sum::Sum;
use crate::error::Error;
use alloc::string::String;
use alloc::vec::Vec;

/// The version that is written, and the only one that is read.
pub const SNAPSHOT_VERSION: u32 = 1;
/// What error messages call the format.
pub(super) const CONTAINER: &str = "snapshot";
/// Rows that a snapshot can count: so many that merging cannot overflow in the life of a host.
pub(super) const MAX_COUNT: u64 = 1 << 56;
pub(super) fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: what.into(),
    }
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// With room for a snapshot of this length.
    pub(super) fn with_room(length: usize) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| Error::OutOfMemory {
                what: "a snapshot",
                bytes: length as u64,
            })?;
        Ok(Writer(bytes))
    }

    /// The bytes, with the CRC-32 of all before it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let check = crc32(&self.0);
        self.u32(check);
        self.0
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn f64(&mut self, number: f64) {
        self.u64(number.to_bits());
    }

    pub(super) fn sum(&mut self, sum: Sum) {
        self.bytes(&sum.to_bytes());
    }

    /// Three numbers: the kind, and what it needs.
    pub(super) fn bins(&mut self, bins: Option<Bins>) {
        let numbers = match bins {
            None => [0; 3],
            Some(Bins::Log { split, first, end }) => [
                1,
                split.into(),
                u32::from(first as u8) | u32::from(end as u8) << 8,
            ],
            Some(Bins::Linear { width, count }) => [2, width.to_bits(), count],
        };
        numbers.iter().for_each(|&number| self.u32(number));
    }

    pub(super) fn id(&mut self, id: RowId) {
        self.u64(id.stream);
        self.u64(id.position);
    }
}

/// The error of a snapshot of another model.
pub(super) fn same_model(expected: u64, found: u64) -> Result<(), Error> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::InvalidValue {
            key: "model of the snapshot".into(),
            expected: alloc::format!("{expected:016x}"),
            found: alloc::format!("{found:016x}"),
        }),
    }
}

pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    /// Behind the magic number and the version, which are checked.
    pub(super) fn new(bytes: &'b [u8], magic: &[u8; 8]) -> Result<Self, Error> {
        let mut from = Reader { bytes, at: 0 };
        if from.take(8, "magic number")? != magic {
            let magic = core::str::from_utf8(magic).unwrap_or_default();
            return Err(malformed(alloc::format!(
                "it does not begin with `{magic}`"
            )));
        }
        let version = from.u32()?;
        if version != SNAPSHOT_VERSION {
            return Err(Error::UnsupportedContainer {
                container: CONTAINER,
                what: alloc::format!("version {version} (this is {SNAPSHOT_VERSION})"),
            });
        }
        Ok(from)
    }

    /// Checks that there are as many bytes as belong, and their CRC.
    pub(super) fn whole(&self, expected: u64) -> Result<(), Error> {
        let found = self.bytes.len() as u64;
        if found < expected {
            return Err(Error::Truncated {
                container: CONTAINER,
                what: "the whole".into(),
                needed: expected,
                available: found,
            });
        }
        if found > expected {
            return Err(malformed(alloc::format!(
                "{found} bytes where {expected} belong"
            )));
        }
        let end = self.bytes.len().saturating_sub(4);
        let (body, check) = self.bytes.split_at(end);
        let mut check = Reader {
            bytes: check,
            at: 0,
        };
        let (check, crc) = (check.u32()?, crc32(body));
        match check == crc {
            true => Ok(()),
            false => Err(Error::Checksum {
                member: CONTAINER.into(),
                expected: check,
                found: crc,
            }),
        }
    }

    /// So many finite numbers.
    pub(super) fn f64s(&mut self, count: usize) -> Result<Vec<f64>, Error> {
        let bytes = self.take(count.saturating_mul(8), "numbers")?;
        let numbers = bytes.chunks_exact(8);
        let numbers: Vec<f64> = numbers
            .map(|eight| f64::from_le_bytes(eight.try_into().unwrap_or_default()))
            .collect();
        match numbers.iter().all(|number| number.is_finite()) {
            true => Ok(numbers),
            false => Err(malformed("a number that is not finite")),
        }
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'b [u8], Error> {
        let end = self.at.saturating_add(count);
        let found = self.bytes.get(self.at..end).ok_or(Error::Truncated {
            container: CONTAINER,
            what: what.into(),
            needed: end as u64,
            available: self.bytes.len() as u64,
        })?;
        self.at = end;
        Ok(found)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4, "a number")?;
        Ok(u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        let bytes = self.take(8, "a number")?;
        Ok(u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    pub(super) fn f32(&mut self) -> Result<f32, Error> {
        Ok(f32::from_bits(self.u32()?))
    }

    pub(super) fn sum(&mut self) -> Result<Sum, Error> {
        Ok(Sum::from_words([self.u64()?, self.u64()?, self.u64()?]))
    }

    pub(super) fn id(&mut self) -> Result<RowId, Error> {
        Ok(RowId {
            stream: self.u64()?,
            position: self.u64()?,
        })
    }

    pub(super) fn list(&mut self, count: u32) -> Result<Vec<u32>, Error> {
        let bytes = self.take((count as usize).saturating_mul(4), "a list")?;
        let numbers = bytes.chunks_exact(4);
        Ok(numbers
            .map(|four| u32::from_le_bytes(four.try_into().unwrap_or_default()))
            .collect())
    }

    /// Bins as [`Writer::bins`] wrote them; `None` for none.
    pub(super) fn bins(&mut self) -> Result<Option<Bins>, Error> {
        let (kind, first, second) = (self.u32()?, self.u32()?, self.u32()?);
        Ok(match kind {
            0 => None,
            1 => Some(Bins::Log {
                split: u8::try_from(first).unwrap_or(u8::MAX),
                first: second as u8 as i8,
                end: (second >> 8) as u8 as i8,
            }),
            2 => Some(Bins::Linear {
                width: f32::from_bits(first),
                count: second,
            }),
            other => return Err(malformed(alloc::format!("bins of kind {other}"))),
        })
    }
}
