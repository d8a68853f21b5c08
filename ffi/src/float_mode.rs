//! The floating-point modes of the calling thread, put aside for the time of a call.
//!
//! Hosts run with flush-to-zero and denormals-are-zero (`-ffast-math` sets them at program start),
//! with other rounding modes, or with unmasked exceptions. The library's results are defined for
//! IEEE defaults: round to nearest, subnormals kept, no traps. [`FloatMode::standard`] sets those
//! and its drop restores the register as it was, exception flags included, so that a call leaves
//! no trace.
//!
//! The compiler may move arithmetic across these instructions only if its operands do not come
//! from memory; all numbers of the library come from memory, and the instructions are memory
//! barriers to the compiler.

/// The caller's modes, restored on drop.
pub(crate) struct FloatMode {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"))]
    saved: register::Control,
}

impl FloatMode {
    /// Saves the modes and sets those of IEEE 754.
    pub(crate) fn standard() -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"))]
        {
            let saved = register::read();
            register::write(register::STANDARD);
            FloatMode { saved }
        }
        // WebAssembly has no such modes. Other targets are left as they are.
        #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
        FloatMode {}
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"))]
impl Drop for FloatMode {
    fn drop(&mut self) {
        register::write(self.saved);
    }
}

/// MXCSR: bits 0-5 exception flags, 6 denormals-are-zero, 7-12 exception masks, 13-14 rounding,
/// 15 flush-to-zero.
#[cfg(any(
    target_arch = "x86_64",
    all(target_arch = "x86", target_feature = "sse")
))]
mod register {
    use core::arch::asm;

    pub(super) type Control = u32;

    /// All exceptions masked, round to nearest, nothing flushed.
    pub(super) const STANDARD: Control = 0x1f80;

    pub(super) fn read() -> Control {
        let mut value: Control = 0;
        // SAFETY: `stmxcsr` stores four bytes to `value`, which is a live local, and changes no
        // other state.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
        }
        value
    }

    pub(super) fn write(value: Control) {
        // SAFETY: `ldmxcsr` loads four bytes from `value`, a live local. The value was read from
        // the register or is `STANDARD`, so no reserved bit is set.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack));
        }
    }
}

/// FPCR: bit 24 flush-to-zero, 22-23 rounding, 25 default NaN, 8-15 trap enables, 0-2 further
/// modes of newer cores. The status register (FPSR) is separate and only accumulates flags.
#[cfg(target_arch = "aarch64")]
mod register {
    use core::arch::asm;

    pub(super) type Control = u64;

    /// Round to nearest, nothing flushed, NaNs propagated, no traps.
    pub(super) const STANDARD: Control = 0;

    pub(super) fn read() -> Control {
        let value: Control;
        // SAFETY: reading FPCR is allowed in user mode and changes nothing.
        unsafe {
            asm!("mrs {}, fpcr", out(reg) value, options(nostack, preserves_flags));
        }
        value
    }

    pub(super) fn write(value: Control) {
        // SAFETY: writing FPCR is allowed in user mode; the value was read from it or is
        // `STANDARD`.
        unsafe {
            asm!("msr fpcr, {}", in(reg) value, options(nostack));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FloatMode, register};

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn modes_are_put_aside_and_restored() {
        // Flush-to-zero, denormals-are-zero, round up, masks as usual.
        let strange = register::STANDARD | 1 << 15 | 1 << 6 | 2 << 13;
        let before = register::read();
        register::write(strange);
        let inside = {
            let _mode = FloatMode::standard();
            register::read()
        };
        let after = register::read();
        register::write(before);
        assert_eq!(inside, register::STANDARD);
        assert_eq!(after, strange);
    }
}
