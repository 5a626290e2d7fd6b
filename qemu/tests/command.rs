//! The command `gnomon-qemu`, with a guest of forty bytes: it says `>`, then everything it hears, and
//! ends with the failing exit code when it hears `!`.

use core::time::Duration;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use gnomon_clock::Timeline;
use gnomon_qemu::machine::{Arch, Machine, Net, SerialTo};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

const PATIENCE: Duration = Duration::from_mins(1);

/// A Multiboot image: its header (with addresses, so that no ELF is needed), then 32-bit code.
fn echo_guest() -> PathBuf {
    const LOAD: u32 = 0x10_0000;
    const MAGIC: u32 = 0x1bad_b002;
    const WITH_ADDRESSES: u32 = 1 << 16;
    #[rustfmt::skip]
    let code = [
        0xba, 0xf8, 0x03, 0, 0, //  mov edx, 0x3f8
        0xb0, b'>', //              mov al, '>'
        0xee, //                    out dx, al
        0xba, 0xfd, 0x03, 0, 0, //  next: mov edx, 0x3fd
        0xec, //                    wait: in al, dx
        0x24, 0x21, //              and al, 0x21      a byte is there, and room for one
        0x3c, 0x21, //              cmp al, 0x21
        0x75, 0xf9, //              jne wait
        0xba, 0xf8, 0x03, 0, 0, //  mov edx, 0x3f8
        0xec, //                    in al, dx
        0x3c, b'!', //              cmp al, '!'
        0x75, 0x08, //              jne echo
        0xba, 0xf4, 0, 0, 0, //     mov edx, 0xf4
        0xb0, 0x31, //              mov al, 0x31
        0xee, //                    out dx, al
        0xee, //                    echo: out dx, al
        0xeb, 0xdf, //              jmp next
    ];
    let end = LOAD + 0x100;
    let header = [
        MAGIC,
        WITH_ADDRESSES,
        0_u32.wrapping_sub(MAGIC + WITH_ADDRESSES),
        LOAD,
        LOAD,
        end,
        end,
        LOAD + 32,
    ];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.extend(code);
    image.resize(0x100, 0x90);
    let path = temporary("guest");
    fs::write(&path, image).expect("a temporary file");
    path
}

fn temporary(name: &str) -> PathBuf {
    use core::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // The launcher removes what is called so of processes that are no more.
    std::env::temp_dir().join(format!("gnomon-{}-{number}-{name}", std::process::id()))
}

struct Run {
    child: Child,
    guest: PathBuf,
    said: BufReader<std::process::ChildStderr>,
}

impl Run {
    /// `gnomon-qemu run` with these arguments, once it has said everything it says at the start.
    fn start(arguments: &[&str], stdin: Stdio) -> Self {
        let guest = echo_guest();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gnomon-qemu"))
            .args(["run", "--kernel"])
            .arg(&guest)
            .args(["--net", "none"])
            .args(arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, guest, said }
    }

    fn hear(&mut self, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        let stdout = self.child.stdout.as_mut().expect("piped");
        if let Err(error) = stdout.read_exact(&mut bytes) {
            let mut rest = String::new();
            self.said.read_to_string(&mut rest).expect("text");
            panic!("{error}: {rest}");
        }
        let heard = String::from_utf8_lossy(&bytes).into_owned();
        assert!(bytes == expected, "{heard}");
    }

    fn read_until(&mut self, words: &str) -> String {
        let mut all = String::new();
        while !all.contains(words) {
            let length = self.said.read_line(&mut all).expect("text");
            assert!(length > 0, "it has not said {words}: {all}");
        }
        all
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).expect("it runs");
    }

    /// How it ends, and the rest of what it says.
    fn end(mut self) -> (ExitStatus, String) {
        let descriptor =
            pidfd_open(pid(self.child.id()), PidfdFlags::empty()).expect("not waited for");
        let patience = Timespec::try_from(PATIENCE).expect("short");
        let ended = poll(
            &mut [PollFd::new(&descriptor, PollFlags::IN)],
            Some(&patience),
        );
        if ended != Ok(1) {
            self.child.kill().expect("it runs");
        }
        let status = self.child.wait().expect("our child");
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("text");
        fs::remove_file(&self.guest).expect("our file");
        assert_eq!(ended, Ok(1), "it does not end: {rest}");
        (status, rest)
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).expect("a process")
}

