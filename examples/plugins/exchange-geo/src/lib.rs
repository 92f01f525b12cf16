//! The `x-geo` exchange type: a binding is a circle on earth, and a message takes the bindings whose circle its place is in.
//! The place stands in the headers `lat` and `lon`; a message without a place takes no binding.

#![forbid(unsafe_code)]

use plugin_api::error::Invalid;
use plugin_api::exchange::{BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes};
use plugin_api::message::Message;
use plugin_api::value::{Table, ValueRef};

/// The type, as registered.
pub struct Geo;

impl ExchangeType for Geo {
    fn name(&self) -> &str {
        "x-geo"
    }

    fn description(&self) -> &str {
        "routes by places on earth"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::KeyAndHeaders
    }

    fn validate(&self, spec: &ExchangeSpec) -> Result<(), Invalid> {
        default_radius(&spec.arguments).map(|_| ())
    }

    fn validate_binding(&self, spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), Invalid> {
        Circle::of(&binding.arguments, default_radius(&spec.arguments)?).map(|_| ())
    }

    fn open(&self, spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(GeoExchange { default_radius_km: default_radius(&spec.arguments)?, circles: Vec::new() }))
    }
}

/// One exchange. A few comparisons a binding: right for hundreds of circles, not for millions.
struct GeoExchange {
    default_radius_km: f64,
    circles: Vec<(BindingSlot, Circle)>,
}

impl Exchange for GeoExchange {
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        self.circles.push((slot, Circle::of(&binding.arguments, self.default_radius_km)?));
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        self.circles.retain(|(other, _)| *other != slot);
    }

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        let Some(place) = place_of(message) else { return };
        for (slot, circle) in &self.circles {
            if circle.contains(place) {
                routes.push(*slot);
            }
        }
    }
}

/// A place as a point on the unit sphere, so that a comparison is three multiplications.
#[derive(Debug, Clone, Copy)]
struct Place([f64; 3]);

impl Place {
    fn new(lat: f64, lon: f64) -> Option<Self> {
        if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
            return None;
        }
        let (lat, lon) = (lat.to_radians(), lon.to_radians());
        Some(Self([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]))
    }
}

/// What a binding asks for.
#[derive(Debug, Clone, Copy)]
struct Circle {
    centre: Place,
    /// The cosine of the angle that the radius spans, seen from the centre of the earth.
    cosine: f64,
}

impl Circle {
    fn of(arguments: &Table, default_radius_km: f64) -> Result<Self, Invalid> {
        let number = |name: &str| {
            arguments.get(name).map(|value| {
                value
                    .as_f64()
                    .ok_or_else(|| Invalid::new(format!("argument '{name}' of a binding to x-geo must be a number")))
            })
        };
        let missing = || Invalid::new("a binding to x-geo needs the arguments 'lat' and 'lon'");
        let (lat, lon) = (number("lat").ok_or_else(missing)??, number("lon").ok_or_else(missing)??);
        let centre = Place::new(lat, lon).ok_or_else(|| {
            Invalid::new(format!("there is no place at lat {lat}, lon {lon}: lat is -90 to 90, lon -180 to 180"))
        })?;
        let radius_km = number("radius-km").transpose()?.unwrap_or(default_radius_km);
        check_radius(radius_km)?;
        Ok(Self { centre, cosine: (radius_km / EARTH_RADIUS_KM).min(std::f64::consts::PI).cos() })
    }

    fn contains(&self, place: Place) -> bool {
        let cosine: f64 = self.centre.0.iter().zip(place.0).map(|(one, other)| one * other).sum();
        // A hair of tolerance, so that a circle of radius 0 contains its centre.
        cosine >= self.cosine - 1e-12
    }
}

fn place_of(message: &Message<'_>) -> Option<Place> {
    let headers = message.properties.headers()?;
    Place::new(number(headers.get("lat")?)?, number(headers.get("lon")?)?)
}

/// Headers may be texts, too: some clients, such as pika, cannot send floats.
fn number(value: ValueRef<'_>) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn default_radius(arguments: &Table) -> Result<f64, Invalid> {
    let Some(value) = arguments.get("default-radius-km") else { return Ok(DEFAULT_RADIUS_KM) };
    let radius_km = value.as_f64().ok_or_else(|| Invalid::new("argument 'default-radius-km' must be a number"))?;
    check_radius(radius_km)?;
    Ok(radius_km)
}

