//! The plugins of a daemon: the one list of them, what each needs, and what became of it.
//!
//! Kinds and ids are containerd's, because clients look for them. What containerd lists under `io.containerd.service.v1` are
//! layers of its own between its services and its stores, which are not here, and which no client asks for. As with containerd,
//! what a plugin requires starts before it, and a snapshotter that did not is no reason for the rest not to.
//!
//! ```text
//! table + proxies ─► order (plugins) ─► what is left out ─► the engine opens ─► outcomes ─► what is required is there?
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass::{Builder, EROFS, Elsewhere, Engine, NATIVE, OVERLAYFS};
use windlass_core::plugin::{CONTENT, DIFFER, Outcome, Plugin, SNAPSHOTTER};
use windlass_core::snapshot::Snapshotter;
use windlass_core::{Error, Host as _, Platform, Result, Scope};

use crate::config::{Config, ProxyKind, ProxyPlugin};
use crate::plugins::{Node, order};

/// The kinds of plugins beside those that the contract names.
const METADATA: &str = "io.containerd.metadata.v1";
const GC: &str = "io.containerd.gc.v1";
const EVENT: &str = "io.containerd.event.v1";
const LEASE: &str = "io.containerd.lease.v1";
const SERVICE: &str = "io.containerd.grpc.v1";
const MOUNTS: &str = "io.containerd.mount-manager.v1";
const RUNTIME: &str = "io.containerd.runtime.v2";
const STREAMING: &str = "io.containerd.streaming.v1";
const TRANSFER: &str = "io.containerd.transfer.v1";
const TTRPC: &str = "io.containerd.ttrpc.v1";
const VERIFIER: &str = "io.containerd.image-verifier.v1";

/// How a plugin comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// With the engine, which is nothing without it.
    Core,
    /// With the engine, unless another one takes its place.
    Content,
    /// With the engine, which works without it.
    Snapshotter,
    /// With the engine, when it is wanted.
    Scheduler,
    /// As the gRPC service of that name.
    Service(&'static str),
    /// With its directory.
    Programs,
    /// With its socket.
    Socket,
    /// Not at all yet. It is listed because BuildKit takes the platforms that it builds for from it, and starts nowhere
    /// without; what its platforms are is known whether it runs anything or not.
    Runtime,
    /// In a process of its own.
    Proxy(ProxyKind),
}

/// Every plugin that is built in: kind, id, what it requires, how it comes to be.
const TABLE: &[(&str, &str, &[&str], Part)] = &[
    (CONTENT, "content", &[], Part::Content),
    (SNAPSHOTTER, OVERLAYFS, &[], Part::Snapshotter),
    (SNAPSHOTTER, EROFS, &[], Part::Snapshotter),
    (SNAPSHOTTER, NATIVE, &[], Part::Snapshotter),
    (METADATA, "bolt", &[CONTENT, SNAPSHOTTER], Part::Core),
    (DIFFER, "walking", &[METADATA], Part::Core),
    (EVENT, "exchange", &[], Part::Core),
    (LEASE, "manager", &[METADATA], Part::Core),
    (MOUNTS, "bolt", &[], Part::Core),
    (GC, "scheduler", &[METADATA], Part::Scheduler),
    (SERVICE, "containers", &[METADATA], Part::Service("containerd.services.containers.v1.Containers")),
    (SERVICE, "content", &[METADATA], Part::Service("containerd.services.content.v1.Content")),
    (SERVICE, "diff", &[DIFFER], Part::Service("containerd.services.diff.v1.Diff")),
    (SERVICE, "events", &[EVENT], Part::Service("containerd.services.events.v1.Events")),
    (SERVICE, "healthcheck", &[], Part::Service("grpc.health.v1.Health")),
    (SERVICE, "images", &[METADATA], Part::Service("containerd.services.images.v1.Images")),
    (SERVICE, "introspection", &[], Part::Service("containerd.services.introspection.v1.Introspection")),
    (SERVICE, "leases", &[LEASE], Part::Service("containerd.services.leases.v1.Leases")),
    (SERVICE, "mounts", &[MOUNTS], Part::Service("containerd.services.mounts.v1.Mounts")),
    (SERVICE, "namespaces", &[METADATA], Part::Service("containerd.services.namespaces.v1.Namespaces")),
    (SERVICE, "snapshots", &[SNAPSHOTTER, METADATA], Part::Service("containerd.services.snapshots.v1.Snapshots")),
    (RUNTIME, "task", &[METADATA, EVENT], Part::Runtime),
    (STREAMING, "manager", &[], Part::Core),
    (VERIFIER, "bindir", &[], Part::Programs),
    (TRANSFER, "local", &[METADATA, SNAPSHOTTER, DIFFER, STREAMING, VERIFIER], Part::Core),
    (SERVICE, "streaming", &[STREAMING], Part::Service("containerd.services.streaming.v1.Streaming")),
    (SERVICE, "tasks", &[METADATA], Part::Service("containerd.services.tasks.v1.Tasks")),
    (SERVICE, "transfer", &[TRANSFER], Part::Service("containerd.services.transfer.v1.Transfer")),
    (SERVICE, "maintenance", &[METADATA], Part::Service("windlass.services.maintenance.v1.Maintenance")),
    (SERVICE, "version", &[], Part::Service("containerd.services.version.v1.Version")),
    (TTRPC, "events", &[EVENT], Part::Socket),
];

