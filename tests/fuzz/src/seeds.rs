//! The inputs that the fuzzer begins with, made of real ones: tables and trees that QEMU handed out, frames and requests
//! that programs send, pages as our publisher writes them.

use std::fs;
use std::path::{Path, PathBuf};

use gnomon_clock::{Fields, LeapIndicator};

use crate::frame::{arp, ethernet, tcp, udp};
use crate::input::block;
use crate::world::good;

/// A target's name, and its seeds by theirs.
type Seeds = (&'static str, Vec<(String, Vec<u8>)>);

/// A request as chronyd sends it.
pub const REQUEST: [u8; 48] = {
    let mut request = [0; 48];
    request[0] = 0x23;
    request[2] = 6;
    request[3] = 0xe9;
    request[40] = 0xa0;
    request[47] = 0xa7;
    request
};

/// Writes every seed into `corpus`, a folder for each target.
///
/// # Errors
/// A fixture cannot be read, or a file not written.
pub fn write(corpus: &Path) -> std::io::Result<()> {
    for (target, seeds) in all()? {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

fn all() -> std::io::Result<Vec<Seeds>> {
    Ok(vec![
        ("acpi", acpi()?),
        ("aml", aml()?),
        ("command_line", command_lines()),
        ("console", consoles()),
        (
            "device_tree",
            named(&[("virt", fixture("dt/qemu-virt-gicv2.dtb")?)]),
        ),
        ("firmware", named(&[("kvm", cpuid())])),
        ("fw_cfg", fw_cfg()?),
        ("http", http()),
        (
            "http_request",
            texts(&[
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "HEAD /now HTTP/1.0\r\n\r\n",
                "GET http://a/metrics HTTP/1.1\nhost:b\n\n",
            ]),
        ),
        (
            "keys",
            texts(&[
                "# chrony\n7 AES128 HEX:2b7e151628aed2a6abf7158809cf4f3c\n8 AES256 ASCII:abcdefghijklmnopqrstuvwxyz012345\n9 MD5 x\n",
            ]),
        ),
        ("network", network()),
        (
            "nic",
            named(&[(
                "frames",
                vec![0, 0, 76, 1, 2, 3, 0, 12, 2, 0, 4, 5, 6, 7, 8, 0, 9, 9],
            )]),
        ),
        ("ntp", ntp()),
        ("ntp_client", ntp_client()),
        ("pci", named(&[("virtio", pci())])),
        (
            "ring",
            named(&[
                (
                    "flags",
                    vec![0, 0, 0, 0, 1, 2, 0, 64, 0, 0, 0, 7, 6, 2, 1, 12, 0, 0, 0, 7],
                ),
                (
                    "events",
                    vec![
                        1, 0, 0, 0, 1, 2, 0, 64, 0, 0, 0, 7, 4, 0, 128, 7, 5, 1, 2, 3,
                    ],
                ),
                (
                    "exchange",
                    vec![2, 0, 1, 16, 0, 0, 0, 5, 2, 1, 0, 0, 0, 16, 0, 0, 0, 5],
                ),
            ]),
        ),
        ("smoke", smoke()),
        ("sources", sources()),
        ("start_info", named(&[("qemu", start_info())])),
        ("table_loader", table_loader()?),
        ("vmclock_page", pages()),
    ])
}

fn fixture(name: &str) -> std::io::Result<Vec<u8>> {
    fs::read(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../fixtures")
            .join(name),
    )
}

fn named(seeds: &[(&str, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    seeds
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()))
        .collect()
}

fn texts(texts: &[&str]) -> Vec<(String, Vec<u8>)> {
    let seed =
        |(number, text): (usize, &&str)| (format!("text-{number}"), text.as_bytes().to_vec());
    texts.iter().enumerate().map(seed).collect()
}

/// The tables of a PC, all but its long DSDT, in whose place is that of a small machine.
fn acpi() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for machine in ["q35", "pc"] {
        let index =
            String::from_utf8(fixture(&format!("acpi/{machine}/index"))?).unwrap_or_default();
        let mut seed = vec![1];
        for line in index.lines() {
            let Some((address, file)) = line.split_once(' ') else {
                continue;
            };
            let address = u32::from_str_radix(address.trim_start_matches("0x"), 16).unwrap_or(0);
            let bytes = match file {
                "dsdt.dat" => fixture("acpi/asl/firecracker.aml")?,
                file => fixture(&format!("acpi/{machine}/{file}"))?,
            };
            seed.extend(address.to_le_bytes());
            seed.extend(block(&bytes));
        }
        seeds.push((machine.to_owned(), seed));
    }
    Ok(seeds)
}

fn aml() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for name in [
        "firecracker",
        "kinds",
        "prp0001",
        "method-named",
        "scope-search",
        "crs-two",
        "conditional",
        "second-good",
        "hid-computed",
    ] {
        let table = fixture(&format!("acpi/asl/{name}.aml"))?;
        seeds.push((name.to_owned(), block(&table[36..])));
    }
    let ssdt = fixture("acpi/q35/ssdt.dat")?;
    seeds.push((
        "q35-ssdt".to_owned(),
        [block(b""), ssdt[36..].to_vec()].concat(),
    ));
    Ok(seeds)
}

fn command_lines() -> Vec<(String, Vec<u8>)> {
    texts(&[
        "ip=10.0.2.15/24,10.0.2.2 ip6=fd00::15/64 serial=nmea serial2=json,10 http=off idle=halt ntp.stratum=2",
        "ntp.allow=10.0.0.0/8,fd00::/8 ntp.deny=10.1.0.0/16 ntp.limit=8,8s ntp.auth=require ntp.smear=hint ntp.smear.port=1123",
        "ntp.key=7:AES128:2b7e151628aed2a6abf7158809cf4f3c tai_offset=37 on_violation=stop drain=soon holdover.max=60",
        "source=auto,ntp:10.0.2.2 firmware=acpi smoke=5 vmclock=0xfeffb000 ip=dhcp ip6=auto",
    ])
}

fn consoles() -> Vec<(String, Vec<u8>)> {
    let line = |text: &str| [&[6][..], &block(text.as_bytes())].concat();
    let commands = [
        "help time",
        "time -n 3",
        "status",
        "sources",
        "page",
        "audit",
        "leap",
        "counter",
        "acpi",
        "pci",
        "mem",
        "net",
        "services",
    ];
    let all: Vec<u8> = commands.iter().flat_map(|command| line(command)).collect();
    let edited = line("stat\x1b[D\x1b[Dx\x7f\x01\x05\x15\x1b[A\x1b[B\x0b");
    let wait = [5, 0xe8, 3];
    named(&[
        ("commands", [&[0][..], &all].concat()),
        (
            "editing",
            [&[0][..], &edited, &line("status"), &wait, &line("poweroff")].concat(),
        ),
        (
            "nmea",
            [
                &[4 | 2 << 3][..],
                &wait,
                &wait,
                &[3, 2],
                &wait,
                &[0],
                &block(b"?\n"),
            ]
            .concat(),
        ),
        (
            "json",
            [&[5 | 1 << 3][..], &wait, &line("now"), &wait].concat(),
        ),
    ])
}

/// CPUID of a processor below which is KVM.
fn cpuid() -> Vec<u8> {
    let leaf = |words: [u32; 4]| words.into_iter().flat_map(u32::to_le_bytes);
    let mut bytes: Vec<u8> = leaf([0x16, 0, 0, 0]).collect();
    bytes.extend(leaf([0, 0, 1 << 31 | 1 << 30, 0]));
    bytes.extend(leaf([0, 1 << 18, 0, 0]));
    bytes.extend(leaf([0x4000_0010, 0x4b4d_564b, 0x564b_4d56, 0x4d]));
    bytes.extend(leaf([0x0100_00fb, 0, 0, 0]));
    bytes
}

fn fw_cfg() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut directory = 2_u32.to_be_bytes().to_vec();
    for (item, length, name) in [
        (0x20_u16, 3072_u32, "etc/table-loader"),
        (0x21, 60, "opt/org.gnomon/ntp.keys"),
    ] {
        directory.extend(length.to_be_bytes());
        directory.extend(item.to_be_bytes());
        directory.extend([0; 2]);
        let mut field = name.as_bytes().to_vec();
        field.resize(56, 0);
        directory.extend(field);
    }
    let script = fixture("acpi/virt-gic2/table-loader")?;
    let items: [(u16, &[u8]); 4] = [
        (0x00, b"QEMU"),
        (0x19, &directory),
        (0x20, &script[..256]),
        (0x21, b"7 AES128 HEX:2b7e151628aed2a6abf7158809cf4f3c\n"),
    ];
    let mut seed = vec![4];
    for (item, bytes) in items {
        seed.extend(item.to_le_bytes());
        seed.extend(block(bytes));
    }
    Ok(named(&[("virt", seed)]))
}

