//! Lists in the form that `--format` names.

use kiln_cli::tabs::Tabs;
use kiln_cli::template::{Template, Value};

use crate::error::Error;

/// The form of a list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Format {
    /// Columns below headers.
    Table(Template),
    /// One text per row.
    Each(Template),
}

impl Format {
    /// Reads `--format`: `json`, `table ...`, or a template. `table` alone is the usual one.
    pub(crate) fn parse(text: &str, table: &str) -> Result<Self, Error> {
        let template = |text: &str| {
            let text = text.replace("\\t", "\t").replace("\\n", "\n");
            Template::parse(&text).map_err(|e| Error::Text(format!("template parsing error: {e}")))
        };
        match text {
            "table" => Ok(Self::Table(template(table)?)),
            _ => match text.strip_prefix("table ") {
                Some(columns) => Ok(Self::Table(template(columns)?)),
                None => Ok(Self::Each(template(text)?)),
            },
        }
    }

    /// Whether it is for people.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Self::Table(_))
    }

    /// The list as text; `headers` are fields and their names.
    pub(crate) fn write(&self, headers: &[(&str, &str)], rows: &[Value]) -> Result<String, Error> {
        let wrong = |e| Error::Text(format!("template parsing error: {e}"));
        let mut out = String::new();
        if let Self::Table(template) = self {
            let names = headers.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
            out.push_str(&template.execute_header(&Value::Map(names)).map_err(wrong)?);
            out.push('\n');
        }
        let (Self::Table(template) | Self::Each(template)) = self;
        for row in rows {
            out.push_str(&template.execute(row).map_err(wrong)?);
            out.push('\n');
        }
        Ok(if self.is_table() { Tabs::TABLE.format(&out) } else { out })
    }
}
