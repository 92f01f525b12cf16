//! Who may call what: every endpoint, by every tag, in the caller's own vhost and in a foreign one.
//!
//! The table says it a second time, in words of its own, so that a slip in the broker's table shows.

use super::broker;
use serde_json::json;
use tests::http::{Answer, Http};

/// Method, path, who may. `any`: whoever has a tag of management; `vhost`: who may enter the vhost, and administrators; `nobody`: no login is asked for.
const TABLE: &str = "
GET     /overview                                                any
GET     /whoami                                                  any
GET     /version                                                 everyone
GET     /cluster-name                                            any
PUT     /cluster-name                                            admin
GET     /nodes                                                   monitor
GET     /nodes/{node}                                            monitor
GET     /nodes/{node}/memory                                     monitor
GET     /nodes/{node}/memory/relative                            monitor
GET     /vhosts                                                  any
GET     /vhosts/{v}                                              admin
PUT     /vhosts/{v}                                              admin
DELETE  /vhosts/{v}                                              admin
GET     /vhosts/{v}/permissions                                  admin
GET     /vhosts/{v}/topic-permissions                            admin
POST    /vhosts/{v}/deletion/protection                          admin
DELETE  /vhosts/{v}/deletion/protection                          admin
POST    /vhosts/{v}/start/{node}                                 admin
GET     /users                                                   admin
POST    /users/bulk-delete                                       admin
GET     /users/without-permissions                               admin
GET     /users/{u}                                               admin
PUT     /users/{u}                                               admin
DELETE  /users/{u}                                               admin
GET     /users/{u}/permissions                                   admin
GET     /users/{u}/topic-permissions                             admin
GET     /users/{u}/queues                                        any
GET     /config/effective                                        admin
GET     /permissions                                             admin
GET     /permissions/{v}/{u}                                     admin
PUT     /permissions/{v}/{u}                                     admin
DELETE  /permissions/{v}/{u}                                     admin
GET     /topic-permissions                                       admin
GET     /topic-permissions/{v}/{u}                               admin
PUT     /topic-permissions/{v}/{u}                               admin
DELETE  /topic-permissions/{v}/{u}                               admin
DELETE  /topic-permissions/{v}/{u}/{exchange}                    admin
GET     /auth/attempts/{node}                                    monitor
DELETE  /auth/attempts/{node}                                    admin
GET     /auth/attempts/{node}/source                             monitor
DELETE  /auth/attempts/{node}/source                             admin
PUT     /auth/hash_password                                      admin
GET     /auth/hash_password/{password}                           admin
GET     /auth                                                    everyone
POST    /login                                                   everyone
DELETE  /login                                                   everyone
GET     /vhost-limits                                            any
GET     /vhost-limits/{v}                                        vhost-or-monitor
PUT     /vhost-limits/{v}/{limit}                                admin
DELETE  /vhost-limits/{v}/{limit}                                admin
GET     /user-limits                                             admin
GET     /user-limits/{u}                                         monitor
PUT     /user-limits/{u}/{limit}                                 admin
DELETE  /user-limits/{u}/{limit}                                 admin
GET     /policies                                                any
GET     /policies/{v}                                            vhost
GET     /policies/{v}/{policy}                                   policy
PUT     /policies/{v}/{policy}                                   policy
DELETE  /policies/{v}/{policy}                                   policy
GET     /operator-policies                                       any
GET     /operator-policies/{v}                                   vhost
GET     /operator-policies/{v}/{policy}                          admin
PUT     /operator-policies/{v}/{policy}                          admin
DELETE  /operator-policies/{v}/{policy}                          admin
GET     /parameters                                              policymaker
GET     /parameters/{component}                                  policymaker
GET     /parameters/{component}/{v}                              policy
GET     /parameters/{component}/{v}/{parameter}                  policy
PUT     /parameters/{component}/{v}/{parameter}                  policy
DELETE  /parameters/{component}/{v}/{parameter}                  policy
GET     /global-parameters                                       policymaker
GET     /global-parameters/{parameter}                           policymaker
PUT     /global-parameters/{parameter}                           policymaker
DELETE  /global-parameters/{parameter}                           policymaker
GET     /connections                                             any
GET     /connections/{connection}                                any
DELETE  /connections/{connection}                                any
GET     /connections/username/{u}                                monitor
DELETE  /connections/username/{u}                                admin
GET     /connections/{connection}/channels                       any
GET     /vhosts/{v}/connections                                  vhost
GET     /channels                                                any
GET     /channels/{channel}                                      any
GET     /vhosts/{v}/channels                                     vhost
GET     /consumers                                               any
GET     /consumers/{v}                                           vhost
GET     /exchanges                                               any
GET     /exchanges/{v}                                           vhost
GET     /exchanges/{v}/{exchange}                                vhost
PUT     /exchanges/{v}/{exchange}                                vhost
DELETE  /exchanges/{v}/{exchange}                                vhost
GET     /exchanges/{v}/{exchange}/bindings/source                vhost
GET     /exchanges/{v}/{exchange}/bindings/destination           vhost
POST    /exchanges/{v}/{exchange}/publish                        vhost
GET     /queues                                                  any
GET     /queues/detailed                                         any
GET     /queues/{v}                                              vhost
GET     /queues/{v}/{queue}                                      vhost
PUT     /queues/{v}/{queue}                                      vhost
DELETE  /queues/{v}/{queue}                                      vhost
GET     /queues/{v}/{queue}/bindings                             vhost
DELETE  /queues/{v}/{queue}/contents                             vhost
POST    /queues/{v}/{queue}/get                                  vhost
POST    /queues/{v}/{queue}/actions                              admin
GET     /bindings                                                any
GET     /bindings/{v}                                            vhost
GET     /bindings/{v}/e/{source}/{kind}/{destination}            vhost
POST    /bindings/{v}/e/{source}/{kind}/{destination}            vhost
GET     /bindings/{v}/e/{source}/{kind}/{destination}/{props}    vhost
DELETE  /bindings/{v}/e/{source}/{kind}/{destination}/{props}    vhost
GET     /definitions                                             admin
POST    /definitions                                             admin
GET     /all-configuration                                       admin
POST    /all-configuration                                       admin
GET     /definitions/{v}                                         admin
POST    /definitions/{v}                                         admin
GET     /aliveness-test/{v}                                      vhost
GET     /healthchecks/node                                       any
GET     /healthchecks/node/{node}                                any
GET     /health/checks/alarms                                    any
GET     /health/checks/local-alarms                              any
GET     /health/checks/virtual-hosts                             any
GET     /health/checks/node-is-quorum-critical                   any
GET     /health/checks/node-is-mirror-sync-critical              any
GET     /health/checks/port-listener/{port}                      any
GET     /health/checks/protocol-listener/{protocols}             any
GET     /health/checks/certificate-expiration/{within}/{unit}    any
GET     /health/checks/is-in-service                             everyone
GET     /health/checks/ready-to-serve-clients                    everyone
GET     /health/checks/below-node-connection-limit               everyone
GET     /health/checks/reached-target-cluster-size               everyone
GET     /health/checks/metadata-store/initialized                any
GET     /health/checks/metadata-store/initialized/with-data      any
GET     /health/checks/quorum-queues-without-elected-leaders/all-vhosts                     any
GET     /health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}   any
GET     /health/checks/quorum-queues-without-elected-leaders/vhost/{v}                      any
GET     /health/checks/quorum-queues-without-elected-leaders/vhost/{v}/pattern/{pattern}    any
GET     /feature-flags                                           any
PUT     /feature-flags/{flag}/enable                             admin
GET     /deprecated-features                                     any
GET     /deprecated-features/used                                any
GET     /extensions                                              any
GET     /federation-links                                        monitor
GET     /federation-links/{v}                                    monitor
GET     /shovels                                                 monitor
GET     /shovels/{v}                                             monitor
POST    /rebalance/queues                                        admin
POST    /x/route                                                 any
GET     /x/graph/{v}                                             vhost
GET     /x/alarms                                                monitor
PUT     /x/alarms                                                admin
GET     /x/topology                                              admin
POST    /x/plan                                                  admin
POST    /x/apply                                                 admin
GET     /x/events                                                monitor
GET     /x/plugins                                               monitor
GET     /x/hooks                                                 monitor
GET     /x/hooks/{hook}/records                                  monitor
GET     /x/queues/{v}/{queue}/browse                             vhost
POST    /x/queues/{v}/{queue}/move                               vhost
";

