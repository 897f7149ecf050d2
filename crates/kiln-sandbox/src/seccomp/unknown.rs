//! Calls newer than the profile answer ENOSYS, so that C libraries fall back instead of failing with EPERM.
//!
//! libseccomp has one answer for everything that is not listed. Whether a call is new shows in its number:
//! the kernel only appends. A short prologue before libseccomp's program makes the difference (runc does the
//! same).

use super::rules;
use libseccomp::{ScmpArch, ScmpSyscall};

/// Set in the numbers of the x32 calls, which share x86_64's architecture value (linux/seccomp.h).
const X32_BIT: u32 = 0x4000_0000;

// Classic BPF, linux/filter.h. Offsets in struct seccomp_data: 0 the number, 4 the architecture.
const LOAD: u16 = 0x20; // LD | W | ABS
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const RET_ERRNO: u32 = 0x0005_0000;

/// The values of `AUDIT_ARCH_*` in linux/audit.h for the architectures of a build.
fn audit_arches() -> &'static [(u32, ScmpArch)] {
    match std::env::consts::ARCH {
        "x86_64" => &[(0xc000_003e, ScmpArch::X8664), (0x4000_0003, ScmpArch::X86)],
        "aarch64" => &[(0xc000_00b7, ScmpArch::Aarch64), (0x4000_0028, ScmpArch::Arm)],
        "s390x" => &[(0x8000_0016, ScmpArch::S390X), (0x0000_0016, ScmpArch::S390)],
        "riscv64" => &[(0xc000_00f3, ScmpArch::Riscv64)],
        "powerpc64" => &[(0xc000_0015, ScmpArch::Ppc64Le)],
        _ => &[],
    }
}

/// The largest number any call of the profile has on `arch`.
fn last_known(arch: ScmpArch) -> u32 {
    rules()
        .iter()
        .filter_map(|rule| ScmpSyscall::from_name_by_arch(rule.name, arch).ok())
        // Negative numbers stand for calls the architecture lacks.
        .filter_map(|call| u32::try_from(call.as_raw_syscall()).ok())
        .map(|number| number & !X32_BIT)
        .max()
        .unwrap_or(u32::MAX)
}

/// The prologue as bytes, to be put before a program.
pub(super) fn prologue() -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |code: u16, jt: u8, jf: u8, k: u32| {
        out.extend(code.to_ne_bytes());
        out.extend([jt, jf]);
        out.extend(k.to_ne_bytes());
    };
    let enosys = RET_ERRNO | rustix::io::Errno::NOSYS.raw_os_error().cast_unsigned();
    for (audit, arch) in audit_arches() {
        let x32 = matches!(arch, ScmpArch::X8664);
        put(LOAD, 0, 0, ARCHITECTURE);
        put(JUMP_EQ, 0, if x32 { 6 } else { 3 }, *audit);
        put(LOAD, 0, 0, NUMBER);
        if x32 {
            put(JUMP_GE, 0, 2, X32_BIT);
            put(JUMP_GT, 0, 3, X32_BIT | last_known(ScmpArch::X32));
            put(RETURN, 0, 0, enosys);
        }
        put(JUMP_GT, 0, 1, last_known(*arch));
        put(RETURN, 0, 0, enosys);
    }
    out
}
