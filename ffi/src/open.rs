//! Opening and closing models.

use crate::boundary::call;
use crate::failure::{Failure, Found};
use crate::handle::{Handle, Kind};
use crate::log::tell;
use crate::memory::{bytes, load_sized, optional_text, slice, store};
use crate::model::{Model, sae_model};
use crate::types::*;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;

/// What opens from a path or from bytes.
pub(crate) trait Opens: Sized {
    /// From a path.
    #[cfg(feature = "std")]
    fn open(path: &std::path::Path, options: &sae::OpenOptions) -> Result<Self, sae::Error>;

    /// From the bytes of a file.
    fn from_bytes(
        name: &str,
        bytes: &'static [u8],
        config: Option<&str>,
        options: &sae::OpenOptions,
    ) -> Result<Self, sae::Error>;
}

macro_rules! opens {
    ($($model:ident),*) => {$(
        impl Opens for sae::$model<'static> {
            #[cfg(feature = "std")]
            fn open(path: &std::path::Path, options: &sae::OpenOptions) -> Result<Self, sae::Error> {
                sae::$model::open(path, options)
            }

            fn from_bytes(
                name: &str,
                bytes: &'static [u8],
                config: Option<&str>,
                options: &sae::OpenOptions,
            ) -> Result<Self, sae::Error> {
                sae::$model::from_bytes(name, bytes, config, options)
            }
        }
    )*};
}
opens!(Sae, Lorsa, Molt);

/// Opens what is at a path and stores a handle of it.
///
/// # Safety
/// `path` is a string; `options` is an input whose pointers are strings; `out` is an output.
pub(crate) unsafe fn open_path<T: Opens, K: Kind>(
    argument: &'static str,
    path: *const c_char,
    options: *const sae_open_options,
    out: *mut *mut Handle<K>,
    hold: impl FnOnce(T) -> K,
) -> Result<(), Failure> {
    // SAFETY: the caller guarantees that `out` is an output.
    unsafe { store(argument, out, null_mut()) }?;
    if path.is_null() {
        return Err(Failure::Null { argument: "path" });
    }
    // SAFETY: the caller guarantees that `options` is an input.
    let options = unsafe { read_options(options) }?;
    // SAFETY: not NULL; a string by contract.
    let opened = unsafe { at_path(path, &options) }?;
    let handle = Handle::on_heap(hold(opened))?;
    // SAFETY: the caller guarantees that `out` is an output.
    unsafe { store(argument, out, handle) }
}

/// # Safety
/// `path` is a string and not NULL.
#[cfg(feature = "std")]
unsafe fn at_path<T: Opens>(path: *const c_char, options: &sae::OpenOptions) -> Result<T, Failure> {
    // SAFETY: not NULL; a string by contract.
    let path = unsafe { path_of(path) }?;
    Ok(T::open(path, options)?)
}

/// # Safety
/// None needed.
#[cfg(not(feature = "std"))]
unsafe fn at_path<T: Opens>(
    _path: *const c_char,
    _options: &sae::OpenOptions,
) -> Result<T, Failure> {
    Err(Failure::Library(no_files()))
}

/// Opens what is in memory and stores a handle of it.
///
/// # Safety
/// As for [`in_memory`]; `options` is an input whose pointers are strings; `out` is an output.
#[allow(clippy::too_many_arguments)] // those of the C functions
pub(crate) unsafe fn open_memory<T: Opens, K: Kind>(
    argument: &'static str,
    (bytes, n_bytes): (*const c_void, usize),
    name: *const c_char,
    config: *const c_char,
    options: *const sae_open_options,
    out: *mut *mut Handle<K>,
    hold: impl FnOnce(T) -> K,
) -> Result<(), Failure> {
    // SAFETY: the caller guarantees that `out` is an output.
    unsafe { store(argument, out, null_mut()) }?;
    // SAFETY: the caller guarantees what `in_memory` needs.
    let (name, bytes, config) = unsafe { in_memory(bytes, n_bytes, name, config) }?;
    // SAFETY: the caller guarantees that `options` is an input.
    let options = unsafe { read_options(options) }?;
    let handle = Handle::on_heap(hold(T::from_bytes(name, bytes, config, &options)?))?;
    // SAFETY: the caller guarantees that `out` is an output.
    unsafe { store(argument, out, handle) }
}

