//! This machine's single-thread read bandwidth, so that a kernel's time can be told as a share of
//! the best that reading its bytes could take.
//!
//! Several plain readers (one to eight streams, with and without prefetch, widest loads that the
//! CPU has) run over a buffer much larger than the caches, or over pieces of it that were not read
//! just before, as large as what a call reads: a few kilobytes are over before the memory is up to
//! speed. The best reader counts. Kernels are compared with these figures only.

#![allow(unsafe_code)] // a call of a function that needs a detected feature, and its loads

use std::hint::black_box;
use std::time::{Duration, Instant};

/// The best over all readers, each given `time`, of the median speed (bytes per second) of a read of
/// `bytes` bytes; `read` is told how far ahead to fetch, how many streams to read and the number of
/// the call.
fn best(bytes: usize, time: Duration, mut read: impl FnMut(usize, usize, usize)) -> f64 {
    let mut best: f64 = 0.0;
    let mut number = 0;
    for ahead in AHEAD {
        for streams in STREAMS {
            let mut samples = Vec::new();
            let start = Instant::now();
            while samples.len() < 3 || start.elapsed() < time {
                let start = Instant::now();
                read(ahead, streams, number);
                samples.push(start.elapsed().as_secs_f64());
                number += 1;
            }
            samples.sort_by(f64::total_cmp);
            best = best.max(bytes as f64 / samples[samples.len() / 2]);
        }
    }
    best
}

/// How far ahead the readers fetch, in bytes of each stream.
const AHEAD: [usize; 6] = [0, 256, 512, 1024, 2048, 4096];
/// How many streams they read side by side.
const STREAMS: [usize; 5] = [1, 2, 4, 8, 16];

/// Reads pieces of `bytes` bytes from all over `buffer`.
pub(crate) fn of_size(buffer: &[u8], bytes: usize, time: Duration) -> f64 {
    let pieces = (buffer.len() / bytes).max(1);
    // Far from the one before, and none a second time before all had their turn.
    let step = (pieces * 5 / 8..).find(|&step| gcd(step, pieces) == 1);
    let step = step.unwrap_or(1);
    best(bytes, time, |ahead, streams, number| {
        let piece = (number % pieces * step) % pieces;
        let start = (piece * bytes).min(buffer.len());
        let end = (start + bytes).min(buffer.len());
        read_in(streams, &buffer[start..end], ahead);
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Reads rows of `bytes` bytes: `row(number, i)` is row `i` of those that call `number` asks for,
/// for `i` below `count`. Several are read side by side.
pub(crate) fn of_rows<'m>(
    count: usize,
    bytes: usize,
    time: Duration,
    row: impl Fn(usize, usize) -> &'m [u8],
) -> f64 {
    best(
        count * bytes,
        time,
        |ahead, streams, number| match streams {
            1 => read_rows::<1>(count, ahead, |i| row(number, i)),
            2 => read_rows::<2>(count, ahead, |i| row(number, i)),
            4 => read_rows::<4>(count, ahead, |i| row(number, i)),
            8 => read_rows::<8>(count, ahead, |i| row(number, i)),
            _ => read_rows::<16>(count, ahead, |i| row(number, i)),
        },
    )
}

fn read_rows<'m, const TOGETHER: usize>(
    count: usize,
    ahead: usize,
    row: impl Fn(usize) -> &'m [u8],
) {
    for first in (0..count).step_by(TOGETHER) {
        let group = |first: usize| -> [&[[u8; 64]]; TOGETHER] {
            std::array::from_fn(|i| row((first + i).min(count - 1)).as_chunks().0)
        };
        let next = group((first + TOGETHER).min(count - 1)).map(|row| row.as_ptr().cast());
        read_streams(group(first), next, ahead);
    }
}

/// Reads `buffer` `passes` times with each reader and returns the bytes per second
/// of the best one.
pub(crate) fn measure(buffer: &[u8], passes: usize) -> f64 {
    let mut best: f64 = 0.0;
    for _ in 0..passes {
        for ahead in AHEAD {
            for streams in STREAMS {
                let start = Instant::now();
                let bytes = read_in(streams, buffer, ahead);
                best = best.max(bytes as f64 / start.elapsed().as_secs_f64());
            }
        }
    }
    best
}

fn read_in(streams: usize, buffer: &[u8], ahead: usize) -> usize {
    match streams {
        1 => read::<1>(buffer, ahead),
        2 => read::<2>(buffer, ahead),
        4 => read::<4>(buffer, ahead),
        8 => read::<8>(buffer, ahead),
        _ => read::<16>(buffer, ahead),
    }
}

/// Reads `PARTS` equal parts of `buffer` side by side; returns how many bytes that were.
fn read<const PARTS: usize>(buffer: &[u8], ahead: usize) -> usize {
    let (lines, _) = buffer.as_chunks::<64>();
    let part = lines.len() / PARTS;
    let streams = std::array::from_fn(|stream| &lines[stream * part..][..part]);
    read_streams::<PARTS>(streams, streams.map(|s| s.as_ptr_range().end.cast()), ahead);
    PARTS * part * 64
}

/// Reads streams of equal length side by side. Fetches go on at `next` after their ends.
fn read_streams<const STREAMS: usize>(
    streams: [&[[u8; 64]]; STREAMS],
    next: [*const u8; STREAMS],
    ahead: usize,
) {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if std::is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected on the line above.
        black_box(unsafe { x86::read_avx512::<STREAMS>(streams, next, ahead) });
        return;
    }
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected on the line above.
        black_box(unsafe { x86::read_avx2::<STREAMS>(streams, next, ahead) });
        return;
    }
    black_box((read_plain::<STREAMS>(streams), next, ahead));
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

    /// The address that is `at` bytes after the start of the stream, or after its end at `next`.
    #[inline(always)]
    fn at_or_next(stream: &[[u8; 64]], next: *const u8, at: usize) -> *const u8 {
        let bytes = stream.as_flattened();
        match bytes.get(at) {
            Some(byte) => byte,
            None => next.wrapping_add(at - bytes.len()),
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn read_avx512<const STREAMS: usize>(
        streams: [&[[u8; 64]]; STREAMS],
        next: [*const u8; STREAMS],
        ahead: usize,
    ) -> bool {
        let mut seen = [_mm512_setzero_si512(); STREAMS];
        for i in 0..streams[0].len() {
            for ((seen, stream), next) in seen.iter_mut().zip(&streams).zip(next) {
                let line = stream[i].as_ptr();
                if ahead != 0 {
                    _mm_prefetch::<_MM_HINT_T0>(at_or_next(stream, next, i * 64 + ahead).cast());
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
        next: [*const u8; STREAMS],
        ahead: usize,
    ) -> bool {
        let mut seen = [_mm256_setzero_si256(); STREAMS];
        for i in 0..streams[0].len() {
            for ((seen, stream), next) in seen.iter_mut().zip(&streams).zip(next) {
                if ahead != 0 {
                    _mm_prefetch::<_MM_HINT_T0>(at_or_next(stream, next, i * 64 + ahead).cast());
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
