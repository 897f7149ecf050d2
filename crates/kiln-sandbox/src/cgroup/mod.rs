//! The cgroup of a step, made and removed by the daemon.
//!
//! Joining v1 cgroups costs the kernel several milliseconds, being born in a v2 one next to nothing. So every
//! step gets a v2 cgroup where that hierarchy is mounted and may be written, and v1 ones only for the
//! controllers that have a limit (or a parent was asked for).

mod hierarchy;
mod limits;

use crate::error::SandboxError;
use crate::spec::{Resources, Security};
use crate::wire::{CgroupView, Devices};
pub(crate) use hierarchy::Hierarchies;
use kiln_sys::bpf::{Access, DeviceKind, DeviceRule};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Character devices a sandboxed step may open, runc's list: null, zero, full, random, urandom, tty, ptmx and
/// the terminals of devpts.
const ALLOWED: &[DeviceRule] = &[
    char_device(1, Some(3)),
    char_device(1, Some(5)),
    char_device(1, Some(7)),
    char_device(1, Some(8)),
    char_device(1, Some(9)),
    char_device(5, Some(0)),
    char_device(5, Some(2)),
    char_device(136, None),
];

const fn char_device(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { kind: DeviceKind::Char, major, minor, access: Access::ALL }
}

/// The daemon's own place in the hierarchies.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchies: Hierarchies,
    /// Unique to the state directory, so that leftovers are known.
    name: String,
    parents: Arc<Parents>,
}

/// The v2 directories in which steps get theirs; removed after the last step.
#[derive(Debug, Default)]
struct Parents {
    /// Of sandboxed steps, with the device filter attached.
    sandboxed: Option<PathBuf>,
    /// Of insecure steps, and of those with devices of their own: a filter above them would not let theirs through.
    open: Option<PathBuf>,
    /// Every directory of this daemon's name that there may be, in all hierarchies.
    all: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds the hierarchies, clears what an earlier daemon left and prepares the parents. What is not
    /// permitted is left out: steps then run in the daemon's own cgroup.
    pub(crate) fn prepare(state_dir: &Path, each_step: bool) -> Cgroups {
        let hierarchies = Hierarchies::detect();
        let name = format!("kiln-{:016x}", stable_hash(state_dir.as_os_str().as_encoded_bytes()));
        let all: Vec<PathBuf> = hierarchies.bases().map(|base| base.join(&name)).collect();
        let own = hierarchies.unified_own().filter(|_| each_step);
        let parents = Parents::make(all, own.map(|own| own.join(&name)));
        Cgroups { hierarchies, name, parents: Arc::new(parents) }
    }

    /// Makes the cgroups of one step, which may open `own` devices beside the usual ones.
    pub(crate) fn step(
        &self,
        id: &str,
        security: Security,
        resources: &Resources,
        parent: Option<&str>,
        own: &[DeviceRule],
    ) -> Result<StepCgroup, SandboxError> {
        let wanted = limits::wanted(resources)?;
        let devices = match security {
            Security::Sandbox => Devices::NoDev,
            Security::Insecure => Devices::All { loops: loop_devices() },
        };
        let mut step = StepCgroup::none(devices, self.parents.clone());
        let relative = parent.map(|p| normal(p).join("buildkit"));
        if let Err(e) = self.unified(&mut step, id, security, relative.as_deref(), &wanted, own) {
            // Without limits the cgroup is only a convenience.
            if wanted.iter().any(|c| self.hierarchies.is_unified(c.controller)) {
                return Err(SandboxError::prepare("make a cgroup", e));
            }
            tracing::debug!(id, error = %e, "no cgroup for this step");
        }
        if step.devices == Devices::NoDev && own.iter().any(|rule| rule.access != Access::ALL) {
            self.limit_devices(&mut step, id, relative.as_deref(), own)?;
        }
        for (dir, files) in self.v1_places(id, relative.as_deref(), &wanted)? {
            step.join_v1(dir, &files).map_err(|e| SandboxError::prepare("make a cgroup", e))?;
        }
        if security == Security::Insecure {
            self.join_all_v1(&mut step, id);
        }
        step.view = self.hierarchies.view(&step.v1);
        Ok(step)
    }

    /// Without a v2 filter: what may be done with a device is limited by the v1 controller, or not at all.
    fn limit_devices(
        &self,
        step: &mut StepCgroup,
        id: &str,
        parent: Option<&Path>,
        own: &[DeviceRule],
    ) -> Result<(), SandboxError> {
        let Some(base) = self.hierarchies.v1("devices", parent.is_some()) else {
            let reason = "this machine has no device cgroup that could limit what is done with them";
            return Err(SandboxError::invalid("devices", reason));
        };
        let dir = base.join(parent.unwrap_or(Path::new(&self.name))).join(id);
        let made = step.join_v1(dir, &limits::device_files(&[ALLOWED, own].concat()));
        made.map_err(|e| SandboxError::prepare("limit devices with a cgroup", e))?;
        step.devices = Devices::Filtered;
        Ok(())
    }