/// Users by their one tag; each may do everything in the vhost `own`, and nothing in `foreign`.
const TAGS: [&str; 5] = ["none", "management", "policymaker", "monitoring", "administrator"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The guard lets the request through.
    Passes,
    /// 401.
    Refused,
    /// 404, as if the vhost were not there.
    Hidden,
}

fn expected(who: &str, tag: &str, is_own: bool) -> Outcome {
    let is_admin = tag == "administrator";
    let has = |tags: &[&str]| is_admin || tags.contains(&tag);
    let only = |is_permitted: bool| if is_permitted { Outcome::Passes } else { Outcome::Refused };
    let enters = |is_exempt: bool| if is_own || is_exempt { Outcome::Passes } else { Outcome::Hidden };
    if who == "everyone" {
        return Outcome::Passes;
    }
    if tag == "none" {
        return Outcome::Refused;
    }
    match who {
        "any" => Outcome::Passes,
        "vhost" => enters(is_admin),
        "vhost-or-monitor" => enters(has(&["monitoring"])),
        "policy" if has(&["policymaker"]) => enters(is_admin),
        "policy" | "policymaker" => only(has(&["policymaker"])),
        "monitor" => only(has(&["monitoring"])),
        "admin" => only(is_admin),
        other => panic!("'{other}' is not explained"),
    }
}

