//! The first bytes of a connection: whose it is, whether it is encrypted, and what is spoken on it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::proxy_header::{self, Origin, Start};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connection::IDLE_MAX;
use crate::tls::{Acceptor, Mode, TlsError};

/// How long a client may take from its first byte to the end of its handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEAD_BYTES: usize = 4 * 1024;
/// The first byte of a handshake, and the first four of HTTP/2. A frame that began so would be too long.
const HANDSHAKE: u8 = 0x16;
const HTTP2: &[u8] = b"PRI ";

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Remoting,
    Http2,
}

/// A connection whose first bytes have been looked at.
#[derive(Debug)]
pub struct Opened {
    pub stream: Stream,
    /// What has been read of it, decrypted, and still has to be served.
    pub head: Vec<u8>,
    pub language: Language,
    /// What a load balancer said, if one did.
    pub origin: Option<Origin>,
}

/// A connection of either kind.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<Prefixed<TcpStream>>>),
}

/// Why a connection is closed before anything was served on it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("it ended before it said anything")]
    Ended,
    #[error("it was silent for too long")]
    Silent,
    #[error(transparent)]
    Header(#[from] proxy_header::Malformed),
    #[error("it is encrypted, which is not served here")]
    Encrypted,
    #[error("it is not encrypted, which is required here")]
    Plain,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads until it is known what `stream` is, and shakes hands if it wants to.
pub async fn open(mut stream: TcpStream, acceptor: &Acceptor) -> Result<Opened, Refused> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    more(&mut stream, &mut head, IDLE_MAX).await?;
    let mut origin = None;
    loop {
        match proxy_header::read(&head)? {
            Start::None => break,
            Start::Unfinished => more(&mut stream, &mut head, HANDSHAKE_MAX).await?,
            Start::Header(len, said) => {
                head.drain(..len);
                origin = Some(said);
                if head.is_empty() {
                    more(&mut stream, &mut head, IDLE_MAX).await?;
                }
                break;
            }
        }
    }
    if head.first() == Some(&HANDSHAKE) {
        return Box::pin(shake_hands(Prefixed { head, stream }, acceptor, origin)).await;
    }
    if acceptor.mode == Mode::Enforcing {
        return Err(Refused::Plain);
    }
    let language = language(&mut stream, &mut head).await?;
    Ok(Opened { stream: Stream::Plain(stream), head, language, origin })
}

async fn shake_hands(
    stream: Prefixed<TcpStream>,
    acceptor: &Acceptor,
    origin: Option<Origin>,
) -> Result<Opened, Refused> {
    if acceptor.mode == Mode::Disabled {
        return Err(Refused::Encrypted);
    }
    let handshake = TlsAcceptor::from(acceptor.config()?).accept(stream);
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, handshake).await;
    let mut stream = handshake.map_err(|_| Refused::Silent)??;
    let mut head = Vec::new();
    let language = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Language::Http2
    } else {
        head.reserve(HEAD_BYTES);
        more(&mut stream, &mut head, IDLE_MAX).await?;
        language(&mut stream, &mut head).await?
    };
    Ok(Opened { stream: Stream::Tls(Box::new(stream)), head, language, origin })
}

async fn language(
    stream: &mut (impl AsyncRead + Unpin),
    head: &mut Vec<u8>,
) -> Result<Language, Refused> {
    loop {
        if head.starts_with(HTTP2) {
            return Ok(Language::Http2);
        }
        if !HTTP2.starts_with(head) {
            return Ok(Language::Remoting);
        }
        more(stream, head, HANDSHAKE_MAX).await?;
    }
}

async fn more(
    stream: &mut (impl AsyncRead + Unpin),
    head: &mut Vec<u8>,
    within: Duration,
) -> Result<(), Refused> {
    // Most clients have sent something by now, and no timer is needed.
    let read = tokio::time::timeout(within, stream.read_buf(head)).await;
    match read.map_err(|_| Refused::Silent)?? {
        0 => Err(Refused::Ended),
        _ => Ok(()),
    }
}

impl Opened {
    /// The connection as if nothing had been read of it.
    pub fn into_io(self) -> Prefixed<Stream> {
        Prefixed { head: self.head, stream: self.stream }
    }
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.get_ref().0.stream,
        }
    }
}

/// A stream of which something has been read already.
#[derive(Debug)]
pub struct Prefixed<S> {
    head: Vec<u8>,
    pub stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let len = into.remaining().min(self.head.len());
        into.put_slice(&self.head[..len]);
        self.head.drain(..len);
        if self.head.is_empty() {
            self.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Does the same with either kind of stream.
macro_rules! either {
    ($stream:expr, $inner:ident => $act:expr) => {
        match $stream.get_mut() {
            Stream::Plain(stream) => {
                let $inner = Pin::new(stream);
                $act
            }
            Stream::Tls(stream) => {
                let $inner = Pin::new(stream);
                $act
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, into))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
