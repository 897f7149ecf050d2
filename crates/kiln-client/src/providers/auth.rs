//! Answers about registries: credentials, tokens, and keys that stand for credentials.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_proto::filesync::auth_server::Auth;
use kiln_proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use ring::hmac;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{DockerConfig, Login, seeds, token};
use crate::RegistryTls;

/// How long a login is kept: short-lived ones live five minutes.
const KEEP: Duration = Duration::from_secs(4 * 60 + 50);

/// Answers from Docker's configuration.
#[derive(Clone)]
pub(super) struct AuthProvider(Arc<Inner>);

struct Inner {
    config: DockerConfig,
    /// Made when it is first asked for: most builds fetch no token, and the system's certificates take milliseconds.
    http: OnceCell<reqwest::Client>,
    /// For registries with certificates of their own.
    own: HashMap<String, reqwest::Client>,
    /// One helper runs at a time: keychains do not take more.
    logins: Mutex<HashMap<String, (Instant, Login)>>,
}

impl AuthProvider {
    pub(super) fn new(config: DockerConfig) -> Result<Self, BuildError> {
        let client = |tls: &RegistryTls| {
            let failed =
                |e| BuildError::new(Code::Internal, format!("http client of the registry login: {e}"));
            token::http_client(tls).map_err(failed)
        };
        let own = config.registry_tls.iter().map(|(host, tls)| Ok((host.clone(), client(tls)?)));
        let own = own.collect::<Result<_, BuildError>>()?;
        Ok(Self(Arc::new(Inner { config, http: OnceCell::new(), own, logins: Mutex::default() })))
    }

    /// The client for the token server of a registry.
    async fn http(&self, host: &str) -> Result<&reqwest::Client, Status> {
        if let Some(own) = self.0.own.get(host) {
            return Ok(own);
        }
        let make = || tokio::task::spawn_blocking(|| token::http_client(&RegistryTls::default()));
        let made = self.0.http.get_or_try_init(|| async { make().await.map_err(|e| e.to_string())? }).await;
        made.map_err(|e| Status::internal(format!("http client of the registry login: {e}")))
    }

    async fn login(&self, host: &str) -> Result<Login, Status> {
        let mut logins = self.0.logins.lock().await;
        if let Some((since, login)) = logins.get(host)
            && since.elapsed() < KEEP
        {
            return Ok(login.clone());
        }
        let login = self.0.config.login(host).await;
        let login = login.map_err(|e| Status::unknown(format!("error getting credentials: {e}")))?;
        logins.insert(host.to_string(), (Instant::now(), login.clone()));
        Ok(login)
    }

    /// A key that only a holder of the same secret on this machine can make.
    async fn authority(&self, host: &str, salt: &[u8]) -> Result<SigningKey, Status> {
        if !self.0.config.client_tokens {
            return Err(Status::unavailable("client side tokens disabled"));
        }
        let seed = match self.login(host).await? {
            // Everybody is anonymous alike.
            Login::Anonymous | Login::RegistryToken(_) => Vec::new(),
            Login::Password(_, secret) if secret.is_empty() => Vec::new(),
            Login::Password(..) | Login::IdentityToken(_) => {
                let (dir, host) = (self.0.config.dir().to_path_buf(), host.to_string());
                let seed = tokio::task::spawn_blocking(move || seeds::seed(&dir, &host)).await;
                let seed = seed.map_err(|e| Status::internal(e.to_string()))?;
                seed.map_err(|e| Status::unknown(format!("token seed: {e}")))?
            }
        };
        let sum = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), &seed);
        let sum: [u8; 32] = sum.as_ref().try_into().map_err(|_| Status::internal("hash of another size"))?;
        Ok(SigningKey::from_bytes(&sum))
    }
}

#[tonic::async_trait]
impl Auth for AuthProvider {
    async fn credentials(
        &self,
        r: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let (username, secret) = match self.login(&r.into_inner().host).await? {
            Login::Anonymous | Login::RegistryToken(_) => Default::default(),
            Login::Password(user, password) => (user, password),
            Login::IdentityToken(token) => (String::new(), token),
        };
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        r: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let request = r.into_inner();
        let login = self.login(&request.host).await?;
        let kind = if login == Login::Anonymous { "anonymous" } else { "oauth" };
        let http = self.http(&request.host).await?;
        let failed = |e| Status::unknown(format!("failed to fetch {kind} token: {e}"));
        Ok(Response::new(token::fetch(http, &login, &request).await.map_err(failed)?))
    }

    async fn get_token_authority(
        &self,
        r: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let request = r.into_inner();
        let key = self.authority(&request.host, &request.salt).await?;
        Ok(Response::new(GetTokenAuthorityResponse { public_key: key.verifying_key().to_bytes().to_vec() }))
    }

