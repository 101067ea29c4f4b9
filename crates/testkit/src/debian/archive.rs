//! Packages merged into one tar: each where it belongs, and every path once.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Result, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use windlass_core::error::IoResultExt as _;

use super::bottom::MERGED;
use super::source::Package;
use super::{Layer, failed, zip};

/// Where Debian's Python looks for what pip installs.
const PYTHON: &str = "usr/local/lib/python3.11/dist-packages";
/// Where Node looks for what npm installs for everybody.
const NODE: &str = "usr/local/lib/node_modules";
/// Where a file goes that is only a file.
const FILES: &str = "opt/models";
/// When everything was modified that does not say so itself, in seconds since 1970.
const MTIME: u64 = 1_700_000_000;

/// What becomes of the paths of an archive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paths<'a> {
    AsTheyAre,
    /// `/bin` and its like are below `/usr`.
    MergedUsr,
    /// Everything is below a directory instead of the archive's own, and belongs to root.
    Below(&'a Path),
}

/// Archives merged into one; a path that is there already is left out.
pub(super) struct Merge<W: Write> {
    tar: tar::Builder<W>,
    seen: HashSet<PathBuf>,
    /// How many entries there are.
    pub(super) entries: usize,
}

impl<W: Write> Merge<W> {
    pub(super) fn new(to: W) -> Self {
        Self { tar: tar::Builder::new(to), seen: HashSet::new(), entries: 0 }
    }

    /// Ends the tar, and returns what it went to.
    pub(super) fn finish(self) -> Result<W> {
        self.tar.into_inner()
    }

    /// Adds entries that were made to order.
    pub(super) fn add_entries(&mut self, entries: &Layer) -> Result<()> {
        self.add(&entries.tar()[..], Paths::AsTheyAre)
    }

    pub(super) fn add_package(&mut self, package: &Package) -> windlass_core::Result<()> {
        let added = match package {
            Package::Debian(file) => return self.add_debian(file),
            Package::Wheel(file) => self.add_wheel(file),
            Package::File(file) => self.add_file(file),
            Package::Node(file, name) => {
                let below = Path::new(NODE).join(name);
                File::open(file).and_then(|file| self.add(GzDecoder::new(file), Paths::Below(&below)))
            }
        };
        added.attempt(|| format!("unpack {}", package.file().display()))
    }

    fn add_debian(&mut self, package: &Path) -> windlass_core::Result<()> {
        let mut child = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(package)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .attempt(|| "run dpkg-deb".to_owned())?;
        let added = match child.stdout.take() {
            Some(stdout) => self.add(stdout, Paths::MergedUsr),
            None => Ok(()),
        };
        let output = child.wait_with_output().attempt(|| "wait for dpkg-deb".to_owned())?;
        if !output.status.success() {
            return Err(failed("dpkg-deb", output.status, &output.stderr).context(format!("{}", package.display())));
        }
        added.attempt(|| format!("unpack {}", package.display()))
    }

    fn add_wheel(&mut self, wheel: &Path) -> Result<()> {
        let mut file = File::open(wheel)?;
        for entry in zip::entries(&mut file)? {
            let path = Path::new(PYTHON).join(rewritten(Path::new(&entry.path), Paths::AsTheyAre));
            if !entry.path.ends_with('/') && self.is_new(&path)? {
                let content = zip::open(&mut file, &entry)?;
                self.tar.append_data(&mut header(entry.size, entry.mode), path, content)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path)?;
        let place = Path::new(FILES).join(path.file_name().unwrap_or_default());
        if self.is_new(&place)? {
            self.tar.append_data(&mut header(file.metadata()?.len(), 0o644), place, file)?;
        }
        Ok(())
    }

    fn add(&mut self, archive: impl Read, paths: Paths<'_>) -> Result<()> {
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = rewritten(&entry.path()?, paths);
            let new = match paths {
                Paths::Below(_) => self.is_new(&path)?,
                _ => !path.as_os_str().is_empty() && self.seen.insert(path.clone()),
            };
            if new {
                self.entries += usize::from(!matches!(paths, Paths::Below(_)));
                self.append(&mut entry, &path, paths)?;
            }
        }
        // A program that still writes would fail: read what pads the archive, too.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
        Ok(())
    }

