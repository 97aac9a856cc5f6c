//! Where the passphrase of an encrypted key comes from: `key_passphrase_file` and `key_passphrase_command`, beside a `key`.

use std::path::{Path, PathBuf};

use super::decode::{Item, List, Table, Typed};
use super::diagnostic::Findings;
use super::files;
use crate::tls::passphrase::{Command, Source};

const FILE: &str = "key_passphrase_file";
const COMMAND: &str = "key_passphrase_command";

/// What is typed; `None` is a key that is absent, or wrong and reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    is_there: bool,
    file: Option<Typed<String>>,
    command: Option<List<Typed<String>>>,
}

impl Keys {
    /// Whether one of them stands there, right or wrong.
    pub(super) fn are_in(table: &Table<'_>) -> bool {
        [FILE, COMMAND].iter().any(|key| table.place(key).is_some())
    }

    pub(super) fn take(table: &mut Table<'_>, findings: &mut Findings<'_>) -> Self {
        let (file, command) = (table.place(FILE), table.place(COMMAND));
        let is_there = file.is_some() || command.is_some();
        if let (Some(file), Some(command)) = (file, command) {
            findings.error(
                if file.start > command.start {
                    file
                } else {
                    command
                },
                format!("`{}` has both `{FILE}` and `{COMMAND}`", table.key().key),
                "keep one: a key has one passphrase",
            );
        }
        let typed = Self {
            is_there,
            file: table.take(FILE, findings, Item::string),
            command: table.take(COMMAND, findings, Item::strings),
        };
        match (&typed.file, &typed.command) {
            // Which is meant cannot be told.
            (Some(_), Some(_)) => Self {
                is_there,
                ..Self::default()
            },
            _ => typed,
        }
    }

    /// Where one of them stands, if it is right.
    pub(super) fn place(&self) -> Option<Typed<()>> {
        let command = self.command.as_ref().map(|list| Typed {
            key: list.key.clone(),
            value: (),
            span: list.span.clone(),
        });
        self.file.as_ref().map(Typed::place).or(command)
    }

    /// What it means: what the process was given, if nothing is written; `None` if it is broken, which is reported.
    pub(super) fn source(&self, folder: &Path, findings: &mut Findings<'_>) -> Option<Source> {
        if let Some(typed) = &self.file {
            return files::path(typed, folder, findings).map(Source::File);
        }
        if let Some(list) = &self.command {
            return command(list, findings).map(Source::Command);
        }
        (!self.is_there).then(|| Source::Start(findings.given().clone()))
    }

    /// The key that names this file or program, if one does.
    pub(super) fn naming(&self, source: &Source, path: &Path) -> Option<Typed<String>> {
        match source {
            Source::File(file) if file == path => self.file.clone(),
            Source::Command(command) if command.program() == path => {
                let list = self.command.as_ref()?;
                Some(Typed {
                    key: list.key.clone(),
                    value: String::new(),
                    span: list.span.clone(),
                })
            }
            _ => None,
        }
    }
}

/// A program by its path from the root, and its arguments. What a search path leads to is another program elsewhere.
fn command(list: &List<Typed<String>>, findings: &mut Findings<'_>) -> Option<Command> {
    const EXAMPLE: &str = "write the program's path from the root and each of its arguments, such as [\"/usr/bin/pass\", \"show\", \"edge\"]: no shell reads them";
    let mut words = list.value.iter();
    let Some(program) = words.next() else {
        if list.is_empty {
            let message = format!("`{}` is an empty list: nothing could be run", list.key);
            findings.error(list.span.clone(), message, EXAMPLE);
        }
        return None;
    };
    let path = PathBuf::from(&program.value);
    if !path.is_absolute() {
        findings.error(
            program.span.clone(),
            format!(
                "`{}`: {:?} is not the path of a program from the root",
                list.key, program.value
            ),
            EXAMPLE,
        );
        return None;
    }
    if let Some(nul) = list.value.iter().find(|word| word.value.contains('\0')) {
        let message = format!("`{}` holds a NUL byte", list.key);
        findings.error(nul.span.clone(), message, "remove it");
        return None;
    }
    findings.runs(&path);
    let arguments = words.map(|word| word.value.clone()).collect();
    Some(Command::new(path, arguments))
}
