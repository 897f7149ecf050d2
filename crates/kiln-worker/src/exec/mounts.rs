//! The mounts of a step: which snapshots are written, which are only read, which become results.

use super::failed;
use crate::failure::Written;
use crate::result::Ref;
use crate::ssh::{AgentSocket, Owner};
use crate::{Left, Worker};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{CacheSharing, ExecOp, Mount, MountKind as Kind, SecretOpt, SshOpt};
use kiln_sandbox::{BindOptions, MountKind, SandboxMount};
use kiln_snapshot::{ActiveSnapshot, CacheMount, CacheMountSpec, Mounted, NewRef, RecordKind, Sharing};
use std::path::Path;

/// What is to be mounted.
pub(crate) struct Plan<'a> {
    pub(crate) mounts: &'a [Mount],
    /// What the mounts name as inputs.
    pub(crate) inputs: &'a [Ref],
    /// Where destinations begin that are not absolute.
    pub(crate) cwd: &'a str,
    /// For whom it is, in descriptions of snapshots; without credentials.
    pub(crate) whose: &'a str,
    /// Clients that are asked for secrets and agents.
    pub(crate) sessions: &'a Sessions<'a>,
}

/// Ids of the sessions that may be asked now.
pub(crate) type Sessions<'a> = dyn Fn() -> Vec<String> + Send + Sync + 'a;

/// What is held while the step runs.
pub(crate) struct Prepared {
    root: Mounted,
    /// The root is mounted read-only.
    pub(crate) read_only_root: bool,
    /// All but the root, in order.
    pub(crate) sandbox: Vec<SandboxMount>,
    /// Per mount its files, where it has any.
    pub(crate) views: Vec<Option<Mounted>>,
    /// With the number of the mount.
    outputs: Vec<(usize, Output)>,
    held: Held,
}

/// A future result.
enum Output {
    /// Written by the step.
    Active(ActiveSnapshot),
    /// Mounted read-only: the result is the input.
    Same(Ref),
}

/// Id of a cache mount and, as text, the snapshot it starts with.
type CacheKey = (String, Option<String>);

/// Kept until the step has ended, then let go without a result.
#[derive(Default)]
struct Held {
    mounted: Vec<Mounted>,
    /// With the number of the mount.
    actives: Vec<(usize, ActiveSnapshot)>,
    /// With id and base: one step uses one directory for all mounts of the same.
    caches: Vec<(CacheKey, CacheMount)>,
    sockets: Vec<AgentSocket>,
}

impl Prepared {
    /// Mounts everything. Waits for locked cache mounts.
    pub(crate) async fn new(worker: &Worker, plan: Plan<'_>) -> Result<Self, BuildError> {
        let mut b = Builder {
            worker,
            sandbox: Vec::new(),
            views: vec![None; plan.mounts.len()],
            outputs: Vec::new(),
            held: Held::default(),
            plan,
        };
        b.take_caches().await?;
        let mut root = None;
        for (index, mount) in b.plan.mounts.iter().enumerate() {
            if mount.dest == "/" {
                root = Some(b.root(index, mount)?);
            } else {
                b.add(index, mount).await?;
            }
        }
        let (root, read_only_root) =
            root.ok_or_else(|| BuildError::new(Code::InvalidArgument, "no root mount"))?;
        let Builder { mut sandbox, views, outputs, held, .. } = b;
        // Parents first, as BuildKit does; what has the same destination stays in order.
        sandbox.sort_by(|a, b| a.dest.as_os_str().cmp(b.dest.as_os_str()));
        Ok(Self { root, read_only_root, sandbox, views, outputs, held })
    }

    /// The step's root.
    pub(crate) fn root(&self) -> &Mounted {
        &self.root
    }

    /// Where things are mounted.
    pub(crate) fn sandbox_paths(&self) -> impl Iterator<Item = &str> {
        self.sandbox.iter().filter_map(|m| m.dest.to_str())
    }

    /// Unmounts everything and makes the outputs snapshots.
    pub(crate) async fn commit(self) -> Result<Vec<Ref>, BuildError> {
        let Self { root, outputs, held, .. } = self;
        let work = move || {
            drop(root);
            drop(held);
            let commit = |o: Output| match o {
                Output::Active(active) => active.commit().map(Ref::from).map_err(failed),
                Output::Same(r) => Ok(r),
            };
            outputs.into_iter().map(|(_, o)| commit(o)).collect()
        };
        tokio::task::spawn_blocking(work).await.map_err(failed)?
    }

