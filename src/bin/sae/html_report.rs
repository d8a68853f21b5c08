//! `sae report`: statistics as one page that needs no network.

use crate::failure::Failure;
use crate::output;
use crate::style::count;
use sae::Error;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

/// Write statistics as one self-contained HTML page.
///
/// The page has the density of the features, the most active ones with their labels, what fired
/// over time, and the alerts. It loads nothing and runs no script.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  sae monitor CHECKPOINT rows.npy --rules rules.json --stats stats.json\n  sae report stats.json -o report.html"
)]
pub(crate) struct Args {
    /// What `sae monitor --stats` wrote
    #[arg(value_name = "STATS.json")]
    stats: PathBuf,

    /// The page to write
    #[arg(short, long, value_name = "OUT.html")]
    output: PathBuf,

    /// Features in the table
    #[arg(long, value_name = "N", default_value_t = 40)]
    top: usize,
}

pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    output::check(&args.output, &[&args.stats])?;
    let file = |error: Error| error.in_file(args.stats.display().to_string());
    let text = std::fs::read_to_string(&args.stats).map_err(|error| {
        file(Error::Io {
            operation: "read",
            message: error.to_string(),
        })
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        file(Error::Malformed {
            container: "json",
            what: error.to_string(),
        })
    })?;
    if value["format"] != "sae monitor" || value["version"] != 1 {
        return Err(file(Error::InvalidValue {
            key: "format, version".into(),
            expected: "statistics of `sae monitor --stats`, version 1".into(),
            found: format!("{}, {}", value["format"], value["version"]),
        })
        .into());
    }
    let page = page(&value, args.top);
    std::fs::write(&args.output, page).map_err(|error| {
        Error::Io {
            operation: "write",
            message: error.to_string(),
        }
        .in_file(args.output.display().to_string())
    })?;
    writeln!(out, "{}", args.output.display())?;
    Ok(())
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2733;--soft:#5b6877;--line:#d9e0e7;--paper:#fff;--fill:#2f6fb3;\
--warm:#c2571a;--ground:#f5f7f9}\
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#9aa7b4;--line:#33404d;--paper:#17202a;\
--fill:#6aa5e0;--warm:#e58a4f;--ground:#10171e}}\
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}main{max-width:1080px;margin:0 auto;padding:32px 20px}\
h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:0 0 12px}p{margin:4px 0;color:var(--soft)}\
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:20px;\
margin:18px 0}.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(135px,1fr));gap:14px}\
.numbers b{display:block;font-size:22px;font-weight:600}.numbers span{color:var(--soft);font-size:13px}\
table{border-collapse:collapse;width:100%;font-size:14px}th,td{text-align:left;padding:5px 10px 5px 0;\
border-bottom:1px solid var(--line);vertical-align:middle}th{color:var(--soft);font-weight:500}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}svg{display:block;width:100%;height:auto}\
svg text{fill:var(--soft);font:12px system-ui,sans-serif}.bar{fill:var(--fill)}.alert{fill:var(--warm)}\
.axis{stroke:var(--line)}.curve{fill:none;stroke:var(--fill);stroke-width:1.8}\
.hot{color:var(--warm);font-weight:600}code{font-size:13px}";

fn page(value: &Value, top: usize) -> String {
    let mut html = String::new();
    let model = &value["model"];
    let title = match text(&value["rules_name"]) {
        name if name.trim().is_empty() => "Monitoring".to_string(),
        name => format!("Monitoring: {name}"),
    };
    // A string takes everything.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main>\
         <h1>{title}</h1><p>{} {}, {}, {} → {} features, <code>{}</code></p>\
         <p>rows of <code>{}</code></p>",
        text(&model["publisher"]),
        text(&model["architecture"]),
        text(&model["activation"]),
        whole(&model["d_in"]),
        whole(&model["d_sae"]),
        text(&model["fingerprint"]),
        text(&value["rows_file"]),
    );
    numbers(&mut html, value);
    alerts(&mut html, value);
    over_time(&mut html, value);
    densities(&mut html, value);
    features(&mut html, value, top);
    html.push_str("</main></body></html>\n");
    html
}

