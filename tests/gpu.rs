//! Encoding on a GPU has the bits of encoding on the CPU: every fixture, hostile models and rows, random
//! models, batches of every size; and what a device cannot do is an error that names it. Without
//! an adapter the tests are skipped by name; Mesa's lavapipe is one.
#![cfg(feature = "wgpu")]

mod library;
mod reference;

use library::kinds::{D_IN, Random, alone, assert_same, inputs, model, rules};
use library::parts::Stored;
use library::{bits, encode_decode};
use proptest::prelude::*;
use reference::{digest, fixture};
use sae::error::DeviceFailure;
use sae::gpu::{
    Device, DeviceOptions, Mode, Model, StreamOptions, UploadOptions, WeightFormat, adapters,
};
use sae::model::{Activation, FeatureAxis, Matrix, Parts, Rank, Thresholds};
use sae::{Code, Dtype, Error, Features, Level, Rows, RowsMut, Sae, Scratch};
use std::sync::OnceLock;

/// The device of all tests that do not break theirs, or `None` after saying so.
fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    DEVICE.get_or_init(open).as_ref()
}

fn open() -> Option<Device> {
    match Device::open(&DeviceOptions::default().software(true)) {
        Ok(device) => {
            println!("on {:?}", device.adapter());
            Some(device)
        }
        Err(error) => {
            println!("skipped: wgpu ({error})");
            assert!(
                std::env::var_os("SAE_REQUIRE_TOOLS").is_none(),
                "a GPU adapter is required: {error}"
            );
            None
        }
    }
}

/// The features of rows through a stream.
fn encoded(model: &Model, sae: &Sae<'_>, rows: Rows<'_>, options: &StreamOptions) -> Features {
    let mut stream = model.stream(options).unwrap();
    let mut scratch = Scratch::for_rows(sae, 1).unwrap();
    let mut features = Features::new();
    model
        .encode(sae, rows, &mut stream, &mut scratch, &mut features)
        .unwrap();
    features
}

/// Whether the rule has a screen.
fn is_supported(activation: &Activation) -> bool {
    !matches!(
        activation,
        Activation::LeakyRelu { .. } | Activation::GroupTopK { .. }
    )
}

#[test]
fn hostile_models_and_rows_have_the_bits_of_the_cpu() {
    let Some(device) = device() else { return };
    let values = inputs(&mut Random(21), 600);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    for (name, activation) in rules() {
        for (stored, weighted) in [
            (Stored::Rows, false),
            (Stored::Columns, true),
            (Stored::Rows, true),
        ] {
            let sae = model(activation.clone(), stored, weighted);
            if !is_supported(&activation) {
                let error = device.upload(&sae, &UploadOptions::default()).unwrap_err();
                assert_eq!(error.code(), Code::Unsupported, "{name}");
                continue;
            }
            let expected = alone(&sae, rows);
            for format in [WeightFormat::Stored, WeightFormat::Int8] {
                let options = UploadOptions::default().format(format);
                let uploaded = device.upload(&sae, &options).unwrap();
                // Weights of 1e30 and more have no bounds; the others have.
                let host = uploaded.host_features().len();
                assert_eq!(host, 8, "{name} {stored:?} {format:?}");
                for count in [1, 2, 63, 64, 65, 130, 600] {
                    let options = match count {
                        600 => StreamOptions::default(),
                        _ => StreamOptions::default().rows(100),
                    };
                    let found = encoded(&uploaded, &sae, rows.part(0, count), &options);
                    let expected = match count {
                        600 => expected.clone(),
                        _ => alone(&sae, rows.part(0, count)),
                    };
                    assert_same(
                        &found,
                        &expected,
                        &format!("{name} {stored:?} {format:?} {count}"),
                    );
                }
            }
        }
    }
}

#[test]
fn the_fixtures_have_their_digests() {
    let Some(device) = device() else { return };
    let expected = fixture::digests();
    let (mut checked, mut refused) = (0, 0);
    for case in fixture::cases() {
        for (name, given) in digest::runs(&case) {
            let sae = library::open(&case.checkpoint, &given, Level::best());
            let uploaded = match device.upload(&sae, &UploadOptions::default()) {
                Ok(uploaded) => uploaded,
                Err(error) => {
                    assert_eq!(error.code(), Code::Unsupported, "{name}: {error}");
                    println!("not on a device: {name} ({error})");
                    refused += 1;
                    continue;
                }
            };
            let rows = library::rows(&case.rows, case.d_in);
            let features = encoded(&uploaded, &sae, rows, &StreamOptions::default());
            let mut reconstructions = vec![0.0; rows.rows() * sae.d_out()];
            let inputs = sae.needs_inputs_to_decode().then_some(rows);
            let mut scratch = Scratch::new(&sae).unwrap();
            sae.decode(&features, inputs, &mut scratch, &mut reconstructions)
                .unwrap();
            let each = features.iter();
            let each = each.map(|row| (row.indices.to_vec(), row.values.to_vec()));
            let found = digest::sha256(&digest::bytes(each, reconstructions.iter()));
            let line = expected.iter().find(|(other, _)| *other == name);
            assert_eq!(Some(&found), line.map(|(_, digest)| digest), "{name}");
            checked += 1;
        }
    }
    println!(
        "{checked} digests on {}, {refused} refused",
        device.adapter().name
    );
    // All lines but the first and the last, which are about `libm` and about all of them.
    assert_eq!(checked + refused, expected.len() - 2);
    assert!(refused <= 4, "{refused} were refused");
}

