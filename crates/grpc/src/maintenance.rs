//! What containerd has no calls for: `windlass.services.maintenance.v1.Maintenance`, which is ours.
//!
//! Collect and Plan are about all namespaces, and need no namespace header.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::filter::Filter;
use windlass_core::gc::{Collected, Collector, Doomed, DoomedKind, Node, Pin as Kept, PinReason, Tally};
use windlass_core::inspect::{Summaries, Summarized, Summary};
use windlass_core::{Error, Host, Kind, Listing, Namespace, Result, Scope, Services};
use windlass_proto::windlass::services::maintenance::v1 as wire;
use windlass_proto::windlass::services::maintenance::v1::maintenance_client::MaintenanceClient;
use windlass_proto::windlass::services::maintenance::v1::maintenance_server::Maintenance;

use crate::error::{Answer as _, Reply as _, from_status, to_status};
use crate::wire as messages;
use crate::{images, scope, time};

/// How many objects of a plan travel in one message.
const PAGE: usize = 1000;
/// How many images with what they come to travel in one message.
const IMAGES: usize = 200;

/// Answers with the collector of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    async fn services(&self) -> Result<Services, Status> {
        self.host.services(&Scope::default()).await.map_err(|error| to_status(&error))
    }
}

#[tonic::async_trait]
impl Maintenance for Server {
    async fn collect(&self, _: Request<()>) -> Result<Response<wire::CollectResponse>, Status> {
        let services = self.services().await?;
        let collect = async { services.collector()?.collect().await.map(|collected| of_collected(&collected)) };
        collect.await.reply()
    }

    type PlanStream = Pin<Box<dyn Stream<Item = Result<wire::PlanResponse, Status>> + Send>>;

    async fn plan(&self, _: Request<()>) -> Result<Response<Self::PlanStream>, Status> {
        let services = self.services().await?;
        let plan = async { services.collector()?.plan().await };
        let plan = plan.await.map_err(|error| to_status(&error))?;
        let pages = stream::iter(plan).map(of_doomed).chunks(PAGE);
        Ok(Response::new(Box::pin(pages.map(|doomed| Ok(wire::PlanResponse { doomed })))))
    }

    async fn why(&self, request: Request<wire::WhyRequest>) -> Result<Response<wire::WhyResponse>, Status> {
        let services = scope::services(&*self.host, &request).await?;
        let why = async {
            let object = request.into_inner().object.ok_or_else(|| Error::invalid_argument("no object is given"))?;
            let pin = services.collector()?.why(&services.scope.namespace, &to_node(object)?).await?;
            Ok(wire::WhyResponse { pin: pin.map(of_pin) })
        };
        why.await.reply()
    }

    type SummariesStream = Pin<Box<dyn Stream<Item = Result<wire::SummariesResponse, Status>> + Send>>;

    async fn summaries(
        &self,
        request: Request<wire::SummariesRequest>,
    ) -> Result<Response<Self::SummariesStream>, Status> {
        let services = scope::services(&*self.host, &request).await?;
        let filters = messages::filters(&request.into_inner().filters).map_err(|error| to_status(&error))?;
        let pages = services.summaries(&filters).map_ok(|one| of_summarized(&one)).try_chunks(IMAGES);
        // What was listed before the failure is not worth a message of its own.
        let pages =
            pages.map_ok(|summaries| wire::SummariesResponse { summaries }).map_err(|failed| to_status(&failed.1));
        Ok(Response::new(Box::pin(pages)))
    }
}

fn of_summarized(summarized: &Summarized) -> wire::Summary {
    let Summarized { image, summary } = summarized;
    wire::Summary {
        image: Some(images::message(image)),
        size: summary.size,
        stored: summary.stored,
        platforms: summary.platforms.iter().cloned().map(messages::platform_message).collect(),
    }
}

fn to_summarized(wire: wire::Summary) -> Result<Summarized> {
    let platforms = wire.platforms.into_iter().map(messages::platform).collect();
    let summary = Summary { size: wire.size, stored: wire.stored, platforms };
    Ok(Summarized { image: images::answered(wire.image)?, summary })
}

