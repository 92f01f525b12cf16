//! Why a plugin was not loaded: one sentence each, with what mends it.

use std::path::{Path, PathBuf};

use plugin_api::abi::{ABI_MAJOR, ABI_MINOR, StampInfo};

/// A plugin or a storage that cannot be used. Displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "no plugin at '{}': build it with `cargo build --release` in its folder and give the path of the .so file below \
         target/release", .path.display()
    )]
    Missing { path: PathBuf },
    #[error("plugin '{}' cannot be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error(
        "'{}' is no file: name the plugin's file itself, or give a folder of plugins with --plugin-dir", .path.display()
    )]
    NotAFile { path: PathBuf },
    #[error("plugin '{}' may be changed by every user (mode {mode:04o}): run `chmod o-w '{}'`", .path.display(), .path.display())]
    WorldWritableFile { path: PathBuf, mode: u32 },
    #[error(
        "plugin '{}' is in a folder that every user may change (mode {mode:04o}): run `chmod o-w '{}'`, or move it to a \
         folder of its own", .path.display(), .folder.display()
    )]
    WorldWritableFolder { path: PathBuf, folder: PathBuf, mode: u32 },
    #[error("plugin '{}' is larger than {limit} bytes: run `strip '{}'`", .path.display(), .path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error(
        "plugin '{}' has sha256 {found}, but {expected} is expected: put the right file there, or if this one is right, \
         correct the `sha256` in the topology file", .path.display()
    )]
    WrongSha256 { path: PathBuf, expected: String, found: String },
    #[error(
        "'{}' is no shared library, {what}: give the path of the .so file that `cargo build --release` makes below \
         target/release", .path.display()
    )]
    NotALibrary { path: PathBuf, what: String },
    #[error(
        "plugin '{}' is cut off or damaged ({detail}): copy it again, with `install -m 755` rather than over a file in use",
        .path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error(
        "plugin '{}' is built for {found}, but this broker runs on {expected}: build it there, or with `cargo build \
         --release --target {expected}-…`", .path.display()
    )]
    WrongArchitecture { path: PathBuf, found: String, expected: &'static str },
    #[error(
        "'{}' is a shared library, but no plugin: put `plugin_api::export_plugin!(…);` into its src/lib.rs and run `cargo \
         build --release` again", .path.display()
    )]
    NotAPlugin { path: PathBuf },
    #[error(
        "'{}' holds {} plugins ({}): use `export_plugin!` in one crate only, and give what they share a crate without it",
        .path.display(), .names.len(), .names.join(", ")
    )]
    SeveralPlugins { path: PathBuf, names: Vec<String> },
    #[error(
        "plugin '{}' ({} {}) is built for plugin ABI {}.{}, but this broker has {ABI_MAJOR}.{ABI_MINOR}: {}",
        .path.display(), .stamp.crate_name, .stamp.version, .stamp.abi_major, .stamp.abi_minor, abi_remedy(.stamp)
    )]
    WrongAbi { path: PathBuf, stamp: Box<StampInfo> },
    #[error(
        "plugin '{}' is built with panic = \"abort\", so that a panic in it would end the broker: remove that line from the \
         profile in its Cargo.toml and run `cargo build --release` again", .path.display()
    )]
    AbortsOnPanic { path: PathBuf },
    #[error("plugin '{}' cannot be opened: {detail}: build it on this system, with `cargo build --release`", .path.display())]
    Unlinkable { path: PathBuf, detail: String },
    #[error("plugin '{plugin}' refused to start: {reason}: correct its `config` in the topology file")]
    Refused { plugin: String, reason: String },
    #[error(
        "plugin '{plugin}' failed to start: {reason}: tell its author, and take it out of the topology file meanwhile"
    )]
    Failed { plugin: String, reason: String },
    #[error(
        "plugin '{plugin}' offers the {kind} '{name}', which {owner} offers already: take one of the two out of the \
         topology file"
    )]
    Duplicate { plugin: String, kind: &'static str, name: String, owner: String },
    #[error(
        "plugin '{plugin}' offers something of the kind {kind} with the name '{name}': its author must return 1 to 255 bytes \
         without white space from its `name`"
    )]
    BadName { plugin: String, kind: &'static str, name: String },
    #[error("folder '{}' cannot be read: {error}: give an existing folder with --plugin-dir", .path.display())]
    UnreadableFolder { path: PathBuf, error: std::io::Error },
    #[error("plugin '{}' {}", .path.display(), which_storage(.offered))]
    WhichStorage { path: PathBuf, offered: Vec<String> },
    #[error("there is no storage '{name}': use one of {}", .known.join(", "))]
    UnknownStorage { name: String, known: Vec<String> },
    #[error("storage '{name}' refused to start: {reason}")]
    StorageRefused { name: String, reason: String },
    #[error("there is no auth backend of the kind '{kind}': use one of {}", .known.join(", "))]
    UnknownAuthBackend { kind: String, known: Vec<String> },
    #[error("auth backend '{name}' refused to start: {reason}: correct its `config` in the topology file")]
    AuthRefused { name: String, reason: String },
}

impl LoadError {
    pub(super) fn read(path: &Path, error: std::io::Error) -> Self {
        let path = path.to_path_buf();
        if error.kind() == std::io::ErrorKind::NotFound {
            Self::Missing { path }
        } else {
            Self::Unreadable { path, error }
        }
    }
}

fn which_storage(offered: &[String]) -> String {
    if offered.is_empty() {
        return "offers no storage: give the file of one under `storage.plugin`".to_owned();
    }
    format!("offers several storages: say which with `storage.kind`, one of {}", offered.join(", "))
}

fn abi_remedy(stamp: &StampInfo) -> &'static str {
    if (stamp.abi_major, stamp.abi_minor) > (ABI_MAJOR, ABI_MINOR) {
        "update the broker, or build the plugin with the plugin-api of this broker"
    } else {
        "set plugin-api in its Cargo.toml to the one of this broker and run `cargo build --release` again"
    }
}
