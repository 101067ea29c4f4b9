//! The one error that crosses crate boundaries.
//!
//! An error has a [`Kind`] to decide by, a message that names the object, the chain of what was being attempted,
//! and optionally a hint that says what to do next. Nobody matches on text. Where hosts were asked it has a trace of
//! what each said, and where a class is too coarse for programs a code of its own.

mod trace;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use trace::Attempt;

/// The result of anything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of an error: containerd's error classes, which map one to one onto gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The cause could not be classified.
    Unknown,
    /// The caller's input is wrong, whatever the state of the system.
    InvalidArgument,
    /// The named object does not exist.
    NotFound,
    /// The object is there already.
    AlreadyExists,
    /// The system is not in the state the operation needs.
    FailedPrecondition,
    /// Two changes exclude each other.
    Conflict,
    /// The change would change nothing.
    NotModified,
    /// It does not work now and may work later: a lock is held, a host does not answer.
    Unavailable,
    /// The other side does not know who is asking.
    Unauthenticated,
    /// The other side knows who is asking and refuses.
    PermissionDenied,
    /// A quota, the disk or the memory is used up.
    ResourceExhausted,
    /// The operation was given up, usually because of another one.
    Aborted,
    /// An offset or a number lies outside of the valid range.
    OutOfRange,
    /// Not offered here.
    Unimplemented,
    /// A promise inside the program was broken: a bug.
    Internal,
    /// Bytes are missing or are not what their digest says.
    DataLoss,
    /// The time was up.
    DeadlineExceeded,
    /// The caller gave up.
    Canceled,
}

impl Kind {
    /// Returns the stable code of the class, as machine-readable output carries it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid-argument",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::FailedPrecondition => "failed-precondition",
            Self::Conflict => "conflict",
            Self::NotModified => "not-modified",
            Self::Unavailable => "unavailable",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission-denied",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out-of-range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::DataLoss => "data-loss",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Canceled => "canceled",
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, while attempting what, with which object, and what to do about it.
///
/// ```
/// use windlass_core::{Error, Kind};
///
/// let error = Error::not_found("tag 8 is not in repository library/redis")
///     .hint("`dist tags docker.io/library/redis` lists the tags")
///     .context("resolve docker.io/library/redis:8");
/// assert_eq!(error.kind(), Kind::NotFound);
/// assert_eq!(error.to_string(), "resolve docker.io/library/redis:8: tag 8 is not in repository library/redis");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    /// Innermost first.
    context: Vec<String>,
    hint: Option<String>,
    code: Option<Cow<'static, str>>,
    /// First one first.
    attempts: Vec<Attempt>,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

/// Generates a constructor for each kind.
macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $(
                #[doc = concat!("Makes an error of kind [`Kind::", stringify!($kind), "`].")]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self::new(Kind::$kind, message)
                }
            )*
        }
    };
}

constructors! {
    unknown => Unknown,
    invalid_argument => InvalidArgument,
    not_found => NotFound,
    already_exists => AlreadyExists,
    failed_precondition => FailedPrecondition,
    unavailable => Unavailable,
    unauthenticated => Unauthenticated,
    permission_denied => PermissionDenied,
    resource_exhausted => ResourceExhausted,
    aborted => Aborted,
    out_of_range => OutOfRange,
    unimplemented => Unimplemented,
    internal => Internal,
    data_loss => DataLoss,
    deadline_exceeded => DeadlineExceeded,
    canceled => Canceled,
}

