//! The time by the console.

use jiff::Timestamp;

use crate::guest::Guest;
use crate::truth::{Claim, NANOS, Record, now};

/// Types `time`, and takes what the guest says.
pub(super) fn time_by_console(guest: &mut Guest) -> Record {
    let sent = now();
    let said = guest.command("time");
    let claim = claim(said.trim_end());
    Record {
        sent,
        arrived: now(),
        claim,
    }
}

/// `2016-12-31T23:59:60.123456789Z ± 41.2 µs  TAI-UTC 36  synchronized` as TAI.
fn claim(line: &str) -> Claim {
    if line.starts_with("no time: ") {
        return Claim::Nothing;
    }
    let Some(time) = crate::console::TimeLine::parse(line) else {
        panic!("not a line with a time: {line:?}")
    };
    // The calendar here takes an inserted second for the one before it.
    let inserted = i128::from(line.get(17..20) == Some("60."));
    Claim::Tai {
        time: time.utc + (i128::from(time.tai_offset) + inserted) * NANOS,
        bound: time.bound,
    }
}

/// `2016-12-31T23:59:60.123456789` on TAI.
pub(super) fn tai(text: &str) -> Option<i128> {
    let time: Timestamp = format!("{text}Z").parse().ok()?;
    Some(time.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inserted_second_is_one_of_its_own() {
        let time = |line: &str| match claim(line) {
            Claim::Tai { time, bound } => (time, bound),
            other => panic!("{other:?}"),
        };
        let (before, _) = time("2016-12-31T23:59:59.000000000Z ± 1.0 µs  TAI-UTC 36  synchronized");
        let (inside, bound) =
            time("2016-12-31T23:59:60.000000000Z ± 1.0 µs  TAI-UTC 36  synchronized");
        let (after, _) = time("2017-01-01T00:00:00.000000000Z ± 1.0 µs  TAI-UTC 37  synchronized");
        assert_eq!(
            (inside - before, after - inside, bound),
            (NANOS, NANOS, 1000)
        );
        assert_eq!(Some(after), tai("2017-01-01T00:00:37.000000000"));
        assert!(matches!(claim("no time: no vmclock page"), Claim::Nothing));
    }
}
