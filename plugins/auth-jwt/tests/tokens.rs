//! Tokens that are signed with keys of the test: good ones, and those that somebody made up.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../auth-http/tests/server/mod.rs"]
mod server;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use auth_jwt::JwtType;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, AuthSpec, AuthType, Identity, Login, Permission, Renewal, Resource,
    ResourceRequest, TopicRequest, Verdict, VhostRequest,
};
use plugin_api::config::Config;
use plugin_api::serde_json::{Value, json};
use plugin_api::testing::block_on;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
    RsaKeyPair, RsaPublicKeyComponents,
};
use server::{Reply, Server};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The issuer of the tests.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        // ring makes no RSA keys; this one is good for tests and nothing else.
        let rsa = RsaKeyPair::from_pkcs8(include_bytes!("keys/rsa.pk8")).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self { rsa, ec, ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap() }
    }

    fn keys(&self) -> Value {
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let (n, e) = (encoded(&public.n), encoded(&public.e));
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": n, "e": e },
            { "kty": "RSA", "kid": "any-rsa", "n": n, "e": e },
            { "kty": "RSA", "kid": "enc", "use": "enc", "n": n, "e": e },
            { "kty": "EC", "kid": "ec", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": encoded(self.ed.public_key()) },
            { "kty": "oct", "kid": "secret", "k": encoded(b"secret") },
            { "kty": "new", "kid": "odd" },
        ]})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let random = SystemRandom::new();
        let mut rsa = vec![0; self.rsa.public().modulus_len()];
        let signature = match header["alg"].as_str() {
            Some("RS256") => {
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut rsa).unwrap();
                rsa
            }
            Some("PS512") => {
                self.rsa.sign(&RSA_PSS_SHA512, &random, message.as_bytes(), &mut rsa).unwrap();
                rsa
            }
            Some("ES256") => self.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Some("EdDSA") => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            // What those try who have only what is public.
            Some("HS256") => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.public_key_as_a_secret().as_slice());
                ring::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{message}.{}", encoded(signature))
    }

    fn public_key_as_a_secret(&self) -> Vec<u8> {
        self.rsa.public().as_ref().to_vec()
    }

    /// Signed by RS256.
    fn token(&self, change: Value) -> String {
        self.sign(&json!({ "alg": "RS256", "kid": "rsa", "typ": "JWT" }), &claims(change))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(change: Value) -> Value {
    let mut claims = json!({
        "aud": ["rabbitmq"], "sub": "ann", "exp": now() + 600,
        "scope": "rabbitmq.read:*/* rabbitmq.write:shop/orders/eu.* rabbitmq.configure:shop/q-* rabbitmq.tag:management",
    });
    claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    claims
}

/// A backend with the keys in a file of its own.
struct FromFile {
    backend: Arc<dyn AuthBackend>,
    folder: PathBuf,
}

impl FromFile {
    fn new(keys: &Value, change: Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("auth-jwt-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("keys.json"), keys.to_string()).unwrap();
        let mut config = json!({ "resource_server_id": "rabbitmq", "jwks_file": "keys.json" });
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let spec = AuthSpec { config: Config::new(config), base: Some(folder.clone()) };
        Self { backend: JwtType.open(&spec).unwrap(), folder }
    }

    fn login(&self, token: &str) -> Result<Answer<Identity>, AuthError> {
        login(&*self.backend, token)
    }

    fn refused(&self, token: &str) -> String {
        match self.login(token).unwrap().verdict {
            Verdict::Deny(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for FromFile {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn login(backend: &dyn AuthBackend, token: &str) -> Result<Answer<Identity>, AuthError> {
    block_on(backend.login(&Login { user: "whoever", password: token.as_bytes(), vhost: None, peer: PEER }))
}

fn allowed(answer: Result<Answer<Identity>, AuthError>) -> Identity {
    match answer.unwrap().verdict {
        Verdict::Allow(identity) => identity,
        other => panic!("{other:?}"),
    }
}

#[test]
fn token_is_a_name_tags_and_what_its_scopes_allow() {
    let issuer = Issuer::new();
    let jwt = FromFile::new(&issuer.keys(), json!({}));
    let answer = jwt.login(&issuer.token(json!({}))).unwrap();
    assert!(answer.valid_for <= Duration::from_secs(30), "a key that was withdrawn lets nobody in for long");
    let ann = allowed(Ok(answer));
    assert_eq!((ann.user.as_str(), ann.tags.as_slice()), ("ann", &["management".to_owned()][..]));
    let expires_at_ms = ann.expires_at_ms.unwrap();
    assert!(expires_at_ms.abs_diff((now() + 600) * 1000) <= 2000);

    let backend = &*jwt.backend;
    let subject = ann.subject(PEER);
    let vhost = |vhost| block_on(backend.vhost(&VhostRequest { subject, vhost })).unwrap();
    assert_eq!(vhost("any").verdict, Verdict::Allow(()));
    let resource = |permission, name| {
        let request = ResourceRequest { subject, vhost: "shop", resource: Resource::Queue, name, permission };
        block_on(backend.resource(&request)).unwrap()
    };
    assert_eq!(resource(Permission::Configure, "q-1").verdict, Verdict::Allow(()));
    assert!(resource(Permission::Configure, "q-1").valid_for > Duration::from_secs(500), "as long as the token");
    assert!(matches!(resource(Permission::Configure, "orders").verdict, Verdict::Deny(_)));
    assert_eq!(resource(Permission::Write, "orders").verdict, Verdict::Allow(()));
    let topic = |permission, routing_key| {
        let request = TopicRequest { subject, vhost: "shop", exchange: "orders", routing_key, permission };
        block_on(backend.topic(&request)).unwrap().verdict
    };
    assert_eq!(topic(Permission::Write, "eu.berlin"), Verdict::Allow(()));
    assert!(matches!(topic(Permission::Write, "us.nyc"), Verdict::Deny(_)));
    assert!(matches!(topic(Permission::Read, "eu.berlin"), Verdict::Deny(_)));
}

#[test]
fn each_algorithm_is_checked_with_its_own_key() {
    let issuer = Issuer::new();
    let jwt = FromFile::new(&issuer.keys(), json!({}));
    for (alg, kid) in [("RS256", "rsa"), ("RS256", "any-rsa"), ("PS512", "any-rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        let token = issuer.sign(&json!({ "alg": alg, "kid": kid }), &claims(json!({})));
        assert_eq!(allowed(jwt.login(&token)).user, "ann", "{alg}");
        // The last letter of a signature may hold bits that nobody reads, so another one is changed.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let changed = if signature.starts_with('A') { "B" } else { "A" };
        let broken = format!("{message}.{changed}{}", &signature[1..]);
        assert_eq!(jwt.refused(&broken), "the signature of the token is wrong", "{alg}");
    }
    let only = FromFile::new(&issuer.keys(), json!({ "algorithms": ["ES256"] }));
    assert_eq!(only.refused(&issuer.token(json!({}))), "tokens signed by RS256 are not taken");
}

#[test]
fn made_up_tokens_are_refused() {
    let issuer = Issuer::new();
    let jwt = FromFile::new(&issuer.keys(), json!({}));
    let sign = |header: Value| issuer.sign(&header, &claims(json!({})));
    for (token, expected) in [
        (sign(json!({ "alg": "none" })), "the header of the token cannot be read"),
        (sign(json!({ "alg": "NONE", "kid": "rsa" })), "the header of the token cannot be read"),
        (sign(json!({ "kid": "rsa" })), "the header of the token cannot be read"),
        (sign(json!({ "alg": "HS256", "kid": "rsa" })), "tokens signed by HS256 are not taken"),
        (sign(json!({ "alg": "HS256", "kid": "secret" })), "tokens signed by HS256 are not taken"),
        (sign(json!({ "alg": "ES256", "kid": "rsa" })), "the key of the token is not for ES256"),
        (sign(json!({ "alg": "RS256", "kid": "ec" })), "the key of the token is not for RS256"),
        (sign(json!({ "alg": "PS512", "kid": "rsa" })), "the key of the token is not for PS512"),
        (sign(json!({ "alg": "RS256", "kid": "enc" })), "the token is signed by a key that the issuer does not have"),
        (
            sign(json!({ "alg": "RS256", "kid": "../rsa" })),
            "the token is signed by a key that the issuer does not have",
        ),
        (sign(json!({ "alg": "RS256" })), "the token is signed by a key that the issuer does not have"),
        (sign(json!({ "alg": "RS256", "kid": "rsa", "crit": ["exp"] })), "the token wants something to be understood"),
    ] {
        let reason = jwt.refused(&token);
        assert!(reason.starts_with(expected), "'{reason}' should be '{expected}'");
    }
    // A key of the sender's own in the header is nobody's.
    let other = Issuer::new();
    let header = json!({ "alg": "EdDSA", "kid": "ed", "jwk": other.keys()["keys"][4], "jku": "http://127.0.0.1:1/" });
    assert_eq!(jwt.refused(&other.sign(&header, &claims(json!({})))), "the signature of the token is wrong");
    // Claims of one token with the signature of another.
    let (good, evil) = (issuer.token(json!({})), issuer.token(json!({ "sub": "root" })));
    let parts: Vec<&str> = good.split('.').collect();
    let mixed = format!("{}.{}.{}", parts[0], evil.split('.').nth(1).unwrap(), parts[2]);
    assert_eq!(jwt.refused(&mixed), "the signature of the token is wrong");
    assert_eq!(jwt.refused(&format!("{}.{}.", parts[0], parts[1])), "the signature of the token is wrong");
}

#[test]
fn signed_tokens_with_wrong_claims_are_refused() {
    let issuer = Issuer::new();
    let jwt = FromFile::new(&issuer.keys(), json!({}));
    for (change, expected) in [
        (json!({ "exp": now() - 1 }), "the token has expired"),
        (json!({ "nbf": now() + 100 }), "the token is not valid yet (nbf)"),
        (json!({ "aud": "other" }), "the token is not for 'rabbitmq' (aud)"),
        (json!({ "exp": "never" }), "the exp claim of the token is no time"),
    ] {
        assert_eq!(jwt.refused(&issuer.token(change)), expected);
    }
    let header = json!({ "alg": "RS256", "kid": "rsa" });
    assert_eq!(jwt.refused(&issuer.sign(&header, &json!([1]))), "the token cannot be read");
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep: Value = Value::String(deep);
    assert!(jwt.login(&issuer.token(json!({ "scope": [deep] }))).is_ok());
}

#[test]
fn what_is_no_token_is_left_to_the_next_backend_and_a_giant_is_refused() {
    let jwt = FromFile::new(&Issuer::new().keys(), json!({}));
    for password in ["", "guest", "a.b", "a.b.c", "e.y.z!", "..", "ey.\u{e9}.x", "ey.a.b.c"] {
        assert_eq!(jwt.login(password).unwrap().verdict, Verdict::NotMine, "{password}");
    }
    assert!(jwt.refused(&format!("ey{}.a.b", "x".repeat(70_000))).starts_with("the token is longer than 65536 bytes"));
    assert_eq!(jwt.refused("eyXX.eyYY.zz"), "the header of the token cannot be read");
}

#[test]
fn token_ends_and_a_new_one_takes_its_place() {
    let issuer = Issuer::new();
    let jwt = FromFile::new(&issuer.keys(), json!({}));
    let ann = allowed(jwt.login(&issuer.token(json!({}))));
    let ended = Identity { expires_at_ms: Some(now() * 1000 - 5000), ..ann.clone() };
    let vhost = |identity: &Identity| {
        block_on(jwt.backend.vhost(&VhostRequest { subject: identity.subject(PEER), vhost: "shop" })).unwrap().verdict
    };
    assert_eq!(vhost(&ann), Verdict::Allow(()));
    assert_eq!(vhost(&ended), Verdict::Deny("the token has expired".to_owned()));
    let secret = issuer.token(json!({ "exp": now() + 6000, "scope": "rabbitmq.read:other/*" }));
    let renewal = Renewal { subject: ann.subject(PEER), secret: secret.as_bytes() };
    let renewed = allowed(block_on(jwt.backend.renew(&renewal)));
    assert!(renewed.expires_at_ms > ann.expires_at_ms);
    assert!(matches!(vhost(&renewed), Verdict::Deny(_)), "scopes are those of the new token");
    let guest = Identity::new("guest", ["administrator"]);
    assert_eq!(vhost(&guest), Verdict::NotMine, "another backend let them in");
}

#[test]
fn keys_are_fetched_and_rotate() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let of = |issuer: &Issuer, kid: &str| {
        let mut key = issuer.keys()["keys"][4].clone();
        key["kid"] = json!(kid);
        json!({ "keys": [key] }).to_string()
    };
    let published = Arc::new(Mutex::new(Reply::ok(&of(&old, "1"))));
    let reply = Arc::clone(&published);
    let server = Server::start(move |_| reply.lock().unwrap().clone());
    let config = json!({ "resource_server_id": "rabbitmq", "jwks_url": server.url("/keys"), "refresh_seconds": 1 });
    let backend = JwtType.open(&AuthSpec { config: Config::new(config), base: None }).unwrap();
    let token = |issuer: &Issuer, kid: &str| issuer.sign(&json!({ "alg": "EdDSA", "kid": kid }), &claims(json!({})));
    assert!(server.requests().is_empty(), "nothing is fetched before somebody comes");
    for _ in 0..5 {
        assert_eq!(allowed(login(&*backend, &token(&old, "1"))).user, "ann");
    }
    assert_eq!(server.requests().len(), 1);
    // Tokens that anybody can make up do not make us ask each time.
    for kid in 0..50 {
        let refused = login(&*backend, &token(&new, &format!("x{kid}"))).unwrap().verdict;
        assert!(matches!(refused, Verdict::Deny(_)));
    }
    assert!(server.requests().len() <= 2);
    *published.lock().unwrap() = Reply::ok(&of(&new, "2"));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !matches!(login(&*backend, &token(&new, "2")).unwrap().verdict, Verdict::Allow(_)) {
        assert!(std::time::Instant::now() < deadline, "the new key is never taken");
        std::thread::yield_now();
    }
    let refused = login(&*backend, &token(&old, "1")).unwrap().verdict;
    assert!(matches!(refused, Verdict::Deny(_)), "the old key has been withdrawn");
    // The issuer is away; what is known goes on.
    *published.lock().unwrap() = Reply::Body(503, String::new());
    assert_eq!(allowed(login(&*backend, &token(&new, "2"))).user, "ann");
}

#[test]
fn without_keys_nobody_gets_in() {
    let issuer = Issuer::new();
    for reply in [
        Reply::Body(404, String::new()),
        Reply::ok("<html>"),
        Reply::ok("{}"),
        Reply::ok(r#"{"keys": []}"#),
        Reply::ok(&json!({ "keys": vec![issuer.keys()["keys"][4].clone(); 101] }).to_string()),
        Reply::ok(&" ".repeat(300 << 10)),
        Reply::Hang,
        Reply::Trickle,
    ] {
        let answer = reply.clone();
        let server = Server::start(move |_| answer.clone());
        let config =
            json!({ "resource_server_id": "rabbitmq", "jwks_url": server.url("/keys"), "request_timeout": 300 });
        let backend = JwtType.open(&AuthSpec { config: Config::new(config), base: None }).unwrap();
        let error = login(&*backend, &issuer.token(json!({}))).unwrap_err().text;
        assert!(error.starts_with("the issuer's keys are not known: "), "{reply:?}: {error}");
    }
}

#[test]
fn file_that_everybody_may_change_gives_no_keys() {
    use std::os::unix::fs::PermissionsExt;

    let issuer = Issuer::new();
    let jwt = FromFile::new(&issuer.keys(), json!({}));
    let file = jwt.folder.join("keys.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).unwrap();
    let error = jwt.login(&issuer.token(json!({}))).unwrap_err().text;
    assert!(error.contains("can be changed by every user: chmod o-w"), "{error}");
}

#[test]
fn conformance() {
    let issuer = Issuer::new();
    let jwt = FromFile::new(&issuer.keys(), json!({}));
    plugin_api::testing::auth_backends(&auth_jwt::PLUGIN)
        .config(json!({ "resource_server_id": "rabbitmq", "jwks_file": "keys.json" }))
        .base(&jwt.folder)
        .user("ada", issuer.token(json!({})))
        .run();
}
