//! Keeps messages that exchanges put off, in memory, until they are due.
//!
//! Whoever drives the broker asks [`MemoryHolder::next_due`] and calls [`Broker::release_held`] when that has come; [`run`] does so for a
//! node. Messages count for the memory alarm as those in queues do. They do not survive the process: a confirm for one says that the
//! broker has it, and no more, also for a persistent message.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Broker, Clock};
use crate::queue::{Notice, Numbers, Outlet};
use crate::vhost::held::{Held, HeldMessages, Holder};

/// So many messages are released at a time; then others may work.
const RELEASE_COUNT_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub struct MemoryHolder {
    held: Mutex<HeldMessages>,
    clock: Clock,
    /// A message is due earlier than all others.
    is_sooner: Notify,
}

impl std::fmt::Debug for MemoryHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryHolder").finish_non_exhaustive()
    }
}

impl MemoryHolder {
    /// Holds nothing yet, and goes by this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.lock().next_due()
    }
}

impl Holder for MemoryHolder {
    fn hold(&self, origin: Option<&Arc<dyn Outlet>>, messages: Vec<Held>) {
        let now = self.clock.now();
        let mut bytes = 0;
        let mut numbers = Vec::new();
        {
            let mut held = self.held.lock();
            let first = held.next_due();
            for message in messages {
                bytes += message.message.weight();
                if message.number != 0 {
                    Numbers::add(&mut numbers, message.channel, message.number);
                }
                held.insert(now.checked_add(message.delay).unwrap_or(now), message);
            }
            if held.next_due() != first {
                self.is_sooner.notify_one();
            }
        }
        if let Some(origin) = origin {
            origin.publishes_processed(bytes);
            if !numbers.is_empty() {
                origin.post(Notice::Confirmed { numbers, is_taken: true });
            }
        }
    }

    fn forget(&self, exchange: u64) {
        // Dropping many messages may take long, and others wait for the lock.
        let dropped = self.held.lock().forget(exchange);
        if !dropped.is_empty() {
            tracing::info!(
                messages = dropped.len(),
                "an exchange was deleted, and the messages that it had put off with it"
            );
        }
    }

    fn count(&self, exchange: u64) -> usize {
        self.held.lock().count(exchange)
    }
}

impl Broker {
    /// Publishes messages that are due; returns when there is more to do, if there is.
    pub fn release_held(&self, now: Instant) -> Option<Instant> {
        let due = self.holder.held.lock().take_due(now, RELEASE_COUNT_MAX);
        let mut by_vhost: HashMap<Arc<str>, Vec<Held>> = HashMap::new();
        for held in due {
            by_vhost.entry(Arc::clone(&held.vhost)).or_default().push(held);
        }
        for (name, messages) in by_vhost {
            if let Some(vhost) = self.vhost(&name) {
                vhost.release(messages);
            }
        }
        self.holder.next_due()
    }
}

/// Releases messages when they are due, for ever.
pub async fn run(broker: Arc<Broker>) {
    let mut next = broker.holder.next_due();
    loop {
        let sooner = broker.holder.is_sooner.notified();
        match next {
            None => sooner.await,
            Some(due) => {
                let _ = tokio::time::timeout_at(due.into(), sooner).await;
            }
        }
        next = broker.release_held(broker.clock.now());
        tokio::task::yield_now().await;
    }
}
