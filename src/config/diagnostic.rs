//! One mistake, its place and its remedy, and how they are shown.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level as Title, Origin, Renderer, Snippet,
    normalize_untrusted_str,
};

use super::value::suggest;
use crate::tls::files::OwnCertificate;
use crate::tls::passphrase::Given;
use crate::watch::Files;

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
#[derive(Clone)]
pub struct Diagnostics {
    /// The file's path, as it was given.
    pub path: PathBuf,
    /// Its text; empty if it could not be read.
    pub text: String,
    /// What is wrong.
    pub list: Vec<Diagnostic>,
    /// The files and directories that were looked at, each as it was just before.
    pub files: Files,
    /// Whether a file could not be read for want of something else, of which there may be enough later: who reads anew may
    /// find other mistakes, or none.
    pub may_pass: bool,
}

/// Without the text: a token may stand in it.
impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diagnostics")
            .field("path", &self.path)
            .field("list", &self.list)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Diagnostics {
    /// As rustc would show them, with colours or without; ends with a line that counts them. Empty if nothing is wrong.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let newlines: Vec<usize> = self.text.match_indices('\n').map(|(at, _)| at).collect();
        let mut out = String::new();
        for diagnostic in &self.list {
            out.push_str(&self.render_one(diagnostic, &newlines, &renderer));
            out.push_str("\n\n");
        }
        if let Some((level, summary)) = self.summary() {
            let title = level.title().primary_title(summary);
            out.push_str(&renderer.render(&[Group::with_title(title)]));
            out.push('\n');
        }
        out
    }

    /// The line and the column, in characters, at which the place of one begins, both from 1 on; `None` for the whole file.
    pub fn place(&self, one: &Diagnostic) -> Option<(usize, usize)> {
        let start = floor(&self.text, one.span.as_ref()?.start);
        let before = self.text.get(..start)?;
        let line = before.rsplit('\n').next().unwrap_or_default();
        Some((before.matches('\n').count() + 1, line.chars().count() + 1))
    }

    /// The first error in one line, with its place and how many more there are; and what to do about it.
    pub fn first(&self) -> (String, String) {
        let path = self.path.display();
        let mut errors = self.list.iter().filter(|one| one.level == Level::Error);
        let Some(one) = errors.next() else {
            return (format!("{path} cannot be used"), String::new());
        };
        let place = self.place(one);
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        let more = match errors.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let help = one.help.clone().unwrap_or_default();
        (format!("{path}{place}: {}{more}", one.message), help)
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.count(Level::Error)
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.count(Level::Warning)
    }

    fn count(&self, level: Level) -> usize {
        self.list.iter().filter(|one| one.level == level).count()
    }

    fn summary(&self) -> Option<(Level, String)> {
        let plural = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let path = self.path.display();
        match (self.errors(), self.warnings()) {
            (0, 0) => None,
            (0, warnings) => Some((
                Level::Warning,
                format!("{} in {path}", plural(warnings, "warning")),
            )),
            (errors, 0) => Some((
                Level::Error,
                format!("{} in {path}", plural(errors, "error")),
            )),
            (errors, warnings) => Some((
                Level::Error,
                format!(
                    "{} and {} in {path}",
                    plural(errors, "error"),
                    plural(warnings, "warning")
                ),
            )),
        }
    }

    fn render_one(
        &self,
        diagnostic: &Diagnostic,
        newlines: &[usize],
        renderer: &Renderer,
    ) -> String {
        let title = diagnostic.level.title();
        let title = title.primary_title(diagnostic.message.as_str());
        let mut group = Group::with_title(title);
        let path = self.path.display().to_string();
        group = match &diagnostic.span {
            Some(span) => group.element(self.snippet(span, newlines).path(path)),
            None => group.element(Origin::path(path)),
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Title::HELP.message(normalize_untrusted_str(help)));
        }
        renderer.render(&[group])
    }

    /// The lines that a span touches. Not the whole text: the renderer would go through it for every mistake.
    fn snippet(&self, span: &Range<usize>, newlines: &[usize]) -> Snippet<'_, Annotation<'_>> {
        let start = floor(&self.text, span.start);
        let end = floor(&self.text, span.end).max(start);
        // A caret under the end of a line would be drawn as one over two lines.
        let marked = self.text.get(start..end).unwrap_or_default();
        let end = start + marked.trim_end_matches(['\r', '\n']).len();
        let before = newlines.partition_point(|newline| *newline < start);
        let last = newlines.partition_point(|newline| *newline < end);
        let from = match before.checked_sub(1).and_then(|index| newlines.get(index)) {
            Some(newline) => newline + 1,
            None => 0,
        };
        let to = newlines.get(last).copied().unwrap_or(self.text.len());
        Snippet::source(self.text.get(from..to).unwrap_or_default())
            .line_start(before + 1)
            .annotation(AnnotationKind::Primary.span(start - from..end - from))
    }
}

/// Without colours.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl Level {
    fn title(self) -> Title<'static> {
        match self {
            Self::Error => Title::ERROR,
            Self::Warning => Title::WARNING,
        }
    }
}

/// The place of what stands in no line of the file: a variable of the environment.
pub(super) const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

/// What is found while a text is read; it grows until the end, whatever has been found.
pub(super) struct Findings<'a> {
    text: &'a str,
    list: Vec<Diagnostic>,
    /// The lines that TOML itself could not read: what their values mean is not asked.
    unreadable: Vec<Range<usize>>,
    /// What no report may show.
    secrets: Vec<Range<usize>>,
    /// What is read.
    files: Files,
    /// What is run.
    programs: BTreeSet<PathBuf>,
    /// What is shown to those who are dialled.
    own_certificates: Vec<OwnCertificate>,
    /// What opens the keys that name no passphrase.
    given: Given,
    may_pass: bool,
}