fn numbers(html: &mut String, value: &Value) {
    let (counts, quality) = (&value["counts"], &value["quality"]);
    let mut all = vec![
        (whole(&counts["rows"]), "rows"),
        (whole(&counts["events"]), "alerts"),
        (whole(&counts["suppressed"]), "alerts beyond a limit"),
        (whole(&counts["non_finite"]), "rows not finite"),
        (whole(&value["dead"]), "features that never fired"),
    ];
    let number = |of: &Value, digits: usize| match of.as_f64() {
        Some(found) => format!("{found:.digits$}"),
        None => "–".into(),
    };
    if quality.is_object() {
        all.push((number(&quality["l0"], 1), "active features per row (L0)"));
        all.push((number(&quality["fvu"], 3), "variance unexplained (FVU)"));
        all.push((number(&quality["cosine"], 3), "cosine with reconstruction"));
        all.push((
            number(&quality["reconstruction_bias"], 3),
            "reconstruction bias (1 is none)",
        ));
    }
    if !value["description_length"].is_null() {
        all.push((
            number(&value["description_length"], 0),
            "bits per row (description length)",
        ));
    }
    html.push_str("<section class=\"numbers\" id=\"numbers\">");
    for (value, name) in all {
        let _ = write!(html, "<div><b>{value}</b><span>{name}</span></div>");
    }
    html.push_str("</section>");
}

fn alerts(html: &mut String, value: &Value) {
    html.push_str("<section id=\"alerts\"><h2>Alerts</h2>");
    let rules = list(&value["rules"]);
    if rules.is_empty() {
        html.push_str("<p>There are no rules.</p></section>");
        return;
    }
    html.push_str(
        "<table><tr><th>rule</th><th>kind</th><th class=\"n\">alerts</th>\
         <th class=\"n\">beyond limit</th></tr>",
    );
    for rule in rules {
        let hot = if rule["events"].as_u64() > Some(0) {
            " hot"
        } else {
            ""
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td class=\"n{hot}\">{}</td><td class=\"n\">{}</td></tr>",
            text(&rule["name"]),
            text(&rule["kind"]),
            whole(&rule["events"]),
            whole(&rule["suppressed"]),
        );
    }
    html.push_str("</table>");
    let events = list(&value["events"]);
    if !events.is_empty() {
        let total = value["counts"]["events"].as_u64().unwrap_or(0);
        let shown = events.len().min(25);
        let _ = write!(
            html,
            "<h2 style=\"margin-top:20px\">The first {} of {}</h2><table><tr><th>rule</th>\
             <th class=\"n\">stream</th><th class=\"n\">row</th><th class=\"n\">score</th>\
             <th>features</th></tr>",
            shown,
            count(total)
        );
        for event in events.iter().take(shown) {
            let features = list(&event["features"]).iter().map(|one| {
                let label = one["label"]
                    .as_str()
                    .map(|label| format!(" {}", escape(label)));
                format!(
                    "#{} {:.2}{}",
                    whole_plain(&one["feature"]),
                    one["value"].as_f64().unwrap_or(0.0),
                    label.unwrap_or_default()
                )
            });
            let _ = write!(
                html,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{:.3}</td><td>{}</td></tr>",
                text(&event["rule"]),
                whole_plain(&event["stream"]),
                whole_plain(&event["position"]),
                event["score"].as_f64().unwrap_or(f64::INFINITY),
                features.collect::<Vec<_>>().join(", "),
            );
        }
        html.push_str("</table>");
    }
    html.push_str("</section>");
}

const WIDTH: f64 = 1000.0;
/// Room for the numbers of an axis.
const LEFT: f64 = 48.0;

