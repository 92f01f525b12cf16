//! What a list shows to whom: by every tag, of the caller's own vhost and of a foreign one, of his own connections and of others'.

use super::broker;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tests::broker_process::BrokerProcess;
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::transport::Target;
use tests::wire::Field;

/// Users by their one tag; each may do everything in the vhost `own`, and nothing in `foreign`.
const TAGS: [&str; 4] = ["management", "policymaker", "monitoring", "administrator"];

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

/// A connection with a channel and a consumer.
fn consume(broker: &BrokerProcess, user: &str, password: &str, vhost: &str) -> Connection {
    let mut connection = Connection::new(broker.target().connect().unwrap());
    let login = Login { user: user.into(), password: password.into(), ..Login::guest(vhost) };
    connection.login(&login).unwrap();
    for (name, fields) in
        [("channel.open", vec![]), ("basic.consume", vec![("queue", text("q")), ("consumer-tag", text(user))])]
    {
        connection.call(1, name, &fields);
        connection.wait_for(1, &format!("{name}-ok")).unwrap();
    }
    connection
}

/// Two vhosts with one of everything, and of each user a connection to `own`; `guest` has one to each.
fn filled() -> (BrokerProcess, Http, Vec<Connection>) {
    let (broker, guest) = broker();
    let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
    for vhost in ["own", "foreign"] {
        guest.put(&format!("/vhosts/{vhost}"), &json!({}));
        guest.put(&format!("/exchanges/{vhost}/x"), &json!({}));
        guest.put(&format!("/queues/{vhost}/q"), &json!({}));
        guest.post(&format!("/bindings/{vhost}/e/x/q/q"), &json!({"routing_key": "k"}));
        guest.put(&format!("/policies/{vhost}/p"), &json!({"pattern": "^q", "definition": {"max-length": 9}}));
        guest.put(&format!("/operator-policies/{vhost}/o"), &json!({"pattern": "^q", "definition": {"max-length": 8}}));
        guest.put(&format!("/vhost-limits/{vhost}/max-queues"), &json!({"value": 5}));
    }
    let mut connections = Vec::new();
    for tag in TAGS {
        guest.put(&format!("/users/{tag}"), &json!({"tags": tag, "password": "p"}));
        guest.put(&format!("/permissions/own/{tag}"), &everything);
        connections.push(consume(&broker, tag, "p", "own"));
    }
    for vhost in ["own", "foreign"] {
        connections.push(consume(&broker, "guest", "guest", vhost));
    }
    (broker, guest, connections)
}

/// The values of a key in a list; those of `/` are left out, which is everybody's neighbour here.
fn seen(list: &Value, key: &str) -> Vec<String> {
    let values = list.as_array().unwrap().iter().filter_map(|item| item.pointer(key)?.as_str());
    let values: BTreeSet<&str> = values.filter(|value| *value != "/").collect();
    values.into_iter().map(str::to_owned).collect()
}

#[test]
fn lists_show_what_is_in_vhosts_that_the_caller_may_enter() {
    let (_broker, guest, _connections) = filled();
    let mut wrong = Vec::new();
    for tag in TAGS {
        let user = guest.clone().login(tag, "p");
        let (is_admin, sees_all) = (tag == "administrator", matches!(tag, "administrator" | "monitoring"));
        for (path, key, is_everywhere) in [
            ("/queues", "/vhost", is_admin),
            ("/queues?page=1", "/vhost", is_admin),
            ("/queues/detailed", "/vhost", is_admin),
            ("/users/guest/queues", "/vhost", is_admin),
            ("/exchanges", "/vhost", is_admin),
            ("/bindings", "/vhost", is_admin),
            ("/policies", "/vhost", is_admin),
            ("/operator-policies", "/vhost", is_admin),
            ("/vhosts", "/name", sees_all),
            ("/vhost-limits", "/vhost", sees_all),
        ] {
            let list = user.get(path);
            let list = list.get("items").unwrap_or(&list);
            let expected = if is_everywhere { vec!["foreign", "own"] } else { vec!["own"] };
            if seen(list, key) != expected {
                wrong.push(format!("{tag} {path}: {:?}, not {expected:?}", seen(list, key)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn connections_channels_and_consumers_are_ones_own_or_all() {
    let (_broker, guest, connections) = filled();
    let mut wrong = Vec::new();
    for tag in TAGS {
        let user = guest.clone().login(tag, "p");
        let sees_all = matches!(tag, "administrator" | "monitoring");
        let everybody = || TAGS.iter().copied().chain(["guest"]).collect::<BTreeSet<_>>().into_iter().collect();
        let expected: Vec<&str> = if sees_all { everybody() } else { vec![tag] };
        for (path, key) in [
            ("/connections", "/user"),
            ("/connections?page=1", "/user"),
            ("/channels", "/user"),
            ("/consumers", "/channel_details/user"),
            ("/vhosts/own/connections", "/user"),
            ("/vhosts/own/channels", "/user"),
            ("/consumers/own", "/channel_details/user"),
        ] {
            let list = user.get(path);
            let list = list.get("items").unwrap_or(&list);
            if seen(list, key) != expected {
                wrong.push(format!("{tag} {path}: {:?}, not {expected:?}", seen(list, key)));
            }
        }
        let vhosts = seen(&user.get("/connections"), "/vhost");
        let expected = if sees_all { vec!["foreign", "own"] } else { vec!["own"] };
        assert_eq!(vhosts, expected, "{tag}");
        assert!(seen(&user.get("/vhosts/own/connections"), "/vhost").iter().all(|vhost| vhost == "own"), "{tag}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(connections.len(), guest.get("/connections").as_array().unwrap().len(), "nobody was cut meanwhile");
}

#[test]
fn totals_are_those_of_visible_vhosts() {
    let (_broker, guest, _connections) = filled();
    let of = |tag: &str| guest.clone().login(tag, "p").get("/overview");
    let counts =
        |overview: &Value| ["queues", "connections"].map(|key| overview["object_totals"][key].as_u64().unwrap());
    assert_eq!(counts(&of("management")), [1, TAGS.len() as u64 + 1], "of the vhost alone");
    assert_eq!(counts(&of("monitoring")), [2, TAGS.len() as u64 + 2]);
    let own = guest.clone().login("management", "p");
    // A vhost has samples from the first look at it on, which comes each five seconds.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let charts = loop {
        let charts = own.get("/overview?lengths_age=60&lengths_incr=5&msg_rates_age=60&msg_rates_incr=5");
        if charts["queue_totals"]["messages_details"]["samples"].as_array().is_some_and(|samples| samples.len() > 10) {
            break charts;
        }
        assert!(std::time::Instant::now() < until, "{charts}");
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    };
    assert!(charts["churn_rates"]["queue_created"].as_u64() >= Some(2), "{charts}");
}

#[test]
fn a_body_that_names_a_foreign_vhost_reaches_nothing_there() {
    let (_broker, guest, _connections) = filled();
    let question = json!({"vhost": "foreign", "exchange": "x", "routing_key": "k"});
    for tag in TAGS {
        let answer = guest.clone().login(tag, "p").post("/x/route", &question);
        // An administrator may know of it, and still has no permission to publish there.
        let expected = if tag == "administrator" { 401 } else { 404 };
        assert_eq!(answer.status, expected, "{tag}: {}", answer.text());
    }
}
