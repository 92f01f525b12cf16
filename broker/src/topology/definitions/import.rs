//! Carrying definitions out: in an order in which each finds what it needs, through the entries that clients and operators use (semantics 28.11).
//!
//! Everything is judged before anything is changed. Users, permissions, policies and parameters are overwritten; exchanges and queues that are there stay
//! as they are, without comparison. Nothing is removed. What the topology file declares is left alone, because the file wins at the next start anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use plugin_api::exchange::DestinationKind;

use super::fields::note;
use super::{Definitions, Located, Mistake, UserDefinition};
use crate::access::{Access, UserUpdate};
use crate::origin::Origin;
use crate::vhost::authority::Operator;
use crate::vhost::registry::Vhosts;
use crate::vhost::settings::reached;
use crate::vhost::{PREDECLARED, Vhost, arguments};

/// Whom definitions are imported into.
#[derive(Debug)]
pub struct Import<'a> {
    /// Its users.
    pub access: &'a Access,
    /// Its vhosts.
    pub vhosts: &'a Vhosts,
}

/// What was imported.
#[derive(Debug, Default)]
pub struct Imported {
    /// How many of each kind the file had, in the order in which they were carried out.
    pub counts: Vec<(&'static str, usize)>,
    /// What was left out or has no effect.
    pub notes: Vec<String>,
}

impl Imported {
    /// Counts another file, too.
    pub fn add(&mut self, other: Self) {
        for (what, count) in other.counts {
            match self.counts.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += count,
                None => self.counts.push((what, count)),
            }
        }
        self.notes.extend(other.notes);
    }
}

impl fmt::Display for Imported {
    /// `3 users, 2 vhosts`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter().filter(|(_, count)| *count > 0);
        let parts: Vec<String> = counts.map(|(what, count)| format!("{count} {what}")).collect();
        if parts.is_empty() { f.write_str("nothing") } else { f.write_str(&parts.join(", ")) }
    }
}

