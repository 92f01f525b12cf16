//! From the headers of a message to the bindings, without a look at each binding.
//!
//! Every distinct condition of all bindings has a number. A binding waits at one condition (`all`: the one with the fewest
//! others waiting when it was made) or at each of its conditions (`any`). A route finds the conditions that the message
//! fulfils with one look-up a header, and visits only the bindings that wait there; an `all` binding then compares numbers.

use std::cell::RefCell;
use std::sync::Arc;

use plugin_api::exchange::{BindingSlot, Routes};
use plugin_api::hash::Map;
use plugin_api::slots::{GroupId, SlotGroups};
use plugin_api::value::TableRef;

use crate::canonical;
use crate::matching::{Condition, Matching, Mode};

/// All bindings of one exchange.
pub(crate) struct Index {
    headers: Map<Arc<[u8]>, Header>,
    conditions: Vec<Waiting>,
    free: Vec<ConditionId>,
    /// By slot.
    bindings: Vec<Option<Binding>>,
    /// `all` bindings without conditions.
    always: SlotGroups,
    always_group: GroupId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ConditionId(u32);

/// The conditions on one header.
#[derive(Default)]
struct Header {
    present: Option<ConditionId>,
    values: Map<Box<[u8]>, ConditionId>,
}

/// The bindings that wait for one condition.
struct Waiting {
    condition: Condition,
    /// How many bindings have this condition; it goes with the last.
    uses: u32,
    /// These take the message as soon as the condition holds.
    sure: Vec<BindingSlot>,
    /// These have further conditions.
    to_check: Vec<BindingSlot>,
}

/// One binding, compiled.
struct Binding {
    mode: Mode,
    conditions: Box<[ConditionId]>,
    /// Where an `all` binding waits.
    waits_at: Option<ConditionId>,
}

impl Index {
    pub(crate) fn insert(&mut self, slot: BindingSlot, matching: &Matching) {
        self.remove(slot);
        let conditions: Box<[_]> = matching.conditions.iter().map(|condition| self.acquire(condition)).collect();
        let waits_at = match matching.mode {
            Mode::All => conditions.iter().copied().min_by_key(|id| self.waiting(*id).count()),
            Mode::Any => None,
        };
        match (matching.mode, waits_at) {
            (Mode::All, None) => self.always.insert(self.always_group, slot),
            (Mode::All, Some(id)) if conditions.len() == 1 => self.waiting_mut(id).sure.push(slot),
            (Mode::All, Some(id)) => self.waiting_mut(id).to_check.push(slot),
            (Mode::Any, _) => conditions.iter().for_each(|id| self.waiting_mut(*id).sure.push(slot)),
        }
        let place = slot.0 as usize;
        if place >= self.bindings.len() {
            self.bindings.resize_with(place + 1, || None);
        }
        self.bindings[place] = Some(Binding { mode: matching.mode, conditions, waits_at });
    }

    pub(crate) fn remove(&mut self, slot: BindingSlot) {
        let Some(binding) = self.bindings.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        self.always.remove(slot);
        match binding.mode {
            Mode::All => {
                if let Some(id) = binding.waits_at {
                    let waiting = self.waiting_mut(id);
                    take_out(&mut waiting.sure, slot);
                    take_out(&mut waiting.to_check, slot);
                }
            }
            Mode::Any => binding.conditions.iter().for_each(|id| take_out(&mut self.waiting_mut(*id).sure, slot)),
        }
        binding.conditions.iter().for_each(|id| self.release(*id));
    }

