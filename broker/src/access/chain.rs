//! The chain of backends: the broker's own users and those of plugins, in the order of the topology file.
//!
//! At a login they are asked in order until one accepts (semantics 4.10). A backend that cannot decide counts as one that refuses. What
//! a user may do is asked of the backend that let them in, or of those that the file names instead, which must all agree.
//! Answers that a backend lets the broker keep serve every connection of the same user.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, ExternalLogin, Identity, Login, Renewal, ResourceRequest, Subject, TopicRequest,
    Verdict, VhostRequest,
};
use sha2::{Digest, Sha256};

use super::foreign::{Foreign, Question};
use super::{Access, Permission, Refusal, User};

/// One step of the chain.
pub struct Backend {
    /// Its name, for people and for lists of authorization.
    pub name: String,
    /// None is the broker's own users.
    pub asked: Option<Arc<dyn AuthBackend>>,
    /// Who says what the users that it lets in may do, by name; empty is itself.
    pub authorization: Vec<String>,
}

/// See the module.
pub(super) struct Chain {
    steps: Vec<Step>,
    /// So many of the first are asked about logins.
    login_count: usize,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
    /// Keys of what is kept tell nothing about passwords.
    salt: [u8; 32],
}

struct Step {
    name: String,
    asked: Option<Arc<dyn AuthBackend>>,
    /// Places of the steps that say what is allowed.
    authorization: Vec<usize>,
}

struct Kept {
    verdict: Verdict<Option<Identity>>,
    until_ms: u64,
}

/// The most answers that are kept; a good deal less than 64 MB, and what is forgotten is asked again.
const KEPT_MAX: usize = 65_536;
/// An answer about a connected user is kept for that long at least: not each message of a stream waits for a backend.
const KEEP_MIN: Duration = Duration::from_secs(1);

impl Default for Chain {
    fn default() -> Self {
        let internal = Step { name: INTERNAL.to_owned(), asked: None, authorization: vec![0] };
        Self::of(vec![internal])
    }
}

/// What shows that somebody is who they say.
#[derive(Clone, Copy)]
pub(super) enum Proof<'a> {
    /// It is still to be looked at.
    Password(&'a [u8]),
    /// The broker has looked at it: a certificate.
    External,
}

/// The name of the broker's own users.
pub const INTERNAL: &str = "internal";

impl Chain {
    /// Authorization may name the broker's own users also where nobody logs in by them.
    pub(super) fn new(mut backends: Vec<Backend>) -> Self {
        let login_count = backends.len();
        let asks_internal = backends.iter().flat_map(|backend| &backend.authorization).any(|name| name == INTERNAL);
        if asks_internal && backends.iter().all(|backend| backend.name != INTERNAL) {
            backends.push(Backend { name: INTERNAL.to_owned(), asked: None, authorization: Vec::new() });
        }
        let names: Vec<String> = backends.iter().map(|backend| backend.name.clone()).collect();
        let place = |name: &String| names.iter().position(|other| other == name);
        let steps = backends.into_iter().enumerate().map(|(index, backend)| {
            let mut authorization: Vec<usize> = backend.authorization.iter().filter_map(place).collect();
            if backend.authorization.is_empty() {
                authorization.push(index);
            }
            Step { name: backend.name, asked: backend.asked, authorization }
        });
        Self { login_count, ..Self::of(steps.collect()) }
    }

    fn of(steps: Vec<Step>) -> Self {
        let mut salt = [0; 32];
        // Without randomness keys can be guessed by who reads the process's memory, who can read passwords there, too.
        if let Err(error) = getrandom::fill(&mut salt) {
            tracing::warn!(%error, "no randomness for the cache of auth backends");
        }
        Self { login_count: steps.len(), steps, kept: Mutex::default(), salt }
    }

    /// Whether any backend is not the broker's own.
    pub(super) fn has_foreign(&self) -> bool {
        self.steps.iter().any(|step| step.asked.is_some())
    }

    pub(super) fn forget(&self) {
        self.kept.lock().clear();
    }

