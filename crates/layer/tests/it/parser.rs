//! The parser, against another one and against noise.

use std::io::Read as _;

use proptest::prelude::*;
use windlass_core::Kind as ErrorKind;
use windlass_layer::tar::{BLOCK, Entry, Event, Kind, Parser};

use crate::archive::{Archive, entry, sum};

/// An entry and its data, by where it belongs.
type Member = (Entry, Vec<(u64, Vec<u8>)>);

/// What came out of an archive, and whether it ended well.
type Parsed = (Vec<Member>, bool);

fn parse(archive: &[u8], mut cut: impl FnMut() -> usize) -> Parsed {
    let mut parser = Parser::new();
    let mut entries: Vec<Member> = Vec::new();
    let mut rest = archive;
    while !rest.is_empty() {
        let (mut input, tail) = rest.split_at(cut().clamp(1, rest.len()));
        rest = tail;
        loop {
            match parser.next(&mut input) {
                Ok(Event::NeedInput) => break,
                Ok(Event::End) => return (entries, parser.finish().is_ok()),
                Ok(Event::Entry(entry)) => entries.push((*entry, Vec::new())),
                Ok(Event::EndOfEntry) => {}
                Ok(Event::Data { offset, bytes }) => {
                    let data = &mut entries.last_mut().unwrap().1;
                    match data.last_mut() {
                        Some((start, last)) if *start + last.len() as u64 == offset => last.extend_from_slice(bytes),
                        _ => data.push((offset, bytes.to_vec())),
                    }
                }
                Err(_) => return (entries, false),
            }
        }
    }
    (entries, parser.finish().is_ok())
}

fn whole(archive: &[u8]) -> Parsed {
    parse(archive, || usize::MAX)
}

fn sample() -> Vec<u8> {
    let mut sparse = entry(b'S', "old-sparse").block(700);
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[345..500].fill(0);
    sparse[386..398].copy_from_slice(b"00000000000\0");
    sparse[398..410].copy_from_slice(b"00000001000\0");
    sparse[410..422].copy_from_slice(b"00000002000\0");
    sparse[422..434].copy_from_slice(b"00000000274\0");
    // GNU tar ends the map of a file that ends with a hole like this.
    sparse[434..446].copy_from_slice(b"00000004000\0");
    sparse[446..458].copy_from_slice(b"00000000000\0");
    sparse[483..495].copy_from_slice(b"00000004000\0");
    sum(&mut sparse);
    Archive::new()
        .dir("d")
        .add(&entry(b'0', "d/f").xattr("user.x", b"\0\n=").record("mtime", "1.5"), &[7; 1500])
        .symlink("l", "d/f")
        .link("h", "d/f")
        .add(&entry(b'3', "null").device(1, 3), b"")
        .raw(&entry(b'L', "././@LongLink").block(301))
        .payload(format!("{}\0", "n".repeat(300)).as_bytes())
        .file("ignored", "long")
        .raw(&sparse)
        .payload(&[1; 700])
        .add(
            &entry(b'0', "GNUSparseFile.0/x")
                .record("GNU.sparse.major", "1")
                .record("GNU.sparse.minor", "0")
                .record("GNU.sparse.name", "new-sparse")
                .record("GNU.sparse.realsize", "5000"),
            &{
                let mut data = b"2\n0\n3\n4000\n2\n".to_vec();
                data.resize(BLOCK, 0);
                data.extend(b"abcde");
                data
            },
        )
        .end()
}

#[test]
fn the_sample_has_what_was_put_in() {
    let (entries, sound) = whole(&sample());
    assert!(sound);
    let names: Vec<_> = entries.iter().map(|(entry, _)| String::from_utf8_lossy(&entry.path).into_owned()).collect();
    let long = "n".repeat(300);
    assert_eq!(names, ["d", "d/f", "l", "h", "null", &long, "old-sparse", "new-sparse"]);
    assert_eq!(entries[6].0.kind, Kind::Regular { size: 2048, sparse: true });
    assert_eq!(entries[6].1, [(0, vec![1; 512]), (1024, vec![1; 188])]);
    assert_eq!(entries[7].0.kind, Kind::Regular { size: 5000, sparse: true });
    assert_eq!(entries[7].1, [(0, b"abc".to_vec()), (4000, b"de".to_vec())]);
}

