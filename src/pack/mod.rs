//! Writing packs: one GGUF file with everything that a model is, in the layout that runs fastest.
//!
//! A pack holds the weights with one row per feature, the vectors that publishers' conventions
//! ended in, where the rows come from, the SHA-256 of the files it was made from, and a self-test.
//! [`Sae::open`] maps it without a copy and gives the bits of the source, unless weights were
//! narrowed, which must be asked for and is recorded. The form is described in the source of
//! `convention::pack`; tools that list GGUF files list it.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sae::pack::{self, PackModel, PackOptions};
//! use sae::{OpenOptions, Sae};
//! # let folder = std::env::temp_dir().join(format!("sae-pack-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let (name, bytes, config) = sae::doc_example::tiny();
//! # std::fs::write(folder.join(name), bytes)?;
//! # std::fs::write(folder.join("cfg.json"), config)?;
//! # let (source, out) = (folder.clone(), folder.join("tiny.gguf"));
//! let sae = Sae::open(&source, &OpenOptions::default())?;
//! let mut model = PackModel::new("tiny", &sae);
//! model.sources = pack::source_files(&source, &mut |_| {})?;
//! let report = pack::write(&out, &[model], &PackOptions::default(), &mut |_| {})?;
//! let packed = Sae::open(&out, &OpenOptions::default().self_test(true))?;
//! assert!(report.narrowed.is_empty());
//! assert_eq!(packed.d_sae(), sae.d_sae());
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! Writing needs memory for one block of rows ([`BLOCK_BYTES`]), whatever the size of the model; with a
//! screen then for the screen, at most [`MAX_SCREEN_PERCENT`] hundredths of the encoder in f32.
//! The file appears under its name when it is complete and synced: who is killed in between leaves
//! the old file, or none.

mod keys;
mod rows;
mod source;
mod weights;

pub use source::source_files;
pub use weights::{BLOCK_BYTES, Narrowed};

use crate::container::Check;
use crate::container::gguf_write::{GgufFile, GgufHeader, GgufValue};
use crate::convention::pack as form;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::WeightType;
use crate::model::canonical::{self, Values};
use crate::model::{Activation, Layout, Matrix, Sae, ScreenKind, SourceFile};
use crate::open::OpenOptions;
use crate::rows::Rows;
use crate::screen::Screen;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::path::Path;

/// Rows of a self-test that is not given.
pub const SELF_TEST_ROWS: usize = 4;

/// How a pack is written.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PackOptions {
    /// Format of the encoder's weights, and of a GLU's gate; that of the source if `None`.
    pub encoder: Option<WeightType>,
    /// Format of the decoder's weights; that of the source if `None`. A pursuit has no others.
    pub decoder: Option<WeightType>,
    /// Rows for the self-test, `[n, d_in]`; made up from the encoder if empty.
    pub self_test_rows: Vec<f32>,
}

/// The most bytes of a screen in a pack ([`Sae::screen_options`] say which one is built), in hundredths of the encoder's bytes in f32. A larger one
/// is left out: it would save too little.
pub const MAX_SCREEN_PERCENT: u64 = 30;

/// A model that goes into a pack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PackModel<'s, 'a> {
    /// What it is called in a pack with several models.
    pub name: String,
    /// The model, as it was opened.
    pub sae: &'s Sae<'a>,
    /// The files that it was opened from ([`source_files`]).
    pub sources: Vec<SourceFile>,
    /// What was given when it was opened ([`OpenOptions::set`]).
    pub settings: Vec<(String, String)>,
}

