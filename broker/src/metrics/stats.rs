//! The names of what is counted.
//!
//! [`Stat`] is what RabbitMQ's management API calls `message_stats`; [`Total`] is what a connection counts for the sums of its vhost and
//! of the node, finer because Prometheus wants more labels there.

use std::ops::AddAssign;

/// A counter of `message_stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stat {
    /// Messages that came: to a channel, exchange or vhost from publishers, to a queue from anywhere.
    Publish,
    /// Publishes that were confirmed.
    Confirm,
    /// Mandatory messages that came back because no queue took them.
    ReturnUnroutable,
    /// Messages that were dropped because no queue took them.
    DropUnroutable,
    /// Messages that consumers got and have to ack.
    Deliver,
    /// Messages that consumers got and need not ack.
    DeliverNoAck,
    /// Messages fetched by basic.get that have to be acked.
    Get,
    /// Messages fetched by basic.get that need not be acked.
    GetNoAck,
    /// basic.get that found nothing.
    GetEmpty,
    /// Acks of single messages.
    Ack,
    /// Of what was delivered and fetched, what had been before.
    Redeliver,
    /// Everything that was handed out: the sum of deliver, deliver_no_ack, get and get_no_ack.
    DeliverGet,
}

/// How many there are.
pub const STATS: usize = Stat::DeliverGet as usize + 1;

impl Stat {
    /// All, in their order.
    pub const ALL: [Self; STATS] = [
        Self::Publish,
        Self::Confirm,
        Self::ReturnUnroutable,
        Self::DropUnroutable,
        Self::Deliver,
        Self::DeliverNoAck,
        Self::Get,
        Self::GetNoAck,
        Self::GetEmpty,
        Self::Ack,
        Self::Redeliver,
        Self::DeliverGet,
    ];

    /// What publishers bring about.
    pub const OF_PUBLISHING: [Self; 4] = [Self::Publish, Self::Confirm, Self::ReturnUnroutable, Self::DropUnroutable];

    /// What consumers bring about, without the sum.
    pub const OF_DELIVERY: [Self; 7] =
        [Self::Deliver, Self::DeliverNoAck, Self::Get, Self::GetNoAck, Self::GetEmpty, Self::Ack, Self::Redeliver];

    /// The key in `message_stats`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Confirm => "confirm",
            Self::ReturnUnroutable => "return_unroutable",
            Self::DropUnroutable => "drop_unroutable",
            Self::Deliver => "deliver",
            Self::DeliverNoAck => "deliver_no_ack",
            Self::Get => "get",
            Self::GetNoAck => "get_no_ack",
            Self::GetEmpty => "get_empty",
            Self::Ack => "ack",
            Self::Redeliver => "redeliver",
            Self::DeliverGet => "deliver_get",
        }
    }
}

/// A value for each [`Stat`]; the sum among them is made when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageStats([u64; STATS]);

impl MessageStats {
    /// One of them.
    pub fn get(&self, stat: Stat) -> u64 {
        match stat {
            Stat::DeliverGet => self.deliver_get(),
            stat => self.0[stat as usize],
        }
    }

    /// Adds to one of them.
    #[inline]
    pub fn add(&mut self, stat: Stat, amount: u64) {
        self.0[stat as usize] += amount;
    }

    /// All of them, in the order of [`Stat::ALL`].
    pub fn row(&self) -> [u64; STATS] {
        Stat::ALL.map(|stat| self.get(stat))
    }

    /// Sets one of them.
    #[must_use]
    pub fn with(mut self, stat: Stat, value: u64) -> Self {
        self.0[stat as usize] = value;
        self
    }

    fn deliver_get(&self) -> u64 {
        [Stat::Deliver, Stat::DeliverNoAck, Stat::Get, Stat::GetNoAck].iter().map(|&stat| self.get(stat)).sum()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&value| value == 0)
    }
}

impl AddAssign for MessageStats {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, value)| *sum += value);
    }
}

/// The types of queues that are told apart, as metrics name them.
pub const QUEUE_TYPES: [&str; 3] = ["rabbit_classic_queue", "rabbit_quorum_queue", "rabbit_stream_queue"];

/// The upper bounds of the sizes of messages, in bytes; what is larger is in a class of its own.
pub const SIZE_BOUNDS: [u64; 8] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];

/// How many classes of size there are.
pub const SIZES: usize = SIZE_BOUNDS.len() + 1;

/// The class of a size.
#[inline]
pub fn size_class(bytes: u64) -> usize {
    SIZE_BOUNDS.partition_point(|&bound| bound < bytes)
}

