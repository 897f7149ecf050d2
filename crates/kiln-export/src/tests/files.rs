use super::*;
use std::os::unix::fs::MetadataExt;

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[tokio::test]
async fn files_go_to_a_directory() {
    let w = World::new().await;
    let top = w.layer(None, &[("d/", ""), ("d/a", "one"), ("b", "two")]);
    w.export("local", &[("source-date-epoch", "1000")], 10, &single(Some(top))).await.unwrap();
    let dir = w.path("10");
    assert_eq!((read(dir.join("d/a")), read(dir.join("b"))), ("one".into(), "two".into()));
    assert_eq!(std::fs::metadata(dir.join("b")).unwrap().mtime(), 1000);
    assert_eq!(w.told(), ["copying files"]);
    assert!(!w.calls.lock().unwrap()[0].multi_platform);
}

#[tokio::test]
async fn platforms_have_directories_of_their_own() {
    let w = World::new().await;
    let mut input = pair(w.layer(None, &[("a", "a")]), w.layer(None, &[("b", "b")]));
    input.metadata.insert("source.date.epoch/linux/arm64".into(), b"500".to_vec());
    w.export("local", &[], 10, &input).await.unwrap();
    assert_eq!(read(w.path("10/linux_amd64/a")), "a");
    assert_eq!(std::fs::metadata(w.path("10/linux_arm64/b")).unwrap().mtime(), 500);
    let mut told = w.told();
    told.sort();
    assert_eq!(told, ["copying files linux/amd64", "copying files linux/arm64"]);
    w.export("local", &[("mode", "delete")], 11, &input).await.unwrap();
    assert_eq!(read(w.path("11/linux_arm64/b")), "b");
    let calls = w.calls.lock().unwrap();
    assert_eq!((calls.len(), calls[2].multi_platform), (3, true));
}

#[tokio::test]
async fn platforms_in_one_directory_must_not_overlap() {
    let w = World::new().await;
    let input = pair(w.layer(None, &[("d/", ""), ("d/a", "a")]), w.layer(None, &[("d/", ""), ("d/b", "b")]));
    w.export("local", &[("platform-split", "false")], 10, &input).await.unwrap();
    assert_eq!((read(w.path("10/d/a")), read(w.path("10/d/b"))), ("a".into(), "b".into()));
    let delete = [("platform-split", "false"), ("mode", "delete")];
    w.export("local", &delete, 12, &input).await.unwrap();
    assert_eq!((read(w.path("12/d/a")), read(w.path("12/d/b"))), ("a".into(), "b".into()));
    let input = pair(w.layer(None, &[("same", "a")]), w.layer(None, &[("same", "b")]));
    let error = w.export("local", &[("platform-split", "false")], 11, &input).await.unwrap_err();
    assert_eq!(
        error,
        "cannot overwrite same from linux/amd64 with linux/arm64 when split option is disabled"
    );
}

#[tokio::test]
async fn a_tar_of_the_files() {
    let w = World::new().await;
    let a = w.layer(None, &[("d/", ""), ("d/a", "one")]);
    w.export("tar", &[], 0, &single(Some(a.clone()))).await.unwrap();
    let files = entries(&w.path("file"));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["d/", "d/a"]);
    assert_eq!(files["d/a"], b"one");
    w.export("tar", &[], 0, &pair(a, w.layer(None, &[("b", "two")]))).await.unwrap();
    let files: Vec<_> = entries(&w.path("file")).into_keys().collect();
    assert_eq!(files, ["linux_amd64/", "linux_amd64/d/", "linux_amd64/d/a", "linux_arm64/", "linux_arm64/b"]);
    assert_eq!(w.told(), ["sending tarball", "sending tarball"]);
}

#[tokio::test]
async fn nothing_is_a_result_too() {
    let w = World::new().await;
    let input = ExportInput { refs: vec![(None, None)], metadata: BTreeMap::new() };
    w.export("tar", &[], 0, &input).await.unwrap();
    assert!(entries(&w.path("file")).is_empty());
    w.export("local", &[], 10, &input).await.unwrap();
    assert_eq!(std::fs::read_dir(w.path("10")).unwrap().count(), 0);
}
