//! A tar that is made while it is sent to the client. A thread has it for a piece at a time: who reads slowly, or not
//! at all, keeps none.

use crate::{ExportContext, ExportError};
use bytes::Bytes;
use kiln_fs::tar::{Entry, TarError, Writer};
use kiln_session::{FileRequest, Session, Wanted};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes made at once.
const PIECE: usize = 512 << 10;
/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// An entry, with its content if it has any.
pub(crate) type Member = (Entry, Option<Box<dyn Read + Send>>);

/// Sends an archive of `members`, and tells of it as `id`; `step` is for errors. That the client needs nothing is a
/// success.
pub(crate) async fn stream<M>(
    (id, step): (&str, &'static str),
    session: &Session,
    request: &FileRequest,
    cx: &ExportContext<'_>,
    members: M,
) -> Result<(), ExportError>
where
    M: Iterator<Item = Result<Member, ExportError>> + Send + 'static,
{
    let mut upload = session.send_bytes(request)?;
    let sent = AtomicU64::new(0);
    let mut archive = Archive::new(step, members);
    let work = async {
        let mut piece = Bytes::new();
        loop {
            let size = piece.len() as u64;
            // While one piece is on its way the next one is made.
            let making = kiln_blocking::with(archive, Archive::piece);
            let (taken, made) = tokio::join!(upload.write(piece), making);
            if taken.map_err(|s| refused(s.message()))? == Wanted::Nothing {
                return Ok(());
            }
            sent.fetch_add(size, Ordering::Relaxed);
            let (back, next) = made.map_err(|e| ExportError::Internal(e.to_string()))?;
            (archive, piece) = (back, next?);
            if piece.is_empty() {
                return upload.finish().await.map_err(|s| refused(s.message()));
            }
        }
    };
    cx.counting(id, &sent, work).await
}

fn refused(message: &str) -> ExportError {
    ExportError::Archive(message.to_string())
}

/// An archive in the making.
struct Archive<M> {
    step: &'static str,
    members: M,
    /// `None` at the end.
    tar: Option<Writer<Vec<u8>>>,
    content: Option<Content>,
    buffer: Box<[u8]>,
}

/// The content of the present entry.
struct Content {
    path: PathBuf,
    data: Box<dyn Read + Send>,
}

impl<M: Iterator<Item = Result<Member, ExportError>>> Archive<M> {
    fn new(step: &'static str, members: M) -> Self {
        let tar = Some(Writer::new(Vec::new()));
        Self { step, members, tar, content: None, buffer: vec![0; BUFFER].into() }
    }

    /// The next bytes; none at the end.
    fn piece(&mut self) -> Result<Bytes, ExportError> {
        let step = self.step;
        let failed = |e: TarError| ExportError::Io(step.to_string(), io::Error::other(e.to_string()));
        let Some(tar) = &mut self.tar else { return Ok(Bytes::new()) };
        tar.get_mut().reserve(PIECE + BUFFER);
        while tar.get_mut().len() < PIECE {
            if let Some(content) = &mut self.content {
                if !content.copy(tar, &mut self.buffer).map_err(failed)? {
                    self.content = None;
                }
                continue;
            }
            match self.members.next().transpose()? {
                Some((entry, data)) => {
                    tar.begin(&entry).map_err(failed)?;
                    self.content = data.map(|data| Content { path: entry.path, data });
                }
                None => {
                    let tar = self.tar.take().map(Writer::finish).transpose().map_err(failed)?;
                    return Ok(tar.unwrap_or_default().into());
                }
            }
        }
        Ok(std::mem::take(tar.get_mut()).into())
    }
}

impl Content {
    /// Writes the next bytes; says whether there may be more. The end is read too: meeting it is what verifies a blob,
    /// and a broken one ends the archive.
    fn copy(&mut self, tar: &mut Writer<Vec<u8>>, buffer: &mut [u8]) -> Result<bool, TarError> {
        let left = usize::try_from(tar.left()).unwrap_or(usize::MAX).min(buffer.len());
        let n = match self.data.read(&mut buffer[..left.max(1)]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(true),
            read => read?,
        };
        match (n, left) {
            (0, 0) => Ok(false),
            (0, _) => {
                let what = "content is shorter than announced";
                Err(TarError::Unwritable { path: self.path.clone(), what })
            }
            // It has grown since; what was announced is there.
            (_, 0) => Ok(false),
            (n, _) => {
                tar.write_all(&buffer[..n])?;
                Ok(true)
            }
        }
    }
}
