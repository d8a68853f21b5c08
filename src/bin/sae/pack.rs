//! `sae pack`: one GGUF file, rows per feature, with a self-test.

use crate::failure::Failure;
use crate::model::ModelArgs;
use crate::output;
use crate::progress::{BytesProgress, while_waiting};
use crate::rows::{RowsFile, values};
use crate::style::{bytes, count};
use sae::kernels::WeightType;
use sae::model::SourceFile;
use sae::pack::{self, Narrowed, PackModel, PackOptions, PackReport};
use sae::{Error, Sae};
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  sae pack layer_12/width_16k/average_l0_82 -o layer_12.gguf
  sae pack CHECKPOINT -o small.gguf --encoder bf16 --decoder bf16
  sae pack FOLDER -o all.gguf             every model below FOLDER in one file: open one of them
                                          with --set model=NAME
  sae pack FOLDER -o PACKS --each         one file for each of them (or for each layer of a
                                          cross-layer transcoder), in the folder PACKS

The file is written under a temporary name, synced and renamed; a file of that name is replaced.";

/// Pack a checkpoint into one file that maps with one row per feature.
///
/// The pack gives the same features bit for bit, unless --encoder or --decoder narrow the weights;
/// that is recorded, and `sae inspect` shows it. It needs no side-car: what was given with --set
/// is in it. Every weight is checked on the way, and a self-test is added, which `sae verify` runs.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// File to write; with --each the folder to write into
    #[arg(short, long, value_name = "OUT.gguf")]
    output: PathBuf,

    /// Number format of the encoder [default: that of the checkpoint]
    #[arg(long, value_enum, value_name = "FORMAT")]
    encoder: Option<Format>,

    /// Number format of the decoder [default: that of the checkpoint]
    #[arg(long, value_enum, value_name = "FORMAT")]
    decoder: Option<Format>,

    /// Rows for the self-test, the first 8 of a file: real activations test more than the rows
    /// that are made up without it
    #[arg(long, value_name = "ROWS.npy")]
    rows: Option<PathBuf>,

    /// Write one file for each model of a folder, or for each layer of a cross-layer transcoder
    #[arg(long)]
    each: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    F32,
    F16,
    Bf16,
}

impl Format {
    fn weight_type(self) -> WeightType {
        match self {
            Format::F32 => WeightType::F32,
            Format::F16 => WeightType::F16,
            Format::Bf16 => WeightType::BF16,
        }
    }
}

/// Most rows that are taken from `--rows`.
const ROWS: usize = 8;

/// A model that is opened, with its record.
struct Opened {
    name: String,
    sae: Sae<'static>,
    sources: Vec<SourceFile>,
    settings: Vec<(String, String)>,
}

impl Opened {
    fn pack_model(&self) -> PackModel<'_, 'static> {
        let mut model = PackModel::new(&self.name, &self.sae);
        model.sources.clone_from(&self.sources);
        model.settings.clone_from(&self.settings);
        model
    }
}

pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let path = &args.model.path;
    if args.each {
        std::fs::create_dir_all(&args.output).map_err(|error| {
            let message = error.to_string();
            let operation = "write";
            Error::Io { operation, message }.in_file(args.output.display().to_string())
        })?;
    } else {
        check_output(args)?;
    }
    let checkpoints = Sae::checkpoints(path)?;
    let mut packed = Vec::new();
    for checkpoint in &checkpoints {
        let name = name_of(path, checkpoint);
        let layers = match args.each {
            true => layers_of(args, checkpoint)?,
            false => 0,
        };
        let settings: Vec<Vec<(String, String)>> = match layers {
            0 => vec![Vec::new()],
            layers => (0..layers)
                .map(|layer| vec![("layer".into(), layer.to_string())])
                .collect(),
        };
        let sources = hashed(checkpoint)?;
        for more in settings {
            let options = args.model.options(&more);
            let open = || Sae::open(checkpoint, &options);
            let sae = while_waiting("opening the checkpoint", open)?;
            let layer = more
                .first()
                .map(|(_, layer)| format!("{name}.layer_{layer}"));
            let opened = Opened {
                name: layer.unwrap_or_else(|| name.clone()),
                sae,
                sources: sources.clone(),
                settings: options.set,
            };
            if args.each {
                let file = format!("{}.gguf", opened.name.replace(['/', '\\'], "."));
                write(args, &args.output.join(file), &[opened], out)?;
            } else {
                packed.push(opened);
            }
        }
    }
    match args.each {
        true => Ok(()),
        false => write(args, &args.output, &packed, out),
    }
}

