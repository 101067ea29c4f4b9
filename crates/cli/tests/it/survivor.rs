//! A root that bad things happen to, round after round, and what must be true of it after each of them.
//!
//! Each round begins a [`Deed`], a real process that is stopped at a random instant by whatever the test has in store.
//! The states that this leaves accumulate. Seeded: `WINDLASS_SEED` repeats a run, as far as the instants of a machine can
//! be repeated, and `WINDLASS_SOAK` multiplies the rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, FileTimes};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use futures::TryStreamExt;
use tokio::runtime::Runtime;
use windlass::mount::Temporary;
use windlass::{EROFS, Engine, LockWait, NATIVE, OVERLAYFS};
use windlass_core::gc::Deletion;
use windlass_core::snapshot::{Key, Name, Snapshotter, State};
use windlass_core::{Digest, Host, Labels, Namespace, Platform, Services, image};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::mounted::Mounted;
use windlass_testkit::registry::{Fake, Fault};
use windlass_testkit::tree::{Kind, Tree, assert_same};

use crate::dist::{Dist, files_below};
use crate::fixture;

/// The seed of this run, and how many times as long as usual it is.
pub(crate) struct Course {
    pub(crate) random: Random,
    pub(crate) rounds: usize,
}

impl Course {
    /// Reads what the environment says about a course of so many rounds, and prints the seed.
    pub(crate) fn of(name: &str, rounds: usize) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed = number("WINDLASS_SEED").unwrap_or_else(now);
        let times = usize::try_from(number("WINDLASS_SOAK").unwrap_or(1)).unwrap().max(1);
        println!("{name}: WINDLASS_SEED={seed}");
        Self { random: Random::new(seed), rounds: rounds * times }
    }
}

/// Numbers that look random: xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit.max(1)
    }
}

/// What a round begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    Pull(&'static str),
    Remove,
    Ingest(u64),
}

impl Deed {
    /// Which deeds take about as long.
    fn class(self) -> Self {
        if let Self::Ingest(_) = self { Self::Ingest(0) } else { self }
    }
}

/// What a process said that it had done, and nothing undid.
#[derive(Debug, Default)]
struct Acknowledged {
    /// The snapshotters that the image was pulled with.
    pulled: BTreeSet<&'static str>,
    removed: bool,
    ingested: BTreeSet<u64>,
}

/// The root, the registry that it pulls from, and what is known of both.
pub(crate) struct Survivor {
    pub(crate) dist: Dist,
    fake: Fake,
    bundle: Bundle,
    reference: String,
    /// The trees behind each snapshot of the image, topmost first, by snapshotter and chain id.
    expected: BTreeMap<(String, String), Vec<Tree>>,
    acknowledged: Acknowledged,
    /// The blobs that had a record after the last round.
    recorded: BTreeSet<Digest>,
    /// What is ingested, by number.
    blobs: Vec<Digest>,
    /// How long a deed is let alone at most.
    patience: BTreeMap<Deed, Duration>,
    /// Last, because the registry lives on it.
    runtime: Runtime,
}

const REPOSITORY: &str = "hard/times";
/// How many blobs there are to be ingested, by number.
const BLOBS: u64 = 8;
/// The number of the large layer's bytes.
const LARGE: u64 = 1000;

