//! `build`: kiln's build, on the daemon of a builder.

mod args;
mod call;
mod engine;
mod git;
mod load;

use std::path::Path;

use kiln_builder::{BuildRef, Builder, Driver, DriverKind, Engine, LoadedNode, Refs, Steps};
use kiln_cli::build::args::BuildArgs;
use kiln_cli::build::export::Dest;
use kiln_cli::build::metadata::{self, Response};
use kiln_cli::build::plan::{Plan, Stdin, Unsaid};
use kiln_cli::build::request::{self, StdinInputs};
use kiln_cli::build::{context, run};
use kiln_cli::error::CliError;
use kiln_cli::stdin::StdinDockerfile;
use kiln_cli::{printer, progress, stdin};
use kiln_client::{BuildRequest, SolveResponse, new_id};
use kiln_progress::{DisplayOptions, Mode, Warning};
use serde_json::Map;

use crate::commands::say;
use crate::context::{Context, var};
use crate::error::Error;
use crate::flags::Parsed;
use call::Call;

/// A build that was understood, and the builder that is to do it.
struct Job {
    args: BuildArgs,
    call: Option<Call>,
    mode: Mode,
    builder: Builder,
    node: String,
    driver: Driver,
    plan: Plan,
    head: Vec<u8>,
    dockerfile: Option<StdinDockerfile>,
    reference: String,
    /// What an engine is to push.
    pushes: engine::Pushes,
}

/// Builds, shows it, and leaves the results where they were asked for.
pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let mut args = args::build_args(flags);
    args::check(&args)?;
    let call = Call::parse(flags)?;
    let mode = display_mode(&mut args)?;
    args::warn_without_effect(flags);
    args.iidfile.as_deref().map_or(Ok(()), run::remove_stale)?;
    let job = prepare(context, args, call, mode).await?;
    let into = job.engine(context).await?;
    let (options, complaints) = options(job.description());
    complaints.iter().for_each(|c| printer::people(&format!("WARNING: {c}\n")));
    let finish = job.finish();
    let notes = job.plan.warnings.clone();
    let is_kiln = matches!(job.driver, Driver::Kiln(_));
    let (done, warnings) = run::shown(mode, options, &[], |updates| job.work(context, into, updates)).await?;
    // What kiln keeps or not is worth a word only when there is something to keep.
    if mode != Mode::RawJson && (done.is_ok() || !is_kiln) {
        notes.iter().for_each(|note| printer::people(&format!("WARNING: {note}\n")));
    }
    if matches!(mode, Mode::Tty | Mode::Plain | Mode::Auto) {
        printer::people(&warnings_text(&warnings, context.debug));
    }
    finish.leave(&done?, &warnings)
}

/// Looks as the environment says, with a first line; also complaints about the environment.
pub(crate) fn options(description: String) -> (DisplayOptions, Vec<String>) {
    let (mut options, complaints) = progress::options(&var);
    options.description = description;
    (options, complaints)
}

/// `--progress`; `quiet` is the same as `--quiet`.
fn display_mode(args: &mut BuildArgs) -> Result<Mode, Error> {
    if args.quiet && !matches!(args.progress.as_str(), "" | "auto" | "quiet") {
        let mode = &args.progress;
        return Err(Error::Text(format!("progress={mode} and quiet cannot be used together")));
    }
    let known = ["", "auto", "plain", "tty", "rawjson", "quiet", "none"];
    if !known.contains(&args.progress.as_str()) {
        return Err(Error::Text(format!("invalid progress mode {}", args.progress)));
    }
    args.quiet |= args.progress == "quiet";
    Ok(progress::mode(&args.progress, args.quiet, &var)?)
}

