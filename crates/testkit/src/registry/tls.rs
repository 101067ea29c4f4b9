//! Certificates: an authority of its own for each test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// When a certificate is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    #[default]
    Current,
    /// Long ago.
    Expired,
    /// Far in the future.
    NotYet,
}

impl Validity {
    fn set(self, parameters: &mut CertificateParams) {
        let (from, until) = match self {
            Self::Current => return,
            Self::Expired => (2000, 2001),
            Self::NotYet => (3000, 3001),
        };
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(until, 1, 1);
    }
}

/// A certificate with its key, of a server or a client, issued by an authority that nobody else has.
#[derive(Debug)]
pub struct Identity {
    authority: Certificate,
    certificate: Certificate,
    key: KeyPair,
}

impl Identity {
    /// Makes a certificate for these names, which may be addresses, that is good now.
    pub fn new(names: &[&str]) -> Self {
        Self::valid(names, Validity::Current)
    }

    /// Makes a certificate for these names.
    pub fn valid(names: &[&str], validity: Validity) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Nobody else has its name either.
        let name: String =
            authority_key.public_key_raw().iter().take(16).map(|byte| char::from(b'a' + byte % 26)).collect();
        authority.distinguished_name.push(DnType::CommonName, name);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();

        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        validity.set(&mut parameters);
        let certificate = parameters.signed_by(&key, &Issuer::from_params(&authority, &authority_key)).unwrap();
        Self { authority: authority_certificate, certificate, key }
    }

    /// Makes a certificate for these names that is an authority's, and its own, as `openssl req -x509` makes it.
    pub fn self_signed(names: &[&str], validity: Validity) -> Self {
        Self::itself(names, validity, None)
    }

    /// Makes one of an authority that may only vouch for other names than its own.
    pub fn self_signed_for_others(names: &[&str], others: &str) -> Self {
        let permitted_subtrees = vec![GeneralSubtree::DnsName(others.to_owned())];
        let constraints = NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() };
        Self::itself(names, Validity::Current, Some(constraints))
    }

    fn itself(names: &[&str], validity: Validity, constraints: Option<NameConstraints>) -> Self {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.name_constraints = constraints;
        validity.set(&mut parameters);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { authority: certificate.clone(), certificate, key }
    }

    /// Returns the certificate of the authority, for a client to trust.
    pub fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// Returns the certificate and the authority's behind it.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem() + &self.authority.pem()
    }

    /// Returns the key of the certificate.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Writes certificate and key into a directory, and returns their paths.
    pub fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        std::fs::write(&certificate, self.certificate_pem()).unwrap();
        std::fs::write(&key, self.key_pem()).unwrap();
        (certificate, key)
    }

    pub(super) fn certificate_der(&self) -> &[u8] {
        self.certificate.der()
    }

    pub(super) fn key_der(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
