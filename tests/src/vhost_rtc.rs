//! A virtio real-time clock of our own, behind QEMU's `vhost-user-test-device-pci`: what an honest one never does,
//! this one does when told to.
//!
//! The subset of vhost-user (QEMU `docs/interop/vhost-user.rst`) that one queue takes. Guest memory is a file
//! that QEMU hands over; it is read and written as one, so that nothing here is unsafe.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use gnomon_qemu::host::HostCounter;
use gnomon_qemu::machine::Machine;
use gnomon_qemu::mapping::Mapping;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// One of its clocks.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// As the specification numbers the kinds: 0 UTC, 1 TAI, 2 monotonic, 3 smeared, 4 perhaps smeared.
    pub kind: u8,
    /// How far it is ahead of this host's clock, in nanoseconds.
    pub ahead: i64,
}

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// What it should.
    Honest,
    /// It answers with this status, and says that it has written so many bytes.
    Answer(u8, u32),
    /// It answers rightly, and says that it has written so many bytes.
    Length(u32),
    /// It says that it has answered, and has written nothing.
    Unwritten,
    /// Nothing. When it does something else again, it answers what it was asked, with the time of then.
    Silence,
    /// It gives back what it was never lent, and then the answer.
    WrongId(u32),
    /// It gives everything back twice.
    Twice,
    /// Its ring has run ahead by so much.
    Ahead(u16),
}

/// What it says of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossed {
    /// This value, always.
    Value(u64),
    /// The truth: what the guest's counter is made of, and the host's counter that it is made from.
    Mapped(Mapping, HostCounter),
}

impl Crossed {
    /// This host's time in nanoseconds since 1970 and the guest's counter, both at one moment as nearly as can be.
    #[must_use]
    pub fn read(self) -> (u64, u64) {
        let (mapping, counter) = match self {
            Self::Value(value) => return (now(), value),
            Self::Mapped(mapping, counter) => (mapping, counter),
        };
        let read = || {
            let before = counter.now();
            let time = now();
            (counter.now().wrapping_sub(before), before, time)
        };
        let narrowest = (0..8).map(|_| read()).min().expect("some");
        let (width, before, time) = narrowest;
        let (ticks, _) = mapping.guest_at(before.wrapping_add(width / 2));
        (time, ticks)
    }
}

/// The device as the test has it.
#[derive(Debug)]
pub struct Host {
    /// Its clocks.
    pub clocks: Vec<Face>,
    /// What it says that the counter was at a reading, if it says that it can.
    pub crossed: Option<Crossed>,
    /// What it does.
    pub conduct: Conduct,
    /// Requests so far, by kind.
    pub asked: Vec<u16>,
    /// The features that the driver has taken.
    pub features: u64,
}

/// The running device, which serves one QEMU after the other.
#[derive(Debug)]
pub struct VhostRtc {
    host: Arc<Mutex<Host>>,
    enough: Arc<AtomicBool>,
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// The machine with this device, which listens on `socket`.
#[must_use]
pub fn attach(machine: Machine, socket: &Path, mib: u32) -> Machine {
    let memory = format!("memory-backend-memfd,id=shared,size={mib}M,share=on");
    let chardev = format!("socket,id=clock,path={}", socket.display());
    let device = "vhost-user-test-device-pci,chardev=clock,virtio-id=17,num_vqs=2,vq_size=64";
    machine
        .memory(mib)
        .arg("-object")
        .arg(memory)
        .arg("-machine")
        .arg("memory-backend=shared")
        .arg("-chardev")
        .arg(chardev)
        .arg("-device")
        .arg(device)
}

impl VhostRtc {
    /// Listens.
    #[must_use]
    pub fn listen(socket: &Path, clocks: &[Face]) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket of our own");
        let host = Arc::new(Mutex::new(Host {
            clocks: clocks.to_vec(),
            crossed: None,
            conduct: Conduct::Honest,
            asked: Vec::new(),
            features: 0,
        }));
        let (shared, enough) = (Arc::clone(&host), Arc::default());
        let is_enough: Arc<AtomicBool> = Arc::clone(&enough);
        let thread = thread::spawn(move || {
            loop {
                let (stream, _) = listener.accept().expect("QEMU connects");
                if is_enough.load(Ordering::Relaxed) {
                    return;
                }
                Device::new(stream, Arc::clone(&shared)).run();
            }
        });
        Self {
            host,
            enough,
            socket: socket.to_owned(),
            thread: Some(thread),
        }
    }

    /// The device, to be looked at and told what to do.
    pub fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its end, after that of QEMU.
    pub fn end(mut self) {
        self.enough.store(true, Ordering::Relaxed);
        let _wake = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("its panic is the test's");
        }
    }
}

/// A part of guest memory.
struct Region {
    guest: u64,
    length: u64,
    /// Its address in QEMU, by which rings are told.
    qemu: u64,
    offset: u64,
    file: File,
}

