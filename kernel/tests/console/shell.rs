//! The prompt, its commands, and a shell under garbage.

use super::*;

#[test]
fn lines_are_commands_or_one_clear_sentence() {
    for (line, command) in [
        ("help", Command::Help),
        ("time", Command::Time(1)),
        ("  status ", Command::Status),
        ("page", Command::Page),
        ("audit", Command::Audit),
        ("net", Command::Net),
        ("leap", Command::Leap),
        ("counter", Command::Counter),
        ("bench", Command::Bench),
        ("pci", Command::Pci),
        ("mem", Command::Mem),
        ("acpi", Command::Description),
        ("smoke", Command::Smoke),
        ("reboot", Command::Reboot),
        ("poweroff", Command::PowerOff),
    ] {
        assert_eq!(Command::parse(line), Ok(Some(command)), "{line}");
        let help = output(Command::Help, &view(&good_page()));
        assert!(
            help.lines().any(|shown| shown.starts_with(line.trim())),
            "{line}: {help}"
        );
    }
    assert_eq!(Command::parse("fdt"), Ok(Some(Command::Description)));
    assert_eq!(
        Command::parse("help  fdt"),
        Ok(Some(Command::HelpOf("acpi")))
    );
    assert_eq!(
        Command::parse("time -n 1000"),
        Ok(Some(Command::Time(1000)))
    );
    assert_eq!(Command::parse(""), Ok(None));
    assert_eq!(Command::parse("   "), Ok(None));
    for (line, sentence) in [
        ("tim", "`tim` is not a command, try `help`"),
        ("Time", "`Time` is not a command, try `help`"),
        ("timetime now", "`timetime` is not a command, try `help`"),
        ("poweroff now", "`poweroff` takes no arguments"),
        ("time -n", "`time` takes no arguments but `-n TIMES`"),
        ("time -n 0", "`time` takes no arguments but `-n TIMES`"),
        ("time -n +1", "`time` takes no arguments but `-n TIMES`"),
        ("time -n 1001", "`time` takes no arguments but `-n TIMES`"),
        ("time -n 1 2", "`time` takes no arguments but `-n TIMES`"),
        ("help nobody", "`nobody` is not a command, try `help`"),
        ("help time now", "`help` takes no arguments but `COMMAND`"),
    ] {
        assert_eq!(
            Command::parse(line).map_err(|why| why.to_string()),
            Err(sentence.into())
        );
    }
}

/// A terminal session: what comes out of it, and the last thing asked of the machine.
fn session(shell: &mut Shell, input: &[u8]) -> (String, Option<Action>) {
    let mut out = String::new();
    let mut action = None;
    for byte in input {
        action = shell.feed(*byte, &mut out, &mut Good).or(action);
    }
    (out, action)
}

#[test]
fn a_session() {
    let mut shell = Shell::new();
    let (out, action) = session(&mut shell, b"tine\x08\x08me\r\n\r\nhelo\r\npoweroff \r\n");
    assert_eq!(action, Some(Action::PowerOff));
    assert_eq!(
        out,
        format!(
            "tine\x08 \x08\x08 \x08me\n{TIME}\n{PROMPT}\
             \n{PROMPT}\
             helo\n`helo` is not a command, try `help`\n{PROMPT}\
             poweroff \npowering off\n"
        )
    );
    assert_eq!(session(&mut shell, b"reboot\n").1, Some(Action::Reboot));
    assert_eq!(session(&mut shell, b"reboot\x03").1, None);
}

#[test]
fn time_is_told_as_often_as_asked() {
    let mut shell = Shell::new();
    let (mut out, _) = session(&mut shell, b"time -n 3\r\n");
    assert_eq!(out, format!("time -n 3\n{TIME}\n"));
    for _ in 0..9 {
        shell.go_on(&mut out, &mut Good);
    }
    assert_eq!(out, format!("time -n 3\n{TIME}\n{TIME}\n{TIME}\n{PROMPT}"));
    assert!(!shell.is_busy());
}

