//! Driver `docker-container`: a daemon in a container of a Docker Engine (spec daemon-and-cli.md section 6).

use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kiln_client::{Client, DockerConfig};

use super::container_options::Options;
use super::{Removal, Status, files_tar};
use crate::Error;
use crate::docker::Docker;
use crate::engine::{ContainerSpec, Demux, Engine};
use crate::instance::Node;
use crate::steps::{Steps, Vertex};

/// What runs when no image is named.
const DEFAULT_IMAGE: &str = "moby/buildkit:buildx-stable-1";
const STATE_DIR: &str = "/var/lib/buildkit";
const CONFIG_FILE: &str = "buildkitd.toml";
/// Attempts to reach a daemon that was started; the n-th failure is followed by n pauses.
const ATTEMPTS: u32 = 15;
const PAUSE: Duration = Duration::from_millis(120);

/// A daemon in a container.
#[derive(Clone, Debug)]
pub struct Container {
    name: String,
    engine: Engine,
    node: Node,
    logins: DockerConfig,
    pub(super) options: Options,
}

impl Container {
    pub(super) fn new(node: &Node, engine: Engine, docker: &Docker) -> Result<Self, Error> {
        let logins = DockerConfig::load(docker.dir()).map_err(Error::file("read", docker.dir()))?;
        let name = format!("buildx_buildkit_{}", node.name);
        Ok(Self { name, engine, node: node.clone(), logins, options: Options::new(node)? })
    }

    fn volume(&self) -> String {
        format!("{}_state", self.name)
    }

    pub(super) async fn status(&self) -> Result<Status, Error> {
        Ok(match self.engine.container(&self.name).await? {
            None => Status::Inactive,
            Some(c) if c.state.running => Status::Running,
            Some(_) => Status::Stopped,
        })
    }

    /// Makes or starts the container and waits for its daemon.
    pub(super) async fn boot(&self, steps: &Steps) -> Result<(), Error> {
        steps
            .vertex("[internal] booting buildkit", |vertex| async move { self.bring_up(&vertex).await })
            .await
    }

    async fn bring_up(&self, vertex: &Vertex) -> Result<(), Error> {
        if self.engine.container(&self.name).await?.is_some() {
            let start = async {
                self.engine.start_container(&self.name).await?;
                self.wait(vertex).await
            };
            return vertex.step(&format!("starting container {}", self.name), start).await;
        }
        let image = self.options.image.as_deref().unwrap_or(DEFAULT_IMAGE);
        let pull = self.engine.pull(image, &self.logins);
        let pulled = vertex.step(&format!("pulling image {image}"), pull).await;
        if let Err(error) = pulled {
            if !self.engine.has_image(image).await? {
                return Err(error);
            }
            vertex.step(&format!("using local image {image}"), async { Ok(()) }).await?;
        }
        vertex.step(&format!("creating container {}", self.name), self.create(image, vertex)).await
    }

    async fn create(&self, image: &str, vertex: &Vertex) -> Result<(), Error> {
        let mut host = self.options.host(&self.volume(), STATE_DIR);
        if let Ok(info) = self.engine.info().await {
            if info.cgroup_driver == "cgroupfs" {
                // One group for the work of all builders, so that it can be limited.
                host["CgroupParent"] =
                    self.options.cgroup_parent.as_deref().unwrap_or("/docker/buildx").into();
            }
            let remaps = info.security_options.unwrap_or_default();
            if remaps.iter().any(|o| o.split(',').any(|p| p == "name=userns")) {
                host["UsernsMode"] = "host".into();
            }
        }
        let spec = ContainerSpec { config: self.options.config(image, &self.command()), host };
        if self.engine.create_container(&self.name, spec).await? {
            let archive = files_tar::archive(self.node.files())?;
            self.engine.copy_to(&self.name, "/etc", archive).await?;
            self.engine.start_container(&self.name).await?;
        }
        self.wait(vertex).await
    }

    /// Flags of the daemon. The place of its configuration is said: the image may have another default.
    fn command(&self) -> Vec<String> {
        let has_config = self.node.files().any(|(name, _)| name == CONFIG_FILE);
        let config = ["--config".to_owned(), format!("/etc/buildkit/{CONFIG_FILE}")];
        config.into_iter().filter(|_| has_config).chain(self.node.flags().iter().cloned()).collect()
    }

