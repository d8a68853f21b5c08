//! Monitoring on the device: statistics of features, rules that watch them, alerts, in memory that
//! is fixed when they are made.
//!
//! | | is |
//! |---|---|
//! | [`Accumulator`] | streaming statistics of all features or of a list ([`Collect`]), exactly mergeable, with snapshots |
//! | [`Quality`] | how well rows are reconstructed |
//! | [`Rules`] | what to watch, as data (JSON or Rust), compiled against a model ([`CompiledRules`]) |
//! | [`Monitor`] | rules at work on many streams: reads their features out of rows, keeps each stream's state, commits or rolls back rows, emits [`Event`]s |
//! | [`EventRing`] | a bounded lock-free queue of events between threads |
//! | [`measures`] | coverage of properties, MonoSemanticity, the strongest feature |
//! | [`scores`] | areas under curves, class entropies, spreads over layers, scores of steering and probes |
//! | [`Samples`] | rows to show for a feature, of each part of its range |
//! | [`choose`] | feature selection from statistics, for plans of [`steer`](crate::steer) |
//!
//! Sums are exact integers (see [`Accumulator`]), so merging, the order of rows and the number of
//! threads change no bit. Adding rows, watching and reading events allocate nothing and take no
//! lock.

mod accumulator;
pub mod choose;
mod collect;
mod compile;
mod detect;
mod error_model;
mod event;
mod fingerprint;
mod json;
pub mod measures;
mod metrics;
mod monosemanticity;
mod pool;
mod quality;
mod quality_snapshot;
mod ring;
mod row;
mod rules;
mod samples;
mod samples_snapshot;
pub mod scores;
mod snapshot;
mod stored;
mod streams;
mod sum;
mod watch;

pub use accumulator::{Accumulator, Confusion, FeatureSummary, TopRow};
pub use collect::{Bins, Collect, MAX_BINS, MAX_TOP};
pub use compile::CompiledRules;
pub use error_model::{ErrorFit, ErrorModel};
pub use event::{Contribution, Event, MAX_CONTRIBUTIONS};
pub use pool::{Pool, Pooling, only_in};
pub use quality::{Quality, QualitySummary, RowQuality};
pub use ring::EventRing;
pub use row::{RowId, RowInfo};
pub use rules::{Detector, Direction, Input, Limit, Rule, Rules};
pub use samples::{Sampled, Samples};
pub use stored::SNAPSHOT_VERSION;
pub use watch::{Counts, Monitor, MonitorOptions, OnEvent, Unseen};
