//! `/metrics/detailed`: chosen families, of chosen vhosts and queues.

use std::cell::Cell;

use fancy_regex::{Regex, RegexBuilder};

use super::connections::By;
use super::queues;
use super::text::{Kind, Page, labels};
use super::{Reader, connections, exchanges, node};

/// The families that may be asked for, as RabbitMQ names them.
pub(super) const FAMILIES: [&str; 24] = [
    "queue_coarse_metrics",
    "queue_consumer_count",
    "queue_metrics",
    "queue_delivery_metrics",
    "queue_exchange_metrics",
    "exchange_metrics",
    "channel_metrics",
    "channel_exchange_metrics",
    "channel_queue_metrics",
    "channel_queue_exchange_metrics",
    "channel_process_metrics",
    "connection_coarse_metrics",
    "connection_metrics",
    "connection_churn_metrics",
    "node_coarse_metrics",
    "node_metrics",
    "node_persister_metrics",
    "auth_attempt_metrics",
    "auth_attempt_detailed_metrics",
    "ra_metrics",
    "stream_consumer_metrics",
    "vhost_status",
    "exchange_bindings",
    "exchange_names",
];

/// Families without a series: reductions of Erlang's processes, Raft, streams; and who tried to log in from where, which is no business of everybody who
/// can scrape. RabbitMQ does not say that either unless told to; here `/api/auth/attempts/NODE/source` does, to those who may monitor.
#[cfg(test)]
pub(super) const EMPTY: [&str; 4] =
    ["channel_process_metrics", "auth_attempt_detailed_metrics", "ra_metrics", "stream_consumer_metrics"];

/// As long as the expressions that filter lists of the API may be.
const PATTERN_CHARS_MAX: usize = 1024;
/// Steps back that the expression may take in a name, which has 255 bytes at most. Nobody logs in for this page.
const PATTERN_STEPS_MAX: usize = 10_000;
/// Compiled size of the part that runs as an automaton.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    families: Vec<&'static str>,
    /// None for all.
    vhosts: Option<Vec<String>>,
    queue: Option<Pattern>,
}

/// What is looked for in names of queues.
#[derive(Clone, Debug)]
struct Pattern {
    regex: Regex,
    /// It took too long in a name, so it matches nothing from then on: what one name costs, ten thousand need not cost again.
    has_given_up: Cell<bool>,
}

/// A regular expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// Longer than the limit.
    #[error("queue=… is longer than {PATTERN_CHARS_MAX} characters; choose by vhost=… or by a shorter expression")]
    TooLong,
    /// Not one, or too large.
    #[error("queue=… is no regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    fn new(text: &str) -> Result<Self, InvalidFilter> {
        if text.chars().count() > PATTERN_CHARS_MAX {
            return Err(InvalidFilter::TooLong);
        }
        let mut builder = RegexBuilder::new(text);
        builder.backtrack_limit(PATTERN_STEPS_MAX).delegate_size_limit(PATTERN_BYTES_MAX);
        let regex = builder.build().map_err(|error| InvalidFilter::Syntax(error.to_string()))?;
        Ok(Self { regex, has_given_up: Cell::new(false) })
    }

    fn finds(&self, name: &str) -> bool {
        if self.has_given_up.get() {
            return false;
        }
        self.regex.is_match(name).unwrap_or_else(|_| {
            self.has_given_up.set(true);
            false
        })
    }
}

impl Filter {
    /// Reads decoded pairs of a query: `family` and `vhost` as often as wanted, `queue` once. Families that do not exist are passed
    /// over, as by RabbitMQ.
    ///
    /// # Errors
    /// A regular expression that cannot be used.
    pub fn from_query(query: &[(String, String)]) -> Result<Self, InvalidFilter> {
        let mut filter = Self::default();
        for (key, value) in query {
            match key.as_str() {
                "family" => filter.families.extend(FAMILIES.iter().find(|family| **family == *value)),
                "vhost" => filter.vhosts.get_or_insert_default().push(value.clone()),
                "queue" => filter.queue = Some(Pattern::new(value)?),
                _ => {}
            }
        }
        Ok(filter)
    }

    /// All families of everything.
    #[cfg(test)]
    pub(super) fn all() -> Self {
        Self { families: FAMILIES.to_vec(), ..Self::default() }
    }

    fn has(&self, family: &str) -> bool {
        self.families.contains(&family)
    }

    fn has_any(&self, families: &[&str]) -> bool {
        families.iter().any(|family| self.has(family))
    }

    fn wants_vhost(&self, name: &str) -> bool {
        self.vhosts.as_ref().is_none_or(|vhosts| vhosts.iter().any(|vhost| vhost == name))
    }

    fn wants_queue(&self, name: &str) -> bool {
        self.queue.as_ref().is_none_or(|pattern| pattern.finds(name))
    }
}

