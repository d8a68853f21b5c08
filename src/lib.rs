//! Sparse-autoencoder (SAE) inference on the CPU.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_endian = "little"))]
compile_error!("libsae reads little-endian weights in place and refuses big-endian hosts");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod bytes;
pub mod container;
pub mod convention;
mod decode;
pub mod dtype;
mod encode;
pub mod error;
pub mod features;
pub mod kernels;
#[cfg(feature = "std")]
pub mod mmap;
pub mod model;
mod open;
mod readout;
pub mod rows;
mod scratch;
mod select;
pub mod tensor;

pub use dtype::Dtype;
pub use error::{Code, Error};
pub use features::{Features, FeaturesRow, RowStatus};
pub use kernels::Level;
pub use model::{Description, Sae};
pub use open::{MAX_CONFIG_BYTES, OpenOptions};
pub use readout::FeatureSet;
pub use rows::Rows;
pub use scratch::Scratch;
