//! Exchanges, and what went from each to each queue.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Reader;
use super::text::{Kind, Page, labels};
use crate::metrics::exchanges::ExchangeStat;
use crate::routing::Exchange;
use crate::vhost::Vhost;

const COUNTERS: [(&str, ExchangeStat, &str); 4] = [
    ("exchange_messages_published_total", ExchangeStat::PublishIn, "Messages published to the exchange."),
    ("exchange_messages_confirmed_total", ExchangeStat::Confirm, "Messages published to the exchange and confirmed."),
    ("exchange_messages_unroutable_returned_total", ExchangeStat::ReturnUnroutable, "Messages returned as unroutable."),
    ("exchange_messages_unroutable_dropped_total", ExchangeStat::DropUnroutable, "Messages dropped as unroutable."),
];

/// An exchange with its vhost.
type Found = (Arc<Vhost>, Arc<Exchange>);

pub(super) fn found(reader: &Reader<'_>, is_wanted: impl Fn(&str) -> bool) -> Vec<Found> {
    let vhosts = reader.broker().vhosts.list().into_iter().filter(|vhost| is_wanted(&vhost.name));
    let with_vhost = |vhost: Arc<Vhost>| {
        let mut exchanges = vhost.exchanges();
        exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        exchanges.into_iter().map(move |exchange| (Arc::clone(&vhost), exchange))
    };
    vhosts.flat_map(with_vhost).collect()
}

pub(super) fn write_each(page: &mut Page, reader: &Reader<'_>) {
    let found = found(reader, |_| true);
    write_counters(page, &found);
    write_pairs(page, PAIRS, &found, |_| true);
}

/// `exchange_metrics`.
pub(super) fn write_counters(page: &mut Page, found: &[Found]) {
    let rows: Vec<_> = found
        .iter()
        .map(|(vhost, exchange)| {
            (labels(&[("vhost", &vhost.name), ("exchange", &exchange.name)]), exchange.stats.row())
        })
        .collect();
    for (name, stat, help) in COUNTERS {
        page.family(name, Kind::Counter, help);
        for (labels, row) in &rows {
            page.series(labels, row.get(stat as usize).copied().unwrap_or(0));
        }
    }
}

/// The family of pairs in `queue_exchange_metrics`.
pub(super) const PAIRS: &str = "queue_exchange_messages_published_total";
/// The same in `channel_queue_exchange_metrics`, where RabbitMQ has a series for each channel; channels do not count for each queue here.
pub(super) const PAIRS_OF_CHANNELS: &str = "queue_messages_published_total";

pub(super) fn write_pairs(page: &mut Page, family: &'static str, found: &[Found], is_named: impl Fn(&str) -> bool) {
    page.family(family, Kind::Counter, "Messages that went from the exchange to the queue.");
    let mut names: HashMap<u64, Arc<str>> = HashMap::new();
    let mut named_vhost: Option<Arc<str>> = None;
    for (vhost, exchange) in found {
        if named_vhost.as_ref() != Some(&vhost.name) {
            names = vhost.queues().into_iter().map(|queue| (queue.number, Arc::clone(&queue.name))).collect();
            named_vhost = Some(Arc::clone(&vhost.name));
        }
        for (queue, count, _) in exchange.stats.to_queues() {
            let Some(queue) = names.get(&queue).filter(|name| is_named(name)) else { continue };
            let pairs = [
                ("queue_vhost", &*vhost.name),
                ("queue", &**queue),
                ("exchange_vhost", &*vhost.name),
                ("exchange", &*exchange.name),
            ];
            page.series(&labels(&pairs), count);
        }
    }
}

/// `exchange_names` and `exchange_bindings`, which belong to the cluster.
pub(super) fn write_names(page: &mut Page, found: &[Found]) {
    page.family("exchange_name", Kind::Gauge, "An exchange with its type.");
    for (vhost, exchange) in found {
        page.series(&with_type(vhost, exchange), 1_u64);
    }
}

pub(super) fn write_bindings(page: &mut Page, found: &[Found]) {
    page.family("exchange_bindings", Kind::Gauge, "Bindings that lead from the exchange.");
    for (vhost, exchange) in found {
        page.series(&with_type(vhost, exchange), exchange.binding_count());
    }
}

fn with_type(vhost: &Vhost, exchange: &Exchange) -> String {
    labels(&[("vhost", &vhost.name), ("exchange", &exchange.name), ("type", &exchange.spec.kind)])
}