/// Opens a checkpoint from a file or folder.
///
/// # Safety
/// - `path` is a string; `options` is an input whose pointers are strings; `model` and `error`
///   are outputs.
/// - The file is not changed or truncated while the model is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_open(
    path: *const c_char,
    options: *const sae_open_options,
    model: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `open_path` needs.
    let body = || unsafe { open_path("model", path, options, model, hold) };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Opens a checkpoint from the bytes of a file.
///
/// # Safety
/// - `bytes` is an input of `n_bytes` that stays unchanged until the model is closed.
/// - `name` and `config` are strings; `options` is an input whose pointers are strings; `model`
///   and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_open_memory(
    bytes: *const c_void,
    n_bytes: usize,
    name: *const c_char,
    config: *const c_char,
    options: *const sae_open_options,
    model: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let bytes = (bytes, n_bytes);
    // SAFETY: the caller guarantees what `open_memory` needs.
    let body = || unsafe { open_memory("model", bytes, name, config, options, model, hold) };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// What a handle of a model holds, after the log was told of it.
fn hold(sae: sae::Sae<'static>) -> Model {
    tell_about(&sae);
    Model::new(sae)
}

/// A checkpoint in memory of the caller: its name, its bytes and its config.
///
/// # Safety
/// `bytes` is an input of `n_bytes` that stays unchanged until the model is closed, so that the
/// lifetime may be `'static` inside of its handle; `name` and `config` are strings for as long as
/// `'m`.
unsafe fn in_memory<'m>(
    bytes: *const c_void,
    n_bytes: usize,
    name: *const c_char,
    config: *const c_char,
) -> Result<(&'m str, &'static [u8], Option<&'m str>), Failure> {
    // SAFETY: the caller guarantees that the bytes outlive the model.
    let bytes: &'static [u8] = unsafe { self::bytes("bytes", bytes, n_bytes) }?;
    // SAFETY: the caller guarantees that `name` is a string.
    let name = unsafe { optional_text("name", name) }?;
    // SAFETY: the caller guarantees that `config` is a string.
    let config = unsafe { optional_text("config", config) }?;
    Ok((name.unwrap_or("(memory)"), bytes, config))
}

/// Closes a model.
///
/// # Safety
/// - `model` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_close(model: *mut sae_model) {
    crate::boundary::value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(model) };
        Ok(())
    });
}

/// Tells the log what was opened, and what of it the library passed over.
fn tell_about(sae: &sae::Sae<'_>) {
    let about = sae.description();
    tell(SAE_LOG_INFO, || {
        alloc::format!(
            "opened {}: {} of {}, d_in {}, d_sae {}, d_out {}",
            about.files.first().map_or("", String::as_str),
            about.architecture,
            about.publisher,
            about.d_in,
            about.d_sae,
            about.d_out
        )
    });
    for note in &about.notes {
        tell(SAE_LOG_WARNING, || note.clone());
    }
    for (what, names) in [
        ("config keys", &about.ignored_keys),
        ("tensors", &about.ignored_tensors),
    ] {
        if !names.is_empty() {
            tell(SAE_LOG_WARNING, || {
                alloc::format!("not read: {what} {}", names.join(", "))
            });
        }
    }
}

/// The path in a string of C. On Unix it is any bytes; elsewhere it is UTF-8 here.
///
/// # Safety
/// `path` is a string and not NULL, for as long as `'p`.
#[cfg(feature = "std")]
pub(crate) unsafe fn path_of<'p>(path: *const c_char) -> Result<&'p std::path::Path, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: not NULL; ends with a zero byte by contract.
        let path = unsafe { core::ffi::CStr::from_ptr(path) };
        Ok(std::path::Path::new(std::ffi::OsStr::from_bytes(
            path.to_bytes(),
        )))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: a string by contract.
        let path = unsafe { optional_text("path", path) }?;
        Ok(std::path::Path::new(path.unwrap_or_default()))
    }
}