impl<'s, 'a> PackModel<'s, 'a> {
    /// A model without a record of its sources.
    pub fn new(name: impl Into<String>, sae: &'s Sae<'a>) -> Self {
        PackModel {
            name: name.into(),
            sae,
            sources: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done: `hashing`, `writing`, `building the screen`.
    pub what: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PackReport {
    /// Bytes of the file.
    pub bytes: u64,
    /// Matrices whose weights were narrowed.
    pub narrowed: Vec<Narrowed>,
    /// Rows of all self-tests.
    pub self_test_rows: usize,
    /// Features that fire on them.
    pub self_test_features: usize,
    /// Bytes of the screens.
    pub screen_bytes: u64,
    /// How many models have one.
    pub screens: usize,
    /// For each model its name, and which screen it has and why, or why none.
    pub screen_why: Vec<(String, String)>,
}

/// Writes models into one pack.
///
/// Each model's self-test is computed with the packed weights, through the file itself; where
/// nothing was narrowed, the source must give the same bits.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no models, two of one name, an ensemble, or a format
/// that does not apply; [`Error::BadValue`] for a weight that is NaN, infinite, or too large for
/// the format asked for; [`Error::Length`] for self-test rows of another width;
/// [`Error::SelfTest`] if the pack does not give what the source gives; [`Error::Io`].
pub fn write(
    path: &Path,
    models: &[PackModel<'_, '_>],
    options: &PackOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<PackReport, Error> {
    check(models, options)?;
    let mut header = GgufHeader::new();
    keys::of_file(&mut header, models, options)?;
    let several = models.len() > 1;
    let prefix = |i: usize| match several {
        true => alloc::format!("{i}."),
        false => String::new(),
    };
    for (i, model) in models.iter().enumerate() {
        let keys = alloc::format!("{}.{}", form::ARCHITECTURE, prefix(i));
        keys::of_model(&mut header, &keys, model, options)?;
        declare(&mut header, &prefix(i), model, options)?;
    }
    for i in 0..models.len() {
        for name in form::SCREEN {
            if wants_screen(models, i) {
                header.late_tensor(&alloc::format!("{}{name}", prefix(i)), Dtype::I8, 1)?;
            }
        }
        let [rows, ends, indices, values, outputs] = form::SELF_TEST;
        for (name, dtype, dimensions) in [
            (rows, Dtype::F32, 2),
            (ends, Dtype::I64, 1),
            (indices, Dtype::I32, 1),
            (values, Dtype::F32, 1),
            (outputs, Dtype::F32, 2),
        ] {
            let name = alloc::format!("{}{name}", prefix(i));
            header.late_tensor(&name, dtype, dimensions)?;
        }
    }
    header.checksums(form::CRC32)?;

    let mut file = header.create(path)?;
    let mut report = PackReport::default();
    let all = models.iter();
    let total = all.map(|model| packed_bytes(model.sae, options)).sum();
    let mut work = Work {
        file: &mut file,
        progress,
        done: 0,
        total,
    };
    for model in models {
        work.model(model, options, &mut report)?;
    }
    for (i, model) in models.iter().enumerate() {
        let open = |file: &mut GgufFile| {
            let mut open = OpenOptions::default().level(model.sae.level());
            open.check = Check::Vectors;
            if several {
                open = open.set("model", i);
            }
            Sae::open(file.flush()?, &open)
        };
        if wants_screen(models, i) {
            let mut packed = open(&mut file)?;
            packed.set_screen_options(*model.sae.screen_options());
            progress(Progress {
                what: "building the screen",
                done: total,
                total,
            });
            packed.build_screen(&[])?;
            let (bytes, why) = screen(&mut file, &prefix(i), &packed)?;
            report.screen_bytes += bytes;
            report.screens += usize::from(bytes > 0);
            report.screen_why.push((model.name.clone(), why));
        }
        let packed = open(&mut file)?;
        let (rows, features) = self_test(&mut file, &prefix(i), model, &packed, options)?;
        report.self_test_rows += rows;
        report.self_test_features += features;
    }
    file.finish()?;
    let size = std::fs::metadata(path).map_err(|error| crate::mmap::io_error("read", &error))?;
    report.bytes = size.len();
    Ok(report)
}

/// Whether a screen is to be built for a model, if it pays.
fn wants_screen(models: &[PackModel<'_, '_>], index: usize) -> bool {
    models.get(index).is_some_and(|model| {
        let none = model.sae.screen_options().kind == ScreenKind::None;
        let blocks = model.sae.parts().encoder.layout() == Layout::Blocks;
        !none && !blocks
    })
}

/// Writes a model's screen, or nothing in its place. Says how large it is, and why it is as it is.
fn screen(file: &mut GgufFile, prefix: &str, packed: &Sae<'_>) -> Result<(u64, String), Error> {
    let mut why = packed.description().screen.text();
    let encoder = packed.d_sae() as u64 * packed.d_in() as u64 * 4;
    let most = encoder * MAX_SCREEN_PERCENT / 100;
    let size = |screen: &Screen<'_>| screen.stored_bytes().iter().map(|&n| n as u64).sum::<u64>();
    let screen = packed.screen().filter(|screen| {
        let fits = size(screen) <= most;
        if !fits {
            why = alloc::format!("none: {} bytes, at most {most} are worth it", size(screen));
        }
        fits
    });
    let (mut header, mut vectors, mut rest) = (Vec::new(), Vec::new(), [&[][..]; 3]);
    if let Some(screen) = screen {
        header = screen.stored_header().to_vec();
        vectors = screen.stored_vectors()?;
        rest = screen.stored_sections();
    }
    let [basis, panels, codes] = rest;
    let mut bytes = 0;
    for (name, part) in form::SCREEN
        .into_iter()
        .zip([&header, &vectors, basis, panels, codes])
    {
        file.shape(&alloc::format!("{prefix}{name}"), &[part.len()])?;
        file.write(part)?;
        bytes += part.len() as u64;
    }
    Ok((bytes, why))
}

fn check(models: &[PackModel<'_, '_>], options: &PackOptions) -> Result<(), Error> {
    let wrong = |what: &'static str, expected: &str, found: &str| Error::InvalidArgument {
        what,
        expected: expected.into(),
        found: found.into(),
    };
    if models.is_empty() {
        return Err(wrong("models of a pack", "at least one", "none"));
    }
    for (i, model) in models.iter().enumerate() {
        let parts = model.sae.parts();
        model.sae.one_vector_each("models of a pack")?;
        match parts.activation {
            Activation::Ensemble(_) => {
                let expected = "models of their own (pack the members)";
                let found = parts.activation.describe();
                return Err(wrong("models of a pack", expected, &found));
            }
            Activation::Pursuit(_) if options.encoder.is_some() => {
                let expected = "none: a pursuit has no encoder, its dictionary is the decoder";
                return Err(wrong("format of the encoder", expected, "one"));
            }
            _ => {}
        }
        if models.iter().take(i).any(|other| other.name == model.name) {
            return Err(wrong("names of models", "all different", &model.name));
        }
        let rows = options.self_test_rows.len();
        if !rows.is_multiple_of(model.sae.d_in()) {
            return Err(Error::Length {
                what: "values in rows of the self-test",
                expected: (rows / model.sae.d_in() * model.sae.d_in()) as u64,
                found: rows as u64,
            });
        }
    }
    Ok(())
}

/// The format in which a matrix is stored.
fn format(name: &str, matrix: &Matrix<'_>, options: &PackOptions) -> WeightType {
    let wanted = match name {
        canonical::W_ENC | canonical::W_GLU => options.encoder,
        canonical::W_DEC => options.decoder,
        _ => None,
    };
    wanted.unwrap_or(matrix.weight_type())
}

fn dtype(format: WeightType) -> Dtype {
    match format {
        WeightType::F32 => Dtype::F32,
        WeightType::F16 => Dtype::F16,
        WeightType::BF16 => Dtype::BF16,
    }
}

/// The pieces of a matrix, with their names.
fn pieces<'m, 'a>(name: &str, matrix: &'m Matrix<'a>) -> Vec<(String, &'m Matrix<'a>)> {
    match matrix.layout() {
        Layout::Rows | Layout::Columns => Vec::from([(name.to_string(), matrix)]),
        Layout::Blocks => {
            let blocks = matrix.blocks().iter().enumerate();
            let named = |(i, block): (usize, &'m crate::model::Block<'a>)| {
                (alloc::format!("{name}.{i}"), &block.matrix)
            };
            blocks.map(named).collect()
        }
    }
}

/// Bytes that streaming a model writes.
fn packed_bytes(sae: &Sae<'_>, options: &PackOptions) -> u64 {
    let bytes = |(name, matrix): (&str, &Matrix<'_>)| {
        let weights = matrix.size_bytes() / matrix.weight_type().size();
        (weights * format(name, matrix, options).size()) as u64
    };
    canonical::matrices(sae.parts())
        .into_iter()
        .map(bytes)
        .sum()
}

/// Lists the tensors of a model; [`Work::model`] writes their data in the same order.
fn declare(
    header: &mut GgufHeader,
    prefix: &str,
    model: &PackModel<'_, '_>,
    options: &PackOptions,
) -> Result<(), Error> {
    for (name, values) in canonical::vectors(model.sae.parts()) {
        let dtype = match values.fit_f32() {
            true => Dtype::F32,
            false => Dtype::F64,
        };
        header.tensor(&alloc::format!("{prefix}{name}"), dtype, &[values.len()])?;
    }
    for (name, matrix) in canonical::matrices(model.sae.parts()) {
        let dtype = dtype(format(name, matrix, options));
        for (name, piece) in pieces(name, matrix) {
            let shape = [piece.features(), piece.width()];
            header.tensor(&alloc::format!("{prefix}{name}"), dtype, &shape)?;
        }
    }
    Ok(())
}

/// A file that is being written, and how far it is.
struct Work<'w> {
    file: &'w mut GgufFile,
    progress: &'w mut dyn FnMut(Progress),
    done: u64,
    total: u64,
}

impl Work<'_> {
    fn model(
        &mut self,
        model: &PackModel<'_, '_>,
        options: &PackOptions,
        report: &mut PackReport,
    ) -> Result<(), Error> {
        for (_, values) in canonical::vectors(model.sae.parts()) {
            self.file.write(&vector_bytes(values))?;
        }
        for (name, matrix) in canonical::matrices(model.sae.parts()) {
            let to = format(name, matrix, options);
            let mut narrowed = Narrowed::new(name, matrix.weight_type(), to);
            for (_, piece) in pieces(name, matrix) {
                weights::stream(piece, to, &mut narrowed, &mut |bytes| {
                    self.file.write(bytes)?;
                    self.done += bytes.len() as u64;
                    (self.progress)(Progress {
                        what: "writing",
                        done: self.done,
                        total: self.total,
                    });
                    Ok(())
                })?;
            }
            if narrowed.is_narrower() {
                report.narrowed.push(narrowed);
            }
        }
        Ok(())
    }
}

fn vector_bytes(values: Values<'_>) -> Vec<u8> {
    let f32s = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
        values.flat_map(f32::to_le_bytes).collect()
    };
    match values {
        Values::F32(values) => f32s(&mut values.iter().copied()),
        Values::F64(values) if Values::F64(values).fit_f32() => {
            f32s(&mut values.iter().map(|&value| value as f32))
        }
        Values::F64(values) => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

/// Computes and writes a model's self-test, with the weights and the screen that the file holds by
/// now. Says how many rows it has and how many features fire.
fn self_test(
    file: &mut GgufFile,
    prefix: &str,
    model: &PackModel<'_, '_>,
    packed: &Sae<'_>,
    options: &PackOptions,
) -> Result<(usize, usize), Error> {
    let source = model.sae;
    let made_up = match options.self_test_rows.is_empty() {
        true => rows::of(source)?,
        false => Vec::new(),
    };
    let values = match made_up.is_empty() {
        true => &options.self_test_rows,
        false => &made_up,
    };
    let rows = Rows::from_f32(values, source.d_in())?;
    let (features, outputs) = packed.encode_and_decode(rows)?;
    if packed
        .parts()
        .about
        .pack
        .as_ref()
        .is_some_and(|pack| pack.lossy.is_empty())
    {
        let (expected, expected_outputs) = source.encode_and_decode(rows)?;
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let same = expected == features && bits(&expected_outputs) == bits(&outputs);
        if !same {
            return Err(Error::SelfTest {
                row: 0,
                expected: "what the source gives".into(),
                found: "other features or reconstructions".into(),
            });
        }
    }
    let ends = features.row_ends().iter();
    let ends: Vec<u8> = ends.flat_map(|&end| (end as i64).to_le_bytes()).collect();
    let (n, total) = (rows.rows(), features.len());
    let [of_rows, of_ends, of_indices, of_values, of_outputs] = form::SELF_TEST;
    for (name, shape, bytes) in [
        (
            of_rows,
            &[n, source.d_in()][..],
            bytemuck::cast_slice(values),
        ),
        (of_ends, &[n], &ends),
        (
            of_indices,
            &[total],
            bytemuck::cast_slice(features.indices()),
        ),
        (of_values, &[total], bytemuck::cast_slice(features.values())),
        (
            of_outputs,
            &[n, source.d_out()],
            bytemuck::cast_slice(&outputs),
        ),
    ] {
        file.shape(&alloc::format!("{prefix}{name}"), shape)?;
        file.write(bytes)?;
    }
    Ok((n, total))
}

/// A text value.
fn text(text: impl Into<String>) -> GgufValue {
    GgufValue::Text(text.into())
}
