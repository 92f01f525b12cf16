//! The backend against a real web server: what it sends, how it takes answers, and that whatever else comes is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod server;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use auth_http::HttpType;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, AuthSpec, AuthType, ExternalLogin, Identity, Login, Permission, Resource,
    ResourceRequest, Subject, TopicRequest, Verdict, VhostRequest,
};
use plugin_api::config::Config;
use plugin_api::serde_json::{Value, json};
use plugin_api::testing::block_on;
use server::{Reply, Request, Server};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const SECRET: &str = "s3cret&=+ é";

fn open(server: &Server, change: Value) -> Arc<dyn AuthBackend> {
    open_at(&server.url(""), change).unwrap()
}

fn open_at(base: &str, change: Value) -> Result<Arc<dyn AuthBackend>, String> {
    let url = |name: &str| format!("{base}/auth/{name}");
    let mut config = json!({
        "user_path": url("user"), "vhost_path": url("vhost"), "resource_path": url("resource"), "topic_path": url("topic"),
    });
    config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    HttpType.open(&AuthSpec { config: Config::new(config), base: None }).map_err(|error| error.text)
}

fn login(backend: &dyn AuthBackend) -> Result<Answer<Identity>, AuthError> {
    block_on(backend.login(&Login { user: "ann b", password: SECRET.as_bytes(), vhost: None, peer: PEER }))
}

fn subject(identity: &Identity) -> Subject<'_> {
    identity.subject(PEER)
}

fn ann() -> Identity {
    Identity::new("ann b", ["management", "policymaker"])
}

fn resource(backend: &dyn AuthBackend, permission: Permission, name: &str) -> Result<Answer<()>, AuthError> {
    let ann = ann();
    let request = ResourceRequest { subject: subject(&ann), vhost: "/", resource: Resource::Queue, name, permission };
    block_on(backend.resource(&request))
}

#[test]
fn questions_are_those_of_the_contract() {
    let server = Server::start(|_| Reply::ok("allow"));
    let backend = open(&server, json!({}));
    let ann = ann();
    login(&*backend).unwrap();
    block_on(backend.vhost(&VhostRequest { subject: subject(&ann), vhost: "/" })).unwrap();
    resource(&*backend, Permission::Configure, "q&x=1").unwrap();
    let (exchange, routing_key) = ("amq.topic", "a.*.#");
    let request =
        TopicRequest { subject: subject(&ann), vhost: "shop", exchange, routing_key, permission: Permission::Write };
    block_on(backend.topic(&request)).unwrap();
    let requests: Vec<(String, String, String)> =
        server.requests().into_iter().map(|Request { method, path, form, .. }| (method, path, form)).collect();
    let post = |name: &str, form: &str| ("POST".to_owned(), format!("/auth/{name}"), form.to_owned());
    assert_eq!(
        requests,
        [
            post("user", "username=ann+b&password=s3cret%26%3D%2B+%C3%A9"),
            post("vhost", "username=ann+b&vhost=%2F&ip=192.0.2.7&tags=management+policymaker"),
            post(
                "resource",
                "username=ann+b&vhost=%2F&resource=queue&name=q%26x%3D1&permission=configure&tags=management+policymaker"
            ),
            post(
                "topic",
                "username=ann+b&vhost=shop&resource=topic&name=amq.topic&permission=write&routing_key=a.%2A.%23\
                 &variable_map.username=ann+b&variable_map.vhost=shop&tags=management+policymaker"
            ),
        ]
    );
    let head = &server.requests()[0].head;
    assert!(head.contains(&"content-type: application/x-www-form-urlencoded".to_owned()), "{head:?}");
}

/// RabbitMQ's `rabbit_auth_backend_http` leaves the password out, too.
#[test]
fn user_of_a_certificate_is_asked_for_by_name_alone() {
    let server = Server::start(|request| match request.form.as_str() {
        "username=ann+b" => Reply::ok("allow monitoring"),
        "username=error" => Reply::Body(500, "allow".to_owned()),
        _ => Reply::ok("deny"),
    });
    let backend = open(&server, json!({}));
    let external = |user: &str| block_on(backend.login_external(&ExternalLogin { user, peer: PEER }));
    assert_eq!(external("ann b").unwrap().verdict, Verdict::Allow(Identity::new("ann b", ["monitoring"])));
    assert!(matches!(external("bob").unwrap().verdict, Verdict::Deny(_)));
    assert!(external("error").is_err(), "what is no answer lets nobody in");
    assert!(server.requests().iter().all(|request| !request.form.contains("password")));
}

#[test]
fn get_puts_the_same_into_the_query() {
    let server = Server::start(|_| Reply::Body(201, "allow".to_owned()));
    let backend = open(&server, json!({ "http_method": "get" }));
    login(&*backend).unwrap();
    let request = server.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/auth/user"));
    assert_eq!(request.form, "username=ann+b&password=s3cret%26%3D%2B+%C3%A9");
}

