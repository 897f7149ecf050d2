//! How progress is shown: what the environment and flags say, as values.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// Rows redrawn in place; refused when there is no terminal.
    Tty,
    /// Lines, one after another.
    Plain,
    /// One JSON object per line.
    RawJson,
    /// Nothing but the logs of failed steps; the caller prints the result's id.
    Quiet,
    /// Nothing at all.
    None,
}

impl Mode {
    const NAMES: [(&str, Mode); 6] = [
        ("auto", Mode::Auto),
        ("tty", Mode::Tty),
        ("plain", Mode::Plain),
        ("rawjson", Mode::RawJson),
        ("quiet", Mode::Quiet),
        ("none", Mode::None),
    ];

    /// The word of the flag.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, m)| *m == self).map_or("auto", |(n, _)| n)
    }

    /// What is used when the output is, or is not, a terminal.
    ///
    /// # Errors
    /// `tty` was asked for and there is none.
    pub fn resolve(self, is_terminal: bool) -> Result<Mode, ModeError> {
        match (self, is_terminal) {
            (Mode::Auto, true) => Ok(Mode::Tty),
            (Mode::Auto, false) => Ok(Mode::Plain),
            (Mode::Tty, false) => Err(ModeError::NoTerminal),
            (other, _) => Ok(other),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(s: &str) -> Result<Self, ModeError> {
        let found = Self::NAMES.iter().find(|(n, _)| *n == s || (s.is_empty() && *n == "auto"));
        found.map(|(_, m)| *m).ok_or_else(|| ModeError::Unknown(s.to_owned()))
    }
}

/// A progress mode that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// Not one of the words.
    #[error("invalid progress mode {0}: expected auto, tty, plain, rawjson, quiet or none")]
    Unknown(String),
    /// `tty` without a terminal.
    #[error("progress mode tty needs a terminal; use auto or plain")]
    NoTerminal,
}

/// A foreground colour: the parameters of an SGR sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Color(String);

impl Color {
    const NAMES: [(&str, u8); 17] = [
        ("default", 39),
        ("black", 30),
        ("red", 31),
        ("green", 32),
        ("yellow", 33),
        ("blue", 34),
        ("magenta", 35),
        ("cyan", 36),
        ("white", 37),
        ("light-black", 90),
        ("light-red", 91),
        ("light-green", 92),
        ("light-yellow", 93),
        ("light-blue", 94),
        ("light-magenta", 95),
        ("light-cyan", 96),
        ("light-white", 97),
    ];

    /// A name, or `R,G,B` with values 0 to 255.
    fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase();
        if let Some((_, code)) = Self::NAMES.iter().find(|(n, _)| *n == name) {
            return Some(Self(code.to_string()));
        }
        let parts: Vec<u8> = text.split(',').map(|p| p.trim().parse().ok()).collect::<Option<_>>()?;
        match parts.as_slice() {
            [r, g, b] => Some(Self(format!("38;2;{r};{g};{b}"))),
            _ => None,
        }
    }

    /// The text in this colour.
    pub(crate) fn paint(&self, text: &str) -> String {
        format!("\x1b[{}m{text}\x1b[0m", self.0)
    }
}

/// Colours of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Colors {
    /// Completed rows.
    pub run: Color,
    /// Cancelled rows and warnings below steps.
    pub cancel: Color,
    /// Failed rows.
    pub error: Color,
    /// Warnings.
    pub warning: Color,
}

impl Default for Colors {
    fn default() -> Self {
        let code = |n: u8| Color(n.to_string());
        Self { run: code(34), cancel: code(33), error: code(31), warning: code(33) }
    }
}

impl Colors {
    /// Reads `run=blue:error=255,0,0` ($BUILDKIT_COLORS). Parts that are wrong are left out and reported.
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut colors = Self::default();
        let mut problems = Vec::new();
        for part in text.split(':').filter(|p| !p.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                problems.push(format!("BUILDKIT_COLORS: {part:?} is not key=color"));
                continue;
            };
            let Some(color) = Color::parse(value.trim_matches('"')) else {
                problems.push(format!("BUILDKIT_COLORS: {value:?} is neither a color name nor R,G,B"));
                continue;
            };
            match key.to_ascii_lowercase().as_str() {
                "run" => colors.run = color,
                "cancel" => colors.cancel = color,
                "error" => colors.error = color,
                "warning" => colors.warning = color,
                _ => problems.push(format!(
                    "BUILDKIT_COLORS: unknown key {key:?}: expected run, cancel, error or warning"
                )),
            }
        }
        (colors, problems)
    }
}

/// Size of the terminal in columns and rows, asked at every frame; None = not known.
pub type TerminalSize = Box<dyn Fn() -> Option<(u16, u16)> + Send>;

/// Everything about the looks of progress.
pub struct DisplayOptions {
    /// None = no colours ($NO_COLOR).
    pub colors: Option<Colors>,
    /// Rows of a running step's log ($BUILDKIT_TTY_LOG_LINES).
    pub log_lines: usize,
    /// Shortest time between two frames ($TTY_DISPLAY_RATE, milliseconds).
    pub rate: Duration,
    /// Plain names are cut at 72 characters ($PROGRESS_NO_TRUNC=0).
    pub truncate_names: bool,
    /// First word of the tty header.
    pub phase: String,
    /// First line of plain output and right end of the tty header; may be empty.
    pub description: String,
    /// Terminal size for `tty`.
    pub size: TerminalSize,
}

impl Default for DisplayOptions {
    fn default() -> Self {
        Self {
            colors: Some(Colors::default()),
            log_lines: 6,
            rate: Duration::from_millis(100),
            truncate_names: false,
            phase: "Building".into(),
            description: String::new(),
            size: Box::new(|| None),
        }
    }
}

impl fmt::Debug for DisplayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DisplayOptions").field("phase", &self.phase).finish_non_exhaustive()
    }
}
