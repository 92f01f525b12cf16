//! Serving what Prometheus scrapes: on ports of its own, without credentials, as RabbitMQ does.
//!
//! What the pages say is [`crate::metrics::prometheus`].

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use super::{paths, reply, server};
use crate::metrics::prometheus::{self, Filter, Scope};
use crate::runtime::Broker;
use crate::tls::Server;

/// Pages are made one or two at a time: that of a large broker takes tens of megabytes.
const PAGES_AT_A_TIME_MAX: usize = 2;

/// The pages of a broker.
#[derive(Debug)]
pub struct Pages {
    broker: Arc<Broker>,
    per_object: bool,
    places: Arc<Semaphore>,
}

impl Pages {
    /// Of this broker; `per_object` is whether `/metrics` has a series for each object.
    pub fn new(broker: Arc<Broker>, per_object: bool) -> Arc<Self> {
        Arc::new(Self { broker, per_object, places: Arc::new(Semaphore::new(PAGES_AT_A_TIME_MAX)) })
    }

    /// Which page a path and its query mean; none when there is no such page, or a sentence when the query is wrong.
    fn scope(&self, path: &str, query: Option<&str>) -> Option<Result<Scope, String>> {
        let path = path.strip_suffix('/').unwrap_or(path);
        Some(Ok(match path {
            "/metrics" if self.per_object => Scope::PerObject,
            "/metrics" => Scope::Aggregated,
            "/metrics/per-object" => Scope::PerObject,
            "/metrics/memory-breakdown" => Scope::MemoryBreakdown,
            "/metrics/detailed" => {
                let pairs = query.map(paths::query).unwrap_or_default();
                match Filter::from_query(&pairs) {
                    Ok(filter) => Scope::Detailed(filter),
                    Err(error) => return Some(Err(error.to_string())),
                }
            }
            _ => return None,
        }))
    }

    /// Answers a request.
    pub async fn respond(self: Arc<Self>, request: Request) -> Response<Body> {
        let scope = match self.scope(request.uri().path(), request.uri().query()) {
            None => return plain(StatusCode::NOT_FOUND, "Not found; the metrics are at /metrics\n"),
            Some(Err(error)) => return plain(StatusCode::BAD_REQUEST, &format!("{error}\n")),
            Some(Ok(scope)) => scope,
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let broker = Arc::clone(&self.broker);
        let packs = reply::takes_gzip(request.headers());
        let page = made(&self.places, move || {
            let text = prometheus::page(&broker, &scope).into_bytes();
            match packs.then(|| reply::gzip(&text)) {
                Some(Ok(packed)) => (packed, true),
                Some(Err(_)) | None => (text, false),
            }
        });
        match page.await {
            Ok((bytes, is_packed)) => {
                let mut response = Response::new(Body::from(bytes));
                let headers = response.headers_mut();
                fix(headers, "text/plain; version=0.0.4; charset=utf-8");
                if is_packed {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                response
            }
            Err(error) => {
                tracing::error!(error = %error, "a page of metrics ended in a panic");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the broker has a defect; its log has more\n")
            }
        }
    }
}

/// Makes something on a thread for slow work when there is a place for it. The place is the work's and not the request's: a client that hangs up makes
/// no room while the work goes on.
async fn made<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await;
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    })
    .await
}

/// Whether a path is one of these pages.
pub(super) fn is_page(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/metrics/")
}

/// Serves until the future is dropped.
pub async fn serve(pages: Arc<Pages>, listener: TcpListener, tls: Option<Arc<Server>>) {
    let respond = move |_: SocketAddr, request| Arc::clone(&pages).respond(request);
    server::run("metrics", listener, tls, respond).await;
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    fix(response.headers_mut(), "text/plain; charset=utf-8");
    response
}

fn fix(headers: &mut HeaderMap, content_type: &'static str) {
    reply::protect(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_page_keeps_its_place_when_the_client_hangs_up() {
        let places = Arc::new(Semaphore::new(1));
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let page = tokio::spawn({
            let places = Arc::clone(&places);
            async move {
                let work = move || {
                    let _ = begun.send(());
                    let _ = may_end.recv();
                };
                made(&places, work).await
            }
        });
        has_begun.await.expect("the work began");
        page.abort();
        assert!(page.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(places.available_permits(), 0, "the work still goes on");
        drop(end);
        let place = tokio::time::timeout(std::time::Duration::from_secs(60), places.acquire()).await;
        assert!(place.is_ok(), "the place is free when the work is over");
    }
}
