//! A network of a sandbox's own in which the daemon listens.
#![allow(missing_docs, clippy::print_stderr)]

mod common;

use common::{Env, drain, run_with, skip, start};
use kiln_sandbox::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;

const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 61080);

/// Answers everybody with what they said.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = [0; 6];
            if stream.read_exact(&mut line).is_ok() {
                let _ = stream.write_all(&line);
            }
        }
    });
}

/// What a process in it can and cannot reach; `PORT` is one of the host's.
const PROBE: &str = "ls /sys/class/net; echo hello | nc 127.0.0.1 61080; \
     nc -w1 127.0.0.1 PORT </dev/null 2>/dev/null || echo nobody else; \
     nc -l -p 61080 -s 127.0.0.1 </dev/null 2>/dev/null || echo taken; \
     nc -l -p 61080 </dev/null 2>/dev/null || echo all taken; \
     wget -T1 -q -O- http://192.0.2.1/ 2>/dev/null || echo no way";

async fn probe(env: &Env, executor: &dyn Executor, id: &str) -> String {
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = PROBE.replace("PORT", &host.local_addr().unwrap().port().to_string());
    let mut spec = env.script(id, &script);
    let (network, listener) = listening_network(AT).await.unwrap();
    echo(listener);
    spec.network = network;
    let out = run_with(executor, spec).await.unwrap();
    host.set_nonblocking(true).unwrap();
    assert!(host.accept().is_err(), "nothing came to the host");
    out.text
}

const FOUND: &str = "lo\nhello\nnobody else\ntaken\nall taken\nno way\n";

#[tokio::test(flavor = "multi_thread")]
async fn root_a_process_reaches_the_daemon_and_nothing_else() {
    if skip("root_a_process_reaches_the_daemon_and_nothing_else") {
        return;
    }
    let env = Env::new().await;
    assert_eq!(probe(&env, &env.launcher, "net").await, FOUND);
    if !Path::new("/usr/sbin/runc").exists() {
        eprintln!("SKIPPED with runc: missing /usr/sbin/runc");
        return;
    }
    let runc = OciRuntime::new("/usr/sbin/runc", &env.state.path().join("oci")).unwrap();
    assert_eq!(probe(&env, &runc, "net-runc").await, FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_those_who_join_share_the_network() {
    if skip("root_those_who_join_share_the_network") {
        return;
    }
    let env = Env::new().await;
    let mut spec = env.script("first", "sleep 1000");
    let (network, listener) = listening_network(AT).await.unwrap();
    echo(listener);
    spec.network = network;
    let (first, _out) = start(&env.launcher, spec).await.unwrap();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    let stdio = Stdio { stdin: null(), stdout: write, stderr: null() };
    let mut program = ProgramSpec::new(
        ["sh", "-c", "echo joined > /dev/null; echo hello | nc 127.0.0.1 61080"].map(String::from).to_vec(),
    );
    program.env = vec!["PATH=/bin".into()];
    let joined = first.join(program, stdio).await.unwrap();
    assert!(joined.wait().await.unwrap().success());
    assert_eq!(drain(read), "hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_networks_are_apart() {
    if skip("root_networks_are_apart") {
        return;
    }
    let (_one, first) = listening_network(AT).await.unwrap();
    let (_two, second) = listening_network(AT).await.unwrap();
    assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
}
