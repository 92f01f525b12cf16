//! Lua hooks: scripts that see messages, clients and declarations on their way, and may rewrite or refuse them.
//!
//! A script is a file that returns its hooks:
//!
//! ```lua
//! return {
//!     on_publish = function(msg)
//!         msg.routing_key = "eu." .. msg.routing_key
//!     end,
//! }
//! ```
//!
//! | point | given | when |
//! |---|---|---|
//! | `on_publish` | `msg` | all checks of a publish are done, and it is about to be routed |
//! | `on_deliver` | `msg` | a message is about to be written to a consumer, or as the answer to basic.get |
//! | `on_dead_letter` | `msg` | a message has died and is about to go where its queue sends dead letters |
//! | `on_connect` | `client` | a client has logged in, may enter the vhost, and opens it |
//! | `on_declare` | `declaration` | a client may declare an exchange or queue and does; not for passive declarations and the topology file |
//!
//! What a hook may do:
//!
//! | | |
//! |---|---|
//! | `msg.routing_key` | read and write |
//! | `msg.headers["x"]`, `msg.headers.x` | read, write, remove by `nil`; `for name, value in msg.headers do`; `#msg.headers` |
//! | `msg.priority`, `.delivery_mode`, `.content_type`, `.content_encoding`, `.correlation_id`, `.reply_to`, `.expiration`, `.message_id`, `.timestamp`, `.type`, `.app_id` | read, write, remove by `nil` |
//! | `msg.exchange`, `.vhost`, `.user`, `.user_id`, `.cluster_id`, `.size` (of the body in bytes) | read |
//! | `msg.queue`, `.redelivered`, `.reason` | read: where the message comes from; nil where that has no meaning |
//! | `msg:body()` | the body as a string, if the declaration says `body: true` |
//! | `client.vhost`, `.user`, `.address`, `.port`, `.mechanism`, `.name`, `.properties` | read |
//! | `declaration.vhost`, `.user`, `.kind`, `.name`, `.type`, `.durable`, `.auto_delete`, `.exclusive`, `.internal`, `.arguments` | read |
//! | `return`, `return nil`, `return true` | goes on |
//! | `return false` | a message is dropped, a client or a declaration refused |
//! | `broker.drop(why)`, `broker.reject(why)`, `broker.dead_letter(why)` | end the call, see below |
//! | `broker.shared.get(key)`, `.set(key, value, ttl)`, `.add(key, amount, ttl)` | what all worker threads share; times to live in seconds |
//! | `broker.log(level, text)`, `broker.now()` | a log line; seconds since 1970 |
//! | `require "lib/names"` | at the top of the script: the file `lib/names.lua` beside the script |
//!
//! What becomes of it:
//!
//! | | `on_publish` | `on_deliver` | `on_dead_letter` | `on_connect`, `on_declare` |
//! |---|---|---|---|---|
//! | drop | nobody gets it; the publisher hears that all is well, also with `mandatory` | gone from its queue, as if the consumer had acked it | gone | – |
//! | reject | basic.nack, or 406 at the commit | as if the consumer had rejected it without requeue | – | refused: 530, 403 |
//! | dead_letter | to `dead_letter_exchange` of the declaration | as reject | – | – |
//! | failure, `on_error: reject` | basic.nack, or 406 at the commit | stays in its queue; the channel is closed with 406 | goes on as it came | refused |
//! | failure, `on_error: dead_letter` | as dead_letter | as dead_letter | goes on as it came | refused |
//! | failure, `on_error: drop` | as drop | as drop | as drop | refused |
//!
//! With `on_error: pass` everything goes on as it came, and with `shadow: true` whatever the script says; then it is only
//! counted and recorded.
//!
//! Changes count when the call ends well; after an error the message is as it came. Permissions were judged, and returns and
//! confirms speak, of the message as the client sent it: hooks run after all checks and right before routing (semantics 12.12). A
//! rewritten routing key is not judged again, because hooks belong to whoever runs the broker. What `on_deliver` changes is what
//! the consumer sees; the queue keeps the message as it is, and a redelivery runs the hook again.
//!
//! [`Hooks`] is the set in force and its reload. [`HookSet::load`] checks all scripts at once, [`HookSet::chain`] picks those of
//! an exchange, and [`HookChain::on_publish`] runs them in an interpreter of the calling thread. [`script_test`] runs the tests
//! beside a script.
//!
//! Not here: what a verdict looks like on the wire (`vhost`, `runtime`), and the declaration in YAML (`config`).

mod broker_table;
mod budget;
mod chain;
mod clock;
mod convert;
mod decl;
mod error;
mod facts;
mod fields;
mod headers;
mod inspect;
mod live;
mod memory;
mod message;
mod point;
mod program;
mod record;
pub mod repl;
mod sandbox;
mod script;
pub mod script_test;
mod set;
mod shared;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod view;
mod worker;

pub use chain::{HookChain, Judgement, Outcome, Refusal};
pub use decl::{HookDecl, MEMORY_LIMIT_BYTES_DEFAULT, OnError, Scope, Site, TIME_LIMIT_DEFAULT};
pub use error::{ErrorKind, HookError};
pub use facts::{Binding, Connecting, DeclaredKind, Declaring};
pub use inspect::{Inspected, Measured, inspect, measure};
pub use live::{Exchanged, Hooks, Reloaded, Reloads};
pub use point::Point;
pub use record::{MessageSnapshot, Record, Snapshot};
pub use set::HookSet;
pub use status::{Counts, HookStatus, TIME_BOUNDS};
pub use view::{Origin, Publish};
