//! One blob: is it there, can it be mounted, else upload it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kiln_oci::Descriptor;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Method, Response, Url};

use crate::client::{MakeBody, Repository, Target};
use crate::endpoint::Endpoint;
use crate::limit::Load;
use crate::scope::Scopes;
use crate::{ByteStream, PushContent, PushObserver, RegistryError, Result};

const STEP: &str = "push";

/// What the registry made of a request to start an upload.
enum Started {
    /// It has the blob now.
    Mounted,
    /// Send it here.
    Upload(Url),
}

impl Repository {
    /// Sees to it that the repository has the blob.
    pub(crate) async fn push_blob(
        &self,
        blob: &Descriptor,
        content: &dyn PushContent,
        observer: &dyn PushObserver,
    ) -> Result<()> {
        let retry = self.registry.0.config.retry;
        retry.run(&*self.access.observer, || self.push_blob_once(blob, content, observer)).await?;
        observer.blob(blob, blob.size);
        Ok(())
    }

    async fn push_blob_once(
        &self,
        blob: &Descriptor,
        content: &dyn PushContent,
        observer: &dyn PushObserver,
    ) -> Result<()> {
        let endpoint = self.own_endpoint()?;
        let started = match self.find(endpoint, blob, content).await? {
            Some(Started::Mounted) => return Ok(()),
            other => other,
        };
        // Before there is a place for it: opening may mean to fetch from the same registry, which needs a place too.
        let state = Arc::new(Upload::default());
        state.opened(self.open_content(blob, content).await?);
        let _permit = self.permit(Load::Blob).await;
        let url = match started {
            Some(Started::Upload(url)) => url,
            _ => self.start(endpoint).await?,
        };
        self.upload(endpoint, blob, url, content, &state, observer).await
    }

    /// Looks for the blob in the repository, then in others of the registry. `None` if it is nowhere.
    async fn find(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        content: &dyn PushContent,
    ) -> Result<Option<Started>> {
        let _permit = self.permit(Load::Json).await;
        let tail = format!("blobs/{}", blob.digest);
        let head = self.send(endpoint, &self.call(STEP, Method::HEAD, Target::Tail(&tail))).await?;
        match head.status().as_u16() {
            200 => return Ok(Some(Started::Mounted)),
            404 => {}
            _ => return Err(self.unexpected(STEP, &Method::HEAD, head).await),
        }
        let sources = content.sources(blob, &self.domain).await;
        match mount_candidate(&self.path, &sources) {
            Some(from) => self.mount(endpoint, blob, from).await,
            None => Ok(None),
        }
    }

    /// Asks for the blob of another repository. The registry may start an upload instead, or refuse.
    async fn mount(&self, endpoint: &Endpoint, blob: &Descriptor, from: &str) -> Result<Option<Started>> {
        let tail = format!("blobs/uploads/?mount={}&from={}", blob.digest, query(from));
        let mut call = self.call(STEP, Method::POST, Target::Tail(&tail));
        call.headers.push((CONTENT_LENGTH, HeaderValue::from_static("0")));
        call.extra = Scopes::repository(from, false);
        match self.send(endpoint, &call).await {
            Ok(response) if response.status() == 201 => Ok(Some(Started::Mounted)),
            Ok(response) if response.status() == 202 => {
                self.location(endpoint, &response).map(|url| Some(Started::Upload(url)))
            }
            Ok(response) if response.status().is_server_error() => {
                Err(self.unexpected(STEP, &Method::POST, response).await)
            }
            Err(e) if e.is_transient() => Err(e),
            // Most likely no rights on the other repository.
            refused => {
                tracing::debug!(from, status = ?refused.map(|r| r.status()), "mount refused, uploading");
                Ok(None)
            }
        }
    }

    async fn start(&self, endpoint: &Endpoint) -> Result<Url> {
        let mut call = self.call(STEP, Method::POST, Target::Tail("blobs/uploads/"));
        call.headers.push((CONTENT_LENGTH, HeaderValue::from_static("0")));
        let response = self.expect(endpoint, &call, &[202, 200]).await?;
        self.location(endpoint, &response)
    }

