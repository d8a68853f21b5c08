//! The methods of the papers, on a model that can be followed by hand: encoder rows (1, 0), (0, 1)
//! and (-0.5, -0.5), decoder rows (1, 0), (0, 1) and (-1, -1), ReLU, no biases. Each expectation is
//! the paper's formula written out.
#![cfg(feature = "std")]

use sae::steer::{Batch, OverBudget, Plan, Report, RowInfo, Stage, SteerScratch, recipes};
use sae::{Rows, RowsMut, Sae};
use std::path::Path;

/// Steers rows of two values.
fn steer(plan: &Plan, rows: &[[f32; 2]], infos: Option<&[RowInfo]>) -> Vec<[f32; 2]> {
    steer_at(plan, rows, rows, infos)
}

/// The same where features are read from rows at another site.
fn steer_at(
    plan: &Plan,
    inputs: &[[f32; 2]],
    rows: &[[f32; 2]],
    infos: Option<&[RowInfo]>,
) -> Vec<[f32; 2]> {
    let (name, file, config) = sae::doc_example::tiny();
    let sae = Sae::from_bytes(&name, &file, Some(&config), &Default::default()).unwrap();
    // As JSON it is the same plan.
    let plan = Plan::from_json(&plan.to_json().to_string()).unwrap();
    let plan = sae.compile_plan(&plan).unwrap();
    let mut values = rows.concat();
    let inputs = inputs.concat();
    let mut scratch = SteerScratch::new(&sae, &plan).unwrap();
    let mut batch = Batch::new(RowsMut::from_f32(&mut values, 2).unwrap());
    batch.infos = infos;
    batch.inputs = (inputs != rows.concat()).then(|| Rows::from_f32(&inputs, 2).unwrap());
    sae.steer(&plan, batch, &mut scratch, &mut Report::new(&plan))
        .unwrap();
    values.chunks_exact(2).map(|row| [row[0], row[1]]).collect()
}

/// Features of (x, y).
fn encode([x, y]: [f32; 2]) -> [f32; 3] {
    [x, y, -0.5 * x - 0.5 * y].map(|pre| pre.max(0.0))
}

fn decode([a, b, c]: [f32; 3]) -> [f32; 2] {
    [a - c, b - c]
}

/// x + decode(f') - decode(f)
fn keep(x: [f32; 2], after: [f32; 3]) -> [f32; 2] {
    let (a, b) = (decode(after), decode(encode(x)));
    [x[0] + a[0] - b[0], x[1] + a[1] - b[1]]
}

const ROWS: [[f32; 2]; 4] = [[3.0, 4.0], [-2.0, 1.0], [-2.0, -6.0], [0.5, -0.25]];

/// All rows but the first, changed by `change`.
fn but_first(change: impl Fn([f32; 2]) -> [f32; 2]) -> Vec<[f32; 2]> {
    let mut rows = ROWS.map(change);
    rows[0] = ROWS[0];
    rows.to_vec()
}

#[test]
fn unlearning_clamps_active_features_below_zero() {
    let clamp = |c: [f32; 3]| {
        move |x| {
            let f = encode(x);
            keep(
                x,
                [0, 1, 2].map(|i| {
                    if f[i] > 0.0 && c[i] != 0.0 {
                        -c[i]
                    } else {
                        f[i]
                    }
                }),
            )
        }
    };
    let plan = recipes::wmdp_negative_clamp(&[0, 2], 20.0);
    assert_eq!(
        steer(&plan, &ROWS, None),
        but_first(clamp([20.0, 0.0, 20.0]))
    );
    let plan = recipes::crisp(&[(0, 1.5), (2, -0.5)], 4.0);
    assert_eq!(steer(&plan, &ROWS, None), but_first(clamp([6.0, 0.0, 2.0])));
}

