//! Who the caller is, login for pages, login attempts, and hashes of passwords.

use std::sync::Arc;

use axum::http::header::SET_COOKIE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::guard::Tags;
use super::reply::Reply;
use super::{lists, paths};
use crate::access::{HashAlgorithm, PasswordHash, User};
use crate::metrics::logins::{Attempts, Protocol};

fn shown(user: &User) -> Json {
    json!({"name": user.name, "tags": user.tags, "is_internal_user": user.foreign.is_none()})
}

pub(super) fn whoami(call: &Call) -> Answer {
    lists::one(call, shown(&call.user))
}

/// The form `username=…&password=…`; answers what to send as credentials from then on.
pub(super) async fn login(call: Arc<Call>) -> Answer {
    let form = std::str::from_utf8(&call.body).map(paths::query).unwrap_or_default();
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (Some(name), Some(password)) = (field("username"), field("password")) else {
        return Err(ApiError::bad_credentials());
    };
    if name.contains('\0') || password.contains('\0') {
        return Err(ApiError::bad_credentials());
    }
    let user = call.api.login(call.peer.ip(), name, password).await?;
    let is_manager = Tags::of(&user.tags).is_manager;
    call.api.count_login(call.peer.ip(), &user.name, is_manager);
    if !is_manager {
        return Err(ApiError::not_authorised("Not management user"));
    }
    let value = STANDARD.encode(format!("{name}:{password}"));
    Ok(Reply::ok(json!({"token": {"type": "basic", "value": value}, "user": shown(&user)})))
}

/// Nothing is kept for a login; pages of older releases are told to forget theirs.
pub(super) fn logout(_: &Call) -> Answer {
    Ok(Reply::done().header(SET_COOKIE, "auth=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"))
}

/// How pages log in: there is no other way than by name and password.
pub(super) fn auth(_: &Call) -> Answer {
    Ok(Reply::ok(json!({"oauth_enabled": false})))
}

fn counts(protocol: Protocol, attempts: Attempts) -> Json {
    json!({
        "protocol": protocol.name(),
        "auth_attempts": attempts.total(),
        "auth_attempts_succeeded": attempts.succeeded,
        "auth_attempts_failed": attempts.failed,
    })
}

pub(super) fn attempts(call: &Call) -> Answer {
    super::nodes::check_name(call)?;
    let logins = &call.broker().metrics.logins;
    let rows = Protocol::ALL.map(|protocol| counts(protocol, logins.total(protocol)));
    lists::one(call, json!(rows))
}

pub(super) fn attempts_by_source(call: &Call) -> Answer {
    super::nodes::check_name(call)?;
    let sources = call.broker().metrics.logins.by_source().into_iter().map(|(source, attempts)| {
        let mut shown = counts(source.protocol, attempts);
        if let Some(object) = shown.as_object_mut() {
            object.insert("remote_address".into(), json!(source.address));
            object.insert("username".into(), json!(source.user));
        }
        shown
    });
    lists::one(call, sources.collect())
}

/// The sums that Prometheus reads begin anew, too, as in RabbitMQ.
pub(super) fn reset_attempts(call: &Call) -> Answer {
    super::nodes::check_name(call)?;
    call.broker().metrics.logins.reset();
    Ok(Reply::done())
}

fn hashed(password: &str) -> Answer {
    let hash = PasswordHash::of(password.as_bytes(), HashAlgorithm::default());
    Ok(Reply::ok(json!({"ok": hash.to_stored()})))
}

pub(super) fn hash_password(call: &Call) -> Answer {
    hashed(call.named("password"))
}

/// The password in the body, where no log of paths has it.
pub(super) fn hash_password_of_body(call: &Call) -> Answer {
    let fields = call.fields()?;
    let [password] = fields.require(["password"])?;
    hashed(super::body::text("password", password)?)
}
