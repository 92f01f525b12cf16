//! plugin_host
