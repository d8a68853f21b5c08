//! Plans for models of kinds of their own, against the full form in f64: encode, edit, write.

use super::files::{D, D_OUT, LorsaFile, MoltFile, lorsa_config, open_lorsa, open_molt};
use super::*;
use reference::steer::rule;
use sae::steer::{Batch, CompiledPlan, Conflicts, Outcome, Plan, Report, RowInfo};
use sae::{Code, Level, LorsaCache, RowStatus, RowsMut};

const ROWS: usize = 6;

/// What a kind of model does with plans.
trait Kind {
    fn d_sae(&self) -> usize;
    /// The features of all rows.
    fn features(&self, inputs: &[f32]) -> Features;
    /// What features write, without the bias, and the bias.
    fn write(&self, f: &[f64], x: &[f64]) -> Vec<f64>;
    fn bias(&self) -> Vec<f64>;
    fn compile(&self, plans: &[Plan], conflicts: Conflicts) -> Result<CompiledPlan, Error>;
    /// Steers `y` in place.
    fn steer(
        &self,
        plan: &CompiledPlan,
        given: &Given<'_>,
        y: &mut [f32],
    ) -> (Vec<Outcome>, Report);
}

/// Rows at the input site, those that `from_source` edits read, and infos.
struct Given<'g> {
    inputs: &'g [f32],
    sources: Option<&'g [f32]>,
    infos: Option<&'g [RowInfo]>,
}

struct Mixture<'m>(&'m MoltFile, sae::Molt<'m>);
struct Attending<'m>(&'m LorsaFile, sae::Lorsa<'m>);

impl Kind for Mixture<'_> {
    fn d_sae(&self) -> usize {
        self.1.d_sae()
    }

    fn features(&self, inputs: &[f32]) -> Features {
        let (mut scratch, mut features) = (self.1.scratch().unwrap(), Features::new());
        let all = rows(inputs, D);
        self.1.encode(all, &mut scratch, &mut features).unwrap();
        features
    }

    fn write(&self, f: &[f64], x: &[f64]) -> Vec<f64> {
        let transforms = self.0.transforms();
        let term = |c: usize| {
            let terms = f.iter().zip(&transforms);
            terms.map(|(f, uv)| f * dot(&uv[c], x)).sum()
        };
        (0..D_OUT).map(term).collect()
    }

    fn bias(&self) -> Vec<f64> {
        self.0.b_d.clone()
    }

    fn compile(&self, plans: &[Plan], conflicts: Conflicts) -> Result<CompiledPlan, Error> {
        self.1.compile_plans(plans, conflicts)
    }

    fn steer(
        &self,
        plan: &CompiledPlan,
        given: &Given<'_>,
        y: &mut [f32],
    ) -> (Vec<Outcome>, Report) {
        let mut outcomes = vec![Outcome::Filtered; y.len() / D_OUT];
        let mut report = Report::new(plan);
        let mut batch = Batch::new(RowsMut::from_f32(y, D_OUT).unwrap());
        batch.inputs = Some(rows(given.inputs, D));
        batch.sources = given.sources.map(|sources| rows(sources, D));
        batch.infos = given.infos;
        batch.outcomes = Some(&mut outcomes);
        let mut scratch = self.1.steer_scratch(plan).unwrap();
        self.1
            .steer(plan, batch, &mut scratch, &mut report)
            .unwrap();
        (outcomes, report)
    }
}

