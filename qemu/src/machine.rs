//! A QEMU machine to be started: its command line as a type.
//!
//! ```no_run
//! use core::time::Duration;
//!
//! use gnomon_qemu::machine::{Arch, Machine};
//!
//! let mut vm = Machine::new(Arch::X86_64).kernel("build/gnomon-x86_64.elf").memory(16).start()?;
//! vm.wait_serial("> ", Duration::from_secs(30))?;
//! vm.send_serial("time\r")?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod firmware;
mod kept;
mod line;

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Instant, SystemTime};

use clap::ValueEnum;

use self::kept::Kept;

pub use self::firmware::Firmware;
pub use crate::arch::Arch;
use crate::child::{Child, End};
use crate::memory::GuestPage;
use crate::publish::{self, Host, Notice, PublishError, Publisher};
use crate::qmp::{Qmp, QmpError, readable};
use crate::serial::Serial;
use crate::temporary::Directory;
use crate::tree::{self, TreeError};
use crate::vm::Vm;
use crate::worker::{INCOMING, locate_page, machine_state};

/// The UDP port of this host at which the guest's NTP server is reached.
pub const NTP_PORT: u16 = 11123;
/// The TCP port of this host at which the guest's HTTP server is reached.
pub const HTTP_PORT: u16 = 11180;
/// Names another program than [`Arch::program`].
const PROGRAM_VARIABLE: &str = "GNOMON_QEMU";
/// How long QEMU may take to start. It takes a tenth of a second on an idle machine.
const START: Duration = Duration::from_mins(1);
/// How long QEMU may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How often the host's clock is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// I/O port of the `isa-debug-exit` device, 4 bytes wide. A guest that writes the value `v` there
/// ends QEMU with the exit status `2·v + 1`. A guest that powers off by ACPI ends it with 0.
pub const EXIT_PORT: u16 = 0xf4;
/// What a guest writes to [`EXIT_PORT`] after an unexpected trap or a panic.
pub const EXIT_FAILURE: u8 = 0x31;
/// The exit status of QEMU after that: 99.
pub const STATUS_FAILURE: i32 = ((EXIT_FAILURE as i32) << 1) | 1;

/// The board of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Board {
    /// x86 with PCI Express.
    Q35,
    /// x86 with PCI.
    Pc,
    /// aarch64.
    Virt,
}

impl Board {
    /// The one that is taken if none is named.
    const fn of(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::Q35,
            Arch::Aarch64 => Self::Virt,
        }
    }

    const fn arch(self) -> Arch {
        match self {
            Self::Q35 | Self::Pc => Arch::X86_64,
            Self::Virt => Arch::Aarch64,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::Virt => "virt",
        }
    }
}

/// How the guest reaches its network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// virtio over PCI.
    #[default]
    Pci,
    /// virtio with registers in memory, of version 1: only on [`Board::Virt`].
    Mmio,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// QEMU's own translator: works everywhere.
    #[default]
    Tcg,
    /// The host's processor. Time cannot be published.
    Kvm,
}

/// What the guest's network interface is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// There is no interface.
    None,
    /// QEMU's own network of one, with the guest's servers at these ports of 127.0.0.1; 0 takes a
    /// free one.
    User {
        /// The UDP port on this host for NTP.
        ntp: u16,
        /// The TCP port on this host for HTTP.
        http: u16,
    },
    /// A tap interface that exists and is up.
    Tap(String),
    /// A pair of datagram sockets, one frame per datagram.
    Unix {
        /// QEMU's, which it creates.
        local: PathBuf,
        /// The other side's, to which it sends.
        remote: PathBuf,
    },
}

/// Where the guest's serial line goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SerialTo {
    /// Kept in memory, for [`Vm::wait_serial`] and [`Vm::serial_log`].
    #[default]
    Memory,
    /// Written to standard output as it comes.
    Stdout,
    /// Written to a file, which is created or emptied.
    File(PathBuf),
    /// A pseudo-terminal of QEMU's: what the guest says while nobody has it open is lost.
    Pty,
}

