//! The readable reference: what every architecture computes, in the plainest f64 code, and the
//! same with design decision D1's lanes and roundings. It shares nothing with the library: it
//! reads files itself and was written from the publishers' formulas. No SIMD, no `unsafe`, no
//! cleverness; when the library and this disagree, read this one.
//!
//! | module | is |
//! |---|---|
//! | [`read`] | npy, npz and safetensors files as f64 arrays |
//! | [`model`] | a model in f64, from SAELens and Gemma Scope files, and its formulas |
//! | [`d1`] | the same model to the bit |
//! | [`digest`] | what the digests in `tests/data/digests.txt` are taken over |
//! | [`random`] | random small models, written the way publishers write files |
//! | [`rules`], [`pursuit`] | selection rules and pursuits in f64, one function each |
//! | [`lorsa`] | low-rank sparse attention in f64, a whole sequence at once |
//! | [`multi_target`] | multi-target coders in f64, layer after layer |
//! | [`arrays`] | the cases in `tests/data/fixtures` as plain arrays |
//! | [`analysis`] | comparisons of models: all permutations, all pairs |
//! | [`measures`] | measures of papers: all pairs, whole matrices |
//! | [`steer`] | steering in its full form: encode, edit, decode |
//! | [`monitor`] | statistics of features over all rows at once |
//! | [`fixture`] | the cases in `tests/data/fixtures` with their goldens |

#![allow(dead_code)] // every test program uses a part of it

pub(crate) mod analysis;
pub(crate) mod arrays;
pub(crate) mod d1;
pub(crate) mod digest;
pub(crate) mod fixture;
pub(crate) mod lorsa;
pub(crate) mod measures;
pub(crate) mod model;
pub(crate) mod monitor;
pub(crate) mod multi_target;
pub(crate) mod pursuit;
pub(crate) mod random;
pub(crate) mod read;
pub(crate) mod rules;
pub(crate) mod steer;
