//! The hooks in force, which a reload replaces while the broker runs.
//!
//! A new set is read, compiled and run before anything changes; if anything is wrong with it, the old one stays. Then the sets are
//! exchanged in one step. Whoever has chains of the old set keeps them until it sees, between two messages, that
//! [`Hooks::generation`] has moved; so a message passes hooks of one set only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::chain::HookChain;
use super::decl::{HookDecl, Site};
use super::error::HookError;
use super::point::Point;
use super::set::HookSet;
use super::shared::Stores;
use super::status::HookStatus;
use crate::events::Events;

/// See the module.
#[derive(Debug, Default)]
pub struct Hooks {
    set: RwLock<HookSet>,
    generation: AtomicU64,
    stores: Stores,
    events: Events,
    /// One reload at a time.
    reloading: Mutex<Reloads>,
}

/// How reloads went since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reloads {
    /// The set was exchanged.
    pub replaced: u64,
    /// Nothing had changed.
    pub unchanged: u64,
    /// Something was wrong with the new set, or with what was to come with it.
    pub refused: u64,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The new set is in force.
    Replaced,
    /// It is the same as the old one, which stays.
    Unchanged,
}

/// An exchange of sets that can still be gone back on.
#[derive(Debug)]
#[must_use]
pub struct Exchanged {
    old: HookSet,
    /// Whether the new set is another than the old one.
    pub reloaded: Reloaded,
}

impl Hooks {
    /// The hooks that a topology declares; when one fails, `events` are told.
    ///
    /// # Errors
    /// As of [`HookSet::load`].
    pub fn load(decls: &[HookDecl], events: Events) -> Result<Self, Vec<HookError>> {
        let stores = Stores::default();
        let set = RwLock::new(HookSet::load_beside(decls, &stores, &events, None)?);
        Ok(Self { set, stores, events, ..Self::default() })
    }

    /// Replaces all hooks by these. Reads files and takes the time that scripts take to load, so not for a thread that serves
    /// connections.
    ///
    /// # Errors
    /// As of [`HookSet::load`]; then everything is as before.
    pub fn replace(&self, decls: &[HookDecl]) -> Result<Reloaded, Vec<HookError>> {
        self.exchange(decls).map(|exchanged| self.keep(exchanged))
    }

    /// The first half of [`Self::replace`], for somebody who may want to go back: what it returns is for [`Self::keep`] or [`Self::put_back`].
    ///
    /// # Errors
    /// As of [`Self::replace`].
    pub fn exchange(&self, decls: &[HookDecl]) -> Result<Exchanged, Vec<HookError>> {
        let mut reloads = self.reloading.lock();
        let old = self.current();
        let new = HookSet::load_beside(decls, &self.stores, &self.events, Some(&old));
        let new = new.inspect_err(|_| reloads.refused += 1)?;
        if new.is_same_as(&old) {
            return Ok(Exchanged { old, reloaded: Reloaded::Unchanged });
        }
        *self.set.write() = new;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(Exchanged { old, reloaded: Reloaded::Replaced })
    }

    /// The new set stays.
    pub fn keep(&self, exchanged: Exchanged) -> Reloaded {
        let mut reloads = self.reloading.lock();
        match exchanged.reloaded {
            Reloaded::Unchanged => reloads.unchanged += 1,
            Reloaded::Replaced => {
                let set = self.current();
                self.stores.retain(|script| set.decls().iter().any(|decl| decl.script == script));
                reloads.replaced += 1;
            }
        }
        exchanged.reloaded
    }

    /// The old set is in force again, as it was loaded: its files are not read again.
    pub fn put_back(&self, exchanged: Exchanged) {
        let mut reloads = self.reloading.lock();
        if exchanged.reloaded == Reloaded::Replaced {
            let set = exchanged.old;
            self.stores.retain(|script| set.decls().iter().any(|decl| decl.script == script));
            *self.set.write() = set;
            self.generation.fetch_add(1, Ordering::Release);
        }
        reloads.refused += 1;
    }

    /// Loads the scripts of the hooks in force again.
    ///
    /// # Errors
    /// As of [`Self::replace`].
    pub fn reload(&self) -> Result<Reloaded, Vec<HookError>> {
        self.replace(self.current().decls())
    }

    /// Moves with each exchange. Who sees it move asks again for its chains.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The set of this moment.
    #[must_use]
    pub fn current(&self) -> HookSet {
        self.set.read().clone()
    }

    /// As of [`HookSet::chain`].
    #[must_use]
    pub fn chain(&self, vhost: &str, exchange: &str) -> Option<Arc<HookChain>> {
        self.set.read().chain(vhost, exchange)
    }

    /// As of [`HookSet::chain_at`].
    #[must_use]
    pub fn chain_at(&self, point: Point, vhost: &str, site: Site<'_>) -> Option<Arc<HookChain>> {
        self.set.read().chain_at(point, vhost, site)
    }

    /// As of [`HookSet::status`].
    #[must_use]
    pub fn status(&self) -> Vec<HookStatus> {
        self.current().status()
    }

    /// How reloads went.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        *self.reloading.lock()
    }
}
