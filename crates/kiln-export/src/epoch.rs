//! SOURCE_DATE_EPOCH (spec outputs-and-cache.md section 5).

use crate::{ExportError, ExportInput, OptionError};
use jiff::Timestamp;

/// Set by the frontend.
const KEY: &str = "source.date.epoch";

/// What the exporter option says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Epoch {
    /// Nothing: the frontend may say it.
    #[default]
    FromResult,
    /// Times stay, whatever the frontend says.
    Off,
    /// Times are clamped to this.
    At(Timestamp),
}

impl Epoch {
    /// Types the option: seconds since 1970, empty for "explicitly none".
    pub(crate) fn parse(value: &str) -> Result<Self, OptionError> {
        if value.is_empty() {
            return Ok(Self::Off);
        }
        seconds(value).map(Self::At).ok_or_else(|| OptionError::Value {
            key: "source-date-epoch".into(),
            value: value.into(),
            expected: "seconds since 1970",
        })
    }

    /// The time for a platform's result. What the frontend says for all platforms counts first.
    pub(crate) fn of(
        self,
        input: &ExportInput,
        platform: Option<&str>,
    ) -> Result<Option<Timestamp>, ExportError> {
        match self {
            Self::At(time) => Ok(Some(time)),
            Self::Off => Ok(None),
            Self::FromResult => {
                let own = || platform.and_then(|p| input.metadata.get(&format!("{KEY}/{p}")));
                let Some(value) = input.metadata.get(KEY).or_else(own) else { return Ok(None) };
                let text = String::from_utf8_lossy(value);
                if text.is_empty() {
                    return Ok(None);
                }
                let wrong =
                    || ExportError::Invalid(format!("invalid SOURCE_DATE_EPOCH from frontend: {text:?}"));
                seconds(&text).map(Some).ok_or_else(wrong)
            }
        }
    }
}

fn seconds(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(text.parse().ok()?).ok()
}

/// For file times. Timestamps that fit in `jiff` but not here do not occur in practice; they are clamped.
pub(crate) fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_goes_before_the_result() {
        let mut input = ExportInput::default();
        assert_eq!(Epoch::FromResult.of(&input, None).unwrap(), None);
        input.metadata.insert("source.date.epoch/linux/amd64".into(), b"7".to_vec());
        assert_eq!(Epoch::FromResult.of(&input, None).unwrap(), None);
        assert_eq!(
            Epoch::FromResult.of(&input, Some("linux/amd64")).unwrap(),
            Timestamp::from_second(7).ok()
        );
        input.metadata.insert("source.date.epoch".into(), b"9".to_vec());
        assert_eq!(
            Epoch::FromResult.of(&input, Some("linux/amd64")).unwrap(),
            Timestamp::from_second(9).ok()
        );
        assert_eq!(Epoch::parse("").unwrap().of(&input, None).unwrap(), None);
        assert_eq!(Epoch::parse("1").unwrap().of(&input, None).unwrap(), Timestamp::from_second(1).ok());
        input.metadata.insert("source.date.epoch".into(), b"context".to_vec());
        assert!(Epoch::FromResult.of(&input, None).is_err());
        assert!(Epoch::parse("yesterday").is_err());
    }
}
