//! What a hook counts, and its histogram.

use serde_json::json;
use tests::broker_process::BrokerOptions;
use tests::http::Http;
use tests::temp::TempDir;

use super::get;
use super::page::Page;

#[test]
fn hooks_have_counters_and_a_histogram_for_each_stage() {
    let folder = TempDir::new("metrics-hooks");
    folder.write(
        "hook.lua",
        "return {
            on_publish = function(msg) if msg.routing_key == 'bad' then broker.reject('bad') end end,
            on_declare = function() end,
        }",
    );
    let topology = folder.write("topology.yaml", "{hooks: [hook.lua], vhosts: {/: {queues: [q]}}}");
    let broker = BrokerOptions::default().http().metrics().topology(topology).start().expect("the broker starts");
    let http = Http::new(broker.http());
    for key in ["q", "bad", "q"] {
        let message = json!({"routing_key": key, "payload": "x", "payload_encoding": "string", "properties": {}});
        http.post("/exchanges/%2F/amq.default/publish", &message);
    }
    http.put("/queues/%2F/other", &json!({}));
    let page = Page::parse(&get(broker.metrics(), "/metrics").text());
    assert_eq!(page.types.get("broker_hook_duration_seconds").map(String::as_str), Some("histogram"));
    let calls = |stage, result| {
        page.value_of("broker_hook_calls_total", &[("hook", "hook"), ("stage", stage), ("result", result)])
    };
    assert_eq!([calls("publish", "passed"), calls("publish", "rejected"), calls("declare", "passed")], [2.0, 1.0, 1.0]);
    // One call in sixteen is timed, the first among them.
    let buckets: Vec<f64> = ["1e-07", "0.05", "+Inf"]
        .map(|bound| {
            let labels = [("hook", "hook"), ("stage", "publish"), ("le", bound)];
            page.value_of("broker_hook_duration_seconds_bucket", &labels)
        })
        .into();
    assert!(buckets[0] <= buckets[1] && buckets[1] <= buckets[2] && buckets[2] >= 1.0, "{buckets:?}");
    let labels = [("hook", "hook"), ("stage", "publish")];
    assert_eq!(page.value_of("broker_hook_duration_seconds_count", &labels), buckets[2]);
    assert_eq!(page.value_of("broker_hook_reloads_total", &[("result", "replaced")]), 0.0);
}
