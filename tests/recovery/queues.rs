//! What a restart keeps of time, length and death: deadlines, limits, histories.

use super::{check, check_later};

/// The text of a run that begins by declaring `q` with these arguments, and `dead` for its dead letters.
fn run(comment: &str, arguments: &str, rest: &str) -> String {
    format!(
        r#"# {comment}
a.1 > queue.declare queue=dead durable=true
a.1 < queue.declare-ok queue=dead ..
a.1 > queue.declare queue=q durable=true arguments={{{arguments}, x-dead-letter-exchange:"", x-dead-letter-routing-key:dead}}
a.1 < queue.declare-ok queue=q ..
{rest}"#
    )
}

#[test]
fn deadlines_survive_and_time_passes_while_the_broker_is_down() {
    // Semantics 18.9, 27.6.
    check_later(
        "ttl",
        &[
            (
                0,
                &run(
                    "one expires while the broker is down, one some time after",
                    "x-message-ttl:60000",
                    r#"a.1 > basic.publish routing-key=q | delivery-mode=2 expiration=1000 | body="one"
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="two"
a.1 barrier
"#,
                ),
            ),
            (
                30_000,
                &run(
                    "what the first run left",
                    "x-message-ttl:60000",
                    r#"a.1 > basic.consume queue=dead consumer-tag=c no-ack=true
a.1 < basic.consume-ok consumer-tag=c
a.1 < basic.deliver consumer-tag=c delivery-tag=1 routing-key=dead | delivery-mode=2 headers={x-death:[{original-expiration:"1000", count:1l, reason:expired, queue:q, time:*, exchange:"", routing-keys:[q]}], ..} | body="one"
a.1 > queue.declare queue=q passive=true
a.1 < queue.declare-ok queue=q message-count=1 ..
"#,
                ),
            ),
            (
                60_000,
                &run(
                    "its minute is over",
                    "x-message-ttl:60000",
                    r#"a.1 > basic.consume queue=dead consumer-tag=c no-ack=true
a.1 < basic.consume-ok consumer-tag=c
a.1 < basic.deliver consumer-tag=c delivery-tag=1 routing-key=dead | .. | body="two"
"#,
                ),
            ),
        ],
    );
}

#[test]
fn an_expiration_of_the_messages_own_survives_in_a_queue_without_a_time_to_live() {
    // Semantics 18.9: nothing tells a queue that it has such a message but the message itself.
    let arguments = "x-max-length:1000";
    check_later(
        "expiration",
        &[
            (
                0,
                &run(
                    "a queue that nobody consumes from",
                    arguments,
                    r#"a.1 > basic.publish routing-key=q | delivery-mode=2 expiration=1000 | body="one"
a.1 barrier
"#,
                ),
            ),
            (
                500,
                &run(
                    "it expires by itself",
                    arguments,
                    r#"a.1 > basic.consume queue=dead consumer-tag=c no-ack=true
a.1 < basic.consume-ok consumer-tag=c
a.1 < basic.deliver consumer-tag=c delivery-tag=1 routing-key=dead | .. | body="one"
"#,
                ),
            ),
        ],
    );
}

#[test]
fn the_history_of_deaths_survives_and_counts_on() {
    // Semantics 20.7, 20.9, 27.6: what the broker wrote it knows again, and only that.
    let declare_circle = r#"a.1 > queue.declare queue=p durable=true arguments={x-dead-letter-exchange:"", x-dead-letter-routing-key:q}
a.1 < queue.declare-ok queue=p ..
a.1 > queue.declare queue=q durable=true arguments={x-dead-letter-exchange:"", x-dead-letter-routing-key:p}
a.1 < queue.declare-ok queue=q ..
"#;
    let reject = |queue: &str, expected: &str| {
        format!(
            r#"# one more death
{declare_circle}a.1 > basic.get queue={queue}
a.1 < basic.get-ok delivery-tag=1 redelivered=* routing-key=q message-count=0 | delivery-mode=2 headers={{{expected}}} | body="m"
a.1 > basic.reject delivery-tag=1 requeue=false
a.1 barrier
"#
        )
        .replace("routing-key=q", &format!("routing-key={queue}"))
    };
    let death = |count: u8, queue: &str, key: &str| {
        format!("{{count:{count}l, reason:rejected, queue:{queue}, time:*, exchange:\"\", routing-keys:[{key}]}}")
    };
    check(
        "x-death",
        &[
            &format!(
                r#"# a publisher's own history is data
{declare_circle}a.1 > basic.publish routing-key=q | delivery-mode=2 headers={{x-death:[{{count:9l, reason:rejected, queue:q}}]}} | body="m"
a.1 barrier
"#
            ),
            &reject("q", "x-death:[{count:9l, reason:rejected, queue:q}]"),
            &reject("p", &format!("x-death:[{}], ..", death(1, "q", "q"))),
            &reject("q", &format!("x-death:[{}, {}], ..", death(1, "p", "p"), death(1, "q", "q"))),
            &reject("p", &format!("x-death:[{}, {}], ..", death(2, "q", "q"), death(1, "p", "p"))),
        ],
    );
}