impl Survivor {
    /// Begins with an empty root.
    pub(crate) fn new(dist: Dist) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = runtime.block_on(Fake::start());
        let bundle = bundle();
        fixture::serve(&fake, REPOSITORY, "1", &bundle);
        let slow = Fault::Trickle { piece: 16 << 10, pause: Duration::from_millis(2) };
        let large = &bundle.image().layers[2].digest;
        fake.fault(format!("/v2/{REPOSITORY}/blobs/{large}"), slow);
        let reference = format!("{}/{REPOSITORY}:1", fake.host());
        let mut survivor = Self {
            dist,
            fake,
            bundle,
            reference,
            expected: BTreeMap::new(),
            acknowledged: Acknowledged::default(),
            recorded: BTreeSet::new(),
            blobs: (0..BLOBS).map(|number| Digest::sha256(&blob(number))).collect(),
            patience: BTreeMap::new(),
            runtime,
        };
        survivor.learn();
        survivor
    }

    /// Pulls into a root that nothing bad happens to, and remembers what comes of it.
    fn learn(&mut self) {
        let calm = Dist::new();
        for snapshotter in [OVERLAYFS, EROFS, NATIVE] {
            let began = Instant::now();
            calm.ok(&format!("--progress none pull --snapshotter {snapshotter} {}", self.reference));
            self.patience.insert(Deed::Pull(snapshotter), began.elapsed());
        }
        self.expected = self.runtime.block_on(async {
            let engine = open(&calm.root()).await;
            trees(&services(&engine).await).await
        });
        assert_eq!(self.expected.len(), 3 * self.bundle.image().layers.len());
        for ((snapshotter, chain), trees) in &self.expected {
            let files = trees.iter().map(|tree| tree.entries.len()).sum::<usize>();
            assert!(files > trees.len(), "{snapshotter} {chain} has files");
        }
    }

    /// Chooses what to do next: what has something to do.
    pub(crate) fn choose(&self, random: &mut Random) -> Deed {
        match random.below(24) {
            0..10 if !self.acknowledged.pulled.is_empty() => Deed::Remove,
            0..11 => Deed::Pull(OVERLAYFS),
            11..15 => Deed::Pull(NATIVE),
            15..19 => Deed::Pull(EROFS),
            19..21 => Deed::Remove,
            _ => Deed::Ingest(random.below(BLOBS)),
        }
    }

    /// Begins a deed.
    pub(crate) fn begin(&mut self, deed: Deed) -> Child {
        self.fake.forget_requests();
        match deed {
            Deed::Remove => self.acknowledged.pulled.clear(),
            Deed::Pull(_) => self.acknowledged.removed = false,
            Deed::Ingest(_) => {}
        }
        let mut command = self.dist.command(self.line(deed));
        match deed {
            Deed::Ingest(number) => {
                let input = self.dist.path("input");
                std::fs::write(&input, blob(number)).unwrap();
                command.stdin(File::open(input).unwrap());
            }
            _ => {
                command.stdin(Stdio::null());
            }
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn line(&self, deed: Deed) -> Vec<String> {
        let line = match deed {
            Deed::Pull(snapshotter) => {
                // Small enough for parts, which are continued as such whether there were several at once or not.
                format!(
                    "pull --snapshotter {snapshotter} --range-threshold 64KiB --range-size 32KiB {}",
                    self.reference
                )
            }
            Deed::Remove => format!("images rm {}", self.reference),
            Deed::Ingest(number) => {
                format!("content ingest blob-{number} --expected-digest {}", self.blob(number))
            }
        };
        format!("--wait=20s --progress none {line}").split(' ').map(ToOwned::to_owned).collect()
    }

    fn blob(&self, number: u64) -> &Digest {
        &self.blobs[usize::try_from(number).unwrap()]
    }

    /// Says how long to let a deed alone, learning from how long it took before.
    pub(crate) fn patience(&self, deed: Deed, random: &mut Random) -> Duration {
        let limit = self.patience.get(&deed.class()).copied().unwrap_or(Duration::from_millis(60));
        Duration::from_micros(random.below(u64::try_from(limit.as_micros()).unwrap()))
    }

    /// Takes note of how a deed ended: a success that was seen is one that has to last.
    pub(crate) fn ended(&mut self, deed: Deed, output: &Output, seen: bool) {
        let limit = self.patience.entry(deed.class()).or_insert(Duration::from_millis(60));
        *limit = if seen { *limit * 9 / 10 } else { *limit * 21 / 20 }.max(Duration::from_millis(10));
        if !seen {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match deed {
            // An image that an earlier deed may have removed need not be there.
            Deed::Remove => assert!(output.status.success() || said.contains("is not in namespace"), "{said}"),
            _ => assert!(output.status.success(), "{deed:?}: {said}"),
        }
        match deed {
            Deed::Pull(snapshotter) => drop(self.acknowledged.pulled.insert(snapshotter)),
            Deed::Remove => self.acknowledged.removed = true,
            Deed::Ingest(number) => drop(self.acknowledged.ingested.insert(number)),
        }
    }

    /// Does something to its end; it must succeed.
    pub(crate) fn complete(&mut self, deed: Deed) {
        let child = self.begin(deed);
        let output = child.wait_with_output().unwrap();
        self.ended(deed, &output, true);
        self.check(deed);
    }

    /// Checks everything that has to be true after a deed, however it ended.
    pub(crate) fn check(&mut self, deed: Deed) {
        let asked: BTreeSet<String> =
            self.fake.requests().into_iter().filter(|it| it.method == "GET").map(|it| it.path).collect();
        for digest in &self.recorded {
            let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
            assert!(!asked.contains(&path), "{deed:?} downloaded {digest} again, which had a record");
        }
        let root = self.dist.root();
        self.recorded = self.runtime.block_on(async {
            let engine = open(&root).await;
            let services = services(&engine).await;
            let recorded = assert_blobs(&services, &root).await;
            for (of, trees) in trees(&services).await {
                let expected = self.expected.get(&of).unwrap_or_else(|| panic!("{of:?} is nobody's"));
                assert_eq!(trees.len(), expected.len(), "{of:?}");
                trees.iter().zip(expected).for_each(|(tree, expected)| assert_same(tree, expected));
            }
            self.assert_acknowledged(&services, &recorded).await;
            recorded
        });
    }

    async fn assert_acknowledged(&self, services: &Services, recorded: &BTreeSet<Digest>) {
        let Acknowledged { pulled, removed, ingested } = &self.acknowledged;
        let name: image::Name = self.reference.parse().unwrap();
        let image = services.images.get(&name).await;
        if !pulled.is_empty() {
            assert_eq!(image.as_ref().unwrap().target, self.bundle.root);
            let lacks: Vec<_> = self.bundle.blobs.keys().filter(|digest| !recorded.contains(digest)).collect();
            assert!(lacks.is_empty(), "the image was pulled and lacks {lacks:?}");
        }
        assert!(!removed || image.is_err(), "the image was removed and is there");
        for snapshotter in pulled {
            for chain in self.bundle.image().chain_ids() {
                let found = services.snapshotters[*snapshotter].stat(Name::from(&chain).as_key()).await;
                assert_eq!(found.unwrap().state, State::Committed, "{snapshotter} {chain}");
            }
        }
        for number in ingested {
            assert!(recorded.contains(self.blob(*number)), "blob {number} was ingested and is gone");
        }
    }

    /// Deletes everything, collects, and checks that nothing is left.
    pub(crate) fn clear(&mut self) {
        let root = self.dist.root();
        self.runtime.block_on(async {
            let engine = open(&root).await;
            let services = services(&engine).await;
            let images: Vec<_> = services.images.list(&[]).try_collect().await.unwrap();
            for image in images {
                services.images.delete(&image.name, Deletion::Background).await.unwrap();
            }
            for lease in services.leases.list(&[]).await.unwrap() {
                services.leases.delete(&lease.id, Deletion::Background).await.unwrap();
            }
            for digest in &self.blobs {
                // Not all of them are there.
                let _ = services.content.delete(digest).await;
            }
            make_old(&root.join("content/ingest"));
            engine.collector().collect().await.unwrap();
            let content: Vec<_> = services.content.list(&[]).try_collect().await.unwrap();
            assert!(content.is_empty(), "{content:?}");
            let ingests = services.content.statuses(&[]).await.unwrap();
            assert!(ingests.is_empty(), "{ingests:?}");
        });
        assert_eq!(files_below(&root.join("content")), Vec::<std::path::PathBuf>::new());
        for snapshotter in [OVERLAYFS, EROFS, NATIVE] {
            let directories = root.join("snapshots").join(snapshotter).join("snapshots");
            let left: Vec<_> = std::fs::read_dir(directories).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let ingests: Vec<_> = std::fs::read_dir(root.join("content/ingest")).unwrap().collect();
        assert!(ingests.is_empty(), "{ingests:?}");
        self.acknowledged = Acknowledged::default();
        self.recorded.clear();
    }
}

/// Four small layers, of which one takes its time on the way.
fn bundle() -> Bundle {
    let many = (0..20).fold(Layer::new().dir("many", 0o755), |layer, number| {
        layer.file(&format!("many/{number}"), format!("file {number}\n").repeat(200))
    });
    Image::new(&Platform::host().to_string())
        .layer(Layer::new().dir("etc", 0o755).file("etc/keep", "kept\n").file("etc/gone", "gone\n"))
        .layer(many)
        .layer(Layer::new().file("large", noise(LARGE, 400 << 10)))
        .layer(Layer::new().dir("etc", 0o750).whiteout("etc/gone").hardlink("etc/same", "etc/keep"))
        .build()
}

/// The bytes that are ingested under a number.
fn blob(number: u64) -> Vec<u8> {
    noise(number, 100 << 10)
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length / 8).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect()
}

async fn open(root: &Path) -> Engine {
    Engine::builder(root).lock_wait(LockWait::UpTo(Duration::from_secs(20))).open().await.unwrap()
}

async fn services(engine: &Engine) -> Services {
    engine.services(&Namespace::default().into()).await.unwrap()
}

/// Has a day and more pass for ingests: those that no lease holds, or that cannot tell whose they are, end then.
fn make_old(ingests: &Path) {
    let then = FileTimes::new().set_modified(SystemTime::now() - Duration::from_hours(49));
    for ingest in std::fs::read_dir(ingests).unwrap().map(|entry| entry.unwrap().path()) {
        files_below(&ingest)
            .into_iter()
            .chain([ingest])
            .for_each(|path| File::open(path).unwrap().set_times(then).unwrap());
    }
}

/// Checks that every blob with a record is there, whole, and returns their digests.
async fn assert_blobs(services: &Services, root: &Path) -> BTreeSet<Digest> {
    let infos: Vec<_> = services.content.list(&[]).try_collect().await.unwrap();
    let check = |info: windlass_core::content::Info| {
        let path = root.join("content/blobs").join(info.digest.algorithm().as_str()).join(info.digest.hex());
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{} has a record: {error}", path.display()));
        assert_eq!((bytes.len() as u64, &Digest::sha256(&bytes)), (info.size, &info.digest), "{}", path.display());
        info.digest
    };
    infos.into_iter().map(check).collect()
}

/// Returns the trees behind every committed snapshot. There must be no other.
async fn trees(services: &Services) -> BTreeMap<(String, String), Vec<Tree>> {
    let mut found = BTreeMap::new();
    for (name, snapshotter) in services.snapshotters.iter() {
        let infos: Vec<_> = snapshotter.walk(&[]).try_collect().await.unwrap();
        for info in infos {
            assert_eq!(info.state, State::Committed, "{name} {} was left", info.key);
            found.insert((name.clone(), info.key.to_string()), view(&**snapshotter, &info.key).await);
        }
    }
    found
}

async fn view(snapshotter: &dyn Snapshotter, of: &Key) -> Vec<Tree> {
    let (key, parent): (Key, Name) = ("look".parse().unwrap(), of.as_str().parse().unwrap());
    let mounts = snapshotter.view(&key, Some(&parent), Labels::new()).await.unwrap();
    // Two pulls differ in when the root of a tree and its whiteouts were made, and in nothing else.
    let tree = |layer: &Path| {
        Tree::of(layer).unwrap().without_mtimes(|path, entry| path == "." || matches!(entry.kind, Kind::CharDevice(..)))
    };
    let trees = if let Ok(mounted) = Mounted::of(&mounts) {
        mounted.layers.iter().map(|layer| tree(layer)).collect()
    } else {
        // Images cannot be looked into without mounting them.
        let target = tempfile::tempdir().unwrap();
        let mounted = Temporary::mount(&mounts, target.path()).unwrap();
        let seen = tree(mounted.path());
        mounted.close().unwrap();
        vec![seen]
    };
    snapshotter.remove(&key).await.unwrap();
    trees
}

/// Ends a child and returns what it said.
pub(crate) fn end(mut child: Child) -> Output {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait_with_output().unwrap()
}

/// Waits until a child has ended or the time is up, and tells which.
pub(crate) fn ends_within(child: &mut Child, time: Duration) -> bool {
    std::thread::sleep(time);
    child.try_wait().unwrap().is_some()
}
