//! Words of the command line, good and bad.

extern crate std;
use core::net::{Ipv4Addr, Ipv6Addr};
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;

use super::ip::is_unicast;
use super::*;

fn parse(cmdline: &str) -> (Config, Vec<String>) {
    let mut warnings = Vec::new();
    let config = Config::parse(cmdline, &mut |warning| warnings.push(warning.to_string()));
    (config, warnings)
}

#[test]
fn an_empty_line_is_the_default() {
    for line in ["", " ", "\t\n  \r"] {
        assert_eq!(parse(line), (Config::DEFAULT, Vec::new()));
    }
}

#[test]
fn every_key_is_read() {
    let (config, warnings) = parse(
        "ip=192.168.7.2/24,192.168.7.1  ip6=fd00:7::2/64 serial=off serial2=json,60\thttp=off idle=poll ntp.stratum=3 vmclock=0xfeffb000 \
         ntp.smear.port=1123 ntp.smear=noon tai_offset=37 source=vmclock,rtc,ntp:10.0.2.2 on_violation=stop on_panic=reboot drain=soon \
         holdover.max=3600 firmware=acpi ntp.allow=192.168.7.0/24 ntp.allow=10.0.0.1,fd00::/8 \
         ntp.deny=192.168.7.9 ntp.limit=8,8s ntp.auth=require \
         ntp.key=1:AES128:2b7e151628aed2a6abf7158809cf4f3c \
         ntp.key=2:AES128:HEX:000102030405060708090a0b0c0d0e0f",
    );
    let mut policy = Policy {
        limit: Limit::parse("8,8s"),
        authenticated_only: true,
        ..Policy::OPEN
    };
    for (list, rule) in [
        ("192.168.7.0/24,10.0.0.1,fd00::/8", Rule::Allow),
        ("192.168.7.9", Rule::Deny),
    ] {
        assert!(policy.access.add(list, rule).is_some());
    }
    for word in [
        "1:AES128:2b7e151628aed2a6abf7158809cf4f3c",
        "2:AES128:000102030405060708090a0b0c0d0e0f",
    ] {
        assert!(policy.keys.parse_word(word).is_ok());
    }
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        config,
        Config {
            ip: Ip::Static {
                address: Ipv4Addr::new(192, 168, 7, 2),
                prefix: 24,
                gateway: Some(Ipv4Addr::new(192, 168, 7, 1)),
            },
            ip6: Ip6::Static {
                address: Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 2),
                prefix: 64,
            },
            serial: Serial::Off,
            serial2: Serial::Json { period: Some(60) },
            http: false,
            idle: Idle::Poll,
            stratum: 3,
            policy,
            smear: Smearing::Always(Smear::NoonLinear),
            smear_port: Some(1123),
            tai_offset: OperatorOffset::new(37),
            conditions: Conditions {
                on_violation: OnViolation::Stop,
                drain: Drain::Soon,
                holdover_max: Some(3600),
                serve_rtc: true,
            },
            on_panic: OnPanic::Reboot,
            source: Choice::parse("vmclock,rtc,ntp:10.0.2.2").unwrap_or(Choice::AUTO),
            firmware: Firmware::Acpi,
            smoke: None,
            vmclock: Some(0xfeff_b000),
        }
    );
    assert_eq!(
        parse(
            "ip=dhcp ip6=auto serial=shell serial2=off idle=adaptive ntp.stratum=1 ntp.smear=off on_violation=alarm drain=off"
        )
        .0,
        Config::DEFAULT
    );
}

#[test]
fn what_runs_on_a_port() {
    for (value, expected) in [
        ("shell", Serial::Shell),
        ("nmea", Serial::Nmea),
        ("json", Serial::Json { period: None }),
        ("json,1", Serial::Json { period: Some(1) }),
        ("json,3600", Serial::Json { period: Some(3600) }),
        ("log", Serial::Log),
        ("off", Serial::Off),
    ] {
        let (config, warnings) = parse(&std::format!("serial={value}"));
        assert_eq!((config.serial, warnings.len()), (expected, 0), "{value}");
        let (config, warnings) = parse(&std::format!("serial2={value}"));
        let is_taken = expected.is_time() || expected == Serial::Off;
        assert_eq!(warnings.is_empty(), is_taken, "{value}");
        assert_eq!(config.serial2 == expected, is_taken, "{value}");
    }
    for value in ["json,0", "json,3601", "json,", "json,+1", "nmea,1"] {
        let (config, warnings) = parse(&std::format!("serial={value} serial2={value}"));
        assert_eq!((config, warnings.len()), (Config::DEFAULT, 2), "{value}");
    }
}

