//! Who asks, from where, and until when an answer is of use: what stands in a request's metadata.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::grpc::{Code, Endpoints};
use tonic::Extensions;
use tonic::metadata::MetadataMap;

use super::status::Failure;

/// The connection a request came in on.
#[derive(Debug)]
pub struct Connection {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    /// What the listener tells clients of itself; without it they get back what they dialled.
    pub advertise: Option<Endpoints>,
}

/// One request's circumstances.
#[derive(Debug, Clone)]
pub struct Context {
    pub client_id: String,
    pub language: String,
    pub version: String,
    pub namespace: String,
    /// How long the client waits, from when the request came.
    pub timeout: Option<Duration>,
    pub connection: Arc<Connection>,
}

/// Nobody waits longer for anything; what clients mean as "for ever" stays within what timers can do.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl Context {
    /// Reads the metadata; a client has to say who it is.
    pub fn read(metadata: &MetadataMap, extensions: &Extensions) -> Result<Self, Failure> {
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let owned = |name| text(name).unwrap_or_default().to_owned();
        let client_id = text("x-mq-client-id").filter(|id| !id.trim().is_empty());
        let client_id = client_id.ok_or_else(|| {
            Failure::new(Code::ClientIdRequired, "the header x-mq-client-id is missing")
        })?;
        let connection = extensions.get::<Arc<Connection>>().ok_or_else(|| {
            Failure::new(Code::InternalServerError, "the connection of this request is unknown")
        })?;
        Ok(Self {
            client_id: client_id.to_owned(),
            language: owned("x-mq-language"),
            version: owned("x-mq-client-version"),
            namespace: owned("x-mq-namespace"),
            timeout: text("grpc-timeout").and_then(timeout),
            connection: connection.clone(),
        })
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (unit, digits) = (text.chars().last()?, text.get(..text.len() - 1)?);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let duration = match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    };
    Some(duration.min(TIMEOUT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_kept_within_a_year() {
        for (text, expected) in [
            ("3S", Some(Duration::from_secs(3))),
            ("99999999H", Some(TIMEOUT_MAX)),
            ("250m", Some(Duration::from_millis(250))),
            ("1u", Some(Duration::from_micros(1))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("123456789S", None),
            ("1x", None),
            ("1é", None),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }
}