    /// Pushes the slots of the bindings that a message with these headers takes; `any` bindings once a condition.
    pub(crate) fn walk(&self, headers: Option<TableRef<'_>>, routes: &mut Routes<'_>) {
        routes.extend(self.always.slots(self.always_group));
        let Some(headers) = headers else { return };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.begin(self.conditions.len());
            self.find_fulfilled(headers, scratch);
            for id in &scratch.fulfilled {
                let waiting = self.waiting(*id);
                routes.extend(&waiting.sure);
                for slot in &waiting.to_check {
                    if self.is_fulfilled(*slot, scratch) {
                        routes.push(*slot);
                    }
                }
            }
        });
    }

    fn find_fulfilled(&self, headers: TableRef<'_>, scratch: &mut Scratch) {
        // The broker has checked the headers; what cannot be read all the same fulfils nothing.
        for (name, value) in headers.iter().map_while(Result::ok) {
            let Some(header) = self.headers.get(name) else { continue };
            header.present.into_iter().for_each(|id| scratch.fulfil(id));
            if header.values.is_empty() {
                continue;
            }
            scratch.value.clear();
            if canonical::write(value, &mut scratch.value).is_ok()
                && let Some(id) = header.values.get(scratch.value.as_slice())
            {
                scratch.fulfil(*id);
            }
        }
    }

    fn is_fulfilled(&self, slot: BindingSlot, scratch: &Scratch) -> bool {
        let binding = self.bindings.get(slot.0 as usize).and_then(Option::as_ref);
        binding.is_some_and(|binding| binding.conditions.iter().all(|id| scratch.has(*id)))
    }

    /// The number of a condition, for a binding; [`Index::release`] ends it.
    fn acquire(&mut self, condition: &Condition) -> ConditionId {
        let header = match self.headers.get_mut(condition.header.as_slice()) {
            Some(header) => header,
            None => self.headers.entry(Arc::from(condition.header.as_slice())).or_default(),
        };
        let known = match &condition.value {
            None => header.present,
            Some(value) => header.values.get(value.as_slice()).copied(),
        };
        if let Some(id) = known {
            self.waiting_mut(id).uses += 1;
            return id;
        }
        let waiting = Waiting { condition: condition.clone(), uses: 1, sure: Vec::new(), to_check: Vec::new() };
        let id = match self.free.pop() {
            Some(id) => {
                self.conditions[id.0 as usize] = waiting;
                id
            }
            None => {
                self.conditions.push(waiting);
                ConditionId(u32::try_from(self.conditions.len() - 1).expect("fewer conditions than fit into memory"))
            }
        };
        match &condition.value {
            None => header.present = Some(id),
            Some(value) => drop(header.values.insert(value.as_slice().into(), id)),
        }
        id
    }

    fn release(&mut self, id: ConditionId) {
        let waiting = self.waiting_mut(id);
        waiting.uses -= 1;
        if waiting.uses > 0 {
            return;
        }
        let name = std::mem::take(&mut waiting.condition.header);
        let value = waiting.condition.value.take();
        self.free.push(id);
        let Some(header) = self.headers.get_mut(name.as_slice()) else { return };
        match value {
            None => header.present = None,
            Some(value) => drop(header.values.remove(value.as_slice())),
        }
        if header.present.is_none() && header.values.is_empty() {
            self.headers.remove(name.as_slice());
        }
    }

    fn waiting(&self, id: ConditionId) -> &Waiting {
        &self.conditions[id.0 as usize]
    }

    fn waiting_mut(&mut self, id: ConditionId) -> &mut Waiting {
        &mut self.conditions[id.0 as usize]
    }
}

impl Default for Index {
    fn default() -> Self {
        let mut always = SlotGroups::new();
        let always_group = always.open();
        Self {
            headers: Map::default(),
            conditions: Vec::new(),
            free: Vec::new(),
            bindings: Vec::new(),
            always,
            always_group,
        }
    }
}

impl Waiting {
    const fn count(&self) -> usize {
        self.sure.len() + self.to_check.len()
    }
}

fn take_out(slots: &mut Vec<BindingSlot>, slot: BindingSlot) {
    if let Some(index) = slots.iter().position(|other| *other == slot) {
        slots.swap_remove(index);
    }
}

thread_local! {
    /// What a route notes, kept so that it does not allocate.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

struct Scratch {
    fulfilled: Vec<ConditionId>,
    /// Per condition the last route whose message fulfilled it.
    marks: Vec<u64>,
    route: u64,
    value: Vec<u8>,
}

impl Scratch {
    const fn new() -> Self {
        Self { fulfilled: Vec::new(), marks: Vec::new(), route: 0, value: Vec::new() }
    }

    fn begin(&mut self, conditions: usize) {
        if self.marks.len() < conditions {
            self.marks.resize(conditions, 0);
        }
        self.route += 1;
        self.fulfilled.clear();
    }

    fn fulfil(&mut self, id: ConditionId) {
        // A header that comes twice fulfils its conditions once.
        let mark = &mut self.marks[id.0 as usize];
        if std::mem::replace(mark, self.route) != self.route {
            self.fulfilled.push(id);
        }
    }

    fn has(&self, id: ConditionId) -> bool {
        self.marks.get(id.0 as usize) == Some(&self.route)
    }
}

#[cfg(test)]
mod tests;
