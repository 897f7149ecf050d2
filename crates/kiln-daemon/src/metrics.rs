//! Numbers about the daemon, for whoever watches it.

use crate::control::VERSION;
use crate::services::Services;
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What is counted while the daemon runs.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: Instant,
    pub(crate) builds_done: AtomicU64,
    pub(crate) builds_failed: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { started: Instant::now(), builds_done: AtomicU64::new(0), builds_failed: AtomicU64::new(0) }
    }
}

/// The numbers of one moment.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    version: &'static str,
    uptime_seconds: f64,
    builds_running: usize,
    builds_done: u64,
    builds_failed: u64,
    sessions: usize,
    /// Of the async runtime.
    tasks: usize,
    workers: usize,
    queued: usize,
    process: Process,
}

/// From `/proc/self`; what cannot be read is 0.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Process {
    resident_bytes: u64,
    peak_resident_bytes: u64,
    threads: u64,
    open_files: usize,
}

impl Snapshot {
    pub(crate) fn take(s: &Services) -> Self {
        let runtime = tokio::runtime::Handle::current().metrics();
        Self {
            version: VERSION,
            uptime_seconds: s.metrics.started.elapsed().as_secs_f64(),
            builds_running: s.engine.running(),
            builds_done: s.metrics.builds_done.load(Ordering::Relaxed),
            builds_failed: s.metrics.builds_failed.load(Ordering::Relaxed),
            sessions: s.engine.sessions().len(),
            tasks: runtime.num_alive_tasks(),
            workers: runtime.num_workers(),
            queued: runtime.global_queue_depth(),
            process: Process::read(),
        }
    }

    /// The text form of Prometheus.
    pub(crate) fn prometheus(&self) -> String {
        let p = &self.process;
        let rows = [
            ("kiln_builds_running", "gauge", self.builds_running as f64),
            ("kiln_builds_done_total", "counter", self.builds_done as f64),
            ("kiln_builds_failed_total", "counter", self.builds_failed as f64),
            ("kiln_sessions", "gauge", self.sessions as f64),
            ("kiln_uptime_seconds", "gauge", self.uptime_seconds),
            ("kiln_runtime_tasks", "gauge", self.tasks as f64),
            ("kiln_runtime_queued_tasks", "gauge", self.queued as f64),
            ("process_resident_memory_bytes", "gauge", p.resident_bytes as f64),
            ("process_threads", "gauge", p.threads as f64),
            ("process_open_fds", "gauge", p.open_files as f64),
        ];
        let mut text = String::new();
        for (name, kind, value) in rows {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        }
        text
    }
}

impl Process {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            resident_bytes: number("VmRSS") * 1024,
            peak_resident_bytes: number("VmHWM") * 1024,
            threads: number("Threads"),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        }
    }
}

/// Every thread: its name, its state, and what it waits for in the kernel.
pub(crate) fn threads() -> String {
    let mut text = String::new();
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
        let id = thread.file_name();
        let _ = writeln!(text, "{}\t{state}\t{}\t{}", id.display(), read("comm").trim(), read("wchan"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_numbers() {
        let p = Process::read();
        assert!(p.resident_bytes > 0 && p.threads > 0 && p.open_files > 0, "{p:?}");
        assert!(threads().lines().count() as u64 >= 1);
    }
}
