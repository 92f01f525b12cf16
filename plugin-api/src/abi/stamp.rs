//! Who built a file and against what, readable without running any of it.

use std::fmt;

use super::{ABI_MAJOR, ABI_MINOR};

/// The section that holds the [`Stamp`] in an ELF file.
pub const STAMP_SECTION: &str = ".broker_plugin";
/// The section that holds the [`Stamp`] in a Mach-O file, in the segment `__DATA`.
pub const STAMP_SECTION_MACH_O: &str = "__broker_plugin";
/// The entry symbol is this and the crate's name: with one name for all, two plugins linked into one binary would
/// silently become one.
pub const ENTRY_PREFIX: &str = "broker_plugin_entry__";

const MAGIC: [u8; 16] = *b"\x7fBROKER PLUGIN\r\n";
const NAME_BYTES: usize = 64;
const VERSION_BYTES: usize = 32;
const UNWINDS: u32 = 1;
const DEBUG_BUILD: u32 = 2;

/// Kinds of things that a plugin offers, as bits of a stamp.
pub mod offers {
    /// Exchange types.
    pub const EXCHANGE_TYPES: u32 = 1;
    /// Storages.
    pub const STORAGES: u32 = 2;
    /// Auth backends.
    pub const AUTH_BACKENDS: u32 = 4;
}

/// Plain bytes without pointers, in a section of its own.
#[repr(C)]
pub struct Stamp {
    pub(crate) magic: [u8; 16],
    pub(crate) size: u32,
    pub(crate) abi_major: u16,
    pub(crate) abi_minor: u16,
    pub(crate) flags: u32,
    /// Since 2.3: bits of [`offers`]; 0 where the plugin says it only when it runs.
    pub(crate) offers: u32,
    pub(crate) crate_name: [u8; NAME_BYTES],
    pub(crate) version: [u8; VERSION_BYTES],
}

const SIZE: usize = 128;
const _: () = assert!(size_of::<Stamp>() == SIZE && align_of::<Stamp>() == 4);

impl Stamp {
    /// Made by [`crate::export_plugin!`] in the plugin's crate.
    ///
    /// # Panics
    /// At compile time, when the crate's name is longer than 64 bytes.
    #[must_use]
    pub const fn new(crate_name: &str, version: &str, unwinds: bool, is_debug_build: bool, offers: u32) -> Self {
        assert!(crate_name.len() <= NAME_BYTES, "the name of a plugin's crate is at most 64 bytes long");
        Self {
            magic: MAGIC,
            size: SIZE as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            flags: if unwinds { UNWINDS } else { 0 } | if is_debug_build { DEBUG_BUILD } else { 0 },
            offers,
            crate_name: padded(crate_name),
            version: padded(version),
        }
    }

    /// The same facts as [`StampInfo::read_all`] finds in a file.
    #[must_use]
    pub fn info(&self) -> StampInfo {
        StampInfo {
            abi_major: self.abi_major,
            abi_minor: self.abi_minor,
            unwinds: self.flags & UNWINDS != 0,
            is_debug_build: self.flags & DEBUG_BUILD != 0,
            offers: self.offers,
            crate_name: unpadded(&self.crate_name),
            version: unpadded(&self.version),
        }
    }
}

/// What a stamp says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampInfo {
    /// [`ABI_MAJOR`] of the `plugin-api` it was built with.
    pub abi_major: u16,
    /// [`ABI_MINOR`] of the `plugin-api` it was built with.
    pub abi_minor: u16,
    /// Whether a panic can be caught: not when the profile says `panic = "abort"`.
    pub unwinds: bool,
    /// Whether it was built without optimisation.
    pub is_debug_build: bool,
    /// Bits of [`offers`]; 0 where that is not known before the plugin runs.
    pub offers: u32,
    /// The crate's name with underscores, which the entry symbol ends with.
    pub crate_name: String,
    /// The crate's version.
    pub version: String,
}

