//! Hooks that see declarations. They are asked when the user may declare, before anything is looked up, and with no lock held.

use super::Vhost;
use super::authority::Authority;
use super::declare::QueueSpec;
use super::error::{Error, Kind};
use super::queue_arguments::QUEUE_TYPE;
use crate::hooks::{DeclaredKind, Declaring, Point, Site};
use plugin_api::exchange::ExchangeSpec;

impl Vhost {
    pub(super) fn ask_hooks_of_exchange(&self, by: &dyn Authority, spec: &ExchangeSpec) -> Result<(), Error> {
        self.ask_hooks(
            Kind::Exchange,
            by,
            || Declaring {
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
            },
            &spec.name,
        )
    }

    pub(super) fn ask_hooks_of_queue(&self, by: &dyn Authority, spec: &QueueSpec) -> Result<(), Error> {
        self.ask_hooks(
            Kind::Queue,
            by,
            || Declaring {
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
            },
            &spec.name,
        )
    }

    fn ask_hooks<'a>(
        &self,
        kind: Kind,
        by: &dyn Authority,
        declaring: impl FnOnce() -> Declaring<'a>,
        name: &str,
    ) -> Result<(), Error> {
        if by.is_operator() {
            return Ok(());
        }
        let site = match kind {
            Kind::Exchange => Site::Exchange(name),
            Kind::Queue => Site::Queue(name),
        };
        let Some(hooks) = self.hooks.chain_at(Point::Declare, &self.name, site) else { return Ok(()) };
        hooks.on_declare(&declaring()).map_err(|refusal| Error::HookRefused {
            kind,
            name: name.into(),
            vhost: self.name.to_string(),
            hook: refusal.hook,
            reason: refusal.reason,
        })
    }
}
