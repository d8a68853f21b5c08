//! Counts and statistics as OpenMetrics text, for hosts that serve `/metrics`.

use super::watch::Monitor;
use core::fmt::{self, Write};

impl Monitor {
    /// Writes the counts of the monitor, its rules and its statistics of watched features as
    /// OpenMetrics text (version 1.0.0, with `# EOF`) into `buffer` and returns the bytes that the
    /// whole text has. If that is more than there is room for, the buffer holds the beginning:
    /// call again with a larger one. Allocates nothing.
    pub fn open_metrics(&self, buffer: &mut [u8]) -> usize {
        let mut out = Buffer { buffer, length: 0 };
        // A buffer takes everything.
        let _ = self.write_open_metrics(&mut out);
        out.length
    }

    /// The same, written anywhere.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_open_metrics(&self, out: &mut dyn Write) -> fmt::Result {
        let counts = self.counts();
        let dropped = self.ring().map_or(0, |ring| ring.dropped());
        let totals = [
            ("rows", "Rows watched.", counts.rows),
            (
                "non_finite_rows",
                "Rows with a NaN or an infinity.",
                counts.non_finite,
            ),
            (
                "rolled_back_rows",
                "Proposed rows that were rejected.",
                counts.rolled_back,
            ),
            (
                "refused_rows",
                "Rows of streams without a place.",
                counts.refused,
            ),
            (
                "evicted_streams",
                "Streams forgotten to make room.",
                counts.evicted,
            ),
            (
                "dropped_events",
                "Events that a full ring dropped.",
                dropped,
            ),
        ];
        for (name, help, value) in totals {
            head(out, name, "counter", help)?;
            writeln!(out, "sae_{name}_total {value}")?;
        }
        head(out, "streams", "gauge", "Streams that have a place.")?;
        writeln!(out, "sae_streams {}", self.streams())?;
        head(
            out,
            "memory_bytes",
            "gauge",
            "Bytes held, which never change.",
        )?;
        writeln!(out, "sae_memory_bytes {}", self.bytes())?;
        let rules = self.rules();
        for (name, help, which) in [
            ("events", "Alerts.", 0),
            (
                "suppressed_events",
                "Alerts beyond the limit of their rule.",
                1,
            ),
        ] {
            head(out, name, "counter", help)?;
            for rule in 0..rules.len() {
                let (events, suppressed) = self.rule_counts(rule);
                let value = [events, suppressed][which];
                let rule = Escaped(rules.rule_name(rule));
                writeln!(out, "sae_{name}_total{{rule=\"{rule}\"}} {value}")?;
            }
        }
        let Some(statistics) = self.statistics() else {
            return writeln!(out, "# EOF");
        };
        for (name, kind, help) in [
            (
                "feature_fired",
                "counter",
                "Rows in which a watched feature was active.",
            ),
            (
                "feature_density",
                "gauge",
                "Share of rows in which it was active.",
            ),
            ("feature_mean", "gauge", "Its mean over all rows."),
            ("feature_max", "gauge", "Its largest value."),
        ] {
            head(out, name, kind, help)?;
            for &feature in rules.features() {
                let Some(one) = statistics.feature(feature) else {
                    continue;
                };
                let total = if kind == "counter" { "_total" } else { "" };
                let label = Escaped(rules.label(feature).unwrap_or(""));
                write!(
                    out,
                    "sae_{name}{total}{{feature=\"{feature}\",label=\"{label}\"}} "
                )?;
                match name {
                    "feature_fired" => writeln!(out, "{}", one.fired)?,
                    "feature_density" => writeln!(out, "{}", Number(one.density))?,
                    "feature_mean" => writeln!(out, "{}", Number(one.mean))?,
                    _ => writeln!(out, "{}", Number(one.max.into()))?,
                }
            }
        }
        writeln!(out, "# EOF")
    }
}

fn head(out: &mut dyn Write, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# TYPE sae_{name} {kind}")?;
    writeln!(out, "# HELP sae_{name} {help}")
}

/// The value of a label.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            x if x == f64::INFINITY => f.write_str("+Inf"),
            x if x == f64::NEG_INFINITY => f.write_str("-Inf"),
            x => x.fmt(f),
        }
    }
}

struct Buffer<'b> {
    buffer: &'b mut [u8],
    length: usize,
}

impl Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.buffer.get_mut(self.length..).unwrap_or(&mut []);
        for (to, byte) in room.iter_mut().zip(text.bytes()) {
            *to = byte;
        }
        self.length += text.len();
        Ok(())
    }
}
