//! The tag that lists what refers to a subject, for registries that keep no such list: OCI distribution-spec, "Referrers Tag
//! Schema".
//!
//! The list is read, added to and written, and no registry does that in one step. So it is read again afterwards: whoever
//! finds that another one has written over its entry begins again. What is known of the other entries stays as it is.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_core::document::MAX_MANIFEST_SIZE;
use windlass_core::{Descriptor, Digest, Error, Kind, MediaType, Result, ResultExt as _};

use super::Shared;
use crate::body;
use crate::referrers::fallback_tag;
use crate::resolver::accept;

/// How often a list is written that others write too, and how long to wait in between, times the number of the try.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// A manifest and what it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// What it refers to.
    digest: Digest,
    /// The manifest, as it is listed.
    referrer: Descriptor,
}

impl Subject {
    /// Reads of a manifest or an index what it refers to, if anything.
    pub(super) fn of(descriptor: &Descriptor, bytes: &[u8]) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Referrer {
            #[serde(default)]
            subject: Option<Descriptor>,
            #[serde(default)]
            artifact_type: Option<String>,
            #[serde(default)]
            config: Option<Descriptor>,
            #[serde(default)]
            annotations: Option<std::collections::BTreeMap<String, String>>,
        }
        let referrer: Referrer = serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid_argument(format!("manifest {} is malformed", descriptor.digest)).source(e))?;
        let Some(subject) = referrer.subject else { return Ok(None) };
        let Descriptor { media_type, digest, size, .. } = descriptor.clone();
        let config = referrer.config.map(|config| config.media_type.to_string());
        let artifact_type = referrer.artifact_type.filter(|it| !it.is_empty()).or(config);
        let annotations = referrer.annotations.unwrap_or_default();
        let referrer = Descriptor { artifact_type, annotations, ..Descriptor::new(media_type, digest, size) };
        Ok(Some(Self { digest: subject.digest, referrer }))
    }

    /// Returns the tag of the list.
    fn tag(&self) -> String {
        fallback_tag(&self.digest)
    }

    fn is_in(&self, list: &Value) -> bool {
        entries(list).iter().any(|entry| self.is(entry))
    }

    fn is(&self, entry: &Value) -> bool {
        entry.get("digest").and_then(Value::as_str) == Some(&self.referrer.digest.to_string())
    }

    /// Takes the manifest out of a list.
    fn take_from(&self, list: &mut Value) {
        if let Some(Value::Array(manifests)) = list.get_mut("manifests") {
            manifests.retain(|entry| !self.is(entry));
        }
    }

    /// Adds the manifest to a list.
    fn add_to(&self, list: &mut Value) -> Result<()> {
        let entry = serde_json::to_value(&self.referrer)
            .map_err(|e| Error::internal("a descriptor cannot be written").source(e))?;
        match list.get_mut("manifests") {
            Some(Value::Array(manifests)) => manifests.push(entry),
            _ => *list = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry] }),
        }
        Ok(())
    }
}

/// What is under the tag of a list.
pub(super) struct List {
    document: Value,
    pub(super) digest: Digest,
}