/// A counter of a connection, for the sums of its vhost and of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// Messages that publishers sent.
    Received,
    /// Of these, those that want a confirm.
    ReceivedConfirm,
    /// Copies of them that went to queues.
    Routed,
    /// Publishes that were confirmed.
    Confirmed,
    /// Messages that no queue took, dropped.
    UnroutableDropped,
    /// Messages that no queue took, returned.
    UnroutableReturned,
    /// Bytes of the bodies of what publishers sent.
    BodyBytes,
    /// Bytes from the socket.
    ReceivedBytes,
    /// Bytes to the socket.
    SentBytes,
    /// Reads from the socket.
    Reads,
    /// Writes to the socket.
    Writes,
    /// Times that the socket was left unread because too much was unprocessed.
    CreditStops,
    /// One of [`Stat::OF_DELIVERY`], for a type of queue by its place in [`QUEUE_TYPES`].
    Delivery(usize, Stat),
    /// Messages of a class of size.
    Size(usize),
}

const PLAIN_TOTALS: usize = 12;
const DELIVERIES: usize = Stat::OF_DELIVERY.len();
/// Streams are never delivered from.
const COUNTED_TYPES: usize = 2;

/// How many there are.
pub const TOTALS: usize = PLAIN_TOTALS + COUNTED_TYPES * DELIVERIES + SIZES;

impl Total {
    /// Its place among [`Totals`].
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            Self::Received => 0,
            Self::ReceivedConfirm => 1,
            Self::Routed => 2,
            Self::Confirmed => 3,
            Self::UnroutableDropped => 4,
            Self::UnroutableReturned => 5,
            Self::BodyBytes => 6,
            Self::ReceivedBytes => 7,
            Self::SentBytes => 8,
            Self::Reads => 9,
            Self::Writes => 10,
            Self::CreditStops => 11,
            // `Stat::Deliver` is the first of delivery.
            Self::Delivery(kind, stat) => {
                PLAIN_TOTALS + kind * DELIVERIES + (stat as usize).saturating_sub(Stat::Deliver as usize)
            }
            Self::Size(class) => PLAIN_TOTALS + COUNTED_TYPES * DELIVERIES + class,
        }
    }
}

/// A value for each [`Total`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals(pub [u64; TOTALS]);

impl Totals {
    /// Adds to one of them.
    pub fn add(&mut self, total: Total, amount: u64) {
        if let Some(value) = self.0.get_mut(total.index()) {
            *value += amount;
        }
    }
}

impl Default for Totals {
    fn default() -> Self {
        Self([0; TOTALS])
    }
}

impl Totals {
    /// One of them; 0 for what is never counted.
    pub fn get(&self, total: Total) -> u64 {
        match total {
            Total::Delivery(kind, _) if kind >= COUNTED_TYPES => 0,
            total => self.0.get(total.index()).copied().unwrap_or(0),
        }
    }

    /// Messages of every class of size.
    pub fn sizes(&self) -> [u64; SIZES] {
        std::array::from_fn(|class| self.get(Total::Size(class)))
    }

    /// The same as `message_stats`.
    pub fn message_stats(&self) -> MessageStats {
        let mut stats = MessageStats::default()
            .with(Stat::Publish, self.get(Total::Received))
            .with(Stat::Confirm, self.get(Total::Confirmed))
            .with(Stat::ReturnUnroutable, self.get(Total::UnroutableReturned))
            .with(Stat::DropUnroutable, self.get(Total::UnroutableDropped));
        for stat in Stat::OF_DELIVERY {
            stats = stats.with(stat, (0..COUNTED_TYPES).map(|kind| self.get(Total::Delivery(kind, stat))).sum());
        }
        stats
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, value)| *sum += value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_total_has_a_place_of_its_own() {
        let mut all = vec![
            Total::Received,
            Total::ReceivedConfirm,
            Total::Routed,
            Total::Confirmed,
            Total::UnroutableDropped,
            Total::UnroutableReturned,
            Total::BodyBytes,
            Total::ReceivedBytes,
            Total::SentBytes,
            Total::Reads,
            Total::Writes,
            Total::CreditStops,
        ];
        all.extend((0..COUNTED_TYPES).flat_map(|kind| Stat::OF_DELIVERY.map(|stat| Total::Delivery(kind, stat))));
        all.extend((0..SIZES).map(Total::Size));
        let mut places: Vec<usize> = all.iter().map(|total| total.index()).collect();
        places.sort_unstable();
        assert_eq!(places, (0..TOTALS).collect::<Vec<_>>());
    }

    #[test]
    fn a_size_is_in_the_first_class_whose_bound_it_does_not_exceed() {
        let classes: Vec<usize> = [0, 100, 101, 1_000_000, 100_000_000, 100_000_001].map(size_class).to_vec();
        assert_eq!(classes, [0, 0, 1, 4, 7, 8]);
    }

    #[test]
    fn message_stats_are_summed_over_types_of_queues() {
        let mut totals = Totals::default();
        totals.0[Total::Delivery(0, Stat::Get).index()] = 3;
        totals.0[Total::Delivery(1, Stat::Get).index()] = 4;
        totals.0[Total::Confirmed.index()] = 5;
        let stats = totals.message_stats();
        assert_eq!((stats.get(Stat::Get), stats.get(Stat::Confirm), stats.get(Stat::DeliverGet)), (7, 5, 7));
    }
}