#[test]
fn good_values() {
    for value in [
        "10.0.2.15/24",
        "10.0.2.15/24,10.0.2.2",
        "10.1.1.0/31",
        "10.1.1.1/31,10.1.1.0",
    ] {
        assert!(
            matches!(Ip::parse(value), Some(Ip::Static { .. })),
            "{value}"
        );
    }
    assert!(
        Ip::parse("203.0.113.9/32,10.0.0.1").is_some(),
        "any router for a host route"
    );
    for (value, address) in [
        ("4096", 4096),
        ("4278169600", 0xfeff_b000),
        ("0xFEFFB000", 0xfeff_b000),
        ("0Xfeffb000", 0xfeff_b000),
        ("0xfffffffffffff000", 0xffff_ffff_ffff_f000),
    ] {
        assert_eq!(page_address(value), Some(address), "{value}");
    }
    for value in [
        "fd00:7::2/64",
        "2001:db8::1/127",
        "2001:db8::/127",
        "2001:db8::1/1",
        "2001:db8::1/128",
    ] {
        let parsed = Ip6::parse(value);
        assert!(matches!(parsed, Some(Ip6::Static { .. })), "{value}");
    }
    for stratum in 1..=15 {
        assert_eq!(
            parse(&std::format!("ntp.stratum={stratum}")).0.stratum,
            stratum
        );
    }
}

#[test]
fn every_word_has_its_meaning() {
    for (word, smear) in [
        ("off", Smearing::Off),
        ("hint", Smearing::Hint),
        ("noon", Smearing::Always(Smear::NoonLinear)),
        ("sls", Smearing::Always(Smear::UtcSls)),
    ] {
        assert_eq!(parse(&std::format!("ntp.smear={word}")).0.smear, smear);
    }
    for (word, on_violation) in [
        ("serve", OnViolation::Serve),
        ("alarm", OnViolation::Alarm),
        ("stop", OnViolation::Stop),
    ] {
        let config = parse(&std::format!("on_violation={word}")).0;
        assert_eq!(config.conditions.on_violation, on_violation);
    }
    for (word, drain) in [
        ("off", Drain::Off),
        ("soon", Drain::Soon),
        ("imminent", Drain::Imminent),
    ] {
        assert_eq!(
            parse(&std::format!("drain={word}")).0.conditions.drain,
            drain
        );
    }
    for seconds in [0, 1, 86_400, u32::MAX] {
        let config = parse(&std::format!("holdover.max={seconds}")).0;
        assert_eq!(config.conditions.holdover_max, Some(seconds));
    }
    for offset in [10, 37, 60] {
        let config = parse(&std::format!("tai_offset={offset}")).0;
        assert_eq!(
            config.tai_offset.map(OperatorOffset::tai_minus_utc),
            Some(offset)
        );
    }
    for port in [1, 66, 69, 122, 124, 1123, 65_535] {
        let (config, warnings) = parse(&std::format!("ntp.smear=sls ntp.smear.port={port}"));
        assert_eq!((config.smear_port, warnings.len()), (Some(port), 0));
    }
}

#[test]
fn a_port_needs_something_to_serve() {
    for line in [
        "ntp.smear.port=1123",
        "ntp.smear=off ntp.smear.port=1123",
        "ntp.smear=noon ntp.smear.port=1123 ntp.smear=off",
    ] {
        let (config, warnings) = parse(line);
        assert_eq!(config, Config::DEFAULT, "{line}");
        assert_eq!(
            warnings.last().map(String::as_str),
            Some(
                "command line: `ntp.smear.port=1123` ignored, it needs ntp.smear=hint, \
                 ntp.smear=noon or ntp.smear=sls"
            ),
            "{line}"
        );
    }
    let (config, warnings) = parse("ntp.smear=hint ntp.smear.port=1123");
    assert_eq!((config.smear_port, warnings.len()), (Some(1123), 0));
}

#[test]
fn bad_ipv6_values() {
    for value in [
        "",
        "on",
        "AUTO",
        "fd00::1",
        "fd00::1/",
        "fd00::1/0",
        "fd00::1/129",
        "fd00::1/+64",
        "fd00::/64",
        "fe80::1/64",
        "ff02::1/64",
        "::1/128",
        "::/64",
        "::ffff:10.0.2.15/96",
        "10.0.2.15/24",
        "fd00::1%1/64",
        "fd00::1/64,",
        "fd00::1/64,fe80::1",
    ] {
        assert_eq!(Ip6::parse(value), None, "{value}");
    }
    let (config, warnings) = parse("ip6=fd00::1/64,fe80::1");
    assert_eq!((config, warnings.len()), (Config::DEFAULT, 1));
}

