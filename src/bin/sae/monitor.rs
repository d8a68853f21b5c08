//! `sae monitor`: rules at work on rows of a file.

use crate::failure::{Failure, named};
use crate::model::ModelArgs;
use crate::output;
use crate::progress::{Progress, while_waiting};
use crate::rows::RowsFile;
use crate::style::{Style, count, fit};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sae::monitor::{
    Accumulator, Bins, Collect, Event, Monitor, MonitorOptions, Quality, RowInfo, Rules,
};
use sae::{Error, Features, RowStatus, Rows, Sae, Scratch};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  sae monitor CHECKPOINT rows.npy --rules rules.json
  sae monitor CHECKPOINT rows.npy --rules rules.json > alerts.jsonl
  sae monitor CHECKPOINT rows.npy --rules rules.json --watch --stats stats.json
  sae report stats.json -o report.html

Rules:
  {\"rules\": [{\"name\": \"weapons\", \"kind\": \"threshold\", \"feature\": 1203, \"over\": 4, \"run\": 2}],
   \"labels\": {\"1203\": \"firearms\"}}

Piped, every alert is a line of JSON.";

/// Watch features of activation rows by rules, and print the alerts.
///
/// Only the encoder rows of the features that the rules name are read, unless the activation ranks
/// all features (TopK) or `--stats` or `--snapshot` asks for statistics of all of them. Rows with a
/// NaN or an infinity are counted and left alone.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Activation rows: npy, float16, float32 or float64 (rounded to float32)
    #[arg(value_name = "ROWS.npy")]
    rows: PathBuf,

    /// What to watch, JSON (docs/rules)
    #[arg(long, value_name = "RULES.json")]
    rules: PathBuf,

    /// Rows per stream; without it all rows are one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    stream_rows: Option<u64>,

    /// Write statistics of all features, quality and alerts, JSON: for `sae report`, or as a
    /// baseline
    #[arg(long, value_name = "STATS.json")]
    stats: Option<PathBuf>,

    /// Write a snapshot of the statistics, binary: for programs that merge them
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<PathBuf>,

    /// Write a snapshot of the quality of the reconstructions, binary: for programs that merge them
    #[arg(long, value_name = "QUALITY")]
    quality: Option<PathBuf>,

    /// Statistics of a time that was normal, as `--stats` writes them: what `cusum` and `drift`
    /// rules take where they say no numbers; those of the rules win
    #[arg(long, value_name = "STATS.json")]
    baseline: Option<PathBuf>,

    /// Names of features, JSON: an object from number to text, a list of texts, or a list of
    /// objects with `index` and `description`; those of the rules win
    #[arg(long, value_name = "LABELS.json")]
    labels: Option<PathBuf>,

    /// Show rules and the last alerts while it runs (in a terminal; else the lines as they come)
    #[arg(long)]
    watch: bool,
}

