//! `sae decompose`: the features that a steering vector is made of.

use crate::control_vector;
use crate::failure::{Failure, named};
use crate::labels::{self, LabelsArg};
use crate::model::ModelArgs;
use crate::output;
use crate::progress::while_waiting;
use crate::rows::{RowsFile, values};
use crate::style::{Style, count, fit};
use sae::model::Pursuit;
use sae::steer::{Decomposition, Projection};
use sae::{Error, Labels};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sae decompose CHECKPOINT vector.npy
  sae decompose CHECKPOINT vectors.npy --row 3 --features 32 --labels batch-0.jsonl.gz
  sae decompose CHECKPOINT control-vector.gguf --layer 12 --json
  sae decompose CHECKPOINT vector.npy --plan plan.json     then: sae steer ... --plan plan.json

What is printed:
  length      how much of the feature's decoder vector, at length 1, is in the sum
  strength    the same in units of the feature's values: what a plan's rule `add` adds
  cosine      of the vector with the feature's decoder vector

Why not encode the vector: it is no activation, and what it takes away of a feature has no code
(arXiv 2411.08790). Piped, the tables are tab-separated.";

/// Print the features that a steering vector is made of, and those it points along and against.
///
/// A signed pursuit on the decoder vectors picks one feature after the other; each step reads the
/// decoder once.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// The vector, as long as the model's outputs: npy, or a control vector of llama.cpp (GGUF)
    #[arg(value_name = "VECTOR")]
    vector: PathBuf,

    /// Which row, if the npy file holds several vectors
    #[arg(long, value_name = "N", conflicts_with = "layer")]
    row: Option<usize>,

    /// Which layer, if the GGUF file holds several vectors
    #[arg(long, value_name = "N")]
    layer: Option<u32>,

    /// Features to decompose into, at most
    #[arg(short = 'k', long = "features", value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    steps: u32,

    /// How the features are found
    #[arg(long, value_enum, default_value_t = Method::Orthogonal)]
    pursuit: Method,

    /// Only add features, never take any away
    #[arg(long)]
    non_negative: bool,

    /// Features to list that the vector points along the most, and against
    #[arg(long, value_name = "N", default_value_t = 8)]
    top: usize,

    #[command(flatten)]
    labels: LabelsArg,

    /// Write a plan that adds the features found
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Method {
    /// Best lengths for all features found so far, after each step
    Orthogonal,
    /// One step along the gradient instead: cheaper, as in `dictionary_learning`
    Gradient,
    /// Each feature on what the ones before leave
    Matching,
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let sae = args.model.open()?;
    let names = args.labels.open(sae.d_sae())?;
    let vector = read(args, sae.d_out())?;
    if let Some(path) = &args.plan {
        output::check(path, &[&args.model.path, &args.vector])?;
    }
    let (steps, signed) = (args.steps as usize, !args.non_negative);
    let pursuit = match args.pursuit {
        Method::Orthogonal => Pursuit::orthogonal(steps, signed),
        Method::Gradient => Pursuit::gradient(steps, signed),
        Method::Matching if signed => Pursuit::matching_signed(steps),
        Method::Matching => Pursuit::matching(steps, 0.0, false),
    };
    let work = || sae.decompose(&vector, pursuit, args.top);
    let found = named(&args.vector, while_waiting("decomposing", work))?;
    if let Some(path) = &args.plan {
        let name = args.vector.display().to_string();
        let text = format!("{:#}\n", found.plan(&name).to_json());
        let written = std::fs::write(path, text).map_err(|error| Error::Io {
            operation: "write",
            message: error.to_string(),
        });
        named(path, written)?;
    }
    match args.json {
        true => writeln!(out, "{:#}", to_json(&found, names.as_ref()))?,
        false => print(&found, names.as_ref(), style, out)?,
    }
    Ok(())
}

/// The vector that was asked for.
fn read(args: &Args, width: usize) -> Result<Vec<f32>, Failure> {
    let path = &args.vector;
    let several = |held: String| {
        let error = Error::InvalidArgument {
            what: "row",
            expected: "one of the file's: --row N".into(),
            found: held,
        };
        Failure::from(error.in_file(path.display().to_string()))
    };
    let is_gguf = path
        .extension()
        .is_some_and(|extension| extension == "gguf");
    if is_gguf {
        return control_vector::read(path, args.layer);
    }
    if args.layer.is_some() {
        return Err(several("--layer, which is for GGUF files".into()));
    }
    let file = RowsFile::open(path, width)?;
    let rows = file.rows()?;
    let only = (rows.rows() == 1).then_some(0);
    match args.row.or(only).filter(|&row| row < rows.rows()) {
        Some(row) => Ok(values(rows.part(row, 1))),
        None => Err(several(format!("{} rows", rows.rows()))),
    }
}

