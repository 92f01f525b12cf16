//! What packages rely on: systemd's unit and its notification, the container's files, and the variables of RabbitMQ's image.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::broker_process::{BrokerOptions, binary, repository};
use tests::http::Http;
use tests::temp::TempDir;

fn packaging() -> PathBuf {
    repository().join("broker/packaging")
}

#[test]
fn systemd_accepts_the_unit() {
    let folder = TempDir::new("unit");
    let unit = std::fs::read_to_string(packaging().join("systemd/broker.service")).expect("the unit is there");
    assert!(unit.contains("ExecStart=/usr/bin/broker "));
    assert!(unit.contains("ExecReload=/bin/kill -HUP $MAINPID"));
    // Its program is not installed here.
    let unit = unit.replace("/usr/bin/broker", binary().expect("the broker is built").to_str().expect("text"));
    let path = folder.write("broker.service", &unit);
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
    let output = output.expect("systemd-analyze runs; it is in the package systemd");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("broker.service"), "{said}");
}

#[test]
fn the_service_manager_is_told_when_the_broker_is_ready_and_when_it_stops() {
    let folder = TempDir::new("notify");
    let path = folder.path().join("socket");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let broker = BrokerOptions::default().under(vec!["env".to_owned(), variable]).start().expect("the broker starts");
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("it says something in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(told().trim_end(), "READY=1");
    assert!(broker.terminate().expect("it ends").success());
    assert_eq!(told().trim_end(), "STOPPING=1");
}

#[test]
fn the_variables_of_rabbitmqs_image_name_the_first_user_and_vhost() {
    let variables = ["RABBITMQ_DEFAULT_USER=ann", "RABBITMQ_DEFAULT_PASS=secret", "RABBITMQ_DEFAULT_VHOST=shop"];
    let under = ["env"].iter().chain(&variables).map(|word| (*word).to_owned()).collect();
    let broker = BrokerOptions::default().http().under(under).start().expect("the broker starts");
    let http = Http::new(broker.http()).login("ann", "secret");
    assert_eq!(http.get("/whoami")["tags"], serde_json::json!(["administrator"]));
    let permissions = http.get("/permissions");
    assert_eq!((&permissions[0]["vhost"], &permissions[0]["user"]), (&Value::from("shop"), &Value::from("ann")));
    assert_eq!(http.get("/vhosts").as_array().map(Vec::len), Some(1));
    assert_eq!(http.login("guest", "guest").send("GET", "/whoami", b"").status, 401);
}

#[test]
fn what_the_topology_declares_is_not_replaced_by_variables() {
    let folder = TempDir::new("defaults");
    let path = folder.write("topology.yaml", "users:\n  bob: {password: b, tags: [administrator]}\n");
    let under = vec!["env".to_owned(), "RABBITMQ_DEFAULT_USER=ann".to_owned()];
    let broker = BrokerOptions::default().http().topology(path).under(under).start().expect("the broker starts");
    broker.wait_for_log(|line| line.contains("RABBITMQ_DEFAULT_USER")).expect("it says so");
    let http = Http::new(broker.http()).login("bob", "b");
    assert_eq!(http.get("/users").as_array().map(Vec::len), Some(1));
}

#[test]
fn the_container_gets_all_it_needs_and_its_dashboard_asks_for_what_there_is() {
    let docker = packaging().join("docker");
    let read =
        |name: &str| std::fs::read_to_string(docker.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let dockerfile = read("Dockerfile");
    let ignored = read("Dockerfile.dockerignore");
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let (_, sources) = words.split_last().expect("COPY has words");
        for source in sources {
            assert!(repository().join(source).exists(), "{source} is there");
            assert!(ignored.lines().any(|kept| kept == format!("!{source}")), "{source} is part of the context");
        }
    }
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).expect("the workspace");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("it says so");
    assert!(dockerfile.contains(&format!("FROM rust:{}-", version.trim_matches('"'))));

    let broker = BrokerOptions::default().http().start().expect("the broker starts");
    let scraped = Http::new(broker.http()).raw(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", false);
    let scraped = scraped.expect("metrics are there").text();
    let known: BTreeSet<&str> = scraped.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let dashboard: Value =
        serde_json::from_str(&read("grafana/provisioning/dashboards/broker.json")).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut count = 0;
    for query in queries.filter_map(|target| target["expr"].as_str()) {
        let names = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for name in names.filter(|name| name.starts_with("rabbitmq_") || name.starts_with("broker_")) {
            assert!(known.contains(name), "{name} is no metric");
            count += 1;
        }
    }
    assert!(count > 8);
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn compose_prometheus_and_grafana_find_each_other() {
    let docker = packaging().join("docker");
    let compose = yaml(&docker.join("compose.yaml"));
    let services = compose["services"].as_object().expect("services");
    let build = &services["broker"]["build"];
    let context = docker.join(build["context"].as_str().expect("a context"));
    assert!(context.join(build["dockerfile"].as_str().expect("a file")).is_file(), "{build}");
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (source, _) = volume.split_once(':').expect("a volume has a place");
            let is_there = match source.starts_with('.') {
                true => docker.join(source).exists(),
                false => compose["volumes"].get(source).is_some(),
            };
            assert!(is_there, "{name}: {volume}");
        }
        for other in service["depends_on"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(services.contains_key(other), "{name} depends on {other}");
        }
    }
    let scraping = docker.join("prometheus.yaml");
    let checked = Command::new("promtool").args(["check", "config", "--lint-fatal"]).arg(&scraping).output();
    let checked = checked.expect("promtool is installed; `tests/run --setup` does that");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let target = yaml(&scraping)["scrape_configs"][0]["static_configs"][0]["targets"][0].clone();
    let (host, port) = target.as_str().and_then(|target| target.split_once(':')).expect("a host and a port");
    assert!(services.contains_key(host) && port == "15692", "{target}");

    let grafana = docker.join("grafana/provisioning");
    let source = yaml(&grafana.join("datasources/prometheus.yaml"))["datasources"][0].clone();
    let url = source["url"].as_str().and_then(|url| url.strip_prefix("http://")?.split(':').next()).expect("a URL");
    assert!(services.contains_key(url) && source["type"] == "prometheus", "{source}");
    let provider = yaml(&grafana.join("dashboards/broker.yaml"))["providers"][0].clone();
    let mounted = services["grafana"]["volumes"][0].as_str().expect("a volume").split(':').nth(1).expect("a place");
    let path = provider["options"]["path"].as_str().expect("a path");
    assert!(path.strip_prefix(mounted).is_some_and(|rest| grafana.join(rest.trim_matches('/')).is_dir()), "{provider}");
    let dashboard = std::fs::read_to_string(grafana.join("dashboards/broker.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("the dashboard is JSON");
    for panel in dashboard["panels"].as_array().expect("it has panels") {
        let uid = &panel["datasource"]["uid"];
        assert!(panel["targets"].is_null() || *uid == source["uid"], "{panel}");
    }
}

/// The image has the plugins that the package has, in the same place, so that one topology file is right for both.
#[test]
fn the_image_has_the_plugins_of_the_package() {
    let manifest = std::fs::read_to_string(repository().join("broker/Cargo.toml")).expect("the manifest");
    let dockerfile = std::fs::read_to_string(packaging().join("docker/Dockerfile")).expect("the image");
    let libraries =
        manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"target/release/lib")?.split_once('"'));
    let mut count = 0;
    for (library, rest) in libraries {
        let target = rest.split('"').nth(1).expect("a target");
        let name = library.trim_end_matches(".so").replace('_', "-");
        assert!(dockerfile.contains(&format!("--package {name}")), "{name} is built");
        assert!(dockerfile.contains(&format!("/src/target/release/lib{library}")), "{library} is copied");
        assert!(dockerfile.contains(&format!(" /{target}")), "{target}");
        count += 1;
    }
    assert!(count >= 3);
}

