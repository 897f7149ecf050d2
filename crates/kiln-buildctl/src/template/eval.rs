//! Running a template.

use super::value::{Nil, Value};
use super::{Expr, Function, Node};

pub(super) fn run(nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(expr) => out.push_str(&value(expr, dot)?.print()),
            Node::If { condition, then, otherwise } => {
                run(if value(condition, dot)?.is_true() { then } else { otherwise }, dot, out)?;
            }
            Node::Range { over, each, otherwise } => {
                let items = items(value(over, dot)?)?;
                if items.is_empty() {
                    run(otherwise, dot, out)?;
                }
                items.iter().try_for_each(|item| run(each, item, out))?;
            }
        }
    }
    Ok(())
}

fn failed(what: &str, why: String) -> String {
    format!("template: :1: executing \"\" at <{what}>: {why}")
}

fn items(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::List(items) => Ok(items),
        Value::Map(map) => Ok(map.into_values().collect()),
        Value::Nil(_) => Ok(Vec::new()),
        other => Err(failed("range", format!("range can't iterate over {}", other.kind()))),
    }
}

fn value(expr: &Expr, dot: &Value) -> Result<Value, String> {
    match expr {
        Expr::Literal(literal) => Ok(literal.clone()),
        Expr::Path { of, fields } => {
            let mut at = match of {
                Some(inner) => value(inner, dot)?,
                None => dot.clone(),
            };
            for name in fields {
                at = field(at, name)?;
            }
            Ok(at)
        }
        Expr::Call { function, args } => {
            let args = args.iter().map(|a| value(a, dot)).collect::<Result<Vec<_>, _>>()?;
            call(*function, &args)
        }
    }
}

fn field(of: Value, name: &str) -> Result<Value, String> {
    let missing =
        |kind: &str| failed(&format!(".{name}"), format!("can't evaluate field {name} in type {kind}"));
    match of {
        Value::Struct(s) => {
            let kind = s.kind;
            s.fields.into_iter().find(|f| f.name == name).map(|f| f.value).ok_or_else(|| missing(kind))
        }
        // What a map lacks has no value.
        Value::Map(mut map) => Ok(map.remove(name).unwrap_or(Value::Text(String::new()))),
        Value::Nil(Nil::Map) => Ok(Value::Text(String::new())),
        Value::Nil(Nil::Pointer) => {
            Err(failed(&format!(".{name}"), format!("nil pointer evaluating field {name}")))
        }
        other => Err(missing(&other.kind())),
    }
}

fn call(function: Function, args: &[Value]) -> Result<Value, String> {
    let Some((first, rest)) = args.split_first() else {
        return Err(failed("call", "missing argument".into()));
    };
    match function {
        Function::Json => Ok(Value::Text(first.json().to_string())),
        Function::Len => match first {
            Value::List(l) => Ok((l.len() as i64).into()),
            Value::Map(m) => Ok((m.len() as i64).into()),
            Value::Text(s) => Ok((s.len() as i64).into()),
            Value::Nil(Nil::List | Nil::Map) => Ok(0.into()),
            other => Err(failed("len", format!("error calling len: len of type {}", other.kind()))),
        },
        Function::Index => rest.iter().try_fold(first.clone(), index),
    }
}

fn index(of: Value, key: &Value) -> Result<Value, String> {
    let wrong = |why: String| failed("index", format!("error calling index: {why}"));
    match (of, key) {
        (Value::List(mut list), Value::Int(n)) => {
            match usize::try_from(*n).ok().filter(|n| *n < list.len()) {
                Some(n) => Ok(list.swap_remove(n)),
                None => Err(wrong(format!("index out of range: {n}"))),
            }
        }
        (Value::Nil(Nil::List), Value::Int(n)) => Err(wrong(format!("index out of range: {n}"))),
        (Value::Map(mut map), Value::Text(key)) => Ok(map.remove(key).unwrap_or(Value::Text(String::new()))),
        (Value::Nil(Nil::Map), Value::Text(_)) => Ok(Value::Text(String::new())),
        (other, _) => Err(wrong(format!("can't index item of type {}", other.kind()))),
    }
}
