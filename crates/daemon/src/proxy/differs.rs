//! Several differs in the place of one: the first that can do what is asked for does it, as with containerd's diff service.
//!
//! They are for the calls of the service `Diff`. Pulls and imports of this daemon unpack layers that are still arriving, which
//! nobody could read through a socket.

use std::sync::Arc;

use async_trait::async_trait;
use tonic::transport::Channel;
use windlass::Engine;
use windlass_core::content::Provider;
use windlass_core::diff::{Applied, Applier, CompareOptions, Comparer, Whiteouts};
use windlass_core::progress::Task;
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, Error, Host, Kind, Result, Scope, Services};
use windlass_grpc::diff::Remote;

/// The differ of this process.
pub(crate) const WALKING: &str = "walking";

/// One of the differs.
#[derive(Clone)]
pub(super) enum Differ {
    Own,
    Behind(Channel),
}

/// An engine whose layers are applied and compared by several differs.
pub(crate) struct Differing {
    engine: Engine,
    order: Vec<Differ>,
}

impl Differing {
    pub(super) fn new(engine: Engine, order: Vec<Differ>) -> Self {
        Self { engine, order }
    }
}

#[async_trait]
impl Host for Differing {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        let services = self.engine.services(scope).await?;
        // A lease of this daemon is none of theirs.
        let scope = Scope::from(scope.namespace.clone());
        let (mut appliers, mut comparers): (Vec<Arc<dyn Applier>>, Vec<Arc<dyn Comparer>>) = (Vec::new(), Vec::new());
        for differ in &self.order {
            match differ {
                Differ::Own => {
                    appliers.push(services.applier.clone());
                    comparers.push(services.comparer.clone());
                }
                Differ::Behind(channel) => {
                    appliers.push(Arc::new(Remote::new(channel.clone(), scope.clone())));
                    comparers.push(Arc::new(Remote::new(channel.clone(), scope.clone())));
                }
            }
        }
        Ok(Services { applier: Arc::new(Appliers(appliers)), comparer: Arc::new(Comparers(comparers)), ..services })
    }
}

fn nobody() -> Error {
    Error::unimplemented("no differ can do that").hint("diff.default of the configuration lists those that are asked")
}

struct Appliers(Vec<Arc<dyn Applier>>);

#[async_trait]
impl Applier for Appliers {
    async fn apply(
        &self,
        content: &dyn Provider,
        layer: &Descriptor,
        mounts: &[Mount],
        whiteouts: Whiteouts,
        task: Option<&Task>,
    ) -> Result<Applied> {
        let mut last = nobody();
        for applier in &self.0 {
            match applier.apply(content, layer, mounts, whiteouts, task).await {
                Err(error) if error.is(Kind::Unimplemented) => last = error,
                done => return done,
            }
        }
        Err(last)
    }
}

struct Comparers(Vec<Arc<dyn Comparer>>);

#[async_trait]
impl Comparer for Comparers {
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor> {
        let mut last = nobody();
        for comparer in &self.0 {
            match comparer.compare(lower, upper, options.clone()).await {
                Err(error) if error.is(Kind::Unimplemented) => last = error,
                done => return done,
            }
        }
        Err(last)
    }
}
