//! One buffer a core to read into, so that a connection that waits holds none, and a short message
//! costs an allocation of its own length instead of a whole buffer's.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes of the buffer: as much as one read of a socket usually has.
const BYTES: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BYTES]);
}

/// Reads what is there, up to the buffer, behind what `input` has; `Ok(0)` is the end.
pub fn poll_read<IO: AsyncRead + Unpin>(
    io: &mut IO,
    cx: &mut Context<'_>,
    input: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        let read = buffer.filled();
        input.extend_from_slice(read);
        Poll::Ready(Ok(read.len()))
    })
}

/// Reads straight behind what `input` has, up to `at_most` bytes: for content, which is long.
pub fn poll_read_content<IO: AsyncRead + Unpin>(
    io: &mut IO,
    cx: &mut Context<'_>,
    input: &mut BytesMut,
    at_most: usize,
) -> Poll<io::Result<usize>> {
    input.reserve(at_most);
    pin!(io.read_buf(input)).poll(cx)
}
