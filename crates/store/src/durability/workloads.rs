//! What is done to a store while power goes or the disk fails. Each workload can be repeated from wherever it was stopped.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use windlass_core::content::{Commit, Expected};
use windlass_core::field::FieldMask;
use windlass_core::gc::{ChildKind, Collector as _, Deletion, content_label, snapshot_label};
use windlass_core::image::{self, Image};
use windlass_core::lease::{self, Resource, ResourceKind};
use windlass_core::snapshot::{self, Snapshotter};
use windlass_core::{Descriptor, Digest, Kind, Labels, Result, Scope};

use super::verify::age_ingests;
use super::{Fact, SNAPSHOTTER, Thing, World};

pub(super) type Work = for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>;

/// A workload: what power is cut in, and what happened before.
#[derive(Clone, Copy)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) before: Option<Work>,
    pub(super) work: Work,
}

macro_rules! workloads {
    ($($name:ident = $before:expr, $work:expr;)*) => {
        $(pub(super) const $name: Workload = Workload { name: stringify!($name), before: $before, work: $work };)*
        /// All of them.
        pub(super) const ALL: &[Workload] = &[$($name),*];
    };
}

workloads! {
    FIRST_OPEN = None, |_| async { Ok(()) }.boxed();
    FIRST_LEASE = None, |world| lease(world).boxed();
    FIRST_BLOB = None, |world| put_blob(world, "first").map(dropped).boxed();
    BLOB = Some(|_| async { Ok(()) }.boxed()), |world| put_blob(world, "alone").map(dropped).boxed();
    TWO_BLOBS = Some(|world| lease(world).boxed()), |world| two_blobs(world).boxed();
    SEVERAL_BLOBS = Some(|world| lease(world).boxed()), |world| several_blobs(world).boxed();
    RESUMED_BLOB = Some(|world| part_of_blob(world, "resumed").boxed()), |world| {
        put_blob(world, "resumed").map(dropped).boxed()
    };
    SPARSE_BLOB = Some(|world| sparse_part(world, "sparse").boxed()), |world| sparse_blobs(world).boxed();
    ABANDONED_BLOB = Some(|_| async { Ok(()) }.boxed()), |world| abandoned(world).boxed();
    IMAGE = Some(|world| other_image(world).boxed()), |world| image(world).boxed();
    DELETED_BLOB = Some(|world| put_blob(world, "deleted").map(dropped).boxed()), |world| delete_blob(world).boxed();
    SNAPSHOTS = Some(|world| lease(world).boxed()), |world| snapshots(world).boxed();
    COLLECTION = Some(|world| garbage(world).boxed()), |world| collect(world).boxed();
}

fn dropped<T>(result: Result<T>) -> Result<()> {
    result.map(drop)
}

fn lease_id() -> lease::Id {
    "lease".parse().unwrap()
}

fn scope(name: &str) -> Scope {
    let lease = (name != "alone").then(lease_id);
    Scope { lease: lease.filter(|_| name.starts_with("leased")), ..Scope::default() }
}

/// Makes the bytes of a blob: a few pages and a bit.
fn bytes(name: &str) -> Bytes {
    let salt = Digest::sha256(name.as_bytes()).hex().as_bytes().to_vec();
    (0..10_000).map(|at| salt[at / 7 % salt.len()].wrapping_add(u8::try_from(at % 251).unwrap())).collect()
}

/// Carries out a removal, for which it is as well when there is nothing to remove.
fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is(Kind::NotFound) => Ok(()),
        other => other,
    }
}

fn there<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if error.is(Kind::AlreadyExists) => Ok(()),
        other => other.map(drop),
    }
}

async fn lease(world: &World) -> Result<()> {
    let options = lease::Options { id: Some(lease_id()), ..lease::Options::default() };
    there(world.store.leases(&Scope::default().namespace).create(options).await)?;
    world.facts.hold(Thing::Lease(lease_id()), Fact::There);
    Ok(())
}

