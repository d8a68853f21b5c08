//! `sae steer`: rows edited by plans.

use crate::control_vector;
use crate::failure::{Failure, named};
use crate::labels;
use crate::model::ModelArgs;
use crate::output;
use crate::progress::while_waiting;
use crate::row_infos;
use crate::rows::RowsFile;
use crate::style::Style;
use sae::container::npy_write::write_npy;
use sae::control_vector::ControlVector;
use sae::steer::{
    Batch, CompiledPlan, Conflicts, Edit, Outcome, Plan, Report, Statistics, SteerScratch,
};
use sae::{Error, RowsMut, Sae};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  sae steer CHECKPOINT rows.npy --plan plan.json -o steered.npy --report
  sae steer CHECKPOINT rows.npy --plan plan.json --dry-run
  sae steer CHECKPOINT rows.npy --plan a.json --plan b.json --conflicts first -o steered.npy
  sae steer CHECKPOINT rows.npy --plan plan.json --labels 20-gemmascope-res-16k -o steered.npy
  sae steer TRANSCODER mlp_out.npy --inputs mlp_in.npy --plan plan.json -o steered.npy
  sae steer CHECKPOINT block_out.npy --plan saeuron.json --infos steps.json -o steered.npy
  sae steer CHECKPOINT --plan plan.json --control-vector vector.gguf   for llama.cpp

A plan:
  {\"edits\": [{\"feature\": 1203, \"rule\": \"set\", \"strength\": 8.5}], \"rows\": {\"skip_first\": 1}}

A control vector is for plans that add the same vector to every row (the rule `add`, no conditions,
filters or budget). llama.cpp adds it behind one block; one file for each SAE, which it reads
together (`--control-vector` again). `sae decompose` reads such files too.";

/// Edit features of activation rows by plans.
///
/// The rows are one sequence: the first has position 0. Rows that no edit changes are written as
/// they were, bit for bit; so are rows with a NaN or an infinity, and rows that would overflow.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Activation rows at the model's output site: npy, float16, float32 or float64 (rounded to
    /// float32)
    #[arg(value_name = "ROWS.npy", required_unless_present = "control_vector")]
    rows: Option<PathBuf>,

    /// Plan to apply, JSON; can be repeated
    #[arg(
        long = "plan",
        value_name = "PLAN.json",
        required_unless_present = "add_control_vector"
    )]
    plans: Vec<PathBuf>,

    /// File to write: the edited rows, in the format of ROWS.npy
    #[arg(
        short,
        long,
        value_name = "OUT.npy",
        requires = "rows",
        required_unless_present_any = ["dry_run", "control_vector"]
    )]
    output: Option<PathBuf>,

    /// File to write: the vector that the plans add to every row, as a control vector of llama.cpp
    #[arg(long, value_name = "OUT.gguf")]
    control_vector: Option<PathBuf>,

    /// A control vector of llama.cpp to add to every row as well; can be repeated
    #[arg(long, value_name = "VECTOR.gguf")]
    add_control_vector: Vec<PathBuf>,

    /// The block behind which llama.cpp adds control vectors, from 1 [default: from the
    /// checkpoint's site; the only one of a file that is added]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    layer: Option<u32>,

    /// The language model's architecture in llama.cpp's words, to be noted in the control vector
    #[arg(
        long,
        value_name = "NAME",
        requires = "control_vector",
        default_value = ""
    )]
    model_hint: String,

    /// Activation rows at the input site, where it is another one (transcoders)
    #[arg(long, value_name = "INPUTS.npy", requires = "rows")]
    inputs: Option<PathBuf>,

    /// Activation rows at the input site, for plans with the rule `from_source`: row i takes from
    /// their row i, if --infos does not say another
    #[arg(long, value_name = "SOURCES.npy", requires = "rows")]
    sources: Option<PathBuf>,

    /// What is known of the rows: a JSON list with an object for each, with any of position, stage
    /// (prompt, generation), last, class, phase, factor (of the change), plan (the only one, from 0;
    /// null: none) and source [default: one sequence from position 0 on]
    #[arg(long, value_name = "INFOS.json", requires = "rows")]
    infos: Option<PathBuf>,

    /// Statistics of features, for strengths relative to a maximum or a mean: JSON as in a plan,
    /// or what `sae monitor --stats` wrote; those in a plan win
    #[arg(long, value_name = "STATISTICS.json")]
    statistics: Option<PathBuf>,

    /// Labels with statistics, for the same: Neuronpedia's export of this SAE (the folder
    /// `features` or one above it, a file of it, or what its API says); those of a plan and of
    /// --statistics win
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// What happens where several plans edit one feature of a row
    #[arg(long, value_enum, default_value_t = ConflictsArg::Refuse)]
    conflicts: ConflictsArg,

    /// Print what was done, as JSON
    #[arg(long, requires = "rows")]
    report: bool,

    /// Change nothing, and print what would be done
    #[arg(long, requires = "rows", conflicts_with_all = ["output", "control_vector"])]
    dry_run: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ConflictsArg {
    /// It is an error
    Refuse,
    /// The first plan wins
    First,
    /// The last plan wins
    Last,
    /// The changes are added
    Sum,
    /// --infos names the plan of each row
    OnePerRow,
}

