//! Whose the messages in a data folder are, for whoever looks into one.

use std::fmt;

use hashbrown::HashSet;
use plugin_api::storage::Recovered;

use super::definitions::{self, Unreadable};
use super::{is_paged, level_of, number_of};
use crate::vhost::held::{history, line};

/// Live messages by what they are there for, counted once for each queue or exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// In durable queues.
    pub queued: u64,
    /// Transient ones that were out of memory; the next start drops them.
    pub paged: u64,
    /// Put off by an exchange, until they are due.
    pub put_off: u64,
    /// Kept for an exchange, which gets them back at the next start.
    pub kept: u64,
    /// Of queues and exchanges whose definitions are gone; the next start drops them.
    pub left: u64,
}

impl Owners {
    /// Counts what a storage holds.
    ///
    /// # Errors
    /// A definition that cannot be read.
    pub fn of(recovered: &Recovered) -> Result<Self, Unreadable> {
        let definitions = definitions::read(&recovered.meta)?;
        let vhosts = || definitions.vhosts.values();
        let queues: HashSet<u64> = vhosts().flat_map(|vhost| vhost.queues.iter().map(|queue| queue.number)).collect();
        let exchanges: HashSet<u64> =
            vhosts().flat_map(|vhost| vhost.exchanges.iter().filter_map(|exchange| exchange.number)).collect();
        let mut owners = Self::default();
        for queue in &recovered.queues {
            let (number, level) = (number_of(queue.queue), level_of(queue.queue));
            let place = match level {
                _ if is_paged(queue.queue) => &mut owners.paged,
                _ if queues.contains(&number) => &mut owners.queued,
                line::LEVEL if exchanges.contains(&number) => &mut owners.put_off,
                history::LEVEL if exchanges.contains(&number) => &mut owners.kept,
                _ => &mut owners.left,
            };
            *place += queue.ranges.iter().map(|(first, last)| last.0 - first.0 + 1).sum::<u64>();
        }
        Ok(owners)
    }
}

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queued, paged, put_off, kept, left } = self;
        write!(
            f,
            "  of these      {queued} in durable queues, {put_off} put off by exchanges, {kept} kept for exchanges"
        )?;
        let dropped = paged + left;
        if dropped > 0 {
            write!(f, ", {dropped} that the next start drops")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::storage::{MessageSeq, QueueKey, RecoveredQueue};

    use super::*;
    use crate::queue::Stored;
    use crate::store::key;

    #[test]
    fn every_message_has_one_owner() {
        let meta = [
            (r#"["queue","/","q"]"#, r#"{"number":1,"auto_delete":false,"arguments":""}"#),
            (
                r#"["exchange","/","x"]"#,
                r#"{"number":2,"kind":"x","auto_delete":false,"internal":false,"arguments":""}"#,
            ),
            (r#"["exchange","/","old"]"#, r#"{"kind":"x","auto_delete":false,"internal":false,"arguments":""}"#),
        ];
        let queue = |queue: QueueKey, last: u64| {
            let ranges = vec![(MessageSeq(1), MessageSeq(last))];
            RecoveredQueue { queue, ranges, marked: None }
        };
        let recovered = Recovered {
            meta: meta.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
            queues: vec![
                queue(key(1, 0, Stored::Lasting), 1),
                queue(key(1, 5, Stored::Lasting), 1),
                queue(key(1, 0, Stored::Paged), 3),
                queue(key(2, line::LEVEL, Stored::Lasting), 4),
                queue(key(2, history::LEVEL, Stored::Lasting), 5),
                queue(key(3, 0, Stored::Lasting), 6),
            ],
        };
        let expected = Owners { queued: 2, paged: 3, put_off: 4, kept: 5, left: 6 };
        let owners = Owners::of(&recovered).unwrap();
        assert_eq!(owners, expected);
        assert!(
            owners.to_string().ends_with("4 put off by exchanges, 5 kept for exchanges, 9 that the next start drops")
        );
    }
}
