//! The content of one file.

use std::cell::Cell;
use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

use crate::meta::Metadata;

/// Files up to this size are read and written: two calls, where the kernel's copy needs as many and a range lock.
const SMALL: u64 = 64 << 10;
const BUFFER: usize = 128 << 10;
/// Bytes per call of `copy_file_range`.
const RANGE: u64 = 1 << 30;

/// Copies content the best way that works between two filesystems, which the first files find out.
pub(super) struct Data {
    clone_works: Cell<bool>,
    range_works: Cell<bool>,
    buffer: Vec<u8>,
}

impl Data {
    pub(super) fn new() -> Data {
        Data { clone_works: Cell::new(true), range_works: Cell::new(true), buffer: vec![0; BUFFER] }
    }

    /// Copies a regular file to an empty one; `check` is called now and then and can stop it.
    pub(super) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        meta: &Metadata,
        to: BorrowedFd<'_>,
        check: &dyn Fn() -> bool,
    ) -> Result<(), Errno> {
        if meta.size == 0 {
            return Ok(());
        }
        if self.clone_works.get() {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(_) => self.clone_works.set(false),
            }
        }
        if meta.size <= SMALL {
            return self.copy_range_by_hand(from, to, 0, meta.size, check);
        }
        if meta.blocks.saturating_mul(512) >= meta.size {
            return self.copy_piece(from, to, 0, meta.size, check);
        }
        self.copy_sparse(from, to, meta.size, check)
    }

    /// Copies only what is stored; holes stay holes (lseek(2), `SEEK_DATA`).
    fn copy_sparse(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        size: u64,
        check: &dyn Fn() -> bool,
    ) -> Result<(), Errno> {
        ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let start = match seek(from, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => return Ok(()),
                // A filesystem that knows of no holes.
                Err(Errno::INVAL) => return self.copy_piece(from, to, at, size, check),
                Err(e) => return Err(e),
            };
            let end = seek(from, SeekFrom::Hole(start))?.min(size);
            self.copy_piece(from, to, start, end, check)?;
            at = end;
        }
        Ok(())
    }

    fn copy_piece(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        mut at: u64,
        end: u64,
        check: &dyn Fn() -> bool,
    ) -> Result<(), Errno> {
        while at < end && self.range_works.get() {
            if !check() {
                return Err(Errno::CANCELED);
            }
            let (mut off_in, mut off_out) = (at, at);
            let len = (end - at).min(RANGE) as usize;
            match copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), len) {
                // Shorter than it said.
                Ok(0) => return Ok(()),
                Ok(n) => at += n as u64,
                // What Go's runtime falls back on too; across filesystems it is the rule.
                Err(
                    Errno::NOSYS | Errno::XDEV | Errno::PERM | Errno::IO | Errno::OPNOTSUPP | Errno::INVAL,
                ) => {
                    self.range_works.set(false);
                }
                Err(e) => return Err(e),
            }
        }
        self.copy_range_by_hand(from, to, at, end, check)
    }

    fn copy_range_by_hand(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        mut at: u64,
        end: u64,
        check: &dyn Fn() -> bool,
    ) -> Result<(), Errno> {
        while at < end {
            if !check() {
                return Err(Errno::CANCELED);
            }
            let want = (end - at).min(BUFFER as u64) as usize;
            let n = pread(from, &mut self.buffer[..want], at)?;
            if n == 0 {
                return Ok(());
            }
            let mut done = 0;
            while done < n {
                done += pwrite(to, &self.buffer[done..n], at + done as u64)?;
            }
            at += n as u64;
        }
        Ok(())
    }
}
