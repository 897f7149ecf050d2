//! Which commit of which repository, and what to make of it.

use std::collections::BTreeMap;

use kiln_llb::op::attr;

use super::url;
use crate::{Layout, Locator, Result, SourceError, redact_url};

/// Modification times of the checked out files (`git.mtime`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mtime {
    /// The time of the checkout.
    #[default]
    Checkout,
    /// The committer's time.
    Commit,
}

/// A checkout, from `git://` identifiers.
#[derive(Clone, PartialEq, Eq)]
pub struct GitId {
    /// The address for git; may hold credentials.
    pub remote: String,
    /// Branch, tag, full reference or commit; empty for the default branch.
    pub reference: String,
    /// Clean and relative; empty for all.
    pub subdir: String,
    /// Beginning of the commit (or tag object) that is expected.
    pub checksum: String,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Leave submodules out.
    pub skip_submodules: bool,
    /// See [`Mtime`].
    pub mtime: Mtime,
    /// Trust `checksum` and fetch it without asking what the reference stands for.
    pub fetch_by_commit: bool,
    /// Secret with a token; also looked for with `.<host>` behind.
    pub auth_token_secret: String,
    /// Secret with a whole `Authorization` header; also looked for with `.<host>` behind.
    pub auth_header_secret: String,
    /// Content of a known hosts file.
    pub known_ssh_hosts: String,
    /// Id of the ssh agent to use; empty for none.
    pub ssh_agent: String,
    /// Commits come from this bundle and not from the remote.
    pub bundle: Option<Locator>,
    /// Make a bundle of the commit and its history, in place of its files.
    pub checkout_bundle: bool,
}

impl std::fmt::Debug for GitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GitId({}#{}:{})", self.display(), self.reference, self.subdir)
    }
}

impl GitId {
    /// Reads the part behind `git://` and the attributes of a source operation.
    pub fn parse(rest: &str, attrs: &BTreeMap<String, String>, allow_file: bool) -> Result<Self> {
        let invalid = |message: String| SourceError::Invalid {
            identifier: redact_url(&format!("git://{rest}")),
            message,
        };
        let text = if url::is_transport(rest) { rest.to_string() } else { format!("https://{rest}") };
        let address = url::parse(&text, allow_file).map_err(invalid)?;
        let mut id = Self {
            remote: address.remote,
            reference: address.reference,
            subdir: address.subdir,
            checksum: String::new(),
            keep_git_dir: false,
            skip_submodules: false,
            mtime: Mtime::Checkout,
            fetch_by_commit: false,
            auth_token_secret: String::new(),
            auth_header_secret: String::new(),
            known_ssh_hosts: String::new(),
            ssh_agent: String::new(),
            bundle: attrs.get(attr::GIT_BUNDLE).map(|b| bundle(b, attrs)).transpose().map_err(invalid)?,
            checkout_bundle: false,
        };
        for (key, value) in attrs {
            id.set(key, value, allow_file).map_err(|fault| match fault {
                Fault::Invalid(message) => invalid(message),
                Fault::Unsupported => SourceError::Unsupported(format!("git source attribute {key}")),
            })?;
        }
        id.check().map_err(invalid)?;
        Ok(id)
    }

    fn set(&mut self, key: &str, value: &str, allow_file: bool) -> Result<(), Fault> {
        let text = value.to_string();
        let on = value == "true";
        match key {
            attr::GIT_FULL_URL => {
                let file = allow_file && value.starts_with("file://");
                self.remote =
                    if file || url::is_transport(value) { text } else { format!("https://{value}") };
                url::check_remote(&self.remote, allow_file).map_err(Fault::Invalid)?;
            }
            attr::GIT_KEEP_DIR => self.keep_git_dir = on,
            attr::GIT_SKIP_SUBMODULES => self.skip_submodules = on,
            attr::GIT_FETCH_BY_COMMIT => self.fetch_by_commit = on,
            attr::GIT_CHECKSUM => self.checksum = text,
            attr::GIT_CHECKOUT_BUNDLE => self.checkout_bundle = on,
            // Together, in `bundle`.
            attr::GIT_BUNDLE | attr::OCI_SESSION | attr::OCI_STORE => {}
            attr::GIT_AUTH_TOKEN_SECRET => self.auth_token_secret = text,
            attr::GIT_AUTH_HEADER_SECRET => self.auth_header_secret = text,
            attr::GIT_KNOWN_SSH_HOSTS => self.known_ssh_hosts = text,
            attr::GIT_MOUNT_SSH_SOCK => self.ssh_agent = text,
            attr::GIT_MTIME => {
                self.mtime = match value {
                    "" | "checkout" => Mtime::Checkout,
                    "commit" => Mtime::Commit,
                    _ => return Err(Fault::Invalid(format!("invalid mtime {value:?}"))),
                }
            }
            // Never ignored: the build would go on with what should have been checked, or with the wrong content.
            attr::GIT_SIG_PUBKEY
            | attr::GIT_SIG_REJECT_EXPIRED
            | attr::GIT_SIG_REQUIRE_SIGNED_TAG
            | attr::GIT_SIG_IGNORE_SIGNED_TAG => return Err(Fault::Unsupported),
            _ => tracing::warn!(key, "unknown attribute of a git source"),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if !is_reference(&self.reference) {
            return Err(format!("invalid git ref {:?}", self.reference));
        }
        if !self.checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("invalid checksum {} for Git URL, expected hex commit hash", self.checksum));
        }
        if is_commit(&self.reference) && !self.reference.starts_with(&self.checksum) {
            return Err(format!("expected checksum to match {}, got {}", self.checksum, self.reference));
        }
        if self.bundle.is_some() && self.checksum.is_empty() {
            return Err("git.bundle requires git.checksum to be set".to_string());
        }
        if self.checkout_bundle && self.keep_git_dir {
            return Err("git.checkoutbundle is incompatible with git.keepgitdir".to_string());
        }
        if self.checkout_bundle && !self.subdir.is_empty() {
            return Err("git.checkoutbundle is incompatible with git.subdir".to_string());
        }
        if self.fetch_by_commit && !is_commit(&self.reference) {
            if self.checksum.is_empty() {
                return Err("fetch-by-commit requires a checksum or a commit SHA ref".to_string());
            }
            if !is_commit(&self.checksum) {
                let got = &self.checksum;
                return Err(format!("fetch-by-commit requires a full commit SHA checksum, got {got:?}"));
            }
        }
        Ok(())
    }

    /// The address without credentials.
    pub fn display(&self) -> String {
        redact_url(&self.remote)
    }
}

