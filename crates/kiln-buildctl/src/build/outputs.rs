//! `--output`.

use crate::error::{Error, system};
use kiln_cli::printer;
use kiln_client::{Export, Output};
use kiln_go::{csv::fields, parse_bool};
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// The fields of a value: keys in lower case, `type` apart.
pub(super) fn typed(text: &str) -> Result<(String, BTreeMap<String, String>), Error> {
    let mut kind = String::new();
    let mut attrs = BTreeMap::new();
    for field in fields(text).map_err(|e| e.to_string())? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
        match key.to_lowercase().as_str() {
            "type" => kind = value.to_owned(),
            key => drop(attrs.insert(key.to_owned(), value.to_owned())),
        }
    }
    Ok((kind, attrs))
}

/// All results that are asked for.
pub(super) fn parse(texts: &[String]) -> Result<Vec<Export>, Error> {
    texts.iter().map(|text| one(text, printer::stdout_is_terminal())).collect()
}

fn one(text: &str, stdout_is_terminal: bool) -> Result<Export, Error> {
    let (kind, mut attrs) = typed(text)?;
    if kind.is_empty() {
        return Err("--output requires type=<type>".into());
    }
    if let Some(path) = attrs.get("output") {
        return Err(format!("output={path} not supported for --output, you meant dest={path}?").into());
    }
    let dest = attrs.get("dest").map_or("", String::as_str);
    let as_tar = attrs.get("tar").and_then(|t| parse_bool(t)) != Some(false);
    let output = output(&kind, dest, as_tar, stdout_is_terminal)
        .map_err(|why| format!("invalid output option: output: {why}"))?;
    if !matches!(output, Output::None) {
        attrs.remove("dest");
    }
    Ok(Export { kind, attrs, output })
}

fn output(kind: &str, dest: &str, as_tar: bool, stdout_is_terminal: bool) -> Result<Output, String> {
    let is_directory = kind == "local" || (matches!(kind, "oci" | "docker") && !as_tar);
    let is_file = kind == "tar" || (matches!(kind, "oci" | "docker") && as_tar);
    match dest {
        "" if is_directory => Err(format!("output directory is required for {kind} exporter")),
        path if is_directory => Ok(Output::Dir { path: path.into(), delete: false }),
        "" | "-" if is_file && stdout_is_terminal => {
            Err(format!("output file is required for {kind} exporter. refusing to write to console"))
        }
        "" | "-" if is_file => Ok(Output::Stdout),
        path if is_file => match std::fs::metadata(path) {
            Ok(m) if m.is_dir() => Err("destination file is a directory".into()),
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(format!("invalid destination file: {path}: stat {path}: {}", system(&e)))
            }
            Err(_) if !has_directory(path) => Err(format!("open {path}: no such file or directory")),
            _ => Ok(Output::File(path.into())),
        },
        "" => Ok(Output::None),
        path => Err(format!("output {path} is not supported by {kind} exporter")),
    }
}

fn has_directory(path: &str) -> bool {
    let dir = std::path::Path::new(path).parent().filter(|d| !d.as_os_str().is_empty());
    dir.is_none_or(|d| d.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Export, String> {
        one(text, false).map_err(|e| e.to_string())
    }

    #[test]
    fn where_results_go() {
        let export = parse("type=image,Name=a,push=true").unwrap();
        assert_eq!((export.attrs["name"].as_str(), export.attrs["push"].as_str()), ("a", "true"));
        assert!(matches!(export.output, Output::None));
        assert!(matches!(parse("type=local,dest=d").unwrap().output, Output::Dir { .. }));
        assert!(matches!(parse("type=oci,dest=d,tar=false").unwrap().output, Output::Dir { .. }));
        assert!(matches!(parse("type=docker").unwrap().output, Output::Stdout));
        let export = parse("type=tar,dest=/tmp/no-such-file.tar").unwrap();
        assert!(matches!(export.output, Output::File(_)) && export.attrs.is_empty());
    }

    #[test]
    fn what_is_wrong() {
        for (text, expected) in [
            ("x", "invalid value x"),
            ("", "EOF"),
            ("dest=x", "--output requires type=<type>"),
            ("type=local", "invalid output option: output: output directory is required for local exporter"),
            ("type=local,output=x", "output=x not supported for --output, you meant dest=x?"),
            (
                "type=image,dest=x",
                "invalid output option: output: output x is not supported by image exporter",
            ),
            ("type=oci,dest=/", "invalid output option: output: destination file is a directory"),
            ("type=oci,dest=/no/x", "invalid output option: output: open /no/x: no such file or directory"),
            (
                "type=oci,tar=0",
                "invalid output option: output: output directory is required for oci exporter",
            ),
            ("type=image,\"x", "parse error on line 1, column 13: extraneous or missing \" in quoted-field"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(
            one("type=tar", true).unwrap_err().to_string(),
            "invalid output option: output: output file is required for tar exporter. refusing to write to console"
        );
    }
}
