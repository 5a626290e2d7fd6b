//! Who sent it: NTP's symmetric keys with AES-CMAC (RFC 8573), and nothing older.
//!
//! A key has a number that goes over the wire and a secret that never does, nor to the console: what
//! is wrong with a key is told without showing any of it. MD5 and SHA-1 keys are refused.

use core::fmt;

use aes::{Aes128Enc, Aes256Enc};
use cmac::digest::CtOutput;
use cmac::{Cmac, KeyInit, Mac};

/// Keys that there is room for.
pub const CAPACITY: usize = 16;

/// Length of a tag, in bytes.
pub const TAG: usize = 16;

/// The keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    keys: [Option<Key>; CAPACITY],
}

impl Keys {
    /// No keys.
    pub const NONE: Self = Self {
        keys: [None; CAPACITY],
    };

    /// Adds a key from `ID:TYPE:HEX` as it stands on a command line: `TYPE` is `AES128` or `AES256`,
    /// `HEX` the secret in hexadecimal digits, with or without the prefix `HEX:`.
    ///
    /// # Errors
    /// [`KeyError`], and then nothing was added.
    pub fn parse_word(&mut self, word: &str) -> Result<(), KeyError> {
        let mut parts = word.splitn(3, ':');
        let (Some(id), Some(cipher), Some(secret)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(KeyError::Form);
        };
        let digits = secret.strip_prefix("HEX:").unwrap_or(secret);
        self.add(Key::new(id, cipher, Secret::Hexadecimal(digits))?)
    }

    /// Adds the keys of a file in chrony's format and calls `warn` for every line that is not taken.
    ///
    /// A line is `ID TYPE KEY`, separated by white space; `KEY` is `HEX:` and hexadecimal digits, or
    /// characters to be taken as they are, with or without the prefix `ASCII:`. Lines that are blank
    /// or start with `#`, `%`, `;` or `!` are comments. A line without a type would be an MD5 key.
    pub fn parse_file(&mut self, file: &[u8], warn: &mut dyn FnMut(KeyWarning)) {
        for (number, line) in file.split(|byte| *byte == b'\n').enumerate() {
            if let Err(error) = self.parse_line(line) {
                warn(KeyWarning {
                    line: number + 1,
                    error,
                });
            }
        }
    }

    fn parse_line(&mut self, line: &[u8]) -> Result<(), KeyError> {
        let line = core::str::from_utf8(line).map_err(|_| KeyError::Form)?;
        let mut words = line.split_ascii_whitespace();
        let id = match words.next() {
            None => return Ok(()),
            Some(word) if word.starts_with(['#', '%', ';', '!']) => return Ok(()),
            Some(id) => id,
        };
        let (cipher, key) = match (words.next(), words.next(), words.next()) {
            (Some(cipher), Some(key), None) => (cipher, key),
            (Some(_), None, None) => return Err(KeyError::Cipher),
            _ => return Err(KeyError::Form),
        };
        let secret = match key.strip_prefix("HEX:") {
            Some(digits) => Secret::Hexadecimal(digits),
            None => Secret::Characters(key.strip_prefix("ASCII:").unwrap_or(key)),
        };
        self.add(Key::new(id, cipher, secret)?)
    }

    fn add(&mut self, key: Key) -> Result<(), KeyError> {
        if self.find(key.id).is_some() {
            return Err(KeyError::Repeated);
        }
        let free = self.keys.iter_mut().find(|place| place.is_none());
        *free.ok_or(KeyError::Full)? = Some(key);
        Ok(())
    }

    /// The key of that number.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&Key> {
        self.keys
            .iter()
            .map_while(Option::as_ref)
            .find(|key| key.id == id)
    }
}

/// What is the matter with a key. Says nothing of what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not a number, a type and a key.
    Form,
    /// The number is not 1 to 4294967295.
    Id,
    /// A type that is not supported.
    Cipher,
    /// The key is not as long as its type wants it, or not of hexadecimal digits.
    Length,
    /// There is a key of that number.
    Repeated,
    /// There is no room for more.
    Full,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "not a number, a type and a key",
            Self::Id => "the number is not 1 to 4294967295",
            Self::Cipher => "the type is not AES128 or AES256",
            Self::Length => "the key is not as long as its type wants, or no hexadecimal number",
            Self::Repeated => "there is a key of that number already",
            Self::Full => "there is no room for more than 16 keys",
        })
    }
}

impl core::error::Error for KeyError {}

/// A line of a key file that was not taken. `Display` is a whole clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWarning {
    /// Which line, counted from 1.
    pub line: usize,
    /// What is the matter with it.
    pub error: KeyError,
}

impl fmt::Display for KeyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ntp key file: line {} ignored: {}",
            self.line, self.error
        )
    }
}

/// A symmetric key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    id: u32,
    cipher: Cipher,
}

