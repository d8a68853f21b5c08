//! What `inspect` tells about a model.

use super::matrix::Held;
use super::{
    Activation, Hook, HookPoint, Matrix, PackInfo, Parts, ScreenInfo, ScreenOptions, canonical,
    screening,
};
use crate::kernels::Level;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde_json::{Value, json};

/// Where the rows of a model come from, and what a host must do to them before they fit.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Site {
    /// The publisher's hook name, e.g. `blocks.12.hook_resid_post`.
    pub hook_name: Option<String>,
    /// For transcoders: where the output belongs.
    pub hook_name_out: Option<String>,
    /// The model whose activations these are.
    pub model_name: Option<String>,
    /// Whether the training rows began with a BOS token.
    pub prepend_bos: Option<bool>,
    /// Tokens per training context.
    pub context_size: Option<u64>,
    /// Rows must be mean-centred: the model's weights were processed with
    /// `center_writing_weights` before training.
    pub mean_center: bool,
    /// Rows are concatenated attention heads (`hook_z`), flat `[heads * d_head]`.
    pub concatenated_heads: bool,
    /// Whether rows of special tokens (BOS, padding, ..) were left out of training.
    pub exclude_special_tokens: Option<bool>,
    /// Rows at positions below this were left out of training.
    pub first_position: u64,
}

impl Site {
    /// The hook name, read: where the rows come from.
    #[must_use]
    pub fn hook(&self) -> Option<Hook> {
        self.hook_name.as_deref().and_then(Hook::parse)
    }

    /// For transcoders: where the output belongs.
    #[must_use]
    pub fn hook_out(&self) -> Option<Hook> {
        self.hook_name_out.as_deref().and_then(Hook::parse)
    }

    /// What the rows of the language model's embedding matrix are multiplied with before they are
    /// rows of this site: sqrt(d_in) at the embedding of Gemma models, else 1.
    #[must_use]
    pub fn embedding_scale(&self, d_in: usize) -> f64 {
        let embedding = self.hook().is_some_and(|hook| match hook.point {
            HookPoint::Embedding => true,
            HookPoint::ResidPre => hook.layer == 0,
            _ => false,
        });
        let gemma = self.model_name.as_deref().is_some_and(|name| {
            let last = name.rsplit('/').next().unwrap_or(name);
            last.to_ascii_lowercase().starts_with("gemma")
        });
        match embedding && gemma {
            true => libm::sqrt(d_in as f64),
            false => 1.0,
        }
    }
}

/// Which copies of the weights a model holds (design: mapped, compiled set, prepared).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Everything is read from the file's bytes.
    Mapped,
    /// At least one matrix had to be decoded into memory at open, since the file holds it deflated,
    /// quantised, in another number format or as a product; none was copied besides.
    Decoded,
    /// At least one matrix is a copy with one row per feature.
    Prepared,
}

impl State {
    /// `mapped`, `decoded` or `prepared`.
    pub const fn name(self) -> &'static str {
        match self {
            State::Mapped => "mapped",
            State::Decoded => "decoded",
            State::Prepared => "prepared",
        }
    }
}

/// A weight matrix, for `inspect`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MatrixInfo {
    /// Its tensor in the file.
    pub tensor: String,
    /// Format of its weights as they are read.
    pub dtype: &'static str,
    /// `rows`, `columns` (per feature) or `blocks`.
    pub layout: &'static str,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Whether it is read from the file's bytes.
    pub mapped: bool,
}

impl MatrixInfo {
    fn new(matrix: &Matrix<'_>) -> Self {
        MatrixInfo {
            tensor: matrix.tensor().into(),
            dtype: matrix.weight_type().name(),
            layout: matrix.layout().name(),
            bytes: matrix.size_bytes() as u64,
            mapped: matrix.is_mapped(),
        }
    }

    fn to_json(&self) -> Value {
        json!({"tensor": self.tensor, "dtype": self.dtype, "layout": self.layout,
               "bytes": self.bytes, "mapped": self.mapped})
    }
}

/// What [`Sae::prepare`](crate::Sae::prepare) would cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrepareCost {
    /// Whether there is any matrix to copy.
    pub needed: bool,
    /// Bytes of the copies that are held in memory afterwards, beyond the map.
    pub bytes: u64,
    /// Bytes of the screen that would be built, as far as the rule alone lets expect; 0 for none.
    pub screen_bytes: u64,
    /// Bytes read and as many written, once.
    pub reads: u64,
}

impl PrepareCost {
    pub(crate) fn new(parts: &Parts<'_>, screen: &ScreenOptions) -> Self {
        let columns = |matrix: &Matrix<'_>| matrix.column_bytes() as u64;
        let bytes = match parts.activation {
            Activation::Pursuit(_) => columns(&parts.decoder),
            _ => columns(&parts.encoder) + columns(&parts.decoder),
        } + parts.glu.as_ref().map_or(0, |glu| columns(&glu.matrix));
        PrepareCost {
            needed: bytes > 0,
            bytes,
            screen_bytes: screening::bytes(parts, screen),
            reads: bytes,
        }
    }

