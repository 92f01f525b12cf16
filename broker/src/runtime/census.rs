//! Who is connected: the mailboxes of connections, and how many connections and channels vhosts and users have.
//!
//! A connection is counted for its vhost and user from the moment it is let in until the client hears that it is closed, so that whoever reconnects then
//! finds room.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::mailbox::Mailbox;
use crate::topology::schema::UserLimitsDecl;
use crate::vhost::settings::{VhostLimits, reached};

/// See the module.
#[derive(Debug, Default)]
pub struct Census {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_number: u64,
    connections: HashMap<u64, Entry>,
    of_vhost: HashMap<Arc<str>, usize>,
    of_user: HashMap<Arc<str>, OfUser>,
}

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    /// User and vhost, once it is let in.
    entered: Option<(Arc<str>, Arc<str>)>,
    channels: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct OfUser {
    connections: usize,
    channels: usize,
}

/// Which limit keeps a connection out (semantics 3.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The vhost's, and how many it allows.
    Vhost(u64),
    /// The user's, and how many it allows.
    User(u64),
}

impl Census {
    /// Numbers a connection and keeps its mailbox until [`Self::forget`].
    pub fn register(&self, mailbox: Arc<Mailbox>) -> u64 {
        let mut inner = self.inner.lock();
        inner.next_number += 1;
        let number = inner.next_number;
        inner.connections.insert(number, Entry { mailbox, entered: None, channels: 0 });
        number
    }

    /// A number that no connection has, for somebody who holds messages and has no connection.
    pub fn take_number(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.next_number += 1;
        inner.next_number
    }

    /// Lets a connection of a user into a vhost, if the limits allow one more.
    ///
    /// # Errors
    /// The first limit that does not, the vhost's before the user's (semantics 3.10).
    pub fn enter(
        &self,
        number: u64,
        (user, user_limits): (&str, UserLimitsDecl),
        (vhost, vhost_limits): (&Arc<str>, VhostLimits),
    ) -> Result<(), Full> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let of_vhost = inner.of_vhost.get(vhost).copied().unwrap_or(0);
        if let Some(limit) = vhost_limits.connections_reached(of_vhost) {
            return Err(Full::Vhost(limit));
        }
        let of_user = inner.of_user.get(user).copied().unwrap_or_default();
        if let Some(limit) = reached(user_limits.max_connections, of_user.connections) {
            return Err(Full::User(limit));
        }
        let Some(entry) = inner.connections.get_mut(&number) else { return Ok(()) };
        let user: Arc<str> = user.into();
        *inner.of_vhost.entry(Arc::clone(vhost)).or_default() += 1;
        inner.of_user.entry(Arc::clone(&user)).or_default().connections += 1;
        entry.entered = Some((user, Arc::clone(vhost)));
        Ok(())
    }

    /// Counts a new channel, if the user may have one more on all connections together.
    ///
    /// # Errors
    /// How many it may have (semantics 5.7).
    pub fn open_channel(&self, number: u64, max_channels: Option<i64>) -> Result<(), u64> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(entry) = inner.connections.get_mut(&number) else { return Ok(()) };
        let Some((user, _)) = &entry.entered else { return Ok(()) };
        let Some(of_user) = inner.of_user.get_mut(user) else { return Ok(()) };
        if let Some(limit) = reached(max_channels, of_user.channels) {
            return Err(limit);
        }
        of_user.channels += 1;
        entry.channels += 1;
        Ok(())
    }

    /// A channel that was counted is closed.
    pub fn close_channel(&self, number: u64) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(entry) = inner.connections.get_mut(&number).filter(|entry| entry.channels > 0) else { return };
        entry.channels -= 1;
        if let Some(of_user) = entry.entered.as_ref().and_then(|(user, _)| inner.of_user.get_mut(user)) {
            of_user.channels = of_user.channels.saturating_sub(1);
        }
    }

    /// The connection has left its vhost, with all its channels; its mailbox is still there.
    pub fn leave(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.leave(number);
    }

    /// The connection is gone.
    pub fn forget(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.leave(number);
        inner.connections.remove(&number);
    }

    /// How many connections there are, with those that are not let in yet.
    pub fn len(&self) -> usize {
        self.inner.lock().connections.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections there are in a vhost.
    pub fn of_vhost(&self, vhost: &str) -> usize {
        self.inner.lock().of_vhost.get(vhost).copied().unwrap_or(0)
    }

    /// The mailbox of a connection.
    pub fn mailbox(&self, number: u64) -> Option<Arc<Mailbox>> {
        self.inner.lock().connections.get(&number).map(|entry| Arc::clone(&entry.mailbox))
    }

    /// Everybody's mailbox.
    pub fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.inner.lock().connections.values().map(|entry| Arc::clone(&entry.mailbox)).collect()
    }

    /// The mailboxes of those in a vhost.
    pub fn mailboxes_in(&self, vhost: &str) -> Vec<Arc<Mailbox>> {
        let inner = self.inner.lock();
        let is_in = |entry: &&Entry| entry.entered.as_ref().is_some_and(|(_, of)| **of == *vhost);
        inner.connections.values().filter(is_in).map(|entry| Arc::clone(&entry.mailbox)).collect()
    }
}

