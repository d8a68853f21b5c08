//! Comparing models: by their weights, by what fires together, by what they say about a vocabulary.
//! For work off the hot path; everything here allocates.
//!
//! | function | is | source |
//! |---|---|---|
//! | [`nearest`] | the nearest vectors by cosine, in blocks, top k of each | feature splitting: above 0.7 |
//! | [`Cosines`] | all cosines, estimated once for several of these | |
//! | [`pw_mcc`] | mean absolute cosine of the best one-to-one matching | consistency of SAEs |
//! | [`sae_match`] | the matching of least squared distance, thresholds folded | SAE Match |
//! | [`compose`] | a matching over two steps | SAE Match |
//! | [`shared_fraction`] | features that both matchings agree on | "same data, different features" |
//! | [`jaccard`] | overlap of two sets of labels | ITDA |
//! | [`Correlation`], [`wmppc`], [`sharedness`] | correlations of features over a corpus | universal feature spaces, wMPPC |
//! | [`families`] | families of features by co-occurrence | disentangling dense embeddings |
//! | [`logit_lens`] | the tokens that a feature promotes | logit lens |
//! | [`encoder_decoder_cosines`], [`coherence`] | cosines within one model | SAEBench, MSAE |
//! | [`drift`] | cosines of checkpoints with the last one | SAE-Track |
//! | [`head_attribution`] | what each attention head adds to a feature | attention-output SAEs |
//! | [`Probe`] | absorption of a concept | "A is for absorption" |
//! | [`greedy_edits`], [`carry`] | the fewest edits towards a row; features in another model | principled evaluations, SAE Match |
//! | [`LinearErrorFit`] | the linear share of reconstruction errors | dark matter |
//! | [`cknna`], [`svcca`], [`rsa`], [`pearson`] | similarity of representations | MSAE, universal feature spaces |
//!
//! Cosines and distances are formed by the dot product of [`kernels`](crate::kernels), so they have
//! the same bits on every machine, and so has every order that follows from them.

mod absorption;
mod assignment;
mod correlation;
mod cosines;
mod dark_matter;
mod edits;
mod families;
mod lens;
mod matching;
mod similarity;
mod vectors;
mod weights;

pub use absorption::{Absorbed, AbsorptionOptions, Probe};
pub use correlation::{Best, Correlation, sharedness, wmppc};
pub use cosines::{Cosines, HELD_PAIRS, Neighbour, nearest};
pub use dark_matter::{LinearErrorFit, LinearErrorModel};
pub use edits::{GreedyEdit, carry, greedy_edits};
pub use families::{Family, FamilyOptions, families};
pub use lens::{Lens, Token, logit_lens};
pub use matching::{
    MAX_PAIRS, Matching, Pair, Terms, compose, jaccard, pw_mcc, sae_match, sae_match_with,
    shared_fraction, shared_fraction_with,
};
pub use similarity::{cknna, pearson, rsa, svcca};
pub use vectors::Vectors;
pub use weights::{Coherence, coherence, drift, encoder_decoder_cosines, head_attribution};
