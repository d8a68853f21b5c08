//! Pointers and lengths from C, checked and turned into slices and texts.

use crate::failure::{Failure, Found};
use crate::types::{SAE_DTYPE_BF16, SAE_DTYPE_F16, SAE_DTYPE_F32, sae_rows, sae_rows_mut};
use alloc::ffi::CString;
use alloc::string::String;
use core::ffi::{CStr, c_char, c_void};
use core::ops::Range;

/// A read-only array; empty if its count is 0, whatever the pointer.
///
/// # Safety
/// `pointer` is an input of `count` values, see the crate's notes, for as long as `'m`.
pub(crate) unsafe fn slice<'m, T>(
    argument: &'static str,
    pointer: *const T,
    count: usize,
) -> Result<&'m [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check::<T>(argument, pointer, count)?;
    // SAFETY: not NULL, aligned and of a size that can exist by `check`; readable by contract.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// A writable array of plain numbers; empty if its count is 0. It is filled with zeros first, so
/// that the caller need not have initialised it.
///
/// # Safety
/// `pointer` is an output of `count` values, see the crate's notes, for as long as `'m`; all bits
/// zero is a value of `T`.
pub(crate) unsafe fn slice_mut<'m, T: Copy>(
    argument: &'static str,
    pointer: *mut T,
    count: usize,
) -> Result<&'m mut [T], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    check::<T>(argument, pointer, count)?;
    // SAFETY: not NULL, aligned and of a size that can exist by `check`; writable by contract.
    unsafe { pointer.write_bytes(0, count) };
    // SAFETY: as above, and every value was just initialised.
    Ok(unsafe { core::slice::from_raw_parts_mut(pointer, count) })
}

fn check<T>(argument: &'static str, pointer: *const T, count: usize) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::Null { argument });
    }
    if !pointer.is_aligned() {
        return Err(Failure::Misaligned {
            argument,
            alignment: align_of::<T>(),
        });
    }
    span(argument, pointer.addr(), count.checked_mul(size_of::<T>())).map(drop)
}

/// The addresses of an array, if there can be such an array.
fn span(
    argument: &'static str,
    start: usize,
    bytes: Option<usize>,
) -> Result<Range<usize>, Failure> {
    bytes
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .and_then(|bytes| Some(start..start.checked_add(bytes)?))
        .ok_or(Failure::Invalid {
            argument,
            expected: "an array that fits the address space",
            found: Found::Unsigned(u64::MAX),
        })
}

/// Fails if two byte ranges share memory.
pub(crate) fn apart(
    (first, a): (&'static str, Range<usize>),
    (second, b): (&'static str, Range<usize>),
) -> Result<(), Failure> {
    if a.is_empty() || b.is_empty() || a.end <= b.start || b.end <= a.start {
        return Ok(());
    }
    Err(Failure::Overlap { first, second })
}

/// The addresses that `count` values of type `T` take, clipped to the address space.
pub(crate) fn addresses<T>(pointer: *const T, count: usize) -> Range<usize> {
    let start = pointer.addr();
    start..start.saturating_add(count.saturating_mul(size_of::<T>()))
}

/// Stores a text with a zero byte at the end, and the bytes that it needs; the latter alone without
/// a buffer.
///
/// # Safety
/// `buffer` is an output of `buffer_size` bytes, `size` an output or NULL, see the crate's notes.
pub(crate) unsafe fn store_text(
    text: String,
    buffer: *mut c_char,
    buffer_size: usize,
    size: *mut usize,
) -> Result<(), Failure> {
    if buffer.is_null() && buffer_size != 0 {
        return Err(Failure::Null { argument: "buffer" });
    }
    // JSON escapes zero bytes, so none ends the text early.
    let text = CString::new(text).unwrap_or_default();
    let bytes = text.as_bytes_with_nul();
    if !size.is_null() {
        // SAFETY: not NULL; the caller guarantees that it is an output.
        unsafe { store("size", size, bytes.len()) }?;
    }
    if buffer_size == 0 {
        return Ok(());
    }
    if buffer_size < bytes.len() {
        return Err(Failure::Length {
            argument: "buffer_size",
            expected: bytes.len(),
            found: buffer_size,
        });
    }
    // SAFETY: `buffer` is an output of at least so many bytes, which nobody else reads.
    unsafe {
        buffer
            .cast::<u8>()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
    };
    Ok(())
}

/// A string, or `None` for NULL.
///
/// # Safety
/// `pointer` is a string, see the crate's notes, for as long as `'m`.
pub(crate) unsafe fn optional_text<'m>(
    argument: &'static str,
    pointer: *const c_char,
) -> Result<Option<&'m str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; ends with a zero byte by contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    match text.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Failure::Invalid {
            argument,
            expected: "UTF-8 text",
            found: Found::NotUtf8,
        }),
    }
}

