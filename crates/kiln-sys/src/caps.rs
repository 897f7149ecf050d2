//! Capability sets, and what this process lacks to build.

use crate::error::{Call, Error, Result};
use rustix::thread::{CapabilitySet, CapabilitySets};

pub use rustix::thread::CapabilitySet as Set;

/// What the kernel of this machine knows: all capabilities up to `cap_last_cap`.
///
/// Found through PR_CAPBSET_READ, which answers EINVAL past the last one (capabilities(7)).
pub fn known() -> CapabilitySet {
    let mut all = CapabilitySet::empty();
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if rustix::thread::capability_is_in_bounding_set(one).is_err() {
            break;
        }
        all |= one;
    }
    all
}

/// The bounding set of the calling thread.
pub fn bounding() -> CapabilitySet {
    known()
        .iter_bits()
        .filter(|one| rustix::thread::capability_is_in_bounding_set(*one).unwrap_or(false))
        .fold(CapabilitySet::empty(), |all, one| all | one)
}

/// Iterates over single capabilities, also those this library has no name for.
pub trait IterBits {
    /// Each set bit as a set of its own.
    fn iter_bits(self) -> impl Iterator<Item = CapabilitySet>;
}

impl IterBits for CapabilitySet {
    fn iter_bits(self) -> impl Iterator<Item = CapabilitySet> {
        (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).filter(move |one| self.contains(*one))
    }
}

/// Removes every capability outside `keep` from the bounding set; there is no way back.
///
/// Needs `CAP_SETPCAP`.
pub fn limit_bounding(keep: CapabilitySet) -> Result<()> {
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(one) {
            // Past the last one this kernel knows.
            Err(_) => break,
            Ok(true) if !keep.contains(one) => rustix::thread::remove_capability_from_bounding_set(one)
                .map_err(|e| Error::new(Call::Prctl, format!("PR_CAPBSET_DROP {one:?}"), e))?,
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Keeps the permitted set over a change of all user ids to non-zero (PR_SET_KEEPCAPS); execve(2) clears it.
pub fn keep_over_setuid(keep: bool) -> Result<()> {
    rustix::thread::set_keep_capabilities(keep).map_err(|e| Error::new(Call::Prctl, "PR_SET_KEEPCAPS", e))
}

/// Sets the permitted, effective and inheritable sets of the calling thread.
///
/// The kernel refuses (EPERM) a permitted set that is not part of the present one.
pub fn set(effective: CapabilitySet, permitted: CapabilitySet, inheritable: CapabilitySet) -> Result<()> {
    rustix::thread::set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
        .map_err(|e| Error::new(Call::Capset, "", e))
}

/// The permitted, effective and inheritable sets of the calling thread.
pub fn get() -> Result<CapabilitySets> {
    rustix::thread::capabilities(None).map_err(|e| Error::new(Call::Capget, "", e))
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<()> {
    rustix::thread::clear_ambient_capability_set()
        .map_err(|e| Error::new(Call::Prctl, "PR_CAP_AMBIENT_CLEAR_ALL", e))
}

/// Adds `caps` to the ambient set. They must be permitted and inheritable, else EPERM.
pub fn raise_ambient(caps: CapabilitySet) -> Result<()> {
    for one in caps.iter_bits() {
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .map_err(|e| Error::new(Call::Prctl, format!("PR_CAP_AMBIENT_RAISE {one:?}"), e))?;
    }
    Ok(())
}

/// What this process lacks to run build steps, each as one line for people; empty when it has all.
pub fn missing_for_build() -> Vec<String> {
    let Ok(sets) = get() else { return vec!["the capabilities of this process cannot be read".into()] };
    let need = [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN (mounts and namespaces)"),
        (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT (changing the root)"),
        (CapabilitySet::SETUID, "CAP_SETUID (running steps as another user)"),
        (CapabilitySet::SETGID, "CAP_SETGID (running steps as another group)"),
        (CapabilitySet::SETPCAP, "CAP_SETPCAP (dropping capabilities)"),
        (CapabilitySet::CHOWN, "CAP_CHOWN (owners of files in layers)"),
        (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE (files of other owners)"),
        (CapabilitySet::FOWNER, "CAP_FOWNER (modes and times of files of other owners)"),
        (CapabilitySet::MKNOD, "CAP_MKNOD (whiteouts and /dev)"),
    ];
    let mut missing: Vec<String> = need
        .iter()
        .filter(|(cap, _)| !sets.effective.contains(*cap))
        .map(|(_, text)| (*text).to_owned())
        .collect();
    missing.extend(missing_namespaces());
    missing
}

fn missing_namespaces() -> Vec<String> {
    [("mnt", "mount"), ("pid", "pid"), ("ipc", "IPC"), ("uts", "UTS"), ("net", "network")]
        .iter()
        .filter(|(file, _)| rustix::fs::stat(format!("/proc/self/ns/{file}")).is_err())
        .map(|(_, name)| format!("{name} namespaces (not in this kernel, or /proc is not mounted)"))
        .collect()
}

/// True when this process is not in the machine's first user namespace, where device nodes cannot be made
/// and some mounts are refused.
pub fn in_user_namespace() -> bool {
    // user_namespaces(7): the first namespace maps everything onto itself.
    match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) => map.split_whitespace().ne(["0", "0", "4294967295"]),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_one_by_one() {
        let set = CapabilitySet::CHOWN | CapabilitySet::SYS_ADMIN;
        assert_eq!(set.iter_bits().collect::<Vec<_>>(), [CapabilitySet::CHOWN, CapabilitySet::SYS_ADMIN]);
        assert_eq!(CapabilitySet::empty().iter_bits().count(), 0);
    }

    #[test]
    fn the_kernel_knows_the_named_ones_and_bounding_is_part_of_them() {
        let known = known();
        assert!(known.contains(CapabilitySet::AUDIT_READ));
        assert!(known.contains(bounding()));
    }
}
