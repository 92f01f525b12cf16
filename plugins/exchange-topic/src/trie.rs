//! A trie over words, walked with all patterns at once.
//!
//! The walk keeps the set of nodes that the words so far can lead to. A node has one parent and one word, so it is reached
//! at most once a position, unless it is `#`: a `#` node stays in the set once it is there, for it takes any further word.
//! Hence no set holds a node twice, no position is tried twice for a node, and any number of `#` in a pattern costs at most
//! nodes times words (RabbitMQ 4.3 refuses more than two because its walk does not remember).

use std::cell::RefCell;

use plugin_api::exchange::BindingSlot;
use plugin_api::hash::Map;
use plugin_api::slots::{GroupId, SlotGroups};

use crate::words::{WordId, Words};

/// All patterns of one exchange. A node is a group of slots: those of the bindings whose pattern ends there.
pub(crate) struct Trie {
    slots: SlotGroups,
    /// By the number of their group.
    nodes: Vec<Node>,
    words: Words,
    /// Children by literal word, but for the first of each node.
    edges: Map<(GroupId, WordId), GroupId>,
    root: GroupId,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: GroupId,
    /// How the parent leads here.
    step: Step,
    star: Option<GroupId>,
    hash: Option<GroupId>,
    /// The first literal child stands here: most nodes have no other, and need no look-up.
    first: Option<(WordId, GroupId)>,
    /// How many more there are, in [`Trie::edges`].
    others: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The root.
    None,
    Literal(WordId),
    Star,
    Hash,
}

impl Node {
    const fn new(parent: GroupId, step: Step) -> Self {
        Self { parent, step, star: None, hash: None, first: None, others: 0 }
    }

    const fn is_leaf(&self) -> bool {
        self.star.is_none() && self.hash.is_none() && self.first.is_none() && self.others == 0
    }
}

impl Trie {
    pub(crate) fn new() -> Self {
        let mut slots = SlotGroups::new();
        let root = slots.open();
        Self { slots, nodes: vec![Node::new(root, Step::None)], words: Words::default(), edges: Map::default(), root }
    }

    /// Adds a pattern for `slot`.
    pub(crate) fn insert(&mut self, pattern: &[u8], slot: BindingSlot) {
        let mut node = self.root;
        for word in split(pattern) {
            node = match word {
                b"*" => self.node(node).star.unwrap_or_else(|| self.add(node, Step::Star)),
                b"#" => self.node(node).hash.unwrap_or_else(|| self.add(node, Step::Hash)),
                _ => self.words.get(word).and_then(|word| self.literal_child(node, word)).unwrap_or_else(|| {
                    let step = Step::Literal(self.words.acquire(word));
                    self.add(node, step)
                }),
            };
        }
        self.slots.insert(node, slot);
    }

    /// Removes the pattern of `slot`, and the nodes that only it needed.
    pub(crate) fn remove(&mut self, slot: BindingSlot) {
        let Some(mut id) = self.slots.remove(slot) else { return };
        loop {
            let node = *self.node(id);
            if node.step == Step::None || !node.is_leaf() || !self.slots.slots(id).is_empty() {
                return;
            }
            match node.step {
                Step::None => {}
                Step::Star => self.node_mut(node.parent).star = None,
                Step::Hash => self.node_mut(node.parent).hash = None,
                Step::Literal(word) => {
                    let parent = self.node_mut(node.parent);
                    if parent.first == Some((word, id)) {
                        parent.first = None;
                    } else {
                        parent.others -= 1;
                        self.edges.remove(&(node.parent, word));
                    }
                    self.words.release(word);
                }
            }
            self.slots.close(id);
            id = node.parent;
        }
    }

