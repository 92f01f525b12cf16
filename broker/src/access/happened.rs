//! What is told of changes of users to whoever listens to [`crate::events`] (semantics 29.2).

use plugin_api::value::{Table, Value};

use super::Change;
use super::account::Account;
use crate::events::{Events, Kind, PERFORMED_BY, actor};
use crate::topology::schema::UserLimitsDecl;

/// A user was added, or is not as it was.
pub(super) fn user_put(events: &Events, old: Option<&Account>, new: &Account) {
    let name = || by(Table::new().with("name", new.user.name.as_str()));
    if old.is_none() {
        events.tell(Kind::UserCreated, None, name);
    } else if old.is_some_and(|old| old.password != new.password) {
        let kind = if new.password.is_some() { Kind::UserPasswordChanged } else { Kind::UserPasswordCleared };
        events.tell(kind, None, name);
    }
    let old_tags = old.map_or(&[][..], |old| &old.user.tags);
    if old_tags != new.user.tags {
        let tags = || new.user.tags.iter().map(|tag| Value::from(tag.as_str())).collect();
        events.tell(Kind::UserTagsSet, None, || name().with("tags", Value::Array(tags())));
    }
    if old.map_or(UserLimitsDecl::default(), |old| old.limits) != new.limits {
        let is_cleared = new.limits == UserLimitsDecl::default();
        let kind = if is_cleared { Kind::UserLimitsCleared } else { Kind::UserLimitsSet };
        events.tell(kind, None, || by(limits(&new.user.name, new.limits)));
    }
}

fn limits(user: &str, limits: UserLimitsDecl) -> Table {
    let limits = [("max-connections", limits.max_connections), ("max-channels", limits.max_channels)];
    let table = Table::new().with("name", "limits").with("username", user);
    limits.into_iter().fold(table, |table, (name, limit)| match limit {
        Some(limit) => table.with(name, limit),
        None => table,
    })
}

/// What the ledger is told, but of users.
pub(super) fn changed(events: &Events, change: &Change) {
    let user = |user: &str| by(Table::new().with("user", user));
    match change {
        Change::UserPut(_) | Change::DefaultsLeft => {}
        Change::UserRemoved(name) => {
            events.tell(Kind::UserDeleted, None, || by(Table::new().with("name", name.as_str())));
        }
        Change::PermissionPut(name, decl) => events.tell(Kind::PermissionCreated, Some(&decl.vhost), || {
            let table = user(name).with("configure", decl.configure.as_str());
            table.with("write", decl.write.as_str()).with("read", decl.read.as_str())
        }),
        Change::PermissionRemoved(name, vhost) => {
            events.tell(Kind::PermissionDeleted, Some(vhost), || user(name));
        }
        Change::TopicPermissionPut(name, decl) => {
            events.tell(Kind::TopicPermissionCreated, Some(&decl.vhost), || {
                let table = user(name).with("exchange", decl.exchange.as_str());
                table.with("write", decl.write.as_str()).with("read", decl.read.as_str())
            });
        }
        Change::TopicPermissionRemoved(name, vhost, exchange) => {
            events.tell(Kind::TopicPermissionDeleted, Some(vhost), || user(name).with("exchange", exchange.as_str()));
        }
    }
}

/// With whose doing it is.
fn by(table: Table) -> Table {
    table.with(PERFORMED_BY, &*actor())
}
