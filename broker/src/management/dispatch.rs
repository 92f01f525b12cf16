//! A request from its head to its answer, in the order of checks that RabbitMQ has: path, method, credentials, type of the body, type of the
//! answer, the body, then the handler.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPECT, LOCATION, STRICT_TRANSPORT_SECURITY,
    WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use super::call::{Answer, Call};
use super::endpoints::{Accepts, Endpoint, Run, Verb};
use super::errors::ApiError;
use super::guard::{Refused, Tags};
use super::reply::Reply;
use super::{Management, cors, help, outlet, paths, prometheus};
use crate::events::acting_as;

/// A body has to be whole by then.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A body that nobody wants is read up to here, in bytes and in time; cowboy has the same number of bytes.
const PASSED_OVER_MAX: u64 = 1_000_000;
const PASSING_DEADLINE: Duration = Duration::from_secs(5);
/// An answer has to be there by then, unless it goes on.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Answers one request.
pub(super) async fn dispatch(api: Arc<Management>, peer: SocketAddr, mut request: Request) -> Response<Body> {
    if !api.decl.path_prefix.is_empty() {
        let Some(uri) = behind_prefix(request.uri(), &api.decl.path_prefix) else {
            return ApiError::object_not_found().into_reply().into_response(request.headers());
        };
        *request.uri_mut() = uri;
    }
    let mut response = respond(Arc::clone(&api), peer, request).await;
    for (name, value) in [(STRICT_TRANSPORT_SECURITY, &api.decl.hsts), (CONTENT_SECURITY_POLICY, &api.decl.csp)] {
        if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The address behind the prefix that is configured; none for one that lies elsewhere.
fn behind_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let rest = uri.path().strip_prefix(prefix)?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    match rest {
        "" => format!("/{query}").parse().ok(),
        rest if rest.starts_with('/') => format!("{rest}{query}").parse().ok(),
        _ => None,
    }
}

async fn respond(api: Arc<Management>, peer: SocketAddr, request: Request) -> Response<Body> {
    if prometheus::is_page(request.uri().path()) {
        return Arc::clone(&api.pages).respond(request).await;
    }
    let (head, body) = request.into_parts();
    let mut body = Some(body);
    let response = found(api, peer, &head, &mut body).await;
    if let Some(body) = body {
        pass_over(body, &head.headers).await;
    }
    response
}

/// The answer to a request; what is left of its body has not been looked at.
async fn found(api: Arc<Management>, peer: SocketAddr, head: &Parts, body: &mut Option<Body>) -> Response<Body> {
    let headers = &head.headers;
    let is_preflight = head.method == Method::OPTIONS;
    let path = head.uri.path().to_owned();
    if let Some(page) = help::page(&path) {
        return match head.method {
            Method::GET | Method::HEAD => page.into_response(headers),
            _ => Reply::empty(StatusCode::METHOD_NOT_ALLOWED).allow("HEAD, GET").into_response(headers),
        };
    }
    let Some(segments) = paths::segments(&path) else {
        return not_of_the_api(&path, &api.decl.path_prefix).into_response(headers);
    };
    if segments.first().is_some_and(String::is_empty) && segments.len() == 1 {
        return redirect(&format!("{}/api/index.html", api.decl.path_prefix)).into_response(headers);
    }
    let Some((endpoint, named)) = api.routes.find(&segments) else {
        return ApiError::object_not_found().into_reply().into_response(headers);
    };
    let methods = endpoint.methods();
    let reply = if is_preflight {
        Reply::empty(StatusCode::OK).allow(&methods)
    } else {
        match answer(Arc::clone(&api), endpoint, named, peer, head, body).await {
            Ok(reply) => reply,
            Err(Refused::NoCredentials) => {
                Reply::empty(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, "Basic realm=\"RabbitMQ Management\"")
            }
            Err(Refused::Error(error)) if error.status == StatusCode::METHOD_NOT_ALLOWED => {
                Reply::empty(StatusCode::METHOD_NOT_ALLOWED).allow(&methods)
            }
            Err(Refused::Error(error)) => error.into_reply(),
        }
    };
    cors::allow(reply, &api.decl, headers, is_preflight.then_some(methods.as_str())).into_response(headers)
}

async fn answer(
    api: Arc<Management>,
    endpoint: &'static Endpoint,
    named: Vec<(&'static str, String)>,
    peer: SocketAddr,
    head: &Parts,
    body: &mut Option<Body>,
) -> Result<Reply, Refused> {
    let refused = |status: StatusCode| Refused::Error(ApiError::new(status, "", ""));
    let verb = Verb::of(&head.method).ok_or_else(|| refused(StatusCode::METHOD_NOT_ALLOWED))?;
    let operation = endpoint.operation(verb).ok_or_else(|| refused(StatusCode::METHOD_NOT_ALLOWED))?;
    let part = |name: &str| named.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    let header_vhost =
        head.headers.get("x-vhost").and_then(|value| value.to_str().ok()).filter(|name| !name.is_empty());
    let vhost = part("v").or(header_vhost);
    let user = api.judge(operation.who, peer, &head.headers, vhost, part("u").unwrap_or_default()).await?;
    if verb.has_body() && !endpoint.accepts.takes(content_type(&head.headers)) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            endpoint.accepts.help(),
        )
        .into());
    }
    if !matches!(endpoint.accepts, Accepts::Stream | Accepts::Text) && !wants_json(&head.headers) {
        return Err(
            ApiError::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "the answer is application/json").into()
        );
    }
    let limit = endpoint.body_bytes_max.unwrap_or(usize::MAX).min(api.decl.body_bytes_max);
    let body = if verb.has_body() { read(body, &head.headers, limit).await? } else { Bytes::new() };
    let call = Call {
        tags: Tags::of(&user.tags),
        query: head.uri.query().map(paths::query).unwrap_or_default(),
        headers: head.headers.clone(),
        named,
        peer,
        user,
        body,
        api,
    };
    Ok(judged(call, operation.run, verb).await?)
}