async fn prepare(context: &Context, args: BuildArgs, call: Option<Call>, mode: Mode) -> Result<Job, Error> {
    if args.no_cache && !args.no_cache_filter.is_empty() {
        return Err(Error::text(
            "failed to build: --no-cache and --no-cache-filter cannot currently be used together",
        ));
    }
    let mut builder = context.find_usable()?;
    let nodes = context.world.nodes(&mut builder).await?;
    let kind = context.world.driver_kind(&mut builder).await?;
    let (node, driver) = first(nodes)?;
    let unsaid = unsaid(kind, &driver, call.is_some());
    let mut head = Vec::new();
    let mut plan = Plan::new(&args, &var, &unsaid, || {
        head = stdin::head()?;
        Ok(head.clone())
    })
    .map_err(|e| wrap(&args, e))?;
    let pushes = engine::adapt(&driver, &mut plan.exports).await?;
    plan.check_stdout(printer::stdout_is_terminal())?;
    let dockerfile = match plan.stdin {
        Stdin::Dockerfile { empty_context } => Some(stdin::dockerfile(&head, empty_context)?),
        Stdin::Unused | Stdin::Context => None,
    };
    git::add(&args, &mut plan)?;
    args::add_proxies(context, &mut plan);
    if let Some(call) = &call {
        call.add(&mut plan);
    }
    Ok(Job { args, call, mode, builder, node, driver, plan, head, dockerfile, reference: new_id(), pushes })
}

/// What goes wrong with the context is a failed build.
fn wrap(args: &BuildArgs, error: CliError) -> Error {
    match error {
        CliError::File { doing: "build context", path, source }
            if path == Path::new(&args.context) && source.kind() == std::io::ErrorKind::NotFound =>
        {
            Error::Text(format!(
                "failed to build: unable to prepare context: path {:?} not found",
                path.display().to_string()
            ))
        }
        other => Error::Cli(other),
    }
}

/// Builds for one platform need one node; it is the first.
fn first(nodes: Vec<LoadedNode>) -> Result<(String, Driver), Error> {
    let node = nodes.into_iter().next().ok_or_else(|| Error::text("no nodes available"))?;
    let (node, driver) = node.usable()?;
    Ok((node.name, driver))
}

/// What becomes of the result when no flag says it.
fn unsaid(kind: DriverKind, driver: &Driver, is_call: bool) -> Unsaid {
    let set = var("BUILDX_NO_DEFAULT_LOAD").unwrap_or_default();
    let no_load = kiln_dockerfile::csv::parse_bool(&set) == Some(true);
    match kind {
        _ if is_call || (no_load && kind != DriverKind::Kiln) => Unsaid::Nothing,
        DriverKind::Kiln => Unsaid::Keep,
        DriverKind::Docker => Unsaid::Image,
        _ if driver.loads_by_default() => Unsaid::Load,
        kind => Unsaid::Cache(format!(
            "No output specified with {kind} driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load"
        )),
    }
}

/// What is needed when the build is over.
struct Finish {
    args: BuildArgs,
    call: Option<Call>,
    mode: Mode,
    build_ref: String,
}

impl Job {
    fn driver_name(&self) -> &str {
        &self.builder.instance.driver
    }

    /// The first line of the progress: a sentence, or two words where there is a terminal.
    fn description(&self) -> String {
        let name = &self.builder.instance.name;
        match self.mode.resolve(printer::stderr_is_terminal()) {
            Ok(Mode::Tty) => format!("{}:{name}", self.driver_name()),
            _ => format!("building with {name:?} instance using {} driver", self.driver_name()),
        }
    }

    fn finish(&self) -> Finish {
        Finish {
            args: self.args.clone(),
            call: self.call.clone(),
            mode: self.mode,
            build_ref: format!("{}/{}/{}", self.builder.instance.name, self.node, self.reference),
        }
    }

    /// The engine that results are loaded into, if any are. It is asked before anything is built.
    async fn engine(&self, context: &Context) -> Result<Option<Engine>, Error> {
        if !self.plan.exports.iter().any(|e| e.dest == Dest::Docker) {
            return Ok(None);
        }
        let docker = &context.world.docker;
        let endpoint = docker.endpoint(docker.current())?;
        let missing = || Error::Text(format!("docker endpoint for {:?} not found", docker.current()));
        let engine = Engine::new(&endpoint.ok_or_else(missing)?)?;
        match engine.ping().await {
            Ok(()) => Ok(Some(engine)),
            Err(e) => Err(Error::Text(format!(
                "{e}\nhint: there is no Docker Engine to load the image into; name the image with -t and leave --load out, or write it to a file: -o type=docker,dest=FILE"
            ))),
        }
    }

