//! COPY and ADD.

use super::{FileError, time};
use kiln_fs::copy::{Copier, CopyOptions, ModeChange, resolve_wildcards};
use kiln_fs::unpack::{ArchiveOptions, is_archive, unpack_archive};
use kiln_fs::{Root, paths};
use kiln_llb::{CopyAction, FileMode};
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

type Owner = Option<(u32, u32)>;

pub(super) fn run(
    a: &CopyAction,
    target: &Root,
    source: Option<&Root>,
    owner: Owner,
    cancel: Option<Arc<AtomicBool>>,
) -> Result<(), FileError> {
    let src = keep_slash(&a.src);
    let dest = keep_slash(&a.dest);
    if !a.create_dest_path {
        check_parent(target, &a.dest)?;
    }
    let Some(source) = source else { return from_nothing(a, target, &src, &dest, owner) };
    let sources = match a.allow_wildcard {
        true => resolve_wildcards(source, &src, a.follow_symlink)?,
        false => vec![src.clone()],
    };
    if sources.is_empty() && !a.allow_empty_wildcard {
        return Err(FileError::NotFound(src));
    }
    let copier = Copier::new(options(a, owner, cancel)?)?;
    for path in sources {
        if !(a.attempt_unpack && unpacked(a, target, source, &path, &dest, owner)?) {
            copier.copy(source, &path, target, &dest)?;
        }
    }
    Ok(())
}

fn options(a: &CopyAction, owner: Owner, cancel: Option<Arc<AtomicBool>>) -> Result<CopyOptions, FileError> {
    let bits = match a.mode {
        FileMode::Bits(bits) if a.mode_str.is_empty() => Some(bits),
        FileMode::Bits(_) | FileMode::Keep => None,
    };
    let mode = match bits {
        Some(bits) => Some(ModeChange::octal(bits)),
        None if a.mode_str.is_empty() => None,
        None => Some(ModeChange::parse(&a.mode_str)?),
    };
    Ok(CopyOptions {
        owner,
        time: time(a.timestamp),
        mode,
        parent_mode: bits,
        dir_contents: a.dir_copy_contents,
        follow_links: a.follow_symlink,
        include: a.include_patterns.clone(),
        exclude: a.exclude_patterns.clone(),
        replace_existing: a.always_replace_existing_dest_paths,
        cancel,
    })
}

/// The path made absolute and clean, with the ending that says "directory" kept: `/` or `/.`.
fn keep_slash(path: &str) -> PathBuf {
    let mut clean = paths::absolute(path).into_os_string();
    let is_root = clean == "/";
    if path.ends_with("/.") {
        clean.push(if is_root { "." } else { "/." });
    } else if path.ends_with('/') && !is_root {
        clean.push("/");
    }
    PathBuf::from(clean)
}

fn check_parent(target: &Root, dest: &str) -> Result<(), FileError> {
    let path = target.canonical(paths::absolute(dest), true)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    target
        .metadata(parent, false)
        .map_err(|source| FileError::NoDestination { dest: dest.into(), source })?;
    Ok(())
}

/// An empty source has a root directory and nothing in it.
fn from_nothing(
    a: &CopyAction,
    target: &Root,
    src: &Path,
    dest: &Path,
    owner: Owner,
) -> Result<(), FileError> {
    let is_root = paths::absolute(src) == Path::new("/");
    match is_root || (a.allow_wildcard && a.allow_empty_wildcard) {
        true if is_root => {
            let mode = match a.mode {
                FileMode::Bits(bits) => bits & 0o777,
                FileMode::Keep => 0o755,
            };
            target.create_dir_all(dest, mode, owner, time(a.timestamp).map(SystemTime::from))?;
            Ok(())
        }
        true => Ok(()),
        false => Err(FileError::NotFound(src.to_path_buf())),
    }
}

/// Unpacks the source into the destination directory if it is an archive; says whether it was.
fn unpacked(
    a: &CopyAction,
    target: &Root,
    source: &Root,
    path: &Path,
    dest: &Path,
    owner: Owner,
) -> Result<bool, FileError> {
    // Whatever is not a readable regular file is copied (or fails) as what it is.
    let Ok(mut file) = source.open_file(paths::absolute(path)) else { return Ok(false) };
    if !is_archive(&mut file) {
        return Ok(false);
    }
    file.rewind()
        .map_err(|e| kiln_fs::unpack::UnpackError::Content { entry: path.to_path_buf(), source: e })?;
    target.create_dir_all(dest, 0o755, owner, time(a.timestamp).map(SystemTime::from))?;
    let into = target.open_dir(paths::absolute(dest))?;
    unpack_archive(file, &into, ArchiveOptions { owner })?;
    Ok(true)
}
