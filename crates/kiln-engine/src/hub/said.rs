//! All that was said: the last of it in memory, what is older in a file without a name.

use kiln_progress::Update;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// About how many bytes are in memory at most; half of them are when some went to the file.
const RECENT: usize = 1 << 20;

/// Batches in the order in which they were said.
#[derive(Debug)]
pub(super) struct Said {
    dir: PathBuf,
    file: Option<Arc<File>>,
    /// Bytes written.
    written: u64,
    stored: Vec<Stored>,
    /// Number of the first one in memory.
    first: u64,
    recent: VecDeque<Arc<Update>>,
    weight: usize,
}

/// Batches that are not in memory.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Number of the first one to be read.
    start: u64,
    /// Number of the one after the last.
    pub(super) end: u64,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// As JSON, one after the other, the first one being number `from`.
    File { file: Arc<File>, at: u64, length: usize, from: u64 },
    /// They could not be written: what matters of them, without output.
    Memory(Arc<Update>),
}

/// What comes after some number of batches.
pub(super) enum Next {
    /// To be read, which may take a while.
    Stored(Stored),
    /// So many are in memory; none when there is no more.
    Recent(usize),
}

impl Said {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, file: None, written: 0, stored: Vec::new(), first: 0, recent: VecDeque::new(), weight: 0 }
    }

    pub(super) fn push(&mut self, update: Update) {
        self.weight += weight(&update);
        self.recent.push_back(Arc::new(update));
        if self.weight > RECENT {
            self.store();
        }
    }

    /// Where the batches after the first `seen` are.
    pub(super) fn after(&self, seen: u64) -> Next {
        let stored = self.stored.get(self.stored.partition_point(|s| s.end <= seen));
        match stored {
            Some(stored) => Next::Stored(Stored { start: seen, ..stored.clone() }),
            None => Next::Recent(self.recent.len().saturating_sub(self.skip(seen))),
        }
    }

    /// Up to `most` of the batches after the first `seen`, which are in memory.
    pub(super) fn recent(&self, seen: u64, most: usize) -> Vec<Arc<Update>> {
        self.recent.iter().skip(self.skip(seen)).take(most).cloned().collect()
    }

    fn skip(&self, seen: u64) -> usize {
        usize::try_from(seen.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Moves the older half out of memory.
    fn store(&mut self) {
        let mut batches = Vec::new();
        while self.weight > RECENT / 2 {
            let Some(batch) = self.recent.pop_front() else { break };
            self.weight -= weight(&batch);
            batches.push(batch);
        }
        let from = self.first;
        self.first += batches.len() as u64;
        let place = match self.write(&batches) {
            Ok((file, length)) => {
                let at = self.written;
                self.written += length as u64;
                Place::File { file, at, length, from }
            }
            Err(error) => {
                tracing::warn!(%error, "write progress of a build: who follows it late misses output");
                let mut rest = Update::default();
                for batch in batches {
                    rest.append(Update { logs: Vec::new(), ..Update::clone(&batch) });
                }
                Place::Memory(Arc::new(rest))
            }
        };
        self.stored.push(Stored { start: from, end: self.first, place });
    }

    fn write(&mut self, batches: &[Arc<Update>]) -> io::Result<(Arc<File>, usize)> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let path = self.dir.join(format!("progress-{:016x}", rand::random::<u64>()));
                let file = File::options().read(true).write(true).create_new(true).open(&path)?;
                std::fs::remove_file(&path)?;
                self.file.insert(Arc::new(file)).clone()
            }
        };
        let mut bytes = Vec::new();
        for batch in batches {
            serde_json::to_writer(&mut bytes, &**batch)?;
        }
        file.write_all_at(&bytes, self.written)?;
        Ok((file, bytes.len()))
    }
}

