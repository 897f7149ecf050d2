//! Times at which a vertex ran.

use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Runs of a vertex by their start. A run that is told again replaces what was told before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(BTreeMap<Timestamp, Option<Timestamp>>);

impl Runs {
    /// Notes a run; says whether that is news.
    pub(crate) fn set(&mut self, start: Timestamp, stop: Option<Timestamp>) -> bool {
        self.0.insert(start, stop) != Some(stop)
    }

    /// Ends what still runs; at the earliest when it began.
    pub(crate) fn stop(&mut self, now: Timestamp) {
        for (start, stop) in &mut self.0 {
            stop.get_or_insert(now.max(*start));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The runs with those that overlap made one. An open run takes in everything after it.
    pub(crate) fn merged(&self) -> Vec<(Timestamp, Option<Timestamp>)> {
        let mut merged: Vec<(Timestamp, Option<Timestamp>)> = Vec::new();
        for (&start, &stop) in &self.0 {
            match merged.last_mut() {
                Some((_, None)) => break,
                Some((_, Some(end))) if *end >= start => match stop {
                    None => merged.last_mut().into_iter().for_each(|last| last.1 = None),
                    Some(stop) => *end = (*end).max(stop),
                },
                _ => merged.push((start, stop)),
            }
        }
        merged
    }

    /// The last merged run.
    pub(crate) fn last(&self) -> Option<(Timestamp, Option<Timestamp>)> {
        self.merged().pop()
    }

    /// When the last run ended, if it did.
    pub(crate) fn completed(&self) -> Option<Timestamp> {
        self.last()?.1
    }

    /// Seconds in all; open runs last until `now`.
    pub(crate) fn seconds(&self, now: Timestamp) -> f64 {
        self.merged().iter().map(|(start, stop)| seconds(stop.unwrap_or(now).duration_since(*start))).sum()
    }
}

/// Seconds, never negative: clocks of two machines differ.
pub(crate) fn seconds(d: SignedDuration) -> f64 {
    d.as_secs_f64().max(0.0)
}
