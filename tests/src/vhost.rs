//! vhost-user back ends of our own (QEMU `docs/interop/vhost-user.rst`, the subset that these devices take): what an
//! honest device never does, these do when told to.
//!
//! Guest memory is a file that QEMU hands over; it is read and written as one, so that nothing here is unsafe.

use core::mem::MaybeUninit;
use core::time::Duration;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use gnomon_qemu::machine::Machine;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Queues of each of the devices.
pub(crate) const QUEUES: usize = 2;
const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const REPLY_ACK: u64 = 1 << 3;
/// In [`Back::PROTOCOL`]: the device has several queues.
pub(crate) const MULTIQUEUE: u64 = 1;
/// In the ring: the driver asks for no interrupts.
const NO_INTERRUPT: u16 = 1;

/// A device, as far as it is not like any other.
pub(crate) trait Back {
    /// Its own features.
    const FEATURES: u64;
    /// Features of the protocol besides acknowledgements.
    const PROTOCOL: u64;
    /// How often it looks at its rings when nobody has notified it.
    const LOOK: Duration;

    /// The driver has chosen these features.
    fn choose(&mut self, _features: u64) {}

    /// A ring begins.
    fn begin(&mut self, _queue: usize) {}

    /// Does what is to be done now; true to be called again at once.
    fn look(&mut self, bus: &mut Bus) -> bool;
}

/// The machine with memory that a back end can have, and a character device `id` that leads to it at `socket`.
pub(crate) fn attach(machine: Machine, id: &str, socket: &Path, mib: u32) -> Machine {
    machine
        .memory(mib)
        .arg("-object")
        .arg(format!(
            "memory-backend-memfd,id=shared,size={mib}M,share=on"
        ))
        .arg("-machine")
        .arg("memory-backend=shared")
        .arg("-chardev")
        .arg(format!("socket,id={id},path={}", socket.display()))
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

/// A ring, by addresses in QEMU.
#[derive(Default)]
struct Ring {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    next: u16,
    used_index: u16,
    kick: Option<File>,
    call: Option<File>,
}

/// The memory and the rings of a device.
#[derive(Default)]
pub(crate) struct Bus {
    regions: Vec<Region>,
    rings: [Ring; QUEUES],
}

/// A buffer in guest memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) next: u16,
}

/// Serves one connection of QEMU's to its end.
pub(crate) fn serve<B: Back>(stream: UnixStream, back: &mut B) {
    let mut connection = Connection {
        stream,
        bus: Bus::default(),
    };
    let mut again = false;
    loop {
        let kicks = connection.bus.rings.iter();
        let kicks = kicks.filter_map(|ring| ring.kick.as_ref());
        let mut descriptors = vec![PollFd::new(&connection.stream, PollFlags::IN)];
        descriptors.extend(kicks.clone().map(|kick| PollFd::new(kick, PollFlags::IN)));
        let wait = if again { Duration::ZERO } else { B::LOOK };
        let wait = Timespec::try_from(wait).expect("short");
        poll(&mut descriptors, Some(&wait)).expect("these are open");
        let is_spoken_to = !descriptors[0].revents().is_empty();
        for (mut kick, descriptor) in kicks.zip(&descriptors[1..]) {
            if !descriptor.revents().is_empty() {
                let _count = kick.read(&mut [0; 8]);
            }
        }
        if is_spoken_to && connection.serve(back).is_err() {
            return;
        }
        again = back.look(&mut connection.bus);
    }
}

struct Connection {
    stream: UnixStream,
    bus: Bus,
}