#[test]
fn the_smoke_test_beside_a_service_is_told_check_by_check() {
    let mut shell = Shell::new();
    let (mut out, _) = session(&mut shell, b"smoke\r");
    assert_eq!(out, "smoke\nTAP version 14\n1..38\n");
    let mut lines = 3;
    while shell.is_busy() {
        shell.go_on(&mut out, &mut Good);
        let now = out.lines().count();
        // Of a check that has failed also what it demands.
        assert!((1..=5).contains(&(now - lines)), "{out}");
        lines = now;
    }
    for line in [
        "ok 1 - memory map # SKIP not beside a service: boot with `smoke` on the command line\n",
        // The meter's counter goes back once.
        "not ok 4 - counter order: 49900, then 0\n",
        "ok 13 - vmclock discovery: \\\\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes\n",
        "ok 15 - vmclock magic: 0x4b4c4356\n",
        "ok 38 - vmclock notification # SKIP not advertised\n",
    ] {
        assert!(out.contains(line), "{line}{out}");
    }
    let (_, end) = out.split_once("\n# ").expect("an end");
    assert!(end.contains(", 1 not ok, "), "{end}");
    assert!(end.ends_with(&format!(" skipped\n{PROMPT}")), "{end}");
}

#[test]
fn help_has_more_to_say_of_each_command() {
    let help = output(Command::Help, &view(&good_page()));
    for line in help.lines() {
        let name = line.split(' ').next().expect("a name");
        let command = Command::parse(&format!("help {name}")).map_err(|why| why.to_string());
        let more = output(
            command.expect("a command").expect("a word"),
            &view(&good_page()),
        );
        assert!(more.starts_with(name), "{more}");
    }
    assert_eq!(
        output(Command::HelpOf("time"), &view(&good_page())),
        "time [-n TIMES]: the time, its bound, TAI-UTC, the host clock's status\n\
         True time is within the bound behind the ±.\n"
    );
}

#[test]
fn what_boot_noted_is_told_line_by_line() {
    let view = view(&good_page());
    assert_eq!(
        output(Command::Description, &view),
        "described   by a test\n"
    );
    assert_eq!(
        output(Command::Pci, &view),
        "00:01.0     1af4:1041\n00:02.0     1af4:1045\n"
    );
    assert_eq!(output(Command::Mem, &view), "nothing is known of that\n");
}

#[test]
fn the_counter_is_measured() {
    let out = output(Command::Counter, &view(&good_page()));
    assert_eq!(
        out,
        "counter     x86 TSC\n\
         page        2400000000.000 Hz\n\
         machine     does not tell its rate\n\
         invariant   unknown\n\
         read        149 ticks (62 ns), longest 50100 ticks (20874 ns)\n\
         monotonic   of 1000 reads 1 were behind the one before, 0 the same\n"
    );
    let bench = output(Command::Bench, &view(&good_page()));
    let names: Vec<&str> = bench.lines().map(|line| &line[..12]).collect();
    assert_eq!(
        names,
        [
            "nothing     ",
            "counter     ",
            "page        ",
            "line        ",
            "time        ",
            "text        "
        ]
    );
    assert!(
        bench.contains("counter     200 ticks (83 ns), longest "),
        "{bench}"
    );
}

#[test]
fn leap_seconds_known_and_announced() {
    assert_eq!(
        output(Command::Leap, &view(&good_page())),
        "tai-utc     37 s\n\
         announced   nothing for the end of this UTC day\n\
         known       none\n\
         page        indicator none, smearing hint strict\n"
    );
    assert_eq!(
        output(Command::Leap, &view(&before_leap(LeapIndicator::PrePos))),
        "tai-utc     37 s\n\
         announced   23:59:60 comes at the end of this UTC day\n\
         known       a second inserted before 2027-01-01T00:00:00.000000000Z\n\
         page        indicator insert at month end, smearing hint strict\n"
    );
}