    /// Unmounts everything and keeps what a failed step has written, to be looked at. `None` when that fails too.
    pub(crate) async fn left(self, worker: &Worker, op: &ExecOp, inputs: &[Ref]) -> Option<Left> {
        let input = |mount: &Mount| mount.input.and_then(|i| inputs.get(i)).cloned();
        let inputs: Vec<Option<Ref>> = op.mounts.iter().map(input).collect();
        let written = Written { snapshots: worker.0.snapshots.clone(), ids: Vec::new() };
        let mut left = Left { mounts: inputs.clone(), inputs, written };
        let Self { root, outputs, mut held, .. } = self;
        let actives = std::mem::take(&mut held.actives);
        let work = move || {
            drop(root);
            drop(held);
            let written = actives.into_iter().map(|(i, active)| (i, Output::Active(active)));
            for (index, output) in outputs.into_iter().chain(written) {
                let kept = match output {
                    Output::Active(active) => {
                        let snapshot = active.commit()?;
                        left.written.ids.push(snapshot.id().clone());
                        Ref::from(snapshot)
                    }
                    Output::Same(r) => r,
                };
                if let Some(slot) = left.mounts.get_mut(index) {
                    *slot = Some(kept);
                }
            }
            Ok::<_, kiln_snapshot::SnapshotError>(left)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(left)) => Some(left),
            Ok(Err(error)) => {
                tracing::warn!(%error, "keep what a failed step has written");
                None
            }
            Err(_) => None,
        }
    }
}

struct Builder<'a> {
    worker: &'a Worker,
    plan: Plan<'a>,
    sandbox: Vec<SandboxMount>,
    views: Vec<Option<Mounted>>,
    outputs: Vec<(usize, Output)>,
    held: Held,
}

