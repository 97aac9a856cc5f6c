//! Which parts of the crate a source file names: Rust read as far as paths go.

/// A use of a top-level module, by its name; the name is empty where the path stops at the root of the crate.
pub(crate) struct Use {
    pub(crate) of: String,
    pub(crate) line: usize,
}

/// A word, a `::` or one other sign, and the line it stands on.
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// Every path that starts at `crate`, `portcullis`, `self` or `super`, in `use` and in the midst of code, tests included.
///
/// `home` is the module that the file is.
pub(crate) fn uses(source: &str, home: &[String]) -> Vec<Use> {
    let code = code_only(source);
    let tokens = tokens(&code);
    let text_at = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut depth = 0;
    let mut inline: Vec<(&str, usize)> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", text_at);
        match (token.text, text_at(index + 1)) {
            ("{", _) => {
                depth += 1;
                if index > 1 && text_at(index - 2) == "mod" {
                    inline.push((before, depth));
                }
            }
            ("}", _) => {
                inline.pop_if(|(_, opened)| *opened == depth);
                depth -= 1;
            }
            ("crate" | "portcullis" | "self" | "super", "::" | "as") if before != "::" => {
                let here = home
                    .iter()
                    .map(String::as_str)
                    .chain(inline.iter().map(|(name, _)| *name));
                follow(&tokens, index, here.collect(), &mut found);
            }
            ("path", "=") if before == "[" => found.push(Use {
                of: "#[path]".to_owned(),
                line: token.line,
            }),
            _ => {}
        }
    }
    found
}

/// Follows a path, or each path of a tree in braces, from the module it stands in; returns where it ends.
fn follow<'a>(
    tokens: &[Token<'a>],
    start: usize,
    mut at: Vec<&'a str>,
    found: &mut Vec<Use>,
) -> usize {
    let mut index = start;
    while let Some(token) = tokens.get(index) {
        match token.text {
            "crate" | "portcullis" => at.clear(),
            "self" | "*" => {}
            "super" => drop(at.pop()),
            "{" => return follow_each(tokens, index + 1, &at, found),
            name if name.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                at.push(name)
            }
            _ => break,
        }
        index += 1;
        if tokens.get(index).is_none_or(|next| next.text != "::") {
            break;
        }
        index += 1;
    }
    found.push(Use {
        of: at.first().copied().unwrap_or_default().to_owned(),
        line: tokens[start].line,
    });
    index
}

fn follow_each<'a>(
    tokens: &[Token<'a>],
    start: usize,
    at: &[&'a str],
    found: &mut Vec<Use>,
) -> usize {
    let mut index = start;
    while let Some(token) = tokens.get(index) {
        index = match token.text {
            "}" => return index + 1,
            "as" => index + 2,
            "," => index + 1,
            _ => follow(tokens, index, at.to_vec(), found).max(index + 1),
        };
    }
    index
}

/// The words and signs of what `code_only` has left.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (code, 1);
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|next| !in_word(next)).unwrap_or(rest.len());
        let length = if rest.starts_with("::") {
            2
        } else {
            word.max(first.len_utf8())
        };
        if !first.is_whitespace() {
            found.push(Token {
                text: &rest[..length],
                line,
            });
        }
        line += usize::from(first == '\n');
        rest = &rest[length..];
    }
    found
}

/// The source with a blank for each comment, string and character; every line keeps its number.
pub(crate) fn code_only(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let gone = opaque(rest, code.chars().next_back());
        if gone == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..gone].chars().filter(|c| *c == '\n'));
            rest = &rest[gone..];
        }
    }
    code
}

/// How long the comment, string or character is that starts here; 0 if none does.
fn opaque(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return 1 + past_escapes(inside, '"');
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        let mut chars = inside.chars();
        return match (chars.next(), chars.next()) {
            (Some('\\'), _) => 1 + past_escapes(inside, '\''),
            (Some(one), Some('\'')) => one.len_utf8() + 2,
            // A lifetime.
            _ => 0,
        };
    }
    let raw = ["r", "br", "cr"]
        .into_iter()
        .find_map(|prefix| rest.strip_prefix(prefix));
    if let Some(raw) = raw.filter(|_| !before.is_some_and(in_word)) {
        let quoted = raw.trim_start_matches('#');
        if let Some(inside) = quoted.strip_prefix('"') {
            let close = format!("\"{}", "#".repeat(raw.len() - quoted.len()));
            let end = inside
                .find(&close)
                .map_or(inside.len(), |end| end + close.len());
            return rest.len() - inside.len() + end;
        }
    }
    0
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut index = 0;
    while index < rest.len() {
        let step = &rest.as_bytes()[index..];
        if step.starts_with(b"/*") {
            depth += 1;
            index += 2;
        } else if step.starts_with(b"*/") {
            depth -= 1;
            index += 2;
            if depth == 0 {
                return index;
            }
        } else {
            index += 1;
        }
    }
    rest.len()
}

fn past_escapes(inside: &str, close: char) -> usize {
    let mut escaped = false;
    for (index, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == close => return index + c.len_utf8(),
            _ => {}
        }
    }
    inside.len()
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn named(source: &str, home: &str) -> Vec<String> {
    let home: Vec<String> = home.split("::").map(str::to_owned).collect();
    uses(source, &home)
        .into_iter()
        .map(|found| format!("{}:{}", found.line, found.of))
        .collect()
}

#[test]
fn braces_are_followed_to_every_leaf() {
    let source = "use crate::{\n    a::{self, b as c, d::*},\n    e as f,\n};\nuse std::{io, fmt};";
    assert_eq!(named(source, "x"), ["2:a", "2:a", "2:a", "3:e"]);
}

#[test]
fn paths_in_the_midst_of_code_are_found() {
    let source = "fn f(a: &crate::a::A) -> Vec<crate::b::B> {\n    crate::c::D { e: super::g::<u8>() };\n    $crate::h!(self)\n}";
    assert_eq!(named(source, "x::y"), ["1:a", "1:b", "2:c", "2:x", "3:h"]);
}

#[test]
fn super_climbs_from_the_module_it_stands_in() {
    assert_eq!(named("use super::a;", "x::y"), ["1:x"]);
    assert_eq!(named("use super::super::a;", "x::y"), ["1:a"]);
    assert_eq!(
        named("use self::super::super::{a, b};", "x::y"),
        ["1:a", "1:b"]
    );
    let inside =
        "mod tests { use super::super::super::a; }\nfn f() { super::b() }\nuse super::super::c;";
    assert_eq!(named(inside, "x::y"), ["1:a", "2:x", "3:c"]);
}

#[test]
fn visibility_and_foreign_paths_are_no_uses() {
    assert_eq!(
        named(
            "pub(crate) fn f(self) {}\npub(super) use tokio::net;\nfn g() { a::crate_name::h() }",
            "x"
        ),
        [""; 0]
    );
}

#[test]
fn comments_strings_and_characters_are_no_code() {
    let source = "// crate::a\n/* crate::b /* */ crate::c */ \"\\\" crate::d\" r#\"\" crate::e\"# b'\"' '\\'' '\"' crate::f";
    assert_eq!(named(source, "x"), ["2:f"]);
    let source =
        "fn f<'a>(x: &'a str) { g('\u{1F600}', \"\n crate::a\"); crate::b } br\"\\\" crate::c";
    assert_eq!(named(source, "x"), ["2:b", "2:c"]);
}
