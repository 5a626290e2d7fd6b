//! What the machine is.
#![no_std]
#![expect(unsafe_code, reason = "machine access lives here so that nothing above needs it")]
