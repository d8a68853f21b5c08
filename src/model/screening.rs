//! Whether a model has a screen, which one, and what a screen has to know of it.
//!
//! A screen bounds `rank_i` before it is rounded to f32. Rounding is monotone and thresholds are
//! f32, so `rank_i > threshold` needs `p_i > threshold`, and `rank_i >= threshold` needs `p_i`
//! above the f32 below the threshold.
//!
//! # Choice
//!
//! The cost of a row is told in bytes streamed: a byte of the first codes costs one; a byte of a
//! row that is refined or computed exactly more, since rows are met here and there, and each such
//! row a fixed amount besides; a byte of the dense scan a little more than one, for its f64
//! arithmetic. How many rows survive is counted on sample rows where the caller gives some
//! ([`Sae::prepare_with`](crate::Sae::prepare_with)), over a sample of the features; else it is
//! what the rule lets expect. The cheapest form wins; none, if the dense scan does.

use super::{Activation, Matrix, Parts, Pick, Rank, Sae, ValueMap};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::screen::{CodeFormat, PANEL_ROWS, ScreenKernels};
use crate::screen::{Basis, Certificate, DELTA_EXPONENT, EncoderRows, Options, Rules, Screen};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Which screen preparing builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScreenKind {
    /// A proven one if it pays, else none.
    #[default]
    Auto,
    /// A proven one wherever the selection rule allows a screen: bounds hold for every input.
    Proven,
    /// A dithered one wherever the selection rule allows a screen: a decision on an input chosen
    /// without knowledge of the dither is wrong with probability at most `2^-delta_exponent`.
    Dithered,
    /// None: every row of the encoder is read.
    None,
}

impl ScreenKind {
    /// All kinds.
    pub const ALL: [ScreenKind; 4] = [
        ScreenKind::Auto,
        ScreenKind::Proven,
        ScreenKind::Dithered,
        ScreenKind::None,
    ];

    /// `auto`, `proven`, `dithered` or `none`.
    pub const fn name(self) -> &'static str {
        match self {
            ScreenKind::Auto => "auto",
            ScreenKind::Proven => "proven",
            ScreenKind::Dithered => "dithered",
            ScreenKind::None => "none",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How preparing builds a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ScreenOptions {
    /// Which one.
    pub kind: ScreenKind,
    /// Where the dither comes from; from a hash of the weights if `None`.
    pub seed: Option<u64>,
    /// With dither, the probability of a wrong decision is at most two to the minus this; 1 to
    /// 1000.
    pub delta_exponent: u32,
    /// Whether every encode is repeated by the dense scan and compared, bit by bit: a difference
    /// is [`Error::ScreenMismatch`]. Slow; for tests and for trust.
    pub check: bool,
}

impl Default for ScreenOptions {
    fn default() -> Self {
        ScreenOptions {
            kind: ScreenKind::Auto,
            seed: None,
            delta_exponent: DELTA_EXPONENT,
            check: false,
        }
    }
}

impl From<ScreenKind> for ScreenOptions {
    fn from(kind: ScreenKind) -> Self {
        ScreenOptions {
            kind,
            ..ScreenOptions::default()
        }
    }
}

/// What `inspect` tells about a model's screen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScreenInfo {
    /// `proven`, `dithered`, or `none`.
    pub kind: &'static str,
    /// Why this one, or why none.
    pub why: String,
    /// Bits of a code; 0 without a screen.
    pub bits: u32,
    /// Bits that the rows have more which pass the first bound; 0 if there are none.
    pub more_bits: u32,
    /// Whether rows are quantised in the basis of the encoder's Gram matrix.
    pub whitened: bool,
    /// Bytes held.
    pub bytes_held: u64,
    /// Bytes read for each row, before any feature is looked at closer.
    pub bytes_read: u64,
    /// The seed of the dither; 0 without.
    pub seed: u64,
    /// The exponent of delta; 0 without dither.
    pub delta_exponent: u32,
}

impl ScreenInfo {
    pub(crate) fn none(why: impl Into<String>) -> Self {
        ScreenInfo {
            kind: "none",
            why: why.into(),
            bits: 0,
            more_bits: 0,
            whitened: false,
            bytes_held: 0,
            bytes_read: 0,
            seed: 0,
            delta_exponent: 0,
        }
    }