pub(crate) fn run(args: &Args, _style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let sae = args.model.open()?;
    let statistics = statistics(args, sae.d_sae())?;
    let mut plans = Vec::new();
    for path in &args.plans {
        let mut plan = named(path, Plan::from_json(&read(path)?))?;
        plan.fill_statistics(&statistics);
        if let [_] = args.plans[..] {
            named(path, sae.plan_cost(&plan).map(drop))?;
        }
        plans.push(plan);
    }
    for path in &args.add_control_vector {
        let plan = Plan::new(path.display().to_string())
            .direction("vector", control_vector::read(path, args.layer)?)
            .edit(Edit::add_direction("vector", 1.0));
        named(path, sae.plan_cost(&plan).map(drop))?;
        plans.push(plan);
    }
    let plan = sae.compile_plans(&plans, args.conflicts.into())?;
    for path in [&args.output, &args.control_vector].into_iter().flatten() {
        let mut read = vec![args.model.path.as_path()];
        read.extend(args.plans.iter().map(PathBuf::as_path));
        read.extend(args.add_control_vector.iter().map(PathBuf::as_path));
        let others = [
            &args.rows,
            &args.inputs,
            &args.sources,
            &args.infos,
            &args.statistics,
            &args.labels,
        ];
        read.extend(others.into_iter().flatten().map(PathBuf::as_path));
        output::check(path, &read)?;
    }
    if let Some(path) = &args.control_vector {
        export(args, &sae, &plan, path)?;
    }
    match &args.rows {
        Some(rows) => steer(args, &sae, &plan, rows, out),
        None => Ok(()),
    }
}

/// What relative strengths refer to, from the files that were named.
fn statistics(args: &Args, d_sae: usize) -> Result<Statistics, Failure> {
    let mut statistics = Statistics::new();
    if let Some(path) = &args.statistics {
        statistics = named(path, read_statistics(&read(path)?))?;
    }
    if let Some(path) = &args.labels {
        // Of an export that was downloaded whole, the part that has statistics.
        let features = path.join("features");
        let path = if features.is_dir() { &features } else { path };
        if let Some(labels) = labels::read(Some(path), d_sae)? {
            statistics.fill_from(&Statistics::from_labels(&labels));
        }
    }
    Ok(statistics)
}

/// Statistics by themselves, or as the baseline in what `sae monitor --stats` writes.
fn read_statistics(text: &str) -> Result<Statistics, Error> {
    let value = serde_json::from_str::<serde_json::Value>(text).ok();
    match value.as_ref().and_then(|value| value.get("baseline")) {
        Some(found) => Statistics::from_json(&found.to_string()),
        None => Statistics::from_json(text),
    }
}

/// Writes what the plans add to every row as a control vector.
fn export(args: &Args, sae: &Sae<'_>, plan: &CompiledPlan, path: &Path) -> Result<(), Failure> {
    let vector = match &args.plans[..] {
        [only] => named(only, sae.constant_vector(plan))?,
        _ => sae.constant_vector(plan)?,
    };
    let layer = match args.layer {
        Some(layer) => layer,
        None => {
            let layer = named(&args.model.path, control_vector::layer_of(sae))?;
            eprintln!("note: layer {layer}, from the checkpoint's site");
            layer
        }
    };
    let mut file = ControlVector::default();
    file.model_hint.clone_from(&args.model_hint);
    file.directions.insert(layer, vector);
    Ok(named(path, file.write(path))?)
}

