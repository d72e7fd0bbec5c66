//! TLS to backends and issuers: whom to trust, and who we are.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why there is no TLS configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The file holds no certificate in PEM.
    NoCertificate,
    /// A certificate can't be trusted as an authority.
    Authority,
    /// The file holds no private key in PEM.
    NoKey,
    /// The key is not the certificate's.
    KeyMismatch,
    /// The system has no certificate authorities, and none were given.
    NoSystemAuthorities,
    /// The cryptography library refuses its own defaults.
    Provider,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "no PEM certificate in it",
            Self::Authority => "a certificate in it is not one of an authority",
            Self::NoKey => "no PEM private key in it",
            Self::KeyMismatch => "the key does not belong to the certificate",
            Self::NoSystemAuthorities => {
                "the system has no certificate authorities; install ca-certificates or set `ca`"
            }
            Self::Provider => "the cryptography library can't be set up",
        })
    }
}

impl std::error::Error for Error {}

/// The client's side of TLS. Trusts `authorities` (PEM) alone, or the system's when there are none;
/// shows the certificate of `identity` (PEM chain and key) when asked.
///
/// # Errors
/// What is wrong with either.
pub fn client_config(
    authorities: Option<&[u8]>,
    identity: Option<(&[u8], &[u8])>,
) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|_| Error::Authority)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Error::NoSystemAuthorities);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_| Error::Provider)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::NoKey)?;
            builder
                .with_client_auth_cert(certificates(chain)?, key)
                .map_err(|_| Error::KeyMismatch)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(Error::NoCertificate),
    }
}
