//! The only holder of key bytes of this process, and the only source of random ones.
//!
//! What needs a key asks here; nothing here can be printed, copied or compared.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::pure::assertion::{self, PublicKey, Statement, Unstated};
use crate::pure::client_assertion;
use crate::pure::rotation::{self, BadLine, Plan};
use crate::pure::seal::{self, Mac, same};
use crate::pure::session::Seconds;

/// The operating system gave no random bytes; nothing that needs them may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandom;

impl std::fmt::Display for NoRandom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the operating system gives no random bytes")
    }
}

impl std::error::Error for NoRandom {}

/// `N` bytes from the operating system's generator (SECURITY.md S9).
///
/// # Errors
/// [`NoRandom`] if it gives none.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandom> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// What the key of what is shown of sessions is for.
pub const SUMMARIES: &[u8] = b"session summary";

/// A secret that several gates have in common, and the keys that come from it.
pub struct Common(Mac);

impl Common {
    /// The keys of a secret, which must be as hard to guess as 32 random bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(Mac::new(&seal::hash(secret)))
    }

    /// The key of what sessions are found by.
    pub fn index(&self) -> Mac {
        self.key(b"index of sessions")
    }

    /// The key of what is shown of sessions.
    ///
    /// # Errors
    /// The library fails.
    pub fn summaries(&self) -> Result<seal::Key, seal::SealError> {
        let secret = Zeroizing::new(self.0.tag(&[b"secret of summaries"]));
        seal::Key::derive(&secret, SUMMARIES)
    }

    fn key(&self, purpose: &[u8]) -> Mac {
        Mac::new(&Zeroizing::new(self.0.tag(&[purpose])))
    }
}

/// Keys made anew at each start: what they protect need not outlive the process.
pub struct Keys {
    csrf: Mac,
    credentials: Mac,
    failures: Mac,
}

impl Keys {
    /// Fresh keys.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        Ok(Self {
            csrf: Mac::new(&*random()?),
            credentials: Mac::new(&*random()?),
            failures: Mac::new(&*random()?),
        })
    }

    /// Fresh keys, but for what another gate has to know: a form that one of them made may be sent
    /// to the other, and who guesses at one is to be slowed at the other.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn in_common(common: &Common) -> Result<Self, NoRandom> {
        Ok(Self {
            csrf: common.key(b"forms"),
            credentials: Mac::new(&*random()?),
            failures: common.key(b"failures"),
        })
    }

    /// The key of the sign-in form's tokens.
    pub const fn csrf(&self) -> &Mac {
        &self.csrf
    }

    /// The key under which verified credentials are remembered.
    pub const fn credentials(&self) -> &Mac {
        &self.credentials
    }

    /// The key under which failures are counted.
    pub const fn failures(&self) -> &Mac {
        &self.failures
    }
}

/// A pair whose private half signs.
struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    id: String,
    made: Seconds,
}

impl SigningKey {
    fn new(pair: EcdsaKeyPair, made: Seconds) -> Option<Self> {
        let public = PublicKey::at(pair.public_key().as_ref())?;
        let id = public.id();
        Some(Self {
            pair,
            public,
            id,
            made,
        })
    }

    fn generate(made: Seconds) -> Result<Self, NoRandom> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| NoRandom)?;
        Self::new(pair, made).ok_or(NoRandom)
    }

    fn sign(&self, statement: &Statement<'_>, id: &str) -> Result<String, Unsigned> {
        let message = statement.to_sign(id).map_err(Unsigned::Unstated)?;
        es256(&self.pair, message)
    }
}

fn es256(pair: &EcdsaKeyPair, message: String) -> Result<String, Unsigned> {
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes());
    let signature = signature.map_err(|_| Unsigned::NoKey)?;
    Ok(assertion::signed(message, signature.as_ref()))
}

/// The keys that sign, or did, or will: the oldest first, and at least one.
pub struct SigningKeys(Vec<Arc<SigningKey>>);

