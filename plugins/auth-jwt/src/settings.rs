//! `config` of the backend in the topology file; the readme has the table.

use std::collections::BTreeMap;

use jsonwebtoken::Algorithm;
use plugin_api::error::Invalid;
use plugin_api::serde::Deserialize;
use plugin_api::serde_json::Value;

use crate::crypto::ALGORITHMS;

/// As it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(crate = "plugin_api::serde", deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) resource_server_id: String,
    #[serde(default)]
    scope_prefix: Option<String>,
    #[serde(default = "yes")]
    pub(crate) verify_aud: bool,
    #[serde(default)]
    pub(crate) issuer: Option<String>,
    #[serde(default = "username_claims")]
    pub(crate) preferred_username_claims: Vec<String>,
    #[serde(default)]
    additional_scopes_key: String,
    #[serde(default)]
    pub(crate) scope_aliases: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) jwks_file: Option<String>,
    #[serde(default)]
    pub(crate) jwks_url: Option<String>,
    #[serde(default)]
    pub(crate) ca_file: Option<String>,
    #[serde(default)]
    pub(crate) default_key: Option<String>,
    #[serde(default = "algorithms")]
    pub(crate) algorithms: Vec<Algorithm>,
    #[serde(default = "refresh_seconds")]
    pub(crate) refresh_seconds: u64,
    #[serde(default = "request_timeout")]
    pub(crate) request_timeout: u64,
    /// What stands before a scope of ours; filled in by [`Self::check`].
    #[serde(skip)]
    prefix: std::sync::OnceLock<String>,
}

impl Settings {
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let refused = |text: String| Err(Invalid::new(text));
        if self.resource_server_id.is_empty() {
            return refused("resource_server_id is empty: it is what tokens name in their aud claim".to_owned());
        }
        if self.preferred_username_claims.is_empty() {
            return refused("preferred_username_claims is empty: nobody would have a name".to_owned());
        }
        match (&self.jwks_file, &self.jwks_url) {
            (Some(_), None) => {}
            (None, Some(url)) => check_url(url)?,
            _ => return refused("give either jwks_file or jwks_url, where the keys of the issuer are".to_owned()),
        }
        for algorithm in &self.algorithms {
            if !ALGORITHMS.contains(algorithm) {
                return refused(format!(
                    "algorithms: {algorithm:?} is not supported; there are {ALGORITHMS:?}, and no symmetric ones on purpose"
                ));
            }
        }
        for (alias, meant) in &self.scope_aliases {
            let is_text = meant.is_string() || meant.as_array().is_some_and(|list| list.iter().all(Value::is_string));
            if !is_text {
                return refused(format!("scope_aliases: '{alias}' must stand for a scope or a list of scopes"));
            }
        }
        if !(1..=86_400).contains(&self.refresh_seconds) {
            return refused(format!("refresh_seconds must be from 1 to 86400, but is {}", self.refresh_seconds));
        }
        if !(1..=60_000).contains(&self.request_timeout) {
            return refused(format!("request_timeout must be from 1 to 60000, but is {}", self.request_timeout));
        }
        Ok(())
    }

    pub(crate) fn prefix(&self) -> &str {
        self.prefix.get_or_init(|| self.scope_prefix.clone().unwrap_or_else(|| format!("{}.", self.resource_server_id)))
    }

    pub(crate) fn additional_scopes_paths(&self) -> impl Iterator<Item = &str> {
        self.additional_scopes_key.split_whitespace()
    }
}

/// Whoever can change keys on their way can make tokens.
fn check_url(url: &str) -> Result<(), Invalid> {
    let refused = |text: &str| Err(Invalid::new(format!("jwks_url: {text}")));
    let Ok(uri) = url.parse::<ureq::http::Uri>() else { return refused(&format!("'{url}' is no URL")) };
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        _ if url.contains('@') => refused("a name and a password in the URL would be sent to nobody; take them out"),
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if matches!(host, "localhost" | "127.0.0.1" | "[::1]") => Ok(()),
        Some("http") => refused(&format!("'{url}' would bring keys that anybody on the way can change: use https://")),
        _ => refused(&format!("'{url}' is no https:// URL")),
    }
}

const fn yes() -> bool {
    true
}

fn username_claims() -> Vec<String> {
    ["sub", "client_id"].map(str::to_owned).into()
}

fn algorithms() -> Vec<Algorithm> {
    ALGORITHMS.into()
}

const fn refresh_seconds() -> u64 {
    600
}

const fn request_timeout() -> u64 {
    5_000
}

#[cfg(test)]
mod tests {
    use plugin_api::config::Config;
    use plugin_api::serde_json::json;

    use super::*;

    #[test]
    fn mistakes_are_refused_with_a_sentence() {
        let text_of = |change: Value| {
            let mut config = json!({ "resource_server_id": "rabbitmq", "jwks_url": "https://idp/keys" });
            config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            Config::new(config).parse::<Settings>().and_then(|settings| settings.check()).err().map(|error| error.text)
        };
        assert_eq!(text_of(json!({})), None);
        assert_eq!(text_of(json!({ "jwks_url": "http://127.0.0.1:8080/keys" })), None);
        for (change, expected) in [
            (json!({ "resource_server_id": "" }), "resource_server_id is empty"),
            (json!({ "jwks_url": null }), "give either jwks_file or jwks_url"),
            (json!({ "jwks_file": "x" }), "give either jwks_file or jwks_url"),
            (json!({ "jwks_url": "http://idp/keys" }), "jwks_url: 'http://idp/keys' would bring keys that anybody"),
            (json!({ "jwks_url": "http://localhost.evil/keys" }), "jwks_url: 'http://localhost.evil/keys' would bring"),
            (json!({ "jwks_url": "https://ann:secret@idp/keys" }), "jwks_url: a name and a password"),
            (json!({ "jwks_url": "file:///keys" }), "jwks_url: 'file:///keys' is no"),
            (json!({ "algorithms": ["HS256"] }), "algorithms: HS256 is not supported"),
            (json!({ "algorithms": ["none"] }), "invalid config: unknown variant `none`"),
            (json!({ "scope_aliases": { "a": [1] } }), "scope_aliases: 'a' must stand for a scope"),
            (json!({ "refresh_seconds": 0 }), "refresh_seconds must be from 1 to 86400"),
            (json!({ "verify_audience": false }), "invalid config: unknown field `verify_audience`"),
        ] {
            let text = text_of(change.clone()).unwrap_or_default();
            assert!(text.starts_with(expected), "{change}: {text}");
        }
    }
}
