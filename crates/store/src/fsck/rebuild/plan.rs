//! The decision what a new database says. Pure.

mod said;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, value};
use windlass_core::container::Container;
use windlass_core::content::Info;
use windlass_core::document::Root;
use windlass_core::gc::{EXPIRE, REF_SNAPSHOT, snapshot_label};
use windlass_core::image::Image;
use windlass_core::lease::Lease;
use windlass_core::snapshot::{self, State};
use windlass_core::{ChainId, Descriptor, Digest, Labels, Namespace, timestamp};

use crate::db::Present;
use crate::db::schema::{NamespaceRecord, SnapshotRecord};
use crate::fsck::damaged::recovered;
use crate::fsck::documents::Document;
use crate::fsck::inner::InnerName;
use crate::fsck::nodes::split;
use crate::fsck::salvage::Salvaged;
use crate::snapshots::Place;
use said::Said;

/// The annotations that name an image, the best first: containerd's, and OCI image-spec, `annotations.md`.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// How long a blob is kept that nothing refers to.
const KEPT: Duration = Duration::from_hours(7 * 24);

/// What was found on the disk.
pub(super) struct Found {
    /// The blobs, with the sizes of their files.
    pub(super) stored: BTreeMap<Digest, u64>,
    /// Those whose bytes are right.
    pub(super) good: BTreeMap<Digest, u64>,
    pub(super) documents: BTreeMap<Digest, (Descriptor, Document)>,
    /// What the snapshotters have.
    pub(super) snapshots: BTreeMap<String, Vec<snapshot::Info>>,
    /// The namespaces of ingests.
    pub(super) ingests: BTreeSet<Namespace>,
    pub(super) salvaged: Salvaged,
}

impl Found {
    /// Returns the sizes of blobs as whoever refers to them says, or else as the old records do.
    fn described(&self) -> BTreeMap<Digest, u64> {
        let records = self.salvaged.contents.iter().map(|(_, info)| (info.digest.clone(), info.size));
        let images = self.salvaged.images.iter().map(|(_, image)| (image.target.digest.clone(), image.target.size));
        let mut sizes: BTreeMap<Digest, u64> = records.chain(images).collect();
        for (_, document) in self.documents.values() {
            if let Document::Root(root) = document {
                sizes.extend(root.children().into_iter().map(|child| (child.digest, child.size)));
            }
        }
        sizes
    }
}

/// What is to be recorded.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) namespaces: Vec<(String, NamespaceRecord)>,
    pub(super) contents: Vec<(Namespace, Info)>,
    pub(super) images: Vec<(Namespace, Image)>,
    pub(super) snapshots: Vec<(Place, SnapshotRecord)>,
    pub(super) containers: Vec<(Namespace, Container)>,
    pub(super) leases: Vec<(String, Lease)>,
    pub(super) resources: Vec<(String, Present)>,
}

/// Decides.
pub(super) fn plan(found: Found, now: SystemTime) -> Plan {
    let described = found.described();
    let mut snapshots = snapshots(&found);
    let (images, mut contents) = images(&found, &tops(&snapshots), now);
    for (record, info) in &found.salvaged.contents {
        let Some((namespace, named)) = split(record) else { continue };
        if named != info.digest.to_string() {
            continue;
        }
        // What was said of a blob stays said, whatever became of its bytes: it says where they come from.
        let key = (namespace, info.digest.clone());
        if let Some(known) = contents.get_mut(&key) {
            let mut labels = info.labels.clone();
            labels.extend(&known.labels);
            *known = Info { labels, created_at: info.created_at, ..known.clone() };
        } else if found.stored.contains_key(&info.digest) {
            contents.insert(key, info.clone());
        }
    }
    keep_missing(&found, &images, &mut contents);
    keep_unclaimed(&found, &mut contents, now);
    for info in contents.values_mut() {
        // The file of a damaged blob may have any size.
        let size = found.good.get(&info.digest).or(described.get(&info.digest));
        info.size = size.copied().unwrap_or(info.size);
    }
    keep_written(&mut snapshots, &contents, now);
    let namespaces = namespaces(&found, &images, &contents, &snapshots, now);
    let containers = found.salvaged.containers.iter().filter_map(|(key, container)| {
        let (namespace, _) = split(key)?;
        Some((namespace, container.clone()))
    });
    Plan {
        containers: containers.collect(),
        namespaces,
        contents: contents.into_iter().map(|((namespace, _), info)| (namespace, info)).collect(),
        images,
        snapshots: snapshots.into_values().collect(),
        resources: resources(&found.salvaged),
        leases: found.salvaged.leases,
    }
}

