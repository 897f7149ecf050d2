//! Keys of the Go implementation (spec llb-and-solver section 9).

use super::*;
use crate::ActionInput::{Action, Op as In};
use crate::cachekey::*;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn exec(args: &[&str], env: &[&str], cwd: &str, mounts: Vec<Mount>) -> Op {
    let list = |l: &[&str]| l.iter().map(|s| s.to_string()).collect();
    let meta = ExecMeta {
        args: list(args),
        env: list(env),
        cwd: cwd.into(),
        remove_mount_stubs_recursive: true,
        ..Default::default()
    };
    Op::Exec(ExecOp { meta, mounts, ..Default::default() })
}

fn root(input: Option<usize>) -> Mount {
    Mount { input, dest: "/".into(), output: Some(0), ..Default::default() }
}

fn key(op: Op, inputs: usize) -> Digest {
    op_digest(&vertex(op, inputs), &amd64()).unwrap()
}

#[test]
fn a_plain_run() {
    let op = exec(&["/bin/sh", "-c", "echo hi"], &[PATH], "/", vec![root(None)]);
    assert_eq!(key(op, 0), digest("c05fad748a0f082e241255d2becc8afbe482abefbd6bec68e15355f18490465c"));
}

#[test]
fn a_platform_counts_in_its_usual_spelling() {
    let key = |os: &str, architecture: &str| {
        let op = exec(&["x"], &[], "/", vec![root(None)]);
        let vertex = Vertex { platform: Some(Platform::new(os, architecture)), ..vertex(op, 0) };
        op_digest(&vertex, &amd64()).unwrap()
    };
    assert_eq!(key("Linux", "x86_64"), key("linux", "amd64"));
    assert_eq!(key("", "amd64"), key("linux", "amd64"), "without a system it is this machine's");
    assert_ne!(key("linux", "arm64"), key("linux", "amd64"));
}

#[test]
fn a_run_with_mounts() {
    let cache = MountKind::Cache { id: "//root/.cache".into(), sharing: CacheSharing::Shared };
    let secret =
        MountKind::Secret(SecretOpt { id: "s".into(), mode: 0o400, optional: true, ..Default::default() });
    let ssh = MountKind::Ssh(SshOpt { mode: 0o600, optional: true, ..Default::default() });
    let at = |dest: &str, kind| Mount { dest: dest.into(), kind, ..Default::default() };
    let mounts = vec![
        root(Some(0)),
        at("/root/.cache", cache),
        Mount { input: Some(1), selector: "/x".into(), readonly: true, ..at("/x", MountKind::Bind) },
        at("/run/secrets/s", secret),
        at("/run/buildkit/ssh_agent.0", ssh),
    ];
    let env = [PATH, "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"];
    let v = vertex(exec(&["/bin/sh", "-c", "cmd <&1"], &env, "/app", mounts), 2);
    let want = digest("d0820be6391d4eec1a77811d691a01dd3ea5430b314e3fecfcbcbcc2cfcbe76f");
    assert_eq!(op_digest(&v, &amd64()).unwrap(), want);
    let deps = deps(&v).unwrap();
    assert_eq!(deps[0], DepKey { selector: Some(Digest::sha256("/")), content: None });
    assert_eq!(deps[1].selector, Some(Digest::sha256("/x")));
    let content = ContentSelector { path: "/x".into(), follow_links: true, ..Default::default() };
    assert_eq!(deps[1].content, Some(vec![content]));
}

#[test]
fn a_run_with_a_seeded_cache() {
    let kind = MountKind::Cache { id: "zz".into(), sharing: CacheSharing::Locked };
    let cache =
        Mount { input: Some(0), selector: "/cache".into(), dest: "/c".into(), kind, ..Default::default() };
    let v = vertex(exec(&["/bin/sh", "-c", "x"], &[PATH, "V=1", "A=b"], "/", vec![root(None), cache]), 1);
    let want = digest("e99ddd00e383f89b5fe20aaf45f9223963046bb1fadea784ffff81bceabad966");
    assert_eq!(op_digest(&v, &amd64()).unwrap(), want);
    assert_eq!(deps(&v).unwrap()[0].selector, Some(Digest::sha256("/cache")));
}

