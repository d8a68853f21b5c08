//! The model in canonical form: input normalisation, encoder, activation, decoder, skip.
//!
//! ```text
//! x' = round32(norm(x) - center)            f64, rounded once
//! S  = W_enc x'                             exact products, f64 lanes (kernels)
//! p  = scale * S + bias ;  pre = round32(p)
//! f  = activation(pre)                      select
//! y  = round32(undo_norm(sum_i f_i decoder_scale_i d_i + b_dec) + W_skip x)
//! ```
//!
//! Publishers' layouts, names and folds end in the conventions; nothing here knows them. Folds
//! stay vectors: no matrix is ever multiplied out.

mod activation;
mod attention;
mod blocks;
pub(crate) mod canonical;
mod check;
mod description;
mod distance;
mod ensemble;
mod hook;
mod knobs;
mod matrix;
mod packed;
mod screening;
mod targets;
mod transforms;

pub use activation::{Activation, Pick, Pursuit, Rank, Refit, Thresholds, ValueMap};
pub use attention::{Attention, ByParts, HeadNorm, Pairs, Rotary};
pub use blocks::Block;
pub use description::{Description, MatrixInfo, PrepareCost, Site, State};
pub use ensemble::{Ensemble, Router};
pub use hook::{Hook, HookPoint};
pub use matrix::{FeatureAxis, Layout, Matrix};
pub(crate) use packed::{Checksum, Packed, SelfTest, StoredScreen};
pub use packed::{PackInfo, SourceFile};
#[cfg(feature = "wgpu")]
pub(crate) use screening::why_none as why_no_screen;
pub(crate) use screening::{Asked, asked};
pub use screening::{ScreenInfo, ScreenKind, ScreenOptions};
pub(crate) use targets::pieces;
pub use targets::{Target, Targets};
pub use transforms::{Transform, Transforms};

use crate::error::Error;
use crate::kernels::screen::ScreenKernels;
use crate::kernels::{Kernels, Level};
use crate::screen::Screen;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// What is done to a row before it is centred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InputNorm {
    /// Nothing.
    None,
    /// `(x - mean) / (sigma + 1e-5)`, sigma the standard deviation with d - 1.
    LayerNorm,
    /// `x * sqrt(d) / |x|`.
    ConstantNorm,
}

impl InputNorm {
    /// The publishers' name for it.
    pub const fn name(self) -> &'static str {
        match self {
            InputNorm::None => "none",
            InputNorm::LayerNorm => "layer_norm",
            InputNorm::ConstantNorm => "constant_norm_rescale",
        }
    }
}

/// All that makes a model, before it is checked. Conventions fill it; [`Sae::from_parts`] checks
/// that it fits together.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// Normalisation of the input row.
    pub input_norm: InputNorm,
    /// Subtracted after normalisation, `[d_in]`.
    pub center: Option<Vec<f64>>,
    /// Encoder: d_sae vectors of d_in weights. A pursuit takes the decoder instead.
    pub encoder: Matrix<'a>,
    /// Per-feature factor of the product, `[d_sae]`. A pursuit takes `decoder_scale` instead.
    pub scale: Option<Vec<f64>>,
    /// Per-feature bias, `[d_sae]`.
    pub bias: Option<Vec<f64>>,
    /// Which features fire.
    pub activation: Activation,
    /// Weights of the ranks, `[d_sae]`, none negative: rules rank and compare
    /// `round32(w_i * p_i)`; the values stay as they are.
    pub rank_weight: Option<Vec<f64>>,
    /// What is made of the selected values.
    pub value_map: ValueMap,
    /// A gate on every pre-activation.
    pub glu: Option<Glu<'a>>,
    /// Decoder: d_sae vectors of d_out weights.
    pub decoder: Matrix<'a>,
    /// Per-feature factor of the value before it meets the decoder, `[d_sae]`.
    pub decoder_scale: Option<Vec<f64>>,
    /// Of a multi-target coder: what stands in place of a value in each block of the decoder.
    pub targets: Option<Targets>,
    /// Added to the reconstruction, `[d_out]`.
    pub decoder_bias: Option<Vec<f64>>,
    /// Whether the output undoes the normalisation of the input.
    pub undo_norm: bool,
    /// Skip connection: d_out vectors of d_in weights, applied to the raw row. Made of blocks it adds
    /// what each of them gives.
    pub skip: Option<Matrix<'a>>,
    /// How many sites (layers, models) the input row is made of, side by side, equally wide.
    pub input_sites: usize,
    /// How many sites the output row is made of.
    pub output_sites: usize,
    /// The attention of a Lorsa, which opens as a [`Lorsa`](crate::Lorsa).
    pub attention: Option<Attention<'a>>,
    /// The transforms of a mixture, which opens as a [`Molt`](crate::Molt).
    pub transforms: Option<Transforms<'a>>,
    /// The architecture, if its maths is not in this library: such parts are described, and no
    /// model is made of them.
    pub unsupported: Option<String>,
    /// What `inspect` tells besides the maths.
    pub about: About,
}

