//! Dead letters: what becomes of a message that died, and where it goes (semantics 20).
//!
//! [`dead_lettered`] writes the history of its deaths into the message, [`Vhost::dead_letter`] routes it. When a message dies is the queue's
//! business; how it is kept until it has arrived, the runtime's.

use std::sync::Arc;

use hashbrown::HashSet;
use parking_lot::Mutex;
use plugin_api::message::PropertiesError;
use plugin_api::value::{Table, Value};

use super::Vhost;
use super::deliver::Batches;
use super::publish::{extra_keys, rewritten};
use super::queue_settings::DeadLetterTarget;
use crate::hooks::{HookChain, Origin, Outcome, Point, Publish, Site};
use crate::message::{Marks, Message, Parts};
use crate::queue::{Dead, DeathReason, Outlet};
use crate::routing;

/// The death that is written down.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// The queue in which it died.
    pub queue: &'a str,
    /// Why.
    pub reason: DeathReason,
    /// When, in milliseconds since the epoch.
    pub died_ms: u64,
}

/// A message on its way to where dead letters are wanted.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// With its history; exchange and routing key are the new ones.
    pub message: Arc<Message>,
    /// The keys that it is routed by.
    pub routing_keys: Vec<String>,
    /// The queues in which it died and why, most recent first.
    history: Vec<(String, String)>,
    /// Something of its history was too much to keep.
    is_cut: bool,
}

/// Writes a death into a message and makes it a dead letter (semantics 20.3 to 20.9).
///
/// The header `x-death` has one table for each queue and reason, most recent first; when there is one already, it counts on. A header of that
/// name that the broker did not write is replaced. The expiration goes, so that the message does not expire again where it is going.
///
/// # Errors
/// The properties cannot be read.
pub fn dead_lettered(
    message: &Message,
    death: Death<'_>,
    target: &DeadLetterTarget,
) -> Result<DeadLetter, PropertiesError> {
    let marks = message.marks();
    let mut properties = message.properties().to_owned()?;
    let mut headers = properties.headers.take().unwrap_or_default();
    // Checked when the message was published; nothing else is an array.
    let extra = if marks.has(Marks::SOLE_KEY) { None } else { extra_keys(message.properties()).ok().flatten() };
    let extra = extra.unwrap_or_default();
    let own_key = message.routing_key();
    let expiration = properties.expiration.take();

    let mut entries = match headers.remove(X_DEATH) {
        Some(Value::Array(entries)) if marks.has(Marks::HAS_DEATHS) => entries,
        _ => Vec::new(),
    };
    let is_first = entries.is_empty();
    let same = |entry: &Value| is_death_of(entry, death.queue, death.reason);
    let entry = match entries.iter().position(same) {
        Some(place) => counted(entries.remove(place)),
        None => {
            let mut entry = Table::new();
            if let Some(expiration) = expiration {
                entry.insert("original-expiration", Value::LongString(expiration));
            }
            entry.insert("count", Value::I64(1));
            entry.insert("reason", death.reason.name());
            entry.insert("queue", death.queue);
            entry.insert("time", Value::Timestamp(death.died_ms / 1000));
            entry.insert("exchange", message.exchange());
            let keys = std::iter::once(own_key).chain(extra.open_keys());
            entry.insert("routing-keys", Value::Array(keys.map(Value::from).collect()));
            Value::Table(entry)
        }
    };
    entries.insert(0, entry);
    let is_cut = cut(&mut entries);
    let history = entries.iter().filter_map(queue_and_reason).collect();
    headers.insert(X_DEATH, Value::Array(entries));
    for (when, is_wanted) in [("first", is_first), ("last", true)] {
        if is_wanted {
            headers.insert(&format!("x-{when}-death-reason"), death.reason.name());
            headers.insert(&format!("x-{when}-death-queue"), death.queue);
            headers.insert(&format!("x-{when}-death-exchange"), message.exchange());
        }
    }

    let mut new_marks = marks.and(Marks::HAS_DEATHS);
    let (routing_key, routing_keys) = match &target.routing_key {
        Some(key) => {
            // What hidden keys there were is of no use any more.
            headers.remove("BCC");
            new_marks = new_marks.without(Marks::HIDES_BCC).and(Marks::SOLE_KEY);
            (&**key, vec![key.to_string()])
        }
        None => (own_key, std::iter::once(own_key.to_owned()).chain(extra.keys).collect()),
    };
    properties.headers = Some(headers);
    let parts = Parts { exchange: &target.exchange, routing_key, properties: &properties.encode() };
    let message = Message::marked(parts, message.body(), new_marks);
    Ok(DeadLetter { message, routing_keys, history, is_cut })
}

