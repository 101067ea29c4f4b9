//! The verifier that is built in: rules by name, of which the first that matches decides.
//!
//! Names are compared as one host has one spelling: in lower case, without the usual port of HTTPS, and Docker Hub by one
//! name, so that no other spelling leads around a rule.

use async_trait::async_trait;
use windlass_core::{Digest, Reference, Result};

use super::cosign::{self, Key, Signed};
use super::pattern::Pattern;
use super::{Documents, Subject, Verdict, Verifier};

pub use super::rules::{Keys, MAX_POLICY};

/// Other names of Docker Hub.
const DOCKER_HUB: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// What becomes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It may be here, when it is what else the rule asks for.
    Allow,
    /// It may not.
    Deny,
}

/// Rules about images. [`Policy::parse`] reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What messages call it.
    pub(super) file: String,
    /// What becomes of what no rule is about.
    pub(super) default: Action,
    /// The hosts that images may come from; any, when nothing is said.
    pub(super) registries: Option<Vec<Pattern>>,
    pub(super) rules: Vec<Rule>,
}

/// What is said of the images of some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// The pattern, as it is written.
    pub(super) name: String,
    pub(super) pattern: Pattern,
    pub(super) action: Action,
    /// What is told of a denial.
    pub(super) reason: Option<String>,
    /// The digests of which the image has to have one.
    pub(super) digests: Option<Vec<Digest>>,
    /// The keys of which one has to have signed the image.
    pub(super) keys: Option<Vec<Key>>,
}

#[async_trait]
impl Verifier for Policy {
    async fn verify(&self, subject: &Subject<'_>, documents: &dyn Documents) -> Result<Verdict> {
        let (host, name) = one_spelling(subject.name);
        if let Some(registries) = &self.registries {
            let allowed = host.as_ref().is_some_and(|host| registries.iter().any(|pattern| pattern.matches(host)));
            if !allowed {
                let from = host.map_or_else(|| "no registry".to_owned(), |host| format!("registry {host}"));
                let reason = format!("it is from {from}, which is not among its registries");
                return Ok(Verdict::Refused { by: format!("policy {}", self.file), reason });
            }
        }
        let Some((number, rule)) = (1..).zip(&self.rules).find(|(_, rule)| rule.pattern.matches(&name)) else {
            return Ok(match self.default {
                Action::Allow => Verdict::Allowed { reason: format!("no rule of {} is about it", self.file) },
                Action::Deny => Verdict::Refused {
                    by: format!("policy {}", self.file),
                    reason: "no rule allows it, and the default is to deny".to_owned(),
                },
            });
        };
        let by = format!("rule {number} ({:?}) of policy {}", rule.name, self.file);
        match rule.decide(subject, documents).await? {
            Ok(reason) => Ok(Verdict::Allowed { reason: format!("{by} allows it{reason}") }),
            Err(reason) => Ok(Verdict::Refused { by, reason }),
        }
    }
}

impl Rule {
    /// Returns why it allows the image, or why it does not.
    async fn decide(
        &self,
        subject: &Subject<'_>,
        documents: &dyn Documents,
    ) -> Result<std::result::Result<String, String>> {
        if self.action == Action::Deny {
            return Ok(Err(self.reason.clone().unwrap_or_else(|| "it denies every image of such a name".to_owned())));
        }
        if let Some(digests) = &self.digests
            && !digests.contains(&subject.descriptor.digest)
        {
            return Ok(Err("its digest is none of those that are required".to_owned()));
        }
        let Some(keys) = &self.keys else { return Ok(Ok(String::new())) };
        Ok(match cosign::verify(keys, subject, documents).await? {
            Signed::By(key) => Ok(format!(", signed by {key}")),
            Signed::Not(reason) => Err(reason),
        })
    }
}

/// Returns the host of a name, if it has one, and the name with the one spelling of that.
fn one_spelling(name: &str) -> (Option<String>, String) {
    let host = name.parse::<Reference>().ok().and_then(|reference| reference.host().map(str::to_owned));
    let Some(host) = host else { return (None, name.to_owned()) };
    let lower = host.to_ascii_lowercase();
    let lower = lower.strip_suffix(":443").unwrap_or(&lower);
    let one = if DOCKER_HUB.contains(&lower) { "docker.io" } else { lower };
    let rest = name.get(host.len()..).unwrap_or_default();
    (Some(one.to_owned()), format!("{one}{rest}"))
}

#[cfg(test)]
mod tests {
    use windlass_core::{Descriptor, Error, Kind, MediaType};

    use super::*;

    struct Nothing;

    #[async_trait]
    impl Documents for Nothing {
        async fn tagged(&self, _: &str) -> Result<Option<Descriptor>> {
            Ok(None)
        }

        async fn read(&self, descriptor: &Descriptor, _: u64) -> Result<bytes::Bytes> {
            Err(Error::not_found(descriptor.digest.to_string()))
        }
    }

    fn parse(text: &str) -> Result<Policy> {
        Policy::parse(text, "policy.toml", &|name| Err(Error::not_found(format!("there is no {name}"))))
    }

