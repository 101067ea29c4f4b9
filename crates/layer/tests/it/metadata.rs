//! Everything that an entry says of a file, and nothing that it does not.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use windlass_core::Kind;

use crate::apply::{apply, apply_ok, bind};
use crate::archive::{Archive, entry};
use crate::tree::{Detail, tree, xattrs};

/// VFS_CAP_REVISION_2 with CAP_NET_RAW permitted and effective, capabilities(7).
const NET_RAW: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn every_type_gets_its_owner_mode_and_time() {
    let root = tempfile::tempdir().unwrap();
    let (uid, gid) = (3_000_000_000, 2_500_000);
    let described =
        |kind, name: &str| entry(kind, name).owner(uid, gid).mode(0o641).record("mtime", "1234567890.123456789");
    let layer = Archive::new()
        .add(&described(b'5', "dir").mode(0o1777), b"")
        .add(&described(b'0', "dir/file"), b"data")
        .add(&described(b'2', "dir/symlink").link("nowhere"), b"")
        .add(&described(b'3', "dir/char").device(259, 70000), b"")
        .add(&described(b'4', "dir/block").device(8, 1), b"")
        .add(&described(b'6', "dir/fifo"), b"")
        .add(&described(b'7', "dir/contiguous"), b"x")
        .add(&entry(b'1', "dir/link").link("dir/file"), b"");
    apply_ok(&layer.end(), &bind(root.path()));
    let found = tree(root.path(), Detail::All);
    let with = |what: &str, mode: &str| format!("{what} 3000000000:2500000 {mode} 1234567890.123456789 {{}}");
    let expected = [
        ("dir", with("dir", "1777")),
        ("dir/block", with("block (8, 1)", "641")),
        ("dir/char", with("char (259, 70000)", "641")),
        ("dir/contiguous", with(r#""x""#, "641")),
        ("dir/fifo", with("fifo", "641")),
        ("dir/file", with(r#""data""#, "641")),
        ("dir/link", with(r#""data" = dir/file"#, "641")),
        ("dir/symlink", with("-> nowhere", "777")),
    ];
    assert_eq!(found, expected.map(|(name, what)| (name.to_owned(), what)).into());
}

#[test]
fn setuid_and_friends_survive_the_change_of_owner() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new()
        .add(&entry(b'0', "suid").mode(0o4755).owner(1000, 1000), b"x")
        .add(&entry(b'0', "sgid").mode(0o2755), b"x")
        .add(&entry(b'0', "both").mode(0o6711).owner(0, 5), b"x")
        .add(&entry(b'5', "d").mode(0o2775).owner(0, 8), b"")
        .add(&entry(b'0', "d/f").mode(0o644), b"x")
        .add(&entry(b'5', "d/d").mode(0o755), b"")
        .add(&entry(b'2', "d/s").link("f"), b"")
        .add(&entry(b'0', "d/mine").owner(0, 8), b"");
    apply_ok(&layer.end(), &bind(root.path()));
    let mode = |name: &str| fs::symlink_metadata(root.path().join(name)).unwrap();
    assert_eq!(mode("suid").mode() & 0o7777, 0o4755);
    assert_eq!(mode("sgid").mode() & 0o7777, 0o2755);
    assert_eq!(mode("both").mode() & 0o7777, 0o6711);
    assert_eq!(mode("d").mode() & 0o7777, 0o2775);
    // Not inherited from the directory.
    assert_eq!((mode("d/f").gid(), mode("d/d").gid(), mode("d/s").gid(), mode("d/mine").gid()), (0, 0, 0, 8));
    assert_eq!(mode("d/d").mode() & 0o7777, 0o755);
}

#[test]
fn a_setgid_root_is_not_inherited_from() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new()
        .add(&entry(b'5', "./").mode(0o2755).owner(0, 9), b"")
        .add(&entry(b'0', "f"), b"")
        .add(&entry(b'5', "d"), b"")
        .add(&entry(b'0', "d/f"), b"");
    apply_ok(&layer.end(), &bind(root.path()));
    for name in ["f", "d", "d/f"] {
        let stat = fs::symlink_metadata(root.path().join(name)).unwrap();
        assert_eq!((stat.gid(), stat.mode() & 0o7000), (0, 0), "{name}");
    }
    assert_eq!(fs::metadata(root.path()).unwrap().gid(), 9);
}

#[test]
fn modes_that_the_umask_would_cut_are_whole() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new()
        .add(&entry(b'0', "f").mode(0o666), b"")
        .add(&entry(b'5', "d").mode(0o777), b"")
        .add(&entry(b'6', "p").mode(0o622), b"")
        .add(&entry(b'0', "none").mode(0), b"x");
    apply_ok(&layer.end(), &bind(root.path()));
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("f"), mode("d"), mode("p"), mode("none")], [0o666, 0o777, 0o622, 0]);
}

#[test]
fn attributes_are_binary_and_capabilities_survive() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new()
        .add(
            &entry(b'0', "ping")
                .owner(7, 7)
                .mode(0o755)
                .xattr("security.capability", NET_RAW)
                .xattr("user.text", b"a\0b\n=")
                .xattr("user.empty", b"")
                .xattr("trusted.mine", b"1"),
            b"ping",
        )
        .add(&entry(b'5', "d").xattr("user.d", "1"), b"")
        .add(&entry(b'2', "s").link("x").xattr("trusted.s", "1").xattr("user.refused", "1"), b"")
        .add(&entry(b'6', "p").xattr("trusted.p", "1"), b"");
    apply_ok(&layer.end(), &bind(root.path()));
    let get = |name: &str| xattrs(&root.path().join(name)).into_iter().collect::<Vec<_>>();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        get("ping"),
        [
            pair("security.capability", &NET_RAW.escape_ascii().to_string()),
            pair("trusted.mine", "1"),
            pair("user.empty", ""),
            pair("user.text", r"a\x00b\n="),
        ]
    );
    assert_eq!(get("d"), [pair("user.d", "1")]);
    assert_eq!(get("s"), [pair("trusted.s", "1")]);
    assert_eq!(get("p"), [pair("trusted.p", "1")]);
}

