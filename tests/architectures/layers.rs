//! Crosscoders and cross-layer transcoders: blocks, sites, streams.

use super::*;
use sae::{LayerStream, RowStatus};

/// Layer by layer, with rows of a wider batch cut to their layer.
fn stream(
    sae: &Sae<'_>,
    stream: &mut LayerStream,
    inputs: &[f32],
    skip: bool,
) -> (Vec<Features>, Vec<Vec<f32>>) {
    let layers = sae.input_sites();
    let (d_in, d_out) = (sae.d_in() / layers, sae.d_out() / layers);
    let n = inputs.len() / sae.d_in();
    let mut scratch = Scratch::new(sae).unwrap();
    let (mut all, mut outputs) = (vec![], vec![]);
    for layer in 0..layers {
        let rows_of_layer: Vec<f32> = inputs
            .chunks_exact(sae.d_in())
            .flat_map(|row| row[layer * d_in..][..d_in].to_vec())
            .collect();
        let rows = rows(&rows_of_layer, d_in);
        let mut features = Features::new();
        sae.encode_layer(stream, layer, rows, &mut scratch, &mut features)
            .unwrap();
        let mut out = vec![0.0; n * d_out];
        let inputs = skip.then_some(rows);
        sae.decode_layer(stream, layer, inputs, &mut scratch, &mut out)
            .unwrap();
        all.push(features);
        outputs.push(out);
    }
    (all, outputs)
}

/// The stream gives the bits of the whole model.
fn assert_stream(sae: &Sae<'_>, inputs: &[f32], skip: bool) {
    let layers = sae.input_sites();
    let width = sae.d_out() / layers;
    let (whole, y) = encode_decode(sae, rows(inputs, sae.d_in()));
    let mut state = sae.layer_stream(whole.rows()).unwrap();
    for _ in 0..2 {
        let (features, outputs) = stream(sae, &mut state, inputs, skip);
        for (layer, (features, output)) in features.iter().zip(&outputs).enumerate() {
            for row in 0..whole.rows() {
                let expected = whole.row(row).unwrap().within(sae.layer_features(layer));
                assert_eq!(
                    features.row(row).unwrap(),
                    expected,
                    "layer {layer}, row {row}"
                );
                let expected = &y[row * sae.d_out() + layer * width..][..width];
                assert_eq!(
                    bits(&output[row * width..][..width]),
                    bits(expected),
                    "layer {layer}"
                );
            }
        }
        state.restart(whole.rows()).unwrap();
    }
}

#[test]
fn streams_give_the_bits_of_the_whole_model() {
    for name in ["circuit_tracer_clt", "circuit_tracer_clt_jump"] {
        let case = Case::new(name);
        let model = CrossLayer::of(&case);
        for stored in [Stored::Rows, Stored::Columns] {
            let parts = Parts {
                input_sites: 3,
                output_sites: 3,
                ..model.parts(stored)
            };
            let sae = Sae::from_parts(parts).unwrap();
            assert_stream(&sae, &case.rows.f32_values(), false);
            assert_stream(&sae.prepare().unwrap(), &case.rows.f32_values(), false);
        }
    }
}

/// As they were downloaded.
#[test]
fn opened_checkpoints_know_their_sites() {
    for (name, sites) in [
        ("circuit_tracer_clt", 3),
        ("circuit_tracer_clt_jump", 3),
        ("crosscoder_relu", 2),
        ("crosscoder_batchtopk", 2),
    ] {
        let case = Case::new(name);
        let sae = library::open(&case.folder, &[], sae::Level::best());
        assert_eq!((sae.input_sites(), sae.output_sites()), (sites, sites));
        let inputs = case.rows.f32_values();
        match sites {
            3 => assert_stream(&sae, &inputs, false),
            _ => assert!(sae.layer_stream(1).is_err()),
        }
    }
}

