//! The functions of templates: Go's own that lists have use for, and those of Docker's tools.

use super::value::{Nil, Value};
use std::cmp::Ordering;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Len,
    Index,
    Print,
    Println,
    Json,
    Upper,
    Lower,
    Title,
    Split,
    Join,
    Pad,
    Truncate,
}

/// How many arguments a function takes.
enum Takes {
    Exactly(usize),
    AtLeast(usize),
}

use Function as F;
use Takes::{AtLeast, Exactly};

const ALL: [(&str, Function, Takes); 21] = [
    ("and", F::And, AtLeast(1)),
    ("or", F::Or, AtLeast(1)),
    ("not", F::Not, Exactly(1)),
    ("eq", F::Eq, AtLeast(2)),
    ("ne", F::Ne, Exactly(2)),
    ("lt", F::Lt, Exactly(2)),
    ("le", F::Le, Exactly(2)),
    ("gt", F::Gt, Exactly(2)),
    ("ge", F::Ge, Exactly(2)),
    ("len", F::Len, Exactly(1)),
    ("index", F::Index, AtLeast(1)),
    ("print", F::Print, AtLeast(0)),
    ("println", F::Println, AtLeast(0)),
    ("json", F::Json, Exactly(1)),
    ("upper", F::Upper, Exactly(1)),
    ("lower", F::Lower, Exactly(1)),
    ("title", F::Title, Exactly(1)),
    ("split", F::Split, Exactly(2)),
    ("join", F::Join, Exactly(2)),
    ("pad", F::Pad, Exactly(3)),
    ("truncate", F::Truncate, Exactly(2)),
];

/// What `pad` adds at most on a side.
const MAX_PAD: usize = 4096;

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(n, ..)| *n == name).map(|(_, function, _)| *function)
    }

    /// Whether it makes a text of a value, which headers need not.
    pub(super) fn is_text(self) -> bool {
        use Function::{Join, Json, Lower, Pad, Split, Title, Truncate, Upper};
        matches!(self, Json | Upper | Lower | Title | Split | Join | Pad | Truncate)
    }

    /// Whether it takes so many arguments.
    pub(super) fn check(self, got: usize) -> Result<(), String> {
        for (name, _, takes) in ALL.iter().filter(|(_, f, _)| *f == self) {
            let want = match takes {
                Exactly(n) if got != *n => n.to_string(),
                AtLeast(n) if got < *n => format!("at least {n}"),
                _ => continue,
            };
            return Err(format!("wrong number of args for {name}: want {want} got {got}"));
        }
        Ok(())
    }

    /// Calls it.
    pub(super) fn call(self, args: &[Value]) -> Result<Value, String> {
        self.check(args.len())?;
        let order = |name: &str| match args {
            [Value::Int(a), Value::Int(b)] => Ok(a.cmp(b)),
            [Value::Text(a), Value::Text(b)] => Ok(a.cmp(b)),
            [Value::Time(_) | Value::List(_) | Value::Map(_) | Value::Struct(_), _] => {
                Err(format!("error calling {name}: invalid type for comparison"))
            }
            _ => Err(format!("error calling {name}: incompatible types for comparison")),
        };
        Ok(match (self, args) {
            (Self::Not, [value]) => (!value.is_true()).into(),
            (Self::Eq, [first, rest @ ..]) => rest.contains(first).into(),
            (Self::Ne, [a, b]) => (a != b).into(),
            (Self::Lt, _) => (order("lt")? == Ordering::Less).into(),
            (Self::Le, _) => (order("le")? != Ordering::Greater).into(),
            (Self::Gt, _) => (order("gt")? == Ordering::Greater).into(),
            (Self::Ge, _) => (order("ge")? != Ordering::Less).into(),
            (Self::Len, [value]) => len(value)?,
            (Self::Index, [of, keys @ ..]) => keys.iter().try_fold(of.clone(), index)?,
            (Self::Print, _) => args.iter().map(Value::print).collect::<String>().as_str().into(),
            (Self::Println, _) => {
                let words: Vec<_> = args.iter().map(Value::print).collect();
                Value::Text(format!("{}\n", words.join(" ")))
            }
            (Self::Json, [value]) => Value::Text(value.json().to_string()),
            _ => self.of_text(args)?,
        })
    }

    /// A function of texts.
    fn of_text(self, args: &[Value]) -> Result<Value, String> {
        let text = match args {
            [Value::List(list), separator] if self == Self::Join => {
                let words: Vec<_> = list.iter().map(Value::print).collect();
                words.join(&separator.print())
            }
            [Value::Nil(Nil::List), _] if self == Self::Join => String::new(),
            [Value::Text(text), Value::Text(separator)] if self == Self::Split => {
                return Ok(Value::List(text.split(separator.as_str()).map(Value::from).collect()));
            }
            [Value::Text(text), Value::Int(before), Value::Int(after)] if self == Self::Pad => {
                let blanks = |n: i64| " ".repeat(usize::try_from(n).unwrap_or(0).min(MAX_PAD));
                if text.is_empty() { String::new() } else { blanks(*before) + text + &blanks(*after) }
            }
            [Value::Text(text), Value::Int(most)] if self == Self::Truncate => {
                text.chars().take(usize::try_from(*most).unwrap_or(0)).collect()
            }
            [Value::Text(text)] if self == Self::Upper => text.to_uppercase(),
            [Value::Text(text)] if self == Self::Lower => text.to_lowercase(),
            [Value::Text(text)] if self == Self::Title => title(text),
            _ => {
                let kinds: Vec<_> = args.iter().map(Value::kind).collect();
                return Err(format!("wrong type of value: got {}", kinds.join(", ")));
            }
        };
        Ok(Value::Text(text))
    }
}

/// Its first letter large.
fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn len(of: &Value) -> Result<Value, String> {
    let len = match of {
        Value::List(l) => l.len(),
        Value::Map(m) => m.len(),
        Value::Text(s) => s.len(),
        Value::Nil(Nil::List | Nil::Map) => 0,
        Value::Nil(_) => return Err("error calling len: len of nil pointer".into()),
        other => return Err(format!("error calling len: len of type {}", other.kind())),
    };
    Ok(i64::try_from(len).unwrap_or(i64::MAX).into())
}

fn index(of: Value, key: &Value) -> Result<Value, String> {
    let outside = |n: i64| Err(format!("error calling index: index out of range: {n}"));
    match (of, key) {
        (Value::List(mut list), Value::Int(n)) => {
            match usize::try_from(*n).ok().filter(|n| *n < list.len()) {
                Some(n) => Ok(list.swap_remove(n)),
                None => outside(*n),
            }
        }
        (Value::Nil(Nil::List), Value::Int(n)) => outside(*n),
        // What a map lacks is empty.
        (Value::Map(mut map), Value::Text(key)) => Ok(map.remove(key).unwrap_or(Value::Text(String::new()))),
        (Value::Nil(Nil::Map), Value::Text(_)) => Ok(Value::Text(String::new())),
        (Value::Nil(_), _) => Err("error calling index: index of untyped nil".into()),
        (other, _) => Err(format!("error calling index: can't index item of type {}", other.kind())),
    }
}
