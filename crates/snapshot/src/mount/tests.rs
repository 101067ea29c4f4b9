//! Overlays of many layers, with the newer calls and without.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_core::Kind;

use super::*;

/// Makes layers that each have a file of their own, and the mount of them: the last one is the topmost.
fn stack(root: &Path, count: usize) -> Mount {
    stack_in(&root.join("snapshots"), root, count)
}

fn stack_in(layers: &Path, root: &Path, count: usize) -> Mount {
    let layers: Vec<PathBuf> = (0..count).map(|number| layers.join(format!("{number}/fs"))).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer).unwrap();
        fs::write(layer.join(format!("file-{number}")), number.to_string()).unwrap();
        fs::write(layer.join("topmost"), number.to_string()).unwrap();
    }
    for name in ["upper", "work"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let lowers: Vec<String> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    let options = vec![
        format!("workdir={}", root.join("work").display()),
        format!("upperdir={}", root.join("upper").display()),
        format!("lowerdir={}", lowers.join(":")),
    ];
    Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }
}

fn shows_all_layers(calls: Calls, count: usize) {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("merged");
    fs::create_dir(&target).unwrap();
    let mount = stack(directory.path(), count);
    mount_all_with(calls, std::slice::from_ref(&mount), &target).unwrap();
    let mounted = mounted_at(&target).unwrap().unwrap();
    assert_eq!(mounted.layers().unwrap().lowers.len(), count);
    for number in 0..count {
        assert_eq!(fs::read_to_string(target.join(format!("file-{number}"))).unwrap(), number.to_string());
    }
    assert_eq!(fs::read_to_string(target.join("topmost")).unwrap(), (count - 1).to_string());
    fs::write(target.join("new"), "x").unwrap();
    unmount_all(&[mount], &target).unwrap();
    assert!(directory.path().join("upper/new").exists());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn three_layers_are_mounted() {
    shows_all_layers(Calls::Modern, 3);
}

#[test]
fn three_hundred_layers_are_mounted() {
    shows_all_layers(Calls::Modern, 300);
}

#[test]
fn as_many_layers_as_overlayfs_stacks_are_mounted() {
    shows_all_layers(Calls::Modern, MAX_LAYERS - 1);
    shows_all_layers(Calls::Modern, MAX_LAYERS);
}

#[test]
fn one_layer_more_is_refused_with_both_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let mount = stack(directory.path(), MAX_LAYERS + 1);
    let target = directory.path().join("work");
    let error = mount_all(&[mount], &target).unwrap_err();
    assert!(error.is(Kind::FailedPrecondition));
    assert!(error.to_string().contains("501") && error.to_string().contains("500"), "{error}");
}

#[test]
fn without_the_newer_calls_few_layers_are_mounted_by_their_whole_paths() {
    shows_all_layers(Calls::Classic, 3);
}

#[test]
fn without_the_newer_calls_layers_that_fill_a_page_are_mounted_by_relative_paths() {
    let working = std::env::current_dir().unwrap();
    shows_all_layers(Calls::Classic, 300);
    assert_eq!(std::env::current_dir().unwrap(), working, "the process stays where it is");
}

#[test]
fn without_the_newer_calls_too_many_layers_are_refused_with_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    // A layer that shares nothing with the others makes all of their paths long.
    let mut mount = stack_in(&directory.path().join("a/rather/long/path/of/layers"), directory.path(), 200);
    if let Some(layers) = mount.options.last_mut() {
        layers.push(':');
        layers.push_str(directory.path().to_str().unwrap());
    }
    let error = mount_all_with(Calls::Classic, &[mount], &directory.path().join("work")).unwrap_err();
    assert!(error.is(Kind::FailedPrecondition), "{error:?}");
    assert!(error.to_string().contains("4095") && error.hint_text().is_some(), "{error:?}");
}

