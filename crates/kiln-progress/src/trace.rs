//! What is known of a build so far: the model that renderers read.

use crate::interval::Runs;
use crate::log::Log;
use crate::text::{printable, printable_lines};
use crate::update::{LogChunk, ProgressGroup, StatusUpdate, Update, VertexUpdate, Warning};
use jiff::{SignedDuration, Timestamp};
use kiln_digest::Digest;
use std::collections::{BTreeSet, HashMap};

/// Index of a vertex, or of a group that is shown as one.
pub(crate) type Id = usize;

/// A counter below a vertex.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) id: String,
    pub(crate) current: i64,
    pub(crate) total: i64,
    pub(crate) timestamp: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) completed: Option<Timestamp>,
    /// Told since it was printed last.
    pub(crate) changed: bool,
}

/// Members of a group.
#[derive(Debug, Default)]
struct Group {
    members: HashMap<Digest, VertexUpdate>,
}

/// A vertex or group.
#[derive(Debug, Default)]
pub(crate) struct Vertex {
    pub(crate) name: String,
    pub(crate) error: String,
    pub(crate) cached: bool,
    pub(crate) runs: Runs,
    pub(crate) statuses: Vec<Status>,
    pub(crate) warnings: Vec<String>,
    pub(crate) log: Log,
    /// A group of which nothing worth showing has started.
    pub(crate) hidden: bool,
    /// News since it was printed or put away last, and when they began.
    pub(crate) news: u32,
    pub(crate) news_since: Option<Timestamp>,
    group: Option<Group>,
}

impl Vertex {
    pub(crate) fn is_started(&self) -> bool {
        !self.runs.is_empty()
    }

    pub(crate) fn is_completed(&self) -> bool {
        self.runs.completed().is_some()
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.error.ends_with("context canceled")
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.error.is_empty() && !self.is_canceled()
    }
}

/// Everything told so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) vertices: Vec<Vertex>,
    /// Started and visible ones in the order they started.
    pub(crate) shown: Vec<Id>,
    /// Those with news.
    pub(crate) changed: BTreeSet<Id>,
    by_digest: HashMap<Digest, Id>,
    groups: HashMap<String, Id>,
    started: Option<Timestamp>,
    /// Local time minus the daemon's.
    skew: SignedDuration,
    has_skew: bool,
}

