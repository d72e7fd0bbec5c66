//! What is known of a client connection before its first request.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::pure::certificate::Name;
use crate::pure::validity::Malformed;

/// Facts of one client connection, fixed when it is accepted.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The TCP peer, or the client that a trusted peer named by PROXY protocol.
    pub peer: SocketAddr,
    /// The TLS session, when there is one.
    pub tls: Option<Tls>,
}

/// Facts of a client's TLS session.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The server name asked for, in lower case without a trailing dot.
    pub server_name: Option<Arc<str>>,
    /// The client's certificate, when it showed one that verified.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// Whether this listener asks for client certificates, so that requests are bound to the name
    /// asked for.
    pub bound_to_server_name: bool,
}

/// A verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the DER form, in lower-case hexadecimal.
    pub fingerprint: String,
    /// Whom it names, or that this can't be read.
    pub names: Result<Vec<Name>, Malformed>,
}

impl ClientCertificate {
    /// One with these names, for those who ask what would become of it.
    pub fn with_names(names: Vec<Name>) -> Self {
        let fingerprint = names.iter().find_map(|name| match name {
            Name::Fingerprint(digits) => Some(digits.to_string()),
            Name::Subject(_) | Name::Common(_) | Name::Dns(_) | Name::Email(_) | Name::Uri(_) => {
                None
            }
        });
        Self {
            fingerprint: fingerprint.unwrap_or_default(),
            names: Ok(names),
        }
    }
}

impl Connection {
    /// The scheme a client used: `https` under TLS, else `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}
