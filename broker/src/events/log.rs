//! Lines of the log, for whoever wants to follow it from outside: `amq.rabbitmq.log` (semantics 29.3).
//!
//! There is one log of the process, so there is one feed of its lines. [`LogLayer`] is what brings them here; without it in the process's
//! subscriber nobody hears anything.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::feed::{self, Feed};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// `debug`, `info`, `warning` or `error`: RabbitMQ's names. What is finer than debug is debug.
    pub level: &'static str,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The message with its fields.
    pub text: String,
}

/// Lines since it was made.
pub type LogSubscription = feed::Subscription<LogLine>;

/// Longer lines are cut: they quote what clients sent.
const LINE_BYTES_MAX: usize = 16 * 1024;

static LINES: LazyLock<Feed<LogLine>> = LazyLock::new(Feed::default);

thread_local! {
    static IS_DEAF: Cell<bool> = const { Cell::new(false) };
}

/// The log from now on.
pub fn follow_log() -> LogSubscription {
    LINES.subscribe()
}

/// Does something whose own lines nobody follows: what is logged about the passing on of a line must not be passed on itself, for ever.
pub fn unfollowed<T>(act: impl FnOnce() -> T) -> T {
    IS_DEAF.set(true);
    let result = act();
    IS_DEAF.set(false);
    result
}

/// Hands the lines of the log to those who follow it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLayer;

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !LINES.is_watched() || IS_DEAF.get() {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let Text(mut text) = text;
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let bytes = size_of::<LogLine>() + text.len();
        LINES.send(LogLine { level: level(*event.metadata().level()), at_ms, text }, bytes);
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The message first, then `name=value` for each field.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            let rest = std::mem::take(&mut self.0);
            write!(self.0, "{value:?}{rest}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::events::Next;

    /// Semantics 29.3.
    #[test]
    fn lines_have_rabbitmqs_levels_and_their_fields() {
        let mut lines = follow_log();
        let subscriber = tracing_subscriber::registry().with(LogLayer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(queue = "orders", count = 3, "queue is long");
            unfollowed(|| tracing::error!("about a line"));
            tracing::error!("{}", "x".repeat(2 * LINE_BYTES_MAX));
        });
        let mut next = || match lines.try_next() {
            Some(Next::News(line)) => line,
            other => panic!("{other:?} instead of a line"),
        };
        let line = next();
        assert_eq!((line.level, line.text.as_str()), ("warning", "queue is long queue=orders count=3"));
        assert_eq!((next().text.len(), lines.try_next()), (LINE_BYTES_MAX, None));
    }
}