#[test]
fn the_size_in_a_record_wins_over_the_header() {
    // A reader that believes the header sees another archive: that is how things are smuggled.
    let smuggled = Archive::new().file("smuggled", "x").end();
    let archive = Archive::new()
        .raw(&entry(b'x', "PaxHeaders/0").block(13))
        .payload(b"13 size=1536\n")
        .raw(&entry(b'0', "f").block(0))
        .payload(&smuggled[..1536])
        .file("next", "")
        .end();
    let (entries, sound) = whole(&archive);
    assert!(sound);
    let names: Vec<_> = entries.iter().map(|(entry, _)| entry.path.clone()).collect();
    assert_eq!(names, [b"f".to_vec(), b"next".to_vec()]);
}

#[test]
fn sizes_of_entries_without_data_do_not_count() {
    for kind in *b"123456" {
        let archive = Archive::new().raw(&entry(kind, "x").link("y").block(5000)).file("next", "z").end();
        let (entries, sound) = whole(&archive);
        assert!(sound && entries.len() == 2, "{}", char::from(kind));
    }
}

#[test]
fn global_headers_are_read_over() {
    let archive = Archive::new().raw(&entry(b'g', "g").block(13)).payload(b"13 size=9999\n").file("f", "x").end();
    let (entries, sound) = whole(&archive);
    assert!(sound);
    assert_eq!(entries[0].1, [(0, b"x".to_vec())]);
}

#[test]
fn checksums_over_signed_bytes_are_right_too() {
    let mut block = entry(b'0', "caf\u{e9}").block(0);
    block[148..156].fill(b' ');
    let signed: i64 = block.iter().map(|byte| i64::from(byte.cast_signed())).sum();
    block[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    assert!(whole(&Archive::new().raw(&block).end()).1);
    block[0] ^= 1;
    assert!(!whole(&Archive::new().raw(&block).end()).1);
}

#[test]
fn special_members_are_bounded() {
    for kind in *b"xgLK" {
        let archive = Archive::new().raw(&entry(kind, "x").block((1 << 20) + 1)).payload(&[0; 4096]).end();
        let mut parser = Parser::new();
        let error = parser.next(&mut &archive[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
    }
}

#[test]
fn what_was_announced_must_follow() {
    let dangling = Archive::new().raw(&entry(b'L', "x").block(3)).payload(b"abc");
    assert!(!whole(&dangling.0).1);
    let mut zero_then_more = vec![0; BLOCK];
    zero_then_more.extend(Archive::new().file("f", "x").end());
    assert!(!whole(&zero_then_more).1);
}

/// Compares with the `tar` crate, where that can read an archive at all.
#[test]
fn the_tar_crate_sees_the_same() {
    let archive = sample();
    let mut theirs = tar::Archive::new(&archive[..]);
    // That crate has no PAX sparse files.
    let (ours, _) = whole(&archive);
    for (theirs, (ours, data)) in theirs.entries().unwrap().zip(&ours).take(7) {
        let mut theirs = theirs.unwrap();
        assert_eq!(theirs.path_bytes().into_owned(), ours.path);
        let mut content = Vec::new();
        theirs.read_to_end(&mut content).unwrap();
        let mut expected = vec![0; content.len()];
        for (offset, bytes) in data {
            let start = usize::try_from(*offset).unwrap();
            expected[start..start + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(content, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        whole(&bytes);
    }

    #[test]
    fn how_an_archive_is_cut_changes_nothing(cuts in prop::collection::vec(1..2000usize, 1..20)) {
        let archive = sample();
        let mut at = 0;
        let found = parse(&archive, || {
            at += 1;
            cuts[at % cuts.len()]
        });
        prop_assert_eq!(found, whole(&archive));
    }

    #[test]
    fn damage_never_panics_and_never_depends_on_the_cut(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in 1..1500usize,
    ) {
        let mut archive = sample();
        for (at, byte, fix) in damage {
            let at = at.index(archive.len());
            archive[at] = byte;
            // Half of the damage is signed for, so that it gets past the checksum.
            let start = at / BLOCK * BLOCK;
            if fix && let Ok(block) = <&mut [u8; BLOCK]>::try_from(&mut archive[start..start + BLOCK]) {
                sum(block);
            }
        }
        prop_assert_eq!(parse(&archive, || cut), whole(&archive));
    }
}
