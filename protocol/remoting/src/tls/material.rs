//! Certificates and keys out of their files, and whom to believe.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, InconsistentKeys,
    RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::{ClientAuth, Party, Settings, TlsError};

/// The cipher suites that are permitted.
pub(super) fn provider(settings: &Settings) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    if !settings.ciphers.is_empty() {
        // Java writes TLS_AES_… where this library writes TLS13_AES_….
        let named = |suite: &str| {
            settings.ciphers.iter().any(|it| it.replacen("TLS13_", "TLS_", 1) == suite)
        };
        provider
            .cipher_suites
            .retain(|suite| named(&format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)));
        if provider.cipher_suites.is_empty() {
            return Err(TlsError::Unusable("`tls.ciphers` names no cipher suite we have".into()));
        }
    }
    Ok(Arc::new(provider))
}

/// The protocol versions that are permitted.
pub(super) fn versions(
    settings: &Settings,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let named = |name: &str| {
        settings.protocols.is_empty() || settings.protocols.iter().any(|it| it == name)
    };
    let all = [("TLSv1.2", &rustls::version::TLS12), ("TLSv1.3", &rustls::version::TLS13)];
    let versions: Vec<_> =
        all.into_iter().filter(|(name, _)| named(name)).map(|(_, version)| version).collect();
    if versions.is_empty() {
        return Err(TlsError::Unusable("`tls.protocols` names neither TLSv1.2 nor TLSv1.3".into()));
    }
    Ok(versions)
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.display().to_string(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = std::fs::read(path).map_err(|error| unusable(path, error))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| unusable(path, error))?;
    if all.is_empty() { Err(unusable(path, "it holds no certificate")) } else { Ok(all) }
}

/// What an end shows of itself.
pub(super) fn identity(
    cert_path: &Path,
    key_path: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let text = std::fs::read(key_path).map_err(|error| unusable(key_path, error))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| unusable(key_path, error))?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| unusable(key_path, error))?;
    let identity = CertifiedKey::new(certificates(cert_path)?, key);
    match identity.keys_match() {
        Err(error @ Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(unusable(key_path, error))
        }
        // A certificate of the first version cannot be looked into, and is shown all the same.
        _ => Ok(Arc::new(identity)),
    }
}

/// A certificate that nobody vouches for.
pub(super) fn self_signed(provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let failed = |error: &dyn std::fmt::Display| {
        TlsError::Unusable(format!("cannot make a certificate: {error}"))
    };
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let key = provider.key_provider.load_private_key(key.into()).map_err(|error| failed(&error))?;
    Ok(Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key)))
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, error))?;
    }
    Ok(Arc::new(roots))
}

/// How a server looks at its clients.
pub(super) fn clients(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Settings { client_auth, server, test_mode, .. } = settings;
    if *client_auth == ClientAuth::None || *test_mode {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    if !server.verify {
        let required = *client_auth == ClientAuth::Require;
        return Ok(Arc::new(Anyone { required, provider: provider.clone() }));
    }
    let path = server.trust_path.as_deref();
    let roots = roots(path.ok_or(TlsError::Missing("tls.server.trustCertPath"))?)?;
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    if *client_auth == ClientAuth::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    let built = verifier.build();
    built.map(|it| it as Arc<dyn ClientCertVerifier>).map_err(|e| TlsError::Unusable(e.to_string()))
}

/// How we look at servers.
pub(super) fn servers(
    party: &Party,
    test_mode: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if test_mode || !party.verify {
        return Ok(Arc::new(Anyone { required: false, provider: provider.clone() }));
    }
    let path = party.trust_path.as_deref();
    let roots = roots(path.ok_or(TlsError::Missing("tls.client.trustCertPath"))?)?;
    Ok(Arc::new(Vouched { roots, provider: provider.clone() }))
}

/// Believes whoever is there. Since anyone could be, the handshake's signature says nothing either, and
/// certificates too old to be read are as good as others.
#[derive(Debug)]
struct Anyone {
    required: bool,
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
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes whom an authority vouches for, under whatever name: brokers are known by addresses that
/// certificates rarely hold, and stock clients do not compare them either.
#[derive(Debug)]
struct Vouched {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Vouched {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            chain,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
