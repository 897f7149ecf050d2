//! Output of a step, kept in bounded memory: lines not yet printed, the tail for a failure, the window of a terminal.

use crate::interval::seconds;
use jiff::SignedDuration;
use std::borrow::Cow;
use std::collections::VecDeque;
use unicode_width::UnicodeWidthChar as _;

/// A line without an end is broken here.
const MAX_LINE: usize = 16 << 10;
/// Most that is kept to be shown when the step fails.
const MAX_TAIL: usize = 64 << 10;
/// Most rows that a window can have.
const MAX_WINDOW: usize = 100;

/// The log of one step.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Lines to be printed, each with its time in front; the last may be unfinished.
    pub(crate) pending: VecDeque<Vec<u8>>,
    /// The last pending line has no end yet.
    pub(crate) partial: bool,
    /// Bytes of the first pending line that were printed already.
    pub(crate) printed: usize,
    /// The cursor stands behind that part.
    pub(crate) is_open: bool,
    /// Bytes told in all.
    pub(crate) total: u64,
    tail: VecDeque<Vec<u8>>,
    tail_bytes: usize,
    window: Window,
}

impl Log {
    /// Takes in a chunk that came `since` the step's start.
    pub(crate) fn write(&mut self, data: &[u8], since: SignedDuration) {
        self.total += data.len() as u64;
        self.window.write(data);
        for part in data.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            match self.pending.back_mut().filter(|_| self.partial) {
                Some(line) => line.extend_from_slice(text),
                None => self.pending.push_back([stamp(since).as_bytes(), b" ", text].concat()),
            }
            self.partial = !ended && self.pending.back().is_some_and(|l| l.len() < MAX_LINE);
        }
    }

    /// Forgets pending lines that are printed; an unfinished one stays, to be continued.
    pub(crate) fn take_printed(&mut self) {
        let keep = usize::from(self.partial);
        while self.pending.len() > keep {
            if let Some(line) = self.pending.pop_front() {
                self.keep_in_tail(line);
            }
        }
        self.printed = self.pending.front().map_or(0, Vec::len);
    }

    /// Ends an unfinished line that will not be continued.
    pub(crate) fn end_line(&mut self) {
        self.partial = false;
        self.take_printed();
    }

    fn keep_in_tail(&mut self, line: Vec<u8>) {
        self.tail_bytes += line.len();
        self.tail.push_back(line);
        while self.tail_bytes > MAX_TAIL {
            let Some(old) = self.tail.pop_front() else { break };
            self.tail_bytes -= old.len();
        }
    }

    /// The last lines, at most `limit`, oldest first.
    pub(crate) fn last_lines(&self, limit: usize) -> impl Iterator<Item = &[u8]> {
        let all = self.tail.len() + self.pending.len();
        self.tail.iter().chain(&self.pending).skip(all.saturating_sub(limit)).map(Vec::as_slice)
    }

    /// The last rows for a terminal of which `width` columns are free, at most `limit`.
    pub(crate) fn window(&self, width: usize, limit: usize) -> Vec<String> {
        self.window.rows(width, limit)
    }
}

/// What a terminal leaves of a line in which carriage returns go back to its begin, such as that of a progress bar:
/// its time and what was written last.
pub(crate) fn overwritten(line: &[u8]) -> Cow<'_, [u8]> {
    let mut parts = line.rsplit(|b| *b == b'\r').filter(|p| !p.is_empty());
    let (Some(last), true) = (parts.next(), line.contains(&b'\r')) else { return line.into() };
    let time = line.iter().position(|b| *b == b' ').map_or(0, |at| at + 1);
    if parts.next().is_none() { last.into() } else { [&line[..time], last].concat().into() }
}

/// Seconds as lines have them: more decimals while few.
fn stamp(since: SignedDuration) -> String {
    let s = seconds(since);
    match s {
        s if s < 10.0 => format!("{s:.3}"),
        s if s < 100.0 => format!("{s:.2}"),
        s => format!("{s:.1}"),
    }
}

/// The last lines as a terminal would show them: a carriage return overwrites, escape sequences have no effect.
#[derive(Debug, Default)]
struct Window {
    lines: VecDeque<Vec<char>>,
    column: usize,
    /// Bytes of a character or an escape sequence whose rest has not come.
    rest: Vec<u8>,
}

