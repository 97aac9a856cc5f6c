//! From what is typed to what it means: every mistake at once, each with its place and its remedy.

use std::path::Path;

use super::{Config, Diagnostics};

/// A configuration that is good, with what an operator should still know.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// Warnings; never errors.
    pub warnings: Diagnostics,
}

/// Reads and checks a file; relative paths in it start at its folder.
pub fn load(path: &Path) -> Result<Checked, Diagnostics> {
    let _ = path;
    todo!()
}

/// Checks a text as if it stood in `path`, which need not exist.
pub fn parse(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    let _ = (text, path);
    todo!()
}
