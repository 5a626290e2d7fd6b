//! The keys of the command line, and what is said of words that are not taken as they stand.

use core::fmt;

/// A word of the command line that was not taken as it stands. `Display` is a whole clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning<'a> {
    /// The word, as it came: untrusted text, shown escaped and cut by `Display`.
    pub word: &'a str,
    /// The word could be part of a key: `Display` shows no more of it than its name.
    pub secret: bool,
    /// What is the matter with it.
    pub problem: Problem,
}

/// What is the matter with a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No such key; the word is ignored.
    UnknownKey,
    /// The value is missing or not one of those allowed; the word is ignored.
    Malformed {
        /// The values that are.
        expected: &'static str,
    },
    /// The key came before; this later value replaces the earlier one.
    Repeated,
    /// A port for a smeared service, and no smeared service; the word is ignored.
    NothingToSmear,
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Characters of the word that are shown.
        const SHOWN: usize = 64;
        f.write_str("command line: `")?;
        let shown = match self.word.split_once('=') {
            _ if !self.secret => self.word,
            Some((name, _)) if KEYS.iter().any(|(key, _)| *key == name) => name,
            _ => "",
        };
        for c in shown.chars().take(SHOWN) {
            write!(f, "{}", c.escape_debug())?;
        }
        if self.secret {
            f.write_str("(not shown)")?;
        } else if self.word.chars().nth(SHOWN).is_some() {
            f.write_str("...")?;
        }
        match self.problem {
            Problem::UnknownKey => f.write_str("` is not a known key, ignored"),
            Problem::Malformed { expected } => write!(f, "` ignored, expected {expected}"),
            Problem::Repeated => f.write_str("` replaces the value given before"),
            Problem::NothingToSmear => {
                f.write_str("` ignored, it needs ntp.smear=hint, ntp.smear=noon or ntp.smear=sls")
            }
        }
    }
}

/// The keys, and what each expects in the words of a warning.
pub(super) const KEYS: [(&str, &str); 23] = [
    (
        "ip",
        "ip=dhcp or ip=ADDR/LEN[,GATEWAY] with unicast addresses of one network",
    ),
    (
        "ip6",
        "ip6=auto, ip6=off or ip6=ADDR/LEN with a unicast address that is not link-local",
    ),
    (
        "serial",
        "serial=shell, serial=nmea, serial=json[,SECONDS], serial=log or serial=off",
    ),
    (
        "serial2",
        "serial2=nmea, serial2=json[,SECONDS] or serial2=off",
    ),
    ("http", "http=on or http=off"),
    ("idle", "idle=adaptive, idle=halt or idle=poll"),
    ("ntp.stratum", "ntp.stratum=1 to ntp.stratum=15"),
    (
        "ntp.allow",
        "ntp.allow=ADDR/LEN,... and at most 32 prefixes; nobody is answered until this is mended",
    ),
    (
        "ntp.deny",
        "ntp.deny=ADDR/LEN,... and at most 32 prefixes; nobody is answered until this is mended",
    ),
    (
        "ntp.limit",
        "ntp.limit=off or ntp.limit=BURST,INTERVAL with 1 to 1000 and 1ms to 3600s",
    ),
    (
        "ntp.key",
        "ntp.key=ID:AES128:HEX or ntp.key=ID:AES256:HEX, each number once, and at most 16 keys",
    ),
    (
        "ntp.auth",
        "ntp.auth=optional or ntp.auth=require, which is assumed now",
    ),
    (
        "ntp.smear",
        "ntp.smear=off, ntp.smear=hint, ntp.smear=noon or ntp.smear=sls",
    ),
    (
        SMEAR_PORT,
        "ntp.smear.port=PORT, 1 to 65535 but not 67, 68 or 123",
    ),
    ("tai_offset", "tai_offset=10 to tai_offset=60"),
    (
        "on_violation",
        "on_violation=serve, on_violation=alarm or on_violation=stop",
    ),
    (
        "on_panic",
        "on_panic=exit, on_panic=halt or on_panic=reboot",
    ),
    ("drain", "drain=off, drain=soon or drain=imminent"),
    ("holdover.max", "holdover.max=SECONDS, 0 to 4294967295"),
    ("firmware", "firmware=auto or firmware=acpi"),
    (
        "source",
        "source=auto, or vmclock, kvm, virtio-rtc, ntp:ADDR and rtc, separated by commas",
    ),
    ("smoke", "smoke, or smoke=SECONDS, 1 to 3600"),
    (
        "vmclock",
        "vmclock=ADDR, a page-aligned address, decimal or 0x hexadecimal",
    ),
];
pub(super) const SMEAR_PORT: &str = "ntp.smear.port";

/// The keys of which every word adds to the others.
pub(super) const ADDING: [&str; 3] = ["ntp.allow", "ntp.deny", "ntp.key"];

/// Whether a word says `key`, or looks like one by its prefix or its many hexadecimal digits.
pub(super) fn could_be_secret(word: &str) -> bool {
    let says = |what: &str| {
        let mut windows = word.as_bytes().windows(what.len());
        windows.any(|window| window.eq_ignore_ascii_case(what.as_bytes()))
    };
    let mut runs = word.split(|c: char| !c.is_ascii_hexdigit());
    says("key") || says("hex:") || says("ascii:") || runs.any(|run| run.len() >= 32)
}