impl Stored {
    /// The batches. What cannot be read is left out.
    pub(super) fn read(&self) -> VecDeque<Update> {
        match &self.place {
            Place::Memory(rest) => [Update::clone(rest)].into(),
            Place::File { file, at, length, from } => {
                let mut bytes = vec![0; *length];
                if let Err(error) = file.read_exact_at(&mut bytes, *at) {
                    tracing::warn!(%error, "read progress of a build");
                    return VecDeque::new();
                }
                let skip = usize::try_from(self.start - from).unwrap_or(usize::MAX);
                let batches = serde_json::Deserializer::from_slice(&bytes).into_iter();
                batches.skip(skip).map_while(Result::ok).collect()
            }
        }
    }
}

/// About how many bytes of memory it takes.
fn weight(u: &Update) -> usize {
    const EACH: usize = 200;
    let logs = u.logs.iter().map(|l| EACH + l.data.len());
    let vertices = u.vertexes.iter().map(|v| EACH + v.name.len() + v.error.len() + 40 * v.inputs.len());
    let statuses = u.statuses.iter().map(|s| EACH + s.id.len() + s.name.len());
    let warnings = u.warnings.iter().map(|w| {
        let texts = w.short.len() + w.url.len() + w.detail.iter().map(Vec::len).sum::<usize>();
        EACH + texts + w.source.as_ref().map_or(0, |s| s.data.len()) + 16 * w.ranges.len()
    });
    EACH + logs.chain(vertices).chain(statuses).chain(warnings).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::super::Hub;
    use super::*;
    use jiff::Timestamp;
    use kiln_digest::Digest;
    use kiln_progress::LogChunk;

    fn chunk(number: u64) -> LogChunk {
        let mut data = vec![b'x'; 32 << 10];
        data[..8].copy_from_slice(&number.to_le_bytes());
        LogChunk { vertex: Digest::sha256("v"), stream: 1, data, timestamp: Timestamp::UNIX_EPOCH }
    }

    async fn numbers(follower: &mut super::super::Follower, until: u64) -> Vec<u64> {
        let mut all = Vec::new();
        while (all.len() as u64) < until {
            let Some(update) = follower.next().await else { break };
            let bytes: usize = update.logs.iter().map(|l| l.data.len()).sum();
            assert!(bytes <= (256 << 10) + (32 << 10), "{bytes}");
            all.extend(update.logs.iter().map(|l| u64::from_le_bytes(l.data[..8].try_into().unwrap())));
        }
        all
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn little_is_in_memory_and_everybody_gets_all() {
        const CHUNKS: u64 = 64 << 5; // 64 MiB
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::new(dir.path());
        let (mut early, mut slow, _never) = (hub.follow(), hub.follow(), hub.follow());
        let reading = tokio::spawn(async move { numbers(&mut early, u64::MAX).await });
        let mut begun = Vec::new();
        for number in 0..CHUNKS {
            hub.log(chunk(number));
            if number == 10 {
                begun = numbers(&mut slow, 1).await;
            }
            assert!(hub.state().said.weight <= RECENT);
        }
        assert!(hub.state().said.recent.len() < 32);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
        let mut late = hub.follow();
        hub.close();
        let all: Vec<u64> = (0..CHUNKS).collect();
        assert_eq!(reading.await.unwrap(), all);
        assert_eq!(numbers(&mut late, u64::MAX).await, all);
        begun.extend(numbers(&mut slow, u64::MAX).await);
        assert_eq!(begun, all, "one who fell behind goes on where it was");
    }

    #[tokio::test]
    async fn without_a_disk_only_output_is_lost() {
        let hub = Hub::new("/nonexistent");
        let shown = super::super::Synthetic::start(&hub, "exporting");
        for number in 0..100 {
            hub.log(chunk(number));
        }
        shown.finish(None);
        hub.close();
        let (mut follower, mut vertices, mut logs) = (hub.follow(), 0, Vec::new());
        while let Some(update) = follower.next().await {
            vertices += update.vertexes.len();
            logs.extend(update.logs);
        }
        assert_eq!(vertices, 2);
        assert_eq!(*logs.last().unwrap(), chunk(99));
        assert!(logs.len() < 32);
    }
}