    pub(crate) fn of(screen: &Screen<'_>, why: String) -> Self {
        ScreenInfo {
            kind: match screen.certificate() {
                Certificate::Proven => "proven",
                Certificate::Dithered => "dithered",
            },
            why,
            bits: screen.format().bits(),
            more_bits: if screen.refines() { 2 } else { 0 },
            whitened: screen.whitened(),
            bytes_held: screen.bytes_held() as u64,
            bytes_read: screen.bytes_read() as u64,
            seed: screen.seed(),
            delta_exponent: screen.delta_exponent(),
        }
    }

    /// In one line.
    pub fn text(&self) -> String {
        if self.bits == 0 {
            return format!("none: {}", self.why);
        }
        let mut text = format!("{}, {} bits", self.kind, self.bits);
        if self.more_bits > 0 {
            text.push_str(&format!(" and {} more for survivors", self.more_bits));
        }
        if self.whitened {
            text.push_str(", in the basis of its Gram matrix");
        }
        if self.delta_exponent > 0 {
            text.push_str(&format!(
                ", seed {:016x}, delta 2^-{}",
                self.seed, self.delta_exponent
            ));
        }
        text.push_str(&format!(
            "; holds {} bytes, reads {} for each row; {}",
            self.bytes_held, self.bytes_read, self.why
        ));
        text
    }
}

/// The vectors that a screen is built with.
struct OwnedRules {
    scale: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
    threshold: Option<Vec<f32>>,
}

impl OwnedRules {
    fn borrowed(&self) -> Rules<'_> {
        Rules {
            scale: self.scale.as_deref(),
            bias: self.bias.as_deref(),
            threshold: self.threshold.as_deref(),
        }
    }

    /// Those of every `step`-th feature.
    fn sample(&self, step: usize) -> OwnedRules {
        let every = |values: &Option<Vec<f64>>| {
            let values = values.as_ref()?;
            Some(values.iter().copied().step_by(step).collect())
        };
        let threshold = self.threshold.as_ref();
        OwnedRules {
            scale: every(&self.scale),
            bias: every(&self.bias),
            threshold: threshold.map(|values| values.iter().copied().step_by(step).collect()),
        }
    }
}

/// Why a rule has no screen: it must be possible to tell from a bound on one feature that the
/// feature is not selected.
pub(crate) fn why_none(parts: &Parts<'_>) -> Option<&'static str> {
    if parts.glu.is_some() {
        return Some("a gate (glu) multiplies every value after its bound was formed");
    }
    if matches!(parts.value_map, ValueMap::Distance(_)) {
        return Some("distances are formed after bounds");
    }
    match &parts.activation {
        Activation::Relu
        | Activation::TanhRelu
        | Activation::JumpRelu { .. }
        | Activation::Gated { .. }
        | Activation::TopK { .. }
        | Activation::Pursuit(_) => None,
        Activation::LeakyRelu { .. } => Some("every feature of a leaky ReLU fires"),
        Activation::GroupTopK { .. } => Some("every group has winners of its own: dense"),
        Activation::TopAfa => Some("top-AFA needs the norm of all positive values: dense"),
        Activation::Ensemble(_) => Some("each member has its own"),
    }
}

/// What is asked of one feature: its rank is `scale * S + bias`, before it is rounded to f32, and
/// it is not selected if that is below the threshold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) scale: f64,
    pub(crate) bias: f64,
    /// Minus infinity for rules that rank.
    pub(crate) threshold: f32,
}

