//! Who may log in, and what a user may do: SASL responses, the internal users, permissions and a cache of decisions.
//!
//! Users and permissions live behind short locks that are never held across a hash, a search or an `.await`, so that they
//! can be changed while connections run; [`Access::generation`] tells caches when that happened. Nothing here knows about
//! connections, frames or reply codes: the connection machine turns a [`LoginError`] into what the client sees.
//! Rules are those of RabbitMQ's pages "Access Control" and "Password Hashing".

mod account;
mod attempts;
mod chain;
mod changes;
mod decisions;
mod foreign;
mod happened;
mod password;
mod pattern;
mod sasl;
mod saved;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
pub use plugin_api::auth::Resource;

use self::account::Account;
use self::attempts::Attempts;
use self::chain::{Chain, Proof};
use self::foreign::ForeignTopics;
pub use self::{
    account::{StoredAccounts, TopicPermission, UserRecord, UserUpdate},
    attempts::Admission,
    chain::{Backend, INTERNAL},
    changes::{AccessError, Change, Ledger, TAGS_MAX, USERS_MAX},
    decisions::Decisions,
    foreign::{Foreign, Question},
    password::{HashAlgorithm, HashError, PasswordHash},
    pattern::{PATTERN_BYTES_MAX, Pattern, PatternError},
    sasl::{EXTERNAL, Mechanism, MechanismError},
    saved::SavedUsers,
};
use crate::events::Events;
use crate::origin::Origin;
use crate::topology::schema::{PermissionDecl, TopicPermissionDecl, UserDecl, UserLimitsDecl};

/// The internal users with their permissions.
pub struct Access {
    accounts: RwLock<HashMap<String, Arc<Account>>>,
    generation: AtomicU64,
    /// None in tests: nothing is to be kept.
    ledger: Option<Arc<dyn Ledger>>,
    /// The users are there because nobody has said anything of users.
    has_defaults: AtomicBool,
    events: Events,
    chain: Chain,
    attempts: Attempts,
}

/// Who says that the declared users are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// The topology file.
    ByFile,
    /// Nobody. With the first change of a user they are stored, and from then on they are users as others.
    ByDefault,
}

/// One user as a connection keeps it after login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Unique name, as the client sent it.
    pub name: String,
    /// `administrator`, `monitoring`, …; they give no permission to messages.
    pub tags: Vec<String>,
    /// Whether this user may log in only from the broker's own machine.
    pub loopback_only: bool,
    /// Who is asked what this user may do; none is the broker itself.
    pub foreign: Option<Arc<Foreign>>,
}

impl User {
    /// A user that a backend has let in.
    fn foreign(backend: usize, identity: plugin_api::auth::Identity, peer: IpAddr) -> Self {
        let (name, tags) = (identity.user.clone(), identity.tags.clone());
        let foreign = Some(Arc::new(Foreign::new(backend, identity, peer)));
        Self { name, tags, loopback_only: false, foreign }
    }
}

/// Where a login comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's address.
    pub address: IpAddr,
}

impl Peer {
    /// From the broker's own machine.
    pub const LOOPBACK: Self = Self { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };
}

/// What a permission entry allows for the names that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Declare and delete.
    Configure,
    /// Publish, and be the destination of a binding.
    Write,
    /// Consume, get, purge, and be the source of a binding.
    Read,
}

/// Why a login failed. The client learns only that it did; the text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The response does not have the shape of its mechanism (502 inside, a silent close outside).
    #[error("malformed {mechanism} response: {reason}")]
    Malformed {
        /// The mechanism that the client chose.
        mechanism: Mechanism,
        /// What was wrong with the bytes.
        reason: &'static str,
    },
    /// The response was readable, but this user may not come in like this.
    #[error("login of user {user:?} refused: {reason}")]
    Refused {
        /// The name the client gave, cut to [`USER_NAME_BYTES_MAX`].
        user: String,
        /// The real reason, for the log only.
        reason: Refusal,
    },
}

