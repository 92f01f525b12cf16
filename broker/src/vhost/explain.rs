//! Asking where a message would go, without sending it.

use std::sync::Arc;

use super::Vhost;
use super::authority::Authority;
use super::declare::TOPIC;
use super::error::{Error, Kind};
use crate::access::{Permission, Resource};
use crate::message::Message;
use crate::plugin_host::TypeError;
use crate::routing::explain::{Asking, Explanation, explain};
use crate::routing::{self, Exchange, Route};

impl Vhost {
    /// The exchange of that name, if `by` may publish to it with these keys (semantics 12.1).
    ///
    /// # Errors
    /// As of a publish.
    pub fn publishable_exchange(
        &self,
        by: &mut dyn Authority,
        name: &str,
        keys: &[&str],
    ) -> Result<Arc<Exchange>, Error> {
        let (vhost, user) = (self.name.to_string(), by.user().to_owned());
        let permission_name = if name.is_empty() { "amq.default" } else { name };
        if !by.permits(Permission::Write, Resource::Exchange, permission_name) {
            let (permission, kind, name) = (Permission::Write, Kind::Exchange, permission_name.to_owned());
            return Err(Error::Refused { permission, kind, name, vhost, user });
        }
        let missing = || Error::NotFound { kind: Kind::Exchange, name: name.to_owned(), vhost: vhost.clone() };
        let exchange = self.exchange(name).ok_or_else(missing)?;
        if exchange.spec.internal {
            return Err(Error::InternalExchange { name: name.to_owned(), vhost });
        }
        if exchange.spec.kind == TOPIC
            && let Some(topics) = by.topic_permission(name)
            && let Some(key) = keys.iter().find(|key| !topics.permits(Permission::Write, key))
        {
            return Err(self.topic_refused(by, Permission::Write, &exchange, key));
        }
        Ok(exchange)
    }

    /// Finds the way of a message from an exchange on, as every publish does that is not remembered.
    ///
    /// # Errors
    /// As of [`routing::route`].
    pub fn route(
        &self,
        start: &Arc<Exchange>,
        message: &Message,
        keys: &[&str],
    ) -> Result<Route, (Arc<str>, TypeError)> {
        routing::route(&*self.tables.read(), start, &message.view(), keys)
    }

    /// Tells the way of a message from an exchange on.
    pub fn explain(&self, start: &Arc<Exchange>, message: &Message, keys: &[&str], asking: Asking) -> Explanation {
        explain(&*self.tables.read(), start, &message.view(), keys, asking)
    }
}