    /// An insecure step may make cgroups of its own below its own one in every hierarchy. Where none can be made it
    /// sees none.
    fn join_all_v1(&self, step: &mut StepCgroup, id: &str) {
        for own in self.hierarchies.v1_own() {
            let known = step.v1.iter().any(|made| made.dir.starts_with(own));
            if !known && let Err(error) = step.join_v1(own.join(&self.name).join(id), &[]) {
                tracing::debug!(id, %error, "no cgroup for this step in one hierarchy");
            }
        }
    }

    fn unified(
        &self,
        step: &mut StepCgroup,
        id: &str,
        security: Security,
        parent: Option<&Path>,
        wanted: &[limits::Controller],
        own: &[DeviceRule],
    ) -> io::Result<()> {
        let mine: Vec<_> = wanted.iter().filter(|c| self.hierarchies.is_unified(c.controller)).collect();
        let base = match (parent, security) {
            (Some(parent), _) => self.hierarchies.unified_root().map(|root| root.join(parent)),
            (None, _) if !mine.is_empty() => {
                self.hierarchies.unified_root().map(|root| root.join(&self.name).join("limited"))
            }
            (None, Security::Sandbox) if own.is_empty() => self.parents.sandboxed.clone(),
            (None, _) => self.parents.open.clone(),
        };
        let Some(base) = base else { return Ok(()) };
        fs::create_dir_all(&base)?;
        if !mine.is_empty() {
            let root = self.hierarchies.unified_root().unwrap_or(&base);
            hierarchy::delegate(root, &base, mine.iter().map(|c| c.controller))?;
        }
        let dir = base.join(id);
        fs::create_dir(&dir)?;
        let handle = File::open(&dir)?.into();
        step.unified = Some(Made { dir: dir.clone(), handle });
        if security == Security::Sandbox {
            // The daemon's own parent carries the filter already.
            let filtered = Some(&base) == self.parents.sandboxed.as_ref() || filter(&dir, own).is_ok();
            step.devices = if filtered { Devices::Filtered } else { Devices::NoDev };
        }
        for (file, value) in mine.iter().flat_map(|c| &c.v2) {
            write(&dir.join(file), value)?;
        }
        step.counts_oom = mine.iter().any(|c| c.controller == "memory");
        Ok(())
    }

    /// The v1 directories to join, and what is written into each.
    fn v1_places(
        &self,
        id: &str,
        parent: Option<&Path>,
        wanted: &[limits::Controller],
    ) -> Result<Vec<(PathBuf, limits::Files)>, SandboxError> {
        let mut places: Vec<(PathBuf, limits::Files)> = Vec::new();
        for controller in wanted.iter().filter(|c| !self.hierarchies.is_unified(c.controller)) {
            let Some(own) = self.hierarchies.v1(controller.controller, parent.is_some()) else {
                return Err(SandboxError::Invalid {
                    field: "resources",
                    reason: format!("this machine has no {} cgroup controller", controller.controller),
                });
            };
            let dir = own.join(parent.unwrap_or(Path::new(&self.name))).join(id);
            match places.iter_mut().find(|(known, _)| *known == dir) {
                Some((_, files)) => files.extend(controller.v1.iter().cloned()),
                None => places.push((dir, controller.v1.clone())),
            }
        }
        // A parent's own limits count only for members, so its other controllers are joined where it exists.
        if let Some(parent) = parent {
            for dir in self.hierarchies.v1_roots().map(|root| root.join(parent)) {
                let asked = dir.parent().is_some_and(Path::is_dir);
                if asked && !places.iter().any(|(known, _)| known.starts_with(&dir)) {
                    places.push((dir.join(id), Vec::new()));
                }
            }
        }
        Ok(places)
    }
}

impl Parents {
    /// Clears what an earlier daemon left in `all` and makes the parents below `base` anew.
    fn make(all: Vec<PathBuf>, base: Option<PathBuf>) -> Parents {
        all.iter().for_each(|dir| clear(dir));
        let Some(base) = base else { return Parents { sandboxed: None, open: None, all } };
        let made = |leaf: &str| {
            let dir = base.join(leaf);
            fs::create_dir_all(&dir).map(|()| dir)
        };
        let sandboxed = made("sandbox").and_then(|dir| filter(&dir, &[]).map(|()| dir));
        if let Err(error) = &sandboxed {
            tracing::debug!(%error, "no cgroup with a device filter; steps get nodev mounts");
        }
        Parents { sandboxed: sandboxed.ok(), open: made("insecure").ok(), all }
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        // Every step is gone by now; what is missing was never made.
        self.all.iter().for_each(|dir| clear(dir));
    }
}

