//! Login and permissions through the public methods of [`Access`].

use super::*;
use crate::topology::schema::PasswordDecl;

pub(super) fn user(name: &str, permissions: &[PermissionDecl]) -> UserDecl {
    UserDecl {
        name: name.to_owned(),
        password: PasswordDecl::Plain(format!("{name}-password")),
        tags: Vec::new(),
        loopback_only: false,
        permissions: permissions.to_vec(),
        topic_permissions: Vec::new(),
        limits: UserLimitsDecl::default(),
    }
}

pub(super) fn permission(vhost: &str, configure: &str, write: &str, read: &str) -> PermissionDecl {
    PermissionDecl {
        vhost: vhost.to_owned(),
        configure: configure.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    }
}

/// `login` never waits in the internal backend, so that one poll must be enough.
fn login(access: &Access, response: &[u8], is_loopback: bool) -> Result<Arc<User>, LoginError> {
    let peer = if is_loopback { Peer::LOOPBACK } else { Peer { address: IpAddr::from([192, 0, 2, 1]) } };
    let future = std::pin::pin!(access.login(Mechanism::Plain, response, peer));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("the internal backend does not wait"),
    }
}

fn guest() -> UserDecl {
    UserDecl {
        password: PasswordDecl::Plain("guest".to_owned()),
        tags: vec!["administrator".to_owned()],
        loopback_only: true,
        ..user("guest", &[permission("/", ".*", ".*", ".*")])
    }
}

#[test]
fn right_password_logs_in() {
    let access = Access::new(&[guest(), user("app", &[])]);
    let logged_in = login(&access, b"\0guest\0guest", true).unwrap();
    assert_eq!(
        (logged_in.name.as_str(), logged_in.tags.as_slice()),
        ("guest", ["administrator".to_owned()].as_slice())
    );
    assert_eq!(login(&access, b"\0app\0app-password", false).unwrap().name, "app");
}

#[test]
fn refused_logins_carry_the_reason_for_the_log() {
    let nobody = UserDecl {
        password: PasswordDecl::Hash { hash: String::new(), algorithm: HashAlgorithm::Sha256 },
        ..user("nobody", &[])
    };
    let broken = UserDecl {
        password: PasswordDecl::Hash { hash: "AAAA".to_owned(), algorithm: HashAlgorithm::Sha256 },
        ..user("broken", &[])
    };
    let access = Access::new(&[guest(), nobody, broken]);
    let check = |response: &[u8], is_loopback, user: &str, reason| {
        let expected = LoginError::Refused { user: user.to_owned(), reason };
        assert_eq!(login(&access, response, is_loopback).unwrap_err(), expected);
    };
    check(b"\0guest\0wrong", true, "guest", Refusal::WrongPassword);
    check(b"\0guest\0", true, "guest", Refusal::BlankPassword);
    check(b"\0Guest\0guest", true, "Guest", Refusal::UnknownUser);
    check(b"\0\0", true, "", Refusal::UnknownUser);
    check(b"\0guest\0guest", false, "guest", Refusal::NotFromLoopback);
    check(b"\0guest\0wrong", false, "guest", Refusal::WrongPassword);
    check(b"\0nobody\0x", true, "nobody", Refusal::NoPassword);
    check(b"\0broken\0x", true, "broken", Refusal::NoPassword);
    check(b"\0\xff\xfe\0x", true, "\u{fffd}\u{fffd}", Refusal::UnknownUser);
}

#[test]
fn user_name_in_the_log_has_a_limit() {
    let access = Access::new(&[]);
    let response = [b"\0", "x".repeat(10_000).as_bytes(), b"\0y"].concat();
    let Err(LoginError::Refused { user, .. }) = login(&access, &response, true) else { panic!("refused") };
    assert_eq!(user.len(), USER_NAME_BYTES_MAX);
}

#[test]
fn malformed_responses_are_not_refusals() {
    let access = Access::new(&[guest()]);
    let error = login(&access, b"guest\0guest", true).unwrap_err();
    assert!(matches!(error, LoginError::Malformed { mechanism: Mechanism::Plain, .. }), "{error}");
}

