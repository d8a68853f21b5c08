//! The directory of a zip archive, as npz and torch files use it: members that lie in the file
//! uncompressed are slices of the map, deflated ones are inflated when they are needed.
//!
//! `rawzip` finds and reads the records; this module decides what is accepted. The central
//! directory is trusted for sizes and checksums (streaming writers put zeros into local headers
//! and the numbers behind the data, zip64 keeps long ones in extra fields), and the local header
//! must repeat the name and the method. Refused: encrypted members, names that occur twice,
//! members that overlap each other or reach into the directory, stored members whose two sizes
//! differ.

use super::entry::reserve;
use super::{MAX_TENSORS, quoted};
use crate::bytes::Bytes;
use crate::error::Error;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use rawzip::{CompressionMethod, ErrorKind, ZipArchive, ZipFileHeaderRecord};

const CONTAINER: &str = "zip";

/// How far from its end a file is searched for the directory's end record: a comment of 64 KiB
/// and the record itself.
const SEARCH: u64 = (1 << 16) + 22;

/// Longest name of a member, in bytes.
pub const MAX_NAME: usize = 512;

/// Deflate cannot shrink data more than this: one bit or two for 258 bytes.
const DEFLATE_LIMIT: u64 = 1032;

/// One file inside the archive. Its sizes have been compared with the bytes present.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The name; not a path to write to.
    pub name: String,
    /// Size once it is inflated, as the directory says.
    pub size: u64,
    data: Bytes<'a>,
    deflated: bool,
    crc: u32,
}

/// The members in the order of the directory. Folders are left out.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Malformed`], [`Error::Limit`], or
/// [`Error::UnsupportedContainer`] for encryption and for compressions other than deflate.
pub fn members<'a>(bytes: &Bytes<'a>) -> Result<Vec<Member<'a>>, Error> {
    let all = bytes.as_slice();
    let archive = ZipArchive::with_max_search_space(SEARCH)
        .locate_in_slice(all)
        .map_err(|(_, error)| no_directory(&error, all.len()))?;
    if archive.entries_hint() > MAX_TENSORS as u64 {
        return Err(Error::Limit {
            what: "the number of zip members".into(),
            limit: MAX_TENSORS as u64,
            found: archive.entries_hint(),
        });
    }
    let mut members = Vec::new();
    let mut names = BTreeSet::new();
    let mut ranges = Vec::new();
    let mut records = archive.entries();
    while let Some(record) = records.next_entry().map_err(|error| broken(&error))? {
        if ranges.len() >= MAX_TENSORS {
            return Err(Error::Limit {
                what: "the number of zip members".into(),
                limit: MAX_TENSORS as u64,
                found: ranges.len() as u64 + 1,
            });
        }
        let path = record.file_path();
        let name = checked_name(path.as_bytes())?;
        let local = archive.get_entry(record.wayfinder()).map_err(|error| {
            if let ErrorKind::Eof = error.kind() {
                Error::Truncated {
                    container: CONTAINER,
                    what: format!("member `{}`", quoted(name.as_bytes())),
                    needed: record
                        .local_header_offset()
                        .saturating_add(record.compressed_size_hint()),
                    available: all.len() as u64,
                }
            } else {
                broken(&error)
            }
        })?;
        let (start, end) = local.compressed_data_range();
        ranges.push((record.local_header_offset(), end, name));
        let header = local.local_header();
        if header.file_path().as_bytes() != name.as_bytes()
            || header.compression_method() != record.compression_method()
        {
            let what = "the local header disagrees with the directory";
            return Err(malformed(name, what));
        }
        if !names.insert(name) {
            return Err(malformed(name, "the name occurs twice"));
        }
        if record.is_dir() {
            continue;
        }
        members.push(member(&record, name, bytes.slice(range(start, end)))?);
    }
    if ranges.len() as u64 != archive.entries_hint() {
        return Err(Error::Malformed {
            container: CONTAINER,
            what: format!(
                "the directory announces {} members and lists {}",
                archive.entries_hint(),
                ranges.len()
            ),
        });
    }
    check_overlap(ranges, archive.directory_offset())?;
    Ok(members)
}

/// A range of the file; one that no slice has if it does not fit `usize`.
fn range(start: u64, end: u64) -> core::ops::Range<usize> {
    let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
    at(start)..at(end)
}

