//! Which way filesystems are layered, and what the kernel allows.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use kiln_sys::mount::{self, Attrs, Dir, OverlayOptions};

use crate::SnapshotError;
use crate::error::Result;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// Overlayfs where it works, copies elsewhere.
    #[default]
    Auto,
    /// Overlayfs; refused where it does not work.
    Overlay,
    /// Whole copies.
    Native,
}

/// What is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Overlayfs. `userxattr` in a user namespace, where `trusted.*` attributes cannot be set.
    Overlay {
        /// See overlayfs.rst, "User xattr".
        userxattr: bool,
    },
    /// Every snapshot is a whole tree.
    Native,
}

impl Driver {
    /// The worker label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay { .. } => "overlayfs",
            Self::Native => "native",
        }
    }

    /// The attribute that makes a directory opaque.
    pub(crate) fn opaque_xattr(self) -> &'static str {
        match self {
            Self::Overlay { userxattr: true } => "user.overlay.opaque",
            _ => "trusted.overlay.opaque",
        }
    }
}

/// Decides by trying a mount in `root`.
pub(crate) fn choose(choice: DriverChoice, root: &Path) -> Result<Driver> {
    if choice == DriverChoice::Native {
        return Ok(Driver::Native);
    }
    let userxattr = in_user_namespace();
    match probe(root, userxattr) {
        Ok(()) => Ok(Driver::Overlay { userxattr }),
        Err(reason) if choice == DriverChoice::Overlay => {
            Err(SnapshotError::NoOverlay { root: root.display().to_string(), reason })
        }
        Err(reason) => {
            tracing::info!(%reason, "overlayfs does not work here, snapshots are whole copies");
            Ok(Driver::Native)
        }
    }
}

/// Mounts an overlay and writes through it; all of it goes with the descriptors.
fn probe(root: &Path, userxattr: bool) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let dir = root.join(format!("probe-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.join(name));
    let result = (|| {
        for path in [&lower, &upper, &work] {
            std::fs::create_dir_all(path).map_err(|e| text(&e))?;
        }
        std::fs::write(lower.join("file"), "x").map_err(|e| text(&e))?;
        let options =
            OverlayOptions { userxattr, volatile: true, attrs: Attrs::default(), scratch: Some(&dir) };
        let mount =
            mount::overlay(&[Dir::Path(&lower)], Some((Dir::Path(&upper), Dir::Path(&work))), &options)
                .map_err(|e| text(&e))?;
        remove_in(&mount, "file").map_err(|e| text(&e))
    })();
    let _ = std::fs::remove_dir_all(&dir);
    result
}

/// Leaves a whiteout, which is what a filesystem that cannot be an upper directory refuses.
fn remove_in(mount: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    rustix::fs::unlinkat(mount.as_fd(), name, rustix::fs::AtFlags::empty())
}

/// Whether this is not the initial user namespace: that one maps everything (user_namespaces(7)).
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_whitespace().collect();
    fields != ["0", "0", "4294967295"]
}
