//! QEMU's table loader: any script over any files, and what the tables that it makes say.

use gnomon_kernel::discover::acpi::Tables;
use gnomon_kernel::discover::loader::{self, Files};
use gnomon_kernel::discover::vmclock;

use crate::acpi::{Machine, exercise};
use crate::aml::{MAP, check};
use crate::input::Input;

const BASE: u64 = 0x4030_0000;
const MEMORY: usize = 16 << 10;
/// What nobody has written.
const UNTOUCHED: u8 = 0xa5;

/// The host's files, and how far their lengths are from what can be read.
struct Host<'a>(Vec<(&'a [u8], u32, &'a [u8])>);

impl Files for Host<'_> {
    fn length(&self, name: &str) -> Option<u32> {
        let file = self.0.iter().find(|(its, ..)| *its == name.as_bytes());
        file.map(|(_, length, _)| *length)
    }

    fn read(&self, name: &str, into: &mut [u8]) -> bool {
        let Some((.., bytes)) = self.0.iter().find(|(its, ..)| *its == name.as_bytes()) else {
            return false;
        };
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        into[count..].fill(0);
        true
    }
}

/// Input: the script, and files: a name, the length that is said, the bytes.
///
/// # Panics
/// The loader does what it must not.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let script = input.block();
    let mut files = Vec::new();
    while !input.is_empty() && files.len() < 16 {
        let name = input.block();
        files.push((name, input.u32(), input.block()));
    }
    let mut memory = vec![UNTOUCHED; MEMORY + 1];
    let loaded = match loader::run(script, &Host(files), &mut memory[..MEMORY], BASE) {
        Ok(loaded) => loaded,
        Err(bad) => {
            assert!(!bad.to_string().is_empty());
            assert!(bad.command <= script.len() / 128);
            return;
        }
    };
    assert!(loaded.used <= MEMORY);
    assert!((BASE..BASE + MEMORY as u64).contains(&loaded.rsdp));
    let rest = &memory[loaded.used..];
    assert!(
        rest.iter().all(|byte| *byte == UNTOUCHED),
        "beyond what is in use"
    );
    memory.truncate(loaded.used);
    let machine = Machine::new(vec![(BASE, memory)]);
    if let Ok(tables) = Tables::at(&machine, loaded.rsdp) {
        check(&vmclock(None, Ok(&tables), &MAP));
        exercise(&tables);
    }
}
