//! Requests to the management API, and what can go wrong with them.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;
use ureq::http::Method;

use super::super::exit;
use super::Remote;
use super::context::{self, Context};
use super::tls;

/// Where a broker's API is that was started without options.
pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:15672";
/// The same with TLS.
const DEFAULT_TLS_URL: &str = "https://127.0.0.1:15671";
/// An answer is not read beyond this; the lists of a broker with a million queues come in pages.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Everything in a path segment but letters, digits and these is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(in crate::cli) enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// A file, or something the user wrote, is wrong.
    Data(String),
    /// A file cannot be read.
    NoInput(String),
    /// Output cannot be written.
    Output(String),
    /// Nobody answers at the address.
    Unreachable { url: String, reason: String },
    /// It took too long.
    Timeout { url: String },
    /// The API has said no.
    Refused { status: u16, reason: String, request: String },
    /// What answers is no management API.
    Foreign { url: String, reason: String },
}

impl Failure {
    /// Of sysexits(3).
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Data(_) | Self::Refused { status: 400 | 409 | 412, .. } => exit::DATA,
            Self::NoInput(_) | Self::Refused { status: 404, .. } => exit::NO_INPUT,
            Self::Output(_) => exit::IO,
            Self::Refused { status: 401 | 403, .. } => exit::NO_PERMISSION,
            Self::Unreachable { .. } | Self::Refused { status: 503, .. } => exit::UNAVAILABLE,
            Self::Timeout { .. } | Self::Refused { status: 408 | 429, .. } => exit::TRY_AGAIN,
            Self::Refused { .. } | Self::Foreign { .. } => exit::PROTOCOL,
        }
    }

    /// The API does not know what was named.
    pub(in crate::cli) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Data(text) | Self::NoInput(text) | Self::Output(text) => f.write_str(text),
            Self::Unreachable { url, reason } => {
                let hint = tls::hint(reason);
                let hint = hint.unwrap_or("start the broker with --http, or name another place with --url");
                write!(f, "no management API at {url}: {reason}; {hint}")
            }
            Self::Timeout { url } => {
                write!(f, "{url} has not answered in time; try again, or give it longer with --timeout")
            }
            Self::Refused { status: 401, reason, request } => write!(
                f,
                "{request}: {reason}; --user and --password (or BROKER_USER and BROKER_PASSWORD) say who asks"
            ),
            Self::Refused { status: 404, reason, request } => write!(f, "{request}: {reason}"),
            Self::Refused { status, reason, request } => write!(f, "{request}: {reason} (status {status})"),
            Self::Foreign { url, reason } => write!(f, "what answers at {url} is no management API: {reason}"),
        }
    }
}

/// A broker's management API, as one user.
#[derive(Debug)]
pub(in crate::cli) struct Api {
    agent: ureq::Agent,
    base: String,
    authorization: String,
    /// What is meant where no vhost is named.
    pub(in crate::cli) vhost: String,
}

impl Api {
    /// Takes from the context what the command line does not say.
    ///
    /// # Errors
    /// When the context is not there or the certificates cannot be read.
    pub(in crate::cli) fn new(remote: &Remote) -> Result<Self, Failure> {
        let context = context::chosen(remote.context.as_deref())?;
        Self::with_context(remote, context, Duration::from_secs(remote.timeout.max(1)))
    }

