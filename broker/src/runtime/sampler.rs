//! Looks at everything each five seconds, so that there are rates and charts.
//!
//! A look copies some numbers of each object and walks no messages. Queues are not waited for: one that is busy leaves its numbers
//! itself. After some hundred objects other tasks get their turn.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::Broker;
use super::process;
use super::trim;
use crate::metrics::history::LOOK_MS;
use crate::metrics::node::{BYTES_AT, LENGTHS_AT, SUMS};
use crate::metrics::read::gauges;
use crate::metrics::stats::{Total, Totals};
use crate::vhost::Vhost;

/// So many objects are looked at before other tasks get their turn.
const PORTION: usize = 256;

/// Looks for ever, at times that are multiples of the interval.
pub async fn run(broker: Arc<Broker>) {
    loop {
        let left_ms = LOOK_MS - broker.clock.wall_ms() % LOOK_MS;
        tokio::time::sleep(Duration::from_millis(left_ms)).await;
        // What is seen in one look belongs to one time, however long it takes.
        let now_ms = broker.clock.wall_ms() / LOOK_MS * LOOK_MS;
        look(&broker, now_ms).await;
        trim::stir_parked();
    }
}

/// Looks once, at a time in milliseconds since the epoch.
pub async fn look(broker: &Broker, now_ms: u64) {
    let vhosts = broker.vhosts.list();
    let connections = broker.metrics.connections.list();
    let mut queues: HashMap<Arc<str>, HashSet<u64>> = HashMap::new();
    let mut lengths = HashMap::new();
    for vhost in &vhosts {
        let (numbers, sum) = look_at_queues(vhost, now_ms).await;
        look_at_exchanges(vhost, &numbers, now_ms).await;
        queues.insert(Arc::clone(&vhost.name), numbers);
        lengths.insert(Arc::clone(&vhost.name), sum);
    }
    for (at, connection) in connections.iter().enumerate() {
        connection.look(now_ms);
        let numbers = connection.opened().and_then(|opened| queues.get(&opened.vhost));
        for channel in connection.channels() {
            channel.forget_queues(|queue| numbers.is_some_and(|numbers| numbers.contains(&queue)));
        }
        rest(at).await;
    }
    broker.metrics.connections.forget_vhosts(|name| vhosts.iter().any(|vhost| *vhost.name == *name));
    let sums = broker.metrics.connections.sums();
    let mut all = [0; 3];
    let mut rows = Vec::new();
    for (name, lengths) in lengths {
        all.iter_mut().zip(lengths).for_each(|(sum, length)| *sum += length);
        let totals = sums.vhosts.get(&name).copied().unwrap_or_default();
        rows.push((name, row(&totals, lengths)));
    }
    let gauges = gauges(broker, &process::read());
    broker.metrics.look(now_ms, row(&sums.node, all), gauges, rows);
}

/// Returns the numbers of the vhost's queues, and their lengths together.
async fn look_at_queues(vhost: &Vhost, now_ms: u64) -> (HashSet<u64>, [u64; 3]) {
    let mut numbers = HashSet::new();
    let mut lengths = [0; 3];
    for (at, queue) in vhost.queues().into_iter().enumerate() {
        numbers.insert(queue.number);
        if let (Some(report), Some(stats)) = (queue.handle.report(), queue.handle.stats()) {
            stats.history(|history| history.push(now_ms, &report));
            let own = [report.ready + report.unacked, report.ready, report.unacked];
            lengths.iter_mut().zip(own).for_each(|(sum, length)| *sum += length);
        }
        rest(at).await;
    }
    (numbers, lengths)
}

async fn look_at_exchanges(vhost: &Vhost, queues: &HashSet<u64>, now_ms: u64) {
    for (at, exchange) in vhost.exchanges().into_iter().enumerate() {
        exchange.stats.look(now_ms, |queue| queues.contains(&queue));
        rest(at).await;
    }
}

async fn rest(at: usize) {
    if at % PORTION == PORTION - 1 {
        tokio::task::yield_now().await;
    }
}

fn row(totals: &Totals, lengths: [u64; 3]) -> [u64; SUMS] {
    let mut row = [0; SUMS];
    let stats = totals.message_stats().row();
    let bytes = [Total::ReceivedBytes, Total::SentBytes].map(|total| totals.get(total));
    for (from, values) in [(0, &stats[..]), (LENGTHS_AT, &lengths[..]), (BYTES_AT, &bytes[..])] {
        row.iter_mut().skip(from).zip(values).for_each(|(to, value)| *to = *value);
    }
    row
}
