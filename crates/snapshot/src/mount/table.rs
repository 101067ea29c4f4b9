//! The table of mounts, as the kernel tells it: `/proc/thread-self/mountinfo`. Format: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use windlass_core::error::{Error, IoResultExt as _, Result};

use super::options::split_layers;

/// One mount of this process's mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedAt {
    /// The number of the mount, unique for as long as it is there.
    pub id: u64,
    /// Major and minor number of the filesystem's device.
    pub device: (u32, u32),
    /// What of its filesystem is mounted: `/`, or a directory for a bind mount.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The flags of the mount, such as `ro` and `relatime`.
    pub options: Vec<String>,
    /// The type of the filesystem.
    pub kind: String,
    /// The source, as it was named when it was mounted.
    pub source: String,
    /// The options of the filesystem, with the kernel's escapes undone.
    pub filesystem_options: Vec<String>,
}

/// The directories that an overlay is made of, as they were named when it was mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// The writable one.
    pub upper: Option<PathBuf>,
    /// The others, the topmost first.
    pub lowers: Vec<PathBuf>,
}

impl MountedAt {
    /// Tells whether nothing can be written through it.
    pub fn read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }

    /// Returns the image that is mounted: the file, which may be behind a loop device; `None` for anything but EROFS.
    pub fn image(&self) -> Option<PathBuf> {
        if self.kind != "erofs" {
            return None;
        }
        match self.source.strip_prefix("/dev/loop") {
            None => Some(PathBuf::from(&self.source)),
            // A device that went meanwhile has no file.
            Some(number) => {
                let file = std::fs::read(format!("/sys/block/loop{number}/loop/backing_file")).ok()?;
                Some(path(file.strip_suffix(b"\n").unwrap_or(&file)))
            }
        }
    }

    /// Returns the layers of an overlay, `None` for anything else.
    pub fn layers(&self) -> Option<Layers> {
        if self.kind != "overlay" {
            return None;
        }
        let mut layers = Layers::default();
        for option in &self.filesystem_options {
            match option.split_once('=') {
                Some(("upperdir", path)) => layers.upper = Some(path.into()),
                Some(("lowerdir+" | "datadir+", path)) => layers.lowers.push(path.into()),
                // A list that cannot be split, such as one with data-only layers, names no layer of ours.
                Some(("lowerdir", paths)) => layers.lowers.extend(split_layers(paths).unwrap_or_default()),
                _ => {}
            }
        }
        Some(layers)
    }
}

/// Returns the mounts that this process sees, in the order they were made on each place.
pub fn mounts() -> Result<Vec<MountedAt>> {
    const TABLE: &str = "/proc/thread-self/mountinfo";
    parse(&std::fs::read(TABLE).attempt(|| format!("read {TABLE}"))?)
}

/// Parses the text of a mount table.
///
/// ```
/// let table = b"51 27 254:0 /srv/a\\040b /mnt ro,relatime shared:1 - ext4 /dev/vda rw\n";
/// let mounts = windlass_snapshot::mount::parse(table).unwrap();
/// assert_eq!(mounts[0].root, std::path::Path::new("/srv/a b"));
/// assert!(mounts[0].read_only());
/// ```
///
/// # Errors
/// `DataLoss` naming the line that has another form.
pub fn parse(table: &[u8]) -> Result<Vec<MountedAt>> {
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                Error::data_loss(format!("the mount table has the line {:?}", String::from_utf8_lossy(line)))
            })
        })
        .collect()
}

/// `id parent major:minor root target options [tag[:value]]… - type source options`
fn parse_line(line: &[u8]) -> Option<MountedAt> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    fields.next()?;
    let (major, minor) = text(fields.next()?).split_once(':').map(|(a, b)| (a.parse(), b.parse()))?;
    let root = path(fields.next()?);
    let target = path(fields.next()?);
    let options = list(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let kind = text(fields.next()?);
    let source = text(fields.next()?);
    let filesystem_options = list(fields.next().unwrap_or_default());
    Some(MountedAt { id, device: (major.ok()?, minor.ok()?), root, target, options, kind, source, filesystem_options })
}

/// Splits a list before the escapes are undone: a comma inside of a value is escaped.
fn list(field: &[u8]) -> Vec<String> {
    field.split(|byte| *byte == b',').map(text).collect()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the kernel's escapes: a backslash and three octal digits for a byte.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let ([b'\\', ..], Some(byte)) = (rest, tail.get(..3).and_then(octal)) {
            bytes.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    u8::from_str_radix(digits, 8).ok()
}

/// Returns the path of an open directory.
pub(super) fn path_of(directory: BorrowedFd<'_>) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_nothing_else_is() {
        for (field, expected) in [
            (r"/a\040b", "/a b"),
            (r"/a\134040", r"/a\040"),
            (r"/tab\011nl\012", "/tab\tnl\n"),
            (r"/a\04", r"/a\04"),
            (r"/a\999", r"/a\999"),
            (r"/a\777", r"/a\777"),
            (r"\", r"\"),
            ("", ""),
            ("/ü", "/ü"),
        ] {
            assert_eq!(text(field.as_bytes()), expected, "{field}");
        }
    }

    #[test]
    fn lines_of_all_forms_are_read() {
        let table = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
29 26 0:26 / /dev/pts rw shared:3 master:1 propagate_from:2 unbindable - devpts devpts rw,mode=600
51 27 254:0 /tmp/a\\040- /tmp/b ro,relatime - ext4 /dev/vda rw,discard
60 27 0:40 / /m rw - fuse.sshfs a\\040b:/ rw
61 27 0:41 / /n rw - autofs  rw
";
        let mounts = parse(table.as_bytes()).unwrap();
        assert_eq!(mounts.len(), 5);
        assert_eq!((mounts[1].kind.as_str(), mounts[1].id, mounts[1].device), ("devpts", 29, (0, 26)));
        assert_eq!(mounts[2].root, PathBuf::from("/tmp/a -"));
        assert!(mounts[2].read_only() && !mounts[0].read_only());
        assert_eq!(mounts[3].source, "a b:/");
        assert_eq!(mounts[4].source, "");
    }

    #[test]
    fn layers_are_read_in_both_forms() {
        let line = |options: &str| {
            let line = format!("46 27 0:39 / /m rw - overlay overlay {options}");
            parse(line.as_bytes()).unwrap()[0].layers().unwrap()
        };
        let layers = line(r"rw,lowerdir+=/a,lowerdir+=/x:y\054z\134w,upperdir=/u,workdir=/w,uuid=on");
        assert_eq!(layers.lowers, [PathBuf::from("/a"), PathBuf::from(r"/x:y,z\w")]);
        assert_eq!(layers.upper, Some("/u".into()));
        let layers = line(r"ro,lowerdir=/a\134:b:/c");
        assert_eq!(layers.lowers, [PathBuf::from("/a:b"), PathBuf::from("/c")]);
        assert_eq!(layers.upper, None);
    }

    #[test]
    fn a_damaged_line_is_named() {
        for line in ["x", "1 2 3 4 5 6 - a b c", "1 2 3:4 / /a rw ext4 x rw", "1 2 3:4 / /a rw -"] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
    }
}