impl Window {
    fn write(&mut self, data: &[u8]) {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(data);
        let text = match std::str::from_utf8(&bytes) {
            // The end of the chunk cuts a character: wait for the rest.
            Err(e) if e.error_len().is_none() => {
                self.rest = bytes.split_off(e.valid_up_to());
                String::from_utf8_lossy(&bytes)
            }
            _ => String::from_utf8_lossy(&bytes),
        };
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '\x1b' {
                self.put(c);
                continue;
            }
            let mut tail = chars.clone();
            match escape(&mut tail) {
                Some(kind) => {
                    self.escape(kind);
                    chars = tail;
                }
                None => {
                    let mut rest = b"\x1b".to_vec();
                    rest.extend_from_slice(chars.as_str().as_bytes());
                    rest.append(&mut self.rest);
                    // Something that long is no sequence.
                    if rest.len() < 64 {
                        self.rest = rest;
                    }
                    return;
                }
            }
        }
    }

    fn escape(&mut self, kind: Escape) {
        let Some(line) = self.lines.back_mut() else { return };
        match kind {
            Escape::EraseLine => line.clear(),
            Escape::EraseToEnd => line.truncate(self.column),
            Escape::Home => self.column = 0,
            Escape::Other => {}
        }
    }

    fn put(&mut self, c: char) {
        match c {
            '\n' => {
                self.lines.push_back(Vec::new());
                self.column = 0;
            }
            '\r' => self.column = 0,
            '\x08' => self.column = self.column.saturating_sub(1),
            '\t' => (0..8 - self.column % 8).for_each(|_| self.put(' ')),
            c if c.is_control() => {}
            c => {
                if self.lines.is_empty() {
                    self.lines.push_back(Vec::new());
                }
                let Some(line) = self.lines.back_mut() else { return };
                line.resize(line.len().max(self.column), ' ');
                match line.get_mut(self.column) {
                    Some(cell) => *cell = c,
                    None => line.push(c),
                }
                self.column += 1;
                if self.column >= 4096 {
                    self.put('\n');
                }
            }
        }
        if self.lines.len() > MAX_WINDOW {
            self.lines.pop_front();
        }
    }

    /// Lines broken at `width` columns, the last `limit` that are not blank.
    fn rows(&self, width: usize, limit: usize) -> Vec<String> {
        let mut rows = VecDeque::new();
        for line in self.lines.iter().rev() {
            if rows.len() >= limit || width == 0 {
                break;
            }
            for row in wrap(line, width).into_iter().rev().filter(|r| !r.trim().is_empty()) {
                if rows.len() < limit {
                    rows.push_front(row);
                }
            }
        }
        rows.into()
    }
}

fn wrap(line: &[char], width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    let mut used = 0;
    for &c in line {
        let columns = c.width().unwrap_or(0);
        if used + columns > width {
            rows.push(String::new());
            used = 0;
        }
        used += columns;
        if let Some(row) = rows.last_mut() {
            row.push(c);
        }
    }
    rows
}

#[derive(Clone, Copy, Debug)]
enum Escape {
    EraseLine,
    EraseToEnd,
    Home,
    Other,
}

/// Reads an escape sequence after ESC; None when its end has not come (ECMA-48 section 5.4).
fn escape(chars: &mut std::str::Chars<'_>) -> Option<Escape> {
    match chars.next()? {
        '[' => {
            let mut params = String::new();
            loop {
                match chars.next()? {
                    c @ '@'..='~' => return Some(control(&params, c)),
                    c => params.push(c),
                }
            }
        }
        // An operating system command ends with BEL or ESC \.
        ']' => loop {
            match chars.next()? {
                '\x07' => return Some(Escape::Other),
                '\x1b' => {
                    chars.next()?;
                    return Some(Escape::Other);
                }
                _ => {}
            }
        },
        '(' | ')' | '#' => chars.next().map(|_| Escape::Other),
        _ => Some(Escape::Other),
    }
}

fn control(params: &str, last: char) -> Escape {
    match (params, last) {
        ("2", 'K') => Escape::EraseLine,
        ("" | "0", 'K') => Escape::EraseToEnd,
        ("" | "0" | "1", 'G') => Escape::Home,
        _ => Escape::Other,
    }
}
