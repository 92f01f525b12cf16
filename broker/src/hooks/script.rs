//! One script of a set: what all its interpreters have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decl::HookDecl;
use super::error::Failure;
use super::point::Point;
use super::program::Program;
use super::shared::Store;
use super::state::State;
use super::status::{LogGate, SCRIPT_LINES_MAX};

/// A script that has been read, compiled and run once. Hooks that are declared with the same file and the same memory limit
/// share it, and on each thread its interpreter: a script may well stand at a hundred exchanges.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) path: PathBuf,
    pub(super) memory_limit_bytes: usize,
    pub(super) program: Program,
    /// Where the script wants to be called.
    pub(super) points: Vec<Point>,
    /// For what the script writes with `broker.log`.
    pub(super) log: Arc<LogGate>,
    /// For `broker.shared`.
    pub(super) store: Arc<Store>,
}

impl Script {
    pub(super) fn load(decl: &HookDecl, store: Arc<Store>) -> Result<Self, Failure> {
        let (path, memory_limit_bytes) = (decl.script.clone(), decl.memory_limit_bytes);
        let program = Program::read(&path)?;
        let log = Arc::new(LogGate::new(SCRIPT_LINES_MAX));
        let mut script = Self { path, memory_limit_bytes, program, points: Vec::new(), log, store };
        // The run is the check; worker threads make interpreters of their own.
        let state = State::check(&mut script)?;
        script.points = Point::ALL.into_iter().filter(|point| state.has(*point)).collect();
        Ok(script)
    }

    pub(super) fn is_of(&self, decl: &HookDecl) -> bool {
        self.path == decl.script && self.memory_limit_bytes == decl.memory_limit_bytes
    }

    /// Whether it says the same, file by file.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.path == other.path && self.memory_limit_bytes == other.memory_limit_bytes && self.program == other.program
    }

    /// Where `require` looks.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The name in the log.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}
