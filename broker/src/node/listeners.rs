//! Opening the listeners that command line and topology name, plain and with TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::NodeError;
use crate::management::Listener;
use crate::runtime::listener;
use crate::tls::{Inside, Server};
use crate::topology::schema::{TlsDecl, Topology};

/// A listening socket, with its certificate where it has one.
pub(super) struct Open {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Arc<Server>>,
}

/// Everything that listens.
#[derive(Default)]
pub(super) struct Listeners {
    pub(super) amqp: Vec<Open>,
    pub(super) http: Vec<Open>,
    pub(super) metrics: Vec<Open>,
    /// Where each of them is.
    pub(super) facts: Vec<Listener>,
    /// Whose files are to be watched.
    pub(super) servers: Vec<Arc<Server>>,
}

/// Addresses of the command line; they win over those of the file.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Plain AMQP.
    pub(super) amqp: Vec<SocketAddr>,
    /// The plain API; an empty list switches it off, also over TLS.
    pub(super) http: Option<Vec<SocketAddr>>,
    /// As for the API.
    pub(super) metrics: Option<Vec<SocketAddr>>,
}

/// What is served on a listener: its name for logs, and RabbitMQ's name of the protocol.
type Served = (&'static str, &'static str);

impl Listeners {
    /// Opens all of them. Port 0 takes a free one, which the log names.
    ///
    /// # Errors
    /// An address that cannot be listened on; files for TLS that cannot be used.
    pub(super) fn open(topology: &Topology, given: Given) -> Result<Self, NodeError> {
        let Topology { listeners, management, metrics, tls, .. } = topology;
        let mut open = Self::default();
        let plain = if given.amqp.is_empty() { listeners.amqp.clone() } else { given.amqp };
        open.amqp = open.plain(plain, ("listening", "amqp"), |address, error| NodeError::Listen { address, error })?;
        let encrypted =
            open.encrypted(&listeners.amqps, tls.as_ref(), Inside::Amqp, ("listening with TLS", "amqp/ssl"))?;
        open.amqp.extend(encrypted);

        let is_off = given.http.as_ref().is_some_and(Vec::is_empty);
        let plain = given.http.unwrap_or_else(|| management.listen.clone());
        open.http =
            open.plain(plain, ("management API", "http"), |address, error| NodeError::ListenHttp { address, error })?;
        if !is_off {
            let served = ("management API with TLS", "https");
            let encrypted = open.encrypted(&management.listen_tls, management.tls.as_ref(), Inside::Http, served)?;
            open.http.extend(encrypted);
        }

        let is_off = given.metrics.as_ref().is_some_and(Vec::is_empty);
        let plain = given.metrics.unwrap_or_else(|| metrics.listen.clone());
        let served = ("metrics", "http/prometheus");
        open.metrics = open.plain(plain, served, |address, error| NodeError::ListenMetrics { address, error })?;
        if !is_off {
            let served = ("metrics with TLS", "https/prometheus");
            let encrypted = open.encrypted(&metrics.listen_tls, metrics.tls.as_ref(), Inside::Http, served)?;
            open.metrics.extend(encrypted);
        }
        Ok(open)
    }

    fn plain(
        &mut self,
        addresses: Vec<SocketAddr>,
        served: Served,
        refused: impl Fn(SocketAddr, std::io::Error) -> NodeError,
    ) -> Result<Vec<Open>, NodeError> {
        addresses.into_iter().map(|address| self.open_one(address, served, None, &refused)).collect()
    }

    fn encrypted(
        &mut self,
        addresses: &[SocketAddr],
        decl: Option<&TlsDecl>,
        inside: Inside,
        served: Served,
    ) -> Result<Vec<Open>, NodeError> {
        let Some(decl) = decl.filter(|_| !addresses.is_empty()) else { return Ok(Vec::new()) };
        let server = Server::new(decl.clone(), inside)?;
        self.servers.push(Arc::clone(&server));
        let refused = |address, error| NodeError::ListenTls { what: served.1, address, error };
        addresses.iter().map(|&address| self.open_one(address, served, Some(Arc::clone(&server)), &refused)).collect()
    }

    fn open_one(
        &mut self,
        address: SocketAddr,
        (what, protocol): Served,
        tls: Option<Arc<Server>>,
        refused: &impl Fn(SocketAddr, std::io::Error) -> NodeError,
    ) -> Result<Open, NodeError> {
        let listener = listener::open(address).map_err(|error| refused(address, error))?;
        let address = listener.local_addr().map_err(|error| refused(address, error))?;
        tracing::info!(address = %address, "{what}");
        self.facts.push(Listener { protocol, address, tls: tls.clone() });
        Ok(Open { listener, tls })
    }
}
