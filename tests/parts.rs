//! Encoding split over features gives the bits of encoding at once, for every architecture, every
//! split, prepared or not.

mod library;
mod reference;

use library::rows;
use sae::model::ScreenKind;
use sae::{Error, Features, Level, Part, Rows, Sae, Scratch};
use std::ops::Range;

/// Splits of so many features.
fn splits(sae: &Sae<'_>) -> Vec<Vec<Range<usize>>> {
    let all = sae.d_sae();
    let mut splits: Vec<Vec<Range<usize>>> = [1, 2, 3, 7]
        .iter()
        .map(|&nth| (0..nth).map(|ith| sae.part_range(ith, nth)).collect())
        .collect();
    let third = all / 3;
    splits.push(vec![
        0..0,
        0..1,
        1..third.max(1),
        third.max(1)..all,
        all..all,
    ]);
    splits
}

/// Encodes the parts on threads of their own.
fn in_parts(sae: &Sae<'_>, rows: Rows<'_>, ranges: &[Range<usize>]) -> Features {
    let parts: Vec<Part> = std::thread::scope(|scope| {
        let threads = ranges.iter().map(|range| {
            scope.spawn(move || {
                let (mut part, mut scratch) = (Part::new(), Scratch::new(sae).unwrap());
                sae.encode_part(rows, range.clone(), &mut scratch, &mut part)
                    .unwrap();
                assert_eq!((part.range(), part.rows()), (range.clone(), rows.rows()));
                part
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut features = Features::new();
    let mut scratch = Scratch::new(sae).unwrap();
    let parts: Vec<&Part> = parts.iter().collect();
    sae.encode_finish(&parts, &mut scratch, &mut features)
        .unwrap();
    features
}

#[test]
fn every_architecture_in_every_split() {
    let mut models = 0;
    for case in reference::fixture::cases() {
        for prepared in [false, true] {
            let mut sae = library::open(&case.checkpoint, &case.given, Level::best());
            if prepared {
                sae.set_screen_options(ScreenKind::Proven.into());
                sae.prepare_in_place().unwrap();
            }
            let mut values = case.rows.clone();
            values[case.d_in / 2] = f32::NAN;
            let rows = rows(&values, case.d_in).part(0, 9);
            let mut whole = Features::new();
            sae.encode(rows, &mut Scratch::new(&sae).unwrap(), &mut whole)
                .unwrap();
            assert!(whole.failed_rows() >= 1);
            for ranges in splits(&sae) {
                let found = in_parts(&sae, rows, &ranges);
                assert!(same(&found, &whole), "{} {prepared} {ranges:?}", case.name);
            }
            models += 1;
        }
    }
    assert!(models > 80);
}

/// Whether two results have the same bits.
fn same(a: &Features, b: &Features) -> bool {
    a.indices() == b.indices()
        && library::bits(a.values()) == library::bits(b.values())
        && a.row_ends() == b.row_ends()
        && a.row_status() == b.row_status()
}

fn tiny() -> (String, Vec<u8>, String) {
    sae::doc_example::tiny()
}

#[test]
fn ranges_cover_all_features_once() {
    let (name, bytes, config) = tiny();
    let sae = Sae::from_bytes(&name, &bytes, Some(&config), &Default::default()).unwrap();
    for nth in 1..6 {
        let mut end = 0;
        for ith in 0..nth {
            let range = sae.part_range(ith, nth);
            assert_eq!(range.start, end);
            end = range.end;
        }
        assert_eq!(end, sae.d_sae());
    }
    assert!(sae.part_range(2, 2).is_empty());
    assert!(sae.part_range(0, 0).is_empty());
    assert!(sae.part_range(usize::MAX - 1, usize::MAX).len() <= sae.d_sae());
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let (name, bytes, config) = tiny();
    let open = || Sae::from_bytes(&name, &bytes, Some(&config), &Default::default()).unwrap();
    let (sae, other) = (open(), open());
    let mut scratch = Scratch::new(&sae).unwrap();
    let values = [1.0f32, -2.0, 0.5, 0.25];
    let two = Rows::from_f32(&values, 2).unwrap();
    let one = two.part(0, 1);
    let encode = |sae: &Sae<'_>, rows: Rows<'_>, range: Range<usize>| {
        let mut part = Part::new();
        let mut scratch = Scratch::new(sae).unwrap();
        sae.encode_part(rows, range, &mut scratch, &mut part)
            .map(|()| part)
    };
    let (low, high) = (
        encode(&sae, two, 0..2).unwrap(),
        encode(&sae, two, 2..3).unwrap(),
    );
    let mut features = Features::new();
    let mut finish = |parts: &[&Part]| {
        let result = sae.encode_finish(parts, &mut scratch, &mut features);
        assert_eq!(features.rows(), if result.is_ok() { 2 } else { 0 });
        result.map_err(|error| error.to_string())
    };
    finish(&[&low, &high]).unwrap();
    for (parts, expected) in [
        (&[][..], "all 3 features"),
        (&[&low][..], "all 3 features"),
        (&[&high, &low][..], "features from 0 on"),
        (&[&low, &low, &high][..], "features from 2 on"),
        (&[&low, &Part::new()][..], "not encoded"),
        (&[&low, &encode(&sae, one, 2..3).unwrap()][..], "2 rows"),
        (
            &[&low, &encode(&other, two, 2..3).unwrap()][..],
            "another model",
        ),
    ] {
        let error = finish(parts).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    for range in [0..4, 4..4, Range { start: 2, end: 1 }] {
        let error = encode(&sae, two, range).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    }
    let wide = Rows::from_f32(&values, 4).unwrap();
    assert!(matches!(
        encode(&sae, wide, 0..1).unwrap_err(),
        Error::Length { .. }
    ));
}