#[test]
fn permissions_are_per_vhost_and_kind() {
    let access = Access::new(&[user(
        "app",
        &[permission("/", "^app\\.", "^(app\\.|amq\\.default$)", ".*"), permission("empty", "", "", "")],
    )]);
    let app = access.user("app").unwrap();
    assert!(access.may_enter(&app, "/") && access.may_enter(&app, "empty") && !access.may_enter(&app, "other"));
    let check = |vhost, kind, name, expected| {
        assert_eq!(access.permits(&app, vhost, kind, Resource::Queue, name), expected, "{kind} {name} in {vhost}");
    };
    check("/", Permission::Configure, "app.q", true);
    check("/", Permission::Configure, "other", false);
    check("/", Permission::Write, "amq.default", true);
    check("/", Permission::Write, "amq.direct", false);
    check("/", Permission::Read, "anything", true);
    check("empty", Permission::Read, "anything", false);
    check("other", Permission::Read, "anything", false);
}

#[test]
fn broken_pattern_denies_and_the_others_work() {
    let access = Access::new(&[user("app", &[permission("/", "(", ".*", "[")])]);
    let app = access.user("app").unwrap();
    assert!(!access.permits(&app, "/", Permission::Configure, Resource::Queue, "("));
    assert!(access.permits(&app, "/", Permission::Write, Resource::Queue, "x"));
    assert!(!access.permits(&app, "/", Permission::Read, Resource::Queue, "["));
}

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Told(parking_lot::Mutex<Vec<Change>>);

impl Ledger for Told {
    fn record(&self, changes: Vec<Change>) {
        self.0.lock().extend(changes);
    }
}

impl Told {
    fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.0.lock())
    }
}

fn with_password(password: &str) -> UserUpdate {
    let hash = PasswordHash::of(password.as_bytes(), HashAlgorithm::Sha256);
    UserUpdate { password: Some(Some(hash)), ..UserUpdate::default() }
}

#[test]
fn users_change_while_the_broker_runs() {
    let access = Access::new(&[]);
    let first = access.generation();
    assert_eq!(access.put_user("app", with_password("old")), Ok(true));
    access.set_permission("app", &permission("/", "", "", ".*")).unwrap();
    assert!(access.generation() > first);
    let app = login(&access, b"\0app\0old", false).unwrap();

    assert_eq!(access.put_user("app", with_password("new")), Ok(false));
    assert!(login(&access, b"\0app\0old", false).is_err());
    assert!(login(&access, b"\0app\0new", false).is_ok());

    let tags = Some(vec!["monitoring".to_owned()]);
    access.put_user("app", UserUpdate { tags, ..UserUpdate::default() }).unwrap();
    assert_eq!(access.user("app").unwrap().tags, ["monitoring"]);
    assert!(login(&access, b"\0app\0new", false).is_ok(), "tags leave the password alone");

    access.set_permission("app", &permission("eu", ".*", ".*", ".*")).unwrap();
    assert!(access.may_enter(&app, "eu"));
    assert_eq!(access.permissions_of("app").len(), 2);
    access.remove_vhost("eu");
    assert!(!access.may_enter(&app, "eu"));
    access.remove_permission("app", "/").unwrap();
    assert!(!access.may_enter(&app, "/"));

    assert!(access.remove_user("app"));
    assert!(!access.remove_user("app"));
    assert_eq!(access.remove_permission("app", "/"), Err(AccessError::NoSuchUser("app".to_owned())));
    assert!(login(&access, b"\0app\0new", false).is_err());
    assert!(access.users().is_empty());
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let access = Access::new(&[user("app", &[])]);
    assert_eq!(access.put_user("", UserUpdate::default()), Err(AccessError::InvalidName));
    assert_eq!(access.put_user(&"x".repeat(256), UserUpdate::default()), Err(AccessError::InvalidName));
    let tags = Some(vec!["t".to_owned(); TAGS_MAX + 1]);
    let update = UserUpdate { tags, ..UserUpdate::default() };
    assert_eq!(access.put_user("app", update), Err(AccessError::TooManyTags));
    let error = access.set_permission("app", &permission("/", ".*", "(", ".*")).unwrap_err();
    assert!(error.to_string().starts_with("'(' is not a regular expression: "), "{error}");
    assert!(access.permissions_of("app").is_empty());
}

/// Semantics 4.8.
#[test]
fn a_new_user_called_guest_may_log_in_from_this_machine_only() {
    let access = Access::new(&[]);
    for (name, expected) in [("guest", true), ("app", false)] {
        access.put_user(name, UserUpdate::default()).unwrap();
        assert_eq!(access.user(name).unwrap().loopback_only, expected, "{name}");
    }
    access.put_user("guest", UserUpdate { loopback_only: Some(false), ..UserUpdate::default() }).unwrap();
    access.put_user("guest", with_password("x")).unwrap();
    assert!(!access.user("guest").unwrap().loopback_only, "what was said once stays");
}