/// Stores an output.
///
/// # Safety
/// `out` is an output, see the crate's notes.
pub(crate) unsafe fn store<T>(
    argument: &'static str,
    out: *mut T,
    value: T,
) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::Null { argument });
    }
    // SAFETY: not NULL; writable by contract.
    unsafe { out.write_unaligned(value) };
    Ok(())
}

/// Stores a struct that begins with `struct_size`: as much of it as the caller's version has.
///
/// # Safety
/// `out` is NULL, or holds an initialised `struct_size` and that many writable bytes. `T` is
/// `repr(C)`, begins with a `u32` and has no padding.
pub(crate) unsafe fn store_sized<T>(
    argument: &'static str,
    first_version: usize,
    out: *mut T,
    value: T,
) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::Null { argument });
    }
    // SAFETY: not NULL; the caller initialised the first field.
    let size = unsafe { out.cast::<u32>().read_unaligned() } as usize;
    check_struct_size(argument, first_version, size)?;
    let known = size.min(size_of::<T>());
    let value = &raw const value;
    // SAFETY: both are at least `known` bytes; the source is a local, so they do not overlap.
    unsafe { core::ptr::copy_nonoverlapping(value.cast::<u8>(), out.cast::<u8>(), known) };
    // SAFETY: the caller's own size goes back to its place.
    unsafe { out.cast::<u32>().write_unaligned(size as u32) };
    Ok(())
}

