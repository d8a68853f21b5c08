//! Progress on stderr, in a terminal only, and only for work that lasts.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Work that ends sooner shows nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// A bar over a known number of rows.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, rows: usize) -> Self {
        Self::of(what, rows, "rows")
    }

    /// Over steps of other kinds.
    pub(crate) fn steps(what: &'static str, steps: usize) -> Self {
        Self::of(what, steps, "steps")
    }

    fn of(what: &'static str, rows: usize, unit: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(rows as u64), ProgressDrawTarget::hidden());
        let template = format!(
            "{{msg}} {{bar:32.green/dim}} {{human_pos}}/{{human_len}} {unit}, {{eta}} left"
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_message(what);
        Progress {
            bar,
            began: Instant::now(),
            shown: false,
        }
    }

    pub(crate) fn advance(&mut self, rows: usize) {
        self.bar.inc(rows as u64);
        if !self.shown && self.began.elapsed() > PATIENCE {
            self.shown = true;
            // Draws nothing unless stderr is a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Steps of work that says how far it is, perhaps several times over, and after the last of them
/// does something that cannot say: a bar, then a spinner.
pub(crate) struct Steps {
    what: &'static str,
    began: Instant,
    bar: Option<Progress>,
    done: usize,
    spinner: Option<ProgressBar>,
}

impl Steps {
    pub(crate) fn new(what: &'static str) -> Self {
        Steps {
            what,
            began: Instant::now(),
            bar: None,
            done: 0,
            spinner: None,
        }
    }

    pub(crate) fn at(&mut self, done: usize, all: usize) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
            self.done = 0;
        }
        let (what, began) = (self.what, self.began);
        let bar = self.bar.get_or_insert_with(|| {
            let mut bar = Progress::steps(what, all);
            bar.began = began;
            bar
        });
        bar.advance(done.saturating_sub(self.done));
        self.done = done;
        if done == all {
            self.bar = None;
            // Shows nothing unless stderr is a terminal.
            let spinner = ProgressBar::new_spinner().with_message(what);
            spinner.enable_steady_tick(Duration::from_millis(100));
            self.spinner = Some(spinner);
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// A bar over bytes, for the work of a pack: one for each thing that is done.
pub(crate) struct BytesProgress {
    bar: ProgressBar,
    what: &'static str,
    began: Instant,
    shown: bool,
}

impl BytesProgress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = "{msg} {bar:32.green/dim} {bytes}/{total_bytes}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        BytesProgress {
            bar,
            what: "",
            began: Instant::now(),
            shown: false,
        }
    }

    pub(crate) fn show(&mut self, progress: sae::pack::Progress) {
        if progress.what != self.what {
            self.what = progress.what;
            self.bar.reset_eta();
            self.bar.set_message(progress.what);
        }
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
        if !self.shown && self.began.elapsed() > PATIENCE {
            self.shown = true;
            // Draws nothing unless stderr is a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for BytesProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Runs `work`, with a spinner if it lasts: for steps that cannot say how far they are.
pub(crate) fn while_waiting<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        scope.spawn(move || spin(what, &wait));
        let result = work();
        drop(done);
        result
    })
}

/// Turns until the other end of `wait` is dropped.
fn spin(what: &'static str, wait: &mpsc::Receiver<()>) {
    let still_working = |pause| wait.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
    if !still_working(PATIENCE) {
        return;
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    while still_working(Duration::from_millis(100)) {
        spinner.tick();
    }
    spinner.finish_and_clear();
}