/// Asks a daemon whether it has the service: the question is one that who has it refuses at once.
pub(crate) async fn is_served(channel: Channel) -> Result<bool> {
    let question = scope::request(&Scope::default(), wire::WhyRequest { object: None })?;
    match MaintenanceClient::new(channel).why(question).await.answer() {
        Ok(_) => Ok(true),
        Err(error) if error.is(Kind::InvalidArgument) => Ok(true),
        Err(error) if error.is(Kind::Unimplemented) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a daemon of ours can be asked for beyond containerd's calls.
pub(crate) struct Remote {
    client: MaintenanceClient<Channel>,
    scope: Scope,
}

impl Remote {
    pub(crate) fn new(channel: Channel, scope: Scope) -> Self {
        Self { client: MaintenanceClient::new(channel).max_decoding_message_size(crate::MAX_MESSAGE), scope }
    }
}

impl Summaries for Remote {
    fn list(&self, filters: &[Filter]) -> Listing<Summarized> {
        let (mut client, scope) = (self.client.clone(), self.scope.clone());
        let request = wire::SummariesRequest { filters: messages::filter_texts(filters) };
        let list = async move {
            let pages = client.summaries(scope::request(&scope, request)?).await.answer()?;
            let pages = pages.map_err(|status| from_status(&status));
            Ok(pages.map_ok(|page| stream::iter(page.summaries.into_iter().map(to_summarized))).try_flatten())
        };
        stream::once(list).try_flatten().boxed()
    }
}

#[async_trait]
impl Collector for Remote {
    async fn collect(&self) -> Result<Collected> {
        to_collected(self.client.clone().collect(()).await.answer()?)
    }

    async fn plan(&self) -> Result<Vec<Doomed>> {
        let pages = self.client.clone().plan(()).await.answer()?;
        let pages: Vec<wire::PlanResponse> = pages.try_collect().await.map_err(|status| from_status(&status))?;
        pages.into_iter().flat_map(|page| page.doomed).map(to_doomed).collect()
    }

    async fn why(&self, namespace: &Namespace, object: &Node) -> Result<Option<Kept>> {
        let request = scope::request(&namespace.clone().into(), wire::WhyRequest { object: Some(of_node(object)) })?;
        self.client.clone().why(request).await.answer()?.pin.map(to_pin).transpose()
    }
}

fn of_collected(collected: &Collected) -> wire::CollectResponse {
    let tally = |Tally { count, bytes }: Tally| Some(wire::Tally { count, bytes });
    // A time of centuries is none that is measured.
    let duration = |duration: Duration| prost_types::Duration::try_from(duration).ok();
    wire::CollectResponse {
        leases: collected.leases,
        images: collected.images,
        contents: collected.contents,
        blobs: tally(collected.blobs),
        snapshots: tally(collected.snapshots),
        ingests: tally(collected.ingests),
        marking: duration(collected.marking),
        pause: duration(collected.pause),
        longest_pause: duration(collected.longest_pause),
        next_expiry: collected.next_expiry.and_then(time::to_wire),
    }
}

fn to_collected(answer: wire::CollectResponse) -> Result<Collected> {
    let tally = |tally: Option<wire::Tally>| {
        tally.map(|wire::Tally { count, bytes }| Tally { count, bytes }).unwrap_or_default()
    };
    let duration = |duration: Option<prost_types::Duration>| {
        Duration::try_from(duration.unwrap_or_default())
            .map_err(|error| Error::internal("the daemon measured a negative time").source(error))
    };
    Ok(Collected {
        leases: answer.leases,
        images: answer.images,
        contents: answer.contents,
        blobs: tally(answer.blobs),
        snapshots: tally(answer.snapshots),
        ingests: tally(answer.ingests),
        marking: duration(answer.marking)?,
        pause: duration(answer.pause)?,
        longest_pause: duration(answer.longest_pause)?,
        next_expiry: answer.next_expiry.map(|at| time::from_wire(Some(at))).transpose()?,
    })
}

fn of_doomed(doomed: Doomed) -> wire::Doomed {
    let kind = match doomed.kind {
        DoomedKind::Lease => wire::Kind::Lease,
        DoomedKind::Image => wire::Kind::Image,
        DoomedKind::Content => wire::Kind::Content,
        DoomedKind::Snapshot => wire::Kind::Snapshot,
        DoomedKind::Ingest => wire::Kind::Ingest,
    };
    let namespace = doomed.namespace.map(|namespace| namespace.to_string()).unwrap_or_default();
    wire::Doomed { kind: kind.into(), namespace, id: doomed.id, bytes: doomed.bytes }
}

fn to_doomed(doomed: wire::Doomed) -> Result<Doomed> {
    let kind = match doomed.kind() {
        wire::Kind::Lease => DoomedKind::Lease,
        wire::Kind::Image => DoomedKind::Image,
        wire::Kind::Content => DoomedKind::Content,
        wire::Kind::Snapshot => DoomedKind::Snapshot,
        wire::Kind::Ingest => DoomedKind::Ingest,
        wire::Kind::Unspecified | wire::Kind::Container => {
            return Err(Error::internal(format!("the daemon would collect {:?} of an unknown kind", doomed.id)));
        }
    };
    let namespace = Some(doomed.namespace).filter(|name| !name.is_empty()).map(|name| name.parse()).transpose()?;
    Ok(Doomed { kind, namespace, id: doomed.id, bytes: doomed.bytes })
}

fn of_node(node: &Node) -> wire::Node {
    let (kind, id, snapshotter) = match node {
        Node::Content(digest) => (wire::Kind::Content, digest.to_string(), ""),
        Node::Snapshot { snapshotter, key } => (wire::Kind::Snapshot, key.clone(), snapshotter.as_str()),
        Node::Ingest(ingest) => (wire::Kind::Ingest, ingest.clone(), ""),
        Node::Image(name) => (wire::Kind::Image, name.clone(), ""),
        Node::Lease(id) => (wire::Kind::Lease, id.clone(), ""),
        Node::Container(id) => (wire::Kind::Container, id.clone(), ""),
    };
    wire::Node { kind: kind.into(), id, snapshotter: snapshotter.to_owned() }
}

fn to_node(node: wire::Node) -> Result<Node> {
    Ok(match node.kind() {
        wire::Kind::Content => Node::Content(node.id.parse()?),
        wire::Kind::Snapshot => Node::Snapshot { snapshotter: node.snapshotter, key: node.id },
        wire::Kind::Ingest => Node::Ingest(node.id),
        wire::Kind::Image => Node::Image(node.id),
        wire::Kind::Lease => Node::Lease(node.id),
        wire::Kind::Container => Node::Container(node.id),
        wire::Kind::Unspecified => {
            return Err(Error::invalid_argument(format!(
                "object {:?} is of kind {}, which is none",
                node.id, node.kind
            )));
        }
    })
}

fn of_pin(pin: Kept) -> wire::Pin {
    let reason = match pin.reason {
        PinReason::Record => wire::pin::Reason::Record(()),
        PinReason::RootLabel => wire::pin::Reason::RootLabel(()),
        PinReason::Until(end) => wire::pin::Reason::Until(end.into()),
        PinReason::Lease(id) => wire::pin::Reason::Lease(id.to_string()),
    };
    wire::Pin { path: pin.path.iter().map(of_node).collect(), reason: Some(reason) }
}

fn to_pin(pin: wire::Pin) -> Result<Kept> {
    let reason = match pin.reason {
        Some(wire::pin::Reason::Record(())) => PinReason::Record,
        Some(wire::pin::Reason::RootLabel(())) => PinReason::RootLabel,
        Some(wire::pin::Reason::Until(end)) => PinReason::Until(time::from_wire(Some(end))?),
        Some(wire::pin::Reason::Lease(id)) => PinReason::Lease(id.parse()?),
        None => return Err(Error::internal("the daemon keeps an object for a reason that is not known here")),
    };
    Ok(Kept { reason, path: pin.path.into_iter().map(to_node).collect::<Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use windlass_core::image::Image;
    use windlass_core::{Descriptor, Digest, Labels, Platform};

    use super::*;

    #[test]
    fn what_a_collection_says_survives_the_wire() {
        let collected = Collected {
            leases: 1,
            contents: 2,
            blobs: Tally { count: 3, bytes: 4 },
            pause: Duration::from_micros(5),
            next_expiry: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(6)),
            ..Collected::default()
        };
        assert_eq!(to_collected(of_collected(&collected)).unwrap(), collected);
    }

    #[test]
    fn plans_and_reasons_survive_the_wire() {
        for kind in
            [DoomedKind::Lease, DoomedKind::Image, DoomedKind::Content, DoomedKind::Snapshot, DoomedKind::Ingest]
        {
            for namespace in [None, Some(Namespace::default())] {
                let doomed = Doomed { kind, namespace, id: "overlayfs/k".into(), bytes: 7 };
                assert_eq!(to_doomed(of_doomed(doomed.clone())).unwrap(), doomed);
            }
        }
        let path = vec![
            Node::Container("c".into()),
            Node::Lease("l".into()),
            Node::Image("redis:7".into()),
            Node::Content(Digest::sha256(b"x")),
            Node::Ingest("layer-1".into()),
            Node::Snapshot { snapshotter: "overlayfs".into(), key: "k".into() },
        ];
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let reasons =
            [PinReason::Record, PinReason::RootLabel, PinReason::Until(until), PinReason::Lease("l".parse().unwrap())];
        for reason in reasons {
            let pin = Kept { reason, path: path.clone() };
            assert_eq!(to_pin(of_pin(pin.clone())).unwrap(), pin);
        }
    }

    #[test]
    fn an_image_with_what_it_comes_to_survives_the_wire() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let image = Image {
            name: "docker.io/library/redis:7".parse().unwrap(),
            target: Descriptor::of("application/vnd.oci.image.manifest.v1+json", b"{}"),
            labels: Labels::default(),
            created_at: at,
            updated_at: at,
        };
        let platforms = vec![Platform::new("linux", "arm64", Some("v8"))];
        let summarized = Summarized { image, summary: Summary { size: 7, stored: 5, platforms } };
        assert_eq!(to_summarized(of_summarized(&summarized)).unwrap(), summarized);
    }

    #[test]
    fn an_object_of_no_kind_is_refused() {
        assert!(to_node(wire::Node::default()).is_err());
        assert!(
            to_doomed(of_doomed(Doomed { kind: DoomedKind::Image, namespace: None, id: "x".into(), bytes: 0 })).is_ok()
        );
        assert!(to_doomed(wire::Doomed::default()).is_err());
    }
}