#[test]
fn spare_removes_and_adds_at_the_last_row_of_the_prompt() {
    let plan = recipes::spare(&[(0, 2.0)], &[(2, 1.5)]);
    let infos = [0, 1, 2, 3].map(|row| RowInfo {
        stage: if row < 3 {
            Stage::Prompt
        } else {
            Stage::Generation
        },
        last: row >= 2,
        ..RowInfo::at(row)
    });
    // Row 2: z = (-2, -6, 4): nothing to take away, nothing to add.
    assert_eq!(steer(&plan, &ROWS, Some(&infos)), ROWS);
    let rows = [ROWS[1], ROWS[2], ROWS[0], ROWS[3]];
    // z = (3, 4, -3.5): take min(3, 2) d_0 away, add (1.5 + 3.5) d_2.
    let expected = [ROWS[1], ROWS[2], [3.0 - 2.0 - 5.0, 4.0 - 5.0], ROWS[3]];
    assert_eq!(steer(&plan, &rows, Some(&infos)), expected);
}

#[test]
fn additions_are_where_and_as_large_as_the_papers_say() {
    let infos = [0, 1, 2, 3].map(|row| RowInfo {
        stage: if row < 2 {
            Stage::Prompt
        } else {
            Stage::Generation
        },
        last: row % 2 == 1,
        factor: f64::from(row) / 2.0,
        ..RowInfo::at(row)
    });
    let plain = infos.map(|info| RowInfo {
        factor: 1.0,
        ..info
    });
    let mut expected = ROWS;
    expected[3][1] += 2.5;
    let plan = recipes::corr_steer(&[(1, 2.5)]);
    assert_eq!(steer(&plan, &ROWS, Some(&plain)), expected);

    // mean + beta deviation
    let plan = recipes::saif(&[(0, 2.0, 0.5), (1, 1.0, 0.25)], 2.0);
    assert_eq!(
        steer(&plan, &ROWS, None),
        ROWS.map(|[x, y]| [x + 3.0, y + 1.5])
    );

    let plan = recipes::repetition_induce(0, 2.0);
    assert_eq!(steer(&plan, &ROWS, None), ROWS.map(|[x, y]| [x + 2.0, y]));

    // s max_j f_j at the last row: max of (3, 4, 0).
    let plan = recipes::output_feature(0, 1.5);
    let rows = [ROWS[1], ROWS[0]];
    assert_eq!(steer(&plan, &rows, None), [ROWS[1], [3.0 + 6.0, 4.0]]);

    let plan = recipes::token_scaled_vector(vec![2.0, -4.0]);
    let scaled = [0.0, 0.5, 1.0, 1.5];
    let expected = std::iter::zip(ROWS, scaled).map(|([x, y], a)| [x + 2.0 * a, y - 4.0 * a]);
    assert_eq!(
        steer(&plan, &ROWS, Some(&infos)),
        expected.collect::<Vec<_>>()
    );
}

#[test]
fn tables_by_step_scale_what_is_above_the_mean() {
    let plan = recipes::saeuron(&[(0, vec![0.5, 0.25], vec![1.0, 4.0])], -2.0);
    let infos = [0, 1, 0, 0].map(|phase| RowInfo {
        phase,
        ..RowInfo::at(0)
    });
    let rows = [[3.0, 4.0], [3.0, 4.0], [1.0, 4.0], [8.0, 0.0]];
    // Step 0: above 1, f := -2 * 0.5 f. Step 1: above 4.
    let expected = [[-3.0, 4.0], [3.0, 4.0], [1.0, 4.0], [-8.0, 0.0]];
    assert_eq!(steer(&plan, &rows, Some(&infos)), expected);
}

#[test]
fn deactivation_waits_for_its_threshold() {
    let reconstruction = |x| {
        let [a, b, c] = encode(x);
        decode([-8.0 * a, b, c])
    };
    let squares = ROWS[1..].iter().map(|&x| {
        let [a, b] = reconstruction(x);
        (a - x[0]) * (a - x[0]) + (b - x[1]) * (b - x[1])
    });
    let mean = f64::from(squares.sum::<f32>()) / 6.0;
    let plan = recipes::interpret_then_deactivate(&[0], -8.0, mean * 0.99);
    assert_eq!(steer(&plan, &ROWS, None), but_first(reconstruction));
    let plan = recipes::interpret_then_deactivate(&[0], -8.0, mean * 1.01);
    assert_eq!(steer(&plan, &ROWS, None), ROWS);
}