fn to_json(found: &Decomposition, names: Option<&Labels>) -> Value {
    let projection = |on: &Projection| {
        let mut value = json!({
            "feature": on.feature,
            "cosine": on.cosine,
            "projection": on.projection,
        });
        if let (Some(names), Some(object)) = (names, value.as_object_mut()) {
            object.insert("label".into(), labels::label(names, on.feature).into());
        }
        value
    };
    let parts = found.parts.iter().map(|part| {
        let mut value = projection(&part.on);
        if let Some(object) = value.as_object_mut() {
            object.insert("length".into(), part.length.into());
            object.insert("strength".into(), json!(part.strength));
        }
        value
    });
    let list = |list: &[Projection]| list.iter().map(projection).collect::<Vec<_>>();
    json!({
        "norm": found.norm,
        "cosine": found.cosine,
        "explained": found.explained,
        "parts": parts.collect::<Vec<_>>(),
        "along": list(&found.along),
        "against": list(&found.against),
    })
}

fn print(
    found: &Decomposition,
    names: Option<&Labels>,
    style: Style,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let table = Table { names, style };
    let share = 100.0 * found.explained;
    if style.columns().is_some() {
        writeln!(
            out,
            "{}  {} features make up {share:.1} % of the square of a vector of length {:.4}; \
             cosine {:.4}",
            style.title("made of"),
            count(found.parts.len() as u64),
            found.norm,
            found.cosine,
        )?;
    } else {
        writeln!(
            out,
            "norm\t{}\nexplained\t{}\ncosine\t{}",
            found.norm, found.explained, found.cosine
        )?;
    }
    table.heading(out, &["length", "strength", "cosine"])?;
    for part in &found.parts {
        let numbers = [
            part.length,
            part.strength.unwrap_or(f64::NAN),
            part.on.cosine,
        ];
        table.line(out, part.on.feature, &numbers)?;
    }
    for (title, list) in [("along", &found.along), ("against", &found.against)] {
        writeln!(out)?;
        writeln!(out, "{}", style.title(title))?;
        table.heading(out, &["cosine", "projection"])?;
        for on in list {
            table.line(out, on.feature, &[on.cosine, on.projection])?;
        }
    }
    Ok(())
}

/// Tables: aligned in a terminal, tab-separated elsewhere.
struct Table<'l> {
    names: Option<&'l Labels>,
    style: Style,
}

impl Table<'_> {
    fn heading(&self, out: &mut impl Write, columns: &[&str]) -> Result<(), Failure> {
        let terminal = self.style.columns().is_some();
        match terminal {
            true => write!(out, "{}", self.style.dim(format!("{:>9}", "feature")))?,
            false => write!(out, "feature")?,
        }
        for column in columns {
            match terminal {
                true => write!(out, "  {}", self.style.dim(format!("{column:>10}")))?,
                false => write!(out, "\t{column}")?,
            }
        }
        if self.names.is_some() {
            match terminal {
                true => write!(out, "  {}", self.style.dim("label"))?,
                false => write!(out, "\tlabel")?,
            }
        }
        Ok(writeln!(out)?)
    }

    fn line(&self, out: &mut impl Write, feature: u32, numbers: &[f64]) -> Result<(), Failure> {
        let columns = self.style.columns();
        match columns {
            Some(_) => write!(out, "{}", self.style.key(format!("{feature:>9}")))?,
            None => write!(out, "{feature}")?,
        }
        for number in numbers {
            match columns {
                Some(_) => write!(out, "  {number:>10.4}")?,
                None => write!(out, "\t{number}")?,
            }
        }
        if let Some(names) = self.names {
            let label = labels::label(names, feature);
            match columns {
                Some(columns) => {
                    let used = 11 + numbers.len() * 12;
                    let label = fit(&label, columns.saturating_sub(used).max(20));
                    write!(out, "  {}", label.trim_end())?;
                }
                None => write!(out, "\t{label}")?,
            }
        }
        Ok(writeln!(out)?)
    }
}
