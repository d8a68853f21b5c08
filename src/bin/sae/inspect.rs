//! `sae inspect`: what a checkpoint is and what it costs.

use crate::failure::Failure;
use crate::model::ModelArgs;
use crate::style::{Style, bytes, count, fit, wrap};
use sae::{MatrixInfo, Sae, State};
use std::io::Write;

const EXAMPLES: &str = "\
Examples:
  sae inspect gemma-scope/layer_12/width_16k/average_l0_82/params.npz
  sae inspect CHECKPOINT --check full
  sae inspect CHECKPOINT --json | jq .d_sae";

/// Show what a checkpoint holds, and what opening and preparing it cost.
///
/// In the state `mapped` the weights are run from the file, without a copy. `prepared` weights
/// have one row per feature: where the file has columns, preparing makes that copy.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let sae = args.model.open()?;
    if args.json {
        let mut value = sae.description().to_json();
        if let Some(object) = value.as_object_mut() {
            let prepare = sae.prepare_cost();
            object.insert(
                "prepare".into(),
                serde_json::json!({
                    "needed": prepare.needed,
                    "bytes": prepare.bytes,
                    "reads": prepare.reads,
                }),
            );
            object.insert("pack_bytes".into(), pack_bytes(&sae).into());
        }
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    let page = Page::of(&sae);
    match style.columns() {
        Some(columns) => page.print_aligned(style, columns, out),
        None => page.print_plain(out),
    }
}

/// Bytes of the matrices and vectors, one row per feature, in the file's number formats.
fn pack_bytes(sae: &Sae<'_>) -> u64 {
    let description = sae.description();
    let skip = description.skip.as_ref().map_or(0, |matrix| matrix.bytes);
    let vectors = 4 * (3 * sae.d_sae() + sae.d_in() + sae.d_out()) as u64;
    description.encoder.bytes + description.decoder.bytes + skip + vectors
}

/// Titles, each with its lines of key and value.
struct Page {
    sections: Vec<(&'static str, Vec<(&'static str, String)>)>,
}

impl Page {
    fn of(sae: &Sae<'_>) -> Self {
        let it = sae.description();
        let or_unknown =
            |name: &Option<String>| name.clone().unwrap_or_else(|| "not stated".into());
        let mut weights = vec![
            ("encoder", matrix(&it.encoder)),
            ("decoder", matrix(&it.decoder)),
        ];
        if let Some(skip) = &it.skip {
            weights.push(("skip", matrix(skip)));
        }
        let mut model = vec![
            ("publisher", it.publisher.clone()),
            ("convention", it.convention.clone()),
            ("model", or_unknown(&it.model_name)),
            ("hook", or_unknown(&it.hook_name)),
        ];
        model.extend(it.files.iter().map(|file| ("file", file.clone())));
        let shape = vec![
            ("architecture", it.architecture.clone()),
            ("d_in", count(it.d_in as u64)),
            ("d_sae", count(it.d_sae as u64)),
            ("d_out", count(it.d_out as u64)),
            ("activation", it.activation.clone()),
            ("normalization", it.normalization.clone()),
        ];
        let prepare = sae.prepare_cost();
        let state = match (it.state, prepare.needed) {
            (State::Prepared, _) => "prepared",
            (_, false) => "mapped, rows per feature: nothing to prepare",
            (_, true) => "mapped, columns per feature: prepare makes rows",
        };
        let preparing = match prepare.needed {
            true => format!(
                "reads {}, holds {} more memory",
                bytes(prepare.reads),
                bytes(prepare.bytes)
            ),
            false => "nothing".into(),
        };
        let cost = vec![
            ("state", state.into()),
            ("level", it.level.name().into()),
            ("opening", format!("reads {}", bytes(it.bytes_read_at_open))),
            ("preparing", preparing),
            (
                "packing",
                format!("a file of about {}", bytes(pack_bytes(sae))),
            ),
        ];
        let mut remarks = Vec::new();
        remarks.extend(
            it.ignored_keys
                .iter()
                .map(|key| ("ignored key", key.clone())),
        );
        remarks.extend(
            it.ignored_tensors
                .iter()
                .map(|name| ("ignored tensor", name.clone())),
        );
        remarks.extend(it.notes.iter().map(|note| ("note", note.clone())));
        let mut sections = vec![
            ("Checkpoint", model),
            ("Model", shape),
            ("Weights", weights),
            ("Cost", cost),
        ];
        if !remarks.is_empty() {
            sections.push(("Remarks", remarks));
        }
        Page { sections }
    }

    /// For a program or a file: a line per value, no padding.
    fn print_plain(&self, out: &mut impl Write) -> Result<(), Failure> {
        for (key, value) in self.sections.iter().flat_map(|(_, lines)| lines) {
            writeln!(out, "{key}: {value}")?;
        }
        Ok(())
    }

    fn print_aligned(
        &self,
        style: Style,
        columns: usize,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let keys = self.sections.iter().flat_map(|(_, lines)| lines);
        let key_width = keys.map(|(key, _)| key.len()).max().unwrap_or(0);
        let value_width = columns.saturating_sub(key_width + 4).max(20);
        for (i, (title, lines)) in self.sections.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            writeln!(out, "{}", style.title(title))?;
            let mut last = "";
            for &(key, ref value) in lines {
                // A key is written once over a run of values.
                let mut label = if key == last { "" } else { key };
                last = key;
                for line in wrap(value, value_width) {
                    writeln!(out, "  {}  {line}", style.key(fit(label, key_width)))?;
                    label = "";
                }
            }
        }
        Ok(())
    }
}

fn matrix(it: &MatrixInfo) -> String {
    format!(
        "{}, {}, one feature per {}, {}",
        it.tensor,
        it.dtype,
        it.layout.trim_end_matches('s'),
        bytes(it.bytes)
    )
}
