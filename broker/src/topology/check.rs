//! Static checks of a topology: what the broker would refuse or regret, found before it starts.
//!
//! Names are compared, not files or sockets; nothing is looked up outside the [`Topology`]. A [`Finding`] says which
//! declaration it is about by a [`Place`]; who read the topology knows where that stands. Rules about names and bindings are
//! RabbitMQ's (pages "Exchanges", "Queues"), with the exception of those that only a reviewed file can have: everything
//! referred to must be declared in it.

mod types;
mod vhost;

use std::{collections::HashMap, net::SocketAddr};

use super::{
    names::{Names, declared_here, nearest},
    schema::{ExpectDecl, Topology, UserDecl},
};
use crate::{
    access::{Pattern, TopicPermission},
    hooks::Scope,
};

pub use types::{Types, check_exchange_types, judge_exchanges};

/// One thing that is wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which declaration this is about.
    pub place: Place,
    /// Whether the topology can be used nevertheless.
    pub severity: Severity,
    /// What is wrong.
    pub cause: String,
    /// A way out.
    pub help: String,
    /// The declaration that this one contradicts.
    pub first: Option<Place>,
}

/// Whether a topology can be used although something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but it is probably not what was meant.
    Warning,
}

/// A declaration and a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which declaration.
    pub item: Item,
    /// Which part of it.
    pub part: Part,
}

/// A declaration, by its index in the lists of [`Topology`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// `listeners.amqp`
    Listener(usize),
    /// `plugins`
    Plugin(usize),
    /// `users`
    User(usize),
    /// User, entry of its `permissions`
    Permission(usize, usize),
    /// User, entry of its `topic_permissions`
    TopicPermission(usize, usize),
    /// `hooks`
    Hook(usize),
    /// `vhosts`
    Vhost(usize),
    /// Vhost, entry of its `policies` and `operator_policies` together
    Policy(usize, usize),
    /// Vhost, entry of its `exchanges`
    Exchange(usize, usize),
    /// Vhost, entry of its `queues`
    Queue(usize, usize),
    /// Vhost, entry of its `bindings`
    Binding(usize, usize),
    /// `tests`
    Test(usize),
}

/// A part of a declaration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The declaration as such; every item has this one.
    Whole,
    /// The type of an exchange.
    Kind,
    /// The source of a binding.
    Source,
    /// The destination of a binding.
    Destination,
    /// The routing key of a binding.
    RoutingKey,
    /// The vhost that a permission or hook is about.
    Vhost,
    /// The exchange that a hook is about.
    Exchange,
    /// The queue that a hook is about.
    Queue,
    /// The configure pattern of a permission.
    Configure,
    /// The write pattern of a permission.
    Write,
    /// The read pattern of a permission.
    Read,
    /// A tag of a user, by index.
    Tag(usize),
    /// The pattern of a policy.
    Pattern,
    /// What a policy says.
    Definition,
    /// An argument by its name.
    Argument(String),
    /// A queue that a test expects, by index.
    Expected(usize),
    /// The user of a test.
    User,
}

/// Names are short strings on the wire.
pub const NAME_BYTES_MAX: usize = 255;

/// The prefix that is reserved for the broker (AMQP 0-9-1, exchange.declare and queue.declare, rule "reserved").
pub const RESERVED_PREFIX: &str = "amq.";

/// Tags with a meaning (RabbitMQ: "Management Plugin", permissions). Others are allowed.
const USER_TAGS: &[&str] = &["administrator", "monitoring", "policymaker", "management", "impersonator"];

/// Checks everything but the types of exchanges, which are known only when the plugins are.
#[must_use]
pub fn check(topology: &Topology) -> Vec<Finding> {
    let mut findings = Findings::default();
    check_listeners(&topology.listeners.amqp, &mut findings);
    let mut vhosts = Names::default();
    for (index, vhost) in topology.vhosts.iter().enumerate() {
        findings.name("vhost", &vhost.name, Item::Vhost(index));
        findings.unique("vhost", &vhost.name, vhosts.add(&vhost.name, index).map_err(Item::Vhost), Item::Vhost(index));
        vhost::check(vhost, index, topology.bindings_mixed_durability, &mut findings);
    }
    check_users(&topology.users, &vhosts, &mut findings);
    check_hooks(topology, &vhosts, &mut findings);
    check_tests(topology, &vhosts, &mut findings);
    findings.0
}

fn check_listeners(addresses: &[SocketAddr], findings: &mut Findings) {
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    for (index, address) in addresses.iter().enumerate() {
        if let Some(first) = seen.get(address) {
            let cause = format!("listener {address} is declared twice");
            findings.repeated(Item::Listener(index), Item::Listener(*first), Severity::Error, cause);
        } else if address.port() != 0 {
            // Port 0 stands for any free port, another one each time.
            seen.insert(*address, index);
        }
    }
}

