//! Handles: heap objects that C holds by pointer. The first word is a tag that tells the kinds
//! apart; a flag keeps two threads out of an object that belongs to one.

use crate::failure::Failure;
use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicI32, Ordering};

/// What can be held through a handle.
pub(crate) trait Kind {
    /// The first word of every handle of this kind.
    const TAG: u64;
    /// The C type.
    const NAME: &'static str;
}

/// The first word of a handle that was destroyed: a chance, no promise, to notice its use.
const DEAD: u64 = u64::from_le_bytes(*b"sae:dead");

/// A tagged object. C sees a pointer to it.
#[repr(C)]
pub struct Handle<T> {
    tag: u64,
    /// Number of shared leases, or -1 for an exclusive one.
    leases: AtomicI32,
    /// Whether the handle lies in memory of the caller.
    in_caller_memory: bool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by `&T` through `shared` and `borrow`, and by `&mut T` through
// `exclusive`, which excludes the others by `leases` or by contract.
unsafe impl<T: Send + Sync> Sync for Handle<T> {}

#[allow(private_bounds)]
impl<T: Kind> Handle<T> {
    fn new(value: T, in_caller_memory: bool) -> Self {
        Handle {
            tag: T::TAG,
            leases: AtomicI32::new(0),
            in_caller_memory,
            value: UnsafeCell::new(value),
        }
    }

    /// Moves a value to the heap, as a handle.
    pub(crate) fn on_heap(value: T) -> Result<*mut Self, Failure> {
        let layout = Layout::new::<Self>();
        // SAFETY: the layout is not empty: it holds the tag.
        let place = unsafe { alloc(layout) }.cast::<Self>();
        if place.is_null() {
            return Err(Failure::Library(sae::Error::OutOfMemory {
                what: T::NAME,
                bytes: layout.size() as u64,
            }));
        }
        // SAFETY: `place` was just allocated with the layout of `Self`.
        unsafe { place.write(Handle::new(value, false)) };
        Ok(place)
    }

    /// Moves a value into memory of the caller, as a handle.
    ///
    /// # Safety
    /// `place` is aligned and writable for `Self`, and stays the handle's until it is destroyed.
    pub(crate) unsafe fn in_place(place: *mut Self, value: T) -> *mut Self {
        // SAFETY: the caller guarantees it.
        unsafe { place.write(Handle::new(value, true)) };
        place
    }

    /// The handle behind a pointer from C, if it is one of this kind.
    ///
    /// # Safety
    /// `pointer` is NULL or a handle of any kind, see the crate's notes, for as long as `'h`.
    unsafe fn from_c<'h>(
        argument: &'static str,
        pointer: *const Self,
    ) -> Result<&'h Self, Failure> {
        if pointer.is_null() {
            return Err(Failure::Null { argument });
        }
        let wrong = Failure::WrongHandle { expected: T::NAME };
        if !pointer.is_aligned() {
            return Err(wrong);
        }
        // SAFETY: every kind of handle is aligned and begins with its tag.
        if unsafe { pointer.cast::<u64>().read() } != T::TAG {
            return Err(wrong);
        }
        // SAFETY: the tag says that it is a live `Self`, which is only reached by shared
        // references: the value inside is an `UnsafeCell`.
        Ok(unsafe { &*pointer })
    }

    /// The value of a handle whose kind is immutable while it lives (models, sets).
    ///
    /// # Safety
    /// As for [`Handle::from_c`]; nobody has [`Handle::sole`] access during `'h`.
    pub(crate) unsafe fn borrow<'h>(
        argument: &'static str,
        pointer: *const Self,
    ) -> Result<&'h T, Failure> {
        // SAFETY: the caller guarantees what `from_c` needs.
        let handle = unsafe { Self::from_c(argument, pointer) }?;
        // SAFETY: immutable kinds are changed only through `sole`, which the caller excludes.
        Ok(unsafe { &*handle.value.get() })
    }

    /// The value of an immutable kind, to change it.
    ///
    /// # Safety
    /// As for [`Handle::from_c`]; nobody else uses the handle during `'h`.
    pub(crate) unsafe fn sole<'h>(
        argument: &'static str,
        pointer: *mut Self,
    ) -> Result<&'h mut T, Failure> {
        // SAFETY: the caller guarantees what `from_c` needs.
        let handle = unsafe { Self::from_c(argument, pointer) }?;
        // SAFETY: the caller guarantees that nobody else uses the handle.
        Ok(unsafe { &mut *handle.value.get() })
    }

    /// Read access to a handle that belongs to one call at a time.
    ///
    /// # Safety
    /// As for [`Handle::from_c`].
    pub(crate) unsafe fn shared<'h>(
        argument: &'static str,
        pointer: *const Self,
    ) -> Result<Shared<'h, T>, Failure> {
        // SAFETY: the caller guarantees what `from_c` needs.
        let handle = unsafe { Self::from_c(argument, pointer) }?;
        let add = |leases: i32| leases.checked_add(1).filter(|_| leases >= 0);
        match handle
            .leases
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, add)
        {
            Ok(_) => Ok(Shared { handle }),
            Err(_) => Err(Failure::InUse { kind: T::NAME }),
        }
    }

    /// Write access to a handle that belongs to one call at a time.
    ///
    /// # Safety
    /// As for [`Handle::from_c`].
    pub(crate) unsafe fn exclusive<'h>(
        argument: &'static str,
        pointer: *mut Self,
    ) -> Result<Exclusive<'h, T>, Failure> {
        // SAFETY: the caller guarantees what `from_c` needs.
        let handle = unsafe { Self::from_c(argument, pointer) }?;
        match handle
            .leases
            .compare_exchange(0, -1, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => Ok(Exclusive { handle }),
            Err(_) => Err(Failure::InUse { kind: T::NAME }),
        }
    }

    /// Destroys a handle. NULL and handles of another kind are left alone.
    ///
    /// # Safety
    /// As for [`Handle::from_c`]; nobody uses the handle, now or later.
    pub(crate) unsafe fn destroy(pointer: *mut Self) {
        // SAFETY: the caller guarantees what `from_c` needs.
        let Ok(handle) = (unsafe { Self::from_c("", pointer) }) else {
            return;
        };
        let in_caller_memory = handle.in_caller_memory;
        // SAFETY: the handle is live and this is its last use. Volatile, so that the store is
        // made although the memory is given back.
        unsafe { pointer.cast::<u64>().write_volatile(DEAD) };
        if in_caller_memory {
            // SAFETY: `in_place` wrote a `Self` there and nobody uses it any more.
            unsafe { pointer.drop_in_place() };
        } else {
            // SAFETY: `on_heap` allocated it with the global allocator and the layout of `Self`,
            // as a `Box` does.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}

/// Read access, until dropped.
pub(crate) struct Shared<'h, T> {
    handle: &'h Handle<T>,
}

impl<T> Deref for Shared<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lease keeps exclusive access out.
        unsafe { &*self.handle.value.get() }
    }
}

