//! `queues` of a vhost: the keys that stand for arguments, and the arguments themselves.

use plugin_api::value::{Table, Value as Argument};

use super::{
    hooks,
    reader::{Fields, Hint, Named, Reader, Section},
    vhosts::{friendly, set_flag},
    yaml::{Node, Value},
};
use crate::{
    hooks::HookDecl,
    queue::{Durability, Overflow},
    topology::{check::Item, schema::QueueDecl},
    vhost::queue_arguments::{DEAD_LETTER_EXCHANGE, DURABILITY, QUEUE_TYPE},
};

pub(super) const QUEUE: Section = Section {
    what: "a queue",
    keys: &[
        "type",
        "durable",
        "durability",
        "auto_delete",
        "ttl",
        "expires",
        "max_length",
        "max_length_bytes",
        "overflow",
        "dead_letter",
        "delivery_limit",
        "max_priority",
        "single_active_consumer",
        "consumer_timeout",
        "arguments",
        "hooks",
    ],
    hints: &[
        ("message_ttl", Hint::Instead("did you mean 'ttl'?")),
        ("dead_letter_exchange", Hint::Instead("write 'dead_letter: EXCHANGE'")),
        ("dead_letter_routing_key", Hint::Instead("write 'dead_letter: { exchange: EXCHANGE, routing_key: KEY }'")),
        ("exclusive", Hint::Instead("an exclusive queue belongs to the connection that declares it")),
        ("bindings", Hint::Instead("bindings belong into the vhost, beside 'queues'")),
    ],
};

const DEAD_LETTER: Section = Section { what: "a dead-letter target", keys: &["exchange", "routing_key"], hints: &[] };

pub(super) const DURABILITIES: [(&str, Durability); 2] = [("synced", Durability::Synced), ("os", Durability::Os)];

/// Ten years in milliseconds (semantics 17.4).
const MILLIS_MAX: u64 = 315_360_000_000;
/// What a field table can carry.
const NUMBER_MAX: u64 = i64::MAX as u64;

pub(super) fn queue(
    reader: &mut Reader<'_>,
    named: &Named<'_>,
    item: Item,
    vhost: &str,
    hook_decls: &mut Vec<HookDecl>,
) -> QueueDecl {
    let mut queue = QueueDecl { name: named.name.clone(), durable: true, auto_delete: false, arguments: Table::new() };
    let Some(fields) = reader.named_fields(named, &QUEUE) else { return queue };
    set_flag(reader, &fields, "durable", &mut queue.durable);
    set_flag(reader, &fields, "auto_delete", &mut queue.auto_delete);
    if let Some(node) = fields.get("arguments") {
        queue.arguments = reader.arguments(node, item);
    }
    let arguments = &mut queue.arguments;
    if let Some(node) = fields.get("type")
        && let Some(kind) = reader.text(node)
    {
        friendly(reader, node, ("type", QUEUE_TYPE), kind, item, arguments);
    }
    if let Some(node) = fields.get("durability")
        && let Some(durability) = reader.choice(node, &DURABILITIES)
    {
        friendly(reader, node, ("durability", DURABILITY), durability.name(), item, arguments);
    }
    for (key, argument, min) in
        [("ttl", "x-message-ttl", 0), ("expires", "x-expires", 1), ("consumer_timeout", "x-consumer-timeout", 0)]
    {
        let read = |reader: &mut Reader<'_>, node: &Node| reader.duration_ms(node, min..=MILLIS_MAX);
        number(reader, &fields, (key, argument), item, arguments, read);
    }
    for (key, argument, max) in [("max_length", "x-max-length", NUMBER_MAX), ("max_priority", "x-max-priority", 255)] {
        let read = |reader: &mut Reader<'_>, node: &Node| reader.number(node, 0..=max);
        number(reader, &fields, (key, argument), item, arguments, read);
    }
    number(reader, &fields, ("max_length_bytes", "x-max-length-bytes"), item, arguments, |reader, node| {
        reader.size(node, 0..=NUMBER_MAX)
    });
    number(reader, &fields, ("delivery_limit", "x-delivery-limit"), item, arguments, |reader, node| {
        reader.number(node, 0..=u64::from(u16::MAX - 1))
    });
    if let Some(node) = fields.get("overflow")
        && let Some(overflow) =
            reader.choice(node, &Overflow::NAMES.iter().map(|name| (*name, *name)).collect::<Vec<_>>())
    {
        friendly(reader, node, ("overflow", "x-overflow"), overflow, item, arguments);
    }
    if let Some(node) = fields.get("single_active_consumer")
        && let Some(is_single) = reader.flag(node)
    {
        let names = ("single_active_consumer", "x-single-active-consumer");
        friendly(reader, node, names, is_single, item, arguments);
    }
    if let Some(node) = fields.get("dead_letter") {
        dead_letter(reader, node, item, arguments);
    }
    if let Some(node) = fields.get("hooks") {
        hooks::of_queue(reader, node, (vhost, &named.name), hook_decls);
    }
    queue
}

fn number(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    (key, argument): (&str, &str),
    item: Item,
    arguments: &mut Table,
    read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<u64>,
) {
    if let Some(node) = fields.get(key)
        && let Some(value) = read(reader, node)
    {
        let value = Argument::I64(i64::try_from(value).unwrap_or(i64::MAX));
        friendly(reader, node, (key, argument), value, item, arguments);
    }
}

/// `dead_letter: dlx`, or with a key of its own. An empty exchange is the default one, whose keys are names of queues.
fn dead_letter(reader: &mut Reader<'_>, node: &Node, item: Item, arguments: &mut Table) {
    let names = ("dead_letter", DEAD_LETTER_EXCHANGE);
    if matches!(node.value, Value::Scalar(_)) {
        if let Some(exchange) = reader.text(node) {
            friendly(reader, node, names, exchange, item, arguments);
        }
        return;
    }
    let Some(fields) = reader.fields(node, &DEAD_LETTER) else { return };
    let Some(exchange) = fields.get("exchange") else {
        let help = "write 'exchange: NAME', or '' for the default one";
        return reader.error(node.span, "a dead-letter target needs an exchange", help);
    };
    if let Some(text) = reader.text(exchange) {
        friendly(reader, exchange, names, text, item, arguments);
    }
    if let Some(key) = fields.get("routing_key")
        && let Some(text) = reader.text(key)
    {
        friendly(reader, key, ("routing_key", "x-dead-letter-routing-key"), text, item, arguments);
    }
}
