//! Auth backend `ldap`: a directory says whose password is right, and membership in its groups says who may do what.
//!
//! An example of a backend that waits for a server: the waiting is done on threads of the plugin's own.

#![forbid(unsafe_code)]

mod ber;
mod directory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::async_trait;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, AuthSpec, AuthType, Identity, Login, Permission, ResourceRequest, Subject,
    TopicRequest, VhostRequest,
};
use plugin_api::blocking::Threads;
use plugin_api::error::Invalid;
use plugin_api::serde::Deserialize;

use crate::directory::{Directory, escaped};

/// The kind of backend, as registered.
pub struct LdapType;

impl AuthType for LdapType {
    fn name(&self) -> &str {
        "ldap"
    }

    fn description(&self) -> &str {
        "asks a directory"
    }

    fn open(&self, spec: &AuthSpec) -> Result<Arc<dyn AuthBackend>, Invalid> {
        let settings: Settings = spec.config.parse()?;
        if !settings.user.contains(USERNAME) {
            return Err(Invalid::new(format!("user: '{}' does not say where {USERNAME} goes", settings.user)));
        }
        let directory = Directory { server: settings.server.clone(), timeout: Duration::from_millis(settings.timeout) };
        let threads = Threads::start("auth-ldap", CONNECTIONS_MAX, WAITING_MAX)
            .map_err(|error| Invalid::new(format!("threads cannot be started: {error}")))?;
        Ok(Arc::new(Ldap { settings, directory, threads }))
    }
}

plugin_api::export_plugin!(auth_backends: [LdapType]);

/// `config` in the topology file. `${username}` and `${vhost}` are filled in.
#[derive(Deserialize)]
#[serde(crate = "plugin_api::serde", deny_unknown_fields)]
struct Settings {
    server: String,
    user: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    vhost: Option<String>,
    configure: Option<String>,
    write: Option<String>,
    read: Option<String>,
    #[serde(default = "timeout")]
    timeout: u64,
}

const fn timeout() -> u64 {
    3_000
}

struct Ldap {
    settings: Settings,
    directory: Directory,
    threads: Threads,
}

#[async_trait]
impl AuthBackend for Ldap {
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError> {
        // A directory takes a bind without a password for an anonymous one, and says yes.
        if login.password.is_empty() || login.user.is_empty() {
            return Ok(Answer::deny("a directory needs a name and a password"));
        }
        let entry = self.settings.user.replace(USERNAME, &escaped(login.user));
        let groups: Vec<String> = self.settings.tags.values().cloned().collect();
        let (directory, password) = (self.directory.clone(), login.password.to_vec());
        let found = self.ask(move || directory.login(&entry, &password, &groups)).await?;
        let Some(found) = found else { return Ok(Answer::deny("the directory does not know this name and password")) };
        let tags = self.settings.tags.keys().enumerate().filter(|(place, _)| found.contains(place)).map(|(_, tag)| tag);
        Ok(Answer::allow(Identity::new(login.user, tags)).valid_for(KEPT))
    }

    async fn vhost(&self, request: &VhostRequest<'_>) -> Result<Answer<()>, AuthError> {
        self.member(self.settings.vhost.as_deref(), request.subject, request.vhost).await
    }

    async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError> {
        let group = match request.permission {
            Permission::Configure => &self.settings.configure,
            Permission::Write => &self.settings.write,
            Permission::Read => &self.settings.read,
        };
        self.member(group.as_deref(), request.subject, request.vhost).await
    }

    async fn topic(&self, _request: &TopicRequest<'_>) -> Result<Answer<()>, AuthError> {
        // The exchange is allowed already, and groups say nothing of keys.
        Ok(Answer::allow(()).valid_for(KEPT))
    }
}

impl Ldap {
    /// Where no group is named, everybody who could log in may.
    async fn member(&self, group: Option<&str>, subject: Subject<'_>, vhost: &str) -> Result<Answer<()>, AuthError> {
        let Some(group) = group else { return Ok(Answer::allow(()).valid_for(KEPT)) };
        let group = group.replace("${vhost}", &escaped(vhost));
        let entry = self.settings.user.replace(USERNAME, &escaped(subject.user));
        let directory = self.directory.clone();
        let is_member = self.ask(move || directory.is_member(&group, &entry)).await?;
        let answer = if is_member { Answer::allow(()) } else { Answer::deny("no member of the group") };
        Ok(answer.valid_for(KEPT))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, AuthError> {
        let answer = self.threads.run(question).await.unwrap_or_else(|error| Err(error.to_string()));
        answer.map_err(|text| AuthError::new(format!("asking the directory failed: {text}")))
    }
}

const USERNAME: &str = "${username}";
/// The broker may use an answer again for so long.
const KEPT: Duration = Duration::from_secs(30);
const CONNECTIONS_MAX: usize = 4;
const WAITING_MAX: usize = 1_000;
