//! Random trees, compared: the difference of two, put onto the lower, is the upper, whoever keeps them. And it is the same
//! whoever keeps them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;
use windlass_core::content::{IngesterExt as _, ProviderExt as _};
use windlass_core::diff::{Applied, Applier as _, CompareOptions, Comparer as _, Whiteouts};
use windlass_core::media_type::Compression;
use windlass_core::snapshot::{Commit, Key, Mount, Name, Snapshotter, UNPACK_LABEL};
use windlass_core::{Descriptor, Labels, MediaType, Result};
use windlass_layer::compare::{Comparer, Mounter};
use windlass_layer::{Differ, Options};
use windlass_snapshot::erofs::Erofs;
use windlass_snapshot::mount::{Temporary, unseen};
use windlass_snapshot::native::Native;
use windlass_snapshot::overlay::Overlay;
use windlass_testkit::loopback;
use windlass_testkit::memory::Content;
use windlass_testkit::tree::Tree;

use crate::model::{Model, Step, steps};

struct Unseen(std::path::PathBuf);

impl Mounter for Unseen {
    fn open(&self, mounts: &[Mount]) -> Result<OwnedFd> {
        unseen(mounts, &self.0)
    }
}

/// A snapshotter, a content store, and who goes between them.
struct Place<'a> {
    snapshotter: Box<dyn Snapshotter>,
    content: Arc<Content>,
    comparer: Comparer,
    directory: &'a Path,
}

impl<'a> Place<'a> {
    fn new(directory: &'a Path, snapshotter: impl Snapshotter + 'static) -> Self {
        let content = Arc::new(Content::default());
        let comparer = Comparer::new(content.clone(), Arc::new(Unseen(directory.to_owned())));
        Self { snapshotter: Box::new(snapshotter), content, comparer, directory }
    }

    async fn all(directory: &'a Path) -> Vec<(&'static str, Self)> {
        vec![
            ("overlayfs", Self::new(directory, Overlay::open(&directory.join("overlayfs")).await.unwrap())),
            ("erofs", Self::new(directory, Erofs::open(&directory.join("erofs")).await.unwrap())),
            ("native", Self::new(directory, Native::open(&directory.join("native")).await.unwrap())),
        ]
    }

    async fn apply(&self, layer: &Descriptor, name: &Name, parent: Option<&Name>) {
        let key = Key::from_str(&format!("{name} in the making")).unwrap();
        let labels = Labels::new().with(UNPACK_LABEL, "layer");
        let mounts = self.snapshotter.prepare(&key, parent, labels).await.unwrap();
        let differ = Differ::new(Options::default());
        let applied = differ.apply(&*self.content, layer, &mounts, Whiteouts::AsMounted, None).await.unwrap();
        assert!(matches!(applied, Applied::Complete { .. }), "{applied:?}");
        self.snapshotter.commit(name, &key, Commit::default()).await.unwrap();
    }

    async fn view(&self, name: Option<&Name>) -> Vec<Mount> {
        let Some(name) = name else { return Vec::new() };
        let key = Key::from_str(&format!("view of {name}")).unwrap();
        match self.snapshotter.mounts(&key).await {
            Ok(mounts) => mounts,
            Err(_) => self.snapshotter.view(&key, Some(name), Labels::new()).await.unwrap(),
        }
    }

    async fn seen(&self, name: &Name) -> Tree {
        let mounted = Temporary::mount(&self.view(Some(name)).await, self.directory).unwrap();
        let tree = Tree::of(mounted.path()).unwrap();
        mounted.close().unwrap();
        tree
    }

    /// Compares, and returns the layer.
    async fn compare(&self, lower: &[Mount], upper: &[Mount]) -> Descriptor {
        self.comparer.compare(lower, upper, CompareOptions::new(MediaType::OCI_LAYER)).await.unwrap()
    }
}

fn name(number: usize) -> Name {
    Name::from_str(&format!("layer {number}")).unwrap()
}

/// Says which of the layers, counted from one, the lower tree ends with; the upper ends with the last.
async fn check(layers: &[(Descriptor, bytes::Bytes, Tree)], lower: usize) {
    // In memory, because every commit waits for the disk.
    let place = tempfile::tempdir().unwrap();
    let memory = loopback::Memory::mount(place.path(), 1 << 30);
    let mut made: Vec<(&str, Descriptor, bytes::Bytes)> = Vec::new();
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for (kind, place) in Place::all(place.path()).await {
        let mut parent = None;
        for (number, (layer, bytes, _)) in layers.iter().enumerate() {
            place.content.write_blob(layer, bytes.clone(), Labels::new()).await.unwrap();
            place.apply(layer, &name(number + 1), parent.as_ref()).await;
            parent = Some(name(number + 1));
        }
        let base = (lower > 0).then(|| name(lower));
        let (below, above) = (place.view(base.as_ref()).await, place.view(parent.as_ref()).await);
        let difference = place.compare(&below, &above).await;
        let again = Name::from_str("again").unwrap();
        place.apply(&difference, &again, base.as_ref()).await;
        let differences = place.seen(&again).await.differences(&layers.last().unwrap().2);
        assert!(differences.is_empty(), "{kind}, from {lower}: {differences:#?}");
        let bytes = place.content.read_all(&difference, 1 << 30).await.unwrap();
        made.push((kind, difference, bytes));
    }
    for two in made.windows(2) {
        let [(one, left, left_bytes), (other, right, right_bytes)] = two else { continue };
        let ((left_names, left_timely), (right_names, right_timely)) =
            (names(left_bytes, began), names(right_bytes, began));
        assert_eq!(left_names, right_names, "{one} and {other}, from {lower}");
        if left_timely && right_timely {
            assert_eq!(left, right, "{one} and {other}, from {lower}: {left_names:?}");
        }
    }
    drop(memory);
}

