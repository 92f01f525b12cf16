//! The broker over real sockets: bad input, silent and slow clients, floods, start and end.

mod bad_input;
mod lifecycle;
mod slow_clients;
