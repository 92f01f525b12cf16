//! connection.update-secret (semantics 4.12): a client whose credentials may expire brings new ones.
//!
//! Users that the broker itself knows have passwords, which do not expire: the new secret means nothing to them and is not looked at. A
//! backend looks at the secret of its users (`judging`). Then what the user may do is looked at again: the vhost, and the queues of
//! consumers, which otherwise are judged only when they begin. A connection whose credentials expire is closed (semantics 4.13).

use std::sync::Arc;

use super::Session;
use crate::access::{Permission, Resource};
use crate::amqp::{ProtocolError, ReplyCode, SourceId};
use crate::queue::{HolderId, Input, Notice, Outlet, Reply, ReplyTo};
use crate::vhost::authority::Authority;
use crate::vhost::reply_to::is_reply_name;

impl Session {
    pub(super) fn on_update_secret(&mut self, new_secret: &[u8], reason: &str) -> Result<(), ProtocolError> {
        if self.actor.as_ref().is_some_and(|actor| actor.is_foreign()) {
            return self.renew(new_secret, reason);
        }
        self.look_again(reason)?;
        self.conn.secret_updated();
        Ok(())
    }

    /// What the user may do is looked at again. False: a backend must be asked first, and nothing has been done.
    pub(super) fn look_again(&mut self, reason: &str) -> Result<bool, ProtocolError> {
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(true) };
        let may_enter = actor.may_enter(&vhost.name);
        let mut lost = Vec::new();
        for (&id, source) in &self.sources {
            let name = &source.queue.name;
            if source.is_consumer && !is_reply_name(name) && !actor.permits(Permission::Read, Resource::Queue, name) {
                lost.push(id);
            }
        }
        if actor.has_open_questions() {
            return Ok(false);
        }
        if !may_enter {
            let text = format!("access to vhost '{}' refused for user '{}'", vhost.name, actor.name());
            return Err(ProtocolError::new(ReplyCode::NotAllowed, text));
        }
        tracing::info!(connection = self.number, peer = %self.peer, user = actor.name(), reason, "secret updated");
        for id in lost {
            let Some(source) = self.sources.get(&id) else { continue };
            tracing::warn!(connection = self.number, peer = %self.peer, queue = %source.queue.name, "consumer may not read any more");
            let holder = HolderId { connection: self.number, source: id.0 };
            let outlet = Arc::new(Cancelled { of: Arc::clone(&self.outlet), source: id });
            source.queue.handle.post(Input::Cancel { holder, reply_to: ReplyTo { outlet, channel: 0 } });
        }
        Ok(true)
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
