//! Properties over random small models of every architecture, opened from bytes: the library gives
//! the bits of the reference, whatever the level, the layout, the batch or the row format.
#![cfg(feature = "std")]

mod library;
mod reference;

use library::{bits, encode_decode, options};
use proptest::prelude::*;
use reference::d1::{self, Encoded};
use reference::model::{self, Model};
use reference::random::{Format, Kind, Random, Tensors};
use reference::read;
use sae::model::ScreenKind;
use sae::{Dtype, Features, Level, RowStatus, Rows, Sae, Scratch};
use serde_json::json;

/// A model to be made, and rows for it.
#[derive(Clone, Debug)]
struct Plan {
    architecture: &'static str,
    normalization: &'static str,
    factor: f64,
    apply_b_dec: bool,
    decoder_norm: bool,
    finetuning: bool,
    tanh: bool,
    d_in: usize,
    d_sae: usize,
    d_out: usize,
    k: usize,
    format: Format,
    kind: Kind,
    row_format: Format,
    row_kind: Kind,
    rows: usize,
    seed: u64,
}

/// A model as files, and the reference's.
struct Made {
    file: Vec<u8>,
    config: String,
    given: Vec<(String, String)>,
    model: Model,
    /// `[rows, d_in]` in `row_format`.
    rows: Vec<u8>,
    plan: Plan,
}

fn plans() -> impl Strategy<Value = Plan> {
    let architecture = prop::sample::select(vec![
        "standard",
        "gated",
        "jumprelu",
        "topk",
        "abstopk",
        "transcoder",
        "skip_transcoder",
        "jumprelu_transcoder",
        "jumprelu_skip_transcoder",
    ]);
    let normalization = prop::sample::select(vec![
        "none",
        "none",
        "layer_norm",
        "constant_norm_rescale",
        "expected_average_only_in",
        "covariance_whitening",
    ]);
    let format = || prop::sample::select(vec![Format::F32, Format::F16, Format::BF16]);
    let kind = || {
        prop::sample::select(vec![
            Kind::Spread,
            Kind::Spread,
            Kind::Spread,
            Kind::Whole,
            Kind::Whole,
            Kind::Extreme,
        ])
    };
    let flags = prop::array::uniform4(any::<bool>());
    // Above 256 features the library works in blocks, and TopK cuts its candidates back.
    let d_sae = prop_oneof![3 => 1..90usize, 1 => 250..1300usize];
    let sizes = (1..70usize, d_sae, 1..40usize, any::<prop::sample::Index>());
    let batch = (format(), kind(), 1..6usize);
    let choices = (architecture, normalization, 0.01..8.0f64, flags);
    let weights = (format(), kind(), any::<u64>());
    (choices, sizes, weights, batch).prop_map(|(choices, sizes, weights, batch)| {
        let (architecture, normalization, factor, flags) = choices;
        let (d_in, d_sae, d_out, k) = sizes;
        let transcoder = architecture.ends_with("transcoder");
        let topk = architecture.ends_with("topk");
        Plan {
            architecture,
            normalization,
            factor,
            apply_b_dec: flags[0] && !transcoder,
            decoder_norm: flags[1] && topk,
            finetuning: flags[2] && !topk,
            tanh: flags[3] && architecture == "standard",
            d_in,
            d_sae,
            d_out: if transcoder { d_out } else { d_in },
            k: k.index(d_sae) + 1,
            format: weights.0,
            kind: weights.1,
            seed: weights.2,
            row_format: batch.0,
            row_kind: batch.1,
            rows: batch.2,
        }
    })
}

