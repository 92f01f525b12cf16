//! Files that must not be loaded: one sentence each, and the process lives.

use std::fs;
use std::path::Path;

use broker::plugin_host::{LoadRequest, Registry};
use plugin_api::abi::{ABI_MAJOR, ABI_MINOR, STAMP_SECTION};

use crate::build;

/// Loads a file that is refused, and compares the sentence. `PATH` and `FOLDER` stand for the file's.
fn check(path: &Path, expected: &str) {
    let mut registry = Registry::builtin().unwrap();
    let error = registry.load_file(&LoadRequest { path: path.into(), ..LoadRequest::default() }).unwrap_err();
    let folder = path.parent().unwrap().display().to_string();
    let expected = expected.replace("PATH", &path.display().to_string()).replace("FOLDER", &folder);
    assert_eq!(error.to_string(), expected);
    assert_eq!(registry.status().len(), 11, "nothing of it is added");
}

/// A good plugin with its bytes changed.
fn changed(test: &str, change: impl FnOnce(&mut Vec<u8>)) -> std::path::PathBuf {
    let mut bytes = fs::read(build::built_in("exchange-topic")).unwrap();
    change(&mut bytes);
    build::written(&bytes, test, "libchanged.so")
}

/// Where the stamp begins in a file.
pub(crate) fn stamp(bytes: &[u8]) -> usize {
    let magic = b"\x7fBROKER PLUGIN\r\n";
    let starts: Vec<usize> = (0..bytes.len() - 128).filter(|index| bytes[*index..].starts_with(magic)).collect();
    // The magic also stands where the crate compares with it; in the stamp its own size follows.
    *starts.iter().find(|start| bytes[**start + 16..**start + 20] == 128_u32.to_ne_bytes()).unwrap()
}

#[test]
fn good_file_is_taken() {
    let path = changed("good", |_| ());
    let loaded = Registry::empty().load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    assert_eq!(loaded.exchange_types, ["topic"]);
}

#[test]
fn missing_file() {
    let path = build::empty_folder("missing").join("libgone.so");
    check(
        &path,
        "no plugin at 'PATH': build it with `cargo build --release` in its folder and give the path of the .so file below \
         target/release",
    );
}

#[test]
fn folder_in_place_of_a_file() {
    let path = build::empty_folder("a-folder");
    check(&path, "'PATH' is no file: name the plugin's file itself, or give a folder of plugins with --plugin-dir");
}

#[test]
fn text_file() {
    let path = build::written(b"#!/bin/sh\necho hello\n", "text", "libtext.so");
    check(
        &path,
        "'PATH' is no shared library, but text that begins with \"#!/bin/sh\": give the path of the .so file that `cargo \
         build --release` makes below target/release",
    );
}

#[test]
fn empty_and_strange_files() {
    let ending = "give the path of the .so file that `cargo build --release` makes below target/release";
    let path = build::written(b"", "empty", "libempty.so");
    check(&path, &format!("'PATH' is no shared library, it is empty: {ending}"));
    let path = build::written(b"PK\x03\x04\x00\x00\x00\x00\x00\x00", "zip", "libzip.so");
    check(&path, &format!("'PATH' is no shared library, it begins with the bytes 504b030400000000: {ending}"));
    let path = build::written(b"!<arch>\n/ 0 0 0 0", "static", "libstatic.rlib");
    let what = "but a static one (set `crate-type = [\"cdylib\"]` in its Cargo.toml)";
    check(&path, &format!("'PATH' is no shared library, {what}: {ending}"));
}

#[test]
fn file_cut_off_anywhere() {
    let whole = fs::read(build::built_in("exchange-direct")).unwrap();
    for length in [4, 10, 63, 64, 1000, 5000, whole.len() / 2, whole.len() - 1] {
        let path = build::written(&whole[..length], "cut", "libcut.so");
        let error = Registry::empty().load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("is cut off or damaged"), "{length} bytes: {text}");
        assert!(text.ends_with("copy it again, with `install -m 755` rather than over a file in use"), "{text}");
    }
}

#[test]
fn inspection_survives_damage_anywhere() {
    // The headers at the start and the section table at the end; what a section holds is not looked at.
    let whole = fs::read(build::built_in("exchange-direct")).unwrap();
    let mut random = plugin_api::testing::Random::new(17);
    let length = u32::try_from(whole.len()).unwrap();
    for _ in 0..100 {
        let mut bytes = whole.clone();
        let headers = random.below(2) == 0;
        let place = if headers { random.below(64) } else { length - 1 - random.below(3000) };
        bytes[place as usize] ^= 1 << random.below(8);
        let path = build::written(&bytes, "damaged", "libdamaged.so");
        drop(broker::plugin_host::inspect::inspect(&path, None));
    }
}

