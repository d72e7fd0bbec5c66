//! A TOML table being read: values with their places, and every problem of every file at once.
//!
//! Each section of the configuration states its keys as [`Key`]s; a key that is not among them is a
//! problem with the nearest one as a hint, and the reference in `docs/` is written from the same
//! list, so that neither can drift.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// One key of a section, as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// What holds when it is not written.
    pub default: &'static str,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
}

/// Where a rule stands: file and line, as the operator sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Something in a file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The line itself.
    pub source_line: String,
    /// How many characters the caret underlines.
    pub width: usize,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What may have been meant, or what to do.
    pub hint: Option<String>,
}

/// Columns of a source line that are shown.
const SHOWN: usize = 96;

/// Errors of TOML's grammar that are shown of one file: one slip can make an error of each line.
const MOST_ERRORS: usize = 20;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}:{}:{}: {}",
            Plain(&self.file),
            self.line,
            self.column,
            Plain(&self.message)
        )?;
        if !self.source_line.is_empty() {
            let before = usize::try_from(self.column).unwrap_or(1).saturating_sub(1);
            // A long line is cut so that the caret stays in sight.
            let skipped = before.saturating_sub(SHOWN / 2);
            let shown: String = self
                .source_line
                .chars()
                .skip(skipped)
                .take(SHOWN)
                .map(plain)
                .collect();
            let number = self.line.to_string();
            let room = SHOWN.saturating_sub(before.saturating_sub(skipped)).max(1);
            writeln!(f, " {number} | {shown}")?;
            let indent = " ".repeat(number.len());
            let under = " ".repeat(before.saturating_sub(skipped));
            writeln!(
                f,
                " {indent} | {under}{}",
                "^".repeat(self.width.clamp(1, room))
            )?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "   = {}", Plain(hint))?;
        }
        Ok(())
    }
}

impl Problem {
    /// With nothing shown of the line that may be a value: what follows the underlined key, and what
    /// stands before it in the same braces.
    fn without_value(mut self) -> Self {
        let from = usize::try_from(self.column).unwrap_or(1).saturating_sub(1);
        let to = from.saturating_add(self.width);
        let brace = self.source_line.chars().position(|c| c == '{');
        let rest: String = self.source_line.chars().skip(to).collect();
        let hidden = |at: usize| at < from && brace.is_some_and(|brace| at > brace);
        let shown = self.source_line.chars().take(to).enumerate();
        let mut line: String = shown
            .map(|(at, c)| if hidden(at) { ' ' } else { c })
            .collect();
        line.push_str(if rest.chars().all(|c| c == ']') {
            &rest
        } else {
            " \u{2026}"
        });
        self.source_line = line;
        self
    }
}

/// Text that stays on its line and says to a terminal nothing but itself.
struct Plain<'t>(&'t str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(plain(c)))
    }
}

