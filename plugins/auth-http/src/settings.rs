//! `config` of the backend in the topology file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::auth::AuthSpec;
use plugin_api::error::Invalid;
use plugin_api::serde::Deserialize;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// As it stands in the file; the readme has the table.
#[derive(Deserialize)]
#[serde(crate = "plugin_api::serde", deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) user_path: String,
    pub(crate) vhost_path: String,
    pub(crate) resource_path: String,
    pub(crate) topic_path: String,
    #[serde(default)]
    pub(crate) http_method: Method,
    #[serde(default = "request_timeout")]
    request_timeout: u64,
    #[serde(default = "connection_timeout")]
    connection_timeout: u64,
    #[serde(default = "cache_seconds")]
    cache_seconds: u64,
    #[serde(default = "cache_refusals_seconds")]
    cache_refusals_seconds: u64,
    #[serde(default = "connections_max")]
    pub(crate) connections_max: usize,
    #[serde(default)]
    tls: Tls,
}

/// How parameters travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(crate = "plugin_api::serde", rename_all = "lowercase")]
pub(crate) enum Method {
    /// In the URL, where servers write passwords into their logs.
    Get,
    /// In the body.
    #[default]
    Post,
}

#[derive(Deserialize, Default)]
#[serde(crate = "plugin_api::serde", default, deny_unknown_fields)]
struct Tls {
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
}

impl Settings {
    /// Reads and judges them.
    pub(crate) fn of(spec: &AuthSpec) -> Result<Self, Invalid> {
        let settings: Self = spec.config.parse()?;
        for (key, url) in [
            ("user_path", &settings.user_path),
            ("vhost_path", &settings.vhost_path),
            ("resource_path", &settings.resource_path),
            ("topic_path", &settings.topic_path),
        ] {
            check_url(key, url)?;
        }
        within("request_timeout", settings.request_timeout, 1, 60_000)?;
        within("connection_timeout", settings.connection_timeout, 1, 60_000)?;
        within("cache_seconds", settings.cache_seconds, 0, 86_400)?;
        within("cache_refusals_seconds", settings.cache_refusals_seconds, 0, 86_400)?;
        within("connections_max", settings.connections_max as u64, 1, 256)?;
        Ok(settings)
    }

    pub(crate) const fn allow_valid_for(&self) -> Duration {
        Duration::from_secs(self.cache_seconds)
    }

    pub(crate) const fn deny_valid_for(&self) -> Duration {
        Duration::from_secs(self.cache_refusals_seconds)
    }

    /// What makes requests.
    pub(crate) fn agent(&self, base: Option<&Path>) -> Result<ureq::Agent, Invalid> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(self.request_timeout)))
            .timeout_connect(Some(Duration::from_millis(self.connection_timeout)))
            .http_status_as_error(false)
            // Where credentials go is for the operator to say, not for whoever answers.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(self.connections_max)
            // Nor is it for the environment.
            .proxy(None)
            .user_agent("broker-auth-http")
            .tls_config(self.tls.config(base)?)
            .build();
        Ok(config.into())
    }
}

impl Tls {
    fn config(&self, base: Option<&Path>) -> Result<TlsConfig, Invalid> {
        let mut config = TlsConfig::builder();
        if let Some(file) = &self.ca_file {
            config = config.root_certs(RootCerts::Specific(Arc::new(certificates("ca_file", base, file)?)));
        }
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let chain = certificates("cert_file", base, cert)?;
                let key_pem = read("key_file", base, key)?;
                let wrong = |_| Invalid::new(format!("tls.key_file: '{key}' has no private key in PEM"));
                let key = PrivateKey::from_pem(&key_pem).map_err(wrong)?;
                config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
            }
            (None, None) => {}
            _ => return Err(Invalid::new("tls.cert_file and tls.key_file go together: give both, or none")),
        }
        Ok(config.build())
    }
}

fn certificates(key: &str, base: Option<&Path>, file: &str) -> Result<Vec<Certificate<'static>>, Invalid> {
    let pem = read(key, base, file)?;
    let found = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(Invalid::new(format!("tls.{key}: '{file}' has no certificate in PEM")));
    }
    Ok(found)
}

