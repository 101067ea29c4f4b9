//! Transfers that a daemon of ours carries out for a client: `containerd.services.transfer.v1.Transfer`, the client's half.
//!
//! ```text
//! client ── header windlass-pull-bin: PullOptions ─► daemon     what containerd's messages cannot say
//! client ◄── progress stream: Progress ───────────── daemon     because of the header windlass-contract
//! client ── auth stream: AuthResponse ─────────────► daemon     only when a registry asks
//! ```
//!
//! Not here: the server, which runs the workflows and is the daemon's.

mod credentials;
pub mod progress;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::transport::Channel;
use windlass_core::filter::Filter;
use windlass_core::plugin::{Introspection as _, Plugin};
use windlass_core::progress::{Totals, Tracker};
use windlass_core::{Attempt, ChainId, Descriptor, Error, Namespace, Platform, Result, Scope, image};
use windlass_proto::containerd::services::transfer::v1 as wire;
use windlass_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use windlass_proto::containerd::types;
use windlass_proto::containerd::types::transfer::{ImageStore, OciRegistry, RegistryResolver, UnpackConfiguration};
use windlass_proto::windlass::services::transfer::v1 as ours;

use crate::Client;
use crate::error::Answer as _;
use crate::streaming::{self, Stream, pack, unpack};
use crate::{scope, wire as messages};

pub use credentials::{Answer, Credentials};
pub use windlass_proto::windlass::services::transfer::v1::PullOptions;

/// The header of the options of a pull that only we have.
const OPTIONS_HEADER: &str = "windlass-pull-bin";
/// The service, as a plugin.
const PLUGIN: &str = "type==io.containerd.grpc.v1,id==transfer";
/// How long after the answer to a transfer the rest of its progress may come.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads the options of a pull that only we have; what no client of ours sends is none of them.
///
/// # Errors
/// `InvalidArgument` for a header that is something else.
pub fn options(headers: &MetadataMap) -> Result<PullOptions> {
    let Some(value) = headers.get_bin(OPTIONS_HEADER) else { return Ok(PullOptions::default()) };
    let wrong = || Error::invalid_argument(format!("header {OPTIONS_HEADER} has no options of a pull"));
    let bytes = value.to_bytes().map_err(|error| wrong().source(error))?;
    PullOptions::decode(bytes).map_err(|error| wrong().source(error))
}

/// A pull that a daemon is asked for.
#[derive(Debug, Clone, Default)]
pub struct Pull {
    /// The reference, as it is written in full.
    pub reference: String,
    /// `http` or `https`, for every host; none is what the daemon thinks best.
    pub scheme: Option<&'static str>,
    /// The platforms; none is all.
    pub platforms: Vec<Platform>,
    /// The snapshotter to unpack with, or the daemon's default one; none is not to unpack.
    pub unpack: Option<Option<String>>,
    /// The rest.
    pub options: PullOptions,
}

/// What came of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The name that was recorded.
    pub name: image::Name,
    /// What it points at.
    pub target: Descriptor,
    /// The topmost snapshot of each image that was unpacked.
    pub snapshots: Vec<ChainId>,
    /// The types of what is no image.
    pub artifacts: Vec<String>,
    /// Who failed, although everything came of others.
    pub passed_over: Vec<PassedOver>,
    /// What was moved.
    pub totals: Totals,
}

/// A host that failed to do something, in whose place another one was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// What it was asked, and what came of it: the first time.
    pub attempt: Attempt,
    /// The stable code of why it failed.
    pub reason: String,
    /// How often it failed so.
    pub times: u64,
}

/// Has a daemon transfer.
pub struct Remote {
    channel: Channel,
}

impl Client {
    /// Returns who transfers images; none where that is no daemon of ours, or has the service left out.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn transfers(&self) -> Result<Option<Remote>> {
        if !self.has_maintenance().await? {
            return Ok(None);
        }
        let filter: Filter = PLUGIN.parse()?;
        let there = self.introspection().plugins(&[filter]).await?.iter().any(Plugin::is_ready);
        Ok(there.then(|| Remote { channel: self.channel() }))
    }
}

