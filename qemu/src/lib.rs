//! Starts QEMU and publishes time into its vmclock page.
