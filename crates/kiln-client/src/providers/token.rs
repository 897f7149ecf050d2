//! Bearer tokens from a registry's token server (distribution specs "token" and "oauth").

use std::time::Duration;

use jiff::Timestamp;
use kiln_proto::filesync::{FetchTokenRequest, FetchTokenResponse};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use super::Login;
use crate::RegistryTls;

/// Lifetime of a token when the server does not say, in seconds.
const DEFAULT_LIFETIME: i64 = 60;
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Limit for one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("invalid token realm: {0}")]
    Realm(String),
    #[error("unexpected status from {method} request to {url}: {status}")]
    Status { method: &'static str, url: String, status: StatusCode },
    #[error("{0}")]
    Http(String),
    #[error("unable to decode token response")]
    Answer,
    #[error("authorization server did not include a token in the response")]
    NoToken,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    token: String,
    access_token: String,
    expires_in: i64,
    issued_at: Option<Timestamp>,
}

/// An HTTP client with the system's proxies, and its certificates or others.
pub(super) fn http_client(tls: &RegistryTls) -> Result<Client, String> {
    let tls = tls.config().map_err(|e| e.to_string())?;
    let client = Client::builder().tls_backend_preconfigured(tls).timeout(TIMEOUT).user_agent("kiln");
    client.build().map_err(|e| e.to_string())
}

/// Fetches a token with this login. With a secret the OAuth form comes first, as some servers give refresh tokens
/// only there; others know only the older form.
pub(super) async fn fetch(
    http: &Client,
    login: &Login,
    request: &FetchTokenRequest,
) -> Result<FetchTokenResponse, TokenError> {
    let realm = Url::parse(&request.realm).map_err(|e| TokenError::Realm(e.to_string()))?;
    if !matches!(realm.scheme(), "http" | "https") {
        return Err(TokenError::Realm(format!("scheme {} is not supported", realm.scheme())));
    }
    let answer = match login {
        Login::RegistryToken(token) => Answer { token: token.clone(), ..Answer::default() },
        Login::Anonymous => get(http, realm, None, request).await?,
        Login::Password(user, password) => {
            let form = [("grant_type", "password"), ("username", user), ("password", password)];
            match post(http, realm.clone(), &form, request).await {
                Err(TokenError::Status { status, .. }) if falls_back(status, !user.is_empty()) => {
                    get(http, realm, Some((user, password)), request).await?
                }
                other => other?,
            }
        }
        Login::IdentityToken(token) => {
            let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
            match post(http, realm.clone(), &form, request).await {
                Err(TokenError::Status { status, .. }) if falls_back(status, false) => {
                    get(http, realm, Some(("", token)), request).await?
                }
                other => other?,
            }
        }
    };
    let token = if answer.access_token.is_empty() { answer.token } else { answer.access_token };
    if token.is_empty() {
        return Err(TokenError::NoToken);
    }
    Ok(FetchTokenResponse {
        token,
        expires_in: if answer.expires_in == 0 { DEFAULT_LIFETIME } else { answer.expires_in },
        issued_at: answer.issued_at.map_or(0, Timestamp::as_second),
    })
}

fn falls_back(status: StatusCode, has_user: bool) -> bool {
    match status {
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => true,
        StatusCode::METHOD_NOT_ALLOWED => has_user,
        _ => false,
    }
}

async fn post(
    http: &Client,
    realm: Url,
    grant: &[(&str, &str)],
    request: &FetchTokenRequest,
) -> Result<Answer, TokenError> {
    let scope = request.scopes.join(" ");
    let mut form = vec![("service", request.service.as_str()), ("client_id", request.client_id.as_str())];
    if !scope.is_empty() {
        form.push(("scope", &scope));
    }
    form.extend_from_slice(grant);
    let response = http.post(realm.clone()).form(&form).send().await;
    read("POST", realm, response).await
}

async fn get(
    http: &Client,
    realm: Url,
    basic: Option<(&str, &str)>,
    request: &FetchTokenRequest,
) -> Result<Answer, TokenError> {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if !request.service.is_empty() {
            query.append_pair("service", &request.service);
        }
        for scope in &request.scopes {
            query.append_pair("scope", scope);
        }
    }
    let mut call = http.get(url);
    if let Some((user, secret)) = basic {
        call = call.basic_auth(user, Some(secret));
    }
    read("GET", realm, call.send().await).await
}

async fn read(
    method: &'static str,
    realm: Url,
    response: reqwest::Result<Response>,
) -> Result<Answer, TokenError> {
    // Errors of the HTTP client can quote the address with its query; ours only the realm.
    let failed = |e: reqwest::Error| TokenError::Http(e.without_url().to_string());
    let mut response = response.map_err(failed)?;
    let status = response.status();
    if !status.is_success() && !status.is_redirection() {
        return Err(TokenError::Status { method, url: realm.to_string(), status });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(TokenError::Answer);
        }
    }
    serde_json::from_slice(&body).map_err(|_| TokenError::Answer)
}
