//! From words to the tree of a template.

use super::function::Function;
use super::lex::{Kind, Piece, Source, Token, pieces};
use super::value::{Nil, Value};
use super::{Branch, Expr, MAX_DEPTH, Node, What};

/// The language's words and functions that are not built.
const REFUSED: [&str; 11] =
    ["define", "template", "block", "break", "continue", "printf", "call", "html", "js", "slice", "urlquery"];

/// Reads a template.
pub(super) fn template(text: &str) -> Result<Vec<Node>, String> {
    let source = Source(text);
    let pieces = pieces(source)?;
    let mut reader = Reader { source, pieces: &pieces, depth: 0 };
    let nodes = reader.nodes()?;
    match reader.pieces.first() {
        Some(Piece::Action { at, tokens }) => {
            Err(source.failed(*at, format_args!("unexpected {{{{{}}}}}", keyword(tokens))))
        }
        _ => Ok(nodes),
    }
}

fn keyword(tokens: &[Token]) -> &str {
    match tokens.first().map(|t| &t.kind) {
        Some(Kind::Word(word)) => word,
        _ => "",
    }
}

fn branch(keyword: &str) -> Option<Branch> {
    match keyword {
        "if" => Some(Branch::If),
        "with" => Some(Branch::With),
        "range" => Some(Branch::Range),
        _ => None,
    }
}

struct Reader<'a> {
    source: Source<'a>,
    pieces: &'a [Piece],
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Up to the end, or an `else` or `end`, which stays.
    fn nodes(&mut self) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        while let Some((piece, rest)) = self.pieces.split_first() {
            match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    self.pieces = rest;
                }
                Piece::Action { tokens, .. } if matches!(keyword(tokens), "end" | "else") => break,
                Piece::Action { at, tokens } => {
                    self.pieces = rest;
                    nodes.push(match branch(keyword(tokens)) {
                        Some(kind) => self.branch(kind, *at, &tokens[1..])?,
                        None => Node::Print(self.words(*at).pipeline(tokens)?),
                    });
                }
            }
        }
        Ok(nodes)
    }

    /// A branch, of which the first action was taken, with its `end`.
    fn branch(&mut self, kind: Branch, at: usize, condition: &[Token]) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.source.failed(at, "nested too deeply"));
        }
        let of = self.words(at).pipeline(condition)?;
        let then = self.nodes()?;
        let mut otherwise = Vec::new();
        let (mut at, mut tokens) = self.take()?;
        if keyword(tokens) == "else" {
            match &tokens[1..] {
                [] => {
                    otherwise = self.nodes()?;
                    (at, tokens) = self.take()?;
                }
                // `else if` takes the `end` of the whole for its own.
                more => match branch(keyword(more)).filter(|b| *b == kind && kind != Branch::Range) {
                    Some(kind) => {
                        otherwise.push(self.branch(kind, at, &more[1..])?);
                        self.depth -= 1;
                        return Ok(Node::Branch { kind, of, then, otherwise });
                    }
                    None => return Err(self.source.failed(at, "unexpected word in {{else}}")),
                },
            }
        }
        match tokens {
            [end] if end.kind == Kind::Word("end".into()) => {}
            _ => return Err(self.source.failed(at, "expected end; found {{else}}")),
        }
        self.depth -= 1;
        Ok(Node::Branch { kind, of, then, otherwise })
    }

    /// Takes the `else` or `end` that is next.
    fn take(&mut self) -> Result<(usize, &'a [Token]), String> {
        match self.pieces.split_first() {
            Some((Piece::Action { at, tokens }, rest)) => {
                self.pieces = rest;
                Ok((*at, tokens))
            }
            _ => Err(self.source.failed(self.source.0.len(), "unexpected EOF")),
        }
    }

    fn words(&self, at: usize) -> Words<'a> {
        Words { source: self.source, at }
    }
}

/// Reads the words of the action that begins at `at`.
#[derive(Clone, Copy)]
struct Words<'a> {
    source: Source<'a>,
    at: usize,
}

impl<'a> Words<'a> {
    fn failed(self, token: Option<&Token>, why: impl std::fmt::Display) -> String {
        self.source.failed(token.map_or(self.at, |t| t.at), why)
    }

    fn unexpected(self, token: &Token, context: &str) -> String {
        let text = &self.source.0[token.at..token.end];
        self.failed(Some(token), format_args!("unexpected <{text}> in {context}"))
    }

