//! The pages of a broker with traffic, and of one that has just started.

use std::io::Write;
use std::process::{Command, Stdio};

use tests::broker_process::BrokerOptions;

use crate::contract::{MUST, OWN, PER_EXCHANGE, PER_QUEUE, QUEUE_TYPES, SHOULD, SIZE_BOUNDS};
use crate::page::Page;
use crate::traffic::{Busy, DROPPED, PUBLISHED, RETURNED, ROUTED};
use crate::{ask, get, wait_for};

const AMQP: (&str, &str) = ("protocol", "amqp091");
const CLASSIC: (&str, &str) = ("queue_type", "rabbit_classic_queue");
const PAGES: [&str; 4] = [
    "/metrics",
    "/metrics/per-object",
    "/metrics/memory-breakdown",
    "/metrics/detailed?family=queue_metrics&family=queue_coarse_metrics&family=queue_delivery_metrics\
     &family=queue_exchange_metrics&family=exchange_metrics&family=channel_metrics&family=channel_exchange_metrics\
     &family=channel_queue_metrics&family=connection_coarse_metrics&family=connection_metrics\
     &family=connection_churn_metrics&family=node_metrics&family=node_persister_metrics&family=auth_attempt_metrics\
     &family=vhost_status&family=exchange_bindings&family=exchange_names&family=queue_consumer_count\
     &family=channel_queue_exchange_metrics&family=channel_process_metrics&family=node_coarse_metrics\
     &family=auth_attempt_detailed_metrics&family=ra_metrics&family=stream_consumer_metrics",
];

/// Everything that is promised has its type and exactly these labels.
fn check(page: &Page, promised: &[(&str, &str, &[&str])]) {
    for &(name, kind, labels) in promised {
        assert_eq!(page.types.get(name).map(String::as_str), Some(kind), "{name}");
        let (series, mut labels) = match kind {
            "histogram" => (format!("{name}_bucket"), labels.to_vec()),
            "summary" => (format!("{name}_sum"), labels.to_vec()),
            _ => (name.to_owned(), labels.to_vec()),
        };
        if kind == "histogram" {
            labels.push("le");
        }
        assert_eq!(page.label_sets(&series), [labels], "{name}");
    }
}

#[test]
fn everything_that_is_promised_is_there_from_the_start() {
    let broker = BrokerOptions::default().metrics().start().expect("the broker starts");
    let page = Page::parse(&get(broker.metrics(), "/metrics").text());
    for promised in [MUST, SHOULD, OWN] {
        check(&page, promised);
    }
    let of_types: Vec<_> = MUST.iter().filter(|(_, _, labels)| labels.contains(&"queue_type")).collect();
    for (name, ..) in of_types {
        assert_eq!(page.label_values(name, "queue_type"), QUEUE_TYPES, "{name}");
        assert!(page.series[*name].iter().all(|(_, value)| *value == 0.0), "{name}");
    }
    assert_eq!(page.label_values("rabbitmq_message_size_bytes_bucket", "le"), SIZE_BOUNDS);
    for (name, kind) in &page.types {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    }
    for reason in ["expired", "rejected", "delivery_limit", "confirmed"] {
        let strategies = page
            .label_values(&format!("rabbitmq_global_messages_dead_lettered_{reason}_total"), "dead_letter_strategy");
        assert!(strategies.contains(&"at_least_once"), "{reason}: {strategies:?}");
    }
    assert_eq!(page.label_values("rabbitmq_identity_info", "rabbitmq_endpoint"), ["aggregated"]);
}

