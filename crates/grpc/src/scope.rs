//! The scope of a call: namespace and lease, which travel as headers.

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Status};
use windlass_core::{Error, Host, Result, Scope, Services};

use crate::error::to_status;

/// The header that names the namespace.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// The header that names the lease.
pub const LEASE_HEADER: &str = "containerd-lease";

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
