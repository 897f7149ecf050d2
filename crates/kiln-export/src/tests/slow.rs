//! Clients that read nothing, beside one that does, where there are few threads for blocking work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

const CLIENTS: usize = 12;
const LIMIT: Duration = Duration::from_secs(120);
/// More than all that is between an exporter and its client.
const SIZE: u64 = 24 << 20;

/// Takes the call and none of what it brings.
struct Deaf {
    here: Arc<AtomicUsize>,
}

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl FileSend for Deaf {
    async fn diff_copy(&self, _: SendTarget, stream: RawStream) -> Result<(), Status> {
        self.here.fetch_add(1, Ordering::SeqCst);
        let _leaves = Leaves(self.here.clone());
        let _stream = stream;
        std::future::pending().await
    }
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect(what);
}

fn kind(n: usize) -> (&'static str, &'static [(&'static str, &'static str)]) {
    [("tar", &[][..]), ("local", &[]), ("oci", &[("compression", "uncompressed")])][n % 3]
}

#[test]
fn clients_that_read_nothing_hold_no_thread() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let w = Arc::new(World::new().await);
        let top = w.layer(None, &[("small", "x"), ("z/", "")]);
        let top = w.layer(Some(&top), &[]);
        let active = w.snapshots.new_active(Some(&top), NewRef::regular("big".to_string())).unwrap();
        let mounted = active.mount().unwrap();
        mounted.root().create_file("big", 0o644).unwrap().set_len(SIZE).unwrap();
        drop(mounted);
        let input = single(Some(active.commit().unwrap()));
        let here = Arc::new(AtomicUsize::new(0));
        let mut exports = Vec::new();
        for n in 0..CLIENTS {
            let server = Server::new().file_send(Arc::new(Deaf { here: here.clone() }));
            let id = format!("deaf-{n}");
            w.join(server, &id);
            let (w, input) = (w.clone(), input.clone());
            exports.push(tokio::spawn(async move {
                let (kind, attrs) = kind(n);
                w.export_to(&id, kind, attrs, 10, &input, &()).await
            }));
        }
        until("all clients are called", || here.load(Ordering::SeqCst) == CLIENTS).await;
        for n in 0..3 {
            let (kind, attrs) = kind(n);
            let index = if kind == "local" { 10 } else { 0 };
            let done = tokio::time::timeout(LIMIT, w.export(kind, attrs, index, &input)).await;
            done.expect("in normal time").unwrap();
        }
        assert!(exports.iter().all(|e| !e.is_finished()));
        for export in &exports {
            export.abort();
        }
        until("who is cancelled lets its client go", || here.load(Ordering::SeqCst) == 0).await;
    });
}
