//! A sender that wants to write outside, or to exhaust us (GHSA-g2h8-426c-7976).

use std::os::unix::fs::symlink;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::*;

const SYMLINK: u32 = 1 << 27 | 0o777;

fn file(path: &str, size: u64) -> Packet {
    Packet::Stat(Some(Box::new(Stat::file(path.to_string(), 0o644, size))))
}

fn dir(path: &str) -> Packet {
    Packet::Stat(Some(Box::new(Stat::dir(path.to_string(), 0o755))))
}

fn link(path: &str, mode: u32, target: &str) -> Packet {
    let stat =
        Stat { mode, linkname: Bytes::from(target.to_string()), ..Stat::file(path.to_string(), 0o644, 0) };
    Packet::Stat(Some(Box::new(stat)))
}

fn data(id: u32, content: &str) -> Packet {
    Packet::Data(id, Bytes::from(content.to_string()))
}

const END: Packet = Packet::Stat(None);

/// Runs a receiver over a directory that holds a link to a secret place, against a sender that just talks.
async fn attack(script: Vec<Packet>, options: ReceiveOptions) -> Result<Received, TransferError> {
    let (to, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("canary"), "old").unwrap();
    symlink(outside.path(), to.path().join("planted")).unwrap();
    symlink(outside.path().join("canary"), to.path().join("planted-file")).unwrap();
    let (mut theirs, ours) = RawStream::pair();
    let talk = tokio::spawn(async move {
        for packet in script {
            if theirs.outgoing.send(packet.encode()).await.is_err() {
                return;
            }
        }
        // Answers nothing, but listens until the receiver gives up.
        while let Some(Ok(message)) = theirs.incoming.next().await {
            if matches!(Packet::decode(message), Ok(Packet::Error(_))) {
                return;
            }
        }
    });
    let result = tokio::time::timeout(Duration::from_secs(60), receive(ours, root(to.path()), options)).await;
    talk.abort();
    assert_eq!(listing(outside.path()), [("canary".to_string(), "644 old".to_string())].into());
    result.expect("the receiver hangs")
}

