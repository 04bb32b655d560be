//! WebSocket frames (RFC 6455), as a server reads and writes them.
//!
//! Reading works in the caller's buffer and keeps only what is incomplete; an idle connection keeps nothing. Lengths are
//! judged from the header, before a byte of the payload is kept.

use bytes::{BufMut, Bytes, BytesMut};

/// Payload bytes of a message, in one frame or in fragments. A message of 64 kB fits with most of its characters escaped.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Control frames carry at most this (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// A complete text frame. What is sent to many is encoded once, here, and shared.
pub fn text(payload: &str) -> Bytes {
    frame(TEXT, payload.as_bytes())
}

/// Appends a complete text frame whose payload is in parts: for what is shared but for its end.
pub fn put_text(frames: &mut BytesMut, parts: &[&[u8]]) {
    put_header(frames, TEXT, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        frames.put_slice(part);
    }
}

/// Asks whether the client is there: its system answers, whatever the program does.
pub fn ping() -> Bytes {
    frame(PING, b"")
}

pub fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, payload)
}

/// A close frame; without a code it answers a close that had none.
pub fn close(code: Option<u16>, reason: &str) -> Bytes {
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    if let Some(code) = code {
        payload.put_u16(code);
        payload.put_slice(reason.as_bytes());
    }
    frame(CLOSE, &payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(10 + payload.len());
    put_header(&mut frame, opcode, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

fn put_header(frame: &mut BytesMut, opcode: u8, length: usize) {
    frame.put_u8(FIN | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => frame.put_u8(length),
        (_, Ok(length)) => {
            frame.put_u8(126);
            frame.put_u16(length);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
}

/// How a client broke RFC 6455. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("protocol error")]
    Protocol,
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("message is larger than {MESSAGE_BYTES_MAX} bytes")]
    TooBig,
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(Option<u16>),
}

/// Takes bytes as they come and gives whole messages.
#[derive(Debug, Default)]
pub struct Reader {
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// The message of which fragments have come.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    text: bool,
    payload: Vec<u8>,
}

impl Reader {
    /// Reads what arrived, unmasking in place. `on_event` answers whether to go on. An error ends the connection.
    pub fn read(&mut self, arrived: &mut [u8], mut on_event: impl FnMut(Event<'_>) -> bool) -> Result<(), Violation> {
        if self.partial.is_empty() {
            let used = self.frames(arrived, &mut on_event)?;
            self.partial = arrived[used..].to_vec();
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(arrived);
            let used = self.frames(&mut whole, &mut on_event)?;
            if used < whole.len() {
                whole.drain(..used);
                self.partial = whole;
            }
        }
        Ok(())
    }

    /// Handles all whole frames of the buffer; answers how many bytes they took.
    fn frames(&mut self, buffer: &mut [u8], on_event: &mut impl FnMut(Event<'_>) -> bool) -> Result<usize, Violation> {
        let mut used = 0;
        while let Some(header) = Header::parse(&buffer[used..])? {
            let start = used + header.bytes;
            let Some(payload) = buffer.get_mut(start..start + header.length) else { break };
            unmask(payload, header.mask);
            used = start + header.length;
            if !self.frame(&header, payload, on_event)? {
                return Ok(buffer.len());
            }
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        on_event: &mut impl FnMut(Event<'_>) -> bool,
    ) -> Result<bool, Violation> {
        match (header.opcode, header.fin) {
            (PING, _) => Ok(on_event(Event::Ping(payload))),
            (PONG, _) => Ok(on_event(Event::Pong)),
            (CLOSE, _) => {
                on_event(Event::Close(close_code(payload)?));
                Ok(false)
            }
            (TEXT | BINARY, _) if self.fragments.is_some() => Err(Violation::Protocol),
            (opcode @ (TEXT | BINARY), true) => message(opcode == TEXT, payload, on_event),
            (opcode @ (TEXT | BINARY), false) => {
                self.fragments = Some(Box::new(Fragments { text: opcode == TEXT, payload: payload.to_vec() }));
                Ok(true)
            }
            (CONTINUATION, fin) => {
                let mut fragments = self.fragments.take().ok_or(Violation::Protocol)?;
                if fragments.payload.len() + payload.len() > MESSAGE_BYTES_MAX {
                    return Err(Violation::TooBig);
                }
                fragments.payload.extend_from_slice(payload);
                if fin {
                    return message(fragments.text, &fragments.payload, on_event);
                }
                self.fragments = Some(fragments);
                Ok(true)
            }
            _ => Err(Violation::Protocol),
        }
    }
}

fn message(text: bool, payload: &[u8], on_event: &mut impl FnMut(Event<'_>) -> bool) -> Result<bool, Violation> {
    if !text {
        return Ok(on_event(Event::Binary(payload)));
    }
    let text = std::str::from_utf8(payload).map_err(|_| Violation::NotUtf8)?;
    Ok(on_event(Event::Text(text)))
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Protocol),
        [high, low, reason @ ..] => {
            std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            match u16::from_be_bytes([*high, *low]) {
                code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
                _ => Err(Violation::Protocol),
            }
        }
    }
}

#[derive(Debug)]
struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Of the header itself.
    bytes: usize,
    /// Of the payload.
    length: usize,
}

impl Header {
    /// `None` while it is incomplete.
    fn parse(buffer: &[u8]) -> Result<Option<Self>, Violation> {
        let Some((&[first, second], rest)) = buffer.split_first_chunk::<2>() else { return Ok(None) };
        let (fin, opcode) = (first & FIN != 0, first & 0x0F);
        let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        if first & RESERVED != 0 || !known || second & MASKED == 0 {
            return Err(Violation::Protocol);
        }
        let (length, rest) = match second & !MASKED {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            length => (u64::from(length), rest),
        };
        let control = matches!(opcode, CLOSE | PING | PONG);
        if control && (!fin || length > CONTROL_BYTES_MAX as u64) {
            return Err(Violation::Protocol);
        }
        let length = usize::try_from(length).ok().filter(|&l| l <= MESSAGE_BYTES_MAX).ok_or(Violation::TooBig)?;
        let Some((&mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { fin, opcode, mask, bytes: buffer.len() - rest.len(), length }))
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x6d, 0xb6, 0xb2, 0x80];

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ ..=125 => bytes.push(MASKED | u8::try_from(length).unwrap()),
            length @ ..=65_535 => {
                bytes.push(MASKED | 0x7E);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(MASKED | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// What was read, in words, and how it ended.
    fn read(pieces: &[&[u8]]) -> (Vec<String>, Result<(), Violation>) {
        let (mut reader, mut events) = (Reader::default(), vec![]);
        for piece in pieces {
            let outcome = reader.read(&mut piece.to_vec(), |event| {
                events.push(match event {
                    Event::Text(text) if text.len() > 20 => format!("text of {}", text.len()),
                    other => format!("{other:?}"),
                });
                true
            });
            if outcome.is_err() {
                return (events, outcome);
            }
        }
        (events, Ok(()))
    }

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let stream = [
            masked(FIN | TEXT, b"one"),
            masked(FIN | PING, b"p"),
            masked(FIN | TEXT, &[b'x'; 300]),
            masked(FIN | TEXT, &vec![b'y'; 70_000]),
            masked(FIN | BINARY, b"\x00"),
        ]
        .concat();
        let whole = read(&[&stream]).0;
        assert_eq!(whole, ["Text(\"one\")", "Ping([112])", "text of 300", "text of 70000", "Binary([0])"]);
        for cut in (0..400).chain([stream.len() - 9, stream.len() - 1]) {
            assert_eq!(read(&[&stream[..cut], &stream[cut..]]).0, whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream[..500].chunks(1).collect();
        assert_eq!(read(&bytes).0, whole[..3]);
    }

    #[test]
    fn nothing_is_kept_between_whole_frames() {
        let mut reader = Reader::default();
        let frame = masked(FIN | TEXT, b"hello");
        reader.read(&mut frame[..4].to_vec(), |_| true).unwrap();
        reader.read(&mut frame[4..].to_vec(), |_| true).unwrap();
        assert_eq!((reader.partial.capacity(), reader.fragments.is_none()), (0, true));
    }

    #[test]
    fn fragments_become_one_message_with_control_frames_between() {
        let (first, second) = "ü-ber".as_bytes().split_at(1);
        let stream =
            [masked(TEXT, first), masked(FIN | PONG, b""), masked(CONTINUATION, second), masked(FIN, b"!")].concat();
        assert_eq!(read(&[&stream]).0, ["Pong", "Text(\"ü-ber!\")"]);
    }

    #[test]
    fn what_breaks_the_protocol_ends_the_connection_with_its_code() {
        let unmasked = [FIN | TEXT, 1, b'x'];
        let too_long = [&[FIN | TEXT, MASKED | 127][..], &(MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes()].concat();
        let huge = [&[FIN | BINARY, MASKED | 127][..], &u64::MAX.to_be_bytes()].concat();
        let fragments = [masked(TEXT, &vec![b'x'; 70_000]), masked(CONTINUATION, &vec![b'x'; 70_000])].concat();
        for (stream, violation) in [
            (unmasked.to_vec(), Violation::Protocol),
            (masked(FIN | 0x3, b""), Violation::Protocol),
            (masked(FIN | 0x40 | TEXT, b""), Violation::Protocol),
            (masked(FIN, b"no beginning"), Violation::Protocol),
            ([masked(TEXT, b"a"), masked(FIN | TEXT, b"b")].concat(), Violation::Protocol),
            (masked(PING, b"fragmented"), Violation::Protocol),
            (masked(FIN | PING, &[0; 126]), Violation::Protocol),
            (masked(FIN | CLOSE, &[3]), Violation::Protocol),
            (masked(FIN | CLOSE, &1005_u16.to_be_bytes()), Violation::Protocol),
            (masked(FIN | TEXT, b"\xff\xfe"), Violation::NotUtf8),
            (too_long, Violation::TooBig),
            (huge, Violation::TooBig),
            (fragments, Violation::TooBig),
        ] {
            assert_eq!(read(&[&stream]).1, Err(violation), "{:?}", &stream[..stream.len().min(12)]);
        }
    }

    #[test]
    fn after_a_close_nothing_is_read() {
        let stream = [masked(FIN | CLOSE, b"\x03\xe8bye"), masked(FIN | TEXT, b"late")].concat();
        assert_eq!(read(&[&stream]), (vec!["Close(Some(1000))".to_owned()], Ok(())));
        assert_eq!(read(&[&masked(FIN | CLOSE, b"")]).0, ["Close(None)"]);
    }

    #[test]
    fn written_frames_have_the_shortest_header() {
        assert_eq!(&text("hi")[..], b"\x81\x02hi");
        assert_eq!(text(&"x".repeat(126))[..4], [0x81, 126, 0, 126]);
        assert_eq!(text(&"x".repeat(65_536))[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(&close(Some(1012), "bye")[..], b"\x88\x05\x03\xf4bye");
        assert_eq!(&close(None, "")[..], b"\x88\x00");
    }
}
