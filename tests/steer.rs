//! Steering against its full form, encode, edit and decode everything, and the promises about
//! bytes that do not change.
#![cfg(feature = "std")]

#[path = "../benches/common/allocations.rs"]
mod allocations;
#[path = "steer/decompose.rs"]
mod decompose;
mod library;
mod reference;

use library::{encode_decode, options};
use reference::model::{self, Model};
use reference::random::{Format, Kind, Random, Tensors};
use reference::{read, steer as full};
use sae::steer::{
    Batch, Condition, Conflicts, Edit, FeatureStatistics, Outcome, OverBudget, Plan, Report,
    RowInfo, Rule, Stage, Statistics, SteerScratch, Strength, Target,
};
use sae::{Dtype, Level, Rows, RowsMut, Sae};
use serde_json::json;

/// Architectures and input normalisations of the models that every property is tried on.
const ARCHITECTURES: [&str; 9] = [
    "standard",
    "gated",
    "jumprelu",
    "topk",
    "abstopk",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
];
const NORMALIZATIONS: [&str; 4] = [
    "none",
    "layer_norm",
    "constant_norm_rescale",
    "expected_average_only_in",
];

/// A small random model, as a file and as the reference's.
struct Made {
    name: String,
    file: Vec<u8>,
    config: String,
    given: Vec<(String, String)>,
    model: Model,
    seed: u64,
}

impl Made {
    fn new(architecture: &str, normalization: &str, format: Format, seed: u64) -> Self {
        let mut random = Random(seed);
        let transcoder = architecture.ends_with("transcoder");
        let topk = architecture.ends_with("topk");
        let (d_in, d_sae) = (3 + random.below(40), 20 + random.below(300));
        let d_out = match transcoder {
            true => 3 + random.below(40),
            false => d_in,
        };
        let mut tensors = Tensors::default();
        let mut add = |name: &str, shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            let numbers = (0..count).flat_map(|_| format.random(Kind::Spread, &mut random));
            let bytes: Vec<u8> = numbers.collect();
            tensors.add(name, format, shape, &bytes);
        };
        add("W_enc", &[d_in, d_sae]);
        add("W_dec", &[d_sae, d_out]);
        add("b_dec", &[d_out]);
        if architecture == "gated" {
            add("b_gate", &[d_sae]);
            add("b_mag", &[d_sae]);
            add("r_mag", &[d_sae]);
        } else {
            add("b_enc", &[d_sae]);
        }
        if architecture.starts_with("jumprelu") {
            add("threshold", &[d_sae]);
        }
        if architecture.contains("skip") {
            add("W_skip", &[d_out, d_in]);
        }
        let scaled = seed.is_multiple_of(3);
        if scaled && !topk {
            add("finetuning_scaling_factor", &[d_sae]);
        }
        let config = json!({
            "architecture": architecture, "d_in": d_in, "d_sae": d_sae, "k": 1 + d_sae / 9,
            "normalize_activations": normalization,
            "apply_b_dec_to_input": !transcoder && seed.is_multiple_of(2),
            "rescale_acts_by_decoder_norm": topk && scaled,
            "finetuning_scaling_factor": !topk && scaled,
            "activation_fn_str": "relu",
        });
        let mut given = vec![];
        if normalization == "expected_average_only_in" {
            given.push(("norm_scaling_factor".to_string(), "0.75".to_string()));
        }
        let file = tensors.safetensors(random.below(9));
        Made {
            name: format!("{architecture}, {normalization}, {format:?}, seed {seed}"),
            model: model::saelens(&read::safetensors(&file), &config, &given),
            config: config.to_string(),
            file,
            given,
            seed,
        }
    }

    fn open(&self, level: Level) -> Sae<'_> {
        let (name, config) = ("sae_weights.safetensors", Some(self.config.as_str()));
        let sae = Sae::from_bytes(name, &self.file, config, &options(&self.given, level));
        sae.unwrap_or_else(|error| panic!("{error}: {}", self.name))
    }

    /// Rows in a format: their bytes.
    fn rows(&self, format: Format, rows: usize, width: usize, salt: u64) -> Vec<u8> {
        let mut random = Random(self.seed ^ salt.wrapping_mul(0x9e37_79b9));
        let numbers = (0..rows * width).flat_map(|_| format.random(Kind::Spread, &mut random));
        numbers.collect()
    }
}

/// All architectures and normalisations, in a weight format that goes round.
fn all() -> impl Iterator<Item = Made> {
    let formats = [Format::F32, Format::F16, Format::BF16];
    let pairs = ARCHITECTURES
        .iter()
        .flat_map(|architecture| NORMALIZATIONS.map(|norm| (*architecture, norm)));
    pairs.enumerate().map(move |(i, (architecture, norm))| {
        Made::new(architecture, norm, formats[i % 3], 1000 + i as u64)
    })
}

fn dtype(format: Format) -> (Dtype, usize) {
    match format {
        Format::F32 => (Dtype::F32, 4),
        Format::F16 => (Dtype::F16, 2),
        Format::BF16 => (Dtype::BF16, 2),
    }
}

/// The unit in the last place of a format at a value.
fn ulp(format: Format, value: f64) -> f64 {
    let (digits, smallest) = match format {
        Format::F32 => (24, -149),
        Format::F16 => (11, -24),
        Format::BF16 => (8, -133),
    };
    let exponent = match value {
        0.0 => smallest,
        _ => (value.abs().log2().floor() as i32 + 1 - digits).max(smallest),
    };
    2f64.powi(exponent)
}

/// What a call to steer is made of, besides the rows.
#[derive(Default, Clone)]
struct Given<'g> {
    inputs: Option<Vec<f32>>,
    infos: Option<&'g [RowInfo]>,
    sources: Option<&'g [f32]>,
    dry_run: bool,
}

/// Steers rows with plans and says what became of them.
struct Steered {
    bytes: Vec<u8>,
    outcomes: Vec<Outcome>,
    changes: Vec<f64>,
    report: Report,
}

fn steer_with(
    sae: &Sae<'_>,
    plans: &[Plan],
    conflicts: Conflicts,
    rows: &[u8],
    format: Format,
    given: &Given<'_>,
) -> Steered {
    let (dtype, size) = dtype(format);
    let width = sae.d_out() * size;
    let count = rows.len() / width;
    let plan = sae.compile_plans(plans, conflicts);
    let plan = plan.unwrap_or_else(|error| panic!("{error}"));
    let mut steered = Steered {
        bytes: rows.to_vec(),
        outcomes: vec![Outcome::Filtered; count],
        changes: vec![f64::NAN; count * sae.d_out()],
        report: Report::new(&plan),
    };
    let mut scratch = SteerScratch::new(sae, &plan).unwrap();
    let output = RowsMut::from_bytes(&mut steered.bytes, dtype, count, sae.d_out(), width);
    let mut batch = Batch::new(output.unwrap());
    let inputs = given.inputs.as_ref();
    batch.inputs = inputs.map(|inputs| Rows::from_f32(inputs, sae.d_in()).unwrap());
    batch.infos = given.infos;
    batch.sources = given
        .sources
        .map(|sources| Rows::from_f32(sources, sae.d_in()).unwrap());
    batch.dry_run = given.dry_run;
    batch.outcomes = Some(&mut steered.outcomes);
    batch.changes = Some(&mut steered.changes);
    sae.steer(&plan, batch, &mut scratch, &mut steered.report)
        .unwrap_or_else(|error| panic!("{error}"));
    steered
}

fn steer(sae: &Sae<'_>, plan: &Plan, rows: &[u8], format: Format, given: &Given<'_>) -> Steered {
    let plans = std::slice::from_ref(plan);
    steer_with(sae, plans, Conflicts::Refuse, rows, format, given)
}

/// Rows for a model: inputs (None where they are the rows themselves) and rows at the output.
fn site(made: &Made, format: Format, rows: usize) -> (Given<'static>, Vec<u8>) {
    let bytes = made.rows(format, rows, made.model.d_out, 1);
    let transcoder = made.name.contains("transcoder");
    let inputs = transcoder.then(|| {
        let bytes = made.rows(Format::F32, rows, made.model.d_in, 2);
        Format::F32.widen(&bytes)
    });
    let given = Given {
        inputs,
        ..Given::default()
    };
    (given, bytes)
}

/// Row `row` at the input site, in f32.
fn input_row(made: &Made, given: &Given<'_>, bytes: &[u8], format: Format, row: usize) -> Vec<f32> {
    let width = made.model.d_in;
    match &given.inputs {
        Some(inputs) => inputs[row * width..][..width].to_vec(),
        None => format.widen(bytes)[row * width..][..width].to_vec(),
    }
}

