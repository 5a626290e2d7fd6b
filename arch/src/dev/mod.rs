//! Devices, as far as they are the same on every architecture.

pub mod fw_cfg;
pub mod net;
pub mod pci;
pub mod registers;
pub mod ring;
pub mod virtio;
