//! The running side of containers: `containerd.services.tasks.v1.Tasks`, as far as a daemon that runs nothing can answer.
//!
//! Clients ask for the task of a container before they delete the container, and for all tasks before they list what runs: no
//! container has one here. Whatever would start or change one is `Unimplemented`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use windlass_core::{Error, Host};
use windlass_proto::containerd::services::tasks::v1 as wire;
use windlass_proto::containerd::services::tasks::v1::tasks_server::Tasks;

use crate::error::to_status;
use crate::scope;

/// Answers for a host whose containers are records.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }
}

/// Says that a container does not run; of a container that is not here, that it is not.
async fn no_task<T: Send>(host: &dyn Host, request: Request<T>, id: impl Fn(&T) -> &str) -> Status {
    let services = match scope::services(host, &request).await {
        Ok(services) => services,
        Err(status) => return status,
    };
    let message = request.into_inner();
    let id = id(&message);
    match services.containers.get(id).await {
        Ok(_) => to_status(&Error::not_found(format!("container {id:?} has no task: nothing runs here"))),
        Err(error) => to_status(&error),
    }
}

/// Answers those calls about a running task with that there is none.
macro_rules! of_no_task {
    ($($name:ident($request:ident) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl Tasks for Server {
            async fn list(&self, request: Request<wire::ListTasksRequest>) -> Result<Response<wire::ListTasksResponse>, Status> {
                scope::of_headers(request.metadata()).map_err(|error| to_status(&error))?;
                Ok(Response::new(wire::ListTasksResponse::default()))
            }

            async fn metrics(&self, request: Request<wire::MetricsRequest>) -> Result<Response<wire::MetricsResponse>, Status> {
                scope::of_headers(request.metadata()).map_err(|error| to_status(&error))?;
                Ok(Response::new(wire::MetricsResponse::default()))
            }

            async fn create(&self, _: Request<wire::CreateTaskRequest>) -> Result<Response<wire::CreateTaskResponse>, Status> {
                let error = Error::unimplemented("this daemon keeps images and the records of containers, and runs nothing yet");
                Err(to_status(&error.hint("run the container with a runtime of its own, on what `ctr snapshots mounts` prints")))
            }

            $(
                async fn $name(&self, request: Request<wire::$request>) -> Result<Response<$answer>, Status> {
                    Err(no_task(&*self.host, request, |message| &message.container_id).await)
                }
            )*
        }
    };
}

of_no_task! {
    start(StartRequest) -> wire::StartResponse;
    delete(DeleteTaskRequest) -> wire::DeleteResponse;
    delete_process(DeleteProcessRequest) -> wire::DeleteResponse;
    get(GetRequest) -> wire::GetResponse;
    kill(KillRequest) -> ();
    exec(ExecProcessRequest) -> ();
    resize_pty(ResizePtyRequest) -> ();
    close_io(CloseIoRequest) -> ();
    pause(PauseTaskRequest) -> ();
    resume(ResumeTaskRequest) -> ();
    list_pids(ListPidsRequest) -> wire::ListPidsResponse;
    checkpoint(CheckpointTaskRequest) -> wire::CheckpointTaskResponse;
    update(UpdateTaskRequest) -> ();
    wait(WaitRequest) -> wire::WaitResponse;
}
