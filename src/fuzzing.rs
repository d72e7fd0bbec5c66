//! What the targets of `fuzz/` call. Each body stands beside the code that it holds to a property.

mod exchange;

pub use exchange::exchange;

pub use crate::config::fuzzing::{gateway_config, policy};
pub use crate::identity::accounts::fuzzing::accounts;
pub use crate::identity::htpasswd::fuzzing::htpasswd;
pub use crate::identity::machine_tokens::fuzzing::machine_tokens;
pub use crate::pipeline::request_headers::fuzzing::request_headers;
pub use crate::pipeline::response_headers::fuzzing::response_headers;
pub use crate::pure::access::fuzzing::access;
pub use crate::pure::banner::fuzzing::banner;
pub use crate::pure::callback::fuzzing::callback;
pub use crate::pure::certificate::fuzzing::certificate;
pub use crate::pure::cidr::fuzzing::cidr;
pub use crate::pure::claims::fuzzing::session_claims;
pub use crate::pure::compact::fuzzing::compact;
pub use crate::pure::cookie::fuzzing::cookie;
pub use crate::pure::credential::fuzzing::authorization;
pub use crate::pure::csrf::fuzzing::form_token;
pub use crate::pure::encode_identity::fuzzing::encode_identity;
pub use crate::pure::field::fuzzing::field;
pub use crate::pure::form::fuzzing::form;
pub use crate::pure::forwarded::fuzzing::forwarded;
pub use crate::pure::http1::fuzzing::{chunked, http1_request_head, http1_response_head};
pub use crate::pure::internal_url::fuzzing::internal_url;
pub use crate::pure::introspection::fuzzing::introspection;
pub use crate::pure::json::fuzzing::json;
pub use crate::pure::jwk::fuzzing::jwks;
pub use crate::pure::jwt::fuzzing::jwt;
pub use crate::pure::machine_token::fuzzing::machine_token;
pub use crate::pure::origin::fuzzing::origin;
pub use crate::pure::original::fuzzing::original;
pub use crate::pure::overage::fuzzing::overage;
pub use crate::pure::proxy_protocol::fuzzing::proxy_protocol;
pub use crate::pure::return_to::fuzzing::return_to;
pub use crate::pure::rotation::fuzzing::signing_keys;
pub use crate::pure::seal::fuzzing::envelope;
pub use crate::pure::session::fuzzing::session_record;
pub use crate::pure::summary::fuzzing::session_row;
pub use crate::pure::table::fuzzing::table;
pub use crate::pure::target::fuzzing::{authority, target};
pub use crate::pure::ticket::fuzzing::ticket;
pub use crate::pure::unit::fuzzing::unit;
pub use crate::pure::validity::fuzzing::validity;
pub use crate::pure::websocket::fuzzing::websocket;
