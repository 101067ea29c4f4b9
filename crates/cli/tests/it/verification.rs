//! Which images may be here: policies, signatures and programs, with Debian's registry.

use std::os::unix::fs::PermissionsExt as _;

use windlass_testkit::image::{Signer, signatures};
use windlass_testkit::registry::DockerRegistry;

use crate::dist::Dist;
use crate::fixture::{bundle, layout};

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
