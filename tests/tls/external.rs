//! SASL EXTERNAL: the certificate names the user (semantics 4.3, 33.5b).

use std::sync::Arc;

use rcgen::SanType;
use rustls::ClientConfig;
use tests::certificates::{Asked, Signed};
use tests::http::Http;
use tests::scenario::connection::{Connection, Event};
use tests::wire::{Field, PROTOCOL_HEADER};

use super::{Bench, text};

const USERS: &str = "
users:
  guest: { password: guest, tags: administrator, permissions: { /: .* } }
  ann: { password: { hash: '' }, permissions: { /: .* } }
  home: { password: { hash: '' }, loopback_only: true, permissions: { /: .* } }
  'CN=ann,O=a shop\\, or two': { password: { hash: '' }, permissions: { /: .* } }
";

/// What is offered, and the connection behind that.
fn offered(bench: &Bench, config: &Arc<ClientConfig>) -> (String, Connection) {
    let mut connection = bench.open(config);
    connection.send_raw(&PROTOCOL_HEADER);
    let start = connection.wait_for(0, "connection.start").unwrap();
    let mechanisms = start.iter().find_map(|field| match field {
        Field::String(bytes) if bytes.starts_with(b"PLAIN") => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    });
    (mechanisms.expect("start lists mechanisms"), connection)
}

/// The answer to a login by EXTERNAL.
fn login(mut connection: Connection) -> Result<Connection, String> {
    let fields = [
        // Whatever the response says, the certificate counts.
        ("mechanism", text("EXTERNAL")),
        ("response", text("guest")),
        ("locale", text("en_US")),
    ];
    connection.call(0, "connection.start-ok", &fields);
    match connection.next(0)? {
        Event::Method(incoming) if incoming.method.name == "connection.tune" => {}
        other => return Err(format!("{other:?}")),
    }
    let fields =
        [("channel-max", Field::Number(2047)), ("frame-max", Field::Number(131_072)), ("heartbeat", Field::Number(0))];
    connection.call(0, "connection.tune-ok", &fields);
    connection.call(0, "connection.open", &[("virtual-host", text("/"))]);
    connection.wait_for(0, "connection.open-ok")?;
    Ok(connection)
}

fn check(bench: &Bench, signed: &Signed, user: &str) {
    let config = bench.authority.trusting(Some(signed));
    let (mechanisms, connection) = offered(bench, &config);
    assert_eq!(mechanisms, "PLAIN AMQPLAIN EXTERNAL");
    let connection = login(connection).unwrap();
    let shown = Http::new(bench.broker.http()).get("/connections");
    let mine: Vec<_> = shown.as_array().unwrap().iter().filter(|shown| shown["auth_mechanism"] == "EXTERNAL").collect();
    assert_eq!(mine.len(), 1, "{shown}");
    assert_eq!(mine[0]["user"], user);
    drop(connection);
}

#[test]
fn common_name_is_the_user_and_the_certificate_is_shown() {
    let bench = Bench::new(", client_certificates: require, login_from: common_name", USERS);
    let signed =
        bench.authority.sign(&Asked { common_name: "ann", organization: "a shop, or two", ..Asked::default() });
    let (_, connection) = offered(&bench, &bench.authority.trusting(Some(&signed)));
    let _connection = login(connection).unwrap();
    let shown = Http::new(bench.broker.http()).get("/connections");
    assert_eq!(shown[0]["user"], "ann");
    assert_eq!(shown[0]["auth_mechanism"], "EXTERNAL");
    assert_eq!(shown[0]["peer_cert_subject"], "CN=ann,O=a shop\\, or two");
    assert_eq!(shown[0]["peer_cert_issuer"], "CN=the authority");
    assert_eq!(shown[0]["peer_cert_validity"], "1975-01-01T00:00:00Z - 4096-01-01T00:00:00Z");
}