/// A cipher with its secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128([u8; 16]),
    Aes256([u8; 32]),
}

/// A secret as it is written.
#[derive(Clone, Copy)]
enum Secret<'a> {
    Hexadecimal(&'a str),
    Characters(&'a str),
}

impl Key {
    fn new(id: &str, cipher: &str, secret: Secret<'_>) -> Result<Self, KeyError> {
        let digits = id.bytes().all(|byte| byte.is_ascii_digit());
        let id = id.parse().ok().filter(|id| *id != 0 && digits);
        let id = id.ok_or(KeyError::Id)?;
        let cipher = match cipher {
            "AES128" => secret.bytes().map(Cipher::Aes128),
            "AES256" => secret.bytes().map(Cipher::Aes256),
            _ => return Err(KeyError::Cipher),
        };
        let cipher = cipher.ok_or(KeyError::Length)?;
        Ok(Self { id, cipher })
    }

    /// The number that goes over the wire.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The key made ready for tags.
    #[inline(never)]
    #[must_use]
    pub fn authenticator(&self) -> Authenticator {
        Authenticator(match &self.cipher {
            Cipher::Aes128(secret) => Ready::Aes128(Cmac::new(secret.into())),
            Cipher::Aes256(secret) => Ready::Aes256(Cmac::new(secret.into())),
        })
    }
}

/// Only the number.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Secret<'_> {
    /// The secret, if it is of just that length.
    fn bytes<const N: usize>(self) -> Option<[u8; N]> {
        match self {
            Self::Characters(text) => text.as_bytes().try_into().ok(),
            Self::Hexadecimal(text) => {
                let (pairs, rest) = text.as_bytes().as_chunks::<2>();
                if pairs.len() != N || !rest.is_empty() {
                    return None;
                }
                let mut bytes = [0; N];
                for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
                    *byte = nibble(*high)? << 4 | nibble(*low)?;
                }
                Some(bytes)
            }
        }
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

/// A key with its round keys: makes and checks tags.
pub struct Authenticator(Ready);

enum Ready {
    Aes128(Cmac<Aes128Enc>),
    Aes256(Cmac<Aes256Enc>),
}

impl Authenticator {
    /// The tag of a message in parts (RFC 4493 §2.4).
    #[must_use]
    pub fn tag(&self, message: &[&[u8]]) -> [u8; TAG] {
        match &self.0 {
            Ready::Aes128(mac) => tag(mac, message).into_bytes().into(),
            Ready::Aes256(mac) => tag(mac, message).into_bytes().into(),
        }
    }

    /// Whether `tag` is that of `message`, in a time that does not depend on where they differ.
    #[must_use]
    pub fn verifies(&self, message: &[&[u8]], claimed: [u8; TAG]) -> bool {
        // It is the type of a tag that compares in constant time.
        match &self.0 {
            Ready::Aes128(mac) => tag(mac, message) == CtOutput::new(claimed.into()),
            Ready::Aes256(mac) => tag(mac, message) == CtOutput::new(claimed.into()),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

/// Out of line: most requests are not authenticated.
#[inline(never)]
fn tag<M: Mac + Clone>(mac: &M, message: &[&[u8]]) -> CtOutput<M> {
    let mut mac = mac.clone();
    for part in message {
        mac.update(part);
    }
    mac.finalize()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    /// The key of RFC 4493 §4, and that of SP 800-38B appendix D.3.
    const AES128: &str = "2b7e151628aed2a6abf7158809cf4f3c";
    const AES256: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
    const MESSAGE: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
                           30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
            .collect()
    }

    fn key(word: &str) -> Key {
        let mut keys = Keys::NONE;
        keys.parse_word(word).expect("a key");
        *keys.find(7).expect("the key")
    }

    #[test]
    fn published_vectors() {
        let (short, long) = (
            format!("7:AES128:{AES128}"),
            format!("7:AES256:HEX:{AES256}"),
        );
        for (word, length, tag) in [
            // RFC 4493 §4.
            (&short, 0, "bb1d6929e95937287fa37d129b756746"),
            (&short, 16, "070a16b46b4d4144f79bdd9dd04a287c"),
            (&short, 40, "dfa66747de9ae63030ca32611497c827"),
            (&short, 64, "51f0bebf7e3b9d92fc49741779363cfe"),
            // SP 800-38B, D.3.
            (&long, 0, "028962f61b7bf89efc6b551f4667d983"),
            (&long, 16, "28a7023f452e8f82bd4bf28d8c37c35c"),
            (&long, 40, "aaf3d8f1de5640c232f5b169b9c911e6"),
            (&long, 64, "e1992190549f6ed5696a2c056c315410"),
        ] {
            let authenticator = key(word).authenticator();
            let message = &bytes(MESSAGE)[..length];
            let tag: [u8; TAG] = bytes(tag).try_into().expect("16 bytes");
            assert_eq!(authenticator.tag(&[message]), tag, "{length} bytes");
            for cut in 0..=length {
                let (first, second) = message.split_at(cut);
                assert!(authenticator.verifies(&[first, second], tag));
            }
            for bit in 0..128 {
                let mut wrong = tag;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!authenticator.verifies(&[message], wrong), "bit {bit}");
            }
        }
    }

    #[test]
    fn words_that_are_no_keys() {
        use KeyError::{Cipher, Form, Id, Length, Repeated};
        for (word, error) in [
            ("", Form),
            ("1", Form),
            ("1:AES128", Form),
            ("1:AES128:", Length),
            ("0:AES128:00", Id),
            ("x:AES128:00", Id),
            ("+1:AES128:00", Id),
            ("4294967296:AES128:00", Id),
            ("1:MD5:2b7e151628aed2a6abf7158809cf4f3c", Cipher),
            ("1:SHA1:2b7e151628aed2a6abf7158809cf4f3c", Cipher),
            ("1:aes128:2b7e151628aed2a6abf7158809cf4f3c", Cipher),
            ("1:AES256:2b7e151628aed2a6abf7158809cf4f3c", Length),
            ("1:AES128:2b7e151628aed2a6abf7158809cf4f3", Length),
            ("1:AES128:2b7e151628aed2a6abf7158809cf4f3c0", Length),
            ("1:AES128:2b7e151628aed2a6abf7158809cf4f3g", Length),
            ("1:AES128:+b7e151628aed2a6abf7158809cf4f3c", Length),
            ("1:AES128:ASCII:sixteen characte", Length),
            ("7:AES128:00000000000000000000000000000000", Repeated),
        ] {
            let mut keys = Keys::NONE;
            keys.parse_word(&format!("7:AES128:{AES128}"))
                .expect("a key");
            let before = keys;
            assert_eq!(keys.parse_word(word), Err(error), "{word}");
            assert_eq!(keys, before, "{word}");
        }
    }

    #[test]
    fn a_key_file() {
        let file = format!(
            "# comment\n% comment\n; comment\n! comment\n\n  \t \r\n\
             1 AES128 HEX:{AES128}\r\n\
             \t2  AES256\tHEX:{AES256} \n\
             3 AES128 sixteen-letters!\n\
             4 AES128 ASCII:sixteen-letters!\n\
             5 secret\n\
             6 MD5 secret\n\
             7 SHA1 HEX:00\n\
             8 AES128 HEX:00\n\
             9 AES128 HEX:{AES128} more\n\
             zero AES128 HEX:{AES128}\n\
             1 AES128 HEX:{AES128}\n\
             10 AES128 HEX:{AES128}"
        );
        let mut file = file.into_bytes();
        file.extend(b"\n11 AES128 \xff\xfe\n");
        let mut keys = Keys::NONE;
        let mut warnings = Vec::new();
        keys.parse_file(&file, &mut |warning| warnings.push(warning));
        let ids: Vec<u32> = keys.keys.iter().flatten().map(Key::id).collect();
        assert_eq!(ids, [1, 2, 3, 4, 10]);
        assert!(keys.find(3).map(|key| key.cipher) == keys.find(4).map(|key| key.cipher));
        assert!(keys.find(1).map(|key| key.cipher) == keys.find(10).map(|key| key.cipher));
        let lines: Vec<_> = warnings
            .iter()
            .map(|warning| (warning.line, warning.error))
            .collect();
        assert_eq!(
            lines,
            [
                (11, KeyError::Cipher),
                (12, KeyError::Cipher),
                (13, KeyError::Cipher),
                (14, KeyError::Length),
                (15, KeyError::Form),
                (16, KeyError::Id),
                (17, KeyError::Repeated),
                (19, KeyError::Form),
            ]
        );
        assert_eq!(
            warnings[0].to_string(),
            "ntp key file: line 11 ignored: the type is not AES128 or AES256"
        );
    }

    #[test]
    fn too_many_keys() {
        let mut keys = Keys::NONE;
        for id in 1..=16 {
            assert_eq!(keys.parse_word(&format!("{id}:AES128:{AES128}")), Ok(()));
        }
        assert_eq!(
            keys.parse_word(&format!("17:AES128:{AES128}")),
            Err(KeyError::Full)
        );
        assert!(keys.find(16).is_some() && keys.find(17).is_none());
    }

    #[test]
    fn nothing_prints_a_key() {
        let mut keys = Keys::NONE;
        keys.parse_word(&format!("7:AES128:{AES128}"))
            .expect("a key");
        let authenticator = key(&format!("7:AES256:{AES256}")).authenticator();
        let said = format!("{keys:?} {authenticator:?}");
        assert!(said.contains("Key(7)"), "{said}");
        for secret in ["2b7e", "2B7E", "43, 126", "603d", "96, 61"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}
