//! `sae levels`: the instruction-set levels of this machine.

use crate::failure::Failure;
use crate::style::Style;
use sae::Level;
use std::io::Write;

/// List the instruction-set levels of this machine.
///
/// Every level gives the same bits; they differ in speed alone.
#[derive(clap::Args)]
#[command(
    after_help = "The active level is the best one; `--level` of other commands takes another."
)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let active = Level::best();
    let names: Vec<_> = Level::available().map(Level::name).collect();
    if args.json {
        let value = serde_json::json!({ "active": active.name(), "available": names });
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for name in names {
        if name == active.name() {
            writeln!(out, "{}  active", style.key(format_args!("{name:width$}")))?;
        } else {
            writeln!(out, "{name}")?;
        }
    }
    Ok(())
}
