//! Several sources of credentials as one, and the source that is a command line.

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::Result;

use super::{Credential, Credentials, Known};
use crate::hosts::canonical_host;

/// Sources in order: the first one that knows something answers.
#[derive(Clone, Default)]
pub struct InOrder(Vec<Arc<dyn Credentials>>);

impl InOrder {
    /// Makes one source of several, first choice first.
    pub fn new(sources: Vec<Arc<dyn Credentials>>) -> Self {
        Self(sources)
    }
}

#[async_trait]
impl Credentials for InOrder {
    async fn of(&self, host: &str, repository: &str) -> Result<Known> {
        let mut unusable = None;
        for source in &self.0 {
            match source.of(host, repository).await? {
                Known::Nothing => {}
                known @ Known::Credential(_) => return Ok(known),
                known @ Known::Unusable { .. } => unusable = unusable.or(Some(known)),
            }
        }
        Ok(unusable.unwrap_or(Known::Nothing))
    }

    async fn source(&self, host: &str, repository: &str) -> Result<Option<String>> {
        for source in &self.0 {
            if let Some(found) = source.source(host, repository).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// A credential for one host, and for nobody else.
#[derive(Debug, Clone)]
pub struct ForHost {
    host: String,
    credential: Credential,
    source: String,
}

impl ForHost {
    /// Knows a credential for a host; `source` says where it is from: `--user`.
    pub fn new(host: &str, credential: Credential, source: impl Into<String>) -> Self {
        Self { host: canonical_host(host), credential, source: source.into() }
    }
}

#[async_trait]
impl Credentials for ForHost {
    async fn of(&self, host: &str, _repository: &str) -> Result<Known> {
        let it = canonical_host(host) == self.host;
        Ok(if it { Known::Credential(self.credential.clone()) } else { Known::Nothing })
    }

    async fn source(&self, host: &str, _repository: &str) -> Result<Option<String>> {
        Ok((canonical_host(host) == self.host).then(|| self.source.clone()))
    }
}