#[test]
fn an_attribute_that_does_not_exist_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new().add(&entry(b'0', "f").xattr("nonsense.x", "1").xattr("user.y", "2"), b"");
    apply_ok(&layer.end(), &bind(root.path()));
    assert_eq!(xattrs(&root.path().join("f")).into_keys().collect::<Vec<_>>(), ["user.y"]);
}

#[test]
fn a_default_access_control_list_does_not_change_modes() {
    let root = tempfile::tempdir().unwrap();
    // posix_acl_xattr: version 2; user::rwx group::--- other::---.
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\0\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let layer = Archive::new()
        .add(&entry(b'5', "d").xattr("system.posix_acl_default", acl), b"")
        .add(&entry(b'0', "d/f").mode(0o644), b"")
        .add(&entry(b'5', "d/d").mode(0o755), b"");
    apply_ok(&layer.end(), &bind(root.path()));
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("d/f"), mode("d/d")], [0o644, 0o755]);
}

#[test]
fn times_before_1970_and_far_away_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new()
        .add(&entry(b'0', "negative").record("mtime", "-1.25"), b"")
        .add(&entry(b'0', "base256").mtime(-86400), b"")
        .add(&entry(b'0', "far").mtime(10_000_000_000), b"")
        .add(&entry(b'0', "epoch").mtime(0), b"");
    apply_ok(&layer.end(), &bind(root.path()));
    let time = |name: &str| {
        let stat = fs::metadata(root.path().join(name)).unwrap();
        (stat.mtime(), stat.mtime_nsec())
    };
    assert_eq!(time("negative"), (-2, 750_000_000));
    assert_eq!(time("base256"), (-86400, 0));
    assert_eq!(time("far"), (10_000_000_000, 0));
    assert_eq!(time("epoch"), (0, 0));
}

#[test]
fn directories_keep_their_time_whatever_is_put_into_them() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new()
        .add(&entry(b'5', "./").mtime(1), b"")
        .add(&entry(b'5', "a").mtime(2), b"")
        .file("a/b/c", "late: b has no entry so far")
        .add(&entry(b'5', "a/b").mtime(3), b"")
        .file("a/z", "z")
        .file("a/b/d", "d");
    apply_ok(&layer.end(), &bind(root.path()));
    let time = |name: &str| fs::metadata(root.path().join(name)).unwrap().mtime();
    assert_eq!([time(""), time("a"), time("a/b")], [1, 2, 3]);
}

