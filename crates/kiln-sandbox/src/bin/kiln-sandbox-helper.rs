//! The sandbox helper alone, for tests and measurements. The daemon re-executes its own binary instead.

fn main() -> std::process::ExitCode {
    match kiln_sandbox::helper_main(std::env::args_os()) {
        Some(code) => std::process::ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => std::process::ExitCode::from(2),
    }
}
