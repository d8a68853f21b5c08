//! EleutherAI's clt-training, a fork of sparsify: coders that write to the layers after them too,
//! with biases and scales behind the encoder. `cfg.json` beside `sae.safetensors`, a folder per
//! layer; a folder of such folders opens as one model.
//!
//! Source: `sparse_coder.py`, `runner.py`, `fused_encoder.py` and `config.py` of
//! EleutherAI/clt-training at cf9821f (August 2025).
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder.weight`, `encoder.bias` | `[n, d]`, `[n]` | rows |
//! | `W_decs.{j}`, `b_decs.{j}` | `[n, d]`, `[d]` | what layer l writes to layer l + j |
//! | `W_skips.{j}` | `[d, d]` | optional; on the row of layer l, multiplied as below |
//! | `post_encs.{j}`, `post_enc_scales.{j}` | `[n]` | p and s; without scales s is 1 |
//! | `W_dec`, `b_dec`, `W_skip`, `post_enc`, `post_enc_scale` | | the same of a coder with one target, or with tied decoders; else copies of the first |
//! | `in_norm`, `out_norm` | `[1]` | with `normalize_io`: a = sqrt(d) / in_norm, g = out_norm / sqrt(d) |
//!
//! ```text
//! z_l = topk(relu(W_l (a_l x_l) + b_l))                  of each layer its own k (or groupmax)
//! v_lt = (z_l + p_l,t-l [z_l > 0]) s_l,t-l
//! y_t = g_t (sum_l c_lt (v_lt W_lt + b_lt + W_skip,lt a_l x_l))       l <= t < l + n_targets
//! ```
//!
//! | config | W_lt |
//! |---|---|
//! | `coalesce_topk: none` | `W_decs.{t-l}` of l; with `per_source_tied` the one `W_dec` of l |
//! | `concat` | `W_dec` of t, for all sources; bias and skip are those of t alone |
//! | `per-layer` | the n rows of `W_dec` of t that belong to its i-th source; bias and skip as above |
//!
//! With `topk_coalesced` layer t keeps the k largest v of all its sources together
//! ([`Targets::coalesced`]). With `divide_cross_layer` c is 1 over the number of other sources, for
//! those; else 1. `secondary_target_tied` writes every value twice, through two decoders, and is
//! refused; so are layers of different k or n, and `batchtopk`, which depends on the batch.
//!
//! One file opens as a model whose output is what the layer adds to each of its targets, side by
//! side, if no other layer has a say in that.

use super::common::{about, k, only, positive};
use super::sparsify::{INFORMATIONAL, check_latents, rule};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::kernels::WeightType;
use crate::model::{Activation, Block, FeatureAxis, Matrix, Parts, Target, Targets};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "clt_training",
    detect,
    open,
};

const CONFIG: &str = "cfg.json";
const FILE: &str = "sae.safetensors";

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    let own = |archive: &Archive<'_>| {
        let has = |name: &str| archive.entry(name).is_some();
        has("encoder.weight") && (has("post_enc") || has("post_encs.0") || has("W_decs.0"))
    };
    match only(checkpoint) {
        Some(archive) => own(archive) || archive.entry("W_decs.0").is_some(),
        None => {
            let layer = |name: &String| name.strip_suffix(FILE).is_some_and(|at| at.ends_with('/'));
            !checkpoint.archives.is_empty()
                && checkpoint.archives.iter().all(|(name, _)| layer(name))
        }
    }
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let mut notes = Vec::new();
    let mut coders: Vec<Coder<'_, 'a>> = Vec::new();
    for (name, archive) in &checkpoint.archives {
        let layer = name.strip_suffix(FILE).filter(|at| at.ends_with('/'));
        let coder = Coder::new(
            checkpoint,
            archive,
            layer.unwrap_or(""),
            settings,
            &mut notes,
        )?;
        coders.push(coder);
    }
    let mut parts = match coders.as_slice() {
        [coder] => {
            coder.alone_makes_sense()?;
            together(&coders, coder.targets)?
        }
        coders => together(coders, coders.len())?,
    };
    if let [coder] = coders.as_slice() {
        // The folder is named after the hook point: `layers.10.mlp`.
        parts.about.site.hook_name = checkpoint.folders.last().cloned();
        if coder.targets > 1 {
            notes.push(alloc::format!(
                "outputs are what this layer adds to itself and the next {}, side by side",
                coder.targets - 1
            ));
        }
    } else {
        let names = coders.iter().map(|coder| coder.layer.trim_end_matches('/'));
        let names: Vec<&str> = names.collect();
        notes.push(alloc::format!(
            "rows are {} layers of {} values, side by side: {}; features are those of each layer \
             after another",
            coders.len(),
            coders.first().map_or(0, |coder| coder.d),
            names.join(", ")
        ));
    }
    let tensors: Vec<&Tensors<'_, 'a>> = coders.iter().map(|coder| &coder.tensors).collect();
    let configs: Vec<&Config<'_>> = coders.iter().map(|coder| &coder.config).collect();
    let site = core::mem::take(&mut parts.about.site);
    let architecture = match coders.iter().any(|coder| coder.multi) {
        true => "multi-target coder",
        false => "topk",
    };
    parts.about = about(
        "clt-training",
        CONVENTION.name,
        architecture,
        &tensors,
        &configs,
        settings,
    )?;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

