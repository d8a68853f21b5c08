//! Every verb on every backend: each instruction set that this machine has, with the weights as they
//! are stored and prepared with a screen, and, with the feature `wgpu`, a device. Whatever runs a verb
//! gives the same digest; what a backend lacks is named.
#![cfg(feature = "std")]

mod library;
mod reference;

use library::bits;
use reference::{digest, fixture};
use sae::model::ScreenKind;
use sae::monitor::{Accumulator, Collect, RowInfo};
use sae::steer::{Batch, Edit, Plan, Report, SteerScratch};
use sae::{Features, Level, Part, RowStatus, Rows, RowsMut, Sae, Scratch};
use std::collections::BTreeMap;

/// What ran a verb, and the digest of what it gave.
type Digests = BTreeMap<&'static str, Vec<(String, String)>>;

fn of_features(features: &Features) -> String {
    let each = features.iter();
    let each = each.map(|row| (row.indices.to_vec(), row.values.to_vec()));
    let mut bytes = digest::bytes(each, [].iter());
    bytes.extend(features.row_status().iter().map(|&status| status as u8));
    digest::sha256(&bytes)
}

fn of_values(values: &[f32]) -> String {
    let bytes: Vec<u8> = bits(values)
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    digest::sha256(&bytes)
}

fn encode(sae: &Sae<'_>, rows: Rows<'_>, scratch: &mut Scratch<'_>) -> Features {
    let mut features = Features::new();
    sae.encode(rows, scratch, &mut features).unwrap();
    features
}

/// Up to 32 rows, a few times over where they are few, so that they make a batch.
fn many(values: &[f32], width: usize) -> Vec<f32> {
    let mut all = Vec::new();
    for factor in [1.0, 0.5, -1.0, 2.0, 0.25] {
        all.extend(values.iter().map(|value| value * factor));
    }
    all.truncate(32 * width);
    all
}

/// Statistics of features.
fn monitor(sae: &Sae<'_>, features: &Features) -> String {
    let mut statistics = Accumulator::new(Collect::all(sae).top(3)).unwrap();
    let infos: Vec<RowInfo> = (0..features.rows() as u64)
        .map(|row| RowInfo::new(1, row))
        .collect();
    statistics.add_all(features, &infos).unwrap();
    digest::sha256(&statistics.to_bytes().unwrap())
}

/// The verbs that read rows on the CPU.
fn on_cpu(sae: &Sae<'_>, rows: Rows<'_>, mut add: impl FnMut(&'static str, &'static str, String)) {
    let mut scratch = Scratch::new(sae).unwrap();
    let features = encode(sae, rows, &mut scratch);
    add("encode", "in batches", of_features(&features));

    let mut small = Scratch::for_rows(sae, 1).unwrap();
    add(
        "encode",
        "row by row",
        of_features(&encode(sae, rows, &mut small)),
    );

    let (mut low, mut high) = (Part::new(), Part::new());
    for (part, ith) in [(&mut low, 0), (&mut high, 1)] {
        let range = sae.part_range(ith, 2);
        sae.encode_part(rows, range, &mut scratch, part).unwrap();
    }
    let mut joined = Features::new();
    sae.encode_finish(&[&low, &high], &mut scratch, &mut joined)
        .unwrap();
    add("encode", "in two parts", of_features(&joined));

    let all: Vec<u32> = (0..sae.d_sae() as u32).collect();
    let set = sae.compile_set(&all).unwrap();
    let mut values = vec![0.0; rows.rows() * all.len()];
    let mut status = vec![RowStatus::Ok; rows.rows()];
    sae.readout(&set, rows, &mut scratch, &mut values, &mut status)
        .unwrap();
    add("readout", "", of_values(&values));
    // Readout is encoding, written densely.
    let dense: Vec<f32> = library::parts::dense(&features, sae.d_sae()).concat();
    assert_eq!(bits(&values), bits(&dense));

    let mut out = vec![0.0; rows.rows() * sae.d_out()];
    let inputs = sae.needs_inputs_to_decode().then_some(rows);
    sae.decode(&features, inputs, &mut scratch, &mut out)
        .unwrap();
    add("decode", "", of_values(&out));

    // The rows of the output site; for transcoders some that are as wide.
    let last = sae.d_sae() as u32 - 1;
    let plan = Plan::new("two")
        .edit(Edit::set(0, 2.5))
        .edit(Edit::scale(last, 3.0));
    let plan = sae.compile_plan(&plan).unwrap();
    let mut steered: Vec<f32> = (0..rows.rows() * sae.d_out())
        .map(|i| (i % 7) as f32)
        .collect();
    let mut batch = Batch::new(RowsMut::from_f32(&mut steered, sae.d_out()).unwrap());
    batch.inputs = Some(rows);
    let mut steer_scratch = SteerScratch::new(sae, &plan).unwrap();
    sae.steer(&plan, batch, &mut steer_scratch, &mut Report::new(&plan))
        .unwrap();
    add("steer", "", of_values(&steered));

    add("monitor", "", monitor(sae, &features));
}

