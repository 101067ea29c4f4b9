//! What is attached to an image, in Debian's registry, which keeps no list of it but the one that was pushed.

use windlass_testkit::image::{Bundle, Signer, artifact_of, signatures};
use windlass_testkit::registry::DockerRegistry;

use crate::dist::Dist;
use crate::fixture::bundle;

const SBOM: &str = "application/spdx+json";
const COSIGN: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "application/vnd.example.signature";

#[test]
fn what_was_attached_is_listed_as_a_tree_and_comes_along() {
    let (dist, registry, image) = (Dist::new(), DockerRegistry::start(), bundle());
    let sbom = artifact_of(SBOM, &image.root, &[("text/plain", b"parts")]);
    let signature = artifact_of(SIGNATURE, &sbom.root, &[("text/plain", b"signed")]);
    let layout = dist.path("layout");
    for (bundle, tag) in [(&image, "1"), (&sbom, "sbom"), (&signature, "signature")] {
        bundle.write_layout(&layout, tag).unwrap();
        dist.ok(&format!("copy oci:{}:{tag} {}/app:{tag}", layout.display(), registry.host()));
    }
    let reference = format!("{}/app:1", registry.host());
    let tree = dist.json(&format!("referrers {reference}"));
    assert_eq!(tree["digest"], image.root.digest.to_string());
    let [first] = tree["referrers"].as_array().unwrap().as_slice() else { panic!("{tree}") };
    assert_eq!((&first["artifactType"], &first["digest"]), (&SBOM.into(), &sbom.root.digest.to_string().into()));
    assert_eq!(first["referrers"][0]["artifactType"], SIGNATURE);
    let text = dist.ok(&format!("referrers {reference}"));
    assert!(text.contains(&format!("└── {SBOM}  {}", sbom.root.digest)), "{text}");
    assert!(text.contains(&format!("    └── {SIGNATURE}  {}", signature.root.digest)), "{text}");
    let none = dist.ok(&format!("referrers --type application/vnd.other {reference}"));
    assert!(none.contains("nothing is attached to it"), "{none}");
    assert_eq!(dist.json(&format!("referrers oci:{}:1", layout.display()))["referrers"][0]["artifactType"], SBOM);

    let here = |dist: &Dist| dist.run(&format!("content info {}", sbom.root.digest)).code == Some(0);
    dist.ok(&format!("pull --with-referrers={SIGNATURE} {reference}"));
    assert!(!here(&dist), "it is of another type");
    dist.ok(&format!("pull --with-referrers {reference}"));
    dist.ok("gc");
    assert!(here(&dist), "the image keeps it");
    dist.ok(&format!("images rm {reference}"));
    dist.ok("gc");
    assert!(!here(&dist), "it goes with the image");
    // By itself it is an artifact.
    let pulled = dist.ok(&format!("pull {}/app:sbom", registry.host()));
    assert!(pulled.contains(&format!("artifact    {SBOM}, kept as it is")), "{pulled}");
}

#[test]
fn what_cosign_puts_under_tags_is_listed_so_and_comes_along() {
    let (dist, registry, image) = (Dist::new(), DockerRegistry::start(), bundle());
    let sbom = artifact_of(SBOM, &image.root, &[("text/plain", b"parts")]);
    let signer = Signer::new();
    let (of_image, of_sbom) =
        (signatures(&[signer.sign(&image.root.digest)]), signatures(&[signer.sign(&sbom.root.digest)]));
    let tag = |bundle: &Bundle| format!("sha256-{}.sig", bundle.root.digest.hex());
    let layout = dist.path("layout");
    for (bundle, tag) in [(&image, "1"), (&sbom, "sbom"), (&of_image, &tag(&image)), (&of_sbom, &tag(&sbom))] {
        bundle.write_layout(&layout, tag).unwrap();
        dist.ok(&format!("copy oci:{}:{tag} {}/app:{tag}", layout.display(), registry.host()));
    }
    let (at_registry, in_layout) = (format!("{}/app:1", registry.host()), format!("oci:{}:1", layout.display()));
    for reference in [&at_registry, &in_layout] {
        let tree = dist.json(&format!("referrers {reference}"));
        let [list, signature] = tree["referrers"].as_array().unwrap().as_slice() else { panic!("{tree}") };
        assert_eq!((&list["artifactType"], list.get("tag")), (&SBOM.into(), None));
        assert_eq!((&signature["artifactType"], &signature["tag"]), (&COSIGN.into(), &tag(&image).into()));
        assert_eq!(signature["digest"], of_image.root.digest.to_string());
        assert_eq!(list["referrers"][0]["tag"], tag(&sbom), "{tree}");
    }
    let text = dist.ok(&format!("referrers {at_registry}"));
    assert!(text.contains(&format!("└── {COSIGN}  {}", of_image.root.digest)), "{text}");
    assert!(text.contains(&format!("  tag {}", tag(&image))), "{text}");
    let typed = dist.json(&format!("referrers --type {COSIGN} {at_registry}"));
    assert_eq!(typed["referrers"].as_array().unwrap().len(), 1, "{typed}");

    let here = |bundle: &Bundle| dist.run(&format!("content info {}", bundle.root.digest)).code == Some(0);
    dist.ok(&format!("pull --with-referrers {at_registry}"));
    dist.ok("gc");
    assert!(here(&sbom) && here(&of_image) && here(&of_sbom), "the image keeps them");
    dist.ok(&format!("images rm {at_registry}"));
    dist.ok("gc");
    assert!(!here(&sbom) && !here(&of_image) && !here(&of_sbom), "they go with the image");
}

#[test]
fn a_copy_is_verified_too() {
    let (dist, registry, image) = (Dist::new(), DockerRegistry::start(), bundle());
    let layout = dist.path("layout");
    image.write_layout(&layout, "1").unwrap();
    std::fs::write(dist.path("policy.toml"), "default = \"allow\"\nregistries = [\"registry.test\"]\n").unwrap();
    let copy = format!("copy oci:{}:1 {}/app:1", layout.display(), registry.host());
    let refused = dist.run(&format!("{copy} --policy {}", dist.path("policy.toml").display()));
    assert!(refused.stderr.contains("it is from no registry, which is not among its registries"), "{refused:?}");
    let missing = dist.run(&format!("inspect {}/app:1", registry.host()));
    assert_eq!(missing.code, Some(1), "{missing:?}");
    dist.ok(&copy);
}
