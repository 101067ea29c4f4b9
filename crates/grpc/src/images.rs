//! Images over the wire: `containerd.services.images.v1.Images`.
//!
//! A target loses on the way what the message has no field for: platform, URLs, artifact type and inlined data. The time that a
//! client may send for reproducible records (`source_date_epoch`) is not taken: the store's own clock orders its records.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::image::{Deletion, Image, Name, Store};
use windlass_core::{Descriptor, Error, Host, Listing, Result, Scope};
use windlass_proto::containerd::services::images::v1 as wire;
use windlass_proto::containerd::services::images::v1::images_client::ImagesClient;
use windlass_proto::containerd::services::images::v1::images_server::Images;

use crate::error::{Answer as _, Reply as _};
use crate::wire::{self as messages, OneMessage};
use crate::{MAX_MESSAGE, scope, time};

/// Answers with the images of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    async fn store<T>(&self, request: &Request<T>) -> Result<Arc<dyn Store>, Status> {
        scope::services(&*self.host, request).await.map(|services| services.images)
    }
}

/// Writes a record.
pub(crate) fn message(image: &Image) -> wire::Image {
    wire::Image {
        name: image.name.to_string(),
        labels: messages::label_map(image.labels.clone()),
        target: Some(messages::descriptor_message(&image.target)),
        created_at: time::to_wire(image.created_at),
        updated_at: time::to_wire(image.updated_at),
    }
}

/// Reads a record; the target is the one given, or the one that is known otherwise.
fn record(wire: wire::Image, target: Descriptor) -> Result<Image> {
    Ok(Image {
        name: wire.name.parse()?,
        target,
        labels: messages::labels(wire.labels),
        created_at: time::from_wire(wire.created_at)?,
        updated_at: time::from_wire(wire.updated_at)?,
    })
}

/// Reads a record as a daemon answers with it.
pub(crate) fn answered(wire: Option<wire::Image>) -> Result<Image> {
    let mut wire = given(wire)?;
    let target = messages::descriptor(wire.target.take().unwrap_or_default())?;
    record(wire, target)
}

fn given(wire: Option<wire::Image>) -> Result<wire::Image> {
    wire.ok_or_else(|| Error::invalid_argument("no image is given"))
}

/// Takes the target out of a record.
///
/// # Errors
/// `InvalidArgument` when it is not whole: without type, digest or size it points at nothing.
fn target(wire: &mut wire::Image) -> Result<Descriptor> {
    let wrong = |what: &str| Error::invalid_argument(format!("the target of image {:?} has no {what}", wire.name));
    let target = wire.target.take().ok_or_else(|| wrong("descriptor"))?;
    if target.media_type.is_empty() {
        return Err(wrong("media type"));
    }
    if target.size <= 0 {
        return Err(wrong("size"));
    }
    messages::descriptor(target)
}

async fn create(store: &dyn Store, request: wire::CreateImageRequest) -> Result<Image> {
    let mut wire = given(request.image)?;
    let target = target(&mut wire)?;
    store.create(&record(wire, target)?).await
}

async fn update(store: &dyn Store, request: wire::UpdateImageRequest) -> Result<Image> {
    let mut wire = given(request.image)?;
    let mask = messages::mask(request.update_mask)?;
    let of_target = mask.is_all() || mask.paths().iter().any(|path| path.field() == "target");
    let target = if of_target {
        target(&mut wire)?
    } else {
        // Whoever changes labels or annotations alone need not know the target.
        let annotations = wire.target.take().unwrap_or_default().annotations;
        let there = store.get(&wire.name.parse()?).await?.target;
        Descriptor { annotations: annotations.into_iter().collect(), ..there }
    };
    store.update(&record(wire, target)?, &mask).await
}