/// What a device runs, which is encoding; the verbs after it take its features.
#[cfg(feature = "wgpu")]
fn on_device(
    device: &sae::gpu::Device,
    sae: &Sae<'_>,
    rows: Rows<'_>,
    mut add: impl FnMut(&'static str, &'static str, String),
) -> Result<(), sae::Error> {
    use sae::gpu::{StreamOptions, UploadOptions, WeightFormat};
    let mut scratch = Scratch::new(sae)?;
    for (format, how) in [
        (WeightFormat::Stored, "stored"),
        (WeightFormat::Int8, "int8"),
    ] {
        let model = device.upload(sae, &UploadOptions::default().format(format))?;
        let mut stream = model.stream(&StreamOptions::default().rows(7))?;
        let mut features = Features::new();
        model.encode(sae, rows, &mut stream, &mut scratch, &mut features)?;
        add("encode", how, of_features(&features));
        let mut out = vec![0.0; rows.rows() * sae.d_out()];
        let inputs = sae.needs_inputs_to_decode().then_some(rows);
        sae.decode(&features, inputs, &mut scratch, &mut out)?;
        add("decode", how, of_values(&out));
        add("monitor", how, monitor(sae, &features));
    }
    Ok(())
}

/// The device, or `None` after saying that there is none.
#[cfg(feature = "wgpu")]
fn device() -> Option<sae::gpu::Device> {
    let options = sae::gpu::DeviceOptions::default().software(true);
    let opened = sae::gpu::Device::open(&options);
    if let Err(error) = &opened {
        println!("skipped: backend wgpu ({error})");
        assert!(std::env::var_os("SAE_REQUIRE_TOOLS").is_none(), "{error}");
    }
    opened.ok()
}

#[test]
fn every_verb_gives_the_same_digest_on_every_backend() {
    for level in Level::ALL {
        if !Level::available().any(|available| available == level) {
            println!("skipped: backend {level} (the build or the machine lacks it)");
        }
    }
    #[cfg(feature = "wgpu")]
    let device = device();
    #[cfg(not(feature = "wgpu"))]
    println!("skipped: backend wgpu (this build lacks the feature)");
    let mut runs: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut compared = 0;
    for case in fixture::cases() {
        for (name, given) in digest::runs(&case) {
            let values = many(&case.rows, case.d_in);
            let rows = library::rows(&values, case.d_in);
            let mut digests = Digests::new();
            let mut add = |backend: &str, verb, how: &str, found| {
                *runs.entry((backend.to_string(), verb)).or_default() += 1;
                let by = format!("{backend} {how}");
                digests.entry(verb).or_default().push((by, found));
            };
            for level in Level::available() {
                let stored = library::open(&case.checkpoint, &given, level);
                on_cpu(&stored, rows, |verb, how, found| {
                    add(&format!("{level}, stored"), verb, how, found);
                });
                let options = ScreenKind::Proven.into();
                let prepared = stored.with_screen_options(options).prepare().unwrap();
                on_cpu(&prepared, rows, |verb, how, found| {
                    add(&format!("{level}, prepared"), verb, how, found);
                });
            }
            #[cfg(feature = "wgpu")]
            if let Some(device) = &device {
                let sae = library::open(&case.checkpoint, &given, Level::best());
                let done = on_device(device, &sae, rows, |verb, how, found| {
                    add("wgpu", verb, how, found);
                });
                done.unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            for (verb, found) in &digests {
                let (first, expected) = &found[0];
                for (by, digest) in found {
                    assert_eq!(
                        digest, expected,
                        "{name}: {verb} by {by}, not as by {first}"
                    );
                    compared += 1;
                }
            }
        }
    }
    for ((backend, verb), count) in &runs {
        println!("{backend:20} {verb:8} {count}");
    }
    println!("{compared} digests compared");
    // Five verbs and two more ways to encode, on two states of the weights at each level.
    let cases = runs[&("scalar, stored".to_string(), "decode")];
    let levels = Level::available().count();
    assert!(
        cases >= 49 && compared >= cases * 7 * 2 * levels,
        "{cases} {compared}"
    );
}