fn outcome(answer: &Answer) -> Outcome {
    let (error, reason) = answer.refusal();
    match answer.status {
        // A permission of AMQP is missing: the guard had nothing against it.
        401 if reason == "Access refused." || reason.starts_with("ACCESS_REFUSED") => Outcome::Passes,
        // The endpoint itself asks for credentials in its body.
        401 if error == "not_authorized" => Outcome::Passes,
        401 => Outcome::Refused,
        404 if (error.as_str(), reason.as_str()) == ("not_found", "Not Found") => Outcome::Hidden,
        _ => Outcome::Passes,
    }
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    TABLE.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("three words a line");
        (word(), word(), word())
    })
}

fn path(template: &str, vhost: &str) -> String {
    let named = [
        ("{v}", vhost),
        ("{u}", "somebody"),
        ("{node}", "broker@localhost"),
        ("{exchange}", "x"),
        ("{queue}", "q"),
        ("{source}", "x"),
        ("{kind}", "q"),
        ("{destination}", "q"),
        ("{props}", "k"),
        ("{policy}", "p"),
        ("{component}", "c"),
        ("{parameter}", "n"),
        ("{limit}", "max-queues"),
        ("{port}", "1"),
        ("{protocols}", "amqp"),
        ("{within}", "1"),
        ("{unit}", "days"),
        ("{pattern}", "x"),
        ("{flag}", "quorum_queue"),
        ("{connection}", "none"),
        ("{channel}", "none"),
        ("{password}", "secret"),
    ];
    named.iter().fold(template.to_owned(), |path, (name, value)| path.replace(name, value))
}

/// A body with which the request would do something, if it came through.
fn body(method: &str, template: &str) -> Vec<u8> {
    let everything = json!({
        "name": "n", "value": 1, "pattern": "", "definition": {"max-length": 1}, "tags": "administrator", "password": "x",
        "configure": ".*", "write": ".*", "read": ".*", "exchange": "x", "users": ["somebody"], "queues": [],
        "properties": {}, "routing_key": "k", "payload": "", "payload_encoding": "string",
        "count": 1, "ackmode": "ack_requeue_false", "encoding": "auto", "action": "sync", "vhost": "own", "to_exchange": "x",
    });
    match method {
        "POST" if template == "/login" => b"username=nobody&password=nothing".to_vec(),
        "PUT" | "POST" => everything.to_string().into_bytes(),
        _ => Vec::new(),
    }
}

