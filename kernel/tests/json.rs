//! What programs are told, read back by another implementation of JSON.

mod told;

use gnomon_clock::{Fields, NoTime};
use gnomon_kernel::duty::Withheld;
use gnomon_kernel::json;
use gnomon_kernel::report::View;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::told::{C1, NOON, good_page, view};

fn now(view: &View<'_>) -> Value {
    let mut out = String::new();
    json::now(view, &mut out).expect("a String takes everything");
    assert!(!out.contains('\n'), "one line: {out}");
    serde_json::from_str(&out).expect("JSON")
}

/// A page at whose reference instant UTC is `seconds`.
fn at(seconds: u64, flags: u64, leap_indicator: u8) -> Fields {
    let good = good_page();
    Fields {
        time_sec: seconds + 37,
        flags: good.flags | flags,
        leap_indicator,
        ..good
    }
}

#[test]
fn the_time_with_everything_that_is_known_of_it() {
    let expected = json!({
        "utc": "2026-11-20T12:05:31.500000000Z",
        "tai": "2026-11-20T12:06:08.500000000",
        "tai_offset": 37,
        "bound": 41_201,
        "earliest": "1795176331499958799",
        "latest": "1795176331500041201",
        "leap": "none",
        "status": "synchronized",
        "source": "vmclock",
        "marker": "18446744073709551614",
        "generation": "7",
        "counter": C1.to_string(),
        "kiss": null,
        "why": null,
    });
    assert_eq!(now(&view(&good_page())), expected);
    assert_eq!(NOON - 37, 1_795_176_331);
}

#[test]
fn without_time_every_member_is_there_and_says_so() {
    let found = now(&view(&Fields {
        disruption_marker: 5,
        ..Fields::stock()
    }));
    let known = json!({ "marker": "5", "kiss": "INIT", "why": "the page carries no time" });
    let names: Vec<_> = now(&view(&good_page()))
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    for name in names {
        let expected = known.get(&name).unwrap_or(&Value::Null);
        assert_eq!(found.get(&name), Some(expected), "{name}");
    }
    let nothing = now(&View {
        reading: Err(NoTime::NoPage),
        fields: None,
        ..view(&good_page())
    });
    assert_eq!(nothing["marker"], Value::Null);
    assert_eq!(nothing["why"], "no vmclock page");
}

#[test]
fn withheld_time_is_not_told_here_either() {
    let found = now(&View {
        withheld: Some(Withheld::Holdover),
        ..view(&good_page())
    });
    for name in [
        "utc",
        "tai",
        "tai_offset",
        "bound",
        "earliest",
        "latest",
        "leap",
    ] {
        assert_eq!(found[name], Value::Null, "{name}");
    }
    assert_eq!(found["kiss"], "XHLD");
    assert_eq!(found["why"], Withheld::Holdover.to_string());
    assert_eq!(found["status"], "synchronized");
}

#[test]
fn a_bound_too_wide_for_ntp_is_told_and_one_too_wide_for_a_number_is_not() {
    for (error, bound, kiss) in [
        (15_000_000_000, json!(15_000_000_001_u64), Value::Null),
        (17_000_000_000, json!(17_000_000_001_u64), json!("XDSP")),
        ((1 << 53) - 2, json!((1_u64 << 53) - 1), json!("XDSP")),
        (1 << 53, Value::Null, json!("XDSP")),
    ] {
        let found = now(&view(&Fields {
            time_maxerror_nanosec: error,
            ..good_page()
        }));
        assert_eq!(
            (&found["bound"], &found["kiss"]),
            (&bound, &kiss),
            "{error}"
        );
        assert_ne!(found["utc"], Value::Null);
    }
}

#[test]
fn leap_seconds_are_announced_and_shown() {
    use gnomon_clock::LeapIndicator::{PreNeg, PrePos};
    // 2026-12-31T23:59:59
    let last = 1_798_761_599;
    let insert = now(&view(&at(last, 0, PrePos as u8)));
    assert_eq!(insert["leap"], "insert");
    let delete = now(&view(&at(last - 10, 0, PreNeg as u8)));
    assert_eq!(delete["leap"], "delete");
    // So many seconds after half past that second.
    let later = |seconds: u64, fields: Fields| {
        let counter_value = fields.counter_value - seconds * 2_400_000_000;
        let told = now(&view(&Fields {
            counter_value,
            ..fields
        }));
        let utc = told["utc"].as_str().expect("a time")[..21].to_owned();
        (utc, told["tai_offset"].as_i64().expect("a number"))
    };
    let inserted = [0, 1, 2].map(|seconds| later(seconds, at(last, 0, PrePos as u8)));
    let expected = [
        ("2026-12-31T23:59:59.5", 37),
        ("2026-12-31T23:59:60.5", 37),
        ("2027-01-01T00:00:00.5", 38),
    ];
    assert_eq!(
        inserted,
        expected.map(|(utc, offset)| (utc.to_owned(), offset))
    );
    let deleted = [0, 1].map(|seconds| later(seconds, at(last - 1, 0, PreNeg as u8)));
    let expected = [("2026-12-31T23:59:58.5", 37), ("2027-01-01T00:00:00.5", 36)];
    assert_eq!(
        deleted,
        expected.map(|(utc, offset)| (utc.to_owned(), offset))
    );
}

proptest! {
    /// Whatever the page says, it is JSON, and the interval holds the time.
    #[test]
    fn any_page_gives_json(bytes in any::<[u8; 0x70]>(), good in any::<bool>()) {
        let mut fields = Fields::from_bytes(&bytes);
        if good {
            let Fields { magic, size, version, counter_id, time_type, clock_status, .. } = good_page();
            fields = Fields { magic, size, version, counter_id, time_type, clock_status, ..fields };
        }
        let found = now(&view(&fields));
        let number = |name: &str| found[name].as_str().map(|digits| digits.parse::<i64>().expect("i64"));
        if let (Some(earliest), Some(latest)) = (number("earliest"), number("latest")) {
            prop_assert!(earliest < latest);
            if let Some(bound) = found["bound"].as_i64() {
                prop_assert!((latest - earliest + 1) / 2 <= bound + 1);
                prop_assert!(latest - earliest >= 2 * (bound - 1));
            }
        }
    }

    /// Text of firmware's comes out as it went in.
    #[test]
    fn any_text_gives_json(text in any::<String>()) {
        let text: &'static str = String::leak(text);
        let mut out = String::new();
        json::quoted(&text, &mut out).expect("a String takes everything");
        let back: String = serde_json::from_str(&out).expect("JSON");
        prop_assert_eq!(back, text);
    }
}