/// The reason of a refused login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such user.
    UnknownUser,
    /// The user exists, the password differs.
    WrongPassword,
    /// The client sent an empty password, which is never valid.
    BlankPassword,
    /// The user has no usable password hash.
    NoPassword,
    /// Right password, but the user may connect from the broker's machine only.
    NotFromLoopback,
    /// An auth backend refused, or could not decide; its reason has been logged.
    Backend,
}

/// The longest user name that is kept from a login attempt: the limit of a short string, as everywhere in AMQP.
pub const USER_NAME_BYTES_MAX: usize = 255;

impl Access {
    /// Takes over the declared users; a later declaration of the same name replaces an earlier one.
    #[must_use]
    pub fn new(users: &[UserDecl]) -> Self {
        let accounts = users.iter().map(|decl| (decl.name.clone(), Arc::new(Account::declared(decl)))).collect();
        Self {
            accounts: RwLock::new(accounts),
            generation: AtomicU64::new(1),
            ledger: None,
            has_defaults: AtomicBool::new(false),
            events: Events::default(),
            chain: Chain::default(),
            attempts: Attempts::default(),
        }
    }

    /// The same, and changes are told to whoever listens.
    #[must_use]
    pub fn telling(self, events: Events) -> Self {
        Self { events, ..self }
    }

    /// What the topology file declares and, beside it, what the store knows; from now on every change is written to `ledger`.
    ///
    /// The file wins for each user and each permission that it names, and the store forgets those. It also forgets permissions of users that are gone.
    #[must_use]
    pub fn restore(stored: StoredAccounts, users: &[UserDecl], declared: Declared, ledger: Arc<dyn Ledger>) -> Self {
        let has_defaults = AtomicBool::new(declared == Declared::ByDefault);
        let access = Self { ledger: Some(ledger), has_defaults, ..Self::new(users) };
        let mut forgotten = Vec::new();
        let mut accounts = access.accounts.write();
        for user in stored.users {
            match accounts.get(&user.name) {
                Some(_) => forgotten.push(Change::UserRemoved(user.name)),
                None => {
                    accounts.insert(user.name.clone(), Arc::new(Account::restored(user)));
                }
            }
        }
        for (name, entry) in stored.permissions {
            match accounts.get_mut(&name) {
                Some(account) if account.permission_origin(&entry.vhost).is_none() => {
                    Arc::make_mut(account).put_permission(&entry, Origin::Runtime);
                }
                _ => forgotten.push(Change::PermissionRemoved(name, entry.vhost)),
            }
        }
        for (name, entry) in stored.topic_permissions {
            match accounts.get_mut(&name) {
                Some(account) if account.topic_permission_origin(&entry.vhost, &entry.exchange).is_none() => {
                    Arc::make_mut(account).put_topic_permission(&entry, Origin::Runtime);
                }
                _ => forgotten.push(Change::TopicPermissionRemoved(name, entry.vhost, entry.exchange)),
            }
        }
        for change in &forgotten {
            tracing::info!("{change} is forgotten: the topology file says otherwise, or the user is gone");
        }
        access.record(forgotten);
        drop(accounts);
        access
    }

