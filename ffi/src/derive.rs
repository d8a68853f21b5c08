//! Models made of models: another k, a prefix, a pursuit on the decoder, ensembles, and the order
//! of importance of their features. `include/sae_architectures.h`.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{load_sized, slice, slice_mut, store};
use crate::model::{Model, sae_model};
use crate::types::*;
use alloc::vec::Vec;
use core::ptr::null_mut;
use sae::bytes::Bytes;
use sae::model::{
    Activation, Ensemble, FeatureAxis, Matrix, Pick, Pursuit, Rank, Refit, Router, Thresholds,
};
use sae::tensor::Tensor;
use sae::{Dtype, Sae};

/// Hands out what `make` derives from a model.
///
/// # Safety
/// `model` is a handle; `derived` and `error` are outputs.
unsafe fn derive(
    model: *const sae_model,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
    make: impl FnOnce(&Sae<'static>) -> Result<Sae<'static>, Failure>,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `derived` is an output.
        unsafe { store("derived", derived, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let handle = Handle::on_heap(Model::new(make(&model.sae)?))?;
        // SAFETY: the caller guarantees that `derived` is an output.
        unsafe { store("derived", derived, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The same model selecting by another k.
///
/// # Safety
/// - `model` is a handle; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_k(
    model: *const sae_model,
    k: usize,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, |sae| Ok(sae.with_k(k)?)) }
}

/// The same model under TopK.
///
/// # Safety
/// - `model` is a handle; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_top_k(
    model: *const sae_model,
    k: usize,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let rule = Activation::TopK {
        k,
        rank: Rank::Value,
        relu: true,
    };
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, |sae| Ok(sae.with_activation(rule)?)) }
}

/// The same model under one threshold.
///
/// # Safety
/// - `model` is a handle; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_threshold(
    model: *const sae_model,
    threshold: f32,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let rule = Activation::JumpRelu {
        threshold: Thresholds::Scalar(threshold),
        relu: true,
        inclusive: false,
    };
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, |sae| Ok(sae.with_activation(rule)?)) }
}

/// The same model ranking by other weights.
///
/// # Safety
/// - `model` is a handle; `weights` is an input of `n_weights`; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_rank_weights(
    model: *const sae_model,
    weights: *const f64,
    n_weights: usize,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let make = |sae: &Sae<'static>| {
        // SAFETY: the caller guarantees that `weights` is an input of `n_weights`.
        let weights = unsafe { slice("weights", weights, n_weights) }?;
        let given = (!weights.is_empty()).then_some(weights);
        Ok(sae.with_rank_weights(given)?)
    };
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, make) }
}

/// The model of the first features.
///
/// # Safety
/// - `model` is a handle; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_prefix(
    model: *const sae_model,
    count: usize,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, |sae| Ok(sae.with_prefix(count)?)) }
}

/// The model of a range of features.
///
/// # Safety
/// - `model` is a handle; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_range(
    model: *const sae_model,
    first: usize,
    count: usize,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let range = first..first.saturating_add(count);
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, |sae| Ok(sae.with_range(range)?)) }
}

/// The model of chosen features.
///
/// # Safety
/// - `model` is a handle; `features` is an input of `count`; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_features(
    model: *const sae_model,
    features: *const u32,
    count: usize,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let make = |sae: &Sae<'static>| {
        // SAFETY: the caller guarantees that `features` is an input of `count`.
        let features = unsafe { slice("features", features, count) }?;
        Ok(sae.with_features(features)?)
    };
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, make) }
}

