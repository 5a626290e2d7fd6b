//! HTTP over TCP, to the whole service: clients that send what they like, when they like, and as much as they like.

use std::time::Duration;

use crate::frame::{arp, tcp};
use crate::input::Input;
use crate::network::{STATIC, assert_serves, check};
use crate::service::{Rig, with_rig};
use crate::world::{good, publish};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// One end of a connection.
struct Client {
    port: u16,
    /// What it sends next.
    sequence: u32,
    /// What it waits for.
    acknowledged: u32,
    heard: Vec<u8>,
    is_open: bool,
    has_ended: bool,
    said: Vec<u8>,
}

/// Input: steps.
///
/// # Panics
/// An answer is none, or the next client of NTP does not get the time.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    with_rig(&good(1), &format!("{STATIC} ip6=off"), |mut rig| {
        rig.exchange(&[arp()]);
        let mut clients: [Option<Client>; 6] = [const { None }; 6];
        let mut next_port = 40_000;
        for _ in 0..32 {
            if input.is_empty() {
                break;
            }
            let [kind, which] = input.array();
            let place = &mut clients[usize::from(which) % 6];
            match (kind % 8, place) {
                (0 | 1, place) => {
                    if let Some(client) = place.take() {
                        client.judge();
                    }
                    next_port += 1;
                    *place = Some(Client::connect(&mut rig, next_port));
                }
                (2 | 3, Some(client)) => client.say(&mut rig, input.block()),
                (4, Some(client)) => client.send(&mut rig, FIN | ACK, &[]),
                (5, Some(client)) => {
                    client.send(&mut rig, RST, &[]);
                    client.is_open = false;
                }
                (6, _) => {
                    let sent = rig.pass(Duration::from_millis(u64::from(which) * 50));
                    check(&[], &sent);
                    let mut all = clients.iter_mut().flatten();
                    all.by_ref().for_each(|client| client.hear(&sent));
                }
                _ => publish(rig.page, &good(u64::from(which))),
            }
            for client in clients.iter_mut().flatten() {
                client.acknowledge(&mut rig);
            }
        }
        clients.into_iter().flatten().for_each(Client::judge);
        assert_serves(&mut rig);
    });
}

impl Client {
    fn connect(rig: &mut Rig<'_>, port: u16) -> Self {
        let mut client = Self {
            port,
            sequence: 0x1234_5678,
            acknowledged: 0,
            heard: Vec::new(),
            is_open: false,
            has_ended: false,
            said: Vec::new(),
        };
        client.send(rig, SYN, &[]);
        client
    }

    fn say(&mut self, rig: &mut Rig<'_>, text: &[u8]) {
        let text = &text[..text.len().min(1400)];
        if self.is_open {
            self.said.extend(text);
        }
        self.send(rig, ACK | 8, text);
    }

    /// Sends a segment, and hears what comes of it.
    fn send(&mut self, rig: &mut Rig<'_>, flags: u8, payload: &[u8]) {
        let frames = [tcp(
            self.port,
            self.sequence,
            self.acknowledged,
            flags,
            payload,
        )];
        let length = u32::try_from(payload.len()).expect("a segment");
        let sent = rig.exchange(&frames);
        check(&frames, &sent);
        self.sequence = self
            .sequence
            .wrapping_add(length + u32::from(flags & (SYN | FIN) != 0));
        self.hear(&sent);
    }

    /// Acknowledges all that came until nothing more comes.
    fn acknowledge(&mut self, rig: &mut Rig<'_>) {
        for _ in 0..64 {
            let before = self.acknowledged;
            if !self.is_open {
                return;
            }
            self.send(rig, ACK, &[]);
            if self.acknowledged == before {
                return;
            }
        }
        panic!("there is no end to it");
    }

    fn hear(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            let Some(segment) = frame
                .get(34..)
                .filter(|_| frame[12..14] == [8, 0] && frame[23] == 6)
            else {
                continue;
            };
            let total = usize::from(u16::from_be_bytes([frame[16], frame[17]])) - 20;
            let segment = &segment[..total];
            let word =
                |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("four"));
            if segment[2..4] != self.port.to_be_bytes() {
                continue;
            }
            let flags = segment[13];
            let payload = &segment[usize::from(segment[12] >> 4) * 4..];
            if flags & RST != 0 {
                self.is_open = false;
            } else if flags & (SYN | ACK) == SYN | ACK {
                self.acknowledged = word(4).wrapping_add(1);
                self.is_open = true;
            } else if word(4) == self.acknowledged && self.is_open {
                self.heard.extend(payload);
                let length = u32::try_from(payload.len()).expect("a segment");
                self.acknowledged = self.acknowledged.wrapping_add(length);
                if flags & FIN != 0 {
                    self.acknowledged = self.acknowledged.wrapping_add(1);
                    self.has_ended = true;
                }
            }
        }
    }

    /// What was heard is an answer, if it has come to its end.
    fn judge(self) {
        if self.heard.is_empty() {
            return;
        }
        assert!(!self.said.is_empty(), "an answer to nothing");
        assert!(b"HTTP/1.1 ".starts_with(&self.heard[..self.heard.len().min(9)]));
        let head = self.heard.windows(4).position(|four| four == b"\r\n\r\n");
        let (Some(head), true, true) = (head, self.has_ended, self.is_open) else {
            return;
        };
        let (head, body) = self.heard.split_at(head + 4);
        let head = std::str::from_utf8(head).expect("text");
        let lengths: Vec<&str> = head
            .lines()
            .filter_map(|line| line.strip_prefix("Content-Length: "))
            .collect();
        let [length] = lengths[..] else {
            panic!("{head}")
        };
        let length: usize = length.parse().expect("a length");
        let said = self.said.trim_ascii_start();
        if said.starts_with(b"HEAD ") && head.starts_with("HTTP/1.1 200") {
            assert!(body.is_empty(), "{head}");
        } else if !said.starts_with(b"HEAD ") {
            assert_eq!(body.len(), length, "{head}");
        }
        if head.contains("application/json") && !body.is_empty() {
            serde_json::from_slice::<serde_json::Value>(body).expect("JSON");
        }
    }
}
