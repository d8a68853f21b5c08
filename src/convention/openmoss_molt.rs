//! OpenMOSS' MOLT: a mixture of linear transforms.
//!
//! Source: `molt.py` of OpenMOSS/Language-Model-SAEs at 95281ac.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_E`, `b_E` | `[d, d_sae]`, `[d_sae]` | columns |
//! | `U_matrices.{r}` | `[count, d_out, r]` | what transforms of rank r write, columns |
//! | `V_matrices.{r}` | `[count, r, d]` | what they read, rows |
//! | `b_D` | `[d_out]` | if `use_decoder_bias` |
//!
//! Features are those of the lowest rank first. With `sparsity_include_decoder_norm` the gate looks at
//! `p |U_i V_i|` (Frobenius), as everywhere in OpenMOSS. Only weights that have the normalisation of the
//! dataset folded in (`inference`) open.

use super::common::about;
use super::llama_scope::hooks;
use super::openmoss::rule;
use super::{Config, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Matrix, Parts, Transform, Transforms};
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn open<'a>(
    archive: &Archive<'a>,
    config: &Config<'_>,
    settings: &Settings<'_>,
) -> Result<Parts<'a>, Error> {
    let tensors = Tensors::new(archive, "OpenMOSS");
    config.informational(&["expansion_factor", "rank_counts"]);
    match config.text("norm_activation")? {
        None | Some("inference" | "none") => {}
        Some(other) => {
            return Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("OpenMOSS {other} normalisation of a molt"),
            });
        }
    }
    for name in tensors
        .names()
        .filter(|name| name.starts_with("dataset_average"))
    {
        tensors.skip(name);
    }
    let [d_in, d_sae] = tensors.shape_2d("W_E")?;
    config.check_size("d_model", d_in)?;
    config.check_size("d_sae", d_sae)?;
    let encoder = tensors.matrix("W_E", FeatureAxis::Second, d_sae, d_in)?;
    let each = transforms(&tensors)?;
    let d_out = each.first().map_or(0, |one| one.writes.width());
    let mut notes = Vec::new();
    let activation = rule(&tensors, config, settings, d_sae, &mut notes)?;
    let decoder = Matrix::empty("U_matrices", d_sae, d_out);
    let mut parts = Parts::new(encoder, activation, decoder);
    let by_norm = config
        .flag("sparsity_include_decoder_norm")?
        .unwrap_or(true);
    if by_norm && !matches!(parts.activation, Activation::Relu) {
        let bytes = |one: &Transform<'_>| one.reads.size_bytes() + one.writes.size_bytes();
        tensors.count_read(each.iter().map(bytes).sum());
        parts.rank_weight = Some(each.iter().map(Transform::norm).collect());
        notes.push("norms of transforms were computed at open".into());
    }
    parts.bias = Some(tensors.vector("b_E", d_sae)?);
    parts.decoder_bias = Some(match config.flag("use_decoder_bias")? {
        Some(false) if !tensors.has("b_D") => vec![0.0; d_out],
        _ => tensors.vector("b_D", d_out)?,
    });
    parts.transforms = Some(Transforms { each });
    let site = hooks(config)?;
    parts.about = about(
        "OpenMOSS",
        super::openmoss::CONVENTION.name,
        "molt",
        &[&tensors],
        &[config],
        settings,
    )?;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

/// All transforms, the lowest rank first.
fn transforms<'a>(tensors: &Tensors<'_, 'a>) -> Result<Vec<Transform<'a>>, Error> {
    const WRITES: &str = "U_matrices.";
    let stated = tensors.names().filter_map(|name| name.strip_prefix(WRITES));
    let mut ranks: Vec<usize> = stated.filter_map(|rank| rank.parse().ok()).collect();
    ranks.sort_unstable();
    if ranks.is_empty() {
        return Err(tensors.missing("U_matrices.1"));
    }
    let mut each = Vec::new();
    for rank in ranks {
        let (writes, reads) = (
            alloc::format!("{WRITES}{rank}"),
            alloc::format!("V_matrices.{rank}"),
        );
        let [count, d_out, _] = tensors.shape_3d(&writes)?;
        let [_, _, d_in] = tensors.shape_3d(&reads)?;
        tensors.check_shape(&writes, &[count, d_out, rank])?;
        tensors.check_shape(&reads, &[count, rank, d_in])?;
        let (u, v) = (tensors.weights(&writes)?, tensors.weights(&reads)?);
        for at in 0..count {
            let one = |tensor: &crate::tensor::Tensor<'a>, name: &str| {
                tensor.at(at).ok_or_else(|| tensors.missing(name))
            };
            each.push(Transform {
                reads: Matrix::new(&one(&v, &reads)?, FeatureAxis::First, rank, d_in)?,
                writes: Matrix::new(&one(&u, &writes)?, FeatureAxis::Second, rank, d_out)?,
            });
        }
    }
    Ok(each)
}