    fn location(&self, endpoint: &Endpoint, response: &Response) -> Result<Url> {
        let protocol = |message: &str| RegistryError::Protocol {
            step: STEP,
            reference: self.label.clone(),
            host: endpoint.host.clone(),
            message: message.to_string(),
        };
        let header = response
            .headers()
            .get(LOCATION)
            .ok_or_else(|| protocol("started an upload without a location"))?;
        let text = header.to_str().map_err(|_| protocol("sent a malformed upload location"))?;
        let url = response.url().join(text).map_err(|_| protocol("sent a malformed upload location"))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            _ => Err(protocol("sent an upload location that is not http")),
        }
    }

    async fn upload(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        mut url: Url,
        content: &dyn PushContent,
        state: &Arc<Upload>,
        observer: &dyn PushObserver,
    ) -> Result<()> {
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let body = || -> std::pin::Pin<Box<dyn Future<Output = Result<reqwest::Body>> + Send + '_>> {
            Box::pin(self.body(blob, content, state.clone()))
        };
        let make: MakeBody<'_> = &body;
        let mut call = self.call(STEP, Method::PUT, Target::Address(url));
        call.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
        call.headers.push((CONTENT_LENGTH, HeaderValue::from(blob.size)));
        call.body = Some(make);
        call.limit = None;
        let sending = self.expect(endpoint, &call, &[200, 201, 204]);
        match self.watch(blob, state, observer, sending).await {
            Ok(_) => Ok(()),
            // A connection that broke because our own data did.
            Err(error) => Err(state.take_failure().map_or(error, |message| RegistryError::Read {
                reference: self.label.clone(),
                digest: blob.digest,
                message,
            })),
        }
    }

    async fn body(
        &self,
        blob: &Descriptor,
        content: &dyn PushContent,
        state: Arc<Upload>,
    ) -> Result<reqwest::Body> {
        let stream = match state.take_opened() {
            Some(stream) => stream,
            None => self.open_content(blob, content).await?,
        };
        state.sent.store(0, Ordering::Relaxed);
        Ok(reqwest::Body::wrap_stream(stream.inspect(move |piece| match piece {
            Ok(data) => {
                state.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Err(e) => state.fail(e.to_string()),
        })))
    }

    async fn open_content(&self, blob: &Descriptor, content: &dyn PushContent) -> Result<ByteStream> {
        content.open(blob).await.map_err(|e| RegistryError::Read {
            reference: self.label.clone(),
            digest: blob.digest,
            message: e.to_string(),
        })
    }

    /// Reports progress, and gives up on an upload that stands still.
    async fn watch(
        &self,
        blob: &Descriptor,
        state: &Upload,
        observer: &dyn PushObserver,
        sending: impl Future<Output = Result<Response>>,
    ) -> Result<Response> {
        let mut sending = std::pin::pin!(sending);
        let mut tick = tokio::time::interval(Duration::from_millis(150));
        let (mut last, mut since) = (0, tokio::time::Instant::now());
        loop {
            tokio::select! {
                result = &mut sending => return result,
                _ = tick.tick() => {}
            }
            let sent = state.sent.load(Ordering::Relaxed);
            if sent != last {
                (last, since) = (sent, tokio::time::Instant::now());
                observer.blob(blob, sent);
            }
            if since.elapsed() > self.timeouts().upload {
                return Err(RegistryError::Network {
                    step: STEP,
                    reference: self.label.clone(),
                    method: Method::PUT.to_string(),
                    address: format!("blob {}", blob.digest),
                    message: format!("no progress for {} s", self.timeouts().upload.as_secs()),
                    transient: true,
                });
            }
        }
    }
}

/// What is known about an upload from outside of it.
#[derive(Default)]
struct Upload {
    sent: AtomicU64,
    failure: Mutex<Option<String>>,
    /// The content for the first try.
    first: Mutex<Option<ByteStream>>,
}

impl Upload {
    fn opened(&self, stream: ByteStream) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    fn take_opened(&self) -> Option<ByteStream> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, message: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    fn take_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The source whose path has most leading parts in common with ours: rights are likeliest there. Never ourselves.
fn mount_candidate<'a>(path: &str, sources: &'a [String]) -> Option<&'a str> {
    let common = |other: &str| path.split('/').zip(other.split('/')).take_while(|(a, b)| a == b).count();
    let sources = sources.iter().map(String::as_str).filter(|s| *s != path && is_repository(s));
    sources.max_by_key(|s| common(s))
}

/// Labels are data of others: only what can be a repository goes into an address.
fn is_repository(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

fn query(s: &str) -> String {
    percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_from_the_nearest() {
        let sources = ["z/a", "team/x", "team/app/base", "team/app"].map(String::from);
        assert_eq!(mount_candidate("team/app/web", &sources), Some("team/app"));
        assert_eq!(mount_candidate("team/app", &["team/app".to_string()]), None);
        assert_eq!(mount_candidate("a", &["b?x=1&".to_string()]), None);
        assert_eq!(query("a/b"), "a%2Fb");
    }
}
