//! Open models: what they are, and preparing them.

use crate::boundary::{call, value};
use crate::fit::hook_to_c;
use crate::handle::{Handle, Kind};
use crate::memory::{rows as read_rows, store_sized, store_text};
use crate::status::level_text;
use crate::types::*;
use alloc::ffi::CString;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ffi::c_char;

/// A model and its texts in the form that C reads.
pub struct Model {
    pub(crate) sae: sae::Sae<'static>,
    /// By `sae_text`.
    texts: Vec<CString>,
}

/// A model, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_model = Handle<Model>;

impl Kind for Model {
    const TAG: u64 = u64::from_le_bytes(*b"sae:modl");
    const NAME: &'static str = "sae_model";
}

impl Model {
    pub(crate) fn new(sae: sae::Sae<'static>) -> Self {
        let texts = (0..=SAE_TEXT_HOOK_NAME_OUT).map(|item| {
            // A config may hold zero bytes; in C they would end the text.
            let text = text_of(sae.description(), item).replace('\0', " ");
            CString::new(text).unwrap_or_default()
        });
        let texts = texts.collect();
        Model { sae, texts }
    }
}

/// The text of a description that C asks for by number.
fn text_of(about: &sae::Description, item: sae_text) -> &str {
    match item {
        SAE_TEXT_PUBLISHER => &about.publisher,
        SAE_TEXT_CONVENTION => &about.convention,
        SAE_TEXT_ARCHITECTURE => &about.architecture,
        SAE_TEXT_ACTIVATION => &about.activation,
        SAE_TEXT_NORMALIZATION => about.normalization,
        SAE_TEXT_HOOK_NAME => about.site.hook_name.as_deref().unwrap_or(""),
        SAE_TEXT_MODEL_NAME => about.site.model_name.as_deref().unwrap_or(""),
        SAE_TEXT_HOOK_NAME_OUT => about.site.hook_name_out.as_deref().unwrap_or(""),
        _ => "",
    }
}

/// Width of the rows that go in.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_d_in(model: *const sae_model) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        Ok(model.sae.d_in())
    })
}

/// Number of features.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_d_sae(model: *const sae_model) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        Ok(model.sae.d_sae())
    })
}

/// Width of the rows that decoding gives.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_d_out(model: *const sae_model) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        Ok(model.sae.d_out())
    })
}

/// Whether decoding needs the rows that were encoded.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_decode_needs_inputs(model: *const sae_model) -> i32 {
    value(0, || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        Ok(model.sae.needs_inputs_to_decode().into())
    })
}

/// Name of the instruction set in use.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_level(model: *const sae_model) -> *const c_char {
    let text = value(c"", || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        Ok(level_text(model.sae.level()))
    });
    text.as_ptr()
}

/// One text about the model.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_text(model: *const sae_model, item: sae_text) -> *const c_char {
    value(c"".as_ptr(), || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let text = usize::try_from(item)
            .ok()
            .and_then(|item| model.texts.get(item));
        Ok(text.map_or(c"", CString::as_c_str).as_ptr())
    })
}

/// Everything that is known about the model, as JSON.
///
/// # Safety
/// - `model` is a handle; `buffer` (of `buffer_size`), `size` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_describe(
    model: *const sae_model,
    buffer: *mut c_char,
    buffer_size: usize,
    size: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let text = model.sae.description().to_json().to_string();
        // SAFETY: the caller guarantees that `buffer` and `size` are outputs.
        unsafe { store_text(text, buffer, buffer_size, size) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// What a host must do to its rows.
///
/// # Safety
/// - `model` is a handle; `site` (with its `struct_size`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_site(
    model: *const sae_model,
    site: *mut sae_site,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let about = &model.sae.description().site;
        let (point, layer) = hook_to_c(about.hook());
        let (point_out, layer_out) = hook_to_c(about.hook_out());
        let value = sae_site {
            struct_size: 0,
            prepend_bos: about.prepend_bos.map_or(-1, i32::from),
            context_size: about.context_size.unwrap_or(0),
            mean_center: about.mean_center.into(),
            concatenated_heads: about.concatenated_heads.into(),
            point,
            layer,
            point_out,
            layer_out,
            exclude_special_tokens: about.exclude_special_tokens.map_or(-1, i32::from),
            reserved: 0,
            first_position: about.first_position,
            embedding_scale: about.embedding_scale(model.sae.d_in()),
        };
        // SAFETY: the caller guarantees that `site` is an output; the struct has no padding.
        unsafe { store_sized("site", SITE_SIZE_1, site, value) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// What preparing would cost.
///
/// # Safety
/// - `model` is a handle; `cost` (with its `struct_size`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_prepare_cost(
    model: *const sae_model,
    cost: *mut sae_prepare_cost,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let price = model.sae.prepare_cost();
        let value = sae_prepare_cost {
            struct_size: 0,
            needed: price.needed.into(),
            bytes: price.bytes.saturating_add(price.screen_bytes),
            reads: price.reads,
        };
        // SAFETY: the caller guarantees that `cost` is an output; the struct has no padding.
        unsafe { store_sized("cost", PREPARE_COST_SIZE_1, cost, value) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Copies the weights so that they are stored per feature.
///
/// # Safety
/// - `model` is a handle that nobody else uses during the call; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_prepare(
    model: *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that nobody else uses the model.
        let model = unsafe { Handle::sole("model", model) }?;
        Ok(model.sae.prepare_in_place()?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Prepares, with the screen chosen by rows.
///
/// # Safety
/// - `model` is a handle that nobody else uses during the call; `rows` is an input and describes
///   one; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_prepare_with(
    model: *mut sae_model,
    rows: *const sae_rows,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that nobody else uses the model.
        let model = unsafe { Handle::sole("model", model) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        Ok(model.sae.prepare_in_place_with(rows)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