impl Inner {
    fn leave(&mut self, number: u64) {
        let Some(entry) = self.connections.get_mut(&number) else { return };
        let Some((user, vhost)) = entry.entered.take() else { return };
        let channels = std::mem::take(&mut entry.channels);
        if let Some(count) = self.of_vhost.get_mut(&vhost) {
            *count -= 1;
            if *count == 0 {
                self.of_vhost.remove(&vhost);
            }
        }
        if let Some(of_user) = self.of_user.get_mut(&user) {
            of_user.connections -= 1;
            of_user.channels = of_user.channels.saturating_sub(channels);
            if of_user.connections == 0 {
                self.of_user.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: UserLimitsDecl = UserLimitsDecl { max_connections: None, max_channels: None };

    fn enter(census: &Census, user: (&str, UserLimitsDecl), vhost: (&str, Option<i64>)) -> Result<u64, Full> {
        let number = census.register(Arc::default());
        let limits = VhostLimits { max_connections: vhost.1, max_queues: None };
        census.enter(number, user, (&vhost.0.into(), limits)).map(|()| number)
    }

    /// Semantics 3.13, 24.3.
    #[test]
    fn vhosts_and_users_have_their_limits_and_room_comes_back() {
        let census = Census::default();
        let bob = ("bob", UserLimitsDecl { max_connections: Some(2), max_channels: None });
        let first = enter(&census, bob, ("/", Some(1))).unwrap();
        assert_eq!(enter(&census, ("alice", NO_LIMITS), ("/", Some(1))), Err(Full::Vhost(1)));
        enter(&census, bob, ("v", None)).unwrap();
        assert_eq!(enter(&census, bob, ("v", None)), Err(Full::User(2)));
        assert_eq!(enter(&census, bob, ("/", Some(1))), Err(Full::Vhost(1)), "the vhost's limit is asked first");
        census.leave(first);
        assert_eq!(census.of_vhost("/"), 0);
        enter(&census, bob, ("/", Some(1))).unwrap();
        assert_eq!(enter(&census, ("x", NO_LIMITS), ("z", Some(0))), Err(Full::Vhost(0)), "0 allows none");
        enter(&census, ("x", NO_LIMITS), ("z", Some(-1))).unwrap();
    }

    /// Semantics 5.7, 24.3.
    #[test]
    fn channels_are_counted_for_all_connections_of_a_user() {
        let census = Census::default();
        let one = enter(&census, ("bob", NO_LIMITS), ("/", None)).unwrap();
        let other = enter(&census, ("bob", NO_LIMITS), ("/", None)).unwrap();
        let alice = enter(&census, ("alice", NO_LIMITS), ("/", None)).unwrap();
        assert_eq!((census.open_channel(one, Some(2)), census.open_channel(other, Some(2))), (Ok(()), Ok(())));
        assert_eq!(census.open_channel(one, Some(2)), Err(2));
        assert_eq!(census.open_channel(alice, Some(2)), Ok(()));
        census.close_channel(other);
        assert_eq!(census.open_channel(one, Some(2)), Ok(()));
        assert_eq!(census.open_channel(other, Some(2)), Err(2));
        census.forget(one);
        assert_eq!(census.open_channel(other, Some(2)), Ok(()), "a connection takes its channels along");
    }
}
