//! `htpasswd` files of other servers, for moving here: one `name:hash` a line.
//!
//! bcrypt and argon2id are taken. What a thief of the file would crack in an afternoon is refused
//! with its line, and the name of the scheme, but never with the hash itself.

use crate::pure::identity::is_name;

use super::password::{BadHash, Stored};

/// What a name may be.
pub const NAME_EXPECTED: &str =
    "expected a name of 1 to 256 bytes, without `:`, control characters or spaces around it";
/// The largest file.
pub const MAX_BYTES: usize = 16 << 20;

/// An entry: who, and the hash of their password.
pub struct Entry {
    /// The name.
    pub name: String,
    /// The hash.
    pub stored: Stored,
}

/// A line that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: u32,
    /// Why.
    pub why: Why,
}

/// Why a line can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The file is larger than [`MAX_BYTES`] or not UTF-8.
    File,
    /// There is no `:`.
    NoColon,
    /// The name is empty, long, or has characters that no name has.
    Name,
    /// The name stands on an earlier line too.
    Repeated,
    /// The hash is not one that we take.
    Hash(BadHash),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File => f.write_str("expected UTF-8 text of at most 16 MiB"),
            Self::NoColon => f.write_str("expected `name:hash`"),
            Self::Name => f.write_str(NAME_EXPECTED),
            Self::Repeated => f.write_str("this name stands on an earlier line too"),
            Self::Hash(why) => why.fmt(f),
        }
    }
}

/// The entries of a file.
///
/// # Errors
/// Every line that can't be used; a file with one is not used at all, for a name left out could be
/// the one that is needed.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Vec<BadLine>> {
    let whole = |why| vec![BadLine { line: 1, why }];
    if bytes.len() > MAX_BYTES {
        return Err(whole(Why::File));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| whole(Why::File))?;
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    let mut names = std::collections::HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line) {
            Ok(entry) if names.insert(entry.name.clone()) => entries.push(entry),
            Ok(_) => bad.push(BadLine {
                line: number,
                why: Why::Repeated,
            }),
            Err(why) => bad.push(BadLine { line: number, why }),
        }
    }
    if bad.is_empty() {
        Ok(entries)
    } else {
        Err(bad)
    }
}

fn entry(line: &str) -> Result<Entry, Why> {
    let (name, hash) = line.split_once(':').ok_or(Why::NoColon)?;
    if !is_name(name) {
        return Err(Why::Name);
    }
    let stored = Stored::parse(hash).map_err(Why::Hash)?;
    Ok(Entry {
        name: name.to_owned(),
        stored,
    })
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is written as the same again.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn htpasswd(bytes: &[u8]) {
        let Ok(entries) = parse(bytes) else { return };
        let lines = entries
            .iter()
            .map(|Entry { name, stored }| format!("{name}:{}\n", stored.for_file()));
        let again = parse(lines.collect::<String>().as_bytes()).expect("reads again");
        assert_eq!(again.len(), entries.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::password::cheap;
    use super::*;

    #[track_caller]
    fn refused(text: &str, lines: &[(u32, Why)]) {
        let bad = parse(text.as_bytes()).err().unwrap();
        let bad: Vec<_> = bad.into_iter().map(|bad| (bad.line, bad.why)).collect();
        assert_eq!(bad, lines);
    }

    fn bcrypt_hash() -> String {
        let made = bcrypt::hash_with_salt("secret12", 4, [9; 16]).unwrap();
        made.format_for_version(bcrypt::Version::TwoY)
    }

    #[test]
    fn names_and_hashes_are_read() {
        let text = format!(
            "# people\n\nbob:{}\r\neve:{}\n",
            bcrypt_hash(),
            cheap("x").for_file()
        );
        let entries = parse(text.as_bytes()).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["bob", "eve"]);
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn every_line_that_cannot_be_used_is_named_with_its_reason() {
        let good = bcrypt_hash();
        refused(
            &format!("a:{good}\nb\n:{good}\na:{good}\nc:$apr1$x$y\nd:secret\ne :{good}\n"),
            &[
                (2, Why::NoColon),
                (3, Why::Name),
                (4, Why::Repeated),
                (5, Why::Hash(BadHash::Weak("apr1 (MD5)"))),
                (6, Why::Hash(BadHash::NotAHash)),
                (7, Why::Name),
            ],
        );
        refused(
            &format!("a:{good}:more"),
            &[(1, Why::Hash(BadHash::Malformed))],
        );
        let mut latin = b"b\xf6b:".to_vec();
        latin.extend_from_slice(good.as_bytes());
        assert_eq!(
            parse(&latin).err().unwrap(),
            [BadLine {
                line: 1,
                why: Why::File
            }]
        );
    }

    #[test]
    fn a_reason_does_not_show_the_line() {
        for text in ["bob:hunter2", "bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="] {
            for bad in parse(text.as_bytes()).err().unwrap() {
                let shown = format!("{bad:?} {}", bad.why);
                assert!(
                    !shown.contains("hunter2") && !shown.contains("W6ph5"),
                    "{shown}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lines_do_not_panic(text in "([a-z]{1,2}:\\$2y\\$[0-9$]{0,4}[./A-Za-z0-9]{0,54}\n?){0,3}") {
            fuzzing::htpasswd(text.as_bytes());
        }
    }
}
