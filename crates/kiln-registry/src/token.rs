//! Token servers (distribution, "Token Authentication Specification" and "OAuth2 Token Authentication").

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::auth::AuthCall;
use crate::challenge::Bearer;
use crate::error::{ERROR_BODY_LIMIT, StatusError, address, message, retry_after};
use crate::scope::Scopes;
use crate::{Login, RegistryError, Result, Token, TokenRequest};

/// Client name, which the reference implementation uses too: some servers keep lists.
const CLIENT_ID: &str = "buildkit-client";
/// Bytes of a token answer.
const ANSWER_LIMIT: usize = 1 << 20;
const STEP: &str = "fetch token for";

/// Gets a token: from the holder of the credentials if it does that itself, else with its login.
pub(crate) async fn fetch(call: &AuthCall<'_>, bearer: &Bearer, scopes: &Scopes) -> Result<Token> {
    let request = TokenRequest {
        host: call.endpoint.host.clone(),
        realm: bearer.realm.clone(),
        service: bearer.service.clone(),
        scopes: scopes.to_vec(),
    };
    let failed =
        |e: crate::CredentialsError| RegistryError::Credentials { host: request.host.clone(), message: e.0 };
    let credentials = &call.access.credentials;
    if let Some(token) = credentials.fetch_token(&request).await.map_err(failed)? {
        return Ok(token);
    }
    let login = credentials.login(&request.host).await.map_err(failed)?;
    let kind = if login.is_some() { "oauth" } else { "anonymous" };
    ask(call, &request, login.as_ref()).await.map_err(|source| RegistryError::Token {
        reference: call.reference.to_string(),
        kind,
        source: Box::new(source),
    })
}

async fn ask(call: &AuthCall<'_>, request: &TokenRequest, login: Option<&Login>) -> Result<Token> {
    match login {
        Some(Login::RefreshToken(_)) => post(call, request, login).await,
        Some(Login::Password { .. }) => match get(call, request, login).await {
            // GCR and Artifactory answer so where they want the OAuth form.
            Err(e) if matches!(e.status(), Some(401 | 404 | 405)) => match post(call, request, login).await {
                // The first answer says more about wrong credentials than a missing second form does.
                Err(second) if matches!(second.status(), Some(404 | 405)) => Err(e),
                other => other,
            },
            other => other,
        },
        None => get(call, request, None).await,
    }
}

fn realm(call: &AuthCall<'_>, request: &TokenRequest) -> Result<Url> {
    let bad = |message: String| RegistryError::Protocol {
        step: STEP,
        reference: call.reference.to_string(),
        host: request.host.clone(),
        message,
    };
    let url = Url::parse(&request.realm).map_err(|e| bad(format!("sent an invalid token realm: {e}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(bad(format!("sent a token realm with scheme {other:?}"))),
    }
}

async fn get(call: &AuthCall<'_>, request: &TokenRequest, login: Option<&Login>) -> Result<Token> {
    let mut url = realm(call, request)?;
    {
        let mut query = url.query_pairs_mut();
        if !request.service.is_empty() {
            query.append_pair("service", &request.service);
        }
        for scope in &request.scopes {
            query.append_pair("scope", scope);
        }
    }
    let mut builder = call.endpoint.client.get(url.clone());
    if let Some(Login::Password { username, secret }) = login {
        builder = builder.basic_auth(username, Some(secret));
    }
    exchange(call, Method::GET, &url, builder).await
}

async fn post(call: &AuthCall<'_>, request: &TokenRequest, login: Option<&Login>) -> Result<Token> {
    let url = realm(call, request)?;
    let scope = request.scopes.join(" ");
    let mut form = vec![("service", request.service.as_str()), ("client_id", CLIENT_ID), ("scope", &scope)];
    match login {
        Some(Login::Password { username, secret }) => {
            form.extend([("grant_type", "password"), ("username", username), ("password", secret)]);
        }
        Some(Login::RefreshToken(token)) => {
            form.extend([("grant_type", "refresh_token"), ("refresh_token", token)])
        }
        None => {}
    }
    let builder = call.endpoint.client.post(url.clone()).form(&form);
    exchange(call, Method::POST, &url, builder).await
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<f64>,
    #[serde(default)]
    issued_at: Option<String>,
}

async fn exchange(
    call: &AuthCall<'_>,
    method: Method,
    url: &Url,
    builder: reqwest::RequestBuilder,
) -> Result<Token> {
    let failed = |e: reqwest::Error| RegistryError::network(STEP, call.reference, &method, url, &e);
    let work = async {
        let response = builder.send().await.map_err(failed)?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let limit = if status == 200 { ANSWER_LIMIT } else { ERROR_BODY_LIMIT };
        let body = crate::client::bounded(response, limit).await.map_err(failed)?;
        Ok::<_, RegistryError>((status, retry_after, body))
    };
    let (status, retry_after, body) = match tokio::time::timeout(call.idle, work).await {
        Ok(result) => result?,
        Err(_) => return Err(RegistryError::broken(STEP, call.reference, &method, url, "timed out")),
    };
    if status != 200 {
        return Err(RegistryError::Status(Box::new(StatusError {
            step: STEP,
            reference: call.reference.to_string(),
            method: method.to_string(),
            address: address(url),
            status,
            message: message(&body),
            retry_after,
        })));
    }
    parse(&body).map_err(|message| RegistryError::Protocol {
        step: STEP,
        reference: call.reference.to_string(),
        host: address(url),
        message,
    })
}

fn parse(body: &[u8]) -> Result<Token, String> {
    // The parser's message would quote the body.
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "sent a malformed token".to_string())?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err("did not include a token in the response".to_string());
    }
    let seconds = answer.expires_in.filter(|s| s.is_finite() && *s > 0.0);
    Ok(Token {
        token,
        lifetime: seconds.map(|s| Duration::from_secs(s.min(1e9) as u64)),
        issued: answer.issued_at.and_then(|t| t.parse::<Timestamp>().ok()).map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers() {
        let t =
            parse(br#"{"token":"a","access_token":"b","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#)
                .unwrap();
        assert_eq!(
            (t.token.as_str(), t.lifetime, t.issued.is_some()),
            ("a", Some(Duration::from_secs(300)), true)
        );
        let t = parse(br#"{"access_token":"b","issued_at":"soon","expires_in":-1}"#).unwrap();
        assert_eq!((t.token.as_str(), t.lifetime, t.issued), ("b", None, None));
        for bad in ["{}", "", "canary", r#"{"token":{"canary":1}}"#] {
            assert!(!parse(bad.as_bytes()).unwrap_err().contains("canary"));
        }
    }
}
