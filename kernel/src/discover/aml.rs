//! A reader of the ACPI namespace: which objects a set of definition blocks declares, and those values that are constant.
//!
//! It is not an interpreter. It walks the declarations of ACPI 6.5 §20.2 (`Scope`, `Device`, `Name`, `Method`, fields...),
//! knows the extent of everything that carries a `PkgLength`, and never executes a method. What it cannot read it reports:
//! a [`Skipped`] with the bytes that were passed over, or a [`NotConstant`] for a value that only running AML could tell.
//! It never guesses either.
//!
//! It is total. Every byte is hostile input; there is no recursion, no allocation and no panic. Each step of a walk consumes
//! input, nesting is bounded by [`DEPTH`], and all walks of one [`Namespace`] together draw on a budget of steps
//! proportional to the bytes of AML, so that even tables made for the purpose cannot make it slow.

use core::cell::Cell;
use core::fmt;

use encoding::{Reader, Term, op};
use name::{is_segment, predefined};

mod encoding;
mod name;

pub use encoding::{Package, Value};
pub use name::{Id, NameString, Path, SEGMENTS};

/// Packages that may be open at once; what is nested deeper is skipped with [`Unread::Depth`].
pub const DEPTH: usize = 16;
/// Names that may lead to one another (`Return (A)`, `Name (A, B)`...) before a value is given up.
const REFERENCES: usize = 8;
/// Steps allowed per byte of AML, over all walks; and a floor for small tables.
const STEPS_PER_BYTE: u64 = 16;
const STEPS_AT_LEAST: u64 = 1 << 16;

/// The objects that a machine's definition blocks declare.
#[derive(Debug)]
pub struct Namespace<'a> {
    blocks: &'a [&'a [u8]],
    steps: Cell<u64>,
    limit: u64,
}