/// Returns the names in an archive, and whether all entries have times that their layers gave them. A directory that no layer
/// lists has the time at which it was unpacked: whether that differs between two layers, nobody can tell, and such entries are
/// left out.
fn names(bytes: &[u8], began: u64) -> (Vec<String>, bool) {
    let (mut parser, mut input, mut names) = (windlass_layer::tar::Parser::new(), bytes, Vec::new());
    let mut timely = true;
    loop {
        match parser.next(&mut input).unwrap() {
            windlass_layer::tar::Event::Entry(entry) => {
                let unlisted = entry.kind == windlass_layer::tar::Kind::Directory
                    && u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| seconds >= began);
                timely &= !unlisted;
                if !unlisted {
                    names.push(String::from_utf8_lossy(&entry.path).into_owned());
                }
            }
            windlass_layer::tar::Event::End | windlass_layer::tar::Event::NeedInput => return (names, timely),
            _ => {}
        }
    }
}

fn layers() -> impl Strategy<Value = (Vec<(Vec<Step>, bool)>, usize)> {
    prop::collection::vec((steps(), any::<bool>()), 1..5)
        .prop_flat_map(|layers| (0..layers.len()).prop_map(move |lower| (layers.clone(), lower)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_difference_of_random_trees_put_onto_the_lower_is_the_upper((layers, lower) in layers()) {
        let mut model = Model::default();
        let mut all = Vec::new();
        for (steps, lists) in &layers {
            let bytes = model.layer(steps, *lists).encode(Compression::None).bytes;
            all.push((Descriptor::of(MediaType::OCI_LAYER, &bytes), bytes, model.tree()));
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(&all, lower));
    }
}

#[tokio::test]
async fn a_name_that_is_another_file_s_now_is_no_reason_to_write_those_that_are_left() {
    let directory = tempfile::tempdir().unwrap();
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let layer = windlass_testkit::image::Layer::new;
    let layers = [layer().file("first", "data").hardlink("second", "first"), layer().file("first", "other")];
    for (kind, place) in Place::all(directory.path()).await {
        for (number, layer) in layers.iter().enumerate() {
            let bytes = layer.encode(Compression::None).bytes;
            let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
            place.content.write_blob(&descriptor, bytes, Labels::new()).await.unwrap();
            place.apply(&descriptor, &name(number + 1), (number > 0).then(|| name(number)).as_ref()).await;
        }
        let (below, above) = (place.view(Some(&name(1))).await, place.view(Some(&name(2))).await);
        let difference = place.compare(&below, &above).await;
        let bytes = place.content.read_all(&difference, 1 << 20).await.unwrap();
        assert_eq!(names(&bytes, began).0, ["first"], "{kind}");
    }
}

/// Changes a tree through its mount as a container does.
fn work_in(root: &Path) {
    if std::fs::rename(root.join("d"), root.join("renamed")).is_err() {
        // What mv(1) does where an overlay does not rename directories.
        let copied = std::process::Command::new("cp").arg("-a").args([root.join("d"), root.join("renamed")]).status();
        assert!(copied.unwrap().success());
        std::fs::remove_dir_all(root.join("d")).unwrap();
    }
    std::fs::remove_file(root.join("renamed/gone")).unwrap();
    std::fs::write(root.join("renamed/new"), "new").unwrap();
    std::fs::hard_link(root.join("renamed/new"), root.join("renamed/other name")).unwrap();
    std::fs::create_dir_all(root.join("made/again")).unwrap();
    std::fs::set_permissions(root.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::remove_dir_all(root.join("opaque")).unwrap();
    std::fs::create_dir(root.join("opaque")).unwrap();
    std::fs::write(root.join("opaque/b"), "b").unwrap();
    // Left out: no layer has sockets.
    std::os::unix::net::UnixListener::bind(root.join("made/socket")).unwrap();
}

async fn worked_in(kind: &str, place: &Place<'_>, options: &[&str]) {
    let base = windlass_testkit::image::Layer::new()
        .dir("d", 0o755)
        .file("d/kept", "kept")
        .file("d/gone", "gone")
        .dir("d/deep", 0o700)
        .file("d/deep/file", "deep")
        .file("file", "data")
        .dir("opaque", 0o755)
        .file("opaque/a", "a");
    for (number, layer) in [base, windlass_testkit::image::Layer::new().file("d/second", "2")].iter().enumerate() {
        let bytes = layer.encode(Compression::None).bytes;
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
        place.content.write_blob(&descriptor, bytes, Labels::new()).await.unwrap();
        place.apply(&descriptor, &name(number + 1), (number > 0).then(|| name(number)).as_ref()).await;
    }
    let key = Key::from_str("active").unwrap();
    let mut mounts = place.snapshotter.prepare(&key, Some(&name(2)), Labels::new()).await.unwrap();
    if let Some(overlay) = mounts.last_mut().filter(|mount| mount.kind == "overlay") {
        overlay.options.retain(|option| !option.starts_with("redirect_dir") && !option.starts_with("metacopy"));
        overlay.options.extend(options.iter().map(ToString::to_string));
    }
    let mounted = Temporary::mount(&mounts, place.directory).unwrap();
    work_in(mounted.path());
    let expected = Tree::of(mounted.path()).unwrap().without("made/socket");
    mounted.close().unwrap();
    let difference = place.compare(&place.view(Some(&name(2))).await, &mounts).await;
    let again = Name::from_str("again").unwrap();
    place.apply(&difference, &again, Some(&name(2))).await;
    let differences = place.seen(&again).await.differences(&expected);
    assert!(differences.is_empty(), "{kind} with {options:?}: {differences:#?}");
}

#[tokio::test]
async fn what_was_done_through_a_mount_is_in_the_layer() {
    let directory = tempfile::tempdir().unwrap();
    for options in [&[][..], &["redirect_dir=on"], &["redirect_dir=on", "metacopy=on"]] {
        let directory = directory.path().join(options.len().to_string());
        std::fs::create_dir(&directory).unwrap();
        for (kind, place) in Place::all(&directory).await {
            worked_in(kind, &place, options).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_later_than_the_epoch_of_the_source() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(directory.path(), Native::open(&directory.path().join("native")).await.unwrap());
    let [lower, upper] = ["lower", "upper"].map(|name| directory.path().join(name));
    let bind = |path: &Path| Mount {
        kind: "bind".into(),
        source: path.display().to_string(),
        target: String::new(),
        options: vec!["ro".into()],
    };
    for path in [&lower, &upper] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join(path.file_name().unwrap()), "x").unwrap();
    }
    let old = std::fs::File::create(upper.join("old")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(5, 7)).unwrap();
    let root = std::fs::File::open(&upper).unwrap();
    root.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000)).unwrap();
    let options = CompareOptions { source_date_epoch: Some(1_000), ..CompareOptions::new(MediaType::OCI_LAYER) };
    let layer = place.comparer.compare(&[bind(&lower)], &[bind(&upper)], options).await.unwrap();
    let bytes = place.content.read_all(&layer, 1 << 20).await.unwrap();
    let (mut parser, mut input, mut times) = (windlass_layer::tar::Parser::new(), &bytes[..], Vec::new());
    while let windlass_layer::tar::Event::Entry(entry) = loop {
        match parser.next(&mut input).unwrap() {
            windlass_layer::tar::Event::Data { .. } | windlass_layer::tar::Event::EndOfEntry => {}
            other => break other,
        }
    } {
        times.push((String::from_utf8(entry.path).unwrap(), entry.mtime.seconds, entry.mtime.nanoseconds));
    }
    let expected = [("./", 1_000, 0), (".wh.lower", 1_000, 0), ("old", 5, 7), ("upper", 1_000, 0)];
    assert_eq!(times, expected.map(|(name, seconds, nanoseconds)| (name.to_owned(), seconds, nanoseconds)));
}

#[tokio::test]
async fn names_of_one_file_are_told_from_files_that_are_alike() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(directory.path(), Native::open(&directory.path().join("native")).await.unwrap());
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
    let [apart, joined] = ["apart", "joined"].map(|name| directory.path().join(name));
    for path in [&apart, &joined] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("a"), "same").unwrap();
    }
    std::fs::write(apart.join("b"), "same").unwrap();
    std::fs::hard_link(joined.join("a"), joined.join("b")).unwrap();
    for path in [&apart, &joined] {
        for name in ["a", "b", "."] {
            std::fs::File::open(path.join(name)).unwrap().set_modified(time).unwrap();
        }
    }
    let bind = |path: &Path| {
        let (source, options) = (path.display().to_string(), vec!["ro".into()]);
        [Mount { kind: "bind".into(), source, target: String::new(), options }]
    };
    for (lower, upper) in [(&apart, &joined), (&joined, &apart)] {
        let layer = place.compare(&bind(lower), &bind(upper)).await;
        let bytes = place.content.read_all(&layer, 1 << 20).await.unwrap();
        assert_eq!(names(&bytes, u64::MAX).0, ["a", "b"]);
    }
}