/// Carries a request out. Where it failed for want of an answer of an auth backend, it is carried out again when the answer is there; what only
/// shows things may have shown too little.
async fn judged(call: Call, run: Run, verb: Verb) -> Answer {
    let call = Arc::new(call);
    for _ in 0..JUDGED_MAX {
        let answer = carry_out(Arc::clone(&call), run).await;
        let is_undecided = call.user.foreign.as_ref().is_some_and(|foreign| foreign.has_unasked());
        if !is_undecided || answer.is_ok() && verb != Verb::Get {
            return answer;
        }
        let access = Arc::clone(&call.broker().access);
        access.judge(&call.user).await;
    }
    carry_out(call, run).await
}

async fn carry_out(call: Arc<Call>, run: Run) -> Answer {
    let broker = Arc::clone(call.broker());
    let answered = async {
        let reply = match run {
            Run::Now(handler) => acting_as(&call.user.name, || handler(&call))?,
            Run::Blocking(handler) => {
                let call = Arc::clone(&call);
                let done = tokio::task::spawn_blocking(move || {
                    acting_as(&call.user.name, || handler(&call)).map(|reply| reply.write(&call.headers))
                });
                let done = done.await;
                done.map_err(|error| {
                    tracing::error!(error = %error, "a request ended in a panic");
                    ApiError::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "internal_server_error",
                        "the broker has a defect; its log has more",
                    )
                })??
            }
            Run::Waiting(handler) => handler(Arc::clone(&call)).await?,
        };
        if reply.waits_for_store {
            outlet::stored(&broker).await?;
        }
        Ok(reply)
    };
    let late = |_| Err(ApiError::unavailable("the request took too long"));
    tokio::time::timeout(ANSWER_DEADLINE, answered).await.unwrap_or_else(late)
}

/// No request looks up permissions in more steps than this.
const JUDGED_MAX: usize = 8;

/// How long the body is going to be, if the client says so.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Reads a body and lets nobody read it after that. One that is announced as too long is left where it is.
async fn read(body: &mut Option<Body>, headers: &HeaderMap, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::bad_request("Exceeded HTTP request body size limit");
    if announced(headers).is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large());
    }
    let body = body.take().unwrap_or_default();
    match tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come in time")),
    }
}

/// Takes in a body that nobody wants, so that the connection can be used again. Many clients send a request without credentials first, body and all, and
/// would find the connection closed under them while they write; cowboy reads as much for them. One that is longer, or waits to be asked for, is not worth it.
async fn pass_over(mut body: Body, headers: &HeaderMap) {
    if body.is_end_stream()
        || headers.contains_key(EXPECT)
        || announced(headers).is_some_and(|bytes| bytes > PASSED_OVER_MAX)
    {
        return;
    }
    let all = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > PASSED_OVER_MAX {
                break;
            }
        }
    };
    // Whoever has not sent it by then is not waited for.
    let _ = tokio::time::timeout(PASSING_DEADLINE, all).await;
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether the answer's type is one that the client takes.
fn wants_json(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if accepted.peek().is_none() {
        return true;
    }
    accepted.flat_map(|value| value.split(',')).any(|item| {
        let kind = item.split(';').next().unwrap_or_default().trim();
        kind.is_empty()
            || ["*/*", "application/*", "application/json"].iter().any(|known| kind.eq_ignore_ascii_case(known))
    })
}

fn redirect(to: &str) -> Reply {
    Reply::empty(StatusCode::MOVED_PERMANENTLY).header(LOCATION, to)
}

/// What is not below `/api`.
fn not_of_the_api(path: &str, prefix: &str) -> Reply {
    match path {
        "/cli" | "/cli/" => redirect(&format!("{prefix}/cli/index.html")),
        _ => ApiError::object_not_found().into_reply(),
    }
}
