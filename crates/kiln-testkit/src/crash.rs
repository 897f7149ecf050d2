//! Processes that are killed in the middle of their work.

use crate::PATIENCE;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A test of the running test binary that is started as a process of its own and killed, again and again. It does
/// nothing but when it finds its folder in a variable of the environment, and then prints `done ...` for each thing
/// that it has finished.
#[derive(Debug)]
pub struct Crashing {
    test: &'static str,
    variable: &'static str,
    told: bool,
}

impl Crashing {
    /// `test` is the whole name of the test, which finds its folder in `variable`.
    pub fn new(test: &'static str, variable: &'static str) -> Self {
        Self { test, variable, told: false }
    }

    /// Starts it on `dir` and kills it at a random moment, the first time not before it has finished something. Gives
    /// what it told of: the rest of each line behind `done `.
    ///
    /// # Panics
    /// If it cannot be started, or does not finish anything.
    pub fn run(&mut self, dir: &Path) -> Vec<String> {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", self.test, "--nocapture", "--test-threads=1"])
            .env(self.variable, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            // The harness prints before the first line.
            let done = |line: String| Some(line.split("done ").nth(1)?.to_string());
            for line in out.lines().map_while(Result::ok).filter_map(done) {
                let _ = tell.send(line);
            }
        });
        let mut finished = Vec::new();
        if !self.told {
            finished.push(told.recv_timeout(PATIENCE).expect("the process finishes something"));
            self.told = true;
        }
        std::thread::sleep(Duration::from_millis(40 + RandomState::new().build_hasher().finish() % 120));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        finished.extend(told);
        finished
    }
}
