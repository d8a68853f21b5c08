//! The digest of all features and reconstructions of the fixtures, at every level, equals the one
//! of the independent NumPy program (`tests/data/d1.py`): two readings of design decision D1,
//! written apart, agree to the bit.
#![cfg(feature = "std")]

mod library;
mod reference;

use reference::{digest, fixture};
use sae::Level;

#[test]
fn every_level_gives_the_digests_of_the_numpy_program() {
    let expected = fixture::digests();
    let cases = fixture::cases();
    for level in Level::available() {
        let mut lines = digest::Lines::default();
        for case in &cases {
            for (name, given) in digest::runs(case) {
                let sae = library::open(&case.checkpoint, &given, level);
                let rows = library::rows(&case.rows, case.d_in);
                let (features, reconstructions) = library::encode_decode(&sae, rows);
                let each = features.iter();
                let each = each.map(|row| (row.indices.to_vec(), row.values.to_vec()));
                lines.add(&name, &digest::bytes(each, reconstructions.iter()));
            }
        }
        let found = lines.finish();
        // The first line is about `libm`, which tests/reference_agrees.rs checks.
        for (expected, found) in std::iter::zip(&expected[1..], &found) {
            assert_eq!(expected, found, "level {level}");
        }
        assert_eq!(expected.len() - 1, found.len());
        println!(
            "level {level}: {} cases, {}",
            found.len() - 1,
            found[found.len() - 1].1
        );
    }
}
