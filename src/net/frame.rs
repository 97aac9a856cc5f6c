//! The status frame of ALPN `portcullis/1`: what a gateway says, once, between its handshake and the first byte it relays.

use std::fmt;

use crate::reason::Reason;

/// The first byte. Another form of the frame would be another protocol, with an ALPN of its own.
const VERSION: u8 = 1;
const OK: u8 = 0;
const FAILED: u8 = 1;

/// The longest word of a reason, in bytes: twice as long as any of ours.
const WORD: usize = 64;

/// The longest text, in bytes: its length is one byte.
const TEXT: usize = 255;

/// What became of the dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The upstream is there; its bytes follow.
    Ok,
    /// It is not; nothing follows.
    Failed(Refusal),
}

/// Why a gateway has no way to what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({word})")]
pub struct Refusal {
    word: String,
    text: String,
}

/// What is no status frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Its first byte is not ours.
    #[error("a status frame of version {0}")]
    Version(u8),
    /// It says neither that all is well nor that it is not.
    #[error("a status frame of kind {0}")]
    Kind(u8),
    /// Its reason is not a word of 1 to 64 letters and `_`.
    #[error("a status frame without a word for its reason")]
    Word,
    /// Its text is not UTF-8, or would command a terminal.
    #[error("a status frame whose text is none")]
    Text,
}

impl Frame {
    /// As it is sent: at most 323 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Self::Failed(Refusal { word, text }) = self else {
            return vec![VERSION, OK];
        };
        let mut bytes = vec![VERSION, FAILED];
        for part in [word, text] {
            // Neither is longer: `Refusal` is made in two places, and both see to it.
            bytes.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

impl Refusal {
    /// A reason, and a text without control characters; of a longer one than 255 bytes the beginning.
    pub fn new(reason: Reason, text: &str) -> Self {
        let mut shorter = (0..=text.len().min(TEXT)).rev();
        let cut = shorter.find_map(|end| text.get(..end)).unwrap_or_default();
        Self {
            word: reason.as_str().to_owned(),
            text: cut.replace(char::is_control, " "),
        }
    }

    /// The reason, if it is one that is known here; a newer gateway may have others.
    pub fn reason(&self) -> Option<Reason> {
        let mut all = Reason::ALL.iter();
        all.find(|reason| reason.as_str() == self.word).copied()
    }

    /// The reason's word: letters in lower case and `_`.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// What the gateway says of it, for a person.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Reads a frame as it comes, piece by piece. It keeps no more than a frame has.
#[derive(Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes what came: the frame, once it is whole, and how many of these bytes belong to it. The others are the upstream's.
    ///
    /// # Errors
    /// At the first byte that no frame has there; nothing that comes after it means anything.
    pub fn take(&mut self, came: &[u8]) -> Result<(Option<Frame>, usize), FrameError> {
        for (before, byte) in came.iter().enumerate() {
            self.bytes.push(*byte);
            if let Some(frame) = parse(&self.bytes)? {
                return Ok((Some(frame), before + 1));
            }
        }
        Ok((None, came.len()))
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} bytes)", self.bytes.len())
    }
}

/// A whole frame, or none yet.
fn parse(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let rest = match bytes {
        [] | [VERSION] => return Ok(None),
        [VERSION, OK, ..] => return Ok(Some(Frame::Ok)),
        [VERSION, FAILED, rest @ ..] => rest,
        [VERSION, kind, ..] => return Err(FrameError::Kind(*kind)),
        [version, ..] => return Err(FrameError::Version(*version)),
    };
    let Some((word, rest)) = part(rest) else {
        return Ok(None);
    };
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
    if !(1..=WORD).contains(&word.length) || !word.came.iter().all(is_letter) {
        return Err(FrameError::Word);
    }
    let Some((text, _)) = part(rest).filter(|(text, _)| text.is_whole()) else {
        return Ok(None);
    };
    let text = str::from_utf8(text.came).map_err(|_| FrameError::Text)?;
    if text.contains(char::is_control) {
        return Err(FrameError::Text);
    }
    Ok(Some(Frame::Failed(Refusal {
        word: String::from_utf8_lossy(word.came).into_owned(),
        text: text.to_owned(),
    })))
}

/// A length in one byte, and so many bytes as have come of what it counts.
struct Part<'a> {
    length: usize,
    came: &'a [u8],
}

impl Part<'_> {
    fn is_whole(&self) -> bool {
        self.came.len() == self.length
    }
}

