//! Who may log in, and what a user may do: SASL responses, the internal users, permissions and a cache of decisions.
//!
//! Users and permissions live behind short locks that are never held across a hash, a search or an `.await`, so that they
//! can be changed while connections run; [`Access::generation`] tells caches when that happened. Nothing here knows about
//! connections, frames or reply codes: the connection machine turns a [`LoginError`] into what the client sees.
//! Rules are those of RabbitMQ's pages "Access Control" and "Password Hashing".

mod decisions;
mod password;
mod pattern;
mod sasl;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

pub use self::{
    decisions::Decisions,
    password::{HashAlgorithm, HashError, PasswordHash},
    pattern::{PATTERN_BYTES_MAX, Pattern, PatternError},
    sasl::{Mechanism, MechanismError},
};
use crate::topology::schema::{PasswordDecl, PermissionDecl, UserDecl};

/// The internal users with their permissions.
pub struct Access {
    accounts: RwLock<HashMap<String, Arc<Account>>>,
    generation: AtomicU64,
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
}

/// Where a login comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whether the client's address is a loopback address.
    pub is_loopback: bool,
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
}

/// A change was asked for a user that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user '{0}' does not exist")]
pub struct NoSuchUser(pub String);

/// The longest user name that is kept from a login attempt: the limit of a short string, as everywhere in AMQP.
pub const USER_NAME_BYTES_MAX: usize = 255;

struct Account {
    user: Arc<User>,
    /// `None`: this user cannot log in with a password.
    password: Option<PasswordHash>,
    permissions: BTreeMap<String, Arc<Permissions>>,
}

struct Permissions {
    decl: PermissionDecl,
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

impl Access {
    /// Takes over the declared users; a later declaration of the same name replaces an earlier one.
    #[must_use]
    pub fn new(users: &[UserDecl]) -> Self {
        let accounts = users.iter().map(|decl| (decl.name.clone(), Arc::new(Account::new(decl)))).collect();
        Self { accounts: RwLock::new(accounts), generation: AtomicU64::new(1) }
    }

    /// Checks the response of a SASL mechanism.
    ///
    /// The same amount of hashing is done whether the user exists or not, so that the time of the answer tells nothing
    /// about names. It is asynchronous because other backends than the internal one will wait for a network.
    ///
    /// # Errors
    /// [`LoginError::Malformed`] for a response of the wrong shape, [`LoginError::Refused`] for everything else.
    pub async fn login(&self, mechanism: Mechanism, response: &[u8], peer: Peer) -> Result<Arc<User>, LoginError> {
        let credentials = mechanism
            .credentials(response)
            .map_err(|error| LoginError::Malformed { mechanism, reason: error.reason() })?;
        let name = std::str::from_utf8(credentials.user).ok();
        let account = name.and_then(|name| self.accounts.read().get(name).map(Arc::clone));
        let refused = |reason| LoginError::Refused { user: printable_name(credentials.user), reason };

        let is_right = PasswordHash::verify(account.as_ref().and_then(|a| a.password.as_ref()), credentials.password);
        let account = account.ok_or_else(|| refused(Refusal::UnknownUser))?;
        if credentials.password.is_empty() {
            return Err(refused(Refusal::BlankPassword));
        }
        if account.password.is_none() {
            return Err(refused(Refusal::NoPassword));
        }
        if !is_right {
            return Err(refused(Refusal::WrongPassword));
        }
        if account.user.loopback_only && !peer.is_loopback {
            return Err(refused(Refusal::NotFromLoopback));
        }
        Ok(Arc::clone(&account.user))
    }

    /// Whether the user has a permission entry for this vhost, whatever it allows.
    #[must_use]
    pub fn may_enter(&self, user: &User, vhost: &str) -> bool {
        self.permissions(&user.name, vhost).is_some()
    }

    /// Whether one permission of the user covers a name: one regex search.
    ///
    /// The caller passes `amq.default` for the default exchange. A user that was removed meanwhile has no permission.
    #[must_use]
    pub fn permits(&self, user: &User, vhost: &str, permission: Permission, name: &str) -> bool {
        self.permissions(&user.name, vhost).is_some_and(|entry| entry.pattern(permission).matches(name))
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
        accounts
            .get(name)
            .map_or_else(Vec::new, |account| account.permissions.values().map(|entry| entry.decl.clone()).collect())
    }

    /// Adds a user, or replaces one wholly, permissions included. Connections that are open stay open.
    pub fn put_user(&self, decl: &UserDecl) {
        let account = Arc::new(Account::new(decl));
        self.accounts.write().insert(decl.name.clone(), account);
        self.changed();
    }

    /// Removes a user with its permissions; `false` when there was none.
    pub fn remove_user(&self, name: &str) -> bool {
        let was_there = self.accounts.write().remove(name).is_some();
        if was_there {
            self.changed();
        }
        was_there
    }