/// Why a file holds no signing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKeys {
    /// A line that is none of ours.
    Line(usize),
    /// A pair that is none on P-256.
    Pair(usize),
    /// There is none in it.
    None,
}

impl std::fmt::Display for BadKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number} is not as the gate writes it"),
            Self::Pair(number) => write!(f, "line {number} has no P-256 key"),
            Self::None => f.write_str("there is no key in it"),
        }
    }
}

impl std::error::Error for BadKeys {}

/// Why nothing is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// It can't be stated.
    Unstated(Unstated),
    /// There is no key, or signing failed.
    NoKey,
}

impl SigningKeys {
    /// The keys of a file.
    ///
    /// # Errors
    /// Why there are none that can be used; not one of them is passed over.
    pub fn read(text: &str) -> Result<Self, BadKeys> {
        let stored = rotation::read(text).map_err(|BadLine(number)| BadKeys::Line(number))?;
        if stored.is_empty() {
            return Err(BadKeys::None);
        }
        let keys = stored.iter().zip(1..).map(|(key, number)| {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.pkcs8)
                .ok()
                .and_then(|pair| SigningKey::new(pair, key.made))
                .map(Arc::new)
                .ok_or(BadKeys::Pair(number))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The file of these keys.
    ///
    /// # Errors
    /// [`NoRandom`] if the library can't write one.
    pub fn write(&self) -> Result<Zeroizing<String>, NoRandom> {
        let pairs = self.0.iter().map(|key| {
            let pair = key.pair.to_pkcs8v1().map_err(|_| NoRandom)?;
            Ok((key.made, pair))
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        Ok(rotation::write(
            pairs.iter().map(|(made, pair)| (*made, pair.as_ref())),
        ))
    }

    /// One new key.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn generate(now: SystemTime) -> Result<Self, NoRandom> {
        Ok(Self(vec![Arc::new(SigningKey::generate(Seconds::of(
            now,
        ))?)]))
    }

    /// The keys that there are to be at `now`, where each signs for as long as `every`; none if
    /// these are they.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn rotated(&self, now: SystemTime, every: Duration) -> Result<Option<Self>, NoRandom> {
        let now = Seconds::of(now);
        let Plan { drop, make } = rotation::plan(&self.made(), now, every);
        if drop == 0 && !make {
            return Ok(None);
        }
        let mut keys: Vec<_> = self.0.iter().skip(drop).map(Arc::clone).collect();
        if make {
            keys.push(Arc::new(SigningKey::generate(now)?));
        }
        Ok(Some(Self(keys)))
    }

    /// Signs a statement with the key whose turn it is.
    ///
    /// # Errors
    /// Why it can't be stated or signed.
    pub fn sign(&self, statement: &Statement<'_>) -> Result<String, Unsigned> {
        let key = self.turn_at(statement.now).ok_or(Unsigned::NoKey)?;
        key.sign(statement, &key.id)
    }

    /// A forgery: signed by a key that nobody knows, under the id of the one whose turn it is.
    ///
    /// # Errors
    /// Why it can't be stated or signed.
    pub fn forge(&self, statement: &Statement<'_>) -> Result<String, Unsigned> {
        let key = self.turn_at(statement.now).ok_or(Unsigned::NoKey)?;
        let other = SigningKey::generate(statement.now).map_err(|_| Unsigned::NoKey)?;
        other.sign(statement, &key.id)
    }

    /// Signs what proves to a provider who the gate is, with the key whose turn it is.
    ///
    /// # Errors
    /// Why it can't be stated or signed.
    fn sign_as_client(
        &self,
        statement: &client_assertion::Statement<'_>,
    ) -> Result<String, Unsigned> {
        let key = self.turn_at(statement.now).ok_or(Unsigned::NoKey)?;
        let header = client_assertion::Header {
            alg: "ES256",
            kid: Some(&key.id),
            certificate: None,
        };
        let message = statement.to_sign(header).map_err(Unsigned::Unstated)?;
        es256(&key.pair, message)
    }

    fn turn_at(&self, now: Seconds) -> Option<&SigningKey> {
        let turn = rotation::signer(&self.made(), now);
        turn.and_then(|turn| self.0.get(turn)).map(|key| &**key)
    }

    /// The public halves, for whoever verifies.
    pub fn key_set(&self) -> String {
        assertion::key_set(self.0.iter().map(|key| &key.public))
    }

    fn made(&self) -> Vec<Seconds> {
        self.0.iter().map(|key| key.made).collect()
    }
}

/// The signing keys in force; none until something is to be signed.
#[derive(Default)]
pub struct Signer(ArcSwapOption<SigningKeys>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// The keys.
    pub fn keys(&self) -> Option<Arc<SigningKeys>> {
        self.0.load_full()
    }

    /// Puts other keys in force.
    pub fn replace(&self, keys: SigningKeys) {
        self.0.store(Some(Arc::new(keys)));
    }
}

/// What proves to a provider that the gate is its client.
pub enum ClientKey {
    /// The gate's own keys, which it publishes and rotates.
    Published(Arc<Signer>),
    /// One that the operator made; the provider has its public half.
    Given(GivenKey),
}

impl ClientKey {
    /// Signs what the gate states to a provider; an RSA key by `pss`, where the provider takes that.
    ///
    /// # Errors
    /// Why it can't be stated or signed.
    pub fn sign(
        &self,
        statement: &client_assertion::Statement<'_>,
        pss: bool,
    ) -> Result<String, Unsigned> {
        match self {
            Self::Published(signer) => signer
                .keys()
                .ok_or(Unsigned::NoKey)?
                .sign_as_client(statement),
            Self::Given(key) => key.sign(statement, pss),
        }
    }
}

/// A key that the operator made.
pub struct GivenKey {
    pair: Pair,
    id: Option<String>,
    certificate: Option<String>,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

/// Why a key of the operator's can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// It is no PKCS#8 in PEM, of no kind that signs, or too weak.
    Key,
    /// There is no certificate in the file.
    Certificate,
    /// The certificate is another key's.
    OtherCertificate,
}

impl std::fmt::Display for BadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key => {
                "expected a key on P-256, or of RSA with 2048 bits or more, as PKCS#8 in PEM: \
                 `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
            }
            Self::Certificate => "no PEM certificate in it",
            Self::OtherCertificate => "the certificate is another key's",
        })
    }
}