    /// `a | b`: what comes before is the last argument of what comes after.
    fn pipeline(self, tokens: &[Token]) -> Result<Expr, String> {
        let mut value = None;
        let mut rest = tokens;
        loop {
            let (expr, after) = self.command(rest, value.take())?;
            match after.split_first() {
                None => return Ok(expr),
                Some((pipe, after)) if pipe.kind == Kind::Pipe => rest = after,
                Some((token, _)) => return Err(self.unexpected(token, "command")),
            }
            value = Some(expr);
        }
    }

    fn command(self, tokens: &[Token], piped: Option<Expr>) -> Result<(Expr, &[Token]), String> {
        let first = tokens.first();
        let function = match first.map(|t| &t.kind) {
            Some(Kind::Word(name)) if !matches!(name.as_str(), "true" | "false" | "nil") => {
                self.function(first, name)?
            }
            _ if piped.is_some() => {
                return Err(match first {
                    Some(token) => {
                        let text = &self.source.0[token.at..token.end];
                        self.failed(first, format_args!("non executable command in pipeline stage 2: {text}"))
                    }
                    None => self.failed(first, "missing value for command"),
                });
            }
            _ => return self.operand(tokens),
        };
        let mut args = Vec::new();
        let mut rest = &tokens[1..];
        while rest.first().is_some_and(|t| !matches!(t.kind, Kind::Close | Kind::Pipe)) {
            let (arg, after) = self.operand(rest)?;
            args.push(arg);
            rest = after;
        }
        let used = &tokens[..tokens.len() - rest.len()];
        args.extend(piped);
        Ok((self.expr(used, What::Call { function, args }), rest))
    }

    fn function(self, token: Option<&Token>, name: &str) -> Result<Function, String> {
        let not_built = || match REFUSED.contains(&name) {
            true => self.failed(token, format_args!("{name:?} is not supported")),
            false => self.failed(token, format_args!("function {name:?} not defined")),
        };
        Function::named(name).ok_or_else(not_built)
    }

    /// An expression that these words are.
    fn expr(self, tokens: &[Token], what: What) -> Expr {
        let begin = tokens.first().map_or(self.at, |t| t.at);
        let end = tokens.last().map_or(begin, |t| t.end);
        // Go places a chain of fields at its second.
        let at = match tokens.last().map(|t| (t.at, &t.kind)) {
            Some((at, Kind::Fields(names))) if tokens.len() == 1 && names.len() > 1 => {
                at + 1 + names[0].len()
            }
            _ => begin,
        };
        Expr { what, place: self.source.place(at, begin, end) }
    }

    fn operand(self, tokens: &[Token]) -> Result<(Expr, &[Token]), String> {
        let (first, rest) =
            tokens.split_first().ok_or_else(|| self.failed(None, "missing value for command"))?;
        let one = |what: What| Ok((self.expr(&tokens[..1], what), rest));
        let literal = |value: Value| one(What::Literal(value));
        match &first.kind {
            Kind::Dot => one(What::Path { of: None, fields: Vec::new() }),
            Kind::Fields(fields) => one(What::Path { of: None, fields: fields.clone() }),
            Kind::Text(text) => literal(text.as_str().into()),
            Kind::Number(n) => literal((*n).into()),
            Kind::Word(word) => match word.as_str() {
                "true" | "false" => literal((word == "true").into()),
                "nil" => literal(Value::Nil(Nil::Pointer)),
                name => {
                    let function = self.function(Some(first), name)?;
                    one(What::Call { function, args: Vec::new() })
                }
            },
            Kind::Open => self.group(tokens),
            Kind::Pipe => Err(self.failed(Some(first), "missing value for command")),
            Kind::Close => Err(self.failed(Some(first), "unexpected right paren")),
        }
    }

    /// `(...)`, with fields of it.
    fn group(self, tokens: &[Token]) -> Result<(Expr, &[Token]), String> {
        let end = closing(tokens).ok_or_else(|| self.failed(tokens.first(), "unclosed left paren"))?;
        let inner = self.pipeline(&tokens[1..end])?;
        let rest = &tokens[end + 1..];
        match rest.split_first() {
            Some((Token { kind: Kind::Fields(fields), at, .. }, after)) if *at == tokens[end].end => {
                let what = What::Path { of: Some(Box::new(inner)), fields: fields.clone() };
                Ok((self.expr(&tokens[..end + 2], what), after))
            }
            _ => Ok((inner, rest)),
        }
    }
}

/// Where the parenthesis that these words begin with is closed.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut open = 0_usize;
    tokens.iter().position(|token| {
        match token.kind {
            Kind::Open => open += 1,
            Kind::Close => open = open.saturating_sub(1),
            _ => {}
        }
        open == 0
    })
}
