//! A connection that breaks when its reader does not read (what is written for it would otherwise wait here for ever), and
//! when the certificate that opened it ends, whatever it has become meanwhile: an event stream, a tunnel.

use seams::BoxStream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a reader may take to take anything at all.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a connection waits for its reader without end: for output that a person may have paused. Set for each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience(Arc<AtomicBool>);

/// The connection.
pub(crate) struct Stalling {
    stream: BoxStream,
    patience: Patience,
    /// Armed while a write waits.
    timeout: Option<Pin<Box<Sleep>>>,
    /// When the certificate at its other end ends.
    end: Option<Pin<Box<Sleep>>>,
}

// === impl Patience ===

impl Patience {
    /// From now on, or until the next request.
    pub(crate) fn set(&self, without_end: bool) {
        self.0.store(without_end, Ordering::Relaxed);
    }
}

// === impl Stalling ===

impl Stalling {
    /// The connection, which breaks after `life` if there is one.
    pub(crate) fn new(stream: BoxStream, patience: Patience, life: Option<Duration>) -> Stalling {
        let end = life.map(|life| Box::pin(tokio::time::sleep(life)));
        Stalling { stream, patience, timeout: None, end }
    }

    /// Fails from the moment on at which the certificate has ended.
    fn alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().map(|end| end.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the client's certificate has expired"))
            }
            Some(Poll::Pending) | None => Ok(()),
        }
    }

    /// What a write came to, or the end of patience.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.patience.0.load(Ordering::Relaxed) {
            self.timeout = None;
            return written;
        }
        let timeout = self.timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIMEOUT)));
        match timeout.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped reading")))
            }
        }
    }
}

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, closed)
    }
}