    fn key(&self, place: usize, parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.salt);
        digest.update(place.to_le_bytes());
        for part in parts {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn kept(&self, key: &[u8; 32], now_ms: u64) -> Option<(Verdict<Option<Identity>>, u64)> {
        let kept = self.kept.lock();
        kept.get(key).filter(|kept| kept.until_ms > now_ms).map(|kept| (kept.verdict.clone(), kept.until_ms))
    }

    fn keep(&self, key: [u8; 32], verdict: Verdict<Option<Identity>>, valid_for: Duration, now_ms: u64) {
        if valid_for.is_zero() {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, kept| kept.until_ms > now_ms);
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
        }
        kept.insert(key, Kept { verdict, until_ms: until(now_ms, valid_for) });
    }
}

impl Access {
    /// Forgets what a backend has answered about the user and is no longer good. To be called now and then.
    pub fn lapse(&self, user: &User, now_ms: u64) {
        if let Some(foreign) = &user.foreign {
            foreign.forget_if_changed(self.generation());
            foreign.lapse(now_ms);
        }
    }

    /// Asks these backends in this order.
    #[must_use]
    pub fn with_backends(self, backends: Vec<Backend>) -> Self {
        Self { chain: Chain::new(backends), ..self }
    }

    /// Whether there are users that the broker itself does not know.
    #[must_use]
    pub fn has_foreign_backends(&self) -> bool {
        self.chain.has_foreign()
    }

    /// Forgets what backends have answered, so that everything is asked anew.
    pub fn forget_answers(&self) {
        self.chain.forget();
        self.changed();
    }

    /// The first backend that accepts; otherwise the internal users' reason, if they were asked and knew the name.
    pub(super) async fn login_by_chain(
        &self,
        name: Option<&str>,
        proof: Proof<'_>,
        peer: IpAddr,
    ) -> Result<Arc<User>, Refusal> {
        let mut refusal = Refusal::UnknownUser;
        for (place, step) in self.chain.steps.iter().take(self.chain.login_count).enumerate() {
            let Some(backend) = &step.asked else {
                let user = match proof {
                    Proof::Password(password) => self.internal_login(name, password, peer),
                    Proof::External => self.internal_login_external(name, peer),
                };
                match user {
                    Ok(user) => return Ok(self.authorized(place, user, peer)),
                    Err(reason) => refusal = reason,
                }
                continue;
            };
            // A backend is not told names that are no text.
            let Some(name) = name else { continue };
            match self.ask_login(place, &**backend, name, proof, peer).await {
                Ok(Verdict::Allow(identity)) => return Ok(Arc::new(User::foreign(place, identity, peer))),
                Ok(Verdict::Deny(reason)) => {
                    tracing::info!(backend = step.name, user = name, reason, "auth backend refused a login");
                    refusal = Refusal::Backend;
                }
                Ok(Verdict::NotMine) => {}
                Err(error) => {
                    tracing::warn!(backend = step.name, user = name, %error, "auth backend could not decide about a login");
                    refusal = Refusal::Backend;
                }
            }
        }
        Err(refusal)
    }

    /// An internal user whose permissions others know is one of theirs from here on.
    fn authorized(&self, place: usize, user: Arc<User>, peer: IpAddr) -> Arc<User> {
        let is_own = self.chain.steps.get(place).is_none_or(|step| step.authorization == [place]);
        if is_own {
            return user;
        }
        let identity = Identity::new(&user.name, &user.tags);
        Arc::new(User { foreign: Some(Arc::new(Foreign::new(place, identity, peer))), ..User::clone(&user) })
    }

