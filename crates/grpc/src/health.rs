//! Whether a daemon answers: `grpc.health.v1.Health`, as <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>
//! has it. Whoever gets an answer has the server as a whole; services are not told apart.

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};
use windlass_proto::grpc::health::v1 as wire;
use windlass_proto::grpc::health::v1::health_check_response::ServingStatus;
use windlass_proto::grpc::health::v1::health_server::Health;

/// Answers that the server works.
#[derive(Debug, Clone, Copy, Default)]
pub struct Server;

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
            "" => Ok(Response::new(response(ServingStatus::Serving))),
            other => Err(Status::not_found(format!("the health of service {other:?} is not known by itself"))),
        }
    }

    type WatchStream = BoxStream<'static, Result<wire::HealthCheckResponse, Status>>;

    /// Says how it is, and stays open: it ends with the server.
    async fn watch(&self, request: Request<wire::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        Ok(Response::new(stream::once(async move { Ok(response(status)) }).chain(stream::pending()).boxed()))
    }
}