    pub(super) fn with_context(remote: &Remote, context: Context, timeout: Duration) -> Result<Self, Failure> {
        let Context { url, user, password, vhost, tls: of_context } = context;
        let tls = remote.tls.or(&of_context);
        let default = if tls.tls { DEFAULT_TLS_URL } else { DEFAULT_URL };
        let url = remote.url.clone().or(url).unwrap_or_else(|| default.to_owned());
        let user = remote.user.clone().or(user).unwrap_or_else(|| "guest".to_owned());
        let password = remote.password.clone().or(password).unwrap_or_else(|| "guest".to_owned());
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .tls_config(tls.config()?)
            .user_agent(concat!("broker-cli/", env!("CARGO_PKG_VERSION")));
        let base = url.trim_end_matches('/').trim_end_matches("/api").to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(Failure::Usage(format!("'{url}' is no URL of a management API; write http://HOST:15672")));
        }
        // Nobody who asked for TLS is to send a password without it.
        if tls.tls && base.starts_with("http://") {
            return Err(Failure::Usage(format!("'{url}' is without TLS; write https://, or leave out --tls")));
        }
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let vhost = vhost.unwrap_or_else(|| "/".to_owned());
        Ok(Self { agent: config.build().into(), base, authorization, vhost })
    }

    /// The body of an answer, or nothing where it has none.
    pub(in crate::cli) fn get(&self, path: &str) -> Result<Json, Failure> {
        self.send(Method::GET, path, None, &[])
    }

    pub(in crate::cli) fn put(&self, path: &str, body: &Json) -> Result<Json, Failure> {
        self.send(Method::PUT, path, Some(body), &[])
    }

    pub(in crate::cli) fn post(&self, path: &str, body: &Json) -> Result<Json, Failure> {
        self.send(Method::POST, path, Some(body), &[])
    }

    pub(in crate::cli) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, None, &[]).map(drop)
    }

    /// One request. `path` is behind `/api`, with its segments escaped.
    ///
    /// # Errors
    /// When nobody answers, or the answer is no.
    pub(in crate::cli) fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
        headers: &[(&str, &str)],
    ) -> Result<Json, Failure> {
        let url = format!("{}/api{path}", self.base);
        let mut request = ureq::http::Request::builder()
            .method(method.clone())
            .uri(&url)
            .header("authorization", &self.authorization)
            .header("accept", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            None => String::new(),
            Some(body) => {
                request = request.header("content-type", "application/json");
                body.to_string()
            }
        };
        let request =
            request.body(body).map_err(|error| Failure::Usage(format!("'{url}' cannot be asked for: {error}")))?;
        let mut answer = self.agent.run(request).map_err(|error| self.unreachable(error))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| self.unreachable(error))?;
        let parsed = match text.is_empty() {
            true => Ok(Json::Null),
            false => serde_json::from_str::<Json>(&text),
        };
        if !(200..300).contains(&status) {
            let body = parsed.unwrap_or(Json::Null);
            return Err(Failure::Refused {
                status,
                reason: reason(status, &body),
                request: format!("{method} {path}"),
            });
        }
        parsed.map_err(|error| Failure::Foreign { url, reason: error.to_string() })
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        let url = self.base.clone();
        match error {
            ureq::Error::Timeout(_) => Failure::Timeout { url },
            ureq::Error::Protocol(error) => Failure::Foreign { url, reason: error.to_string() },
            error => Failure::Unreachable { url, reason: error.to_string() },
        }
    }
}

/// What the body of a refusal says.
fn reason(status: u16, body: &Json) -> String {
    let text = |key: &str| body.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
    match (text("reason"), text("error")) {
        (Some(reason), _) => reason.trim_end().replace("\n\n", ": ").replace('\n', "; "),
        (None, Some(error)) => error.to_owned(),
        (None, None) => match status {
            401 => "not logged in".to_owned(),
            404 => "not found".to_owned(),
            _ => "refused".to_owned(),
        },
    }
}

/// A name as a segment of a path.
pub(in crate::cli) fn segment(name: &str) -> String {
    utf8_percent_encode(name, ESCAPED).to_string()
}

/// A path of names behind a fixed first part.
pub(in crate::cli) fn path(first: &str, names: &[&str]) -> String {
    names.iter().fold(format!("/{first}"), |path, name| format!("{path}/{}", segment(name)))
}

/// An exchange's name in a path, where the default exchange needs another one.
pub(in crate::cli) fn exchange(name: &str) -> &str {
    if name.is_empty() { "amq.default" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_paths() {
        assert_eq!(path("queues", &["/", "a b/ü%"]), "/queues/%2F/a%20b%2F%C3%BC%25");
        assert_eq!(path("vhosts", &[]), "/vhosts");
    }

    #[test]
    fn a_refusal_tells_its_reason_in_one_line() {
        let body = serde_json::json!({"error": "bad_request", "reason": "Validation failed\n\nx is not known\n"});
        assert_eq!(reason(400, &body), "Validation failed: x is not known");
        assert_eq!(reason(401, &Json::Null), "not logged in");
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        let refused = |status| Failure::Refused { status, reason: String::new(), request: String::new() }.exit_code();
        assert_eq!([400, 401, 404, 503, 500].map(refused), [65, 77, 66, 69, 76]);
    }
}
