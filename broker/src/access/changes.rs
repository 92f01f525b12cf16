//! Changing users and permissions while the broker runs, and who writes that down.
//!
//! Connections that are open stay open. They keep the tags that they logged in with; permissions and limits take effect at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLockWriteGuard;

use super::account::{Account, LOOPBACK_USER};
use super::{
    Access, HashError, Pattern, PatternError, TopicPermission, USER_NAME_BYTES_MAX, User, UserRecord, UserUpdate,
    happened,
};
use crate::origin::Origin;
use crate::topology::schema::{PermissionDecl, TopicPermissionDecl, UserDecl};

/// Who writes down what must survive. Recording never waits.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Changes, in order.
    fn record(&self, changes: Vec<Change>);
}

/// Something of a user that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A user was added or changed.
    UserPut(UserRecord),
    /// It is gone; its permissions went before.
    UserRemoved(String),
    /// The user of this name has this permission entry.
    PermissionPut(String, PermissionDecl),
    /// The user of this name has no permission entry for this vhost any more.
    PermissionRemoved(String, String),
    /// The user of this name has this topic permission entry.
    TopicPermissionPut(String, TopicPermissionDecl),
    /// The user of this name has no topic permission entry for this vhost and exchange any more.
    TopicPermissionRemoved(String, String, String),
    /// From now on the store knows all users, and none is made because there are none.
    DefaultsLeft,
}

/// A change that is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// There is no user of that name.
    #[error("user '{0}' does not exist")]
    NoSuchUser(String),
    /// A name of nothing, or one that is too long.
    #[error("a user's name has 1 to {USER_NAME_BYTES_MAX} bytes")]
    InvalidName,
    /// Not a regular expression.
    #[error("'{pattern}' is not a regular expression: {error}")]
    InvalidPattern {
        /// As it was given.
        pattern: String,
        /// Why not.
        error: PatternError,
    },
    /// More tags than a user may have.
    #[error("a user has at most {TAGS_MAX} tags of at most {USER_NAME_BYTES_MAX} bytes")]
    TooManyTags,
    /// More users than there may be.
    #[error("there are {USERS_MAX} users, which is the limit")]
    TooManyUsers,
    /// A password hash that cannot be used.
    #[error(transparent)]
    InvalidHash(#[from] HashError),
}

/// Tags of a user, as in RabbitMQ.
pub const TAGS_MAX: usize = 32;
/// Internal users; more belong into a directory of their own.
pub const USERS_MAX: usize = 100_000;

impl fmt::Display for Change {
    /// What it is about, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserPut(UserRecord { name, .. }) | Self::UserRemoved(name) => write!(f, "user '{name}'"),
            Self::PermissionPut(user, PermissionDecl { vhost, .. }) | Self::PermissionRemoved(user, vhost) => {
                write!(f, "permission of user '{user}' in vhost '{vhost}'")
            }
            Self::TopicPermissionPut(user, TopicPermissionDecl { vhost, exchange, .. })
            | Self::TopicPermissionRemoved(user, vhost, exchange) => {
                write!(f, "topic permission of user '{user}' for exchange '{exchange}' in vhost '{vhost}'")
            }
            Self::DefaultsLeft => f.write_str("the default user"),
        }
    }
}

impl Access {
    /// Adds a user, or changes what `update` says of one; permissions stay. Returns whether the user is new.
    ///
    /// # Errors
    /// A name or tags that cannot be, or too many users; nothing is changed then.
    pub fn put_user(&self, name: &str, update: UserUpdate) -> Result<bool, AccessError> {
        if name.is_empty() || name.len() > USER_NAME_BYTES_MAX {
            return Err(AccessError::InvalidName);
        }
        let tags = update.tags.iter().flatten();
        if tags.clone().count() > TAGS_MAX || tags.clone().any(|tag| tag.len() > USER_NAME_BYTES_MAX) {
            return Err(AccessError::TooManyTags);
        }
        let mut accounts = self.for_change();
        let old = accounts.get(name);
        let is_new = old.is_none();
        if is_new && accounts.len() >= USERS_MAX {
            return Err(AccessError::TooManyUsers);
        }
        let mut account = old.map_or_else(
            || {
                let loopback_only = name == LOOPBACK_USER;
                let (password, tags, limits) = (None, Vec::new(), Default::default());
                Account::restored(UserRecord { name: name.to_owned(), password, tags, loopback_only, limits })
            },
            |old| Account::clone(old),
        );
        self.warn_of_topology(account.origin, name, "it");
        let mut user = User::clone(&account.user);
        user.tags = update.tags.unwrap_or(user.tags);
        user.loopback_only = update.loopback_only.unwrap_or(user.loopback_only);
        account.user = Arc::new(user);
        account.password = update.password.unwrap_or(account.password);
        account.limits = update.limits.unwrap_or(account.limits);
        account.origin = Origin::Runtime;
        self.record(vec![Change::UserPut(account.record())]);
        happened::user_put(&self.events, accounts.get(name).map(Arc::as_ref), &account);
        accounts.insert(name.to_owned(), Arc::new(account));
        drop(accounts);
        self.changed();
        Ok(is_new)
    }

