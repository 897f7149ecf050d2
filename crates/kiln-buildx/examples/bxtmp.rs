//! temporary
fn main() -> std::process::ExitCode {
    let hooks = kiln_cli::Hooks {
        run_daemon: |_| std::process::ExitCode::FAILURE,
        in_process: |_| Box::pin(async { Err("no".to_string()) }),
    };
    kiln_buildx::run(std::env::args_os(), hooks)
}
