//! Whether an image may be here: asked before anything of it is stored.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use windlass_core::gc::Deletion;
use windlass_core::progress::Tracker;
use windlass_core::{ByteStream, Descriptor, Error, Kind, Namespace, Reference, Result};
use windlass_testkit::image::{Bundle, Signature, Signer, payload, signatures};
use windlass_testkit::memory::Fault;
use windlass_transfer::verify::cosign;
use windlass_transfer::verify::policy::Policy;
use windlass_transfer::verify::{self, All, Documents, HereOrInRepository, Subject, Verdict};
use windlass_transfer::{Import, Imported, Naming, Pull, Push, Verifier};

use crate::site::{Held, Site, three_layers};

/// Says the same of every image, and remembers what it was asked.
#[derive(Debug)]
struct Same {
    verdict: Result<Verdict, Kind>,
    asked: Mutex<Vec<(String, Descriptor)>>,
}

impl Same {
    fn new(verdict: Result<Verdict, Kind>) -> Arc<Self> {
        Arc::new(Self { verdict, asked: Mutex::default() })
    }

    fn allows() -> Arc<Self> {
        Self::new(Ok(Verdict::Allowed { reason: "it is a test".to_owned() }))
    }

    fn refuses() -> Arc<Self> {
        Self::new(Ok(Verdict::Refused { by: "a test".to_owned(), reason: "it is Sunday".to_owned() }))
    }
}

#[async_trait]
impl Verifier for Same {
    async fn verify(&self, subject: &Subject<'_>, _: &dyn Documents) -> Result<Verdict> {
        self.asked.lock().unwrap().push((subject.name.to_owned(), subject.descriptor.clone()));
        self.verdict.clone().map_err(|kind| Error::new(kind, "it cannot be told"))
    }
}

fn options(verifier: Arc<dyn Verifier>) -> Pull {
    Pull { verifier: Some(verifier), ..Pull::default() }
}

/// Pulls an image that is refused: nothing may be left of it.
async fn refusal(site: &Site, verifier: Arc<dyn Verifier>) -> Error {
    let error = site.pull_with(&options(verifier)).await.unwrap_err();
    assert_eq!(site.holds().await, Held::default());
    error
}

#[tokio::test]
async fn a_verifier_is_asked_for_the_name_and_the_descriptor_before_anything_is_fetched() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let allows = Same::allows();
    site.pull_with(&options(allows.clone())).await.unwrap();
    let asked = std::mem::take(&mut *allows.asked.lock().unwrap());
    assert_eq!(asked, [("registry.test/app:1".to_owned(), bundle.root.clone())]);

    let refused = Site::serving(&bundle);
    let error = refusal(&refused, Same::refuses()).await;
    assert_eq!(error.kind(), Kind::PermissionDenied);
    let expected = format!(
        "pull registry.test/app:1: registry.test/app:1 ({}) is refused by a test: it is Sunday",
        bundle.root.digest
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(refused.remote.fetch_count(), 0);
}

#[tokio::test]
async fn a_verifier_that_cannot_tell_allows_nothing() {
    let site = Site::serving(&three_layers().build());
    let error = refusal(&site, Same::new(Err(Kind::DeadlineExceeded))).await;
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
}

#[tokio::test]
async fn a_plan_of_what_is_refused_is_refused() {
    let site = Site::serving(&three_layers().build());
    let error = site.plan(&options(Same::refuses())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn of_several_verifiers_each_has_to_allow() {
    let site = Site::serving(&three_layers().build());
    let (allows, refuses, never) = (Same::allows(), Same::refuses(), Same::allows());
    let all = All(vec![allows.clone(), refuses.clone(), never.clone()]);
    refusal(&site, Arc::new(all)).await;
    let count = |one: &Same| one.asked.lock().unwrap().len();
    assert_eq!((count(&allows), count(&refuses), count(&never)), (1, 1, 0));
}

/// A policy that wants a signature of one of the keys, `a.pub` the first.
fn policy(keys: &[&Signer]) -> Arc<Policy> {
    let named = |name: &str| {
        let at = "abc".find(name.trim_end_matches(".pub")).unwrap();
        Ok(keys[at].public_key().into_bytes())
    };
    let names: Vec<String> = keys.iter().zip('a'..).map(|(_, name)| format!("\"{name}.pub\"")).collect();
    let text = format!(
        "default = \"deny\"\n[[rule]]\nname = \"registry.test/**\"\naction = \"allow\"\nsigned_by = [{}]\n",
        names.join(", ")
    );
    Arc::new(Policy::parse(&text, "policy.toml", &named).unwrap())
}

/// Serves an image, and signatures of it.
fn signed(bundle: &Bundle, all: &[Signature]) -> Site {
    let site = Site::serving(bundle);
    let tag = cosign::tag(&bundle.root.digest);
    site.remote.serve(&site.reference.with_tag(&tag).unwrap(), &signatures(all));
    site
}

#[tokio::test]
async fn an_image_that_is_signed_is_pulled_and_its_signature_leaves_nothing_behind() {
    let (signer, other) = (Signer::new(), Signer::new());
    let bundle = three_layers().build();
    // The second key, and the second signature, will do.
    let site = signed(&bundle, &[Signer::new().sign(&bundle.root.digest), signer.sign(&bundle.root.digest)]);
    site.pull_with(&options(policy(&[&other, &signer]))).await.unwrap();
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 });
}