    /// Takes a user over from the topology file: what was stored under its name is forgotten, and what the file says of it is not stored. Permissions that the
    /// file does not name stay. Returns whether anything is another than before.
    pub fn put_declared(&self, decl: &UserDecl) -> bool {
        let mut accounts = self.for_change();
        let declared = Account::declared(decl);
        let name = decl.name.as_str();
        let mut changes = Vec::new();
        let mut account = match accounts.get(name) {
            None => declared,
            Some(old) => {
                let mut account = Account::clone(old);
                if account.origin == Origin::Runtime {
                    changes.push(Change::UserRemoved(name.to_owned()));
                }
                (account.user, account.limits, account.origin) = (declared.user, declared.limits, Origin::Topology);
                // A new salt alone is no new password.
                if !decl.password.is(old.password.as_ref()) {
                    account.password = declared.password;
                }
                account
            }
        };
        for entry in &decl.permissions {
            if account.permission_origin(&entry.vhost) == Some(Origin::Runtime) {
                changes.push(Change::PermissionRemoved(name.to_owned(), entry.vhost.clone()));
            }
            account.put_permission(entry, Origin::Topology);
        }
        for entry in &decl.topic_permissions {
            if account.topic_permission_origin(&entry.vhost, &entry.exchange) == Some(Origin::Runtime) {
                changes.push(Change::TopicPermissionRemoved(
                    name.to_owned(),
                    entry.vhost.clone(),
                    entry.exchange.clone(),
                ));
            }
            account.put_topic_permission(entry, Origin::Topology);
        }
        let old = accounts.get(name).map(Arc::as_ref);
        let is_other = old.is_none_or(|old| !old.is_same(&account)) || !changes.is_empty();
        if is_other {
            self.record(changes);
            happened::user_put(&self.events, old, &account);
            accounts.insert(name.to_owned(), Arc::new(account));
        }
        drop(accounts);
        if is_other {
            self.changed();
        }
        is_other
    }

    /// Removes a user with its permissions; `false` when there was none.
    pub fn remove_user(&self, name: &str) -> bool {
        let mut accounts = self.for_change();
        let Some(account) = accounts.remove(name) else { return false };
        self.warn_of_topology(account.origin, name, "it");
        let mut changes: Vec<Change> = account
            .topic_permission_decls()
            .map(|entry| Change::TopicPermissionRemoved(name.into(), entry.vhost.clone(), entry.exchange.clone()))
            .collect();
        changes.extend(
            account.permission_decls().map(|entry| Change::PermissionRemoved(name.into(), entry.vhost.clone())),
        );
        changes.push(Change::UserRemoved(name.to_owned()));
        self.record_and_tell(changes);
        drop(accounts);
        self.changed();
        true
    }

    /// Adds or replaces the permission entry of a user for one vhost.
    ///
    /// # Errors
    /// No such user, or a pattern that is none; nothing is changed then.
    pub fn set_permission(&self, name: &str, decl: &PermissionDecl) -> Result<(), AccessError> {
        for pattern in [&decl.configure, &decl.write, &decl.read] {
            Pattern::new(pattern).map_err(|error| AccessError::InvalidPattern { pattern: pattern.clone(), error })?;
        }
        self.change(name, |account| {
            if let Some(origin) = account.permission_origin(&decl.vhost) {
                self.warn_of_topology(origin, name, "its permission");
            }
            account.put_permission(decl, Origin::Runtime);
            vec![Change::PermissionPut(name.to_owned(), decl.clone())]
        })
    }

    /// Removes the permission entry of a user for one vhost.
    ///
    /// # Errors
    /// No such user; a missing entry is no error.
    pub fn remove_permission(&self, name: &str, vhost: &str) -> Result<(), AccessError> {
        self.change(name, |account| match account.remove_permission(vhost) {
            None => Vec::new(),
            Some(origin) => {
                self.warn_of_topology(origin, name, "its permission");
                vec![Change::PermissionRemoved(name.to_owned(), vhost.to_owned())]
            }
        })
    }

