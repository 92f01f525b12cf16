//! The rules that the broker relies on, through the plugin's ABI.

#[test]
fn conformance() {
    plugin_api::testing::exchange_types(&exchange_modulus_hash::PLUGIN).run();
}