/// Thresholds one unit below the pre-activation of some row: a bound that is too low by anything loses
/// a feature.
#[test]
fn features_that_fire_by_one_unit_are_found() {
    let Some(device) = device() else { return };
    let (d_in, d_sae, n) = (257, 130, 40);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for (seed, power) in [(61, 1), (62, 9)] {
            let mut random = Random(seed);
            let mut draw = |count: usize, size: f64| -> Vec<f32> {
                let value = |_| (random.value().powi(power) * size) as f32;
                (0..count).map(value).collect()
            };
            let weights = stored_as(dtype, &draw(d_in * d_sae, 0.1));
            let values = draw(n * d_in, 5.0);
            let rows = Rows::from_f32(&values, d_in).unwrap();
            let open = |activation| {
                let bytes = sae::bytes::Bytes::owned(weights.clone());
                let tensor = sae::tensor::Tensor::new("W_enc", dtype, &[d_in, d_sae], bytes);
                let encoder = Matrix::new(&tensor.unwrap(), FeatureAxis::Second, d_sae, d_in);
                let decoder = vec![vec![1.0]; d_sae];
                let decoder = library::parts::matrix("W_dec", &decoder, Stored::Rows);
                Sae::from_parts(Parts::new(encoder.unwrap(), activation, decoder)).unwrap()
            };
            let every = open(Activation::TopK {
                k: d_sae,
                rank: Rank::Value,
                relu: false,
            });
            let pre = library::parts::dense(&alone(&every, rows), d_sae);
            let each = (0..d_sae).map(|i| pre[i % n][i].next_down()).collect();
            let sae = open(Activation::JumpRelu {
                threshold: Thresholds::PerFeature(each),
                relu: false,
                inclusive: false,
            });
            let whole = alone(&sae, rows);
            for i in 0..d_sae {
                let row = whole.row(i % n).unwrap();
                assert!(row.indices.contains(&(i as u32)), "{dtype:?} {i}");
            }
            for format in [WeightFormat::Stored, WeightFormat::Int8] {
                for about in [false, true] {
                    let mut options = UploadOptions::default().format(format);
                    if about {
                        options = options.centre(rows);
                    }
                    let uploaded = device.upload(&sae, &options).unwrap();
                    let found = encoded(&uploaded, &sae, rows, &StreamOptions::default());
                    assert_same(&found, &whole, &format!("{dtype:?} {format:?} {about}"));
                }
            }
        }
    }
}

/// Values as bytes of a dtype, and as they are then.
fn stored_as(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values
            .iter()
            .flat_map(|&v| half::f16::from_f32(v).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .iter()
            .flat_map(|&v| half::bf16::from_f32(v).to_le_bytes())
            .collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// A model to be made, and rows for it.
#[derive(Clone, Debug)]
struct Plan {
    d_in: usize,
    d_sae: usize,
    dtype: Dtype,
    columns: bool,
    rule: usize,
    spread: i32,
    centred: bool,
    rows: usize,
    batch: usize,
    candidates: usize,
    int8: bool,
    about_the_mean: bool,
    seed: u64,
}

fn plans() -> impl Strategy<Value = Plan> {
    let shape = (1usize..150, 1usize..300);
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16]);
    let kind = (dtype, any::<bool>(), 0usize..8, 0i32..5, any::<bool>());
    let run = (
        1usize..=600,
        1usize..=200,
        1usize..3000,
        any::<bool>(),
        any::<bool>(),
        any::<u64>(),
    );
    (shape, kind, run).prop_map(|((d_in, d_sae), kind, run)| Plan {
        d_in,
        d_sae,
        dtype: kind.0,
        columns: kind.1,
        rule: kind.2,
        spread: kind.3,
        centred: kind.4,
        rows: run.0,
        batch: run.1,
        candidates: run.2,
        int8: run.3,
        about_the_mean: run.4,
        seed: run.5,
    })
}

