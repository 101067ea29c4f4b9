//! References: a table of good and bad ones, and round trips of all.

use proptest::prelude::*;
use windlass_core::Reference;
use windlass_core::digest::Digest;
use windlass_core::reference::ObjectDigest;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The text, host, repository, tag and the digest as written.
type Registry<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, Option<&'a str>);

fn digest_text(reference: &Reference) -> Option<String> {
    reference.object()?.object_digest().map(ToString::to_string)
}

#[test]
fn references_to_registries() {
    let full = format!("sha256:{HEX}");
    let with_digest = format!("docker.io/library/redis@{full}");
    let with_both = format!("localhost:5000/redis:7.2-alpine@{full}");
    let long_tag = format!("h.example/r:{}", "t".repeat(128));
    let cases: [Registry; 19] = [
        ("docker.io/library/redis", "docker.io", "library/redis", None, None),
        ("docker.io/library/redis:7", "docker.io", "library/redis", Some("7"), None),
        (&with_digest, "docker.io", "library/redis", None, Some(&full)),
        (&with_both, "localhost:5000", "redis", Some("7.2-alpine"), Some(&full)),
        ("docker.io/library/redis@sha256:0123", "docker.io", "library/redis", None, Some("sha256:0123")),
        ("docker.io/library/redis@sha256", "docker.io", "library/redis", None, Some("sha256")),
        ("docker.io/library/redis:7@sha256:", "docker.io", "library/redis", Some("7"), Some("sha256:")),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", None, None),
        ("[::1]/repo:t", "[::1]", "repo", Some("t"), None),
        ("[2001:db8::1]:5000/repo:t", "[2001:db8::1]:5000", "repo", Some("t"), None),
        ("[::ffff:192.0.2.1]:5000/repo", "[::ffff:192.0.2.1]:5000", "repo", None, None),
        ("REGISTRY.example/repo", "REGISTRY.example", "repo", None, None),
        ("xn--bcher-kva.example/repo:_t", "xn--bcher-kva.example", "repo", Some("_t"), None),
        ("host/a__b/c-d.e/f---g", "host", "a__b/c-d.e/f---g", None, None),
        ("host_with_underscore:1/repo", "host_with_underscore:1", "repo", None, None),
        ("host:65535/repo", "host:65535", "repo", None, None),
        ("h/r:0", "h", "r", Some("0"), None),
        ("library/redis:7", "library", "redis", Some("7"), None),
        (&long_tag, "h.example", "r", Some(&"t".repeat(128)), None),
    ];
    for (text, host, repository, tag, digest) in cases {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(reference.host(), Some(host), "{text}");
        assert_eq!(reference.repository(), Some(repository), "{text}");
        assert_eq!(reference.tag(), tag, "{text}");
        assert_eq!(digest_text(&reference).as_deref(), digest, "{text}");
        assert_eq!(reference.layout_path(), None, "{text}");
        assert_eq!(reference.to_string(), text);
    }
}

#[test]
fn references_to_layouts() {
    let full = format!("sha256:{HEX}");
    let with_both = format!("oci:/srv/images:7@{full}");
    let with_digest = format!("oci:/srv/a:b/@{full}");
    for (text, path, tag, digest) in [
        ("oci:/srv/images", "/srv/images", None, None),
        ("oci:/srv/images:7", "/srv/images", Some("7"), None),
        ("oci:relative", "relative", None, None),
        ("oci:relative:7", "relative", Some("7"), None),
        ("oci:./a/../b:7", "./a/../b", Some("7"), None),
        ("oci:/a:b/c", "/a:b/c", None, None),
        ("oci:/a:b/c:7", "/a:b/c", Some("7"), None),
        ("oci:/a:b:7", "/a:b", Some("7"), None),
        ("oci:/a:b/", "/a:b/", None, None),
        ("oci:/über/größe:7", "/über/größe", Some("7"), None),
        ("oci:/home/me@work/images:7", "/home/me@work/images", Some("7"), None),
        ("oci:/images@home:7", "/images@home", Some("7"), None),
        ("oci:/images@home", "/images@home", None, None),
        ("oci:/images@sha256:0123", "/images", None, Some("sha256:0123")),
        (&with_both, "/srv/images", Some("7"), Some(full.as_str())),
        (&with_digest, "/srv/a:b/", None, Some(&full)),
    ] {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(reference.layout_path(), Some(path), "{text}");
        assert_eq!(reference.tag(), tag, "{text}");
        assert_eq!(digest_text(&reference).as_deref(), digest, "{text}");
        assert_eq!((reference.host(), reference.repository()), (None, None), "{text}");
        assert_eq!(reference.to_string(), text);
    }
}

