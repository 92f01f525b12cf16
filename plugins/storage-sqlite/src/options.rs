//! What a database is opened with.

use std::path::Path;

use plugin_api::config::Config;
use plugin_api::error::Invalid;
use plugin_api::serde::Deserialize;

use crate::room;

/// None of it is part of the format: it may change from one start to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Memory for pages of the database, for the connection that writes.
    pub cache_bytes: u64,
    /// How long SQLite's write-ahead log gets before it is carried over into the database. As much is set aside for a full disk.
    pub wal_bytes: u64,
}

/// `storage.config` in the topology file.
#[derive(Deserialize, Default)]
#[serde(crate = "plugin_api::serde", default, deny_unknown_fields)]
struct Settings {
    cache_bytes: Option<u64>,
    wal_bytes: Option<u64>,
}

/// The upper levels of trees of millions of messages fit in.
const CACHE_BYTES: u64 = 16 << 20;
const CACHE_BYTES_MIN: u64 = 1 << 20;
const CACHE_BYTES_MAX: u64 = 16 << 30;
/// Longer ones are carried over less often; shorter ones are read sooner after a crash.
const WAL_BYTES: u64 = 32 << 20;
const WAL_BYTES_MIN: u64 = 256 << 10;
const WAL_BYTES_MAX: u64 = 1 << 30;
/// A small disk gives a part of it.
const WALS_PER_DISK: u64 = 32;

impl Options {
    /// What suits the disk of this folder.
    #[must_use]
    pub fn for_folder(folder: &Path) -> Self {
        let share = room::total_bytes(folder).map_or(WAL_BYTES, |total| total / WALS_PER_DISK);
        Self { cache_bytes: CACHE_BYTES, wal_bytes: share.clamp(WAL_BYTES_MIN, WAL_BYTES) }
    }

    pub(crate) fn from_config(config: &Config, folder: &Path) -> Result<Self, Invalid> {
        let settings: Settings = config.parse()?;
        let mut options = Self::for_folder(folder);
        let within = |name: &str, bytes: u64, (min, max): (u64, u64)| {
            if (min..=max).contains(&bytes) {
                Ok(bytes)
            } else {
                Err(Invalid::new(format!("{name} must be from {min} to {max}, but is {bytes}")))
            }
        };
        if let Some(bytes) = settings.cache_bytes {
            options.cache_bytes = within("cache_bytes", bytes, (CACHE_BYTES_MIN, CACHE_BYTES_MAX))?;
        }
        if let Some(bytes) = settings.wal_bytes {
            options.wal_bytes = within("wal_bytes", bytes, (WAL_BYTES_MIN, WAL_BYTES_MAX))?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::serde_json::json;

    use super::*;

    #[test]
    fn settings_are_read_and_wrong_ones_refused() {
        let parse = |value| Options::from_config(&Config::new(value), &std::env::temp_dir());
        assert_eq!(parse(json!({ "wal_bytes": 1 << 20 })).map(|options| options.wal_bytes), Ok(1 << 20));
        let text = parse(json!({ "wal_bytes": 5 })).unwrap_err().text;
        assert_eq!(text, "wal_bytes must be from 262144 to 1073741824, but is 5");
        assert!(parse(json!({ "wall_bytes": 5 })).unwrap_err().text.contains("unknown field `wall_bytes`"));
    }
}
