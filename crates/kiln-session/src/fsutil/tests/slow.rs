//! Peers that stand still, many at a time, where there is one thread for blocking work.

use std::time::Duration;

use futures::StreamExt;
use tokio::runtime::Runtime;

use super::*;

const PEERS: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

fn one_thread() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap()
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..600 {
        std::fs::write(dir.path().join(format!("{i:04}")), "x".repeat(40_000)).unwrap();
    }
    dir
}

async fn honest(from: &Path) {
    let to = tempfile::tempdir().unwrap();
    let done = tokio::time::timeout(LIMIT, transfer(from, to.path(), mirror())).await;
    assert_eq!(done.expect("in normal time").1.requested, 600);
}

/// They listen to the beginning of the walk, ask for what they heard of, and read nothing any more.
#[test]
fn who_reads_nothing_keeps_nobody_from_sending() {
    let from = tree();
    one_thread().block_on(async {
        let (mut deaf, mut senders) = (Vec::new(), Vec::new());
        for _ in 0..PEERS {
            let (ours, mut theirs) = RawStream::pair();
            let tree = Arc::new(DirTree::new(Arc::new(root(from.path()))));
            senders.push(tokio::spawn(send(ours, tree)));
            for id in 0..50 {
                let stat = tokio::time::timeout(LIMIT, theirs.incoming.next()).await.expect("is announced");
                assert!(matches!(Packet::decode(stat.unwrap().unwrap()).unwrap(), Packet::Stat(Some(_))));
                theirs.outgoing.send(Packet::Request(id).encode()).await.unwrap();
            }
            deaf.push(theirs);
        }
        honest(from.path()).await;
        assert!(senders.iter().all(|s| !s.is_finished()));
        drop(deaf);
        for sender in senders {
            let end = tokio::time::timeout(LIMIT, sender).await.expect("who is gone frees all");
            assert!(end.unwrap().is_err());
        }
    });
}

/// They announce a file, and send half of it or nothing when they are asked.
#[test]
fn who_sends_nothing_keeps_nobody_from_receiving() {
    let from = tree();
    one_thread().block_on(async {
        let (mut silent, mut receivers, mut dirs) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..PEERS {
            let (ours, mut theirs) = RawStream::pair();
            let to = tempfile::tempdir().unwrap();
            let options = mirror();
            receivers.push((options.cancel.clone(), tokio::spawn(receive(ours, root(to.path()), options))));
            let stat = Stat::file("a", 0o644, 10);
            theirs.outgoing.send(Packet::Stat(Some(Box::new(stat))).encode()).await.unwrap();
            let asked = tokio::time::timeout(LIMIT, theirs.incoming.next()).await.expect("is asked");
            assert_eq!(Packet::decode(asked.unwrap().unwrap()).unwrap(), Packet::Request(0));
            if n % 2 == 0 {
                theirs.outgoing.send(Packet::Data(0, vec![1; 5].into()).encode()).await.unwrap();
                theirs.outgoing.send(Packet::Stat(None).encode()).await.unwrap();
            }
            silent.push(theirs);
            dirs.push(to);
        }
        honest(from.path()).await;
        for (cancel, receiver) in receivers {
            assert!(!receiver.is_finished());
            cancel.cancel();
            let end = tokio::time::timeout(LIMIT, receiver).await.expect("cancelling frees all");
            assert!(matches!(end.unwrap(), Err(TransferError::Stopped)));
        }
    });
}
