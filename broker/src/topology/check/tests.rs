//! The checks on typed data; how findings look in a file is tested with the file's reader.

use plugin_api::{exchange::DestinationKind, value::Table};

use super::*;
use crate::topology::schema::{BindingDecl, ExchangeDecl, MixedDurability, QueueDecl, VhostDecl};
use crate::vhost::PREDECLARED;

fn exchange(name: &str, kind: &str, durable: bool) -> ExchangeDecl {
    ExchangeDecl {
        name: name.to_owned(),
        kind: kind.to_owned(),
        durable,
        auto_delete: false,
        internal: false,
        arguments: Table::new(),
    }
}

fn queue(name: &str, durable: bool) -> QueueDecl {
    QueueDecl { name: name.to_owned(), durable, auto_delete: false, arguments: Table::new() }
}

fn binding(source: &str, destination: &str, destination_kind: DestinationKind) -> BindingDecl {
    BindingDecl {
        source: source.to_owned(),
        destination: destination.to_owned(),
        destination_kind,
        routing_key: String::new(),
        arguments: Table::new(),
    }
}

fn topology(exchanges: Vec<ExchangeDecl>, queues: Vec<QueueDecl>, bindings: Vec<BindingDecl>) -> Topology {
    let vhost = VhostDecl { name: "/".to_owned(), exchanges, queues, bindings, ..VhostDecl::default() };
    Topology { vhosts: vec![vhost], ..Topology::default() }
}

#[track_caller]
fn check_causes(topology: &Topology, expected: &[(Item, Severity, &str)]) {
    let findings = check(topology);
    let actual: Vec<_> =
        findings.iter().map(|finding| (finding.place.item, finding.severity, finding.cause.as_str())).collect();
    assert_eq!(actual, expected);
}

#[test]
fn default_topology_has_nothing_to_say_about() {
    check_causes(&Topology::default(), &[]);
    assert!(check_exchange_types(&Topology::default(), &["direct"]).is_empty());
}

#[test]
fn predeclared_exchanges_can_be_bound_but_not_declared() {
    let named = || PREDECLARED.iter().filter(|(name, ..)| !name.is_empty());
    let bindings: Vec<_> = named()
        .flat_map(|(name, ..)| {
            [binding(name, "q", DestinationKind::Queue), binding("x", name, DestinationKind::Exchange)]
        })
        .collect();
    check_causes(&topology(vec![exchange("x", "direct", true)], vec![queue("q", true)], bindings), &[]);
    for (name, kind, _) in named() {
        let findings = check(&topology(vec![exchange(name, kind, true)], vec![], vec![]));
        assert_eq!(findings.len(), 1, "{name}");
    }
}

#[test]
fn durability_of_both_ends_is_compared() {
    let both = |exchange_durable, queue_durable, other_durable, mixed| Topology {
        bindings_mixed_durability: mixed,
        ..topology(
            vec![exchange("x", "fanout", exchange_durable), exchange("y", "fanout", other_durable)],
            vec![queue("q", queue_durable)],
            vec![binding("x", "q", DestinationKind::Queue), binding("x", "y", DestinationKind::Exchange)],
        )
    };
    let (first, second) = (Item::Binding(0, 0), Item::Binding(0, 1));
    check_causes(&both(true, true, true, MixedDurability::Refuse), &[]);
    check_causes(&both(false, false, false, MixedDurability::Refuse), &[]);
    check_causes(
        &both(false, true, false, MixedDurability::Warn),
        &[(first, Severity::Warning, "queue 'q' is durable but exchange 'x' is not")],
    );
    check_causes(
        &both(true, false, false, MixedDurability::Refuse),
        &[
            (first, Severity::Error, "exchange 'x' is durable but queue 'q' is not"),
            (second, Severity::Error, "exchange 'x' is durable but exchange 'y' is not"),
        ],
    );
}

#[test]
fn durability_of_confirms_is_for_durable_queues() {
    let with = |durable, value: &str| {
        let arguments = Table::new().with("x-durability", value);
        topology(vec![], vec![QueueDecl { arguments, ..queue("q", durable) }], vec![])
    };
    let item = Item::Queue(0, 0);
    check_causes(&with(true, "os"), &[]);
    check_causes(
        &with(false, "os"),
        &[(item, Severity::Warning, "queue 'q' is not durable, so its durability 'os' has no effect")],
    );
    check_causes(
        &with(true, "memory"),
        &[(item, Severity::Error, "queue argument 'x-durability' with value 'memory' is not one of synced, os")],
    );
}

#[test]
fn headers_bindings_need_a_known_x_match() {
    let with = |kind: &str, arguments: Table| {
        let binding = BindingDecl { arguments, ..binding("x", "q", DestinationKind::Queue) };
        topology(vec![exchange("x", kind, true)], vec![queue("q", true)], vec![binding])
    };
    for value in ["all", "any", "all-with-x", "any-with-x"] {
        check_causes(&with("headers", Table::new().with("x-match", value)), &[]);
    }
    check_causes(&with("headers", Table::new().with("format", "pdf")), &[]);
    check_causes(&with("direct", Table::new().with("x-match", "some")), &[]);
    let item = Item::Binding(0, 0);
    check_causes(
        &with("headers", Table::new().with("x-match", "some")),
        &[(item, Severity::Error, "invalid x-match 'some'")],
    );
    check_causes(
        &with("headers", Table::new().with("x-match", true)),
        &[(item, Severity::Error, "invalid x-match of type bool")],
    );
}

#[test]
fn binding_twice_means_same_ends_key_and_arguments() {
    let with = |key: &str, arguments: Table| BindingDecl {
        routing_key: key.to_owned(),
        arguments,
        ..binding("x", "q", DestinationKind::Queue)
    };
    let ends = || (vec![exchange("x", "topic", true)], vec![queue("q", true)]);
    let ab = || Table::new().with("a", 1i64).with("b", 2i64);
    let ba = || Table::new().with("b", 2i64).with("a", 1i64);
    let (exchanges, queues) = ends();
    let different = vec![with("k", Table::new()), with("l", Table::new()), with("k", ab())];
    check_causes(&topology(exchanges, queues, different), &[]);
    let (exchanges, queues) = ends();
    check_causes(
        &topology(exchanges, queues, vec![with("k", ab()), with("k", ba())]),
        &[(Item::Binding(0, 1), Severity::Warning, "this binding from 'x' to 'q' is declared twice")],
    );
}

#[test]
fn unknown_exchange_types_are_named() {
    let topology = topology(vec![exchange("a", "fanuot", true), exchange("b", "topic", true)], vec![], vec![]);
    let findings = check_exchange_types(&topology, &["fanout", "topic"]);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].place, Item::Exchange(0, 0).part(Part::Kind));
    assert_eq!(findings[0].help, "did you mean 'fanout'?");
}
