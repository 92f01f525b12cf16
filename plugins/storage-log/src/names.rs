//! The names of files, and what stands in the folder.

use crate::index::pieces::SegmentId;

pub(crate) const LOCK: &str = "lock";
/// Room that is set aside so that settling goes on when the disk is full.
pub(crate) const RESERVE: &str = "reserve";
/// Room that is given back to the disk when a checkpoint needs it.
pub(crate) const ROOM: &str = "reserve-checkpoint";

pub(crate) fn segment(id: SegmentId) -> String {
    format!("segment-{id:010}.log")
}

pub(crate) fn index(id: SegmentId) -> String {
    format!("segment-{id:010}.index")
}

pub(crate) fn checkpoint(number: u64) -> String {
    format!("checkpoint-{number:010}")
}

pub(crate) fn recycled(id: SegmentId) -> String {
    format!("recycled-{id:010}")
}

/// The name under which a file is made before it gets its own.
pub(crate) fn temporary(name: &str) -> String {
    format!("{name}.new")
}

/// A damaged file that is kept for whoever wants to look into it.
pub(crate) fn quarantined(name: &str) -> String {
    format!("damaged-{name}")
}

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Segment(SegmentId),
    Index(SegmentId),
    Checkpoint(u64),
    Recycled(SegmentId),
    /// Left by a crash; holds nothing that anything refers to.
    Temporary,
    /// Ours, but not read.
    Other,
    Foreign,
}

pub(crate) fn parse(name: &str) -> Named {
    let number = |prefix: &str, suffix: &str| {
        let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let is_number = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u64>().ok())?
    };
    let id = |prefix, suffix| number(prefix, suffix).and_then(|number| SegmentId::try_from(number).ok());
    let is_ours = |name: &str| !matches!(parse(name), Named::Foreign);
    if let Some(id) = id("segment-", ".log") {
        Named::Segment(id)
    } else if let Some(id) = id("segment-", ".index") {
        Named::Index(id)
    } else if let Some(number) = number("checkpoint-", "") {
        Named::Checkpoint(number)
    } else if let Some(id) = id("recycled-", "") {
        Named::Recycled(id)
    } else if name.strip_suffix(".new").is_some_and(is_ours) {
        Named::Temporary
    // A file system of its own has the last of these in its root.
    } else if matches!(name, LOCK | RESERVE | ROOM | "lost+found") || name.strip_prefix("damaged-").is_some_and(is_ours)
    {
        Named::Other
    } else {
        Named::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_foreign() {
        let all = [
            (segment(7), Named::Segment(7)),
            (index(7), Named::Index(7)),
            (checkpoint(7), Named::Checkpoint(7)),
            (recycled(u32::MAX), Named::Recycled(u32::MAX)),
            (temporary(&segment(1)), Named::Temporary),
            (quarantined(&checkpoint(1)), Named::Other),
            (LOCK.into(), Named::Other),
            ("segment-1.log".into(), Named::Foreign),
            ("segment-99999999999.log".into(), Named::Foreign),
            ("notes.txt".into(), Named::Foreign),
            ("notes.new".into(), Named::Foreign),
        ];
        for (name, expected) in all {
            assert_eq!(parse(&name), expected, "{name}");
        }
    }
}