/// The gate of a GLU encoder (OpenMOSS): `p_i = (scale_i S_i + bias_i) sigmoid(G_i + gate_bias_i)`
/// with `G_i` the exact product of the gate's row and the prepared input, and
/// `sigmoid(t) = 1 / (1 + exp(-t))` in f64.
#[derive(Clone, Debug)]
pub struct Glu<'a> {
    /// d_sae vectors of d_in weights.
    pub matrix: Matrix<'a>,
    /// `[d_sae]`
    pub bias: Option<Vec<f64>>,
}

impl<'a> Parts<'a> {
    /// A model without normalisation, centre, scales, biases or skip, to be completed with struct
    /// update syntax.
    pub fn new(encoder: Matrix<'a>, activation: Activation, decoder: Matrix<'a>) -> Self {
        Parts {
            input_norm: InputNorm::None,
            center: None,
            encoder,
            scale: None,
            bias: None,
            activation,
            rank_weight: None,
            value_map: ValueMap::Identity,
            glu: None,
            decoder,
            decoder_scale: None,
            targets: None,
            decoder_bias: None,
            undo_norm: true,
            skip: None,
            input_sites: 1,
            output_sites: 1,
            attention: None,
            transforms: None,
            unsupported: None,
            about: About::default(),
        }
    }

    /// Why no [`Sae`] is made of these parts, if none is: what they are, and how they open instead
    /// (empty if they do not).
    pub(crate) fn other_kind(&self) -> Option<(&str, &'static str)> {
        match (&self.unsupported, &self.attention, &self.transforms) {
            (Some(name), _, _) => Some((name, "")),
            (_, Some(_), _) => Some((
                "lorsa, which attends to the rows before",
                ": open it as a `Lorsa`",
            )),
            (_, _, Some(_)) => Some((
                "molt, which decodes by transforms of the row",
                ": open it as a `Molt`",
            )),
            _ => None,
        }
    }

    /// A pursuit has no encoder of its own: its dictionary is the decoder.
    fn tie(&mut self) {
        if let Activation::Pursuit(_) = self.activation {
            self.encoder = self.decoder.clone();
            self.scale = self.decoder_scale.clone();
        }
    }
}

/// Facts about a checkpoint that do not enter the maths.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Who publishes in this form, e.g. `SAELens`.
    pub publisher: String,
    /// The convention that opened it, e.g. `saelens`.
    pub convention: String,
    /// The architecture's name in the file.
    pub architecture: String,
    /// Where the rows come from and what a host must do to them.
    pub site: Site,
    /// Mean number of features that fire on a row, as its publisher states it.
    pub l0: Option<f64>,
    /// Config keys that no publisher's code reads at inference.
    pub ignored_keys: Vec<String>,
    /// Integer and bool tensors that nobody reads.
    pub ignored_tensors: Vec<String>,
    /// Anything else worth knowing, in words.
    pub notes: Vec<String>,
    /// Bytes read while opening (headers, vectors, whatever was checked).
    pub bytes_read: u64,
    /// The files it came from.
    pub files: Vec<String>,
    /// Of a model from a pack: where the pack comes from.
    pub pack: Option<PackInfo>,
}

/// A sparse autoencoder (or transcoder), ready to encode, decode and read out. Immutable, shared
/// freely between threads; each thread brings its own [`Scratch`](crate::Scratch).
///
/// `'a` is the lifetime of bytes given to [`Sae::from_bytes`]; a model opened from a path is
/// `Sae<'static>`.
#[derive(Debug)]
pub struct Sae<'a> {
    pub(crate) parts: Parts<'a>,
    pub(crate) kernels: &'static Kernels,
    /// Tells models apart, so that a compiled set is not used with another model.
    pub(crate) identity: usize,
    /// Names the features that a row can fire, if the model is prepared and its rule allows it.
    pub(crate) screen: Option<Screen<'a>>,
    screen_options: ScreenOptions,
    screen_info: ScreenInfo,
    /// Of an ensemble.
    pub(crate) members: Vec<Sae<'a>>,
    /// Of a model from a pack.
    pub(crate) packed: Packed<'a>,
    /// Whether features depend on the rows before, so that no row is encoded by itself: the model
    /// of a [`Lorsa`](crate::Lorsa).
    pub(crate) attends: bool,
    /// Of a routed ensemble.
    pub(crate) router: Option<Router<'a>>,
    description: Description,
}

/// What `inspect` says of the screen of a model that is not prepared.
const UNPREPARED: &str = "not prepared";

