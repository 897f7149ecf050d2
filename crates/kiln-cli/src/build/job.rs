//! A build of a command line, from its flags to its answer; every face of kiln builds like this.

use super::args::BuildArgs;
use super::attrs::Vars;
use super::export::Dest;
use super::git;
use super::plan::{Plan, Stdin, Unsaid};
use super::remote_file::RemoteFile;
use super::request::{self, StdinInputs};
use crate::error::CliError;
use crate::stdin::StdinDockerfile;
use crate::{printer, stdin};
use kiln_builder::{Docker, Engine, ImageLoad, Steps};
use kiln_client::{BuildRequest, Client, SolveResponse};
use kiln_llb::errdefs::BuildError;
use kiln_progress::Update;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// How long an engine that refused an archive may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What was asked for, and what of this machine goes along.
pub struct Job {
    /// The request.
    pub plan: Plan,
    head: Vec<u8>,
    dockerfile: Option<StdinDockerfile>,
    /// Where the result is loaded into.
    engine: Option<Engine>,
}

/// Why a build failed.
#[derive(Debug)]
pub enum Failed {
    /// On this side.
    Here(CliError),
    /// In the daemon.
    Build(BuildError),
    /// In the engine that was to take the result.
    Engine(kiln_builder::Error),
}

impl From<CliError> for Failed {
    fn from(error: CliError) -> Self {
        Self::Here(error)
    }
}

impl Job {
    /// Reads the flags and, where it is asked for, the beginning of stdin or the Dockerfile on it.
    ///
    /// # Errors
    /// Those of [`Plan::new`], or stdin cannot be read.
    pub fn new(args: &BuildArgs, vars: Vars<'_>, unsaid: &Unsaid, docker: &Docker) -> Result<Self, CliError> {
        let mut head = Vec::new();
        let mut plan = Plan::new(args, vars, unsaid, || {
            head = stdin::head()?;
            Ok(head.clone())
        })?;
        plan.check_stdout(printer::stdout_is_terminal())?;
        let dockerfile = match plan.stdin {
            Stdin::Dockerfile { empty_context } => Some(stdin::dockerfile(&head, empty_context)?),
            Stdin::Unused | Stdin::Context => None,
        };
        git::add(args, vars, &mut plan);
        plan.add_proxies(docker.proxy_args());
        Ok(Self { plan, head, dockerfile, engine: None })
    }

    /// Asks the engine that results are to be loaded into, if any are: before anything is built.
    ///
    /// # Errors
    /// It is not there, or cannot be reached.
    pub async fn find_engine(&mut self, docker: &Docker) -> Result<(), kiln_builder::Error> {
        if !self.plan.exports.iter().any(|e| e.dest == Dest::Docker) {
            return Ok(());
        }
        let current = docker.current();
        let missing = || kiln_builder::Error::Invalid(format!("docker endpoint for {current:?} not found"));
        let engine = Engine::new(&docker.endpoint(current)?.ok_or_else(missing)?)?;
        engine.ping().await?;
        self.engine = Some(engine);
        Ok(())
    }

    /// Builds on a daemon. `adapt` has the last word about the request. Dropping the future cancels the build.
    ///
    /// # Errors
    /// The build failed, or what was to be done with its result.
    pub async fn solve(
        mut self,
        client: &Client,
        adapt: impl FnOnce(BuildRequest) -> BuildRequest,
        updates: Sender<Update>,
    ) -> Result<SolveResponse, Failed> {
        let remote = RemoteFile::of(&mut self.plan)?;
        if let Some(file) = &remote {
            Box::pin(client.solve(file.request()?, updates.clone())).await.map_err(Failed::Build)?;
            file.check()?;
        }
        let load = self.engine.as_ref().map(Engine::load);
        let writer = load.as_ref().map(|l| l.writer.clone());
        let stdin = StdinInputs { head: self.head, dockerfile: self.dockerfile.as_ref() };
        let request = adapt(request::request(self.plan, stdin, writer)?);
        let solved = Box::pin(client.solve(request, updates.clone())).await;
        match (solved, load) {
            (Ok(response), Some(load)) => {
                let taken = Steps::new(updates).vertex("importing to docker", |_| load.finish()).await;
                taken.map(|_| response).map_err(Failed::Engine)
            }
            // When the engine ended the load, it knows better why.
            (Err(error), Some(load)) => Err(refused(load).await.map_or(Failed::Build(error), Failed::Engine)),
            (solved, None) => solved.map_err(Failed::Build),
        }
    }
}

/// What the engine says of an archive that did not get through, if it is the engine's fault.
async fn refused(load: ImageLoad) -> Option<kiln_builder::Error> {
    tokio::time::timeout(LAST_WORDS, load.refused()).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::args;

    fn docker(vars: Vars<'_>) -> Docker {
        Docker::load(vars, &kiln_builder::Flags::default()).unwrap()
    }

    #[tokio::test]
    async fn an_engine_is_asked_only_for_what_it_is_to_take_and_before_the_build() {
        let dir = tempfile::tempdir().unwrap();
        let vars = |name: &str| match name {
            "DOCKER_HOST" => Some(format!("unix://{}/no.sock", dir.path().display())),
            "DOCKER_CONFIG" => Some(dir.path().display().to_string()),
            _ => None,
        };
        let docker = docker(&vars);
        let job = |flags: &[&str]| Job::new(&args(flags), &vars, &Unsaid::Keep, &docker).unwrap();
        assert!(job(&["-t", "a", "."]).find_engine(&docker).await.is_ok());
        assert!(job(&["--check", "--load", "."]).find_engine(&docker).await.is_ok());
        let error = job(&["-t", "a", "--load", "."]).find_engine(&docker).await.unwrap_err();
        assert!(matches!(error, kiln_builder::Error::NoEngine { .. }), "{error}");
        let text = crate::error::text(&CliError::Engine(Box::new(error)));
        assert!(text.contains("no.sock") && text.contains("hint: "), "{text}");
    }

    #[test]
    fn proxies_of_dockers_configuration_reach_the_steps() {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"proxies":{"default":{"httpProxy":"http://p.example:1"}}}"#;
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let vars = |name: &str| (name == "DOCKER_CONFIG").then(|| dir.path().display().to_string());
        let job = Job::new(&args(&["."]), &vars, &Unsaid::Keep, &docker(&vars)).unwrap();
        assert_eq!(job.plan.attrs["build-arg:HTTP_PROXY"], "http://p.example:1");
    }
}