/// A plugin that is to be.
struct Planned {
    node: Node,
    part: Part,
    /// What became of it before it was started.
    settled: Option<Outcome>,
}

/// Parts of an engine that are processes of their own.
#[derive(Default)]
pub(crate) struct Foreign {
    pub(crate) snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    pub(crate) content: Option<Elsewhere>,
}

/// What is to be started, in its order.
pub(crate) struct Assembly {
    planned: Vec<Planned>,
    required: BTreeSet<String>,
    proxies: BTreeMap<String, ProxyPlugin>,
}

impl Assembly {
    /// Plans what a configuration asks for.
    ///
    /// # Errors
    /// `InvalidArgument` for something that cannot be left out or that is required and unknown, for a proxy that is the daemon
    /// itself, and when there is not one content store; those of [`order`].
    pub(crate) fn plan(config: &Config) -> Result<Self> {
        let proxies = config.proxy_plugins.iter();
        if let Some((id, _)) = proxies.clone().find(|(_, proxy)| proxy.address == config.grpc.address) {
            let address = config.grpc.address.display();
            return Err(Error::invalid_argument(format!(
                "proxy plugin {id} is this daemon itself: both are at {address}"
            ))
            .hint("proxy_plugins names the socket of another process"));
        }
        // One of a proxy's kind and name that is left out is one that the proxy takes the place of.
        let replaced = |kind: &str, id: &str| {
            let proxy = config.proxy_plugins.get(id);
            proxy.is_some_and(|proxy| kind_of(proxy.kind) == kind)
                && config.disabled_plugins.contains(&format!("{kind}.{id}"))
        };
        let nodes: Vec<(Node, Part)> = TABLE
            .iter()
            .filter(|(kind, id, _, part)| !matches!(part, Part::Snapshotter | Part::Content) || !replaced(kind, id))
            .map(|(kind, id, requires, part)| (node(kind, id, requires), *part))
            .chain(proxies.map(|(id, proxy)| (node(kind_of(proxy.kind), id, &[]), Part::Proxy(proxy.kind))))
            .collect();
        let places: Vec<Node> = nodes.iter().map(|(node, _)| node.clone()).collect();
        let mut planned = Vec::new();
        for (node, part) in order(&places)?.into_iter().filter_map(|at| nodes.get(at).cloned()) {
            let takes_place = matches!(part, Part::Proxy(_)) && is_built_in(&node);
            let disabled = config.disabled_plugins.contains(&node.uri()) && !takes_place;
            if disabled && part == Part::Core {
                return Err(Error::invalid_argument(format!("plugin {} cannot be left out", node.uri()))
                    .hint("nothing works without it: take it out of disabled_plugins"));
            }
            let reason = match part {
                _ if disabled => Some("it is disabled by the configuration"),
                Part::Runtime => Some("nothing runs here yet"),
                _ => None,
            };
            let settled = reason.map(|reason| Outcome::Skipped { reason: reason.to_owned() });
            planned.push(Planned { node, part, settled });
        }
        let assembly =
            Self { planned, required: config.required_plugins.clone(), proxies: config.proxy_plugins.clone() };
        assembly.content_is_kept_once()?;
        assembly.names_are_known(config)?;
        Ok(assembly)
    }