fn over_time(html: &mut String, value: &Value) {
    let time = &value["time"];
    let numbers = |of: &Value| -> Vec<f64> {
        list(of)
            .iter()
            .map(|one| one.as_f64().unwrap_or(0.0))
            .collect()
    };
    let (rows, active) = (numbers(&time["rows"]), numbers(&time["active"]));
    if rows.is_empty() {
        return;
    }
    let per_point = whole(&time["rows_per_point"]);
    let _ = write!(
        html,
        "<section id=\"time\"><h2>Over time</h2><p>Each point is {per_point} rows.</p>"
    );
    let share = |counts: &[f64]| -> Vec<f64> {
        counts
            .iter()
            .zip(&rows)
            .map(|(count, rows)| count / rows.max(1.0))
            .collect()
    };
    chart(html, "active features per row", &share(&active), "curve");
    let events = list(&time["events"]);
    for (rule, counts) in list(&value["rules"]).iter().zip(events) {
        let counts = numbers(counts);
        if counts.iter().any(|&count| count > 0.0) {
            chart(
                html,
                &format!("alerts of {}", text(&rule["name"])),
                &counts,
                "alert",
            );
        }
    }
    if let Some(fired) = time["fired"].as_object() {
        let mut watched: Vec<(&String, Vec<f64>)> = fired
            .iter()
            .map(|(feature, counts)| (feature, share(&numbers(counts))))
            .collect();
        watched.sort_by(|a, b| b.1.iter().sum::<f64>().total_cmp(&a.1.iter().sum::<f64>()));
        for (feature, shares) in watched.iter().take(6) {
            if shares.iter().any(|&share| share > 0.0) {
                let name = format!(
                    "share of rows in which feature {feature} fires{}",
                    named(value, feature)
                );
                chart(html, &name, shares, "bar");
            }
        }
    }
    html.push_str("</section>");
}

/// The label of a feature, if the statistics know one.
fn named(value: &Value, feature: &str) -> String {
    let features = list(&value["statistics"]["features"]);
    let number = feature.parse().ok();
    let one = features
        .iter()
        .find(|one| one["feature"].as_u64() == number);
    match one.and_then(|one| one["label"].as_str()) {
        Some(label) => format!(" ({})", escape(label)),
        None => String::new(),
    }
}

/// A row of bars, or a curve. `title` is escaped.
fn chart(html: &mut String, title: &str, values: &[f64], class: &str) {
    const HEIGHT: f64 = 74.0;
    let max = values.iter().copied().fold(0.0, f64::max);
    let max = if max > 0.0 { max } else { 1.0 };
    let step = (WIDTH - LEFT) / values.len().max(1) as f64;
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\"><title>{title}</title>\
         <text x=\"{LEFT}\" y=\"14\">{title}</text>\
         <text x=\"{}\" y=\"32\" text-anchor=\"end\">{}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">0</text>\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{}\" y2=\"{}\"/>",
        HEIGHT + 24.0,
        LEFT - 6.0,
        short(max),
        LEFT - 6.0,
        HEIGHT + 20.0,
        HEIGHT + 20.0,
        HEIGHT + 20.0,
    );
    let y = |value: f64| HEIGHT + 20.0 - value / max * (HEIGHT - 4.0);
    if class == "curve" {
        let points = values
            .iter()
            .enumerate()
            .map(|(at, &value)| format!("{:.1},{:.1}", LEFT + (at as f64 + 0.5) * step, y(value)));
        let points: Vec<String> = points.collect();
        let _ = write!(
            html,
            "<polyline class=\"curve\" points=\"{}\"/>",
            points.join(" ")
        );
    } else {
        for (at, &value) in values.iter().enumerate().filter(|pair| *pair.1 > 0.0) {
            let _ = write!(
                html,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                LEFT + at as f64 * step + 0.5,
                y(value),
                (step - 1.0).max(0.8),
                HEIGHT + 20.0 - y(value),
            );
        }
    }
    html.push_str("</svg>");
}

/// Half a decade each, from 10^-5.
const DECADES: f64 = 5.0;

