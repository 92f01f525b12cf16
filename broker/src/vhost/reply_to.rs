//! Direct reply-to (semantics 22): answers that go straight to the channel of whoever asked, without a queue of their own.
//!
//! A channel that consumes from [`REPLY_TO`] gets a [`ReplyQueue`] under a name that nobody can guess. The name stands in the vhost's tables
//! beside those of queues, where only routing finds it: nobody else can declare, bind, consume or read it. A message whose reply-to is
//! [`REPLY_TO`] carries the name of its channel instead when it goes on.
//!
//! A reply queue keeps nothing on disk and waits for nobody. Replies that its consumer has no credit for wait in memory, up to
//! [`BACKLOG_BYTES_MAX`] for its connection; what comes then is refused, as a full queue with `overflow: reject-publish` does it: the replier's confirm is a
//! nack, and one without confirms is told nothing. The queue ends with its consumer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use plugin_api::message::Properties;
use plugin_api::value::Table;

use super::error::Error;
use super::policy::{Applied, QueuePolicy};
use super::publish::without_bcc;
use super::queue_settings::{Declared, QueueSettings};
use super::{QueueRecord, Vhost};
use crate::message::{Message, Parts};
use crate::queue::{
    Burst, Delivery, Durability, Handle, Incoming, Input, NewConsumer, Notice, Numbers, Outlet, Reply, ReplyTo,
};

/// The name that clients consume from and put into reply-to.
pub const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// What the names of reply queues begin with.
pub const PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Replies that wait for the requesters of one connection may take so much. One that reads has next to none waiting; one that does not
/// could otherwise have any amount kept for it.
pub const BACKLOG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What waits for the requesters of one connection.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicUsize,
}

impl Backlog {
    /// Takes room for a reply, if there is some.
    fn take(&self, bytes: usize) -> bool {
        let has_room = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= BACKLOG_BYTES_MAX;
        if !has_room {
            self.give_back(bytes);
        }
        has_room
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What waits now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Whether a name is, or was, or could be that of a reply queue.
pub fn is_reply_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The message with the name of its channel's reply queue in place of [`REPLY_TO`]; none when it has another reply-to, or none.
///
/// # Errors
/// The channel has no reply consumer (semantics 22.4).
#[inline]
pub(super) fn with_reply_name(
    properties: Properties<'_>,
    message: &Message,
    reply_name: impl FnOnce() -> Option<Arc<str>>,
) -> Result<Option<Arc<Message>>, Error> {
    if properties.reply_to() != Some(REPLY_TO.as_bytes()) {
        return Ok(None);
    }
    let Some(name) = reply_name() else { return Err(Error::Message("fast reply consumer does not exist".into())) };
    let mut properties = properties.to_owned().map_err(|error| Error::Message(format!("invalid message: {error}")))?;
    properties.reply_to = Some(name.as_bytes().to_vec());
    let encoded = properties.encode();
    Ok(Some(Message::new(Parts { properties: &encoded, ..message.parts() }, message.body())))
}

impl Vhost {
    /// Makes a reply queue of this name, which begins with [`PREFIX`] and must be unguessable (semantics 22.6). `backlog` is that of the
    /// connection that will consume from it.
    pub fn add_reply_queue(self: &Arc<Self>, name: Arc<str>, backlog: &Arc<Backlog>) -> Arc<QueueRecord> {
        let arguments = Table::new();
        let declared = Declared { durable: false, auto_delete: true, arguments: &arguments };
        let settings = QueueSettings::resolve(declared, &QueuePolicy::default(), Durability::default());
        let queue = Arc::new(QueueRecord {
            handle: Arc::new(ReplyQueue {
                vhost: Arc::downgrade(self),
                name: Arc::clone(&name),
                inside: Mutex::new(Inside { consumer: None, waiting: VecDeque::new(), backlog: Arc::clone(backlog) }),
            }),
            number: self.numbers.next(),
            durable: false,
            auto_delete: true,
            settings: RwLock::new(Arc::new(settings)),
            policy: RwLock::new(Applied::default()),
            owner: None,
            deleter: Mutex::default(),
            declared_by: None,
            arguments,
            name,
        });
        self.tables.write().reply_queues.insert(Arc::clone(&queue.name), Arc::clone(&queue));
        queue
    }

    /// Whether the requester of that name lives (semantics 22.3).
    pub fn has_reply_queue(&self, name: &str) -> bool {
        self.tables.read().reply_queues.contains_key(name)
    }

    fn remove_reply_queue(&self, name: &str) {
        self.tables.write().reply_queues.remove(name);
    }
}

#[derive(Debug)]
struct Consumer {
    outlet: Arc<dyn Outlet>,
    source: u32,
    credit_bytes: i64,
}

#[derive(Debug)]
struct Inside {
    consumer: Option<Consumer>,
    /// Replies for which there was no credit; they count in the backlog.
    waiting: VecDeque<Arc<Message>>,
    backlog: Arc<Backlog>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.forget_waiting();
    }
}

/// The queue behind a reply consumer, as repliers reach it. See the module.
#[derive(Debug)]
struct ReplyQueue {
    vhost: Weak<Vhost>,
    name: Arc<str>,
    inside: Mutex<Inside>,
}

impl Handle for ReplyQueue {
    fn post(&self, input: Input) {
        match input {
            Input::Publish { origin, messages } => self.on_publish(origin.as_deref(), messages),
            Input::Consume(new) => self.on_consume(new),
            Input::Credit { bytes, .. } => self.on_credit(bytes),
            Input::Cancel { reply_to, .. } => self.end(&reply_to, Reply::Cancelled),
            Input::Detach { reply_to, .. } => self.end(&reply_to, Reply::Detached),
            // Nobody finds it by name, so these do not come.
            Input::Get { reply_to, .. }
            | Input::Status(reply_to)
            | Input::Browse { reply_to, .. }
            | Input::Purge(reply_to)
            | Input::Delete { reply_to: Some(reply_to), .. } => answer(&reply_to, Reply::Gone),
            Input::Delete { reply_to: None, .. }
            | Input::Settle { .. }
            | Input::SetLimit { .. }
            | Input::LimitLifted { .. }
            | Input::Loaded { .. }
            | Input::Reconfigure(_)
            | Input::Tick
            | Input::Buried { .. }
            | Input::Shrink => {}
        }
    }
}

impl ReplyQueue {
    /// Notices leave under the lock, so that replies keep their order; mailboxes are leaves.
    fn on_publish(&self, origin: Option<&dyn Outlet>, messages: Burst<Incoming>) {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        let bytes = messages.iter().map(|incoming| incoming.message.weight()).sum();
        {
            let mut inside = self.inside.lock();
            let mut deliveries = Burst::new();
            for Incoming { message, channel, number } in messages {
                let numbers = if inside.take(message, &mut deliveries) { &mut taken } else { &mut refused };
                if number != 0 {
                    Numbers::add(numbers, channel, number);
                }
            }
            inside.deliver(deliveries);
        }
        let Some(origin) = origin else { return };
        origin.publishes_processed(bytes);
        for (numbers, is_taken) in [(taken, true), (refused, false)] {
            if !numbers.is_empty() {
                origin.post(Notice::Confirmed { numbers, is_taken });
            }
        }
    }

