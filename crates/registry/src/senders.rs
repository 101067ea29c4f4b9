//! Who sent what of some content, and who is not asked for it any more because that was wrong.
//!
//! A blob may come of several hosts: one that breaks off is followed by the next. When all of it is not what its digest says,
//! whoever sent it alone is known to have lied. Of several, nobody is: the blob is asked for again of one host at a time, and then
//! it is known.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_core::remote::Trouble;
use windlass_core::{Attempt, Digest, Error};

use crate::error::attempt_of;

/// Who sent what.
#[derive(Debug, Default)]
pub(crate) struct Senders(Mutex<HashMap<Digest, Account>>);

/// What is known of one blob.
#[derive(Debug, Default)]
struct Account {
    /// Who sent some of it since it was begun, the first one first.
    sent: Vec<Sender>,
    /// Who sent last; none when nobody answered since.
    last: Option<String>,
    /// Who is not asked for it any more, with what was wrong.
    passed_over: Vec<Sender>,
    /// Whether it is to come of one host.
    alone: bool,
}

/// A host, by its key, and what it answered last.
#[derive(Debug, Clone)]
struct Sender {
    host: String,
    attempt: Attempt,
}

/// What comes of trouble with a blob.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// Nobody is left, or nobody is known to have sent it; this is what was tried before what the error knows of.
    Stands(Vec<Attempt>),
    /// This host is not asked for it any more.
    PassedOver(Attempt),
    /// One of these was wrong, and they are asked one at a time.
    OneAtATime(Vec<Attempt>),
}

impl Senders {
    // A panic while the lock was held leaves who sent something, and perhaps not all of them.
    fn accounts(&self) -> MutexGuard<'_, HashMap<Digest, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that a host answers with content, or a part of it.
    pub(crate) fn learn<B>(&self, digest: &Digest, host: &str, response: &http::Response<B>) {
        let Some(attempt) = attempt_of(response) else { return };
        let sender = Sender { host: host.to_owned(), attempt: attempt.clone() };
        let mut accounts = self.accounts();
        let account = accounts.entry(digest.clone()).or_default();
        account.last = Some(sender.host.clone());
        match account.sent.iter_mut().find(|known| known.host == host) {
            Some(known) => *known = sender,
            None => account.sent.push(sender),
        }
    }

    /// Takes note that nobody answered with the content.
    pub(crate) fn nobody(&self, digest: &Digest) {
        if let Some(account) = self.accounts().get_mut(digest) {
            account.last = None;
        }
    }

    /// Returns what the host answered that sent last.
    pub(crate) fn last(&self, digest: &Digest) -> Option<Attempt> {
        let accounts = self.accounts();
        let account = accounts.get(digest)?;
        let last = account.sent.iter().find(|sender| Some(&sender.host) == account.last.as_ref());
        last.or(account.sent.last()).map(|sender| sender.attempt.clone())
    }

    /// Returns what was wrong with what others sent of it.
    pub(crate) fn passed_over(&self, digest: &Digest) -> Vec<Attempt> {
        let accounts = self.accounts();
        let passed_over = accounts.get(digest).into_iter().flat_map(|account| &account.passed_over);
        passed_over.map(|sender| sender.attempt.clone()).collect()
    }

    /// Returns a host's place in the order in which a blob is asked for; none when it is not asked for that.
    pub(crate) fn rank(&self, digest: &Digest, host: &str) -> Option<u8> {
        let accounts = self.accounts();
        let Some(account) = accounts.get(digest) else { return Some(0) };
        let has_begun = account.sent.iter().any(|sender| sender.host == host);
        account.is_asked(host).then(|| u8::from(account.alone && !has_begun))
    }

    /// Forgets who sent what since it was begun.
    pub(crate) fn forget(&self, digest: &Digest) {
        if let Some(account) = self.accounts().get_mut(digest) {
            (account.sent, account.last) = (Vec::new(), None);
        }
    }

    /// Decides what comes of trouble with a blob of which the hosts with these keys may be asked.
    pub(crate) fn rule(&self, digest: &Digest, hosts: &[String], trouble: Trouble, error: &Error) -> Ruling {
        let ruling = self.accounts().entry(digest.clone()).or_default().rule(hosts, trouble, error);
        if trouble == Trouble::Wrong {
            self.forget(digest);
        }
        ruling
    }
}

impl Account {
    fn rule(&mut self, hosts: &[String], trouble: Trouble, error: &Error) -> Ruling {
        let is_suspect = |sender: &&Sender| trouble == Trouble::Wrong || Some(&sender.host) == self.last.as_ref();
        let suspects: Vec<Sender> = self.sent.iter().filter(is_suspect).cloned().collect();
        if suspects.len() > 1 && !self.alone {
            self.alone = true;
            return Ruling::OneAtATime(suspects.into_iter().map(|sender| sender.attempt).collect());
        }
        let guilty = suspects.iter().find(|sender| self.is_asked(&sender.host));
        let left = |passed: &str| hosts.iter().any(|host| host != passed && self.is_asked(host));
        let Some(guilty) = guilty.filter(|guilty| left(&guilty.host)).cloned() else {
            // What the error knows of is told by it.
            let own = suspects.iter().filter(|it| error.trace().is_empty() && self.is_asked(&it.host));
            let own = own.map(|it| told(&it.attempt, error));
            return Ruling::Stands(self.passed_over.iter().map(|it| it.attempt.clone()).chain(own).collect());
        };
        let attempt = error.trace().last().cloned().unwrap_or_else(|| told(&guilty.attempt, error));
        self.passed_over.push(Sender { attempt: attempt.clone(), ..guilty });
        Ruling::PassedOver(attempt)
    }