#[test]
fn traffic_is_counted_once_and_counters_stay_when_connections_go() {
    let busy = Busy::start();
    let address = busy.broker.metrics();
    let page = Page::parse(&get(address, "/metrics").text());
    let global = |page: &Page, name: &str| page.value_of(&format!("rabbitmq_global_messages_{name}_total"), &[AMQP]);
    let again = 2.0;
    assert_eq!(global(&page, "received"), PUBLISHED as f64 + again);
    assert_eq!(global(&page, "received_confirm"), PUBLISHED as f64 + again);
    assert_eq!(global(&page, "confirmed"), PUBLISHED as f64 + again);
    assert_eq!(global(&page, "routed"), ROUTED as f64 + again);
    assert_eq!(global(&page, "unroutable_returned"), RETURNED as f64);
    assert_eq!(global(&page, "unroutable_dropped"), DROPPED as f64);
    let delivered = |name: &str| page.value_of(&format!("rabbitmq_global_messages_{name}_total"), &[AMQP, CLASSIC]);
    assert_eq!(delivered("delivered_get_auto_ack"), 1.0);
    assert_eq!(delivered("delivered_get_manual_ack"), 1.0);
    assert_eq!(delivered("get_empty"), 1.0);
    assert_eq!(delivered("acknowledged"), 1.0);
    assert!(delivered("delivered_consume_auto_ack") >= 1.0 && delivered("delivered_consume_manual_ack") >= 1.0);
    assert!(delivered("redelivered") >= 1.0, "one was given back");
    let bucket = |bound| page.value_of("rabbitmq_message_size_bytes_bucket", &[AMQP, ("le", bound)]);
    assert_eq!((bucket("100.0"), bucket("1000.0"), bucket("10000.0")), (10.0, 12.0, 14.0));
    assert_eq!(page.value_of("rabbitmq_message_size_bytes_sum", &[AMQP]), 22_330.0 + 10.0);
    assert_eq!((page.value("rabbitmq_connections"), page.value("rabbitmq_channels")), (1.0, 1.0));
    assert_eq!(page.value_of("rabbitmq_global_publishers", &[AMQP]), 1.0);
    let names = ["queues_declared_total", "queues_created_total", "queues_deleted_total", "queues"];
    assert_eq!(names.map(|name| page.value(&format!("rabbitmq_{name}"))), [3.0, 3.0, 1.0, 2.0]);
    let names = ["channels_opened_total", "channels_closed_total", "connections_opened_total"];
    assert_eq!(names.map(|name| page.value(&format!("rabbitmq_{name}"))), [4.0, 3.0, 1.0]);

    let before = page;
    busy.runtime.block_on(async { busy.connection.close(200, "".into()).await }).unwrap();
    let after = wait_for("the connection is gone", || {
        let page = Page::parse(&get(address, "/metrics").text());
        (page.value("rabbitmq_connections") == 0.0).then_some(page)
    });
    for (name, _) in before.types.iter().filter(|(_, kind)| *kind == "counter") {
        // Of hooks there are none.
        for (labels, value) in before.series.get(name).into_iter().flatten() {
            let now = after.series[name].iter().find(|(known, _)| known == labels).map(|(_, value)| *value);
            assert!(now >= Some(*value), "{name}{labels:?} went from {value} to {now:?}");
        }
    }
    assert_eq!(after.value("rabbitmq_connections_closed_total"), 1.0);
}

#[test]
fn every_object_has_its_series_with_rabbitmqs_labels() {
    let busy = Busy::start();
    let page = Page::parse(&get(busy.broker.metrics(), "/metrics/per-object").text());
    for name in PER_QUEUE {
        assert_eq!(page.label_sets(name), [["vhost", "queue"]], "{name}");
        assert_eq!(page.label_values(name, "queue"), ["orders", "empty"], "{name}");
    }
    for name in PER_EXCHANGE {
        assert_eq!(page.label_sets(name), [["vhost", "exchange"]], "{name}");
    }
    let orders = [("vhost", "/"), ("queue", "orders")];
    let topic = [("vhost", "/"), ("exchange", "amq.topic")];
    assert_eq!(page.value_of("rabbitmq_queue_messages_published_total", &orders), 12.0);
    assert_eq!(page.value_of("rabbitmq_queue_messages_acked_total", &orders), 1.0);
    assert_eq!(page.value_of("rabbitmq_exchange_messages_published_total", &topic), 12.0);
    assert_eq!(page.value_of("rabbitmq_exchange_messages_confirmed_total", &topic), 12.0);
    let default = [("vhost", "/"), ("exchange", "")];
    assert_eq!(page.value_of("rabbitmq_exchange_messages_unroutable_returned_total", &default), 1.0);
    let pair = [("queue_vhost", "/"), ("queue", "orders"), ("exchange_vhost", "/"), ("exchange", "amq.topic")];
    assert_eq!(page.value_of("rabbitmq_queue_exchange_messages_published_total", &pair), 12.0);
    assert_eq!(page.label_sets("rabbitmq_queue_info"), [["vhost", "queue", "queue_type", "membership"]]);
    assert_eq!(page.label_sets("rabbitmq_channel_messages_unacked"), [["channel"]]);
    assert_eq!(page.label_sets("rabbitmq_connection_incoming_bytes_total"), [["channel"]]);
    assert_eq!(page.label_sets("rabbitmq_channel_messages_published_total"), [["channel", "vhost", "exchange"]]);
    assert_eq!(page.label_sets("rabbitmq_channel_messages_acked_total"), [["channel", "vhost", "queue"]]);
}

