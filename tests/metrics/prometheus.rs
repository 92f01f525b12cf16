//! A Prometheus of the test's own that scrapes the broker.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests::temp::TempDir;

use crate::dashboard::queries;
use crate::traffic::Busy;
use crate::{get, wait_for};

struct Prometheus {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = TempDir::new("prometheus");
        let config = folder.write(
            "prometheus.yml",
            &format!(
                "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\n\
                 scrape_configs: [{{ job_name: rabbitmq, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
            ),
        );
        // The port is free until somebody takes it; Prometheus cannot be asked for any.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed; `tests/run --setup` does that");
        Self { process, address, _folder: folder }
    }

    /// The result of a query now; none while Prometheus is not ready.
    fn query(&self, query: &str) -> Option<Vec<Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        std::net::TcpStream::connect(self.address).ok()?;
        let answer = get(self.address, &format!("/api/v1/query?query={encoded}"));
        let json: Value = serde_json::from_slice(&answer.body).ok()?;
        assert_eq!(json["error"], Value::Null, "{query}");
        json["data"]["result"].as_array().cloned()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_query_of_the_overview_dashboard_finds_its_series() {
    let busy = Busy::start();
    let prometheus = Prometheus::start(busy.broker.metrics());
    // A rate needs two scrapes, with something that happened in between.
    let received = "rabbitmq_global_messages_received_total";
    wait_for("the first scrape", || prometheus.query(received).filter(|found| !found.is_empty()));
    wait_for("a rate above 0", || {
        busy.publish();
        let rate = prometheus.query(&format!("rate({received}[1m]) > 0"))?;
        (!rate.is_empty()).then_some(())
    });
    let cluster = prometheus.query("rabbitmq_identity_info").unwrap();
    assert_eq!(cluster.len(), 1, "one identity a scrape: {cluster:?}");
    let cluster = cluster[0]["metric"]["rabbitmq_cluster"].as_str().unwrap().to_owned();
    let queries = queries(&cluster, "1m");
    assert_eq!(queries.len(), 50, "as many as the dashboard has");
    let mut empty = Vec::new();
    for query in &queries {
        let found = prometheus.query(query).expect("Prometheus answers");
        let is_number = |series: &Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
        if found.is_empty() || !found.iter().all(is_number) {
            empty.push(query.as_str());
        }
    }
    assert!(empty.is_empty(), "without a value:\n{}", empty.join("\n"));
    let up = prometheus.query("up").unwrap();
    assert_eq!(up[0]["value"][1], "1", "the last scrape went well");
}