    fn is_asked(&self, host: &str) -> bool {
        self.passed_over.iter().all(|passed| passed.host != host)
    }
}

/// Says of an attempt what was wrong with what came of it.
fn told(attempt: &Attempt, error: &Error) -> Attempt {
    Attempt { outcome: format!("{}, but {}", attempt.outcome, error.message()), ..attempt.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: &[u8] = b"blob";

    fn answer(host: &str) -> http::Response<()> {
        let mut response = http::Response::new(());
        response.extensions_mut().insert(Attempt::new(host, "GET blob", "200 OK"));
        response
    }

    /// Has these hosts have sent some of a blob, of three that may be asked.
    fn sent_by(senders: &Senders, hosts: &[&str]) {
        for host in hosts {
            senders.learn(&Digest::sha256(BLOB), host, &answer(host));
        }
    }

    fn rule(senders: &Senders, trouble: Trouble) -> Ruling {
        let hosts = ["a", "b", "c"].map(str::to_owned);
        senders.rule(&Digest::sha256(BLOB), &hosts, trouble, &Error::data_loss("it is another one"))
    }

    fn ranks(senders: &Senders) -> [Option<u8>; 3] {
        ["a", "b", "c"].map(|host| senders.rank(&Digest::sha256(BLOB), host))
    }

    fn wrong(host: &str) -> Attempt {
        Attempt::new(host, "GET blob", "200 OK, but it is another one")
    }

    #[test]
    fn who_lies_is_not_asked_again_and_the_last_one_is_never_passed_over() {
        let senders = Senders::default();
        sent_by(&senders, &["a"]);
        assert_eq!(rule(&senders, Trouble::Wrong), Ruling::PassedOver(wrong("a")));
        assert_eq!(ranks(&senders), [None, Some(0), Some(0)]);
        sent_by(&senders, &["c"]);
        assert_eq!(rule(&senders, Trouble::Wrong), Ruling::PassedOver(wrong("c")));
        sent_by(&senders, &["b"]);
        assert_eq!(rule(&senders, Trouble::Wrong), Ruling::Stands(vec![wrong("a"), wrong("c"), wrong("b")]));
        assert_eq!(ranks(&senders), [None, Some(0), None]);
        assert_eq!(senders.rank(&Digest::sha256(b"other"), "a"), Some(0));
    }

    #[test]
    fn of_several_nobody_is_blamed_before_each_was_asked_alone() {
        let senders = Senders::default();
        sent_by(&senders, &["a", "b"]);
        let together = ["a", "b"].map(|host| Attempt::new(host, "GET blob", "200 OK"));
        assert_eq!(rule(&senders, Trouble::Wrong), Ruling::OneAtATime(together.into()));
        assert_eq!(ranks(&senders), [Some(1); 3]);
        sent_by(&senders, &["b"]);
        assert_eq!(ranks(&senders), [Some(1), Some(0), Some(1)], "who has begun goes on");
        assert_eq!(rule(&senders, Trouble::Wrong), Ruling::PassedOver(wrong("b")));
        // However it goes on, there is an end to it.
        sent_by(&senders, &["a", "c"]);
        assert_eq!(rule(&senders, Trouble::Wrong), Ruling::PassedOver(wrong("a")));
        sent_by(&senders, &["c"]);
        assert_eq!(rule(&senders, Trouble::Wrong), Ruling::Stands(vec![wrong("b"), wrong("a"), wrong("c")]));
    }

    #[test]
    fn who_breaks_off_is_passed_over_alone_and_what_it_sent_still_counts() {
        let senders = Senders::default();
        sent_by(&senders, &["a"]);
        assert!(matches!(rule(&senders, Trouble::Broken), Ruling::PassedOver(_)));
        assert_eq!(rule(&senders, Trouble::Broken), Ruling::Stands(vec![wrong("a")]));
        sent_by(&senders, &["b"]);
        assert!(matches!(rule(&senders, Trouble::Wrong), Ruling::OneAtATime(both) if both.len() == 2));
        assert_eq!(ranks(&senders), [None, Some(1), Some(1)]);
    }

    #[test]
    fn when_nobody_answered_nobody_broke_off() {
        let senders = Senders::default();
        sent_by(&senders, &["a"]);
        senders.nobody(&Digest::sha256(BLOB));
        assert_eq!(rule(&senders, Trouble::Broken), Ruling::Stands(vec![]));
    }
}
