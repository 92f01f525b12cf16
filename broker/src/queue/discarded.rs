//! Messages that a queue has let go of all at once, and that are still in memory.
//!
//! To free half a million of them takes tens of milliseconds. For the queue they are gone; whoever drives it drops them by and by, so that
//! neither the queue nor others on its thread wait for it.

use std::collections::{BTreeMap, VecDeque};

use super::ready::{Entry, Hot};

/// See the module. Dropping it drops what is left.
#[derive(Debug, Default)]
pub struct Discarded {
    heads: Vec<VecDeque<Hot>>,
    returned: Vec<BTreeMap<u64, Entry>>,
}

impl Discarded {
    pub(super) fn add(&mut self, head: VecDeque<Hot>, returned: BTreeMap<u64, Entry>) {
        if !head.is_empty() {
            self.heads.push(head);
        }
        if !returned.is_empty() {
            self.returned.push(returned);
        }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        let returned = self.returned.iter().map(BTreeMap::len);
        self.heads.iter().map(VecDeque::len).chain(returned).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.returned.is_empty()
    }

    /// Drops so many; false when none are left.
    pub fn drop_some(&mut self, mut count: usize) -> bool {
        while count > 0
            && let Some(head) = self.heads.last_mut()
        {
            let left = head.len().saturating_sub(count);
            count -= head.len() - left;
            head.truncate(left);
            self.heads.pop_if(|head| head.is_empty());
        }
        while count > 0
            && let Some(returned) = self.returned.last_mut()
        {
            while count > 0 && returned.pop_first().is_some() {
                count -= 1;
            }
            self.returned.pop_if(|returned| returned.is_empty());
        }
        !self.is_empty()
    }
}