impl Remote {
    /// Pulls an image, answers the daemon's questions for credentials, and shows how far it is.
    ///
    /// # Errors
    /// Those of the pull; those of the credentials that it asked for.
    ///
    /// # Cancel safety
    /// Dropping the call ends the transfer. What the daemon brought stays under the pull's lease, and the next one continues.
    pub async fn pull(
        &self,
        namespace: &Namespace,
        pull: &Pull,
        credentials: &dyn Credentials,
        tracker: &Tracker,
    ) -> Result<Pulled> {
        let scope = Scope::from(namespace.clone());
        let (auth, told) = (stream_name("auth"), stream_name("progress"));
        let (mut questions, progress) = futures::try_join!(
            streaming::open(self.channel.clone(), &scope, &auth),
            streaming::open(self.channel.clone(), &scope, &told)
        )?;
        let mut progress = Some(progress);
        let mut request = scope::request(&scope, request(pull, auth, told))?;
        scope::say_contract(request.metadata_mut());
        let options = BinaryMetadataValue::from_bytes(&pull.options.encode_to_vec());
        request.metadata_mut().insert_bin(OPTIONS_HEADER, options);
        let mut client = TransferClient::new(self.channel.clone());
        let call = async { client.transfer(request).await.answer() };

        let mut followed = progress::Followed::new(tracker);
        let answered = tokio::select! {
            answered = call => answered,
            wrong = credentials::answer(&mut questions, credentials) => Err(wrong),
            wrong = follow(&mut progress, &mut followed) => Err(wrong),
        };
        // What was sent before the answer may come after it.
        let rest = tokio::time::timeout(PATIENCE, read(&mut progress, &mut followed)).await;
        answered?;
        rest.unwrap_or_else(|_| Err(Error::aborted("the daemon did not end its report")))?;
        pulled(followed)
    }
}

/// Shows progress; comes back only when there is something wrong with it.
async fn follow(stream: &mut Option<Stream>, followed: &mut progress::Followed<'_>) -> Error {
    match read(stream, followed).await {
        Err(error) => error,
        // The answer comes next.
        Ok(()) => std::future::pending().await,
    }
}

/// Shows progress until there is no more, and closes the stream then.
async fn read(stream: &mut Option<Stream>, followed: &mut progress::Followed<'_>) -> Result<()> {
    while let Some(open) = stream {
        let Some(any) = open.receive().await? else {
            *stream = None;
            break;
        };
        let progress: Option<ours::Progress> = unpack(&any)?;
        followed.take(progress.ok_or_else(|| Error::internal(format!("a {:?} is no progress", any.type_url)))?)?;
    }
    Ok(())
}

fn pulled(followed: progress::Followed<'_>) -> Result<Pulled> {
    let totals = followed.totals();
    let ours::Pulled { name, target, snapshots, artifacts, passed_over } =
        followed.pulled.ok_or_else(|| Error::internal("the daemon did not say what it pulled"))?;
    let target = target.ok_or_else(|| Error::internal(format!("the daemon did not say what {name} is")))?;
    Ok(Pulled {
        name: name.parse()?,
        target: messages::descriptor(target)?,
        snapshots: snapshots.iter().map(|chain_id| chain_id.parse()).collect::<Result<_>>()?,
        artifacts,
        passed_over: passed_over.into_iter().filter_map(failed).collect(),
        totals,
    })
}

/// Says who failed in a [`Pulled`].
pub fn passed_over(attempt: &Attempt, reason: &str, times: u64) -> ours::PassedOver {
    // A record of texts and numbers can always be written as JSON.
    ours::PassedOver { attempt: serde_json::to_string(attempt).unwrap_or_default(), reason: reason.to_owned(), times }
}

/// Reads who failed; what cannot be read is left out, because the pull did what it was to do.
fn failed(ours::PassedOver { attempt, reason, times }: ours::PassedOver) -> Option<PassedOver> {
    let attempt = serde_json::from_str(&attempt).ok()?;
    Some(PassedOver { attempt, reason, times })
}

fn request(pull: &Pull, auth_stream: String, progress_stream: String) -> wire::TransferRequest {
    let platform = |platform: &Platform| types::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
        os_version: platform.os_version.clone().unwrap_or_default(),
    };
    let unpack = pull
        .unpack
        .clone()
        .map(|snapshotter| UnpackConfiguration { platform: None, snapshotter: snapshotter.unwrap_or_default() });
    let resolver = RegistryResolver {
        auth_stream,
        default_scheme: pull.scheme.unwrap_or_default().to_owned(),
        ..RegistryResolver::default()
    };
    let source = OciRegistry { reference: pull.reference.clone(), resolver: Some(resolver) };
    let destination = ImageStore {
        platforms: pull.platforms.iter().map(platform).collect(),
        unpacks: unpack.into_iter().collect(),
        ..ImageStore::default()
    };
    wire::TransferRequest {
        source: Some(pack(&source)),
        destination: Some(pack(&destination)),
        options: Some(wire::TransferOptions { progress_stream }),
    }
}

/// Makes a name for a stream that nobody else has.
fn stream_name(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("windlass-{what}-{}-{now}-{count}", std::process::id())
}
