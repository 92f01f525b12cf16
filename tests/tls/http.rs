//! The management API and metrics over TLS.

use std::net::TcpStream;

use serde_json::json;
use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::certificates::{Asked, Authority, connect};
use tests::http::Http;
use tests::temp::TempDir;

fn started(authority: &Authority, more: &str, rest: &str) -> BrokerProcess {
    let folder = TempDir::new("topology");
    let path = folder.write("topology.yaml", &authority.topology(more, rest));
    BrokerOptions::default().topology(path).http().metrics().start().unwrap()
}

#[test]
fn api_and_metrics_are_served_over_tls_beside_the_plain_ports() {
    let authority = Authority::new("the authority");
    authority.install(&authority.server());
    let rest = "management: { listen_tls: '127.0.0.1:0' }\nmetrics: { listen_tls: '127.0.0.1:0' }";
    let broker = started(&authority, "", rest);
    let api = broker.address_in_log("management API with TLS").unwrap();
    let metrics = broker.address_in_log("metrics with TLS").unwrap();
    let trusting = authority.trusting(None);

    let http = Http::new(api).tls(trusting.clone());
    assert_eq!(http.get("/whoami")["name"], "guest");
    assert_eq!(http.put("/queues/%2F/q", &json!({})), 201);
    assert_eq!(Http::new(broker.http()).get("/queues/%2F/q")["name"], "q", "the plain port serves the same");
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let page = Http::new(metrics).tls(trusting).raw(request.as_bytes(), false).unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text().contains("rabbitmq_identity_info"));

    let listeners = http.get("/overview")["listeners"].clone();
    let protocols: Vec<_> = listeners.as_array().unwrap().iter().map(|listener| listener["protocol"].clone()).collect();
    for protocol in ["amqp", "http", "https", "http/prometheus", "https/prometheus"] {
        assert!(protocols.contains(&json!(protocol)), "{protocols:?}");
    }
    // Keys are named and never shown.
    let overview = http.get("/overview").to_string();
    assert!(overview.contains("server.key") && !overview.contains("PRIVATE KEY"));
}

#[test]
fn wrong_kind_of_client_is_answered_and_named() {
    let authority = Authority::new("the authority");
    authority.install(&authority.server());
    let broker = started(&authority, "", "management: { listen_tls: '127.0.0.1:0' }");
    let api = broker.address_in_log("management API with TLS").unwrap();
    let answer = Http::new(api).raw(b"GET /api/overview HTTP/1.1\r\nhost: x\r\n\r\n", false).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (400, "this port speaks TLS: use https"));
    broker.wait_for_log(|line| line.contains("plain HTTP on a port for TLS")).unwrap();
    let mut stream = connect(broker.http(), &authority.trusting(None));
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
    broker.wait_for_log(|line| line.contains("a TLS client on the plain port")).unwrap();
    drop(TcpStream::connect(api).unwrap());
    broker.wait_for_log(|line| line.contains("connection closed without a byte")).unwrap();
}

#[test]
fn sections_may_have_settings_of_their_own() {
    let authority = Authority::new("the authority");
    authority.install(&authority.server());
    let rest = "management: { listen_tls: '127.0.0.1:0', tls: { client_certificates: none } }\n\
                metrics: { listen_tls: '127.0.0.1:0' }";
    let broker = started(&authority, ", client_certificates: require", rest);
    let api = broker.address_in_log("management API with TLS").unwrap();
    let metrics = broker.address_in_log("metrics with TLS").unwrap();
    Http::new(api).tls(authority.trusting(None)).get("/whoami");
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    Http::new(metrics).tls(authority.trusting(None)).raw(request, false).map(|_| ()).unwrap_err();
    let signed = authority.client("prometheus");
    let page = Http::new(metrics).tls(authority.trusting(Some(&signed))).raw(request, false).unwrap();
    assert_eq!(page.status, 200);
}

#[test]
fn certificates_that_end_soon_fail_the_health_check() {
    let authority = Authority::new("the authority");
    authority.install(&authority.sign(&Asked { common_name: "old", has_expired: true, ..Asked::default() }));
    let broker = started(&authority, "", "listeners: { amqps: '127.0.0.1:0' }");
    let answer = Http::new(broker.http()).send("GET", "/health/checks/certificate-expiration/1/weeks", b"");
    assert_eq!(answer.status, 503);
    let body = answer.json();
    assert_eq!((&body["status"], &body["reason"]), (&json!("failed"), &json!("Certificates expiring")));
    assert_eq!(body["expired"][0]["protocol"], "amqp/ssl");
    assert_eq!(body["expired"][0]["certfile_expires_on"], json!(["2021-02-03 00:00:00"]));
    assert_eq!(body["expired"][0]["cacertfile_expires_on"], json!([]));
    authority.install(&authority.server());
    broker.wait_for_log(|line| line.contains("changed TLS files are in use")).unwrap();
    let http = Http::new(broker.http());
    assert_eq!(http.get("/health/checks/certificate-expiration/100/years")["status"], "ok");
    let wrong = http.send("GET", "/health/checks/certificate-expiration/1/fortnights", b"");
    assert_eq!(wrong.status, 400);
}
