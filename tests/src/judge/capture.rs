//! tshark, which looks at every frame that a guest has sent.

use std::fs;
use std::path::Path;
use std::process::Command;

use gnomon_qemu::machine::Machine;
use serde_json::json;

use crate::guest::Guest;
use crate::process::Process;
use crate::temporary::Temporary;

/// Starts the machine; QEMU writes every frame of its network to the file, from the first one to the
/// machine's end, in pcap format.
#[must_use]
pub fn start(machine: Machine, file: &Path) -> Guest {
    let mut guest = Guest::start(machine.paused(true));
    let dump = json!({ "qom-type": "filter-dump", "id": "dump", "netdev": "net", "file": file });
    let dumping = guest.qmp().execute("object-add", dump);
    dumping.expect("QEMU writes down every frame");
    guest.cont().expect("QEMU runs");
    guest
}

/// What tshark has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Frames that the guest has sent.
    pub frames: usize,
    /// NTP replies among them: modes 4 and 2.
    pub replies: usize,
    /// Their protocols, each once.
    pub protocols: Vec<String>,
}

/// Its version.
#[must_use]
pub fn version() -> String {
    let (status, said) = Process::run(Command::new("tshark").arg("--version"));
    assert!(status.success(), "{said}");
    let line = said.lines().find(|line| line.starts_with("TShark"));
    let number = line.and_then(|line| line.split(' ').nth(2));
    number
        .unwrap_or_else(|| panic!("no version: {said}"))
        .to_owned()
}

/// Has tshark take apart every frame in a capture (pcap format) that comes from the guest's
/// network device, every checksum included.
///
/// # Errors
/// The first frames that it finds fault with, and the fault.
pub fn examine(frames: &[u8]) -> Result<Found, String> {
    let directory = Temporary::directory("capture");
    let file = directory.path().join("frames");
    fs::write(&file, frames).expect("our own directory");
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-q", "-r"]).arg(&file);
    for protocol in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    tshark.args(["-Y", "eth.src == 52:54:00:12:34:56", "-T", "fields"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    // Its own troubles (it dislikes root) are no part of its fields.
    tshark.args(["-E", "separator=;"]);
    let output = tshark.output().expect("`make test` installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut found = Found::default();
    let mut faults = Vec::new();
    for line in said.lines() {
        let fields: Vec<&str> = line.split(';').collect();
        let [_, protocols, mode, expert, malformed, checksums @ ..] = &fields[..] else {
            return Err(format!("not the fields asked for: {line}"));
        };
        found.frames += 1;
        found.replies += usize::from(["2", "4"].contains(mode));
        if !found.protocols.iter().any(|known| known == protocols) {
            found.protocols.push((*protocols).to_owned());
        }
        // 1 is good; one that is not there has no status.
        let good = |statuses: &&str| {
            statuses
                .split(',')
                .all(|status| ["", "1"].contains(&status))
        };
        // What it guesses from a client's port alone.
        let expert = if expert.starts_with("Possible traceroute: ") {
            ""
        } else {
            expert
        };
        if !(expert.is_empty() && malformed.is_empty() && checksums.iter().all(good)) {
            faults.push(line);
        }
    }
    if faults.is_empty() {
        return Ok(found);
    }
    faults.truncate(5);
    Err(format!("{}\n{}", FIELDS.join(";"), faults.join("\n")))
}

const FIELDS: [&str; 9] = [
    "frame.number",
    "frame.protocols",
    "ntp.flags.mode",
    "_ws.expert.message",
    "_ws.malformed",
    "ip.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
];

/// The same capture, with one thing changed in the last NTP reply over IPv4 in it: the byte of the frame
/// at `offset`.
#[must_use]
pub fn spoiled(frames: &[u8], offset: usize) -> Vec<u8> {
    // The format of libpcap: 24 bytes, then each frame behind 16, the third word its length.
    let mut at = 24;
    let mut last = None;
    while let Some(header) = frames.get(at..at + 16) {
        let length = u32::from_le_bytes(header[8..12].try_into().expect("4"));
        let frame = at + 16;
        at = frame + usize::try_from(length).expect("a frame");
        let bytes = frames.get(frame..at).expect("a whole frame");
        let is_reply = bytes.len() >= 90
            && bytes[6..12] == [0x52, 0x54, 0, 0x12, 0x34, 0x56]
            && bytes[12..14] == [8, 0]
            && bytes[34..36] == [0, 123];
        if is_reply {
            last = Some(frame);
        }
    }
    let mut spoiled = frames.to_vec();
    spoiled[last.expect("a reply") + offset] ^= 1;
    spoiled
}
