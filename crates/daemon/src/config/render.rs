//! A configuration as a file of ours, with what each key means. Reading it gives the same configuration.

use std::fmt::{Display, Write as _};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use super::{Config, ProxyKind, ProxyPlugin, Registry, Verification, own};

/// Writes a configuration down.
pub fn render(config: &Config) -> String {
    let mut out = Page(String::new());
    out.comment(
        "The configuration of `dist daemon`. `dist daemon config check FILE` reads one and says what is wrong.",
    );
    out.comment("Files of the folder conf.d beside this one are read after it, by name; flags go before all of them.");
    places(&mut out, config);
    sockets(&mut out, config);
    parts(&mut out, config);
    for (name, plugin) in &config.proxy_plugins {
        proxy_plugin(&mut out, name, plugin);
    }
    out.0
}

fn places(out: &mut Page, config: &Config) {
    out.gap();
    out.comment("Everything that is kept: content, snapshots, records. One daemon at a time has it.");
    out.set("root", text(&config.root.display()));
    out.comment("What does not outlive a restart of the machine.");
    out.set("state", text(&config.state.display()));
    out.comment("Plugins that are left out, and those without which the daemon does not start, as KIND.ID:");
    out.comment(
        "\"io.containerd.snapshotter.v1.erofs\". `dist plugins ls` has their names. Lists of several files add up.",
    );
    out.set("disabled_plugins", list(&config.disabled_plugins));
    out.set("required_plugins", list(&config.required_plugins));
}

fn sockets(out: &mut Page, config: &Config) {
    out.table("grpc");
    out.comment("The socket of containerd's API. Whoever may connect to it can do what root can.");
    out.set("address", text(&config.grpc.address.display()));
    out.set("uid", config.grpc.uid);
    out.set("gid", config.grpc.gid);
    out.comment("The largest messages, in bytes; 16 MiB at most.");
    out.set("max_recv_message_size", config.grpc.max_recv_message_size);
    out.set("max_send_message_size", config.grpc.max_send_message_size);
    out.table("ttrpc");
    out.comment("The socket on which shims forward events; that of gRPC with .ttrpc behind it when it is empty.");
    out.set("address", text(&config.ttrpc.address.as_deref().unwrap_or("".as_ref()).display()));
    out.set("uid", config.ttrpc.uid);
    out.set("gid", config.ttrpc.gid);
    out.table("debug");
    out.comment("off, error, warn, info, debug, trace, or TARGET=LEVEL,…");
    out.set("level", text(&config.debug.level));
    out.table("metrics");
    out.comment(
        "Where /metrics is served for Prometheus, on the loopback: \"127.0.0.1:1338\". Nowhere when it is empty.",
    );
    out.set("address", text(&config.metrics.address.map(|it| it.to_string()).unwrap_or_default()));
}

fn parts(out: &mut Page, config: &Config) {
    out.table("gc");
    out.comment(
        "The part of the time that others may be made to wait by garbage collection: 0.02 is 20 ms of a second.",
    );
    out.set("pause_threshold", fraction(config.gc.pause_threshold));
    out.comment("How many deletions cause a collection whatever the pauses are; none when 0.");
    out.set("deletion_threshold", config.gc.deletion_threshold);
    out.comment("How many changes cause one when the pauses allow it; none when 0.");
    out.set("mutation_threshold", config.gc.mutation_threshold);
    out.comment("How long after its cause one begins, and the first one after the start; 0s for no first one.");
    out.set("schedule_delay", duration(config.gc.schedule_delay));
    out.set("startup_delay", duration(config.gc.startup_delay));
    out.table("content");
    out.comment(
        "Who gets what another namespace has: shared, by digest and size; isolated, only by bringing the bytes.",
    );
    out.set("sharing", word(&own::SHARING, config.content.sharing));
    out.comment("What becomes of the compressed bytes of layers that the daemon pulls and unpacks: keep or drop.");
    out.set("layers", word(&own::LAYERS, config.content.layers));
    out.table("layers");
    out.comment(
        "The most bytes that may come out of a layer, how many times its compressed size from 1 GiB on, and the most",
    );
    out.comment("entries; no limit when 0. What becomes of device nodes: create or refuse, which refuses the layer.");
    out.set("max_size", config.layers.max_size.unwrap_or_default());
    out.set("max_ratio", config.layers.max_ratio.unwrap_or_default());
    out.set("max_entries", config.layers.max_entries.unwrap_or_default());
    out.set("devices", word(&own::DEVICES, config.layers.devices));
    out.table("snapshots");
    out.comment("The snapshotter to use when nobody names one: overlayfs, erofs, native or one of [proxy_plugins].");
    out.comment("The best one of this machine when it is empty.");
    out.set("default", text(config.snapshots.default.as_deref().unwrap_or_default()));
    out.table("diff");
    out.comment(
        "Who applies and compares layers for clients: \"walking\" is this process, others are of [proxy_plugins].",
    );
    out.comment("The first of them that can do what is asked for does it. Pulls and imports of the daemon ask none.");
    out.set("default", list(&config.diff.default));
    out.table("transfer");
    out.comment("How many blobs a pull of the daemon fetches at once, and how many layers it unpacks at once.");
    out.set("max_concurrent_downloads", config.transfer.max_concurrent_downloads);
    match config.transfer.max_concurrent_unpacks {
        Some(unpacks) => out.set("max_concurrent_unpacks", unpacks),
        None => out.comment("max_concurrent_unpacks = 2  # as many as there are processors when nothing is said"),
    }
    out.comment("How many bytes all pulls of the daemon together bring in a second; any number with 0.");
    out.set("limit_rate", config.transfer.limit_rate.map_or(0, NonZeroU64::get));
    registry(out, &config.registry);
    verification(out, &config.verification);
    if config.proxy_plugins.is_empty() {
        out.gap();
        out.comment("A snapshotter, a content store or a differ that is a process of its own:");
        out.comment("[proxy_plugins.stargz]");
        out.comment("type = \"snapshot\"  # or \"content\", or \"diff\"");
        out.comment("address = \"/run/containerd-stargz-grpc/containerd-stargz-grpc.sock\"");
        out.comment("platforms = [\"linux/amd64\"]");
        out.comment("capabilities = []");
        out.comment("exports = {}");
        out.comment("A content store is used in the place of ours, which disabled_plugins has to leave out:");
        out.comment("\"io.containerd.content.v1.content\".");
    }
}