/// What leases hold, of those that are left.
fn resources(salvaged: &Salvaged) -> Vec<(String, Present)> {
    let leases: BTreeSet<&str> = salvaged.leases.iter().map(|(key, _)| key.as_str()).collect();
    let held = |key: &str| {
        key.match_indices('\0').nth(1).and_then(|(at, _)| key.get(..at)).is_some_and(|lease| leases.contains(lease))
    };
    salvaged.resources.iter().filter(|(key, _)| held(key)).cloned().collect()
}

type Snapshots = BTreeMap<(Namespace, String, snapshot::Key), (Place, SnapshotRecord)>;

/// Records the snapshots that the snapshotters have, as their names say, and as the old database says.
fn snapshots(found: &Found) -> Snapshots {
    let mut all = Snapshots::new();
    for (snapshotter, infos) in &found.snapshots {
        let by_name: BTreeMap<&snapshot::Key, &snapshot::Info> = infos.iter().map(|info| (&info.key, info)).collect();
        for info in infos {
            let Some(inner) = InnerName::of(&info.key) else { continue };
            add_chain(&mut all, snapshotter, &inner.namespace, info, &by_name);
        }
        let of = |record: &&(String, SnapshotRecord)| record.0.split('\0').nth(1) == Some(snapshotter);
        let whole = |(key, record): &&(String, SnapshotRecord)| key.ends_with(&format!("\0{}", record.info.key));
        for (key, record) in found.salvaged.snapshots.iter().filter(of).filter(whole) {
            let (Some((namespace, _)), Some(info)) = (split(key), by_name.get(&record.inner)) else { continue };
            add_chain(&mut all, snapshotter, &namespace, info, &by_name);
            let place = Place { namespace: namespace.clone(), snapshotter: snapshotter.clone() };
            all.insert((namespace, snapshotter.clone(), record.info.key.clone()), (place, record.clone()));
        }
    }
    all
}

/// Adds a snapshot to a namespace, and what it stands on, which another namespace may have made.
fn add_chain(
    all: &mut Snapshots,
    snapshotter: &str,
    namespace: &Namespace,
    info: &snapshot::Info,
    by_name: &BTreeMap<&snapshot::Key, &snapshot::Info>,
) {
    let mut next = Some(info);
    while let Some(info) = next {
        let Some(inner) = InnerName::of(&info.key) else { return };
        let at = (namespace.clone(), snapshotter.to_owned(), inner.key.clone());
        let place = Place { namespace: namespace.clone(), snapshotter: snapshotter.to_owned() };
        let record = recovered(info, &inner.key);
        // Two of one name: one is garbage, and the younger one more likely not.
        if all.get(&at).is_none_or(|(_, there)| there.info.created_at < record.info.created_at) {
            all.insert(at, (place, record));
        }
        next = info.parent.as_ref().and_then(|parent| by_name.get(parent.as_key()).copied());
    }
}

type Contents = BTreeMap<(Namespace, Digest), Info>;

/// The snapshots of each name: where they are, and whether they are layers.
type Tops<'a> = BTreeMap<&'a str, Vec<(&'a Namespace, &'a str, bool)>>;

fn tops(snapshots: &Snapshots) -> Tops<'_> {
    let mut tops = Tops::new();
    for ((namespace, snapshotter, key), (_, record)) in snapshots {
        let is_layer = record.info.state == State::Committed;
        tops.entry(key.as_str()).or_default().push((namespace, snapshotter, is_layer));
    }
    tops
}

/// Names what nothing refers to, in the namespaces that have its snapshots, and records what is below.
fn images(found: &Found, tops: &Tops<'_>, now: SystemTime) -> (Vec<(Namespace, Image)>, Contents) {
    let mut contents = Contents::new();
    let mut images: BTreeMap<(Namespace, String), Image> = BTreeMap::new();
    let mut named: BTreeMap<Digest, BTreeSet<Namespace>> = BTreeMap::new();
    let said = Said::of(&found.salvaged);
    for (key, image) in &found.salvaged.images {
        let Some((namespace, key_name)) = split(key) else { continue };
        let Some(name) = said.name(&namespace, key_name, &image.name) else { continue };
        let target = &image.target.digest;
        // What is damaged or gone is fetched again, when it is known to be what the image pointed at.
        if found.stored.contains_key(target) || said.is_target(&namespace, &name, target) {
            named.entry(target.clone()).or_default().insert(namespace.clone());
            record_tree(found, tops, &namespace, target, &mut contents, now);
            images.insert((namespace, name.to_string()), Image { name, ..image.clone() });
        }
    }
    for digest in roots(&found.documents) {
        let Some((descriptor, document)) = found.documents.get(&digest) else { continue };
        let named = named.get(&digest);
        let mut homes = homes(found, tops, &digest);
        if homes.is_empty() && named.is_none() {
            homes.insert(usual(found, tops));
        }
        for namespace in homes {
            record_tree(found, tops, &namespace, &digest, &mut contents, now);
            if named.is_some_and(|named| named.contains(&namespace)) {
                continue;
            }
            let fallback = format!("recovered/{digest}");
            let name = name_of(document)
                .filter(|name| said.came_from(&digest, name))
                .filter(|name| !images.contains_key(&(namespace.clone(), name.clone())));
            let name = name.unwrap_or(fallback);
            let Ok(parsed) = name.parse() else { continue };
            let image = Image { created_at: now, updated_at: now, ..Image::new(parsed, descriptor.clone()) };
            images.insert((namespace.clone(), name), image);
        }
    }
    (images.into_iter().map(|((namespace, _), image)| (namespace, image)).collect(), contents)
}