impl<'a> Namespace<'a> {
    /// The namespace of these definition blocks: the AML after each table's 36-byte header, DSDT first.
    #[must_use]
    pub fn new(blocks: &'a [&'a [u8]]) -> Self {
        let bytes = blocks
            .iter()
            .fold(0_u64, |sum, block| sum.saturating_add(block.len() as u64));
        let limit = bytes.saturating_mul(STEPS_PER_BYTE).max(STEPS_AT_LEAST);
        Self {
            blocks,
            steps: Cell::new(0),
            limit,
        }
    }

    /// The definition blocks.
    #[must_use]
    pub fn blocks(&self) -> &'a [&'a [u8]] {
        self.blocks
    }

    /// Walks all declarations in the order of the tables.
    #[must_use]
    pub fn entries(&self) -> Entries<'_, 'a> {
        Entries {
            search: true,
            ..self.plain_entries()
        }
    }

    /// All declared objects, without what was skipped.
    pub fn objects(&self) -> impl Iterator<Item = Object<'a>> {
        self.entries().filter_map(Entry::object)
    }

    /// What a walk skips that looks for objects whose last segment is one of these.
    pub(super) fn skipped_for<'n>(
        &'n self,
        segments: &'n [[u8; 4]],
    ) -> impl Iterator<Item = Skipped<'a>> + use<'n, 'a> {
        let entries = Entries {
            wanted: Some(segments),
            ..self.entries()
        };
        entries.filter_map(Entry::skipped)
    }

    /// The declared objects whose last segment is one of these.
    fn objects_named<'n>(
        &'n self,
        segments: &'n [[u8; 4]],
    ) -> impl Iterator<Item = Object<'a>> + use<'n, 'a> {
        let entries = Entries {
            wanted: Some(segments),
            ..self.entries()
        };
        let is_named = |object: &Object<'a>| {
            let last = object.path.last();
            last.is_some_and(|last| segments.contains(last))
        };
        entries.filter_map(Entry::object).filter(is_named)
    }

    /// The object at `path`. Where tables declare it twice the first declaration counts, as for an interpreter.
    #[must_use]
    pub fn find(&self, path: &Path) -> Option<Object<'a>> {
        let [found] = self.find_each([*path]);
        found
    }

    /// The objects at all of these paths, by one walk. The root is none.
    #[must_use]
    pub fn find_each<const N: usize>(&self, paths: [Path; N]) -> [Option<Object<'a>>; N] {
        let mut found = [None; N];
        let segments = paths.map(|path| path.last().copied().unwrap_or_default());
        self.find_all(&paths, &segments, &mut found);
        found
    }

    /// Not generic, so that the image has the walk once.
    #[inline(never)]
    fn find_all(&self, paths: &[Path], segments: &[[u8; 4]], found: &mut [Option<Object<'a>>]) {
        let mut missing = paths.iter().filter(|path| !path.is_root()).count();
        for object in self.objects_named(segments) {
            for (path, found) in paths.iter().zip(&mut *found) {
                // Their lengths are compared with less ado.
                if object.path.len() == path.len() && object.path == *path && found.is_none() {
                    *found = Some(object);
                    missing -= 1;
                }
            }
            if missing == 0 {
                break;
            }
        }
    }

    /// Hardware identifiers (`_HID`, `_CID`) with the path of the device that bears them, one by one. An identifier that
    /// only running AML could tell is left out, and so is the only one of a device that is not `wanted`: it need not be known
    /// whether code could change that.
    pub fn identifiers<'n>(
        &'n self,
        wanted: &'n dyn Fn(&Id<'_>) -> bool,
    ) -> impl Iterator<Item = (Path, Id<'a>)> + use<'n, 'a> {
        const NAMES: &[[u8; 4]] = &[*b"_HID", *b"_CID"];
        self.objects_named(NAMES)
            .filter(move |object| !object.is_plainly(&|id| !wanted(id)))
            .filter_map(|object| Some((object.path.parent()?, self.evaluate(&object).ok()?)))
            .flat_map(|(path, value)| value.ids().map(move |id| (path, id)))
    }

    /// The value of a `Name`, or of a `Method` that does nothing but return a constant or a named constant.
    ///
    /// # Errors
    ///
    /// [`NotConstant`] says why the value cannot be known without an interpreter.
    pub fn evaluate(&self, object: &Object<'a>) -> Result<Value<'a>, NotConstant> {
        let mut object = *object;
        for _ in 0..REFERENCES {
            let value = match object.kind {
                Kind::Name => self.named(&object)?,
                Kind::Method => self.returned(&object)?,
                _ => return Err(NotConstant::Computed(object.path)),
            };
            let Value::Reference(name) = value else {
                return if matches!(value, Value::Computed) {
                    Err(NotConstant::Computed(object.path))
                } else {
                    Ok(value)
                };
            };
            // A method is the scope of its own body; anything else lies in its parent's.
            let scope = if object.kind == Kind::Method {
                Some(object.path)
            } else {
                object.path.parent()
            };
            object = self
                .resolve(&scope.unwrap_or(Path::ROOT), &name)
                .ok_or(NotConstant::Missing(object.path))?;
        }
        Err(NotConstant::References(object.path))
    }

    /// The sleep type values to write to `SLP_TYPa` and `SLP_TYPb` (0..=7) to enter S5, from `\_S5_` (ACPI 6.5 §7.4.2).
    #[must_use]
    pub fn soft_off(&self) -> Option<(u8, u8)> {
        let object = self.find(&Path::ROOT.child(*b"_S5_")?)?;
        let Value::Package(package) = self.evaluate(&object).ok()? else {
            return None;
        };
        let mut types = package.values().map(|value| match value {
            Value::Integer(number) => u8::try_from(number).ok().filter(|number| *number <= 7),
            _ => None,
        });
        Some((types.next()??, types.next()??))
    }

    /// Steps taken so far by everything asked of this namespace.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Steps that may be taken before every walk ends with [`Unread::Budget`].
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether the budget is spent. From then on objects are missed, so that an absence means nothing.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.steps.get() > self.limit
    }

    /// The object a name means when used in `scope`: a single segment is searched for upwards (ACPI 6.5 §5.3), anything
    /// longer or prefixed is taken as it stands.
    #[must_use]
    pub fn resolve(&self, scope: &Path, name: &NameString<'a>) -> Option<Object<'a>> {
        let Some(segment) = name.lone_segment() else {
            return self.find(&name.resolve(scope)?);
        };
        let mut nearest: Option<Object<'a>> = None;
        for object in self.objects_named(&[segment]) {
            let candidate = object
                .path
                .parent()
                .is_some_and(|parent| scope.starts_with(&parent))
                && nearest.is_none_or(|nearest| object.path.len() > nearest.path.len());
            if candidate {
                nearest = Some(object);
            }
        }
        nearest
    }

    /// What `Scope (segment)` opens inside `scope`: the nearest enclosing declaration of that name, else a child.
    ///
    /// The declarations are walked without this search, so that one walk never starts a second level of others.
    fn resolve_scope(&self, scope: &Path, segment: [u8; 4]) -> Option<Path> {
        let child = scope.child(segment)?;
        let mut nearest: Option<Path> = None;
        let entries = Entries {
            wanted: Some(&[segment]),
            ..self.plain_entries()
        };
        for object in entries
            .filter_map(Entry::object)
            .filter(|object| object.kind.is_scope())
        {
            if object.path == child {
                return Some(child);
            }
            let encloses = object.path.last() == Some(&segment)
                && object
                    .path
                    .parent()
                    .is_some_and(|parent| scope.starts_with(&parent));
            if encloses && nearest.is_none_or(|nearest| object.path.len() > nearest.len()) {
                nearest = Some(object.path);
            }
        }
        nearest.or_else(|| predefined(segment)).or(Some(child))
    }

    fn plain_entries(&self) -> Entries<'_, 'a> {
        Entries {
            namespace: self,
            blocks: self.blocks,
            frames: [Frame::EMPTY; DEPTH],
            open: 0,
            search: false,
            wanted: None,
        }
    }

    /// The value a `Name` was declared with, unless code beside it could change it before anyone asks.
    fn named(&self, object: &Object<'a>) -> Result<Value<'a>, NotConstant> {
        let segment = object.path.last().copied().unwrap_or_default();
        // Passing over sixteen bytes costs about what a step of a walk does.
        if !self.charge(1 + object.scope.len() as u64 / 16) {
            return Err(NotConstant::Budget);
        }
        let value = Reader(object.body)
            .value()
            .map_err(|_| NotConstant::Computed(object.path))?;
        if may_be_modified(object.scope, segment) {
            Err(NotConstant::Computed(object.path))
        } else {
            Ok(value)
        }
    }

    /// What a method returns, if all it does is to declare names and return.
    fn returned(&self, method: &Object<'a>) -> Result<Value<'a>, NotConstant> {
        let computed = |_| NotConstant::Computed(method.path);
        let mut body = Reader(method.body);
        body.byte().map_err(computed)?; // MethodFlags
        let statements = body;
        loop {
            if !self.charge(1) {
                return Err(NotConstant::Budget);
            }
            match body.opcode().map_err(computed)? {
                op::NOOP => {}
                op::NAME => {
                    body.name().map_err(computed)?;
                    body.value().map_err(computed)?;
                }
                op::RETURN => break,
                _ => return Err(NotConstant::Computed(method.path)),
            }
        }
        let value = body.value().map_err(computed)?;
        let Value::Reference(name) = value else {
            return Ok(value);
        };
        let Some(segment) = name.lone_segment() else {
            return Ok(value);
        };
        Ok(Locals(statements)
            .find(|(local, _)| *local == segment)
            .map_or(value, |(_, value)| value))
    }

    /// Takes steps from the budget; false when it is spent.
    fn charge(&self, steps: u64) -> bool {
        self.steps.set(self.steps.get().saturating_add(steps));
        !self.is_spent()
    }
}

/// A walk over all declarations; see [`Namespace::entries`].
#[derive(Debug)]
pub struct Entries<'n, 'a> {
    namespace: &'n Namespace<'a>,
    /// Blocks not yet begun.
    blocks: &'a [&'a [u8]],
    frames: [Frame<'a>; DEPTH],
    /// Frames in use, from the first.
    open: usize,
    /// Whether `Scope (NAME)` is searched for; a walk that serves such a search does not start another.
    search: bool,
    /// The last segments of the objects that matter: passing over the others is much faster.
    wanted: Option<&'n [[u8; 4]]>,
}

/// One stop of a walk.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// An object is declared here.
    Object(Object<'a>),
    /// Bytes were passed over without being read.
    Skipped(Skipped<'a>),
}

/// A declared object.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Its absolute name.
    pub path: Path,
    /// What it is.
    pub kind: Kind,
    /// `Name`: its data. `Method`: flags and body. Otherwise unused.
    body: &'a [u8],
    /// All of the package, or block, in which the declaration stands.
    scope: &'a [u8],
}

/// The kinds of object the reader tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Device`.
    Device,
    /// `Processor`, deprecated in favour of `Device` since ACPI 6.0.
    Processor,
    /// `PowerResource`.
    PowerResource,
    /// `ThermalZone`.
    ThermalZone,
    /// `Name`: a value given in the table.
    Name,
    /// `Method`: a value computed by AML.
    Method,
    /// A field of an operation region or buffer: a value read from hardware or computed.
    Field,
    /// `Alias`, `Mutex`, `Event`, `OperationRegion`, `DataTableRegion`: nothing that has a constant value.
    Other,
}

/// Bytes that a walk passed over.
#[derive(Clone, Copy, Debug)]
pub struct Skipped<'a> {
    /// The scope in which they stand.
    pub scope: Path,
    /// Why they were not read.
    pub why: Unread,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Why a part of a definition block was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The body of an `If`, `Else` or `While` outside a method: only running AML tells whether it counts.
    Conditional,
    /// Not a declaration that the reader knows; extended opcodes are 0x5b00 to 0x5bff. The rest of the package is lost.
    Opcode(u16),
    /// A length that leads out of the enclosing package, or a package that ends too early.
    Length,
    /// Bytes that are no name where a name must stand, or a name that leads above the root or beyond [`SEGMENTS`].
    Name,
    /// More than [`DEPTH`] open packages.
    Depth,
    /// The budget of steps is spent; everything after this is lost.
    Budget,
}

