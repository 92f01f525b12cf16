//! Brokers whose users come from `auth-http` and `auth-jwt`, loaded as files, and clients that know nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, Properties, spec};

use crate::web_server::{Reply, Request, Server};
use crate::{build, directory};

const DEADLINE: Duration = Duration::from_secs(20);

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

/// A broker with users of this kind behind its own. Durations of answers are as short as they get.
fn start(test: &str, folder: &TempDir, kind: &str, config: &Value) -> BrokerProcess {
    let crate_name = ["auth-http", "auth-jwt", "auth-ldap"].into_iter().find(|name| name.ends_with(kind)).unwrap();
    let is_ours = build::AUTH_BACKENDS.contains(&crate_name);
    let example = || build::stand_alone(&format!("examples/plugins/{crate_name}"));
    let library = if is_ours { build::file_only(crate_name) } else { example() };
    let library = build::copied(&library, test);
    let topology = json!({
        "plugins": [library.display().to_string()],
        "auth": { "backends": [{ "kind": kind, "config": config, "timeout": "3s" }, "internal"] },
        "vhosts": {
            "/": {},
            "shop": { "exchanges": { "events": "topic" }, "queues": { "q-there": {} }, "bindings": [{ "events -> q-there": "#" }] },
            "other": {},
        },
    });
    let topology = folder.write("topology.yaml", &topology.to_string());
    BrokerOptions::default().topology(topology).http().start().expect("the broker starts")
}

fn connect(broker: &BrokerProcess, user: &str, password: &str, vhost: &str) -> Result<Connection, String> {
    let mut connection = Connection::new(broker.target().connect().map_err(|error| error.to_string())?);
    let login = Login { user: user.to_owned(), password: password.to_owned(), ..Login::guest(vhost) };
    connection.login(&login)?;
    open_channel(&mut connection, 1);
    Ok(connection)
}

fn open_channel(connection: &mut Connection, channel: u16) {
    connection.call(channel, "channel.open", &[]);
    connection.wait_for(channel, "channel.open-ok").unwrap();
}

fn refusal(broker: &BrokerProcess, user: &str, password: &str, vhost: &str) -> String {
    connect(broker, user, password, vhost).err().unwrap_or_else(|| panic!("{user} is let into {vhost}"))
}

fn declare(connection: &mut Connection, channel: u16, queue: &str) -> Result<(), String> {
    connection.call(channel, "queue.declare", &[("queue", text(queue))]);
    connection.wait_for(channel, "queue.declare-ok").map(drop)
}

/// Publishes with a confirm.
fn publish(connection: &mut Connection, channel: u16, exchange: &str, routing_key: &str) -> Result<(), String> {
    connection.call(channel, "confirm.select", &[]);
    connection.wait_for(channel, "confirm.select-ok")?;
    let method = spec::by_name("basic.publish").unwrap();
    let fields = [("exchange", text(exchange)), ("routing-key", text(routing_key))];
    let fields = tests::wire::arguments(method, &fields);
    connection.send_method(channel, method, &fields, Some((Properties::new(), b"m".to_vec())));
    connection.wait_for(channel, "basic.ack").map(drop)
}

fn has(request: &Request, parameter: &str) -> bool {
    request.form.split('&').any(|found| found == parameter)
}

/// What a service of the shop thinks of people.
fn shop(request: &Request) -> Reply {
    let is_ann = has(request, "username=ann");
    let is_allowed = match request.path.as_str() {
        "/user" => is_ann && has(request, "password=secret"),
        "/vhost" => {
            is_ann && has(request, "vhost=shop") && has(request, "ip=127.0.0.1") && has(request, "tags=management")
        }
        "/resource" if has(request, "permission=configure") => request.form.contains("&name=q-"),
        "/resource" => true,
        "/topic" => request.form.contains("&routing_key=eu."),
        _ => false,
    };
    match (is_allowed, request.path.as_str()) {
        (true, "/user") => Reply::ok("allow management"),
        (true, _) => Reply::ok("allow"),
        (false, _) => Reply::ok("deny not in the shop"),
    }
}

fn http_config(server: &Server) -> Value {
    json!({
        "user_path": server.url("/user"), "vhost_path": server.url("/vhost"), "resource_path": server.url("/resource"),
        "topic_path": server.url("/topic"), "cache_seconds": 0, "cache_refusals_seconds": 0, "request_timeout": 1000,
    })
}

