//! Every method there is, called wrongly: each answers, nothing panics, and what is asked rightly afterwards is answered as before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use prost::Message as _;
use tonic::Code;
use windlass_core::Labels;
use windlass_proto::containerd::services as wire;
use windlass_proto::containerd::types;

use crate::raw::{call, methods};
use crate::serving::Place;

/// How many panics there were in this process: each test has one of its own.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(info);
    }));
}

/// Services without which a namespace is asked for: what they are about is none's, or all namespaces'.
const OF_NO_NAMESPACE: [&str; 7] = [
    "/containerd.services.namespaces.v1.Namespaces/",
    "/containerd.services.introspection.v1.Introspection/",
    "/containerd.services.version.v1.Version/",
    "/containerd.services.events.v1.Events/",
    "/grpc.health.v1.Health/",
    "/windlass.services.maintenance.v1.Maintenance/Collect",
    "/windlass.services.maintenance.v1.Maintenance/Plan",
];

/// Methods whose requests have no fields.
const WITHOUT_FIELDS: [&str; 4] = [
    "/containerd.services.introspection.v1.Introspection/Server",
    "/containerd.services.version.v1.Version/Version",
    "/windlass.services.maintenance.v1.Maintenance/Collect",
    "/windlass.services.maintenance.v1.Maintenance/Plan",
];

