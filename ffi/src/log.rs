//! The log of the host: silent until it asks.

use crate::boundary::value;
use crate::types::*;
use alloc::ffi::CString;
use alloc::string::String;
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A function of the host.
pub(crate) type Callback = unsafe extern "C" fn(sae_log_level, *const c_char, *mut c_void);

/// The function as a number, 0 for none: there is no atomic function pointer.
static CALLBACK: AtomicUsize = AtomicUsize::new(0);
static DATA: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Sets the function that receives messages.
///
/// # Safety
/// - `callback` is NULL or a function that may be called with `data` until another is set.
/// - No other call into the library runs meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_set_log(callback: Option<Callback>, data: *mut c_void) {
    value((), || {
        DATA.store(data, Ordering::Release);
        let number = callback.map_or(0, |function| function as usize);
        CALLBACK.store(number, Ordering::Release);
        Ok(())
    });
}

/// Tells the host, if it listens. The text is made only then.
pub(crate) fn tell(level: sae_log_level, text: impl FnOnce() -> String) {
    let number = CALLBACK.load(Ordering::Acquire);
    if number == 0 {
        return;
    }
    let text = CString::new(text().replace('\0', " ")).unwrap_or_default();
    // SAFETY: the number was stored by `sae_set_log` and is not zero: it is such a function.
    let callback = unsafe { core::mem::transmute::<usize, Callback>(number) };
    let data = DATA.load(Ordering::Acquire);
    // SAFETY: the host guarantees that its function may be called with its data.
    unsafe { callback(level, text.as_ptr(), data) };
}
