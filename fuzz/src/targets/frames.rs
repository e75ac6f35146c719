//! Docker's frames of log and attach streams.

use super::{Taker, Target, must};
use docker_api::stdcopy::{Decoder, Stream, encode};

pub(super) const TARGET: Target = Target {
    name: "frames",
    about: "frames of log streams: docker_api::stdcopy",
    corpus: || {
        let frames =
            [encode(Stream::Stdout, b"hello\n"), encode(Stream::Stderr, b""), encode(Stream::SystemErr, b"no")];
        let mut all: Vec<Vec<u8>> = frames.iter().map(|f| f.to_vec()).collect();
        all.push(frames.concat());
        all
    },
    words: &[b"\x01\0\0\0", b"\x02\0\0\0\xff\xff\xff\xff", b"\x01\0\0\0\x01\0\0\0", b"\x04", b"\x01\0\0\0\0\0\0\0"],
    bytes_max: 64 * 1024,
    start,
};

fn start() -> Taker {
    Box::new(|input| {
        // However the bytes are cut, the same frames come out.
        let whole = decode([input].into_iter());
        let cut = decode(input.chunks(7));
        must(whole == cut, || format!("cut in pieces: {} frames, whole: {}", cut.0.len(), whole.0.len()))
    })
}

type Decoded = (Vec<(u8, Vec<u8>)>, bool);

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push((frame.stream as u8, frame.data.to_vec())),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}
