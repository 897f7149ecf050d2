//! `build`: kiln's build, on the daemon of a builder.

mod args;
mod engine;

use std::path::Path;

use kiln_builder::{BuildRef, Builder, Driver, DriverKind, LoadedNode, Refs, Steps};
use kiln_cli::build::args::BuildArgs;
use kiln_cli::build::call::Call;
use kiln_cli::build::job::{self, Failed};
use kiln_cli::build::plan::Unsaid;
use kiln_cli::build::{context, metadata, run};
use kiln_cli::error::CliError;
use kiln_cli::{printer, progress};
use kiln_client::{BuildRequest, SolveResponse, new_id};
use kiln_progress::{DisplayOptions, Mode, Warning};
use serde_json::Map;

use crate::commands::say;
use crate::context::{Context, var};
use crate::error::Error;
use crate::flags::Parsed;

/// A build that was understood, and the builder that is to do it.
struct Job {
    args: BuildArgs,
    mode: Mode,
    builder: Builder,
    node: String,
    driver: Driver,
    build: job::Job,
    reference: String,
    /// What an engine is to push.
    pushes: engine::Pushes,
}

/// Builds, shows it, and leaves the results where they were asked for.
pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let mut args = args::build_args(flags);
    args::check(&args)?;
    let mode = display_mode(&mut args)?;
    args::warn_without_effect(flags);
    args.iidfile.as_deref().map_or(Ok(()), run::remove_stale)?;
    let job = prepare(context, args, mode).await?;
    let (options, complaints) = options(job.description());
    complaints.iter().for_each(|c| printer::people(&format!("WARNING: {c}\n")));
    let finish = job.finish();
    let notes = job.build.plan.warnings.clone();
    let is_kiln = matches!(job.driver, Driver::Kiln(_));
    let (done, warnings) = run::shown(mode, options, &[], |updates| job.work(context, updates)).await?;
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

async fn prepare(context: &Context, args: BuildArgs, mode: Mode) -> Result<Job, Error> {
    if args.no_cache && !args.no_cache_filter.is_empty() {
        return Err(Error::text(
            "failed to build: --no-cache and --no-cache-filter cannot currently be used together",
        ));
    }
    let mut builder = context.find_usable()?;
    let nodes = context.world.nodes(&mut builder).await?;
    let kind = context.world.driver_kind(&mut builder).await?;
    let (node, driver) = first(nodes)?;
    let unsaid = unsaid(kind, &driver);
    let docker = &context.world.docker;
    let mut build = job::Job::new(&args, &var, &unsaid, docker).map_err(|e| wrap(&args, e))?;
    let pushes = engine::adapt(&driver, &mut build.plan.exports).await?;
    build.find_engine(docker).await.map_err(CliError::from)?;
    Ok(Job { args, mode, builder, node, driver, build, reference: new_id(), pushes })
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
fn unsaid(kind: DriverKind, driver: &Driver) -> Unsaid {
    let set = var("BUILDX_NO_DEFAULT_LOAD").unwrap_or_default();
    let no_load = kiln_go::parse_bool(&set) == Some(true);
    match kind {
        _ if no_load && kind != DriverKind::Kiln => Unsaid::Nothing,
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
            call: self.build.plan.call.clone(),
            mode: self.mode,
            build_ref: format!("{}/{}/{}", self.builder.instance.name, self.node, self.reference),
        }
    }

    async fn work(
        self,
        context: &Context,
        updates: tokio::sync::mpsc::Sender<kiln_progress::Update>,
    ) -> Result<SolveResponse, Error> {
        self.remember(context)?;
        let steps = Steps::new(updates.clone());
        let client = self.driver.boot(&steps).await.map_err(Error::BuildOn)?;
        let Self { build, driver, reference, pushes, .. } = self;
        let adapt = |request| engine::exporters(&driver, BuildRequest { reference, ..request });
        let solved = build.solve(&client, adapt, updates).await.map_err(|failed| match failed {
            Failed::Here(error) => Error::Cli(error),
            Failed::Build(error) => Error::Build(error.into()),
            Failed::Engine(error) => Error::BuildOn(error),
        })?;
        engine::push(&driver, &pushes, &steps).await?;
        Ok(solved)
    }

    /// Notes that the builder is used, and what for.
    fn remember(&self, context: &Context) -> Result<(), Error> {
        context.world.store()?.touch(&self.builder.instance)?;
        if self.build.plan.call.is_some() {
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
        if let Some(call) = self.call {
            return Ok(call.leave(&self.args, response)?);
        }
        let answers = &response.exporter_response;
        let build_ref = [("buildx.build.ref".to_owned(), self.build_ref.into())];
        let more: Map<_, _> = build_ref.into_iter().collect();
        run::leave_results(&self.args, self.mode, answers, warnings, more)?;
        // Scripts read a line, even when no image was made.
        let has_id = !metadata::image_id(answers).is_empty();
        if self.mode == Mode::Quiet && !has_id { say("\n") } else { Ok(()) }
    }
}

/// The warnings of a build below its progress.
fn warnings_text(warnings: &[Warning], debug: bool) -> String {
    progress::warnings_text(warnings, debug)
        .replace("(use --debug to expand)", "(use docker --debug to expand)")
}
