//! Where in the life of a message, a connection or a declaration scripts are called.

use std::fmt;

/// A place at which hooks run. A script has a function for each point that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A message was published, all its checks are done, and it is about to be routed.
    Publish,
    /// A message is about to be written to a consumer, or as the answer to basic.get.
    Deliver,
    /// A message has died and is about to go where its queue sends dead letters.
    DeadLetter,
    /// A client has logged in and opens a vhost.
    Connect,
    /// A client declares an exchange or a queue.
    Declare,
}

impl Point {
    /// All of them; the position of each is its number.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Deliver, Self::DeadLetter, Self::Connect, Self::Declare];

    /// The name of the function in a script.
    #[must_use]
    pub const fn function(self) -> &'static str {
        match self {
            Self::Publish => "on_publish",
            Self::Deliver => "on_deliver",
            Self::DeadLetter => "on_dead_letter",
            Self::Connect => "on_connect",
            Self::Declare => "on_declare",
        }
    }

    /// The word in metrics and in the management API.
    #[must_use]
    pub const fn stage(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Deliver => "deliver",
            Self::DeadLetter => "dead_letter",
            Self::Connect => "connect",
            Self::Declare => "declare",
        }
    }

    /// Whether a script is given a message, and not a client or a declaration.
    #[must_use]
    pub const fn has_message(self) -> bool {
        matches!(self, Self::Publish | Self::Deliver | Self::DeadLetter)
    }

    pub(super) const fn number(self) -> usize {
        self as usize
    }

    /// What a script may decide here beside letting pass, as `broker.…`.
    pub(super) const fn verdicts(self) -> &'static [&'static str] {
        match self {
            Self::Publish | Self::Deliver => &["drop", "reject", "dead_letter"],
            // Nobody is there to hear of a refusal, and a dead letter is one already.
            Self::DeadLetter => &["drop"],
            Self::Connect | Self::Declare => &["reject"],
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function())
    }
}
