//! Authentication backends: who may log in, and what they may do.
//!
//! The topology file lists backends in order (`auth.backends`). At a login the first that does not answer
//! [`Verdict::NotMine`] decides, and it is the one that is asked later what the user may do, unless the file hands that to
//! others. Whatever goes wrong (an error, a time-out, a panic) counts as a refusal. Answers are kept for as long as the
//! backend says, so that neither a publish nor a request of the management API waits each time.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::Config;
use crate::error::Invalid;

/// A kind of backend, as the topology file names it.
pub trait AuthType: Send + Sync + 'static {
    /// The name in `auth.backends`; not `internal`, which is the broker's own. Asked once.
    fn name(&self) -> &str;

    /// One line for operators. Asked once.
    fn description(&self) -> &str;

    /// Makes a backend. A file may have several of one kind, each with its own configuration.
    ///
    /// # Errors
    /// What is wrong with the configuration; the broker does not start. That a server cannot be reached is none: it may
    /// come up later, and until then questions end with an [`AuthError`].
    fn open(&self, spec: &AuthSpec) -> Result<Arc<dyn AuthBackend>, Invalid>;
}

/// What a backend is opened with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuthSpec {
    /// What stands under `config` of its entry in the topology file.
    pub config: Config,
    /// The folder of the topology file, against which relative paths in the configuration are to be resolved; `None` when
    /// there is no file.
    pub base: Option<PathBuf>,
}

/// One backend. Calls may overlap; each has a time limit set by the broker, at which its future is dropped.
#[async_trait]
pub trait AuthBackend: Send + Sync {
    /// Whether these credentials are good, and whose they are.
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError>;

    /// Whether a user whom something else than a password has proved may come in: the certificate of a client of TLS names them (SASL
    /// EXTERNAL). There is no secret to look at, so this says whether the name is known, and with which tags. Since 2.4.
    ///
    /// Backends that know users by their secrets alone need not implement this: nobody comes in by them then. It is a question of
    /// its own, so that a login with an empty password can never be taken for one.
    async fn login_external(&self, login: &ExternalLogin<'_>) -> Result<Answer<Identity>, AuthError> {
        let _ = login;
        Ok(Answer::not_mine())
    }

    /// A connected user has brought a new secret in place of one that expires (`connection.update-secret`). The answer
    /// takes the place of that of the login; a name other than before is refused by the broker.
    ///
    /// Backends whose credentials do not expire need not implement this: the secret is not looked at then, and nothing
    /// changes.
    async fn renew(&self, renewal: &Renewal<'_>) -> Result<Answer<Identity>, AuthError> {
        Ok(Answer::allow(renewal.subject.identity()))
    }

    /// Whether a logged-in user may enter a vhost.
    async fn vhost(&self, request: &VhostRequest<'_>) -> Result<Answer<()>, AuthError>;

    /// Whether a user may do something to an exchange or a queue.
    async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError>;

    /// Whether a user may publish to, or bind with, a routing key of a topic exchange. Asked after `resource` has
    /// allowed the exchange.
    async fn topic(&self, request: &TopicRequest<'_>) -> Result<Answer<()>, AuthError>;
}

/// Credentials as they came.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The name. Empty where a token is all that was sent.
    pub user: &'a str,
    /// The password, or the token that was sent in its place.
    pub password: &'a [u8],
    /// The vhost that is wanted, when it is known already. AMQP 0-9-1 names it later.
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

/// A login that the broker has verified itself.
#[derive(Debug, Clone, Copy)]
pub struct ExternalLogin<'a> {
    /// The name, as the certificate says it.
    pub user: &'a str,
    /// Where the connection comes from.
    pub peer: IpAddr,
}

/// A new secret for a user who is connected.
#[derive(Clone, Copy)]
pub struct Renewal<'a> {
    /// Who, as the last login or renewal had it.
    pub subject: Subject<'a>,
    /// The new password or token.
    pub secret: &'a [u8],
}

impl std::fmt::Debug for Renewal<'_> {
    // As for a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// A user as a backend knows them, from a login.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The name, which need not be the one that was typed. 1 to 255 bytes.
    pub user: String,
    /// Tags such as `administrator` or `monitoring`, which open the management API.
    pub tags: Vec<String>,
    /// When the credentials end, in milliseconds since 1970. The broker then closes the connection with "credential
    /// expired" (320), unless [`AuthBackend::renew`] has moved the time before.
    pub expires_at_ms: Option<u64>,
    /// Whatever the backend wants to be told again with each question about this user, such as the scopes of a token.
    /// The broker does not look at it and shows it to nobody.
    pub session: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    // What a session holds may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Identity");
        out.field("user", &self.user).field("tags", &self.tags).field("expires_at_ms", &self.expires_at_ms);
        out.finish_non_exhaustive()
    }
}

