//! Rows whose sites lie apart: the bits of the rows put together.

use super::*;
use sae::model::{Ensemble, InputNorm};
use sae::{Dtype, RowStatus, Rows};

const SITES: usize = 3;
const WIDTH: usize = 7;
const ROWS: usize = 4;

/// A crosscoder of three sites.
fn crosscoder(seed: u64, change: impl Fn(&mut Parts<'static>)) -> Sae<'static> {
    let mut random = Random(seed);
    let model = affine(&mut random, spread, SITES * WIDTH, 50, SITES * WIDTH);
    let mut parts = Parts {
        input_sites: SITES,
        output_sites: SITES,
        ..model.parts(Activation::Relu, Stored::Columns)
    };
    change(&mut parts);
    Sae::from_parts(parts).unwrap()
}

fn together() -> Vec<f32> {
    let mut random = Random(9);
    (0..ROWS * SITES * WIDTH).map(|_| random.number()).collect()
}

/// The part of every row that belongs to a site.
fn site(rows: &[f32], site: usize) -> Vec<f32> {
    rows.chunks_exact(SITES * WIDTH)
        .flat_map(|row| row[site * WIDTH..][..WIDTH].to_vec())
        .collect()
}

fn models() -> Vec<Sae<'static>> {
    let mut random = Random(5);
    let skip: Vec<Vec<f64>> = (0..SITES * WIDTH)
        .map(|_| spread(&mut random, SITES * WIDTH))
        .collect();
    let bag = (0..2).map(|seed| crosscoder(seed, |_| ())).collect();
    let chain = (2..4).map(|seed| crosscoder(seed, |_| ())).collect();
    vec![
        crosscoder(1, |_| ()),
        crosscoder(2, |parts| parts.activation = top_k(9)),
        crosscoder(3, |parts| parts.input_norm = InputNorm::LayerNorm),
        crosscoder(4, |parts| {
            parts.skip = Some(matrix("W_skip", &skip, Stored::Rows))
        }),
        crosscoder(5, |_| ()).prepare().unwrap(),
        crosscoder(6, |_| ())
            .with_pursuit(Pursuit::matching_signed(5))
            .unwrap(),
        Sae::ensemble(bag, Ensemble::Bag).unwrap(),
        Sae::ensemble(chain, Ensemble::Chain).unwrap(),
    ]
}

#[test]
fn sites_apart_give_the_bits_of_rows_together() {
    let mut whole = together();
    for bad in [false, true] {
        if bad {
            whole[2 * SITES * WIDTH + WIDTH + 1] = f32::INFINITY;
        }
        let parts: Vec<Vec<f32>> = (0..SITES).map(|at| site(&whole, at)).collect();
        let sites: Vec<Rows<'_>> = parts.iter().map(|part| rows(part, WIDTH)).collect();
        for sae in models() {
            let all = rows(&whole, SITES * WIDTH);
            let (features, y) = encode_decode(&sae, all);
            let (mut scratch, mut found) = (Scratch::new(&sae).unwrap(), Features::new());
            sae.encode_sites(&sites, &mut scratch, &mut found).unwrap();
            assert_eq!(found, features);
            let mut out = vec![0.0; y.len()];
            sae.decode_sites(&found, Some(&sites), &mut scratch, &mut out)
                .unwrap();
            assert_eq!(bits(&out), bits(&y));
            let set = sae.compile_set(&[0, 9, 3]).unwrap();
            let (mut values, mut status) = ([0.0; 3 * ROWS], [RowStatus::Ok; ROWS]);
            let (mut again, mut same) = (values, status);
            sae.readout(&set, all, &mut scratch, &mut values, &mut status)
                .unwrap();
            sae.readout_sites(&set, &sites, &mut scratch, &mut again, &mut same)
                .unwrap();
            assert_eq!((bits(&values), status), (bits(&again), same));
        }
    }
}

/// Each site in its own row format, with gaps between the rows.
#[test]
fn sites_may_differ_in_format_and_stride() {
    let sae = crosscoder(1, |_| ());
    // Numbers that all three formats hold.
    let mut random = Random(3);
    let whole: Vec<f32> = whole(&mut random, ROWS * SITES * WIDTH)
        .iter()
        .map(|&x| x as f32)
        .collect();
    let expected = encode_decode(&sae, rows(&whole, SITES * WIDTH)).0;
    type Format = (Dtype, fn(f32) -> Vec<u8>);
    let formats: [Format; SITES] = [
        (Dtype::F32, |x| x.to_le_bytes().to_vec()),
        (Dtype::F16, |x| {
            half::f16::from_f32(x).to_le_bytes().to_vec()
        }),
        (Dtype::BF16, |x| {
            half::bf16::from_f32(x).to_le_bytes().to_vec()
        }),
    ];
    let stored: Vec<(Dtype, usize, Vec<u8>)> = formats
        .into_iter()
        .enumerate()
        .map(|(at, (dtype, bytes))| {
            let mut all = vec![];
            let part = site(&whole, at);
            for row in part.chunks_exact(WIDTH) {
                all.extend(row.iter().flat_map(|&x| bytes(x)));
                all.extend(vec![0xff; at]);
            }
            (dtype, WIDTH * dtype.size() + at, all)
        })
        .collect();
    let sites: Vec<Rows<'_>> = stored
        .iter()
        .map(|(dtype, stride, bytes)| {
            Rows::from_bytes(bytes, *dtype, ROWS, WIDTH, *stride).unwrap()
        })
        .collect();
    let (mut scratch, mut found) = (Scratch::new(&sae).unwrap(), Features::new());
    sae.encode_sites(&sites, &mut scratch, &mut found).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn sites_are_counted() {
    let sae = crosscoder(1, |parts| parts.input_norm = InputNorm::LayerNorm);
    let whole = together();
    let parts: Vec<Vec<f32>> = (0..SITES).map(|at| site(&whole, at)).collect();
    let sites: Vec<Rows<'_>> = parts.iter().map(|part| rows(part, WIDTH)).collect();
    let (mut scratch, mut found) = (Scratch::new(&sae).unwrap(), Features::new());
    let mut encode = |sites: &[Rows<'_>]| sae.encode_sites(sites, &mut scratch, &mut found);
    assert!(encode(&sites).is_ok());
    let wide = rows(&whole, SITES * WIDTH);
    for wrong in [
        &sites[..2],
        &[],
        &[sites[0], sites[1], sites[2].part(1, 3)],
        &[sites[0], sites[1], wide],
    ] {
        let error = encode(wrong).unwrap_err();
        assert!(matches!(error, Error::Length { .. }), "{error}");
    }
    let mut out = vec![0.0; whole.len()];
    encode(&sites).unwrap();
    let missing = sae.decode_sites(&found, None, &mut scratch, &mut out);
    assert!(matches!(missing, Err(Error::InvalidArgument { .. })));
    let few: Vec<Rows<'_>> = sites.iter().map(|site| site.part(0, 2)).collect();
    let short = sae.decode_sites(&found, Some(&few), &mut scratch, &mut out);
    assert!(matches!(short, Err(Error::Length { .. })));
}

#[test]
fn a_shared_model_is_the_model() {
    for sae in models() {
        let whole = together();
        let expected = encode_decode(&sae, rows(&whole, SITES * WIDTH));
        let shared = sae.share();
        let found = encode_decode(&shared, rows(&whole, SITES * WIDTH));
        assert_eq!((found.0, bits(&found.1)), (expected.0, bits(&expected.1)));
        assert_eq!(shared.members().len(), sae.members().len());
    }
}