/// Rows taken at a time, at least.
const BATCH: usize = 64;
/// Points of the curves over time.
const POINTS: usize = 120;
/// Alerts that the statistics name; all are counted.
const KEPT_EVENTS: usize = 500;
/// Alerts that the live view shows.
const SHOWN: usize = 6;

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let read = [args.model.path.as_path(), &args.rows, &args.rules];
    let written = [&args.stats, &args.snapshot, &args.quality];
    for path in written.into_iter().flatten() {
        output::check(path, &read)?;
    }
    let mut sae = args.model.open()?;
    let mut rules = named(&args.rules, Rules::from_json(&text_of(&args.rules)?))?;
    if let Some(path) = &args.labels {
        for (feature, label) in named(path, labels(&text_of(path)?))? {
            rules.labels.entry(feature).or_insert(label);
        }
    }
    if let Some(path) = &args.baseline {
        rules
            .baseline
            .fill_from(&named(path, baseline(&text_of(path)?))?);
    }
    let file = RowsFile::open(&args.rows, sae.d_in())?;
    let rows = file.rows()?;
    let collects = args.stats.is_some() || args.snapshot.is_some() || args.quality.is_some();
    if args.quality.is_some() && sae.d_in() != sae.d_out() {
        return Err(Error::InvalidArgument {
            what: "--quality",
            expected: "a model whose input and output are one site".into(),
            found: format!("{} values in, {} out", sae.d_in(), sae.d_out()),
        }
        .in_file(args.model.path.display().to_string())
        .into());
    }
    if collects {
        while_waiting("preparing the model", || sae.prepare_in_place())?;
    }
    let compiled = Arc::new(named(&args.rules, sae.compile_rules(&rules))?);
    let streams = args.stream_rows.map_or(1, |n| rows.rows() as u64 / n + 1);
    let mut options = MonitorOptions::default().streams(streams.min(4096) as usize);
    if collects {
        options.collect = Some(Collect::all(&sae).histogram(Bins::USUAL).top(5));
    }
    let monitor = Monitor::new(compiled, &options)?;
    let view = View::new(args.watch, style, &rules, rows.rows());
    let mut session = Session {
        quality: match (args.stats.is_some() || args.quality.is_some()) && sae.d_in() == sae.d_out()
        {
            true => Some(Quality::new(&sae)?),
            false => None,
        },
        scratch: Scratch::new(&sae)?,
        features: Features::new(),
        decoded: Vec::new(),
        times: Times::new(rows.rows(), &monitor),
        events: Vec::new(),
        lines: Vec::new(),
        monitor,
        sae: &sae,
    };
    let began = Instant::now();
    let mut progress = (!args.watch).then(|| Progress::new("watching", rows.rows()));
    let batch = sae.batch_rows().max(BATCH);
    let mut infos = Vec::with_capacity(batch);
    for first in (0..rows.rows()).step_by(batch) {
        let part = rows.part(first, batch);
        infos.clear();
        infos.extend((first..first + part.rows()).map(|row| {
            let row = row as u64;
            let length = args.stream_rows.unwrap_or(u64::MAX);
            RowInfo::new(row / length, row % length)
        }));
        named(&args.rows, session.batch(part, first, &infos, collects))?;
        view.update(&session.monitor, first + part.rows(), began, &session.lines);
        if !view.is_live() {
            for line in session.lines.drain(..) {
                match style.columns() {
                    None => writeln!(out, "{}", line.json)?,
                    Some(columns) => writeln!(out, "{}", line.shown(style, columns))?,
                }
            }
            if args.watch {
                out.flush()?;
            }
        } else {
            let old = session.lines.len().saturating_sub(SHOWN);
            session.lines.drain(..old);
        }
        if let Some(progress) = &mut progress {
            progress.advance(part.rows());
        }
    }
    drop(progress);
    if view.end() {
        // Their last state, as lines that stay.
        for line in &session.lines {
            writeln!(out, "{}", line.shown(style, style.columns().unwrap_or(80)))?;
        }
    }
    out.flush()?;
    if file.narrowed {
        eprintln!(
            "note: {}: float64 rows were rounded to float32",
            args.rows.display()
        );
    }
    session.say(&rules, began.elapsed());
    if let (Some(path), Some(statistics)) = (&args.snapshot, session.monitor.statistics()) {
        write_file(path, &statistics.to_bytes()?)?;
    }
    if let (Some(path), Some(quality)) = (&args.quality, &session.quality) {
        write_file(path, &quality.to_bytes()?)?;
    }
    if let Some(path) = &args.stats {
        let text = session.document(args, &rules).to_string();
        write_file(path, text.as_bytes())?;
    }
    Ok(())
}

/// A shown alert.
struct Line {
    json: String,
    rule: String,
    stream: u64,
    position: u64,
    score: f64,
    features: String,
}

impl Line {
    fn new(event: &Event, monitor: &sae::monitor::CompiledRules) -> Self {
        let mut json = String::new();
        // A string takes everything.
        let _ = event.write_json(monitor, &mut json);
        let features = event.contributions().iter().map(|one| {
            let label = monitor.label(one.feature).unwrap_or("");
            format!("#{} {:.2} {label}", one.feature, one.value)
                .trim_end()
                .to_string()
        });
        Line {
            json,
            rule: monitor.rule_name(event.rule as usize).to_string(),
            stream: event.row.stream,
            position: event.row.position,
            score: event.score,
            features: features.collect::<Vec<_>>().join(", "),
        }
    }

