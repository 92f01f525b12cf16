//! What the claims of a token say: for whom it is, until when, who that is, and what they may do.
//!
//! The signature has been checked before; a token whose claims do not fit is refused with a sentence.

use std::collections::BTreeSet;

use plugin_api::serde_json::{Map, Value};

use crate::scope::escape;
use crate::settings::Settings;

/// A token that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) user: String,
    pub(crate) tags: Vec<String>,
    /// Without prefix and tags, and with the claims that they name filled in.
    pub(crate) scopes: Vec<String>,
    pub(crate) expires_at_ms: u64,
}

/// Reads claims at `now_ms`.
///
/// # Errors
/// What speaks against the token.
pub(crate) fn judge(settings: &Settings, claims: &Map<String, Value>, now_ms: u64) -> Result<Grant, String> {
    let expires_at_ms = time(claims, "exp")?.ok_or("the token has no exp claim")?;
    if expires_at_ms <= now_ms {
        return Err("the token has expired".to_owned());
    }
    if time(claims, "nbf")?.is_some_and(|from_ms| from_ms > now_ms) {
        return Err("the token is not valid yet (nbf)".to_owned());
    }
    if let Some(issuer) = &settings.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err("the token is of another issuer".to_owned());
    }
    if settings.verify_aud && !words(claims.get("aud")).any(|audience| audience == settings.resource_server_id) {
        return Err(format!("the token is not for '{}' (aud)", settings.resource_server_id));
    }
    let mut names = settings.preferred_username_claims.iter().filter_map(|name| claims.get(name)?.as_str());
    let user = names.find(|name| (1..=255).contains(&name.len()));
    let user =
        user.ok_or_else(|| format!("the token has no name: {}", settings.preferred_username_claims.join(", ")))?;
    let granted = granted(settings, claims)?;
    let tags = granted.iter().filter_map(|scope| scope.strip_prefix("tag:")).map(str::to_owned).collect();
    let scopes = granted.iter().filter(|scope| !scope.starts_with("tag:")).map(|scope| filled_in(scope, claims));
    Ok(Grant { user: user.to_owned(), tags, scopes: scopes.collect(), expires_at_ms })
}

/// All scopes for us, sorted, without the prefix.
fn granted(settings: &Settings, claims: &Map<String, Value>) -> Result<BTreeSet<String>, String> {
    let mut found: Vec<String> = words(claims.get("scope")).map(str::to_owned).collect();
    // Where Keycloak puts scopes of a requesting party's token.
    let paths = std::iter::once("authorization.permissions.scopes").chain(settings.additional_scopes_paths());
    for path in paths {
        let keys: Vec<&str> = path.split('.').filter(|key| !key.is_empty()).collect();
        gather(&settings.resource_server_id, claims, &keys, &mut found);
    }
    let aliased: Vec<String> = found
        .iter()
        .filter_map(|scope| settings.scope_aliases.get(scope))
        .flat_map(|meant| words(Some(meant)))
        .map(str::to_owned)
        .collect();
    found.extend(aliased);
    let ours: BTreeSet<String> =
        found.iter().filter_map(|scope| scope.strip_prefix(settings.prefix())).map(str::to_owned).collect();
    if ours.len() > SCOPES_MAX {
        return Err(format!("the token has more than {SCOPES_MAX} scopes"));
    }
    Ok(ours)
}

/// Words of a text, or of a list of texts.
fn words(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (text, list) = match value {
        Some(Value::String(text)) => (Some(text), None),
        Some(Value::Array(list)) => (None, Some(list)),
        _ => (None, None),
    };
    let listed = list.into_iter().flatten().filter_map(Value::as_str);
    text.into_iter().flat_map(|text| text.split_whitespace()).chain(listed)
}

/// Scopes at the end of a path; a list on the way stands for each of its members.
fn gather(resource_server_id: &str, claims: &Map<String, Value>, keys: &[&str], found: &mut Vec<String>) {
    let Some((key, rest)) = keys.split_first() else { return };
    let Some(value) = claims.get(*key) else { return };
    if rest.is_empty() {
        match value {
            // By the names of services, and then without a prefix.
            Value::Object(by_service) => {
                let scopes = words(by_service.get(resource_server_id));
                found.extend(scopes.map(|scope| format!("{resource_server_id}.{scope}")));
            }
            _ => found.extend(words(Some(value)).map(str::to_owned)),
        }
        return;
    }
    let members = match value {
        Value::Array(list) => list.as_slice(),
        _ => std::slice::from_ref(value),
    };
    for member in members.iter().filter_map(Value::as_object) {
        gather(resource_server_id, member, rest, found);
    }
}

/// A scope with the claims that stand in braces. They stand for themselves, whatever stars and slashes they have. `{vhost}` stays.
fn filled_in(scope: &str, claims: &Map<String, Value>) -> String {
    let mut filled = String::new();
    let mut rest = scope;
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((name, after)) = behind.split_once('}') else { break };
        filled.push_str(before);
        match claims.get(name).and_then(Value::as_str) {
            _ if name == "vhost" => filled.push_str("{vhost}"),
            Some(value) => filled.push_str(&escape(value)),
            None => filled.push_str(&escape(name)),
        }
        rest = after;
    }
    filled + rest
}

/// A claim in seconds, which may have a fraction.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..MAX_SECONDS).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("the {name} claim of the token is no time"))?;
    Ok(Some(seconds as u64 * 1000))
}

/// Nobody needs more (RabbitMQ has the same limit).
const SCOPES_MAX: usize = 2048;
/// The year 9999.
const MAX_SECONDS: f64 = 253_402_300_800.0;

