//! Telling people that the broker works on something before it serves them: a moving line on a terminal, lines of the log elsewhere.
//!
//! What is over within a second is not worth a line. How far the work is, is not known here; only that it goes on.

use std::fmt::Write as _;
use std::future::Future;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::timeout;

/// When the first word is said.
const QUIET: Duration = Duration::from_secs(1);
/// Between two lines of the log.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Between two movements of the line on a terminal.
const MOVE_EVERY: Duration = Duration::from_millis(100);

/// Carries `work` out and says that it goes on. The work must not block its thread.
pub async fn show<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        let log = |elapsed: Duration| tracing::info!(elapsed_secs = elapsed.as_secs(), "{what}: still at it");
        return report(work, QUIET, LOG_EVERY, log).await;
    }
    let mut line: Option<ProgressBar> = None;
    let result = report(work, QUIET, MOVE_EVERY, |elapsed| match &line {
        Some(line) => line.tick(),
        None => line = Some(new_line(what, elapsed)),
    })
    .await;
    if let Some(line) = line {
        line.finish_and_clear();
    }
    result
}

fn new_line(what: &'static str, elapsed: Duration) -> ProgressBar {
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_elapsed(elapsed);
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    line.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())).with_message(what)
}

/// Calls `tell` with the time since the beginning, first after `quiet` and then `every` so often, until the work is done.
async fn report<T>(
    work: impl Future<Output = T>,
    quiet: Duration,
    every: Duration,
    mut tell: impl FnMut(Duration),
) -> T {
    let start = Instant::now();
    let mut work = pin!(work);
    let mut wait = quiet;
    loop {
        if let Ok(result) = timeout(wait, &mut work).await {
            return result;
        }
        tell(start.elapsed());
        wait = every;
    }
}

/// A count with separators, such as `5,000,000`.
pub fn counted(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        let _ = text.write_char(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    #[test]
    fn work_that_goes_on_is_told_of_until_it_ends() {
        let (done, work) = tokio::sync::oneshot::channel();
        let mut done = Some(done);
        let mut told = Vec::new();
        let millisecond = Duration::from_millis(1);
        let result = block_on(report(work, millisecond, millisecond, |elapsed| {
            told.push(elapsed);
            if told.len() == 3 {
                let _ = done.take().map(|done| done.send(5));
            }
        }));
        assert_eq!(result, Ok(5));
        assert!(told.len() == 3 && told.is_sorted(), "{told:?}");
    }

    #[test]
    fn work_that_is_over_soon_is_not_told_of() {
        let hour = Duration::from_secs(3600);
        assert_eq!(block_on(report(async { 7 }, hour, hour, |_| panic!("nobody needs to know"))), 7);
    }

    #[test]
    fn counts_have_separators() {
        let shown: Vec<String> = [0, 999, 1000, 12_345, 5_000_000, u64::MAX].into_iter().map(counted).collect();
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "5,000,000", "18,446,744,073,709,551,615"]);
    }
}
