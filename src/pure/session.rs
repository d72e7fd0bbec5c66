//! Sessions as values: the id in the cookie, its hash in the store, the sealed record, and time.
//!
//! The cookie holds 256 random bits. The store holds their SHA-256 as the key of the row, and the
//! record sealed under a key that HKDF derives from them: a stolen store signs nobody in and tells
//! nothing of who was. The hash is the record's context, so that rows can't be exchanged.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::claims::{self, Known, NotClaims};
use super::compact::{self, put_length, put_text, put_whole};
use super::hex;
use super::identity::User;
use super::seal::{self, Key, NONCE_BYTES, SealError};

/// Characters of the cookie's value: 32 bytes in base64url without padding.
pub const COOKIE_CHARACTERS: usize = 43;
/// The largest record in clear; what a sign-in states beyond that is refused, not cut.
pub const MAX_RECORD_BYTES: usize = 96 * 1024;
/// The most groups that a record holds.
pub const MAX_GROUPS: usize = 1024;

const VERSION: u8 = 3;

const PURPOSE: &[u8] = b"session record";

/// The secret in the cookie. Whoever holds it is signed in.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Id([u8; 32]);

/// What the store knows a session by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of 64 hexadecimal digits.
    pub fn parse(digits: &[u8]) -> Option<Self> {
        let pairs: &[[u8; 2]; 32] = digits.as_chunks().0.try_into().ok()?;
        let mut hash = Self([0; 32]);
        for (byte, [high, low]) in hash.0.iter_mut().zip(pairs) {
            *byte = hex::value_of(*high)? << 4 | hex::value_of(*low)?;
        }
        (digits.len() == 64).then_some(hash)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The cookie's value is not one that we ever sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl Id {
    /// The id of these random bytes.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The id that a cookie's value spells: exactly as we would, nothing decoded leniently
    /// (SECURITY.md S4).
    ///
    /// # Errors
    /// [`NotAnId`] for anything else.
    pub fn from_cookie(value: &str) -> Result<Self, NotAnId> {
        if value.len() != COOKIE_CHARACTERS {
            return Err(NotAnId);
        }
        let mut id = Self([0; 32]);
        match URL_SAFE_NO_PAD.decode_slice(value, &mut id.0) {
            Ok(32) => Ok(id),
            Ok(_) | Err(_) => Err(NotAnId),
        }
    }

    /// Itself, for the record of a session that ends with this one.
    pub fn as_parent(&self) -> Parent {
        Parent(Zeroizing::new(self.0))
    }

    /// The cookie's value.
    pub fn to_cookie(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0))
    }

    /// Another copy, for whoever has to seal the record anew.
    pub const fn again(&self) -> Self {
        Self(self.0)
    }

    /// What the store knows it by.
    pub fn hash(&self) -> Hash {
        Hash(seal::hash(&self.0))
    }

    fn key(&self) -> Result<Key, SealError> {
        Key::derive(&self.0, PURPOSE)
    }
}

/// Seconds since 1970, the unit of every time in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u64);

impl Seconds {
    /// The whole second that `time` is in; 1970 for a time before it.
    pub fn of(time: SystemTime) -> Self {
        Self(
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        )
    }

    /// This second's beginning; none if it is too far for the platform's clock.
    pub fn time(self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0))
    }

    /// This second and `duration`, without running over the end of time.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }
}

/// How long a session lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// From sign-in, whatever happens.
    pub absolute: Duration,
    /// From the last request.
    pub idle: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            absolute: Duration::from_secs(12 * 3600),
            idle: Duration::from_secs(3600),
        }
    }
}

/// Everything a session remembers of its sign-in.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Who signed in.
    pub user: Arc<User>,
    /// When the session was made.
    pub created: Seconds,
    /// When it ends, whatever happens.
    pub expires: Seconds,
    /// A fingerprint of what was proved, such as the password's hash: when that changes, the
    /// session ends.
    pub proof: [u8; 16],
    /// What the provider gave; none for a local account.
    pub tokens: Option<Tokens>,
    /// The session at the sign-in host that this one was made of, and ends with.
    pub parent: Option<Parent>,
}

/// The secret of another session: whoever holds it is signed in there.
#[derive(Clone, PartialEq)]
pub struct Parent(pub Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Parent {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parent")
    }
}

impl Parent {
    /// The id of that session.
    pub fn id(&self) -> Id {
        Id(*self.0)
    }
}

/// What an identity provider gave with a sign-in: to ask it again, and to sign out there.
#[derive(Clone, PartialEq)]
pub struct Tokens {
    /// The user as the provider knows them.
    pub subject: String,
    /// The session at the provider.
    pub session: Option<String>,
    /// What the provider is asked with whether all this still holds.
    pub refresh: Option<Zeroizing<String>>,
    /// The ID token, which says at sign-out who it is.
    pub id: Option<Zeroizing<String>>,
    /// When the provider last said so.
    pub checked: Seconds,
}