/// Brings a blob, from where its ingest was left. What was left may turn out to be damaged when power went: that is found
/// at the commit, and it is brought from the beginning, as a pull does.
async fn put_blob(world: &World, name: &str) -> Result<Descriptor> {
    put_bytes(world, name, bytes(name), Labels::new()).await
}

async fn put_bytes(world: &World, name: &str, bytes: Bytes, labels: Labels) -> Result<Descriptor> {
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    let content = world.store.content(&scope(name));
    let attempt = async || {
        let mut writer = content.writer(&descriptor.ingest_ref(), Expected::from(&descriptor)).await?;
        let offset = writer.status().await?.offset;
        let written = writer.write(bytes.slice(usize::try_from(offset).unwrap()..)).await;
        let commit = Commit { labels: labels.clone(), ..Commit::default() };
        let committed = match written {
            Ok(()) => writer.commit(commit).await,
            Err(error) => Err(error),
        };
        match committed {
            Err(error) if error.is(Kind::DataLoss) && offset > 0 => Ok(false),
            committed => committed.map(|_| true),
        }
    };
    match attempt().await {
        Ok(false) => there(attempt().await)?,
        other => there(other)?,
    }
    if !labels.is_empty() {
        // A blob that was here already came without them.
        let mut info = content.info(&descriptor.digest).await?;
        info.labels.extend(&labels);
        content.update(&info, &FieldMask::parse(["labels"])?).await?;
    }
    world.facts.hold(Thing::Blob(descriptor.digest.to_string()), Fact::Blob(descriptor.clone()));
    Ok(descriptor)
}

async fn two_blobs(world: &World) -> Result<()> {
    match futures::join!(put_blob(world, "leased one"), put_blob(world, "leased other")) {
        // The one that only heard of it knows less.
        (Err(one), Err(other)) => Err(if one.is(Kind::Aborted) { other } else { one }),
        (one, other) => one.and(other).map(drop),
    }
}

