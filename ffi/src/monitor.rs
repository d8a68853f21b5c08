//! Monitors. `include/sae_monitor.h`.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{
    addresses, apart, bytes as read_bytes, load_sized, rows as read_rows, slice, slice_mut, store,
    store_sized,
};
use crate::model::sae_model;
use crate::monitor_events::{Rules, fits, sae_rules, to_c};
use crate::quality::{give_bytes, give_text};
use crate::scratch::sae_scratch;
use crate::types::*;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use sae::monitor::{self, Accumulator, Bins, Collect, Event, MonitorOptions, RowInfo, Unseen};

/// A monitor, and who hears of its events.
pub struct Monitor {
    monitor: monitor::Monitor,
    infos: Vec<RowInfo>,
    on_event: OnEvent,
}

/// The callback of the host.
#[derive(Clone, Copy)]
struct OnEvent {
    function: sae_on_event,
    context: *mut c_void,
}

/// A monitor, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_monitor = Handle<Monitor>;

impl Kind for Monitor {
    const TAG: u64 = u64::from_le_bytes(*b"sae:moni");
    const NAME: &'static str = "sae_monitor";
}

impl OnEvent {
    /// Tells the host.
    fn tell(self, event: &Event) {
        if let Some(function) = self.function {
            let event = to_c(event);
            // SAFETY: the host gave the function and its context for this, for as long as the
            // monitor lives; the event is a local.
            unsafe { function(&raw const event, self.context) };
        }
    }
}

/// Makes a monitor.
///
/// # Safety
/// - `model` and `rules` are handles; `options` is NULL or an input with its size, whose `ring` is
///   NULL or a handle; `monitor` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_create(
    model: *const sae_model,
    rules: *const sae_rules,
    options: *const sae_monitor_options,
    monitor: *mut *mut sae_monitor,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is an output.
        unsafe { store("monitor", monitor, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `rules` is a handle.
        let rules = unsafe { Handle::borrow("rules", rules) }?;
        let collect = |features: Option<&[u32]>| match features {
            Some(features) => Collect::features(&model.sae, features),
            None => Collect::all(&model.sae),
        };
        // SAFETY: the caller guarantees what `options` is.
        let handle = unsafe { make(rules, options, &collect) }?;
        // SAFETY: the caller guarantees that `monitor` is an output.
        unsafe { store("monitor", monitor, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// A monitor; `collect` says what statistics of some or all features of the model are.
///
/// # Safety
/// - `options` is NULL or an input with its size, whose `ring` is NULL or a handle.
pub(crate) unsafe fn make(
    rules: &Rules,
    options: *const sae_monitor_options,
    collect: &dyn Fn(Option<&[u32]>) -> Collect,
) -> Result<*mut sae_monitor, Failure> {
    let mut made = MonitorOptions::default();
    let mut on_event = OnEvent {
        function: None,
        context: null_mut(),
    };
    if !options.is_null() {
        // SAFETY: not NULL; the caller guarantees that it holds its size.
        let given = unsafe { load_sized("options", MONITOR_OPTIONS_SIZE_1, options) }?;
        made.unseen = match given.unseen {
            SAE_UNSEEN_EVICT => Unseen::Evict,
            SAE_UNSEEN_REFUSE => Unseen::Refuse,
            other => return Err(invalid("options.unseen", "one of SAE_UNSEEN_...", other)),
        };
        made.collect = match given.collect {
            SAE_COLLECT_NONE => None,
            SAE_COLLECT_WATCHED => Some(collect(Some(rules.rules.features())).top(given.top)),
            SAE_COLLECT_ALL => Some(collect(None).top(given.top)),
            other => return Err(invalid("options.collect", "one of SAE_COLLECT_...", other)),
        };
        match (given.histogram, given.reserved) {
            (0, 0) => {}
            (1, 0) => {
                made.collect = made.collect.map(|collect| collect.histogram(Bins::USUAL));
            }
            (found, reserved) => {
                return Err(Failure::Invalid {
                    argument: "options.histogram",
                    expected: "0 or 1, and 0 in `reserved`",
                    found: Found::Unsigned(found.max(reserved).into()),
                });
            }
        }
        if given.streams > 0 {
            made.streams = given.streams;
        }
        made.pending_rows = given.pending_rows;
        if given.pending_features > 0 {
            made.pending_features = given.pending_features;
        }
        if !given.ring.is_null() {
            // SAFETY: not NULL; the caller guarantees that it is a handle.
            let ring = unsafe { Handle::borrow("options.ring", given.ring) }?;
            made.ring = Some(ring.0.clone());
        }
        on_event = OnEvent {
            function: given.on_event,
            context: given.context,
        };
    }
    Handle::on_heap(Monitor {
        monitor: monitor::Monitor::new(rules.rules.clone(), &made)?,
        infos: Vec::new(),
        on_event,
    })
}

fn invalid(argument: &'static str, expected: &'static str, found: i32) -> Failure {
    Failure::Invalid {
        argument,
        expected,
        found: Found::Signed(found.into()),
    }
}

/// Destroys a monitor.
///
/// # Safety
/// - `monitor` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_destroy(monitor: *mut sae_monitor) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(monitor) };
        Ok(())
    });
}

/// Reads what C knows about rows.
///
/// # Safety
/// - `infos` is an input of `n_infos`.
unsafe fn read_infos(
    infos: *const sae_monitor_row,
    n_infos: usize,
    to: &mut Vec<RowInfo>,
) -> Result<(), Failure> {
    // SAFETY: the caller guarantees that `infos` is an input of `n_infos`.
    let read = unsafe { slice("infos", infos, n_infos) }?;
    to.clear();
    to.try_reserve(read.len())
        .map_err(|_| sae::Error::OutOfMemory {
            what: "infos of rows",
            bytes: size_of_val(read) as u64,
        })?;
    for info in read {
        if info.flags > 1 || info.reserved != 0 {
            return Err(Failure::Invalid {
                argument: "infos.flags",
                expected: "SAE_ROW_HAS_SIGNAL or 0, and 0 in `reserved`",
                found: Found::Unsigned(info.flags.max(info.reserved).into()),
            });
        }
        let row = RowInfo::new(info.stream, info.position);
        to.push(match info.flags {
            0 => row,
            _ => row.signal(info.signal),
        });
    }
    Ok(())
}

/// Watches rows.
///
/// # Safety
/// - `model`, `monitor`, `scratch` are handles; `rows` is an input and describes one; `infos` is an
///   input of `n_infos`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_observe(
    model: *const sae_model,
    monitor: *mut sae_monitor,
    rows: *const sae_rows,
    infos: *const sae_monitor_row,
    n_infos: usize,
    scratch: *mut sae_scratch,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `take_rows` needs.
    unsafe {
        take_rows(
            model,
            monitor,
            rows,
            (infos, n_infos),
            scratch,
            false,
            error,
        )
    }
}