/// A part and what follows on it; `None` where not even its length has come.
fn part(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    let (came, rest) = rest.split_at(length.min(rest.len()));
    Some((Part { length, came }, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(reason: Reason, text: &str) -> Frame {
        Frame::Failed(Refusal::new(reason, text))
    }

    /// The frame in these bytes, and what is left of them.
    fn decode(bytes: &[u8]) -> Result<(Option<Frame>, &[u8]), FrameError> {
        let (frame, taken) = Decoder::default().take(bytes)?;
        Ok((frame, &bytes[taken..]))
    }

    #[test]
    fn a_frame_is_these_bytes() {
        assert_eq!(Frame::Ok.encode(), [1, 0]);
        assert_eq!(
            failed(Reason::DialFailed, "no").encode(),
            b"\x01\x01\x0bdial_failed\x02no"
        );
        assert_eq!(
            failed(Reason::Shortage, "").encode(),
            b"\x01\x01\x08shortage\0"
        );
    }

    #[test]
    fn every_reason_can_be_told_and_is_known_again() {
        for reason in Reason::ALL {
            let bytes = failed(*reason, "so it is").encode();
            let (Some(Frame::Failed(told)), []) = decode(&bytes).unwrap() else {
                panic!("{reason}");
            };
            assert_eq!((told.reason(), told.text()), (Some(*reason), "so it is"));
        }
        let newer = b"\x01\x01\x05newer\x03why";
        let (Some(Frame::Failed(told)), []) = decode(newer).unwrap() else {
            panic!("a newer gateway's");
        };
        assert_eq!((told.reason(), told.word()), (None, "newer"));
    }

    #[test]
    fn what_is_no_frame_is_refused_at_the_first_byte_that_shows_it() {
        for (bytes, error) in [
            (&b"SSH-2.0"[..], FrameError::Version(b'S')),
            (&[0], FrameError::Version(0)),
            (&[1, 2], FrameError::Kind(2)),
            (&[1, 1, 0], FrameError::Word),
            (&[1, 1, 65], FrameError::Word),
            (b"\x01\x01\x04A", FrameError::Word),
            (b"\x01\x01\x01 ", FrameError::Word),
            (b"\x01\x01\x01a\x01\x1b", FrameError::Text),
            (b"\x01\x01\x01a\x01\xff", FrameError::Text),
        ] {
            assert_eq!(decode(bytes).unwrap_err(), error, "{bytes:?}");
            let before = &bytes[..bytes.len() - 1];
            if error != FrameError::Version(b'S') {
                assert_eq!(decode(before), Ok((None, &[][..])), "{before:?}");
            }
        }
    }

    #[test]
    fn a_text_is_cut_where_a_character_ends_and_holds_nothing_that_commands_a_terminal() {
        let long = format!("{}\u{e4}", "x".repeat(254));
        let told = Refusal::new(Reason::Internal, &long);
        assert_eq!(told.text().len(), 254);
        let told = Refusal::new(Reason::Internal, "a\u{1b}[2J\nb");
        assert_eq!(told.text(), "a [2J b");
    }

    proptest! {
        #[test]
        fn a_frame_comes_through_whole_however_it_is_cut_and_takes_no_byte_behind_it(
            reason in proptest::sample::select(Reason::ALL),
            text in "\\PC{0,100}",
            is_ok: bool,
            behind in proptest::collection::vec(any::<u8>(), 0..20),
            cuts in proptest::collection::vec(1_usize..40, 1..30),
        ) {
            let frame = if is_ok { Frame::Ok } else { failed(reason, &text) };
            let mut bytes = frame.encode();
            bytes.extend_from_slice(&behind);
            let (mut decoder, mut at, mut cuts) = (Decoder::default(), 0, cuts.iter().cycle());
            let decoded = loop {
                let end = (at + cuts.next().unwrap()).min(bytes.len());
                let (frame, taken) = decoder.take(&bytes[at..end]).unwrap();
                at += taken;
                match frame {
                    Some(frame) => break frame,
                    None => prop_assert_eq!(at, end),
                }
            };
            prop_assert_eq!(decoded, frame);
            prop_assert_eq!(&bytes[at..], &behind[..]);
        }

        #[test]
        fn any_bytes_are_a_frame_or_refused_or_waited_for_within_the_longest(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut decoder = Decoder::default();
            if let Ok((frame, taken)) = decoder.take(&bytes) {
                prop_assert!(taken <= 323);
                prop_assert!(frame.is_some() || taken == bytes.len());
                if let Some(frame) = frame {
                    prop_assert_eq!(&frame.encode()[..], &bytes[..taken]);
                }
            }
        }
    }
}