impl Kind for Attending<'_> {
    fn d_sae(&self) -> usize {
        self.1.d_sae()
    }

    fn features(&self, inputs: &[f32]) -> Features {
        let mut cache = LorsaCache::new(&self.1, inputs.len() / D).unwrap();
        let (mut scratch, mut features) = (self.1.scratch().unwrap(), Features::new());
        self.1
            .encode(rows(inputs, D), &mut cache, &mut scratch, &mut features)
            .unwrap();
        features
    }

    fn write(&self, f: &[f64], _: &[f64]) -> Vec<f64> {
        let output = &self.0.output;
        let term = |c: usize| (0..f.len()).map(|i| f[i] * output[i * D_OUT + c]).sum();
        (0..D_OUT).map(term).collect()
    }

    fn bias(&self) -> Vec<f64> {
        self.0.b_d.clone()
    }

    fn compile(&self, plans: &[Plan], conflicts: Conflicts) -> Result<CompiledPlan, Error> {
        self.1.compile_plans(plans, conflicts)
    }

    fn steer(
        &self,
        plan: &CompiledPlan,
        given: &Given<'_>,
        y: &mut [f32],
    ) -> (Vec<Outcome>, Report) {
        let features = self.features(given.inputs);
        let sources = given.sources.map(|sources| self.features(sources));
        let mut outcomes = vec![Outcome::Filtered; y.len() / D_OUT];
        let mut report = Report::new(plan);
        let mut batch = Batch::new(RowsMut::from_f32(y, D_OUT).unwrap());
        batch.infos = given.infos;
        batch.outcomes = Some(&mut outcomes);
        let mut scratch = self.1.steer_scratch(plan).unwrap();
        let sources = sources.as_ref();
        self.1
            .steer(plan, &features, sources, batch, &mut scratch, &mut report)
            .unwrap();
        (outcomes, report)
    }
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&value| value.into()).collect()
}

/// Runs a test for both kinds, under a rule that ranks and one that does not.
fn each(test: impl Fn(&dyn Kind, &str)) {
    let file = MoltFile::new();
    let bytes = file.bytes();
    for rule in ["relu", "topk"] {
        let molt = open_molt(&bytes, rule, Level::best());
        test(&Mixture(&file, molt), &format!("molt, {rule}"));
    }
    let file = LorsaFile::new();
    let bytes = file.bytes(false);
    for rule in ["relu", "topk"] {
        let mut config = lorsa_config();
        (config["act_fn"], config["top_k"]) = (rule.into(), 7.into());
        let lorsa = open_lorsa(&bytes, config).unwrap();
        test(&Attending(&file, lorsa), &format!("lorsa, {rule}"));
    }
}

fn numbers(seed: u64, width: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..ROWS * width).map(|_| random.number()).collect()
}

/// Steers with a plan and compares with `edit`, which gives f' and whether the row is changed, of
/// features, source features and the row; `drop` leaves the error out.
fn compare(
    kind: &dyn Kind,
    name: &str,
    text: &str,
    drop: bool,
    edit: impl Fn(&mut Vec<f64>, &[f64], usize, &[f64]) -> bool,
) {
    let plan = Plan::from_json(text).unwrap();
    let compiled = kind.compile(&[plan], Conflicts::Refuse);
    let compiled = compiled.unwrap_or_else(|error| panic!("{name}: {error}"));
    let (inputs, sources, before) = (numbers(3, D), numbers(4, D), numbers(5, D_OUT));
    let mut y = before.clone();
    let given = Given {
        inputs: &inputs,
        sources: text.contains("from_source").then_some(&sources),
        infos: None,
    };
    let (outcomes, report) = kind.steer(&compiled, &given, &mut y);
    let features = dense(&kind.features(&inputs), kind.d_sae());
    let of_sources = dense(&kind.features(&sources), kind.d_sae());
    let mut edited = 0;
    for row in 0..ROWS {
        let old = wide(&before[row * D_OUT..][..D_OUT]);
        let x = wide(&inputs[row * D..][..D]);
        let f = wide(&features[row]);
        let mut after = f.clone();
        let found = &y[row * D_OUT..][..D_OUT];
        if !edit(&mut after, &wide(&of_sources[row]), row, &old) {
            assert_eq!(bits(found), bits(&before[row * D_OUT..][..D_OUT]), "{name}");
            assert_eq!(outcomes[row], Outcome::Unchanged, "{name}, {text}");
            continue;
        }
        edited += 1;
        assert_eq!(outcomes[row], Outcome::Edited, "{name}, {text}");
        let (written, was) = (kind.write(&after, &x), kind.write(&f, &x));
        for c in 0..D_OUT {
            let expected = match drop {
                true => written[c] + kind.bias()[c],
                false => old[c] + written[c] - was[c],
            };
            let error = (f64::from(found[c]) - expected).abs();
            assert!(
                error <= 3e-5 * (1.0 + expected.abs()),
                "{name}, {text}: {error}"
            );
        }
    }
    assert!(edited > 0, "{name}, {text}");
    assert_eq!(report.count(Outcome::Edited), edited);
    assert_eq!(report.audits()[0].rows, edited);
}

