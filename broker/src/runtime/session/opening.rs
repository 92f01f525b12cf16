//! Logging in, entering a vhost, opening channels: the checks of semantics 3.10 and the limits of users and vhosts.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::actor::Actor;
use crate::access::{LoginError, User};
use crate::amqp::{ChannelId, ProtocolError, ReplyCode};
use crate::hooks::Refusal;
use crate::metrics::logins::Protocol;
use crate::runtime::census::Full;
use crate::vhost::Vhost;

/// Why a login was refused.
#[derive(Clone, Debug)]
pub struct LoginRefused {
    /// The user that it was for, if the response says so.
    pub user: Option<String>,
    /// For the log.
    pub reason: String,
    /// The response could not be read: that has no answer on the wire (semantics 4.1, 4.5).
    pub is_malformed: bool,
}

impl From<LoginError> for LoginRefused {
    fn from(error: LoginError) -> Self {
        let reason = error.to_string();
        match error {
            LoginError::Malformed { .. } => Self { user: None, reason, is_malformed: true },
            LoginError::Refused { user, .. } => Self { user: Some(user), reason, is_malformed: false },
        }
    }
}

impl Session {
    /// The credentials were checked.
    pub fn on_login(&mut self, now: Instant, mechanism: &str, result: Result<Arc<User>, LoginRefused>) {
        match result {
            Ok(user) => {
                self.tell_authentication(mechanism, Some(&user.name), None);
                self.broker.metrics.logins.add(Protocol::Amqp091, self.peer.ip(), &user.name, true);
                mechanism.clone_into(&mut self.mechanism);
                self.actor = Some(Actor::new(user, Arc::clone(&self.broker.access), self.number));
                self.set_expiry(now);
                self.conn.authenticated();
            }
            Err(LoginRefused { user, reason, is_malformed }) => {
                self.tell_authentication(mechanism, user.as_deref(), Some(&reason));
                let name = user.as_deref().unwrap_or_default();
                self.broker.metrics.logins.add(Protocol::Amqp091, self.peer.ip(), name, false);
                tracing::warn!(connection = self.number, peer = %self.peer, mechanism, reason, "login refused");
                if is_malformed {
                    self.conn.refuse_silently(now);
                } else {
                    self.conn.refuse_login(now, mechanism);
                }
            }
        }
    }

    pub(super) fn on_open(&mut self, now: Instant, name: &str) {
        if self.defers_open(name) {
            return;
        }
        match self.open(name) {
            Ok(vhost) => {
                if let Some(actor) = &mut self.actor {
                    actor.enter(&vhost.name);
                    let client_name = self.conn.client().connection_name.as_deref().unwrap_or_default();
                    tracing::info!(connection = self.number, peer = %self.peer, user = actor.name(), vhost = name, name = client_name, "connection opened");
                }
                self.vhost = Some(vhost);
                self.conn.opened(now);
                self.tell_connection_created();
                self.open_statistics(now);
            }
            Err(error) => {
                let error = error.in_method(crate::amqp::method::ConnectionOpen::ID);
                tracing::warn!(connection = self.number, peer = %self.peer, error = %error, "refused connection");
                self.conn.close(now, &error);
            }
        }
    }

    /// The checks of semantics 3.10.
    fn open(&self, name: &str) -> Result<Arc<Vhost>, ProtocolError> {
        let refuse = |text: String| ProtocolError::new(ReplyCode::NotAllowed, text);
        let Some(actor) = &self.actor else { return Err(refuse("not authenticated".into())) };
        if let Some(max) = self.broker.connections_max
            && self.broker.connection_count() > max as usize
        {
            return Err(refuse(format!("connection refused: node connection limit ({max}) is reached")));
        }
        let vhost = self.broker.vhost(name).ok_or_else(|| refuse(format!("vhost {name} not found")))?;
        let user = actor.name();
        let limits = self.broker.access.limits_of(user);
        self.broker.census.enter(self.number, (user, limits), (&vhost.name, vhost.limits())).map_err(|full| {
            refuse(match full {
                Full::Vhost(limit) => {
                    format!("access to vhost '{name}' refused for user '{user}': connection limit ({limit}) is reached")
                }
                Full::User(limit) => {
                    format!("connection refused for user '{user}': user connection limit ({limit}) is reached")
                }
            })
        })?;
        let is_refused = !actor.may_enter(name);
        // Looked at when this connection is counted: whoever deletes a vhost closes those that are.
        if is_refused || vhost.has_ended() {
            self.broker.census.leave(self.number);
        }
        if is_refused {
            return Err(refuse(format!("access to vhost '{name}' refused for user '{user}'")));
        }
        if vhost.has_ended() {
            return Err(refuse(format!("vhost {name} not found")));
        }
        if let Err(Refusal { hook, reason }) = self.ask_connect_hooks(&vhost) {
            self.broker.census.leave(self.number);
            let text = format!("access to vhost '{name}' refused for user '{user}' by hook '{hook}': {reason}");
            return Err(refuse(text));
        }
        Ok(vhost)
    }

    /// The user's limit counts the channels of all its connections (semantics 5.7).
    pub(super) fn on_channel_open(&mut self, now: Instant, channel: ChannelId) {
        let Some(actor) = &self.actor else { return };
        let limits = self.broker.access.limits_of(actor.name());
        match self.broker.census.open_channel(self.number, limits.max_channels) {
            Ok(()) => {
                self.channels.entry(channel.0).or_default().is_counted = true;
                self.open_channel_statistics(now, channel);
                self.conn.channel_opened(channel);
                self.tell_channel_created(channel);
            }
            Err(limit) => {
                let text = format!(
                    "number of channels opened for user '{}' has reached the maximum allowed user limit of {limit}",
                    actor.name()
                );
                self.fail(now, channel, ProtocolError::new(ReplyCode::NotAllowed, text));
            }
        }
    }
}
