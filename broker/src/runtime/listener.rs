//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::broker::Broker;
use super::connection_task;
use super::proxy_protocol::{self, ProxyError};

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
                let local = stream.local_addr().ok();
                match reached {
                    Reached::Directly => tasks.spawn(connection_task::serve(Arc::clone(&broker), stream, peer, local)),
                    Reached::ThroughProxy => tasks.spawn(serve_proxied(Arc::clone(&broker), stream, peer, local)),
                };
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(REST_AFTER_ERROR).await;
            }
        }
    }
}

/// Hears from the proxy who the client is, and serves it.
async fn serve_proxied(broker: Arc<Broker>, mut stream: TcpStream, proxy: SocketAddr, local: Option<SocketAddr>) {
    let header = tokio::time::timeout(broker.limits.handshake_timeout, proxy_protocol::read(&mut stream));
    match header.await {
        Ok(Ok(Some(proxied))) => connection_task::serve(broker, stream, proxied.peer, Some(proxied.local)).await,
        Ok(Ok(None)) => connection_task::serve(broker, stream, proxy, local).await,
        Ok(Err(ProxyError::Nothing)) => tracing::debug!(peer = %proxy, "connection closed without a byte"),
        Ok(Err(error)) => tracing::warn!(peer = %proxy, error = %error, "refused connection"),
        Err(_) => tracing::warn!(peer = %proxy, "refused connection: no PROXY header came in time"),
    }
}