#[test]
fn malformed_values_are_named_and_change_nothing() {
    for word in [
        "ip=",
        "ip",
        "ip=static",
        "ip=DHCP",
        "ip=10.0.2.15",
        "ip=10.0.2.15/",
        "ip=10.0.2.15/0",
        "ip=10.0.2.15/33",
        "ip=10.0.2.15/+24",
        "ip=10.0.2.15/24,",
        "ip=10.0.2.15/24,10.0.3.1",
        "ip=10.0.2.15/24,10.0.2.15",
        "ip=10.0.2.15/24,10.0.2.255",
        "ip=10.0.2.15/24,10.0.2.2,1",
        "ip=10.0.2.0/24",
        "ip=10.0.2.255/24",
        "ip=0.0.0.0/8",
        "ip=127.0.0.1/8",
        "ip=224.0.0.1/4",
        "ip=255.255.255.255/32",
        "ip=10.0.2/24",
        "ip=10.0.2.15.1/24",
        "ip=fe80::1/64",
        "ip=1.2.3.4/32,0.0.0.0",
        "ip=010.0.2.15/24",
        "serial=",
        "serial=on",
        "serial",
        "http=",
        "http=80",
        "idle=Adaptive",
        "idle=",
        "idle=HALT",
        "ntp.stratum=0",
        "ntp.stratum=16",
        "ntp.stratum=256",
        "ntp.stratum=-1",
        "ntp.stratum=+1",
        "ntp.stratum=",
        "ntp.stratum=1.0",
        "ntp.stratum=99999999999999999999999",
        "ntp.limit=",
        "ntp.limit=on",
        "ntp.limit=8",
        "ntp.limit=8,8",
        "ntp.smear=",
        "ntp.smear=on",
        "ntp.smear=NOON",
        "ntp.smear.port=",
        "ntp.smear.port=0",
        "ntp.smear.port=67",
        "ntp.smear.port=68",
        "ntp.smear.port=123",
        "ntp.smear.port=65536",
        "ntp.smear.port=+1123",
        "tai_offset=",
        "tai_offset=9",
        "tai_offset=61",
        "tai_offset=-37",
        "tai_offset=37.0",
        "tai_offset=65573",
        "on_violation=",
        "on_violation=halt",
        "drain=",
        "source=",
        "source=none",
        "source=ntp:",
        "source=auto,",
        "drain=on",
        "holdover.max=",
        "holdover.max=none",
        "holdover.max=-1",
        "holdover.max=1h",
        "holdover.max=4294967296",
        "firmware=",
        "firmware=uefi",
        "on_panic=Exit",
        "vmclock=",
        "vmclock=0",
        "vmclock=0x",
        "vmclock=feffb000",
        "vmclock=0xfeffb001",
        "vmclock=0x1000g",
        "vmclock=-4096",
        "vmclock=+4096",
        "vmclock=0x10000000000000000",
        "vmclock=0x+1000",
        "vmclock=0x0",
    ] {
        let (config, warnings) = parse(word);
        assert_eq!(config, Config::DEFAULT, "{word}");
        let [warning] = warnings.as_slice() else {
            panic!("{word}: {warnings:?}")
        };
        assert!(
            warning.contains(word) && warning.contains("ignored, expected"),
            "{warning}"
        );
    }
}

#[test]
fn an_access_list_that_is_not_understood_lets_nobody_in() {
    for word in [
        "ntp.allow=",
        "ntp.allow",
        "ntp.allow=all",
        "ntp.deny=10.0.0.0/33",
        "ntp.deny=10.0.0.0/8,",
        "ntp.deny=10.0.0.1/8",
    ] {
        let (config, warnings) = parse(&std::format!("ntp.allow=10.0.0.0/8 {word}"));
        let client = core::net::IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
        assert!(!config.policy.access.permits(&client), "{word}");
        let [warning] = warnings.as_slice() else {
            panic!("{word}: {warnings:?}")
        };
        assert!(
            warning.contains(word) && warning.contains("nobody is answered"),
            "{warning}"
        );
    }
}

#[test]
fn authentication_that_is_not_understood_is_required() {
    for word in ["ntp.auth=", "ntp.auth", "ntp.auth=yes"] {
        let (config, warnings) = parse(word);
        assert!(
            config.policy.authenticated_only && warnings.len() == 1,
            "{word}"
        );
    }
    let (config, warnings) = parse("ntp.auth=require ntp.auth=optional");
    assert!(!config.policy.authenticated_only && warnings.len() == 1);
}

