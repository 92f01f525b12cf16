//! The user of a connection, as declarations and publishes judge it.

use std::sync::Arc;

use crate::access::{Access, Decisions, Permission, TopicPermission, User};
use crate::vhost::declare::Authority;

/// See the module.
#[derive(Debug)]
pub(super) struct Actor {
    user: Arc<User>,
    access: Arc<Access>,
    vhost: Arc<str>,
    decisions: Decisions,
    connection: u64,
}

impl Actor {
    pub(super) fn new(user: Arc<User>, access: Arc<Access>, connection: u64) -> Self {
        Self { user, access, vhost: "".into(), decisions: Decisions::default(), connection }
    }

    pub(super) fn name(&self) -> &str {
        &self.user.name
    }

    pub(super) fn may_enter(&self, vhost: &str) -> bool {
        self.access.may_enter(&self.user, vhost)
    }

    pub(super) fn enter(&mut self, vhost: &Arc<str>) {
        self.vhost = Arc::clone(vhost);
    }
}

impl Authority for Actor {
    fn permits(&mut self, permission: Permission, name: &str) -> bool {
        self.decisions.permits(&self.access, &self.user, &self.vhost, permission, name)
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
        Some(self.connection)
    }
}
