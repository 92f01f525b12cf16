//! Connections, channels and consumers.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{MessageFacts, Numbers, Reader};
use crate::metrics::connections::{
    ChannelStats, ConnectionStats, ConsumerFacts, FromQueue, Gauge, Opened, ToExchange, channel_name,
};
use crate::metrics::history::LOOK_MS;
use crate::metrics::stats::Total;
use crate::queue::HolderId;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Whatever it likes.
    Running,
    /// Too much of what it published is not processed yet, so its socket is left unread for a moment.
    Flow,
    /// An alarm is raised, and it has published nothing since.
    Blocking,
    /// An alarm is raised, and its socket is left unread.
    Blocked,
}

impl ConnectionState {
    /// As RabbitMQ calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Flow => "flow",
            Self::Blocking => "blocking",
            Self::Blocked => "blocked",
        }
    }
}

/// An open connection.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    stats: Arc<ConnectionStats>,
    /// Unique while the broker runs; [`Broker::close_connection`](crate::runtime::Broker::close_connection) takes it.
    pub number: u64,
    /// What it does.
    pub state: ConnectionState,
    /// Open channels.
    pub channels: usize,
    /// Bytes received and bytes sent.
    pub bytes: Numbers<2>,
    /// Reads from the socket: `recv_cnt`.
    pub reads: u64,
    /// Writes to the socket: `send_cnt`.
    pub writes: u64,
    /// Bytes that wait to be written.
    pub unsent_bytes: u64,
}

impl ConnectionFacts {
    /// What does not change while it is open: names, addresses, user, vhost, what was agreed on. What is not open is never listed, so
    /// this is none at most for a moment.
    pub fn opened(&self) -> Option<&Opened> {
        self.stats.opened()
    }
}

/// An open channel.
#[derive(Clone, Debug)]
pub struct ChannelFacts {
    connection: Arc<ConnectionStats>,
    channel: Arc<ChannelStats>,
    /// `CONNECTION (NUMBER)`.
    pub name: String,
    /// Its number on its connection.
    pub number: u16,
    /// The prefetch count of new consumers; 0 is no limit.
    pub prefetch_count: u64,
    /// The prefetch count of all its consumers together; 0 is no limit.
    pub global_prefetch_count: u64,
    /// It confirms publishes.
    pub confirm: bool,
    /// It has transactions.
    pub transactional: bool,
    /// Consumers.
    pub consumer_count: u64,
    /// Deliveries that are not settled.
    pub messages_unacknowledged: u64,
    /// Publishes that are not confirmed.
    pub messages_unconfirmed: u64,
    /// Publishes that wait for tx.commit.
    pub messages_uncommitted: u64,
    /// Settlements that wait for tx.commit.
    pub acks_uncommitted: u64,
    /// `running`, or `flow` while its connection is held back.
    pub state: ConnectionState,
    /// Since when it has done nothing, in milliseconds since the epoch, if that is some time ago.
    pub idle_since_ms: Option<u64>,
    /// What it counted.
    pub message_stats: MessageFacts,
}

impl ChannelFacts {
    /// What is known of its connection.
    pub fn opened(&self) -> Option<&Opened> {
        self.connection.opened()
    }
}

/// A consumer with its channel.
#[derive(Clone, Debug)]
pub struct ConsumerView {
    /// As it asked for it.
    pub facts: Arc<ConsumerFacts>,
    /// Its connection.
    pub connection: Arc<ConnectionStats>,
    /// Its channel's number.
    pub channel: u16,
    /// Whether it is served; where only one consumer is, the others wait.
    pub active: bool,
    /// `up`, `single_active` or `waiting`.
    pub activity_status: &'static str,
    /// How long a delivery may stay unacked, in milliseconds, where that is limited.
    pub consumer_timeout_ms: Option<u64>,
}

impl ConsumerView {
    /// What is known of its connection.
    pub fn opened(&self) -> Option<&Opened> {
        self.connection.opened()
    }

    /// The name of its channel.
    pub fn channel_name(&self) -> String {
        channel_name(&self.connection, self.channel)
    }
}

/// What a channel published to an exchange: `publishes` of a channel, `incoming` of an exchange.
#[derive(Clone, Debug)]
pub struct ToExchangeFacts {
    /// Whose.
    pub connection: Arc<ConnectionStats>,
    /// The channel's number.
    pub channel: u16,
    /// The exchange's name.
    pub exchange: Arc<str>,
    /// In the order of [`Stat::OF_PUBLISHING`](crate::metrics::Stat::OF_PUBLISHING).
    pub stats: Numbers<4>,
}

/// What a channel got from a queue: `deliveries` of a channel or of a queue.
#[derive(Clone, Debug)]
pub struct FromQueueFacts {
    /// Whose.
    pub connection: Arc<ConnectionStats>,
    /// The channel's number.
    pub channel: u16,
    /// The queue's name.
    pub queue: Arc<str>,
    /// In the order of [`Stat::OF_DELIVERY`](crate::metrics::Stat::OF_DELIVERY).
    pub stats: Numbers<7>,
}

