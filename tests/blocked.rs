//! Encoding in batches: the kernels at every level against their meaning, and batches of every
//! size, on any number of threads, against their rows alone, bit for bit.

mod library;

use library::bits;
use library::kinds::{D_IN, Random, alone, assert_same, inputs, model, rules, weights};
use library::parts::{Stored, matrix, tensor};
use sae::kernels::blocked::{
    BlockedKernels, COLUMN_FEATURES, PANEL_FEATURES, PanelBounds, Products, TILE_ROWS, TileRow,
};
use sae::kernels::{Kernels, Level, WeightType};
use sae::model::{Activation, FeatureAxis, Matrix, Parts, Rank, ScreenKind, Thresholds};
use sae::{Features, Part, RowStatus, Rows, Sae, Scratch};

// -- kernels -------------------------------------------------------------------------------------

fn sets() -> Vec<&'static BlockedKernels> {
    let sets: Vec<_> = BlockedKernels::all().collect();
    for level in Level::ALL {
        if !sets.iter().any(|set| set.level() == level) {
            println!("skipped: {level} (the build or the machine lacks it)");
        }
    }
    for name in std::env::var("SAE_REQUIRE_LEVEL")
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let level = Level::from_name(name).expect("a level");
        assert!(
            Kernels::for_level(level).is_some(),
            "required level {level} is missing"
        );
    }
    sets
}

#[test]
fn products_are_exact_at_every_level() {
    let mut random = Random(1);
    for pairs in [0, 1, 2, 7, 16, 33, 192] {
        let rows: Vec<Vec<i16>> = (0..TILE_ROWS).map(|_| random.integers(2 * pairs)).collect();
        let features: Vec<Vec<i16>> = (0..PANEL_FEATURES)
            .map(|_| random.integers(2 * pairs))
            .collect();
        for kernels in sets() {
            let mut tile = vec![0; TILE_ROWS * 2 * pairs];
            kernels.interleave_tile(&rows.concat(), &mut tile);
            let mut panel = vec![0; PANEL_FEATURES * 2 * pairs];
            for (c, column) in features.chunks(COLUMN_FEATURES).enumerate() {
                let size = COLUMN_FEATURES * 2 * pairs;
                kernels.interleave_column(&column.concat(), &mut panel[c * size..][..size]);
            }
            for (at, &value) in tile.iter().enumerate() {
                let (pair, r, half) = (at / 2 / TILE_ROWS, at / 2 % TILE_ROWS, at % 2);
                assert_eq!(value, rows[r][2 * pair + half]);
            }
            let mut products: Products = [[7; PANEL_FEATURES]; TILE_ROWS];
            kernels.multiply(&panel, &tile, &mut products);
            for (row, products) in rows.iter().zip(&products) {
                for (feature, &product) in features.iter().zip(products) {
                    let terms = row.iter().zip(feature);
                    let sum: i64 = terms.map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
                    assert_eq!(product, sum as i32, "{kernels:?} {pairs}");
                }
            }
        }
    }
}

#[test]
fn quantising_gives_the_same_bits_at_every_level() {
    let mut random = Random(2);
    let reference = BlockedKernels::for_level(Level::Scalar);
    for len in (0..70).chain([384, 769, 2304]) {
        let values: Vec<f32> = (0..len).map(|_| (random.value() * 1000.0) as f32).collect();
        let mut expected = vec![9i16; len + 3];
        let squares = reference.quantise(&values, 8.0, &mut expected);
        for (value, integer) in values.iter().zip(&expected) {
            let place = f64::from(*value) * 8.0;
            assert!((place - f64::from(*integer)).abs() <= 0.5, "{value}");
        }
        assert!(expected[len..].iter().all(|&integer| integer == 0));
        for kernels in sets() {
            let mut integers = vec![9i16; len + 3];
            let found = kernels.quantise(&values, 8.0, &mut integers);
            assert_eq!(integers, expected, "{kernels:?}");
            assert_eq!(found.to_bits(), squares.to_bits(), "{kernels:?}");
            let (a, b) = (kernels.measure(&values), reference.measure(&values));
            assert_eq!(a.map(f64::to_bits), b.map(f64::to_bits), "{kernels:?}");
        }
        let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert_eq!(reference.measure(&values)[1], f64::from(largest));
    }
}

