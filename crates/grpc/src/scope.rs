//! What travels as headers of a call: its scope, which is a namespace and a lease, and whose rules its client follows.

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Status};
use windlass_core::{Error, Host, Result, Scope, Services};

use crate::error::to_status;

/// The header that names the namespace.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// The header that names the lease.
pub const LEASE_HEADER: &str = "containerd-lease";

/// The header with which a client says that it follows the contracts of `windlass_core`, such as that of
/// [`Writer`](windlass_core::content::Writer), and a server that it does as well. Without it both keep to what containerd does:
///
/// - an ingest is cut back to nothing or not at all; with it, to any offset
/// - an ingest that is not what a commit expects stays, and the commit is `FailedPrecondition`; with it, the ingest is
///   discarded, and bytes of another digest are `DataLoss`
/// - a label of a namespace that is not there makes it; with it, that is `NotFound`
/// - every answer has the digest of what is here so far; with it, none has, and the client need not wait for answers
/// - an ingest can be aborted under its writer; with it, the writer keeps it, whichever of the two has it
/// - a namespace that is not there has no labels; with it, it is `NotFound`
/// - progress and errors of transfers are what containerd's clients can read; with it, they have what ours can
const CONTRACT_HEADER: &str = "windlass-contract";

/// Reads the scope of a call.
///
/// # Errors
/// `FailedPrecondition` without a namespace; `InvalidArgument` for one, or a lease, that is out of the rule.
pub fn of_headers(headers: &MetadataMap) -> Result<Scope> {
    let text = |name: &str| -> Result<Option<String>> {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let text = value.to_str().map_err(|_| Error::invalid_argument(format!("header {name} is no text")))?;
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    };
    let namespace = text(NAMESPACE_HEADER)?.ok_or_else(|| {
        Error::failed_precondition("namespace is required").hint(format!("send it as the header {NAMESPACE_HEADER}"))
    })?;
    Ok(Scope { namespace: namespace.parse()?, lease: text(LEASE_HEADER)?.map(|lease| lease.parse()).transpose()? })
}

/// Makes a request with the headers of a scope.
pub fn request<T>(scope: &Scope, message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    let value = |text: &str| {
        AsciiMetadataValue::try_from(text)
            .map_err(|_| Error::invalid_argument(format!("{text:?} does not fit a header")))
    };
    request.metadata_mut().insert(NAMESPACE_HEADER, value(scope.namespace.as_str())?);
    if let Some(lease) = &scope.lease {
        request.metadata_mut().insert(LEASE_HEADER, value(lease.as_str())?);
    }
    Ok(request)
}

/// Says with a message that whoever sends it follows the contracts.
pub(crate) fn say_contract(headers: &mut MetadataMap) {
    headers.insert(CONTRACT_HEADER, AsciiMetadataValue::from_static("1"));
}

/// Tells whether whoever sent a message follows the contracts.
pub fn has_contract(headers: &MetadataMap) -> bool {
    headers.contains_key(CONTRACT_HEADER)
}

/// Returns the services of a host that a call is for.
pub async fn services<T>(host: &dyn Host, request: &Request<T>) -> Result<Services, Status> {
    let scope = of_headers(request.metadata()).map_err(|error| to_status(&error))?;
    host.services(&scope).await.map_err(|error| to_status(&error))
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[test]
    fn a_scope_travels_as_headers() {
        let scope = Scope { namespace: "k8s.io".parse().unwrap(), lease: Some("l1".parse().unwrap()) };
        assert_eq!(of_headers(request(&scope, ()).unwrap().metadata()).unwrap(), scope);
    }

    #[test]
    fn a_call_without_a_namespace_or_with_a_wrong_one_is_refused() {
        assert_eq!(of_headers(&MetadataMap::new()).unwrap_err().kind(), Kind::FailedPrecondition);
        let mut headers = MetadataMap::new();
        headers.insert(NAMESPACE_HEADER, "a b".parse().unwrap());
        assert_eq!(of_headers(&headers).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
