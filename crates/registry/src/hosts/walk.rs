//! The way through the hosts of a repository: one after the other, until one does what it is asked for.

use std::sync::atomic::{AtomicU8, Ordering};

use windlass_core::{Attempt, Error, Kind};

use super::{Capability, Repository};
use crate::options::Fallback;

/// Nothing is known against a host.
const GOOD: u8 = 0;
/// It has failed, and that was said.
const FAILED: u8 = 1;
/// It is not there: others are asked first.
const AWAY: u8 = 2;

/// Where a repository is served, first choice first, and what became of asking there.
#[derive(Debug)]
pub(crate) struct Repositories {
    list: Vec<Repository>,
    /// The same, for when others are left to be asked.
    followed: Vec<Repository>,
    state: Vec<AtomicU8>,
    fallback: Fallback,
}

impl Repositories {
    pub(crate) fn new(list: Vec<Repository>, fallback: Fallback) -> Self {
        let state = list.iter().map(|_| AtomicU8::new(GOOD)).collect();
        let followed = list.iter().map(|it| Repository { others_follow: true, ..it.clone() }).collect();
        Self { list, followed, state, fallback }
    }

    /// Returns those of them that may be asked for something, first choice first: hosts that were not there before go last.
    pub(crate) fn that_may(&self, capability: Capability) -> Vec<&Repository> {
        self.able(capability).into_iter().filter_map(|at| self.list.get(at)).collect()
    }

    fn able(&self, capability: Capability) -> Vec<usize> {
        let may = |at: &usize| self.list.get(*at).is_some_and(|it| it.host.capabilities.has(capability));
        let mut able: Vec<usize> = (0..self.list.len()).filter(may).collect();
        match self.fallback {
            Fallback::Allowed => able.sort_by_key(|at| self.state(*at) == AWAY),
            Fallback::Never => able.truncate(1),
        }
        able
    }

    fn state(&self, at: usize) -> u8 {
        self.state.get(at).map_or(GOOD, |state| state.load(Ordering::Relaxed))
    }

    /// Begins to ask those who may do something; `operation` is what messages call it: `resolve tag "7"`.
    pub(crate) fn walk(&self, capability: Capability, operation: impl Into<String>) -> Walk<'_> {
        let mut left = self.able(capability);
        left.reverse();
        Walk {
            repositories: self,
            capability,
            operation: operation.into(),
            left,
            at: None,
            attempts: Vec::new(),
            last: None,
        }
    }
}

/// A way through the hosts of a repository.
///
/// ```text
/// let mut walk = repositories.walk(Capability::Pull, operation);
/// while let Some(repository) = walk.next() {
///     match ask(repository).await {
///         Ok(answer) => return Ok(answer),
///         Err(error) => walk.failed(error),
///     }
/// }
/// Err(walk.into_error())
/// ```
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    repositories: &'a Repositories,
    capability: Capability,
    operation: String,
    /// The last one is the next.
    left: Vec<usize>,
    at: Option<usize>,
    attempts: Vec<Attempt>,
    last: Option<Error>,
}