fn read(key: &str, base: Option<&Path>, file: &str) -> Result<Vec<u8>, Invalid> {
    let path = base.map_or_else(|| Path::new(file).to_path_buf(), |base| base.join(file));
    std::fs::read(&path)
        .map_err(|error| Invalid::new(format!("tls.{key}: '{}' cannot be read: {error}", path.display())))
}

fn check_url(key: &str, url: &str) -> Result<(), Invalid> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !matches!(scheme, "http" | "https") || rest.is_empty() || rest.starts_with(['/', ':', '?', '#']) {
        return Err(Invalid::new(format!("{key}: '{}' is no http:// or https:// URL", without_secrets(url))));
    }
    if url.contains('@') {
        let text = "a name and a password in the URL would be sent to nobody; take them out, or let the service know the \
                    broker by a client certificate (tls.cert_file)";
        return Err(Invalid::new(format!("{key}: {text}")));
    }
    if url.contains(['?', '#']) {
        return Err(Invalid::new(format!(
            "{key}: a query or fragment in the URL is not supported: use a path of its own"
        )));
    }
    url.parse::<ureq::http::Uri>().map_err(|error| Invalid::new(format!("{key}: '{url}' is no URL: {error}"))).map(drop)
}

/// A URL without what may stand before an `@`.
fn without_secrets(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, host)| host)
}

fn within(key: &str, value: u64, min: u64, max: u64) -> Result<(), Invalid> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Invalid::new(format!("{key} must be from {min} to {max}, but is {value}")))
    }
}

const fn request_timeout() -> u64 {
    5_000
}

const fn connection_timeout() -> u64 {
    2_000
}

const fn cache_seconds() -> u64 {
    30
}

/// Short, since whoever was refused may be let in soon.
const fn cache_refusals_seconds() -> u64 {
    2
}

const fn connections_max() -> usize {
    8
}

#[cfg(test)]
mod tests {
    use plugin_api::config::Config;
    use plugin_api::serde_json::{Value, json};

    use super::*;

    fn text_of(change: Value) -> Option<String> {
        let mut config = json!({
            "user_path": "http://localhost/u", "vhost_path": "http://localhost/v",
            "resource_path": "http://localhost/r", "topic_path": "https://localhost:9/t",
        });
        if let (Some(config), Value::Object(change)) = (config.as_object_mut(), change) {
            config.extend(change);
        }
        let spec = AuthSpec { config: Config::new(config), base: None };
        Settings::of(&spec).and_then(|settings| settings.agent(None)).err().map(|error| error.text)
    }

    #[test]
    fn mistakes_are_refused_with_a_sentence() {
        assert_eq!(text_of(json!({})), None);
        for (change, expected) in [
            (json!({ "user_path": "localhost/u" }), "user_path: 'localhost/u' is no http:// or https:// URL"),
            (json!({ "user_path": "http:///u" }), "user_path: 'http:///u' is no http:// or https:// URL"),
            (json!({ "user_path": "ftp://ann:secret@h/u" }), "user_path: 'h/u' is no http:// or https:// URL"),
            (
                json!({ "topic_path": "http://ann:secret@h/t" }),
                "topic_path: a name and a password in the URL would be sent",
            ),
            (json!({ "vhost_path": "http://h/t?x=1" }), "vhost_path: a query or fragment in the URL is not supported"),
            (json!({ "request_timeout": 0 }), "request_timeout must be from 1 to 60000, but is 0"),
            (json!({ "http_method": "put" }), "invalid config: unknown variant `put`"),
            (json!({ "user_pat": "x" }), "invalid config: unknown field `user_pat`"),
            (json!({ "tls": { "ca_file": "/nowhere.pem" } }), "tls.ca_file: '/nowhere.pem' cannot be read"),
            (json!({ "tls": { "cert_file": "c.pem" } }), "tls.cert_file and tls.key_file go together"),
        ] {
            let text = text_of(change.clone()).unwrap_or_default();
            assert!(text.starts_with(expected), "{change}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