#[test]
fn what_does_not_count_in_a_run() {
    let with = |change: fn(&mut ExecOp)| {
        let mut op =
            exec(&["x"], &[], "/", vec![root(Some(0)), Mount { dest: "/m".into(), ..root(Some(0)) }]);
        if let Op::Exec(e) = &mut op {
            change(e);
        }
        key(op, 1)
    };
    let base = with(|_| ());
    assert_eq!(with(|e| e.meta.proxy_env = Some(ProxyEnv::default())), base);
    assert_eq!(with(|e| e.mounts[1].selector = "/s".into()), base);
    assert_eq!(
        with(|e| e.meta.extra_hosts = vec![HostIp { host: "h".into(), ip: "1.1.1.1".into() }]),
        with(|e| e.meta.extra_hosts = vec![HostIp { host: "h".into(), ip: "2.2.2.2".into() }])
    );
    assert_ne!(with(|e| e.network = NetMode::Host), base);
    assert_ne!(with(|e| e.mounts[1].readonly = true), base);
}

#[test]
fn unsafe_content_comparison_is_refused() {
    let bad =
        Mount { selector: "/s".into(), dest: "/m".into(), content_cache: ContentCache::On, ..root(Some(0)) };
    let v = vertex(exec(&["x"], &[], "/", vec![root(Some(0)), bad]), 1);
    assert_eq!(deps(&v), Err(KeyError::UnsafeContentCache("/m".into())));
}

#[test]
fn copies() {
    let op = Op::File(FileOp {
        actions: vec![
            action(None, Some(In(0)), None, copy("/a", "/dst/")),
            action(Some(Action(0)), Some(In(0)), Some(0), copy("/b", "/dst/")),
        ],
    });
    let v = vertex(op, 1);
    let want = digest("75440b5660e74289c9c228877b2e2085038e6fb7e546c6cc8bb9f7202a0d5cb2");
    assert_eq!(op_digest(&v, &amd64()).unwrap(), want);
    let dep = deps(&v).unwrap().remove(0);
    assert_eq!(dep.selector, Some(Digest::sha256("/b\0/a")));
    let paths: Vec<_> = dep.content.unwrap().into_iter().map(|s| s.path).collect();
    assert_eq!(paths, ["/a", "/b"]);

    let on_stage =
        Op::File(FileOp { actions: vec![action(Some(In(0)), Some(In(1)), Some(0), copy("/a", "/dst/"))] });
    let v = vertex(on_stage, 2);
    let want = digest("dd5c89f4d7608dbc12b2ec79473f3d14680eb3b35f895ee0ad0ca10df954af90");
    assert_eq!(op_digest(&v, &amd64()).unwrap(), want);
    let found = deps(&v).unwrap();
    assert_eq!(found[0], DepKey::default());
    assert_eq!(found[1].selector, Some(Digest::sha256("/a")));
}

#[test]
fn copies_with_owner() {
    let id = Some(UserOpt::Id(1000));
    let mut c = copy("/a", "/dst/");
    c.mode = FileMode::Bits(0o755);
    c.owner = Some(ChownOpt { user: id.clone(), group: id });
    let op = Op::File(FileOp { actions: vec![action(None, Some(In(0)), Some(0), c)] });
    assert_eq!(key(op, 1), digest("0d4c423939b50c6ca8fb5f905d289d0599a91d6c9930efd9c755132e86a10fc4"));

    let name = |n: &str| Some(UserOpt::Name { name: n.into(), input: Some(In(0)) });
    let mut c = copy("/a", "/dst/");
    c.owner = Some(ChownOpt { user: name("u"), group: name("g") });
    let v = vertex(Op::File(FileOp { actions: vec![action(Some(In(0)), Some(In(1)), Some(0), c)] }), 2);
    let want = digest("136388f6ae7d01648a72c843052e2cf21516d90b2f65953ad6d39872ac8568e2");
    assert_eq!(op_digest(&v, &amd64()).unwrap(), want);
    assert_eq!(deps(&v).unwrap()[0], DepKey::default());
}

