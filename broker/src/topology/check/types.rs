//! What depends on exchange types: that they exist, and what they say to the exchanges and bindings of a topology.

use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};
use plugin_api::value::Table;

use super::{Finding, Findings, Item, Part, Place};
use crate::plugin_host::{Registry, TypeError};
use crate::topology::names::nearest;
use crate::topology::schema::{BindingDecl, ExchangeDecl, Topology, VhostDecl};
use crate::vhost::policy::QueueType;
use crate::vhost::quorum::check_taken;

/// Which exchange types a registry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    /// All that there will be.
    All,
    /// Plugins that are not loaded may bring others.
    Some,
}

/// Checks that every exchange has a type that exists.
#[must_use]
pub fn check_exchange_types<S: AsRef<str>>(topology: &Topology, known: &[S]) -> Vec<Finding> {
    let mut findings = Findings::default();
    for (at, vhost) in topology.vhosts.iter().enumerate() {
        for (index, exchange) in vhost.exchanges.iter().enumerate() {
            if known.iter().any(|known| known.as_ref() == exchange.kind) {
                continue;
            }
            let place = Item::Exchange(at, index).part(Part::Kind);
            let cause = format!("unknown exchange type '{}'", exchange.kind);
            findings.error(place, cause, known_types(&exchange.kind, known));
        }
    }
    findings.0
}

fn known_types<S: AsRef<str>>(kind: &str, known: &[S]) -> String {
    match nearest(kind, known.iter().map(AsRef::as_ref)) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => {
            let names: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
            format!("known: {}; other types come with plugins", names.join(", "))
        }
    }
}

/// Asks the types of `registry` about every exchange and binding that is theirs; what is of another type is left alone.
#[must_use]
pub fn judge_exchanges(topology: &Topology, registry: &Registry, types: Types) -> Vec<Finding> {
    let mut findings = Findings::default();
    for (at, vhost) in topology.vhosts.iter().enumerate() {
        let judge = Judge { vhost, registry, types };
        for (index, exchange) in vhost.exchanges.iter().enumerate() {
            if let Err(reason) = judge.exchange(&judge.spec_of(exchange)) {
                let place = place_of(Item::Exchange(at, index), Part::Kind, &exchange.arguments, &reason);
                findings.error(place, reason, refused_by(&exchange.kind));
            }
        }
        for (index, binding) in vhost.bindings.iter().enumerate() {
            let Some(source) = judge.source(&binding.source) else { continue };
            if let Err(reason) = judge.binding(&source, binding) {
                let place = place_of(Item::Binding(at, index), Part::RoutingKey, &binding.arguments, &reason);
                findings.error(place, reason, refused_by(&source.kind));
            }
        }
    }
    findings.0
}

struct Judge<'a> {
    vhost: &'a VhostDecl,
    registry: &'a Registry,
    types: Types,
}

impl Judge<'_> {
    fn exchange(&self, spec: &ExchangeSpec) -> Result<(), String> {
        let Some(outer) = self.registry.exchange_type(&spec.kind) else { return Ok(()) };
        outer.validate(spec).map_err(text)?;
        match self.registry.exchange_types(spec) {
            Ok(Some(types)) => types.validate_inner(spec).map_err(text),
            // The type that it stands before may come with a plugin.
            Err(TypeError::Refused(_)) if self.types == Types::Some => Ok(()),
            Err(error) => Err(text(error)),
            Ok(None) => Ok(()),
        }
    }

    fn binding(&self, source: &ExchangeSpec, binding: &BindingDecl) -> Result<(), String> {
        // A source that is refused itself has its finding already.
        let Ok(Some(types)) = self.registry.exchange_types(source) else { return Ok(()) };
        let spec = BindingSpec {
            destination: binding.destination.clone(),
            destination_kind: binding.destination_kind,
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.clone(),
        };
        types.validate_binding(source, &spec).map_err(text)?;
        let queues = self.vhost.queues.iter().filter(|_| binding.destination_kind == DestinationKind::Queue);
        let queue = queues.into_iter().find(|queue| queue.name == binding.destination);
        queue.map_or(Ok(()), |queue| check_taken(types.takes(), QueueType::of(&queue.arguments)).map_err(text))
    }

    fn source(&self, name: &str) -> Option<ExchangeSpec> {
        let predeclared = || {
            let (_, kind, is_internal) = self.vhost.own_exchanges().find(|(known, ..)| *known == name)?;
            Some(ExchangeSpec {
                vhost: self.vhost.name.clone(),
                name: name.to_owned(),
                kind: kind.to_owned(),
                durable: true,
                internal: is_internal,
                ..ExchangeSpec::default()
            })
        };
        let declared = self.vhost.exchanges.iter().find(|exchange| exchange.name == name);
        declared.map(|exchange| self.spec_of(exchange)).or_else(predeclared)
    }

    fn spec_of(&self, exchange: &ExchangeDecl) -> ExchangeSpec {
        ExchangeSpec {
            vhost: self.vhost.name.clone(),
            name: exchange.name.clone(),
            kind: exchange.kind.clone(),
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: exchange.arguments.clone(),
        }
    }
}

fn text(error: TypeError) -> String {
    match error {
        TypeError::Refused(reason) | TypeError::Faulted(reason) => reason,
    }
}

/// A reason names the argument that it is about, if it is about one.
fn place_of(item: Item, otherwise: Part, arguments: &Table, reason: &str) -> Place {
    let named = arguments.iter().map(|(name, _)| String::from_utf8_lossy(name)).find(|name| reason.contains(&**name));
    item.part(named.map_or(otherwise, |name| Part::Argument(name.into_owned())))
}

fn refused_by(kind: &str) -> String {
    format!("exchange type '{kind}' refuses it")
}