fn registry(out: &mut Page, registry: &Registry) {
    out.table("registry");
    out.comment("Directories with a directory for each registry: a hosts.toml of containerd's in it, or certificates as Docker has them.");
    out.set("hosts_dirs", list(registry.hosts_dirs.iter().map(|it| it.display().to_string())));
    out.comment(
        "Whether a layer that the registry has not got is fetched from the URLs that the image names: ask or refuse.",
    );
    out.set("foreign_urls", word(&own::FOREIGN_URLS, registry.foreign_urls));
}

fn verification(out: &mut Page, verification: &Verification) {
    let path = |path: &Option<PathBuf>| text(&path.as_deref().unwrap_or("".as_ref()).display());
    out.table("verification");
    out.comment("The file of the policy that says which images may be pulled and imported; none when it is empty.");
    out.set("policy", path(&verification.policy));
    out.comment("The directory of programs that have to allow an image, as containerd's; none when it is empty.");
    out.set("bin_dir", path(&verification.bin_dir));
    out.comment("How many of them are asked, those first by name; all of them with -1. How long each may take.");
    match verification.max_verifiers {
        Some(limit) => out.set("max_verifiers", limit),
        None => out.set("max_verifiers", -1),
    }
    out.set("per_verifier_timeout", duration(verification.per_verifier_timeout));
}

fn proxy_plugin(out: &mut Page, name: &str, plugin: &ProxyPlugin) {
    out.table(&format!("proxy_plugins.{}", key(name)));
    out.set("type", word(&ProxyKind::WORDS, plugin.kind));
    out.set("address", text(&plugin.address.display()));
    out.set("platforms", list(plugin.platforms.iter().map(ToString::to_string)));
    out.set("capabilities", list(&plugin.capabilities));
    let exports = plugin.exports.iter().map(|(name, value)| format!("{} = {}", key(name), text(value)));
    out.set("exports", format!("{{{}}}", exports.collect::<Vec<_>>().join(", ")));
}

/// The text that grows.
struct Page(String);

impl Page {
    fn line(&mut self, line: impl Display) {
        // A string takes everything.
        let _ = writeln!(self.0, "{line}");
    }

    fn gap(&mut self) {
        self.0.push('\n');
    }

    fn comment(&mut self, text: &str) {
        self.line(format_args!("# {text}"));
    }

    fn table(&mut self, name: &str) {
        self.gap();
        self.line(format_args!("[{name}]"));
    }

    fn set(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }
}

/// Writes a basic string of TOML.
fn text(value: &(impl Display + ?Sized)) -> String {
    let mut quoted = String::from("\"");
    for character in value.to_string().chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // A string takes everything.
            control if control.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a name as a key: bare where it can be.
fn key(name: &str) -> String {
    let bare = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { text(name) }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| text(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// Writes a number with its point, as a float of TOML has one.
fn fraction(value: f64) -> String {
    format!("{value:?}")
}

fn duration(value: Duration) -> String {
    text(&humantime::format_duration(value))
}

fn word<T: PartialEq + Copy>(words: &[(&str, T)], meant: T) -> String {
    let word = words.iter().find(|(_, one)| *one == meant).map(|(word, _)| *word);
    text(word.unwrap_or_default())
}
