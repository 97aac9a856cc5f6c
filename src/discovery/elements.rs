//! The elements of a list in an answer, each read by itself as it comes: a broken one spoils no other.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Of services, nodes or checks. An answer of 64 MiB that makes sense holds fewer; one that holds more is a mistake that must not
/// take all memory.
pub(super) const MOST: usize = 200_000;

/// Of instances of one service: twice as many as are dialled.
pub(super) const MOST_OF_ONE: usize = 20_000;

/// What can be read of a list of at most `most` elements, or of a `null` in its place.
pub(super) fn each<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    most: usize,
    read: fn(&RawValue) -> Option<T>,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(Each {
        most,
        read,
        of: PhantomData,
    })
}

struct Each<T> {
    most: usize,
    read: fn(&RawValue) -> Option<T>,
    of: PhantomData<T>,
}

impl<'de, T> Visitor<'de> for Each<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        let mut count = 0;
        while let Some(raw) = elements.next_element::<Box<RawValue>>()? {
            count += 1;
            if count > self.most {
                return Err(A::Error::custom(too_many(self.most)));
            }
            all.extend((self.read)(&raw));
        }
        Ok(all)
    }
}

/// Why an answer with more elements is not taken.
pub(super) fn too_many(most: usize) -> String {
    format!("more than {most} elements")
}

/// One element.
pub(super) fn parse<T: DeserializeOwned>(raw: &RawValue) -> serde_json::Result<T> {
    serde_json::from_str(raw.get())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Numbers(#[serde(deserialize_with = "numbers")] Vec<u8>);

    fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        each(deserializer, 3, |raw| parse(raw).ok())
    }

    #[test]
    fn what_is_broken_is_left_out_and_what_is_too_long_is_refused() {
        for (text, numbers) in [
            ("null", &[] as &[u8]),
            ("[]", &[]),
            (r#"[1, "x", 3]"#, &[1, 3]),
        ] {
            assert_eq!(serde_json::from_str::<Numbers>(text).unwrap().0, numbers);
        }
        let error = serde_json::from_str::<Numbers>("[1, {}, 3, 4]").unwrap_err();
        assert!(
            error.to_string().starts_with("more than 3 elements"),
            "{error}"
        );
        assert!(serde_json::from_str::<Numbers>("{}").is_err());
    }
}
