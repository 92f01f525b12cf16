//! The backend against a directory that the test makes: two people, a few groups, and bad days.

mod directory;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use auth_ldap::LdapType;
use plugin_api::auth::{
    Answer, AuthBackend, AuthError, AuthSpec, AuthType, Identity, Login, Permission, Resource, ResourceRequest,
    Verdict, VhostRequest,
};
use plugin_api::config::Config;
use plugin_api::serde_json::json;
use plugin_api::testing::block_on;

use crate::directory::{Behaviour, directory, reply, start};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn open(server: SocketAddr) -> Arc<dyn AuthBackend> {
    let config = json!({
        "server": server.to_string(),
        "user": "uid=${username},ou=people,dc=example",
        "tags": { "administrator": "cn=admins,ou=groups,dc=example" },
        "vhost": "cn=${vhost},ou=vhosts,dc=example",
        "read": "cn=readers,ou=groups,dc=example",
        "timeout": 300,
    });
    LdapType.open(&AuthSpec { config: Config::new(config), base: None }).unwrap()
}

fn login(backend: &dyn AuthBackend, user: &str, password: &str) -> Result<Answer<Identity>, AuthError> {
    block_on(backend.login(&Login { user, password: password.as_bytes(), vhost: None, peer: PEER }))
}

#[test]
fn directory_says_who_may_log_in_and_what_they_may_do() {
    let (server, _) = start(directory);
    let backend = open(server);
    let ann = match login(&*backend, "ann", "secret").unwrap().verdict {
        Verdict::Allow(identity) => identity,
        other => panic!("{other:?}"),
    };
    assert_eq!((ann.user.as_str(), ann.tags.as_slice()), ("ann", &["administrator".to_owned()][..]));
    let bob = Identity::new("bob", [""; 0]);
    assert_eq!(login(&*backend, "bob", "hunter2").unwrap().verdict, Verdict::Allow(bob.clone()));
    let vhost = |who: &Identity, vhost| {
        block_on(backend.vhost(&VhostRequest { subject: who.subject(PEER), vhost })).unwrap().verdict
    };
    assert_eq!((vhost(&ann, "shop"), vhost(&bob, "shop")), (Verdict::Allow(()), Verdict::Allow(())));
    assert!(matches!(vhost(&ann, "other"), Verdict::Deny(_)));
    let may = |who: &Identity, permission| {
        let (subject, resource) = (who.subject(PEER), Resource::Queue);
        let request = ResourceRequest { subject, vhost: "shop", resource, name: "q", permission };
        matches!(block_on(backend.resource(&request)).unwrap().verdict, Verdict::Allow(()))
    };
    assert_eq!((may(&ann, Permission::Read), may(&bob, Permission::Read)), (true, false));
    assert!(may(&bob, Permission::Write), "no group is asked for");
}

#[test]
fn wrong_and_empty_passwords_and_names_that_would_be_others_are_refused() {
    let (server, count) = start(directory);
    let backend = open(server);
    for (user, password) in [("ann", "wrong"), ("ann,ou=people", "secret"), ("nobody", "secret")] {
        assert!(matches!(login(&*backend, user, password).unwrap().verdict, Verdict::Deny(_)), "{user}");
    }
    let before = count.load(Ordering::SeqCst);
    for (user, password) in [("ann", ""), ("", ""), ("", "x")] {
        assert!(matches!(login(&*backend, user, password).unwrap().verdict, Verdict::Deny(_)), "{user}");
    }
    assert_eq!(count.load(Ordering::SeqCst), before, "the directory, which would say yes, is not even asked");
}

#[test]
fn directory_that_does_not_answer_properly_is_an_error_in_time() {
    let bad_days: [Behaviour; 6] = [
        |_, _, _, _| Ok(()),
        |stream, number, _, _| reply(stream, number, 0x61, 52),
        |stream, number, _, _| reply(stream, number + 1, 0x61, 0),
        |stream, number, _, _| reply(stream, number, 0x6f, 0),
        |stream, _, _, _| stream.write_all(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]),
        |stream, _, _, _| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ];
    for behaviour in bad_days {
        let (server, _) = start(behaviour);
        let began = Instant::now();
        let error = login(&*open(server), "ann", "secret").unwrap_err().text;
        assert!(error.starts_with("asking the directory failed: ") && !error.contains("secret"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3), "{error}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(login(&*open(gone), "ann", "secret").is_err());
}

#[test]
fn conformance() {
    let (server, _) = start(directory);
    plugin_api::testing::auth_backends(&auth_ldap::PLUGIN)
        .config(json!({ "server": server.to_string(), "user": "uid=${username},ou=people,dc=example" }))
        .user("ann", "secret")
        .run();
}
