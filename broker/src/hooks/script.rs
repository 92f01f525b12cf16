//! One script of a set: what all its interpreters have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decl::HookDecl;
use super::error::Failure;
use super::program::Program;
use super::state::State;
use super::status::{LogGate, SCRIPT_LINES_MAX};

/// A script that has been read, compiled and run once. Hooks that are declared with the same file and the same memory limit
/// share it, and on each thread its interpreter: a script may well stand at a hundred exchanges.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) path: PathBuf,
    pub(super) memory_limit_bytes: usize,
    pub(super) program: Program,
    /// For what the script writes with `broker.log`.
    pub(super) log: Arc<LogGate>,
}

impl Script {
    pub(super) fn load(decl: &HookDecl) -> Result<Self, Failure> {
        let (path, memory_limit_bytes) = (decl.script.clone(), decl.memory_limit_bytes);
        let program = Program::read(&path)?;
        let mut script = Self { path, memory_limit_bytes, program, log: Arc::new(LogGate::new(SCRIPT_LINES_MAX)) };
        // The run is the check; worker threads make interpreters of their own.
        State::check(&mut script)?;
        Ok(script)
    }

    pub(super) fn is_of(&self, decl: &HookDecl) -> bool {
        self.path == decl.script && self.memory_limit_bytes == decl.memory_limit_bytes
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