/// Reads `<scheme>://<name>@<digest>`. Without a store of its own, the layout is the one of that name.
fn bundle(text: &str, attrs: &BTreeMap<String, String>) -> Result<Locator, String> {
    let wrong = |e: String| format!("failed to parse git.bundle locator {text:?}: {e}");
    let (scheme, name) = text.split_once("://").ok_or_else(|| wrong("missing scheme".into()))?;
    let get = |key: &str| attrs.get(key).cloned().unwrap_or_default();
    let mut layout = Layout { session: get(attr::OCI_SESSION), store: get(attr::OCI_STORE) };
    if layout.store.is_empty() {
        layout.store = name.split('@').next().unwrap_or_default().to_string();
    }
    Locator::parse(scheme, name, layout).map_err(wrong)
}

enum Fault {
    Invalid(String),
    Unsupported,
}

/// A full object name, SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What can be a reference (git-check-ref-format(1)) and is no option. Empty is the default branch.
pub(super) fn is_reference(text: &str) -> bool {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    !text.starts_with(['-', '+'])
        && !text.contains(bad)
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains("//")
        && !text.ends_with(['/', '.'])
        && !text.ends_with(".lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str, attrs: &[(&str, &str)]) -> Result<GitId> {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        GitId::parse(rest, &attrs, false)
    }

    #[test]
    fn remotes() {
        let remote = |rest: &str, full: Option<&str>| {
            let full: Vec<_> = full.iter().map(|f| ("git.fullurl", *f)).collect();
            parse(rest, &full).unwrap().remote
        };
        assert_eq!(remote("github.com/a/b.git#x", None), "https://github.com/a/b.git");
        assert_eq!(remote("github.com/a/b", Some("http://u:p@h/a.git")), "http://u:p@h/a.git");
        assert_eq!(remote("github.com/a/b", Some("git@github.com:a/b.git")), "git@github.com:a/b.git");
        assert_eq!(remote("github.com/a/b", Some("h/x")), "https://h/x");
    }

    #[test]
    fn injections_are_refused() {
        for rest in [
            "h/r#--upload-pack=id",
            "h/r#-x",
            "h/r#a b",
            "h/r#a%0ab",
            "h/r#a..b",
            "h/r#a~1",
            "h/r#+x",
            "h/r#a%3Ab",
        ] {
            let message = parse(rest, &[]).unwrap_err().to_string();
            assert!(message.contains("invalid git ref") || message.contains("control"), "{message}");
        }
        for full in ["ext::id", "file:///etc", "-x", "ssh://-oProxyCommand=id/", "https://h\n/x"] {
            assert!(parse("h/r", &[("git.fullurl", full)]).is_err(), "{full}");
        }
        assert!(parse("h/r", &[("git.checksum", "zz")]).is_err());
        assert!(parse("h/r", &[("git.checksum", "--x")]).is_err());
    }

    #[test]
    fn rules() {
        let sha = "a".repeat(40);
        assert!(parse(&format!("h/r#{sha}"), &[("git.checksum", "aaa")]).is_ok());
        assert!(parse(&format!("h/r#{sha}"), &[("git.checksum", "b")]).is_err());
        assert!(parse("h/r", &[("git.fetchbycommit", "true")]).is_err());
        assert!(parse("h/r", &[("git.fetchbycommit", "true"), ("git.checksum", "abc")]).is_err());
        assert!(parse("h/r", &[("git.fetchbycommit", "true"), ("git.checksum", &sha)]).is_ok());
        let refused = parse("h/r", &[("git.sig.pubkey", "k")]).unwrap_err();
        assert_eq!(refused.to_string(), "git source attribute git.sig.pubkey is not supported");
        assert!(parse("h/r", &[("git.mtime", "now")]).is_err());
    }

    #[test]
    fn credentials_do_not_show() {
        let id = parse("h/r", &[("git.fullurl", "https://u:canary@h/r")]).unwrap();
        assert!(!format!("{id:?}").contains("canary"));
        let e = parse("u:canary@h/r#-x", &[]).unwrap_err().to_string();
        assert!(!e.contains("canary"), "{e}");
    }
}
