//! Docker's default seccomp profile, compiled once to the bytes the kernel loads.

mod table;
mod unknown;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, error::SeccompError,
};
use std::io::{Read, Seek};

/// Why the profile could not be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("seccomp profile: {0}")]
    Library(#[from] SeccompError),
    #[error("seccomp profile: exporting the program: {0}")]
    Export(#[from] std::io::Error),
}

/// The namespace flags that clone(2) may not carry: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// One condition on an argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) index: u32,
    pub(crate) op: Op,
    pub(crate) value: u64,
}

/// Comparison in a [`Condition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Less,
    Greater,
    Equal,
    /// The bits of the value are all zero in the argument.
    Without,
}

/// One entry of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// The errno to answer; `None` lets the call through.
    pub(crate) refuse: Option<i32>,
    pub(crate) condition: Option<Condition>,
}

/// The profile for processors of this build.
pub(crate) fn rules() -> Vec<Rule> {
    let by_arch = table::BY_ARCH
        .iter()
        .filter(|(arches, _)| arches.contains(&std::env::consts::ARCH))
        .flat_map(|(_, names)| names.split_whitespace());
    let mut rules: Vec<Rule> = table::ALWAYS
        .split_whitespace()
        .chain(by_arch)
        .map(|name| Rule { name, refuse: None, condition: None })
        .collect();
    let mut only_if = |name, index, op, value| {
        rules.push(Rule { name, refuse: None, condition: Some(Condition { index, op, value }) });
    };
    // AF_ALG (38) and AF_VSOCK (40) stay closed.
    only_if("socket", 0, Op::Less, 38);
    only_if("socket", 0, Op::Equal, 39);
    only_if("socket", 0, Op::Greater, 40);
    // PER_LINUX, PER_LINUX32, UNAME26 with either, and the query.
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        only_if("personality", 0, Op::Equal, persona);
    }
    // s390 passes the flags second, clone(2).
    let flags = if std::env::consts::ARCH == "s390x" { 1 } else { 0 };
    only_if("clone", flags, Op::Without, CLONE_NAMESPACES);
    // clone3's flags lie behind a pointer that a filter cannot follow; ENOSYS makes C libraries fall back.
    rules.push(Rule {
        name: "clone3",
        refuse: Some(rustix::io::Errno::NOSYS.raw_os_error()),
        condition: None,
    });
    rules
}

/// The architectures whose calls the profile covers besides the native one; others are killed.
pub(crate) fn sub_architectures() -> &'static [(&'static str, ScmpArch)] {
    match std::env::consts::ARCH {
        "x86_64" => &[("SCMP_ARCH_X86", ScmpArch::X86), ("SCMP_ARCH_X32", ScmpArch::X32)],
        "aarch64" => &[("SCMP_ARCH_ARM", ScmpArch::Arm)],
        "s390x" => &[("SCMP_ARCH_S390", ScmpArch::S390)],
        _ => &[],
    }
}

/// The native architecture's name in OCI configurations.
pub(crate) fn native_architecture() -> Option<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Some("SCMP_ARCH_X86_64"),
        "aarch64" => Some("SCMP_ARCH_AARCH64"),
        "s390x" => Some("SCMP_ARCH_S390X"),
        "riscv64" => Some("SCMP_ARCH_RISCV64"),
        "powerpc64" => Some("SCMP_ARCH_PPC64LE"),
        _ => None,
    }
}

/// Compiles the profile to classic BPF. Takes some 20 ms, so it is done once per daemon.
pub(crate) fn compile() -> Result<Vec<u8>, CompileError> {
    // EPERM for what is not listed.
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(rustix::io::Errno::PERM.raw_os_error()))?;
    for (_, arch) in sub_architectures() {
        filter.add_arch(*arch)?;
    }
    // Level 2 sorts the calls into a binary tree: the kernel evaluates the program for every call number
    // when it is loaded, and long chains make that slow.
    filter.set_ctl_optimize(2)?;
    // The launcher decides about no_new_privs itself.
    filter.set_ctl_nnp(false)?;
    for rule in rules() {
        // A name this libseccomp does not know stays refused, as with runc.
        let Ok(call) = ScmpSyscall::from_name(rule.name) else { continue };
        let action = rule.refuse.map_or(ScmpAction::Allow, ScmpAction::Errno);
        match rule.condition {
            None => filter.add_rule(action, call)?,
            Some(c) => filter.add_rule_conditional(action, call, &[compare(c)])?,
        };
    }
    let mut program = unknown::prologue();
    program.extend(export(&filter)?);
    Ok(program)
}

fn compare(c: Condition) -> ScmpArgCompare {
    match c.op {
        Op::Less => ScmpArgCompare::new(c.index, ScmpCompareOp::Less, c.value),
        Op::Greater => ScmpArgCompare::new(c.index, ScmpCompareOp::Greater, c.value),
        Op::Equal => ScmpArgCompare::new(c.index, ScmpCompareOp::Equal, c.value),
        Op::Without => ScmpArgCompare::new(c.index, ScmpCompareOp::MaskedEqual(c.value), 0),
    }
}

/// Export to memory needs a newer libseccomp than distributions have, so it goes through a file.
fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, CompileError> {
    let fd =
        rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
    filter.export_bpf(&fd)?;
    let mut file = std::fs::File::from(fd);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_has_no_duplicates_and_no_mount_calls() {
        let rules = rules();
        let mut plain: Vec<_> = rules.iter().filter(|r| r.condition.is_none()).map(|r| r.name).collect();
        let count = plain.len();
        plain.sort_unstable();
        plain.dedup();
        assert_eq!(plain.len(), count);
        for name in
            ["mount", "umount2", "unshare", "setns", "open_tree", "bpf", "keyctl", "add_key", "reboot"]
        {
            assert!(!plain.contains(&name), "{name}");
        }
        for name in ["ptrace", "chroot", "openat2", "execve", "capset"] {
            assert!(plain.contains(&name), "{name}");
        }
    }

    #[test]
    fn compiles_to_whole_instructions_within_the_kernels_limit() {
        let program = compile().unwrap();
        assert_eq!(program.len() % 8, 0);
        let instructions = program.len() / 8;
        assert!((300..4096).contains(&instructions), "{instructions}");
        // The same bytes each time, so they can be kept.
        assert_eq!(program, compile().unwrap());
    }
}