    /// There is one content store: containerd does not start what stands on it when there are two.
    fn content_is_kept_once(&self) -> Result<()> {
        let stores: Vec<&Planned> =
            self.planned.iter().filter(|it| it.node.kind == CONTENT && it.settled.is_none()).collect();
        match stores.as_slice() {
            [_] => Ok(()),
            [] => Err(Error::invalid_argument("nothing keeps content: every content store is left out")
                .hint("take one out of disabled_plugins, or name a proxy plugin of the type content")),
            [first, .., last] => {
                // Which one is meant is plain when somebody named one beside ours.
                let surplus = if first.part == Part::Content { first } else { last };
                let uris: Vec<String> = stores.iter().map(|it| it.node.uri()).collect();
                Err(Error::invalid_argument(format!("there is more than one content store: {}", uris.join(", ")))
                    .hint(format!("keep one; to leave one out: disabled_plugins = [\"{}\"]", surplus.node.uri())))
            }
        }
    }

    /// A name that nobody knows may be left out: a configuration of containerd leaves out what is only there.
    fn names_are_known(&self, config: &Config) -> Result<()> {
        let known = |uri: &String| self.planned.iter().any(|planned| planned.node.uri() == *uri);
        for uri in config.disabled_plugins.iter().filter(|uri| !known(uri)) {
            tracing::debug!("plugin {uri} is disabled, and is not here anyway");
        }
        match self.required.iter().find(|uri| !known(uri)) {
            None => Ok(()),
            Some(uri) => Err(Error::invalid_argument(format!("plugin {uri} is required and is not here"))
                .hint("`dist plugins ls` lists those there are; take it out of required_plugins")),
        }
    }

    /// Tells whether a plugin is wanted.
    fn wants(&self, kind: &str, id: &str) -> bool {
        let wanted = |it: &&Planned| it.node.kind == kind && it.node.id == id && it.settled.is_none();
        self.planned.iter().any(|planned| wanted(&planned))
    }

    /// Returns the plugins of a kind that are processes of their own and are wanted.
    pub(crate) fn proxies(&self, kind: ProxyKind) -> impl Iterator<Item = (&String, &ProxyPlugin)> {
        self.proxies.iter().filter(move |(id, proxy)| proxy.kind == kind && self.wants(kind_of(kind), id))
    }

    /// Tells a builder what the engine is to have.
    pub(crate) fn apply(&self, mut builder: Builder, config: &Config, foreign: Foreign) -> Builder {
        builder = builder.sharing(config.content.sharing).layers(config.layers.clone()).tolerate_failures();
        if let Some(name) = &config.snapshots.default {
            builder = builder.default_snapshotter(name);
        }
        if self.wants(GC, "scheduler") {
            builder = builder.collect_by(config.gc);
        }
        for planned in self.planned.iter().filter(|it| it.part == Part::Snapshotter && it.settled.is_some()) {
            builder = builder.without_snapshotter(&planned.node.id);
        }
        if let Some(content) = foreign.content {
            builder = builder.content(content);
        }
        let snapshotters = foreign.snapshotters.into_iter();
        snapshotters.fold(builder, |builder, (name, snapshotter)| builder.snapshotter(name, snapshotter))
    }

    /// Returns what became of every plugin, in the order in which they were started.
    ///
    /// # Errors
    /// `FailedPrecondition` naming those that are required and are not ready, with the reason of each.
    pub(crate) async fn finish(mut self, engine: &Engine, config: &Config) -> Result<Vec<Plugin>> {
        let services = engine.services(&Scope::default()).await?;
        let mut plugins: Vec<Plugin> = Vec::new();
        for planned in std::mem::take(&mut self.planned) {
            let outcome = planned.outcome(engine);
            let mut plugin =
                Plugin { requires: planned.node.requires, ..Plugin::new(planned.node.kind, planned.node.id) };
            plugin.outcome = outcome;
            match planned.part {
                Part::Snapshotter => {
                    plugin.platforms = vec![Platform::host()];
                    let directory = engine.root().join("snapshots").join(&plugin.id);
                    plugin.exports.insert("root".to_owned(), directory.display().to_string());
                    let capabilities = services.snapshotters.get(&plugin.id).map(|it| it.capabilities());
                    plugin.capabilities =
                        capabilities.filter(|it| it.rebase).map(|_| "rebase".to_owned()).into_iter().collect();
                }
                Part::Proxy(_) => {
                    if let Some(proxy) = self.proxies.get(&plugin.id) {
                        plugin.platforms.clone_from(&proxy.platforms);
                        plugin.exports.clone_from(&proxy.exports);
                        plugin.capabilities.clone_from(&proxy.capabilities);
                    }
                }
                Part::Runtime => plugin.platforms = vec![Platform::host()],
                _ => plugin.exports = exports(&plugin, engine, config),
            }
            if plugin.kind == DIFFER && plugin.platforms.is_empty() {
                plugin.platforms = vec![Platform::host()];
            }
            // What nobody could have is not news.
            if planned.part != Part::Runtime {
                report(&plugin);
            }
            plugins.push(plugin);
        }
        self.required_are_ready(&plugins)?;
        Ok(plugins)
    }