impl Plan {
    fn make(&self) -> Made {
        let mut random = Random(self.seed);
        let mut tensors = Tensors::default();
        let mut add = |name: &str, shape: &[usize], kind: Kind| {
            let count = shape.iter().product::<usize>();
            let numbers = (0..count).flat_map(|_| self.format.random(kind, &mut random));
            let bytes: Vec<u8> = numbers.collect();
            tensors.add(name, self.format, shape, &bytes);
        };
        let (d_in, d_sae, d_out) = (self.d_in, self.d_sae, self.d_out);
        add("W_enc", &[d_in, d_sae], self.kind);
        add("W_dec", &[d_sae, d_out], self.kind);
        add("b_dec", &[d_out], self.kind);
        if self.architecture == "gated" {
            add("b_gate", &[d_sae], self.kind);
            add("b_mag", &[d_sae], self.kind);
            // exp of an extreme number would be no model.
            add("r_mag", &[d_sae], Kind::Spread);
        } else {
            add("b_enc", &[d_sae], self.kind);
        }
        if self.architecture.starts_with("jumprelu") {
            add("threshold", &[d_sae], self.kind);
        }
        if self.architecture.contains("skip") {
            add("W_skip", &[d_out, d_in], self.kind);
        }
        if self.finetuning {
            add("finetuning_scaling_factor", &[d_sae], Kind::Spread);
        }
        let config = json!({
            "architecture": self.architecture, "d_in": d_in, "d_sae": d_sae, "k": self.k,
            "normalize_activations": self.normalization,
            "apply_b_dec_to_input": self.apply_b_dec,
            "rescale_acts_by_decoder_norm": self.decoder_norm,
            "finetuning_scaling_factor": self.finetuning,
            "activation_fn_str": if self.tanh { "tanh-relu" } else { "relu" },
        });
        let mut given = vec![];
        if self.normalization == "expected_average_only_in" {
            given.push(("norm_scaling_factor".to_string(), self.factor.to_string()));
        }
        let file = tensors.safetensors(random.below(9));
        let model = model::saelens(&read::safetensors(&file), &config, &given);
        let count = self.rows * d_in;
        let numbers = (0..count).flat_map(|_| self.row_format.random(self.row_kind, &mut random));
        Made {
            rows: numbers.collect(),
            config: config.to_string(),
            plan: self.clone(),
            file,
            given,
            model,
        }
    }
}

impl Made {
    fn open(&self, level: Level) -> Sae<'_> {
        let (name, config) = ("sae_weights.safetensors", Some(self.config.as_str()));
        let sae = Sae::from_bytes(name, &self.file, config, &options(&self.given, level));
        sae.unwrap_or_else(|error| panic!("{error}: {:?}", self.plan))
    }

    fn rows(&self) -> Rows<'_> {
        let (dtype, size) = match self.plan.row_format {
            Format::F32 => (Dtype::F32, 4),
            Format::F16 => (Dtype::F16, 2),
            Format::BF16 => (Dtype::BF16, 2),
        };
        let (rows, width) = (self.plan.rows, self.plan.d_in);
        Rows::from_bytes(&self.rows, dtype, rows, width, width * size).unwrap()
    }

    /// The rows as f32.
    fn wide_rows(&self) -> Vec<f32> {
        self.plan.row_format.widen(&self.rows)
    }

    /// What the reference makes of every row.
    fn expected(&self) -> (Vec<Encoded>, Vec<f32>) {
        let wide = self.wide_rows();
        let rows = wide.chunks_exact(self.plan.d_in);
        let encoded: Vec<Encoded> = rows
            .clone()
            .map(|row| d1::encode(&self.model, row))
            .collect();
        let decoded = rows
            .zip(&encoded)
            .flat_map(|(row, encoded)| d1::decode(&self.model, encoded, row))
            .collect();
        (encoded, decoded)
    }

    /// The features of the model with another k.
    fn with_k(&self, k: usize) -> Features {
        let mut config: serde_json::Value = serde_json::from_str(&self.config).unwrap();
        config["k"] = k.into();
        let config = config.to_string();
        let name = "sae_weights.safetensors";
        let options = options(&self.given, Level::best());
        let sae = Sae::from_bytes(name, &self.file, Some(&config), &options).unwrap();
        encode_decode(&sae, self.rows()).0
    }
}

