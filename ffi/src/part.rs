//! Encoding split over features: a part on each thread, then one finish; by hand, or on the host's
//! own threads.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::features::sae_features;
use crate::float_mode::FloatMode;
use crate::handle::{Handle, Kind};
use crate::memory::{rows as read_rows, slice, store};
use crate::model::sae_model;
use crate::scratch::sae_scratch;
use crate::types::*;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU8, Ordering};

/// What was found in a range of the features.
pub struct Part(sae::Part);

/// A part, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_part = Handle<Part>;

impl Kind for Part {
    const TAG: u64 = u64::from_le_bytes(*b"sae:part");
    const NAME: &'static str = "sae_part";
}

/// Makes an empty part.
///
/// # Safety
/// - `part` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_part_create(
    part: *mut *mut sae_part,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `part` is an output.
        unsafe { store("part", part, null_mut()) }?;
        let handle = Handle::on_heap(Part(sae::Part::new()))?;
        // SAFETY: the caller guarantees that `part` is an output.
        unsafe { store("part", part, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a part.
///
/// # Safety
/// - `part` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_part_destroy(part: *mut sae_part) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(part) };
        Ok(())
    });
}

/// Encodes rows as far as the features of worker `ith` of `nth` go.
///
/// # Safety
/// - `model`, `scratch`, `part` are handles; `rows` is an input and describes one; `error` is an
///   output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode_part(
    model: *const sae_model,
    rows: *const sae_rows,
    ith: usize,
    nth: usize,
    scratch: *mut sae_scratch,
    part: *mut sae_part,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `part` is a handle.
        let mut part = unsafe { Handle::exclusive("part", part) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        if ith >= nth {
            return Err(Failure::Invalid {
                argument: "ith",
                expected: "a number below `nth`",
                found: Found::Unsigned(ith as u64),
            });
        }
        let range = model.sae.part_range(ith, nth);
        let (scratch, part) = (&mut scratch.0, &mut part.0);
        Ok(model.sae.encode_part(rows, range, scratch, part)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Puts parts together.
///
/// # Safety
/// - `model`, `scratch`, `features` and the `n_parts` of `parts` are handles; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode_finish(
    model: *const sae_model,
    parts: *const *const sae_part,
    n_parts: usize,
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
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `parts` is an input of `n_parts`.
        let handles = unsafe { slice("parts", parts, n_parts) }?;
        let mut held = few(n_parts)?;
        for &part in handles {
            // SAFETY: the caller guarantees that every entry is a handle.
            held.push(unsafe { Handle::shared("parts[]", part) }?);
        }
        let mut found: Vec<&sae::Part> = few(n_parts)?;
        found.extend(held.iter().map(|part| &part.0));
        let (scratch, features) = (&mut scratch.0, &mut features.0);
        Ok(model.sae.encode_finish(&found, scratch, features)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// An empty list with room.
fn few<T>(count: usize) -> Result<Vec<T>, Failure> {
    let mut list = Vec::new();
    list.try_reserve_exact(count)
        .map_err(|_| sae::Error::OutOfMemory {
            what: "a list of parts",
            bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    Ok(list)
}

/// The place of one worker.
struct Place {
    /// [`FREE`], [`TAKEN`] or [`DONE`].
    state: AtomicU8,
    inside: UnsafeCell<(sae::Scratch<'static>, sae::Part, Option<Failure>)>,
}

const FREE: u8 = 0;
const TAKEN: u8 = 1;
const DONE: u8 = 2;

// SAFETY: `inside` is reached by whoever took the place, and by the call that gave the places out,
// before it does and after all are done.
unsafe impl Sync for Place {}

/// Work space for several threads.
pub struct Workers(Vec<Place>);

/// Workers, as C holds them.
#[allow(non_camel_case_types)]
pub type sae_workers = Handle<Workers>;

impl Kind for Workers {
    const TAG: u64 = u64::from_le_bytes(*b"sae:work");
    const NAME: &'static str = "sae_workers";
}

/// Most workers.
const MAX_WORKERS: usize = 1024;

/// Makes work space for a number of threads.
///
/// # Safety
/// - `model` is a handle; `workers` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_workers_create(
    model: *const sae_model,
    count: usize,
    workers: *mut *mut sae_workers,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `workers` is an output.
        unsafe { store("workers", workers, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        if !(1..=MAX_WORKERS).contains(&count) {
            return Err(Failure::Invalid {
                argument: "count",
                expected: "1 to 1024",
                found: Found::Unsigned(count as u64),
            });
        }
        let mut places = few(count)?;
        for _ in 0..count {
            let scratch = sae::Scratch::new(&model.sae)?;
            places.push(Place {
                state: AtomicU8::new(FREE),
                inside: UnsafeCell::new((scratch, sae::Part::new(), None)),
            });
        }
        let handle = Handle::on_heap(Workers(places))?;
        // SAFETY: the caller guarantees that `workers` is an output.
        unsafe { store("workers", workers, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys workers.
///
/// # Safety
/// - `workers` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_workers_destroy(workers: *mut sae_workers) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(workers) };
        Ok(())
    });
}

/// A task of the library.
type Task = unsafe extern "C" fn(*mut c_void, usize);
/// A function of the host that runs tasks.
type ParallelFor = unsafe extern "C" fn(*mut c_void, usize, Task, *mut c_void);

/// What a task sees.
struct Job<'j> {
    sae: &'j sae::Sae<'static>,
    rows: sae::Rows<'j>,
    places: &'j [Place],
}

/// Encodes part `index` of a job.
///
/// # Safety
/// - `data` is the job that the library gave, while the call that gave it runs.
unsafe extern "C" fn encode_task(data: *mut c_void, index: usize) {
    // The host's thread has modes of its own.
    let _mode = FloatMode::standard();
    value((), || {
        // SAFETY: the host hands on what it was given, during the call.
        let job = unsafe { &*data.cast::<Job<'_>>() };
        let Some(place) = job.places.get(index) else {
            return Ok(());
        };
        let take = |from, to| {
            place
                .state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
        };
        if take(FREE, TAKEN).is_err() {
            return Ok(());
        }
        // SAFETY: the place was taken by this task alone.
        let (scratch, part, failure) = unsafe { &mut *place.inside.get() };
        let range = job.sae.part_range(index, job.places.len());
        *failure = job
            .sae
            .encode_part(job.rows, range, scratch, part)
            .err()
            .map(Failure::Library);
        // A panic leaves the place taken, which the call then reports.
        place.state.store(DONE, Ordering::Release);
        Ok(())
    });
}

/// Encodes rows on the host's threads.
///
/// # Safety
/// - `model`, `workers`, `features` are handles; `rows` is an input and describes one; `error` is
///   an output.
/// - `parallel_for` is NULL or a function that calls each task during the call, and with `host`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode_parallel(
    model: *const sae_model,
    rows: *const sae_rows,
    parallel_for: Option<ParallelFor>,
    host: *mut c_void,
    workers: *mut sae_workers,
    features: *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        features.0.clear();
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `workers` is a handle.
        let mut workers = unsafe { Handle::exclusive("workers", workers) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        let parallel_for = parallel_for.ok_or(Failure::Null {
            argument: "parallel_for",
        })?;
        for place in &mut workers.0 {
            *place.state.get_mut() = FREE;
            place.inside.get_mut().2 = None;
        }
        let job = Job {
            sae: &model.sae,
            rows,
            places: &workers.0,
        };
        let data = (&raw const job).cast_mut().cast::<c_void>();
        // SAFETY: the host's function, with its data; the job lives until it returns.
        unsafe { parallel_for(host, workers.0.len(), encode_task, data) };
        let done = |place: &Place| place.state.load(Ordering::Acquire) == DONE;
        if let Some(index) = workers.0.iter().position(|place| !done(place)) {
            return Err(Failure::Invalid {
                argument: "parallel_for",
                expected: "a function that runs every task before it returns",
                found: Found::Text(alloc::format!("task {index} not finished")),
            });
        }
        let mut places = workers.0.iter_mut().map(|place| place.inside.get_mut());
        let Some((scratch, first, failure)) = places.next() else {
            return Ok(());
        };
        let mut parts: Vec<&sae::Part> = few(MAX_WORKERS.min(places.len() + 1))?;
        parts.push(first);
        let mut failed = failure.take();
        for (_, part, failure) in places {
            failed = failed.or(failure.take());
            parts.push(part);
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(model.sae.encode_finish(&parts, scratch, &mut features.0)?),
        }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
