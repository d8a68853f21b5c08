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
        let bar = ProgressBar::with_draw_target(Some(rows as u64), ProgressDrawTarget::hidden());
        let template = "{msg} {bar:32.green/dim} {human_pos}/{human_len} rows, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
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