impl DeadLetter {
    /// Whether a queue has had the message before and nobody rejected it since: then it would go round for ever (semantics 20.10).
    pub fn goes_round(&self, reason: DeathReason, queue: &str) -> bool {
        if reason == DeathReason::Rejected {
            return false;
        }
        let Some(place) = self.history.iter().position(|(known, _)| known == queue) else { return self.is_cut };
        self.history.iter().take(place + 1).all(|(_, reason)| reason != DeathReason::Rejected.name())
    }
}

impl DeadLetter {
    /// Whether the hooks let it go on; as they have changed it.
    fn passes(&mut self, hooks: &HookChain, vhost: &str, death: Death<'_>) -> bool {
        let origin = Origin { queue: death.queue, redelivered: false, reason: Some(death.reason.name()) };
        let publish = Publish {
            vhost,
            exchange: self.message.exchange(),
            routing_key: self.message.routing_key(),
            user: "",
            properties: self.message.properties(),
            body: self.message.body(),
        };
        match hooks.on_message(&publish, Some(&origin)) {
            Outcome::Pass => true,
            Outcome::Rewrite { routing_key, properties } => {
                self.message = rewritten(&self.message, routing_key.as_deref(), properties.as_deref());
                if let Some(routing_key) = routing_key {
                    self.routing_keys = vec![routing_key];
                }
                true
            }
            // The last two are not for dead letters.
            Outcome::Drop { hook, reason }
            | Outcome::Reject { hook, reason }
            | Outcome::DeadLetter { hook, reason, .. } => {
                tracing::debug!(vhost, queue = death.queue, hook, reason, "hook dropped a dead letter");
                false
            }
        }
    }
}

fn is_death_of(entry: &Value, queue: &str, reason: DeathReason) -> bool {
    queue_and_reason(entry).is_some_and(|(known, why)| known == queue && why == reason.name())
}

fn queue_and_reason(entry: &Value) -> Option<(String, String)> {
    let Value::Table(table) = entry else { return None };
    let text = |key| table.get(key).and_then(Value::as_str).map(str::to_owned);
    Some((text("queue")?, text("reason")?))
}

/// The same death once more; when and from where it was first stays.
fn counted(mut entry: Value) -> Value {
    if let Value::Table(table) = &mut entry {
        let count = table.get("count").and_then(Value::as_i64).unwrap_or(0);
        table.insert("count", Value::I64(count.saturating_add(1)));
    }
    entry
}

/// Forgets the oldest deaths beyond what a header may take; tells whether there were any.
fn cut(entries: &mut Vec<Value>) -> bool {
    let mut bytes = 0;
    let mut keep = 0;
    for entry in &*entries {
        if let Value::Table(table) = entry {
            let mut encoded = Vec::new();
            table.encode(&mut encoded);
            bytes += encoded.len();
        }
        if keep > 0 && bytes > HISTORY_BYTES_MAX {
            break;
        }
        keep += 1;
    }
    let is_cut = keep < entries.len();
    entries.truncate(keep);
    is_cut
}

/// Cycles that have been told of: each is logged once.
#[derive(Debug, Default)]
pub(super) struct Cycles(Mutex<HashSet<(String, String)>>);

