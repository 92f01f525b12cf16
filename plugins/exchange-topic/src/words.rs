//! The literal words of all patterns, as numbers.
//!
//! A route hashes each word of its key once, here; the trie then compares numbers. A word that no pattern has is known at
//! once to lead nowhere but through wildcards.

use std::sync::Arc;

use plugin_api::hash::Map;

/// A word that some pattern has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WordId(u32);

/// Words with the number of edges of the trie that they stand on.
#[derive(Debug, Default)]
pub(crate) struct Words {
    ids: Map<Arc<[u8]>, WordId>,
    entries: Vec<Entry>,
    free: Vec<WordId>,
}

#[derive(Debug)]
struct Entry {
    text: Arc<[u8]>,
    uses: u32,
}

impl Words {
    /// The number of `word`, if a pattern has it.
    #[inline]
    pub(crate) fn get(&self, word: &[u8]) -> Option<WordId> {
        self.ids.get(word).copied()
    }

    /// The number of `word`, for an edge of the trie; [`Words::release`] ends it.
    pub(crate) fn acquire(&mut self, word: &[u8]) -> WordId {
        if let Some(id) = self.get(word) {
            if let Some(entry) = self.entries.get_mut(id.0 as usize) {
                entry.uses += 1;
            }
            return id;
        }
        let text: Arc<[u8]> = Arc::from(word);
        let entry = Entry { text: Arc::clone(&text), uses: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.0 as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                WordId(u32::try_from(self.entries.len() - 1).expect("fewer words than fit into memory"))
            }
        };
        self.ids.insert(text, id);
        id
    }

    /// An edge with this word is gone.
    pub(crate) fn release(&mut self, id: WordId) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else { return };
        entry.uses -= 1;
        if entry.uses == 0 {
            self.ids.remove(&entry.text);
            entry.text = Arc::from([]);
            self.free.push(id);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}
