//! The header that a load balancer puts before a client's bytes to say whose they are (PROXY protocol 1 and 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The second version's first bytes. No frame begins so: they would claim 218 MB.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const START: &[u8; 6] = b"PROXY ";
/// A line of the first version with its end.
const LINE_BYTES_MAX: usize = 107;
const HEAD_BYTES: usize = 16;
/// What the second version may carry; balancers send well under 1 KiB.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// The most that has to be read before a header is whole.
pub const BYTES_MAX: usize = HEAD_BYTES + PAYLOAD_BYTES_MAX;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// They may become a header: more is needed.
    Unfinished,
    /// They belong to whatever the client speaks.
    None,
    /// A header of so many bytes; what the client speaks follows.
    Header(usize, Origin),
}

/// Whose connection it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client and the address it asked for; nothing when the balancer speaks for itself.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What else the balancer says, as far as it is text: kind and value.
    pub notes: Vec<(u8, String)>,
}

/// A header that is begun and makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PROXY header {0}")]
pub struct Malformed(&'static str);

/// Looks the first bytes of a connection over.
pub fn read(bytes: &[u8]) -> Result<Start, Malformed> {
    let agrees = |with: &[u8]| bytes.iter().zip(with).all(|(is, wanted)| is == wanted);
    if agrees(SIGNATURE) {
        binary(bytes)
    } else if agrees(START) {
        line(bytes)
    } else {
        Ok(Start::None)
    }
}

/// A header of the second version that says whose a connection is, and which address was asked for.
pub fn write(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(0x21);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend([0x11, 0, 12]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (from, to) => {
            bytes.extend([0x21, 0, 36]);
            for ip in [from, to] {
                let mapped = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                bytes.extend(mapped.octets());
            }
        }
    }
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes
}

fn line(bytes: &[u8]) -> Result<Start, Malformed> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        let too_long = bytes.len() >= LINE_BYTES_MAX;
        return if too_long { Err(Malformed("has no end")) } else { Ok(Start::Unfinished) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed("is not text"))?;
    let mut words = text.split(' ').skip(1);
    let addresses = match words.next() {
        Some("TCP4" | "TCP6") => {
            let mut word = || words.next().ok_or(Malformed("lacks a word"));
            let [from, to, from_port, to_port] = [word()?, word()?, word()?, word()?];
            Some((address(from, from_port)?, address(to, to_port)?))
        }
        Some("UNKNOWN") => None,
        _ => return Err(Malformed("names an unknown family")),
    };
    Ok(Start::Header(end + 2, Origin { addresses, notes: Vec::new() }))
}

fn address(ip: &str, port: &str) -> Result<SocketAddr, Malformed> {
    let ip: IpAddr = ip.parse().map_err(|_| Malformed("has an address that is none"))?;
    let port = port.parse().map_err(|_| Malformed("has a port that is none"))?;
    Ok(SocketAddr::new(ip, port))
}

fn binary(bytes: &[u8]) -> Result<Start, Malformed> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Ok(Start::Unfinished);
    };
    let len = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if head[12] >> 4 != 2 {
        return Err(Malformed("has an unknown version"));
    }
    if len > PAYLOAD_BYTES_MAX {
        return Err(Malformed("is too long"));
    }
    let Some(payload) = rest.get(..len) else { return Ok(Start::Unfinished) };
    let whole = |origin| Ok(Start::Header(HEAD_BYTES + len, origin));
    match head[12] & 0xf {
        // The balancer asks on its own behalf, usually whether anybody listens.
        0 => return whole(Origin::default()),
        1 => {}
        _ => return Err(Malformed("has an unknown command")),
    }
    let (addresses, notes) = match head[13] {
        0x11 => pair::<4>(payload, |ip| Ipv4Addr::from(ip).into())?,
        0x21 => pair::<16>(payload, |ip| Ipv6Addr::from(ip).into())?,
        // Unspecified, datagrams or local sockets: nothing that could be shown.
        _ => return whole(Origin::default()),
    };
    whole(Origin { addresses: Some(addresses), notes: texts(notes) })
}

type Addresses = (SocketAddr, SocketAddr);