/// Takes rows that may yet be rejected.
///
/// # Safety
/// - As for [`sae_monitor_observe`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_propose(
    model: *const sae_model,
    monitor: *mut sae_monitor,
    rows: *const sae_rows,
    infos: *const sae_monitor_row,
    n_infos: usize,
    scratch: *mut sae_scratch,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `take_rows` needs.
    unsafe { take_rows(model, monitor, rows, (infos, n_infos), scratch, true, error) }
}

/// # Safety
/// - As for [`sae_monitor_observe`].
unsafe fn take_rows(
    model: *const sae_model,
    monitor: *mut sae_monitor,
    rows: *const sae_rows,
    (infos, n_infos): (*const sae_monitor_row, usize),
    scratch: *mut sae_scratch,
    propose: bool,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let mut monitor = unsafe { Handle::exclusive("monitor", monitor) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        let Monitor {
            monitor,
            infos: read,
            on_event,
        } = &mut *monitor;
        // SAFETY: the caller guarantees that `infos` is an input of `n_infos`.
        unsafe { read_infos(infos, n_infos, read) }?;
        let (sae, scratch) = (&model.sae, &mut scratch.0);
        Ok(match propose {
            true => monitor.propose(sae, rows, read, scratch),
            false => monitor.observe(sae, rows, read, scratch, &mut |event| on_event.tell(event)),
        }?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Watches rows whose features are known.
///
/// # Safety
/// - `monitor` and `features` are handles; `infos` is an input of `n_infos`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_observe_features(
    monitor: *mut sae_monitor,
    features: *const sae_features,
    infos: *const sae_monitor_row,
    n_infos: usize,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `take_features` needs.
    unsafe { take_features(monitor, features, infos, n_infos, false, error) }
}

/// Takes rows whose features are known, and which may yet be rejected.
///
/// # Safety
/// - As for [`sae_monitor_observe_features`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_propose_features(
    monitor: *mut sae_monitor,
    features: *const sae_features,
    infos: *const sae_monitor_row,
    n_infos: usize,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `take_features` needs.
    unsafe { take_features(monitor, features, infos, n_infos, true, error) }
}

/// # Safety
/// - As for [`sae_monitor_observe_features`].
unsafe fn take_features(
    monitor: *mut sae_monitor,
    features: *const sae_features,
    infos: *const sae_monitor_row,
    n_infos: usize,
    propose: bool,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let mut monitor = unsafe { Handle::exclusive("monitor", monitor) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        let Monitor {
            monitor,
            infos: read,
            on_event,
        } = &mut *monitor;
        // SAFETY: the caller guarantees that `infos` is an input of `n_infos`.
        unsafe { read_infos(infos, n_infos, read) }?;
        Ok(match propose {
            true => monitor.propose_features(&features.0, read),
            false => monitor.observe_features(&features.0, read, &mut |event| on_event.tell(event)),
        }?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Watches the first waiting rows of a stream.
///
/// # Safety
/// - `monitor` is a handle; `committed` is NULL or an output; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_commit(
    monitor: *mut sae_monitor,
    stream: u64,
    n_rows: usize,
    committed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let mut monitor = unsafe { Handle::exclusive("monitor", monitor) }?;
        let on_event = monitor.on_event;
        let tell = &mut |event: &Event| on_event.tell(event);
        let found = monitor.monitor.commit(stream, n_rows, tell);
        if committed.is_null() {
            return Ok(());
        }
        // SAFETY: not NULL; the caller guarantees that it is an output.
        unsafe { store("committed", committed, found) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Forgets the last waiting rows of a stream.
///
/// # Safety
/// - `monitor` is a handle; `rolled_back` is NULL or an output; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_rollback(
    monitor: *mut sae_monitor,
    stream: u64,
    n_rows: usize,
    rolled_back: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let mut monitor = unsafe { Handle::exclusive("monitor", monitor) }?;
        let found = monitor.monitor.rollback(stream, n_rows);
        if rolled_back.is_null() {
            return Ok(());
        }
        // SAFETY: not NULL; the caller guarantees that it is an output.
        unsafe { store("rolled_back", rolled_back, found) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Forgets a stream.
///
/// # Safety
/// - `monitor` is a handle; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_end_stream(
    monitor: *mut sae_monitor,
    stream: u64,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let mut monitor = unsafe { Handle::exclusive("monitor", monitor) }?;
        monitor.monitor.end_stream(stream);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// What a monitor has done.
///
/// # Safety
/// - `monitor` is a handle; `counts` is an output with its size; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_count(
    monitor: *const sae_monitor,
    counts: *mut sae_monitor_counts,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        let found = monitor.monitor.counts();
        let answer = sae_monitor_counts {
            struct_size: 0,
            streams: monitor.monitor.streams() as u32,
            rows: found.rows,
            non_finite: found.non_finite,
            rolled_back: found.rolled_back,
            refused: found.refused,
            evicted: found.evicted,
            events: found.events,
            suppressed: found.suppressed,
            bytes: monitor.monitor.bytes(),
        };
        // SAFETY: the caller guarantees that `counts` is an output with its size.
        unsafe { store_sized("counts", MONITOR_COUNTS_SIZE_1, counts, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Alerts of one rule.
///
/// # Safety
/// - `monitor` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_rule_events(monitor: *const sae_monitor, index: usize) -> u64 {
    value(0, || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        Ok(monitor.monitor.rule_counts(index).0)
    })
}

/// The statistics of a monitor, if it collects any.
fn statistics(monitor: &Monitor) -> Result<&Accumulator, Failure> {
    monitor.monitor.statistics().ok_or(Failure::Invalid {
        argument: "monitor",
        expected: "one that collects statistics",
        found: Found::Text("one that does not".into()),
    })
}

/// What is known of a feature.
///
/// # Safety
/// - `monitor` is a handle; `summary` is an output with its size; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_feature(
    monitor: *const sae_monitor,
    feature: u32,
    summary: *mut sae_feature_summary,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        let statistics = statistics(&monitor)?;
        let found = statistics.feature(feature).ok_or(Failure::Invalid {
            argument: "feature",
            expected: "one that statistics are collected of",
            found: Found::Unsigned(feature.into()),
        })?;
        let answer = sae_feature_summary {
            struct_size: 0,
            feature,
            rows: statistics.rows(),
            fired: found.fired,
            mean: found.mean,
            variance: found.variance,
            max: found.max,
            min: found.min,
            max_stream: found.max_at.stream,
            max_position: found.max_at.position,
        };
        // SAFETY: the caller guarantees that `summary` is an output with its size.
        unsafe { store_sized("summary", FEATURE_SUMMARY_SIZE_1, summary, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The features that never fired.
///
/// # Safety
/// - `monitor` is a handle; `features` (of `n_features`), `count` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_dead(
    monitor: *const sae_monitor,
    features: *mut u32,
    n_features: usize,
    count: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        let dead = statistics(&monitor)?.dead();
        apart(
            ("features", addresses(features, n_features)),
            ("count", addresses(count, 1)),
        )?;
        // SAFETY: the caller guarantees that `count` is an output.
        unsafe { store("count", count, dead.len()) }?;
        if n_features > 0 && n_features < dead.len() {
            return Err(Failure::Length {
                argument: "n_features",
                expected: dead.len(),
                found: n_features,
            });
        }
        // SAFETY: the caller guarantees that `features` is an output of `n_features`.
        let features = unsafe { slice_mut("features", features, n_features) }?;
        for (to, feature) in features.iter_mut().zip(dead) {
            *to = feature;
        }
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Description length of a row's features.
///
/// # Safety
/// - `monitor` is a handle; `bits` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_description_length(
    monitor: *const sae_monitor,
    bits: *mut f64,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        let found = statistics(&monitor)?.description_length()?;
        // SAFETY: the caller guarantees that `bits` is an output.
        unsafe { store("bits", bits, found) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The statistics as JSON.
///
/// # Safety
/// - `monitor` is a handle; `buffer` (of `n_bytes`), `needed` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_json(
    monitor: *const sae_monitor,
    buffer: *mut c_char,
    n_bytes: usize,
    needed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        let statistics = statistics(&monitor)?;
        let rules = monitor.monitor.rules();
        let text = statistics
            .to_json(|feature| rules.label(feature))
            .to_string();
        // SAFETY: the caller guarantees that `buffer` (of `n_bytes`) and `needed` are outputs.
        unsafe { give_text(text, buffer, n_bytes, needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Counts and statistics as OpenMetrics text.
///
/// # Safety
/// - `monitor` is a handle; `buffer` (of `n_bytes`), `needed` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_open_metrics(
    monitor: *const sae_monitor,
    buffer: *mut c_char,
    n_bytes: usize,
    needed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        // SAFETY: the caller guarantees that `buffer` is an output of `n_bytes`.
        let buffer = unsafe { slice_mut("buffer", buffer.cast::<u8>(), n_bytes) }?;
        let length = monitor.monitor.open_metrics(buffer);
        // The buffer was zeroed, so a text that fits has its zero byte.
        // SAFETY: the caller guarantees that `needed` is an output.
        unsafe { fits(buffer, length.saturating_add(1), needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Writes a snapshot of the statistics.
///
/// # Safety
/// - `monitor` is a handle; `buffer` (of `n_bytes`), `needed` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_snapshot(
    monitor: *const sae_monitor,
    buffer: *mut c_void,
    n_bytes: usize,
    needed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let monitor = unsafe { Handle::shared("monitor", monitor) }?;
        let statistics = statistics(&monitor)?;
        let make = || statistics.to_bytes();
        // SAFETY: the caller guarantees that `buffer` (of `n_bytes`) and `needed` are outputs.
        unsafe { give_bytes(statistics.snapshot_len(), make, buffer, n_bytes, needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Adds the statistics of a snapshot.
///
/// # Safety
/// - `monitor` is a handle; `bytes` is an input of `n_bytes`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_monitor_merge(
    monitor: *mut sae_monitor,
    bytes: *const c_void,
    n_bytes: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is a handle.
        let mut monitor = unsafe { Handle::exclusive("monitor", monitor) }?;
        // SAFETY: the caller guarantees that `bytes` is an input of `n_bytes`.
        let bytes = unsafe { read_bytes("bytes", bytes, n_bytes) }?;
        let model = statistics(&monitor)?.collect().model;
        let other = Accumulator::from_bytes(bytes, Some(model))?;
        match monitor.monitor.statistics_mut() {
            Some(statistics) => Ok(statistics.merge(&other)?),
            None => Ok(()),
        }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
