//! Auth backend `http`: asks a web service who may log in and what they may do, in the way that RabbitMQ's does.
//!
//! Requests are made on threads of this plugin's own, each with a time limit. Whatever is not a proper answer is an error, and
//! the broker refuses. The broker keeps answers for as long as the configuration says.

mod answer;
mod form;
mod service;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use plugin_api::async_trait;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, AuthSpec, AuthType, ExternalLogin, Identity, Login, Permission, Resource,
    ResourceRequest, Subject, TopicRequest, VhostRequest,
};
use plugin_api::error::Invalid;

use crate::answer::Decision;
use crate::form::Form;
use crate::service::Service;
use crate::settings::Settings;

/// The kind of backend, as registered.
pub struct HttpType;

impl AuthType for HttpType {
    fn name(&self) -> &str {
        "http"
    }

    fn description(&self) -> &str {
        "asks a web service, as rabbitmq-auth-backend-http does"
    }

    fn open(&self, spec: &AuthSpec) -> Result<Arc<dyn AuthBackend>, Invalid> {
        let settings = Settings::of(spec)?;
        let agent = settings.agent(spec.base.as_deref())?;
        let service = Service::new(agent, settings.http_method, settings.connections_max)
            .map_err(|error| Invalid::new(format!("threads cannot be started: {error}")))?;
        Ok(Arc::new(Http {
            service,
            allow_valid_for: settings.allow_valid_for(),
            deny_valid_for: settings.deny_valid_for(),
            user_path: settings.user_path.into(),
            vhost_path: settings.vhost_path.into(),
            resource_path: settings.resource_path.into(),
            topic_path: settings.topic_path.into(),
        }))
    }
}

plugin_api::export_plugin!(auth_backends: [HttpType]);

struct Http {
    service: Service,
    allow_valid_for: Duration,
    deny_valid_for: Duration,
    user_path: Arc<str>,
    vhost_path: Arc<str>,
    resource_path: Arc<str>,
    topic_path: Arc<str>,
}

#[async_trait]
impl AuthBackend for Http {
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError> {
        let mut form = Form::default().with("username", login.user);
        form.with_bytes("password", login.password);
        if let Some(vhost) = login.vhost {
            form = form.with("vhost", vhost);
        }
        let decision = self.service.ask(&self.user_path, form).await?;
        Ok(self.answer(decision, |tags| Identity::new(login.user, tags)))
    }

    /// As RabbitMQ asks about users that a certificate names: the name, and no password.
    async fn login_external(&self, login: &ExternalLogin<'_>) -> Result<Answer<Identity>, AuthError> {
        let decision = self.service.ask(&self.user_path, Form::default().with("username", login.user)).await?;
        Ok(self.answer(decision, |tags| Identity::new(login.user, tags)))
    }

    async fn vhost(&self, request: &VhostRequest<'_>) -> Result<Answer<()>, AuthError> {
        let form = of(request.subject, request.vhost).with("ip", &request.subject.peer.to_canonical().to_string());
        self.judge(&self.vhost_path, form, request.subject).await
    }

    async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError> {
        let resource = match request.resource {
            Resource::Exchange => "exchange",
            Resource::Queue => "queue",
        };
        let form = of(request.subject, request.vhost)
            .with("resource", resource)
            .with("name", request.name)
            .with("permission", word(request.permission));
        self.judge(&self.resource_path, form, request.subject).await
    }

    async fn topic(&self, request: &TopicRequest<'_>) -> Result<Answer<()>, AuthError> {
        let form = of(request.subject, request.vhost)
            .with("resource", "topic")
            .with("name", request.exchange)
            .with("permission", word(request.permission))
            .with("routing_key", request.routing_key)
            .with("variable_map.username", request.subject.user)
            .with("variable_map.vhost", request.vhost);
        self.judge(&self.topic_path, form, request.subject).await
    }
}

impl Http {
    async fn judge(&self, url: &Arc<str>, form: Form, subject: Subject<'_>) -> Result<Answer<()>, AuthError> {
        let form = form.with("tags", &subject.tags.join(" "));
        let decision = self.service.ask(url, form).await?;
        Ok(self.answer(decision, |_| ()))
    }

    fn answer<T>(&self, decision: Decision, allowed: impl FnOnce(Vec<String>) -> T) -> Answer<T> {
        match decision {
            Decision::Allow(tags) => Answer::allow(allowed(tags)).valid_for(self.allow_valid_for),
            Decision::Deny(reason) if reason.is_empty() => {
                Answer::deny("denied by the HTTP service").valid_for(self.deny_valid_for)
            }
            Decision::Deny(reason) => {
                Answer::deny(format!("denied by the HTTP service: {reason}")).valid_for(self.deny_valid_for)
            }
        }
    }
}

/// What all questions about a user begin with.
fn of(subject: Subject<'_>, vhost: &str) -> Form {
    Form::default().with("username", subject.user).with("vhost", vhost)
}

const fn word(permission: Permission) -> &'static str {
    match permission {
        Permission::Configure => "configure",
        Permission::Write => "write",
        Permission::Read => "read",
    }
}