impl Plan {
    fn make(&self) -> (Sae<'static>, Vec<f32>) {
        let mut random = Random(self.seed);
        let mut values = |count: usize, size: f64| -> Vec<f32> {
            let power = 1 + 2 * (random.next() % 3) as i32;
            (0..count)
                .map(|_| (random.value().powi(power) * size) as f32)
                .collect()
        };
        let size = [1.0, 1e-3, 3e-8, 50.0, 1e-2][self.spread as usize];
        let encoder = stored_as(self.dtype, &values(self.d_in * self.d_sae, size));
        let decoder = stored_as(Dtype::F32, &values(self.d_sae, 1.0));
        let matrix = |name: &str, dtype, bytes: Vec<u8>, width: usize, axis| {
            let shape = match axis {
                FeatureAxis::First => [self.d_sae, width],
                FeatureAxis::Second => [width, self.d_sae],
            };
            let bytes = sae::bytes::Bytes::shared(std::sync::Arc::new(bytes));
            let tensor = sae::tensor::Tensor::new(name, dtype, &shape, bytes).unwrap();
            Matrix::new(&tensor, axis, self.d_sae, width).unwrap()
        };
        let axis = match self.columns {
            true => FeatureAxis::Second,
            false => FeatureAxis::First,
        };
        let encoder = matrix("W_enc", self.dtype, encoder, self.d_in, axis);
        let decoder = matrix("W_dec", Dtype::F32, decoder, 1, FeatureAxis::First);
        let k = 1 + self.d_sae / 7;
        let top = |rank, relu| Activation::TopK { k, rank, relu };
        let thresholds = Thresholds::PerFeature(values(self.d_sae, size));
        let gate_bias = values(self.d_sae, size)
            .iter()
            .map(|&v| f64::from(v))
            .collect();
        let activation = match self.rule {
            0 => Activation::Relu,
            1 => Activation::TanhRelu,
            2 => Activation::JumpRelu {
                threshold: thresholds,
                relu: false,
                inclusive: true,
            },
            3 => Activation::JumpRelu {
                threshold: Thresholds::Scalar(size as f32),
                relu: true,
                inclusive: false,
            },
            4 => Activation::Gated { gate_bias },
            5 => top(Rank::Value, true),
            6 => top(Rank::Value, false),
            _ => top(Rank::Magnitude, false),
        };
        let mut parts = Parts::new(encoder, activation, decoder);
        let mut wide =
            |count, size| Some(values(count, size).iter().map(|&v| f64::from(v)).collect());
        parts.bias = wide(self.d_sae, size * 0.3);
        if self.centred {
            parts.center = wide(self.d_in, 1.0);
            parts.scale = wide(self.d_sae, 2.0);
        }
        let mut rows = values(self.rows * self.d_in, 1.0);
        // Some strong inputs that all rows share.
        for row in rows.chunks_exact_mut(self.d_in) {
            row[0] += 30.0;
        }
        (Sae::from_parts(parts).unwrap(), rows)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_models_have_the_bits_of_the_cpu(plan in plans()) {
        let Some(device) = device() else { return Ok(()) };
        let (sae, values) = plan.make();
        let rows = Rows::from_f32(&values, plan.d_in).unwrap();
        let mut options = UploadOptions::default();
        if plan.int8 {
            options = options.format(WeightFormat::Int8);
        }
        if plan.about_the_mean {
            options = options.centre(rows);
        }
        let uploaded = device.upload(&sae, &options).unwrap();
        let options = StreamOptions::default().rows(plan.batch).candidates(plan.candidates);
        let found = encoded(&uploaded, &sae, rows, &options);
        let expected = alone(&sae, rows);
        prop_assert_eq!(found.row_ends(), expected.row_ends());
        prop_assert_eq!(found.row_status(), expected.row_status());
        prop_assert_eq!(found.indices(), expected.indices());
        prop_assert_eq!(bits(found.values()), bits(expected.values()));
    }
}

#[test]
fn weights_are_cut_to_the_binding_size() {
    let Some(whole) = device() else { return };
    let small = DeviceOptions::default()
        .software(true)
        .most_binding_bytes(1 << 16);
    let small = Device::open(&small).unwrap();
    assert_eq!(small.most_binding_bytes(), 1 << 16);
    let (d_in, d_sae) = (200, 3000);
    let mut random = Random(5);
    let vectors: Vec<Vec<f64>> = (0..d_sae)
        .map(|_| (0..d_in).map(|_| random.value()).collect())
        .collect();
    for rank in [None, Some(Rank::Value)] {
        let activation = match rank {
            None => Activation::JumpRelu {
                threshold: Thresholds::Scalar(9.0),
                relu: true,
                inclusive: false,
            },
            Some(rank) => Activation::TopK {
                k: 20,
                rank,
                relu: true,
            },
        };
        let parts = Parts::new(
            library::parts::matrix("W_enc", &vectors, Stored::Columns),
            activation,
            library::parts::matrix("W_dec", &vectors, Stored::Rows),
        );
        let sae = Sae::from_parts(parts).unwrap();
        let values: Vec<f32> = (0..70 * d_in).map(|_| random.value() as f32).collect();
        let rows = Rows::from_f32(&values, d_in).unwrap();
        let expected = alone(&sae, rows);
        assert!(expected.len() > 300);
        for (device, batch) in [(whole, 512), (&small, 5)] {
            let uploaded = device.upload(&sae, &UploadOptions::default()).unwrap();
            assert!(uploaded.device_bytes() >= (d_in * d_sae * 4) as u64);
            assert_eq!(uploaded.host_bytes(), (d_in * d_sae * 4) as u64);
            let stream = uploaded.stream(&StreamOptions::default()).unwrap();
            assert_eq!(stream.rows(), batch);
            let found = encoded(&uploaded, &sae, rows, &StreamOptions::default());
            assert_same(&found, &expected, &format!("{rank:?} {batch}"));
        }
    }
    // A model of which not even one row of bounds fits.
    let wide: Vec<Vec<f64>> = (0..20_000).map(|i| vec![f64::from(i)]).collect();
    let parts = Parts::new(
        library::parts::matrix("W_enc", &wide, Stored::Rows),
        Activation::Relu,
        library::parts::matrix("W_dec", &wide, Stored::Rows),
    );
    let sae = Sae::from_parts(parts).unwrap();
    let error = small.upload(&sae, &UploadOptions::default()).unwrap_err();
    let Error::AdapterLimit {
        adapter,
        needed,
        found,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (adapter, *needed, *found),
        (&small.adapter().name, 320_000, 1 << 16)
    );
}

#[test]
fn what_is_not_there_is_named() {
    let options = DeviceOptions::default()
        .name("no such adapter")
        .software(true);
    let error = Device::open(&options).unwrap_err();
    assert_eq!(error.code(), Code::NoAdapter);
    let text = error.to_string();
    assert!(
        text.starts_with("no GPU adapter: asked for `no such adapter`, found "),
        "{text}"
    );
    for adapter in adapters() {
        assert!(text.contains(&adapter.name), "{text}");
    }
    let Some(device) = device() else { return };
    let few = DeviceOptions::default()
        .software(true)
        .most_binding_bytes(64);
    let error = Device::open(&few).unwrap_err();
    assert_eq!(error.code(), Code::NoAdapter);
    let text = error.to_string();
    let (adapter, limit) = (
        &device.adapter().name,
        "bytes of one binding: 65536 are needed, it has 64",
    );
    assert!(text.contains(adapter) && text.contains(limit), "{text}");
    // By name, in any case.
    let name = device.adapter().name.to_uppercase();
    assert_eq!(
        Device::open(&DeviceOptions::default().name(name))
            .unwrap()
            .adapter(),
        device.adapter()
    );
}

#[test]
fn models_and_streams_of_another_upload_are_refused() {
    let Some(device) = device() else { return };
    // Pursuits have screens on the CPU; a step's input is known only after the step before.
    let case = fixture::case("saelens_standard");
    let pursued = library::open(&case.checkpoint, &case.given, Level::best())
        .with_pursuit(sae::model::Pursuit::matching(3, 0.0, false))
        .unwrap();
    let error = device.upload(&pursued, &UploadOptions::default());
    assert_eq!(error.unwrap_err().code(), Code::Unsupported);
    let [a, b] = [0, 1].map(|_| model(Activation::Relu, Stored::Rows, false));
    let uploaded = device.upload(&a, &UploadOptions::default()).unwrap();
    let mut stream = uploaded.stream(&StreamOptions::default().rows(4)).unwrap();
    let mut scratch = Scratch::new(&a).unwrap();
    let mut features = Features::new();
    let values = inputs(&mut Random(1), 5);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    let mut code = |sae: &Sae<'_>, rows: Rows<'_>| {
        let result = uploaded.encode(sae, rows, &mut stream, &mut scratch, &mut features);
        result.map_err(|error| error.code())
    };
    assert_eq!(code(&b, rows), Err(Code::InvalidArgument));
    let narrow = Rows::from_f32(&values[..32], 32).unwrap();
    assert_eq!(code(&a, narrow), Err(Code::Length));
    assert_eq!(code(&a, rows), Ok(()));
    assert_eq!(code(&a, rows.part(0, 0)), Ok(()));
    for options in [
        StreamOptions::default().rows(0),
        StreamOptions::default().candidates(0),
    ] {
        assert_eq!(
            uploaded.stream(&options).unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    let mut other = device
        .upload(&b, &UploadOptions::default())
        .unwrap()
        .stream(&StreamOptions::default())
        .unwrap();
    let error = uploaded.encode(&a, rows, &mut other, &mut scratch, &mut features);
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);

    // The same model, uploaded twice: what one leaves to the host the other may not.
    let int8 = UploadOptions::default().format(WeightFormat::Int8);
    let again = device.upload(&a, &int8).unwrap();
    again
        .encode(&a, rows, &mut stream, &mut scratch, &mut features)
        .unwrap_err();
    uploaded
        .start(&a, rows.part(0, 4), &mut stream, &mut scratch)
        .unwrap();
    let ready = again.is_ready(&stream).unwrap_err();
    assert_eq!(ready.code(), Code::InvalidArgument);
    let finished = again.finish(&a, &mut stream, &mut scratch, &mut features);
    assert_eq!(finished.unwrap_err().code(), Code::InvalidArgument);
    uploaded
        .finish(&a, &mut stream, &mut scratch, &mut features)
        .unwrap();
    assert_same(&features, &alone(&a, rows.part(0, 4)), "its own upload");
}

/// After the device is gone every call on it fails, by name and without features, and the model
/// encodes on the CPU as before.
#[test]
fn models_outlive_their_device() {
    let Some(device) = open() else { return };
    let sae = model(Activation::Relu, Stored::Columns, true);
    let values = inputs(&mut Random(31), 64);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    let expected = alone(&sae, rows);
    let uploaded = device.upload(&sae, &UploadOptions::default()).unwrap();
    let mut stream = uploaded.stream(&StreamOptions::default()).unwrap();
    let mut scratch = Scratch::new(&sae).unwrap();
    let mut features = Features::new();
    uploaded
        .encode(&sae, rows, &mut stream, &mut scratch, &mut features)
        .unwrap();
    assert_same(&features, &expected, "before");
    // One batch is in flight.
    uploaded
        .start(&sae, rows, &mut stream, &mut scratch)
        .unwrap();
    device.destroy();
    let lost = |error: Error| {
        assert_eq!(error.code(), Code::Device, "{error}");
        let Error::Device {
            adapter, failure, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (adapter, failure),
            (&device.adapter().name, &DeviceFailure::Lost),
            "{error}"
        );
    };
    lost(
        uploaded
            .finish(&sae, &mut stream, &mut scratch, &mut features)
            .unwrap_err(),
    );
    assert_eq!(features.rows(), 0);
    for _ in 0..2 {
        let result = uploaded.encode(&sae, rows, &mut stream, &mut scratch, &mut features);
        lost(result.unwrap_err());
        assert_eq!(features.rows(), 0);
    }
    lost(uploaded.stream(&StreamOptions::default()).unwrap_err());
    lost(device.upload(&sae, &UploadOptions::default()).unwrap_err());
    sae.encode(rows, &mut scratch, &mut features).unwrap();
    assert_same(&features, &expected, "after");
}

#[test]
fn batches_can_be_started_awaited_and_shared() {
    let Some(device) = device() else { return };
    let sae = model(
        Activation::TopK {
            k: 9,
            rank: Rank::Value,
            relu: true,
        },
        Stored::Rows,
        true,
    );
    let values = inputs(&mut Random(41), 300);
    let rows = Rows::from_f32(&values, D_IN).unwrap();
    let expected = alone(&sae, rows);
    let uploaded = device.upload(&sae, &UploadOptions::default()).unwrap();
    let mut scratch = Scratch::new(&sae).unwrap();
    let mut features = Features::new();

    let mut stream = uploaded
        .stream(&StreamOptions::default().rows(300))
        .unwrap();
    assert_eq!(
        uploaded.is_ready(&stream).unwrap_err().code(),
        Code::InvalidArgument
    );
    let early = uploaded.finish(&sae, &mut stream, &mut scratch, &mut features);
    assert_eq!(early.unwrap_err().code(), Code::InvalidArgument);
    for wait in [false, true] {
        uploaded
            .start(&sae, rows, &mut stream, &mut scratch)
            .unwrap();
        while wait && !uploaded.is_ready(&stream).unwrap() {
            std::thread::yield_now();
        }
        uploaded
            .finish(&sae, &mut stream, &mut scratch, &mut features)
            .unwrap();
        assert_same(&features, &expected, "started");
    }
    // One that is given up, and too many rows.
    uploaded
        .start(&sae, rows, &mut stream, &mut scratch)
        .unwrap();
    let mut small = uploaded.stream(&StreamOptions::default().rows(7)).unwrap();
    let error = uploaded
        .start(&sae, rows, &mut small, &mut scratch)
        .unwrap_err();
    assert_eq!(error.code(), Code::Length);

    // A future that is dropped half-way, then one that is not.
    let mut polls = 0;
    for drop_after in [Some(1), None] {
        let future = uploaded.encode_async(&sae, rows, &mut small, &mut scratch, &mut features);
        let mut future = Box::pin(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            polls += 1;
            match future.as_mut().poll(&mut context) {
                std::task::Poll::Ready(result) => break result.unwrap(),
                std::task::Poll::Pending if drop_after.is_some_and(|after| polls >= after) => break,
                std::task::Poll::Pending => std::thread::yield_now(),
            }
        }
    }
    assert_same(&features, &expected, "awaited");

    // Several threads, one upload.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let found = encoded(&uploaded, &sae, rows, &StreamOptions::default().rows(33));
                assert_same(&found, &expected, "on a thread");
            });
        }
    });
}

