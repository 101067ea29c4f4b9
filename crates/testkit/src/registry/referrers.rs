//! What is attached to a manifest: OCI distribution-spec, "Listing Referrers".

use serde_json::{Value, json};
use windlass_core::MediaType;

use super::fake::{Recorded, Repository};
use super::serve::Reply;

/// Answers with one page of the list.
pub(super) fn list(repository: &Repository, request: &Recorded, subject: &str, page: usize) -> Reply {
    let query = request.query.clone().unwrap_or_default();
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.replace("%2B", "+")).next()
    };
    let wanted = parameter("artifactType");
    let first: usize = parameter("from").and_then(|from| from.parse().ok()).unwrap_or(0);
    let mut all: Vec<Value> = Vec::new();
    for (digest, (media_type, bytes)) in &repository.manifests {
        let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if manifest.pointer("/subject/digest").and_then(Value::as_str) != Some(subject) {
            continue;
        }
        let kind = manifest.get("artifactType").or(manifest.pointer("/config/mediaType")).cloned().unwrap_or_default();
        if wanted.as_ref().is_none_or(|wanted| kind == json!(wanted)) {
            all.push(json!({
                "mediaType": media_type, "digest": digest, "size": bytes.len(), "artifactType": kind,
                "annotations": manifest.get("annotations"),
            }));
        }
    }
    let more = all.len() > first + page;
    let part: Vec<Value> = all.into_iter().skip(first).take(page).collect();
    let body = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": part });
    let mut reply = Reply::new(200, body.to_string()).with("content-type", MediaType::OCI_INDEX);
    if more {
        let filter = wanted.as_ref().map(|kind| format!("&artifactType={}", kind.replace('+', "%2B")));
        let next = format!("{}?from={}{}", request.path, first + page, filter.unwrap_or_default());
        reply = reply.with("link", &format!("<{next}>; rel=\"next\""));
    }
    if wanted.is_some() { reply.with("oci-filters-applied", "artifactType") } else { reply }
}
