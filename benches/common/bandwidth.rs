//! This machine's single-thread read bandwidth, so that a kernel's time can be told as a share of
//! the best that reading its bytes could take.
//!
//! Several plain readers (one to eight streams, with and without prefetch, widest loads that the
//! CPU has) run over a buffer much larger than the caches; the fastest pass of the fastest reader
//! counts. Kernels are compared with that figure only.

#![allow(unsafe_code)] // a call of a function that needs a detected feature, and its loads

use std::hint::black_box;
use std::time::Instant;

/// Reads `buffer` `passes` times with each reader and returns the bytes per second
/// of the best one.
pub(crate) fn measure(buffer: &[u8], passes: usize) -> f64 {
    let mut best: f64 = 0.0;
    for _ in 0..passes {
        for ahead in [0, 512, 1024, 2048, 4096] {
            for streams in [1, 2, 4, 8] {
                let start = Instant::now();
                let bytes = match streams {
                    1 => read::<1>(buffer, ahead),
                    2 => read::<2>(buffer, ahead),
                    4 => read::<4>(buffer, ahead),
                    _ => read::<8>(buffer, ahead),
                };
                best = best.max(bytes as f64 / start.elapsed().as_secs_f64());
            }
        }
    }
    best
}

/// Reads `STREAMS` equal parts of `buffer` side by side; returns how many bytes that were.
fn read<const STREAMS: usize>(buffer: &[u8], ahead: usize) -> usize {
    let (lines, _) = buffer.as_chunks::<64>();
    let part = lines.len() / STREAMS;
    let streams = std::array::from_fn(|stream| &lines[stream * part..][..part]);
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if std::is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected on the line above.
        black_box(unsafe { x86::read_avx512::<STREAMS>(streams, ahead) });
        return STREAMS * part * 64;
    }
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected on the line above.
        black_box(unsafe { x86::read_avx2::<STREAMS>(streams, ahead) });
        return STREAMS * part * 64;
    }
    black_box((read_plain::<STREAMS>(streams), ahead));
    STREAMS * part * 64
}

/// For machines without a reader of their own.
fn read_plain<const STREAMS: usize>(streams: [&[[u8; 64]]; STREAMS]) -> u64 {
    let mut seen = [0u64; 8];
    for i in 0..streams[0].len() {
        for stream in &streams {
            for (seen, word) in seen.iter_mut().zip(stream[i].as_chunks::<8>().0) {
                *seen |= u64::from_ne_bytes(*word);
            }
        }
    }
    seen.iter().fold(0, |all, seen| all | seen)
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86 {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::*;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub(super) fn read_avx512<const STREAMS: usize>(
        streams: [&[[u8; 64]]; STREAMS],
        ahead: usize,
    ) -> bool {
        let mut seen = [_mm512_setzero_si512(); STREAMS];
        for i in 0..streams[0].len() {
            for (seen, stream) in seen.iter_mut().zip(&streams) {
                let line = stream[i].as_ptr();
                if ahead != 0 {
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(ahead).cast());
                }
                // SAFETY: the line has the 64 bytes that are read, at any alignment.
                *seen = _mm512_or_si512(*seen, unsafe { _mm512_loadu_si512(line.cast()) });
            }
        }
        let mut any = _mm512_setzero_si512();
        for seen in seen {
            any = _mm512_or_si512(any, seen);
        }
        _mm512_test_epi64_mask(any, any) != 0
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn read_avx2<const STREAMS: usize>(
        streams: [&[[u8; 64]]; STREAMS],
        ahead: usize,
    ) -> bool {
        let mut seen = [_mm256_setzero_si256(); STREAMS];
        for i in 0..streams[0].len() {
            for (seen, stream) in seen.iter_mut().zip(&streams) {
                let line = stream[i].as_ptr();
                if ahead != 0 {
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(ahead).cast());
                }
                for half in stream[i].as_chunks::<32>().0 {
                    // SAFETY: the half has the 32 bytes that are read, at any alignment.
                    let half = unsafe { _mm256_loadu_si256(half.as_ptr().cast()) };
                    *seen = _mm256_or_si256(*seen, half);
                }
            }
        }
        let mut any = _mm256_setzero_si256();
        for seen in seen {
            any = _mm256_or_si256(any, seen);
        }
        _mm256_testz_si256(any, any) == 0
    }
}
