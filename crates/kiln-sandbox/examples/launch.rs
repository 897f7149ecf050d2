//! Measures how long a trivial step takes, from the call to reaped.
//!
//! `cargo run -p kiln-sandbox --example launch [RUNS] [RUNTIME]` as root; `RUNTIME` (such as `runc`) is measured
//! too when given. The root is an overlay over a directory with busybox.
#![allow(clippy::print_stdout)]

use kiln_sandbox::{Executor, Launcher, LauncherConfig, OciRuntime, ProcessSpec, ProgramSpec, Stdio};
use kiln_sys::mount::{self, OverlayOptions};
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Any<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Any<ExitCode> {
    if let Some(code) = kiln_sandbox::helper_main(std::env::args_os()) {
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
    }
    kiln_sys::mountns::enter_private()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())?;
    Ok(ExitCode::SUCCESS)
}

async fn measure() -> Any<()> {
    let mut args = std::env::args().skip(1);
    let runs: usize = args.next().map_or(Ok(100), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let lower = dir.path().join("lower");
    for name in ["bin", "proc", "sys", "dev"] {
        fs::create_dir_all(lower.join(name))?;
    }
    fs::copy("/bin/busybox", lower.join("bin/true"))?;
    let begin = Instant::now();
    let launcher = Launcher::start(dir.path(), LauncherConfig::default()).await?;
    println!("launcher start            {:>7.2} ms", millis(begin.elapsed()));
    report("launcher", Arc::new(launcher), dir.path(), &lower, runs).await?;
    if let Some(binary) = args.next() {
        let runtime = OciRuntime::new(&binary, &dir.path().join("oci"))?;
        report(&binary, Arc::new(runtime), dir.path(), &lower, runs.min(40)).await?;
    }
    Ok(())
}

async fn report(name: &str, executor: Arc<dyn Executor>, dir: &Path, lower: &Path, runs: usize) -> Any<()> {
    // The first one compiles the seccomp profile.
    once(&*executor, dir, lower, format!("{name}-warm")).await?;
    let mut each = Vec::new();
    for i in 0..runs {
        each.push(once(&*executor, dir, lower, format!("{name}-{i}")).await?);
    }
    print(name, "sequential", &mut each);
    let begin = Instant::now();
    let tasks: Vec<_> = (0..8)
        .map(|worker| {
            let (executor, dir, lower) = (executor.clone(), dir.to_owned(), lower.to_owned());
            let name = name.to_owned();
            tokio::spawn(async move {
                let mut each = Vec::new();
                for i in 0..runs / 8 {
                    each.push(once(&*executor, &dir, &lower, format!("{name}-{worker}-{i}")).await?);
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(each)
            })
        })
        .collect();
    let mut each = Vec::new();
    for task in tasks {
        each.extend(task.await??);
    }
    let per_run = begin.elapsed() / u32::try_from(each.len().max(1))?;
    print(name, "8 at once", &mut each);
    println!("{name:<12} 8 at once    {:>7.2} ms per run overall", millis(per_run));
    Ok(())
}

/// One run; the overlay is made before the clock starts, as a snapshot's mount is.
async fn once(executor: &dyn Executor, dir: &Path, lower: &Path, id: String) -> Any<Duration> {
    let (upper, work) = (dir.join(format!("u-{id}")), dir.join(format!("w-{id}")));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let writable = Some((upper.as_path().into(), work.as_path().into()));
    let root = mount::overlay(&[lower.into()], writable, &OverlayOptions::default())?;
    let mut spec = ProcessSpec::new(id, root, ProgramSpec::new(vec!["true".into()]));
    spec.program.env.push("PATH=/bin".into());
    let null = || File::options().read(true).write(true).open("/dev/null");
    let stdio = Stdio { stdin: null()?.into(), stdout: null()?.into(), stderr: null()?.into() };
    let begin = Instant::now();
    let status = executor.run(spec, stdio).await?.wait().await?;
    let elapsed = begin.elapsed();
    if status.success() { Ok(elapsed) } else { Err(format!("ended with {status:?}").into()) }
}

fn print(name: &str, how: &str, each: &mut [Duration]) {
    each.sort();
    let at = |percent: usize| {
        each.get((each.len() * percent / 100).min(each.len() - 1)).map_or(0.0, |d| millis(*d))
    };
    println!("{name:<12} {how:<12} {:>7.2} ms median, {:.2} min, {:.2} p90", at(50), at(0), at(90));
}

fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1000.0
}
