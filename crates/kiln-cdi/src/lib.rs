//! Devices of the Container Device Interface (CDI): what the machine offers, and what a step that uses one is given.
//!
//! Vendors describe their devices in files of a few directories (the CDI specification, SPEC.md of
//! cncf-tags/container-device-interface). [`Registry::scan`] reads them anew each time: there are few, and they change
//! while the daemon runs.

#![forbid(unsafe_code)]

mod find;
mod registry;
mod spec;

pub use find::{NotRegistered, Request};
pub use registry::{Device, Devices, Registry};
pub use spec::{DeviceNode, Edits, Hook, HookName, IntelRdt, Mount, NetDevice, NodeKind, Permissions};

#[cfg(test)]
mod tests;