/// Returns the indexes and manifests that no other document refers to.
fn roots(documents: &BTreeMap<Digest, (Descriptor, Document)>) -> Vec<Digest> {
    let mut referred = BTreeSet::new();
    for (_, document) in documents.values() {
        if let Document::Root(root) = document {
            referred.extend(root.children().into_iter().map(|child| child.digest));
        }
    }
    let root =
        |digest: &Digest, document: &Document| matches!(document, Document::Root(_)) && !referred.contains(digest);
    documents
        .iter()
        .filter(|(digest, (_, document))| root(digest, document))
        .map(|(digest, _)| digest.clone())
        .collect()
}

/// Returns the name that a document gives itself.
fn name_of(document: &Document) -> Option<String> {
    let Document::Root(root) = document else { return None };
    let annotations = match &**root {
        Root::Index(index) => &index.annotations,
        Root::Manifest(manifest) => &manifest.annotations,
    };
    NAMES
        .iter()
        .find_map(|name| annotations.get(*name))
        .filter(|name| name.parse::<windlass_core::image::Name>().is_ok())
        .cloned()
}

/// Returns the namespaces that have snapshots of a document's layers.
fn homes(found: &Found, tops: &Tops<'_>, digest: &Digest) -> BTreeSet<Namespace> {
    let top = |digest: &Digest| match &found.documents.get(digest)?.1 {
        Document::Config(top) => top.as_ref().map(ToString::to_string),
        Document::Root(_) => None,
    };
    let all = below(found, digest);
    let places = all.iter().filter_map(top).filter_map(|top| tops.get(top.as_str())).flatten();
    places.map(|(namespace, ..)| (*namespace).clone()).collect()
}

/// Returns the only namespace that is known, or the default one.
fn usual(found: &Found, tops: &Tops<'_>) -> Namespace {
    let of_snapshots = tops.values().flatten().map(|(namespace, ..)| (*namespace).clone());
    let mut known: BTreeSet<Namespace> = of_snapshots.collect();
    known.extend(found.ingests.iter().cloned());
    known.extend(found.salvaged.namespaces.iter().filter_map(|(name, _)| name.parse().ok()));
    match known.len() {
        1 => known.pop_first().unwrap_or_default(),
        _ => Namespace::default(),
    }
}

/// Returns a document and everything below it that is here.
fn below(found: &Found, digest: &Digest) -> BTreeSet<Digest> {
    let (mut all, mut open) = (BTreeSet::new(), vec![digest.clone()]);
    while let Some(digest) = open.pop() {
        if !found.stored.contains_key(&digest) || !all.insert(digest.clone()) {
            continue;
        }
        if let Some((_, Document::Root(root))) = found.documents.get(&digest) {
            open.extend(root.children().into_iter().map(|child| child.digest));
        }
    }
    all
}

fn record_tree(
    found: &Found,
    tops: &Tops<'_>,
    namespace: &Namespace,
    digest: &Digest,
    contents: &mut Contents,
    now: SystemTime,
) {
    for digest in below(found, digest) {
        let size = found.stored.get(&digest).copied().unwrap_or_default();
        let mut labels = Labels::new();
        match found.documents.get(&digest) {
            Some((_, Document::Config(Some(top)))) => labels = unpacked(tops, namespace, top),
            Some((_, document)) => labels = document.labels(),
            None => {}
        }
        let info = Info { digest: digest.clone(), size, created_at: now, updated_at: now, labels };
        contents.insert((namespace.clone(), digest), info);
    }
}

/// Returns the labels of a config whose layers are unpacked.
fn unpacked(tops: &Tops<'_>, namespace: &Namespace, top: &ChainId) -> Labels {
    let top = top.to_string();
    let committed =
        tops.get(top.as_str()).into_iter().flatten().filter(|(at, _, is_layer)| *at == namespace && *is_layer);
    committed.map(|(_, snapshotter, _)| (snapshot_label(snapshotter), top.clone())).collect()
}