fn entries(list: &Value) -> &[Value] {
    list.get("manifests").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Shared {
    /// Lists a manifest under the tag of its subject.
    pub(super) async fn list(&self, subject: &Subject) -> Result<()> {
        let _one_at_a_time = self.lists.lock().await;
        let tag = subject.tag();
        let listed = async {
            for attempt in 1..=TRIES {
                let mut list = self.entries(&tag).await?;
                if subject.is_in(&list) {
                    return Ok(());
                }
                if attempt > 1 {
                    tokio::time::sleep(PAUSE * attempt).await;
                    list = self.entries(&tag).await?;
                }
                subject.add_to(&mut list)?;
                let bytes = Bytes::from(list.to_string());
                if bytes.len() as u64 > MAX_MANIFEST_SIZE {
                    return Err(
                        Error::resource_exhausted("the list is full").hint("delete referrers that are not needed")
                    );
                }
                self.put_manifest(&tag, &Descriptor::of(MediaType::OCI_INDEX, &bytes), bytes).await?;
                if subject.is_in(&self.entries(&tag).await?) {
                    return Ok(());
                }
            }
            Err(Error::aborted("others write it all the time").hint("push it again when they are done"))
        };
        listed.await.context(|| format!("add {} to the referrers in tag {tag:?}", subject.referrer.digest))
    }

    /// Lists a manifest no longer under the tag of its subject; a list that has nothing else goes.
    pub(super) async fn unlist(&self, subject: &Subject) -> Result<()> {
        let _one_at_a_time = self.lists.lock().await;
        let tag = subject.tag();
        let unlisted = async {
            for attempt in 1..=TRIES {
                if attempt > 1 {
                    tokio::time::sleep(PAUSE * attempt).await;
                }
                let mut list = match self.read_list(&tag).await {
                    Ok(Some(list)) if subject.is_in(&list.document) => list.document,
                    Ok(_) => return Ok(()),
                    // Who uses the tag for something else lists nothing there.
                    Err(error) if error.is(Kind::FailedPrecondition) => return Ok(()),
                    Err(error) => return Err(error),
                };
                subject.take_from(&mut list);
                if entries(&list).is_empty() {
                    self.delete_list(&tag).await?;
                } else {
                    let bytes = Bytes::from(list.to_string());
                    self.put_manifest(&tag, &Descriptor::of(MediaType::OCI_INDEX, &bytes), bytes).await?;
                }
                if !subject.is_in(&self.entries(&tag).await?) {
                    return Ok(());
                }
            }
            Err(Error::aborted("others write it all the time").hint("take the entry out when they are done"))
        };
        unlisted.await.context(|| format!("take {} out of the referrers in tag {tag:?}", subject.referrer.digest))
    }

    /// Reads a list; one that is not there is empty.
    async fn entries(&self, tag: &str) -> Result<Value> {
        let empty = || json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [] });
        Ok(self.read_list(tag).await?.map_or_else(empty, |list| list.document))
    }

    /// Reads the list under a tag; none when it is not there.
    ///
    /// # Errors
    /// `FailedPrecondition` for a tag that is something else.
    pub(super) async fn read_list(&self, tag: &str) -> Result<Option<List>> {
        let part = format!("manifests/{tag}");
        let headers = accept(Some(&MediaType::OCI_INDEX.into()))?;
        let answer = self.client.send(self.ask(Method::GET, &part).headers(headers)).await?;
        let what = format!("tag {tag:?}");
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refused(&what, answer).await),
        }
        let idle = self.client.exchange.timeouts.idle;
        let bytes = body::read(answer.response, &answer.host, &what, MAX_MANIFEST_SIZE, idle).await?;
        let list: Option<Value> = serde_json::from_slice(&bytes).ok();
        let list = list.filter(|list| list.get("manifests").is_some_and(Value::is_array));
        let list = list.map(|document| Some(List { document, digest: Digest::sha256(&bytes) }));
        list.ok_or_else(|| {
            Error::failed_precondition(format!("tag {tag:?} is not an index, which a list of referrers is"))
                .hint("somebody uses the tag for something else; delete it there, or push to another repository")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referrer(json: &Value) -> Option<Subject> {
        let bytes = json.to_string();
        Subject::of(&Descriptor::of(MediaType::OCI_MANIFEST, bytes.as_bytes()), bytes.as_bytes()).unwrap()
    }

    #[test]
    fn a_manifest_is_listed_with_its_type_and_annotations() {
        let of = Descriptor::of(MediaType::OCI_MANIFEST, b"subject");
        let config = Descriptor::of("application/x-config", b"{}");
        let subject = referrer(&json!({"config": config, "subject": of, "annotations": {"a": "b"}})).unwrap();
        assert_eq!(subject.tag(), format!("sha256-{}", of.digest.hex()));
        assert_eq!(subject.referrer.artifact_type.as_deref(), Some("application/x-config"));
        assert_eq!(subject.referrer.annotations["a"], "b");
        let typed = referrer(&json!({"artifactType": "text/sbom", "config": config, "subject": of})).unwrap();
        assert_eq!(typed.referrer.artifact_type.as_deref(), Some("text/sbom"));
        assert_eq!(referrer(&json!({"config": config})), None);
    }

    #[test]
    fn what_is_listed_already_stays_as_it_is() {
        let of = Descriptor::of(MediaType::OCI_MANIFEST, b"subject");
        let subject = referrer(&json!({"subject": of, "artifactType": "x"})).unwrap();
        let other = json!({"digest": "sha256:y", "unknown": 7});
        let mut list = json!({"schemaVersion": 2, "annotations": {"k": "v"}, "manifests": [other]});
        assert!(!subject.is_in(&list));
        subject.add_to(&mut list).unwrap();
        assert!(subject.is_in(&list));
        assert_eq!((&list["manifests"][0], &list["annotations"]["k"]), (&other, &json!("v")));
        subject.take_from(&mut list);
        assert_eq!((&list["manifests"], &list["annotations"]["k"]), (&json!([other]), &json!("v")));
    }

    #[test]
    fn a_long_digest_is_cut_in_the_tag() {
        let digest: Digest = format!("sha512:{}", "a".repeat(128)).parse().unwrap();
        let of = Descriptor::new(MediaType::OCI_MANIFEST, digest, 1);
        let subject = referrer(&json!({"subject": of})).unwrap();
        assert_eq!(subject.tag(), format!("sha512-{}", "a".repeat(64)));
    }
}