pub(super) fn write(page: &mut Page, reader: &Reader<'_>, filter: &Filter) {
    page.set_prefix("rabbitmq_detailed_");
    write_queues(page, reader, filter);
    if filter.has_any(&["exchange_metrics", "queue_exchange_metrics", "channel_queue_exchange_metrics"]) {
        let found = exchanges::found(reader, |vhost| filter.wants_vhost(vhost));
        if filter.has("exchange_metrics") {
            exchanges::write_counters(page, &found);
        }
        if filter.has("queue_exchange_metrics") {
            exchanges::write_pairs(page, exchanges::PAIRS, &found, |queue| filter.wants_queue(queue));
        }
        if filter.has("channel_queue_exchange_metrics") {
            exchanges::write_pairs(page, exchanges::PAIRS_OF_CHANNELS, &found, |queue| filter.wants_queue(queue));
        }
    }
    if filter.has_any(&["channel_metrics", "channel_exchange_metrics", "channel_queue_metrics"]) {
        let channels = connections::channels(reader);
        if filter.has("channel_metrics") {
            connections::write_channels(page, &channels);
        }
        if filter.has("channel_exchange_metrics") {
            connections::write_counters(page, &channels, By::Exchange);
        }
        if filter.has("channel_queue_metrics") {
            connections::write_counters(page, &channels, By::Queue);
        }
    }
    if filter.has("connection_coarse_metrics") {
        connections::write_traffic(page, reader);
    }
    if filter.has("connection_metrics") {
        connections::write_connections(page, reader);
    }
    if filter.has("connection_churn_metrics") {
        node::write_churn(page, reader);
    }
    if filter.has_any(&["node_coarse_metrics", "node_metrics"]) {
        node::write_process(page, reader);
    }
    if filter.has("node_persister_metrics") {
        node::write_io(page, reader);
    }
    if filter.has("auth_attempt_metrics") {
        node::write_logins(page, reader);
    }
    write_cluster(page, reader, filter);
}

fn write_queues(page: &mut Page, reader: &Reader<'_>, filter: &Filter) {
    let all = filter.has("queue_metrics");
    let wanted = ["queue_metrics", "queue_coarse_metrics", "queue_consumer_count", "queue_delivery_metrics"];
    if !filter.has_any(&wanted) {
        return;
    }
    let lines = queues::lines(reader, |vhost| filter.wants_vhost(vhost), |queue| filter.wants_queue(queue));
    if filter.has("queue_coarse_metrics") {
        queues::write_columns(page, &queues::COARSE, &lines);
    }
    if all || filter.has("queue_consumer_count") {
        queues::write_columns(page, &queues::CONSUMERS, &lines);
    }
    if all {
        queues::write_columns(page, &queues::REST, &lines);
        queues::write_head_timestamps(page, &lines);
    }
    if filter.has("queue_delivery_metrics") {
        queues::write_columns(page, &queues::DELIVERY, &lines);
    }
    if filter.has_any(&["queue_coarse_metrics", "queue_consumer_count", "queue_metrics"]) {
        queues::write_info(page, &lines);
    }
}

fn write_cluster(page: &mut Page, reader: &Reader<'_>, filter: &Filter) {
    page.set_prefix("rabbitmq_cluster_");
    if filter.has("vhost_status") {
        page.family("vhost_status", Kind::Gauge, "1 for a vhost that is there.");
        for vhost in reader.broker().vhosts.list().iter().filter(|vhost| filter.wants_vhost(&vhost.name)) {
            page.series(&labels(&[("vhost", &vhost.name)]), 1_u64);
        }
    }
    if filter.has_any(&["exchange_names", "exchange_bindings"]) {
        let found = exchanges::found(reader, |vhost| filter.wants_vhost(vhost));
        if filter.has("exchange_names") {
            exchanges::write_names(page, &found);
        }
        if filter.has("exchange_bindings") {
            exchanges::write_bindings(page, &found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &[(&str, &str)]) -> Result<Filter, InvalidFilter> {
        let query: Vec<_> = query.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Filter::from_query(&query)
    }

    #[test]
    fn families_vhosts_and_queues_are_chosen() {
        let chosen = filter(&[("family", "queue_metrics"), ("family", "nope"), ("vhost", "a"), ("queue", "^o.*s$")]);
        let chosen = chosen.expect("a valid filter");
        assert_eq!(chosen.families, ["queue_metrics"]);
        assert_eq!((chosen.wants_vhost("a"), chosen.wants_vhost("/")), (true, false));
        assert_eq!((chosen.wants_queue("orders"), chosen.wants_queue("my orders")), (true, false));
        let all = filter(&[]).expect("a valid filter");
        assert!(all.families.is_empty() && all.wants_vhost("/") && all.wants_queue("q"));
        assert!(filter(&[("queue", "(")]).is_err());
    }

    #[test]
    fn an_expression_has_a_length_a_size_and_a_number_of_steps() {
        let of = |pattern: &str| filter(&[("queue", pattern)]);
        assert!(of(&"a".repeat(PATTERN_CHARS_MAX)).is_ok());
        assert_eq!(of(&"a".repeat(PATTERN_CHARS_MAX + 1)).err(), Some(InvalidFilter::TooLong));
        assert!(matches!(of(r"(\w{1000}){100}"), Err(InvalidFilter::Syntax(_))), "a megabyte of automaton is enough");
        let costly = of(r"^(?:(a|aa)+)\1b").expect("a valid expression");
        assert!(costly.wants_queue("aaab"), "as long as it is quick it is asked");
        assert!(!costly.wants_queue(&"a".repeat(255)), "too many steps");
        assert!(!costly.wants_queue("aaab"), "it is not asked again");
    }
}
