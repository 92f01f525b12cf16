//! One request as handlers see it: who asks, what the path names, query and body.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;

use super::Management;
use super::body::Fields;
use super::errors::ApiError;
use super::guard::Tags;
use super::reply::Reply;
use crate::access::User;
use crate::runtime::Broker;
use crate::vhost::Vhost;
use crate::vhost::authority::Caller;

/// What a handler answers.
pub(super) type Answer = Result<Reply, ApiError>;

/// See the module.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) api: Arc<Management>,
    /// Nobody, where an endpoint asks for no credentials.
    pub(super) user: Arc<User>,
    pub(super) tags: Tags,
    pub(super) peer: SocketAddr,
    pub(super) named: Vec<(&'static str, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.api.broker
    }

    /// The calling user, as a vhost judges declarations, publishes and gets.
    pub(super) fn by(&self, vhost: &Vhost) -> Caller {
        let access = Arc::clone(&self.broker().access);
        Caller { user: Arc::clone(&self.user), access, vhost: Arc::clone(&vhost.name) }
    }

    /// The same caller, for an answer that goes on when the request is over.
    pub(super) fn again(&self) -> Self {
        Self {
            api: Arc::clone(&self.api),
            user: Arc::clone(&self.user),
            tags: self.tags,
            peer: self.peer,
            named: self.named.clone(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A part of the path; empty where the endpoint's path has no such part.
    pub(super) fn named(&self, name: &str) -> &str {
        self.named.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// A part of the path that names an exchange; the default one goes by `amq.default` here.
    pub(super) fn named_exchange(&self, name: &str) -> &str {
        match self.named(name) {
            "amq.default" => "",
            other => other,
        }
    }

    /// The first value of a parameter of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter of the query says `true`.
    pub(super) fn is_asked(&self, name: &str) -> bool {
        self.query(name) == Some("true")
    }

    /// The body's fields.
    ///
    /// # Errors
    /// 400 for what is no JSON object.
    pub(super) fn fields(&self) -> Result<Fields, ApiError> {
        Fields::read(&self.body)
    }

    /// The vhost that the path names, to be read.
    ///
    /// # Errors
    /// 404.
    pub(super) fn vhost(&self) -> Result<Arc<Vhost>, ApiError> {
        self.broker().vhost(self.named("v")).ok_or_else(ApiError::object_not_found)
    }

    /// The vhost that the path names, to be changed.
    ///
    /// # Errors
    /// 404, which names the vhost as what is missing.
    pub(super) fn vhost_to_change(&self) -> Result<Arc<Vhost>, ApiError> {
        self.broker().vhost(self.named("v")).ok_or_else(ApiError::vhost_not_found)
    }

    /// Whether the user may be shown what is in a vhost.
    pub(super) fn may_enter(&self, vhost: &str) -> bool {
        self.broker().access.may_enter(&self.user, vhost)
    }

    /// The vhosts whose content a list shows: the one that path or header names, or all that the user may be shown. An administrator sees what is in
    /// every vhost; so does whoever monitors, as RabbitMQ lists for administrators alone.
    pub(super) fn listed_vhosts(&self) -> Result<Vec<Arc<Vhost>>, ApiError> {
        let vhosts = &self.broker().vhosts;
        let is_in_path = self.named.iter().any(|(name, _)| *name == "v");
        let wanted = if is_in_path { Some(self.named("v")) } else { self.header_vhost() };
        match wanted {
            Some(name) => match vhosts.get(name) {
                Some(vhost) if self.tags.is_administrator || self.may_enter(name) => Ok(vec![vhost]),
                Some(_) => Ok(Vec::new()),
                None if is_in_path => Err(ApiError::object_not_found()),
                None => Ok(Vec::new()),
            },
            None => {
                let mut list = vhosts.list();
                list.retain(|vhost| self.tags.is_administrator || self.may_enter(&vhost.name));
                Ok(list)
            }
        }
    }

    /// The filter of lists that have no vhost in their path.
    pub(super) fn header_vhost(&self) -> Option<&str> {
        self.headers.get("x-vhost").and_then(|value| value.to_str().ok()).filter(|name| !name.is_empty())
    }
}
