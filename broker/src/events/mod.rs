//! What happens in the broker, for whoever wants to know: `amq.rabbitmq.event`, and streams of the management interface (semantics 29.2).
//!
//! Things that come and go are told here by those who make them come and go: names and policies by the vhost, users by `access`, connections,
//! channels and consumers by their session, alarms by the broker. Messages are not events. Telling costs one look at a counter while nobody subscribes,
//! and never waits for a subscriber.
//!
//! ```
//! use broker::events::{Events, Kind, Next};
//! use plugin_api::value::Table;
//!
//! let events = Events::new(|| 1_700_000_000_000);
//! let mut subscription = events.subscribe();
//! events.tell(Kind::QueueCreated, Some("/"), || Table::new().with("name", "orders"));
//! let Some(Next::News(event)) = subscription.try_next() else { panic!("nothing is there") };
//! assert_eq!((event.kind.key(), event.vhost.as_deref()), ("queue.created", Some("/")));
//! assert_eq!(event.properties.get("name").and_then(|name| name.as_str()), Some("orders"));
//! ```
//!
//! In a task, `subscription.next().await` waits; see [`Subscription`] for what happens to one that is too slow. Names and properties are those
//! of RabbitMQ's event exchange; `user_who_performed_action` says whose doing it was ([`actor`]).

mod actor;
mod feed;
mod log;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::value::{Table, Value};

pub use self::actor::{INTERNAL_USER, PERFORMED_BY, acting_as, actor};
pub use self::feed::{Feed, KEPT_BYTES_MAX, KEPT_MAX, Next, Position, WAITING_BYTES_MAX, WAITING_MAX};
pub use self::log::{LogLayer, LogLine, LogSubscription, follow_log, unfollowed};

/// Events since it was made.
pub type Subscription = feed::Subscription<Event>;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The vhost that it happened in, if in one. It also stands in the properties.
    pub vhost: Option<String>,
    /// What there is to say of it, as the headers of RabbitMQ's event exchange do; without the time.
    pub properties: Table,
}

/// Where events are told and subscribed to. Clones are the same.
#[derive(Clone)]
pub struct Events {
    feed: Feed<Event>,
    /// Until when the last events are kept, in milliseconds since the epoch; 0 is not at all.
    keep_until_ms: Arc<AtomicU64>,
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Kinds of events with their routing keys.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $key:literal,)*) => {
        /// What can happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The routing key, as RabbitMQ has it.
            pub const fn key(self) -> &'static str {
                match self {
                    $(Self::$name => $key,)*
                }
            }
        }
    };
}

kinds! {
    /// A queue was declared.
    QueueCreated = "queue.created",
    /// A queue is gone.
    QueueDeleted = "queue.deleted",
    /// A policy that was added or changed is why a queue has another policy now.
    QueuePolicyUpdated = "queue.policy.updated",
    /// A policy that is gone is why a queue has another policy, or none, now.
    QueuePolicyCleared = "queue.policy.cleared",
    /// An exchange was declared.
    ExchangeCreated = "exchange.created",
    /// An exchange is gone.
    ExchangeDeleted = "exchange.deleted",
    /// Two things were bound.
    BindingCreated = "binding.created",
    /// A binding is gone.
    BindingDeleted = "binding.deleted",
    /// A client has opened a connection to a vhost.
    ConnectionCreated = "connection.created",
    /// Such a connection is closed, or its socket is gone.
    ConnectionClosed = "connection.closed",
    /// A channel was opened.
    ChannelCreated = "channel.created",
    /// A channel is closed.
    ChannelClosed = "channel.closed",
    /// Somebody consumes.
    ConsumerCreated = "consumer.created",
    /// Somebody consumes no more.
    ConsumerDeleted = "consumer.deleted",
    /// A policy or operator policy was added or changed.
    PolicySet = "policy.set",
    /// A policy is gone.
    PolicyCleared = "policy.cleared",
    /// An operator policy is gone.
    OperatorPolicyCleared = "operator.policy.cleared",
    /// A parameter was added or changed.
    ParameterSet = "parameter.set",
    /// A parameter is gone.
    ParameterCleared = "parameter.cleared",
    /// A vhost was made.
    VhostCreated = "vhost.created",
    /// Its description, tags or default queue type changed.
    VhostUpdated = "vhost.updated",
    /// A vhost is gone.
    VhostDeleted = "vhost.deleted",
    /// A vhost has limits, or others than before.
    VhostLimitsSet = "vhost.limits.set",
    /// A vhost has no limits any more.
    VhostLimitsCleared = "vhost.limits.cleared",
    /// Somebody has logged in.
    UserAuthenticationSuccess = "user.authentication.success",
    /// Somebody wanted to log in and may not.
    UserAuthenticationFailure = "user.authentication.failure",
    /// A user was added.
    UserCreated = "user.created",
    /// A user is gone.
    UserDeleted = "user.deleted",
    /// A user has another password.
    UserPasswordChanged = "user.password.changed",
    /// A user has no password any more.
    UserPasswordCleared = "user.password.cleared",
    /// A user has other tags.
    UserTagsSet = "user.tags.set",
    /// A user has limits, or others than before.
    UserLimitsSet = "user.limits.set",
    /// A user has no limits any more.
    UserLimitsCleared = "user.limits.cleared",
    /// A user may do something in a vhost.
    PermissionCreated = "permission.created",
    /// A user may do nothing in a vhost any more.
    PermissionDeleted = "permission.deleted",
    /// What a user may do with a topic exchange is restricted.
    TopicPermissionCreated = "topic.permission.created",
    /// It is not any more.
    TopicPermissionDeleted = "topic.permission.deleted",
    /// Publishers are stopped.
    AlarmSet = "alarm.set",
    /// One reason for it is gone.
    AlarmCleared = "alarm.cleared",
    /// A hook failed; of many failures a few are told, with how many were not since the one before. Ours.
    HookFailed = "hook.failed",
}