    /// How long it takes, in words: a transpose runs at about a quarter of memory speed.
    pub fn time_class(&self) -> &'static str {
        match self.reads {
            0 => "nothing to do",
            1..=16_777_216 => "milliseconds",
            16_777_217..=268_435_456 => "under a second",
            268_435_457..=4_294_967_296 => "seconds",
            _ => "tens of seconds",
        }
    }
}

/// Everything `inspect` tells about a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// Who publishes in this form.
    pub publisher: String,
    /// The convention that opened it.
    pub convention: String,
    /// The architecture's name in the file.
    pub architecture: String,
    /// Values per input row.
    pub d_in: usize,
    /// Number of features.
    pub d_sae: usize,
    /// Values per reconstructed row.
    pub d_out: usize,
    /// The selection rule, in words.
    pub activation: String,
    /// The normalisation of the input.
    pub normalization: &'static str,
    /// Whether a vector is subtracted from the input.
    pub centered: bool,
    /// The encoder.
    pub encoder: MatrixInfo,
    /// The decoder.
    pub decoder: MatrixInfo,
    /// The skip connection.
    pub skip: Option<MatrixInfo>,
    /// Where the rows come from.
    pub site: Site,
    /// Which copies are held.
    pub state: State,
    /// Bytes read while opening.
    pub bytes_read_at_open: u64,
    /// What preparing would cost.
    pub prepare: PrepareCost,
    /// The screen that encoding reads, or why there is none.
    pub screen: ScreenInfo,
    /// Bytes of the tensors of a pack with the same dtypes, without screen and self-test.
    pub pack_bytes: u64,
    /// The files it came from.
    pub files: Vec<String>,
    /// Of a model from a pack: where the pack comes from, and whether weights were narrowed.
    pub pack: Option<PackInfo>,
    /// Config keys that nobody reads at inference.
    pub ignored_keys: Vec<String>,
    /// Integer and bool tensors that nobody reads.
    pub ignored_tensors: Vec<String>,
    /// Anything else worth knowing.
    pub notes: Vec<String>,
    /// The instruction set in use.
    pub level: Level,
    /// Why [`Sae::open`](crate::Sae::open) refuses it, if it does: it is a model of another kind,
    /// or its maths is not in this library.
    pub refused: Option<String>,
}

impl Description {
    /// Of parts that need not make a model: what [`Description::open`] gives.
    pub(crate) fn of_parts(parts: &Parts<'_>, level: Level, options: &ScreenOptions) -> Self {
        let refused = parts.other_kind().map(|kind| match kind {
            (name, "") => alloc::format!("unsupported architecture `{name}`"),
            (what, _) => what.into(),
        });
        let screen = ScreenInfo::none(match refused {
            Some(_) => "no rows are encoded",
            None => super::UNPREPARED,
        });
        Description {
            refused,
            ..Self::new(parts, level, options, screen)
        }
    }

    pub(crate) fn new(
        parts: &Parts<'_>,
        level: Level,
        options: &ScreenOptions,
        screen: ScreenInfo,
    ) -> Self {
        let about = &parts.about;
        let skip = parts.skip.as_ref();
        let gate = parts.glu.as_ref().map(|glu| &glu.matrix);
        let matrices = [Some(&parts.encoder), Some(&parts.decoder), skip, gate];
        let held = |wanted: Held| matrices.iter().flatten().any(|m| m.held() == wanted);
        Description {
            publisher: about.publisher.clone(),
            convention: about.convention.clone(),
            architecture: about.architecture.clone(),
            d_in: parts.encoder.width(),
            d_sae: parts.encoder.features(),
            d_out: parts.decoder.width(),
            activation: describe(parts),
            normalization: parts.input_norm.name(),
            centered: parts.center.is_some(),
            encoder: MatrixInfo::new(&parts.encoder),
            decoder: MatrixInfo::new(&parts.decoder),
            skip: skip.map(MatrixInfo::new),
            site: about.site.clone(),
            state: match (held(Held::Copied), held(Held::Decoded)) {
                (true, _) => State::Prepared,
                (false, true) => State::Decoded,
                (false, false) => State::Mapped,
            },
            bytes_read_at_open: about.bytes_read,
            prepare: PrepareCost::new(parts, options),
            screen,
            pack_bytes: canonical::pack_bytes(parts),
            files: about.files.clone(),
            pack: about.pack.clone(),
            ignored_keys: about.ignored_keys.clone(),
            ignored_tensors: about.ignored_tensors.clone(),
            notes: about.notes.clone(),
            level,
            refused: None,
        }
    }

