"""The build that this one is compared with: the last release, or what comes nearest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "target" / "bench" / "base"

# What changes the program.
SOURCES = ["src", "Cargo.toml", "Cargo.lock"]


def chosen(wish):
    """The revision to compare with, and why it is that one."""
    if wish:
        return commit(wish), f"--base {wish}"
    tags = git("tag", "--list", "v*", "--sort", "-version:refname").split()
    if tags:
        return commit(tags[0]), f"the newest release, {tags[0]}"
    if git("diff", "--name-only", "HEAD", "--", *SOURCES):
        return commit("HEAD"), "HEAD, without what is not committed"
    common = git("merge-base", "HEAD", "origin/main", allowed=(0, 1, 128)).strip()
    if common and common != commit("HEAD"):
        return common, "where this branch left origin/main"
    latest = git("rev-list", "--max-count", "1", "HEAD", "--", *SOURCES).strip()
    return commit(f"{latest}~"), "before the latest change to the program"


def checked_out(revision):
    """A work tree of that revision. It is kept: only what has changed since the last time is built anew."""
    if FOLDER.exists() and f"worktree {FOLDER}" in git("worktree", "list", "--porcelain").splitlines():
        git("-C", FOLDER, "checkout", "--quiet", "--detach", revision)
    else:
        # A copy of another's target folder may hold one that is not ours; of ours, git may still know that there was one.
        shutil.rmtree(FOLDER, ignore_errors=True)
        git("worktree", "add", "--force", "--quiet", "--detach", FOLDER, revision)
    return FOLDER


def environment():
    """So that its parts do not replace ours."""
    return {**os.environ, "CARGO_TARGET_DIR": str(FOLDER / "target")}


def commit(revision):
    return git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", what=f"no commit is called `{revision}`").strip()


def git(*arguments, allowed=(0,), what=None):
    done = subprocess.run(["git", *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode not in allowed:
        sys.exit(f"error: {what or done.stderr.strip() or 'git ' + ' '.join(map(str, arguments)) + ' failed'}")
    return done.stdout if done.returncode == 0 else ""