/// Every rule, on a feature that fires and by its value.
#[test]
fn every_rule_is_its_full_form() {
    each(|kind, name| {
        for rule_name in [
            "set",
            "add",
            "scale",
            "max_clamp",
            "min_cap",
            "zero",
            "negative_when_active",
            "replace_positive",
            "remove",
        ] {
            let strength = match rule_name {
                "zero" => String::new(),
                _ => r#", "strength": 0.75"#.into(),
            };
            let text = format!(
                r#"{{"edits": [{{"features": [1, 4, 7], "rule": "{rule_name}"{strength}}}]}}"#
            );
            compare(kind, name, &text, false, |f, _, _, _| {
                let before = f.clone();
                for i in [1, 4, 7] {
                    f[i] = rule(rule_name, f[i], 0.75);
                }
                *f != before
            });
        }
        let text = r#"{"edits": [{"feature": 1, "rule": "from_source"}]}"#;
        compare(kind, name, text, false, |f, source, _, _| {
            let changes = f[1] != source[1];
            f[1] = source[1];
            changes
        });
    });
}

/// Masks, errors, gates, relative strengths, limits.
#[test]
fn plans_about_all_features_are_their_full_form() {
    each(|kind, name| {
        let keep = r#"{"keep_only": [0, 1, 2, 3]}"#;
        compare(kind, name, keep, false, |f, _, _, _| {
            let changes = f[4..].iter().any(|&f| f != 0.0);
            f[4..].fill(0.0);
            changes
        });
        let drop =
            r#"{"error": "drop", "edits": [{"feature": 2, "rule": "set", "strength": 1.5}]}"#;
        compare(kind, name, drop, true, |f, _, _, _| {
            f[2] = 1.5;
            true
        });
        let most = r#"{"edits": [{"feature": 2, "rule": "set", "strength": {"value": 2.0, "of": "current_max"}}]}"#;
        compare(kind, name, most, false, |f, _, _, _| {
            let set = 2.0 * f.iter().copied().fold(0.0, f64::max);
            let changes = f[2] != set;
            f[2] = set;
            changes
        });
        let over = r#"{"when": {"feature": 1, "over": 0.1},
                       "edits": [{"feature": 1, "rule": "zero"}]}"#;
        compare(kind, name, over, false, |f, _, _, _| {
            let holds = f[1] > 0.1;
            f[1] = 0.0;
            holds
        });
        let long = r#"{"edits": [{"feature": 2, "rule": "add", "strength": {"value": 0.5, "of": "row_norm"}}]}"#;
        compare(kind, name, long, false, |f, _, _, y| {
            f[2] += 0.5 * dot(y, y).sqrt();
            true
        });
    });
}

