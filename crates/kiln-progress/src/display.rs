//! One renderer behind one door, and the loop that feeds it.

use crate::log::overwritten;
use crate::options::{DisplayOptions, Mode, ModeError};
use crate::plain::Plain;
use crate::tame::{RESET, has_colors, tame};
use crate::trace::Trace;
use crate::tty::Tty;
use crate::update::{Update, Warning};
use jiff::Timestamp;
use kiln_go::json::escape_html;
use std::io::{self, Write};
use std::time::Duration;

/// Warnings kept for the end; a build with more is not read to the end by anybody.
const MAX_WARNINGS: usize = 1000;
/// Lines printed of a failed step's log; `tty` prints all that is kept, its rows being gone.
const PLAIN_TAIL: usize = 10;

/// Shows the progress of one build.
///
/// Nothing reads a clock here: the caller says what time it is.
pub struct Display<W: Write> {
    out: W,
    is_terminal: bool,
    renderer: Renderer,
    trace: Trace,
    rate: Duration,
    drawn: Option<Timestamp>,
    warnings: Vec<Warning>,
}

enum Renderer {
    Tty(Tty),
    Plain(Plain),
    RawJson,
    /// Only the logs of failed steps, at the end.
    Quiet,
    Silent,
}

impl<W: Write> Display<W> {
    /// A display that writes to `out`, which is a terminal or not.
    ///
    /// # Errors
    /// `tty` without a terminal.
    pub fn new(mode: Mode, is_terminal: bool, out: W, options: DisplayOptions) -> Result<Self, ModeError> {
        let rate = options.rate;
        let renderer = match mode.resolve(is_terminal)? {
            Mode::Tty => Renderer::Tty(Tty::new(options)),
            Mode::Plain | Mode::Auto => Renderer::Plain(Plain::new(&options, is_terminal)),
            Mode::RawJson => Renderer::RawJson,
            Mode::Quiet => Renderer::Quiet,
            Mode::None => Renderer::Silent,
        };
        Ok(Self {
            out,
            is_terminal,
            renderer,
            trace: Trace::default(),
            rate,
            drawn: None,
            warnings: Vec::new(),
        })
    }

    /// Takes in news; draws when the last frame is old enough.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn update(&mut self, update: Update, now: Timestamp) -> io::Result<()> {
        let room = MAX_WARNINGS.saturating_sub(self.warnings.len());
        self.warnings.extend(update.warnings.iter().take(room).cloned());
        match self.renderer {
            Renderer::Silent => return Ok(()),
            Renderer::RawJson => return self.raw(&update),
            Renderer::Tty(_) | Renderer::Plain(_) | Renderer::Quiet => self.trace.apply(&update, now),
        }
        let due = self.drawn.is_none_or(|d| now.duration_since(d).unsigned_abs() >= self.rate);
        if due { self.refresh(now) } else { Ok(()) }
    }

    fn raw(&mut self, update: &Update) -> io::Result<()> {
        if update.is_empty() {
            return Ok(());
        }
        let line = escape_html(&serde_json::to_string(update)?);
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// The build was given up: what is still running is canceled.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn cancel(&mut self, now: Timestamp) -> io::Result<()> {
        self.trace.cancel(now);
        self.refresh(now)
    }

    /// Draws what is known; to be called when there was no news for a while.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn refresh(&mut self, now: Timestamp) -> io::Result<()> {
        self.drawn = Some(now);
        match &mut self.renderer {
            Renderer::Tty(tty) => tty.draw(&mut self.trace, now, false, &mut self.out),
            Renderer::Plain(plain) => plain.print(&mut self.trace, now, &mut self.out),
            Renderer::Quiet => {
                self.trace.vertices.iter_mut().for_each(|v| v.log.take_printed());
                Ok(())
            }
            Renderer::RawJson | Renderer::Silent => Ok(()),
        }
    }

    /// Draws the last frame and the logs of failed steps; gives back the warnings of the build.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn finish(mut self, now: Timestamp) -> io::Result<Vec<Warning>> {
        let lines = match &mut self.renderer {
            Renderer::Tty(tty) => {
                tty.draw(&mut self.trace, now, true, &mut self.out)?;
                usize::MAX
            }
            Renderer::Plain(plain) => {
                plain.finish(&mut self.trace, now, &mut self.out)?;
                PLAIN_TAIL
            }
            Renderer::Quiet => PLAIN_TAIL,
            Renderer::RawJson | Renderer::Silent => return Ok(self.warnings),
        };
        self.failures(lines)?;
        self.out.flush()?;
        Ok(self.warnings)
    }

    fn failures(&mut self, lines: usize) -> io::Result<()> {
        let failed = self.trace.shown.iter().map(|id| &self.trace.vertices[*id]).filter(|v| v.has_failed());
        for v in failed {
            writeln!(self.out, "------\n > {}:", v.name)?;
            for line in v.log.last_lines(lines) {
                let line = overwritten(line);
                if self.is_terminal {
                    let line = tame(&line);
                    self.out.write_all(&line)?;
                    self.out.write_all(if has_colors(&line) { RESET } else { b"" })?;
                } else {
                    self.out.write_all(&line)?;
                }
                self.out.write_all(b"\n")?;
            }
            writeln!(self.out, "------")?;
        }
        Ok(())
    }

    /// Shows updates until they end: `next` waits for one, at most as long as it is told.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn run(
        mut self,
        mut next: impl FnMut(Duration) -> Next,
        mut clock: impl FnMut() -> Timestamp,
    ) -> io::Result<Vec<Warning>> {
        let idle = self.rate + self.rate / 2;
        loop {
            match next(idle) {
                Next::Update(update) => self.update(update, clock())?,
                Next::Nothing => self.refresh(clock())?,
                Next::Canceled => self.cancel(clock())?,
                Next::End => return self.finish(clock()),
            }
        }
    }
}

/// What came of waiting for an update.
#[derive(Debug)]
pub enum Next {
    /// News.
    Update(Update),
    /// Nothing within the time given.
    Nothing,
    /// The build was given up.
    Canceled,
    /// There will be no more.
    End,
}