impl std::error::Error for BadKey {}

impl GivenKey {
    /// The key of a file in PEM, with its id at the provider, and its certificate in PEM.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn read(
        pem: &[u8],
        id: Option<String>,
        certificate: Option<&[u8]>,
    ) -> Result<Self, BadKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| BadKey::Key)?;
        let der = der.secret_pkcs8_der();
        let pair = match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            Ok(pair) => Pair::Ec(pair),
            Err(_) => Pair::Rsa(rsa::KeyPair::from_pkcs8(der).map_err(|_| BadKey::Key)?),
        };
        let certificate = certificate.map(|pem| pair.name_of(pem)).transpose()?;
        Ok(Self {
            pair,
            id,
            certificate,
        })
    }

    fn sign(
        &self,
        statement: &client_assertion::Statement<'_>,
        pss: bool,
    ) -> Result<String, Unsigned> {
        // Entra, which knows keys by their certificates, wants PS256 and does not say so.
        let pss = pss || self.certificate.is_some();
        let header = client_assertion::Header {
            alg: match &self.pair {
                Pair::Ec(_) => "ES256",
                Pair::Rsa(_) if pss => "PS256",
                Pair::Rsa(_) => "RS256",
            },
            kid: self.id.as_deref(),
            certificate: self.certificate.as_deref(),
        };
        let message = statement.to_sign(header).map_err(Unsigned::Unstated)?;
        match &self.pair {
            Pair::Ec(pair) => es256(pair, message),
            Pair::Rsa(pair) => {
                let padding = if pss {
                    &RSA_PSS_SHA256
                } else {
                    &RSA_PKCS1_SHA256
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(padding, &random, message.as_bytes(), &mut signature)
                    .map_err(|_| Unsigned::NoKey)?;
                Ok(assertion::signed(message, &signature))
            }
        }
    }
}

