//! `auth`: the backends that say who may log in, in the order in which they are asked.

use std::time::Duration;

use super::{
    reader::{Hint, Reader, Section},
    settings::json,
    yaml::{Node, Value},
};
use crate::access::INTERNAL;
use crate::plugin_host::Isolation;
use crate::topology::schema::{AuthBackendDecl, Topology};

pub(super) const AUTH: Section = Section {
    what: "auth",
    keys: &["backends"],
    hints: &[("users", Hint::Instead("users have a section of their own: 'users: …'")), ("mechanisms", Hint::NotYet)],
};

pub(super) const BACKEND: Section = Section {
    what: "an auth backend",
    keys: &["kind", "name", "config", "timeout", "authorization", "isolation"],
    hints: &[
        ("path", Hint::Instead("the file of a plugin belongs into 'plugins'; here is the kind that it offers")),
        ("plugin", Hint::Instead("did you mean 'kind'?")),
        ("authz", Hint::Instead("did you mean 'authorization'?")),
    ],
};

const ISOLATION: [(&str, Isolation); 2] = [("thread", Isolation::Thread), ("none", Isolation::None)];

/// A client waits for that, and the handshake has a limit, too.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 10..=60_000;

pub(super) fn read(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let Some(fields) = reader.fields(node, &AUTH) else { return };
    let Some(list) = fields.get("backends") else { return };
    let items = reader.items(list);
    if items.is_empty() {
        return reader.error(list.span, "nobody could log in", "name at least one backend, such as 'internal'");
    }
    let mut backends: Vec<AuthBackendDecl> = Vec::new();
    // Names of others may stand behind.
    let mut named = Vec::new();
    for item in items {
        let Some(decl) = backend(reader, item, &mut named, backends.len()) else { continue };
        if backends.iter().any(|other| other.name == decl.name) {
            let cause = format!("a second auth backend '{}'", decl.name);
            reader.error(item.span, cause, "give each a name of its own: 'name: …'");
            continue;
        }
        backends.push(decl);
    }
    for (of, name, span) in named {
        let is_known = name == INTERNAL || backends.iter().any(|backend| backend.name == name);
        if !is_known {
            let cause = format!("no auth backend '{name}'");
            reader.error(span, cause, "'authorization' names backends of this list, or 'internal'");
        } else if let Some(backend) = backends.get_mut(of) {
            backend.authorization.push(name);
        }
    }
    topology.auth = backends;
}

type Named = Vec<(usize, String, super::source::Span)>;

fn backend(reader: &mut Reader<'_>, item: &Node, named: &mut Named, index: usize) -> Option<AuthBackendDecl> {
    if matches!(item.value, Value::Scalar(_)) {
        return Some(AuthBackendDecl::new(&reader.text(item)?));
    }
    let fields = reader.fields(item, &BACKEND)?;
    let Some(node) = fields.get("kind") else {
        reader.error(item.span, "an auth backend needs a kind", "add 'kind: …', such as the one that a plugin offers");
        return None;
    };
    let mut decl = AuthBackendDecl::new(&reader.text(node)?);
    if let Some(name) = fields.get("name").and_then(|node| reader.text(node)) {
        decl.name = name;
    }
    if let Some(config) = fields.get("config") {
        if decl.kind == INTERNAL {
            reader.error(config.span, "the broker's own users take no config", "remove it");
        }
        decl.config = json(reader, config);
    }
    if let Some(ms) = fields.get("timeout").and_then(|node| reader.duration_ms(node, TIMEOUT_MS)) {
        decl.timeout = Duration::from_millis(ms);
    }
    if let Some(isolation) = fields.get("isolation").and_then(|node| reader.choice(node, &ISOLATION)) {
        decl.isolation = isolation;
    }
    if let Some(list) = fields.get("authorization") {
        for node in reader.items(list) {
            if let Some(name) = reader.text(node) {
                named.push((index, name, node.span));
            }
        }
    }
    Some(decl)
}