/// The kernels of a level, which this machine and build must have.
pub(crate) fn kernels_for(level: Level) -> Result<&'static Kernels, Error> {
    Kernels::for_level(level).ok_or_else(|| {
        let available: Vec<&str> = Level::available().map(Level::name).collect();
        Error::LevelUnavailable {
            requested: level.name().into(),
            available: available.join(", "),
        }
    })
}

static NEXT_IDENTITY: AtomicUsize = AtomicUsize::new(1);

impl<'a> Sae<'a> {
    /// Checks that the parts fit together and makes a model of them.
    ///
    /// # Errors
    /// [`Error::Shape`] if a vector or matrix has the wrong size, [`Error::BadValue`] if a vector
    /// holds a value that is not allowed, [`Error::InvalidValue`] for k outside 1 to d_sae,
    /// [`Error::UnsupportedArchitecture`] for parts with attention, transforms or maths that is
    /// missing here.
    pub fn from_parts(mut parts: Parts<'a>) -> Result<Self, Error> {
        if let Some((what, instead)) = parts.other_kind() {
            let architecture = alloc::format!("{what}{instead}");
            return Err(Error::UnsupportedArchitecture { architecture });
        }
        parts.tie();
        let (d_sae, d_in) = (parts.encoder.features(), parts.encoder.width());
        let d_out = parts.decoder.width();
        if d_sae == 0 || d_in == 0 || d_out == 0 || d_sae > u32::MAX as usize {
            return Err(Error::Shape {
                tensor: parts.encoder.tensor().into(),
                expected: alloc::vec![1, 1],
                found: alloc::vec![d_sae, d_in],
            });
        }
        let matrix = |matrix: &Matrix<'_>, features: usize, width: usize| {
            if matrix.features() == features && matrix.width() == width {
                return Ok(());
            }
            Err(Error::Shape {
                tensor: matrix.tensor().into(),
                expected: alloc::vec![features, width],
                found: alloc::vec![matrix.features(), matrix.width()],
            })
        };
        matrix(&parts.decoder, d_sae, d_out)?;
        check::one_block_per_feature(&parts.encoder)?;
        if let Some(skip) = &parts.skip {
            matrix(skip, d_out, d_in)?;
        }
        if let Some(glu) = &parts.glu {
            matrix(&glu.matrix, d_sae, d_in)?;
            check::one_block_per_feature(&glu.matrix)?;
            if let Some(bias) = &glu.bias {
                check::vector("gate_bias", bias, d_sae)?;
            }
        }
        check::sites("input_sites", parts.input_sites, d_in)?;
        check::sites("output_sites", parts.output_sites, d_out)?;
        let finite = |name: &str, values: &Option<Vec<f64>>, length: usize| {
            values
                .as_ref()
                .map_or(Ok(()), |values| check::vector(name, values, length))
        };
        finite("center", &parts.center, d_in)?;
        finite("scale", &parts.scale, d_sae)?;
        finite("bias", &parts.bias, d_sae)?;
        finite("decoder_scale", &parts.decoder_scale, d_sae)?;
        finite("decoder_bias", &parts.decoder_bias, d_out)?;
        if parts.undo_norm && parts.input_norm != InputNorm::None && d_in != d_out {
            return Err(Error::Shape {
                tensor: parts.decoder.tensor().into(),
                expected: alloc::vec![d_sae, d_in],
                found: alloc::vec![d_sae, d_out],
            });
        }
        if let Some(targets) = &parts.targets {
            targets.check(&parts)?;
        }
        check::rule(&parts)?;
        if let Activation::Pursuit(_) = parts.activation {
            parts.about.bytes_read += parts.decoder.size_bytes() as u64;
        }
        Ok(Self::assemble(parts, Kernels::best()))
    }

    /// A model of parts that fit together.
    fn assemble(parts: Parts<'a>, kernels: &'static Kernels) -> Self {
        Sae {
            description: Description::new(
                &parts,
                kernels.level(),
                &ScreenOptions::default(),
                ScreenInfo::none(UNPREPARED),
            ),
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            members: Vec::new(),
            packed: Packed::default(),
            router: None,
            attends: false,
            parts,
            kernels,
            screen: None,
            screen_options: ScreenOptions::default(),
            screen_info: ScreenInfo::none(UNPREPARED),
        }
    }

    /// Values per input row.
    pub fn d_in(&self) -> usize {
        self.parts.encoder.width()
    }

    /// Number of features.
    pub fn d_sae(&self) -> usize {
        self.parts.encoder.features()
    }

    /// Values per reconstructed row.
    pub fn d_out(&self) -> usize {
        self.parts.decoder.width()
    }

    /// How many sites (layers, models) an input row is made of, side by side, equally wide.
    pub fn input_sites(&self) -> usize {
        self.parts.input_sites
    }

    /// How many sites a reconstructed row is made of.
    pub fn output_sites(&self) -> usize {
        self.parts.output_sites
    }

    /// The parts the model is made of.
    pub fn parts(&self) -> &Parts<'a> {
        &self.parts
    }

    /// What `inspect` prints.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.kernels.level()
    }

    /// The same model on another instruction set; the results have the same bits.
    ///
    /// # Errors
    /// [`Error::LevelUnavailable`]; never a fallback.
    pub fn with_level(mut self, level: Level) -> Result<Self, Error> {
        self.kernels = kernels_for(level)?;
        let members = core::mem::take(&mut self.members).into_iter();
        let members = members.map(|member| member.with_level(level));
        self.members = members.collect::<Result<_, _>>()?;
        self.describe_again();
        Ok(self)
    }

    /// What [`Sae::prepare`] would hold and read.
    pub fn prepare_cost(&self) -> PrepareCost {
        PrepareCost::new(&self.parts, &self.screen_options)
    }

    /// Makes the rows-per-feature copies of matrices that the file stores as columns: one pass
    /// over each, at memory speed. The results keep their bits; decoding and reading out single
    /// features become fast. Matrices already in rows stay mapped. Then builds the screen that
    /// [`Sae::screen_options`] asks for.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the model is consumed then.
    pub fn prepare(mut self) -> Result<Self, Error> {
        self.prepare_in_place()?;
        Ok(self)
    }

    /// [`Sae::prepare`] for a model that stays where it is. Scratches and sets made before stay
    /// usable.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the model goes on as it was then, perhaps with its rows, without a
    /// screen.
    pub fn prepare_in_place(&mut self) -> Result<(), Error> {
        self.prepare_rows()?;
        self.build_screen(&[])
    }

    /// The copies in rows, without a screen.
    pub(crate) fn prepare_rows(&mut self) -> Result<(), Error> {
        if !self.members.is_empty() {
            for member in &mut self.members {
                member.prepare_rows()?;
            }
            self.rejoin()?;
            self.describe_again();
            return Ok(());
        }
        let rows = |matrix: &Matrix<'a>| match matrix.column_bytes() {
            0 => Ok(None),
            _ => matrix.to_rows().map(Some),
        };
        let decoder = rows(&self.parts.decoder)?;
        let gate = match &self.parts.glu {
            Some(glu) => rows(&glu.matrix)?,
            None => None,
        };
        let encoder = match self.parts.activation {
            Activation::Pursuit(_) => None,
            _ => rows(&self.parts.encoder)?,
        };
        if let Some(encoder) = encoder {
            self.parts.encoder = encoder;
        }
        if let Some(decoder) = decoder {
            self.parts.decoder = decoder;
        }
        if let (Some(glu), Some(gate)) = (&mut self.parts.glu, gate) {
            glu.matrix = gate;
        }
        self.parts.tie();
        self.describe_again();
        Ok(())
    }

    /// Builds the screen; `inputs` are prepared rows to choose by, or none.
    pub(crate) fn build_screen(&mut self, inputs: &[Vec<f32>]) -> Result<(), Error> {
        if !self.members.is_empty() {
            for member in &mut self.members {
                member.build_screen(&[])?;
            }
            self.screen_info = ScreenInfo::none("each member has its own");
            self.describe_again();
            return Ok(());
        }
        let kernels = self.screen_kernels();
        let (screen, info) = screening::build(&self.parts, &self.screen_options, inputs, kernels)?;
        (self.screen, self.screen_info) = (screen, info);
        self.describe_again();
        Ok(())
    }

    fn describe_again(&mut self) {
        let (options, info) = (&self.screen_options, self.screen_info.clone());
        self.description = Description::new(&self.parts, self.kernels.level(), options, info);
    }

    pub(crate) fn screen_kernels(&self) -> &'static ScreenKernels {
        ScreenKernels::for_level(self.level())
    }

    /// Whether [`Sae::decode`] needs the input rows: the output undoes a normalisation, or a skip
    /// connection (or a transform) reads them.
    pub fn needs_inputs_to_decode(&self) -> bool {
        self.undoes_norm() || self.parts.skip.is_some() || self.parts.transforms.is_some()
    }

    pub(crate) fn undoes_norm(&self) -> bool {
        self.parts.undo_norm && self.parts.input_norm != InputNorm::None
    }

    /// Looks for NaN and infinite weights in every matrix.
    ///
    /// # Errors
    /// [`Error::BadValue`] with tensor and position.
    pub fn check_weights(&self) -> Result<(), Error> {
        let matrices = [
            Some(&self.parts.encoder),
            Some(&self.parts.decoder),
            self.parts.skip.as_ref(),
            self.parts.glu.as_ref().map(|glu| &glu.matrix),
        ];
        for matrix in matrices.into_iter().flatten() {
            matrix.check_finite()?;
        }
        Ok(())
    }
}
