//! Kills a process that records builds, at random moments, and looks at what is left.

use crate::tests::{build, open};
use kiln_testkit::Crashing;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

const DIR: &str = "KILN_HISTORY_CRASH_DIR";

/// The process that is killed: records builds and tells of each one that is over. Does nothing as a test.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (_, history) = open(Path::new(&dir));
    let mut out = std::io::stdout().lock();
    let process = std::process::id();
    for n in 0u64.. {
        let reference = format!("{process}-{n}");
        build(&history, &reference);
        if n % 4 == 0 {
            history.delete(&reference).unwrap();
            continue;
        }
        writeln!(out, "done {reference}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn after_kill_nine_every_record_is_whole_and_nothing_else_is_kept() {
    let dir = TempDir::new().unwrap();
    let mut finished: Vec<String> = Vec::new();
    let mut child = Crashing::new("crash_tests::crash_child", DIR);
    for round in 0..8 {
        finished.extend(child.run(dir.path()));
        let (content, history) = open(dir.path());
        for reference in &finished {
            let mut log = history.log(reference).unwrap().unwrap_or_else(|| {
                panic!("round {round}: the record of {reference} was finished and is gone")
            });
            while log.read().unwrap().is_some() {}
        }
        content.gc().unwrap();
        let mut records = 0;
        history.0.store.each(None, |_| records += 1).unwrap();
        // Each record has a log and a trace of its own; one may have been finished and not told.
        assert!(records >= finished.len() && records <= finished.len() + (round + 1) * 2, "{records}");
        assert_eq!(content.list().unwrap().len(), records * 2, "round {round}");
    }
}
