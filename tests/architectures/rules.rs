//! Selection rules over random models, against the f64 formulas.

use super::*;

/// Runs a model of whole numbers in every way; its features are exactly those of the formula,
/// which is given pre and the prepared row.
fn check_exact(
    seed: u64,
    sizes: (usize, usize, usize),
    make: impl Fn(&Affine, &mut Random, Stored) -> Parts<'static>,
    formula: impl Fn(&Affine, &mut Random, &[f64], &[f64]) -> Vec<f64>,
) {
    let mut random = Random(seed);
    let (d_in, d_sae, d_out) = sizes;
    let model = affine(&mut random, whole, d_in, d_sae, d_out);
    let inputs = whole(&mut random, 5 * d_in);
    let narrow: Vec<f32> = inputs.iter().map(|&x| x as f32).collect();
    // What is drawn from here on is the same for the parts and for the formula.
    let parts = |stored| make(&model, &mut random.clone(), stored);
    let (features, _) = parts::run(parts, &narrow, d_in);
    for (row, found) in dense(&features, d_sae).iter().enumerate() {
        let x = &inputs[row * d_in..][..d_in];
        let expected = formula(&model, &mut random.clone(), &model.pre(x), &model.input(x));
        let found: Vec<f64> = found.iter().map(|&value| value.into()).collect();
        assert_eq!(found, expected, "seed {seed}, row {row}");
    }
}

/// Sizes below and above the block that products are formed in.
fn sizes(seed: u64) -> (usize, usize, usize) {
    let mut random = Random(seed ^ 0x5151);
    let d_sae =
        [random.below(60) + 1, random.below(900) + 250][usize::from(seed.is_multiple_of(4))];
    let d_in = random.below(40) + 1;
    (d_in, d_sae, [d_in, random.below(20) + 1][random.below(2)])
}

/// Rank weights that are halves, some of them 0.
fn weights(random: &mut Random, count: usize) -> Vec<f64> {
    (0..count).map(|_| random.below(5) as f64 / 2.0).collect()
}

#[test]
fn weighted_top_k_ranks_weighted_and_reports_unweighted() {
    for seed in 0..40 {
        let k = |random: &mut Random, d_sae: usize| random.below(d_sae) + 1;
        check_exact(
            seed,
            sizes(seed),
            |model, random, stored| {
                let d_sae = model.encoder.len();
                let rule = top_k(k(random, d_sae));
                Parts {
                    rank_weight: Some(weights(random, d_sae)),
                    ..model.parts(rule, stored)
                }
            },
            |_, random, pre, _| {
                let k = k(random, pre.len());
                let weights = weights(random, pre.len());
                let found = formulas::top_k_weighted(pre, &weights, k);
                // A weight of 0 is a decoder row of zeros; it is never reported.
                let kept = |(found, weight): (&f64, &f64)| if *weight > 0.0 { *found } else { 0.0 };
                found.iter().zip(&weights).map(kept).collect()
            },
        );
    }
}

#[test]
fn weighted_thresholds_compare_weighted() {
    for seed in 0..40 {
        let thresholds = |random: &mut Random, count: usize| -> Vec<f64> {
            (0..count).map(|_| random.below(12) as f64 - 2.0).collect()
        };
        check_exact(
            seed,
            sizes(seed),
            |model, random, stored| {
                let d_sae = model.encoder.len();
                let weight = weights(random, d_sae);
                let theta = thresholds(random, d_sae)
                    .iter()
                    .map(|&t| t as f32)
                    .collect();
                Parts {
                    rank_weight: Some(weight),
                    ..model.parts(jump(Thresholds::PerFeature(theta)), stored)
                }
            },
            |_, random, pre, _| {
                let weight = weights(random, pre.len());
                formulas::jump_weighted(pre, &weight, &thresholds(random, pre.len()))
            },
        );
    }
}

#[test]
fn groups_have_winners_of_their_own() {
    for seed in 0..40 {
        let (d_in, d_sae, d_out) = sizes(seed);
        let groups = |random: &mut Random, d_sae: usize| {
            let divisors: Vec<usize> = (1..=d_sae).filter(|n| d_sae.is_multiple_of(*n)).collect();
            let groups = divisors[random.below(divisors.len())];
            (groups, random.below(d_sae / groups) + 1)
        };
        check_exact(
            seed,
            (d_in, d_sae, d_out),
            |model, random, stored| {
                let (groups, k) = groups(random, d_sae);
                let rule = Activation::GroupTopK {
                    groups,
                    k,
                    rank: Rank::Value,
                    relu: true,
                };
                model.parts(rule, stored)
            },
            |_, random, pre, _| {
                let (groups, k) = groups(random, pre.len());
                formulas::group_top_k(pre, groups, k)
            },
        );
    }
}

