//! Why a folder is not opened, and what was found damaged in it.

use std::fmt;
use std::io;

/// A folder that cannot be used as it is. Displays as one sentence that says what to do; nothing on the disk was changed.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    InUse { folder: String, process: Option<String> },
    /// Written by a newer version.
    Newer { folder: String, file: String, found: u32, known: u32 },
    /// It cannot be written to.
    ReadOnly { folder: String, detail: String },
    /// It holds something else.
    Foreign { folder: String, names: Vec<String> },
    /// It holds a segment of another folder.
    Mixed { folder: String, file: String },
    /// A segment that is needed is not there.
    MissingSegment { folder: String, file: String },
    /// No checkpoint can be read, so that nobody knows what is settled and declared.
    NoCheckpoint { folder: String, files: Vec<String> },
    /// It holds nothing at all; for those who only look.
    Empty { folder: String },
    /// There is no room for the first files.
    Full { folder: String, detail: String },
    /// The operating system says something else.
    Io { folder: String, doing: &'static str, error: io::Error },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { folder, process } => {
                let process = process.as_ref().map_or_else(String::new, |process| format!(" (process {process})"));
                write!(
                    f,
                    "data folder '{folder}' is in use by another broker{process}: stop it, or give this one a folder of its own"
                )
            }
            Self::Newer { folder, file, found, known } => write!(
                f,
                "data folder '{folder}' is of a newer format ('{file}' has {found}, this broker knows {known}): start the \
                 newer broker that wrote it, or give this one another folder"
            ),
            Self::ReadOnly { folder, detail } => write!(
                f,
                "data folder '{folder}' cannot be written to ({detail}): give the broker's user the right to, mount the \
                 disk read-write, or name another folder"
            ),
            Self::Foreign { folder, names } => write!(
                f,
                "data folder '{folder}' holds files that are not the broker's ({}): move them away, or name an empty folder",
                names.join(", ")
            ),
            Self::Mixed { folder, file } => write!(
                f,
                "'{file}' in data folder '{folder}' belongs to another data folder: put the right file in its place, or \
                 restore the folder from one backup"
            ),
            Self::MissingSegment { folder, file } => write!(
                f,
                "'{file}' is missing from data folder '{folder}', with messages in it: put it back, or restore the folder \
                 from a backup"
            ),
            Self::NoCheckpoint { folder, files } if files.is_empty() => write!(
                f,
                "data folder '{folder}' has segments but no checkpoint: put the checkpoint files back, or restore the \
                 folder from a backup"
            ),
            Self::NoCheckpoint { folder, files } => write!(
                f,
                "no checkpoint in data folder '{folder}' can be read ({} damaged): restore the folder from a backup, and \
                 look for the cause with `broker store check '{folder}'`",
                files.join(", ")
            ),
            Self::Empty { folder } => write!(f, "'{folder}' holds no data: name the folder that the broker was given"),
            Self::Full { folder, detail } => {
                write!(f, "there is no room for data folder '{folder}' ({detail}): free some, or name another folder")
            }
            Self::Io { folder, doing, error } => {
                write!(f, "data folder '{folder}': {doing} failed ({error}): see to the disk, then start again")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    pub(crate) fn io(folder: &str, doing: &'static str, error: io::Error) -> Self {
        let (folder, detail) = (folder.to_owned(), error.to_string());
        match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly { folder, detail },
            _ if crate::disk::is_full(&error) => Self::Full { folder, detail },
            _ => Self::Io { folder, doing, error },
        }
    }
}

/// A place in a file that does not hold what was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes are affected; 0 when it is not known.
    pub bytes: u64,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.file, self.offset, self.what)?;
        if self.bytes > 0 { write!(f, " ({} bytes)", self.bytes) } else { Ok(()) }
    }
}
