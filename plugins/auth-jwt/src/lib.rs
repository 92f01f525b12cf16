//! Auth backend `jwt`: whoever brings a token of an issuer that we trust may do what its scopes say, until it expires.
//!
//! Tokens come as the password. Scopes and settings are those of RabbitMQ's OAuth 2 backend. Each signature is checked here, by
//! keys that the issuer publishes; nobody is asked at a login.

mod claims;
mod crypto;
mod keys;
mod scope;
mod settings;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation};
use plugin_api::async_trait;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, AuthSpec, AuthType, Identity, Login, Renewal, ResourceRequest, Subject,
    TopicRequest, VhostRequest,
};
use plugin_api::error::Invalid;
use plugin_api::serde_json::{self, Map, Value};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::claims::Grant;
use crate::keys::{Keys, NoKey, Source};
use crate::settings::Settings;

/// The kind of backend, as registered.
pub struct JwtType;

impl AuthType for JwtType {
    fn name(&self) -> &str {
        "jwt"
    }

    fn description(&self) -> &str {
        "lets in by OAuth 2 tokens, as rabbitmq-auth-backend-oauth2 does"
    }

    fn open(&self, spec: &AuthSpec) -> Result<Arc<dyn AuthBackend>, Invalid> {
        crypto::install();
        let settings: Settings = spec.config.parse()?;
        settings.check()?;
        let base = spec.base.as_deref();
        let source = match (&settings.jwks_file, &settings.jwks_url) {
            (_, Some(url)) => Source::Url(agent(&settings, base)?, url.clone()),
            (file, None) => Source::File(resolved(base, file.as_deref().unwrap_or_default())),
        };
        let keys = Keys::new(source, Duration::from_secs(settings.refresh_seconds))
            .map_err(|error| Invalid::new(format!("threads cannot be started: {error}")))?;
        Ok(Arc::new(Jwt { settings, keys }))
    }
}

plugin_api::export_plugin!(auth_backends: [JwtType]);

struct Jwt {
    settings: Settings,
    keys: Keys,
}

#[async_trait]
impl AuthBackend for Jwt {
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError> {
        self.admit(login.password).await
    }

    async fn renew(&self, renewal: &Renewal<'_>) -> Result<Answer<Identity>, AuthError> {
        self.admit(renewal.secret).await
    }

    async fn vhost(&self, request: &VhostRequest<'_>) -> Result<Answer<()>, AuthError> {
        answer(&request.subject, |scopes| scope::allows_vhost(scopes, request.vhost))
    }

    async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError> {
        let ResourceRequest { subject, vhost, name, permission, .. } = request;
        answer(subject, |scopes| scope::allows_resource(scopes, *permission, vhost, name))
    }

    async fn topic(&self, request: &TopicRequest<'_>) -> Result<Answer<()>, AuthError> {
        let TopicRequest { subject, vhost, exchange, routing_key, permission } = request;
        answer(subject, |scopes| scope::allows_topic(scopes, *permission, vhost, exchange, routing_key))
    }
}

impl Jwt {
    async fn admit(&self, token: &[u8]) -> Result<Answer<Identity>, AuthError> {
        let Some(header) = header(token) else { return Ok(Answer::not_mine()) };
        let header = match header {
            Ok(header) => header,
            Err(reason) => return Ok(Answer::deny(reason)),
        };
        match self.verified(token, &header).await? {
            Ok(grant) => Ok(identity(grant)),
            Err(reason) => Ok(Answer::deny(reason)),
        }
    }

