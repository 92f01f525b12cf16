//! Requests that nobody would send on purpose: every endpoint with names, queries, headers and bodies from a seeded generator, without a login, as a user
//! who only monitors, and as an administrator. No request may end in a defect or without an answer, and nobody without the permission changes anything.
//!
//! `API_FUZZ_SEED=7 API_FUZZ_REQUESTS=100000 cargo test -p tests --test management fuzz` does more of it.

use super::broker_with;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tests::http::Http;

/// For each of the three callers.
const REQUESTS: u64 = 1000;
const SEED: u64 = 20_261_123;

const TOPOLOGY: &str = "
users:
  guest: { password: guest, tags: administrator, permissions: { /: .* } }
  boss: { password: boss, tags: administrator, permissions: { /: .* } }
  watcher: { password: watcher, tags: monitoring, permissions: { /: { configure: '', write: '', read: '' } } }
vhosts:
  /: { queues: [q, long], exchanges: { x: topic }, bindings: [{ source: x, destination: q, routing_key: '#' }] }
  other: { queues: [q] }
";

/// What parts of paths and values are made of: names that are there, that are not, and such as break naive code.
const NAMES: [&str; 24] = [
    "%2F",
    "other",
    "q",
    "long",
    "x",
    "amq.topic",
    "amq.default",
    "watcher",
    "nobody",
    "",
    "%",
    "%00",
    "%FF%FE",
    "..",
    "%2e%2e%2f",
    "~",
    "a~b",
    "%F0%9F%A6%80",
    "0",
    "-1",
    "18446744073709551616",
    "null",
    "broker",
    "x%0d%0aset-cookie:%20a=b",
];

const VALUES: [&str; 22] = [
    "null",
    "true",
    "\"true\"",
    "0",
    "-1",
    "1e400",
    "18446744073709551616",
    "0.5",
    "\"\"",
    "\"q\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[]",
    "{}",
    "[[[[[[[[]]]]]]]]",
    "{\"x-max-length\":-1}",
    "{\"x-queue-type\":\"quorum\"}",
    "\"5\"",
    "[\"guest\",1,null]",
    "\"auto\"",
    "\"(\"",
    "{\"a\":{\"b\":[{\"c\":null}]}}",
];

const KEYS: [&str; 36] = [
    "durable",
    "auto_delete",
    "internal",
    "type",
    "arguments",
    "node",
    "routing_key",
    "properties",
    "payload",
    "payload_encoding",
    "count",
    "ackmode",
    "encoding",
    "truncate",
    "pattern",
    "definition",
    "priority",
    "apply-to",
    "value",
    "password",
    "password_hash",
    "tags",
    "configure",
    "write",
    "read",
    "name",
    "users",
    "vhost",
    "component",
    "exchange",
    "destination",
    "destination_type",
    "to_queue",
    "description",
    "queues",
    "exchanges",
];

const QUERIES: [&str; 14] = [
    "page=1",
    "page=0&page_size=-1",
    "page=99999999999&page_size=1",
    "sort=name&sort_reverse=maybe",
    "sort=..&columns=",
    "name=(&use_regex=true",
    "columns=name,,a.b.c.d",
    "lengths_age=0&lengths_incr=0",
    "msg_rates_age=-5&msg_rates_incr=99999999999",
    "if-unused=true&if-empty=x",
    "count=-3",
    "%",
    "a=%zz&=&&",
    "vhost=%2F&limit=1",
];

struct Random(u64);

impl Random {
    /// SplitMix64: short, and the same everywhere.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A path of the table with these or those names in its places.
    fn path(&mut self, template: &str) -> String {
        let parts = template.split('/').map(|part| {
            let is_name = part.starts_with('{');
            if is_name || self.one_in(40) { self.pick(&NAMES).to_owned() } else { part.to_owned() }
        });
        let mut path = parts.collect::<Vec<_>>().join("/");
        if self.one_in(3) {
            path += "?";
            path += self.pick(&QUERIES);
        }
        path
    }

