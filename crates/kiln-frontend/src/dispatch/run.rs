//! RUN.

use super::wrong;
use crate::convert::Converter;
use crate::fail::Result;
use crate::image_config;
use crate::names::{self, Masked};
use crate::stages::StageId;
use crate::state::EnvOf;
use kiln_dockerfile::{Device, Heredoc, Mount, MountType, NetworkMode, Run, RunBody, SecurityMode, Source};
use kiln_llb::builder::{ActionSpec, Constraints, ExecSpec, MountSpec, MountWhat, Output};
use kiln_llb::{CdiDevice, ExecMeta, NetMode};

/// Where the file of a heredoc with its own interpreter is mounted.
const PIPES: &str = "/dev/pipes/";

impl Converter<'_> {
    pub(super) fn run(&mut self, id: StageId, run: &Run, source: &Source, sources: &[StageId]) -> Result<()> {
        if !run.devices.is_empty() && !self.cx.options.labs {
            return Err(wrong(
                "device feature is only supported in Dockerfile frontend 1.14.0-labs or later",
            ));
        }
        self.stages.use_path(id, "/".to_string());
        let lex = self.lex;
        let mounts = run.mounts(|word| self.expand(id, &lex, word, source.range))?;
        let mut spec = ExecSpec::default();
        let mut title = source.code.clone();
        let words = self.run_words(id, run, &mut spec, &mut title);
        self.add_mounts(id, &mounts, sources, source.range, &mut spec)?;
        self.set_limits(&mut spec);
        self.set_process(id, run, words.clone(), &mut spec);
        let device = |d: &Device| CdiDevice { name: d.name.clone(), optional: !d.required };
        spec.cdi_devices = run.devices.iter().map(device).collect();

        let title = self.run_title(id, &title, &mounts);
        let mut constraints = self.command_constraints(&source.code, Some(source.range)).named(title);
        let stage = &self.stages.list[id];
        constraints.metadata.ignore_cache = stage.ignore_cache;
        constraints.metadata.linux_resources = self.cx.options.resources.clone();
        constraints.platform = stage.state.platform.clone();
        let text = format!("RUN {} # buildkit", self.history_text(id, &words));
        let out = self.graph.exec(spec, constraints);
        self.stages.list[id].state.output = out;
        self.commit(id, text, true);
        Ok(())
    }

    /// The arguments; a heredoc may become a mounted file.
    fn run_words(&mut self, id: StageId, run: &Run, spec: &mut ExecSpec, title: &mut String) -> Vec<String> {
        let text = match run.body() {
            RunBody::Exec(words) => return words.to_vec(),
            RunBody::Shell(text) => text.into_owned(),
            RunBody::Heredoc(doc) => {
                title.push_str(&format!(" ({})", summary(&doc.content)));
                let data = doc.data();
                let is_windows = self.stages.list[id].image.platform.os == "windows";
                if !is_windows && data.starts_with("#!") {
                    spec.mounts.push(self.heredoc_mount(id, doc, data));
                    kiln_go::path::join(&[PIPES, &doc.name])
                } else {
                    data
                }
            }
        };
        image_config::with_shell(&self.stages.list[id].image, &text)
    }

    fn heredoc_mount(&mut self, id: StageId, doc: &Heredoc, data: String) -> MountSpec {
        let file = self.inline_file(id, &doc.name, 0o755, data.into_bytes());
        MountSpec {
            target: PIPES.to_string(),
            source: Some(file),
            selector: "/".to_string(),
            readonly: true,
            ..Default::default()
        }
    }

    /// A file written in the Dockerfile, alone on scratch.
    pub(super) fn inline_file(&mut self, id: StageId, name: &str, mode: u32, data: Vec<u8>) -> Output {
        let action = ActionSpec::MkFile { path: name.to_string(), mode, data, owner: None, timestamp: None };
        let platform = self.stages.list[id].platform.clone();
        let constraints = Constraints { platform, ..Default::default() };
        self.graph.file(None, "/", vec![action], constraints.named("[internal] preparing inline document"))
    }

    fn set_process(&self, id: StageId, run: &Run, args: Vec<String>, spec: &mut ExecSpec) {
        let state = &self.stages.list[id].state;
        let options = &self.cx.options;
        spec.root = state.output;
        spec.network = match run.network {
            NetworkMode::Default => state.network,
            NetworkMode::None => NetMode::None,
            NetworkMode::Host => NetMode::Host,
        };
        spec.security = match run.security {
            SecurityMode::Sandbox => kiln_llb::SecurityMode::Sandbox,
            SecurityMode::Insecure => kiln_llb::SecurityMode::Insecure,
        };
        spec.meta = ExecMeta {
            args,
            env: state.env.to_lines(),
            cwd: state.dir.clone(),
            user: state.user.clone(),
            proxy_env: self.proxy_env.clone(),
            extra_hosts: options.extra_hosts.clone(),
            hostname: state.hostname.clone(),
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            ..Default::default()
        };
    }

    fn set_limits(&self, spec: &mut ExecSpec) {
        let size = self.cx.options.shm_size;
        if size > 0 {
            spec.mounts.push(MountSpec {
                target: "/dev/shm".to_string(),
                what: MountWhat::Tmpfs { size },
                ..Default::default()
            });
        }
    }

    fn run_title(&mut self, id: StageId, text: &str, mounts: &[Mount]) -> String {
        let lex = self.lex.raw_quotes(true).skip_unset(true);
        let stage = &mut self.stages.list[id];
        let env = stage.state.env.clone();
        let is_secret = |m: &&Mount| m.kind == MountType::Secret;
        let secrets = mounts.iter().filter(is_secret).filter_map(|m| m.env.clone()).collect();
        let shown = names::expand(&lex, text, &Masked { env: EnvOf(&env), secrets });
        let platform = stage.state.platform.clone();
        names::prefix(stage, &names::uppercase_first(&shown), platform.as_ref(), &env)
    }

    /// `|<n> ARG=value ... words`
    fn history_text(&self, id: StageId, words: &[String]) -> String {
        let stage = &self.stages.list[id];
        let mut args: Vec<(&str, &str)> = Vec::new();
        for (key, value) in &stage.build_args {
            let value = stage.state.env.get(key).or(value.as_deref()).unwrap_or_default();
            match args.iter_mut().find(|(k, _)| k == key) {
                Some(old) => old.1 = value,
                None => args.push((key, value)),
            }
        }
        let mut out = Vec::new();
        if !args.is_empty() {
            out.push(format!("|{}", args.len()));
            out.extend(args.iter().map(|(k, v)| format!("{k}={v}")));
        }
        out.extend(words.iter().cloned());
        out.join(" ")
    }
}

/// The first line of a heredoc, and whether there are more.
fn summary(text: &str) -> String {
    let text = text.trim().replace("\r\n", "\n");
    match text.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => text,
    }
}