#[test]
fn one_group_is_top_k_and_single_features_are_relu() {
    let mut random = Random(7);
    let model = affine(&mut random, whole, 20, 300, 20);
    let inputs: Vec<f32> = whole(&mut random, 80).iter().map(|&x| x as f32).collect();
    let found =
        |rule: Activation| parts::run(|stored| model.parts(rule.clone(), stored), &inputs, 20);
    let group = |groups, k| Activation::GroupTopK {
        groups,
        k,
        rank: Rank::Value,
        relu: true,
    };
    assert_eq!(found(group(1, 9)), found(top_k(9)));
    assert_eq!(found(Activation::group_max(300)), found(Activation::Relu));
    assert_eq!(found(group(3, 100)), found(Activation::Relu));
}

#[test]
fn top_afa_keeps_as_many_as_the_norm_asks_for() {
    let mut counts = [0; 3];
    for seed in 0..80 {
        let (d_in, d_sae, _) = sizes(seed);
        let mut random = Random(seed);
        let mut model = affine(&mut random, whole, d_in, d_sae, d_in);
        // Rows far out meet the forced last entry, at 10^4.
        let far = if seed % 4 == 0 { 4096.0 } else { 0.0 };
        model.center = Some(vec![far; d_in]);
        let norms: Vec<f64> = (0..d_sae)
            .map(|_| (random.below(4) + 1) as f64 / [8.0, 1.0][usize::from(seed % 2 == 0)])
            .collect();
        let inputs = whole(&mut random, 4 * d_in);
        let narrow: Vec<f32> = inputs.iter().map(|&x| x as f32).collect();
        let make = |stored| Parts {
            rank_weight: Some(norms.clone()),
            ..model.parts(Activation::TopAfa, stored)
        };
        let (features, _) = parts::run(make, &narrow, d_in);
        for (row, found) in dense(&features, d_sae).iter().enumerate() {
            let x = &inputs[row * d_in..][..d_in];
            let target = dot(&model.input(x), &model.input(x)).sqrt();
            let pre = model.pre(x);
            let expected = formulas::top_afa(&pre, &norms, target);
            let found: Vec<f64> = found.iter().map(|&value| value.into()).collect();
            assert_eq!(found, expected, "seed {seed}, row {row}");
            let kept = found.iter().filter(|&&value| value != 0.0).count();
            let all = pre.iter().filter(|&&pre| pre > 0.0).count();
            counts[[kept == 0, kept == all]
                .iter()
                .position(|&is| is)
                .unwrap_or(2)] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count > 4), "{counts:?}");
}

#[test]
fn abs_top_k_of_the_negated_row_is_negated() {
    let mut random = Random(3);
    let model = Affine {
        bias: vec![0.0; 300],
        center: None,
        ..affine(&mut random, spread, 24, 300, 24)
    };
    let rule = Activation::TopK {
        k: 17,
        rank: Rank::Magnitude,
        relu: false,
    };
    let inputs: Vec<f32> = (0..96).map(|_| random.number()).collect();
    let negated: Vec<f32> = inputs.iter().map(|x| -x).collect();
    let run = |inputs: &[f32]| parts::run(|stored| model.parts(rule.clone(), stored), inputs, 24).0;
    let (one, other) = (run(&inputs), run(&negated));
    assert_eq!(one.indices(), other.indices());
    let negated: Vec<f32> = other.values().iter().map(|value| -value).collect();
    assert_eq!(bits(one.values()), bits(&negated));
}

/// A model whose encoder hands the row through, so that pre is the row.
fn through(d: usize) -> Affine {
    let unit = |i: usize| (0..d).map(|j| f64::from(u8::from(i == j))).collect();
    Affine {
        encoder: (0..d).map(unit).collect(),
        decoder: (0..d).map(unit).collect(),
        bias: vec![0.0; d],
        center: None,
        decoder_bias: vec![0.0; d],
    }
}

