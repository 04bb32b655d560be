//! WebSocket frames (RFC 6455) as a client counts them: headers are read, payloads are only pointed at.

/// Frames beyond this end the measurement: nothing that is measured is near it, so it is a broken stream.
pub(crate) const FRAME_BYTES_MAX: usize = 128 * 1024;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// The length follows, in so many bytes.
const LENGTH_IN_2: u8 = 0x7E;
const LENGTH_IN_8: u8 = 0x7F;
const TEXT: u8 = 0x1;
const PONG: u8 = 0xA;
/// Constant: it is there to protect proxies, of which there are none here.
const MASK: [u8; 4] = [0x6d, 0xb6, 0xb2, 0x80];
/// Sent by the server when it ends the connection; the payload begins with a code.
pub(crate) const CLOSE: u8 = 0x8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes, more than {FRAME_BYTES_MAX}: the stream is broken")]
pub(crate) struct TooLarge(u64);

/// Calls `on_frame(opcode, payload)` for each whole frame; answers how many bytes they took.
pub(crate) fn scan(buffer: &[u8], mut on_frame: impl FnMut(u8, &[u8])) -> Result<usize, TooLarge> {
    let mut used = 0;
    while let Some((opcode, header, length)) = header(&buffer[used..])? {
        let start = used + header;
        let Some(payload) = buffer.get(start..start + length) else { break };
        on_frame(opcode, payload);
        used = start + length;
    }
    Ok(used)
}

/// Opcode, bytes of the header, bytes of the payload; `None` while the header is incomplete.
fn header(buffer: &[u8]) -> Result<Option<(u8, usize, usize)>, TooLarge> {
    let Some((&[first, second], rest)) = buffer.split_first_chunk::<2>() else { return Ok(None) };
    let (header, length) = match second & !MASKED {
        LENGTH_IN_2 => match rest.first_chunk::<2>() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        LENGTH_IN_8 => match rest.first_chunk::<8>() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        length => (2, u64::from(length)),
    };
    match usize::try_from(length) {
        Ok(length) if length <= FRAME_BYTES_MAX => Ok(Some((first & 0x0F, header, length))),
        _ => Err(TooLarge(length)),
    }
}

/// A text frame as a server sends it.
pub(crate) fn from_server(text: &str) -> Vec<u8> {
    let mut frame = begin(text.len(), 0);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A text frame as a client sends it.
pub(crate) fn from_client(text: &str) -> Vec<u8> {
    let mut frame = begin(text.len(), MASKED);
    frame.extend_from_slice(&MASK);
    frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What a client sends that is there and has nothing to say.
pub(crate) fn pong() -> Vec<u8> {
    let mut frame = vec![FIN | PONG, MASKED];
    frame.extend_from_slice(&MASK);
    frame
}

fn begin(length: usize, masked: u8) -> Vec<u8> {
    let mut frame = vec![FIN | TEXT];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => frame.push(masked | length),
        (_, Ok(length)) => {
            frame.push(masked | LENGTH_IN_2);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(masked | LENGTH_IN_8);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(buffer: &[u8]) -> (usize, Vec<usize>) {
        let mut lengths = Vec::new();
        let used = scan(buffer, |opcode, payload| {
            assert_eq!(opcode, TEXT);
            lengths.push(payload.len());
        });
        (used.unwrap(), lengths)
    }

    #[test]
    fn every_form_of_length_is_read() {
        let stream: Vec<u8> = [0, 125, 126, 65_535, 65_536].map(|n| from_server(&"a".repeat(n))).concat();
        assert_eq!(scanned(&stream), (stream.len(), vec![0, 125, 126, 65_535, 65_536]));
    }

    #[test]
    fn a_cut_frame_waits_for_its_rest_wherever_it_is_cut() {
        let whole = from_server(&"a".repeat(300));
        let stream = [whole.clone(), whole.clone()].concat();
        for cut in 0..whole.len() {
            assert_eq!(scanned(&stream[..whole.len() + cut]), (whole.len(), vec![300]), "cut at {cut}");
        }
    }

    #[test]
    fn a_broken_length_is_refused_before_it_is_waited_for() {
        assert_eq!(scan(&[0x81, 127, 0xFF, 0, 0, 0, 0, 0, 0, 0], |_, _| ()), Err(TooLarge(0xFF << 56)));
    }

    #[test]
    fn a_client_frame_unmasks_to_its_text() {
        let frame = from_client("hello");
        assert_eq!(&frame[..2], &[0x81, 0x85]);
        let text: Vec<u8> = frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(b, m)| b ^ m).collect();
        assert_eq!(text, b"hello");
    }
}
