//! Sources of COPY and ADD: repositories, downloads, files.

use super::copy::{CopyJob, Mode, plain_copy};
use super::wrong;
use crate::context::is_http;
use crate::convert::Converter;
use crate::fail::Result;
use crate::git_ref::{GitRef, Parsed};
use crate::ospath;
use crate::stages::StageId;
use kiln_digest::Digest;
use kiln_go::{path as gopath, quote};
use kiln_llb::builder::{Constraints, CopySpec, HttpSpec};

impl Converter<'_> {
    /// One copy without destination, owner and exclusions.
    pub(super) fn copy_source(
        &mut self,
        id: StageId,
        job: &CopyJob<'_>,
        path: &str,
        mode: &Mode,
        title: &str,
    ) -> Result<CopySpec> {
        match GitRef::parse(path) {
            Parsed::Bad(e) => Err(wrong(e)),
            Parsed::Git(git) if !git.like_local => self.copy_git(job, &git, mode, title),
            _ if is_http(path) => self.copy_http(job, path, mode, title),
            _ => {
                self.check_ignored(job, path);
                copy_local(job, path, mode, self.os(id)).map_err(wrong)
            }
        }
    }

    fn copy_git(&mut self, job: &CopyJob<'_>, git: &GitRef, mode: &Mode, title: &str) -> Result<CopySpec> {
        if !job.is_add {
            return Err(wrong("source can't be a git ref for COPY"));
        }
        if let (Some(flag), Some(query)) = (job.keep_git_dir, git.keep_git_dir)
            && flag != query
        {
            return Err(wrong("inconsistent keep-git-dir configuration"));
        }
        let mut spec = git.to_spec();
        spec.mtime.clear();
        spec.keep_git_dir = git.keep_git_dir.or(job.keep_git_dir) == Some(true);
        match job.checksum {
            Some(flag) if !spec.checksum.is_empty() && flag != spec.checksum => {
                let (flag, query) = (quote(flag), quote(&spec.checksum));
                return Err(wrong(format!("checksum mismatch {flag} != {query}")));
            }
            Some(flag) if spec.checksum.is_empty() => spec.checksum = flag.to_string(),
            _ => {}
        }
        let out = self.graph.git(&spec, Constraints::default().named(title));
        Ok(plain_copy(Some(out), "/", mode))
    }

    fn copy_http(&mut self, job: &CopyJob<'_>, url: &str, mode: &Mode, title: &str) -> Result<CopySpec> {
        if !job.is_add {
            return Err(wrong("source can't be a URL for COPY"));
        }
        let checksum = match job.checksum {
            None => None,
            Some(text) => Some(text.parse::<Digest>().map_err(|e| wrong(e.to_string()))?.to_string()),
        };
        let filename = file_name(url);
        let spec = HttpSpec { url: url.to_string(), checksum, filename: filename.clone(), perm: 0 };
        let mut constraints = Constraints::default().named(title);
        constraints
            .metadata
            .description
            .insert("com.docker.dockerfile.v1.command".to_string(), String::new());
        let out = self.graph.http(&spec, constraints);
        let mut copy = plain_copy(Some(out), &filename, mode);
        copy.action.attempt_unpack = job.unpack.unwrap_or(false);
        Ok(copy)
    }
}

fn copy_local(job: &CopyJob<'_>, path: &str, mode: &Mode, os: &str) -> std::result::Result<CopySpec, String> {
    let absolute = |path: &str| {
        ospath::normalize("/", path, os, false).map_err(|e| format!("removing drive letter: {e}"))
    };
    let mut src = path;
    let (mut patterns, mut required) = (Vec::new(), Vec::new());
    if job.parents {
        let (parent, pattern) = path.split_once("/./").unwrap_or(("/", path));
        src = parent;
        let pattern = absolute(pattern)?;
        if !gopath::has_wildcards(src) && !gopath::has_wildcards(&pattern) {
            required.push(absolute(&gopath::join(&[src, &pattern]))?);
        }
        patterns.push(pattern.strip_prefix('/').unwrap_or(&pattern).to_string());
    }
    let mut copy = plain_copy(job.from, &absolute(src)?, mode);
    let a = &mut copy.action;
    a.follow_symlink = true;
    a.dir_copy_contents = true;
    a.include_patterns = patterns;
    a.required_paths = required;
    a.attempt_unpack = job.unpack.unwrap_or(job.is_add);
    a.allow_wildcard = true;
    a.allow_empty_wildcard = true;
    Ok(copy)
}

/// The last part of a URL's path.
pub(crate) fn file_name(url: &str) -> String {
    let unnamed = || "__unnamed__".to_string();
    let Ok(parsed) = url::Url::parse(url) else { return unnamed() };
    let Some(path) = percent_decoded(parsed.path()) else { return unnamed() };
    match gopath::base(&path) {
        "." | "/" => unnamed(),
        name => name.to_string(),
    }
}

fn percent_decoded(path: &str) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_have_a_name() {
        assert_eq!(file_name("http://h/a/b.tar?x=1#f"), "b.tar");
        assert_eq!(file_name("https://h/a%20b"), "a b");
        assert_eq!(file_name("https://h/"), "__unnamed__");
        assert_eq!(file_name("https://h"), "__unnamed__");
    }
}
