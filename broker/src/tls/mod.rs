//! TLS for AMQP, the management API and metrics (RabbitMQ: "TLS Support").
//!
//! [`Server`] holds what a listener shows and asks for, and takes changed files over while the broker runs ([`watch`]): connections that come
//! after the change see it, those that are there live on. [`accept`] shakes hands. A client's certificate is verified by rustls and only read
//! here, for names ([`Secured`]). Sessions are not resumed, so that each connection is verified anew. There are no revocation lists, and the
//! choice of ciphers is rustls' own.

mod files;
mod names;
mod stream;
mod watch;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;

pub use self::files::{Part, TlsError, key_is_exposed};
pub use self::names::{Certificate, utc};
pub use self::stream::{Refused, Secured, TlsStream, accept, is_handshake};
use self::watch::Stamp;
pub use self::watch::watch;
use crate::topology::schema::TlsDecl;

/// What is spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// AMQP 0-9-1, which has no name that peers would agree on.
    Amqp,
    /// HTTP/1.1.
    Http,
}

/// What was made of the files at one time.
pub struct Loaded {
    config: Arc<ServerConfig>,
    /// The broker's certificate and those behind it.
    pub chain: Vec<Certificate>,
    /// The authorities.
    pub authorities: Vec<Certificate>,
    stamp: Stamp,
}

/// The TLS side of listeners.
pub struct Server {
    decl: TlsDecl,
    inside: Inside,
    current: RwLock<Arc<Loaded>>,
}

/// What became of a look at the files.
#[derive(Debug)]
pub enum Reloaded {
    /// They are those in use.
    Same,
    /// They are in use from now on.
    Taken,
    /// They cannot be used, so what was in use stays.
    Refused(TlsError),
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(decl: TlsDecl, inside: Inside) -> Result<Arc<Self>, TlsError> {
        let loaded = load(&decl, inside)?;
        Ok(Arc::new(Self { current: RwLock::new(Arc::new(loaded)), decl, inside }))
    }

    /// What connections get that come now.
    #[must_use]
    pub fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.current.read())
    }

    /// What was declared.
    #[must_use]
    pub fn decl(&self) -> &TlsDecl {
        &self.decl
    }

    /// Reads the files again.
    #[must_use]
    pub fn reload(&self) -> Reloaded {
        match load(&self.decl, self.inside) {
            Ok(loaded) if loaded.stamp == self.current().stamp => Reloaded::Same,
            Ok(loaded) => {
                *self.current.write() = Arc::new(loaded);
                Reloaded::Taken
            }
            Err(error) => Reloaded::Refused(error),
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(&files(&self.decl))
    }
}

impl Loaded {
    /// When the first of the broker's own certificates ends, in seconds since the epoch.
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        self.chain.iter().map(|certificate| certificate.not_after).min()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("decl", &self.decl).field("inside", &self.inside).finish_non_exhaustive()
    }
}

/// Reads and checks the files of a declaration.
///
/// # Errors
/// What is wrong with one of them.
pub fn load(decl: &TlsDecl, inside: Inside) -> Result<Loaded, TlsError> {
    // Before the files are read: a change meanwhile is seen as one that came later.
    let stamp = Stamp::of(&files(decl));
    let files = files::Files::read(decl)?;
    let (chain, authorities) = (files.chain()?, files.authorities()?);
    let mut config = files.into_config(decl)?;
    if inside == Inside::Http {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    // A resumed session would bring a client in whose certificate nobody has looked at since.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { config: Arc::new(config), chain, authorities, stamp })
}

fn files(decl: &TlsDecl) -> Vec<&Path> {
    [Some(&decl.certificate), Some(&decl.key), decl.ca.as_ref()].into_iter().flatten().map(AsRef::as_ref).collect()
}
