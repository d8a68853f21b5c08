//! `sae steer`: rows edited by plans.

use crate::failure::{Failure, named};
use crate::model::ModelArgs;
use crate::output;
use crate::progress::while_waiting;
use crate::rows::RowsFile;
use crate::style::Style;
use sae::container::npy_write::write_npy;
use sae::steer::{Batch, CompiledPlan, Conflicts, Outcome, Plan, Report, Statistics, SteerScratch};
use sae::{Error, RowsMut};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  sae steer CHECKPOINT rows.npy --plan plan.json -o steered.npy --report
  sae steer CHECKPOINT rows.npy --plan plan.json --dry-run
  sae steer CHECKPOINT rows.npy --plan a.json --plan b.json --conflicts first -o steered.npy
  sae steer TRANSCODER mlp_out.npy --inputs mlp_in.npy --plan plan.json -o steered.npy

A plan:
  {\"edits\": [{\"feature\": 1203, \"rule\": \"set\", \"strength\": 8.5}], \"rows\": {\"skip_first\": 1}}";

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
    #[arg(value_name = "ROWS.npy")]
    rows: PathBuf,

    /// Plan to apply, JSON; can be repeated
    #[arg(long = "plan", value_name = "PLAN.json", required = true)]
    plans: Vec<PathBuf>,

    /// File to write: the edited rows, in the format of ROWS.npy
    #[arg(
        short,
        long,
        value_name = "OUT.npy",
        required_unless_present = "dry_run"
    )]
    output: Option<PathBuf>,

    /// Activation rows at the input site, where it is another one (transcoders)
    #[arg(long, value_name = "INPUTS.npy")]
    inputs: Option<PathBuf>,

    /// Statistics of features, for strengths relative to a maximum or a mean; those in a plan win
    #[arg(long, value_name = "STATISTICS.json")]
    statistics: Option<PathBuf>,

    /// What happens where several plans edit one feature of a row
    #[arg(long, value_enum, default_value_t = ConflictsArg::Refuse)]
    conflicts: ConflictsArg,

    /// Print what was done, as JSON
    #[arg(long)]
    report: bool,

    /// Change nothing, and print what would be done
    #[arg(long, conflicts_with = "output")]
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
}

pub(crate) fn run(args: &Args, _style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let sae = args.model.open()?;
    let mut plans = Vec::new();
    let statistics = match &args.statistics {
        None => Statistics::new(),
        Some(path) => named(path, Statistics::from_json(&read(path)?))?,
    };
    for path in &args.plans {
        let mut plan = named(path, Plan::from_json(&read(path)?))?;
        plan.statistics.fill_from(&statistics);
        if let [_] = args.plans[..] {
            named(path, sae.plan_cost(&plan).map(drop))?;
        }
        plans.push(plan);
    }
    let plan = sae.compile_plans(&plans, args.conflicts.into())?;
    let file = RowsFile::open(&args.rows, sae.d_out())?;
    let rows = file.rows()?;
    let open = |path| RowsFile::open(path, sae.d_in());
    let inputs = args.inputs.as_deref().map(open).transpose()?;
    if let Some(path) = &args.output {
        let mut read = vec![args.model.path.as_path(), &args.rows];
        read.extend(args.plans.iter().map(PathBuf::as_path));
        read.extend(args.inputs.as_deref());
        output::check(path, &read)?;
    }

    let stride = rows.width() * rows.dtype().size();
    let mut bytes: Vec<u8> = Vec::with_capacity(rows.rows() * stride);
    for row in 0..rows.rows() {
        bytes.extend_from_slice(rows.row_bytes(row));
    }
    let steered = RowsMut::from_bytes(&mut bytes, rows.dtype(), rows.rows(), rows.width(), stride)?;
    let mut batch = Batch::new(steered);
    batch.inputs = inputs.as_ref().map(RowsFile::rows).transpose()?;
    batch.dry_run = args.dry_run;
    let mut scratch = SteerScratch::new(&sae, &plan)?;
    let mut report = Report::new(&plan);
    let steer = || sae.steer(&plan, batch, &mut scratch, &mut report);
    named(&args.rows, while_waiting("steering", steer))?;
    if let Some(path) = &args.output {
        let shape = [rows.rows(), rows.width()];
        named(path, write_npy(path, rows.dtype(), &shape, &bytes))?;
    }
    warn(&args.rows, file.narrowed, &report);
    if args.report || args.dry_run {
        writeln!(out, "{:#}", describe(&plan, &report))?;
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
        }
    }
}
