//! `RUN --mount` (spec dockerfile.md section 6).

use crate::ast::Run;
use crate::error::Hint;
use crate::suggest::nearest;
use kiln_go::csv::{self, CsvError};
use kiln_go::quote;
use std::fmt;

/// A `--mount` flag as written. Its values are known only when variables are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// The CSV text.
    pub raw: String,
    /// The stage or image that is mounted from; never expanded.
    pub from: Option<String>,
}

/// Type of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountType {
    const NAMES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

    /// The word in the Dockerfile.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_lowercase().as_str() {
            "bind" => Self::Bind,
            "cache" => Self::Cache,
            "tmpfs" => Self::Tmpfs,
            "secret" => Self::Secret,
            "ssh" => Self::Ssh,
            _ => return None,
        })
    }

    fn has_file_info(self) -> bool {
        matches!(self, Self::Cache | Self::Secret | Self::Ssh)
    }

    fn has_required(self) -> bool {
        matches!(self, Self::Secret | Self::Ssh)
    }
}

impl fmt::Display for MountType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `sharing` of a cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

impl Sharing {
    const NAMES: [&str; 3] = ["shared", "private", "locked"];

    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_lowercase().as_str() {
            "shared" => Self::Shared,
            "private" => Self::Private,
            "locked" => Self::Locked,
            _ => return None,
        })
    }
}

