//! The network device's transport, which on Arm is one of two.

use gnomon_arch::dev::registers::Registers;
use gnomon_arch::dev::ring::RingMemory;
use gnomon_arch::dev::virtio::mmio::MmioTransport;
use gnomon_arch::dev::virtio::pci::PciTransport;
use gnomon_arch::dev::virtio::{Doorbell, Error, RaisedLine, Transport};

/// How the network device is reached.
pub(crate) enum Wire {
    /// Over PCI.
    Pci(PciTransport),
    /// By registers in memory.
    Mmio(MmioTransport),
}

/// A device on PCI is reached so.
pub(crate) const fn wire(transport: PciTransport) -> Wire {
    Wire::Pci(transport)
}

/// Asks whichever there is.
macro_rules! either {
    ($wire:ident, $transport:ident => $what:expr) => {
        match $wire {
            Wire::Pci($transport) => $what,
            Wire::Mmio($transport) => $what,
        }
    };
}

impl Transport for Wire {
    fn negotiate(&mut self, wanted: u64) -> Result<u64, Error> {
        either!(self, transport => transport.negotiate(wanted))
    }

    fn queue<const N: usize>(
        &mut self,
        index: u16,
        memory: &RingMemory<N>,
        interrupts: bool,
    ) -> Result<Doorbell, Error> {
        either!(self, transport => transport.queue(index, memory, interrupts))
    }

    fn start(&mut self) {
        either!(self, transport => transport.start());
    }

    fn configuration(&self) -> &Registers {
        either!(self, transport => transport.configuration())
    }

    fn wakes(&self) -> bool {
        either!(self, transport => transport.wakes())
    }

    fn line(&self) -> Option<RaisedLine> {
        either!(self, transport => transport.line())
    }

    fn status(&self) -> u8 {
        either!(self, transport => transport.status())
    }

    fn set_status(&self, status: u8) {
        either!(self, transport => transport.set_status(status));
    }
}
