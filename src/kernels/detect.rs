//! Which levels this CPU and its operating system can run: found with `core` alone on x86.

/// Whether AVX2, FMA and F16C can be used.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(super) fn has_avx2() -> bool {
    x86::detected() & x86::AVX2 != 0
}

/// Whether AVX-512 F, BW, VL and DQ can be used, and everything of [`has_avx2`].
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(super) fn has_avx512() -> bool {
    x86::detected() & x86::AVX512 != 0
}

/// Whether AVX-512 VNNI (byte dot products) can be used, and everything of [`has_avx512`].
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(super) fn has_avx512_vnni() -> bool {
    x86::detected() & x86::AVX512_VNNI != 0
}

/// Whether the dot products of signed bytes (`sdot`) can be used.
///
/// AArch64 has no instruction that tells a program of its CPU without the operating system's help,
/// so this is what the build assumes, and with `std` what the standard library finds.
#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    target_endian = "little"
))]
pub(super) fn has_dot_product() -> bool {
    #[cfg(feature = "std")]
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        return true;
    }
    cfg!(target_feature = "dotprod")
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86 {
    #[cfg(target_arch = "x86")]
    use core::arch::x86 as arch;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64 as arch;
    use core::sync::atomic::{AtomicU8, Ordering};

    pub(super) const AVX2: u8 = 1;
    pub(super) const AVX512: u8 = 2;
    pub(super) const AVX512_VNNI: u8 = 4;
    /// Set in the cache once the question has been asked.
    const KNOWN: u8 = 0x80;

    /// The answer of [`detect`], kept for the process. Two threads that ask at the same time find
    /// the same answer, so the race is harmless and the order of no other memory matters.
    static CACHE: AtomicU8 = AtomicU8::new(0);

    pub(super) fn detected() -> u8 {
        let cached = CACHE.load(Ordering::Relaxed);
        if cached != 0 {
            return cached;
        }
        let found = detect() | KNOWN;
        CACHE.store(found, Ordering::Relaxed);
        found
    }

    /// What the build already assumes; all there is to know under Miri, which has no `cpuid`.
    const fn compiled_in() -> u8 {
        let avx2 = cfg!(all(target_feature = "avx2", target_feature = "fma"))
            && cfg!(target_feature = "f16c");
        let avx512 = avx2
            && cfg!(all(target_feature = "avx512f", target_feature = "avx512bw"))
            && cfg!(all(
                target_feature = "avx512vl",
                target_feature = "avx512dq"
            ));
        let vnni = avx512 && cfg!(target_feature = "avx512vnni");
        bits(avx2, avx512, vnni)
    }

    const fn bits(avx2: bool, avx512: bool, vnni: bool) -> u8 {
        (if avx2 { AVX2 } else { 0 })
            | (if avx512 { AVX512 } else { 0 })
            | (if vnni { AVX512_VNNI } else { 0 })
    }

    fn detect() -> u8 {
        if cfg!(miri) {
            return compiled_in();
        }
        let bit = |register: u32, bit: u32| register >> bit & 1 == 1;

        if arch::__cpuid(0).eax < 7 {
            return compiled_in();
        }
        let features = arch::__cpuid(1).ecx;
        let (fma, f16c, osxsave) = (bit(features, 12), bit(features, 29), bit(features, 27));
        if !osxsave {
            return compiled_in();
        }
        // SAFETY: OSXSAVE says that the operating system has enabled `xgetbv`.
        let enabled = unsafe { read_xcr0() };
        let leaf = arch::__cpuid_count(7, 0);
        let extended = leaf.ebx;

        // XCR0: 1 = SSE state, 2 = AVX state, 5..=7 = AVX-512 masks and upper registers.
        let ymm_saved = enabled & 0b110 == 0b110;
        let zmm_saved = ymm_saved && enabled & 0b1110_0000 == 0b1110_0000;

        let avx2 = ymm_saved && fma && f16c && bit(extended, 5);
        // F = 16, DQ = 17, BW = 30, VL = 31
        let avx512 = avx2 && zmm_saved && [16, 17, 30, 31].iter().all(|&n| bit(extended, n));
        compiled_in() | bits(avx2, avx512, avx512 && bit(leaf.ecx, 11))
    }

    /// The register in which the operating system says what state it saves.
    ///
    /// # Safety
    ///
    /// `cpuid` must have reported OSXSAVE.
    #[target_feature(enable = "xsave")]
    unsafe fn read_xcr0() -> u64 {
        // SAFETY: this function's contract.
        unsafe { arch::_xgetbv(0) }
    }
}
