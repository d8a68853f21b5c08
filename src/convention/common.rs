//! What several conventions need: plain models, decoder norms, k.

use super::{Checkpoint, Config, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::kernels::Kernels;
use crate::model::{About, Activation, FeatureAxis, Matrix, Parts, Rank, Thresholds};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// The archive of a checkpoint that has exactly one.
#[inline(never)]
pub(super) fn only<'c, 'a>(checkpoint: &'c Checkpoint<'a>) -> Option<&'c Archive<'a>> {
    match checkpoint.archives.as_slice() {
        [(_, archive)] => Some(archive),
        _ => None,
    }
}

/// The same for a convention that has recognised the checkpoint by it.
#[inline(never)]
pub(super) fn the_archive<'c, 'a>(
    checkpoint: &'c Checkpoint<'a>,
) -> Result<&'c Archive<'a>, Error> {
    only(checkpoint).ok_or_else(|| super::unknown(checkpoint))
}

/// Whether an archive has all of these tensors.
#[inline(never)]
pub(super) fn has_all(archive: &Archive<'_>, names: &[&str]) -> bool {
    names.iter().all(|name| archive.entry(name).is_some())
}

/// The shape of a tensor, `[]` if there is none of that name.
#[inline(never)]
pub(super) fn shape<'c>(archive: &'c Archive<'_>, name: &str) -> &'c [usize] {
    archive.entry(name).map_or(&[], |entry| entry.shape())
}

/// Strict JumpReLU with a threshold for each feature, and positive values only.
#[inline(never)]
pub(super) fn jump_relu(threshold: Vec<f32>) -> Activation {
    Activation::JumpRelu {
        threshold: Thresholds::PerFeature(threshold),
        relu: true,
        inclusive: false,
    }
}

/// The same with one threshold for all.
#[inline(never)]
pub(super) fn scalar_jump_relu(threshold: f32) -> Activation {
    Activation::JumpRelu {
        threshold: Thresholds::Scalar(threshold),
        relu: true,
        inclusive: false,
    }
}

/// The k largest; `relu` keeps the positive ones of them.
#[inline(never)]
pub(super) fn top_k(k: usize, relu: bool) -> Activation {
    Activation::TopK {
        k,
        rank: Rank::Value,
        relu,
    }
}

/// Euclidean norms of the vectors of a matrix. Reads the matrix once: its bytes are added to what
/// opening has read.
#[inline(never)]
pub(super) fn norms(matrix: &Matrix<'_>, tensors: &Tensors<'_, '_>) -> Result<Vec<f64>, Error> {
    tensors.count_read(matrix.size_bytes());
    matrix.norms()
}

/// Norms of a few vectors spread over the matrix: enough to tell whether they are normalised.
#[inline(never)]
pub(super) fn sample_norms(matrix: &Matrix<'_>, tensors: &Tensors<'_, '_>) -> Vec<f64> {
    const SAMPLE: usize = 64;
    let kernels = Kernels::best();
    let size = matrix.weight_type().size();
    let mut bytes = vec![0; matrix.width() * size];
    let mut row = vec![0.0; matrix.width()];
    let step = matrix.features().div_ceil(SAMPLE).max(1);
    let features = (0..matrix.features()).step_by(step);
    tensors.count_read(features.len() * bytes.len());
    let norm = |feature| {
        matrix.gather(feature, &mut bytes);
        kernels.widen(matrix.weight_type(), &bytes, &mut row);
        libm::sqrt(kernels.sum_squares_about(&row, 0.0))
    };
    features.map(norm).collect()
}

/// Whether norms differ from 1 by more than the rounding of 8-bit mantissas (BF16) explains.
#[inline(never)]
pub(super) fn not_unit(norms: &[f64]) -> Option<(f64, f64)> {
    const SLACK: f64 = 0.02;
    let least = norms.iter().copied().fold(f64::INFINITY, f64::min);
    let most = norms.iter().copied().fold(0.0, f64::max);
    (least < 1.0 - SLACK || most > 1.0 + SLACK).then_some((least, most))
}

/// A factor for every feature, on top of those that are there.
#[inline(never)]
pub(super) fn times(values: Option<Vec<f64>>, by: f64, d_sae: usize) -> Vec<f64> {
    match values {
        Some(values) => values.into_iter().map(|value| value * by).collect(),
        None => vec![by; d_sae],
    }
}

/// Folds a constant factor of the input as SAELens does: `W_enc *= s; W_dec /= s; b_dec /= s`,
/// with thresholds and encoder bias left alone. Features are then in units of the scaled input.
#[inline(never)]
pub(super) fn fold_factor(parts: &mut Parts<'_>, factor: f64) {
    let d_sae = parts.encoder.features();
    if let Activation::Gated { gate_bias } = &mut parts.activation {
        // The gate looks at S + b, not at s S + b: s S + b > 0 where S + b / s > 0.
        gate_bias.iter_mut().for_each(|bias| *bias /= factor);
    }
    parts.scale = Some(times(parts.scale.take(), factor, d_sae));
    parts.decoder_scale = Some(times(parts.decoder_scale.take(), 1.0 / factor, d_sae));
    let biases = [&mut parts.decoder_bias, &mut parts.center];
    for values in biases.into_iter().flatten() {
        values.iter_mut().for_each(|value| *value /= factor);
    }
    let note = alloc::format!("folded activation norm factor {factor}");
    parts.about.notes.push(note);
}

/// k: what the caller gives goes before what the file states, and a difference is told.
#[inline(never)]
pub(super) fn k(
    settings: &Settings<'_>,
    stated: Option<usize>,
    source: &str,
    notes: &mut Vec<String>,
) -> Result<usize, Error> {
    match (settings.count("k")?, stated) {
        (Some(k), Some(stated)) => {
            if k != stated {
                notes.push(alloc::format!("k is {k} as given; {source} says {stated}"));
            }
            Ok(k)
        }
        (Some(k), None) | (None, Some(k)) => Ok(k),
        (None, None) => Err(Error::MissingKey {
            key: "k".into(),
            hint: alloc::format!("{source} does not say it; give it as k=32, say"),
        }),
    }
}

/// A factor that must be positive.
#[inline(never)]
pub(super) fn positive(key: &str, factor: f64) -> Result<f64, Error> {
    if factor > 0.0 {
        return Ok(factor);
    }
    Err(Error::InvalidValue {
        key: key.into(),
        expected: "a positive number".into(),
        found: factor.to_string(),
    })
}

/// Publisher, convention and architecture; lists what nobody read. To be called last.
#[inline(never)]
pub(super) fn about(
    publisher: &str,
    convention: &str,
    architecture: &str,
    tensors: &[&Tensors<'_, '_>],
    configs: &[&Config<'_>],
    settings: &Settings<'_>,
) -> Result<About, Error> {
    let mut about = About {
        publisher: publisher.into(),
        convention: convention.into(),
        architecture: architecture.into(),
        ..About::default()
    };
    for tensors in tensors {
        about.ignored_tensors.extend(tensors.ignored()?);
        about.bytes_read += tensors.bytes_read();
    }
    for config in configs {
        about.ignored_keys.extend(config.ignored(settings.strict)?);
    }
    Ok(about)
}

/// The text of a config's key as an owned string.
#[inline(never)]
pub(super) fn owned(config: &Config<'_>, key: &str) -> Result<Option<String>, Error> {
    Ok(config.text(key)?.map(ToString::to_string))
}

/// Two linear layers with a ReLU between them: names of encoder weight `[d_sae, d_in]` and bias,
/// decoder weight `[d_out, d_sae]` and bias. Nothing is subtracted from the input.
#[inline(never)]
pub(super) fn two_layers<'a>(
    tensors: &Tensors<'_, 'a>,
    [w_enc, b_enc, w_dec, b_dec]: [&str; 4],
) -> Result<Parts<'a>, Error> {
    let [d_sae, d_in] = tensors.shape_2d(w_enc)?;
    let [d_out, _] = tensors.shape_2d(w_dec)?;
    let encoder = tensors.matrix(w_enc, FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix(w_dec, FeatureAxis::Second, d_sae, d_out)?;
    let mut parts = Parts::new(encoder, Activation::Relu, decoder);
    parts.bias = Some(tensors.vector(b_enc, d_sae)?);
    parts.decoder_bias = Some(tensors.vector(b_dec, d_out)?);
    Ok(parts)
}
