//! What connections and their channels count, and the facts about them.
//!
//! A connection's task is the only writer of its cells. They stand in a registry from open-ok to the end of the connection; what was
//! counted by connections that have ended stays there as a sum, for the node and for each vhost. Both change under one lock, so
//! whoever sums up never sees less than before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::Mutex;
use plugin_api::value::Table;

use super::cells::{Cells, shared};
use super::history::{BASIC, History};
use super::stats::{MessageStats, STATS, Stat, TOTALS, Total, Totals};

/// What is known of a connection when it is open.
#[derive(Clone, Debug)]
pub struct Opened {
    /// `PEER -> LOCAL`.
    pub name: Arc<str>,
    /// The client.
    pub peer: SocketAddr,
    /// What it connected to, where that is known.
    pub local: Option<SocketAddr>,
    /// Who.
    pub user: Arc<str>,
    /// Where.
    pub vhost: Arc<str>,
    /// The SASL mechanism that it logged in by.
    pub auth_mechanism: Arc<str>,
    /// All that the client said of itself.
    pub client_properties: Table,
    /// `connection_name` among them.
    pub client_name: Option<Arc<str>>,
    /// Milliseconds since the epoch.
    pub connected_at_ms: u64,
    /// Channels at most; 0 is no limit.
    pub channel_max: u16,
    /// Bytes of a frame at most; 0 is no limit.
    pub frame_max: u32,
    /// Seconds between heartbeats; 0 is none.
    pub timeout_secs: u16,
    /// How it is encrypted, if it is.
    pub tls: Option<Tls>,
}

/// An encrypted connection.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Such as `tlsv1.3`.
    pub protocol: String,
    /// The cipher.
    pub cipher: String,
    /// The hash.
    pub hash: String,
    /// The key exchange.
    pub key_exchange: String,
    /// The subject of the client's certificate, if it has one.
    pub peer_cert_subject: Option<String>,
    /// Who signed it.
    pub peer_cert_issuer: Option<String>,
    /// When it is valid.
    pub peer_cert_validity: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct ConnectionStats {
    /// Unique in the broker while it runs.
    pub number: u64,
    opened: OnceLock<Opened>,
    /// By [`Total::index`].
    totals: Cells<TOTALS>,
    unsent_bytes: AtomicU64,
    is_blocked: AtomicBool,
    channels: Mutex<BTreeMap<u16, Arc<ChannelStats>>>,
    /// Bytes received and sent.
    history: Mutex<History<2>>,
}

impl ConnectionStats {
    fn new(number: u64) -> Self {
        Self {
            number,
            opened: OnceLock::new(),
            totals: Cells::default(),
            unsent_bytes: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            channels: Mutex::default(),
            history: Mutex::new(History::new(BASIC)),
        }
    }

    /// What is known of it; nothing before it is open.
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }

    /// Adds to a counter. Only the connection's task may call this.
    #[inline]
    pub fn add(&self, total: Total, amount: u64) {
        self.totals.add(total.index(), amount);
    }

    /// So many bytes wait to be written, and an alarm keeps the socket unread. Only the connection's task may call this.
    #[inline]
    pub fn set_state(&self, unsent_bytes: usize, is_blocked: bool) {
        self.unsent_bytes.store(unsent_bytes as u64, Relaxed);
        self.is_blocked.store(is_blocked, Relaxed);
    }

    /// Bytes that wait to be written.
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes.load(Relaxed)
    }

    /// An alarm keeps the socket unread.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked.load(Relaxed)
    }

    /// What it has counted.
    pub fn totals(&self) -> Totals {
        Totals(self.totals.all())
    }

    /// A channel is open.
    pub fn open_channel(&self, channel: u16, now_ms: u64) -> Arc<ChannelStats> {
        let stats = Arc::new(ChannelStats::new(channel, now_ms));
        self.channels.lock().insert(channel, Arc::clone(&stats));
        stats
    }

    /// A channel is closed; false when it was not open.
    pub fn close_channel(&self, channel: u16) -> bool {
        self.channels.lock().remove(&channel).is_some()
    }

    /// All channels are closed; returns how many there were.
    pub fn close_channels(&self) -> usize {
        std::mem::take(&mut *self.channels.lock()).len()
    }

    /// Its open channels, in the order of their numbers.
    pub fn channels(&self) -> Vec<Arc<ChannelStats>> {
        self.channels.lock().values().cloned().collect()
    }

    /// One of them.
    pub fn channel(&self, number: u16) -> Option<Arc<ChannelStats>> {
        self.channels.lock().get(&number).cloned()
    }

    /// How many channels are open.
    pub fn channel_count(&self) -> usize {
        self.channels.lock().len()
    }

    /// Keeps what is seen now.
    pub fn look(&self, now_ms: u64) {
        let bytes = [Total::ReceivedBytes, Total::SentBytes].map(|total| self.totals.get(total.index()));
        self.history.lock().push(now_ms, bytes);
        self.channels().iter().for_each(|channel| channel.look(now_ms));
    }

    /// Asks its history of bytes received and sent.
    pub fn history<R>(&self, ask: impl FnOnce(&History<2>) -> R) -> R {
        ask(&self.history.lock())
    }
}