/// What a rule asks of a feature, or `None` for a rule that cannot tell from a bound on one feature
/// that it is not selected.
pub(crate) fn asked(parts: &Parts<'_>, i: usize) -> Option<Asked> {
    if why_none(parts).is_some() {
        return None;
    }
    let weight = parts.rank_weight.as_ref().map_or(1.0, |w| w[i]);
    let bias = parts.bias.as_ref().map_or(0.0, |b| b[i]);
    let scale = parts.scale.as_ref().map_or(1.0, |s| s[i]);
    let ranked = |threshold| Asked {
        scale: weight * scale,
        bias: weight * bias,
        threshold,
    };
    match &parts.activation {
        Activation::Relu | Activation::TanhRelu => Some(Asked {
            scale,
            bias,
            threshold: 0.0,
        }),
        Activation::JumpRelu {
            threshold,
            relu,
            inclusive,
        } => {
            let threshold = match inclusive {
                true => threshold.of(i).next_down(),
                false => threshold.of(i),
            };
            // `pre > 0` and a positive weight make a rank above zero.
            Some(ranked(match *relu && weight > 0.0 {
                true => threshold.max(0.0),
                false => threshold,
            }))
        }
        // S > -gate_bias, and scale S > -bias: the quotient is raised by more than the rounding
        // of the product and of the division can take away.
        Activation::Gated { gate_bias } => {
            let gate = gate_bias[i];
            Some(Asked {
                scale: 1.0,
                bias: match scale > 0.0 {
                    true => {
                        let quotient = bias / scale;
                        gate.min(quotient + quotient.abs() * 1e-15)
                    }
                    false => gate,
                },
                threshold: 0.0,
            })
        }
        // A step of a pursuit looks for the one of the highest rank.
        Activation::TopK { .. } | Activation::Pursuit(_) => Some(ranked(f32::NEG_INFINITY)),
        Activation::LeakyRelu { .. }
        | Activation::GroupTopK { .. }
        | Activation::TopAfa
        | Activation::Ensemble(_) => None,
    }
}

/// How many features rank, and whether by magnitude; `None` for rules with thresholds.
fn ranks(activation: &Activation) -> Option<(usize, bool)> {
    match activation {
        Activation::TopK { k, rank, .. } => Some((*k, *rank == Rank::Magnitude)),
        Activation::Pursuit(pursuit) => Some((1, pursuit.pick == Pick::Magnitude)),
        _ => None,
    }
}

/// The same for all features, where a screen can be built.
fn rules(parts: &Parts<'_>) -> Option<OwnedRules> {
    asked(parts, 0)?;
    let all = || (0..parts.encoder.features()).filter_map(|i| asked(parts, i));
    let ranks = ranks(&parts.activation).is_some();
    Some(OwnedRules {
        scale: Some(all().map(|asked| asked.scale).collect()),
        bias: Some(all().map(|asked| asked.bias).collect()),
        threshold: (!ranks).then(|| all().map(|asked| asked.threshold).collect()),
    })
}

impl EncoderRows for Matrix<'_> {
    fn features(&self) -> usize {
        self.features()
    }

    fn width(&self) -> usize {
        self.width()
    }

    fn row(&self, feature: usize, out: &mut [f64]) {
        if let Some(row) = Matrix::row(self, feature) {
            Kernels::best().widen(self.weight_type(), row, out);
            return;
        }
        for (column, out) in out.iter_mut().enumerate() {
            *out = self.weight(feature, column);
        }
    }
}

/// Every `step`-th row.
struct Sample<'r> {
    rows: &'r dyn EncoderRows,
    step: usize,
}

impl EncoderRows for Sample<'_> {
    fn features(&self) -> usize {
        self.rows.features().div_ceil(self.step)
    }
    fn width(&self) -> usize {
        self.rows.width()
    }
    fn row(&self, feature: usize, out: &mut [f64]) {
        self.rows.row(feature * self.step, out);
    }
}

/// Bits of a form and whether survivors have more.
type Form = (CodeFormat, bool);

/// Rows narrower than this are quantised as they are and have no second codes: neither pays.
const WIDE: usize = 512;
/// Bytes streamed in the time that a row takes besides its bytes: preparing the input.
const FIXED: f64 = 60_000.0;
/// What a byte of the dense scan costs.
const DENSE: f64 = 1.4;
/// What a byte of a row costs that is met on its own, and the row besides.
const ALONE: f64 = 2.0;
const ROW: f64 = 2_000.0;
/// What a byte of 8-bit codes costs: nothing is unpacked, so loads and the caches behind them are all
/// there is to wait for.
const WHOLE_BYTES: f64 = 1.4;
/// The same for a row of second codes.
const REFINED_ROW: f64 = 1_000.0;

/// The share of the features that the rule alone lets expect to fire.
fn expected_firing(parts: &Parts<'_>) -> f64 {
    match &parts.activation {
        Activation::Relu | Activation::TanhRelu => 1.0 / 6.0,
        rule => match ranks(rule) {
            Some((k, _)) => k as f64 / parts.encoder.features().max(1) as f64,
            None => 0.005,
        },
    }
}

