//! What the broker relies on in every auth backend.

use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Waker};

use super::{FakeHost, block_on};
use crate::abi::LinkedPlugin;
use crate::abi::guest::{AskError, Guest, GuestAuthBackend, GuestAuthType, Linkage};
use crate::auth::{
    Answer, AuthSpec, ExternalLogin, Identity, Login, Permission, Renewal, Resource, ResourceRequest, TopicRequest,
    Verdict, VhostRequest,
};
use crate::config::Config;

/// The suite for all auth backends of `plugin`, through the ABI as the broker calls them.
///
/// # Panics
/// When the plugin does not register.
#[must_use]
pub fn auth_backends(plugin: &'static LinkedPlugin) -> AuthSuite {
    let guest = Guest::linked(plugin, FakeHost::new().table(Linkage::LinkedIn), &Config::default())
        .unwrap_or_else(|error| panic!("the plugin registers: {error}"));
    assert!(!guest.auth_types.is_empty(), "the plugin offers an auth backend");
    auth_types(guest.auth_types)
}

/// The suite for auth backends that were loaded, such as those of a file.
#[must_use]
pub const fn auth_types(kinds: Vec<GuestAuthType>) -> AuthSuite {
    AuthSuite { kinds, spec: AuthSpec { config: Config::new(serde_json::Value::Null), base: None }, users: Vec::new() }
}

/// The suite. Give it a configuration under which the backend works, and somebody who may log in.
pub struct AuthSuite {
    kinds: Vec<GuestAuthType>,
    spec: AuthSpec,
    users: Vec<(String, Vec<u8>)>,
}

impl AuthSuite {
    /// What stands under `config`.
    #[must_use]
    pub fn config(mut self, config: serde_json::Value) -> Self {
        self.spec.config = Config::new(config);
        self
    }

    /// Where relative paths in the configuration begin.
    #[must_use]
    pub fn base(mut self, base: impl Into<PathBuf>) -> Self {
        self.spec.base = Some(base.into());
        self
    }

    /// Credentials that are good.
    #[must_use]
    pub fn user(mut self, name: &str, password: impl AsRef<[u8]>) -> Self {
        self.users.push((name.to_owned(), password.as_ref().to_vec()));
        self
    }

    /// Runs everything.
    ///
    /// # Panics
    /// With the rule that is broken.
    pub fn run(&self) {
        assert!(!self.users.is_empty(), "the suite needs a user who may log in: `.user(name, password)`");
        for kind in &self.kinds {
            let name = kind.name();
            assert!(!name.is_empty() && name != "internal", "the backend has a name of its own, not '{name}'");
            assert!(!kind.description().is_empty(), "{name} has a description");
            let backend = kind
                .open(&self.spec)
                .unwrap_or_else(|error| panic!("{name} opens with the configuration given: {error}"));
            let case = Case { name, backend, users: &self.users };
            case.good_credentials_are_taken();
            case.bad_credentials_are_not();
            case.every_question_has_an_answer();
            case.users_without_passwords_are_known_or_not();
            case.a_question_that_is_given_up_does_no_harm();
            case.questions_may_overlap();
            // A second one beside the first, as two entries of a topology file.
            drop(kind.open(&self.spec).unwrap_or_else(|error| panic!("{name} opens twice: {error}")));
        }
    }
}

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Names that nobody has, of every shape that a client can send.
const STRANGE: [&str; 7] = ["", " ", "no-such-user", "a\"b\\c", "ü/%2F?&=#", "../../etc/passwd", "*)(uid=*"];

struct Case<'a> {
    name: &'a str,
    backend: GuestAuthBackend,
    users: &'a [(String, Vec<u8>)],
}

