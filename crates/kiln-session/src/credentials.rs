//! Questions about registries (spec wire.md section 6).

use std::future::Future;
use std::time::{Duration, SystemTime};

use ed25519_dalek::{Signature, VerifyingKey};
use kiln_proto::filesync::auth_client::AuthClient;
use kiln_proto::filesync::{
    CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
};
use tonic::{Code, Status};

use crate::connection::origin;
use crate::{Session, SessionError};

/// Limit for questions about credentials; a helper on the client may ask a person.
const AUTH_TIMEOUT: Duration = Duration::from_secs(60);
/// Client name in token requests made on our behalf.
const TOKEN_CLIENT: &str = "buildkit-client";
/// A user name and secret for a registry. An empty user with a secret means that the secret is a refresh token;
/// both empty mean anonymous.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Empty for tokens.
    pub username: String,
    /// Password or refresh token.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a bearer token is wanted for, as a registry's challenge says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Registry host, as the client knows it.
    pub host: String,
    /// Address of the token server.
    pub realm: String,
    /// Service name of the challenge.
    pub service: String,
    /// Scopes such as `repository:a:pull`.
    pub scopes: Vec<String>,
}

/// A bearer token that the client fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The value of the `Authorization: Bearer` header.
    pub token: String,
    /// How long it is valid; 60 s if the server did not say.
    pub lifetime: Duration,
    /// When the server made it.
    pub issued: Option<SystemTime>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Session {
    /// User name and secret for a registry host; empty ones if the client does not share any.
    pub async fn credentials(&self, host: &str) -> Result<Credentials, SessionError> {
        let mut client = AuthClient::with_origin(self.connection(), origin());
        let request = CredentialsRequest { host: host.to_string() };
        let call = timed(AUTH_TIMEOUT, client.credentials(request));
        match self.call(format!("credentials for {host}"), call).await {
            Ok(r) => Ok(Credentials { username: r.username, secret: r.secret }),
            Err(e) if e.code() == Code::Unimplemented => Ok(Credentials::default()),
            Err(e) => Err(e),
        }
    }

    /// Lets the client fetch a bearer token, so that its secret stays with it.
    pub async fn fetch_token(&self, request: &TokenRequest) -> Result<Token, SessionError> {
        let mut client = AuthClient::with_origin(self.connection(), origin());
        let wire = FetchTokenRequest {
            client_id: TOKEN_CLIENT.to_string(),
            host: request.host.clone(),
            realm: request.realm.clone(),
            service: request.service.clone(),
            scopes: request.scopes.clone(),
        };
        let call = timed(AUTH_TIMEOUT, client.fetch_token(wire));
        let answer = self.call(format!("token for {}", request.host), call).await?;
        let seconds = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0).map(Duration::from_secs);
        Ok(Token {
            token: answer.token,
            lifetime: seconds(answer.expires_in).unwrap_or(Duration::from_secs(60)),
            issued: seconds(answer.issued_at).and_then(|d| SystemTime::UNIX_EPOCH.checked_add(d)),
        })
    }

    /// The public key that stands for the client's credentials at `host`; none if the client does not fetch tokens
    /// itself. `salt` is random per daemon start.
    pub async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<[u8; 32]>, SessionError> {
        let mut client = AuthClient::with_origin(self.connection(), origin());
        let request = GetTokenAuthorityRequest { host: host.to_string(), salt: salt.to_vec() };
        let what = format!("token authority for {host}");
        let call = timed(AUTH_TIMEOUT, client.get_token_authority(request));
        match self.call(what.clone(), call).await {
            Ok(answer) => match answer.public_key.try_into() {
                Ok(key) => Ok(Some(key)),
                Err(key) => {
                    let text = format!("invalid pubkey length {}", Vec::len(&key));
                    Err(SessionError::call(what, Status::invalid_argument(text)))
                }
            },
            Err(e) if matches!(e.code(), Code::Unimplemented | Code::Unavailable) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether this client holds the credentials behind `authority`, a key that [`Session::token_authority`] gave
    /// for any session with the same `salt`.
    pub async fn holds_authority(
        &self,
        host: &str,
        salt: &[u8],
        authority: &[u8; 32],
    ) -> Result<bool, SessionError> {
        let payload: [u8; 32] = rand::random();
        let mut client = AuthClient::with_origin(self.connection(), origin());
        let request = VerifyTokenAuthorityRequest {
            host: host.to_string(),
            payload: payload.to_vec(),
            salt: salt.to_vec(),
        };
        let call = timed(AUTH_TIMEOUT, client.verify_token_authority(request));
        match self.call(format!("verify token authority for {host}"), call).await {
            Ok(answer) => Ok(is_signed(&answer.signed, &payload, authority)),
            Err(e) if e.code() == Code::Unimplemented => Ok(false),
            Err(e) => Err(e),
        }
    }
}

async fn timed<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(Status::deadline_exceeded(format!("no answer from the client in {} s", limit.as_secs())))
        }
    }
}

/// NaCl `sign`: the signature, then the message.
fn is_signed(signed: &[u8], payload: &[u8; 32], key: &[u8; 32]) -> bool {
    let Some((signature, message)) = signed.split_first_chunk::<64>() else { return false };
    let Ok(key) = VerifyingKey::from_bytes(key) else { return false };
    message == payload && key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn an_authority_is_proven_by_a_signature_over_our_payload() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = key.verifying_key().to_bytes();
        let payload = [9; 32];
        let signed = [key.sign(&payload).to_bytes().as_slice(), &payload].concat();
        assert!(is_signed(&signed, &payload, &public));
        assert!(!is_signed(&signed, &[8; 32], &public));
        assert!(!is_signed(&signed[..63], &payload, &public));
        assert!(!is_signed(&signed, &payload, &SigningKey::from_bytes(&[4; 32]).verifying_key().to_bytes()));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let c = Credentials { username: "u".into(), secret: "canary".into() };
        let t = Token { token: "canary".into(), lifetime: Duration::ZERO, issued: None };
        assert!(!format!("{c:?}{t:?}").contains("canary"));
    }
}
