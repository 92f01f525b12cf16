//! Files that must not be loaded, of each kind, in brokers that can do without them: each is in the list with its sentence, and the broker serves.
//!
//! What each sentence says in full is in `refusals.rs`; here is that none depends on the kind of the plugin.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use plugin_api::abi::ABI_MAJOR;
use tests::broker_process::{BrokerOptions, binary};
use tests::http::Http;
use tests::temp::TempDir;

use crate::build;
use crate::refusals::stamp;

/// A row of the table: what is done to a good file, and a part of what is said of it.
struct Row {
    fault: &'static str,
    change: fn(&mut Vec<u8>),
    mode: u32,
    said: &'static str,
}

const ROWS: [Row; 6] = [
    Row {
        fault: "truncated",
        change: |bytes| bytes.truncate(bytes.len() / 2),
        mode: 0o755,
        said: "is cut off or damaged",
    },
    Row { fault: "writable", change: |_| (), mode: 0o757, said: "may be changed by every user (mode 0757)" },
    Row {
        fault: "architecture",
        change: |bytes| bytes[18..20].copy_from_slice(&243_u16.to_le_bytes()),
        mode: 0o755,
        said: "is built for riscv64",
    },
    Row {
        fault: "abi",
        change: |bytes| {
            let start = stamp(bytes);
            bytes[start + 20..start + 22].copy_from_slice(&(ABI_MAJOR + 1).to_ne_bytes());
        },
        mode: 0o755,
        said: "is built for plugin ABI",
    },
    Row {
        fault: "abort",
        change: |bytes| {
            let start = stamp(bytes);
            bytes[start + 24] &= !1;
        },
        mode: 0o755,
        said: "is built with panic = \"abort\"",
    },
    Row { fault: "text", change: |bytes| *bytes = b"#!/bin/sh\n".to_vec(), mode: 0o755, said: "is no shared library" },
];

/// A good file of each kind.
fn kinds() -> [(&'static str, PathBuf); 3] {
    [
        ("exchange", build::built_in("exchange-topic")),
        ("storage", build::stand_alone("tests/fixtures/faulty")),
        ("auth", build::stand_alone("tests/fixtures/auth-scripted")),
    ]
}

/// The changed copy; its name says what it is.
fn changed(kind: &str, good: &PathBuf, row: &Row) -> PathBuf {
    let mut bytes = std::fs::read(good).unwrap();
    (row.change)(&mut bytes);
    let name = format!("{kind}-{}", row.fault);
    let path = build::written(&bytes, &format!("files-{name}"), &format!("lib{name}.so"));
    build::set_mode(&path, row.mode);
    path
}

#[test]
fn bad_files_of_every_kind_are_in_the_list_of_a_broker_that_lives() {
    let folder = TempDir::new("files");
    let mut text = "plugins:\n".to_owned();
    for (kind, good) in kinds() {
        for row in &ROWS {
            let _ = writeln!(text, "- {{ path: {}, required: false }}", changed(kind, &good, row).display());
        }
    }
    // A file may have any name.
    for (kind, good) in kinds().iter().skip(1) {
        let renamed = build::copied(good, &format!("files-{kind}-renamed")).with_file_name("any.name");
        std::fs::rename(renamed.with_file_name(good.file_name().unwrap()), &renamed).unwrap();
        let _ = writeln!(text, "- {}", renamed.display());
    }
    let topology = folder.write("topology.yaml", &text);
    let broker = BrokerOptions::default().topology(topology).http().start().expect("the broker does without");
    let all = Http::new(broker.http()).get("/x/plugins");
    let all = all.as_array().unwrap();
    for (kind, _) in kinds() {
        for row in &ROWS {
            let name = format!("{kind}-{}", row.fault);
            let plugin =
                all.iter().find(|plugin| plugin["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
            assert_eq!(plugin["state"], "refused", "{name}");
            assert!(plugin["last_fault"].as_str().unwrap().contains(row.said), "{name}: {plugin}");
        }
    }
    for name in ["faulty", "auth_scripted"] {
        let plugin = all.iter().find(|plugin| plugin["name"] == name).unwrap();
        assert!(plugin["state"] == "active" && plugin["path"].as_str().unwrap().ends_with("any.name"), "{plugin}");
    }
}

#[test]
fn what_is_required_and_bad_keeps_the_broker_from_starting() {
    for ((kind, good), row) in kinds().iter().zip(&ROWS) {
        let folder = TempDir::new("files-required");
        let path = changed(kind, good, row);
        let topology = folder.write("topology.yaml", &format!("plugins: [{}]\n", path.display()));
        let error = BrokerOptions::default().topology(topology).start().expect_err("it does not start");
        assert!(error.contains(row.said), "{error}");
    }
}

/// The linker's own word for it, not a byte that a test has changed.
#[test]
fn crate_that_was_built_with_panic_abort_is_refused() {
    let path = build::with_panic_abort("tests/fixtures/faulty");
    let output = Command::new(binary().unwrap()).args(["plugin", "inspect"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(65) && said.contains("is built with panic = \"abort\""), "{said}");
}

#[test]
fn names_that_are_taken_are_refused_for_every_kind() {
    let folder = TempDir::new("files-taken");
    let faulty = build::copied(&build::stand_alone("tests/fixtures/faulty"), "files-taken-faulty");
    let again = build::copied(&build::stand_alone("tests/fixtures/auth-scripted"), "files-taken-auth");
    let other = build::copied(&again, "files-taken-auth-2");
    let entry = |path: &PathBuf, config: &str| format!("- {{ path: {}, config: {config} }}\n", path.display());
    for (entries, said) in [
        (
            entry(&faulty, "{ also: topic }"),
            "offers the exchange type 'topic', which the built-in plugin 'exchange_topic' offers",
        ),
        (entry(&faulty, "{ also: x-faulty }"), "offers the exchange type 'x-faulty', which the same plugin offers"),
        (
            entry(&faulty, "{ also: log, as: storage }"),
            "offers the storage 'log', which the built-in plugin 'storage_log' offers",
        ),
        (
            entry(&again, "{}") + &entry(&other, "{}"),
            "offers the auth backend 'scripted', which plugin 'auth_scripted'",
        ),
    ] {
        let topology = folder.write("topology.yaml", &format!("plugins:\n{entries}"));
        let error = BrokerOptions::default().topology(topology).start().expect_err("it does not start");
        assert!(error.contains(said), "{error}");
    }
}