impl Connection {
    /// One message of QEMU's.
    fn serve(&mut self, back: &mut impl Back) -> io::Result<()> {
        let mut head = [0; 12];
        let mut files = receive(&self.stream, &mut head)?;
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
        let long =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
        let (kind, flags) = (word(&head, 0), word(&head, 4));
        let mut body = vec![0; word(&head, 8) as usize];
        self.stream.read_exact(&mut body)?;
        let queue = body.first().map_or(0, |index| usize::from(*index));
        let mut nowhere = Ring::default();
        let ring = self.bus.rings.get_mut(queue).unwrap_or(&mut nowhere);
        let reply = match kind {
            // GET_FEATURES
            1 => Some(VERSION_1 | PROTOCOL_FEATURES | features(back)),
            2 => {
                back.choose(long(&body, 0));
                None
            }
            // GET_PROTOCOL_FEATURES, GET_QUEUE_NUM
            15 => Some(REPLY_ACK | protocol(back)),
            17 => Some(QUEUES as u64),
            // SET_MEM_TABLE
            5 => {
                self.bus.regions = files
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
            // SET_VRING_NUM, _ADDR, _BASE, _KICK, _CALL
            8 => {
                ring.size = u16::try_from(word(&body, 4)).expect("a ring's size");
                None
            }
            9 => {
                ring.descriptors = long(&body, 8);
                ring.used = long(&body, 16);
                ring.available = long(&body, 24);
                None
            }
            10 => {
                ring.next = u16::try_from(word(&body, 4)).expect("an index");
                ring.used_index = ring.next;
                back.begin(queue);
                None
            }
            12 => {
                ring.kick = files.pop().map(Into::into);
                None
            }
            13 => {
                ring.call = files.pop().map(Into::into);
                None
            }
            // GET_VRING_BASE: the ring stops.
            11 => {
                ring.kick = None;
                Some(u64::from(word(&body, 0)) | u64::from(ring.next) << 32)
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
}

const fn features<B: Back>(_: &B) -> u64 {
    B::FEATURES
}

const fn protocol<B: Back>(_: &B) -> u64 {
    B::PROTOCOL
}

impl Bus {
    /// The next chain that the driver has put into the ring, by the number of its first descriptor; `None` too while
    /// the ring does not run.
    pub(crate) fn take(&mut self, queue: usize) -> Option<u16> {
        let ring = &self.rings[queue];
        if ring.kick.is_none() || ring.size == 0 {
            return None;
        }
        let [available] = self.of_qemu(ring.available + 2);
        if ring.next == available {
            return None;
        }
        let at = u64::from(ring.next % ring.size);
        let [head] = self.of_qemu(ring.available + 4 + 2 * at);
        let ring = &mut self.rings[queue];
        ring.next = ring.next.wrapping_add(1);
        Some(head)
    }

    /// Whether the ring runs.
    pub(crate) fn runs(&self, queue: usize) -> bool {
        self.rings[queue].kick.is_some() && self.rings[queue].size != 0
    }

    pub(crate) fn descriptor(&self, queue: usize, index: u16) -> Descriptor {
        let at = self.rings[queue].descriptors + 16 * u64::from(index);
        let [a, b, c, d, low, high, _, next] = self.of_qemu(at);
        let address = [a, b, c, d].into_iter().rev();
        Descriptor {
            address: address.fold(0, |sum, part| sum << 16 | u64::from(part)),
            length: u64::from(high) << 16 | u64::from(low),
            next,
        }
    }

    /// Writes an entry of the used ring, and shows it.
    pub(crate) fn give(&mut self, queue: usize, id: u32, length: u32) {
        let ring = &self.rings[queue];
        let at = u64::from(ring.used_index % ring.size);
        let element = u64::from(length) << 32 | u64::from(id);
        let place = self.guest_address(ring.used + 4 + 8 * at);
        self.write(place, &element.to_le_bytes());
        self.run_ahead(queue, 1);
    }

    /// Says that so many entries of the used ring are new.
    pub(crate) fn run_ahead(&mut self, queue: usize, steps: u16) {
        let ring = &mut self.rings[queue];
        ring.used_index = ring.used_index.wrapping_add(steps);
        let (index, used) = (ring.used_index, ring.used);
        let place = self.guest_address(used + 2);
        self.write(place, &index.to_le_bytes());
    }

    /// Interrupts for the queue if the driver wants that, or in any case.
    pub(crate) fn call(&self, queue: usize, in_any_case: bool) {
        let ring = &self.rings[queue];
        let [flags] = self.of_qemu(ring.available);
        if let Some(mut call) = ring
            .call
            .as_ref()
            .filter(|_| in_any_case || flags & NO_INTERRUPT == 0)
        {
            call.write_all(&1_u64.to_le_bytes()).expect("an eventfd");
        }
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

    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) {
        let (file, offset) = self.place(address);
        file.read_exact_at(bytes, offset).expect("guest memory");
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        let (file, offset) = self.place(address);
        file.write_all_at(bytes, offset).expect("guest memory");
    }
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
