//! What a connection to a host takes beyond its address: whom to trust, who we are to TLS, which way to go.
//!
//! Two hosts share connections only when all of this is the same.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use windlass_core::{Error, Result};

use crate::proxy::Proxy;
use crate::tls::Certificate;

/// How to connect. The default is what every host gets for which nothing is configured.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Authorities to trust beside the system's.
    pub(crate) roots: Vec<Certificate>,
    /// Who we are, when the server asks in TLS.
    pub(crate) clients: Vec<ClientCertificate>,
    /// Whether any certificate of the server will do.
    pub(crate) skip_verify: bool,
    /// How long a connection may take to come about; as long as usual when nothing is said.
    pub(crate) dial_timeout: Option<Duration>,
    /// The proxy to use, whatever the environment says.
    pub(crate) proxy: Option<Proxy>,
    /// The unix socket to connect to, whatever the URL says.
    pub(crate) socket: Option<PathBuf>,
}

impl Connection {
    /// Tells whether anything is said about TLS.
    pub(crate) fn has_tls(&self) -> bool {
        !self.roots.is_empty() || !self.clients.is_empty() || self.skip_verify
    }

    /// Returns what of it holds for another host, to which this one sends on: whom to trust, and the way there. Who we are is for
    /// this one alone, and so is its exemption from being verified.
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            roots: self.roots.clone(),
            dial_timeout: self.dial_timeout,
            proxy: self.proxy.clone(),
            ..Self::default()
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("roots", &self.roots.len())
            .field("clients", &self.clients.len())
            .field("skip_verify", &self.skip_verify)
            .field("dial_timeout", &self.dial_timeout)
            .field("proxy", &self.proxy)
            .field("socket", &self.socket)
            .finish()
    }
}

/// A certificate of ours with the key to it.
#[derive(Clone)]
pub(crate) struct ClientCertificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

impl ClientCertificate {
    /// Reads a certificate, with those that lead to its authority, and its key out of PEM: RFC 7468. The key may be in the same
    /// text. Nothing of the key is in any error.
    ///
    /// # Errors
    /// `InvalidArgument` when one of them is not there or malformed.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|e| Error::invalid_argument(format!("a PEM certificate is malformed: {e}")))?;
        if chain.is_empty() {
            return Err(Error::invalid_argument("there is no PEM certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            Error::invalid_argument("there is no readable PEM key; one with a password is not readable")
        })?;
        Ok(Self { chain, key: Arc::new(key) })
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key.secret_der() == other.key.secret_der()
    }
}

impl Eq for ClientCertificate {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_is_not_told_who_we_are_and_is_verified() {
        let certificates = Connection { skip_verify: true, socket: Some("/s".into()), ..Connection::default() };
        assert!(certificates.has_tls());
        assert_eq!(certificates.elsewhere(), Connection::default());
    }

    #[test]
    fn what_is_no_certificate_with_a_key_is_refused_without_quoting_it() {
        for (chain, key) in [("", ""), ("-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n", "hunter2")] {
            let error = ClientCertificate::from_pem(chain.as_bytes(), key.as_bytes()).err().unwrap();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