fn checked_name(name: &[u8]) -> Result<&str, Error> {
    if name.len() > MAX_NAME {
        return Err(Error::Limit {
            what: format!("the length of the member name `{}`", quoted(name)),
            limit: MAX_NAME as u64,
            found: name.len() as u64,
        });
    }
    core::str::from_utf8(name).map_err(|_| malformed_bytes(name, "the name is not UTF-8"))
}

fn member<'a>(
    record: &ZipFileHeaderRecord<'_>,
    name: &str,
    data: Option<Bytes<'a>>,
) -> Result<Member<'a>, Error> {
    let data = data.ok_or_else(|| malformed(name, "it lies outside the file"))?;
    let size = record.uncompressed_size_hint();
    let unsupported = |what: String| Error::UnsupportedContainer {
        container: CONTAINER,
        what: format!("member `{}` {what}", quoted(name.as_bytes())),
    };
    let flags = record.flags();
    if flags.is_encrypted() || flags.has_strong_encryption() {
        return Err(unsupported("is encrypted".into()));
    }
    let deflated = match record.compression_method() {
        CompressionMethod::STORE => false,
        CompressionMethod::DEFLATE => true,
        method => {
            return Err(unsupported(format!(
                "is compressed with {}",
                method_name(method)
            )));
        }
    };
    if !deflated && size != data.len() as u64 {
        return Err(malformed(
            name,
            &format!(
                "stored with {} bytes, its size is given as {size}",
                data.len()
            ),
        ));
    }
    if deflated && size / DEFLATE_LIMIT > data.len() as u64 {
        return Err(malformed(
            name,
            &format!("{} deflated bytes cannot hold the given {size}", data.len()),
        ));
    }
    Ok(Member {
        name: name.into(),
        size,
        data,
        deflated,
        crc: record.crc32(),
    })
}

fn method_name(method: CompressionMethod) -> String {
    match method.as_u16() {
        9 => "deflate64".into(),
        12 => "bzip2".into(),
        14 => "lzma".into(),
        93 => "zstandard".into(),
        95 => "xz".into(),
        number => format!("method {number}"),
    }
}

fn check_overlap(mut ranges: Vec<(u64, u64, &str)>, directory: u64) -> Result<(), Error> {
    ranges.sort_unstable();
    let mut last_end = 0;
    for (start, end, name) in &ranges {
        if *start < last_end {
            return Err(malformed(name, "it overlaps another member"));
        }
        if *end > directory {
            return Err(malformed(name, "it reaches into the directory"));
        }
        last_end = *end;
    }
    Ok(())
}

impl<'a> Member<'a> {
    /// Whether its data has to be inflated.
    pub fn is_deflated(&self) -> bool {
        self.deflated
    }