    /// Hands out the slots of all patterns that fit `key`, a pattern's slots at a time.
    #[inline]
    pub(crate) fn walk(&self, key: &[u8], mut found: impl FnMut(&[BindingSlot])) {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.begin(self.nodes.len());
            self.enter(self.root, scratch, &mut found);
            for word in split(key) {
                scratch.step();
                let word = self.words.get(word);
                for index in 0..scratch.here.len() {
                    self.advance(scratch.here[index], word, scratch, &mut found);
                }
                // Those that join during this step stand behind this word already.
                for index in 0..scratch.hashes.len() {
                    self.advance(scratch.hashes[index], word, scratch, &mut found);
                }
            }
            for id in scratch.next.iter().chain(&scratch.hashes).chain(&scratch.joining) {
                let slots = self.slots.slots(*id);
                if !slots.is_empty() {
                    found(slots);
                }
            }
        });
    }

    /// Follows `word` from a node.
    #[inline]
    fn advance(
        &self,
        id: GroupId,
        word: Option<WordId>,
        scratch: &mut Scratch,
        found: &mut impl FnMut(&[BindingSlot]),
    ) {
        let node = self.node(id);
        if let Some(child) = word.and_then(|word| self.literal_child(id, word)) {
            self.enter(child, scratch, found);
        }
        if let Some(child) = node.star {
            self.enter(child, scratch, found);
        }
    }

    /// Puts a node into the next set, and the `#` nodes behind it, which need no word.
    #[inline]
    fn enter(&self, id: GroupId, scratch: &mut Scratch, found: &mut impl FnMut(&[BindingSlot])) {
        scratch.next.push(id);
        let mut hash = self.node(id).hash;
        while let Some(id) = hash {
            if !scratch.mark(id) {
                return;
            }
            let node = self.node(id);
            if node.is_leaf() {
                // Nothing can change any more: it fits, whatever comes.
                found(self.slots.slots(id));
                return;
            }
            scratch.joining.push(id);
            hash = node.hash;
        }
    }

    #[inline]
    fn literal_child(&self, id: GroupId, word: WordId) -> Option<GroupId> {
        let node = self.node(id);
        match node.first {
            Some((first, child)) if first == word => Some(child),
            _ if node.others > 0 => self.edges.get(&(id, word)).copied(),
            _ => None,
        }
    }

    fn add(&mut self, parent: GroupId, step: Step) -> GroupId {
        let (id, node) = (self.slots.open(), Node::new(parent, step));
        match self.nodes.get_mut(id.0 as usize) {
            Some(place) => *place = node,
            None => self.nodes.push(node),
        }
        match step {
            Step::None => {}
            Step::Star => self.node_mut(parent).star = Some(id),
            Step::Hash => self.node_mut(parent).hash = Some(id),
            Step::Literal(word) => {
                let node = self.node_mut(parent);
                if node.first.is_none() {
                    node.first = Some((word, id));
                } else {
                    node.others += 1;
                    self.edges.insert((parent, word), id);
                }
            }
        }
        id
    }

    #[inline]
    fn node(&self, id: GroupId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: GroupId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    #[cfg(test)]
    fn is_bare(&self) -> bool {
        self.edges.is_empty() && self.words.len() == 0 && self.node(self.root).is_leaf()
    }
}

/// The words of a key or a pattern: what stands between the dots. The empty key has none at all.
fn split(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|byte| *byte == b'.').filter(|_| !key.is_empty())
}

thread_local! {
    /// The sets of a walk, kept so that a route does not allocate.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

struct Scratch {
    /// Nodes that the words before the current one lead to.
    here: Vec<GroupId>,
    /// Nodes that the current word leads to.
    next: Vec<GroupId>,
    /// `#` nodes that have been reached; they stay.
    hashes: Vec<GroupId>,
    /// `#` nodes reached by the current word, which they do not look at.
    joining: Vec<GroupId>,
    /// Per node the last walk that reached it, for `#` nodes.
    marks: Vec<u64>,
    walk: u64,
}

impl Scratch {
    const fn new() -> Self {
        Self { here: Vec::new(), next: Vec::new(), hashes: Vec::new(), joining: Vec::new(), marks: Vec::new(), walk: 0 }
    }

    fn begin(&mut self, nodes: usize) {
        if self.marks.len() < nodes {
            self.marks.resize(nodes, 0);
        }
        self.walk += 1;
        self.here.clear();
        self.next.clear();
        self.hashes.clear();
        self.joining.clear();
    }

    /// On to the next word.
    fn step(&mut self) {
        std::mem::swap(&mut self.here, &mut self.next);
        self.next.clear();
        self.hashes.append(&mut self.joining);
    }

    /// Whether this walk has not been at `id` before.
    fn mark(&mut self, id: GroupId) -> bool {
        let mark = &mut self.marks[id.0 as usize];
        std::mem::replace(mark, self.walk) != self.walk
    }
}

#[cfg(test)]
mod tests;
