//! Auth backends of plugins, watched.
//!
//! Each backend has a thread of its own that polls its futures, so that one that blocks holds up nobody but those who ask it;
//! they give up after the time-out. With `isolation: none` the asker's own thread polls, which saves two changes of thread.
//! A backend that faults again and again is not asked for a while, and whoever it would have to let in is refused.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plugin_api::abi::guest::{AskError, GuestAuthBackend, GuestAuthType};
use plugin_api::async_trait;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, ExternalLogin, Identity, Login, Renewal, ResourceRequest, TopicRequest,
    VhostRequest,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::status::Record;

/// How the futures of a backend are polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// On a thread of the backend's own.
    #[default]
    Thread,
    /// On the threads of the broker: for backends that never block.
    None,
}

/// After so many faults in a row a backend is not asked for [`REST`].
pub const FAULTS_MAX: u32 = 3;
/// For how long a backend that faults is left alone.
pub const REST: Duration = Duration::from_secs(10);
/// Questions that may wait for one backend; who asks beyond that is refused at once.
pub const QUESTIONS_MAX: usize = 4096;

/// How one backend fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthCounts {
    /// Questions that were asked.
    pub asked: u64,
    /// Questions without an answer: errors, time-outs, faults.
    pub failed: u64,
    /// Of these, those that were given up because of the time-out.
    pub timed_out: u64,
    /// How long all answers took together, in microseconds.
    pub micros: u64,
}

/// A kind of backend of a plugin.
#[derive(Debug)]
pub(super) struct AuthKind {
    pub(super) guest: GuestAuthType,
    pub(super) plugin: Arc<Record>,
}

/// A backend that is asked through the plugin ABI.
#[derive(Debug)]
pub struct AuthInstance {
    title: String,
    guest: GuestAuthBackend,
    plugin: Arc<Record>,
    timeout: Duration,
    lane: Option<mpsc::UnboundedSender<Job>>,
    waiting: AtomicUsize,
    health: Mutex<Health>,
    asked: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    micros: AtomicU64,
}

#[derive(Debug, Default)]
struct Health {
    /// Faults since the last answer.
    faults: u32,
    rests_until: Option<Instant>,
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

impl AuthInstance {
    /// Watches `guest`; `title` is the backend's name in the topology file.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn new(
        title: &str,
        guest: GuestAuthBackend,
        plugin: Arc<Record>,
        timeout: Duration,
        isolation: Isolation,
    ) -> std::io::Result<Self> {
        let lane = if isolation == Isolation::Thread { Some(lane(title)?) } else { None };
        Ok(Self {
            title: title.to_owned(),
            guest,
            plugin,
            timeout,
            lane,
            waiting: AtomicUsize::new(0),
            health: Mutex::default(),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        })
    }

    /// How it fares.
    pub fn counts(&self) -> AuthCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AuthCounts {
            asked: read(&self.asked),
            failed: read(&self.failed),
            timed_out: read(&self.timed_out),
            micros: read(&self.micros),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<Answer<T>, AskError>> + Send + 'static,
    ) -> Result<Answer<T>, AuthError> {
        if self.is_resting() {
            return Err(AuthError::new("it is not asked for a while, because it faulted repeatedly"));
        }
        if self.plugin.is_stopping() {
            return Err(AuthError::new("it is no longer asked, because the broker stops"));
        }
        let waits = Waits::new(&self.waiting, &self.plugin.questions)?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let answer = tokio::time::timeout(self.timeout, self.poll(question)).await;
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        drop(waits);
        match answer {
            Ok(Ok(answer)) => {
                self.health.lock().faults = 0;
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if let AskError::Fault(fault) = &error {
                    self.fault(&fault.to_string());
                }
                Err(error.into())
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.timed_out.fetch_add(1, Ordering::Relaxed);
                let text = format!("it did not answer within {:?}", self.timeout);
                warn!(plugin = self.plugin.name, backend = self.title, "auth backend: {text}");
                Err(AuthError::new(text))
            }
        }
    }

    async fn poll<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<Answer<T>, AskError>> + Send + 'static,
    ) -> Result<Answer<T>, AskError> {
        let Some(lane) = &self.lane else { return question.await };
        let (mut give, answer) = oneshot::channel();
        let job = Box::pin(async move {
            tokio::select! {
                answer = question => drop(give.send(answer)),
                // Who asked has given up.
                () = give.closed() => {}
            }
        });
        let gone = || AskError::Undecided(AuthError::new("its thread has ended"));
        lane.send(job).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn is_resting(&self) -> bool {
        let mut health = self.health.lock();
        match health.rests_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                health.rests_until = None;
                self.plugin.failed_one_is_gone();
                false
            }
            None => false,
        }
    }

    #[cold]
    fn fault(&self, text: &str) {
        self.plugin.fault(text);
        let mut health = self.health.lock();
        health.faults = health.faults.saturating_add(1);
        let is_failed = health.faults >= FAULTS_MAX;
        // After a rest one more fault is enough.
        if is_failed && health.rests_until.is_none() {
            health.rests_until = Some(Instant::now() + REST);
            self.plugin.failed();
        }
        let state = if is_failed { "failed" } else { "degraded" };
        error!(plugin = self.plugin.name, backend = self.title, state, error = text, "plugin fault");
    }
}

/// One of those who wait for an answer.
struct Waits<'a> {
    backend: &'a AtomicUsize,
    plugin: &'a AtomicUsize,
}

impl<'a> Waits<'a> {
    fn new(backend: &'a AtomicUsize, plugin: &'a AtomicUsize) -> Result<Self, AuthError> {
        plugin.fetch_add(1, Ordering::Relaxed);
        let waits = Self { backend, plugin };
        if backend.fetch_add(1, Ordering::Relaxed) >= QUESTIONS_MAX {
            return Err(AuthError::new(format!("{QUESTIONS_MAX} questions wait for it already")));
        }
        Ok(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.backend.fetch_sub(1, Ordering::Relaxed);
        self.plugin.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A thread that polls what it is sent, until the sender is gone.
fn lane(title: &str) -> std::io::Result<mpsc::UnboundedSender<Job>> {
    let (jobs, mut todo) = mpsc::unbounded_channel::<Job>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The kernel shows 15 bytes of it.
    let name = format!("auth-{title}");
    std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(async {
            while let Some(job) = todo.recv().await {
                tokio::spawn(job);
            }
        });
    })?;
    Ok(jobs)
}

#[async_trait]
impl AuthBackend for AuthInstance {
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError> {
        self.ask(self.guest.ask_login(login)).await
    }

    async fn login_external(&self, login: &ExternalLogin<'_>) -> Result<Answer<Identity>, AuthError> {
        self.ask(self.guest.ask_external(login)).await
    }

    async fn renew(&self, renewal: &Renewal<'_>) -> Result<Answer<Identity>, AuthError> {
        self.ask(self.guest.ask_renew(renewal)).await
    }

    async fn vhost(&self, request: &VhostRequest<'_>) -> Result<Answer<()>, AuthError> {
        self.ask(self.guest.ask_vhost(request)).await
    }

    async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError> {
        self.ask(self.guest.ask_resource(request)).await
    }

    async fn topic(&self, request: &TopicRequest<'_>) -> Result<Answer<()>, AuthError> {
        self.ask(self.guest.ask_topic(request)).await
    }
}
