//! The environment of a step.

use kiln_llb::{ExecMeta, ProxyEnv};

/// `PATH` of a step whose image sets none (spec llb-and-solver.md section 2).
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The step's variables in the order BuildKit gives them: its own, the proxy's in both cases, `PATH` where there is
/// none, then secrets.
pub(crate) fn environment(meta: &ExecMeta, secrets: Vec<(String, String)>) -> Vec<String> {
    let mut env = meta.env.clone();
    if let Some(proxy) = &meta.proxy_env {
        env.extend(proxy_variables(proxy));
    }
    if !env.iter().any(|v| v.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    env.extend(secrets.into_iter().map(|(name, value)| format!("{name}={value}")));
    env
}

fn proxy_variables(p: &ProxyEnv) -> impl Iterator<Item = String> {
    let all = [
        ("HTTP_PROXY", &p.http_proxy),
        ("HTTPS_PROXY", &p.https_proxy),
        ("FTP_PROXY", &p.ftp_proxy),
        ("NO_PROXY", &p.no_proxy),
        ("ALL_PROXY", &p.all_proxy),
    ];
    let set = all.into_iter().filter(|(_, v)| !v.is_empty());
    set.flat_map(|(k, v)| [format!("{k}={v}"), format!("{}={v}", k.to_lowercase())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_in_both_cases_and_a_path_is_never_missing() {
        let proxy = ProxyEnv { http_proxy: "http://p".into(), ..ProxyEnv::default() };
        let meta = ExecMeta { env: vec!["A=b".into()], proxy_env: Some(proxy), ..ExecMeta::default() };
        let env = environment(&meta, vec![("S".into(), "x".into())]);
        assert_eq!(
            env,
            ["A=b", "HTTP_PROXY=http://p", "http_proxy=http://p", &format!("PATH={DEFAULT_PATH}"), "S=x"]
        );
    }
}