impl Identity {
    /// A user with these tags whose credentials do not expire.
    pub fn new(user: impl Into<String>, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { user: user.into(), tags: tags.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The same as later questions show it.
    #[must_use]
    pub fn subject(&self, peer: IpAddr) -> Subject<'_> {
        let Self { user, tags, expires_at_ms, session } = self;
        Subject { user, tags, expires_at_ms: *expires_at_ms, session, peer }
    }
}

/// The logged-in user that a question is about.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// [`Identity::user`].
    pub user: &'a str,
    /// [`Identity::tags`].
    pub tags: &'a [String],
    /// [`Identity::expires_at_ms`].
    pub expires_at_ms: Option<u64>,
    /// [`Identity::session`]; empty when another backend has let the user in.
    pub session: &'a [u8],
    /// Where the connection comes from.
    pub peer: IpAddr,
}

impl std::fmt::Debug for Subject<'_> {
    // As for an identity.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Subject");
        out.field("user", &self.user).field("tags", &self.tags).field("expires_at_ms", &self.expires_at_ms);
        out.field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Subject<'_> {
    /// The same as an answer to a login.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            user: self.user.to_owned(),
            tags: self.tags.to_vec(),
            expires_at_ms: self.expires_at_ms,
            session: self.session.to_vec(),
        }
    }
}

/// A vhost that is to be entered.
#[derive(Debug, Clone, Copy)]
pub struct VhostRequest<'a> {
    /// Who.
    pub subject: Subject<'a>,
    /// The vhost, which is there.
    pub vhost: &'a str,
}

/// An exchange or a queue, and what is to be done to it.
#[derive(Debug, Clone, Copy)]
pub struct ResourceRequest<'a> {
    /// Who.
    pub subject: Subject<'a>,
    /// The vhost.
    pub vhost: &'a str,
    /// What kind of thing it is.
    pub resource: Resource,
    /// Its name, which need not be there yet; the default exchange is `amq.default`.
    pub name: &'a str,
    /// What is to be done.
    pub permission: Permission,
}

/// A routing key of a topic exchange, and what is to be done with it.
#[derive(Debug, Clone, Copy)]
pub struct TopicRequest<'a> {
    /// Who.
    pub subject: Subject<'a>,
    /// The vhost.
    pub vhost: &'a str,
    /// The name of the exchange.
    pub exchange: &'a str,
    /// The routing key, or the key of a binding with its wildcards.
    pub routing_key: &'a str,
    /// `Write` to publish, `Read` to bind.
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
    /// For how long the same question need not be asked again: zero means that only who asked may use it. The broker
    /// keeps what it was told about a connected user at least a second, so that not each message of a stream waits.
    pub valid_for: Duration,
}

impl<T> Answer<T> {
    /// Yes, for this question only.
    pub const fn allow(value: T) -> Self {
        Self { verdict: Verdict::Allow(value), valid_for: Duration::ZERO }
    }

    /// No, for this reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Deny(reason.into()), valid_for: Duration::ZERO }
    }

    /// This backend does not know the user.
    #[must_use]
    pub const fn not_mine() -> Self {
        Self { verdict: Verdict::NotMine, valid_for: Duration::ZERO }
    }

    /// The same for a longer time.
    #[must_use]
    pub fn valid_for(self, time: Duration) -> Self {
        Self { valid_for: time, ..self }
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        let verdict = match self.verdict {
            Verdict::Allow(value) => Verdict::Allow(change(value)),
            Verdict::Deny(reason) => Verdict::Deny(reason),
            Verdict::NotMine => Verdict::NotMine,
        };
        Answer { verdict, valid_for: self.valid_for }
    }
}

/// What a backend decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Yes.
    Allow(T),
    /// No, for this reason, which is logged and not told to the client.
    Deny(String),
    /// This backend does not know the user; at a login the next one decides. Where what a user may do is asked, it is a
    /// refusal.
    NotMine,
}

/// A backend could not decide; the broker refuses and logs the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthError {
    /// What went wrong.
    pub text: String,
}

impl AuthError {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl std::fmt::Display for AuthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for AuthError {}
