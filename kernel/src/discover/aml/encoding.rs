//! The bytes of AML: constants, names, packages and the extents of declarations (ACPI 6.5 §20.2).

use core::slice;

use super::Unread;
use super::name::{Id, NameString, is_segment};

/// A constant from a definition block (ACPI 6.5 §20.2.3).
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Integer; `Ones` is 2^64-1 in tables of every revision.
    Integer(u64),
    /// ASCII string.
    Text(&'a str),
    /// The initial bytes of a buffer; zeros implied by a greater declared size are not part of it.
    Buffer(&'a [u8]),
    /// Package of values.
    Package(Package<'a>),
    /// The name of an object, inside a package or after `Return`.
    Reference(NameString<'a>),
    /// A buffer or package whose size is computed.
    Computed,
}

/// A package of values.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a>(pub(super) Reader<'a>);

impl<'a> Value<'a> {
    /// The hardware identifiers in it: itself, or the elements of a package of them.
    pub fn ids(self) -> impl Iterator<Item = Id<'a>> {
        let (one, many) = match self {
            Self::Package(package) => (None, package),
            value => (value.id(), Package(Reader(&[]))),
        };
        one.into_iter().chain(many.values().filter_map(Value::id))
    }

    pub(super) fn id(self) -> Option<Id<'a>> {
        match self {
            Self::Integer(number) => u32::try_from(number).ok().map(Id::Eisa),
            Self::Text(text) => Some(Id::Text(text)),
            _ => None,
        }
    }
}

impl<'a> Package<'a> {
    /// The elements in order; they end early where one cannot be read.
    pub fn values(self) -> impl Iterator<Item = Value<'a>> {
        let mut elements = self.0;
        core::iter::from_fn(move || elements.value().ok()).fuse()
    }
}

/// A declaration and its extent.
pub(super) struct Term<'a> {
    pub(super) opcode: u16,
    /// Inside of the package for opcodes that have a `PkgLength`, otherwise all operands.
    pub(super) body: &'a [u8],
    /// What it declares, where that has no `PkgLength`.
    pub(super) name: Option<NameString<'a>>,
    /// What follows that name.
    pub(super) data: &'a [u8],
}

