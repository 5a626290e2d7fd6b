//! A virtio real-time clock of our own, behind QEMU's `vhost-user-test-device-pci`: what an honest one never does,
//! this one does when told to.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use gnomon_qemu::host::HostCounter;
use gnomon_qemu::machine::Machine;
use gnomon_qemu::mapping::Mapping;

use crate::vhost::{self, Back, Bus, MULTIQUEUE};

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
    let device = "vhost-user-test-device-pci,chardev=clock,virtio-id=17,num_vqs=2,vq_size=64";
    vhost::attach(machine, "clock", socket, mib)
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
                let mut device = Device {
                    host: Arc::clone(&shared),
                    pending: VecDeque::new(),
                };
                vhost::serve(stream, &mut device);
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

/// The queue of requests; the other is for alarms.
const REQUESTS: usize = 0;

struct Device {
    host: Arc<Mutex<Host>>,
    /// Requests that wait: the head of each, and when it came.
    pending: VecDeque<(u16, u64)>,
}

impl Back for Device {
    /// Alarms, which nobody should take.
    const FEATURES: u64 = 1;
    const PROTOCOL: u64 = MULTIQUEUE;
    const LOOK: Duration = Duration::from_millis(5);

    fn choose(&mut self, features: u64) {
        self.lock().features = features;
    }

    fn begin(&mut self, queue: usize) {
        if queue == REQUESTS {
            self.pending.clear();
        }
    }

    /// Takes what the driver has put into the ring, and does with it what it was told.
    fn look(&mut self, bus: &mut Bus) -> bool {
        while let Some(head) = bus.take(REQUESTS) {
            self.pending.push_back((head, now()));
        }
        let conduct = self.lock().conduct;
        while conduct != Conduct::Silence
            && bus.runs(REQUESTS)
            && let Some((head, came)) = self.pending.pop_front()
        {
            self.answer(bus, head, came, conduct);
        }
        false
    }
}

impl Device {
    fn lock(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, bus: &mut Bus, head: u16, came: u64, conduct: Conduct) {
        let question = bus.descriptor(REQUESTS, head);
        let mut request = vec![0; usize::try_from(question.length).expect("short")];
        bus.read(question.address, &mut request);
        let room = bus.descriptor(REQUESTS, question.next);
        let mut answer = self.lock().answer(&request, came);
        assert_eq!(answer.len() as u64, room.length, "room for the answer");
        let mut written = u32::try_from(answer.len()).expect("short");
        match conduct {
            Conduct::Answer(status, length) => (answer[0], written) = (status, length),
            Conduct::Length(length) => written = length,
            Conduct::WrongId(id) => bus.give(REQUESTS, id, written),
            _ => {}
        }
        if conduct != Conduct::Unwritten {
            bus.write(room.address, &answer);
        }
        bus.give(REQUESTS, head.into(), written);
        match conduct {
            Conduct::Twice => bus.give(REQUESTS, head.into(), written),
            Conduct::Ahead(steps) => bus.run_ahead(REQUESTS, steps),
            _ => {}
        }
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
