//! Many connections that do nothing: what they take, and that the broker sleeps with them.

use std::time::{Duration, Instant};

use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::{Received, Target};
use tests::wire::Field;

const CONNECTIONS: u64 = 1000;
/// Memory of one with a channel and a consumer. Allocators take memory in steps, which few connections share: it is 10 KiB with many.
const BYTES_MAX: u64 = 20 * 1024;
/// A look at the memory in use each second, at all objects each five, and what timers take to get there.
const WAKE_UPS_PER_SECOND_MAX: u64 = 15;
const WINDOW: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(40);

fn consumer(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login { heartbeat: 0, ..Login::guest("/") }).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").unwrap();
    let queue = ("queue", Field::String(b"shared".to_vec()));
    connection.call(1, "queue.declare", &[queue.clone(), ("durable", Field::Bit(true))]);
    connection.wait_for(1, "queue.declare-ok").unwrap();
    connection.call(1, "basic.consume", &[queue]);
    connection.wait_for(1, "basic.consume-ok").unwrap();
    connection
}

fn anonymous_bytes(broker: &BrokerProcess) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", broker.pid())).expect("the process lives");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("it has memory");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// How often threads of the broker have gone to sleep.
fn sleeps(broker: &BrokerProcess) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("the process lives");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
        .filter_map(|status| {
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn idle_consumers_take_little_memory_and_no_time() {
    let folder = TempDir::new("many");
    let data = folder.path().join("data").display().to_string();
    let broker = BrokerOptions::default().http().metrics().argument("--data").argument(data).start().unwrap();
    // The first ones fill what all share.
    let mut connections: Vec<Connection> = (0..50).map(|_| consumer(&broker)).collect();
    let before = anonymous_bytes(&broker);
    connections.extend((0..CONNECTIONS).map(|_| consumer(&broker)));
    // What threads have freed goes back when they sleep, which may take a while where much else is going on.
    let deadline = Instant::now() + DEADLINE;
    loop {
        let each = anonymous_bytes(&broker).saturating_sub(before) / CONNECTIONS;
        if each <= BYTES_MAX {
            break;
        }
        assert!(Instant::now() < deadline, "{each} bytes for each connection");
        std::thread::yield_now();
    }

    // Sooner or later nothing happens any more, and nobody hears anything.
    let mut idle = connections.remove(0).into_transport();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let before = sleeps(&broker);
        let end = Instant::now() + WINDOW;
        assert!(matches!(idle.receive(end), Ok(Received::Nothing)), "there is nothing to say");
        let wake_ups = sleeps(&broker).saturating_sub(before);
        if wake_ups <= WAKE_UPS_PER_SECOND_MAX * WINDOW.as_secs() {
            return;
        }
        assert!(Instant::now() < deadline, "{wake_ups} wake-ups in {WINDOW:?} while nothing happens");
    }
}