#[test]
fn so_do_very_many_of_them_that_are_not_all_remembered() {
    const MANY: i64 = 16_500;
    let root = tempfile::tempdir().unwrap();
    let mut layer = Archive::new().add(&entry(b'5', "./").mtime(9), b"").add(&entry(b'5', "d").mtime(1), b"");
    for number in 0..MANY {
        layer = layer.add(&entry(b'5', format!("d/{number}")).mtime(1000 + number), b"");
    }
    layer = layer
        .file("d/5/late", "made when the time of d/5 was set")
        .dir("d/6/later")
        .file("d/6/later/still", "x")
        .add(&entry(b'5', "d/7").mtime(7), b"")
        .file("d/7/x", "")
        .file("new", "");
    apply_ok(&layer.end(), &bind(root.path()));
    let time = |name: &str| fs::metadata(root.path().join(name)).unwrap().mtime();
    assert_eq!(["", "d", "d/5", "d/6", "d/7"].map(time), [9, 1, 1005, 1006, 7]);
    for number in (8..MANY).step_by(97) {
        assert_eq!(time(&format!("d/{number}")), 1000 + number);
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 5 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn directories_that_the_layer_has_no_entry_for_keep_theirs() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/conf")).unwrap();
    for name in ["etc/conf", "etc", ""] {
        set_time(&root.path().join(name), 1000);
    }
    apply_ok(&Archive::new().file("etc/conf/new", "x").end(), &bind(root.path()));
    let time = |name: &str| fs::metadata(root.path().join(name)).unwrap().mtime();
    assert_eq!([time(""), time("etc"), time("etc/conf")], [1000, 1000, 1000]);
}

#[test]
fn a_directory_over_a_directory_keeps_the_files_and_changes_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let first = Archive::new()
        .add(&entry(b'5', "d").mode(0o700).owner(1, 1).xattr("user.old", "1").xattr("user.both", "1"), b"")
        .file("d/f", "x");
    apply_ok(&first.end(), &bind(root.path()));
    let second = Archive::new().add(&entry(b'5', "d").mode(0o755).owner(2, 2).mtime(77).xattr("user.both", "2"), b"");
    apply_ok(&second.end(), &bind(root.path()));
    let stat = fs::metadata(root.path().join("d")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.mtime()), (2, 2, 0o755, 77));
    assert_eq!(xattrs(&root.path().join("d")), [("user.both".to_owned(), "2".to_owned())].into());
    assert_eq!(fs::read(root.path().join("d/f")).unwrap(), b"x");
}

#[test]
fn entries_replace_what_is_of_another_type() {
    let kinds: [(&str, Archive); 5] = [
        ("dir", Archive::new().dir("x").file("x/inside", "")),
        ("file", Archive::new().file("x", "file")),
        ("symlink", Archive::new().symlink("x", "target")),
        ("fifo", Archive::new().add(&entry(b'6', "x"), b"")),
        ("link", Archive::new().file("other", "other").link("x", "other")),
    ];
    for (before, first) in &kinds {
        for (after, second) in &kinds {
            // In two layers, and in one.
            for together in [false, true] {
                let root = tempfile::tempdir().unwrap();
                let alone = tempfile::tempdir().unwrap();
                apply_ok(&second.clone().end(), &bind(alone.path()));
                if together {
                    let both = Archive([first.0.clone(), second.0.clone()].concat());
                    apply_ok(&both.end(), &bind(root.path()));
                } else {
                    apply_ok(&first.clone().end(), &bind(root.path()));
                    apply_ok(&second.clone().end(), &bind(root.path()));
                }
                let mut found = tree(root.path(), Detail::All);
                if after != &"link" {
                    found.remove("other");
                }
                assert_eq!(found, tree(alone.path(), Detail::All), "{before} then {after}, together: {together}");
            }
        }
    }
}

#[test]
fn missing_parents_are_made_for_everybody_to_read() {
    let root = tempfile::tempdir().unwrap();
    apply_ok(&Archive::new().file("a/b/c", "x").end(), &bind(root.path()));
    for name in ["a", "a/b"] {
        let stat = fs::metadata(root.path().join(name)).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o755, 0, 0), "{name}");
    }
}

#[test]
fn without_privileges_the_entry_that_needs_them_is_named() {
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(root.path(), Some(65534), Some(65534)).unwrap();
    let nobody = |layer: Vec<u8>| {
        let root = root.path().to_owned();
        // Identities are per thread in Linux, and the threads of a layer inherit them.
        let thread = std::thread::spawn(move || {
            let nobody = rustix::thread::Uid::from_raw(65534);
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(
                rustix::thread::Gid::from_raw(65534),
                rustix::thread::Gid::from_raw(65534),
                rustix::thread::Gid::from_raw(65534),
            )
            .unwrap();
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            apply(&layer, &root)
        });
        thread.join().unwrap()
    };
    for layer in [
        Archive::new().add(&entry(b'0', "file").owner(0, 0), b"x"),
        Archive::new().add(&entry(b'4', "disk").owner(65534, 65534).device(8, 0), b""),
        Archive::new().add(&entry(b'0', "t").owner(65534, 65534).xattr("trusted.x", "1"), b""),
    ] {
        let error = nobody(layer.end()).unwrap_err();
        assert_eq!(error.kind(), Kind::PermissionDenied, "{error}");
        assert_eq!(error.hint_text(), Some("run as root"));
        assert!(["\"file\"", "\"disk\"", "\"t\""].iter().any(|name| error.to_string().contains(name)), "{error}");
    }
    // What is its own is no trouble.
    nobody(Archive::new().add(&entry(b'0', "mine").owner(65534, 65534).mode(0o4755), b"x").end()).unwrap();
}

#[test]
fn a_full_file_system_is_resource_exhausted() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("small");
    fs::create_dir(&target).unwrap();
    rustix::mount::mount("tmpfs", &target, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=256k")).unwrap();
    let result = apply(&Archive::new().file("big", &"x".repeat(1 << 20)).end(), &target);
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains(r#""big""#), "{error}");
    assert!(error.hint_text().is_some());
}
