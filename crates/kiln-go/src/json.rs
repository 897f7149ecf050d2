//! JSON as `encoding/json` prints it: `<`, `>`, `&`, U+2028 and U+2029 are escaped, floats are in Go's form.
//!
//! Digests of manifests, configs and cache keys are taken over this text, so it must be the same byte for byte.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::value::RawValue;

/// Compact, as `json.Marshal`.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, Go(CompactFormatter))
}

/// Indented by two spaces, no trailing newline, as `json.MarshalIndent(v, "", "  ")`.
pub fn to_vec_indent<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, Go(PrettyFormatter::new()))
}

fn write<T: Serialize + ?Sized, F: Formatter>(value: &T, formatter: F) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    Ok(out)
}

/// A JSON object whose values stay as they were written. Re-encoding sorts the keys and removes space between tokens,
/// nothing else: what Go does with `map[string]json.RawMessage`. Image configs are patched through this, so that
/// fields nobody here knows survive.
#[derive(Clone, Debug, Default)]
pub struct RawObject(BTreeMap<String, Box<RawValue>>);

impl RawObject {
    /// Reads an object; of a repeated key the last value counts.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json).map(Self)
    }

    /// The text of a value, `None` when the key is absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| v.get())
    }

    /// Sets a value to its Go encoding.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> serde_json::Result<()> {
        let text = String::from_utf8_lossy(&to_vec(value)?).into_owned();
        self.0.insert(key.to_string(), RawValue::from_string(text)?);
        Ok(())
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Compact text with sorted keys.
    pub fn to_vec(&self) -> serde_json::Result<Vec<u8>> {
        let mut out = vec![b'{'];
        for (i, (key, value)) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend(to_vec(key)?);
            out.push(b':');
            out.extend(compact(value.get()).into_bytes());
        }
        out.push(b'}');
        Ok(out)
    }
}

/// Escapes JSON that another encoder wrote as Go does; space stays where it is.
pub fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    json.chars().for_each(|c| push_escaped(&mut out, c));
    out
}

/// A JSON string.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out
}

/// Appends a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => push_escaped(out, c),
        }
    }
    out.push('"');
}

/// Whether `omitempty` leaves a value out of its object. An object counts as a map, not as a struct.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Removes space between the tokens of valid JSON and escapes as Go does; numbers and strings keep their spelling.
pub fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            push_escaped(&mut out, c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            out.push(c);
            in_string = c == '"';
        }
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    match escape(c) {
        Some(text) => out.push_str(text),
        None => out.push(c),
    }
}

fn escape(c: char) -> Option<&'static str> {
    Some(match c {
        '<' => "\\u003c",
        '>' => "\\u003e",
        '&' => "\\u0026",
        '\u{2028}' => "\\u2028",
        '\u{2029}' => "\\u2029",
        _ => return None,
    })
}

/// Wraps a formatter of serde_json: structure from it, strings and floats as in Go.
struct Go<F>(F);

impl<F: Formatter> Formatter for Go<F> {
    fn write_f64<W: ?Sized + Write>(&mut self, w: &mut W, value: f64) -> io::Result<()> {
        w.write_all(go_float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        let mut start = 0;
        for (i, c) in fragment.char_indices() {
            if let Some(text) = escape(c) {
                w.write_all(&fragment.as_bytes()[start..i])?;
                w.write_all(text.as_bytes())?;
                start = i + c.len_utf8();
            }
        }
        w.write_all(&fragment.as_bytes()[start..])
    }

    fn write_raw_fragment<W: ?Sized + Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        w.write_all(compact(fragment).as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_array(w)
    }

    fn end_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array(w)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(w, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array_value(w)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object(w)
    }

    fn end_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object(w)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(w, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object_value(w)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object_value(w)
    }
}

/// Go prints the shortest form, without exponent between 1e-6 and 1e21 and with a signed one outside.
fn go_float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((mantissa, exponent)) if !exponent.starts_with('-') => format!("{mantissa}e+{exponent}"),
            _ => text,
        };
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(v: serde_json::Value) -> String {
        String::from_utf8(to_vec(&v).unwrap()).unwrap()
    }

    #[test]
    fn escapes_as_go_does() {
        assert_eq!(
            text(json!("a<b>&c \u{2028}\u{2029} \"\\ \u{8}\u{c}\n\r\t\u{1}\u{7f} é")),
            "\"a\\u003cb\\u003e\\u0026c \\u2028\\u2029 \\\"\\\\ \\b\\f\\n\\r\\t\\u0001\u{7f} é\""
        );
        assert_eq!(text(json!({"a<": 1})), r#"{"a\u003c":1}"#);
        assert_eq!(string("\u{1}\u{1f}\u{8}\u{c}"), r#""\u0001\u001f\b\f""#);
    }

    #[test]
    fn floats_as_in_go() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (0.000001, "0.000001"),
        ] {
            assert_eq!(go_float(value), expected);
        }
    }

    #[test]
    fn indents_by_two() {
        let v = json!({"a": [1, {"b": "<"}], "e": [], "o": {}});
        let out = String::from_utf8(to_vec_indent(&v).unwrap()).unwrap();
        assert_eq!(
            out,
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"\\u003c\"\n    }\n  ],\n  \"e\": [],\n  \"o\": {}\n}"
        );
    }

    #[test]
    fn raw_objects_keep_unknown_values() {
        let mut o = RawObject::parse(
            br#"{ "z": {"q" : 1.0, "a": "x \" < y"}, "b": [ 1 , 2 ],
                "created": "t" }"#,
        )
        .unwrap();
        o.set("created", "now").unwrap();
        o.set("added", &json!({"k": "&"})).unwrap();
        o.remove("b");
        assert_eq!(
            String::from_utf8(o.to_vec().unwrap()).unwrap(),
            r#"{"added":{"k":"\u0026"},"created":"now","z":{"q":1.0,"a":"x \" \u003c y"}}"#
        );
        assert_eq!(o.get("z"), Some(r#"{"q" : 1.0, "a": "x \" < y"}"#));
        assert!(RawObject::parse(b"[]").is_err());
        assert!(RawObject::parse(b"null").is_err());
    }

    proptest::proptest! {
        #[test]
        fn strings_round_trip(s: String) {
            let v = serde_json::Value::String(s.clone());
            let out = to_vec(&v).unwrap();
            proptest::prop_assert_eq!(&serde_json::from_slice::<String>(&out).unwrap(), &s);
            let spaced = format!(" {} ", serde_json::to_string(&s).unwrap());
            proptest::prop_assert_eq!(&compact(&spaced).into_bytes(), &out);
            proptest::prop_assert_eq!(&string(&s).into_bytes(), &out);
            let json = serde_json::to_string(&s).unwrap();
            proptest::prop_assert_eq!(&escape_html(&json).into_bytes(), &out);
        }
    }
}
