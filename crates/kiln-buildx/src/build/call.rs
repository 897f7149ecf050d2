//! `--call`: asks something of the Dockerfile instead of building it (spec dockerfile.md, subrequests).

use kiln_cli::build::args::BuildArgs;
use kiln_cli::build::metadata::Response;
use kiln_cli::build::plan::Plan;
use kiln_cli::printer;
use kiln_dockerfile::csv;
use kiln_llb::mask_credentials;
use kiln_progress::{LineRange, SourceFile, print_source_excerpt};
use serde::Deserialize;

use crate::commands::say;
use crate::error::Error;
use crate::flags::Parsed;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    name: String,
    is_json: bool,
    ignore_status: bool,
}

/// What `lint` answers, as far as it is printed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Lint {
    warnings: Option<Vec<serde_json::Value>>,
    sources: Option<Vec<LintSource>>,
    #[serde(rename = "buildError")]
    error: Option<LintError>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LintSource {
    filename: String,
    data: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LintError {
    message: String,
    location: Location,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Location {
    #[serde(rename = "sourceIndex")]
    source: usize,
    ranges: Option<Vec<Range>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Position {
    line: i32,
}

impl Call {
    /// Reads `--call`, its old name and its shorthand. None = a build.
    pub(super) fn parse(flags: &Parsed) -> Result<Option<Self>, Error> {
        if flags.switch("check") {
            return Ok(Some(Self { name: "lint".into(), ..Self::default() }));
        }
        let Some(text) = flags.word("call").or_else(|| flags.word("print")) else { return Ok(None) };
        Self::read(&text)
    }

    fn read(text: &str) -> Result<Option<Self>, Error> {
        let mut call = Self::default();
        for field in csv::fields(text).map_err(|e| Error::Text(format!("--call {text}: {e}")))? {
            match field.split_once('=') {
                Some(("format", value)) => call.is_json = value == "json",
                Some(("ignorestatus", value)) => {
                    let wrong = || Error::Text(format!("invalid ignorestatus print value: {value}"));
                    call.ignore_status = csv::parse_bool(value).ok_or_else(wrong)?;
                }
                Some(_) => return Err(Error::Text(format!("invalid print field: {field}"))),
                None if !call.name.is_empty() => {
                    return Err(Error::Text(format!("invalid print value: {text}")));
                }
                None => call.name = field,
            }
        }
        if call.name == "check" {
            call.name = "lint".into();
        }
        Ok((call.name != "build").then_some(call))
    }

    /// Makes a request of it: nothing is built, nothing is exported.
    pub(super) fn add(&self, plan: &mut Plan) {
        const CAP: &str = "moby.buildkit.frontend.subrequests+forward";
        let caps = plan.attrs.entry("frontend.caps".into()).or_default();
        *caps = if caps.is_empty() { CAP.into() } else { format!("{caps},{CAP}") };
        plan.attrs.insert("requestid".into(), format!("frontend.{}", self.name));
        plan.exports.clear();
    }

    /// Prints the answer; the exit status may be the Dockerfile's.
    pub(super) fn print(&self, answer: &Response, args: &BuildArgs) -> Result<(), Error> {
        let get = |key: &str| answer.get(key).map(String::as_str).unwrap_or_default();
        let (json, text) = (get("result.json"), get("result.txt"));
        match self.name.as_str() {
            _ if self.is_json => say(&format!("{json}\n"))?,
            "lint" => print_lint(json, text, args)?,
            _ => say(text)?,
        }
        let status: i64 = get("result.statuscode").parse().unwrap_or(0);
        if status != 0 && !self.ignore_status {
            return Err(Error::Exit(u8::try_from(status).unwrap_or(1)));
        }
        Ok(())
    }
}

fn print_lint(json: &str, text: &str, args: &BuildArgs) -> Result<(), Error> {
    let lint: Lint = serde_json::from_str(json).unwrap_or_default();
    let count = lint.warnings.as_ref().map_or(0, Vec::len);
    match count {
        0 => {}
        1 => say("Check complete, 1 warning has been found!\n")?,
        n => say(&format!("Check complete, {n} warnings have been found!\n"))?,
    }
    say(&lint.renamed(text, args))?;
    if let Some(error) = &lint.error {
        if count > 0 {
            say("\n")?;
        }
        printer::people(&format!("ERROR: {}\n\n", lint.error_text(error, args).trim_end()));
        return Err(Error::Exit(1));
    }
    if count == 0 { say("Check complete, no warnings found.\n") } else { Ok(()) }
}

/// The Dockerfile as the user wrote it.
fn named_by_user(args: &BuildArgs) -> Option<String> {
    args.file.clone().filter(|f| f != "-")
}

impl Lint {
    /// The text with the user's name of the Dockerfile above the excerpts.
    fn renamed(&self, text: &str, args: &BuildArgs) -> String {
        let Some(name) = named_by_user(args) else { return text.to_owned() };
        let sources: Vec<String> =
            self.sources.iter().flatten().map(|s| format!("{}:", s.filename)).collect();
        let line = |line: &str| {
            let place = sources.iter().find_map(|s| line.strip_prefix(s.as_str()));
            let is_place = |p: &&str| p.chars().all(|c| c.is_ascii_digit() || c == '-' || c == '\n');
            place.filter(is_place).map_or_else(|| line.to_owned(), |p| format!("{name}:{p}"))
        };
        text.split_inclusive('\n').map(line).collect()
    }

    /// The message and the place that it is about.
    fn error_text(&self, error: &LintError, args: &BuildArgs) -> String {
        let mut out = format!("{}\n", error.message).into_bytes();
        if let Some(source) = self.sources.iter().flatten().nth(error.location.source) {
            let data = base64_of(&source.data);
            let data = mask_credentials(&String::from_utf8_lossy(&data)).into_owned().into_bytes();
            let filename = named_by_user(args).unwrap_or_else(|| source.filename.clone());
            let file = SourceFile { filename, data, language: String::new() };
            let ranges: Vec<LineRange> = error
                .location
                .ranges
                .iter()
                .flatten()
                .map(|r| LineRange { start: r.start.line, end: r.end.line })
                .collect();
            // Writing to memory does not fail.
            let _ = print_source_excerpt(&file, &ranges, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn base64_of(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked() {
        let read = |text: &str| Call::read(text).map_err(|e| e.to_string());
        assert_eq!(read("build").unwrap(), None);
        let check = read("check,format=json,ignorestatus=true").unwrap().unwrap();
        assert_eq!(check, Call { name: "lint".into(), is_json: true, ignore_status: true });
        assert_eq!(read("outline").unwrap().unwrap().name, "outline");
        assert_eq!(read("a,b").unwrap_err(), "invalid print value: a,b");
        assert_eq!(read("a,x=y").unwrap_err(), "invalid print field: x=y");
        assert_eq!(read("a,ignorestatus=x").unwrap_err(), "invalid ignorestatus print value: x");
    }
}