    fn shown(&self, style: Style, columns: usize) -> String {
        let place = match self.stream {
            0 => format!("row {}", self.position),
            stream => format!("stream {stream} row {}", self.position),
        };
        let head = format!("{} {}", fit(&self.rule, 24), fit(&place, 18));
        let rest = format!("{:>8.3}  {}", self.score, self.features);
        let room = columns.saturating_sub(44).max(20);
        format!("{} {}", style.warning(head), fit(&rest, room).trim_end())
    }
}

/// Curves over the rows, in at most [`POINTS`] points.
struct Times {
    rows_per_point: usize,
    rows: Vec<u64>,
    l0: Vec<u64>,
    /// For each watched feature.
    fired: BTreeMap<u32, Vec<u64>>,
    /// For each rule.
    events: Vec<Vec<u64>>,
}

impl Times {
    fn new(rows: usize, monitor: &Monitor) -> Self {
        let rows_per_point = rows.div_ceil(POINTS).max(1);
        let points = rows.div_ceil(rows_per_point);
        let watched = monitor.rules().features().iter();
        Times {
            rows_per_point,
            rows: vec![0; points],
            l0: vec![0; points],
            fired: watched.map(|&feature| (feature, vec![0; points])).collect(),
            events: vec![vec![0; points]; monitor.rules().len()],
        }
    }

    fn to_json(&self) -> Value {
        let fired: serde_json::Map<String, Value> = self
            .fired
            .iter()
            .map(|(feature, counts)| (feature.to_string(), counts.as_slice().into()))
            .collect();
        json!({
            "rows_per_point": self.rows_per_point,
            "rows": self.rows,
            "active": self.l0,
            "fired": fired,
            "events": self.events,
        })
    }
}

struct Session<'s> {
    sae: &'s Sae<'static>,
    monitor: Monitor,
    quality: Option<Quality>,
    scratch: Scratch<'static>,
    features: Features,
    decoded: Vec<f32>,
    times: Times,
    events: Vec<Value>,
    lines: Vec<Line>,
}