/// Services that are described and not served.
const NOT_HERE: [&str; 3] = [
    "/containerd.services.sandbox.v1.",
    "/containerd.services.events.ttrpc.v1.",
    "/containerd.services.tasks.v1.Tasks/Create",
];

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_answered_by_every_method() {
    count_panics();
    let place = Place::new();
    let daemon = place.start().await;
    let services = place.services().await;
    services.namespaces.create(&"n".parse().unwrap(), Labels::new()).await.unwrap();
    let channel = place.channel().await;
    let deep: Vec<u8> = std::iter::repeat_n([0x0b_u8, 0x0a, 0x02], 40_000).flatten().collect();
    for method in methods() {
        for (what, message) in [
            ("a length past the end", &[0x0a, 0xff, 0x01][..]),
            ("text that is none", &[0x0a, 0x02, 0xff, 0xfe]),
            ("a number without end", &[0xff; 16]),
            ("an end of a group", &[0x0c]),
            ("groups without end", &deep),
            ("a field of number 0", &[0x02, 0x00]),
        ] {
            let answered = call(&channel, &method, Bytes::copy_from_slice(message), Some("n")).await;
            let Err(status) = answered else {
                // A message without fields has none that it would not read over.
                assert!(what == "text that is none" && WITHOUT_FIELDS.contains(&&*method), "{method} took {what}");
                continue;
            };
            let codes = [Code::Internal, Code::InvalidArgument, Code::Unimplemented];
            assert!(codes.contains(&status.code()), "{method}, {what}: {status}");
        }
    }
    assert_eq!(services.namespaces.list().await.unwrap().len(), 1);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_namespace_is_a_failed_precondition() {
    count_panics();
    let place = Place::new();
    let daemon = place.start().await;
    let channel = place.channel().await;
    for method in methods() {
        let answered = call(&channel, &method, Bytes::new(), None).await;
        if OF_NO_NAMESPACE.iter().any(|service| method.starts_with(service)) {
            let refused = answered.err().is_some_and(|status| status.code() == Code::FailedPrecondition);
            // Who publishes is asked for one, who subscribes is not.
            assert_eq!(refused, method.ends_with("Events/Publish"), "{method}");
            continue;
        }
        let status = answered.expect_err(&method);
        if NOT_HERE.iter().any(|service| method.starts_with(service)) {
            assert_eq!(status.code(), Code::Unimplemented, "{method}");
            continue;
        }
        assert_eq!(status.code(), Code::FailedPrecondition, "{method}: {status}");
        assert!(status.message().contains("namespace is required"), "{method}: {status}");
    }
    for wrong in ["a b", "../x", "", &"n".repeat(77), "-a", "a/b"] {
        let answered = call(&channel, "/containerd.services.images.v1.Images/List", Bytes::new(), Some(wrong)).await;
        let expected = if wrong.is_empty() { Code::FailedPrecondition } else { Code::InvalidArgument };
        assert_eq!(answered.unwrap_err().code(), expected, "{wrong:?}");
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    daemon.stop().await;
}

/// Starts Debian's containerd, which lives as long as this thread.
async fn containerd(place: &Place) -> tonic::transport::Channel {
    let root = place.path("").display().to_string();
    let config = format!(
        "version = 2\nroot = \"{root}root\"\nstate = \"{root}state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = \"{root}run/windlass.sock\"\n[ttrpc]\naddress = \"{root}run/ttrpc\"\n"
    );
    std::fs::write(place.path("config.toml"), config).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "containerd", "--config"]).arg(place.path("config.toml"));
    let log = std::fs::File::create(place.path("log")).unwrap();
    // Its end is that of the test; nobody waits for it.
    drop(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    for _ in 0..600 {
        if tokio::net::UnixStream::connect(place.socket()).await.is_ok() {
            return place.channel().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("containerd does not answer: {}", std::fs::read_to_string(place.path("log")).unwrap());
}

/// An empty message ends the process of containerd 1.6 there.
const ENDS_CONTAINERD: [&str; 2] = ["/containerd.services.diff.v1.Diff/", "/containerd.services.events.v1.Events/"];

#[tokio::test]
async fn a_call_without_a_namespace_is_refused_where_containerd_refuses_it() {
    let (place, theirs) = (Place::new(), Place::new());
    let daemon = place.start().await;
    let (ours, theirs) = (place.channel().await, containerd(&theirs).await);
    let (mut compared, mut different) = (0, Vec::new());
    for method in methods().into_iter().filter(|method| !ENDS_CONTAINERD.iter().any(|it| method.starts_with(it))) {
        let code = async |channel| call(channel, &method, Bytes::new(), None).await.err().map(|status| status.code());
        let (ours, theirs) = (code(&ours).await, code(&theirs).await);
        // Not every method is in 1.6, nor are tasks here; some look at the message there before they do at the header, and one loses
        // the class of its error.
        if [ours, theirs].contains(&Some(Code::Unimplemented))
            || matches!(theirs, Some(Code::InvalidArgument | Code::Unknown))
        {
            continue;
        }
        compared += 1;
        let refused = Some(Code::FailedPrecondition);
        if (ours == refused) != (theirs == refused) {
            different.push(format!("{method}: {ours:?} here, {theirs:?} there"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
    assert!(compared > 30, "{compared}");
    daemon.stop().await;
}

/// Values that are no name of anything, and such that would lead somewhere else if they were taken for paths.
const WRONG: [&str; 7] = ["", "../../../etc/passwd", "/", ".", "a\0b", "a\nb", "\u{202e}"];

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_that_are_none_are_refused_and_name_no_file() {
    count_panics();
    let place = Place::new();
    let daemon = place.start().await;
    let channel = place.channel().await;
    let long = "x".repeat(5000);
    for wrong in WRONG.into_iter().chain([long.as_str()]) {
        for (method, message) in messages(wrong) {
            let answered = call(&channel, method, message.into(), Some("n")).await;
            let status = answered.expect_err(&format!("{method} took {wrong:?}"));
            let codes = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::OutOfRange];
            assert!(codes.contains(&status.code()), "{method}, {wrong:?}: {status}");
            assert!(status.message().len() < 12_000, "{method}: {} bytes", status.message().len());
        }
    }
    assert!(!place.path("etc").exists() && !place.path("root/etc").exists());
    assert_eq!(place.services().await.namespaces.list().await.unwrap(), []);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    daemon.stop().await;
}

/// Returns a call for each place where a client names something.
fn messages(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let name = name.to_owned();
    let content = |method| {
        let info = wire::content::v1::InfoRequest { digest: name.clone() };
        (method, info.encode_to_vec())
    };
    let image = wire::images::v1::Image { name: name.clone(), ..Default::default() };
    let container = wire::containers::v1::Container { id: name.clone(), ..Default::default() };
    let snapshotter = || "native".to_owned();
    vec![
        content("/containerd.services.content.v1.Content/Info"),
        content("/containerd.services.content.v1.Content/Read"),
        content("/containerd.services.content.v1.Content/Delete"),
        content("/containerd.services.content.v1.Content/Abort"),
        content("/containerd.services.content.v1.Content/Status"),
        (
            "/containerd.services.content.v1.Content/Write",
            wire::content::v1::WriteContentRequest {
                action: wire::content::v1::WriteAction::Commit.into(),
                r#ref: "r".into(),
                expected: format!("sha256:{name}"),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "/containerd.services.images.v1.Images/Get",
            wire::images::v1::GetImageRequest { name: name.clone() }.encode_to_vec(),
        ),
        (
            "/containerd.services.images.v1.Images/Create",
            wire::images::v1::CreateImageRequest { image: Some(image), ..Default::default() }.encode_to_vec(),
        ),
        (
            "/containerd.services.containers.v1.Containers/Create",
            wire::containers::v1::CreateContainerRequest { container: Some(container) }.encode_to_vec(),
        ),
        (
            "/containerd.services.namespaces.v1.Namespaces/Create",
            wire::namespaces::v1::CreateNamespaceRequest {
                namespace: Some(wire::namespaces::v1::Namespace { name: name.clone(), labels: HashMap::new() }),
            }
            .encode_to_vec(),
        ),
        (
            "/containerd.services.snapshots.v1.Snapshots/Stat",
            wire::snapshots::v1::StatSnapshotRequest { snapshotter: snapshotter(), key: name.clone() }.encode_to_vec(),
        ),
        (
            "/containerd.services.snapshots.v1.Snapshots/Prepare",
            wire::snapshots::v1::PrepareSnapshotRequest {
                snapshotter: name.clone(),
                key: "k".into(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "/containerd.services.snapshots.v1.Snapshots/Prepare",
            wire::snapshots::v1::PrepareSnapshotRequest {
                snapshotter: snapshotter(),
                key: "k".into(),
                parent: if name.is_empty() { "absent".into() } else { name.clone() },
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "/containerd.services.leases.v1.Leases/Delete",
            wire::leases::v1::DeleteRequest { id: name.clone(), sync: false }.encode_to_vec(),
        ),
        (
            "/containerd.services.diff.v1.Diff/Apply",
            wire::diff::v1::ApplyRequest {
                diff: Some(types::Descriptor { digest: name.clone(), ..Default::default() }),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}
