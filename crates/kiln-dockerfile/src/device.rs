//! `RUN --device`.

use crate::error::Hint;
use crate::suggest::nearest;
use kiln_go::csv::{self, CsvError};

/// A device asked for by a RUN: `[name=]vendor/class=dev[,required]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// CDI name or class; may be empty.
    pub name: String,
    /// The step fails without it.
    pub required: bool,
}

/// Why a device flag was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("failed to parse csv devices: {0}")]
    Csv(#[from] CsvError),
    #[error("invalid field '{0}' must be a key=value pair")]
    NotPair(String),
    #[error("device name already set to {0}")]
    TwoNames(String),
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("unexpected key '{key}' in '{field}'{hint}")]
    Key { key: String, field: String, hint: Hint },
}

impl Device {
    pub(crate) fn parse(text: &str) -> Result<Self, DeviceError> {
        let mut device = Self::default();
        for field in csv::fields(text)? {
            let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(k, v)| (k, Some(v)));
            let key = key.to_lowercase();
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    device.required = kiln_go::parse_bool(value)
                        .ok_or_else(|| DeviceError::Value { key: key.clone(), value: value.to_owned() })?;
                }
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(DeviceError::TwoNames(device.name));
                }
                ("name", Some(value)) => device.name = value.to_owned(),
                // A CDI name has a `=` of its own.
                _ if device.name.is_empty() => device.name = field,
                (_, None) => return Err(DeviceError::NotPair(field)),
                (_, Some(_)) => {
                    let hint = Hint(nearest(&key, &["name", "required"], false));
                    return Err(DeviceError::Key { key, field, hint });
                }
            }
        }
        Ok(device)
    }
}