impl std::fmt::Debug for Tokens {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("checked", &self.checked)
            .finish_non_exhaustive()
    }
}

/// Why bytes are not a record, or a record not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecord {
    /// Not sealed for this id.
    Seal(SealError),
    /// Longer than [`MAX_RECORD_BYTES`] or with more than [`MAX_GROUPS`] groups.
    TooLarge,
    /// Of a version this program does not know.
    UnknownVersion,
    /// Cut short, or with something behind its end.
    Length,
    /// A text that is not UTF-8, a tag out of range, claims that are no object, or a time out of
    /// range.
    Value,
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seal(why) => why.fmt(f),
            Self::TooLarge => f.write_str("the session record is too large"),
            Self::UnknownVersion => f.write_str("the session record is of an unknown version"),
            Self::Length => f.write_str("the session record is cut short or too long"),
            Self::Value => f.write_str("the session record holds an impossible value"),
        }
    }
}

impl std::error::Error for BadRecord {}

impl Record {
    /// The record sealed so that it opens with `id` only. `nonce` is random.
    ///
    /// # Errors
    /// [`BadRecord::TooLarge`], or [`BadRecord::Seal`] if the library fails.
    pub fn seal(&self, id: &Id, nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, BadRecord> {
        let plain = Zeroizing::new(self.encode()?);
        id.key()
            .and_then(|key| key.seal(nonce, &id.hash().0, &plain))
            .map_err(BadRecord::Seal)
    }

    /// The record that was sealed for `id`.
    ///
    /// # Errors
    /// What is wrong with the envelope or the record in it.
    pub fn open(id: &Id, envelope: &[u8]) -> Result<Self, BadRecord> {
        if envelope.len() > MAX_RECORD_BYTES.saturating_add(seal::OVERHEAD_BYTES) {
            return Err(BadRecord::TooLarge);
        }
        let plain = id
            .key()
            .and_then(|key| key.open(&id.hash().0, envelope))
            .map_err(BadRecord::Seal)?;
        Self::decode(&plain)
    }

    /// The bytes of the record: fixed fields first, then texts behind their lengths.
    ///
    /// # Errors
    /// [`BadRecord::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, BadRecord> {
        if self.user.groups.len() > MAX_GROUPS {
            return Err(BadRecord::TooLarge);
        }
        let mut out = vec![VERSION];
        for time in [
            self.created,
            self.expires,
            Seconds::of(self.user.signed_in_at),
        ] {
            put_whole(time.0, &mut out);
        }
        out.extend_from_slice(&self.proof);
        put_text(&self.user.provider, &mut out);
        put_text(&self.user.name, &mut out);
        match &self.user.email {
            None => out.push(0),
            Some(email) => {
                out.push(1);
                put_text(email, &mut out);
            }
        }
        put_length(self.user.groups.len(), &mut out);
        for group in &self.user.groups {
            put_text(group, &mut out);
        }
        match &self.tokens {
            None => out.push(0),
            Some(tokens) => {
                out.push(1);
                put_whole(tokens.checked.0, &mut out);
                put_text(&tokens.subject, &mut out);
                for text in [
                    tokens.session.as_deref(),
                    tokens.refresh.as_ref().map(|token| token.as_str()),
                    tokens.id.as_ref().map(|token| token.as_str()),
                ] {
                    out.push(u8::from(text.is_some()));
                    if let Some(text) = text {
                        put_text(text, &mut out);
                    }
                }
            }
        }
        out.push(u8::from(self.parent.is_some()));
        if let Some(Parent(secret)) = &self.parent {
            out.extend_from_slice(secret.as_slice());
        }
        let subject = self.tokens.as_ref().map(|tokens| &*tokens.subject);
        let known = known(&self.user, subject);
        claims::encode(&self.user.claims, &known, &mut out);
        if out.len() > MAX_RECORD_BYTES {
            return Err(BadRecord::TooLarge);
        }
        Ok(out)
    }

