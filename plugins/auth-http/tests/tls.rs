//! The same over TLS, with certificates that the test makes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod server;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth_http::HttpType;
use plugin_api::auth::{AuthSpec, AuthType, Login, Verdict};
use plugin_api::config::Config;
use plugin_api::serde_json::{Value, json};
use plugin_api::testing::block_on;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use server::{Reply, Server};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(authority: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, authority).unwrap(), key)
}

/// A server with a certificate for `name`; asks clients for one of `clients`, if there is such an authority.
fn start(authority: &Authority, name: &str, clients: Option<&Authority>) -> Server {
    let (certificate, key) = signed(authority, name);
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    Server::start_with(
        |_| Reply::ok("allow"),
        move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(StreamOwned::new(connection, stream)))
        },
    )
}

struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("auth-http-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Logs in at `server`; the error if that fails.
fn login(server: &Server, base: &Path, tls: Value) -> Result<(), String> {
    let url = |name: &str| format!("https://localhost:{}/auth/{name}", server.address().port());
    let config = json!({
        "user_path": url("user"), "vhost_path": url("vhost"), "resource_path": url("resource"), "topic_path": url("topic"),
        "tls": tls,
    });
    let spec = AuthSpec { config: Config::new(config), base: Some(base.to_path_buf()) };
    let backend = HttpType.open(&spec).map_err(|error| error.text)?;
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let answer = block_on(backend.login(&Login { user: "ann", password: b"secret", vhost: None, peer }));
    match answer.map_err(|error| error.text)?.verdict {
        Verdict::Allow(_) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn certificate_must_be_of_the_given_authority_and_of_the_right_name() {
    let (ours, theirs) = (authority(), authority());
    let folder = Folder::new("authority");
    folder.write("ours.pem", &ours.pem());
    folder.write("theirs.pem", &theirs.pem());
    folder.write("empty.pem", "");
    let server = start(&ours, "localhost", None);
    assert_eq!(login(&server, &folder.0, json!({ "ca_file": "ours.pem" })), Ok(()));
    for (tls, expected) in [
        (json!({ "ca_file": "theirs.pem" }), "invalid peer certificate"),
        (json!({}), "invalid peer certificate"),
        (json!({ "ca_file": "empty.pem" }), "tls.ca_file: 'empty.pem' has no certificate in PEM"),
    ] {
        let error = login(&server, &folder.0, tls.clone()).unwrap_err();
        assert!(error.contains(expected), "{tls}: {error}");
    }
    let server = start(&ours, "example.org", None);
    let error = login(&server, &folder.0, json!({ "ca_file": "ours.pem" })).unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert_eq!(server.requests(), [], "nobody else sees the password");
}

#[test]
fn client_certificate_is_shown_to_a_server_that_asks() {
    let (ours, clients) = (authority(), authority());
    let (certificate, key) = signed(&clients, "broker");
    let folder = Folder::new("client");
    folder.write("ca.pem", &ours.pem());
    folder.write("cert.pem", &certificate.pem());
    folder.write("key.pem", &key.serialize_pem());
    let server = start(&ours, "localhost", Some(&clients));
    let tls = json!({ "ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "key.pem" });
    assert_eq!(login(&server, &folder.0, tls), Ok(()));
    assert!(login(&server, &folder.0, json!({ "ca_file": "ca.pem" })).is_err());
}
