//! Rules, events and the ring between threads. `include/sae_monitor.h`.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::handle::{Handle, Kind};
use crate::memory::{optional_text, slice_mut, store};
use crate::model::sae_model;
use crate::types::*;
use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::ptr::{null, null_mut};
use sae::monitor::{CompiledRules, Contribution, Event, EventRing, RowId, Rules as PlainRules};

/// Compiled rules, with their names as C strings.
pub struct Rules {
    pub(crate) rules: Arc<CompiledRules>,
    names: Vec<CString>,
    labels: BTreeMap<u32, CString>,
}

/// Compiled rules, as C holds them.
#[allow(non_camel_case_types)]
pub type sae_rules = Handle<Rules>;

impl Kind for Rules {
    const TAG: u64 = u64::from_le_bytes(*b"sae:rule");
    const NAME: &'static str = "sae_rules";
}

/// A queue of events.
pub struct Ring(pub(crate) Arc<EventRing>);

/// A queue of events, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_event_ring = Handle<Ring>;

impl Kind for Ring {
    const TAG: u64 = u64::from_le_bytes(*b"sae:ring");
    const NAME: &'static str = "sae_event_ring";
}

/// A text that C can read: a zero byte would end it early.
fn c_text(text: &str) -> CString {
    let text: String = text
        .chars()
        .filter(|&character| character != '\0')
        .collect();
    CString::new(text).unwrap_or_default()
}

/// Compiles rules.
///
/// # Safety
/// - `model` is a handle; `text` is a string; `rules` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_rules_compile(
    model: *const sae_model,
    text: *const c_char,
    rules: *mut *mut sae_rules,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `rules` is an output.
        unsafe { store("rules", rules, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `text` is a string.
        let handle = unsafe { make(text, &|plain| model.sae.compile_rules(plain)) }?;
        // SAFETY: the caller guarantees that `rules` is an output.
        unsafe { store("rules", rules, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Rules from JSON, compiled by a model.
///
/// # Safety
/// - `text` is a string.
pub(crate) unsafe fn make(
    text: *const c_char,
    compile: &dyn Fn(&PlainRules) -> Result<CompiledRules, sae::Error>,
) -> Result<*mut sae_rules, Failure> {
    // SAFETY: the caller guarantees that `text` is a string.
    let text = unsafe { optional_text("text", text) }?;
    let text = text.ok_or(Failure::Null { argument: "text" })?;
    let plain = PlainRules::from_json(text)?;
    let labels = plain.labels.iter();
    Handle::on_heap(Rules {
        rules: Arc::new(compile(&plain)?),
        names: plain.rules.iter().map(|rule| c_text(&rule.name)).collect(),
        labels: labels
            .map(|(&feature, label)| (feature, c_text(label)))
            .collect(),
    })
}

/// Destroys rules.
///
/// # Safety
/// - `rules` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_rules_destroy(rules: *mut sae_rules) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(rules) };
        Ok(())
    });
}

/// Number of rules.
///
/// # Safety
/// - `rules` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_rules_count(rules: *const sae_rules) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `rules` is a handle.
        Ok(unsafe { Handle::borrow("rules", rules) }?.rules.len())
    })
}

/// The name of a rule.
///
/// # Safety
/// - `rules` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_rules_name(rules: *const sae_rules, index: usize) -> *const c_char {
    value(null(), || {
        // SAFETY: the caller guarantees that `rules` is a handle.
        let rules = unsafe { Handle::borrow("rules", rules) }?;
        Ok(rules.names.get(index).map_or(null(), |name| name.as_ptr()))
    })
}

/// The label of a feature.
///
/// # Safety
/// - `rules` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_rules_label(rules: *const sae_rules, feature: u32) -> *const c_char {
    value(null(), || {
        // SAFETY: the caller guarantees that `rules` is a handle.
        let rules = unsafe { Handle::borrow("rules", rules) }?;
        Ok(rules
            .labels
            .get(&feature)
            .map_or(null(), |label| label.as_ptr()))
    })
}

/// Bytes of weights that watching one row reads.
///
/// # Safety
/// - `rules` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_rules_bytes_per_row(rules: *const sae_rules) -> u64 {
    value(0, || {
        // SAFETY: the caller guarantees that `rules` is a handle.
        Ok(unsafe { Handle::borrow("rules", rules) }?
            .rules
            .bytes_per_row())
    })
}

/// A number that tells models apart.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_fingerprint(model: *const sae_model) -> u64 {
    value(0, || {
        // SAFETY: the caller guarantees that `model` is a handle.
        Ok(unsafe { Handle::borrow("model", model) }?.sae.fingerprint())
    })
}

