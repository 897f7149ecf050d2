//! Which cgroup hierarchies are mounted, and where in them the daemon is.

use super::Made;
use crate::wire::CgroupView;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// Controllers as in the mount options; empty for v2.
    controllers: Vec<String>,
    mount_point: PathBuf,
    /// The daemon's own directory in it.
    own: PathBuf,
}

/// All hierarchies in sight.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    unified: Option<Hierarchy>,
    /// Controllers the v2 hierarchy has.
    unified_controllers: Vec<String>,
    v1: Vec<Hierarchy>,
}

impl Hierarchies {
    /// Reads the mount table and the daemon's membership; nothing readable means no cgroups.
    pub(super) fn detect() -> Hierarchies {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut found = parse(&mounts, &own);
        if let Some(unified) = &found.unified {
            let list = fs::read_to_string(unified.mount_point.join("cgroup.controllers")).unwrap_or_default();
            found.unified_controllers = list.split_whitespace().map(str::to_owned).collect();
        }
        found
    }

    pub(super) fn unified_root(&self) -> Option<&Path> {
        self.unified.as_ref().map(|h| h.mount_point.as_path())
    }

    pub(super) fn unified_own(&self) -> Option<PathBuf> {
        self.unified.as_ref().map(|h| h.own.clone())
    }

    /// True when the v2 hierarchy has this controller.
    pub(super) fn is_unified(&self, controller: &str) -> bool {
        self.unified_controllers.iter().any(|c| c == controller)
    }

    /// The directory of the v1 controller to make cgroups in: the root, or the daemon's own, whose limits
    /// then go on counting.
    pub(super) fn v1(&self, controller: &str, from_root: bool) -> Option<&Path> {
        let found = self.v1.iter().find(|h| h.controllers.iter().any(|c| c == controller))?;
        Some(if from_root { &found.mount_point } else { &found.own })
    }

    /// Every directory in which this daemon makes one of its own.
    pub(super) fn bases(&self) -> impl Iterator<Item = &Path> {
        let unified = self.unified.iter().flat_map(|h| [h.mount_point.as_path(), h.own.as_path()]);
        unified.chain(self.v1.iter().map(|h| h.own.as_path()))
    }

    /// The daemon's own directory in each v1 hierarchy with controllers.
    pub(super) fn v1_own(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().filter(|h| !h.controllers.is_empty()).map(|h| h.own.as_path())
    }

    pub(super) fn v1_roots(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().filter(|h| !h.controllers.is_empty()).map(|h| h.mount_point.as_path())
    }

    /// What a step in these v1 cgroups sees: their controllers, and v2.
    pub(super) fn view(&self, joined: &[Made]) -> CgroupView {
        if self.v1.is_empty() {
            return if self.unified.is_some() { CgroupView::Unified } else { CgroupView::None };
        }
        let controllers = self
            .v1
            .iter()
            .filter(|h| joined.iter().any(|m| m.dir.starts_with(&h.mount_point)))
            .map(|h| h.controllers.join(","))
            .collect();
        CgroupView::Hybrid { controllers, unified: self.unified.is_some() }
    }
}

/// Lets `controllers` be used in `dir` by switching them on in every cgroup from `root` down to it.
///
/// The kernel refuses (EBUSY) where a cgroup other than the root itself has processes.
pub(super) fn delegate<'a>(
    root: &Path,
    dir: &Path,
    controllers: impl Iterator<Item = &'a str>,
) -> io::Result<()> {
    let list: Vec<String> = controllers.map(|c| format!("+{c}")).collect();
    let mut chain: Vec<&Path> = dir.ancestors().take_while(|a| a.starts_with(root)).collect();
    chain.reverse();
    for cgroup in chain {
        super::write(&cgroup.join("cgroup.subtree_control"), &list.join(" "))?;
    }
    Ok(())
}

/// Copies the members of the parent into every empty cpuset on the way to `dir` (cpusets only).
pub(super) fn inherit_cpuset(dir: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut empty = Vec::new();
        let mut at = dir;
        let value = loop {
            match fs::read_to_string(at.join(file)) {
                Ok(value) if !value.trim().is_empty() => break value,
                Ok(_) => empty.push(at),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            }
            let Some(parent) = at.parent() else { return Ok(()) };
            at = parent;
        };
        for cgroup in empty.into_iter().rev() {
            super::write(&cgroup.join(file), value.trim())?;
        }
    }
    Ok(())
}

/// `mountinfo` and `cgroup` as in proc(5) and cgroups(7).
fn parse(mountinfo: &str, own: &str) -> Hierarchies {
    let mut found = Hierarchies::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut left = left.split(' ');
        let (Some(root), Some(point)) = (left.nth(3), left.next()) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        let (root, mount_point) = (unescape(root), PathBuf::from(unescape(point)));
        match kind {
            "cgroup2" if found.unified.is_none() => {
                let own = own_place(own, &[], &root, &mount_point);
                found.unified = Some(Hierarchy { controllers: Vec::new(), mount_point, own });
            }
            "cgroup" => {
                let controllers: Vec<String> =
                    options.split(',').filter(|o| KNOWN.contains(o)).map(str::to_owned).collect();
                // A named hierarchy limits nothing.
                if !controllers.is_empty() {
                    let own = own_place(own, &controllers, &root, &mount_point);
                    found.v1.push(Hierarchy { controllers, mount_point, own });
                }
            }
            _ => {}
        }
    }
    found
}

/// The v1 controllers, to be told from the other mount options.
const KNOWN: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
    "misc",
];

/// The daemon's directory: its path in the hierarchy, as far as it lies below what is mounted.
fn own_place(own: &str, controllers: &[String], root: &str, mount_point: &Path) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        let path = fields.next()?;
        let listed: Vec<&str> = names.split(',').filter(|n| !n.is_empty()).collect();
        (listed == *controllers).then_some(path)
    });
    match path.and_then(|p| Path::new(p).strip_prefix(root).ok()) {
        // A namespace shows what lies above its root with `..`.
        Some(below) if !below.starts_with("..") => mount_point.join(below),
        _ => mount_point.to_owned(),
    }
}

/// Octal escapes of mountinfo: space, tab, newline, backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
    const OWN: &str = "4:memory:/process/27\n1:cpu,cpuacct:/\n0::/init.scope\n";

    #[test]
    fn hybrid_layout_is_understood() {
        let h = parse(HYBRID, OWN);
        assert_eq!(h.unified_root(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(h.unified_own(), Some(PathBuf::from("/sys/fs/cgroup/unified/init.scope")));
        assert_eq!(h.v1("memory", false), Some(Path::new("/sys/fs/cgroup/memory/process/27")));
        assert_eq!(h.v1("memory", true), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(h.v1("cpuacct", false), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/")));
        assert_eq!(h.v1("pids", false), None);
        assert_eq!(h.v1_roots().count(), 2);
    }

    #[test]
    fn a_bind_mounted_hierarchy_is_understood() {
        let mounts = "50 23 0:29 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(
            parse(mounts, "0::/docker/ab/sub\n").unified_own(),
            Some(PathBuf::from("/sys/fs/cgroup/sub"))
        );
        assert_eq!(parse(mounts, "0::/other\n").unified_own(), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(parse("garbage\n\n - \n", "::::"), Hierarchies::default());
    }
}
