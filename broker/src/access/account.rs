//! One user with its password, limits and permissions, each with where it comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::foreign::ForeignTopics;
use super::{PasswordHash, Pattern, Permission, User};
use crate::origin::Origin;
use crate::topology::schema::{PasswordDecl, PermissionDecl, TopicPermissionDecl, UserDecl, UserLimitsDecl};

/// A user without its permissions, as it is stored and exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Unique.
    pub name: String,
    /// None: this user cannot log in with a password.
    pub password: Option<PasswordHash>,
    /// `administrator`, `monitoring`, …
    pub tags: Vec<String>,
    /// Whether this user may log in only from the broker's own machine.
    pub loopback_only: bool,
    /// How many connections and channels it may have.
    pub limits: UserLimitsDecl,
}

/// What is to be changed of a user, or what a new one has. What is left out stays as it is; a new user has no tags, no limits, and no password.
#[derive(Clone, Debug, Default)]
pub struct UserUpdate {
    /// `Some(None)`: no login with a password.
    pub password: Option<Option<PasswordHash>>,
    /// All tags.
    pub tags: Option<Vec<String>>,
    /// Whether logins are accepted from the broker's own machine only. A new user called guest is so unless this says otherwise, as in RabbitMQ
    /// (semantics 4.8).
    pub loopback_only: Option<bool>,
    /// All limits.
    pub limits: Option<UserLimitsDecl>,
}

/// What the store knows of users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAccounts {
    /// The users.
    pub users: Vec<UserRecord>,
    /// Their permissions, each with the user's name.
    pub permissions: Vec<(String, PermissionDecl)>,
    /// Their topic permissions, each with the user's name.
    pub topic_permissions: Vec<(String, TopicPermissionDecl)>,
}

/// What a user may do with one topic exchange, by routing key (semantics 25.7).
#[derive(Debug)]
pub struct TopicPermission(Topics);

#[derive(Debug)]
enum Topics {
    Internal {
        decl: TopicPermissionDecl,
        write: Pattern,
        read: Pattern,
    },
    /// A backend says it, key by key.
    Foreign(ForeignTopics),
}

/// What a user may do in one vhost, by name.
#[derive(Debug)]
pub(super) struct Permissions {
    decl: PermissionDecl,
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) user: Arc<User>,
    /// `None`: this user cannot log in with a password.
    pub(super) password: Option<PasswordHash>,
    pub(super) limits: UserLimitsDecl,
    pub(super) origin: Origin,
    /// By vhost.
    permissions: BTreeMap<String, (Arc<Permissions>, Origin)>,
    /// By vhost and exchange.
    topic_permissions: BTreeMap<(String, String), (Arc<TopicPermission>, Origin)>,
}

/// RabbitMQ's default user may log in from the broker's machine only (semantics 4.8).
pub(super) const LOOPBACK_USER: &str = "guest";

impl Account {
    pub(super) fn declared(decl: &UserDecl) -> Self {
        let record = UserRecord {
            name: decl.name.clone(),
            password: decl.password.to_hash(&decl.name),
            tags: decl.tags.clone(),
            loopback_only: decl.loopback_only,
            limits: decl.limits,
        };
        let mut account = Self { origin: Origin::Topology, ..Self::restored(record) };
        decl.permissions.iter().for_each(|permission| account.put_permission(permission, Origin::Topology));
        for permission in &decl.topic_permissions {
            account.put_topic_permission(permission, Origin::Topology);
        }
        account
    }

    pub(super) fn restored(record: UserRecord) -> Self {
        let UserRecord { name, password, tags, loopback_only, limits } = record;
        let user = Arc::new(User { name, tags, loopback_only, foreign: None });
        let (permissions, topic_permissions) = (BTreeMap::new(), BTreeMap::new());
        Self { user, password, limits, origin: Origin::Runtime, permissions, topic_permissions }
    }

    pub(super) fn record(&self) -> UserRecord {
        let User { name, tags, loopback_only, .. } = User::clone(&self.user);
        UserRecord { name, password: self.password.clone(), tags, loopback_only, limits: self.limits }
    }

    pub(super) fn permissions(&self, vhost: &str) -> Option<Arc<Permissions>> {
        self.permissions.get(vhost).map(|(entry, _)| Arc::clone(entry))
    }

    pub(super) fn permission_decls(&self) -> impl Iterator<Item = &PermissionDecl> {
        self.permissions.values().map(|(entry, _)| &entry.decl)
    }

