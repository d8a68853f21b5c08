//! `sae inspect`: what a checkpoint is and what it costs.

use crate::failure::Failure;
use crate::model::ModelArgs;
use crate::style::{Style, bytes, count, fit, wrap};
use sae::Description;
use sae::model::{MatrixInfo, PackInfo, ScreenInfo, SourceFile};
use std::io::Write;

const EXAMPLES: &str = "\
Examples:
  sae inspect gemma-scope/layer_12/width_16k/average_l0_82/params.npz
  sae inspect CHECKPOINT --check full
  sae inspect CHECKPOINT --json | jq .d_sae";

/// Show what a checkpoint holds, and what opening and preparing it cost.
///
/// In the state `mapped` the weights are run from the file, without a copy; `decoded` ones had to
/// be inflated, dequantised or narrowed into memory. `prepared` weights have one row per feature:
/// where the file has columns, preparing makes that copy, and `sae pack` writes it into a file.
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
    let description = sae.description();
    if args.json {
        writeln!(out, "{:#}", description.to_json())?;
        return Ok(());
    }
    let page = Page::of(description);
    match style.columns() {
        Some(columns) => page.print_aligned(style, columns, out),
        None => page.print_plain(out),
    }
}

type Line = (&'static str, String);

/// Titles, each with its lines of key and value.
struct Page {
    sections: Vec<(&'static str, Vec<Line>)>,
}

impl Page {
    fn of(it: &Description) -> Self {
        let mut sections = vec![
            ("Checkpoint", checkpoint(it)),
            ("Model", model(it)),
            ("Weights", weights(it)),
            ("Cost", cost(it)),
        ];
        let remarks = remarks(it);
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

fn checkpoint(it: &Description) -> Vec<Line> {
    let site = &it.site;
    let or_unknown = |name: &Option<String>| name.clone().unwrap_or_else(|| "not stated".into());
    let mut lines = vec![
        ("publisher", it.publisher.clone()),
        ("convention", it.convention.clone()),
        ("model", or_unknown(&site.model_name)),
        ("hook", or_unknown(&site.hook_name)),
    ];
    if let Some(hook) = &site.hook_name_out {
        lines.push(("output hook", hook.clone()));
    }
    if let Some(size) = site.context_size {
        lines.push(("context", format!("{} tokens", count(size))));
    }
    if let Some(prepend) = site.prepend_bos {
        let text = if prepend {
            "prepended"
        } else {
            "not prepended"
        };
        lines.push(("BOS", text.into()));
    }
    lines.extend(it.files.iter().map(|file| ("file", file.clone())));
    if let Some(pack) = &it.pack {
        lines.extend(packed(pack));
    }
    lines
}

fn packed(it: &PackInfo) -> Vec<Line> {
    let from = format!(
        "version {}, by {}, read as {}",
        it.version, it.writer, it.convention
    );
    let mut lines = vec![("pack", from)];
    lines.extend(it.models.iter().map(|name| ("models", name.clone())));
    let source = |file: &SourceFile| ("source", format!("{}, sha256 {}", file.name, file.sha256));
    lines.extend(it.sources.iter().map(source));
    lines.extend(it.settings.iter().map(|pair| ("given", pair.clone())));
    match it.lossy.is_empty() {
        true => lines.push(("lossy", "no, the source's bits".into())),
        false => lines.extend(it.lossy.iter().map(|line| ("lossy", line.clone()))),
    }
    let rows = match it.self_test_rows {
        0 => "none".into(),
        rows => format!("{rows} rows, see `sae verify`"),
    };
    lines.push(("self-test", rows));
    lines
}

fn model(it: &Description) -> Vec<Line> {
    let mut lines = vec![
        ("architecture", it.architecture.clone()),
        ("d_in", it.d_in.to_string()),
        ("d_sae", it.d_sae.to_string()),
        ("d_out", it.d_out.to_string()),
        ("activation", it.activation.clone()),
        ("normalization", it.normalization.into()),
        (
            "centred input",
            if it.centered { "yes" } else { "no" }.into(),
        ),
    ];
    if it.site.mean_center {
        lines.push(("rows", "must be mean-centred before".into()));
    }
    if it.site.concatenated_heads {
        lines.push(("rows", "attention heads side by side".into()));
    }
    lines
}

fn weights(it: &Description) -> Vec<Line> {
    let mut lines = vec![
        ("encoder", matrix(&it.encoder)),
        ("decoder", matrix(&it.decoder)),
    ];
    lines.extend(it.skip.as_ref().map(|skip| ("skip", matrix(skip))));
    lines
}

fn matrix(it: &MatrixInfo) -> String {
    format!(
        "{}, {}, one feature per {}, {}, {}",
        it.tensor,
        it.dtype,
        it.layout.trim_end_matches('s'),
        bytes(it.bytes),
        if it.mapped { "mapped" } else { "in memory" },
    )
}

fn cost(it: &Description) -> Vec<Line> {
    let prepare = it.prepare;
    let state = match prepare.needed {
        true => format!("{}; rows per feature only after preparing", it.state.name()),
        false => format!("{}, rows per feature: nothing to copy", it.state.name()),
    };
    let mut lines = vec![
        ("state", state),
        ("level", it.level.name().into()),
        ("opening", format!("reads {}", bytes(it.bytes_read_at_open))),
    ];
    let screen = it.screen.as_ref().map(ScreenInfo::describe);
    let screen = screen.unwrap_or_else(|| "none, encoding reads every weight".into());
    lines.push(("screen", screen));
    if prepare.needed {
        let screen = match prepare.screen_bytes {
            0 => String::new(),
            screen => format!(" and a screen of {}", bytes(screen)),
        };
        let held = format!(
            "holds {} in memory{screen}; the copy takes {}",
            bytes(prepare.bytes),
            prepare.time_class()
        );
        lines.push(("preparing", held));
    } else if it.screen.is_none() && prepare.screen_bytes > 0 {
        let held = format!("holds a screen of {}", bytes(prepare.screen_bytes));
        lines.push(("preparing", held));
    }
    lines.push((
        "packing",
        match screened(it) {
            0 => format!("a file of about {}", bytes(it.pack_bytes)),
            screen => format!(
                "a file of about {}, {} of it a screen",
                bytes(it.pack_bytes + screen),
                bytes(screen)
            ),
        },
    ));
    lines
}

/// Bytes of the screen that packing adds.
fn screened(it: &Description) -> u64 {
    let most = it.d_sae as u64 * it.d_in as u64 * 4 * sae::pack::MAX_SCREEN_PERCENT / 100;
    match it.prepare.screen_bytes {
        screen if screen <= most => screen,
        _ => 0,
    }
}

fn remarks(it: &Description) -> Vec<Line> {
    let list = |key, values: &[String]| -> Vec<Line> {
        values.iter().map(|value| (key, value.clone())).collect()
    };
    let mut lines = list("ignored key", &it.ignored_keys);
    lines.extend(list("ignored tensor", &it.ignored_tensors));
    lines.extend(list("note", &it.notes));
    lines
}
