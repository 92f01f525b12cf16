//! The readable account of a run: one line for each thing that happens, with the time in milliseconds.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;

use crate::facts::{Facts, Taker};
use crate::history::Event;

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Off,
    Print,
    /// Every turn is told of, too.
    PrintTurns,
    /// They are only compared.
    Hash,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    mode: Mode,
    hasher: DefaultHasher,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new(Mode::Off)
    }
}

impl Trace {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, hasher: DefaultHasher::new() }
    }

    /// The same for runs that did the same.
    pub(crate) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// One line; `who` did it.
    pub(crate) fn line(&mut self, now_ms: u64, who: &str, text: impl FnOnce() -> String) {
        match self.mode {
            Mode::Off => {}
            Mode::Print | Mode::PrintTurns => {
                if writeln!(std::io::stdout().lock(), "{now_ms:>7} {who:<14} {}", text()).is_err() {
                    // Whoever reads it has seen enough.
                    std::process::exit(0);
                }
            }
            Mode::Hash => (now_ms, who, text()).hash(&mut self.hasher),
        }
    }

    /// Whose turn it is.
    pub(crate) fn turn(&mut self, now_ms: u64, text: impl FnOnce() -> String) {
        if matches!(self.mode, Mode::PrintTurns | Mode::Hash) {
            self.line(now_ms, ".", text);
        }
    }

    /// What an event says that no frame does.
    pub(crate) fn event(&mut self, facts: &Facts, event: &Event) {
        if self.mode == Mode::Off {
            return;
        }
        let text = match event {
            Event::Delivered(id) => {
                let delivery = facts.delivery(*id);
                let taker = match delivery.taker {
                    Taker::Consumer(consumer) => format!("consumer {}", consumer.0),
                    Taker::Getter => "basic.get".to_owned(),
                };
                let queue = &facts.queue(delivery.queue).plan.name;
                let death = delivery.death.map_or_else(String::new, |death| {
                    format!(", which died in {} of {:?},", facts.queue(death.queue).plan.name, death.reason)
                });
                let again = if delivery.redelivered { ", redelivered" } else { "" };
                format!("message {} of {queue}{death} reaches {taker}{again}", delivery.publish.0)
            }
            Event::Published(id) => {
                let publish = facts.publish(*id);
                let targets: Vec<&str> =
                    publish.targets.iter().map(|(queue, _)| facts.queue(*queue).plan.name.as_str()).collect();
                format!("message {} for {targets:?}, {} bytes", id.0, publish.body_bytes)
            }
            Event::Settled { deliveries, how } => {
                let messages: Vec<usize> = deliveries.iter().map(|id| facts.delivery(*id).publish.0).collect();
                format!("messages {messages:?} are settled: {how:?}")
            }
            Event::ConfirmFrame { .. } | Event::Processed { .. } => return,
            other => format!("{other:?}"),
        };
        self.line(facts.now_ms, "", || format!("  = {text}"));
    }
}
