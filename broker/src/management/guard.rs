//! Who may call: credentials, tags, vhosts (RabbitMQ: `rabbit_web_dispatch_access_control`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Management;
use super::errors::ApiError;
use crate::access::{Access, LoginError, Mechanism, Peer, Refusal, User};
use crate::metrics::logins::Protocol;

/// What the tags of a user allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) is_administrator: bool,
    /// Sees everything.
    pub(super) is_monitor: bool,
    pub(super) is_policymaker: bool,
    /// May use the API at all.
    pub(super) is_manager: bool,
}

impl Tags {
    pub(super) fn of(tags: &[String]) -> Self {
        let has = |tag: &str| tags.iter().any(|other| other == tag);
        let is_administrator = has("administrator");
        let is_monitor = is_administrator || has("monitoring");
        let is_policymaker = is_administrator || has("policymaker");
        let is_manager = is_monitor || is_policymaker || has("management");
        Self { is_administrator, is_monitor, is_policymaker, is_manager }
    }
}

/// Who may use an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Everybody, without credentials.
    Everyone,
    /// Whoever has a tag of management.
    Any,
    /// Whoever has one, and may enter the vhost that is named.
    Vhost,
    /// As [`Self::Vhost`]; who monitors may see every vhost.
    VhostOrMonitor,
    /// An administrator, or a policymaker who may enter the vhost that is named.
    Policy,
    /// A policymaker.
    Policymaker,
    /// Who monitors.
    Monitor,
    /// An administrator.
    Admin,
    /// Who monitors, or the user that the path names.
    MonitorOrSelf,
}

/// Credentials of a request.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    None,
    Basic {
        user: String,
        password: String,
    },
    /// A token.
    Bearer(String),
    /// Something that nobody here can read.
    Unreadable,
}

impl Management {
    /// Who calls, if the endpoint is for them. `vhost` is the one that the path or the header names.
    pub(super) async fn judge(
        &self,
        who: Who,
        peer: SocketAddr,
        headers: &HeaderMap,
        vhost: Option<&str>,
        named_user: &str,
    ) -> Result<Arc<User>, Refused> {
        if who == Who::Everyone {
            return Ok(Arc::new(User { name: String::new(), tags: Vec::new(), loopback_only: false, foreign: None }));
        }
        let user = match credentials(headers) {
            Credentials::None => return Err(Refused::NoCredentials),
            // A password without a name, for backends that take tokens.
            Credentials::Bearer(token) if self.broker.access.has_foreign_backends() => {
                self.login(peer.ip(), "", &token).await?
            }
            Credentials::Bearer(_) | Credentials::Unreadable => {
                return Err(Refused::Error(ApiError::bad_credentials()));
            }
            Credentials::Basic { user, password } => self.login(peer.ip(), &user, &password).await?,
        };
        let vhost = vhost.filter(|name| self.broker.vhost(name).is_some());
        let access = &self.broker.access;
        let mut permitted = permits(who, &user, access, vhost, named_user);
        if permitted.is_err() && user.foreign.as_ref().is_some_and(|foreign| foreign.has_unasked()) {
            access.judge(&user).await;
            permitted = permits(who, &user, access, vhost, named_user);
        }
        // As in RabbitMQ, whoever has the right password for the wrong endpoint has failed.
        self.count_login(peer.ip(), &user.name, permitted.is_ok());
        permitted.map_err(Refused::Error)?;
        Ok(user)
    }

    pub(super) fn count_login(&self, address: IpAddr, user: &str, is_let_in: bool) {
        self.broker.metrics.logins.add(Protocol::Http, address, user, is_let_in);
    }

    /// Checks a password, not on the event loop. A wrong one is counted here; whether a right one lets its user in, the caller knows.
    pub(super) async fn login(&self, address: IpAddr, name: &str, password: &str) -> Result<Arc<User>, ApiError> {
        let admission = self.broker.access.admit(address, name).await;
        let response = [b"\0", name.as_bytes(), b"\0", password.as_bytes()].concat();
        let peer = Peer { address };
        let (access, runtime) = (Arc::clone(&self.broker.access), tokio::runtime::Handle::current());
        let result =
            tokio::task::spawn_blocking(move || runtime.block_on(access.login(Mechanism::Plain, &response, peer)));
        let result = result.await.map_err(|_| ApiError::unavailable("the check of the password was broken off"))?;
        admission.judged(result.is_ok());
        result.map_err(|error| {
            self.count_login(address, name, false);
            tracing::warn!(%address, error = %error, "HTTP access denied");
            match error {
                LoginError::Refused { reason: Refusal::NotFromLoopback, .. } => {
                    ApiError::not_authorised("User can only log in via localhost")
                }
                LoginError::Refused { .. } | LoginError::Malformed { .. } => ApiError::bad_credentials(),
            }
        })
    }
}