fn forms(parts: &Parts<'_>, certificate: Certificate) -> Vec<Form> {
    let magnitude = ranks(&parts.activation).is_some_and(|(_, magnitude)| magnitude);
    // Second codes lower upper bounds only.
    let wide = parts.encoder.width() >= WIDE && !magnitude;
    match certificate {
        Certificate::Proven => alloc::vec![(CodeFormat::U6, wide), (CodeFormat::U8, false)],
        Certificate::Dithered => alloc::vec![
            (CodeFormat::U3, wide),
            (CodeFormat::U4, wide),
            (CodeFormat::U6, wide),
        ],
    }
}

/// Shares of the features that pass the first bound, and the last one.
#[derive(Clone, Copy)]
struct Survivors {
    first: f64,
    last: f64,
}

/// Without rows: what passes beyond what fires, from measurements on trained models (see
/// `benches/NOTES.md`).
fn expected(certificate: Certificate, (format, refined): Form, firing: f64) -> Survivors {
    let beyond = match (certificate, format) {
        (Certificate::Proven, CodeFormat::U8) => 0.002 + 0.5 * firing.min(0.2),
        (Certificate::Proven, _) => 0.03 + 3.0 * firing.min(0.2),
        (Certificate::Dithered, CodeFormat::U3) => 0.13 + 4.0 * firing.min(0.2),
        (Certificate::Dithered, CodeFormat::U4) => 0.02 + 2.0 * firing.min(0.2),
        (Certificate::Dithered, _) => 0.003 + 0.5 * firing.min(0.2),
    };
    let share = |beyond: f64| (firing + beyond).min(1.0);
    Survivors {
        first: share(beyond),
        last: share(if refined { beyond / 8.0 } else { beyond }),
    }
}

/// Bytes of a row of codes, and of second codes, without building them.
fn form_bytes((format, refined): Form, features: usize, width: usize) -> (f64, f64) {
    let padded = width.next_multiple_of(64);
    let blocks = padded / 64;
    let panels = features.div_ceil(PANEL_ROWS) * format.panel_bytes(blocks);
    let basis = if width >= WIDE {
        padded * padded / 2
    } else {
        0
    };
    let second = match refined {
        true => (24 + 17 * blocks).next_multiple_of(8),
        false => 0,
    };
    ((panels + basis + 32 * padded) as f64, second as f64)
}

/// What a row costs, in bytes streamed.
fn cost(parts: &Parts<'_>, form: Form, survivors: Survivors) -> f64 {
    let encoder = &parts.encoder;
    let features = encoder.features() as f64;
    let (streamed, second) = form_bytes(form, encoder.features(), encoder.width());
    let refined = match form.1 {
        true => survivors.first * features * (second * ALONE + REFINED_ROW),
        false => 0.0,
    };
    let streamed = match form.0 {
        CodeFormat::U8 => streamed * WHOLE_BYTES,
        _ => streamed,
    };
    let row = encoder.size_bytes() as f64 / features.max(1.0);
    let exact = survivors.last * features * (row * ALONE + ROW);
    FIXED + streamed + refined + exact
}

fn dense_cost(parts: &Parts<'_>) -> f64 {
    parts.encoder.size_bytes() as f64 * DENSE
}

/// Counts survivors of a sample of the features on prepared input rows.
struct Trial<'t> {
    basis: &'t Basis,
    rules: OwnedRules,
    sample: Sample<'t>,
    inputs: &'t [Vec<f32>],
    /// For TopK: how many of the sample rank.
    k: Option<usize>,
    /// Whether magnitudes rank.
    magnitude: bool,
}