/// A random cross-layer transcoder with decoders in single blocks, a skip and a group rule.
fn random_layers(random: &mut Random, layers: usize, stored: Stored) -> Parts<'static> {
    let (d, n, d_out) = (
        random.below(9) + 1,
        2 * random.below(140) + 2,
        random.below(7) + 1,
    );
    let mut vectors = |count: usize, width: usize| -> Vec<Vec<f64>> {
        (0..count).map(|_| spread(random, width)).collect()
    };
    let (mut encoder, mut decoder, mut skip) = (vec![], vec![], vec![]);
    for layer in 0..layers {
        let block = |first_feature, first_column, matrix| Block {
            first_feature,
            first_column,
            matrix,
        };
        let matrix = |vectors: &[Vec<f64>]| matrix("block", vectors, stored);
        encoder.push(block(layer * n, layer * d, matrix(&vectors(n, d))));
        skip.push(block(layer * d_out, layer * d, matrix(&vectors(d_out, d))));
        for target in (layer..layers).rev() {
            decoder.push(block(layer * n, target * d_out, matrix(&vectors(n, d_out))));
        }
    }
    let of = |blocks, features, width| Matrix::from_blocks("m", features, width, blocks).unwrap();
    let activation = Activation::GroupTopK {
        groups: layers,
        k: n / 2,
        rank: Rank::Value,
        relu: true,
    };
    Parts {
        bias: Some(spread(random, layers * n)),
        center: Some(spread(random, layers * d)),
        decoder_bias: Some(spread(random, layers * d_out)),
        skip: Some(of(skip, layers * d_out, layers * d)),
        input_sites: layers,
        output_sites: layers,
        ..Parts::new(
            of(encoder, layers * n, layers * d),
            activation,
            of(decoder, layers * n, layers * d_out),
        )
    }
}

#[test]
fn random_cross_layer_transcoders_run_in_every_way() {
    for seed in 0..12 {
        let layers = (seed as usize % 4) + 2;
        let make = |stored| random_layers(&mut Random(seed), layers, stored);
        let width = make(Stored::Rows).encoder.width();
        let mut random = Random(seed + 100);
        let inputs: Vec<f32> = (0..4 * width).map(|_| random.number()).collect();
        parts::run(make, &inputs, width);
        for stored in [Stored::Rows, Stored::Columns] {
            assert_stream(&Sae::from_parts(make(stored)).unwrap(), &inputs, true);
        }
        // The blocks written out, zeros and all, are the same model, if lanes fall together.
        let parts = make(Stored::Rows);
        let x: Vec<f64> = inputs[..width].iter().map(|&x| x.into()).collect();
        let center = parts.center.clone().unwrap();
        let centred: Vec<f64> = (0..width)
            .map(|j| f64::from((x[j] - center[j]) as f32))
            .collect();
        let sae = Sae::from_parts(parts).unwrap();
        let (features, _) = encode_decode(&sae, rows(&inputs[..width], width));
        let found = &dense(&features, sae.d_sae())[0];
        for (i, &value) in found.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            let block = sae.parts().encoder.blocks().iter();
            let block = block.rev().find(|block| block.first_feature <= i).unwrap();
            let row = block.matrix.row(i - block.first_feature).unwrap();
            let weights: Vec<f64> = row
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
                .collect();
            let part = &centred[block.first_column..][..weights.len()];
            let expected = dot(&weights, part) + sae.parts().bias.as_ref().unwrap()[i];
            assert!((f64::from(value) - expected).abs() <= 1e-6 * (1.0 + expected.abs()));
        }
    }
}

