//! Definitions as a topology file. What a file cannot say is left out and named.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::exchange::DestinationKind;

use super::{Definitions, Located};
use crate::access::{HashAlgorithm, PasswordHash};
use crate::topology::check::{Severity, check};
use crate::topology::schema::{
    BindingDecl, Defaults, ExchangeDecl, ParameterDecl, PasswordDecl, QueueDecl, Topology, UserDecl, VhostDecl,
};
use crate::topology::snapshot::is_servers;
use crate::vhost::registry::DEFAULT_VHOST;
use crate::vhost::settings::{VhostLimits, VhostMetadata};

/// What was made of definitions.
#[derive(Debug)]
pub struct Topologies {
    /// What a file can say.
    pub topology: Topology,
    /// What it cannot.
    pub left_out: Vec<String>,
}

impl Definitions {
    /// Users, vhosts and what is in them. `only` is the vhost that definitions of a single one are for.
    #[must_use]
    pub fn into_topology(self, only: Option<&str>) -> Topologies {
        let mut run = Run { vhosts: BTreeMap::new(), left_out: self.notes };
        for Located { value: (name, metadata), .. } in self.vhosts {
            if metadata.as_ref().is_some_and(|metadata| metadata.protected_from_deletion) {
                run.left_out.push(format!("vhost '{name}': that it is protected from deletion"));
            }
            let metadata = metadata.map(|metadata| VhostMetadata { protected_from_deletion: false, ..metadata });
            run.vhost(&name).metadata = metadata.filter(|metadata| *metadata != VhostMetadata::default());
        }
        for Located { value: (vhost, limits), .. } in self.limits {
            run.vhost(&vhost).limits = Some(limits).filter(|limits| *limits != VhostLimits::default());
        }
        for Located { value: (vhost, kind, spec), .. } in self.policies {
            run.vhost(&vhost).policies.push((kind, spec));
        }
        for Located { value: (vhost, (component, name), value), .. } in self.parameters {
            let decl = ParameterDecl { component: component.to_string(), name: name.to_string(), value };
            run.vhost(&vhost).parameters.push(decl);
        }
        let parameters: Vec<_> = self.global_parameters.into_iter().map(|entry| entry.value).collect();
        for Located { value: spec, .. } in self.exchanges {
            if is_servers(&spec.name) {
                run.left_out
                    .push(format!("exchange '{}' in vhost '{}': its name is the broker's", spec.name, spec.vhost));
                continue;
            }
            let vhost = spec.vhost.clone();
            run.vhost(&vhost).exchanges.push(ExchangeDecl {
                name: spec.name,
                kind: spec.kind,
                durable: spec.durable,
                auto_delete: spec.auto_delete,
                internal: spec.internal,
                arguments: spec.arguments,
            });
        }
        for Located { value: (vhost, spec), .. } in self.queues {
            if is_servers(&spec.name) {
                run.left_out.push(format!("queue '{}' in vhost '{vhost}': its name is the broker's", spec.name));
                continue;
            }
            run.vhost(&vhost).queues.push(QueueDecl {
                name: spec.name,
                durable: spec.durable,
                auto_delete: spec.auto_delete,
                arguments: spec.arguments,
            });
        }
        for Located { value: (vhost, source, spec), .. } in self.bindings {
            run.vhost(&vhost).bindings.push(BindingDecl {
                source,
                destination: spec.destination,
                destination_kind: spec.destination_kind,
                routing_key: spec.routing_key,
                arguments: spec.arguments,
            });
        }
        let mut users: BTreeMap<String, UserDecl> = BTreeMap::new();
        for Located { value: user, .. } in self.users {
            let password = PasswordDecl::Hash {
                hash: user.password.as_ref().map(PasswordHash::to_stored).unwrap_or_default(),
                algorithm: user.password.as_ref().map_or_else(HashAlgorithm::default, PasswordHash::algorithm),
            };
            let decl = UserDecl {
                password,
                tags: user.tags,
                // RabbitMQ has this in its configuration, for guest.
                loopback_only: user.loopback_only.unwrap_or(user.name == "guest"),
                permissions: Vec::new(),
                topic_permissions: Vec::new(),
                limits: user.limits.unwrap_or_default(),
                name: user.name.clone(),
            };
            users.insert(user.name, decl);
        }
        for Located { value: (user, decl), .. } in self.permissions {
            match users.get_mut(&user) {
                Some(known) => known.permissions.push(decl),
                None => run.left_out.push(format!("permission of user '{user}', who is not among the users")),
            }
        }
        for Located { value: (user, decl), .. } in self.topic_permissions {
            match users.get_mut(&user) {
                Some(known) => known.topic_permissions.push(decl),
                None => run.left_out.push(format!("topic permission of user '{user}', who is not among the users")),
            }
        }
        let mut sections = vec!["vhosts"];
        if only.is_none() {
            sections.push("users");
        }
        if !parameters.is_empty() {
            sections.push("parameters");
        }
        let Run { vhosts, mut left_out } = run;
        let mut topology = Topology {
            users: users.into_values().collect(),
            vhosts: vhosts.into_values().collect(),
            parameters,
            sections,
            defaults: Defaults::default(),
            ..Topology::default()
        };
        without_loose_bindings(&mut topology, &mut left_out);
        let findings = check(&topology).into_iter().filter(|finding| finding.severity == Severity::Error);
        left_out.extend(findings.map(|finding| format!("to be mended in the file: {}", finding.cause)));
        Topologies { topology, left_out }
    }
}

struct Run {
    vhosts: BTreeMap<String, VhostDecl>,
    left_out: Vec<String>,
}

impl Run {
    /// Definitions may name vhosts that they do not list.
    fn vhost(&mut self, name: &str) -> &mut VhostDecl {
        let name = if name.is_empty() { DEFAULT_VHOST } else { name };
        let new = || VhostDecl { name: name.to_owned(), ..VhostDecl::default() };
        self.vhosts.entry(name.to_owned()).or_insert_with(new)
    }
}

/// Every binding of a file has both its ends there.
fn without_loose_bindings(topology: &mut Topology, left_out: &mut Vec<String>) {
    for vhost in &mut topology.vhosts {
        let own: Vec<&str> = vhost.own_exchanges().map(|(name, ..)| name).collect();
        let exchanges: BTreeSet<String> =
            vhost.exchanges.iter().map(|e| e.name.clone()).chain(own.into_iter().map(str::to_owned)).collect();
        let queues: BTreeSet<String> = vhost.queues.iter().map(|queue| queue.name.clone()).collect();
        let name = vhost.name.clone();
        vhost.bindings.retain(|binding| {
            let has_destination = match binding.destination_kind {
                DestinationKind::Queue => queues.contains(&binding.destination),
                DestinationKind::Exchange => exchanges.contains(&binding.destination),
            };
            let stays = has_destination && exchanges.contains(&binding.source) && !binding.source.is_empty();
            if !stays {
                left_out.push(format!(
                    "binding '{} -> {}' in vhost '{name}': one of its ends is not in the file",
                    binding.source, binding.destination
                ));
            }
            stays
        });
    }
}