fn http() -> Vec<(String, Vec<u8>)> {
    let connect = |place: u8| vec![0, place];
    let say = |place: u8, text: &str| [&[2, place][..], &block(text.as_bytes())].concat();
    let mut seeds = Vec::new();
    for path in [
        "/",
        "/now",
        "/status",
        "/metrics",
        "/healthz",
        "/history.json",
        "/nowhere",
    ] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let seed = [connect(0), say(0, &text), vec![6, 20, 4, 0, 6, 20]].concat();
        seeds.push((format!("get-{}", seeds.len()), seed));
    }
    let slow = [
        connect(0),
        connect(1),
        say(0, "HEAD /now HT"),
        vec![6, 100],
        say(0, "TP/1.0\r\n\r\n"),
        vec![7, 3, 5, 1, 6, 255],
    ];
    seeds.push(("slow".to_owned(), slow.concat()));
    seeds
}

fn network() -> Vec<(String, Vec<u8>)> {
    let wait = |seconds: u64| {
        [
            &[10, 0xa0][..],
            &u32::try_from(seconds * 1000).unwrap_or(0).to_le_bytes(),
        ]
        .concat()
    };
    let raw = |frame: &[u8]| [&[1][..], &block(frame)].concat();
    let ask = [&[4][..], &5555_u16.to_le_bytes(), &block(&REQUEST)].concat();
    // DHCP's message type and server, of an offer and of an acknowledgement.
    let options = |kind: u8| {
        [&[
            0x35, 1, kind, 0x36, 4, 10, 0, 2, 2, 0x33, 4, 0, 0, 1, 0, 1, 4, 255, 255, 255, 0, 255,
        ][..]]
        .concat()
    };
    let lease = |kind: u8| [&[5][..], &block(&options(kind)), &[0]].concat();
    let dhcp = [vec![1], wait(1), lease(2), lease(5), wait(1), ask.clone()].concat();
    let upstream = [
        vec![2 | 8],
        vec![9],
        wait(1),
        vec![5, 0],
        wait(2),
        vec![5, 0],
        wait(4),
        ask.clone(),
    ]
    .concat();
    let syn = [
        &[6][..],
        &4000_u16.to_le_bytes(),
        &2_u16.to_le_bytes(),
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    named(&[
        (
            "ask",
            [
                vec![0],
                vec![9],
                ask.clone(),
                raw(&udp(5555, 123, &REQUEST)),
                vec![7, 2],
                ask.clone(),
            ]
            .concat(),
        ),
        ("dhcp", dhcp),
        ("upstream", upstream),
        ("ping", [vec![7], raw(&echo()), raw(&arp())].concat()),
        (
            "tcp",
            [
                vec![7],
                vec![9],
                syn,
                raw(&tcp(4000, 2, 0, 16, b"GET / HTTP/1.0\r\n\r\n")),
            ]
            .concat(),
        ),
        (
            "ipv6",
            [
                vec![7],
                wait(2),
                raw(&solicitation()),
                raw(&advertisement()),
                wait(2),
                raw(&ask6()),
            ]
            .concat(),
        ),
    ])
}

fn echo() -> Vec<u8> {
    crate::frame::ipv4(1, &[8, 0, 0, 0, 0, 7, 0, 1, b'a', b'b', b'c', b'd'])
}

/// An IPv6 packet from a neighbour, in a frame.
fn ipv6(to: [u8; 16], next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = ethernet([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, length[0], length[1], next, hops]);
    frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    frame.extend(to);
    frame.extend(payload);
    crate::frame::correct(&mut frame);
    frame
}

/// The guest's link-local address.
const LINK_LOCAL: [u8; 16] = [
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56,
];

fn solicitation() -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(LINK_LOCAL);
    message.extend([1, 1, 0x52, 0x55, 10, 0, 2, 2]);
    ipv6(LINK_LOCAL, 58, 255, &message)
}

