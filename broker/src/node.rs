//! Wiring of all modules, and the order of shutdown.

use std::{net::SocketAddr, path::PathBuf};

use crate::topology::schema::Topology;

/// What the command line and the topology file ask for.
#[derive(Debug)]
pub struct NodeOptions {
    /// What the file declares, or the default.
    pub topology: Topology,
    /// Replaces the listeners of the topology unless it is empty.
    pub listen: Vec<SocketAddr>,
    /// Folder for what has to survive a restart.
    pub data: Option<PathBuf>,
    /// Folders with plugins to load.
    pub plugin_dirs: Vec<PathBuf>,
}

/// Why the broker ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The parts that speak to clients are not wired up.
    #[error("this build cannot run a broker yet; 'broker check' works")]
    NotWired,
}

impl NodeError {
    /// The exit code of the process, as in sysexits(3).
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotWired => 70,
        }
    }
}

/// Runs until the process is told to stop.
///
/// # Errors
/// [`NodeError`], when it cannot start or ends otherwise than asked.
pub async fn run(_options: NodeOptions) -> Result<(), NodeError> {
    Err(NodeError::NotWired)
}