fn check_radius(radius_km: f64) -> Result<(), Invalid> {
    if radius_km >= 0.0 {
        Ok(())
    } else {
        Err(Invalid::new(format!("a radius of {radius_km} km is impossible: it must be 0 or more")))
    }
}

/// The mean radius.
const EARTH_RADIUS_KM: f64 = 6371.0;

/// The size of a city.
const DEFAULT_RADIUS_KM: f64 = 25.0;

plugin_api::export_plugin!(exchange_types: [Geo]);

#[cfg(test)]
mod tests {
    use plugin_api::message::{Properties, PropertiesBuf};
    use plugin_api::testing::routes;

    use super::*;

    fn circle(lat: f64, lon: f64, radius_km: Option<f64>) -> BindingSpec {
        let mut arguments = Table::new().with("lat", lat).with("lon", lon);
        if let Some(radius_km) = radius_km {
            arguments.insert("radius-km", radius_km);
        }
        BindingSpec { arguments, ..BindingSpec::to_queue("q", "") }
    }

    fn routes_at(exchange: &dyn Exchange, headers: Option<Table>) -> Vec<u32> {
        let raw = PropertiesBuf { headers, ..PropertiesBuf::default() }.encode();
        routes(exchange, &Message { properties: Properties::from_raw(&raw), ..Message::with_key("") })
    }

    fn at(exchange: &dyn Exchange, lat: f64, lon: f64) -> Vec<u32> {
        routes_at(exchange, Some(Table::new().with("lat", lat).with("lon", lon)))
    }

    #[test]
    fn message_takes_the_circles_around_its_place() {
        let mut exchange = Geo.open(&ExchangeSpec::default()).unwrap();
        exchange.bind(BindingSlot(0), &circle(52.52, 13.40, None)).unwrap(); // Berlin
        exchange.bind(BindingSlot(1), &circle(51.0, 10.0, Some(500.0))).unwrap(); // Germany, roughly
        exchange.bind(BindingSlot(2), &circle(0.0, 180.0, Some(100.0))).unwrap(); // the date line
        exchange.bind(BindingSlot(3), &circle(0.0, 0.0, Some(1e9))).unwrap(); // everywhere
        assert_eq!(at(&*exchange, 52.54, 13.20), [0, 1, 3], "Spandau");
        assert_eq!(at(&*exchange, 48.14, 11.58), [1, 3], "Munich");
        assert_eq!(at(&*exchange, 0.0, -179.5), [2, 3], "just behind the date line");
        assert_eq!(at(&*exchange, -90.0, 0.0), [3], "the south pole");
        assert!(at(&*exchange, 91.0, 0.0).is_empty(), "nowhere");
        exchange.unbind(BindingSlot(1));
        assert_eq!(at(&*exchange, 48.14, 11.58), [3]);
    }

    #[test]
    fn message_without_a_place_takes_nothing() {
        let mut exchange = Geo.open(&ExchangeSpec::default()).unwrap();
        exchange.bind(BindingSlot(0), &circle(0.0, 0.0, Some(1e9))).unwrap();
        assert!(routes_at(&*exchange, None).is_empty());
        assert!(routes_at(&*exchange, Some(Table::new().with("lat", 1))).is_empty());
        for text in ["", "north", "NaN", "91"] {
            assert!(routes_at(&*exchange, Some(Table::new().with("lat", text).with("lon", 1))).is_empty(), "'{text}'");
        }
        assert_eq!(routes_at(&*exchange, Some(Table::new().with("lat", 1).with("lon", "-1.5"))), [0], "a text will do");
    }

    #[test]
    fn wrong_arguments_are_refused_with_a_reason() {
        let judge = |binding: &BindingSpec| Geo.validate_binding(&ExchangeSpec::default(), binding).unwrap_err().text;
        assert_eq!(judge(&BindingSpec::to_queue("q", "")), "a binding to x-geo needs the arguments 'lat' and 'lon'");
        assert_eq!(judge(&circle(0.0, 0.0, Some(-1.0))), "a radius of -1 km is impossible: it must be 0 or more");
        assert!(judge(&circle(0.0, 200.0, None)).starts_with("there is no place at lat 0, lon 200"));
        let spec = ExchangeSpec { arguments: Table::new().with("default-radius-km", "far"), ..ExchangeSpec::default() };
        assert_eq!(Geo.validate(&spec).unwrap_err().text, "argument 'default-radius-km' must be a number");
    }
}
