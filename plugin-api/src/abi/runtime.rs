//! The tokio runtime of a plugin, for plugins with the feature `tokio`.
//!
//! A plugin from a file has a copy of tokio of its own, which knows nothing of the broker's runtime: without this, the first
//! `tokio::spawn` or socket in it panics. The runtime is made when it is first needed, and never ended, as the plugin is never
//! unloaded.

/// Keeps the runtime entered, where there is one.
pub(crate) struct Entered(
    #[cfg(feature = "tokio")]
    #[expect(dead_code, reason = "kept to be dropped")]
    Option<tokio::runtime::EnterGuard<'static>>,
);

/// Enters the plugin's runtime, unless this thread already runs within one of the same copy of tokio: that is so where the
/// plugin is linked in.
#[cfg(feature = "tokio")]
pub(crate) fn enter() -> Entered {
    use std::sync::OnceLock;
    use tokio::runtime::{Builder, Handle, Runtime};

    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    if Handle::try_current().is_ok() {
        return Entered(None);
    }
    let runtime = RUNTIME.get_or_init(|| {
        let made = Builder::new_multi_thread().worker_threads(WORKERS).thread_name("plugin").enable_all().build();
        let tell = |error: &std::io::Error| {
            super::host::log(crate::host::Level::Error, "plugin", &format!("there is no tokio runtime: {error}"));
        };
        made.inspect_err(tell).ok()
    });
    Entered(runtime.as_ref().map(Runtime::enter))
}

#[cfg(not(feature = "tokio"))]
#[inline]
pub(crate) const fn enter() -> Entered {
    Entered()
}

/// What a plugin does with tokio waits for sockets; the broker's own threads do the rest.
#[cfg(feature = "tokio")]
const WORKERS: usize = 1;
