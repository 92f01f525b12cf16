//! Doing what a plan says, in its order. What fails ends it: what was done until then stays, and is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};

use super::{Action, BindingKey, Change, Object, Plan, Target, Wish, marks};
use crate::access::{Access, UserUpdate};
use crate::origin::Origin;
use crate::topology::schema::{
    BindingDecl, ExchangeDecl, ParameterDecl, PermissionDecl, TopicPermissionDecl, Topology, UserDecl, VhostDecl,
};
use crate::topology::snapshot::snapshot;
use crate::vhost::Vhost;
use crate::vhost::authority::Operator;
use crate::vhost::declare::QueueSpec;
use crate::vhost::registry::Vhosts;
use crate::vhost::settings::VhostLimits;

/// What became of a plan.
#[derive(Clone, Debug, Default)]
pub struct CarriedOut {
    /// What was done, in order.
    pub done: Vec<String>,
    /// What failed, and why.
    pub failed: Option<String>,
    /// What was not tried after that.
    pub left: Vec<String>,
}

/// Does it. The plan must be one that was made of this file, without refusals.
#[must_use]
pub fn carry_out(plan: &Plan, topology: &Topology, target: &Target<'_>, wish: Wish) -> CarriedOut {
    let run = Run::new(plan, topology, target, wish);
    let mut result = CarriedOut::default();
    let owners = marks::all(target.vhosts);
    let mut steps = plan.changes.iter();
    for change in steps.by_ref() {
        let said = said(change);
        match run.step(change) {
            Ok(()) => {
                if change.action == Action::Replace {
                    let owners = owners.get(&change.object).into_iter().flatten();
                    owners.for_each(|owner| marks::renew(target.vhosts, owner, &change.object));
                }
                result.done.push(said);
            }
            Err(why) => {
                result.failed = Some(format!("{said}: {why}"));
                break;
            }
        }
    }
    result.left = steps.map(said).collect();
    if result.failed.is_none() && wish.origin == Origin::Topology {
        run.adopt();
    }
    mark(topology, target.access, target.vhosts);
    result
}

fn said(change: &Change) -> String {
    let verb = match change.action {
        Action::Create => "created",
        Action::Update => "changed",
        Action::Replace => "replaced",
        Action::Remove => "removed",
    };
    format!("{verb} {}", change.object)
}

pub(super) struct Run<'a> {
    plan: &'a Plan,
    topology: &'a Topology,
    target: &'a Target<'a>,
    wish: Wish,
    /// What is declared where, so that ten thousand queues take no hundred million comparisons.
    vhosts: BTreeMap<&'a str, &'a VhostDecl>,
    users: BTreeMap<&'a str, &'a UserDecl>,
    exchanges: BTreeMap<(&'a str, &'a str), &'a ExchangeDecl>,
    queues: BTreeMap<(&'a str, &'a str), QueueSpec>,
    bindings: BTreeMap<(&'a str, BindingKey), &'a BindingDecl>,
}

impl<'a> Run<'a> {
    pub(super) fn new(plan: &'a Plan, topology: &'a Topology, target: &'a Target<'a>, wish: Wish) -> Self {
        let all = || topology.vhosts.iter().map(|vhost| (vhost.name.as_str(), vhost));
        let queue = |decl: &crate::topology::schema::QueueDecl| QueueSpec {
            name: decl.name.clone(),
            durable: decl.durable,
            exclusive: false,
            auto_delete: decl.auto_delete,
            arguments: decl.arguments.clone(),
        };
        Self {
            plan,
            topology,
            target,
            wish,
            vhosts: all().collect(),
            users: topology.users.iter().map(|user| (user.name.as_str(), user)).collect(),
            exchanges: all()
                .flat_map(|(name, vhost)| vhost.exchanges.iter().map(move |decl| ((name, decl.name.as_str()), decl)))
                .collect(),
            queues: all()
                .flat_map(|(name, vhost)| {
                    vhost.queues.iter().map(move |decl| ((name, decl.name.as_str()), queue(decl)))
                })
                .collect(),
            bindings: all()
                .flat_map(|(name, vhost)| vhost.bindings.iter().map(move |decl| ((name, BindingKey::of(decl)), decl)))
                .collect(),
        }
    }