/// The features of one row of pre-activations.
fn select(activation: Activation, change: impl Fn(&mut Parts<'static>), pre: &[f32]) -> Vec<f32> {
    let model = through(pre.len());
    let make = |stored| {
        let mut parts = model.parts(activation.clone(), stored);
        change(&mut parts);
        parts
    };
    dense(&parts::run(make, pre, pre.len()).0, pre.len()).remove(0)
}

#[test]
fn value_maps_follow_the_selection() {
    let pre = [40.0, -3.0, 1.0, 7.5];
    let soft = select(
        top_k(2),
        |parts| parts.value_map = ValueMap::SoftCap(30.0),
        &pre,
    );
    let expected = [40.0, 0.0, 0.0, 7.5].map(|value| formulas::soft_cap(value, 30.0));
    for (found, expected) in soft.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= TWO_24 * expected);
    }
    assert_eq!(soft[1..3], [0.0, 0.0]);
    // Codebooks: the nearest codes, each with the value 1, negative cosines too.
    let codes = Activation::TopK {
        k: 3,
        rank: Rank::Value,
        relu: false,
    };
    let one = select(codes.clone(), |parts| parts.value_map = ValueMap::One, &pre);
    assert_eq!(one, [1.0, 0.0, 1.0, 1.0]);
    // Distances of unit vectors: c - sqrt(2 - 2 cos), rounding of cosines above 1 included.
    let cosines = [1.0, 0.5, -1.0, 1.0000001];
    let near = select(
        top_k(4),
        |parts| parts.value_map = ValueMap::Distance(1.25),
        &cosines,
    );
    assert_eq!(near, [1.25, 0.25, 0.0, 1.25]);
    let tanh = select(Activation::TanhRelu, |_| {}, &[0.5, -0.5]);
    assert_eq!(tanh, [libm::tanh(0.5) as f32, 0.0]);
    let leaky = Activation::LeakyRelu { slope: 0.25 };
    assert_eq!(
        select(leaky, |_| {}, &[2.0, -2.0, 0.0, -0.0]),
        [2.0, -0.5, 0.0, 0.0]
    );
}

#[test]
fn glu_gates_every_pre_activation() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let (d_in, d_sae, _) = sizes(seed);
        let model = affine(&mut random, spread, d_in, d_sae, d_in);
        let gate: Vec<Vec<f64>> = (0..d_sae).map(|_| spread(&mut random, d_in)).collect();
        let gate_bias = (seed % 3 > 0).then(|| spread(&mut random, d_sae));
        let inputs: Vec<f32> = (0..3 * d_in).map(|_| random.number()).collect();
        let rule = [Activation::Relu, top_k(d_sae.div_ceil(4))][(seed % 2) as usize].clone();
        let make = |stored| Parts {
            glu: Some(Glu {
                matrix: matrix("gate", &gate, stored),
                bias: gate_bias.clone(),
            }),
            ..model.parts(rule.clone(), stored)
        };
        let (features, _) = parts::run(make, &inputs, d_in);
        for (row, found) in dense(&features, d_sae).iter().enumerate() {
            let x: Vec<f64> = inputs[row * d_in..][..d_in]
                .iter()
                .map(|&x| x.into())
                .collect();
            let input: Vec<f64> = model
                .input(&x)
                .iter()
                .map(|&x| f64::from(x as f32))
                .collect();
            let pre: Vec<f64> = (0..d_sae)
                .map(|i| {
                    let t = dot(&gate[i], &input) + gate_bias.as_ref().map_or(0.0, |b| b[i]);
                    (dot(&model.encoder[i], &input) + model.bias[i]) / (1.0 + (-t).exp())
                })
                .collect();
            let expected = match rule {
                Activation::Relu => formulas::relu(&pre),
                _ => formulas::group_top_k(&pre, 1, d_sae.div_ceil(4)),
            };
            assert_values(
                found,
                &expected,
                |_| 1e-13,
                &format!("seed {seed}, row {row}"),
            );
        }
    }
}