#[test]
fn the_prompt_can_be_shown_again() {
    let mut shell = Shell::new();
    let shown = |shell: &Shell| {
        let mut out = String::new();
        shell.prompt(&mut out).expect("a String takes everything");
        out
    };
    assert_eq!(shown(&shell), "gnomon> ");
    session(&mut shell, b"stat");
    assert_eq!(shown(&shell), "gnomon> stat");
    session(&mut shell, b"\x1b[D\x1b[D");
    assert_eq!(shown(&shell), "gnomon> stat\x08\x08", "the cursor, too");
    session(&mut shell, b"\x05");
    session(&mut shell, b"us\r");
    assert_eq!(shown(&shell), "gnomon> ");
}

#[test]
fn garbage_costs_one_line() {
    let mut shell = Shell::new();
    let (out, action) = session(&mut shell, &vec![0xa5; 1 << 20]);
    assert_eq!(
        out,
        "\nbyte 0xa5 is not text, ignored up to the next Enter\n"
    );
    assert_eq!(action, None);
    let (out, _) = session(&mut shell, b"\r\ntime\r\n");
    assert_eq!(out, format!("{PROMPT}time\n{TIME}\n{PROMPT}"));
}

#[test]
fn a_command_counts_even_if_the_screen_is_gone() {
    struct Broken;
    impl Write for Broken {
        fn write_str(&mut self, _: &str) -> core::fmt::Result {
            Err(core::fmt::Error)
        }
    }
    let mut shell = Shell::new();
    let mut action = None;
    for byte in *b"poweroff\r" {
        action = shell.feed(byte, &mut Broken, &mut Good);
    }
    assert_eq!(action, Some(Action::PowerOff));
}

proptest! {
    /// A page of any bytes is printed in 22 lines, whatever is on it.
    #[test]
    fn any_page_is_printed(bytes in prop::array::uniform32(any::<u8>()), rest: [u8; 32], tail: [u8; 32], end: [u8; 16]) {
        let bytes: [u8; 112] = [&bytes[..], &rest, &tail, &end].concat().try_into().expect("112 bytes");
        let fields = Fields::from_bytes(&bytes);
        let view = view(&fields);
        prop_assert_eq!(output(Command::Page, &view).lines().count(), 22);
        let _ = output(Command::Status, &view);
        let _ = output(Command::Time(1), &view);
        let mut out = String::new();
        report::boot(&mut out, &view).expect("a String takes everything");
        prop_assert_eq!(out.lines().count(), 6);
    }

    /// Whatever is typed, an Enter later the shell obeys again.
    #[test]
    fn any_input_is_survived(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut shell = Shell::new();
        session(&mut shell, &noise);
        let (out, _) = session(&mut shell, b"\r\ntime\r");
        let end = format!("time\n{TIME}\n{PROMPT}");
        prop_assert!(out.ends_with(&end), "{}", out);
    }
}

/// On Arm there is a second view of the counter, or there is said to be none.
#[test]
fn the_physical_counter() {
    let stamp = |ticks| Stamp {
        ticks: Ticks(ticks),
        marker: 1,
    };
    let mut watch = Watch::new();
    let of = |watch: &Watch, command| {
        let view = View {
            counter: CounterId::ArmVcnt,
            watch,
            ..view(&good_page())
        };
        output(command, &view)
    };
    let status = of(&watch, Command::Status);
    assert!(
        status.contains("\nphysical    CNTPCT unavailable\n"),
        "{status}"
    );
    watch.look(stamp(100), 1_130, stamp(160));
    let status = of(&watch, Command::Status);
    let line = "\nphysical    CNTPCT-CNTVCT 1000 ± 32 ticks, unannounced changes 0\n";
    assert!(status.contains(line), "{status}");
    watch.look(stamp(200), 0, stamp(260));
    let moved = "CNTPCT-CNTVCT was 1000 and is -230 ticks without a disruption, marker 0x1";
    let status = of(&watch, Command::Status);
    assert!(
        status.contains(&format!("\nmoved       {moved}\n")),
        "{status}"
    );
    let audit = of(&watch, Command::Audit);
    let line = "\n1           counter moved without a disruption\n";
    assert!(audit.contains(line), "{audit}");
}