    /// The record of these bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(BadRecord::TooLarge);
        }
        let mut rest = Reader(compact::Reader(bytes));
        let [version] = rest.array()?;
        if version != VERSION {
            return Err(BadRecord::UnknownVersion);
        }
        let created = rest.seconds()?;
        let expires = rest.seconds()?;
        let signed_in_at = rest.seconds()?.time().ok_or(BadRecord::Value)?;
        let proof = rest.array()?;
        let provider = rest.text()?.into();
        let name = rest.text()?.into();
        let email = rest.optional()?.map(Into::into);
        let groups = rest.0.length().ok_or(BadRecord::Length)?;
        if groups > MAX_GROUPS {
            return Err(BadRecord::TooLarge);
        }
        let groups = (0..groups)
            .map(|_| rest.text().map(Arc::from))
            .collect::<Result<_, _>>()?;
        let tokens = rest.tokens()?;
        let parent = rest.parent()?;
        let mut user = User {
            name,
            provider,
            email,
            groups,
            claims: Arc::default(),
            signed_in_at,
        };
        let subject = tokens.as_ref().map(|tokens| &*tokens.subject);
        let claims = claims::decode(rest.0.0, &known(&user, subject));
        user.claims = Arc::new(claims.map_err(|NotClaims| BadRecord::Value)?);
        Ok(Self {
            user: Arc::new(user),
            created,
            expires,
            proof,
            tokens,
            parent,
        })
    }
}

/// What a record says before its claims.
fn known<'k>(user: &'k User, subject: Option<&'k str>) -> Known<'k> {
    Known {
        name: &user.name,
        email: user.email.as_deref(),
        subject,
        groups: &user.groups,
    }
}

struct Reader<'b>(compact::Reader<'b>);