impl Trial<'_> {
    fn count(&self, options: &Options<'_>, kernels: &ScreenKernels) -> Result<Survivors, Error> {
        let rules = self.rules.borrowed();
        let screen = Screen::build_on(self.basis, &self.sample, &rules, options, kernels)?;
        let mut work = Vec::new();
        work.resize(screen.work_len(), 0.0);
        let (mut first, mut last) = (0, 0);
        for input in self.inputs {
            let Some(bounds) = screen.bounds(kernels, input, self.k.is_some(), &mut work) else {
                continue;
            };
            match self.k {
                None => {
                    first += bounds.passed_first();
                    last += bounds.kept().count();
                }
                Some(k) => {
                    // The k-th value is near the k-th of the estimates.
                    let sides = bounds.upper().iter().zip(bounds.lower());
                    let sides = sides.map(|(&u, &l)| match self.magnitude {
                        true => ((u + l).abs() / 2.0, u.max(-l)),
                        false => ((u + l) / 2.0, u),
                    });
                    let mut middles: Vec<f32> = sides.clone().map(|(middle, _)| middle).collect();
                    let at = k.clamp(1, middles.len()) - 1;
                    let (_, &mut kth, _) =
                        middles.select_nth_unstable_by(at, |a, b| b.total_cmp(a));
                    for (feature, (_, upper)) in sides.enumerate() {
                        if upper < kth {
                            continue;
                        }
                        first += 1;
                        let closer = match self.magnitude {
                            true => upper,
                            false => bounds.refined_upper(&screen, kernels, feature),
                        };
                        last += usize::from(closer >= kth || closer.is_nan());
                    }
                }
            }
        }
        let all = (self.inputs.len() * screen.features()).max(1) as f64;
        Ok(Survivors {
            first: first as f64 / all,
            last: last as f64 / all,
        })
    }
}

/// The screen that suits these parts, with what `inspect` tells of it. `inputs` are prepared rows
/// (what meets the encoder), or none.
pub(crate) fn build(
    parts: &Parts<'_>,
    options: &ScreenOptions,
    inputs: &[Vec<f32>],
    kernels: &ScreenKernels,
) -> Result<(Option<Screen<'static>>, ScreenInfo), Error> {
    let none = |why: String| Ok((None, ScreenInfo::none(why)));
    if options.kind == ScreenKind::None {
        return none("asked for".into());
    }
    if let Some(why) = why_none(parts) {
        return none(why.into());
    }
    let Some(owned) = rules(parts) else {
        return none("the rule has none".into());
    };
    if parts.encoder.row(0).is_none() {
        return none("the encoder is in blocks".into());
    }
    let (encoder, wide) = (&parts.encoder, parts.encoder.width() >= WIDE);
    let certificate = match options.kind {
        ScreenKind::Dithered => Certificate::Dithered,
        _ => Certificate::Proven,
    };
    let centre = parts.decoder_bias.as_deref();
    let centre = centre.filter(|bias| parts.center.is_none() && bias.len() == encoder.width());
    let build = |(format, refine): Form| Options {
        certificate,
        seed: options.seed,
        delta_exponent: options.delta_exponent,
        format,
        whiten: wide,
        refine,
        centre,
    };
    let dense = dense_cost(parts);
    let firing = expected_firing(parts);
    // What nothing that is read could save is not built.
    let forms = forms(parts, certificate);
    let least = Survivors {
        first: 0.0,
        last: 0.0,
    };
    let pays = |form: &Form| options.kind != ScreenKind::Auto || cost(parts, *form, least) < dense;
    if !forms.iter().any(pays) {
        let size = encoder.size_bytes();
        return none(format!(
            "the encoder has {size} bytes: reading it is as fast"
        ));
    }
    let basis = Basis::build(encoder, wide, kernels)?;
    let features = encoder.features();
    let mut best: Option<(f64, Form, Survivors)> = None;
    let step = (features / 2048).max(1);
    for form in forms {
        let survivors = if inputs.is_empty() {
            expected(certificate, form, firing)
        } else {
            let trial = Trial {
                basis: &basis,
                rules: owned.sample(step),
                sample: Sample {
                    rows: encoder,
                    step,
                },
                inputs,
                k: ranks(&parts.activation).map(|(k, _)| k.div_ceil(step)),
                magnitude: ranks(&parts.activation).is_some_and(|(_, magnitude)| magnitude),
            };
            trial.count(&build(form), kernels)?
        };
        let cost = cost(parts, form, survivors);
        if best.is_none_or(|(least, ..)| cost < least) {
            best = Some((cost, form, survivors));
        }
    }
    let Some((cost, form, survivors)) = best else {
        return none("no form".into());
    };
    let source = match inputs.len() {
        0 => String::from("expected from the rule"),
        rows => format!("measured on {rows} rows"),
    };
    let share = |share: f64| format!("{:.1}%", share * 100.0);
    if options.kind == ScreenKind::Auto && cost >= dense {
        return none(format!(
            "{} of the features would have to be computed anyway ({source}): dense is as fast",
            share(survivors.last)
        ));
    }
    let screen = Screen::build_on(&basis, encoder, &owned.borrowed(), &build(form), kernels)?;
    let passing = match form.1 {
        true => format!(
            "{} pass, then {}",
            share(survivors.first),
            share(survivors.last)
        ),
        false => format!("{} pass", share(survivors.last)),
    };
    let why = format!(
        "costs {:.0}% of the dense scan: {passing} ({source})",
        100.0 * cost / dense
    );
    let info = ScreenInfo::of(&screen, why);
    Ok((Some(screen), info))
}

