//! What a restart keeps and what it forgets: on the machine, one broker after another on the same storage or on a disk that
//! forgets, and as a process on folders that are not as they should be.

mod folders;
mod simulated;

mod delayed;
mod held;
mod kept;
mod paging;
mod process;
mod queues;

use plugin_api::storage::Storage;
use std::sync::Arc;
use tests::broker_process;
use tests::machine::MachineTarget;
use tests::scenario::{self, parse::parse};
use tests::temp::TempDir;

fn storage() -> Arc<dyn Storage> {
    broker::plugin_host::Registry::builtin()
        .and_then(|registry| registry.storage("memory", &serde_json::Value::Null, None))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Plays one text per run of the broker.
fn check(name: &str, runs: &[&str]) {
    check_later(name, &runs.iter().map(|run| (0, *run)).collect::<Vec<_>>());
}

/// Plays one text per run of the broker, each so many milliseconds after some moment.
fn check_later(name: &str, runs: &[(u64, &str)]) {
    let storage = storage();
    for (later_ms, text) in runs {
        let scenario = parse(&format!("recovery/{name}"), text).unwrap_or_else(|error| panic!("{error}"));
        let folder = TempDir::new("recovery");
        let path = folder.write("topology.yaml", &broker_process::scenario_topology([&scenario]));
        let loaded = broker::config::load(&path, &|_| None).unwrap_or_else(|errors| panic!("{errors:?}"));
        let machine = MachineTarget::later_on(Arc::clone(&storage), &loaded.topology, *later_ms)
            .unwrap_or_else(|error| panic!("{error}"));
        scenario::run(&scenario, &machine).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn durable_queues_keep_persistent_messages_in_order() {
    check(
        "messages",
        &[
            r#"# semantics 27.1, 27.2: persistent messages stay, those unacked too; transient ones, transient queues and what was not committed do not
a.1 > queue.declare queue=transient
a.1 < queue.declare-ok queue=transient message-count=0 consumer-count=0
a.1 > queue.declare queue=q durable=true
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
a.2 > tx.select
a.2 < tx.select-ok
a.2 > basic.publish routing-key=q | delivery-mode=2 | body="not committed"
a.2 barrier
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="one"
a.1 > basic.publish routing-key=q | delivery-mode=1 | body="transient"
a.1 > basic.publish routing-key=q | delivery-mode=2 headers={x:1} priority=3 | body="two"
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="three"
a.1 > basic.get queue=q
a.1 < basic.get-ok delivery-tag=1 redelivered=false exchange="" routing-key=q message-count=3 | delivery-mode=2 | body="one"
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-ok delivery-tag=2 .. | delivery-mode=1 | body="transient"
"#,
            r#"# they come back in their order, with their properties; what somebody had says so (semantics 13.21)
a.2 > queue.declare queue=transient passive=true
a.2 < channel.close code=404 text="NOT_FOUND - no queue 'transient' in vhost '$vhost'" method=queue.declare
a.2 > channel.close-ok
a.1 > queue.declare queue=q durable=true passive=true
a.1 < queue.declare-ok queue=q message-count=3 consumer-count=0
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="four"
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-ok delivery-tag=1 redelivered=true exchange="" routing-key=q message-count=3 | delivery-mode=2 | body="one"
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-ok delivery-tag=2 redelivered=false exchange="" routing-key=q message-count=2 | delivery-mode=2 headers={x:1} priority=3 | body="two"
"#,
            r#"# and what was acked does not
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-ok delivery-tag=1 .. | delivery-mode=2 | body="three"
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-ok delivery-tag=2 .. | delivery-mode=2 | body="four"
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-empty
"#,
        ],
    );
}

#[test]
fn a_durability_of_its_own_stays_with_a_queue() {
    check(
        "durability",
        &[
            r#"# our own argument, compared as RabbitMQ compares its own (semantics 9.8)
a.1 > queue.declare queue=q durable=true arguments={x-durability:"os"}
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
a.1 > queue.declare queue=q durable=true arguments={x-durability:"os"}
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
a.2 > queue.declare queue=wrong durable=true arguments={x-durability:"memory"}
a.2 < channel.close code=406 text="PRECONDITION_FAILED - invalid arg 'x-durability' for queue 'wrong' in vhost '$vhost': value 'memory' is not one of synced, os" method=queue.declare
a.2 > channel.close-ok
"#,
            r#"# it is there after a restart
a.1 > queue.declare queue=q durable=true arguments={x-durability:"os"}
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
a.1 > queue.declare queue=q durable=true
a.1 < channel.close code=406 text="PRECONDITION_FAILED - inequivalent arg 'x-durability' for queue 'q' in vhost '$vhost': received 'synced' but current is 'os'" method=queue.declare
a.1 > channel.close-ok
"#,
        ],
    );
}

#[test]
fn bindings_stay_between_durable_ends_only() {
    check(
        "bindings",
        &[
            r#"# semantics 27.3, 27.4
a.1 > exchange.declare exchange=durable type=topic durable=true
a.1 < exchange.declare-ok
a.1 > exchange.declare exchange=transient type=fanout
a.1 < exchange.declare-ok
a.1 > exchange.declare exchange=gone type=fanout durable=true
a.1 < exchange.declare-ok
a.1 > queue.declare queue=kept durable=true
a.1 < queue.declare-ok ..
a.1 > queue.declare queue=lost
a.1 < queue.declare-ok ..
a.1 > queue.declare queue=deleted durable=true
a.1 < queue.declare-ok ..
a.1 > queue.bind queue=kept exchange=durable routing-key=a.# arguments={x:1}
a.1 < queue.bind-ok
a.1 > queue.bind queue=kept exchange=durable routing-key=b.#
a.1 < queue.bind-ok
a.1 > queue.unbind queue=kept exchange=durable routing-key=b.#
a.1 < queue.unbind-ok
a.1 > queue.bind queue=lost exchange=durable routing-key=c.#
a.1 < queue.bind-ok
a.1 > queue.bind queue=kept exchange=transient
a.1 < queue.bind-ok
a.1 > queue.delete queue=deleted
a.1 < queue.delete-ok message-count=0
a.1 > exchange.delete exchange=gone
a.1 < exchange.delete-ok
"#,
            r#"# durable ends and what binds them are there, the rest is not
a.1 > basic.publish exchange=durable routing-key=a.b | | body="kept"
a.1 > basic.publish exchange=durable routing-key=b.b mandatory=true | | body="unbound"
a.1 < basic.return reply-code=312 .. | | body="unbound"
a.1 > basic.publish exchange=durable routing-key=c.b mandatory=true | | body="lost"
a.1 < basic.return reply-code=312 .. | | body="lost"
a.1 > basic.get queue=kept no-ack=true
a.1 < basic.get-ok .. | | body="kept"
a.2 > queue.declare queue=lost passive=true
a.2 < channel.close code=404 text="NOT_FOUND - no queue 'lost' in vhost '$vhost'" method=queue.declare
a.2 > channel.close-ok
a.3 > queue.declare queue=deleted passive=true
a.3 < channel.close code=404 ..
a.3 > channel.close-ok
a.4 > exchange.declare exchange=transient type=fanout passive=true
a.4 < channel.close code=404 ..
a.4 > channel.close-ok
a.5 > exchange.declare exchange=gone passive=true
a.5 < channel.close code=404 ..
a.5 > channel.close-ok
"#,
        ],
    );
}

#[test]
fn declarations_come_back_with_everything_that_was_declared() {
    check(
        "declarations",
        &[
            r#"# semantics 27.1, 27.4
a.1 > exchange.declare exchange=other type=fanout durable=true
a.1 < exchange.declare-ok
a.1 > exchange.declare exchange=all type=topic durable=true internal=true auto-delete=true arguments={alternate-exchange:other, note:1}
a.1 < exchange.declare-ok
a.1 > queue.declare queue=q durable=true auto-delete=true arguments={x-queue-mode:lazy, note:2}
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
a.1 > exchange.bind destination=all source=other routing-key=k
a.1 < exchange.bind-ok
a.1 > queue.bind queue=q exchange=all routing-key=#
a.1 < queue.bind-ok
"#,
            r#"# the same declarations are equivalent, others are not
a.1 > exchange.declare exchange=all type=topic durable=true internal=true auto-delete=true arguments={alternate-exchange:other}
a.1 < exchange.declare-ok
a.1 > queue.declare queue=q durable=true auto-delete=true arguments={x-queue-mode:lazy}
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
a.1 > basic.publish exchange=other routing-key=k | | body="through both"
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-ok exchange=other routing-key=k .. | | body="through both"
a.1 > queue.declare queue=q durable=true arguments={x-queue-mode:lazy}
a.1 < channel.close code=406 ..
a.1 > channel.close-ok
a.2 > exchange.declare exchange=all type=topic durable=true internal=true auto-delete=true
a.2 < channel.close code=406 ..
a.2 > channel.close-ok
"#,
            r#"# an auto-delete exchange that lost its last binding is gone for good, with the binding that led to it
a.1 > queue.unbind queue=q exchange=all routing-key=#
a.1 < queue.unbind-ok
"#,
            r#"# semantics 8.13
a.1 > exchange.declare exchange=all passive=true
a.1 < channel.close code=404 ..
a.1 > channel.close-ok
a.2 > basic.publish exchange=other routing-key=k mandatory=true | | body="nowhere"
a.2 < basic.return reply-code=312 .. | | body="nowhere"
"#,
        ],
    );
}

#[test]
fn exclusive_queues_are_never_there_after_a_restart() {
    check(
        "exclusive",
        &[
            r#"# semantics 9.5, 27.8: durable is ignored for them
a.1 > queue.declare queue=q durable=true exclusive=true
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="m"
a drop
"#,
            r#"# so anybody may declare a queue of that name
a.1 > queue.declare queue=q durable=true
a.1 < queue.declare-ok queue=q message-count=0 consumer-count=0
"#,
        ],
    );
}