/// The decoder as the dictionary of a pursuit.
///
/// # Safety
/// - `model` is a handle; `pursuit` is an input with its `struct_size`; `derived` and `error` are
///   outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_with_pursuit(
    model: *const sae_model,
    pursuit: *const sae_pursuit,
    derived: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let make = |sae: &Sae<'static>| {
        if pursuit.is_null() {
            return Err(Failure::Null {
                argument: "pursuit",
            });
        }
        // SAFETY: not NULL; an input with its size by contract.
        let given = unsafe { load_sized("pursuit", PURSUIT_SIZE_1, pursuit) }?;
        let rule = read_pursuit(&given)?;
        Ok(match flag("pursuit.directions", given.directions)? {
            false => sae.with_pursuit(rule)?,
            true => sae.with_pursuit_of_directions(rule)?,
        })
    };
    // SAFETY: the caller guarantees what `derive` needs.
    unsafe { derive(model, derived, error, make) }
}

/// The pursuit that C describes.
pub(crate) fn read_pursuit(given: &sae_pursuit) -> Result<Pursuit, Failure> {
    let unknown = |argument, expected, found: i32| Failure::Invalid {
        argument,
        expected,
        found: Found::Signed(found.into()),
    };
    let pick = match given.pick {
        SAE_PICK_POSITIVE => Pick::Positive,
        SAE_PICK_ANY => Pick::Any,
        SAE_PICK_MAGNITUDE => Pick::Magnitude,
        other => return Err(unknown("pursuit.pick", "a `sae_pick`", other)),
    };
    let refit = match given.refit {
        SAE_REFIT_NOTHING => Refit::Nothing,
        SAE_REFIT_GRADIENT => Refit::Gradient,
        SAE_REFIT_LEAST_SQUARES => Refit::LeastSquares,
        other => return Err(unknown("pursuit.refit", "a `sae_refit`", other)),
    };
    if given.reserved != 0 {
        return Err(Failure::Invalid {
            argument: "pursuit.reserved",
            expected: "0",
            found: Found::Unsigned(given.reserved.into()),
        });
    }
    Ok(Pursuit {
        steps: usize::try_from(given.steps).unwrap_or(usize::MAX),
        pick,
        refit,
        stop_norm: (given.stop_norm != 0.0).then_some(given.stop_norm),
        stop_on_repeat: flag("pursuit.stop_on_repeat", given.stop_on_repeat)?,
        stop_rank: given.stop_rank as f32,
    })
}

fn flag(argument: &'static str, value: u32) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::Invalid {
            argument,
            expected: "0 or 1",
            found: Found::Unsigned(other.into()),
        }),
    }
}