impl Pair {
    /// By what a certificate of this pair is known: its hash, in base64url.
    fn name_of(&self, pem: &[u8]) -> Result<String, BadKey> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| BadKey::Certificate)?;
        let certificate = webpki::EndEntityCert::try_from(&der).map_err(|_| BadKey::Certificate)?;
        let public: &[u8] = match self {
            Self::Ec(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        };
        // The key is the last part of what states it (RFC 5280 §4.1).
        if !certificate.subject_public_key_info().ends_with(public) {
            return Err(BadKey::OtherCertificate);
        }
        Ok(URL_SAFE_NO_PAD.encode(seal::hash(&der)))
    }
}

/// A key that another program has, too.
pub struct SharedKey(Zeroizing<Vec<u8>>);

/// A key that can be guessed, or that does not fit into a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeakKey;

impl std::fmt::Display for WeakKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("expected a key of 32 to 1024 visible ASCII characters, as `openssl rand -hex 32` makes one")
    }
}

impl std::error::Error for WeakKey {}

impl SharedKey {
    /// The key of this text.
    ///
    /// # Errors
    /// [`WeakKey`] if it is too short, too long, or not visible ASCII.
    pub fn new(text: &[u8]) -> Result<Self, WeakKey> {
        let fits = (32..=1024).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        fits.then(|| Self(Zeroizing::new(text.to_vec())))
            .ok_or(WeakKey)
    }

