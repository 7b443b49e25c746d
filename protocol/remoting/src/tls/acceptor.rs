//! The server's end: its certificate, made or read, and read again when its files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tracing::{info, warn};

use super::{Mode, Settings, TlsError, material};
use crate::process::Shutdown;

/// How often certificate files are looked at.
pub const WATCH_PERIOD: Duration = Duration::from_millis(500);

/// What handshakes of one listener are made with.
#[derive(Debug)]
pub struct Acceptor {
    pub mode: Mode,
    settings: Settings,
    /// The protocols that are offered inside (ALPN).
    offers: Vec<Vec<u8>>,
    /// The files as they were before they were read: what changed since then is read again.
    seen: Mutex<Vec<Option<Vec<u8>>>>,
    /// In force for the next handshake; nothing yet when the certificate is to be made.
    current: ArcSwapOption<ServerConfig>,
}

impl Acceptor {
    /// Reads the files that are named. Without any, a certificate is made when the first client needs it.
    pub fn new(settings: Settings, offers: &[&[u8]]) -> Result<Arc<Self>, TlsError> {
        let acceptor = Self {
            mode: settings.mode,
            offers: offers.iter().map(|it| it.to_vec()).collect(),
            seen: Mutex::new(contents(&files(&settings))),
            current: ArcSwapOption::empty(),
            settings,
        };
        if acceptor.mode != Mode::Disabled && !acceptor.settings.test_mode {
            match acceptor.build() {
                Ok(config) => acceptor.current.store(Some(config)),
                Err(TlsError::Missing(key)) if acceptor.mode == Mode::Permissive => {
                    warn!(key, "encrypted connections are refused: there is no certificate");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Arc::new(acceptor))
    }

    /// One that refuses every handshake.
    pub fn disabled() -> Arc<Self> {
        Arc::new(Self {
            mode: Mode::Disabled,
            settings: Settings::default(),
            offers: Vec::new(),
            seen: Mutex::default(),
            current: ArcSwapOption::empty(),
        })
    }

    /// What the next handshake is made with.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        if let Some(config) = self.current.load_full() {
            return Ok(config);
        }
        if self.mode == Mode::Disabled || !self.settings.test_mode {
            return Err(TlsError::Unusable("encryption is not served here".to_owned()));
        }
        let made = self.build()?;
        // Two first clients may come at once; both are shown the same certificate.
        self.current.compare_and_swap(&None::<Arc<ServerConfig>>, Some(made));
        self.config()
    }

    fn build(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let Settings { server, test_mode, .. } = &self.settings;
        let provider = material::provider(&self.settings)?;
        let identity = if *test_mode {
            material::self_signed(&provider)?
        } else {
            let cert = server.cert_path.as_deref();
            let cert = cert.ok_or(TlsError::Missing("tls.server.certPath"))?;
            let key = server.key_path.as_deref();
            material::identity(
                cert,
                key.ok_or(TlsError::Missing("tls.server.keyPath"))?,
                &provider,
            )?
        };
        let clients = material::clients(&self.settings, &provider)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&material::versions(&self.settings)?)
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        let resolver = Arc::new(SingleCertAndKey::from(identity));
        let mut config = config.with_client_cert_verifier(clients).with_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&self.offers);
        Ok(Arc::new(config))
    }

    /// Reads the files again; what cannot be used changes nothing.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Some(self.build()?));
        Ok(())
    }

    /// Looks at the files every `period` and takes what has changed; open connections go on as they are.
    pub async fn watch(self: Arc<Self>, period: Duration, shutdown: Shutdown) {
        let paths = files(&self.settings);
        if paths.is_empty() {
            return;
        }
        while shutdown.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
            let read = paths.clone();
            let now = tokio::task::spawn_blocking(move || contents(&read)).await;
            let now = now.unwrap_or_default();
            if now == *self.seen.lock() {
                continue;
            }
            *self.seen.lock() = now;
            match self.reload() {
                Ok(()) => info!(files = ?paths, "the certificate is read again"),
                // Key and certificate are replaced one after the other; the second one is seen, too.
                Err(error) => warn!(%error, "the certificate in use stays"),
            }
        }
    }
}

/// The files a certificate is made of, if it is made of any.
fn files(settings: &Settings) -> Vec<PathBuf> {
    if settings.mode == Mode::Disabled || settings.test_mode {
        return Vec::new();
    }
    let server = &settings.server;
    let named = [&server.cert_path, &server.key_path, &server.trust_path];
    named.into_iter().flatten().cloned().collect()
}

fn contents(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    paths.iter().map(|path| std::fs::read(path).ok()).collect()
}