/// Semantics 25.7, 25.8.
#[test]
fn topic_permissions_are_there_for_one_exchange_and_change_at_once() {
    let access = Access::new(&[user("app", &[permission("/", ".*", ".*", ".*")])]);
    let app = access.user("app").unwrap();
    assert!(access.topic_permission(&app, "/", "amq.topic").is_none(), "absent is allowed");
    let decl = |exchange: &str, write: &str| TopicPermissionDecl {
        vhost: "/".into(),
        exchange: exchange.into(),
        write: write.into(),
        read: ".*".into(),
    };
    let generation = access.generation();
    access.set_topic_permission("app", &decl("amq.topic", "^{username}\\.")).unwrap();
    access.set_topic_permission("app", &decl("other", "")).unwrap();
    assert!(access.generation() > generation);
    let permission = access.topic_permission(&app, "/", "amq.topic").unwrap();
    assert!(permission.permits(Permission::Write, "app.x") && !permission.permits(Permission::Write, "x"));
    assert!(access.set_topic_permission("app", &decl("amq.topic", "(")).is_err());
    assert_eq!(access.topic_permissions_of("app").len(), 2);
    access.remove_topic_permissions("app", "/", Some("other")).unwrap();
    assert!(access.topic_permission(&app, "/", "other").is_none());
    access.remove_topic_permissions("app", "/", None).unwrap();
    assert!(access.topic_permissions_of("app").is_empty());
}

/// Semantics 27.1.
#[test]
fn what_was_changed_is_there_again_after_a_restart() {
    let told = Arc::new(Told::default());
    let access = Access::restore(StoredAccounts::default(), &[], Declared::ByFile, Arc::<Told>::clone(&told));
    let limits = UserLimitsDecl { max_connections: Some(3), max_channels: None };
    let tags = Some(vec!["management".to_owned()]);
    access.put_user("app", UserUpdate { tags, limits: Some(limits), ..with_password("secret") }).unwrap();
    let entry = permission("/", "^a", "^b", "^c");
    access.set_permission("app", &entry).unwrap();
    access.put_user("gone", with_password("x")).unwrap();
    access.set_permission("gone", &entry).unwrap();
    access.remove_user("gone");
    let stored = stored(told.take());
    let again = Access::restore(stored, &[], Declared::ByFile, Arc::<Told>::clone(&told));
    assert_eq!(again.records(), access.records());
    assert_eq!(again.permissions_of("app"), [entry]);
    assert_eq!(again.limits_of("app"), limits);
    assert!(login(&again, b"\0app\0secret", false).is_ok());
    assert!(again.user("gone").is_none());
}

/// What the store has after these changes.
fn stored(changes: Vec<Change>) -> StoredAccounts {
    let mut stored = StoredAccounts::default();
    for change in changes {
        match change {
            Change::UserPut(record) => {
                stored.users.retain(|user| user.name != record.name);
                stored.users.push(record);
            }
            Change::UserRemoved(name) => stored.users.retain(|user| user.name != name),
            Change::PermissionPut(user, decl) => stored.permissions.push((user, decl)),
            Change::PermissionRemoved(user, vhost) => {
                stored.permissions.retain(|(of, decl)| *of != user || decl.vhost != vhost);
            }
            Change::TopicPermissionPut(..) | Change::TopicPermissionRemoved(..) | Change::DefaultsLeft => {}
        }
    }
    stored
}

/// Semantics 4.8.
#[test]
fn the_default_user_is_stored_with_the_first_change_and_can_be_removed() {
    let told = Arc::new(Told::default());
    let ledger = || Arc::<Told>::clone(&told);
    let access = Access::restore(StoredAccounts::default(), &[guest()], Declared::ByDefault, ledger());
    assert!(told.take().is_empty());
    access.put_user("admin", with_password("x")).unwrap();
    access.remove_user("guest");
    let changes = told.take();
    assert!(changes.contains(&Change::DefaultsLeft));
    let access = Access::restore(stored(changes.clone()), &[], Declared::ByFile, ledger());
    assert_eq!(access.users().iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["admin"]);
    // Had nobody removed it, it would be there with its permissions.
    let kept: Vec<Change> = changes.into_iter().take_while(|change| *change != Change::DefaultsLeft).collect();
    let access = Access::restore(stored(kept), &[], Declared::ByFile, ledger());
    assert!(login(&access, b"\0guest\0guest", true).is_ok());
    assert_eq!(access.permissions_of("guest").len(), 1);
}