/// A machine to be started.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent choices, not a state"
)]
#[derive(Debug)]
pub struct Machine {
    arch: Arch,
    board: Board,
    accel: Accel,
    cpu: String,
    memory_mib: u32,
    net: Net,
    transport: Transport,
    nic: String,
    serial: SerialTo,
    kernel: Option<PathBuf>,
    firmware: Firmware,
    /// The file of that, once QEMU is chosen.
    bios: Option<PathBuf>,
    append: String,
    ntp_keys: Option<PathBuf>,
    qemu: Option<PathBuf>,
    vmclock: bool,
    rtc: bool,
    page_interrupt: Option<u32>,
    publish: Option<publish::Options>,
    paused: bool,
    reboots: bool,
    qmp_socket: Option<PathBuf>,
    trees: Option<PathBuf>,
    extra: Vec<OsString>,
}

impl Machine {
    /// A machine as `gnomon-qemu run` starts it, without a kernel: q35 or virt, TCG, 32 MiB, a virtio
    /// network interface in QEMU's user network, a vmclock page with published time.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        Self {
            arch,
            board: Board::of(arch),
            accel: Accel::default(),
            cpu: "max".to_owned(),
            memory_mib: 32,
            net: Net::User { ntp: 0, http: 0 },
            transport: Transport::default(),
            nic: String::new(),
            serial: SerialTo::default(),
            kernel: None,
            firmware: Firmware::default(),
            bios: None,
            append: String::new(),
            ntp_keys: None,
            qemu: None,
            vmclock: true,
            rtc: false,
            page_interrupt: None,
            publish: Some(publish::Options::default()),
            paused: false,
            reboots: true,
            qmp_socket: None,
            trees: kept::folder(),
            extra: Vec::new(),
        }
    }

    /// The board.
    #[must_use]
    pub fn board(self, board: Board) -> Self {
        Self { board, ..self }
    }

    /// The accelerator. Under KVM, publishing has to be switched off.
    #[must_use]
    pub fn accel(self, accel: Accel) -> Self {
        Self { accel, ..self }
    }

    /// The processor model in QEMU's words, `max` by default.
    #[must_use]
    pub fn cpu(self, cpu: impl Into<String>) -> Self {
        Self {
            cpu: cpu.into(),
            ..self
        }
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory(self, mib: u32) -> Self {
        Self {
            memory_mib: mib,
            ..self
        }
    }

    /// The network.
    #[must_use]
    pub fn net(self, net: Net) -> Self {
        Self { net, ..self }
    }

    /// How the guest reaches its network interface.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// More properties of the network interface in QEMU's words, such as `disable-legacy=on`.
    #[must_use]
    pub fn nic(self, properties: impl Into<String>) -> Self {
        Self {
            nic: properties.into(),
            ..self
        }
    }

    /// Where the serial line goes.
    #[must_use]
    pub fn serial(self, serial: SerialTo) -> Self {
        Self { serial, ..self }
    }

    /// The kernel to start. Without one, the firmware looks for something else to do.
    #[must_use]
    pub fn kernel(self, image: impl Into<PathBuf>) -> Self {
        Self {
            kernel: Some(image.into()),
            ..self
        }
    }

    /// What a PC runs before the kernel.
    #[must_use]
    pub fn firmware(self, firmware: Firmware) -> Self {
        Self { firmware, ..self }
    }

    /// The kernel's command line.
    #[must_use]
    pub fn append(self, line: impl Into<String>) -> Self {
        Self {
            append: line.into(),
            ..self
        }
    }

    /// The file of the NTP server's keys, in chrony's format. Unlike the command line, its content is seen by
    /// nobody who may only see this host's processes.
    #[must_use]
    pub fn ntp_keys(self, file: impl Into<PathBuf>) -> Self {
        Self {
            ntp_keys: Some(file.into()),
            ..self
        }
    }

    /// The QEMU to start instead of `$GNOMON_QEMU` or the [`Arch::program`] in `PATH`.
    #[must_use]
    pub fn qemu(self, program: impl Into<PathBuf>) -> Self {
        Self {
            qemu: Some(program.into()),
            ..self
        }
    }

    /// Whether there is a vmclock page; without it nothing is published.
    #[must_use]
    pub fn vmclock(self, present: bool) -> Self {
        let publish = self.publish.filter(|_| present);
        Self {
            vmclock: present,
            publish,
            ..self
        }
    }

    /// Says in an aarch64 machine's device tree that this shared interrupt notifies the page's updates. Nobody here
    /// raises it.
    #[must_use]
    pub fn page_interrupt(self, number: u32) -> Self {
        Self {
            page_interrupt: Some(number),
            ..self
        }
    }

    /// Whether there is a virtio real-time clock, which tells the host's time without a publisher. It
    /// takes QEMU 11.1.
    #[must_use]
    pub fn rtc(self, present: bool) -> Self {
        Self {
            rtc: present,
            ..self
        }
    }

    /// What to publish; `None` leaves the page without time.
    #[must_use]
    pub fn publish(self, options: Option<publish::Options>) -> Self {
        Self {
            publish: options,
            ..self
        }
    }

    /// Whether the machine is left stopped before its first instruction, for [`Vm::cont`].
    #[must_use]
    pub fn paused(self, paused: bool) -> Self {
        Self { paused, ..self }
    }

    /// Whether a reset starts the guest again (the default) or ends QEMU with exit status 0.
    #[must_use]
    pub fn reboots(self, reboots: bool) -> Self {
        Self { reboots, ..self }
    }

    /// A socket at which QEMU listens for another QMP client.
    #[must_use]
    pub fn qmp_socket(self, path: impl Into<PathBuf>) -> Self {
        Self {
            qmp_socket: Some(path.into()),
            ..self
        }
    }

    /// The folder in which device trees are kept that QEMU was asked for, so that it need not be asked again; `None`
    /// keeps none. By default that is `gnomon` in the user's cache.
    #[must_use]
    pub fn trees(self, folder: Option<PathBuf>) -> Self {
        Self {
            trees: folder,
            ..self
        }
    }

    /// One more argument of QEMU.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.extra.push(argument.into());
        self
    }

    /// Starts the machine, and publishing.
    ///
    /// # Errors
    /// When QEMU does not start, or time cannot be published to it; in one sentence that says what
    /// to do about it.
    pub fn start(self) -> Result<Vm, StartError> {
        self.start_with(Box::new(|_| ()))
    }

    /// Starts the machine; what the publisher has to say goes to `notice`.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_with(mut self, notice: Notice) -> Result<Vm, StartError> {
        if self.board.arch() != self.arch {
            return Err(StartError::Board(self.board, self.arch));
        }
        if self.publish.is_some() && self.accel == Accel::Kvm {
            return Err(StartError::Publish(PublishError::Kvm));
        }
        // First of all, and on while QEMU starts, so that when the guest runs the clock's rate is
        // known.
        let mut host = match self.publish {
            Some(_) => Some(Host::new(self.arch).map_err(PublishError::from)?),
            None => None,
        };
        let mut look = || match &mut host {
            Some(host) => host
                .look()
                .map_err(|error| StartError::Publish(error.into())),
            None => Ok(()),
        };
        let directory = Directory::new()?;
        let listen = |name| UnixListener::bind(directory.0.join(name));
        let (qmp_listener, publisher_listener) = (listen("qmp")?, listen("publisher")?);
        let serial_listener = listen("serial")?;

        let ports = match self.net {
            Net::User { ntp, http } => Some(Ports::new(ntp, http)?),
            _ => None,
        };
        let program = self.program()?;
        // Under KVM nobody has tried another one than QEMU's.
        if let (Arch::X86_64, Accel::Tcg, Some(kernel)) = (self.arch, self.accel, &self.kernel) {
            self.bios = self.firmware.file(&program, kernel);
        }
        let page = self.publish.and_then(|options| options.page);
        let page = page.unwrap_or(self.arch.page());
        let tree = match self.arch {
            Arch::Aarch64 if self.vmclock => {
                Some(self.make_tree(&program, &directory.0, page, &mut look)?)
            }
            _ => None,
        };
        let arguments = self.arguments(&directory.0, tree.as_deref(), ports);
        let mut child = start_child(&program, &arguments)?;
        let mut accept = |listener: &UnixListener| {
            let stream = accept(listener, &mut child, &mut look)?;
            stream.ok_or_else(|| explain(&program, &mut child, ports))
        };
        let serial = match &self.serial {
            SerialTo::Pty => None,
            SerialTo::Memory => Some(Serial::to_memory(accept(&serial_listener)?)?),
            SerialTo::Stdout => Some(Serial::to(accept(&serial_listener)?, io::stdout())?),
            SerialTo::File(path) => {
                let file = File::create(path)
                    .map_err(|error| StartError::SerialFile(path.clone(), error))?;
                Some(Serial::to(accept(&serial_listener)?, file)?)
            }
        };
        let (stream, publisher_stream) = (accept(&qmp_listener)?, accept(&publisher_listener)?);
        look()?;
        let mut qmp = match Qmp::new(stream) {
            Err(QmpError::Closed) => return Err(explain(&program, &mut child, ports)),
            qmp => qmp?,
        };
        // The sockets are connected and the tree is read: they need no names any more.
        drop(directory);
        let page = if self.vmclock {
            Some(locate_page(&mut qmp, page)?)
        } else {
            None
        };
        let incoming = match (page, &tree) {
            (Some(page), Some(_)) => make_page(&mut qmp, child.pid(), page)?,
            _ => false,
        };
        look()?;
        let mut publisher = None;
        if let (Some(options), Some(host)) = (self.publish, host) {
            let qmp = Qmp::new(publisher_stream)?;
            publisher = Some(Publisher::attach(qmp, child.pid(), host, options, notice)?);
        }
        let interactive = self.serial == SerialTo::Stdout;
        let vm = Vm {
            publisher,
            qmp,
            serial,
            interactive,
            ports,
            page,
            page_is_ours: page.is_some() && tree.is_some(),
            incoming,
            child,
        };
        vm.finish_start(self.paused)
    }

    fn program(&self) -> Result<PathBuf, StartError> {
        let chosen = self
            .qemu
            .clone()
            .or_else(|| env::var_os(PROGRAM_VARIABLE).map(PathBuf::from));
        match chosen {
            // A directory or a file that cannot be executed gives an error later on.
            Some(program) if program.components().count() > 1 && !program.exists() => {
                Err(StartError::NoQemu(program))
            }
            Some(program) => Ok(program),
            None => Ok(PathBuf::from(self.arch.program())),
        }
    }

    /// The machine's own device tree with the page in it; returns the file's name.
    fn make_tree(
        &self,
        program: &Path,
        directory: &Path,
        page: u64,
        look: &mut impl FnMut() -> Result<(), StartError>,
    ) -> Result<PathBuf, StartError> {
        let kept = self
            .tree_arguments()
            .zip(self.trees.clone())
            .and_then(|(arguments, folder)| Kept::new(folder, program, &arguments));
        let blob = if let Some(blob) = kept.as_ref().and_then(Kept::tree) {
            blob
        } else {
            let blob = self.ask_for_tree(program, directory, look)?;
            // What cannot be kept is asked for again.
            let _ = kept.map(|kept| kept.keep(&blob));
            blob
        };
        let ours = directory.join("machine.dtb");
        fs::write(&ours, tree::with_page(&blob, page, self.page_interrupt)?)?;
        Ok(ours)
    }

    /// Has QEMU write the machine's own device tree.
    fn ask_for_tree(
        &self,
        program: &Path,
        directory: &Path,
        look: &mut impl FnMut() -> Result<(), StartError>,
    ) -> Result<Vec<u8>, StartError> {
        let dumped = directory.join("dumped.dtb");
        let mut child = start_child(program, &self.dump_arguments(&dumped))?;
        let deadline = Instant::now() + START;
        while child.wait(LOOK).is_none() && Instant::now() < deadline {
            look()?;
        }
        fs::read(&dumped).map_err(|_| explain(program, &mut child, None))
    }
}

