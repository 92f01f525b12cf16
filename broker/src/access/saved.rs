//! Users as they were at one moment, to go back to when what was to come with a change of theirs could not be done.

use std::collections::HashMap;
use std::sync::Arc;

use super::account::Account;
use super::{Access, Change, happened};
use crate::origin::Origin;

/// Some users with their passwords and permissions, and where each has come from; also that there was none of a name.
#[derive(Clone, Debug, Default)]
pub struct SavedUsers(HashMap<String, Option<Arc<Account>>>);

impl Access {
    /// What is known of the users of these names now.
    #[must_use]
    pub fn save<'a>(&self, names: impl Iterator<Item = &'a str>) -> SavedUsers {
        let accounts = self.accounts.read();
        SavedUsers(names.map(|name| (name.to_owned(), accounts.get(name).cloned())).collect())
    }

    /// Makes everything of these users as it was, also in the store.
    pub fn put_back(&self, saved: &SavedUsers) {
        for (name, old) in &saved.0 {
            self.put_user_back(name, old.as_ref());
        }
    }

    fn put_user_back(&self, name: &str, old: Option<&Arc<Account>>) {
        let now = self.accounts.read().get(name).cloned();
        let is_same = match (&now, old) {
            (None, None) => true,
            (Some(now), Some(old)) => now.is_same(old),
            _ => false,
        };
        if is_same {
            return;
        }
        let mut accounts = self.for_change();
        let removed = now.as_deref().map(|now| removals(name, now, old.map(Arc::as_ref)));
        let mut changes = removed.unwrap_or_default();
        match old {
            None => {
                happened::changed(&self.events, &Change::UserRemoved(name.to_owned()));
                accounts.remove(name);
            }
            Some(old) => {
                changes.extend(stored(name, old));
                happened::user_put(&self.events, now.as_deref(), old);
                accounts.insert(name.to_owned(), Arc::clone(old));
            }
        }
        self.record(changes);
        drop(accounts);
        self.changed();
    }
}

/// What the store has of a user now and is to have no more. A user goes after its permissions.
fn removals(name: &str, now: &Account, old: Option<&Account>) -> Vec<Change> {
    let goes = |now: Option<Origin>, old: Option<Origin>| now == Some(Origin::Runtime) && old != Some(Origin::Runtime);
    let mut changes = Vec::new();
    for decl in now.permission_decls() {
        let was = old.and_then(|old| old.permission_origin(&decl.vhost));
        if goes(now.permission_origin(&decl.vhost), was) {
            changes.push(Change::PermissionRemoved(name.to_owned(), decl.vhost.clone()));
        }
    }
    for decl in now.topic_permission_decls() {
        let origin = |account: &Account| account.topic_permission_origin(&decl.vhost, &decl.exchange);
        if goes(origin(now), old.and_then(origin)) {
            let (vhost, exchange) = (decl.vhost.clone(), decl.exchange.clone());
            changes.push(Change::TopicPermissionRemoved(name.to_owned(), vhost, exchange));
        }
    }
    if goes(Some(now.origin), old.map(|old| old.origin)) {
        changes.push(Change::UserRemoved(name.to_owned()));
    }
    changes
}

/// What the store is to have of a user: what does not come from the topology file.
fn stored(name: &str, account: &Account) -> Vec<Change> {
    let mut changes = Vec::new();
    if account.origin == Origin::Runtime {
        changes.push(Change::UserPut(account.record()));
    }
    for decl in account.permission_decls() {
        if account.permission_origin(&decl.vhost) == Some(Origin::Runtime) {
            changes.push(Change::PermissionPut(name.to_owned(), decl.clone()));
        }
    }
    for decl in account.topic_permission_decls() {
        if account.topic_permission_origin(&decl.vhost, &decl.exchange) == Some(Origin::Runtime) {
            changes.push(Change::TopicPermissionPut(name.to_owned(), decl.clone()));
        }
    }
    changes
}
