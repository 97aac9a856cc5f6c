//! The sections of a PEM text, cut out as they stand there.

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// One section (RFC 7468 §2): a line that begins it, a body, and a line that ends it.
pub(super) struct Section<'a> {
    /// What stands in both lines, such as `CERTIFICATE`.
    pub(super) label: &'a [u8],
    /// What stands between them.
    pub(super) body: &'a [u8],
    /// All of it.
    pub(super) whole: &'a [u8],
}

/// What is wrong with a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Nothing ends it.
    NoEnd,
    /// The line that begins it is not as it must be.
    Begin,
    /// Its body is not base64.
    Base64,
    /// Anything else.
    Other,
}

/// Cuts a text into its sections, up to the first one that is malformed. What stands between them is passed over.
pub(super) fn sections(text: &[u8]) -> impl Iterator<Item = Result<Section<'_>, Malformed>> {
    let mut lines = lines(text);
    std::iter::from_fn(move || {
        let (start, rest) = lines.find_map(|(start, _, line)| {
            let rest = line.strip_prefix(b"-----BEGIN ")?;
            Some((start, rest))
        })?;
        let Some(label) = rest.strip_suffix(b"-----") else {
            lines.by_ref().for_each(drop);
            return Some(Err(Malformed::Begin));
        };
        let body = start + b"-----BEGIN -----".len() + label.len();
        let ended = lines.find(|(_, _, line)| {
            let rest = line.strip_prefix(b"-----END ");
            rest.and_then(|rest| rest.strip_suffix(b"-----")) == Some(label)
        });
        let Some((end, past, _)) = ended else {
            return Some(Err(Malformed::NoEnd));
        };
        Some(Ok(Section {
            label,
            body: text.get(body..end).unwrap_or_default(),
            whole: text.get(start..past).unwrap_or_default(),
        }))
    })
}

/// Where each line begins, where the next one does, and what stands in it but for blanks at its end. Lines end as on any
/// system; the body of a section may have blanks before and behind, its two lines behind.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, usize, &[u8])> {
    let mut at = 0;
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    text.split_inclusive(is_end).scan((), move |(), line| {
        let start = at;
        at += line.len();
        Some((start, at, line.trim_ascii_end()))
    })
}

impl Section<'_> {
    /// What its body holds, in memory that is overwritten when it is dropped.
    pub(super) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let mut text = Zeroizing::new(Vec::with_capacity(self.body.len()));
        let visible = self.body.iter().filter(|byte| !byte.is_ascii_whitespace());
        text.extend(visible.copied());
        let length = BASE64.decode_len(text.len());
        let mut der = Zeroizing::new(vec![0; length.map_err(|_| Malformed::Base64)?]);
        let decoded = BASE64.decode_mut(&text, &mut der);
        der.truncate(decoded.map_err(|_| Malformed::Base64)?);
        Ok(der)
    }
}
