//! Rules that the compiler does not check: who may import whom, what lies at the top, what no test and no file may have.

mod semantics;

use std::path::{Path, PathBuf};
use tests::broker_process::repository;

/// Every file below `folder` that is part of the repository, with its text where it is text.
fn files(folder: &str) -> Vec<(String, String)> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", folder])
        .current_dir(repository())
        .output()
        .expect("git lists the files");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|name| {
            let text = std::fs::read_to_string(repository().join(name)).ok()?;
            Some((name.to_owned(), text))
        })
        .collect()
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    files(folder).into_iter().filter(|(name, _)| name.ends_with(".rs")).collect()
}

/// Rust files that are no tests of their own.
fn source_files(folder: &str) -> Vec<(String, String)> {
    let is_test = |name: &str| name.ends_with("tests.rs") || name.contains("/tests/");
    rust_files(folder).into_iter().filter(|(name, _)| !is_test(name)).collect()
}

/// The lines of Rust code: no comments, and nothing from the first test module on.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.starts_with("//"))
}

fn check(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// A file that is a test module of the one beside it.
fn is_test_module(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file == "tests.rs" || file.starts_with("tests_")
}

fn find(files: &[(String, String)], is_broken: impl Fn(&str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| !is_test_module(name)) {
        for (number, line) in code_lines(text) {
            if is_broken(line) {
                broken.push(format!("{name}:{number}: {line}"));
            }
        }
    }
    broken
}

#[test]
fn pure_rooms_know_no_sockets_threads_clocks_or_randomness() {
    const EFFECTS: [&str; 8] =
        ["tokio", "std::net::Tcp", "std::thread", "Instant::now", "SystemTime::now", "getrandom", "async fn", ".await"];
    for room in ["amqp", "queue", "routing", "vhost", "topology"] {
        let files = source_files(&format!("broker/src/{room}"));
        assert!(!files.is_empty(), "the room {room} exists");
        check(&find(&files, |line| EFFECTS.iter().any(|effect| line.contains(effect))));
    }
}

#[test]
fn rooms_import_only_what_lies_below_them() {
    // Each room with those that it must not know.
    for (room, forbidden) in [
        ("amqp", &["queue", "routing", "vhost", "runtime", "store", "node", "cli", "config", "topology", "hooks"][..]),
        ("queue", &["amqp", "routing", "vhost", "runtime", "store", "node", "cli", "config", "topology", "hooks"][..]),
        ("routing", &["runtime", "store", "node", "cli", "config", "topology"][..]),
        ("vhost", &["runtime", "node", "cli", "config", "topology"][..]),
        ("access", &["runtime", "vhost", "queue", "routing", "node", "cli", "config"][..]),
        ("hooks", &["runtime", "vhost", "queue", "node", "cli", "config"][..]),
        ("topology", &["runtime", "node", "cli"][..]),
        ("runtime", &["node", "cli", "config"][..]),
    ] {
        let files = source_files(&format!("broker/src/{room}"));
        let is_forbidden = |line: &str| {
            forbidden
                .iter()
                .any(|other| line.contains(&format!("crate::{other}::")) || line.contains(&format!("crate::{other};")))
        };
        check(&find(&files, is_forbidden));
    }
}

#[test]
fn only_config_sees_the_yaml_crate() {
    let files: Vec<_> =
        rust_files("broker/src").into_iter().filter(|(name, _)| !name.starts_with("broker/src/config/")).collect();
    check(&find(&files, |line| line.contains("serde_yaml")));
}

#[test]
fn plugins_depend_on_the_plugin_api_alone() {
    for (name, text) in files("plugins").iter().chain(&files("examples/plugins")) {
        if !name.ends_with("Cargo.toml") {
            continue;
        }
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            }
            let is_ours = line.contains("path =") || line.contains("workspace = true") || line.contains(".workspace");
            let is_dependency = section.contains("dependencies") && line.contains('=') && is_ours;
            let known = ["broker", "exchange-", "storage-", "tests"];
            assert!(
                !(is_dependency && known.iter().any(|other| line.starts_with(other))),
                "{name}: {line}: a plugin sees the plugin API and nothing else of us"
            );
        }
    }
}