fn steer(
    args: &Args,
    sae: &Sae<'_>,
    plan: &CompiledPlan,
    path: &Path,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let file = RowsFile::open(path, sae.d_out())?;
    let rows = file.rows()?;
    let open = |path| RowsFile::open(path, sae.d_in());
    let inputs = args.inputs.as_deref().map(open).transpose()?;
    let sources = args.sources.as_deref().map(open).transpose()?;
    let infos = match &args.infos {
        None => None,
        Some(path) => Some(named(path, row_infos::read(&read(path)?, rows.rows()))?),
    };
    let stride = rows.width() * rows.dtype().size();
    let mut bytes: Vec<u8> = Vec::with_capacity(rows.rows() * stride);
    for row in 0..rows.rows() {
        bytes.extend_from_slice(rows.row_bytes(row));
    }
    let steered = RowsMut::from_bytes(&mut bytes, rows.dtype(), rows.rows(), rows.width(), stride)?;
    let mut batch = Batch::new(steered);
    batch.inputs = inputs.as_ref().map(RowsFile::rows).transpose()?;
    batch.sources = sources.as_ref().map(RowsFile::rows).transpose()?;
    batch.infos = infos.as_deref();
    batch.dry_run = args.dry_run;
    let mut scratch = SteerScratch::new(sae, plan)?;
    let mut report = Report::new(plan);
    let steer = || sae.steer(plan, batch, &mut scratch, &mut report);
    named(path, while_waiting("steering", steer))?;
    if let Some(path) = &args.output {
        let shape = [rows.rows(), rows.width()];
        named(path, write_npy(path, rows.dtype(), &shape, &bytes))?;
    }
    warn(path, file.narrowed, &report);
    if args.report || args.dry_run {
        writeln!(out, "{:#}", describe(plan, &report))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    named(
        path,
        std::fs::read_to_string(path).map_err(|error| Error::Io {
            operation: "read",
            message: error.to_string(),
        }),
    )
}

/// Rows that were left alone although a plan was for them, on stderr.
fn warn(file: &Path, narrowed: bool, report: &Report) {
    let file = file.display();
    if narrowed {
        eprintln!("note: {file}: float64 rows were rounded to float32");
    }
    let reasons = [
        (
            Outcome::NonFinite,
            "hold a NaN or an infinity and were left as they are",
        ),
        (
            Outcome::Overflow,
            "would overflow their format and were left as they are",
        ),
    ];
    for (outcome, why) in reasons {
        let count = report.count(outcome);
        if count > 0 {
            eprintln!("warning: {file}: {count} of {} rows {why}", report.rows());
        }
    }
}

fn describe(plan: &CompiledPlan, report: &Report) -> serde_json::Value {
    let counts: serde_json::Map<String, serde_json::Value> = Outcome::ALL
        .iter()
        .map(|&outcome| (outcome.name().into(), report.count(outcome).into()))
        .collect();
    let audits = report.audits().iter().map(|audit| {
        json!({
            "name": audit.name,
            "hash": format!("{:016x}", audit.hash),
            "rows": audit.rows,
            "mean_relative_change": audit.mean_relative(),
            "max_relative_change": audit.max_relative,
        })
    });
    let cost = plan.cost();
    json!({
        "rows": report.rows(),
        "outcomes": counts,
        "plans": audits.collect::<Vec<_>>(),
        "cost": {
            "needs_encode": cost.needs_encode,
            "because_of": cost.reasons,
            "encoder_rows": cost.encoder_rows,
            "decoder_rows": cost.decoder_rows,
            "bytes_per_row": cost.bytes_per_row,
            "bytes_held": cost.bytes_held,
        },
    })
}

impl From<ConflictsArg> for Conflicts {
    fn from(conflicts: ConflictsArg) -> Self {
        match conflicts {
            ConflictsArg::Refuse => Conflicts::Refuse,
            ConflictsArg::First => Conflicts::First,
            ConflictsArg::Last => Conflicts::Last,
            ConflictsArg::Sum => Conflicts::Sum,
            ConflictsArg::OnePerRow => Conflicts::OnePerRow,
        }
    }
}