/// A gauge of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// Deliveries that are not settled.
    Unacked,
    /// Publishes that are not confirmed.
    Unconfirmed,
    /// Publishes that wait for tx.commit.
    Uncommitted,
    /// Settlements that wait for tx.commit.
    AcksUncommitted,
    /// Consumers.
    Consumers,
    /// The prefetch count of new consumers.
    PrefetchCount,
    /// The prefetch count of all consumers together.
    GlobalPrefetchCount,
    /// 1 in confirm mode.
    IsConfirm,
    /// 1 in transactions.
    IsTransactional,
    /// When it last did something, in milliseconds since the epoch.
    ActiveMs,
}

const GAUGES: usize = Gauge::ActiveMs as usize + 1;

/// What a channel counts.
#[derive(Debug)]
pub struct ChannelStats {
    /// Its number on its connection.
    pub number: u16,
    counts: Cells<STATS>,
    gauges: Cells<GAUGES>,
    to_exchanges: Mutex<Vec<Arc<ToExchange>>>,
    from_queues: Mutex<HashMap<u64, Arc<FromQueue>>>,
    consumers: Mutex<BTreeMap<u32, Arc<ConsumerFacts>>>,
    history: Mutex<History<STATS>>,
}

/// What a channel has published to an exchange.
#[derive(Debug)]
pub struct ToExchange {
    /// The exchange's name.
    pub name: Arc<str>,
    /// The exchange's number.
    pub number: u64,
    /// In the order of [`Stat::OF_PUBLISHING`].
    counts: Cells<4>,
    history: Mutex<History<4>>,
}

impl ToExchange {
    fn new(name: Arc<str>, number: u64) -> Self {
        Self { name, number, counts: Cells::default(), history: Mutex::new(History::new(&[])) }
    }

    /// Adds to one of [`Stat::OF_PUBLISHING`]. Only the connection's task may call this.
    #[inline]
    pub fn add(&self, stat: Stat, amount: u64) {
        self.counts.add(stat as usize, amount);
    }

    /// In the order of [`Stat::OF_PUBLISHING`]: counts, and how many in a second.
    pub fn get(&self, now_ms: u64) -> ([u64; 4], [f64; 4]) {
        (self.counts.all(), self.history.lock().rates(now_ms))
    }
}

/// What a channel got from a queue.
#[derive(Debug)]
pub struct FromQueue {
    /// The queue's name.
    pub name: Arc<str>,
    /// The queue's number.
    pub number: u64,
    /// In the order of [`Stat::OF_DELIVERY`].
    counts: Cells<7>,
    history: Mutex<History<7>>,
}

impl FromQueue {
    fn new(name: Arc<str>, number: u64) -> Self {
        Self { name, number, counts: Cells::default(), history: Mutex::new(History::new(&[])) }
    }

    /// Adds to one of [`Stat::OF_DELIVERY`]. Only the connection's task may call this.
    #[inline]
    pub fn add(&self, stat: Stat, amount: u64) {
        self.counts.add((stat as usize).wrapping_sub(Stat::Deliver as usize), amount);
    }