/// The fast mode reads no weight on the host: its values are within the bound that the module states,
/// and what it selects differs only where a rank is within that of its threshold.
#[test]
fn fast_values_are_within_their_bound() {
    let Some(device) = device() else { return };
    let (d_in, d_sae, n) = (96, 500, 130);
    let mut random = Random(51);
    let mut vectors = |count: usize, width: usize| -> Vec<Vec<f64>> {
        (0..count)
            .map(|_| {
                (0..width)
                    .map(|_| f64::from(random.value() as f32))
                    .collect()
            })
            .collect()
    };
    let encoder = vectors(d_sae, d_in);
    let rows_of = vectors(n, d_in);
    let values: Vec<f32> = rows_of.iter().flatten().map(|&v| v as f32).collect();
    let rows = Rows::from_f32(&values, d_in).unwrap();
    let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let rules = [
        Activation::Relu,
        Activation::JumpRelu {
            threshold: Thresholds::Scalar(3.0),
            relu: true,
            inclusive: false,
        },
        Activation::Gated {
            gate_bias: vec![-1.0; d_sae],
        },
        Activation::TopK {
            k: 17,
            rank: Rank::Value,
            relu: true,
        },
        Activation::TopK {
            k: 17,
            rank: Rank::Magnitude,
            relu: false,
        },
    ];
    for activation in rules {
        let mut parts = Parts::new(
            library::parts::matrix("W_enc", &encoder, Stored::Rows),
            activation.clone(),
            library::parts::matrix("W_dec", &encoder, Stored::Rows),
        );
        parts.bias = Some((0..d_sae).map(|i| i as f64 * 1e-3 - 0.2).collect());
        let sae = Sae::from_parts(parts).unwrap();
        let exact = alone(&sae, rows);
        let uploaded = device.upload(&sae, &UploadOptions::default()).unwrap();
        let mut stream = uploaded.stream(&StreamOptions::default().rows(50)).unwrap();
        let (mut scratch, mut found) = (Scratch::new(&sae).unwrap(), Features::new());
        uploaded
            .encode(&sae, rows, &mut stream, &mut scratch, &mut found)
            .unwrap();
        assert_same(&found, &exact, "exact");
        let (looked_at, fire) = (stream.counts().candidates, exact.len() as u64);
        assert!(
            (fire..fire + fire / 50 + 5).contains(&looked_at),
            "{activation:?}: {looked_at} {fire}"
        );
        assert_eq!(stream.counts().host_rows, 0);
        let options = StreamOptions::default().mode(Mode::Fast).rows(50);
        let fast = encoded(&uploaded, &sae, rows, &options);
        assert_eq!(fast.rows(), n);
        assert!(exact.len() > 1000, "{}", exact.len());
        let (exact, fast) = (
            library::parts::dense(&exact, d_sae),
            library::parts::dense(&fast, d_sae),
        );
        let mut differ = 0;
        for row in 0..n {
            for feature in 0..d_sae {
                let (a, b) = (
                    f64::from(exact[row][feature]),
                    f64::from(fast[row][feature]),
                );
                let bound = (d_in as f64 + 60.0)
                    * 2f64.powi(-23)
                    * norm(&encoder[feature])
                    * norm(&rows_of[row])
                    + 1e-5;
                if (a == 0.0) != (b == 0.0) {
                    differ += 1;
                    continue;
                }
                assert!(
                    (a - b).abs() <= bound,
                    "{activation:?} {row} {feature}: {a} {b} {bound}"
                );
            }
        }
        assert!(differ <= 4, "{activation:?}: {differ}");
    }
}