    fn step(&self, change: &Change) -> Result<(), String> {
        match change.action {
            Action::Create | Action::Update => self.put(&change.object),
            Action::Replace => self.replace(&change.object),
            Action::Remove => self.remove(&change.object),
        }
    }

    fn vhost(&self, name: &str) -> Result<Arc<Vhost>, String> {
        self.target.vhosts.get(name).ok_or_else(|| format!("vhost '{name}' has been deleted meanwhile"))
    }

    pub(super) fn put(&self, object: &Object) -> Result<(), String> {
        let gone = || "the file does not declare it".to_owned();
        match object {
            Object::Vhost(name) => self.put_vhost(self.vhosts.get(name.as_str()).ok_or_else(gone)?),
            Object::User(name) => self.put_user(self.users.get(name.as_str()).ok_or_else(gone)?),
            Object::Permission(user, vhost) => {
                let decl = self.permission(user, vhost).ok_or_else(gone)?;
                self.target.access.set_permission(user, decl).map_err(text)
            }
            Object::TopicPermission(user, vhost, exchange) => {
                let decl = self.topic_permission(user, vhost, exchange).ok_or_else(gone)?;
                self.target.access.set_topic_permission(user, decl).map_err(text)
            }
            Object::Limits(name) => {
                let limits = self.vhosts.get(name.as_str()).and_then(|decl| decl.limits).ok_or_else(gone)?;
                self.vhost(name)?.put_limits(limits, self.wish.origin).map(drop).map_err(text)
            }
            Object::Policy(vhost, kind, name) => {
                let decl = self.vhosts.get(vhost.as_str()).ok_or_else(gone)?;
                let spec = decl.policies.iter().find(|(of, spec)| of == kind && spec.name == *name);
                let (_, spec) = spec.ok_or_else(gone)?;
                self.vhost(vhost)?.put_policy(*kind, spec.clone(), self.wish.origin).map(drop).map_err(text)
            }
            Object::GlobalParameter(name) => {
                let (_, value) = self.topology.parameters.iter().find(|(of, _)| of == name).ok_or_else(gone)?;
                self.target.vhosts.put_global_parameter(name, value.clone()).map_err(text)
            }
            Object::Parameter(vhost, component, name) => {
                let decl = self.vhosts.get(vhost.as_str()).ok_or_else(gone)?;
                let is_meant = |decl: &&ParameterDecl| (&decl.component, &decl.name) == (component, name);
                let value = decl.parameters.iter().find(is_meant).ok_or_else(gone)?.value.clone();
                self.vhost(vhost)?.put_parameter(component, name, value).map(drop).map_err(text)
            }
            Object::Exchange(vhost, name) => {
                let decl = self.exchanges.get(&(vhost.as_str(), name.as_str())).ok_or_else(gone)?;
                declare_exchange(&*self.vhost(vhost)?, decl)
            }
            Object::Queue(vhost, name) => {
                let spec = self.queues.get(&(vhost.as_str(), name.as_str())).ok_or_else(gone)?;
                self.vhost(vhost)?.declare_queue(&mut Operator, spec.clone(), String::new).map(drop).map_err(text)
            }
            Object::Binding(vhost, key) => {
                let decl = self.bindings.get(&(vhost.as_str(), key.clone())).ok_or_else(gone)?;
                bind(&*self.vhost(vhost)?, decl)
            }
        }
    }

    /// What the file does not say of a vhost stays as it is.
    fn put_vhost(&self, decl: &VhostDecl) -> Result<(), String> {
        let mut metadata = decl.metadata.clone();
        if let (Some(metadata), Some(vhost)) = (&mut metadata, self.target.vhosts.get(&decl.name)) {
            metadata.protected_from_deletion = vhost.metadata().protected_from_deletion;
        }
        let durability = match self.wish.origin {
            Origin::Topology => decl.durability,
            // The next start would not know of it.
            Origin::Runtime => Default::default(),
        };
        let created = self.target.vhosts.create_with(&decl.name, metadata, durability, self.wish.origin);
        let (vhost, ..) = created.map_err(text)?;
        if decl.is_traced && !vhost.is_traced() {
            vhost.set_tracing(true);
        }
        Ok(())
    }

