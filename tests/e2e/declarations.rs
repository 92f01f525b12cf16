//! Declarations of several connections at once.

use tests::broker_process::BrokerProcess;
use tests::scenario::connection::{Connection, Login};
use tests::transport::Target;
use tests::wire::Field;

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn channel(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").unwrap();
    connection
}

#[test]
fn declaring_what_somebody_deletes_is_no_error() {
    const ROUNDS: usize = 300;
    let broker = BrokerProcess::start();
    let work = |deletes: bool| {
        let mut connection = channel(&broker);
        for _ in 0..ROUNDS {
            connection.call(1, "exchange.declare", &[("exchange", text("x")), ("type", text("fanout"))]);
            connection.wait_for(1, "exchange.declare-ok").expect("declaring is fine at any time");
            connection.call(1, "queue.declare", &[("queue", text("q"))]);
            connection.wait_for(1, "queue.declare-ok").expect("declaring is fine at any time");
            if deletes {
                connection.call(1, "exchange.delete", &[("exchange", text("x"))]);
                connection.wait_for(1, "exchange.delete-ok").expect("deleting is fine at any time");
                connection.call(1, "queue.delete", &[("queue", text("q"))]);
                connection.wait_for(1, "queue.delete-ok").expect("deleting is fine at any time");
            }
        }
    };
    std::thread::scope(|scope| {
        for deletes in [false, true, true] {
            scope.spawn(move || work(deletes));
        }
    });
}
