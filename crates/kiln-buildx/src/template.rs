//! `--format`: the part of Go's templates that people use for lists.

use serde_json::{Map, Value};

/// A row: fields for templates, and what `json` makes of the whole.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) fields: Map<String, Value>,
    pub(crate) whole: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Value(Pipe),
    If(Pipe, Vec<Part>, Vec<Part>),
    Range(Pipe, Vec<Part>, Vec<Part>),
}

/// Calls, each taking the value of the one before as its last argument.
type Pipe = Vec<Vec<Term>>;

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// `.`, `.Name`, `.Name.Part`
    Field(Vec<String>),
    Literal(Value),
    Function(String),
    Group(Pipe),
}

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

/// What stands behind `.`.
#[derive(Clone, Copy)]
enum Dot<'a> {
    Row(&'a Row),
    Value(&'a Value),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Something that is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = tokens(text)?.into_iter();
        match block(&mut tokens)? {
            (parts, None) => Ok(Self(parts)),
            (_, Some(end)) => Err(format!("unexpected {{{{{end}}}}}")),
        }
    }

    /// Fills it in.
    ///
    /// # Errors
    /// A field or function that there is not.
    pub(crate) fn render(&self, row: &Row) -> Result<String, String> {
        let mut out = String::new();
        render(&self.0, Dot::Row(row), &mut out)?;
        Ok(out)
    }
}

enum Token {
    Text(String),
    Action(String),
}

/// Texts and actions; `{{-` and `-}}` take the blanks beside them away.
fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let (mut out, mut rest, mut trim) = (Vec::new(), text, false);
    while let Some(at) = rest.find("{{") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        let end = action_end(after).ok_or("unclosed action")?;
        let action = &after[..end];
        let (action, trims_left) = action.strip_prefix("- ").map_or((action, false), |a| (a, true));
        let (action, trims_right) = action.strip_suffix(" -").map_or((action, false), |a| (a, true));
        let before = if trim { before.trim_start() } else { before };
        out.push(Token::Text(if trims_left { before.trim_end() } else { before }.to_owned()));
        out.push(Token::Action(action.trim().to_owned()));
        trim = trims_right;
        rest = &after[end + 2..];
    }
    out.push(Token::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(out)
}

/// Where `}}` is, outside of quotes.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// Parts up to `end` or `else`, and which of them it was.
fn block(tokens: &mut impl Iterator<Item = Token>) -> Result<(Vec<Part>, Option<String>), String> {
    let mut parts = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text(text) => {
                parts.push(Part::Text(text));
                continue;
            }
            Token::Action(action) => action,
        };
        match action.split_once(' ').unwrap_or((&action, "")) {
            ("end" | "else", "") => return Ok((parts, Some(action))),
            (word @ ("if" | "range"), condition) => {
                let pipe = pipe(condition)?;
                let (then, ended) = block(tokens)?;
                let otherwise = match ended.as_deref() {
                    Some("else") => block(tokens)?.0,
                    Some(_) => Vec::new(),
                    None => return Err("unexpected EOF".into()),
                };
                let make = if word == "if" { Part::If } else { Part::Range };
                parts.push(make(pipe, then, otherwise));
            }
            _ if action.starts_with("/*") => {}
            _ => parts.push(Part::Value(pipe(&action)?)),
        }
    }
    Ok((parts, None))
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let (pipe, rest) = calls(text)?;
    if !rest.is_empty() {
        return Err(format!("unexpected {rest:?} in {text:?}"));
    }
    Ok(pipe)
}

/// Calls up to the end or a closing parenthesis.
fn calls(mut text: &str) -> Result<(Pipe, &str), String> {
    let mut pipe = vec![Vec::new()];
    loop {
        text = text.trim_start();
        let Some(c) = text.chars().next() else { break };
        let last = pipe.len() - 1;
        match c {
            ')' => break,
            '|' => {
                pipe.push(Vec::new());
                text = &text[1..];
            }
            '(' => {
                let (inner, rest) = calls(&text[1..])?;
                pipe[last].push(Term::Group(inner));
                text = rest.strip_prefix(')').ok_or("unclosed left paren")?;
            }
            _ => {
                let (term, rest) = term(text)?;
                pipe[last].push(term);
                text = rest;
            }
        }
    }
    if pipe.iter().any(Vec::is_empty) {
        return Err("missing value for command".into());
    }
    Ok((pipe, text))
}

fn term(text: &str) -> Result<(Term, &str), String> {
    if let Some(raw) = text.strip_prefix('`') {
        let (value, rest) = raw.split_once('`').ok_or("unterminated raw quoted string")?;
        return Ok((Term::Literal(value.into()), rest));
    }
    if text.starts_with('"') {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let value = stream.next().and_then(Result::ok).ok_or("unterminated quoted string")?;
        return Ok((Term::Literal(value), &text[stream.byte_offset()..]));
    }
    let end = text.find(|c: char| c.is_whitespace() || "()|".contains(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if let Some(path) = word.strip_prefix('.') {
        let names = path.split('.').filter(|n| !n.is_empty()).map(str::to_owned);
        return Ok((Term::Field(names.collect()), rest));
    }
    match serde_json::from_str::<Value>(word) {
        Ok(value) => Ok((Term::Literal(value), rest)),
        Err(_) => Ok((Term::Function(word.to_owned()), rest)),
    }
}

fn render(parts: &[Part], dot: Dot<'_>, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Value(pipe) => out.push_str(&text_of(&eval(pipe, dot)?)),
            Part::If(pipe, then, otherwise) => {
                render(if is_true(&eval(pipe, dot)?) { then } else { otherwise }, dot, out)?;
            }
            Part::Range(pipe, body, otherwise) => {
                let items = match eval(pipe, dot)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, v)| v).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(format!("range can't iterate over {}", text_of(&other))),
                };
                for item in &items {
                    render(body, Dot::Value(item), out)?;
                }
                if items.is_empty() {
                    render(otherwise, dot, out)?;
                }
            }
        }
    }
    Ok(())
}

