//! OpenMOSS' Lorsa: low-rank sparse attention.
//!
//! Source: `lorsa.py` of OpenMOSS/Language-Model-SAEs at 95281ac.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_Q`, `W_K` | `[heads, d, d_head]` | columns, one matrix for each head |
//! | `b_Q`, `b_K` | `[heads, d_head]` | |
//! | `W_V`, `W_O` | `[d_sae, d]` | rows |
//! | `b_V`, `b_D` | `[d_sae]`, `[d]` | `b_D` if `use_decoder_bias` |
//! | `ln_q.w`, `ln_k.w` | `[heads, d_head]` | if `use_post_qk_ln`, with `normalization_type` RMS |
//! | `rotary_sin`, `rotary_cos`, `mask`, `IGNORE` | | computed anew |
//!
//! The config may state more heads than the file has: each then serves several groups of features,
//! which together are the group of the head in the file. `norm_activation: dataset-wise` multiplies the
//! input by `sqrt(d) / average` of `hook_point_in` and divides the output by that of
//! `hook_point_out`; both stay vectors here. A `rotary_scale` other than 1 is refused.

use super::common::{about, norms, positive};
use super::llama_scope::hooks;
use super::openmoss::rule;
use super::{Config, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::model::{
    Activation, Attention, Block, ByParts, FeatureAxis, HeadNorm, Matrix, Pairs, Parts, Rotary,
};
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn open<'a>(
    archive: &Archive<'a>,
    config: &Config<'_>,
    settings: &Settings<'_>,
) -> Result<Parts<'a>, Error> {
    let tensors = Tensors::new(archive, "OpenMOSS");
    config.informational(&["n_ctx", "expansion_factor"]);
    let [heads, d_in, d_head] = tensors.shape_3d("W_Q")?;
    let [d_sae, _] = tensors.shape_2d("W_V")?;
    let [_, d_out] = tensors.shape_2d("W_O")?;
    config.check_size("d_model", d_in)?;
    config.check_size("d_sae", d_sae)?;
    config.check_size("d_qk_head", d_head)?;
    if let Some(stated) = config.count("n_qk_heads")?
        && !stated.is_multiple_of(heads)
    {
        let expected = alloc::format!("a multiple of the file's {heads}");
        return Err(config.invalid("n_qk_heads", &expected, &stated.into()));
    }
    let width = heads.saturating_mul(d_head);
    let heads_of = |name: &str, features: usize| -> Result<Matrix<'a>, Error> {
        tensors.check_shape(name, &[heads, d_in, d_head])?;
        let whole = tensors.weights(name)?;
        let mut blocks = Vec::new();
        for head in 0..heads {
            let one = whole.at(head).ok_or_else(|| tensors.missing(name))?;
            blocks.push(Block {
                first_feature: head * d_head,
                first_column: 0,
                matrix: Matrix::new(&one, FeatureAxis::Second, d_head, d_in)?,
            });
        }
        Matrix::from_blocks(name, features, d_in, blocks)
    };
    let flat = |name: &str| -> Result<Vec<f64>, Error> {
        tensors.check_shape(name, &[heads, d_head])?;
        tensors.flat_values(name)
    };
    let (from, to) = factors(config, &tensors, d_in, d_out)?;
    let norm = match config.flag("use_post_qk_ln")?.unwrap_or(false) {
        false => {
            let _ = (config.text("normalization_type")?, config.number("eps")?);
            None
        }
        true => match config.text("normalization_type")? {
            Some("RMS") => Some(HeadNorm {
                query: flat("ln_q.w")?,
                key: flat("ln_k.w")?,
                eps: config.number("eps")?.unwrap_or(1e-6),
            }),
            other => {
                let found = other.unwrap_or("nothing").into();
                return Err(config.invalid("normalization_type", "RMS", &found));
            }
        },
    };
    let attention = Attention {
        heads,
        query: heads_of("W_Q", width)?,
        query_bias: Some(flat("b_Q")?),
        key: heads_of("W_K", width)?,
        key_bias: Some(flat("b_K")?),
        input_scale: from,
        score_scale: match config.number("attn_scale")? {
            Some(scale) => scale,
            None => libm::sqrt(d_head as f64),
        },
        norm,
        rotary: rotary(config)?,
    };
    for name in ["rotary_sin", "rotary_cos", "mask", "IGNORE"] {
        if tensors.has(name) {
            tensors.skip(name);
        }
    }
    let encoder = tensors.matrix("W_V", FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix("W_O", FeatureAxis::First, d_sae, d_out)?;
    let mut notes = Vec::new();
    let activation = rule(&tensors, config, settings, d_sae, &mut notes)?;
    let mut parts = Parts::new(encoder, activation, decoder);
    let by_norm = config
        .flag("sparsity_include_decoder_norm")?
        .unwrap_or(true);
    if by_norm && !matches!(parts.activation, Activation::Relu) {
        parts.rank_weight = Some(norms(&parts.decoder, &tensors)?);
        notes.push("decoder norms were computed at open".into());
    }
    parts.bias = Some(tensors.vector("b_V", d_sae)?);
    let mut bias = match config.flag("use_decoder_bias")? {
        Some(false) if !tensors.has("b_D") => vec![0.0; d_out],
        _ => tensors.vector("b_D", d_out)?,
    };
    if from != 1.0 {
        parts.scale = Some(vec![from; d_sae]);
    }
    if to != 1.0 {
        parts.decoder_scale = Some(vec![1.0 / to; d_sae]);
        bias.iter_mut().for_each(|bias| *bias /= to);
    }
    parts.decoder_bias = Some(bias);
    parts.attention = Some(attention);
    let site = hooks(config)?;
    parts.about = about(
        "OpenMOSS",
        super::openmoss::CONVENTION.name,
        "lorsa",
        &[&tensors],
        &[config],
        settings,
    )?;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

fn rotary(config: &Config<'_>) -> Result<Option<Rotary>, Error> {
    let dims = config.count("rotary_dim")?;
    let base = config.number("rotary_base")?.unwrap_or(10_000.0);
    let adjacent = config.flag("rotary_adjacent_pairs")?.unwrap_or(true);
    let by_parts = config.flag("use_NTK_by_parts_rope")?.unwrap_or(false);
    let parts = ByParts {
        factor: config.number("NTK_by_parts_factor")?.unwrap_or(1.0),
        low: config
            .number("NTK_by_parts_low_freq_factor")?
            .unwrap_or(1.0),
        high: config
            .number("NTK_by_parts_high_freq_factor")?
            .unwrap_or(1.0),
        old_context: config.number("old_context_len")?.unwrap_or(2048.0),
    };
    match config.number("rotary_scale")? {
        None | Some(1.0) => {}
        Some(other) => return Err(config.invalid("rotary_scale", "1", &other.into())),
    }
    match config.text("positional_embedding_type")? {
        Some("none") => return Ok(None),
        None | Some("rotary") => {}
        Some(other) => {
            let expected = "rotary or none";
            return Err(config.invalid("positional_embedding_type", expected, &other.into()));
        }
    }
    let Some(dims) = dims else {
        return Err(Error::MissingKey {
            key: "rotary_dim".into(),
            hint: "it says how many values of a head turn with the position".into(),
        });
    };
    let pairs = match adjacent {
        true => Pairs::Adjacent,
        false => Pairs::Halves,
    };
    let plain = Rotary::new(dims, base, pairs);
    Ok(Some(match by_parts {
        true => plain.by_parts(parts),
        false => plain,
    }))
}

/// What the input is multiplied by and the output divided by.
fn factors(
    config: &Config<'_>,
    tensors: &Tensors<'_, '_>,
    d_in: usize,
    d_out: usize,
) -> Result<(f64, f64), Error> {
    const AVERAGE: &str = "dataset_average_activation_norm.";
    // They may be uninitialised memory unless the norm is used.
    for name in tensors.names().filter(|name| name.starts_with(AVERAGE)) {
        tensors.skip(name);
    }
    match config.text("norm_activation")? {
        None | Some("inference" | "none") => return Ok((1.0, 1.0)),
        Some("dataset-wise") => {}
        Some(other) => {
            let expected = "inference or dataset-wise";
            return Err(config.invalid("norm_activation", expected, &other.into()));
        }
    }
    let factor = |key: &str, d: usize| -> Result<f64, Error> {
        let hook = config.text(key)?.unwrap_or("");
        let name = alloc::format!("{AVERAGE}{hook}");
        match tensors.scalar(&name)? {
            Some(norm) => Ok(libm::sqrt(d as f64) / positive(&name, norm)?),
            None => Err(tensors.missing(&name)),
        }
    };
    Ok((
        factor("hook_point_in", d_in)?,
        factor("hook_point_out", d_out)?,
    ))
}
