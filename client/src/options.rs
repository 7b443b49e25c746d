//! How to reach the servers, the same for producers and consumers.

use std::time::Duration;

use crate::credentials::Credentials;
use crate::dial::Security;
use crate::endpoints::Endpoints;
use crate::error::Error;

/// Where the proxies are and how to talk to them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    pub endpoints: Endpoints,
    pub security: Security,
    pub credentials: Option<Credentials>,
    /// Empty unless the cluster is shared by tenants.
    pub namespace: String,
    /// How long one attempt of a request may take.
    pub request_timeout: Duration,
}

impl Options {
    /// `endpoints` is `host:port`, or several with `;` between them. The default is TLS that trusts whoever
    /// answers, as with the other SDKs; see [`Security`].
    pub fn new(endpoints: &str) -> Result<Self, Error> {
        Ok(Self {
            endpoints: endpoints.parse()?,
            security: Security::default(),
            credentials: None,
            namespace: String::new(),
            request_timeout: Duration::from_secs(3),
        })
    }

    /// Nothing is encrypted.
    pub fn plaintext(self) -> Self {
        self.security(Security::Plaintext)
    }

    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }
}
