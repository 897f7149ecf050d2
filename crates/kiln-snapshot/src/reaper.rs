//! A thread for what nobody waits for: removing directories, and letting go of mounts, which for a large tree takes as
//! long as dropping all its cached names.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

enum Job {
    Remove(PathBuf),
    Close(OwnedFd),
}

/// The thread starts with the first job and ends with this handle, after the jobs that it has.
#[derive(Debug, Default)]
pub(crate) struct Reaper(Mutex<Option<mpsc::Sender<Job>>>);

impl Reaper {
    /// Removes a tree of ours. Should the process die before, the next start removes it.
    pub(crate) fn remove(&self, path: PathBuf) {
        self.give(Job::Remove(path));
    }

    /// Closes the last handle of a detached mount.
    pub(crate) fn close(&self, fd: OwnedFd) {
        self.give(Job::Close(fd));
    }

    fn give(&self, job: Job) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.get_or_insert_with(start);
        if let Err(mpsc::SendError(job)) = sender.send(job) {
            run(job);
        }
    }
}

fn start() -> mpsc::Sender<Job> {
    let (sender, receiver) = mpsc::channel::<Job>();
    let work = move || receiver.into_iter().for_each(run);
    if let Err(error) = std::thread::Builder::new().name("snapshot-reaper".into()).spawn(work) {
        // Jobs are then run by who gives them.
        tracing::warn!(%error, "start the thread that removes directories");
    }
    sender
}

fn run(job: Job) {
    match job {
        Job::Remove(path) => remove_tree(&path),
        Job::Close(fd) => drop(fd),
    }
}

/// Removes a tree that is ours, links not followed. A failure leaves an orphan for the next start.
pub(crate) fn remove_tree(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "remove snapshot directory");
    }
}