    fn required_are_ready(&self, plugins: &[Plugin]) -> Result<()> {
        let missing = plugins.iter().filter(|plugin| self.required.contains(&plugin.uri()) && !plugin.is_ready());
        let missing: Vec<String> = missing
            .map(|plugin| match plugin.outcome.error() {
                Some(error) => format!("{} ({error})", plugin.uri()),
                None => plugin.uri(),
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::failed_precondition(format!("required plugins are not ready: {}", missing.join(", ")))
            .hint("take them out of required_plugins to start without them"))
    }
}

impl Planned {
    fn outcome(&self, engine: &Engine) -> Outcome {
        if let Some(outcome) = &self.settled {
            return outcome.clone();
        }
        match self.part {
            Part::Snapshotter => engine.outcomes().get(&self.node.id).cloned().unwrap_or(Outcome::Ready),
            _ => Outcome::Ready,
        }
    }
}

fn report(plugin: &Plugin) {
    let uri = plugin.uri();
    match &plugin.outcome {
        Outcome::Ready => tracing::debug!("plugin {uri} is ready"),
        Outcome::Skipped { reason } => tracing::info!("plugin {uri} is left out: {reason}"),
        Outcome::Failed { error, .. } => tracing::warn!("plugin {uri} failed: {error}"),
    }
}

/// Returns what others may want to know of a plugin that is built in; the names are containerd's.
fn exports(plugin: &Plugin, engine: &Engine, config: &Config) -> BTreeMap<String, String> {
    let root = engine.root();
    let programs = config.verification.bin_dir.iter().map(|path| ("bin_dir", path.display().to_string()));
    let pairs: Vec<(&str, String)> = match (plugin.kind.as_str(), plugin.id.as_str()) {
        (CONTENT, "content") => vec![("root", root.join("content").display().to_string())],
        (METADATA, _) => {
            let policy = match config.content.sharing {
                windlass::Sharing::Shared => "shared",
                windlass::Sharing::Isolated => "isolated",
            };
            vec![("path", root.join("meta.redb").display().to_string()), ("policy", policy.to_owned())]
        }
        (VERIFIER, _) => programs.collect(),
        (GC, _) => vec![
            ("PauseThreshold", config.gc.pause_threshold.to_string()),
            ("DeletionThreshold", config.gc.deletion_threshold.to_string()),
            ("MutationThreshold", config.gc.mutation_threshold.to_string()),
            ("ScheduleDelay", humantime::format_duration(config.gc.schedule_delay).to_string()),
        ],
        _ => Vec::new(),
    };
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the gRPC services that are not ready, with why, for those who call them.
pub(crate) fn left_out(plugins: &[Plugin]) -> BTreeMap<&'static str, String> {
    let mut left_out = BTreeMap::new();
    for (kind, id, _, part) in TABLE {
        let Part::Service(service) = part else { continue };
        let plugin = plugins.iter().find(|plugin| plugin.kind == *kind && plugin.id == *id);
        if let Some(error) = plugin.and_then(|plugin| plugin.outcome.error()) {
            left_out.insert(*service, error.to_string());
        }
    }
    left_out
}

/// Tells whether there is a plugin of ours of that kind and name.
fn is_built_in(node: &Node) -> bool {
    TABLE.iter().any(|(kind, id, ..)| *kind == node.kind && *id == node.id)
}

/// Returns the kind of plugin that a proxy is.
pub(crate) fn kind_of(proxy: ProxyKind) -> &'static str {
    match proxy {
        ProxyKind::Snapshot => SNAPSHOTTER,
        ProxyKind::Content => CONTENT,
        ProxyKind::Diff => DIFFER,
    }
}

