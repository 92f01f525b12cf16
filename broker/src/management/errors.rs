//! Refusals, as tools read them: a status, and a body with `error` and `reason`, both text.

use axum::http::StatusCode;
use serde_json::{Map, Value as Json, json};

use super::reply::Reply;
use crate::access::AccessError;
use crate::amqp::ReplyCode;
use crate::vhost::policy::InvalidPolicy;
use crate::vhost::registry::VhostError;
use crate::vhost::settings::InvalidSetting;
use crate::vhost::{self};

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    error: &'static str,
    reason: String,
    more: Map<String, Json>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Self {
        Self { status, error, reason: reason.into(), more: Map::new() }
    }

    /// 404 for a path or an object that is not there.
    pub(super) fn object_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// 404 with what is missing.
    pub(super) fn not_found(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// 404 for something that is to be changed in a vhost that is not there.
    pub(super) fn vhost_not_found() -> Self {
        Self::not_found("vhost_not_found")
    }

    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// 401: who it is is known, and may not do that.
    pub(super) fn not_authorised(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
    }

    /// 401: nobody knows who it is.
    pub(super) fn bad_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Not_Authorized")
    }

    /// 401 for what a user lacks a permission for, whichever.
    pub(super) fn access_refused() -> Self {
        Self::not_authorised("Access refused.")
    }

    pub(super) fn precondition_failed(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", reason)
    }

    /// 503: the broker cannot now.
    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", reason)
    }

    /// Keys that a body must have, in RabbitMQ's words.
    pub(super) fn keys_missing(keys: &[&str]) -> Self {
        let terms: Vec<String> = keys.iter().map(|key| format!("{{key_missing,{key}}}")).collect();
        Self::bad_request(format!("[{}]", terms.join(",")))
    }

    /// Adds a field to the body.
    pub(super) fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// An error of publishing and getting: RabbitMQ opens a channel for these, and what closes it has its code in the text.
    pub(super) fn of_channel(error: &vhost::Error) -> Self {
        let code = error.reply_code();
        let text = format!("{code} - {error}");
        match code {
            ReplyCode::NotFound => Self::not_found(text),
            ReplyCode::AccessRefused => Self::not_authorised(text),
            _ => Self::bad_request(format!("{} {text}", code as u16)),
        }
    }

    pub(super) fn into_reply(self) -> Reply {
        let mut body = self.more;
        body.insert("error".into(), json!(self.error));
        body.insert("reason".into(), json!(self.reason));
        Reply::json(self.status, Json::Object(body))
    }
}

impl From<vhost::Error> for ApiError {
    fn from(error: vhost::Error) -> Self {
        match error.reply_code() {
            ReplyCode::NotFound => Self::not_found(error.to_string()),
            ReplyCode::AccessRefused | ReplyCode::NotAllowed => Self::access_refused(),
            ReplyCode::ConnectionForced => Self::vhost_not_found(),
            _ => Self::bad_request(error.to_string()),
        }
    }
}

impl From<InvalidPolicy> for ApiError {
    fn from(error: InvalidPolicy) -> Self {
        Self::bad_request(error.validation_text())
    }
}

impl From<InvalidSetting> for ApiError {
    fn from(error: InvalidSetting) -> Self {
        Self::bad_request(format!("Validation failed\n\n{error}\n"))
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<VhostError> for ApiError {
    fn from(error: VhostError) -> Self {
        match error {
            VhostError::NotFound(_) => Self::object_not_found(),
            VhostError::Protected(_) => Self::precondition_failed(error.to_string()),
            VhostError::Setting(error) => Self::bad_request(error.to_string()),
            VhostError::InvalidName | VhostError::TooMany | VhostError::ExchangeType(_) => {
                Self::bad_request(error.to_string())
            }
        }
    }
}