#[test]
fn what_is_no_reference_is_refused_with_a_hint() {
    let too_long_digest = format!("h/r@sha256:{HEX}0");
    let upper_digest = format!("h/r@sha256:{}", HEX.to_uppercase());
    let two_digests = format!("h/r@sha256:{HEX}@sha256:{HEX}");
    let long_tag = format!("h/r:{}", "t".repeat(129));
    let long_label = format!("{}.example/r", "l".repeat(64));
    for text in [
        "",
        " ",
        "redis",
        "redis:7",
        "/",
        "h/",
        "/r",
        "h//r",
        "h/r/",
        "h/r:",
        "h/r@",
        "h/r:@",
        "h/r:7@",
        "h/r::7",
        "h/r:7:8",
        "h/r:7/8",
        "h/r:-7",
        "h/r:.7",
        "h/r:7!",
        "h/r a",
        "h/r\n",
        "\u{a0}h/r",
        "h/r\0",
        "h/ä",
        "h/r:ä",
        "h/..",
        "h/./r",
        "h/../r",
        "h/r?x",
        "h/r#x",
        "h/r%41",
        "h\\r/x",
        "h:/r",
        "h:0/r",
        "h:65536/r",
        "h:+5/r",
        "h:5x/r",
        "h:5:6/r",
        "-h/r",
        "h-/r",
        "h..example/r",
        ".h/r",
        "h./r",
        "h!/r",
        "ä.example/r",
        "[::1/r",
        "::1/r",
        "[::1]x/r",
        "[::1]:/r",
        "[::g]/r",
        "[]/r",
        "[127.0.0.1]/r",
        "user@h/r",
        "user:pw@h/r",
        "http://h/r",
        "https://h/r:7",
        "h/r@:abc",
        "h/r@sha256:xyz",
        "h/r@sha256:ABC",
        "h/r@-:1",
        "oci:",
        "oci::7",
        "oci:/d:",
        "oci:/d:-7",
        "oci:/d@sha256:x",
        "oci:/d e",
        "oci:@sha256:01",
        &too_long_digest,
        &upper_digest,
        &two_digests,
        &long_tag,
        &long_label,
    ] {
        let Err(error) = text.parse::<Reference>() else { panic!("{text:?} was accepted") };
        assert_eq!(error.kind(), windlass_core::Kind::InvalidArgument, "{text:?}");
        assert!(error.hint_text().is_some(), "{text:?}: {error:?}");
    }
}

#[test]
fn another_object_in_a_layout_is_read_back() {
    let digest = Digest::sha256(b"x");
    for text in
        ["h/r", "h/r:7", "oci:/d", "oci:/d:7", "oci:/a:b:7", "oci:/a:b/c", "oci:a:b:c:d", "oci:/x@y:7", "oci:/a:b/"]
    {
        let reference: Reference = text.parse().unwrap();
        for other in [reference.with_digest(digest.clone()), reference.with_tag("tag").unwrap()] {
            assert_eq!(other.to_string().parse::<Reference>().unwrap(), other, "{text} became {other}");
        }
        assert_eq!(reference.with_digest(digest.clone()).digest(), Some(&digest));
        assert!(reference.with_tag("not a tag").is_err());
    }
}

/// Text that is often a reference, and often nearly one.
fn nearly() -> impl Strategy<Value = String> {
    let host = prop_oneof!["[a-z0-9.:_-]{0,12}", Just("localhost:5000".to_owned()), Just("[::1]:80".to_owned()), "oci"];
    let separator = prop_oneof![Just("/"), Just(":"), Just("@"), Just("//"), Just("")];
    let path = "[a-zA-Z0-9._/~:@-]{0,24}";
    let object = prop_oneof![
        Just(String::new()),
        ":[a-zA-Z0-9_.-]{0,8}",
        "@sha256:[0-9a-f]{0,64}",
        Just(format!(":tag@sha256:{HEX}")),
        Just(format!("@sha512:{HEX}{HEX}")),
    ];
    (host, separator, path, object)
        .prop_map(|(host, separator, path, object)| format!("{host}{separator}{path}{object}"))
}

fn check(text: &str) {
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string(), text, "nothing is added and nothing left out");
    assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    assert_eq!(reference.host().is_some(), reference.layout_path().is_none());
    let digest = Digest::sha256(b"another");
    let other = reference.with_digest(digest.clone());
    assert_eq!(other.to_string().parse::<Reference>().unwrap(), other);
    assert_eq!(other.digest(), Some(&digest));
    if let Some(ObjectDigest::Partial(partial)) = reference.object().and_then(|object| object.object_digest()) {
        assert!(partial.parse::<Digest>().is_err(), "a whole digest is not called partial");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn what_looks_like_a_reference_is_parsed_or_refused(text in nearly()) {
        check(&text);
    }

    #[test]
    fn any_path_is_that_of_a_layout(path in "[^\\s\\p{Cc}:@]{1,40}") {
        let reference: Reference = format!("oci:{path}").parse().unwrap();
        prop_assert_eq!(reference.layout_path(), Some(path.as_str()));
    }
}
