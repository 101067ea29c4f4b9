//! What is done to a mount before it is made: the prefixes of its type, as containerd's `docs/mounts.md` has them.
//!
//! `format/TYPE` fills in what is known of the mounts before it: `{{ source I }}`, `{{ target I }}` and `{{ mount I }}` (where
//! it was mounted) of the I-th, and `{{ overlay A B }}`, the places from the A-th to the B-th with colons between. `mkdir/TYPE`
//! makes the directories that the options `X-containerd.mkdir.path=PATH[:MODE[:UID:GID]]` name, and takes those options away;
//! only below mounts of the same activation.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use windlass_core::activation::Active;
use windlass_core::error::{Error, IoResultExt as _, Result};
use windlass_core::snapshot::{EROFS_LAYER, EROFS_LOWER, Mount};

/// Something that is done to a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Format,
    Mkdir,
}

const MKDIR_OPTION: &str = "X-containerd.mkdir.path=";

/// Takes the prefixes off the type of a mount.
///
/// # Errors
/// `Unimplemented` for another prefix, and for types of containerd that are no filesystem.
pub(super) fn steps(mut mount: Mount) -> Result<(Mount, Vec<Step>)> {
    let full = mount.kind.clone();
    let mut kind = full.as_str();
    let unknown = |what: &str| {
        Error::unimplemented(format!("{what} of the mount type {full:?} is not offered here"))
            .hint("format/ and mkdir/ are, before a filesystem of the kernel")
    };
    let mut steps = Vec::new();
    while kind != EROFS_LOWER && kind != EROFS_LAYER {
        let Some((prefix, rest)) = kind.split_once('/') else { break };
        steps.push(match prefix {
            "format" => Step::Format,
            "mkdir" => Step::Mkdir,
            other => return Err(unknown(&format!("the prefix {other:?}"))),
        });
        kind = rest;
    }
    if kind == "loop" {
        return Err(unknown("a loop device"));
    }
    kind.clone_into(&mut mount.kind);
    Ok((mount, steps))
}

/// Does to a mount what was found, with the mounts before it.
pub(super) fn apply(mut mount: Mount, steps: &[Step], active: &[Active]) -> Result<Mount> {
    for step in steps {
        match step {
            Step::Format => {
                mount.source = format(&mount.source, active)?;
                mount.target = format(&mount.target, active)?;
                for option in &mut mount.options {
                    *option = format(option, active)?;
                }
            }
            Step::Mkdir => {
                let (wanted, options) = mount.options.into_iter().partition(|option| option.starts_with(MKDIR_OPTION));
                mount.options = options;
                let wanted: Vec<String> = wanted;
                for option in &wanted {
                    make(option.trim_start_matches(MKDIR_OPTION), active)?;
                }
            }
        }
    }
    Ok(mount)
}

