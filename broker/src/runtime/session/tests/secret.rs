//! connection.update-secret when the user may do less than before (semantics 4.12).

use super::*;
use crate::topology::schema::PermissionDecl;

fn update(client: &mut Client) {
    client.send(0, ConnectionUpdateSecret { new_secret: b"anything", reason: "renewed" });
}

fn may_read(broker: &Broker, read: &str) {
    let all = || ".*".to_owned();
    let decl = PermissionDecl { vhost: "/".to_owned(), configure: all(), write: all(), read: read.to_owned() };
    broker.access.set_permission("guest", &decl).expect("guest is there");
}

#[test]
fn consumers_that_may_not_read_any_more_are_cancelled() {
    let broker = broker();
    let mut client = Client::new(&broker);
    for queue in ["mine", "theirs"] {
        client.declare(queue);
        client.consume(queue, queue);
    }
    client.publish("theirs", b"1");
    client.told();
    may_read(&broker, "^mine");
    assert!(client.told().is_empty(), "a consumer is judged when it begins");
    update(&mut client);
    assert_eq!(client.told(), ["0 connection.update-secret-ok", "1 basic.cancel"]);
    client.publish("theirs", b"2");
    client.publish("mine", b"3");
    assert_eq!(client.told(), ["mine 2"]);
    client.send(1, BasicAck { delivery_tag: 1, multiple: false });
    assert!(client.told().is_empty(), "what it had it may settle");
}

#[test]
fn a_cancel_of_ours_crosses_one_of_the_clients() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.consume("q", "tag");
    client.told();
    may_read(&broker, "^$");
    let mut frames = Vec::new();
    frame::write_method(&mut frames, 0, ConnectionUpdateSecret { new_secret: b"", reason: "" });
    frame::write_method(&mut frames, 1, BasicCancel { consumer_tag: "tag", nowait: false });
    client.bytes(&frames);
    assert_eq!(client.told(), ["0 connection.update-secret-ok", "1 basic.cancel", "1 basic.cancel-ok"]);
}

#[test]
fn a_user_who_may_not_enter_the_vhost_any_more_is_refused() {
    let broker = broker();
    let mut client = Client::new(&broker);
    broker.access.remove_permission("guest", "/").expect("guest is there");
    update(&mut client);
    assert_eq!(client.told(), ["closed NOT_ALLOWED - access to vhost '/' refused for user 'guest'"]);
}
