//! Judges a file before any of it runs.
//!
//! Opening a shared library runs its constructors, and a library of another shape ends the process. So the file is read as
//! data first: who may change it, whether it is what was pinned, what it was built for, and what its stamp says. The
//! descriptor stays open and is what gets loaded, so that the file cannot be exchanged in between.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use object::{Architecture, FileKind, Object, ObjectSection, ObjectSegment};
use plugin_api::abi::{ABI_MAJOR, ABI_MINOR, STAMP_SECTION, STAMP_SECTION_MACH_O, StampInfo};
use sha2::{Digest, Sha256};

use super::LoadError;

/// A file that may be loaded.
#[derive(Debug)]
pub struct Inspected {
    /// The path as it was given.
    pub path: PathBuf,
    /// What the file says about itself.
    pub stamp: StampInfo,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
    /// The very file that was inspected.
    pub(super) file: File,
}

/// Inspects the file at `path`; `sha256` is what it must have, in hexadecimal.
///
/// # Errors
/// The first thing that speaks against loading it.
pub fn inspect(path: &Path, sha256: Option<&str>) -> Result<Inspected, LoadError> {
    let (file, contents) = read(path)?;
    let found = hexadecimal(&Sha256::digest(&contents));
    if let Some(expected) = sha256
        && !expected.eq_ignore_ascii_case(&found)
    {
        return Err(LoadError::WrongSha256 { path: path.into(), expected: expected.to_owned(), found });
    }
    let stamp = stamp(path, &contents)?;
    if stamp.abi_major != ABI_MAJOR || stamp.abi_minor > ABI_MINOR {
        return Err(LoadError::WrongAbi { path: path.into(), stamp: Box::new(stamp) });
    }
    if !stamp.unwinds {
        return Err(LoadError::AbortsOnPanic { path: path.into() });
    }
    Ok(Inspected { path: path.into(), stamp, sha256: found, file })
}

/// Opens and reads a file that only its owner and group may change.
fn read(path: &Path) -> Result<(File, Vec<u8>), LoadError> {
    let unreadable = |error| LoadError::read(path, error);
    // Asked before opening, since opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(LoadError::NotAFile { path: path.into() });
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check_owners(path, &metadata)?;
    if metadata.len() > PLUGIN_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.into(), limit: PLUGIN_BYTES_MAX });
    }
    let mut contents = Vec::new();
    (&file).take(PLUGIN_BYTES_MAX).read_to_end(&mut contents).map_err(unreadable)?;
    Ok((file, contents))
}

/// The file, the folder it is named in, and the folder that it really is in when the name is a link.
fn check_owners(path: &Path, metadata: &Metadata) -> Result<(), LoadError> {
    if is_world_writable(metadata) {
        return Err(LoadError::WorldWritableFile { path: path.into(), mode: mode(metadata) });
    }
    let absolute = std::path::absolute(path).map_err(|error| LoadError::read(path, error))?;
    let real = fs::canonicalize(path).map_err(|error| LoadError::read(path, error))?;
    for folder in [absolute.parent(), real.parent()].into_iter().flatten() {
        let metadata = fs::metadata(folder).map_err(|error| LoadError::read(path, error))?;
        if is_world_writable(&metadata) {
            let mode = mode(&metadata);
            return Err(LoadError::WorldWritableFolder { path: path.into(), folder: folder.into(), mode });
        }
    }
    Ok(())
}

fn is_world_writable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o002 != 0
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// Finds the stamp, and what speaks against the file on the way to it.
fn stamp(path: &Path, contents: &[u8]) -> Result<StampInfo, LoadError> {
    let damaged = |detail: String| LoadError::Damaged { path: path.into(), detail };
    let kind = FileKind::parse(contents).ok().filter(|kind| is_library(*kind));
    if kind.is_none() && !contents.starts_with(object::elf::ELFMAG.as_slice()) {
        return Err(LoadError::NotALibrary { path: path.into(), what: describe(contents) });
    }
    let parsed =
        object::File::parse(contents).map_err(|error| damaged(format!("{} bytes, {error}", contents.len())))?;
    if parsed.format() != object::BinaryFormat::native_object() || !is_native(parsed.architecture()) {
        let found = format!("{:?}", parsed.architecture()).to_lowercase();
        let found = format!("{found} ({:?})", parsed.format());
        return Err(LoadError::WrongArchitecture { path: path.into(), found, expected: std::env::consts::ARCH });
    }
    let end =
        parsed.segments().map(|segment| segment.file_range()).map(|(start, size)| start.saturating_add(size)).max();
    let length = contents.len() as u64;
    if let Some(end) = end.filter(|end| *end > length) {
        return Err(damaged(format!("it has {length} bytes of at least {end}")));
    }
    let section = parsed
        .section_by_name(STAMP_SECTION)
        .or_else(|| parsed.section_by_name(STAMP_SECTION_MACH_O))
        .ok_or_else(|| LoadError::NotAPlugin { path: path.into() })?;
    let section = section.data().map_err(|error| damaged(error.to_string()))?;
    let mut stamps = StampInfo::read_all(section).map_err(|error| damaged(error.to_string()))?;
    match (stamps.pop(), stamps.is_empty()) {
        (Some(stamp), true) => Ok(stamp),
        (None, _) => Err(LoadError::NotAPlugin { path: path.into() }),
        (Some(last), false) => {
            let names = stamps.into_iter().chain([last]).map(|stamp| stamp.crate_name).collect();
            Err(LoadError::SeveralPlugins { path: path.into(), names })
        }
    }
}

const fn is_library(kind: FileKind) -> bool {
    matches!(
        kind,
        FileKind::Elf32 | FileKind::Elf64 | FileKind::MachO32 | FileKind::MachO64 | FileKind::Pe32 | FileKind::Pe64
    )
}

fn is_native(architecture: Architecture) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => architecture == Architecture::X86_64,
        "aarch64" => architecture == Architecture::Aarch64,
        "riscv64" => architecture == Architecture::Riscv64,
        "powerpc64" => architecture == Architecture::PowerPc64,
        "s390x" => architecture == Architecture::S390x,
        "loongarch64" => architecture == Architecture::LoongArch64,
        // Nowhere tried: the dynamic linker says what it thinks of it.
        _ => true,
    }
}

/// What a file that is no library seems to be.
fn describe(contents: &[u8]) -> String {
    if contents.is_empty() {
        return "it is empty".to_owned();
    }
    if contents.starts_with(b"!<arch>\n") {
        return "but a static one (set `crate-type = [\"cdylib\"]` in its Cargo.toml)".to_owned();
    }
    let start = contents.get(..START_BYTES).unwrap_or(contents);
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(text) if !text.chars().any(char::is_control) => format!("but text that begins with \"{text}\""),
        _ => format!("it begins with the bytes {}", hexadecimal(start.get(..8).unwrap_or(start))),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Larger than any plugin with all its debug information; a file beyond it is a mistake that would only fill memory.
const PLUGIN_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How much of a strange file is shown.
const START_BYTES: usize = 24;
