//! Credentials in addresses, kept out of names, history and messages.

use std::borrow::Cow;

const MASK: &str = "xxxxx";

/// What cannot be part of `user:password@host`.
const ENDS: &[char] = &['/', '?', '#', '"', '\'', '`', '<', '>', '\\'];

/// The text with user and password of every address in it masked: `https://xxxxx:xxxxx@host/path`. The user of an
/// `ssh` address is no secret and stays.
pub fn mask_credentials(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c.is_whitespace() || ENDS.contains(&c)).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        out.push_str(before);
        out.push_str("://");
        match authority.rsplit_once('@') {
            Some((user, host)) => out.push_str(&format!("{}@{host}", masked(user, before.ends_with("ssh")))),
            None => out.push_str(authority),
        }
        rest = tail;
    }
    if out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn masked(user: &str, ssh: bool) -> String {
    match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if ssh || user.is_empty() => user.to_string(),
        None => MASK.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::mask_credentials;

    #[test]
    fn every_address_in_a_text_is_masked() {
        for (text, want) in [
            ("", ""),
            ("COPY a@b /", "COPY a@b /"),
            ("ADD https://h/p@1 /", "ADD https://h/p@1 /"),
            ("ADD https://u:p@h/x http://t@h:1/y /", "ADD https://xxxxx:xxxxx@h/x http://xxxxx@h:1/y /"),
            ("git clone 'https://:p@h'; echo a@b", "git clone 'https://:xxxxx@h'; echo a@b"),
            ("https://u:p@ss@h", "https://xxxxx:xxxxx@h"),
            ("ssh://git@h/r git@h:r", "ssh://git@h/r git@h:r"),
            ("ssh://git:pw@h/r", "ssh://xxxxx:xxxxx@h/r"),
            ("https://u:p@h://v:q@i", "https://xxxxx:xxxxx@h://v:q@i"),
            ("https://$USER:${P}@h/", "https://xxxxx:xxxxx@h/"),
            ("://a@b", "://xxxxx@b"),
        ] {
            assert_eq!(mask_credentials(text), want, "{text}");
        }
    }

    #[test]
    fn names_of_vertices_are_masked() {
        let named = crate::builder::Constraints::default().named("ADD https://u:p@h/x /");
        assert_eq!(named.metadata.description["llb.customname"], "ADD https://xxxxx:xxxxx@h/x /");
        let identifier = "https://u:p@h/x".to_string();
        let source = crate::Op::Source(crate::SourceOp { identifier, attrs: Default::default() });
        assert_eq!(crate::name::of(&source, &[]), "https://xxxxx:xxxxx@h/x");
    }
}