#[test]
fn a_row_that_fails_at_a_layer_stays_failed() {
    let sae = Sae::from_parts(random_layers(&mut Random(1), 3, Stored::Rows)).unwrap();
    let d = sae.d_in() / 3;
    let d_out = sae.d_out() / 3;
    let mut stream = sae.layer_stream(2).unwrap();
    let mut scratch = Scratch::new(&sae).unwrap();
    let mut features = Features::new();
    let good = vec![0.25; 2 * d];
    let mut bad = good.clone();
    bad[d] = f32::INFINITY;
    for (layer, inputs) in [&good, &bad, &good].into_iter().enumerate() {
        let rows = rows(inputs, d);
        sae.encode_layer(&mut stream, layer, rows, &mut scratch, &mut features)
            .unwrap();
        let mut out = vec![0.0; 2 * d_out];
        sae.decode_layer(&mut stream, layer, Some(rows), &mut scratch, &mut out)
            .unwrap();
        assert!(out[..d_out].iter().all(|y| y.is_finite()));
        let failed = layer > 0;
        assert_eq!(out[d_out..].iter().all(|y| y.is_nan()), failed);
        let expected = if failed {
            RowStatus::NonFinite
        } else {
            RowStatus::Ok
        };
        assert_eq!(features.row(1).unwrap().status, expected);
    }
}

#[test]
fn streams_are_checked() {
    let mut random = Random(2);
    let sae = Sae::from_parts(random_layers(&mut random, 2, Stored::Rows)).unwrap();
    let (d, mut scratch) = (sae.d_in() / 2, Scratch::new(&sae).unwrap());
    let mut stream = sae.layer_stream(1).unwrap();
    let input = vec![0.5; 2 * d];
    let one = rows(&input[..d], d);
    let mut features = Features::new();
    let mut encode = |stream: &mut LayerStream, layer, rows| {
        sae.encode_layer(stream, layer, rows, &mut scratch, &mut features)
    };
    assert!(matches!(
        encode(&mut stream, 1, one),
        Err(Error::InvalidArgument { .. })
    ));
    assert!(matches!(
        encode(&mut stream, 0, rows(&input, d)),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        encode(&mut stream, 0, rows(&input, 2 * d)),
        Err(Error::Length { .. })
    ));
    encode(&mut stream, 0, one).unwrap();
    assert!(encode(&mut stream, 0, one).is_err());
    assert_eq!(stream.next_layer(), 1);
    let mut out = vec![0.0; sae.d_out() / 2];
    let mut scratch = Scratch::new(&sae).unwrap();
    let early = sae.decode_layer(&mut stream, 1, Some(one), &mut scratch, &mut out);
    assert!(matches!(early, Err(Error::InvalidArgument { .. })));
    let without = sae.decode_layer(&mut stream, 0, None, &mut scratch, &mut out);
    assert!(matches!(without, Err(Error::InvalidArgument { .. })));
    assert!(stream.restart(2).is_err());
    // Not every model goes layer by layer.
    let plain = affine(&mut random, spread, 8, 20, 8);
    let plain = Sae::from_parts(plain.parts(Activation::Relu, Stored::Rows)).unwrap();
    assert!(plain.layer_stream(1).is_err());
    assert!(
        sae.with_activation(top_k(3))
            .unwrap()
            .layer_stream(1)
            .is_err()
    );
    let other = sae.with_k(1).unwrap();
    assert!(encode_other(&other, &mut stream, one).is_err());
}

fn encode_other(sae: &Sae<'_>, stream: &mut LayerStream, rows: sae::Rows<'_>) -> Result<(), Error> {
    let mut scratch = Scratch::new(sae)?;
    sae.encode_layer(stream, 1, rows, &mut scratch, &mut Features::new())
}

