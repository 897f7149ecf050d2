//! Objects of JSON with their fields in a given order, as Go's encoding/json writes structs.

use base64::Engine as _;
use kiln_go::json;

/// Collects the fields of one object. The plain methods leave out empty values (`omitempty`).
#[derive(Debug)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Object("{".to_string())
    }

    pub(crate) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// A field whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, value: &str) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        json::push_string(&mut self.0, name);
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    /// A text, written even when empty.
    pub(crate) fn always(&mut self, name: &str, value: &str) -> &mut Self {
        self.raw(name, &json::string(value))
    }

    pub(crate) fn str(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.always(name, value) }
    }

    pub(crate) fn int(&mut self, name: &str, value: i64) -> &mut Self {
        if value == 0 { self } else { self.raw(name, &value.to_string()) }
    }

    pub(crate) fn uint(&mut self, name: &str, value: u64) -> &mut Self {
        if value == 0 { self } else { self.raw(name, &value.to_string()) }
    }

    pub(crate) fn bool(&mut self, name: &str, value: bool) -> &mut Self {
        if value { self.raw(name, "true") } else { self }
    }

    pub(crate) fn strings(&mut self, name: &str, value: &[String]) -> &mut Self {
        if value.is_empty() { self } else { self.raw(name, &array(value.iter().map(|s| json::string(s)))) }
    }

    /// An array of JSON values.
    pub(crate) fn list(&mut self, name: &str, value: Vec<String>) -> &mut Self {
        if value.is_empty() { self } else { self.raw(name, &array(value)) }
    }

    pub(crate) fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        if value.is_empty() { self } else { self.raw(name, &base64(value)) }
    }

    /// An object; `None` is left out.
    pub(crate) fn object(&mut self, name: &str, value: Option<String>) -> &mut Self {
        match value {
            Some(v) => self.raw(name, &v),
            None => self,
        }
    }
}

/// A JSON array of JSON values.
pub(crate) fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// A byte slice.
pub(crate) fn base64(value: &[u8]) -> String {
    format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_are_left_out() {
        let mut o = Object::new();
        o.str("a", "")
            .int("b", 0)
            .bool("c", false)
            .strings("d", &[])
            .bytes("e", b"")
            .always("f", "")
            .bytes("g", b"x");
        assert_eq!(o.finish(), r#"{"f":"","g":"eA=="}"#);
    }
}
