//! Go templates, as far as `--format` needs them: texts, fields, `range`, `if`, `else`, `end`, and the functions
//! `json`, `len` and `index`. Everything else of the language is refused by name.

mod eval;
mod lex;
mod value;

pub(crate) use value::{Nil, Struct, Value};

use lex::{Piece, Token};

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Node>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Print(Expr),
    Range { over: Expr, each: Vec<Node>, otherwise: Vec<Node> },
    If { condition: Expr, then: Vec<Node>, otherwise: Vec<Node> },
}

/// Something that has a value.
#[derive(Clone, Debug, PartialEq)]
enum Expr {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Json,
    Len,
    Index,
}

/// Texts of the language's words that are not built.
const REFUSED: [&str; 11] =
    ["with", "define", "template", "block", "break", "continue", "and", "or", "not", "printf", "eq"];
/// Templates nest at most so deep.
const MAX_DEPTH: usize = 32;

impl Template {
    /// Reads `json` or the text of a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = if text == "json" { "{{json .}}" } else { text };
        let pieces = lex::pieces(text)?;
        let mut reader = Reader { pieces: &pieces, depth: 0 };
        let nodes = reader.nodes()?;
        match reader.pieces.first() {
            None => Ok(Self(nodes)),
            Some(_) => Err(failed("unexpected {{end}} or {{else}}")),
        }
    }

    /// Its text for a value.
    pub(crate) fn execute(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        eval::run(&self.0, value, &mut out)?;
        Ok(out)
    }
}

fn failed(why: impl std::fmt::Display) -> String {
    format!("template: :1: {why}")
}

struct Reader<'a> {
    pieces: &'a [Piece],
    depth: usize,
}

impl Reader<'_> {
    /// Up to the end, or an `else` or `end`, which stays.
    fn nodes(&mut self) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        while let Some((piece, rest)) = self.pieces.split_first() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    self.pieces = rest;
                    continue;
                }
                Piece::Action(tokens) => tokens.as_slice(),
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            if matches!(keyword, "end" | "else") {
                break;
            }
            self.pieces = rest;
            let block = |tokens: &[Token]| pipeline(&tokens[1..]);
            nodes.push(match keyword {
                "range" => {
                    let over = block(tokens)?;
                    let (each, otherwise) = self.body()?;
                    Node::Range { over, each, otherwise }
                }
                "if" => {
                    let condition = block(tokens)?;
                    let (then, otherwise) = self.body()?;
                    Node::If { condition, then, otherwise }
                }
                _ => Node::Print(pipeline(tokens)?),
            });
        }
        Ok(nodes)
    }

    fn body(&mut self) -> Result<(Vec<Node>, Vec<Node>), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(failed("nested too deeply"));
        }
        let first = self.nodes()?;
        let otherwise = if self.take("else")? { self.nodes()? } else { Vec::new() };
        if !self.take("end")? {
            return Err(failed("unexpected EOF"));
        }
        self.depth -= 1;
        Ok((first, otherwise))
    }

    fn take(&mut self, word: &str) -> Result<bool, String> {
        match self.pieces.split_first() {
            Some((Piece::Action(tokens), rest)) if tokens.first() == Some(&Token::Word(word.into())) => {
                if tokens.len() > 1 {
                    return Err(failed(format!("{word} with more words is not supported")));
                }
                self.pieces = rest;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// `a | b`: what comes before is the last argument of what comes after.
fn pipeline(tokens: &[Token]) -> Result<Expr, String> {
    let mut value = None;
    for part in tokens.split(|t| *t == Token::Pipe) {
        let (expr, rest) = command(part, value.take())?;
        if let Some(token) = rest.first() {
            return Err(failed(format!("unexpected {token} in command")));
        }
        value = Some(expr);
    }
    value.ok_or_else(|| failed("missing value for command"))
}

fn command(tokens: &[Token], piped: Option<Expr>) -> Result<(Expr, &[Token]), String> {
    let Some(Token::Word(name)) = tokens.first() else {
        if piped.is_some() {
            return Err(failed("a value cannot be piped into something that is no function"));
        }
        return operand(tokens);
    };
    let function = match name.as_str() {
        "json" => Function::Json,
        "len" => Function::Len,
        "index" => Function::Index,
        "true" | "false" | "nil" => return operand(tokens),
        name if REFUSED.contains(&name) => return Err(failed(format!("{name:?} is not supported"))),
        name => return Err(failed(format!("function {name:?} not defined"))),
    };
    let mut args = Vec::new();
    let mut rest = &tokens[1..];
    while !rest.is_empty() && rest.first() != Some(&Token::Close) {
        let (arg, after) = operand(rest)?;
        args.push(arg);
        rest = after;
    }
    args.extend(piped);
    let is_enough = if function == Function::Index { args.len() >= 2 } else { args.len() == 1 };
    if !is_enough {
        return Err(failed(format!("wrong number of args for {name}: got {}", args.len())));
    }
    Ok((Expr::Call { function, args }, rest))
}

fn operand(tokens: &[Token]) -> Result<(Expr, &[Token]), String> {
    let (first, rest) = tokens.split_first().ok_or_else(|| failed("missing value for command"))?;
    let literal = |value: Value| Ok((Expr::Literal(value), rest));
    match first {
        Token::Dot => Ok((Expr::Path { of: None, fields: Vec::new() }, rest)),
        Token::Fields(fields) => Ok((Expr::Path { of: None, fields: fields.clone() }, rest)),
        Token::Text(text) => literal(text.as_str().into()),
        Token::Number(n) => literal((*n).into()),
        Token::Word(word) if word == "true" || word == "false" => literal((word == "true").into()),
        Token::Word(word) if word == "nil" => literal(Value::Nil(Nil::Pointer)),
        Token::Open => {
            let end = closing(rest).ok_or_else(|| failed("unclosed left paren"))?;
            let inner = pipeline(&rest[..end])?;
            let rest = &rest[end + 1..];
            match rest.split_first() {
                Some((Token::Fields(fields), rest)) => {
                    Ok((Expr::Path { of: Some(Box::new(inner)), fields: fields.clone() }, rest))
                }
                _ => Ok((inner, rest)),
            }
        }
        token => Err(failed(format!("unexpected {token} in operand"))),
    }
}

/// Where the parenthesis that is open is closed.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut open = 1_usize;
    tokens.iter().position(|token| {
        match token {
            Token::Open => open += 1,
            Token::Close => open -= 1,
            _ => {}
        }
        open == 0
    })
}

#[cfg(test)]
mod tests;
