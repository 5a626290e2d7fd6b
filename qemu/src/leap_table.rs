//! The system's leap-second table: TAI − UTC at a given date, for hosts whose kernel does not know
//! it.
//!
//! The format is that of `leap-seconds.list` (NIST/IERS, in Debian's `tzdata`): comment lines start
//! with `#`, `#@` gives the date up to which the table is known to be complete, and each other line
//! is an NTP time stamp (seconds since 1900) and the value of TAI − UTC from then on.

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux distributions keep the table, in the order in which they are tried.
const PATHS: [&str; 2] = [
    "/usr/share/zoneinfo/leap-seconds.list",
    "/var/lib/ntp/leap-seconds.list",
];
/// Seconds from 1900-01-01 (the NTP epoch) to 1970-01-01.
const NTP_TO_UNIX: i64 = 2_208_988_800;
/// TAI − UTC that a table may name: it began with 10 s in 1972, and a value above 60 s would be a
/// damaged table.
const OFFSETS: core::ops::RangeInclusive<i32> = 10..=60;

/// TAI − UTC over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeapTable {
    /// (seconds since 1970 from which it holds, TAI − UTC in seconds), in order of time, never
    /// empty.
    steps: Vec<(i64, i32)>,
    /// Seconds since 1970 up to which the table is known to be complete.
    expires: Option<i64>,
}

/// Why a leap-second table could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeapTableError {
    /// None of the usual files exists or can be read.
    NotFound,
    /// The file has no line with an offset.
    Empty(PathBuf),
    /// The line with this number (from 1) is not an NTP time stamp and an offset between 10 and 60
    /// s, later than the line before.
    Line(PathBuf, usize),
}

impl LeapTable {
    /// Reads the system's table.
    ///
    /// # Errors
    /// When there is none, or the first one found is damaged.
    pub fn system() -> Result<Self, LeapTableError> {
        for path in PATHS.map(Path::new) {
            if let Ok(text) = fs::read_to_string(path) {
                return Self::parse(&text).map_err(|line| match line {
                    None => LeapTableError::Empty(path.into()),
                    Some(line) => LeapTableError::Line(path.into(), line),
                });
            }
        }
        Err(LeapTableError::NotFound)
    }

    /// Reads a table from its text.
    ///
    /// # Errors
    /// The number of the first line (from 1) that is damaged, or `None` when no line has an offset.
    pub fn parse(text: &str) -> Result<Self, Option<usize>> {
        let mut table = Self {
            steps: Vec::new(),
            expires: None,
        };
        for (index, line) in text.lines().enumerate() {
            let damaged = Some(index + 1);
            if let Some(expires) = line.strip_prefix("#@") {
                table.expires = Some(unix_seconds(expires.trim()).ok_or(damaged)?);
                continue;
            }
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let Some(from) = words.next() else { continue };
            let from = unix_seconds(from).ok_or(damaged)?;
            let offset = words
                .next()
                .and_then(|word| word.parse().ok())
                .ok_or(damaged)?;
            let in_order = table.steps.last().is_none_or(|last| last.0 < from);
            if !in_order || !OFFSETS.contains(&offset) || words.next().is_some() {
                return Err(damaged);
            }
            table.steps.push((from, offset));
        }
        if table.steps.is_empty() {
            Err(None)
        } else {
            Ok(table)
        }
    }

    /// TAI − UTC in seconds at this UTC (seconds since 1970); `None` before the table begins.
    #[must_use]
    pub fn tai_minus_utc(&self, utc: i64) -> Option<i32> {
        self.steps
            .iter()
            .rev()
            .find(|step| step.0 <= utc)
            .map(|step| step.1)
    }

    /// Whether the table is past the date up to which it is known to be complete. Its last value
    /// still is the best there is: leap seconds are announced half a year ahead, and none has been
    /// since 2016.
    #[must_use]
    pub fn expired(&self, utc: i64) -> bool {
        self.expires.is_some_and(|expires| utc >= expires)
    }
}

fn unix_seconds(ntp: &str) -> Option<i64> {
    // Beyond 2^40 s (36,800 years) it is not a date.
    let ntp: i64 = ntp
        .parse()
        .ok()
        .filter(|seconds| (0..1 << 40).contains(seconds))?;
    Some(ntp - NTP_TO_UNIX)
}

impl fmt::Display for LeapTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => write!(f, "no leap-second table: install tzdata ({})", PATHS[0]),
            Self::Empty(path) => write!(f, "the leap-second table {} has no entry", path.display()),
            Self::Line(path, line) => write!(
                f,
                "the leap-second table {} is damaged in line {line}",
                path.display()
            ),
        }
    }
}

impl core::error::Error for LeapTableError {}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "#\tcomment\n#$\t3676924800\n#@\t3928521600\n2272060800\t10\t# 1 Jan 1972\n\n3692217600 37 # 1 Jan 2017\n#h aa bb\n";

    #[test]
    fn offset_holds_from_its_date_on() {
        let table = LeapTable::parse(TABLE).expect("well-formed");
        assert_eq!(table.tai_minus_utc(63_071_999), None);
        assert_eq!(table.tai_minus_utc(63_072_000), Some(10));
        assert_eq!(table.tai_minus_utc(1_483_228_799), Some(10));
        assert_eq!(table.tai_minus_utc(1_483_228_800), Some(37));
        assert_eq!(table.tai_minus_utc(i64::MAX), Some(37));
        assert!(!table.expired(1_483_228_800));
        assert!(table.expired(3_928_521_600 - NTP_TO_UNIX));
    }

    #[test]
    fn system_table_knows_2017() {
        let table = LeapTable::system().expect("tzdata is installed");
        assert_eq!(table.tai_minus_utc(1_500_000_000), Some(37));
    }

    #[test]
    fn damage_is_refused_with_its_line() {
        for (text, line) in [
            ("", None),
            ("# only comments\n", None),
            ("2272060800\n", Some(1)),
            ("2272060800 10 11\n", Some(1)),
            ("2272060800 9\n", Some(1)),
            ("2272060800 61\n", Some(1)),
            ("2272060800 -37\n", Some(1)),
            ("-1 37\n", Some(1)),
            ("99999999999999999999 37\n", Some(1)),
            ("9223372036854775807 37\n", Some(1)),
            ("#@ soon\n2272060800 10\n", Some(1)),
            ("2272060800 10\n2272060800 11\n", Some(2)),
            ("2272060800 10\n\u{0}\u{1}garbage é\n", Some(2)),
        ] {
            assert_eq!(LeapTable::parse(text), Err(line), "{text:?}");
        }
    }

    #[test]
    fn truncation_anywhere_never_panics() {
        for end in 0..TABLE.len() {
            let _outcome = LeapTable::parse(&TABLE[..end]);
        }
    }
}