#[tokio::test]
async fn bad_announcements_end_the_transfer() {
    let order = "changes out of order";
    for (script, expected) in [
        (vec![file("../x", 1)], "invalid path"),
        (vec![file("/etc/x", 1)], "invalid path"),
        (vec![dir("a"), file("a/../../x", 1)], "invalid path"),
        (vec![file("", 1)], "invalid path"),
        (vec![dir(".")], "invalid path"),
        (vec![dir("..")], "invalid path"),
        (vec![file("./x", 1)], "invalid path"),
        (vec![dir("a"), file("a/./x", 1)], "invalid path"),
        (vec![dir("a"), file("a//x", 1)], "invalid path"),
        (vec![dir("a/")], "invalid path"),
        (vec![file("a\0b", 1)], "invalid path"),
        (vec![file("b", 1), file("a", 1)], order),
        (vec![file("a", 1), link("a", SYMLINK, "/etc")], order),
        (vec![link("a", SYMLINK, "b"), dir("a")], order),
        (vec![dir("a"), dir("a")], order),
        (vec![dir("a"), file("a", 1)], order),
        (vec![file("a", 1), dir("a"), file("a/b", 1)], order),
        (vec![file("a/b", 1)], order),
        (vec![link("planted", SYMLINK, "/etc"), file("planted/x", 1)], order),
        (vec![file("planted/canary", 1)], order),
        (vec![link("a", SYMLINK, "/etc"), link("b", 0o644, "a/passwd")], "invalid link"),
        (vec![link("a", 0o644, "planted/canary")], "invalid link"),
        (vec![link("a", 0o644, "planted-file")], "invalid link"),
        (vec![link("a", 0o644, "../../etc/passwd")], "invalid link"),
        (vec![link("a", 1 << 31 | SYMLINK, "b")], "invalid entry"),
        (vec![END, file("a", 1)], "unexpected packet"),
        (vec![END, END], "unexpected packet"),
        (vec![Packet::Request(0)], "unexpected packet"),
        (vec![Packet::Fin], "unexpected packet"),
        (vec![data(0, "x")], "invalid file request 0"),
        (vec![dir("a"), END, data(0, "x")], "invalid file request 0"),
        (vec![file("a", 1), data(7, "x")], "invalid file request 7"),
        (vec![Packet::Error("no".into())], "error from sender: no"),
    ] {
        for options in [mirror(), merge()] {
            let text = format!("{script:?}");
            let error = attack(script.clone(), options).await.expect_err(&text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

#[tokio::test]
async fn a_planted_link_is_never_written_through() {
    // Announced as directory, file and link target in turn: each replaces the link itself.
    let script = vec![dir("planted"), file("planted/canary", 3), file("planted-file", 3), END, Packet::Fin];
    for options in [mirror(), merge()] {
        let error = attack(script.clone(), options).await.unwrap_err();
        assert!(matches!(error, TransferError::Unexpected(_)), "{error}");
    }
}

#[tokio::test]
async fn data_after_the_end_of_a_file_is_refused() {
    let (to, (theirs, ours)) = (tempfile::tempdir().unwrap(), RawStream::pair());
    let receiver = tokio::spawn(receive(ours, root(to.path()), mirror()));
    let RawStream { outgoing, mut incoming, .. } = theirs;
    for packet in [file("a", 1), file("b", 1), END] {
        outgoing.send(packet.encode()).await.unwrap();
    }
    assert_eq!(Packet::decode(incoming.next().await.unwrap().unwrap()).unwrap(), Packet::Request(0));
    for packet in [data(0, "x"), data(0, ""), data(0, "y")] {
        outgoing.send(packet.encode()).await.unwrap();
    }
    assert!(matches!(receiver.await.unwrap(), Err(TransferError::FileRequest(0))));
}

#[tokio::test]
async fn endless_data_ends() {
    let (to, (theirs, ours)) = (tempfile::tempdir().unwrap(), RawStream::pair());
    let receiver = tokio::spawn(receive(ours, root(to.path()), mirror()));
    let RawStream { outgoing, mut incoming, .. } = theirs;
    outgoing.send(file("a", 10).encode()).await.unwrap();
    incoming.next().await.unwrap().unwrap();
    let chunk = Packet::Data(0, Bytes::from(vec![0; 1 << 20])).encode();
    let mut sent = 0;
    while outgoing.send(chunk.clone()).await.is_ok() {
        sent += 1;
        assert!(sent < 5000, "nobody stops this");
        if receiver.is_finished() {
            break;
        }
    }
    assert!(matches!(receiver.await.unwrap(), Err(TransferError::Overrun { size: 10, .. })));
}

#[tokio::test]
async fn a_walk_without_end_ends() {
    let names = |n: u64| (0..n).map(|i| file(&format!("{i:08}"), 1)).collect::<Vec<_>>();
    let entries = Limits { entries: 5000, ..Limits::default() };
    let error = attack(names(6000), ReceiveOptions { limits: entries, ..mirror() }).await.unwrap_err();
    assert_eq!(error.to_string(), "file transfer refused: more than 5000 entries");
    let memory = Limits { memory: 1 << 20, ..Limits::default() };
    let error = attack(names(6000), ReceiveOptions { limits: memory, ..mirror() }).await.unwrap_err();
    assert_eq!(error.to_string(), "file transfer refused: more than 1048576 bytes of file names");
}

#[tokio::test]
async fn a_sender_that_breaks_off_is_noticed_and_leaves_no_part_of_a_file() {
    let (to, (theirs, ours)) = (tempfile::tempdir().unwrap(), RawStream::pair());
    std::fs::write(to.path().join("a"), "old").unwrap();
    let receiver = tokio::spawn(receive(ours, root(to.path()), merge()));
    let RawStream { outgoing, mut incoming, .. } = theirs;
    outgoing.send(file("a", 3).encode()).await.unwrap();
    incoming.next().await.unwrap().unwrap();
    outgoing.send(data(0, "ne").encode()).await.unwrap();
    drop(outgoing);
    assert!(matches!(receiver.await.unwrap(), Err(TransferError::BrokeOff)));
    assert_eq!(listing(to.path()), [("a".to_string(), "644 old".to_string())].into());
}

#[tokio::test]
async fn cancelling_stops_everything_and_tells_the_sender() {
    let (to, (theirs, ours)) = (tempfile::tempdir().unwrap(), RawStream::pair());
    let cancel = CancellationToken::new();
    let options = ReceiveOptions { cancel: cancel.clone(), ..mirror() };
    let receiver = tokio::spawn(receive(ours, root(to.path()), options));
    let RawStream { outgoing, mut incoming, .. } = theirs;
    outgoing.send(file("a", 3).encode()).await.unwrap();
    incoming.next().await.unwrap().unwrap();
    cancel.cancel();
    assert!(matches!(receiver.await.unwrap(), Err(TransferError::Stopped)));
    let last = Packet::decode(incoming.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(last, Packet::Error("context canceled".into()));
}

#[tokio::test]
async fn garbage_is_refused() {
    for garbage in [&[0xff, 0xff, 0xff][..], &[0x08, 0x63], &[0x12, 0x7f]] {
        let (to, (theirs, ours)) = (tempfile::tempdir().unwrap(), RawStream::pair());
        theirs.outgoing.send(Bytes::copy_from_slice(garbage)).await.unwrap();
        let error = receive(ours, root(to.path()), mirror()).await.unwrap_err();
        assert!(matches!(error, TransferError::Packet(_)), "{error}");
    }
}