    async fn ask_login(
        &self,
        place: usize,
        backend: &dyn AuthBackend,
        user: &str,
        proof: Proof<'_>,
        peer: IpAddr,
    ) -> Result<Verdict<Identity>, AuthError> {
        let address = peer.to_string();
        let (kind, password): (&[u8], &[u8]) = match proof {
            Proof::Password(password) => (b"login", password),
            Proof::External => (b"external", b""),
        };
        let key = self.chain.key(place, &[kind, user.as_bytes(), password, address.as_bytes()]);
        let now_ms = wall_ms();
        let verdict = match self.chain.kept(&key, now_ms) {
            Some((verdict, _)) => verdict,
            None => {
                let answer = match proof {
                    Proof::Password(password) => backend.login(&Login { user, password, vhost: None, peer }).await?,
                    Proof::External => backend.login_external(&ExternalLogin { user, peer }).await?,
                };
                let verdict = match answer.verdict {
                    Verdict::Allow(identity) => Verdict::Allow(Some(identity)),
                    Verdict::Deny(reason) => Verdict::Deny(reason),
                    Verdict::NotMine => Verdict::NotMine,
                };
                self.chain.keep(key, verdict.clone(), answer.valid_for, now_ms);
                verdict
            }
        };
        Ok(match verdict {
            Verdict::Allow(Some(identity)) if identity.expires_at_ms.is_some_and(|at| at <= now_ms) => {
                Verdict::Deny("the credentials have expired".into())
            }
            Verdict::Allow(Some(identity)) => Verdict::Allow(identity),
            Verdict::Deny(reason) => Verdict::Deny(reason),
            Verdict::Allow(None) | Verdict::NotMine => Verdict::NotMine,
        })
    }

    /// A user has brought a new secret (semantics 4.12). Users of the broker itself have passwords, which do not expire: theirs is not looked at.
    ///
    /// # Errors
    /// The reason why it is not taken, for the log.
    pub async fn renew(&self, user: &Arc<User>, secret: &[u8]) -> Result<Arc<User>, String> {
        let Some(foreign) = &user.foreign else { return Ok(Arc::clone(user)) };
        let Some(step) = self.chain.steps.get(foreign.backend) else { return Err("its backend is gone".into()) };
        let Some(backend) = &step.asked else { return Ok(Arc::clone(user)) };
        let renewal = Renewal { subject: foreign.subject(), secret };
        let identity = match backend.renew(&renewal).await {
            Ok(Answer { verdict: Verdict::Allow(identity), .. }) => identity,
            Ok(Answer { verdict: Verdict::Deny(reason), .. }) => return Err(reason),
            Ok(Answer { verdict: Verdict::NotMine, .. }) => return Err("the backend does not know the user".into()),
            Err(error) => return Err(error.to_string()),
        };
        if identity.user != user.name {
            return Err(format!("the new secret is that of user '{}'", identity.user));
        }
        if identity.expires_at_ms.is_some_and(|at| at <= wall_ms()) {
            return Err("the new secret has expired".into());
        }
        Ok(Arc::new(User::foreign(foreign.backend, identity, foreign.peer())))
    }

    /// Asks for everything that was looked up about the user and is not known. What goes wrong is a refusal.
    pub async fn judge(&self, user: &User) {
        let Some(foreign) = &user.foreign else { return };
        let questions = foreign.take_unanswered().into_iter();
        let all: Vec<_> = questions.map(|question| Asked { foreign, question: Some(question) }).collect();
        for asked in all {
            let Some(question) = &asked.question else { continue };
            let (is_permitted, until_ms) = self.judge_one(foreign, question).await;
            asked.answered(is_permitted, until_ms);
        }
    }

    async fn judge_one(&self, foreign: &Foreign, question: &Question) -> (bool, u64) {
        let Some(step) = self.chain.steps.get(foreign.backend) else { return (false, until(wall_ms(), KEEP_MIN)) };
        let mut until_ms = u64::MAX;
        for &place in &step.authorization {
            // What a session holds is the business of who made it.
            let foreign_session = place != foreign.backend;
            let subject = Subject {
                session: if foreign_session { &[] } else { &foreign.identity().session },
                ..foreign.subject()
            };
            let (is_permitted, this_until_ms) = self.ask(place, subject, question).await;
            until_ms = until_ms.min(this_until_ms);
            if !is_permitted {
                return (false, until_ms);
            }
        }
        (!step.authorization.is_empty(), until_ms)
    }