#[test]
fn verdicts_carry_tags_reasons_and_their_time() {
    let server = Server::start(|request| match request.path.as_str() {
        "/auth/user" => Reply::ok("allow administrator monitoring\n"),
        _ if request.form.contains("name=mine") => Reply::ok("Allow"),
        _ if request.form.contains("name=theirs") => Reply::ok("deny it is theirs"),
        _ => Reply::ok("deny"),
    });
    let backend = open(&server, json!({ "cache_seconds": 60, "cache_refusals_seconds": 3 }));
    let answer = login(&*backend).unwrap();
    assert_eq!(answer.verdict, Verdict::Allow(Identity::new("ann b", ["administrator", "monitoring"])));
    assert_eq!(answer.valid_for, Duration::from_secs(60));
    assert_eq!(resource(&*backend, Permission::Read, "mine").unwrap().verdict, Verdict::Allow(()));
    let denied = resource(&*backend, Permission::Read, "theirs").unwrap();
    assert_eq!(denied.verdict, Verdict::Deny("denied by the HTTP service: it is theirs".to_owned()));
    assert_eq!(denied.valid_for, Duration::from_secs(3));
    let denied = resource(&*backend, Permission::Read, "q").unwrap();
    assert_eq!(denied.verdict, Verdict::Deny("denied by the HTTP service".to_owned()));
}

/// An error in time, without the password or anything else of the question.
fn check_fails(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static, expected: &str) {
    let server = Server::start(answer);
    for method in ["get", "post"] {
        let limits = json!({ "request_timeout": 300, "http_method": method });
        let backend = open(&server, limits);
        let began = Instant::now();
        let error = login(&*backend).unwrap_err().text;
        assert!(error.contains(expected), "'{error}' should say '{expected}'");
        assert!(!error.contains("s3cret") && !error.contains("ann"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3), "{error} after {:?}", began.elapsed());
    }
}

#[test]
fn whatever_is_no_answer_is_an_error() {
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    check_fails(|_| Reply::ok("maybe"), "its answer is neither 'allow' nor 'deny'");
    check_fails(|_| Reply::ok(""), "its answer is neither 'allow' nor 'deny'");
    check_fails(|_| Reply::Body(403, "allow".to_owned()), "status 403");
    check_fails(|_| Reply::Body(500, "allow".to_owned()), "status 500");
    check_fails(|_| Reply::Body(204, String::new()), "status 204");
    check_fails(move |_| raw("SSH-2.0-OpenSSH\r\n"), "it does not speak HTTP");
    check_fails(move |_| raw(""), "");
    check_fails(move |_| raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nallow"), "");
    check_fails(
        |_| Reply::Raw([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".as_slice(), &[0xff, 0xfe]].concat()),
        "neither",
    );
}

#[test]
fn answers_that_are_late_or_endless_are_errors_in_time() {
    check_fails(|_| Reply::Hang, "no answer in time");
    check_fails(|_| Reply::Trickle, "no answer in time");
    check_fails(|_| Reply::ok(&"allow ".repeat(1 << 20)), "its answer is longer than 16384 bytes");
    let endless_head = format!("HTTP/1.1 200 OK\r\n{}", "X-More: yes\r\n".repeat(100_000));
    check_fails(move |_| Reply::Raw(endless_head.clone().into_bytes()), "");
}

/// 10 MiB of the letter a in 10 KiB.
#[test]
fn compressed_answer_is_limited_by_what_it_unfolds_to() {
    let bomb = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bomb.gz")).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    let reply = [head.as_bytes(), &bomb].concat();
    check_fails(move |_| Reply::Raw(reply.clone()), "");
}

#[test]
fn redirect_is_not_followed() {
    let other = Server::start(|_| Reply::ok("allow administrator"));
    let location = other.url("/auth/user");
    check_fails(
        move |_| {
            let text = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            Reply::Raw(text.into_bytes())
        },
        "status 302",
    );
    assert_eq!(other.requests(), [], "credentials stay where they were sent");
}

#[test]
fn service_that_is_not_there_is_an_error_and_may_come_up_later() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let backend = open_at(&format!("http://{address}"), json!({})).unwrap();
    let error = login(&*backend).unwrap_err().text;
    assert!(error.starts_with(&format!("asking http://{address}/auth/user failed: ")), "{error}");
}

#[test]
fn connection_that_the_service_has_closed_meanwhile_does_not_cost_a_login() {
    // Closes after each answer without saying so, as a server with a short keep-alive does.
    let server = Server::start(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nallow".to_vec()));
    let backend = open(&server, json!({}));
    for _ in 0..20 {
        assert!(matches!(login(&*backend).unwrap().verdict, Verdict::Allow(_)));
    }
}

#[test]
fn many_questions_at_once_are_answered() {
    let server = Server::start(|_| Reply::ok("allow"));
    let backend = open(&server, json!({ "connections_max": 3 }));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(resource(&*backend, Permission::Write, "q").unwrap().verdict, Verdict::Allow(()));
                }
            });
        }
    });
    assert_eq!(server.requests().len(), 200);
}
