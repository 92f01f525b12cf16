//! The broker over real sockets: bad input, silent and slow clients, floods, start and end.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

mod alarms;
mod bad_input;
mod declarations;
mod definitions;
mod events;
mod heartbeats;
mod hook_points;
mod hook_reload;
mod hooks;
mod identity;
mod lifecycle;
mod many;
mod packaging;
mod pathological;
mod proxied;
mod slow_clients;
mod strict;