    /// In the order of [`Stat::OF_DELIVERY`]: counts, and how many in a second.
    pub fn get(&self, now_ms: u64) -> ([u64; 7], [f64; 7]) {
        (self.counts.all(), self.history.lock().rates(now_ms))
    }
}

/// A consumer, as it asked for it.
#[derive(Clone, Debug)]
pub struct ConsumerFacts {
    /// The source's number on its connection: with the connection's it is the queue's [`HolderId`](crate::queue::HolderId).
    pub source: u32,
    /// Its tag.
    pub tag: Arc<str>,
    /// The queue's name.
    pub queue: Arc<str>,
    /// The queue's number.
    pub queue_number: u64,
    /// Whether it has to ack.
    pub ack_required: bool,
    /// Whether it has the queue for itself.
    pub exclusive: bool,
    /// Unacked deliveries at most; 0 is no limit.
    pub prefetch_count: u16,
    /// As sent.
    pub arguments: Table,
}

/// `CONNECTION (NUMBER)`, as RabbitMQ names channels.
pub fn channel_name(connection: &ConnectionStats, channel: u16) -> String {
    format!("{} ({channel})", connection.opened().map_or("", |opened| &*opened.name))
}

impl ChannelStats {
    fn new(number: u16, now_ms: u64) -> Self {
        let stats = Self {
            number,
            counts: Cells::default(),
            gauges: Cells::default(),
            to_exchanges: Mutex::default(),
            from_queues: Mutex::default(),
            consumers: Mutex::default(),
            history: Mutex::new(History::new(BASIC)),
        };
        stats.set(Gauge::ActiveMs, now_ms);
        stats
    }

    /// Adds to a counter. Only the connection's task may call this.
    #[inline]
    pub fn add(&self, stat: Stat, amount: u64) {
        self.counts.add(stat as usize, amount);
    }

    /// Sets a gauge. Only the connection's task may call this.
    #[inline]
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.gauges.set(gauge as usize, value);
    }

    /// A gauge.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges.get(gauge as usize)
    }

    /// What it counted.
    pub fn message_stats(&self) -> MessageStats {
        let counts = self.counts.all();
        Stat::ALL.into_iter().zip(counts).fold(MessageStats::default(), |stats, (stat, value)| stats.with(stat, value))
    }

    /// The counters of an exchange that it publishes to, and their place, which stays. When it has published to a great many, those
    /// beyond have none.
    pub fn to_exchange(&self, name: &Arc<str>, number: u64) -> Option<(u16, Arc<ToExchange>)> {
        let mut to_exchanges = self.to_exchanges.lock();
        let known = to_exchanges.iter().position(|to| to.number == number);
        let place = known.or_else(|| {
            (to_exchanges.len() < EXCHANGES_MAX).then(|| {
                to_exchanges.push(Arc::new(ToExchange::new(Arc::clone(name), number)));
                to_exchanges.len() - 1
            })
        })?;
        Some((u16::try_from(place).ok()?, Arc::clone(to_exchanges.get(place)?)))
    }

    /// The exchange in a place.
    pub fn exchange_at(&self, place: u16) -> Option<Arc<ToExchange>> {
        self.to_exchanges.lock().get(usize::from(place)).cloned()
    }

    /// The counters of a queue that it gets messages from.
    pub fn from_queue(&self, name: &Arc<str>, number: u64) -> Arc<FromQueue> {
        let mut from_queues = self.from_queues.lock();
        let new = || Arc::new(FromQueue::new(Arc::clone(name), number));
        Arc::clone(from_queues.entry(number).or_insert_with(new))
    }

    /// All exchanges that it has published to, those that are gone included.
    pub fn to_exchanges(&self) -> Vec<Arc<ToExchange>> {
        self.to_exchanges.lock().clone()
    }

    /// All queues that it has got something from, or consumes from; some may be gone.
    pub fn from_queues(&self) -> Vec<Arc<FromQueue>> {
        self.from_queues.lock().values().cloned().collect()
    }

    /// A consumer is there.
    pub fn add_consumer(&self, consumer: ConsumerFacts) {
        self.consumers.lock().insert(consumer.source, Arc::new(consumer));
    }

    /// A consumer is gone.
    pub fn remove_consumer(&self, source: u32) {
        self.consumers.lock().remove(&source);
    }

    /// Its consumers, in the order in which they came.
    pub fn consumers(&self) -> Vec<Arc<ConsumerFacts>> {
        self.consumers.lock().values().cloned().collect()
    }

    fn look(&self, now_ms: u64) {
        self.history.lock().push(now_ms, self.message_stats().row());
        for to in self.to_exchanges.lock().iter() {
            to.history.lock().push(now_ms, to.counts.all());
        }
        for from in self.from_queues.lock().values() {
            from.history.lock().push(now_ms, from.counts.all());
        }
    }

    /// Forgets what it got from queues that are gone.
    pub fn forget_queues(&self, is_there: impl Fn(u64) -> bool) {
        self.from_queues.lock().retain(|&queue, from| is_there(queue) || Arc::strong_count(from) > 1);
    }

    /// Asks the history of its counters, in the order of [`Stat::ALL`].
    pub fn history<R>(&self, ask: impl FnOnce(&History<STATS>) -> R) -> R {
        ask(&self.history.lock())
    }
}

