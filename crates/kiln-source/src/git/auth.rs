//! Credentials for http remotes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::id::GitId;
use super::url;
use crate::redact::Redactor;
use crate::{Result, SourceContext, SourceError};

/// One setting for git, passed through the environment (git-config(1), `GIT_CONFIG_COUNT`): arguments can be read by
/// every process of the machine.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
}

/// Asks the client for the header of the remote: header before token, the host's before the general one. What is
/// found is hidden by `redactor` from then on.
pub(super) async fn header(
    id: &GitId,
    cx: &SourceContext,
    redactor: &mut Redactor,
) -> Result<Option<Setting>> {
    let host = url::host(&id.remote);
    if !(id.remote.starts_with("http://") || id.remote.starts_with("https://")) {
        return Ok(None);
    }
    let (header, token) = (&id.auth_header_secret, &id.auth_token_secret);
    let candidates = [
        (header, format!("{header}.{host}")),
        (token, format!("{token}.{host}")),
        (header, header.clone()),
        (token, token.clone()),
    ];
    for (kind, name) in candidates.iter().filter(|(kind, _)| !kind.is_empty()) {
        let secret = cx.client.secret(name).await;
        let secret =
            secret.map_err(|e| SourceError::Client { what: format!("secret {name}"), message: e.0 })?;
        let Some(secret) = secret else { continue };
        let text = String::from_utf8_lossy(&secret).trim_end_matches(['\r', '\n']).to_string();
        if text.contains(|c: char| c.is_control()) {
            let message = "has characters that a header cannot hold".to_string();
            return Err(SourceError::Client { what: format!("secret {name}"), message });
        }
        redactor.hide_secret(&text);
        let value = if std::ptr::eq(*kind, token) {
            let encoded = STANDARD.encode(format!("x-access-token:{text}"));
            redactor.hide_secret(&encoded);
            format!("basic {encoded}")
        } else {
            text
        };
        let key = format!("http.{}.extraheader", scope(&id.remote));
        return Ok(Some(Setting { key, value: format!("Authorization: {value}") }));
    }
    Ok(None)
}

/// The addresses that get the header: the remote, and on github.com all, for submodules (as actions/checkout does).
fn scope(remote: &str) -> &str {
    ["https://github.com/", "https://www.github.com/"]
        .into_iter()
        .find(|p| remote.starts_with(p))
        .unwrap_or(remote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteReader, Client, ClientError, Duplex, NoClient};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    struct Secrets(&'static [(&'static str, &'static str)]);

    #[async_trait::async_trait]
    impl Client for Secrets {
        async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, ClientError> {
            Ok(self.0.iter().find(|(name, _)| *name == id).map(|(_, v)| v.as_bytes().to_vec()))
        }
        async fn ssh_agent(&self, id: &str) -> Result<Box<dyn Duplex>, ClientError> {
            NoClient.ssh_agent(id).await
        }
        async fn check_ssh_agent(&self, id: &str) -> Result<(), ClientError> {
            NoClient.check_ssh_agent(id).await
        }
        async fn upload(&self, host: &str, path: &str) -> Result<ByteReader, ClientError> {
            NoClient.upload(host, path).await
        }
    }

    async fn ask(remote: &str, secrets: &'static [(&'static str, &'static str)]) -> Option<(String, String)> {
        let attrs: BTreeMap<_, _> = [
            ("git.fullurl", remote),
            ("git.authtokensecret", "GIT_AUTH_TOKEN"),
            ("git.authheadersecret", "GIT_AUTH_HEADER"),
        ]
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .into();
        let id = GitId::parse("h/r", &attrs, false).unwrap();
        let cx = SourceContext { client: Arc::new(Secrets(secrets)), ..SourceContext::anonymous() };
        let mut redactor = Redactor::default();
        let setting = header(&id, &cx, &mut redactor).await.unwrap()?;
        let sent = setting.value.trim_start_matches("Authorization: ");
        assert!(!redactor.clean(&format!("error: {sent}")).contains(sent.trim_start_matches("basic ")));
        Some((setting.key, setting.value))
    }

    #[tokio::test]
    async fn order_and_scope() {
        let basic = format!("Authorization: basic {}", STANDARD.encode("x-access-token:tok"));
        assert_eq!(
            ask("https://github.com/a/b.git", &[("GIT_AUTH_TOKEN", "tok\n")]).await,
            Some(("http.https://github.com/.extraheader".into(), basic))
        );
        assert_eq!(
            ask(
                "https://h:8080/r",
                &[
                    ("GIT_AUTH_TOKEN.h:8080", "tok-1"),
                    ("GIT_AUTH_HEADER", "head-2"),
                    ("GIT_AUTH_HEADER.h:8080", "Bearer c")
                ]
            )
            .await,
            Some(("http.https://h:8080/r.extraheader".into(), "Authorization: Bearer c".into()))
        );
        assert_eq!(ask("git@h:r", &[("GIT_AUTH_TOKEN", "tok")]).await, None);
        assert_eq!(ask("https://h/r", &[]).await, None);
    }
}
