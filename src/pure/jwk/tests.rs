//! Tests of keys and key sets, and keys for the tests of others.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A signing key, for tests.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                json!({"kty": "RSA", "kid": kid,
                    "n": encode(public.modulus().big_endian_without_leading_zero()),
                    "e": encode(public.exponent().big_endian_without_leading_zero())})
            }
            Self::P256(pair) | Self::P384(pair) => {
                let (_, point) = pair.public_key().as_ref().split_first().unwrap();
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "kid": kid, "x": encode(x), "y": encode(y)})
            }
            Self::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid,
                "x": encode(pair.public_key())}),
        }
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> String {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    Algorithm::Rs256 | Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => {
                        &signature::RSA_PKCS1_SHA256
                    }
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut out).unwrap();
                encode(out)
            }
            Self::P256(pair) | Self::P384(pair) => encode(pair.sign(&random, message).unwrap()),
            Self::Ed25519(pair) => encode(pair.sign(message)),
        }
    }
}

pub(crate) fn set(keys: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({ "keys": keys })).unwrap()
}

#[track_caller]
fn passed_over(jwk: Value, why: PassedOver) {
    let usable = Signer::ed25519().jwk("usable");
    let set = KeySet::parse(&set(&[jwk.clone(), usable])).unwrap();
    assert_eq!((set.usable(), set.passed_over()), (1, &[why][..]), "{jwk}");
}

fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
    jwk[name] = value.into();
    jwk
}

#[test]
fn each_algorithm_verifies_with_its_own_key_and_no_other() {
    let signers = [
        Signer::rsa(),
        Signer::p256(),
        Signer::p384(),
        Signer::ed25519(),
        Signer::rsa(),
    ];
    let sets: Vec<_> = signers
        .iter()
        .map(|signer| KeySet::parse(&set(&[signer.jwk("k")])).unwrap())
        .collect();
    for (by, signer) in signers.iter().enumerate() {
        for algorithm in Algorithm::ALL {
            let fits = sets[by].find(algorithm, Some("k")).is_ok();
            let signature = signer.sign(algorithm, b"message");
            for (with, set) in sets.iter().enumerate() {
                let key = &set.keys[0];
                let right = fits && by == with;
                assert_eq!(key.verifies(algorithm, b"message", &signature), right);
                assert!(!key.verifies(algorithm, b"massage", &signature));
                assert!(!key.verifies(algorithm, b"message", ""));
            }
        }
    }
}

#[test]
fn a_key_bound_to_an_algorithm_verifies_no_other() {
    let signer = Signer::rsa();
    let bound = with(signer.jwk("k"), "alg", "RS256");
    let keys = KeySet::parse(&set(&[bound])).unwrap();
    assert!(keys.find(Algorithm::Rs256, Some("k")).is_ok());
    assert_eq!(
        keys.find(Algorithm::Ps256, Some("k")).err(),
        Some(NoKey::Unknown)
    );
    let signature = signer.sign(Algorithm::Ps256, b"m");
    assert!(!keys.keys[0].verifies(Algorithm::Ps256, b"m", &signature));
}

#[test]
fn keys_are_told_apart_by_id_and_type() {
    let keys = KeySet::parse(&set(&[
        Signer::p256().jwk("a"),
        Signer::p256().jwk("b"),
        Signer::ed25519().jwk("a"),
    ]))
    .unwrap();
    assert!(keys.find(Algorithm::Es256, Some("a")).is_ok());
    assert!(
        keys.find(Algorithm::EdDsa, None).is_ok(),
        "the only one of its type"
    );
    assert_eq!(
        keys.find(Algorithm::Es256, None).err(),
        Some(NoKey::Ambiguous)
    );
    assert_eq!(
        keys.find(Algorithm::Es256, Some("c")).err(),
        Some(NoKey::Unknown)
    );
    assert_eq!(
        keys.find(Algorithm::EdDsa, Some("b")).err(),
        Some(NoKey::Unknown)
    );
    let twins = KeySet::parse(&set(&[Signer::p256().jwk("a"), Signer::p256().jwk("a")]));
    assert_eq!(
        twins.unwrap().find(Algorithm::Es256, Some("a")).err(),
        Some(NoKey::Ambiguous)
    );
}

