//! Who the caller is, login for pages, login attempts, and hashes of passwords.

use std::sync::Arc;

use axum::http::header::SET_COOKIE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::attempts::Counts;
use super::call::{Answer, Call};
use super::errors::ApiError;
use super::guard::Tags;
use super::reply::Reply;
use super::{lists, paths};
use crate::access::{HashAlgorithm, PasswordHash, User};

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
    if !Tags::of(&user.tags).is_manager {
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

fn counts(counts: Counts) -> Json {
    json!({
        "protocol": "http",
        "auth_attempts": counts.succeeded + counts.failed,
        "auth_attempts_succeeded": counts.succeeded,
        "auth_attempts_failed": counts.failed,
    })
}

pub(super) fn attempts(call: &Call) -> Answer {
    super::nodes::check_name(call)?;
    lists::one(call, json!([counts(call.api.attempts.total())]))
}

pub(super) fn attempts_by_source(call: &Call) -> Answer {
    super::nodes::check_name(call)?;
    let sources = call.api.attempts.by_source().into_iter().map(|((address, user), of_source)| {
        let mut shown = counts(of_source);
        if let Some(object) = shown.as_object_mut() {
            object.insert("remote_address".into(), json!(address));
            object.insert("username".into(), json!(user));
        }
        shown
    });
    lists::one(call, sources.collect())
}

pub(super) fn reset_attempts(call: &Call) -> Answer {
    super::nodes::check_name(call)?;
    call.api.attempts.reset();
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