/// The request queue's ring, by addresses in QEMU.
#[derive(Default)]
struct Ring {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    next: u16,
    used_index: u16,
    kick: Option<File>,
}

struct Device {
    stream: UnixStream,
    host: Arc<Mutex<Host>>,
    regions: Vec<Region>,
    ring: Ring,
    /// Requests that wait: the head of each, and when it came.
    pending: VecDeque<(u16, u64)>,
}

const VERSION_1: u64 = 1 << 32;
/// The device's own first feature: alarms.
const ALARM: u64 = 1;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const MULTIQUEUE: u64 = 1;
const REPLY_ACK: u64 = 1 << 3;

impl Device {
    fn new(stream: UnixStream, host: Arc<Mutex<Host>>) -> Self {
        Self {
            stream,
            host,
            regions: Vec::new(),
            ring: Ring::default(),
            pending: VecDeque::new(),
        }
    }

    fn run(&mut self) {
        const LOOK: Duration = Duration::from_millis(5);
        loop {
            let mut descriptors = vec![PollFd::new(&self.stream, PollFlags::IN)];
            if let Some(kick) = &self.ring.kick {
                descriptors.push(PollFd::new(kick, PollFlags::IN));
            }
            let wait = Timespec::try_from(LOOK).expect("short");
            poll(&mut descriptors, Some(&wait)).expect("these are open");
            let [is_spoken_to, is_kicked] = [0, 1].map(|at| {
                descriptors
                    .get(at)
                    .is_some_and(|fd| !fd.revents().is_empty())
            });
            if is_kicked && let Some(mut kick) = self.ring.kick.as_ref() {
                let _count = kick.read(&mut [0; 8]);
            }
            if is_spoken_to && self.serve().is_err() {
                return;
            }
            self.look();
        }
    }

    /// One message of QEMU's.
    fn serve(&mut self) -> io::Result<()> {
        let mut head = [0; 12];
        let mut files = receive(&self.stream, &mut head)?;
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
        let long =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
        let (kind, flags) = (word(&head, 0), word(&head, 4));
        let mut body = vec![0; word(&head, 8) as usize];
        self.stream.read_exact(&mut body)?;
        let is_ours = body.len() >= 4 && body[0] == 0;
        let reply = match kind {
            // GET_FEATURES: alarms are offered, which nobody should take.
            1 => Some(VERSION_1 | PROTOCOL_FEATURES | ALARM),
            2 => {
                self.lock().features = long(&body, 0);
                None
            }
            // GET_PROTOCOL_FEATURES, GET_QUEUE_NUM
            15 => Some(MULTIQUEUE | REPLY_ACK),
            17 => Some(2),
            // SET_MEM_TABLE
            5 => {
                self.regions = files
                    .drain(..)
                    .enumerate()
                    .map(|(index, file)| Region {
                        guest: long(&body, 8 + index * 32),
                        length: long(&body, 16 + index * 32),
                        qemu: long(&body, 24 + index * 32),
                        offset: long(&body, 32 + index * 32),
                        file: file.into(),
                    })
                    .collect();
                None
            }
            // SET_VRING_NUM, _ADDR, _BASE, _KICK of the request queue
            8 if is_ours => {
                self.ring.size = u16::try_from(word(&body, 4)).expect("a ring's size");
                None
            }
            9 if is_ours => {
                self.ring.descriptors = long(&body, 8);
                self.ring.used = long(&body, 16);
                self.ring.available = long(&body, 24);
                None
            }
            10 if is_ours => {
                self.ring.next = u16::try_from(word(&body, 4)).expect("an index");
                self.ring.used_index = self.ring.next;
                self.pending.clear();
                None
            }
            12 if is_ours => {
                self.ring.kick = files.pop().map(Into::into);
                None
            }
            // GET_VRING_BASE: the ring stops.
            11 => {
                let next = if is_ours { self.ring.next } else { 0 };
                if is_ours {
                    self.ring.kick = None;
                }
                Some(u64::from(word(&body, 0)) | u64::from(next) << 32)
            }
            _ => None,
        };
        let reply = reply.or((flags & 8 != 0).then_some(0));
        if let Some(reply) = reply {
            let mut message = Vec::new();
            for part in [kind, 1 | 4, 8] {
                message.extend(part.to_le_bytes());
            }
            message.extend(reply.to_le_bytes());
            self.stream.write_all(&message)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the driver has put into the ring, and does with it what it was told.
    fn look(&mut self) {
        if self.ring.kick.is_none() || self.ring.size == 0 {
            return;
        }
        let [available] = self.of_qemu(self.ring.available + 2);
        while self.ring.next != available {
            let at = u64::from(self.ring.next % self.ring.size);
            let [head] = self.of_qemu(self.ring.available + 4 + 2 * at);
            self.pending.push_back((head, now()));
            self.ring.next = self.ring.next.wrapping_add(1);
        }
        let conduct = self.lock().conduct;
        if conduct == Conduct::Silence {
            return;
        }
        while let Some((head, came)) = self.pending.pop_front() {
            self.answer(head, came, conduct);
        }
    }

    fn answer(&mut self, head: u16, came: u64, conduct: Conduct) {
        let descriptor = |device: &Self, index: u16| {
            let at = device.ring.descriptors + 16 * u64::from(index);
            let [a, b, c, d, low, high, _, next] = device.of_qemu(at);
            let address = [a, b, c, d].into_iter().rev();
            let address = address.fold(0, |sum, part| sum << 16 | u64::from(part));
            (address, u64::from(high) << 16 | u64::from(low), next)
        };
        let (address, length, next) = descriptor(self, head);
        let mut request = vec![0; usize::try_from(length).expect("short")];
        self.read(address, &mut request);
        let (room, room_length, _) = descriptor(self, next);
        let mut answer = self.lock().answer(&request, came);
        assert_eq!(answer.len() as u64, room_length, "room for the answer");
        let mut written = u32::try_from(answer.len()).expect("short");
        match conduct {
            Conduct::Answer(status, length) => (answer[0], written) = (status, length),
            Conduct::Length(length) => written = length,
            Conduct::WrongId(id) => self.give(id, written),
            _ => {}
        }
        if conduct != Conduct::Unwritten {
            self.write(room, &answer);
        }
        self.give(head.into(), written);
        match conduct {
            Conduct::Twice => self.give(head.into(), written),
            Conduct::Ahead(steps) => {
                self.ring.used_index = self.ring.used_index.wrapping_add(steps);
                self.show_used();
            }
            _ => {}
        }
    }

    fn give(&mut self, id: u32, length: u32) {
        let at = u64::from(self.ring.used_index % self.ring.size);
        let element = u64::from(length) << 32 | u64::from(id);
        let place = self.guest_address(self.ring.used + 4 + 8 * at);
        self.write(place, &element.to_le_bytes());
        self.ring.used_index = self.ring.used_index.wrapping_add(1);
        self.show_used();
    }

    fn show_used(&self) {
        let place = self.guest_address(self.ring.used + 2);
        self.write(place, &self.ring.used_index.to_le_bytes());
    }

    fn guest_address(&self, address: u64) -> u64 {
        let region = self.regions.iter();
        let mut region =
            region.filter(|region| (region.qemu..region.qemu + region.length).contains(&address));
        let region = region.next().expect("a ring in guest memory");
        address - region.qemu + region.guest
    }

    /// Halfwords of guest memory, by an address in QEMU.
    fn of_qemu<const N: usize>(&self, address: u64) -> [u16; N] {
        let mut bytes = vec![0; 2 * N];
        self.read(self.guest_address(address), &mut bytes);
        core::array::from_fn(|at| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]))
    }

