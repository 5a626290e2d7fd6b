//! What a service touches, as plain memory: for the tests here, and for `tests/fuzz`.

pub(crate) mod counter;
pub(crate) mod line;
pub(crate) mod wire;