/// A router with a prefix.
fn advertisement() -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ipv6(
        [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        58,
        255,
        &message,
    )
}

fn ask6() -> Vec<u8> {
    let mut datagram = vec![0x15, 0xb3, 0, 123, 0, 56, 0, 0];
    datagram.extend(REQUEST);
    ipv6(LINK_LOCAL, 17, 64, &datagram)
}

fn ntp() -> Vec<(String, Vec<u8>)> {
    let ask =
        |shape: u8, more: u8, payload: &[u8]| [&[4, shape, more][..], &block(payload)].concat();
    let plain = ask(0x20, 2, &REQUEST);
    let interleaved = [
        plain.clone(),
        ask(0x24, 2, &REQUEST),
        ask(0x24, 2, &REQUEST),
    ]
    .concat();
    let field = [&REQUEST[..], &[0, 0x42, 0, 28], &[7; 24]].concat();
    let mut old = REQUEST;
    old[0] = 0x08;
    named(&[
        (
            "plain",
            [vec![5], plain.clone(), vec![1, 2], plain.clone()].concat(),
        ),
        ("interleaved", [vec![5], interleaved].concat()),
        (
            "keys",
            [
                vec![1],
                ask(0x20, 0, &REQUEST),
                ask(0x28, 1, &REQUEST),
                ask(0x2c, 0, &REQUEST),
            ]
            .concat(),
        ),
        (
            "fields",
            [
                vec![5],
                ask(0x28, 2, &REQUEST),
                ask(0x20, 2, &field),
                ask(0x28, 2, &field),
            ]
            .concat(),
        ),
        (
            "limit",
            [vec![0], plain.repeat(6), vec![3], plain.repeat(3)].concat(),
        ),
        (
            "smear",
            [vec![3], plain.clone(), vec![2, 9, 2], plain.clone()].concat(),
        ),
        (
            "old",
            [
                vec![5],
                ask(0x20, 2, &old),
                ask(0xe0, 2, &REQUEST),
                ask(0x10, 6, &REQUEST),
            ]
            .concat(),
        ),
    ])
}

