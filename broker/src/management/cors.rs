//! Pages of other origins that may use the API: none, unless the topology names them (RabbitMQ: `rabbit_mgmt_cors`).

use axum::http::HeaderMap;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN,
};

use super::reply::Reply;
use crate::topology::schema::ManagementDecl;

/// Adds what a browser wants to know. `methods` are those of the path, for a preflight.
pub(super) fn allow(reply: Reply, decl: &ManagementDecl, request: &HeaderMap, methods: Option<&str>) -> Reply {
    let Some(origin) = request.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else { return reply };
    let origins = &decl.cors_allow_origins;
    let reply = if origins.iter().any(|allowed| allowed == origin) {
        reply.header(ACCESS_CONTROL_ALLOW_ORIGIN, origin).header(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")
    } else if origins.iter().any(|allowed| allowed == "*") {
        reply.header(ACCESS_CONTROL_ALLOW_ORIGIN, "*")
    } else {
        return reply;
    };
    let Some(methods) = methods else { return reply };
    let reply = reply
        .header(ACCESS_CONTROL_MAX_AGE, &decl.cors_max_age_secs.to_string())
        .header(ACCESS_CONTROL_ALLOW_METHODS, methods);
    match request.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|headers| headers.to_str().ok()) {
        Some(headers) => reply.header(ACCESS_CONTROL_ALLOW_HEADERS, headers),
        None => reply,
    }
}
