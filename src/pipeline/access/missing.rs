//! What somebody lacks, in words for them.
//!
//! Lists of people and of certificates are not told, whatever the operator allows: they are about
//! others.

use std::fmt::Display;

use crate::pure::access::{Condition, Test};

/// Names that are told of one list; the page stays one that can be read.
const MOST_NAMES: usize = 12;

/// A sentence to whoever does not meet `test`.
pub(super) fn told(test: &Test) -> String {
    format!("You need to {}", need(test))
}

fn need(test: &Test) -> String {
    match test {
        Test::User(_) | Test::Email(_) => "be one of the people named for this".to_owned(),
        Test::Certificate(_) => "show one of the client certificates named for this".to_owned(),
        Test::Provider(names) => list("sign in by one of these", names),
        Test::Group(names) => list("be in one of these groups", names),
        Test::EmailDomain(domains) => {
            list("have an e-mail address at one of these domains", domains)
        }
        Test::Claim(name, accepted) => {
            list(&format!("have one of these values of {name}"), accepted)
        }
        Test::Scope(names) => list("show a token with one of these scopes", names),
        Test::Method(methods) => list("use one of these methods", methods),
        Test::Network(networks) => list("come from one of these networks", networks.networks()),
        Test::Path(paths) => list("ask for one of these paths", &paths.patterns),
        Test::Any(lists) => lists
            .iter()
            .map(|list| together(list))
            .collect::<Vec<_>>()
            .join(", or "),
        Test::All(lists) => lists
            .iter()
            .map(|list| together(list))
            .collect::<Vec<_>>()
            .join(", and "),
        Test::Not(list) => match &list[..] {
            [one] => format!("not {}", need(&one.test)),
            list => format!("not at once {}", together(list)),
        },
    }
}

fn together(list: &[Condition]) -> String {
    let needs: Vec<_> = list.iter().map(|one| need(&one.test)).collect();
    needs.join(" and ")
}

fn list(what: &str, names: &[impl Display]) -> String {
    let mut shown: Vec<_> = names
        .iter()
        .take(MOST_NAMES)
        .map(ToString::to_string)
        .collect();
    match names.len().saturating_sub(MOST_NAMES) {
        0 => {}
        more => shown.push(format!("and {more} more")),
    }
    format!("{what}: {}", shown.join(", "))
}