fn node(kind: &str, id: &str, requires: &[&str]) -> Node {
    let requires = requires.iter().map(|name| (*name).to_owned()).collect();
    Node { kind: kind.to_owned(), id: id.to_owned(), requires }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, Config) {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config { root: root.path().to_owned(), ..Config::default() };
        change(&mut config);
        (root, config)
    }

    async fn assembled(config: &Config) -> Result<Vec<Plugin>> {
        let assembly = Assembly::plan(config)?;
        let engine = assembly.apply(Engine::builder(&config.root), config, Foreign::default()).open().await?;
        assembly.finish(&engine, config).await
    }

    fn outcome<'a>(plugins: &'a [Plugin], uri: &str) -> &'a Outcome {
        &plugins.iter().find(|plugin| plugin.uri() == uri).unwrap().outcome
    }

    #[tokio::test]
    async fn everything_that_is_built_in_starts_after_what_it_requires() {
        let (_root, config) = config(|_| ());
        let plugins = assembled(&config).await.unwrap();
        assert_eq!(plugins.len(), TABLE.len());
        let without: Vec<_> = plugins.iter().filter(|plugin| !plugin.is_ready()).map(Plugin::uri).collect();
        assert_eq!(without, ["io.containerd.runtime.v2.task"]);
        for (at, plugin) in plugins.iter().enumerate() {
            for requirement in &plugin.requires {
                let fits = |other: &Plugin| other.kind == *requirement || other.uri() == *requirement;
                assert!(plugins.iter().skip(at).all(|other| !fits(other)), "{} {requirement}", plugin.uri());
            }
        }
    }

    #[tokio::test]
    async fn what_is_disabled_is_skipped_and_its_calls_are_refused() {
        let (_root, config) = config(|config| {
            let disabled = ["io.containerd.gc.v1.scheduler", "io.containerd.snapshotter.v1.erofs", "not.here.v1.x"];
            config.disabled_plugins = disabled.map(ToOwned::to_owned).into();
            config.disabled_plugins.insert("io.containerd.grpc.v1.images".to_owned());
        });
        let plugins = assembled(&config).await.unwrap();
        let skipped: Vec<_> = plugins.iter().filter(|it| !it.is_ready()).map(Plugin::uri).collect();
        assert_eq!(
            skipped,
            [
                "io.containerd.snapshotter.v1.erofs",
                "io.containerd.gc.v1.scheduler",
                "io.containerd.grpc.v1.images",
                "io.containerd.runtime.v2.task",
            ]
        );
        assert!(matches!(outcome(&plugins, "io.containerd.gc.v1.scheduler"), Outcome::Skipped { .. }));
        let left_out = left_out(&plugins);
        assert_eq!(left_out.len(), 1);
        assert!(left_out["containerd.services.images.v1.Images"].contains("skip plugin"), "{left_out:?}");
    }

    #[tokio::test]
    async fn one_that_fails_stops_nobody_unless_it_is_required() {
        let (root, mut config) = config(|_| ());
        std::fs::create_dir_all(root.path().join("snapshots")).unwrap();
        std::fs::write(root.path().join("snapshots/erofs"), "no directory").unwrap();
        let uri = "io.containerd.snapshotter.v1.erofs";
        let plugins = assembled(&config).await.unwrap();
        assert!(matches!(outcome(&plugins, uri), Outcome::Failed { .. }), "{plugins:?}");
        assert_eq!(outcome(&plugins, "io.containerd.snapshotter.v1.overlayfs"), &Outcome::Ready);
        assert_eq!(outcome(&plugins, "io.containerd.metadata.v1.bolt"), &Outcome::Ready);
        drop(plugins);
        config.required_plugins.insert(uri.to_owned());
        let error = assembled(&config).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains(uri), "{error}");
    }

    #[test]
    fn what_nothing_works_without_cannot_be_left_out_and_what_is_required_has_to_be_known() {
        let (_root, config) = config(|config| {
            config.disabled_plugins.insert("io.containerd.metadata.v1.bolt".to_owned());
        });
        assert_eq!(Assembly::plan(&config).err().unwrap().kind(), Kind::InvalidArgument);
        let config = Config { required_plugins: ["io.containerd.grpc.v1.cri".to_owned()].into(), ..Config::default() };
        assert!(Assembly::plan(&config).err().unwrap().to_string().contains("io.containerd.grpc.v1.cri"));
    }
}