/// Why a value cannot be known by reading alone. Each names the object at which reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConstant {
    /// The value is the outcome of code, or code beside it could change it.
    Computed(Path),
    /// It refers to a name that no table declares.
    Missing(Path),
    /// It refers to a name that refers to a name... too many times.
    References(Path),
    /// The namespace's budget of steps is spent.
    Budget,
}

impl<'a> Iterator for Entries<'_, 'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let Some(top) = self.open.checked_sub(1) else {
                let (block, later) = self.blocks.split_first()?;
                self.blocks = later;
                self.enter(Frame {
                    rest: Reader(block),
                    all: block,
                    path: Path::ROOT,
                    fields: false,
                });
                continue;
            };
            let frame = self.frames.get_mut(top)?;
            if frame.rest.0.is_empty() {
                self.open = top;
                continue;
            }
            if !self.namespace.charge(1) {
                let lost = frame.lost(Unread::Budget);
                self.open = 0;
                self.blocks = &[];
                return Some(Entry::Skipped(lost));
            }
            // The extent first: what goes wrong within it loses only it, what has no extent loses the rest of the package.
            let before = frame.rest;
            let declaration = if frame.fields {
                frame.rest.field()
            } else {
                frame.rest.term()
            };
            let declaration = match declaration {
                Ok(declaration) => declaration,
                Err(why) => {
                    frame.rest = before;
                    let lost = frame.lost(why);
                    frame.rest = Reader(&[]);
                    return Some(Entry::Skipped(lost));
                }
            };
            let declared = match declaration.name {
                Some(name) if !name.is_wanted(self.wanted) => continue,
                Some(name) => frame.leaf(&name, &declaration).map(Some),
                None if frame.fields => continue,
                None => self.declare(top, &declaration),
            };
            match declared {
                Ok(None) => {}
                Ok(Some(object)) => return Some(Entry::Object(object)),
                Err(why) => {
                    let frame = self.frames.get(top)?;
                    return Some(Entry::Skipped(Skipped {
                        bytes: declaration.body,
                        ..frame.lost(why)
                    }));
                }
            }
        }
    }
}

