//! `vhosts` with their exchanges and queues.

use plugin_api::value::{Table, Value as Argument};

use super::{
    bindings, hooks, parameters, policies,
    queues::{DURABILITIES, QUEUE, queue},
    reader::{Fields, Hint, Named, Reader, Section},
    yaml::{Node, Value},
};
use crate::{
    hooks::HookDecl,
    topology::{
        check::{Item, Part},
        schema::{ExchangeDecl, Topology, VhostDecl},
    },
    vhost::{
        policy::{PolicyKind, QueueType},
        settings::VhostMetadata,
    },
};

pub(super) const VHOST: Section = Section {
    what: "a vhost",
    keys: &[
        "durability",
        "tracing",
        "event_exchange",
        "log_exchange",
        "description",
        "tags",
        "default_queue_type",
        "limits",
        "policies",
        "operator_policies",
        "parameters",
        "exchanges",
        "queues",
        "bindings",
        "hooks",
    ],
    hints: &[
        ("operator-policies", Hint::Instead("did you mean 'operator_policies'?")),
        ("users", Hint::Instead("users stand at the top of the file, with permissions for their vhosts")),
        ("permissions", Hint::Instead("permissions belong into a user: 'users: { app: { permissions: … } }'")),
    ],
};

pub(super) const EXCHANGE: Section = Section {
    what: "an exchange",
    keys: &["type", "durable", "auto_delete", "internal", "alternate_exchange", "arguments", "hooks"],
    hints: &[
        ("kind", Hint::Instead("did you mean 'type'?")),
        ("bindings", Hint::Instead("bindings belong into the vhost, beside 'exchanges'")),
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    for named in reader.named(node, &VHOST) {
        let at = topology.vhosts.len();
        reader.place(Item::Vhost(at), Part::Whole, named.name_span);
        let mut vhost = VhostDecl { name: named.name.clone(), ..VhostDecl::default() };
        if let Some(fields) = reader.named_fields(&named, &VHOST) {
            read_vhost(reader, &fields, at, &mut vhost, &mut topology.hooks);
        }
        topology.vhosts.push(vhost);
    }
}

fn read_vhost(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    at: usize,
    vhost: &mut VhostDecl,
    hook_decls: &mut Vec<HookDecl>,
) {
    if let Some(durability) = fields.get("durability").and_then(|node| reader.choice(node, &DURABILITIES)) {
        vhost.durability = durability;
    }
    if let Some(is_traced) = fields.get("tracing").and_then(|node| reader.flag(node)) {
        vhost.is_traced = is_traced;
    }
    for (key, is_there) in
        [("event_exchange", &mut vhost.has_event_exchange), ("log_exchange", &mut vhost.has_log_exchange)]
    {
        *is_there = fields.get(key).and_then(|node| reader.flag(node)).unwrap_or_default();
    }
    vhost.metadata = metadata(reader, fields);
    if let Some(node) = fields.get("limits") {
        vhost.limits = policies::vhost_limits(reader, node);
    }
    for (key, kind) in [("policies", PolicyKind::User), ("operator_policies", PolicyKind::Operator)] {
        if let Some(node) = fields.get(key) {
            policies::read(reader, node, kind, at, &mut vhost.policies);
        }
    }
    if let Some(node) = fields.get("parameters") {
        vhost.parameters = parameters::of_vhost(reader, node);
    }
    if let Some(node) = fields.get("hooks") {
        hooks::of_vhost(reader, node, &vhost.name, hook_decls);
    }
    if let Some(node) = fields.get("exchanges") {
        for named in reader.named(node, &EXCHANGE) {
            let item = Item::Exchange(at, vhost.exchanges.len());
            reader.place(item, Part::Whole, named.name_span);
            let exchange = exchange(reader, &named, item, &vhost.name, hook_decls);
            vhost.exchanges.push(exchange);
        }
    }
    if let Some(node) = fields.get("queues") {
        for named in reader.named(node, &QUEUE) {
            let item = Item::Queue(at, vhost.queues.len());
            reader.place(item, Part::Whole, named.name_span);
            let queue = queue(reader, &named, item, &vhost.name, hook_decls);
            vhost.queues.push(queue);
        }
    }
    if let Some(node) = fields.get("bindings") {
        bindings::read(reader, node, at, &mut vhost.bindings);
    }
}

/// None when the file says nothing of it.
fn metadata(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<VhostMetadata> {
    let mut metadata = VhostMetadata::default();
    let mut has_any = false;
    if let Some(node) = fields.get("description") {
        has_any = true;
        metadata.description = reader.text(node).unwrap_or_default();
    }
    if let Some(node) = fields.get("tags") {
        has_any = true;
        metadata.tags = reader.items(node).iter().filter_map(|item| reader.text(item)).collect();
    }
    if let Some(node) = fields.get("default_queue_type") {
        has_any = true;
        let parsed = reader.text(node).map(|name| QueueType::parse_default(&name));
        match parsed {
            Some(Ok(kind)) => metadata.default_queue_type = Some(kind),
            Some(Err(error)) => reader.error(node.span, error.to_string(), "one of classic, quorum"),
            None => {}
        }
    }
    has_any.then_some(metadata)
}

/// `orders: topic`, or a mapping with `type`. A type that cannot be read leaves its default, so that bindings are checked.
fn exchange(
    reader: &mut Reader<'_>,
    named: &Named<'_>,
    item: Item,
    vhost: &str,
    hook_decls: &mut Vec<HookDecl>,
) -> ExchangeDecl {
    let mut exchange = ExchangeDecl {
        name: named.name.clone(),
        kind: "direct".to_owned(),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Table::new(),
    };
    let kind = match named.body {
        Some(body) if matches!(body.value, Value::Scalar(_)) => Some(body),
        _ => {
            let fields = reader.named_fields(named, &EXCHANGE);
            if let Some(fields) = &fields {
                exchange_fields(reader, fields, item, &mut exchange);
                if let Some(node) = fields.get("hooks") {
                    hooks::of_exchange(reader, node, (vhost, &named.name), hook_decls);
                }
            }
            let kind = fields.as_ref().and_then(|fields| fields.get("type"));
            if kind.is_none() && (fields.is_some() || named.body.is_none()) {
                let cause = format!("exchange '{}' has no type", named.name);
                reader.error(
                    named.name_span,
                    cause,
                    format!("write '{}: direct', fanout, topic or headers", named.name),
                );
            }
            kind
        }
    };
    if let Some(kind) = kind
        && let Some(text) = reader.text(kind)
    {
        reader.place(item, Part::Kind, kind.span);
        exchange.kind = text;
    }
    exchange
}

fn exchange_fields(reader: &mut Reader<'_>, fields: &Fields<'_>, item: Item, exchange: &mut ExchangeDecl) {
    set_flag(reader, fields, "durable", &mut exchange.durable);
    set_flag(reader, fields, "auto_delete", &mut exchange.auto_delete);
    set_flag(reader, fields, "internal", &mut exchange.internal);
    if let Some(node) = fields.get("arguments") {
        exchange.arguments = reader.arguments(node, item);
    }
    if let Some(node) = fields.get("alternate_exchange")
        && let Some(alternate) = reader.text(node)
    {
        friendly(reader, node, ("alternate_exchange", "alternate-exchange"), alternate, item, &mut exchange.arguments);
    }
}

/// A key that stands for an argument, which must not be given a second time as such.
pub(super) fn friendly(
    reader: &mut Reader<'_>,
    node: &Node,
    (key, argument): (&str, &str),
    value: impl Into<Argument>,
    item: Item,
    arguments: &mut Table,
) {
    if arguments.get(argument).is_some() {
        let cause = format!("'{key}' and argument '{argument}' are the same thing");
        reader.error(node.span, cause, "keep one of them");
        return;
    }
    reader.place(item, Part::Argument(argument.to_owned()), node.span);
    arguments.insert(argument, value);
}

pub(super) fn set_flag(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str, flag: &mut bool) {
    if let Some(value) = fields.get(key).and_then(|node| reader.flag(node)) {
        *flag = value;
    }
}