/// Why a machine does not start.
#[derive(Debug)]
pub enum StartError {
    /// The board is not one of this architecture.
    Board(Board, Arch),
    /// The machine's device tree cannot be added to.
    Tree(TreeError),
    /// There is no such program.
    NoQemu(PathBuf),
    /// This QEMU does not have the device.
    NoVmclock {
        /// The program.
        program: PathBuf,
        /// What it says of its version.
        version: Option<String>,
    },
    /// The port for NTP is taken on this host.
    PortInUse(u16),
    /// The port for HTTP is taken on this host.
    HttpPortInUse(u16),
    /// QEMU has ended at once.
    Ended {
        /// The program.
        program: PathBuf,
        /// The first line of its complaints.
        words: String,
        /// How it ended, or not at all.
        end: Option<End>,
    },
    /// The file for the serial line cannot be written.
    SerialFile(PathBuf, io::Error),
    /// Time cannot be published.
    Publish(PublishError),
    /// QEMU's monitor fails.
    Qmp(QmpError),
    /// A request to the kernel fails.
    Io(io::Error),
}

impl From<TreeError> for StartError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<PublishError> for StartError {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<QmpError> for StartError {
    fn from(error: QmpError) -> Self {
        Self::Qmp(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(board, arch) => write!(
                f,
                "{} is no board of {}: leave --machine out",
                board.name(),
                arch.name()
            ),
            Self::Tree(error) => error.fmt(f),
            Self::NoQemu(program) => write!(
                f,
                "there is no {}: install QEMU 10.0 or newer (`make run` does), or name it with \
                 --qemu PATH",
                program.display()
            ),
            Self::NoVmclock { program, version } => write!(
                f,
                "{} ({}) has no vmclock device: it takes QEMU 10.0 or newer, which on Debian 12 is \
                 in bookworm-backports (`make run` installs it; --qemu PATH names another one)",
                program.display(),
                version.as_deref().unwrap_or("of unknown version")
            ),
            Self::PortInUse(port) => {
                write!(
                    f,
                    "UDP port {port} of 127.0.0.1 is taken: choose another with --ntp PORT"
                )
            }
            Self::HttpPortInUse(port) => {
                write!(
                    f,
                    "TCP port {port} of 127.0.0.1 is taken: choose another with --http PORT"
                )
            }
            Self::Ended {
                program,
                words,
                end: Some(end),
            } => {
                write!(f, "{} has not started ({end}): {words}", program.display())
            }
            Self::Ended {
                program,
                words,
                end: None,
            } => {
                write!(f, "{} does not answer: {words}", program.display())
            }
            Self::SerialFile(path, error) => {
                write!(
                    f,
                    "the serial line cannot go to {}: {error}",
                    path.display()
                )
            }
            Self::Publish(error) => error.fmt(f),
            Self::Qmp(error) => error.fmt(f),
            Self::Io(error) => write!(f, "QEMU cannot be started: {error}"),
        }
    }
}

impl core::error::Error for StartError {}

/// Makes the page that no device of QEMU's has made; whether memory with another is on its way.
fn make_page(qmp: &mut Qmp, pid: u32, address: u64) -> Result<bool, PublishError> {
    let incoming = machine_state(qmp)? == INCOMING;
    match GuestPage::open(pid, address) {
        // It has arrived already.
        Ok(mut page) if !incoming => page.raise_marker()?,
        _ if incoming => {
            // Memory that arrives just before this write has a page whose marker is lost by it: the
            // new one must be none that it can have had. Markers count up, and never as fast as time.
            let age = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let marker = u64::try_from(age.as_micros()).unwrap_or(u64::MAX / 2);
            GuestPage::create(pid, address, marker)?;
        }
        _ => drop(GuestPage::create(pid, address, 1)?),
    }
    Ok(incoming)
}

fn start_child(program: &Path, arguments: &[OsString]) -> Result<Child, StartError> {
    Child::start(program, arguments).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::NoQemu(program.to_owned()),
        _ => StartError::Io(error),
    })
}