/// How decoders of several layers meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coalesce {
    /// Every source has its own.
    No,
    Concat,
    PerLayer,
}

/// One layer's file.
struct Coder<'c, 'a> {
    /// Its folder with a slash, or nothing.
    layer: String,
    tensors: Tensors<'c, 'a>,
    config: Config<'c>,
    d: usize,
    n: usize,
    k: usize,
    activation: Activation,
    transcode: bool,
    /// Whether biases and scales are numbered.
    multi: bool,
    /// Whether each target reads the one `W_dec`.
    tied: bool,
    /// Layers that it writes to, at least its own.
    targets: usize,
    sources: usize,
    coalesce: Coalesce,
    selects_anew: bool,
    divides: bool,
    scales: bool,
    skip: bool,
    /// a and g.
    input_scale: Option<f64>,
    output_scale: f64,
}

impl<'c, 'a> Coder<'c, 'a> {
    fn new(
        checkpoint: &'c Checkpoint<'a>,
        archive: &'c Archive<'a>,
        layer: &str,
        settings: &Settings<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let name = alloc::format!("{layer}{CONFIG}");
        let config = checkpoint.need_config(&name, "clt-training keeps k and the targets in it")?;
        config.informational(INFORMATIONAL);
        config.informational(&["dtype", "tp_output", "train_post_encoder", "use_fp8"]);
        let who = match layer {
            "" => "clt-training".to_string(),
            layer => alloc::format!("clt-training, {}", layer.trim_end_matches('/')),
        };
        let tensors = Tensors::new(archive, &who);
        let [n, d] = tensors.shape_2d("encoder.weight")?;
        check_latents(&config, d, n)?;
        let stated = config.count("k")?;
        let k = k(settings, stated, &name, notes)?;
        let activation = rule(&config, k, false)?.0;
        let transcode = config.flag("transcode")?.unwrap_or(false);
        let targets = config.count("n_targets")?.unwrap_or(0);
        let multi = targets > 0 && transcode;
        if config.flag("secondary_target_tied")?.unwrap_or(false) {
            return Err(Error::UnsupportedArchitecture {
                architecture: "clt-training coder with secondary_target_tied".into(),
            });
        }
        let tied = config.flag("per_source_tied")?.unwrap_or(false);
        let coalesce = match config.text("coalesce_topk")? {
            None | Some("none") => Coalesce::No,
            Some("concat") => Coalesce::Concat,
            Some("per-layer") => Coalesce::PerLayer,
            Some(other) => {
                let expected = "none, concat or per-layer";
                return Err(config.invalid("coalesce_topk", expected, &other.into()));
            }
        };
        let anew = config.flag("topk_coalesced")?.unwrap_or(false);
        let (mut input_scale, mut output_scale) = (None, 1.0);
        if config.flag("normalize_io")?.unwrap_or(false) {
            let norm = |name: &str| {
                let found = tensors.scalar(name)?.ok_or_else(|| tensors.missing(name))?;
                positive(name, found)
            };
            let root = libm::sqrt(d as f64);
            input_scale = Some(root / norm("in_norm")?);
            output_scale = norm("out_norm")? / root;
        }
        let this = Coder {
            layer: layer.into(),
            d,
            n,
            k,
            activation,
            transcode,
            multi,
            tied,
            targets: if multi { targets } else { 1 },
            sources: config.count("n_sources")?.unwrap_or(0),
            coalesce,
            selects_anew: anew && coalesce != Coalesce::No,
            divides: config.flag("divide_cross_layer")?.unwrap_or(false)
                && coalesce == Coalesce::No,
            scales: config.flag("post_encoder_scale")?.unwrap_or(false),
            skip: config.flag("skip_connection")?.unwrap_or(false),
            input_scale,
            output_scale,
            tensors,
            config,
        };
        this.note_copies(notes);
        Ok(this)
    }

