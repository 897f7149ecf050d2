//! Loading a ready seccomp program.

use crate::error::{Call, Error, Result};
use rustix::io::Errno;

/// Size of one classic BPF instruction.
const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// Loads a classic BPF program, given as the bytes libseccomp exports, for the calling thread. There is no
/// way back, and it survives execve(2).
///
/// Needs `CAP_SYS_ADMIN` in the user namespace or no_new_privs (EACCES). EINVAL for a program that is empty,
/// longer than 4096 instructions, or refused by the kernel's checker.
pub fn load(program: &[u8]) -> Result<()> {
    let bad = |why: &str| Error::new(Call::Seccomp, why, Errno::INVAL);
    if program.is_empty() || !program.len().is_multiple_of(INSTRUCTION) {
        return Err(bad("program of broken length"));
    }
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION)
        .map(|c| libc::sock_filter {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| bad("program of too many instructions"))?;
    let prog = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `prog` describes the live vector `filter`, which the kernel copies during the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&prog))
    };
    if ret == 0 { Ok(()) } else { Err(Error::last(Call::Seccomp, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_programs_are_refused_before_the_kernel_sees_them() {
        for program in [&[][..], &[0; 7], &[0; 9], &vec![0; 8 * 65536]] {
            assert_eq!(load(program).unwrap_err().errno, Errno::INVAL);
        }
    }
}
