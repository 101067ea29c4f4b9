//! Our own configuration: every key there is.
//!
//! Keys have containerd's names where they mean the same. Each reader takes what a table has and leaves the rest as it was.

use std::net::SocketAddr;
use std::num::NonZeroU64;

use windlass::layer::{self, Devices};
use windlass::registry::ForeignUrls;
use windlass::transfer::Content as Layers;
use windlass::{Policy, Sharing};
use windlass_core::Result;

use super::{
    Config, Content, Debug, Diff, Grpc, Metrics, ProxyKind, ProxyPlugin, Registry, Snapshots, Transfer, Ttrpc,
    Verification,
};
use windlass_core::settings::{Table, Unknown, Value};

/// Takes over what a file says, and returns the keys that nobody knows.
pub(super) fn read(mut file: Table<'_>, config: &mut Config) -> Result<Vec<Unknown>> {
    let mut unknown = Vec::new();
    if let Some(root) = file.value("root") {
        config.root = directory(&root)?;
    }
    if let Some(state) = file.value("state") {
        config.state = directory(&state)?;
    }
    if let Some(disabled) = file.value("disabled_plugins") {
        config.disabled_plugins.extend(disabled.texts()?);
    }
    if let Some(required) = file.value("required_plugins") {
        config.required_plugins.extend(required.texts()?);
    }
    let mut read = |key, read: &mut dyn FnMut(Table<'_>) -> Result<Vec<Unknown>>| -> Result<()> {
        if let Some(table) = file.table(key)? {
            unknown.extend(read(table)?);
        }
        Ok(())
    };
    read("grpc", &mut |table| grpc(table, &mut config.grpc))?;
    read("ttrpc", &mut |table| ttrpc(table, &mut config.ttrpc))?;
    read("debug", &mut |table| debug(table, &mut config.debug))?;
    read("metrics", &mut |table| metrics(table, &mut config.metrics))?;
    read("gc", &mut |table| gc(table, &mut config.gc))?;
    read("content", &mut |table| content(table, &mut config.content))?;
    read("layers", &mut |table| layers(table, &mut config.layers))?;
    read("snapshots", &mut |table| snapshots(table, &mut config.snapshots))?;
    read("diff", &mut |table| diff(table, &mut config.diff))?;
    read("transfer", &mut |table| transfer(table, &mut config.transfer))?;
    read("verification", &mut |table| verification(table, &mut config.verification))?;
    read("registry", &mut |table| registry(table, &mut config.registry))?;
    read("proxy_plugins", &mut |table| {
        let mut unknown = Vec::new();
        for (name, value) in table.entries() {
            let (plugin, rest) = proxy_plugin(name, value)?;
            config.proxy_plugins.insert(name.to_owned(), plugin);
            unknown.extend(rest);
        }
        Ok(unknown)
    })?;
    unknown.extend(file.rest());
    Ok(unknown)
}

/// Returns a path that has to be said.
pub(super) fn directory(value: &Value<'_>) -> Result<std::path::PathBuf> {
    value.path()?.ok_or_else(|| value.wrong("is empty"))
}

pub(super) fn grpc(mut table: Table<'_>, grpc: &mut Grpc) -> Result<Vec<Unknown>> {
    if let Some(address) = table.value("address") {
        grpc.address = directory(&address)?;
    }
    set(table.value("uid"), &mut grpc.uid)?;
    set(table.value("gid"), &mut grpc.gid)?;
    set_size(table.value("max_recv_message_size"), &mut grpc.max_recv_message_size)?;
    set_size(table.value("max_send_message_size"), &mut grpc.max_send_message_size)?;
    Ok(table.rest())
}

pub(super) fn ttrpc(mut table: Table<'_>, ttrpc: &mut Ttrpc) -> Result<Vec<Unknown>> {
    if let Some(address) = table.value("address") {
        ttrpc.address = address.path()?;
    }
    set(table.value("uid"), &mut ttrpc.uid)?;
    set(table.value("gid"), &mut ttrpc.gid)?;
    Ok(table.rest())
}

fn debug(mut table: Table<'_>, debug: &mut Debug) -> Result<Vec<Unknown>> {
    if let Some(level) = table.value("level") {
        debug.level = level.text()?;
    }
    Ok(table.rest())
}

