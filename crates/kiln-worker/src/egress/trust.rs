//! A certificate that programs in a root trust for a while.
//!
//! It is written into the files of trusted certificates and not mounted over them: steps that install certificates
//! replace these files, which cannot be done with a mount point.

use kiln_fs::Root;
use rustix::fs::{CWD, Mode, OFlags, Timespec, Timestamps};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Where distributions have all trusted certificates in one file (the list of BuildKit and of Go's `crypto/x509`).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Around the certificate, as BuildKit has it.
const BEGIN: &str = "\n# buildkit proxy CA begin\n";
const END: &str = "# buildkit proxy CA end\n";
/// Largest file that is one of trusted certificates.
const LARGEST: u64 = 10 << 20;

/// What was added, and where.
pub(super) struct Trust {
    pem: String,
    files: Vec<PathBuf>,
}

impl Trust {
    /// Adds a certificate to the files that are there. They keep their times.
    pub(super) fn give(root: &Root, pem: &str) -> io::Result<Self> {
        let mut trust = Self { pem: pem.to_string(), files: Vec::new() };
        for bundle in BUNDLES {
            let Ok(path) = root.canonical(bundle, true) else { continue };
            if trust.files.contains(&path) {
                continue;
            }
            let block = trust.block();
            if change(root, &path, |text| Some([text, block.as_bytes()].concat()))? {
                trust.files.push(path);
            }
        }
        Ok(trust)
    }

    fn block(&self) -> String {
        format!("{BEGIN}{}{END}", self.pem)
    }

    /// Removes it from where it still is, whatever happened to the files meanwhile. One that nobody has touched is as it
    /// was before.
    pub(super) fn take(self, root: &Root) -> io::Result<()> {
        let block = self.block();
        for path in &self.files {
            change(root, path, |text| {
                let left = without(text, block.as_bytes());
                without(left.as_deref().unwrap_or(text), self.pem.as_bytes()).or(left)
            })?;
        }
        Ok(())
    }
}

/// Writes a file anew, in place: it may have other names. False if it is none of certificates, or stays as it is.
fn change(root: &Root, path: &Path, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> io::Result<bool> {
    // What cannot be opened as a file is none that a program reads.
    let Ok(file) = root.open_file(path) else { return Ok(false) };
    rewrite(&file, change).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn rewrite(file: &File, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> io::Result<bool> {
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Ok(false);
    }
    let Some(text) = change(&text) else { return Ok(false) };
    let times = times(file)?;
    // The object that was opened, whatever has its name now.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(CWD, own, flags, Mode::empty())?);
    file.rewind()?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)?;
    rustix::fs::futimens(&file, &times)?;
    Ok(true)
}

fn times(file: &File) -> io::Result<Timestamps> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata()?;
    Ok(Timestamps {
        last_access: Timespec { tv_sec: meta.atime(), tv_nsec: meta.atime_nsec() },
        last_modification: Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() },
    })
}

/// The text without any `part`; `None` if it has none.
fn without(text: &[u8], part: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(part.len()).position(|w| w == part) {
        out.extend(&rest[..at]);
        rest = &rest[at + part.len()..];
    }
    (rest.len() < text.len()).then(|| [out.as_slice(), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    const FILE: &str = "etc/ssl/certs/ca-certificates.crt";

    fn tree() -> (tempfile::TempDir, Root, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/ssl/certs")).unwrap();
        let file = dir.path().join(FILE);
        fs::write(&file, "theirs, without end of line").unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root, file)
    }

    #[test]
    fn a_file_that_nobody_touched_is_as_before() {
        let (dir, root, file) = tree();
        symlink("certs/ca-certificates.crt", dir.path().join("etc/ssl/cert.pem")).unwrap();
        let before = fs::metadata(&file).unwrap();
        let trust = Trust::give(&root, PEM).unwrap();
        assert_eq!(trust.files.len(), 1, "two names of one file");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("theirs") && text.ends_with(&format!("CA begin\n{PEM}{END}")), "{text}");
        trust.take(&root).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs, without end of line");
        let after = fs::metadata(&file).unwrap();
        let kept = |m: &fs::Metadata| (m.ino(), m.mode(), m.mtime(), m.mtime_nsec(), m.size());
        assert_eq!(kept(&after), kept(&before));
    }

    #[test]
    fn what_a_step_writes_stays() {
        let (_dir, root, file) = tree();
        let trust = Trust::give(&root, PEM).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(&file, format!("first\n{text}last\n{PEM}end\n")).unwrap();
        trust.take(&root).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "first\ntheirs, without end of linelast\nend\n");
    }

    #[test]
    fn nothing_else_is_touched() {
        let (dir, root, file) = tree();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), dir.path().join("etc/ssl/cert.pem")).unwrap();
        fs::create_dir_all(dir.path().join("etc/ssl/ca-bundle.pem")).unwrap();
        let trust = Trust::give(&root, PEM).unwrap();
        assert_eq!(trust.files.len(), 1);
        // What a hostile step leaves there: a pipe, a file without end, a link out, nothing.
        for leave in [
            |file: &Path| drop(std::process::Command::new("mkfifo").arg(file).status()),
            |file: &Path| File::create(file).unwrap().set_len(1 << 40).unwrap(),
            |file: &Path| symlink("/etc/hostname", file).unwrap(),
            |_: &Path| {},
        ] {
            fs::remove_file(&file).ok();
            leave(&file);
            Trust { pem: PEM.into(), files: trust.files.clone() }.take(&root).unwrap();
        }
        assert_eq!(fs::read(outside.path()).unwrap(), b"");
    }
}