    /// Waits until the daemon answers its own client.
    async fn wait(&self, vertex: &Vertex) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let ran = self.engine.run(&self.name, &["buildctl", "debug", "workers"]).await;
            let is_last = attempt > ATTEMPTS;
            match ran {
                Ok(ran) if ran.exit_code == 0 => return Ok(()),
                Ok(ran) if is_last => {
                    self.show_logs(vertex).await;
                    vertex.log(1, &ran.stdout).await;
                    vertex.log(2, &ran.stderr).await;
                    return Err(Error::Invalid(format!("exit code {}", ran.exit_code)));
                }
                Err(e) if is_last => {
                    self.show_logs(vertex).await;
                    return Err(e);
                }
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn show_logs(&self, vertex: &Vertex) {
        if let Ok((stdout, stderr)) = self.engine.logs(&self.name).await {
            vertex.log(1, &stdout).await;
            vertex.log(2, &stderr).await;
        }
    }

    pub(super) async fn stop(&self) -> Result<(), Error> {
        match self.status().await? {
            Status::Running => self.engine.stop_container(&self.name).await,
            Status::Inactive | Status::Stopped => Ok(()),
        }
    }

    pub(super) async fn remove(&self, what: Removal) -> Result<(), Error> {
        let Some(container) = self.engine.container(&self.name).await? else { return Ok(()) };
        if !what.daemon {
            return Ok(());
        }
        self.engine.remove_container(&self.name).await?;
        let volume = self.volume();
        if what.state && container.mounts.iter().any(|m| m.name == volume) {
            self.engine.remove_volume(&volume).await?;
        }
        Ok(())
    }

    pub(super) async fn dial(&self) -> Result<Demux<TokioIo<Upgraded>>, Error> {
        let (_, stream) = self.engine.exec(&self.name, &["buildctl", "dial-stdio"]).await?;
        Ok(Demux::new(stream))
    }

    pub(super) async fn client(&self) -> Result<Client, Error> {
        let stream = self.dial().await?;
        let failed = |e: std::io::Error| Error::Invalid(format!("connect to {}: {e}", self.name));
        Client::from_stream(stream).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Endpoint;

    fn container(node: Node) -> Result<Container, Error> {
        let engine = Engine::new(&Endpoint::at("unix:///x"))?;
        let options = Options::new(&node)?;
        Ok(Container { name: "b".into(), engine, node, logins: DockerConfig::default(), options })
    }

    fn with_options(options: &[(&str, &str)]) -> Node {
        let map = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Node { driver_opts: Some(map), ..Node::default() }
    }

    #[test]
    fn options_become_the_container() {
        let node = with_options(&[
            ("env.A", "b=c"),
            ("memory", "1g"),
            ("memory-swap", "-1"),
            ("network", "host"),
            ("restart-policy", "on-failure:3"),
        ]);
        let c = container(node).unwrap();
        let (config, host) = (c.options.config("i", &c.command()), c.options.host("v", STATE_DIR));
        assert_eq!(config.to_string(), r#"{"Image":"i","Env":["A=b=c"],"Cmd":[]}"#);
        let expected = concat!(
            r#"{"Privileged":true,"Init":true,"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"#,
            r#""Mounts":[{"Type":"volume","Source":"v","Target":"/var/lib/buildkit"}],"#,
            r#""NetworkMode":"host","Memory":1073741824,"MemorySwap":-1}"#
        );
        assert_eq!(host.to_string(), expected);
    }

    #[test]
    fn unknown_options_are_named() {
        let error = |k, v| container(with_options(&[(k, v)])).unwrap_err().to_string();
        assert_eq!(error("foo", "x"), "invalid driver option foo for docker-container driver");
        assert_eq!(error("env.", "x"), "invalid env option \"env.\", expecting env.FOO=bar");
        assert!(error("memory", "lots").contains("invalid size: 'lots'"));
        assert!(error("restart-policy", "never").contains("expected no, always"));
    }

    #[test]
    fn the_configuration_comes_before_the_users_flags() {
        let files = [(CONFIG_FILE.to_owned(), Vec::new())].into();
        let node = Node { files: Some(files), flags: Some(vec!["--debug".into()]), ..Node::default() };
        assert_eq!(
            container(node).unwrap().command(),
            ["--config", "/etc/buildkit/buildkitd.toml", "--debug"]
        );
    }
}
