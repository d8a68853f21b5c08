//! npz: a zip archive of `.npy` arrays, as `numpy.savez` (stored) and `numpy.savez_compressed`
//! (deflated) write them. Stored little-endian arrays are used in place.
//!
//! Opening reads the directory and the header of every array. Data is
//! inflated when an entry is loaded, and never beyond what dtype and shape need. CRC-32 of
//! deflated data is always compared; of stored data in small files and under
//! [`Check::Full`](super::Check::Full), since it reads every byte.

use super::npy::{MAX_HEAD, NpyHeader, USUAL_HEAD};
use super::zip::Member;
use super::{Archive, Checks, Entry, quoted};
use crate::bytes::Bytes;
use crate::error::Error;
use alloc::format;
use alloc::vec::Vec;

const CONTAINER: &str = "npz";

/// Makes an archive of the arrays among these members.
pub(super) fn read<'a>(members: Vec<Member<'a>>, checks: Checks) -> Result<Archive<'a>, Error> {
    let mut archive = Archive::new(CONTAINER);
    let mut unchecked = 0;
    for member in members {
        let name = match array_name(&member.name) {
            Some(name) => name,
            None => {
                let name = quoted(member.name.as_bytes());
                archive
                    .notes
                    .push(format!("ignored archive member `{name}`"));
                continue;
            }
        };
        let header = header(&quoted(name.as_bytes()), &member)?;
        if let Some(bytes) = member.stored() {
            if checks.checksums {
                member.check()?;
            } else {
                unchecked += 1;
            }
            if let Some(tensor) = header.in_place(name, bytes) {
                archive.entries.push(Entry::in_place(tensor?));
                continue;
            }
        }
        let name = name.into();
        archive.entries.push(Entry::npy(name, member, header));
    }
    checks.note(unchecked, "arrays", &mut archive.notes);
    Ok(archive)
}

fn header(name: &str, member: &Member<'_>) -> Result<NpyHeader, Error> {
    match NpyHeader::parse(name, &member.head(USUAL_HEAD)?, member.size) {
        Err(Error::Truncated { .. }) if member.size > USUAL_HEAD as u64 => {
            NpyHeader::parse(name, &member.head(MAX_HEAD)?, member.size)
        }
        result => result,
    }
}

/// Reads an npz file.
///
/// # Errors
/// Those of [`zip::members`](super::zip::members) and [`NpyHeader::parse`].
pub fn read_npz<'a>(bytes: &Bytes<'a>, check: super::Check) -> Result<Archive<'a>, Error> {
    read(super::zip::members(bytes)?, Checks::new(check, bytes.len()))
}

/// The array's name: `W_enc` for `W_enc.npy`. `None` for what NumPy does not write: other files,
/// and paths that lead elsewhere.
fn array_name(member: &str) -> Option<&str> {
    let name = member.strip_suffix(".npy")?;
    let leads_elsewhere = name.starts_with('/')
        || name.contains('\\')
        || name.contains(':')
        || name.split('/').any(|part| part == ".." || part == ".");
    (!leads_elsewhere).then_some(name)
}