/// Compares a steered row with the reference's, within the rounding of the format and of f64 sums.
#[track_caller]
fn assert_close(name: &str, format: Format, found: &[f32], expected: &(Vec<f64>, Vec<f64>)) {
    for (c, &found) in found.iter().enumerate() {
        let (value, scale) = (expected.0[c], expected.1[c]);
        // Half a unit, doubled where the two values lie in neighbouring binades.
        let unit = ulp(format, value).max(ulp(format, f64::from(found)));
        let bound = unit / 2.0 + 2f64.powi(-44) * scale;
        let error = (f64::from(found) - value).abs();
        assert!(error <= bound, "{name}: column {c}: {found} for {value}");
    }
}

const RULES: [(&str, Rule); 9] = [
    ("set", Rule::Set),
    ("add", Rule::Add),
    ("scale", Rule::Scale),
    ("max_clamp", Rule::MaxClamp),
    ("min_cap", Rule::MinCap),
    ("zero", Rule::Zero),
    ("negative_when_active", Rule::NegativeWhenActive),
    ("replace_positive", Rule::ReplacePositive),
    ("remove", Rule::Remove),
];

/// A plan with all rules, and what it makes of dense features.
fn mixed_plan(made: &Made) -> (Plan, Vec<(usize, &'static str, f64)>) {
    let mut random = Random(made.seed ^ 77);
    let mut plan = Plan::new("mixed");
    let mut edits = vec![];
    for i in 0..made.model.d_sae {
        if random.below(3) == 0 {
            let (name, rule) = RULES[random.below(RULES.len())];
            let c = f64::from(random.number()) * 3.0;
            plan = plan.edit(Edit::new(i as u32, rule, c));
            edits.push((i, name, c));
        }
    }
    (plan, edits)
}

#[test]
fn every_rule_on_every_model_is_the_full_form() {
    for made in all() {
        let (plan, edits) = mixed_plan(&made);
        for format in [Format::F32, Format::F16, Format::BF16] {
            let (given, bytes) = site(&made, format, 3);
            let sae = made.open(Level::best());
            for keep in [true, false] {
                let plan = if keep {
                    plan.clone()
                } else {
                    plan.clone().drop_error()
                };
                let steered = steer(&sae, &plan, &bytes, format, &given);
                let found = format.widen(&steered.bytes);
                let old = format.widen(&bytes);
                for row in 0..3 {
                    let x = input_row(&made, &given, &bytes, format, row);
                    let before = full::features(&made.model, &x);
                    let mut after = before.clone();
                    for &(i, name, c) in &edits {
                        after[i] = full::rule(name, before[i], c);
                    }
                    let d_out = made.model.d_out;
                    let y: Vec<f64> = old[row * d_out..][..d_out]
                        .iter()
                        .map(|&y| y.into())
                        .collect();
                    let expected = full::full(&made.model, &x, &y, &before, &after, keep);
                    let found = &found[row * d_out..][..d_out];
                    assert_eq!(steered.outcomes[row], Outcome::Edited, "{}", made.name);
                    assert_close(&made.name, format, found, &expected);
                }
            }
        }
    }
}

#[test]
fn dropping_the_error_without_edits_is_decode() {
    for made in all() {
        let sae = made.open(Level::best());
        let (given, bytes) = site(&made, Format::F32, 4);
        let inputs = given.inputs.clone().unwrap_or(Format::F32.widen(&bytes));
        let (_, expected) = encode_decode(&sae, Rows::from_f32(&inputs, sae.d_in()).unwrap());
        let plan = Plan::new("reconstruct").drop_error();
        let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
        let found = Format::F32.widen(&steered.bytes);
        assert_eq!(
            library::bits(&found),
            library::bits(&expected),
            "{}",
            made.name
        );
    }
}

#[test]
fn pre_activations_are_read_whether_or_not_a_feature_fires() {
    for made in all() {
        let sae = made.open(Level::best());
        let (given, bytes) = site(&made, Format::F32, 2);
        let features = [1u32, 4, 17];
        let plan = Plan::new("SpARE")
            .edit(Edit {
                target: Target::Features(features[..2].to_vec()),
                ..Edit::new(0, Rule::Remove, 0.75).of_pre_activation()
            })
            .edit(Edit::max_clamp(17, 1.5).of_pre_activation());
        assert!(!sae.plan_cost(&plan).unwrap().needs_encode, "{}", made.name);
        let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
        let found = Format::F32.widen(&steered.bytes);
        for row in 0..2 {
            let x = input_row(&made, &given, &bytes, Format::F32, row);
            let z = full::pre_activations(&made.model, &x);
            let mut change = vec![0.0; made.model.d_sae];
            for i in [1, 4] {
                change[i] = -z[i].clamp(0.0, 0.75);
            }
            change[17] = (1.5 - z[17]).max(0.0);
            let d_out = made.model.d_out;
            let old = &Format::F32.widen(&bytes)[row * d_out..][..d_out];
            let y: Vec<f64> = old.iter().map(|&y| y.into()).collect();
            let nothing = vec![0.0; made.model.d_sae];
            let expected = full::full(&made.model, &x, &y, &nothing, &change, true);
            assert_close(
                &made.name,
                Format::F32,
                &found[row * d_out..][..d_out],
                &expected,
            );
        }
    }
}

#[test]
fn levels_layouts_batches_and_threads_give_the_same_bytes() {
    for made in all() {
        let (plan, _) = mixed_plan(&made);
        let plans = [
            plan.clone(),
            plan.clone().drop_error(),
            plan.keep_only(&[0, 3, 5]),
        ];
        for (i, plan) in plans.iter().enumerate() {
            let format = [Format::F32, Format::F16, Format::BF16][i];
            let (given, bytes) = site(&made, format, 6);
            let first = steer(&made.open(Level::Scalar), plan, &bytes, format, &given);
            for level in Level::available() {
                let sae = made.open(level);
                assert_eq!(steer(&sae, plan, &bytes, format, &given).bytes, first.bytes);
                let sae = sae.prepare().unwrap();
                assert_eq!(steer(&sae, plan, &bytes, format, &given).bytes, first.bytes);
            }
            // In two threads, each with its own work space.
            let sae = made.open(Level::best());
            let compiled = sae.compile_plan(plan).unwrap();
            let (dtype, size) = dtype(format);
            let mut split = bytes.clone();
            let rows = RowsMut::from_bytes(&mut split, dtype, 6, sae.d_out(), sae.d_out() * size);
            let (one, two) = rows.unwrap().split_at(2);
            let inputs = given.inputs.as_deref();
            let inputs = inputs.map(|inputs| Rows::from_f32(inputs, sae.d_in()).unwrap());
            let mut report = Report::new(&compiled);
            std::thread::scope(|scope| {
                let threads = [(one, 0, 2), (two, 2, 4)].map(|(rows, start, count)| {
                    let (sae, compiled) = (&sae, &compiled);
                    scope.spawn(move || {
                        let mut scratch = SteerScratch::new(sae, compiled).unwrap();
                        let mut report = Report::new(compiled);
                        let mut batch = Batch::new(rows);
                        batch.inputs = inputs.map(|inputs| inputs.part(start, count));
                        sae.steer(compiled, batch, &mut scratch, &mut report)
                            .unwrap();
                        report
                    })
                });
                for thread in threads {
                    report.merge(&thread.join().unwrap()).unwrap();
                }
            });
            assert_eq!(split, first.bytes, "{}", made.name);
            assert_eq!(report.rows(), 6);
            assert_eq!(
                report.count(Outcome::Edited),
                first.report.count(Outcome::Edited)
            );
        }
    }
}

#[test]
fn nothing_to_do_leaves_every_byte() {
    for made in all() {
        let sae = made.open(Level::best());
        let format = Format::F32;
        let (given, mut bytes) = site(&made, format, 3);
        bytes[..4].copy_from_slice(&(-0.0f32).to_le_bytes());
        let values = |plan: &Plan, expected: Outcome| {
            let steered = steer(&sae, plan, &bytes, format, &given);
            assert_eq!(steered.bytes, bytes, "{}: {}", made.name, plan.name);
            assert_eq!(
                steered.outcomes, [expected; 3],
                "{}: {}",
                made.name, plan.name
            );
            assert!(steered.changes.iter().all(|&change| change == 0.0));
        };
        values(&Plan::new("empty"), Outcome::Unchanged);
        values(
            &Plan::new("add 0").edit(Edit::add(3, 0.0)),
            Outcome::Unchanged,
        );
        values(
            &Plan::new("scale by 1").edit(Edit::scale(3, 1.0)),
            Outcome::Unchanged,
        );
        values(
            &Plan::new("low floor").edit(Edit::max_clamp(3, -1e9)),
            Outcome::Unchanged,
        );
        values(
            &Plan::new("high cap").edit(Edit::min_cap(3, 1e9)),
            Outcome::Unchanged,
        );
        let filtered = Plan::new("filtered").edit(Edit::add(3, 1.0)).skip_first(9);
        values(&filtered, Outcome::Filtered);
        let unmet = Condition::over(2, 1e9);
        let conditional = Plan::new("unmet").edit(Edit::add(3, 1.0)).when(unmet);
        values(&conditional, Outcome::Unchanged);
    }
}

#[test]
fn adding_and_taking_away_the_recorded_change_comes_back() {
    for made in all() {
        let sae = made.open(Level::best());
        let (plan, _) = mixed_plan(&made);
        for format in [Format::F32, Format::F16, Format::BF16] {
            let (given, bytes) = site(&made, format, 2);
            let steered = steer(&sae, &plan, &bytes, format, &given);
            let (old, new) = (format.widen(&bytes), format.widen(&steered.bytes));
            for (c, change) in steered.changes.iter().enumerate() {
                let (old, there) = (f64::from(old[c]), f64::from(new[c]));
                // One rounding on the way there, one on the way back.
                let bound = ulp(format, old + change) / 2.0 + ulp(format, old) / 2.0;
                let mut back = there - change;
                if format == Format::F32 {
                    back = f64::from(back as f32);
                }
                let error = (back - old).abs();
                assert!(error <= bound, "{}: {error} > {bound}", made.name);
            }
        }
    }
}

#[test]
fn rows_that_are_not_finite_stay_and_are_counted() {
    for made in all() {
        let sae = made.open(Level::best());
        let (plan, _) = mixed_plan(&made);
        let (mut given, bytes) = site(&made, Format::F32, 4);
        let width = made.model.d_out * 4;
        let clean = steer(&sae, &plan, &bytes, Format::F32, &given).bytes;
        let mut broken = bytes.clone();
        broken[width..width + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        broken[2 * width..2 * width + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let steered = steer(&sae, &plan, &broken, Format::F32, &given);
        assert_eq!(steered.bytes[..width], clean[..width]);
        assert_eq!(steered.bytes[width..3 * width], broken[width..3 * width]);
        assert_eq!(steered.bytes[3 * width..], clean[3 * width..]);
        let (fine, bad) = (Outcome::Edited, Outcome::NonFinite);
        assert_eq!(steered.outcomes, [fine, bad, bad, fine]);
        assert_eq!(steered.report.count(bad), 2);
        if let Some(inputs) = &mut given.inputs {
            inputs[0] = f32::NAN;
            let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
            assert_eq!(steered.outcomes[0], bad);
            assert_eq!(steered.bytes[..width], bytes[..width]);
        }
    }
}

#[test]
fn a_result_that_does_not_fit_the_format_is_not_written() {
    let made = Made::new("standard", "none", Format::F32, 5);
    let sae = made.open(Level::best());
    for format in [Format::F32, Format::F16, Format::BF16] {
        let (given, bytes) = site(&made, format, 2);
        for strength in [1e39, 1e300] {
            let plan = Plan::new("huge").edit(Edit::add(3, strength));
            let steered = steer(&sae, &plan, &bytes, format, &given);
            assert_eq!(steered.bytes, bytes);
            assert_eq!(steered.outcomes, [Outcome::Overflow; 2]);
        }
    }
}

#[test]
fn strides_and_bytes_between_rows_stay() {
    let made = Made::new("jumprelu", "none", Format::F32, 11);
    let sae = made.open(Level::best());
    let (plan, _) = mixed_plan(&made);
    let (given, bytes) = site(&made, Format::F16, 3);
    let expected = steer(&sae, &plan, &bytes, Format::F16, &given).bytes;
    let width = sae.d_out() * 2;
    let mut spread = vec![0xff_u8; 1];
    for row in bytes.chunks_exact(width) {
        spread.extend(row);
        spread.extend([0xff; 5]);
    }
    let compiled = sae.compile_plan(&plan).unwrap();
    let mut scratch = SteerScratch::new(&sae, &compiled).unwrap();
    let mut report = Report::new(&compiled);
    let rows = RowsMut::from_bytes(&mut spread[1..], Dtype::F16, 3, sae.d_out(), width + 5);
    sae.steer(
        &compiled,
        Batch::new(rows.unwrap()),
        &mut scratch,
        &mut report,
    )
    .unwrap();
    for (row, expected) in expected.chunks_exact(width).enumerate() {
        let start = 1 + row * (width + 5);
        assert_eq!(spread[start..start + width], *expected);
        assert_eq!(spread[start + width..][..5], [0xff; 5]);
    }
}

/// A model of three features whose numbers can be followed by hand: encoder and decoder rows are
/// (1, 0), (0, 1) and (-0.5, -0.5) and (-1, -1), ReLU, no biases.
fn tiny() -> (String, Vec<u8>, String) {
    sae::doc_example::tiny()
}

/// Steers rows of the tiny model.
fn steer_tiny(plan: &Plan, rows: &[f32], given: &Given<'_>) -> (Vec<f32>, Steered) {
    let (name, file, config) = tiny();
    let sae = Sae::from_bytes(&name, &file, Some(&config), &Default::default()).unwrap();
    let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let steered = steer(&sae, plan, &bytes, Format::F32, given);
    (Format::F32.widen(&steered.bytes), steered)
}

fn tiny_error(plans: &[Plan], conflicts: Conflicts) -> String {
    let (name, file, config) = tiny();
    let sae = Sae::from_bytes(&name, &file, Some(&config), &Default::default()).unwrap();
    match sae.compile_plans(plans, conflicts) {
        Ok(_) => panic!("it compiles: {plans:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn strengths_have_five_scales() {
    let mut statistics = Statistics::new();
    let of_0 = FeatureStatistics {
        max: Some(10.0),
        mean: Some(2.0),
        deviation: Some(0.5),
    };
    statistics.insert(0, of_0);
    // Features of (3, 4): 3, 4 and 0; length 5.
    let cases = [
        (Strength::absolute(1.5), 1.5),
        (Strength::corpus_max(0.5), 5.0),
        (Strength::corpus_mean(3.0), 6.0),
        (Strength::corpus_mean(1.0).plus_deviations(2.0), 3.0),
        (Strength::current_max(0.5), 2.0),
        (Strength::row_norm(0.2), 1.0),
    ];
    for (strength, amount) in cases {
        let plan = Plan::new("scale")
            .edit(Edit::add(0, strength.clone()))
            .statistics(statistics.clone());
        let (found, _) = steer_tiny(&plan, &[3.0, 4.0], &Given::default());
        assert_eq!(found, [3.0 + amount, 4.0], "{strength:?}");
        let plan = Plan::new("direction")
            .direction("v", vec![0.0, 2.0])
            .edit(Edit::add_direction("v", strength.clone()));
        if strength.of == sae::steer::Scale::CorpusMax
            || strength.of == sae::steer::Scale::CorpusMean
        {
            let error = tiny_error(&[plan], Conflicts::Refuse);
            assert!(error.starts_with("`edits[0].strength`: "), "{error}");
            continue;
        }
        let (found, _) = steer_tiny(&plan, &[3.0, 4.0], &Given::default());
        assert_eq!(found, [3.0, 4.0 + 2.0 * amount], "{strength:?}");
    }
}

#[test]
fn row_norms_are_in_the_units_of_the_row() {
    for made in all() {
        let sae = made.open(Level::best());
        let (given, bytes) = site(&made, Format::F32, 1);
        let plan = Plan::new("norm").edit(Edit::add(2, Strength::row_norm(0.25)));
        let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
        let y: Vec<f64> = Format::F32
            .widen(&bytes)
            .iter()
            .map(|&y| y.into())
            .collect();
        let length = model::dot(&y, &y).sqrt();
        let scale = made
            .model
            .decoder_scale
            .as_ref()
            .map_or(1.0, |scale| scale[2]);
        for (c, (change, d)) in steered
            .changes
            .iter()
            .zip(made.model.decoder_row(2))
            .enumerate()
        {
            let expected = 0.25 * length * scale * d;
            let error = (change - expected).abs();
            assert!(
                error <= 1e-12 * length,
                "{}: {c}: {change} for {expected}",
                made.name
            );
        }
    }
}

#[test]
fn directions_are_added_projected_capped_and_clamped() {
    let v = vec![0.6f32, 0.8];
    let base = Plan::new("direction").unit_direction("v", v);
    let on = |rule, strength: f64| Edit::on(Target::Direction("v".into()), rule, strength);
    // <(3, 4), v> = 5 (but for the rounding of v), <(-3, -4), v> = -5.
    let cases = [
        (on(Rule::Add, 2.0), [7.0, -3.0]),
        (on(Rule::Set, 2.0), [2.0, 2.0]),
        (Edit::project_out("v"), [0.0, 0.0]),
        (on(Rule::MinCap, 2.0), [2.0, -5.0]),
        (on(Rule::MaxClamp, 2.0), [5.0, 2.0]),
        // AxBench: h - relu(<h, v>) v + c v
        (on(Rule::ReplacePositive, 2.0), [2.0, -3.0]),
        // AxBench: + m v only where <h, v> < m
        (on(Rule::Add, 2.0).under(2.0), [5.0, -3.0]),
        (on(Rule::Scale, 3.0), [15.0, -15.0]),
    ];
    for (edit, coefficients) in cases {
        let plan = base.clone().edit(edit.clone());
        let (found, _) = steer_tiny(&plan, &[3.0, 4.0, -3.0, -4.0], &Given::default());
        for (row, coefficient) in found.chunks_exact(2).zip(coefficients) {
            let expected = [0.6 * coefficient, 0.8 * coefficient];
            for (found, expected) in row.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-5, "{edit:?}: {row:?} for {expected:?}");
            }
        }
    }
    let long = Plan::new("long").direction("v", vec![3.0, 4.0]);
    let error = tiny_error(&[long.edit(Edit::project_out("v"))], Conflicts::Refuse);
    assert!(error.contains("`edits[0].direction`"), "{error}");
}

#[test]
fn conditions_decide_on_the_unedited_row() {
    let plan = |when: Condition| Plan::new("when").edit(Edit::set(0, 10.0)).when(when);
    let over = Condition::over;
    let linear = |weights: &[(u32, f64)], bias, over| Condition::Linear {
        weights: weights.to_vec(),
        bias,
        over,
    };
    // Features of (3, 4) are 3, 4, 0.
    let cases = [
        (over(0, 2.0), true),
        (over(0, 3.0), false),
        (over(2, 0.0), false),
        (Condition::Any(vec![over(2, 0.0), over(1, 1.0)]), true),
        (Condition::All(vec![over(2, 0.0), over(1, 1.0)]), false),
        (Condition::All(vec![over(0, 1.0), over(1, 1.0)]), true),
        (Condition::Any(vec![]), false),
        (Condition::All(vec![]), true),
        (Condition::Not(Box::new(over(2, 0.0))), true),
        (linear(&[(0, 2.0), (1, -1.0)], 0.5, 2.0), true),
        (linear(&[(0, 2.0), (1, -1.0)], 0.0, 2.0), false),
    ];
    for (when, holds) in cases {
        let (found, _) = steer_tiny(&plan(when.clone()), &[3.0, 4.0], &Given::default());
        let expected = if holds { [10.0, 4.0] } else { [3.0, 4.0] };
        assert_eq!(found, expected, "{when:?}");
    }
    // Limits of single edits: strictly over, strictly under.
    let limits = Plan::new("limits")
        .edit(Edit::add(0, 1.0).over(3.0))
        .edit(Edit::add(1, 1.0).over(3.5).under(4.5));
    let (found, _) = steer_tiny(&limits, &[3.0, 4.0], &Given::default());
    assert_eq!(found, [3.0, 5.0]);
    // Of a batch: any row.
    let rows = [3.0, 4.0, 0.5, 0.5];
    let batch = plan(over(0, 2.0)).per_batch();
    let (found, _) = steer_tiny(&batch, &rows, &Given::default());
    assert_eq!(found, [10.0, 4.0, 10.0, 0.5]);
    let (found, _) = steer_tiny(&plan(over(0, 2.0)), &rows, &Given::default());
    assert_eq!(found, [10.0, 4.0, 0.5, 0.5]);
}

/// Interpret-then-Deactivate: f'_i = tau f_i for i in F, the first row untouched; if the mean
/// squared difference to the row, over all other rows, reaches the threshold, the output is
/// decode(f'), else x.
#[test]
fn a_gate_on_the_reconstruction_sees_all_rows() {
    for made in all().filter(|made| !made.name.contains("transcoder")) {
        let sae = made.open(Level::best());
        let (given, bytes) = site(&made, Format::F32, 4);
        let x = Format::F32.widen(&bytes);
        let d = made.model.d_out;
        let tau = -2.0;
        let edited: Vec<u32> = (0..made.model.d_sae as u32).step_by(2).collect();
        let target = Target::Features(edited.clone());
        let mut expected = x.clone();
        let mut squares = 0.0;
        let mut scales = vec![vec![0.0; d]];
        for row in 1..4 {
            let x = &x[row * d..][..d];
            let before = full::features(&made.model, x);
            let mut after = before.clone();
            edited.iter().for_each(|&i| after[i as usize] *= tau);
            let y: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let (new, scale) = full::full(&made.model, x, &y, &before, &after, false);
            squares += new
                .iter()
                .zip(&y)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f64>();
            scales.push(scale);
            for (to, new) in expected[row * d..].iter_mut().zip(new) {
                *to = new as f32;
            }
        }
        let mean = squares / (3 * d) as f64;
        for (threshold, acts) in [(mean * 0.999, true), (mean * 1.001, false)] {
            let plan = Plan::new("ItD")
                .edit(Edit::on(target.clone(), Rule::Scale, tau))
                .drop_error()
                .skip_first(1)
                .when(Condition::Reconstruction {
                    edited: true,
                    at_least: threshold,
                })
                .per_batch();
            assert!(sae.plan_cost(&plan).unwrap().needs_encode);
            let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
            if !acts {
                assert_eq!(steered.bytes, bytes, "{}", made.name);
                continue;
            }
            let found = Format::F32.widen(&steered.bytes);
            assert_eq!(found[..d], x[..d]);
            for row in 1..4 {
                let expected: Vec<f64> =
                    expected[row * d..][..d].iter().map(|&y| y.into()).collect();
                let pair = (expected, scales[row].clone());
                assert_close(&made.name, Format::F32, &found[row * d..][..d], &pair);
            }
        }
    }
}

#[test]
fn filters_choose_rows() {
    let infos: Vec<RowInfo> = (0..6)
        .map(|row| RowInfo {
            stage: if row < 4 {
                Stage::Prompt
            } else {
                Stage::Generation
            },
            last: row == 5,
            class: row % 3,
            phase: row / 2,
            ..RowInfo::at(10 + row)
        })
        .collect();
    let base = || Plan::new("filter").edit(Edit::add(0, 1.0));
    let mut cases = vec![
        (base().skip_first(12), vec![2, 3, 4, 5]),
        (base().last_only(), vec![5]),
    ];
    let mut case = |change: fn(&mut Plan), rows: &[usize]| {
        let mut plan = base();
        change(&mut plan);
        cases.push((plan, rows.to_vec()));
    };
    case(|plan| plan.rows.stage = Some(Stage::Generation), &[4, 5]);
    case(
        |plan| plan.rows.positions = Some(vec![(11, 12), (15, 99)]),
        &[1, 2, 5],
    );
    case(|plan| plan.rows.classes = Some(vec![0, 2]), &[0, 2, 3, 5]);
    case(|plan| plan.rows.skip_classes = vec![0, 2], &[1, 4]);
    case(|plan| plan.rows.phases = Some(vec![(1, 1)]), &[2, 3]);
    let given = Given {
        infos: Some(&infos),
        ..Given::default()
    };
    for (plan, rows) in cases {
        let (found, steered) = steer_tiny(&plan, &[1.0, 2.0].repeat(6), &given);
        for row in 0..6 {
            let (value, outcome) = match rows.contains(&row) {
                true => (2.0, Outcome::Edited),
                false => (1.0, Outcome::Filtered),
            };
            assert_eq!(found[2 * row..][..2], [value, 2.0], "{plan:?}");
            assert_eq!(steered.outcomes[row], outcome);
        }
    }
    // Without infos rows are a sequence from 0 on.
    let rows = [1.0, 2.0].repeat(3);
    let (found, _) = steer_tiny(&base().skip_first(1), &rows, &Given::default());
    assert_eq!(found, [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    let (found, _) = steer_tiny(&base().last_only(), &rows, &Given::default());
    assert_eq!(found, [1.0, 2.0, 1.0, 2.0, 2.0, 2.0]);
}

/// SAeUron: where f_i > mu_i(t), f_i := gamma mu_i(t) f_i, with tables by phase; and factors of
/// rows, as a spatial mask.
#[test]
fn phases_index_tables_and_factors_scale_changes() {
    let plan = Plan::new("SAeUron").edit(
        Edit::scale(0, Strength::by_phase(&[-1.0, -2.0])).over(Strength::by_phase(&[0.5, 2.0])),
    );
    let info = |phase: u32, factor: f64| RowInfo {
        phase,
        factor,
        ..RowInfo::at(0)
    };
    let infos = [
        info(0, 1.0),
        info(1, 1.0),
        info(1, 1.0),
        info(0, 0.5),
        info(0, 0.0),
    ];
    let given = Given {
        infos: Some(&infos),
        ..Given::default()
    };
    let rows = [1.0, 0.0, 1.0, 0.0, 3.0, 0.0, 1.0, 0.0, 1.0, 0.0];
    let (found, steered) = steer_tiny(&plan, &rows, &given);
    assert_eq!(found, [-1.0, 0.0, 1.0, 0.0, -6.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    use Outcome::{Edited, Unchanged};
    assert_eq!(
        steered.outcomes,
        [Edited, Unchanged, Edited, Edited, Unchanged]
    );
}

#[test]
fn keep_only_and_drop_are_masks() {
    for made in all() {
        let sae = made.open(Level::best());
        let (given, bytes) = site(&made, Format::F32, 2);
        let chosen: Vec<u32> = (0..made.model.d_sae as u32)
            .filter(|i| i % 3 == 1)
            .collect();
        for keep_error in [true, false] {
            for keep in [true, false] {
                let mut plan = match keep {
                    true => Plan::new("keep").keep_only(&chosen),
                    false => Plan::new("drop").drop_features(&chosen),
                };
                if !keep_error {
                    plan = plan.drop_error();
                }
                let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
                let found = Format::F32.widen(&steered.bytes);
                let d_out = made.model.d_out;
                for row in 0..2 {
                    let x = input_row(&made, &given, &bytes, Format::F32, row);
                    let before = full::features(&made.model, &x);
                    let stays = |i: usize| (i % 3 == 1) == keep;
                    let after: Vec<f64> = (0..before.len())
                        .map(|i| if stays(i) { before[i] } else { 0.0 })
                        .collect();
                    let old = &Format::F32.widen(&bytes)[row * d_out..][..d_out];
                    let y: Vec<f64> = old.iter().map(|&y| y.into()).collect();
                    let expected = full::full(&made.model, &x, &y, &before, &after, keep_error);
                    let found = &found[row * d_out..][..d_out];
                    assert_close(&made.name, Format::F32, found, &expected);
                }
            }
        }
    }
}

/// Precise topic alignment: "weight" is act(s z), "swap" z on the support of act(s z); the output
/// is decode of it, without the error.
#[test]
fn scores_select_anew() {
    use sae::steer::{Mask, ScoreMode};
    for made in all() {
        let sae = made.open(Level::best());
        let (given, bytes) = site(&made, Format::F32, 2);
        let mut random = Random(made.seed);
        let scores: Vec<f64> = (0..made.model.d_sae)
            .map(|_| f64::from(random.number()).max(0.0) / 2.0)
            .collect();
        let weights = || (0..).zip(scores.iter().copied()).collect();
        for mode in [ScoreMode::Weight, ScoreMode::Swap] {
            let mut plan = Plan::new("align").drop_error();
            plan.mask = Mask::Scores {
                mode,
                weights: weights(),
                default: 0.0,
            };
            let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
            let found = Format::F32.widen(&steered.bytes);
            // act(s z): the reference's model with scores folded into scale and bias.
            let mut scored = made.model.clone();
            let scale = (0..scores.len()).map(|i| made.model.scale_of(i) * scores[i]);
            scored.scale = Some(scale.collect());
            for (bias, score) in scored.bias.iter_mut().zip(&scores) {
                *bias *= score;
            }
            let d_out = made.model.d_out;
            for row in 0..2 {
                let x = input_row(&made, &given, &bytes, Format::F32, row);
                let before = full::features(&made.model, &x);
                let mut after = full::features(&scored, &x);
                if mode == ScoreMode::Swap {
                    let z = full::pre_activations(&made.model, &x);
                    for (after, z) in after.iter_mut().zip(z) {
                        *after = if *after == 0.0 { 0.0 } else { z };
                    }
                }
                let old = &Format::F32.widen(&bytes)[row * d_out..][..d_out];
                let y: Vec<f64> = old.iter().map(|&y| y.into()).collect();
                let expected = full::full(&made.model, &x, &y, &before, &after, false);
                assert_close(
                    &made.name,
                    Format::F32,
                    &found[row * d_out..][..d_out],
                    &expected,
                );
            }
        }
    }
}

/// RAVEL: the features of a set take the values that they have in another row.
#[test]
fn features_are_taken_from_source_rows() {
    for made in all() {
        let sae = made.open(Level::best());
        let (given, bytes) = site(&made, Format::F32, 2);
        let sources = Format::F32.widen(&made.rows(Format::F32, 3, made.model.d_in, 9));
        let set: Vec<u32> = (0..made.model.d_sae as u32).step_by(3).collect();
        let plan = Plan::new("RAVEL").edit(Edit::on(
            Target::Features(set.clone()),
            Rule::FromSource,
            0.0,
        ));
        let infos = [2, 0].map(|source| RowInfo {
            source,
            ..RowInfo::at(0)
        });
        let given = Given {
            infos: Some(&infos),
            sources: Some(&sources),
            ..given
        };
        let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
        let found = Format::F32.widen(&steered.bytes);
        let d_out = made.model.d_out;
        for (row, source) in [2, 0].into_iter().enumerate() {
            let x = input_row(&made, &given, &bytes, Format::F32, row);
            let source = &sources[source * made.model.d_in..][..made.model.d_in];
            let before = full::features(&made.model, &x);
            let other = full::features(&made.model, source);
            let mut after = before.clone();
            set.iter()
                .for_each(|&i| after[i as usize] = other[i as usize]);
            let old = &Format::F32.widen(&bytes)[row * d_out..][..d_out];
            let y: Vec<f64> = old.iter().map(|&y| y.into()).collect();
            let expected = full::full(&made.model, &x, &y, &before, &after, true);
            assert_close(
                &made.name,
                Format::F32,
                &found[row * d_out..][..d_out],
                &expected,
            );
        }
    }
}

#[test]
fn several_plans_meet_by_a_policy() {
    let (name, file, config) = tiny();
    let sae = Sae::from_bytes(&name, &file, Some(&config), &Default::default()).unwrap();
    let plans = [
        Plan::new("a")
            .edit(Edit::set(0, 10.0))
            .edit(Edit::add(1, 1.0)),
        Plan::new("b")
            .edit(Edit::set(0, 20.0))
            .edit(Edit::add(1, 2.0)),
    ];
    let rows: Vec<u8> = [3.0f32, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let run = |plans: &[Plan], policy| {
        let steered = steer_with(&sae, plans, policy, &rows, Format::F32, &Given::default());
        Format::F32.widen(&steered.bytes)
    };
    assert_eq!(run(&plans, Conflicts::First), [10.0, 7.0]);
    assert_eq!(run(&plans, Conflicts::Last), [20.0, 7.0]);
    // 3 + (10 - 3) + (20 - 3)
    assert_eq!(run(&plans, Conflicts::Sum), [27.0, 7.0]);
    let error = tiny_error(&plans, Conflicts::Refuse);
    assert!(error.starts_with("`plans[1].edits`: "), "{error}");
    // A whole plan acts alone.
    let whole = [plans[0].clone(), Plan::new("off").keep_only(&[])];
    assert_eq!(run(&whole, Conflicts::Last), [0.0, 0.0]);
    assert_eq!(run(&whole, Conflicts::First), [10.0, 5.0]);
    let error = tiny_error(&whole, Conflicts::Sum);
    assert!(error.starts_with("`plans[1]`: "), "{error}");

    // Streams: each row names its plan.
    let rows: Vec<u8> = [3.0f32, 4.0]
        .repeat(4)
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let infos = [1, 0, RowInfo::NO_PLAN, 1].map(|plan| RowInfo {
        plan,
        ..RowInfo::at(0)
    });
    let given = Given {
        infos: Some(&infos),
        ..Given::default()
    };
    let steered = steer_with(
        &sae,
        &plans,
        Conflicts::OnePerRow,
        &rows,
        Format::F32,
        &given,
    );
    let expected = [20.0, 6.0, 10.0, 5.0, 3.0, 4.0, 20.0, 6.0];
    assert_eq!(Format::F32.widen(&steered.bytes), expected);
    let audits = steered.report.audits();
    assert_eq!((audits[0].rows, audits[1].rows), (1, 2));
    assert_eq!(audits[1].hash, plans[1].hash());
    let relative = (17f64 * 17.0 + 4.0).sqrt() / 5.0;
    assert!((audits[1].mean_relative() - relative).abs() < 1e-12);
    assert!((audits[1].max_relative - relative).abs() < 1e-12);
}

#[test]
fn edits_of_one_feature_in_a_plan_meet_by_its_policy() {
    let mut plan = Plan::new("twice")
        .edit(Edit::set(0, 10.0))
        .edit(Edit::zero(0));
    let error = tiny_error(std::slice::from_ref(&plan), Conflicts::Refuse);
    assert!(error.contains("feature 0 twice"), "{error}");
    for (policy, expected) in [(Conflicts::First, 10.0), (Conflicts::Last, 0.0)] {
        plan.conflicts = policy;
        let (found, _) = steer_tiny(&plan, &[3.0, 4.0], &Given::default());
        assert_eq!(found, [expected, 4.0]);
    }
    // Additions never conflict, and read the row as it was.
    let plan = Plan::new("add")
        .edit(Edit::add(0, 1.0))
        .edit(Edit::set(0, 5.0))
        .edit(Edit::add(0, 2.0));
    let (found, _) = steer_tiny(&plan, &[3.0, 4.0], &Given::default());
    assert_eq!(found, [8.0, 4.0]);
}

#[test]
fn budgets_clip_or_refuse() {
    let base = Plan::new("budget").edit(Edit::add(0, 10.0));
    let clip = base.clone().budget(0.5, OverBudget::Clip);
    let (found, steered) = steer_tiny(&clip, &[3.0, 4.0], &Given::default());
    assert_eq!(found, [5.5, 4.0]);
    assert_eq!(steered.outcomes, [Outcome::Clipped]);
    assert_eq!(steered.report.audits()[0].max_relative, 0.5);
    let refuse = base.clone().budget(0.5, OverBudget::Refuse);
    let (found, steered) = steer_tiny(&refuse, &[3.0, 4.0], &Given::default());
    assert_eq!(found, [3.0, 4.0]);
    assert_eq!(steered.outcomes, [Outcome::Refused]);
    let wide = base.clone().budget(2.0, OverBudget::Refuse);
    let (found, steered) = steer_tiny(&wide, &[3.0, 4.0], &Given::default());
    assert_eq!(found, [13.0, 4.0]);
    assert_eq!(steered.outcomes, [Outcome::Edited]);
    // No share of nothing.
    let (found, steered) = steer_tiny(&clip, &[0.0, 0.0], &Given::default());
    assert_eq!(found, [0.0, 0.0]);
    assert_eq!(steered.outcomes, [Outcome::Refused]);
}

#[test]
fn a_dry_run_reports_and_changes_nothing() {
    for made in all() {
        let sae = made.open(Level::best());
        let (plan, _) = mixed_plan(&made);
        let (given, bytes) = site(&made, Format::F16, 3);
        let real = steer(&sae, &plan, &bytes, Format::F16, &given);
        let given = Given {
            dry_run: true,
            ..given
        };
        let dry = steer(&sae, &plan, &bytes, Format::F16, &given);
        assert_eq!(dry.bytes, bytes);
        assert_eq!(dry.report, real.report);
        assert_eq!(dry.outcomes, real.outcomes);
        assert_eq!(dry.changes, real.changes);
    }
}

#[test]
fn plan_cost_says_what_needs_an_encode() {
    for made in all() {
        let sae = made.open(Level::best());
        let ranks = made.name.starts_with("topk") || made.name.starts_with("abstopk");
        let cases = [
            (Plan::new("add").edit(Edit::add(1, 2.0)), false, 0),
            (Plan::new("set").edit(Edit::set(1, 2.0)), ranks, 1),
            (
                Plan::new("two")
                    .edit(Edit::set(1, 2.0))
                    .when(Condition::over(7, 0.0)),
                ranks,
                2,
            ),
            (
                Plan::new("max").edit(Edit::add(1, Strength::current_max(1.0))),
                true,
                0,
            ),
            (Plan::new("keep").keep_only(&[1]), true, 0),
            (Plan::new("error").drop_error(), true, 0),
        ];
        for (plan, encodes, reads) in cases {
            let cost = sae.plan_cost(&plan).unwrap();
            assert_eq!(cost.needs_encode, encodes, "{}: {}", made.name, plan.name);
            assert_eq!(cost.needs_encode, !cost.reasons.is_empty());
            if !ranks {
                assert_eq!(cost.encoder_rows, reads);
            }
            assert_eq!(sae.compile_plan(&plan).unwrap().cost(), &cost);
        }
    }
}

#[test]
fn plans_come_back_from_json() {
    let mut statistics = Statistics::new();
    let some = FeatureStatistics {
        max: Some(2.5),
        ..Default::default()
    };
    statistics.insert(3, some);
    let mut plan = Plan::new("all of it")
        .edit(Edit::max_clamp(3, Strength::corpus_max(0.5)).over(0.25))
        .edit(Edit::scale(4, Strength::by_phase(&[1.0, -2.0])).under(9.0))
        .edit(Edit::zero(7).of_pre_activation())
        .edit(Edit::add_direction("v", Strength::row_norm(0.1)))
        .unit_direction("v", vec![1.0, 0.1])
        .when(Condition::Any(vec![
            Condition::Not(Box::new(Condition::over(1, 2.0))),
            Condition::Linear {
                weights: vec![(1, 2.0), (2, -1.0)],
                bias: 0.5,
                over: 1.0,
            },
        ]))
        .per_batch()
        .skip_first(1)
        .last_only()
        .budget(0.5, OverBudget::Refuse)
        .statistics(statistics)
        .keep_only(&[1, 2])
        .drop_error();
    plan.conflicts = Conflicts::Last;
    plan.rows.stage = Some(Stage::Generation);
    plan.rows.positions = Some(vec![(1, 4)]);
    plan.rows.classes = Some(vec![1]);
    plan.rows.skip_classes = vec![2];
    plan.rows.phases = Some(vec![(0, 1)]);
    plan.d_sae = Some(16);
    let again = Plan::from_json(&plan.to_json().to_string()).unwrap();
    assert_eq!(again, plan);
    assert_eq!(again.hash(), plan.hash());
    plan.edits[0].strength.values[0] = 0.75;
    assert_ne!(again.hash(), plan.hash());
}

#[test]
fn what_is_wrong_with_a_plan_is_told_with_its_path() {
    let cases = [
        (
            r#"{"edits": [{"feature": 1, "rule": "set", "strength": 1, "colour": 2}]}"#,
            "`edits[0]`",
        ),
        (r#"{"edit": []}"#, "`the plan`"),
        (
            r#"{"edits": [{"feature": 1, "rule": "sett", "strength": 1}]}"#,
            "`edits[0].rule`",
        ),
        (
            r#"{"edits": [{"feature": 1, "rule": "set"}]}"#,
            "missing `edits[0].strength`",
        ),
        (
            r#"{"edits": [{"rule": "zero"}]}"#,
            "missing `edits[0].feature`",
        ),
        (
            r#"{"edits": [{"feature": 1, "rule": "zero", "strength": 3}]}"#,
            "`edits[0].strength`",
        ),
        (
            r#"{"edits": [{"feature": -1, "rule": "zero"}]}"#,
            "`edits[0].feature`",
        ),
        (
            r#"{"edits": [{"feature": 1.5, "rule": "zero"}]}"#,
            "`edits[0].feature`",
        ),
        (
            r#"{"edits": [{"feature": 1, "direction": "v", "rule": "zero"}]}"#,
            "`edits[0]`",
        ),
        (
            r#"{"edits": [{"feature": 1, "rule": "set", "strength": "x"}]}"#,
            "`edits[0].strength`",
        ),
        (
            r#"{"edits": [{"feature": 1, "rule": "set", "strength": {"value": 1, "of": "max"}}]}"#,
            "`edits[0].strength.of`",
        ),
        (r#"{"edits": {}}"#, "`edits`"),
        (r#"{"edits": [3]}"#, "`edits[0]`"),
        (r#"{"rows": {"skip": 1}}"#, "`rows`"),
        (
            r#"{"rows": {"positions": [[3, 1]]}}"#,
            "`rows.positions[0]`",
        ),
        (r#"{"when": {"feature": 1, "ovr": 1}}"#, "`when`"),
        (
            r#"{"when": {"all": [{"feature": "a"}]}}"#,
            "`when.all[0].feature`",
        ),
        (r#"{"budget": {}}"#, "missing `budget.relative`"),
        (r#"{"statistics": {"x": {}}}"#, "`statistics.x`"),
        (r#"{"keep_only": [1], "drop": [2]}"#, "`the plan`"),
        (
            r#"{"scores": {"mode": "swap"}}"#,
            "missing `scores.weights`",
        ),
        (r#"{"#, "malformed json"),
        (r#"[]"#, "``"),
    ];
    for (text, path) in cases {
        let error = Plan::from_json(text).unwrap_err().to_string();
        assert!(error.starts_with(path), "{text}: {error}");
    }
    let deep = format!(
        "{}{{\"feature\": 1}}{}",
        "{\"not\": ".repeat(60),
        "}".repeat(60)
    );
    assert!(Plan::from_json(&format!("{{\"when\": {deep}}}")).is_err());

    let base = || Plan::new("wrong");
    let over = |feature| Condition::over(feature, 0.0);
    let cases = [
        (
            base().edit(Edit::zero(0)).edit(Edit::zero(3)),
            "`edits[1].feature`",
        ),
        (base().edit(Edit::set(0, f64::NAN)), "`edits[0].strength`"),
        (
            base().edit(Edit::set(0, Strength::corpus_max(1.0))),
            "`edits[0].strength`",
        ),
        (
            base().edit(Edit::zero(0).over(f64::INFINITY)),
            "`edits[0].over`",
        ),
        (
            base().edit(Edit::zero(0).under(Strength::corpus_mean(1.0))),
            "`edits[0].under`",
        ),
        (
            base().edit(Edit::set(0, Strength::by_phase(&[]))),
            "`edits[0].strength`",
        ),
        (
            base().edit(Edit::add(0, Strength::row_norm(1.0).plus_deviations(1.0))),
            "`edits[0].strength`",
        ),
        (base().edit(Edit::project_out("v")), "`edits[0].direction`"),
        (base().direction("v", vec![1.0]), "`directions.v.values`"),
        (
            base().direction("v", vec![1.0, f32::NAN]),
            "`directions.v.values`",
        ),
        (
            base().unit_direction("v", vec![0.0, 0.0]),
            "`directions.v.values`",
        ),
        (base().when(over(9)), "`when.feature`"),
        (
            base().when(Condition::Any(vec![over(0), over(9)])),
            "`when.any[1].feature`",
        ),
        (base().when(Condition::over(0, f64::NAN)), "`when.over`"),
        (base().keep_only(&[5]), "`keep_only`"),
        (base().drop_features(&[0, 5]), "`drop`"),
        (base().budget(-1.0, OverBudget::Clip), "`budget.relative`"),
        (
            Plan {
                d_sae: Some(4),
                ..base()
            },
            "`d_sae`",
        ),
        (
            Plan {
                conflicts: Conflicts::OnePerRow,
                ..base()
            },
            "`conflicts`",
        ),
    ];
    for (plan, path) in cases {
        let error = tiny_error(std::slice::from_ref(&plan), Conflicts::Refuse);
        assert!(error.starts_with(path), "{plan:?}: {error}");
        let error = tiny_error(&[Plan::new("fine"), plan.clone()], Conflicts::Refuse);
        let path = format!("`plans[1].{}", &path[1..]);
        assert!(error.starts_with(&path), "{plan:?}: {error}");
    }
}

#[test]
fn calls_with_wrong_arguments_change_nothing() {
    let made = Made::new("standard", "none", Format::F32, 4);
    let other = Made::new("standard", "none", Format::F32, 4);
    let (sae, foreign) = (made.open(Level::best()), other.open(Level::best()));
    let width = sae.d_out();
    let plan = sae
        .compile_plan(&Plan::new("add").edit(Edit::add(0, 1.0)))
        .unwrap();
    let staged = {
        let mut staged = Plan::new("staged").edit(Edit::add(0, 1.0));
        staged.rows.stage = Some(Stage::Prompt);
        sae.compile_plan(&staged).unwrap()
    };
    let sourced = Plan::new("sourced").edit(Edit::new(0, Rule::FromSource, 0.0));
    let sourced = sae.compile_plan(&sourced).unwrap();
    let values = vec![1.0f32; 2 * width];
    type Change<'c> = &'c dyn Fn(&mut Batch<'_>);
    let call =
        |sae: &Sae<'_>, plan: &sae::steer::CompiledPlan, width: usize, change: Change<'_>| {
            let mut rows = values.clone();
            let mut scratch = SteerScratch::new(sae, plan).unwrap();
            let mut report = Report::new(plan);
            let count = rows.len() / width;
            let mut batch =
                Batch::new(RowsMut::from_f32(&mut rows[..count * width], width).unwrap());
            change(&mut batch);
            let result = sae.steer(plan, batch, &mut scratch, &mut report);
            assert_eq!(rows, values);
            result.unwrap_err().to_string()
        };
    let none: Change<'_> = &|_| {};
    assert!(call(&foreign, &plan, width, none).starts_with("plan: "));
    assert!(call(&sae, &plan, width - 1, none).starts_with("values per steered row: "));
    assert!(call(&sae, &staged, width, none).starts_with("infos of rows: expected the stage"));
    assert!(call(&sae, &sourced, width, none).starts_with("source rows: "));
    let infos: &'static [RowInfo] = vec![RowInfo::at(0)].leak();
    let short: Change<'_> = &move |batch| batch.infos = Some(infos);
    assert!(call(&sae, &plan, width, short).starts_with("infos of rows: "));
    let nan = RowInfo {
        factor: f64::NAN,
        ..RowInfo::at(0)
    };
    let infos: &'static [RowInfo] = vec![nan; 2].leak();
    let bad: Change<'_> = &move |batch| batch.infos = Some(infos);
    assert!(call(&sae, &plan, width, bad).starts_with("factor of a row: "));
    let unknown = RowInfo {
        plan: 7,
        ..RowInfo::at(0)
    };
    let infos: &'static [RowInfo] = vec![unknown; 2].leak();
    let bad: Change<'_> = &move |batch| batch.infos = Some(infos);
    assert!(call(&sae, &plan, width, bad).starts_with("plan of a row: "));
}

#[test]
fn a_constant_plan_is_a_vector() {
    for made in all().filter(|made| {
        made.name.contains(", none,") || made.name.contains(", expected_average_only_in,")
    }) {
        let sae = made.open(Level::best());
        let mut random = Random(made.seed);
        let v: Vec<f32> = (0..made.model.d_out).map(|_| random.number()).collect();
        let plan = Plan::new("vector")
            .edit(Edit::add(3, 1.5))
            .edit(Edit::add(9, -2.0))
            .edit(Edit::add(3, 0.25))
            .direction("v", v.clone())
            .edit(Edit::add_direction("v", 0.5));
        let compiled = sae.compile_plan(&plan).unwrap();
        let found = sae.constant_vector(&compiled).unwrap();
        let scale = |i: usize| {
            made.model
                .decoder_scale
                .as_ref()
                .map_or(1.0, |scale| scale[i])
        };
        for (c, found) in found.iter().enumerate() {
            let expected = 1.75 * scale(3) * made.model.decoder_row(3)[c]
                - 2.0 * scale(9) * made.model.decoder_row(9)[c]
                + 0.5 * f64::from(v[c]);
            let error = (f64::from(*found) - expected).abs();
            assert!(
                error <= ulp(Format::F32, expected) / 2.0 + 1e-13,
                "{}",
                made.name
            );
        }
        // And adding it is what steering does, but for one rounding more.
        let (given, bytes) = site(&made, Format::F32, 1);
        let steered = steer(&sae, &plan, &bytes, Format::F32, &given);
        for (change, found) in steered.changes.iter().zip(&found) {
            assert_eq!(*change as f32, *found);
        }
    }
}

#[test]
fn plans_that_depend_on_the_row_are_no_vectors() {
    let made = Made::new("standard", "none", Format::F32, 21);
    let sae = made.open(Level::best());
    let add = || Plan::new("add").edit(Edit::add(3, 1.0));
    let plans = [
        Plan::new("set").edit(Edit::set(3, 1.0)),
        Plan::new("norm").edit(Edit::add(3, Strength::row_norm(1.0))),
        Plan::new("phase").edit(Edit::add(3, Strength::by_phase(&[1.0, 2.0]))),
        Plan::new("limit").edit(Edit::add(3, 1.0).over(1.0)),
        add().when(Condition::over(1, 0.0)),
        add().skip_first(1),
        add().budget(1.0, OverBudget::Clip),
        add().keep_only(&[1]),
        add().drop_error(),
    ];
    for plan in plans {
        let compiled = sae.compile_plan(&plan).unwrap();
        let error = sae.constant_vector(&compiled).unwrap_err();
        assert_eq!(error.code(), sae::Code::InvalidValue, "{}", plan.name);
    }
    let made = Made::new("standard", "layer_norm", Format::F32, 21);
    let sae = made.open(Level::best());
    let compiled = sae.compile_plan(&add()).unwrap();
    assert!(sae.constant_vector(&compiled).is_err());
}

#[test]
fn control_vectors_go_to_gguf_and_back() {
    use sae::control_vector::ControlVector;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("steer");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("control.gguf");
    let mut vector = ControlVector {
        model_hint: "gemma2".into(),
        ..Default::default()
    };
    assert!(vector.write(&path).is_err(), "no layers");
    vector.directions.insert(12, vec![1.0, -2.5, 3.0]);
    vector.directions.insert(20, vec![0.5, 0.25, -0.0]);
    vector.write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(ControlVector::read(&bytes).unwrap(), vector);
    vector.directions.insert(21, vec![1.0]);
    assert!(vector.write(&path).is_err(), "another length");
    vector.directions = [(0, vec![1.0])].into();
    assert!(vector.write(&path).is_err(), "layer 0");
    // What llama.cpp's loader looks at: names, type, one dimension.
    let archive = sae::container::gguf::read(&sae::bytes::Bytes::borrowed(&bytes)).unwrap();
    let names: Vec<&str> = archive.entries.iter().map(|entry| entry.name()).collect();
    assert_eq!(names, ["direction.12", "direction.20"]);
    for entry in &archive.entries {
        assert_eq!((entry.dtype(), entry.shape()), (Dtype::F32, &[3][..]));
    }
    let text = |key: &str| archive.value(key).and_then(|value| value.as_str());
    assert_eq!(text("general.architecture"), Some("controlvector"));
    assert_eq!(text("controlvector.model_hint"), Some("gemma2"));
    for cut in 0..bytes.len() {
        let _ = ControlVector::read(&bytes[..cut]);
    }
}

/// The worked plans of the documentation are read, compile against a model of their width and say
/// what their files say.
#[test]
fn the_worked_plans_compile() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plans");
    let mut names = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        if !name.ends_with(".json") || name == "schema.json" {
            continue;
        }
        let plan = Plan::from_json(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Through the canonical form and back it is the same plan.
        assert_eq!(Plan::from_value(&plan.to_json()).unwrap(), plan, "{name}");
        let file = wide_model(plan.d_sae.unwrap_or(16384));
        let config = r#"{"architecture": "standard", "d_in": 2}"#;
        let (file_name, options) = ("sae_weights.safetensors", Default::default());
        let sae = Sae::from_bytes(file_name, &file, Some(config), &options).unwrap();
        sae.compile_plan(&plan)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        names.push(name);
    }
    assert!(names.len() >= 5, "{names:?}");
}

/// A model of width 2 with so many features.
fn wide_model(d_sae: u32) -> Vec<u8> {
    let d_sae = d_sae as usize;
    let mut tensors = Tensors::default();
    let mut add = |name: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        tensors.add(name, Format::F16, shape, &vec![0; 2 * count]);
    };
    add("W_enc", &[2, d_sae]);
    add("W_dec", &[d_sae, 2]);
    add("b_dec", &[2]);
    add("b_enc", &[d_sae]);
    tensors.safetensors(0)
}

/// The first call with a new work space asks for no memory, whatever the plan needs.
#[test]
fn steering_allocates_nothing() {
    for made in all() {
        let sae = made.open(Level::best());
        let (mixed, _) = mixed_plan(&made);
        let gate = Condition::Reconstruction {
            edited: true,
            at_least: 0.0,
        };
        let plans = [
            mixed.clone(),
            mixed.clone().drop_error(),
            mixed.clone().when(gate).per_batch(),
            mixed.clone().budget(0.1, OverBudget::Clip),
            Plan::new("keep").keep_only(&[1, 2]),
            Plan::new("max").edit(Edit::add(1, Strength::current_max(0.5))),
        ];
        let (given, bytes) = site(&made, Format::F32, 4);
        for plan in plans {
            let compiled = sae.compile_plan(&plan).unwrap();
            let mut scratch = SteerScratch::new(&sae, &compiled).unwrap();
            let mut report = Report::new(&compiled);
            let mut values = Format::F32.widen(&bytes);
            let mut batch = Batch::new(RowsMut::from_f32(&mut values, sae.d_out()).unwrap());
            let inputs = given.inputs.as_ref();
            batch.inputs = inputs.map(|inputs| Rows::from_f32(inputs, sae.d_in()).unwrap());
            let before = allocations::of_this_thread();
            let result = sae.steer(&compiled, batch, &mut scratch, &mut report);
            let allocations = allocations::of_this_thread() - before;
            result.unwrap();
            assert_eq!(allocations, 0, "{}: {}", made.name, plan.name);
            assert_eq!(report.rows(), 4);
        }
    }
}

/// Another program's reading of `schema.json`: it takes the worked plans and what the library
/// writes, and refuses what the library refuses.
#[test]
#[cfg(feature = "std")]
fn the_schema_agrees_with_the_reader() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let python = |script: &str| {
        let mut command = Command::new("python3");
        command.args(["-W", "ignore", "-c", script]);
        command
    };
    let found = python("import jsonschema")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(
            std::env::var_os("SAE_REQUIRE_TOOLS").is_none(),
            "Python's `jsonschema` is not installed"
        );
        println!("skipped: the schema of plans (no `jsonschema` for Python)");
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plans");
    let mut good: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter(|path| !path.ends_with("schema.json"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    assert!(good.len() >= 5);
    let written: Vec<String> = good
        .iter()
        .map(|text| Plan::from_json(text).unwrap().to_json().to_string())
        .collect();
    good.extend(written);
    good.extend(
        [
            r#"{}"#,
            r#"{"keep_only": [1, 2], "error": "drop", "conflicts": "sum"}"#,
            r#"{"scores": {"mode": "swap", "weights": {"3": 0.5}, "default": 0}}"#,
            r#"{"edits": [{"direction": "v", "rule": "add", "strength": {"value": 1, "of": "row_norm"}}],
                "directions": {"v": {"values": [1, 2], "normalize": true}}}"#,
            r#"{"edits": [{"feature": 1, "rule": "zero"}], "scope": "batch",
                "when": {"any": [{"feature": 3, "over": 1}, {"not": {"linear":
                [{"feature": 1, "weight": -2}], "bias": 1, "over": 0}}]}}"#,
        ]
        .map(String::from),
    );
    let bad = [
        r#"[]"#,
        r#"{"edit": []}"#,
        r#"{"edits": [{"feature": 1, "rule": "sett", "strength": 1}]}"#,
        r#"{"edits": [{"feature": 1, "strength": 1}]}"#,
        r#"{"edits": [{"rule": "set", "strength": 1}]}"#,
        r#"{"edits": [{"feature": -1, "rule": "set", "strength": 1}]}"#,
        r#"{"edits": [{"feature": 1, "rule": "set", "strength": "1"}]}"#,
        r#"{"edits": [{"feature": 1, "rule": "set", "strength": {"value": 1, "of": "max"}}]}"#,
        r#"{"edits": [{"feature": 1, "rule": "set", "strength": {"of": "row_norm"}}]}"#,
        r#"{"rows": {"skip": 1}}"#,
        r#"{"rows": {"positions": [[1]]}}"#,
        r#"{"budget": {"over": "clip"}}"#,
        r#"{"when": {"some": []}}"#,
        r#"{"scores": {"mode": "other", "weights": {}}}"#,
        r#"{"conflicts": "most"}"#,
    ];
    for text in &good {
        assert!(Plan::from_json(text).is_ok(), "{text}");
    }
    for text in bad {
        assert!(Plan::from_json(text).is_err(), "{text}");
    }
    let script = "
import json, sys
from jsonschema import Draft202012Validator as Validator
schema = json.load(open(sys.argv[1]))
Validator.check_schema(schema)
found = Validator(schema)
for line in sys.stdin:
    expected, text = json.loads(line)
    if found.is_valid(json.loads(text)) != expected:
        sys.exit(f'expected {expected}: {text}')
";
    let mut child = python(script)
        .arg(folder.join("schema.json"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let good = good.iter().map(|text| (true, text.as_str()));
    for pair in good.chain(bad.map(|text| (false, text))) {
        writeln!(stdin, "{}", serde_json::to_string(&pair).unwrap()).unwrap();
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