/// One column for each character, as the caret counts them; what turns the direction of text around
/// would show another line than the program reads (CVE-2021-42574).
fn plain(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// All problems found so far; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Problems(Rc<RefCell<Vec<Problem>>>);

impl Problems {
    /// One more.
    pub fn add(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// One about a file as a whole, that it can't be read for instance.
    pub fn about_file(&self, file: &str, message: impl Into<String>, hint: Option<String>) {
        self.add(Problem {
            file: file.into(),
            line: 1,
            column: 1,
            source_line: String::new(),
            width: 1,
            message: message.into(),
            hint,
        });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// All of them, by file and place, each once.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.0.take();
        problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        problems.dedup();
        problems
    }
}

/// A file's text and name.
#[derive(Debug)]
struct Source {
    file: Arc<str>,
    text: Box<str>,
}

impl Source {
    /// Line and column of a byte, and the line.
    fn place(&self, at: usize) -> (u32, u32, &str) {
        let at = at.min(self.text.len());
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count().saturating_add(1);
        let start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let column = before
            .get(start..)
            .unwrap_or_default()
            .chars()
            .count()
            .saturating_add(1);
        let text = self
            .text
            .get(start..)
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default();
        (
            u32::try_from(line).unwrap_or(u32::MAX),
            u32::try_from(column).unwrap_or(u32::MAX),
            text,
        )
    }

    fn problem(&self, span: Range<usize>, message: String, hint: Option<String>) -> Problem {
        let (line, column, source_line) = self.place(span.start);
        let width = self.text.get(span).map_or(1, |text| {
            text.lines().next().unwrap_or_default().chars().count()
        });
        Problem {
            file: Arc::clone(&self.file),
            line,
            column,
            source_line: source_line.to_owned(),
            width,
            message,
            hint,
        }
    }
}

/// A value and its place.
#[derive(Debug)]
struct Node {
    span: Range<usize>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    String(String),
    /// `None` when it is negative or too large.
    Integer(Option<u64>),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Entries),
    /// A fraction or a date, which no key takes.
    Other(&'static str),
}

type Entries = Rc<[Entry]>;

#[derive(Debug)]
struct Entry {
    name: String,
    name_span: Range<usize>,
    node: Node,
}

fn entries(table: DeTable<'_>) -> Entries {
    table
        .into_iter()
        .map(|(name, value)| entry(name, value))
        .collect()
}

fn entry(name: Spanned<DeString<'_>>, value: Spanned<DeValue<'_>>) -> Entry {
    let name_span = name.span();
    Entry {
        name: name.into_inner().into_owned(),
        name_span,
        node: node(value),
    }
}

fn node(value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => {
            Value::Integer(u64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Array(values) => Value::Array(values.into_iter().map(node).collect()),
        DeValue::Table(table) => Value::Table(entries(table)),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node { span, value }
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }

    fn as_string(&self) -> Option<&str> {
        if let Self::String(text) = self {
            Some(text)
        } else {
            None
        }
    }
}

/// One TOML table, whose values are taken out key by key.
#[derive(Debug, Clone)]
pub struct Table {
    source: Rc<Source>,
    span: Range<usize>,
    entries: Entries,
    keys: &'static [Key],
    problems: Problems,
}

impl Table {
    /// Reads a file as a table with `keys`; `None` when it is no TOML.
    pub fn parse(
        file: &str,
        text: &str,
        keys: &'static [Key],
        problems: &Problems,
    ) -> Option<Self> {
        let source = Rc::new(Source {
            file: file.into(),
            text: text.into(),
        });
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let entries = entries(table.into_inner());
            return Some(Self::new(source, 0..0, entries, keys, problems.clone()));
        }
        for error in errors.iter().take(MOST_ERRORS) {
            let message = error.message().replace('\n', ", ");
            problems.add(source.problem(error.span().unwrap_or(0..0), message, None));
        }
        None
    }

    fn new(
        source: Rc<Source>,
        span: Range<usize>,
        entries: Entries,
        keys: &'static [Key],
        problems: Problems,
    ) -> Self {
        let table = Self {
            source,
            span,
            entries,
            keys,
            problems,
        };
        for entry in &*table.entries {
            table.report_unknown(entry);
        }
        table
    }

    fn report_unknown(&self, entry: &Entry) {
        let known = self.keys.iter().map(|key| key.name);
        if known.clone().any(|known| known == entry.name) {
            return;
        }
        let hint = match nearest(&entry.name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
        };
        let message = format!("unknown key `{}`", printable(&entry.name));
        let span = entry.name_span.clone();
        let problem = self.source.problem(span, message, Some(hint));
        // Where nobody asked for a value, it may be a secret.
        self.problems.add(problem.without_value());
    }

    fn get(&self, key: &str) -> Option<&Node> {
        debug_assert!(
            self.keys.iter().any(|known| known.name == key),
            "`{key}` is not documented"
        );
        self.entries
            .iter()
            .find(|entry| entry.name == key)
            .map(|entry| &entry.node)
    }

    fn wrong(&self, node: &Node, key: &str, expected: &str) {
        self.wrong_being(node, key, node.value.kind(), expected);
    }

    fn wrong_being(&self, node: &Node, key: &str, is: &str, expected: &str) {
        let message = format!("`{}` is {is}, expected {expected}", printable(key));
        self.problems
            .add(self.source.problem(node.span.clone(), message, None));
    }

    fn parsed<T>(
        &self,
        node: &Node,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = node.value.as_string() else {
            self.wrong(node, key, "a string");
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(expected) => {
                let message = format!("`{}` can't be used: {expected}", printable(text));
                self.problems
                    .add(self.source.problem(node.span.clone(), message, None));
                None
            }
        }
    }

    /// A string.
    pub fn string(&self, key: &'static str) -> Option<String> {
        self.value(key, |text| Ok(text.to_owned()))
    }

    /// A string that `parse` reads; its error says what was expected.
    pub fn value<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parsed(self.get(key)?, key, parse)
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.get(key)?;
        if let Value::Integer(Some(number)) = node.value
            && range.contains(&number)
        {
            return Some(number);
        }
        let is = match node.value {
            Value::Integer(Some(number)) => &*number.to_string(),
            Value::String(_)
            | Value::Integer(None)
            | Value::Boolean(_)
            | Value::Array(_)
            | Value::Table(_)
            | Value::Other(_) => node.value.kind(),
        };
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.wrong_being(node, key, is, &expected);
        None
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        let node = self.get(key)?;
        if let Value::Boolean(boolean) = node.value {
            return Some(boolean);
        }
        self.wrong(node, key, "true or false");
        None
    }

    /// A list of strings, each of which `parse` reads; one string stands for a list of one.
    pub fn list<T>(
        &self,
        key: &'static str,
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let node = self.get(key)?;
        match &node.value {
            Value::Array(nodes) => Some(
                nodes
                    .iter()
                    .filter_map(|node| self.parsed(node, key, &mut parse))
                    .collect(),
            ),
            Value::String(_) => Some(self.parsed(node, key, parse).into_iter().collect()),
            Value::Integer(_) | Value::Boolean(_) | Value::Table(_) | Value::Other(_) => {
                self.wrong(node, key, "a list of strings");
                None
            }
        }
    }

    fn sub(&self, span: Range<usize>, entries: &Entries, keys: &'static [Key]) -> Self {
        Self::new(
            Rc::clone(&self.source),
            span,
            Rc::clone(entries),
            keys,
            self.problems.clone(),
        )
    }

    /// A table: `[key]`, or written in braces.
    pub fn table(&self, key: &'static str, keys: &'static [Key]) -> Option<Self> {
        let node = self.get(key)?;
        if let Value::Table(entries) = &node.value {
            return Some(self.sub(self.head(key), entries, keys));
        }
        self.wrong(node, key, "a table");
        None
    }

    /// Tables: `[[key]]`, or a list of tables in braces.
    pub fn tables(&self, key: &'static str, keys: &'static [Key]) -> Vec<Self> {
        let Some(node) = self.get(key) else {
            return Vec::new();
        };
        let Value::Array(nodes) = &node.value else {
            self.wrong(node, key, &format!("tables written as `[[{key}]]`"));
            return Vec::new();
        };
        let table = |node: &Node| {
            if let Value::Table(entries) = &node.value {
                return Some(self.sub(node.span.clone(), entries, keys));
            }
            self.wrong(node, key, "a table");
            None
        };
        nodes.iter().filter_map(table).collect()
    }

    /// Tables by name: `[key.NAME]`.
    pub fn named_tables(&self, key: &'static str, keys: &'static [Key]) -> Vec<(String, Self)> {
        let table = |Entry {
                         name,
                         name_span,
                         node,
                     }: &Entry| {
            if let Value::Table(entries) = &node.value {
                return Some((name.clone(), self.sub(name_span.clone(), entries, keys)));
            }
            self.wrong(node, name, "a table");
            None
        };
        self.free(key, &format!("tables written as `[{key}.NAME]`"))
            .iter()
            .filter_map(table)
            .collect()
    }

    /// Lists of strings in a table whose keys are the user's own.
    pub fn free_lists(&self, key: &'static str) -> Vec<(String, Vec<String>)> {
        let list = |Entry { name, node, .. }: &Entry| {
            let own = |text: &str| Ok(text.to_owned());
            let values = match &node.value {
                Value::Array(nodes) => nodes
                    .iter()
                    .filter_map(|node| self.parsed(node, name, own))
                    .collect(),
                Value::String(_) => self.parsed(node, name, own).into_iter().collect(),
                Value::Integer(_) | Value::Boolean(_) | Value::Table(_) | Value::Other(_) => {
                    self.wrong(node, name, "a list of strings");
                    return None;
                }
            };
            Some((name.clone(), values))
        };
        self.free(key, "a table of lists")
            .iter()
            .filter_map(list)
            .collect()
    }

    fn free(&self, key: &'static str, expected: &str) -> Entries {
        let Some(node) = self.get(key) else {
            return Rc::default();
        };
        if let Value::Table(entries) = &node.value {
            return Rc::clone(entries);
        }
        self.wrong(node, key, expected);
        Rc::default()
    }

    /// Whether a key is written.
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Whether a key's value is a table.
    pub fn is_table(&self, key: &'static str) -> bool {
        self.get(key)
            .is_some_and(|node| matches!(node.value, Value::Table(_)))
    }

    fn head(&self, key: &str) -> Range<usize> {
        let entry = self.entries.iter().find(|entry| entry.name == key);
        entry.map_or_else(|| self.span.clone(), |entry| entry.name_span.clone())
    }

    /// Where the table's head stands.
    pub fn place(&self) -> Place {
        Place {
            file: self.file(),
            line: self.line(),
        }
    }

    /// Where a key stands, or the table's head when the key is not written.
    pub fn place_of(&self, key: &'static str) -> Place {
        Place {
            file: self.file(),
            line: self.line_of(key),
        }
    }

    /// The line of the table's head.
    pub fn line(&self) -> u32 {
        self.source.place(self.span.start).0
    }

    /// The line of a key, or of the table's head when the key is not written.
    pub fn line_of(&self, key: &'static str) -> u32 {
        self.source.place(self.head(key).start).0
    }

    /// The file.
    pub fn file(&self) -> Arc<str> {
        Arc::clone(&self.source.file)
    }

    /// A problem with a key's value, or with the table when the key is not written.
    pub fn problem(&self, key: &'static str, message: impl Into<String>, hint: Option<String>) {
        let span = self
            .get(key)
            .map_or_else(|| self.span.clone(), |node| node.span.clone());
        self.problems
            .add(self.source.problem(span, message.into(), hint));
    }

    /// A problem with a key whose value must not be shown: the line ends before it.
    pub fn problem_unshown(
        &self,
        key: &'static str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let problem = self.source.problem(self.head(key), message.into(), hint);
        self.problems.add(problem.without_value());
    }

    /// The problem that a key is not written.
    pub fn missing(&self, key: &'static str, expected: &str) {
        self.problem(
            key,
            format!("`{key}` is missing: expected {expected}"),
            None,
        );
    }

    /// Where problems go.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }
}

/// As much of a word as a message has room for.
fn printable(text: &str) -> String {
    text.chars().take(80).map(plain).collect()
}

/// The candidate that `word` is most likely a misspelling of, if any is near.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let near = |candidate: &&str| distance(word, candidate);
    let best = candidates.into_iter().min_by_key(near)?;
    let allowed = (best.chars().count() / 3).max(1);
    (distance(word, best) <= allowed).then_some(best)
}

