//! An auth backend of a plugin, behind the same trait that its author implemented.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

use super::super::auth::AuthTypeTable;
use super::super::question;
use super::super::raw::{RawBytes, TextSink, status};
use super::super::storage::ended;
use super::super::waker::RawHostWaker;
use super::{CallError, Handle, broken, call, failed};
use crate::auth::{
    Answer, AuthBackend, AuthError, AuthSpec, ExternalLogin, Identity, Login, Renewal, ResourceRequest, TopicRequest,
    Verdict, VhostRequest,
};

/// A kind of auth backend of a plugin.
#[derive(Debug)]
pub struct GuestAuthType {
    pub(super) table: AuthTypeTable,
    pub(super) handle: Handle,
    pub(super) name: String,
    pub(super) description: String,
    /// Since 2.4 plugins know the question about users without passwords.
    pub(super) knows_external: bool,
}

/// Why a backend of a plugin gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskError {
    /// The backend could not decide, and says why.
    Undecided(AuthError),
    /// The plugin panicked or broke the rules of the ABI.
    Fault(CallError),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecided(error) => error.fmt(f),
            Self::Fault(error) => write!(f, "the plugin {error}"),
        }
    }
}

impl std::error::Error for AskError {}

impl From<AskError> for AuthError {
    fn from(error: AskError) -> Self {
        Self::new(error.to_string())
    }
}

impl GuestAuthType {
    /// The name in `auth.backends`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line for operators.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// See [`crate::auth::AuthType::open`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn open(&self, spec: &AuthSpec) -> Result<GuestAuthBackend, CallError> {
        let config = spec.config.as_json().to_string();
        let base = spec.base.as_ref().map(|base| base.as_os_str().as_encoded_bytes());
        let (config, base, has_base) =
            (RawBytes::new(config.as_bytes()), RawBytes::new(base.unwrap_or_default()), base.is_some());
        let mut instance = std::ptr::null_mut();
        // SAFETY: table and handle belong together; bytes and place outlive the call.
        call(|sink| unsafe {
            (self.table.open)(self.handle.0, config, base, has_base.into(), &raw mut instance, sink)
        })?;
        if instance.is_null() {
            return Err(broken("open returned no backend"));
        }
        Ok(GuestAuthBackend {
            instance: Arc::new(Instance {
                table: self.table,
                handle: Handle(instance),
                knows_external: self.knows_external,
            }),
        })
    }
}

/// An auth backend within a plugin. Closed when it and the last question to it are dropped.
#[derive(Debug, Clone)]
pub struct GuestAuthBackend {
    instance: Arc<Instance>,
}

#[derive(Debug)]
struct Instance {
    table: AuthTypeTable,
    handle: Handle,
    knows_external: bool,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A panic while closing has been caught and told to the log by the plugin; there is nothing left to stop using.
        // SAFETY: the instance is from this table's `open`, is ours alone, and is not used again.
        drop(call(|sink| unsafe { (self.table.close)(self.handle.0, sink) }));
    }
}

impl GuestAuthBackend {
    /// As [`AuthBackend::login`], and says how it failed. The future owns all it needs, as those of the questions below.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask_login(
        &self,
        login: &Login<'_>,
    ) -> impl Future<Output = Result<Answer<Identity>, AskError>> + Send + use<> {
        let asked = self.ask(&question::login(login));
        async move { identified(asked?.await?) }
    }

    /// As [`AuthBackend::login_external`], and says how it failed. A plugin that was built before there was this question knows nobody.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask_external(
        &self,
        login: &ExternalLogin<'_>,
    ) -> impl Future<Output = Result<Answer<Identity>, AskError>> + Send + use<> {
        let asked = self.instance.knows_external.then(|| self.ask(&question::external_login(login)));
        async move {
            match asked {
                Some(asked) => identified(asked?.await?),
                None => Ok(Answer::not_mine()),
            }
        }
    }

    /// As [`AuthBackend::renew`], and says how it failed.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask_renew(
        &self,
        renewal: &Renewal<'_>,
    ) -> impl Future<Output = Result<Answer<Identity>, AskError>> + Send + use<> {
        let asked = self.ask(&question::renewal(renewal));
        async move { identified(asked?.await?) }
    }

    /// As [`AuthBackend::vhost`], and says how it failed.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask_vhost(
        &self,
        request: &VhostRequest<'_>,
    ) -> impl Future<Output = Result<Answer<()>, AskError>> + Send + use<> {
        let asked = self.ask(&question::vhost(request));
        async move { Ok(asked?.await?.map(drop)) }
    }

    /// As [`AuthBackend::resource`], and says how it failed.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask_resource(
        &self,
        request: &ResourceRequest<'_>,
    ) -> impl Future<Output = Result<Answer<()>, AskError>> + Send + use<> {
        let asked = self.ask(&question::resource(request));
        async move { Ok(asked?.await?.map(drop)) }
    }

    /// As [`AuthBackend::topic`], and says how it failed.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask_topic(
        &self,
        request: &TopicRequest<'_>,
    ) -> impl Future<Output = Result<Answer<()>, AskError>> + Send + use<> {
        let asked = self.ask(&question::topic(request));
        async move { Ok(asked?.await?.map(drop)) }
    }

    fn ask(&self, question: &[u8]) -> Result<GuestFuture, AskError> {
        let (mut future, instance) = (std::ptr::null_mut(), &self.instance);
        // SAFETY: the instance is from this table's `open` and not closed; the question is copied before this returns.
        let asked = call(|sink| unsafe {
            (instance.table.ask)(instance.handle.0, RawBytes::new(question), &raw mut future, sink)
        });
        match asked {
            Ok(()) if future.is_null() => Err(AskError::Fault(broken("a question made no future"))),
            Ok(()) => Ok(GuestFuture { future: Handle(future), instance: Arc::clone(instance) }),
            Err(CallError::Refused(text)) => Err(AskError::Undecided(AuthError::new(text))),
            Err(fault) => Err(AskError::Fault(fault)),
        }
    }
}

