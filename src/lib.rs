//! Sparse-autoencoder (SAE) inference on the CPU, inside other people's inference engines.
//!
//! A published checkpoint is opened as it was downloaded and mapped, not read. Three verbs work on
//! the host's activation rows:
//!
//! | verb | from | to |
//! |---|---|---|
//! | [`Sae::encode`] | rows `[n, d_in]` | [`Features`]: for each row the features that fire |
//! | [`Sae::decode`] | [`Features`] | reconstructed rows `[n, d_out]` |
//! | [`Sae::readout`] | rows, and a [`FeatureSet`] of m features | values `[n, m]`, reading m rows |
//!
//! ```
//! # fn main() -> Result<(), sae::Error> {
//! use sae::{Features, OpenOptions, Rows, Sae, Scratch};
//! # let (name, bytes, config) = sae::doc_example::tiny();
//! let sae = Sae::from_bytes(&name, &bytes, Some(&config), &OpenOptions::default())?;
//! let mut scratch = Scratch::new(&sae)?; // one per thread
//! let mut features = Features::new();
//! sae.encode(Rows::from_f32(&[1.0, -2.0], sae.d_in())?, &mut scratch, &mut features)?;
//! let row = features.row(0).unwrap();
//! assert_eq!((row.indices, row.values), (&[0, 2][..], &[1.0, 0.5][..]));
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - *The same bits everywhere.* Every value comes from one exact dot product (products of two f32
//!   are exact in f64, summed in 16 lanes and a fixed tree): the same features on every CPU,
//!   instruction set, thread count and batch size. See [`kernels`].
//! - *No silent conventions.* An unknown floating-point tensor, an unknown value of a key that
//!   changes the maths or an unknown architecture is an error that names it. See [`convention`].
//! - *No panic on any input*, no allocation, lock, thread or output on the hot path.
//! - *Non-finite rows* have no features and say so; the other rows of a batch proceed.
//!
//! # Features of the crate
//!
//! | feature | adds |
//! |---|---|
//! | `std` (default) | paths, memory maps, npz |
//! | `torch`, `gzip`, `yaml` | torch files; gzipped files; YAML side-cars |
//! | `pack` | writing packs; reading them needs no feature |
//! | `analysis` | comparing models: matchings, correlations, families, the logit lens |
//! | `wgpu` | encoding on a GPU, with the same bits (see `gpu`) |
//! | `cli` | the `sae` tool, with all of the above |
//!
//! Without `std` the crate is `no_std` + `alloc` and models come from bytes. A feature adds API;
//! it never changes a result.
#![no_std]

#[cfg(not(target_endian = "little"))]
compile_error!("libsae reads little-endian weights in place and refuses big-endian hosts");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "analysis")]
pub mod analysis;
mod batch;
mod blocked;
pub mod bytes;
pub mod container;
pub mod control_vector;
pub mod convention;
mod cross_layer;
mod decode;
pub mod dtype;
mod encode;
mod ensemble;
pub mod error;
pub mod features;
mod fit;
#[cfg(feature = "wgpu")]
pub mod gpu;
mod importance;
mod json;
pub mod kernels;
pub mod labels;
mod lorsa;
#[cfg(feature = "std")]
pub mod mmap;
pub mod model;
mod molt;
pub mod monitor;
mod open;
#[cfg(feature = "pack")]
pub mod pack;
mod part;
mod pursuit;
mod readout;
pub mod rows;
mod rows_mut;
mod scratch;
pub mod screen;
mod screened;
mod select;
mod self_test;
mod sites;
pub mod steer;
pub mod tensor;
pub mod verify;
mod written;

pub use batch::{BatchRule, BatchSpace};
pub use cross_layer::LayerStream;
pub use dtype::Dtype;
pub use error::{Code, Error};
pub use features::{Features, FeaturesRow, RowStatus};
pub use fit::{Fit, FitCheck, Verdict};
pub use importance::Importance;
pub use kernels::Level;
pub use labels::{Label, Labels};
pub use lorsa::{Lorsa, LorsaCache};
pub use model::{Description, Sae};
pub use molt::{Molt, MoltScratch};
pub use open::{MAX_CONFIG_BYTES, OpenOptions};
pub use part::Part;
pub use readout::FeatureSet;
pub use rows::Rows;
pub use rows_mut::RowsMut;
pub use scratch::Scratch;

/// A model of three features in memory, for the examples in this documentation.
#[doc(hidden)]
pub mod doc_example {
    use alloc::string::String;
    use alloc::vec::Vec;

    /// Name, bytes of `sae_weights.safetensors`, and text of `cfg.json`.
    pub fn tiny() -> (String, Vec<u8>, String) {
        let header = br#"{"W_enc":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
"W_dec":{"dtype":"F32","shape":[3,2],"data_offsets":[24,48]},
"b_enc":{"dtype":"F32","shape":[3],"data_offsets":[48,60]},
"b_dec":{"dtype":"F32","shape":[2],"data_offsets":[60,68]}}"#;
        let w_enc = [1.0f32, 0.0, -0.5, 0.0, 1.0, -0.5];
        let w_dec = [1.0, 0.0, 0.0, 1.0, -1.0, -1.0];
        let (b_enc, b_dec) = ([0.0, 0.0, 0.0], [0.0, 0.0]);
        let mut bytes = Vec::from((header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(header);
        let values = w_enc.iter().chain(&w_dec).chain(&b_enc).chain(&b_dec);
        bytes.extend(values.flat_map(|value| value.to_le_bytes()));
        let config = r#"{"architecture": "standard", "d_in": 2, "d_sae": 3}"#;
        ("sae_weights.safetensors".into(), bytes, config.into())
    }
}
