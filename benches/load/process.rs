//! What a process has used, as Linux counts it.

use std::fs;

use anyhow::Context;

/// CPU time of the threads that live, in seconds; counted in nanoseconds, where `utime` and `stime` count in 10 ms.
pub(crate) fn cpu(process: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // One that has ended meanwhile is not counted.
        let stat = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let used = stat.split(' ').next().and_then(|used| used.parse().ok());
        nanoseconds += used.unwrap_or(0_u64);
    }
    Ok(seconds(nanoseconds))
}

/// CPU time of the whole machine, in seconds.
pub(crate) fn machine() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms on every Linux there is (USER_HZ).
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&at| ticks.get(at));
    Ok(seconds(busy.sum::<u64>() * 10_000_000))
}

/// Memory in KiB: its own, and its part of what it shares.
pub(crate) fn memory(process: u32) -> anyhow::Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = pss.and_then(|pss| pss.split_whitespace().next());
    Ok(number.context("smaps_rollup tells no Pss")?.parse()?)
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}
