//! Comparing a file with what is there.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::exchange::DestinationKind;

use super::differences;
use super::{Action, BindingKey, Change, Difference, Load, Loss, Object, Plan, Prune, Target, Wish};
use super::{marks, room};
use crate::origin::Origin;
use crate::topology::schema::{BindingDecl, ExchangeDecl, ParameterDecl, QueueDecl, Topology, UserDecl, VhostDecl};
use crate::topology::scratch::{Rules, Scratch};
use crate::topology::snapshot::snapshot;
use crate::vhost::Vhost;
use crate::vhost::policy::PolicyKind;
use crate::vhost::settings::VhostMetadata;

pub(super) fn diff(topology: &Topology, target: &Target<'_>, wish: Wish) -> Plan {
    let mut plan = Plan::default();
    let shared = target.vhosts.shared();
    let rules = Rules { bindings_per_queue_max: shared.bindings_per_queue_max, strict: shared.strict };
    if let Err(errors) = Scratch::build(topology, &shared.registry, rules) {
        plan.mistakes.extend(errors.iter().map(ToString::to_string));
    }
    let current = snapshot(target.access, target.vhosts, None);
    let declared = marks::declared(topology);
    let removed = removals(topology, target, wish, &declared);
    let mut diff = Diff { target, wish, removed, plan };
    if topology.sections.contains(&"users") {
        let users: BTreeMap<&str, &UserDecl> = current.users.iter().map(|user| (user.name.as_str(), user)).collect();
        for user in &topology.users {
            diff.user(users.get(user.name.as_str()).copied(), user);
        }
    }
    let vhosts: BTreeMap<&str, &VhostDecl> = current.vhosts.iter().map(|vhost| (vhost.name.as_str(), vhost)).collect();
    if topology.sections.contains(&"vhosts") {
        for vhost in &topology.vhosts {
            diff.vhost(vhosts.get(vhost.name.as_str()).copied(), vhost);
        }
    }
    if topology.sections.contains(&"parameters") {
        let parameters: BTreeMap<_, _> = current.parameters.iter().map(|(name, value)| (name, value)).collect();
        for (name, value) in &topology.parameters {
            let old = parameters.get(name).copied();
            diff.put(old.is_none(), Object::GlobalParameter(name.clone()), differences::parameter(old, value));
        }
    }
    diff.remove(&vhosts);
    let mut plan = diff.plan;
    plan.changes.sort_by_key(|change| rank(change.action, &change.object));
    plan.mistakes.extend(room::judge(&plan, topology, &current, target, wish));
    plan
}

/// The order in which things are done: what is referred to comes first and goes last.
fn rank(action: Action, object: &Object) -> u8 {
    let place = match object {
        Object::Vhost(_) => 0,
        Object::User(_) => 1,
        Object::Permission(..) => 2,
        Object::TopicPermission(..) => 3,
        Object::GlobalParameter(_) | Object::Limits(_) | Object::Parameter(..) => 4,
        Object::Policy(..) => 5,
        Object::Exchange(..) => 6,
        Object::Queue(..) => 7,
        Object::Binding(..) => 8,
    };
    if action == Action::Remove { 17 - place } else { place }
}

/// What the owner has declared before and no longer does, and nobody else declares.
fn removals(topology: &Topology, target: &Target<'_>, wish: Wish, declared: &BTreeSet<Object>) -> BTreeSet<Object> {
    if wish.prune == Prune::Nothing {
        return BTreeSet::new();
    }
    let owners = marks::all(target.vhosts);
    let is_own = |owners: &Vec<String>| *owners == [topology.owner.as_str()];
    let is_meant = |object: &Object| {
        let section = match object {
            Object::User(_) | Object::Permission(..) | Object::TopicPermission(..) => "users",
            Object::GlobalParameter(_) => "parameters",
            _ => "vhosts",
        };
        let is_of_file = || is_of_file(target, object);
        topology.sections.contains(&section)
            && !declared.contains(object)
            && (wish.prune == Prune::Everything || is_of_file())
    };
    owners.into_iter().filter(|(object, owners)| is_own(owners) && is_meant(object)).map(|(object, _)| object).collect()
}