#[test]
fn a_variational_mean_head_is_a_plain_model() {
    // vSAE: the codes are relu of the mean head; the variance head is not read. So the parts are
    // those of a ReLU model, and of a TopK model for its TopK form.
    let mut random = Random(11);
    let model = affine(&mut random, whole, 12, 40, 12);
    let inputs = whole(&mut random, 36);
    let narrow: Vec<f32> = inputs.iter().map(|&x| x as f32).collect();
    let make = |stored| model.parts(Activation::Relu, stored);
    let (features, _) = parts::run(make, &narrow, 12);
    for (row, found) in dense(&features, 40).iter().enumerate() {
        let expected = formulas::relu(&model.pre(&inputs[row * 12..][..12]));
        let found: Vec<f64> = found.iter().map(|&value| value.into()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn edges_of_the_rules() {
    // Rows of negative values have no features; ties go to the lowest index.
    let negative = [-1.0, -2.0, -3.0, -4.0];
    let nothing = [0.0; 4];
    let plain = |_: &mut Parts<'static>| {};
    for rule in [
        Activation::Relu,
        Activation::TanhRelu,
        top_k(3),
        Activation::group_max(2),
    ] {
        assert_eq!(select(rule, plain, &negative), nothing);
    }
    let ranked = |parts: &mut Parts<'static>| parts.rank_weight = Some(vec![1.0; 4]);
    assert_eq!(select(Activation::TopAfa, ranked, &negative), nothing);
    let ties = [2.0, 5.0, 5.0, 5.0];
    assert_eq!(select(top_k(2), plain, &ties), [0.0, 5.0, 5.0, 0.0]);
    assert_eq!(
        select(Activation::group_max(2), plain, &ties),
        [0.0, 5.0, 5.0, 0.0]
    );
    // Weights break the tie before the index does.
    let heavy = |parts: &mut Parts<'static>| parts.rank_weight = Some(vec![1.0, 1.0, 1.0, 2.0]);
    assert_eq!(select(top_k(2), heavy, &ties), [0.0, 5.0, 0.0, 5.0]);
    // An unset threshold (-1) lets every positive value pass.
    let unset = || jump(Thresholds::Scalar(-1.0));
    assert_eq!(
        select(unset(), plain, &[-0.5, 0.5, 0.0, -2.0]),
        [0.0, 0.5, 0.0, 0.0]
    );
    // Equality: strict, unless the rule is inclusive.
    let at = |inclusive| Activation::JumpRelu {
        threshold: Thresholds::Scalar(2.0),
        relu: true,
        inclusive,
    };
    assert_eq!(
        select(at(false), plain, &[2.0, 3.0, 1.0, 2.0]),
        [0.0, 3.0, 0.0, 0.0]
    );
    assert_eq!(
        select(at(true), plain, &[2.0, 3.0, 1.0, 2.0]),
        [2.0, 3.0, 0.0, 2.0]
    );
    // An infinite threshold switches a feature off.
    let off = vec![f32::INFINITY, 0.0, 0.0, 0.0];
    let rule = jump(Thresholds::PerFeature(off));
    assert_eq!(
        select(rule, plain, &[9.0, 1.0, 0.0, 0.0]),
        [0.0, 1.0, 0.0, 0.0]
    );
}

#[test]
fn what_a_rule_cannot_use_is_refused_at_construction() {
    let model = through(6);
    let refused = |change: &dyn Fn(&mut Parts<'static>), rule: Activation| {
        let mut parts = model.parts(rule, Stored::Rows);
        change(&mut parts);
        Sae::from_parts(parts).expect_err("this is refused")
    };
    let plain = |_: &mut Parts<'static>| {};
    let key = |error: &Error| match error {
        Error::InvalidValue { key, .. } | Error::MissingKey { key, .. } => key.clone(),
        Error::BadValue { tensor, .. } | Error::Shape { tensor, .. } => tensor.clone(),
        other => panic!("{other}"),
    };
    let group = |groups, k| Activation::GroupTopK {
        groups,
        k,
        rank: Rank::Value,
        relu: true,
    };
    for (rule, name) in [
        (top_k(0), "k"),
        (top_k(7), "k"),
        (group(0, 1), "groups"),
        (group(4, 1), "groups"),
        (group(3, 3), "k"),
        (group(3, 0), "k"),
        (Activation::TopAfa, "rank_weight"),
        (Activation::LeakyRelu { slope: f64::NAN }, "slope"),
        (jump(Thresholds::Scalar(f32::NAN)), "threshold"),
        (jump(Thresholds::PerFeature(vec![0.0; 5])), "threshold"),
    ] {
        let error = refused(&plain, rule.clone());
        assert_eq!(key(&error), name, "{rule:?}: {error}");
    }
    type Change<'c> = &'c dyn Fn(&mut Parts<'static>);
    let changes: [(Change<'_>, &str); 7] = [
        (
            &|parts| parts.rank_weight = Some(vec![1.0; 5]),
            "rank_weight",
        ),
        (
            &|parts| parts.rank_weight = Some(vec![-1.0; 6]),
            "rank_weight",
        ),
        (
            &|parts| parts.rank_weight = Some(vec![f64::NAN; 6]),
            "rank_weight",
        ),
        (
            &|parts| parts.value_map = ValueMap::SoftCap(0.0),
            "soft_cap",
        ),
        (
            &|parts| parts.value_map = ValueMap::Distance(f64::NAN),
            "distance",
        ),
        (&|parts| parts.input_sites = 4, "input_sites"),
        (&|parts| parts.output_sites = 0, "output_sites"),
    ];
    for (change, name) in changes {
        assert_eq!(key(&refused(change, Activation::Relu)), name);
    }
}