/// One directory and, for v2, its handle to be born in; for v1, its opened `cgroup.procs`.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) dir: PathBuf,
    pub(crate) handle: OwnedFd,
}

/// The cgroups of one step; removed when dropped, by which time its processes must be gone or going.
#[derive(Debug)]
pub(crate) struct StepCgroup {
    pub(crate) unified: Option<Made>,
    pub(crate) v1: Vec<Made>,
    pub(crate) devices: Devices,
    pub(crate) view: CgroupView,
    counts_oom: bool,
    parents: Arc<Parents>,
}

impl StepCgroup {
    fn none(devices: Devices, parents: Arc<Parents>) -> StepCgroup {
        let view = CgroupView::None;
        StepCgroup { unified: None, v1: Vec::new(), devices, view, counts_oom: false, parents }
    }

    fn join_v1(&mut self, dir: PathBuf, files: &[(String, String)]) -> io::Result<()> {
        fs::create_dir_all(&dir)?;
        // A new cpuset is empty and nobody can join it before it has got its parent's members.
        hierarchy::inherit_cpuset(&dir)?;
        let handle = File::options().write(true).open(dir.join("cgroup.procs"))?;
        self.v1.push(Made { dir: dir.clone(), handle: handle.into() });
        for (file, value) in files {
            write(&dir.join(file), value)?;
            self.counts_oom |= file.starts_with("memory.");
        }
        Ok(())
    }

    /// How many processes the kernel killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        if !self.counts_oom {
            return 0;
        }
        let count = |dir: &Path, file: &str| {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
        };
        let unified = self.unified.iter().map(|m| count(&m.dir, "memory.events"));
        let v1 = self.v1.iter().map(|m| count(&m.dir, "memory.oom_control"));
        unified.chain(v1).sum()
    }
}

impl Drop for StepCgroup {
    fn drop(&mut self) {
        let mut left: Vec<PathBuf> =
            self.unified.iter().chain(&self.v1).map(|m| m.dir.clone()).filter(|d| !removed(d)).collect();
        if left.is_empty() {
            return;
        }
        // The run was given up and its processes are still on their way out.
        let parents = self.parents.clone();
        let retry = move || {
            let _parents = parents;
            for pause in [1, 5, 20, 100, 500, 2000].map(Duration::from_millis) {
                std::thread::sleep(pause);
                left.retain(|dir| !removed(dir));
                if left.is_empty() {
                    return;
                }
            }
            tracing::warn!(?left, "cgroups of a step could not be removed");
        };
        if let Err(error) = std::thread::Builder::new().name("cgroup-removal".into()).spawn(retry) {
            tracing::warn!(%error, "cgroups of a step were not removed");
        }
    }
}

/// An insecure step may have left cgroups below its own.
fn removed(dir: &Path) -> bool {
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(_) => {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            for entry in below {
                let _ = removed(&entry.path());
            }
            fs::remove_dir(dir).is_ok()
        }
    }
}

/// Kills and removes everything below `base`, which is named after this state directory only.
fn clear(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let _ = fs::write(base.join("cgroup.kill"), "1");
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        clear(&entry.path());
    }
    if !removed(base) {
        std::thread::sleep(Duration::from_millis(5));
        let _ = fs::remove_dir(base);
    }
}

fn filter(dir: &Path, own: &[DeviceRule]) -> io::Result<()> {
    let allowed = [ALLOWED, own].concat();
    kiln_sys::bpf::restrict_devices(File::open(dir)?.as_fd(), &allowed).map_err(io::Error::from)
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value)
        .map_err(|e| io::Error::new(e.kind(), format!("writing {value:?} to {}: {e}", file.display())))
}

/// A cgroup parent as a path that cannot leave the hierarchy: `..` ends at its root.
pub(crate) fn normal(parent: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in Path::new(parent).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            _ => {}
        }
    }
    path
}

/// One more than the machine has in use, with room for those an insecure step makes.
fn loop_devices() -> u32 {
    let highest = fs::read_dir("/sys/block").ok().and_then(|entries| {
        entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.strip_prefix("loop")?.parse::<u32>().ok())
            .max()
    });
    highest.map_or(0, |h| h.saturating_add(1)).clamp(8, 256)
}

/// FNV-1a: the name must stay the same between versions of this program.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_cannot_leave_the_hierarchy() {
        for (given, expected) in [
            ("/a/b", "a/b"),
            ("../../etc", "etc"),
            ("a/../../b", "b"),
            ("a/./b//", "a/b"),
            ("..", ""),
            ("", ""),
        ] {
            assert_eq!(normal(given), Path::new(expected), "{given}");
        }
    }

    #[test]
    fn the_name_is_stable() {
        assert_eq!(stable_hash(b"/var/lib/buildkit"), stable_hash(b"/var/lib/buildkit"));
        assert_eq!(stable_hash(b""), 0xcbf2_9ce4_8422_2325);
    }
}