/// Whether a setting is there because the broker's own file said so.
fn is_of_file(target: &Target<'_>, object: &Object) -> bool {
    let vhost = |name: &str| target.vhosts.get(name);
    let origin = match object {
        Object::User(name) => target.access.origin_of(name),
        Object::Permission(user, vhost) => target.access.permission_origin(user, vhost),
        Object::TopicPermission(user, vhost, exchange) => target.access.topic_permission_origin(user, vhost, exchange),
        Object::Limits(name) => vhost(name).and_then(|vhost| vhost.limits_origin()),
        Object::Policy(name, kind, policy) => vhost(name).and_then(|v| v.policy(*kind, policy)).map(|p| p.origin()),
        // What is of a parameter of the file is kept as anybody's, see `apply_parameters`.
        Object::Vhost(_)
        | Object::GlobalParameter(_)
        | Object::Parameter(..)
        | Object::Exchange(..)
        | Object::Queue(..)
        | Object::Binding(..) => None,
    };
    origin == Some(Origin::Topology)
}

struct Diff<'a> {
    target: &'a Target<'a>,
    wish: Wish,
    removed: BTreeSet<Object>,
    plan: Plan,
}

impl Diff<'_> {
    fn change(&mut self, action: Action, object: Object, differences: Vec<Difference>) {
        if action != Action::Create && self.wish.origin == Origin::Runtime && is_of_file(self.target, &object) {
            let note = format!(
                "{object} is declared by the broker's own topology file, which wins at its next start or reload; change it there, too"
            );
            self.plan.notes.push(note);
        }
        self.plan.changes.push(Change { action, object, differences, loss: Loss::default(), refusal: None });
    }

    /// A new object, or one that is changed where it stands.
    fn put(&mut self, is_new: bool, object: Object, differences: Vec<Difference>) {
        if is_new {
            self.change(Action::Create, object, differences);
        } else if !differences.is_empty() {
            self.change(Action::Update, object, differences);
        }
    }

    fn user(&mut self, before: Option<&UserDecl>, after: &UserDecl) {
        let name = || after.name.clone();
        self.put(before.is_none(), Object::User(name()), differences::user(before, after));
        for decl in &after.permissions {
            let old = before.and_then(|user| user.permissions.iter().find(|old| old.vhost == decl.vhost));
            let object = Object::Permission(name(), decl.vhost.clone());
            self.put(old.is_none(), object, differences::permission(old, decl));
        }
        for decl in &after.topic_permissions {
            let is_meant = |old: &&crate::topology::schema::TopicPermissionDecl| {
                (&old.vhost, &old.exchange) == (&decl.vhost, &decl.exchange)
            };
            let old = before.and_then(|user| user.topic_permissions.iter().find(is_meant));
            let object = Object::TopicPermission(name(), decl.vhost.clone(), decl.exchange.clone());
            self.put(old.is_none(), object, differences::topic_permission(old, decl));
        }
    }

    fn vhost(&mut self, before: Option<&VhostDecl>, after: &VhostDecl) {
        let name = || after.name.clone();
        let empty = VhostDecl { name: name(), ..VhostDecl::default() };
        let default = VhostMetadata::default();
        let old = before.map(|before| (before.metadata.as_ref().unwrap_or(&default), before.is_traced));
        self.put(before.is_none(), Object::Vhost(name()), differences::vhost(old, after));
        self.note_start(before, after);
        let before = before.unwrap_or(&empty);
        if let Some(limits) = after.limits {
            let old = before.limits;
            let differences = differences::limits(old.unwrap_or_default(), limits);
            if !differences.is_empty() {
                self.put(old.is_none(), Object::Limits(name()), differences);
            }
        }
        for (kind, spec) in &after.policies {
            let is_meant =
                |(of, old): &&(PolicyKind, crate::vhost::policy::PolicySpec)| of == kind && old.name == spec.name;
            let old = before.policies.iter().find(is_meant).map(|(_, old)| old);
            let object = Object::Policy(name(), *kind, spec.name.clone());
            self.put(old.is_none(), object, differences::policy(old, spec));
        }
        for decl in &after.parameters {
            let is_meant = |old: &&ParameterDecl| (&old.component, &old.name) == (&decl.component, &decl.name);
            let old = before.parameters.iter().find(is_meant).map(|old| &old.value);
            let object = Object::Parameter(name(), decl.component.clone(), decl.name.clone());
            self.put(old.is_none(), object, differences::parameter(old, &decl.value));
        }
        let replaced = self.exchanges_and_queues(before, after);
        self.bindings(before, after, &replaced);
    }

    /// What the file says of a vhost and only a start can bring about.
    fn note_start(&mut self, before: Option<&VhostDecl>, after: &VhostDecl) {
        let durability = before.map_or(Default::default(), |before| before.durability);
        let is_own_file = self.wish.origin == Origin::Topology;
        let mut note = |what: &str| {
            let how = if is_own_file { "that takes a restart" } else { "say it in the broker's own topology file" };
            self.plan.notes.push(format!("vhost '{}': {what} is not changed; {how}", after.name));
        };
        if after.durability != durability && (before.is_some() || !is_own_file) {
            note("its durability");
        }
        if after.has_event_exchange && before.is_none_or(|before| !before.has_event_exchange) {
            note("event_exchange");
        }
        if after.has_log_exchange && before.is_none_or(|before| !before.has_log_exchange) {
            note("log_exchange");
        }
    }

    /// Returns what is replaced.
    fn exchanges_and_queues(&mut self, before: &VhostDecl, after: &VhostDecl) -> BTreeSet<Object> {
        let vhost = self.target.vhosts.get(&after.name);
        let mut replaced = BTreeSet::new();
        let exchanges: BTreeMap<&str, &ExchangeDecl> = before.exchanges.iter().map(|e| (e.name.as_str(), e)).collect();
        for decl in &after.exchanges {
            let old = exchanges.get(decl.name.as_str()).copied();
            let differences = differences::exchange(old, decl);
            let object = Object::Exchange(after.name.clone(), decl.name.clone());
            match old {
                None => self.change(Action::Create, object, differences),
                Some(_) if differences.is_empty() => {}
                Some(old) => {
                    self.change(Action::Replace, object.clone(), differences);
                    self.replace_exchange(vhost.as_deref(), before, after, old, decl);
                    replaced.insert(object);
                }
            }
        }
        let queues: BTreeMap<&str, &QueueDecl> =
            before.queues.iter().map(|queue| (queue.name.as_str(), queue)).collect();
        for decl in &after.queues {
            let old = queues.get(decl.name.as_str()).copied();
            let differences = differences::queue(old, decl, before.durability.name());
            let object = Object::Queue(after.name.clone(), decl.name.clone());
            let record = vhost.as_ref().and_then(|vhost| vhost.queue(&decl.name));
            match (old, record) {
                (None, Some(record)) if record.owner.is_some() => {
                    let why = "a connection has it for itself now, as an exclusive queue; let the client end first";
                    self.plan.mistakes.push(format!("{object}: {why}"));
                }
                (None, _) => self.change(Action::Create, object, differences),
                (Some(_), _) if differences.is_empty() => {}
                (Some(_), record) => {
                    self.change(Action::Replace, object.clone(), differences);
                    let load = record.map(|record| self.target.hands.load(&record)).unwrap_or_default();
                    self.lose(Loss { load, ..Loss::default() });
                    let to_it = |binding: &&BindingDecl| is_to(binding, DestinationKind::Queue, &decl.name);
                    for binding in before.bindings.iter().filter(to_it) {
                        self.plan.rebind.push((after.name.clone(), binding.clone()));
                    }
                    replaced.insert(object);
                }
            }
        }
        replaced
    }

    /// Bindings to it come back; those from it do if its type stays, or if the file has them.
    fn replace_exchange(
        &mut self,
        vhost: Option<&Vhost>,
        before: &VhostDecl,
        after: &VhostDecl,
        old: &ExchangeDecl,
        new: &ExchangeDecl,
    ) {
        let declared: BTreeSet<BindingKey> = after.bindings.iter().map(BindingKey::of).collect();
        let mut loss = Loss { load: self.held(vhost, &old.name), ..Loss::default() };
        for binding in &before.bindings {
            let is_from = binding.source == old.name;
            if !is_from && !is_to(binding, DestinationKind::Exchange, &old.name) {
                continue;
            }
            if !is_from || old.kind == new.kind || declared.contains(&BindingKey::of(binding)) {
                self.plan.rebind.push((after.name.clone(), binding.clone()));
            } else {
                loss.bindings += 1;
            }
        }
        self.lose(loss);
    }

    /// Messages that an exchange has put off.
    fn held(&self, vhost: Option<&Vhost>, exchange: &str) -> Load {
        let number = vhost.and_then(|vhost| vhost.exchange(exchange)).map(|exchange| exchange.number);
        let held = number.and_then(|number| self.target.vhosts.shared().holder.count(number));
        Load { ready: held.unwrap_or(0) as u64, ..Load::default() }
    }

    /// Books a loss on the last change, and refuses it where somebody would miss what goes.
    fn lose(&mut self, loss: Loss) {
        let is_forced = self.wish.force;
        let Some(change) = self.plan.changes.last_mut() else { return };
        change.loss = loss;
        if loss.has_messages_or_consumers() && !is_forced {
            let Load { ready, unacked, consumers } = loss.load;
            change.refusal = Some(format!(
                "{ready} ready and {unacked} unacked messages and {consumers} consumers would be lost; empty it first, or use --force"
            ));
        }
    }

    /// Those of what is replaced come back with it, and are no changes of their own.
    fn bindings(&mut self, before: &VhostDecl, after: &VhostDecl, replaced: &BTreeSet<Object>) {
        let there: BTreeSet<BindingKey> = before.bindings.iter().map(BindingKey::of).collect();
        for decl in &after.bindings {
            let key = BindingKey::of(decl);
            if !there.contains(&key) {
                self.change(Action::Create, Object::Binding(after.name.clone(), key), Vec::new());
            }
        }
        if replaced.is_empty() {
            return;
        }
        let (removed, vhost) = (&self.removed, &after.name);
        self.plan.rebind.retain(|(of, binding)| {
            of != vhost || !removed.contains(&Object::Binding(of.clone(), BindingKey::of(binding)))
        });
    }

    /// What the file once declared and no longer does, as far as it is still there.
    fn remove(&mut self, vhosts: &BTreeMap<&str, &VhostDecl>) {
        for object in self.removed.clone() {
            let goes_with_another = match &object {
                Object::Permission(user, vhost) | Object::TopicPermission(user, vhost, _) => {
                    self.goes(Object::User(user.clone())) || self.goes(Object::Vhost(vhost.clone()))
                }
                Object::Vhost(_) | Object::User(_) | Object::GlobalParameter(_) => false,
                other => other.vhost().is_some_and(|vhost| self.goes(Object::Vhost(vhost.to_owned()))),
            };
            if goes_with_another {
                continue;
            }
            let vhost = object.vhost().and_then(|name| vhosts.get(name).copied());
            match (&object, vhost) {
                (Object::User(name), _) if self.target.access.user(name).is_some() => {
                    self.change(Action::Remove, object, Vec::new());
                }
                (Object::Permission(user, in_vhost), _)
                    if self.target.access.permission_origin(user, in_vhost).is_some() =>
                {
                    self.change(Action::Remove, object, Vec::new());
                }
                (Object::TopicPermission(user, in_vhost, exchange), _)
                    if self.target.access.topic_permission_origin(user, in_vhost, exchange).is_some() =>
                {
                    self.change(Action::Remove, object, Vec::new());
                }
                (Object::Limits(_), Some(decl)) if decl.limits.is_some() => {
                    self.change(Action::Remove, object, Vec::new());
                }
                (Object::Policy(_, kind, name), Some(decl))
                    if decl.policies.iter().any(|(of, spec)| of == kind && spec.name == *name) =>
                {
                    self.change(Action::Remove, object, Vec::new());
                }
                (Object::GlobalParameter(name), _) if self.target.vhosts.global_parameters().contains_key(name) => {
                    self.change(Action::Remove, object, Vec::new());
                }
                (Object::Parameter(_, component, name), Some(decl))
                    if decl.parameters.iter().any(|decl| (&decl.component, &decl.name) == (component, name)) =>
                {
                    self.change(Action::Remove, object, Vec::new());
                }
                (Object::Vhost(name), Some(decl)) => self.remove_vhost(&name.clone(), decl),
                (Object::Exchange(_, name), Some(decl)) if decl.exchanges.iter().any(|e| e.name == *name) => {
                    let name = name.clone();
                    self.change(Action::Remove, object, Vec::new());
                    self.lose_with_end(decl, DestinationKind::Exchange, &name);
                }
                (Object::Queue(_, name), Some(decl)) if decl.queues.iter().any(|queue| queue.name == *name) => {
                    let name = name.clone();
                    self.change(Action::Remove, object, Vec::new());
                    self.lose_with_end(decl, DestinationKind::Queue, &name);
                }
                (Object::Binding(vhost, key), Some(decl)) => {
                    let source = Object::Exchange(vhost.clone(), key.source.clone());
                    let destination = match key.destination_kind {
                        DestinationKind::Queue => Object::Queue(vhost.clone(), key.destination.clone()),
                        DestinationKind::Exchange => Object::Exchange(vhost.clone(), key.destination.clone()),
                    };
                    let goes = self.goes(source) || self.goes(destination);
                    if !goes && decl.bindings.iter().any(|binding| BindingKey::of(binding) == *key) {
                        self.change(Action::Remove, object, Vec::new());
                    }
                }
                _ => {}
            }
        }
    }

    fn goes(&self, object: Object) -> bool {
        self.removed.contains(&object)
    }

    /// A queue or exchange that is removed loses what is in it, and bindings that somebody else has made.
    fn lose_with_end(&mut self, decl: &VhostDecl, kind: DestinationKind, name: &str) {
        let vhost = self.target.vhosts.get(&decl.name);
        let load = match kind {
            DestinationKind::Queue => {
                let record = vhost.as_ref().and_then(|vhost| vhost.queue(name));
                record.map(|record| self.target.hands.load(&record)).unwrap_or_default()
            }
            DestinationKind::Exchange => self.held(vhost.as_deref(), name),
        };
        let is_touched = |binding: &&BindingDecl| {
            is_to(binding, kind, name) || kind == DestinationKind::Exchange && binding.source == name
        };
        let is_others =
            |binding: &&BindingDecl| !self.goes(Object::Binding(decl.name.clone(), BindingKey::of(binding)));
        let bindings = decl.bindings.iter().filter(is_touched).filter(is_others).count() as u64;
        self.lose(Loss { load, bindings, queues: 0 });
    }

    fn remove_vhost(&mut self, name: &str, decl: &VhostDecl) {
        self.change(Action::Remove, Object::Vhost(name.to_owned()), Vec::new());
        let Some(vhost) = self.target.vhosts.get(name) else { return };
        let queues = vhost.queues();
        let mut loss = Loss { bindings: decl.bindings.len() as u64, queues: queues.len() as u64, ..Loss::default() };
        for queue in queues {
            loss.add(self.target.hands.load(&queue));
        }
        for exchange in &decl.exchanges {
            loss.add(self.held(Some(&vhost), &exchange.name));
        }
        self.lose(loss);
        if vhost.metadata().protected_from_deletion
            && let Some(change) = self.plan.changes.last_mut()
        {
            change.refusal = Some("it is protected from deletion".to_owned());
        }
    }
}

pub(super) fn is_to(binding: &BindingDecl, kind: DestinationKind, name: &str) -> bool {
    binding.destination_kind == kind && binding.destination == name
}