#[test]
fn topics_are_aligned_by_scores() {
    let pre = |[x, y]: [f32; 2]| [x, y, -0.5 * x - 0.5 * y];
    let s = [0.5, 0.0, 0.25];
    let scores = || [(0, 0.5), (2, 0.25)].into();
    let expected = ROWS.map(|x| {
        let z = pre(x);
        decode([0, 1, 2].map(|i| (s[i] * z[i]).max(0.0)))
    });
    assert_eq!(
        steer(&recipes::topic_weight(scores()), &ROWS, None),
        expected
    );
    let expected = ROWS.map(|x| {
        let z = pre(x);
        decode([0, 1, 2].map(|i| if s[i] * z[i] > 0.0 { z[i] } else { 0.0 }))
    });
    assert_eq!(steer(&recipes::topic_swap(scores()), &ROWS, None), expected);
    let expected = ROWS.map(|x| {
        let [a, b, c] = encode(x);
        decode([a + 10.0, b, c + 10.0])
    });
    assert_eq!(steer(&recipes::topic_clamp(&[0, 2]), &ROWS, None), expected);
}

#[test]
fn ax_bench_adds_and_clamps() {
    let add = recipes::ax_bench_add(1, 0.5, 8.0);
    assert_eq!(steer(&add, &ROWS, None), ROWS.map(|[x, y]| [x, y + 4.0]));
    let set = ROWS.map(|x| {
        let [a, _, c] = encode(x);
        keep(x, [a, 4.0, c])
    });
    assert_eq!(
        steer(&recipes::ax_bench_clamp(1, 0.5, 8.0), &ROWS, None),
        set
    );
    assert_eq!(steer(&recipes::reason_score(1, 0.5, 8.0), &ROWS, None), set);
    let expected = ROWS.map(|x| {
        let [a, b, c] = encode(x);
        keep(x, [a, b.max(2.0), c])
    });
    assert_eq!(
        steer(&recipes::ax_bench_min_clamp(1, 0.25, 8.0), &ROWS, None),
        expected
    );
    let expected = ROWS.map(|x| {
        let [a, _, _] = encode(x);
        keep(x, [a, 0.0, 0.0])
    });
    assert_eq!(
        steer(&recipes::repetition_suppress(&[1, 2]), &ROWS, None),
        expected
    );
    // v = (0, 1): h - relu(<h, v>) v + 4 v, the first row kept.
    let plan = recipes::ax_bench_subspace_clamp(vec![0.0, 5.0], 0.5, 8.0, 1);
    assert_eq!(
        steer(&plan, &ROWS, None),
        but_first(|[x, y]| [x, y - y.max(0.0) + 4.0])
    );
    let plan = recipes::ax_bench_threshold_add(vec![0.0, 5.0], 2.0);
    let expected = ROWS.map(|[x, y]| [x, if y < 2.0 { y + 2.0 } else { y }]);
    assert_eq!(steer(&plan, &ROWS, None), expected);
}

