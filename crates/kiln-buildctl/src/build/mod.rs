//! `buildctl build`.

mod caches;
pub(crate) mod graph;
mod metadata;
mod metrics;
mod options;
mod outputs;
pub(crate) mod progress;
mod session;

use crate::cli::Values;
use crate::command::env;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use kiln_cli::build::run::interrupted;
use kiln_cli::printer;
use kiln_client::{BuildRequest, SolveResponse, SourcePolicy, Work, new_id};
use kiln_progress::Update;
use metrics::CacheMetrics;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;
use tokio::sync::mpsc;

const CALL: Call<'_> = Call::Unary("listing workers for Build: failed to list workers");
/// Updates on their way to the display.
const QUEUE: usize = 256;

/// Builds, shows it, and leaves the results where they were asked for.
pub(crate) async fn run(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let begin = Instant::now();
    let mut watchers = Watchers::open(values, begin)?;
    let (request, warnings) = request(values)?;
    let reference = request.reference.clone();
    let format = values.text("log-format");
    warnings.iter().for_each(|w| printer::people(&crate::text::log_line(format, w, jiff::Timestamp::now())));
    let progress = progress::start(values.text_or("progress", "auto"), progress::Out::Stderr, &env)?;
    let (updates, receiver) = mpsc::channel(QUEUE);
    let (shown, to_show) = mpsc::channel(QUEUE);
    let feed = progress.feed(to_show);
    let watch = tokio::spawn(async move {
        watchers.watch(receiver, shown).await;
        watchers
    });
    let (solved, is_canceled) = tokio::select! {
        result = solve(daemon, request, updates) => (result, false),
        result = interrupted() => {
            let canceled = Err("failed to solve: Canceled: context canceled".into());
            (result.map_err(Error::from).and(canceled), true)
        }
    };
    let watchers = watch.await;
    let _ = feed.await;
    if is_canceled {
        progress.cancel();
    }
    let _ = tokio::task::spawn_blocking(move || progress.finish()).await;
    if let Some(path) = Some(values.text("ref-file")).filter(|p| !p.is_empty()) {
        // The build counts, not its name.
        let _ = metadata::write(Path::new(path), reference.as_bytes());
    }
    let response = solved?;
    if let Some(path) = Some(values.text("metadata-file")).filter(|p| !p.is_empty()) {
        metadata::write(Path::new(path), metadata::to_json(&response.exporter_response).as_bytes())?;
    }
    answer(&response.answer)?;
    match watchers {
        Ok(watchers) => watchers.finish(),
        Err(_) => Ok(()),
    }
}

async fn solve(
    daemon: &Daemon,
    request: BuildRequest,
    updates: mpsc::Sender<Update>,
) -> Result<SolveResponse, Error> {
    Ok(daemon.client(CALL).await?.solve(request, updates).await?)
}

/// What the flags ask for, and what there is to say about them. The order is that of BuildKit's checks.
fn request(values: &Values) -> Result<(BuildRequest, Vec<String>), Error> {
    let mut warnings = Vec::new();
    let registry_tls = session::tls_contexts(values.list("registry-auth-tlscontext"))?;
    let ssh = values.list("ssh").iter().map(|s| session::ssh(s)).collect::<Result<_, _>>()?;
    let secrets = session::secrets(values.list("secret"), &|name| {
        std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes)
    })?;
    let entitlements = values.list("allow").to_vec();
    entitlements.iter().try_for_each(|e| session::check_entitlement(e))?;
    let exports = outputs::parse(values.list("output"))?;
    let cache_exports = caches::exports(values.list("export-cache"), &env, &mut warnings)?;
    let cache_imports = caches::imports(values.list("import-cache"), &env, &mut warnings)?;
    let source_policy = source_policy(values.text("source-policy-file"))?;
    let mut attrs = options::parse(values.list("opt"), &env).map_err(|e| format!("invalid opt: {e}"))?;
    let local_dirs = session::locals(values.list("local")).map_err(|e| format!("invalid local: {e}"))?;
    let layouts =
        session::layouts(values.list("oci-layout")).map_err(|e| format!("invalid oci-layout: {e}"))?;
    let work = match values.text("frontend") {
        "" => Work::Definition(Box::new(graph::from_stdin(values.is("no-cache"))?)),
        name => {
            if values.is("no-cache") {
                attrs.insert("no-cache".into(), String::new());
            }
            Work::Frontend { name: name.into(), attrs, inputs: BTreeMap::new() }
        }
    };
    // A broken configuration means that nobody is logged in.
    let credentials = kiln_cli::build::request::credentials();
    let credentials = credentials.map_err(|e| warnings.push(e.to_string())).ok();
    let credentials = credentials.map(|mut c| {
        c.registry_tls = registry_tls;
        c
    });
    let request = BuildRequest {
        reference: new_id(),
        exports,
        local_dirs,
        layouts,
        secrets,
        ssh,
        credentials,
        cache_imports,
        cache_exports,
        entitlements,
        source_policy,
        proxy_network: values.is("proxy-network"),
        ..BuildRequest::new(work)
    };
    Ok((request, warnings))
}

fn source_policy(path: &str) -> Result<Option<SourcePolicy>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(Error::file("open", path))?;
    let policy = SourcePolicy::from_json(&text);
    policy.map(Some).map_err(|e| format!("failed to unmarshal source-policy-file {path:?}: {e}").into())
}

/// The answer to a question to the frontend, on stdout.
fn answer(answer: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    let data = |bytes: &[u8]| printer::data(bytes).map_err(Error::Output);
    if let Some(text) = answer.get("result.txt") {
        return data(text);
    }
    answer
        .iter()
        .filter(|(key, _)| key.starts_with("result."))
        .try_for_each(|(key, value)| data(&[key.as_bytes(), b"\n", value, b"\n"].concat()))
}

/// Who else wants to know what happens: `--trace`, `--debug-json-cache-metrics`.
struct Watchers {
    trace: Option<std::fs::File>,
    metrics: Option<CacheMetrics>,
}

impl Watchers {
    fn open(values: &Values, begin: Instant) -> Result<Self, Error> {
        let trace = match values.text("trace") {
            "" => None,
            path => {
                let mut options = OpenOptions::new();
                let file = options.append(true).create(true).mode(0o600).open(path);
                Some(file.map_err(Error::file("open", path))?)
            }
        };
        let metrics = CacheMetrics::open(values.text("debug-json-cache-metrics"), begin)?;
        Ok(Self { trace, metrics })
    }

    async fn watch(&mut self, mut from: mpsc::Receiver<Update>, to: mpsc::Sender<Update>) {
        while let Some(update) = from.recv().await {
            if let Some(file) = &mut self.trace {
                let line = kiln_go::json::escape_html(&serde_json::to_string(&update).unwrap_or_default());
                if writeln!(file, "{line}").is_err() {
                    printer::warning("the trace file cannot be written any more");
                    self.trace = None;
                }
            }
            if let Some(metrics) = &mut self.metrics {
                metrics.update(&update);
            }
            // A display that was closed does not stop a build.
            let _ = to.send(update).await;
        }
    }

    fn finish(self) -> Result<(), Error> {
        self.metrics.map_or(Ok(()), CacheMetrics::finish)
    }
}