/// A gate on the reconstruction reads what the model itself would write.
#[test]
fn gates_on_the_reconstruction_and_budgets() {
    each(|kind, name| {
        let (inputs, before) = (numbers(3, D), numbers(5, D_OUT));
        let features = dense(&kind.features(&inputs), kind.d_sae());
        let mut errors: Vec<f64> = (0..ROWS)
            .map(|row| {
                let x = wide(&inputs[row * D..][..D]);
                let written = kind.write(&wide(&features[row]), &x);
                let y = wide(&before[row * D_OUT..][..D_OUT]);
                let each = (0..D_OUT).map(|c| written[c] + kind.bias()[c] - y[c]);
                each.map(|error| error * error).sum::<f64>() / D_OUT as f64
            })
            .collect();
        let of_row = errors.clone();
        errors.sort_by(f64::total_cmp);
        let middle = (errors[2] + errors[3]) / 2.0;
        let gate = format!(
            r#"{{"when": {{"reconstruction": "unedited", "at_least": {middle}}},
                "edits": [{{"feature": 3, "rule": "set", "strength": 2.5}}]}}"#
        );
        compare(kind, name, &gate, false, |f, _, row, _| {
            f[3] = 2.5;
            of_row[row] >= middle
        });
        // A budget is held to the change as it is written.
        let text = r#"{"budget": {"relative": 0.25},
                       "edits": [{"feature": 3, "rule": "set", "strength": 50.0}]}"#;
        let plan = kind.compile(&[Plan::from_json(text).unwrap()], Conflicts::Refuse);
        let given = Given {
            inputs: &inputs,
            sources: None,
            infos: None,
        };
        let mut y = before.clone();
        let (outcomes, _) = kind.steer(&plan.unwrap(), &given, &mut y);
        for (row, outcome) in outcomes.iter().enumerate() {
            let range = row * D_OUT..(row + 1) * D_OUT;
            assert_eq!(*outcome, Outcome::Clipped);
            let (old, new) = (wide(&before[range.clone()]), wide(&y[range]));
            let moved: f64 = old.iter().zip(&new).map(|(a, b)| (a - b) * (a - b)).sum();
            let relative = moved.sqrt() / dot(&old, &old).sqrt();
            assert!((relative - 0.25).abs() < 1e-6, "{name}: {relative}");
        }
    });
}

/// Several plans, directions and factors of rows, as of any other model.
#[test]
fn plans_meet_and_rows_choose() {
    each(|kind, name| {
        let first = r#"{"edits": [{"feature": 1, "rule": "add", "strength": 0.5}]}"#;
        let second = r#"{"directions": {"v": {"values": [1, 0, 0, 0, 0, 0, 0, 0]}},
                         "edits": [{"feature": 4, "rule": "set", "strength": 2.0},
                                   {"direction": "v", "rule": "add", "strength": 3.0}]}"#;
        let plans = [first, second].map(|text| Plan::from_json(text).unwrap());
        let compiled = kind.compile(&plans, Conflicts::Sum).unwrap();
        let (inputs, before) = (numbers(3, D), numbers(5, D_OUT));
        let infos: Vec<RowInfo> = (0..ROWS as u32)
            .map(|row| RowInfo {
                factor: 0.5 * f64::from(row),
                plan: match row {
                    1 => 0,
                    2 => 1,
                    _ => RowInfo::ALL_PLANS,
                },
                ..RowInfo::at(row)
            })
            .collect();
        let given = Given {
            inputs: &inputs,
            sources: None,
            infos: Some(&infos),
        };
        let mut y = before.clone();
        kind.steer(&compiled, &given, &mut y);
        for (row, f) in dense(&kind.features(&inputs), kind.d_sae())
            .iter()
            .enumerate()
        {
            let (f, x) = (wide(f), wide(&inputs[row * D..][..D]));
            let mut change = vec![0.0; f.len()];
            if row != 2 {
                change[1] = 0.5;
            }
            if row != 1 {
                change[4] = 2.0 - f[4];
            }
            let written = kind.write(&change, &x);
            for c in 0..D_OUT {
                let direction = if c == 0 && row != 1 { 3.0 } else { 0.0 };
                let moved = (written[c] + direction) * infos[row].factor;
                let expected = f64::from(before[row * D_OUT + c]) + moved;
                let error = (f64::from(y[row * D_OUT + c]) - expected).abs();
                assert!(
                    error <= 3e-5 * (1.0 + expected.abs()),
                    "{name}, {row}: {error}"
                );
            }
        }
    });
}

