//! Certificates that change while the broker runs.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tests::broker_process::signal;
use tests::certificates::connect;
use tests::wire::PROTOCOL_HEADER;

use super::{Bench, call, round_trip, text};

/// The certificate that the broker shows now.
fn shown(address: SocketAddr, config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut stream = connect(address, config);
    stream.write_all(&PROTOCOL_HEADER).unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn new_connections_get_the_new_certificate_and_old_ones_live_on() {
    let bench = Bench::new("", "");
    let config = bench.authority.trusting(None);
    let first = shown(bench.amqps, &config);
    let mut old = bench.login(&config).unwrap();
    call(&mut old, "channel.open", &[]);
    call(&mut old, "queue.declare", &[("queue", text("q"))]);
    let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever happens to the files, this connection and new ones work all the time.
            while !is_over.load(Ordering::Relaxed) {
                round_trip(&mut old, "q", 50_000);
                bench.login(&config).unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        bench.authority.install(&bench.authority.server());
        let taken = bench.broker.wait_for_log(|line| line.contains("changed TLS files are in use for new connections"));
        let second = shown(bench.amqps, &config);
        is_over.store(true, Ordering::Relaxed);
        taken.unwrap();
        assert!(second != first, "the new certificate is shown");
    });
    assert!(rounds.into_inner() > 0);
    round_trip(&mut old, "q", 50_000);
}

#[test]
fn broken_files_change_nothing_and_are_named_once() {
    let bench = Bench::new("", "");
    let config = bench.authority.trusting(None);
    let first = shown(bench.amqps, &config);
    // A key of another certificate.
    bench.authority.write("server.key", &bench.authority.server().key);
    let refused = "changed TLS files are not used";
    let line = bench.logged(&[refused, "server.key is not the key of the certificate"]);
    assert!(line.contains("ERROR"), "{line}");
    assert_eq!(shown(bench.amqps, &config), first);
    bench.authority.write("server.pem", "-----BEGIN CERTIFICATE-----\nhalf");
    bench.logged(&[refused, "server.pem"]);
    std::fs::remove_file(bench.authority.path("server.key")).unwrap();
    std::fs::remove_file(bench.authority.path("server.pem")).unwrap();
    bench.logged(&[refused, "cannot be read"]);
    assert_eq!(shown(bench.amqps, &config), first);
    let said = || bench.broker.log().iter().filter(|line| line.contains(refused)).count();
    let before = said();
    bench.authority.install(&bench.authority.server());
    bench.logged(&["changed TLS files are in use"]);
    assert!(said() <= before + 1, "each state of the files is named once");
    assert!(shown(bench.amqps, &config) != first);
}

#[test]
fn signal_takes_them_over_at_once() {
    let bench = Bench::new("", "");
    let config = bench.authority.trusting(None);
    let first = shown(bench.amqps, &config);
    bench.authority.install(&bench.authority.server());
    signal(bench.broker.pid(), "HUP").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while shown(bench.amqps, &config) == first {
        assert!(Instant::now() < deadline, "the new certificate is shown after the signal");
    }
    // Nothing has changed since; the broker lives on.
    signal(bench.broker.pid(), "HUP").unwrap();
    bench.login(&config).unwrap();
}

#[test]
fn authorities_change_with_the_files_too() {
    let bench = Bench::new(", client_certificates: require", "");
    let others = tests::certificates::Authority::new("the others");
    let theirs = bench.authority.trusting(Some(&others.client("ann")));
    bench.login(&theirs).map(|_| ()).unwrap_err();
    bench.authority.write("ca.pem", &others.pem);
    bench.logged(&["changed TLS files are in use"]);
    bench.login(&theirs).unwrap();
    bench.login(&bench.authority.trusting(Some(&bench.authority.client("ann")))).map(|_| ()).unwrap_err();
}