    fn put_user(&self, decl: &UserDecl) -> Result<(), String> {
        let access = self.target.access;
        if self.wish.origin == Origin::Topology {
            access.put_declared(decl);
            return Ok(());
        }
        let old = access.records().into_iter().find(|record| record.name == decl.name);
        let is_same = old.is_some_and(|old| decl.password.is(old.password.as_ref()));
        let update = UserUpdate {
            password: (!is_same).then(|| decl.password.to_hash(&decl.name)),
            tags: Some(decl.tags.clone()),
            loopback_only: Some(decl.loopback_only),
            limits: Some(decl.limits),
        };
        access.put_user(&decl.name, update).map(drop).map_err(text)
    }

    fn permission(&self, user: &str, vhost: &str) -> Option<&PermissionDecl> {
        self.users.get(user)?.permissions.iter().find(|decl| decl.vhost == vhost)
    }

    fn topic_permission(&self, user: &str, vhost: &str, exchange: &str) -> Option<&TopicPermissionDecl> {
        let decls = &self.users.get(user)?.topic_permissions;
        decls.iter().find(|decl| decl.vhost == vhost && decl.exchange == exchange)
    }

    /// Deletes it, makes it again, and binds it as it was bound.
    pub(super) fn replace(&self, object: &Object) -> Result<(), String> {
        self.remove(object)?;
        self.put(object)?;
        self.rebind(object)
    }

    /// Binds it as it was bound before the plan was made.
    pub(super) fn rebind(&self, object: &Object) -> Result<(), String> {
        let (Object::Queue(vhost_name, name) | Object::Exchange(vhost_name, name)) = object else {
            return Err(format!("{object} cannot be replaced"));
        };
        let is_end = |binding: &BindingDecl| match object {
            Object::Queue(..) => binding.destination_kind == DestinationKind::Queue && binding.destination == *name,
            _ => {
                let is_to = binding.destination_kind == DestinationKind::Exchange && binding.destination == *name;
                is_to || binding.source == *name
            }
        };
        let vhost = self.vhost(vhost_name)?;
        for (of, binding) in &self.plan.rebind {
            if of == vhost_name && is_end(binding) {
                self.keep_source(&vhost, binding)?;
                // The other end may have been deleted by somebody else meanwhile, or be replaced in its turn.
                let has_destination = match binding.destination_kind {
                    DestinationKind::Queue => vhost.queue(&binding.destination).is_some(),
                    DestinationKind::Exchange => vhost.exchange(&binding.destination).is_some(),
                };
                if has_destination && vhost.exchange(&binding.source).is_some() {
                    bind(&vhost, binding).map_err(|why| format!("it is there again, but not bound: {why}"))?;
                }
            }
        }
        Ok(())
    }

