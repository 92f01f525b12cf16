//! Where the log goes and how it looks: standard error; text on a terminal, one JSON object a line otherwise.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::events::LogLayer;
use crate::topology::names::nearest;

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];

/// Starts logging for the rest of the process. A second start changes nothing.
pub(super) fn start(filter: &str) {
    let Ok(filter) = EnvFilter::try_new(filter) else { return };
    let log = registry().with(filter).with(LogLayer);
    let to_stderr = fmt::layer().with_writer(stderr);
    let _ = if stderr().is_terminal() {
        log.with(to_stderr.with_target(false)).try_init()
    } else {
        log.with(to_stderr.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    };
}

/// Accepts a level or the directives of `tracing`'s filters.
///
/// A single word that is no level would silently become the name of a module that does not exist, so it is refused.
pub(super) fn check_filter(text: &str) -> Result<String, String> {
    for part in text.split(',').map(str::trim) {
        let is_level = LEVELS.contains(&part.to_lowercase().as_str());
        let has_more = part.contains(['=', ':', '[']) || part == "broker";
        if !is_level && !has_more {
            let meant = nearest(part, LEVELS.iter().copied()).map_or_else(
                || format!("use one of {}", LEVELS.join(", ")),
                |meant| format!("did you mean '{meant}'?"),
            );
            return Err(format!("'{part}' is not a level; {meant}"));
        }
    }
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; an example is info,broker::queue=debug"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_accepted() {
        for text in
            ["info", "DEBUG", "off", "info,broker::queue=debug", "broker=trace", "warn,broker[conn{vhost=a}]=debug"]
        {
            assert_eq!(check_filter(text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn misspelled_levels_are_not_module_names() {
        assert_eq!(check_filter("inof"), Err("'inof' is not a level; did you mean 'info'?".to_owned()));
        let levels = "error, warn, info, debug, trace, off";
        assert_eq!(check_filter("loud"), Err(format!("'loud' is not a level; use one of {levels}")));
        assert_eq!(check_filter(""), Err(format!("'' is not a level; use one of {levels}")));
        assert!(check_filter("broker=loud").unwrap_err().contains("an example is"));
    }
}