pub(super) fn metrics(mut table: Table<'_>, metrics: &mut Metrics) -> Result<Vec<Unknown>> {
    if let Some(address) = table.value("address") {
        metrics.address = loopback(&address)?;
    }
    Ok(table.rest())
}

/// Returns an address that only this machine can reach; none when it is empty.
fn loopback(value: &Value<'_>) -> Result<Option<SocketAddr>> {
    let text = value.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr =
        text.parse().map_err(|_| value.wrong(format_args!("is {text:?}")).hint("it looks like 127.0.0.1:1338"))?;
    if !address.ip().is_loopback() {
        return Err(value.wrong(format_args!("is {text}, which others can reach")).hint(
            "what is served there asks nobody who they are: use an address of the loopback, such as 127.0.0.1:1338",
        ));
    }
    Ok(Some(address))
}

/// The scheduler's keys are containerd's.
pub(super) fn gc(mut table: Table<'_>, policy: &mut Policy) -> Result<Vec<Unknown>> {
    if let Some(threshold) = table.value("pause_threshold") {
        policy.pause_threshold = threshold.fraction()?;
        if !(0.0..=0.5).contains(&policy.pause_threshold) {
            return Err(threshold.wrong(format_args!("is {}", policy.pause_threshold)).hint("it is between 0 and 0.5"));
        }
    }
    set(table.value("deletion_threshold"), &mut policy.deletion_threshold)?;
    set(table.value("mutation_threshold"), &mut policy.mutation_threshold)?;
    if let Some(delay) = table.value("schedule_delay") {
        policy.schedule_delay = delay.duration()?;
    }
    if let Some(delay) = table.value("startup_delay") {
        policy.startup_delay = delay.duration()?;
    }
    Ok(table.rest())
}

/// The words for how content is shared.
pub(super) const SHARING: [(&str, Sharing); 2] = [("shared", Sharing::Shared), ("isolated", Sharing::Isolated)];
/// The words for what becomes of the compressed bytes of layers.
pub(super) const LAYERS: [(&str, Layers); 2] = [("keep", Layers::Keep), ("drop", Layers::Drop)];

fn content(mut table: Table<'_>, content: &mut Content) -> Result<Vec<Unknown>> {
    if let Some(sharing) = table.value("sharing") {
        content.sharing = sharing.word(&SHARING)?;
    }
    if let Some(layers) = table.value("layers") {
        content.layers = layers.word(&LAYERS)?;
    }
    Ok(table.rest())
}

/// The words for what becomes of device nodes.
pub(super) const DEVICES: [(&str, Devices); 2] = [("create", Devices::Create), ("refuse", Devices::Refuse)];

/// Limits; none when 0.
fn layers(mut table: Table<'_>, limits: &mut layer::Options) -> Result<Vec<Unknown>> {
    for (key, limit) in [
        ("max_size", &mut limits.max_size),
        ("max_ratio", &mut limits.max_ratio),
        ("max_entries", &mut limits.max_entries),
    ] {
        let mut number = limit.unwrap_or_default();
        set(table.value(key), &mut number)?;
        *limit = Some(number).filter(|number| *number > 0);
    }
    if let Some(devices) = table.value("devices") {
        limits.devices = devices.word(&DEVICES)?;
    }
    Ok(table.rest())
}

fn snapshots(mut table: Table<'_>, snapshots: &mut Snapshots) -> Result<Vec<Unknown>> {
    if let Some(default) = table.value("default") {
        snapshots.default = Some(default.text()?).filter(|name| !name.is_empty());
    }
    Ok(table.rest())
}

pub(super) fn diff(mut table: Table<'_>, diff: &mut Diff) -> Result<Vec<Unknown>> {
    if let Some(default) = table.value("default") {
        diff.default = default.texts()?;
    }
    Ok(table.rest())
}

fn transfer(mut table: Table<'_>, transfer: &mut Transfer) -> Result<Vec<Unknown>> {
    if let Some(downloads) = table.value("max_concurrent_downloads") {
        transfer.max_concurrent_downloads = at_least_one(&downloads)?;
    }
    if let Some(unpacks) = table.value("max_concurrent_unpacks") {
        transfer.max_concurrent_unpacks = Some(at_least_one(&unpacks)?);
    }
    if let Some(rate) = table.value("limit_rate") {
        transfer.limit_rate = NonZeroU64::new(rate.number()?);
    }
    Ok(table.rest())
}

