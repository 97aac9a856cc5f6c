//! How many connections the open files that the system allows have room for.

use rustix::process::{Resource, getrlimit};

use crate::config::Limits;

/// Descriptors of a connection: the client's and the upstream's.
const EACH: u64 = 2;

/// What is kept for everything else: an eighth, at least 24 and at most 2,048.
///
/// 24: two listeners, the runtime, the log, the admin interface and Consul. 2,048: the 512 that the kernel moves bytes
/// through, and a thousand services of Consul, each of which is watched by a connection of its own.
const RESERVE: (u64, u64) = (24, 2048);

/// A limit on connections that the open files have no room for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`limits.connections` allows {max}, and {files} open files (RLIMIT_NOFILE) have room for {room}: write max = \"auto\", \
     or raise the limit of open files to {needed} (LimitNOFILE= in systemd, `ulimit -Hn`)"
)]
pub struct NoRoom {
    max: usize,
    files: u64,
    room: usize,
    needed: u64,
}

/// The limit of open files as it is; `None` is none.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// As far as that limit can be raised without a privilege; `None` is no end.
pub fn highest_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// How many connections so many open files have room for: at least one.
pub fn room(files: Option<u64>) -> usize {
    let Some(files) = files else {
        return usize::MAX;
    };
    let connections = files.saturating_sub(reserve(files)) / EACH;
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

/// Whether so many open files have room for as many connections as are allowed in.
///
/// # Errors
/// They have not, and nobody would be refused before they run out. One that only counts promises nothing.
pub fn suffice(limits: &Limits, files: Option<u64>) -> Result<(), NoRoom> {
    let (Some(max), Some(files)) = (limits.connections.max, files) else {
        return Ok(());
    };
    let room = room(Some(files));
    if max <= room || !limits.connections.enforce {
        return Ok(());
    }
    let connections = u64::try_from(max).unwrap_or(u64::MAX).saturating_mul(EACH);
    let (least, most) = RESERVE;
    // A reserve of an eighth of the whole is a seventh of the rest.
    let reserve = connections.div_ceil(7).clamp(least, most);
    Err(NoRoom {
        max,
        files,
        room,
        needed: connections.saturating_add(reserve),
    })
}

fn reserve(files: u64) -> u64 {
    let (least, most) = RESERVE;
    (files / 8).clamp(least, most)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Cap;

    fn allowing(max: usize) -> Limits {
        Limits {
            connections: Cap::of(max),
            ..Limits::default()
        }
    }

    #[test]
    fn connections_have_two_descriptors_each_beside_a_reserve() {
        assert_eq!(room(Some(64)), 20);
        assert_eq!(room(Some(1024)), 448);
        assert_eq!(room(Some(524_288)), 261_120);
        assert_eq!(room(None), usize::MAX);
        for few in 0..30 {
            assert!(room(Some(few)) >= 1, "a gateway that takes nobody");
        }
    }

    #[test]
    fn a_limit_without_room_says_how_many_open_files_it_needs() {
        for max in [1, 20, 21, 448, 449, 5000, 260_000, 10_000_000] {
            let error = suffice(&allowing(max), Some(30)).err();
            let needed = error.map_or(30, |error| error.needed);
            assert_eq!(suffice(&allowing(max), Some(needed)), Ok(()), "{max}");
            if needed > 30 {
                let error = suffice(&allowing(max), Some(needed - 8));
                assert!(error.is_err(), "{max} needs no {needed}");
            }
        }
        let text = suffice(&allowing(5000), Some(1024))
            .unwrap_err()
            .to_string();
        assert!(text.contains("allows 5000, and 1024 open files"), "{text}");
    }

    #[test]
    fn what_is_not_written_or_only_counts_needs_no_room() {
        assert_eq!(suffice(&Limits::default(), Some(64)), Ok(()));
        assert_eq!(suffice(&allowing(1_000_000), None), Ok(()));
        let mut counting = allowing(1_000_000);
        counting.connections.enforce = false;
        assert_eq!(suffice(&counting, Some(64)), Ok(()));
    }
}
