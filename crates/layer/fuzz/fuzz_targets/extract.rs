//! Layers of all kinds of entries and deletions, with names that meet and lead everywhere, stay in their directory, and
//! come out the same whether one thread makes the files or several do.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use windlass_core::Result;
use windlass_layer::extract::{Extractor, Outcome};
use windlass_layer::tar::{Event, Parser};
use windlass_layer::target::{Below, Style, Target};

const NAMES: [&str; 16] =
    ["a", "b", "c", "d", ".", "..", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.x", ".wh.", "up", "out", "a", "b"];

#[derive(Arbitrary, Debug)]
struct Step {
    kind: u8,
    names: u32,
    target: u32,
    mode: u16,
    data: u8,
}

#[derive(Arbitrary, Debug)]
struct Layer {
    style: u8,
    /// What is in the directory, or below it.
    before: Vec<Step>,
    steps: Vec<Step>,
}

fn path(numbers: u32) -> String {
    let names = (0..(numbers >> 28) % 5 + 1).map(|at| NAMES[(numbers >> (4 * at) & 15) as usize]);
    let path = names.collect::<Vec<_>>().join("/");
    if numbers >> 31 == 1 { format!("/{path}") } else { path }
}

impl Step {
    fn write(&self, archive: &mut Vec<u8>) {
        let letter = b"0000055512346"[usize::from(self.kind) % 13];
        let data = if letter == b'0' { vec![self.data; usize::from(self.data) * 20] } else { Vec::new() };
        let mut header = [0; 512];
        let name = path(self.names);
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(format!("{:07o}\0", self.mode & 0o7777).as_bytes());
        header[108..116].copy_from_slice(format!("{:07o}\0", self.data % 3).as_bytes());
        header[116..124].copy_from_slice(format!("{:07o}\0", self.data % 2).as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(format!("{:011o}\0", self.target).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = letter;
        if matches!(letter, b'1' | b'2') {
            let target = match self.target % 8 {
                0 => "../../../outside".to_owned(),
                1 => "/".to_owned(),
                _ => path(self.target),
            };
            header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        }
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..337].copy_from_slice(b"0000001\0");
        header[337..345].copy_from_slice(b"0000003\0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(&data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
}

fn archive(steps: &[Step]) -> Vec<u8> {
    let mut archive = Vec::new();
    steps.iter().take(40).for_each(|step| step.write(&mut archive));
    archive.extend([0; 1024]);
    archive
}

fn apply(archive: &[u8], target: &Target, writers: usize) -> Result<Outcome> {
    let mut parser = Parser::new();
    let mut extractor = Extractor::new(target, writers, None)?;
    let mut input = archive;
    loop {
        match parser.next(&mut input)? {
            Event::NeedInput | Event::End => break,
            Event::Entry(entry) => match extractor.entry(*entry)? {
                Outcome::Done => {}
                needs_parent => return Ok(needs_parent),
            },
            Event::Data { offset, bytes } => extractor.data(offset, Bytes::copy_from_slice(bytes))?,
            Event::EndOfEntry => extractor.end_of_entry()?,
        }
    }
    extractor.finish()?;
    Ok(Outcome::Done)
}

/// Describes what is below a directory; times only where the layer says them.
fn tree(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        let kind = stat.file_type();
        let what = if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            format!("{:?} {}", fs::read(&path).unwrap(), stat.mtime())
        } else {
            format!("{} {} {:x}", kind.is_dir(), kind.is_fifo(), stat.rdev())
        };
        let links = if kind.is_dir() { 0 } else { stat.nlink() };
        let what = format!("{what} {:o} {}:{} {links}", stat.mode(), stat.uid(), stat.gid());
        found.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        if kind.is_dir() {
            tree(root, &path, found);
        }
    }
}

/// Extracts in a new directory beside a secret; returns what came of it, and what is there then.
fn run(place: &Path, layer: &Layer, writers: usize) -> (Option<Outcome>, BTreeMap<PathBuf, String>) {
    for name in ["root", "lower"] {
        fs::create_dir_all(place.join(name)).unwrap();
    }
    fs::create_dir(place.join("outside")).unwrap();
    for name in ["outside/secret", "a", "b", "c", "d"] {
        fs::write(place.join(name), "secret").unwrap();
    }
    let root = place.join("root");
    let in_place = Target { root: root.clone(), style: Style::Remove, below: Below::InPlace };
    let lower = Target { root: place.join("lower"), ..in_place.clone() };
    let target = match layer.style % 3 {
        0 => {
            let _ = apply(&archive(&layer.before), &in_place, 0);
            in_place
        }
        1 => Target { root: root.clone(), style: Style::Overlay, below: Below::Unknown },
        _ => {
            let _ = apply(&archive(&layer.before), &lower, 0);
            Target { root: root.clone(), style: Style::Overlay, below: Below::Lower(vec![lower.root]) }
        }
    };
    let outcome = apply(&archive(&layer.steps), &target, writers).ok();
    for name in ["outside/secret", "a", "b", "c", "d"] {
        assert_eq!(fs::read(place.join(name)).unwrap(), b"secret");
    }
    assert_eq!(fs::read_dir(place).unwrap().count(), 7);
    assert_eq!(fs::read_dir(place.join("outside")).unwrap().count(), 1);
    let mut found = BTreeMap::new();
    tree(&root, &root, &mut found);
    fs::remove_dir_all(place).unwrap();
    (outcome, found)
}

fuzz_target!(|layer: Layer| {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let place = base.join(format!("windlass-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    let (alone, expected) = run(&place, &layer, 0);
    let (beside, found) = run(&place, &layer, 2);
    assert_eq!(alone, beside);
    // What a layer that fails leaves behind depends on how far the threads were.
    if alone == Some(Outcome::Done) {
        assert_eq!(expected, found);
    }
});
