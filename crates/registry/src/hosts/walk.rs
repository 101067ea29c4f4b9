//! The way through the hosts of a repository: one after the other, until one does what it is asked for.

use std::sync::atomic::{AtomicBool, Ordering};

use windlass_core::{Attempt, Error, Kind};

use super::{Capability, RegistryHost, Repository};
use crate::options::Fallback;
use crate::passed_over;

/// Where a repository is served, first choice first, and what became of asking there.
#[derive(Debug)]
pub(crate) struct Repositories {
    list: Vec<Repository>,
    /// The same, for when others are left to be asked.
    followed: Vec<Repository>,
    /// Whether it is not there: others are asked first.
    away: Vec<AtomicBool>,
    fallback: Fallback,
    /// Who failed while others were left.
    failed: passed_over::List,
}

impl Repositories {
    pub(crate) fn new(list: Vec<Repository>, fallback: Fallback) -> Self {
        let away = list.iter().map(|_| AtomicBool::new(false)).collect();
        let followed = list.iter().map(|it| Repository { others_follow: true, ..it.clone() }).collect();
        Self { list, followed, away, fallback, failed: passed_over::List::default() }
    }

    /// Has those that fail noted in a list.
    pub(crate) fn noting(self, failed: passed_over::List) -> Self {
        Self { failed, ..self }
    }

    /// Returns those of them that may be asked for something, first choice first: hosts that were not there before go last.
    pub(crate) fn that_may(&self, capability: Capability) -> Vec<&Repository> {
        self.able(capability).into_iter().filter_map(|at| self.list.get(at)).collect()
    }

    fn able(&self, capability: Capability) -> Vec<usize> {
        let may = |at: &usize| self.list.get(*at).is_some_and(|it| it.host.capabilities.has(capability));
        let mut able: Vec<usize> = (0..self.list.len()).filter(may).collect();
        match self.fallback {
            Fallback::Allowed => able.sort_by_key(|at| self.is_away(*at)),
            Fallback::Never => able.truncate(1),
        }
        able
    }

    fn is_away(&self, at: usize) -> bool {
        self.away.get(at).is_some_and(|away| away.load(Ordering::Relaxed))
    }

    /// Begins to ask those who may do something; `operation` is what messages call it: `resolve tag "7"`.
    pub(crate) fn walk(&self, capability: Capability, operation: impl Into<String>) -> Walk<'_> {
        self.walk_by(capability, operation, |_| Some(0))
    }

    /// The same, of those who have a rank, the lowest first.
    pub(crate) fn walk_by(
        &self,
        capability: Capability,
        operation: impl Into<String>,
        rank: impl Fn(&RegistryHost) -> Option<u8>,
    ) -> Walk<'_> {
        let rank = |at: &usize| rank(&self.list.get(*at)?.host);
        let mut left: Vec<usize> = self.able(capability).into_iter().filter(|at| rank(at).is_some()).collect();
        left.sort_by_key(rank);
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

    /// Takes note that a host failed, and that another one is asked. That is said, once for each host and reason: whatever becomes of
    /// it, a mirror that fails is something to look at.
    pub(crate) fn passed_over(&self, attempt: &Attempt, reason: &str, what: impl FnOnce() -> String) {
        if self.failed.add(attempt, reason) {
            tracing::warn!("{} {}, and the next host is asked: {attempt}", attempt.host, what());
        } else {
            tracing::debug!(%attempt, reason, "the next host is asked");
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

    /// Takes note that who was asked last has failed. One that merely does not have something is no failure.
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
            self.report(at, host, &error);
        }
        self.attempts.extend(error.trace().iter().cloned());
        self.last = Some(error);
    }

    fn report(&self, at: usize, host: &RegistryHost, error: &Error) {
        let operation = &self.operation;
        if error.is(Kind::NotFound) {
            tracing::debug!(host = host.name, rule = host.rule, operation, %error, "the next host is asked");
            return;
        }
        if matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded)
            && let Some(away) = self.repositories.away.get(at)
        {
            away.store(true, Ordering::Relaxed);
        }
        if let Some(attempt) = error.trace().last() {
            // Who was asked in its turn may be somebody else: a token server, or where it redirects.
            let attempt = Attempt { host: host.name.clone(), rule: Some(host.rule.clone()), ..attempt.clone() };
            self.repositories.passed_over(&attempt, error.code(), || format!("fails to {operation}"));
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
