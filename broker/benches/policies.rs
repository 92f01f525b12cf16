//! What a change of policies costs where many queues are: `cargo bench -p broker --bench policies`.
//!
//! A broker on the storage in memory has 10,000 queues. For each change: milliseconds until it has reached every queue, and the longest that
//! somebody else waited meanwhile who looks up queues as publishers and consumers do.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use broker::origin::Origin;
use broker::plugin_host::Registry;
use broker::runtime::{Broker, Clock};
use broker::store::Committer;
use broker::store::recovery::recover;
use broker::vhost::Vhost;
use broker::vhost::policy::{ApplyTo, PolicyKind, PolicySpec};

const QUEUES: usize = 10_000;
const ROUNDS: usize = 5;

fn main() {
    let broker = start();
    let vhost = broker.vhost("/").expect("there is a vhost");
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{:<44}{:>10}{:>12}", format!("{QUEUES} queues"), "ms", "others, ms");
    let mut show = |what: &str, change: &mut dyn FnMut(u64)| {
        let mut best = [Duration::MAX; 2];
        for round in 0..ROUNDS {
            let measured = measure(&vhost, || change(round as u64));
            best = [best[0].min(measured[0]), best[1].min(measured[1])];
        }
        let [all, others] = best.map(|time| time.as_secs_f64() * 1_000.0);
        let _ = writeln!(out, "{what:<44}{all:>10.2}{others:>12.3}");
    };
    let limit = |round: u64| 1_000 + round;
    show("a policy for all of them", &mut |round| put(&vhost, "all", "^queue", 5, limit(round)));
    show("a policy for none of them", &mut |round| put(&vhost, "none", "^nothing", 9, limit(round)));
    for number in 0..100 {
        put(&vhost, &format!("p{number}"), &format!("^tenant{number}\\."), 9, 1);
    }
    show("a policy for all of them, behind 100 others", &mut |round| put(&vhost, "all", "^queue", 5, limit(round)));
}

/// Best to read while somebody else changes: how long the change takes, and the longest look.
fn measure(vhost: &Arc<Vhost>, change: impl FnOnce()) -> [Duration; 2] {
    let (is_over, longest, looks) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number = (number + 1) % QUEUES;
                let start = Instant::now();
                let queue = vhost.queue(&name(number)).expect("it was declared");
                let settings = Arc::clone(&queue.settings.read());
                let nanos = start.elapsed().as_nanos() as u64;
                drop(settings);
                longest.fetch_max(nanos, Ordering::Relaxed);
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        while looks.load(Ordering::Relaxed) < 1_000 {
            std::hint::spin_loop();
        }
        longest.store(0, Ordering::Relaxed);
        let start = Instant::now();
        change();
        let all = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        [all, Duration::from_nanos(longest.load(Ordering::Relaxed))]
    })
}

fn name(number: usize) -> String {
    format!("queue{number}")
}

fn put(vhost: &Arc<Vhost>, name: &str, pattern: &str, priority: i64, max_length: u64) {
    let definition = [("max-length".to_owned(), max_length.into())].into_iter().collect();
    let spec = PolicySpec {
        name: name.to_owned(),
        pattern: pattern.to_owned(),
        apply_to: ApplyTo::Queues,
        priority,
        definition,
    };
    vhost.put_policy(PolicyKind::User, spec, Origin::Runtime).expect("a good policy");
}

fn start() -> Arc<Broker> {
    let mut text = String::from("vhosts:\n  /:\n    queues:\n");
    for number in 0..QUEUES {
        text.push_str(&format!("      {}:\n", name(number)));
    }
    let path = std::env::temp_dir().join(format!("policies-bench-{}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("temporary file");
    let loaded = broker::config::load(&path, &|_| None);
    let _ = std::fs::remove_file(&path);
    let loaded = loaded.expect("a good file");
    let registry = Registry::builtin().expect("built-in plugins load");
    let storage = registry.storage("memory", &serde_json::Value::Null, None).expect("built in");
    let recovery = match pin!(recover(&*storage)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(recovery) => recovery.expect("an empty store"),
        Poll::Pending => unreachable!("memory does not wait"),
    };
    let committer = Committer::new(storage);
    broker::node::build(&loaded.topology, Arc::new(registry), &committer, recovery, Clock::default()).expect("starts")
}
