//! Addresses to listen on, as they are written in the file and on the command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::topology::schema::AMQP_PORT;

/// Reads `ADDR:PORT`, `:PORT`, `PORT` (all interfaces), an address alone (the AMQP port) or `localhost`.
///
/// Other host names are not looked up: what a broker listens on should not depend on a name server.
///
/// # Errors
/// One sentence with a way out.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    parse_listen_at(text, AMQP_PORT)
}

/// As [`parse_listen`], with another port for an address alone.
///
/// # Errors
/// One sentence with a way out.
pub(crate) fn parse_listen_at(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(match text.parse::<u64>() {
        Ok(_) => ("", text),
        Err(_) => (text, ""),
    });
    let ip = match host {
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse().map_err(|_| {
                format!("'{text}' is not ADDR:PORT with an IP address, such as 127.0.0.1:{default_port}")
            })?
        }
    };
    match port {
        "" if text == host => Ok(SocketAddr::new(ip, default_port)),
        _ => port
            .parse()
            .map(|port| SocketAddr::new(ip, port))
            .map_err(|_| format!("'{port}' is not a port; give a number from 0 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_have_short_forms() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_listen(text).map(|address| address.to_string()), Ok(expected.to_owned()), "{text}");
        };
        check("127.0.0.1:5672", "127.0.0.1:5672");
        check("[::1]:5673", "[::1]:5673");
        check(":5673", "0.0.0.0:5673");
        check("*:5673", "0.0.0.0:5673");
        check("5673", "0.0.0.0:5673");
        check("localhost:0", "127.0.0.1:0");
        check("localhost", "127.0.0.1:5672");
        check("10.0.0.1", "10.0.0.1:5672");
        check("::", "[::]:5672");
        check("[::1]", "[::1]:5672");
    }

    #[test]
    fn bad_addresses_have_a_sentence() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_listen(text), Err(expected.to_owned()), "{text}");
        };
        check("rabbit:5672", "'rabbit:5672' is not ADDR:PORT with an IP address, such as 127.0.0.1:5672");
        check("127.0.0.1:70000", "'70000' is not a port; give a number from 0 to 65535");
        check("70000", "'70000' is not a port; give a number from 0 to 65535");
        check("127.0.0.1:", "'' is not a port; give a number from 0 to 65535");
        check("127.0.0.1:amqp", "'amqp' is not a port; give a number from 0 to 65535");
        check("300.1.1.1:1", "'300.1.1.1:1' is not ADDR:PORT with an IP address, such as 127.0.0.1:5672");
    }
}