fn ntp_client() -> Vec<(String, Vec<u8>)> {
    let good = |later: u8| vec![1, 5, later, 0, 0, 0];
    let rounds: Vec<u8> = (0..12).flat_map(good).collect();
    let interleaved: Vec<u8> = (0..6)
        .flat_map(|later| vec![1, 5, later, later & 1, 0, 0])
        .collect();
    // Leap indicator 3, stratum 0 and a code.
    let kiss = vec![1, 5, 1, 0, 3, 0, 0xe4, 1, 0, 12, b'R', 0];
    named(&[
        ("good", rounds),
        ("interleaved", [good(0), interleaved].concat()),
        (
            "kiss",
            [
                good(0),
                kiss,
                good(1),
                vec![2, 9],
                good(2),
                vec![1, 3, 1, 3, 1, 3],
            ]
            .concat(),
        ),
    ])
}

/// Answers of a function with two virtio capabilities and a BAR.
fn pci() -> Vec<u8> {
    let mut seed = vec![0, 8, 0, 0x80, 0, 0x10, 0x80, 0, 0x10];
    for answer in [
        0x0010_0007_u32,
        0x40,
        0x0110_5009,
        0x0210_0009,
        0x0000_0011,
        0xfebd_400c,
        0,
        0xffff_c000,
        0xffff_ffff,
    ] {
        seed.push(3);
        seed.extend(answer.to_le_bytes());
    }
    seed
}

fn smoke() -> Vec<(String, Vec<u8>)> {
    let known = [0xa0, 0, 0xca, 0x9a, 0x3b, 1];
    let page = |fields: &Fields| [&[0][..], &fields.to_bytes(), &[6]].concat();
    let sealed = Fields {
        leap_indicator: LeapIndicator::PrePos as u8,
        ..good(5).sealed()
    };
    named(&[
        (
            "good",
            [
                &known[..],
                &page(&good(1)),
                &[4, 50, 6, 4, 50, 6, 1, 0x50, 3, 6],
            ]
            .concat(),
        ),
        (
            "odd",
            [
                &known[..],
                &[2, 1, 0, 0, 0, 4, 100, 2, 1, 0, 0, 0],
                &page(&Fields::stock()),
            ]
            .concat(),
        ),
        (
            "stop",
            [
                &known[..],
                &page(&sealed),
                &[3, 100, 1, 0, 0, 0, 0, 0, 0, 0, 6],
            ]
            .concat(),
        ),
    ])
}

