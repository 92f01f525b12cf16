//! What holds for every endpoint.

use super::{broker, broker_with};
use flate2::read::GzDecoder;
use serde_json::json;
use std::io::Read as _;
use tests::broker_process::BrokerOptions;
use tests::http::Http;

#[test]
fn a_slash_at_the_end_changes_nothing() {
    let (_broker, http) = broker();
    assert_eq!(http.get("/whoami/"), http.get("/whoami"));
    assert_eq!(http.get("/vhosts/%2F/"), http.get("/vhosts/%2f"));
}

#[test]
fn head_is_get_without_a_body_and_options_needs_no_login() {
    let (_broker, http) = broker();
    let head = http.send("HEAD", "/whoami", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some("application/json"));
    let options = http.anonymous().send("OPTIONS", "/queues/%2F/q", b"");
    assert_eq!((options.status, options.header("allow")), (200, Some("HEAD, GET, PUT, DELETE, OPTIONS")));
    assert!(options.body.is_empty());
}

#[test]
fn other_methods_are_told_which_there_are() {
    let (_broker, http) = broker();
    for (method, path, allow) in [
        ("GET", "/queues/%2F/q/contents", "DELETE, OPTIONS"),
        ("PUT", "/whoami", "HEAD, GET, OPTIONS"),
        ("PATCH", "/users", "HEAD, GET, OPTIONS"),
    ] {
        let answer = http.send(method, path, b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
}

#[test]
fn without_credentials_one_is_asked_and_with_wrong_ones_refused() {
    let (_broker, http) = broker();
    let nobody = http.clone().anonymous().send("GET", "/whoami", b"");
    assert_eq!((nobody.status, nobody.text().as_str()), (401, ""));
    assert_eq!(nobody.header("www-authenticate"), Some("Basic realm=\"RabbitMQ Management\""));
    let refusal = |user: &str, password: &str| {
        let answer = http.clone().login(user, password).send("GET", "/whoami", b"");
        (answer.status, answer.refusal())
    };
    let refused = (401, ("not_authorized".to_owned(), "Not_Authorized".to_owned()));
    assert_eq!(refusal("guest", "wrong"), refused);
    assert_eq!(refusal("nobody", "guest"), refused, "who exists is nobody's business");
    let token = http.clone().anonymous().header("authorization", "Bearer abc").send("GET", "/whoami", b"");
    assert_eq!((token.status, token.refusal()), refused);
}

#[test]
fn users_without_a_tag_of_management_and_users_from_elsewhere_stay_out() {
    let (_broker, http) = broker();
    assert_eq!(http.put("/users/plain", &json!({"password": "p", "tags": ""})), 201);
    let answer = http.login("plain", "p").send("GET", "/whoami", b"");
    assert_eq!((answer.status, answer.refusal().1.as_str()), (401, "Not management user"));
}

#[test]
fn answers_have_strict_headers_and_allow_no_other_origin() {
    let (_broker, http) = broker();
    for path in ["/whoami", "/nothing", "/queues/%2F/none"] {
        let answer = http.clone().header("origin", "https://evil.example").send("GET", path, b"");
        let check = |name: &str, expected: Option<&str>| assert_eq!(answer.header(name), expected, "{path} {name}");
        check("cache-control", Some("no-cache"));
        check("vary", Some("accept, accept-encoding, origin"));
        check("x-content-type-options", Some("nosniff"));
        check("x-frame-options", Some("DENY"));
        check("access-control-allow-origin", None);
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    }
}

#[test]
fn origins_that_the_topology_names_may_use_it() {
    let (_broker, http) = broker_with(
        "management: { cors_allow_origins: ['https://ops.example'], cors_max_age_secs: 60 }\nvhosts: { /: {} }\n",
    );
    let preflight = http
        .clone()
        .anonymous()
        .header("origin", "https://ops.example")
        .header("access-control-request-headers", "authorization, x-vhost")
        .send("OPTIONS", "/whoami", b"");
    let check = |name: &str, expected: &str| assert_eq!(preflight.header(name), Some(expected), "{name}");
    check("access-control-allow-origin", "https://ops.example");
    check("access-control-allow-credentials", "true");
    check("access-control-max-age", "60");
    check("access-control-allow-headers", "authorization, x-vhost");
    check("access-control-allow-methods", "HEAD, GET, OPTIONS");
    let other = http.header("origin", "https://ops.example.evil").send("GET", "/whoami", b"");
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[test]
fn long_answers_are_compressed_for_who_asks() {
    let (_broker, http) = broker();
    let plain = http.send("GET", "/exchanges", b"");
    assert_eq!(plain.header("content-encoding"), None);
    let packed = http.clone().header("accept-encoding", "gzip").send("GET", "/exchanges", b"");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut unpacked = Vec::new();
    GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    assert_eq!(http.header("accept-encoding", "gzip").send("GET", "/whoami", b"").header("content-encoding"), None);
}

#[test]
fn nothing_but_json_is_answered() {
    let (_broker, http) = broker();
    let ask = |accept: &str| http.clone().header("accept", accept).send("GET", "/whoami", b"").status;
    assert_eq!((ask("text/html"), ask("text/html, */*"), ask("application/json")), (406, 200, 200));
}

#[test]
fn paths_that_are_no_endpoints_lead_nowhere() {
    let (_broker, http) = broker();
    let nothing = http.clone().anonymous().send("GET", "/nothing", b"");
    assert_eq!((nothing.status, nothing.refusal()), (404, ("Object Not Found".to_owned(), "Not Found".to_owned())));
    let index = http.send("GET", "/", b"");
    assert_eq!((index.status, index.header("location")), (301, Some("/api/index.html")));
    // Where people are sent there is something.
    let page = http.clone().anonymous().send("GET", "/index.html", b"");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("/api/queues/{v}/{queue}/contents"), "{}", page.text());
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    assert_eq!(http.send("POST", "/index.html", b"").status, 405);
    for path in ["/stream/connections", "/traces", "/top/x", "/queues/%zz", "/queues/%2F/q/other"] {
        assert_eq!(http.send("GET", path, b"").status, 404, "{path}");
    }
}

#[test]
fn failed_logins_are_counted_and_slowed() {
    let (_broker, http) = broker();
    let wrong = http.clone().login("guest", "wrong");
    let started = std::time::Instant::now();
    for _ in 0..5 {
        assert_eq!(wrong.send("GET", "/whoami", b"").status, 401);
    }
    for _ in 0..2 {
        assert_eq!(wrong.send("GET", "/whoami", b"").status, 401);
    }
    // The sixth waits 100 ms and the seventh twice that.
    assert!(started.elapsed() >= std::time::Duration::from_millis(300), "{:?}", started.elapsed());
    let shown = |protocol: &str, total: u32, failed: u32| {
        json!({
            "protocol": protocol,
            "auth_attempts": total,
            "auth_attempts_succeeded": total - failed,
            "auth_attempts_failed": failed,
        })
    };
    // The question itself is a login, too.
    let attempts = http.get("/auth/attempts/broker@localhost");
    assert_eq!(attempts, json!([shown("amqp091", 0, 0), shown("http", 8, 7)]));
    let sources = http.get("/auth/attempts/broker@localhost/source");
    let mut expected = shown("http", 9, 7);
    expected["remote_address"] = json!("127.0.0.1");
    expected["username"] = json!("guest");
    assert_eq!(sources, json!([expected]));
    assert_eq!(http.delete("/auth/attempts/broker@localhost"), 204);
    let attempts = http.get("/auth/attempts/broker@localhost");
    assert_eq!(attempts, json!([shown("amqp091", 0, 0), shown("http", 1, 0)]));
    // A right password for somebody who may not use the API is a failed attempt.
    assert_eq!(http.put("/users/app", &json!({"password": "p", "tags": ""})), 201);
    assert_eq!(http.clone().login("app", "p").send("GET", "/whoami", b"").status, 401);
    let form = Http::new(http.address()).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(form.send("POST", "/login", b"username=app&password=p").status, 401);
    assert_eq!(form.send("POST", "/login", b"username=guest&password=guest").status, 200);
    assert_eq!(http.get("/auth/attempts/broker@localhost")[1], shown("http", 6, 2));
    assert_eq!(http.send("GET", "/auth/attempts/other@host", b"").status, 404);
}

/// Programs that answer a 401 with credentials (httplib2, .NET, Java) send the body first, and the request again over the same connection.
#[test]
fn a_connection_lives_on_when_a_request_with_a_body_is_refused() {
    use std::io::{BufRead, BufReader, Write};
    let (_broker, http) = broker();
    let body = json!({"durable": true}).to_string();
    let mut stream = std::net::TcpStream::connect(http.address()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut send = |login: &str| {
        let length = body.len();
        write!(stream, "PUT /api/queues/%2F/q HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{login}\r\n").unwrap();
        // Long enough for an answer to the head alone, if somebody gave one.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
        stream.write_all(body.as_bytes()).expect("the other side still reads");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(input.read_line(&mut head).expect("an answer in time") > 0, "closed: {head}");
        }
        assert!(!head.to_lowercase().contains("connection: close"), "{head}");
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(send(""), "401");
    assert_eq!(send("authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n"), "201");
}

#[test]
fn health_checks_know_every_listener() {
    let broker = BrokerOptions::default().http().metrics().start().expect("the broker starts");
    let http = Http::new(broker.http());
    for port in [broker.address().port(), broker.http().port(), broker.metrics().port()] {
        let answer = http.get(&format!("/health/checks/port-listener/{port}"));
        assert_eq!(answer, json!({"status": "ok", "port": port}));
    }
    let answer = http.get("/health/checks/protocol-listener/amqp091,management,http%2Fprometheus");
    assert_eq!(answer["protocols"], json!(["amqp", "http", "http/prometheus"]));
    let failed = http.send("GET", "/health/checks/protocol-listener/mqtt", b"");
    assert_eq!((failed.status, &failed.json()["missing"]), (503, &json!(["mqtt"])));
}

#[test]
fn off_is_nowhere_and_a_taken_port_says_what_to_change() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = std::process::Command::new(tests::broker_process::binary().unwrap())
        .args(["--listen", "127.0.0.1:0", "--metrics", "off", "--http", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().find(|line| line.starts_with("broker: ")).unwrap_or_default();
    assert!(line.contains(&address) && line.contains("--http ADDR:PORT") && line.contains("--http off"), "{errors}");
    let broker = tests::broker_process::BrokerProcess::with_topology("management: off\nvhosts: { /: {} }\n");
    assert!(!broker.log().iter().any(|line| line.contains("management API")));
}

#[test]
fn prefix_stands_before_each_path_and_headers_are_those_of_the_topology() {
    let topology = "management: { path_prefix: /rabbit/, hsts: 'max-age=60', csp: \"default-src 'self'\" }\n";
    let (_broker, http) = broker_with(topology);
    let send = |path: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n"
        );
        http.raw(head.as_bytes(), false).unwrap()
    };
    let answer = send("/rabbit/api/queues/%2F?page=1&page_size=5");
    assert_eq!((answer.status, &answer.json()["page_size"]), (200, &serde_json::json!(5)), "{}", answer.text());
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=60"));
    assert_eq!(answer.header("content-security-policy"), Some("default-src 'self'"));
    assert_eq!(send("/rabbit/metrics").status, 200);
    let index = send("/rabbit/api");
    assert_eq!((index.status, index.header("location")), (301, Some("/rabbit/api/index.html")));
    for elsewhere in ["/api/overview", "/rabbits/api/overview", "/rabbit", "/", "/metrics"] {
        assert_eq!(send(elsewhere).status, 404, "{elsewhere}");
    }
}
