//! Which images may be here: policies, signatures and programs, with Debian's registry.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use windlass_testkit::image::{Signer, signatures};
use windlass_testkit::registry::DockerRegistry;

use crate::dist::{Dist, Run};
use crate::fixture::{bundle, layout};
use crate::remote::Daemon;

/// A registry that has an image and, unless it is to be unsigned, its signatures.
fn registry(dist: &Dist, signers: &[&Signer]) -> (DockerRegistry, String) {
    let registry = DockerRegistry::start();
    let bundle = bundle();
    let directory = dist.path("pushed");
    bundle.write_layout(&directory, "1").unwrap();
    registry.push_layout(format!("{}:1", directory.display()), "prod/app:1");
    if !signers.is_empty() {
        let digest = &bundle.root.digest;
        let all: Vec<_> = signers.iter().map(|signer| signer.sign(digest)).collect();
        let tag = format!("sha256-{}.sig", digest.hex());
        signatures(&all).write_layout(&directory, "signatures").unwrap();
        registry.push_layout(format!("{}:signatures", directory.display()), &format!("prod/app:{tag}"));
    }
    let reference = format!("{}/prod/app:1", registry.host());
    (registry, reference)
}

/// Writes a policy that wants everything signed, and the key of who has to.
fn policy(dist: &Dist, signer: &Signer) {
    std::fs::write(dist.path("prod.pub"), signer.public_key()).unwrap();
    let text =
        "default = \"deny\"\n\n[[rule]]\nname = \"**/prod/**\"\naction = \"allow\"\nsigned_by = [\"prod.pub\"]\n";
    std::fs::write(dist.path("policy.toml"), text).unwrap();
}

fn nothing_is_here(dist: &Dist) {
    assert_eq!(dist.json("images ls").as_array().map(Vec::len), Some(0));
    assert_eq!(dist.json("content ls").as_array().map(Vec::len), Some(0));
    assert_eq!(dist.json("snapshots ls").as_array().map(Vec::len), Some(0));
    assert_eq!(dist.json("leases ls").as_array().map(Vec::len), Some(0));
}