impl<'a> Walk<'a> {
    /// Returns who is to be asked next.
    pub(crate) fn next(&mut self) -> Option<&'a Repository> {
        self.at = self.left.pop();
        let Repositories { list, followed, .. } = self.repositories;
        if self.left.is_empty() { list } else { followed }.get(self.at?)
    }

    /// Takes note that who was asked last has failed. That is said, once for each host, when another one is asked instead: whatever
    /// becomes of that, a mirror that fails is something to look at. One that merely does not have something is no failure.
    pub(crate) fn failed(&mut self, error: Error) {
        let Some((at, repository)) = self.at.and_then(|at| Some((at, self.repositories.list.get(at)?))) else { return };
        let host = &repository.host;
        let error = if error.trace().is_empty() {
            let attempt = Attempt::new(&host.name, &self.operation, error.message());
            error.attempted(attempt)
        } else {
            error
        };
        let error = error.map_attempts(|attempt| {
            attempt.rule.get_or_insert_with(|| host.rule.clone());
        });
        if !self.left.is_empty() {
            self.report(at, repository, &error);
        }
        self.attempts.extend(error.trace().iter().cloned());
        self.last = Some(error);
    }

    fn report(&self, at: usize, repository: &Repository, error: &Error) {
        let state = match error.kind() {
            Kind::NotFound => GOOD,
            Kind::Unavailable | Kind::DeadlineExceeded => AWAY,
            _ => FAILED,
        };
        let before = self.repositories.state.get(at).map_or(GOOD, |known| known.fetch_max(state, Ordering::Relaxed));
        let (host, rule, operation) = (&repository.host.name, &repository.host.rule, &self.operation);
        if state > before && before == GOOD {
            tracing::warn!("{host} ({rule}) fails to {operation}, and the next host is asked: {error}");
        } else {
            tracing::debug!(host, rule, operation, %error, "the next host is asked");
        }
    }

    /// Returns why nobody did it: what the last one said, with everything that was tried.
    pub(crate) fn into_error(mut self) -> Error {
        match self.last.take() {
            Some(last) => {
                let own = last.trace().len();
                let earlier = self.attempts.len().saturating_sub(own);
                self.attempts.truncate(earlier);
                last.attempts(self.attempts)
            }
            None => self.nobody(),
        }
    }

    fn nobody(&self) -> Error {
        let word = self.capability.word();
        let rules: Vec<&str> = self.repositories.list.iter().map(|it| it.host.rule.as_str()).collect();
        Error::failed_precondition(format!("there is no host that may {}", self.operation))
            .hint(format!("no host has the capability {word:?}; give it to one of those at {}", rules.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Capabilities, RegistryHost};
    use super::*;
    use crate::options::PlainHttp;

    fn repositories(fallback: Fallback) -> Repositories {
        let host = |name: &str, capabilities| {
            let rule = format!("hosts.toml:{}", name.len());
            let host = RegistryHost { capabilities, rule, ..RegistryHost::itself(name, PlainHttp::Never) };
            Repository::at(host, "b")
        };
        let pull = Capabilities::NONE.with(Capability::Pull);
        Repositories::new(
            vec![host("m.test", pull), host("mirror.test", Capabilities::ALL), host("a.test", pull)],
            fallback,
        )
    }

    fn names(repositories: &Repositories, capability: Capability) -> Vec<&str> {
        repositories.that_may(capability).iter().map(|it| it.host.name.as_str()).collect()
    }

    #[test]
    fn only_those_are_asked_that_may_and_without_fallback_only_the_first_of_them() {
        let all = repositories(Fallback::Allowed);
        assert_eq!(names(&all, Capability::Pull), ["m.test", "mirror.test", "a.test"]);
        assert_eq!(names(&all, Capability::Resolve), ["mirror.test"]);
        let first = repositories(Fallback::Never);
        assert_eq!(names(&first, Capability::Pull), ["m.test"]);
        assert_eq!(names(&first, Capability::Push), ["mirror.test"]);
    }

    #[test]
    fn a_host_that_is_not_there_is_asked_last_from_then_on_and_one_that_lacks_something_is_not() {
        let all = repositories(Fallback::Allowed);
        let mut walk = all.walk(Capability::Pull, "fetch blob x");
        assert!(walk.next().is_some_and(|first| first.others_follow));
        walk.failed(Error::unavailable("it is away"));
        assert!(walk.next().is_some());
        walk.failed(Error::not_found("it has no such blob"));
        let last = walk.next().unwrap();
        assert_eq!((last.host.name.as_str(), last.others_follow), ("a.test", false));
        walk.failed(Error::unavailable("it is away, too"));
        assert!(walk.next().is_none());
        let error = walk.into_error();
        assert_eq!(error.message(), "it is away, too");
        let tried: Vec<String> = error.trace().iter().map(ToString::to_string).collect();
        assert_eq!(
            tried,
            [
                "m.test (hosts.toml:6): fetch blob x: it is away",
                "mirror.test (hosts.toml:11): fetch blob x: it has no such blob",
                "a.test (hosts.toml:6): fetch blob x: it is away, too",
            ]
        );
        // The last one was the only one left: nothing is known against it that would change the order.
        assert_eq!(names(&all, Capability::Pull), ["mirror.test", "a.test", "m.test"]);
    }

    #[test]
    fn when_nobody_may_the_capability_is_named() {
        let error = repositories(Fallback::Allowed).walk(Capability::Push, "push b").into_error();
        // It has one: the walk was not walked.
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.hint_text().unwrap().contains("push"), "{error:?}");
    }
}