#[test]
fn blocks_are_checked() {
    let vectors = |n: usize, w: usize| matrix("block", &vec![vec![1.0; w]; n], Stored::Rows);
    let block = |first_feature, first_column, matrix| Block {
        first_feature,
        first_column,
        matrix,
    };
    let made = |blocks| Matrix::from_blocks("m", 6, 8, blocks);
    assert!(made(vec![]).is_err());
    assert!(made(vec![block(0, 0, vectors(7, 8))]).is_err());
    assert!(made(vec![block(3, 0, vectors(4, 8))]).is_err());
    assert!(made(vec![block(0, usize::MAX, vectors(1, 1))]).is_err());
    let overlap = vec![block(0, 0, vectors(4, 4)), block(3, 3, vectors(2, 2))];
    assert!(made(overlap).is_err());
    let whole = made(vec![block(0, 0, vectors(6, 8))]).unwrap();
    assert_eq!(whole.layout(), sae::model::Layout::Rows);
    let nested = made(vec![block(0, 0, vectors(3, 8))]).unwrap();
    assert!(made(vec![block(0, 0, nested.clone())]).is_err());
    // An encoder needs every feature in one block.
    let decoder = vectors(6, 8);
    for blocks in [
        vec![block(0, 0, vectors(3, 8))],
        vec![block(0, 0, vectors(6, 4)), block(0, 4, vectors(6, 4))],
        vec![block(1, 0, vectors(5, 8))],
    ] {
        let encoder = made(blocks).unwrap();
        let parts = Parts::new(encoder, Activation::Relu, decoder.clone());
        assert!(Sae::from_parts(parts).is_err());
    }
    let two = made(vec![block(0, 0, vectors(3, 4)), block(3, 4, vectors(3, 4))]).unwrap();
    assert!(Sae::from_parts(Parts::new(two, Activation::Relu, decoder)).is_ok());
}

/// Two decoders that share codes (VL-SAE): unit rows against the normalised input, distances, TopK,
/// and the vision and the text decoder side by side.
#[test]
fn two_decoders_share_distance_codes() {
    let mut random = Random(9);
    let (d, n, d_vision, d_text, from) = (12, 40, 7, 5, 1.4);
    let encoder: Vec<Vec<f64>> = (0..n).map(|_| spread(&mut random, d)).collect();
    let mut decoder = |width| {
        (0..n)
            .map(|_| spread(&mut random, width))
            .collect::<Vec<_>>()
    };
    let (vision, text) = (decoder(d_vision), decoder(d_text));
    let inputs: Vec<f32> = (0..3 * d).map(|_| random.number()).collect();
    let make = |stored| {
        let decoders = [&vision, &text].map(|vectors| matrix("decoder", vectors, stored));
        let encoder = matrix("encoder", &encoder, stored);
        Parts::distances(encoder, decoders.into(), 6, from).unwrap()
    };
    let (features, y) = parts::run(make, &inputs, d);
    for (row, found) in dense(&features, n).iter().enumerate() {
        let x: Vec<f64> = inputs[row * d..][..d].iter().map(|&x| x.into()).collect();
        let unit = |v: &[f64]| -> Vec<f64> { v.iter().map(|a| a / pursuit::norm(v)).collect() };
        let distance = |w: &Vec<f64>| {
            let (w, x) = (unit(w), unit(&x));
            let difference: Vec<f64> = w.iter().zip(&x).map(|(w, x)| w - x).collect();
            pursuit::norm(&difference)
        };
        let codes: Vec<f64> = encoder.iter().map(|w| from - distance(w)).collect();
        let expected = formulas::group_top_k(&codes, 1, 6);
        assert_values(found, &expected, |_| 1e-6, &format!("row {row}"));
        for (c, y) in y[row * (d_vision + d_text)..][..d_vision + d_text]
            .iter()
            .enumerate()
        {
            let column = |i: usize| match c < d_vision {
                true => vision[i][c],
                false => text[i][c - d_vision],
            };
            let expected: f64 = (0..n).map(|i| f64::from(found[i]) * column(i)).sum();
            assert!((f64::from(*y) - expected).abs() <= 1e-5);
        }
    }
}

#[test]
fn distances_need_rows_and_decoders_that_fit() {
    let rows = |rows: &[[f64; 2]]| {
        let vectors: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
        matrix("encoder", &vectors, Stored::Rows)
    };
    let two = [[1.0, 0.0], [0.0, 1.0]];
    let make = |encoder, decoders, k, from| {
        Parts::distances(encoder, decoders, k, from).and_then(Sae::from_parts)
    };
    assert!(make(rows(&two), vec![rows(&two)], 1, 1.5).is_ok());
    for wrong in [
        make(rows(&[[1.0, 0.0], [0.0, 0.0]]), vec![rows(&two)], 1, 1.5),
        make(rows(&two), vec![], 1, 1.5),
        make(rows(&two), vec![rows(&[[1.0, 0.0]; 3])], 1, 1.5),
        make(rows(&two), vec![rows(&two)], 3, 1.5),
        make(rows(&two), vec![rows(&two)], 1, f64::NAN),
    ] {
        assert!(matches!(wrong.unwrap_err(), Error::InvalidValue { .. }));
    }
}

