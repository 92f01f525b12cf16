//! Checks of one vhost: names, arguments, and that bindings lead from somewhere to somewhere.

use std::collections::HashMap;

use plugin_api::{
    exchange::DestinationKind,
    value::{Table, Value},
};

use super::{Findings, Item, NAME_BYTES_MAX, Part, RESERVED_PREFIX, Severity};
use crate::origin::Origin;
use crate::topology::{
    names::{Names, declared_here, nearest},
    schema::{BindingDecl, ExchangeDecl, MixedDurability, QueueDecl, VhostDecl},
};
use crate::vhost::broker_exchanges::{EVENT_EXCHANGE, LOG_EXCHANGE};
use crate::vhost::policy::QueueType;
use crate::vhost::policy::keys::KEYS;
use crate::vhost::policy::{Policy, PolicyKind};
use crate::vhost::queue_arguments::{DURABILITY, QUEUE_ARGUMENTS, QUEUE_TYPE, wrong_arguments};
use crate::vhost::quorum::wrong_property;

/// What `x-match` of a binding to a headers exchange may say.
const X_MATCH: &[&str] = &["all", "any", "all-with-x", "any-with-x"];

const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// Whether a vhost has an exchange of this name, predeclared ones included.
pub(super) fn has_exchange(vhost: &VhostDecl, name: &str) -> bool {
    predeclared(vhost, name).is_some() || vhost.exchanges.iter().any(|exchange| exchange.name == name)
}

pub(super) fn check(vhost: &VhostDecl, at: usize, mixed: MixedDurability, findings: &mut Findings) {
    let mut known = Known { vhost, at, mixed, exchanges: Names::default(), queues: Names::default() };
    if let Some(Err(error)) = vhost.metadata.as_ref().map(|metadata| metadata.check()) {
        findings.error(Item::Vhost(at).part(Part::Whole), error.to_string(), "make it shorter");
    }
    policies(vhost, at, findings);
    for (index, exchange) in vhost.exchanges.iter().enumerate() {
        let item = Item::Exchange(at, index);
        let added = known.exchanges.add(&exchange.name, index).map_err(|first| Item::Exchange(at, first));
        findings.unique("exchange", &exchange.name, added, item);
        known.exchange_name(&exchange.name, item, findings);
        argument_names(&exchange.arguments, item, findings);
    }
    for (index, queue) in vhost.queues.iter().enumerate() {
        let item = Item::Queue(at, index);
        let added = known.queues.add(&queue.name, index).map_err(|first| Item::Queue(at, first));
        findings.unique("queue", &queue.name, added, item);
        known.queue_name(&queue.name, item, findings);
        argument_names(&queue.arguments, item, findings);
        queue_arguments(queue, item, findings);
    }
    for (index, exchange) in vhost.exchanges.iter().enumerate() {
        known.alternate_exchange(exchange, Item::Exchange(at, index), findings);
    }
    known.bindings(findings);
}

struct Known<'a> {
    vhost: &'a VhostDecl,
    at: usize,
    mixed: MixedDurability,
    exchanges: Names<'a>,
    queues: Names<'a>,
}

impl<'a> Known<'a> {
    fn exchange_name(&self, name: &str, item: Item, findings: &mut Findings) {
        let place = item.part(Part::Whole);
        if name.is_empty() {
            let cause = "the default exchange '' is always there and cannot be declared";
            findings.error(place, cause, "leave it out; it reaches every queue by its name");
        } else if predeclared(self.vhost, name).is_some() {
            let cause = format!("exchange '{name}' is predeclared in every vhost");
            findings.error(place, cause, "leave it out; bindings may use it as it is");
        } else if let Some((_, key)) = SWITCHED.iter().find(|(known, _)| *known == name) {
            let cause = format!("exchange '{name}' is the broker's own");
            findings.error(place, cause, format!("leave it out, and say '{key}: true' in the vhost"));
        } else if name.starts_with(RESERVED_PREFIX) {
            let cause = format!("exchange name '{name}' contains reserved prefix 'amq.*'");
            findings.error(place, cause, "choose a name that does not begin with 'amq.'");
        }
        findings.length("exchange", name, item.part(Part::Whole));
    }