    pub(super) fn permission_origin(&self, vhost: &str) -> Option<Origin> {
        self.permissions.get(vhost).map(|(_, origin)| *origin)
    }

    pub(super) fn put_permission(&mut self, decl: &PermissionDecl, origin: Origin) {
        self.permissions.insert(decl.vhost.clone(), (Arc::new(Permissions::new(decl)), origin));
    }

    pub(super) fn remove_permission(&mut self, vhost: &str) -> Option<Origin> {
        self.permissions.remove(vhost).map(|(_, origin)| origin)
    }

    pub(super) fn topic_permission(&self, vhost: &str, exchange: &str) -> Option<Arc<TopicPermission>> {
        if self.topic_permissions.is_empty() {
            return None;
        }
        let key = (vhost.to_owned(), exchange.to_owned());
        self.topic_permissions.get(&key).map(|(entry, _)| Arc::clone(entry))
    }

    pub(super) fn topic_permission_decls(&self) -> impl Iterator<Item = &TopicPermissionDecl> {
        self.topic_permissions.values().filter_map(|(entry, _)| entry.decl())
    }

    pub(super) fn topic_permission_origin(&self, vhost: &str, exchange: &str) -> Option<Origin> {
        self.topic_permissions.get(&(vhost.to_owned(), exchange.to_owned())).map(|(_, origin)| *origin)
    }

    pub(super) fn put_topic_permission(&mut self, decl: &TopicPermissionDecl, origin: Origin) {
        let key = (decl.vhost.clone(), decl.exchange.clone());
        let entry = Arc::new(TopicPermission::new(decl, &self.user.name));
        self.topic_permissions.insert(key, (entry, origin));
    }

    /// Whether both say the same, and have it from the same places.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let permissions = |account: &Self| -> Vec<(PermissionDecl, Origin)> {
            account.permissions.values().map(|(entry, origin)| (entry.decl.clone(), *origin)).collect()
        };
        let topics = |account: &Self| -> Vec<(Option<TopicPermissionDecl>, Origin)> {
            account.topic_permissions.values().map(|(entry, origin)| (entry.decl().cloned(), *origin)).collect()
        };
        self.record() == other.record()
            && self.origin == other.origin
            && permissions(self) == permissions(other)
            && topics(self) == topics(other)
    }

    /// From now on everything of it is the store's.
    pub(super) fn take_over(&mut self) {
        self.origin = Origin::Runtime;
        self.permissions.values_mut().for_each(|(_, origin)| *origin = Origin::Runtime);
        self.topic_permissions.values_mut().for_each(|(_, origin)| *origin = Origin::Runtime);
    }

    /// Whether there is any entry for this vhost.
    pub(super) fn knows_vhost(&self, vhost: &str) -> bool {
        self.permissions.contains_key(vhost) || self.topic_permissions.keys().any(|(of, _)| of == vhost)
    }

    /// Removes the entry for one exchange, or all of a vhost; returns what was removed.
    pub(super) fn remove_topic_permissions(
        &mut self,
        vhost: &str,
        exchange: Option<&str>,
    ) -> Vec<(TopicPermissionDecl, Origin)> {
        let is_meant = |decl: &TopicPermissionDecl| {
            decl.vhost == vhost && exchange.is_none_or(|exchange| decl.exchange == exchange)
        };
        let removed = self.topic_permissions.extract_if(.., |_, (entry, _)| entry.decl().is_some_and(is_meant));
        removed.filter_map(|(_, (entry, origin))| Some((entry.decl()?.clone(), origin))).collect()
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

    pub(super) fn pattern(&self, permission: Permission) -> &Pattern {
        match permission {
            Permission::Configure => &self.configure,
            Permission::Write => &self.write,
            Permission::Read => &self.read,
        }
    }
}

impl TopicPermission {
    fn new(decl: &TopicPermissionDecl, user: &str) -> Self {
        let compile = |pattern: &str| Pattern::new(&expanded(pattern, user, &decl.vhost)).unwrap_or(Pattern::NOTHING);
        Self(Topics::Internal { write: compile(&decl.write), read: compile(&decl.read), decl: decl.clone() })
    }

    pub(super) const fn foreign(topics: ForeignTopics) -> Self {
        Self(Topics::Foreign(topics))
    }

    /// As it was declared; none where a backend says it.
    const fn decl(&self) -> Option<&TopicPermissionDecl> {
        match &self.0 {
            Topics::Internal { decl, .. } => Some(decl),
            Topics::Foreign(_) => None,
        }
    }