    /// Whether somebody has said it, in a time that tells nothing but its length.
    pub fn is(&self, said: &[u8]) -> bool {
        same(&self.0, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_key_is_long_enough_and_visible() {
        let key = [b'k'; 32];
        for (text, fits) in [
            (&key[..], true),
            (&[&key[..], b"\n"].concat(), false),
            (&[b'k'; 31], false),
            (&[&key[..], b" k"].concat(), false),
            (&[&key[..], "é".as_bytes()].concat(), false),
            (&[b'k'; 1025], false),
        ] {
            let read = SharedKey::new(text);
            assert_eq!(read.as_ref().is_ok_and(|read| read.is(&key)), fits);
            assert!(!read.is_ok_and(|read| read.is(b"") || read.is(&key[1..])));
        }
    }

    #[test]
    fn random_bytes_differ_and_are_balanced() {
        let mut ones = 0;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let bytes = random::<32>().unwrap();
            ones += bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
            assert!(seen.insert(*bytes));
        }
        // 256,000 fair bits: mean 128,000, standard deviation 253; ten of them never happen.
        assert!((125_470..=130_530).contains(&ones), "{ones}");
    }

    #[test]
    fn keys_differ_from_each_other() {
        let keys = Keys::generate().unwrap();
        assert_ne!(keys.csrf().tag(&[b"x"]), keys.credentials().tag(&[b"x"]));
        assert_ne!(keys.csrf().tag(&[b"x"]), keys.failures().tag(&[b"x"]));
    }

    #[test]
    fn gates_with_one_secret_know_each_others_forms_and_nothing_else_of_each_other() {
        let (secret, other) = (Common::new(&[7; 32]), Common::new(&[8; 32]));
        let gate = || Keys::in_common(&secret).unwrap();
        let tag = |mac: &Mac| mac.tag(&[b"x"]);
        assert_eq!(tag(gate().csrf()), tag(gate().csrf()));
        assert_ne!(tag(gate().credentials()), tag(gate().credentials()));
        assert_eq!(tag(gate().failures()), tag(gate().failures()));
        assert_ne!(tag(&secret.index()), tag(gate().csrf()));
        assert_ne!(tag(gate().failures()), tag(gate().csrf()));
        assert_ne!(tag(&secret.index()), tag(&other.index()));
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BEGIN: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn signing_keys_survive_their_file() {
        let keys = SigningKeys::generate(BEGIN + 5 * DAY).unwrap();
        let keys = keys.rotated(BEGIN + 40 * DAY, 30 * DAY).unwrap().unwrap();
        let text = keys.write().unwrap();
        assert_eq!(text.lines().count(), 2);
        let again = SigningKeys::read(&text).unwrap();
        assert_eq!(again.key_set(), keys.key_set());
        assert_eq!(again.made(), keys.made());
        assert_eq!(*again.write().unwrap(), *text);
    }

    #[test]
    fn rotation_publishes_then_signs_then_forgets() {
        let month = 30 * DAY;
        let first = SigningKeys::generate(BEGIN).unwrap();
        assert!(first.rotated(BEGIN + 29 * DAY, month).unwrap().is_none());
        let both = first.rotated(BEGIN + month, month).unwrap().unwrap();
        assert_eq!(both.0.len(), 2);
        assert!(both.rotated(BEGIN + 31 * DAY, month).unwrap().is_none());
        let last = both.rotated(BEGIN + 32 * DAY, month).unwrap().unwrap();
        assert_eq!(last.0.len(), 1);
        assert!(both.key_set().contains(&last.0[0].id));
        assert!(!last.key_set().contains(&first.0[0].id));
    }

    #[test]
    fn a_file_with_a_bad_key_has_no_good_ones() {
        let good = SigningKeys::generate(BEGIN).unwrap().write().unwrap();
        let bad = |text: String| SigningKeys::read(&text).err();
        assert_eq!(bad(format!("{}1 AAAA\n", *good)), Some(BadKeys::Pair(2)));
        assert_eq!(bad(format!("{}\n", *good)), Some(BadKeys::Line(2)));
        assert_eq!(bad(String::new()), Some(BadKeys::None));
    }

    fn pem(kind: &str, der: &[u8]) -> Vec<u8> {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n").into_bytes()
    }

    const AS_CLIENT: client_assertion::Statement<'_> = client_assertion::Statement {
        client_id: "gate",
        audience: "https://idp.test",
        now: Seconds(0),
        id: [0; 16],
    };

    /// The header, the message and the signature.
    fn apart(token: &str) -> (serde_json::Value, &[u8], Vec<u8>) {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let header = decoded(message.split('.').next().unwrap());
        let header = crate::pure::json::parse(&header).unwrap();
        (header, message.as_bytes(), decoded(signature))
    }

    #[test]
    fn the_published_client_key_verifies_what_proves_who_the_gate_is() {
        use crate::pure::jwk::{Algorithm, KeySet};
        let signer = Arc::new(Signer::default());
        let key = ClientKey::Published(Arc::clone(&signer));
        assert_eq!(key.sign(&AS_CLIENT, true), Err(Unsigned::NoKey));
        signer.replace(SigningKeys::generate(BEGIN).unwrap());
        let token = key.sign(&AS_CLIENT, true).unwrap();
        let (header, message, _) = apart(&token);
        let keys = signer.keys().unwrap();
        let expected = serde_json::json!({"typ": "JWT", "alg": "ES256", "kid": keys.0[0].id});
        assert_eq!(header, expected);
        let set = KeySet::parse(keys.key_set().as_bytes()).unwrap();
        let public = set.find(Algorithm::Es256, header["kid"].as_str()).unwrap();
        let signature = token.rsplit_once('.').unwrap().1;
        assert!(public.verifies(Algorithm::Es256, message, signature));
    }

    #[test]
    fn a_given_key_signs_as_its_kind_does() {
        use aws_lc_rs::encoding::AsDer;
        use aws_lc_rs::signature::{
            ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
            UnparsedPublicKey,
        };
        let read = |der: &[u8]| GivenKey::read(&pem("PRIVATE KEY", der), Some("k".into()), None);
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = ClientKey::Given(read(pair.to_pkcs8v1().unwrap().as_ref()).unwrap());
        let token = key.sign(&AS_CLIENT, true).unwrap();
        let (header, message, signature) = apart(&token);
        assert_eq!(
            (&header["alg"], &header["kid"]),
            (&"ES256".into(), &"k".into())
        );
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key())
            .verify(message, &signature)
            .unwrap();

        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let key = ClientKey::Given(read(der.as_ref()).unwrap());
        for (pss, name, algorithm) in [
            (false, "RS256", &RSA_PKCS1_2048_8192_SHA256),
            (true, "PS256", &RSA_PSS_2048_8192_SHA256),
        ] {
            let token = key.sign(&AS_CLIENT, pss).unwrap();
            let (header, message, signature) = apart(&token);
            assert_eq!(header["alg"], name);
            UnparsedPublicKey::new(algorithm, pair.public_key())
                .verify(message, &signature)
                .unwrap();
        }
    }