impl Builder<'_> {
    fn input(&self, mount: &Mount) -> Result<Ref, BuildError> {
        let Some(index) = mount.input else { return Ok(Ref::default()) };
        let missing = || BuildError::new(Code::InvalidArgument, format!("missing input {index}"));
        self.plan.inputs.get(index).cloned().ok_or_else(missing)
    }

    fn active(&self, mount: &Mount, on: &Ref) -> Result<(ActiveSnapshot, Mounted), BuildError> {
        let description = format!("mount {} from {}", mount.dest, self.plan.whose);
        let active = self
            .worker
            .0
            .snapshots
            .new_active(on.snapshot(), NewRef::regular(description))
            .map_err(failed)?;
        let mounted = active.mount().map_err(failed)?;
        Ok((active, mounted))
    }

    /// The root is always writable for the launcher, which makes mount points in it.
    fn root(&mut self, index: usize, mount: &Mount) -> Result<(Mounted, bool), BuildError> {
        let input = self.input(mount)?;
        let (active, mounted) = self.active(mount, &input)?;
        match mount.output {
            Some(_) => self.outputs.push((index, Output::Active(active))),
            None => self.held.actives.push((index, active)),
        }
        self.views[index] = Some(mounted.clone());
        Ok((mounted, mount.readonly))
    }

    async fn add(&mut self, index: usize, mount: &Mount) -> Result<(), BuildError> {
        let kind = match &mount.kind {
            Kind::Bind => Some(self.bind(index, mount)?),
            Kind::Cache { id, .. } => Some(self.cache(index, mount, id)?),
            Kind::Tmpfs { size } => Some(MountKind::Tmpfs { size: size.filter(|s| *s != 0), mode: 0o1777 }),
            Kind::Secret(secret) => self.secret(secret).await?,
            Kind::Ssh(ssh) => self.ssh(ssh).await?,
        };
        if let Some(kind) = kind {
            // Relative to the working directory.
            let dest = Path::new("/").join(self.plan.cwd).join(&mount.dest);
            self.sandbox.push(SandboxMount { dest, kind });
        }
        Ok(())
    }

    fn bind(&mut self, index: usize, mount: &Mount) -> Result<MountKind, BuildError> {
        let input = self.input(mount)?;
        let mounted = match (mount.output, mount.readonly, input.snapshot()) {
            (Some(_), true, Some(snapshot)) => {
                self.outputs.push((index, Output::Same(input.clone())));
                self.view(snapshot)?
            }
            (Some(_), _, _) => {
                let (active, mounted) = self.active(mount, &input)?;
                self.outputs.push((index, Output::Active(active)));
                mounted
            }
            (None, true, Some(snapshot)) => self.view(snapshot)?,
            (None, _, _) => {
                let (active, mounted) = self.active(mount, &input)?;
                self.held.actives.push((index, active));
                mounted
            }
        };
        self.part(index, mount, mounted)
    }

    fn view(&self, snapshot: &kiln_snapshot::Snapshot) -> Result<Mounted, BuildError> {
        self.worker.0.snapshots.mount_view(snapshot).map_err(failed)
    }

    /// The selected path, resolved once below the mount's own root.
    fn part(&mut self, index: usize, mount: &Mount, mounted: Mounted) -> Result<MountKind, BuildError> {
        let selector = Path::new("/").join(mount.selector.trim_start_matches('/'));
        let fd = mounted.root().open_path(&selector, true);
        let fd =
            fd.map_err(|e| failed(e).context(format!("mount {} at {}", selector.display(), mount.dest)))?;
        self.views[index] = Some(mounted.clone());
        self.held.mounted.push(mounted);
        let options = BindOptions { read_only: mount.readonly, ..BindOptions::default() };
        Ok(MountKind::Bind { fd, options })
    }

    /// Takes every cache directory of the step, in the order of their keys: steps that want the same locked ones in
    /// another order would wait for each other for ever, and a step that mounts one twice for itself.
    async fn take_caches(&mut self) -> Result<(), BuildError> {
        let mut wanted = std::collections::BTreeMap::new();
        for mount in self.plan.mounts {
            if let Kind::Cache { id, sharing } = &mount.kind {
                wanted.entry(self.cache_key(mount, id)?).or_insert((mount, *sharing));
            }
        }
        for (key, (mount, sharing)) in wanted {
            let cache = self.take_cache(mount, &key.0, sharing).await?;
            self.held.caches.push((key, cache));
        }
        Ok(())
    }

    fn cache_key(&self, mount: &Mount, id: &str) -> Result<CacheKey, BuildError> {
        let id = if id.is_empty() { &mount.dest } else { id };
        let base = self.input(mount)?.snapshot().map(|s| s.id().to_string());
        Ok((id.to_string(), base))
    }

    async fn take_cache(
        &self,
        mount: &Mount,
        id: &str,
        sharing: CacheSharing,
    ) -> Result<CacheMount, BuildError> {
        let input = self.input(mount)?;
        let spec = CacheMountSpec {
            key: id,
            base: input.snapshot(),
            sharing: match sharing {
                CacheSharing::Shared => Sharing::Shared,
                CacheSharing::Private => Sharing::Private,
                CacheSharing::Locked => Sharing::Locked,
            },
            description: format!("cached mount {} from {} with id \"{id}\"", mount.dest, self.plan.whose),
            kind: RecordKind::CacheMount,
        };
        self.worker.0.snapshots.cache_mount(spec).await.map_err(failed)
    }

    fn cache(&mut self, index: usize, mount: &Mount, id: &str) -> Result<MountKind, BuildError> {
        let key = self.cache_key(mount, id)?;
        let taken = self.held.caches.iter().find(|(k, _)| *k == key);
        let (_, cache) = taken.ok_or_else(|| failed(format!("cache {} was not taken", key.0)))?;
        let mounted = cache.mount().map_err(failed)?;
        self.part(index, mount, mounted)
    }

    async fn secret(&self, secret: &SecretOpt) -> Result<Option<MountKind>, BuildError> {
        let found =
            crate::secrets::get(&self.worker.0, self.plan.sessions, &secret.id, secret.optional).await?;
        let file =
            |contents| MountKind::File { contents, mode: secret.mode, uid: secret.uid, gid: secret.gid };
        Ok(found.map(file))
    }

    async fn ssh(&mut self, ssh: &SshOpt) -> Result<Option<MountKind>, BuildError> {
        let id = if ssh.id.is_empty() { "default" } else { &ssh.id };
        let Some(session) =
            crate::secrets::ssh_session(&self.worker.0, self.plan.sessions, id, ssh.optional).await?
        else {
            return Ok(None);
        };
        let owner = Owner { uid: ssh.uid, gid: ssh.gid, mode: ssh.mode };
        let opened = AgentSocket::open(&self.worker.0.run_dir, session, id.to_string(), &owner);
        let (socket, fd) = opened.map_err(|e| failed(e).context("make an ssh agent socket"))?;
        self.held.sockets.push(socket);
        Ok(Some(MountKind::Bind { fd, options: BindOptions::default() }))
    }
}
