//! Scopes of tokens: `repository:library/alpine:pull,push` (distribution, "Token Scope Documentation").

use std::collections::{BTreeMap, BTreeSet};

/// What a token is to allow; kept merged and sorted, so that equal rights are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Rights on a repository.
    pub(crate) fn repository(path: &str, push: bool) -> Self {
        let mut out = Self::default();
        out.add("repository", path, &["pull"]);
        if push {
            out.add("repository", path, &["push"]);
        }
        out
    }

    /// Reads a space-separated list.
    pub(crate) fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for scope in text.split_whitespace() {
            // The name may hold colons (a port): kind before the first, actions behind the last.
            let (kind, rest) = scope.split_once(':').unwrap_or((scope, ""));
            let (name, actions) = rest.rsplit_once(':').unwrap_or((rest, ""));
            out.add(kind, name, &actions.split(',').filter(|a| !a.is_empty()).collect::<Vec<_>>());
        }
        out
    }

    fn add(&mut self, kind: &str, name: &str, actions: &[&str]) {
        let entry = self.0.entry(format!("{kind}:{name}")).or_default();
        entry.extend(actions.iter().map(|a| a.to_string()));
    }

    /// Everything in either.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for (name, actions) in &other.0 {
            out.0.entry(name.clone()).or_default().extend(actions.iter().cloned());
        }
        out
    }

    /// Sorted, one per resource, actions sorted.
    pub(crate) fn to_vec(&self) -> Vec<String> {
        let print = |(name, actions): (&String, &BTreeSet<String>)| {
            format!("{name}:{}", actions.iter().map(String::as_str).collect::<Vec<_>>().join(","))
        };
        self.0.iter().map(print).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_and_sorts() {
        let s =
            Scopes::parse("repository:b:push repository:a:push,pull repository:b:pull registry:catalog:*");
        assert_eq!(s.to_vec(), ["registry:catalog:*", "repository:a:pull,push", "repository:b:pull,push"]);
        let pull = Scopes::repository("a", false);
        assert_eq!(pull.merged(&Scopes::repository("a", true)).to_vec(), ["repository:a:pull,push"]);
        assert_eq!(Scopes::parse("repository:h:5000/x:pull").to_vec(), ["repository:h:5000/x:pull"]);
    }
}
