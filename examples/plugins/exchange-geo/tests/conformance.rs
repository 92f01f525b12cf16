//! The rules that the broker relies on, through the plugin's ABI.

use plugin_api::value::Table;

#[test]
fn conformance() {
    let circle =
        |lat: i32, radius_km: f64| ("", Table::new().with("lat", lat).with("lon", 8.5).with("radius-km", radius_km));
    plugin_api::testing::exchange_types(&exchange_geo::PLUGIN)
        .bindings([circle(0, 10.0), circle(10, 200.0), circle(11, 200.0), circle(-90, 0.0), circle(50, 30_000.0)])
        .message("", Some(Table::new().with("lat", 10.5).with("lon", 8.5)))
        .message("", Some(Table::new().with("lat", 0).with("lon", 8)))
        .run();
}
