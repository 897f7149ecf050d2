//! The device filter of cgroup v2: a small eBPF program that every open and mknod of a device node asks.

use crate::error::{Call, Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a device is read and written by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Blocks.
    Block = 1, // BPF_DEVCG_DEV_BLOCK
    /// Characters.
    Char = 2, // BPF_DEVCG_DEV_CHAR
}

/// What may be done with a device that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
}

impl Access {
    /// Everything.
    pub const ALL: Access = Access { read: true, write: true };

    /// What either allows.
    pub fn union(self, other: Access) -> Access {
        Access { read: self.read || other.read, write: self.write || other.write }
    }

    fn bits(self) -> i32 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.read, ACCESS_READ) | bit(self.write, ACCESS_WRITE)
    }
}

/// Devices that may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Their kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// For what.
    pub access: Access,
}

/// One eBPF instruction, `struct bpf_insn` in linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    /// Destination in the low, source in the high four bits.
    regs: u8,
    off: i16,
    imm: i32,
}

// Operation codes from linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const AND: u8 = 0x54; // ALU | AND | K
const SHIFT_RIGHT: u8 = 0x74; // ALU | RSH | K
const MOVE: u8 = 0xb4; // ALU | MOV | K
const MOVE_REG: u8 = 0xbc; // ALU | MOV | X
const JUMP_NE: u8 = 0x55; // JMP | JNE | K
const EXIT: u8 = 0x95; // JMP | EXIT

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: dst | src << 4, off, imm }
}

/// The program: making a node is allowed (it can only be opened through this filter again), the listed
/// devices are allowed, everything else is not.
fn program(allowed: &[DeviceRule]) -> Vec<Insn> {
    // The context (r1) is struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
    let mut code = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
        insn(MOVE_REG, 3, 2, 0, 0),
        insn(AND, 2, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, 3, 0, 0, 16),
        insn(MOVE, 0, 0, 0, 1),
        insn(JUMP_NE, 3, 0, 1, ACCESS_MKNOD),
        insn(EXIT, 0, 0, 0, 0),
    ];
    code.extend(allowed.iter().flat_map(rule));
    code.extend([insn(MOVE, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    code
}

/// One device: allowed (r0 is 1 by now), or on to what follows.
fn rule(device: &DeviceRule) -> Vec<Insn> {
    let expect = |register, value| insn(JUMP_NE, register, 0, 0, value);
    let mut code = vec![expect(2, device.kind as i32), expect(4, device.major.cast_signed())];
    code.extend(device.minor.map(|minor| expect(5, minor.cast_signed())));
    if device.access != Access::ALL {
        // Nothing is asked for beyond what is allowed; r1 is not needed any more.
        let beyond = [insn(MOVE_REG, 1, 3, 0, 0), insn(AND, 1, 0, 0, !device.access.bits()), expect(1, 0)];
        code.extend(beyond);
    }
    code.push(insn(EXIT, 0, 0, 0, 0));
    let end = code.len();
    for (at, jump) in code.iter_mut().enumerate().filter(|(_, i)| i.code == JUMP_NE) {
        jump.off = i16::try_from(end - at - 1).unwrap_or_default();
    }
    code
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads here.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH reads here.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn bpf<T>(command: libc::c_int, attr: &T, subject: &str) -> Result<libc::c_long> {
    // SAFETY: `attr` is a prefix of union bpf_attr of the size passed; the kernel takes what is beyond as
    // zero. What it points to is kept alive by the callers.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if ret < 0 { Err(Error::last(Call::Bpf, subject)) } else { Ok(ret) }
}

/// Attaches a filter to the v2 cgroup directory `cgroup`: it and all below may open only `allowed` devices.
/// It lasts as long as the cgroup.
///
/// Needs `CAP_BPF` and `CAP_NET_ADMIN` in the first user namespace; EPERM also when a cgroup above has a
/// filter that forbids more.
pub fn restrict_devices(cgroup: BorrowedFd<'_>, allowed: &[DeviceRule]) -> Result<()> {
    let code = program(allowed);
    let load = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(code.len()).unwrap_or(u32::MAX),
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttr::default()
    };
    let fd = bpf(PROG_LOAD, &load, "device filter load")?;
    let fd = i32::try_from(fd).map_err(|_| Error::new(Call::Bpf, "", rustix::io::Errno::RANGE))?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor (closed on exec) that nobody else owns.
    let prog = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = AttachAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: prog.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attach, "device filter attach").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program on one question; just the instructions it uses.
    fn ask(code: &[Insn], access: u32, kind: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | kind, major, minor];
        let mut regs = [0u32; 6];
        let mut at = 0usize;
        loop {
            let i = code[at];
            let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
            let imm = i.imm.cast_unsigned();
            let mut jump = false;
            match i.code {
                LOAD_WORD => regs[dst] = context[usize::try_from(i.off).unwrap() / 4],
                AND => regs[dst] &= imm,
                SHIFT_RIGHT => regs[dst] >>= imm,
                MOVE => regs[dst] = imm,
                MOVE_REG => regs[dst] = regs[src],
                JUMP_NE => jump = regs[dst] != imm,
                EXIT => return regs[0],
                other => panic!("{other}"),
            }
            at += 1 + if jump { usize::try_from(i.off).unwrap() } else { 0 };
        }
    }

    #[test]
    fn only_the_listed_devices_open_and_any_node_can_be_made() {
        let all = Access::ALL;
        let char = |major, minor| DeviceRule { kind: DeviceKind::Char, major, minor, access: all };
        let disk = DeviceRule { kind: DeviceKind::Block, major: 7, minor: Some(1), access: all };
        let limited = |minor, read, write| DeviceRule { access: Access { read, write }, ..char(10, minor) };
        let code = program(&[
            char(1, Some(3)),
            char(136, None),
            disk,
            limited(Some(1), true, false),
            limited(Some(2), false, true),
            limited(Some(3), false, false),
            char(5, Some(0)),
            DeviceRule { major: 11, ..limited(None, true, false) },
        ]);
        const READ_WRITE: u32 = 6;
        for (access, kind, major, minor, allowed) in [
            (READ_WRITE, 2, 1, 3, 1),
            (2, 2, 1, 3, 1),
            (READ_WRITE, 2, 1, 4, 0),
            (READ_WRITE, 2, 5, 0, 1),
            (READ_WRITE, 2, 5, 3, 0),
            (READ_WRITE, 2, 136, 77, 1),
            (READ_WRITE, 1, 1, 3, 0),
            (2, 1, 254, 0, 0),
            (4, 1, 136, 0, 0),
            (1, 1, 254, 0, 1),
            (1, 2, 1, 1, 1),
            (3, 1, 254, 0, 0),
            (READ_WRITE, 1, 7, 1, 1),
            (READ_WRITE, 1, 7, 2, 0),
            (READ_WRITE, 2, 7, 1, 0),
            (2, 2, 10, 1, 1),
            (4, 2, 10, 1, 0),
            (READ_WRITE, 2, 10, 1, 0),
            (4, 2, 10, 2, 1),
            (2, 2, 10, 2, 0),
            (2, 2, 10, 3, 0),
            (4, 2, 10, 3, 0),
            (1, 2, 10, 3, 1),
            (2, 2, 11, 9, 1),
            (4, 2, 11, 9, 0),
            (2, 1, 11, 9, 0),
        ] {
            assert_eq!(ask(&code, access, kind, major, minor), allowed, "{access} {kind} {major}:{minor}");
        }
    }
}