async fn delete(store: &dyn Store, request: wire::DeleteImageRequest) -> Result<()> {
    let name: Name = request.name.parse()?;
    if let Some(expected) = request.target.filter(|target| !target.digest.is_empty()) {
        let there = store.get(&name).await?.target.digest;
        if there != expected.digest.parse()? {
            return Err(Error::not_found(format!("image {name} has the target {there}, not {}", expected.digest)));
        }
    }
    store.delete(&name, if request.sync { Deletion::Synchronous } else { Deletion::Background }).await
}

#[tonic::async_trait]
impl Images for Server {
    async fn get(&self, request: Request<wire::GetImageRequest>) -> Result<Response<wire::GetImageResponse>, Status> {
        let store = self.store(&request).await?;
        let get = async {
            let image = store.get(&request.into_inner().name.parse()?).await?;
            Ok(wire::GetImageResponse { image: Some(message(&image)) })
        };
        get.await.reply()
    }

    async fn list(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let store = self.store(&request).await?;
        let list = async {
            let mut listing = store.list(&messages::filters(&request.into_inner().filters)?);
            let mut images = OneMessage::new();
            while let Some(image) = listing.try_next().await? {
                images.push(message(&image))?;
            }
            Ok(wire::ListImagesResponse { images: images.into_records() })
        };
        list.await.reply()
    }

    async fn create(
        &self,
        request: Request<wire::CreateImageRequest>,
    ) -> Result<Response<wire::CreateImageResponse>, Status> {
        let store = self.store(&request).await?;
        let created = create(&*store, request.into_inner()).await;
        created.map(|image| wire::CreateImageResponse { image: Some(message(&image)) }).reply()
    }

    async fn update(
        &self,
        request: Request<wire::UpdateImageRequest>,
    ) -> Result<Response<wire::UpdateImageResponse>, Status> {
        let store = self.store(&request).await?;
        let updated = update(&*store, request.into_inner()).await;
        updated.map(|image| wire::UpdateImageResponse { image: Some(message(&image)) }).reply()
    }

    async fn delete(&self, request: Request<wire::DeleteImageRequest>) -> Result<Response<()>, Status> {
        let store = self.store(&request).await?;
        delete(&*store, request.into_inner()).await.reply()
    }
}

/// The images of a daemon.
pub(crate) struct Remote {
    client: ImagesClient<Channel>,
    scope: Scope,
}

impl Remote {
    pub(crate) fn new(channel: Channel, scope: Scope) -> Self {
        let client = ImagesClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client, scope }
    }
}

#[async_trait]
impl Store for Remote {
    async fn get(&self, name: &Name) -> Result<Image> {
        let request = wire::GetImageRequest { name: name.to_string() };
        let request = scope::request(&self.scope, request)?;
        answered(self.client.clone().get(request).await.answer()?.image)
    }

    fn list(&self, filters: &[Filter]) -> Listing<Image> {
        let (mut client, scope) = (self.client.clone(), self.scope.clone());
        let request = wire::ListImagesRequest { filters: messages::filter_texts(filters) };
        let list = async move {
            let request = scope::request(&scope, request)?;
            let images = client.list(request).await.answer()?.images;
            Ok(stream::iter(images.into_iter().map(|image| answered(Some(image)))))
        };
        stream::once(list).try_flatten().boxed()
    }

    async fn create(&self, image: &Image) -> Result<Image> {
        let request = wire::CreateImageRequest { image: Some(message(image)), source_date_epoch: None };
        let request = scope::request(&self.scope, request)?;
        answered(self.client.clone().create(request).await.answer()?.image)
    }

    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        let request = wire::UpdateImageRequest {
            image: Some(message(image)),
            update_mask: messages::mask_paths(mask),
            source_date_epoch: None,
        };
        let request = scope::request(&self.scope, request)?;
        answered(self.client.clone().update(request).await.answer()?.image)
    }

    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()> {
        let sync = deletion == Deletion::Synchronous;
        let request = wire::DeleteImageRequest { name: name.to_string(), sync, target: None };
        let request = scope::request(&self.scope, request)?;
        self.client.clone().delete(request).await.answer()
    }
}