fn check_users(users: &[UserDecl], vhosts: &Names<'_>, findings: &mut Findings) {
    let mut names = Names::default();
    for (index, user) in users.iter().enumerate() {
        findings.name("user", &user.name, Item::User(index));
        findings.unique("user", &user.name, names.add(&user.name, index).map_err(Item::User), Item::User(index));
        check_tags(user, index, findings);
        let mut seen = Names::default();
        for (entry, permission) in user.permissions.iter().enumerate() {
            let item = Item::Permission(index, entry);
            if vhosts.get(&permission.vhost).is_none() {
                findings.undeclared_vhost(item.part(Part::Vhost), &permission.vhost, vhosts);
            }
            if let Err(first) = seen.add(&permission.vhost, entry) {
                let cause = format!("user '{}' has permissions for vhost '{}' twice", user.name, permission.vhost);
                findings.repeated(item, Item::Permission(index, first), Severity::Error, cause);
            }
            for (part, pattern) in [
                (Part::Configure, &permission.configure),
                (Part::Write, &permission.write),
                (Part::Read, &permission.read),
            ] {
                if let Err(error) = Pattern::new(pattern) {
                    findings.error(item.part(part), format!("not a regular expression: {error}"), DENIES);
                }
            }
        }
        check_topic_permissions(user, index, vhosts, findings);
    }
}

const DENIES: &str = "a pattern that is not valid would deny everything; mend or quote it";

fn check_topic_permissions(user: &UserDecl, index: usize, vhosts: &Names<'_>, findings: &mut Findings) {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    for (entry, permission) in user.topic_permissions.iter().enumerate() {
        let item = Item::TopicPermission(index, entry);
        if vhosts.get(&permission.vhost).is_none() {
            findings.undeclared_vhost(item.part(Part::Vhost), &permission.vhost, vhosts);
        }
        let key = (permission.vhost.as_str(), permission.exchange.as_str());
        if let Some(first) = seen.get(&key) {
            let cause = format!("user '{}' has topic permissions for exchange '{}' twice", user.name, key.1);
            findings.repeated(item, Item::TopicPermission(index, *first), Severity::Error, cause);
        }
        seen.entry(key).or_insert(entry);
        if let Err((pattern, error)) = TopicPermission::check(permission) {
            let part = if pattern == permission.write { Part::Write } else { Part::Read };
            findings.error(item.part(part), format!("not a regular expression: {error}"), DENIES);
        }
    }
}

fn check_tags(user: &UserDecl, index: usize, findings: &mut Findings) {
    for (at, tag) in user.tags.iter().enumerate() {
        if USER_TAGS.contains(&tag.as_str()) {
            continue;
        }
        if let Some(meant) = nearest(tag, USER_TAGS.iter().copied()) {
            let cause = format!("tag '{tag}' of user '{}' has no meaning", user.name);
            findings.warning(Item::User(index).part(Part::Tag(at)), cause, format!("did you mean '{meant}'?"));
        }
    }
}

fn check_hooks(topology: &Topology, vhosts: &Names<'_>, findings: &mut Findings) {
    let mut names = Names::default();
    for (index, hook) in topology.hooks.iter().enumerate() {
        let item = Item::Hook(index);
        findings.name("hook", &hook.name, item);
        findings.unique("hook", &hook.name, names.add(&hook.name, index).map_err(Item::Hook), item);
        let (vhost, exchange) = match &hook.scope {
            Scope::Broker => continue,
            Scope::Vhost(vhost) => (vhost, None),
            Scope::Exchange { vhost, exchange } => (vhost, Some(exchange)),
            Scope::Queue { vhost, queue } => {
                check_queue_of_hook(topology, vhosts, (vhost, queue), item, findings);
                continue;
            }
        };
        let declared = vhosts.get(vhost).and_then(|at| topology.vhosts.get(at));
        if let (Some(declared), Some(target)) = (declared, &hook.dead_letter_exchange)
            && !vhost::has_exchange(declared, target)
        {
            let cause = format!("exchange '{target}' is not declared in vhost '{vhost}'");
            let names = declared.exchanges.iter().map(|exchange| exchange.name.as_str());
            findings.error(item.part(Part::Whole), cause, declared_here(target, names));
        }
        match (declared, exchange) {
            (None, _) => findings.undeclared_vhost(item.part(Part::Vhost), vhost, vhosts),
            (Some(declared), Some(exchange)) if !vhost::has_exchange(declared, exchange) && !exchange.is_empty() => {
                let cause = format!("exchange '{exchange}' is not declared in vhost '{vhost}'");
                let names = declared.exchanges.iter().map(|exchange| exchange.name.as_str());
                let names = names.filter(|name| !name.starts_with(RESERVED_PREFIX));
                findings.error(item.part(Part::Exchange), cause, declared_here(exchange, names));
            }
            (Some(_), _) => {}
        }
    }
}

