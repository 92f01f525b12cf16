//! The `broker` command.

fn main() {}
