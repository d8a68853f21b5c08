//! Parts of batches, and what a host knows about their rows.

use crate::boundary::call;
use crate::failure::{Failure, Found};
use crate::memory::store;
use crate::types::*;

/// The rows that worker `ith` of `nth` takes.
///
/// # Safety
/// - `rows` is an input; `part`, `first` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_rows_part(
    rows: *const sae_rows,
    ith: usize,
    nth: usize,
    part: *mut sae_rows,
    first: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        if rows.is_null() {
            return Err(Failure::Null { argument: "rows" });
        }
        // SAFETY: not NULL; readable by contract.
        let rows = unsafe { rows.read_unaligned() };
        if ith >= nth {
            return Err(Failure::Invalid {
                argument: "ith",
                expected: "a number below `nth`",
                found: Found::Unsigned(ith as u64),
            });
        }
        // As even as can be: the first `over` parts have one row more.
        let (each, over) = (rows.n_rows / nth, rows.n_rows % nth);
        let start = ith * each + ith.min(over);
        let count = each + usize::from(ith < over);
        let size = match rows.dtype {
            SAE_DTYPE_F32 => 4,
            SAE_DTYPE_F16 | SAE_DTYPE_BF16 => 2,
            other => {
                return Err(Failure::Invalid {
                    argument: "rows.dtype",
                    expected: "SAE_DTYPE_F32, SAE_DTYPE_F16 or SAE_DTYPE_BF16",
                    found: Found::Signed(other.into()),
                });
            }
        };
        let stride = match rows.stride_bytes {
            0 => rows.width.checked_mul(size),
            stride => Some(stride),
        };
        let offset =
            stride
                .and_then(|stride| start.checked_mul(stride))
                .ok_or(Failure::Invalid {
                    argument: "rows",
                    expected: "an array that fits the address space",
                    found: Found::Unsigned(u64::MAX),
                })?;
        let value = sae_rows {
            // Only an address: what is read there is checked by whoever reads.
            data: rows.data.cast::<u8>().wrapping_add(offset).cast(),
            n_rows: count,
            ..rows
        };
        if !first.is_null() {
            // SAFETY: not NULL; the caller guarantees that `first` is an output.
            unsafe { store("first", first, start) }?;
        }
        // SAFETY: the caller guarantees that `part` is an output.
        unsafe { store("part", part, value) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Checks what a host says about a row: (position in the text, whether to leave the row out).
pub(crate) fn check_info(info: &sae_row_info) -> Result<(), Failure> {
    if info.last > 1 {
        return Err(Failure::Invalid {
            argument: "infos.last",
            expected: "0 or 1",
            found: Found::Unsigned(info.last.into()),
        });
    }
    match info.stage {
        SAE_STAGE_UNKNOWN..=SAE_STAGE_SKIPPED => Ok(()),
        other => Err(Failure::Invalid {
            argument: "infos.stage",
            expected: "one of SAE_STAGE_...",
            found: Found::Signed(other.into()),
        }),
    }
}
