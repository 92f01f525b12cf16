//! Builds plugins and puts copies of them where a test wants them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// The plugins that are part of the binary, as crates.
pub(crate) const BUILT_IN: [&str; 9] = [
    "exchange-direct",
    "exchange-fanout",
    "exchange-topic",
    "exchange-headers",
    "exchange-consistent-hash",
    "exchange-delayed-message",
    "exchange-modulus-hash",
    "exchange-random",
    "exchange-recent-history",
];

/// The storages that are part of the binary, as crates.
pub(crate) const STORAGES: [&str; 2] = ["storage-memory", "storage-log"];

/// The storages that come as files alone, as crates.
pub(crate) const FILE_STORAGES: [&str; 1] = ["storage-sqlite"];

/// The auth backends, which come as files alone, as crates.
pub(crate) const AUTH_BACKENDS: [&str; 2] = ["auth-http", "auth-jwt"];

/// Builds the plugins of the workspace that are part of the binary as files, and says where the one of this crate is.
pub(crate) fn built_in(name: &str) -> PathBuf {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let packages = BUILT_IN.iter().chain(&STORAGES).flat_map(|name| ["-p", name]);
        cargo(&repository(), packages.collect::<Vec<_>>().as_slice());
    });
    library(name)
}

/// Builds the plugins of the workspace that come as files alone, and says where the one of this crate is.
pub(crate) fn file_only(name: &str) -> PathBuf {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let packages = FILE_STORAGES.iter().chain(&AUTH_BACKENDS).flat_map(|name| ["-p", name]);
        cargo(&repository(), packages.collect::<Vec<_>>().as_slice());
    });
    library(name)
}

/// Builds a plugin that stands alone, by its folder in the repository.
pub(crate) fn stand_alone(folder: &str) -> PathBuf {
    let folder = repository().join(folder);
    cargo(&folder, &[]);
    library(folder.file_name().unwrap().to_str().unwrap())
}

/// The same, by the compiler alone and with `panic = "abort"`: what it depends on is as [`stand_alone`] has built it, so that this takes a moment.
pub(crate) fn with_panic_abort(folder: &str) -> PathBuf {
    let folder = repository().join(folder);
    let output = cargo_command(&folder, "build", &["--message-format", "json"]).output().unwrap();
    let artifacts = String::from_utf8(output.stdout).unwrap();
    let artifacts = artifacts.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut api = artifacts.filter(|artifact| artifact["target"]["name"] == "plugin_api");
    let api = api.find_map(|artifact| Some(PathBuf::from(artifact["filenames"][0].as_str()?))).expect("it is built");
    let name = folder.file_name().unwrap().to_str().unwrap();
    let path = empty_folder("panic-abort").join("libaborting.so");
    let mut command = Command::new("rustc");
    command.args(["--crate-type", "cdylib", "--edition", "2024", "-C", "panic=abort", "--crate-name", name]);
    command.arg("--extern").arg(format!("plugin_api={}", api.display())).arg("-L").arg(target().join("debug/deps"));
    command.arg("-o").arg(&path).arg(folder.join("src/lib.rs"));
    command.env("CARGO_CRATE_NAME", name).env("CARGO_PKG_VERSION", "0.3.0");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    path
}

/// Copies `source` into an empty folder of the test `test`, readable by all and writable by the owner.
pub(crate) fn copied(source: &Path, test: &str) -> PathBuf {
    let bytes = fs::read(source).unwrap();
    written(&bytes, test, source.file_name().unwrap().to_str().unwrap())
}

/// Writes a file into an empty folder of the test `test`.
pub(crate) fn written(bytes: &[u8], test: &str, name: &str) -> PathBuf {
    let folder = empty_folder(test);
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    set_mode(&path, 0o755);
    path
}

pub(crate) fn empty_folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-copies").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    set_mode(&folder, 0o755);
    folder
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A target folder of its own, since the test run itself may hold the lock of the other.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins")
}

fn library(name: &str) -> PathBuf {
    let name = format!("{}{}{}", std::env::consts::DLL_PREFIX, name.replace('-', "_"), std::env::consts::DLL_SUFFIX);
    target().join("debug").join(name)
}

fn cargo(folder: &Path, arguments: &[&str]) {
    run(folder, "build", arguments);
}

fn run(folder: &Path, what: &str, arguments: &[&str]) {
    let mut command = cargo_command(folder, what, arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn cargo_command(folder: &Path, what: &str, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg(what).args(arguments).arg("--target-dir").arg(target()).current_dir(folder);
    // Small files: each inspection reads all of one.
    command.env("CARGO_PROFILE_DEV_STRIP", "debuginfo");
    command
}

/// Runs the tests of a crate that stands alone, builds it, and says where its library is.
pub(crate) fn tested(folder: &Path, name: &str) -> PathBuf {
    run(folder, "test", &["--offline"]);
    run(folder, "build", &["--offline"]);
    library(name)
}
