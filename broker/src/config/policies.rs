//! `policies`, `operator_policies` and `limits` of a vhost and of users.
//!
//! Values of a policy's definition are handed on as they are; `topology::check` judges them with the same table as whoever sets a policy while the broker
//! runs.

use serde_json::{Map, Value as Json};

use super::reader::{Hint, Named, Reader, Section};
use super::settings::json;
use super::yaml::{Node, Plain, Value};
use crate::topology::check::{Item, Part};
use crate::vhost::policy::{ApplyTo, PolicyKind, PolicySpec};
use crate::vhost::settings::VhostLimits;

pub(super) const POLICY: Section = Section {
    what: "a policy",
    keys: &["pattern", "apply_to", "priority", "definition"],
    hints: &[
        ("apply-to", Hint::Instead("did you mean 'apply_to'?")),
        ("vhost", Hint::Instead("a policy belongs to the vhost that it stands in")),
    ],
};

pub(super) const VHOST_LIMITS: Section = Section {
    what: "the limits of a vhost",
    keys: &["max_connections", "max_queues"],
    hints: &[
        ("max-connections", Hint::Instead("did you mean 'max_connections'?")),
        ("max-queues", Hint::Instead("did you mean 'max_queues'?")),
    ],
};

pub(super) const USER_LIMITS: Section = Section {
    what: "the limits of a user",
    keys: &["max_connections", "max_channels"],
    hints: &[
        ("max-connections", Hint::Instead("did you mean 'max_connections'?")),
        ("max-channels", Hint::Instead("did you mean 'max_channels'?")),
    ],
};

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    kind: PolicyKind,
    vhost: usize,
    policies: &mut Vec<(PolicyKind, PolicySpec)>,
) {
    for named in reader.named(node, &POLICY) {
        let item = Item::Policy(vhost, policies.len());
        reader.place(item, Part::Whole, named.name_span);
        if let Some(spec) = policy(reader, &named, item) {
            policies.push((kind, spec));
        }
    }
}

fn policy(reader: &mut Reader<'_>, named: &Named<'_>, item: Item) -> Option<PolicySpec> {
    let Some(fields) = reader.named_fields(named, &POLICY) else {
        if named.body.is_none() {
            let cause = format!("policy '{}' says nothing", named.name);
            reader.error(named.name_span, cause, "add 'pattern: …' and 'definition: { … }'");
        }
        return None;
    };
    for key in ["pattern", "definition"] {
        if fields.get(key).is_none() {
            let cause = format!("policy '{}' has no {key}", named.name);
            reader.error(named.name_span, cause, format!("add '{key}: …'"));
        }
    }
    let pattern = fields.get("pattern")?;
    reader.place(item, Part::Pattern, pattern.span);
    let pattern = reader.text(pattern);
    let apply_to = fields.get("apply_to").map_or(Some(ApplyTo::default()), |node| reader.choice(node, ApplyTo::NAMES));
    let priority = fields.get("priority").map_or(Some(0), |node| integer(reader, node));
    let definition = definition(reader, fields.get("definition")?, item);
    let name = named.name.clone();
    Some(PolicySpec { name, pattern: pattern?, apply_to: apply_to?, priority: priority?, definition: definition? })
}

fn definition(reader: &mut Reader<'_>, node: &Node, item: Item) -> Option<Map<String, Json>> {
    reader.place(item, Part::Definition, node.span);
    let Value::Mapping(entries) = &node.value else {
        reader.wrong(node, "a mapping of policy keys", "write '{ max-length: 1000 }', by RabbitMQ's names");
        return None;
    };
    let mut definition = Map::new();
    for entry in entries {
        reader.place(item, Part::Argument(entry.key.clone()), entry.value.span);
        definition.insert(entry.key.clone(), json(reader, &entry.value));
    }
    Some(definition)
}

/// Limits by name; negative ones are none, as in RabbitMQ.
pub(super) fn vhost_limits(reader: &mut Reader<'_>, node: &Node) -> Option<VhostLimits> {
    let fields = reader.fields(node, &VHOST_LIMITS)?;
    let mut limit = |key| fields.get(key).and_then(|node| integer(reader, node));
    Some(VhostLimits { max_connections: limit("max_connections"), max_queues: limit("max_queues") })
}

pub(super) fn integer(reader: &mut Reader<'_>, node: &Node) -> Option<i64> {
    reader.no_tag(node);
    match node.plain() {
        Some(Plain::Int(value)) => Some(value),
        _ => {
            reader.wrong(node, "a whole number", "write digits, without a unit; -1 is no limit");
            None
        }
    }
}
