//! The order of backends, what is kept of their answers, and that whatever goes wrong refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plugin_api::async_trait;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, ExternalLogin, Identity, Login, Permission as Asked, Renewal, Resource,
    ResourceRequest, TopicRequest, VhostRequest,
};
use plugin_api::testing::block_on;

use super::super::tests::{permission, user};
use super::super::{Access, Backend, LoginError, Mechanism, Peer, Permission, Refusal, User};

/// Knows `KNOWN`, whose password is the same; what it says about everything else is `says`.
struct Fake {
    known: &'static str,
    says: fn() -> Result<Answer<()>, AuthError>,
    valid_for: Duration,
    calls: AtomicU64,
}

impl Fake {
    fn new(known: &'static str, says: fn() -> Result<Answer<()>, AuthError>) -> Arc<Self> {
        Arc::new(Self { known, says, valid_for: Duration::ZERO, calls: AtomicU64::new(0) })
    }

    fn kept(known: &'static str) -> Arc<Self> {
        let valid_for = Duration::from_secs(60);
        Arc::new(Self { known, says: || Ok(Answer::allow(())), valid_for, calls: AtomicU64::new(0) })
    }

    fn answer<T>(&self, value: T) -> Result<Answer<T>, AuthError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok((self.says)()?.map_to(value).valid_for(self.valid_for))
    }

    fn take_calls(&self) -> u64 {
        self.calls.swap(0, Ordering::Relaxed)
    }
}

trait MapTo {
    fn map_to<T>(self, value: T) -> Answer<T>;
}

impl MapTo for Answer<()> {
    fn map_to<T>(self, value: T) -> Answer<T> {
        use plugin_api::auth::Verdict;

        match self.verdict {
            Verdict::Allow(()) => Answer::allow(value),
            Verdict::Deny(reason) => Answer::deny(reason),
            Verdict::NotMine => Answer::not_mine(),
        }
    }
}

#[async_trait]
impl AuthBackend for Fake {
    async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError> {
        if login.user != self.known || login.password != login.user.as_bytes() {
            self.calls.fetch_add(1, Ordering::Relaxed);
            return (self.says)().map(|_| Answer::deny("not here"));
        }
        self.answer(Identity::new(login.user, ["management"]))
    }

    async fn login_external(&self, login: &ExternalLogin<'_>) -> Result<Answer<Identity>, AuthError> {
        if login.user != self.known {
            return Ok(Answer::not_mine());
        }
        self.answer(Identity::new(login.user, ["monitoring"]))
    }

    async fn renew(&self, renewal: &Renewal<'_>) -> Result<Answer<Identity>, AuthError> {
        let secret = String::from_utf8_lossy(renewal.secret).into_owned();
        self.answer(Identity::new(secret, ["management"]))
    }

    async fn vhost(&self, _: &VhostRequest<'_>) -> Result<Answer<()>, AuthError> {
        self.answer(())
    }