/// A channel counts for so many exchanges each; clients publish to few.
const EXCHANGES_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Inner {
    live: BTreeMap<u64, Arc<ConnectionStats>>,
    /// What was counted by those that have ended.
    ended: Totals,
    ended_of: HashMap<Arc<str>, Totals>,
}

/// Everything that was ever counted.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Of the node.
    pub node: Totals,
    /// Of each vhost that anybody has entered.
    pub vhosts: HashMap<Arc<str>, Totals>,
}

/// All connections, see the module.
#[derive(Debug, Default)]
pub struct Connections {
    inner: Mutex<Inner>,
    opened: AtomicU64,
    closed: AtomicU64,
    channels_opened: AtomicU64,
    channels_closed: AtomicU64,
}

impl Connections {
    /// Cells for a client that has connected; it is seen from [`Self::open`] on.
    pub fn cells(number: u64) -> Arc<ConnectionStats> {
        Arc::new(ConnectionStats::new(number))
    }

    /// A connection is open.
    pub fn open(&self, stats: &Arc<ConnectionStats>, opened: Opened) {
        if stats.opened.set(opened).is_ok() {
            shared(&self.opened, 1);
            self.inner.lock().live.insert(stats.number, Arc::clone(stats));
        }
    }

    /// A connection has ended; what it counted stays.
    pub fn close(&self, stats: &ConnectionStats) {
        shared(&self.channels_closed, stats.close_channels() as u64);
        let mut inner = self.inner.lock();
        if inner.live.remove(&stats.number).is_some() {
            shared(&self.closed, 1);
            let totals = stats.totals();
            inner.ended += totals;
            if let Some(opened) = stats.opened() {
                *inner.ended_of.entry(Arc::clone(&opened.vhost)).or_default() += totals;
            }
        }
    }

    /// Adds what was counted outside of connections: by requests of the management API.
    pub fn add_outside(&self, vhost: &Arc<str>, totals: Totals) {
        let mut inner = self.inner.lock();
        inner.ended += totals;
        *inner.ended_of.entry(Arc::clone(vhost)).or_default() += totals;
    }

    /// A channel is open.
    pub fn open_channel(&self, stats: &ConnectionStats, channel: u16, now_ms: u64) -> Arc<ChannelStats> {
        shared(&self.channels_opened, 1);
        stats.open_channel(channel, now_ms)
    }

    /// A channel is closed.
    pub fn close_channel(&self, stats: &ConnectionStats, channel: u16) {
        shared(&self.channels_closed, u64::from(stats.close_channel(channel)));
    }

    /// Open connections, in the order in which they came.
    pub fn list(&self) -> Vec<Arc<ConnectionStats>> {
        self.inner.lock().live.values().cloned().collect()
    }

    /// One of them.
    pub fn get(&self, number: u64) -> Option<Arc<ConnectionStats>> {
        self.inner.lock().live.get(&number).cloned()
    }