/// Says why QEMU ended before it answered.
fn explain(program: &Path, child: &mut Child, ports: Option<Ports>) -> StartError {
    let end = child.wait(GRACE);
    let complaint = child.complaints();
    let says = |words| complaint.contains(words);
    let program = program.to_owned();
    if says("vmclock") && says("not a valid device model name") {
        let version = version(&program);
        return StartError::NoVmclock { program, version };
    }
    if let Some(ports) = ports.filter(|_| says("host forwarding rule")) {
        return if says("rule 'tcp:") {
            StartError::HttpPortInUse(ports.http)
        } else {
            StartError::PortInUse(ports.ntp)
        };
    }
    // Its first line says what is wrong, others what else there is.
    let words = complaint
        .lines()
        .next()
        .unwrap_or("it says nothing")
        .trim()
        .to_owned();
    StartError::Ended {
        program,
        words,
        end,
    }
}

/// Waits for QEMU's connection, and looks at the host's clock meanwhile; `None` when QEMU ends
/// without.
fn accept(
    listener: &UnixListener,
    child: &mut Child,
    look: &mut impl FnMut() -> Result<(), StartError>,
) -> Result<Option<UnixStream>, StartError> {
    let deadline = Instant::now() + START;
    while child.wait(Duration::ZERO).is_none() && Instant::now() < deadline {
        child.readable_or_ended(listener, LOOK)?;
        if readable(listener, Duration::ZERO)? {
            return Ok(Some(listener.accept()?.0));
        }
        look()?;
    }
    // It may have connected and then failed over a later option.
    Ok(None)
}

