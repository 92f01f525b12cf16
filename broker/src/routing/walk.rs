//! The way of a message through exchanges to queues (semantics 11.1, 11.2, 11.12 to 11.14).

use std::collections::VecDeque;
use std::sync::Arc;

use plugin_api::exchange::{DependsOn, Wish};
use plugin_api::message::Message as View;

use super::exchange::{Destination, Exchange};
use crate::plugin_host::TypeError;
use crate::vhost::{QueueRecord, reply_to};

/// The names that the walk has to look up.
pub trait Tables {
    /// The exchange of that name.
    fn exchange(&self, name: &str) -> Option<&Arc<Exchange>>;
    /// The queue of that name, that behind a reply consumer included.
    fn queue(&self, name: &str) -> Option<&Arc<QueueRecord>>;
}

/// Where a message goes.
#[derive(Debug, Default)]
pub struct Route {
    /// Each queue once.
    pub queues: Vec<Arc<QueueRecord>>,
    /// Exchanges on the way that put the message off, so that it comes to them again later, or have it kept over a restart.
    pub wishes: Vec<(Arc<Exchange>, Wish)>,
    /// The same exchange and key lead here until a binding, an exchange or a queue changes.
    pub is_cacheable: bool,
}

/// Finds the queues of a message that is published to `start` with `keys`: its routing key, then CC and BCC.
///
/// Exchanges are visited breadth-first and each once, so loops end. An alternate exchange is asked when an exchange's own type
/// finds no destination, whatever others find (semantics 11.14). One that puts the message off has not been asked for good yet.
///
/// # Errors
/// The type of an exchange on the way has failed, with the exchange's name.
pub fn route(
    tables: &impl Tables,
    start: &Arc<Exchange>,
    message: &View<'_>,
    keys: &[&str],
) -> Result<Route, (Arc<str>, TypeError)> {
    walk(tables, start, message, keys, &mut Nobody)
}

/// Who looks on while a message finds its way, which is otherwise that of every message.
pub(super) trait Watcher {
    /// Whether the type of this exchange may be asked. If not, the way ends there for all that is known.
    fn may_ask(&mut self, exchange: &Arc<Exchange>) -> bool;
    /// The default exchange has been asked, which goes by the names of queues.
    fn named(&mut self, exchange: &Arc<Exchange>, queues: &mut dyn Iterator<Item = &Arc<QueueRecord>>);
    /// An exchange has been asked: the slots of the bindings that it chose, and what its type wants beside.
    fn asked(&mut self, exchange: &Arc<Exchange>, slots: &[u32], wish: Option<&Wish>);
    /// Nothing was found at the exchange that was asked last, which goes on to this one if it exists.
    fn alternate(&mut self, name: &Arc<str>, is_there: bool);
    /// The type of an exchange has failed.
    ///
    /// # Errors
    /// The failure, where the way ends with it.
    fn failed(&mut self, exchange: &Arc<Exchange>, error: TypeError) -> Result<(), TypeError>;
}

/// Nobody looks on.
struct Nobody;

impl Watcher for Nobody {
    #[inline]
    fn may_ask(&mut self, _: &Arc<Exchange>) -> bool {
        true
    }

    #[inline]
    fn named(&mut self, _: &Arc<Exchange>, _: &mut dyn Iterator<Item = &Arc<QueueRecord>>) {}

    #[inline]
    fn asked(&mut self, _: &Arc<Exchange>, _: &[u32], _: Option<&Wish>) {}

    #[inline]
    fn alternate(&mut self, _: &Arc<str>, _: bool) {}

    #[inline]
    fn failed(&mut self, _: &Arc<Exchange>, error: TypeError) -> Result<(), TypeError> {
        Err(error)
    }
}

/// As [`route`], watched.
pub(super) fn walk(
    tables: &impl Tables,
    start: &Arc<Exchange>,
    message: &View<'_>,
    keys: &[&str],
    watcher: &mut impl Watcher,
) -> Result<Route, (Arc<str>, TypeError)> {
    let mut found = Route { queues: Vec::new(), wishes: Vec::new(), is_cacheable: keys.len() == 1 };
    let mut seen_queues = Seen::default();
    let mut seen_exchanges = Seen::default();
    seen_exchanges.insert(start.number);
    let mut waiting = VecDeque::from([Arc::clone(start)]);
    let mut slots = Vec::new();
    while let Some(exchange) = waiting.pop_front() {
        let mut has_destination = false;
        let mut visit =
            |destination: &Destination, found: &mut Route, waiting: &mut VecDeque<Arc<Exchange>>| match destination {
                Destination::Queue(queue) if seen_queues.insert(queue.number) => {
                    found.queues.push(Arc::clone(queue));
                }
                Destination::Exchange(next) if seen_exchanges.insert(next.number) => {
                    waiting.push_back(Arc::clone(next));
                }
                Destination::Queue(_) | Destination::Exchange(_) => {}
            };
        if exchange.is_default() {
            // Reply queues come and go, and no route is worth remembering for one.
            found.is_cacheable &= !keys.iter().any(|key| reply_to::is_reply_name(key));
            for queue in keys.iter().filter_map(|key| tables.queue(key)) {
                has_destination = true;
                visit(&Destination::Queue(Arc::clone(queue)), &mut found, &mut waiting);
            }
            watcher.named(&exchange, &mut keys.iter().filter_map(|key| tables.queue(key)));
        } else if watcher.may_ask(&exchange) {
            let asked = exchange.destinations(message, keys, &mut slots, |destination| {
                has_destination = true;
                visit(destination, &mut found, &mut waiting);
            });
            let wish = match asked {
                Ok(wish) => wish,
                Err(error) => {
                    watcher.failed(&exchange, error).map_err(|error| (Arc::clone(&exchange.name), error))?;
                    continue;
                }
            };
            watcher.asked(&exchange, &slots, wish.as_ref());
            match wish {
                Some(hold @ Wish::Hold(_)) => {
                    has_destination = true;
                    found.wishes.push((Arc::clone(&exchange), hold));
                }
                // There is nothing to outlive the broker in.
                Some(keep @ Wish::Keep(_)) if exchange.is_stored => found.wishes.push((Arc::clone(&exchange), keep)),
                Some(Wish::Keep(_)) | None => {}
            }
        } else {
            continue;
        }
        found.is_cacheable &=
            matches!(exchange.depends_on, DependsOn::Nothing | DependsOn::Key) && found.wishes.is_empty();
        if !has_destination && let Some(name) = exchange.alternate() {
            let alternate = tables.exchange(&name);
            watcher.alternate(&name, alternate.is_some());
            if let Some(alternate) = alternate {
                visit(&Destination::Exchange(Arc::clone(alternate)), &mut found, &mut waiting);
            }
        }
    }
    Ok(found)
}

/// Which queues or exchanges were met already. Few are compared, many are looked up.
#[derive(Default)]
struct Seen {
    few: Vec<u64>,
    many: hashbrown::HashSet<u64>,
}

/// From so many on a set is faster than a look at each.
const FEW_MAX: usize = 16;

impl Seen {
    /// Whether the number is new.
    fn insert(&mut self, number: u64) -> bool {
        if self.few.contains(&number) {
            return false;
        }
        if self.few.len() < FEW_MAX {
            self.few.push(number);
            return true;
        }
        self.many.insert(number)
    }
}