impl Cycles {
    fn is_new(&self, died_in: &str, target: &str) -> bool {
        let mut known = self.0.lock();
        if known.len() >= CYCLES_MAX {
            known.clear();
        }
        known.insert((died_in.to_owned(), target.to_owned()))
    }
}

impl Vhost {
    /// Sends messages that died in `queue` to where they are wanted, in order, behind their hooks; nobody is returned anything. `expect` is
    /// told how many confirms `origin` will get, before the first; what has nowhere to go gets none (semantics 20.2).
    pub fn dead_letter(
        &self,
        queue: &str,
        target: &DeadLetterTarget,
        dead: Vec<Dead>,
        origin: &Arc<dyn Outlet>,
        expect: impl FnOnce(usize),
    ) {
        let Some(exchange) = self.exchange(&target.exchange) else {
            tracing::debug!(vhost = %self.name, queue, exchange = %target.exchange, messages = dead.len(),
                "the dead-letter exchange of this queue does not exist, so its dead messages are dropped");
            return;
        };
        let hooks = self.hooks.chain_at(Point::DeadLetter, &self.name, Site::Queue(queue));
        let mut batches = Batches::default();
        let mut held = Vec::new();
        for (number, Dead { message, reason, died_ms, .. }) in (1..).zip(dead) {
            let death = Death { queue, reason, died_ms };
            let mut letter = match dead_lettered(&message, death, target) {
                Ok(letter) => letter,
                Err(error) => {
                    tracing::error!(vhost = %self.name, queue, error = %error, "a dead message cannot be read and is lost");
                    continue;
                }
            };
            if let Some(hooks) = &hooks
                && !letter.passes(hooks, &self.name, death)
            {
                continue;
            }
            let keys: Vec<&str> = letter.routing_keys.iter().map(String::as_str).collect();
            let routed = routing::route(&*self.tables.read(), &exchange, &letter.message.view(), &keys);
            let route = match routed {
                Ok(route) => route,
                Err((name, error)) => {
                    tracing::error!(vhost = %self.name, queue, exchange = %name, error = %error, "a dead message is lost");
                    continue;
                }
            };
            for wanted in &route.queues {
                if letter.goes_round(reason, &wanted.name) {
                    if self.cycles.is_new(queue, &wanted.name) {
                        tracing::warn!(vhost = %self.name, queue, target = %wanted.name, reason = reason.name(),
                            "dead letters go round: they have been in this queue before and nobody rejected them since, \
                             so they are dropped; this is logged once");
                    }
                    continue;
                }
                batches.add(wanted, &letter.message, number);
            }
            for (exchange, wish) in route.wishes {
                held.push(self.put_off(exchange, &wish, &letter.message, (0, number)));
            }
        }
        expect(batches.message_count() + held.len());
        if !held.is_empty() {
            self.holder.hold(Some(origin), held);
        }
        batches.post(Some(origin));
    }
}

