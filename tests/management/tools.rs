//! What tools of other people ask for and read, each named after the tool. Their own tests are run by hand (tests/clients/README.md);
//! here stands what these showed, and for tools that cannot be run here the fields that their sources read.

use super::broker;
use serde_json::json;

/// `rabbitmqadmin bindings delete --idempotently` asks for the bindings of what may not exist.
#[test]
fn rabbitmqadmin_v2_finds_no_bindings_of_a_queue_that_does_not_exist() {
    let (_broker, http) = broker();
    for path in
        ["/queues/%2F/none/bindings", "/exchanges/%2F/none/bindings/source", "/exchanges/%2F/none/bindings/destination"]
    {
        assert_eq!(http.get(path), json!([]), "{path}");
    }
    assert_eq!(http.send("GET", "/queues/none/q/bindings", b"").status, 404, "of a vhost there is more to know");
}