#[tokio::test]
async fn each_way_in_which_a_signature_is_wrong_is_told() {
    let signer = Signer::new();
    let bundle = three_layers().build();
    let digest = &bundle.root.digest;
    let right = signer.sign(digest);
    let changed: Bytes = String::from_utf8(right.payload.to_vec()).unwrap().replace("\"\"", "\"x\"").into();
    let cases = [
        (vec![], "it has no signature: the list at sha256-"),
        (vec![Signer::new().sign(digest)], "was not made by a.pub: another key made it"),
        (vec![Signature { payload: changed, ..right.clone() }], "or its payload was changed since"),
        (vec![signer.sign(&bundle.image().config.digest)], "is right, and of another image: \"sha256:"),
        (vec![signer.sign_payload("{}")], "its payload is none that says what is signed"),
        (vec![Signature { signature: "!".to_owned(), ..right.clone() }], "is not base64"),
        (vec![Signature { payload: payload(digest), signature: "AAAA".to_owned() }], "was not made by a.pub"),
    ];
    for (all, expected) in cases {
        let site = signed(&bundle, &all);
        let error = refusal(&site, policy(&[&signer])).await;
        assert_eq!(error.kind(), Kind::PermissionDenied, "{expected}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("rule 1 (\"registry.test/**\") of policy policy.toml"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_signature_and_a_payload_of_other_bytes_are_told_apart() {
    let signer = Signer::new();
    let bundle = three_layers().build();
    let unsigned = Site::serving(&bundle);
    let error = refusal(&unsigned, policy(&[&signer])).await;
    assert!(error.to_string().contains("it has no signature: there is no tag sha256-"), "{error}");

    let signature = signer.sign(&bundle.root.digest);
    let site = signed(&bundle, std::slice::from_ref(&signature));
    let payload = windlass_core::Digest::sha256(&signature.payload);
    site.remote.script(&payload, [Fault::Corrupt(10)]);
    let error = refusal(&site, policy(&[&signer])).await;
    assert!(error.to_string().contains("its payload was changed: "), "{error}");
}

#[tokio::test]
async fn that_nobody_knows_whether_there_is_a_signature_is_an_error_that_passes() {
    let signer = Signer::new();
    let bundle = three_layers().build();
    let site = signed(&bundle, &[signer.sign(&bundle.root.digest)]);
    site.remote.script_resolve([Fault::None, Fault::Fail(Kind::Unavailable)]);
    let error = refusal(&site, policy(&[&signer])).await;
    assert_eq!(error.kind(), Kind::Unavailable);
    site.pull_with(&options(policy(&[&signer]))).await.unwrap();
}

/// Makes an OCI layout of images under tags, as an archive.
fn archive(tagged: &[(&str, &Bundle)]) -> ByteStream {
    let directory = tempfile::tempdir().unwrap();
    for (tag, bundle) in tagged {
        bundle.write_layout(directory.path(), tag).unwrap();
    }
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", directory.path()).unwrap();
    let bytes = tar.into_inner().unwrap();
    futures::stream::iter([Ok(Bytes::from(bytes))]).boxed()
}

async fn import(site: &Site, archive: ByteStream, verifier: Arc<dyn Verifier>) -> Result<Imported> {
    let options = Import { verifier: Some(verifier), ..Import::new(Naming::new("registry.test/app")) };
    windlass_transfer::import(&site.host, &Namespace::default(), archive, &options, &Tracker::new()).await
}

#[tokio::test]
async fn an_archive_is_verified_under_every_name_before_it_is_unpacked() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let tagged = [("1", &bundle), ("stable", &bundle)];
    let error = import(&site, archive(&tagged), Same::refuses()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert_eq!(site.holds().await, Held::default());
    assert_eq!(site.applier.calls(), 0);

    let allows = Same::allows();
    import(&site, archive(&tagged), allows.clone()).await.unwrap();
    let asked = allows.asked.lock().unwrap().clone();
    let names: Vec<&str> = asked.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["registry.test/app:1", "registry.test/app:stable"]);
    assert!(asked.iter().all(|(_, descriptor)| descriptor.digest == bundle.root.digest));
}

#[tokio::test]
async fn an_archive_brings_its_signature_along_or_finds_it_here() {
    let signer = Signer::new();
    let bundle = three_layers().build();
    let signature = signatures(&[signer.sign(&bundle.root.digest)]);
    let tag = cosign::tag(&bundle.root.digest);

    let without = Site::serving(&bundle);
    let error = import(&without, archive(&[("1", &bundle)]), policy(&[&signer])).await.unwrap_err();
    assert!(error.to_string().contains("it has no signature"), "{error}");
    assert_eq!(without.holds().await, Held::default());

    // Signatures themselves are not signed: a policy has a rule for them.
    let text = "default = \"deny\"\n[[rule]]\nname = \"**:sha256-*.sig\"\naction = \"allow\"\n\
        [[rule]]\nname = \"registry.test/**\"\naction = \"allow\"\nsigned_by = [\"a.pub\"]\n";
    let pem = signer.public_key();
    let with_rule = Arc::new(Policy::parse(text, "policy.toml", &|_| Ok(pem.clone().into_bytes())).unwrap());
    let along = Site::serving(&bundle);
    let both = archive(&[("1", &bundle), (&tag, &signature)]);
    let imported = import(&along, both, with_rule.clone()).await.unwrap();
    assert_eq!(imported.images.len(), 2);

    // The signature is here by now, under its name.
    along.services().await.images.delete(&"registry.test/app:1".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    import(&along, archive(&[("1", &bundle)]), with_rule).await.unwrap();
}

#[tokio::test]
async fn of_what_is_recorded_by_hand_signatures_are_looked_for_here_and_then_in_the_repository() {
    let signer = Signer::new();
    let bundle = three_layers().build();
    let signature = signatures(&[signer.sign(&bundle.root.digest)]);
    let tag = cosign::tag(&bundle.root.digest);
    let (site, policy) = (signed(&bundle, &[Signer::new().sign(&bundle.root.digest)]), policy(&[&signer]));
    let services = site.services().await;
    let verify = async |name: &str| {
        let (images, content, resolver) = (&*services.images, &*services.content, &site.remote);
        let documents = HereOrInRepository { name, images, content, resolver };
        let subject = Subject { name, descriptor: &bundle.root };
        verify::check(Some(&(policy.clone() as Arc<dyn Verifier>)), &subject, &documents).await
    };
    // There the signature is another's.
    let error = verify("registry.test/app:1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("was not made by a.pub"), "{error}");
    // What is here is asked first, and nobody else then.
    import(&site, archive(&[(&tag, &signature)]), Same::allows()).await.unwrap();
    site.remote.script_resolve([Fault::Fail(Kind::Unavailable)]);
    verify("registry.test/app:1").await.unwrap();
    services.images.delete(&format!("registry.test/app:{tag}").parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(verify("registry.test/app:1").await.unwrap_err().kind(), Kind::Unavailable);
    site.remote.serve(&site.reference.with_tag(&tag).unwrap(), &signature);
    verify("registry.test/app:1").await.unwrap();
    // A name that is no registry's leads nowhere.
    let error = verify("oci:/elsewhere:1").await.unwrap_err();
    assert!(error.to_string().contains("no rule allows it"), "{error}");
}

#[tokio::test]
async fn what_is_refused_is_not_copied_through() {
    let site = Site::serving(&three_layers().build());
    let to: Reference = "other.test/app:1".parse().unwrap();
    let copy = async |verifier: Arc<Same>| {
        let options = Push { verifier: Some(verifier), ..Push::default() };
        windlass_transfer::copy(&site.remote, &site.reference, &to, &options, &Tracker::new()).await
    };
    let error = copy(Same::refuses()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert_eq!(site.remote.target("other.test/app:1"), None);
    let allows = Same::allows();
    copy(allows.clone()).await.unwrap();
    assert_eq!(allows.asked.lock().unwrap()[0].0, "registry.test/app:1", "it is where it comes from that counts");
    assert!(site.remote.target("other.test/app:1").is_some());
}