    async fn ask(&self, place: usize, subject: Subject<'_>, question: &Question) -> (bool, u64) {
        let now_ms = wall_ms();
        let keep_min = until(now_ms, KEEP_MIN);
        let Some(step) = self.chain.steps.get(place) else { return (false, keep_min) };
        let Some(backend) = &step.asked else { return (self.internal_permits(subject.user, question), keep_min) };
        let key = self.question_key(place, &subject, question);
        if let Some((verdict, until_ms)) = self.chain.kept(&key, now_ms) {
            return (matches!(verdict, Verdict::Allow(_)), until_ms.max(keep_min));
        }
        let answer = match question {
            Question::Vhost(vhost) => backend.vhost(&VhostRequest { subject, vhost }).await,
            Question::Resource { vhost, resource, name, permission } => {
                let (resource, permission) = (*resource, *permission);
                backend.resource(&ResourceRequest { subject, vhost, resource, name, permission }).await
            }
            Question::Topic { vhost, exchange, routing_key, permission } => {
                let permission = *permission;
                backend.topic(&TopicRequest { subject, vhost, exchange, routing_key, permission }).await
            }
        };
        let now_ms = wall_ms();
        match answer {
            Ok(Answer { verdict, valid_for }) => {
                let is_permitted = matches!(verdict, Verdict::Allow(()));
                if let Verdict::Deny(reason) = &verdict {
                    tracing::info!(backend = step.name, user = subject.user, ?question, reason, "auth backend refused");
                }
                let verdict = match verdict {
                    Verdict::Allow(()) => Verdict::Allow(None),
                    Verdict::Deny(reason) => Verdict::Deny(reason),
                    Verdict::NotMine => Verdict::NotMine,
                };
                self.chain.keep(key, verdict, valid_for, now_ms);
                (is_permitted, until(now_ms, valid_for.max(KEEP_MIN)))
            }
            Err(error) => {
                tracing::warn!(backend = step.name, user = subject.user, ?question, %error, "auth backend could not decide");
                (false, until(now_ms, KEEP_MIN))
            }
        }
    }

    fn question_key(&self, place: usize, subject: &Subject<'_>, question: &Question) -> [u8; 32] {
        let (peer, tags) = (subject.peer.to_string(), subject.tags.join("\0"));
        let head = [subject.user.as_bytes(), tags.as_bytes(), subject.session, peer.as_bytes()];
        let text = format!("{question:?}");
        self.chain.key(place, &[&[b"may".as_slice()], head.as_slice(), &[text.as_bytes()]].concat())
    }

    /// What the broker's own users may do, for users that another backend has let in.
    fn internal_permits(&self, user: &str, question: &Question) -> bool {
        match question {
            Question::Vhost(vhost) => self.permissions(user, vhost).is_some(),
            Question::Resource { vhost, name, permission, .. } => {
                let permission = Permission::from(*permission);
                self.permissions(user, vhost).is_some_and(|entry| entry.pattern(permission).matches(name))
            }
            Question::Topic { vhost, exchange, routing_key, permission } => {
                let accounts = self.accounts.read();
                let entry = accounts.get(user).and_then(|account| account.topic_permission(vhost, exchange));
                entry.is_none_or(|topics| topics.permits(Permission::from(*permission), routing_key))
            }
        }
    }
}

/// A question on its way. Whatever becomes of it, it is answered: with no, if nothing else was said.
struct Asked<'a> {
    foreign: &'a Foreign,
    question: Option<Question>,
}

impl Asked<'_> {
    fn answered(mut self, is_permitted: bool, until_ms: u64) {
        if let Some(question) = self.question.take() {
            self.foreign.answer(question, is_permitted, until_ms);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(question) = self.question.take() {
            self.foreign.answer(question, false, until(wall_ms(), KEEP_MIN));
        }
    }
}

fn until(now_ms: u64, time: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