impl<'b> Reader<'b> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        self.0.array().ok_or(BadRecord::Length)
    }

    fn whole(&mut self) -> Result<u64, BadRecord> {
        self.0.whole().ok_or(BadRecord::Length)
    }

    fn seconds(&mut self) -> Result<Seconds, BadRecord> {
        self.whole().map(Seconds)
    }

    fn text(&mut self) -> Result<&'b str, BadRecord> {
        let bytes = self.0.bytes().ok_or(BadRecord::Length)?;
        std::str::from_utf8(bytes).map_err(|_| BadRecord::Value)
    }

    /// Whether something follows.
    fn follows(&mut self) -> Result<bool, BadRecord> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(BadRecord::Value),
        }
    }

    fn optional(&mut self) -> Result<Option<&'b str>, BadRecord> {
        self.follows()?.then(|| self.text()).transpose()
    }

    fn parent(&mut self) -> Result<Option<Parent>, BadRecord> {
        if !self.follows()? {
            return Ok(None);
        }
        Ok(Some(Parent(Zeroizing::new(self.array()?))))
    }

    fn tokens(&mut self) -> Result<Option<Tokens>, BadRecord> {
        if !self.follows()? {
            return Ok(None);
        }
        let secret = |text: Option<&str>| text.map(|text| Zeroizing::new(text.to_owned()));
        Ok(Some(Tokens {
            checked: self.seconds()?,
            subject: self.text()?.to_owned(),
            session: self.optional()?.map(str::to_owned),
            refresh: secret(self.optional()?),
            id: secret(self.optional()?),
        }))
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// A record that decodes encodes to one that decodes to the same.
    pub fn session_record(bytes: &[u8]) {
        if let Ok(record) = Record::decode(bytes)
            && let Ok(encoded) = record.encode()
        {
            assert_eq!(Record::decode(&encoded), Ok(record));
        }
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(id) = Id::from_cookie(text)
        {
            assert_eq!(*id.to_cookie(), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        let claims = serde_json::json!({"dept": ["x", "y"], "level": 3});
        Record {
            user: Arc::new(User {
                name: "bob".into(),
                provider: "local".into(),
                email: Some("bob@corp.test".into()),
                groups: vec!["staff".into(), "wiki".into()],
                claims: Arc::new(claims.as_object().unwrap().clone()),
                signed_in_at: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            }),
            created: Seconds(1_700_000_000),
            expires: Seconds(1_700_043_200),
            proof: [1; 16],
            tokens: Some(Tokens {
                subject: "b0b".to_owned(),
                session: Some("sid".to_owned()),
                refresh: Some(Zeroizing::new("refresh-me".to_owned())),
                id: None,
                checked: Seconds(1_700_000_000),
            }),
            parent: Some(Parent(Zeroizing::new([7; 32]))),
        }
    }

    #[test]
    fn no_token_is_in_a_debug_print() {
        assert!(!format!("{:?}", record()).contains("refresh-me"));
    }

    #[test]
    fn the_cookie_value_is_read_as_it_is_written_and_no_other_way() {
        let id = Id::new([0xfb; 32]);
        let cookie = id.to_cookie();
        assert_eq!(cookie.len(), COOKIE_CHARACTERS);
        assert_eq!(Id::from_cookie(&cookie).unwrap().hash(), id.hash());
    }

    #[test]
    fn malformed_cookie_values_are_no_ids() {
        let good = Id::new([0; 32]).to_cookie();
        let padded = format!("{}=", *good);
        let trailing_bits = format!("{}B", &good[..42]);
        let standard_alphabet = format!("+/{}", &good[2..]);
        let long = "A".repeat(65_536);
        for value in [
            "",
            "A",
            &good[..42],
            &padded,
            &trailing_bits,
            &standard_alphabet,
            &long,
            &format!("{} ", &good[..42]),
            &format!("{}\u{e9}", &good[..41]),
        ] {
            assert!(Id::from_cookie(value).is_err(), "{value:.50}");
        }
    }

    #[test]
    fn a_hash_is_read_as_it_was_written_and_no_other_way() {
        let hash = Id::new([0xfb; 32]).hash();
        let text = hash.to_string();
        assert_eq!(Hash::parse(text.as_bytes()), Some(hash));
        for wrong in [
            &text[1..],
            &text[2..],
            &format!("{text}00"),
            &format!("{text}0"),
            "",
            "x",
        ] {
            assert_eq!(Hash::parse(wrong.as_bytes()), None);
        }
        assert_eq!(Hash::parse(text.replacen('f', "g", 1).as_bytes()), None);
    }

    #[test]
    fn a_record_opens_with_its_own_id_only() {
        let id = Id::new([1; 32]);
        let sealed = record().seal(&id, [0; 12]).unwrap();
        assert_eq!(Record::open(&id, &sealed).unwrap(), record());
        assert_eq!(
            Record::open(&Id::new([2; 32]), &sealed),
            Err(BadRecord::Seal(SealError::NotAuthentic))
        );
    }

    #[test]
    fn a_sealed_record_shows_nothing_of_the_user() {
        let sealed = record().seal(&Id::new([1; 32]), [0; 12]).unwrap();
        for word in [&b"bob"[..], b"corp.test", b"staff", b"refresh"] {
            assert!(!sealed.windows(word.len()).any(|window| window == word));
        }
    }

    #[test]
    fn a_record_cut_or_lengthened_at_any_byte_is_refused() {
        let bytes = record().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Record::decode(&bytes[..length]).is_err(), "length {length}");
        }
        let longer = [&bytes[..], b"\0"].concat();
        assert_eq!(Record::decode(&longer), Err(BadRecord::Value));
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let mut bytes = record().encode().unwrap();
        bytes[0] = VERSION + 1;
        assert_eq!(Record::decode(&bytes), Err(BadRecord::UnknownVersion));
    }

    #[test]
    fn a_record_too_large_is_refused_and_not_cut() {
        let mut large = record();
        let groups = vec![Arc::from("g"); MAX_GROUPS + 1];
        large.user = Arc::new(User {
            groups,
            ..(*large.user).clone()
        });
        assert_eq!(large.encode(), Err(BadRecord::TooLarge));
        let groups = vec![Arc::from("g".repeat(1000)); 200];
        large.user = Arc::new(User {
            groups,
            ..(*large.user).clone()
        });
        assert_eq!(large.encode(), Err(BadRecord::TooLarge));
    }

    prop_compose! {
        fn any_record()(
            texts in [".{0,40}", ".{0,40}", ".{0,40}"],
            groups in proptest::collection::vec(".{0,20}", 0..8),
            has_email: bool, created: u32, lasts: u32, proof: [u8; 16],
            claim in ".{0,20}", value: i64, id in proptest::option::of(".{0,20}"),
            has_tokens: bool, parent in proptest::option::of(any::<[u8; 32]>()),
        ) -> Record {
            let [provider, name, email] = texts;
            let claims = [(claim, serde_json::Value::from(value))].into_iter().collect();
            let tokens = has_tokens.then(|| Tokens {
                subject: name.clone(),
                session: id.clone(),
                refresh: None,
                id: id.map(Zeroizing::new),
                checked: Seconds(created.into()),
            });
            Record {
                user: Arc::new(User {
                    name: name.into(),
                    provider: provider.into(),
                    email: has_email.then(|| email.into()),
                    groups: groups.into_iter().map(Arc::from).collect(),
                    claims: Arc::new(claims),
                    signed_in_at: Seconds(created.into()).time().unwrap(),
                }),
                created: Seconds(created.into()),
                expires: Seconds(created.into()).plus(Duration::from_secs(lasts.into())),
                proof, tokens,
                parent: parent.map(|secret| Parent(Zeroizing::new(secret))),
            }
        }
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were(record in any_record()) {
            prop_assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            fuzzing::session_record(&bytes);
        }

        #[test]
        fn altered_records_do_not_panic(record in any_record(), at: prop::sample::Index, to: u8) {
            let mut bytes = record.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            fuzzing::session_record(&bytes);
        }
    }
}