/// OpenMOSS crosscoders gate each head on `pre |d_h,i|`: one feature for each head and latent, all
/// heads reading the whole row.
#[test]
fn heads_of_a_crosscoder_gate_apart() {
    for (seed, k) in [(1, None), (2, None), (3, Some(6)), (4, Some(20))] {
        let mut random = Random(seed);
        let (heads, d, n) = (3, 10, 60);
        let encoder: Vec<Vec<f64>> = (0..n).map(|_| spread(&mut random, heads * d)).collect();
        let bias = spread(&mut random, n);
        let decoders: Vec<Vec<Vec<f64>>> = (0..heads)
            .map(|_| (0..n).map(|_| spread(&mut random, d)).collect())
            .collect();
        let theta: Vec<f64> = spread(&mut random, n)
            .iter()
            .map(|t| 4.0 * t.abs())
            .collect();
        let weight: Vec<f64> = decoders.iter().flat_map(|head| norms(head)).collect();
        let inputs: Vec<f32> = (0..3 * heads * d).map(|_| random.number()).collect();
        let make = |stored| {
            let blocks = |first_column: fn(usize) -> usize,
                          of: &dyn Fn(usize) -> Matrix<'static>| {
                let block = |head| Block {
                    first_feature: head * n,
                    first_column: first_column(head),
                    matrix: of(head),
                };
                (0..heads).map(block).collect::<Vec<_>>()
            };
            let one = matrix("W_E", &encoder, stored);
            let encoder = blocks(|_| 0, &|_| one.clone());
            let decoder = blocks(|head| head * 10, &|head| {
                matrix("W_D", &decoders[head], stored)
            });
            let wide = |blocks| Matrix::from_blocks("heads", heads * n, heads * d, blocks).unwrap();
            let all_theta = (0..heads * n).map(|i| theta[i % n] as f32).collect();
            Parts {
                bias: Some(bias.repeat(heads)),
                rank_weight: Some(weight.clone()),
                input_sites: heads,
                output_sites: heads,
                ..Parts::new(
                    wide(encoder),
                    match k {
                        None => jump(Thresholds::PerFeature(all_theta)),
                        Some(k) => Activation::GroupTopK {
                            groups: heads,
                            k,
                            rank: Rank::Value,
                            relu: true,
                        },
                    },
                    wide(decoder),
                )
            }
        };
        let (features, y) = parts::run(make, &inputs, heads * d);
        for (row, found) in dense(&features, heads * n).iter().enumerate() {
            let x: Vec<f64> = inputs[row * heads * d..][..heads * d]
                .iter()
                .map(|&x| x.into())
                .collect();
            let pre: Vec<f64> = (0..n).map(|i| dot(&encoder[i], &x) + bias[i]).collect();
            for head in 0..heads {
                let weight = &weight[head * n..][..n];
                let expected = match k {
                    None => formulas::jump_weighted(&pre, weight, &theta),
                    Some(k) => formulas::top_k_weighted(&pre, weight, k),
                };
                let found = &found[head * n..][..n];
                assert_values(
                    found,
                    &expected,
                    |_| 1e-12,
                    &format!("row {row}, head {head}"),
                );
                for c in 0..d {
                    let terms = (0..n).map(|i| expected[i] * decoders[head][i][c]);
                    let error = f64::from(y[(row * heads + head) * d + c]) - terms.sum::<f64>();
                    assert!(error.abs() <= 1e-4);
                }
            }
        }
    }
}
