//! Annotations of manifests, indexes and their descriptors (spec outputs-and-cache.md section 4).

use crate::{ExportError, ExportInput, OptionError};
use kiln_oci::Platform;
use std::collections::BTreeMap;

type Pairs = BTreeMap<String, String>;

/// What is annotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Manifest,
    Index,
    ManifestDescriptor,
    IndexDescriptor,
}

/// By target and platform (empty: all).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(BTreeMap<(Target, String), Pairs>);

/// `annotation[-<type>][[<platform>]].<key>`, taken apart; `None` for any other key.
fn parse(option: &str) -> Option<Result<(Target, String, &str), OptionError>> {
    let rest = option.strip_prefix("annotation")?;
    let (kind, rest) = match rest.strip_prefix('-') {
        Some(rest) => rest.split_at(rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-'))?),
        None => ("", rest),
    };
    let (platform, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let key = rest.strip_prefix('.')?;
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let wrong = |expected| OptionError::Value { key: option.into(), value: kind.into(), expected };
    let target = match kind {
        "" | "manifest" => Target::Manifest,
        "index" => Target::Index,
        "manifest-descriptor" => Target::ManifestDescriptor,
        "index-descriptor" => Target::IndexDescriptor,
        _ => return Some(Err(wrong("one of manifest, manifest-descriptor, index, index-descriptor"))),
    };
    let platform = match platform {
        "" => String::new(),
        given => match Platform::parse(given) {
            Ok(platform) => platform.format_all(),
            Err(_) => return Some(Err(wrong("a platform in the brackets"))),
        },
    };
    Some(Ok((target, platform, key)))
}

impl Annotations {
    /// Takes the option if it is an annotation. Whether it was one.
    pub(crate) fn take(&mut self, option: &str, value: &str) -> Result<bool, OptionError> {
        let Some(parsed) = parse(option) else { return Ok(false) };
        let (target, platform, key) = parsed?;
        self.0.entry((target, platform)).or_default().insert(key.to_string(), value.to_string());
        Ok(true)
    }

    /// With those that the result carries in its metadata.
    pub(crate) fn with_result(&self, input: &ExportInput) -> Result<Self, ExportError> {
        let mut all = self.clone();
        for (key, value) in &input.metadata {
            let taken = all.take(key, &String::from_utf8_lossy(value));
            taken.map_err(|e| ExportError::Invalid(e.to_string()))?;
        }
        Ok(all)
    }

    fn get(&self, target: Target, platform: Option<&str>) -> Pairs {
        let mut pairs = self.0.get(&(target, String::new())).cloned().unwrap_or_default();
        if let Some(own) = platform.and_then(|p| self.0.get(&(target, p.to_string()))) {
            pairs.extend(own.clone());
        }
        pairs
    }

    fn all(&self, target: Target) -> Pairs {
        self.0.iter().filter(|((t, _), _)| *t == target).flat_map(|(_, pairs)| pairs.clone()).collect()
    }

    /// For the manifest of one platform of a map; without, those for all platforms.
    pub(crate) fn manifest(&self, platform: Option<&str>) -> Pairs {
        self.get(Target::Manifest, platform)
    }

    pub(crate) fn manifest_descriptor(&self, platform: Option<&str>) -> Pairs {
        self.get(Target::ManifestDescriptor, platform)
    }

    pub(crate) fn index(&self) -> Pairs {
        self.all(Target::Index)
    }

    pub(crate) fn index_descriptor(&self) -> Pairs {
        self.all(Target::IndexDescriptor)
    }

    /// Fails if a platform is named that the map has not, an index is annotated that will not exist, or Docker's media
    /// types leave no place.
    pub(crate) fn check(&self, map: Option<&[String]>, oci_types: bool) -> Result<(), ExportError> {
        let wrong = |text: &str| Err(ExportError::Invalid(text.to_string()));
        for (target, platform) in self.0.keys() {
            if !oci_types && *target != Target::Manifest {
                return wrong("cannot export annotations with \"oci-mediatypes=false\"");
            }
            match map {
                Some(platforms) if !platform.is_empty() && !platforms.contains(platform) => {
                    return wrong(&format!("invalid annotation: no platform {platform} found in source"));
                }
                None if matches!(target, Target::Index | Target::IndexDescriptor) => {
                    return wrong("index annotations not supported for single platform export");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(options: &[(&str, &str)]) -> Annotations {
        let mut all = Annotations::default();
        options.iter().for_each(|(k, v)| assert!(all.take(k, v).unwrap(), "{k}"));
        all
    }

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn keys_say_what_is_annotated() {
        let a = annotations(&[
            ("annotation.org.a.b", "1"),
            ("annotation-manifest[linux/amd64].k", "2"),
            ("annotation[linux/aarch64].k", "3"),
            ("annotation-index.i", "4"),
            ("annotation-manifest-descriptor.d", "5"),
        ]);
        assert_eq!(a.manifest(None), pairs(&[("org.a.b", "1")]));
        assert_eq!(a.manifest(Some("linux/amd64")), pairs(&[("org.a.b", "1"), ("k", "2")]));
        assert_eq!(a.manifest(Some("linux/arm64")), pairs(&[("org.a.b", "1"), ("k", "3")]));
        assert_eq!(a.index(), pairs(&[("i", "4")]));
        assert_eq!(a.manifest_descriptor(None), pairs(&[("d", "5")]));
    }

    #[test]
    fn what_fits_is_checked() {
        let text = |options: &[(&str, &str)], map: Option<&[String]>, oci| {
            annotations(options).check(map, oci).err().map(|e| e.to_string())
        };
        let platforms = ["linux/amd64".to_string()];
        assert_eq!(text(&[("annotation[linux/amd64].k", "")], Some(&platforms), true), None);
        let missing = text(&[("annotation[linux/s390x].k", "")], Some(&platforms), true).unwrap();
        assert_eq!(missing, "invalid annotation: no platform linux/s390x found in source");
        assert!(text(&[("annotation-index.k", "")], None, true).unwrap().contains("single platform export"));
        assert!(
            text(&[("annotation-index.k", "")], Some(&platforms), false)
                .unwrap()
                .contains("oci-mediatypes=false")
        );
        assert_eq!(text(&[("annotation.k", "")], None, false), None);
    }

    #[test]
    fn other_keys_are_left_alone() {
        let mut a = Annotations::default();
        for key in ["annotation", "annotations.k", "annotation.", "annotation.a b", "annotation[x.k", "name"]
        {
            assert!(!a.take(key, "").unwrap(), "{key}");
        }
        assert!(a.take("annotation-layer.k", "").unwrap_err().to_string().contains("index-descriptor"));
        assert!(a.take("annotation[a/b/c/d].k", "").is_err());
        let mut input = ExportInput::default();
        input.metadata.insert("annotation.from".into(), b"frontend".to_vec());
        assert_eq!(a.with_result(&input).unwrap().manifest(None), pairs(&[("from", "frontend")]));
    }
}