/// The keys of the programs are containerd's.
pub(super) fn verification(mut table: Table<'_>, verification: &mut Verification) -> Result<Vec<Unknown>> {
    if let Some(policy) = table.value("policy") {
        verification.policy = policy.path()?;
    }
    if let Some(directory) = table.value("bin_dir") {
        verification.bin_dir = directory.path()?;
    }
    if let Some(limit) = table.value("max_verifiers") {
        // Below 0 is no limit, as containerd has it.
        let number: i64 = limit.number()?;
        verification.max_verifiers = usize::try_from(number).ok();
    }
    if let Some(timeout) = table.value("per_verifier_timeout") {
        verification.per_verifier_timeout = timeout.duration()?;
        if verification.per_verifier_timeout.is_zero() {
            return Err(timeout.wrong("is 0").hint("no program could ever answer: 10s is usual"));
        }
    }
    Ok(table.rest())
}

/// The words for what becomes of URLs of descriptors.
pub(super) const FOREIGN_URLS: [(&str, ForeignUrls); 2] =
    [("ask", ForeignUrls::Asked), ("refuse", ForeignUrls::Refused)];

fn registry(mut table: Table<'_>, registry: &mut Registry) -> Result<Vec<Unknown>> {
    if let Some(directories) = table.value("hosts_dirs") {
        registry.hosts_dirs = directories.list()?.iter().map(directory).collect::<Result<_>>()?;
    }
    if let Some(urls) = table.value("foreign_urls") {
        registry.foreign_urls = urls.word(&FOREIGN_URLS)?;
    }
    Ok(table.rest())
}

pub(super) fn at_least_one(value: &Value<'_>) -> Result<usize> {
    let number: usize = value.number()?;
    if number == 0 {
        return Err(value.wrong("is 0").hint("with none at once nothing would ever be done: it is 1 or more"));
    }
    Ok(number)
}

pub(super) fn proxy_plugin(name: &str, value: Value<'_>) -> Result<(ProxyPlugin, Vec<Unknown>)> {
    windlass_core::identifier::validate("plugin", name)
        .map_err(|error| value.wrong(format_args!("has a wrong name: {error}")))?;
    let (place, key) = (value.place(), value.key().to_owned());
    let missing = |what: &str| windlass_core::Error::invalid_argument(format!("{place}: {key} has no {what}"));
    let mut table = value.table()?;
    let kind = table.value("type").ok_or_else(|| missing("type").hint("it is one of snapshot, content, diff"))?;
    let kind = kind.word(&ProxyKind::WORDS)?;
    let address =
        table.value("address").ok_or_else(|| missing("address").hint("the path of the socket it answers on"))?;
    let address = directory(&address)?;
    let mut platforms = Vec::new();
    if let Some(list) = table.value("platforms") {
        for platform in list.list()? {
            platforms.push(parse(&platform)?);
        }
    }
    // containerd's key, which has one.
    if let Some(platform) =
        table.value("platform").filter(|platform| platform.text().is_ok_and(|text| !text.is_empty()))
    {
        platforms.push(parse(&platform)?);
    }
    let exports = table.value("exports").map(Value::map).transpose()?.unwrap_or_default();
    let capabilities = table.value("capabilities").map(Value::texts).transpose()?.unwrap_or_default();
    Ok((ProxyPlugin { kind, address, platforms, exports, capabilities }, table.rest()))
}

fn parse(value: &Value<'_>) -> Result<windlass_core::Platform> {
    value.text()?.parse().map_err(|error| value.wrong(format_args!("is wrong: {error}")))
}

fn set<T: TryFrom<i64>>(value: Option<Value<'_>>, to: &mut T) -> Result<()> {
    if let Some(value) = value {
        *to = value.number()?;
    }
    Ok(())
}

/// Takes over the size of a message: containerd's 0 is the default.
fn set_size(value: Option<Value<'_>>, to: &mut usize) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    match value.number()? {
        0 => *to = windlass_grpc::MAX_MESSAGE,
        size if size > windlass_grpc::MAX_MESSAGE => {
            return Err(value.wrong(format_args!("is {size}")).hint(format!(
                "messages are {} bytes at most, as memory for them is bounded",
                windlass_grpc::MAX_MESSAGE
            )));
        }
        size => *to = size,
    }
    Ok(())
}
