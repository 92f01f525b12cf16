//! `broker plugin …`: a crate from the command is a plugin as it stands, and files are described without running them.

use std::path::Path;
use std::process::{Command, Output};

use broker::plugin_host::{LoadRequest, Registry};
use tests::broker_process::{BrokerOptions, binary};
use tests::temp::TempDir;

use crate::build;

fn plugin(arguments: &[&str]) -> Output {
    Command::new(binary().unwrap()).arg("plugin").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a crate, runs its tests and builds it; returns its library.
fn made(folder: &TempDir, kind: &str, name: &str) -> std::path::PathBuf {
    let api = build::repository().join("plugin-api");
    let (into, api) = (folder.path().to_str().unwrap(), api.to_str().unwrap());
    let output = plugin(&["new", name, "--kind", kind, "--path", into, "--plugin-api", api]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cargo build --release"), "{}", text(&output.stdout));
    // Without the registry: what a plugin needs is what the broker's own are built from.
    std::fs::copy(build::repository().join("Cargo.lock"), folder.path().join(name).join("Cargo.lock")).unwrap();
    build::tested(&folder.path().join(name), name)
}

fn load(path: &Path) -> Registry {
    let mut registry = Registry::builtin().unwrap();
    registry.load_file(&LoadRequest { path: path.to_owned(), ..LoadRequest::default() }).unwrap();
    registry
}

#[test]
fn exchange_from_the_kit_builds_conforms_and_loads() {
    let folder = TempDir::new("kit-exchange");
    let library = made(&folder, "exchange", "exchange-weather");
    assert!(load(&library).exchange_type("x-weather").is_some());

    // No name but that of the file is in the way of being loaded under another one.
    let renamed = build::copied(&library, "kit-renamed").with_file_name("anything");
    std::fs::rename(renamed.with_file_name(library.file_name().unwrap()), &renamed).unwrap();
    assert!(load(&renamed).exchange_type("x-weather").is_some());

    let output = plugin(&["inspect", library.to_str().unwrap()]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for line in ["name     exchange_weather\n", "version  0.1.0\n", "offers   exchange types\n", "sha256   "] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(!shown.contains("x-weather"), "that would need its code to run");
    let output = plugin(&["inspect", "--load", library.to_str().unwrap()]);
    assert!(text(&output.stdout).contains("exchange type  x-weather\n"), "{}", text(&output.stdout));
}

#[test]
fn auth_backend_from_the_kit_builds_conforms_and_lets_somebody_in() {
    let folder = TempDir::new("kit-auth");
    let library = made(&folder, "auth", "auth-register");
    let example = std::fs::read_to_string(folder.path().join("auth-register/example.yaml")).unwrap();
    let example = example.replace("target/release/libauth_register.so", library.to_str().unwrap());
    let topology = folder.write("topology.yaml", &example);
    let broker = BrokerOptions::default().topology(&topology).http().start().expect("the example starts");
    let user = tests::http::Http::new(broker.http()).login("ada", "lovelace").get("/whoami");
    assert_eq!(user["name"], "ada");

    let url = format!("http://{}", broker.http());
    let listed = plugin(&["list", "--url", &url, "--user", "guest", "--password", "guest"]);
    let shown = text(&listed.stdout);
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    let line = shown.lines().find(|line| line.contains("auth_register")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains("active") && line.contains("register"), "{line}");
    let listed = plugin(&["list", "--topology", topology.to_str().unwrap()]);
    let shown = text(&listed.stdout);
    assert!(shown.contains("auth_register") && shown.contains("loadable") && shown.contains("built in"), "{shown}");
}

#[test]
fn storage_from_the_kit_builds_conforms_and_loads() {
    let folder = TempDir::new("kit-storage");
    let library = made(&folder, "storage", "storage-shoebox");
    let registry = load(&library);
    assert!(registry.storage("shoebox", &serde_json::Value::Null, None).is_ok());
}

#[test]
fn bad_names_and_files_end_in_a_sentence() {
    let folder = TempDir::new("kit-bad");
    let path = folder.path().to_str().unwrap();
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let output = plugin(arguments);
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(shown.contains(expected), "{shown}");
    };
    check(&["new", "Bad Name", "--kind", "auth", "--path", path], 64, "is no name for a plugin");
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    check(&["new", "taken", "--kind", "auth", "--path", path], 64, "is there already");
    check(&["new", "x", "--kind", "auth", "--path", path, "--plugin-api", path], 64, "is not the folder of plugin-api");
    check(&["inspect", "/no/such/file.so"], 66, "no plugin at '/no/such/file.so'");
    let text_file = folder.write("text.so", "#!/bin/sh\n");
    build::set_mode(&text_file, 0o644);
    build::set_mode(folder.path(), 0o755);
    check(&["inspect", text_file.to_str().unwrap()], 65, "is no shared library");
}
