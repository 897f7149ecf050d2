//! Choosing among platforms: what runs on what, and what is preferred (containerd/platforms `Only`, `Ordered`).

use std::cmp::Ordering;

use crate::Platform;

/// Accepts platforms in an order of preference.
#[derive(Clone, Debug)]
pub struct PlatformMatcher {
    /// Normal forms, best first.
    wanted: Vec<Platform>,
}

impl PlatformMatcher {
    /// What runs on `platform`: itself first, then lesser variants (`arm64/v8.1`, `arm64`, `arm/v8`, ..., `arm/v5`;
    /// `amd64/v3`, `v2`, `v1`, `386`).
    pub fn only(platform: &Platform) -> Self {
        Self::ordered(&fallbacks(&platform.normalize()))
    }

    /// Exactly `platform`, in any spelling.
    pub fn strict(platform: &Platform) -> Self {
        Self::ordered(std::slice::from_ref(platform))
    }

    /// Any of `platforms`, earlier ones preferred.
    pub fn ordered(platforms: &[Platform]) -> Self {
        Self { wanted: platforms.iter().map(Platform::normalize).collect() }
    }

    /// Whether `p` is accepted.
    pub fn matches(&self, p: &Platform) -> bool {
        self.rank(p).is_some()
    }

    /// `Less` when `a` is preferred. Platforms not accepted come last and are equal among themselves.
    pub fn compare(&self, a: &Platform, b: &Platform) -> Ordering {
        let rank = |p| self.rank(p).unwrap_or(usize::MAX);
        rank(a).cmp(&rank(b)).then_with(|| b.os_features.len().cmp(&a.os_features.len()))
    }

    /// The best accepted of `items`; of equals the first.
    pub fn best<'a, T>(
        &self,
        items: impl IntoIterator<Item = &'a T>,
        platform: impl Fn(&T) -> &Platform,
    ) -> Option<&'a T> {
        items
            .into_iter()
            .filter(|item| self.matches(platform(item)))
            .min_by(|a, b| self.compare(platform(a), platform(b)))
    }

    fn rank(&self, p: &Platform) -> Option<usize> {
        let normal = p.normalize();
        self.wanted.iter().position(|w| accepts(w, &normal))
    }
}

/// Whether an image for `image` runs where `wanted` is offered; both in normal form.
fn accepts(wanted: &Platform, image: &Platform) -> bool {
    let same = (&wanted.os, &wanted.architecture, &wanted.variant)
        == (&image.os, &image.architecture, &image.variant);
    if !same {
        return false;
    }
    if wanted.os == "windows" {
        return windows_accepts(&wanted.os_version, &image.os_version)
            && features_subset(wanted, image, "win32k");
    }
    features_subset(wanted, image, "")
}

fn features_subset(wanted: &Platform, image: &Platform, ignored: &str) -> bool {
    image.os_features.iter().all(|f| f == ignored || wanted.os_features.contains(f))
}

fn fallbacks(p: &Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: String| Platform {
        architecture: architecture.to_string(),
        variant,
        ..p.clone()
    };
    let number = |v: &str| v.strip_prefix('v').unwrap_or(v).parse::<u32>().ok().filter(|n| *n < 100);
    match p.architecture.as_str() {
        "amd64" => {
            let lesser = number(&p.variant).map_or(1..1, |n| 1..n.max(1));
            let mut out = vec![p.clone()];
            out.extend(lesser.rev().map(|n| with("amd64", format!("v{n}"))));
            out.push(with("386", String::new()));
            out
        }
        "arm" => {
            let lesser = number(&p.variant).map_or(5..5, |n| 5..n.max(5));
            let mut out = vec![p.clone()];
            out.extend(lesser.rev().map(|n| with("arm", format!("v{n}"))));
            out
        }
        "arm64" => {
            // Unknown ones run nowhere, as in containerd.
            let Some(variants) = arm64_variants(&p.variant) else { return Vec::new() };
            let mut out: Vec<_> = variants.into_iter().map(|v| with("arm64", v)).collect();
            out.extend(fallbacks(&with("arm", "v8".to_string())));
            out
        }
        _ => vec![p.clone()],
    }
}

