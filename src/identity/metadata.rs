//! What a provider says of itself (OpenID Connect Discovery §3, RFC 8414).

use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType,
    CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm,
    CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::{AdditionalProviderMetadata, AuthUrl, ProviderMetadata, TokenUrl};
use serde::{Deserialize, Serialize};

use crate::pure::json;

use super::kept::Document;

/// Where a provider's metadata are, below its issuer (Discovery §4).
const WELL_KNOWN: &str = ".well-known/openid-configuration";

/// What is used of a provider's metadata.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The issuer, exactly as its tokens name it.
    pub issuer: String,
    /// Where browsers are sent.
    pub authorization: AuthUrl,
    /// Where codes and refresh tokens are redeemed.
    pub token: TokenUrl,
    /// Its keys.
    pub jwks: String,
    /// Claims of whoever an access token is for.
    pub userinfo: Option<String>,
    /// Where browsers are sent to sign out.
    pub end_session: Option<String>,
    /// Where requests may be left beforehand (RFC 9126).
    pub pushed_requests: Option<String>,
    /// Whether its answers name it (RFC 9207).
    pub names_itself: bool,
    /// Whether it takes the client's secret as HTTP basic.
    pub takes_basic: bool,
    /// Whether it takes a client's statement that is signed by PS256.
    pub takes_pss: bool,
    /// Where a client with a certificate asks instead.
    pub aliases: Aliases,
}

/// The endpoints of clients that show a certificate (RFC 8705 §5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Aliases {
    /// As [`Metadata::token`].
    #[serde(rename = "token_endpoint")]
    pub token: Option<TokenUrl>,
    /// As [`Metadata::userinfo`].
    #[serde(rename = "userinfo_endpoint")]
    pub userinfo: Option<String>,
    /// As [`Metadata::pushed_requests`].
    #[serde(rename = "pushed_authorization_request_endpoint")]
    pub pushed_requests: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
struct More {
    end_session_endpoint: Option<String>,
    pushed_authorization_request_endpoint: Option<String>,
    authorization_response_iss_parameter_supported: Option<bool>,
    mtls_endpoint_aliases: Option<Aliases>,
}

impl AdditionalProviderMetadata for More {}

type Stated = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// The URL of an issuer's metadata.
pub fn url(issuer: &str) -> String {
    format!("{}/{WELL_KNOWN}", issuer.trim_end_matches('/'))
}

/// Whether what is at a URL is what its server says: in the clear, it is what the network says. This
/// machine is no network.
pub fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else {
        return false;
    };
    let here = matches!(uri.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
    let secure = uri.scheme_str() == Some("https");
    let no_user = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    no_user && !url.contains('#') && (secure || here && uri.scheme_str() == Some("http"))
}

impl Document for Metadata {
    const WHAT: &'static str = "metadata";
    const MOST_BYTES: usize = 256 * 1024;

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = json::parse(bytes).map_err(|why| format!("no metadata: {why}"))?;
        let stated: Stated =
            serde_json::from_value(value).map_err(|why| format!("no metadata: {why}"))?;
        let more = stated.additional_metadata();
        let metadata = Self {
            issuer: stated.issuer().to_string(),
            authorization: stated.authorization_endpoint().clone(),
            token: stated
                .token_endpoint()
                .cloned()
                .ok_or("the metadata name no token endpoint")?,
            jwks: stated.jwks_uri().to_string(),
            userinfo: stated.userinfo_endpoint().map(|url| url.to_string()),
            end_session: more.end_session_endpoint.clone(),
            pushed_requests: more.pushed_authorization_request_endpoint.clone(),
            names_itself: more
                .authorization_response_iss_parameter_supported
                .unwrap_or(false),
            // The default where nothing is said (Discovery §3).
            takes_basic: stated
                .token_endpoint_auth_methods_supported()
                .is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic)),
            takes_pss: stated
                .token_endpoint_auth_signing_alg_values_supported()
                .is_some_and(|names| names.contains(&CoreJwsSigningAlgorithm::RsaSsaPssSha256)),
            aliases: more.mtls_endpoint_aliases.clone().unwrap_or_default(),
        };
        let urls = [
            Some(metadata.authorization.as_str()),
            Some(metadata.token.as_str()),
            Some(&*metadata.jwks),
            metadata.userinfo.as_deref(),
            metadata.end_session.as_deref(),
            metadata.pushed_requests.as_deref(),
            metadata.aliases.token.as_ref().map(|url| url.as_str()),
            metadata.aliases.userinfo.as_deref(),
            metadata.aliases.pushed_requests.as_deref(),
        ];
        if let Some(url) = urls.into_iter().flatten().find(|url| !is_safe(url)) {
            return Err(format!("`{url}` in the metadata is no `https` URL"));
        }
        Ok(metadata)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stated(changes: &Value) -> Result<Metadata, String> {
        let mut stated = json!({
            "issuer": "https://idp.test/realms/corp",
            "authorization_endpoint": "https://idp.test/auth?tenant=1",
            "token_endpoint": "https://idp.test/token",
            "jwks_uri": "https://idp.test/keys",
            "response_types_supported": ["code", "surprise"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "XX999"],
            "unheard_of": {"a": 1},
        });
        for (name, value) in changes.as_object().unwrap() {
            stated[name] = value.clone();
        }
        Metadata::parse(stated.to_string().as_bytes())
    }

    #[test]
    fn metadata_are_read_with_what_is_unknown_in_them() {
        let metadata = stated(&json!({})).unwrap();
        assert_eq!(metadata.issuer, "https://idp.test/realms/corp");
        assert!(metadata.takes_basic && !metadata.names_itself);
        let metadata = stated(&json!({
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            "authorization_response_iss_parameter_supported": true,
        }))
        .unwrap();
        assert!(!metadata.takes_basic && metadata.names_itself && !metadata.takes_pss);
        let metadata = stated(&json!({
            "token_endpoint_auth_signing_alg_values_supported": ["XX1", "PS256"],
            "mtls_endpoint_aliases": {"token_endpoint": "https://tls.idp.test/token", "other": 1},
        }))
        .unwrap();
        assert!(metadata.takes_pss);
        let alias = metadata.aliases.token.unwrap();
        assert_eq!(alias.as_str(), "https://tls.idp.test/token");
        assert_eq!(metadata.aliases.userinfo, None);
    }

    #[test]
    fn endpoints_in_the_clear_are_refused() {
        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
            "pushed_authorization_request_endpoint",
        ] {
            for url in ["http://idp.test/x", "https://a@idp.test/x"] {
                assert!(stated(&json!({name: url})).is_err(), "{name} {url}");
            }
            assert!(stated(&json!({name: "http://localhost:1/x"})).is_ok());
        }
        for name in [
            "token_endpoint",
            "userinfo_endpoint",
            "pushed_authorization_request_endpoint",
        ] {
            let aliases = |url| json!({"mtls_endpoint_aliases": {name: url}});
            assert!(stated(&aliases("http://idp.test/x")).is_err(), "{name}");
            assert!(stated(&aliases("https://tls.idp.test/x")).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        for text in ["", "{}", "[]", r#"{"issuer":"a","issuer":"b"}"#, "<html>"] {
            assert!(Metadata::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(stated(&json!({"token_endpoint": null})).is_err());
    }

    #[test]
    fn metadata_are_below_the_issuer() {
        for issuer in ["https://idp.test/a", "https://idp.test/a/"] {
            let expected = "https://idp.test/a/.well-known/openid-configuration";
            assert_eq!(url(issuer), expected);
        }
    }
}
