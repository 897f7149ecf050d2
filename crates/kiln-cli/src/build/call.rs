//! `--call`: asks something of the Dockerfile instead of building it (spec dockerfile.md, subrequests).

use super::args::BuildArgs;
use super::metadata::Response;
use super::run;
use crate::error::CliError;
use crate::{pairs, printer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_client::SolveResponse;
use kiln_go::csv;
use kiln_llb::mask_credentials;
use kiln_progress::{LineRange, Mode, SourceFile, print_source_excerpt};
use serde::Deserialize;
use serde_json::Map;
use std::collections::BTreeMap;

/// A question to the Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
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
    ///
    /// # Errors
    /// It is not understood.
    pub(crate) fn of(args: &BuildArgs) -> Result<Option<Self>, CliError> {
        if args.check {
            return Ok(Some(Self { name: "lint".into(), ..Self::default() }));
        }
        let text = args.call.as_ref().or(args.old.print.as_ref());
        text.filter(|t| !t.is_empty()).map_or(Ok(None), |text| Self::read(text))
    }

    fn read(text: &str) -> Result<Option<Self>, CliError> {
        let wrong = |why: String| CliError::Value { flag: "--call", value: text.to_owned(), why };
        let mut call = Self::default();
        for field in csv::fields(text).map_err(|e| wrong(e.to_string()))? {
            match field.split_once('=') {
                Some(("format", value)) => call.is_json = value == "json",
                Some(("ignorestatus", value)) => {
                    let is_bool = kiln_go::parse_bool(value);
                    call.ignore_status =
                        is_bool.ok_or_else(|| wrong("ignorestatus is true or false".into()))?;
                }
                Some((key, _)) => {
                    return Err(wrong(pairs::unknown("option", key, &["format", "ignorestatus"])));
                }
                None if !call.name.is_empty() => return Err(wrong("one method at a time".into())),
                None => call.name = field,
            }
        }
        if call.name == "check" {
            call.name = "lint".into();
        }
        Ok((call.name != "build").then_some(call))
    }

    /// Makes a question of the frontend's options.
    pub(crate) fn add(&self, attrs: &mut BTreeMap<String, String>) {
        const CAP: &str = "moby.buildkit.frontend.subrequests+forward";
        let caps = attrs.entry("frontend.caps".into()).or_default();
        *caps = if caps.is_empty() { CAP.into() } else { format!("{caps},{CAP}") };
        attrs.insert("requestid".into(), format!("frontend.{}", self.name));
    }

    /// Prints the answer and leaves it in the metadata file.
    ///
    /// # Errors
    /// The Dockerfile's status is not 0 ([`CliError::Status`]), or the answer cannot be written.
    pub fn leave(&self, args: &BuildArgs, solved: &SolveResponse) -> Result<(), CliError> {
        let text = |v: &Vec<u8>| String::from_utf8_lossy(v).into_owned();
        let mut answers = solved.exporter_response.clone();
        answers.extend(solved.answer.iter().map(|(k, v)| (k.clone(), text(v))));
        // Nothing was built that has an id.
        let no_id = BuildArgs { iidfile: None, ..args.clone() };
        run::leave_results(&no_id, Mode::Plain, &answers, &[], Map::new())?;
        self.print(&answers, args)
    }

    fn print(&self, answer: &Response, args: &BuildArgs) -> Result<(), CliError> {
        let get = |key: &str| answer.get(key).map(String::as_str).unwrap_or_default();
        let (json, text) = (get("result.json"), get("result.txt"));
        let lint = (self.name == "lint").then(|| serde_json::from_str::<Lint>(json).unwrap_or_default());
        match &lint {
            _ if self.is_json => say(&format!("{json}\n"))?,
            Some(lint) => lint.print(text, args)?,
            None => say(text)?,
        }
        if let Some((lint, error)) = lint.as_ref().and_then(|l| Some((l, l.error.as_ref()?))) {
            let text = lint.error_text(error, args);
            printer::people(&kiln_progress::printable_lines(&format!("ERROR: {}\n", text.trim_end())));
            return Err(CliError::Status(1));
        }
        let status: i64 = get("result.statuscode").parse().unwrap_or(0);
        if status != 0 && !self.ignore_status {
            return Err(CliError::Status(u8::try_from(status).unwrap_or(1)));
        }
        Ok(())
    }
}

fn say(text: &str) -> Result<(), CliError> {
    printer::data(text.as_bytes()).map_err(CliError::stream("writing to stdout"))
}

