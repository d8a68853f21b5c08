//! `sae inspect`: what a checkpoint is and what it costs.

use crate::failure::Failure;
use crate::labels::{self, LabelsArg};
use crate::model::ModelArgs;
use crate::progress::while_waiting;
use crate::rows::RowsFile;
use crate::style::{Style, bytes, count, fit, wrap};
use sae::model::{MatrixInfo, PackInfo, SourceFile};
use sae::{Code, Description};
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sae inspect gemma-scope/layer_12/width_16k/average_l0_82/params.npz
  sae inspect CHECKPOINT --check full
  sae inspect CHECKPOINT --rows ROWS.npy      (which screen is chosen, measured on these rows)
  sae inspect CHECKPOINT --json | jq .d_sae
  sae inspect CHECKPOINT --labels gemma-2-2b/12-gemmascope-res-16k/explanations";

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

    /// Prepare the weights first, to see which screen is chosen, and why
    #[arg(long)]
    prepare: bool,

    /// Rows to choose the screen by (.npy); prepares too
    #[arg(long, value_name = "ROWS")]
    rows: Option<PathBuf>,

    /// Upload the encoder to a GPU whose name holds NAME, or to any, and tell what is held where
    #[cfg(feature = "wgpu")]
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    gpu: Option<String>,

    #[command(flatten)]
    labels: LabelsArg,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn prepares(&self) -> bool {
        self.prepare || self.rows.is_some()
    }
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let opened = args.model.open();
    let described = match &opened {
        // Another kind of model, or maths that is missing: described as far as the file tells.
        Err(Failure::Sae(error)) if error.code() == Code::Unsupported && !args.prepares() => {
            args.model.describe().ok()
        }
        _ => None,
    };
    if let Some(description) = described {
        return print(args, &description, None, style, out);
    }
    let mut sae = opened?;
    match &args.rows {
        Some(path) => {
            let file = RowsFile::open(path, sae.d_in())?;
            let rows = file.rows()?;
            sae = while_waiting("preparing", || sae.prepare_with(rows))?;
        }
        None if args.prepare => sae = while_waiting("preparing", || sae.prepare())?,
        None => {}
    }
    let gpu = on_gpu(args, &sae)?;
    print(args, sae.description(), gpu.as_ref(), style, out)
}

/// What a device holds.
struct OnGpu {
    adapter: String,
    device_bytes: u64,
    host_bytes: u64,
}

#[cfg(feature = "wgpu")]
fn on_gpu(args: &Args, sae: &sae::Sae<'_>) -> Result<Option<OnGpu>, Failure> {
    use sae::gpu::{Device, DeviceOptions, UploadOptions};
    let Some(name) = &args.gpu else {
        return Ok(None);
    };
    let mut options = DeviceOptions::default().software(true);
    if !name.is_empty() {
        options = options.name(name);
    }
    let device = Device::open(&options)?;
    let upload = || device.upload(sae, &UploadOptions::default());
    let model = while_waiting("uploading", upload)?;
    Ok(Some(OnGpu {
        adapter: device.adapter().name.clone(),
        device_bytes: model.device_bytes(),
        host_bytes: model.host_bytes(),
    }))
}

#[cfg(not(feature = "wgpu"))]
fn on_gpu(_: &Args, _: &sae::Sae<'_>) -> Result<Option<OnGpu>, Failure> {
    Ok(None)
}

fn print(
    args: &Args,
    description: &Description,
    gpu: Option<&OnGpu>,
    style: Style,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let labels = args.labels.open(description.d_sae)?;
    if args.json {
        let mut json = description.to_json();
        if let (Some(labels), Some(object)) = (&labels, json.as_object_mut()) {
            object.insert("labels".into(), labels::to_json(labels));
        }
        if let (Some(gpu), Some(object)) = (gpu, json.as_object_mut()) {
            let value = serde_json::json!({
                "adapter": gpu.adapter,
                "device_bytes": gpu.device_bytes,
                "host_bytes": gpu.host_bytes,
            });
            object.insert("gpu".into(), value);
        }
        writeln!(out, "{json:#}")?;
        return Ok(());
    }
    let mut page = Page::of(description);
    if let Some(gpu) = gpu {
        let line = format!(
            "{} holds {}; the host keeps {} of encoder, from which every value comes",
            gpu.adapter,
            bytes(gpu.device_bytes),
            bytes(gpu.host_bytes),
        );
        page.sections.push(("GPU", vec![("gpu", line)]));
    }
    if let Some(labels) = &labels {
        let lines = labels::about(labels, description.d_sae);
        page.sections.push(("Labels", lines));
    }
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
        false => format!("{}, rows per feature: nothing to prepare", it.state.name()),
    };
    let mut lines = vec![
        ("state", state),
        ("level", it.level.name().into()),
        ("opening", format!("reads {}", bytes(it.bytes_read_at_open))),
    ];
    if prepare.needed {
        let held = format!(
            "holds {} in memory, {}",
            bytes(prepare.bytes),
            prepare.time_class()
        );
        lines.push(("preparing", held));
    }
    lines.push(("screen", screen(it)));
    lines.push((
        "packing",
        match it.prepare.screen_bytes {
            0 => format!("a file of about {}", bytes(it.pack_bytes)),
            screen => format!(
                "a file of about {}, with a screen {}",
                bytes(it.pack_bytes),
                bytes(it.pack_bytes + screen)
            ),
        },
    ));
    lines
}

/// What is read instead of the encoder, or what would be.
fn screen(it: &Description) -> String {
    let screen = &it.screen;
    let would = it.prepare.screen_bytes;
    if screen.bits == 0 {
        return match screen.why.as_str() {
            "not prepared" if would > 0 => {
                format!("none: not prepared; preparing would hold {}", bytes(would))
            }
            "not prepared" => "none: not prepared; preparing would build none".into(),
            why => format!("none: {why}"),
        };
    }
    let more = match screen.more_bits {
        0 => String::new(),
        more => format!(" and {more} more for survivors"),
    };
    let dither = match screen.delta_exponent {
        0 => String::new(),
        delta => format!(", seed {:016x}, delta 2^-{delta}", screen.seed),
    };
    let basis = if screen.whitened {
        ", in the basis of its Gram matrix"
    } else {
        ""
    };
    format!(
        "{}, {} bits{more}{basis}{dither}; holds {}, reads {} a row; {}",
        screen.kind,
        screen.bits,
        bytes(screen.bytes_held),
        bytes(screen.bytes_read),
        screen.why
    )
}

fn remarks(it: &Description) -> Vec<Line> {
    let list = |key, values: &[String]| -> Vec<Line> {
        values.iter().map(|value| (key, value.clone())).collect()
    };
    let mut lines = list("ignored key", &it.ignored_keys);
    lines.extend(list("ignored tensor", &it.ignored_tensors));
    lines.extend(list("note", &it.notes));
    lines.extend(it.refused.iter().map(|why| ("cannot encode", why.clone())));
    lines
}
