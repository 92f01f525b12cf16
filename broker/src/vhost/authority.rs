//! On whose behalf something is declared, published or read, as [`super::Vhost`] judges it.
//!
//! A connection's session is one ([`crate::runtime`]); here are those without a connection.

use std::sync::Arc;

use crate::access::{Access, Permission, Resource, TopicPermission, User};
use crate::events::actor;

/// On whose behalf something is changed.
pub trait Authority {
    /// Whether the permission is there; `name` is never the default exchange.
    fn permits(&mut self, permission: Permission, resource: Resource, name: &str) -> bool;
    /// What the user may do with a topic exchange by routing key; none where everything is allowed (semantics 25.7).
    fn topic_permission(&mut self, exchange: &str) -> Option<Arc<TopicPermission>>;
    /// For errors.
    fn user(&self) -> &str;
    /// Whether messages may carry another user's user-id (semantics 12.6).
    fn may_impersonate(&self) -> bool;
    /// Whose exclusive queues may be used.
    fn connection(&self) -> Option<u64>;
    /// Whether it is the operator himself, whom no hook has to watch.
    fn is_operator(&self) -> bool {
        false
    }
    /// Whose doing events call it: an operator's files may have been brought by a user.
    fn doer(&self) -> Arc<str> {
        if self.is_operator() { actor() } else { self.user().into() }
    }
}

/// The operator: a topology file, a command.
#[derive(Clone, Copy, Debug)]
pub struct Operator;

impl Authority for Operator {
    fn permits(&mut self, _: Permission, _: Resource, _: &str) -> bool {
        true
    }

    fn topic_permission(&mut self, _: &str) -> Option<Arc<TopicPermission>> {
        None
    }

    fn user(&self) -> &str {
        "operator"
    }

    fn may_impersonate(&self) -> bool {
        true
    }

    fn connection(&self) -> Option<u64> {
        None
    }

    fn is_operator(&self) -> bool {
        true
    }
}

/// A user without a connection, as the management API and dry runs have it: the same permissions as over AMQP, and no exclusive queue is its own.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub user: Arc<User>,
    /// What it may do.
    pub access: Arc<Access>,
    /// Where.
    pub vhost: Arc<str>,
}

impl Authority for Caller {
    fn permits(&mut self, permission: Permission, resource: Resource, name: &str) -> bool {
        self.access.permits(&self.user, &self.vhost, permission, resource, name)
    }

    fn topic_permission(&mut self, exchange: &str) -> Option<Arc<TopicPermission>> {
        self.access.topic_permission(&self.user, &self.vhost, exchange)
    }

    fn user(&self) -> &str {
        &self.user.name
    }

    fn may_impersonate(&self) -> bool {
        self.user.tags.iter().any(|tag| tag == "impersonator")
    }

    fn connection(&self) -> Option<u64> {
        None
    }
}
