//! The store, against files as buildx writes them.

use std::sync::Arc;

use futures::FutureExt as _;
use kiln_client::Address;

use super::*;

const INSTANCE: &str = r#"{"Name":"b","Driver":"docker-container","Nodes":[{"Name":"b0","Endpoint":"unix:///var/run/docker.sock","Platforms":[{"architecture":"arm64","os":"linux"}],"DriverOpts":{"image":"x"},"Flags":["--debug"],"Files":{"buildkitd.toml":"eA=="}}],"Dynamic":false}"#;

struct Fixture {
    dir: tempfile::TempDir,
    world: World,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap().to_owned();
    let env = move |name: &str| (name == "DOCKER_CONFIG").then(|| home.clone());
    let docker = Docker::load(&env, &Flags::default()).unwrap();
    let config = ConfigDir::new(&env, docker.dir());
    let start = Arc::new(|| async { Err(Error::Invalid("not here".into())) }.boxed());
    let own = OwnDaemon { address: Address::Unix("/nonexistent/kiln.sock".into()), start };
    Fixture { world: World { docker, config, own }, dir }
}

#[test]
fn instances_of_buildx_are_read_and_written_alike() {
    let f = fixture();
    let store = f.world.store().unwrap();
    let path = f.dir.path().join("buildx/instances/b");
    std::fs::write(&path, INSTANCE).unwrap();
    let instance = store.get("B").unwrap().unwrap();
    assert_eq!(instance.nodes[0].files().collect::<Vec<_>>(), [("buildkitd.toml", &b"x"[..])]);
    assert_eq!(instance.nodes[0].platforms()[0].to_string(), "linux/arm64");
    store.save(&instance).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), INSTANCE);
    let empty = r#"{"Name":"c","Driver":"remote","Nodes":[{"Name":"c0","Endpoint":"tcp://h:1","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}],"Dynamic":false}"#;
    std::fs::write(f.dir.path().join("buildx/instances/c"), empty).unwrap();
    let c = store.get("c").unwrap().unwrap();
    assert_eq!(serde_json::to_string(&c).unwrap(), empty);
    assert!(store.last_activity("b").unwrap().is_some());
    assert_eq!(store.list().unwrap().len(), 2);
    store.remove("b").unwrap();
    assert!(!path.exists() && store.last_activity("b").unwrap().is_none());
}

#[test]
fn broken_instances_are_named() {
    let f = fixture();
    let store = f.world.store().unwrap();
    std::fs::write(f.dir.path().join("buildx/instances/b"), "{").unwrap();
    assert!(store.get("b").unwrap_err().to_string().starts_with("builder b: instances/b: EOF"));
    let error = store.get("../b").unwrap_err().to_string();
    assert_eq!(
        error,
        "invalid name ../b, name needs to start with a letter and may not contain symbols, except ._-"
    );
}

#[test]
fn the_current_builder_belongs_to_an_endpoint() {
    let f = fixture();
    let store = f.world.store().unwrap();
    let instance =
        |name: &str| Instance { name: name.into(), driver: "remote".into(), ..Instance::default() };
    store.save(&instance("a")).unwrap();
    store.save(&instance("b")).unwrap();
    let current = |key: &str| store.current(key).unwrap().map(|i| i.name);
    store.set_current("here", "a", Reach::default()).unwrap();
    assert_eq!((current("here"), current("there")), (Some("a".into()), None));
    store.set_current("here", "a", Reach { global: true, default: false }).unwrap();
    assert_eq!(current("there"), Some("a".into()));
    store.set_current("here", "b", Reach { global: false, default: true }).unwrap();
    store.set_current("there", "a", Reach::default()).unwrap();
    assert_eq!(current("here"), Some("b".into()));
    store.remove("b").unwrap();
    assert_eq!(current("here"), None);
}

#[test]
fn names_lead_to_instances_and_contexts() {
    let f = fixture();
    let meta = f.dir.path().join("contexts/meta");
    let id = "dc2b83ea06e9b59aec2a3ce1ae6ac1d1cca2d46a1d4a6f0e9b4ba1a1e0a9bf0a";
    std::fs::create_dir_all(meta.join(id)).unwrap();
    let context =
        r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far:1","SkipTLSVerify":false}}}"#;
    std::fs::write(meta.join(id).join("meta.json"), context).unwrap();
    assert_eq!(f.world.docker.contexts().unwrap(), ["default", "far"]);
    let store = f.world.store().unwrap();
    let builder = f.world.find(&store, None).unwrap();
    assert!(builder.instance.is_context);
    assert_eq!(builder.instance.name, "default");
    assert_eq!(f.world.find(&store, Some("x")).unwrap_err().to_string(), "no builder \"x\" found");
    let error = f.world.find_usable(&store, Some("far")).unwrap_err().to_string();
    assert_eq!(error, "use `docker --context=far buildx` to switch to context \"far\"");
}

