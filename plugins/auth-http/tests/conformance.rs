//! The rules that the broker relies on, through the plugin's ABI.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod server;

use plugin_api::serde_json::json;
use server::{Reply, Server};

#[test]
fn conformance() {
    let server = Server::start(|request| match request.path.as_str() {
        "/user" if request.form != "username=ada&password=lovelace" => Reply::ok("deny"),
        _ => Reply::ok("allow"),
    });
    let paths = ["user", "vhost", "resource", "topic"].map(|name| server.url(&format!("/{name}")));
    let [user, vhost, resource, topic] = paths;
    plugin_api::testing::auth_backends(&auth_http::PLUGIN)
        .config(json!({ "user_path": user, "vhost_path": vhost, "resource_path": resource, "topic_path": topic }))
        .user("ada", "lovelace")
        .run();
}
