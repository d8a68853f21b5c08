//! The one way in and out: every exported function runs its body through here.

use crate::failure::Failure;
use crate::float_mode::FloatMode;
use crate::types::{SAE_STATUS_OK, sae_error, sae_status};

/// Runs the body of a function that returns a status: under IEEE floating-point modes, with
/// panics caught, and with the error struct of the caller filled.
///
/// # Safety
/// `error` is NULL or writable.
pub(crate) unsafe fn call(
    error: *mut sae_error,
    body: impl FnOnce() -> Result<(), Failure>,
) -> sae_status {
    let outcome = {
        let _mode = FloatMode::standard();
        catch(body).unwrap_or(Err(Failure::Panic))
    };
    let (status, details) = match outcome {
        Ok(()) => (SAE_STATUS_OK, sae_error::NONE),
        Err(failure) => (failure.status(), failure.to_c()),
    };
    if !error.is_null() {
        // SAFETY: the caller guarantees that a non-NULL `error` is writable.
        unsafe { error.write_unaligned(details) };
    }
    status
}

/// Runs the body of a function that cannot fail and returns a value: `otherwise` stands for
/// whatever goes wrong.
pub(crate) fn value<T>(otherwise: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    match catch(body) {
        Some(Ok(value)) => value,
        Some(Err(_)) | None => otherwise,
    }
}

/// `None` if the body panicked. Nothing that the body was about to change is looked at again
/// except through handles, whose content stays valid memory.
#[cfg(feature = "std")]
fn catch<T>(body: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(body)).ok()
}

/// Without std there is no unwinding: a panic ends in the host's handler.
#[cfg(not(feature = "std"))]
fn catch<T>(body: impl FnOnce() -> T) -> Option<T> {
    Some(body())
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::{call, value};
    use crate::types::{SAE_STATUS_PANIC, sae_error};

    #[test]
    #[allow(clippy::panic)]
    fn a_panic_becomes_a_status() {
        let mut error = sae_error::NONE;
        // SAFETY: `error` is a live local.
        let status = unsafe { call(&raw mut error, || panic!("on purpose")) };
        assert_eq!(status, SAE_STATUS_PANIC);
        assert_eq!(error.code, SAE_STATUS_PANIC);
        assert_eq!(value(7, || panic!("on purpose")), 7);
    }
}
