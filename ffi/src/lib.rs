//! libsae: the C ABI of the `sae` crate. The contract is `include/sae.h`, written by hand; a test
//! compares it with the functions here and with the exported symbols.
//!
//! What lives here is the boundary alone: pointers become checked references, errors become
//! numbers and texts, a panic becomes a status, and the caller's floating-point modes are put
//! aside for the time of a call. Everything else is the public API of `sae`.
//!
//! # Safety
//!
//! Every exported function is unsafe to call because it trusts its pointers. "Valid" below and in
//! the functions means:
//!
//! - A *handle* is NULL, or a pointer that a function of this library stored and that was not yet
//!   closed or destroyed. A handle of another kind is recognised by the tag in its first word.
//! - An *input* is NULL, or points to as much readable memory as its type and count say, which
//!   nobody writes during the call.
//! - An *output* is NULL, or points to as much writable memory as its type and count say, which
//!   nobody else reads or writes during the call. It need not be initialised, except for the field
//!   `struct_size` of structs that have one.
//! - A *string* is NULL, or points to bytes that end with a zero byte.
//!
//! NULL, misalignment, wrong lengths and overlap of rows with outputs are checked and never
//! undefined.
#![no_std]
#![allow(unsafe_code)] // the C boundary is one of the three places where it is allowed
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

extern crate alloc;
// A library that may unwind needs the runtime of std, whether it uses std's API or not.
#[cfg(any(feature = "std", panic = "unwind"))]
extern crate std;

#[cfg(not(any(feature = "std", panic = "unwind")))]
mod bare;
mod boundary;
mod failure;
mod float_mode;
mod handle;
mod memory;

pub mod batch;
pub mod decompose;
pub mod derive;
pub mod features;
pub mod fit;
#[cfg(feature = "wgpu")]
pub mod gpu;
pub mod kinds;
pub mod labels;
pub mod log;
pub mod lorsa;
pub mod model;
pub mod molt;
pub mod monitor;
pub mod monitor_events;
pub mod open;
pub mod part;
pub mod plan_builder;
pub mod quality;
pub mod readout;
pub mod rows;
pub mod scratch;
pub mod sites;
pub mod status;
pub mod steer;
mod types;
