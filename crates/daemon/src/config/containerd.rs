//! containerd's configuration, versions 2, 3 and 4, as far as it means something here.
//!
//! What means nothing here is said: as a note when it is known what it is, as a warning with the nearest known name when
//! nobody knows it. Version 4 has the sockets as plugins, the others in tables of their own; both are read in every version,
//! as containerd's own migration accepts both.

use std::collections::BTreeSet;
use std::path::PathBuf;

use windlass::transfer::Content as Layers;
use windlass_core::Result;

use super::own;
use super::{Config, VERIFIERS};
use windlass_core::settings::{Table, Unknown, Value, nearest};

/// The versions that are read.
const VERSIONS: std::ops::RangeInclusive<i64> = 2..=4;

/// What came of a file beside the configuration.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Files that it wants to be read too, as patterns.
    pub(super) imports: Vec<String>,
    /// What was not taken over.
    pub(super) notes: Vec<String>,
}

/// Tables and keys that are known and mean nothing here.
const MEANINGLESS: [&str; 7] =
    ["temp", "oom_score", "plugin_dir", "cgroup", "timeouts", "stream_processors", "version"];

/// What plugins of containerd are called here. Nothing for those that are not here, with why.
const PLUGINS: [(&str, &str); 36] = [
    ("io.containerd.gc.v1.scheduler", ""),
    ("io.containerd.metadata.v1.bolt", ""),
    ("io.containerd.content.v1.content", ""),
    ("io.containerd.snapshotter.v1.overlayfs", ""),
    ("io.containerd.snapshotter.v1.erofs", ""),
    ("io.containerd.snapshotter.v1.native", ""),
    ("io.containerd.transfer.v1.local", ""),
    ("io.containerd.grpc.v1.cri", ""),
    ("io.containerd.cri.v1.images", ""),
    ("io.containerd.server.v1.grpc", ""),
    ("io.containerd.server.v1.ttrpc", ""),
    ("io.containerd.server.v1.metrics", ""),
    ("io.containerd.cri.v1.runtime", "there is no CRI here yet"),
    ("io.containerd.server.v1.debug", "there is no debug socket: --log-level and /metrics tell what goes on"),
    ("io.containerd.server.v1.grpc-tcp", "the API is on a unix socket only"),
    ("io.containerd.metrics.v1.grpc-prometheus", "latencies are always counted"),
    ("io.containerd.differ.v1.walking", "layers are compared and applied in this process"),
    ("io.containerd.differ.v1.erofs", "EROFS images are written in this process"),
    ("io.containerd.service.v1.diff-service", ""),
    ("io.containerd.service.v1.tasks-service", "there are no tasks here yet"),
    ("io.containerd.runtime.v1.linux", "there are no tasks here yet"),
    ("io.containerd.runtime.v2.task", "there are no tasks here yet"),
    ("io.containerd.shim.v1.manager", "there are no tasks here yet"),
    ("io.containerd.monitor.v1.cgroups", "there are no tasks here yet"),
    ("io.containerd.monitor.task.v1.cgroups", "there are no tasks here yet"),
    ("io.containerd.internal.v1.restart", "there are no tasks here yet"),
    ("io.containerd.internal.v1.opt", "programs are not installed from images"),
    ("io.containerd.internal.v1.tracing", "there are no traces"),
    ("io.containerd.tracing.processor.v1.otlp", "there are no traces"),
    (VERIFIERS, ""),
    ("io.containerd.nri.v1.nri", "there are no tasks here yet"),
    ("io.containerd.snapshotter.v1.aufs", "that snapshotter is not here"),
    ("io.containerd.snapshotter.v1.blockfile", "that snapshotter is not here"),
    ("io.containerd.snapshotter.v1.btrfs", "that snapshotter is not here"),
    ("io.containerd.snapshotter.v1.devmapper", "that snapshotter is not here"),
    ("io.containerd.snapshotter.v1.zfs", "that snapshotter is not here"),
];

/// Tells whether a file is one of containerd's, and reads its version.
///
/// # Errors
/// `InvalidArgument` for a version that is not read.
pub(super) fn version(file: &mut Table<'_>) -> Result<Option<i64>> {
    let Some(value) = file.value("version") else { return Ok(None) };
    let version: i64 = value.number()?;
    if VERSIONS.contains(&version) {
        return Ok(Some(version));
    }
    let error =
        value.wrong(format_args!("is {version}, and versions 2, 3 and 4 of containerd's configuration are read"));
    Err(error.hint("`containerd config migrate` writes a newer one; our own configuration has no version"))
}