    async fn verify_token_authority(
        &self,
        r: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let request = r.into_inner();
        let key = self.authority(&request.host, &request.salt).await?;
        // NaCl's `sign`: the signature, then the message.
        let mut signed = key.sign(&request.payload).to_bytes().to_vec();
        signed.extend_from_slice(&request.payload);
        Ok(Response::new(VerifyTokenAuthorityResponse { signed }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn provider(dir: &std::path::Path, json: &str) -> AuthProvider {
        std::fs::write(dir.join("config.json"), json).unwrap();
        AuthProvider::new(DockerConfig::load(dir).unwrap()).unwrap()
    }

    const LOGIN: &str = r#"{"auths": {"a": {"auth": "dTpw"}, "i": {"identitytoken": "it"}}}"#;

    #[tokio::test]
    async fn credentials_are_those_of_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let p = provider(dir.path(), LOGIN);
        let ask = async |host: &str| {
            let r = p
                .credentials(Request::new(CredentialsRequest { host: host.into() }))
                .await
                .unwrap()
                .into_inner();
            (r.username, r.secret)
        };
        assert_eq!(ask("a").await, ("u".into(), "p".into()));
        assert_eq!(ask("i").await, (String::new(), "it".into()));
        assert_eq!(ask("x").await, Default::default());
    }

    #[tokio::test]
    async fn authorities_depend_on_salt_host_and_login() {
        let dir = tempfile::tempdir().unwrap();
        let p = provider(dir.path(), LOGIN);
        let key = async |host: &str, salt: &[u8]| p.authority(host, salt).await.unwrap().to_bytes();
        assert_eq!(key("a", b"s").await, key("a", b"s").await);
        assert_ne!(key("a", b"s").await, key("a", b"t").await);
        assert_ne!(key("a", b"s").await, key("i", b"s").await);
        assert_eq!(key("x", b"s").await, key("y", b"s").await);
        let mut config = DockerConfig::load(dir.path()).unwrap();
        config.client_tokens = false;
        let off = AuthProvider::new(config).unwrap();
        assert_eq!(off.authority("a", b"s").await.unwrap_err().code(), tonic::Code::Unavailable);
    }

    /// A token server that answers each connection once with the next of `answers`, and keeps what it was asked.
    async fn token_server(
        answers: Vec<(&'static str, &'static str)>,
    ) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let mut asked = vec![];
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = vec![0; 8192];
                let mut n = 0;
                loop {
                    n += stream.read(&mut text[n..]).await.unwrap();
                    let seen = String::from_utf8_lossy(&text[..n]).into_owned();
                    let head = seen.find("\r\n\r\n");
                    let length = seen
                        .to_lowercase()
                        .split("content-length: ")
                        .nth(1)
                        .map(|l| l.split('\r').next().unwrap().parse::<usize>().unwrap());
                    if head.is_some_and(|h| n >= h + 4 + length.unwrap_or(0)) {
                        asked.push(seen);
                        break;
                    }
                }
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (realm, asked)
    }

    fn request(host: &str, realm: String) -> Request<FetchTokenRequest> {
        Request::new(FetchTokenRequest {
            client_id: "c".into(),
            host: host.into(),
            realm,
            service: "s".into(),
            scopes: vec!["repository:a:pull".into(), "repository:b:pull".into()],
        })
    }

    #[tokio::test]
    async fn tokens_are_fetched_by_oauth_first_and_by_get_where_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let p = provider(dir.path(), LOGIN);
        let answers = vec![
            ("200 OK", r#"{"access_token": "one", "expires_in": 300, "issued_at": "2026-01-02T03:04:05Z"}"#),
            ("404 Not Found", ""),
            ("200 OK", r#"{"token": "two"}"#),
            ("200 OK", r#"{"token": "three"}"#),
            ("500 Internal Server Error", "secret body"),
        ];
        let (realm, asked) = token_server(answers).await;
        let one = p.fetch_token(request("a", realm.clone())).await.unwrap().into_inner();
        assert_eq!((one.token.as_str(), one.expires_in, one.issued_at), ("one", 300, 1_767_323_045));
        let two = p.fetch_token(request("i", realm.clone())).await.unwrap().into_inner();
        assert_eq!((two.token.as_str(), two.expires_in, two.issued_at), ("two", 60, 0));
        let three = p.fetch_token(request("anonymous", realm.clone())).await.unwrap().into_inner();
        assert_eq!(three.token, "three");
        let error = p.fetch_token(request("a", realm.clone())).await.unwrap_err();
        let expected = format!(
            "failed to fetch oauth token: unexpected status from POST request to {realm}: 500 Internal Server Error"
        );
        assert_eq!(error.message(), expected);
        let asked = asked.await.unwrap();
        assert!(
            asked[0].starts_with("POST /token ")
                && asked[0].contains("grant_type=password&username=u&password=p"),
            "{}",
            asked[0]
        );
        assert!(asked[0].contains("scope=repository%3Aa%3Apull+repository%3Ab%3Apull"), "{}", asked[0]);
        assert!(asked[1].contains("grant_type=refresh_token&refresh_token=it"), "{}", asked[1]);
        let get = "GET /token?service=s&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull ";
        assert!(asked[2].starts_with(get) && asked[2].contains("uthorization: Basic "), "{}", asked[2]);
        assert!(asked[3].starts_with(get) && !asked[3].contains("uthorization"), "{}", asked[3]);
    }

    #[tokio::test]
    async fn realms_are_web_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let p = provider(dir.path(), LOGIN);
        for realm in ["", "file:///etc/passwd", "x"] {
            let error = p.fetch_token(request("a", realm.into())).await.unwrap_err();
            assert!(
                error.message().starts_with("failed to fetch oauth token: invalid token realm: "),
                "{error}"
            );
        }
    }
}