impl<'a> Entries<'_, 'a> {
    /// Enters what the declaration in this frame opens and tells which object it makes, if any that is wanted.
    #[inline]
    fn declare(
        &mut self,
        top: usize,
        declaration: &Term<'a>,
    ) -> Result<Option<Object<'a>>, Unread> {
        let Some(frame) = self.frames.get(top) else {
            return Ok(None);
        };
        let all = frame.all;
        let mut body = Reader(declaration.body);
        let object = |path, kind, body: Reader<'a>| {
            Ok(Some(Object {
                path,
                kind,
                body: body.0,
                scope: all,
            }))
        };
        let scope = |path, rest: Reader<'a>| Frame {
            rest,
            all: rest.0,
            path,
            fields: false,
        };
        match declaration.opcode {
            op::SCOPE => {
                let name = body.name()?;
                let path = match name.lone_segment() {
                    Some(segment) if !frame.path.is_root() => self.open_scope(&frame.path, segment),
                    _ => name.resolve(&frame.path),
                };
                self.try_enter(scope(path.ok_or(Unread::Name)?, body))?;
                Ok(None)
            }
            op::DEVICE | op::PROCESSOR | op::POWER_RESOURCE | op::THERMAL_ZONE => {
                let name = body.name()?;
                let path = name.resolve(&frame.path).ok_or(Unread::Name)?;
                let (kind, fixed) = match declaration.opcode {
                    op::DEVICE => (Kind::Device, 0),
                    op::PROCESSOR => (Kind::Processor, 6), // ProcID, PblkAddr, PblkLen
                    op::POWER_RESOURCE => (Kind::PowerResource, 3), // SystemLevel, ResourceOrder
                    _ => (Kind::ThermalZone, 0),
                };
                body.take(fixed)?;
                self.try_enter(scope(path, body))?;
                if name.is_wanted(self.wanted) {
                    object(path, kind, body)
                } else {
                    Ok(None)
                }
            }
            op::METHOD => {
                let name = body.name()?;
                if !name.is_wanted(self.wanted) {
                    return Ok(None);
                }
                let path = name.resolve(&frame.path).ok_or(Unread::Name)?;
                object(path, Kind::Method, body)
            }
            op::FIELD | op::INDEX_FIELD | op::BANK_FIELD => {
                body.name()?;
                match declaration.opcode {
                    op::INDEX_FIELD => drop(body.name()?),
                    op::BANK_FIELD => {
                        body.name()?;
                        body.operand()?;
                    }
                    _ => {}
                }
                body.byte()?; // FieldFlags
                let path = frame.path;
                self.try_enter(Frame {
                    fields: true,
                    ..scope(path, body)
                })?;
                Ok(None)
            }
            // Compilers wrap declarations of foreign names in `If (Zero)`, for interpreters older than `External`.
            op::IF if declaration.body.first() == Some(&0) => Ok(None),
            op::IF | op::ELSE | op::WHILE => Err(Unread::Conditional),
            _ => Ok(None), // External, Noop: nothing is declared
        }
    }

    fn open_scope(&self, scope: &Path, segment: [u8; 4]) -> Option<Path> {
        if self.search {
            self.namespace.resolve_scope(scope, segment)
        } else {
            predefined(segment).or_else(|| scope.child(segment))
        }
    }

    fn try_enter(&mut self, frame: Frame<'a>) -> Result<(), Unread> {
        if self.enter(frame) {
            Ok(())
        } else {
            Err(Unread::Depth)
        }
    }

    fn enter(&mut self, frame: Frame<'a>) -> bool {
        let Some(free) = self.frames.get_mut(self.open) else {
            return false;
        };
        *free = frame;
        self.open += 1;
        true
    }
}

