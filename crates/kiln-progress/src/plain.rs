//! Lines, one after another (spec daemon-and-cli.md section 3, plain).

use crate::interval::seconds;
use crate::options::DisplayOptions;
use crate::tame::{RESET, has_colors, tame};
use crate::text::amount;
use crate::trace::{Id, Status, Trace};
use jiff::Timestamp;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

/// The active vertex stays so long at least, and longer the more of the output is its own.
const ANTI_FLICKER: f64 = 5.0;
/// A vertex waits so long at most.
const MAX_DELAY: f64 = 10.0;
/// A vertex with so much unprinted log waits no longer.
const MAX_PENDING: usize = 1000;
/// A counter is printed again after so many seconds,
const STATUS_DELAY: f64 = 5.0;
/// or after it grew by this part of its total.
const STATUS_GROWTH: f64 = 0.05;
const NAME_LIMIT: usize = 72;

/// State of the printer.
#[derive(Debug)]
pub(crate) struct Plain {
    is_terminal: bool,
    description: String,
    truncate: bool,
    current: Option<Id>,
    numbers: HashMap<Id, usize>,
    warned: HashMap<Id, usize>,
    /// Counters when they were last printed. By their names alone, as in BuildKit: the second `transferring context:`
    /// begins where the first ended, and is silent until it moves.
    counters: HashMap<String, (i64, Timestamp)>,
    begun: bool,
    out: Vec<u8>,
}

impl Plain {
    pub(crate) fn new(options: &DisplayOptions, is_terminal: bool) -> Self {
        Self {
            is_terminal,
            description: options.description.clone(),
            truncate: options.truncate_names,
            current: None,
            numbers: HashMap::new(),
            warned: HashMap::new(),
            counters: HashMap::new(),
            begun: false,
            out: Vec::new(),
        }
    }

    /// Prints what is due.
    pub(crate) fn print(&mut self, trace: &mut Trace, now: Timestamp, to: &mut dyn Write) -> io::Result<()> {
        self.collect(trace, now);
        if self.out.is_empty() {
            return Ok(());
        }
        to.write_all(&self.out)?;
        self.out.clear();
        to.flush()
    }

    /// Prints what is left and ends a half-printed line.
    pub(crate) fn finish(&mut self, trace: &mut Trace, now: Timestamp, to: &mut dyn Write) -> io::Result<()> {
        self.print(trace, now, to)?;
        if let Some(id) = self.current {
            self.break_line(trace, id);
        }
        to.write_all(&std::mem::take(&mut self.out))
    }

    fn collect(&mut self, trace: &mut Trace, now: Timestamp) {
        let visible = trace.changed.iter().copied().filter(|id| !trace.vertices[*id].hidden);
        let (mut completed, mut rest): (Vec<Id>, BTreeSet<Id>) = (Vec::new(), BTreeSet::new());
        for id in visible {
            if trace.vertices[id].is_completed() {
                completed.push(id);
            } else {
                rest.insert(id);
            }
        }
        let before = self.current;
        completed.sort_by_key(|id| (before != Some(*id), trace.vertices[*id].runs.completed()));
        for id in &completed {
            self.vertex(trace, *id);
        }
        if rest.is_empty() {
            self.open_one(trace, before);
            return;
        }
        if let Some(current) = before.filter(|id| rest.contains(id)) {
            self.vertex(trace, current);
        }
        let free = before.is_none_or(|id| completed.contains(&id));
        self.switch(trace, rest, before.filter(|_| !free), now);
    }

    /// Makes a running vertex the active one when nothing else is to say.
    fn open_one(&mut self, trace: &mut Trace, before: Option<Id>) {
        let runs = |id: &Id| trace.vertices[*id].is_started() && !trace.vertices[*id].is_completed();
        if before.as_ref().is_some_and(runs) {
            return;
        }
        if let Some(id) = trace.shown.iter().copied().find(runs) {
            self.vertex(trace, id);
        }
    }

    /// Gives the floor to another vertex when the active one has had it long enough.
    fn switch(&mut self, trace: &mut Trace, mut rest: BTreeSet<Id>, current: Option<Id>, now: Timestamp) {
        rest.extend(current);
        let waiting: Vec<(Id, f64, f64)> = rest
            .into_iter()
            .filter_map(|id| {
                let v = &trace.vertices[id];
                let waited = seconds(now.duration_since(v.news_since?));
                Some((id, waited, f64::from(v.news) / waited.max(0.001)))
            })
            .collect();
        let overdue = waiting.iter().find(|(id, waited, _)| {
            let full = trace.vertices[*id].log.pending.len() > MAX_PENDING;
            Some(*id) != current && (*waited > MAX_DELAY || full)
        });
        let fastest = waiting.iter().max_by(|a, b| a.2.total_cmp(&b.2));
        let Some(chosen) = overdue.or(fastest).map(|(id, ..)| *id) else { return };
        let Some(current) = current else { return self.vertex(trace, chosen) };
        let sum: f64 = waiting.iter().map(|(.., speed)| speed).sum();
        let Some((_, held, speed)) = waiting.iter().find(|(id, ..)| *id == current) else { return };
        let fair = ANTI_FLICKER / (1.0 - speed / sum) < *held;
        if chosen != current && (overdue.is_some() || fair) {
            self.vertex(trace, chosen);
        }
    }

    fn number(&mut self, id: Id) -> usize {
        let next = self.numbers.len() + 1;
        *self.numbers.entry(id).or_insert(next)
    }

    fn line(&mut self, number: usize, text: &str) {
        self.out.extend_from_slice(format!("#{number} {text}\n").as_bytes());
    }