/// How many letters must be changed, with a swap of neighbours counted as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, y) in b.iter().enumerate() {
            let at = |row: usize, column: usize| {
                rows.get(row)
                    .and_then(|row| row.get(column))
                    .copied()
                    .unwrap_or(usize::MAX)
            };
            let left = row.get(j).copied().unwrap_or(usize::MAX);
            let mut best = at(i, j).saturating_add(usize::from(x != y));
            best = best
                .min(at(i, j.saturating_add(1)).saturating_add(1))
                .min(left.saturating_add(1));
            let swapped = i > 0
                && j > 0
                && a.get(i.saturating_sub(1)) == Some(y)
                && b.get(j.saturating_sub(1)) == Some(x);
            if swapped {
                best = best.min(at(i.saturating_sub(1), j.saturating_sub(1)).saturating_add(1));
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last()
        .and_then(|row| row.last())
        .copied()
        .unwrap_or(usize::MAX)
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the reader, for fuzz targets and tests.

    use super::*;

    const KEYS: &[Key] = &[Key {
        name: "a",
        kind: "",
        default: "",
        doc: "",
    }];

    /// Any text is a table or a problem with a place in it; problems can be shown.
    pub fn table(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        let problems = Problems::default();
        let table = Table::parse("x.toml", text, KEYS, &problems);
        assert_eq!(table.is_none(), table.is_none() && !problems.is_empty());
        if let Some(table) = table {
            let _ = table.list("a", |text| {
                if text.is_empty() {
                    Err("text".to_owned())
                } else {
                    Ok(())
                }
            });
            let _ = (
                table.integer("a", 0..=9),
                table.boolean("a"),
                table.tables("a", KEYS),
            );
            let _ = (table.named_tables("a", KEYS), table.free_lists("a"));
        }
        let lines = u32::try_from(text.matches('\n').count()).expect("few lines") + 1;
        for problem in problems.into_sorted() {
            assert!((1..=lines).contains(&problem.line), "{problem:?}");
            assert!(problem.to_string().lines().count() <= 4, "{problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INNER: &[Key] = &[Key {
        name: "allow",
        kind: "",
        default: "",
        doc: "",
    }];
    const KEYS: &[Key] = &[
        Key {
            name: "network",
            kind: "",
            default: "",
            doc: "",
        },
        Key {
            name: "burst",
            kind: "",
            default: "",
            doc: "",
        },
        Key {
            name: "path",
            kind: "",
            default: "",
            doc: "",
        },
    ];

    fn shown(text: &str, read: impl FnOnce(&Table)) -> String {
        let problems = Problems::default();
        if let Some(table) = Table::parse("p.toml", text, KEYS, &problems) {
            read(&table);
        }
        problems
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn an_unknown_key_is_shown_in_its_line_with_the_nearest_one() {
        let shown = shown("burst = 1\n\n[netwrok]\nallow = []\n", |_| {});
        assert_eq!(
            shown,
            "p.toml:3:2: unknown key `netwrok`\n 3 | [netwrok]\n   |  ^^^^^^^\n   = did you mean `network`?\n"
        );
    }

    #[test]
    fn every_problem_is_shown_at_once() {
        let text = "burst = -1\n[network]\nallow = [\"x\", 3]\n[[path]]\nx = 1\n";
        let shown = shown(text, |table| {
            table.integer("burst", 1..=10);
            let network = table.table("network", INNER).unwrap();
            network.list("allow", |_| Err::<(), _>("expected a network".to_owned()));
            table.tables("path", INNER);
        });
        let heads: Vec<_> = shown
            .lines()
            .filter(|line| line.starts_with("p.toml"))
            .collect();
        assert_eq!(
            heads,
            [
                "p.toml:1:9: `burst` is a number, expected a whole number from 1 to 10",
                "p.toml:3:10: `x` can't be used: expected a network",
                "p.toml:3:15: `allow` is a number, expected a string",
                "p.toml:5:1: unknown key `x`",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_has_a_place_too() {
        assert!(shown("burst = \n", |_| {}).starts_with("p.toml:1:9: "));
        assert!(shown("burst = 1\nburst = 2\n", |_| {}).starts_with("p.toml:2:1: duplicate key"));
    }

    #[test]
    fn every_error_of_grammar_is_shown_at_once() {
        let shown = shown("burst = \n[network]\nallow = [1\n\n[path\n", |_| {});
        let heads: Vec<_> = shown
            .lines()
            .filter(|line| line.starts_with("p.toml"))
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        assert_eq!(heads.first(), Some(&"p.toml:1:9"), "{shown}");
        assert!(heads.contains(&"p.toml:5:1") && heads.len() < 6, "{shown}");
    }

    #[test]
    fn the_caret_stands_below_its_word_after_tabs_and_before_a_carriage_return() {
        assert_eq!(
            shown(
                "burst = 1\r\n\t\u{e9} = 1\r\n"
                    .replace('\u{e9}', "\"\u{e9}\"")
                    .as_str(),
                |_| {}
            ),
            "p.toml:2:2: unknown key `\u{e9}`\n 2 |  \"\u{e9}\" \u{2026}\n   |  ^^^\n   = known here: network, burst, path\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_round_the_caret() {
        let text = format!("burst = [{}x]\n", "1, ".repeat(5000));
        let shown = shown(&text, |_| {});
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[0].starts_with("p.toml:1:15010: "), "{shown}");
        assert!(lines.iter().all(|line| line.len() < 120), "{shown}");
        assert_eq!(lines[1].find('x'), lines[2].find('^'), "{shown}");
    }

    #[test]
    fn what_a_file_says_can_not_speak_to_the_terminal() {
        let shown = shown("\"\\u001b[2J\\n\\u202e\" = 1 # \u{202e}\n", |_| {});
        assert!(shown.starts_with("p.toml:1:1: unknown key `\u{fffd}[2J\u{fffd}\u{fffd}`\n"));
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
    }

    #[test]
    fn what_an_unknown_key_is_set_to_is_not_shown() {
        for text in [
            "client_secret = \"hunter2\"\n",
            "client_secret = [\"hunter2\"]\n",
            "client_secret.file = \"hunter2\"\n",
            "network = { client_secret = \"hunter2\" }\n",
            "network = { client_secret = \"hunter2\", other = 1 }\n",
        ] {
            let shown = shown(text, |table| drop(table.table("network", INNER)));
            assert!(shown.contains("unknown key `client_secret`"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_deep_file_is_refused_and_not_followed() {
        let dots = "a.".repeat(79);
        for text in [
            "a = ".to_owned() + &"[".repeat(100_000),
            "a.".repeat(100_000) + "a = 1",
            format!("{dots}a = {{ ").repeat(8) + "a = 1" + &" }".repeat(8),
        ] {
            let problems = Problems::default();
            drop(Table::parse("p.toml", &text, KEYS, &problems));
            assert!(!problems.is_empty());
        }
    }

    #[test]
    fn numbers_are_read_in_every_notation_of_toml() {
        for (text, number) in [
            ("1_000", Some(1000)),
            ("+5", Some(5)),
            ("0xff", Some(255)),
            ("-0", None),
            ("1001", None),
            ("18446744073709551616", None),
            ("1.0", None),
            ("\"5\"", None),
        ] {
            let problems = Problems::default();
            let text = format!("burst = {text}");
            let table = Table::parse("p.toml", &text, KEYS, &problems).unwrap();
            assert_eq!(table.integer("burst", 1..=1000), number, "{text}");
            assert_eq!(problems.is_empty(), number.is_some(), "{text}");
        }
    }

    #[test]
    fn far_words_have_no_nearest() {
        assert_eq!(nearest("allwo", ["deny", "allow"]), Some("allow"));
        assert_eq!(nearest("zebra", ["deny", "allow"]), None);
    }

    proptest! {
        #[test]
        fn every_prefix_of_a_file_is_a_table_or_a_problem(end in 0_usize..60) {
            let text = "a = \"b\" # \u{e9}\n[b]\nc = [1, 2.5]\n[[d]]\ne = { f = true }\n";
            let end = (0..=end.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            fuzzing::table(&text.as_bytes()[..end]);
        }

        #[test]
        fn any_text_as_a_file(text in "[a-c=\\[\\]\"\n .{}0-9#]{0,40}") {
            fuzzing::table(text.as_bytes());
        }
    }
}