const X_DEATH: &str = "x-death";
/// What the header `x-death` may take: a header has to fit into one frame (semantics 17.2), with others beside it.
const HISTORY_BYTES_MAX: usize = 64 * 1024;
/// So many cycles are remembered as logged.
const CYCLES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use plugin_api::message::PropertiesBuf;

    use super::*;

    fn table(entries: &[(&str, Value)]) -> Table {
        entries.iter().map(|(key, value)| (*key, value.clone())).collect()
    }

    fn texts(keys: &[&str]) -> Value {
        Value::Array(keys.iter().map(|key| Value::from(*key)).collect())
    }

    fn message(headers: Table, expiration: Option<&str>, marks: Marks) -> Arc<Message> {
        let expiration = expiration.map(|text| text.as_bytes().to_vec());
        let properties = PropertiesBuf { headers: Some(headers), expiration, ..PropertiesBuf::default() };
        let parts = Parts { exchange: "orders", routing_key: "eu", properties: &properties.encode() };
        Message::marked(parts, b"body", marks)
    }

    fn target(exchange: &str, routing_key: Option<&str>) -> DeadLetterTarget {
        DeadLetterTarget { exchange: exchange.into(), routing_key: routing_key.map(Into::into) }
    }

    fn die(message: &Message, queue: &str, reason: DeathReason, died_secs: u64, to: &DeadLetterTarget) -> DeadLetter {
        dead_lettered(message, Death { queue, reason, died_ms: died_secs * 1000 + 999 }, to).unwrap()
    }

    fn headers(letter: &DeadLetter) -> Table {
        letter.message.properties().to_owned().unwrap().headers.unwrap()
    }

    fn deaths(letter: &DeadLetter) -> Vec<Table> {
        let Some(Value::Array(entries)) = headers(letter).get(X_DEATH).cloned() else { panic!("it has died") };
        entries
            .into_iter()
            .map(|entry| match entry {
                Value::Table(table) => table,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_first_death_says_where_when_and_why() {
        // Semantics 20.5, 20.6, 20.8 and 31.7.
        let message = message(table(&[("mine", Value::from(1i64))]), Some("60"), Marks::NONE);
        let letter = die(&message, "q", DeathReason::Expired, 5, &target("dlx", None));
        let expected = table(&[
            ("original-expiration", Value::from("60")),
            ("count", Value::I64(1)),
            ("reason", Value::from("expired")),
            ("queue", Value::from("q")),
            ("time", Value::Timestamp(5)),
            ("exchange", Value::from("orders")),
            ("routing-keys", texts(&["eu"])),
        ]);
        assert_eq!(deaths(&letter), [expected]);
        let headers = headers(&letter);
        for (name, value) in [
            ("mine", Value::from(1i64)),
            ("x-first-death-reason", Value::from("expired")),
            ("x-first-death-queue", Value::from("q")),
            ("x-first-death-exchange", Value::from("orders")),
            ("x-last-death-reason", Value::from("expired")),
            ("x-last-death-queue", Value::from("q")),
            ("x-last-death-exchange", Value::from("orders")),
        ] {
            assert_eq!(headers.get(name), Some(&value), "{name}");
        }
        assert_eq!((letter.message.exchange(), letter.message.routing_key()), ("dlx", "eu"));
        assert_eq!((letter.message.body(), letter.message.expiration_ms()), (&b"body"[..], None));
        assert_eq!(letter.routing_keys, ["eu"]);
    }

    #[test]
    fn a_death_that_was_before_counts_on_and_moves_to_the_front() {
        // Semantics 20.7 and 20.8.
        let first = message(Table::new(), None, Marks::NONE);
        let one = die(&first, "q", DeathReason::Expired, 5, &target("dlx", Some("k")));
        let two = die(&one.message, "p", DeathReason::Rejected, 6, &target("again", None));
        let three = die(&two.message, "q", DeathReason::Expired, 7, &target("dlx", None));
        let deaths = deaths(&three);
        let shown: Vec<_> = deaths
            .iter()
            .map(|entry| {
                let text = |key| entry.get(key).and_then(Value::as_str);
                (entry.get("count").and_then(Value::as_i64), text("queue"), entry.get("time"), text("exchange"))
            })
            .collect();
        assert_eq!(
            shown,
            [
                (Some(2), Some("q"), Some(&Value::Timestamp(5)), Some("orders")),
                (Some(1), Some("p"), Some(&Value::Timestamp(6)), Some("dlx")),
            ]
        );
        let headers = headers(&three);
        let text = |name| headers.get(name).and_then(Value::as_str);
        assert_eq!(
            [text("x-first-death-queue"), text("x-last-death-queue"), text("x-last-death-exchange")],
            [Some("q"), Some("q"), Some("again")]
        );
        assert_eq!((three.message.exchange(), three.message.routing_key()), ("dlx", "k"));
    }

    #[test]
    fn without_a_key_all_keys_route_and_those_of_bcc_stay_out_of_sight() {
        // Semantics 20.3, 20.4 and 20.6.
        let keys = table(&[("CC", texts(&["c", "d"])), ("BCC", texts(&["b"]))]);
        let message = message(keys, None, Marks::HIDES_BCC);
        let letter = die(&message, "q", DeathReason::Rejected, 5, &target("dlx", None));
        assert_eq!(letter.routing_keys, ["eu", "c", "d", "b"]);
        assert_eq!(deaths(&letter)[0].get("routing-keys"), Some(&texts(&["eu", "c", "d"])));
        assert!(letter.message.marks().has(Marks::HIDES_BCC), "a later dead letter goes by it, too");

        let letter = die(&message, "q", DeathReason::Rejected, 5, &target("dlx", Some("k")));
        assert_eq!((letter.routing_keys.as_slice(), letter.message.routing_key()), (&["k".to_owned()][..], "k"));
        assert_eq!(headers(&letter).get("CC"), Some(&texts(&["c", "d"])));
        assert_eq!(headers(&letter).get("BCC"), None);
        let again = die(&letter.message, "p", DeathReason::Rejected, 5, &target("dlx", None));
        assert_eq!(again.routing_keys, ["k"], "what CC said is over");
        assert_eq!(deaths(&again)[0].get("routing-keys"), Some(&texts(&["k"])));
    }

    #[test]
    fn a_history_of_the_publishers_own_is_replaced() {
        // Semantics 20.9.
        let own = table(&[("queue", Value::from("q")), ("reason", Value::from("expired")), ("count", Value::I64(7))]);
        let headers_of_publisher =
            table(&[(X_DEATH, Value::Array(vec![Value::Table(own)])), ("x-first-death-queue", Value::from("other"))]);
        let message = message(headers_of_publisher, None, Marks::NONE);
        let letter = die(&message, "q", DeathReason::Expired, 5, &target("dlx", None));
        let deaths = deaths(&letter);
        assert_eq!((deaths.len(), deaths[0].get("count")), (1, Some(&Value::I64(1))));
        assert_eq!(headers(&letter).get("x-first-death-queue"), Some(&Value::from("q")));
        assert!(!letter.goes_round(DeathReason::Expired, "other"));
    }

    #[test]
    fn what_goes_round_by_itself_is_stopped() {
        // Semantics 20.10 and 20.11.
        let check = |steps: &[(&str, DeathReason)], to: &str, expected: bool| {
            let mut current = message(Table::new(), None, Marks::NONE);
            let mut last = None;
            for &(queue, reason) in steps {
                let letter = die(&current, queue, reason, 5, &target("", None));
                current = Arc::clone(&letter.message);
                last = Some((letter, reason));
            }
            let (letter, reason) = last.unwrap();
            assert_eq!(letter.goes_round(reason, to), expected, "{steps:?} to {to}");
        };
        use DeathReason::{Expired, MaxLength, Rejected};
        check(&[("a", Expired)], "b", false);
        check(&[("a", Expired)], "a", true);
        check(&[("a", Expired), ("b", MaxLength)], "a", true);
        check(&[("a", Expired), ("b", MaxLength)], "b", true);
        check(&[("a", Expired), ("b", Rejected)], "a", false);
        check(&[("a", Rejected), ("b", Expired)], "a", false);
        check(&[("a", Rejected), ("b", Expired)], "b", true);
        check(&[("a", Rejected)], "a", false);
    }

    #[test]
    fn a_history_without_end_stays_within_a_frame_and_ends_circles() {
        let mut current = message(Table::new(), None, Marks::NONE);
        let mut is_round = false;
        for number in 0..1000 {
            let letter = die(&current, &format!("{number:0200}"), DeathReason::Expired, 5, &target("", None));
            current = Arc::clone(&letter.message);
            is_round = letter.goes_round(DeathReason::Expired, "somewhere else");
        }
        assert!(current.properties().raw().len() < HISTORY_BYTES_MAX + 2000);
        assert!(is_round, "nobody can tell any more whether it does");
    }
}