/// The variants an arm64 machine runs, best first. ARMv9.x implies ARMv8.(x+5).
fn arm64_variants(variant: &str) -> Option<Vec<String>> {
    let (major, minor) = match variant {
        "" => (8, 0),
        v => {
            let (major, minor) = v.strip_prefix('v')?.split_once('.').unwrap_or((&v[1..], "0"));
            (major.parse().ok()?, minor.parse().ok()?)
        }
    };
    let (last9, last8): (Option<u32>, u32) = match (major, minor) {
        (8, 0..=9) => (None, minor),
        (9, 0..=7) => (Some(minor), (minor + 5).min(9)),
        _ => return None,
    };
    let name = |major, minor| if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") };
    let nines = last9.map_or(0..0, |n| 0..n + 1).rev().map(|m| name(9, m));
    Some(nines.chain((0..=last8).rev().map(|m| name(8, m))).collect())
}

/// Windows containers need the host's build, or from Server 2022 on one since the previous long-term release.
fn windows_accepts(host: &str, image: &str) -> bool {
    let Some(host) = windows_version(host) else { return true };
    let Some(image) = windows_version(image) else { return image.is_empty() };
    if (host.0, host.1) != (image.0, image.1) {
        return false;
    }
    const LTSC: [u16; 2] = [20348, 26100];
    if host.2 < LTSC[0] {
        return host.2 == image.2;
    }
    let oldest = LTSC.into_iter().rev().find(|build| host.2 > *build).unwrap_or(LTSC[0]);
    (oldest..=host.2).contains(&image.2)
}

fn windows_version(text: &str) -> Option<(u8, u8, u16)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Platform {
        Platform::parse(s).unwrap()
    }

    fn order(of: &str) -> Vec<String> {
        fallbacks(&p(of).normalize()).iter().map(Platform::to_string).collect()
    }

    #[test]
    fn fallback_orders() {
        assert_eq!(order("linux/amd64"), ["linux/amd64", "linux/386"]);
        assert_eq!(
            order("linux/amd64/v3"),
            ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64/v1", "linux/386"]
        );
        assert_eq!(order("linux/arm"), ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]);
        assert_eq!(
            order("linux/arm64"),
            ["linux/arm64/v8", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]
        );
        assert_eq!(order("linux/arm64/v9.1").len(), 2 + 7 + 4);
        assert_eq!(order("linux/riscv64"), ["linux/riscv64"]);
    }

    #[test]
    fn picks_the_best() {
        let m = PlatformMatcher::only(&p("linux/arm64"));
        let offers = ["linux/amd64", "linux/arm/v7", "linux/arm64/v8", "linux/arm/v8"].map(p);
        assert_eq!(m.best(&offers, |p| p).unwrap().to_string(), "linux/arm64/v8");
        let m = PlatformMatcher::only(&p("linux/arm/v7"));
        assert_eq!(m.best(&[p("linux/arm/v6"), p("linux/arm")], |p| p).unwrap().to_string(), "linux/arm");
        assert!(!m.matches(&p("linux/arm/v8")));
        let amd = PlatformMatcher::only(&p("linux/amd64"));
        assert!(amd.matches(&p("linux/386")) && !amd.matches(&p("linux/amd64/v2")));
        assert!(!PlatformMatcher::strict(&p("linux/amd64")).matches(&p("linux/386")));
        assert!(!amd.matches(&p("windows/amd64")));
    }

    #[test]
    fn features_must_be_offered() {
        let m = PlatformMatcher::only(&p("linux(+a+b)/amd64"));
        assert!(m.matches(&p("linux/amd64")) && m.matches(&p("linux(+b)/amd64")));
        assert!(!m.matches(&p("linux(+c)/amd64")));
        let offers = ["linux/amd64", "linux(+a)/amd64"].map(p);
        assert_eq!(m.best(&offers, |p| p).unwrap().os_features, ["a"]);
    }

    #[test]
    fn windows_builds() {
        let m = |host: &str, image: &str| windows_accepts(host, image);
        assert!(m("10.0.17763", "10.0.17763.1") && !m("10.0.17763.5", "10.0.20348"));
        assert!(m("10.0.26100", "10.0.20348") && m("10.0.20348", "10.0.20348.9"));
        assert!(!m("10.0.20348", "10.0.26100") && m("", "10.0.20348"));
    }
}
