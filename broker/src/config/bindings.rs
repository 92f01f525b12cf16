//! `bindings` of a vhost.
//!
//! Short: `orders -> orders.eu : order.eu.#`, which YAML reads as a key and a value, so that a list of such lines and one
//! mapping of them are both accepted. The destination is a queue, or `exchange:NAME`. The value is a routing key, a list of
//! them, or a mapping with `routing_key` and `arguments`; without a value the routing key is empty. Long: a mapping with
//! the words of RabbitMQ's definitions.

use plugin_api::{exchange::DestinationKind, value::Table};

use super::{
    reader::{Fields, Hint, Reader, Section},
    source::Span,
    yaml::{Entry, Node, Value, shorten},
};
use crate::topology::{
    check::{Item, Part},
    schema::BindingDecl,
};

pub(super) const BINDING: Section = Section {
    what: "a binding",
    keys: &["source", "destination", "destination_type", "routing_key", "arguments"],
    hints: &[
        ("exchange", Hint::Instead("the exchange that messages come from is the 'source'")),
        ("queue", Hint::Instead("the queue that messages go to is the 'destination'")),
        ("key", Hint::Instead("did you mean 'routing_key'?")),
        ("routing_keys", Hint::Instead("'routing_key' takes a list, too")),
        ("from", Hint::Instead("did you mean 'source'?")),
        ("to", Hint::Instead("did you mean 'destination'?")),
    ],
};

/// What may stand behind the colon of a short form.
const SHORT: Section = Section { what: "a binding", keys: &["routing_key", "arguments"], hints: &[] };

const DESTINATION_TYPE: &[(&str, DestinationKind)] =
    &[("queue", DestinationKind::Queue), ("exchange", DestinationKind::Exchange)];

const ARROW: &str = "->";

const FORM: &str = "write 'SOURCE -> QUEUE : ROUTING_KEY' or 'SOURCE -> exchange:NAME : ROUTING_KEY'";

/// The two ends of a binding with their places.
struct Ends {
    whole: Span,
    source: (String, Span),
    destination: (String, Span),
    destination_kind: DestinationKind,
}

pub(super) fn read(reader: &mut Reader<'_>, node: &Node, vhost: usize, bindings: &mut Vec<BindingDecl>) {
    let mut target = Target { vhost, bindings };
    match &node.value {
        Value::Mapping(entries) => {
            for entry in entries {
                short_with_value(reader, entry, &mut target);
            }
        }
        Value::List(items) => {
            for item in items {
                binding(reader, item, &mut target);
            }
        }
        Value::Scalar(_) if node.is_null() => {}
        Value::Scalar(_) => binding(reader, node, &mut target),
    }
}

struct Target<'a> {
    vhost: usize,
    bindings: &'a mut Vec<BindingDecl>,
}

fn binding(reader: &mut Reader<'_>, node: &Node, target: &mut Target<'_>) {
    match &node.value {
        Value::Scalar(_) => {
            let Some(text) = reader.text(node) else { return };
            if let Some(ends) = ends(reader, &text, node.span) {
                target.add(reader, &ends, &[(String::new(), node.span)], &Table::new(), None);
            }
        }
        Value::Mapping(entries) => match entries.as_slice() {
            [entry] if entry.key.contains(ARROW) => short_with_value(reader, entry, target),
            _ => long(reader, node, target),
        },
        Value::List(_) => reader.wrong(node, "a binding", FORM),
    }
}

/// `SOURCE -> DESTINATION` with whatever stands behind the colon.
fn short_with_value(reader: &mut Reader<'_>, entry: &Entry, target: &mut Target<'_>) {
    let Some(ends) = ends(reader, &entry.key, entry.key_span) else { return };
    let value = &entry.value;
    if value.is_null() {
        let cause = "there is a ':' but no routing key";
        reader.error(entry.key_span, cause, "quote it if it begins with '#', as in ': \"#\"', or leave out the ':'");
        return;
    }
    if matches!(value.value, Value::Mapping(_)) {
        if let Some(fields) = reader.fields(value, &SHORT) {
            target.add_with_fields(reader, &ends, &fields);
        }
        return;
    }
    let keys = routing_keys(reader, value);
    target.add(reader, &ends, &keys, &Table::new(), None);
}