impl Events {
    /// `now_ms` says the time in milliseconds since the epoch.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { feed: Feed::default(), keep_until_ms: Arc::default(), now_ms: Arc::new(now_ms) }
    }

    /// Whether anybody listens.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.feed.is_watched()
    }

    /// Tells everybody who listens; `properties` is asked only if somebody does. May be called under any lock, and calls nothing back but wakers.
    #[inline]
    pub fn tell(&self, kind: Kind, vhost: Option<&str>, properties: impl FnOnce() -> Table) {
        if self.is_watched() {
            self.tell_now(kind, vhost, properties());
        }
    }

    fn tell_now(&self, kind: Kind, vhost: Option<&str>, mut properties: Table) {
        if let Some(vhost) = vhost {
            properties.insert("vhost", vhost);
        }
        let bytes = size_of::<Event>() + weight(&properties);
        let at_ms = (self.now_ms)();
        let keep_until_ms = self.keep_until_ms.load(Ordering::Relaxed);
        if keep_until_ms > 0 && keep_until_ms < at_ms {
            self.keep_until_ms.store(0, Ordering::Relaxed);
            self.feed.forget();
        }
        let event = Event { kind, at_ms, vhost: vhost.map(str::to_owned), properties };
        self.feed.send(event, bytes);
    }

    /// Everything that happens from now on.
    pub fn subscribe(&self) -> Subscription {
        self.feed.subscribe()
    }

    /// Keeps the last events from now on for so long, up to [`KEPT_MAX`] and [`KEPT_BYTES_MAX`], for [`Self::subscribe_after`]. To be called again and
    /// again by who may come again.
    pub fn keep_for(&self, ms: u64) {
        let now_ms = (self.now_ms)();
        self.keep_until_ms.store(now_ms.saturating_add(ms), Ordering::Relaxed);
        self.feed.keep(now_ms);
    }

    /// What happened after `position`; see [`Feed::subscribe_after`].
    pub fn subscribe_after(&self, position: Position) -> (Subscription, Option<u64>) {
        self.feed.subscribe_after(position)
    }
}

/// About what a table takes in memory.
fn weight(table: &Table) -> usize {
    table.iter().map(|(key, value)| size_of::<Value>() + key.len() + value_weight(value)).sum()
}

fn value_weight(value: &Value) -> usize {
    match value {
        Value::LongString(bytes) | Value::Bytes(bytes) => bytes.len(),
        Value::Table(table) => weight(table),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + value_weight(item)).sum(),
        _ => 0,
    }
}

/// Without a clock, for tests: everything happens at the epoch.
impl Default for Events {
    fn default() -> Self {
        Self::new(|| 0)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.feed).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Semantics 29.2.
    #[test]
    fn an_event_has_its_key_time_and_vhost() {
        let events = Events::new(|| 7);
        events.tell(Kind::QueueCreated, Some("/"), || unreachable!("nobody listens"));
        let mut subscription = events.subscribe();
        events.tell(Kind::UserAuthenticationFailure, Some("v"), || Table::new().with("name", "bob"));
        let properties = Table::new().with("name", "bob").with("vhost", "v");
        let event = Event { kind: Kind::UserAuthenticationFailure, at_ms: 7, vhost: Some("v".into()), properties };
        assert_eq!(subscription.try_next(), Some(Next::News(Arc::new(event))));
        assert_eq!(Kind::UserAuthenticationFailure.key(), "user.authentication.failure");
    }

    #[test]
    fn events_are_kept_for_a_while_and_then_cost_nothing_again() {
        static NOW_MS: AtomicU64 = AtomicU64::new(1000);
        let events = Events::new(|| NOW_MS.load(Ordering::Relaxed));
        events.keep_for(500);
        let at = events.subscribe().at();
        events.tell(Kind::QueueCreated, Some("/"), Table::new);
        NOW_MS.store(1500, Ordering::Relaxed);
        let (mut again, missed) = events.subscribe_after(at);
        assert_eq!((again.try_next().is_some(), missed), (true, Some(0)));
        drop(again);
        NOW_MS.store(1501, Ordering::Relaxed);
        events.tell(Kind::QueueDeleted, Some("/"), Table::new);
        assert!(!events.is_watched());
        assert_eq!(events.subscribe_after(at).1, None);
    }

    #[test]
    fn keys_are_unique_and_have_words() {
        let mut keys: Vec<&str> = Kind::ALL.iter().map(|kind| kind.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), Kind::ALL.len());
        assert!(keys.iter().all(|key| key.contains('.') && !key.contains('_')));
    }
}
