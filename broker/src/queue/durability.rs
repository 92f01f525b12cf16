//! When the confirm of a persistent message may leave.

use std::fmt;

/// What a confirm waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The disk has the message: it survives a power cut.
    #[default]
    Synced,
    /// The operating system has it: it survives the end of the broker, but not that of the machine.
    Os,
}

impl Durability {
    /// The names under which people choose one.
    pub const NAMES: &[&str] = &["synced", "os"];

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "synced" => Some(Self::Synced),
            "os" => Some(Self::Os),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Os => "os",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_itself() {
        for name in Durability::NAMES {
            assert_eq!(Durability::from_name(name).map(Durability::name), Some(*name));
        }
        assert_eq!(Durability::from_name("OS"), None);
    }
}
