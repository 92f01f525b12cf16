//! The basic properties beside the headers.

use super::*;

#[test]
fn properties_are_read_and_absent_ones_are_nil() {
    let came = PropertiesBuf {
        content_type: Some(b"text/plain".to_vec()),
        headers: Some(Table::new().with("x", 1i64)),
        delivery_mode: Some(2),
        priority: Some(7),
        expiration: Some(b"60000".to_vec()),
        timestamp: Some(1_700_000_000),
        kind: Some(b"order".to_vec()),
        user_id: Some(b"alice".to_vec()),
        ..PropertiesBuf::default()
    };
    for (name, value) in [
        ("content_type", "'text/plain'"),
        ("content_encoding", "nil"),
        ("delivery_mode", "2"),
        ("priority", "7"),
        ("expiration", "'60000'"),
        ("message_id", "nil"),
        ("timestamp", "1700000000"),
        ("type", "'order'"),
        ("user_id", "'alice'"),
        ("cluster_id", "nil"),
    ] {
        let body = format!("assert(msg.{name} == {value}, tostring(msg.{name}))");
        assert_eq!(run(&body, &came), Outcome::Pass, "{name}");
    }
}

#[test]
fn properties_are_set_and_removed_beside_the_others() {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    for (body, expected) in [
        ("msg.priority = 9", PropertiesBuf { priority: Some(9), ..example() }),
        ("msg.priority = nil", PropertiesBuf { priority: None, ..example() }),
        ("msg.delivery_mode = 2", PropertiesBuf { delivery_mode: Some(2), ..example() }),
        ("msg.expiration = 5000", PropertiesBuf { expiration: text("5000"), ..example() }),
        ("msg.expiration = '0'", PropertiesBuf { expiration: text("0"), ..example() }),
        ("msg.timestamp = 5", PropertiesBuf { timestamp: Some(5), ..example() }),
        ("msg.type = 'a'; msg.type = msg.type .. 'b'", PropertiesBuf { kind: text("ab"), ..example() }),
        ("msg.content_type = nil; msg.app_id = ''", {
            PropertiesBuf { content_type: None, app_id: text(""), ..example() }
        }),
    ] {
        let expected = Outcome::Rewrite { routing_key: None, properties: Some(expected.encode()) };
        assert_eq!(run(body, &example()), expected, "{body}");
    }
    assert_eq!(run("msg.priority = 4; msg.reply_to = 'x'; msg.reply_to = nil", &example()), Outcome::Pass);
}

#[test]
fn wrong_types_and_ranges_are_refused() {
    for (body, sentence) in [
        ("msg.priority = 256", "msg.priority has to be a whole number from 0 to 255, or nil, not 256"),
        ("msg.priority = 1.5", "msg.priority has to be a whole number from 0 to 255, or nil, not 1.5"),
        ("msg.priority = '5'", "msg.priority has to be a whole number from 0 to 255, or nil, not \"5\""),
        ("msg.delivery_mode = 0", "msg.delivery_mode has to be a whole number from 1 to 2, or nil, not 0"),
        ("msg.timestamp = -1", "msg.timestamp has to be whole seconds since 1970, or nil, not -1"),
        ("msg.expiration = 'soon'", "msg.expiration has to be milliseconds, as a whole number or its decimal text"),
        ("msg.expiration = -1", "msg.expiration has to be milliseconds"),
        ("msg.content_type = 5", "msg.content_type has to be a string or nil, not 5"),
        ("msg.type = {}", "msg.type has to be a string or nil, not table"),
        ("msg.app_id = string.rep('x', 256)", "msg.app_id has at most 255 bytes, not 256"),
        ("msg.user_id = 'root'", "msg.user_id cannot be set: it names the publisher, and the broker has checked it"),
        ("msg.cluster_id = 'x'", "msg.cluster_id cannot be set: AMQP 0-9-1 reserves it"),
    ] {
        let reason = rejected(run(body, &example()));
        assert!(reason.starts_with(sentence), "{body}: {reason}");
    }
}

#[test]
fn malformed_properties_are_left_alone() {
    let folder = Folder::new();
    let chain = chain_of(&folder, "msg.priority = 5");
    for raw in [&[][..], &[0x80, 0], &[0x10]] {
        assert_eq!(chain.on_publish(&publish(raw)), Outcome::Pass, "{raw:?}");
    }
}
