//! The `sae` tool: what a person does with the library at a terminal.
//!
//! One file per subcommand. Nothing depends on this, and the tool uses only the library's public
//! API. Results go to stdout or to the file that was named, everything else to stderr. Exit codes:
//! 0 success, 1 failure (one line on stderr, beginning with `error: `), 2 wrong usage, 3 what
//! `verify` looked at is wrong.

mod compare;
mod control_vector;
mod decompose;
mod demo;
mod encode;
mod failure;
mod html_report;
mod inspect;
mod labels;
mod levels;
mod model;
mod monitor;
mod output;
mod pack;
mod progress;
mod readout;
mod report;
mod row_infos;
mod rows;
mod steer;
mod style;
mod verify;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::io::{self, Write};
use std::process::ExitCode;
use style::{Style, When};

const EXAMPLES: &str = "\
Examples:
  sae demo                                        a small SAE on eight sentences; needs no files
  sae inspect gemma-scope/layer_12/params.npz     what a checkpoint is and what it costs
  sae encode CHECKPOINT rows.npy -o features.npz  the features of every row
  sae readout CHECKPOINT rows.npy --features 3,17,900
  sae pack CHECKPOINT -o model.gguf               one file that maps with one row per feature
  sae compare CHECKPOINT OTHER                    what two checkpoints share
  sae verify CHECKPOINT rows.npy                  is it whole, and are these the rows it reads?

CHECKPOINT is a file as it was downloaded, or its folder.
Exit codes: 0 success, 1 failure (the reason is on stderr), 2 wrong usage, 3 what `verify` looked at
is wrong.";

/// Sparse-autoencoder inference: published checkpoints, opened as they are, run exactly.
#[derive(Parser)]
#[command(name = "sae", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// When to use colours [a terminal decides unless NO_COLOR is set]
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    color: When,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Encode(encode::Args),
    Readout(readout::Args),
    Steer(steer::Args),
    Decompose(decompose::Args),
    Pack(pack::Args),
    Verify(verify::Args),
    Monitor(monitor::Args),
    Report(html_report::Args),
    Compare(compare::Args),
    Levels(levels::Args),
    Demo(demo::Args),
}

/// The exit code of `verify` when something is wrong.
const WRONG: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let style = Style::of_stdout(cli.color);
    let out = &mut io::BufWriter::new(io::stdout().lock());
    let result = match &cli.command {
        Command::Inspect(args) => inspect::run(args, style, out),
        Command::Encode(args) => encode::run(args, style, out),
        Command::Readout(args) => readout::run(args, style, out),
        Command::Steer(args) => steer::run(args, style, out),
        Command::Decompose(args) => decompose::run(args, style, out),
        Command::Pack(args) => pack::run(args, out),
        Command::Verify(args) => verify::run(args, style, out),
        Command::Monitor(args) => monitor::run(args, style, out),
        Command::Report(args) => html_report::run(args, out),
        Command::Compare(args) => compare::run(args, style, out),
        Command::Levels(args) => levels::run(args, style, out),
        Command::Demo(args) => demo::run(args, style, out),
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Verdict) => match out.flush() {
            Ok(()) => ExitCode::from(WRONG),
            Err(_) => ExitCode::FAILURE,
        },
        Err(failure) => {
            let style = Style::of_stderr(cli.color);
            let _ = writeln!(io::stderr(), "{} {failure}", style.error("error:"));
            ExitCode::FAILURE
        }
    }
}