    /// Numbered tensors come with a copy of the first under the name of the only one.
    fn note_copies(&self, notes: &mut Vec<String>) {
        if !self.multi {
            return;
        }
        if self.coalesce == Coalesce::No {
            self.tensors.skip("b_dec");
            self.tensors.skip("W_skip");
            if !self.tied {
                self.tensors.skip("W_dec");
            }
        }
        if !self.has_post_encs() {
            let layer = self.layer.trim_end_matches('/');
            notes.push(alloc::format!("{layer}: no `post_encs`, taken as 0"));
        }
    }

    fn has_post_encs(&self) -> bool {
        self.tensors.has(match self.multi {
            true => "post_encs.0",
            false => "post_enc",
        })
    }

    /// The tensor of target j, or the only one. What a coder has several of is numbered, so that
    /// every target of a file is there or missing by name.
    fn name(&self, several: &str, one: &str, j: usize) -> String {
        match self.multi && self.coalesce == Coalesce::No {
            true => alloc::format!("{several}.{j}"),
            false => one.into(),
        }
    }

    /// What stands in the place of values at target j, times a factor.
    fn target(&self, j: usize, factor: f64) -> Result<Target, Error> {
        let (bias, scale) = match self.multi {
            true => (
                alloc::format!("post_encs.{j}"),
                alloc::format!("post_enc_scales.{j}"),
            ),
            false => ("post_enc".to_string(), "post_enc_scale".to_string()),
        };
        let bias = match self.has_post_encs() {
            true => Some(self.tensors.vector(&bias, self.n)?),
            false => None,
        };
        let mut scale = match self.scales {
            true => Some(self.tensors.vector(&scale, self.n)?),
            false => None,
        };
        if factor != 1.0 {
            let scale = scale.get_or_insert_with(|| alloc::vec![1.0; self.n]);
            scale.iter_mut().for_each(|scale| *scale *= factor);
        }
        Ok(Target {
            bias: bias.filter(|bias| bias.iter().any(|&bias| bias != 0.0)),
            scale,
        })
    }

    /// What adds to the bias of a target.
    fn bias(&self, j: usize) -> Result<Vec<f64>, Error> {
        self.tensors
            .vector(&self.name("b_decs", "b_dec", j), self.d)
    }

    /// The skip connection to a target, times a factor.
    fn skip(&self, j: usize, factor: f64) -> Result<Option<Matrix<'a>>, Error> {
        if !self.skip {
            return Ok(None);
        }
        let name = self.name("W_skips", "W_skip", j);
        let matrix = self
            .tensors
            .matrix(&name, FeatureAxis::First, self.d, self.d)?;
        let factor = factor * self.input_scale.unwrap_or(1.0);
        if factor == 1.0 {
            return Ok(Some(matrix));
        }
        self.tensors.count_read(matrix.size_bytes());
        let places = (0..self.d).flat_map(|row| (0..self.d).map(move |column| (row, column)));
        let scaled = places.flat_map(|(row, column)| {
            let weight = matrix.weight(row, column) * factor;
            (weight as f32).to_le_bytes()
        });
        let rows: Vec<u8> = scaled.collect();
        let ty = WeightType::F32;
        Ok(Some(Matrix::from_rows(&name, rows, ty, self.d, self.d)))
    }

    /// Whether the file says all that there is to its outputs.
    fn alone_makes_sense(&self) -> Result<(), Error> {
        let others = match self.coalesce {
            Coalesce::No => self.targets > 1 && (self.divides || self.input_scale.is_some()),
            _ => self.multi && (self.targets > 1 || self.sources > 1),
        };
        match others {
            false => Ok(()),
            true => Err(Error::UnsupportedArchitecture {
                architecture: "one layer of a multi-target coder whose outputs depend on other \
                               layers: open the folder that holds all layers"
                    .into(),
            }),
        }
    }

    /// A config value that should be that of the first layer.
    fn same(&self, key: &str, first: usize, found: usize) -> Result<(), Error> {
        match first == found {
            true => Ok(()),
            false => {
                let expected = alloc::format!("{first}, as in the first layer");
                Err(self.config.invalid(key, &expected, &found.into()))
            }
        }
    }
}

