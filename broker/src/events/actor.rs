//! Whose doing a change of settings is: `user_who_performed_action` of policies, parameters, limits, vhosts, users and permissions.
//!
//! A change of settings runs on one thread from its entry to the last event of it, through a dozen functions of `vhost`, `access` and `topology` that have no
//! other use for a name. So whoever lets a user in says so once for the thread ([`acting_as`]), and what tells of a setting asks ([`actor`]).
//! What clients declare, bind and delete over AMQP has a user of its own at hand and does not ask here; nor does what only happens to run on the thread,
//! as the machine of a queue does.

use std::cell::RefCell;
use std::sync::Arc;

/// Who acts when nobody said so: the topology file and the broker itself. RabbitMQ's name.
pub const INTERNAL_USER: &str = "rmq-internal";

/// The property that says whose doing it was.
pub const PERFORMED_BY: &str = "user_who_performed_action";

thread_local! {
    static ACTOR: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Carries something out in a user's name. It ends with the call, also with one that panics.
pub fn acting_as<T>(user: &str, act: impl FnOnce() -> T) -> T {
    let _before = Before(ACTOR.replace(Some(user.into())));
    act()
}

/// Who acts on this thread.
pub fn actor() -> Arc<str> {
    ACTOR.with_borrow(|actor| actor.clone()).unwrap_or_else(|| INTERNAL_USER.into())
}

/// Who acted before; again when it is dropped.
struct Before(Option<Arc<str>>);

impl Drop for Before {
    fn drop(&mut self) {
        ACTOR.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_acts_for_one_call_on_one_thread() {
        assert_eq!(&*actor(), INTERNAL_USER);
        let inside = acting_as("alice", || {
            let elsewhere = std::thread::spawn(actor).join().unwrap();
            (actor(), acting_as("bob", actor), actor(), elsewhere)
        });
        assert_eq!(inside, ("alice".into(), "bob".into(), "alice".into(), INTERNAL_USER.into()));
        let panicked = std::panic::catch_unwind(|| acting_as("carol", || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(&*actor(), INTERNAL_USER, "also after a panic");
    }
}