/// The Dockerfile as the user wrote it.
fn named_by_user(args: &BuildArgs) -> Option<String> {
    args.file.clone().filter(|f| f != "-")
}

impl Lint {
    /// How many warnings there are, and the frontend's text about them.
    fn print(&self, text: &str, args: &BuildArgs) -> Result<(), CliError> {
        let count = self.warnings.as_ref().map_or(0, Vec::len);
        match count {
            0 => {}
            1 => say("Check complete, 1 warning has been found!\n")?,
            n => say(&format!("Check complete, {n} warnings have been found!\n"))?,
        }
        say(&self.renamed(text, args))?;
        match (&self.error, count) {
            (None, 0) => say("Check complete, no warnings found.\n"),
            (None, _) | (Some(_), 0) => Ok(()),
            (Some(_), _) => say("\n"),
        }
    }

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
            let data = STANDARD.decode(&source.data).unwrap_or_default();
            let data = mask_credentials(&String::from_utf8_lossy(&data)).into_owned().into_bytes();
            let filename = named_by_user(args).unwrap_or_else(|| source.filename.clone());
            let file = SourceFile { filename, data, language: String::new() };
            let lines = |r: &Range| LineRange { start: r.start.line, end: r.end.line };
            let ranges: Vec<_> = error.location.ranges.iter().flatten().map(lines).collect();
            // Writing to memory does not fail.
            let _ = print_source_excerpt(&file, &ranges, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{args, plan};

    #[test]
    fn what_can_be_asked() {
        let read = |text: &str| Call::read(text).map_err(|e| e.to_string());
        assert_eq!(read("build").unwrap(), None);
        let check = read("check,format=json,ignorestatus=true").unwrap().unwrap();
        assert_eq!(check, Call { name: "lint".into(), is_json: true, ignore_status: true });
        assert_eq!(read("outline").unwrap().unwrap().name, "outline");
        for (text, why) in [
            ("a,b", "one method at a time"),
            ("a,formt=json", "unknown option 'formt' (did you mean format?); known: format, ignorestatus"),
            ("a,ignorestatus=x", "ignorestatus is true or false"),
        ] {
            assert_eq!(read(text).unwrap_err(), format!("invalid value '{text}' for --call: {why}"));
        }
    }

    #[test]
    fn a_question_builds_nothing() {
        for (flag, method) in [("--check", "lint"), ("--call=targets", "targets"), ("--print=x", "x")] {
            let plan = plan(&[flag, "-t", "app", "-o", "out", "."]).unwrap();
            assert_eq!(plan.attrs["requestid"], format!("frontend.{method}"));
            assert!(plan.call.is_some() && plan.exports.is_empty() && plan.warnings.is_empty());
        }
        let forwarded = plan(&["--check", "--build-context", "a=.", "."]).unwrap();
        assert_eq!(
            forwarded.attrs["frontend.caps"],
            "moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.subrequests+forward"
        );
        assert!(plan(&["--call=build", "."]).unwrap().call.is_none());
    }

    #[test]
    fn the_status_of_an_answer() {
        let answer = |status: &str| -> Response {
            [("result.txt".to_owned(), String::new()), ("result.statuscode".to_owned(), status.to_owned())]
                .into()
        };
        let status = |text: &str, status: &str| {
            Call::read(text)
                .unwrap()
                .unwrap()
                .print(&answer(status), &args(&["."]))
                .map_err(|e| e.to_string())
        };
        assert_eq!(status("x", "0"), Ok(()));
        assert_eq!(status("x", "3"), Err("exit status 3".into()));
        assert_eq!(status("x,ignorestatus=1", "3"), Ok(()));
    }

    #[test]
    fn names_of_the_user_stand_above_excerpts_and_secrets_in_none() {
        let source = STANDARD.encode("FROM a\nADD https://u:canary@h/x /\n");
        let lint: Lint = serde_json::from_str(&format!(
            r#"{{"sources":[{{"filename":"Dockerfile","data":"{source}"}}],"buildError":{{"message":"no","location":{{"sourceIndex":0,"ranges":[{{"start":{{"line":2}},"end":{{"line":2}}}}]}}}}}}"#
        ))
        .unwrap();
        let args = args(&["-f", "sub/D", "."]);
        assert_eq!(lint.renamed("Dockerfile:2\nDockerfile: x\n", &args), "sub/D:2\nDockerfile: x\n");
        let text = lint.error_text(lint.error.as_ref().unwrap(), &args);
        assert!(text.starts_with("no\nsub/D:2\n") && text.contains(">>>"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}