#[test]
fn users_of_a_web_service_may_do_what_it_says() {
    let is_up = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&is_up);
    let server = Server::start(move |request| match answers.load(Ordering::SeqCst) {
        true => shop(request),
        false => Reply::Hang,
    });
    let folder = TempDir::new("auth-http");
    let broker = start("users-of-a-service", &folder, "http", &http_config(&server));

    let mut ann = connect(&broker, "ann", "secret", "shop").unwrap();
    declare(&mut ann, 1, "q-mine").unwrap();
    publish(&mut ann, 1, "", "q-mine").unwrap();
    publish(&mut ann, 1, "events", "eu.berlin").unwrap();
    let error = publish(&mut ann, 1, "events", "us.nyc").unwrap_err();
    assert!(error.contains("channel.close reply-code=403") && error.contains("ACCESS_REFUSED"), "{error}");
    open_channel(&mut ann, 2);
    let error = declare(&mut ann, 2, "theirs").unwrap_err();
    assert!(error.contains("channel.close reply-code=403"), "{error}");

    // Tags open the management API.
    let whoami = |password: &str| {
        let http = Http::new(broker.http()).login("ann", password);
        http.send("GET", "/whoami", b"")
    };
    let answer = whoami("secret");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &body["tags"]), (200, &json!(["management"])), "{body}");
    assert_eq!(whoami("wrong").status, 401);

    let error = refusal(&broker, "ann", "wrong", "shop");
    assert!(error.contains("connection.close reply-code=403"), "{error}");
    let error = refusal(&broker, "ann", "secret", "other");
    assert!(
        error.contains("connection.close reply-code=530") && error.contains("access to vhost 'other' refused"),
        "{error}"
    );
    let error = refusal(&broker, "nobody", "secret", "shop");
    assert!(error.contains("reply-code=403"), "{error}");
    // The broker's own users come second, and nobody else is asked what they may do.
    let asked = server.requests().len();
    let mut guest = connect(&broker, "guest", "guest", "other").unwrap();
    declare(&mut guest, 1, "theirs").unwrap();
    let questions: Vec<String> = server.requests().split_off(asked).into_iter().map(|request| request.path).collect();
    assert_eq!(questions, ["/user"]);

    // A service that does not answer lets nobody in, and who is in goes on where answers are still good.
    is_up.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let error = refusal(&broker, "ann", "secret", "shop");
    assert!(error.contains("reply-code=403"), "{error}");
    assert!(began.elapsed() < DEADLINE);
    let log = broker.log().join("\n");
    assert!(log.contains("no answer in time") && !log.contains("secret"), "{log}");
    is_up.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + DEADLINE;
    while connect(&broker, "ann", "secret", "shop").is_err() {
        assert!(Instant::now() < deadline, "the service is back, and ann is still refused");
    }
}

