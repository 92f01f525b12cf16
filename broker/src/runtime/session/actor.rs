//! The user of a connection, as declarations and publishes judge it.

use std::sync::Arc;

use crate::access::{Access, Decisions, Permission, Resource, TopicPermission, User};
use crate::vhost::authority::Authority;

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

    /// Who is asked through the session.
    pub(super) fn is_foreign(&self) -> bool {
        self.user.foreign.is_some()
    }

    pub(super) fn shared(&self) -> Arc<User> {
        Arc::clone(&self.user)
    }

    /// The same user with a new secret.
    pub(super) fn replace(&mut self, user: Arc<User>) {
        self.user = user;
    }

    /// Changes whenever a permission may be another than before, for the caches of publishers.
    pub(super) fn generation(&self) -> u64 {
        let generation = self.access.generation();
        match &self.user.foreign {
            None => generation,
            Some(foreign) => generation.wrapping_add(foreign.epoch() << 32),
        }
    }

    /// See [`crate::access::Foreign`], for this and what follows.
    pub(super) fn has_open_questions(&self) -> bool {
        self.user.foreign.as_ref().is_some_and(|foreign| foreign.has_open_questions())
    }

    pub(super) fn has_unasked(&self) -> bool {
        self.user.foreign.as_ref().is_some_and(|foreign| foreign.has_unasked())
    }

    pub(super) fn forget_unasked(&self) {
        if let Some(foreign) = &self.user.foreign {
            foreign.forget_unasked();
        }
    }

    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        self.user.foreign.as_ref()?.expires_at_ms()
    }

    /// Forgets answers whose time is over.
    pub(super) fn lapse(&self, now_ms: impl FnOnce() -> u64) {
        if self.user.foreign.is_some() {
            self.access.lapse(&self.user, now_ms());
        }
    }

    pub(super) fn enter(&mut self, vhost: &Arc<str>) {
        self.vhost = Arc::clone(vhost);
    }
}

impl Authority for Actor {
    fn permits(&mut self, permission: Permission, resource: Resource, name: &str) -> bool {
        self.decisions.permits(&self.access, &self.user, &self.vhost, permission, resource, name)
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
