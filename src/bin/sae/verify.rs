//! `sae verify`: is a model whole, and are these the rows that it reads?

use crate::failure::Failure;
use crate::model::ModelArgs;
use crate::progress::Progress;
use crate::rows::RowsFile;
use crate::style::Style;
use sae::verify::{Finding, Outcome, VerifyOptions};
use sae::{Error, Sae};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sae verify model.gguf
  sae verify CHECKPOINT rows.npy
  sae verify TRANSCODER inputs.npy --target outputs.npy
  sae verify model.gguf --exhaustive --json | jq .passed

Exit codes: 0 nothing is wrong (there may be warnings), 1 it cannot be verified (the reason is on
stderr), 2 wrong usage, 3 something is wrong.";

/// Verify weights, self-test and, with rows, how well a model reconstructs them.
///
/// Without rows: every weight is finite, thresholds are set, decoder norms, features that can
/// never fire, and of a pack its checksums and self-test. With rows: FVU (the fraction of variance
/// that the reconstruction leaves unexplained; above 1 it is worse than the mean row), L0 (how many
/// features fire on a row) and cosine, with a verdict: a wrong convention and a wrong tensor show
/// here.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Activation rows: npy, float16, float32 or float64 (rounded to float32)
    #[arg(value_name = "ROWS.npy")]
    rows: Option<PathBuf>,

    /// What the reconstructions should be: for a transcoder the rows of its output site
    #[arg(long, value_name = "ROWS.npy", requires = "rows")]
    target: Option<PathBuf>,

    /// How many features should fire on a row [default: what the checkpoint says]
    #[arg(long, value_name = "N", requires = "rows")]
    l0: Option<f64>,

    /// Also build the screen of a pack again and compare every bound: takes as long as packing
    #[arg(long)]
    exhaustive: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    // A checksum that fails is a finding here, not a reason not to open.
    let sae = args.model.open_unchecked()?;
    let rows = match &args.rows {
        Some(path) => Some(RowsFile::open(path, sae.d_in())?),
        None => None,
    };
    let target = match &args.target {
        Some(path) => Some(RowsFile::open(path, sae.d_out())?),
        None => None,
    };
    let mut options = VerifyOptions::default();
    options.l0 = args.l0;
    options.exhaustive = args.exhaustive;
    options.rows = rows.as_ref().map(RowsFile::rows).transpose()?;
    options.targets = target.as_ref().map(RowsFile::rows).transpose()?;
    let path = args.model.path.display().to_string();
    let verification = verify(&sae, &options).map_err(|error| {
        let file = args.rows.as_ref().map(|path| path.display().to_string());
        error.in_file(file.unwrap_or(path))
    })?;
    if args.json {
        let mut json = verification.to_json();
        if let Value::Object(map) = &mut json {
            map.insert("path".into(), json!(args.model.path));
        }
        writeln!(out, "{json:#}")?;
    } else {
        for finding in &verification.findings {
            print(finding, style, out)?;
        }
    }
    match verification.passed() {
        true => Ok(()),
        false => Err(Failure::Verdict),
    }
}

fn verify(sae: &Sae<'_>, options: &VerifyOptions<'_>) -> Result<sae::verify::Verification, Error> {
    let mut bar: Option<Progress> = None;
    sae.verify(options, &mut |_, total| {
        let bar = bar.get_or_insert_with(|| Progress::steps("verifying", total));
        bar.advance(1);
    })
}

fn print(it: &Finding, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let (check, text) = (it.check, &it.text);
    let name = format!("{:<8}", it.outcome.name());
    match it.outcome {
        Outcome::Failed => write!(out, "{}", style.error(name))?,
        Outcome::Warning => write!(out, "{}", style.warning(name))?,
        Outcome::Passed => write!(out, "{}", style.number(name))?,
        _ => write!(out, "{}", style.dim(name))?,
    }
    writeln!(out, "{}: {text}", style.key(check))?;
    Ok(())
}
