//! What the guest says on its serial console, taken apart.

use std::time::SystemTime;

use jiff::Timestamp;

/// What stands before a command.
pub const PROMPT: &str = "gnomon> ";

/// The time in one line: `2026-11-20T12:05:31.123456789Z ± 41.2 µs  TAI-UTC 37  synchronized`, and behind that
/// `, by rtc` where it is not by the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeLine {
    /// Nanoseconds since 1970 in UTC.
    pub utc: i128,
    /// What stands behind the ±, in nanoseconds.
    pub bound: i128,
    /// TAI − UTC.
    pub tai_offset: i16,
    /// The status of the host's clock.
    pub status: String,
    /// Who tells the time, if not the page.
    pub source: Option<String>,
}

impl TimeLine {
    /// Reads the line; `None` when it does not have exactly this form.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(" ± ")?;
        let (bound, rest) = rest.split_once("  TAI-UTC ")?;
        let (tai_offset, standing) = rest.split_once("  ")?;
        let (status, source) = match standing.split_once(", by ") {
            Some((status, source)) => (status, Some(source)),
            None => (standing, None),
        };
        if time.len() != "2026-11-20T12:05:31.123456789Z".len() || !time.ends_with('Z') {
            return None;
        }
        let (number, unit) = bound.split_once(' ')?;
        let scale = match unit {
            "ns" => 1,
            "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let thousandths: i128 = format!("{whole}{fraction:0<3}").parse().ok()?;
        if !["synchronized", "freerunning"].contains(&status) {
            return None;
        }
        Some(Self {
            utc: time.parse::<Timestamp>().ok()?.as_nanosecond(),
            bound: thousandths * scale / 1000,
            tai_offset: tai_offset.parse().ok()?,
            status: status.to_owned(),
            source: source.map(str::to_owned),
        })
    }

    /// The line's interval meets the host's: the line was printed between the two.
    pub fn assert_between(&self, earliest: SystemTime, latest: SystemTime) {
        let [earliest, latest] = [earliest, latest].map(nanoseconds);
        assert!(
            self.utc + self.bound >= earliest && self.utc - self.bound <= latest,
            "not between {earliest} and {latest}: {self:?}"
        );
    }
}

/// Since 1970.
fn nanoseconds(time: SystemTime) -> i128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i128::try_from(since.expect("after 1970").as_nanos()).expect("fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_line_is_read() {
        let line = "2026-11-20T12:05:31.123456789Z ± 41.2 µs  TAI-UTC 37  synchronized";
        let parsed = TimeLine::parse(line).expect("the form");
        assert_eq!(parsed.utc, 1_795_176_331_123_456_789);
        assert_eq!((parsed.bound, parsed.tai_offset), (41_200, 37));
        assert_eq!(parsed.source, None);
        let other = TimeLine::parse(&format!("{line}, by rtc")).expect("the form");
        assert_eq!(other.source.as_deref(), Some("rtc"));
        for wrong in [
            "no time: no vmclock page",
            "2026-11-20T12:05:31Z ± 41.2 µs  TAI-UTC 37  synchronized",
            "2026-11-20T12:05:31.123456789Z ± 41.2 µs  TAI-UTC 37  unknown",
            "2026-11-20T12:05:31.123456789Z ± 41.2  TAI-UTC 37  synchronized",
            "2026-13-20T12:05:31.123456789Z ± 41.2 µs  TAI-UTC 37  synchronized",
        ] {
            assert_eq!(TimeLine::parse(wrong), None, "{wrong}");
        }
    }
}