fn ask(http: &Http, method: &str, template: &str, vhost: &str) -> Answer {
    let http = if template == "/login" {
        http.clone().header("content-type", "application/x-www-form-urlencoded")
    } else {
        http.clone()
    };
    // A stream would go on.
    let method = if template == "/x/events" { "HEAD" } else { method };
    http.send(method, &path(template, vhost), &body(method, template))
}

#[test]
fn every_endpoint_is_for_those_whom_the_table_names() {
    let (_broker, guest) = broker();
    for vhost in ["own", "foreign"] {
        guest.put(&format!("/vhosts/{vhost}"), &json!({}));
        guest.put(&format!("/exchanges/{vhost}/x"), &json!({}));
        guest.put(&format!("/queues/{vhost}/q"), &json!({}));
        guest.post(&format!("/bindings/{vhost}/e/x/q/q"), &json!({"routing_key": "k"}));
    }
    guest.put("/users/somebody", &json!({"tags": "", "password": "p"}));
    for tag in TAGS {
        let tags = if tag == "none" { "" } else { tag };
        guest.put(&format!("/users/{tag}"), &json!({"tags": tags, "password": "p"}));
        guest.put(&format!("/permissions/own/{tag}"), &json!({"configure": ".*", "write": ".*", "read": ".*"}));
    }
    for (vhost, count) in [("own", 2), ("foreign", 3)] {
        let body = json!({"properties": {}, "routing_key": "k", "payload": "m", "payload_encoding": "string"});
        for _ in 0..count {
            assert_eq!(guest.post(&format!("/exchanges/{vhost}/x/publish"), &body).json()["routed"], true);
        }
    }
    // What is declared, and how many messages there are and who had them.
    let state = || {
        let queues = guest.get("/queues?columns=vhost,name,messages,messages_ready,message_stats.deliver_get");
        let channels = guest.get("/channels?columns=name");
        (guest.get("/definitions"), queues, channels)
    };
    let before = state();
    let mut wrong = Vec::new();
    // Those that are to be refused come first, so that it shows when one of them has changed something.
    for is_refused in [true, false] {
        for (method, template, who) in rows() {
            for tag in TAGS {
                let user = guest.clone().login(tag, "p");
                for vhost in ["own", "foreign"] {
                    let expected = expected(who, tag, vhost == "own" || !template.contains("{v}"));
                    // Who is allowed to must not delete what the others are tried on.
                    let is_destructive =
                        tag == "administrator" && method == "DELETE" && template.starts_with("/vhosts/{v}");
                    if (expected != Outcome::Passes) != is_refused || is_destructive {
                        continue;
                    }
                    let answer = ask(&user, method, template, vhost);
                    if outcome(&answer) != expected || answer.status >= 500 && answer.status != 503 {
                        let (status, text) = (answer.status, answer.text());
                        wrong.push(format!("{tag} {method} {template} in {vhost}: {status} {text}, not {expected:?}"));
                    }
                }
            }
        }
        if is_refused {
            assert_eq!(state(), before, "a refused request has changed something");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_credentials_nothing_is_answered_that_is_not_for_everyone() {
    let (_broker, guest) = broker();
    let nobody = guest.anonymous();
    for (method, template, who) in rows() {
        let answer = ask(&nobody, method, template, "%2F");
        let asks = answer.status == 401 && answer.header("www-authenticate").is_some() && answer.body.is_empty();
        assert_eq!(asks, who != "everyone", "{method} {template}: {} {}", answer.status, answer.text());
    }
}

#[test]
fn the_table_has_every_endpoint_once() {
    let mut here: Vec<String> = rows().map(|(method, path, _)| format!("{method} {path}")).collect();
    let mut there: Vec<String> =
        broker::management::operations().map(|(method, path)| format!("{method} {path}")).collect();
    here.sort();
    there.sort();
    assert_eq!(here, there);
}
