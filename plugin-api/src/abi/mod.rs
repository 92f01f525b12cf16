//! The C ABI under the safe traits.

mod routes;

pub use routes::RawRoutes;
