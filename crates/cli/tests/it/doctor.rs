//! What is said of this machine, and of the way to a registry.

use std::net::TcpListener;

use serde_json::Value;
use windlass_testkit::registry::DockerRegistry;

use crate::dist::{Dist, bare};
use crate::fixture::directory;

fn checks(report: &Value) -> Vec<(&str, &str)> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks.map(|check| (check["about"].as_str().unwrap(), check["verdict"].as_str().unwrap())).collect()
}

#[test]
fn this_machine_is_well_enough_for_the_tests() {
    let dist = Dist::new();
    let report = dist.json("doctor");
    assert_ne!(report["verdict"], "fail", "{report}");
    let checks = checks(&report);
    for about in ["root", "room", "overlayfs", "erofs", "idmapped mounts", "fs-verity", "daemon"] {
        assert!(checks.iter().any(|(other, _)| *other == about), "{report}");
    }
    let text = dist.ok("doctor");
    assert!(text.lines().any(|line| line.starts_with("ok    root")), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(!dist.root().exists(), "the root was made");
}

#[test]
fn the_way_to_an_image_is_looked_at_and_the_exit_code_tells() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    registry.push_layout(format!("{}:1", directory(&dist).display()), "app:1");
    let report = dist.json(&format!("doctor {}/app:1", registry.host()));
    assert!(checks(&report).contains(&("manifest", "ok")), "{report}");

    let run = dist.run(&format!("doctor {}/app:2", registry.host()));
    assert_eq!(run.code, Some(1), "{run:?}");
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("fail  manifest") && text.contains("hint: there are the tags 1"), "{text}");
    assert_eq!(run.stderr, "", "what was found is data");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = dist.run(&format!("--format json doctor 127.0.0.1:{port}/app:1"));
    assert_eq!(run.code, Some(1));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["verdict"], "fail");
    assert_eq!(checks(&report).last(), Some(&("tcp", "fail")), "{report}");
}

#[test]
fn a_daemon_that_does_not_answer_is_told() {
    let dist = Dist::new();
    let socket = dist.path("none.sock");
    let output =
        bare().env("HOME", dist.path("")).args(["--address".as_ref(), socket.as_os_str()]).arg("doctor").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("fail  daemon           machine: it does not answer at"), "{text}");
    assert!(text.contains("hint: start it"), "{text}");
}