/// Fills in the values of a text.
fn format(text: &str, active: &[Active]) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((call, after)) = after.split_once("}}") else {
            return Err(Error::invalid_argument(format!("in {text:?} a {{{{ is not closed")));
        };
        filled.push_str(before);
        filled.push_str(&value(call, active).map_err(|error| error.context(format!("fill in {text:?}")))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(call: &str, active: &[Active]) -> Result<String> {
    let words: Vec<&str> = call.split_whitespace().collect();
    let wrong = || {
        Error::invalid_argument(format!("{call:?} is no value"))
            .hint("there are source I, target I, mount I and overlay A B, for mounts that come before")
    };
    let index = |word: &str| word.parse::<usize>().ok().filter(|index| *index < active.len()).ok_or_else(wrong);
    let at = |word: &str| index(word).and_then(|index| active.get(index).ok_or_else(wrong));
    match words.as_slice() {
        ["source", of] => Ok(at(of)?.mount.source.clone()),
        ["target", of] => Ok(at(of)?.mount.target.clone()),
        ["mount", of] => Ok(at(of)?.mount_point.clone()),
        ["overlay", from, to] => {
            let (from, to) = (index(from)?, index(to)?);
            let mut places: Vec<&str> =
                active.iter().map(|active| active.mount_point.as_str()).take(from.max(to) + 1).collect();
            places.drain(..from.min(to));
            if from > to {
                places.reverse();
            }
            Ok(places.join(":"))
        }
        _ => Err(wrong()),
    }
}

/// Makes a directory below one of the mounts, with those above it.
fn make(text: &str, active: &[Active]) -> Result<()> {
    let wrong = |why: &str| Error::invalid_argument(format!("the directory {text:?} cannot be made: {why}"));
    let mut parts = text.split(':');
    let path = Path::new(parts.next().unwrap_or_default());
    let number = |text: Option<&str>, radix| -> Result<Option<u32>> {
        text.map(|text| u32::from_str_radix(text, radix).map_err(|_| wrong("mode or owner is no number"))).transpose()
    };
    let (mode, uid, gid) =
        (number(parts.next(), 8)?.unwrap_or(0o700), number(parts.next(), 10)?, number(parts.next(), 10)?);
    if parts.next().is_some() || uid.is_some() != gid.is_some() {
        return Err(wrong("it is PATH[:MODE[:UID:GID]]"));
    }
    let below = active.iter().find_map(|active| {
        path.strip_prefix(&active.mount_point).ok().map(|below| (Path::new(&active.mount_point), below))
    });
    let (root, below) = below.ok_or_else(|| wrong("it is not below a mount of this activation"))?;
    let attempt = || format!("make the directory {}", path.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory: OwnedFd = rustix::fs::openat(CWD, root, flags, Mode::empty()).attempt(attempt)?;
    for component in below.components() {
        let Component::Normal(name) = component else { return Err(wrong("its path is not plain")) };
        match rustix::fs::mkdirat(directory.as_fd(), name, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                // Whatever the process masks.
                rustix::fs::chmodat(directory.as_fd(), name, Mode::from_raw_mode(mode), AtFlags::empty())
                    .attempt(attempt)?;
                if let (Some(uid), Some(gid)) = (uid, gid) {
                    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    rustix::fs::chownat(directory.as_fd(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                        .attempt(attempt)?;
                }
            }
            Err(Errno::EXIST) => {}
            Err(errno) => Err(errno).attempt(attempt)?,
        }
        directory = rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty()).attempt(attempt)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use windlass_core::Kind;

    use super::*;

    fn active(places: &[&str]) -> Vec<Active> {
        let mount = |place: &&str| Active {
            mount: Mount {
                kind: "bind".into(),
                source: format!("source of {place}"),
                target: String::new(),
                options: Vec::new(),
            },
            mounted_at: SystemTime::now(),
            mount_point: (*place).to_owned(),
            data: std::collections::BTreeMap::new(),
        };
        places.iter().map(mount).collect()
    }

    #[test]
    fn values_of_mounts_before_are_filled_in() {
        let active = active(&["/m/0", "/m/1", "/m/2"]);
        for (text, expected) in [
            ("plain", "plain"),
            ("upperdir={{ mount 0 }}/upper", "upperdir=/m/0/upper"),
            ("{{source 1}}-{{ target 1 }}", "source of /m/1-"),
            ("lowerdir={{ overlay 0 2 }}", "lowerdir=/m/0:/m/1:/m/2"),
            ("lowerdir={{ overlay 2 1 }}", "lowerdir=/m/2:/m/1"),
        ] {
            assert_eq!(format(text, &active).unwrap(), expected);
        }
        for wrong in
            ["{{ mount 3 }}", "{{ mount -1 }}", "{{ mount }}", "{{ exec 0 }}", "{{ mount 0", "{{ overlay 0 3 }}"]
        {
            assert_eq!(format(wrong, &active).unwrap_err().kind(), Kind::InvalidArgument, "{wrong}");
        }
    }

    #[test]
    fn prefixes_are_taken_off_and_unknown_ones_named() {
        let mount =
            |kind: &str| Mount { kind: kind.into(), source: String::new(), target: String::new(), options: vec![] };
        let (taken, found) = steps(mount("format/mkdir/overlay")).unwrap();
        assert_eq!((taken.kind.as_str(), found), ("overlay", vec![Step::Format, Step::Mkdir]));
        assert_eq!(steps(mount(EROFS_LOWER)).unwrap(), (mount(EROFS_LOWER), vec![]));
        for (kind, named) in [("mkfs/loop", "mkfs"), ("loop", "loop"), ("dmverity/erofs", "dmverity")] {
            let error = steps(mount(kind)).unwrap_err();
            assert_eq!(error.kind(), Kind::Unimplemented);
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn directories_are_made_below_mounts_only() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("0");
        std::fs::create_dir(&place).unwrap();
        let text = place.display().to_string();
        let active = active(&[&text]);
        make(&format!("{text}/a/b:0751"), &active).unwrap();
        make(&format!("{text}/a/b:0751"), &active).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(place.join("a/b")).unwrap());
        assert_eq!(mode & 0o7777, 0o751);
        std::os::unix::fs::symlink("/", place.join("link")).unwrap();
        for wrong in
            [format!("{text}/../x"), "/elsewhere".to_owned(), format!("{text}/x:9"), format!("{text}/x:0700:1")]
        {
            assert_eq!(make(&wrong, &active).unwrap_err().kind(), Kind::InvalidArgument, "{wrong}");
        }
        assert!(make(&format!("{text}/link/x"), &active).is_err());
        assert!(!root.path().join("x").exists() && !Path::new("/x").exists());
    }
}
