//! The sandbox as Linux has it: prctl(2), capset(2), Landlock.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::{Extent, SandboxError, Writable, directory_of, program};

/// Landlock with the right to truncate: the one after it is about ports, which stay free.
const LANDLOCK: ABI = ABI::V3;

/// To listen on ports below 1024, also on those that a reload brings.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// How much of it holds, and whether capabilities are gone.
pub(super) fn enter(
    writable: &Writable,
    programs: &[PathBuf],
) -> Result<(Extent, bool), SandboxError> {
    no_core_files()?;
    set_no_new_privs(true).map_err(refused("no new privileges"))?;
    let has_dropped = drop_capabilities().map_err(refused("the capabilities"))?;
    let extent = limit_files(writable, programs)?;
    // Last, as a change of credentials may take it back (prctl(2), PR_SET_DUMPABLE).
    not_dumpable()?;
    Ok((extent, has_dropped))
}

/// What a sandbox begins and ends with, alone.
pub(super) fn no_dumps() -> Result<(), SandboxError> {
    no_core_files()?;
    not_dumpable()
}

fn no_core_files() -> Result<(), SandboxError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(refused("the limit of core dumps"))
}

/// The limit of core dumps does not count where core_pattern is a pipe (core(5)), as to systemd-coredump; this does.
fn not_dumpable() -> Result<(), SandboxError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("no dumps at all"))
}

/// What Landlock does to a thread, found out by one that does nothing else: those that do not come from it stay free.
pub(super) fn possible() -> Extent {
    let limited = std::thread::spawn(|| limit_files(&Writable::default(), &[]));
    match limited.join() {
        Ok(Ok(extent)) => extent,
        Ok(Err(_)) | Err(_) => Extent::ButFiles,
    }
}

fn refused(step: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |error| SandboxError::System {
        step,
        error: io::Error::from(error),
    }
}

/// Drops every capability but one, in all five sets (capabilities(7)), and tells whether one was there that is gone.
fn drop_capabilities() -> Result<bool, Errno> {
    let before = capabilities(None)?;
    // An ordinary user may not touch the bounding set, and without new privileges nothing comes out of it any more.
    if before.effective.contains(CapabilitySet::SETPCAP) {
        // By number, not by name: a kernel may have more than have names here.
        let all = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
        for capability in all.filter(|capability| *capability != KEPT) {
            match capability_is_in_bounding_set(capability) {
                Ok(true) => remove_capability_from_bounding_set(capability)?,
                Ok(false) => {}
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error),
            }
        }
    }
    clear_ambient_capability_set()?;
    let kept = before.permitted & KEPT;
    let wanted = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    // Who has none need not be let use capset(2): a filter of system calls may forbid it.
    if before != wanted {
        set_capabilities(None, wanted)?;
    }
    Ok(!(before.permitted - KEPT).is_empty())
}

/// Limits writing and executing, as far as the kernel can.
fn limit_files(writable: &Writable, programs: &[PathBuf]) -> Result<Extent, SandboxError> {
    let files = AccessFs::from_write(LANDLOCK);
    let sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
    let mut ruleset = Ruleset::default()
        // Landlock's first version forbids to move a file into another directory, whatever the rules say: rather none
        // than one in which nothing could be moved from folder to folder beneath `state_dir`.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)
        .and_then(|ruleset| {
            ruleset
                .set_compatibility(CompatLevel::BestEffort)
                .handle_access(files | AccessFs::Execute)
        })
        .and_then(Ruleset::create)
        .map_err(|error| SandboxError::Landlock(error.to_string()))?;
    for folder in &writable.files {
        ruleset = permit(ruleset, folder, files)?;
    }
    for socket in &writable.sockets {
        ruleset = permit(ruleset, directory_of(socket), sockets)?;
    }
    for file in programs.iter().flat_map(|path| program::started_by(path)) {
        // One that is not there now is another when it is.
        if file.is_file() {
            ruleset = permit(ruleset, &file, AccessFs::Execute.into())?;
        }
    }
    let restricted = ruleset.restrict_self();
    let restricted = restricted.map_err(|error| SandboxError::Landlock(error.to_string()))?;
    Ok(match restricted.ruleset {
        RulesetStatus::FullyEnforced => Extent::Whole,
        RulesetStatus::PartiallyEnforced => Extent::ButTruncation,
        RulesetStatus::NotEnforced => Extent::ButFiles,
    })
}

fn permit(
    ruleset: RulesetCreated,
    folder: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    let directory = |reason: String| SandboxError::Directory {
        path: folder.to_owned(),
        reason,
    };
    let opened = PathFd::new(folder).map_err(|error| directory(error.to_string()))?;
    let rule = PathBeneath::new(opened, access);
    ruleset
        .add_rule(rule)
        .map_err(|error| directory(error.to_string()))
}
