//! Version, status texts, levels: what needs no handle.

use crate::boundary::value;
use crate::types::*;
use core::ffi::{CStr, c_char};

/// The text of `sae_version`, with its zero byte.
const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    };

/// The version of the library that runs.
///
/// # Safety
/// None needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The ABI version of the library that runs.
///
/// # Safety
/// None needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_abi_version() -> u32 {
    SAE_ABI_VERSION
}

/// A few words for a status.
///
/// # Safety
/// None needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_status_text(status: sae_status) -> *const c_char {
    text(status).as_ptr()
}

fn text(status: sae_status) -> &'static CStr {
    match status {
        SAE_STATUS_OK => c"success",
        SAE_STATUS_NULL_ARGUMENT => c"an argument is NULL that must not be",
        SAE_STATUS_IO => c"the operating system refused",
        SAE_STATUS_NOT_A_CHECKPOINT => c"not a checkpoint of a known publisher",
        SAE_STATUS_MALFORMED => c"the file breaks the rules of its format",
        SAE_STATUS_TRUNCATED => c"the file ends early",
        SAE_STATUS_CORRUPT => c"a checksum does not match",
        SAE_STATUS_LIMIT => c"a size goes beyond a limit",
        SAE_STATUS_UNSUPPORTED => c"valid, but not supported",
        SAE_STATUS_UNSAFE_PICKLE => c"a pickle with more than tensors and plain data was refused",
        SAE_STATUS_MISSING_TENSOR => c"a tensor is missing",
        SAE_STATUS_UNKNOWN_TENSOR => c"an unknown floating-point tensor",
        SAE_STATUS_SHAPE => c"shapes disagree",
        SAE_STATUS_INVALID_VALUE => c"a value in a tensor or config is not allowed",
        SAE_STATUS_MISSING_KEY => c"a config key is missing",
        SAE_STATUS_UNKNOWN_KEY => c"an unknown config key",
        SAE_STATUS_LENGTH => c"an argument has the wrong length",
        SAE_STATUS_FEATURE_OUT_OF_RANGE => c"a feature index is out of range",
        SAE_STATUS_INVALID_ARGUMENT => c"an argument is not allowed",
        SAE_STATUS_LEVEL_UNAVAILABLE => c"the level is not available here",
        SAE_STATUS_OUT_OF_MEMORY => c"out of memory",
        SAE_STATUS_NO_ADAPTER => c"no GPU adapter that will do",
        SAE_STATUS_DEVICE => c"a GPU device failed",
        SAE_STATUS_WRONG_HANDLE => c"a handle is of another kind or was destroyed",
        SAE_STATUS_PANIC => c"a defect of the library was caught at its boundary",
        SAE_STATUS_IN_USE => c"a handle is in use by another call",
        _ => c"unknown status",
    }
}

/// The name of an available level, from the plainest to the best.
///
/// # Safety
/// None needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_level_name(index: usize) -> *const c_char {
    value(core::ptr::null(), || {
        let level = sae::Level::available().nth(index);
        Ok(level.map_or(core::ptr::null(), |level| level_text(level).as_ptr()))
    })
}

/// The name of a level as a C string.
pub(crate) fn level_text(level: sae::Level) -> &'static CStr {
    match level.name() {
        "scalar" => c"scalar",
        "avx2" => c"avx2",
        "avx512" => c"avx512",
        "neon" => c"neon",
        "simd128" => c"simd128",
        _ => c"unknown",
    }
}
