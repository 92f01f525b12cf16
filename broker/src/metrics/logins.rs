//! Attempts to log in, by protocol, and by who tried from where.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Sources that are counted by name; what others try is in the sums alone.
const SOURCES_MAX: usize = 1_000;
/// A name that somebody tried is kept up to here: the limit of names of users.
const USER_BYTES_MAX: usize = crate::access::USER_NAME_BYTES_MAX;

/// How somebody logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Protocol {
    /// AMQP 0-9-1.
    Amqp091,
    /// The HTTP API.
    Http,
}

impl Protocol {
    /// All, in their order.
    pub const ALL: [Self; 2] = [Self::Amqp091, Self::Http];

    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amqp091 => "amqp091",
            Self::Http => "http",
        }
    }
}

/// Who tried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The client's address.
    pub address: String,
    /// The name that was given, if it could be read.
    pub user: String,
    /// How.
    pub protocol: Protocol,
}

/// How many attempts there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Let in.
    pub succeeded: u64,
    /// Not let in.
    pub failed: u64,
}

impl Attempts {
    /// All together.
    pub const fn total(self) -> u64 {
        self.succeeded + self.failed
    }

    fn add(&mut self, is_let_in: bool) {
        if is_let_in {
            self.succeeded += 1;
        } else {
            self.failed += 1;
        }
    }
}

/// See the module. Somebody logs in once a connection, so a lock is good enough.
#[derive(Debug, Default)]
pub struct Logins(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    totals: [Attempts; 2],
    by_source: BTreeMap<Source, Attempts>,
}

impl Logins {
    /// Somebody was let in, or not. `user` is empty for one whose name could not be read.
    pub fn add(&self, protocol: Protocol, address: std::net::IpAddr, user: &str, is_let_in: bool) {
        let user = user.get(..user.floor_char_boundary(USER_BYTES_MAX)).unwrap_or_default().to_owned();
        let source = Source { address: address.to_canonical().to_string(), user, protocol };
        let mut inner = self.0.lock();
        inner.totals[protocol as usize].add(is_let_in);
        if inner.by_source.len() < SOURCES_MAX || inner.by_source.contains_key(&source) {
            inner.by_source.entry(source).or_default().add(is_let_in);
        }
    }

    /// Since the start or the last reset.
    pub fn total(&self, protocol: Protocol) -> Attempts {
        self.0.lock().totals[protocol as usize]
    }

    /// The same by who tried, in their order; the first [`SOURCES_MAX`] who did.
    pub fn by_source(&self) -> Vec<(Source, Attempts)> {
        self.0.lock().by_source.iter().map(|(source, attempts)| (source.clone(), *attempts)).collect()
    }

    /// Begins anew.
    pub fn reset(&self) {
        *self.0.lock() = Inner::default();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn attempts_are_counted_by_protocol_and_by_source() {
        let logins = Logins::default();
        logins.add(Protocol::Http, HERE, "bob", true);
        logins.add(Protocol::Http, HERE, "bob", false);
        logins.add(Protocol::Amqp091, HERE, "bob", false);
        assert_eq!(logins.total(Protocol::Http), Attempts { succeeded: 1, failed: 1 });
        assert_eq!(logins.total(Protocol::Amqp091), Attempts { succeeded: 0, failed: 1 });
        let sources = logins.by_source();
        assert_eq!(sources.len(), 2, "{sources:?}");
        assert_eq!((sources[0].0.user.as_str(), sources[0].0.address.as_str()), ("bob", "127.0.0.1"));
        logins.reset();
        assert_eq!((logins.total(Protocol::Http).total(), logins.by_source().len()), (0, 0));
    }

    #[test]
    fn strangers_cannot_fill_the_list_of_sources() {
        let logins = Logins::default();
        for number in 0..2 * SOURCES_MAX {
            logins.add(Protocol::Amqp091, HERE, &number.to_string(), false);
        }
        logins.add(Protocol::Http, HERE, &"ö".repeat(USER_BYTES_MAX), false);
        assert_eq!(logins.by_source().len(), SOURCES_MAX);
        assert_eq!(logins.total(Protocol::Amqp091).failed, 2 * SOURCES_MAX as u64, "the sum counts everybody");
    }
}
