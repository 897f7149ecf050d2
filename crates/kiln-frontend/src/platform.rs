//! Which platform is built for, and on.

use crate::host::Host;
use kiln_oci::Platform;

/// The platforms of one conversion.
#[derive(Clone, Debug)]
pub(crate) struct Platforms {
    /// What is built for.
    pub(crate) target: Platform,
    /// What this machine runs; not empty.
    pub(crate) build: Vec<Platform>,
    /// Nobody asked for a platform.
    pub(crate) implicit: bool,
}

impl Platforms {
    pub(crate) fn new(build: &[Platform], target: Option<&Platform>) -> Self {
        let build = build.to_vec();
        let implicit = target.is_none();
        let target = target.or(build.first()).cloned().unwrap_or_else(Platform::host);
        Platforms { target, build, implicit }
    }
}

/// The platform of the first worker, as a list: the reference looks at no other one.
pub(crate) fn build_platforms(host: &dyn Host) -> Vec<Platform> {
    vec![host.build_platforms().first().cloned().unwrap_or_else(|| Platform::host().normalize())]
}

/// The platform to go on with when none was asked for: that of the image, where this machine runs it.
pub(crate) fn auto_detect(image: &Platform, target: &Platform, supported: &[Platform]) -> Platform {
    let same = |p: &&Platform| p.os == image.os && p.architecture == image.architecture;
    if same(&target) {
        return target.clone();
    }
    supported.iter().find(same).unwrap_or(target).clone()
}

/// The key of a platform in results: `linux/arm/v7`.
pub(crate) fn id(p: &Platform) -> String {
    p.normalize().format_all()
}

/// Of Windows the version and the features come from the image where they were not asked for.
pub(crate) fn extend_windows(mut p: Platform, image: &Platform) -> Platform {
    if p.os != "windows" || image.os != p.os {
        return p;
    }
    if p.os_version.is_empty() {
        p.os_version.clone_from(&image.os_version);
    }
    if p.os_features.is_empty() {
        p.os_features.clone_from(&image.os_features);
    }
    p.normalize()
}