/// Reads a struct that begins with `struct_size`, of the caller's version: fields that the caller
/// does not have are zero; fields that the library does not have must be.
///
/// # Safety
/// `input` is not NULL and holds `struct_size` bytes that were initialised. `T` is `repr(C)`,
/// begins with a `u32`, and all bits zero is a value of it.
pub(crate) unsafe fn load_sized<T: Copy>(
    argument: &'static str,
    first_version: usize,
    input: *const T,
) -> Result<T, Failure> {
    // SAFETY: not NULL; the first field is initialised by contract.
    let size = unsafe { input.cast::<u32>().read_unaligned() } as usize;
    check_struct_size(argument, first_version, size)?;
    let known = size.min(size_of::<T>());
    let bytes = input.cast::<u8>();
    for offset in known..size {
        // SAFETY: `offset` is below the size that the caller states.
        let byte = unsafe { bytes.add(offset) };
        // SAFETY: as above, and initialised by contract.
        if unsafe { byte.read() } != 0 {
            return Err(Failure::Invalid {
                argument,
                expected: "zero in fields that this version of the library does not know",
                found: Found::Text(alloc::format!("byte {offset} of the struct is set")),
            });
        }
    }
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: both are at least `known` bytes; the target is a local, so they do not overlap.
    unsafe { core::ptr::copy_nonoverlapping(bytes, value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: all bytes were zeroed, then the caller's were copied over them.
    Ok(unsafe { value.assume_init() })
}

/// The largest struct that a later version of the header is expected to have: a size beyond it is
/// an uninitialised field, not a version.
const STRUCT_SIZE_LIMIT: usize = 4096;

fn check_struct_size(
    argument: &'static str,
    first_version: usize,
    size: usize,
) -> Result<(), Failure> {
    if (first_version..=STRUCT_SIZE_LIMIT).contains(&size) {
        return Ok(());
    }
    Err(Failure::Invalid {
        argument,
        expected: "`struct_size` set to the size of the struct",
        found: Found::Unsigned(size as u64),
    })
}

/// Rows of the caller, of the given width, and the addresses they span.
///
/// # Safety
/// `rows` is an input, and so is the memory that it describes, for as long as `'m`.
pub(crate) unsafe fn rows<'m>(
    argument: &'static str,
    rows: *const sae_rows,
    width: usize,
) -> Result<(sae::Rows<'m>, Range<usize>), Failure> {
    if rows.is_null() {
        return Err(Failure::Null { argument });
    }
    // SAFETY: not NULL; readable by contract.
    let rows = unsafe { rows.read_unaligned() };
    let dtype = match rows.dtype {
        SAE_DTYPE_F32 => sae::Dtype::F32,
        SAE_DTYPE_F16 => sae::Dtype::F16,
        SAE_DTYPE_BF16 => sae::Dtype::BF16,
        other => {
            return Err(Failure::Invalid {
                argument: "rows.dtype",
                expected: "SAE_DTYPE_F32, SAE_DTYPE_F16 or SAE_DTYPE_BF16",
                found: Found::Signed(other.into()),
            });
        }
    };
    if rows.reserved != 0 {
        return Err(Failure::Invalid {
            argument: "rows.reserved",
            expected: "0",
            found: Found::Unsigned(rows.reserved.into()),
        });
    }
    // Before anything is derived from it: a wrong width would make rows of memory that is not.
    if rows.width != width {
        return Err(Failure::Length {
            argument: "rows.width",
            expected: width,
            found: rows.width,
        });
    }
    let row = rows.width.checked_mul(dtype.size());
    let stride = match rows.stride_bytes {
        0 => row,
        stride => Some(stride),
    };
    // The row after the last may lie outside of the caller's memory, so the span ends with the
    // last row itself.
    let bytes = match rows.n_rows.checked_sub(1) {
        None => Some(0),
        Some(last) => stride
            .and_then(|stride| last.checked_mul(stride))
            .and_then(|start| start.checked_add(row?)),
    };
    let span = span(argument, rows.data.addr(), bytes)?;
    // SAFETY: the caller guarantees that the rows are readable, and their span is as above.
    let bytes = unsafe { slice("rows.data", rows.data.cast::<u8>(), span.len()) }?;
    let rows = sae::Rows::from_bytes(bytes, dtype, rows.n_rows, rows.width, stride.unwrap_or(0))?;
    Ok((rows, span))
}

/// Rows of the caller that may be changed, of the given width, and the addresses they span. They
/// are not zeroed.
///
/// # Safety
/// `rows` is an input, and the memory that it describes is writable and initialised, and nobody
/// else uses it, for as long as `'m`.
pub(crate) unsafe fn rows_mut<'m>(
    argument: &'static str,
    rows: *const sae_rows_mut,
    width: usize,
) -> Result<(sae::RowsMut<'m>, Range<usize>), Failure> {
    // Both structs have the same layout (asserted in `types`), and the same checks apply.
    // SAFETY: the caller guarantees what `rows` needs; what it returns is not kept.
    let (read, span) = unsafe { self::rows(argument, rows.cast::<sae_rows>(), width) }?;
    let (dtype, n_rows) = (read.dtype(), read.rows());
    // SAFETY: not NULL by the check above; readable by contract.
    let rows = unsafe { rows.read_unaligned() };
    let stride = match rows.stride_bytes {
        0 => width * dtype.size(),
        stride => stride,
    };
    let bytes: &mut [u8] = match span.is_empty() {
        true => &mut [],
        // SAFETY: not NULL and of a size that can exist by the check above; writable, initialised
        // and not shared by contract.
        false => unsafe { core::slice::from_raw_parts_mut(rows.data.cast::<u8>(), span.len()) },
    };
    let rows = sae::RowsMut::from_bytes(bytes, dtype, n_rows, width, stride)?;
    Ok((rows, span))
}

/// A byte array of the caller.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn bytes<'m>(
    argument: &'static str,
    pointer: *const c_void,
    count: usize,
) -> Result<&'m [u8], Failure> {
    if pointer.is_null() {
        return Err(Failure::Null { argument });
    }
    // SAFETY: the caller guarantees what `slice` needs.
    unsafe { slice(argument, pointer.cast::<u8>(), count) }
}
