//! `parameters`, at the top of a file and of a vhost: values that the broker keeps for whoever asks for them.

use serde_json::Value as Json;

use super::reader::Reader;
use super::settings::json;
use super::yaml::{Entry, Node, Value};
use crate::topology::schema::{ParameterDecl, Topology};
use crate::vhost::policy::NAME_BYTES_MAX;
use crate::vhost::registry::INTERNAL_PREFIX;
use crate::vhost::settings::PARAMETER_BYTES_MAX;

/// What stands in a place of its own, by the component that RabbitMQ has it under.
const ELSEWHERE: [(&str, &str); 3] =
    [("vhost-limits", "limits"), ("operator_policy", "operator_policies"), ("policy", "policies")];

/// `NAME: value`
pub(super) fn global(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    for entry in entries(reader, node, "names, each with a value") {
        if entry.key.starts_with(INTERNAL_PREFIX) {
            let cause = format!("names that begin with '{INTERNAL_PREFIX}' are the broker's own");
            reader.error(entry.key_span, cause, "give it another name");
        } else if let Some(value) = value(reader, entry) {
            topology.parameters.push((entry.key.clone(), value));
        }
    }
}

/// `COMPONENT: { NAME: value }`
pub(super) fn of_vhost(reader: &mut Reader<'_>, node: &Node) -> Vec<ParameterDecl> {
    let mut parameters = Vec::new();
    for component in entries(reader, node, "components, each with the parameters of it") {
        if let Some((_, key)) = ELSEWHERE.iter().find(|(name, _)| *name == component.key) {
            let cause = format!("'{}' is no component of parameters here", component.key);
            reader.error(component.key_span, cause, format!("write it under '{key}' of the vhost"));
            continue;
        }
        name(reader, component);
        for entry in entries(reader, &component.value, "names, each with a value") {
            if let Some(value) = value(reader, entry) {
                let (component, name) = (component.key.clone(), entry.key.clone());
                parameters.push(ParameterDecl { component, name, value });
            }
        }
    }
    parameters
}

fn entries<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str) -> &'n [Entry] {
    match &node.value {
        Value::Mapping(entries) => entries,
        _ if node.is_null() => &[],
        _ => {
            reader.wrong(node, format!("a mapping of {what}"), "write 'NAME: …' lines");
            &[]
        }
    }
}

fn name(reader: &mut Reader<'_>, entry: &Entry) -> bool {
    let is_name = (1..=NAME_BYTES_MAX).contains(&entry.key.len());
    if !is_name {
        reader.error(entry.key_span, "not a name", format!("names have 1 to {NAME_BYTES_MAX} bytes"));
    }
    is_name
}

fn value(reader: &mut Reader<'_>, entry: &Entry) -> Option<Json> {
    if !name(reader, entry) {
        return None;
    }
    let value = json(reader, &entry.value);
    let length = value.to_string().len();
    if length > PARAMETER_BYTES_MAX {
        let cause = format!("the value is {length} bytes long");
        reader.error(entry.value.span, cause, format!("a value has at most {PARAMETER_BYTES_MAX} bytes as JSON"));
        return None;
    }
    Some(value)
}
