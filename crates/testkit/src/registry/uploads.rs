//! The fake's uploads, and what is pushed and deleted: OCI distribution-spec, "Pushing" and "Content Management".

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_core::Digest;

use super::fake::{Recorded, State};
use super::serve::Reply;

/// An upload under way.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) repository: String,
    pub(super) bytes: Vec<u8>,
}

/// How the fake takes what it is given.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they have nothing to do with each other")]
pub struct Taking {
    /// The largest body that it takes, as a proxy in front may limit it; any by default.
    pub largest: Option<usize>,
    /// The least that it asks of a chunk which is not the last.
    pub chunk_min_length: Option<usize>,
    /// Whether it lists what refers to a subject by itself, and says so.
    pub lists_referrers: bool,
    /// Whether a tag can be deleted alone.
    pub deletes_tags: bool,
    /// Whether it refuses to mount.
    pub never_mounts: bool,
    /// Whether it loses what it is given, and says that it has it.
    pub loses: bool,
}

/// Returns a parameter of the query.
fn parameter<'a>(request: &'a Recorded, name: &str) -> Option<&'a str> {
    request.query.as_deref()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Returns which repository a request wants to mount from.
pub(super) fn mounts_from(request: &Recorded) -> Option<&str> {
    parameter(request, "from").filter(|_| request.method == "POST")
}

impl State {
    /// Answers a request for an upload: what follows `uploads/` is its id.
    pub(super) fn upload(&mut self, request: &Recorded, name: &str, id: &str) -> Reply {
        match request.method.as_str() {
            "POST" => return self.begin(request, name),
            _ if self.uploads.get(id).is_none_or(|upload| upload.repository != name) => {
                return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
            }
            "DELETE" => {
                self.uploads.remove(id);
                return Reply::new(204, "");
            }
            _ => {}
        }
        if self.taking.largest.is_some_and(|largest| request.body.len() > largest) {
            return Reply::new(413, "<html>too large</html>").with("content-type", "text/html");
        }
        match request.method.as_str() {
            "PATCH" => self.append(request, name, id),
            "PUT" => self.finish(request, name, id),
            _ => self.stands(204, name, id),
        }
    }

    fn begin(&mut self, request: &Recorded, name: &str) -> Reply {
        if let (Some(digest), Some(from)) = (parameter(request, "mount"), mounts_from(request))
            && let Some(blob) = self.repositories.get(from).and_then(|from| from.blobs.get(digest)).cloned()
            && !self.taking.never_mounts
        {
            self.repositories.entry(name.to_owned()).or_default().blobs.insert(digest.to_owned(), blob);
            return created(&format!("/v2/{name}/blobs/{digest}"), digest);
        }
        self.begun += 1;
        let id = format!("upload-{}", self.begun);
        self.uploads.insert(id.clone(), Upload { repository: name.to_owned(), bytes: Vec::new() });
        let mut reply = self.stands(202, name, &id);
        if let Some(length) = self.taking.chunk_min_length {
            reply.set("oci-chunk-min-length", &length.to_string());
        }
        reply
    }

    /// Says where an upload stands, as distribution does: with `0-0` for nothing, too.
    fn stands(&self, status: u16, name: &str, id: &str) -> Reply {
        let length = self.uploads.get(id).map_or(0, |upload| upload.bytes.len());
        Reply::new(status, "")
            .with("location", &format!("/v2/{name}/blobs/uploads/{id}?_state=of-{id}"))
            .with("range", &format!("0-{}", length.saturating_sub(1)))
            .with("docker-upload-uuid", id)
    }

    fn append(&mut self, request: &Recorded, name: &str, id: &str) -> Reply {
        let upload = self.uploads.entry(id.to_owned()).or_default();
        let begin = request.header("content-range").and_then(|range| range.split_once('-')?.0.parse::<usize>().ok());
        if begin.is_some_and(|begin| begin != upload.bytes.len()) {
            let mut reply = self.stands(416, name, id);
            reply.bytes = Reply::error(416, "BLOB_UPLOAD_INVALID", "out of order").bytes;
            return reply;
        }
        upload.bytes.extend_from_slice(&request.body);
        self.stands(202, name, id)
    }

