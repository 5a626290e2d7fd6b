//! A virtio network device of our own, behind QEMU's `vhost-user`: what an honest one never does, this one does when
//! told to. The other end of its cable is the test.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use gnomon_qemu::machine::{Machine, Net};

use crate::PATIENCE;
use crate::link::{GUEST, HERE, datagram, frame};
use crate::ntp::{Reply, V4_CLIENT, cookie, host_time, request};
use crate::temporary::Temporary;
use crate::vhost::{self, Back, Bus};
use crate::wire;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// What it should.
    Honest,
    /// It gives back what it was never lent, in both rings, besides what it should.
    WrongId(u32),
    /// It says of each received frame that it has so many bytes, the header included.
    Length(u32),
    /// It gives everything back twice.
    Twice,
    /// Its rings run ahead by so much with each frame.
    Ahead(u16),
    /// They do so all the time, as fast as it can write, and there is nothing in them but what it was never lent.
    Racing,
    /// It writes into all buffers that it has ever had, all the time.
    Scribbling,
    /// It takes no frames out of the transmit ring, and gives those that are received.
    Deaf,
    /// It does nothing.
    Silent,
    /// It never interrupts.
    Mute,
    /// It interrupts all the time.
    Storming,
}

/// The device as the test has it.
#[derive(Debug, Default)]
struct Host {
    conduct: Option<Conduct>,
    to_guest: VecDeque<Vec<u8>>,
    /// Each frame with whether it is from a time at which the guest had taken buffers back that the device went on
    /// to use: then what is in a frame may be younger than the guest's stamp of its arrival.
    from_guest: VecDeque<(Vec<u8>, bool)>,
    is_spoilt: bool,
    /// How often the device has looked at its rings.
    looks: u64,
    /// How often the receive ring was begun.
    begun: u32,
}

/// The device, which serves QEMU after QEMU.
#[derive(Debug)]
pub struct VhostNet {
    host: Arc<Mutex<Host>>,
    directory: Temporary,
    asked: HashMap<u64, u64>,
}

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// `struct virtio_net_hdr`, which says that it lies in one buffer.
const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// No ring of the driver's is longer.
const LONGEST: u16 = 256;
/// The port that requests come from.
const PORT: u16 = 40_000;

