//! What RabbitMQ does not have: `/api/x/`.

use super::{broker, m, payloads};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::event_stream::{EventStream, Told};
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::transport::Target;
use tests::wire::Field;

fn publish(http: &Http, key: &str, payload: &str) {
    let body = json!({"properties": {"delivery_mode": 2}, "routing_key": key, "payload": payload, "payload_encoding": "string"});
    assert_eq!(http.post("/exchanges/%2F/amq.default/publish", &body).json()["routed"], json!(true));
}

#[test]
fn looking_into_a_queue_changes_nothing() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({"durable": true}));
    for payload in ["1", "2", "3"] {
        publish(&http, "q", payload);
    }
    let get = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    http.post("/queues/%2F/q/get", &get);
    let expected = [m("1", true), m("2", false)];
    for _ in 0..2 {
        let seen = http.get("/x/queues/%2F/q/browse?count=2");
        assert_eq!((payloads(&seen["messages"]), &seen["ready"]), (expected.to_vec(), &json!(3)));
    }
    assert_eq!(http.get("/x/queues/%2F/q/browse?count=2&truncate=0")["messages"][0]["payload"], "");
    let all = json!({"count": -1, "ackmode": "ack_requeue_false", "encoding": "auto"});
    assert_eq!(payloads(&http.post("/queues/%2F/q/get", &all).json()), [m("1", true), m("2", false), m("3", false)]);
    assert_eq!(http.send("GET", "/x/queues/%2F/none/browse", b"").status, 404);
    assert_eq!(http.send("GET", "/x/queues/%2F/q/browse?count=x", b"").status, 400);
}

#[test]
fn messages_are_moved_in_their_order_and_stay_where_they_are_not_taken() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/from", &json!({"durable": true}));
    http.put(
        "/queues/%2F/to",
        &json!({"durable": true, "arguments": {"x-max-length": 2, "x-overflow": "reject-publish"}}),
    );
    for payload in ["1", "2", "3", "4"] {
        publish(&http, "from", payload);
    }
    let moved = http.post("/x/queues/%2F/from/move", &json!({"to_queue": "to", "count": 1}));
    assert_eq!((moved.status, moved.json()), (200, json!({"moved": 1, "stopped_by": null})));
    let moved = http.post("/x/queues/%2F/from/move", &json!({"to_queue": "to"})).json();
    assert_eq!(moved, json!({"moved": 1, "stopped_by": "not_taken"}));
    let left = http.get("/x/queues/%2F/from/browse");
    assert_eq!(payloads(&left["messages"]), [m("3", true), m("4", false)]);
    assert_eq!(payloads(&http.get("/x/queues/%2F/to/browse")["messages"]), [m("1", false), m("2", false)]);
    let refused = |body: Value, status: u16| {
        assert_eq!(http.post("/x/queues/%2F/from/move", &body).status, status, "{body}");
    };
    refused(json!({}), 400);
    refused(json!({"to_queue": ""}), 400);
    refused(json!({"to_queue": "from"}), 400);
    refused(json!({"to_queue": "none"}), 404);
    refused(json!({"to_queue": "to", "to_exchange": "amq.topic"}), 400);
    refused(json!({"to_exchange": "none"}), 404);
    let nowhere = http.post("/x/queues/%2F/from/move", &json!({"to_exchange": "amq.fanout"})).json();
    assert_eq!(nowhere, json!({"moved": 0, "stopped_by": "not_taken"}));
    assert_eq!(http.get("/x/queues/%2F/from/browse")["ready"], 2);
}

