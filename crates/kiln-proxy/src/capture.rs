//! The record while it is written.

use crate::record::{Answer, Incomplete, Material, Reason, Record, Request};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes that the record of one step takes.
const ROOM: usize = 4 << 20;
/// What an entry costs beside its texts.
const ENTRY: usize = 128;

/// Notes what goes through a proxy.
#[derive(Debug)]
pub(crate) struct Capture(Mutex<Open>);

#[derive(Debug)]
struct Open {
    record: Record,
    room: usize,
}

impl Capture {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Open { record: Record::default(), room: ROOM }))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: usize, add: impl FnOnce(&mut Record)) {
        let mut open = self.open();
        match open.room.checked_sub(ENTRY + bytes) {
            Some(left) => {
                open.room = left;
                add(&mut open.record);
            }
            None => open.record.left_out += 1,
        }
    }

    pub(crate) fn request(&self, method: &str, url: &str, redirect: Option<String>, answer: Answer) {
        let reason = if let Answer::Denied(reason) = &answer { reason.len() } else { 0 };
        let bytes = method.len() + url.len() + redirect.as_ref().map_or(0, String::len) + reason;
        let (method, url) = (method.to_string(), url.to_string());
        self.add(bytes, |r| r.requests.push(Request { method, url, redirect, answer }));
    }

    pub(crate) fn material(&self, url: &str, digest: kiln_digest::Digest) {
        self.add(url.len(), |r| r.materials.push(Material { url: url.to_string(), digest }));
    }

    pub(crate) fn incomplete(&self, method: &str, url: &str, reason: Reason) {
        let (method, url) = (method.to_string(), url.to_string());
        self.add(method.len() + url.len(), |r| r.incomplete.push(Incomplete { method, url, reason }));
    }

    /// What was noted so far; the rest goes into a new record.
    pub(crate) fn take(&self) -> Record {
        let mut open = self.open();
        let mut record = std::mem::take(&mut open.record);
        open.room = ROOM;
        drop(open);
        record.follow_redirects();
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_asks_for_ever_fills_no_memory() {
        let capture = Capture::new();
        let url = format!("http://h/{}", "x".repeat(60 << 10));
        for _ in 0..200 {
            capture.request("GET", &url, None, Answer::Status(200));
        }
        let record = capture.take();
        assert!(record.requests.len() < 80 && !record.is_complete(), "{}", record.requests.len());
        assert_eq!(record.requests.len() as u64 + record.left_out, 200);
        assert!(record.log().ends_with("- and more, which were not noted\n"));
    }
}
