//! `rabbitmq_global_…` and the sizes of messages: what all connections that ever were have counted together.

use super::Reader;
use super::text::{Kind, Page};
use crate::metrics::Total;
use crate::metrics::node::{Metrics, Strategy};
use crate::metrics::stats::{QUEUE_TYPES, Stat};

const PROTOCOL: &str = "protocol=\"amqp091\"";

/// The bounds of sizes as dashboards ask for them, letter for letter.
const SIZE_BOUNDS: [&str; 8] = ["100.0", "1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "5e+07", "1e+08"];

/// Families with the protocol as their label.
const BY_PROTOCOL: [(&str, Total, &str); 6] = [
    ("global_messages_received_total", Total::Received, "Messages received from publishers."),
    ("global_messages_received_confirm_total", Total::ReceivedConfirm, "Messages received that want a confirm."),
    ("global_messages_routed_total", Total::Routed, "Copies of messages routed to queues."),
    ("global_messages_confirmed_total", Total::Confirmed, "Messages confirmed to publishers."),
    ("global_messages_unroutable_dropped_total", Total::UnroutableDropped, "Messages dropped as unroutable."),
    ("global_messages_unroutable_returned_total", Total::UnroutableReturned, "Messages returned as unroutable."),
];

/// Families with the type of queue as a second label.
const BY_QUEUE_TYPE: [(&str, Stat, &str); 7] = [
    ("global_messages_delivered_consume_auto_ack_total", Stat::DeliverNoAck, "Messages consumed without acks."),
    ("global_messages_delivered_consume_manual_ack_total", Stat::Deliver, "Messages consumed with acks."),
    ("global_messages_delivered_get_auto_ack_total", Stat::GetNoAck, "Messages fetched by basic.get without acks."),
    ("global_messages_delivered_get_manual_ack_total", Stat::Get, "Messages fetched by basic.get with acks."),
    ("global_messages_get_empty_total", Stat::GetEmpty, "basic.get that found nothing."),
    ("global_messages_redelivered_total", Stat::Redeliver, "Messages handed out again."),
    ("global_messages_acknowledged_total", Stat::Ack, "Messages acknowledged by consumers."),
];

const MAXLEN: &str = "global_messages_dead_lettered_maxlen_total";
const AT_LEAST_ONCE: &str = "queue_type=\"rabbit_quorum_queue\",dead_letter_strategy=\"at_least_once\"";

const DEATHS: [(&str, &str); 4] = [
    ("global_messages_dead_lettered_expired_total", "Messages that died because their time was up."),
    ("global_messages_dead_lettered_rejected_total", "Messages that died because they were rejected."),
    (MAXLEN, "Messages that died because their queue was too long."),
    ("global_messages_dead_lettered_delivery_limit_total", "Messages that died because they came back too often."),
];

pub(super) fn write(page: &mut Page, reader: &Reader<'_>) {
    let sums = reader.sums().node;
    for (name, total, help) in BY_PROTOCOL {
        page.family(name, Kind::Counter, help);
        page.series(PROTOCOL, sums.get(total));
    }
    let channels = reader.channel_sums();
    page.family("global_publishers", Kind::Gauge, "Open channels that have published.");
    page.series(PROTOCOL, channels.publishers);
    page.family("global_consumers", Kind::Gauge, "Consumers.");
    page.series(PROTOCOL, channels.consumers);
    page.family("global_messages_delivered_total", Kind::Counter, "Messages handed out, by consuming or basic.get.");
    for (kind, queue_type) in QUEUE_TYPES.into_iter().enumerate() {
        let handed_out = [Stat::Deliver, Stat::DeliverNoAck, Stat::Get, Stat::GetNoAck];
        let sum: u64 = handed_out.iter().map(|&stat| sums.get(Total::Delivery(kind, stat))).sum();
        page.series(&with_type(queue_type), sum);
    }
    for (name, stat, help) in BY_QUEUE_TYPE {
        page.family(name, Kind::Counter, help);
        for (kind, queue_type) in QUEUE_TYPES.into_iter().enumerate() {
            page.series(&with_type(queue_type), sums.get(Total::Delivery(kind, stat)));
        }
    }
    write_deaths(page, &reader.broker().metrics);
    page.family("message_size_bytes", Kind::Histogram, "Sizes of messages received from publishers.");
    page.histogram(PROTOCOL, &SIZE_BOUNDS, &sums.sizes(), sums.get(Total::BodyBytes));
}

fn with_type(queue_type: &str) -> String {
    format!("{PROTOCOL},queue_type=\"{queue_type}\"")
}

fn write_deaths(page: &mut Page, metrics: &Metrics) {
    const STRATEGIES: [(Strategy, &str); 2] =
        [(Strategy::Disabled, "disabled"), (Strategy::AtMostOnce, "at_most_once")];
    let classic_and_quorum = || QUEUE_TYPES.into_iter().enumerate().take(2);
    for (reason, (name, help)) in DEATHS.into_iter().enumerate() {
        page.family(name, Kind::Counter, help);
        for (kind, queue_type) in classic_and_quorum() {
            for (strategy, strategy_name) in STRATEGIES {
                let count = metrics.deaths.get(kind, strategy).get(reason).copied().unwrap_or(0);
                let labels = format!("queue_type=\"{queue_type}\",dead_letter_strategy=\"{strategy_name}\"");
                page.series(&labels, count);
            }
        }
        // RabbitMQ's quorum queues know this strategy, too, and drop nothing at their limit with it. Here nobody does; whoever sums up finds a zero.
        if name != MAXLEN {
            page.series(AT_LEAST_ONCE, 0_u64);
        }
    }
    page.family(
        "global_messages_dead_lettered_confirmed_total",
        Kind::Counter,
        "Dead letters confirmed by all queues that they went to.",
    );
    page.series(AT_LEAST_ONCE, 0_u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_that_sizes_are_counted_by() {
        let bounds: Vec<u64> = SIZE_BOUNDS.iter().map(|text| text.parse::<f64>().expect("a number") as u64).collect();
        assert_eq!(bounds, crate::metrics::stats::SIZE_BOUNDS);
    }
}
