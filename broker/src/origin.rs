//! Where a setting comes from: users, permissions, policies, limits and the like.
//!
//! What the topology file says belongs to the file: it is not stored, so what is taken out of the file is gone with the next start, and the file wins over
//! what was changed while the broker ran. Everything else is stored and lasts until somebody takes it back.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The topology file.
    Topology,
    /// Somebody, while the broker ran; or definitions that were imported.
    Runtime,
}

impl Origin {
    /// Whether the store keeps what comes from here.
    pub fn is_stored(self) -> bool {
        self == Self::Runtime
    }
}