impl Trace {
    /// `now` in the daemon's clock.
    pub(crate) fn daemon_time(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.skew).unwrap_or(now)
    }

    /// When the first vertex started, in the daemon's clock.
    pub(crate) fn started(&self) -> Option<Timestamp> {
        self.started
    }

    /// Completed and all visible vertices.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let visible = self.vertices.iter().filter(|v| !v.hidden);
        visible.fold((0, 0), |(done, all), v| (done + usize::from(v.is_completed()), all + 1))
    }

    pub(crate) fn apply(&mut self, update: &Update, now: Timestamp) {
        let mut groups = BTreeSet::new();
        for v in &update.vertexes {
            if self.started.is_none() {
                self.started = v.started;
            }
            match &v.group {
                Some(group) => drop(groups.insert(self.group_member(group, v))),
                None => self.vertex(v, now),
            }
        }
        for id in groups {
            self.refresh_group(id, now);
        }
        for s in &update.statuses {
            self.status(s, now);
        }
        for w in &update.warnings {
            self.warning(w, now);
        }
        for l in &update.logs {
            self.log(l, now);
        }
    }

    /// Nobody follows what still runs to its end: it counts as canceled.
    pub(crate) fn cancel(&mut self, now: Timestamp) {
        let end = self.daemon_time(now);
        for id in self.shown.clone() {
            let vertex = &mut self.vertices[id];
            if !vertex.is_completed() {
                vertex.runs.stop(end);
                vertex.error = "context canceled".into();
                self.note(id, now);
            }
        }
    }

    fn add(&mut self, vertex: Vertex) -> Id {
        self.vertices.push(vertex);
        self.vertices.len() - 1
    }

    fn note(&mut self, id: Id, now: Timestamp) {
        let vertex = &mut self.vertices[id];
        if vertex.news == 0 {
            vertex.news_since = Some(now);
        }
        vertex.news = vertex.news.saturating_add(1);
        self.changed.insert(id);
    }

    fn first_start(&mut self, id: Id, start: Timestamp, now: Timestamp) {
        if !self.has_skew {
            self.skew = now.duration_since(start);
            self.has_skew = true;
        }
        if !self.vertices[id].hidden {
            self.shown.push(id);
        }
    }

    fn vertex(&mut self, v: &VertexUpdate, now: Timestamp) {
        let id = match self.by_digest.get(&v.digest) {
            Some(id) => *id,
            None => {
                let id = self.add(Vertex { name: printable(&v.name), ..Vertex::default() });
                self.by_digest.insert(v.digest, id);
                id
            }
        };
        let Some(start) = v.started else {
            // A vertex may be told of again as just loaded; that takes nothing back.
            let vertex = &mut self.vertices[id];
            if !vertex.is_started() {
                vertex.name = printable(&v.name);
                vertex.error = printable_lines(&v.error);
            }
            return;
        };
        if !self.vertices[id].is_started() {
            self.first_start(id, start, now);
        }
        let vertex = &mut self.vertices[id];
        let (name, error) = (printable(&v.name), printable_lines(&v.error));
        let changed = vertex.runs.set(start, v.completed)
            | (vertex.name != name)
            | (vertex.cached != v.cached)
            | (vertex.error != error);
        vertex.name = name;
        vertex.cached = v.cached;
        vertex.error = error;
        if changed {
            self.note(id, now);
        }
    }

    fn group_member(&mut self, group: &ProgressGroup, v: &VertexUpdate) -> Id {
        let id = match self.groups.get(&group.id) {
            Some(id) => *id,
            None => {
                let name = printable(&group.name);
                let id = self.add(Vertex {
                    name,
                    hidden: true,
                    group: Some(Group::default()),
                    ..Vertex::default()
                });
                self.groups.insert(group.id.clone(), id);
                id
            }
        };
        self.by_digest.insert(v.digest, id);
        if let Some(group) = &mut self.vertices[id].group {
            group.members.insert(v.digest, v.clone());
        }
        id
    }

    /// A group runs when a member runs, is cached when all are, and fails with the first failure. It is shown
    /// once a member that is not weak has started, or one has failed.
    fn refresh_group(&mut self, id: Id, now: Timestamp) {
        let vertex = &mut self.vertices[id];
        let Some(group) = &vertex.group else { return };
        let first = group.members.values().filter_map(|m| m.started).min();
        let was_started = !vertex.runs.is_empty();
        let was_hidden = vertex.hidden;
        let mut changed = false;
        for m in group.members.values() {
            let Some(start) = m.started else { continue };
            changed |= vertex.runs.set(start, m.completed);
            vertex.hidden &= m.group.as_ref().is_some_and(|g| g.weak) && m.error.is_empty();
        }
        let cached = group.members.values().all(|m| m.cached);
        let error = group.members.values().map(|m| &m.error).find(|e| !e.is_empty());
        let error = error.map(|e| printable_lines(e));
        changed |= cached != vertex.cached || error.as_ref().is_some_and(|e| *e != vertex.error);
        vertex.cached = cached;
        if let Some(error) = error {
            vertex.error = error;
        }
        let revealed = was_hidden && !vertex.hidden;
        if let Some(start) = first.filter(|_| !was_started || revealed) {
            self.first_start(id, start, now);
        }
        if (changed || revealed) && !self.vertices[id].hidden {
            self.note(id, now);
        }
    }

    fn status(&mut self, s: &StatusUpdate, now: Timestamp) {
        let Some(&id) = self.by_digest.get(&s.vertex) else { return };
        let status = Status {
            id: printable(&s.id),
            current: s.current,
            total: s.total,
            timestamp: s.timestamp,
            started: s.started,
            completed: s.completed,
            changed: true,
        };
        let statuses = &mut self.vertices[id].statuses;
        match statuses.iter_mut().find(|old| old.id == status.id) {
            Some(old) => *old = status,
            None if s.started.is_some() => statuses.push(status),
            None => {}
        }
        self.note(id, now);
    }

    fn warning(&mut self, w: &Warning, now: Timestamp) {
        let Some(&id) = self.by_digest.get(&w.vertex) else { return };
        self.vertices[id].warnings.push(printable(&String::from_utf8_lossy(&w.short)));
        self.note(id, now);
    }

    fn log(&mut self, l: &LogChunk, now: Timestamp) {
        let Some(&id) = self.by_digest.get(&l.vertex) else { return };
        let vertex = &mut self.vertices[id];
        let start = vertex.runs.last().map(|(start, _)| start);
        vertex.log.write(&l.data, start.map_or(SignedDuration::ZERO, |s| l.timestamp.duration_since(s)));
        self.note(id, now);
    }
}
