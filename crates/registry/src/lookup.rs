//! Addresses of host names: those that were given, then the system's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// That a name has no address; its own type, so that this failure can be told from others.
#[derive(Debug)]
pub(crate) struct NotResolved(Option<std::io::Error>);

impl NotResolved {
    /// There is no such name.
    pub(crate) fn nowhere() -> Self {
        Self(None)
    }
}

impl fmt::Display for NotResolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => error.fmt(f),
            None => f.write_str("the name has no address"),
        }
    }
}

impl std::error::Error for NotResolved {}

/// Resolves names for the connector.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    pub(crate) fixed: Arc<BTreeMap<String, Vec<IpAddr>>>,
}

impl Service<Name> for Lookup {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NotResolved;
    type Future = BoxFuture<'static, Result<Self::Response, NotResolved>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotResolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let fixed = self.fixed.clone();
        Box::pin(async move {
            // The connector puts its own port in.
            let addresses: Vec<SocketAddr> = match fixed.get(name.as_str()) {
                Some(addresses) => addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect(),
                None => tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|e| NotResolved(Some(e)))?.collect(),
            };
            if addresses.is_empty() {
                return Err(NotResolved(None));
            }
            Ok(addresses.into_iter())
        })
    }
}
