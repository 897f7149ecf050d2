//! gzip in parallel: every MiB of input becomes a member of its own (RFC 1952 section 2.2: members may follow each
//! other), compressed by whichever thread is free and written in order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libdeflater::{CompressionLvl, Compressor};

/// Input bytes per member. Part of the output format: changing it changes every layer's digest.
const MEMBER: usize = 1 << 20;

const DEFAULT_LEVEL: i32 = 6;

pub(super) struct GzipEncoder<W: Write> {
    out: W,
    /// Input of the next member.
    input: Vec<u8>,
    members: u64,
    work: Work,
}

enum Work {
    /// On the writing thread.
    Here(Compressor),
    /// On others, at most two members each in flight.
    Pool { jobs: Sender<Job>, pending: VecDeque<Receiver<Done>>, limit: usize, spare: Vec<Vec<u8>> },
}

struct Job {
    input: Vec<u8>,
    reply: SyncSender<Done>,
}

struct Done {
    input: Vec<u8>,
    output: io::Result<Vec<u8>>,
}

impl<W: Write> GzipEncoder<W> {
    pub(super) fn new(out: W, level: Option<i32>, threads: usize) -> io::Result<GzipEncoder<W>> {
        let level = level.unwrap_or(DEFAULT_LEVEL);
        let checked = (0..=9).contains(&level).then(|| CompressionLvl::new(level).ok()).flatten();
        let Some(level) = checked else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("gzip level {level} is not in 0 to 9"),
            ));
        };
        let work = match threads {
            0 | 1 => Work::Here(Compressor::new(level)),
            n => start_pool(level, n)?,
        };
        Ok(GzipEncoder { out, input: Vec::with_capacity(MEMBER), members: 0, work })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        // Nothing at all is still a gzip stream of nothing.
        if !self.input.is_empty() || self.members == 0 {
            self.end_member()?;
        }
        while self.write_oldest()? {}
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_member(&mut self) -> io::Result<()> {
        self.members += 1;
        match &mut self.work {
            Work::Here(c) => {
                let output = compress(c, &self.input)?;
                self.input.clear();
                self.out.write_all(&output)
            }
            Work::Pool { jobs, pending, limit, spare } => {
                let next = spare.pop().unwrap_or_else(|| Vec::with_capacity(MEMBER));
                let input = std::mem::replace(&mut self.input, next);
                let (reply, result) = sync_channel(1);
                jobs.send(Job { input, reply }).map_err(|_| lost())?;
                pending.push_back(result);
                match pending.len() < *limit {
                    true => Ok(()),
                    false => self.write_oldest().map(|_| ()),
                }
            }
        }
    }

    /// Waits for the oldest member and writes it; `false` when there is none.
    fn write_oldest(&mut self) -> io::Result<bool> {
        let Work::Pool { pending, spare, .. } = &mut self.work else { return Ok(false) };
        let Some(result) = pending.pop_front() else { return Ok(false) };
        let mut done = result.recv().map_err(|_| lost())?;
        done.input.clear();
        spare.push(done.input);
        self.out.write_all(&done.output?)?;
        Ok(true)
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(MEMBER - self.input.len());
        self.input.extend_from_slice(&buf[..n]);
        if self.input.len() == MEMBER {
            self.end_member()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lost() -> io::Error {
    io::Error::other("a gzip worker ended unexpectedly")
}

/// Starts the workers; they end when the encoder is dropped and its sender with it.
fn start_pool(level: CompressionLvl, threads: usize) -> io::Result<Work> {
    let (jobs, queue) = channel::<Job>();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..threads {
        let queue = queue.clone();
        thread::Builder::new().name("gzip".into()).spawn(move || {
            let mut compressor = Compressor::new(level);
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { input, reply }) = job else { return };
                let output = compress(&mut compressor, &input);
                // The encoder may be gone; then nobody wants the result.
                let _ = reply.send(Done { input, output });
            }
        })?;
    }
    Ok(Work::Pool { jobs, pending: VecDeque::new(), limit: threads * 2, spare: Vec::new() })
}

/// One complete member: no name, no time, system "unknown".
fn compress(compressor: &mut Compressor, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = vec![0; compressor.gzip_compress_bound(input.len())];
    let n =
        compressor.gzip_compress(input, &mut output).map_err(|e| io::Error::other(format!("gzip: {e:?}")))?;
    output.truncate(n);
    Ok(output)
}
