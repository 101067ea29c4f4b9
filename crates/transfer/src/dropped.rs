//! Blobs that were not kept: the record of a manifest says which of its layers are here as snapshots only, so that
//! whoever needs their bytes knows that nothing is damaged, and what to fetch again.

use std::collections::BTreeMap;

use windlass_core::content::{DROPPED_LABEL, Store};
use windlass_core::field::FieldMask;
use windlass_core::{Descriptor, Kind, Labels, Result};

use crate::plan::Plan;

/// Has the record of each manifest name the layers whose blobs are not here, and no others.
pub(crate) async fn record(content: &dyn Store, plan: &Plan) -> Result<()> {
    for image in &plan.images {
        let layers: Vec<&Descriptor> = image.layers.iter().map(|layer| &layer.descriptor).collect();
        let lacks = missing(content, &layers).await?;
        let mut info = content.info(&image.manifest.digest).await?;
        let (labels, changed) = changed(&info.labels, &lacks);
        if !changed.is_empty() {
            info.labels = labels;
            content.update(&info, &FieldMask::parse(changed.iter().map(String::as_str))?).await?;
        }
    }
    Ok(())
}

/// Tells whether the record of a manifest names the layers whose blobs are not here, and no others.
pub(crate) async fn is_recorded(content: &dyn Store, manifest: &Descriptor, layers: &[Descriptor]) -> Result<bool> {
    let lacks = missing(content, &layers.iter().collect::<Vec<_>>()).await?;
    Ok(changed(&content.info(&manifest.digest).await?.labels, &lacks).1.is_empty())
}

/// Returns the layers of an image whose blobs are not here, as labels.
async fn missing(content: &dyn Store, layers: &[&Descriptor]) -> Result<BTreeMap<String, String>> {
    let mut missing = BTreeMap::new();
    for (at, layer) in layers.iter().enumerate() {
        match content.info(&layer.digest).await {
            Ok(_) => {}
            Err(error) if error.is(Kind::NotFound) => {
                missing.insert(format!("{DROPPED_LABEL}{at}"), layer.digest.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Returns the labels as they should be, and the fields that are to change.
fn changed(labels: &Labels, missing: &BTreeMap<String, String>) -> (Labels, Vec<String>) {
    let mut changed = Vec::new();
    let mut wanted = Labels::new();
    for (key, value) in labels.iter() {
        if key.starts_with(DROPPED_LABEL) && !missing.contains_key(key) {
            changed.push(format!("labels.{key}"));
        } else {
            wanted.set(key, value);
        }
    }
    for (key, value) in missing {
        if labels.get(key) != Some(value.as_str()) {
            changed.push(format!("labels.{key}"));
            wanted.set(key, value.as_str());
        }
    }
    (wanted, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_name_what_is_missing_and_nothing_else() {
        let labels = Labels::new().with("other", "x").with(format!("{DROPPED_LABEL}0"), "sha256:a");
        let missing = BTreeMap::from([(format!("{DROPPED_LABEL}1"), "sha256:b".to_owned())]);
        let (wanted, changes) = changed(&labels, &missing);
        assert_eq!(wanted, Labels::new().with("other", "x").with(format!("{DROPPED_LABEL}1"), "sha256:b"));
        assert_eq!(changes, [format!("labels.{DROPPED_LABEL}0"), format!("labels.{DROPPED_LABEL}1")]);
        assert_eq!(changed(&wanted, &missing).1, Vec::<String>::new());
    }
}
