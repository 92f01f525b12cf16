//! Whether there is room for what a plan makes. What is removed makes none: it goes last.
//!
//! What a file has too much of by itself, [`Scratch`](crate::topology::scratch::Scratch) refuses as far as it counts; here it is counted together with what is there.

use std::collections::BTreeMap;

use plugin_api::exchange::DestinationKind;

use super::{Action, Object, Plan, Target, Wish};
use crate::access::USERS_MAX;
use crate::origin::Origin;
use crate::topology::schema::{Topology, VhostDecl};
use crate::vhost::policy::PolicyKind;
use crate::vhost::registry::VHOSTS_MAX;
use crate::vhost::settings::{PARAMETERS_MAX, POLICIES_MAX, reached};

/// Something that there may only be so much of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    Vhosts,
    Users,
    GlobalParameters,
    Parameters(String),
    Policies(String, PolicyKind),
    Queues(String),
    Bindings(String, DestinationKind, String),
}

/// What is too much, in sentences. `current` is what is there.
pub(super) fn judge(
    plan: &Plan,
    topology: &Topology,
    current: &Topology,
    target: &Target<'_>,
    wish: Wish,
) -> Vec<String> {
    let mut new: BTreeMap<Room, usize> = BTreeMap::new();
    for change in plan.changes.iter().filter(|change| change.action == Action::Create) {
        if let Some(room) = room_of(&change.object) {
            *new.entry(room).or_default() += 1;
        }
    }
    let vhosts: BTreeMap<&str, &VhostDecl> = current.vhosts.iter().map(|vhost| (vhost.name.as_str(), vhost)).collect();
    let mut mistakes = Vec::new();
    let mut judge = |what: &str, new: usize, there: usize, limit: Option<u64>| {
        if let Some(limit) = limit
            && (there + new) as u64 > limit
        {
            mistakes
                .push(format!("{new} new {what} beside the {there} that are there are more than the limit of {limit}"));
        }
    };
    for (room, new) in new {
        let vhost = |name: &str| vhosts.get(name).copied();
        match room {
            Room::Vhosts => judge("vhosts", new, current.vhosts.len(), Some(VHOSTS_MAX as u64)),
            // Users of the broker's own file are not counted, at its start neither.
            Room::Users if wish.origin == Origin::Topology => {}
            Room::Users => judge("users", new, current.users.len(), Some(USERS_MAX as u64)),
            Room::GlobalParameters => {
                judge("global parameters", new, target.vhosts.global_parameter_count(), Some(PARAMETERS_MAX as u64));
            }
            Room::Parameters(name) => {
                let there = vhost(&name).map_or(0, |vhost| vhost.parameters.len());
                judge(&format!("parameters in vhost '{name}'"), new, there, Some(PARAMETERS_MAX as u64));
            }
            Room::Policies(name, kind) => {
                let there = vhost(&name).map_or(0, |vhost| vhost.policies.iter().filter(|(of, _)| *of == kind).count());
                let what = format!(
                    "{} in vhost '{name}'",
                    if kind == PolicyKind::User { "policies" } else { "operator policies" }
                );
                judge(&what, new, there, Some(POLICIES_MAX as u64));
            }
            Room::Queues(name) => {
                let decl = topology.vhosts.iter().find(|vhost| vhost.name == name);
                let live = target.vhosts.get(&name);
                // Exclusive ones count, too, which are in no file.
                let there = live.as_ref().map_or(0, |vhost| vhost.counts().1);
                let limits = decl.and_then(|decl| decl.limits).or_else(|| live.map(|vhost| vhost.limits()));
                let limit = reached(limits.and_then(|limits| limits.max_queues), there + new - 1);
                judge(&format!("queues in vhost '{name}'"), new, there, limit);
            }
            Room::Bindings(name, kind, destination) => {
                let is_to = |of: &&crate::topology::schema::BindingDecl| super::diff::is_to(of, kind, &destination);
                let limit = target.vhosts.shared().bindings_per_queue_max;
                let bindings = vhost(&name).map_or(&[][..], |vhost| &vhost.bindings);
                // Otherwise ten thousand queues would be looked for in ten thousand bindings.
                if bindings.len().saturating_add(new) > limit {
                    let there = bindings.iter().filter(is_to).count();
                    judge(&format!("bindings to '{destination}' in vhost '{name}'"), new, there, Some(limit as u64));
                }
            }
        }
    }
    mistakes
}

fn room_of(object: &Object) -> Option<Room> {
    Some(match object {
        Object::Vhost(_) => Room::Vhosts,
        Object::User(_) => Room::Users,
        Object::GlobalParameter(_) => Room::GlobalParameters,
        Object::Parameter(vhost, ..) => Room::Parameters(vhost.clone()),
        Object::Policy(vhost, kind, _) => Room::Policies(vhost.clone(), *kind),
        Object::Queue(vhost, _) => Room::Queues(vhost.clone()),
        Object::Binding(vhost, key) => Room::Bindings(vhost.clone(), key.destination_kind, key.destination.clone()),
        Object::Permission(..) | Object::TopicPermission(..) | Object::Limits(_) | Object::Exchange(..) => return None,
    })
}