/// Whether the features are, to the bit, those of the reference.
fn assert_encoded(found: &Features, expected: &[Encoded], plan: &Plan) {
    assert_eq!(found.rows(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let status = match expected {
            Encoded::Features(_) => RowStatus::Ok,
            Encoded::NonFinite => RowStatus::NonFinite,
        };
        assert_eq!(found.status, status, "{plan:?}");
        let (indices, values): (Vec<u32>, Vec<f32>) = expected.features().iter().copied().unzip();
        assert_eq!(found.indices, indices, "{plan:?}");
        assert_eq!(bits(found.values), bits(&values), "{plan:?}");
    }
}

proptest! {
    // PROPTEST_CASES sets how many models each property tries.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Encode and decode, on every level, from the file's layout and prepared.
    #[test]
    fn library_gives_the_bits_of_the_reference(plan in plans()) {
        let made = plan.make();
        let (expected, decoded) = made.expected();
        for level in Level::available() {
            for prepare in [false, true] {
                let mut sae = made.open(level);
                if prepare {
                    sae = sae.with_screen_options(ScreenKind::Proven.into()).prepare().unwrap();
                }
                let (features, reconstructions) = encode_decode(&sae, made.rows());
                assert_encoded(&features, &expected, &plan);
                prop_assert_eq!(bits(&reconstructions), bits(&decoded), "{:?}", level);
            }
        }
    }

    /// Readouts, compiled and one-off, give what encode gives, in any order, with repetitions.
    #[test]
    fn readout_gives_what_encode_gives(plan in plans(), seed: u64) {
        let made = plan.make();
        let sae = made.open(Level::best());
        let (features, _) = encode_decode(&sae, made.rows());
        let mut random = Random(seed);
        let count = random.below(12);
        let wanted: Vec<u32> = (0..count).map(|_| random.below(plan.d_sae) as u32).collect();
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut values = vec![f32::NAN; plan.rows * count];
        let mut status = vec![RowStatus::NanPreActivation; plan.rows];
        let set = sae.compile_set(&wanted).unwrap();
        sae.readout(&set, made.rows(), &mut scratch, &mut values, &mut status).unwrap();
        let value = |row: usize, feature: u32| {
            let row = features.row(row).unwrap();
            row.indices.binary_search(&feature).map_or(0.0, |at| row.values[at])
        };
        for row in 0..plan.rows {
            prop_assert_eq!(status[row], features.row(row).unwrap().status);
            let expected: Vec<f32> = wanted.iter().map(|&f| value(row, f)).collect();
            prop_assert_eq!(bits(&values[row * count..][..count]), bits(&expected));
        }
        let one = random.below(plan.d_sae) as u32;
        let mut column = vec![f32::NAN; plan.rows];
        sae.readout_one(one, made.rows(), &mut scratch, &mut column, &mut status).unwrap();
        let expected: Vec<f32> = (0..plan.rows).map(|row| value(row, one)).collect();
        prop_assert_eq!(bits(&column), bits(&expected));
    }

    /// Splitting a batch, widening its rows, spreading them over a stride, or using work space of
    /// the caller at any address changes nothing.
    #[test]
    fn batches_strides_and_scratch_change_nothing(plan in plans(), gap in 0..40usize, skew in 0..9usize) {
        let made = plan.make();
        let sae = made.open(Level::best());
        let (features, reconstructions) = encode_decode(&sae, made.rows());

        let wide = made.wide_rows();
        let whole = encode_decode(&sae, library::rows(&wide, plan.d_in));
        prop_assert_eq!(&whole.0, &features);
        prop_assert_eq!(bits(&whole.1), bits(&reconstructions));

        for row in 0..plan.rows {
            let (one, y) = encode_decode(&sae, made.rows().part(row, 1));
            prop_assert_eq!(one.row(0), features.row(row));
            let expected = &reconstructions[row * plan.d_out..][..plan.d_out];
            prop_assert_eq!(bits(&y), bits(expected));
        }

        // Rows apart from each other, starting anywhere.
        let row_bytes = made.rows.len() / plan.rows;
        let mut spread = vec![0xffu8; skew];
        for row in made.rows.chunks_exact(row_bytes) {
            spread.extend(row);
            spread.extend(std::iter::repeat_n(0xff, gap));
        }
        let (dtype, stride) = (made.rows().dtype(), row_bytes + gap);
        let apart = Rows::from_bytes(&spread[skew..], dtype, plan.rows, plan.d_in, stride).unwrap();
        let found = encode_decode(&sae, apart);
        prop_assert_eq!(&found.0, &features);
        prop_assert_eq!(bits(&found.1), bits(&reconstructions));

        let mut memory = vec![0xa5u8; Scratch::bytes_required(&sae) + skew];
        let mut scratch = Scratch::from_memory(&sae, &mut memory[skew..]).unwrap();
        let mut found = Features::new();
        sae.encode(made.rows(), &mut scratch, &mut found).unwrap();
        prop_assert_eq!(&found, &features);
    }

    /// A row that is not finite has no features and a status; the other rows do not notice.
    #[test]
    fn rows_that_are_not_finite_stand_alone(plan in plans(), at: prop::sample::Index, bad in 0..3usize) {
        let plan = Plan { row_format: Format::F32, ..plan };
        let made = plan.make();
        let sae = made.open(Level::best());
        let (features, reconstructions) = encode_decode(&sae, made.rows());
        let mut wide = made.wide_rows();
        let at = at.index(wide.len());
        wide[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][bad];
        let hit = at / plan.d_in;
        let (found, y) = encode_decode(&sae, library::rows(&wide, plan.d_in));
        for row in 0..plan.rows {
            let y = &y[row * plan.d_out..][..plan.d_out];
            let found = found.row(row).unwrap();
            if row == hit {
                prop_assert_eq!(found.status, RowStatus::NonFinite);
                prop_assert!(found.indices.is_empty());
                prop_assert!(y.iter().all(|y| y.to_bits() == 0x7fc0_0000));
            } else {
                prop_assert_eq!(Some(found), features.row(row));
                let expected = &reconstructions[row * plan.d_out..][..plan.d_out];
                prop_assert_eq!(bits(y), bits(expected));
            }
        }
        prop_assert!(found.failed_rows() > 0);
    }

    /// The k largest are among the k + 1 largest, with the same values; there are at most k; with
    /// k = d_sae they are what fires without the limit.
    #[test]
    fn top_k_grows_by_one(plan in plans(), magnitude: bool) {
        let architecture = if magnitude { "abstopk" } else { "topk" };
        let normalization = match plan.normalization {
            "expected_average_only_in" => "none",
            other => other,
        };
        let plan = Plan {
            architecture,
            normalization,
            decoder_norm: false,
            finetuning: false,
            tanh: false,
            d_out: plan.d_in,
            ..plan
        };
        let made = plan.make();
        let smaller = made.with_k(plan.k);
        let larger = made.with_k((plan.k + 1).min(plan.d_sae));
        let all = made.with_k(plan.d_sae);
        for ((smaller, larger), all) in smaller.iter().zip(larger.iter()).zip(all.iter()) {
            prop_assert!(smaller.indices.len() <= plan.k);
            prop_assert!(larger.indices.len() <= smaller.indices.len() + 1);
            for (set, wider) in [(smaller, larger), (larger, all)] {
                for (index, value) in std::iter::zip(set.indices, set.values) {
                    let at = wider.indices.binary_search(index);
                    prop_assert!(at.is_ok(), "{} is lost", index);
                    prop_assert_eq!(wider.values[at.unwrap()].to_bits(), value.to_bits());
                }
            }
        }
        if !magnitude {
            // The reference model without the limit.
            let relu = Model { activation: model::Activation::Relu, ..made.model.clone() };
            let wide = made.wide_rows();
            let rows = wide.chunks_exact(plan.d_in);
            let expected: Vec<Encoded> = rows.map(|row| d1::encode(&relu, row)).collect();
            assert_encoded(&all, &expected, &plan);
        }
    }

    /// Decoding is linear: what two sets of features add to the bias adds up.
    #[test]
    fn decoding_is_linear(plan in plans(), seed: u64) {
        let plan = Plan {
            normalization: "none",
            kind: Kind::Spread,
            row_kind: Kind::Spread,
            ..plan
        };
        let made = plan.make();
        let sae = made.open(Level::best());
        let mut random = Random(seed);
        let mut sets = [Features::new(), Features::new(), Features::new()];
        let mut all = vec![];
        for feature in 0..plan.d_sae as u32 {
            let (which, value) = (random.below(4), random.number());
            if which < 2 {
                sets[which].push(feature, value).unwrap();
                sets[2].push(feature, value).unwrap();
                all.push((feature, f64::from(value)));
            }
        }
        sets.iter_mut().for_each(|set| set.end_row(RowStatus::Ok).unwrap());
        let mut nothing = Features::new();
        nothing.end_row(RowStatus::Ok).unwrap();
        let mut scratch = Scratch::new(&sae).unwrap();
        let mut decode = |features: &Features| {
            let mut y = vec![0.0; plan.d_out];
            let rows = made.rows().part(0, 1);
            sae.decode(features, Some(rows), &mut scratch, &mut y).unwrap();
            y
        };
        let [a, b, both] = [0, 1, 2].map(|set| decode(&sets[set]));
        let bias = decode(&nothing);
        let raw: Vec<f64> = made.wide_rows()[..plan.d_in].iter().map(|&x| x.into()).collect();
        let (_, magnitude) = made.model.decode(&all, &raw);
        for c in 0..plan.d_out {
            let sum = f64::from(a[c]) + f64::from(b[c]) - f64::from(bias[c]);
            let error = (f64::from(both[c]) - sum).abs();
            // Each of the four is rounded to f32 once.
            prop_assert!(error <= 4.0 * 2f64.powi(-24) * magnitude[c] + 1e-40, "{}", error);
        }
    }

    /// Embedding SAEs of Gemma Scope, known by their folder only, with any d_in.
    #[test]
    fn gemma_scope_gives_the_bits_of_the_reference(plan in plans(), embedding: bool, transcoder: bool) {
        let d_out = if transcoder { plan.d_out } else { plan.d_in };
        let mut random = Random(plan.seed);
        let mut member = |name: &'static str, shape: &[usize]| {
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|_| random.number()).collect();
            (name, reference::random::npy(shape, &values))
        };
        let members = [
            member("W_enc", &[plan.d_in, plan.d_sae]),
            member("W_dec", &[plan.d_sae, d_out]),
            member("b_enc", &[plan.d_sae]),
            member("b_dec", &[d_out]),
            member("threshold", &[plan.d_sae]),
        ];
        let file = reference::random::npz(&members);
        let model = model::gemma_scope(&read::npz(&file), embedding);
        let name = if embedding {
            "embedding/width_4k/average_l0_21/params.npz"
        } else {
            "layer_3/width_16k/average_l0_21/params.npz"
        };
        let rows: Vec<f32> = (0..3 * plan.d_in).map(|_| random.number()).collect();
        let each = rows.chunks_exact(plan.d_in);
        let expected: Vec<Encoded> = each.clone().map(|row| d1::encode(&model, row)).collect();
        let decoded: Vec<f32> = each
            .zip(&expected)
            .flat_map(|(row, encoded)| d1::decode(&model, encoded, row))
            .collect();
        for level in Level::available() {
            let sae = Sae::from_bytes(name, &file, None, &options(&[], level)).unwrap();
            let (features, reconstructions) = encode_decode(&sae, library::rows(&rows, plan.d_in));
            assert_encoded(&features, &expected, &plan);
            prop_assert_eq!(bits(&reconstructions), bits(&decoded));
        }
    }
}