/// Keeps the old records of blobs that are gone and wanted: by an image, or by what is recorded.
fn keep_missing(found: &Found, images: &[(Namespace, Image)], contents: &mut Contents) {
    let old: BTreeMap<(Namespace, String), &Info> = found
        .salvaged
        .contents
        .iter()
        .filter(|(_, info)| !found.stored.contains_key(&info.digest))
        .filter_map(|(key, info)| Some((split(key)?, info)))
        .filter(|((_, named), info)| *named == info.digest.to_string())
        .map(|((namespace, named), info)| ((namespace, named.to_owned()), info))
        .collect();
    let refers = |info: &Info| -> Vec<String> { info.labels.iter().map(|(_, value)| value.to_owned()).collect() };
    let of_contents = contents
        .iter()
        .flat_map(|((namespace, _), info)| refers(info).into_iter().map(|digest| (namespace.clone(), digest)));
    let of_images = images.iter().map(|(namespace, image)| (namespace.clone(), image.target.digest.to_string()));
    let mut open: Vec<(Namespace, String)> = of_images.chain(of_contents).collect();
    while let Some(key) = open.pop() {
        let Some(info) = old.get(&key) else { continue };
        let namespace = key.0;
        if contents.insert((namespace.clone(), info.digest.clone()), (*info).clone()).is_none() {
            open.extend(refers(info).into_iter().map(|digest| (namespace.clone(), digest)));
        }
    }
}

/// Keeps the snapshots for a while that nothing refers to any more: what was written into them, or committed, is nowhere
/// else. Views show what others have.
fn keep_written(snapshots: &mut Snapshots, contents: &Contents, now: SystemTime) {
    let Some(end) = end(now) else { return };
    let mut kept: BTreeSet<(Namespace, String, String)> = BTreeSet::new();
    for ((namespace, _), info) in contents {
        for (label, key) in info.labels.iter() {
            if let Some(snapshotter) = label.strip_prefix(REF_SNAPSHOT) {
                kept.insert((namespace.clone(), snapshotter.to_owned(), key.to_owned()));
            }
        }
    }
    for ((namespace, snapshotter, _), (_, record)) in &*snapshots {
        if let Some(parent) = &record.info.parent {
            kept.insert((namespace.clone(), snapshotter.clone(), parent.to_string()));
        }
    }
    for ((namespace, snapshotter, key), (_, record)) in snapshots {
        let of = (namespace.clone(), snapshotter.clone(), key.to_string());
        if record.info.state != State::View && !kept.contains(&of) && record.info.labels.get(EXPIRE).is_none() {
            record.info.labels.set(EXPIRE, end.clone());
        }
    }
}

/// Returns until when something is kept that nothing refers to.
fn end(now: SystemTime) -> Option<String> {
    match timestamp::serialize(&(now + KEPT), value::Serializer) {
        Ok(Value::String(end)) => Some(end),
        _ => None,
    }
}

/// Records what no document refers to, damaged or not, and keeps it for a while: nothing that may be wanted is lost with the
/// database.
fn keep_unclaimed(found: &Found, contents: &mut Contents, now: SystemTime) {
    let claimed: BTreeSet<Digest> = contents.keys().map(|(_, digest)| digest.clone()).collect();
    for (digest, size) in found.stored.iter().filter(|(digest, _)| !claimed.contains(digest)) {
        let mut labels = found.documents.get(digest).map_or_else(Labels::new, |(_, document)| document.labels());
        if let Some(end) = end(now) {
            labels.set(EXPIRE, end);
        }
        let info = Info { digest: digest.clone(), size: *size, created_at: now, updated_at: now, labels };
        contents.insert((Namespace::default(), digest.clone()), info);
    }
}

fn namespaces(
    found: &Found,
    images: &[(Namespace, Image)],
    contents: &Contents,
    snapshots: &Snapshots,
    now: SystemTime,
) -> Vec<(String, NamespaceRecord)> {
    let mut all: BTreeMap<String, NamespaceRecord> = found.salvaged.namespaces.iter().cloned().collect();
    let used = images.iter().map(|(namespace, _)| namespace).chain(contents.keys().map(|(namespace, _)| namespace));
    let used = used.chain(snapshots.keys().map(|(namespace, ..)| namespace)).chain(&found.ingests);
    let of_keys =
        found.salvaged.containers.iter().map(|(key, _)| key).chain(found.salvaged.leases.iter().map(|(key, _)| key));
    let names: BTreeSet<String> = used
        .map(ToString::to_string)
        .chain(of_keys.filter_map(|key| key.split('\0').next()).map(str::to_owned))
        .collect();
    for name in names {
        all.entry(name).or_insert_with(|| NamespaceRecord { labels: Labels::new(), created_at: now });
    }
    all.into_iter().collect()
}
