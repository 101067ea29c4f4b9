//! Platforms: normalising is done once, and preference is an order.

use proptest::prelude::*;
use windlass_core::Platform;
use windlass_core::platform::Selection;

fn platforms() -> impl Strategy<Value = Platform> {
    let os = prop_oneof![Just("linux"), Just("windows"), Just("macos"), Just("Linux")];
    let architecture = prop_oneof![
        Just("amd64"),
        Just("x86_64"),
        Just("386"),
        Just("i386"),
        Just("arm64"),
        Just("aarch64"),
        Just("arm"),
        Just("armhf"),
        Just("armel"),
        Just("riscv64"),
        Just("ppc64le"),
        Just("ARM64"),
    ];
    let variant = proptest::option::of(prop_oneof![
        Just("v1"),
        Just("v2"),
        Just("v3"),
        Just("v4"),
        Just("v5"),
        Just("v6"),
        Just("v7"),
        Just("v8"),
        Just("V8"),
        Just("5"),
        Just("6"),
        Just("7"),
        Just("8"),
        Just("v255"),
        Just("v0"),
        Just("x"),
        Just(""),
    ]);
    (os, architecture, variant).prop_map(|(os, architecture, variant)| Platform::new(os, architecture, variant))
}

#[test]
fn the_best_of_those_that_run_here_is_taken() {
    for (wanted, there, best) in [
        ("linux/amd64", &["linux/386", "linux/amd64", "linux/amd64/v2"][..], Some(1)),
        ("linux/amd64/v3", &["linux/386", "linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some(2)),
        ("linux/amd64", &["linux/amd64/v2", "linux/arm64"], None),
        ("linux/arm64", &["linux/arm/v6", "linux/arm/v7", "linux/arm64"], Some(2)),
        ("linux/arm64", &["linux/arm/v5", "linux/arm/v7"], Some(1)),
        ("linux/arm/v7", &["linux/arm/v8", "linux/arm/v6"], Some(1)),
        ("linux/arm/v5", &["linux/arm/v6", "linux/arm/v7"], None),
        ("linux/arm/8", &["linux/arm/v8", "linux/arm/v7"], Some(0)),
        ("linux/riscv64", &["linux/amd64", "linux/riscv64"], Some(1)),
        ("linux/amd64", &["windows/amd64"], None),
    ] {
        let candidates: Vec<Option<Platform>> = there.iter().map(|text| Some(text.parse().unwrap())).collect();
        let selected = Selection::Best(vec![wanted.parse().unwrap()]).select(&candidates).ok();
        assert_eq!(selected, best.map(|best| vec![best]), "{wanted} among {there:?}");
    }
}

#[test]
fn candidates_without_a_platform_are_taken_only_with_all() {
    let candidates = [None, Some("linux/amd64".parse().unwrap())];
    assert_eq!(Selection::All.select(&candidates).unwrap(), [0, 1]);
    let best = Selection::Best(vec!["linux/amd64".parse().unwrap(), "linux/amd64/v2".parse().unwrap()]);
    assert_eq!(best.select(&candidates).unwrap(), [1], "one image that is best for two is taken once");
}

proptest! {
    #[test]
    fn any_text_is_a_platform_or_refused(text in any::<String>()) {
        if let Ok(platform) = text.parse::<Platform>() {
            prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
        }
    }

    #[test]
    fn words_with_slashes_are_platforms(text in "[a-zA-Z0-9_.-]{1,8}(/[a-zA-Z0-9_.-]{1,8}){0,2}") {
        let platform: Platform = text.parse().unwrap();
        prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
    }

    #[test]
    fn normalising_twice_is_normalising_once(platform in platforms()) {
        prop_assert_eq!(platform.clone().normalized(), platform.clone());
        prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
    }

    #[test]
    fn nothing_fits_better_than_the_same(platform in platforms(), other in platforms()) {
        prop_assert_eq!(platform.preference(&platform), Some(0));
        if other != platform {
            prop_assert_ne!(platform.preference(&other), Some(0));
        }
    }

    #[test]
    fn what_runs_on_the_lesser_runs_on_the_better(a in platforms(), b in platforms(), c in platforms()) {
        if a.preference(&b).is_some() && b.preference(&c).is_some() {
            prop_assert!(a.preference(&c).is_some(), "{} runs {}, which runs {}", a, b, c);
        }
    }

    #[test]
    fn a_selection_is_the_best_candidate(wanted in platforms(), there in proptest::collection::vec(platforms(), 0..6)) {
        let candidates: Vec<Option<Platform>> = there.iter().cloned().map(Some).collect();
        match Selection::Best(vec![wanted.clone()]).select(&candidates) {
            Ok(chosen) => {
                let best = wanted.preference(&there[chosen[0]]).unwrap();
                prop_assert!(there.iter().filter_map(|other| wanted.preference(other)).all(|other| other >= best));
            }
            Err(error) => {
                prop_assert_eq!(error.kind(), windlass_core::Kind::NotFound);
                prop_assert!(there.iter().all(|other| wanted.preference(other).is_none()));
            }
        }
    }
}