/// Why nobody is let in.
#[derive(Debug)]
pub(super) enum Refused {
    /// The client may ask its user for credentials.
    NoCredentials,
    Error(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

/// Whether a user may use an endpoint. A vhost that does not exist keeps nobody out: the handler says that it is missing.
fn permits(who: Who, user: &User, access: &Access, vhost: Option<&str>, named_user: &str) -> Result<(), ApiError> {
    let tags = Tags::of(&user.tags);
    if !tags.is_manager {
        return Err(ApiError::not_authorised("Not management user"));
    }
    let may_enter = |is_exempt: bool| match vhost {
        Some(vhost) if !is_exempt && !access.may_enter(user, vhost) => Err(ApiError::not_found("Not Found")),
        Some(_) | None => Ok(()),
    };
    let or =
        |is_permitted: bool, reason: &str| if is_permitted { Ok(()) } else { Err(ApiError::not_authorised(reason)) };
    match who {
        Who::Everyone | Who::Any => Ok(()),
        Who::Vhost => may_enter(tags.is_administrator),
        Who::VhostOrMonitor => may_enter(tags.is_monitor),
        Who::Policy => {
            or(tags.is_policymaker, "User not authorised to access object")?;
            may_enter(tags.is_administrator)
        }
        Who::Policymaker => or(tags.is_policymaker, "User not authorised to access object"),
        Who::Monitor => or(tags.is_monitor, "Not monitor user"),
        Who::Admin => or(tags.is_administrator, "Not administrator user"),
        Who::MonitorOrSelf => or(tags.is_monitor || user.name == named_user, "User not authorised to access object"),
    }
}

fn credentials(headers: &HeaderMap) -> Credentials {
    let Some(value) = headers.get(AUTHORIZATION) else { return Credentials::None };
    let Ok(value) = value.to_str() else { return Credentials::Unreadable };
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        return match rest.trim() {
            token if is_bearer && !token.contains('\0') => Credentials::Bearer(token.to_owned()),
            _ if is_bearer => Credentials::Unreadable,
            _ => Credentials::None,
        };
    }
    let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        // A zero byte is where the next part begins for whoever reads both.
        Some((user, password)) if !user.contains('\0') && !password.contains('\0') => {
            Credentials::Basic { user: user.to_owned(), password: password.to_owned() }
        }
        _ => Credentials::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_the_header() {
        let check = |value: Option<&str>, expected: Credentials| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(credentials(&headers), expected, "{value:?}");
        };
        let basic = |user: &str, password: &str| Credentials::Basic { user: user.into(), password: password.into() };
        check(None, Credentials::None);
        check(Some("Basic Z3Vlc3Q6Z3Vlc3Q="), basic("guest", "guest"));
        check(Some("basic YTpiOmM="), basic("a", "b:c"));
        check(Some("Basic Og=="), basic("", ""));
        check(Some("Basic !"), Credentials::Unreadable);
        check(Some("Basic Z3Vlc3Q="), Credentials::Unreadable);
        check(Some("Basic YQBiOmM="), Credentials::Unreadable);
        check(Some("Bearer x"), Credentials::Bearer("x".into()));
        check(Some("Digest x"), Credentials::None);
    }

    #[test]
    fn tags_contain_each_other() {
        let of = |tag: &str| Tags::of(&[tag.to_owned()]);
        assert!(of("administrator").is_monitor && of("administrator").is_policymaker && of("administrator").is_manager);
        assert!(of("monitoring").is_manager && !of("monitoring").is_policymaker && !of("monitoring").is_administrator);
        assert!(of("policymaker").is_manager && !of("policymaker").is_monitor);
        assert!(of("management").is_manager && !of("management").is_monitor);
        assert_eq!(of("impersonator"), Tags::default());
    }
}