fn pair<const N: usize>(
    payload: &[u8],
    ip: impl Fn([u8; N]) -> IpAddr,
) -> Result<(Addresses, &[u8]), Malformed> {
    let short = Malformed("is too short for its addresses");
    let (from, rest) = payload.split_first_chunk::<N>().ok_or(short)?;
    let (to, rest) = rest.split_first_chunk::<N>().ok_or(short)?;
    let (ports, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
    let [a, b, c, d] = *ports;
    let from = SocketAddr::new(ip(*from), u16::from_be_bytes([a, b]));
    let to = SocketAddr::new(ip(*to), u16::from_be_bytes([c, d]));
    Ok(((from, to), rest))
}

/// The notes that are plain text; others are for other programs.
fn texts(mut rest: &[u8]) -> Vec<(u8, String)> {
    let mut notes = Vec::new();
    while let [kind, high, low, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, more)) = more.split_at_checked(len) else { break };
        if let Ok(text) = std::str::from_utf8(value)
            && text.is_ascii()
        {
            notes.push((*kind, text.to_owned()));
        }
        rest = more;
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "203.0.113.7:5000";
    const TO: &str = "10.0.0.1:10911";

    fn second_version(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn addresses() -> Vec<u8> {
        let mut payload = vec![203, 0, 113, 7, 10, 0, 0, 1];
        payload.extend(5000u16.to_be_bytes());
        payload.extend(10911u16.to_be_bytes());
        payload
    }

    /// Reads `header`, whole, with a frame behind it and in every part.
    fn check(header: &[u8]) -> Origin {
        for len in 1..header.len() {
            assert_eq!(read(&header[..len]).unwrap(), Start::Unfinished, "{len} bytes");
        }
        let followed = [header, &[0, 0, 0, 9]].concat();
        let Start::Header(len, origin) = read(&followed).unwrap() else { panic!("no header") };
        assert_eq!(len, header.len());
        origin
    }

    #[test]
    fn both_versions_say_whose_the_connection_is() {
        let wanted = Some((FROM.parse().unwrap(), TO.parse().unwrap()));
        assert_eq!(check(b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 10911\r\n").addresses, wanted);
        let mut payload = addresses();
        payload.extend([0xe0, 0, 3]);
        payload.extend(b"vpc");
        payload.extend([0xe1, 0, 1, 0xff]);
        let origin = check(&second_version(0x21, 0x11, &payload));
        assert_eq!(origin.addresses, wanted);
        assert_eq!(origin.notes, [(0xe0, "vpc".to_owned())]);
        let (from, _) = check(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n").addresses.unwrap();
        assert_eq!(from.to_string(), "[2001:db8::1]:1");
    }

    #[test]
    fn what_is_written_reads_back() {
        for (from, to) in [(FROM, TO), ("[2001:db8::1]:1", "[::1]:2"), (FROM, "[::1]:2")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let (read_from, read_to) = check(&write(from, to)).addresses.unwrap();
            assert_eq!((read_from.ip().to_canonical(), read_from.port()), (from.ip(), from.port()));
            assert_eq!(read_to, to);
        }
    }

    #[test]
    fn a_balancer_that_speaks_for_itself_names_nobody() {
        assert_eq!(check(b"PROXY UNKNOWN\r\n"), Origin::default());
        assert_eq!(check(&second_version(0x20, 0, &[])), Origin::default());
        assert_eq!(check(&second_version(0x21, 0x31, &[0; 216])), Origin::default());
    }

    #[test]
    fn frames_handshakes_and_prefaces_are_no_headers() {
        for other in [&[0, 0, 1, 0][..], &[0x16, 3, 1], b"PRI * HTTP/2.0", b"GET /", b"PROXX"] {
            assert_eq!(read(other).unwrap(), Start::None);
        }
    }

    #[test]
    fn nonsense_is_refused_and_never_waited_for() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        let cases: [Vec<u8>; 6] = [
            long.into_bytes(),
            b"PROXY TCP4 here there 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n".to_vec(),
            second_version(0x31, 0x11, &addresses()),
            second_version(0x21, 0x11, &[1, 2]),
            [&second_version(0x21, 0x11, &[])[..14], &[0xff, 0xff]].concat(),
        ];
        for bytes in cases {
            assert!(read(&bytes).is_err(), "{bytes:?}");
        }
    }
}