#[test]
fn name_is_taken_from_where_the_topology_says() {
    let names = vec![
        SanType::IpAddress("192.0.2.1".parse().unwrap()),
        SanType::DnsName("ann.example".try_into().unwrap()),
        SanType::DnsName("bob.example".try_into().unwrap()),
        SanType::Rfc822Name("ann@example.org".try_into().unwrap()),
        SanType::URI("spiffe://example/ann".try_into().unwrap()),
    ];
    for (from, user) in [
        ("distinguished_name", "CN=ann,O=a shop\\, or two"),
        ("common_name", "ann"),
        ("dns_name", "ann.example"),
        ("subject_alternative_name", "ann.example"),
        ("email", "ann@example.org"),
        ("uri", "spiffe://example/ann"),
        ("ip_address", "192.0.2.1"),
    ] {
        let users = format!(
            "users:\n  guest: {{ password: guest, tags: administrator, permissions: {{ /: .* }} }}\n  '{user}': {{ password: {{ hash: '' }}, permissions: {{ /: .* }} }}\n"
        );
        let bench = Bench::new(&format!(", client_certificates: request, login_from: {from}"), &users);
        let asked =
            Asked { common_name: "ann", organization: "a shop, or two", names: names.clone(), has_expired: false };
        check(&bench, &bench.authority.sign(&asked), user);
    }
}

#[test]
fn only_clients_with_a_certificate_that_names_somebody_are_offered_it() {
    let bench = Bench::new(", client_certificates: request, login_from: dns_name", USERS);
    // Without a certificate, and with one that has no such name.
    for client in [None, Some(bench.authority.client("ann"))] {
        let (mechanisms, connection) = offered(&bench, &bench.authority.trusting(client.as_ref()));
        assert_eq!(mechanisms, "PLAIN AMQPLAIN");
        assert!(login(connection).is_err(), "what is not offered does not work");
    }
    bench.logged(&["login refused", "unknown authentication mechanism 'EXTERNAL'"]);
    let bench = Bench::new(", client_certificates: require, login_from: none", USERS);
    let (mechanisms, _) = offered(&bench, &bench.authority.trusting(Some(&bench.authority.client("ann"))));
    assert_eq!(mechanisms, "PLAIN AMQPLAIN");
    let plain = &mut Connection::new(tests::transport::Target::connect(&bench.broker.target()).unwrap());
    plain.send_raw(&PROTOCOL_HEADER);
    let start = format!("{:?}", plain.wait_for(0, "connection.start").unwrap());
    assert!(!start.contains("EXTERNAL"), "{start}");
}

#[test]
fn certificate_of_nobody_is_refused_as_a_wrong_password_is() {
    let bench = Bench::new(", client_certificates: require, login_from: common_name", USERS);
    let (mechanisms, connection) = offered(&bench, &bench.authority.trusting(Some(&bench.authority.client("bob"))));
    assert_eq!(mechanisms, "PLAIN AMQPLAIN EXTERNAL");
    assert!(login(connection).is_err());
    bench.logged(&["login refused", "EXTERNAL", "no such user"]);
    // Passwords still work for clients that have a certificate, too.
    bench.login(&bench.authority.trusting(Some(&bench.authority.client("bob")))).unwrap();
}

#[test]
fn pika_works_with_a_password_and_with_a_certificate() {
    let bench = Bench::new(", client_certificates: request, login_from: common_name", USERS);
    let signed = bench.authority.client("ann");
    bench.authority.write("client.pem", &signed.certificate);
    bench.authority.write("client.key", &signed.key);
    let python = std::env::var_os("TEST_PYTHON")
        .map_or_else(|| tests::broker_process::repository().join("tests/.venv/bin/python"), std::path::PathBuf::from);
    let output = std::process::Command::new(python)
        .arg(tests::broker_process::repository().join("tests/tls/over_tls.py"))
        .arg(bench.amqps.port().to_string())
        .args(["ca.pem", "client.pem", "client.key"].map(|name| bench.authority.path(name)))
        .output()
        .expect("Python runs; tests/run --setup installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "password: hello\ncertificate: hello");
}