#[test]
fn a_dry_run_tells_the_way_and_sends_nothing() {
    let (_broker, http) = broker();
    for queue in ["a", "b", "rest"] {
        http.put(&format!("/queues/%2F/{queue}"), &json!({}));
    }
    http.put("/exchanges/%2F/rest", &json!({"type": "fanout"}));
    http.put("/exchanges/%2F/in", &json!({"type": "topic", "arguments": {"alternate-exchange": "rest"}}));
    http.put("/exchanges/%2F/recent", &json!({"type": "x-recent-history"}));
    http.post("/bindings/%2F/e/in/q/a", &json!({"routing_key": "eu.#"}));
    http.post("/bindings/%2F/e/in/e/amq.direct", &json!({"routing_key": "eu.*"}));
    http.post("/bindings/%2F/e/amq.direct/q/b", &json!({"routing_key": "eu.x"}));
    http.post("/bindings/%2F/e/rest/q/rest", &json!({}));
    let route = |exchange: &str, key: &str| {
        let answer = http.post("/x/route", &json!({"vhost": "/", "exchange": exchange, "routing_key": key}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let names = |answer: &Value| -> Vec<String> {
        let mut names: Vec<String> = answer["queues"]
            .as_array()
            .unwrap()
            .iter()
            .map(|queue| queue["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let answer = route("in", "eu.x");
    assert_eq!((names(&answer), &answer["routed"]), (vec!["a".to_owned(), "b".to_owned()], &json!(true)));
    assert_eq!(
        (&answer["steps"][0]["outcome"], &answer["steps"][1]["exchange"]),
        (&json!("routed"), &json!("amq.direct"))
    );
    let answer = route("in", "us");
    assert_eq!((names(&answer), &answer["steps"][0]["outcome"]), (vec!["rest".to_owned()], &json!("alternate")));
    assert!(answer["steps"][0]["explanation"].as_str().unwrap().contains("'rest'"));
    assert_eq!(names(&route("amq.default", "a")), ["a"]);
    assert_eq!(route("", "none")["steps"][0]["outcome"], "nowhere");
    assert_eq!(route("recent", "k")["steps"][0]["outcome"], "depends_on_state");
    for queue in ["a", "b", "rest"] {
        assert_eq!(http.get(&format!("/queues/%2F/{queue}"))["messages"], 0);
    }
    assert_eq!(http.post("/x/route", &json!({"vhost": "none"})).status, 404);
    assert_eq!(http.post("/x/route", &json!({"exchange": "none"})).status, 404);
    http.put("/users/u", &json!({"password": "p", "tags": "management"}));
    http.put("/permissions/%2F/u", &json!({"configure": "", "write": "^amq", "read": ""}));
    let user = http.clone().login("u", "p");
    assert_eq!(user.post("/x/route", &json!({"exchange": "in"})).status, 401);
    assert_eq!(user.post("/x/route", &json!({"exchange": "amq.direct", "routing_key": "eu.x"})).status, 200);
}

#[test]
fn plugins_and_hooks_say_how_they_fare() {
    let folder = tests::temp::TempDir::new("management-beyond");
    folder.write("hook.lua", "return { on_publish = function(msg) msg.routing_key = 'other' end }\n");
    let topology = folder.write("topology.yaml", "vhosts: { /: { hooks: [hook.lua], queues: [q, other] } }\n");
    let broker = tests::broker_process::BrokerOptions::default().http().topology(topology).start().unwrap();
    let http = Http::new(broker.http());
    let plugins = http.get("/x/plugins");
    let topic = plugins.as_array().unwrap().iter().find(|plugin| plugin["exchange_types"] == json!(["topic"]));
    assert_eq!(topic.map(|plugin| &plugin["state"]), Some(&json!("active")));
    publish(&http, "q", "x");
    let hooks = http.get("/x/hooks");
    assert_eq!(
        (&hooks[0]["calls"], &hooks[0]["rewritten"], &hooks[0]["scope"]["vhost"]),
        (&json!(1), &json!(1), &json!("/"))
    );
    let records = http.get("/x/hooks/hook/records");
    let record = &records[0];
    assert_eq!((&record["point"], &record["result"]), (&json!("on_publish"), &json!("rewritten")));
    let (before, after) = (&record["before"], &record["after"]);
    assert_eq!((&before["routing_key"], &after["routing_key"]), (&json!("q"), &json!("other")));
    assert_eq!((&before["user"], &before["payload_bytes"]), (&json!("guest"), &json!(1)));
    assert_eq!(http.try_send("GET", "/x/hooks/nothing/records", b"").map(|answer| answer.status), Ok(404));
    // Headers of messages are for who may read where they went; the permission to look at figures is not enough.
    http.put("/users/monitor", &json!({"password": "p", "tags": "monitoring"}));
    let monitor = http.clone().login("monitor", "p");
    let seen = |read: &str| {
        http.put("/permissions/%2F/monitor", &json!({"configure": "", "write": "", "read": read}));
        monitor.get("/x/hooks/hook/records").as_array().unwrap().len()
    };
    assert_eq!(monitor.get("/x/hooks/hook/records"), json!([]), "nothing of a vhost that is not his");
    assert_eq!((seen("^q$"), seen("^amq\\.default$")), (0, 1));
    let answer = http.post("/x/route", &json!({"routing_key": "q"})).json();
    assert_eq!((&answer["hooks"][0]["outcome"], &answer["queues"][0]["name"]), (&json!("rewrite"), &json!("other")));
    assert_eq!(answer["hooks"][0]["before"]["routing_key"], "q");
}

#[test]
fn a_hook_that_fails_is_told() {
    let folder = tests::temp::TempDir::new("management-hook-failed");
    folder.write("fails.lua", "return { on_publish = function(msg) error('no luck') end }\n");
    let topology = folder
        .write("topology.yaml", "vhosts: { /: { hooks: [{ script: fails.lua, on_error: pass }], queues: [q] } }\n");
    let broker = tests::broker_process::BrokerOptions::default().http().topology(topology).start().unwrap();
    let http = Http::new(broker.http());
    let mut stream = EventStream::open(&http, None);
    stream.until("rates");
    publish(&http, "q", "x");
    let told = stream.until("hook.failed");
    let data = &told.last().unwrap().data;
    let properties = &data["properties"];
    assert_eq!(
        (&data["vhost"], &properties["hook"], &properties["point"]),
        (&json!("/"), &json!("fails"), &json!("on_publish"))
    );
    assert_eq!((&properties["on_error"], &properties["suppressed"]), (&json!("pass"), &json!(0)));
    assert!(properties["error"].as_str().is_some_and(|text| text.contains("no luck")), "{data}");
}

fn names(told: &[Told]) -> Vec<(&str, &str)> {
    told.iter().map(|event| (event.kind.as_str(), event.data["properties"]["name"].as_str().unwrap_or(""))).collect()
}

#[test]
fn what_happens_is_told_as_it_happens() {
    let (_broker, http) = broker();
    http.put("/users/monitor", &json!({"password": "p", "tags": "monitoring"}));
    http.put("/permissions/%2F/monitor", &json!({"configure": "", "write": "", "read": ""}));
    http.put("/vhosts/other", &json!({}));
    let mut stream = EventStream::open(&http.clone().login("monitor", "p"), None);
    // The first rates come at once, so from here on everything is told.
    stream.until("rates");
    http.put("/queues/other/hidden", &json!({}));
    http.put("/users/secret", &json!({"tags": ""}));
    http.put("/queues/%2F/seen", &json!({}));
    let told = stream.until("queue.created");
    assert_eq!(names(&told), [("queue.created", "seen")], "nothing of other vhosts and of users");
    assert_eq!(told[0].data["properties"]["user_who_performed_action"], "guest");
    // Who is an administrator for a while hears all for that while.
    http.put("/users/monitor", &json!({"password": "p", "tags": "administrator"}));
    http.put("/users/open", &json!({"tags": ""}));
    let told = stream.until("user.created");
    assert_eq!(told.last().map(|event| &event.data["properties"]["name"]), Some(&json!("open")));
    http.put("/users/monitor", &json!({"password": "p", "tags": "monitoring"}));
    http.put("/users/secret-again", &json!({"tags": ""}));
    http.put("/queues/%2F/seen-again", &json!({}));
    let told = stream.until("queue.created");
    assert!(told.iter().all(|event| event.kind != "user.created"), "{told:?}");
    // Who is no longer there hears no more.
    assert_eq!(http.delete("/users/monitor"), 204);
    let deadline = Instant::now() + Duration::from_secs(20);
    while stream.next_event().is_some() {
        assert!(Instant::now() < deadline, "the stream goes on");
    }
}

#[test]
fn who_comes_again_is_told_what_came_meanwhile() {
    let (_broker, http) = broker();
    http.put("/users/monitor", &json!({"password": "p", "tags": "monitoring"}));
    http.put("/permissions/%2F/monitor", &json!({"configure": "", "write": "", "read": ""}));
    http.put("/vhosts/other", &json!({}));
    let monitor = http.clone().login("monitor", "p");
    // Nobody has been here before, so nothing of what was is known.
    let mut first = EventStream::open(&monitor, Some("7"));
    let told = first.until("missed");
    assert_eq!((names(&told), &told[0].data), (vec![("missed", "")], &json!({"count": null})));
    first.until("rates");
    http.put("/queues/%2F/a", &json!({}));
    first.until("queue.created");
    let at = first.last_id.clone();
    drop(first);
    http.put("/queues/%2F/b", &json!({}));
    http.put("/queues/other/hidden", &json!({}));
    http.put("/queues/%2F/c", &json!({}));
    let mut again = EventStream::open(&monitor, Some(&at));
    assert_eq!(names(&again.until("rates")), [("queue.created", "b"), ("queue.created", "c"), ("rates", "")]);
    // Also rates say how far one has come.
    let at = again.last_id.clone();
    let mut third = EventStream::open(&monitor, Some(&at));
    assert_eq!(names(&third.until("rates")), [("rates", "")]);
    // More than is kept: each policy that applies is told of each queue.
    for number in 0..20 {
        http.put(&format!("/queues/%2F/many-{number}"), &json!({}));
    }
    for number in 0..230 {
        http.put("/policies/%2F/p", &json!({"pattern": "^many", "definition": {"max-length": number}}));
    }
    let mut late = EventStream::open(&monitor, Some(&at));
    let told = late.until("queue.policy.updated");
    let missed = told[0].data["count"].as_u64().unwrap();
    // 20 queues, then 20 events of queues and one of the policy, 230 times.
    assert_eq!((told[0].kind.as_str(), missed), ("missed", 20 + 230 * 21 - 4096));
}

#[test]
fn a_vhost_is_shown_as_a_graph() {
    let (broker, http) = broker();
    http.put("/users/u", &json!({"password": "p", "tags": "management"}));
    http.put("/permissions/%2F/u", &json!({"configure": "", "write": "", "read": ""}));
    http.put("/exchanges/%2F/in", &json!({"type": "topic", "arguments": {"alternate-exchange": "rest"}}));
    http.put("/exchanges/%2F/next", &json!({"type": "fanout"}));
    let arguments = json!({"x-dead-letter-exchange": "nowhere", "x-dead-letter-routing-key": "dead"});
    http.put("/queues/%2F/q", &json!({"durable": true, "arguments": arguments}));
    for key in ["a", "b"] {
        http.post("/bindings/%2F/e/in/q/q", &json!({"routing_key": key}));
    }
    http.post("/bindings/%2F/e/in/e/next", &json!({"routing_key": "a"}));
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    let text = |text: &str| Field::String(text.as_bytes().to_vec());
    for (name, fields) in
        [("channel.open", vec![]), ("basic.consume", vec![("queue", text("q")), ("consumer-tag", text("c"))])]
    {
        connection.call(1, name, &fields);
        connection.wait_for(1, &format!("{name}-ok")).unwrap();
    }
    let body = json!({"properties": {}, "routing_key": "a", "payload": "x", "payload_encoding": "string"});
    assert_eq!(http.post("/exchanges/%2F/in/publish", &body).json()["routed"], json!(true));
    let shown = http.get("/x/graph/%2F");
    let node = |id: &str| -> Value {
        let nodes = shown["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["id"] == id).cloned().unwrap_or(Value::Null)
    };
    let edges = |kind: &str| -> Vec<Value> {
        shown["edges"].as_array().unwrap().iter().filter(|edge| edge["kind"] == kind).cloned().collect()
    };
    assert_eq!((&node("exchange/in")["type"], &node("queue/q")["consumers"]), (&json!("topic"), &json!(1)));
    assert_eq!(node("exchange/in")["message_stats"]["publish_in"], 1);
    assert_eq!(node("exchange/nowhere"), Value::Null, "nobody has declared it");
    let bindings = edges("binding");
    let ends: Vec<(&str, &str)> =
        bindings.iter().map(|edge| (edge["from"].as_str().unwrap(), edge["to"].as_str().unwrap())).collect();
    assert_eq!(ends, [("exchange/in", "exchange/next"), ("exchange/in", "queue/q")]);
    assert_eq!((bindings[1]["bindings"].as_array().unwrap().len(), &bindings[1]["publish"]), (2, &json!(1)));
    assert_eq!(
        (&edges("alternate")[0]["to"], &edges("dead_letter")[0]["to"]),
        (&json!("exchange/rest"), &json!("exchange/nowhere"))
    );
    assert_eq!(edges("dead_letter")[0]["routing_key"], "dead");
    let consume = &edges("consume")[0];
    assert_eq!((&consume["from"], &consume["consumers"][0]["consumer_tag"]), (&json!("queue/q"), &json!("c")));
    assert_eq!(node(consume["to"].as_str().unwrap())["user"], "guest");
    // Who does not monitor sees what is there, and not who is connected.
    let shown = http.login("u", "p").get("/x/graph/%2F");
    assert!(shown["nodes"].as_array().unwrap().iter().all(|node| node["kind"] != "connection"), "{shown}");
}
