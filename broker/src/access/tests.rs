//! Login and permissions through the public methods of [`Access`].

use super::*;

pub(super) fn user(name: &str, permissions: &[PermissionDecl]) -> UserDecl {
    UserDecl {
        name: name.to_owned(),
        password: PasswordDecl::Plain(format!("{name}-password")),
        tags: Vec::new(),
        loopback_only: false,
        permissions: permissions.to_vec(),
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
    let future = std::pin::pin!(access.login(Mechanism::Plain, response, Peer { is_loopback }));
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
        assert_eq!(access.permits(&app, vhost, kind, name), expected, "{kind} {name} in {vhost}");
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
    assert!(!access.permits(&app, "/", Permission::Configure, "("));
    assert!(access.permits(&app, "/", Permission::Write, "x"));
    assert!(!access.permits(&app, "/", Permission::Read, "["));
}

#[test]
fn users_change_while_the_broker_runs() {
    let access = Access::new(&[]);
    let first = access.generation();
    access.put_user(&user("app", &[permission("/", "", "", ".*")]));
    assert!(access.generation() > first);
    let app = login(&access, b"\0app\0app-password", false).unwrap();

    access.set_password("app", &PasswordDecl::Plain("new".to_owned())).unwrap();
    assert!(login(&access, b"\0app\0app-password", false).is_err());
    assert!(login(&access, b"\0app\0new", false).is_ok());

    access.set_tags("app", vec!["monitoring".to_owned()]).unwrap();
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
    assert_eq!(access.set_tags("app", vec![]), Err(NoSuchUser("app".to_owned())));
    assert!(login(&access, b"\0app\0new", false).is_err());
    assert!(access.users().is_empty());
}

#[test]
fn debug_output_holds_no_secret() {
    let access = Access::new(&[user("app", &[])]);
    let text = format!("{access:?} {:?}", user("app", &[]));
    assert!(text.contains("app") && !text.contains("app-password"), "{text}");
}