#[test]
fn hosts_and_contexts_of_the_docker_cli() {
    let load = |env: &'static [(&'static str, &'static str)], flags: Flags| {
        let env = move |name: &str| {
            let all = env.iter().chain(&[("DOCKER_CONFIG", "/nonexistent")]);
            all.clone().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        };
        Docker::load(env, &flags)
    };
    let both = Flags { host: Some("h".into()), context: Some("c".into()), ..Flags::default() };
    assert!(load(&[], both).is_err());
    let docker = load(&[("DOCKER_HOST", "tcp://h:1"), ("DOCKER_CONTEXT", "c")], Flags::default()).unwrap();
    assert_eq!((docker.current(), docker.current_key().unwrap().as_str()), ("default", "tcp://h:1"));
    let flags = Flags { context: Some("c".into()), ..Flags::default() };
    assert_eq!(load(&[("DOCKER_HOST", "tcp://h:1")], flags).unwrap().current(), "c");
    let docker = load(&[("DOCKER_CONTEXT", "c")], Flags::default()).unwrap();
    assert_eq!(docker.current_key().unwrap(), "c");
    let docker = load(&[], Flags::default()).unwrap();
    assert_eq!(docker.current_key().unwrap(), "unix:///var/run/docker.sock");
}

#[tokio::test]
async fn creating_and_leaving() {
    let f = fixture();
    let store = f.world.store().unwrap();
    let request = |name: &str, endpoint: &str| CreateRequest {
        name: name.into(),
        driver: "remote".into(),
        endpoint: endpoint.into(),
        ..CreateRequest::default()
    };
    let create = async |request: CreateRequest| {
        let created = f.world.create(&store, &request).await;
        created.map(|(b, _)| b.instance).map_err(|e| e.to_string())
    };
    let made =
        create(CreateRequest { select: true, ..request("My", "unix:///nonexistent/s") }).await.unwrap();
    assert_eq!((made.name.as_str(), made.nodes[0].name.as_str()), ("my", "my0"));
    assert_eq!(f.world.find(&store, None).unwrap().instance.name, "my");
    let error = create(request("my", "unix:///nonexistent/t")).await.unwrap_err();
    assert!(error.starts_with("existing instance for \"my\" but no append mode"), "{error}");
    let more = CreateRequest { append: true, ..request("my", "unix:///nonexistent/t") };
    assert_eq!(create(more.clone()).await.unwrap().nodes[1].name, "my1");
    assert_eq!(create(more).await.unwrap_err(), "invalid duplicate endpoint unix:///nonexistent/t");
    let wrong = CreateRequest { driver_opts: vec!["a=b".into()], ..request("z", "unix:///nonexistent/u") };
    let error = create(wrong).await.unwrap_err();
    assert_eq!(error, "failed to initialize builder z (z0): invalid driver option a for remote driver");
    assert!(store.get("z").unwrap().is_none());
    assert!(create(request("default", "unix:///x")).await.unwrap_err().contains("reserved name"));
    assert_eq!(create(request("q", "")).await.unwrap_err(), "no remote endpoint provided");
    let odd = CreateRequest { driver: "kubernetes".into(), ..request("k", "") };
    assert!(create(odd).await.unwrap_err().starts_with("driver kubernetes is not built yet"));
    f.world.leave(&store, "my", "my1").unwrap();
    let error = f.world.leave(&store, "my", "my0").unwrap_err().to_string();
    assert_eq!(error, "can not leave last node, do you want to rm instance instead?");
}

#[test]
fn refs_stay_in_their_directory() {
    let f = fixture();
    let refs = Refs::new(&f.world.config);
    let build =
        BuildRef { target: "default".into(), local_path: "/c".into(), dockerfile_path: "/c/D".into() };
    refs.save("b", "b0", "id", &build).unwrap();
    let path = f.dir.path().join("buildx/refs/b/b0/id");
    let text = r#"{"Target":"default","LocalPath":"/c","DockerfilePath":"/c/D"}"#;
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    assert!(refs.save("b", "../x", "id", &build).is_err());
    refs.remove_builder("b").unwrap();
    assert!(!f.dir.path().join("buildx/refs/b").exists());
}

proptest::proptest! {
    /// Files of builders are the user's, and other programs write them too.
    #[test]
    fn any_instance_is_read_or_refused(cut in 0..INSTANCE.len(), put in ".{0,12}|null|-1|\\[\\]|\\{\\}", skip in 0..30_usize) {
        let end = (cut + skip).min(INSTANCE.len());
        let text = format!("{}{put}{}", &INSTANCE[..cut], &INSTANCE[end..]);
        let f = fixture();
        let store = f.world.store().unwrap();
        std::fs::write(f.dir.path().join("buildx/instances/b"), text).unwrap();
        // The name in the file may be any: nothing is written elsewhere.
        if let Ok(Some(instance)) = store.get("b") {
            let _ = store.save(&instance);
            let _ = store.touch(&instance);
        }
        let _ = store.list();
        let names: Vec<_> = std::fs::read_dir(f.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["buildx"]);
    }
}