/// Decoding on the device is within its bound of the exact sums, for every fixture: with
/// normalisations, scales, skips, and decoders in columns.
#[test]
fn decoding_is_within_its_bound() {
    let Some(whole) = device() else { return };
    let small = DeviceOptions::default()
        .software(true)
        .most_binding_bytes(1 << 16);
    let small = Device::open(&small).unwrap();
    let mut checked = 0;
    for case in fixture::cases() {
        for (name, given) in digest::runs(&case) {
            let sae = library::open(&case.checkpoint, &given, Level::best());
            let rows = library::rows(&case.rows, case.d_in);
            let (features, exact) = encode_decode(&sae, rows);
            let inputs = sae.needs_inputs_to_decode().then_some(rows);
            for (device, batch) in [(whole, None), (&small, Some(3))] {
                let decoder = device.upload_decoder(&sae).unwrap();
                assert_eq!((decoder.len(), decoder.width()), (sae.d_sae(), sae.d_out()));
                let mut stream = decoder.stream(batch).unwrap();
                let mut scratch = Scratch::new(&sae).unwrap();
                let mut found = vec![9.0f32; exact.len()];
                decoder
                    .decode(
                        &sae,
                        &features,
                        inputs,
                        &mut stream,
                        &mut scratch,
                        &mut found,
                    )
                    .unwrap();
                for (row, of) in features.iter().enumerate() {
                    let at = row * sae.d_out()..(row + 1) * sae.d_out();
                    // The sums that are added, without what follows; norms undone make it larger.
                    let largest = exact[at.clone()].iter().fold(0f32, |a, v| a.max(v.abs()));
                    let sum: f32 = of.values.iter().map(|v| v.abs()).sum();
                    let bound = (of.indices.len() as f64 + 4.0)
                        * 2f64.powi(-23)
                        * f64::from(sum + largest + 1.0)
                        * 8.0;
                    for (a, b) in exact[at.clone()].iter().zip(&found[at.clone()]) {
                        let far = f64::from((a - b).abs());
                        assert!(
                            a.is_nan() && b.is_nan() || far <= bound,
                            "{name} {row}: {a} {b}"
                        );
                    }
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 98, "{checked}");
}

/// Directions are added within the bound; rows that are not added to keep their bits, and rows that
/// could overflow have the host's sums.
#[test]
fn directions_are_added_within_their_bound() {
    let Some(whole) = device() else { return };
    let small = DeviceOptions::default()
        .software(true)
        .most_binding_bytes(1 << 16);
    let small = Device::open(&small).unwrap();
    let (count, width, n) = (301, 95, 600);
    let mut random = Random(71);
    let mut vectors: Vec<f32> = (0..count * width).map(|_| random.value() as f32).collect();
    vectors[7 * width..8 * width].fill(3e38);
    vectors[9 * width + 1] = f32::NAN;
    let mut rows: Vec<f32> = (0..n * width)
        .map(|_| (random.value() * 10.0) as f32)
        .collect();
    rows[11 * width] = f32::INFINITY;
    rows[12 * width] = -0.0;
    let mut amounts = Features::new();
    for row in 0..n {
        if row % 5 != 2 {
            let mut index = (random.next() % 20) as u32;
            while (index as usize) < count {
                let rare = index == 7 && row % 50 != 0 || index == 9 && row != 30;
                if !rare {
                    amounts.push(index, (random.value() * 3.0) as f32).unwrap();
                }
                index += 1 + (random.next() % 40) as u32;
            }
            if row == 100 {
                amounts.push(300, 1e30).unwrap();
            }
        }
        let status = match row {
            20 => sae::RowStatus::NonFinite,
            _ => sae::RowStatus::Ok,
        };
        amounts.end_row(status).unwrap();
    }
    for (device, batch) in [(whole, None), (&small, None), (whole, Some(1))] {
        let given = Rows::from_f32(&vectors, width).unwrap();
        let directions = device.upload_directions(given).unwrap();
        let mut stream = directions.stream(batch).unwrap();
        let mut found = rows.clone();
        let mut edited = RowsMut::from_f32(&mut found, width).unwrap();
        directions.add(&amounts, &mut edited, &mut stream).unwrap();
        let mut changed = 0;
        for (row, of) in amounts.iter().enumerate() {
            let at = row * width..(row + 1) * width;
            let (before, after) = (&rows[at.clone()], &found[at.clone()]);
            let sums: Vec<f64> = (0..width)
                .map(|j| {
                    let pairs = of.indices.iter().zip(of.values);
                    pairs.fold(f64::from(before[j]), |sum, (&index, &amount)| {
                        sum + f64::from(amount) * f64::from(vectors[index as usize * width + j])
                    })
                })
                .collect();
            let kept = of.indices.is_empty()
                || of.status != sae::RowStatus::Ok
                || before.iter().any(|v| !v.is_finite())
                || sums.iter().any(|&sum| !(sum as f32).is_finite());
            if kept {
                assert_eq!(bits(before), bits(after), "{row}");
                continue;
            }
            changed += 1;
            for (j, (before, after)) in before.iter().zip(after).enumerate() {
                let (mut sum, mut size) = (f64::from(*before), f64::from(before.abs()));
                for (&index, &amount) in of.indices.iter().zip(of.values) {
                    let term = f64::from(amount) * f64::from(vectors[index as usize * width + j]);
                    sum += term;
                    size += term.abs();
                }
                let e = (of.indices.len() as f64 + 3.0) * 2f64.powi(-23);
                let far = (sum - f64::from(*after)).abs();
                assert!(far <= e * 1.01 * size + 1e-35, "{row} {j}: {sum} {after}");
            }
        }
        assert!(changed > 400, "{changed}");
        // What does not fit is refused.
        let code = |result: Result<(), Error>| result.unwrap_err().code();
        let rest = amounts.rows() - 1;
        let mut short = RowsMut::from_f32(&mut found[..rest * width], width).unwrap();
        assert_eq!(
            code(directions.add(&amounts, &mut short, &mut stream)),
            Code::Length
        );
        let mut one = Features::new();
        one.push(301, 1.0).unwrap();
        one.end_row(sae::RowStatus::Ok).unwrap();
        let mut first = RowsMut::from_f32(&mut found[..width], width).unwrap();
        assert_eq!(
            code(directions.add(&one, &mut first, &mut stream)),
            Code::FeatureOutOfRange
        );
        let sae = model(Activation::Relu, Stored::Rows, false);
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut out = [0.0; D_IN];
        let other = directions.decode(&sae, &one, None, &mut stream, &mut scratch, &mut out);
        assert_eq!(code(other), Code::InvalidArgument);
        let decoder = device.upload_decoder(&sae).unwrap();
        let mut of_decoder = decoder.stream(None).unwrap();
        let mut first = RowsMut::from_f32(&mut out, D_IN).unwrap();
        let mut none = Features::new();
        none.end_row(sae::RowStatus::Ok).unwrap();
        assert_eq!(
            code(decoder.add(&none, &mut first, &mut of_decoder)),
            Code::InvalidArgument
        );
        assert_eq!(
            code(directions.stream(Some(0)).map(|_| ())),
            Code::InvalidArgument
        );
    }
}

/// Rows of two bytes are rounded once more, and keep what does not change.
#[test]
fn directions_are_added_to_halves() {
    let Some(device) = device() else { return };
    let vectors = [1.0f32, 0.0, -2.0, 1e-9];
    let directions = device
        .upload_directions(Rows::from_f32(&vectors, 4).unwrap())
        .unwrap();
    let mut stream = directions.stream(None).unwrap();
    let mut amounts = Features::new();
    amounts.push(0, 0.5).unwrap();
    amounts.end_row(sae::RowStatus::Ok).unwrap();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let mut bytes = stored_as(dtype, &[1.0, -0.0, 3.0, 1.0]);
        let mut rows = RowsMut::from_bytes(&mut bytes, dtype, 1, 4, 8).unwrap();
        directions.add(&amounts, &mut rows, &mut stream).unwrap();
        assert_eq!(bytes, stored_as(dtype, &[1.5, -0.0, 2.0, 1.0]));
    }
}

/// The default build has nothing of this feature.
#[test]
fn the_feature_is_off_by_default() {
    let tree = |features: &[&str]| {
        let cargo = std::process::Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--package",
                "sae",
                "--edges",
                "normal,build",
                "--prefix",
                "none",
            ])
            .args(features)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            cargo.status.success(),
            "{}",
            String::from_utf8_lossy(&cargo.stderr)
        );
        String::from_utf8(cargo.stdout).unwrap()
    };
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| line.split(' ').next().unwrap().to_string();
        text.lines().map(name).collect()
    };
    let gpu = |name: &String| {
        ["wgpu", "naga", "pollster", "ash", "gpu-allocator"]
            .iter()
            .any(|part| name.starts_with(part))
    };
    for without in [
        &[][..],
        &["--features", "cli,torch,gzip,yaml,pack,analysis"],
        &["--no-default-features"],
    ] {
        let found: Vec<String> = names(&tree(without)).into_iter().filter(gpu).collect();
        assert!(found.is_empty(), "{without:?}: {found:?}");
    }
    let with = names(&tree(&["--features", "wgpu"]));
    assert!(
        with.iter().filter(|name| gpu(name)).count() >= 3,
        "{with:?}"
    );
}
