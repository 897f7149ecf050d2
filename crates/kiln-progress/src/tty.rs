//! Rows redrawn in place (spec daemon-and-cli.md section 3, tty).

use crate::options::{Color, Colors, DisplayOptions, TerminalSize};
use crate::text::{align, amount, columns, cut};
use crate::trace::{Id, Trace, Vertex};
use jiff::Timestamp;
use std::collections::HashMap;
use std::io::{self, Write};

/// Columns around a window row.
const WINDOW_PAD: usize = 10;
/// Rows that a window has at least.
const MIN_WINDOW: usize = 6;
/// A name with less room than this gets the whole line; there is no room for times.
const MIN_NAME: usize = 12;
/// Size of a terminal that does not tell it.
const DEFAULT_SIZE: (u16, u16) = (80, 10);

/// State of the drawer.
pub(crate) struct Tty {
    colors: Option<Colors>,
    log_lines: usize,
    phase: String,
    description: String,
    size: TerminalSize,
    /// Columns of each line on the screen: after a resize they take other numbers of rows.
    drawn: Vec<usize>,
    /// How often a vertex's window was shown.
    shown: HashMap<Id, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Open,
    Done,
    Canceled,
    Failed,
    Warning,
}

#[derive(Clone, Debug)]
struct Row {
    text: String,
    status: String,
    seconds: f64,
    look: Look,
    /// Set on the first row of a running vertex that has a log.
    vertex: Option<Id>,
    window: bool,
}

impl Row {
    fn is_open(&self) -> bool {
        self.look == Look::Open
    }
}

impl Tty {
    pub(crate) fn new(options: DisplayOptions) -> Self {
        Self {
            colors: options.colors,
            log_lines: options.log_lines.max(1),
            phase: options.phase,
            description: options.description,
            size: options.size,
            drawn: Vec::new(),
            shown: HashMap::new(),
        }
    }

    /// Draws a frame over the last one. The last frame shows every row.
    pub(crate) fn draw(
        &mut self,
        trace: &mut Trace,
        now: Timestamp,
        last: bool,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        trace.changed.clear();
        trace.vertices.iter_mut().for_each(|v| v.log.take_printed());
        let (width, height) = (self.size)().filter(|(w, h)| *w > 0 && *h > 0).unwrap_or(DEFAULT_SIZE);
        let (width, height) = (usize::from(width), usize::from(height));
        // The line of the cursor below the frame has to fit too.
        let lines =
            if height < 2 && !last { Vec::new() } else { self.lines(trace, now, last, width, height) };
        let mut frame = String::from("\x1b[?25l");
        let rows: usize = self.drawn.iter().map(|c| c.div_ceil(width).max(1)).sum();
        // What a shrunken screen has scrolled away is out of reach.
        let rows = rows.min(height - 1);
        if rows > 0 {
            frame.push_str(&format!("\x1b[{rows}A"));
        }
        frame.push('\r');
        for (line, _) in &lines {
            // Erased before it is written: behind a line that fills the screen, erasing takes its last character.
            frame.push_str("\x1b[K");
            frame.push_str(line);
            frame.push('\n');
        }
        frame.push_str("\x1b[J\x1b[?25h");
        self.drawn = lines.iter().map(|(_, c)| *c).collect();
        to.write_all(frame.as_bytes())?;
        to.flush()
    }

    /// The lines of a frame, each with its columns.
    fn lines(
        &mut self,
        trace: &Trace,
        now: Timestamp,
        last: bool,
        width: usize,
        height: usize,
    ) -> Vec<(String, usize)> {
        let now = trace.daemon_time(now);
        let mut rows: Vec<Row> =
            trace.shown.iter().flat_map(|id| vertex_rows(*id, &trace.vertices[*id], now)).collect();
        let window = self.log_lines.min(height.saturating_sub(MIN_WINDOW + 1).max(MIN_WINDOW));
        let hidden = self.place_windows(trace, &mut rows, window, width, height);
        if !last {
            rows = fit(rows, height.saturating_sub(2 + hidden));
        }
        let mut lines = vec![plain(self.header(trace, now, last, width))];
        for row in rows {
            lines.push(self.row(&row, width));
            if let Some(id) = row.vertex.filter(|_| row.window) {
                let log = trace.vertices[id].log.window(width.saturating_sub(WINDOW_PAD), window);
                lines.extend(log.iter().map(|text| self.window_row(text, width)));
            }
        }
        if !last {
            lines.truncate(height.saturating_sub(1).max(1));
        }
        lines
    }

    fn header(&self, trace: &Trace, now: Timestamp, last: bool, width: usize) -> String {
        let (done, all) = trace.counts();
        let elapsed = trace.started().map_or(0.0, |s| crate::interval::seconds(now.duration_since(s)));
        let finished = if last && done > 0 && done == all { " FINISHED" } else { "" };
        let left = format!("[+] {} {elapsed:.1}s ({done}/{all}){finished}", self.phase);
        let room = width.saturating_sub(columns(&left) + 1);
        let right = if columns(&self.description) <= room { self.description.as_str() } else { "" };
        let line = align(&left, right, if right.is_empty() { 0 } else { width });
        cut(&line, width).to_owned()
    }