    /// Prints the news of a vertex and makes it the active one, unless it has completed.
    fn vertex(&mut self, trace: &mut Trace, id: Id) {
        let number = self.number(id);
        if self.current != Some(id) {
            self.leave(trace);
            self.header(trace, id, number);
        }
        let is_open = self.statuses(trace, id, number);
        self.warnings(trace, id, number);
        self.logs(trace, id, number);
        self.current = Some(id);
        trace.changed.remove(&id);
        let v = &mut trace.vertices[id];
        // What failed may leave a counter open for good.
        if v.is_completed() && (!is_open || !v.error.is_empty()) {
            self.current = None;
            v.news = 0;
            v.log.end_line();
            self.break_line(trace, id);
            let v = &trace.vertices[id];
            let end = match &v.error {
                error if v.is_canceled() && !error.is_empty() => "CANCELED".to_owned(),
                error if !error.is_empty() => format!("ERROR: {error}"),
                _ if v.cached => "CACHED".to_owned(),
                _ => format!("DONE {:.1}s", v.runs.seconds(Timestamp::MIN)),
            };
            self.line(number, &end);
        }
    }

    /// Marks the active vertex as unfinished.
    fn leave(&mut self, trace: &mut Trace) {
        let Some(old) = self.current else { return };
        trace.vertices[old].news = 0;
        self.break_line(trace, old);
        let number = self.number(old);
        self.line(number, "...");
    }

    fn header(&mut self, trace: &Trace, id: Id, number: usize) {
        if self.begun {
            self.out.push(b'\n');
        } else if !self.description.is_empty() {
            let first = format!("#0 {}\n\n", self.description);
            self.out.extend_from_slice(first.as_bytes());
        }
        self.begun = true;
        let name = &trace.vertices[id].name;
        let cut = name.char_indices().nth(NAME_LIMIT).filter(|_| self.truncate);
        let name = cut.map_or_else(|| name.clone(), |(at, _)| format!("{}...", &name[..at]));
        self.line(number, &name);
    }

    /// Ends a half-printed log line before something else is printed; what is added to it later is printed with it.
    fn break_line(&mut self, trace: &mut Trace, id: Id) {
        let log = &mut trace.vertices[id].log;
        if std::mem::take(&mut log.is_open) {
            let line = log.pending.front().map_or(Cow::default(), |line| shown(line, self.is_terminal));
            self.end_line(&line);
        }
    }

    /// Ends a printed line, and its colors where they are seen.
    fn end_line(&mut self, line: &[u8]) {
        if self.is_terminal && has_colors(line) {
            self.out.extend_from_slice(RESET);
        }
        self.out.push(b'\n');
    }

    /// Prints counters that changed enough; says whether one of those printed is still open.
    fn statuses(&mut self, trace: &mut Trace, id: Id, number: usize) -> bool {
        let mut due = Vec::new();
        for s in trace.vertices[id].statuses.iter_mut().filter(|s| s.changed) {
            s.changed = false;
            if is_due(s, self.counters.get(&s.id)) {
                self.counters.insert(s.id.clone(), (s.current, s.timestamp));
                due.push((status_line(s), s.completed.is_none()));
            }
        }
        if !due.is_empty() {
            self.break_line(trace, id);
        }
        due.iter().fold(false, |open, (line, is_open)| {
            self.line(number, line);
            open | is_open
        })
    }

    fn warnings(&mut self, trace: &mut Trace, id: Id, number: usize) {
        let printed = self.warned.insert(id, trace.vertices[id].warnings.len()).unwrap_or(0);
        let new: Vec<String> = trace.vertices[id].warnings[printed..].to_vec();
        if !new.is_empty() {
            self.break_line(trace, id);
        }
        for warning in new {
            self.line(number, &format!("WARN: {warning}"));
        }
    }

    fn logs(&mut self, trace: &mut Trace, id: Id, number: usize) {
        let log = &mut trace.vertices[id].log;
        let last = log.pending.len();
        for (i, line) in log.pending.iter().enumerate() {
            let known = if i == 0 { log.printed.min(line.len()) } else { 0 };
            let text = shown(line, self.is_terminal);
            if known > 0 && log.is_open {
                let known = shown(&line[..known], self.is_terminal).len();
                self.out.extend_from_slice(&text[known..]);
            } else if known > 0 && known == line.len() {
                // Broken off earlier, and nothing was added.
                continue;
            } else {
                self.out.extend_from_slice(format!("#{number} ").as_bytes());
                self.out.extend_from_slice(&text);
            }
            log.is_open = log.partial && i + 1 == last;
            if !log.is_open {
                self.end_line(&text);
            }
        }
        log.take_printed();
    }
}

/// A line of output as it is printed: as it is, but for terminals.
fn shown(line: &[u8], is_terminal: bool) -> Cow<'_, [u8]> {
    if is_terminal { tame(line).into() } else { line.into() }
}

fn is_due(s: &Status, printed: Option<&(i64, Timestamp)>) -> bool {
    let Some((current, at)) = printed.copied().filter(|_| s.completed.is_none()) else { return true };
    let growth = if s.total > 0 { (s.current - current) as f64 / s.total as f64 } else { 0.0 };
    growth >= STATUS_GROWTH || seconds(s.timestamp.duration_since(at)) >= STATUS_DELAY
}

fn status_line(s: &Status) -> String {
    let took =
        s.started.map_or(0.0, |start| seconds(s.completed.unwrap_or(s.timestamp).duration_since(start)));
    let time = if took > 0.01 { format!(" {took:.1}s") } else { String::new() };
    let done = if s.completed.is_some() { " done" } else { "" };
    format!("{}{}{time}{done}", s.id, amount(s.current, s.total))
}
