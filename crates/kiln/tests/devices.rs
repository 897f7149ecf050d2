//! What steps may do beyond the usual: devices of the machine, also in graphs that steps write.
#![allow(clippy::print_stderr, reason = "skipped tests say so")]

mod common;
#[path = "common/gateway.rs"]
mod raw;

use common::World;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{ListWorkersRequest, SolveRequest};
use kiln_proto::pb;
use kiln_proto::sourcepolicy::{Policy, PolicyAction, Rule, Selector};
use prost::Message as _;
use raw::{Client, Graph};
use std::os::unix::fs::PermissionsExt;

const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: "v.com/d"
containerEdits:
  env: [ALL=1]
devices:
- name: nothing
  containerEdits:
    env: [NOTHING=injected, PATH=/bin]
    additionalGIDs: [4242]
    deviceNodes: [{path: /dev/nothing, hostPath: /dev/null}]
    mounts:
    - {hostPath: HOST/ro, containerPath: /given/ro, options: [ro, bind]}
    - {hostPath: HOST/rw, containerPath: /given/rw, options: [bind]}
- name: log
  containerEdits: {deviceNodes: [{path: /devices/log, hostPath: /dev/kmsg, fileMode: 0o600}]}
- name: free
  annotations: {org.mobyproject.buildkit.device.autoallow: true, org.mobyproject.buildkit.device.class: gratis}
  containerEdits: {env: [FREE=injected]}
- name: bad-hook
  containerEdits: {hooks: [{hookName: createRuntime, path: HOST/hook, args: [hook, no-such-command]}]}
- name: eth
  containerEdits: {netDevices: [{hostInterfaceName: eth1, name: net1}]}
- name: read-only
  containerEdits: {deviceNodes: [{path: /dev/f, hostPath: /dev/fuse, fileMode: 0o666, permissions: r}]}
"#;

/// As `nvidia-ctk cdi generate` writes it, with other files behind its names.
const GPU: &str = r#"
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  deviceNodes:
  - {path: /dev/nvidia-modeset, hostPath: /dev/null}
  - {path: /dev/nvidiactl, hostPath: /dev/null}
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args: [nvidia-cdi-hook, create-symlinks, --link, 'libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so']
    env: [NVIDIA_CTK_DEBUG=false]
    hookName: createContainer
    path: HOST/hook
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib/x86_64-linux-gnu]
    env: [NVIDIA_CTK_DEBUG=false]
    hookName: createContainer
    path: HOST/hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.1
    hostPath: HOST/ro/file
    options: [ro, nosuid, nodev, rbind, rprivate]
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: /dev/null}
    - {path: /dev/dri/card1, hostPath: /dev/null}
    hooks:
    - args: [nvidia-cdi-hook, create-symlinks, --link, '../card1::/dev/dri/by-path/pci-0000:01:00.0-card']
      hookName: createContainer
      path: HOST/hook
    - {args: [nvidia-cdi-hook, chmod, --mode, '750', --path, /dev/dri], hookName: createContainer, path: HOST/hook}
"#;

/// What nvidia-cdi-hook does with the root, which it finds as that does.
const HOOK: &str = r#"#!/bin/sh
set -e
bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
root=$(sed 's/.*"root":{[^}]*"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
case $1 in
create-symlinks)
    link=${3##*::}
    mkdir -p "$(dirname "$root$link")"
    ln -sf "${3%%::*}" "$root$link" ;;
update-ldcache) echo "$3" > "$root/etc/ld.so.cache" ;;
chmod) chmod "$3" "$root$5" ;;
*) echo "$0: unknown command $1" >&2; exit 4 ;;
esac
"#;