    /// Gives windows to the running steps that say most, as long as there is room; says how many rows they take.
    fn place_windows(
        &mut self,
        trace: &Trace,
        rows: &mut [Row],
        window: usize,
        width: usize,
        height: usize,
    ) -> usize {
        let open = rows.iter().filter(|r| r.is_open()).count();
        let weight = |id: Id| trace.vertices[id].log.total + self.shown.get(&id).copied().unwrap_or(0) * 50;
        let mut talking: Vec<(usize, Id)> =
            rows.iter().enumerate().filter_map(|(i, r)| Some((i, r.vertex?))).collect();
        talking.sort_by_key(|(_, id)| std::cmp::Reverse(weight(*id)));
        let (mut free, mut taken) = (height.saturating_sub(2 + open), 0);
        for (i, id) in talking {
            if free <= window + 3 {
                break;
            }
            free -= window + 3;
            taken += trace.vertices[id].log.window(width.saturating_sub(WINDOW_PAD), window).len();
            rows[i].window = true;
            *self.shown.entry(id).or_default() += 1;
        }
        taken
    }

    fn row(&self, row: &Row, width: usize) -> (String, usize) {
        let timer = format!(" {:.1}s", row.seconds);
        let name = format!(" => {}", row.text);
        // The last column stays free.
        let edge = width.saturating_sub(1);
        let mut left = edge.saturating_sub(columns(&timer) + 1);
        let line = if left < MIN_NAME + 4 {
            cut(&name, width).to_owned()
        } else {
            let status = Some(&row.status).filter(|s| !s.is_empty() && left > 20 + columns(s));
            left -= status.map_or(0, |s| columns(s));
            let name = format!("{}{}", cut(&name, left), status.map_or("", |s| s));
            align(&name, &timer, edge)
        };
        let used = columns(&line);
        let color = self.colors.as_ref().and_then(|c| c.of(row.look));
        (color.map_or_else(|| line.clone(), |c| c.paint(&line)), used)
    }

    fn window_row(&self, text: &str, width: usize) -> (String, usize) {
        let line = format!(" => => # {text}");
        let line = cut(&line, width);
        let used = columns(line);
        (if self.colors.is_some() { format!("\x1b[2m{line}\x1b[0m") } else { line.to_owned() }, used)
    }
}

impl Colors {
    fn of(&self, look: Look) -> Option<&Color> {
        match look {
            Look::Open => None,
            Look::Done => Some(&self.run),
            Look::Canceled => Some(&self.cancel),
            Look::Failed => Some(&self.error),
            Look::Warning => Some(&self.warning),
        }
    }
}

fn plain(line: String) -> (String, usize) {
    let used = columns(&line);
    (line, used)
}

fn rounded(seconds: f64) -> f64 {
    if seconds < 0.05 { 0.0 } else { seconds }
}

/// A vertex, its counters and its warnings as rows.
fn vertex_rows(id: Id, v: &Vertex, now: Timestamp) -> Vec<Row> {
    let done = v.is_completed();
    let (prefix, look) = match () {
        () if v.is_canceled() => ("CANCELED ", Look::Canceled),
        () if !v.error.is_empty() => ("ERROR ", Look::Failed),
        () if v.cached => ("CACHED ", Look::Done),
        () => ("", Look::Done),
    };
    let seconds = rounded(v.runs.seconds(now));
    let first = Row {
        text: format!("{prefix}{}", v.name),
        status: String::new(),
        seconds,
        look: if done { look } else { Look::Open },
        vertex: Some(id).filter(|_| !done && v.log.total > 0),
        window: false,
    };
    let below = |text: String, status: String, seconds: f64, look: Look| Row {
        text,
        status,
        seconds,
        look,
        vertex: None,
        window: false,
    };
    let statuses = v.statuses.iter().map(|s| {
        let took = s
            .started
            .map_or(0.0, |start| crate::interval::seconds(s.completed.unwrap_or(now).duration_since(start)));
        let look = if s.completed.is_some() { Look::Done } else { Look::Open };
        below(format!("=> {}", s.id), amount(s.current, s.total), rounded(took), look)
    });
    let warnings =
        v.warnings.iter().map(|w| below(format!("WARN: {w}"), String::new(), seconds, Look::Warning));
    std::iter::once(first).chain(statuses).chain(warnings).collect()
}

/// The last `limit` rows; open rows above them push completed ones out.
fn fit(rows: Vec<Row>, limit: usize) -> Vec<Row> {
    let excess = rows.len().saturating_sub(limit);
    let mut keep: Vec<bool> = (0..rows.len()).map(|i| i >= excess).collect();
    let open_above: Vec<usize> = (0..excess).filter(|i| rows[*i].is_open()).collect();
    let completed: Vec<usize> = (excess..rows.len()).filter(|i| !rows[*i].is_open()).collect();
    for (above, below) in open_above.iter().rev().zip(completed) {
        keep[*above] = true;
        keep[below] = false;
    }
    rows.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(row, _)| row).collect()
}