#[test]
fn world_writable_file() {
    let path = changed("writable-file", |_| ());
    build::set_mode(&path, 0o757);
    check(&path, "plugin 'PATH' may be changed by every user (mode 0757): run `chmod o-w 'PATH'`");
}

#[test]
fn world_writable_folder() {
    let path = changed("writable-folder", |_| ());
    build::set_mode(path.parent().unwrap(), 0o777);
    check(
        &path,
        "plugin 'PATH' is in a folder that every user may change (mode 0777): run `chmod o-w 'FOLDER'`, or move it to a \
         folder of its own",
    );
    // A link from a good folder does not help.
    let link = build::empty_folder("writable-link").join("liblink.so");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = Registry::empty().load_file(&LoadRequest { path: link, ..LoadRequest::default() }).unwrap_err();
    assert!(error.to_string().contains("is in a folder that every user may change"), "{error}");
}

#[test]
fn other_architecture() {
    let path = changed("architecture", |bytes| bytes[18..20].copy_from_slice(&243_u16.to_le_bytes()));
    let arch = std::env::consts::ARCH;
    check(
        &path,
        &format!(
            "plugin 'PATH' is built for riscv64 (Elf), but this broker runs on {arch}: build it there, or with `cargo build \
             --release --target {arch}-…`"
        ),
    );
}

#[test]
fn library_that_is_no_plugin() {
    let path = changed("no-plugin", |bytes| {
        let name = STAMP_SECTION.as_bytes();
        while let Some(start) = bytes.windows(name.len()).position(|window| window == name) {
            bytes[start] = b'_';
        }
    });
    check(
        &path,
        "'PATH' is a shared library, but no plugin: put `plugin_api::export_plugin!(…);` into its src/lib.rs and run `cargo \
         build --release` again",
    );
}

#[test]
fn other_abi() {
    let stamped = |major: u16, minor: u16| {
        changed(&format!("abi-{major}-{minor}"), |bytes| {
            let start = stamp(bytes);
            bytes[start + 20..start + 22].copy_from_slice(&major.to_ne_bytes());
            bytes[start + 22..start + 24].copy_from_slice(&minor.to_ne_bytes());
        })
    };
    let newer = "update the broker, or build the plugin with the plugin-api of this broker";
    let older = "set plugin-api in its Cargo.toml to the one of this broker and run `cargo build --release` again";
    for (major, minor, remedy) in
        [(ABI_MAJOR + 1, 0, newer), (ABI_MAJOR, ABI_MINOR + 1, newer), (ABI_MAJOR - 1, 7, older)]
    {
        check(
            &stamped(major, minor),
            &format!(
                "plugin 'PATH' (exchange_topic 0.1.0) is built for plugin ABI {major}.{minor}, but this broker has \
                 {ABI_MAJOR}.{ABI_MINOR}: {remedy}"
            ),
        );
    }
}

#[test]
fn plugin_that_would_abort() {
    let path = changed("abort", |bytes| {
        let start = stamp(bytes);
        bytes[start + 24] &= !1;
    });
    check(
        &path,
        "plugin 'PATH' is built with panic = \"abort\", so that a panic in it would end the broker: remove that line from the \
         profile in its Cargo.toml and run `cargo build --release` again",
    );
}

#[test]
fn damaged_stamp() {
    let path = changed("stamp", |bytes| {
        let start = stamp(bytes);
        bytes[start + 32] = b'\n';
    });
    check(
        &path,
        "plugin 'PATH' is cut off or damaged (the plugin stamp is damaged): copy it again, with `install -m 755` rather than \
         over a file in use",
    );
}

#[test]
fn other_digest_than_was_pinned() {
    let path = build::copied(&build::built_in("exchange-fanout"), "digest");
    let zeros = "0".repeat(64);
    let request =
        |sha256: &str| LoadRequest { path: path.clone(), sha256: Some(sha256.into()), ..LoadRequest::default() };
    let error = Registry::empty().load_file(&request(&zeros)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("but {zeros} is expected: put the right file there")), "{text}");
    let right = text.split("has sha256 ").nth(1).unwrap().split(',').next().unwrap().to_uppercase();
    let mut registry = Registry::empty();
    registry.load_file(&request(&right)).unwrap();
    assert_eq!(registry.status().pop().unwrap().sha256, Some(right.to_lowercase()));
}