    /// Adds or replaces the topic permission entry of a user for one exchange.
    ///
    /// # Errors
    /// No such user, or a pattern that is none; nothing is changed then.
    pub fn set_topic_permission(&self, name: &str, decl: &TopicPermissionDecl) -> Result<(), AccessError> {
        TopicPermission::check(decl).map_err(|(pattern, error)| AccessError::InvalidPattern { pattern, error })?;
        self.change(name, |account| {
            if let Some(origin) = account.topic_permission_origin(&decl.vhost, &decl.exchange) {
                self.warn_of_topology(origin, name, "its topic permission");
            }
            account.put_topic_permission(decl, Origin::Runtime);
            vec![Change::TopicPermissionPut(name.to_owned(), decl.clone())]
        })
    }

    /// Removes the topic permission entry of a user for one exchange, or all for a vhost.
    ///
    /// # Errors
    /// No such user; a missing entry is no error.
    pub fn remove_topic_permissions(&self, name: &str, vhost: &str, exchange: Option<&str>) -> Result<(), AccessError> {
        self.change(name, |account| {
            let removed = account.remove_topic_permissions(vhost, exchange).into_iter();
            removed
                .map(|(decl, origin)| {
                    self.warn_of_topology(origin, name, "its topic permission");
                    Change::TopicPermissionRemoved(name.to_owned(), decl.vhost, decl.exchange)
                })
                .collect()
        })
    }

    /// Removes every entry for a vhost that was deleted.
    pub fn remove_vhost(&self, vhost: &str) {
        let mut accounts = self.for_change();
        let mut changes = Vec::new();
        for (name, account) in accounts.iter_mut().filter(|(_, account)| account.knows_vhost(vhost)) {
            let account = Arc::make_mut(account);
            let removed = account.remove_topic_permissions(vhost, None).into_iter();
            changes.extend(
                removed.map(|(decl, _)| Change::TopicPermissionRemoved(name.clone(), decl.vhost, decl.exchange)),
            );
            if account.remove_permission(vhost).is_some() {
                changes.push(Change::PermissionRemoved(name.clone(), vhost.to_owned()));
            }
        }
        self.record_and_tell(changes);
        drop(accounts);
        self.changed();
    }

    /// From now on no user is there only because nobody has said anything of users.
    pub fn leave_defaults(&self) {
        let had_defaults = self.has_defaults();
        let accounts = self.for_change();
        if !had_defaults {
            self.record(vec![Change::DefaultsLeft]);
        }
        drop(accounts);
    }

    fn change(&self, name: &str, edit: impl FnOnce(&mut Account) -> Vec<Change>) -> Result<(), AccessError> {
        let mut accounts = self.for_change();
        let account = accounts.get_mut(name).ok_or_else(|| AccessError::NoSuchUser(name.to_owned()))?;
        let changes = edit(Arc::make_mut(account));
        self.record_and_tell(changes);
        drop(accounts);
        self.changed();
        Ok(())
    }

    /// The accounts, to be changed. The default user becomes one of those that the store knows: who changes users has taken over from the defaults.
    pub(super) fn for_change(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Account>>> {
        let mut accounts = self.accounts.write();
        if self.has_defaults.swap(false, Ordering::Relaxed) {
            let mut changes = Vec::new();
            for (name, account) in accounts.iter_mut() {
                let account = Arc::make_mut(account);
                account.take_over();
                changes.push(Change::UserPut(account.record()));
                changes
                    .extend(account.permission_decls().map(|decl| Change::PermissionPut(name.clone(), decl.clone())));
            }
            changes.push(Change::DefaultsLeft);
            self.record(changes);
        }
        accounts
    }

    /// Under the lock of accounts, too: so events come in the order of the changes.
    fn record_and_tell(&self, changes: Vec<Change>) {
        if self.events.is_watched() {
            changes.iter().for_each(|change| happened::changed(&self.events, change));
        }
        self.record(changes);
    }

    /// Under the lock of accounts, so that the ledger hears of changes in their order.
    pub(super) fn record(&self, changes: Vec<Change>) {
        if let Some(ledger) = &self.ledger
            && !changes.is_empty()
        {
            ledger.record(changes);
        }
    }

    fn warn_of_topology(&self, origin: Origin, name: &str, what: &str) {
        if origin == Origin::Topology {
            tracing::warn!(
                user = name,
                "the topology file declares this user, and {what} is as there again after the next start; change it there, too"
            );
        }
    }
}