#[test]
fn families_vhosts_and_queues_are_chosen() {
    let busy = Busy::start();
    let address = busy.broker.metrics();
    let detailed = |query: &str| Page::parse(&get(address, &format!("/metrics/detailed?{query}")).text());
    let page = detailed("family=queue_coarse_metrics&vhost=%2F&queue=%5Eord");
    let names: Vec<&str> = page.types.keys().map(String::as_str).collect();
    let expected = [
        "rabbitmq_build_info",
        "rabbitmq_detailed_queue_info",
        "rabbitmq_detailed_queue_messages",
        "rabbitmq_detailed_queue_messages_ready",
        "rabbitmq_detailed_queue_messages_unacked",
        "rabbitmq_identity_info",
    ];
    assert_eq!(names, expected);
    assert_eq!(page.label_values("rabbitmq_detailed_queue_messages", "queue"), ["orders"]);
    assert_eq!(page.label_values("rabbitmq_identity_info", "rabbitmq_endpoint"), ["detailed"]);
    let page = detailed("family=queue_coarse_metrics&vhost=other");
    assert_eq!(page.series.get("rabbitmq_detailed_queue_messages").map(Vec::len), None);
    let page = detailed("family=channel_queue_exchange_metrics");
    let pair = [("queue_vhost", "/"), ("queue", "orders"), ("exchange_vhost", "/"), ("exchange", "amq.topic")];
    assert_eq!(page.value_of("rabbitmq_detailed_queue_messages_published_total", &pair), 12.0);
    let page = detailed("family=vhost_status&family=exchange_bindings");
    assert_eq!(page.value_of("rabbitmq_cluster_vhost_status", &[("vhost", "/")]), 1.0);
    let topic = [("vhost", "/"), ("exchange", "amq.topic"), ("type", "topic")];
    assert_eq!(page.value_of("rabbitmq_cluster_exchange_bindings", &topic), 1.0);
    assert_eq!(get(address, "/metrics/detailed?family=queue_metrics&queue=(").status, 400);
}

#[test]
fn pages_are_served_as_the_format_asks_also_beside_the_api() {
    let broker = BrokerOptions::default().metrics().http().start().expect("the broker starts");
    for address in [broker.metrics(), broker.http()] {
        for path in PAGES.iter().copied().chain(["/metrics/"]) {
            let answer = get(address, path);
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{path}: {}", answer.head);
            for header in ["content-security-policy: default-src 'none'", "x-frame-options: deny", "nosniff"] {
                assert!(answer.head.contains(header), "{path}: {header}: {}", answer.head);
            }
            let head = ask(address, "HEAD", path, "");
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            let packed = ask(address, "GET", path, "accept-encoding: gzip\r\n");
            assert!(packed.head.contains("content-encoding: gzip") && packed.body.starts_with(&[0x1f, 0x8b]), "{path}");
        }
        assert_eq!(get(address, "/metrics/nope").status, 404);
        assert_eq!(ask(address, "POST", "/metrics", "content-length: 0\r\n").status, 405);
    }
    assert_eq!(get(broker.metrics(), "/").status, 404);
}

#[test]
fn logins_are_counted_by_protocol() {
    let busy = Busy::start();
    let http = busy.broker.http();
    // guest:guest and guest:wrong.
    for (credentials, status) in [("Z3Vlc3Q6Z3Vlc3Q=", 200), ("Z3Vlc3Q6d3Jvbmc=", 401)] {
        let login = format!("authorization: Basic {credentials}\r\n");
        assert_eq!(ask(http, "GET", "/api/whoami", &login).status, status);
    }
    let page = Page::parse(&get(busy.broker.metrics(), "/metrics").text());
    let of = |protocol: &str| {
        ["total", "succeeded_total", "failed_total"]
            .map(|name| page.value_of(&format!("rabbitmq_auth_attempts_{name}"), &[("protocol", protocol)]))
    };
    assert_eq!((of("http"), of("amqp091")), ([2.0, 1.0, 1.0], [1.0, 1.0, 0.0]));
}

#[test]
fn promtool_has_nothing_to_say_about_any_page() {
    let busy = Busy::start();
    for path in PAGES {
        let text = get(busy.broker.metrics(), path).text();
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is installed; `tests/run --setup` does that");
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success() && said.is_empty(), "{path}:\n{said}");
    }
}

#[test]
fn a_port_that_is_taken_says_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(tests::broker_process::binary().unwrap())
        .args(["--listen", "127.0.0.1:0", "--http", "off", "--metrics", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().find(|line| line.starts_with("broker: ")).unwrap_or_default();
    assert!(line.contains(&address) && line.contains("--metrics ADDR:PORT"), "{errors}");
    let broker = tests::broker_process::BrokerProcess::with_topology("metrics: off\nvhosts: { /: {} }\n");
    assert!(!broker.log().iter().any(|line| line.contains("\"metrics\"")), "{:?}", broker.log());
}