    async fn resource(&self, _: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError> {
        self.answer(())
    }

    async fn topic(&self, _: &TopicRequest<'_>) -> Result<Answer<()>, AuthError> {
        self.answer(())
    }
}

fn step(name: &str, asked: Option<&Arc<Fake>>, authorization: &[&str]) -> Backend {
    let asked = asked.map(|fake| Arc::clone(fake) as Arc<dyn AuthBackend>);
    Backend { name: name.into(), asked, authorization: authorization.iter().map(|&name| name.to_owned()).collect() }
}

fn access(backends: Vec<Backend>) -> Access {
    Access::new(&[user("app", &[permission("/", "", "^orders$", "")])]).with_backends(backends)
}

fn login(access: &Access, name: &str, password: &str) -> Result<Arc<User>, Refusal> {
    let response = format!("\0{name}\0{password}");
    block_on(access.login(Mechanism::Plain, response.as_bytes(), Peer::LOOPBACK)).map_err(|error| match error {
        LoginError::Refused { reason, .. } => reason,
        malformed => panic!("{malformed}"),
    })
}

fn permits(access: &Access, user: &User, name: &str) -> bool {
    let ask = || access.permits(user, "/", Permission::Write, Resource::Exchange, name);
    assert!(!ask(), "nothing is known before somebody has asked");
    block_on(access.judge(user));
    ask()
}

/// Semantics 4.10.
#[test]
fn backends_are_tried_in_order_until_one_accepts() {
    let broken = Fake::new("app", || Err(AuthError::new("no network")));
    let good = Fake::new("app", || Ok(Answer::allow(())));
    let access =
        access(vec![step("broken", Some(&broken), &[]), step("internal", None, &[]), step("good", Some(&good), &[])]);
    assert!(login(&access, "app", "app-password").unwrap().foreign.is_none(), "the broker's own user");
    assert_eq!((broken.take_calls(), good.take_calls()), (1, 0), "those behind it are not asked");
    let foreign = login(&access, "app", "app").unwrap();
    assert_eq!((foreign.name.as_str(), foreign.tags.as_slice()), ("app", &["management".to_owned()][..]));
    assert!(foreign.foreign.is_some() && good.take_calls() == 1);
    assert_eq!(login(&access, "app", "wrong").unwrap_err(), Refusal::Backend);
}

#[test]
fn whatever_is_no_yes_is_a_no() {
    for (says, name) in [
        (|| Err(AuthError::new("no network")) as Result<Answer<()>, AuthError>, "error"),
        (|| Ok(Answer::deny("no")), "deny"),
        (|| Ok(Answer::not_mine()), "not mine"),
    ] as [(fn() -> Result<Answer<()>, AuthError>, &str); 3]
    {
        let fake = Fake::new("app", says);
        let good = Fake::new("app", || Ok(Answer::allow(())));
        let access = access(vec![step("good", Some(&good), &["said"]), step("said", Some(&fake), &[])]);
        let user = login(&access, "app", "app").unwrap();
        assert!(!permits(&access, &user, "orders"), "{name}");
        let alone = super::super::tests::user("x", &[]);
        let access = Access::new(&[alone]).with_backends(vec![step("said", Some(&fake), &[])]);
        assert!(login(&access, "app", "app").is_err(), "{name}");
    }
}

#[test]
fn backends_of_authorization_must_all_agree() {
    let good = Fake::new("app", || Ok(Answer::allow(())));
    let access = access(vec![step("good", Some(&good), &["good", "internal"])]);
    let user = login(&access, "app", "app").unwrap();
    assert!(permits(&access, &user, "orders"));
    assert!(!permits(&access, &user, "others"), "the broker's own users say no");
    assert_eq!(login(&access, "app", "app-password").unwrap_err(), Refusal::Backend, "nobody logs in by them");
    // Revoking takes effect at once, though the backend has not been asked again.
    access.set_permission("app", &permission("/", "", "", "")).unwrap();
    assert!(!permits(&access, &user, "orders"));
}

#[test]
fn answers_are_kept_as_long_as_the_backend_says_for_all_of_a_user() {
    let (kept, asked) = (Fake::kept("app"), Fake::new("ask", || Ok(Answer::allow(()))));
    let access = access(vec![step("kept", Some(&kept), &[]), step("asked", Some(&asked), &[])]);
    for (fake, name, expected) in [(&kept, "app", [1, 1]), (&asked, "ask", [2, 2])] {
        let users = [login(&access, name, name).unwrap(), login(&access, name, name).unwrap()];
        assert_eq!(fake.take_calls(), expected[0], "{name}: logins");
        for user in &users {
            assert!(permits(&access, user, "orders"));
            assert!(access.permits(user, "/", Permission::Write, Resource::Exchange, "orders"), "{name}: kept for one");
        }
        assert_eq!(fake.take_calls(), expected[1], "{name}: permissions");
    }
    kept.take_calls();
    let user = login(&access, "app", "app").unwrap();
    assert_eq!(kept.take_calls(), 0);
    access.forget_answers();
    assert!(permits(&access, &user, "orders") && login(&access, "app", "app").is_ok());
    assert_eq!(kept.take_calls(), 2, "everything is asked anew");
    assert!(login(&access, "app", "other").is_err(), "another password is another question");
}

#[test]
fn topic_keys_are_asked_one_by_one() {
    let good = Fake::kept("app");
    let access = access(vec![step("good", Some(&good), &[])]);
    let user = login(&access, "app", "app").unwrap();
    let topics = access.topic_permission(&user, "/", "amq.topic").unwrap();
    assert!(!topics.permits(Permission::Write, "a.b"));
    block_on(access.judge(&user));
    assert!(topics.permits(Permission::Write, "a.b") && !topics.permits(Permission::Write, "a.c"));
}

#[test]
fn new_secret_is_for_the_same_user() {
    let good = Fake::kept("app");
    let access = access(vec![step("internal", None, &[]), step("good", Some(&good), &[])]);
    let user = login(&access, "app", "app").unwrap();
    assert_eq!(block_on(access.renew(&user, b"app")).unwrap().name, "app");
    let error = block_on(access.renew(&user, b"mallory")).unwrap_err();
    assert_eq!(error, "the new secret is that of user 'mallory'");
    let internal = login(&access, "app", "app-password").unwrap();
    assert_eq!(block_on(access.renew(&internal, b"anything")).unwrap(), internal, "it is not looked at");
}

/// A question that nobody finishes must not stay a question for ever.
#[test]
fn question_whose_task_is_dropped_is_refused() {
    struct Never;

    #[async_trait]
    impl AuthBackend for Never {
        async fn login(&self, login: &Login<'_>) -> Result<Answer<Identity>, AuthError> {
            Ok(Answer::allow(Identity::new(login.user, [""; 0])))
        }

        async fn vhost(&self, _: &VhostRequest<'_>) -> Result<Answer<()>, AuthError> {
            std::future::pending().await
        }

        async fn resource(&self, request: &ResourceRequest<'_>) -> Result<Answer<()>, AuthError> {
            assert_eq!(request.permission, Asked::Write);
            std::future::pending().await
        }

        async fn topic(&self, _: &TopicRequest<'_>) -> Result<Answer<()>, AuthError> {
            std::future::pending().await
        }
    }

    let never: Arc<dyn AuthBackend> = Arc::new(Never);
    let access = access(vec![Backend { name: "never".into(), asked: Some(never), authorization: Vec::new() }]);
    let user = login(&access, "app", "").unwrap();
    let foreign = user.foreign.as_ref().unwrap();
    assert!(!access.may_enter(&user, "/") && !access.permits(&user, "/", Permission::Write, Resource::Queue, "q"));
    let mut judging = Box::pin(access.judge(&user));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(judging.as_mut().poll(&mut context).is_pending() && foreign.has_open_questions());
    drop(judging);
    assert!(!foreign.has_open_questions(), "both are answered with no");
    assert!(!access.may_enter(&user, "/") && !foreign.has_unasked());
}

/// Semantics 4.3, 4.10: as with passwords, one after the other; and whatever goes wrong refuses.
#[test]
fn certificate_names_a_user_that_some_backend_knows() {
    let external = |access: &Access, name: &str, peer: Peer| {
        block_on(access.login_external(name, peer)).map_err(|error| match error {
            LoginError::Refused { reason, .. } => reason,
            LoginError::Malformed { .. } => panic!("nothing is read here"),
        })
    };
    let here = |access: &Access, name: &str| external(access, name, Peer::LOOPBACK);
    let fake = Fake::new("far", || Ok(Answer::allow(())));
    let both = access(vec![step("fake", Some(&fake), &[]), step("internal", None, &[])]);
    assert!(here(&both, "app").unwrap().foreign.is_none());
    let far = here(&both, "far").unwrap();
    assert_eq!((far.foreign.is_some(), far.tags.as_slice()), (true, &["monitoring".to_owned()][..]));
    assert!(permits(&both, &far, "orders"), "it is asked what they may do");
    assert_eq!(here(&both, "nobody").unwrap_err(), Refusal::UnknownUser);
    let alone = access(vec![step("fake", Some(&fake), &[])]);
    assert_eq!(here(&alone, "app").unwrap_err(), Refusal::UnknownUser, "the broker's own users do not log in here");
    // An empty password is not the same question, neither asked nor kept.
    let kept = Fake::kept("far");
    let access_of_kept = access(vec![step("kept", Some(&kept), &[])]);
    assert!(here(&access_of_kept, "far").is_ok() && here(&access_of_kept, "far").is_ok());
    assert_eq!(kept.take_calls(), 1, "the answer is kept");
    assert_eq!(login(&access_of_kept, "far", "").unwrap_err(), Refusal::Backend);
    for (says, name) in [
        (|| Err(AuthError::new("no network")) as Result<Answer<()>, AuthError>, "error"),
        (|| Ok(Answer::deny("no")), "deny"),
        (|| Ok(Answer::not_mine()), "not mine"),
    ] as [(fn() -> Result<Answer<()>, AuthError>, &str); 3]
    {
        let refusing = access(vec![step("fake", Some(&Fake::new("far", says)), &[])]);
        assert!(here(&refusing, "far").is_err(), "{name}");
    }
    let home = Access::new(&[crate::topology::schema::UserDecl::guest(&[])]);
    let elsewhere = Peer { address: [192, 0, 2, 1].into() };
    assert!(external(&home, "guest", elsewhere).is_err() && here(&home, "guest").is_ok());
}