#[test]
fn directions_come_from_means_and_effects() {
    // (3, 5) - (0, 1) = (3, 4)
    let v = recipes::diff_mean(&[2.0, 4.0, 4.0, 6.0], &[0.0, 1.0], 2).unwrap();
    assert_eq!(v, [0.6, 0.8]);
    assert!(recipes::diff_mean(&[1.0, 2.0], &[1.0, 2.0], 2).is_err());
    assert!(recipes::diff_mean(&[1.0], &[1.0, 2.0], 2).is_err());
    assert!(recipes::diff_mean(&[], &[1.0, 2.0], 2).is_err());
    assert!(recipes::diff_mean(&[1.0], &[2.0], 0).is_err());
    assert!(recipes::diff_mean(&[f32::NAN, 0.0], &[1.0, 2.0], 2).is_err());
    // W = [[1, 0], [0, 2]], b = (0, 1): W_0 = (1, 0), W b = (0, 2).
    let effects = [1.0, 0.0, 0.0, 2.0];
    let u = recipes::effect_vector(&effects, &[0.0, 1.0], 2, 0, 1.0).unwrap();
    let half = std::f64::consts::FRAC_1_SQRT_2 as f32;
    assert_eq!(u, [half, -half]);
    assert!(recipes::effect_vector(&effects, &[0.0, 1.0], 2, 2, 1.0).is_err());
    assert!(recipes::effect_vector(&effects, &[0.0], 2, 0, 1.0).is_err());
    assert!(recipes::effect_vector(&effects, &[0.0, 0.0], 2, 0, 1.0).is_err());
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A plan file of the documentation.
fn plan_file(name: &str) -> Plan {
    let text = std::fs::read_to_string(format!("{ROOT}/docs/plans/{name}.json")).unwrap();
    Plan::from_json(&text).unwrap()
}

/// Steers with a plan file of the documentation.
fn steer_file(name: &str, rows: &[[f32; 2]], infos: &[RowInfo]) -> Vec<[f32; 2]> {
    steer(&plan_file(name), rows, Some(infos))
}

/// What needs no recipe of its own: one rule, where and as large as the method says.
#[test]
fn the_other_methods_are_one_rule_each() {
    let infos = [0, 1, 2, 3].map(|row| RowInfo {
        stage: if row < 2 {
            Stage::Prompt
        } else {
            Stage::Generation
        },
        class: row % 2,
        phase: row,
        ..RowInfo::at(row)
    });
    let on = |rows: &[usize], change: &dyn Fn([f32; 2]) -> [f32; 2]| {
        let mut all = ROWS.to_vec();
        rows.iter().for_each(|&row| all[row] = change(ROWS[row]));
        all
    };

    // MAIRA-2: x + alpha d_i on generated tokens.
    let plan = "maira2";
    let expected = on(&[2, 3], &|[x, y]| [x - 1.5, y - 1.5]);
    assert_eq!(steer_file(plan, &ROWS, &infos), expected);

    // SDXL Turbo: mask * strength * mean_i * d_i at some steps of the diffusion; one feature alone.
    let plan = "sdxl_turbo";
    let mask = [1.0, 0.5, 0.25, 1.0];
    let masked = [0, 1, 2, 3].map(|row| RowInfo {
        factor: mask[row],
        ..infos[row]
    });
    let mut expected = ROWS;
    expected[1][1] += 0.5 * 3.0;
    expected[2][1] += 0.25 * 3.0;
    assert_eq!(steer_file(plan, &ROWS, &masked), expected);
    let plan = "sdxl_turbo_only";
    let expected = on(&[0, 1, 2, 3], &|x| decode([0.0, encode(x)[1], 0.0]));
    assert_eq!(steer_file(plan, &ROWS, &infos), expected);

    // SAEs for vision-language models: f_i := alpha for all patches, decoded.
    let plan = "vlm_set";
    let expected = on(&[0, 1, 2, 3], &|x| {
        let [a, b, _] = encode(x);
        decode([a, b, 4.0])
    });
    assert_eq!(steer_file(plan, &ROWS, &infos), expected);

    // LMMs interpret LMMs, and FAST's special tokens: f_i := c at tokens of a class, error kept.
    let plan = "token_class_clamp";
    let expected = on(&[1, 3], &|x| {
        let [_, b, c] = encode(x);
        keep(x, [6.0, b, c])
    });
    assert_eq!(steer_file(plan, &ROWS, &infos), expected);

    // SAE-V: features scaled on some patches, x + decode(f') - decode(f).
    let plan = "sae_v_patches";
    let expected = on(&[0, 2, 3], &|x| {
        let [a, b, c] = encode(x);
        keep(x, [-0.5 * a, b, -0.5 * c])
    });
    assert_eq!(steer_file(plan, &ROWS, &infos), expected);

    // Maze world models: one feature off, another to a value, also below zero.
    let plan = "maze_toggles";
    let expected = on(&[0, 1, 2, 3], &|x| keep(x, [0.0, -3.0, encode(x)[2]]));
    assert_eq!(steer_file(plan, &ROWS, &infos), expected);

    // Disentangling dense embeddings: the decoded code with some values edited.
    let plan = "dense_embeddings";
    let expected = on(&[0, 1, 2, 3], &|x| {
        let [a, _, c] = encode(x);
        decode([3.0 * a, 2.0, c])
    });
    assert_eq!(steer_file(plan, &ROWS, &infos), expected);

    // VL-SAE: a mix of a row and its reconstruction.
    let half = infos.map(|info| RowInfo {
        factor: 0.5,
        ..info
    });
    let expected = on(&[0, 1, 2, 3], &|x| {
        let found = decode(encode(x));
        [0, 1].map(|i| x[i] + 0.5 * (found[i] - x[i]))
    });
    assert_eq!(steer_file("vl_sae_mix", &ROWS, &half), expected);

    // Rogue Scalpel: x + alpha |x| v, held to a budget of |x' - x| / |x|.
    let plan = plan_file("rogue_scalpel");
    let rows = [[3.0, 4.0], [-6.0, 8.0], [0.0, 2.0], [5.0, -12.0]];
    let expected = [
        [3.0, 4.0 + 1.25],
        [-6.0, 8.0 + 2.5],
        [0.0, 2.5],
        [5.0, -12.0 + 3.25],
    ];
    assert_eq!(steer(&plan, &rows, Some(&infos)), expected);
    let plan = plan.budget(0.25, OverBudget::Refuse);
    assert_eq!(steer(&plan, &rows, Some(&infos)), rows);

    // Vision power probing, P1 and P2 at once: x + 2 d_0, and f_1 := 3 with the error kept.
    let expected = on(&[0, 1, 2, 3], &|x| {
        let [a, _, c] = encode(x);
        keep(x, [a + 2.0, 3.0, c])
    });
    assert_eq!(steer_file("vision_power_probing", &ROWS, &infos), expected);
}

/// decode(f m): Mammo-SAE and PatchSAE, top-k on and off; with the error kept: a concept taken out.
#[test]
fn masks_keep_or_drop_features() {
    let on = ROWS.map(|x| {
        let [a, _, c] = encode(x);
        decode([a, 0.0, c])
    });
    assert_eq!(steer(&plan_file("mask_on"), &ROWS, None), on);
    let off = ROWS.map(|x| decode([0.0, encode(x)[1], 0.0]));
    assert_eq!(steer(&plan_file("mask_off"), &ROWS, None), off);
    let taken_out = ROWS.map(|x| keep(x, [0.0, encode(x)[1], 0.0]));
    let plan = plan_file("mask_off_keep_error");
    assert_eq!(steer(&plan, &ROWS, None), taken_out);
}

/// SDXL Turbo's SAEs read what a block adds, its output less its input, and edit the output.
#[test]
fn features_of_another_site_are_edited() {
    let blocks = [[1.0, -2.0], [4.0, 0.5], [-1.0, 8.0], [0.0, 0.25]];
    let added = std::iter::zip(ROWS, blocks).map(|([x, y], [a, b])| [x - a, y - b]);
    let added: Vec<[f32; 2]> = added.collect();
    // f_1 := 0 in what was added: y' = y - f_1(added) d_1.
    let expected = std::iter::zip(ROWS, &added).map(|([x, y], &u)| [x, y - encode(u)[1]]);
    let plan = plan_file("sdxl_turbo_off");
    let found = steer_at(&plan, &added, &ROWS, None);
    assert_eq!(found, expected.collect::<Vec<_>>());
    let infos = [0, 1, 2, 3].map(|phase| RowInfo {
        phase,
        factor: 0.5,
        ..RowInfo::at(0)
    });
    let mut expected = ROWS;
    expected[1][1] += 0.5 * 3.0;
    expected[2][1] += 0.5 * 3.0;
    let plan = plan_file("sdxl_turbo");
    assert_eq!(steer_at(&plan, &added, &ROWS, Some(&infos)), expected);
}

#[test]
fn reft_r1_directions_are_added() {
    // relu(<h, v>) for v = (1, -1): 0, 0, 4, 0.75; the mean of the largest two is 2.375.
    let plan = recipes::reft_r1(&ROWS.concat(), vec![1.0, -1.0], 2).unwrap();
    let expected = ROWS.map(|[x, y]| [x + 2.375, y - 2.375]);
    assert_eq!(steer(&plan, &ROWS, None), expected);
    let plan = recipes::reft_r1(&ROWS.concat(), vec![1.0, -1.0], 99).unwrap();
    let expected = ROWS.map(|[x, y]| [x + 1.1875, y - 1.1875]);
    assert_eq!(steer(&plan, &ROWS, None), expected);
    assert!(recipes::reft_r1(&ROWS.concat(), vec![1.0; 3], 2).is_err());
    assert!(recipes::reft_r1(&ROWS.concat(), vec![], 2).is_err());
    assert!(recipes::reft_r1(&[], vec![1.0; 2], 2).is_err());
    assert!(recipes::reft_r1(&ROWS.concat(), vec![1.0; 2], 0).is_err());
    // h + factor max v, v a unit vector.
    let plan = recipes::ax_bench_add_direction(vec![0.0, -5.0], 0.5, 8.0);
    let expected = ROWS.map(|[x, y]| [x, y - 4.0]);
    assert_eq!(steer(&plan, &ROWS, None), expected);
}

/// v W for a W of two columns.
fn effect_of(v: &[f32; 3], effects: &[f32; 6]) -> [f32; 2] {
    [0, 1].map(|column| (0..3).map(|i| v[i] * effects[2 * i + column]).sum())
}

/// The pseudo-inverse and the rotation of SAE-TS, against their formulas.
#[test]
fn the_other_vectors_of_sae_ts() {
    // W = [[1, 0, 2], [0, 2, 0]]: W W' = diag(5, 4), so v = (c_0 + 2 c_2) / 5, 2 c_1 / 4 for
    // c = t / |t| - b.
    let effects = [1.0, 0.0, 2.0, 0.0, 2.0, 0.0];
    let bias = [0.25, -0.5, 1.0];
    let v = recipes::effect_inverse(&effects, &bias, 2, &[(1, 4.0), (2, 3.0)]).unwrap();
    let c = [0.0 - 0.25, 0.8 + 0.5, 0.6 - 1.0];
    let expected = [(c[0] + 2.0 * c[2]) / 5.0, 2.0 * c[1] / 4.0];
    for (v, expected) in v.iter().zip(expected) {
        assert!(
            (f64::from(*v) - expected).abs() < 1e-7,
            "{v} for {expected}"
        );
    }
    // More rows than columns: the shortest v whose effect is the target, exactly.
    let tall = [1.0, 0.5, 0.0, 2.0, -1.0, 1.0];
    let v = recipes::effect_inverse(&tall, &[0.5, 0.0], 3, &[(0, 2.0)]).unwrap();
    let effect = |column: usize| -> f32 { (0..3).map(|i| v[i] * tall[2 * i + column]).sum() };
    assert!((effect(0) - 0.5).abs() < 1e-6 && effect(1).abs() < 1e-6);
    // The shortest: nothing of it along what has no effect, the cross product of both columns.
    let none = [2.0, -1.5, 2.0];
    assert!(effect_of(&none, &tall).iter().all(|effect| *effect == 0.0));
    let along: f32 = v.iter().zip(none).map(|(v, n)| v * n).sum();
    assert!(along.abs() < 1e-6, "{along}");
    // Any size, against the conditions that define the nearest effect: (v W - c) W' = 0.
    let mut state = 1u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let (width, features) = (7, 19);
    let effects: Vec<f32> = (0..width * features).map(|_| number()).collect();
    let bias: Vec<f32> = (0..features).map(|_| number()).collect();
    let v = recipes::effect_inverse(&effects, &bias, width, &[(4, 1.0)]).unwrap();
    let left: Vec<f64> = (0..features)
        .map(|f| {
            let effect = (0..width).map(|i| f64::from(v[i]) * f64::from(effects[i * features + f]));
            effect.sum::<f64>() - (f64::from(f == 4) - f64::from(bias[f]))
        })
        .collect();
    for row in effects.chunks_exact(features) {
        let product: f64 = row.iter().zip(&left).map(|(w, l)| f64::from(*w) * l).sum();
        assert!(product.abs() < 1e-5, "{product}");
    }
    // Not of full rank, of the wrong sizes, out of range, without length.
    let twice = [1.0, 2.0, 3.0, 2.0, 4.0, 6.0];
    assert!(recipes::effect_inverse(&twice, &[0.0; 3], 2, &[(0, 1.0)]).is_err());
    assert!(recipes::effect_inverse(&twice, &[0.0; 2], 2, &[(0, 1.0)]).is_err());
    assert!(recipes::effect_inverse(&[], &[], 0, &[(0, 1.0)]).is_err());
    assert!(recipes::effect_inverse(&tall, &[0.0; 2], 3, &[(2, 1.0)]).is_err());
    assert!(recipes::effect_inverse(&tall, &[0.0; 2], 3, &[]).is_err());
    assert!(recipes::effect_inverse(&[f32::NAN; 4], &[0.0; 2], 2, &[(0, 1.0)]).is_err());

    // R' v for R = [[0, 1], [-1, 0]] and v = (3, 4): (-4, 3), as a unit vector (-0.8, 0.6); less
    // b = (0.2, -0.4): (-1, 1), as a unit vector.
    let rotation = [0.0, 1.0, -1.0, 0.0];
    let u = recipes::rotated_vector(&rotation, &[0.2, -0.4], &[3.0, 4.0]).unwrap();
    let half = std::f64::consts::FRAC_1_SQRT_2;
    assert!((f64::from(u[0]) + half).abs() < 1e-7 && (f64::from(u[1]) - half).abs() < 1e-7);
    assert!(recipes::rotated_vector(&rotation, &[0.0; 2], &[0.0; 2]).is_err());
    assert!(recipes::rotated_vector(&rotation, &[0.0; 2], &[1.0; 3]).is_err());
    assert!(recipes::rotated_vector(&rotation, &[0.0; 3], &[1.0; 2]).is_err());
}

/// Every row of the table in `docs/plans/README.md` names a recipe or a file and a test, and all
/// that it names exists; every recipe and every plan file is in it.
#[test]
fn the_table_of_methods_is_true() {
    let read = |path: &str| std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap();
    let page = read("docs/plans/README.md");
    let recipes = read("src/steer/recipes.rs");
    let (_, table) = page
        .split_once("| method | recipe or plan file | test |")
        .unwrap();
    let rows = table.lines().skip(2).filter(|line| line.starts_with('|'));
    let quoted = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_string).collect()
    };
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [_, plans, tests] = cells[..] else {
            panic!("{row}");
        };
        let (plans, tests) = (quoted(plans), quoted(tests));
        assert!(!plans.is_empty() && !tests.is_empty(), "{row}");
        for name in plans {
            let exists = match name.strip_suffix(".json") {
                Some(_) => Path::new(ROOT).join("docs/plans").join(&name).is_file(),
                None if name.starts_with("Sae::") => {
                    read("src/steer/decompose.rs").contains(&format!("fn {}(", &name[5..]))
                }
                None if name.starts_with("sae ") => Path::new(ROOT)
                    .join(format!("src/bin/sae/{}.rs", &name[4..]))
                    .is_file(),
                None if name == "from_source" => {
                    read("docs/plans/schema.json").contains("\"from_source\"")
                }
                None => recipes.contains(&format!("pub fn {name}(")),
            };
            assert!(exists, "`{name}`: {row}");
        }
        for name in tests {
            let (file, test) = name.split_once("::").unwrap();
            let text = read(&format!("tests/{file}.rs"));
            assert!(
                text.contains(&format!("#[test]\nfn {test}()")),
                "`{name}`: {row}"
            );
        }
        count += 1;
    }
    assert!(count >= 25, "{count} rows");
    for line in recipes
        .lines()
        .filter_map(|line| line.strip_prefix("pub fn "))
    {
        let name = line.split('(').next().unwrap();
        assert!(
            table.contains(&format!("`{name}`")),
            "`{name}` is not in the table"
        );
    }
    for entry in std::fs::read_dir(format!("{ROOT}/docs/plans")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let listed = table.contains(&format!("`{name}`"));
        let other = name == "README.md" || name == "schema.json";
        assert!(listed || other, "{name} is not in the table");
    }
}
