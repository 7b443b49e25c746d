//! Where proxies listen: one or several addresses, any of which serves every request.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use protocol::grpc::{self, AddressScheme};

use crate::error::Error;

/// Addresses of one list are tried in turn; more would only be waited for longer.
const ADDRESSES_MAX: usize = 64;

/// A host, by name or number, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// One or several proxies of the same cluster: `host:port`, with `;` or `,` between several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub addresses: Vec<Address>,
}

impl FromStr for Endpoints {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split([';', ',']).map(str::trim).filter(|part| !part.is_empty());
        let addresses = parts.map(str::parse).collect::<Result<Vec<Address>, Error>>()?;
        match addresses.len() {
            0 => Err(Error::invalid("the endpoints", "there is no address")),
            1..=ADDRESSES_MAX => Ok(Self { addresses }),
            _ => Err(Error::invalid("the endpoints", "there are too many addresses")),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::invalid("the endpoint", format!("`{text}` {why}"));
        if text.contains("://") {
            return Err(bad("has a scheme; TLS or plaintext is an option of its own"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("has no port"))?;
        let port = port.parse().map_err(|_| bad("has no port that is a number"))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => {
                inner.parse::<Ipv6Addr>().map_err(|_| bad("is not an IPv6 address"))?;
                inner
            }
            None => host,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !(host.chars().all(allowed) || host.parse::<Ipv6Addr>().is_ok()) {
            return Err(bad("has no host that could be looked up"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.addresses.iter().enumerate() {
            let between = if at == 0 { "" } else { ";" };
            write!(f, "{between}{address}")?;
        }
        Ok(())
    }
}

impl Endpoints {
    pub(crate) fn to_wire(&self) -> grpc::Endpoints {
        let all = |is: fn(&str) -> bool| self.addresses.iter().all(|address| is(&address.host));
        let scheme = if all(|host| host.parse::<Ipv4Addr>().is_ok()) {
            AddressScheme::IPv4
        } else if all(|host| host.parse::<Ipv6Addr>().is_ok()) {
            AddressScheme::IPv6
        } else {
            AddressScheme::DomainName
        };
        let mut addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|address| grpc::Address {
                host: address.host.clone(),
                port: i32::from(address.port),
            })
            .collect();
        if scheme == AddressScheme::DomainName {
            // The protocol lets a domain name stand alone only; the others are known here.
            addresses.truncate(1);
        }
        grpc::Endpoints { scheme: scheme.into(), addresses }
    }
}

/// The addresses of a route; those that make no sense are left out.
pub(crate) fn from_wire(endpoints: Option<&grpc::Endpoints>) -> Vec<Address> {
    let addresses = endpoints.map(|endpoints| endpoints.addresses.as_slice()).unwrap_or_default();
    let address = |address: &grpc::Address| {
        let port = u16::try_from(address.port).ok().filter(|port| *port != 0)?;
        let host = match address.host.parse::<IpAddr>() {
            Ok(_) => address.host.clone(),
            Err(_) => format!("{}:{port}", address.host).parse::<Address>().ok()?.host,
        };
        Some(Address { host, port })
    };
    addresses.iter().take(ADDRESSES_MAX).filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_addresses_are_read_as_they_are_written() {
        for (text, written, scheme) in [
            ("127.0.0.1:8081", "127.0.0.1:8081", AddressScheme::IPv4),
            ("10.0.0.1:8081; 10.0.0.2:8082;", "10.0.0.1:8081;10.0.0.2:8082", AddressScheme::IPv4),
            ("mq.example.com:8081", "mq.example.com:8081", AddressScheme::DomainName),
            ("a:1,b:2", "a:1;b:2", AddressScheme::DomainName),
            ("[::1]:8081", "[::1]:8081", AddressScheme::IPv6),
        ] {
            let endpoints: Endpoints = text.parse().unwrap();
            assert_eq!(endpoints.to_string(), written);
            assert_eq!(endpoints.to_wire().scheme(), scheme, "{text}");
        }
        for bad in ["", ";", "host", "host:", "host:x", "host:70000", ":1", "http://a:1", "a b:1"] {
            assert!(bad.parse::<Endpoints>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_dialled_is_left_out_of_a_route() {
        let address = |host: &str, port| grpc::Address { host: host.to_owned(), port };
        let addresses = vec![address("a", 1), address("b", 0), address("c", 70000), address("", 1)];
        let found = from_wire(Some(&grpc::Endpoints { scheme: 3, addresses }));
        assert_eq!(found, [Address { host: "a".to_owned(), port: 1 }]);
        assert!(from_wire(None).is_empty());
    }
}