fn eval(pipe: &Pipe, dot: Dot<'_>) -> Result<Value, String> {
    let mut value: Option<Value> = None;
    for call in pipe {
        let mut args = call[1..].iter().map(|t| term_value(t, dot)).collect::<Result<Vec<_>, _>>()?;
        args.extend(value.take());
        value = Some(match &call[0] {
            Term::Function(name) => function(name, &args)?,
            first if args.is_empty() => term_value(first, dot)?,
            _ => return Err("can't give argument to non-function".into()),
        });
    }
    Ok(value.unwrap_or(Value::Null))
}

fn term_value(term: &Term, dot: Dot<'_>) -> Result<Value, String> {
    match term {
        Term::Literal(value) => Ok(value.clone()),
        Term::Group(pipe) => eval(pipe, dot),
        Term::Function(name) => function(name, &[]),
        Term::Field(path) => field(path, dot),
    }
}

fn field(path: &[String], dot: Dot<'_>) -> Result<Value, String> {
    let missing = |name: &str| format!("can't evaluate field {name}");
    let (mut value, rest) = match (dot, path.split_first()) {
        (Dot::Row(row), None) => return Ok(row.whole.clone()),
        (Dot::Row(row), Some((name, rest))) => (row.fields.get(name).ok_or_else(|| missing(name))?, rest),
        (Dot::Value(value), _) => (value, path),
    };
    for name in rest {
        value = value.get(name).ok_or_else(|| missing(name))?;
    }
    Ok(value.clone())
}

fn function(name: &str, args: &[Value]) -> Result<Value, String> {
    let wrong = || format!("wrong arguments for {name}");
    let text = |i: usize| args.get(i).map(text_of).ok_or_else(wrong);
    Ok(match (name, args) {
        ("json", [value]) => value.to_string().into(),
        ("upper", [_]) => text(0)?.to_uppercase().into(),
        ("lower", [_]) => text(0)?.to_lowercase().into(),
        ("len", [Value::Array(list)]) => list.len().into(),
        ("len", [Value::Object(map)]) => map.len().into(),
        ("len", [_]) => text(0)?.len().into(),
        ("not", [value]) => (!is_true(value)).into(),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => rest.contains(first).into(),
        ("ne", [a, b]) => (a != b).into(),
        ("and", [.., last]) => args.iter().find(|v| !is_true(v)).unwrap_or(last).clone(),
        ("or", [.., last]) => args.iter().find(|v| is_true(v)).unwrap_or(last).clone(),
        ("join", [Value::Array(list), separator]) => {
            list.iter().map(text_of).collect::<Vec<_>>().join(&text_of(separator)).into()
        }
        ("split", [_, _]) => text(0)?.split(&text(1)?).map(Value::from).collect::<Vec<_>>().into(),
        ("println", _) => format!("{}\n", args.iter().map(text_of).collect::<Vec<_>>().join(" ")).into(),
        ("print", _) => args.iter().map(text_of).collect::<String>().into(),
        ("json" | "upper" | "lower" | "len" | "not" | "eq" | "ne" | "and" | "or" | "join" | "split", _) => {
            return Err(wrong());
        }
        _ => return Err(format!("function {name:?} not defined")),
    })
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints it.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(text_of).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(k, v)| format!("{k}:{}", text_of(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String, String> {
        let Value::Object(fields) = json!({"Name": "b", "Size": 3, "Parents": ["x", "y"], "None": ""}) else {
            unreachable!()
        };
        Template::parse(template)?.render(&Row { whole: Value::Object(fields.clone()), fields })
    }

    #[test]
    fn what_people_write() {
        assert_eq!(render("{{.Name}}: {{.Size}}").unwrap(), "b: 3");
        assert_eq!(render("{{json .Parents}} {{ upper .Name }}").unwrap(), "[\"x\",\"y\"] B");
        assert_eq!(render("{{json .}}").unwrap(), r#"{"Name":"b","Size":3,"Parents":["x","y"],"None":""}"#);
        assert_eq!(render("{{range .Parents}}- {{.}}\n{{end}}").unwrap(), "- x\n- y\n");
        assert_eq!(render("{{if .None}}a{{else}}b{{end}}{{if eq .Name \"b\"}}!{{end}}").unwrap(), "b!");
        assert_eq!(render("a {{- .Name -}} c").unwrap(), "abc");
        assert_eq!(render("{{.Name | upper | printf}}").unwrap_err(), "function \"printf\" not defined");
        assert_eq!(render("{{join .Parents \", \"}}{{len (split \"a-b\" \"-\")}}").unwrap(), "x, y2");
        assert_eq!(render("{{\"}}\"}}{{`\\t`}}").unwrap(), "}}\\t");
    }

    #[test]
    fn mistakes_are_errors() {
        assert_eq!(render("{{.Foo}}").unwrap_err(), "can't evaluate field Foo");
        for wrong in
            ["{{", "{{if .Name}}", "{{end}}", "{{.Name}", "{{(.Name}}", "{{|}}", "{{\"a}}", "{{len}}"]
        {
            assert!(render(wrong).is_err(), "{wrong}");
        }
    }
}
