//! Steps whose only way out is the daemon's proxy.

mod common;
#[path = "common/exec.rs"]
mod exec;
#[path = "common/http.rs"]
mod http;
#[path = "common/gateway.rs"]
mod raw;

use common::World;
use exec::{Stream, begin};
use http::Web;
use kiln_testkit::{Image, Layer, Need, Output, busybox, require};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;

const PROXIED: &[&str] = &["--proxy-network"];
/// Programs do not ask the proxy about this machine, unless they are told to forget it.
const FETCH: &str = "NO_PROXY= no_proxy= wget -q -O-";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

fn world() -> Option<(World, Web)> {
    Some((common::world()?, Web::start()))
}

#[test]
fn what_a_step_fetches_is_said_without_credentials_root() {
    let Some((w, web)) = world() else { return };
    w.env.write("secret", "canary");
    let secret = format!("id=s,src={}", w.env.path().join("secret").display());
    let steps = format!(
        "RUN --mount=type=secret,id=s S=$(cat /run/secrets/s) && {FETCH} \"{}?a=b&token=$S\" > /out && \
         {FETCH} http://u:$S@127.0.0.1:{}/two >> /out",
        web.url("/one"),
        web.port()
    );
    let dockerfile = format!("FROM busybox\n{steps}\nRUN cat /out");
    let out = w.build(&dockerfile, &["--proxy-network", "--secret", &secret]).success().stderr;
    assert!(out.contains("proxy network requests:"), "{out}");
    assert!(out.contains(&format!("- GET {}?a=b&token=xxxxx -> 200", web.url("/one"))), "{out}");
    assert!(out.contains("this is /two"), "{out}");
    let said = out.replace("this is /one?a=b&token=canary", "");
    assert!(!said.contains("canary"), "{said}");
    assert!(!w.daemon.as_ref().unwrap().log().contains("canary"));
    let asked = web.asked();
    assert!(asked[0].starts_with("GET /one?a=b&token=canary HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[1].contains("Authorization: Basic dTpjYW5hcnk=\r\n"), "{asked:?}");
}

#[test]
fn there_is_no_other_way_out_root() {
    let Some((w, web)) = world() else { return };
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let steps = format!(
        "RUN exec > /out && ls /sys/class/net && env | grep -ic proxy=http://127.0.0.1: && \
         ! (echo x | nc -w2 127.0.0.1 {tcp_port}) 2>/dev/null && \
         ! timeout 2 tftp -g -r x 127.0.0.1 {udp_port} 2>/dev/null && \
         ! env -u http_proxy wget -T2 -q -O- {url} 2>/dev/null && \
         ! env -u http_proxy wget -T2 -q -O- http://192.0.2.1/ 2>/dev/null && \
         {FETCH} {url} && echo done\n\
         RUN --network=none ! env | grep -i proxy && ! wget -T2 -q -O- {url} 2>/dev/null",
        url = web.url("/x")
    );
    assert_eq!(w.out(&steps, PROXIED), "lo\n4\nthis is /x\ndone\n");
    assert_eq!(web.asked().len(), 1);
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    assert!(tcp.accept().is_err() && udp.recv(&mut [0; 16]).is_err(), "something came through");
}

/// The step's own names are its own: what the proxy looks up is what the daemon's network calls so.
#[test]
fn names_are_looked_up_by_the_daemon_only_root() {
    let Some((w, web)) = world() else { return };
    let steps = format!(
        "RUN exec > /out 2>&1 && cat /etc/hosts | grep -c inside.invalid && ! nslookup localhost.example && \
         {FETCH} http://localhost:{port}/known && ! wget -S -O- http://inside.invalid:{port}/hidden",
        port = web.port()
    );
    let out = w.out(&steps, &["--proxy-network", "--add-host", "inside.invalid:127.0.0.1"]);
    assert!(out.starts_with("1\n") && out.contains("this is /known"), "{out}");
    assert!(out.contains("HTTP/1.1 502 Bad Gateway"), "{out}");
    assert_eq!(web.asked().len(), 1);
}

fn with_policy(w: &World, dockerfile: &str, rules: &str) -> Output {
    w.context("Dockerfile", dockerfile);
    let policy = w.env.write("policy.json", format!("{{\"rules\": [{rules}]}}"));
    let mut command = w.env.command(&["build", "--progress", "plain", "--proxy-network", "--no-cache", "."]);
    let out = command.env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", policy).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { status: out.status.code().unwrap_or(-1), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

/// A step that writes a request itself, and does not end its side before it has the answer: that would withdraw it.
fn asks_and_is_refused(request: &str) -> String {
    format!(
        "FROM busybox\nRUN mkfifo /f; nc 127.0.0.1 61080 </f >/answer & exec 3>/f; \
         printf '{request} HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n' >&3; wait; grep 403 /answer"
    )
}

#[test]
fn source_policies_decide_about_every_request_root() {
    let Some((w, web)) = world() else { return };
    let deny = format!(
        "{{\"action\": \"DENY\", \"selector\": {{\"identifier\": \"{}\", \"match_type\": \"WILDCARD\"}}}}",
        web.url("/*")
    );
    // Another spelling is the same address.
    for path in ["/secret", "/a/%2e%2e/secret"] {
        let url = web.url(path).replace("http://", "HTTP://u@");
        let out = with_policy(&w, &asks_and_is_refused(&format!("GET {url}")), &deny).success().stderr;
        assert!(out.contains("-> 403 (source \""), "{out}");
    }
    let fetch = |path: &str| format!("FROM busybox\nRUN {FETCH} {}", web.url(path));
    let _ = with_policy(&w, &fetch("/secret"), &deny).failure();
    assert!(web.asked().is_empty(), "{:?}", web.asked());
    let convert = format!(
        "{{\"action\": \"CONVERT\", \"selector\": {{\"identifier\": \"{}\"}}, \"updates\": {{\"identifier\": \"{}\"}}}}",
        web.url("/old"),
        web.url("/new")
    );
    let out = with_policy(&w, &fetch("/old"), &convert).success().stderr;
    assert!(
        out.contains("this is /new") && out.contains(&format!("- GET {} -> 200", web.url("/new"))),
        "{out}"
    );
    let post = asks_and_is_refused(&format!("POST {}", web.url("/old")));
    let out = with_policy(&w, &post, &convert).success().stderr;
    assert!(out.contains("-> 403 (a policy replaces it"), "{out}");
    assert_eq!(web.asked().len(), 1);
}

#[test]
fn what_was_made_without_the_proxy_is_made_again_root() {
    let Some((w, web)) = world() else { return };
    // Without a proxy there is one, which is the server itself.
    let dockerfile = format!("FROM busybox\nRUN {FETCH} {} > /x", web.url("/x"));
    for (args, requests) in [(&[][..], 1), (&[], 1), (PROXIED, 2), (PROXIED, 2), (&[], 2)] {
        let _ = w.build(&dockerfile, args).success();
        assert_eq!(web.asked().len(), requests, "{args:?}");
    }
}

/// The files of one step's layer are the same with and without the proxy.
#[test]
fn the_certificate_leaves_no_trace_root() {
    let Some((w, _web)) = world() else { return };
    let layer = busybox().dir("etc/ssl", 0o755).dir("etc/ssl/certs", 0o755).file(BUNDLE, 0o644, "theirs\n");
    w.registry.add("library/trusting", "latest", &Image::new(layer));
    let dockerfile = |test: &str| {
        format!(
            "FROM trusting\nRUN {test} && tail -n1 /{BUNDLE} && echo x > /x && touch -d '2020-01-01 00:00:00' /x"
        )
    };
    let layers = |name: &str, test: &str, args: &[&str]| {
        let to = w.env.path().join(name);
        let output = format!("type=oci,tar=false,dest={}", to.display());
        let out = w.build(&dockerfile(test), &[args, &["--output", &output]].concat()).success().stderr;
        let json = |path: &str| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(to.join(path)).unwrap()).unwrap()
        };
        let blob = |digest: &serde_json::Value| {
            json(&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/")))
        };
        let manifest = blob(&json("index.json")["manifests"][0]["digest"]);
        (manifest["layers"].clone(), out)
    };
    let (proxied, out) =
        layers("with", "grep -q 'buildkit proxy CA begin' /etc/ssl/certs/ca-certificates.crt", PROXIED);
    assert!(out.contains("# buildkit proxy CA end"), "{out}");
    let (plain, _) = layers("without", "true", &[]);
    assert_eq!((proxied.as_array().unwrap().len(), proxied), (2, plain));
}

#[test]
fn steps_may_write_the_trusted_certificates_root() {
    let Some((w, _web)) = world() else { return };
    let layer = busybox().dir("etc/ssl", 0o755).dir("etc/ssl/certs", 0o755).file(BUNDLE, 0o644, "theirs\n");
    w.registry.add("library/trusting", "latest", &Image::new(layer));
    let dockerfile = format!(
        "FROM trusting AS work\nRUN cp /{BUNDLE} /new && echo mine >> /new && mv /new /{BUNDLE}\n\
         FROM scratch\nCOPY --from=work /{BUNDLE} /out\n"
    );
    let dir = w.build_to_dir(&dockerfile, PROXIED);
    assert_eq!(std::fs::read_to_string(dir.join("out")).unwrap(), "theirs\nmine\n");
}

#[test]
fn many_requests_at_once_root() {
    let Some((w, web)) = world() else { return };
    let steps = format!(
        "RUN for n in $(seq 300); do {FETCH} {}$n > /tmp/$n & done; wait; cat /tmp/* | sort -u | wc -l > /out",
        web.url("/")
    );
    assert_eq!(w.out(&steps, PROXIED), "300\n");
    assert_eq!(web.asked().len(), 300);
}

#[test]
fn a_step_cannot_harm_the_proxy_root() {
    let Some((w, web)) = world() else { return };
    let steps = format!(
        "RUN head -c 1000000 /dev/urandom | nc -w1 127.0.0.1 61080 >/dev/null 2>&1; \
         yes | head -c 10000000 | nc -w1 127.0.0.1 61080 >/dev/null 2>&1; \
         for n in $(seq 200); do nc 127.0.0.1 61080 </dev/zero >/dev/null 2>&1 & done; \
         {FETCH} {} > /out",
        web.url("/still")
    );
    assert_eq!(w.out(&steps, PROXIED), "this is /still\n");
    let _ = w.build("FROM busybox\nRUN echo after", PROXIED).success();
}

#[test]
fn a_cancelled_step_lets_go_of_a_hanging_download_root() {
    let Some((w, web)) = world() else { return };
    w.context("Dockerfile", format!("FROM busybox\nRUN {FETCH} {}", web.url("/hang")));
    let mut command = w.env.command(&["build", "--progress", "plain", "--proxy-network", "."]);
    let mut build = command.stderr(Stdio::piped()).spawn().unwrap();
    web.reached();
    let _ = std::process::Command::new("kill").args(["-INT", &build.id().to_string()]).status();
    web.abandoned();
    let mut said = String::new();
    build.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!build.wait().unwrap().success());
    let _ = w.build("FROM busybox\nRUN echo after", PROXIED).success();
}

/// A program with TLS of its own, and the libraries that it needs.
fn with_curl() -> Option<Layer> {
    if !require(&[Need::Program("curl"), Need::Program("ldd"), Need::Program("openssl")]) {
        return None;
    }
    let curl = kiln_testkit::find_program("curl")?;
    let list = std::process::Command::new("ldd").arg(&curl).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_string);
    let mut layer = busybox().dir("etc/ssl", 0o755).dir("etc/ssl/certs", 0o755).file(BUNDLE, 0o644, "");
    for path in libraries.chain([curl.to_str()?.to_string()]) {
        layer = layer.file(path.trim_start_matches('/'), 0o755, std::fs::read(&path).unwrap());
    }
    Some(layer)
}