#[test]
fn limits_apply_to_what_comes_back_at_a_start() {
    // Semantics 19.3, 27.1: what somebody had is ready again, and too much.
    let arguments = "x-max-length:2";
    check(
        "limits",
        &[
            &run(
                "two are ready and one is unacked",
                arguments,
                r#"a.1 > basic.publish routing-key=q | delivery-mode=2 | body="one"
a.1 > basic.get queue=q
a.1 < basic.get-ok delivery-tag=1 routing-key=q | delivery-mode=2 | body="one"
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="two"
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="three"
a.1 barrier
"#,
            ),
            &run(
                "the first has to go",
                arguments,
                r#"a.1 > basic.consume queue=dead consumer-tag=c no-ack=true
a.1 < basic.consume-ok consumer-tag=c
a.1 < basic.deliver consumer-tag=c delivery-tag=1 routing-key=dead | delivery-mode=2 headers={x-death:[{count:1l, reason:maxlen, queue:q, time:*, exchange:"", routing-keys:[q]}], ..} | body="one"
a.1 > queue.declare queue=q passive=true
a.1 < queue.declare-ok queue=q message-count=2 ..
"#,
            ),
        ],
    );
}

#[test]
fn a_limit_of_bytes_is_known_again_after_a_start() {
    // Semantics 19.1: the sizes are read again.
    let arguments = "x-max-length-bytes:10";
    check(
        "bytes",
        &[
            &run(
                "nine bytes of ten",
                arguments,
                r#"a.1 > basic.publish routing-key=q | delivery-mode=2 | body="123456"
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="789"
a.1 barrier
"#,
            ),
            &run(
                "two more are too much",
                arguments,
                r#"a.1 > basic.consume queue=dead consumer-tag=c no-ack=true
a.1 < basic.consume-ok consumer-tag=c
a.1 > basic.publish routing-key=q | delivery-mode=2 | body="ab"
a.1 < basic.deliver consumer-tag=c delivery-tag=1 routing-key=dead | .. | body="123456"
a.1 > basic.get queue=q no-ack=true
a.1 < basic.get-ok delivery-tag=2 routing-key=q message-count=1 | delivery-mode=2 | body="789"
"#,
            ),
        ],
    );
}

#[test]
fn the_lease_of_a_queue_begins_again_at_a_start() {
    // Semantics 18.8.
    let declare =
        "a.1 > queue.declare queue=q durable=true arguments={x-expires:1000}\na.1 < queue.declare-ok queue=q ..\n";
    check_later(
        "expires",
        &[
            (0, &format!("# declared\n{declare}")),
            (
                600_000,
                r#"# it is there long after, and goes when its time is over
a.1 > queue.bind queue=q exchange=amq.fanout
a.1 < queue.bind-ok
a.1 > queue.declare queue=tick
a.1 < queue.declare-ok queue=tick
a.1 > queue.declare queue=clock arguments={x-message-ttl:1500, x-dead-letter-exchange:"", x-dead-letter-routing-key:tick}
a.1 < queue.declare-ok queue=clock
a.1 > basic.consume queue=tick consumer-tag=tick no-ack=true
a.1 < basic.consume-ok consumer-tag=tick
a.1 > basic.publish routing-key=clock | body="tick"
a.1 < basic.deliver consumer-tag=tick delivery-tag=1 routing-key=tick | .. | body="tick"
a.1 > queue.declare queue=q passive=true
a.1 < channel.close code=404 text="NOT_FOUND - no queue 'q' in vhost '$vhost'" method=queue.declare
a.1 > channel.close-ok
"#,
            ),
        ],
    );
}

#[test]
fn keys_of_bcc_survive_for_dead_letters_and_stay_hidden() {
    // Semantics 20.3 and 11.12.
    check(
        "bcc",
        &[
            r#"# two queues get it, and neither sees who else did
a.1 > queue.declare queue=q durable=true arguments={x-dead-letter-exchange:amq.direct}
a.1 < queue.declare-ok queue=q
a.1 > queue.declare queue=dead durable=true
a.1 < queue.declare-ok queue=dead
a.1 > queue.bind queue=dead exchange=amq.direct routing-key=hidden
a.1 < queue.bind-ok
a.1 > basic.publish routing-key=q | delivery-mode=2 headers={BCC:[hidden]} | body="m"
a.1 barrier
"#,
            r#"# its dead letter goes where the hidden key leads
a.1 > basic.get queue=q
a.1 < basic.get-ok delivery-tag=1 routing-key=q | delivery-mode=2 headers={} | body="m"
a.1 > basic.reject delivery-tag=1 requeue=false
a.1 > basic.get queue=dead
a.1 < basic.get-ok delivery-tag=2 exchange=amq.direct routing-key=q | delivery-mode=2 headers={x-death:[{count:1l, reason:rejected, queue:q, time:*, exchange:"", routing-keys:[q]}], x-first-death-reason:rejected, x-first-death-queue:q, x-first-death-exchange:"", x-last-death-reason:rejected, x-last-death-queue:q, x-last-death-exchange:""} | body="m"
"#,
        ],
    );
}