    /// The one of that name.
    pub fn named(&self, name: &str) -> Option<Arc<ConnectionStats>> {
        let inner = self.inner.lock();
        inner.live.values().find(|stats| stats.opened().is_some_and(|opened| *opened.name == *name)).cloned()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.inner.lock().live.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds everything up.
    pub fn sums(&self) -> Sums {
        let inner = self.inner.lock();
        let mut sums = Sums { node: inner.ended, vhosts: inner.ended_of.clone() };
        for stats in inner.live.values() {
            let totals = stats.totals();
            sums.node += totals;
            if let Some(opened) = stats.opened() {
                *sums.vhosts.entry_ref(&opened.vhost).or_default() += totals;
            }
        }
        sums
    }

    /// Forgets the sums of vhosts that are gone; those of the node stay.
    pub fn forget_vhosts(&self, is_there: impl Fn(&str) -> bool) {
        self.inner.lock().ended_of.retain(|name, _| is_there(name));
    }

    /// Connections opened and closed, channels opened and closed, since the start.
    pub fn churn(&self) -> [u64; 4] {
        [&self.opened, &self.closed, &self.channels_opened, &self.channels_closed].map(|counter| counter.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn open(connections: &Connections, number: u64, vhost: &str) -> Arc<ConnectionStats> {
        let stats = Connections::cells(number);
        let opened = Opened {
            name: format!("c{number}").into(),
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            local: None,
            user: "u".into(),
            vhost: vhost.into(),
            auth_mechanism: "PLAIN".into(),
            client_properties: Table::new(),
            client_name: None,
            connected_at_ms: 1,
            channel_max: 0,
            frame_max: 0,
            timeout_secs: 0,
            tls: None,
        };
        connections.open(&stats, opened);
        stats
    }

    #[test]
    fn what_an_ended_connection_counted_stays_in_the_sums_of_vhost_and_node() {
        let connections = Connections::default();
        let (one, other) = (open(&connections, 1, "a"), open(&connections, 2, "b"));
        one.add(Total::Received, 5);
        other.add(Total::Received, 7);
        let received = |connections: &Connections| {
            let sums = connections.sums();
            let of = |name: &str| sums.vhosts.get(name).map(|totals| totals.get(Total::Received));
            (sums.node.get(Total::Received), of("a"), of("b"))
        };
        assert_eq!(received(&connections), (12, Some(5), Some(7)));
        connections.close(&one);
        connections.close(&one);
        assert_eq!(received(&connections), (12, Some(5), Some(7)));
        assert_eq!((connections.named("c1").is_some(), connections.named("c2").is_some()), (false, true));
        connections.forget_vhosts(|name| name == "b");
        assert_eq!(received(&connections), (12, None, Some(7)));
        assert_eq!(connections.churn(), [2, 1, 0, 0]);
    }

    #[test]
    fn channels_that_end_with_their_connection_count_as_closed() {
        let connections = Connections::default();
        let stats = open(&connections, 1, "a");
        connections.open_channel(&stats, 1, 1);
        connections.open_channel(&stats, 2, 1);
        connections.close_channel(&stats, 2);
        connections.close_channel(&stats, 2);
        assert_eq!(connections.churn(), [1, 0, 2, 1]);
        connections.close(&stats);
        assert_eq!(connections.churn(), [1, 1, 2, 2]);
    }

    #[test]
    fn an_exchange_keeps_its_place_and_a_queue_that_is_gone_is_forgotten() {
        let stats = ChannelStats::new(1, 1);
        let place = |name: &str, number| stats.to_exchange(&name.into(), number).map(|(place, _)| place);
        assert_eq!((place("a", 7), place("b", 8), place("a", 7)), (Some(0), Some(1), Some(0)));
        let held = stats.from_queue(&"q".into(), 1);
        stats.from_queue(&"r".into(), 2).add(Stat::Ack, 1);
        held.add(Stat::Ack, 3);
        stats.forget_queues(|_| false);
        assert_eq!(stats.from_queues().len(), 1, "somebody still counts for it");
        assert_eq!(held.get(0).0, [0, 0, 0, 0, 0, 3, 0]);
    }
}
