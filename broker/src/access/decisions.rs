//! The last answers about permissions, kept per connection so that a publisher does not search a regex for each message.
//!
//! The cache belongs to one connection; it is emptied whenever a user or permission changed anywhere, so that a revoked
//! permission takes effect at once (RabbitMQ keeps its answers until the client reconnects).

use super::{Access, Permission, Resource, User};

/// A small cache over [`Access::permits`].
#[derive(Debug, Default)]
pub struct Decisions {
    generation: u64,
    user: String,
    vhost: String,
    entries: Vec<Entry>,
    /// Where the last answer stands; the next question is usually the same.
    last: usize,
    /// Which entry is given up next when the cache is full.
    oldest: usize,
}

#[derive(Debug)]
struct Entry {
    permission: Permission,
    resource: Resource,
    name: String,
    is_permitted: bool,
}

/// As many as RabbitMQ keeps per channel: enough for the exchanges and queues of one client, few enough to scan.
const ENTRIES_MAX: usize = 12;

impl Decisions {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same answer as [`Access::permits`], from memory where possible.
    pub fn permits(
        &mut self,
        access: &Access,
        user: &User,
        vhost: &str,
        permission: Permission,
        resource: Resource,
        name: &str,
    ) -> bool {
        // Answers of backends are kept with their users.
        if user.foreign.is_some() {
            return access.permits(user, vhost, permission, resource, name);
        }
        // Read before the question is answered: a change in between makes the answer old at once, never too new.
        let generation = access.generation();
        if self.generation != generation || self.user != user.name || self.vhost != vhost {
            self.start_over(generation, user, vhost);
        }
        if let Some(entry) = self.entries.get(self.last)
            && entry.answers(permission, resource, name)
        {
            return entry.is_permitted;
        }
        if let Some(at) = self.entries.iter().position(|entry| entry.answers(permission, resource, name)) {
            self.last = at;
            return self.entries.get(at).is_some_and(|entry| entry.is_permitted);
        }
        let is_permitted = access.permits(user, vhost, permission, resource, name);
        self.keep(Entry { permission, resource, name: name.to_owned(), is_permitted });
        is_permitted
    }

    fn start_over(&mut self, generation: u64, user: &User, vhost: &str) {
        self.generation = generation;
        self.user.clone_from(&user.name);
        vhost.clone_into(&mut self.vhost);
        self.entries.clear();
        (self.last, self.oldest) = (0, 0);
    }

    fn keep(&mut self, entry: Entry) {
        if self.entries.len() < ENTRIES_MAX {
            self.last = self.entries.len();
            self.entries.push(entry);
        } else if let Some(slot) = self.entries.get_mut(self.oldest) {
            *slot = entry;
            self.last = self.oldest;
            self.oldest = (self.oldest + 1) % ENTRIES_MAX;
        }
    }
}

impl Entry {
    fn answers(&self, permission: Permission, resource: Resource, name: &str) -> bool {
        self.permission == permission && self.resource == resource && self.name == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::{permission, user};

    fn access() -> (Access, std::sync::Arc<User>) {
        let access = Access::new(&[user("app", &[permission("/", "", "^orders", "^q[0-9]+$")])]);
        let app = access.user("app").unwrap();
        (access, app)
    }

    #[test]
    fn answers_equal_the_uncached_ones_beyond_the_limit() {
        let (access, app) = access();
        let mut decisions = Decisions::new();
        for round in 0..3 {
            for number in 0..40 {
                let name = format!("q{number}{}", if number % 3 == 0 { "x" } else { "" });
                for permission in [Permission::Configure, Permission::Write, Permission::Read] {
                    assert_eq!(
                        decisions.permits(&access, &app, "/", permission, Resource::Queue, &name),
                        access.permits(&app, "/", permission, Resource::Queue, &name),
                        "round {round}, {permission} {name}"
                    );
                }
            }
        }
        assert_eq!(decisions.entries.len(), ENTRIES_MAX);
    }

    #[test]
    fn change_of_permissions_takes_effect_at_once() {
        let (access, app) = access();
        let mut decisions = Decisions::new();
        assert!(decisions.permits(&access, &app, "/", Permission::Write, Resource::Exchange, "orders"));
        access.set_permission("app", &permission("/", "", "", "")).unwrap();
        assert!(!decisions.permits(&access, &app, "/", Permission::Write, Resource::Exchange, "orders"));
        access.set_permission("app", &permission("/", "", "orders", "")).unwrap();
        assert!(decisions.permits(&access, &app, "/", Permission::Write, Resource::Exchange, "orders"));
        access.remove_user("app");
        assert!(!decisions.permits(&access, &app, "/", Permission::Write, Resource::Exchange, "orders"));
    }

    #[test]
    fn another_vhost_gets_its_own_answers() {
        let (access, app) = access();
        let mut decisions = Decisions::new();
        assert!(decisions.permits(&access, &app, "/", Permission::Write, Resource::Exchange, "orders"));
        assert!(!decisions.permits(&access, &app, "other", Permission::Write, Resource::Exchange, "orders"));
        assert!(decisions.permits(&access, &app, "/", Permission::Write, Resource::Exchange, "orders"));
    }
}