#[test]
fn end_of_input_goes_on_and_a_signal_ends_it() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut run = Run::start(&[], Stdio::null());
        run.read_until("Ctrl-C ends it");
        run.hear(b">");
        run.signal(signal);
        let (status, rest) = run.end();
        assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
    }
}

#[test]
fn time_limit_ends_it() {
    let started = Instant::now();
    let (status, said) = Run::start(&["--seconds", "1"], Stdio::null()).end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn everything_typed_arrives_and_everything_said_is_shown() {
    let mut run = Run::start(&[], Stdio::piped());
    run.hear(b">");
    let text: Vec<u8> = (0..20_000_u32)
        .map(|number| b'a' + number.to_le_bytes()[0] % 26)
        .collect();
    let mut stdin = run.child.stdin.take().expect("piped");
    let typed = text.clone();
    let typist = std::thread::spawn(move || {
        stdin.write_all(&typed).expect("it listens");
        stdin
    });
    run.hear(&text);
    let mut stdin = typist.join().expect("typed");
    stdin.write_all(b"!").expect("it listens");
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(99));
    assert!(
        said.contains("the guest has failed: a trap or a panic (exit status 99)"),
        "{said}"
    );
}

#[test]
fn terminal_is_raw_meanwhile_and_ctrl_c_ends_it() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("ours");
    unlockpt(&master).expect("ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let name = Path::new(name.to_str().expect("ASCII"));
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name)
        .expect("the other end");
    let before = tcgetattr(&terminal).expect("a terminal");
    assert!(
        before
            .local_modes
            .contains(LocalModes::ECHO | LocalModes::ICANON)
    );

    let stdin = OwnedFd::from(terminal.try_clone().expect("a second handle"));
    let mut run = Run::start(&[], stdin.into());
    run.read_until("Ctrl-C ends it");
    run.hear(b">");
    rustix::io::write(&master, b"key").expect("typed");
    run.hear(b"key"); // without a newline, so the terminal is raw
    let meanwhile = tcgetattr(&terminal).expect("a terminal");
    assert!(
        !meanwhile
            .local_modes
            .intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    );
    rustix::io::write(&master, b"\x03").expect("typed");
    let (status, rest) = run.end();
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
    let after = tcgetattr(&terminal).expect("a terminal");
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
}

#[test]
fn serial_line_can_go_to_a_file_or_a_pseudo_terminal() {
    let file = temporary("serial");
    let run = Run::start(
        &["--serial", file.to_str().expect("ASCII"), "--seconds", "1"],
        Stdio::null(),
    );
    let (status, said) = run.end();
    assert_eq!(
        (status.code(), fs::read(&file).expect("written")),
        (Some(0), b">".to_vec()),
        "{said}"
    );
    fs::remove_file(&file).expect("our file");

    let mut run = Run::start(&["--serial", "pty"], Stdio::null());
    let said = run.read_until("serial line: /dev/pts/");
    let name = said
        .lines()
        .last()
        .and_then(|line| line.split_once("line: "))
        .expect("a name")
        .1;
    let mut pty = File::options()
        .read(true)
        .write(true)
        .open(name)
        .expect("a terminal");
    // What was said before that is lost.
    pty.write_all(b"x").expect("it listens");
    let mut byte = [0];
    while byte != *b"x" {
        pty.read_exact(&mut byte).expect("it answers");
    }
    run.signal(Signal::TERM);
    assert_eq!(run.end().0.code(), Some(0));
}

#[test]
fn greeting_says_how_to_ask_for_the_time() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.expect("a free port").port().to_string();
    let mut run = Run::start(&["--net", "user", "--ntp", &port], Stdio::null());
    let said = run.read_until("Ctrl-C ends it");
    let chronyd = format!("chronyd -Q -t 5 'server 127.0.0.1 port {port} iburst'");
    assert!(
        said.contains(&chronyd) && said.contains("ntpdig 127.0.0.1"),
        "{said}"
    );
    run.signal(Signal::TERM);
    assert_eq!(run.end().0.code(), Some(0));
}

