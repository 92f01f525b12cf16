//! The queries of RabbitMQ's Overview dashboard.
//!
//! Every panel joins its metric with the identity of the node, with the variables of the dashboard; what changes from panel to panel
//! is in the tables below.

/// What every panel multiplies by.
fn identity(cluster: &str) -> String {
    format!(
        "on(instance, job) group_left(rabbitmq_cluster, rabbitmq_node) \
         rabbitmq_identity_info{{rabbitmq_cluster=\"{cluster}\", namespace=\"\", rabbitmq_endpoint=\"aggregated\"}}"
    )
}

/// One value for the whole cluster.
const SINGLE: [&str; 6] = [
    "rabbitmq_queue_messages_ready",
    "rabbitmq_queue_messages_unacked",
    "rabbitmq_global_publishers",
    "rabbitmq_global_consumers",
    "rabbitmq_connections",
    "rabbitmq_queues",
];

/// Rates for the whole cluster.
const SINGLE_RATES: [&str; 2] = ["rabbitmq_global_messages_delivered_total", "rabbitmq_global_messages_received_total"];

/// Sums by node.
const BY_NODE: [&str; 2] = ["rabbitmq_queue_messages_ready", "rabbitmq_queue_messages_unacked"];

/// Rates by node.
const RATES: [&str; 18] = [
    "rabbitmq_global_messages_received_total",
    "rabbitmq_global_messages_routed_total",
    "rabbitmq_global_messages_confirmed_total",
    "rabbitmq_global_messages_unroutable_dropped_total",
    "rabbitmq_global_messages_unroutable_returned_total",
    "rabbitmq_global_messages_redelivered_total",
    "rabbitmq_global_messages_delivered_consume_manual_ack_total",
    "rabbitmq_global_messages_delivered_consume_auto_ack_total",
    "rabbitmq_global_messages_acknowledged_total",
    "rabbitmq_global_messages_delivered_get_auto_ack_total",
    "rabbitmq_global_messages_get_empty_total",
    "rabbitmq_global_messages_delivered_get_manual_ack_total",
    "rabbitmq_queues_declared_total",
    "rabbitmq_queues_created_total",
    "rabbitmq_queues_deleted_total",
    "rabbitmq_channels_opened_total",
    "rabbitmq_channels_closed_total",
    "rabbitmq_connections_opened_total",
];

/// As they are, of each node.
const PLAIN: [&str; 3] = ["rabbitmq_queues", "rabbitmq_channels", "rabbitmq_connections"];

/// The classes of sizes: a bound with the one before it.
const SIZES: [(&str, Option<&str>); 9] = [
    ("100.0", None),
    ("1000.0", Some("100.0")),
    ("10000.0", Some("1000.0")),
    ("100000.0", Some("10000.0")),
    ("1e+06", Some("100000.0")),
    ("1e+07", Some("1e+06")),
    ("5e+07", Some("1e+07")),
    ("1e+08", Some("5e+07")),
    ("+Inf", Some("1e+08")),
];

/// All queries, over `range`.
pub(crate) fn queries(cluster: &str, range: &str) -> Vec<String> {
    let join = identity(cluster);
    let mut queries = Vec::new();
    queries.extend(SINGLE.iter().map(|metric| format!("sum({metric} * {join})")));
    queries.push(format!("sum(rabbitmq_channels * {join})"));
    queries.extend(SINGLE_RATES.iter().map(|metric| format!("sum(irate({metric}[{range}]) * {join})")));
    queries.push(format!(
        "count(rabbitmq_identity_info{{namespace=\"\", rabbitmq_cluster=\"{cluster}\", rabbitmq_endpoint=\"aggregated\"}})"
    ));
    queries.push(format!(
        "rabbitmq_erlang_uptime_seconds * on(instance, job) group_left(rabbitmq_version, erlang_version) rabbitmq_build_info * {join}"
    ));
    queries.push(format!(
        "(rabbitmq_resident_memory_limit_bytes * {join}) - (rabbitmq_process_resident_memory_bytes * {join})"
    ));
    queries.push(format!("(rabbitmq_disk_space_available_bytes - rabbitmq_disk_space_available_limit_bytes) * {join}"));
    queries.push(format!("(rabbitmq_process_max_fds - rabbitmq_process_open_fds) * {join}"));
    queries.extend(BY_NODE.iter().map(|metric| format!("sum({metric} * {join}) by(rabbitmq_node)")));
    queries.extend(
        RATES
            .iter()
            .chain(&["rabbitmq_connections_closed_total"])
            .map(|metric| format!("sum(rate({metric}[{range}]) * {join}) by(rabbitmq_node)")),
    );
    queries.extend(PLAIN.iter().map(|metric| format!("{metric} * {join}")));
    queries.push(format!(
        "sum(rate(rabbitmq_global_messages_received_confirm_total[{range}]) * {join} - \
         rate(rabbitmq_global_messages_confirmed_total[{range}]) * {join}) by(rabbitmq_node)"
    ));
    queries.push(format!(
        "sum((rate(rabbitmq_global_messages_delivered_consume_auto_ack_total[{range}]) * {join}) + \
         (rate(rabbitmq_global_messages_delivered_consume_manual_ack_total[{range}]) * {join})) by(rabbitmq_node)"
    ));
    let increase = |metric: &str| format!("sum(increase(rabbitmq_message_size_bytes_{metric}[{range}]) * {join})");
    queries.push(format!("{} / {}", increase("sum"), increase("count")));
    for (bound, before) in SIZES {
        let up_to = |bound: &str| increase(&format!("bucket{{le=\"{bound}\"}}"));
        let class = match before {
            Some(before) => format!("({} - {})", up_to(bound), up_to(before)),
            None => up_to(bound),
        };
        queries.push(format!("{class} / {}", up_to("+Inf")));
    }
    queries
}