/// Bytes that [`build`] would hold, and 0 if it would build none: before any pass over weights.
pub(crate) fn bytes(parts: &Parts<'_>, options: &ScreenOptions) -> u64 {
    if options.kind == ScreenKind::None || why_none(parts).is_some() {
        return 0;
    }
    let certificate = match options.kind {
        ScreenKind::Dithered => Certificate::Dithered,
        _ => Certificate::Proven,
    };
    let firing = expected_firing(parts);
    let features = parts.encoder.features();
    let costs = forms(parts, certificate).into_iter().map(|form| {
        let (streamed, second) = form_bytes(form, features, parts.encoder.width());
        let held = streamed + second * features.next_multiple_of(PANEL_ROWS) as f64;
        (cost(parts, form, expected(certificate, form, firing)), held)
    });
    match costs.min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((cost, _)) if options.kind == ScreenKind::Auto && cost >= dense_cost(parts) => 0,
        Some((_, held)) => held as u64,
        None => 0,
    }
}

impl<'a> Sae<'a> {
    /// The screen that encoding reads, if there is one.
    pub fn screen(&self) -> Option<&Screen<'a>> {
        self.screen.as_ref()
    }

    /// The same model, which preparing gives such a screen.
    #[must_use]
    pub fn with_screen_options(mut self, options: ScreenOptions) -> Self {
        self.set_screen_options(options);
        self
    }

    /// Says which screen preparing builds, for the members of an ensemble too.
    pub fn set_screen_options(&mut self, options: ScreenOptions) {
        self.screen_options = options;
        for member in &mut self.members {
            member.set_screen_options(options);
        }
        self.describe_again();
    }

    /// Which screen preparing builds.
    pub fn screen_options(&self) -> &ScreenOptions {
        &self.screen_options
    }

    /// The same model with a screen that was built before, for these very weights and rules
    /// ([`Screen::from_stored`]). The encoder must have one row per feature.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the screen has another shape or belongs to other biases, scales or
    /// thresholds. Whether it belongs to these weights is what [`Sae::check_screen`] tells.
    pub fn with_screen(mut self, screen: Screen<'a>) -> Result<Self, Error> {
        let unfit = |what: &str| Error::Malformed {
            container: "screen",
            what: what.into(),
        };
        if self.parts.encoder.row(0).is_none() {
            return Err(unfit("the encoder does not have one row per feature"));
        }
        let owned = rules(&self.parts);
        let owned = owned.ok_or_else(|| unfit("the selection rule has no screen"))?;
        screen.check_rules(&self.parts.encoder, &owned.borrowed())?;
        self.screen_info = ScreenInfo::of(&screen, "stored".into());
        self.screen = Some(screen);
        self.describe_again();
        Ok(self)
    }

    /// Builds the screen again from the weights and compares every byte; without a screen there is
    /// nothing to check. Takes as long as [`Sae::prepare`].
    ///
    /// # Errors
    /// [`Error::Malformed`] naming what differs; [`Error::OutOfMemory`].
    pub fn check_screen(&self) -> Result<(), Error> {
        match (&self.screen, rules(&self.parts)) {
            (Some(screen), Some(owned)) => {
                self.packed.read_all_rows();
                let kernels = self.screen_kernels();
                screen.check(&self.parts.encoder, &owned.borrowed(), kernels)
            }
            _ => Ok(()),
        }
    }
}
