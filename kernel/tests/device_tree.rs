//! Device trees: QEMU's own, made-up ones, and hostile ones.

use std::fs;
use std::path::Path;

use gnomon_kernel::discover::fdt::{self, Bad, LENGTH_MAX, NotFound, Refusal, Tree};
use gnomon_kernel::discover::hardware::{
    Conduit, Gic, Interrupt, PciHost, Uart, UartModel, VirtioMmio,
};
use gnomon_kernel::discover::{self, Window};
use gnomon_kernel::memory::MemoryKind::{self, Reserved, Usable};
use gnomon_kernel::memory::MemoryRange;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/dt");
    fs::read(folder.join(name).with_extension("dtb")).expect(name)
}

const fn window(address: u64, length: u64) -> Window {
    Window { address, length }
}

fn memory(tree: &Tree<'_>) -> Vec<(u64, u64, MemoryKind)> {
    let mut ranges = Vec::new();
    tree.memory(
        |MemoryRange {
             start,
             length,
             kind,
         }| ranges.push((start, length, kind)),
    );
    ranges
}

fn word(number: usize) -> u32 {
    u32::try_from(number).expect("small")
}

/// A tree being written: nodes as a structure block, names as a strings block.
#[derive(Default)]
struct Writer {
    body: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn word(&mut self, word: u32) {
        self.body.extend(word.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.body.extend(bytes);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn begin(&mut self, name: &str) {
        self.word(1);
        self.bytes(format!("{name}\0").as_bytes());
    }

    fn end(&mut self) {
        self.word(2);
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        let name = format!("{name}\0").into_bytes();
        let at = self
            .strings
            .windows(name.len())
            .position(|window| window == name)
            .unwrap_or_else(|| {
                self.strings.extend(&name);
                self.strings.len() - name.len()
            });
        self.word(3);
        self.word(word(value.len()));
        self.word(word(at));
        self.bytes(value);
    }

    fn words(&mut self, name: &str, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.property(name, &bytes);
    }

    fn blob(mut self) -> Vec<u8> {
        self.word(9);
        let [body, strings] = [&self.body, &self.strings].map(|block| word(block.len()));
        let start = 40 + 16;
        let header = [
            0xd00d_feed,
            start + body + strings,
            start,
            start + body,
            40,
            17,
            16,
            0,
            strings,
            body,
        ];
        let mut blob: Vec<u8> = header
            .iter()
            .flat_map(|word: &u32| word.to_be_bytes())
            .collect();
        blob.extend([0; 16]);
        blob.extend(self.body);
        blob.extend(self.strings);
        blob
    }
}

/// A tree with two cells of address and size at the root, and what `fill` adds.
fn tree(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.begin("");
    writer.words("#address-cells", &[2]);
    writer.words("#size-cells", &[2]);
    fill(&mut writer);
    writer.end();
    writer.blob()
}

fn vmclock_node(writer: &mut Writer, name: &str, reg: &[u32]) {
    writer.begin(name);
    writer.property("compatible", b"uapi,vmclock\0amazon,vmclock\0");
    writer.words("reg", reg);
    writer.end();
}

#[test]
fn qemu_with_gic_version_2() {
    let blob = fixture("qemu-virt-gicv2");
    assert_eq!(
        fdt::length(blob.first_chunk().expect("a header")),
        Some(blob.len())
    );
    let tree = Tree::new(&blob).unwrap();
    assert_eq!(memory(&tree), [(0x4000_0000, 0x800_0000, Usable)]);
    assert_eq!(tree.fw_cfg(), Some(window(0x902_0000, 0x18)));
    assert_eq!(tree.rtc(), Some(window(0x901_0000, 0x1000)));
    let uart = Uart {
        window: window(0x900_0000, 0x1000),
        model: UartModel::Pl011,
        interrupt: Some(Interrupt {
            number: 33,
            edge: false,
        }),
    };
    assert_eq!(tree.console(), Some(uart));
    assert_eq!(tree.psci(), Some(Conduit::Hvc));
    let gic = Gic::V2 {
        distributor: window(0x800_0000, 0x1_0000),
        cpu: window(0x801_0000, 0x1_0000),
    };
    assert_eq!(tree.interrupt_controller(), Some(gic));
    let devices: Vec<_> = tree.virtio_mmio().collect();
    assert_eq!(devices.len(), 32);
    let first = VirtioMmio {
        window: window(0xa00_0000, 0x200),
        interrupt: Some(Interrupt {
            number: 48,
            edge: true,
        }),
    };
    assert_eq!(devices.first(), Some(&first));
    let host = PciHost {
        ecam: window(0x40_1000_0000, 0x1000_0000),
        first_bus: 0,
        last_bus: 255,
        memory: Some(window(0x1000_0000, 0x2eff_0000)),
    };
    assert_eq!(tree.pci_host(), Some(host));
    // Pins are swizzled over four lines: device 1, pin A is line 1; device 3, pin B is line 0.
    let lines = [(1, 1, 36), (3, 2, 35), (31, 4, 37)];
    for (device, pin, number) in lines {
        let interrupt = Interrupt {
            number,
            edge: false,
        };
        assert_eq!(tree.pci_interrupt(device, pin), Some(interrupt));
    }
    assert_eq!(tree.pci_interrupt(1, 0), None, "no pin");
    assert_eq!(tree.vmclock(None, &[]), Err(NotFound::Absent));
}

#[test]
fn qemu_with_gic_version_3_and_el2() {
    let blob = fixture("qemu-virt-gicv3-el2");
    let tree = Tree::new(&blob).unwrap();
    assert_eq!(tree.psci(), Some(Conduit::Smc));
    let gic = Gic::V3 {
        distributor: window(0x800_0000, 0x1_0000),
        redistributors: window(0x80a_0000, 0xf6_0000),
    };
    assert_eq!(tree.interrupt_controller(), Some(gic));
}

#[test]
fn a_vmclock_node_carves_its_page_out_of_memory() {
    let blob = tree(|writer| {
        writer.begin("memory@40000000");
        writer.property("device_type", b"memory\0");
        writer.words("reg", &[0, 0x4000_0000, 0, 0x1000_0000]);
        writer.end();
        vmclock_node(writer, "ptp@42000000", &[0, 0x4200_0000, 0, 0x1000]);
    });
    let tree = Tree::new(&blob).unwrap();
    let map = [MemoryRange {
        start: 0x4000_0000,
        length: 0x1000_0000,
        kind: Usable,
    }];
    let found = tree.vmclock(None, &map).unwrap();
    assert_eq!(found.window, window(0x4200_0000, 0x1000));
    assert_eq!(
        found.to_string(),
        "ptp@42000000 (amazon,vmclock) at 0x42000000, 4096 bytes"
    );
    // The user's word is not enough for that.
    let refused = tree.vmclock(Some(0x4300_0000), &map).unwrap_err();
    assert!(matches!(
        refused,
        NotFound::Override {
            why: discover::Refusal::Ram(..),
            ..
        }
    ));
    assert!(tree.vmclock(Some(0x900_0000), &map).is_ok());
}

#[test]
fn what_cannot_be_a_page_is_refused() {
    let cases: [(&[u32], Refusal); 7] = [
        (&[], Refusal::Register),
        (&[0, 0x4200_0000, 0], Refusal::Register),
        (&[0, 0, 0, 0x1000], Refusal::Window(discover::Refusal::Null)),
        (
            &[0, 0x4200_0000, 0, 0],
            Refusal::Window(discover::Refusal::Empty),
        ),
        (
            &[0, 0x4200_0800, 0, 0x1000],
            Refusal::Window(discover::Refusal::Unaligned(window(0x4200_0800, 0x1000))),
        ),
        (
            &[0, 0x4200_0000, 1, 0],
            Refusal::Window(discover::Refusal::Large(window(0x4200_0000, 1 << 32))),
        ),
        (
            &[u32::MAX, 0xffff_f000, 0, 0x1000],
            Refusal::Window(discover::Refusal::Beyond(window(
                0xffff_ffff_ffff_f000,
                0x1000,
            ))),
        ),
    ];
    for (reg, why) in cases {
        let blob = tree(|writer| vmclock_node(writer, "ptp", reg));
        let tree = Tree::new(&blob).unwrap();
        assert_eq!(
            tree.vmclock(None, &[]),
            Err(NotFound::Refused { node: "ptp", why }),
            "{reg:x?}"
        );
    }
}

#[test]
fn the_first_good_node_wins_over_a_bad_one() {
    let blob = tree(|writer| {
        writer.begin("bus");
        writer.property("status", b"disabled\0");
        writer.property("ranges", b"");
        vmclock_node(writer, "ptp@1", &[0, 0x4200_0000, 0x1000]);
        writer.end();
        vmclock_node(writer, "ptp@2", &[0, 0x4300_0000, 0, 0x1000]);
    });
    let tree = Tree::new(&blob).unwrap();
    assert_eq!(tree.vmclock(None, &[]).unwrap().node, Some("ptp@2"));
}

#[test]
fn addresses_below_buses_are_translated() {
    let blob = tree(|writer| {
        writer.begin("soc");
        writer.words("#address-cells", &[1]);
        writer.words("#size-cells", &[1]);
        writer.words("ranges", &[0, 1, 0, 0x1000, 0x8000_0000, 2, 0, 0x10_0000]);
        writer.begin("inner");
        writer.words("#address-cells", &[1]);
        writer.words("#size-cells", &[1]);
        writer.property("ranges", b"");
        vmclock_node(writer, "ptp", &[0x8000_2000, 0x1000]);
        writer.end();
        writer.end();
    });
    let found = Tree::new(&blob).unwrap().vmclock(None, &[]).unwrap();
    assert_eq!(found.window, window(0x2_0000_2000, 0x1000));

    let outside = tree(|writer| {
        writer.begin("soc");
        writer.words("#address-cells", &[1]);
        writer.words("#size-cells", &[1]);
        writer.words("ranges", &[0x8000_0000, 2, 0, 0x1000]);
        vmclock_node(writer, "ptp", &[0x8000_0000, 0x2000]);
        writer.end();
    });
    let refused = Tree::new(&outside).unwrap().vmclock(None, &[]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "ptp refused: its reg is missing or cannot be translated"
    );
}

#[test]
fn reserved_memory_is_cut_out() {
    let blob = tree(|writer| {
        writer.begin("memory@0");
        writer.property("device_type", b"memory\0");
        writer.words("reg", &[0, 0x1000, 0, 0x9000, 1, 0, 0, 0x1000]);
        writer.end();
        writer.begin("reserved-memory");
        writer.words("#address-cells", &[2]);
        writer.words("#size-cells", &[2]);
        writer.property("ranges", b"");
        for (name, start, length) in [
            ("b", 0x6000, 0x1000),
            ("a", 0, 0x3000),
            ("c", 0x6800, 0x1800),
        ] {
            writer.begin(name);
            writer.words("reg", &[0, start, 0, length]);
            writer.end();
        }
        writer.end();
    });
    assert_eq!(
        memory(&Tree::new(&blob).unwrap()),
        [
            (0x3000, 0x3000, Usable),
            (0x8000, 0x2000, Usable),
            (0x1_0000_0000, 0x1000, Usable),
            (0x6000, 0x1000, Reserved),
            (0, 0x3000, Reserved),
            (0x6800, 0x1800, Reserved),
        ]
    );
}

#[test]
fn random_seeds() {
    let long: &'static [u8] = &[7; 1000];
    for (rng, kaslr, expected) in [
        (None, None, vec![]),
        (Some(&b"abc"[..]), None, vec![&b"abc"[..]]),
        (None, Some(&b"12345678"[..]), vec![b"12345678"]),
        (
            Some(long),
            Some(b"12345678"),
            vec![&long[..256], b"12345678"],
        ),
        (Some(b""), Some(b""), vec![]),
    ] {
        let blob = tree(|writer| {
            writer.begin("chosen");
            for (name, seed) in [("rng-seed", rng), ("kaslr-seed", kaslr)] {
                if let Some(seed) = seed {
                    writer.property(name, seed);
                }
            }
            writer.end();
        });
        let tree = Tree::new(&blob).expect("a tree");
        assert_eq!(tree.seeds().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_console_is_the_one_chosen() {
    let fill = |path: &'static [u8]| {
        tree(move |writer| {
            writer.begin("chosen");
            writer.property("stdout-path", path);
            writer.property("bootargs", b"idle=poll\0");
            writer.end();
            writer.begin("aliases");
            writer.property("serial0", b"/uart@2\0");
            writer.end();
            for (name, address) in [("uart@1", 0x1000), ("uart@2", 0x2000)] {
                writer.begin(name);
                writer.property("compatible", b"ns16550a\0");
                writer.words("reg", &[0, address, 0, 0x100]);
                writer.words("reg-shift", &[2]);
                writer.end();
            }
        })
    };
    let cases: [(&[u8], u64); 6] = [
        (b"/uart@2\0", 0x2000),
        (b"/uart@2:115200n8\0", 0x2000),
        (b"serial0\0", 0x2000),
        (b"serial1\0", 0x1000),
        (b"/uart@2/x\0", 0x1000),
        (b"no end", 0x1000),
    ];
    for (path, address) in cases {
        let blob = fill(path);
        let tree = Tree::new(&blob).unwrap();
        let console = tree.console().unwrap();
        assert_eq!(console.window, window(address, 0x100), "{path:?}");
        assert_eq!(console.model, UartModel::Ns16550 { stride: 4 });
        assert_eq!(tree.command_line(), Some("idle=poll"));
    }
}

/// Asks everything there is to ask.
fn interrogate(blob: &[u8]) -> Result<(), Bad> {
    let tree = Tree::new(blob)?;
    let _ = (tree.command_line(), tree.console(), tree.psci());
    let _ = (tree.interrupt_controller(), tree.pci_host());
    let _ = (tree.pci_interrupt(1, 1), tree.pci_interrupt(31, 4));
    let _ = (tree.fw_cfg(), tree.rtc());
    assert!(tree.virtio_mmio().count() <= 4096);
    assert!(memory(&tree).len() <= 10_000);
    if let Ok(found) = tree.vmclock(None, &[]) {
        found
            .window
            .check(&[])
            .expect("a page that was not checked");
    }
    Ok(())
}

fn with_vmclock() -> Vec<u8> {
    tree(|writer| {
        writer.words("interrupt-parent", &[1]);
        writer.begin("gic");
        writer.property("compatible", b"arm,gic-v3\0");
        writer.words("reg", &[0, 0x1000, 0, 0x1000, 0, 0x2000, 0, 0x1000]);
        writer.words("phandle", &[1]);
        writer.end();
        writer.begin("soc");
        writer.words("#address-cells", &[1]);
        writer.words("#size-cells", &[1]);
        writer.words("ranges", &[0, 0, 0, 0x8000_0000]);
        writer.begin("virtio");
        writer.property("compatible", b"virtio,mmio\0");
        writer.words("reg", &[0x4000, 0x200]);
        writer.words("interrupts", &[0, 1, 4]);
        writer.end();
        vmclock_node(writer, "ptp", &[0x4200_0000, 0x1000]);
        writer.end();
    })
}

#[test]
fn cut_trees_are_refused() {
    for blob in [fixture("qemu-virt-gicv2"), with_vmclock()] {
        interrogate(&blob).expect("the whole tree");
        for length in 0..blob.len() {
            // As it is, and with a header that knows of the cut.
            let mut cut = blob[..length].to_vec();
            assert!(interrogate(&cut).is_err(), "{length}");
            if let Some(total) = cut.get_mut(4..8) {
                total.copy_from_slice(&word(length).to_be_bytes());
                assert!(interrogate(&cut).is_err(), "{length}");
            }
        }
    }
}

#[test]
fn changed_trees_do_no_harm() {
    // A step without common factors with what trees are made of; the small tree is done completely.
    for (blob, step) in [(fixture("qemu-virt-gicv3-el2"), 29), (with_vmclock(), 1)] {
        for at in (0..blob.len()).step_by(step) {
            for change in [0x01, 0x02, 0x80, 0xff, 0x04] {
                let mut blob = blob.clone();
                blob[at] ^= change;
                let _ = interrogate(&blob);
            }
        }
    }
}

#[test]
fn many_changes_at_once_do_no_harm() {
    let blob = with_vmclock();
    let mut state = 1u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).expect("31 bits")
    };
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut blob = blob.clone();
        for _ in 0..=random() % 6 {
            let at = random() % blob.len();
            // Small numbers are what lengths, tokens and cells are made of.
            blob[at] = u8::try_from(random() % 20).expect("small");
        }
        accepted += usize::from(interrogate(&blob).is_ok());
    }
    assert!(
        accepted > 100,
        "changes must reach beyond the checks: {accepted}"
    );
}

#[test]
fn large_trees_are_read_to_their_ends() {
    let limit = LENGTH_MAX / 8;
    let deep = tree(|writer| {
        let levels = limit / 12;
        (0..levels).for_each(|_| writer.begin("n"));
        (0..levels).for_each(|_| writer.end());
    });
    let wide = tree(|writer| {
        while writer.body.len() < limit {
            vmclock_node(writer, "n", &[0, 1, 0, 1]);
        }
    });
    let rich = tree(|writer| {
        writer.begin("bus");
        while writer.body.len() < limit / 2 {
            writer.property("x", b"");
        }
        while writer.body.len() < limit {
            vmclock_node(writer, "n", &[0, 1, 0, 1]);
        }
        writer.end();
    });
    for (name, blob) in [("deep", deep), ("wide", wide), ("rich", rich)] {
        assert!(blob.len() >= limit, "{name}: {}", blob.len());
        assert_eq!(interrogate(&blob), Ok(()), "{name}");
    }
}
