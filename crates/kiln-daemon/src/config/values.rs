//! Values with forms of their own: amounts of disk, durations.

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use std::fmt;
use std::time::Duration;

/// An amount of disk: bytes, text with a binary unit, or a share of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskSpace {
    /// Bytes.
    Bytes(u64),
    /// Percent of the disk.
    Percent(u64),
}

impl DiskSpace {
    /// In bytes, for a disk of `total` bytes (0: unknown). The rounding is BuildKit's.
    pub(crate) fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(n) => n,
            Self::Percent(0) => 0,
            Self::Percent(_) if total == 0 => 2_000_000_000,
            Self::Percent(p) => (total.saturating_mul(p) / 100 / (1 << 30) + 1) * 1_000_000_000,
        }
    }

    /// Nothing is the same as not given.
    pub(crate) fn is_nothing(self) -> bool {
        matches!(self, Self::Bytes(0) | Self::Percent(0))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Bytes(0));
        }
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().ok().map(Self::Percent);
        }
        u64::try_from(kiln_go::units::parse_bytes(text)?).ok().map(Self::Bytes)
    }
}

impl<'de> Deserialize<'de> for DiskSpace {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match IntOrText::deserialize(d)? {
            IntOrText::Int(n) => u64::try_from(n).map(Self::Bytes).map_err(|_| invalid("disk space", &n)),
            IntOrText::Text(t) => Self::parse(&t).ok_or_else(|| invalid("disk space", &t)),
        }
    }
}

/// A duration: Go's text form, or an integer in seconds. May be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoDuration {
    negative: bool,
    length: Duration,
}

impl GoDuration {
    /// The duration; nothing when it is negative.
    pub(crate) fn positive(self) -> Duration {
        if self.negative { Duration::ZERO } else { self.length }
    }

    fn seconds(n: i64) -> Self {
        Self { negative: n < 0, length: Duration::from_secs(n.unsigned_abs()) }
    }

    /// Go's `time.ParseDuration`, or a number of seconds.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(n) = text.parse() {
            return Some(Self::seconds(n));
        }
        let nanos = kiln_go::duration::parse(text).ok()?;
        Some(Self { negative: nanos < 0, length: Duration::from_nanos(nanos.unsigned_abs()) })
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match IntOrText::deserialize(d)? {
            IntOrText::Int(n) => Ok(Self::seconds(n)),
            IntOrText::Text(t) if t.is_empty() => Ok(Self::default()),
            IntOrText::Text(t) => Self::parse(&t).ok_or_else(|| invalid("duration", &t)),
        }
    }
}

fn invalid<E: serde::de::Error>(what: &str, value: &dyn fmt::Display) -> E {
    E::custom(format!("invalid {what} {value}"))
}

enum IntOrText {
    Int(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for IntOrText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = IntOrText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a text")
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<IntOrText, E> {
                Ok(IntOrText::Int(v))
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<IntOrText, E> {
                i64::try_from(v).map(IntOrText::Int).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<IntOrText, E> {
                Ok(IntOrText::Text(v.to_string()))
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let secs = |text| GoDuration::parse(text).map(|d| d.positive().as_secs_f64());
        assert_eq!(secs("1h30m"), Some(5400.0));
        assert_eq!(secs("172800"), Some(172_800.0));
        assert_eq!(secs(".5s"), Some(0.5));
        assert_eq!(secs("1.5h.5s"), Some(5400.5));
        assert_eq!(secs("-1h"), Some(0.0));
        for wrong in ["", "1x", "h", "1h2", "--1h", "."] {
            assert_eq!(GoDuration::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn disk_spaces() {
        assert_eq!(DiskSpace::parse("10GiB"), Some(DiskSpace::Bytes(10 << 30)));
        assert_eq!(DiskSpace::parse("512MB"), Some(DiskSpace::Bytes(512 << 20)));
        assert_eq!(DiskSpace::parse("7"), Some(DiskSpace::Bytes(7)));
        assert_eq!(DiskSpace::parse("5%").unwrap().bytes(0), 2_000_000_000);
        assert!(DiskSpace::parse("").unwrap().is_nothing());
        for wrong in ["lots", "-1", "-1%", "1.5%", "GB", "1 2"] {
            assert_eq!(DiskSpace::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(DiskSpace::Percent(u64::MAX).bytes(u64::MAX) % 1_000_000_000, 0);
    }
}
