//! The device tree of an aarch64 machine, with a vmclock page in it.
//!
//! QEMU has no vmclock device for Arm. So the launcher asks QEMU for the machine's own tree
//! (`-machine dumpdtb=`), adds what the binding asks for (Linux
//! `Documentation/devicetree/bindings/ptp/amazon,vmclock.yaml`), and starts the machine with it
//! (`-dtb`): a node `amazon,vmclock`, and below `/reserved-memory` one with `no-map`, so that no guest
//! takes the page for ordinary memory. There is no interrupt unless somebody says so: QEMU could not raise it.

use core::fmt;
use std::io;

use dtoolkit::error::FdtParseError;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _};

/// The length of the page in bytes.
const PAGE: u64 = 0x1000;
/// What a bus of 64-bit addresses says of itself.
const WIDE: u32 = 2;

/// Adds a vmclock page at `address` to the flattened tree `blob`, with the shared interrupt of this number (GIC, rising
/// edge) if there is one.
///
/// # Errors
/// When the blob is no device tree, or its root has other than 64-bit addresses.
pub fn with_page(blob: &[u8], address: u64, interrupt: Option<u32>) -> Result<Vec<u8>, TreeError> {
    let tree = Fdt::new(blob).map_err(TreeError::Malformed)?;
    let mut tree = DeviceTree::from_fdt(&tree);
    let root = &tree.root;
    for name in ["#address-cells", "#size-cells"] {
        let cells = root.property(name);
        if cells.map(|cells| cells.value().to_vec()) != Some(WIDE.to_be_bytes().to_vec()) {
            return Err(TreeError::Cells(name));
        }
    }
    let register = [address.to_be_bytes(), PAGE.to_be_bytes()].concat();
    let node = |name: &str, properties: &[(&str, &[u8])]| {
        let mut node = DeviceTreeNode::new_unchecked(format!("{name}@{address:x}"));
        for (name, value) in properties {
            node.add_property(DeviceTreeProperty::new_unchecked(*name, *value));
        }
        node
    };
    if root.child("reserved-memory").is_none() {
        let mut reserved = DeviceTreeNode::new_unchecked("reserved-memory");
        for name in ["#address-cells", "#size-cells"] {
            reserved.add_property(DeviceTreeProperty::new_unchecked(name, WIDE));
        }
        reserved.add_property(DeviceTreeProperty::new_unchecked("ranges", &[0_u8; 0][..]));
        tree.root.add_child(reserved);
    }
    if let Some(reserved) = tree.root.child_mut("reserved-memory") {
        reserved.add_child(node("vmclock", &[("reg", &register), ("no-map", &[])]));
    }
    let compatible = ("compatible", &b"amazon,vmclock\0"[..]);
    let mut page = node("ptp", &[compatible, ("reg", &register)]);
    if let Some(number) = interrupt {
        // As a GIC's binding has it: shared, its number, a rising edge.
        let cells = [0, number, 1].map(u32::to_be_bytes).concat();
        page.add_property(DeviceTreeProperty::new_unchecked("interrupts", cells));
    }
    tree.root.add_child(page);
    Ok(tree.to_dtb())
}

/// The same tree with other seeds for random numbers (`rng-seed` and `kaslr-seed` of any node), each as long as it was.
///
/// # Errors
/// When the blob is no device tree, or `fill` fails.
pub(crate) fn with_seeds(
    blob: &[u8],
    fill: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> Result<Vec<u8>, TreeError> {
    let tree = Fdt::new(blob).map_err(TreeError::Malformed)?;
    let mut tree = DeviceTree::from_fdt(&tree);
    reseed(&mut tree.root, fill).map_err(TreeError::Seeds)?;
    Ok(tree.to_dtb())
}

fn reseed(
    node: &mut DeviceTreeNode,
    fill: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    for name in ["rng-seed", "kaslr-seed"] {
        if let Some(property) = node.property_mut(name) {
            let mut seed = (&*property).value().to_vec();
            fill(&mut seed)?;
            property.set_value(&seed[..]);
        }
    }
    node.children_mut()
        .try_for_each(|child| reseed(child, fill))
}

/// Why a device tree cannot be added to.
#[derive(Debug)]
pub enum TreeError {
    /// It is malformed.
    Malformed(FdtParseError),
    /// This property of its root is not 2.
    Cells(&'static str),
    /// There are no new seeds for it.
    Seeds(io::Error),
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "the machine's device tree is malformed: {error}"),
            Self::Seeds(error) => write!(f, "the machine's device tree gets no seeds: {error}"),
            Self::Cells(name) => write!(f, "the machine's device tree has another {name} than 2"),
        }
    }
}

impl core::error::Error for TreeError {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine's tree with this seed.
    pub(crate) fn machine(seed: &[u8]) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let mut chosen = DeviceTreeNode::new_unchecked("chosen");
        chosen.add_property(DeviceTreeProperty::new_unchecked("rng-seed", seed));
        chosen.add_property(DeviceTreeProperty::new_unchecked("bootargs", &b"ip\0"[..]));
        tree.root.add_child(chosen);
        tree.to_dtb()
    }

    /// The seed in such a tree.
    pub(crate) fn seed(blob: &[u8]) -> Vec<u8> {
        let tree = Fdt::new(blob).expect("well formed");
        let chosen = tree.find_node("/chosen").expect("a node");
        let seed = chosen.property("rng-seed").expect("a seed");
        seed.value().to_vec()
    }

    /// The guest's own reader of device trees is another program; this is what it takes.
    #[test]
    fn page_is_a_node_and_reserved() {
        let mut tree = DeviceTree::new();
        for name in ["#address-cells", "#size-cells"] {
            tree.root
                .add_property(DeviceTreeProperty::new_unchecked(name, WIDE));
        }
        let once = with_page(&tree.to_dtb(), 0x4001_0000, None).expect("a tree");
        let twice = with_page(&once, 0x4002_0000, None).expect("a tree with reserved memory");
        let tree = Fdt::new(&twice).expect("well formed");
        for address in ["40010000", "40020000"] {
            let find = |path: &str| {
                let path = format!("{path}@{address}");
                let node = tree.find_node(&path);
                node.unwrap_or_else(|| panic!("no {path}\n{tree}"))
            };
            let (page, reserved) = (find("/ptp"), find("/reserved-memory/vmclock"));
            let value = |node: &dtoolkit::fdt::FdtNode<'_>, name| {
                let property = node.property(name).expect("it has that");
                property.value().to_vec()
            };
            assert_eq!(value(&page, "compatible"), b"amazon,vmclock\0");
            assert_eq!(value(&reserved, "no-map"), b"");
            let register = value(&page, "reg");
            assert_eq!(register, value(&reserved, "reg"));
            let start = u64::from_str_radix(address, 16).expect("hexadecimal");
            assert_eq!(register[..8], start.to_be_bytes());
            assert_eq!(register[8..], PAGE.to_be_bytes());
        }
    }

    #[test]
    fn other_trees_are_refused() {
        let narrow = DeviceTree::new().to_dtb();
        let error = with_page(&narrow, 0, None).expect_err("no cells");
        assert!(matches!(error, TreeError::Cells("#address-cells")));
        for end in 0..narrow.len() {
            let error = with_page(&narrow[..end], 0, None).expect_err("cut");
            assert!(matches!(error, TreeError::Malformed(_)), "{end}");
        }
    }
}