    /// Whether a routing key may be published with (write) or bound with (read).
    #[must_use]
    pub fn permits(&self, permission: Permission, routing_key: &str) -> bool {
        match (&self.0, permission) {
            (Topics::Internal { write, .. }, Permission::Write) => write.matches(routing_key),
            (Topics::Internal { read, .. }, Permission::Read) => read.matches(routing_key),
            (Topics::Foreign(topics), permission) => topics.permits(permission.into(), routing_key),
            (Topics::Internal { .. }, Permission::Configure) => true,
        }
    }

    /// Whether both patterns are valid, placeholders included.
    ///
    /// # Errors
    /// The pattern that is not, with the reason.
    pub fn check(decl: &TopicPermissionDecl) -> Result<(), (String, super::PatternError)> {
        for pattern in [&decl.write, &decl.read] {
            Pattern::new(&expanded(pattern, "user", &decl.vhost)).map_err(|error| (pattern.clone(), error))?;
        }
        Ok(())
    }
}

/// A pattern with its placeholders filled in. The values are text, whatever they look like. AMQP has no client id, so that one stays as it is written.
fn expanded(pattern: &str, user: &str, vhost: &str) -> String {
    if !pattern.contains('{') {
        return pattern.to_owned();
    }
    let filled =
        pattern.replace("{username}", &fancy_regex::escape(user)).replace("{vhost}", &fancy_regex::escape(vhost));
    filled.replace("{client_id}", r"\{client_id\}")
}

impl PasswordDecl {
    /// Whether this is the password with that hash; for a hash, whether it is the same one.
    #[must_use]
    pub fn is(&self, current: Option<&PasswordHash>) -> bool {
        match (self, current) {
            (Self::Plain(plain), Some(current)) => PasswordHash::verify(Some(current), plain.as_bytes()),
            (Self::Plain(_), None) => false,
            (Self::Hash { hash, .. }, None) => hash.is_empty(),
            (Self::Hash { hash, algorithm }, Some(current)) => {
                *hash == current.to_stored() && *algorithm == current.algorithm()
            }
        }
    }

    /// The hash of a declared password; a stored hash that cannot be read makes password login impossible for that user.
    pub fn to_hash(&self, user: &str) -> Option<PasswordHash> {
        match self {
            Self::Plain(plain) => Some(PasswordHash::of(plain.as_bytes(), super::HashAlgorithm::default())),
            Self::Hash { hash, .. } if hash.is_empty() => None,
            Self::Hash { hash, algorithm } => match PasswordHash::parse(hash, *algorithm) {
                Ok(hash) => Some(hash),
                Err(error) => {
                    tracing::warn!(user, %error, "password login is impossible for this user");
                    None
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(write: &str, read: &str) -> TopicPermissionDecl {
        TopicPermissionDecl { vhost: "v1".into(), exchange: "x".into(), write: write.into(), read: read.into() }
    }

    /// Semantics 25.7.
    #[test]
    fn placeholders_of_topic_permissions_are_filled_in_as_text() {
        let check = |pattern: &str, user: &str, matching: &[&str], others: &[&str]| {
            let permission = TopicPermission::new(&topic(pattern, ""), user);
            for key in matching {
                assert!(permission.permits(Permission::Write, key), "{pattern} should allow {key}");
            }
            for key in others {
                assert!(!permission.permits(Permission::Write, key), "{pattern} should refuse {key}");
            }
            assert!(!permission.permits(Permission::Read, "x"), "the empty pattern allows nothing");
        };
        check("^{username}\\.", "bob", &["bob.x"], &["alice.x", "bobby"]);
        check("^{username}$", "a.c", &["a.c"], &["abc"]);
        check("^{username}$", ".*", &[".*"], &["anything"]);
        check("^{vhost}-{username}", "bob", &["v1-bob"], &["v2-bob"]);
        check("^{client_id}$", "bob", &["{client_id}"], &["bob"]);
        check("^a{2}$", "bob", &["aa"], &["a"]);
        check("(", "bob", &[], &["("]);
    }

    #[test]
    fn broken_patterns_of_topic_permissions_are_named() {
        assert!(TopicPermission::check(&topic("{username}.*", "^{vhost}")).is_ok());
        assert_eq!(TopicPermission::check(&topic(".*", "(")).unwrap_err().0, "(");
    }
}