#[cfg(test)]
mod tests {
    use plugin_api::serde_json::json;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn check(settings: Value, claims: Value) -> Result<Grant, String> {
        let mut config = json!({ "resource_server_id": "rabbitmq", "jwks_file": "x" });
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let settings: Settings = plugin_api::config::Config::new(config).parse().unwrap();
        let mut all = json!({ "aud": "rabbitmq", "sub": "ann", "exp": NOW_MS / 1000 + 60 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        judge(&settings, all.as_object().unwrap(), NOW_MS)
    }

    #[test]
    fn time_audience_issuer_and_name_are_judged() {
        assert_eq!(check(json!({}), json!({})).unwrap().expires_at_ms, NOW_MS + 60_000);
        let now = NOW_MS / 1000;
        for (settings, claims, expected) in [
            (json!({}), json!({ "exp": now }), "the token has expired"),
            (json!({}), json!({ "exp": null }), "the exp claim of the token is no time"),
            (json!({}), json!({ "exp": "2100" }), "the exp claim of the token is no time"),
            (json!({}), json!({ "exp": -1 }), "the exp claim of the token is no time"),
            (json!({}), json!({ "exp": 1e300 }), "the exp claim of the token is no time"),
            (json!({}), json!({ "nbf": now + 5 }), "the token is not valid yet (nbf)"),
            (json!({}), json!({ "aud": "other" }), "the token is not for 'rabbitmq' (aud)"),
            (json!({}), json!({ "aud": ["a", ["rabbitmq"]] }), "the token is not for 'rabbitmq' (aud)"),
            (json!({}), json!({ "aud": null }), "the token is not for 'rabbitmq' (aud)"),
            (json!({ "issuer": "https://us" }), json!({}), "the token is of another issuer"),
            (json!({ "issuer": "https://us" }), json!({ "iss": "https://us/" }), "the token is of another issuer"),
            (json!({}), json!({ "sub": "" }), "the token has no name: sub, client_id"),
            (json!({}), json!({ "sub": "x".repeat(256) }), "the token has no name: sub, client_id"),
        ] {
            assert_eq!(check(settings, claims.clone()), Err(expected.to_owned()), "{claims}");
        }
        assert!(check(json!({ "verify_aud": false }), json!({ "aud": null })).is_ok());
        assert!(check(json!({}), json!({ "aud": ["x", "rabbitmq"], "nbf": now, "exp": now as f64 + 1.5 })).is_ok());
        assert_eq!(check(json!({}), json!({ "sub": 5, "client_id": "app" })).unwrap().user, "app");
        let settings = json!({ "preferred_username_claims": ["email"] });
        assert_eq!(check(settings, json!({ "email": "a@b" })).unwrap().user, "a@b");
        assert!(check(json!({}), json!({ "exp": 5, "nbf": 1 })).is_err());
    }

    #[test]
    fn scopes_come_from_their_claims_and_only_ours_count() {
        let scopes = |settings: Value, claims: Value| check(settings, claims).unwrap();
        let grant =
            scopes(json!({}), json!({ "scope": "openid rabbitmq.read:*/* rabbitmq.tag:management other.write:*/*" }));
        assert_eq!((grant.scopes, grant.tags), (vec!["read:*/*".to_owned()], vec!["management".to_owned()]));
        let one = |settings, claims| scopes(settings, claims).scopes;
        assert_eq!(one(json!({}), json!({ "scope": ["rabbitmq.read:a/b", 5, "rabbitmq.read:a/b"] })), ["read:a/b"]);
        assert_eq!(one(json!({ "scope_prefix": "api://" }), json!({ "scope": "api://read:a/b" })), ["read:a/b"]);
        assert_eq!(one(json!({ "scope_prefix": "" }), json!({ "scope": "read:a/b" })), ["read:a/b"]);
        let settings = json!({ "additional_scopes_key": "roles realm.more" });
        let claims = json!({ "roles": { "rabbitmq": ["read:r/*"] }, "realm": [{ "more": "rabbitmq.read:m/*" }, 3] });
        assert_eq!(one(settings, claims), ["read:m/*", "read:r/*"]);
        let permissions = json!({ "authorization": { "permissions": [{ "scopes": ["rabbitmq.write:k/*"] }] } });
        assert_eq!(one(json!({}), permissions), ["write:k/*"]);
        let settings = json!({ "scope_aliases": { "admin": ["rabbitmq.tag:administrator", "rabbitmq.read:*/*"], "r": "rabbitmq.read:r/*" } });
        let grant = scopes(settings, json!({ "scope": "admin r" }));
        assert_eq!((grant.scopes.len(), grant.tags), (2, vec!["administrator".to_owned()]));
        let many: Vec<String> = (0..=SCOPES_MAX).map(|n| format!("rabbitmq.read:a/{n}")).collect();
        assert_eq!(check(json!({}), json!({ "scope": many })), Err("the token has more than 2048 scopes".to_owned()));
    }

    #[test]
    fn claims_in_braces_stand_for_themselves() {
        let scope = |text: &str| {
            let claims = json!({ "scope": [format!("rabbitmq.{text}")], "team": "a*b/c", "n": 5 });
            check(json!({}), claims).unwrap().scopes.remove(0)
        };
        assert_eq!(scope("read:{vhost}/{team}-*"), "read:{vhost}/a%2Ab%2Fc-*");
        assert_eq!(scope("read:x/{sub}.{n}"), "read:x/ann.n", "what is no text stands for its name");
        assert_eq!(scope("read:x/{open"), "read:x/{open");
    }
}