impl<T> Drop for Shared<'_, T> {
    fn drop(&mut self) {
        self.handle.leases.fetch_sub(1, Ordering::Release);
    }
}

/// Write access, until dropped.
pub(crate) struct Exclusive<'h, T> {
    handle: &'h Handle<T>,
}

impl<T> Deref for Exclusive<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lease keeps all other access out.
        unsafe { &*self.handle.value.get() }
    }
}

impl<T> DerefMut for Exclusive<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lease keeps all other access out.
        unsafe { &mut *self.handle.value.get() }
    }
}

impl<T> Drop for Exclusive<'_, T> {
    fn drop(&mut self) {
        self.handle.leases.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, Handle, Kind};

    struct First(u32);
    struct Second;

    impl Kind for First {
        const TAG: u64 = 1;
        const NAME: &'static str = "first";
    }

    impl Kind for Second {
        const TAG: u64 = 2;
        const NAME: &'static str = "second";
    }

    #[test]
    fn leases_exclude_each_other_and_end() {
        let first = Handle::on_heap(First(5)).unwrap_or(core::ptr::null_mut());
        // SAFETY: `first` is live until it is destroyed.
        let write = || unsafe { Handle::exclusive("a", first) };
        // SAFETY: as above.
        let read = || unsafe { Handle::shared("a", first) };
        let writing = write();
        assert!(writing.is_ok());
        assert!(matches!(write(), Err(Failure::InUse { .. })));
        assert!(matches!(read(), Err(Failure::InUse { .. })));
        drop(writing);
        let readings = [read(), read()];
        assert!(readings.iter().flatten().map(|value| value.0).eq([5, 5]));
        assert!(matches!(write(), Err(Failure::InUse { .. })));
        drop(readings);
        assert!(write().is_ok());
        // SAFETY: `first` is live and not used again.
        unsafe { Handle::destroy(first) };
    }

    #[test]
    fn another_kind_is_refused_and_left_alone() {
        let first = Handle::on_heap(First(5)).unwrap_or(core::ptr::null_mut());
        let wrong = first.cast::<Handle<Second>>();
        // SAFETY: a live handle of another kind is allowed.
        let refused = unsafe { Handle::borrow("a", wrong) };
        assert!(matches!(refused, Err(Failure::WrongHandle { .. })));
        // SAFETY: as above.
        unsafe { Handle::destroy(wrong) };
        // SAFETY: `first` is live.
        let found = unsafe { Handle::borrow("a", first) };
        assert!(found.is_ok_and(|value| value.0 == 5));
        // SAFETY: `first` is live and not used again.
        unsafe { Handle::destroy(first) };
    }
}
