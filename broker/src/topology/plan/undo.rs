//! Going back when a plan could not be carried out to its end: somebody has filled a queue, or a plugin has refused, after the plan was made.
//!
//! Steps are taken back in the opposite order, by the entries that made them. What others have begun to rely on meanwhile is not taken from them: a queue that has
//! got messages or consumers stays, and so does a vhost in which there are queues; [`undo()`] says so. Queues that were replaced were empty, so that
//! nothing but their number differs from what was there.

use std::collections::BTreeMap;

use super::carry_out::Run;
use super::marks::{self, Marks};
use super::{Action, CarriedOut, Change, Object, Plan, Target, Wish};
use crate::access::SavedUsers;
use crate::origin::Origin;
use crate::topology::schema::Topology;
use crate::topology::snapshot::snapshot;

/// What is there before a plan is carried out, as far as [`undo()`] needs it.
#[derive(Debug)]
pub struct Before {
    topology: Topology,
    users: SavedUsers,
    /// Where the settings come from that are changed or removed.
    origins: BTreeMap<Object, Origin>,
    marks: Marks,
}

impl Before {
    /// To be taken between [`Plan::make`] and [`super::carry_out()`]. `owner` is that of the file.
    #[must_use]
    pub fn of(plan: &Plan, owner: &str, target: &Target<'_>) -> Self {
        let objects = || plan.changes.iter().map(|change| &change.object);
        Self {
            topology: snapshot(target.access, target.vhosts, None),
            users: target.access.save(objects().filter_map(user_of)),
            origins: objects().filter_map(|object| Some((object.clone(), origin(object, target)?))).collect(),
            marks: marks::of(target.vhosts, owner),
        }
    }
}

/// Takes back what was done of the plan. Returns what could not be taken back, and why.
#[must_use]
pub fn undo(plan: &Plan, result: &CarriedOut, before: &Before, owner: &str, target: &Target<'_>) -> Vec<String> {
    let rebind = before.topology.vhosts.iter();
    let rebind = rebind.flat_map(|vhost| vhost.bindings.iter().map(|binding| (vhost.name.clone(), binding.clone())));
    let back = Plan { rebind: rebind.collect(), ..Plan::default() };
    let run = Run::new(&back, &before.topology, target, Wish::default());
    let undoing = Undo { run, before, target };
    let owners = marks::all(target.vhosts);
    let mut remains = Vec::new();
    let mut note = |change: &Change, result: Result<(), String>| {
        remains.extend(result.err().map(|why| format!("{}: {why}", change.object)));
    };
    let (done, failed) = plan.changes.split_at_checked(result.done.len()).unwrap_or((&plan.changes, &[]));
    if let Some(change) = failed.first().filter(|change| change.action == Action::Replace && result.failed.is_some()) {
        note(change, undoing.replace_half_done(&change.object));
    }
    for change in done.iter().rev() {
        note(change, undoing.step(change));
    }
    target.access.put_back(&before.users);
    // Those who own what was replaced own what has taken its place again.
    let mut marks = before.marks.clone();
    for change in plan.changes.iter().filter(|change| change.action == Action::Replace) {
        let object = &change.object;
        for owner in owners.get(object).into_iter().flatten() {
            marks::renew(target.vhosts, owner, object);
        }
        if let Some(number) = marks.get_mut(object) {
            *number = marks::number_of(target.vhosts, object);
        }
    }
    marks::write(target.vhosts, owner, &marks);
    remains
}

struct Undo<'a> {
    run: Run<'a>,
    before: &'a Before,
    target: &'a Target<'a>,
}

impl Undo<'_> {
    fn step(&self, change: &Change) -> Result<(), String> {
        let object = &change.object;
        match (object, change.action) {
            // They are put back together.
            (Object::User(_) | Object::Permission(..) | Object::TopicPermission(..), _) => Ok(()),
            (Object::Vhost(name), Action::Create) => self.remove_vhost(name),
            (_, Action::Create) => self.run.remove(object),
            (_, Action::Update | Action::Remove) => self.set(object),
            (_, Action::Replace) => self.run.replace(object),
        }
    }

    /// Settings come from where they came from.
    fn set(&self, object: &Object) -> Result<(), String> {
        let origin = self.before.origins.get(object).copied();
        let vhost = || object.vhost().and_then(|name| self.target.vhosts.get(name)).ok_or("its vhost is gone");
        let old = || self.before.topology.vhosts.iter().find(|vhost| Some(vhost.name.as_str()) == object.vhost());
        let text = |error: &dyn std::fmt::Display| error.to_string();
        match (object, origin) {
            (Object::Vhost(_), origin) => {
                let (vhost, Some(old)) = (vhost()?, old()) else { return Ok(()) };
                if vhost.is_traced() != old.is_traced {
                    vhost.set_tracing(old.is_traced);
                }
                let metadata = old.metadata.clone().unwrap_or_default();
                vhost.put_metadata(metadata, origin.unwrap_or(Origin::Topology)).map(drop).map_err(|error| text(&error))
            }
            (Object::Limits(_), Some(origin)) => {
                let limits = old().and_then(|old| old.limits).unwrap_or_default();
                vhost()?.put_limits(limits, origin).map(drop).map_err(|error| text(&error))
            }
            (Object::Policy(_, kind, name), Some(origin)) => {
                let mut policies = old().into_iter().flat_map(|old| &old.policies);
                let spec = policies.find(|(of, spec)| of == kind && spec.name == *name).map(|(_, spec)| spec.clone());
                let spec = spec.ok_or("it was not there before")?;
                vhost()?.put_policy(*kind, spec, origin).map(drop).map_err(|error| text(&error))
            }
            _ => self.run.put(object),
        }
    }

    /// It may be gone, there again, or not bound as it was.
    fn replace_half_done(&self, object: &Object) -> Result<(), String> {
        self.run.put(object)?;
        self.run.rebind(object)
    }

    /// Its own queues went before it.
    fn remove_vhost(&self, name: &str) -> Result<(), String> {
        match self.target.vhosts.get(name) {
            Some(vhost) if vhost.counts().1 > 0 => Err("somebody has declared queues in it meanwhile".to_owned()),
            Some(_) => self.target.hands.delete_vhost(name),
            None => Ok(()),
        }
    }
}

fn origin(object: &Object, target: &Target<'_>) -> Option<Origin> {
    let vhost = || target.vhosts.get(object.vhost()?);
    match object {
        Object::Vhost(_) => vhost()?.metadata_origin(),
        Object::Limits(_) => vhost()?.limits_origin(),
        Object::Policy(_, kind, name) => vhost()?.policy(*kind, name).map(|policy| policy.origin()),
        _ => None,
    }
}

fn user_of(object: &Object) -> Option<&str> {
    match object {
        Object::User(name) | Object::Permission(name, _) | Object::TopicPermission(name, ..) => Some(name),
        _ => None,
    }
}
