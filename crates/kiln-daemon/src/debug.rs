//! `--debugaddr`: numbers and a summary of what the process does, over HTTP. Whoever reaches the address may read them.

use crate::listen::{self, Conn, ListenError, Listener};
use crate::metrics::{self, Snapshot};
use crate::services::Services;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;

const PAGES: &str = "\
/debug/vars    numbers as JSON
/debug/tasks   tasks of the runtime, threads of the process
/metrics       numbers for Prometheus
";
const TEXT: &str = "text/plain; charset=utf-8";
/// How long a client may take to ask.
const ASK: Duration = Duration::from_secs(10);

/// `host:port`, or an address as of `--addr`.
///
/// # Errors
/// If it cannot be listened on.
pub(crate) async fn listen(address: &str) -> Result<Listener, ListenError> {
    let address = if address.contains("://") { address.to_string() } else { format!("tcp://{address}") };
    listen::listen_unsecured(&address).await
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: Listener, services: Services) {
    let (mut incoming, _path) = listen::incoming(vec![listener]);
    while let Some(conn) = incoming.recv().await {
        if let Ok(conn) = conn {
            tokio::spawn(connection(conn, services.clone()));
        }
    }
}

async fn connection(conn: Conn, services: Services) {
    let answer = service_fn(move |request| {
        let response = respond(&request, &services);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASK)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(conn), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "debug endpoint");
    }
}

fn respond<B>(request: &Request<B>, services: &Services) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
    }
    match request.uri().path() {
        "/" | "/debug" | "/debug/" => page(StatusCode::OK, TEXT, PAGES.into()),
        "/debug/vars" => match serde_json::to_string_pretty(&Snapshot::take(services)) {
            Ok(json) => page(StatusCode::OK, "application/json; charset=utf-8", json + "\n"),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/debug/tasks" => {
            let vars = Snapshot::take(services);
            let text = format!("{vars:#?}\n\nthread\tstate\tname\twaits in\n{}", metrics::threads());
            page(StatusCode::OK, TEXT, text)
        }
        "/metrics" => page(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            Snapshot::take(services).prometheus(),
        ),
        path if path.starts_with("/debug/pprof") => {
            let text =
                "pprof belongs to Go programs; this one has /debug/tasks, and perf reads its symbols\n";
            page(StatusCode::NOT_FOUND, TEXT, text.into())
        }
        _ => page(StatusCode::NOT_FOUND, TEXT, format!("not found; there are:\n{PAGES}")),
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