#[test]
fn launcher_that_is_killed_takes_qemu_with_it() {
    let mut run = Run::start(&[], Stdio::null());
    run.hear(b">");
    let children = format!("/proc/{0}/task", run.child.id());
    let qemu = fs::read_dir(children).expect("it runs").find_map(|task| {
        let list = fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        list.split_whitespace().next()?.parse::<u32>().ok()
    });
    let descriptor = pidfd_open(pid(qemu.expect("a child")), PidfdFlags::empty()).expect("it runs");
    run.signal(Signal::KILL);
    let patience = Timespec::try_from(PATIENCE).expect("short");
    let ended = poll(
        &mut [PollFd::new(&descriptor, PollFlags::IN)],
        Some(&patience),
    );
    assert_eq!(ended, Ok(1), "QEMU has outlived its launcher");
    assert_eq!(run.end().0.code(), None);
}

#[test]
fn mistakes_are_one_clear_sentence() {
    for (arguments, words) in [
        (
            &["run", "--arch", "aarch64", "--machine", "pc"][..],
            "no board of aarch64",
        ),
        (&["run", "--accel", "kvm"], "--no-publish"),
        (
            &["run", "--qemu", "/no/such/qemu"],
            "install QEMU 10.0 or newer",
        ),
        (
            &[
                "run",
                "--qemu",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old-qemu"),
            ],
            "no vmclock device",
        ),
        (
            &["publish", "--qmp", "/no/such/socket"],
            "no QMP at /no/such/socket",
        ),
    ] {
        let guest = echo_guest();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon-qemu"));
        command.args(arguments);
        if arguments.first() == Some(&"run") {
            command.arg("--kernel").arg(&guest);
        }
        let output = command.stdin(Stdio::null()).output().expect("the command");
        fs::remove_file(guest).expect("our file");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn scenario_is_played_to_a_machine_from_its_start() {
    let script = temporary("scenario");
    fs::write(
        &script,
        "date 2036-02-07T06:28:10Z\nsay it has begun\nwait 1s\n",
    )
    .expect("written");
    let script_path = script.to_str().expect("ASCII");
    let mut run = Run::start(&["--scenario", script_path], Stdio::null());
    run.read_until("it has begun");
    run.signal(Signal::TERM);
    assert_eq!(run.end().0.code(), Some(0));

    fs::write(&script, "wait 1s\nwaite 1s\n").expect("written");
    let said = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon-qemu"));
        command
            .arg("run")
            .args(arguments)
            .args(["--kernel", "/no/such/image"]);
        let output = command.stdin(Stdio::null()).output().expect("the command");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let mistake = said(&["--scenario", script_path]);
    assert!(
        mistake.ends_with("scenario: line 2: unknown statement \"waite\"\n"),
        "{mistake}"
    );
    assert!(said(&["--scenario", "/no/such/file"]).contains("/no/such/file: "));
    fs::write(&script, "wait 1s\n").expect("written");
    for other in [&["--no-publish"][..], &["--reference", "utc"]] {
        let arguments = [&["--scenario", script_path], other].concat();
        assert!(said(&arguments).contains("scenario"), "{other:?}");
    }
    fs::remove_file(&script).expect("our file");
}

#[test]
fn publish_fills_the_page_of_a_qemu_that_runs() {
    for arch in Arch::ALL {
        publish_fills_the_page_of(arch);
    }
}

fn publish_fills_the_page_of(arch: Arch) {
    let socket = temporary("qmp");
    let machine = Machine::new(arch).net(Net::None).serial(SerialTo::Memory);
    let machine = machine.publish(None).qmp_socket(&socket);
    let vm = machine.start().unwrap_or_else(|error| panic!("{error}"));
    let page = vm.page().expect("a page");
    let valid = || {
        let fields = page.fields().expect("readable");
        Timeline::from_page(&fields, arch.counter_id()).is_ok()
    };
    assert!(!valid());
    let mut publisher = Command::new(env!("CARGO_BIN_EXE_gnomon-qemu"))
        .args(["publish", "--time", "utc", "--interval", "10", "--qmp"])
        .arg(&socket)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command");
    let mut said = BufReader::new(publisher.stderr.take().expect("piped"));
    let deadline = Instant::now() + PATIENCE;
    while !valid() {
        assert!(Instant::now() < deadline, "no time on the page");
        std::thread::yield_now();
    }
    kill_process(pid(publisher.id()), Signal::INT).expect("it runs");
    assert_eq!(publisher.wait().expect("our child").code(), Some(0));
    assert!(!valid(), "nobody keeps it up any more");
    let mut all = String::new();
    said.read_to_string(&mut all).expect("text");
    assert!(
        all.contains(&format!("publishing into QEMU's process {}", vm.pid())),
        "{all}"
    );
    fs::remove_file(&socket).expect("QEMU made it");
}
