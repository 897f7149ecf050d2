//! Running a template.

use super::function::Function;
use super::value::{Nil, Value};
use super::{Branch, Expr, Node, Place, What};

/// What functions work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Functions {
    OfValues,
    /// Names of columns, which stay as they are.
    OfHeaders,
}

impl Place {
    /// A message of what went wrong here.
    pub(super) fn failed(&self, why: impl std::fmt::Display) -> String {
        let cut = self.text.char_indices().nth(20).map(|(end, _)| format!("{}...", &self.text[..end]));
        let text = cut.as_deref().unwrap_or(&self.text);
        format!("template: :{}:{}: executing \"\" at <{text}>: {why}", self.line, self.column)
    }
}

pub(super) fn run(nodes: &[Node], dot: &Value, with: Functions, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(expr) => out.push_str(&value(expr, dot, with)?.print()),
            Node::Branch { kind, of, then, otherwise } => {
                let found = value(of, dot, with)?;
                let dots = match kind {
                    Branch::Range => items(found, &of.place)?,
                    _ if !found.is_true() => Vec::new(),
                    Branch::If => vec![dot.clone()],
                    Branch::With => vec![found],
                };
                if dots.is_empty() {
                    run(otherwise, dot, with, out)?;
                }
                dots.iter().try_for_each(|dot| run(then, dot, with, out))?;
            }
        }
    }
    Ok(())
}

fn items(value: Value, place: &Place) -> Result<Vec<Value>, String> {
    match value {
        Value::List(items) => Ok(items),
        Value::Map(map) => Ok(map.into_values().collect()),
        Value::Nil(_) => Ok(Vec::new()),
        other => Err(place.failed(format_args!("range can't iterate over {}", other.print()))),
    }
}

fn value(expr: &Expr, dot: &Value, with: Functions) -> Result<Value, String> {
    match &expr.what {
        What::Literal(literal) => Ok(literal.clone()),
        What::Path { of, fields } => {
            let base = match of {
                Some(inner) => value(inner, dot, with)?,
                None => dot.clone(),
            };
            fields.iter().try_fold(base, |at, name| field(at, name)).map_err(|why| expr.place.failed(why))
        }
        What::Call { function: function @ (Function::And | Function::Or), args } => {
            // Later ones may be wrong where an earlier one decides.
            let mut last = Value::Nil(Nil::NoValue);
            for arg in args {
                last = value(arg, dot, with)?;
                if last.is_true() == (*function == Function::Or) {
                    break;
                }
            }
            Ok(last)
        }
        What::Call { function, args } => {
            let args = args.iter().map(|a| value(a, dot, with)).collect::<Result<Vec<_>, _>>()?;
            match with {
                Functions::OfHeaders if function.is_text() => {
                    Ok(args.into_iter().next().unwrap_or(Value::Nil(Nil::NoValue)))
                }
                _ => function.call(&args).map_err(|why| expr.place.failed(why)),
            }
        }
    }
}

fn field(of: Value, name: &str) -> Result<Value, String> {
    let missing = |kind: &str| format!("can't evaluate field {name} in type {kind}");
    match of {
        Value::Struct(s) => {
            let kind = s.kind;
            s.fields.into_iter().find(|f| f.name == name).map(|f| f.value).ok_or_else(|| missing(kind))
        }
        Value::Map(mut map) => Ok(map.remove(name).unwrap_or(Value::Nil(Nil::NoValue))),
        Value::Nil(Nil::Map | Nil::NoValue) => Ok(Value::Nil(Nil::NoValue)),
        Value::Nil(Nil::Pointer) => Err(format!("nil pointer evaluating field {name}")),
        other => Err(missing(&other.kind())),
    }
}