/// A package that a walk has entered.
#[derive(Clone, Copy, Debug)]
struct Frame<'a> {
    /// What of it is still to be read.
    rest: Reader<'a>,
    all: &'a [u8],
    path: Path,
    /// It is a list of field units, not of terms.
    fields: bool,
}

impl<'a> Frame<'a> {
    /// All that is still to be read, given up.
    fn lost(&self, why: Unread) -> Skipped<'a> {
        Skipped {
            scope: self.path,
            why,
            bytes: self.rest.0,
        }
    }

    /// The object that a declaration without a `PkgLength` makes.
    fn leaf(&self, name: &NameString<'a>, declaration: &Term<'a>) -> Result<Object<'a>, Unread> {
        Ok(Object {
            path: name.resolve(&self.path).ok_or(Unread::Name)?,
            kind: match declaration.opcode {
                op::NAME => Kind::Name,
                op::ALIAS | op::MUTEX | op::EVENT | op::REGION | op::DATA_REGION => Kind::Other,
                _ => Kind::Field,
            },
            body: declaration.data,
            scope: self.all,
        })
    }

    const EMPTY: Self = Self {
        rest: Reader(&[]),
        all: &[],
        path: Path::ROOT,
        fields: false,
    };
}

impl<'a> Object<'a> {
    /// Whether it is declared with one identifier and nothing else, of which `such` holds. Whether code could change it, is not
    /// looked for.
    #[inline(never)]
    fn is_plainly(&self, such: &dyn Fn(&Id<'a>) -> bool) -> bool {
        let value = Reader(self.body).value().ok();
        let id = value
            .filter(|_| self.kind == Kind::Name)
            .and_then(Value::id);
        id.is_some_and(|id| such(&id))
    }
}

impl<'a> Entry<'a> {
    /// The declared object, if this is one.
    #[must_use]
    pub fn object(self) -> Option<Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            Self::Skipped(_) => None,
        }
    }

    /// What was skipped, if this is that.
    #[must_use]
    pub fn skipped(self) -> Option<Skipped<'a>> {
        match self {
            Self::Object(_) => None,
            Self::Skipped(skipped) => Some(skipped),
        }
    }
}