fn long(reader: &mut Reader<'_>, node: &Node, target: &mut Target<'_>) {
    let Some(fields) = reader.fields(node, &BINDING) else { return };
    let mut end = |key: &str| match fields.get(key) {
        Some(end) => Some((reader.text(end)?, end.span)),
        None => {
            reader.error(node.span, format!("a binding needs a {key}"), FORM);
            None
        }
    };
    let (source, destination) = (end("source"), end("destination"));
    let kind = fields.get("destination_type").map(|node| reader.choice(node, DESTINATION_TYPE));
    let kind = kind.unwrap_or(Some(DestinationKind::Queue));
    if let (Some(source), Some(destination), Some(destination_kind)) = (source, destination, kind) {
        let ends = Ends { whole: source.1, source, destination, destination_kind };
        target.add_with_fields(reader, &ends, &fields);
    }
}

impl Target<'_> {
    fn add_with_fields(&mut self, reader: &mut Reader<'_>, ends: &Ends, fields: &Fields<'_>) {
        let keys = match fields.get("routing_key") {
            Some(node) => routing_keys(reader, node),
            None => vec![(String::new(), ends.whole)],
        };
        self.add(reader, ends, &keys, &Table::new(), fields.get("arguments"));
    }

    /// One binding for each routing key.
    fn add(
        &mut self,
        reader: &mut Reader<'_>,
        ends: &Ends,
        keys: &[(String, Span)],
        arguments: &Table,
        arguments_node: Option<&Node>,
    ) {
        let mut arguments = arguments.clone();
        for (index, (routing_key, span)) in keys.iter().enumerate() {
            let item = Item::Binding(self.vhost, self.bindings.len());
            reader.place(item, Part::Whole, ends.whole);
            reader.place(item, Part::Source, ends.source.1);
            reader.place(item, Part::Destination, ends.destination.1);
            reader.place(item, Part::RoutingKey, *span);
            // Read once: mistakes in them are the same for all keys.
            if index == 0
                && let Some(node) = arguments_node
            {
                arguments = reader.arguments(node, item);
            }
            self.bindings.push(BindingDecl {
                source: ends.source.0.clone(),
                destination: ends.destination.0.clone(),
                destination_kind: ends.destination_kind,
                routing_key: routing_key.clone(),
                arguments: arguments.clone(),
            });
        }
    }
}

fn routing_keys(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, Span)> {
    reader.items(node).iter().filter_map(|item| Some((reader.text(item)?, item.span))).collect()
}

/// Cuts `SOURCE -> DESTINATION`, each end with its place in the line.
fn ends(reader: &mut Reader<'_>, text: &str, span: Span) -> Option<Ends> {
    let parts: Vec<&str> = text.split(ARROW).collect();
    let [source, destination] = parts.as_slice() else {
        reader.error(span, format!("'{}' is not a binding", shorten(text)), FORM);
        return None;
    };
    let (source, destination) = (source.trim(), destination.trim());
    let (destination_kind, name) = match destination.split_once(':') {
        Some(("exchange", name)) => (DestinationKind::Exchange, name.trim()),
        Some(("queue", name)) => (DestinationKind::Queue, name.trim()),
        _ => (DestinationKind::Queue, destination),
    };
    if name.is_empty() || source.is_empty() {
        reader.error(span, "one end of this binding is missing", FORM);
        return None;
    }
    Some(Ends {
        whole: span,
        source: (source.to_owned(), part_of(reader, span, source, true)),
        destination: (name.to_owned(), part_of(reader, span, name, false)),
        destination_kind,
    })
}

/// Where a part of a short form stands; the whole line when it was written in another way, with `${…}` or escapes.
fn part_of(reader: &Reader<'_>, whole: Span, part: &str, from_start: bool) -> Span {
    let text = reader.source.text.get(whole.start..whole.end).unwrap_or("");
    let found = if from_start { text.find(part) } else { text.rfind(part) };
    found.map_or(whole, |at| Span { start: whole.start + at, end: whole.start + at + part.len() })
}
