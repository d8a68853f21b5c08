//! How text looks: colours and widths in a terminal, plain text elsewhere.

use std::fmt::{self, Display};
use std::io::IsTerminal;

/// When to use colours.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    /// In a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What standard output (or standard error) can show.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    colour: bool,
    /// Columns of the terminal; `None` when it is no terminal.
    columns: Option<usize>,
}

/// Columns assumed for a terminal that does not know its size.
const USUAL_COLUMNS: usize = 80;

impl Style {
    pub(crate) fn of_stdout(when: When) -> Self {
        Self::new(
            when,
            std::io::stdout().is_terminal(),
            console::Term::stdout(),
        )
    }

    pub(crate) fn of_stderr(when: When) -> Self {
        Self::new(
            when,
            std::io::stderr().is_terminal(),
            console::Term::stderr(),
        )
    }

    fn new(when: When, is_terminal: bool, terminal: console::Term) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let columns = is_terminal.then(|| match terminal.size_checked() {
            Some((_, columns)) if columns > 0 => usize::from(columns),
            _ => USUAL_COLUMNS,
        });
        Style {
            colour: match when {
                When::Always => true,
                When::Never => false,
                When::Auto => is_terminal && !set("NO_COLOR") && !dumb,
            },
            columns,
        }
    }

    /// Columns to lay text out in, or `None` when it goes to a file or another program.
    pub(crate) fn columns(self) -> Option<usize> {
        self.columns
    }

    pub(crate) fn title<T: Display>(self, text: T) -> Painted<T> {
        self.paint("1", text)
    }

    pub(crate) fn key<T: Display>(self, text: T) -> Painted<T> {
        self.paint("36", text)
    }

    pub(crate) fn dim<T: Display>(self, text: T) -> Painted<T> {
        self.paint("2", text)
    }

    pub(crate) fn number<T: Display>(self, text: T) -> Painted<T> {
        self.paint("33", text)
    }

    pub(crate) fn bar<T: Display>(self, text: T) -> Painted<T> {
        self.paint("32", text)
    }

    pub(crate) fn warning<T: Display>(self, text: T) -> Painted<T> {
        self.paint("1;33", text)
    }

    pub(crate) fn error<T: Display>(self, text: T) -> Painted<T> {
        self.paint("1;31", text)
    }

    fn paint<T: Display>(self, code: &'static str, text: T) -> Painted<T> {
        Painted {
            code: self.colour.then_some(code),
            text,
        }
    }
}

/// A text in a colour (an SGR code), or as it is.
pub(crate) struct Painted<T> {
    code: Option<&'static str>,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => self.text.fmt(f),
            Some(code) => {
                write!(f, "\x1b[{code}m")?;
                self.text.fmt(f)?;
                f.write_str("\x1b[0m")
            }
        }
    }
}

/// `text` in exactly `columns` columns: padded on the right, or cut with an ellipsis.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let cut = console::truncate_str(text, columns, "…");
    console::pad_str(&cut, columns, console::Alignment::Left, None).into_owned()
}

/// A horizontal bar of `fraction` of `columns`, in steps of an eighth of a column, padded.
pub(crate) fn bar(fraction: f64, columns: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (fraction.clamp(0.0, 1.0) * columns as f64 * 8.0).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        text.push(EIGHTHS[eighths % 8]);
    }
    let filled = text.chars().count();
    text.push_str(&" ".repeat(columns - filled));
    text
}

/// A number of bytes for people: `302.3 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would print as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with thin groups of three: `16,384`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Words of `text` in lines of at most `columns`; a longer word stays whole.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line)
                if console::measure_text_width(line) + 1 + console::measure_text_width(word)
                    <= columns =>
            {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}