    #[test]
    fn a_given_key_is_known_by_its_own_certificate_only() {
        let make = || {
            let pair = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&pair);
            (pair.serialize_pem(), certificate.unwrap())
        };
        let ((key, certificate), (_, others)) = (make(), make());
        let read = |certificate: &str| {
            GivenKey::read(key.as_bytes(), None, Some(certificate.as_bytes())).map(ClientKey::Given)
        };
        let token = read(&certificate.pem()).unwrap().sign(&AS_CLIENT, false);
        let (header, ..) = apart(token.as_ref().unwrap());
        let thumbprint = URL_SAFE_NO_PAD.encode(seal::hash(certificate.der()));
        let expected = serde_json::json!({"typ": "JWT", "alg": "ES256", "x5t#S256": thumbprint});
        assert_eq!(header, expected);
        assert_eq!(read(&others.pem()).err(), Some(BadKey::OtherCertificate));
        assert_eq!(read(&key).err(), Some(BadKey::Certificate));
    }

    #[test]
    fn what_is_no_key_that_signs_is_refused() {
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let (ed25519, p384) = (ed25519.serialize_pem(), p384.serialize_pem());
        let sec1 = pem("EC PRIVATE KEY", b"x");
        for text in [
            &b""[..],
            b"nonsense",
            ed25519.as_bytes(),
            p384.as_bytes(),
            &sec1,
        ] {
            let read = GivenKey::read(text, None, None);
            assert_eq!(read.err(), Some(BadKey::Key));
        }
    }

    #[test]
    fn the_published_key_verifies_what_was_signed_and_no_other_does() {
        use crate::pure::identity::User;
        use crate::pure::jwk::{Algorithm, KeySet};
        let user = User {
            name: "bob".into(),
            provider: "corp".into(),
            email: None,
            groups: Vec::new(),
            claims: Arc::default(),
            signed_in_at: BEGIN,
        };
        let statement = Statement {
            issuer: "https://wiki.test",
            audience: "wiki",
            user: &user,
            email: true,
            groups: true,
            method: "GET",
            host: "wiki.test",
            path: "/",
            query: None,
            now: Seconds(0),
            id: [0; 16],
        };
        let keys = SigningKeys::generate(BEGIN).unwrap();
        let token = keys.sign(&statement).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let verifies = |keys: &SigningKeys, id: Option<&str>, message: &str| {
            let set = KeySet::parse(keys.key_set().as_bytes()).unwrap();
            let key = set.find(Algorithm::Es256, id).unwrap();
            key.verifies(Algorithm::Es256, message.as_bytes(), signature)
        };
        assert!(verifies(&keys, Some(&keys.0[0].id), message));
        assert!(!verifies(&keys, None, &message[1..]));
        assert!(!verifies(
            &SigningKeys::generate(BEGIN).unwrap(),
            None,
            message
        ));
        // As long as was reckoned with.
        assert_eq!(signature.len(), 86);
    }
}