    fn queue_name(&self, name: &str, item: Item, findings: &mut Findings) {
        if name.starts_with(RESERVED_PREFIX) {
            let cause = format!("queue name '{name}' contains reserved prefix 'amq.*'");
            findings.error(item.part(Part::Whole), cause, "choose a name that does not begin with 'amq.'");
        }
        findings.name("queue", name, item);
    }

    fn alternate_exchange(&self, exchange: &ExchangeDecl, item: Item, findings: &mut Findings) {
        let place = item.part(Part::Argument(ALTERNATE_EXCHANGE.to_owned()));
        match exchange.arguments.get(ALTERNATE_EXCHANGE) {
            None => {}
            Some(Value::LongString(target)) => {
                let target = String::from_utf8_lossy(target);
                if self.exchange(&target).is_none() {
                    let cause = format!("alternate exchange '{target}' is not declared in vhost '{}'", self.vhost.name);
                    findings.warning(place, cause, declared_here(&target, self.exchanges.in_order()));
                }
            }
            Some(other) => {
                let cause = format!("invalid type '{}' for arg '{ALTERNATE_EXCHANGE}'", other.type_name());
                findings.error(place, cause, "give the name of an exchange as text");
            }
        }
    }

    fn bindings(&self, findings: &mut Findings) {
        let mut seen: HashMap<(&str, &str, bool, &str), Vec<usize>> = HashMap::new();
        for (index, binding) in self.vhost.bindings.iter().enumerate() {
            let item = Item::Binding(self.at, index);
            self.binding(binding, item, findings);
            let to_queue = binding.destination_kind == DestinationKind::Queue;
            let key = (binding.source.as_str(), binding.destination.as_str(), to_queue, binding.routing_key.as_str());
            let alike = seen.entry(key).or_default();
            let is_same = |first: &&usize| {
                self.vhost.bindings.get(**first).is_some_and(|first| first.arguments.equivalent(&binding.arguments))
            };
            match alike.iter().find(is_same) {
                Some(first) => {
                    let cause = format!(
                        "this binding from '{}' to '{}' is declared twice",
                        binding.source, binding.destination
                    );
                    findings.repeated(item, Item::Binding(self.at, *first), Severity::Warning, cause);
                }
                None => alike.push(index),
            }
        }
    }

    fn binding(&self, binding: &BindingDecl, item: Item, findings: &mut Findings) {
        let source = self.source(binding, item, findings);
        let destination = self.destination(binding, item, findings);
        if binding.routing_key.len() > NAME_BYTES_MAX {
            let cause = format!("routing key is longer than {NAME_BYTES_MAX} bytes");
            let help = format!("this one has {}", binding.routing_key.len());
            findings.error(item.part(Part::RoutingKey), cause, help);
        }
        argument_names(&binding.arguments, item, findings);
        if source.as_ref().is_some_and(|source| source.kind == "headers") {
            headers_arguments(binding, item, findings);
        }
        if let (Some(source), Some(destination_is_durable)) = (source, destination) {
            self.durability(binding, source.is_durable, destination_is_durable, item, findings);
        }
    }

