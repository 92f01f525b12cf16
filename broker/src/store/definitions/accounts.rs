//! Users and their permissions, in the store. Passwords are there as salted hashes only.

use serde::{Deserialize, Serialize};

use super::{DEFAULT_USERS_LEFT, Entry, OTHER_PARTS, global_parameter_entry, json, key, parse};
use crate::access::{Change, HashAlgorithm, PasswordHash, StoredAccounts, UserRecord};
use crate::topology::schema::{PermissionDecl, TopicPermissionDecl, UserLimitsDecl};

/// The first part of a key.
mod kind {
    pub(super) const USER: &str = "user";
    pub(super) const PERMISSION: &str = "permission";
    pub(super) const TOPIC_PERMISSION: &str = "topic-permission";
}

#[derive(Serialize, Deserialize)]
struct UserValue {
    /// Nothing: no login with a password.
    password_hash: String,
    hashing_algorithm: String,
    tags: Vec<String>,
    loopback_only: bool,
    max_connections: Option<i64>,
    max_channels: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct PermissionValue {
    configure: String,
    write: String,
    read: String,
}

#[derive(Serialize, Deserialize)]
struct TopicPermissionValue {
    write: String,
    read: String,
}

pub(super) fn entry(change: &Change) -> Entry {
    match change {
        Change::UserPut(record) => {
            let UserLimitsDecl { max_connections, max_channels } = record.limits;
            let hash = record.password.as_ref();
            let value = UserValue {
                password_hash: hash.map(PasswordHash::to_stored).unwrap_or_default(),
                hashing_algorithm: hash.map(PasswordHash::algorithm).unwrap_or_default().to_string(),
                tags: record.tags.clone(),
                loopback_only: record.loopback_only,
                max_connections,
                max_channels,
            };
            (key(&[kind::USER, &record.name]), Some(json(&value)))
        }
        Change::UserRemoved(name) => (key(&[kind::USER, name]), None),
        Change::PermissionPut(user, decl) => {
            let PermissionDecl { vhost, configure, write, read } = decl.clone();
            (key(&[kind::PERMISSION, &vhost, user]), Some(json(&PermissionValue { configure, write, read })))
        }
        Change::PermissionRemoved(user, vhost) => (key(&[kind::PERMISSION, vhost, user]), None),
        Change::TopicPermissionPut(user, decl) => {
            let TopicPermissionDecl { vhost, exchange, write, read } = decl.clone();
            let key = key(&[kind::TOPIC_PERMISSION, &vhost, user, &exchange]);
            (key, Some(json(&TopicPermissionValue { write, read })))
        }
        Change::TopicPermissionRemoved(user, vhost, exchange) => {
            (key(&[kind::TOPIC_PERMISSION, vhost, user, exchange]), None)
        }
        Change::DefaultsLeft => global_parameter_entry(DEFAULT_USERS_LEFT, Some(&serde_json::Value::Bool(true))),
    }
}

/// Reads an entry; those of other kinds are left alone.
pub(super) fn read(parts: &[&str], value: &[u8], accounts: &mut StoredAccounts) -> Result<(), String> {
    match *parts {
        [kind::USER, name] => {
            let value: UserValue = parse(value)?;
            let algorithm = HashAlgorithm::parse(&value.hashing_algorithm).map_err(|error| error.to_string())?;
            let password = match value.password_hash.as_str() {
                "" => None,
                hash => Some(PasswordHash::parse(hash, algorithm).map_err(|error| error.to_string())?),
            };
            let UserValue { tags, loopback_only, max_connections, max_channels, .. } = value;
            let limits = UserLimitsDecl { max_connections, max_channels };
            accounts.users.push(UserRecord { name: name.into(), password, tags, loopback_only, limits });
        }
        [kind::PERMISSION, vhost, user] => {
            let PermissionValue { configure, write, read } = parse(value)?;
            accounts.permissions.push((user.into(), PermissionDecl { vhost: vhost.into(), configure, write, read }));
        }
        [kind::TOPIC_PERMISSION, vhost, user, exchange] => {
            let TopicPermissionValue { write, read } = parse(value)?;
            let decl = TopicPermissionDecl { vhost: vhost.into(), exchange: exchange.into(), write, read };
            accounts.topic_permissions.push((user.into(), decl));
        }
        [kind::USER | kind::PERMISSION | kind::TOPIC_PERMISSION, ..] => return Err(OTHER_PARTS.into()),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Definitions, read};
    use super::*;

    /// Semantics 27.1.
    #[test]
    fn users_and_permissions_come_back_as_they_were() {
        let user = UserRecord {
            name: "app".into(),
            password: Some(PasswordHash::of(b"secret", HashAlgorithm::Sha512)),
            tags: vec!["administrator".into()],
            loopback_only: true,
            limits: UserLimitsDecl { max_connections: Some(3), max_channels: Some(-1) },
        };
        let nobody = UserRecord {
            name: "nobody".into(),
            password: None,
            tags: Vec::new(),
            loopback_only: false,
            limits: UserLimitsDecl::default(),
        };
        let text = |text: &str| text.to_owned();
        let permission = PermissionDecl { vhost: text("/"), configure: text("^a"), write: text(""), read: text(".*") };
        let topic =
            TopicPermissionDecl { vhost: text("/"), exchange: text("x"), write: text("^{username}"), read: text("") };
        let changes = [
            Change::UserPut(user.clone()),
            Change::UserPut(nobody.clone()),
            Change::PermissionPut(text("app"), permission.clone()),
            Change::TopicPermissionPut(text("app"), topic.clone()),
        ];
        let meta: Vec<_> = changes.iter().map(entry).map(|(key, value)| (key, value.unwrap())).collect();
        assert!(!meta.iter().any(|(_, value)| String::from_utf8_lossy(value).contains("secret")));
        let accounts = StoredAccounts {
            users: vec![user, nobody],
            permissions: vec![(text("app"), permission)],
            topic_permissions: vec![(text("app"), topic)],
        };
        assert_eq!(read(&meta), Ok(Definitions { accounts, ..Definitions::default() }));
        let removed = [
            Change::UserRemoved(text("app")),
            Change::UserRemoved(text("nobody")),
            Change::PermissionRemoved(text("app"), text("/")),
            Change::TopicPermissionRemoved(text("app"), text("/"), text("x")),
        ];
        let keys: Vec<_> = removed.iter().map(entry).collect();
        assert_eq!(keys, meta.into_iter().map(|(key, _)| (key, None)).collect::<Vec<_>>());
    }
}