impl Error {
    /// Makes an error; the message is lower case, names the object and has no full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            context: Vec::new(),
            hint: None,
            code: None,
            attempts: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// Makes an error of an operating system error, classified; `attempt` says what was tried with which path.
    pub fn io(attempt: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => Kind::NotFound,
            Io::PermissionDenied => Kind::PermissionDenied,
            Io::AlreadyExists => Kind::AlreadyExists,
            Io::InvalidInput => Kind::InvalidArgument,
            Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory | Io::FileTooLarge => Kind::ResourceExhausted,
            Io::TimedOut => Kind::DeadlineExceeded,
            Io::UnexpectedEof | Io::InvalidData => Kind::DataLoss,
            Io::WouldBlock
            | Io::Interrupted
            | Io::ResourceBusy
            | Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::BrokenPipe
            | Io::NotConnected
            | Io::HostUnreachable
            | Io::NetworkUnreachable => Kind::Unavailable,
            Io::DirectoryNotEmpty | Io::ReadOnlyFilesystem | Io::NotADirectory | Io::IsADirectory => {
                Kind::FailedPrecondition
            }
            Io::Unsupported => Kind::Unimplemented,
            _ => Kind::Unknown,
        };
        let error = Self::new(kind, attempt).source(source);
        if kind == Kind::ResourceExhausted {
            return error
                .coded("disk-full")
                .hint("free some space on the file system, then run the command again: it continues");
        }
        error
    }

    /// Adds what was being attempted, outermost last.
    pub fn context(mut self, attempt: impl Into<String>) -> Self {
        self.0.context.push(attempt.into());
        self
    }

    /// Says what to do next; the innermost hint wins, it knows most.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Gives the error a code that says more than its class; the innermost one wins. Codes are stable and in kebab case,
    /// and docs/errors.md lists them.
    pub fn coded(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.0.code.get_or_insert_with(|| code.into());
        self
    }

    /// Notes what was tried last.
    pub fn attempted(mut self, attempt: Attempt) -> Self {
        self.0.attempts.push(attempt);
        let excess = self.0.attempts.len().saturating_sub(trace::MAX_ATTEMPTS);
        self.0.attempts.drain(..excess);
        self
    }

    /// Notes what was tried before what the error knows of already.
    pub fn attempts(mut self, earlier: impl IntoIterator<Item = Attempt>) -> Self {
        self.0.attempts.splice(0..0, earlier);
        let excess = self.0.attempts.len().saturating_sub(trace::MAX_ATTEMPTS);
        self.0.attempts.drain(..excess);
        self
    }

    /// Adds to each attempt what only a caller knows.
    pub fn map_attempts(mut self, add: impl FnMut(&mut Attempt)) -> Self {
        self.0.attempts.iter_mut().for_each(add);
        self
    }

    /// Notes for how long whoever was asked wants to be left alone, if it says so; what it said last counts.
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait.or(self.0.retry_after);
        self
    }

    /// Attaches the cause.
    pub fn source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns the class of the error.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the stable code: one of the error's own, or that of its class.
    pub fn code(&self) -> &str {
        self.0.code.as_deref().unwrap_or_else(|| self.kind().code())
    }

    /// Returns what was tried before it failed, first one first: of this error, or of the one behind it.
    pub fn trace(&self) -> &[Attempt] {
        match self.cause::<Self>() {
            Some(cause) if self.0.attempts.is_empty() => cause.trace(),
            _ => &self.0.attempts,
        }
    }

    /// Returns for how long whoever was asked wants to be left alone, if it said so.
    pub fn retry_after_time(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns what to do next, if anything is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the message alone, without what was attempted and without the cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Tells whether the error is of the given kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.0.kind == kind
    }

    /// Returns the operating system's error behind this one, if that is known in this process.
    pub fn os_cause(&self) -> Option<&std::io::Error> {
        self.cause()
    }

    /// Returns the first cause of that type behind this error, if that is known in this process.
    pub fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = self.0.source.as_deref().map(|source| source as _);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            if let Some(ours) = error.downcast_ref::<Self>() {
                return ours.cause();
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for attempt in self.0.context.iter().rev() {
            write!(f, "{attempt}: ")?;
        }
        f.write_str(&self.0.message)?;
        let mut source = self.0.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)?;
        match &self.0.hint {
            Some(hint) => write!(f, " hint: {hint}"),
            None => Ok(()),
        }
    }
}

// `source` is not forwarded: `Display` already prints the whole chain, and a reporter that walks it would print
// every cause twice.
impl std::error::Error for Error {}

/// Context for a `Result`, made only when there is an error.
pub trait ResultExt<T> {
    /// Adds what was being attempted.
    fn context(self, attempt: impl FnOnce() -> String) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context(self, attempt: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.context(attempt()))
    }
}

/// Context for an operating system result: the attempt becomes the message, the system's words the cause.
pub trait IoResultExt<T> {
    /// Classifies the error and says what was tried with which path.
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoResultExt<T> for std::result::Result<T, E> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::io(attempt(), error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_reads_from_the_outside_in_and_the_innermost_hint_wins() {
        let io = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = Error::io("open /a", io).hint("first").context("read blob").hint("second").context("pull x");
        assert_eq!(error.to_string(), "pull x: read blob: open /a: entity not found");
        assert_eq!(error.hint_text(), Some("first"));
        assert_eq!(error.kind(), Kind::NotFound);
    }

    #[test]
    fn the_innermost_code_wins_and_without_one_it_is_that_of_the_class() {
        assert_eq!(Error::not_found("x").code(), "not-found");
        let error = Error::not_found("x").coded("tag-not-found").context("resolve").coded("other");
        assert_eq!((error.code(), error.kind()), ("tag-not-found", Kind::NotFound));
    }

    #[test]
    fn attempts_are_in_order_bounded_and_found_behind_another_error() {
        let attempt = |host: &str| Attempt::new(host, "GET", "failed");
        let error = Error::unavailable("x").attempted(attempt("b")).attempts([attempt("a")]).attempted(attempt("c"));
        let hosts: Vec<&str> = error.trace().iter().map(|attempt| attempt.host.as_str()).collect();
        assert_eq!(hosts, ["a", "b", "c"]);
        let ruled = error.map_attempts(|attempt| attempt.rule = Some("rule".to_owned()));
        assert!(ruled.trace().iter().all(|attempt| attempt.rule.as_deref() == Some("rule")));
        let behind = Error::aborted("y").source(ruled);
        assert_eq!(behind.trace().len(), 3);
        let many = (0..100).fold(Error::unavailable("x"), |error, n| error.attempted(attempt(&n.to_string())));
        assert_eq!(many.trace().len(), trace::MAX_ATTEMPTS);
        assert_eq!(many.trace()[0].host, "68");
    }

    #[test]
    fn a_full_disk_is_resource_exhausted_and_says_what_to_do() {
        let error = Error::io("write /a", std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.hint_text().is_some());
    }

    #[test]
    fn the_system_s_error_is_found_behind_ours_and_there_is_none_behind_a_quota_of_a_registry() {
        let full = || Error::io("write /a", std::io::Error::from_raw_os_error(28));
        let kind = |error: &Error| error.os_cause().map(std::io::Error::kind);
        assert_eq!(kind(&full()), Some(std::io::ErrorKind::StorageFull));
        assert_eq!(kind(&Error::aborted("commit").source(full())), Some(std::io::ErrorKind::StorageFull));
        assert_eq!(kind(&Error::resource_exhausted("too many requests")), None);
    }
}
