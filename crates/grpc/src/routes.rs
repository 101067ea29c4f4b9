//! Which service a call is for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{self, Ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::util::{BoxCloneSyncService, Oneshot};
use tower::{Service, ServiceExt as _};

/// A service, whatever its type is.
type Any = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// How much of the name of a service that is not here is told, in characters.
const LONGEST_NAME: usize = 100;

/// Services by their names, as one: a call of a service that is not here is `Unimplemented`, and the message names it, because
/// clients of whoever runs containers print what they get. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Routes(Arc<BTreeMap<&'static str, Any>>);

impl Routes {
    /// Adds a service, in place of one that has its name.
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Arc::make_mut(&mut self.0).insert(S::NAME, BoxCloneSyncService::new(service));
        self
    }

    fn find(&self, path: &str) -> Option<&Any> {
        let (service, _) = path.strip_prefix('/')?.split_once('/')?;
        self.0.get(service)
    }
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Oneshot<Any, Request<Body>>, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.find(request.uri().path()) {
            Some(service) => Either::Left(service.clone().oneshot(request)),
            None => Either::Right(future::ready(Ok(unknown(request.uri().path()).into_http()))),
        }
    }
}

fn unknown(path: &str) -> Status {
    let service: String = path.split('/').nth(1).unwrap_or_default().chars().take(LONGEST_NAME).collect();
    Status::unimplemented(format!(
        "service {service:?} is not served here: this daemon keeps images and the records of containers, and runs nothing yet"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the path.
    #[derive(Clone)]
    struct Named;

    impl NamedService for Named {
        const NAME: &'static str = "a.Service";
    }

    impl Service<Request<Body>> for Named {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            future::ready(Ok(Response::new(Body::new(request.uri().path().to_owned()))))
        }
    }

    #[tokio::test]
    async fn a_call_goes_to_the_service_that_it_names_or_is_unimplemented() {
        let routes = Routes::default().add_service(Named);
        let status = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            Status::from_header_map(answer.headers()).map(|status| status.code())
        };
        for path in ["/a.Service/Method", "/a.Service/"] {
            assert_eq!(status(path).await, None, "{path}");
        }
        for path in ["/a.Servic/Method", "/a.Service.v2/Method", "/a.Service", "/", "/x/a.Service/Method"] {
            assert_eq!(status(path).await, Some(tonic::Code::Unimplemented), "{path}");
        }
    }
}
