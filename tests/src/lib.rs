//! The harness that the test suites share.
