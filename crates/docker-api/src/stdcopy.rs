//! How output of several streams travels in one: frames of an 8-byte head (stream, three zeros, length) and the bytes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// A frame longer than this is taken for garbage; Docker's own writers stay far below.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
const HEAD_BYTES: usize = 8;

/// What a frame is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input; Docker's readers show it as output.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// The server itself: the stream ends with this error.
    SystemErr = 3,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is from.
    pub stream: Stream,
    /// Its bytes.
    pub data: Bytes,
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such stream.
    #[error("unrecognized stream: {0}")]
    UnknownStream(u8),
    /// Too long to be true.
    #[error("a log frame of {0} bytes is too long: at most {FRAME_BYTES_MAX} are accepted")]
    TooLong(usize),
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder(BytesMut);

/// Writes one frame.
pub fn encode(stream: Stream, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + data.len());
    encode_into(&mut out, stream, data);
    out.freeze()
}

/// Writes a frame behind what is there. Data beyond 4 GiB goes into further frames.
pub fn encode_into(out: &mut BytesMut, stream: Stream, data: &[u8]) {
    for piece in data.chunks(FRAME_BYTES_MAX) {
        out.reserve(HEAD_BYTES + piece.len());
        out.put_slice(&[stream as u8, 0, 0, 0]);
        out.put_u32(u32::try_from(piece.len()).expect("a piece is at most FRAME_BYTES_MAX"));
        out.put_slice(piece);
    }
}

// === impl Decoder ===

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds bytes as they come.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one. After an error the stream is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.0.len() < HEAD_BYTES {
            return Ok(None);
        }
        let stream = match self.0[0] {
            0 => Stream::Stdin,
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::SystemErr,
            other => return Err(FrameError::UnknownStream(other)),
        };
        let len = u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]]) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(len));
        }
        if self.0.len() < HEAD_BYTES + len {
            return Ok(None);
        }
        self.0.advance(HEAD_BYTES);
        Ok(Some(Frame { stream, data: self.0.split_to(len).freeze() }))
    }

    /// Bytes that are not a whole frame yet.
    pub fn pending(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = BytesMut::new();
        encode_into(&mut wire, Stream::Stdout, b"one\n");
        encode_into(&mut wire, Stream::Stderr, b"two\n");
        encode_into(&mut wire, Stream::SystemErr, b"lost");
        assert_eq!(&wire[..12], &[1, 0, 0, 0, 0, 0, 0, 4, b'o', b'n', b'e', b'\n']);
        let mut decoder = Decoder::new();
        let mut seen = Vec::new();
        for byte in &wire {
            decoder.feed(&[*byte]);
            seen.extend(decoder.next_frame().expect("good frames"));
        }
        let seen: Vec<(Stream, &[u8])> = seen.iter().map(|f| (f.stream, f.data.as_ref())).collect();
        assert_eq!(seen, [(Stream::Stdout, &b"one\n"[..]), (Stream::Stderr, b"two\n"), (Stream::SystemErr, b"lost")]);
        assert_eq!(decoder.pending(), 0);
    }

    #[test]
    fn garbage_is_an_error() {
        let mut decoder = Decoder::new();
        decoder.feed(b"HTTP/1.1 200 OK");
        assert_eq!(decoder.next_frame(), Err(FrameError::UnknownStream(b'H')));
        let mut decoder = Decoder::new();
        decoder.feed(&[1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(u32::MAX as usize)));
    }
}