    fn on_consume(&self, new: NewConsumer) {
        let NewConsumer { holder, outlet, channel, credit_bytes, .. } = new;
        let reply_to = ReplyTo { outlet: Arc::clone(&outlet), channel };
        let mut inside = self.inside.lock();
        inside.consumer = Some(Consumer { outlet, source: holder.source, credit_bytes });
        answer(&reply_to, Reply::Consuming);
    }

    fn on_credit(&self, bytes: i64) {
        let mut inside = self.inside.lock();
        let Some(consumer) = &mut inside.consumer else { return };
        consumer.credit_bytes = consumer.credit_bytes.saturating_add(bytes);
        let mut deliveries = Burst::new();
        while inside.has_credit()
            && let Some(message) = inside.waiting.pop_front()
        {
            inside.backlog.give_back(message.weight());
            inside.hand_over(message, &mut deliveries);
        }
        inside.deliver(deliveries);
    }

    fn end(&self, reply_to: &ReplyTo, reply: Reply) {
        // Before anybody hears of the end; and not under our own lock, which a replier may hold who waits for nothing else.
        if let Some(vhost) = self.vhost.upgrade() {
            vhost.remove_reply_queue(&self.name);
        }
        {
            let mut inside = self.inside.lock();
            inside.consumer = None;
            inside.forget_waiting();
        }
        answer(reply_to, reply);
    }
}

impl Inside {
    fn has_credit(&self) -> bool {
        self.consumer.as_ref().is_some_and(|consumer| consumer.credit_bytes > 0)
    }

    /// Takes a reply, or refuses it. One for a requester that has just gone counts as taken, as with a queue that was deleted
    /// (semantics 14.6).
    fn take(&mut self, message: Arc<Message>, deliveries: &mut Burst<Delivery>) -> bool {
        if self.consumer.is_none() {
            return true;
        }
        let message = without_bcc(&message).unwrap_or(message);
        if self.waiting.is_empty() && self.has_credit() {
            self.hand_over(message, deliveries);
            return true;
        }
        let has_room = self.backlog.take(message.weight());
        if has_room {
            self.waiting.push_back(message);
        }
        has_room
    }

    fn forget_waiting(&mut self) {
        let bytes = std::mem::take(&mut self.waiting).iter().map(|message| message.weight()).sum();
        self.backlog.give_back(bytes);
    }

    fn hand_over(&mut self, message: Arc<Message>, deliveries: &mut Burst<Delivery>) {
        if let Some(consumer) = &mut self.consumer {
            consumer.credit_bytes -= message.weight() as i64;
            deliveries.push(Delivery { ticket: 0, redelivered: false, message });
        }
    }

    fn deliver(&self, deliveries: Burst<Delivery>) {
        if let Some(consumer) = self.consumer.as_ref().filter(|_| !deliveries.is_empty()) {
            consumer.outlet.post(Notice::Delivered { source: consumer.source, deliveries, takes_shared_credit: false });
        }
    }
}

fn answer(reply_to: &ReplyTo, reply: Reply) {
    reply_to.outlet.post(Notice::Reply { channel: reply_to.channel, reply });
}
