//! Asking servers, with what is known already.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_snapshot::Snapshot;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, Response, StatusCode};
use tokio_util::io::ReaderStream;
use url::Url;

use super::gunzip::gunzip;
use super::save::Save;
use super::store::{self, Known};
use super::{HttpId, HttpSource, Resolved, date, filename};
use crate::blocking::blocking;
use crate::{LogStream, Result, SourceContext, SourceError};

/// The host that means the client's session.
const SESSION_HOST: &str = "buildkit-session";
/// Secrets looked for when none is named; the host follows.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";
/// Waits between tries of a server that is out of order.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// What to do about a failure.
enum Failure {
    /// It may pass.
    Transient(SourceError),
    /// It will not.
    Final(SourceError),
}

fn failure(again: bool, error: SourceError) -> Failure {
    if again { Failure::Transient(error) } else { Failure::Final(error) }
}

/// Refused connections, unknown names, bad certificates and addresses will not mend in seconds.
fn is_final(e: &reqwest::Error) -> bool {
    e.is_builder() || e.is_redirect() || (e.is_connect() && !e.is_timeout())
}

/// A download that began.
struct Begun {
    etag: String,
    disposition: Option<String>,
    modified: Option<Timestamp>,
    size: Option<u64>,
    /// Whether it can be asked for again.
    again: bool,
    body: BoxStream<'static, std::io::Result<Bytes>>,
}

impl HttpSource {
    /// Finds out what the address stands for now, downloading it only if it changed.
    pub(super) async fn resolve(&self, id: &HttpId, cx: &SourceContext) -> Result<(Resolved, Snapshot)> {
        let fingerprint = id.fingerprint();
        let _one = self.locks.lock(&fingerprint.to_string()).await;
        let found = match cx.known_http(&fingerprint) {
            Some(known) => known,
            None => self.ask(id, fingerprint, cx).await?,
        };
        cx.learn_http(&fingerprint, &found);
        Ok(found)
    }

    async fn ask(
        &self,
        id: &HttpId,
        fingerprint: Digest,
        cx: &SourceContext,
    ) -> Result<(Resolved, Snapshot)> {
        let snapshots = self.snapshots.clone();
        let known = blocking(move || store::find(&snapshots, &fingerprint)).await?;
        let with_etag: Vec<&Known> = known.iter().filter(|k| !k.etag.is_empty()).collect();
        if !with_etag.is_empty()
            && let Some(found) = self.unchanged(id, &with_etag, cx).await?
        {
            return Ok((found.resolved.clone(), found.snapshot.clone()));
        }
        self.download(id, None, cx).await
    }

    /// Content of a known digest: what was fetched before, else what the server has now, if it is that.
    pub(super) async fn fetch_expected(
        &self,
        id: &HttpId,
        digest: Digest,
        cx: &SourceContext,
    ) -> Result<(Resolved, Snapshot)> {
        let fingerprint = id.fingerprint();
        let _one = self.locks.lock(&fingerprint.to_string()).await;
        let snapshots = self.snapshots.clone();
        let known = blocking(move || store::find(&snapshots, &fingerprint)).await?;
        if let Some(known) = known.into_iter().find(|k| k.resolved.digest == digest) {
            return Ok((known.resolved, known.snapshot));
        }
        self.download(id, Some(digest), cx).await
    }

