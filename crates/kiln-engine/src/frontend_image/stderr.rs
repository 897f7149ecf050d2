//! What a frontend writes to its stderr goes to the daemon's log.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that is kept whole, in bytes.
const LINE: usize = 4096;
/// Most that one frontend may write to the log, in bytes.
const TOTAL: usize = 1 << 20;

/// Logs line by line until the end; what is too much is read and dropped.
pub(super) async fn log(source: String, build: String, mut stream: impl AsyncRead + Unpin) {
    let mut lines = Lines::default();
    let mut buffer = [0; LINE];
    loop {
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        let tell = |line: &str| tracing::info!(source, build, "frontend: {line}");
        if n == 0 {
            lines.end(tell);
            return;
        }
        lines.add(&buffer[..n], tell);
    }
}

#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    told: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") || self.begun.len() >= LINE {
                self.end(&mut tell);
            }
        }
    }

    fn end(&mut self, mut tell: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.begun);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() || self.told > TOTAL {
            return;
        }
        self.told += text.len();
        match self.told > TOTAL {
            true => tell("it writes too much; the rest is not logged"),
            false => tell(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_too_many_dropped() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        lines.add(b"a\nb", |l| seen.push(l.to_string()));
        lines.add(b"c\r\n\n", |l| seen.push(l.to_string()));
        lines.add(&[b'x'; LINE], |l| seen.push(l.len().to_string()));
        assert_eq!(seen, ["a", "bc", "4096"]);
        let mut count = 0;
        for _ in 0..1000 {
            lines.add(&[b'y'; LINE], |_| count += 1);
        }
        // One such line was told before; the last is the one that says so.
        assert_eq!(count, TOTAL / LINE - 1);
    }
}