/// Takes over what a file says that means something here.
pub(super) fn read(mut file: Table<'_>, config: &mut Config) -> Result<Read> {
    let mut read = Read::default();
    if let Some(root) = file.value("root") {
        set_path(&root, &mut config.root)?;
    }
    if let Some(state) = file.value("state") {
        set_path(&state, &mut config.state)?;
    }
    if let Some(imports) = file.value("imports") {
        read.imports = imports.texts()?;
    }
    if let Some(disabled) = file.value("disabled_plugins") {
        Read::take_plugins(disabled, &mut config.disabled_plugins)?;
    }
    if let Some(required) = file.value("required_plugins") {
        Read::take_plugins(required, &mut config.required_plugins)?;
    }
    read.sockets(&mut file, config)?;
    if let Some(table) = file.table("proxy_plugins")? {
        for (name, value) in table.entries() {
            let place = value.place();
            match own::proxy_plugin(name, value) {
                Ok((plugin, rest)) => {
                    config.proxy_plugins.insert(name.to_owned(), plugin);
                    read.unknown(rest);
                }
                Err(error) => read.notes.push(note(&place, &format!("proxy_plugins.{name}"), &error.to_string())),
            }
        }
    }
    if let Some(table) = file.table("plugins")? {
        for (name, value) in table.entries() {
            read.plugin(name, value, config)?;
        }
    }
    for key in MEANINGLESS {
        if let Some(value) = file.value(key).filter(|value| key != "version" && !is_unset(value)) {
            read.notes.push(note(&value.place(), key, "means nothing here"));
        }
    }
    read.unknown(file.rest());
    Ok(read)
}

impl Read {
    fn unknown(&mut self, unknown: Vec<Unknown>) {
        for Unknown { place, key, nearest, .. } in unknown {
            let hint = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            self.notes.push(note(&place, &key, &format!("is not known{hint}")));
        }
    }

    /// Reads the tables of the sockets, as versions before 4 have them.
    fn sockets(&mut self, file: &mut Table<'_>, config: &mut Config) -> Result<()> {
        if let Some(mut table) = file.table("grpc")? {
            for key in ["tcp_address", "tcp_tls_ca", "tcp_tls_cert", "tcp_tls_key", "tcp_tls_common_name"] {
                self.without_meaning(&mut table, key, "the API is on a unix socket only");
            }
            self.unknown(own::grpc(table, &mut config.grpc)?);
        }
        if let Some(table) = file.table("ttrpc")? {
            self.unknown(own::ttrpc(table, &mut config.ttrpc)?);
        }
        if let Some(mut table) = file.table("debug")? {
            for key in ["address", "uid", "gid", "format"] {
                self.without_meaning(&mut table, key, "there is no debug socket, and the log is text");
            }
            if let Some(level) =
                table.value("level").map(|level| level.text()).transpose()?.filter(|level| !level.is_empty())
            {
                level_of(&level).clone_into(&mut config.debug.level);
            }
            self.unknown(table.rest());
        }
        if let Some(mut table) = file.table("metrics")? {
            self.without_meaning(&mut table, "grpc_histogram", "latencies are always counted");
            self.metrics(table, config)?;
        }
        Ok(())
    }

    /// An address that is not taken is no reason not to start.
    fn metrics(&mut self, mut table: Table<'_>, config: &mut Config) -> Result<()> {
        let place = table.value("address").map(|address| address.place());
        match own::metrics(table, &mut config.metrics) {
            Ok(unknown) => self.unknown(unknown),
            Err(error) => {
                let Some(place) = place else { return Err(error) };
                self.notes.push(note(&place, "metrics.address", &format!("is not taken over: {error}")));
            }
        }
        Ok(())
    }

    fn without_meaning(&mut self, table: &mut Table<'_>, key: &'static str, why: &str) {
        if let Some(value) = table.value(key).filter(|value| !is_unset(value)) {
            self.notes.push(note(&value.place(), value.key(), &format!("means nothing here: {why}")));
        }
    }

    /// Takes over a list of plugins: those that are not here need not be left out.
    fn take_plugins(list: Value<'_>, into: &mut BTreeSet<String>) -> Result<()> {
        for item in list.list()? {
            let uri = item.text()?;
            if !uri.contains('.') {
                return Err(item.wrong(format_args!("has {uri:?}")).hint("a plugin is named KIND.ID"));
            }
            into.insert(uri);
        }
        Ok(())
    }