    /// An exchange that goes with its last binding has gone with the queue.
    fn keep_source(&self, vhost: &Vhost, binding: &BindingDecl) -> Result<(), String> {
        match self.exchanges.get(&(&*vhost.name, binding.source.as_str())) {
            Some(decl) if vhost.exchange(&binding.source).is_none() => declare_exchange(vhost, decl),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(&self, object: &Object) -> Result<(), String> {
        let access = self.target.access;
        match object {
            Object::Vhost(name) => self.target.hands.delete_vhost(name),
            Object::User(name) => {
                access.remove_user(name);
                Ok(())
            }
            Object::Permission(user, vhost) => access.remove_permission(user, vhost).map_err(text),
            Object::TopicPermission(user, vhost, exchange) => {
                access.remove_topic_permissions(user, vhost, Some(exchange)).map_err(text)
            }
            Object::Limits(vhost) => {
                let vhost = self.vhost(vhost)?;
                vhost.put_limits(VhostLimits::default(), Origin::Runtime).map(drop).map_err(text)
            }
            Object::Policy(vhost, kind, name) => {
                self.vhost(vhost)?.delete_policy(*kind, name);
                Ok(())
            }
            Object::GlobalParameter(name) => {
                self.target.vhosts.delete_global_parameter(name);
                Ok(())
            }
            Object::Parameter(vhost, component, name) => {
                self.vhost(vhost)?.delete_parameter(component, name);
                Ok(())
            }
            Object::Exchange(vhost, name) => {
                self.vhost(vhost)?.delete_exchange(&mut Operator, name, false).map(drop).map_err(text)
            }
            Object::Queue(vhost, name) => {
                let vhost = self.vhost(vhost)?;
                let Some(queue) = vhost.deletable_queue(&mut Operator, name).map_err(text)? else { return Ok(()) };
                self.target.hands.delete_queue(&vhost, &queue, !self.wish.force)
            }
            Object::Binding(vhost, key) => {
                let vhost = self.vhost(vhost)?;
                let spec = BindingSpec {
                    destination: key.destination.clone(),
                    destination_kind: key.destination_kind,
                    routing_key: key.routing_key.clone(),
                    // The bytes are those of a table that was encoded here.
                    arguments: plugin_api::value::Table::decode(&key.arguments).unwrap_or_default(),
                };
                vhost.unbind(&mut Operator, &key.source, &spec).map(drop).map_err(text)
            }
        }
    }

    /// Settings that are as the broker's own file says are the file's from now on, whoever made them.
    fn adopt(&self) {
        if self.topology.sections.contains(&"users") {
            for user in &self.topology.users {
                self.target.access.put_declared(user);
            }
        }
        if !self.topology.sections.contains(&"vhosts") {
            return;
        }
        for decl in &self.topology.vhosts {
            let Some(vhost) = self.target.vhosts.get(&decl.name) else { continue };
            // Only their origin changes, which nothing can refuse.
            if let Some(limits) = decl.limits {
                let _ = vhost.put_limits(limits, Origin::Topology);
            }
            for (kind, spec) in &decl.policies {
                let _ = vhost.put_policy(*kind, spec.clone(), Origin::Topology);
            }
        }
    }
}

/// Marks what the file declares and what it once declared, as far as it is there: what could not be removed can be removed another time.
fn mark(topology: &Topology, access: &Access, vhosts: &Vhosts) {
    let mut marks = marks::of(vhosts, &topology.owner);
    marks.retain(|object, number| marks::is_same(vhosts, object, *number));
    marks.extend(marks::declared(topology).into_iter().map(|object| {
        let number = marks::number_of(vhosts, &object);
        (object, number)
    }));
    let is_there = marks::declared(&snapshot(access, vhosts, None));
    marks.retain(|object, _| is_there.contains(object));
    marks::write(vhosts, &topology.owner, &marks);
}

fn declare_exchange(vhost: &Vhost, decl: &ExchangeDecl) -> Result<(), String> {
    let spec = ExchangeSpec {
        vhost: vhost.name.to_string(),
        name: decl.name.clone(),
        kind: decl.kind.clone(),
        durable: decl.durable,
        auto_delete: decl.auto_delete,
        internal: decl.internal,
        arguments: decl.arguments.clone(),
    };
    vhost.declare_exchange(&mut Operator, spec).map(drop).map_err(text)
}

fn bind(vhost: &Vhost, decl: &BindingDecl) -> Result<(), String> {
    let spec = BindingSpec {
        destination: decl.destination.clone(),
        destination_kind: decl.destination_kind,
        routing_key: decl.routing_key.clone(),
        arguments: decl.arguments.clone(),
    };
    vhost.bind(&mut Operator, &decl.source, &spec).map(drop).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Marks what a file declares that was carried out at the start of the broker.
pub fn mark_at_start(topology: &Topology, access: &Access, vhosts: &Vhosts) {
    mark(topology, access, vhosts);
}
