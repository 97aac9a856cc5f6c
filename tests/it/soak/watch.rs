//! The gateway's process seen from outside: memory, descriptors, processor time, and what it counts.

use std::collections::{BTreeMap, BTreeSet};
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

/// How many connections it has to this address.
pub(crate) fn connections(process: u32, to: SocketAddr) -> usize {
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    let own: BTreeSet<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            Some(inode.strip_suffix(']')?.to_owned())
        })
        .collect();
    // proc_pid_net(5): of the other end the port in hexadecimal; 01 is an established one.
    let port = format!(":{:04X}", to.port());
    let all = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let all = all
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    all.filter(|fields| fields[2].ends_with(&port) && fields[3] == "01" && own.contains(fields[9]))
        .count()
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