    fn place(&self, address: u64) -> (&File, u64) {
        let region = self.regions.iter();
        let mut region =
            region.filter(|region| (region.guest..region.guest + region.length).contains(&address));
        let region = region.next().expect("guest memory");
        (&region.file, address - region.guest + region.offset)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        let (file, offset) = self.place(address);
        file.read_exact_at(bytes, offset).expect("guest memory");
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let (file, offset) = self.place(address);
        file.write_all_at(bytes, offset).expect("guest memory");
    }
}

impl Host {
    /// The right answer to a request that came at `came`, in as many bytes as it should have.
    fn answer(&mut self, request: &[u8], came: u64) -> Vec<u8> {
        let kind = u16::from_le_bytes([request[0], request[1]]);
        self.asked.push(kind);
        let mut answer = vec![0; 8];
        if kind == 0x1000 {
            answer.extend((self.clocks.len() as u64).to_le_bytes());
            return answer;
        }
        let clock = usize::from(u16::from_le_bytes([request[8], request[9]]));
        let face = self.clocks.get(clock).copied();
        let face = face.expect("a clock that it was told of");
        let time = came.wrapping_add_signed(face.ahead);
        match kind {
            0x1001 => answer.extend([face.kind, 0, 0, 0, 0, 0, 0, 0]),
            0x1002 => answer.extend(u64::from(self.crossed.is_some()).to_le_bytes()),
            0x0001 => answer.extend(time.to_le_bytes()),
            0x0002 => {
                let (time, ticks) = self.crossed.expect("said to be possible").read();
                answer.extend(time.wrapping_add_signed(face.ahead).to_le_bytes());
                answer.extend(ticks.to_le_bytes());
            }
            other => panic!("a request that no driver of ours makes: {other:#x}"),
        }
        answer
    }
}

/// This host's clock in nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}

/// Fills `bytes`, and takes the files that come along.
fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(stream.as_fd(), &mut parts, &mut ancillary, flags)?;
    if received.bytes < parts[0].len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let messages = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(messages.flatten().collect())
}
