//! Sockets of the API and of metrics: who connects gets a task, so long for each head, and a place among [`CONNECTIONS_MAX`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::unread::Unread;
use super::{Management, dispatch};
use crate::tls::{self, Refused, Server};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1000;
/// The head of a request has to be whole by then; so long may a connection do nothing, too.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// Whoever reads nothing of an answer for so long loses it, and his place.
const UNREAD_DEADLINE: Duration = Duration::from_secs(30);
/// TLS has to be agreed on by then.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// What the head of a request, and what has been read of a body, may take.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// After an error of accept the listener rests so long instead of spinning.
const REST_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Serves the API until the future is dropped; its connections end with it.
pub async fn serve(api: Arc<Management>, listener: TcpListener, tls: Option<Arc<Server>>) {
    run("management API", listener, tls, move |peer, request| dispatch::dispatch(Arc::clone(&api), peer, request))
        .await;
}

/// Serves `what` by these answers until the future is dropped; its connections end with it.
pub(super) async fn run<F, A>(what: &'static str, listener: TcpListener, tls: Option<Arc<Server>>, answer: F)
where
    F: Fn(SocketAddr, Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                while connections.try_join_next().is_some() {}
                connections.spawn(connection(answer.clone(), stream, peer, tls.clone(), place));
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection: {what}");
                tokio::time::sleep(REST_AFTER_ERROR).await;
            }
        }
    }
}

async fn connection<F, A>(
    answer: F,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Server>>,
    place: OwnedSemaphorePermit,
) where
    F: Fn(SocketAddr, Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, error = %error, "cannot set TCP_NODELAY");
    }
    match tls {
        None => {
            let mut first = [0];
            match tokio::time::timeout(HEAD_DEADLINE, stream.peek(&mut first)).await {
                Ok(Ok(_)) if tls::is_handshake(first) => {
                    tracing::warn!(%peer, "a TLS client on the plain port for HTTP; let it use http, or listen with TLS");
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
            // It says no to what is not HTTP.
            speak(answer, stream, peer).await;
        }
        Some(tls) => match tokio::time::timeout(HANDSHAKE_DEADLINE, tls::accept(&tls, stream)).await {
            Ok(Ok((stream, _))) => speak(answer, stream, peer).await,
            Ok(Err(Refused::Nothing)) => tracing::debug!(%peer, "connection closed without a byte"),
            Ok(Err(error)) => tracing::warn!(%peer, error = %error, "refused connection over HTTP"),
            Err(_) => tracing::warn!(%peer, "refused connection over HTTP: the TLS handshake was not over in time"),
        },
    }
    drop(place);
}

async fn speak<F, A, S>(answer: F, stream: S, peer: SocketAddr)
where
    F: Fn(SocketAddr, Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = Router::new().fallback(move |request: Request| answer(peer, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Unread::new(stream, UNREAD_DEADLINE)), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%peer, error = %error, "a connection over HTTP ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_no_answer_loses_its_place() {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the request fits");
        let answer = |_: SocketAddr, _: Request| async { Response::new(Body::from(vec![0; 1024 * 1024])) };
        let begun = Instant::now();
        speak(answer, server, (Ipv4Addr::LOCALHOST, 1).into()).await;
        assert!(begun.elapsed() <= 2 * UNREAD_DEADLINE, "{:?}", begun.elapsed());
    }
}
