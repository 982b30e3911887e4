//! What goes over the two connections of a pair: messages over one, signs of life and reasons over the other.

use std::io::{Error, ErrorKind, Read, Result, Write};

use serde::{Deserialize, Serialize};

use super::seat::Peer;
use crate::comm::Tag;

/// First bytes of every frame: what is no frame is seen at once.
const MAGIC: u32 = u32::from_le_bytes(*b"qlF1");
/// Most that a frame of the control connection holds.
const WORDS: u32 = 1 << 20;
/// Memory is taken piece by piece as bytes come, so that a wrong length takes none.
const PIECE: usize = 1 << 20;

/// Writes one message.
pub(super) fn write_message(to: &mut impl Write, tag: Tag, message: &[u8]) -> Result<()> {
    let mut head = [0u8; 16];
    head[..4].copy_from_slice(&MAGIC.to_le_bytes());
    head[4..8].copy_from_slice(&tag.0.to_le_bytes());
    head[8..].copy_from_slice(&(message.len() as u64).to_le_bytes());
    to.write_all(&head)?;
    to.write_all(message)
}

/// Reads one message of at most `limit` bytes; `None` where the other side ended between two of them.
pub(super) fn read_message(from: &mut impl Read, limit: u64) -> Result<Option<(Tag, Vec<u8>)>> {
    let mut head = [0u8; 16];
    if !read_or_end(from, &mut head)? {
        return Ok(None);
    }
    let [magic, tag] =
        [0, 4].map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let mut length = [0u8; 8];
    length.copy_from_slice(&head[8..]);
    let length = u64::from_le_bytes(length);
    if magic != MAGIC {
        return Err(invalid("it sent what is no message"));
    }
    if length > limit {
        return Err(invalid(format!("it announced a message of {length} bytes, and {limit} are allowed")));
    }
    let mut message = Vec::new();
    let mut left = length as usize;
    while left > 0 {
        let piece = left.min(PIECE);
        let begin = message.len();
        message.resize(begin + piece, 0);
        from.read_exact(&mut message[begin..])?;
        left -= piece;
    }
    Ok(Some((Tag(tag), message)))
}

/// What ranks tell each other beside their messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It lives.
    Alive,
    /// It gives up, and why.
    Abort(qlaunch_shared::Error),
    /// It is done.
    Bye,
    /// Who is where: rank 0 says so when all have come.
    Roster(Vec<Place>),
}

/// Where a rank listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) peer: Peer,
    pub(super) address: std::net::SocketAddr,
}

/// Writes one word.
pub(super) fn write_word(to: &mut impl Write, word: &Word) -> Result<()> {
    let text = serde_json::to_vec(word)?;
    write_text(to, &text)
}

/// Reads one word; `None` where the other side ended between two of them.
pub(super) fn read_word(from: &mut impl Read) -> Result<Option<Word>> {
    let Some(text) = read_text(from, WORDS)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|_| invalid("it said what nobody understands"))
}

/// Writes a text behind its length.
pub(super) fn write_text(to: &mut impl Write, text: &[u8]) -> Result<()> {
    let mut whole = Vec::with_capacity(4 + text.len());
    whole.extend((text.len() as u32).to_le_bytes());
    whole.extend(text);
    to.write_all(&whole)
}

/// Reads a text of at most `limit` bytes.
pub(super) fn read_text(from: &mut impl Read, limit: u32) -> Result<Option<Vec<u8>>> {
    let mut length = [0u8; 4];
    if !read_or_end(from, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length);
    if length > limit {
        return Err(invalid(format!("it announced {length} bytes of text, and {limit} are allowed")));
    }
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text)?;
    Ok(Some(text))
}

/// Fills the buffer; false where nothing at all came before the end.
fn read_or_end(from: &mut impl Read, buffer: &mut [u8]) -> Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(more) => filled += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, why.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_that_is_too_large_takes_no_memory() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, Tag(7), &[1, 2, 3]).unwrap();
        bytes[8..16].copy_from_slice(&(1u64 << 60).to_le_bytes());
        let error = read_message(&mut &bytes[..], 1 << 20).unwrap_err();
        assert!(error.to_string().contains("1152921504606846976 bytes"), "{error}");
        bytes[8..16].copy_from_slice(&(1u64 << 40).to_le_bytes());
        let error = read_message(&mut &bytes[..], 1 << 50).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in proptest::collection::vec((any::<u32>(), proptest::collection::vec(any::<u8>(), 0..5000)), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (tag, message) in &messages {
                write_message(&mut bytes, Tag(*tag), message).unwrap();
            }
            let mut from = &bytes[..];
            for (tag, message) in &messages {
                let (other, read) = read_message(&mut from, 5000).unwrap().unwrap();
                prop_assert_eq!((other.0, &read), (*tag, message));
            }
            prop_assert!(read_message(&mut from, 5000).unwrap().is_none());
        }

        #[test]
        fn a_stream_that_is_cut_anywhere_is_an_end_or_an_error(
            message in proptest::collection::vec(any::<u8>(), 1..300),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            write_message(&mut bytes, Tag(1), &message).unwrap();
            let cut = cut.index(bytes.len());
            match read_message(&mut &bytes[..cut], 1 << 20) {
                Ok(None) => prop_assert_eq!(cut, 0),
                Ok(Some(_)) => prop_assert!(false, "a message of {} bytes came whole out of {cut}", bytes.len()),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
            }
        }

        #[test]
        fn garbage_is_never_a_word_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_message(&mut &bytes[..], 1 << 20);
            if let Ok(Some(word)) = read_word(&mut &bytes[..]) {
                let mut again = Vec::new();
                write_word(&mut again, &word).unwrap();
                prop_assert_eq!(read_word(&mut &again[..]).unwrap(), Some(word));
            }
        }
    }
}
