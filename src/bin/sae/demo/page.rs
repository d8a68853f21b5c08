//! The demo as text: cells that fill a terminal's width, plain lines elsewhere.

use super::{Results, TOP};
use crate::failure::Failure;
use crate::style::{Style, bar, count, fit, wrap};
use sae::Sae;
use std::io::Write;
use std::ops::Range;
use std::time::Duration;

/// What the SAE's makers measured on 38,740 held-out tokens (demo/README.md).
const HELD_OUT_L0: f64 = 32.2;
const HELD_OUT_FVU: f64 = 0.156;

pub(super) fn print(
    results: &Results,
    sae: &Sae<'_>,
    sentences: Range<usize>,
    top: Option<usize>,
    style: Style,
    out: &mut impl Write,
) -> Result<(), Failure> {
    heading(results, sae, style, out)?;
    let layout = style
        .columns()
        .map(|columns| Layout::new(results, columns, top));
    for sentence in sentences {
        writeln!(out)?;
        for line in wrap(
            &results.data.sentences[sentence],
            style.columns().unwrap_or(usize::MAX),
        ) {
            writeln!(out, "{}", style.title(line))?;
        }
        for (row, token) in results.tokens_of(sentence) {
            if token.special {
                continue;
            }
            match &layout {
                Some(layout) => layout.token(results, row, &token.text, style, out)?,
                None => plain(results, row, &token.text, top.unwrap_or(TOP), out)?,
            }
        }
    }
    summary(results, sae, style, out)
}

fn heading(
    results: &Results,
    sae: &Sae<'_>,
    style: Style,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let it = sae.description();
    let data = &results.data;
    writeln!(out, "{}", style.title("Sparse features of eight sentences"))?;
    let line = |key: &str, value: String, out: &mut _| entry(key, &value, style, out);
    line("model", data.model.clone(), out)?;
    line("point", data.point.clone(), out)?;
    let shape = format!(
        "{} {}, {} -> {} features, {}",
        it.publisher,
        it.architecture,
        count(it.d_in as u64),
        count(it.d_sae as u64),
        it.encoder.dtype,
    );
    line("SAE", shape, out)?;
    let legend = "per token its strongest features: value, label (tokens it fires on most)";
    line("shown", legend.into(), out)
}

fn summary(
    results: &Results,
    sae: &Sae<'_>,
    style: Style,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (quality, special) = (&results.quality, &results.special);
    writeln!(out, "\n{}", style.title("Reconstruction"))?;
    let l0 = format!(
        "{:.1} of {} features fire per token ({HELD_OUT_L0} on held-out text)",
        quality.l0,
        count(sae.d_sae() as u64),
    );
    entry("L0", &l0, style, out)?;
    let fvu = format!(
        "{:.3} of the variance is unexplained ({HELD_OUT_FVU} on held-out text)",
        quality.fvu,
    );
    entry("FVU", &fvu, style, out)?;
    let rows = format!("{} tokens; [CLS] and [SEP] are left out", quality.rows);
    entry("over", &rows, style, out)?;
    let note = format!(
        "the SAE was not trained on [CLS] and [SEP]: L0 {:.1}, FVU {:.3} over their {} rows",
        special.l0, special.fvu, special.rows,
    );
    entry("note", &note, style, out)?;

    writeln!(out, "\n{}", style.title("Time per token"))?;
    for (key, time) in [
        ("encode", &results.times.encode),
        ("decode", &results.times.decode),
    ] {
        let text = format!("{} (99 %: {})", micros(time.median), micros(time.p99));
        entry(key, &text, style, out)?;
    }
    let how = format!(
        "one token at a time, one thread, level {}",
        sae.level().name()
    );
    entry("how", &how, style, out)
}

fn micros(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros < 1000.0 {
        true => format!("{micros:.1} µs"),
        false => format!("{:.2} ms", micros / 1000.0),
    }
}

fn entry(key: &str, value: &str, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    match style.columns() {
        None => writeln!(out, "{key}: {value}")?,
        Some(columns) => {
            for (i, line) in wrap(value, columns.saturating_sub(10).max(20))
                .iter()
                .enumerate()
            {
                let key = if i == 0 { key } else { "" };
                writeln!(out, "  {} {line}", style.key(fit(key, 6)))?;
            }
        }
    }
    Ok(())
}

/// `token: 4.51 #1234 label; 3.02 #77 label`
fn plain(
    results: &Results,
    row: usize,
    token: &str,
    top: usize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    write!(out, "  {token}:")?;
    for (i, (index, value)) in results.strongest(row, top).into_iter().enumerate() {
        let separator = if i == 0 { "" } else { ";" };
        let label = results.data.label(index);
        write!(out, "{separator} {value:.2} #{index} {label}")?;
    }
    Ok(writeln!(out)?)
}

/// How the terminal's columns are used: the token, then cells of value, bar, index and label.
struct Layout {
    token: usize,
    /// Cells on a line.
    cells: usize,
    /// Features per token; more than `cells` go on further lines.
    top: usize,
    bar: usize,
    /// Columns of the index, 0 where there is no room for it.
    index: usize,
    label: usize,
    /// The value of a full bar.
    strongest: f32,
}

impl Layout {
    fn new(results: &Results, columns: usize, top: Option<usize>) -> Self {
        const INDENT: usize = 2;
        /// `12.34` and a space.
        const VALUE: usize = 6;
        const GAP: usize = 2;
        /// `#3071` and a space.
        const INDEX: usize = 6;
        let tokens = results.data.tokens.iter().filter(|token| !token.special);
        let token = tokens.map(|token| token.text.len()).max().unwrap_or(0);
        let rows = results.data.tokens.iter().enumerate();
        let rows = rows.filter(|(_, token)| !token.special);
        let strongest = rows
            .filter_map(|(row, _)| results.strongest(row, 1).first().map(|pair| pair.1))
            .fold(f32::MIN_POSITIVE, f32::max);
        let room = columns.saturating_sub(INDENT + token);
        let cells = (room / 32).clamp(1, top.unwrap_or(TOP));
        let cell = (room / cells).saturating_sub(GAP);
        let bar = if cell >= 28 { 6 } else { 0 };
        let index = if cell >= 38 { INDEX } else { 0 };
        Layout {
            token,
            cells,
            top: top.unwrap_or(cells),
            bar,
            index,
            label: cell
                .saturating_sub(VALUE + bar + usize::from(bar > 0) + index)
                .max(8),
            strongest,
        }
    }

    fn token(
        &self,
        results: &Results,
        row: usize,
        token: &str,
        style: Style,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let strongest = results.strongest(row, self.top);
        write!(out, "  {}", style.key(fit(token, self.token)))?;
        for (i, &(index, value)) in strongest.iter().enumerate() {
            if i > 0 && i % self.cells == 0 {
                write!(out, "\n  {}", fit("", self.token))?;
            }
            write!(out, "  {}", style.number(format!("{value:5.2}")))?;
            if self.bar > 0 {
                let length = f64::from(value / self.strongest);
                write!(out, " {}", style.bar(bar(length, self.bar)))?;
            }
            if self.index > 0 {
                write!(out, " {}", style.dim(format!("{:>5}", format!("#{index}"))))?;
            }
            let label = results.data.label(index);
            // The last one of a line needs no padding.
            match (i + 1) % self.cells == 0 || i + 1 == strongest.len() {
                true => write!(out, " {}", fit(label, self.label).trim_end())?,
                false => write!(out, " {}", fit(label, self.label))?,
            }
        }
        Ok(writeln!(out)?)
    }
}
