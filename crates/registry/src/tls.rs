//! Whom TLS trusts: the system's authorities, and those that were given.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use windlass_core::{Error, Result};

/// A certificate to trust.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    /// Reads the certificates of a PEM file: RFC 7468.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none, or one is malformed.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Self>> {
        let certificates: Vec<Self> = CertificateDer::pem_slice_iter(pem)
            .map(|certificate| certificate.map(Self))
            .collect::<Result<_, _>>()
            .map_err(|e| Error::invalid_argument(format!("a PEM certificate is malformed: {e}")))?;
        if certificates.is_empty() {
            return Err(Error::invalid_argument("there is no PEM certificate"));
        }
        Ok(certificates)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} bytes)", self.0.len())
    }
}

/// Makes the TLS configuration; reads the system's certificates from disk, which takes milliseconds and blocks.
pub(crate) fn client_config(extra: &[Certificate]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "some of the system's certificates are not readable");
    }
    let (added, ignored) = roots.add_parsable_certificates(system.certs);
    tracing::debug!(added, ignored, "the system's certificates were read");
    for certificate in extra {
        roots
            .add(certificate.0.clone())
            .map_err(|e| Error::invalid_argument(format!("a certificate to trust is malformed: {e}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("the TLS provider has no usable version").source(e))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[test]
    fn what_is_not_a_certificate_is_refused() {
        for pem in [&b""[..], b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            assert_eq!(Certificate::from_pem(pem).unwrap_err().kind(), Kind::InvalidArgument);
        }
    }
}
