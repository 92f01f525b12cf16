//! Waiting for auth backends: what a user from a backend does is tried, and where an answer is missing, tried again when it is there.
//!
//! Only the channel that asked waits; its frames are held meanwhile, as while a queue answers. What was refused for want of an answer
//! has changed nothing: permissions are judged before anything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Session;
use crate::access::User;
use crate::amqp::method::{BasicPublish, ConnectionUpdateSecret, Method};
use crate::amqp::{ChannelId, ProtocolError, PublishFlags, PublishMode, ReplyCode};
use crate::message::Message;
use crate::queue::{Notice, Outlet};

/// What a channel tries again.
#[derive(Debug)]
pub(super) enum Deferred {
    /// A method, encoded.
    Method(Vec<u8>),
    Publish {
        flags: PublishFlags,
        mode: PublishMode,
        message: Arc<Message>,
    },
}

/// A new secret that is being looked at.
#[derive(Debug)]
pub(super) struct Renewal {
    /// The client's, for the log.
    reason: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The backend looks at the secret.
    Asked(Answer),
    /// It has been taken; what the user may do is looked at again.
    Taken,
}

type Answer = Arc<Mutex<Option<Result<Arc<User>, String>>>>;

/// Tells the session that there is news, whatever ends the task that it waits for.
struct Tell(Arc<dyn Outlet>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.post(Notice::Judged);
    }
}

impl Session {
    /// Whether a refusal only means that a backend has not answered yet.
    pub(super) fn is_undecided(&self, error: &ProtocolError) -> bool {
        error.code == ReplyCode::AccessRefused && self.actor.as_ref().is_some_and(|actor| actor.has_open_questions())
    }

    /// The channel tries it again when the backend has answered.
    pub(super) fn defer(&mut self, channel: ChannelId, what: Deferred) {
        self.conn.wait(channel);
        self.channels.entry(channel.0).or_default().deferred = Some(what);
        self.ask();
    }

    pub(super) fn defer_method(&mut self, channel: ChannelId, method: &Method<'_>) {
        let mut bytes = Vec::new();
        method.encode(&mut bytes);
        self.defer(channel, Deferred::Method(bytes));
    }

    /// Whether the vhost can be entered only when the backend has said something; [`Self::on_judged`] goes on then.
    pub(super) fn defers_open(&mut self, name: &str) -> bool {
        let Some(actor) = &self.actor else { return false };
        if !actor.is_foreign() || self.broker.vhost(name).is_none() || actor.may_enter(name) {
            return false;
        }
        if !actor.has_open_questions() {
            return false;
        }
        self.opening = Some(name.to_owned());
        self.ask();
        true
    }

    /// Has the backend asked what is missing.
    fn ask(&self) {
        let Some(actor) = self.actor.as_ref().filter(|actor| actor.has_unasked()) else { return };
        let (access, user, tell) = (Arc::clone(&self.broker.access), actor.shared(), Tell(Arc::clone(&self.outlet)));
        self.spawn(async move {
            access.judge(&user).await;
            drop(tell);
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(task)),
            // Nobody can be asked: dropping the task answers its questions with no.
            Err(_) => tracing::error!(connection = self.number, "there is no runtime to ask auth backends in"),
        }
    }

    /// Backends have answered.
    pub(super) fn on_judged(&mut self, now: Instant) {
        if let Some(name) = self.opening.take()
            && self.conn.is_in_handshake()
        {
            self.on_open(now, &name);
        }
        if let Some(renewal) = self.renewal.take()
            && self.conn.is_open()
            && let Err(error) = self.go_on_with(now, renewal)
        {
            return self.fail(now, ChannelId(0), error.in_method(ConnectionUpdateSecret::ID));
        }
        let mut channels: Vec<u16> =
            self.channels.iter().filter(|(_, state)| state.deferred.is_some()).map(|(&number, _)| number).collect();
        channels.sort_unstable();
        for channel in channels {
            if self.ending.is_some() {
                return;
            }
            self.try_again(now, ChannelId(channel));
        }
        self.ask();
    }

