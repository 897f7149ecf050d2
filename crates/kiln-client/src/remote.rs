//! Daemons behind a program: on another machine, in a container, in a pod (spec daemon-and-cli.md section 2).

use std::fmt;

use reqwest::Url;

/// A daemon that is reached by running `buildctl dial-stdio` beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    kind: Kind,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Ssh { user: String, host: String, port: Option<u16>, socket: String },
    Docker { container: String, context: String },
    Podman { container: String },
    Nerdctl { container: String, namespace: String },
    Kube { pod: String, namespace: String, container: String, context: String },
}

impl Remote {
    /// Reads `ssh://`, `docker-container://`, `podman-container://`, `nerdctl-container://` and `kube-pod://`; None for
    /// other schemes. The error says which part is wrong.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let scheme = text.split("://").next().unwrap_or_default();
        if !["ssh", "docker-container", "podman-container", "nerdctl-container", "kube-pod"].contains(&scheme)
        {
            return Ok(None);
        }
        let url = Url::parse(text);
        // Without a host the crate has its own words.
        let named = |url: Option<&Url>, lacks: &str| match url.and_then(Url::host_str) {
            None | Some("") => Err(lacks.to_string()),
            Some(name) if name.starts_with('-') => Err(format!("unsupported name: {name:?}")),
            Some(name) => Ok(name.to_string()),
        };
        let lacks = match scheme {
            "ssh" => "no host specified",
            "kube-pod" => "url lacks pod name",
            _ => "url lacks container name",
        };
        let name = match &url {
            Err(e) if e.to_string() != "empty host" => return Err(e.to_string()),
            url => named(url.as_ref().ok(), lacks)?,
        };
        let url = url.map_err(|e| e.to_string())?;
        let query = |key: &str| {
            url.query_pairs().find(|(k, _)| k == key).map(|(_, v)| v.into_owned()).unwrap_or_default()
        };
        let kind = match scheme {
            "ssh" => ssh(&url, name)?,
            "docker-container" => Kind::Docker { container: name, context: query("context") },
            "podman-container" => Kind::Podman { container: name },
            "nerdctl-container" => Kind::Nerdctl { container: name, namespace: query("namespace") },
            _ => kube(name, query("namespace"), query("container"), query("context"))?,
        };
        Ok(Some(Self { kind, text: text.to_string() }))
    }

    /// The program and its arguments.
    pub fn command(&self) -> (&'static str, Vec<String>) {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        const DIAL: [&str; 2] = ["buildctl", "dial-stdio"];
        match &self.kind {
            Kind::Ssh { user, host, port, socket } => {
                let mut args = Vec::new();
                if !user.is_empty() {
                    args.extend(words(&["-l", user]));
                }
                if let Some(port) = port {
                    args.extend(words(&["-p", &port.to_string()]));
                }
                args.extend(words(&["--", host, "buildctl"]));
                if !socket.is_empty() {
                    args.extend(words(&["--addr", &format!("unix://{socket}")]));
                }
                args.push("dial-stdio".into());
                ("ssh", args)
            }
            Kind::Docker { container, context } => {
                let mut args = Vec::new();
                if !context.is_empty() {
                    args.push(format!("--context={context}"));
                }
                args.extend(words(&["exec", "-i", container]));
                args.extend(words(&DIAL));
                ("docker", args)
            }
            Kind::Podman { container } => {
                ("podman", [words(&["exec", "-i", container]), words(&DIAL)].concat())
            }
            Kind::Nerdctl { container, namespace } => {
                let mut args = words(&["exec"]);
                if !namespace.is_empty() {
                    args.extend(words(&["--namespace", namespace]));
                }
                args.extend(words(&["-i", container]));
                args.extend(words(&DIAL));
                ("nerdctl", args)
            }
            Kind::Kube { pod, namespace, container, context } => {
                let mut args =
                    vec![format!("--context={context}"), format!("--namespace={namespace}"), "exec".into()];
                args.push(format!("--container={container}"));
                args.extend(words(&["-i", pod, "--"]));
                args.extend(words(&DIAL));
                ("kubectl", args)
            }
        }
    }

    pub(crate) fn host(&self) -> &str {
        match &self.kind {
            Kind::Ssh { host, .. } => host,
            Kind::Docker { container, .. } | Kind::Podman { container } | Kind::Nerdctl { container, .. } => {
                container
            }
            Kind::Kube { pod, .. } => pod,
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn ssh(url: &Url, host: String) -> Result<Kind, String> {
    if url.password().is_some() {
        return Err("plain-text password is not supported".into());
    }
    if let Some(query) = url.query().filter(|q| !q.is_empty()) {
        return Err(format!("extra query after the host: {query:?}"));
    }
    if let Some(fragment) = url.fragment().filter(|f| !f.is_empty()) {
        return Err(format!("extra fragment after the host: {fragment:?}"));
    }
    let socket = url.path().to_string();
    Ok(Kind::Ssh { user: url.username().to_string(), host, port: url.port(), socket })
}

fn kube(pod: String, namespace: String, container: String, context: String) -> Result<Kind, String> {
    let is_name =
        |s: &str| s.chars().all(|c| c == '-' || c == '.' || c.is_ascii_lowercase() || c.is_ascii_digit());
    for (what, name) in [("namespace", &namespace), ("pod", &pod), ("container", &container)] {
        if !is_name(name) {
            return Err(format!("unsupported {what} name: {name:?}"));
        }
    }
    Ok(Kind::Kube { pod, namespace, container, context })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> String {
        let (program, args) = Remote::parse(text).unwrap().unwrap().command();
        format!("{program} {}", args.join(" "))
    }

    #[test]
    fn every_scheme_has_its_program() {
        for (text, expected) in [
            ("ssh://foo", "ssh -- foo buildctl dial-stdio"),
            (
                "ssh://me@foo:10022/s/b.sock",
                "ssh -l me -p 10022 -- foo buildctl --addr unix:///s/b.sock dial-stdio",
            ),
            ("docker-container://c", "docker exec -i c buildctl dial-stdio"),
            ("docker-container://c?context=x", "docker --context=x exec -i c buildctl dial-stdio"),
            ("podman-container://c", "podman exec -i c buildctl dial-stdio"),
            ("nerdctl-container://c?namespace=n", "nerdctl exec --namespace n -i c buildctl dial-stdio"),
            (
                "kube-pod://p?container=c&namespace=n&context=u@k",
                "kubectl --context=u@k --namespace=n exec --container=c -i p -- buildctl dial-stdio",
            ),
        ] {
            assert_eq!(command(text), expected);
        }
        assert_eq!(Remote::parse("other://x"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("ssh://me:passw0rd@foo", "plain-text password is not supported"),
            ("ssh://foo?bar", "extra query after the host: \"bar\""),
            ("ssh://foo#bar", "extra fragment after the host: \"bar\""),
            ("ssh://", "no host specified"),
            ("docker-container://", "url lacks container name"),
            ("docker-container://-v", "unsupported name: \"-v\""),
            ("podman-container://", "url lacks container name"),
            ("nerdctl-container://?namespace=n", "url lacks container name"),
            ("kube-pod://", "url lacks pod name"),
            ("kube-pod://a_b", "unsupported pod name: \"a_b\""),
            ("kube-pod://p?container=a_b", "unsupported container name: \"a_b\""),
            ("kube-pod://p?namespace=a_b", "unsupported namespace name: \"a_b\""),
        ] {
            assert_eq!(Remote::parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
