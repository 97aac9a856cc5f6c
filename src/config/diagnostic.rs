//! One mistake, its place and its remedy, and how they are shown.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The configuration cannot be used.
    Error,
    /// It can, and probably does not do what was meant.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// The bytes of the file that are at fault; `None` when it is the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong, in lower case, naming the key.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// Everything that is wrong with one file, in the order of the file.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The file's path, as it was given.
    pub path: PathBuf,
    /// Its text; empty if it could not be read.
    pub text: String,
    /// What is wrong.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// As rustc would show them, with colours or without.
    pub fn render(&self, colour: bool) -> String {
        let _ = colour;
        todo!()
    }
}

/// Without colours.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