impl StampInfo {
    /// Reads all stamps of a section: one a plugin, normally one.
    ///
    /// # Errors
    /// When the section holds something else, or a stamp of a shape that this host cannot know.
    pub fn read_all(mut section: &[u8]) -> Result<Vec<Self>, StampError> {
        let mut stamps = Vec::new();
        while !section.is_empty() {
            let (info, size) = Self::read(section)?;
            stamps.push(info);
            section = section.get(size..).unwrap_or_default();
        }
        Ok(stamps)
    }

    /// The symbol of the entry function.
    #[must_use]
    pub fn entry_symbol(&self) -> String {
        format!("{ENTRY_PREFIX}{}", self.crate_name)
    }

    fn read(bytes: &[u8]) -> Result<(Self, usize), StampError> {
        let mut rest = bytes;
        if take(&mut rest)? != MAGIC {
            return Err(StampError::NotAStamp);
        }
        let size = usize::try_from(u32::from_ne_bytes(take(&mut rest)?)).unwrap_or(usize::MAX);
        let (abi_major, abi_minor) = (u16::from_ne_bytes(take(&mut rest)?), u16::from_ne_bytes(take(&mut rest)?));
        if size < SIZE || size > bytes.len() {
            return Err(StampError::Damaged);
        }
        let (flags, offers) = (u32::from_ne_bytes(take(&mut rest)?), u32::from_ne_bytes(take(&mut rest)?));
        let info = Self {
            abi_major,
            abi_minor,
            unwinds: flags & UNWINDS != 0,
            is_debug_build: flags & DEBUG_BUILD != 0,
            offers,
            crate_name: unpadded(&take::<NAME_BYTES>(&mut rest)?),
            version: unpadded(&take::<VERSION_BYTES>(&mut rest)?),
        };
        let is_identifier = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if info.crate_name.is_empty() || !is_identifier(&info.crate_name) {
            return Err(StampError::Damaged);
        }
        Ok((info, size))
    }
}

/// Why a section holds no stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampError {
    /// It does not begin as a stamp does.
    NotAStamp,
    /// It begins as a stamp, but is cut off or makes no sense.
    Damaged,
}

impl fmt::Display for StampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAStamp => "the plugin section holds something else",
            Self::Damaged => "the plugin stamp is damaged",
        })
    }
}

impl std::error::Error for StampError {}

const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    let mut out = [0; N];
    let mut index = 0;
    while index < N && index < bytes.len() {
        out[index] = bytes[index];
        index += 1;
    }
    out
}

fn unpadded(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], StampError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(StampError::Damaged)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(stamp: &Stamp) -> Vec<u8> {
        let mut out = stamp.magic.to_vec();
        out.extend_from_slice(&stamp.size.to_ne_bytes());
        out.extend_from_slice(&stamp.abi_major.to_ne_bytes());
        out.extend_from_slice(&stamp.abi_minor.to_ne_bytes());
        out.extend_from_slice(&stamp.flags.to_ne_bytes());
        out.extend_from_slice(&stamp.offers.to_ne_bytes());
        out.extend_from_slice(&stamp.crate_name);
        out.extend_from_slice(&stamp.version);
        out
    }

    #[test]
    fn stamp_reads_back_from_its_bytes() {
        let stamp = Stamp::new("exchange_geo", "0.1.0", true, false, offers::STORAGES);
        let wire = bytes(&stamp);
        assert_eq!(StampInfo::read_all(&wire), Ok(vec![stamp.info()]));
        assert_eq!(stamp.info().entry_symbol(), "broker_plugin_entry__exchange_geo");
        assert_eq!(StampInfo::read_all(&[&wire[..], &wire].concat()).unwrap().len(), 2);
    }

    #[test]
    fn damaged_stamps_are_refused() {
        let wire = bytes(&Stamp::new("exchange_geo", "0.1.0", true, true, 0));
        for length in 1..wire.len() {
            assert_eq!(StampInfo::read_all(&wire[..length]), Err(StampError::Damaged), "cut at {length}");
        }
        assert_eq!(StampInfo::read_all(&[b'x'; 200]), Err(StampError::NotAStamp));
        let mut other = wire;
        other[16..20].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(StampInfo::read_all(&other), Err(StampError::Damaged));
    }
}