fn densities(html: &mut String, value: &Value) {
    const BINS: usize = 20;
    const HEIGHT: f64 = 180.0;
    let features = list(&value["statistics"]["features"]);
    if features.is_empty() {
        return;
    }
    let mut bins = [0u64; BINS];
    for feature in features {
        let density = feature["density"].as_f64().unwrap_or(0.0).max(1e-9);
        let place = (density.log10() + DECADES) / DECADES * BINS as f64;
        bins[(place.max(0.0) as usize).min(BINS - 1)] += 1;
    }
    let max = bins.iter().copied().max().unwrap_or(1).max(1) as f64;
    let step = (WIDTH - LEFT) / BINS as f64;
    let base = HEIGHT + 10.0;
    let _ = write!(
        html,
        "<section id=\"density\"><h2>Density of features</h2><p>How many features fire in which \
         share of the rows. {} of {} never did.</p>\
         <svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\"><title>Histogram of densities</title>\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{base}\" y2=\"{base}\"/>",
        whole(&value["dead"]),
        whole(&value["statistics"]["collected"]),
        HEIGHT + 36.0,
    );
    for (at, &found) in bins.iter().enumerate() {
        let height = found as f64 / max * (HEIGHT - 20.0);
        let x = LEFT + at as f64 * step;
        if found > 0 {
            let _ = write!(
                html,
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x + 1.0,
                base - height,
                step - 2.0,
                x + step / 2.0,
                base - height - 4.0,
                count(found),
            );
        }
        if at.is_multiple_of(4) {
            let exponent = at as f64 / BINS as f64 * DECADES - DECADES;
            let _ = write!(
                html,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                base + 18.0,
                percent(10f64.powf(exponent)),
            );
        }
    }
    let _ = write!(
        html,
        "<text x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">100 %</text></svg></section>",
        base + 18.0
    );
}

fn features(html: &mut String, value: &Value, top: usize) {
    let features = list(&value["statistics"]["features"]);
    if features.is_empty() {
        return;
    }
    let number = |one: &Value, key: &str| one[key].as_f64().unwrap_or(0.0);
    let mut sorted: Vec<&Value> = features.iter().collect();
    sorted.sort_by(|a, b| number(b, "mean").total_cmp(&number(a, "mean")));
    let _ = write!(
        html,
        "<section id=\"features\"><h2>Most active features</h2><p>By their mean over all rows: the \
         first {} of {} that fired.</p><table><tr><th class=\"n\">feature</th><th>label</th>\
         <th class=\"n\">fires in</th><th class=\"n\">mean, active</th><th class=\"n\">max</th>\
         <th>magnitudes</th><th class=\"n\">max at row</th></tr>",
        count(sorted.len().min(top) as u64),
        count(sorted.len() as u64),
    );
    for one in sorted.into_iter().take(top) {
        let at = &one["max_at"];
        let place = match at[0].as_u64() {
            Some(0) | None => whole_plain(&at[1]),
            Some(stream) => format!("{stream} : {}", whole_plain(&at[1])),
        };
        let _ = write!(
            html,
            "<tr><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td>\
             <td class=\"n\">{:.3}</td><td style=\"width:150px\">{}</td><td class=\"n\">{place}</td></tr>",
            whole_plain(&one["feature"]),
            text(&one["label"]),
            percent(number(one, "density")),
            number(one, "mean_active"),
            number(one, "max"),
            spark(&one["histogram"]),
        );
    }
    html.push_str("</table></section>");
}

/// A small histogram of the bins that are not all empty at either end.
fn spark(value: &Value) -> String {
    let counts: Vec<f64> = list(value)
        .iter()
        .map(|one| one.as_f64().unwrap_or(0.0))
        .collect();
    let first = counts.iter().position(|&count| count > 0.0).unwrap_or(0);
    let last = counts.iter().rposition(|&count| count > 0.0).unwrap_or(0);
    let counts = counts.get(first..=last).unwrap_or(&[]);
    let max = counts.iter().copied().fold(1.0, f64::max);
    let mut svg = String::from("<svg viewBox=\"0 0 150 22\">");
    let step = (150.0 / counts.len().max(1) as f64).min(18.0);
    for (at, &found) in counts.iter().enumerate() {
        let height = found / max * 20.0;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            at as f64 * step,
            22.0 - height,
            step - 1.0,
        );
    }
    svg.push_str("</svg>");
    svg
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text of the file, made harmless.
fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or(""))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn whole(value: &Value) -> String {
    value.as_u64().map_or("–".into(), count)
}

fn whole_plain(value: &Value) -> String {
    value
        .as_u64()
        .map_or("–".into(), |number| number.to_string())
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p >= 10.0 => format!("{p:.0} %"),
        p if p >= 0.1 => format!("{p:.1} %"),
        p => format!("{p:.3} %"),
    }
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1000.0 => count(v as u64),
        v if v >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}