/// Brings blobs at the same time, which may come to their places together.
async fn several_blobs(world: &World) -> Result<()> {
    let names = ["leased first", "alone", "second", "third", "fourth", "fifth"];
    let brought = futures::future::join_all(names.map(|name| put_blob(world, name))).await;
    let mut errors: Vec<_> = brought.into_iter().filter_map(Result::err).collect();
    // Those that only heard of it know less.
    errors.sort_by_key(|error| error.is(Kind::Aborted));
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// Writes the first part of a blob and gives up.
async fn part_of_blob(world: &World, name: &str) -> Result<()> {
    let bytes = bytes(name);
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    let content = world.store.content(&scope(name));
    let mut writer = match content.writer(&descriptor.ingest_ref(), Expected::from(&descriptor)).await {
        Err(error) if error.is(Kind::AlreadyExists) => return Ok(()),
        writer => writer?,
    };
    if writer.status().await?.offset == 0 {
        writer.write(bytes.slice(..6_000)).await?;
    }
    Ok(())
}

/// Writes a blob at several places, and leaves gaps.
async fn sparse_part(world: &World, name: &str) -> Result<()> {
    let bytes = bytes(name);
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    let content = world.store.content(&scope(name));
    let mut writer = match content.writer(&descriptor.ingest_ref(), Expected::from(&descriptor)).await {
        Err(error) if error.is(Kind::AlreadyExists) => return Ok(()),
        writer => writer?,
    };
    let Some(hands) = writer.sparse().await? else { panic!("the size was declared") };
    for range in [7_000..9_000, 0..500, 4_000..4_100] {
        hands.write_at(range.start as u64, bytes.slice(range)).await?;
    }
    Ok(())
}

/// Fills the gaps of a blob from its end on. As with [`put_blob`], what was left may turn out to be damaged.
async fn fill_gaps(world: &World, name: &str) -> Result<()> {
    let bytes = bytes(name);
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    let content = world.store.content(&scope(name));
    let attempt = async || {
        let mut writer = content.writer(&descriptor.ingest_ref(), Expected::from(&descriptor)).await?;
        let Some(hands) = writer.sparse().await? else { panic!("the size was declared") };
        let gaps = hands.gaps().await?;
        let whole = gaps.first().is_some_and(|gap| *gap == (0..bytes.len() as u64));
        for gap in gaps.into_iter().rev() {
            let (start, end) = (usize::try_from(gap.start).unwrap(), usize::try_from(gap.end).unwrap());
            for at in (start..end).step_by(3_000) {
                hands.write_at(at as u64, bytes.slice(at..end.min(at + 3_000))).await?;
            }
        }
        match writer.commit(Commit::default()).await {
            Err(error) if error.is(Kind::DataLoss) && !whole => Ok(false),
            committed => committed.map(|_| true),
        }
    };
    match attempt().await {
        Ok(false) => there(attempt().await)?,
        other => there(other)?,
    }
    world.facts.hold(Thing::Blob(descriptor.digest.to_string()), Fact::Blob(descriptor));
    Ok(())
}

/// Fills the gaps of one blob, and goes on with another one in order, whose gaps are forgotten.
async fn sparse_blobs(world: &World) -> Result<()> {
    fill_gaps(world, "sparse").await?;
    sparse_part(world, "sparse and then in order").await?;
    put_blob(world, "sparse and then in order").await.map(drop)
}

/// Gives one ingest up, aborts another, and cuts a third one back.
async fn abandoned(world: &World) -> Result<()> {
    lease(world).await?;
    part_of_blob(world, "leased and left").await?;
    part_of_blob(world, "aborted").await?;
    let content = world.store.content(&Scope::default());
    let aborted = Descriptor::of("application/octet-stream", &bytes("aborted"));
    gone(content.abort(&aborted.ingest_ref()).await)?;
    let mut writer = content.writer(&"cut".parse()?, Expected::default()).await?;
    writer.truncate(0).await?;
    writer.write(bytes("cut").slice(..5_000)).await?;
    writer.truncate(4_500).await?;
    drop(writer);
    // The lease is of no use any more.
    world.facts.release(Thing::Lease(lease_id()));
    gone(world.store.leases(&Scope::default().namespace).delete(&lease_id(), Deletion::Background).await)?;
    world.facts.hold(Thing::Lease(lease_id()), Fact::Gone);
    Ok(())
}

async fn put_image(world: &World, name: &image::Name, content: &str) -> Result<()> {
    let layer = put_blob(world, &format!("layer of {content}")).await?;
    let labels = Labels::new().with(content_label(ChildKind::Layer, 0), layer.digest.to_string());
    let manifest = Bytes::from(format!("{{\"layer\":\"{}\",\"of\":\"{content}\"}}", layer.digest));
    let target = put_bytes(world, "manifest", manifest, labels).await?;
    let images = world.store.images(&Scope::default());
    let thing = Thing::Image(name.clone());
    world.facts.release(thing.clone());
    let image = Image::new(name.clone(), target.clone());
    match images.create(&image).await {
        Err(error) if error.is(Kind::AlreadyExists) => {
            images.update(&image, &FieldMask::all()).await?;
        }
        created => drop(created?),
    }
    world.facts.hold(thing, Fact::Target(target));
    Ok(())
}

async fn other_image(world: &World) -> Result<()> {
    put_image(world, &"deleted".parse()?, "other").await
}

/// Puts an image, points it elsewhere, and deletes another one with all that was its own.
async fn image(world: &World) -> Result<()> {
    let (kept, deleted): (image::Name, image::Name) = ("kept".parse()?, "deleted".parse()?);
    put_image(world, &kept, "first").await?;
    put_image(world, &kept, "second").await?;
    for content in ["first", "other"] {
        let layer = Digest::sha256(&bytes(&format!("layer of {content}")));
        let manifest = Digest::sha256(format!("{{\"layer\":\"{layer}\",\"of\":\"{content}\"}}").as_bytes());
        world.facts.release(Thing::Blob(layer.to_string()));
        world.facts.release(Thing::Blob(manifest.to_string()));
    }
    world.facts.release(Thing::Image(deleted.clone()));
    gone(world.store.images(&Scope::default()).delete(&deleted, Deletion::Synchronous).await)?;
    world.facts.hold(Thing::Image(deleted), Fact::Gone);
    Ok(())
}

async fn delete_blob(world: &World) -> Result<()> {
    let digest = Digest::sha256(&bytes("deleted"));
    let thing = Thing::Blob(digest.to_string());
    world.facts.release(thing.clone());
    gone(world.store.content(&Scope::default()).delete(&digest).await)?;
    world.facts.hold(thing, Fact::Gone);
    Ok(())
}

fn view(world: &World) -> Arc<dyn Snapshotter> {
    let scope = Scope { lease: Some(lease_id()), ..Scope::default() };
    world.store.snapshotters(&scope).remove(SNAPSHOTTER).unwrap()
}

/// Makes a layer, removing what an earlier attempt left unfinished, as a new owner of the root does.
async fn layer(world: &World, name: &str, parent: Option<&str>) -> Result<()> {
    let (view, name): (_, snapshot::Name) = (view(world), name.parse()?);
    let key: snapshot::Key = format!("unpack {name}").replace(' ', "-").parse()?;
    let parent = parent.map(str::parse).transpose()?;
    if view.stat(name.as_key()).await.is_ok() {
        return Ok(());
    }
    gone(view.remove(&key).await)?;
    drop(view.prepare(&key, parent.as_ref(), Labels::new()).await?);
    view.commit(&name, &key, snapshot::Commit::default()).await?;
    world.facts.hold(Thing::Snapshot(name.as_key().clone()), Fact::There);
    Ok(())
}

async fn snapshots(world: &World) -> Result<()> {
    layer(world, "base", None).await?;
    layer(world, "middle", Some("base")).await?;
    let looked: snapshot::Key = "look".parse()?;
    let base = "base".parse()?;
    there(view(world).view(&looked, Some(&base), Labels::new()).await)?;
    world.facts.hold(Thing::Snapshot(looked.clone()), Fact::There);
    for key in [looked, "middle".parse()?] {
        world.facts.release(Thing::Snapshot(key.clone()));
        gone(view(world).remove(&key).await)?;
        world.facts.hold(Thing::Snapshot(key), Fact::Gone);
    }
    Ok(())
}

/// Gathers garbage of every kind beside what has to stay.
async fn garbage(world: &World) -> Result<()> {
    lease(world).await?;
    put_image(world, &"kept".parse()?, "kept").await?;
    layer(world, "base", None).await?;
    layer(world, "top", Some("base")).await?;
    let labels = Labels::new().with(snapshot_label(SNAPSHOTTER), "base");
    let garbage = put_bytes(world, "leased", bytes("held by the lease"), labels).await?;
    let unheld = put_blob(world, "nobody's").await?;
    part_of_blob(world, "left long ago").await?;
    age_ingests(world.store.root());
    let leases = world.store.leases(&Scope::default().namespace);
    let top = Resource { kind: ResourceKind::Snapshot(SNAPSHOTTER.to_owned()), id: "top".to_owned() };
    world.facts.release(Thing::Snapshot("top".parse()?));
    leases.delete_resource(&lease_id(), &top).await?;
    world.facts.release(Thing::Blob(unheld.digest.to_string()));
    world.facts.hold(Thing::Blob(garbage.digest.to_string()), Fact::Blob(garbage));
    Ok(())
}

async fn collect(world: &World) -> Result<()> {
    world.store.collect().await?;
    world.facts.hold(Thing::Snapshot("top".parse()?), Fact::Gone);
    world.facts.hold(Thing::Blob(Digest::sha256(&bytes("nobody's")).to_string()), Fact::Gone);
    Ok(())
}