impl VhostNet {
    /// A device that waits for its machine.
    #[must_use]
    pub fn new() -> Self {
        let directory = Temporary::directory("nic");
        let listener =
            UnixListener::bind(directory.path().join("net")).expect("a socket of our own");
        let host = Arc::new(Mutex::new(Host::default()));
        let shared = Arc::clone(&host);
        // It ends with the test's process: for a page on aarch64 the launcher starts QEMU twice, and
        // nobody says which one is the last.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut device = Device {
                    host: Arc::clone(&shared),
                    buffers: Vec::new(),
                    random: 1,
                    is_racing: false,
                };
                vhost::serve(stream.expect("QEMU connects"), &mut device);
            }
        });
        Self {
            host,
            directory,
            asked: HashMap::new(),
        }
    }

    /// The machine with this device, at [`link::GUEST`](crate::link::GUEST).
    #[must_use]
    pub fn attach(&self, machine: Machine) -> Machine {
        let device = "virtio-net-pci,netdev=net,romfile=";
        vhost::attach(
            machine.net(Net::None),
            "nic",
            &self.directory.path().join("net"),
            32,
        )
        .append("ip=10.7.7.2/24 ip6=off")
        .arg("-netdev")
        .arg("vhost-user,id=net,chardev=nic")
        .arg("-device")
        .arg(device)
    }

    /// From now on it does this, and nothing else any more.
    pub fn conduct(&self, conduct: Conduct) {
        let mut host = self.lock();
        host.conduct = Some(conduct);
        let before = host.looks;
        drop(host);
        let deadline = Instant::now() + PATIENCE;
        // The first of them may have begun before.
        while self.lock().looks < before + 2 {
            assert!(Instant::now() < deadline, "no machine uses the device");
            thread::park_timeout(Duration::from_micros(200));
        }
    }

    /// How often a driver has begun to use it.
    #[must_use]
    pub fn begun(&self) -> u32 {
        self.lock().begun
    }

    /// Sends a frame to the guest.
    pub fn send(&self, frame: Vec<u8>) {
        self.lock().to_guest.push_back(frame);
    }

    /// Asks for the time, and takes the answers that come within a while; `false` when none came to this question.
    /// Each must be right: but for what a device that writes into frames can do to them, as everybody can through whose
    /// hands they go.
    pub fn ask(&mut self, wait: Duration) -> bool {
        let cookie = cookie();
        self.asked.insert(cookie, host_time().0);
        self.send(frame(PORT, &request(V4_CLIENT, cookie)));
        let end = Instant::now() + wait;
        while Instant::now() < end {
            let Some((frame, is_spoilt)) = self.lock().from_guest.pop_front() else {
                thread::park_timeout(Duration::from_micros(200));
                continue;
            };
            let arrived = host_time().1;
            let Some((PORT, payload)) = datagram(&frame) else {
                continue;
            };
            let reply = Reply::decode(&payload);
            let sent = self.asked.get(&reply.origin).copied();
            // What was asked by `flood`, or spoilt.
            let Some(sent) = sent else {
                continue;
            };
            let receive = if is_spoilt {
                reply.transmit.wrapping_sub(1)
            } else {
                reply.receive
            };
            Reply {
                receive,
                sent,
                arrived,
                ..reply
            }
            .assert_right();
            if reply.origin == cookie {
                return true;
            }
        }
        false
    }

    /// Asks until a question is answered.
    pub fn ask_until_answered(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ask(Duration::from_millis(500)) {
            assert!(Instant::now() < deadline, "no answer within {PATIENCE:?}");
        }
    }

    /// Asks for the time and begins a connection, and does not wait for the answers.
    pub fn flood(&self) {
        let mut host = self.lock();
        // As long as somebody takes it.
        if host.to_guest.len() < 1000 {
            let request = request(V4_CLIENT, cookie());
            host.to_guest.push_back(frame(PORT, &request));
            host.to_guest.push_back(opening());
        }
    }

    /// Forgets what is under way in either direction.
    pub fn forget(&self) {
        let mut host = self.lock();
        host.from_guest.clear();
        host.to_guest.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Host> {
        lock(&self.host)
    }
}

impl Default for VhostNet {
    fn default() -> Self {
        Self::new()
    }
}

/// A frame that begins a connection over TCP.
fn opening() -> Vec<u8> {
    let [_, _, _, _, high, low, ..] = cookie().to_be_bytes();
    // SYN, a window, and as an option the longest segment.
    let mut tcp = vec![
        high | 4,
        low,
        0,
        80,
        0,
        0,
        0,
        7,
        0,
        0,
        0,
        0,
        0x60,
        2,
        0xff,
        0xff,
    ];
    tcp.extend([0, 0, 0, 0, 2, 4, 5, 180]);
    let packet = wire::ipv4([HERE, GUEST], 6, tcp, 16);
    wire::ethernet(wire::GUEST_MAC, [2; 6], 0x0800, &packet)
}

fn lock(host: &Mutex<Host>) -> MutexGuard<'_, Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Device {
    host: Arc<Mutex<Host>>,
    /// Addresses and lengths of buffers that it was lent.
    buffers: Vec<(u64, usize)>,
    random: u64,
    /// Its rings have been filled with lies.
    is_racing: bool,
}

impl Back for Device {
    const FEATURES: u64 = 0;
    const PROTOCOL: u64 = 0;
    const LOOK: Duration = Duration::from_millis(1);

    fn begin(&mut self, queue: usize) {
        if queue == RECEIVE {
            let mut host = lock(&self.host);
            host.begun += 1;
            host.is_spoilt = false;
        }
        self.buffers.clear();
        self.is_racing = false;
    }

