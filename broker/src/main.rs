//! The `broker` command.

use std::process::ExitCode;

/// Messages are allocated on the thread that reads them and freed on the one that sends them; the allocator of the C library
/// is slow at that, and keeps the memory of a burst.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    broker::cli::main()
}