    async fn work(
        self,
        context: &Context,
        into: Option<Engine>,
        updates: tokio::sync::mpsc::Sender<kiln_progress::Update>,
    ) -> Result<SolveResponse, Error> {
        self.remember(context)?;
        let steps = Steps::new(updates.clone());
        let client = self.driver.boot(&steps).await.map_err(Error::BuildOn)?;
        let load = into.as_ref().map(Engine::load);
        let writer = load.as_ref().map(|l| l.writer.clone());
        let stdin = StdinInputs { head: self.head, dockerfile: self.dockerfile.as_ref() };
        let request = request::request(self.plan, stdin, writer)?;
        let request = BuildRequest { reference: self.reference, internal: self.call.is_some(), ..request };
        let request = engine::exporters(&self.driver, request);
        let solved = client.solve(request, updates).await;
        match (solved, load) {
            (Ok(response), Some(load)) => {
                load::finish(load, &steps).await?;
                Ok(response)
            }
            // When the engine ended the load, it knows better why.
            (Err(error), Some(load)) => Err(load::failure(load).await.unwrap_or(Error::Build(error.into()))),
            (Ok(response), None) => {
                engine::push(&self.driver, &self.pushes, &steps).await?;
                Ok(response)
            }
            (Err(error), None) => Err(Error::Build(error.into())),
        }
    }

    /// Notes that the builder is used, and what for.
    fn remember(&self, context: &Context) -> Result<(), Error> {
        context.world.store()?.touch(&self.builder.instance)?;
        if self.call.is_some() {
            return Ok(());
        }
        let whole = |path: &str| match path {
            "-" => path.to_owned(),
            path if context::is_remote(path) => path.to_owned(),
            path => std::path::absolute(path).map_or(path.to_owned(), |p| p.display().to_string()),
        };
        let is_local = self.args.context != "-" && !context::is_remote(&self.args.context);
        let file = self.args.file.clone().unwrap_or_default();
        let build = BuildRef {
            target: "default".into(),
            local_path: whole(&self.args.context),
            dockerfile_path: if is_local && !file.is_empty() { whole(&file) } else { file },
        };
        let refs = Refs::new(&context.world.config);
        Ok(refs.save(&self.builder.instance.name, &self.node, &self.reference, &build)?)
    }
}

impl Finish {
    fn leave(self, response: &SolveResponse, warnings: &[Warning]) -> Result<(), Error> {
        let mut answers: Response = response.exporter_response.clone();
        let Some(call) = self.call else {
            let build_ref = [("buildx.build.ref".to_owned(), self.build_ref.into())];
            let more: Map<_, _> = build_ref.into_iter().collect();
            run::leave_results(&self.args, self.mode, &answers, warnings, more)?;
            // Scripts read a line, even when no image was made.
            let has_id = !metadata::image_id(&answers).is_empty();
            return if self.mode == Mode::Quiet && !has_id { say("\n") } else { Ok(()) };
        };
        let text = |v: &Vec<u8>| String::from_utf8_lossy(v).into_owned();
        answers.extend(response.answer.iter().map(|(k, v)| (k.clone(), text(v))));
        let no_id = BuildArgs { iidfile: None, quiet: false, ..self.args };
        run::leave_results(&no_id, Mode::Plain, &answers, &[], Map::new())?;
        call.print(&answers, &no_id)
    }
}

/// The warnings of a build below its progress.
fn warnings_text(warnings: &[Warning], debug: bool) -> String {
    progress::warnings_text(warnings, debug)
        .replace("(use --debug to expand)", "(use docker --debug to expand)")
}
