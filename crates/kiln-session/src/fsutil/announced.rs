//! The announced entries as they come, checked.

use std::collections::VecDeque;
use std::path::Path;

use bytes::{BufMut, BytesMut};
use prost::Message;

use super::TransferError;
use super::options::{METADATA_FILE, ReceiveOptions};
use super::stat::{Kind, Stat};
use super::validate::Validator;

/// An entry that passed all checks.
pub(crate) struct Next {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) stat: Box<Stat>,
}

/// The announced entries, checked, one at a time.
pub(crate) struct Source {
    ended: bool,
    validator: Validator,
    count: u32,
    options: ReceiveOptions,
    /// Every announced entry, when only metadata is transferred.
    metadata: Option<BytesMut>,
    /// Directories that are not made until something in them is wanted.
    parents: Vec<Next>,
    ready: VecDeque<Next>,
}

impl Source {
    pub(crate) fn new(options: &ReceiveOptions) -> Self {
        Self {
            ended: false,
            validator: Validator::new(options.limits),
            count: 0,
            options: options.clone(),
            metadata: options.metadata_only.is_some().then(BytesMut::new),
            parents: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes in what was announced, `None` for the end of the walk.
    pub(crate) fn take(&mut self, stat: Option<Box<Stat>>) -> Result<(), TransferError> {
        match stat {
            _ if self.ended => return Err(TransferError::Unexpected("an entry after the end of the walk")),
            None => self.ended = true,
            Some(stat) => {
                let Some(next) = self.accept(stat)? else { return Ok(()) };
                match self.options.metadata_only.clone() {
                    None => self.ready.push_back(next),
                    Some(wanted) => self.sort_out(next, &*wanted)?,
                }
            }
        }
        Ok(())
    }

    /// The next entry to be made, of those taken in.
    pub(crate) fn next(&mut self) -> Option<Next> {
        self.ready.pop_front()
    }

    /// Whether the walk has ended.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    fn accept(&mut self, mut stat: Box<Stat>) -> Result<Option<Next>, TransferError> {
        let id = self.count;
        self.count =
            id.checked_add(1).ok_or(TransferError::Limit { what: "entries", limit: u32::MAX.into() })?;
        let kind = self.validator.accept(&stat)?;
        if self.metadata.is_some() && &stat.path[..] == METADATA_FILE.as_bytes() {
            return Ok(None);
        }
        if let Some((uid, gid)) = self.options.owner {
            (stat.uid, stat.gid) = (uid, gid);
        }
        Ok(Some(Next { id, kind, stat }))
    }

    /// Notes the entry; only if it is wanted it is made, with the directories above it.
    fn sort_out(&mut self, next: Next, wanted: &dyn Fn(&Path) -> bool) -> Result<(), TransferError> {
        let path = next.stat.path.clone();
        if let Some(list) = &mut self.metadata {
            let limit = self.options.limits.memory;
            list.put_u32_le(u32::try_from(next.stat.encoded_len()).unwrap_or(u32::MAX));
            next.stat.encode(list).map_err(|_| TransferError::Limit { what: "bytes of metadata", limit })?;
            if list.len() as u64 > limit {
                return Err(TransferError::Limit { what: "bytes of metadata", limit });
            }
        }
        let inside = |dir: &[u8]| path.strip_prefix(dir).is_some_and(|rest| rest.first() == Some(&b'/'));
        while self.parents.pop_if(|dir| !inside(&dir.stat.path)).is_some() {}
        if wanted(next.stat.path()) {
            self.ready.extend(self.parents.drain(..));
            self.ready.push_back(next);
        } else if next.kind == Kind::Dir {
            self.parents.push(next);
        }
        Ok(())
    }

    /// Entries announced so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.into()
    }

    /// The record of all entries, of a transfer of metadata.
    pub(crate) fn take_metadata(&mut self) -> Option<BytesMut> {
        self.metadata.take()
    }
}