/// What tests name must be in the file, or a slip would pass as "reaches no queue".
fn check_tests(topology: &Topology, vhosts: &Names<'_>, findings: &mut Findings) {
    for (index, test) in topology.tests.iter().enumerate() {
        let item = Item::Test(index);
        if let Some(user) = &test.user
            && topology.users.iter().all(|known| known.name != *user)
        {
            let names = topology.users.iter().map(|user| user.name.as_str());
            findings.error(item.part(Part::User), format!("user '{user}' is not declared"), declared_here(user, names));
        }
        let Some(vhost) = vhosts.get(&test.vhost).and_then(|at| topology.vhosts.get(at)) else {
            findings.undeclared_vhost(item.part(Part::Vhost), &test.vhost, vhosts);
            continue;
        };
        if !test.exchange.is_empty() && !vhost::has_exchange(vhost, &test.exchange) {
            let cause = format!("exchange '{}' is not declared in vhost '{}'", test.exchange, test.vhost);
            let names = vhost.exchanges.iter().map(|exchange| exchange.name.as_str());
            findings.error(item.part(Part::Exchange), cause, declared_here(&test.exchange, names));
        }
        let ExpectDecl::Queues(queues) = &test.expect else { continue };
        for (at, queue) in queues.iter().enumerate() {
            if vhost.queues.iter().all(|known| known.name != *queue) {
                let cause = format!("queue '{queue}' is not declared in vhost '{}'", test.vhost);
                let names = vhost.queues.iter().map(|queue| queue.name.as_str());
                findings.error(item.part(Part::Expected(at)), cause, declared_here(queue, names));
            }
        }
    }
}

fn check_queue_of_hook(
    topology: &Topology,
    vhosts: &Names<'_>,
    (vhost, queue): (&str, &str),
    item: Item,
    findings: &mut Findings,
) {
    let Some(declared) = vhosts.get(vhost).and_then(|at| topology.vhosts.get(at)) else {
        return findings.undeclared_vhost(item.part(Part::Vhost), vhost, vhosts);
    };
    if !declared.queues.iter().any(|declared| declared.name == queue) {
        let cause = format!("queue '{queue}' is not declared in vhost '{vhost}'");
        let names = declared.queues.iter().map(|queue| queue.name.as_str());
        findings.error(item.part(Part::Queue), cause, declared_here(queue, names));
    }
}

/// Collects findings; the methods keep the wording of like cases alike.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, place: Place, cause: impl Into<String>, help: impl Into<String>) {
        self.add(place, Severity::Error, cause, help);
    }

    fn warning(&mut self, place: Place, cause: impl Into<String>, help: impl Into<String>) {
        self.add(place, Severity::Warning, cause, help);
    }

    fn add(&mut self, place: Place, severity: Severity, cause: impl Into<String>, help: impl Into<String>) {
        self.0.push(Finding { place, severity, cause: cause.into(), help: help.into(), first: None });
    }

    fn repeated(&mut self, item: Item, first: Item, severity: Severity, cause: String) {
        let help = "keep one of them".to_owned();
        let first = Some(first.part(Part::Whole));
        self.0.push(Finding { place: item.part(Part::Whole), severity, cause, help, first });
    }

    fn name(&mut self, what: &str, name: &str, item: Item) {
        if name.is_empty() {
            self.error(item.part(Part::Whole), format!("a {what} needs a name"), "the name is empty");
        }
        self.length(what, name, item.part(Part::Whole));
    }

    fn length(&mut self, what: &str, text: &str, place: Place) {
        if text.len() > NAME_BYTES_MAX {
            let cause = format!("{what} name is longer than {NAME_BYTES_MAX} bytes");
            self.error(place, cause, format!("this one has {}", text.len()));
        }
    }

    fn unique(&mut self, what: &str, name: &str, added: Result<(), Item>, item: Item) {
        if let Err(first) = added {
            self.repeated(item, first, Severity::Error, format!("{what} '{name}' is declared twice"));
        }
    }

    fn undeclared_vhost(&mut self, place: Place, vhost: &str, vhosts: &Names<'_>) {
        let cause = format!("vhost '{vhost}' is not declared");
        self.error(place, cause, declared_here(vhost, vhosts.in_order()));
    }
}

impl Item {
    /// A part of this declaration.
    #[must_use]
    pub fn part(self, part: Part) -> Place {
        Place { item: self, part }
    }
}

#[cfg(test)]
mod tests;