impl Import<'_> {
    /// Imports everything.
    ///
    /// # Errors
    /// Every mistake. Where one was found before anything was changed, nothing is; one that shows itself only when it is carried out keeps the others from
    /// nothing.
    pub fn run(&self, definitions: Definitions) -> Result<Imported, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        self.check(&definitions, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let mut run = Run { access: self.access, vhosts: self.vhosts, done: Imported::default(), mistakes };
        run.done.notes.clone_from(&definitions.notes);
        run.all(definitions);
        if run.mistakes.is_empty() { Ok(run.done) } else { Err(run.mistakes) }
    }

    /// Whether everything that is referred to is there or comes with the file.
    fn check(&self, definitions: &Definitions, mistakes: &mut Vec<Mistake>) {
        let new_vhosts: BTreeSet<&str> = definitions.vhosts.iter().map(|vhost| vhost.value.0.as_str()).collect();
        let users: BTreeSet<&str> = definitions.users.iter().map(|user| user.value.name.as_str()).collect();
        let mut vhost = |path: &str, name: &str| {
            if !new_vhosts.contains(name) && self.vhosts.get(name).is_none() {
                let cause = format!("vhost '{name}' does not exist");
                note(mistakes, Mistake::new(path, cause, "create it first, or add it to \"vhosts\""));
            }
        };
        definitions.permissions.iter().for_each(|entry| vhost(&entry.path, &entry.value.1.vhost));
        definitions.topic_permissions.iter().for_each(|entry| vhost(&entry.path, &entry.value.1.vhost));
        definitions.limits.iter().for_each(|entry| vhost(&entry.path, &entry.value.0));
        definitions.parameters.iter().for_each(|entry| vhost(&entry.path, &entry.value.0));
        definitions.policies.iter().for_each(|entry| vhost(&entry.path, &entry.value.0));
        definitions.exchanges.iter().for_each(|entry| vhost(&entry.path, &entry.value.vhost));
        definitions.queues.iter().for_each(|entry| vhost(&entry.path, &entry.value.0));
        definitions.bindings.iter().for_each(|entry| vhost(&entry.path, &entry.value.0));
        let mut user = |path: &str, name: &str| {
            if !users.contains(name) && self.access.user(name).is_none() {
                let cause = format!("user '{name}' does not exist");
                note(mistakes, Mistake::new(path, cause, "create it first, or add it to \"users\""));
            }
        };
        definitions.permissions.iter().for_each(|entry| user(&entry.path, &entry.value.0));
        definitions.topic_permissions.iter().for_each(|entry| user(&entry.path, &entry.value.0));
        self.check_things(definitions, mistakes);
        self.check_limits(definitions, mistakes);
    }

    fn check_things(&self, definitions: &Definitions, mistakes: &mut Vec<Mistake>) {
        let mut exchanges: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut queues: BTreeSet<(&str, &str)> = BTreeSet::new();
        for Located { path, value } in &definitions.exchanges {
            exchanges.insert((&value.vhost, &value.name));
            let is_there = self.vhosts.get(&value.vhost).is_some_and(|vhost| vhost.exchange(&value.name).is_some());
            if !is_there && !self.vhosts.has_exchange_type(&value.kind) {
                let cause = format!("unknown exchange type '{}'", value.kind);
                note(mistakes, Mistake::new(path, cause, "load the plugin that offers it"));
            }
        }
        for Located { path, value: (vhost, queue) } in &definitions.queues {
            queues.insert((vhost, &queue.name));
            let is_there = self.vhosts.get(vhost).is_some_and(|vhost| vhost.queue(&queue.name).is_some());
            if !is_there && let Err(cause) = arguments::check_queue(&queue.arguments, &queue.name, vhost) {
                note(mistakes, Mistake::new(format!("{path}.arguments"), cause, "mend it or leave it out"));
            }
        }
        for Located { path, value: (vhost, source, binding) } in &definitions.bindings {
            let world = self.vhosts.get(vhost);
            let has_exchange = |name: &str| {
                exchanges.contains(&(vhost, name))
                    || PREDECLARED.iter().any(|(predeclared, ..)| *predeclared == name)
                    || world.as_ref().is_some_and(|vhost| vhost.exchange(name).is_some())
            };
            let has_queue = |name: &str| {
                queues.contains(&(vhost, name)) || world.as_ref().is_some_and(|vhost| vhost.queue(name).is_some())
            };
            let mut missing = |key: &str, what: &str, name: &str| {
                let cause = format!("{what} '{name}' does not exist in vhost '{vhost}'");
                note(mistakes, Mistake::new(format!("{path}.{key}"), cause, "add it, or leave the binding out"));
            };
            if !has_exchange(source) {
                missing("source", "exchange", source);
            }
            match binding.destination_kind {
                DestinationKind::Queue if !has_queue(&binding.destination) => {
                    missing("destination", "queue", &binding.destination);
                }
                DestinationKind::Exchange if !has_exchange(&binding.destination) => {
                    missing("destination", "exchange", &binding.destination);
                }
                DestinationKind::Queue | DestinationKind::Exchange => {}
            }
        }
    }

    /// A vhost must have room for all queues that are new in it.
    fn check_limits(&self, definitions: &Definitions, mistakes: &mut Vec<Mistake>) {
        let mut new: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for Located { value: (vhost, queue), .. } in &definitions.queues {
            if self.vhosts.get(vhost).is_none_or(|vhost| vhost.queue(&queue.name).is_none()) {
                new.entry(vhost).or_default().insert(&queue.name);
            }
        }
        for (name, queues) in new {
            let world = self.vhosts.get(name);
            let of_file = definitions.limits.iter().rfind(|limits| limits.value.0 == name);
            let limits = of_file.map(|limits| limits.value.1).or_else(|| world.as_ref().map(|vhost| vhost.limits()));
            let before = world.map_or(0, |vhost| vhost.counts().1);
            let max_queues = limits.and_then(|limits| limits.max_queues);
            // Room for the last of them is room for all.
            if let Some(limit) = reached(max_queues, before + queues.len() - 1) {
                let cause = format!(
                    "Adding {} queue(s) to virtual host \"{name}\" would exceed the limit of {limit} queue(s). \
                     This virtual host currently has {before} queue(s) defined",
                    queues.len()
                );
                note(mistakes, Mistake::new("queues", cause, "raise the limit, or leave queues out"));
            }
        }
    }
}

struct Run<'a> {
    access: &'a Access,
    vhosts: &'a Vhosts,
    done: Imported,
    mistakes: Vec<Mistake>,
}

