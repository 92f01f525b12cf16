//! connection.update-secret (semantics 4.12): a client whose credentials may expire brings new ones.
//!
//! Users that the broker itself knows have passwords, which do not expire: the new secret means nothing to them and is not looked at. What
//! the user may do is looked at again: the vhost, and the queues of consumers, which otherwise are judged only when they begin. A backend
//! whose credentials do expire ends a connection with [`Notice::CloseConnection`] (semantics 4.13).

use std::sync::Arc;

use super::Session;
use crate::access::Permission;
use crate::amqp::{ProtocolError, ReplyCode, SourceId};
use crate::queue::{HolderId, Input, Notice, Outlet, Reply, ReplyTo};
use crate::vhost::declare::Authority;
use crate::vhost::reply_to::is_reply_name;

impl Session {
    pub(super) fn on_update_secret(&mut self, reason: &str) -> Result<(), ProtocolError> {
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(()) };
        if !actor.may_enter(&vhost.name) {
            let text = format!("access to vhost '{}' refused for user '{}'", vhost.name, actor.name());
            return Err(ProtocolError::new(ReplyCode::NotAllowed, text));
        }
        tracing::info!(connection = self.number, peer = %self.peer, user = actor.name(), reason, "secret updated");
        for (&id, source) in &self.sources {
            let name = &source.queue.name;
            if source.is_consumer && !is_reply_name(name) && !actor.permits(Permission::Read, name) {
                tracing::warn!(connection = self.number, peer = %self.peer, queue = %name, "consumer may not read any more");
                let holder = HolderId { connection: self.number, source: id.0 };
                let outlet = Arc::new(Cancelled { of: Arc::clone(&self.outlet), source: id });
                source.queue.handle.post(Input::Cancel { holder, reply_to: ReplyTo { outlet, channel: 0 } });
            }
        }
        self.conn.secret_updated();
        Ok(())
    }
}

/// Turns a queue's answer to a cancel that no client asked for into the news that a consumer has ended (semantics 13.30). It comes behind
/// everything that the queue has delivered to it.
#[derive(Debug)]
struct Cancelled {
    of: Arc<dyn Outlet>,
    source: SourceId,
}

impl Outlet for Cancelled {
    fn post(&self, notice: Notice) {
        match notice {
            Notice::Reply { reply: Reply::Cancelled, .. } => {
                self.of.post(Notice::ConsumerCancelled { source: self.source.0, has_queue_ended: false });
            }
            other => self.of.post(other),
        }
    }

    fn publishes_processed(&self, bytes: usize) {
        self.of.publishes_processed(bytes);
    }
}
