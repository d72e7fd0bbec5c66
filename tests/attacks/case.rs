//! Reads one attack's file.

use std::path::Path;

use crate::gate::Gate;

/// One attack.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) expect: Vec<Expected>,
    pub(crate) closed: bool,
    pub(crate) backend: Vec<Had>,
    pub(crate) answer: Vec<Had>,
    sends: String,
}

/// What an answer must be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Any,
    Status { status: u16, reason: Option<String> },
}

/// What somebody must have received, or not.
#[derive(Debug)]
pub(crate) enum Had {
    Nothing,
    Lacks(Vec<u8>),
    Has(Vec<u8>),
    Field { name: String, value: String },
    Requests(usize),
}

/// Every attack, by name.
pub(crate) fn all() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("tests/attacks")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "http")
        })
        .collect();
    files.sort();
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Case {
    let name = path
        .file_stem()
        .expect("a name")
        .to_str()
        .expect("a UTF-8 name")
        .to_owned();
    let text = std::fs::read_to_string(path).expect("a UTF-8 file");
    let (head, sends) = text
        .split_once("\n\n")
        .unwrap_or_else(|| panic!("{name}: no empty line"));
    let mut case = Case {
        name,
        expect: Vec::new(),
        closed: false,
        backend: Vec::new(),
        answer: Vec::new(),
        sends: sends.replace('\n', ""),
    };
    for line in head.lines() {
        let (key, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("{}: {line}", case.name));
        match (key, value) {
            ("expect", value) => case.expect.push(expected(value)),
            ("then", "closed") => case.closed = true,
            ("backend", value) => case.backend.push(had(value)),
            ("answer", value) => case.answer.push(had(value)),
            ("advisory" | "why", _) => {}
            _ => panic!("{}: unknown line `{line}`", case.name),
        }
    }
    assert!(
        !case.expect.is_empty() && !case.sends.is_empty(),
        "{}: nothing to expect or to send",
        case.name
    );
    case
}

fn expected(text: &str) -> Expected {
    if text == "any" {
        return Expected::Any;
    }
    let (status, reason) = text
        .split_once(' ')
        .map_or((text, None), |(status, reason)| (status, Some(reason)));
    Expected::Status {
        status: status.parse().expect("a status"),
        reason: reason.map(str::to_owned),
    }
}

fn had(text: &str) -> Had {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("nothing", "") => Had::Nothing,
        ("lacks", part) => Had::Lacks(unescape(part, &|_| None)),
        ("has", part) => Had::Has(unescape(part, &|_| None)),
        ("requests", number) => Had::Requests(number.parse().expect("a number")),
        ("field", field) => {
            let (name, value) = field.split_once(" = ").expect("NAME = VALUE");
            Had::Field {
                name: name.to_owned(),
                value: value.to_owned(),
            }
        }
        _ => panic!("unknown expectation `{text}`"),
    }
}

impl Case {
    /// What is sent.
    pub(crate) fn bytes(&self, gate: &Gate) -> Vec<u8> {
        unescape(&self.sends, &|name| gate.named(name))
    }

    /// Whether its answers have no content.
    pub(crate) fn is_head_request(&self) -> bool {
        self.sends.starts_with("HEAD ")
    }
}

fn unescape(text: &str, named: &dyn Fn(&str) -> Option<String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escape.chars().next().expect("an escape has a kind");
        rest = &escape[1..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
            '{' => {
                let (inside, after) = rest.split_once('}').expect("a closing brace");
                rest = after;
                match inside.split_once(':') {
                    Some((times, part)) => {
                        bytes
                            .extend(unescape(part, named).repeat(times.parse().expect("a number")));
                    }
                    None => bytes.extend(
                        named(inside)
                            .unwrap_or_else(|| panic!("nothing is called {inside}"))
                            .bytes(),
                    ),
                }
            }
            _ => panic!("unknown escape \\{kind}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
