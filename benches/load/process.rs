//! What processes have used, as Linux counts it.

use std::fs;

use anyhow::Context;

/// A process and all that descend from it: some servers have a process that works and one that watches it.
pub(crate) fn family(eldest: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has ended meanwhile is of no family.
        if let Some(parent) = stat(process).and_then(|stat| stat.parent) {
            parents.push((process, parent));
        }
    }
    let mut found = vec![eldest];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, its)| *its == parent);
        found.extend(children.map(|(child, _)| *child));
        next += 1;
    }
    Ok(found)
}

/// CPU time of these processes, in seconds.
pub(crate) fn cpu(processes: &[u32]) -> anyhow::Result<f64> {
    let used = processes.iter().map(|&process| cpu_of_one(process));
    used.sum::<anyhow::Result<u64>>().map(seconds)
}

/// The threads that live count in nanoseconds. Those that have ended are counted by the process alone, in 10 ms: where it
/// has counted more, there were such.
fn cpu_of_one(process: u32) -> anyhow::Result<u64> {
    let mut living = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let used = stat.split(' ').next().and_then(|used| used.parse().ok());
        living += used.unwrap_or(0_u64);
    }
    let stat = stat(process).context("a process has ended")?;
    Ok(living.max(stat.nanoseconds))
}

/// CPU time of the whole machine, in seconds.
pub(crate) fn machine() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&at| ticks.get(at));
    Ok(seconds(busy.sum::<u64>() * TICK))
}

/// Memory of these processes in KiB: their own, and their part of what they share.
pub(crate) fn memory(processes: &[u32]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for process in processes {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = pss.and_then(|pss| pss.split_whitespace().next());
        sum += number
            .context("smaps_rollup tells no Pss")?
            .parse::<f64>()?;
    }
    Ok(sum)
}

/// Nanoseconds in a tick, which is 10 ms on every Linux there is (USER_HZ).
const TICK: u64 = 10_000_000;

/// What /proc/PID/stat says.
struct Stat {
    parent: Option<u32>,
    /// CPU time of the threads that live and of those that have ended.
    nanoseconds: u64,
}

fn stat(process: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything; what follows are numbers, but for one letter.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some(Stat {
        parent: fields.get(1).and_then(|field| field.parse().ok()),
        nanoseconds: (ticks(11)? + ticks(12)?) * TICK,
    })
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}