impl Reader<'_> {
    /// Open connections, in the order in which they came.
    pub fn connections(&self) -> Vec<ConnectionFacts> {
        self.live().iter().map(|stats| self.connection_facts(stats)).collect()
    }

    /// The open connection of that name.
    pub fn connection(&self, name: &str) -> Option<ConnectionFacts> {
        let stats = self.broker.metrics.connections.named(name)?;
        Some(self.connection_facts(&stats))
    }

    /// The open connection of that number, such as the owner of an exclusive queue.
    pub fn connection_numbered(&self, number: u64) -> Option<ConnectionFacts> {
        let stats = self.broker.metrics.connections.get(number)?;
        Some(self.connection_facts(&stats))
    }

    fn connection_facts(&self, stats: &Arc<ConnectionStats>) -> ConnectionFacts {
        let totals = stats.totals();
        let bytes = [Total::ReceivedBytes, Total::SentBytes].map(|total| totals.get(total));
        ConnectionFacts {
            number: stats.number,
            state: self.connection_state(stats),
            channels: stats.channel_count(),
            bytes: stats.history(|history| Numbers::of(bytes, history, 0, self.ranges.data_rates, self.now_ms)),
            reads: totals.get(Total::Reads),
            writes: totals.get(Total::Writes),
            unsent_bytes: stats.unsent_bytes(),
            stats: Arc::clone(stats),
        }
    }

    fn connection_state(&self, stats: &ConnectionStats) -> ConnectionState {
        if stats.is_blocked() {
            return ConnectionState::Blocked;
        }
        if self.broker.alarms.reason().is_some() {
            return ConnectionState::Blocking;
        }
        let is_held_back = self.broker.census.mailbox(stats.number).is_some_and(|mailbox| mailbox.is_out_of_credit());
        if is_held_back { ConnectionState::Flow } else { ConnectionState::Running }
    }

    /// Open channels of all connections.
    pub fn channels(&self) -> Vec<ChannelFacts> {
        self.live().iter().flat_map(|connection| self.channels_on(connection)).collect()
    }

    /// Open channels of a connection.
    pub fn channels_of(&self, connection: &ConnectionFacts) -> Vec<ChannelFacts> {
        self.channels_on(&connection.stats)
    }

    /// The open channel of that name.
    pub fn channel(&self, name: &str) -> Option<ChannelFacts> {
        let (connection, number) = name.strip_suffix(')')?.rsplit_once(" (")?;
        let connection = self.broker.metrics.connections.named(connection)?;
        let channel = connection.channel(number.parse().ok()?)?;
        Some(self.channel_facts(&connection, &channel))
    }

    fn channels_on(&self, connection: &Arc<ConnectionStats>) -> Vec<ChannelFacts> {
        connection.channels().iter().map(|channel| self.channel_facts(connection, channel)).collect()
    }

    fn channel_facts(&self, connection: &Arc<ConnectionStats>, channel: &Arc<ChannelStats>) -> ChannelFacts {
        let gauge = |gauge| channel.gauge(gauge);
        let active_ms = gauge(Gauge::ActiveMs);
        let is_flow = self.connection_state(connection) == ConnectionState::Flow;
        ChannelFacts {
            name: channel_name(connection, channel.number),
            number: channel.number,
            prefetch_count: gauge(Gauge::PrefetchCount),
            global_prefetch_count: gauge(Gauge::GlobalPrefetchCount),
            confirm: gauge(Gauge::IsConfirm) > 0,
            transactional: gauge(Gauge::IsTransactional) > 0,
            consumer_count: gauge(Gauge::Consumers),
            messages_unacknowledged: gauge(Gauge::Unacked),
            messages_unconfirmed: gauge(Gauge::Unconfirmed),
            messages_uncommitted: gauge(Gauge::Uncommitted),
            acks_uncommitted: gauge(Gauge::AcksUncommitted),
            state: if is_flow { ConnectionState::Flow } else { ConnectionState::Running },
            idle_since_ms: idle_since(active_ms, self.now_ms),
            message_stats: channel.history(|history| {
                MessageFacts::of(channel.message_stats(), Some(history), self.ranges.msg_rates, self.now_ms)
            }),
            connection: Arc::clone(connection),
            channel: Arc::clone(channel),
        }
    }

    /// What a channel published, by exchange; of exchanges that are still there.
    pub fn publishes(&self, channel: &ChannelFacts) -> Vec<ToExchangeFacts> {
        let vhost = channel.opened().and_then(|opened| self.broker.vhost(&opened.vhost));
        let is_there = |to: &ToExchange| {
            let exchange = vhost.as_ref().and_then(|vhost| vhost.exchange(&to.name));
            exchange.is_some_and(|exchange| exchange.number == to.number)
        };
        let all = channel.channel.to_exchanges();
        all.iter()
            .filter(|to| is_there(to))
            .map(|to| self.to_exchange(&channel.connection, channel.number, to))
            .collect()
    }

    /// What a channel got, by queue; of queues that are still there.
    pub fn deliveries(&self, channel: &ChannelFacts) -> Vec<FromQueueFacts> {
        let vhost = channel.opened().and_then(|opened| self.broker.vhost(&opened.vhost));
        let is_there = |from: &FromQueue| {
            let queue = vhost.as_ref().and_then(|vhost| vhost.queue(&from.name));
            queue.is_some_and(|queue| queue.number == from.number)
        };
        let all = channel.channel.from_queues();
        all.iter()
            .filter(|from| is_there(from))
            .map(|from| self.facts_of(&channel.connection, channel.number, from))
            .collect()
    }

    /// What open channels published to an exchange, by its number.
    pub fn publishes_to(&self, exchange: u64) -> Vec<ToExchangeFacts> {
        self.each_channel(|connection, channel| {
            let all = channel.to_exchanges();
            let found = all.iter().find(|to| to.number == exchange);
            found.map(|to| self.to_exchange(connection, channel.number, to))
        })
    }

    /// What open channels got from a queue, by its number.
    pub fn deliveries_from(&self, queue: u64) -> Vec<FromQueueFacts> {
        self.each_channel(|connection, channel| {
            let all = channel.from_queues();
            let found = all.iter().find(|from| from.number == queue);
            found.map(|from| self.facts_of(connection, channel.number, from))
        })
    }

    fn each_channel<T>(&self, find: impl Fn(&Arc<ConnectionStats>, &ChannelStats) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        for connection in self.live() {
            found.extend(connection.channels().iter().filter_map(|channel| find(connection, channel)));
        }
        found
    }

    fn to_exchange(&self, connection: &Arc<ConnectionStats>, channel: u16, to: &ToExchange) -> ToExchangeFacts {
        let (values, rates) = to.get(self.now_ms);
        let stats = Numbers { values, rates, sampled: None };
        ToExchangeFacts { connection: Arc::clone(connection), channel, exchange: Arc::clone(&to.name), stats }
    }

    fn facts_of(&self, connection: &Arc<ConnectionStats>, channel: u16, from: &FromQueue) -> FromQueueFacts {
        let (values, rates) = from.get(self.now_ms);
        let stats = Numbers { values, rates, sampled: None };
        FromQueueFacts { connection: Arc::clone(connection), channel, queue: Arc::clone(&from.name), stats }
    }

    /// Consumers of all connections.
    pub fn consumers(&self) -> Vec<ConsumerView> {
        let mut consumers: Vec<ConsumerView> = self.by_queue().values().flatten().cloned().collect();
        consumers.sort_unstable_by_key(|view| (view.connection.number, view.channel, view.facts.source));
        consumers
    }

    /// Consumers of a queue, by its number, in the order in which they came.
    pub fn consumers_of(&self, queue: u64) -> &[ConsumerView] {
        self.by_queue().get(&queue).map_or(&[], Vec::as_slice)
    }

    fn by_queue(&self) -> &HashMap<u64, Vec<ConsumerView>> {
        self.by_queue.get_or_init(|| {
            let mut by_queue: HashMap<u64, Vec<ConsumerView>> = HashMap::new();
            for connection in self.live() {
                for channel in connection.channels() {
                    for facts in channel.consumers() {
                        let queue = facts.queue_number;
                        if let Some(view) = self.consumer_view(connection, channel.number, facts) {
                            by_queue.entry(queue).or_default().push(view);
                        }
                    }
                }
            }
            by_queue
        })
    }

    /// None for consumers of what people do not see as a queue.
    fn consumer_view(
        &self,
        connection: &Arc<ConnectionStats>,
        channel: u16,
        facts: Arc<ConsumerFacts>,
    ) -> Option<ConsumerView> {
        let vhost = self.broker.vhost(&connection.opened()?.vhost)?;
        let queue = vhost.queue(&facts.queue).filter(|queue| queue.number == facts.queue_number)?;
        let options = queue.settings.read().options;
        let (active, activity_status) = match options.single_active_consumer {
            false => (true, "up"),
            true => {
                let own = HolderId { connection: connection.number, source: facts.source };
                let is_active = queue.handle.report().is_some_and(|report| report.active_consumer == Some(own));
                (is_active, if is_active { "single_active" } else { "waiting" })
            }
        };
        let consumer_timeout_ms = options.consumer_timeout_ms;
        let connection = Arc::clone(connection);
        Some(ConsumerView { facts, connection, channel, active, activity_status, consumer_timeout_ms })
    }
}

/// Since when nothing was done, if that is longer ago than the time between two looks.
pub(super) fn idle_since(active_ms: u64, now_ms: u64) -> Option<u64> {
    (active_ms > 0 && now_ms.saturating_sub(active_ms) > LOOK_MS).then_some(active_ms)
}
