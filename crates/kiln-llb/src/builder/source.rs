//! Sources: attributes and the capabilities they need.

use super::{Constraints, GraphBuilder, NodeKind, Output, Slot};
use crate::op::{ResolveMode, attr};
use std::collections::BTreeMap;

/// A directory of the client. Empty lists are not given.
#[derive(Clone, Debug, Default)]
pub struct LocalSpec {
    /// Which directory.
    pub name: String,
    /// Which session has it; empty for any of the build.
    pub session_id: String,
    /// Only what matches.
    pub include_patterns: Vec<String>,
    /// Only these paths and what their links lead to.
    pub follow_paths: Vec<String>,
    /// Not what matches.
    pub exclude_patterns: Vec<String>,
    /// Same hint, same directory.
    pub shared_key_hint: String,
    /// Send every file again instead of comparing metadata.
    pub differ_none: bool,
}

/// A download.
#[derive(Clone, Debug, Default)]
pub struct HttpSpec {
    /// `http://` or `https://`
    pub url: String,
    /// Expected digest of the content, as text.
    pub checksum: Option<String>,
    /// Name of the file made.
    pub filename: String,
    /// Permission bits, 0 for the default.
    pub perm: u32,
}

/// A checkout.
#[derive(Clone, Debug, Default)]
pub struct GitSpec {
    /// Host as in the URL, with port.
    pub host: String,
    /// Path as in the URL.
    pub path: String,
    /// The URL to fetch.
    pub url: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Sub directory, relative.
    pub subdir: String,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Known hosts for ssh; `Some` exactly when the URL is one of ssh.
    pub ssh_known_hosts: Option<String>,
    /// Expected commit.
    pub checksum: String,
    /// Leave submodules alone.
    pub skip_submodules: bool,
    /// `commit` or `checkout`; empty for the default.
    pub mtime: String,
    /// Fetch the checksum itself.
    pub fetch_by_commit: bool,
}

/// An image in a store of the client.
#[derive(Clone, Debug, Default)]
pub struct OciLayoutSpec {
    /// `name@digest`
    pub reference: String,
    /// Which session has it.
    pub session_id: String,
    /// Which store.
    pub store_id: String,
}

type Attrs = BTreeMap<String, String>;

fn put(attrs: &mut Attrs, c: &mut Constraints, key: &str, value: &str, cap: Option<&str>) {
    if !value.is_empty() {
        attrs.insert(key.to_string(), value.to_string());
        if let Some(cap) = cap {
            c.need(cap);
        }
    }
}

fn json_list(l: &[String]) -> String {
    if l.is_empty() { String::new() } else { crate::json::array(l.iter().map(|s| kiln_go::json::string(s))) }
}

impl GraphBuilder {
    /// Any source, with attributes as they are.
    pub fn source(&mut self, identifier: String, attrs: Attrs, constraints: Constraints) -> Output {
        Output { node: self.push(NodeKind::Source { identifier, attrs }, constraints), slot: Slot::Index(0) }
    }

    /// An image. `reference` is complete (docker.io and tag written out).
    pub fn image(&mut self, reference: &str, mode: ResolveMode, mut c: Constraints) -> Output {
        c.need("source.image");
        let mut attrs = Attrs::new();
        if mode != ResolveMode::Default {
            attrs.insert(attr::IMAGE_RESOLVE_MODE.to_string(), mode.as_str().to_string());
        }
        if mode == ResolveMode::ForcePull {
            c.need("source.image.resolvemode");
        }
        self.source(format!("docker-image://{reference}"), attrs, c)
    }

