//! The issuer's public keys: read from a file or fetched, kept, and fetched again in time.
//!
//! A token with an unknown key id makes us look again, but not more often than [`LOOK_AGAIN`]: anybody may send such tokens.
//! When the issuer cannot be reached, the keys that we have go on for [`KEPT_MAX`]; then nobody gets in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use plugin_api::blocking::Threads;
use plugin_api::host::{self, Level};
use plugin_api::serde_json::{self, Value};

/// Where keys come from.
pub(crate) enum Source {
    File(PathBuf),
    Url(ureq::Agent, String),
}

/// See the module.
pub(crate) struct Keys {
    shared: Arc<Shared>,
    /// One: fetches follow each other, and whoever waited for one finds its work done.
    thread: Threads,
}

struct Shared {
    source: Source,
    refresh: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Arc<HashMap<Option<String>, Key>>,
    /// When they came.
    fetched: Option<Instant>,
    /// When somebody looked last, whatever came of it.
    looked: Option<Instant>,
    error: Option<String>,
}

/// A key with what it says of itself.
pub(crate) struct Key {
    pub(crate) decoding: DecodingKey,
    /// The only algorithm that it may be used for, when it names one.
    algorithm: Option<String>,
}

impl Key {
    /// Whether a token of this algorithm may be checked with it.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.decoding.family() == algorithm.family()
            && self.algorithm.as_ref().is_none_or(|own| *own == format!("{algorithm:?}"))
    }
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The issuer has none of this id.
    Unknown,
    /// Nobody knows which keys the issuer has.
    Unreachable(String),
}

impl Keys {
    pub(crate) fn new(source: Source, refresh: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { source, refresh, state: Mutex::default() });
        Ok(Self { shared, thread: Threads::start("auth-jwt-keys", 1, WAITING_MAX)? })
    }

    /// The key of this id; without an id the only one that there is.
    pub(crate) async fn find(&self, id: Option<&str>) -> Result<Arc<Found>, NoKey> {
        let found = self.shared.state().find(id);
        if found.is_some() && !self.shared.is_due() {
            return found.ok_or(NoKey::Unknown);
        }
        if self.shared.may_look() {
            let shared = Arc::clone(&self.shared);
            let wanted = id.map(str::to_owned);
            let looked = self.thread.run(move || shared.look(wanted.as_deref())).await;
            looked.map_err(|error| NoKey::Unreachable(error.to_string()))?;
        }
        let state = self.shared.state();
        let is_known = state.fetched.is_some_and(|fetched| fetched.elapsed() < KEPT_MAX);
        match (&state.error, state.find(id)) {
            (_, Some(found)) if is_known => Ok(found),
            (None, _) if is_known => Err(NoKey::Unknown),
            (error, _) => Err(NoKey::Unreachable(error.clone().unwrap_or_else(|| "no keys yet".to_owned()))),
        }
    }
}

/// A key, kept for as long as it is used.
pub(crate) struct Found {
    keys: Arc<HashMap<Option<String>, Key>>,
    id: Option<String>,
}

impl Found {
    pub(crate) fn key(&self) -> Option<&Key> {
        self.keys.get(&self.id)
    }
}

impl State {
    fn find(&self, id: Option<&str>) -> Option<Arc<Found>> {
        let id = match id {
            Some(_) => id.map(str::to_owned),
            None if self.keys.len() == 1 => self.keys.keys().next().cloned().flatten(),
            None => return None,
        };
        self.keys.contains_key(&id).then(|| Arc::new(Found { keys: Arc::clone(&self.keys), id }))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No call leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self) -> bool {
        self.state().fetched.is_none_or(|fetched| fetched.elapsed() >= self.refresh)
    }

    fn may_look(&self) -> bool {
        self.state().looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN)
    }

    /// Looks, unless somebody has done so while we waited.
    fn look(&self, id: Option<&str>) {
        if !self.may_look() || (self.state().find(id).is_some() && !self.is_due()) {
            return;
        }
        let fetched = match &self.source {
            Source::File(path) => read(path),
            Source::Url(agent, url) => fetch(agent, url),
        };
        let parsed = fetched.and_then(|bytes| parse(&bytes));
        let mut state = self.state();
        state.looked = Some(Instant::now());
        match parsed {
            Ok(keys) => {
                (state.keys, state.fetched, state.error) = (Arc::new(keys), Some(Instant::now()), None);
            }
            Err(error) => {
                host::log(Level::Error, TARGET, format_args!("keys of the issuer: {error}"));
                state.error = Some(error);
            }
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("'{}' cannot be read: {error}", path.display());
    let found = path.metadata().map_err(failed)?;
    if found.len() > KEYS_BYTES_MAX {
        return Err(format!("'{}' is longer than {KEYS_BYTES_MAX} bytes", path.display()));
    }
    // Whoever can change keys can make tokens.
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o002 != 0 {
        let path = path.display();
        return Err(format!("'{path}' can be changed by every user: chmod o-w '{path}'"));
    }
    std::fs::read(path).map_err(failed)
}

fn fetch(agent: &ureq::Agent, url: &str) -> Result<Vec<u8>, String> {
    let mut response = agent.get(url).call().map_err(|error| format!("{url} cannot be fetched: {error}"))?;
    let status = response.status();
    if status.as_u16() != 200 {
        return Err(format!("{url} answers with status {}", status.as_u16()));
    }
    let body = response.body_mut().with_config().limit(KEYS_BYTES_MAX).read_to_vec();
    body.map_err(|error| format!("{url} cannot be fetched: {error}"))
}

/// Those that can check a signature; what is of another kind is passed over, since issuers publish keys for other uses, too.
fn parse(bytes: &[u8]) -> Result<HashMap<Option<String>, Key>, String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    let list = set.get("keys").and_then(Value::as_array).ok_or("no key set: there is no list 'keys'")?;
    if list.len() > KEYS_MAX {
        return Err(format!("more than {KEYS_MAX} keys"));
    }
    let mut keys = HashMap::new();
    for value in list {
        let algorithm = value.get("alg").and_then(Value::as_str).map(str::to_owned);
        let Ok(jwk) = serde_json::from_value::<Jwk>(value.clone()) else { continue };
        let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
        let is_public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        let Ok(decoding) = DecodingKey::from_jwk(&jwk) else { continue };
        if is_for_signatures && is_public && decoding.family() != AlgorithmFamily::Hmac {
            keys.insert(jwk.common.key_id, Key { decoding, algorithm });
        }
    }
    if keys.is_empty() { Err("no key that could check a token".to_owned()) } else { Ok(keys) }
}

/// An issuer has a handful.
const KEYS_MAX: usize = 100;
const KEYS_BYTES_MAX: u64 = 256 << 10;
/// See the module.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const KEPT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Logins that wait for the keys.
const WAITING_MAX: usize = 10_000;
/// The target of log lines.
pub(crate) const TARGET: &str = "auth-jwt";