    fn look(&mut self, bus: &mut Bus) -> bool {
        if !bus.runs(RECEIVE) || !bus.runs(TRANSMIT) {
            return false;
        }
        let mut host = lock(&self.host);
        host.looks += 1;
        let conduct = host.conduct.unwrap_or(Conduct::Honest);
        drop(host);
        if matches!(
            conduct,
            Conduct::Twice | Conduct::Ahead(_) | Conduct::Racing
        ) {
            lock(&self.host).is_spoilt = true;
        }
        match conduct {
            Conduct::Silent => return false,
            Conduct::Deaf => self.receive(bus, conduct),
            Conduct::Racing => {}
            _ => {
                self.transmit(bus, conduct);
                self.receive(bus, conduct);
            }
        }
        match conduct {
            Conduct::Racing => {
                for queue in [RECEIVE, TRANSMIT] {
                    if !self.is_racing {
                        (0..LONGEST).for_each(|_| bus.give(queue, u32::MAX, 100));
                    }
                    bus.run_ahead(queue, 0x5fff);
                }
                self.is_racing = true;
            }
            Conduct::Scribbling => self.scribble(bus),
            Conduct::Storming => bus.call(RECEIVE, true),
            _ => return false,
        }
        true
    }
}

impl Device {
    /// Takes what the guest sends.
    fn transmit(&mut self, bus: &mut Bus, conduct: Conduct) {
        while let Some(head) = bus.take(TRANSMIT) {
            let descriptor = bus.descriptor(TRANSMIT, head);
            let mut bytes = vec![0; usize::try_from(descriptor.length).expect("short")];
            bus.read(descriptor.address, &mut bytes);
            self.note(descriptor.address, bytes.len());
            let frame = bytes.split_off(HEADER.len());
            let mut host = lock(&self.host);
            let is_spoilt = host.is_spoilt;
            host.from_guest.push_back((frame, is_spoilt));
            drop(host);
            give(bus, TRANSMIT, head, 0, conduct);
        }
    }

    /// Gives it what it is sent.
    fn receive(&mut self, bus: &mut Bus, conduct: Conduct) {
        loop {
            let frame = lock(&self.host).to_guest.pop_front();
            let Some(frame) = frame else {
                return;
            };
            // Without a buffer it is lost, as on any network.
            let Some(head) = bus.take(RECEIVE) else {
                return;
            };
            let descriptor = bus.descriptor(RECEIVE, head);
            let bytes = [&HEADER[..], &frame].concat();
            assert!(bytes.len() as u64 <= descriptor.length, "a frame's room");
            self.note(
                descriptor.address,
                usize::try_from(descriptor.length).expect("short"),
            );
            bus.write(descriptor.address, &bytes);
            let length = match conduct {
                Conduct::Length(length) => length,
                _ => u32::try_from(bytes.len()).expect("short"),
            };
            give(bus, RECEIVE, head, length, conduct);
            if conduct != Conduct::Mute {
                bus.call(RECEIVE, false);
            }
        }
    }

    fn note(&mut self, address: u64, length: usize) {
        if !self.buffers.iter().any(|(known, _)| *known == address) {
            self.buffers.push((address, length));
        }
    }

    fn scribble(&mut self, bus: &Bus) {
        /// Lengths in a frame behind `HEADER`: of IPv4's header, of the packet, and of TCP's header.
        const LENGTHS: [usize; 4] = [26, 28, 29, 58];
        for (address, length) in &self.buffers {
            for _ in 0..8 {
                self.random = self
                    .random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let [far, near, byte, change, ..] = self.random.to_be_bytes();
                // Mostly for a moment, in which somebody may have checked them: the frame is to get that far.
                let is_length = near & 15 != 0;
                let place = if is_length {
                    LENGTHS[usize::from(far & 3)]
                } else {
                    // Headers otherwise, which somebody might believe.
                    usize::from(far) % (32 + usize::from(byte))
                };
                let address = address + (place % length) as u64;
                let mut before = [0];
                bus.read(address, &mut before);
                bus.write(address, &[before[0] ^ change]);
                if is_length {
                    bus.write(address, &before);
                }
            }
        }
    }
}

fn give(bus: &mut Bus, queue: usize, head: u16, length: u32, conduct: Conduct) {
    if let Conduct::WrongId(id) = conduct {
        bus.give(queue, id, length);
    }
    bus.give(queue, head.into(), length);
    match conduct {
        Conduct::Twice => bus.give(queue, head.into(), length),
        Conduct::Ahead(steps) => bus.run_ahead(queue, steps),
        _ => {}
    }
}