    /// The description as (label, text) pairs, in the order in which people read them.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let matrix = |info: &MatrixInfo| {
            alloc::format!(
                "`{}` {}, {}, {} bytes, {}",
                info.tensor,
                info.dtype,
                match info.layout {
                    "rows" => "one row per feature",
                    "columns" => "one column per feature",
                    _ => "in blocks",
                },
                info.bytes,
                if info.mapped { "mapped" } else { "in memory" }
            )
        };
        let or_unknown =
            |text: &Option<String>| text.clone().unwrap_or_else(|| "not stated".into());
        let mut lines = alloc::vec![
            ("publisher", self.publisher.clone()),
            ("convention", self.convention.clone()),
            ("architecture", self.architecture.clone()),
            (
                "shape",
                alloc::format!(
                    "d_in {}, d_sae {}, d_out {}",
                    self.d_in,
                    self.d_sae,
                    self.d_out
                )
            ),
            ("activation", self.activation.clone()),
            ("normalisation", self.normalization.into()),
            (
                "centred input",
                if self.centered { "yes" } else { "no" }.into()
            ),
            ("encoder", matrix(&self.encoder)),
            ("decoder", matrix(&self.decoder)),
        ];
        if let Some(skip) = &self.skip {
            lines.push(("skip", matrix(skip)));
        }
        lines.push(("model", or_unknown(&self.site.model_name)));
        lines.push(("hook", or_unknown(&self.site.hook_name)));
        if let Some(hook) = &self.site.hook_name_out {
            lines.push(("output hook", hook.clone()));
        }
        let cost = &self.prepare;
        lines.push(("state", self.state.name().into()));
        lines.push((
            "opening",
            alloc::format!("read {} bytes", self.bytes_read_at_open),
        ));
        lines.push((
            "preparing",
            if cost.needed {
                alloc::format!("would hold {} bytes, {}", cost.bytes, cost.time_class())
            } else {
                cost.time_class().into()
            },
        ));
        lines.push(("screen", self.screen.text()));
        lines.push((
            "packing",
            alloc::format!("would write {} bytes", self.pack_bytes),
        ));
        lines.push(("level", self.level.name().into()));
        for file in &self.files {
            lines.push(("file", file.clone()));
        }
        lines.extend(self.pack.iter().flat_map(PackInfo::lines));
        for (label, list) in [
            ("ignored keys", &self.ignored_keys),
            ("ignored tensors", &self.ignored_tensors),
        ] {
            if !list.is_empty() {
                lines.push((label, list.join(", ")));
            }
        }
        for note in &self.notes {
            lines.push(("note", note.clone()));
        }
        if let Some(refused) = &self.refused {
            lines.push(("cannot encode", refused.clone()));
        }
        lines
    }

    /// The description as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "publisher": self.publisher, "convention": self.convention,
            "architecture": self.architecture,
            "d_in": self.d_in, "d_sae": self.d_sae, "d_out": self.d_out,
            "activation": self.activation, "normalization": self.normalization,
            "centered": self.centered,
            "encoder": self.encoder.to_json(), "decoder": self.decoder.to_json(),
            "skip": self.skip.as_ref().map(MatrixInfo::to_json),
            "site": {
                "hook_name": self.site.hook_name, "hook_name_out": self.site.hook_name_out,
                "model_name": self.site.model_name, "prepend_bos": self.site.prepend_bos,
                "context_size": self.site.context_size, "mean_center": self.site.mean_center,
                "concatenated_heads": self.site.concatenated_heads,
                "exclude_special_tokens": self.site.exclude_special_tokens,
                "first_position": self.site.first_position,
            },
            "state": self.state.name(), "bytes_read_at_open": self.bytes_read_at_open,
            "screen": {
                "kind": self.screen.kind, "why": self.screen.why, "bits": self.screen.bits,
                "more_bits": self.screen.more_bits, "whitened": self.screen.whitened,
                "bytes_held": self.screen.bytes_held, "bytes_read": self.screen.bytes_read,
                "seed": alloc::format!("{:016x}", self.screen.seed),
                "delta_exponent": self.screen.delta_exponent, "text": self.screen.text(),
            },
            "prepare": {"needed": self.prepare.needed, "bytes": self.prepare.bytes,
                        "screen_bytes": self.prepare.screen_bytes,
                        "time_class": self.prepare.time_class()},
            "pack_bytes": self.pack_bytes, "files": self.files,
            "pack": self.pack.as_ref().map(PackInfo::to_json),
            "ignored_keys": self.ignored_keys, "ignored_tensors": self.ignored_tensors,
            "notes": self.notes, "level": self.level.name().to_string(),
            "refused": self.refused,
        })
    }
}

/// The rule with its weights and maps.
fn describe(parts: &Parts<'_>) -> String {
    let mut text = parts.activation.describe();
    if parts.glu.is_some() {
        text.push_str(", gated by a sigmoid (glu)");
    }
    if parts.rank_weight.is_some() {
        text.push_str(", ranked by weighted values");
    }
    if let Some(map) = parts.value_map.describe() {
        text.push_str(", ");
        text.push_str(&map);
    }
    text
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, text) in self.lines() {
            writeln!(f, "{label:<16}{text}")?;
        }
        Ok(())
    }
}
