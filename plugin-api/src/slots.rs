//! Groups of binding slots, for exchange types that keep bindings by key, by pattern or by header.
//!
//! What a route wants is all slots of a group as one slice; what `unbind` knows is a slot alone. [`SlotGroups`] answers
//! both at once without a search, also when ten thousand queues are bound with one key.

use crate::exchange::BindingSlot;

/// A group within its [`SlotGroups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// Slots in groups; each slot is in one group at most.
#[derive(Debug, Default)]
pub struct SlotGroups {
    groups: Vec<Vec<BindingSlot>>,
    free: Vec<GroupId>,
    places: Vec<Option<Place>>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    group: GroupId,
    index: u32,
}

impl SlotGroups {
    /// No groups.
    #[must_use]
    pub const fn new() -> Self {
        Self { groups: Vec::new(), free: Vec::new(), places: Vec::new() }
    }

    /// Makes an empty group.
    pub fn open(&mut self) -> GroupId {
        self.free.pop().unwrap_or_else(|| {
            self.groups.push(Vec::new());
            GroupId(u32::try_from(self.groups.len() - 1).expect("slots are u32, and groups are no more than slots"))
        })
    }

    /// Gives up a group that has become empty; its number is used again.
    pub fn close(&mut self, group: GroupId) {
        debug_assert!(self.slots(group).is_empty(), "closed a group that still has slots");
        self.free.push(group);
    }

    /// Puts `slot` into `group`, from another group if it was in one.
    pub fn insert(&mut self, group: GroupId, slot: BindingSlot) {
        self.remove(slot);
        let Some(slots) = self.groups.get_mut(group.0 as usize) else { return };
        let index = u32::try_from(slots.len()).expect("slots are u32");
        slots.push(slot);
        let place = slot.0 as usize;
        if place >= self.places.len() {
            self.places.resize(place + 1, None);
        }
        self.places[place] = Some(Place { group, index });
    }

    /// Takes `slot` out of its group, and says which it was.
    pub fn remove(&mut self, slot: BindingSlot) -> Option<GroupId> {
        let Place { group, index } = self.places.get_mut(slot.0 as usize)?.take()?;
        let slots = self.groups.get_mut(group.0 as usize)?;
        slots.swap_remove(index as usize);
        // The last slot of the group has moved into the gap, unless it was the one removed.
        if let Some(moved) = slots.get(index as usize)
            && let Some(Some(place)) = self.places.get_mut(moved.0 as usize)
        {
            place.index = index;
        }
        Some(group)
    }

    /// The slots of `group`, in no order.
    #[inline]
    #[must_use]
    pub fn slots(&self, group: GroupId) -> &[BindingSlot] {
        self.groups.get(group.0 as usize).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_slot_leaves_the_others_findable() {
        let mut groups = SlotGroups::new();
        let (one, two) = (groups.open(), groups.open());
        (0..5).for_each(|slot| groups.insert(one, BindingSlot(slot)));
        groups.insert(two, BindingSlot(7));
        for slot in [0, 4, 2] {
            assert_eq!(groups.remove(BindingSlot(slot)), Some(one));
            assert_eq!(groups.remove(BindingSlot(slot)), None);
        }
        let mut left = groups.slots(one).to_vec();
        left.sort();
        assert_eq!(left, [BindingSlot(1), BindingSlot(3)]);
        assert_eq!(groups.remove(BindingSlot(3)), Some(one));
        assert_eq!(groups.remove(BindingSlot(1)), Some(one));
        groups.close(one);
        assert_eq!(groups.open(), one);
        assert_eq!(groups.slots(two), [BindingSlot(7)]);
    }

    #[test]
    fn slot_moves_between_groups() {
        let mut groups = SlotGroups::new();
        let (one, two) = (groups.open(), groups.open());
        groups.insert(one, BindingSlot(0));
        groups.insert(two, BindingSlot(0));
        assert!(groups.slots(one).is_empty());
        assert_eq!(groups.remove(BindingSlot(0)), Some(two));
        assert_eq!(groups.remove(BindingSlot(9)), None);
    }
}