    /// Replaces the password only.
    ///
    /// # Errors
    /// [`NoSuchUser`].
    pub fn set_password(&self, name: &str, password: &PasswordDecl) -> Result<(), NoSuchUser> {
        let password = password_hash(name, password);
        self.change(name, |account| account.password = password)
    }

    /// Replaces the tags only. Connections that are open keep the tags they logged in with.
    ///
    /// # Errors
    /// [`NoSuchUser`].
    pub fn set_tags(&self, name: &str, tags: Vec<String>) -> Result<(), NoSuchUser> {
        self.change(name, |account| {
            account.user = Arc::new(User { tags, ..User::clone(&account.user) });
        })
    }

    /// Adds or replaces the permission entry of a user for one vhost.
    ///
    /// # Errors
    /// [`NoSuchUser`].
    pub fn set_permission(&self, name: &str, decl: &PermissionDecl) -> Result<(), NoSuchUser> {
        let entry = Arc::new(Permissions::new(decl));
        self.change(name, |account| {
            account.permissions.insert(decl.vhost.clone(), entry);
        })
    }

    /// Removes the permission entry of a user for one vhost.
    ///
    /// # Errors
    /// [`NoSuchUser`]; a missing entry is no error.
    pub fn remove_permission(&self, name: &str, vhost: &str) -> Result<(), NoSuchUser> {
        self.change(name, |account| {
            account.permissions.remove(vhost);
        })
    }

    /// Removes every permission entry for a vhost that was deleted.
    pub fn remove_vhost(&self, vhost: &str) {
        let mut accounts = self.accounts.write();
        for account in accounts.values_mut().filter(|account| account.permissions.contains_key(vhost)) {
            let mut changed = Account::clone(account);
            changed.permissions.remove(vhost);
            *account = Arc::new(changed);
        }
        drop(accounts);
        self.changed();
    }

    fn permissions(&self, user: &str, vhost: &str) -> Option<Arc<Permissions>> {
        self.accounts.read().get(user)?.permissions.get(vhost).map(Arc::clone)
    }

    fn change(&self, name: &str, edit: impl FnOnce(&mut Account)) -> Result<(), NoSuchUser> {
        let mut accounts = self.accounts.write();
        let account = accounts.get_mut(name).ok_or_else(|| NoSuchUser(name.to_owned()))?;
        let mut changed = Account::clone(account);
        edit(&mut changed);
        *account = Arc::new(changed);
        drop(accounts);
        self.changed();
        Ok(())
    }

    /// After the change is visible: a cache that reads the old generation afterwards can only be too careful.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl Clone for Account {
    fn clone(&self) -> Self {
        Self { user: Arc::clone(&self.user), password: self.password.clone(), permissions: self.permissions.clone() }
    }
}

impl Account {
    fn new(decl: &UserDecl) -> Self {
        Self {
            user: Arc::new(User {
                name: decl.name.clone(),
                tags: decl.tags.clone(),
                loopback_only: decl.loopback_only,
            }),
            password: password_hash(&decl.name, &decl.password),
            permissions: decl
                .permissions
                .iter()
                .map(|permission| (permission.vhost.clone(), Arc::new(Permissions::new(permission))))
                .collect(),
        }
    }
}

impl Permissions {
    /// A pattern that does not compile denies: RabbitMQ does the same, and whoever writes one in the topology file or over
    /// HTTP is told before it comes here.
    fn new(decl: &PermissionDecl) -> Self {
        let compile = |pattern: &str| Pattern::new(pattern).unwrap_or(Pattern::NOTHING);
        Self {
            configure: compile(&decl.configure),
            write: compile(&decl.write),
            read: compile(&decl.read),
            decl: decl.clone(),
        }
    }

    fn pattern(&self, permission: Permission) -> &Pattern {
        match permission {
            Permission::Configure => &self.configure,
            Permission::Write => &self.write,
            Permission::Read => &self.read,
        }
    }
}

impl fmt::Debug for Access {
    /// Names only: hashes have no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("users", &self.users()).field("generation", &self.generation()).finish()
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
            Self::NotFromLoopback => "this user may connect from the broker's own machine only (loopback_only)",
        })
    }
}

/// The hash of a declared password; a stored hash that cannot be read makes password login impossible for that user.
fn password_hash(user: &str, password: &PasswordDecl) -> Option<PasswordHash> {
    match password {
        PasswordDecl::Plain(plain) => Some(PasswordHash::of(plain.as_bytes(), HashAlgorithm::default())),
        PasswordDecl::Hash { hash, .. } if hash.is_empty() => None,
        PasswordDecl::Hash { hash, algorithm } => match PasswordHash::parse(hash, *algorithm) {
            Ok(hash) => Some(hash),
            Err(error) => {
                tracing::warn!(user, %error, "password login is impossible for this user");
                None
            }
        },
    }
}

/// The name a client gave, cut to a sensible length for the log.
fn printable_name(name: &[u8]) -> String {
    let cut = name.get(..USER_NAME_BYTES_MAX).unwrap_or(name);
    String::from_utf8_lossy(cut).into_owned()
}

#[cfg(test)]
mod tests;
