//! Rust sources, line by line, with code and comments apart and literals blanked.
//!
//! No parser: the rules that are checked are about words and lines, and rustfmt has laid the files out.

use std::io;
use std::path::{Path, PathBuf};

/// A source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

/// A line of a source file.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Without comments; the insides of string and character literals are blank.
    pub(crate) code: String,
    /// With its slashes.
    pub(crate) comment: String,
    /// Inside an item that exists in tests only.
    pub(crate) test: bool,
    /// Inside an item that exists in models only.
    pub(crate) modelled: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    Block(u32),
    Text,
    Raw(usize),
}

/// Every `.rs` file under `dirs`, in order of their names; a directory that does not exist has none.
pub(crate) fn read_all(root: &Path, dirs: &[&str]) -> io::Result<Vec<Source>> {
    let mut paths = Vec::new();
    for dir in dirs {
        if root.join(dir).is_dir() {
            walk(&root.join(dir), &mut paths)?;
        }
    }
    paths.sort();
    paths.iter().map(|path| read(root, path)).collect()
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

fn read(root: &Path, path: &Path) -> io::Result<Source> {
    let text = std::fs::read_to_string(path)?;
    let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    Ok(Source::new(path, &text))
}

impl Source {
    /// Splits `text`.
    pub(crate) fn new(path: String, text: &str) -> Self {
        let mut state = State::Code;
        let lines = text.lines().map(|line| split(line, &mut state)).collect();
        let mut source = Self { path, lines };
        source.mark("test", |line| line.test = true);
        source.mark("crosslane_loom", |line| line.modelled = true);
        source
    }

    /// Marks every item that exists only where `option` is configured.
    fn mark(&mut self, option: &str, set: impl Fn(&mut Line)) {
        let starts: Vec<usize> = (0..self.lines.len()).filter(|&i| self.lines[i].needs(option)).collect();
        for start in starts {
            let end = self.item_end(start + 1).unwrap_or(self.lines.len() - 1);
            self.lines[start..=end].iter_mut().for_each(&set);
        }
    }

    /// The line on which the item, field or statement that begins at `start` ends: at its closing brace, its semicolon
    /// or, where it has none of its own, its comma.
    pub(crate) fn item_end(&self, start: usize) -> Option<usize> {
        const ITEMS: [&str; 7] = ["fn", "impl", "struct", "enum", "trait", "type", "use"];
        let (mut braces, mut others) = (0i32, 0i32);
        let mut has_commas = false;
        for (i, line) in self.lines.iter().enumerate().skip(start) {
            if braces == 0 && line.code.trim_start().starts_with("#[") {
                continue;
            }
            has_commas |= words(&line.code).any(|(_, word)| ITEMS.contains(&word));
            for c in line.code.chars() {
                match c {
                    '(' | '[' => others += 1,
                    ')' | ']' => others -= 1,
                    '{' => braces += 1,
                    '}' => {
                        braces -= 1;
                        if braces <= 0 {
                            return Some(i);
                        }
                    }
                    ';' if braces == 0 && others == 0 => return Some(i),
                    ',' if braces == 0 && others == 0 && !has_commas => return Some(i),
                    _ => {}
                }
            }
        }
        None
    }
}

impl Line {
    /// Whether this is `#[cfg(option)]`, or an `all` that names it.
    fn needs(&self, option: &str) -> bool {
        let Some(cfg) = self.code.trim().strip_prefix("#[cfg(") else { return false };
        words(cfg).any(|(at, word)| word == option && !cfg[..at].ends_with("not("))
    }
}

/// The identifiers of `code` with the byte offsets at which they begin.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    core::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let len = code[start..].find(|c| !is_word(c)).unwrap_or(code.len() - start);
        at = start + len;
        Some((start, &code[start..at]))
    })
}