#[test]
fn tls_is_looked_into_with_a_certificate_that_programs_trust_root() {
    let Some(mut w) = common::world_without_daemon() else { return };
    let Some(layer) = with_curl() else { return };
    w.registry.add("library/curl", "latest", &Image::new(layer));
    let (key, cert) = (w.env.path().join("key.pem"), w.env.path().join("cert.pem"));
    let config = "[req]\ndistinguished_name = dn\nx509_extensions = ext\n[dn]\n\
                  [ext]\nsubjectAltName = DNS:localhost\nbasicConstraints = critical,CA:FALSE\n";
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-config"])
        .arg(w.env.write("req.cnf", config))
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-WWW", "-accept", "127.0.0.1:0", "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&cert)
        .current_dir(w.env.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    w.env.write("file", "over TLS\n");
    let port = listening_port(server.id());
    let config = w.env.path().join("kiln.toml");
    let args = ["--config", config.to_str().unwrap()];
    w.daemon = Some(w.env.daemon_with(&args, &[("SSL_CERT_FILE", cert.to_str().unwrap())]));
    let url = format!("https://localhost:{port}/file");
    let dockerfile = format!("FROM curl\nRUN NO_PROXY= no_proxy= curl -sS --fail -i {url}");
    let out = w.build(&dockerfile, PROXIED);
    let _ = server.kill();
    let _ = server.wait();
    let out = out.success().stderr;
    assert!(out.contains("over TLS") && out.contains(&format!("- GET {url} -> 200")), "{out}");
}

