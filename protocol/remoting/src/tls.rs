//! Encryption on the wire: what a stock configuration says of it, and both ends of a handshake.
//!
//! The keys are those of the stock programs (`tls.server.mode` and its kin). They may stand in a role's own
//! configuration file or in the file that `tls.config.file` names, which wins.

use std::path::PathBuf;

use protocol::java_properties;

use crate::settings;

mod acceptor;
mod connector;
mod material;

pub use acceptor::{Acceptor, WATCH_PERIOD};
pub use connector::Connector;

/// Every key, with stock's default.
pub const KEYS: &[(&str, &str)] = &[
    ("tls.config.file", "/etc/rocketmq/tls.properties"),
    ("tls.enable", "false"),
    ("tls.server.mode", "permissive"),
    ("tls.test.mode.enable", ""),
    ("tls.server.need.client.auth", "none"),
    ("tls.server.keyPath", ""),
    ("tls.server.keyPassword", ""),
    ("tls.server.certPath", ""),
    ("tls.server.authClient", "false"),
    ("tls.server.trustCertPath", ""),
    ("tls.client.keyPath", ""),
    ("tls.client.keyPassword", ""),
    ("tls.client.certPath", ""),
    ("tls.client.authServer", "false"),
    ("tls.client.trustCertPath", ""),
    ("tls.ciphers", ""),
    ("tls.protocols", ""),
];

/// Whether a server takes encrypted connections, plain ones, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Disabled,
    Permissive,
    Enforcing,
}

/// Whether a server asks its clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    Optional,
    Require,
}

/// What one end shows of itself, and whom it believes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// The chain, in PEM.
    pub cert_path: Option<PathBuf>,
    pub key_path: Option<PathBuf>,
    /// Whether the other end's certificate is verified, with what `trust_path` holds.
    pub verify: bool,
    pub trust_path: Option<PathBuf>,
}

/// All that is said of encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub mode: Mode,
    pub client_auth: ClientAuth,
    /// A server without a certificate makes one of its own; clients believe anyone.
    pub test_mode: bool,
    pub server: Party,
    /// Whether our own connections to other processes are encrypted.
    pub client_enabled: bool,
    pub client: Party,
    /// Names of cipher suites and of protocol versions; nothing means all.
    pub ciphers: Vec<String>,
    pub protocols: Vec<String>,
}