#[test]
fn no_warning_shows_a_key() {
    let key = "2B7E151628AED2A6ABF7158809CF4F3C";
    for line in [
        std::format!("ntp.key=1:AES128:{key}0"),
        std::format!("ntp.key=1:MD5:{key}"),
        std::format!("ntp.key=1:AES128:{key} ntp.key=1:AES128:{key}"),
        std::format!("ntp.key=1 AES128 HEX:{key}"),
        std::format!("ntp.key=1 AES128 {key}"),
        String::from("ntp.key 1 AES128 2B7E 1516 28AE"),
        std::format!("ntp.key1:AES128:{key}"),
        std::format!("ntp.keys=1:AES128:{key}"),
        std::format!("NTP.KEY=1:AES128:{key}"),
        std::format!("{key}=ntp.key"),
        std::format!("ntp.limit={key}"),
        std::format!("1:AES128:{key}"),
        String::from("1:AES128:hex:2B7E"),
    ] {
        let (_, warnings) = parse(&line);
        assert!(!warnings.is_empty(), "{line}");
        for warning in warnings {
            assert!(!warning.contains("2B7E"), "{line}: {warning}");
            assert!(warning.contains("(not shown)`"), "{line}: {warning}");
        }
    }
    assert_eq!(
        parse("ntp.key=1:AES128:00").1,
        [
            "command line: `ntp.key(not shown)` ignored, expected ntp.key=ID:AES128:HEX or \
          ntp.key=ID:AES256:HEX, each number once, and at most 16 keys"
        ]
    );
    // What comes after the key is shown again.
    assert_eq!(
        parse("ntp.key=1 AES128 00 ip=x")
            .1
            .last()
            .map(String::as_str),
        Some(
            "command line: `ip=x` ignored, expected ip=dhcp or ip=ADDR/LEN[,GATEWAY] with \
              unicast addresses of one network"
        )
    );
}

#[test]
fn unknown_keys_are_named_and_the_rest_is_read() {
    let (config, warnings) = parse("quiet console=ttyS0 ntp.stratum=2 =x IP=dhcp");
    assert_eq!(config.stratum, 2);
    assert_eq!(
        warnings,
        [
            "command line: `quiet` is not a known key, ignored",
            "command line: `console=ttyS0` is not a known key, ignored",
            "command line: `=x` is not a known key, ignored",
            "command line: `IP=dhcp` is not a known key, ignored",
        ]
    );
}

#[test]
fn the_last_good_value_wins() {
    let (config, warnings) = parse("ntp.stratum=2 ntp.stratum=5 ntp.stratum=77");
    assert_eq!(config.stratum, 5);
    assert_eq!(
        warnings,
        [
            "command line: `ntp.stratum=5` replaces the value given before",
            "command line: `ntp.stratum=77` ignored, expected ntp.stratum=1 to ntp.stratum=15",
        ]
    );
    assert_eq!(
        parse("idle=x idle=poll").1.len(),
        1,
        "a bad value is not a value before"
    );
}

#[test]
fn warnings_are_short_and_printable() {
    let (_, warnings) = parse(&std::format!("a\u{1b}[2J\u{7}{}", "x".repeat(5000)));
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    assert!(
        warning.contains("\\u{1b}[2J\\u{7}xxx") && warning.contains("xxx...`"),
        "{warning}"
    );
    assert!(
        !warning.contains(char::is_control) && warning.len() < 150,
        "{warning}"
    );
}

proptest! {
    #[test]
    fn any_text_is_survived(line: String) {
        let _ = parse(&line);
    }

    #[test]
    fn almost_right_text_keeps_the_promises(
        line in "((ip|serial|idle|ntp\\.stratum|ntp\\.smear|ntp\\.smear\\.port|tai_offset|drain|vmclock|x)\
         =?(dhcp|off|poll|soon|noon|0x|[0-9./,]{0,20}) ?){0,6}",
    ) {
        let (config, _) = parse(&line);
        prop_assert!((1..=15).contains(&config.stratum));
        prop_assert!(config.vmclock.is_none_or(|address| address != 0 && address % 4096 == 0));
        prop_assert!(config.smear_port.is_none_or(|port| !TAKEN_PORTS.contains(&port)));
        prop_assert!(config.smear_port.is_none() || config.smear != Smearing::Off);
        if let Ip::Static { address, prefix, gateway } = config.ip {
            prop_assert!((1..=32).contains(&prefix) && is_unicast(address));
            prop_assert!(gateway != Some(address));
        }
    }
}
