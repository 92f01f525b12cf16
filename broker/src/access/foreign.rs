//! Users that an auth backend has let in: what it is asked about them, and what it has answered.
//!
//! Whoever needs a permission looks here and does not wait. What is not known is noted down, the answer is "no" for the moment,
//! and [`super::Access::judge`] asks for all that was noted; then the same thing is tried again. So a backend that thinks holds up
//! the channel that asked and nobody else, and what is known costs a look into a small map.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use plugin_api::auth::{Identity, Permission, Resource, Subject};

/// What may be asked of a backend about a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// May the vhost be entered?
    Vhost(String),
    /// May this be done to an exchange or a queue?
    Resource {
        /// The vhost.
        vhost: String,
        /// Which kind.
        resource: Resource,
        /// Its name.
        name: String,
        /// What is to be done.
        permission: Permission,
    },
    /// May a topic exchange be used with this key?
    Topic {
        /// The vhost.
        vhost: String,
        /// The exchange.
        exchange: String,
        /// The key.
        routing_key: String,
        /// What is to be done.
        permission: Permission,
    },
}

/// A user that a backend has let in, for one connection or one request.
pub struct Foreign {
    /// The backend's place in the chain.
    pub(super) backend: usize,
    identity: Identity,
    peer: IpAddr,
    answers: Mutex<Answers>,
    epoch: AtomicU64,
    /// [`super::Access::generation`] that the answers belong to.
    generation: AtomicU64,
}

#[derive(Default)]
struct Answers {
    known: HashMap<Question, Known>,
    unanswered: Vec<Question>,
    /// Being asked at present.
    asked: HashSet<Question>,
}

#[derive(Clone, Copy)]
struct Known {
    is_permitted: bool,
    /// Until when, in milliseconds since the epoch.
    until_ms: u64,
}

/// The longest list of answers for one connection; beyond it all are forgotten and asked anew.
const ANSWERS_MAX: usize = 1024;
/// While answers are missing, others that have lapsed stay good for so long: what needs several of them must find them all.
const GRACE_MS: u64 = 60_000;

/// A connection's answers never have the number that those of another one had: caches may be kept by it.
static EPOCHS: AtomicU64 = AtomicU64::new(1);

impl Foreign {
    pub(super) fn new(backend: usize, identity: Identity, peer: IpAddr) -> Self {
        let epoch = AtomicU64::new(EPOCHS.fetch_add(1, Ordering::Relaxed));
        Self { backend, identity, peer, answers: Mutex::default(), epoch, generation: AtomicU64::new(0) }
    }

