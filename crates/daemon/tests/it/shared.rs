//! What transfers of one daemon share, and what they do not: limits of hosts and bandwidth, and never credentials.

use std::time::{Duration, Instant};

use tonic::Request;
use windlass_core::{Kind, Platform, Result, Scope};
use windlass_grpc::streaming::{pack, unpack};
use windlass_grpc::{Client, error};
use windlass_proto::containerd::services::transfer::v1::TransferRequest;
use windlass_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use windlass_proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, ImageStore, OciRegistry, RegistryResolver,
};
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::registry::{Auth, Bearer, Fake, Fault};

use crate::serving::{Place, start};

const SECRET: &str = "hunter2-is-secret";

/// Pulls an image without unpacking it, with the credentials that a stream of that name answers with, and further headers.
async fn pull(place: &Place, reference: &str, stream: &str, headers: &[(&'static str, &str)]) -> Result<()> {
    let resolver = RegistryResolver { auth_stream: stream.to_owned(), ..RegistryResolver::default() };
    let from = OciRegistry { reference: reference.to_owned(), resolver: Some(resolver) };
    let to = ImageStore { name: reference.to_owned(), ..ImageStore::default() };
    let mut request =
        Request::new(TransferRequest { source: Some(pack(&from)), destination: Some(pack(&to)), options: None });
    request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let answer = TransferClient::new(place.channel().await).transfer(request).await;
    answer.map(|_| ()).map_err(|status| error::from_status(&status))
}

/// Serves an image of one layer of about so many bytes.
async fn serve(tag: &str, size: usize) -> (Fake, String) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = |_| {
        // xorshift64: nothing that compresses
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let noise: Vec<u8> = (0..size / 8).map(word).flat_map(u64::to_le_bytes).collect();
    let layer = Layer::new().file("noise", noise).file("tag", tag);
    let bundle = Image::new(&Platform::host().to_string()).layer(layer).build();
    let fake = Fake::start().await;
    for (digest, bytes) in &bundle.blobs {
        if *digest == bundle.root.digest {
            fake.add_manifest("a/b", Some(tag), bundle.root.media_type.as_str(), bytes.clone());
        } else {
            fake.add_blob("a/b", "application/octet-stream", bytes.clone());
        }
    }
    let reference = format!("{}/a/b:{tag}", fake.host());
    (fake, reference)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pulls_with_the_credentials_or_the_token_of_another_client() {
    let place = Place::new();
    let daemon = place.start().await;
    let (fake, reference) = serve("1", 1000).await;
    let user = Some(("user".to_owned(), SECRET.to_owned()));
    fake.require(Auth::Bearer(Bearer { anonymous: false, user, ..Bearer::default() }));
    let client = Client::new(place.channel().await);
    let mut stream = client.open_stream(&Scope::default(), "credentials").await.unwrap();
    let answering = tokio::spawn(async move {
        while let Ok(Some(question)) = stream.receive().await {
            assert!(unpack::<AuthRequest>(&question).unwrap().is_some());
            let (username, secret) = ("user".to_owned(), SECRET.to_owned());
            let answer = AuthResponse { auth_type: AuthType::Credentials.into(), username, secret, expire_at: None };
            stream.send(&answer).await.unwrap();
        }
    });
    pull(&place, &reference, "credentials", &[]).await.unwrap();
    fake.forget_requests();
    let refused = pull(&place, &reference, "", &[]).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Unauthenticated, "credentials-needed"));
    assert!(!format!("{refused:?} {:?}", refused.trace()).contains(SECRET));
    let requests = fake.requests();
    assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");
    daemon.stop().await;
    answering.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_refuses_one_transfer_is_spared_by_the_others() {
    let place = Place::new();
    let daemon = place.start().await;
    let (fake, reference) = serve("1", 1000).await;
    let headers = vec![("retry-after".to_owned(), "2".to_owned())];
    fake.fault_times("/v2/", Fault::Answer { status: 429, headers, body: "slow down".into() }, 1);
    let began = Instant::now();
    let second = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        pull(&place, &reference, "", &[]).await
    };
    let (first, second) = tokio::join!(pull(&place, &reference, "", &[]), second);
    first.unwrap();
    second.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let early = fake.requests().len();
    assert!(early >= 3, "{early}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pulls_together_keep_to_the_rate_of_the_configuration() {
    const RATE: u64 = 2 << 20;
    let place = Place::new();
    let mut config = place.config();
    config.transfer.limit_rate = RATE.try_into().ok();
    let daemon = start(config).await;
    let ((first, a), (second, b)) = (serve("1", 5 << 20).await, serve("2", (5 << 20) + 1).await);
    let began = Instant::now();
    let (one, two) = tokio::join!(pull(&place, &a, "", &[]), pull(&place, &b, "", &[]));
    one.unwrap();
    two.unwrap();
    #[expect(clippy::cast_precision_loss, reason = "there are some million")]
    let ideal = (first.sent() + second.sent()) as f64 / RATE as f64;
    let took = began.elapsed().as_secs_f64();
    println!("{took:.2} s where the rate says {ideal:.2} s");
    assert!(ideal > 4.9, "{ideal}");
    assert!(took >= ideal * 0.95, "it was faster than it may be: {took} s for {ideal} s");
    assert!(took <= ideal * 1.05 + 0.5, "it was slower than it may be: {took} s for {ideal} s");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_says_a_priority_and_is_told_what_was_tried() {
    let place = Place::new();
    let daemon = place.start().await;
    let (fake, reference) = serve("1", 1000).await;
    pull(&place, &reference, "", &[("windlass-priority", "low")]).await.unwrap();
    let wrong = pull(&place, &reference, "", &[("windlass-priority", "urgent")]).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::InvalidArgument);
    assert!(wrong.to_string().contains("urgent"), "{wrong}");

    let absent = pull(&place, &format!("{}/a/b:2", fake.host()), "", &[]).await.unwrap_err();
    assert_eq!((absent.kind(), absent.code()), (Kind::NotFound, "tag-not-found"));
    let [tried] = absent.trace() else { panic!("{:?}", absent.trace()) };
    assert_eq!(
        (&*tried.host, tried.status, tried.code.as_deref()),
        (&*fake.host(), Some(404), Some("MANIFEST_UNKNOWN"))
    );
    daemon.stop().await;
}