/// Bytes still to be read, all within one package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// One term of a term list, as far as it is a declaration.
    pub(super) fn term(&mut self) -> Result<Term<'a>, Unread> {
        let opcode = self.opcode()?;
        let start = *self;
        let mut after_name = start;
        let name = match opcode {
            op::SCOPE
            | op::METHOD
            | op::DEVICE
            | op::PROCESSOR
            | op::POWER_RESOURCE
            | op::THERMAL_ZONE
            | op::FIELD
            | op::INDEX_FIELD
            | op::BANK_FIELD
            | op::IF
            | op::ELSE
            | op::WHILE => {
                let body = self.package()?.0;
                return Ok(Term {
                    opcode,
                    body,
                    name: None,
                    data: &[],
                });
            }
            op::NAME => {
                let name = self.name()?;
                after_name = *self;
                self.value()?;
                Some(name)
            }
            op::ALIAS => {
                self.name()?;
                Some(self.name()?)
            }
            op::EXTERNAL => {
                self.name()?;
                self.take(2)?; // ObjectType, ArgumentCount
                None
            }
            op::MUTEX => {
                let name = self.name()?;
                self.byte()?; // SyncFlags
                Some(name)
            }
            op::EVENT => Some(self.name()?),
            op::REGION => {
                let name = self.name()?;
                self.byte()?; // RegionSpace
                self.operands(2)?;
                Some(name)
            }
            op::DATA_REGION => {
                let name = self.name()?;
                self.operands(3)?;
                Some(name)
            }
            op::CREATE_BIT
            | op::CREATE_BYTE
            | op::CREATE_WORD
            | op::CREATE_DWORD
            | op::CREATE_QWORD => {
                self.operands(2)?;
                Some(self.name()?)
            }
            op::CREATE_FIELD => {
                self.operands(3)?;
                Some(self.name()?)
            }
            op::NOOP => None,
            unknown => return Err(Unread::Opcode(unknown)),
        };
        Ok(Term {
            opcode,
            body: start.until(self),
            name,
            data: after_name.until(self),
        })
    }

    /// One element of a field list (ACPI 6.5 §20.2.5.2).
    pub(super) fn field(&mut self) -> Result<Term<'a>, Unread> {
        let start = *self;
        let mut name = None;
        match self.byte()? {
            // ReservedField: a number of bits in the form of a PkgLength.
            0x00 => drop(self.package_length()?),
            // AccessField: type and attribute; ExtendedAccessField: those and a length.
            0x01 => drop(self.take(2)?),
            0x03 => drop(self.take(3)?),
            // ConnectField: a name or a resource descriptor in a buffer.
            0x02 => drop(self.value()?),
            _ => {
                *self = start;
                let segment = self.segment()?;
                self.package_length()?;
                name = Some(NameString {
                    absolute: false,
                    up: 0,
                    segments: slice::from_ref(segment),
                });
            }
        }
        Ok(Term {
            opcode: op::FIELD_UNIT,
            body: start.until(self),
            name,
            data: &[],
        })
    }

    /// A constant, or a name where one may stand instead (ACPI 6.5 §20.2.3).
    pub(super) fn value(&mut self) -> Result<Value<'a>, Unread> {
        let start = *self;
        Ok(match self.opcode()? {
            0x00 => Value::Integer(0),
            0x01 => Value::Integer(1),
            0xff => Value::Integer(u64::MAX),
            0x0a => Value::Integer(self.little_endian(1)?),
            0x0b => Value::Integer(self.little_endian(2)?),
            0x0c => Value::Integer(self.little_endian(4)?),
            0x0e => Value::Integer(self.little_endian(8)?),
            op::REVISION => Value::Computed,
            0x0d => {
                let length = self
                    .0
                    .iter()
                    .position(|byte| *byte == 0)
                    .ok_or(Unread::Length)?;
                let text = self.take(length)?;
                self.byte()?;
                // A string of other than ASCII is legal to skip over but equals nothing.
                text.is_ascii()
                    .then(|| str::from_utf8(text).ok())
                    .flatten()
                    .map_or(Value::Computed, Value::Text)
            }
            op::BUFFER => {
                let mut body = self.package()?;
                match body.size() {
                    Some(_) => Value::Buffer(body.0),
                    None => Value::Computed,
                }
            }
            op::PACKAGE => {
                let mut body = self.package()?;
                body.byte()?; // NumElements
                Value::Package(Package(body))
            }
            op::VAR_PACKAGE => {
                let mut body = self.package()?;
                match body.size() {
                    Some(_) => Value::Package(Package(body)),
                    None => Value::Computed,
                }
            }
            opcode if is_name_start(opcode) => {
                *self = start;
                Value::Reference(self.name()?)
            }
            unknown => return Err(Unread::Opcode(unknown)),
        })
    }

    /// The size of a buffer or package, if it is a plain integer.
    fn size(&mut self) -> Option<u64> {
        // A size that is itself a buffer is not AML; not reading one keeps this from recursing.
        match self.0.first()? {
            0x00 | 0x01 | 0x0a | 0x0b | 0x0c | 0x0e => {}
            _ => return None,
        }
        match self.value() {
            Ok(Value::Integer(size)) => Some(size),
            _ => None,
        }
    }

    /// Passes over as many operands of a declaration.
    pub(super) fn operands(&mut self, count: usize) -> Result<(), Unread> {
        (0..count).try_for_each(|_| self.operand())
    }

    /// Passes over one operand: a constant, a name (taken to be no method call, whose arguments could not be told from what
    /// follows), or an expression of operators with a fixed number of operands.
    pub(super) fn operand(&mut self) -> Result<(), Unread> {
        let mut wanted = 1_usize;
        while wanted > 0 {
            wanted -= 1;
            let start = *self;
            wanted += match self.opcode()? {
                op::LOCAL_0..=op::LOCAL_7 | op::ARG_0..=op::ARG_6 => 0,
                op::DEREF_OF | op::SIZE_OF | op::REF_OF | op::LOGICAL_NOT => 1,
                // One operand and a target, or two operands.
                op::NOT
                | op::TO_BUFFER..=op::TO_INTEGER
                | op::LOGICAL_AND
                | op::LOGICAL_OR
                | op::EQUAL
                | op::GREATER
                | op::LESS => 2,
                // Two operands and a target.
                op::ADD..=op::SUBTRACT
                | op::MULTIPLY
                | op::SHIFT_LEFT..=op::XOR
                | op::MOD
                | op::INDEX => 3,
                op::DIVIDE => 4,
                _ => {
                    *self = start;
                    self.value().map(|_| 0)?
                }
            };
        }
        Ok(())
    }

    /// A name (ACPI 6.5 §20.2.2).
    pub(super) fn name(&mut self) -> Result<NameString<'a>, Unread> {
        // Most names are a segment and nothing else.
        if let Some(segment) = self.0.first_chunk().filter(|segment| is_segment(**segment)) {
            self.take(4)?;
            return Ok(NameString {
                absolute: false,
                up: 0,
                segments: slice::from_ref(segment),
            });
        }
        let absolute = self.0.first() == Some(&b'\\');
        self.take(usize::from(absolute))?;
        let up = if absolute {
            0
        } else {
            self.0.iter().take_while(|byte| **byte == b'^').count()
        };
        self.take(up)?;
        let start = *self;
        let count = match self.byte()? {
            0x00 => 0,
            0x2e => 2,
            0x2f => usize::from(self.byte()?),
            _ => {
                *self = start;
                1
            }
        };
        let (segments, _) = self.take(count * 4)?.as_chunks::<4>();
        if segments.iter().copied().all(is_segment) {
            Ok(NameString {
                absolute,
                up,
                segments,
            })
        } else {
            Err(Unread::Name)
        }
    }

    fn segment(&mut self) -> Result<&'a [u8; 4], Unread> {
        let segment = self.take(4)?.first_chunk().ok_or(Unread::Length)?;
        if is_segment(*segment) {
            Ok(segment)
        } else {
            Err(Unread::Name)
        }
    }

    /// The inside of a package, which starts with its length; leaves this reader after it.
    #[inline]
    fn package(&mut self) -> Result<Self, Unread> {
        let start = *self;
        let length = self.package_length()?;
        // The length counts its own bytes.
        let inside = length
            .checked_sub(start.0.len() - self.0.len())
            .ok_or(Unread::Length)?;
        self.take(inside).map(Self)
    }

    /// `PkgLength` (ACPI 6.5 §20.2.4): one to four bytes for up to 28 bits.
    #[inline]
    fn package_length(&mut self) -> Result<usize, Unread> {
        let lead = self.byte()?;
        let more = usize::from(lead >> 6);
        if more == 0 {
            return Ok(usize::from(lead & 0x3f));
        }
        let high = self.little_endian(more)?;
        usize::try_from(high << 4 | u64::from(lead & 0x0f)).map_err(|_| Unread::Length)
    }

    #[inline]
    pub(super) fn opcode(&mut self) -> Result<u16, Unread> {
        Ok(match self.byte()? {
            0x5b => 0x5b00 | u16::from(self.byte()?),
            opcode => u16::from(opcode),
        })
    }

    /// At most eight bytes as an integer.
    fn little_endian(&mut self, bytes: usize) -> Result<u64, Unread> {
        Ok(self
            .take(bytes)?
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Unread> {
        let (byte, rest) = self.0.split_first().ok_or(Unread::Length)?;
        self.0 = rest;
        Ok(*byte)
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Unread> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unread::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    /// What lies between this reader and a later state of it.
    fn until(&self, later: &Self) -> &'a [u8] {
        self.0
            .get(..self.0.len().saturating_sub(later.0.len()))
            .unwrap_or_default()
    }
}

fn is_name_start(opcode: u16) -> bool {
    u8::try_from(opcode)
        .is_ok_and(|byte| matches!(byte, b'\\' | b'^' | b'_' | b'A'..=b'Z' | 0x2e | 0x2f))
}

/// Opcodes (ACPI 6.5 §20.3); extended ones with their prefix 0x5b as the high byte.
pub(super) mod op {
    pub(in super::super) const ALIAS: u16 = 0x06;
    pub(in super::super) const NAME: u16 = 0x08;
    pub(in super::super) const SCOPE: u16 = 0x10;
    pub(in super::super) const BUFFER: u16 = 0x11;
    pub(in super::super) const PACKAGE: u16 = 0x12;
    pub(in super::super) const VAR_PACKAGE: u16 = 0x13;
    pub(in super::super) const METHOD: u16 = 0x14;
    pub(in super::super) const EXTERNAL: u16 = 0x15;
    pub(in super::super) const LOCAL_0: u16 = 0x60;
    pub(in super::super) const LOCAL_7: u16 = 0x67;
    pub(in super::super) const ARG_0: u16 = 0x68;
    pub(in super::super) const ARG_6: u16 = 0x6e;
    pub(in super::super) const REF_OF: u16 = 0x71;
    pub(in super::super) const ADD: u16 = 0x72; // then Concatenate
    pub(in super::super) const SUBTRACT: u16 = 0x74;
    pub(in super::super) const MULTIPLY: u16 = 0x77;
    pub(in super::super) const DIVIDE: u16 = 0x78;
    pub(in super::super) const SHIFT_LEFT: u16 = 0x79; // then ShiftRight, And, Nand, Or, Nor
    pub(in super::super) const XOR: u16 = 0x7f;
    pub(in super::super) const NOT: u16 = 0x80;
    pub(in super::super) const DEREF_OF: u16 = 0x83;
    pub(in super::super) const MOD: u16 = 0x85;
    pub(in super::super) const SIZE_OF: u16 = 0x87;
    pub(in super::super) const INDEX: u16 = 0x88;
    pub(in super::super) const CREATE_DWORD: u16 = 0x8a;
    pub(in super::super) const CREATE_WORD: u16 = 0x8b;
    pub(in super::super) const CREATE_BYTE: u16 = 0x8c;
    pub(in super::super) const CREATE_BIT: u16 = 0x8d;
    pub(in super::super) const CREATE_QWORD: u16 = 0x8f;
    pub(in super::super) const LOGICAL_AND: u16 = 0x90;
    pub(in super::super) const LOGICAL_OR: u16 = 0x91;
    pub(in super::super) const LOGICAL_NOT: u16 = 0x92;
    pub(in super::super) const EQUAL: u16 = 0x93;
    pub(in super::super) const GREATER: u16 = 0x94;
    pub(in super::super) const LESS: u16 = 0x95;
    pub(in super::super) const TO_BUFFER: u16 = 0x96; // then ToDecimalString, ToHexString
    pub(in super::super) const TO_INTEGER: u16 = 0x99;
    pub(in super::super) const IF: u16 = 0xa0;
    pub(in super::super) const ELSE: u16 = 0xa1;
    pub(in super::super) const WHILE: u16 = 0xa2;
    pub(in super::super) const NOOP: u16 = 0xa3;
    pub(in super::super) const RETURN: u16 = 0xa4;
    pub(in super::super) const MUTEX: u16 = 0x5b01;
    pub(in super::super) const EVENT: u16 = 0x5b02;
    pub(in super::super) const CREATE_FIELD: u16 = 0x5b13;
    pub(in super::super) const REVISION: u16 = 0x5b30;
    pub(in super::super) const REGION: u16 = 0x5b80;
    pub(in super::super) const FIELD: u16 = 0x5b81;
    pub(in super::super) const DEVICE: u16 = 0x5b82;
    pub(in super::super) const PROCESSOR: u16 = 0x5b83;
    pub(in super::super) const POWER_RESOURCE: u16 = 0x5b84;
    pub(in super::super) const THERMAL_ZONE: u16 = 0x5b85;
    pub(in super::super) const INDEX_FIELD: u16 = 0x5b86;
    pub(in super::super) const BANK_FIELD: u16 = 0x5b87;
    pub(in super::super) const DATA_REGION: u16 = 0x5b88;
    /// A named element of a field list; no opcode of AML.
    pub(in super::super) const FIELD_UNIT: u16 = 0xffff;
}
