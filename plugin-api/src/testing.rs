//! Test kit for plugins: suites that any exchange type, storage or auth backend must pass, a fake host, and small helpers.
//!
//! An exchange type, in `tests/conformance.rs` of its crate:
//!
//! ```text
//! #[test]
//! fn conformance() {
//!     plugin_api::testing::exchange_types(&exchange_geo::PLUGIN).run();
//! }
//! ```
//!
//! The suites go through the same ABI as the broker does. They panic with a sentence about the rule that is broken. What
//! a type's routing means is its own tests' business; the suites know only what the broker relies on.

mod auth_suite;
mod exchange_suite;
mod fake_host;
mod measure;
mod random;
mod routes;
mod storage_suite;

pub use auth_suite::{AuthSuite, auth_backends, auth_types};
pub use exchange_suite::{ExchangeSuite, exchange_types};
pub use fake_host::FakeHost;
pub use measure::{RouteBench, RouteMessage, nanos_per_call};
pub use random::Random;
pub use routes::routes;
pub use storage_suite::{StorageSuite, opened_storages, storage, storages};

/// Waits for a future on this thread, for tests of storages without a runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
