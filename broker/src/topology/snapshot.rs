//! What a broker has at this moment, in the words of a topology file: what plans are compared with, and what an export writes.
//!
//! Left out is what no file could declare: the exchanges that every vhost has, exclusive queues, and bindings to either. Passwords are there as hashes.

use plugin_api::exchange::DestinationKind;
use plugin_api::value::Table;

use super::check::RESERVED_PREFIX;
use super::schema::{
    BindingDecl, Defaults, ExchangeDecl, ParameterDecl, PasswordDecl, QueueDecl, Topology, UserDecl, VhostDecl,
};
use crate::access::{Access, HashAlgorithm, PasswordHash};
use crate::routing::exchange::Identity;
use crate::vhost::Vhost;
use crate::vhost::broker_exchanges::{EVENT_EXCHANGE, LOG_EXCHANGE};
use crate::vhost::policy::PolicyKind;
use crate::vhost::registry::Vhosts;
use crate::vhost::settings::{VhostLimits, VhostMetadata};

/// Everything, or one vhost without users; in the order of names.
#[must_use]
pub fn snapshot(access: &Access, vhosts: &Vhosts, only: Option<&str>) -> Topology {
    let list = vhosts.list().into_iter().filter(|vhost| only.is_none_or(|only| *vhost.name == *only));
    let users = if only.is_none() { users(access) } else { Vec::new() };
    let parameters: Vec<_> = if only.is_none() { vhosts.global_parameters().into_iter().collect() } else { Vec::new() };
    let mut sections = if only.is_none() { vec!["users", "vhosts"] } else { vec!["vhosts"] };
    if !parameters.is_empty() {
        sections.push("parameters");
    }
    let vhosts = list.map(|name| vhost(&name)).collect();
    Topology { users, vhosts, parameters, sections, defaults: Defaults::default(), ..Topology::default() }
}

fn users(access: &Access) -> Vec<UserDecl> {
    let records = access.records().into_iter();
    records
        .map(|record| UserDecl {
            password: PasswordDecl::Hash {
                hash: record.password.as_ref().map(PasswordHash::to_stored).unwrap_or_default(),
                algorithm: record.password.as_ref().map_or_else(HashAlgorithm::default, PasswordHash::algorithm),
            },
            tags: record.tags,
            loopback_only: record.loopback_only,
            permissions: access.permissions_of(&record.name),
            topic_permissions: access.topic_permissions_of(&record.name),
            limits: record.limits,
            name: record.name,
        })
        .collect()
}

fn vhost(vhost: &Vhost) -> VhostDecl {
    let metadata = vhost.metadata();
    let limits = vhost.limits();
    let mut policies = Vec::new();
    for kind in PolicyKind::ALL {
        let mut of_kind: Vec<_> = vhost.policies(kind).iter().map(|policy| (kind, policy.spec().clone())).collect();
        of_kind.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        policies.extend(of_kind);
    }
    VhostDecl {
        name: vhost.name.to_string(),
        durability: vhost.durability(),
        metadata: (metadata != VhostMetadata::default()).then_some(metadata),
        limits: (limits != VhostLimits::default()).then_some(limits),
        policies,
        parameters: parameters(vhost),
        is_traced: vhost.is_traced(),
        has_event_exchange: vhost.exchange(EVENT_EXCHANGE).is_some(),
        has_log_exchange: vhost.exchange(LOG_EXCHANGE).is_some(),
        exchanges: exchanges(vhost),
        queues: queues(vhost),
        bindings: bindings(vhost),
    }
}

fn parameters(vhost: &Vhost) -> Vec<ParameterDecl> {
    let parameters = vhost.parameters().into_iter();
    parameters
        .map(|((component, name), value)| ParameterDecl {
            component: component.to_string(),
            name: name.to_string(),
            value,
        })
        .collect()
}

fn exchanges(vhost: &Vhost) -> Vec<ExchangeDecl> {
    let exchanges = vhost.exchanges().into_iter().filter(|exchange| !is_servers(&exchange.name));
    let mut exchanges: Vec<ExchangeDecl> = exchanges
        .map(|exchange| ExchangeDecl {
            name: exchange.name.to_string(),
            kind: exchange.spec.kind.clone(),
            durable: exchange.spec.durable,
            auto_delete: exchange.spec.auto_delete,
            internal: exchange.spec.internal,
            arguments: exchange.spec.arguments.clone(),
        })
        .collect();
    exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    exchanges
}

fn queues(vhost: &Vhost) -> Vec<QueueDecl> {
    let queues = vhost.queues().into_iter().filter(|queue| queue.owner.is_none());
    let mut queues: Vec<QueueDecl> = queues
        .map(|queue| QueueDecl {
            name: queue.name.to_string(),
            durable: queue.durable,
            auto_delete: queue.auto_delete,
            arguments: queue.arguments.clone(),
        })
        .collect();
    queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    queues
}

fn bindings(vhost: &Vhost) -> Vec<BindingDecl> {
    let mut exchanges = vhost.exchanges();
    exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut bindings = Vec::new();
    for exchange in exchanges {
        let mut identities = exchange.bindings();
        identities.retain(|binding| match binding.destination_kind {
            DestinationKind::Queue => vhost.queue(&binding.destination).is_some_and(|queue| queue.owner.is_none()),
            DestinationKind::Exchange => true,
        });
        identities.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        bindings.extend(identities.into_iter().map(|binding| BindingDecl {
            source: exchange.name.to_string(),
            destination: binding.destination.into(),
            destination_kind: binding.destination_kind,
            routing_key: binding.routing_key.into(),
            // The bytes are those of a table that was encoded here.
            arguments: Table::decode(&binding.arguments).unwrap_or_default(),
        }));
    }
    bindings
}

fn key(identity: &Identity) -> (DestinationKind, &str, &str, &[u8]) {
    (identity.destination_kind, &identity.destination, &identity.routing_key, &identity.arguments)
}

/// Whether a name is the server's: no file may declare it, and every vhost has what goes by it, or nobody but a client can ask for it.
#[must_use]
pub fn is_servers(name: &str) -> bool {
    name.is_empty() || name.starts_with(RESERVED_PREFIX)
}

/// Takes out what stands in a broker and in no file: queues whose names the server found, with their bindings. Returns what was taken out, in words.
pub fn without_servers_queues(topology: &mut Topology) -> Vec<String> {
    let mut notes = Vec::new();
    for vhost in &mut topology.vhosts {
        let name = vhost.name.clone();
        vhost.queues.retain(|queue| {
            let stays = !is_servers(&queue.name);
            if !stays {
                notes.push(format!(
                    "queue '{}' in vhost '{name}': the server found its name, so no file can declare it",
                    queue.name
                ));
            }
            stays
        });
        let names: std::collections::BTreeSet<&str> = vhost.queues.iter().map(|queue| queue.name.as_str()).collect();
        vhost.bindings.retain(|binding| {
            binding.destination_kind == DestinationKind::Exchange || names.contains(binding.destination.as_str())
        });
    }
    notes
}