    fn finish(&mut self, request: &Recorded, name: &str, id: &str) -> Reply {
        let upload = self.uploads.entry(id.to_owned()).or_default();
        upload.bytes.extend_from_slice(&request.body);
        let digest = parameter(request, "digest").unwrap_or_default().replace("%3A", ":");
        let Ok(expected) = digest.parse::<Digest>() else {
            return Reply::error(400, "DIGEST_INVALID", "provided digest is malformed");
        };
        if expected.algorithm().digest(&upload.bytes) != expected {
            self.uploads.remove(id);
            return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let bytes = Bytes::from(std::mem::take(&mut upload.bytes));
        self.uploads.remove(id);
        if !self.taking.loses {
            self.repositories.entry(name.to_owned()).or_default().blobs.insert(digest.clone(), bytes);
        }
        created(&format!("/v2/{name}/blobs/{digest}"), &digest)
    }

    /// Takes a manifest whose parts are there.
    pub(super) fn put_manifest(&mut self, request: &Recorded, name: &str, object: &str) -> Reply {
        let Ok(document) = serde_json::from_slice::<Value>(&request.body) else {
            return Reply::error(400, "MANIFEST_INVALID", "manifest invalid");
        };
        let by_digest = object.parse::<Digest>().ok();
        let digest = by_digest.as_ref().map_or_else(|| Digest::sha256(&request.body), Clone::clone);
        if digest.algorithm().digest(&request.body) != digest {
            return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let refers = |list: &str| document.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |entry: &Value| entry.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
        let blobs = refers("layers").into_iter().chain(document.get("config").cloned());
        let lacks = blobs.map(|blob| text(&blob)).find(|blob| !repository.blobs.contains_key(blob));
        let manifests = refers("manifests").into_iter().map(|manifest| text(&manifest));
        let lacks = lacks.or_else(|| manifests.into_iter().find(|it| !repository.manifests.contains_key(it)));
        if let Some(lacks) = lacks.filter(|_| !self.taking.loses) {
            return Reply::error(400, "MANIFEST_BLOB_UNKNOWN", &format!("blob unknown to registry: {lacks}"));
        }
        let media_type = request.header("content-type").unwrap_or_default().to_owned();
        if !self.taking.loses {
            repository.manifests.insert(digest.to_string(), (media_type, request.body.clone()));
            if by_digest.is_none() {
                repository.tags.insert(object.to_owned(), digest.clone());
            }
        }
        let reply = created(&format!("/v2/{name}/manifests/{digest}"), &digest.to_string());
        match document.get("subject") {
            Some(subject) if self.taking.lists_referrers => reply.with("oci-subject", &text(subject)),
            _ => reply,
        }
    }

    /// Deletes a manifest with all of its tags, or a tag.
    pub(super) fn delete_manifest(&mut self, name: &str, object: &str) -> Reply {
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let gone = if object.parse::<Digest>().is_ok() {
            repository.tags.retain(|_, digest| digest.to_string() != object);
            repository.manifests.remove(object).is_some()
        } else if self.taking.deletes_tags {
            repository.tags.remove(object).is_some()
        } else {
            return Reply::error(405, "UNSUPPORTED", "The operation is unsupported.");
        };
        if gone { Reply::new(202, "") } else { Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown") }
    }

    /// Lists tags, page by page where that is asked for.
    pub(super) fn tags(&self, request: &Recorded, name: &str) -> Reply {
        let all = self.repositories.get(name).map(|repository| &repository.tags);
        let last = parameter(request, "last").unwrap_or_default();
        let most = parameter(request, "n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let mut tags: Vec<&String> =
            all.into_iter().flatten().map(|(tag, _)| tag).filter(|tag| tag.as_str() > last).collect();
        let more = tags.len() > most;
        tags.truncate(most);
        let reply = Reply::new(200, json!({ "name": name, "tags": tags }).to_string());
        match tags.last().filter(|_| more) {
            Some(last) => reply.with("link", &format!("</v2/{name}/tags/list?n={most}&last={last}>; rel=\"next\"")),
            None => reply,
        }
    }
}

fn created(location: &str, digest: &str) -> Reply {
    Reply::new(201, "").with("location", location).with("docker-content-digest", digest)
}
