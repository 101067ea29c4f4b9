//! Errors and gRPC statuses: the one place where the classes of the contract meet the codes of the wire.
//!
//! Codes are containerd's. What they cannot tell apart, and the hint, goes with the status as a `google.rpc.ErrorInfo` of the
//! domain `windlass.dev`; who does not know it loses nothing else. It is a trailer of its own, `windlass-error-bin`, and not among the
//! details of the status: of a detail whose type they do not know, containerd 2's clients print `proto: not found`.

use std::collections::HashMap;

use prost::Message as _;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Code, Status};
use windlass_core::{Attempt, Error, Kind};
use windlass_proto::google::rpc;

/// The domain of our details.
pub(crate) const DOMAIN: &str = "windlass.dev";
/// The trailer with the details, an `ErrorInfo`.
const DETAILS: &str = "windlass-error-bin";
/// The key of the hint in the details.
const HINT: &str = "hint";
/// The key of the code that says more than the class.
const CODE: &str = "code";
/// The key of what was tried, as JSON.
const TRIED: &str = "tried";
/// How much of what was tried goes with a status, in bytes: it travels in a header.
const MAX_TRIED: usize = 4 << 10;

/// Every class, in the order of the contract.
const KINDS: [Kind; 18] = [
    Kind::Unknown,
    Kind::InvalidArgument,
    Kind::NotFound,
    Kind::AlreadyExists,
    Kind::FailedPrecondition,
    Kind::Conflict,
    Kind::NotModified,
    Kind::Unavailable,
    Kind::Unauthenticated,
    Kind::PermissionDenied,
    Kind::ResourceExhausted,
    Kind::Aborted,
    Kind::OutOfRange,
    Kind::Unimplemented,
    Kind::Internal,
    Kind::DataLoss,
    Kind::DeadlineExceeded,
    Kind::Canceled,
];

/// Returns the code of a class.
fn code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::FailedPrecondition | Kind::Conflict | Kind::NotModified => Code::FailedPrecondition,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::Aborted => Code::Aborted,
        Kind::OutOfRange => Code::OutOfRange,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
        Kind::DataLoss => Code::DataLoss,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Canceled => Code::Cancelled,
        _ => Code::Unknown,
    }
}

/// Returns the class of a code.
fn kind(code: Code) -> Kind {
    // The first class of a code is the one that it stands for; the others are told apart by the details.
    KINDS.into_iter().find(|kind| self::code(*kind) == code).unwrap_or(Kind::Unknown)
}

/// Makes the status that tells a client about an error.
pub fn to_status(error: &Error) -> Status {
    let code = code(error.kind());
    let message = error.to_string();
    let mut metadata = HashMap::new();
    if let Some(hint) = error.hint_text() {
        metadata.insert(HINT.to_owned(), hint.to_owned());
    }
    if error.code() != error.kind().code() {
        metadata.insert(CODE.to_owned(), error.code().to_owned());
    }
    if let Some(tried) = tried(error.trace()) {
        metadata.insert(TRIED.to_owned(), tried);
    }
    if metadata.is_empty() && kind(code) == error.kind() {
        return Status::new(code, message);
    }
    with_details(code, message, error.kind().code(), metadata)
}

/// Makes the status that tells a client of others about an error: what is to be done is part of the message.
pub fn to_foreign_status(error: &Error) -> Status {
    let status = to_status(error);
    let Some(hint) = error.hint_text() else { return status };
    let message = format!("{} ({hint})", status.message());
    Status::with_metadata(status.code(), message, status.metadata().clone())
}

/// Makes a status with details of ours.
pub(crate) fn with_details(code: Code, message: String, reason: &str, metadata: HashMap<String, String>) -> Status {
    let info = rpc::ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), metadata };
    let mut trailers = MetadataMap::new();
    trailers.insert_bin(DETAILS, BinaryMetadataValue::from_bytes(&info.encode_to_vec()));
    Status::with_metadata(code, message, trailers)
}