/// A path was given to a library without files.
#[cfg(not(feature = "std"))]
pub(crate) fn no_files() -> sae::Error {
    sae::Error::UnsupportedContainer {
        container: "path",
        what: "this build of the library has no files: open from memory".into(),
    }
}

/// The options of a caller; the defaults for NULL.
///
/// # Safety
/// `options` is an input whose pointers are strings.
unsafe fn read_options(options: *const sae_open_options) -> Result<sae::OpenOptions, Failure> {
    let mut read = sae::OpenOptions::default();
    if options.is_null() {
        return Ok(read);
    }
    // SAFETY: not NULL; an input by contract. All bits zero is a value of the struct.
    let options = unsafe { load_sized("options", OPEN_OPTIONS_SIZE_1, options) }?;
    read.check = match options.check {
        SAE_CHECK_QUICK => sae::container::Check::Quick,
        SAE_CHECK_FULL => sae::container::Check::Full,
        other => {
            return Err(Failure::Invalid {
                argument: "options.check",
                expected: "SAE_CHECK_QUICK or SAE_CHECK_FULL",
                found: Found::Signed(other.into()),
            });
        }
    };
    for (argument, number, limit) in [
        ("options.strict", options.strict, 1),
        ("options.reserved", options.reserved, 0),
    ] {
        if number > limit {
            return Err(Failure::Invalid {
                argument,
                expected: if limit == 0 { "0" } else { "0 or 1" },
                found: Found::Unsigned(number.into()),
            });
        }
    }
    read.strict = options.strict == 1;
    if options.screen_check > 1 || options.screen_delta_exponent > 1000 {
        let (argument, expected, number) = match options.screen_check > 1 {
            true => ("options.screen_check", "0 or 1", options.screen_check),
            false => (
                "options.screen_delta_exponent",
                "0 to 1000",
                options.screen_delta_exponent,
            ),
        };
        return Err(Failure::Invalid {
            argument,
            expected,
            found: Found::Unsigned(number.into()),
        });
    }
    // SAFETY: the caller guarantees that it is a string.
    if let Some(name) = unsafe { optional_text("options.screen", options.screen) }? {
        let kind = sae::model::ScreenKind::from_name(name);
        read.screen.kind = kind.ok_or(Failure::Invalid {
            argument: "options.screen",
            expected: "auto, proven, dithered or none",
            found: Found::Text(name.into()),
        })?;
    }
    read.screen.seed = (options.screen_seed != 0).then_some(options.screen_seed);
    if options.screen_delta_exponent != 0 {
        read.screen.delta_exponent = options.screen_delta_exponent;
    }
    read.screen.check = options.screen_check == 1;
    // SAFETY: the caller guarantees that it is a string.
    if let Some(name) = unsafe { optional_text("options.level", options.level) }? {
        read.level = Some(find_level(name)?);
    }
    // SAFETY: the caller guarantees that it is an input of that many pointers.
    read.set = unsafe { read_settings(options.settings, options.n_settings) }?;
    Ok(read)
}

fn find_level(name: &str) -> Result<sae::Level, Failure> {
    let named = sae::Level::from_name(name);
    named.ok_or_else(|| {
        let available: Vec<&str> = sae::Level::available().map(sae::Level::name).collect();
        Failure::Library(sae::Error::LevelUnavailable {
            requested: name.into(),
            available: available.join(", "),
        })
    })
}

/// # Safety
/// `settings` is an input of `count` strings.
unsafe fn read_settings(
    settings: *const *const c_char,
    count: usize,
) -> Result<Vec<(String, String)>, Failure> {
    let mut read = Vec::new();
    // SAFETY: the caller guarantees that it is an input.
    for &setting in unsafe { slice("options.settings", settings, count) }? {
        // SAFETY: the caller guarantees that each is a string.
        let text = unsafe { optional_text("options.settings[]", setting) }?;
        let text = text.ok_or(Failure::Null {
            argument: "options.settings[]",
        })?;
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                read.push((key.to_string(), value.to_string()));
            }
            _ => {
                return Err(Failure::Invalid {
                    argument: "options.settings[]",
                    expected: "key=value",
                    found: Found::Text(text.into()),
                });
            }
        }
    }
    Ok(read)
}
