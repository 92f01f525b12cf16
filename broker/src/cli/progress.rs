//! How far long work is: a bar on a terminal, nothing elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over within this is not worth a bar.
const QUIET: Duration = Duration::from_millis(700);

/// A bar that appears when the work turns out to take long, and goes with the value.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    start: Instant,
    bar: Option<ProgressBar>,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, start: Instant::now(), bar: None, is_shown: std::io::stderr().is_terminal() }
    }

    /// So many are done, of so many if that is known.
    pub(super) fn set(&mut self, done: u64, all: Option<u64>) {
        if !self.is_shown || self.start.elapsed() < QUIET {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let template = match all {
                Some(_) => "{msg} {bar:30} {pos}/{len} {per_sec}",
                None => "{msg} {spinner} {pos} {per_sec}",
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(all, ProgressDrawTarget::stderr());
            bar.with_style(style).with_message(self.what).with_elapsed(self.start.elapsed())
        });
        if let Some(all) = all {
            bar.set_length(all);
        }
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