/// The output may lie in the checkpoint's folder, but must not be one of its files.
fn check_output(args: &Args) -> Result<(), Error> {
    let inputs = [args.rows.as_deref(), Some(args.model.path.as_path())];
    let inputs: Vec<&Path> = inputs
        .into_iter()
        .flatten()
        .filter(|path| path.is_file())
        .collect();
    output::check(&args.output, &inputs)?;
    if args.model.path.is_dir() && args.output.exists() {
        let inputs: Vec<PathBuf> = Sae::checkpoints(&args.model.path)?
            .iter()
            .map(Sae::files)
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        output::check(&args.output, &inputs)?;
    }
    Ok(())
}

/// How many layers a cross-layer transcoder has; 0 for another model.
fn layers_of(args: &Args, checkpoint: &Path) -> Result<usize, Error> {
    let sae = Sae::open(checkpoint, &args.model.options(&[]))?;
    let whole = sae.description().convention == "cross_layer_transcoder" && sae.input_sites() > 1;
    Ok(if whole { sae.input_sites() } else { 0 })
}

fn hashed(checkpoint: &Path) -> Result<Vec<SourceFile>, Error> {
    let mut bar = BytesProgress::new();
    pack::source_files(checkpoint, &mut |progress| bar.show(progress))
}

/// What a model is called: its path below the folder that was given, without the names that every
/// checkpoint has.
fn name_of(root: &Path, checkpoint: &Path) -> String {
    let below = checkpoint.strip_prefix(root).unwrap_or(checkpoint);
    let file = checkpoint.file_name().unwrap_or_default().to_string_lossy();
    let generic = [
        "sae_weights.safetensors",
        "params.npz",
        "params.safetensors",
        "sae.safetensors",
        "ae.pt",
        "sae.pt",
    ];
    let folder = below
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let name = match folder {
        _ if below.as_os_str().is_empty() => root.file_name().unwrap_or_default().into(),
        Some(folder) if root.is_dir() && generic.contains(&file.as_ref()) => folder.to_path_buf(),
        _ if root.is_dir() => below.with_extension(""),
        _ => checkpoint.file_stem().unwrap_or_default().into(),
    };
    let name = name.to_string_lossy().replace('\\', "/");
    match name.as_str() {
        "" => "model".into(),
        _ => name,
    }
}

fn write(args: &Args, path: &Path, models: &[Opened], out: &mut impl Write) -> Result<(), Failure> {
    let mut options = PackOptions::default();
    options.encoder = args.encoder.map(Format::weight_type);
    options.decoder = args.decoder.map(Format::weight_type);
    if let (Some(rows), Some(first)) = (&args.rows, models.first()) {
        options.self_test_rows = first_rows(rows, first.sae.d_in())?;
    }
    let models: Vec<PackModel<'_, '_>> = models.iter().map(Opened::pack_model).collect();
    let mut bar = BytesProgress::new();
    let report = pack::write(path, &models, &options, &mut |progress| bar.show(progress));
    drop(bar);
    let report = report.map_err(|error| error.in_file(path.display().to_string()))?;
    summary(path, models.len(), &report, out)
}

/// The first rows of a file, in f32.
fn first_rows(path: &Path, d_in: usize) -> Result<Vec<f32>, Error> {
    let file = RowsFile::open(path, d_in)?;
    Ok(values(file.rows()?.part(0, ROWS)))
}

fn summary(
    path: &Path,
    models: usize,
    report: &PackReport,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let models = match models {
        1 => String::new(),
        models => format!(", {models} models"),
    };
    let screen = match report.screens {
        0 => "no screen".into(),
        _ => format!("{} of it screen", bytes(report.screen_bytes)),
    };
    writeln!(
        out,
        "{}: {}{models}, {screen}; self-test: {} rows, {} features",
        path.display(),
        bytes(report.bytes),
        report.self_test_rows,
        report.self_test_features,
    )?;
    for (name, why) in &report.screen_why {
        writeln!(out, "screen of {name}: {why}")?;
    }
    for narrowed in &report.narrowed {
        writeln!(out, "{}", lossy(narrowed))?;
    }
    Ok(())
}

fn lossy(it: &Narrowed) -> String {
    format!(
        "lossy: {} {} to {}: {} of {} weights changed, by at most {:.3e} (largest weight {:.3e})",
        it.matrix,
        it.from.name(),
        it.to.name(),
        count(it.changed),
        count(it.weights),
        it.largest_error,
        it.largest_weight,
    )
}