/// The issuer of tokens, with its keys in a file.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new(folder: &TempDir) -> Self {
        let pair = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap();
        let key = json!({ "kty": "OKP", "kid": "1", "crv": "Ed25519", "x": encoded(pair.public_key()) });
        folder.write("keys.json", &json!({ "keys": [key] }).to_string());
        Self(pair)
    }

    fn token(&self, name: &str, valid_secs: u64, scope: &str) -> String {
        let claims = json!({ "aud": "rabbitmq", "sub": name, "exp": now_secs() + valid_secs, "scope": scope });
        let header = json!({ "alg": "EdDSA", "kid": "1" });
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = encoded(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

const SCOPES: &str =
    "rabbitmq.configure:shop/q-* rabbitmq.write:shop/* rabbitmq.read:shop/* rabbitmq.write:shop/events/eu.*";

#[test]
fn bearers_of_tokens_may_do_what_their_scopes_say() {
    let folder = TempDir::new("auth-jwt");
    let issuer = Issuer::new(&folder);
    let config = json!({ "resource_server_id": "rabbitmq", "jwks_file": "keys.json" });
    let broker = start("bearers-of-tokens", &folder, "jwt", &config);

    let token = issuer.token("ann", 600, SCOPES);
    let mut ann = connect(&broker, "", &token, "shop").unwrap();
    declare(&mut ann, 1, "q-mine").unwrap();
    publish(&mut ann, 1, "", "q-mine").unwrap();
    publish(&mut ann, 1, "events", "eu.berlin").unwrap();
    let error = publish(&mut ann, 1, "events", "us.nyc").unwrap_err();
    assert!(error.contains("channel.close reply-code=403"), "{error}");
    open_channel(&mut ann, 2);
    let error = declare(&mut ann, 2, "theirs").unwrap_err();
    assert!(error.contains("reply-code=403") && error.contains("user 'ann'"), "{error}");

    let error = refusal(&broker, "", &token, "other");
    assert!(error.contains("reply-code=530"), "{error}");
    let (message, _) = token.rsplit_once('.').unwrap();
    for wrong in [
        format!("{message}.{}", encoded([0; 64])),
        format!("{message}."),
        Issuer::new(&TempDir::new("evil")).token("ann", 600, SCOPES),
    ] {
        let error = refusal(&broker, "ann", &wrong, "shop");
        assert!(error.contains("reply-code=403"), "{error}");
    }
    assert!(connect(&broker, "guest", "guest", "shop").is_ok(), "passwords go to the broker's own users");
    let log = broker.log().join("\n");
    assert!(!log.contains(&token) && !log.contains(message), "tokens are not logged");
}

#[test]
fn token_that_expires_ends_its_connection_unless_a_new_one_comes() {
    let folder = TempDir::new("auth-jwt-expiry");
    let issuer = Issuer::new(&folder);
    let config = json!({ "resource_server_id": "rabbitmq", "jwks_file": "keys.json" });
    let broker = start("token-that-expires", &folder, "jwt", &config);
    let short = || issuer.token("ann", 4, SCOPES);

    let mut renewed = connect(&broker, "", &short(), "shop").unwrap();
    let mut ending = connect(&broker, "", &short(), "shop").unwrap();
    declare(&mut ending, 1, "q-mine").unwrap();
    let renew = |connection: &mut Connection, token: &str| {
        let fields = [("new-secret", text(token)), ("reason", text("it expires"))];
        connection.call(0, "connection.update-secret", &fields);
        connection.wait_for(0, "connection.update-secret-ok").map(drop)
    };
    renew(&mut renewed, &issuer.token("ann", 600, "rabbitmq.read:shop/*")).unwrap();
    let error = ending.wait_for(0, "connection.open-ok").unwrap_err();
    assert!(error.contains("connection.close reply-code=320"), "{error}");
    // The other one goes on, with what its new token allows.
    renewed.barrier(1).unwrap();
    renewed.call(1, "queue.declare", &[("queue", text("q-there")), ("passive", Field::Bit(true))]);
    renewed.wait_for(1, "queue.declare-ok").unwrap();
    let error = declare(&mut renewed, 1, "q-new").unwrap_err();
    assert!(error.contains("reply-code=403"), "{error}");

    let error = refusal(&broker, "", &issuer.token("ann", 0, SCOPES), "shop");
    assert!(error.contains("reply-code=403"), "{error}");
    // Somebody else's token changes nobody.
    let mut ann = connect(&broker, "", &issuer.token("ann", 600, SCOPES), "shop").unwrap();
    let error = renew(&mut ann, &issuer.token("bob", 600, SCOPES)).unwrap_err();
    assert!(error.contains("connection.close reply-code="), "{error}");
}

#[test]
fn people_of_a_directory_log_in_by_the_example_auth_ldap() {
    let (server, _) = directory::start(directory::directory);
    let folder = TempDir::new("auth-ldap");
    // `$${` is how a topology file writes `${`.
    let config = json!({
        "server": server.to_string(), "user": "uid=$${username},ou=people,dc=example",
        "vhost": "cn=$${vhost},ou=vhosts,dc=example", "tags": { "management": "cn=admins,ou=groups,dc=example" },
    });
    let broker = start("people-of-a-directory", &folder, "ldap", &config);
    let mut ann = connect(&broker, "ann", "secret", "shop").unwrap();
    declare(&mut ann, 1, "q-mine").unwrap();
    assert!(refusal(&broker, "ann", "secret", "other").contains("reply-code=530"));
    assert!(refusal(&broker, "ann", "wrong", "shop").contains("reply-code=403"));
    assert!(refusal(&broker, "ann", "", "shop").contains("reply-code=403"));
    let answer = Http::new(broker.http()).login("ann", "secret").send("GET", "/whoami", b"");
    assert_eq!(answer.status, 200, "tags come from groups");
}
