//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::broker::Broker;
use super::connection_task::{self, Incoming};
use super::proxy_protocol::{self, ProxyError};
use crate::tls::{self, Refused, Server};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// After an error of accept (out of file descriptors, mostly) the listener rests so long instead of spinning.
const REST_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Opens a listening socket.
///
/// # Errors
/// The operating system's, such as an address in use.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Who connects to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Clients.
    Directly,
    /// A proxy that says whom it speaks for.
    ThroughProxy,
}

/// Accepts until the future is dropped. The connections' tasks belong to `tasks`.
pub async fn accept(
    broker: Arc<Broker>,
    listener: TcpListener,
    reached: Reached,
    tls: Option<Arc<Server>>,
    tasks: Arc<tokio::sync::Mutex<JoinSet<()>>>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Frames of a turn leave in one write, so waiting for more would only add delay.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(peer = %peer, error = %error, "cannot set TCP_NODELAY");
                }
                let mut tasks = tasks.lock().await;
                while tasks.try_join_next().is_some() {}
                let incoming = Incoming { peer, local: stream.local_addr().ok(), secured: None };
                let broker = Arc::clone(&broker);
                match (reached, &tls) {
                    (Reached::Directly, None) => tasks.spawn(connection_task::serve(broker, stream, incoming)),
                    _ => tasks.spawn(introduced(broker, stream, reached, tls.clone(), incoming)),
                };
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(REST_AFTER_ERROR).await;
            }
        }
    }
}

/// Serves a client before whose first byte of AMQP other things are said: by a proxy, or about certificates.
async fn introduced(
    broker: Arc<Broker>,
    mut stream: TcpStream,
    reached: Reached,
    tls: Option<Arc<Server>>,
    mut incoming: Incoming,
) {
    if reached == Reached::ThroughProxy {
        match heard_of_proxy(&broker, &mut stream, incoming).await {
            Some(heard) => incoming = heard,
            None => return,
        }
    }
    let Some(tls) = tls else { return connection_task::serve(broker, stream, incoming).await };
    let peer = incoming.peer;
    match tokio::time::timeout(broker.limits.handshake_timeout, tls::accept(&tls, stream)).await {
        Ok(Ok((stream, secured))) => {
            let incoming = Incoming { secured: Some(Arc::new(secured)), ..incoming };
            connection_task::serve(broker, stream, incoming).await;
        }
        Ok(Err(Refused::Nothing)) => tracing::debug!(peer = %peer, "connection closed without a byte"),
        Ok(Err(error)) => tracing::warn!(peer = %peer, error = %error, "refused connection"),
        Err(_) => tracing::warn!(peer = %peer, "refused connection: the TLS handshake was not over in time"),
    }
}

/// Hears from the proxy who the client is; none when there is nobody to serve.
async fn heard_of_proxy(broker: &Broker, stream: &mut TcpStream, incoming: Incoming) -> Option<Incoming> {
    let proxy = incoming.peer;
    match tokio::time::timeout(broker.limits.handshake_timeout, proxy_protocol::read(stream)).await {
        Ok(Ok(Some(proxied))) => return Some(Incoming { peer: proxied.peer, local: Some(proxied.local), ..incoming }),
        Ok(Ok(None)) => return Some(incoming),
        Ok(Err(ProxyError::Nothing)) => tracing::debug!(peer = %proxy, "connection closed without a byte"),
        Ok(Err(error)) => tracing::warn!(peer = %proxy, error = %error, "refused connection"),
        Err(_) => tracing::warn!(peer = %proxy, "refused connection: no PROXY header came in time"),
    }
    None
}
