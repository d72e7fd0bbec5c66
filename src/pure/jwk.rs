//! Keys that verify tokens: JSON Web Key sets (RFC 7517), and the only use of `jsonwebtoken`.
//!
//! A key verifies only what its type, its `alg` and its `use` allow. There is no symmetric algorithm
//! and no `none` here, so neither can be configured, published or asked for (RFC 8725 §3.1). What a
//! set holds besides is passed over: a key that is not there verifies nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::json::{self, BadJson};

/// The largest set that is read.
pub const MAX_SET_BYTES: usize = 256 * 1024;
/// The most keys in a set.
pub const MAX_KEYS: usize = 100;
/// The longest `kid`.
pub const MAX_KID_BYTES: usize = 256;

/// How a token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519 (RFC 8037).
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name, which is case-sensitive (RFC 7515 §4.1.1).
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                Kind::Rsa
            }
            Self::Es256 => Kind::P256,
            Self::Es384 => Kind::P384,
            Self::EdDsa => Kind::Ed25519,
        }
    }

    const fn theirs(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Rs384 => jsonwebtoken::Algorithm::RS384,
            Self::Rs512 => jsonwebtoken::Algorithm::RS512,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::Ps384 => jsonwebtoken::Algorithm::PS384,
            Self::Ps512 => jsonwebtoken::Algorithm::PS512,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Es384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A public key that may verify tokens.
pub struct Key {
    id: Option<String>,
    only: Option<Algorithm>,
    kind: Kind,
    material: DecodingKey,
}

/// Why a key in a set is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedOver {
    /// A shared secret: whoever verifies with it can also sign.
    Symmetric,
    /// Private parts, which have no place in a published set; the key must be taken as lost.
    Private,
    /// Of a type or on a curve that no algorithm here uses.
    UnknownType,
    /// For another use than signatures, or for another algorithm.
    OtherUse,
    /// RSA with fewer than 2048 or more than 8192 bits, or a bad exponent.
    WeakRsa,
    /// A missing or malformed part.
    Malformed,
}

impl PassedOver {
    /// The word for the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Symmetric => "symmetric",
            Self::Private => "private",
            Self::UnknownType => "unknown type",
            Self::OtherUse => "other use",
            Self::WeakRsa => "weak RSA",
            Self::Malformed => "malformed",
        }
    }
}

/// Why bytes are not a set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKeySet {
    /// Longer than [`MAX_SET_BYTES`] or with more than [`MAX_KEYS`].
    TooLarge,
    /// Not strict JSON.
    Json(BadJson),
    /// JSON, but no object with a list of `keys`.
    NotASet,
    /// No key in it can verify a token.
    NoKey,
}

impl std::fmt::Display for BadKeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the key set has more than 256 KiB or 100 keys"),
            Self::Json(why) => write!(f, "the key set can't be read: {why}"),
            Self::NotASet => f.write_str("it is no key set: expected an object with a list `keys`"),
            Self::NoKey => f.write_str("no key of the set can verify a token"),
        }
    }
}

impl std::error::Error for BadKeySet {}

/// The keys of an issuer.
pub struct KeySet {
    keys: Vec<Key>,
    passed_over: Vec<PassedOver>,
}

/// Why no key was found for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// The set has none of this id and type; a newer set may.
    Unknown,
    /// More than one would do, and the token does not say which.
    Ambiguous,
}

