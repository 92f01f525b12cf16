//! What a topology file says about one hook.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::point::Point;

/// One script at one place, as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookDecl {
    /// Names the hook in errors, logs and counters. Unique in a set.
    pub name: String,
    /// The `.lua` file. `require` inside it sees the files of its folder.
    pub script: PathBuf,
    /// What it sees.
    pub scope: Scope,
    /// What happens when the script fails.
    pub on_error: OnError,
    /// Wall time for one call. A call that has hardly run when its time is up, because the operating system gave the core to
    /// something else, gets it a second time.
    pub time_limit: Duration,
    /// What the script may keep and use, on each worker thread, beside the interpreter itself.
    pub memory_limit_bytes: usize,
    /// Whether the script may read message bodies with `msg:body()`. Off by default, because a body has to be copied for it.
    pub body: bool,
    /// The script is called and what it decides is counted and recorded, but nothing comes of it.
    pub shadow: bool,
    /// The script is loaded anew when it, or a file beside it, changes.
    pub watch: bool,
    /// The exchange, in the vhost of the message, for publishes that the script, or a failure of it, sends to the dead letters.
    pub dead_letter_exchange: Option<String>,
}

impl HookDecl {
    /// A declaration with every default.
    #[must_use]
    pub fn new(name: impl Into<String>, script: impl Into<PathBuf>, scope: Scope) -> Self {
        Self {
            name: name.into(),
            script: script.into(),
            scope,
            on_error: OnError::default(),
            time_limit: TIME_LIMIT_DEFAULT,
            memory_limit_bytes: MEMORY_LIMIT_BYTES_DEFAULT,
            body: false,
            shadow: false,
            watch: false,
            dead_letter_exchange: None,
        }
    }
}

/// What a hook sees. A message passes the hooks of the broker, then those of its vhost, then those of its exchange or queue;
/// within one of the three, in the order of declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Broker,
    /// What happens in this vhost.
    Vhost(String),
    /// Publishes to this exchange, and its declaration; the default exchange has the empty name.
    Exchange {
        /// The vhost of the exchange.
        vhost: String,
        /// The name of the exchange.
        exchange: String,
    },
    /// Deliveries from this queue, what dies in it, and its declaration.
    Queue {
        /// The vhost of the queue.
        vhost: String,
        /// The name of the queue.
        queue: String,
    },
}

/// Where something happens that hooks may want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site<'a> {
    /// At an exchange.
    Exchange(&'a str),
    /// At a queue.
    Queue(&'a str),
    /// In the vhost as a whole.
    Vhost,
}

impl Scope {
    /// Whether what happens at `site` in `vhost` is seen.
    #[must_use]
    pub fn covers(&self, vhost: &str, site: Site<'_>) -> bool {
        match self {
            Self::Broker => true,
            Self::Vhost(name) => name == vhost,
            Self::Exchange { vhost: in_vhost, exchange } => in_vhost == vhost && site == Site::Exchange(exchange),
            Self::Queue { vhost: in_vhost, queue } => in_vhost == vhost && site == Site::Queue(queue),
        }
    }

    /// Whether a hook at this place can be called at the point.
    pub(super) const fn has(&self, point: Point) -> bool {
        match self {
            Self::Broker | Self::Vhost(_) => true,
            Self::Exchange { .. } => matches!(point, Point::Publish | Point::Declare),
            Self::Queue { .. } => matches!(point, Point::Deliver | Point::DeadLetter | Point::Declare),
        }
    }

    /// The place in the chain: broker, vhost, exchange or queue.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::Broker => 0,
            Self::Vhost(_) => 1,
            Self::Exchange { .. } | Self::Queue { .. } => 2,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str("broker"),
            Self::Vhost(vhost) => write!(f, "vhost '{vhost}'"),
            Self::Exchange { vhost, exchange } => write!(f, "exchange '{exchange}' in vhost '{vhost}'"),
            Self::Queue { vhost, queue } => write!(f, "queue '{queue}' in vhost '{vhost}'"),
        }
    }
}

/// What happens when a hook fails, whatever the failure: an error in the script, a budget that ran out, a return value that
/// means nothing. What each of them means at which point is in the table of [`crate::hooks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// Whoever publishes, consumes, connects or declares gets the error. The default: nothing passes unseen, nothing is lost
    /// silently.
    #[default]
    Reject,
    /// The message goes on as it came to this hook.
    Pass,
    /// The message is dropped.
    Drop,
    /// The message goes to the dead letters.
    DeadLetter,
}

impl OnError {
    /// The word in the topology file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::DeadLetter => "dead_letter",
        }
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ten thousand times what a simple hook takes, and still short enough that one bad message does not show in the
/// latency of its neighbours as an outage.
pub const TIME_LIMIT_DEFAULT: Duration = Duration::from_millis(5);

/// Enough for lookup tables of some ten thousand entries; a hundred worker threads with it stay under 1 GiB.
pub const MEMORY_LIMIT_BYTES_DEFAULT: usize = 8 << 20;
