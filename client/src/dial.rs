//! Connections to a proxy: plaintext, or TLS with or without a look at the certificate.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::endpoints::Address;
use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What a proxy may send ahead on one stream and on one connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Silence after which a connection is asked for a sign of life; servers end those that ask more often.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// How the connection is protected.
#[derive(Debug, Clone, Default)]
pub enum Security {
    /// Nothing is encrypted.
    Plaintext,
    /// Encrypted, with whoever answers: self-signed certificates pass, and so does a man in the middle. What
    /// the official Java and Go clients do.
    #[default]
    Unverified,
    /// Encrypted, with a server whose certificate is for its name and from an authority the system trusts.
    SystemRoots,
    /// Encrypted, with a server whose certificate is for its name and from one of these authorities, as PEM.
    Roots(Vec<u8>),
}

/// Opens connections of one kind.
#[derive(Clone)]
pub(crate) struct Dialler {
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").field("tls", &self.tls.is_some()).finish()
    }
}

impl Dialler {
    pub(crate) fn new(security: &Security) -> Result<Self, Error> {
        let config = match security {
            Security::Plaintext => return Ok(Self { tls: None }),
            Security::Unverified => unverified(),
            Security::SystemRoots => {
                let found = rustls_native_certs::load_native_certs();
                verified(found.certs)?
            }
            Security::Roots(pem) => {
                let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
                verified(roots.map_err(|error| bad_roots(format!("{error:?}")))?)?
            }
        };
        let mut config = config;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// A channel that connects when it is first used.
    pub(crate) fn channel(&self, address: &Address) -> Result<Channel, Error> {
        // The connector sees to TLS itself.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Error::invalid("the endpoint", error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .tcp_nodelay(true);
        let (dialler, address) = (self.clone(), address.clone());
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let (dialler, address) = (dialler.clone(), address.clone());
            async move { dialler.dial(&address).await.map(TokioIo::new) }
        })))
    }

    async fn dial(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

fn bad_roots(why: String) -> Error {
    Error::invalid("the certificate authorities", why)
}

fn verified(roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(roots);
    if added == 0 {
        return Err(bad_roots("there are none".to_owned()));
    }
    Ok(builder().with_root_certificates(store).with_no_client_auth())
}

fn unverified() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone { provider }))
        .with_no_client_auth()
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
}

/// Lets every certificate pass; that its owner holds the key is still checked.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_without_a_certificate_are_refused() {
        for pem in
            [&b""[..], b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
        {
            assert!(Dialler::new(&Security::Roots(pem.to_vec())).is_err());
        }
        assert!(Dialler::new(&Security::Unverified).is_ok());
    }
}
