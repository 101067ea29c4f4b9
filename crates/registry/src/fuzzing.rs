//! Parsers of what strangers send, for the fuzz targets: there is no other way to them from outside.

use std::path::Path;

use crate::hosts::HostsFile;
use crate::{challenge, link, referrers, x509};

/// Parses a header `WWW-Authenticate`.
pub fn challenges(value: &str) {
    for challenge in challenge::parse(value) {
        assert!(!challenge.scheme.is_empty());
    }
}

/// Parses a header `Link`.
pub fn link(value: &str) {
    assert!(link::next_of(value).is_none_or(|target| !target.is_empty()));
}

/// Parses a list of tags.
pub fn tags(bytes: &[u8]) {
    let _ = crate::resolver::parse_tags(bytes);
}

/// Parses a list of referrers.
pub fn referrers(bytes: &[u8]) {
    let _ = referrers::parse(bytes);
}

/// Parses a configuration of Docker.
pub fn docker_config(bytes: &[u8]) {
    let _ = crate::DockerConfig::parse("config.json".as_ref(), bytes);
}

/// Parses a certificate.
pub fn certificate(der: &[u8]) {
    let _ = x509::Certificate::parse(der);
}

/// Parses a `hosts.toml`.
pub fn hosts(text: &str) {
    let _ = HostsFile::parse(Path::new("/nowhere/hosts.toml"), text.to_owned());
}