    fn source(&self, binding: &BindingDecl, item: Item, findings: &mut Findings) -> Option<Source<'a>> {
        if binding.source.is_empty() {
            let cause = "nothing can be bound to the default exchange";
            findings.error(item.part(Part::Source), cause, "it reaches every queue by its name, without a binding");
            return None;
        }
        let source = self.exchange(&binding.source);
        if source.is_none() {
            self.undeclared("exchange", &binding.source, item, Part::Source, findings);
        }
        source
    }

    /// Whether the destination is durable; `None` when there is none.
    fn destination(&self, binding: &BindingDecl, item: Item, findings: &mut Findings) -> Option<bool> {
        let name = binding.destination.as_str();
        let (what, is_durable) = match binding.destination_kind {
            DestinationKind::Queue => {
                ("queue", self.queues.get(name).and_then(|at| self.vhost.queues.get(at)).map(|queue| queue.durable))
            }
            DestinationKind::Exchange => ("exchange", self.exchange(name).map(|exchange| exchange.is_durable)),
        };
        if is_durable.is_none() {
            self.undeclared(what, name, item, Part::Destination, findings);
        }
        is_durable
    }

    fn undeclared(&self, what: &str, name: &str, item: Item, part: Part, findings: &mut Findings) {
        let cause = format!("{what} '{name}' is not declared in vhost '{}'", self.vhost.name);
        let help = if what == "queue" && self.exchange(name).is_some() {
            format!("it is an exchange: write 'exchange:{name}'")
        } else if what == "exchange" && self.queues.get(name).is_some() {
            "it is a queue, not an exchange".to_owned()
        } else if what == "queue" {
            declared_here(name, self.queues.in_order())
        } else {
            declared_here(name, self.exchanges.in_order())
        };
        findings.error(item.part(part), cause, help);
    }

    /// RabbitMQ allows it; the binding is gone after a restart unless both ends survive it.
    fn durability(&self, binding: &BindingDecl, source: bool, destination: bool, item: Item, findings: &mut Findings) {
        if source == destination {
            return;
        }
        let (durable, transient) = match (source, binding.destination_kind) {
            (true, DestinationKind::Queue) => ("exchange", "queue"),
            (false, DestinationKind::Queue) => ("queue", "exchange"),
            (_, DestinationKind::Exchange) => ("exchange", "exchange"),
        };
        let (durable_name, transient_name) =
            if source { (&binding.source, &binding.destination) } else { (&binding.destination, &binding.source) };
        let cause = format!("{durable} '{durable_name}' is durable but {transient} '{transient_name}' is not");
        let place = item.part(Part::Whole);
        match self.mixed {
            MixedDurability::Warn => findings.warning(place, cause, "the binding is gone after a restart"),
            MixedDurability::Refuse => findings.error(place, cause, "refused by bindings.mixed_durability"),
        }
    }

    fn exchange(&self, name: &str) -> Option<Source<'a>> {
        if let Some(kind) = predeclared(self.vhost, name) {
            return Some(Source { kind, is_durable: true });
        }
        let exchange = self.exchanges.get(name).and_then(|at| self.vhost.exchanges.get(at))?;
        Some(Source { kind: &exchange.kind, is_durable: exchange.durable })
    }
}

struct Source<'a> {
    kind: &'a str,
    is_durable: bool,
}

/// Exchanges that are there when the vhost says so, with the key that does.
const SWITCHED: [(&str, &str); 2] = [(EVENT_EXCHANGE, "event_exchange"), (LOG_EXCHANGE, "log_exchange")];

fn predeclared(vhost: &VhostDecl, name: &str) -> Option<&'static str> {
    vhost.own_exchanges().find(|(known, ..)| *known == name && !name.is_empty()).map(|(_, kind, _)| kind)
}