#[test]
fn the_file_wins_for_what_it_names_and_the_rest_stays() {
    let told = Arc::new(Told::default());
    let access = Access::restore(StoredAccounts::default(), &[], Declared::ByFile, Arc::<Told>::clone(&told));
    access.put_user("app", with_password("of-runtime")).unwrap();
    access.put_user("other", with_password("x")).unwrap();
    access.set_permission("app", &permission("/", "", "", "")).unwrap();
    access.set_permission("app", &permission("later", ".*", ".*", ".*")).unwrap();
    let mut stored = stored(told.take());
    stored.permissions.push(("nobody".into(), permission("/", "", "", "")));
    let access = Access::restore(
        stored,
        &[user("app", &[permission("/", ".*", ".*", ".*")])],
        Declared::ByFile,
        Arc::<Told>::clone(&told),
    );
    let expected = [
        Change::UserRemoved("app".into()),
        Change::PermissionRemoved("app".into(), "/".into()),
        Change::PermissionRemoved("nobody".into(), "/".into()),
    ];
    assert_eq!(told.take(), expected, "the store forgets what the file names");
    assert!(login(&access, b"\0app\0app-password", false).is_ok());
    let app = access.user("app").unwrap();
    assert!(access.permits(&app, "/", Permission::Write, Resource::Queue, "x") && access.may_enter(&app, "later"));
    assert!(access.user("other").is_some());
    assert_eq!(access.origin_of("app"), Some(Origin::Topology));
}

#[test]
fn debug_output_holds_no_secret() {
    let access = Access::new(&[user("app", &[])]);
    let text = format!("{access:?} {:?}", user("app", &[]));
    assert!(text.contains("app") && !text.contains("app-password"), "{text}");
}

/// Semantics 29.2.
#[test]
fn changes_are_told() {
    use crate::events::{Events, Next};
    let events = Events::default();
    let mut told = events.subscribe();
    let mut keys = move || -> Vec<&'static str> {
        std::iter::from_fn(|| told.try_next())
            .map(|next| match next {
                Next::News(event) => event.kind.key(),
                Next::Missed(count) => panic!("{count} were missed"),
            })
            .collect()
    };
    let access = Access::new(&[user("app", &[])]).telling(events);
    let update = |password: Option<&str>, tags: &[&str]| UserUpdate {
        password: Some(password.map(|password| PasswordHash::of(password.as_bytes(), HashAlgorithm::Sha256))),
        tags: Some(tags.iter().map(|tag| (*tag).to_owned()).collect()),
        ..UserUpdate::default()
    };
    access.put_user("bob", update(Some("1"), &["monitoring"])).unwrap();
    assert_eq!(keys(), ["user.created", "user.tags.set"]);
    access.put_user("bob", update(Some("2"), &["monitoring"])).unwrap();
    assert_eq!(keys(), ["user.password.changed"]);
    let limits = UserLimitsDecl { max_connections: Some(1), max_channels: None };
    access.put_user("bob", UserUpdate { limits: Some(limits), ..update(None, &["monitoring"]) }).unwrap();
    assert_eq!(keys(), ["user.password.cleared", "user.limits.set"]);
    let limits = Some(UserLimitsDecl::default());
    access.put_user("bob", UserUpdate { limits, ..update(None, &["monitoring"]) }).unwrap();
    assert_eq!(keys(), ["user.limits.cleared"]);
    access.put_user("bob", update(None, &[])).unwrap();
    assert_eq!(keys(), ["user.tags.set"]);
    access.set_permission("bob", &permission("/", "", "a", "b")).unwrap();
    let topics =
        TopicPermissionDecl { vhost: "/".into(), exchange: "amq.topic".into(), write: "a".into(), read: "b".into() };
    access.set_topic_permission("bob", &topics).unwrap();
    assert_eq!(keys(), ["permission.created", "topic.permission.created"]);
    access.remove_permission("bob", "/").unwrap();
    assert_eq!(keys(), ["permission.deleted"]);
    assert!(access.remove_user("bob"));
    assert_eq!(keys(), ["topic.permission.deleted", "user.deleted"]);
    assert!(!access.remove_user("bob"));
    assert!(keys().is_empty());
}
