//! Groups that do not fit a token: how Entra says so, and what a directory answers about all of them
//! (Microsoft Graph, `getMemberObjects`).
//!
//! | when | then |
//! |---|---|
//! | claims have `_claim_names` or `hasgroups` | they do not list all groups |
//! | `_claim_names` names the claim of the groups, or `hasgroups` is `true` | the directory knows the rest |
//! | an answer is no strict JSON object, or `value` in it is no list of texts | nothing is known |
//! | there is more of it elsewhere (`@odata.nextLink`) | nothing is known: a part is not the whole |
//! | there are more than [`MAX_GROUPS`] | refused, for a session keeps no more |
//!
//! Where a token says that the groups are (`_claim_sources`) is never read: the gate would bring an
//! access token to whatever address that names, those behind its firewall too.

use serde_json::Value;

use super::identity::Claims;
use super::json;
use super::session::MAX_GROUPS;

/// What the directory is asked: those groups that are for access, as the claim lists them.
pub const QUESTION: &str = r#"{"securityEnabledOnly":true}"#;
/// The longest answer: more than the 11,000 ids that Graph gives at most, so that too many are told
/// from an answer without end.
pub const MAX_ANSWER_BYTES: usize = 512 * 1024;

const ELSEWHERE: &str = "_claim_names";
const TOO_MANY: &str = "hasgroups";

/// Why a directory's answer lists nobody's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadGroups {
    /// It is no list of names.
    NoList,
    /// The list goes on elsewhere.
    Part,
    /// There are more than [`MAX_GROUPS`].
    TooMany,
}

impl std::fmt::Display for BadGroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoList => f.write_str("the answer is no list of groups"),
            Self::Part => f.write_str("the answer is a part of the groups"),
            Self::TooMany => write!(f, "there are more than {MAX_GROUPS} groups"),
        }
    }
}

impl std::error::Error for BadGroups {}

/// Whether claims say that something is left out of them.
pub fn is_met(claims: &Claims) -> bool {
    claims.contains_key(ELSEWHERE) || claims.contains_key(TOO_MANY)
}

/// Whether what is left out is the list of this claim.
pub fn is_of(claims: &Claims, groups_claim: &str) -> bool {
    let names = claims.get(ELSEWHERE).and_then(Value::as_object);
    names.is_some_and(|names| names.contains_key(groups_claim))
        || claims.get(TOO_MANY) == Some(&Value::Bool(true))
}

/// All groups that an answer lists. The caller bounds its length.
///
/// # Errors
/// Why it lists none.
pub fn groups(answer: &[u8]) -> Result<Vec<String>, BadGroups> {
    let mut answer = json::object(answer)
        .ok()
        .flatten()
        .ok_or(BadGroups::NoList)?;
    if answer.contains_key("@odata.nextLink") {
        return Err(BadGroups::Part);
    }
    let Some(Value::Array(list)) = answer.remove("value") else {
        return Err(BadGroups::NoList);
    };
    if list.len() > MAX_GROUPS {
        return Err(BadGroups::TooMany);
    }
    list.into_iter()
        .map(|one| match one {
            Value::String(name) => Ok(name),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err(BadGroups::NoList),
        })
        .collect()
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is bounded, and is what a lenient reader reads.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn overage(bytes: &[u8]) {
        let Ok(read) = groups(bytes) else { return };
        assert!(read.len() <= MAX_GROUPS);
        let lenient: Value = serde_json::from_slice(bytes).expect("the library reads it too");
        assert_eq!(lenient.get("value"), Some(&Value::from(read)));
        assert!(lenient.get("@odata.nextLink").is_none());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn claims_say_whether_they_leave_something_out_and_of_which_list() {
        for (said, met, of_groups) in [
            (json!({"groups": ["a"]}), false, false),
            (json!({"_claim_names": {"groups": "src1"}}), true, true),
            (json!({"_claim_names": {"roles": "src1"}}), true, false),
            (json!({"_claim_names": "groups"}), true, false),
            (json!({"_claim_names": ["groups"]}), true, false),
            (json!({"hasgroups": true}), true, true),
            (json!({"hasgroups": "true"}), true, false),
            (json!({"hasgroups": false}), true, false),
        ] {
            let claims = claims(&said);
            assert_eq!(is_met(&claims), met, "{said}");
            assert_eq!(is_of(&claims, "groups"), of_groups, "{said}");
        }
    }

    #[test]
    fn an_answer_lists_all_groups() {
        let answer = br#"{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#Collection(Edm.String)","value":["a","b"]}"#;
        assert_eq!(groups(answer), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(groups(br#"{"value":[]}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_whole_list_of_names_lists_nothing() {
        for (answer, why) in [
            ("", BadGroups::NoList),
            ("[]", BadGroups::NoList),
            (r#"["a"]"#, BadGroups::NoList),
            ("{}", BadGroups::NoList),
            (r#"{"value":null}"#, BadGroups::NoList),
            (r#"{"value":"a"}"#, BadGroups::NoList),
            (r#"{"value":["a",1]}"#, BadGroups::NoList),
            (r#"{"value":["a",null]}"#, BadGroups::NoList),
            (r#"{"value":[{"id":"a"}]}"#, BadGroups::NoList),
            (r#"{"value":["a"],"value":["b"]}"#, BadGroups::NoList),
            (r#"{"value":["a"]}{"value":["b"]}"#, BadGroups::NoList),
            (r#"{"value":["a"]"#, BadGroups::NoList),
            (
                r#"{"value":["a"],"@odata.nextLink":"https://graph.test/2"}"#,
                BadGroups::Part,
            ),
            (r#"{"value":["a"],"@odata.nextLink":null}"#, BadGroups::Part),
        ] {
            assert_eq!(groups(answer.as_bytes()), Err(why), "{answer}");
        }
    }

    #[test]
    fn as_many_groups_are_read_as_a_session_keeps_and_no_more() {
        let answer = |count| json!({"value": vec!["a"; count]}).to_string();
        assert_eq!(
            groups(answer(MAX_GROUPS).as_bytes()).map(|all| all.len()),
            Ok(MAX_GROUPS)
        );
        assert_eq!(
            groups(answer(MAX_GROUPS + 1).as_bytes()),
            Err(BadGroups::TooMany)
        );
    }

    proptest! {
        #[test]
        fn the_fuzz_body_holds(text in r#"\{"value":\[("a"|"b"|1)?(,"a")?\](,"value":\[\]|,"@odata.nextLink":1|,"x":"y")?\}"#) {
            fuzzing::overage(text.as_bytes());
        }
    }
}