/// What `cargo deb` would put into the package is there, and the unit and the package's scripts name what the package has.
#[test]
fn the_debian_package_has_files_for_everything_that_it_lists() {
    let broker = repository().join("broker");
    let manifest = std::fs::read_to_string(broker.join("Cargo.toml")).expect("the manifest");
    let section = manifest.split("[package.metadata.deb]").nth(1).expect("the metadata of the package");
    let (assets, _) = section.split_once("assets = [").and_then(|(_, rest)| rest.split_once("\n]")).expect("assets");
    let mut targets = Vec::new();
    for line in assets.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let [source, target, mode] = words[..] else { panic!("'{line}' is no asset") };
        assert!(["644", "755"].contains(&mode), "{line}");
        targets.push(target.to_owned());
        // What is built first: its crate has to be there.
        if let Some(library) = source.strip_prefix("target/release/lib") {
            let name = library.strip_suffix(".so").expect("a library").replace('_', "-");
            let plugin = std::fs::read_to_string(repository().join("plugins").join(&name).join("Cargo.toml"));
            assert!(plugin.expect("its crate").contains("cdylib"), "{name} is a file of its own");
        } else if let Some(folder) = source.strip_suffix("/*.lua") {
            let mut files = broker.join(folder).read_dir().expect(source);
            assert!(files.any(|file| file.expect("a file").path().extension().is_some_and(|kind| kind == "lua")));
        } else if !["target/release/broker", "../target/man/*.1"].contains(&source) {
            assert!(broker.join(source).is_file(), "{source} is there");
        }
    }
    let unit = std::fs::read_to_string(packaging().join("systemd/broker.service")).expect("the unit");
    for path in ["/usr/bin/broker", "/etc/broker/topology.yaml"] {
        let (folder, _) = path[1..].rsplit_once('/').expect("a folder");
        let is_packed = targets.iter().any(|target| *target == path[1..] || *target == format!("{folder}/"));
        assert!(unit.contains(path) && is_packed, "{path}");
    }
    assert!(section.contains("conf-files = [\"/etc/broker/topology.yaml\"]"));
    let user = std::fs::read_to_string(packaging().join("systemd/broker.sysusers")).expect("the user");
    assert!(user.starts_with("u broker ") && unit.contains("\nUser=broker\n"));
    // Beside what cargo-deb adds for unit and user.
    let script = packaging().join("deb/postrm");
    let text = std::fs::read_to_string(&script).expect("a script of the package");
    assert!(text.starts_with("#!/bin/sh\nset -e\n") && text.contains("\n#DEBHELPER#\n"));
    assert!(Command::new("sh").arg("-n").arg(&script).status().expect("a shell").success());
}