/// Makes the error that a status stands for.
pub fn from_status(status: &Status) -> Error {
    let info = details(status);
    let named = info.as_ref().and_then(|info| KINDS.into_iter().find(|kind| kind.code() == info.reason));
    // A class that contradicts the code is not believed.
    let kind = named.filter(|kind| code(*kind) == status.code()).unwrap_or_else(|| kind(status.code()));
    let mut error = Error::new(kind, status.message());
    let mut metadata = info.map(|info| info.metadata).unwrap_or_default();
    if let Some(hint) = metadata.remove(HINT) {
        error = error.hint(hint);
    }
    if let Some(code) = metadata.remove(CODE) {
        error = error.coded(code);
    }
    let tried = metadata.remove(TRIED).and_then(|tried| serde_json::from_str::<Vec<Attempt>>(&tried).ok());
    error.attempts(tried.unwrap_or_default())
}

/// Writes down what was tried: as much of it as fits, the last of it first.
fn tried(trace: &[Attempt]) -> Option<String> {
    let mut texts = (0..trace.len()).filter_map(|from| serde_json::to_string(trace.get(from..)?).ok());
    texts.find(|tried| tried.len() <= MAX_TRIED)
}

/// Returns our details of a status; details that are nobody's or damaged are none.
pub(crate) fn details(status: &Status) -> Option<rpc::ErrorInfo> {
    let bytes = status.metadata().get_bin(DETAILS)?.to_bytes().ok()?;
    rpc::ErrorInfo::decode(bytes).ok().filter(|info| info.domain == DOMAIN)
}

/// The results of calls, as the contract has them.
pub(crate) trait Answer<T> {
    /// Takes the message out of an answer, or makes the error that its status stands for.
    fn answer(self) -> windlass_core::Result<T>;
}

impl<T> Answer<T> for Result<tonic::Response<T>, Status> {
    fn answer(self) -> windlass_core::Result<T> {
        self.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }
}

/// The results of the contract, as answers.
pub(crate) trait Reply<T> {
    /// Makes an answer, or the status that tells of the error.
    fn reply(self) -> Result<tonic::Response<T>, Status>;
}

impl<T> Reply<T> for windlass_core::Result<T> {
    fn reply(self) -> Result<tonic::Response<T>, Status> {
        self.map(tonic::Response::new).map_err(|error| to_status(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_message_and_hint_survives_the_wire() {
        for kind in KINDS {
            let error = Error::new(kind, "blob x is odd").hint("look at it").context("read it");
            let back = from_status(&to_status(&error));
            assert_eq!((back.kind(), back.to_string()), (kind, "read it: blob x is odd".to_owned()));
            assert_eq!(back.hint_text(), Some("look at it"));
            let plain = from_status(&to_status(&Error::new(kind, "m")));
            assert_eq!((plain.kind(), plain.hint_text()), (kind, None));
        }
    }

    #[test]
    fn what_was_tried_and_the_code_survive_the_wire_as_far_as_they_fit() {
        let attempt = |host: &str| Attempt::new(host, "GET /v2/", "404 Not Found");
        let error = Error::not_found("x").coded("tag-not-found").attempted(attempt("a")).attempted(attempt("b"));
        let back = from_status(&to_status(&error));
        assert_eq!((back.code(), back.trace()), ("tag-not-found", error.trace()));
        let large = attempt(&"x".repeat(MAX_TRIED / 2));
        let error = error.attempted(large.clone()).attempted(attempt("last"));
        let back = from_status(&to_status(&error.attempted(large)));
        assert_eq!(back.trace().first().unwrap().host, "last");
    }

    #[test]
    fn a_foreign_status_keeps_its_code() {
        let status = Status::with_details(Code::NotFound, "gone", vec![0xff, 0xff].into());
        assert_eq!(from_status(&status).kind(), Kind::NotFound);
        let lie = with_details(Code::NotFound, "gone".to_owned(), "data-loss", HashMap::new());
        assert_eq!(from_status(&lie).kind(), Kind::NotFound);
    }

    #[test]
    fn a_client_of_others_reads_the_hint_and_gets_no_detail_that_it_does_not_know() {
        let error = Error::resource_exhausted("no space is left").hint("make some");
        assert!(to_status(&error).details().is_empty());
        assert_eq!(to_foreign_status(&error).message(), "no space is left (make some)");
        assert_eq!(from_status(&to_foreign_status(&error)).hint_text(), Some("make some"));
        assert_eq!(to_foreign_status(&Error::not_found("x")).message(), "x");
    }
}