    /// What a token grants, or why it grants nothing.
    async fn verified(&self, token: &[u8], header: &Header) -> Result<Result<Grant, String>, AuthError> {
        let algorithm = header.alg;
        if !self.settings.algorithms.contains(&algorithm) {
            return Ok(Err(format!("tokens signed by {algorithm:?} are not taken")));
        }
        if header.crit.is_some() {
            return Ok(Err("the token wants something to be understood that is not (crit)".to_owned()));
        }
        let id = header.kid.as_deref().or(self.settings.default_key.as_deref());
        let found = match self.keys.find(id).await {
            Ok(found) => found,
            Err(NoKey::Unknown) => {
                return Ok(Err("the token is signed by a key that the issuer does not have".to_owned()));
            }
            Err(NoKey::Unreachable(text)) => {
                return Err(AuthError::new(format!("the issuer's keys are not known: {text}")));
            }
        };
        let Some(key) = found.key().filter(|key| key.is_for(algorithm)) else {
            return Ok(Err(format!("the key of the token is not for {algorithm:?}")));
        };
        let mut validation = Validation::new(algorithm);
        // Claims are judged in one place, with sentences of our own.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let claims = match jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation) {
            Ok(data) => data.claims,
            Err(error) => {
                let reason = match error.kind() {
                    ErrorKind::InvalidSignature => "the signature of the token is wrong",
                    _ => "the token cannot be read",
                };
                return Ok(Err(reason.to_owned()));
            }
        };
        Ok(claims::judge(&self.settings, &claims, now_ms()))
    }
}

/// The header of a token. `None` when this is no token, so that passwords with dots are left to other backends.
fn header(token: &[u8]) -> Option<Result<Header, String>> {
    let is_encoded = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let looks_so = token.iter().filter(|byte| **byte == b'.').count() == 2 && token.starts_with(b"ey");
    if !looks_so || !token.iter().all(is_encoded) {
        return None;
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Some(Err(format!("the token is longer than {TOKEN_BYTES_MAX} bytes")));
    }
    // Also for an algorithm that does not exist here, such as none.
    Some(jsonwebtoken::decode_header(token).map_err(|_| "the header of the token cannot be read".to_owned()))
}

/// The scopes go into the session, so that a question needs nothing but itself.
fn identity(grant: Grant) -> Answer<Identity> {
    let Grant { user, tags, scopes, expires_at_ms } = grant;
    let session = serde_json::to_vec(&scopes).unwrap_or_default();
    let identity = Identity { expires_at_ms: Some(expires_at_ms), session, ..Identity::new(user, tags) };
    Answer::allow(identity).valid_for(left(expires_at_ms).min(LOGIN_KEPT_MAX))
}

fn answer(subject: &Subject<'_>, allows: impl FnOnce(&[String]) -> bool) -> Result<Answer<()>, AuthError> {
    // Another backend let the user in.
    if subject.session.is_empty() {
        return Ok(Answer::not_mine());
    }
    let left = subject.expires_at_ms.map_or(Duration::ZERO, left);
    if left.is_zero() {
        return Ok(Answer::deny("the token has expired"));
    }
    let scopes: Vec<String> =
        serde_json::from_slice(subject.session).map_err(|_| AuthError::new("the session is not of this backend"))?;
    let answer = if allows(&scopes) { Answer::allow(()) } else { Answer::deny("no scope of the token allows it") };
    // Nothing but the token decides.
    Ok(answer.valid_for(left))
}

fn left(expires_at_ms: u64) -> Duration {
    Duration::from_millis(expires_at_ms.saturating_sub(now_ms()))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn agent(settings: &Settings, base: Option<&Path>) -> Result<ureq::Agent, Invalid> {
    let mut tls = TlsConfig::builder();
    if let Some(file) = &settings.ca_file {
        let path = resolved(base, file);
        let pem = std::fs::read(&path)
            .map_err(|error| Invalid::new(format!("ca_file: '{}' cannot be read: {error}", path.display())))?;
        let roots = parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let roots: Vec<_> = roots.collect();
        if roots.is_empty() {
            return Err(Invalid::new(format!("ca_file: '{file}' has no certificate in PEM")));
        }
        tls = tls.root_certs(RootCerts::Specific(Arc::new(roots)));
    }
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_millis(settings.request_timeout)))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent("broker-auth-jwt")
        .tls_config(tls.build())
        .build();
    Ok(config.into())
}

fn resolved(base: Option<&Path>, file: &str) -> std::path::PathBuf {
    base.map_or_else(|| file.into(), |base| base.join(file))
}

/// Longer ones do not fit into the frames of most clients.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// A key that was withdrawn lets nobody in for longer than this.
const LOGIN_KEPT_MAX: Duration = Duration::from_secs(30);
