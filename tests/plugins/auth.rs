//! An auth backend from a file in a running broker: what it says holds, who waits for it waits alone, and whatever goes wrong with it
//! is a refusal and no more.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::certificates::{Authority, connect};
use tests::event_stream::EventStream;
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::{Target, TlsTransport};
use tests::wire::{Field, spec};

use crate::build;

struct Running {
    broker: BrokerProcess,
    folder: TempDir,
}

fn start(name: &str) -> Running {
    start_with(name, "500ms")
}

/// With a first backend that may think so long.
fn start_with(name: &str, timeout: &str) -> Running {
    start_isolated(name, timeout, "thread")
}

/// With backends that are polled in a thread of their own, or by those of the broker.
fn start_isolated(name: &str, timeout: &str, isolation: &str) -> Running {
    let folder = TempDir::new(name);
    let plugin = build::copied(&build::stand_alone("tests/fixtures/auth-scripted"), name);
    let mut text = format!("plugins: [{}]\n", plugin.display());
    text.push_str("auth:\n  backends:\n    - internal\n");
    let rest = format!("isolation: {isolation}, config: {{ gate: gate }}");
    let _ = writeln!(text, "    - {{ kind: scripted, timeout: {timeout}, {rest} }}");
    let _ = writeln!(text, "    - {{ kind: scripted, name: patient, timeout: 30s, {rest} }}");
    text.push_str("users: { guest: { password: guest, tags: [administrator], permissions: { /: all } } }\n");
    text.push_str("vhosts: { /: {}, deny: {}, panics: {}, gate: {} }\n");
    text = text.replace("permissions: { /: all }", "permissions: { /: { configure: .*, write: .*, read: .* } }");
    let topology = folder.write("topology.yaml", &text);
    let broker = BrokerOptions::default().topology(topology).http().start().expect("the broker starts");
    Running { broker, folder }
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

impl Running {
    fn connect(&self, user: &str, password: &str, vhost: &str) -> Result<Connection, String> {
        let mut connection = Connection::new(self.broker.target().connect().unwrap());
        connection.login(&Login { user: user.into(), password: password.into(), ..Login::guest(vhost) })?;
        open_channel(&mut connection, 1);
        Ok(connection)
    }

    fn open_gate(&self) {
        self.folder.write("gate", "");
    }

    fn http(&self) -> Http {
        Http::new(self.broker.http())
    }

    fn plugin(&self) -> Json {
        let all = self.http().get("/x/plugins");
        all.as_array().unwrap().iter().find(|plugin| plugin["name"] == "auth_scripted").unwrap().clone()
    }
}

fn open_channel(connection: &mut Connection, channel: u16) {
    connection.call(channel, "channel.open", &[]);
    connection.wait_for(channel, "channel.open-ok").unwrap();
}

fn declare(connection: &mut Connection, channel: u16, queue: &str) {
    connection.call(channel, "queue.declare", &[("queue", text(queue))]);
}

fn publish(connection: &mut Connection, channel: u16, exchange: &str, key: &str) {
    let method = spec::by_name("basic.publish").unwrap();
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    (fields[1], fields[2]) = (text(exchange), text(key));
    connection.send_method(channel, method, &fields, Some((Vec::new(), b"m".to_vec())));
}

/// Code and text of what closes the channel; 0 for the connection.
fn closed(connection: &mut Connection, channel: u16) -> (u64, String) {
    let name = if channel == 0 { "connection.close" } else { "channel.close" };
    let fields = connection.wait_for(channel, name).expect("it is closed");
    match &fields[..2] {
        [Field::Number(code), Field::String(text)] => (*code, String::from_utf8_lossy(text).into_owned()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn backend_from_a_file_decides_about_logins_and_permissions() {
    decides_about_logins_and_permissions(&start("auth-decides"));
}

#[test]
fn backend_without_a_thread_of_its_own_decides_alike() {
    decides_about_logins_and_permissions(&start_isolated("auth-decides-none", "500ms", "none"));
}

fn decides_about_logins_and_permissions(running: &Running) {
    running.broker.wait_for_log(|line| line.contains("the backend is open")).expect("the plugin's log is the broker's");
    assert_eq!(running.plugin()["metrics"]["opened"], 2.0, "one for each backend of the file");
    running.connect("guest", "guest", "/").expect("the broker's own user");
    let refused = running.connect("app", "wrong", "/").err().expect("a wrong password");
    assert!(refused.contains("reply-code=403"), "{refused}");
    let refused = running.connect("app", "secret", "deny").err().expect("a vhost that the backend refuses");
    assert!(refused.contains("access to vhost 'deny' refused for user 'app'"), "{refused}");
    let mut app = running.connect("app", "secret", "/").expect("a user that only the backend knows");
    declare(&mut app, 1, "spawn-q");
    app.wait_for(1, "queue.declare-ok").expect("and the backend may use tokio");
    let bind = [("queue", text("spawn-q")), ("exchange", text("amq.topic")), ("routing-key", text("#"))];
    app.call(1, "queue.bind", &bind);
    app.wait_for(1, "queue.bind-ok").unwrap();
    app.call(1, "confirm.select", &[]);
    app.wait_for(1, "confirm.select-ok").unwrap();
    for _ in 0..3 {
        publish(&mut app, 1, "amq.topic", "a.b");
        app.wait_for(1, "basic.ack").unwrap();
    }
    publish(&mut app, 1, "amq.topic", "a.deny");
    let refused =
        "ACCESS_REFUSED - write access to topic 'a.deny' in exchange 'amq.topic' in vhost '/' refused for user 'app'";
    assert_eq!(closed(&mut app, 1), (403, refused.to_owned()));
    open_channel(&mut app, 2);
    declare(&mut app, 2, "deny-q");
    let refused = "ACCESS_REFUSED - configure access to queue 'deny-q' in vhost '/' refused for user 'app'";
    assert_eq!(closed(&mut app, 2), (403, refused.to_owned()));
    open_channel(&mut app, 3);
    declare(&mut app, 3, "spawn-q");
    app.wait_for(3, "queue.declare-ok").unwrap();
}

#[test]
fn who_waits_for_a_backend_waits_alone_and_in_order() {
    let running = start("auth-waits");
    // Only the patient backend waits so long; a name that the first does not know.
    let mut app = running
        .connect("login-stranger", "secret", "/")
        .err()
        .map_or_else(|| panic!("a stranger is let in"), |_| running.connect("app", "secret", "/").unwrap());
    open_channel(&mut app, 2);
    // The channel waits until the time-out, with all that comes behind; another goes on.
    let since = Instant::now();
    publish(&mut app, 1, "", "spawn-q");
    declare(&mut app, 1, "gate-q");
    declare(&mut app, 1, "behind");
    declare(&mut app, 2, "beside");
    app.wait_for(2, "queue.declare-ok").expect("another channel");
    let mut other = running.connect("other", "secret", "/").unwrap();
    declare(&mut other, 1, "beside");
    other.wait_for(1, "queue.declare-ok").expect("another connection");
    let refused = closed(&mut app, 1);
    assert!(refused.1.contains("configure access to queue 'gate-q'"), "{refused:?}");
    assert!(since.elapsed() >= Duration::from_millis(450), "the time-out is the backend's");
    // With the gate open, what was held comes in its order.
    running.open_gate();
    open_channel(&mut app, 3);
    for queue in ["gate-q2", "behind"] {
        declare(&mut app, 3, queue);
    }
    for queue in ["gate-q2", "behind"] {
        let fields = app.wait_for(3, "queue.declare-ok").unwrap();
        assert_eq!(fields[0], text(queue));
    }
}

#[test]
fn backend_that_refuses_or_panics_when_it_is_opened_keeps_the_broker_from_starting() {
    let plugin = build::copied(&build::stand_alone("tests/fixtures/auth-scripted"), "auth-opened");
    for (mood, said) in
        [("refuse", "refused to start: no such mood"), ("panic", "refused to start: panicked: told to open")]
    {
        let folder = TempDir::new("auth-opened");
        let backends = format!("[{{ kind: scripted, config: {{ mood: {mood} }} }}]");
        let text = format!("plugins: [{}]\nauth: {{ backends: {backends} }}\n", plugin.display());
        let error = BrokerOptions::default().topology(folder.write("topology.yaml", &text)).start().err();
        let error = error.expect("it does not start");
        assert!(error.contains(said) && error.contains("'scripted'"), "{error}");
    }
}

#[test]
fn backend_that_panics_refuses_and_is_left_alone_for_a_while() {
    refuses_when_it_panics(&start("auth-panics"));
}

#[test]
fn backend_that_panics_in_a_thread_of_the_broker_does_no_more_harm() {
    refuses_when_it_panics(&start_isolated("auth-panics-none", "500ms", "none"));
}

fn refuses_when_it_panics(running: &Running) {
    let mut app = running.connect("app", "secret", "/").unwrap();
    declare(&mut app, 1, "panic-q");
    assert_eq!(closed(&mut app, 1).0, 403);
    let plugin = running.plugin();
    assert_eq!((&plugin["state"], &plugin["faults"]), (&Json::from("degraded"), &Json::from(1)), "{plugin}");
    assert!(plugin["last_fault"].as_str().unwrap().starts_with("panicked: told to panic (at src/lib.rs:"), "{plugin}");
    open_channel(&mut app, 2);
    publish(&mut app, 2, "panic-x", "k");
    assert_eq!(closed(&mut app, 2).0, 403);
    open_channel(&mut app, 3);
    publish(&mut app, 3, "amq.topic", "panic");
    assert_eq!(closed(&mut app, 3).0, 403);
    let refused = running.connect("app", "secret", "panics").err().unwrap();
    assert!(refused.contains("530") || refused.contains("refused"), "{refused}");
    let refused = running.connect("login-panic", "secret", "/").err().unwrap();
    assert!(refused.contains("403"), "{refused}");
    // Three times in a row, and it is not asked for a while.
    for channel in 4..7 {
        open_channel(&mut app, channel);
        declare(&mut app, channel, &format!("panic-{channel}"));
        assert_eq!(closed(&mut app, channel).0, 403);
    }
    assert_eq!(running.plugin()["state"], "failed");
    open_channel(&mut app, 7);
    declare(&mut app, 7, "fine");
    assert_eq!(closed(&mut app, 7).0, 403);
    running.connect("guest", "guest", "/").expect("the broker goes on");
}

#[test]
fn backend_that_blocks_its_thread_holds_up_nobody_else() {
    let running = start("auth-blocks");
    let mut app = running.connect("app", "secret", "/").unwrap();
    declare(&mut app, 1, "block-q");
    assert_eq!(closed(&mut app, 1).0, 403, "after the time-out");
    // The first backend's thread is gone for good; the second has one of its own.
    let mut guest = running.connect("guest", "guest", "/").unwrap();
    declare(&mut guest, 1, "q");
    guest.wait_for(1, "queue.declare-ok").unwrap();
    let mut app = running.connect("app", "secret", "/").expect("the backend behind it lets the user in");
    declare(&mut app, 1, "q2");
    app.wait_for(1, "queue.declare-ok").unwrap();
}

/// Semantics 4.12 and 4.13.
#[test]
fn credentials_expire_and_may_be_renewed() {
    let running = start("auth-expires");
    let mut app = running.connect("app", "300", "/").unwrap();
    assert_eq!(closed(&mut app, 0), (320, "CONNECTION_FORCED - credential expired".to_owned()));

    let update = |connection: &mut Connection, secret: &str| {
        connection.call(0, "connection.update-secret", &[("new-secret", text(secret)), ("reason", text("test"))]);
    };
    let mut app = running.connect("app", "60000", "/").unwrap();
    update(&mut app, "secret");
    app.wait_for(0, "connection.update-secret-ok").unwrap();
    update(&mut app, "300");
    app.wait_for(0, "connection.update-secret-ok").unwrap();
    assert_eq!(closed(&mut app, 0).0, 320, "the new secret's time counts");

    for secret in ["wrong", "mallory:secret", "panic"] {
        let mut app = running.connect("app", "secret", "/").unwrap();
        update(&mut app, secret);
        let refused = "NOT_ALLOWED - New secret was refused by one of the backends";
        assert_eq!(closed(&mut app, 0), (530, refused.to_owned()), "{secret}");
    }
}

#[test]
fn logins_of_the_management_api_go_through_the_chain() {
    let running = start("auth-http");
    let admin = running.http().login("admin", "secret");
    let user = admin.get("/whoami");
    assert_eq!((&user["name"], &user["tags"][0]), (&Json::from("admin"), &Json::from("administrator")));
    assert_eq!(running.http().login("admin", "wrong").send("GET", "/whoami", b"").status, 401);
    assert_eq!(running.http().login("app", "secret").send("GET", "/whoami", b"").status, 401, "no tag");
    assert_eq!(admin.put("/queues/%2F/allowed", &serde_json::json!({})), 201);
    assert!(admin.put("/queues/%2F/deny", &serde_json::json!({})) >= 400);
    let names: Vec<Json> = admin.get("/vhosts").as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert!(names.contains(&Json::from("/")), "{names:?}");
}

/// The first event of a vhost waits for the backend, and what comes behind it with it; neither is left out.
#[test]
fn events_of_a_vhost_wait_until_the_backend_has_said_who_may_enter() {
    let running = start_with("auth-events", "30s");
    let guest = running.http();
    for vhost in ["gate", "deny", "%2F"] {
        assert_eq!(
            guest.put(
                &format!("/permissions/{vhost}/guest"),
                &serde_json::json!({"configure": ".*", "write": "", "read": ""})
            ) / 100,
            2
        );
    }
    let mut stream = EventStream::open(&guest.clone().login("monitor", "secret"), None);
    stream.until("rates");
    let created = |vhost: &str, queue: &str| {
        assert_eq!(guest.put(&format!("/queues/{vhost}/{queue}"), &serde_json::json!({})), 201);
    };
    created("gate", "first");
    created("deny", "hidden");
    created("%2F", "last");
    created("gate", "second");
    let at = stream.last_id.clone();
    assert_eq!(stream.until("rates").len(), 1, "rates go on");
    assert_eq!(stream.last_id, at, "what waits has not been sent");
    running.open_gate();
    let names: Vec<Json> =
        (0..3).map(|_| stream.until("queue.created")[0].data["properties"]["name"].clone()).collect();
    assert_eq!(names, ["first", "last", "second"]);
}

/// Semantics 4.3: the certificate names a user whom a backend knows, and it says what they may do.
#[test]
fn users_of_a_backend_come_in_by_their_certificates() {
    let authority = Authority::new("the authority");
    authority.install(&authority.server());
    let plugin = build::copied(&build::stand_alone("tests/fixtures/auth-scripted"), "auth-external");
    let rest = format!(
        "plugins: [{}]\nlisteners: {{ amqps: '127.0.0.1:0' }}\nauth: {{ backends: [internal, {{ kind: scripted, timeout: 500ms }}] }}\nvhosts: {{ /: {{}}, deny: {{}} }}\n",
        plugin.display()
    );
    let folder = TempDir::new("auth-external");
    let topology = authority.topology(", client_certificates: require, login_from: common_name", &rest);
    let topology = folder.write("topology.yaml", &topology);
    let broker = BrokerOptions::default().topology(topology).start().expect("the broker starts");
    let address = broker.address_in_log("listening with TLS").unwrap();
    let login = |name: &str, vhost: &str| {
        let config = authority.trusting(Some(&authority.client(name)));
        let mut connection = Connection::new(Box::new(TlsTransport(connect(address, &config))));
        connection.login_by("EXTERNAL", Vec::new(), &Login::guest(vhost)).map(|()| connection)
    };
    let mut ann = login("ann", "/").unwrap();
    open_channel(&mut ann, 1);
    declare(&mut ann, 1, "allowed");
    ann.wait_for(1, "queue.declare-ok").unwrap();
    ann.call(1, "queue.declare", &[("queue", text("deny"))]);
    assert_eq!(closed(&mut ann, 1).0, 403);
    assert!(login("ann", "deny").is_err(), "the backend says no to the vhost");
    for name in ["stranger", "deny", "error", "panic", "block"] {
        assert!(login(name, "/").is_err(), "{name} does not come in");
    }
    assert!(login("guest", "/").is_ok(), "the broker's own users come in as before");
}
