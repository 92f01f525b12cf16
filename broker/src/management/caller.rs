//! The calling user as declarations, publishes and gets judge it: the same permissions as over AMQP, and no exclusive queue is its own.

use std::sync::Arc;

use super::call::Call;
use crate::access::{Access, Permission, Resource, TopicPermission, User};
use crate::vhost::Vhost;
use crate::vhost::declare::Authority;

/// See the module.
#[derive(Debug)]
pub(super) struct Caller {
    user: Arc<User>,
    access: Arc<Access>,
    vhost: Arc<str>,
}

impl Caller {
    pub(super) fn new(call: &Call, vhost: &Vhost) -> Self {
        let (user, access) = (Arc::clone(&call.user), Arc::clone(&call.broker().access));
        Self { user, access, vhost: Arc::clone(&vhost.name) }
    }
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