    /// When the credentials end, in milliseconds since the epoch.
    #[must_use]
    pub const fn expires_at_ms(&self) -> Option<u64> {
        self.identity.expires_at_ms
    }

    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// As the backend that let the user in is told of them.
    pub(super) fn subject(&self) -> Subject<'_> {
        self.identity.subject(self.peer)
    }

    /// Changes whenever an answer may be another than before.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// What is known; otherwise it is noted down, and refused for the moment.
    pub fn permits(&self, question: Question) -> bool {
        let mut answers = self.answers.lock();
        if let Some(known) = answers.known.get(&question) {
            return known.is_permitted;
        }
        if !answers.asked.contains(&question) && !answers.unanswered.contains(&question) {
            answers.unanswered.push(question);
        }
        false
    }

    /// Whether something that was looked up is not known yet: what failed meanwhile is to be tried again when it is.
    #[must_use]
    pub fn has_open_questions(&self) -> bool {
        let answers = self.answers.lock();
        !answers.unanswered.is_empty() || !answers.asked.is_empty()
    }

    /// Whether there is something that nobody asks yet.
    #[must_use]
    pub fn has_unasked(&self) -> bool {
        !self.answers.lock().unanswered.is_empty()
    }

    /// What was noted down and is not needed after all.
    pub fn forget_unasked(&self) {
        self.answers.lock().unanswered.clear();
    }

    /// Forgets answers whose time is over; returns whether there were any.
    pub(super) fn lapse(&self, now_ms: u64) -> bool {
        let mut answers = self.answers.lock();
        let is_waiting = !answers.unanswered.is_empty() || !answers.asked.is_empty();
        let grace_ms = if is_waiting { GRACE_MS } else { 0 };
        let before = answers.known.len();
        answers.known.retain(|_, known| known.until_ms.saturating_add(grace_ms) > now_ms);
        let has_lapsed = answers.known.len() < before;
        drop(answers);
        if has_lapsed {
            self.begin_epoch();
        }
        has_lapsed
    }

    /// Forgets everything when users have changed since, or somebody wants everything asked anew.
    pub(super) fn forget_if_changed(&self, generation: u64) {
        if self.generation.swap(generation, Ordering::Relaxed) != generation {
            self.answers.lock().known.clear();
            self.begin_epoch();
        }
    }

    fn begin_epoch(&self) {
        self.epoch.store(EPOCHS.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What is to be asked now; it counts as asked from here on.
    pub(super) fn take_unanswered(&self) -> Vec<Question> {
        let mut answers = self.answers.lock();
        let questions = std::mem::take(&mut answers.unanswered);
        answers.asked.extend(questions.iter().cloned());
        questions
    }

    pub(super) fn answer(&self, question: Question, is_permitted: bool, until_ms: u64) {
        let mut answers = self.answers.lock();
        answers.asked.remove(&question);
        let is_full = answers.known.len() >= ANSWERS_MAX;
        if is_full {
            answers.known.clear();
        }
        answers.known.insert(question, Known { is_permitted, until_ms });
        drop(answers);
        if is_full {
            self.begin_epoch();
        }
    }
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreign")
            .field("backend", &self.backend)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Two are the same where the backend would not tell them apart.
impl PartialEq for Foreign {
    fn eq(&self, other: &Self) -> bool {
        (self.backend, &self.identity, self.peer) == (other.backend, &other.identity, other.peer)
    }
}

impl Eq for Foreign {}

/// What a user may publish to, or bind from, a topic exchange, as a backend says it.
#[derive(Debug)]
pub(super) struct ForeignTopics {
    pub(super) user: Arc<Foreign>,
    pub(super) vhost: String,
    pub(super) exchange: String,
}

impl ForeignTopics {
    pub(super) fn permits(&self, permission: Permission, routing_key: &str) -> bool {
        let (vhost, exchange) = (self.vhost.clone(), self.exchange.clone());
        self.user.permits(Question::Topic { vhost, exchange, routing_key: routing_key.to_owned(), permission })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign() -> Foreign {
        Foreign::new(1, Identity::new("app", ["x"]), IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn what_is_not_known_is_refused_and_asked_once() {
        let user = foreign();
        let question = Question::Vhost("/".into());
        assert!(!user.permits(question.clone()));
        assert!(!user.permits(question.clone()));
        assert!(user.has_unasked());
        assert_eq!(user.take_unanswered(), std::slice::from_ref(&question));
        assert!(!user.permits(question.clone()), "it is being asked");
        assert!(!user.has_unasked() && user.has_open_questions());
        user.answer(question.clone(), true, 1000);
        assert!(user.permits(question) && !user.has_open_questions());
    }

    #[test]
    fn answers_end_with_their_time_and_caches_hear_of_it() {
        let user = foreign();
        let question = Question::Vhost("/".into());
        user.answer(question.clone(), true, 1000);
        let epoch = user.epoch();
        assert!(!user.lapse(999) && user.epoch() == epoch);
        assert!(user.lapse(1000) && user.epoch() != epoch);
        assert!(!user.permits(question));
        // While something is waited for, what belongs to it stays.
        user.answer(Question::Vhost("other".into()), true, 2000);
        assert!(!user.lapse(3000));
        assert!(user.lapse(2000 + GRACE_MS));
    }

    #[test]
    fn answers_are_bounded() {
        let user = foreign();
        for number in 0..5 * ANSWERS_MAX {
            user.answer(Question::Vhost(number.to_string()), true, u64::MAX);
            assert!(user.answers.lock().known.len() <= ANSWERS_MAX);
        }
    }
}