    /// Waits, before a login is looked at, as long as earlier failures of this user from this address say. What is answered has to be told how the
    /// login ended.
    pub async fn admit(&self, address: IpAddr, user: &str) -> Admission<'_> {
        self.attempts.admit(address, user).await
    }

    /// Checks the response of a SASL mechanism: asks the backends in their order. It does not wait; see [`Self::admit`].
    ///
    /// Of the internal users the same amount of hashing is done whether the user exists or not, so that the time of the answer tells
    /// nothing about names. Other backends wait for a network.
    ///
    /// # Errors
    /// [`LoginError::Malformed`] for a response of the wrong shape, [`LoginError::Refused`] for everything else.
    pub async fn login(&self, mechanism: Mechanism, response: &[u8], peer: Peer) -> Result<Arc<User>, LoginError> {
        let credentials = mechanism
            .credentials(response)
            .map_err(|error| LoginError::Malformed { mechanism, reason: error.reason() })?;
        let name = std::str::from_utf8(credentials.user).ok();
        self.login_by_chain(name, Proof::Password(credentials.password), peer.address.to_canonical())
            .await
            .map_err(|reason| LoginError::Refused { user: printable_name(credentials.user), reason })
    }

    fn internal_login(&self, name: Option<&str>, password: &[u8], peer: IpAddr) -> Result<Arc<User>, Refusal> {
        let account = name.and_then(|name| self.accounts.read().get(name).map(Arc::clone));
        let is_right = PasswordHash::verify(account.as_ref().and_then(|a| a.password.as_ref()), password);
        let account = account.ok_or(Refusal::UnknownUser)?;
        if password.is_empty() {
            return Err(Refusal::BlankPassword);
        }
        if account.password.is_none() {
            return Err(Refusal::NoPassword);
        }
        if !is_right {
            return Err(Refusal::WrongPassword);
        }
        if account.user.loopback_only && !peer.is_loopback() {
            return Err(Refusal::NotFromLoopback);
        }
        Ok(Arc::clone(&account.user))
    }

    /// An internal user whom something else than a password has proved.
    fn internal_login_external(&self, name: Option<&str>, peer: IpAddr) -> Result<Arc<User>, Refusal> {
        let user = name.and_then(|name| self.user(name)).ok_or(Refusal::UnknownUser)?;
        if user.loopback_only && !peer.is_loopback() {
            return Err(Refusal::NotFromLoopback);
        }
        Ok(user)
    }

    /// Lets in whom a verified certificate names. There is no password to check; one of the backends has to know the name, in the order of logins
    /// (semantics 4.3, 4.10). Backends that know users by their secrets alone know nobody here.
    ///
    /// # Errors
    /// [`LoginError::Refused`] for a user that nobody knows, or that may come from the broker's own machine only.
    pub async fn login_external(&self, name: &str, peer: Peer) -> Result<Arc<User>, LoginError> {
        let login = self.login_by_chain(Some(name), Proof::External, peer.address.to_canonical());
        login.await.map_err(|reason| LoginError::Refused { user: printable_name(name.as_bytes()), reason })
    }

    /// Whether the user has a permission entry for this vhost, whatever it allows. For users of a backend see [`Foreign::permits`].
    #[must_use]
    pub fn may_enter(&self, user: &User, vhost: &str) -> bool {
        match &user.foreign {
            None => self.permissions(&user.name, vhost).is_some(),
            Some(foreign) => {
                foreign.forget_if_changed(self.generation());
                foreign.permits(Question::Vhost(vhost.to_owned()))
            }
        }
    }

    /// Whether one permission of the user covers a name: one regex search. For users of a backend see [`Foreign::permits`].
    ///
    /// The caller passes `amq.default` for the default exchange. A user that was removed meanwhile has no permission.
    #[must_use]
    pub fn permits(&self, user: &User, vhost: &str, permission: Permission, resource: Resource, name: &str) -> bool {
        match &user.foreign {
            None => self.permissions(&user.name, vhost).is_some_and(|entry| entry.pattern(permission).matches(name)),
            Some(foreign) => {
                foreign.forget_if_changed(self.generation());
                let (vhost, name, permission) = (vhost.to_owned(), name.to_owned(), permission.into());
                foreign.permits(Question::Resource { vhost, resource, name, permission })
            }
        }
    }

    /// Changes whenever a user or a permission changed; for caches such as [`Decisions`].
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The user as it is declared now, without its password.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.accounts.read().get(name).map(|account| Arc::clone(&account.user))
    }

    /// All users, in name order.
    #[must_use]
    pub fn users(&self) -> Vec<Arc<User>> {
        let mut users: Vec<_> = self.accounts.read().values().map(|account| Arc::clone(&account.user)).collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// The permission entries of a user, in vhost order; empty for an unknown user.
    #[must_use]
    pub fn permissions_of(&self, name: &str) -> Vec<PermissionDecl> {
        let accounts = self.accounts.read();
        accounts.get(name).map_or_else(Vec::new, |account| account.permission_decls().cloned().collect())
    }

    /// The topic permission entries of a user, in the order of vhosts and exchanges; empty for an unknown user.
    #[must_use]
    pub fn topic_permissions_of(&self, name: &str) -> Vec<TopicPermissionDecl> {
        let accounts = self.accounts.read();
        accounts.get(name).map_or_else(Vec::new, |account| account.topic_permission_decls().cloned().collect())
    }

    /// What the user may publish to and bind from a topic exchange by routing key; none where there is no entry, and everything is allowed
    /// (semantics 25.7).
    #[must_use]
    pub fn topic_permission(&self, user: &User, vhost: &str, exchange: &str) -> Option<Arc<TopicPermission>> {
        if let Some(user) = &user.foreign {
            let (user, vhost, exchange) = (Arc::clone(user), vhost.to_owned(), exchange.to_owned());
            return Some(Arc::new(TopicPermission::foreign(ForeignTopics { user, vhost, exchange })));
        }
        self.accounts.read().get(&user.name)?.topic_permission(vhost, exchange)
    }

    /// How many connections and channels the user may have now; no limits for an unknown user.
    #[must_use]
    pub fn limits_of(&self, name: &str) -> UserLimitsDecl {
        self.accounts.read().get(name).map(|account| account.limits).unwrap_or_default()
    }

    /// All users as they can be stored or exported, in name order.
    #[must_use]
    pub fn records(&self) -> Vec<UserRecord> {
        let mut records: Vec<_> = self.accounts.read().values().map(|account| account.record()).collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        records
    }

    /// Whether the users are those that are there because nobody has said anything of users.
    #[must_use]
    pub fn has_defaults(&self) -> bool {
        self.has_defaults.load(Ordering::Relaxed)
    }

    /// Where a permission entry comes from; none where there is none.
    #[must_use]
    pub fn permission_origin(&self, name: &str, vhost: &str) -> Option<Origin> {
        self.accounts.read().get(name)?.permission_origin(vhost)
    }

    /// Where a topic permission entry comes from; none where there is none.
    #[must_use]
    pub fn topic_permission_origin(&self, name: &str, vhost: &str, exchange: &str) -> Option<Origin> {
        self.accounts.read().get(name)?.topic_permission_origin(vhost, exchange)
    }

    /// Where the user comes from; none for an unknown user.
    #[must_use]
    pub fn origin_of(&self, name: &str) -> Option<Origin> {
        self.accounts.read().get(name).map(|account| account.origin)
    }

    fn permissions(&self, user: &str, vhost: &str) -> Option<Arc<account::Permissions>> {
        self.accounts.read().get(user)?.permissions(vhost)
    }

    /// After the change is visible: a cache that reads the old generation afterwards can only be too careful.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Access {
    /// Names only: hashes have no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("users", &self.users()).field("generation", &self.generation()).finish()
    }
}

impl From<Permission> for plugin_api::auth::Permission {
    fn from(permission: Permission) -> Self {
        match permission {
            Permission::Configure => Self::Configure,
            Permission::Write => Self::Write,
            Permission::Read => Self::Read,
        }
    }
}

impl From<plugin_api::auth::Permission> for Permission {
    fn from(permission: plugin_api::auth::Permission) -> Self {
        use plugin_api::auth::Permission as Asked;

        match permission {
            Asked::Configure => Self::Configure,
            Asked::Write => Self::Write,
            Asked::Read => Self::Read,
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownUser => "no such user",
            Self::WrongPassword => "wrong password",
            Self::BlankPassword => "blank password",
            Self::NoPassword => "the user has no password, so password login is impossible",
            Self::Backend => "no auth backend accepts it",
            Self::NotFromLoopback => "this user may connect from the broker's own machine only (loopback_only)",
        })
    }
}

/// The name a client gave, cut to a sensible length for the log.
fn printable_name(name: &[u8]) -> String {
    let cut = name.get(..USER_NAME_BYTES_MAX).unwrap_or(name);
    String::from_utf8_lossy(cut).into_owned()
}

#[cfg(test)]
mod tests;