#[test]
fn a_signed_image_is_pulled_from_a_real_registry_and_others_are_not() {
    let (dist, signer) = (Dist::new(), Signer::new());
    policy(&dist, &signer);
    let with = format!("--policy {}", dist.path("policy.toml").display());

    let (_unsigned, reference) = registry(&dist, &[]);
    let refused = dist.run(&format!("pull {with} {reference}"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is refused by rule 1 (\"**/prod/**\") of policy"), "{}", refused.stderr);
    assert!(refused.stderr.contains("it has no signature: there is no tag sha256-"), "{}", refused.stderr);
    nothing_is_here(&dist);

    let (_other, reference) = registry(&dist, &[&Signer::new()]);
    let refused = dist.run(&format!("--format json fetch {with} {reference}"));
    assert!(refused.stderr.contains("permission-denied"), "{}", refused.stderr);
    assert!(refused.stderr.contains("was not made by prod.pub"), "{}", refused.stderr);
    nothing_is_here(&dist);

    let (_signed, reference) = registry(&dist, &[&Signer::new(), &signer]);
    dist.ok(&format!("pull {with} {reference}"));
    // A tag of the same name elsewhere is not what was signed for: no rule is about it.
    let refused = dist.run(&format!("pull {with} {}", layout(&dist)));
    assert!(refused.stderr.contains("no rule allows it, and the default is to deny"), "{}", refused.stderr);
}

#[test]
fn programs_decide_about_archives_too() {
    let dist = Dist::new();
    let archive = dist.path("app.tar");
    dist.ok(&format!("fetch --all-platforms {}", layout(&dist)));
    dist.ok(&format!("images export {} {}", archive.display(), layout(&dist)));
    let verifiers = dist.path("verifiers");
    std::fs::create_dir(&verifiers).unwrap();
    let program = verifiers.join("never");
    std::fs::write(&program, "#!/bin/sh\necho \"not $2\"\nexit 3\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();

    let fresh = Dist::new();
    let import = format!("images import --all-platforms --base-name registry.test/app --digests {}", archive.display());
    let refused = fresh.run(&format!("{import} --verifier-dir {}", verifiers.display()));
    assert!(
        refused.stderr.contains("is refused by verifier never (exit code 3): not registry.test/app"),
        "{refused:?}"
    );
    nothing_is_here(&fresh);

    let missing = fresh.run(&format!("{import} --verifier-dir {}", dist.path("none").display()));
    assert!(missing.stderr.contains("there is no directory of verifiers"), "{missing:?}");
    std::fs::remove_file(program).unwrap();
    fresh.ok(&format!("{import} --verifier-dir {}", verifiers.display()));
}

#[test]
fn a_policy_that_cannot_be_read_is_told_with_its_line() {
    let dist = Dist::new();
    std::fs::write(dist.path("policy.toml"), "default = \"deny\"\n[[rule]]\nname = \"**\"\naktion = \"allow\"\n")
        .unwrap();
    let run = dist.run(&format!("fetch --policy {} {}", dist.path("policy.toml").display(), layout(&dist)));
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("policy.toml:2: rule has no action"), "{}", run.stderr);
    let run = dist.run(&format!("fetch --policy {} {}", dist.path("none").display(), layout(&dist)));
    assert!(run.stderr.contains("read policy"), "{}", run.stderr);
    nothing_is_here(&dist);
}

/// Runs Debian's `ctr`, which brings content and makes names itself, on a daemon.
fn ctr(daemon: &Daemon, line: &str) -> Run {
    Run::of(Command::new("ctr").arg("-a").arg(&daemon.socket).args(line.split(' ')).output().unwrap())
}

#[test]
fn what_clients_bring_themselves_is_recorded_only_when_the_daemon_s_policy_allows_it() {
    let (dist, maker, signer) = (Dist::new(), Dist::new(), Signer::new());
    policy(&dist, &signer);
    let more = format!("[verification]\npolicy = {:?}\n", dist.path("policy.toml"));
    let daemon = Daemon::configured(&dist, &more);
    let names = || ctr(&daemon, "images ls -q").ok();
    let refused = |line: &str, reason: &str| {
        let run = ctr(&daemon, line);
        assert_eq!(run.code, Some(1), "{line}: {run:?}");
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
        assert!(said.contains("is refused by") && said.contains(reason), "{line}: {said}");
    };

    let (_unsigned, unsigned) = registry(&maker, &[]);
    refused(&format!("images pull --plain-http {unsigned}"), "it has no signature: there is no tag sha256-");
    let archive = maker.path("app.tar");
    maker.ok(&format!("fetch --all-platforms --plain-http {unsigned}"));
    maker.ok(&format!("images export {} {unsigned}", archive.display()));
    refused(&format!("images import {}", archive.display()), "it has no signature");
    assert_eq!(names(), "");
    assert_eq!(dist.json("snapshots ls"), serde_json::json!([]), "nothing was unpacked");
    dist.ok("gc");
    assert_eq!(dist.json("content ls"), serde_json::json!([]), "and nothing is kept");

    let maker = Dist::new();
    let (_signed, signed) = registry(&maker, &[&signer]);
    ctr(&daemon, &format!("images pull --plain-http {signed}")).ok();
    // The same again changes nothing, nor do labels.
    ctr(&daemon, &format!("images pull --plain-http {signed}")).ok();
    ctr(&daemon, &format!("images label {signed} team=a")).ok();
    // A name is given to what is here only where that may have the name.
    refused(&format!("images tag {signed} other.test/app:1"), "no rule allows it");
    let other = signed.replace("prod/app:1", "prod/app:2");
    ctr(&daemon, &format!("images tag {signed} {other}")).ok();
    let tagged = dist.run(&format!("images tag {signed} other.test/app:1")).failed();
    assert!(tagged.contains("no rule allows it, and the default is to deny"), "{tagged}");
    // What comes of a conversion is something else, which nobody has signed. For the name, `ctr` takes the old record away first.
    refused(&format!("images convert --uncompress {signed} {other}"), "it has no signature");
    assert_eq!(names(), format!("{signed}\n"));
}
