//! The code that notifies a device (`Notify`, ACPI 6.5 §19.6.96), found by reading the bodies of methods.

use super::encoding::{Reader, op};
use super::name::NameString;
use super::{Entry, Kind, Namespace, Object, Path, Value};

/// Methods that notify one device, as many as are kept.
const METHODS: usize = 8;

/// What is known of the code that notifies a device.
#[derive(Debug)]
pub struct Notifiers<'n, 'a> {
    namespace: &'n Namespace<'a>,
    device: Path,
    methods: [Option<Object<'a>>; METHODS],
    is_mentioned: bool,
}

impl<'n, 'a> Notifiers<'n, 'a> {
    /// Looks for it in all of the namespace.
    #[must_use]
    #[inline(never)]
    pub fn of(namespace: &'n Namespace<'a>, device: &Path) -> Self {
        let mut all = Self {
            namespace,
            device: *device,
            methods: [None; METHODS],
            is_mentioned: false,
        };
        for entry in namespace.entries() {
            match entry {
                Entry::Object(object) => all.read(&object),
                Entry::Skipped(skipped) => all.is_mentioned |= all.mentions(skipped.bytes),
            }
        }
        // What has been missed may do anything.
        all.is_mentioned |= namespace.is_spent();
        all
    }

    /// Whether running `method` may notify the device, if its first argument, where that is given, has this value. It may do
    /// so itself or by calling a method that does, and whatever it does under another condition than a comparison of that
    /// argument with a constant counts as done.
    #[must_use]
    #[inline(never)]
    pub fn may_run_in(&self, method: &Object<'a>, argument: Option<u64>) -> bool {
        let reached = |at: usize| {
            let before = method.body.get(..at).unwrap_or_default();
            self.can_read(before) && may_reach(method.body, at, argument)
        };
        if self.has_site(method, &reached) {
            return true;
        }
        // A name is taken for a call of every method that ends in it: better one too many than one too few.
        let called = |callee: &Object<'a>| {
            let name = callee.path.last().copied().unwrap_or_default();
            let mut names = method.body.windows(4).enumerate();
            self.can_read(method.body) && names.any(|(at, window)| *window == name && reached(at))
        };
        self.methods.iter().flatten().any(called)
    }

    /// Whether there is code that has to do with the device, which reading does not show to be run by any event.
    #[must_use]
    pub fn is_mentioned(&self) -> bool {
        self.is_mentioned || self.methods.iter().any(Option::is_some)
    }

    fn read(&mut self, object: &Object<'a>) {
        let is_method = object.kind == Kind::Method;
        let is_found = is_method && self.has_site(object, &|_| true);
        let free = self.methods.iter_mut().find(|place| place.is_none());
        if let (true, Some(place)) = (is_found, free) {
            *place = Some(*object);
            return;
        }
        // What a device says of itself does not notify it, and that it is declared somewhere does not either.
        let is_own = object.path.starts_with(&self.device);
        let may_refer = is_method || matches!(object.kind, Kind::Name | Kind::Other);
        self.is_mentioned |= is_found || may_refer && !is_own && self.mentions(object.body);
    }

    fn mentions(&self, bytes: &[u8]) -> bool {
        let name = self.device.last();
        // When the budget is spent, that is noted at the end.
        let name = name.filter(|_| self.can_read(bytes));
        name.is_some_and(|name| bytes.windows(4).any(|window| window == name))
    }

    /// Whether a method notifies the device at an offset in its body of which `such` holds.
    #[inline(never)]
    fn has_site(&self, method: &Object<'a>, such: &dyn Fn(usize) -> bool) -> bool {
        if !self.can_read(method.body) {
            return false;
        }
        for (at, code) in method.body.iter().enumerate() {
            if *code != NOTIFY {
                continue;
            }
            if !self.namespace.charge(1) {
                break;
            }
            let mut target = Reader(method.body.get(at + 1..).unwrap_or_default());
            let target = target.name();
            if target.is_ok_and(|name| self.is_target(&method.path, &name)) && such(at) {
                return true;
            }
        }
        false
    }

    /// Takes from the budget what passing over so many bytes costs.
    fn can_read(&self, bytes: &[u8]) -> bool {
        self.namespace.charge(1 + bytes.len() as u64 / 16)
    }

    /// Whether a name means the device where it is used in `scope`.
    fn is_target(&self, scope: &Path, name: &NameString<'a>) -> bool {
        match name.lone_segment() {
            Some(segment) => {
                let object = || self.namespace.resolve(scope, name);
                self.device.last() == Some(&segment)
                    && object().is_some_and(|object| object.path == self.device)
            }
            None => name.resolve(scope) == Some(self.device),
        }
    }
}

/// `NotifyOp`.
const NOTIFY: u8 = 0x86;

/// Whether what stands at `at` may be run with this argument: no `If` around it compares `Arg0` with another constant.
fn may_reach(body: &[u8], at: usize, argument: Option<u64>) -> bool {
    let Some(argument) = argument else {
        return true;
    };
    let before = body.get(..at).unwrap_or_default().iter().enumerate();
    let mut conditions = before.filter(|(_, code)| u16::from(**code) == op::IF);
    conditions.all(|(start, _)| {
        let package = body.get(start + 1..).unwrap_or_default();
        condition(package, at - start - 1).is_none_or(|constant| constant == argument)
    })
}

/// What `Arg0` has to be equal to by the `If` whose length stands here, if it encloses what is `within` bytes from here.
fn condition(bytes: &[u8], within: usize) -> Option<u64> {
    let mut rest = Reader(bytes);
    let mut inside = rest.package().ok()?;
    if within >= bytes.len() - rest.0.len() || inside.opcode().ok()? != op::EQUAL {
        return None;
    }
    let argument = |reader: &mut Reader<'_>| reader.opcode().ok() == Some(op::ARG_0);
    let constant = |reader: &mut Reader<'_>| match reader.value() {
        Ok(Value::Integer(constant)) => Some(constant),
        _ => None,
    };
    let mut turned = inside;
    if argument(&mut inside) {
        return constant(&mut inside);
    }
    constant(&mut turned).filter(|_| argument(&mut turned))
}