impl Kind {
    /// Whether `Scope` may reopen it.
    fn is_scope(self) -> bool {
        matches!(
            self,
            Self::Device | Self::Processor | Self::PowerResource | Self::ThermalZone
        )
    }
}

/// Whether code in `scope` could change the object that `segment` names there: it occurs other than to be declared or
/// returned, for example in `CreateDWordField` or `Store`. Bytes that merely look like the name count too: better refused
/// than guessed.
fn may_be_modified(scope: &[u8], segment: [u8; 4]) -> bool {
    let mut uses = scope
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == segment);
    uses.any(|(at, _)| !scope.get(..at).is_some_and(declares_or_returns))
}

/// Whether these bytes end in what comes before a name that is declared (`Name`, `Method`) or returned.
fn declares_or_returns(before: &[u8]) -> bool {
    let mut before = before;
    // Leading segments of the same name, then its prefixes.
    for _ in 0..SEGMENTS {
        match before {
            [rest @ .., _, _, _, _] if before.last_chunk().copied().is_some_and(is_segment) => {
                before = rest;
            }
            _ => break,
        }
    }
    let before = match before {
        [rest @ .., 0x2e] | [rest @ .., 0x2f, _] => rest,
        other => other,
    };
    let prefixes = before
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b'\\' | b'^'))
        .count();
    match before.get(..before.len() - prefixes).unwrap_or_default() {
        // The last byte of a constant, in `Store (constant, NAME)`.
        [.., 0x70, 0x0a, _]
        | [.., 0x70, 0x0b, _, _]
        | [.., 0x70, 0x0c, _, _, _, _]
        | [.., 0x70, 0x0e, _, _, _, _, _, _, _, _] => false,
        // NameOp, ReturnOp, or MethodOp and a PkgLength of one to four bytes.
        [.., 0x08 | 0xa4]
        | [.., 0x14, 0x00..=0x3f]
        | [.., 0x14, 0x40..=0x7f, _]
        | [.., 0x14, 0x80..=0xbf, _, _]
        | [.., 0x14, 0xc0..=0xff, _, _, _] => true,
        _ => false,
    }
}

/// The names that a method declares before its first other statement, with their values.
struct Locals<'a>(Reader<'a>);

impl<'a> Iterator for Locals<'a> {
    type Item = ([u8; 4], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.opcode().ok()? {
                op::NOOP => {}
                op::NAME => {
                    let (name, value) = (self.0.name().ok()?, self.0.value().ok()?);
                    if let Some(segment) = name.lone_segment() {
                        return Some((segment, value));
                    }
                }
                _ => return None,
            }
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conditional => f.write_str("a conditional block, which needs an interpreter"),
            Self::Opcode(opcode) => write!(f, "code after the unknown opcode {opcode:#x}"),
            Self::Length => f.write_str("a package with a wrong length"),
            Self::Name => f.write_str("a package with a malformed or too long name"),
            Self::Depth => f.write_str("packages nested too deep"),
            Self::Budget => f.write_str("tables that take too long to read"),
        }
    }
}

impl fmt::Display for NotConstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computed(path) => write!(f, "{path} is computed, which needs an interpreter"),
            Self::Missing(path) => write!(f, "{path} refers to an object that is not declared"),
            Self::References(path) => write!(f, "{path} is at the end of too many references"),
            Self::Budget => f.write_str("the tables take too long to read"),
        }
    }
}

impl core::error::Error for Unread {}
impl core::error::Error for NotConstant {}