fn sources() -> Vec<(String, Vec<u8>)> {
    let steps = [10, 30, 30, 30, 30, 30, 0, 30, 30, 1, 30, 30, 30, 30, 30, 30];
    // One clock, of UTC; and then what the answers are is the target's own.
    let virtio = [0, 0, 1, 0, 0, 0x80, 0, 0, 0, 0];
    let seed = |which: u8, answers: &[u8]| [&[which][..], &steps, answers].concat();
    named(&[
        ("virtio", seed(1, &virtio)),
        ("pairing", seed(2, &[3; 64])),
        ("ptp", seed(4, &[3; 64])),
        ("kvmclock", seed(0x88, &[2; 96])),
        ("cmos", seed(0x70, &[0; 32])),
        ("all", seed(0xff, &[2; 128])),
    ])
}

/// A start info as QEMU leaves it, with a command line and three ranges of memory.
fn start_info() -> Vec<u8> {
    let mut info = Vec::new();
    for word in [0x336e_c578_u32, 1, 0, 0] {
        info.extend(word.to_le_bytes());
    }
    // Modules, command line, root pointer, memory map.
    for word in [0_u64, 0x9000, 0xf_5250, 0x9100, 3] {
        info.extend(word.to_le_bytes());
    }
    let mut map = Vec::new();
    for (start, length, kind) in [
        (0_u64, 0x9_fc00_u64, 1_u32),
        (0xf_0000, 0x1_0000, 2),
        (0x10_0000, 0x3ee_0000, 1),
    ] {
        map.extend(start.to_le_bytes());
        map.extend(length.to_le_bytes());
        map.extend(kind.to_le_bytes());
        map.extend([0; 4]);
    }
    let at =
        |address: u16, bytes: &[u8]| [&[0x80][..], &address.to_le_bytes(), &block(bytes)].concat();
    let mut seed = vec![0x80];
    seed.extend(0x8f00_u16.to_le_bytes());
    seed.extend(at(0x8f00, &info));
    seed.extend(at(0x9000, b"ip=dhcp serial=log\0"));
    seed.extend(at(0x9100, &map));
    seed
}

/// QEMU's own script over the start of its files.
fn table_loader() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let script = fixture("acpi/virt-gic2/table-loader")?;
    let (rsdp, tables) = (
        fixture("acpi/virt-gic2/rsdp")?,
        fixture("acpi/virt-gic2/tables")?,
    );
    let file = |name: &str, bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
        [&block(name.as_bytes())[..], &length, &block(bytes)].concat()
    };
    let files = [
        file("etc/acpi/rsdp", &rsdp),
        file("etc/acpi/tables", &tables),
    ]
    .concat();
    // Two allocations and what follows them; a pointer and its checksum are enough for a start.
    Ok(named(&[
        ("virt", [block(&script), files.clone()].concat()),
        (
            "short",
            [
                block(&script[..6 * 128]),
                file("etc/acpi/rsdp", &rsdp),
                file("etc/acpi/tables", &tables[..64]),
            ]
            .concat(),
        ),
    ]))
}

fn pages() -> Vec<(String, Vec<u8>)> {
    let whole = |fields: &Fields| [&[1][..], &fields.to_bytes()].concat();
    let leap = Fields {
        leap_indicator: LeapIndicator::PrePos as u8,
        leap_second_smearing_hint: 1,
        ..good(3)
    };
    let utc = Fields {
        time_type: 0,
        ..good(4)
    };
    named(&[
        ("good", vec![1, 7, 7, 5, 100, 7, 6, 8, 2, 2, 8, 6, 8, 7]),
        (
            "leap",
            [
                vec![1],
                whole(&leap),
                vec![7, 6, 5, 0x81, 0, 1, 8, 7, 3, 9, 1, 7],
            ]
            .concat(),
        ),
        (
            "utc",
            [vec![1], whole(&utc), vec![7, 6, 8, 0, 5, 1, 7, 0, 5, 2, 7]].concat(),
        ),
        (
            "stock",
            [
                vec![0],
                Fields::stock().to_bytes().to_vec(),
                vec![7, 2, 5, 7, 4, 6, 3, 7, 7],
            ]
            .concat(),
        ),
        ("torn", vec![1, 7, 4, 6, 9, 8, 6, 4, 6, 2, 8, 7, 7]),
    ])
}
