//! Lua hooks: scripts that see a message before it is routed, and may rewrite, drop or reject it.
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
//! What a hook may do:
//!
//! | | |
//! |---|---|
//! | `msg.routing_key` | read and write |
//! | `msg.headers["x"]`, `msg.headers.x` | read, write, remove by `nil`; `for name, value in msg.headers do`; `#msg.headers` |
//! | `msg.priority`, `.delivery_mode`, `.content_type`, `.content_encoding`, `.correlation_id`, `.reply_to`, `.expiration`, `.message_id`, `.timestamp`, `.type`, `.app_id` | read, write, remove by `nil` |
//! | `msg.exchange`, `.vhost`, `.user`, `.user_id`, `.cluster_id`, `.size` (of the body in bytes) | read |
//! | `msg:body()` | the body as a string, if the declaration says `body: true` |
//! | `return`, `return nil`, `return true` | the message goes on |
//! | `return false`, `broker.drop(why)` | it is dropped; the publisher hears that all is well, also with `mandatory` |
//! | `broker.reject(why)` | the publisher gets an error |
//! | `broker.log(level, text)`, `broker.now()` | a log line; seconds since 1970 |
//! | `require "lib/names"` | at the top of the script: the file `lib/names.lua` beside the script |
//!
//! `broker.drop` and `broker.reject` end the call. Changes count when the call ends well; after an error the message is as
//! it came, and `on_error` of the declaration decides. Permissions were judged, and returns and confirms speak, of the
//! message as the client sent it: hooks run after all checks and right before routing (semantics 12.12). A rewritten
//! routing key is not judged again, because hooks belong to whoever runs the broker.
//!
//! [`HookSet::load`] checks all scripts at once, [`HookSet::chain`] picks those of an exchange, and [`HookChain::on_publish`]
//! runs them in an interpreter of the calling thread. [`script_test`] runs the tests beside a script.
//!
//! Not here: what a drop or a reject looks like on the wire (`vhost`), and the declaration in YAML (`config`).

mod budget;
mod chain;
mod convert;
mod decl;
mod error;
mod fields;
mod headers;
mod memory;
mod message;
mod program;
mod sandbox;
mod script;
pub mod script_test;
mod set;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod view;
mod worker;

pub use chain::{HookChain, Outcome, Publish};
pub use decl::{HookDecl, MEMORY_LIMIT_BYTES_DEFAULT, OnError, Scope, TIME_LIMIT_DEFAULT};
pub use error::{ErrorKind, HookError};
pub use set::HookSet;
pub use status::{Counts, HookStatus};