#[test]
fn keys_that_must_not_verify_are_passed_over() {
    let rsa = Signer::rsa().jwk("k");
    let p256 = Signer::p256().jwk("k");
    let okp = Signer::ed25519().jwk("k");
    passed_over(
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        PassedOver::Symmetric,
    );
    passed_over(with(rsa.clone(), "d", "AQAB"), PassedOver::Private);
    passed_over(with(rsa.clone(), "use", "enc"), PassedOver::OtherUse);
    passed_over(
        with(rsa.clone(), "key_ops", json!(["encrypt"])),
        PassedOver::OtherUse,
    );
    passed_over(
        with(rsa.clone(), "key_ops", "verify"),
        PassedOver::Malformed,
    );
    passed_over(with(rsa.clone(), "alg", "HS256"), PassedOver::OtherUse);
    passed_over(with(rsa.clone(), "alg", "none"), PassedOver::OtherUse);
    passed_over(with(rsa.clone(), "alg", "ES256"), PassedOver::Malformed);
    passed_over(with(rsa.clone(), "kid", 1), PassedOver::Malformed);
    passed_over(with(rsa.clone(), "e", "AQ"), PassedOver::WeakRsa);
    passed_over(with(rsa.clone(), "e", "Ag"), PassedOver::WeakRsa);
    passed_over(
        with(rsa.clone(), "n", encode([0xff; 128])),
        PassedOver::WeakRsa,
    );
    passed_over(
        with(rsa.clone(), "n", encode([0x7f; 256])),
        PassedOver::WeakRsa,
    );
    passed_over(
        with(rsa.clone(), "n", encode([0; 256])),
        PassedOver::Malformed,
    );
    passed_over(with(rsa.clone(), "n", "a+b="), PassedOver::Malformed);
    passed_over(with(rsa, "kty", "rsa"), PassedOver::UnknownType);
    passed_over(
        with(p256.clone(), "crv", "secp256k1"),
        PassedOver::UnknownType,
    );
    passed_over(with(p256.clone(), "crv", "P-384"), PassedOver::Malformed);
    passed_over(with(p256, "y", "AA"), PassedOver::Malformed);
    passed_over(with(okp.clone(), "crv", "Ed448"), PassedOver::UnknownType);
    passed_over(with(okp, "crv", "X25519"), PassedOver::UnknownType);
    passed_over(json!("text"), PassedOver::Malformed);
    passed_over(json!({}), PassedOver::Malformed);
}

#[test]
fn a_point_off_the_curve_verifies_nothing() {
    let signer = Signer::p256();
    let off = with(signer.jwk("k"), "y", encode([1; 32]));
    let keys = KeySet::parse(&set(&[off])).unwrap();
    let signature = signer.sign(Algorithm::Es256, b"m");
    assert!(!keys.keys[0].verifies(Algorithm::Es256, b"m", &signature));
}

#[test]
fn what_is_no_set_is_refused() {
    let refused = |bytes: &[u8]| KeySet::parse(bytes).err().unwrap();
    assert_eq!(refused(b""), BadKeySet::Json(BadJson::Syntax));
    assert_eq!(
        refused(br#"{"keys":[],"keys":[]}"#),
        BadKeySet::Json(BadJson::Repeated)
    );
    assert_eq!(refused(b"[]"), BadKeySet::NotASet);
    assert_eq!(refused(br#"{"keys":{}}"#), BadKeySet::NotASet);
    assert_eq!(refused(br#"{"keys":[]}"#), BadKeySet::NoKey);
    assert_eq!(
        refused(br#"{"keys":[{"kty":"oct","k":"AA"}]}"#),
        BadKeySet::NoKey
    );
    assert_eq!(refused(&vec![b' '; MAX_SET_BYTES + 1]), BadKeySet::TooLarge);
    assert_eq!(
        refused(&set(&vec![json!({}); MAX_KEYS + 1])),
        BadKeySet::TooLarge
    );
}

#[test]
fn no_symmetric_algorithm_has_a_name_here() {
    for name in [
        "none", "None", "HS256", "HS384", "HS512", "", "rs256", "ES512", "RS256 ",
    ] {
        assert_eq!(Algorithm::named(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn altered_sets_do_not_panic(at: prop::sample::Index, to: u8) {
        let mut bytes = set(&[json!({"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig",
            "x": encode([1; 32]), "y": encode([2; 32])})]);
        let at = at.index(bytes.len());
        bytes[at] = to;
        fuzzing::jwks(&bytes);
    }
}