/// A daemon that offers the devices; `None` where builds cannot run.
fn world() -> Option<World> {
    let mut world = common::world_without_daemon()?;
    for dir in ["ro", "rw", "cdi"] {
        std::fs::create_dir_all(world.env.path().join("host").join(dir)).unwrap();
    }
    world.env.write("host/ro/file", "of the host");
    let host = world.env.path().join("host");
    for (name, text) in [("v.yaml", SPEC), ("nvidia.yaml", GPU)] {
        world.env.write(&format!("host/cdi/{name}"), text.replace("HOST", host.to_str().unwrap()));
    }
    world.env.write("host/hook", HOOK);
    std::fs::set_permissions(host.join("hook"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = std::fs::read_to_string(world.env.path().join("kiln.toml")).unwrap();
    world.env.write("kiln.toml", format!("{config}[cdi]\nspecDirs = [{:?}]\n", host.join("cdi")));
    world.start();
    Some(world)
}

/// `RUN --device` is one of the experiments.
const LABS: &str = "--build-arg=BUILDKIT_SYNTAX=docker/dockerfile:1-labs";

fn host(world: &World) -> impl Fn(&str) -> String + use<'_> {
    |path| std::fs::read_to_string(world.env.path().join("host").join(path)).unwrap_or_default()
}

#[test]
fn a_step_is_given_what_its_devices_say_root() {
    let Some(world) = world() else { return };
    let steps = "RUN --device=v.com/d=nothing,required --device=no.com/d=such \
                 exec > /out && set -e && echo $ALL $NOTHING $PATH && id -G && stat -c %F,%t:%T,%a /dev/nothing && \
                 echo x > /dev/nothing && cat /given/ro/file && ! touch /given/ro/x && echo written > /given/rw/file && \
                 mknod /mem c 1 1 && ! head -c1 /mem 2>/dev/null && ! head -c1 /dev/kmsg 2>/dev/null && rm /mem\n\
                 RUN test ! -e /given && test ! -e /dev/nothing && test -z \"$NOTHING\"";
    let out = world.out(steps, &[LABS, "--allow", "device=v.com/d=nothing"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "1 injected /bin");
    assert!(lines[1].split(' ').any(|g| g == "4242"), "{out}");
    assert_eq!(lines[2..], ["character special file,1:3,666", "of the host"]);
    assert_eq!(host(&world)("rw/file"), "written\n");
}

/// /dev/kmsg is not among the devices that every step may open, and needs no capability to be written.
#[test]
fn only_the_given_device_can_be_opened_root() {
    let Some(world) = world() else { return };
    let steps = "RUN --device=v.com/d=log : > /devices/log && stat -c %a /devices/log > /out && \
                 mknod /mem c 1 1 && ! head -c1 /mem 2>/dev/null && mknod /fuse c 10 229 && ! (: > /fuse) 2>/dev/null";
    assert_eq!(world.out(steps, &[LABS, "--allow=device"]), "600\n");
    let without = world.build("FROM busybox\nRUN mknod /log c 1 11 && : > /log", &["--allow=device"]);
    let _ = without.failure();
    let limited = "RUN --device=v.com/d=log : > /devices/log && echo opened > /out";
    assert_eq!(world.out(limited, &[LABS, "--allow=device", "--memory=128m", "--no-cache"]), "opened\n");
}

#[test]
fn a_description_of_nvidia_is_done_root() {
    let Some(world) = world() else { return };
    let steps = "RUN --device=nvidia.com/gpu=0 set -e; exec > /out; echo $NVIDIA_VISIBLE_DEVICES; \
                 cat /usr/lib/x86_64-linux-gnu/libcuda.so; readlink /dev/dri/by-path/pci-0000:01:00.0-card; \
                 cat /etc/ld.so.cache; stat -c %a /dev/dri; echo x > /dev/nvidia0; \
                 stat -c %F,%t:%T /dev/nvidiactl /dev/nvidia-modeset /dev/dri/by-path/../card1\n\
                 RUN test ! -e /dev/dri && test ! -e /usr/lib/x86_64-linux-gnu/libcuda.so.1 && \
                 readlink /usr/lib/x86_64-linux-gnu/libcuda.so >> /out";
    let out = world.out(steps, &[LABS, "--allow", "device"]);
    let null = "character special file,1:3";
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["void", "of the host../card1", "/usr/lib/x86_64-linux-gnu"], "{out}");
    assert_eq!(lines[3..], ["750", null, null, null, "libcuda.so.1"], "{out}");
    let left = std::fs::read_dir(world.env.path().join("host")).unwrap().count();
    assert_eq!(left, 4, "the hooks wrote nowhere else");
}

#[test]
fn permissions_of_devices_are_kept_root() {
    if std::fs::File::open("/dev/fuse").is_err() {
        eprintln!("SKIPPED permissions_of_devices_are_kept_root: no /dev/fuse");
        return;
    }
    let Some(world) = world() else { return };
    let steps = "RUN --device=v.com/d=read-only exec > /out; (: < /dev/f) && echo read; (: > /dev/f) || echo not written; \
                 mknod /f c 10 229; (: > /f) || echo not written";
    assert_eq!(world.out(steps, &[LABS, "--allow=device"]), "read\nnot written\nnot written\n");
}

#[test]
fn devices_must_be_allowed_and_registered_root() {
    let Some(world) = world() else { return };
    let wants = |device: &str, args: &[&str]| {
        world.build(
            &format!("# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN --device={device},required true"),
            args,
        )
    };
    let denied = wants("v.com/d=nothing", &[]).failure().stderr;
    assert!(denied.contains("device v.com/d=nothing is requested by the build but not allowed"), "{denied}");
    assert!(denied.contains("--allow device=NAME"), "{denied}");
    let _ = wants("v.com/d=nothing", &["--allow", "device=v.com/d=log"]).failure();
    let _ = wants("gratis", &[]).success();
    let _ = wants("v.com/d=free", &[]).success();
    let _ = wants("gpu/any=x", &["--allow", "device=v.com/d=nothing,alias=gpu/any=x"]).success();
    for args in [&[][..], &["--allow", "device"]] {
        let missing = wants("no.com/d=such", args).failure().stderr;
        assert!(missing.contains("required device \"no.com/d=such\" is not registered"), "{missing}");
    }
    let interface = wants("v.com/d=eth", &["--allow", "device"]).failure().stderr;
    assert!(interface.contains("device v.com/d=eth: network interface net1 is not supported"), "{interface}");
    let hook = wants("v.com/d=bad-hook", &["--allow", "device"]).failure().stderr;
    assert!(
        hook.contains("createRuntime hook /") && hook.contains("unknown command no-such-command"),
        "{hook}"
    );
}

#[test]
fn without_devices_none_may_be_asked_for_root() {
    let Some(mut world) = common::world_without_daemon() else { return };
    let config = std::fs::read_to_string(world.env.path().join("kiln.toml")).unwrap();
    world.env.write("kiln.toml", format!("{config}[cdi]\ndisabled = true\n"));
    world.start();
    let refused = world.build("FROM busybox\nRUN true", &["--allow", "device"]).failure().stderr;
    assert!(refused.contains("granting entitlement device is not allowed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_tell_of_their_devices_root() {
    let Some(world) = world() else { return };
    let client = Client::connect(&world.env.socket()).await;
    let answer = ControlClient::new(client.0).list_workers(ListWorkersRequest::default()).await.unwrap();
    let devices = &answer.into_inner().record[0].cdi_devices;
    let names: Vec<&str> = devices.iter().map(|d| d.name.as_str()).collect();
    let all = ["bad-hook", "eth", "free", "log", "nothing", "read-only"].map(|d| format!("v.com/d={d}"));
    assert_eq!((names[0], &names[1..]), ("nvidia.com/gpu=0", &all.each_ref().map(String::as_str)[..]));
    assert!(devices[3].auto_allow && !devices[1].auto_allow);
    assert_eq!(devices[3].annotations["org.mobyproject.buildkit.device.class"], "gratis");
}

/// A graph that builds the graph in a file of its own.
fn nested(inner: &pb::Definition) -> pb::Definition {
    let make = pb::FileActionMkFile {
        path: "/buildkit.llb.definition".into(),
        mode: 0o644,
        data: inner.encode_to_vec(),
        ..pb::FileActionMkFile::default()
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(make)),
    };
    let mut graph = Graph::default();
    let file = graph.add(&[], pb::op::Op::File(pb::FileOp { actions: vec![action] }));
    let input = ("buildkit.llb.definition".to_string(), pb::BuildInput { input: 0 });
    let build = pb::BuildOp { builder: -1, inputs: [input].into(), ..pb::BuildOp::default() };
    let root = graph.add(&[&file], pb::op::Op::Build(build));
    graph.of(&root)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_that_a_step_wrote_may_do_no_more_root() {
    let Some(world) = world() else { return };
    let client = Client::connect(&world.env.socket()).await;
    let solve = async |id: &str, op: pb::ExecOp, entitlements: &[&str]| {
        let request = SolveRequest {
            r#ref: id.into(),
            definition: Some(nested(&raw::run_op(op))),
            entitlements: entitlements.iter().map(|e| (*e).to_string()).collect(),
            ..SolveRequest::default()
        };
        client.solve(request).await.map_err(|status| status.message().to_string())
    };
    let _ = solve("plain", raw::exec("true"), &[]).await.unwrap();
    let host = pb::ExecOp { network: pb::NetMode::Host.into(), ..raw::exec("true") };
    let refused = solve("host", host, &[]).await.unwrap_err();
    assert!(refused.contains("network.host is not allowed"), "{refused}");
    let device = || {
        let device = pb::CdiDevice { name: "v.com/d=nothing".into(), optional: false };
        pb::ExecOp { cdi_devices: vec![device], ..raw::exec("test $NOTHING = injected") }
    };
    let refused = solve("device", device(), &[]).await.unwrap_err();
    assert!(refused.contains("requested by the build but not allowed"), "{refused}");
    let _ = solve("granted", device(), &["device=v.com/d=nothing"]).await.unwrap();
    let mut graph = Graph::default();
    let identifier = "http://127.0.0.1:1/denied".to_string();
    let root = graph.add(&[], pb::op::Op::Source(pb::SourceOp { identifier, ..pb::SourceOp::default() }));
    let selector = Selector { identifier: "http://*".into(), ..Selector::default() };
    let rule = Rule { action: PolicyAction::Deny.into(), selector: Some(selector), updates: None };
    let request = SolveRequest {
        r#ref: "policy".into(),
        definition: Some(nested(&graph.of(&root))),
        source_policy: Some(Policy { rules: vec![rule], ..Policy::default() }),
        ..SolveRequest::default()
    };
    let denied = client.solve(request).await.unwrap_err();
    assert!(denied.message().contains("denied by policy"), "{denied:?}");
}
