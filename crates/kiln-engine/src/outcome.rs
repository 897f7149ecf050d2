//! What a build comes to, before it is exported.

use std::collections::BTreeMap;

/// One result, or one per key (mostly a platform). `None` is the empty filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultRefs<T> {
    /// The default result.
    One(Option<T>),
    /// By key.
    Many(BTreeMap<String, Option<T>>),
}

impl<T> Default for ResultRefs<T> {
    fn default() -> Self {
        Self::One(None)
    }
}

impl<T> ResultRefs<T> {
    /// All that are not empty.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many.values())),
        };
        one.into_iter().chain(many.into_iter().flatten()).flatten()
    }

    /// The same with other contents.
    ///
    /// # Errors
    /// The first error of `map`.
    pub fn try_map<U, E>(self, mut map: impl FnMut(T) -> Result<U, E>) -> Result<ResultRefs<U>, E> {
        Ok(match self {
            Self::One(one) => ResultRefs::One(one.map(map).transpose()?),
            Self::Many(many) => {
                let each = many.into_iter().map(|(key, r)| Ok((key, r.map(&mut map).transpose()?)));
                ResultRefs::Many(each.collect::<Result<_, E>>()?)
            }
        })
    }

    /// With their keys.
    pub(crate) fn into_pairs(self) -> Vec<(Option<String>, Option<T>)> {
        match self {
            Self::One(one) => vec![(None, one)],
            Self::Many(many) => many.into_iter().map(|(key, r)| (Some(key), r)).collect(),
        }
    }
}

/// Results with what a frontend says about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<T> {
    /// The results.
    pub refs: ResultRefs<T>,
    /// For exporters and clients, such as `containerimage.config`.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self { refs: ResultRefs::default(), metadata: BTreeMap::new() }
    }
}

impl<T> ResultRefs<Option<T>> {
    /// What is nothing becomes empty.
    pub(crate) fn flatten(self) -> ResultRefs<T> {
        match self {
            Self::One(one) => ResultRefs::One(one.flatten()),
            Self::Many(many) => ResultRefs::Many(many.into_iter().map(|(k, r)| (k, r.flatten())).collect()),
        }
    }
}
