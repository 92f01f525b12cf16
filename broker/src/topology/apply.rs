//! Bringing a vhost to what a topology file declares: through the same entry as clients, so that the same rules hold.

use std::sync::Arc;

use plugin_api::exchange::{BindingSpec, ExchangeSpec};

use super::schema::{ParameterDecl, Topology, VhostDecl};
use crate::origin::Origin;
use crate::vhost::authority::Operator;
use crate::vhost::declare::QueueSpec;
use crate::vhost::registry::Vhosts;
use crate::vhost::settings::InvalidSetting;
use crate::vhost::{Changed, Error, Vhost};

/// A declaration that could not be carried out.
#[derive(Debug, thiserror::Error)]
#[error("{what} in vhost '{vhost}': {error}")]
pub struct ApplyError {
    /// Such as `queue 'orders'`.
    pub what: String,
    /// Where.
    pub vhost: String,
    /// Why.
    pub error: Error,
}

/// Sets what the file says of the vhost itself: policies, limits, description. It wins over what was set while the broker ran. To be called before
/// [`apply`], so that queues get their policies when they are made.
///
/// # Errors
/// All that went wrong.
pub fn apply_settings(vhost: &Arc<Vhost>, decl: &VhostDecl) -> Result<(), Vec<ApplyError>> {
    let mut errors = Vec::new();
    let mut note = |what: String, result: Result<Changed, String>| {
        if let Err(error) = result {
            errors.push(ApplyError { what, vhost: vhost.name.to_string(), error: Error::Argument(error) });
        }
    };
    if let Some(metadata) = &decl.metadata {
        let result = vhost.put_metadata(metadata.clone(), Origin::Topology);
        note("description".into(), result.map_err(|error| error.to_string()));
    }
    if let Some(limits) = decl.limits {
        note("limits".into(), vhost.put_limits(limits, Origin::Topology).map_err(|error| error.to_string()));
    }
    for (kind, spec) in &decl.policies {
        let result = vhost.put_policy(*kind, spec.clone(), Origin::Topology);
        note(format!("{kind} '{}'", spec.name), result.map_err(|error| error.to_string()));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Sets the parameters that the file declares. They are kept as if somebody had set them, so they stay when they leave the file; as long as they are in it,
/// it wins at each start.
///
/// # Errors
/// All that went wrong.
pub fn apply_parameters(topology: &Topology, vhosts: &Vhosts) -> Result<(), Vec<ApplyError>> {
    let mut errors = Vec::new();
    let mut failed = |what: String, vhost: &str, error: InvalidSetting| {
        errors.push(ApplyError { what, vhost: vhost.to_owned(), error: Error::Argument(error.to_string()) });
    };
    let there = vhosts.global_parameters();
    for (name, value) in topology.parameters.iter().filter(|(name, value)| there.get(name) != Some(value)) {
        if let Err(error) = vhosts.put_global_parameter(name, value.clone()) {
            failed(format!("global parameter '{name}'"), "", error);
        }
    }
    for decl in &topology.vhosts {
        let Some(vhost) = vhosts.get(&decl.name) else { continue };
        for ParameterDecl { component, name, value } in &decl.parameters {
            if let Err(error) = vhost.put_parameter(component, name, value.clone()) {
                failed(format!("parameter '{name}' of component '{component}'"), &decl.name, error);
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Declares everything that is missing. What is there and differs is an error, never changed; everything else is still declared.
///
/// # Errors
/// All that went wrong.
pub fn apply(vhost: &Arc<Vhost>, decl: &VhostDecl) -> Result<(), Vec<ApplyError>> {
    if decl.is_traced {
        vhost.set_tracing(true);
    }
    let mut errors = Vec::new();
    let mut note = |what: String, result: Result<(), Error>| {
        if let Err(error) = result {
            errors.push(ApplyError { what, vhost: vhost.name.to_string(), error });
        }
    };
    for exchange in &decl.exchanges {
        let spec = ExchangeSpec {
            vhost: vhost.name.to_string(),
            name: exchange.name.clone(),
            kind: exchange.kind.clone(),
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: exchange.arguments.clone(),
        };
        note(format!("exchange '{}'", exchange.name), vhost.declare_exchange(&mut Operator, spec).map(drop));
    }
    for queue in &decl.queues {
        let spec = QueueSpec {
            name: queue.name.clone(),
            durable: queue.durable,
            exclusive: false,
            auto_delete: queue.auto_delete,
            arguments: queue.arguments.clone(),
        };
        note(format!("queue '{}'", queue.name), vhost.declare_queue(&mut Operator, spec, String::new).map(drop));
    }
    for binding in &decl.bindings {
        let spec = BindingSpec {
            destination: binding.destination.clone(),
            destination_kind: binding.destination_kind,
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.clone(),
        };
        let what = format!("binding '{}' -> '{}'", binding.source, binding.destination);
        note(what, vhost.bind(&mut Operator, &binding.source, &spec).map(drop));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