#[test]
fn weights_widen_exactly_at_every_level() {
    for ty in [WeightType::F16, WeightType::BF16] {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut wide = vec![0f64; 1 << 16];
        Kernels::best().widen(ty, &bytes, &mut wide);
        for kernels in sets() {
            let mut found = vec![0f32; 1 << 16];
            kernels.widen(ty, &bytes, &mut found);
            for (found, wide) in found.iter().zip(&wide) {
                let same = f64::from(*found).to_bits() == wide.to_bits();
                assert!(same || found.is_nan() && wide.is_nan(), "{kernels:?}");
            }
        }
    }
}

#[test]
fn columns_become_rows_at_every_level() {
    let mut random = Random(3);
    for (inputs, features, spare) in [
        (1, 1, 0),
        (5, 64, 3),
        (16, 16, 0),
        (47, 33, 1),
        (100, 64, 0),
        (33, 256, 0),
        (50, 208, 5),
        (18, 250, 0),
    ] {
        for ty in WeightType::ALL {
            let (size, stride) = (ty.size(), (features + spare) * ty.size() + 1);
            let columns: Vec<u8> = (0..inputs * stride).map(|_| random.next() as u8).collect();
            for kernels in sets() {
                let share = inputs * size + 3 * spare;
                let mut rows = vec![0u8; share * features];
                kernels.transpose(ty, &columns, stride, [inputs, features], &mut rows);
                for f in 0..features {
                    for j in 0..inputs {
                        assert_eq!(
                            rows[f * share + j * size..][..size],
                            columns[j * stride + f * size..][..size],
                            "{kernels:?} {ty:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn judgements_agree_at_every_level_and_nan_keeps() {
    let mut random = Random(4);
    for round in 0..60 {
        let special = |random: &mut Random| match random.next() % 40 {
            0 if round % 2 == 0 => f64::NAN,
            1 if round % 2 == 0 => f64::INFINITY,
            2 => 0.0,
            _ => random.value(),
        };
        let mut bounds = PanelBounds::EMPTY;
        for i in 0..PANEL_FEATURES {
            bounds.weight[i] = special(&mut random) * 1e-8;
            bounds.offset[i] = special(&mut random);
            bounds.coded[i] = special(&mut random).abs() * 0.1;
            bounds.residual[i] = special(&mut random).abs() * 0.1;
            bounds.slack[i] = special(&mut random).abs() * 0.1;
            bounds.threshold[i] = random.value();
        }
        let rows: [TileRow; TILE_ROWS] = core::array::from_fn(|_| TileRow {
            step: special(&mut random),
            coded: special(&mut random).abs(),
            spread: special(&mut random).abs(),
            floor: random.value(),
        });
        let products: Products =
            core::array::from_fn(|_| core::array::from_fn(|_| random.next() as i32));
        for magnitude in [false, true] {
            let mut expected = [0u64; TILE_ROWS];
            for (r, row) in rows.iter().enumerate() {
                for (i, &product) in products[r].iter().enumerate() {
                    let product = f64::from(product);
                    let estimate = bounds.weight[i] * row.step * product + bounds.offset[i];
                    let estimate = if magnitude { estimate.abs() } else { estimate };
                    let margin = bounds.coded[i] * row.coded
                        + bounds.residual[i] * row.spread
                        + bounds.slack[i];
                    let below = estimate + margin < bounds.threshold[i].max(row.floor);
                    expected[r] |= u64::from(!below) << i;
                }
            }
            for kernels in sets() {
                let found = kernels.keep(&products, &rows, &bounds, magnitude);
                assert_eq!(found, expected, "{kernels:?}");
            }
        }
    }
}

// -- batches -------------------------------------------------------------------------------------

/// The features of rows split over threads, and the same split over features.
fn on_threads(sae: &Sae<'_>, rows: Rows<'_>, threads: usize) -> [Vec<Features>; 2] {
    let by_rows = std::thread::scope(|scope| {
        let share = rows.rows().div_ceil(threads);
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut features = Features::new();
                    let part = rows.part(thread * share, share);
                    sae.encode(part, &mut Scratch::new(sae).unwrap(), &mut features)
                        .unwrap();
                    features
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let parts: Vec<Part> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut part = Part::new();
                    let range = sae.part_range(thread, threads);
                    sae.encode_part(rows, range, &mut Scratch::new(sae).unwrap(), &mut part)
                        .unwrap();
                    part
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut features = Features::new();
    let parts: Vec<&Part> = parts.iter().collect();
    sae.encode_finish(&parts, &mut Scratch::new(sae).unwrap(), &mut features)
        .unwrap();
    [by_rows, vec![features]]
}

#[test]
fn batches_of_every_size_have_the_bits_of_their_rows() {
    let values = inputs(&mut Random(12), 512);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    for (name, activation) in rules() {
        for stored in [Stored::Rows, Stored::Columns] {
            for weighted in [false, true] {
                let sae = model(activation.clone(), stored, weighted);
                let expected = alone(&sae, rows);
                // One feature a row at least, but for rows that fail or are zeros.
                assert!(
                    expected.failed_rows() > 20 && expected.len() > 256,
                    "{name}"
                );
                for level in Level::available() {
                    let sae = model(activation.clone(), stored, weighted)
                        .with_level(level)
                        .unwrap();
                    for count in [1, 2, 7, 64, 512] {
                        let mut features = Features::new();
                        let part = rows.part(0, count);
                        sae.encode(part, &mut Scratch::new(&sae).unwrap(), &mut features)
                            .unwrap();
                        let expected = alone(&sae, part);
                        let what = format!("{name} {stored:?} {weighted} {level} {count}");
                        assert_same(&features, &expected, &what);
                    }
                }
                // Through a screen: chosen by cost, and where there is one at all.
                for kind in [ScreenKind::Auto, ScreenKind::Proven, ScreenKind::Dithered] {
                    for level in Level::available() {
                        let mut prepared = model(activation.clone(), stored, weighted)
                            .with_level(level)
                            .unwrap()
                            .with_screen_options(kind.into());
                        prepared.prepare_in_place().unwrap();
                        for count in [7, 13, 64, 512] {
                            let part = rows.part(0, count);
                            let mut features = Features::new();
                            prepared
                                .encode(part, &mut Scratch::new(&prepared).unwrap(), &mut features)
                                .unwrap();
                            let expected = alone(&sae, part);
                            let what = format!("{name} prepared {kind:?} {level} {count}");
                            assert_same(&features, &expected, &what);
                        }
                    }
                }
            }
        }
    }
}

/// Batches of a rule that ranks go through a screen when its codes are too large for a cache.
#[test]
fn wide_models_rank_through_their_screens() {
    const WIDTH: usize = 64;
    const FEATURES: usize = 60_000;
    let mut random = Random(31);
    let vectors: Vec<Vec<f64>> = (0..FEATURES)
        .map(|_| (0..WIDTH).map(|_| random.value()).collect())
        .collect();
    let values: Vec<f32> = (0..70 * WIDTH).map(|_| random.value() as f32).collect();
    let rows = Rows::from_f32(&values, WIDTH).unwrap();
    for (rank, relu) in [
        (Rank::Value, true),
        (Rank::Value, false),
        (Rank::Magnitude, false),
    ] {
        let sae = |kind: ScreenKind| {
            let rule = Activation::TopK { k: 20, rank, relu };
            let encoder = matrix("W_enc", &vectors, Stored::Rows);
            let parts = Parts::new(encoder, rule, matrix("W_dec", &vectors, Stored::Rows));
            let sae = Sae::from_parts(parts).unwrap();
            sae.with_screen_options(kind.into()).prepare().unwrap()
        };
        let (plain, screened) = (sae(ScreenKind::None), sae(ScreenKind::Proven));
        let held = screened.screen().expect("a screen").bytes_held();
        assert!(held > 4 << 20, "{held} bytes");
        let mut features = Features::new();
        screened
            .encode(rows, &mut Scratch::new(&screened).unwrap(), &mut features)
            .unwrap();
        let what = format!("{rank:?} {relu}");
        assert_same(&features, &alone(&plain, rows), &what);
    }
}

/// `k` of 0 gives no features, in a batch as in a row.
#[test]
fn a_batch_without_any_winners_is_empty() {
    let values = inputs(&mut Random(15), 64);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    let rule = Activation::TopK {
        k: 5,
        rank: Rank::Value,
        relu: false,
    };
    let sae = model(rule, Stored::Columns, false);
    let none = sae.with_k(0).unwrap();
    let mut features = Features::new();
    none.encode(rows, &mut Scratch::new(&none).unwrap(), &mut features)
        .unwrap();
    assert_eq!((features.rows(), features.len()), (64, 0));
    assert_same(&features, &alone(&none, rows), "no winners");
}

#[test]
fn threads_and_splits_have_the_bits_of_the_rows() {
    let values = inputs(&mut Random(13), 200);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    for (name, activation) in rules() {
        let plain = model(activation.clone(), Stored::Columns, true);
        let expected = alone(&plain, rows);
        let prepared = model(activation, Stored::Columns, true)
            .with_screen_options(ScreenKind::Proven.into())
            .prepare()
            .unwrap();
        for (sae, threads) in [&plain, &prepared]
            .into_iter()
            .flat_map(|sae| [1, 2, 3].map(|threads| (sae, threads)))
        {
            let [by_rows, by_features] = on_threads(sae, rows, threads);
            assert_same(
                &by_features[0],
                &expected,
                &format!("{name}: {threads} parts"),
            );
            let found = by_rows.iter().flat_map(Features::iter);
            for (row, (found, expected)) in found.zip(expected.iter()).enumerate() {
                assert_eq!(found.status, expected.status, "{name} row {row}");
                assert_eq!(found.indices, expected.indices, "{name} row {row}");
                assert_eq!(
                    bits(found.values),
                    bits(expected.values),
                    "{name} row {row}"
                );
            }
        }
    }
}

/// Half of all features fire: more than the pool holds, so batches are cut in two, again and again.
#[test]
fn batches_with_more_features_than_the_scratch_holds() {
    let (d_in, d_sae, n) = (8, 3000, 300);
    let mut random = Random(14);
    let encoder: Vec<Vec<f64>> = (0..d_sae)
        .map(|_| (0..d_in).map(|_| random.value()).collect())
        .collect();
    let decoder = matrix("W_dec", &encoder, Stored::Rows);
    let encoder = matrix("W_enc", &encoder, Stored::Columns);
    let sae = Sae::from_parts(Parts::new(encoder, Activation::Relu, decoder)).unwrap();
    let values: Vec<f32> = (0..n * d_in).map(|_| random.value() as f32).collect();
    let rows = Rows::from_f32(&values, d_in).unwrap();
    let expected = alone(&sae, rows);
    assert!(expected.len() > n * d_sae / 3);
    for room in [2, 3, 6, 7, 40, 512] {
        let mut scratch = Scratch::for_rows(&sae, room).unwrap();
        let mut features = Features::new();
        sae.encode(rows, &mut scratch, &mut features).unwrap();
        assert_same(&features, &expected, &format!("room for {room}"));
    }
}

#[test]
fn memory_of_the_caller_decides_how_many_rows_go_together() {
    let sae = model(Activation::Relu, Stored::Columns, true);
    let values = inputs(&mut Random(15), 50);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    let expected = alone(&sae, rows);
    let least = Scratch::bytes_required(&sae);
    let full = Scratch::bytes_for_rows(&sae, 50);
    assert!(least < full);
    for bytes in (least..full + 100).step_by((full - least) / 37) {
        for skip in 0..3 {
            let mut memory = vec![0xa5u8; bytes + skip];
            let mut scratch = Scratch::from_memory(&sae, &mut memory[skip..]).unwrap();
            let mut features = Features::new();
            sae.encode(rows, &mut scratch, &mut features).unwrap();
            assert_same(&features, &expected, &format!("{bytes} bytes"));
        }
    }
}

#[test]
fn rows_that_are_left_out_stay_out() {
    let sae = model(Activation::Relu, Stored::Columns, true);
    let values = inputs(&mut Random(17), 60);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    let wanted = |row: usize| row % 3 != 1;
    let encode = |room: usize| {
        let mut features = Features::new();
        let mut scratch = Scratch::for_rows(&sae, room).unwrap();
        sae.encode_where(rows, &wanted, &mut scratch, &mut features)
            .unwrap();
        features
    };
    let (found, expected) = (encode(60), encode(1));
    assert_same(&found, &expected, "chosen rows");
    assert_eq!(found.row_status()[1], RowStatus::Skipped);

    // Readouts leave the same rows out.
    let set = sae.compile_set(&[5, 0]).unwrap();
    let mut scratch = Scratch::for_rows(&sae, 1).unwrap();
    let (mut all, mut some) = (vec![9.0; 120], vec![9.0; 120]);
    let mut status = vec![RowStatus::Ok; 60];
    sae.readout(&set, rows, &mut scratch, &mut all, &mut status)
        .unwrap();
    sae.readout_where(&set, rows, &wanted, &mut scratch, &mut some, &mut status)
        .unwrap();
    assert!(all.iter().any(|value| *value != 0.0));
    for row in 0..60 {
        let of_row = &some[2 * row..2 * row + 2];
        match wanted(row) {
            true => assert_eq!(of_row, &all[2 * row..2 * row + 2]),
            false => assert_eq!((of_row, status[row]), (&[0.0, 0.0][..], RowStatus::Skipped)),
        }
    }
}

/// Weights that were never checked: a feature whose row holds NaN or infinities.
#[test]
fn weights_that_are_not_finite_give_what_rows_alone_give() {
    let mut random = Random(16);
    let mut encoder = weights(&mut random);
    encoder[70][3] = f64::NAN;
    encoder[71][4] = f64::INFINITY;
    encoder[202][0] = f64::NEG_INFINITY;
    let values = inputs(&mut random, 64);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    for (name, activation) in rules() {
        let decoder = matrix("W_dec", &weights(&mut random), Stored::Rows);
        let encoder = matrix("W_enc", &encoder, Stored::Columns);
        let sae = Sae::from_parts(Parts::new(encoder, activation, decoder)).unwrap();
        let expected = alone(&sae, rows);
        let status = expected.row_status();
        assert!(status.contains(&RowStatus::NanPreActivation));
        let mut features = Features::new();
        sae.encode(rows, &mut Scratch::new(&sae).unwrap(), &mut features)
            .unwrap();
        assert_same(&features, &expected, name);
    }
}

/// Thresholds just below the pre-activations of some row: a bound that is too low by anything
/// loses a feature.
#[test]
fn features_that_fire_by_one_unit_are_found_in_all_weight_types() {
    let (d_in, d_sae, n) = (257, 130, 40);
    for ty in ["F32", "F16", "BF16"] {
        for (seed, power) in [(21u64, 1), (22, 9)] {
            let mut random = Random(seed);
            let mut draw = |count: usize, factor: f64| -> Vec<f64> {
                (0..count)
                    .map(|_| random.value().powi(power) * factor)
                    .collect()
            };
            let (encoder, values) = (draw(d_sae * d_in, 0.1), draw(n * d_in, 5.0));
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            let dtype = match ty {
                "F32" => sae::Dtype::F32,
                "F16" => sae::Dtype::F16,
                _ => sae::Dtype::BF16,
            };
            let encode = |v: &f64| -> Vec<u8> {
                match ty {
                    "F32" => (*v as f32).to_le_bytes().to_vec(),
                    "F16" => half::f16::from_f64(*v).to_le_bytes().to_vec(),
                    _ => half::bf16::from_f64(*v).to_le_bytes().to_vec(),
                }
            };
            let bytes: Vec<u8> = encoder.iter().flat_map(encode).collect();
            let open = |activation| {
                let bytes = sae::bytes::Bytes::owned(bytes.clone());
                let stored =
                    sae::tensor::Tensor::new("W_enc", dtype, &[d_in, d_sae], bytes).unwrap();
                let encoder = Matrix::new(&stored, FeatureAxis::Second, d_sae, d_in).unwrap();
                let decoder = tensor("W_dec", &[d_sae, 1], (0..d_sae).map(|_| 1.0));
                let decoder = Matrix::new(&decoder, FeatureAxis::First, d_sae, 1).unwrap();
                Sae::from_parts(Parts::new(encoder, activation, decoder)).unwrap()
            };
            let rows = Rows::from_f32(&values, d_in).unwrap();
            let every = open(Activation::TopK {
                k: d_sae,
                rank: Rank::Value,
                relu: false,
            });
            let pre = library::parts::dense(&alone(&every, rows), d_sae);
            let each: Vec<f32> = (0..d_sae).map(|i| pre[i % n][i].next_down()).collect();
            let sae = open(Activation::JumpRelu {
                threshold: Thresholds::PerFeature(each),
                relu: false,
                inclusive: false,
            });
            for count in [3, 12, n] {
                let part = rows.part(0, count);
                let mut features = Features::new();
                sae.encode(part, &mut Scratch::new(&sae).unwrap(), &mut features)
                    .unwrap();
                assert_same(&features, &alone(&sae, part), ty);
            }
            let whole = alone(&sae, rows);
            for i in 0..d_sae {
                let row = whole.row(i % n).unwrap();
                assert!(row.indices.contains(&(i as u32)), "{ty} {i}");
            }
        }
    }
}
