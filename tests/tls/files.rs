//! Mistakes in certificates and keys, found with their place in the topology before anything starts.

use tests::certificates::{Asked, Authority};

/// Everything that is said about a file with this `tls` section; warnings, too.
fn said(authority: &Authority, text: &str) -> String {
    let folder = authority.path("");
    let text = text.replace("DIR", folder.to_str().unwrap().trim_end_matches('/'));
    let path = authority.write("topology.yaml", &text);
    let diagnostics = match broker::config::load(&path, &|_| None) {
        Ok(loaded) => loaded.warnings,
        Err(diagnostics) => diagnostics,
    };
    let diagnostics: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    diagnostics.join("\n").replace(folder.to_str().unwrap(), "DIR/")
}

#[track_caller]
fn check(authority: &Authority, text: &str, parts: &[&str]) {
    let said = said(authority, text);
    for part in parts {
        assert!(said.contains(part), "{text}\n{said}\nwithout: {part}");
    }
    assert!(!said.contains("PRIVATE KEY-----\n"), "a key is never shown: {said}");
    if parts.is_empty() {
        assert_eq!(said, "", "{text}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_line() {
    let authority = Authority::new("the authority");
    let (signed, other) = (authority.server(), authority.server());
    authority.install(&signed);
    authority.write("other.key", &other.key);
    authority.write("empty", "");
    authority.write("half.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    authority
        .write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n");
    authority.write("wrong.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let tls = |certificate: &str, key: &str, more: &str| {
        format!("tls:\n  certificate: DIR/{certificate}\n  key: DIR/{key}\n{more}listeners: {{ amqps: 5671 }}\n")
    };
    let cases: &[(String, &[&str])] = &[
        (tls("server.pem", "server.key", ""), &[]),
        (
            tls("no.pem", "server.key", ""),
            &["topology.yaml:2:16: DIR/no.pem cannot be read: No such file", "relative to the folder"],
        ),
        (tls("empty", "server.key", ""), &["yaml:2:16: DIR/empty holds no certificate", "BEGIN CERTIFICATE"]),
        (tls("half.pem", "server.key", ""), &["yaml:2:16: DIR/half.pem is damaged"]),
        (tls("wrong.pem", "server.key", ""), &["yaml:2:16: DIR/wrong.pem holds something that is not a certificate"]),
        (tls("server.pem", "no.key", ""), &["yaml:3:8: DIR/no.key cannot be read"]),
        (tls("server.pem", "server.pem", ""), &["yaml:3:8: DIR/server.pem holds no private key"]),
        (tls("server.pem", "encrypted.key", ""), &["yaml:3:8: DIR/encrypted.key is encrypted", "openssl pkey"]),
        (
            tls("server.pem", "other.key", ""),
            &["yaml:3:8: DIR/other.key is not the key of the certificate DIR/server.pem"],
        ),
        (tls("server.pem", "server.key", "  ca: DIR/empty\n"), &["yaml:4:7: DIR/empty holds no certificate"]),
        (
            tls("server.pem", "server.key", "  client_certificates: require\n"),
            &[
                "yaml:4:24: clients' certificates are asked for, and nothing says who may have signed them",
                "add 'ca: FILE'",
            ],
        ),
        (
            tls("server.pem", "server.key", "  client_certificates: always\n"),
            &["yaml:4:24: 'always' is not known here"],
        ),
        (tls("server.pem", "server.key", "  version_min: 1.1\n"), &["yaml:4:16: '1.1' is not known here"]),
        (
            tls("server.pem", "server.key", "  verify: verify_peer\n"),
            &["yaml:4:3: unknown key 'verify' in tls", "client_certificates"],
        ),
        (
            tls("server.pem", "server.key", "  login_from: common_name\n"),
            &["yaml:4:15: warning: clients are not asked for the certificate"],
        ),
    ];
    for (text, parts) in cases {
        check(&authority, text, parts);
    }
}

#[test]
fn key_that_everybody_may_read_and_certificates_out_of_time_are_warnings() {
    use std::os::unix::fs::PermissionsExt;
    let authority = Authority::new("the authority");
    authority.install(&authority.sign(&Asked { common_name: "old", has_expired: true, ..Asked::default() }));
    let key = authority.path("server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = "tls: { certificate: DIR/server.pem, key: DIR/server.key }\nlisteners: { amqps: 5671 }\n";
    let parts = [
        "warning: everybody on this machine may read the key DIR/server.key",
        "warning: the certificate of CN=old has expired: 2020-01-01T00:00:00Z - 2021-02-03T00:00:00Z",
    ];
    check(&authority, text, &parts);
}

#[test]
fn listeners_and_certificates_belong_together() {
    let authority = Authority::new("the authority");
    authority.install(&authority.server());
    let tls = "tls: { certificate: DIR/server.pem, key: DIR/server.key }\n";
    let own = "{ certificate: DIR/server.pem, key: DIR/server.key }";
    check(
        &authority,
        "listeners: { amqps: 5671 }\n",
        &["yaml:1:21: listening with TLS needs a certificate", "add 'tls: "],
    );
    check(&authority, "management: { listen_tls: 15671 }\n", &["yaml:1:27: listening with TLS needs a certificate"]);
    check(&authority, "metrics: { listen_tls: 15691 }\n", &["yaml:1:24: listening with TLS needs a certificate"]);
    check(&authority, &format!("{tls}vhosts: {{ /: {{}} }}\n"), &["yaml:1:6: warning: nothing listens with TLS"]);
    check(&authority, &format!("metrics: {{ listen_tls: 15691, tls: {own} }}\n"), &[]);
    check(&authority, &format!("{tls}management: {{ listen_tls: 15671 }}\n"), &[]);
    check(
        &authority,
        &format!("{tls}management: {{ tls: {{ ca: DIR/ca.pem }} }}\n"),
        &["warning: nothing listens with TLS here"],
    );
    check(
        &authority,
        "tls: { key: DIR/server.key }\nlisteners: { amqps: 5671 }\n",
        &["yaml:1:6: tls needs a certificate"],
    );
    check(&authority, "tls: { certificate: DIR/server.pem }\n", &["yaml:1:6: tls needs the key of its certificate"]);
    let text = format!("{tls}metrics: {{ listen_tls: 15691, tls: {{ certificate: DIR/server.pem }} }}\n");
    check(&authority, &text, &["tls needs the key of its certificate"]);
}