/// Makes a queue of events.
///
/// # Safety
/// - `ring` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_event_ring_create(
    capacity: usize,
    ring: *mut *mut sae_event_ring,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `ring` is an output.
        unsafe { store("ring", ring, null_mut()) }?;
        let handle = Handle::on_heap(Ring(Arc::new(EventRing::new(capacity)?)))?;
        // SAFETY: the caller guarantees that `ring` is an output.
        unsafe { store("ring", ring, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a queue.
///
/// # Safety
/// - `ring` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_event_ring_destroy(ring: *mut sae_event_ring) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(ring) };
        Ok(())
    });
}

/// Takes the oldest event.
///
/// # Safety
/// - `ring` is a handle; `event` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_event_ring_pop(
    ring: *const sae_event_ring,
    event: *mut sae_event,
) -> u32 {
    value(0, || {
        // SAFETY: the caller guarantees that `ring` is a handle.
        let ring = unsafe { Handle::borrow("ring", ring) }?;
        if event.is_null() {
            return Err(Failure::Null { argument: "event" });
        }
        let Some(found) = ring.0.pop() else {
            return Ok(0);
        };
        // SAFETY: the caller guarantees that `event` is an output.
        unsafe { store("event", event, to_c(&found)) }?;
        Ok(1)
    })
}

/// Events that were dropped.
///
/// # Safety
/// - `ring` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_event_ring_dropped(ring: *const sae_event_ring) -> u64 {
    value(0, || {
        // SAFETY: the caller guarantees that `ring` is a handle.
        Ok(unsafe { Handle::borrow("ring", ring) }?.0.dropped())
    })
}

/// Writes an event as JSON.
///
/// # Safety
/// - `rules` is a handle; `event` is an input; `buffer` (of `n_bytes`), `needed` and `error` are
///   outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_event_json(
    rules: *const sae_rules,
    event: *const sae_event,
    buffer: *mut c_char,
    n_bytes: usize,
    needed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `rules` is a handle.
        let rules = unsafe { Handle::borrow("rules", rules) }?;
        if event.is_null() {
            return Err(Failure::Null { argument: "event" });
        }
        // SAFETY: not NULL; the caller guarantees that `event` is an input.
        let event = from_c(&unsafe { event.read_unaligned() })?;
        let mut line = String::new();
        // A string takes everything.
        let _ = event.write_json(&rules.rules, &mut line);
        line.push('\0');
        // SAFETY: the caller guarantees that `buffer` is an output of `n_bytes`.
        let buffer = unsafe { slice_mut("buffer", buffer.cast::<u8>(), n_bytes) }?;
        for (to, byte) in buffer.iter_mut().zip(line.bytes()) {
            *to = byte;
        }
        // SAFETY: the caller guarantees that `needed` is an output.
        unsafe { fits(buffer, line.len(), needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Stores the size of a text that was written into a buffer, and ends what does not fit with a
/// zero byte.
///
/// # Safety
/// - `needed` is an output.
pub(crate) unsafe fn fits(
    buffer: &mut [u8],
    length: usize,
    needed: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the caller guarantees that `needed` is an output.
    unsafe { store("needed", needed, length) }?;
    let n_bytes = buffer.len();
    if n_bytes == 0 || n_bytes >= length {
        // Without a buffer it was the size that was asked for.
        return Ok(());
    }
    if let Some(last) = buffer.last_mut() {
        *last = 0;
    }
    Err(Failure::Length {
        argument: "n_bytes",
        expected: length,
        found: n_bytes,
    })
}

/// An event as C sees it.
pub(crate) fn to_c(event: &Event) -> sae_event {
    let mut contributions = [sae_contribution {
        feature: 0,
        value: 0.0,
        weight: 0.0,
    }; MAX_CONTRIBUTIONS];
    for (to, from) in contributions.iter_mut().zip(event.contributions()) {
        *to = sae_contribution {
            feature: from.feature,
            value: from.value,
            weight: from.weight,
        };
    }
    sae_event {
        rule: event.rule,
        n_contributions: event.contributions().len() as u32,
        stream: event.row.stream,
        position: event.row.position,
        score: event.score,
        contributions,
    }
}

fn from_c(event: &sae_event) -> Result<Event, Failure> {
    let found = event.contributions.get(..event.n_contributions as usize);
    let found = found.ok_or(Failure::Invalid {
        argument: "event.n_contributions",
        expected: "at most SAE_MAX_CONTRIBUTIONS",
        found: Found::Unsigned(event.n_contributions.into()),
    })?;
    let row = RowId {
        stream: event.stream,
        position: event.position,
    };
    let contributions = found.iter().map(|one| Contribution {
        feature: one.feature,
        value: one.value,
        weight: one.weight,
    });
    Ok(Event::from_parts(
        event.rule,
        row,
        event.score,
        contributions,
    ))
}
