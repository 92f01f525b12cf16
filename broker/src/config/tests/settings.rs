//! Policies, limits, topic permissions and definitions.

use serde_json::json;

use super::*;
use crate::topology::schema::{Defaults, DefinitionsDecl, TopicPermissionDecl, UserLimitsDecl};
use crate::vhost::policy::{ApplyTo, PolicyKind, QueueType};
use crate::vhost::settings::VhostLimits;

#[test]
fn a_vhost_has_policies_limits_and_a_description() {
    let topology = good(
        "vhosts:\n\
         \x20 /:\n\
         \x20   description: orders and more\n\
         \x20   tags: [a, b]\n\
         \x20   default_queue_type: quorum\n\
         \x20   limits: { max_connections: 10, max_queues: -1 }\n\
         \x20   policies:\n\
         \x20     p: { pattern: \"^q\", apply_to: classic_queues, priority: -2, definition: { max-length: 5, overflow: drop-head } }\n\
         \x20     rest: { pattern: .*, definition: { dead-letter-exchange: \"\" } }\n\
         \x20   operator_policies:\n\
         \x20     - { name: p, pattern: \"\", definition: { expires: 1000 } }\n",
    );
    let vhost = &topology.vhosts[0];
    let metadata = vhost.metadata.as_ref().unwrap();
    assert_eq!(
        (metadata.description.as_str(), metadata.default_queue_type),
        ("orders and more", Some(QueueType::Quorum))
    );
    assert_eq!(metadata.tags, ["a", "b"]);
    assert_eq!(vhost.limits, Some(VhostLimits { max_connections: Some(10), max_queues: Some(-1) }));
    let (kind, policy) = &vhost.policies[0];
    assert_eq!((*kind, policy.name.as_str(), policy.pattern.as_str()), (PolicyKind::User, "p", "^q"));
    assert_eq!((policy.apply_to, policy.priority), (ApplyTo::ClassicQueues, -2));
    assert_eq!(serde_json::Value::Object(policy.definition.clone()), json!({"max-length": 5, "overflow": "drop-head"}));
    let kinds: Vec<PolicyKind> = vhost.policies.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [PolicyKind::User, PolicyKind::User, PolicyKind::Operator]);
    let plain = good("vhosts: { /: {} }");
    assert_eq!((&plain.vhosts[0].metadata, plain.vhosts[0].limits), (&None, None), "nothing is said of them");
}

/// One mistake in one line of text, at the place that `»` marks.
#[track_caller]
fn check_mistake(marked: &str, cause: &str) {
    let column = marked.chars().position(|char| char == '»').expect("the place is marked") + 1;
    check_errors(&marked.replace('»', ""), &[&format!("1:{column}: {cause}")]);
}

#[test]
fn mistakes_in_policies_have_their_place() {
    let policy = |text: &str| format!("vhosts: {{ /: {{ policies: {{ p: {text} }} }} }}");
    let check = |text: &str, cause: &str| check_mistake(&policy(text), cause);
    check_mistake("vhosts: { /: { policies: { »p: ~ } } }", "policy 'p' says nothing");
    check_mistake("vhosts: { /: { policies: { »p: { pattern: a } } } }", "policy 'p' has no definition");
    check_mistake("vhosts: { /: { policies: { »p: { definition: { expires: 1 } } } } }", "policy 'p' has no pattern");
    check(
        "{ pattern: »(, definition: { expires: 1 } }",
        "policy 'p': pattern should be regular expression but is invalid: Parsing error at position 1: Opening parenthesis without closing parenthesis",
    );
    check("{ pattern: a, definition: »{} }", "policy 'p': no policy provided");
    check("{ pattern: a, definition: { expires: »0 } }", "policy 'p': 0 is not a valid queue expiry");
    check(
        "{ pattern: a, definition: { max-lenght: »5 } }",
        "policy 'p': [{<<\"max-lenght\">>,5}] are not recognised policy settings",
    );
    check("{ pattern: a, priority: »high, definition: { expires: 1 } }", "expected a whole number, found 'high'");
    check("{ pattern: a, apply_to: »queue, definition: { expires: 1 } }", "'queue' is not known here");
    check("{ pattern: a, »apply-to: queues, definition: { expires: 1 } }", "unknown key 'apply-to' in a policy");
    check_mistake(
        "vhosts: { /: { operator_policies: { p: { pattern: a, definition: { dead-letter-exchange: »x } } } } }",
        "operator policy 'p': [{<<\"dead-letter-exchange\">>,<<\"x\">>}] are not recognised policy settings",
    );
    let one = "pattern: a, definition: { expires: 1 }";
    check_mistake(
        &format!("vhosts: {{ /: {{ policies: [{{ name: p, {one} }}, {{ name: »p, {one} }}] }} }}"),
        "policy 'p' is declared twice",
    );
    check_mistake("vhosts: { /: { limits: { max_queues: »many } } }", "expected a whole number, found 'many'");
    check_mistake("vhosts: { /: { limits: { »max-queues: 1 } } }", "unknown key 'max-queues' in the limits of a vhost");
    check_mistake(
        "vhosts: { /: { default_queue_type: »stream } }",
        "queues of type stream are not supported by this version",
    );
    check_mistake("»policies: {}", "unknown key 'policies' in the file");
    let warned = "'queue-mode' of policy 'p' has no effect here";
    check_warnings(&policy("{ pattern: a, definition: { queue-mode: lazy } }"), &[warned]);
}

