//! Mounting and unmounting, as a caller sees it.

use std::fs;
use std::path::Path;

use windlass_core::Kind;
use windlass_core::snapshot::Mount;
use windlass_snapshot::mount::{self, Temporary, mount_all, mounted_at, unmount, unmount_all};

fn bind(source: &Path, target: &str, mode: &str) -> Mount {
    Mount {
        kind: "bind".into(),
        source: source.display().to_string(),
        target: target.into(),
        options: vec![mode.into(), "rbind".into()],
    }
}

fn directories<const N: usize>(names: [&str; N]) -> (tempfile::TempDir, [std::path::PathBuf; N]) {
    let directory = tempfile::tempdir().unwrap();
    let paths = names.map(|name| directory.path().join(name));
    for path in &paths {
        fs::create_dir(path).unwrap();
    }
    (directory, paths)
}

#[test]
fn what_is_mounted_is_told_and_unmounted_layer_by_layer() {
    let (_directory, [one, two, target]) = directories(["one", "two", "target with space"]);
    fs::write(target.join("hidden"), "").unwrap();
    assert_eq!(mounted_at(&target).unwrap(), None);
    mount_all(&[bind(&one, "", "rw")], &target).unwrap();
    mount_all(&[bind(&two, "", "ro")], &target).unwrap();
    let top = mounted_at(&target).unwrap().unwrap();
    assert_eq!(top.target, target);
    assert!(top.root.ends_with("two") && top.read_only());
    unmount(&target).unwrap();
    assert!(mounted_at(&target).unwrap().unwrap().root.ends_with("one"));
    unmount(&target).unwrap();
    assert!(target.join("hidden").exists());
    let error = unmount(&target).unwrap_err();
    assert!(error.is(Kind::FailedPrecondition) && error.to_string().contains("target with space"), "{error:?}");
}

#[test]
fn a_busy_mount_says_who_to_ask_and_stays() {
    let (_directory, [one, target]) = directories(["one", "target"]);
    fs::write(one.join("file"), "").unwrap();
    mount_all(&[bind(&one, "", "rw")], &target).unwrap();
    let open = fs::File::open(target.join("file")).unwrap();
    let error = unmount(&target).unwrap_err();
    assert!(error.is(Kind::FailedPrecondition) && error.to_string().contains("busy"), "{error:?}");
    assert!(error.hint_text().unwrap().contains("fuser"));
    assert!(mounted_at(&target).unwrap().is_some());
    drop(open);
    unmount(&target).unwrap();
}

#[test]
fn targets_below_stay_below_and_a_failure_undoes_what_was_done() {
    let (directory, [one, two, target]) = directories(["one", "two", "target"]);
    fs::create_dir(one.join("sub")).unwrap();
    fs::create_dir(one.join("tmp")).unwrap();
    std::os::unix::fs::symlink(directory.path(), one.join("escape")).unwrap();
    fs::write(two.join("inner"), "").unwrap();
    let mounts = [bind(&one, "", "rw"), bind(&two, "/sub", "ro")];
    mount_all(&mounts, &target).unwrap();
    assert!(target.join("sub/inner").exists());
    unmount_all(&mounts, &target).unwrap();
    assert_eq!(mounted_at(&target).unwrap(), None);

    for (below, source) in
        [("escape/two", &two), ("../two", &two), ("absent", &two), ("sub", &directory.path().join("absent"))]
    {
        let mounts = [bind(&one, "", "rw"), bind(source, below, "rw")];
        let error = mount_all(&mounts, &target).unwrap_err();
        assert!(error.is(Kind::NotFound), "{below}: {error:?}");
        assert_eq!(mounted_at(&target).unwrap(), None, "{below}");
        assert_eq!(mounted_at(&two).unwrap(), None, "{below}");
    }
}

#[test]
fn a_wrong_target_source_or_layer_is_named() {
    let (directory, [one, two, target]) = directories(["one", "two", "target"]);
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let absent = directory.path().join("absent");
    let overlay = |lower: &Path| Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![format!("lowerdir={}:{}", lower.display(), two.display())],
    };
    for (mount, target, kind, part) in [
        (bind(&one, "", "rw"), &absent, Kind::NotFound, "absent"),
        (bind(&one, "", "rw"), &file, Kind::FailedPrecondition, "file"),
        (bind(&absent, "", "rw"), &target, Kind::NotFound, "absent"),
        (bind(&file, "", "rw"), &target, Kind::FailedPrecondition, "file"),
        (overlay(&absent), &target, Kind::NotFound, "absent"),
        (overlay(&file), &target, Kind::FailedPrecondition, "file"),
        (Mount { kind: "nosuchfs".into(), ..bind(&one, "", "rw") }, &target, Kind::NotFound, ""),
    ] {
        let mut mount = mount;
        if mount.kind == "nosuchfs" {
            mount.options.clear();
            assert!(mount_all(&[mount], target).unwrap_err().is(Kind::Unimplemented));
            continue;
        }
        let error = mount_all(&[mount], target).unwrap_err();
        assert!(error.is(kind) && error.to_string().contains(part), "{error:?}");
    }
    assert!(unmount(&absent).unwrap_err().is(Kind::NotFound));
}

#[test]
fn other_filesystems_are_mounted_with_their_options() {
    let (_directory, [target]) = directories(["target"]);
    let options = vec!["size=64k".into(), "mode=0751".into(), "nodev".into(), "ro".into()];
    let tmpfs = Mount { kind: "tmpfs".into(), source: "scratch".into(), target: String::new(), options };
    mount_all(&[tmpfs], &target).unwrap();
    let mounted = mounted_at(&target).unwrap().unwrap();
    assert_eq!((mounted.kind.as_str(), mounted.source.as_str()), ("tmpfs", "scratch"));
    assert!(mounted.read_only() && mounted.filesystem_options.iter().any(|option| option == "mode=751"), "{mounted:?}");
    unmount(&target).unwrap();
}

#[test]
fn a_temporary_mount_goes_with_its_value_even_when_it_is_in_use() {
    let (directory, [one]) = directories(["one"]);
    fs::write(one.join("file"), "1").unwrap();
    let mounted = Temporary::mount(&[bind(&one, "", "ro")], directory.path()).unwrap();
    let path = mounted.path().to_owned();
    assert!(path.join("file").exists());
    let open = fs::File::open(path.join("file")).unwrap();
    let error = mounted.close().unwrap_err();
    assert!(error.is(Kind::FailedPrecondition), "{error:?}");
    drop(open);
    assert!(!path.exists() && one.join("file").exists());

    let path = Temporary::mount(&[bind(&one, "", "ro")], directory.path()).unwrap().path().to_owned();
    assert!(!path.exists());
    Temporary::mount(&[bind(&one.join("absent"), "", "ro")], directory.path()).unwrap_err();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(mount::mounts().unwrap().iter().all(|mount| !mount.target.starts_with(directory.path())));
}

#[test]
fn whoever_is_not_root_is_told_so() {
    let (_directory, [one, target]) = directories(["one", "target"]);
    let nobody = rustix::process::Uid::from_raw(65534);
    let as_nobody = || {
        // Of this thread alone.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        [mount_all(&[bind(&one, "", "rw")], &target), windlass_snapshot::overlay::Overlay::supported(&one)]
    };
    let results = std::thread::scope(|scope| scope.spawn(as_nobody).join().unwrap());
    for result in results {
        let error = result.unwrap_err();
        assert!(error.is(Kind::PermissionDenied) && error.hint_text().unwrap().contains("root"), "{error:?}");
    }
}
