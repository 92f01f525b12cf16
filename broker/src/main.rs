//! The `broker` command.

use std::process::ExitCode;

/// Messages are allocated on the thread that reads them and freed on the one that sends them; the allocator of the C library
/// is slow at that, and keeps the memory of a burst.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// Gives back what the calling thread does not need: pages whose blocks are all free. Part of the allocator that is linked in anyway.
    safe fn mi_collect(force: bool);
}

fn main() -> ExitCode {
    broker::runtime::trim::use_allocator(|| mi_collect(false));
    broker::cli::main()
}
