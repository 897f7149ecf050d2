//! The sending side.

use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::TransferError;
use super::packet::{DataBuffer, Packet};
use super::tree::Tree;
use crate::{RawStream, Role};

/// Files that are read at the same time.
const READERS: usize = 4;
/// Contents in one packet, in bytes.
const CHUNK: usize = 32 << 10;

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Entries announced.
    pub entries: u64,
    /// Files whose contents were asked for.
    pub files: u64,
    /// Bytes of all packets.
    pub bytes: u64,
}

/// Sends `tree` to the other side; returns when it has everything and says so.
///
/// Dropping the future stops the transfer. Reading runs on threads of its own: they wait for the network and would
/// otherwise starve the runtime's pool of threads, on which other builds depend.
pub async fn send(stream: RawStream, tree: Arc<dyn Tree>) -> Result<Sent, TransferError> {
    let RawStream { outgoing, mut incoming, role } = stream;
    let shared = Arc::new(Shared {
        tree,
        files: Mutex::default(),
        counters: Counters::default(),
        stop: AtomicBool::new(false),
    });
    let _stop = StopOnDrop(shared.clone());
    let (jobs, queue) = blocking::channel();
    let queue = Arc::new(Mutex::new(queue));
    let (report, mut failures) = mpsc::channel::<TransferError>(1);
    spawn_walker(shared.clone(), outgoing.clone(), report.clone())?;
    for _ in 0..READERS {
        spawn_reader(shared.clone(), queue.clone(), outgoing.clone(), report.clone())?;
    }
    drop(report);
    let answer = async {
        loop {
            let packet = match incoming.next().await {
                Some(Ok(message)) => Packet::decode(message)?,
                Some(Err(status)) => return Err(TransferError::Call(status)),
                None => return Err(TransferError::BrokeOff),
            };
            match packet {
                Packet::Request(id) => {
                    // The readers only end after us.
                    let _ = jobs.send(shared.take(id).ok_or(TransferError::FileId(id))?);
                }
                Packet::Fin => return Ok(()),
                Packet::Error(text) => return Err(TransferError::Receiver(text)),
                Packet::Stat(_) => return Err(TransferError::Unexpected("a receiver announces nothing")),
                Packet::Data(..) => return Err(TransferError::Unexpected("a receiver sends no data")),
            }
        }
    };
    let result = tokio::select! {
        biased;
        Some(e) = failures.recv() => Err(e),
        result = answer => result,
    };
    if let Err(e) = &result {
        // The peer may be gone already; then there is nobody to tell.
        let _ = outgoing.try_send(Packet::Error(e.to_string()).encode());
    }
    result?;
    let fin = Packet::Fin.encode();
    shared.counters.bytes.fetch_add(fin.len() as u64, Ordering::Relaxed);
    let _ = outgoing.send(fin).await;
    // Without work the readers end, and with the last handle to it the stream.
    drop(jobs);
    drop(outgoing);
    // A server must not wait here: the Go caller keeps its side open until the server has returned.
    if role == Role::Caller {
        while let Some(message) = incoming.next().await {
            message.map_err(TransferError::Call)?;
        }
    }
    Ok(shared.counters.get())
}

struct Shared {
    tree: Arc<dyn Tree>,
    /// Files that were announced and not yet asked for.
    files: Mutex<HashMap<u32, Announced>>,
    counters: Counters,
    stop: AtomicBool,
}

/// A file that can be asked for.
struct Announced {
    path: Box<[u8]>,
    size: u64,
}

/// A file that was asked for.
struct Job {
    id: u32,
    path: PathBuf,
    size: u64,
}

#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    fn get(&self) -> Sent {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Sent { entries: get(&self.entries), files: get(&self.files), bytes: get(&self.bytes) }
    }
}

impl Shared {
    fn take(&self, id: u32) -> Option<Job> {
        let file = self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(file.path.into_vec()));
        Some(Job { id, path, size: file.size })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sends one message, waiting for room.
    fn emit(&self, outgoing: &mpsc::Sender<Bytes>, message: Bytes) -> Result<(), TransferError> {
        self.counters.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        if self.stopped() || outgoing.blocking_send(message).is_err() {
            return Err(TransferError::Stopped);
        }
        Ok(())
    }
}

struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

type Report = mpsc::Sender<TransferError>;

pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<oneshot::Receiver<()>, TransferError> {
    let (running, ended) = oneshot::channel::<()>();
    let work = move || {
        work();
        drop(running);
    };
    let thread = std::thread::Builder::new().name(name.to_string()).spawn(work);
    thread.map_err(|e| TransferError::io("start thread", name, e))?;
    Ok(ended)
}

fn spawn_walker(
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Bytes>,
    report: Report,
) -> Result<(), TransferError> {
    let work = move || {
        if let Err(e) = announce(&shared, &outgoing) {
            let _ = report.try_send(e);
        }
    };
    spawn("kiln-walk", work).map(drop)
}

fn announce(shared: &Shared, outgoing: &mpsc::Sender<Bytes>) -> Result<(), TransferError> {
    let mut next: u32 = 0;
    shared.tree.walk(&mut |stat| {
        if stat.has_contents() {
            let file =
                Announced { path: stat.path.as_ref().into(), size: u64::try_from(stat.size).unwrap_or(0) };
            shared.files.lock().unwrap_or_else(PoisonError::into_inner).insert(next, file);
        }
        next = next.checked_add(1).ok_or(TransferError::Limit { what: "entries", limit: u32::MAX.into() })?;
        shared.counters.entries.fetch_add(1, Ordering::Relaxed);
        shared.emit(outgoing, Packet::Stat(Some(Box::new(stat))).encode())
    })?;
    shared.emit(outgoing, Packet::Stat(None).encode())
}

type Queue = Arc<Mutex<blocking::Receiver<Job>>>;

fn spawn_reader(
    shared: Arc<Shared>,
    queue: Queue,
    outgoing: mpsc::Sender<Bytes>,
    report: Report,
) -> Result<(), TransferError> {
    let work = move || {
        loop {
            // The lock is the queue's second half: whoever holds it waits for the next job.
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            if let Err(e) = send_file(&shared, &outgoing, &job) {
                let _ = report.try_send(e);
                return;
            }
        }
    };
    spawn("kiln-read", work).map(drop)
}

/// Sends the contents of one file. A file that cannot be opened any more is sent empty, as the protocol has it.
fn send_file(shared: &Shared, outgoing: &mpsc::Sender<Bytes>, job: &Job) -> Result<(), TransferError> {
    shared.counters.files.fetch_add(1, Ordering::Relaxed);
    let path = &job.path;
    match shared.tree.open(path) {
        Err(e) => tracing::warn!(path = %path.display(), error = %e, "file cannot be read and is sent empty"),
        Ok(mut file) => {
            let mut left = job.size;
            loop {
                // One byte more than is left shows the end without another round.
                let room = usize::try_from(left.saturating_add(1)).unwrap_or(CHUNK).min(CHUNK);
                let mut buffer = DataBuffer::new(room);
                let ended = buffer.fill_from(&mut file).map_err(|e| TransferError::io("read", path, e))?;
                left = left.saturating_sub(buffer.len() as u64);
                if buffer.len() > 0 {
                    shared.emit(outgoing, buffer.into_packet(job.id))?;
                }
                if ended {
                    break;
                }
            }
        }
    }
    shared.emit(outgoing, Packet::Data(job.id, Bytes::new()).encode())
}