impl Run<'_> {
    fn all(&mut self, definitions: Definitions) {
        self.each("vhosts", definitions.vhosts, |run, (name, metadata)| {
            if metadata.is_some() && run.is_declared_vhost(&name) {
                return run.leave(format!("the description of vhost '{name}'"));
            }
            run.vhosts.create(&name, metadata).map(drop).map_err(|error| error.to_string())
        });
        self.each("users", definitions.users, |run, user| {
            if run.is_of_file(run.access.origin_of(&user.name)) {
                return run.leave(format!("user '{}'", user.name));
            }
            let UserDefinition { name, password, tags, loopback_only, limits } = user;
            let update = UserUpdate { password: Some(password), tags: Some(tags), loopback_only, limits };
            run.access.put_user(&name, update).map(drop).map_err(|error| error.to_string())
        });
        self.each("permissions", definitions.permissions, |run, (user, decl)| {
            if run.is_of_file(run.access.permission_origin(&user, &decl.vhost)) {
                return run.leave(format!("the permission of user '{user}' in vhost '{}'", decl.vhost));
            }
            run.access.set_permission(&user, &decl).map_err(|error| error.to_string())
        });
        self.each("topic permissions", definitions.topic_permissions, |run, (user, decl)| {
            if run.is_of_file(run.access.topic_permission_origin(&user, &decl.vhost, &decl.exchange)) {
                return run.leave(format!("the topic permission of user '{user}' for exchange '{}'", decl.exchange));
            }
            run.access.set_topic_permission(&user, &decl).map_err(|error| error.to_string())
        });
        self.each("global parameters", definitions.global_parameters, |run, (name, value)| {
            run.vhosts.put_global_parameter(&name, value).map_err(|error| error.to_string())
        });
        self.each("limits", definitions.limits, |run, (name, limits)| {
            let vhost = run.vhost(&name)?;
            if vhost.limits_origin() == Some(Origin::Topology) {
                return run.leave(format!("the limits of vhost '{name}'"));
            }
            vhost.put_limits(limits, Origin::Runtime).map(drop).map_err(|error| error.to_string())
        });
        self.each("parameters", definitions.parameters, |run, (vhost, (component, name), value)| {
            run.vhost(&vhost)?.put_parameter(&component, &name, value).map(drop).map_err(|error| error.to_string())
        });
        self.each("policies", definitions.policies, |run, (vhost, kind, spec)| {
            let vhost = run.vhost(&vhost)?;
            if vhost.policy(kind, &spec.name).is_some_and(|policy| policy.origin() == Origin::Topology) {
                return run.leave(format!("{kind} '{}' of vhost '{}'", spec.name, vhost.name));
            }
            vhost.put_policy(kind, spec, Origin::Runtime).map(drop).map_err(|error| error.to_string())
        });
        self.each("exchanges", definitions.exchanges, |run, spec| {
            let vhost = run.vhost(&spec.vhost)?;
            if vhost.exchange(&spec.name).is_some() {
                return Ok(());
            }
            vhost.declare_exchange(&mut Operator, spec).map(drop).map_err(|error| error.to_string())
        });
        self.each("queues", definitions.queues, |run, (vhost, spec)| {
            let vhost = run.vhost(&vhost)?;
            if vhost.queue(&spec.name).is_some() {
                return Ok(());
            }
            vhost.declare_queue(&mut Operator, spec, String::new).map(drop).map_err(|error| error.to_string())
        });
        self.each("bindings", definitions.bindings, |run, (vhost, source, binding)| {
            let vhost = run.vhost(&vhost)?;
            vhost.bind(&mut Operator, &source, &binding).map(drop).map_err(|error| error.to_string())
        });
    }

    fn each<T>(
        &mut self,
        what: &'static str,
        entries: Vec<Located<T>>,
        mut carry_out: impl FnMut(&mut Self, T) -> Result<(), String>,
    ) {
        self.done.counts.push((what, entries.len()));
        for Located { path, value } in entries {
            if let Err(cause) = carry_out(self, value) {
                note(&mut self.mistakes, Mistake::new(path, cause, ""));
            }
        }
    }

    fn vhost(&self, name: &str) -> Result<Arc<Vhost>, String> {
        self.vhosts.get(name).ok_or_else(|| format!("vhost '{name}' does not exist"))
    }

    /// The default user is nobody's.
    fn is_of_file(&self, origin: Option<Origin>) -> bool {
        origin == Some(Origin::Topology) && !self.access.has_defaults()
    }

    fn is_declared_vhost(&self, name: &str) -> bool {
        self.vhosts.get(name).is_some_and(|vhost| vhost.metadata_origin() == Some(Origin::Topology))
    }

    fn leave(&mut self, what: String) -> Result<(), String> {
        self.done.notes.push(format!("{what} is as the topology file declares it"));
        Ok(())
    }
}