impl Session<'_> {
    fn batch(
        &mut self,
        part: Rows<'_>,
        first: usize,
        infos: &[RowInfo],
        collects: bool,
    ) -> Result<(), Error> {
        let rules = self.monitor.rules().clone();
        let (lines, kept, times) = (&mut self.lines, &mut self.events, &mut self.times);
        let mut on_event = |event: &Event| {
            let line = Line::new(event, &rules);
            let at = infos
                .iter()
                .position(|info| info.id == event.row)
                .unwrap_or(0);
            let point = (first + at) / times.rows_per_point;
            if let Some(count) = times
                .events
                .get_mut(event.rule as usize)
                .and_then(|counts| counts.get_mut(point))
            {
                *count += 1;
            }
            if kept.len() < KEPT_EVENTS
                && let Ok(value) = serde_json::from_str(&line.json)
            {
                kept.push(value);
            }
            lines.push(line);
        };
        if !collects {
            let scratch = &mut self.scratch;
            return self
                .monitor
                .observe(self.sae, part, infos, scratch, &mut on_event);
        }
        self.sae
            .encode(part, &mut self.scratch, &mut self.features)?;
        self.monitor
            .observe_features(&self.features, infos, &mut on_event)?;
        for (at, row) in self.features.iter().enumerate() {
            let point = (first + at) / self.times.rows_per_point;
            if row.status == RowStatus::NonFinite {
                continue;
            }
            if let (Some(rows), Some(l0)) =
                (self.times.rows.get_mut(point), self.times.l0.get_mut(point))
            {
                *rows += 1;
                *l0 += row.indices.len() as u64;
            }
            for (feature, counts) in &mut self.times.fired {
                let fired = row.indices.binary_search(feature).is_ok();
                if let Some(count) = counts.get_mut(point) {
                    *count += u64::from(fired);
                }
            }
        }
        let Some(quality) = &mut self.quality else {
            return Ok(());
        };
        let d = self.sae.d_out();
        self.decoded.resize(part.rows() * d, 0.0);
        let inputs = Some(part);
        self.sae
            .decode(&self.features, inputs, &mut self.scratch, &mut self.decoded)?;
        quality.add_all(part, &self.features, &self.decoded, &mut |_, _| {})
    }

    /// What happened, on stderr.
    fn say(&self, rules: &Rules, time: Duration) {
        let counts = self.monitor.counts();
        let each = time.as_secs_f64() * 1e6 / (counts.rows.max(1) as f64);
        eprintln!(
            "{} rows, {} alerts in {:.2} s ({each:.1} us a row)",
            count(counts.rows),
            count(counts.events),
            time.as_secs_f64(),
        );
        for (number, rule) in rules.rules.iter().enumerate() {
            let (events, suppressed) = self.monitor.rule_counts(number);
            let more = match suppressed {
                0 => String::new(),
                suppressed => format!(", {} more beyond its limit", count(suppressed)),
            };
            eprintln!("  {}: {}{more}", rule.name, count(events));
        }
        if counts.non_finite > 0 {
            eprintln!(
                "warning: {} rows hold a NaN or an infinity and were left alone",
                count(counts.non_finite)
            );
        }
        if counts.evicted > 0 {
            eprintln!(
                "note: {} streams were forgotten to make room",
                count(counts.evicted)
            );
        }
    }

    fn document(&self, args: &Args, rules: &Rules) -> Value {
        let compiled = self.monitor.rules();
        let about = self.sae.description();
        let counts = self.monitor.counts();
        let rules: Vec<Value> = rules
            .rules
            .iter()
            .enumerate()
            .map(|(number, rule)| {
                let (events, suppressed) = self.monitor.rule_counts(number);
                json!({
                    "name": rule.name,
                    "kind": rule.detector.name(),
                    "events": events,
                    "suppressed": suppressed,
                })
            })
            .collect();
        let label = |feature| compiled.label(feature);
        let statistics = self.monitor.statistics();
        let dead = statistics.map_or(0, |statistics| statistics.dead().len());
        json!({
            "format": "sae monitor",
            "version": 1,
            "model": {
                "path": args.model.path.display().to_string(),
                "publisher": about.publisher,
                "architecture": about.architecture,
                "activation": about.activation,
                "d_in": self.sae.d_in(),
                "d_sae": self.sae.d_sae(),
                "fingerprint": format!("{:016x}", compiled.model()),
            },
            "rows_file": args.rows.display().to_string(),
            "rules_name": compiled.name(),
            "rules": rules,
            "counts": {
                "rows": counts.rows,
                "non_finite": counts.non_finite,
                "events": counts.events,
                "suppressed": counts.suppressed,
                "evicted_streams": counts.evicted,
            },
            "dead": dead,
            "description_length": statistics.and_then(|s| s.description_length().ok()),
            "quality": self.quality.as_ref().map(Quality::to_json),
            "baseline": statistics.map(|statistics| {
                let fired = statistics.summaries().filter(|one| one.fired > 0);
                let fired: Vec<u32> = fired.map(|one| one.feature).collect();
                statistics.statistics(&fired).to_json()
            }),
            "statistics": statistics.map(|statistics: &Accumulator| statistics.to_json(label)),
            "time": self.times.to_json(),
            "events": self.events,
        })
    }
}

/// What a terminal shows while it runs.
struct View {
    live: Option<Live>,
}

struct Live {
    all: MultiProgress,
    bar: ProgressBar,
    rules: Vec<(String, ProgressBar)>,
    alerts: Vec<ProgressBar>,
    style: Style,
}

