//! Archives by other hands: GNU tar in each of its formats, Python's `tarfile`, and the `tar` crate.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::apply::{apply_ok, bind};
use crate::tree::{Detail, tree};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A tree with everything that an archive of this format can hold.
fn source() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let script = r#"
        set -eu
        mkdir -p dir/sub "dir/$(printf 'l%.0s' $(seq 120))/$(printf 'm%.0s' $(seq 130))" empty sticky
        echo hello > dir/file
        head -c 100000 /dev/urandom > dir/big
        : > "dir/$(printf 'n%.0s' $(seq 100))"
        : > "dir/$(printf 'n%.0s' $(seq 101))"
        echo x > "dir/$(printf 'l%.0s' $(seq 120))/$(printf 'm%.0s' $(seq 130))/$(printf 'o%.0s' $(seq 200))"
        ln -s ../target dir/symlink
        ln -s "$(printf 't%.0s' $(seq 300))" dir/longlink
        ln dir/file dir/sub/hard
        ln "dir/$(printf 'n%.0s' $(seq 101))" dir/hardlong
        mkfifo dir/fifo
        mknod dir/char c 5 1
        mknod dir/block b 253 1000
        printf 'd\303\266\n' > "dir/$(printf 'd\303\266\nline')"
        chown 12345:54321 dir/big
        chmod 4755 dir/file
        chmod 1777 sticky
        chmod 2750 empty
        truncate -s 3M sparse
        printf start | dd of=sparse conv=notrunc status=none
        printf middle | dd of=sparse bs=1 seek=1000000 conv=notrunc status=none
        truncate -s 1M holes
        printf end | dd of=holes bs=1 seek=1048573 conv=notrunc status=none
        i=0; truncate -s 2M many
        while [ $i -lt 60 ]; do printf "$i" | dd of=many bs=1 seek=$((i * 32768)) conv=notrunc status=none; i=$((i+1)); done
        find . -exec touch -h -d '2001-02-03 04:05:06 UTC' {} +
    "#;
    let output = Command::new("sh").arg("-c").arg(script).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    dir
}

/// Extracts an archive with GNU tar and here, and compares all there is to see.
fn same_as_gnu_tar(archive: &Path) {
    let theirs = tempfile::tempdir().unwrap();
    let ours = tempfile::tempdir().unwrap();
    let arguments = vec![
        "-x",
        "-p",
        "--same-owner",
        "--numeric-owner",
        "--delay-directory-restore",
        "-f",
        text(archive),
        "-C",
        text(theirs.path()),
    ];
    run("tar", &arguments);
    apply_ok(&fs::read(archive).unwrap(), &bind(ours.path()));
    let (theirs, ours) = (tree(theirs.path(), Detail::All), tree(ours.path(), Detail::All));
    assert!(theirs.len() > 10);
    for (name, what) in &theirs {
        assert_eq!(ours.get(name), Some(what), "{name} in {}", archive.display());
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn every_format_of_gnu_tar_is_extracted_as_gnu_tar_does() {
    let source = source();
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive.tar");
    let formats: [&[&str]; 8] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let mut arguments = vec!["-c", "-f", text(&archive), "-C", text(source.path())];
        arguments.extend(format);
        arguments.push(".");
        run("tar", &arguments);
        same_as_gnu_tar(&archive);
    }
    // The old formats have no long names and no large numbers.
    for format in ["--format=ustar", "--format=v7"] {
        fs::remove_dir_all(source.path().join("dir").join("l".repeat(120))).ok();
        fs::remove_file(source.path().join("dir/longlink")).ok();
        let mut excluded = vec!["--exclude=hardlong", "--exclude=nnn*"];
        if format == "--format=v7" {
            excluded.extend(["--exclude=fifo", "--exclude=char", "--exclude=block"]);
        }
        let mut arguments = vec!["-c", "-f", text(&archive), "-C", text(source.path()), format];
        arguments.extend(&excluded);
        arguments.push(".");
        run("tar", &arguments);
        same_as_gnu_tar(&archive);
    }
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let source = source();
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive.tar");
    for format in ["gnu", "posix"] {
        let format = format!("--format={format}");
        run("tar", &["-c", "-S", &format, "-f", text(&archive), "-C", text(source.path()), "sparse", "holes", "many"]);
        let root = tempfile::tempdir().unwrap();
        apply_ok(&fs::read(&archive).unwrap(), &bind(root.path()));
        for name in ["sparse", "holes", "many"] {
            let (here, there) = (root.path().join(name), source.path().join(name));
            assert_eq!(fs::read(&here).unwrap(), fs::read(&there).unwrap(), "{name}");
            assert!(fs::metadata(&here).unwrap().blocks() <= fs::metadata(&there).unwrap().blocks() + 8, "{name}");
        }
    }
}

#[test]
fn attributes_and_nanoseconds_of_gnu_tar_are_kept() {
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("file");
    fs::write(&file, "x").unwrap();
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("user.binary", b"a\0b\n");
    set("trusted.t", b"t");
    set("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    run("touch", &["-d", "1969-12-31 23:59:58.25 UTC", text(&file)]);
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive.tar");
    run(
        "tar",
        &[
            "-c",
            "--format=posix",
            "--xattrs",
            "--xattrs-include=*",
            "-f",
            text(&archive),
            "-C",
            text(source.path()),
            "file",
        ],
    );
    let root = tempfile::tempdir().unwrap();
    apply_ok(&fs::read(&archive).unwrap(), &bind(root.path()));
    assert_eq!(tree(root.path(), Detail::All), tree(source.path(), Detail::All));
}

#[test]
fn archives_of_pythons_tarfile_are_extracted_as_gnu_tar_does() {
    let source = source();
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive.tar");
    for format in ["GNU_FORMAT", "PAX_FORMAT"] {
        let script = format!(
            "import sys, tarfile
with tarfile.open(sys.argv[1], 'w', format=tarfile.{format}) as archive:
    archive.add(sys.argv[2], '.')
    info = tarfile.TarInfo('huge')
    info.uid, info.gid, info.mtime = 3000000000, 2500000, -5
    info.size = 0
    archive.addfile(info)"
        );
        run("python3", &["-c", &script, text(&archive), text(source.path())]);
        same_as_gnu_tar(&archive);
    }
}

#[test]
fn archives_of_the_tar_crate_are_extracted_as_gnu_tar_does() {
    let source = source();
    for name in ["char", "block", "fifo"] {
        fs::remove_file(source.path().join("dir").join(name)).unwrap();
    }
    run("touch", &["-d", "2001-02-03 04:05:06 UTC", text(&source.path().join("dir"))]);
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", source.path()).unwrap();
    builder.finish().unwrap();
    drop(builder);
    same_as_gnu_tar(&archive);
}
