//! Who looks at the broker and changes it meanwhile: the management API, metrics, policies, vhosts, scripts.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::stop::Stop;
use crate::broker_process::signal;
use crate::http::Http;
use crate::temp::TempDir;

const POLL_EVERY: Duration = Duration::from_millis(150);
const CHANGE_EVERY: Duration = Duration::from_millis(400);
const RELOAD_EVERY: Duration = Duration::from_secs(3);

const PATHS: &[&str] = &[
    "/overview",
    "/queues",
    "/queues?page=1&page_size=10&sort=messages",
    "/connections",
    "/channels",
    "/consumers",
    "/exchanges",
    "/bindings",
    "/nodes",
    "/definitions",
    "/queues/%2F/work",
    "/health/checks/alarms",
];

/// Asks for everything that dashboards ask for.
pub fn poll(http: SocketAddr, metrics: SocketAddr, stop: &Stop) -> JoinHandle<Result<(), String>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let (http, metrics) = (Http::new(http), Http::new(metrics));
        let mut paths = PATHS.iter().cycle();
        while !stop.wait(POLL_EVERY) {
            let path = paths.next().copied().unwrap_or_default();
            let answer = http.try_send("GET", path, b"").map_err(|error| format!("GET {path}: {error}"))?;
            if answer.status != 200 {
                return Err(format!("GET {path}: {} {}", answer.status, answer.text()));
            }
            for page in ["/metrics", "/metrics/per-object"] {
                let request = format!("GET {page} HTTP/1.1\r\nhost: soak\r\nconnection: close\r\n\r\n");
                let answer = metrics.raw(request.as_bytes(), false).map_err(|error| format!("GET {page}: {error}"))?;
                if answer.status != 200 {
                    return Err(format!("GET {page}: {}", answer.status));
                }
            }
        }
        Ok(())
    })
}

/// Policies, users and vhosts come and go.
pub fn change(http: SocketAddr, stop: &Stop) -> JoinHandle<Result<(), String>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let http = Http::new(http);
        let policy = json!({"pattern": "^churn", "apply-to": "queues", "definition": {"max-length": 10}});
        let user = json!({"password": "secret", "tags": "monitoring"});
        let queue = json!({"durable": true});
        let steps: &[(&str, &str, Option<&serde_json::Value>)] = &[
            ("PUT", "/policies/%2F/soak", Some(&policy)),
            ("PUT", "/vhosts/soak", None),
            ("PUT", "/queues/soak/q", Some(&queue)),
            ("PUT", "/users/soak", Some(&user)),
            ("DELETE", "/policies/%2F/soak", None),
            ("DELETE", "/vhosts/soak", None),
            ("DELETE", "/users/soak", None),
        ];
        // All steps of a round are done, so that nothing of it stays.
        while !stop.is_raised() {
            for (method, path, body) in steps {
                let body = body.map(ToString::to_string).unwrap_or_default();
                let answer = http.try_send(method, path, body.as_bytes());
                let answer = answer.map_err(|error| format!("{method} {path}: {error}"))?;
                if !(200..300).contains(&answer.status) {
                    return Err(format!("{method} {path}: {} {}", answer.status, answer.text()));
                }
                stop.wait(CHANGE_EVERY);
            }
        }
        Ok(())
    })
}

/// Exchanges the script again and again.
pub fn reload(pid: u32, folder: &TempDir, stop: &Stop) -> JoinHandle<Result<(), String>> {
    let stop = stop.clone();
    let path = folder.path().join("hook.lua");
    std::thread::spawn(move || {
        let mut version = 0;
        while !stop.wait(RELOAD_EVERY) {
            version += 1;
            std::fs::write(&path, hook(version)).map_err(|error| format!("writing the script: {error}"))?;
            signal(pid, "HUP")?;
        }
        Ok(())
    })
}

/// The script of the first start.
pub fn write_hook(folder: &TempDir, version: u32) {
    folder.write("hook.lua", &hook(version));
}

fn hook(version: u32) -> String {
    format!("return {{ on_publish = function(msg) msg.headers['x-version'] = {version} end }}\n")
}