#[test]
fn workdir_and_merge() {
    assert_eq!(
        key(workdir("/x"), 0),
        digest("2b653200237a73945f834551201fade724f492d0f8fdcb61181107ab9b43a594")
    );
    let merge = Op::Merge(MergeOp { inputs: vec![Some(0), Some(1)] });
    assert_eq!(key(merge, 2), digest("436287a2dc2ce494f564331be9ea3a9f27ebec398567877043da2f618f33d6c8"));
}

#[test]
fn root_and_content_keys() {
    let foo = Digest::sha256("foo");
    assert_eq!(root_key(&foo, 0), digest("9b33d7158456f4029a31acce539a475537fd97242e02e3f98add3d26322e2686"));
    assert_eq!(
        root_key(&foo, -1),
        digest("afd857754863d340ca78995ad7d030056d58a7f3ad99e778b906ac768d427a74")
    );
    assert_eq!(root_key(&foo.to_random(), 0), foo.to_random());
    let data0 = digest("cd8e75bca50f2d695f220d0cb0997d8ead387e4f926e8669a92d7f104cc9885b");
    let content = content_digest(&[data0]);
    assert_eq!(content, digest("5dfbff503f5420b974c042ac3d7aeb87927756727baf7ece30fb27e2bb81bf10"));
    assert_eq!(
        root_key(&content, -1),
        digest("b88a9c4243282beb112eb41ce8173ef66efdfac809f808f826115cb460439689")
    );
}

#[test]
fn source_keys() {
    let manifest = Digest::from_sha256_bytes([0x11; 32]);
    let k = image_key(&ImageKey { digest: &manifest, platform: &amd64(), layer_limit: None });
    assert_eq!(k, digest("6cd800b783d04a21b01488cdf5267bcce0f40f4ec9cd7b227f8d18b3597bcddf"));
    let want = digest("3134c2a0a9f2f3f7584094056ad15239ee78ceb54d2407599b8888c21296fb64");
    assert_eq!(source_digest(&k.to_string()), want);

    let commit = "a".repeat(40);
    let git = git_key(&GitKey { sha: &commit, ..Default::default() });
    assert_eq!(
        source_digest(&git),
        digest("3efa8f2dcb5ffbad0afd3658eb383c0482c14bb38bcb6b8ec6e6b08e626f7fc5")
    );
    let all = GitKey {
        sha: "c",
        keep_git_dir: true,
        reference: "r",
        subdir: "d",
        skip_submodules: true,
        commit_mtime: true,
        bundle: true,
    };
    assert_eq!(git_key(&all), "c.git#r:d(skip-submodules)(mtime=commit)(bundle)");

    let local = local_key(&LocalKey { name: "context", session_id: "s", ..Default::default() });
    let json = r#"{"SessionID":"s","IncludePatterns":null,"ExcludePatterns":null,"FollowPaths":null}"#;
    assert_eq!(local, format!("session:context:{}", Digest::sha256(json)));
    assert!(source_digest(&local).is_random());
}

#[test]
fn selectors_of_copies_keep_their_filters() {
    let mut filtered = copy("/src", "/");
    filtered.exclude_patterns = vec!["*.o".into()];
    let actions = vec![
        action(None, Some(In(0)), None, filtered),
        action(Some(Action(0)), Some(In(0)), None, copy("/a/*", "/")),
        action(Some(Action(1)), Some(In(0)), None, copy("/a/b", "/")),
        action(Some(Action(2)), Some(In(0)), Some(0), copy("/a", "/")),
    ];
    let found = deps(&vertex(Op::File(FileOp { actions }), 1)).unwrap().remove(0).content.unwrap();
    let shown: Vec<_> =
        found.iter().map(|s| (s.path.as_str(), s.wildcard, s.exclude_patterns.len())).collect();
    assert_eq!(shown, [("/a", false, 0), ("/a/*", true, 0), ("/src", false, 1)]);
}