/// Rows that are not finite, or whose status says so, are left alone; so is everything on an error.
#[test]
fn rows_without_features_are_left_alone() {
    let text = r#"{"edits": [{"feature": 3, "rule": "set", "strength": 2.5}]}"#;
    let plan = Plan::from_json(text).unwrap();
    each(|kind, name| {
        let compiled = kind.compile(std::slice::from_ref(&plan), Conflicts::Refuse);
        let (mut inputs, mut y) = (numbers(3, D), numbers(5, D_OUT));
        (inputs[D + 2], y[2 * D_OUT]) = (f32::NAN, f32::INFINITY);
        let before = y.clone();
        let given = Given {
            inputs: &inputs,
            sources: None,
            infos: None,
        };
        let (outcomes, _) = kind.steer(&compiled.unwrap(), &given, &mut y);
        for (row, outcome) in outcomes.iter().enumerate() {
            let range = row * D_OUT..(row + 1) * D_OUT;
            let same = bits(&y[range.clone()]) == bits(&before[range]);
            let failed = row == 1 || row == 2;
            let expected = if failed {
                Outcome::NonFinite
            } else {
                Outcome::Edited
            };
            assert_eq!((*outcome, same), (expected, failed), "{name}, {row}");
        }
    });
}

#[test]
fn what_plans_cannot_say_is_refused_with_its_path() {
    let pre = r#"{"edits": [{"feature": 3, "rule": "scale", "strength": 2.0,
                             "reads": "pre_activation"}]}"#;
    let scores = r#"{"scores": {"mode": "weight", "weights": {"1": 2.0}}}"#;
    let beyond = r#"{"edits": [{"feature": 99, "rule": "zero"}]}"#;
    let compile = |kind: &dyn Kind, text: &str| {
        let plan = Plan::from_json(text).unwrap_or_else(|error| panic!("{error}"));
        kind.compile(&[plan], Conflicts::Refuse)
    };
    each(|kind, name| {
        let error = compile(kind, beyond).unwrap_err().to_string();
        assert!(error.contains("edits[0].feature"), "{error}");
        if name.starts_with("molt") {
            // Its pre-activations are those of any other model.
            assert!(compile(kind, pre).is_ok() && compile(kind, scores).is_ok());
            return;
        }
        let error = compile(kind, pre).unwrap_err().to_string();
        assert!(
            error.contains("edits[0].reads") && error.contains("Lorsa"),
            "{error}"
        );
        let error = compile(kind, scores).unwrap_err().to_string();
        assert!(
            error.contains("scores") && error.contains("Lorsa"),
            "{error}"
        );
    });
    let file = LorsaFile::new();
    let bytes = file.bytes(false);
    let lorsa = open_lorsa(&bytes, lorsa_config()).unwrap();
    let kind = Attending(&file, open_lorsa(&bytes, lorsa_config()).unwrap());
    let source = r#"{"edits": [{"feature": 1, "rule": "from_source"}]}"#;
    let plan = lorsa
        .compile_plan(&Plan::from_json(source).unwrap())
        .unwrap();
    let cost = lorsa.plan_cost(&Plan::from_json(source).unwrap()).unwrap();
    assert!(cost.needs_encode);
    assert_eq!((cost.encoder_rows, cost.decoder_rows), (0, 1));
    let mut features = kind.features(&numbers(3, D));
    let mut scratch = lorsa.steer_scratch(&plan).unwrap();
    let mut report = Report::new(&plan);
    let mut y = numbers(5, D_OUT);
    let before = y.clone();
    let mut steer = |features: &Features, sources: Option<&Features>| {
        let batch = Batch::new(RowsMut::from_f32(&mut y, D_OUT).unwrap());
        let result = lorsa.steer(&plan, features, sources, batch, &mut scratch, &mut report);
        result.unwrap_err().code()
    };
    assert_eq!(steer(&features, None), Code::InvalidArgument);
    assert_eq!(steer(&Features::new(), Some(&features)), Code::Length);
    let mut short = Features::new();
    short.end_row(RowStatus::Ok).unwrap();
    // The source of row 5 is row 5.
    assert_eq!(steer(&features, Some(&short)), Code::InvalidArgument);
    features.push(24, 1.0).unwrap();
    features.end_row(RowStatus::Ok).unwrap();
    assert_eq!(steer(&features, Some(&features)), Code::Length);
    let mut wide = Features::new();
    for _ in 0..ROWS {
        wide.push(24, 1.0).unwrap();
        wide.end_row(RowStatus::Ok).unwrap();
    }
    assert_eq!(steer(&wide, Some(&wide)), Code::FeatureOutOfRange);
    assert_eq!(bits(&y), bits(&before));
}
