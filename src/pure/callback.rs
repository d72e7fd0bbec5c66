//! What a provider answers to a sign-in by way of the browser (RFC 6749 §4.1.2, RFC 9207).
//!
//! | when | then |
//! |---|---|
//! | a parameter that decides comes twice, or is no text | refused |
//! | there is no `state`, or it is no ticket of ours | refused |
//! | there are both `code` and `error`, or neither | refused |
//! | otherwise | the answer, of which nothing is known to be true |
//!
//! What the provider says in `error_description` is for its own log: here it would be a sentence that
//! anybody can have us show (SECURITY.md T14).

use zeroize::Zeroizing;

use super::form::{self, BadForm};
use super::ticket::Ticket;

/// Bytes of a whole answer.
pub const MAX_BYTES: usize = 16 * 1024;
/// Bytes of one parameter, decoded.
const MAX_PARAMETER: usize = 8 * 1024;

/// An answer.
pub struct Callback {
    /// The attempt that it answers.
    pub state: Ticket,
    /// Who says that it answers (RFC 9207).
    pub issuer: Option<Zeroizing<String>>,
    /// What it says.
    pub outcome: Outcome,
}

/// How the provider decided.
pub enum Outcome {
    /// The person has signed in.
    Code(Zeroizing<String>),
    /// They have not.
    Error(ProviderError),
}

/// Why a provider does not let somebody sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderError {
    /// The person, or the provider's policy, said no.
    AccessDenied,
    /// The person would have to sign in or to agree, which was not to be asked for.
    InteractionRequired,
    /// The provider has trouble of its own.
    Unavailable,
    /// The provider does not understand, or does not like, how it was asked.
    Other,
}

impl ProviderError {
    /// The error that a code names (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6).
    fn of(code: &str) -> Self {
        match code {
            "access_denied" => Self::AccessDenied,
            "login_required"
            | "consent_required"
            | "interaction_required"
            | "account_selection_required" => Self::InteractionRequired,
            "server_error" | "temporarily_unavailable" => Self::Unavailable,
            _ => Self::Other,
        }
    }

    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AccessDenied => "oidc.access_denied",
            Self::InteractionRequired => "oidc.interaction_required",
            Self::Unavailable => "oidc.provider_unavailable",
            Self::Other => "oidc.provider_error",
        }
    }
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCallback {
    /// A parameter comes twice or is no text, or the whole is too long.
    Parameters(BadForm),
    /// No `state`, or none of ours.
    State,
    /// Neither a code nor an error, or both.
    Outcome,
}

impl BadCallback {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Parameters(_) => "oidc.parameters",
            Self::State => "oidc.state",
            Self::Outcome => "oidc.outcome",
        }
    }
}

/// The answer in a query or a form.
///
/// # Errors
/// Why there is none.
pub fn parse(text: &[u8]) -> Result<Callback, BadCallback> {
    if text.len() > MAX_BYTES {
        return Err(BadCallback::Parameters(BadForm::TooLong));
    }
    let [state, code, error, issuer] =
        form::some(text, ["state", "code", "error", "iss"], MAX_PARAMETER)
            .map_err(BadCallback::Parameters)?;
    let state = state
        .and_then(|state| Ticket::parse(&state).ok())
        .ok_or(BadCallback::State)?;
    let outcome = match (code, error) {
        (Some(code), None) if !code.is_empty() => Outcome::Code(code),
        (None, Some(error)) => Outcome::Error(ProviderError::of(&error)),
        (Some(_) | None, Some(_) | None) => return Err(BadCallback::Outcome),
    };
    Ok(Callback {
        state,
        issuer,
        outcome,
    })
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// An answer that is read has one of each parameter.
    pub fn callback(bytes: &[u8]) {
        let Ok(callback) = parse(bytes) else { return };
        let count = |name: &[u8]| {
            bytes
                .split(|byte| *byte == b'&')
                .filter(|pair| pair.split(|byte| *byte == b'=').next() == Some(name))
                .count()
        };
        assert_eq!(count(b"state"), 1);
        assert_eq!(count(b"code") + count(b"error"), 1);
        assert_eq!(count(b"iss"), usize::from(callback.issuer.is_some()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> String {
        Ticket::new([7; 32]).text().to_string()
    }

    fn read(rest: &str) -> Result<Callback, BadCallback> {
        parse(format!("state={}{rest}", state()).as_bytes())
    }

    #[test]
    fn an_answer_is_a_code_or_an_error() {
        let callback = read("&code=a%2Fb&iss=https%3A%2F%2Fidp.test&session_state=x").unwrap();
        assert!(matches!(&callback.outcome, Outcome::Code(code) if **code == "a/b"));
        assert_eq!(**callback.issuer.as_ref().unwrap(), "https://idp.test");
        for (error, why) in [
            ("access_denied", ProviderError::AccessDenied),
            ("login_required", ProviderError::InteractionRequired),
            ("temporarily_unavailable", ProviderError::Unavailable),
            ("<script>", ProviderError::Other),
        ] {
            let callback = read(&format!("&error={error}&error_description=x")).unwrap();
            assert!(matches!(callback.outcome, Outcome::Error(said) if said == why));
        }
        for rest in ["", "&code=", "&code=a&error=b"] {
            assert_eq!(read(rest).err(), Some(BadCallback::Outcome), "{rest}");
        }
    }

    #[test]
    fn doubled_parameters_are_refused() {
        for rest in [
            "&code=a&code=a",
            "&code=a&state=b",
            "&code=a&iss=b&iss=b",
            "&error=a&error=b",
        ] {
            assert_eq!(
                read(rest).err(),
                Some(BadCallback::Parameters(BadForm::Field)),
                "{rest}"
            );
        }
    }

    #[test]
    fn a_state_that_we_never_made_is_refused() {
        for text in ["code=a", "code=a&state=", "code=a&state=abc", "state"] {
            let refused = parse(text.as_bytes()).err();
            assert!(
                matches!(
                    refused,
                    Some(BadCallback::State | BadCallback::Parameters(BadForm::Field))
                ),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(text in "(state|code|error|iss|x|=|&|a|%41){0,16}") {
            fuzzing::callback(text.as_bytes());
            fuzzing::callback(format!("state={}&{text}", state()).as_bytes());
        }
    }
}
