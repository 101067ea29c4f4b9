//! Which files a configuration is read from, and in which order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result, ResultExt as _};

use super::{Config, containerd, own};
use windlass_core::settings::{Source, Table, Unknown};

/// The file that is read when none is named. It need not be there.
pub const SYSTEM_FILE: &str = "/etc/windlass/config.toml";
/// The folder beside the file, whose files are read after it, in the order of their names.
const DROP_INS: &str = "conf.d";
/// How much of a file is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How many files are read.
const MAX_FILES: usize = 256;

/// A configuration, and what there is to say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What was read and not taken over, a line each, with file, line and key. Only files of containerd have such.
    pub notes: Vec<String>,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
}

/// Reads a configuration onto what holds without: the file that is named, or the system's when it is there, and the files
/// of the folder `conf.d` beside it.
///
/// # Errors
/// `NotFound` when the file that is named is not there; `InvalidArgument` naming file, line and key, for what cannot be read
/// and for a key of our own configuration that nobody knows; those of the filesystem.
pub fn load(named: Option<&Path>, base: Config) -> Result<Loaded> {
    let mut loading =
        Loading { loaded: Loaded { config: base, notes: Vec::new(), files: Vec::new() }, seen: BTreeSet::new() };
    let file = named.unwrap_or(Path::new(SYSTEM_FILE));
    match text_of(file) {
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => {}
        text => loading.read(file, text.attempt(|| format!("read the configuration {}", file.display()))?)?,
    }
    let folder = directory_of(file).join(DROP_INS);
    for drop_in in matching(&folder, "*.toml")? {
        loading.read_file(&drop_in)?;
    }
    Ok(loading.loaded)
}

struct Loading {
    loaded: Loaded,
    /// Files that import each other are read once.
    seen: BTreeSet<PathBuf>,
}

impl Loading {
    fn read_file(&mut self, path: &Path) -> Result<()> {
        let text = text_of(path).attempt(|| format!("read the configuration {}", path.display()))?;
        self.read(path, text)
    }

    fn read(&mut self, path: &Path, text: String) -> Result<()> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        if self.seen.len() > MAX_FILES {
            return Err(Error::invalid_argument(format!("the configuration is more than {MAX_FILES} files")));
        }
        let source = Source::new(path, text);
        let table = source.parse()?;
        self.loaded.files.push(path.to_owned());
        let mut file = Table::root(&source, table.get_ref());
        if containerd::version(&mut file)?.is_some() {
            let read = containerd::read(file, &mut self.loaded.config)?;
            self.loaded.notes.extend(read.notes);
            for pattern in read.imports {
                self.import(path, &pattern)?;
            }
            return Ok(());
        }
        match own::read(file, &mut self.loaded.config)?.into_iter().next() {
            None => Ok(()),
            Some(unknown) => Err(complain(&unknown)),
        }
    }

    /// Reads what a file of containerd imports: a path, or a pattern with `*` in its last part, relative to the file.
    fn import(&mut self, from: &Path, pattern: &str) -> Result<()> {
        let path = directory_of(from).join(pattern);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.contains('*') {
            return self.read_file(&path).context(|| format!("imported by {}", from.display()));
        }
        for file in matching(directory_of(&path), name)? {
            self.read_file(&file).context(|| format!("imported by {}", from.display()))?;
        }
        Ok(())
    }
}

fn complain(unknown: &Unknown) -> Error {
    let Unknown { place, key, nearest, known } = unknown;
    let error = Error::invalid_argument(format!("{place}: nobody knows the key {key}"));
    match nearest {
        Some(nearest) => error.hint(format!("did you mean {nearest}?")),
        None => error.hint(format!("known here are: {}", known.join(", "))),
    }
}

fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the files of a folder whose names fit a pattern, by name; none when the folder is not there.
fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let attempt = || format!("look for configuration in {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.attempt(attempt)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.attempt(attempt)?;
        if entry.file_name().to_str().is_some_and(|name| fits(name, pattern)) {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Tells whether a name fits a pattern in which `*` stands for any characters; as in a shell, not for a dot in front.
fn fits(name: &str, pattern: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = "";
    let mut open = false;
    for part in parts {
        open = true;
        if !last.is_empty() {
            let Some(at) = rest.find(last) else { return false };
            rest = rest.get(at + last.len()..).unwrap_or_default();
        }
        last = part;
    }
    if open { rest.ends_with(last) } else { rest.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (name, pattern, expected) in [
            ("a.toml", "*.toml", true),
            ("a.toml.bak", "*.toml", false),
            (".a.toml", "*.toml", false),
            ("a.toml", "a.toml", true),
            ("ab.toml", "a.toml", false),
            ("10-cri-x.toml", "10-*-x*", true),
            ("10-cri-y.toml", "10-*-x*", false),
            ("a", "*", true),
            ("aa", "a*a", true),
            ("a", "a*a", false),
        ] {
            assert_eq!(fits(name, pattern), expected, "{name} {pattern}");
        }
    }
}