/// A mount with its values expanded. Defaults that need the stage (target, id) are not filled in;
/// empty values count as not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`
    pub kind: MountType,
    /// `from`, never expanded
    pub from: Option<String>,
    /// `source`
    pub source: Option<String>,
    /// `target`
    pub target: Option<String>,
    /// `ro`/`rw`; the default is true except for cache and tmpfs
    pub read_only: bool,
    /// `size`, bytes; tmpfs only
    pub size: Option<i64>,
    /// `id`
    pub id: Option<String>,
    /// `sharing`; cache only
    pub sharing: Option<Sharing>,
    /// `required`; secret and ssh only
    pub required: bool,
    /// `env`: a variable for the secret; `Some("")` = the default name
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// Why a mount was not accepted. `E` is the error of the expander.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum MountError<E> {
    #[error("failed to parse csv mounts: {0}")]
    Csv(CsvError),
    #[error("{0}")]
    Expand(E),
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForType { key: String, kind: MountType },
    #[error("invalid field '{0}' must be a key=value pair")]
    NotPair(String),
    #[error("unsupported mount type {}{hint}", quote(.value))]
    Type { value: String, hint: Hint },
    #[error("unsupported sharing value {}{hint}", quote(.value))]
    SharingValue { value: String, hint: Hint },
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    Number { key: &'static str, value: String },
    #[error("unexpected key '{key}' in '{field}'{hint}")]
    Key { key: String, field: String, hint: Hint },
    #[error("{what} not allowed for {} type mounts", quote(.kind.name()))]
    FileInfo { what: &'static str, kind: MountType },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("secret mount should not define sharing")]
    SecretSharing,
    #[error("invalid secret mount. one of source, target required")]
    SecretEmpty,
    #[error("both source and id can't be set")]
    SecretBoth,
    #[error("invalid cache sharing set for {0} mount")]
    SharingForType(MountType),
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountFlag {
    /// Checks what can be checked before variables are known.
    pub(crate) fn parse<E>(raw: String) -> Result<Self, MountError<E>> {
        let mut from = None;
        for field in csv::fields(&raw).map_err(MountError::Csv)? {
            let Some((key, value)) = field.split_once('=') else { continue };
            if key.to_lowercase() != "from" {
                continue;
            }
            if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                return Err(MountError::FromVariable);
            }
            from = Some(value.to_owned()).filter(|v| !v.is_empty());
        }
        Ok(Self { raw, from })
    }
}

impl Run {
    /// The mounts, every value but `from` passed through `expand`.
    ///
    /// # Errors
    /// A flag does not follow the rules, or the expander's error.
    pub fn mounts<E>(
        &self,
        mut expand: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Vec<Mount>, MountError<E>> {
        self.mount_flags.iter().map(|flag| Mount::parse(&flag.raw, &mut expand)).collect()
    }
}

impl Mount {
    /// Reads the CSV text of one `--mount` flag.
    ///
    /// # Errors
    /// As [`Run::mounts`].
    pub fn parse<E>(
        raw: &str,
        expand: &mut dyn FnMut(&str) -> Result<String, E>,
    ) -> Result<Self, MountError<E>> {
        let mut mount = Self::default();
        let mut read_only = None;
        for field in csv::fields(raw).map_err(MountError::Csv)? {
            match field.split_once('=') {
                None => mount.word(&field, &mut read_only)?,
                Some((key, value)) => {
                    let key = key.to_lowercase();
                    let value = if key == "from" {
                        value.to_owned()
                    } else {
                        expand(value).map_err(MountError::Expand)?
                    };
                    mount.pair(&field, &key, value, &mut read_only)?;
                }
            }
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
        mount.check()?;
        Ok(mount)
    }

    fn word<E>(&mut self, field: &str, read_only: &mut Option<bool>) -> Result<(), MountError<E>> {
        let key = field.to_lowercase();
        match key.as_str() {
            "readonly" | "ro" => *read_only = Some(true),
            "readwrite" | "rw" => *read_only = Some(false),
            "required" if self.kind.has_required() => self.required = true,
            "required" => return Err(MountError::KeyForType { key, kind: self.kind }),
            _ => return Err(MountError::NotPair(field.to_owned())),
        }
        Ok(())
    }

    fn pair<E>(
        &mut self,
        field: &str,
        key: &str,
        value: String,
        read_only: &mut Option<bool>,
    ) -> Result<(), MountError<E>> {
        let given = |value: String| Some(value).filter(|v| !v.is_empty());
        let wrong_type = || MountError::KeyForType { key: key.to_owned(), kind: self.kind };
        let wrong_value = |value: &str| MountError::Value { key: key.to_owned(), value: value.to_owned() };
        let boolean = |value: &str| kiln_go::parse_bool(value).ok_or_else(|| wrong_value(value));
        match key {
            "type" => {
                self.kind = MountType::parse(&value).ok_or_else(|| MountError::Type {
                    hint: Hint(nearest(&value, &MountType::NAMES, false)),
                    value,
                })?;
            }
            "from" => self.from = given(value),
            "source" | "src" => self.source = given(value),
            "target" | "dst" | "destination" => self.target = given(value),
            "readonly" | "ro" => *read_only = Some(boolean(&value)?),
            "readwrite" | "rw" => *read_only = Some(!boolean(&value)?),
            "required" if !self.kind.has_required() => return Err(wrong_type()),
            "required" => self.required = boolean(&value)?,
            "size" if self.kind != MountType::Tmpfs => return Err(wrong_type()),
            "size" => {
                self.size = Some(kiln_go::units::parse_bytes(&value).ok_or_else(|| wrong_value(&value))?)
            }
            "id" => self.id = given(value),
            "sharing" => {
                self.sharing = Some(Sharing::parse(&value).ok_or_else(|| MountError::SharingValue {
                    hint: Hint(nearest(&value, &Sharing::NAMES, false)),
                    value,
                })?);
            }
            "mode" => self.mode = Some(number("mode", &value, 8)?),
            "uid" => self.uid = Some(number("uid", &value, 10)?),
            "gid" => self.gid = Some(number("gid", &value, 10)?),
            "env" => self.env = Some(value),
            _ => {
                let hint = Hint(nearest(key, &KEYS, false));
                return Err(MountError::Key { key: key.to_owned(), field: field.to_owned(), hint });
            }
        }
        Ok(())
    }

    fn check<E>(&self) -> Result<(), MountError<E>> {
        if !self.kind.has_file_info() {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((what, _)) = given.into_iter().find(|(_, v)| v.is_some()) {
                return Err(MountError::FileInfo { what, kind: self.kind });
            }
        }
        if self.kind == MountType::Secret {
            if self.from.is_some() {
                return Err(MountError::SecretFrom);
            }
            if self.sharing.is_some() {
                return Err(MountError::SecretSharing);
            }
            match (&self.source, &self.target, &self.id) {
                (None, None, None) => return Err(MountError::SecretEmpty),
                (Some(_), _, Some(_)) => return Err(MountError::SecretBoth),
                _ => {}
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(MountError::SharingForType(self.kind));
        }
        Ok(())
    }
}

fn number<E>(key: &'static str, value: &str, radix: u32) -> Result<u32, MountError<E>> {
    // A sign is not part of these numbers, though from_str_radix would take a plus.
    let digits = Some(value).filter(|v| !v.starts_with('+'));
    digits
        .and_then(|v| u32::from_str_radix(v, radix).ok())
        .ok_or_else(|| MountError::Number { key, value: value.to_owned() })
}