fn identified(answer: Answer<Option<Identity>>) -> Result<Answer<Identity>, AskError> {
    let verdict = match answer.verdict {
        Verdict::Allow(Some(identity)) if identity.user.is_empty() || identity.user.len() > USER_BYTES_MAX => {
            return Err(AskError::Fault(broken("it named a user of no byte, or of more than 255")));
        }
        Verdict::Allow(Some(identity)) => Verdict::Allow(identity),
        Verdict::Allow(None) => return Err(AskError::Fault(broken("it let somebody in and did not say whom"))),
        Verdict::Deny(reason) => Verdict::Deny(reason),
        Verdict::NotMine => Verdict::NotMine,
    };
    Ok(Answer { verdict, valid_for: answer.valid_for })
}

/// A short string of AMQP.
const USER_BYTES_MAX: usize = 255;

#[async_trait]
impl AuthBackend for GuestAuthBackend {
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError> {
        Ok(self.ask_login(login).await?)
    }

    async fn login_external(&self, login: &ExternalLogin<'_>) -> Result<Answer<Identity>, AuthError> {
        Ok(self.ask_external(login).await?)
    }

    async fn renew(&self, renewal: &Renewal<'_>) -> Result<Answer<Identity>, AuthError> {
        Ok(self.ask_renew(renewal).await?)
    }

    async fn vhost(&self, request: &VhostRequest<'_>) -> Result<Answer<()>, AuthError> {
        Ok(self.ask_vhost(request).await?)
    }

    async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError> {
        Ok(self.ask_resource(request).await?)
    }

    async fn topic(&self, request: &TopicRequest<'_>) -> Result<Answer<()>, AuthError> {
        Ok(self.ask_topic(request).await?)
    }
}

/// A future of the plugin. Dropped before its backend.
struct GuestFuture {
    future: Handle,
    instance: Arc<Instance>,
}

impl Future for GuestFuture {
    type Output = Result<Answer<Option<Identity>>, AskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = RawHostWaker::lend(context.waker());
        let (mut answer, mut text) = (Vec::new(), Vec::new());
        // SAFETY: the future is from this table and not dropped; waker and sinks outlive the call.
        let code = unsafe {
            let (answer, text) = (TextSink::of_answer(&mut answer), TextSink::new(&mut text));
            (self.instance.table.poll)(self.future.0, &raw const waker, &raw const answer, &raw const text)
        };
        Poll::Ready(match code {
            ended::PENDING => return Poll::Pending,
            status::DONE => question::decode_answer(&answer)
                .map_err(|error| AskError::Fault(broken(&format!("its answer cannot be read: {error}")))),
            ended::FAILED => Err(AskError::Undecided(AuthError::new(String::from_utf8_lossy(&text)))),
            other => Err(AskError::Fault(failed(other, &text))),
        })
    }
}

impl Drop for GuestFuture {
    fn drop(&mut self) {
        // SAFETY: the future is from this table, is ours alone, and is not used again.
        drop(call(|sink| unsafe { (self.instance.table.drop_future)(self.future.0, sink) }));
    }
}