/// Why there is no encryption as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("unknown key `{key}`{}", suggestion.map(|s| format!(", did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey { key: String, suggestion: Option<&'static str> },
    #[error("`{key}` cannot be `{value}`: {expected}")]
    BadValue { key: &'static str, value: String, expected: &'static str },
    #[error(
        "`{0}` is not read here: store the key without a password, readable by this program only"
    )]
    Password(&'static str),
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("cannot use {path}: {reason}")]
    File { path: String, reason: String },
    #[error("{0}")]
    Unusable(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Permissive,
            client_auth: ClientAuth::None,
            test_mode: true,
            server: Party::default(),
            client_enabled: false,
            client: Party::default(),
            ciphers: Vec::new(),
            protocols: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the pairs of a configuration, all of them under keys that begin with `tls.`, and over them
    /// the file they name or stock's usual one.
    pub fn read(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, TlsError> {
        let mut given: Vec<(String, String)> = pairs.into_iter().collect();
        let named = given.iter().find(|(key, _)| key == "tls.config.file");
        let path = named.map_or(KEYS[0].1, |(_, path)| path.trim());
        match std::fs::read_to_string(path) {
            Ok(text) => given.extend(java_properties::read(&text)),
            Err(error) if named.is_some() => {
                return Err(TlsError::File { path: path.to_owned(), reason: error.to_string() });
            }
            Err(_) => {}
        }
        Self::from_pairs(&given)
    }

    fn from_pairs(given: &[(String, String)]) -> Result<Self, TlsError> {
        for (key, _) in given {
            if !KEYS.iter().any(|(known, _)| known == key) {
                let suggestion = settings::closest(KEYS.iter().map(|(known, _)| *known), key);
                return Err(TlsError::UnknownKey { key: key.clone(), suggestion });
            }
        }
        let read = Reader(given);
        let party = |key, cert, verify, trust| {
            Ok::<_, TlsError>(Party {
                cert_path: read.path(cert),
                key_path: read.path(key),
                verify: read.flag(verify)?.unwrap_or_default(),
                trust_path: read.path(trust),
            })
        };
        let server = party(
            "tls.server.keyPath",
            "tls.server.certPath",
            "tls.server.authClient",
            "tls.server.trustCertPath",
        )?;
        let client = party(
            "tls.client.keyPath",
            "tls.client.certPath",
            "tls.client.authServer",
            "tls.client.trustCertPath",
        )?;
        for key in ["tls.server.keyPassword", "tls.client.keyPassword"] {
            if !read.text(key).is_empty() {
                return Err(TlsError::Password(key));
            }
        }
        // Whoever names a certificate or an authority wants it used, unless the opposite is said.
        let bare = server.cert_path.is_none() && !server.verify && !client.verify;
        Ok(Self {
            mode: read.one_of(
                "tls.server.mode",
                "disabled, permissive or enforcing",
                &[
                    ("disabled", Mode::Disabled),
                    ("permissive", Mode::Permissive),
                    ("enforcing", Mode::Enforcing),
                ],
            )?,
            client_auth: read.one_of(
                "tls.server.need.client.auth",
                "none, optional or require",
                &[
                    ("none", ClientAuth::None),
                    ("optional", ClientAuth::Optional),
                    ("require", ClientAuth::Require),
                ],
            )?,
            test_mode: read.flag("tls.test.mode.enable")?.unwrap_or(bare),
            server,
            client_enabled: read.flag("tls.enable")?.unwrap_or_default(),
            client,
            ciphers: read.list("tls.ciphers"),
            protocols: read.list("tls.protocols"),
        })
    }
}

struct Reader<'a>(&'a [(String, String)]);

impl Reader<'_> {
    /// The last value given, or the default.
    fn text(&self, key: &str) -> &str {
        let given = self.0.iter().rev().find(|(given, _)| given == key);
        let default = || KEYS.iter().find(|(known, _)| *known == key).map_or("", |(_, it)| it);
        given.map_or_else(default, |(_, value)| value.trim())
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.text(key)).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let parts = self.text(key).split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, TlsError> {
        let choices = [("true", Some(true)), ("false", Some(false)), ("", None)];
        self.one_of(key, "true or false", &choices)
    }

    fn one_of<T: Copy>(
        &self,
        key: &'static str,
        expected: &'static str,
        choices: &[(&str, T)],
    ) -> Result<T, TlsError> {
        let value = self.text(key);
        let chosen = choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(value));
        chosen.map(|(_, chosen)| *chosen).ok_or_else(|| TlsError::BadValue {
            key,
            value: value.to_owned(),
            expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, TlsError> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Settings::from_pairs(&pairs.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_said_means_both_kinds_of_connections_with_a_certificate_of_our_own() {
        assert_eq!(read(&[]).unwrap(), Settings::default());
    }

    #[test]
    fn who_names_a_certificate_wants_it_used_unless_the_opposite_is_said() {
        let named = [("tls.server.certPath", "/c.pem"), ("tls.server.keyPath", "/k.pem")];
        assert!(!read(&named).unwrap().test_mode);
        let both = [named[0], ("tls.test.mode.enable", "true")];
        assert!(read(&both).unwrap().test_mode);
    }

    #[test]
    fn a_later_value_wins() {
        let twice = [("tls.server.mode", "disabled"), ("tls.server.mode", "ENFORCING")];
        assert_eq!(read(&twice).unwrap().mode, Mode::Enforcing);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_sentence() {
        for (key, value, sentence) in [
            (
                "tls.server.mod",
                "x",
                "unknown key `tls.server.mod`, did you mean `tls.server.mode`?",
            ),
            ("tls.enable", "yes", "`tls.enable` cannot be `yes`: true or false"),
            ("tls.server.keyPassword", "x", "`tls.server.keyPassword` is not read here: store"),
        ] {
            let error = read(&[(key, value)]).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
    }
}
