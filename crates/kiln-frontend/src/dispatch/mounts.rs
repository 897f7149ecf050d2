//! `RUN --mount`.

use super::{used_path, wrong};
use crate::convert::Converter;
use crate::fail::Result;
use crate::outline::Mounted;
use crate::stages::StageId;
use kiln_dockerfile::{Mount, MountType, Range, Sharing};
use kiln_go::{path as gopath, quote};
use kiln_llb::CacheSharing;
use kiln_llb::builder::{
    ActionSpec, Constraints, ExecSpec, MountSpec, MountWhat, Output, Owner, OwnerId, SecretSpec, SshSpec,
};

impl Converter<'_> {
    /// Adds the mounts of a step; `sources` has one stage per mount.
    pub(super) fn add_mounts(
        &mut self,
        id: StageId,
        mounts: &[Mount],
        sources: &[StageId],
        at: Range,
        spec: &mut ExecSpec,
    ) -> Result<()> {
        for (mount, source) in mounts.iter().zip(sources) {
            let output = self.mount_source(mount, *source)?;
            match mount.kind {
                MountType::Secret => {
                    let secret = secret(mount)?;
                    let known = &mut self.stages.list[id].parameters.secrets;
                    known.entry(secret.id.clone()).or_insert(Mounted { required: mount.required, at });
                    spec.secrets.push(secret);
                }
                MountType::Ssh => {
                    let name = mount.id.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
                    let known = &mut self.stages.list[id].parameters.ssh;
                    known.entry(name).or_insert(Mounted { required: mount.required, at });
                    spec.ssh.push(ssh(mount)?);
                }
                MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                    let m = self.mount(id, mount, output)?;
                    spec.mounts.push(m);
                    self.note_use(id, mount, *source);
                }
            }
        }
        Ok(())
    }

    fn mount_source(&self, mount: &Mount, source: StageId) -> Result<Option<Output>> {
        let from = match (&mount.from, mount.kind) {
            (Some(from), _) => from.as_str(),
            (None, MountType::Cache) => "scratch",
            (None, _) => return Ok(Some(self.main_context)),
        };
        let stage = &self.stages.list[source];
        if !stage.dispatched {
            let (from, target) = (quote(from), quote(mount.target.as_deref().unwrap_or_default()));
            return Err(wrong(format!(
                "cannot mount from stage {from} to {target}, stage needs to be defined before current command"
            )));
        }
        Ok(if mount.kind == MountType::Tmpfs { None } else { stage.state.output })
    }

    fn note_use(&mut self, id: StageId, mount: &Mount, source: StageId) {
        let path = used_path(mount.source.as_deref().unwrap_or_default());
        // A cache without a source is on scratch, and so is its stage.
        if mount.from.is_none() && mount.kind != MountType::Cache {
            self.stages.list[id].context_paths.insert(path);
        } else {
            self.stages.use_path(source, path);
        }
    }

    fn mount(&mut self, id: StageId, mount: &Mount, output: Option<Output>) -> Result<MountSpec> {
        let written = mount.target.as_deref().unwrap_or_default();
        let target = if gopath::clean(written).starts_with('/') {
            written.to_string()
        } else {
            gopath::join(&["/", &self.stages.list[id].state.dir, written])
        };
        if target == "/" {
            return Err(wrong(format!("invalid mount target {}", quote(&target))));
        }
        let what = match mount.kind {
            MountType::Tmpfs => {
                MountWhat::Tmpfs { size: u64::try_from(mount.size.unwrap_or(0)).unwrap_or(0) }
            }
            MountType::Cache => {
                let name = mount.id.clone().unwrap_or_else(|| gopath::clean(written));
                let id = format!("{}/{name}", self.cx.options.cache_mount_ns);
                MountWhat::Cache { id, sharing: sharing(mount) }
            }
            _ => MountWhat::Bind,
        };
        let mut spec = MountSpec {
            target,
            source: if mount.kind == MountType::Tmpfs { None } else { output },
            readonly: mount.read_only,
            no_output: !mount.read_only && mount.kind == MountType::Bind,
            what,
            ..Default::default()
        };
        let selector = used_path(mount.source.as_deref().unwrap_or_default());
        if selector != "/" {
            spec.selector = selector;
        } else if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
            spec.source = Some(self.cache_base(mount, spec.source));
            spec.selector = "/cache".to_string();
        }
        Ok(spec)
    }

    /// A directory with the wanted attributes that a new cache begins with.
    fn cache_base(&mut self, mount: &Mount, base: Option<Output>) -> Output {
        let id = |n: Option<u32>| Some(OwnerId::Id(n.unwrap_or(0)));
        let action = ActionSpec::MkDir {
            path: "/cache".to_string(),
            mode: mount.mode.unwrap_or(0o755),
            make_parents: false,
            owner: Some(Owner { user: id(mount.uid), group: id(mount.gid) }),
            timestamp: None,
        };
        let constraints = Constraints::default().named("[internal] setting cache mount permissions");
        self.graph.file(base, "/", vec![action], constraints)
    }
}

fn sharing(mount: &Mount) -> CacheSharing {
    match mount.sharing {
        Some(Sharing::Private) => CacheSharing::Private,
        Some(Sharing::Locked) => CacheSharing::Locked,
        Some(Sharing::Shared) | None => CacheSharing::Shared,
    }
}

fn secret(mount: &Mount) -> Result<SecretSpec> {
    let id = match (&mount.source, &mount.id, &mount.target) {
        (Some(id), _, _) | (None, Some(id), _) => id.clone(),
        (None, None, Some(target)) => gopath::base(target).to_string(),
        (None, None, None) => return Err(wrong("one of source, target required")),
    };
    let target = match (&mount.target, &mount.env) {
        (None, None) => Some(format!("/run/secrets/{}", gopath::base(&id))),
        (target, _) => target.clone(),
    };
    Ok(SecretSpec {
        id,
        target,
        env: mount.env.clone(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(0o400),
        optional: !mount.required,
    })
}

fn ssh(mount: &Mount) -> Result<SshSpec> {
    if mount.source.is_some() {
        return Err(wrong("ssh does not support source"));
    }
    Ok(SshSpec {
        id: mount.id.clone().unwrap_or_default(),
        target: mount.target.clone().unwrap_or_default(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(0o600),
        optional: !mount.required,
    })
}
