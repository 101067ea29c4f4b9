//! A client that names the path of the socket as the authority of its calls, as gRPC's C core does: frame by frame.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::serving::Place;

const HEADERS: u8 = 1;
const END: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
}

fn literal(first: &[u8], value: &str) -> Vec<u8> {
    [first, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

/// A call, by its headers and a message without a field.
fn call(stream: u8, headers: &[u8]) -> Vec<u8> {
    [frame(HEADERS, 4, stream, headers), frame(0, END, stream, &[0; 5])].concat()
}

/// Reads to the end of a call, and returns the types of the frames that belong to it.
fn answer(socket: &mut UnixStream, stream: u8) -> Vec<u8> {
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).unwrap();
        let [_, high, low, kind, flags, .., of] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        socket.read_exact(&mut payload).unwrap();
        if of == stream {
            kinds.push(kind);
            if flags & END != 0 || ![0, HEADERS].contains(&kind) {
                return kinds;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_authority_is_a_path_are_answered() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut socket = UnixStream::connect(place.socket()).unwrap();
    let answered = tokio::task::spawn_blocking(move || {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let first = [
            vec![0x83, 0x86],
            literal(&[0x44], "/containerd.services.version.v1.Version/Version"),
            literal(&literal(&[0x40], ":authority"), "run%2Fcontainerd%2Fcontainerd.sock"),
            literal(&[0x5f], "application/grpc"),
        ]
        .concat();
        // By what both ends remember of the first call, of which the last is 62.
        let second = [0x83, 0x86, 0xc0, 0xbf, 0xbe];
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), call(1, &first)].concat();
        socket.write_all(&begin).unwrap();
        let one = answer(&mut socket, 1);
        socket.write_all(&call(3, &second)).unwrap();
        (one, answer(&mut socket, 3))
    });
    // Headers, a message, and how it ended.
    let expected = vec![HEADERS, 0, HEADERS];
    assert_eq!(answered.await.unwrap(), (expected.clone(), expected));
    daemon.stop().await;
}