#[test]
fn top_level_holds_what_the_architecture_names() {
    const ALLOWED: [&str; 17] = [
        ".cargo",
        ".ci",
        ".clippy.toml",
        ".deny.toml",
        ".gitignore",
        ".rustfmt.toml",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "broker",
        "deny.toml",
        "examples",
        "plugin-api",
        "plugins",
        "scripts",
        "tests",
    ];
    let output = std::process::Command::new("git")
        .args(["ls-tree", "--name-only", "HEAD"])
        .current_dir(repository())
        .output()
        .expect("git lists the top level");
    for name in String::from_utf8_lossy(&output.stdout).lines() {
        assert!(ALLOWED.contains(&name), "{name} does not belong to the top level");
    }
}

#[test]
fn no_file_names_a_place_of_somebodys_machine() {
    // Put together here so that this file does not name them either.
    let places =
        [["/wo", "rk/"].concat(), ["/ho", "me/"].concat(), ["/ro", "ot/"].concat(), ["../sha", "red"].concat()];
    let mut broken = Vec::new();
    for (name, text) in files(".") {
        if name == "Cargo.lock" || name.starts_with("tests/scenarios/") {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place.as_str())) {
                broken.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    check(&broken);
}

#[test]
fn tests_are_neither_ignored_nor_sleeping() {
    let ignore = ["#[ign", "ore"].concat();
    let sleeps = [["thread::sl", "eep"].concat(), ["time::sl", "eep("].concat(), ["time.sl", "eep("].concat()];
    let mut broken = Vec::new();
    for (name, text) in files(".") {
        let is_test = name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("tests.rs");
        let mut in_tests = is_test;
        for (index, line) in text.lines().enumerate() {
            in_tests |= line.trim() == "#[cfg(test)]";
            let is_code = name.ends_with(".rs") || name.ends_with(".py");
            if is_code
                && (line.contains(&ignore) || (in_tests && sleeps.iter().any(|sleep| line.contains(sleep.as_str()))))
            {
                broken.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    check(&broken);
}

#[test]
fn every_example_is_run_by_a_test() {
    let tests: String = rust_files("tests").into_iter().map(|(_, text)| text).collect();
    for folder in folders("examples").into_iter().chain(folders("examples/plugins")) {
        let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        if name != "plugins" {
            assert!(tests.contains(&format!("{name}\"")), "no test runs the example {name}");
            assert!(folder.join("README.md").exists(), "the example {name} has no README");
        }
    }
}

#[test]
fn every_script_has_a_test_beside_it() {
    for (name, _) in files("scripts") {
        if name.ends_with(".lua") && !name.ends_with("_test.lua") && !name.ends_with(".meta.lua") {
            let test = repository().join(name.replace(".lua", "_test.lua"));
            assert!(test.exists(), "{} is missing", test.display());
        }
    }
}

#[test]
fn scenarios_say_which_rule_they_check() {
    for (name, text) in files("tests/scenarios") {
        if name.ends_with(".scenario") {
            assert!(text.starts_with("# "), "{name} does not begin with its rule");
        }
    }
}

fn folders(of: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join(of)).expect("the folder exists");
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path: &PathBuf| is_folder(path)).collect()
}

fn is_folder(path: &Path) -> bool {
    path.is_dir()
}

/// The first minor of the major whose files are kept.
const ABI_MINOR_KEPT: u16 = 2;

#[test]
fn plugin_files_of_every_past_abi_are_kept_and_loaded() {
    let tests = std::fs::read_to_string(repository().join("tests/plugins/older.rs")).expect("older.rs is there");
    for minor in ABI_MINOR_KEPT..plugin_api::abi::ABI_MINOR {
        let version = format!("{}.{minor}", plugin_api::abi::ABI_MAJOR);
        let folder = repository().join("tests/fixtures/abi").join(&version);
        let files = std::fs::read_dir(&folder).map_or(0, Iterator::count);
        assert!(files >= 2, "{} has no files: build them as its README says", folder.display());
        let name = format!("of_abi_{}", version.replace('.', "_"));
        assert!(tests.contains(&name), "no test of tests/plugins/older.rs has {name} in its name");
    }
}
