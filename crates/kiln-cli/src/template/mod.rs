//! Go templates, as far as `--format` needs them: texts, fields, `if`, `else if`, `with`, `range`, pipelines, literals
//! and the functions of [`function`]. The rest of the language (variables, `define`, `printf` ...) is refused by name.
//! Messages are those of Go's `text/template`.

mod eval;
mod function;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod value;

pub use value::{Field, Nil, Struct, Value};

use eval::Functions;
use function::Function;

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Node>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Print(Expr),
    Branch { kind: Branch, of: Expr, then: Vec<Node>, otherwise: Vec<Node> },
}

/// What decides whether, how often and for what the first part of a branch is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    If,
    With,
    Range,
}

/// Something that has a value.
#[derive(Clone, Debug, PartialEq)]
struct Expr {
    what: What,
    place: Place,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    /// What is in the parentheses, or `.`, and fields of it.
    Path {
        of: Option<Box<Expr>>,
        fields: Vec<String>,
    },
    Literal(Value),
    Call {
        function: Function,
        args: Vec<Expr>,
    },
}

/// Where an expression stands, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    /// Bytes before it in its line.
    column: usize,
    text: String,
}

/// Templates nest at most so deep.
const MAX_DEPTH: usize = 32;

impl Template {
    /// Reads `json` or the text of a template.
    ///
    /// # Errors
    /// What is no template, or not built.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::template(if text == "json" { "{{json .}}" } else { text }).map(Self)
    }

    /// Its text for a value.
    ///
    /// # Errors
    /// A field that there is not, or a value of the wrong type.
    pub fn execute(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        eval::run(&self.0, value, Functions::OfValues, &mut out)?;
        Ok(out)
    }

    /// Its text for the names of columns: functions leave names as they are.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn execute_header(&self, names: &Value) -> Result<String, String> {
        let mut out = String::new();
        eval::run(&self.0, names, Functions::OfHeaders, &mut out)?;
        Ok(out)
    }
}