/// Judged as when somebody sets them while the broker runs.
fn policies(vhost: &VhostDecl, at: usize, findings: &mut Findings) {
    let mut seen: HashMap<(PolicyKind, &str), usize> = HashMap::new();
    for (index, (kind, spec)) in vhost.policies.iter().enumerate() {
        let item = Item::Policy(at, index);
        if let Some(first) = seen.get(&(*kind, spec.name.as_str())) {
            let cause = format!("{kind} '{}' is declared twice", spec.name);
            findings.repeated(item, Item::Policy(at, *first), Severity::Error, cause);
        }
        seen.entry((*kind, spec.name.as_str())).or_insert(index);
        let policy = match Policy::new(*kind, spec.clone(), Origin::Topology) {
            Ok(policy) => policy,
            Err(error) => {
                let (place, help) = match (&error.key, error.part) {
                    (Some(key), _) => (item.part(Part::Argument(key.clone())), policy_key_help(*kind, key)),
                    (None, "pattern") => (item.part(Part::Pattern), "mend or quote it".to_owned()),
                    (None, "definition") => (item.part(Part::Definition), "give at least one key".to_owned()),
                    (None, _) => (item.part(Part::Whole), "choose another name".to_owned()),
                };
                findings.error(place, format!("{kind} '{}': {}", spec.name, error.reason), help);
                continue;
            }
        };
        for key in policy.keys_without_effect() {
            let cause = format!("'{key}' of {kind} '{}' has no effect here", spec.name);
            let help = "it is known to take over definitions of a RabbitMQ; leave it out";
            findings.warning(item.part(Part::Argument(key.to_owned())), cause, help);
        }
    }
}

fn policy_key_help(kind: PolicyKind, key: &str) -> String {
    let for_kind = || KEYS.iter().filter(|key| kind == PolicyKind::User || key.for_operators).map(|key| key.name);
    if for_kind().any(|known| known == key) {
        return "give whole numbers without a unit (times in milliseconds), and names as text".to_owned();
    }
    match nearest(key, for_kind()) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => format!("known keys: {}", for_kind().collect::<Vec<_>>().join(", ")),
    }
}

fn argument_names(arguments: &Table, item: Item, findings: &mut Findings) {
    for (name, _) in arguments.iter() {
        if name.is_empty() {
            let place = item.part(Part::Argument(String::new()));
            findings.error(place, "an argument needs a name", "the name is empty");
        }
    }
}

fn queue_arguments(queue: &QueueDecl, item: Item, findings: &mut Findings) {
    let wrong: Vec<_> = wrong_arguments(&queue.arguments).collect();
    if QueueType::of(&queue.arguments) == QueueType::Quorum
        && let Some(property) = wrong_property(queue.durable, queue.auto_delete, false)
    {
        let cause = format!("quorum queue '{}' cannot be {property}", queue.name);
        findings.error(item.part(Part::Argument(QUEUE_TYPE.to_owned())), cause, "leave one of the two out");
    }
    for (name, value) in queue.arguments.iter() {
        let name = String::from_utf8_lossy(name);
        let place = item.part(Part::Argument(name.clone().into_owned()));
        if let Some((_, error)) = wrong.iter().find(|(wrong, _)| *wrong == name) {
            let cause = format!("queue argument '{name}' {error}");
            findings.error(place, cause, format!("mend or remove it in queue '{}'", queue.name));
            continue;
        }
        if name == DURABILITY && !queue.durable {
            let value = value.as_str().unwrap_or_default();
            let cause = format!("queue '{}' is not durable, so its durability '{value}' has no effect", queue.name);
            findings.warning(place, cause, "leave it out, or make the queue durable");
            continue;
        }
        let known = || QUEUE_ARGUMENTS.iter().map(|known| known.name);
        if name.starts_with("x-")
            && !known().any(|known| known == name)
            && let Some(meant) = nearest(&name, known())
        {
            findings.warning(
                place,
                format!("queue argument '{name}' has no meaning"),
                format!("did you mean '{meant}'?"),
            );
        }
    }
}

fn headers_arguments(binding: &BindingDecl, item: Item, findings: &mut Findings) {
    let Some(value) = binding.arguments.get("x-match") else { return };
    if value.as_str().is_some_and(|value| X_MATCH.contains(&value)) {
        return;
    }
    let shown = value.as_str().map_or_else(|| format!("of type {}", value.type_name()), |text| format!("'{text}'"));
    let place = item.part(Part::Argument("x-match".to_owned()));
    findings.error(place, format!("invalid x-match {shown}"), format!("one of {}", X_MATCH.join(", ")));
}
