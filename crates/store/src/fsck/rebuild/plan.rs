//! The decision what a new database says. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, value};
use windlass_core::container::Container;
use windlass_core::content::Info;
use windlass_core::document::Root;
use windlass_core::gc::{EXPIRE, snapshot_label};
use windlass_core::image::{Image, Name as ImageName};
use windlass_core::lease::Lease;
use windlass_core::snapshot::{self, Name, State};
use windlass_core::{ChainId, Descriptor, Digest, Labels, Namespace, timestamp};

use crate::db::Present;
use crate::db::schema::{NamespaceRecord, SnapshotRecord};
use crate::fsck::damaged::recovered;
use crate::fsck::documents::Document;
use crate::fsck::inner::InnerName;
use crate::fsck::nodes::split;
use crate::fsck::salvage::Salvaged;
use crate::snapshots::Place;

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
    let snapshots = snapshots(&found);
    let (images, mut contents) = images(&found, &snapshots, now);
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
            let size = found.good.get(&info.digest).copied().unwrap_or(info.size);
            contents.insert(key, Info { size, ..info.clone() });
        }
    }
    keep_unclaimed(&found, &mut contents, now);
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

/// Names what nothing refers to, in the namespaces that have its snapshots, and records what is below.
fn images(found: &Found, snapshots: &Snapshots, now: SystemTime) -> (Vec<(Namespace, Image)>, Contents) {
    let mut contents = Contents::new();
    let mut images: BTreeMap<(Namespace, String), Image> = BTreeMap::new();
    let mut named: BTreeSet<(Namespace, Digest)> = BTreeSet::new();
    for (key, image) in &found.salvaged.images {
        let Some((namespace, key_name)) = split(key) else { continue };
        let Some(name) = agreed(&found.salvaged, &namespace, key_name, &image.name) else { continue };
        if found.documents.contains_key(&image.target.digest) {
            named.insert((namespace.clone(), image.target.digest.clone()));
            record_tree(found, snapshots, &namespace, &image.target.digest, &mut contents, now);
            images.insert((namespace, name.to_string()), Image { name, ..image.clone() });
        }
    }
    for digest in roots(&found.documents) {
        let Some((descriptor, document)) = found.documents.get(&digest) else { continue };
        for namespace in homes(found, snapshots, &digest) {
            record_tree(found, snapshots, &namespace, &digest, &mut contents, now);
            if named.iter().any(|(at, target)| *at == namespace && *target == digest) {
                continue;
            }
            let fallback = format!("recovered/{digest}");
            let name = name_of(document).filter(|name| !images.contains_key(&(namespace.clone(), name.clone())));
            let name = name.unwrap_or(fallback);
            let Ok(parsed) = name.parse() else { continue };
            let image = Image { created_at: now, updated_at: now, ..Image::new(parsed, descriptor.clone()) };
            images.insert((namespace.clone(), name), image);
        }
    }
    (images.into_iter().map(|((namespace, _), image)| (namespace, image)).collect(), contents)
}