impl<'a> Findings<'a> {
    /// Nothing was found in this text yet, and these files were looked at for it. What the process was given opens the keys
    /// that name no passphrase.
    pub(super) fn new(text: &'a str, files: Files, given: Given) -> Self {
        Self {
            programs: given.program().map(Path::to_owned).into_iter().collect(),
            given,
            text,
            list: Vec::new(),
            unreadable: Vec::new(),
            secrets: Vec::new(),
            own_certificates: Vec::new(),
            files,
            may_pass: false,
        }
    }

    /// A mistake was told that may be none the next time, though nothing changes in the files.
    pub(super) fn may_pass(&mut self) {
        self.may_pass = true;
    }

    /// This file or directory is read next.
    pub(super) fn reads(&mut self, path: &Path) {
        self.files.note(path);
    }

    /// This program is run next.
    pub(super) fn runs(&mut self, path: &Path) {
        self.programs.insert(path.to_owned());
    }

    /// This certificate is shown to those who are dialled, by whatever keys name it.
    pub(super) fn shows(&mut self, own: OwnCertificate) {
        if !self.own_certificates.contains(&own) {
            self.own_certificates.push(own);
        }
    }

    /// Those that are.
    pub(super) fn own_certificates(&self) -> Vec<OwnCertificate> {
        self.own_certificates.clone()
    }

    /// The programs that are run.
    pub(super) fn programs(&self) -> BTreeSet<PathBuf> {
        self.programs.clone()
    }

    /// What the process was given at its start for keys that name no passphrase.
    pub(super) fn given(&self) -> &Given {
        &self.given
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// A mistake in TOML's own grammar. A second one on the same line is most likely an echo of the first.
    pub(super) fn syntax(&mut self, span: Range<usize>, message: String, help: String) {
        let line = self.lines(&span);
        if self.is_unreadable(&span) {
            return;
        }
        self.push(Level::Error, Some(span), message, help);
        self.unreadable.push(line);
    }

    /// What stands there cannot be told: nothing more is said of it.
    pub(super) fn ignore(&mut self, span: Range<usize>) {
        let lines = self.lines(&span);
        self.unreadable.push(lines);
    }

    /// What stands there is a secret: a report shows asterisks in its place.
    pub(super) fn conceal(&mut self, span: Range<usize>) {
        self.secrets.push(span);
    }

    /// A mistake at a place.
    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if !self.is_unreadable(&span) {
            self.push(Level::Error, Some(span), message, help);
        }
    }

    /// A mistake that can only be seen in a file of which every line could be read: something is not there.
    pub(super) fn missing(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.unreadable.is_empty() {
            self.push(Level::Error, Some(span), message, help);
        }
    }

    /// Something legal that cannot be what was meant; `None` for the file as a whole.
    pub(super) fn warning(
        &mut self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.unreadable.is_empty() {
            self.push(Level::Warning, span, message, help);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.list.iter().any(|one| one.level == Level::Error)
    }

    /// Everything found, in the order of the file, what concerns the whole of it last.
    pub(super) fn finish(mut self, path: PathBuf) -> Diagnostics {
        self.list.sort_by_key(|one| {
            let span = one.span.as_ref();
            span.map_or((usize::MAX, usize::MAX), |span| (span.start, span.end))
        });
        self.list.dedup();
        Diagnostics {
            path,
            files: self.files,
            may_pass: self.may_pass,
            text: match self.list.is_empty() {
                true => self.text.to_owned(),
                false => concealed(self.text, &self.secrets),
            },
            list: self.list,
        }
    }

    fn push(
        &mut self,
        level: Level,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.list.push(Diagnostic {
            level,
            span: span.filter(|span| *span != NOWHERE).map(|span| {
                let start = floor(self.text, span.start);
                start..floor(self.text, span.end).max(start)
            }),
            message: message.into(),
            help: Some(help.into()),
        });
    }

    fn is_unreadable(&self, span: &Range<usize>) -> bool {
        if *span == NOWHERE {
            return false;
        }
        let lines = self.lines(span);
        self.unreadable
            .iter()
            .any(|line| line.start <= lines.end && lines.start <= line.end)
    }

    /// The whole lines that a span touches, without the last newline: two different lines never touch.
    fn lines(&self, span: &Range<usize>) -> Range<usize> {
        let start = floor(self.text, span.start);
        let end = floor(self.text, span.end).max(start);
        let before = self.text.get(..start).unwrap_or_default();
        let after = self.text.get(end..).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        start..end + after.find('\n').unwrap_or(after.len())
    }
}

/// The text with an asterisk for each byte of a secret, and of what stands behind `token =` or `proxy =`, or what was meant to be that:
/// a line that is no TOML has no values.
fn concealed(text: &str, secrets: &[Range<usize>]) -> String {
    let mut secrets = secrets.to_vec();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some((key, value)) = line.split_once('=')
            && let Some(last) = key.rsplit('.').next()
            && suggest(last.trim(), &["token", "proxy"]).is_some()
        {
            secrets.push(start + line.len() - value.len()..start + line.len());
        }
        start += line.len();
    }
    let mut bytes = text.as_bytes().to_vec();
    for span in secrets {
        // Line by line, as before.
        let secret = bytes.get_mut(span).into_iter().flatten();
        secret
            .filter(|byte| !matches!(byte, b'\n' | b'\r'))
            .for_each(|byte| *byte = b'*');
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last place, not after `byte`, at which a character begins or the text ends.
fn floor(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}