impl Case<'_> {
    fn login(&self, user: &str, password: &[u8]) -> Result<Answer<Identity>, AskError> {
        let login = Login { user, password, vhost: None, peer: PEER };
        let answer = block_on(self.backend.ask_login(&login));
        if let Err(AskError::Fault(fault)) = &answer {
            panic!("{}: a login of '{user}' does not panic: {fault}", self.name);
        }
        answer
    }

    fn identity(&self, user: &str, password: &[u8]) -> Identity {
        match self.login(user, password) {
            Ok(Answer { verdict: Verdict::Allow(identity), .. }) => identity,
            other => panic!("{}: the good credentials of '{user}' are taken, not {other:?}", self.name),
        }
    }

    fn good_credentials_are_taken(&self) {
        for (user, password) in self.users {
            let identity = self.identity(user, password);
            assert_eq!(identity, self.identity(user, password), "{}: the same login has the same answer", self.name);
            let is_tag = |tag: &String| !tag.is_empty() && tag.len() <= 255;
            assert!(identity.tags.iter().all(is_tag), "{}: tags have 1 to 255 bytes: {identity:?}", self.name);
        }
    }

    fn bad_credentials_are_not(&self) {
        let long = "x".repeat(255);
        for (user, password) in self.users {
            let longer = [password.as_slice(), b"x"].concat();
            let shorter = password.split_last().map_or(&[][..], |(_, rest)| rest);
            for bad in [&longer, shorter, b"", b"\xff\xfe", b"\0"] {
                self.check_refused(user, bad);
            }
        }
        for user in STRANGE.iter().copied().chain([&*long]) {
            for password in [&b""[..], b"x", b"\xff"] {
                self.check_refused(user, password);
            }
        }
    }

    fn check_refused(&self, user: &str, password: &[u8]) {
        if let Ok(Answer { verdict: Verdict::Allow(identity), .. }) = self.login(user, password) {
            panic!("{}: '{user}' with the password {password:?} is not let in as {identity:?}", self.name);
        }
    }

    /// What a user may do is the backend's own business; that it says something is not.
    fn every_question_has_an_answer(&self) {
        for (user, password) in self.users {
            let identity = self.identity(user, password);
            let subject = identity.subject(PEER);
            for name in STRANGE.iter().copied().chain(["/", "amq.default", "amq.topic"]) {
                self.check("vhost", block_on(self.backend.ask_vhost(&VhostRequest { subject, vhost: name })));
                for permission in [Permission::Configure, Permission::Write, Permission::Read] {
                    for resource in [Resource::Exchange, Resource::Queue] {
                        let request = ResourceRequest { subject, vhost: "/", resource, name, permission };
                        self.check("resource", block_on(self.backend.ask_resource(&request)));
                    }
                    let request =
                        TopicRequest { subject, vhost: "/", exchange: "amq.topic", routing_key: name, permission };
                    self.check("topic", block_on(self.backend.ask_topic(&request)));
                }
            }
            for secret in [password.as_slice(), b"", b"\xff"] {
                let renewed = block_on(self.backend.ask_renew(&Renewal { subject, secret }));
                if let Ok(Answer { verdict: Verdict::Allow(renewed), .. }) = &renewed {
                    assert_eq!(renewed.user, identity.user, "{}: a renewal is for the same user", self.name);
                }
                self.check("renew", renewed);
            }
        }
    }

    /// Without a password some backends know users, and others nobody.
    fn users_without_passwords_are_known_or_not(&self) {
        let users = self.users.iter().map(|(user, _)| user.as_str());
        for user in STRANGE.into_iter().chain(users) {
            let answer = block_on(self.backend.ask_external(&ExternalLogin { user, peer: PEER }));
            if let Ok(Answer { verdict: Verdict::Allow(identity), .. }) = &answer {
                assert!(!STRANGE.contains(&user), "{}: '{user}' is not let in as {identity:?}", self.name);
            }
            self.check("login_external", answer);
        }
    }

    fn check<T>(&self, what: &str, answer: Result<T, AskError>) {
        if let Err(AskError::Fault(fault)) = answer {
            panic!("{}: `{what}` does not panic: {fault}", self.name);
        }
    }

    fn a_question_that_is_given_up_does_no_harm(&self) {
        for (user, password) in self.users {
            let login = Login { user, password, vhost: None, peer: PEER };
            for polled in [false, true] {
                let mut question = pin!(Some(self.backend.ask_login(&login)));
                if polled && let Some(question) = question.as_mut().as_pin_mut() {
                    let _ = question.poll(&mut Context::from_waker(Waker::noop()));
                }
                question.set(None);
            }
            self.identity(user, password);
        }
    }

    fn questions_may_overlap(&self) {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (user, password) in self.users {
                        self.identity(user, password);
                        self.check_refused(user, b"");
                    }
                });
            }
        });
    }
}
