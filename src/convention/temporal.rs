//! Temporal SAEs (`canrager/temporalSAEs`): recognised, and refused by name. Their features depend
//! on the whole sequence, not on a row.

use super::common::{has_all, only};
use super::{Checkpoint, Convention, Settings};
use crate::error::Error;
use crate::model::Parts;

pub(super) const CONVENTION: Convention = Convention {
    name: "temporal",
    detect,
    open,
};

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint)
        .is_some_and(|archive| has_all(archive, &["D", "b", "attn_layers.0.q_target.weight"]))
}

fn open<'a>(_: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let _ = settings.number("norm_scaling_factor")?;
    Err(Error::UnsupportedArchitecture {
        architecture: "temporal".into(),
    })
}