    /// The bytes in place, if it is stored.
    pub fn stored(&self) -> Option<&Bytes<'a>> {
        (!self.deflated).then_some(&self.data)
    }

    /// Compares the checksum of a stored member; a deflated one is compared when it is inflated.
    ///
    /// # Errors
    /// [`Error::Checksum`].
    pub fn check(&self) -> Result<(), Error> {
        match self.stored() {
            Some(bytes) => self.compare(crc32fast::hash(bytes.as_slice())),
            None => Ok(()),
        }
    }

    fn compare(&self, found: u32) -> Result<(), Error> {
        if found == self.crc {
            return Ok(());
        }
        Err(Error::Checksum {
            member: quoted(self.name.as_bytes()),
            expected: self.crc,
            found,
        })
    }

    /// The first `limit` bytes, or all if there are fewer: to judge a member by its header
    /// without inflating it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if deflated data is damaged, [`Error::UnsupportedContainer`] for
    /// deflated data without the feature `std`.
    pub fn head(&self, limit: usize) -> Result<Vec<u8>, Error> {
        match self.stored() {
            Some(bytes) => {
                let bytes = bytes.as_slice();
                Ok(bytes.get(..limit).unwrap_or(bytes).to_vec())
            }
            None => self.inflate_with(limit, |_| {}),
        }
    }

    /// The `size` bytes from `start` on, in memory of their own, checksum verified. They must be
    /// the member's last ones: the caller has derived `size` from what the data is, so this
    /// never inflates to a size that only the directory claims.
    ///
    /// # Errors
    /// [`Error::Checksum`], [`Error::Malformed`], [`Error::OutOfMemory`], or
    /// [`Error::UnsupportedContainer`] for deflated data without the feature `std`.
    pub fn inflate(&self, start: u64, size: u64) -> Result<Vec<u8>, Error> {
        if start.checked_add(size) != Some(self.size) {
            return Err(malformed(
                &self.name,
                &format!(
                    "{size} bytes from {start} on are not the rest of its {}",
                    self.size
                ),
            ));
        }
        // Within `self.size` and so, for what fits into memory at all, within usize.
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        if let Some(bytes) = self.stored() {
            self.check()?;
            let mut memory = reserve(size, "a copy of an archive member")?;
            memory.extend_from_slice(bytes.as_slice().get(start..).unwrap_or(&[]));
            return Ok(memory);
        }
        let mut memory = reserve(size, "an inflated archive member")?;
        let mut hasher = crc32fast::Hasher::new();
        let mut skip = start;
        self.inflate_into(self.size, |chunk| {
            hasher.update(chunk);
            let skipped = skip.min(chunk.len());
            skip -= skipped;
            memory.extend_from_slice(chunk.get(skipped..).unwrap_or(&[]));
        })?;
        self.compare(hasher.finalize())?;
        Ok(memory)
    }

    fn inflate_with(&self, limit: usize, mut visit: impl FnMut(&[u8])) -> Result<Vec<u8>, Error> {
        let limit = limit.min(usize::try_from(self.size).unwrap_or(usize::MAX));
        let mut head = Vec::new();
        self.inflate_some(limit as u64, |chunk| {
            visit(chunk);
            head.extend_from_slice(chunk);
        })?;
        Ok(head)
    }

    /// Inflates exactly `size` bytes and checks that the stream ends there.
    fn inflate_into(&self, size: u64, visit: impl FnMut(&[u8])) -> Result<(), Error> {
        let ended = self.inflate_some(size, visit)?;
        if ended {
            return Ok(());
        }
        Err(malformed(
            &self.name,
            &format!("it inflates to more than the {size} bytes that the directory gives"),
        ))
    }

    /// Inflates `size` bytes in pieces; says whether the stream ends there.
    #[cfg(feature = "std")]
    fn inflate_some(&self, size: u64, mut visit: impl FnMut(&[u8])) -> Result<bool, Error> {
        use std::io::Read;
        let mut decoder = flate2::bufread::DeflateDecoder::new(self.data.as_slice());
        let mut chunk = [0; 16 << 10];
        let mut left = size;
        loop {
            let part = usize::try_from(left)
                .unwrap_or(chunk.len())
                .clamp(1, chunk.len());
            let part = chunk.get_mut(..part).unwrap_or_default();
            let count = decoder
                .read(part)
                .map_err(|error| malformed(&self.name, &format!("deflate: {error}")))?;
            if left == 0 {
                return Ok(count == 0);
            }
            if count == 0 {
                return Err(malformed(
                    &self.name,
                    &format!("it inflates to {} bytes, {size} are needed", size - left),
                ));
            }
            visit(part.get(..count).unwrap_or_default());
            left -= count as u64;
        }
    }

    #[cfg(not(feature = "std"))]
    fn inflate_some(&self, _: u64, _: impl FnMut(&[u8])) -> Result<bool, Error> {
        Err(Error::UnsupportedContainer {
            container: CONTAINER,
            what: format!(
                "member `{}` is deflated, which needs the feature `std`",
                quoted(self.name.as_bytes())
            ),
        })
    }
}

fn malformed(name: &str, what: &str) -> Error {
    malformed_bytes(name.as_bytes(), what)
}

fn malformed_bytes(name: &[u8], what: &str) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: format!("member `{}`: {what}", quoted(name)),
    }
}

fn no_directory(error: &rawzip::Error, length: usize) -> Error {
    match error.kind() {
        ErrorKind::MissingEndOfCentralDirectory => Error::Truncated {
            container: CONTAINER,
            what: "the central directory, which ends the file, is missing; it".into(),
            needed: length as u64 + 22,
            available: length as u64,
        },
        _ => broken(error),
    }
}

fn broken(error: &rawzip::Error) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: format!("directory: {error}"),
    }
}