#[test]
fn a_user_has_topic_permissions_and_limits() {
    let topology = good(
        "users:\n\
         \x20 app:\n\
         \x20   password: x\n\
         \x20   limits: { max_connections: 3, max_channels: 0 }\n\
         \x20   topic_permissions: { /: { amq.topic: { write: '^{username}\\.', read: .* }, other: { write: a } } }\n",
    );
    let user = &topology.users[0];
    assert_eq!(user.limits, UserLimitsDecl { max_connections: Some(3), max_channels: Some(0) });
    let decl = |exchange: &str, write: &str, read: &str| TopicPermissionDecl {
        vhost: "/".into(),
        exchange: exchange.into(),
        write: write.into(),
        read: read.into(),
    };
    assert_eq!(user.topic_permissions, [decl("amq.topic", "^{username}\\.", ".*"), decl("other", "a", "")]);
    let check = |permissions: &str, cause: &str| {
        check_mistake(&format!("users: {{ a: {{ password: x, topic_permissions: {permissions} }} }}"), cause);
    };
    check(
        "{ /: { x: { write: »( } } }",
        "not a regular expression: Parsing error at position 1: Opening parenthesis without closing parenthesis",
    );
    check("{ »v: { x: { write: a } } }", "vhost 'v' is not declared");
    check("{ /: { x: { »configure: a } } }", "unknown key 'configure' in topic permissions");
    check("{ /: »x }", "expected a mapping from exchanges to patterns, found 'x'");
}

#[test]
fn definitions_are_a_path_or_a_mapping() {
    let folder = tests_folder("definitions");
    let path = folder.join("definitions.json");
    std::fs::write(&path, "{}").unwrap();
    let decl = |skip_if_unchanged| Some(DefinitionsDecl { path: path.clone(), skip_if_unchanged });
    let shown = path.display();
    assert_eq!(good(&format!("definitions: {shown}")).definitions, decl(false));
    assert_eq!(good(&format!("definitions: {{ path: {shown}, skip_if_unchanged: true }}")).definitions, decl(true));
    check_errors("definitions: nowhere.json", &["1:14: no definitions ./nowhere.json"]);
    check_errors("definitions: { skip_if_unchanged: true }", &["1:14: definitions need a path"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_a_file_leaves_out_is_known_to_be_a_default() {
    let check = |text: &str, users, vhosts| assert_eq!(good(text).defaults, Defaults { users, vhosts }, "{text}");
    check("limits: {}", true, true);
    check("vhosts: { /: {} }", true, false);
    check("users: {}", false, true);
}

#[test]
fn metrics_are_served_to_this_machine_unless_the_file_says_otherwise() {
    let metrics = |text: &str| good(text).metrics;
    let listen = |text: &str| metrics(text).listen.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(listen("vhosts: { /: {} }"), ["127.0.0.1:15692"]);
    assert_eq!(listen("metrics: { listen: [\"127.0.0.1:9\", 10.0.0.1] }"), ["127.0.0.1:9", "10.0.0.1:15692"]);
    assert_eq!((listen("metrics: off"), listen("metrics: { listen: off }")), (vec![], vec![]));
    assert!(metrics("metrics: { per_object: true }").per_object && !metrics("metrics: {}").per_object);
}