/// A UDP port of 127.0.0.1 that nobody uses at the moment.
/// The ports of 127.0.0.1 that lead to a guest in QEMU's user network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// UDP.
    pub(crate) ntp: u16,
    /// TCP.
    pub(crate) http: u16,
}

impl Ports {
    /// These, or free ones in place of 0.
    fn new(ntp: u16, http: u16) -> io::Result<Self> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        let ntp = match ntp {
            0 => UdpSocket::bind(any)?.local_addr()?.port(),
            ntp => ntp,
        };
        let http = match http {
            0 => TcpListener::bind(any)?.local_addr()?.port(),
            http => http,
        };
        Ok(Self { ntp, http })
    }
}

/// What this QEMU says of its version.
fn version(program: &Path) -> Option<String> {
    let output = process::Command::new(program)
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_once("version ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_choices_are_refused_before_anything_starts() {
        for (arch, board) in [(Arch::Aarch64, Board::Pc), (Arch::X86_64, Board::Virt)] {
            let error = Machine::new(arch).board(board).start();
            let error = error.expect_err("no such machine").to_string();
            assert!(error.contains("--machine"), "{error}");
        }
        let kvm = Machine::new(Arch::X86_64).accel(Accel::Kvm);
        let error = kvm.start().expect_err("not proven").to_string();
        assert!(
            error.contains("KVM") && error.contains("--no-publish"),
            "{error}"
        );
    }

    #[test]
    fn missing_qemu_is_one_sentence() {
        for program in ["no-such-qemu", "/no/such/qemu"] {
            let machine = Machine::new(Arch::X86_64).qemu(program);
            let error = machine.start().expect_err("not there").to_string();
            assert!(
                error.contains(program) && error.contains("QEMU 10.0"),
                "{error}"
            );
        }
    }

    /// A program that behaves like a QEMU without the device.
    #[test]
    fn qemu_without_the_device_is_one_sentence() {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old-qemu");
        let machine = Machine::new(Arch::X86_64).qemu(program);
        let error = machine.start().expect_err("no device").to_string();
        assert!(
            error.contains("7.2.9") && error.contains("bookworm-backports"),
            "{error}"
        );
    }
}