/// The port that a process listens on.
fn listening_port(pid: u32) -> u16 {
    let mut found = None;
    kiln_testkit::wait_until("a server that listens", || {
        let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.to_string()))
            .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_string()))
            .collect();
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
        // sl local_address rem_address st ... inode; 0A is listening (proc_net_tcp.rst).
        found = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).find_map(|f| {
            let own = f.get(3) == Some(&"0A") && sockets.iter().any(|s| f.get(9) == Some(&s.as_str()));
            if own { u16::from_str_radix(f[1].rsplit_once(':')?.1, 16).ok() } else { None }
        });
        found.is_some()
    });
    found.unwrap()
}

#[tokio::test]
async fn a_daemon_can_proxy_all_builds_and_their_containers_root() {
    let Some(mut w) = common::world_without_daemon() else { return };
    let web = Web::start();
    let config = std::fs::read_to_string(w.env.path().join("kiln.toml")).unwrap();
    w.env.write("kiln.toml", format!("proxyNetwork = true\n{config}"));
    w.start();
    let (mut bridge, build) = begin(&w, "proxied").await;
    let mut stream = Stream::open(&mut bridge).await;
    let fetch = format!("ls /sys/class/net; {FETCH} {}", web.url("/x"));
    stream.start("first", "c", &format!("{fetch}; echo ready; sleep 1000"), &[1]).await;
    assert_eq!(stream.wait_for("first", "ready\n").await, "lo\nthis is /x\nready\n");
    let joined = stream
        .sh("c", &format!("{fetch}; env -u http_proxy wget -T2 -q -O- {} || echo none", web.url("/y")))
        .await;
    assert_eq!(joined.text(), "lo\nthis is /x\nnone\n");
    assert_eq!(web.asked().len(), 2);
    drop((stream, bridge));
    build.abort();
    let out = w.build(&format!("FROM busybox\nRUN {FETCH} {}", web.url("/z")), &[]).success().stderr;
    assert!(out.contains("proxy network requests:"), "{out}");
}

#[test]
fn runtimes_have_the_proxied_network_too_root() {
    let Some(mut w) = common::world_without_daemon() else { return };
    if !require(&[Need::Program("runc")]) {
        return;
    }
    let web = Web::start();
    w.start_with(&["--oci-worker-binary", "runc"]);
    let steps = format!("RUN ls /sys/class/net > /out && {FETCH} {} >> /out", web.url("/x"));
    assert_eq!(w.out(&steps, PROXIED), "lo\nthis is /x\n");
}
