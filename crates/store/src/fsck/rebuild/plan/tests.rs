//! Plans from hand-made finds.

use windlass_core::MediaType;
use windlass_core::document::Manifest;

use super::*;
use crate::fsck::damaged::SOURCE;

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
    let root =
        (describe(MediaType::OCI_MANIFEST, &digest("manifest")), Document::Root(Box::new(Root::Manifest(manifest))));
    let sizes: BTreeMap<Digest, u64> = ["manifest", "config", "layer"].iter().map(|text| (digest(text), 6)).collect();
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

/// An old record of a blob that came from a repository of the host `there`.
fn record(namespace: &str, text: &str, size: u64, repository: &str) -> (String, Info) {
    let labels = Labels::new().with(format!("{SOURCE}there"), repository);
    let at = SystemTime::UNIX_EPOCH;
    let info = Info { digest: digest(text), size, created_at: at, updated_at: at, labels };
    (format!("{namespace}\0{}", digest(text)), info)
}

fn image(name: &str, target: &str) -> (String, Image) {
    let target = Descriptor::new(MediaType::OCI_MANIFEST, digest(target), 6);
    (format!("team\0{name}"), Image::new(name.parse().unwrap(), target))
}

fn content<'a>(plan: &'a Plan, text: &str) -> &'a Info {
    let (_, info) = plan.contents.iter().find(|(_, info)| info.digest == digest(text)).unwrap();
    info
}

fn images(plan: &Plan) -> Vec<String> {
    plan.images.iter().map(|(namespace, image)| format!("{namespace} {}", image.name)).collect()
}

#[test]
fn what_nothing_refers_to_is_named_by_its_annotation_if_it_came_from_there_or_by_its_digest() {
    let now = SystemTime::now();
    assert_eq!(
        images(&plan(found(Some("there/redis:7")), now)),
        [format!("default recovered/{}", digest("manifest"))],
        "a publisher may say anything"
    );
    let mut known = found(Some("there/redis:7"));
    known.salvaged.contents = vec![record("default", "manifest", 6, "redis")];
    assert_eq!(images(&plan(known, now)), ["default there/redis:7"]);
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

#[test]
fn an_image_is_kept_whose_target_or_layer_is_damaged_or_gone() {
    for gone in [false, true] {
        let mut found = found(None);
        for text in ["manifest", "layer"] {
            found.good.remove(&digest(text));
            found.documents.remove(&digest(text));
            // The damaged file is shorter.
            found.stored.insert(digest(text), 1);
            if gone {
                found.stored.remove(&digest(text));
            }
        }
        found.salvaged.images = vec![image("redis:7", "manifest")];
        let (key, mut manifest) = record("team", "manifest", 6, "redis");
        manifest.labels.set("containerd.io/gc.ref.content.l.0", digest("layer").to_string());
        found.salvaged.contents =
            vec![(key, manifest), record("team", "layer", 6, "redis"), record("team", "x", 1, "")];
        let plan = plan(found, SystemTime::now());
        assert_eq!(images(&plan), ["team redis:7"]);
        for text in ["manifest", "layer"] {
            let info = content(&plan, text);
            assert_eq!((info.size, info.labels.get(&format!("{SOURCE}there"))), (6, Some("redis")), "{text}");
        }
        assert!(plan.contents.iter().all(|(_, info)| info.digest != digest("x")), "gone, and nobody wants it");
    }
}

#[test]
fn a_damaged_blob_has_the_size_that_its_manifest_says() {
    let mut found = found(None);
    found.good.remove(&digest("layer"));
    found.stored.insert(digest("layer"), 1);
    found.salvaged.contents = vec![record("default", "layer", 1, "redis")];
    assert_eq!(content(&plan(found, SystemTime::now()), "layer").size, 6);
}

#[test]
fn what_one_namespace_names_is_not_named_again_in_the_default_one() {
    let mut found = found(None);
    let now = SystemTime::now();
    found.salvaged.images = vec![image("redis:7", "manifest")];
    let record = NamespaceRecord { labels: Labels::new(), created_at: now };
    found.salvaged.namespaces = vec![("team".into(), record.clone()), ("other".into(), record)];
    assert_eq!(images(&plan(found, now)), ["team redis:7"]);
}

#[test]
fn what_was_written_and_nothing_refers_to_is_kept_for_a_week() {
    let (top, mut found) = (chain("top"), found(None));
    let layer = format!("default/1/{top}");
    let active = snapshot::Info { state: State::Active, ..committed("default/2/mine", Some(&layer)) };
    found.snapshots = BTreeMap::from([("overlayfs".to_owned(), vec![committed(&layer, None), active])]);
    let plan = plan(found, SystemTime::UNIX_EPOCH);
    let expiries: Vec<(&str, Option<&str>)> =
        plan.snapshots.iter().map(|(_, of)| (of.info.key.as_str(), of.info.labels.get(EXPIRE))).collect();
    assert_eq!(expiries.len(), 2);
    assert!(expiries.contains(&("mine", Some("1970-01-08T00:00:00Z"))), "{expiries:?}");
    assert!(expiries.contains(&(top.to_string().as_str(), None)), "{expiries:?}");
}