    async fn verdict(policy: &str, name: &str) -> Verdict {
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, b"manifest");
        let subject = Subject { name, descriptor: &descriptor };
        parse(policy).unwrap().verify(&subject, &Nothing).await.unwrap()
    }

    async fn refusal(policy: &str, name: &str) -> String {
        match verdict(policy, name).await {
            Verdict::Refused { by, reason } => format!("{by}: {reason}"),
            Verdict::Allowed { reason } => panic!("{name} is allowed: {reason}"),
        }
    }

    #[tokio::test]
    async fn the_first_rule_that_matches_decides() {
        let policy = r#"
            default = "deny"
            [[rule]]
            name = "registry.test/old/**"
            action = "deny"
            reason = "nobody looks after these any more"
            [[rule]]
            name = "registry.test/**"
            action = "allow"
        "#;
        assert!(matches!(verdict(policy, "registry.test/app:1").await, Verdict::Allowed { .. }));
        let refused = refusal(policy, "registry.test/old/app:1").await;
        assert_eq!(
            refused,
            r#"rule 1 ("registry.test/old/**") of policy policy.toml: nobody looks after these any more"#
        );
        assert!(refusal(policy, "other.test/app:1").await.contains("no rule allows it"));
    }

    #[tokio::test]
    async fn no_other_spelling_of_a_host_leads_around_a_rule() {
        let policy = r#"
            default = "allow"
            [[rule]]
            name = "registry.test/**"
            action = "deny"
            [[rule]]
            name = "docker.io/**"
            action = "deny"
        "#;
        for name in [
            "registry.test/app:1",
            "REGISTRY.test/app:1",
            "registry.test:443/app:1",
            "index.docker.io/library/redis:7",
            "registry-1.docker.io/library/redis:7",
        ] {
            refusal(policy, name).await;
        }
        assert!(matches!(verdict(policy, "registry.test:5000/app:1").await, Verdict::Allowed { .. }));
    }

    #[tokio::test]
    async fn only_those_registries_are_allowed() {
        let policy = "default = \"allow\"\nregistries = [\"docker.io\", \"*.corp.test:5000\"]\n";
        for name in ["docker.io/library/redis:7", "Docker.io/a/b:1", "one.corp.test:5000/x:1"] {
            assert!(matches!(verdict(policy, name).await, Verdict::Allowed { .. }), "{name}");
        }
        for name in ["quay.io/x/y:1", "one.corp.test/x:1", "oci:/var/layout:1"] {
            assert!(refusal(policy, name).await.contains("not among its registries"), "{name}");
        }
    }

    #[tokio::test]
    async fn another_digest_than_the_required_one_is_refused() {
        let rule = |digest: &Digest| {
            format!("default = \"deny\"\n[[rule]]\nname = \"**\"\naction = \"allow\"\ndigests = [\"{digest}\"]\n")
        };
        let right = rule(&Digest::sha256(b"manifest"));
        assert!(matches!(verdict(&right, "registry.test/app:1").await, Verdict::Allowed { .. }));
        let wrong = rule(&Digest::sha256(b"another"));
        assert!(refusal(&wrong, "registry.test/app:1").await.contains("its digest is none of those"));
    }

    #[test]
    fn what_is_wrong_in_a_policy_is_named_with_its_line() {
        for (text, complaint) in [
            ("", "policy.toml: there is no default"),
            ("default = \"maybe\"", "policy.toml:1: default is \"maybe\""),
            ("default = \"deny\"\nrules = []", "policy.toml:2: nobody knows the key rules"),
            (
                "default = \"deny\"\n[[rule]]\nname = \"x\"\naction = \"allow\"\nsigned = 1",
                "policy.toml:5: nobody knows the key rule.signed",
            ),
            ("default = \"deny\"\n\n[[rule]]\naction = \"allow\"", "policy.toml:3: rule has no name"),
            ("default = \"deny\"\n\n[[rule]]\nname = \"x\"", "policy.toml:3: rule has no action"),
            ("default = \"deny\"\nregistries = []", "policy.toml:2: registries is empty"),
            ("default = \"deny\"\nregistries = \"x\"", "policy.toml:2: registries is to be a list"),
            ("default = \"deny\"\n[[rule]]\nname = \"\"\naction = \"deny\"", "policy.toml:3: rule.name is empty"),
            (
                "default = \"deny\"\n[[rule]]\nname = \"x\"\naction = \"deny\"\ndigests = [\"x\"]",
                "policy.toml:5: rule.digests belongs to a rule that denies",
            ),
            (
                "default = \"deny\"\n[[rule]]\nname = \"x\"\naction = \"allow\"\nsigned_by = []",
                "policy.toml:5: rule.signed_by is empty",
            ),
            (
                "default = \"deny\"\n[[rule]]\nname = \"x\"\naction = \"allow\"\ndigests = [\n\"sha256:1\"]",
                "policy.toml:6: rule.digests has a wrong digest",
            ),
            ("default = ", "policy.toml:1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{text}");
            assert!(error.to_string().starts_with(complaint), "{text}: {error}");
        }
        let key = parse("default = \"deny\"\n[[rule]]\nname = \"x\"\naction = \"allow\"\nsigned_by = [\"a.pub\"]");
        assert_eq!(key.unwrap_err().kind(), Kind::NotFound);
    }
}
