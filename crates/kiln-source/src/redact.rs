//! Keeping credentials out of everything that people or files see.

const MASK: &str = "xxxxx";

/// The address with user and password masked: `https://xxxxx:xxxxx@host/path`. Other texts pass unchanged.
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return url.to_string() };
    let masked = match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if user.is_empty() => String::new(),
        None => MASK.to_string(),
    };
    format!("{scheme}://{masked}@{host}{tail}")
}

/// Replaces known secrets in text.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Vec<(String, String)>);

impl Redactor {
    /// Hides the credentials of an address, also where they stand alone or percent-encoded.
    pub(crate) fn hide_url(&mut self, url: &str) {
        let redacted = redact_url(url);
        if redacted == url {
            return;
        }
        self.0.push((url.to_string(), redacted));
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = &authority[..authority.find(['/', '?', '#']).unwrap_or(authority.len())];
        let Some((user, _)) = authority.rsplit_once('@') else { return };
        match user.split_once(':') {
            Some((name, password)) => {
                self.hide(&format!("{user}@"), &format!("{MASK}:{MASK}@"));
                self.hide_secret(password);
                // `https://token:x-oauth-basic@host`: the name is the secret. Short ones would blot out words.
                if name.len() >= 8 {
                    self.hide_secret(name);
                }
            }
            None if user.len() >= 8 => self.hide_secret(user),
            None => {}
        }
    }

    /// Hides a secret and its percent-decoded form.
    pub(crate) fn hide_secret(&mut self, secret: &str) {
        self.hide(secret, MASK);
        let decoded = percent_encoding::percent_decode_str(secret).decode_utf8_lossy();
        if decoded != secret {
            self.hide(&decoded, MASK);
        }
    }

    fn hide(&mut self, text: &str, instead: &str) {
        if !text.is_empty() {
            self.0.push((text.to_string(), instead.to_string()));
        }
    }

    /// The text without what is to be hidden. Longer secrets go first, so that none is left half.
    pub(crate) fn clean(&self, text: &str) -> String {
        let mut known: Vec<_> = self.0.iter().collect();
        known.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        known.iter().fold(text.to_string(), |text, (secret, instead)| text.replace(secret.as_str(), instead))
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_user_info() {
        for (url, masked) in [
            ("https://host/p", "https://host/p"),
            ("https://u:p@host/p?q#f", "https://xxxxx:xxxxx@host/p?q#f"),
            ("https://token@host", "https://xxxxx@host"),
            ("https://:p@host", "https://:xxxxx@host"),
            ("https://u:p@ss@host/x", "https://xxxxx:xxxxx@host/x"),
            ("https://host/a@b", "https://host/a@b"),
            ("git@host:a/b", "git@host:a/b"),
            ("", ""),
        ] {
            assert_eq!(redact_url(url), masked);
        }
    }

    #[test]
    fn hides_in_text() {
        let mut r = Redactor::default();
        r.hide_url("https://user:c%61nary@host/p.git");
        r.hide_secret("tok");
        let text = "fatal: https://user:c%61nary@host/p.git: canary c%61nary tok";
        assert_eq!(r.clean(text), "fatal: https://xxxxx:xxxxx@host/p.git: xxxxx xxxxx xxxxx");
    }
}
