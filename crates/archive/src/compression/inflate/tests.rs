//! What flate2 makes of a stream is what is right: the bytes, where the stream ends, and whether it is damaged or cut off.

use std::io::Write as _;

use proptest::prelude::*;

use super::generator::{Random, stream};
use super::*;

/// What comes of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The bytes, and where the stream ended.
    Whole(Vec<u8>, usize),
    CutOff(Vec<u8>),
    Damaged,
}

fn theirs(data: &[u8]) -> Outcome {
    let mut inflate = flate2::Decompress::new(false);
    let mut all = Vec::new();
    loop {
        let (read, written) = (usize::try_from(inflate.total_in()).unwrap(), all.len());
        all.reserve(64 << 10);
        match inflate.decompress_vec(&data[read..], &mut all, flate2::FlushDecompress::None) {
            Ok(flate2::Status::StreamEnd) => return Outcome::Whole(all, usize::try_from(inflate.total_in()).unwrap()),
            Err(_) => return Outcome::Damaged,
            Ok(_) if read as u64 == inflate.total_in() && written == all.len() => return Outcome::CutOff(all),
            Ok(_) => {}
        }
    }
}

/// Reads a stream in parts and with rooms of those sizes, one after the other, from the beginning again after the last.
fn ours(data: &[u8], parts: &[usize], rooms: &[usize]) -> Outcome {
    let mut inflate = Inflate::new();
    ours_again(&mut inflate, data, parts, rooms)
}

fn ours_again(inflate: &mut Inflate, mut data: &[u8], parts: &[usize], rooms: &[usize]) -> Outcome {
    let (mut parts, mut rooms) = (parts.iter().cycle(), rooms.iter().cycle());
    let whole = data.len();
    let mut all = Vec::new();
    let mut output = Output::new(*rooms.next().unwrap());
    let mut part = data.len().min(*parts.next().unwrap());
    loop {
        let Ok(step) = inflate.step(&data[..part], &mut output) else { return Outcome::Damaged };
        (data, part) = (&data[step.read..], part - step.read);
        assert_eq!(inflate.total(), (all.len() + output.content().len()) as u64);
        if output.is_full() {
            all.extend_from_slice(output.content());
            let mut next = Output::new(*rooms.next().unwrap());
            next.follow(&output);
            output = next;
        } else if inflate.is_complete() {
            break;
        } else if part == 0 {
            part = data.len().min(*parts.next().unwrap());
            if part == 0 {
                break;
            }
        } else {
            assert_ne!(step, Step::default(), "nothing happens with input and room");
        }
    }
    all.extend_from_slice(output.content());
    if inflate.is_complete() { Outcome::Whole(all, whole - data.len()) } else { Outcome::CutOff(all) }
}

/// Holds ours to theirs, however the stream is cut.
fn check(data: &[u8]) {
    let theirs = theirs(data);
    for (parts, rooms) in [
        (&[usize::MAX][..], &[1 << 20][..]),
        (&[usize::MAX], &[1, 2, 400, 1000]),
        (&[1], &[3000]),
        (&[3, 1, 40, 7, 100], &[700, 5]),
        (&[200, 30, 31], &[40_000]),
    ] {
        assert_eq!(ours(data, parts, rooms), theirs, "in parts of {parts:?}, rooms of {rooms:?}");
    }
}

fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes with matches of all kinds: short and long distances, runs, and some without any.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut all: Vec<u8> = Vec::new();
    while all.len() < length {
        let count = random.below(300) + 1;
        let most = [2, 20, 1000, 32_768][random.below(4)];
        let far = random.below(all.len().min(most) + 1);
        match random.below(4) {
            0 => all.extend((0..count).map(|_| u8::try_from(random.below(256)).unwrap())),
            1 => all.extend((0..count).map(|_| b"etaoin \n"[random.below(8)])),
            _ if far > 0 => (0..count).for_each(|_| all.push(all[all.len() - far])),
            _ => {}
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_a_compressor_makes_is_read(seed: u64, length in 0..200_000_usize, level in 0..10_u32) {
        let bytes = bytes(seed, length);
        let data = deflate(&bytes, level);
        prop_assert_eq!(ours(&data, &[usize::MAX], &[1 << 20]), Outcome::Whole(bytes, data.len()));
        check(&data);
    }

    #[test]
    fn damaged_and_cut_streams_are_what_they_are(seed: u64, flips in 0..4_usize, cut in 0.0..1.3_f64) {
        let mut random = Random(seed);
        let mut data = deflate(&bytes(seed, 5000), u32::try_from(random.below(10)).unwrap());
        for _ in 0..flips {
            let at = random.below(data.len());
            data[at] ^= 1 << random.below(8);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in the stream")]
        data.truncate((data.len() as f64 * cut) as usize);
        check(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Blocks of every type, codes of every shape, and now and then what must not be.
    #[test]
    fn generated_blocks_are_read_or_refused(seed: u64) {
        check(&stream(seed));
    }

    #[test]
    fn noise_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&data);
    }
}

#[test]
fn the_generator_makes_both_sound_and_damaged_streams() {
    let outcomes: Vec<_> = (0..500).map(|seed| theirs(&stream(seed))).collect();
    let whole = outcomes.iter().filter(|it| matches!(it, Outcome::Whole(..))).count();
    let damaged = outcomes.iter().filter(|it| matches!(it, Outcome::Damaged)).count();
    assert!(whole > 150 && damaged > 50, "{whole} {damaged}");
}

#[test]
fn a_stream_cut_anywhere_is_cut_off() {
    let data = deflate(&bytes(1, 3000), 6);
    for cut in 0..data.len() {
        assert!(matches!(theirs(&data[..cut]), Outcome::CutOff(_)));
        check(&data[..cut]);
    }
}

#[test]
fn every_flipped_bit_is_taken_as_flate2_takes_it() {
    let data = deflate(&bytes(2, 700), 9);
    for bit in 0..data.len() * 8 {
        let mut flipped = data.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        check(&flipped);
    }
}

#[test]
fn a_stream_cannot_look_at_what_was_before_it() {
    // A fixed block whose first symbol is a length of 3 with a distance of 1.
    let data = [0b0000_0011, 0b0000_0010, 0, 0];
    assert_eq!(theirs(&data), Outcome::Damaged);
    let mut inflate = Inflate::new();
    let text = deflate(b"what was before", 6);
    let mut output = Output::new(1000);
    inflate.step(&text, &mut output).unwrap();
    assert!(inflate.is_complete());
    inflate.reset();
    assert_eq!(inflate.step(&data, &mut output), Err(Damage::TooFar));
    assert_eq!(output.content(), b"what was before");
}

#[test]
fn an_inflater_is_used_again_after_damage() {
    let mut inflate = Inflate::new();
    for seed in 0..200 {
        let data = stream(seed);
        inflate.reset();
        assert_eq!(ours_again(&mut inflate, &data, &[50], &[1 << 16]), theirs(&data), "{seed}");
    }
}