    /// Asks whether one of the known answers is still good. `HEAD`, because some servers answer `If-None-Match` on
    /// `GET` with the whole content although they have the same tag.
    async fn unchanged<'a>(
        &self,
        id: &HttpId,
        known: &[&'a Known],
        cx: &SourceContext,
    ) -> Result<Option<&'a Known>> {
        let mut headers = self.headers(id, cx).await?;
        let tags = known.iter().map(|k| k.etag.as_str()).collect::<Vec<_>>().join(", ");
        let Ok(value) = HeaderValue::from_str(&tags) else { return Ok(None) };
        headers.insert(IF_NONE_MATCH, value);
        let request = self.registry.http_client()?.request(Method::HEAD, &id.url).headers(headers).send();
        let Ok(Ok(response)) = tokio::time::timeout(self.timeouts.idle, request).await else {
            return Ok(None);
        };
        let status = response.status();
        if status != StatusCode::OK && status != StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let tag = etag(response.headers());
        Ok(match (tag.as_str(), status, known) {
            // Servers may leave the tag out when there was only one to choose from.
            ("", StatusCode::NOT_MODIFIED, [only]) => Some(only),
            (tag, _, known) => known.iter().find(|k| k.etag == tag).copied(),
        })
    }

    async fn download(
        &self,
        id: &HttpId,
        expected: Option<Digest>,
        cx: &SourceContext,
    ) -> Result<(Resolved, Snapshot)> {
        let mut waits = WAITS.iter();
        loop {
            let error = match self.download_once(id, expected, cx).await {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(error)) => error,
            };
            let Some(wait) = waits.next() else { return Err(error) };
            let note = format!("error: {error}\nretrying in {}s\n", wait.as_secs());
            cx.progress.log(LogStream::Stderr, note.as_bytes());
            tokio::time::sleep(*wait).await;
        }
    }

    async fn download_once(
        &self,
        id: &HttpId,
        expected: Option<Digest>,
        cx: &SourceContext,
    ) -> Result<(Resolved, Snapshot), Failure> {
        let mut begun = self.begin(id, cx).await?;
        let name = filename::choose(id, begun.disposition.as_deref());
        let mut status = cx.begin(format!("downloading {name}"));
        let mut save = Save::begin(&self.snapshots, id.file(name.clone())).await.map_err(Failure::Final)?;
        let (mut current, total) = (0, begun.size.unwrap_or(0));
        loop {
            let next = tokio::time::timeout(self.timeouts.idle, begun.body.next()).await;
            match next {
                Ok(None) => break,
                Ok(Some(Ok(piece))) => {
                    current += piece.len() as u64;
                    save.write(piece).await.map_err(Failure::Final)?;
                    status.set("", current, total);
                }
                Ok(Some(Err(e))) => return Err(failure(begun.again, http_error(id, e.to_string()))),
                Err(_) => {
                    return Err(failure(begun.again, http_error(id, "no data for too long".to_string())));
                }
            }
        }
        let finished = save.finish(begun.modified, expected).await;
        let (digest, snapshot) = finished.map_err(Failure::Final)?;
        let last_modified = begun.modified.map(date::format);
        let resolved =
            Resolved { digest, filename: name, last_modified, snapshot: Some(snapshot.id().clone()) };
        let (snapshots, fingerprint, known) = (self.snapshots.clone(), id.fingerprint(), resolved.clone());
        let etag = begun.etag;
        let noted = blocking(move || store::remember(&snapshots, &fingerprint, &etag, &known)).await;
        noted.map_err(Failure::Final)?;
        Ok((resolved, snapshot))
    }

    async fn begin(&self, id: &HttpId, cx: &SourceContext) -> Result<Begun, Failure> {
        let url = Url::parse(&id.url).map_err(|e| Failure::Final(http_error(id, e.to_string())))?;
        if url.host_str() == Some(SESSION_HOST) {
            return self.begin_upload(id, &url, cx).await.map_err(Failure::Final);
        }
        let headers = self.headers(id, cx).await.map_err(Failure::Final)?;
        let client = self.registry.http_client().map_err(|e| Failure::Final(e.into()))?;
        let request = client.get(url).headers(headers).send();
        let response = match tokio::time::timeout(self.timeouts.idle, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) if is_final(&e) => return Err(Failure::Final(http_error(id, causes(&e)))),
            Ok(Err(e)) => return Err(Failure::Transient(http_error(id, causes(&e)))),
            Err(_) => return Err(Failure::Transient(http_error(id, "timed out".to_string()))),
        };
        let status = response.status().as_u16();
        match status {
            200..=399 => Ok(begun(response)),
            408 | 429 | 500..=599 => {
                Err(Failure::Transient(http_error(id, format!("invalid response status {status}"))))
            }
            _ => Err(Failure::Final(http_error(id, format!("invalid response status {status}")))),
        }
    }

    async fn begin_upload(&self, id: &HttpId, url: &Url, cx: &SourceContext) -> Result<Begun> {
        let reader = cx.client.upload(SESSION_HOST, url.path()).await;
        let reader = reader.map_err(|e| SourceError::Client { what: id.display(), message: e.0 })?;
        let body = ReaderStream::with_capacity(reader, 64 << 10).boxed();
        Ok(Begun { etag: String::new(), disposition: None, modified: None, size: None, again: false, body })
    }

    async fn headers(&self, id: &HttpId, cx: &SourceContext) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        // On every request: servers may have another tag for packed content.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let bad = |name: &str| SourceError::Invalid {
            identifier: id.display(),
            message: format!("value of {name} cannot be sent in a header"),
        };
        for (name, value) in &id.headers {
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(name))?;
            headers.insert(key, HeaderValue::from_str(value).map_err(|_| bad(name))?);
        }
        if let Some((name, text)) = authorization(id, cx).await? {
            let mut value =
                HeaderValue::from_str(text.trim_end_matches(['\r', '\n'])).map_err(|_| bad(&name))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

/// The named secret, which must exist, else those of the host, which may.
async fn authorization(id: &HttpId, cx: &SourceContext) -> Result<Option<(String, String)>> {
    let ask = async |name: &str| {
        let secret = cx.client.secret(name).await;
        let secret = secret
            .map_err(|e| SourceError::Client { what: format!("http auth secret {name}"), message: e.0 })?;
        Ok::<_, SourceError>(secret.map(|s| String::from_utf8_lossy(&s).into_owned()))
    };
    if let Some(name) = &id.auth_header_secret {
        return match ask(name).await? {
            Some(secret) => Ok(Some((name.clone(), secret))),
            None => Err(SourceError::Client {
                what: format!("failed to retrieve HTTP auth secret {name}"),
                message: "not found".to_string(),
            }),
        };
    }
    let url = Url::parse(&id.url).ok();
    let Some(host) = url.as_ref().and_then(Url::host_str).filter(|h| *h != SESSION_HOST) else {
        return Ok(None);
    };
    // The token wins where both are there, as the later of the two in BuildKit.
    let (header, token) = (format!("{HEADER_SECRET}{host}"), format!("{TOKEN_SECRET}{host}"));
    if let Some(secret) = ask(&token).await? {
        return Ok(Some((token, format!("Bearer {secret}"))));
    }
    Ok(ask(&header).await?.map(|secret| (header, secret)))
}

fn begun(response: Response) -> Begun {
    let text =
        |name: HeaderName| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
    let packed = text(CONTENT_ENCODING).is_some_and(|e| e.eq_ignore_ascii_case("gzip"));
    let (etag, disposition) = (etag(response.headers()), text(CONTENT_DISPOSITION));
    let modified = text(LAST_MODIFIED).and_then(|t| date::parse(&t));
    let size = response.content_length().filter(|_| !packed);
    let body = response.bytes_stream().map(|r| r.map_err(|e| std::io::Error::other(causes(&e)))).boxed();
    let body = if packed { gunzip(body) } else { body };
    Begun { etag, disposition, modified, size, again: true, body }
}

/// The entity tag without the mark of a weak one.
fn etag(headers: &HeaderMap) -> String {
    let tag = headers.get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or_default();
    tag.strip_prefix("W/").unwrap_or(tag).to_string()
}

fn http_error(id: &HttpId, message: String) -> SourceError {
    SourceError::Http { url: id.display(), message }
}

/// The causes of a failure without its address, which may hold credentials.
fn causes(e: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    if parts.is_empty() { "request failed".to_string() } else { parts.join(": ") }
}
