//! The gateway's process seen from outside: memory, descriptors, processor time, and what it counts.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use crate::gateway::ask;

/// Resident memory in KiB.
pub(crate) fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}

/// Processor time of all its threads so far, in nanoseconds.
pub(crate) fn cpu(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let used = threads.map(|thread| {
        let path = thread.unwrap().path().join("schedstat");
        // One that has ended meanwhile is not counted.
        let stat = fs::read_to_string(path).unwrap_or_default();
        stat.split(' ').next().unwrap().parse().unwrap_or(0)
    });
    used.sum()
}

/// How many descriptors there are of each kind: `socket`, `pipe`, `anon_inode` and so on.
pub(crate) fn descriptors(process: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for file in fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
        // One that is closed in between is none.
        let Ok(target) = fs::read_link(file.unwrap().path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        let kind = target.split(":[").next().unwrap().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// What the gateway's metrics say.
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) async fn ask(admin: SocketAddr) -> Self {
        let (status, text) = ask(admin, "/metrics").await;
        assert_eq!(status, 200);
        Self(text)
    }

    /// The sum of all samples of this name whose labels contain these words.
    pub(crate) fn sum(&self, name: &str, labels: &str) -> u64 {
        let samples = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = rest.rsplit_once(' ')?;
            let fits = found.starts_with('{') && found.contains(labels);
            fits.then(|| value.parse::<u64>().unwrap())
        });
        samples.sum()
    }
}
