//! What the decoder of the status frame promises, whatever a gateway says.

use portcullis::net::frame::{Decoder, Frame};

/// The longest frame there is, in bytes.
const LONGEST: usize = 323;

/// Decodes the input, all at once and byte by byte, and panics where a promise is not kept:
///
/// - both ways find the same, and take the same bytes for it;
/// - what is found is sent as it came, and holds nothing that commands a terminal;
/// - what no frame can be any more is refused: nothing longer is waited for.
pub(crate) fn run(input: &[u8]) {
    let at_once = Decoder::default().take(input);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{at_once:?}");
    }
    let mut decoder = Decoder::default();
    let mut in_pieces = Ok((None, input.len()));
    for (at, byte) in input.iter().enumerate() {
        match decoder.take(&[*byte]) {
            Ok((None, _)) => {}
            Ok((found, taken)) => {
                in_pieces = Ok((found, at + taken));
                break;
            }
            Err(error) => {
                in_pieces = Err(error);
                break;
            }
        }
    }
    assert_eq!(at_once, in_pieces);
    let Ok((found, taken)) = at_once else {
        return;
    };
    assert!(taken <= LONGEST, "{taken} bytes");
    if let Some(frame) = &found {
        assert_eq!(Some(&frame.encode()[..]), input.get(..taken));
    }
    if let Some(Frame::Failed(refusal)) = &found {
        let told = refusal.to_string();
        assert!(!told.contains(char::is_control), "{told:?}");
    }
}