    /// Whether nothing is at the path yet; adds the directories that it is in.
    fn is_new(&mut self, path: &Path) -> Result<bool> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(false);
        }
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
        above.retain(|directory| !self.seen.contains(*directory));
        for directory in above.into_iter().rev() {
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            self.tar.append_data(&mut header, directory.join(""), std::io::empty())?;
            self.seen.insert(directory.to_owned());
            self.entries += 1;
        }
        self.entries += 1;
        Ok(true)
    }

    fn append<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &Path, paths: Paths<'_>) -> Result<()> {
        let mut header = entry.header().clone();
        if matches!(paths, Paths::Below(_)) {
            header.set_uid(0);
            header.set_gid(0);
        }
        let pax: Vec<(String, Vec<u8>)> = match entry.pax_extensions()? {
            Some(records) => records
                .filter_map(std::result::Result::ok)
                .filter_map(|record| Some((record.key().ok()?.to_owned(), record.value_bytes().to_owned())))
                .filter(|(key, _)| key != "path" && key != "linkpath")
                .collect(),
            None => Vec::new(),
        };
        if !pax.is_empty() {
            self.tar.append_pax_extensions(pax.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        }
        if let Some(target) = entry.link_name()? {
            let hard = header.entry_type() == tar::EntryType::Link;
            let target = if hard { rewritten(&target, paths) } else { target.into_owned() };
            return self.tar.append_link(&mut header, path, &target);
        }
        let slash = if header.entry_type().is_dir() { "/" } else { "" };
        let mut name = path.as_os_str().to_owned();
        name.push(slash);
        self.tar.append_data(&mut header, name, entry)
    }
}

/// Returns the header of a file whose archive says little of it.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Returns the path without what begins it in packages, and below `/usr` what is there on a system with a merged one.
fn rewritten(path: &Path, paths: Paths<'_>) -> PathBuf {
    let mut parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
    if let Paths::Below(directory) = paths {
        return directory.join(parts.skip(1).collect::<PathBuf>());
    }
    let path: PathBuf = parts.by_ref().collect();
    let merged = MERGED.iter().any(|name| path.starts_with(name));
    if paths == Paths::MergedUsr && merged { Path::new("usr").join(path) } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a wheel and a package of Node's with Python's modules.
    const MAKE: &str = r#"
import io, sys, tarfile, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("module/__init__.py", b"x = 1\n")
    wheel.writestr("module/data/empty", b"")
with tarfile.open(sys.argv[2], "w:gz") as archive:
    for name in ["package/package.json", "package/lib/index.js"]:
        member = tarfile.TarInfo(name)
        member.uid, member.size = 501, 2
        archive.addfile(member, io.BytesIO(b"{}"))
"#;

    #[test]
    fn packages_of_python_and_node_go_where_they_are_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (wheel, node) = (directory.path().join("a.whl"), directory.path().join("a.tgz"));
        assert!(Command::new("python3").args(["-c", MAKE]).arg(&wheel).arg(&node).status().unwrap().success());
        let mut merge = Merge::new(Vec::new());
        for package in [Package::Wheel(wheel.clone()), Package::File(wheel), Package::Node(node, "@a/b".to_owned())] {
            merge.add_package(&package).unwrap();
        }
        let entries = merge.entries;
        let tar = merge.finish().unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let paths: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.header().uid().unwrap(), 0);
                entry.path().unwrap().to_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(paths.len(), entries);
        for path in [
            "usr/",
            "usr/local/lib/python3.11/dist-packages/module/__init__.py",
            "usr/local/lib/python3.11/dist-packages/module/data/",
            "usr/local/lib/python3.11/dist-packages/module/data/empty",
            "opt/models/a.whl",
            "usr/local/lib/node_modules/@a/b/package.json",
            "usr/local/lib/node_modules/@a/b/lib/index.js",
        ] {
            assert_eq!(paths.iter().filter(|it| *it == path).count(), 1, "{path} in {paths:?}");
        }
    }
}