    /// A client directory.
    pub fn local(&mut self, s: &LocalSpec, mut c: Constraints) -> Output {
        let mut a = Attrs::new();
        put(&mut a, &mut c, attr::LOCAL_SESSION, &s.session_id, Some("source.local.sessionid"));
        let include = json_list(&s.include_patterns);
        put(&mut a, &mut c, attr::LOCAL_INCLUDE_PATTERN, &include, Some("source.local.includepatterns"));
        let follow = json_list(&s.follow_paths);
        put(&mut a, &mut c, attr::LOCAL_FOLLOW_PATHS, &follow, Some("source.local.followpaths"));
        let exclude = json_list(&s.exclude_patterns);
        put(&mut a, &mut c, attr::LOCAL_EXCLUDE_PATTERNS, &exclude, Some("source.local.excludepatterns"));
        put(
            &mut a,
            &mut c,
            attr::LOCAL_SHARED_KEY_HINT,
            &s.shared_key_hint,
            Some("source.local.sharedkeyhint"),
        );
        if s.differ_none {
            put(&mut a, &mut c, attr::LOCAL_DIFFER, "none", None);
        }
        c.need("source.local");
        self.source(format!("local://{}", s.name), a, c)
    }

    /// A download.
    pub fn http(&mut self, s: &HttpSpec, mut c: Constraints) -> Output {
        let mut a = Attrs::new();
        let checksum = s.checksum.as_deref().unwrap_or_default();
        put(&mut a, &mut c, attr::HTTP_CHECKSUM, checksum, Some("source.http.checksum"));
        put(&mut a, &mut c, attr::HTTP_FILENAME, &s.filename, None);
        let perm = if s.perm == 0 { String::new() } else { format!("0{:o}", s.perm & 0o777) };
        put(&mut a, &mut c, attr::HTTP_PERM, &perm, Some("source.http.perm"));
        c.need("source.http");
        self.source(s.url.clone(), a, c)
    }

    /// A checkout.
    pub fn git(&mut self, s: &GitSpec, mut c: Constraints) -> Output {
        let mut id = format!("git://{}{}", s.host, kiln_go::path::join(&["/", &s.path]));
        if !s.reference.is_empty() || !s.subdir.is_empty() {
            id.push('#');
            id.push_str(&s.reference);
        }
        if !s.subdir.is_empty() {
            id.push(':');
            id.push_str(&s.subdir);
        }
        let flag = |on: bool| if on { "true" } else { "" };
        let mut a = Attrs::new();
        put(&mut a, &mut c, attr::GIT_KEEP_DIR, flag(s.keep_git_dir), Some("source.git.keepgitdir"));
        put(&mut a, &mut c, attr::GIT_FULL_URL, &s.url, Some("source.git.fullurl"));
        put(&mut a, &mut c, attr::GIT_AUTH_TOKEN_SECRET, "GIT_AUTH_TOKEN", None);
        put(&mut a, &mut c, attr::GIT_AUTH_HEADER_SECRET, "GIT_AUTH_HEADER", None);
        if let Some(hosts) = &s.ssh_known_hosts {
            put(&mut a, &mut c, attr::GIT_KNOWN_SSH_HOSTS, hosts, None);
            c.need("source.git.knownsshhosts");
            put(&mut a, &mut c, attr::GIT_MOUNT_SSH_SOCK, "default", Some("source.git.mountsshsock"));
        }
        put(&mut a, &mut c, attr::GIT_CHECKSUM, &s.checksum, Some("source.git.checksum"));
        put(
            &mut a,
            &mut c,
            attr::GIT_SKIP_SUBMODULES,
            flag(s.skip_submodules),
            Some("source.git.skipsubmodules"),
        );
        put(&mut a, &mut c, attr::GIT_MTIME, &s.mtime, Some("source.git.mtime"));
        put(
            &mut a,
            &mut c,
            attr::GIT_FETCH_BY_COMMIT,
            flag(s.fetch_by_commit),
            Some("source.git.fetchbycommit"),
        );
        c.need("source.git");
        self.source(id, a, c)
    }

    /// An image of a client's store.
    pub fn oci_layout(&mut self, s: &OciLayoutSpec, mut c: Constraints) -> Output {
        let mut a = Attrs::new();
        put(&mut a, &mut c, attr::OCI_SESSION, &s.session_id, None);
        put(&mut a, &mut c, attr::OCI_STORE, &s.store_id, None);
        c.need("source.ocilayout");
        self.source(format!("oci-layout://{}", s.reference), a, c)
    }
}