/// One model made of several.
///
/// # Safety
/// - `members` is an input of `n_members` handles; `ensemble` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_ensemble_create(
    members: *const *const sae_model,
    n_members: usize,
    kind: sae_ensemble_kind,
    ensemble: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `ensemble` is an output.
        unsafe { store("ensemble", ensemble, null_mut()) }?;
        // SAFETY: the caller guarantees that `members` is an input of `n_members` handles.
        let shared = unsafe { share(members, n_members) }?;
        let kind = match kind {
            SAE_ENSEMBLE_BAG => Ensemble::Bag,
            SAE_ENSEMBLE_CHAIN => Ensemble::Chain,
            other => {
                let expected = match other {
                    SAE_ENSEMBLE_ROUTED => {
                        "a bag or a chain (`sae_ensemble_create_routed` takes a router)"
                    }
                    _ => "a `sae_ensemble_kind`",
                };
                return Err(Failure::Invalid {
                    argument: "kind",
                    expected,
                    found: Found::Signed(other.into()),
                });
            }
        };
        let handle = Handle::on_heap(Model::new(Sae::ensemble(shared, kind)?))?;
        // SAFETY: the caller guarantees that `ensemble` is an output.
        unsafe { store("ensemble", ensemble, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Models that share the weights of the members.
///
/// # Safety
/// `members` is an input of `n_members` handles.
unsafe fn share(
    members: *const *const sae_model,
    n_members: usize,
) -> Result<Vec<Sae<'static>>, Failure> {
    // SAFETY: the caller guarantees that `members` is an input of `n_members`.
    let handles = unsafe { slice("members", members, n_members) }?;
    let mut shared = Vec::new();
    for &member in handles {
        // SAFETY: the caller guarantees that every member is a handle.
        shared.push(unsafe { Handle::borrow("members", member) }?.sae.share());
    }
    Ok(shared)
}

/// One model made of several, of which a router picks one for each row.
///
/// # Safety
/// - `members` is an input of `n_members` handles, `vectors` one of `n_vectors`, `center` one of
///   `n_center`; `ensemble` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_ensemble_create_routed(
    members: *const *const sae_model,
    n_members: usize,
    vectors: *const f32,
    n_vectors: usize,
    center: *const f64,
    n_center: usize,
    weighs: u32,
    ensemble: *mut *mut sae_model,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `ensemble` is an output.
        unsafe { store("ensemble", ensemble, null_mut()) }?;
        // SAFETY: the caller guarantees that `members` is an input of `n_members` handles.
        let shared = unsafe { share(members, n_members) }?;
        // SAFETY: the caller guarantees that `vectors` is an input of `n_vectors`.
        let vectors = unsafe { slice("vectors", vectors, n_vectors) }?;
        // SAFETY: the caller guarantees that `center` is an input of `n_center`.
        let center = unsafe { slice("center", center, n_center) }?;
        let width = shared.first().map_or(0, Sae::d_in);
        let expected = n_members.saturating_mul(width);
        if n_vectors != expected {
            return Err(Failure::Length {
                argument: "n_vectors",
                expected,
                found: n_vectors,
            });
        }
        let weighs = flag("weighs", weighs)?;
        let bytes: Vec<u8> = vectors.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = [n_members, width];
        let tensor = Tensor::new("router", Dtype::F32, &shape, Bytes::owned(bytes))?;
        let router = Router {
            matrix: Matrix::new(&tensor, FeatureAxis::First, n_members, width)?,
            center: (!center.is_empty()).then(|| center.to_vec()),
            weighs,
        };
        let handle = Handle::on_heap(Model::new(Sae::routed(shared, router)?))?;
        // SAFETY: the caller guarantees that `ensemble` is an output.
        unsafe { store("ensemble", ensemble, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// How much each feature contributed so far.
pub struct Importance(sae::Importance);

/// The same, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_importance = Handle<Importance>;

impl Kind for Importance {
    const TAG: u64 = u64::from_le_bytes(*b"sae:impo");
    const NAME: &'static str = "sae_importance";
}

/// Nothing seen yet.
///
/// # Safety
/// - `model` is a handle; `importance` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_importance_create(
    model: *const sae_model,
    importance: *mut *mut sae_importance,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `importance` is an output.
        unsafe { store("importance", importance, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let handle = Handle::on_heap(Importance(sae::Importance::new(&model.sae)?))?;
        // SAFETY: the caller guarantees that `importance` is an output.
        unsafe { store("importance", importance, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys it.
///
/// # Safety
/// - `importance` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_importance_destroy(importance: *mut sae_importance) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(importance) };
        Ok(())
    });
}

/// Adds what features contribute.
///
/// # Safety
/// - `importance` and `features` are handles; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_importance_add(
    importance: *mut sae_importance,
    features: *const sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `importance` is a handle.
        let mut importance = unsafe { Handle::exclusive("importance", importance) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        Ok(importance.0.add(&features.0)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// All features in the order of their importance.
///
/// # Safety
/// - `importance` is a handle; `order` (of `n_order`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_importance_order(
    importance: *const sae_importance,
    order: *mut u32,
    n_order: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `importance` is a handle.
        let importance = unsafe { Handle::shared("importance", importance) }?;
        let expected = importance.0.sums().len();
        if n_order != expected {
            return Err(Failure::Length {
                argument: "n_order",
                expected,
                found: n_order,
            });
        }
        // SAFETY: the caller guarantees that `order` is an output of `n_order`.
        let order = unsafe { slice_mut("order", order, n_order) }?;
        order.copy_from_slice(&importance.0.order());
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
