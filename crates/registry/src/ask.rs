//! What is asked of a repository.

use http::{HeaderMap, Method};

use crate::hosts::Repository;
use crate::payload::Payload;

/// A request to a repository, before it is known who we are and where it is redirected to.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) repository: &'a Repository,
    /// The part of the repository, such as `manifests/7`.
    pub(crate) part: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
    /// What it needs to be allowed.
    pub(crate) access: Access,
}

impl<'a> Ask<'a> {
    /// Asks for a part of a repository, in order to read it.
    pub(crate) fn new(method: Method, repository: &'a Repository, part: &'a str) -> Self {
        let (headers, body) = (HeaderMap::new(), Payload::Empty);
        Self { method, repository, part, headers, body, access: Access::Pull }
    }

    pub(crate) fn headers(self, headers: HeaderMap) -> Self {
        Self { headers, ..self }
    }

    pub(crate) fn body(self, body: Payload) -> Self {
        Self { body, ..self }
    }

    pub(crate) fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }
}

/// What a request needs to be allowed; it decides for what a token is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// To read the repository.
    Pull,
    /// To write to it.
    Push,
    /// To write to it what is read from another repository of the same host.
    MountFrom(String),
    /// To delete from it.
    Delete,
}

impl Access {
    /// Returns the scopes for a repository: distribution's documentation, "Token Scope Documentation".
    pub(crate) fn scopes(&self, repository: &str) -> Vec<String> {
        let own = |actions: &str| format!("repository:{repository}:{actions}");
        match self {
            Self::Pull => vec![own("pull")],
            Self::Push => vec![own("pull,push")],
            Self::MountFrom(from) => vec![own("pull,push"), format!("repository:{from}:pull")],
            Self::Delete => vec![own("pull,push,delete")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_what_is_needed_and_no_more() {
        assert_eq!(Access::Pull.scopes("a/b"), ["repository:a/b:pull"]);
        assert_eq!(Access::Push.scopes("a/b"), ["repository:a/b:pull,push"]);
        let mount = Access::MountFrom("c".to_owned());
        assert_eq!(mount.scopes("a/b"), ["repository:a/b:pull,push", "repository:c:pull"]);
    }
}
