//! The one way in and out: every exported function runs its body through here.

use crate::failure::Failure;
use crate::float_mode::FloatMode;
use crate::types::{SAE_STATUS_OK, sae_error, sae_status};
use alloc::string::String;

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
        catch(body).unwrap_or_else(|message| Err(Failure::Panic { message }))
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
        Ok(Ok(value)) => value,
        Ok(Err(_)) | Err(_) => otherwise,
    }
}

/// What a panic said, and where, if the body panicked. Nothing that the body was about to change is
/// looked at again except through handles, whose content stays valid memory.
#[cfg(all(feature = "std", panic = "unwind"))]
fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    quiet::install();
    let _inside = quiet::Inside::enter();
    let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(body));
    outcome.map_err(|_| {
        let said = quiet::said();
        crate::log::tell(crate::types::SAE_LOG_ERROR, || said.clone());
        said
    })
}

/// Where nothing unwinds, a panic ends the process or in the host's handler.
#[cfg(not(all(feature = "std", panic = "unwind")))]
fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    Ok(body())
}

/// The library prints nothing: panics inside of its functions go to the error and to the host's
/// log, and only others to the hook that was there.
#[cfg(all(feature = "std", panic = "unwind"))]
mod quiet {
    use alloc::boxed::Box;
    use alloc::string::{String, ToString};
    use core::cell::{Cell, RefCell};
    use std::sync::Once;

    std::thread_local! {
        /// Calls of this library on the stack of this thread.
        static DEPTH: Cell<u32> = const { Cell::new(0) };
        /// The last panic among them.
        static SAID: RefCell<String> = const { RefCell::new(String::new()) };
    }

    static INSTALLED: Once = Once::new();

    /// A function, not a closure: nothing is allocated for it.
    pub(super) fn install() {
        INSTALLED.call_once(|| std::panic::set_hook(Box::new(hook)));
    }

    fn hook(info: &std::panic::PanicHookInfo<'_>) {
        if DEPTH.with(Cell::get) == 0 {
            // A panic of a program that shares this copy of std, as the tests here do.
            std::eprintln!("{info}");
            return;
        }
        SAID.with(|said| {
            if let Ok(mut said) = said.try_borrow_mut() {
                *said = info.to_string().replace('\n', " ");
            }
        });
    }

    /// Takes what the last panic said.
    pub(super) fn said() -> String {
        let said = SAID.with(|said| said.try_borrow_mut().map(|mut s| core::mem::take(&mut *s)));
        said.unwrap_or_default()
    }

    /// Until dropped, panics of this thread are the library's own.
    pub(super) struct Inside;

    impl Inside {
        pub(super) fn enter() -> Self {
            DEPTH.with(|depth| depth.set(depth.get().saturating_add(1)));
            Inside
        }
    }

    impl Drop for Inside {
        fn drop(&mut self) {
            DEPTH.with(|depth| depth.set(depth.get().saturating_sub(1)));
        }
    }
}

#[cfg(all(test, feature = "std", panic = "unwind"))]
mod tests {
    use super::{call, value};
    use crate::types::{SAE_STATUS_PANIC, sae_error};
    use alloc::string::String;

    #[test]
    #[allow(clippy::panic)]
    fn a_panic_becomes_a_status() {
        let mut error = sae_error::NONE;
        // SAFETY: `error` is a live local.
        let status = unsafe { call(&raw mut error, || panic!("on purpose")) };
        assert_eq!(status, SAE_STATUS_PANIC);
        assert_eq!(error.code, SAE_STATUS_PANIC);
        // What it said, and where.
        let bytes = error.message.map(|byte| byte as u8);
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.contains("on purpose") && text.contains("boundary.rs"),
            "{text}"
        );
        assert_eq!(value(7, || panic!("on purpose")), 7);
    }
}