/// Returns the name of an image on which two of the three places agree that have it: key, record and links.
fn agreed(salvaged: &Salvaged, namespace: &Namespace, key: &str, record: &ImageName) -> Option<ImageName> {
    if key == record.as_str() {
        return Some(record.clone());
    }
    let linked = |name: &str| {
        let node = format!("{namespace}\0image/{name}");
        salvaged.links.iter().any(|(key, _)| *key == node)
    };
    [key, record.as_str()].into_iter().find(|name| linked(name))?.parse().ok()
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

/// Returns the namespaces that a document belongs to: those that have snapshots of its layers; otherwise the only one that
/// is known, or the default one.
fn homes(found: &Found, snapshots: &Snapshots, digest: &Digest) -> BTreeSet<Namespace> {
    let tops: BTreeSet<String> = below(found, digest)
        .iter()
        .filter_map(|digest| match &found.documents.get(digest)?.1 {
            Document::Config(top) => top.as_ref().map(ToString::to_string),
            Document::Root(_) => None,
        })
        .collect();
    let has = |key: &snapshot::Key| tops.contains(key.as_str());
    let homes: BTreeSet<Namespace> =
        snapshots.keys().filter(|(_, _, key)| has(key)).map(|(namespace, ..)| namespace.clone()).collect();
    if !homes.is_empty() {
        return homes;
    }
    BTreeSet::from([usual(found, snapshots)])
}

/// Returns the only namespace that is known, or the default one.
fn usual(found: &Found, snapshots: &Snapshots) -> Namespace {
    let mut known: BTreeSet<Namespace> = snapshots.keys().map(|(namespace, ..)| namespace.clone()).collect();
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
    snapshots: &Snapshots,
    namespace: &Namespace,
    digest: &Digest,
    contents: &mut Contents,
    now: SystemTime,
) {
    for digest in below(found, digest) {
        let size = found.good.get(&digest).or(found.stored.get(&digest)).copied().unwrap_or_default();
        let mut labels = Labels::new();
        match found.documents.get(&digest) {
            Some((_, Document::Config(Some(top)))) => labels = unpacked(snapshots, namespace, top),
            Some((_, document)) => labels = document.labels(),
            None => {}
        }
        let info = Info { digest: digest.clone(), size, created_at: now, updated_at: now, labels };
        contents.insert((namespace.clone(), digest), info);
    }
}

/// Returns the labels of a config whose layers are unpacked.
fn unpacked(snapshots: &Snapshots, namespace: &Namespace, top: &ChainId) -> Labels {
    let name = Name::from(top);
    let of = |(at, _, key): &(Namespace, String, snapshot::Key)| at == namespace && key == name.as_key();
    let committed = snapshots.iter().filter(|(at, (_, record))| of(at) && record.info.state == State::Committed);
    committed.map(|((_, snapshotter, _), _)| (snapshot_label(snapshotter), top.to_string())).collect()
}

/// Records what no document refers to, damaged or not, and keeps it for a while: nothing that may be wanted is lost with the
/// database.
fn keep_unclaimed(found: &Found, contents: &mut Contents, now: SystemTime) {
    let claimed: BTreeSet<Digest> = contents.keys().map(|(_, digest)| digest.clone()).collect();
    for (digest, size) in found.stored.iter().filter(|(digest, _)| !claimed.contains(digest)) {
        let mut labels = found.documents.get(digest).map_or_else(Labels::new, |(_, document)| document.labels());
        if let Ok(Value::String(end)) = timestamp::serialize(&(now + KEPT), value::Serializer) {
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

#[cfg(test)]
mod tests {
    use windlass_core::MediaType;
    use windlass_core::document::Manifest;

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn chain(text: &str) -> ChainId {
        ChainId(digest(text))
    }

    /// An image of one layer: a manifest, a config whose layers are called `top`, and the layer.
    fn found(annotation: Option<&str>) -> Found {
        let (config, layer) = (digest("config"), digest("layer"));
        let describe = |media_type: &str, digest: &Digest| Descriptor::new(media_type, digest.clone(), 6);
        let manifest = Manifest {
            media_type: None,
            artifact_type: None,
            config: describe(MediaType::OCI_CONFIG, &config),
            layers: vec![describe(MediaType::OCI_LAYER, &layer)],
            subject: None,
            annotations: annotation.map(|name| (NAMES[1].to_owned(), name.to_owned())).into_iter().collect(),
        };
        let root = (
            describe(MediaType::OCI_MANIFEST, &digest("manifest")),
            Document::Root(Box::new(Root::Manifest(manifest))),
        );
        let sizes: BTreeMap<Digest, u64> =
            ["manifest", "config", "layer"].iter().map(|text| (digest(text), 6)).collect();
        Found {
            stored: sizes.clone(),
            good: sizes,
            documents: BTreeMap::from([
                (digest("manifest"), root),
                (config.clone(), (describe(MediaType::OCI_CONFIG, &config), Document::Config(Some(chain("top"))))),
            ]),
            snapshots: BTreeMap::new(),
            ingests: BTreeSet::new(),
            salvaged: Salvaged::default(),
        }
    }

    fn committed(inner: &str, parent: Option<&str>) -> snapshot::Info {
        snapshot::Info {
            state: State::Committed,
            key: inner.parse().unwrap(),
            parent: parent.map(|parent| parent.parse().unwrap()),
            labels: Labels::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn images(plan: &Plan) -> Vec<String> {
        plan.images.iter().map(|(namespace, image)| format!("{namespace} {}", image.name)).collect()
    }

    #[test]
    fn what_nothing_refers_to_is_named_by_its_annotation_or_its_digest() {
        let now = SystemTime::now();
        assert_eq!(images(&plan(found(Some("redis:7")), now)), ["default redis:7"]);
        assert_eq!(images(&plan(found(None), now)), [format!("default recovered/{}", digest("manifest"))]);
        let plan = plan(found(None), now);
        assert_eq!(plan.contents.len(), 3);
        assert_eq!(plan.namespaces.len(), 1);
        let (_, manifest) = plan.contents.iter().find(|(_, info)| info.digest == digest("manifest")).unwrap();
        let layer = digest("layer").to_string();
        assert_eq!(manifest.labels.get("containerd.io/gc.ref.content.l.0"), Some(layer.as_str()));
    }

    #[test]
    fn an_image_belongs_where_its_snapshots_are_and_its_config_keeps_them() {
        let (top, base) = (chain("top"), chain("base"));
        let mut found = found(None);
        let below = format!("other/1/{base}");
        let infos = vec![committed(&below, None), committed(&format!("team/2/{top}"), Some(&below))];
        found.snapshots = BTreeMap::from([("overlayfs".to_owned(), infos)]);
        let plan = plan(found, SystemTime::now());
        assert_eq!(images(&plan), [format!("team recovered/{}", digest("manifest"))]);
        let (_, config) = plan.contents.iter().find(|(_, info)| info.digest == digest("config")).unwrap();
        let label = snapshot_label("overlayfs");
        assert_eq!(config.labels.get(&label), Some(top.to_string().as_str()));
        // The namespace has what its snapshot stands on, whoever made that.
        let team = plan.snapshots.iter().filter(|(place, _)| place.namespace.as_str() == "team");
        let recorded: Vec<(String, String)> =
            team.map(|(_, record)| (record.info.key.to_string(), record.inner.to_string())).collect();
        assert_eq!(recorded.len(), 2);
        assert!(recorded.contains(&(base.to_string(), below)));
        let names: Vec<&str> = plan.namespaces.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["other", "team"]);
    }

    #[test]
    fn what_nothing_refers_to_is_kept_for_a_week_damaged_or_not() {
        let mut found = found(None);
        found.stored.insert(digest("stray"), 5);
        let now = SystemTime::UNIX_EPOCH;
        let plan = plan(found, now);
        let (_, stray) = plan.contents.iter().find(|(_, info)| info.digest == digest("stray")).unwrap();
        assert_eq!(stray.labels.get(EXPIRE), Some("1970-01-08T00:00:00Z"));
    }

    #[test]
    fn what_the_old_database_still_says_is_kept_when_it_is_true() {
        let mut found = found(None);
        let image = |name: &str, target: &str| {
            let target = Descriptor::new(MediaType::OCI_MANIFEST, digest(target), 6);
            Image::new(name.parse().unwrap(), target)
        };
        found.salvaged.images = vec![
            ("team\0redis:7".into(), image("redis:7", "manifest")),
            ("team\0gone".into(), image("gone", "something else")),
            ("team\0garbled".into(), image("other name", "manifest")),
        ];
        let now = SystemTime::now();
        let labels = Labels::new().with("source", "there");
        let info = Info { digest: digest("layer"), size: 99, created_at: now, updated_at: now, labels };
        found.salvaged.contents = vec![(format!("team\0{}", digest("layer")), info)];
        found.salvaged.namespaces = vec![("team".into(), NamespaceRecord { labels: Labels::new(), created_at: now })];
        let plan = plan(found, now);
        assert_eq!(images(&plan), ["team redis:7"]);
        let (namespace, layer) = plan.contents.iter().find(|(_, info)| info.digest == digest("layer")).unwrap();
        assert_eq!((namespace.as_str(), layer.size, layer.labels.get("source")), ("team", 6, Some("there")));
    }
}