impl KeySet {
    /// The set that `bytes` write.
    ///
    /// # Errors
    /// Why there is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadKeySet> {
        if bytes.len() > MAX_SET_BYTES {
            return Err(BadKeySet::TooLarge);
        }
        let mut set = json::object(bytes)
            .map_err(BadKeySet::Json)?
            .ok_or(BadKeySet::NotASet)?;
        let Some(Value::Array(list)) = set.remove("keys") else {
            return Err(BadKeySet::NotASet);
        };
        if list.len() > MAX_KEYS {
            return Err(BadKeySet::TooLarge);
        }
        let (mut keys, mut passed_over) = (Vec::new(), Vec::new());
        for key in &list {
            match key
                .as_object()
                .ok_or(PassedOver::Malformed)
                .and_then(Key::read)
            {
                Ok(key) => keys.push(key),
                Err(why) => passed_over.push(why),
            }
        }
        if keys.is_empty() {
            return Err(BadKeySet::NoKey);
        }
        Ok(Self { keys, passed_over })
    }

    /// The one key that may verify a token with this `alg` and `kid`.
    ///
    /// # Errors
    /// Why there is not exactly one.
    pub fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Result<&Key, NoKey> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.kind == algorithm.kind()
                && key.only.is_none_or(|only| only == algorithm)
                && id.is_none_or(|id| key.id.as_deref() == Some(id))
        });
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(NoKey::Unknown),
            (Some(_), Some(_)) => Err(NoKey::Ambiguous),
        }
    }

    /// How many keys can verify.
    pub const fn usable(&self) -> usize {
        self.keys.len()
    }

    /// Why the others can't.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>) -> Result<Self, PassedOver> {
        let kind = text(jwk, "kty")?.ok_or(PassedOver::Malformed)?;
        if kind == "oct" || jwk.contains_key("k") {
            return Err(PassedOver::Symmetric);
        }
        if jwk.contains_key("d") || jwk.contains_key("p") {
            return Err(PassedOver::Private);
        }
        check_use(jwk)?;
        let only = match text(jwk, "alg")? {
            None => None,
            Some(name) => Some(Algorithm::named(name).ok_or(PassedOver::OtherUse)?),
        };
        let (kind, material) = match kind {
            "RSA" => rsa(jwk)?,
            "EC" => elliptic(jwk)?,
            "OKP" => edwards(jwk)?,
            _ => return Err(PassedOver::UnknownType),
        };
        if only.is_some_and(|only| only.kind() != kind) {
            return Err(PassedOver::Malformed);
        }
        let id = text(jwk, "kid")?;
        if id.is_some_and(|id| id.len() > MAX_KID_BYTES) {
            return Err(PassedOver::Malformed);
        }
        Ok(Self {
            id: id.map(str::to_owned),
            only,
            kind,
            material,
        })
    }

    /// Whether `signature` (base64url, as in the token) is this key's over `message`.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        algorithm.kind() == self.kind
            && self.only.is_none_or(|only| only == algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.material, algorithm.theirs())
                .unwrap_or(false)
    }
}

/// `use` and `key_ops`, where they are given, must be for verifying signatures (RFC 7517 §4.2).
fn check_use(jwk: &Map<String, Value>) -> Result<(), PassedOver> {
    if text(jwk, "use")?.is_some_and(|usage| usage != "sig") {
        return Err(PassedOver::OtherUse);
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) => {
            if operations.iter().any(|operation| operation == "verify") {
                Ok(())
            } else {
                Err(PassedOver::OtherUse)
            }
        }
        Some(_) => Err(PassedOver::Malformed),
    }
}

fn rsa(jwk: &Map<String, Value>) -> Result<(Kind, DecodingKey), PassedOver> {
    let modulus = bytes(jwk, "n")?;
    let exponent = bytes(jwk, "e")?;
    // Leading zeros would let a short modulus pass for a long one.
    let bits = match modulus.first() {
        None | Some(0) => return Err(PassedOver::Malformed),
        Some(first) => modulus
            .len()
            .saturating_mul(8)
            .saturating_sub(usize::try_from(first.leading_zeros()).unwrap_or(8)),
    };
    let odd = exponent.last().is_some_and(|last| last & 1 == 1);
    let small = exponent.len() <= 4 && exponent != [1] && exponent.first() != Some(&0);
    if !(2048..=8192).contains(&bits) || !odd || !small {
        return Err(PassedOver::WeakRsa);
    }
    Ok((
        Kind::Rsa,
        DecodingKey::from_rsa_raw_components(&modulus, &exponent),
    ))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<(Kind, DecodingKey), PassedOver> {
    let (kind, length) = match text(jwk, "crv")? {
        Some("P-256") => (Kind::P256, 32),
        Some("P-384") => (Kind::P384, 48),
        Some(_) => return Err(PassedOver::UnknownType),
        None => return Err(PassedOver::Malformed),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return Err(PassedOver::Malformed);
    }
    // An uncompressed point (SEC 1 §2.3.3); whether it is on the curve is checked at each use.
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Ok((kind, DecodingKey::from_ec_der(&point)))
}

fn edwards(jwk: &Map<String, Value>) -> Result<(Kind, DecodingKey), PassedOver> {
    match text(jwk, "crv")? {
        Some("Ed25519") => {}
        Some(_) => return Err(PassedOver::UnknownType),
        None => return Err(PassedOver::Malformed),
    }
    let x = bytes(jwk, "x")?;
    if x.len() != 32 {
        return Err(PassedOver::Malformed);
    }
    Ok((Kind::Ed25519, DecodingKey::from_ed_der(&x)))
}

fn text<'k>(jwk: &'k Map<String, Value>, name: &str) -> Result<Option<&'k str>, PassedOver> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(PassedOver::Malformed),
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, PassedOver> {
    let text = text(jwk, name)?.ok_or(PassedOver::Malformed)?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| PassedOver::Malformed)
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// A set that parses has a key, none of it without an algorithm, and verifies no nonsense.
    pub fn jwks(bytes: &[u8]) {
        let Ok(set) = KeySet::parse(bytes) else {
            return;
        };
        assert!(set.usable() > 0);
        for key in &set.keys {
            for algorithm in Algorithm::ALL {
                assert!(!key.verifies(algorithm, bytes, "AAAA"));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
