//! Whether a daemon answers: `grpc.health.v1.Health`, as <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>
//! has it. Whoever gets an answer has the server as a whole; services are not told apart. While a daemon drains it does not serve.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use windlass_proto::grpc::health::v1 as wire;
use windlass_proto::grpc::health::v1::health_check_response::ServingStatus;
use windlass_proto::grpc::health::v1::health_server::Health;

/// Answers whether the server works.
#[derive(Debug, Clone)]
pub struct Server {
    draining: Arc<watch::Sender<bool>>,
}

impl Default for Server {
    /// Answers for a server that does not end.
    fn default() -> Self {
        Self::new(Arc::new(watch::Sender::new(false)))
    }
}

impl Server {
    /// Answers for a server that takes no calls once the value is true.
    pub fn new(draining: Arc<watch::Sender<bool>>) -> Self {
        Self { draining }
    }

    fn status(draining: bool) -> ServingStatus {
        if draining { ServingStatus::NotServing } else { ServingStatus::Serving }
    }
}

fn response(status: ServingStatus) -> wire::HealthCheckResponse {
    wire::HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Server {
    async fn check(
        &self,
        request: Request<wire::HealthCheckRequest>,
    ) -> Result<Response<wire::HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(response(Self::status(*self.draining.borrow())))),
            other => Err(Status::not_found(format!("the health of service {other:?} is not known by itself"))),
        }
    }

    type WatchStream = BoxStream<'static, Result<wire::HealthCheckResponse, Status>>;

    /// Says how it is, and when that changes; it ends with the server.
    async fn watch(&self, request: Request<wire::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let mut draining = self.draining.subscribe();
        let now = Self::status(*draining.borrow_and_update());
        let first = if known { now } else { ServingStatus::ServiceUnknown };
        let then = async move {
            // The other end is gone only when nobody serves any more.
            let _ = draining.wait_for(|draining| *draining).await;
            let last = known.then(|| Ok(response(ServingStatus::NotServing)));
            let ended = Err(Status::unavailable("the daemon is stopping"));
            stream::iter(last.into_iter().chain([ended]))
        };
        Ok(Response::new(stream::once(async move { Ok(response(first)) }).chain(stream::once(then).flatten()).boxed()))
    }
}
