//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use super::broker::Broker;
use super::connection_task;

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

/// Accepts until the future is dropped. The connections' tasks belong to `tasks`.
pub async fn accept(broker: Arc<Broker>, listener: TcpListener, tasks: Arc<tokio::sync::Mutex<JoinSet<()>>>) {
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
                tasks.spawn(connection_task::serve(Arc::clone(&broker), stream, peer, local));
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(REST_AFTER_ERROR).await;
            }
        }
    }
}
