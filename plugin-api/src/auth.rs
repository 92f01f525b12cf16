//! Authentication backends: who may log in, and what they may do.
//!
//! Backends form a chain; the first that does not answer [`Verdict::NotMine`] decides. Whatever goes wrong (an error, a
//! time-out, a panic) counts as a refusal. Answers may be kept for as long as the backend says.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

/// One backend. Calls may overlap; each has a time limit set by the broker.
#[async_trait]
pub trait AuthBackend: Send + Sync {
    /// Whether these credentials are good, and which tags their user has.
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError>;

    /// Whether a logged-in user may enter a vhost.
    async fn vhost(&self, user: &str, vhost: &str, peer: IpAddr) -> Result<Answer<()>, AuthError>;

    /// Whether a user may do something to an exchange or a queue.
    async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError>;

    /// Whether a user may publish to, or bind with, a routing key of a topic exchange. Asked after `resource` has
    /// allowed the exchange.
    async fn topic(&self, request: &ResourceRequest<'_>, routing_key: &str) -> Result<Answer<()>, AuthError>;
}

/// Credentials as they came.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The name.
    pub user: &'a str,
    /// The password, or the token that was sent in its place.
    pub password: &'a [u8],
    /// The vhost that is wanted, when it is known already.
    pub vhost: Option<&'a str>,
    /// Where the connection comes from.
    pub peer: IpAddr,
}

impl std::fmt::Debug for Login<'_> {
    // A password must not reach a log by way of `{:?}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("vhost", &self.vhost).field("peer", &self.peer).finish()
    }
}

/// A user as a backend knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name, which need not be the one that was typed.
    pub user: String,
    /// Tags such as `administrator` or `monitoring`.
    pub tags: Vec<String>,
}

/// An exchange or a queue, and what is to be done to it.
#[derive(Debug, Clone, Copy)]
pub struct ResourceRequest<'a> {
    /// The logged-in user.
    pub user: &'a str,
    /// The vhost.
    pub vhost: &'a str,
    /// What kind of thing it is.
    pub resource: Resource,
    /// Its name.
    pub name: &'a str,
    /// What is to be done.
    pub permission: Permission,
}

/// Kinds of things that permissions speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
}

/// The three permissions (RabbitMQ: "Access Control").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Create, delete, change.
    Configure,
    /// Publish to, bind into.
    Write,
    /// Consume from, bind from.
    Read,
}

/// A verdict, and for how long it may be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The verdict.
    pub verdict: Verdict<T>,
    /// For how long the same question need not be asked; zero means ask each time.
    pub valid_for: Duration,
}

/// What a backend decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Yes.
    Allow(T),
    /// No, for this reason, which is logged and not told to the client.
    Deny(String),
    /// This backend does not know the user; the next one decides.
    NotMine,
}

/// A backend could not decide; the broker refuses and logs the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthError {
    /// What went wrong.
    pub text: String,
}

impl std::fmt::Display for AuthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for AuthError {}