impl View {
    fn new(wanted: bool, style: Style, rules: &Rules, rows: usize) -> Self {
        let Some(_) = style.columns().filter(|_| wanted) else {
            return View { live: None };
        };
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(10));
        let bar = all.add(ProgressBar::new(rows as u64));
        let template = "{bar:32.green/dim} {human_pos}/{human_len} rows  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        let line = || {
            let line = all.add(ProgressBar::new(1));
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                line.set_style(style);
            }
            line
        };
        let rules = rules.rules.iter().map(|rule| (rule.name.clone(), line()));
        let rules = rules.collect();
        let alerts = (0..SHOWN).map(|_| line()).collect();
        View {
            live: Some(Live {
                bar,
                rules,
                alerts,
                all,
                style,
            }),
        }
    }

    fn is_live(&self) -> bool {
        self.live.is_some()
    }

    fn update(&self, monitor: &Monitor, rows: usize, began: Instant, lines: &[Line]) {
        let Some(live) = &self.live else {
            return;
        };
        live.bar.set_position(rows as u64);
        let rate = rows as f64 / began.elapsed().as_secs_f64().max(1e-9);
        live.bar
            .set_message(format!("{} rows/s", count(rate as u64)));
        for (number, (name, line)) in live.rules.iter().enumerate() {
            let (events, suppressed) = monitor.rule_counts(number);
            let counts = format!("{:>8} alerts", count(events));
            let more = match suppressed {
                0 => String::new(),
                suppressed => format!(", {} beyond the limit", count(suppressed)),
            };
            let counts = match events {
                0 => live.style.dim(counts).to_string(),
                _ => live.style.warning(counts).to_string(),
            };
            line.set_message(format!("  {} {counts}{more}", fit(name, 28)));
        }
        let columns = live.style.columns().unwrap_or(80);
        for (slot, line) in live.alerts.iter().zip(lines.iter().rev()) {
            slot.set_message(line.shown(live.style, columns));
        }
    }

    /// Takes the view off the terminal; whether there was one.
    fn end(self) -> bool {
        let Some(live) = self.live else {
            return false;
        };
        let lines = live.rules.iter().map(|(_, line)| line).chain(&live.alerts);
        for line in lines.chain([&live.bar]) {
            line.finish_and_clear();
        }
        // A terminal that went away is no matter now.
        let _ = live.all.clear();
        true
    }
}

/// The baseline among the statistics of an earlier run.
fn baseline(text: &str) -> Result<sae::steer::Statistics, Error> {
    let value: Value = serde_json::from_str(text).map_err(|error| Error::Malformed {
        container: "json",
        what: error.to_string(),
    })?;
    match value.get("baseline") {
        Some(found) => sae::steer::Statistics::from_json(&found.to_string()),
        None => Err(Error::MissingKey {
            key: "baseline".into(),
            hint: "it is in what `sae monitor --stats` writes".into(),
        }),
    }
}

/// Reads labels: an object from number to text, or a list.
fn labels(text: &str) -> Result<Vec<(u32, String)>, Error> {
    let wrong = |found: String| Error::InvalidValue {
        key: "labels".into(),
        expected: "an object from feature to text, a list of texts, or of objects with index and \
                   description"
            .into(),
        found,
    };
    let value: Value = serde_json::from_str(text).map_err(|error| Error::Malformed {
        container: "json",
        what: error.to_string(),
    })?;
    // Neuronpedia's exports are lists of objects.
    let named = |value: &Value| {
        let number = value.get("index")?;
        let number = number.as_u64().or_else(|| number.as_str()?.parse().ok())?;
        let text = value.get("description")?.as_str()?;
        Some((u32::try_from(number).ok()?, text.to_string()))
    };
    let one = |feature: Option<u32>, value: &Value| match (feature, value) {
        (_, value) if value.is_object() => match named(value) {
            Some(pair) => Ok(Some(pair)),
            None => Err(wrong(value.to_string().chars().take(60).collect())),
        },
        (Some(feature), Value::String(label)) => Ok(Some((feature, label.clone()))),
        (Some(_), Value::Null) => Ok(None),
        (_, other) => Err(wrong(other.to_string().chars().take(60).collect())),
    };
    let pairs: Result<Vec<Option<(u32, String)>>, Error> = match &value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| one(key.parse().ok(), value))
            .collect(),
        Value::Array(list) => (0u32..)
            .zip(list)
            .map(|(i, value)| one(Some(i), value))
            .collect(),
        other => Err(wrong(other.to_string().chars().take(60).collect())),
    };
    Ok(pairs?.into_iter().flatten().collect())
}

fn text_of(path: &Path) -> Result<String, Error> {
    named(
        path,
        std::fs::read_to_string(path).map_err(|error| io("read", &error)),
    )
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    // Complete or not at all.
    let temporary = path.with_extension("partial");
    let written = std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| io("write", &error));
    named(path, written)
}

fn io(operation: &'static str, error: &std::io::Error) -> Error {
    Error::Io {
        operation,
        message: error.to_string(),
    }
}
