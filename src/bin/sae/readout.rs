//! `sae readout`: a few features' values for every row.

use crate::failure::Failure;
use crate::labels::{self, LabelsArg};
use crate::model::ModelArgs;
use crate::output;
use crate::progress::Progress;
use crate::report::Report;
use crate::rows::RowsFile;
use crate::style::{Style, fit};
use sae::container::npy_write::write_npy;
use sae::{Dtype, Labels, RowStatus, Scratch};
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sae readout CHECKPOINT rows.npy --features 3,17,900
  sae readout CHECKPOINT rows.npy --features 3,17,900 > values.tsv
  sae readout CHECKPOINT rows.npy --features 3,17,900 -o values.npy
  sae readout CHECKPOINT rows.npy --features 3,17,900 --labels batch-0.jsonl.gz

Piped, the table is tab-separated with one heading line, and every value has all its digits. With
--labels, a heading is `3: label`; in a terminal, and with -o, the labels are listed first.";

/// Print the values of a few features for every activation row.
///
/// Only these features' weights are read, unless the activation ranks all features (TopK). A
/// feature that is off is 0. A row with a NaN or an infinity has the values nan and is reported.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Activation rows: npy, float16, float32 or float64 (rounded to float32)
    #[arg(value_name = "ROWS.npy")]
    rows: PathBuf,

    /// Features to read, in the order of the columns
    #[arg(
        short,
        long,
        value_name = "I,J,...",
        required = true,
        value_delimiter = ','
    )]
    features: Vec<u32>,

    #[command(flatten)]
    labels: LabelsArg,

    /// Write the values as npy (float32, [rows, features]) instead of printing them
    #[arg(short, long, value_name = "OUT.npy")]
    output: Option<PathBuf>,
}

/// Rows read out at a time.
const BATCH: usize = 64;

/// What is done with the values of a batch: the first row's number, then the values.
type Take<'t> = dyn FnMut(usize, &[f32]) -> Result<(), Failure> + 't;

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    if let Some(output) = &args.output {
        output::check(output, &[&args.model.path, &args.rows])?;
    }
    let sae = args.model.open()?;
    let labels = args.labels.open(sae.d_sae())?;
    let path = args.model.path.display().to_string();
    let set = sae
        .compile_set(&args.features)
        .map_err(|error| error.in_file(path))?;
    let file = RowsFile::open(&args.rows, sae.d_in())?;
    let rows = file.rows()?;
    let mut scratch = Scratch::new(&sae)?;
    let mut values = vec![0.0_f32; BATCH * set.len()];
    let mut status = [RowStatus::Ok; BATCH];
    let mut report = Report::new(&args.rows, file.narrowed);

    let mut each_batch = |take: &mut Take<'_>| {
        let mut progress = Progress::new("reading out", rows.rows());
        for first in (0..rows.rows()).step_by(BATCH) {
            let part = rows.part(first, BATCH);
            let values = &mut values[..part.rows() * set.len()];
            let status = &mut status[..part.rows()];
            sae.readout(&set, part, &mut scratch, values, status)
                .map_err(|error| error.in_file(args.rows.display().to_string()))?;
            for (status, values) in status.iter().zip(values.chunks_exact_mut(set.len())) {
                report.add(*status);
                if *status == RowStatus::NonFinite {
                    values.fill(f32::NAN);
                }
            }
            take(first, values)?;
            progress.advance(part.rows());
        }
        Ok::<(), Failure>(())
    };

    if let Some(labels) = &labels
        && (args.output.is_some() || style.columns().is_some())
    {
        list(&args.features, labels, style, out)?;
    }
    if let Some(path) = &args.output {
        let mut all = Vec::new();
        each_batch(&mut |_, values| {
            all.extend_from_slice(values);
            Ok(())
        })?;
        let shape = [rows.rows(), set.len()];
        write_npy(path, Dtype::F32, &shape, bytemuck::cast_slice(&all))
            .map_err(|error| error.in_file(path.display().to_string()))?;
    } else {
        let table = Table::new(&args.features, labels.as_ref(), rows.rows(), style);
        table.heading(out)?;
        each_batch(&mut |first, values| {
            for (i, values) in values.chunks_exact(set.len()).enumerate() {
                table.row(out, first + i, values)?;
            }
            Ok(())
        })?;
        out.flush()?;
    }
    report.print();
    Ok(())
}

/// The features that are read, each with its label.
fn list(
    features: &[u32],
    labels: &Labels,
    style: Style,
    out: &mut impl Write,
) -> Result<(), Failure> {
    for &feature in features {
        let label = labels::label(labels, feature);
        match style.columns() {
            None => writeln!(out, "{feature}\t{label}")?,
            Some(columns) => {
                let name = style.key(format!("{feature:>9}"));
                let label = fit(&label, columns.saturating_sub(12).max(20));
                writeln!(out, "{name}  {}", label.trim_end())?;
            }
        }
    }
    Ok(())
}

/// The printed table: aligned in a terminal, tab-separated elsewhere.
struct Table<'f> {
    features: &'f [u32],
    labels: Option<&'f Labels>,
    row_width: usize,
    style: Style,
}

impl<'f> Table<'f> {
    fn new(features: &'f [u32], labels: Option<&'f Labels>, rows: usize, style: Style) -> Self {
        Table {
            features,
            labels,
            row_width: rows.to_string().len().max("row".len()),
            style,
        }
    }

    /// Columns of a feature: room for its name and for `1234.5678`.
    fn width(feature: u32) -> usize {
        feature.to_string().len().max(9)
    }

    fn heading(&self, out: &mut impl Write) -> Result<(), Failure> {
        if self.style.columns().is_none() {
            write!(out, "row")?;
            for feature in self.features {
                write!(out, "\t{feature}")?;
                if let Some(labels) = self.labels {
                    write!(out, ": {}", labels::label(labels, *feature))?;
                }
            }
            return Ok(writeln!(out)?);
        }
        let row = format!("{:>1$}", "row", self.row_width);
        write!(out, "{}", self.style.dim(row))?;
        for &feature in self.features {
            let name = format!("{feature:>0$}", Self::width(feature));
            write!(out, "  {}", self.style.key(name))?;
        }
        Ok(writeln!(out)?)
    }

    fn row(&self, out: &mut impl Write, row: usize, values: &[f32]) -> Result<(), Failure> {
        if self.style.columns().is_none() {
            write!(out, "{row}")?;
            for value in values {
                // Rust writes NaN, the rest of the world reads nan.
                match value.is_nan() {
                    true => write!(out, "\tnan")?,
                    false => write!(out, "\t{value}")?,
                }
            }
            return Ok(writeln!(out)?);
        }
        let number = format!("{row:>0$}", self.row_width);
        write!(out, "{}", self.style.dim(number))?;
        for (&feature, &value) in self.features.iter().zip(values) {
            let width = Self::width(feature);
            if value == 0.0 {
                write!(out, "  {}", self.style.dim(format!("{:>width$}", "·")))?;
            } else if value.is_nan() {
                write!(
                    out,
                    "  {}",
                    self.style.warning(format!("{:>width$}", "nan"))
                )?;
            } else {
                write!(out, "  {value:>width$.4}")?;
            }
        }
        Ok(writeln!(out)?)
    }
}
