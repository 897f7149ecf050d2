//! `--debug-json-cache-metrics`: how much came from the cache.

use crate::error::Error;
use kiln_digest::Digest;
use kiln_progress::Update;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Instant;

/// What is seen of the steps of a build.
pub(super) struct CacheMetrics {
    out: Box<dyn Write + Send>,
    begin: Instant,
    steps: HashMap<Digest, Step>,
    order: Vec<Digest>,
}

#[derive(Default)]
struct Step {
    name: String,
    cached: bool,
    completed: bool,
    from: bool,
}

#[derive(Default, Serialize)]
struct Sums {
    total: i64,
    completed: i64,
    user_total: i64,
    user_cached: i64,
    user_completed: i64,
    user_cacheable: i64,
    from: i64,
    miss: i64,
    client_duration_ms: u128,
}

/// Steps that users did not write.
const OTHERS: [&str; 4] = ["[internal]", "[auth]", "importing cache", "exporting "];

impl CacheMetrics {
    /// For `stdout`, `stderr` or a file; None if nothing is asked for.
    pub(super) fn open(to: &str, begin: Instant) -> Result<Option<Self>, Error> {
        let out: Box<dyn Write + Send> = match to {
            "" => return Ok(None),
            "stdout" => Box::new(std::io::stdout()),
            "stderr" => Box::new(std::io::stderr()),
            path => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
                Box::new(file.map_err(Error::file("open", path))?)
            }
        };
        Ok(Some(Self { out, begin, steps: HashMap::new(), order: Vec::new() }))
    }

    /// Takes in news.
    pub(super) fn update(&mut self, update: &Update) {
        for v in &update.vertexes {
            let step = self.steps.entry(v.digest).or_insert_with(|| {
                self.order.push(v.digest);
                Step { name: v.name.clone(), ..Step::default() }
            });
            step.from |= v.name.starts_with('[') && v.name.contains("] FROM");
            step.cached |= v.cached;
            step.completed |= v.completed.is_some();
        }
    }

    /// Writes the steps that were not in the cache, and the sums.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let text = self.report();
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Error::Output)
    }

    fn report(&self) -> String {
        let mut out = String::new();
        let mut sums = Sums { client_duration_ms: self.begin.elapsed().as_millis(), ..Sums::default() };
        for step in self.order.iter().filter_map(|d| self.steps.get(d)) {
            sums.total += 1;
            sums.completed += i64::from(step.completed);
            if OTHERS.iter().any(|prefix| step.name.starts_with(prefix)) {
                continue;
            }
            sums.user_total += 1;
            sums.user_cacheable += i64::from(!step.from);
            sums.user_cached += i64::from(step.cached);
            sums.user_completed += i64::from(step.completed);
            sums.from += i64::from(step.from);
            if !step.cached && !step.from {
                sums.miss += 1;
                out.push_str(&format!("cache miss: {}\n", kiln_progress::printable(&step.name)));
            }
        }
        out.push_str(&serde_json::to_string(&sums).unwrap_or_default());
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_progress::VertexUpdate;

    #[test]
    fn steps_are_counted_by_what_became_of_them() {
        let vertex = |name: &str, cached| VertexUpdate {
            digest: Digest::sha256(name),
            inputs: Vec::new(),
            name: name.into(),
            started: None,
            completed: None,
            cached,
            error: String::new(),
            group: None,
        };
        let mut metrics = CacheMetrics::open("stderr", Instant::now()).unwrap().unwrap();
        metrics.update(&Update {
            vertexes: vec![
                vertex("[internal] load", false),
                vertex("[1/3] FROM a", false),
                vertex("[2/3] RUN x", true),
                vertex("[3/3] RUN y", false),
            ],
            ..Update::default()
        });
        let report = metrics.report();
        let (misses, sums) = report.split_once('\n').unwrap();
        assert_eq!(misses, "cache miss: [3/3] RUN y");
        assert!(sums.starts_with("{\"total\":4,\"completed\":0,\"user_total\":3,\"user_cached\":1,\"user_completed\":0,\"user_cacheable\":2,\"from\":1,\"miss\":1,\"client_duration_ms\":"), "{sums}");
    }
}
