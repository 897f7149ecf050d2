//! `--secret` and `--ssh`, progress settings.

use super::{plan, plan_error, vars};
use crate::build::secret::{Secret, SecretSource};
use crate::build::ssh::{self, Ssh};
use crate::progress;
use kiln_progress::Mode;

fn secret(spec: &str) -> SecretSource {
    let Secret { id, source } =
        plan(&["--secret", spec, "."]).unwrap_or_else(|e| panic!("{spec}: {e}")).secrets.remove(0);
    assert!(!id.is_empty());
    source
}

#[test]
fn secrets() {
    let file = |path: &str| SecretSource::File(path.into());
    let env = |name: &str| SecretSource::Env(name.into());
    assert_eq!(secret("id=a,src=b"), file("b"));
    assert_eq!(secret("type=file,ID=a,source=b"), file("b"));
    assert_eq!(secret("id=a,env=B"), env("B"));
    assert_eq!(secret("id=a,type=env,src=B"), env("B"));
    assert_eq!(secret("id=FROM_ENV"), env("FROM_ENV"));
    assert_eq!(secret("id=unset"), file("unset"));
    assert_eq!(secret("id=unset,type=env"), env("unset"));
    assert_eq!(secret("id=FROM_ENV,type=file"), file("FROM_ENV"));
    let cases = [
        ("src=a", "id is missing"),
        ("id=a,srce=b", "unknown key 'srce' (did you mean src?)"),
        ("id=a,type=x", "type 'x' is neither file nor env"),
        ("id=a,src=b,env=c", "src and env exclude each other"),
        ("a", "field 'a' must be key=value"),
    ];
    for (spec, want) in cases {
        let text = plan_error(&["--secret", spec, "."]);
        assert!(
            text.starts_with(&format!("invalid value '{spec}' for --secret: ")) && text.contains(want),
            "{text}"
        );
    }
}

#[test]
fn ssh_agents_and_keys() {
    let parse = |text: &str| ssh::parse(text, vars("SSH_AUTH_SOCK").as_deref()).unwrap();
    let want = |id: &str, paths: &[&str]| Ssh {
        id: id.into(),
        paths: paths.iter().map(Into::into).collect(),
        raw: false,
    };
    assert_eq!(parse("default"), want("default", &["/agent.sock"]));
    assert_eq!(parse("default="), want("default", &["/agent.sock"]));
    assert_eq!(parse("git=/a,/b"), want("git", &["/a", "/b"]));
    let error = ssh::parse("default", None).unwrap_err().to_string();
    assert!(error.starts_with("invalid value 'default' for --ssh: there is no SSH agent"), "{error}");
    assert_eq!(parse("a=/s,raw=true"), Ssh { raw: true, ..want("a", &["/s"]) });
    assert!(ssh::parse("a=raw=true", None).is_err());
}

#[test]
fn progress_modes() {
    let env = |value: &'static str| move |name: &str| (name == "BUILDKIT_PROGRESS").then(|| value.to_owned());
    let none = |_: &str| None;
    assert_eq!(progress::mode("auto", false, &none).unwrap(), Mode::Auto);
    assert_eq!(progress::mode("auto", false, &env("plain")).unwrap(), Mode::Plain);
    assert_eq!(progress::mode("tty", false, &env("plain")).unwrap(), Mode::Tty);
    assert_eq!(progress::mode("auto", true, &env("plain")).unwrap(), Mode::Quiet);
    assert_eq!(
        progress::mode("plain", true, &none).unwrap_err().to_string(),
        "--quiet and --progress plain exclude each other"
    );
    assert_eq!(
        progress::mode("auto", false, &env("x")).unwrap_err().to_string(),
        "invalid value 'x' for $BUILDKIT_PROGRESS: invalid progress mode x: expected auto, tty, plain, rawjson, quiet or none"
    );
}

#[test]
fn progress_looks() {
    let env = |name: &str| {
        let value = match name {
            "BUILDKIT_COLORS" => "run=cyan:x=y",
            "BUILDKIT_TTY_LOG_LINES" => "9",
            "TTY_DISPLAY_RATE" => "50",
            "PROGRESS_NO_TRUNC" => "0",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let (options, problems) = progress::options(&env);
    assert_eq!((options.log_lines, options.rate.as_millis(), options.truncate_names), (9, 50, true));
    assert!(options.colors.is_some() && problems.len() == 1);
    let (options, _) = progress::options(&|name| (name == "NO_COLOR").then(|| "1".to_owned()));
    assert!(options.colors.is_none());
}
