//! Selection over a whole batch. `include/sae_architectures.h`.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{rows as read_rows, store};
use crate::model::sae_model;
use crate::scratch::sae_scratch;
use crate::types::*;
use core::ptr::null_mut;
use sae::{BatchRule, BatchSpace};

/// Work space for selection over a batch.
pub struct Batch(BatchSpace);

/// The same, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_batch = Handle<Batch>;

impl Kind for Batch {
    const TAG: u64 = u64::from_le_bytes(*b"sae:batc");
    const NAME: &'static str = "sae_batch";
}

/// Makes the work space.
///
/// # Safety
/// - `model` is a handle; `batch` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_batch_create(
    model: *const sae_model,
    rule: sae_batch_rule,
    budget: usize,
    n_rows: usize,
    batch: *mut *mut sae_batch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `batch` is an output.
        unsafe { store("batch", batch, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let rule = match rule {
            SAE_BATCH_TOGETHER => BatchRule::Together { k: budget },
            SAE_BATCH_PER_FEATURE => BatchRule::PerFeature { m: budget },
            other => {
                return Err(Failure::Invalid {
                    argument: "rule",
                    expected: "a `sae_batch_rule`",
                    found: Found::Signed(other.into()),
                });
            }
        };
        let space = BatchSpace::new(&model.sae, rule, n_rows)?;
        let handle = Handle::on_heap(Batch(space))?;
        // SAFETY: the caller guarantees that `batch` is an output.
        unsafe { store("batch", batch, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys the work space.
///
/// # Safety
/// - `batch` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_batch_destroy(batch: *mut sae_batch) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(batch) };
        Ok(())
    });
}

/// Encodes a batch and selects from all of it at once.
///
/// # Safety
/// - `model`, `batch`, `scratch` and `features` are handles; `rows` is an input and describes one;
///   `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode_batch(
    model: *const sae_model,
    rows: *const sae_rows,
    batch: *mut sae_batch,
    scratch: *mut sae_scratch,
    features: *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        features.0.clear();
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `batch` is a handle.
        let mut batch = unsafe { Handle::exclusive("batch", batch) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        Ok(model
            .sae
            .encode_batch(rows, &mut batch.0, &mut scratch.0, &mut features.0)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
