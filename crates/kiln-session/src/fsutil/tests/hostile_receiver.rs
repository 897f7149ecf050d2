//! A receiver that wants what it was not offered.

use std::os::unix::fs::symlink;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::*;

async fn attack(script: Vec<Packet>) -> (Result<Sent, TransferError>, Vec<Packet>) {
    let from = tempfile::tempdir().unwrap();
    std::fs::create_dir(from.path().join("d")).unwrap();
    std::fs::write(from.path().join("file"), "1").unwrap();
    symlink("/etc/passwd", from.path().join("link")).unwrap();
    let (ours, theirs) = RawStream::pair();
    let sender = tokio::spawn(send(ours, Arc::new(DirTree::new(Arc::new(root(from.path()))))));
    let RawStream { outgoing, mut incoming, .. } = theirs;
    let mut seen = vec![];
    // First listen to the walk, so that ids are known.
    while let Some(Ok(message)) = incoming.next().await {
        let packet = Packet::decode(message).unwrap();
        let end = packet == Packet::Stat(None);
        seen.push(packet);
        if end {
            break;
        }
    }
    for packet in script {
        let _ = outgoing.send(packet.encode()).await;
    }
    drop(outgoing);
    let result =
        tokio::time::timeout(Duration::from_secs(60), sender).await.expect("the sender hangs").unwrap();
    while let Some(Ok(message)) = incoming.next().await {
        seen.push(Packet::decode(message).unwrap());
    }
    (result, seen)
}

#[tokio::test]
async fn only_announced_files_are_given_and_only_once() {
    for (script, id) in [
        (vec![Packet::Request(0)], 0),
        (vec![Packet::Request(2)], 2),
        (vec![Packet::Request(3)], 3),
        (vec![Packet::Request(u32::MAX)], u32::MAX),
        (vec![Packet::Request(1), Packet::Request(1)], 1),
    ] {
        let (result, seen) = attack(script).await;
        assert_eq!(result.unwrap_err().to_string(), format!("invalid file id {id}"));
        assert!(seen.contains(&Packet::Error(format!("invalid file id {id}"))));
    }
}

#[tokio::test]
async fn packets_of_a_sender_are_refused() {
    for packet in [Packet::Stat(None), Packet::Data(0, Bytes::new())] {
        assert!(matches!(attack(vec![packet]).await.0, Err(TransferError::Unexpected(_))));
    }
    let (result, _) = attack(vec![Packet::Error("full".into())]).await;
    assert_eq!(result.unwrap_err().to_string(), "error from receiver: full");
    assert!(matches!(attack(vec![]).await.0, Err(TransferError::BrokeOff)));
}

#[tokio::test]
async fn a_file_that_became_a_link_is_not_followed() {
    let (from, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(from.path().join("file"), "1").unwrap();
    std::fs::write(outside.path().join("secret"), "canary").unwrap();
    let (ours, theirs) = RawStream::pair();
    let sender = tokio::spawn(send(ours, Arc::new(DirTree::new(Arc::new(root(from.path()))))));
    let RawStream { outgoing, mut incoming, .. } = theirs;
    let (_stat, _end) = (incoming.next().await, incoming.next().await);
    std::fs::remove_file(from.path().join("file")).unwrap();
    symlink(outside.path().join("secret"), from.path().join("file")).unwrap();
    outgoing.send(Packet::Request(0).encode()).await.unwrap();
    let answer = Packet::decode(incoming.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(answer, Packet::Data(0, Bytes::new()));
    outgoing.send(Packet::Fin.encode()).await.unwrap();
    drop(outgoing);
    sender.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_receiver_that_reads_nothing_does_not_fill_memory() {
    let from = tempfile::tempdir().unwrap();
    for i in 0..2000 {
        std::fs::write(from.path().join(format!("{i}")), "1").unwrap();
    }
    let (ours, theirs) = RawStream::pair();
    let sender = tokio::spawn(send(ours, Arc::new(DirTree::new(Arc::new(root(from.path()))))));
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The walk is stopped by the full channel; hanging up ends it.
    assert!(!sender.is_finished());
    drop(theirs);
    assert!(sender.await.unwrap().is_err());
}
