//! The client's end, for our own connections to other processes.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Settings, TlsError, material};

/// What our handshakes are made with.
#[derive(Clone)]
pub struct Connector(tokio_rustls::TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// One as configured; nothing when our connections are to be plain.
    pub fn new(settings: &Settings) -> Result<Option<Self>, TlsError> {
        if !settings.client_enabled {
            return Ok(None);
        }
        let provider = material::provider(settings)?;
        let verifier = material::servers(&settings.client, settings.test_mode, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&material::versions(settings)?)
            .map_err(|error| TlsError::Unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let party = &settings.client;
        let config = match (&party.cert_path, &party.key_path) {
            (Some(cert), Some(key)) if !settings.test_mode => {
                let identity = material::identity(cert, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Some(Self(Arc::new(config).into())))
    }

    /// Shakes hands with the server behind `host`.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