fn split(text: &str, state: &mut State) -> Line {
    let mut line = Line::default();
    let mut rest = text;
    while !rest.is_empty() {
        let taken = match *state {
            State::Code => take_code(rest, state, &mut line),
            State::Block(depth) => take_block(rest, depth, state, &mut line),
            State::Text => take_text(rest, state, &mut line),
            State::Raw(hashes) => take_raw(rest, hashes, state, &mut line),
        };
        rest = &rest[taken..];
    }
    line
}

fn take_code(rest: &str, state: &mut State, line: &mut Line) -> usize {
    if rest.starts_with("//") {
        line.comment.push_str(rest);
        return rest.len();
    }
    if rest.starts_with("/*") {
        *state = State::Block(1);
        return 2;
    }
    let in_word = line.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if let Some(hashes) = raw_string(rest).filter(|_| !in_word || rest.starts_with('"')) {
        *state = State::Raw(hashes);
        let len = rest.find('"').unwrap_or(0) + 1;
        line.code.push_str(&rest[..len]);
        return len;
    }
    let first = rest.chars().next().unwrap_or(' ');
    line.code.push(first);
    match first {
        '"' => *state = State::Text,
        // A character literal, and not a lifetime.
        '\'' => {
            let len = char_literal(rest);
            if len > 1 {
                line.code.push('\'');
            }
            return len;
        }
        _ => {}
    }
    first.len_utf8()
}

/// How many `#` a raw string that begins here has; `None` if none begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn char_literal(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest.char_indices().skip(3).find(|(_, c)| *c == '\'').map_or(1, |(i, _)| i + 1),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(i, _)| i + 1),
        None => 1,
    }
}

fn take_block(rest: &str, depth: u32, state: &mut State, line: &mut Line) -> usize {
    if rest.starts_with("*/") {
        *state = if depth == 1 { State::Code } else { State::Block(depth - 1) };
        return 2;
    }
    if rest.starts_with("/*") {
        *state = State::Block(depth + 1);
        return 2;
    }
    let first = rest.chars().next().unwrap_or(' ');
    line.comment.push(first);
    first.len_utf8()
}

fn take_text(rest: &str, state: &mut State, line: &mut Line) -> usize {
    let first = rest.chars().next().unwrap_or(' ');
    match first {
        '\\' => return 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        '"' => {
            *state = State::Code;
            line.code.push('"');
        }
        _ => {}
    }
    first.len_utf8()
}

fn take_raw(rest: &str, hashes: usize, state: &mut State, line: &mut Line) -> usize {
    if let Some(after) = rest.strip_prefix('"')
        && after.len() - after.trim_start_matches('#').len() >= hashes
    {
        *state = State::Code;
        line.code.push('"');
        return 1 + hashes;
    }
    rest.chars().next().map_or(1, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_blank_and_comments_apart() {
        let text = r###"let a = "std:: // \" no"; // yes "x"
let b = '"'; let c: &'static str = r#"a " b"#; /* block
still */ let d = '\''; let e = b"\\";"###;
        let source = Source::new("x.rs".into(), text);
        assert_eq!(source.lines[0].code, "let a = \"\"; ");
        assert_eq!(source.lines[0].comment, "// yes \"x\"");
        assert_eq!(source.lines[1].code, "let b = ''; let c: &'static str = r#\"\"; ");
        assert_eq!(source.lines[2].code, " let d = ''; let e = b\"\";");
    }

    #[test]
    fn items_under_an_attribute_are_marked_to_their_end() {
        let text = "fn a() {}\n#[cfg(all(test, not(crosslane_loom)))]\n#[allow(x)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(crosslane_loom)]\nextern crate std;\nfn d() {}";
        let source = Source::new("x.rs".into(), text);
        let tests: Vec<bool> = source.lines.iter().map(|line| line.test).collect();
        assert_eq!(tests, [false, true, true, true, true, true, false, false, false, false]);
        let modelled: Vec<bool> = source.lines.iter().map(|line| line.modelled).collect();
        assert_eq!(modelled.iter().filter(|m| **m).count(), 2);
        assert!(modelled[7] && modelled[8]);
    }
}
