//! Hooks that see declarations. They are asked when the user may declare, before anything is looked up, and with no lock held.

use super::Vhost;
use super::authority::Authority;
use super::declare::QueueSpec;
use super::error::Error;
use super::queue_arguments::QUEUE_TYPE;
use crate::hooks::{Binding, DeclaredKind, Declaring, Point, Site};
use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};

impl Vhost {
    pub(super) fn ask_hooks_of_exchange(&self, by: &dyn Authority, spec: &ExchangeSpec) -> Result<(), Error> {
        self.ask_hooks(by, Site::Exchange(&spec.name), || Declaring {
            vhost: &self.name,
            user: by.user(),
            kind: DeclaredKind::Exchange,
            name: &spec.name,
            type_name: &spec.kind,
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            exclusive: false,
            internal: spec.internal,
            arguments: &spec.arguments,
            binding: None,
        })
    }

    pub(super) fn ask_hooks_of_queue(&self, by: &dyn Authority, spec: &QueueSpec) -> Result<(), Error> {
        self.ask_hooks(by, Site::Queue(&spec.name), || Declaring {
            vhost: &self.name,
            user: by.user(),
            kind: DeclaredKind::Queue,
            name: &spec.name,
            type_name: spec.arguments.get(QUEUE_TYPE).and_then(|kind| kind.as_str()).unwrap_or("classic"),
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            exclusive: spec.exclusive,
            internal: false,
            arguments: &spec.arguments,
            binding: None,
        })
    }

    /// The hooks of the exchange that messages come from.
    pub(super) fn ask_hooks_of_binding(
        &self,
        by: &dyn Authority,
        source: &str,
        spec: &BindingSpec,
    ) -> Result<(), Error> {
        let destination_type = match spec.destination_kind {
            DestinationKind::Queue => "queue",
            DestinationKind::Exchange => "exchange",
        };
        self.ask_hooks(by, Site::Exchange(source), || Declaring {
            vhost: &self.name,
            user: by.user(),
            kind: DeclaredKind::Binding,
            name: &spec.destination,
            type_name: "",
            durable: false,
            auto_delete: false,
            exclusive: false,
            internal: false,
            arguments: &spec.arguments,
            binding: Some(Binding { source, destination_type, routing_key: &spec.routing_key }),
        })
    }

    fn ask_hooks<'a>(
        &self,
        by: &dyn Authority,
        site: Site<'_>,
        declaring: impl FnOnce() -> Declaring<'a>,
    ) -> Result<(), Error> {
        if by.is_operator() {
            return Ok(());
        }
        let Some(hooks) = self.hooks.chain_at(Point::Declare, &self.name, site) else { return Ok(()) };
        let declaring = declaring();
        hooks.on_declare(&declaring).map_err(|refusal| Error::HookRefused {
            kind: declaring.kind.name(),
            name: match &declaring.binding {
                Some(binding) => format!("{} -> {}", binding.source, declaring.name),
                None => declaring.name.to_owned(),
            },
            vhost: self.name.to_string(),
            hook: refusal.hook,
            reason: refusal.reason,
        })
    }
}
