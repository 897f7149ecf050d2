//! What this machine runs without emulation.

use crate::Platform;
use std::path::Path;

impl Platform {
    /// What this machine runs without emulation, its own platform first: the levels of x86-64 that the processor has
    /// (x86-64 psABI, section 3.1.1), and 32-bit programs where the kernel takes them.
    pub fn native() -> Vec<Self> {
        let host = Self::host();
        let is_amd64 = host.architecture == "amd64";
        let mut native = vec![host];
        if is_amd64 {
            let level = |n: u32| Self { variant: format!("v{n}"), ..Self::new("linux", "amd64") };
            native.extend((2..=x86_64_level()).map(level));
            // The setting exists in kernels that run 32-bit programs (proc_sys_abi(5)).
            if Path::new("/proc/sys/abi/vsyscall32").exists() {
                native.push(Self::new("linux", "386"));
            }
        }
        native
    }
}

#[cfg(target_arch = "x86_64")]
fn x86_64_level() -> u32 {
    use std::is_x86_feature_detected as has;
    let v2 = has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2");
    let v3 = has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let v4 = has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (v2, v3, v4) {
        (true, true, true) => 4,
        (true, true, false) => 3,
        (true, false, _) => 2,
        (false, ..) => 1,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn x86_64_level() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_platform_comes_first_and_none_twice() {
        let native = Platform::native();
        assert_eq!(native[0], Platform::host());
        let mut names: Vec<_> = native.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), native.len());
    }
}
