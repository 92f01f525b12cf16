//! Plugins as files: built, inspected, loaded, and some of them bad.
//!
//! Each test builds what it needs with cargo, below the target folder; the second build of the same thing takes no time.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod auth;
mod backends;
mod boot;
mod build;
mod built_in;
mod check;
#[path = "../../examples/plugins/auth-ldap/tests/directory/mod.rs"]
mod directory;
mod example;
mod faults;
mod files;
mod halfway;
mod kit;
mod lifecycle;
mod older;
mod panics;
mod refusals;
mod storage_faults;
mod storages;
#[path = "../../plugins/auth-http/tests/server/mod.rs"]
mod web_server;
mod worlds;
