//! Whom TLS trusts: the system's authorities, and those that were given. And who we are, when a server asks.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use windlass_core::{Error, Result};

use crate::connection::{ClientCertificate, Connection};
use crate::x509;

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

/// Reads whom this machine trusts, from disk, which takes milliseconds and blocks; and those that were given beside it.
pub(crate) fn trusted(extra: &[Certificate]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "some of the system's certificates are not readable");
    }
    let (added, ignored) = roots.add_parsable_certificates(system.certs);
    tracing::debug!(added, ignored, "the system's certificates were read");
    add(&mut roots, extra)?;
    Ok(roots)
}

fn add(roots: &mut RootCertStore, certificates: &[Certificate]) -> Result<()> {
    for certificate in certificates {
        roots
            .add(certificate.0.clone())
            .map_err(|e| Error::invalid_argument(format!("a certificate to trust is malformed: {e}")))?;
    }
    Ok(())
}

/// Makes the TLS configuration of a connection.
pub(crate) fn client_config(mut trusted: RootCertStore, connection: &Connection) -> Result<ClientConfig> {
    add(&mut trusted, &connection.roots)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("the TLS provider has no usable version").source(e))?;
    let builder = if connection.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider.signature_verification_algorithms)))
    } else if trusted.is_empty() {
        builder.with_root_certificates(trusted)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusted::new(trusted, &provider)?))
    };
    if connection.clients.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let ours = Ours::new(&connection.clients, &provider)?;
    Ok(builder.with_client_cert_resolver(Arc::new(ours)))
}

/// Takes the certificates that the authorities issued which are trusted, and those of the authorities themselves.
///
/// The second is what `openssl req -x509` makes for a registry: a certificate that says it is an authority's, and is to be
/// trusted by itself. The TLS library takes no such one from a server; everybody else does. Who has the key to it could have
/// issued another one with the same names, so nobody gets in who would not anyway.
#[derive(Debug)]
struct Trusted {
    issued: Arc<WebPkiServerVerifier>,
    authorities: Arc<RootCertStore>,
}

impl Trusted {
    fn new(authorities: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let authorities = Arc::new(authorities);
        let issued = WebPkiServerVerifier::builder_with_provider(authorities.clone(), provider.clone());
        let issued = issued.build().map_err(|e| Error::internal("certificates cannot be checked").source(e))?;
        Ok(Self { issued, authorities })
    }

    /// Tells whether a certificate is that of an authority for every name.
    fn is_authority(&self, certificate: &CertificateDer<'_>) -> bool {
        let mut alone = RootCertStore::empty();
        alone.add(certificate.clone().into_owned()).is_ok()
            && alone.roots.iter().all(|itself| {
                // One that may vouch for some names only says nothing here about this one.
                itself.name_constraints.is_none() && self.authorities.roots.contains(itself)
            })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match self.issued.verify_server_cert(certificate, chain, name, ocsp, now) {
            // It has no word of its own for what an authority presents as its own.
            Err(refused @ rustls::Error::InvalidCertificate(CertificateError::Other(_))) => refused,
            decided => return decided,
        };
        let Some(read) = x509::Certificate::parse(certificate).filter(x509::Certificate::is_self_issued) else {
            return Err(refused);
        };
        if !self.is_authority(certificate) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        if now < read.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > read.not_after {
            return Err(CertificateError::Expired.into());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

/// Takes every certificate, for hosts of which the user said so. That the server has the key to it is checked all the same.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Who we are: of several certificates, the first one that the server's authorities issued.
#[derive(Debug)]
struct Ours(Vec<Arc<CertifiedKey>>);

impl Ours {
    fn new(clients: &[ClientCertificate], provider: &CryptoProvider) -> Result<Self> {
        let certified = clients.iter().map(|client| {
            let key = provider.key_provider.load_private_key(client.key.clone_key()).map_err(|e| {
                Error::invalid_argument(format!("the key of a client certificate is of no kind that is known: {e}"))
            })?;
            let certified = CertifiedKey::new(client.chain.clone(), key);
            certified.keys_match().map_err(|e| {
                Error::invalid_argument(format!("the key of a client certificate does not belong to it: {e}"))
            })?;
            Ok(Arc::new(certified))
        });
        certified.collect::<Result<_>>().map(Self)
    }
}

impl ResolvesClientCert for Ours {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let signs = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        // RFC 5280 section 4.1.2.4: the issuer's name stands in the certificate as the authority has it.
        let issued = |certified: &&Arc<CertifiedKey>| {
            let names = |authority: &&[u8]| {
                let found = |der: &CertificateDer<'_>| der.windows(authority.len()).any(|part| part == *authority);
                !authority.is_empty() && certified.cert.iter().any(found)
            };
            authorities.iter().any(names)
        };
        let mut able = self.0.iter().filter(signs);
        able.clone().find(issued).or_else(|| able.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
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