    fn body(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => Vec::new(),
            1 => (0..self.below(200)).map(|_| self.next().to_le_bytes()[0]).collect(),
            2 => self.pick(&VALUES).as_bytes().to_vec(),
            3 => b"[".repeat(self.below(100_000)),
            _ => {
                let fields: Vec<String> =
                    (0..self.below(8)).map(|_| format!("\"{}\":{}", self.pick(&KEYS), self.pick(&VALUES))).collect();
                let mut text = format!("{{{}}}", fields.join(","));
                if self.one_in(6) {
                    text.truncate(text.len() / 2);
                }
                text.into_bytes()
            }
        }
    }

    fn headers(&mut self) -> String {
        let mut headers = String::new();
        for (name, values) in [
            ("content-type", &["application/json", "text/plain", "multipart/form-data; boundary=x", "x", ""][..]),
            ("accept", &["*/*", "application/json", "text/html", ";;,", ""][..]),
            ("accept-encoding", &["gzip", "gzip;q=0", "*;q=nan"][..]),
            ("x-vhost", &["/", "other", "nowhere"][..]),
            ("origin", &["http://a", "null", ""][..]),
            ("last-event-id", &["1", "-1", "x"][..]),
        ] {
            if self.one_in(4) {
                headers += &format!("{name}: {}\r\n", self.pick(values));
            }
        }
        headers
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// All that is declared, without what may differ from one look to the next.
fn definitions(http: &Http) -> Value {
    let mut definitions = http.get("/definitions");
    for list in [
        "users",
        "vhosts",
        "permissions",
        "queues",
        "exchanges",
        "bindings",
        "policies",
        "parameters",
        "global_parameters",
    ] {
        if let Some(list) = definitions[list].as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
    }
    definitions
}

/// Sends requests as this caller; each status with how often it came.
fn fuzz(http: &Http, login: Option<&str>, random: &mut Random, requests: u64) -> std::collections::BTreeMap<u16, u64> {
    // A stream of events has no end to wait for.
    let operations: Vec<(&str, &str)> =
        broker::management::operations().filter(|(_, path)| !path.starts_with("/x/events")).collect();
    let mut statuses = std::collections::BTreeMap::new();
    for number in 0..requests {
        let (method, template) = operations[random.below(operations.len())];
        let method =
            if random.one_in(20) { random.pick(&["PATCH", "OPTIONS", "HEAD", "DELETE", "TRACE"]) } else { method };
        let (path, body, headers) = (random.path(template), random.body(), random.headers());
        let mut head = format!("{method} /api{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}");
        if let Some(login) = login {
            head += &format!("authorization: Basic {}\r\n", STANDARD.encode(login));
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let shown = || format!("request {number}: {head}{}", String::from_utf8_lossy(&body[..body.len().min(300)]));
        let answer = http
            .raw(&[head.as_bytes(), &body].concat(), method == "HEAD")
            .unwrap_or_else(|error| panic!("no answer: {error}\n{}", shown()));
        assert!(answer.status < 500 || answer.status == 503, "{} {}\n{}", answer.status, answer.text(), shown());
        assert!(answer.header("set-cookie") != Some("a=b"), "a header of the client's making\n{}", shown());
        *statuses.entry(answer.status).or_default() += 1;
    }
    statuses
}

#[test]
fn random_requests_meet_no_defect_and_change_nothing_without_permission() {
    let (mut broker, http) = broker_with(TOPOLOGY);
    let (seed, requests) = (setting("API_FUZZ_SEED", SEED), setting("API_FUZZ_REQUESTS", REQUESTS));
    println!("API_FUZZ_SEED={seed} API_FUZZ_REQUESTS={requests}");
    let mut random = Random(seed);
    let before = definitions(&http);
    for login in [None, Some("watcher:watcher")] {
        let statuses = fuzz(&http, login, &mut random, requests);
        println!("{login:?}: {statuses:?}");
        assert_eq!(definitions(&http), before, "somebody without the permission changed something; seed {seed}");
    }
    let statuses = fuzz(&http, Some("boss:boss"), &mut random, requests);
    println!("boss: {statuses:?}");
    assert!([200, 201, 204].iter().any(|status| statuses.contains_key(status)), "some requests are good: {statuses:?}");
    assert!(broker.is_alive());
    let log = broker.log();
    let defects: Vec<_> = log.iter().filter(|line| line.contains("panic") || line.contains("defect")).collect();
    assert!(defects.is_empty(), "{defects:?}");
    assert_eq!(http.get("/whoami")["name"], "guest");
}