    /// Reads the table of a plugin.
    fn plugin(&mut self, name: &str, value: Value<'_>, config: &mut Config) -> Result<()> {
        let (place, key) = (value.place(), value.key().to_owned());
        let mut table = value.table()?;
        match name {
            "io.containerd.gc.v1.scheduler" => self.unknown(own::gc(table, &mut config.gc)?),
            "io.containerd.server.v1.grpc" => self.unknown(own::grpc(table, &mut config.grpc)?),
            "io.containerd.server.v1.ttrpc" => self.unknown(own::ttrpc(table, &mut config.ttrpc)?),
            "io.containerd.server.v1.metrics" => self.metrics(table, config)?,
            "io.containerd.metadata.v1.bolt" => {
                if let Some(policy) = table.value("content_sharing_policy") {
                    config.content.sharing = policy.word(&own::SHARING)?;
                }
                self.without_meaning(&mut table, "no_sync", "what is recorded is always made durable by a daemon");
                self.unknown(table.rest());
            }
            "io.containerd.snapshotter.v1.overlayfs"
            | "io.containerd.snapshotter.v1.native"
            | "io.containerd.snapshotter.v1.erofs" => self.snapshotter(table),
            "io.containerd.grpc.v1.cri" => {
                Self::images(&mut table, config)?;
                if let Some(mut table) = table.table("containerd")? {
                    Self::images(&mut table, config)?;
                }
                self.notes.push(note(&place, &key, "there is no CRI here yet; what it says of images is taken over"));
            }
            "io.containerd.cri.v1.images" => Self::images(&mut table, config)?,
            "io.containerd.transfer.v1.local" => Self::transfer(&mut table, config)?,
            "io.containerd.service.v1.diff-service" => self.unknown(own::diff(table, &mut config.diff)?),
            VERIFIERS => {
                self.without_meaning(&mut table, "verify_on_run", "there are no containers here yet");
                // The policy is a key of ours alone.
                let policy = config.verification.policy.clone();
                self.unknown(own::verification(table, &mut config.verification)?);
                config.verification.policy = policy;
            }
            _ => self.other(name, &place, &key),
        }
        Ok(())
    }

    /// Notes a plugin of which nothing is read.
    fn other(&mut self, name: &str, place: &str, key: &str) {
        let what = match PLUGINS.iter().find(|(known, _)| *known == name) {
            Some((_, "")) => return,
            Some((_, why)) => format!("means nothing here: {why}"),
            None => match nearest(name, PLUGINS.iter().map(|(known, _)| *known)) {
                Some(name) => format!("is not known; did you mean {name}?"),
                None => "is not known".to_owned(),
            },
        };
        self.notes.push(note(place, key, &what));
    }

    fn snapshotter(&mut self, mut table: Table<'_>) {
        if let Some(path) = table.value("root_path").filter(|value| !is_unset(value)) {
            let what =
                "is not taken over: snapshots are in ROOT/snapshots; a directory there may be a link to another place";
            self.notes.push(note(&path.place(), path.key(), what));
        }
        let options =
            ["upperdir_label", "sync_remove", "slow_chown", "mount_options", "default_size", "enable_fsverity"];
        for key in options {
            self.without_meaning(&mut table, key, "the snapshotter has no such option");
        }
        self.unknown(table.rest());
    }

    /// Reads what the CRI says of images, in whichever table it does.
    fn images(table: &mut Table<'_>, config: &mut Config) -> Result<()> {
        if let Some(downloads) = table.value("max_concurrent_downloads").filter(|value| !is_unset(value)) {
            config.transfer.max_concurrent_downloads = own::at_least_one(&downloads)?;
        }
        if let Some(snapshotter) = table.value("snapshotter").filter(|value| !is_unset(value)) {
            config.snapshots.default = Some(snapshotter.text()?);
        }
        if let Some(discard) = table.value("discard_unpacked_layers") {
            config.content.layers = if discard.flag()? { Layers::Drop } else { Layers::Keep };
        }
        if let Some(mut registry) = table.table("registry")? {
            hosts_dirs(&mut registry, config)?;
        }
        Ok(())
    }

    fn transfer(table: &mut Table<'_>, config: &mut Config) -> Result<()> {
        if let Some(downloads) = table.value("max_concurrent_downloads").filter(|value| !is_unset(value)) {
            config.transfer.max_concurrent_downloads = own::at_least_one(&downloads)?;
        }
        if let Some(unpacks) = table.value("max_concurrent_unpacks").filter(|value| !is_unset(value)) {
            config.transfer.max_concurrent_unpacks = Some(own::at_least_one(&unpacks)?);
        }
        hosts_dirs(table, config)?;
        Ok(())
    }
}

/// Reads where directories of registries are: a list with colons.
fn hosts_dirs(table: &mut Table<'_>, config: &mut Config) -> Result<()> {
    if let Some(value) = table.value("config_path").filter(|value| !is_unset(value)) {
        let places = value.text()?;
        config.registry.hosts_dirs = places.split(':').filter(|place| !place.is_empty()).map(PathBuf::from).collect();
    }
    Ok(())
}

fn note(place: &str, key: &str, what: &str) -> String {
    format!("{place}: {key} {what}")
}

/// A value that containerd's default configuration has for "nothing".
fn is_unset(value: &Value<'_>) -> bool {
    value.is_empty()
}

fn set_path(value: &Value<'_>, to: &mut PathBuf) -> Result<()> {
    if let Some(path) = value.path()? {
        *to = path;
    }
    Ok(())
}

/// Returns our word for one of containerd's levels.
fn level_of(level: &str) -> &str {
    match level {
        "warning" => "warn",
        "fatal" | "panic" => "error",
        other => other,
    }
}
