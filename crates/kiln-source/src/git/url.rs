//! Addresses of repositories.

/// Protocols that remotes may use.
const PROTOCOLS: [&str; 4] = ["http", "https", "ssh", "git"];

/// An address split from what BuildKit adds behind `#`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// For git.
    pub(super) remote: String,
    /// Behind `#`, may be empty.
    pub(super) reference: String,
    /// Behind the colon of the fragment; clean and relative, may be empty.
    pub(super) subdir: String,
}

/// The protocol in front of `://`, in lower case.
fn protocol(text: &str) -> Option<String> {
    let (name, _) = text.split_once("://")?;
    let ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    ok.then(|| name.to_ascii_lowercase())
}

/// Whether the text is an address for git as it stands: a known protocol, or `user@host:path`.
pub(super) fn is_transport(text: &str) -> bool {
    match protocol(text) {
        Some(name) => PROTOCOLS.contains(&name.as_str()),
        None => is_scp(text),
    }
}

fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let word = |s: &str, extra: &[u8]| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || extra.contains(&b))
    };
    word(user, b"_") && word(host, b".")
}

/// Splits and checks an address.
pub(super) fn parse(text: &str, allow_file: bool) -> Result<Address, String> {
    if text.chars().any(|c| c.is_control()) {
        return Err("control characters in the address".to_string());
    }
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let remote = address.split('?').next().unwrap_or_default();
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    check_remote(remote, allow_file)?;
    let reference = percent_encoding::percent_decode_str(reference).decode_utf8_lossy().into_owned();
    let subdir = percent_encoding::percent_decode_str(subdir).decode_utf8_lossy().into_owned();
    Ok(Address { remote: remote.to_string(), reference, subdir: clean(&subdir)? })
}

/// Refuses protocols that are not known, and what ssh or git could take for an option.
pub(super) fn check_remote(remote: &str, allow_file: bool) -> Result<(), String> {
    if remote.chars().any(|c| c.is_control()) {
        return Err("control characters in the address".to_string());
    }
    let Some(name) = protocol(remote) else {
        return match is_scp(remote) && !dashed(remote) {
            true => Ok(()),
            false => Err("unknown protocol".to_string()),
        };
    };
    if name == "file" && allow_file {
        return Ok(());
    }
    if !PROTOCOLS.contains(&name.as_str()) {
        return Err(format!("{name}: invalid protocol"));
    }
    let rest = remote.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    if !is_host(authority) || dashed(authority) {
        return Err("invalid host".to_string());
    }
    Ok(())
}

/// Whether there is a host, and behind its colon, if it has one, a number.
fn is_host(authority: &str) -> bool {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.rsplit_once(']') {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    !name.is_empty() && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether user or host begins with a dash.
fn dashed(authority: &str) -> bool {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    authority.starts_with('-') || host.starts_with('-')
}

/// The host with its port, as secrets are named after it. Empty for `user@host:path`.
pub(super) fn host(remote: &str) -> &str {
    let rest = remote.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A path without `.`, `..`, doubled and outer slashes. As in a root directory, `..` stops at the top.
fn clean(path: &str) -> Result<String, String> {
    if path.contains('\0') {
        return Err("NUL in the sub directory".to_string());
    }
    Ok(kiln_go::path::join(&["/", path])[1..].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, remote, reference, subdir) in [
            ("https://h/r.git", "https://h/r.git", "", ""),
            ("https://u:p@h:8080/r.git?x=1#v1:sub/dir", "https://u:p@h:8080/r.git", "v1", "sub/dir"),
            ("git@h.com:a/b#main", "git@h.com:a/b", "main", ""),
            ("ssh://git@h:22/a#:../../x/./y//", "ssh://git@h:22/a", "", "x/y"),
            ("git://h/a#%2Fb:..", "git://h/a", "/b", ""),
        ] {
            let a = parse(text, false).unwrap();
            assert_eq!(
                (a.remote.as_str(), a.reference.as_str(), a.subdir.as_str()),
                (remote, reference, subdir)
            );
        }
        assert_eq!(host("https://u:p@h:8080/r.git"), "h:8080");
        assert_eq!(host("git@h.com:a/b"), "");
    }

    #[test]
    fn refusals() {
        for bad in [
            "ext::sh -c id",
            "ext://x",
            "file:///etc",
            "/etc",
            "../x",
            "-oProxyCommand=id",
            "ssh://-oProxyCommand=id/x",
            "ssh://u@-oProxyCommand=id/x",
            "-u@host:path",
            "u@-host:path",
            "https:///r",
            "https://ext::id",
            "https://file:///etc",
            "https://h:22x/r",
            "https://h/r\nx",
            "https://h/r\0",
            "fd::17",
            "",
        ] {
            assert!(parse(bad, false).is_err(), "{bad:?}");
        }
        assert!(parse("file:///srv/r.git", true).is_ok() && parse("ssh://git@[::1]:22/r", false).is_ok());
        assert!(is_transport("git@github.com:a/b") && is_transport("SSH://h/x") && !is_transport("h/x"));
    }
}