    fn try_again(&mut self, now: Instant, channel: ChannelId) {
        let Some(deferred) = self.channels.get_mut(&channel.0).and_then(|state| state.deferred.take()) else { return };
        self.touch(channel.0);
        match deferred {
            Deferred::Publish { flags, mode, message } => {
                match self.on_publish(now, channel, flags, mode, None, Arc::clone(&message)) {
                    Ok(()) => self.conn.resume(channel),
                    Err(error) if self.is_undecided(&error) => {
                        self.defer(channel, Deferred::Publish { flags, mode, message });
                    }
                    Err(error) => self.fail(now, channel, error.in_method(BasicPublish::ID)),
                }
            }
            Deferred::Method(bytes) => {
                // It has been decoded before.
                let Ok(method) = Method::decode(&bytes) else { return };
                self.flush_publishes();
                match self.on_command(channel, &method) {
                    Ok(()) => {
                        self.forget_unasked();
                        if self.channels.get(&channel.0).is_none_or(|state| state.pending.is_none()) {
                            self.conn.resume(channel);
                        }
                    }
                    Err(error) if self.is_undecided(&error) => self.defer_method(channel, &method),
                    Err(error) => self.fail(now, channel, error.in_method(method.id())),
                }
            }
        }
    }

    /// What was looked up and turned out not to matter.
    pub(super) fn forget_unasked(&self) {
        if let Some(actor) = &self.actor {
            actor.forget_unasked();
        }
    }

    // Secrets

    /// Has the backend look at a new secret (semantics 4.12).
    pub(super) fn renew(&mut self, secret: &[u8], reason: &str) -> Result<(), ProtocolError> {
        let Some(actor) = &self.actor else { return Ok(()) };
        if self.renewal.is_some() {
            return Err(ProtocolError::new(ReplyCode::CommandInvalid, "a secret is being updated already"));
        }
        let answer = Answer::default();
        let (access, user, secret) = (Arc::clone(&self.broker.access), actor.shared(), secret.to_vec());
        let (place, tell) = (Arc::clone(&answer), Tell(Arc::clone(&self.outlet)));
        self.spawn(async move {
            let renewed = access.renew(&user, &secret).await;
            *place.lock() = Some(renewed);
            drop(tell);
        });
        self.renewal = Some(Renewal { reason: reason.to_owned(), stage: Stage::Asked(answer) });
        Ok(())
    }

    fn go_on_with(&mut self, now: Instant, renewal: Renewal) -> Result<(), ProtocolError> {
        let Renewal { reason, stage } = renewal;
        if let Stage::Asked(answer) = stage {
            let Some(answered) = answer.lock().take() else {
                // Something else was answered, or nobody looks at it any more.
                if Arc::strong_count(&answer) == 1 {
                    return Err(refused_secret());
                }
                self.renewal = Some(Renewal { reason, stage: Stage::Asked(answer) });
                return Ok(());
            };
            let user = answered.map_err(|why| {
                tracing::warn!(connection = self.number, peer = %self.peer, why, "new secret refused");
                refused_secret()
            })?;
            if let Some(actor) = &mut self.actor {
                actor.replace(user);
            }
            self.set_expiry(now);
        }
        if self.look_again(&reason)? {
            self.conn.secret_updated();
        } else {
            self.renewal = Some(Renewal { reason, stage: Stage::Taken });
            self.ask();
        }
        Ok(())
    }

    /// Notes down when the credentials end.
    pub(super) fn set_expiry(&mut self, now: Instant) {
        let expires_at_ms = self.actor.as_ref().and_then(|actor| actor.expires_at_ms());
        self.expires_at = expires_at_ms.and_then(|at| {
            let left = Duration::from_millis(at.saturating_sub(self.broker.clock.wall_ms()));
            now.checked_add(left)
        });
    }
}

fn refused_secret() -> ProtocolError {
    ProtocolError::new(ReplyCode::NotAllowed, "New secret was refused by one of the backends")
}