#[test]
fn paths_with_commas_colons_and_backslashes_are_mounted_by_both_ways() {
    for (number, calls) in [Calls::Modern, Calls::Classic].into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(format!("{name} a:b,c\\d{number}"));
        for name in ["one", "two", "upper", "work"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("one").join("file"), "1").unwrap();
        let lower = |name| path(name).display().to_string().replace('\\', r"\\").replace(':', r"\:");
        let options = vec![
            format!("workdir={}", path("work").display()),
            format!("upperdir={}", path("upper").display()),
            format!("lowerdir={}:{}", lower("two"), lower("one")),
        ];
        let mount = Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options };
        let target = directory.path().join("merged");
        fs::create_dir(&target).unwrap();
        mount_all_with(calls, &[mount], &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "1", "{calls:?}");
        let layers = mounted_at(&target).unwrap().unwrap().layers().unwrap();
        assert_eq!(layers.lowers, [path("two"), path("one")], "{calls:?}");
        unmount(&target).unwrap();
    }
}

#[test]
fn a_bind_is_read_only_with_and_without_the_newer_calls() {
    for calls in [Calls::Modern, Calls::Classic] {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (directory.path().join("source"), directory.path().join("target"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(source.join("file"), "1").unwrap();
        let mount = |mode: &str| Mount {
            kind: "bind".into(),
            source: source.display().to_string(),
            target: String::new(),
            options: vec![mode.into(), "rbind".into(), "nosuid".into()],
        };
        mount_all_with(calls, &[mount("ro")], &target).unwrap();
        let mounted = mounted_at(&target).unwrap().unwrap();
        assert!(mounted.read_only() && mounted.options.iter().any(|option| option == "nosuid"), "{mounted:?}");
        let error = fs::write(target.join("new"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        fs::write(source.join("file"), "2").unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "2");
        unmount(&target).unwrap();

        mount_all_with(calls, &[mount("rw")], &target).unwrap();
        fs::write(target.join("new"), "").unwrap();
        unmount(&target).unwrap();
        assert!(source.join("new").exists());
    }
}

#[test]
fn what_the_kernel_says_about_a_refusal_is_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut mount = stack(directory.path(), 2);
    mount.options.push("redirect_dir=sometimes".into());
    let target = directory.path().join("merged");
    fs::create_dir(&target).unwrap();
    let error = mount_all(&[mount], &target).unwrap_err();
    assert!(error.is(Kind::InvalidArgument));
    assert!(error.to_string().contains("redirect_dir") && error.to_string().contains("overlay"), "{error}");
    assert_eq!(mounted_at(&target).unwrap(), None);
}

#[test]
fn what_is_mounted_out_of_sight_is_seen_by_nobody_else_and_gone_with_the_thread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let seen = |table: Vec<MountedAt>| table.iter().any(|mount| mount.target == path);
    let (begun, mounted) = std::sync::mpsc::channel();
    let (looked, go_on) = std::sync::mpsc::channel::<()>();
    let (mounting, seen_at) = (path.clone(), seen);
    std::thread::scope(|scope| {
        let work = move || {
            let tmpfs = Mount { kind: "tmpfs".into(), source: "tmpfs".into(), target: String::new(), options: vec![] };
            mount_all(&[tmpfs], &mounting)?;
            begun.send(seen_at(mounts()?)).unwrap();
            go_on.recv().unwrap();
            Ok(())
        };
        let alone = scope.spawn(move || out_of_sight(work));
        assert!(mounted.recv().unwrap(), "its own thread sees it");
        assert!(!seen(mounts().unwrap()));
        looked.send(()).unwrap();
        alone.join().unwrap().unwrap();
    });
    assert!(!seen(mounts().unwrap()));
}

#[test]
fn a_root_that_is_no_mount_point_is_said_to_be_none() {
    let directory = tempfile::tempdir().unwrap();
    let changed = std::thread::spawn(move || {
        sys::own_mounts().unwrap();
        rustix::process::chroot(directory.path()).unwrap();
        (out_of_sight(|| Ok(())), directory)
    });
    let (result, _directory) = changed.join().unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(
        error.to_string().contains("/ is no mount point") && error.hint_text().unwrap().contains("--rbind"),
        "{error}"
    );
}