/// All layers as one model with so many output sites.
fn together<'a>(coders: &[Coder<'_, 'a>], sites: usize) -> Result<Parts<'a>, Error> {
    let Some(first) = coders.first() else {
        return Err(Error::UnknownConvention {
            found: "no layers".into(),
        });
    };
    let (count, n, d) = (coders.len(), first.n, first.d);
    let (mut encoder, mut bias) = (Vec::new(), Vec::new());
    for (l, coder) in coders.iter().enumerate() {
        coder.same("d_in", d, coder.d)?;
        coder.same("num_latents", n, coder.n)?;
        coder.same("k", first.k, coder.k)?;
        let found = coder.activation.describe();
        if found != first.activation.describe() {
            let expected = "the activation of the first layer";
            return Err(coder.config.invalid("activation", expected, &found.into()));
        }
        if count > 1 && !coder.transcode {
            return Err(coder.config.invalid("transcode", "true", &false.into()));
        }
        if coder.targets > sites - l {
            let expected = alloc::format!("at most the {} layers from this one on", sites - l);
            let found = coder.targets.into();
            return Err(coder.config.invalid("n_targets", &expected, &found));
        }
        let same = (coder.coalesce, coder.selects_anew) == (first.coalesce, first.selects_anew);
        if !same {
            let expected = "what the first layer says, as `topk_coalesced`";
            let found = alloc::format!("{:?}", coder.coalesce).into();
            return Err(coder.config.invalid("coalesce_topk", expected, &found));
        }
        encoder.push(block(l * n, l * d, {
            let tensors = &coder.tensors;
            tensors.matrix("encoder.weight", FeatureAxis::First, n, d)?
        }));
        bias.extend(coder.tensors.vector("encoder.bias", n)?);
    }
    let mut outputs = Outputs::default();
    for t in 0..sites {
        outputs.site(coders, t)?;
    }
    let (features, width) = (count.saturating_mul(n), sites.saturating_mul(d));
    let encoder = Matrix::from_blocks("encoder.weight", features, count * d, encoder)?;
    // Targets go with their blocks into the order in which these are kept.
    let order = |block: &Block<'_>| (block.first_feature, block.first_column);
    outputs.writes.sort_by_key(|(block, _)| order(block));
    let (blocks, each): (Vec<Block<'a>>, Vec<Target>) = outputs.writes.into_iter().unzip();
    let decoder = Matrix::from_blocks("W_decs", features, width, blocks)?;
    let rule = match (&first.activation, count) {
        (Activation::TopK { k, rank, relu }, 2..) => Activation::GroupTopK {
            groups: count,
            k: *k,
            rank: *rank,
            relu: *relu,
        },
        (
            Activation::GroupTopK {
                groups,
                k,
                rank,
                relu,
            },
            _,
        ) => Activation::GroupTopK {
            groups: groups.saturating_mul(count),
            k: *k,
            rank: *rank,
            relu: *relu,
        },
        (rule, _) => rule.clone(),
    };
    let mut parts = Parts::new(encoder, rule, decoder);
    parts.bias = Some(bias);
    if coders.iter().any(|coder| coder.input_scale.is_some()) {
        let scales = coders.iter().map(|coder| coder.input_scale.unwrap_or(1.0));
        parts.scale = Some(scales.flat_map(|a| core::iter::repeat_n(a, n)).collect());
    }
    if !first.transcode {
        // Taken off the scaled row.
        let mut center = first.bias(0)?;
        let scale = first.input_scale.unwrap_or(1.0);
        center.iter_mut().for_each(|value| *value /= scale);
        parts.center = Some(center);
    }
    parts.decoder_bias = Some(outputs.bias);
    if !outputs.skips.is_empty() {
        let skip = Matrix::from_blocks("W_skips", width, count * d, outputs.skips)?;
        parts.skip = Some(skip);
    }
    (parts.input_sites, parts.output_sites) = (count, sites);
    let coalesced = first.selects_anew.then_some(first.k);
    let plain = |target: &Target| target.bias.is_none() && target.scale.is_none();
    if coalesced.is_some() || !each.iter().all(plain) {
        parts.targets = Some(Targets { each, coalesced });
    }
    Ok(parts)
}

fn block(first_feature: usize, first_column: usize, matrix: Matrix<'_>) -> Block<'_> {
    Block {
        first_feature,
        first_column,
        matrix,
    }
}

/// What is written to the sites so far.
#[derive(Default)]
struct Outputs<'a> {
    writes: Vec<(Block<'a>, Target)>,
    skips: Vec<Block<'a>>,
    bias: Vec<f64>,
}

impl<'a> Outputs<'a> {
    fn site(&mut self, coders: &[Coder<'_, 'a>], t: usize) -> Result<(), Error> {
        let live = |&(l, coder): &(usize, &Coder<'_, 'a>)| l <= t && t < l + coder.targets;
        let sources: Vec<_> = coders.iter().enumerate().filter(live).collect();
        // The layer's own coder; of a layer that is opened alone, the one that there is.
        let Some(own) = coders.get(t).or(coders.first()) else {
            return Ok(());
        };
        let (n, d) = (own.n, own.d);
        let scale = own.output_scale;
        let share = match own.divides {
            true => 1.0 / sources.len().saturating_sub(1).max(1) as f64,
            false => 1.0,
        };
        let mut bias = alloc::vec![0.0; d];
        for (i, &(l, coder)) in sources.iter().enumerate() {
            let j = t - l;
            let factor = scale * if j == 0 { 1.0 } else { share };
            let matrix = match own.coalesce {
                Coalesce::No => {
                    let name = match coder.tied {
                        true => "W_dec".to_string(),
                        false => coder.name("W_decs", "W_dec", j),
                    };
                    coder.tensors.matrix(&name, FeatureAxis::First, n, d)?
                }
                Coalesce::Concat => own.tensors.matrix("W_dec", FeatureAxis::First, n, d)?,
                Coalesce::PerLayer => own.rows_of_source(i)?,
            };
            let target = coder.target(j, factor)?;
            self.writes.push((block(l * n, t * d, matrix), target));
            if own.coalesce == Coalesce::No {
                for (sum, value) in bias.iter_mut().zip(coder.bias(j)?) {
                    *sum += value * factor;
                }
                let skip = coder.skip(j, factor)?;
                self.skips
                    .extend(skip.map(|skip| block(t * d, l * d, skip)));
            }
        }
        if own.coalesce != Coalesce::No {
            let all = bias.iter_mut().zip(own.bias(0)?);
            all.for_each(|(sum, value)| *sum = value * scale);
            let skip = own.skip(0, scale)?;
            self.skips
                .extend(skip.map(|skip| block(t * d, t * d, skip)));
        }
        self.bias.extend(bias);
        Ok(())
    }
}

impl<'a> Coder<'_, 'a> {
    /// The decoder rows that belong to the i-th source of this layer.
    fn rows_of_source(&self, i: usize) -> Result<Matrix<'a>, Error> {
        let [rows, _] = self.tensors.shape_2d("W_dec")?;
        let whole = self
            .tensors
            .matrix("W_dec", FeatureAxis::First, rows, self.d)?;
        let range = i * self.n..(i + 1) * self.n;
        let part = (range.end <= rows).then(|| whole.slice(range.clone()));
        part.flatten().ok_or_else(|| Error::Shape {
            tensor: alloc::format!("{}W_dec", self.layer),
            expected: alloc::vec![range.end, self.d],
            found: alloc::vec![rows, self.d],
        })
    }
}
