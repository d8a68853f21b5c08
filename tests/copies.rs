//! Weights are copied only when they must be: what a model holds in memory, and what making it
//! took at most.
#![cfg(all(feature = "torch", feature = "gzip", feature = "yaml"))]

mod publishers;

use publishers::case::cases;
use sae::bytes::Bytes;
use sae::model::{Activation, FeatureAxis, Matrix, Parts, State};
use sae::tensor::Tensor;
use sae::{Dtype, OpenOptions, Sae};
use std::sync::Arc;

/// An allocator that knows how many bytes the thread holds and has held at most.
mod held {
    #![allow(unsafe_code)] // the trait is unsafe; every call is passed on as it came

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        // Const-initialised and without a destructor: reading it never allocates.
        static NOW_AND_PEAK: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
    }

    /// The highest number of bytes held during `work` beyond those held before, what is still held
    /// afterwards, and the result.
    pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (i64, i64, T) {
        let (before, _) = NOW_AND_PEAK.get();
        NOW_AND_PEAK.set((before, before));
        let result = work();
        let (now, peak) = NOW_AND_PEAK.get();
        (peak - before, now - before, result)
    }

    fn add(bytes: i64) {
        let (now, peak) = NOW_AND_PEAK.get();
        NOW_AND_PEAK.set((now + bytes, peak.max(now + bytes)));
    }

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    // SAFETY: every method passes its arguments to `System` and returns what that returns.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            add(layout.size() as i64);
            // SAFETY: the caller keeps the contract of `alloc`, which is the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            add(-(layout.size() as i64));
            // SAFETY: the caller keeps the contract of `dealloc`, which is the same, and the
            // pointer came from `System`.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

/// What a model needs besides its matrices: vectors, descriptions, a block of rows.
const BESIDE: i64 = 256 << 10;

const D: usize = 512;
const N: usize = 2048;

/// A tensor at the caller's, not a copy of the library's.
fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> Tensor<'static> {
    let length = shape.iter().product::<usize>() * dtype.size();
    let bytes = Bytes::shared(Arc::new(vec![0u8; length]));
    Tensor::new(name, dtype, shape, bytes).unwrap()
}

/// A model whose encoder is stored as columns and whose decoder is stored as rows, under a rule
/// that has no screen.
fn model() -> Sae<'static> {
    let encoder = tensor("enc", Dtype::F32, &[D, N]);
    let encoder = Matrix::new(&encoder, FeatureAxis::Second, N, D).unwrap();
    let decoder = tensor("dec", Dtype::BF16, &[N, D]);
    let decoder = Matrix::new(&decoder, FeatureAxis::First, N, D).unwrap();
    let rule = Activation::LeakyRelu { slope: 0.1 };
    Sae::from_parts(Parts::new(encoder, rule, decoder)).unwrap()
}

#[test]
fn opening_copies_no_matrix_that_can_be_used_in_place() {
    let mut decoded = Vec::new();
    for case in cases() {
        let options = OpenOptions::default();
        let given = case.given.iter();
        let options = given.fold(options, |options, (key, value)| options.set(key, value));
        let Ok(sae) = Sae::open(&case.checkpoint, &options) else {
            continue;
        };
        match sae.description().state {
            State::Mapped => {}
            State::Decoded => decoded.push(case.name),
            other => panic!("{}: {other:?}", case.name),
        }
    }
    assert_eq!(decoded, DECODED);
}

/// The fixtures whose weights have to be decoded: deflated ones, and archetypal dictionaries, which
/// are products of two tensors.
const DECODED: &[&str] = &[
    "gemma_scope_1_deflate",
    "overcomplete_ra_jump",
    "overcomplete_ra_topk",
];

#[test]
fn preparing_takes_what_inspect_said_before() {
    let mut sae = model();
    let cost = sae.prepare_cost();
    let columns = (N * D * 4) as i64;
    // The caller keeps what the model was made of.
    let _given = sae.parts().clone();
    assert!(cost.needed);
    assert_eq!((cost.bytes as i64, cost.reads as i64), (columns, columns));
    let (peak, held, ()) = held::peak_of(|| sae.prepare_in_place().unwrap());
    assert!((columns..columns + BESIDE).contains(&held), "{held} held");
    assert!(peak < columns + BESIDE, "{peak} at most, for {columns}");
    let description = sae.description();
    assert_eq!(description.state, State::Prepared);
    assert!(!description.encoder.mapped && description.decoder.mapped);
    assert_eq!(sae.prepare_cost(), Default::default());
    // There is nothing left to copy.
    let (peak, ..) = held::peak_of(|| sae.prepare_in_place().unwrap());
    assert!(peak < BESIDE, "{peak}");
}

#[test]
fn narrowing_f64_takes_the_result_only() {
    let result = (N * D * 4) as i64;
    for (axis, shape) in [(FeatureAxis::First, [N, D]), (FeatureAxis::Second, [D, N])] {
        let wide = tensor("wide", Dtype::F64, &shape);
        let (peak, held, matrix) = held::peak_of(|| Matrix::new(&wide, axis, N, D).unwrap());
        assert!(!matrix.is_mapped());
        assert!((result..result + BESIDE).contains(&held), "{held} held");
        assert!(peak < result + BESIDE, "{peak} at most, for {result}");
    }
}

#[test]
fn folds_are_vectors() {
    // A factor for each feature and a normalisation: nothing of the size of a matrix is made.
    let (peak, _, sae) = held::peak_of(|| {
        let base = model();
        let mut parts = base.parts().clone();
        parts.scale = Some(vec![0.5; N]);
        parts.decoder_scale = Some(vec![2.0; N]);
        Sae::from_parts(parts).unwrap()
    });
    // The two matrices themselves, as the caller holds them.
    let given = (N * D * 6) as i64;
    assert!(peak < given + BESIDE, "{peak}");
    assert_eq!(sae.description().state, State::Mapped);
}

#[cfg(feature = "pack")]
#[test]
fn packing_takes_a_block_of_rows() {
    use sae::pack::{self, BLOCK_BYTES, PackModel, PackOptions};
    // 64 MB of encoder in columns.
    let (d, n) = (1024, 16_384);
    let encoder = tensor("enc", Dtype::F32, &[d, n]);
    let encoder = Matrix::new(&encoder, FeatureAxis::Second, n, d).unwrap();
    let decoder = tensor("dec", Dtype::F32, &[n, 8]);
    let decoder = Matrix::new(&decoder, FeatureAxis::First, n, 8).unwrap();
    let rule = Activation::LeakyRelu { slope: 0.1 };
    let sae = Sae::from_parts(Parts::new(encoder, rule, decoder)).unwrap();
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("copies");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("out.gguf");
    let mut options = PackOptions::default();
    let (peak, ..) = held::peak_of(|| {
        let model = PackModel::new("model", &sae);
        pack::write(&path, &[model], &options, &mut |_| {}).unwrap();
    });
    let block = BLOCK_BYTES as i64;
    assert!(peak < block + (8 << 20), "{peak}");
    options.encoder = Some(sae::kernels::WeightType::BF16);
    let (peak, ..) = held::peak_of(|| {
        let model = PackModel::new("model", &sae);
        pack::write(&path, &[model], &options, &mut |_| {}).unwrap();
    });
    assert!(peak < block + block / 2 + (8 << 20), "{peak}");
    std::fs::remove_dir_all(&folder).unwrap();
}
